/* Frames that break no rule by themselves and come at the worst moment: lengths that wrap, ends that
 * overtake what they end, credit that comes late, a GOAWAY for what has not left. What is refused is
 * refused on its channel, what is kept stays valid, what waits goes on. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/alloc.h"
#include "tests/support/asker.h"
#include "tests/support/served.h"

#define KEPT_MAX 16
#define STRANGERS 8u

static struct raw_peer bad;
static struct raw_packet packet;
static struct asker asker;
static uint8_t body[1 << 20];

/* What the services below leave for the case. All but the atomics belong to the reactor. */
static struct {
    beam_request *requests[KEPT_MAX];
    atomic_uint kept;
    beam_session *session;
    beam_message *message;
    atomic_uint messages;
    atomic_bool keep;
    atomic_int codes[2];
    atomic_uint replies;
} own;

static struct served *attacked(const char *service, beam_handler *handler)
{
    struct served *served = served_start(NULL);
    memset(&own, 0, sizeof(own));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    if (service)
        REQUIRE_INT(beam_serve(served->runtime, service, handler, NULL), 0);
    return served;
}

static void finish(struct served *served)
{
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* --- announced lengths ----------------------------------------------------------------------- */

static void put_large(uint64_t id, bool open, uint64_t total, const void *metadata, uint32_t len)
{
    struct bm_message_head head = {
        .open = open,
        .name = {"echo", 4},
        .large = true,
        .body_total = total,
        .metadata = metadata,
        .metadata_len = len,
        .body = body,
        .body_len = 100,
    };
    raw_put_head(&packet, id, BM_MSG_MORE | (open ? BM_MSG_OPEN : 0), 0, &head, NULL);
}

static void expect_refused(uint64_t id)
{
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, id));
    CHECK_UINT(bad.frame.flags, BM_END_ABORT);
    CHECK_INT(raw_end_code(&bad), BEAM_RESOURCE_EXHAUSTED);
    raw_put_bytes(&packet, id, BM_MSG_MORE, body,
                  100); /* dropped, as for any channel that is gone */
    raw_send(&bad, &packet);
}

TEST(an_announced_length_that_wraps_is_refused_and_gets_no_memory)
{
    static const uint8_t empty_map[8] = {[6] = 9};
    static const uint64_t totals[] = {
        UINT64_MAX,
        UINT64_MAX - 7,                /* 0 with the metadata */
        UINT64_MAX - 63,               /* 0 with the cost of a message */
        UINT64_MAX - 71,               /* 0 with both */
        UINT64_MAX - sizeof(body) + 1, /* 0 with what is under way */
        UINT64_C(1) << 63,
        (UINT64_C(1) << 63) - 1,
        UINT64_C(1) << 32,
        (UINT64_C(1) << 32) + 200,
        UINT32_MAX,
    };
    struct served *served = attacked(NULL, NULL);
    uint64_t id = 1;
    /* A message of an honest length is under way all the time. */
    put_large(id, true, sizeof(body), NULL, 0);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    size_t before = bm_alloc_totals().live_bytes;
    for (unsigned i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
        for (unsigned map = 0; map < 2; map++) {
            test_note("total %llu, metadata %u", (unsigned long long)totals[i], map);
            put_large(id += 2, true, totals[i], empty_map, 8 * map);
            expect_refused(id);
            raw_put_open(&packet, id += 2, 0, "talk", "x", 1);
            put_large(id, false, totals[i], empty_map, 8 * map);
            expect_refused(id);
            size_t now = bm_alloc_totals().live_bytes;
            CHECK(now < before + (1u << 20));
        }
    }
    size_t left = sizeof(body) - 100;
    while (left > 0) {
        uint32_t part = left < 60000 ? (uint32_t)left : 60000;
        left -= part;
        raw_put_bytes(&packet, 1, left > 0 ? BM_MSG_MORE : BM_MSG_END, body, part);
        raw_send(&bad, &packet);
    }
    REQUIRE(raw_find(&bad, BM_FRAME_MSG, 1));
    finish(served);
}

/* --- events that are kept -------------------------------------------------------------------- */

static void keep_event(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    unsigned n = atomic_load(&own.kept);
    REQUIRE(n < KEPT_MAX);
    beam_request_keep(request);
    own.requests[n] = request;
    atomic_store(&own.kept, n + 1);
}

static void check_kept(void *arg)
{
    unsigned n = atomic_load(&own.kept);
    (void)arg;
    for (unsigned i = 0; i < n; i++) {
        beam_str name = beam_request_service(own.requests[i]);
        CHECK(beam_request_is_event(own.requests[i]));
        CHECK_MEM(name.ptr, name.len, "lasting", 7);
    }
}

static void end_one_kept(void *arg)
{
    unsigned n = atomic_load(&own.kept);
    (void)arg;
    REQUIRE(n > 0);
    if (n % 2)
        beam_reply(own.requests[n - 1], NULL);
    else
        beam_fail(own.requests[n - 1], BEAM_INTERNAL, "nobody hears it");
    atomic_store(&own.kept, n - 1);
}

static void end_kept(struct served *served)
{
    while (atomic_load(&own.kept) > 0)
        served_run(served->runtime, 0, end_one_kept, NULL);
}

/* Requests of somebody else, which get what memory there is. */
static void come_strangers(struct served *served, struct raw_peer *peer)
{
    unsigned held = atomic_load(&served->held);
    raw_open_session(peer, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < STRANGERS; i++)
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "hold", "x", 1);
    raw_send(peer, &packet);
    WAIT_UNTIL(atomic_load(&served->held) == held + STRANGERS);
}

static void check_kept_events(uint8_t flags, uint32_t code, bool close_session)
{
    static struct raw_peer stranger;
    struct served *served = attacked("lasting", keep_event);
    raw_put_open(&packet, 1, BM_MSG_ONEWAY, "lasting", "a", 1);
    raw_put_message(&packet, 1, 0, "b", 1);
    raw_put_message(&packet, 1, 0, "c", 1);
    if (!close_session)
        raw_put_end(&packet, 1, flags, code);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    REQUIRE_UINT(atomic_load(&own.kept), 3);
    if (close_session) {
        raw_close(&bad);
        WAIT_UNTIL(served_stats(served, 0).sessions == 1);
    }

    come_strangers(served, &stranger);
    served_run(served->runtime, 0, check_kept, NULL);
    end_kept(served);
    WAIT_UNTIL(served_stats(served, 0).channels == STRANGERS);
    CHECK_UINT(served_stats(served, 0).channels, STRANGERS); /* none of them was answered for it */
    CHECK_UINT(atomic_load(&served->cancels), 0);
    raw_close(&stranger);
    WAIT_UNTIL(atomic_load(&served->cancels) == STRANGERS);
    finish(served);
}

TEST(kept_events_stay_valid_when_their_sender_ends)
{
    check_kept_events(0, BEAM_OK, false);
}

TEST(kept_events_stay_valid_when_their_sender_ends_with_an_error)
{
    check_kept_events(0, BEAM_DATA_LOSS, false);
}

TEST(kept_events_stay_valid_when_their_sender_aborts)
{
    check_kept_events(BM_END_ABORT, BEAM_CANCELLED, false);
}

TEST(kept_events_stay_valid_when_their_session_is_lost)
{
    check_kept_events(0, BEAM_OK, true);
}

TEST(an_event_that_is_done_with_leaves_those_beside_it_alone)
{
    static struct raw_peer stranger;
    struct served *served = attacked("lasting", keep_event);
    raw_put_open(&packet, 1, BM_MSG_ONEWAY, "lasting", "a", 1);
    raw_put_message(&packet, 1, 0, "b", 1);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    served_run(served->runtime, 0, end_one_kept, NULL);
    raw_put_message(&packet, 1, 0, "c", 1); /* the channel goes on */
    raw_put_message(&packet, 1, 0, "d", 1);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    REQUIRE_UINT(atomic_load(&own.kept), 3);
    served_run(served->runtime, 0, end_one_kept, NULL);
    raw_put_end(&packet, 1, 0, BEAM_OK);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    served_run(served->runtime, 0, end_one_kept, NULL);
    come_strangers(served, &stranger);
    served_run(served->runtime, 0, check_kept, NULL);
    end_kept(served);
    WAIT_UNTIL(served_stats(served, 0).channels == STRANGERS);
    CHECK_UINT(atomic_load(&served->cancels), 0);
    raw_close(&stranger);
    finish(served);
}

TEST(events_that_end_themselves_when_cancelled_may_be_aborted)
{
    struct served *served = attacked(NULL, NULL);
    for (uint64_t id = 1; id < 9; id += 2) {
        raw_put_open(&packet, id, BM_MSG_ONEWAY, "hold", "x", 1);
        raw_put_message(&packet, id, 0, "y", 1);
        raw_put_end(&packet, id, id % 4 == 1 ? BM_END_ABORT : 0, BEAM_CANCELLED);
    }
    raw_send(&bad, &packet);
    raw_sync(&bad);
    CHECK_UINT(atomic_load(&served->held), 8);
    served_release(served); /* whatever nobody cancelled */
    finish(served);
}

/* --- calls made for an event ----------------------------------------------------------------- */

static void on_back(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)message;
    atomic_fetch_add(&own.replies, 1);
    atomic_store((atomic_int *)arg, (int)status->code);
}

static void ask_back(beam_request *request, const beam_message *message, void *arg)
{
    (void)arg;
    if (atomic_load(&own.keep))
        keep_event(request, message, NULL);
    for (unsigned i = 0; i < 2; i++) {
        beam_message *question = beam_message_new();
        atomic_store(&own.codes[i], ASKER_PENDING);
        CHECK_INT(beam_call(beam_request_session(request), "back", &question, on_back,
                            &own.codes[i], &BEAM_CALL_OPTIONS(.parent = request)),
                  0);
        beam_message_free(question);
    }
}

/* Answers come after the event has gone, and after requests that got its memory have come and gone. */
static void check_calls_of_event(bool keep, uint8_t flags)
{
    struct served *served = attacked("ask", ask_back);
    atomic_store(&own.keep, keep);
    raw_put_open(&packet, 1, BM_MSG_ONEWAY, "ask", "x", 1);
    raw_put_end(&packet, 1, flags, flags ? BEAM_CANCELLED : BEAM_OK);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_MSG, 2));
    REQUIRE(raw_find(&bad, BM_FRAME_MSG, 4));
    raw_sync(&bad);

    for (unsigned i = 0; i < STRANGERS; i++)
        raw_put_open(&packet, 3 + 2 * i, BM_MSG_END, "hold", "x", 1);
    raw_put_message(&packet, 2, BM_MSG_END, "y", 1);
    raw_send(&bad, &packet);
    WAIT_UNTIL(atomic_load(&own.codes[0]) != ASKER_PENDING);
    for (unsigned i = 0; i < STRANGERS; i++)
        raw_put_end(&packet, 3 + 2 * i, BM_END_ABORT, BEAM_CANCELLED);
    raw_send(&bad, &packet);
    WAIT_UNTIL(atomic_load(&served->cancels) == STRANGERS);
    raw_put_message(&packet, 4, BM_MSG_END, "y", 1);
    raw_send(&bad, &packet);
    WAIT_UNTIL(atomic_load(&own.codes[1]) != ASKER_PENDING);
    raw_sync(&bad);
    for (unsigned i = 0; i < 2; i++) {
        int code = atomic_load(&own.codes[i]);
        /* The sender's abort cancels what was asked for an event that is still kept. */
        CHECK(code == BEAM_OK || (code == BEAM_CANCELLED && flags && keep));
    }
    CHECK_UINT(atomic_load(&own.replies), 2);
    end_kept(served);
    finish(served);
}

TEST(calls_made_for_an_event_are_answered_after_its_sender_has_ended)
{
    check_calls_of_event(false, 0);
}

TEST(calls_made_for_an_event_are_answered_after_its_sender_has_aborted)
{
    check_calls_of_event(false, BM_END_ABORT);
}

TEST(calls_made_for_a_kept_event_are_answered_after_its_sender_has_ended)
{
    check_calls_of_event(true, 0);
}

TEST(calls_made_for_a_kept_event_end_once_when_its_sender_aborts)
{
    check_calls_of_event(true, BM_END_ABORT);
}

/* --- GOAWAY ---------------------------------------------------------------------------------- */

TEST(goaway_ends_queued_calls_and_the_channels_attached_to_them)
{
    enum { LARGE = 3, SMALL = 6, ATTACHED = 2 };
    static struct asked large[LARGE], small[SMALL];
    int unread = 0;
    asker_start(&asker, true);
    for (unsigned i = 0; i < LARGE; i++) {
        large[i] = (struct asked){.service = "x", .body = body, .body_len = sizeof(body)};
        asker_ask(&asker, &large[i]);
        REQUIRE_INT(large[i].result, 0);
    }
    /* Nobody reads: what comes now stays in the queue. */
    WAIT_UNTIL(ioctl(asker.peer.fd, FIONREAD, &unread) == 0 && unread > 2 * 60000);
    for (unsigned i = 0; i < SMALL; i++) {
        small[i] = (struct asked){.service = "y", .channel_count = ATTACHED};
        asker_ask(&asker, &small[i]);
        REQUIRE_INT(small[i].result, 0);
    }
    raw_clear(&packet);
    raw_put_goaway(&packet, 0, BEAM_OK);
    raw_send(&asker.peer, &packet);
    for (unsigned i = 0; i < SMALL; i++) {
        test_note("call %u", i);
        WAIT_UNTIL(atomic_load(&small[i].code) == BEAM_UNAVAILABLE);
        CHECK_UINT(atomic_load(&small[i].replies), 1);
        for (unsigned k = 0; k < ATTACHED; k++)
            WAIT_UNTIL(atomic_load(&small[i].channel_codes[k]) != ASKER_PENDING);
        asker_free_channels(&small[i]);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        WAIT_UNTIL(atomic_load(&large[i].code) == BEAM_UNAVAILABLE);
        CHECK_UINT(atomic_load(&large[i].replies), 1);
    }
    raw_expect_end(&asker.peer);
    WAIT_UNTIL(atomic_load(&asker.closed) == BEAM_OK);
    asker_stop(&asker);
}

/* --- credit ---------------------------------------------------------------------------------- */

static void keep_the_long_one(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    (void)channel;
    (void)arg;
    beam_message_body(message, &len);
    if (len == 60000)
        own.message = beam_message_keep(message);
    atomic_fetch_add(&own.messages, 1);
}

static void end_with_caller(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)channel;
    CHECK_INT(status->code, BEAM_OK);
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers long_handlers = {
    .on_message = keep_the_long_one,
    .on_end = end_with_caller,
};

static void take_long(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &long_handlers, request);
}

static void free_long(void *arg)
{
    (void)arg;
    own.message = beam_message_free(own.message);
}

/* W4: less than half a window is owed when a message that is kept takes the rest. */
TEST(credit_that_is_owed_comes_when_a_kept_message_takes_the_last)
{
    struct served *served = attacked("long", take_long);
    raw_put_open(&packet, 1, 0, "long", "x", 1);
    raw_put_message(&packet, 1, 0, body, 20000);
    raw_send(&bad, &packet);
    raw_put_message(&packet, 1, 0, body, 60000);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_CREDIT, 1));
    CHECK(bm_frame_parse_u64(&bad.frame) >= 20000 + 64);
    CHECK(bm_frame_parse_u64(&bad.frame) < 60000);
    CHECK_UINT(atomic_load(&own.messages), 2);
    raw_put_message(&packet, 1, 0, body, 30000); /* may start, and takes it below zero again */
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_CREDIT, 1));
    served_run(served->runtime, 0, free_long, NULL);
    raw_put_end(&packet, 1, 0, BEAM_OK);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    CHECK_INT(raw_end_code(&bad), BEAM_OK);
    finish(served);
}

struct wanted {
    uint32_t len, fds;
};

static void give(beam_request *request, const beam_message *message, void *arg)
{
    struct wanted wanted = {0};
    size_t len;
    const void *asked = beam_message_body(message, &len);
    (void)arg;
    REQUIRE_UINT(len, sizeof(wanted));
    memcpy(&wanted, asked, sizeof(wanted));
    beam_message *answer = beam_message_new();
    void *room = beam_message_reserve_body(answer, wanted.len);
    if (room)
        memset(room, 7, wanted.len);
    for (unsigned i = 0; i < wanted.fds; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        beam_message_attach_fd(answer, &fd);
    }
    beam_reply(request, &answer);
}

static struct served *attacked_with_grant(uint32_t fds_max)
{
    struct bm_hello hello = {
        .version = BM_PROTOCOL_VERSION,
        .opener = true,
        .window = 65536,
        .channels_max = 1024,
        .message_len_max = 16u << 20,
        .fds_max = fds_max,
    };
    struct served *served = served_start(NULL);
    REQUIRE_INT(beam_serve(served->runtime, "give", give, NULL), 0);
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    raw_put_hello_of(&packet, &hello);
    raw_send(&bad, &packet);
    return served;
}

static void ask_for(uint64_t id, uint32_t len, uint32_t fds)
{
    struct wanted wanted = {len, fds};
    raw_put_open(&packet, id, BM_MSG_END, "give", &wanted, sizeof(wanted));
    raw_send(&bad, &packet);
}

/* The whole answer, and its fds. */
static void expect_given(uint64_t id, uint32_t len, unsigned fds)
{
    struct bm_message_head head;
    REQUIRE(raw_find(&bad, BM_FRAME_MSG, id));
    REQUIRE_INT(bm_frame_parse_message(&bad.frame, &head), 0);
    CHECK_UINT(bad.frame.fds, fds);
    size_t got = head.body_len;
    while (!(bad.frame.flags & BM_MSG_END)) {
        REQUIRE(raw_find(&bad, BM_FRAME_MSG, id));
        got += bad.frame.len;
    }
    CHECK_UINT(got, len);
}

/* Everything that came up to the answer to a PING was no message. */
static void expect_no_message(void)
{
    raw_put_ping(&packet, 4711);
    raw_send(&bad, &packet);
    do {
        REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
        CHECK(bad.frame.kind != BM_FRAME_MSG);
        CHECK(bad.frame.kind != BM_FRAME_END);
    } while (bad.frame.kind != BM_FRAME_PING);
}

static void check_fd_credit_comes_late(uint32_t grant, uint32_t len)
{
    struct served *served = attacked_with_grant(grant);
    uint64_t id = 1;
    for (unsigned i = 0; i < grant; i++, id += 2) {
        ask_for(id, 10, 1);
        expect_given(id, 10, 1);
    }
    ask_for(id, len, 1);
    ask_for(id + 2, len, 1);
    expect_no_message();
    raw_put_credit(&packet, 0, 1);
    raw_send(&bad, &packet);
    expect_given(id, len, 1);
    expect_no_message();
    raw_put_credit(&packet, 0, 4);
    raw_send(&bad, &packet);
    expect_given(id + 2, len, 1);
    CHECK_UINT(bad.fd_count, grant + 2);
    finish(served);
}

TEST(an_answer_goes_when_its_fd_credit_comes)
{
    check_fd_credit_comes_late(0, 100);
    check_fd_credit_comes_late(2, 100);
}

TEST(an_answer_of_many_frames_goes_when_its_fd_credit_comes)
{
    check_fd_credit_comes_late(0, 3u << 20);
    check_fd_credit_comes_late(2, 3u << 20);
}

TEST(an_answer_with_more_fds_than_its_caller_ever_takes_becomes_an_error)
{
    struct served *served = attacked_with_grant(4);
    ask_for(1, 10, 5);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    CHECK_INT(raw_end_code(&bad), BEAM_RESOURCE_EXHAUSTED);
    ask_for(3, 10, 4);
    expect_given(3, 10, 4);
    finish(served);
}

TEST(a_call_with_more_fds_than_its_server_ever_takes_is_refused)
{
    struct bm_hello hello = {
        .version = 1, .window = 65536, .channels_max = 20, .message_len_max = 65536, .fds_max = 4};
    struct bm_message_head head;
    asker_start_with(&asker, NULL, &hello);
    for (unsigned count = 5; count >= 4; count--) {
        struct asked asked = {.service = "x", .fd_count = count};
        for (unsigned i = 0; i < count; i++)
            asked.fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        asker_ask(&asker, &asked);
        CHECK_INT(asked.result, count > 4 ? -EMSGSIZE : 0);
        if (asked.result < 0)
            continue;
        REQUIRE(asker_next(&asker, &head));
        CHECK_UINT(asker.peer.frame.fds, count);
        asker_answer(&asker, asker.peer.frame.channel);
        WAIT_UNTIL(atomic_load(&asked.code) == BEAM_OK);
    }
    CHECK_UINT(atomic_load(&asker.writable), 0);
    asker_stop(&asker);
}

/* --- draining -------------------------------------------------------------------------------- */

static void mark(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    own.session = beam_request_session(request);
    beam_reply(request, NULL);
}

static void leave(beam_request *request, const beam_message *message, void *arg)
{
    mark(request, message, arg);
    beam_session_drain(own.session);
}

static void drain_marked(void *arg)
{
    (void)arg;
    beam_session_drain(own.session);
}

static void expect_closed(struct served *served)
{
    raw_expect_end(&bad);
    /* Without the peer's doing. */
    WAIT_UNTIL(served_stats(served, 0).sessions == 1);
    finish(served);
}

TEST(draining_an_idle_session_closes_it)
{
    struct served *served = attacked("mark", mark);
    raw_put_open(&packet, 1, BM_MSG_END, "mark", "x", 1);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    WAIT_UNTIL(served_stats(served, 0).channels == 0);
    served_run(served->runtime, 0, drain_marked, NULL);
    REQUIRE(raw_find(&bad, BM_FRAME_GOAWAY, 0));
    expect_closed(served);
}

TEST(draining_from_the_last_handler_closes_the_session)
{
    struct served *served = attacked("leave", leave);
    raw_put_open(&packet, 1, BM_MSG_END, "leave", "x", 1);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_GOAWAY, 0));
    expect_closed(served);
}

TEST(draining_a_session_closes_it_behind_the_last_answer)
{
    struct served *served = attacked("leave", leave);
    raw_put_open(&packet, 1, BM_MSG_END, "hold", "x", 1);
    raw_put_open(&packet, 3, BM_MSG_END, "leave", "x", 1);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_GOAWAY, 0));
    raw_sync(&bad); /* still there */
    served_release(served);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    CHECK_INT(raw_end_code(&bad), BEAM_OK);
    expect_closed(served);
}

/* --- both sides abort ------------------------------------------------------------------------ */

/* Each is refused, and given up by its caller before he could know: in his books it is gone, and the next
 * one stands in its place. */
TEST(a_channel_that_both_sides_abort_makes_room_for_another)
{
    struct beam_runtime_options options = BEAM_RUNTIME_OPTIONS(.limits.channels_max = 16);
    struct served *served = served_start(&options);
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < 40; i++) {
        raw_put_open(&packet, 2 * i + 1, BM_MSG_END, "nobody", NULL, 0);
        raw_put_end(&packet, 2 * i + 1, BM_END_ABORT, BEAM_CANCELLED);
    }
    raw_send(&bad, &packet);
    raw_sync(&bad);
    CHECK(raw_echo(&bad, 101, "still here", 10));
    finish(served);
}
