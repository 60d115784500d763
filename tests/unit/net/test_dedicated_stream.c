/* Streams of their own beside a session: how each is decided, by either role, and every way it can fail.
 * Client and server are the real ones, over loopback. docs/spec/http.md section 4. */
#include <fcntl.h>

#include "tests/unit/net/dedicated_rig.h"
#include "tests/unit/runtime/scarce.h"

static const struct row {
    uint64_t up, down; /* bytes from the client, and to it */
} rows[] = {{3000000, 3000000}, {0, 1}, {1, 0}, {0, 0}, {100000, 0}, {0, 2000000}, {32768, 65532}};

/* --- the ordinary course --------------------------------------------------------------------- */

static void run_all(bool by_server, bool dedicate)
{
    for (size_t i = 0; i < BM_ARRAY_LEN(rows); i++) {
        begin(NULL);
        serves = by_server;
        here.wants = rows[i].up;
        there.wants = rows[i].down;
        test_note("%llu up, %llu down", (unsigned long long)here.wants,
                  (unsigned long long)there.wants);
        REQUIRE_INT(attach(dedicate), 0);
        if (here.wants == 0 && !serves)
            beam_stream_end(here.stream);
        RIG_UNTIL(answer.count > 0);
        if (here.wants == 0 && serves)
            beam_stream_end(here.stream);
        if (there.wants == 0)
            beam_stream_end(there.stream);
        expect_all(dedicate);
        CHECK_UINT(rig.streams, dedicate);
        free_sides();
        rig_drain();
        rig_end();
    }
}

TEST(a_stream_of_the_client_flows_beside_the_session)
{
    run_all(false, true);
}

TEST(a_stream_of_the_server_flows_beside_the_session)
{
    run_all(true, true);
}

TEST(a_stream_that_was_not_dedicated_stays_in_the_session)
{
    run_all(false, false);
}

TEST(a_websocket_has_no_streams_beside_it)
{
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = BEAM_NET_UPGRADE);
    begin(&net);
    here.wants = there.wants = 100000;
    REQUIRE_INT(attach(true), 0);
    expect_all(false);
    CHECK_UINT(rig.streams, 0);
    end();
}

TEST(many_streams_flow_side_by_side_and_the_rest_in_the_session)
{
    enum { MANY = BM_DEDICATED_STREAMS_MAX + 6 };
    static struct side all_here[MANY], all_there[MANY];
    begin(NULL);
    for (unsigned i = 0; i < MANY; i++) {
        here = there = (struct side){.wants = 1, .stays = true};
        REQUIRE_INT(attach(true), 0);
        RIG_UNTIL(here.got == 1 && there.got == 1);
        CHECK(there.apart == (i < BM_DEDICATED_STREAMS_MAX));
        all_here[i] = here;
        all_there[i] = there;
        beam_stream_set_handlers(here.stream, &side_handlers, &all_here[i]);
        beam_stream_set_handlers(there.stream, &side_handlers, &all_there[i]);
    }
    CHECK_UINT(rig.streams, BM_DEDICATED_STREAMS_MAX);
    for (unsigned i = 0; i < MANY; i++) {
        beam_stream_end(all_here[i].stream);
        beam_stream_end(all_there[i].stream);
    }
    for (unsigned i = 0; i < MANY; i++) {
        RIG_UNTIL(all_here[i].ends > 0 && all_there[i].ends > 0);
        CHECK_INT(all_here[i].code, BEAM_OK);
        CHECK_INT(all_there[i].code, BEAM_OK);
        beam_stream_free(all_here[i].stream);
        beam_stream_free(all_there[i].stream);
    }
    /* Those that have ended make room. */
    here = there = (struct side){.wants = 100};
    REQUIRE_INT(attach(true), 0);
    expect_all(true);
    end();
}

TEST(a_stream_that_was_attached_before_there_was_a_session_flows_beside_it)
{
    here = there = (struct side){.wants = 100000};
    serves = false;
    rig_begin(false);
    REQUIRE_INT(beam_serve(rig.runtime, "take", on_take, NULL), 0);
    rig_connect("http", NULL);
    REQUIRE_INT(attach(true), 0);
    CHECK_UINT(rig.opens, 0);
    expect_all(true);
    CHECK_UINT(rig.streams, 1);
    end();
}

TEST(the_request_for_a_stream_says_who_asks)
{
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.token = "secret");
    begin(&net);
    here.wants = 10;
    there.wants = 10;
    rig.authorization[0] = '\0';
    REQUIRE_INT(attach(true), 0);
    expect_all(true);
    CHECK_STR(rig.authorization, "Bearer secret");
    end();
}

/* --- decided for the session ----------------------------------------------------------------- */

static void decline(bool by_server, unsigned status, bool asked_again)
{
    begin(NULL);
    serves = by_server;
    rig.stream_status = status;
    for (unsigned i = 0; i < 2; i++) {
        here = (struct side){.wants = i == 0 ? 0 : 200000, .stays = true};
        there = (struct side){.wants = 100000, .stays = true};
        test_note("%u, stream %u", status, i);
        REQUIRE_INT(attach(true), 0);
        RIG_UNTIL(here.got == there.wants && there.got == here.wants);
        CHECK(!here.apart && !there.apart);
        beam_stream_end(here.stream);
        beam_stream_end(there.stream);
        expect_all(false);
        free_sides();
    }
    CHECK_UINT(rig.streams, asked_again ? 2 : 1);
    rig_drain();
    end();
}

TEST(any_other_answer_leaves_it_in_the_session)
{
    static const struct {
        unsigned status;
        bool again;
    } answers[] = {{404, false}, {421, false}, {403, false}, {401, false}, {405, false},
                   {409, true},  {410, true},  {429, true},  {503, true},  {200, false}};
    for (size_t i = 0; i < BM_ARRAY_LEN(answers); i++) {
        decline(false, answers[i].status, answers[i].again);
        decline(true, answers[i].status, answers[i].again);
    }
}

TEST(no_answer_in_time_leaves_it_in_the_session)
{
    for (unsigned i = 0; i < 2; i++) {
        begin(NULL);
        serves = i == 1;
        rig.stream_status = 1;
        here.wants = there.wants = 100000;
        REQUIRE_INT(attach(true), 0);
        RIG_UNTIL(rig.streams == 1 && answer.count == 1);
        rig_skip(BM_DEDICATED_ANSWER_NS - BM_NS_PER_S);
        CHECK_UINT(here.got + there.got, 0);
        rig_skip(2 * BM_NS_PER_S);
        expect_all(false);
        end();
    }
}

TEST(a_connection_without_room_leaves_it_in_the_session)
{
    begin(NULL);
    here.wants = there.wants = 1000;
    struct bm_net_session_owner owner = *client()->owner;
    owner.ask = NULL;
    const struct bm_net_session_owner *before = client()->owner;
    client()->owner = &owner;
    serves = true; /* whose offer the client cannot take */
    REQUIRE_INT(attach(true), 0);
    expect_all(false);
    client()->owner = before;
    CHECK_UINT(rig.streams, 0);
    end();
}

static bool late_answer;

/* The client's time is over while the request, or its answer, is under way. */
static void give_up_waiting(bool answered)
{
    if (answered != late_answer)
        return;
    struct bm_timer *timer = &stream_of(&here)->timer;
    CHECK_INT(stream_of(&here)->state, BM_DEDICATED_ASKED);
    bm_timer_cancel(rig.core->reactor, timer);
    timer->fn(timer);
}

TEST(an_answer_that_comes_too_late_changes_nothing)
{
    for (unsigned i = 0; i < 4; i++) {
        begin(NULL);
        rig.on_stream = give_up_waiting;
        late_answer = i & 2;
        serves = i & 1;
        here.wants = serves ? 50000 : 0;
        there.wants = 100000;
        here.stays = there.stays = true;
        REQUIRE_INT(attach(true), 0);
        RIG_UNTIL(rig.streams == 1 && here.got == there.wants && there.got == here.wants);
        CHECK(!here.apart && !there.apart);
        beam_stream_end(here.stream);
        beam_stream_end(there.stream);
        expect_all(false);
        free_sides();
        rig_drain();
        end();
    }
}

/* --- ends that are none ---------------------------------------------------------------------- */

static void flow(bool by_server)
{
    begin(NULL);
    serves = by_server;
    here.wants = there.wants = 100;
    here.stays = there.stays = true;
    REQUIRE_INT(attach(true), 0);
    RIG_UNTIL(here.got == 100 && there.got == 100);
    CHECK(here.apart && there.apart);
}

TEST(a_reset_says_why_to_the_other_end)
{
    for (unsigned i = 0; i < 4; i++) {
        flow(i & 1);
        struct side *one = i & 2 ? &here : &there, *other = i & 2 ? &there : &here;
        beam_stream_reset(one->stream, BEAM_ABORTED, "enough of it");
        RIG_UNTIL(other->ends > 0);
        CHECK_INT(other->code, BEAM_ABORTED);
        CHECK_STR(other->text, "enough of it");
        CHECK_UINT(one->ends, 0);
        free_sides();
        rig_drain();
        end();
    }
}

TEST(a_reset_while_it_is_undecided_is_heard_too)
{
    for (unsigned i = 0; i < 2; i++) {
        begin(NULL);
        rig.stream_status = 1;
        here.stays = there.stays = true;
        there.wants = 10;
        REQUIRE_INT(attach(true), 0);
        RIG_UNTIL(rig.streams == 1 && answer.count == 1);
        struct side *one = i ? &here : &there, *other = i ? &there : &here;
        beam_stream_reset(one->stream, BEAM_ABORTED, "enough of it");
        RIG_UNTIL(other->ends > 0);
        CHECK_INT(other->code, BEAM_ABORTED);
        CHECK_UINT(here.got + there.got, 0);
        free_sides();
        rig_drain();
        end();
    }
}

TEST(the_loss_of_the_session_ends_its_streams)
{
    for (unsigned i = 0; i < 2; i++) {
        flow(false);
        if (i == 0)
            beam_session_close(rig.session);
        else
            bm_session_lost(channel_of(&there)->session, BEAM_UNAVAILABLE, "lost");
        RIG_UNTIL(here.ends > 0 && there.ends > 0);
        CHECK(here.code != BEAM_OK);
        CHECK(there.code != BEAM_OK);
        end();
    }
}

TEST(a_stream_that_is_reset_aborts_its_channel)
{
    for (unsigned i = 0; i < 2; i++) {
        flow(false);
        bm_exchange_reset(stream_of(i ? &here : &there)->exchange);
        RIG_UNTIL(here.ends > 0 && there.ends > 0);
        CHECK_INT(here.code, BEAM_UNKNOWN);
        CHECK_INT(there.code, BEAM_UNKNOWN);
        free_sides();
        rig_drain();
        end();
    }
}

/* --- time and memory ------------------------------------------------------------------------- */

TEST(a_silent_stream_says_that_it_lives)
{
    flow(false);
    uint64_t said = stream_of(&here)->said_ns;
    rig_skip(BM_DEDICATED_ALIVE_NS - BM_NS_PER_S);
    CHECK_UINT(stream_of(&here)->said_ns, said);
    rig_skip(2 * BM_NS_PER_S);
    CHECK(stream_of(&here)->said_ns > said);
    CHECK(!stream_of(&here)->alive_due);
    CHECK(!stream_of(&there)->alive_due);
    beam_stream_end(here.stream);
    beam_stream_end(there.stream);
    expect_all(true);
    end();
}

TEST(a_reader_that_stops_stops_the_writer_and_is_waited_for)
{
    flow(false);
    struct rig_answer other;
    there.holds = true;
    here.wants += 5000000;
    side_write(&here);
    rig_skip(40 * BM_NS_PER_S); /* streams that stand still are reset after 30 */
    rig_skip(10 * BM_NS_PER_S);
    CHECK_UINT(here.ends + there.ends, 0);
    CHECK(there.held <= BM_H2_WINDOW);
    CHECK(there.held > BM_H2_WINDOW / 2);
    CHECK(here.wrote - there.got <= BM_DEDICATED_QUEUE_LEN + BM_H2_WINDOW);
    CHECK(here.wrote < here.wants);
    CHECK_UINT(rig.session->queue_len, 0);
    /* The session goes on beside it. */
    rig_call(1000000, &other);
    RIG_UNTIL(other.count > 0);
    CHECK_INT(other.code, BEAM_OK);
    here.stays = there.stays = false;
    side_release(&there);
    beam_stream_end(there.stream);
    there.wants = there.wrote;
    expect_all(true);
    end();
}

TEST(what_was_written_before_the_decision_goes_with_it)
{
    for (unsigned i = 0; i < 2; i++) {
        begin(NULL);
        rig.stream_status = i ? 404 : 0;
        here.wants = there.wants = 1000000; /* more than waits */
        REQUIRE_INT(attach(true), 0);
        CHECK(here.wrote > 0 && here.wrote < here.wants);
        expect_all(i == 0);
        CHECK_UINT(rig.session->queue_len, 0);
        end();
    }
}

/* --- descriptors ----------------------------------------------------------------------------- */

static int given; /* what the service was sent */

static void on_give(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *reply = beam_message_new();
    (void)arg;
    given = beam_message_take_fd(message, 0);
    beam_reply(request, &reply);
}

static size_t read_all(int fd)
{
    uint8_t bytes[65536];
    size_t got = 0, wrong = 0;
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        rig_turn(1);
        if (poll(&ready, 1, 0) == 0)
            continue;
        ssize_t n = read(fd, bytes, sizeof(bytes));
        CHECK(n >= 0);
        if (n <= 0)
            break;
        for (ssize_t i = 0; i < n; i++)
            wrong += bytes[i] != side_byte(got + (size_t)i);
        got += (size_t)n;
    }
    CHECK_UINT(wrong, 0);
    return got;
}

static void give(int *fd)
{
    beam_message *message = beam_message_new();
    beam_message_attach_fd(message, fd);
    answer = (struct rig_answer){0};
    given = -1;
    REQUIRE_INT(beam_call(rig.session, "give", &message, on_taken, NULL, NULL), 0);
    RIG_UNTIL(answer.count > 0);
    REQUIRE_INT(answer.code, BEAM_OK);
    REQUIRE(given >= 0);
}

TEST(a_descriptor_of_which_much_is_to_be_read_has_a_stream_of_its_own)
{
    static const struct {
        size_t len;
        bool apart;
    } files[] = {{1000, false}, {BM_DEDICATED_LEN_MIN, false}, {1000000, true}};
    uint8_t *bytes = malloc(1000000);
    REQUIRE(bytes != NULL);
    for (size_t i = 0; i < 1000000; i++)
        bytes[i] = side_byte(i);
    begin(NULL);
    REQUIRE_INT(beam_serve(rig.runtime, "give", on_give, NULL), 0);
    for (size_t i = 0; i < BM_ARRAY_LEN(files); i++) {
        char path[300];
        snprintf(path, sizeof(path), "%s/file", test_tmpdir());
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        REQUIRE_INT(write(fd, bytes, files[i].len), files[i].len);
        REQUIRE_INT(lseek(fd, 0, SEEK_SET), 0);
        give(&fd);
        CHECK_UINT(read_all(given), files[i].len);
        CHECK_UINT(rig.streams, files[i].apart);
        close(given);
    }
    rig.streams = 0;
    int ends[2];
    REQUIRE_INT(pipe(ends), 0);
    give(&ends[0]);
    REQUIRE_INT(write(ends[1], bytes, 60000), 60000);
    close(ends[1]);
    CHECK_UINT(read_all(given), 60000);
    CHECK_UINT(rig.streams, 1);
    close(given);
    REQUIRE_INT(pipe(ends), 0); /* and of which much may come */
    give(&ends[1]);
    REQUIRE_INT(write(given, bytes, 50000), 50000);
    close(given);
    CHECK_UINT(read_all(ends[0]), 50000);
    CHECK_UINT(rig.streams, 2);
    close(ends[0]);
    free(bytes);
    end();
}

/* --- no memory ------------------------------------------------------------------------------- */

/* Whatever allocation fails, from the message on: all of it arrives, or both ends hear that it does not, or
 * nothing was sent; and nothing is left behind. */
static void sweep(bool by_server)
{
    unsigned arrived = 0, failed = 0;
    for (int left = 0; left < 400; left++) {
        begin(NULL);
        serves = by_server;
        here.wants = there.wants = 100000;
        test_note("%d allocations", left);
        scarce_begin(left);
        int r = attach(true);
        for (unsigned i = 0; r == 0 && i < 60 && !(here.ends > 0 && there.ends > 0); i++)
            rig_turn(1);
        bool enough = scarce_left > 0;
        scarce_end();
        if (here.stream && here.wrote < here.wants) /* -ENOMEM is nobody's to tell */
            side_write(&here);
        if (there.stream && there.wrote < there.wants)
            side_write(&there);
        if (r == 0)
            RIG_UNTIL(rig.closes > 0 || (here.ends > 0 && there.ends > 0) ||
                      (answer.count > 0 && answer.code != BEAM_OK));
        bool all = r == 0 && here.ends > 0 && here.code == BEAM_OK && there.ends > 0 &&
                   there.code == BEAM_OK;
        if (all) {
            CHECK_UINT(here.got, there.wants);
            CHECK_UINT(there.got, here.wants);
        }
        CHECK_UINT(here.wrong + there.wrong, 0);
        arrived += all;
        failed += !all;
        end();
        if (enough)
            break;
    }
    CHECK(arrived > 0);
    CHECK(failed > 0);
}

TEST(a_stream_survives_a_lack_of_memory)
{
    sweep(false);
    sweep(true);
}
