/* What is left when the other end has gone on: events that are still kept, calls made for them, answers
 * before the last one, credit that is owed, a ring that was full. */
#include <fcntl.h>
#include <sched.h>

#include "tests/support/flow.h"
#include "tests/support/served.h"

#define KEPT_MAX 16

static beam_request *kept[KEPT_MAX]; /* the server's */
static unsigned kept_count;

struct counts {
    _Atomic unsigned lost, kept, right, replies, messages, cancelled;
    _Atomic int codes[2];
    _Atomic uint64_t channels;
};

static void keep(beam_request *request)
{
    REQUIRE(kept_count < KEPT_MAX);
    beam_request_keep(request);
    kept[kept_count++] = request;
}

static void answer_kept(beam_request *request, void *arg)
{
    while (kept_count > 0)
        beam_reply(kept[--kept_count], NULL);
}

/* None where they do not go yet. */
static beam_message *with_fds(unsigned count)
{
    beam_message *message = beam_message_new();
    for (unsigned i = 0; i < count && !flow.network; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        REQUIRE(fd >= 0);
        beam_message_attach_fd(message, &fd);
    }
    return message;
}

static int send_event(const char *service, unsigned fds)
{
    beam_message *event = with_fds(fds);
    int r = beam_send_event(flow.session, service, &event);
    beam_message_free(event);
    return r;
}

/* --- events that are kept -------------------------------------------------------------------- */

static void on_lasting(beam_request *request, const beam_message *message, void *arg)
{
    keep(request);
    ((struct counts *)arg)->kept++;
}

static void end_lasting(beam_request *request, void *arg)
{
    struct counts *counts = arg;
    while (kept_count > 0) {
        beam_request *event = kept[--kept_count];
        beam_str name = beam_request_service(event);
        if (beam_request_is_event(event) && name.len == 7 && memcmp(name.ptr, "lasting", 7) == 0)
            counts->right++;
        if (kept_count % 2)
            beam_reply(event, NULL);
        else
            beam_fail(event, BEAM_INTERNAL, "nobody hears it");
    }
}

static struct counts *send_lasting(unsigned count)
{
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    flow_serve("lasting", on_lasting, counts);
    flow_start(NULL);
    for (unsigned i = 0; i < count; i++)
        CHECK_INT(send_event("lasting", i % 2), 0);
    FLOW_WAIT(counts->kept == count);
    return counts;
}

FLOW_TEST(kept_events_may_be_ended_while_more_of_them_come)
{
    struct counts *counts = send_lasting(3);
    flow_at_server(end_lasting, counts);
    CHECK_INT(send_event("lasting", 1), 0);
    CHECK_INT(send_event("lasting", 0), 0);
    FLOW_WAIT(counts->kept == 5);
    flow_at_server(end_lasting, counts);
    CHECK_UINT(counts->right, 5);
}

FLOW_TEST(kept_events_stay_valid_when_their_sender_drains)
{
    struct counts *counts = send_lasting(5);
    beam_session *first = flow.session;
    beam_session_drain(first);
    FLOW_WAIT(flow.closes == 1);
    flow.session = flow_connect(NULL, NULL);
    flow_settle();
    flow_at_server(end_lasting, counts);
    CHECK_UINT(counts->right, 5);
    beam_session_free(first);
}

FLOW_TEST(kept_events_stay_valid_when_their_session_is_gone)
{
    struct counts *counts = send_lasting(5);
    flow.session = beam_session_free(flow.session);
    flow.session = flow_connect(NULL, NULL);
    flow_settle();
    flow_at_server(end_lasting, counts);
    CHECK_UINT(counts->right, 5);
}

static void on_lasting_lost(beam_request *request, void *arg)
{
    if (beam_request_is_cancelled(request))
        ((struct counts *)arg)->lost++;
}

static void on_watchful(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_on_cancel(request, on_lasting_lost, arg);
    on_lasting(request, message, arg);
}

static void lose_watchful(bool at_home, bool end_first)
{
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    (at_home ? flow_serve_at_home : flow_serve)("lasting", on_watchful, counts);
    flow_start(NULL);
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(send_event("lasting", 0), 0);
    FLOW_WAIT(counts->kept == 3);
    flow_settle();
    CHECK_UINT(counts->lost, 0);
    if (end_first)
        (at_home ? flow_at_home : flow_at_server)(end_lasting, counts);
    flow.session = beam_session_free(flow.session);
    flow.session = flow_connect(NULL, NULL);
    if (!end_first)
        FLOW_WAIT(counts->lost == 1);
    flow_settle();
    CHECK_UINT(counts->lost, end_first ? 0 : 1);
    (at_home ? flow_at_home : flow_at_server)(end_lasting, counts);
    CHECK_UINT(counts->right, 3);
}

FLOW_TEST(kept_events_hear_once_that_their_session_is_lost)
{
    lose_watchful(false, false);
}

FLOW_TEST(kept_events_of_another_reactor_hear_once_that_their_session_is_lost)
{
    lose_watchful(true, false);
}

FLOW_TEST(events_that_were_ended_hear_nothing_more)
{
    lose_watchful(false, true);
}

static void on_first_watchful(beam_request *request, const beam_message *message, void *arg)
{
    if (kept_count == 0)
        on_watchful(request, message, arg);
    else
        beam_reply(request, NULL);
}

FLOW_TEST(event_that_is_ended_in_its_handler_leaves_a_kept_one_alone)
{
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    flow_serve("lasting", on_first_watchful, counts);
    flow_start(NULL);
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(send_event("lasting", 0), 0);
    flow_settle();
    flow.session = beam_session_free(flow.session);
    flow.session = flow_connect(NULL, NULL);
    FLOW_WAIT(counts->lost == 1);
    flow_at_server(end_lasting, counts);
    CHECK_UINT(counts->right, 1);
}

/* --- calls made for an event ----------------------------------------------------------------- */

static void on_back(const struct beam_status *status, const beam_message *message, void *arg)
{
    *(_Atomic int *)arg = (int)status->code;
}

static void on_ask(beam_request *request, const beam_message *message, void *arg)
{
    struct counts *counts = arg;
    for (unsigned i = 0; i < 2; i++) {
        beam_message *question = beam_message_new();
        counts->codes[i] = -1;
        CHECK_INT(beam_call(beam_request_session(request), "back", &question, on_back,
                            (void *)&counts->codes[i], &BEAM_CALL_OPTIONS(.parent = request)),
                  0);
        beam_message_free(question);
    }
}

static beam_request *back[2]; /* the client's */
static unsigned back_count;

static void on_keep_back(beam_request *request, const beam_message *message, void *arg)
{
    REQUIRE(back_count < 2);
    beam_request_keep(request);
    back[back_count++] = request;
    flow_tick();
}

FLOW_TEST(calls_made_for_an_event_are_answered_after_its_channel_has_ended)
{
    struct counts *counts = flow_share(sizeof(*counts));
    back_count = 0;
    flow_serve("ask", on_ask, counts);
    flow_serve("back", on_keep_back, NULL);
    flow_start(NULL);
    CHECK_INT(send_event("ask", 0), 0);
    FLOW_WAIT(back_count == 2);
    beam_session_drain(flow.session); /* ends the channel of the events, and nothing else */
    flow_settle();
    CHECK_UINT(flow.closes, 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_INT(counts->codes[i], -1);
        beam_reply(back[i], NULL);
        FLOW_WAIT(counts->codes[i] != -1);
        CHECK_INT(counts->codes[i], BEAM_OK);
    }
    FLOW_WAIT(flow.closes == 1);
}

/* --- several answers to a call --------------------------------------------------------------- */

enum { ANSWERS = 3, ROUNDS = 5 };
enum ending { WITH_MESSAGE, WITHOUT, WITH_ERROR, NEVER };

static void on_cancelled(beam_request *request, void *arg)
{
    beam_fail(request, BEAM_CANCELLED, NULL);
    ((struct counts *)arg)->cancelled++;
}

static void on_several(beam_request *request, const beam_message *message, void *arg)
{
    int64_t how = -1;
    CHECK_INT(beam_message_get_int(message, "how", &how), 0);
    beam_message *answer = NULL;
    for (unsigned i = 0; i < ANSWERS; i++) {
        answer = with_fds(1);
        beam_message_put_uint(answer, "n", i);
        if (i < ANSWERS - 1 || how != WITH_MESSAGE) {
            CHECK_INT(beam_channel_send(beam_request_channel(request), &answer), 0);
            answer = beam_message_free(answer);
        }
    }
    if (how == WITH_ERROR) {
        beam_fail(request, BEAM_DATA_LOSS, "the rest is lost");
    } else if (how == NEVER) {
        beam_request_keep(request);
        beam_request_on_cancel(request, on_cancelled, arg);
    } else {
        beam_reply(request, how == WITH_MESSAGE ? &answer : NULL);
    }
    ((struct counts *)arg)->messages++;
}

static uint64_t channels_here(void)
{
    struct beam_stats stats;
    REQUIRE_INT(beam_runtime_stats(flow_runtime_here(), (unsigned)beam_reactor_current(), &stats),
                0);
    return stats.channels;
}

static void read_channels(beam_request *request, void *arg)
{
    ((struct counts *)arg)->channels = channels_here();
}

static struct counts *start_several(void)
{
    struct counts *counts = flow_share(sizeof(*counts));
    flow_serve("several", on_several, counts);
    flow_start(NULL);
    return counts;
}

static void ask_several(enum ending how, struct flow_answer *answer, uint64_t timeout_ns)
{
    beam_message *question = beam_message_new();
    beam_message_put_uint(question, "how", how);
    REQUIRE_INT(beam_call(flow.session, "several", &question, flow_on_reply, answer,
                          &BEAM_CALL_OPTIONS(.timeout_ns = timeout_ns)),
                0);
}

static void check_nothing_left(struct counts *counts)
{
    FLOW_WAIT(channels_here() == 0);
    flow_at_server(read_channels, counts);
    CHECK_UINT(counts->channels, flow.kind == FLOW_SELF ? 2 : 1); /* the question's own */
}

FLOW_TEST_FDS(of_several_answers_the_last_comes_and_none_is_left)
{
    struct counts *counts = start_several();
    for (unsigned i = 0; i < 3 * ROUNDS; i++) {
        struct flow_answer answer = {0};
        enum ending how = (enum ending)(i % 3);
        int64_t n = -1;
        test_note("round %u", i);
        ask_several(how, &answer, 0);
        FLOW_WAIT(answer.count == 1);
        CHECK_INT(answer.code, how == WITH_ERROR ? BEAM_DATA_LOSS : BEAM_OK);
        CHECK((answer.message != NULL) == (how != WITH_ERROR));
        if (answer.message) {
            CHECK_INT(beam_message_get_int(answer.message, "n", &n), 0);
            CHECK_INT(n, ANSWERS - 1);
            CHECK_UINT(beam_message_fd_count(answer.message), 1);
        }
        flow_answer_clear(&answer);
    }
    check_nothing_left(counts);
}

FLOW_TEST(answers_before_a_deadline_that_ends_the_call_are_dropped)
{
    struct counts *counts = start_several();
    struct flow_answer answers[ROUNDS] = {0};
    for (unsigned i = 0; i < ROUNDS; i++)
        ask_several(NEVER, &answers[i], 30 * BEAM_MS);
    for (unsigned i = 0; i < ROUNDS; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_DEADLINE_EXCEEDED);
        CHECK_PTR(answers[i].message, NULL);
    }
    FLOW_WAIT(counts->cancelled == counts->messages);
    check_nothing_left(counts);
}

FLOW_TEST(answers_before_the_loss_of_the_session_are_dropped)
{
    struct counts *counts = start_several();
    struct flow_answer answers[ROUNDS] = {0};
    for (unsigned i = 0; i < ROUNDS; i++)
        ask_several(NEVER, &answers[i], 0);
    FLOW_WAIT(counts->messages == ROUNDS);
    flow_settle(); /* they have come */
    flow.session = beam_session_free(flow.session);
    for (unsigned i = 0; i < ROUNDS; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_UNKNOWN);
        CHECK_PTR(answers[i].message, NULL);
    }
    FLOW_WAIT(counts->cancelled == ROUNDS);
    FLOW_WAIT(channels_here() == 0);
}

/* --- credit ---------------------------------------------------------------------------------- */

static beam_message *long_one;

static void on_long(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    beam_message_body(message, &len);
    if (len == 60000)
        long_one = beam_message_keep(message);
    ((struct counts *)arg)->messages++;
}

static const struct beam_channel_handlers long_handlers = {.on_message = on_long};

static void on_open(beam_request *request, const beam_message *message, void *arg)
{
    keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &long_handlers, arg);
}

static void free_long(beam_request *request, void *arg)
{
    long_one = beam_message_free(long_one);
}

FLOW_TEST(credit_that_is_owed_comes_when_a_kept_message_takes_the_last)
{
    static uint8_t body[60000];
    struct counts *counts = flow_share(sizeof(*counts));
    beam_channel *channel = NULL;
    kept_count = 0;
    flow_serve("open", on_open, counts);
    flow_start(NULL);
    REQUIRE_INT(beam_open(flow.session, "open", NULL, NULL, NULL, NULL, &channel), 0);
    CHECK_INT(beam_channel_send_body(channel, body, 20000), 0);
    CHECK_INT(beam_channel_send_body(channel, body, 60000), 0);
    CHECK(beam_channel_credit(channel) <= 0);
    FLOW_WAIT(counts->messages == 2);
    FLOW_WAIT(beam_channel_credit(channel) > 0);
    CHECK_INT(beam_channel_send_body(channel, body, 30000), 0);
    FLOW_WAIT(counts->messages == 3);
    FLOW_WAIT(beam_channel_credit(channel) > 0);
    flow_at_server(free_long, NULL);
    flow_at_server(answer_kept, NULL);
    beam_channel_free(channel);
}

/* --- more fds than the other end ever takes -------------------------------------------------- */

enum { FDS = 4 };

static void on_give(beam_request *request, const beam_message *message, void *arg)
{
    int64_t count = -1;
    CHECK_INT(beam_message_get_int(message, "count", &count), 0);
    beam_message *answer = with_fds((unsigned)count);
    beam_reply(request, &answer);
}

static void on_end(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

FLOW_TEST_FDS(more_fds_than_the_peer_grants_are_refused_and_not_waited_for)
{
    struct flow_answer answer = {0};
    struct counts *counts = flow_share(sizeof(*counts));
    beam_channel *channel = NULL;
    kept_count = 0;
    flow_serve("give", on_give, NULL);
    flow_serve("end", on_end, NULL);
    flow_serve("open", on_open, counts);
    flow_start(&(struct flow_options){.client = {.fds_max = FDS}, .server = {.fds_max = FDS}});
    beam_message *message = with_fds(FDS + 1);
    CHECK_INT(beam_call(flow.session, "end", &message, flow_on_reply, &answer, NULL), -EMSGSIZE);
    REQUIRE(message != NULL);
    CHECK_UINT(beam_message_fd_count(message), FDS + 1);
    CHECK_INT(beam_send_event(flow.session, "end", &message), -EMSGSIZE);
    REQUIRE_INT(beam_open(flow.session, "open", NULL, NULL, NULL, NULL, &channel), 0);
    CHECK_INT(beam_channel_send(channel, &message), -EMSGSIZE);
    REQUIRE(message != NULL);
    beam_message_free(message);
    flow_settle();
    CHECK_UINT(flow.writables, 0); /* there is nothing to wait for */

    for (unsigned count = FDS + 1; count >= FDS; count--) {
        beam_message *question = beam_message_new();
        beam_message_put_uint(question, "count", count);
        answer = flow_ask("give", question);
        CHECK_INT(answer.code, count > FDS ? BEAM_RESOURCE_EXHAUSTED : BEAM_OK);
        flow_answer_clear(&answer);
    }
    answer = flow_ask("end", with_fds(FDS));
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    flow_at_server(answer_kept, NULL);
    beam_channel_free(channel);
}

/* --- a full ring between reactors that do not sleep ------------------------------------------ */

enum { CHANNELS = 8, EACH = 300 }; /* more than the slots of a ring */

static struct full {
    beam_runtime *runtime;
    beam_session *session;
    beam_channel *channels[CHANNELS];
    unsigned sent;
    atomic_uint opened, sinks, busy, got, ended;
    atomic_bool go;
} full;

static void on_sink_message(beam_channel *channel, const beam_message *message, void *arg)
{
    atomic_fetch_add(&full.got, 1);
}

static void on_sink_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers sink_handlers = {
    .on_message = on_sink_message,
    .on_end = on_sink_end,
};

static void on_sink(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &sink_handlers, request);
    atomic_fetch_add(&full.sinks, 1);
}

static void on_full_open(beam_session *session, void *arg)
{
    atomic_store(&full.opened, 1);
}

static const struct beam_session_handlers full_session = {.on_open = on_full_open};

static void on_full_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    CHECK_INT(status->code, BEAM_OK);
    atomic_fetch_add(&full.ended, 1);
}

static const struct beam_channel_handlers full_channel = {.on_end = on_full_end};

static void connect_full(void *arg)
{
    CHECK_INT(beam_connect(full.runtime, "ring:1", &BEAM_CONNECT_OPTIONS(.handlers = &full_session),
                           &full.session),
              0);
}

static void open_full(void *arg)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        CHECK_INT(
            beam_open(full.session, "sink", NULL, &full_channel, NULL, NULL, &full.channels[i]), 0);
}

static void be_busy(void *arg)
{
    atomic_store(&full.busy, 1);
    while (!atomic_load(&full.go))
        sched_yield();
}

static void fill_ring(void *arg)
{
    for (unsigned k = 0; k < EACH; k++)
        for (unsigned i = 0; i < CHANNELS; i++)
            full.sent += beam_channel_send_body(full.channels[i], "12345678", 8) == 0;
}

static void end_full(void *arg)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        beam_channel_end(full.channels[i]);
}

static void free_full(void *arg)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        full.channels[i] = beam_channel_free(full.channels[i]);
    full.session = beam_session_free(full.session);
}

static void check_full_ring(enum beam_spin_policy spin)
{
    served_need_io_uring();
    memset(&full, 0, sizeof(full));
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .spin = spin,
                                                       .stop_timeout_ns = 100 * BEAM_MS),
                                 &full.runtime),
                0);
    REQUIRE_INT(beam_serve(full.runtime, "sink", on_sink, NULL), 0);
    REQUIRE_INT(beam_start(full.runtime), 0);
    served_run(full.runtime, 0, connect_full, NULL);
    WAIT_UNTIL(atomic_load(&full.opened) == 1);
    served_run(full.runtime, 0, open_full, NULL);
    WAIT_UNTIL(atomic_load(&full.sinks) == CHANNELS);

    REQUIRE_INT(beam_post(full.runtime, 1, be_busy, NULL), 0);
    WAIT_UNTIL(atomic_load(&full.busy) == 1);
    served_run(full.runtime, 0, fill_ring, NULL);
    CHECK(full.sent > 1024); /* the slots of a ring */
    atomic_store(&full.go, true);
    WAIT_UNTIL(atomic_load(&full.got) == full.sent);
    CHECK_UINT(atomic_load(&full.got), full.sent);
    served_run(full.runtime, 0, end_full, NULL);
    WAIT_UNTIL(atomic_load(&full.ended) == CHANNELS);
    served_run(full.runtime, 0, free_full, NULL);
    full.runtime = beam_runtime_free(full.runtime);
}

TEST(all_that_waits_for_a_full_ring_arrives_when_reactors_spin_for_ever)
{
    check_full_ring(BEAM_SPIN_FOREVER);
}

TEST(all_that_waits_for_a_full_ring_arrives_when_reactors_spin_where_it_pays)
{
    check_full_ring(BEAM_SPIN_AUTO);
}

TEST(all_that_waits_for_a_full_ring_arrives_when_reactors_sleep)
{
    check_full_ring(BEAM_SPIN_OFF);
}
