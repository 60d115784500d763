/* How sessions begin and end: GOAWAY, close, loss, the end of a runtime; and PING. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/flow.h"

struct counts {
    _Atomic unsigned asked, cancelled, closed;
    _Atomic int later;
};

#define KEPT_MAX 64

static beam_request *kept[KEPT_MAX];
static unsigned kept_count;

static void on_cancelled(beam_request *request, void *arg)
{
    ((struct counts *)arg)->cancelled++;
    flow_tick();
}

static void keep(beam_request *request, void (*cancelled)(beam_request *, void *),
                 struct counts *counts)
{
    CHECK(kept_count < KEPT_MAX);
    if (kept_count == KEPT_MAX)
        return;
    beam_request_keep(request);
    beam_request_on_cancel(request, cancelled, counts);
    kept[kept_count++] = request;
    counts->asked++;
    flow_tick();
}

static void on_keep(beam_request *request, const beam_message *message, void *arg)
{
    keep(request, on_cancelled, arg);
}

static void answer_all(void)
{
    while (kept_count > 0)
        beam_reply(kept[--kept_count], NULL);
}

static void answer_at_server(beam_request *request, void *arg)
{
    answer_all();
}

/* Answers all when an event says so: this needs no request of its own. */
static void on_answer(beam_request *request, const beam_message *message, void *arg)
{
    answer_all();
}

static void on_drain(beam_request *request, const beam_message *message, void *arg)
{
    beam_session_drain(beam_request_session(request));
    beam_session_drain(beam_request_session(request));
}

static struct counts *start(void)
{
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    flow_serve("keep", on_keep, counts);
    flow_serve("answer", on_answer, NULL);
    flow_serve("drain", on_drain, NULL);
    flow_start(NULL);
    return counts;
}

static int call(beam_session *session, const char *service, struct flow_answer *answer)
{
    beam_message *question = beam_message_new();
    int r = beam_call(session, service, &question, flow_on_reply, answer, NULL);
    CHECK((r == 0) == (question == NULL));
    beam_message_free(question);
    return r;
}

static int send_event(const char *service)
{
    beam_message *event = beam_message_new();
    int r = beam_send_event(flow.session, service, &event);
    beam_message_free(event);
    return r;
}

/* --- begin ----------------------------------------------------------------------------------- */

FLOW_TEST(session_is_open_when_the_peers_hello_has_come)
{
    flow_serve("keep", on_keep, NULL);
    flow_start(&(struct flow_options){.unawaited = true});
    CHECK(!beam_session_is_open(flow.session));
    CHECK_UINT(flow.opens, 0);
    FLOW_WAIT(flow.opens == 1);
    CHECK(beam_session_is_open(flow.session));
    beam_str name = beam_session_peer_name(flow.session);
    CHECK_MEM(name.ptr, name.len, "flow", 4);
    CHECK_INT(beam_session_peer(flow.session)->kind, flow_peer_kind());
    flow_settle();
    CHECK_UINT(flow.opens, 1);
    CHECK_UINT(flow.closes, 0);
}

FLOW_TEST(what_is_asked_before_the_peers_hello_is_answered)
{
    struct flow_answer answers[10] = {0};
    flow_start(&(struct flow_options){.unawaited = true});
    for (unsigned i = 0; i < 10; i++)
        CHECK_INT(call(flow.session, "nobody", &answers[i]), 0);
    for (unsigned i = 0; i < 10; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_NOT_FOUND);
    }
}

FLOW_TEST(urls_that_lead_nowhere_are_told_apart)
{
    beam_session *session = NULL;
    flow_start(NULL);
    static const char *const bad[] = {"ring:99",     "ring:", "ring:x", "ring:-1",
                                      "tcp:1.2.3.4", "unix:", "",       "unix:@"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        test_note("%s", bad[i]);
        CHECK_INT(beam_connect(flow.runtime, bad[i], NULL, &session), -BEAM_EURL);
        CHECK_PTR(session, NULL);
    }
}

static unsigned dead_closes;
static enum beam_code dead_code;

static void on_dead(beam_session *session, const struct beam_status *status, void *arg)
{
    dead_closes++;
    dead_code = status->code;
    flow_tick();
}

static const struct beam_session_handlers dead_handlers = {.on_close = on_dead};

FLOW_TEST_UNIX(session_with_nobody_ends_unavailable)
{
    struct flow_answer answer = {0};
    beam_session *session = NULL;
    dead_closes = 0;
    flow_start(NULL);
    REQUIRE_INT(beam_connect(flow.runtime, "unix:@beam-flow-nobody-listens-here",
                             &BEAM_CONNECT_OPTIONS(.handlers = &dead_handlers), &session),
                0);
    CHECK_INT(call(session, "keep", &answer), 0);
    FLOW_WAIT(dead_closes == 1 && answer.count == 1);
    CHECK_INT(dead_code, BEAM_UNAVAILABLE);
    CHECK_INT(answer.code, BEAM_UNAVAILABLE); /* surely not run */
    CHECK(!beam_session_is_open(session));
    CHECK_INT(call(session, "keep", &answer), -ESHUTDOWN);
    flow_settle();
    CHECK_UINT(dead_closes, 1);
    beam_session_free(session);
}

/* --- drain ----------------------------------------------------------------------------------- */

FLOW_TEST(draining_finishes_what_is_under_way_and_takes_nothing_new)
{
    struct counts *counts = start();
    struct flow_answer answers[3] = {0}, late = {0};
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(call(flow.session, "keep", &answers[i]), 0);
    FLOW_WAIT(counts->asked == 3);
    CHECK_INT(send_event("answer"), 0);
    for (unsigned i = 0; i < 3; i++)
        FLOW_WAIT(answers[i].count == 1);
    for (unsigned i = 0; i < 3; i++)
        flow_answer_clear(&answers[i]);

    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(call(flow.session, "keep", &answers[i]), 0);
    FLOW_WAIT(counts->asked == 6);
    beam_session *second = flow_connect(NULL, NULL);
    beam_session_drain(flow.session);
    beam_session_drain(flow.session);
    CHECK_INT(call(flow.session, "keep", &late), -ESHUTDOWN);
    CHECK_INT(send_event("answer"), -ESHUTDOWN);
    for (unsigned i = 0; i < 20; i++)
        flow_turn();
    CHECK_UINT(flow.closes, 0);
    CHECK_UINT(answers[0].count, 0);
    beam_message *event = beam_message_new();
    CHECK_INT(beam_send_event(second, "answer", &event), 0);
    beam_message_free(event);
    for (unsigned i = 0; i < 3; i++) {
        FLOW_WAIT(answers[i].count == 1);
        REQUIRE_INT(answers[i].code, BEAM_OK); /* else they are still kept */
    }
    FLOW_WAIT(flow.closes == 1);
    CHECK_INT(flow.closed.code, BEAM_OK);
    CHECK_UINT(counts->cancelled, 0);
    CHECK_UINT(counts->asked, 6);
    beam_session_free(second);
}

FLOW_TEST(draining_server_finishes_and_the_client_hears_it)
{
    struct counts *counts = start();
    struct flow_answer answers[2] = {0}, late = {0};
    CHECK_INT(call(flow.session, "keep", &answers[0]), 0);
    CHECK_INT(send_event("answer"), 0); /* makes the channel, and answers */
    FLOW_WAIT(answers[0].count == 1);
    CHECK_INT(call(flow.session, "keep", &answers[1]), 0);
    FLOW_WAIT(counts->asked == 2);
    beam_session *second = flow_connect(NULL, NULL);
    CHECK_INT(send_event("drain"), 0);
    int r;
    FLOW_WAIT((r = call(flow.session, "keep", &late)) == -ESHUTDOWN || late.count > 0);
    if (late.count > 0)
        CHECK_INT(late.code, BEAM_UNAVAILABLE);
    (void)r;
    CHECK_UINT(answers[1].count, 0);
    CHECK_UINT(flow.closes, 0);
    beam_message *event = beam_message_new();
    CHECK_INT(beam_send_event(second, "answer", &event), 0);
    beam_message_free(event);
    FLOW_WAIT(answers[1].count == 1);
    REQUIRE_INT(answers[1].code, BEAM_OK); /* else it is still kept */
    FLOW_WAIT(flow.closes == 1);
    CHECK_INT(flow.closed.code, BEAM_OK);
    CHECK_UINT(counts->asked, 2);
    beam_session_free(second);
}

FLOW_TEST(request_that_crosses_a_goaway_is_surely_not_run)
{
    struct counts *counts = start();
    struct flow_answer answers[200] = {0};
    unsigned called = 0, not_run = 0;
    CHECK_INT(send_event("drain"), 0);
    while (called < 64 && call(flow.session, "keep", &answers[called]) == 0) {
        called++;
        flow_turn();
    }
    CHECK(called < 64);
    for (unsigned i = 0; i < 20; i++)
        flow_turn();
    for (unsigned i = 0; i < called; i++) {
        not_run += answers[i].count;
        if (answers[i].count)
            CHECK_INT(answers[i].code, BEAM_UNAVAILABLE);
    }
    /* Each has run, and waits for its answer, or was refused. */
    CHECK_UINT(counts->asked + not_run, called);
    beam_session *second = flow_connect(NULL, NULL);
    beam_message *event = beam_message_new();
    CHECK_INT(beam_send_event(second, "answer", &event), 0);
    beam_message_free(event);
    FLOW_WAIT(flow.closes == 1);
    for (unsigned i = 0; i < called; i++)
        CHECK_UINT(answers[i].count, 1);
    beam_session_free(second);
}

/* While it drains, a server may not ask by name any more; channels that travel with answers go on. */
static void on_ask_back_end(const struct beam_status *status, const beam_message *message,
                            void *arg)
{
}

static void on_last_words(beam_request *request, const beam_message *message, void *arg)
{
    struct counts *counts = arg;
    beam_session_drain(beam_request_session(request));
    beam_message *question = beam_message_new();
    counts->later = beam_call(beam_request_session(request), "keep", &question, on_ask_back_end,
                              NULL, &BEAM_CALL_OPTIONS(.parent = request));
    beam_message_free(question);
    beam_message *answer = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(answer);
    REQUIRE(channel != NULL);
    beam_reply(request, &answer);
    CHECK_INT(beam_channel_send_body(channel, "still here", 10), 0);
    beam_channel_end(channel);
    beam_channel_free(channel); /* its peer has not ended: cancelled */
}

static void on_word(beam_channel *channel, const beam_message *message, void *arg)
{
    (*(unsigned *)arg)++;
    flow_tick();
}

static void on_word_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (*(unsigned *)arg) += 100;
    flow_tick();
}

static const struct beam_channel_handlers word_handlers = {.on_message = on_word,
                                                           .on_end = on_word_end};

FLOW_TEST(channels_of_answers_still_open_while_a_session_drains)
{
    struct counts *counts = flow_share(sizeof(*counts));
    struct flow_answer answer = {0};
    flow_serve("last", on_last_words, counts);
    flow_start(NULL);
    CHECK_INT(call(flow.session, "last", &answer), 0);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_OK);
    CHECK_INT(counts->later, -ESHUTDOWN);
    REQUIRE(answer.message != NULL);
    unsigned heard = 0;
    beam_channel *channel = beam_message_take_channel(answer.message, 0);
    REQUIRE(channel != NULL);
    beam_channel_set_handlers(channel, &word_handlers, &heard);
    flow_answer_clear(&answer);
    FLOW_WAIT(heard >= 100);
    beam_channel_free(channel);
    FLOW_WAIT(flow.closes == 1);
    CHECK_INT(flow.closed.code, BEAM_OK);
}

/* --- close and free -------------------------------------------------------------------------- */

FLOW_TEST(close_ends_each_request_once_and_tells_which_never_left)
{
    struct counts *counts = start();
    struct flow_answer answers[5] = {0}, never = {0};
    for (unsigned i = 0; i < 5; i++)
        CHECK_INT(call(flow.session, "keep", &answers[i]), 0);
    FLOW_WAIT(counts->asked == 5);
    CHECK_INT(call(flow.session, "keep", &never), 0);
    beam_session_close(flow.session);
    beam_session_close(flow.session);
    CHECK_UINT(never.count, 0); /* from the loop, not from inside */
    FLOW_WAIT(flow.closes == 1 && never.count == 1);
    CHECK_INT(flow.closed.code, BEAM_CANCELLED);
    for (unsigned i = 0; i < 5; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_UNKNOWN);
    }
    CHECK_INT(never.code, BEAM_UNAVAILABLE);
    CHECK_INT(call(flow.session, "keep", &never), -ESHUTDOWN);
    CHECK(!beam_session_is_open(flow.session));
    FLOW_WAIT(counts->cancelled == 5);
    CHECK_UINT(counts->asked, 5);
    flow.session = beam_session_free(flow.session);
    flow.session = flow_connect(NULL, NULL);
    flow_at_server(answer_at_server, NULL);
    CHECK_UINT(flow.closes, 1);
}

FLOW_TEST(free_ends_everything_under_way)
{
    struct counts *counts = start();
    struct flow_answer answers[5] = {0};
    beam_channel *channel = NULL;
    for (unsigned i = 0; i < 5; i++)
        CHECK_INT(call(flow.session, "keep", &answers[i]), 0);
    REQUIRE_INT(beam_open(flow.session, "keep", NULL, NULL, NULL, NULL, &channel), 0);
    FLOW_WAIT(counts->asked == 6);
    for (unsigned i = 0; i < 3; i++) {
        beam_message *large = flow_message_of(1 << 20, 0);
        CHECK_INT(beam_send_event(flow.session, "answer", &large), i == 0 ? 0 : -EAGAIN);
        beam_message_free(large);
    }
    flow.session = beam_session_free(flow.session);
    for (unsigned i = 0; i < 5; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK(answers[i].code != BEAM_OK);
    }
    CHECK_INT(beam_channel_send_body(channel, "x", 1), -EPIPE);
    FLOW_WAIT(counts->cancelled == 6);
    beam_channel_free(channel);
    CHECK_UINT(flow.closes, 0); /* no callback follows */
    flow.session = flow_connect(NULL, NULL);
    flow_at_server(answer_at_server, NULL);
}

static void free_on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    flow_on_reply(status, message, arg);
    flow.session = beam_session_free(flow.session);
}

FLOW_TEST(session_may_be_freed_in_on_reply)
{
    struct flow_answer answers[10] = {0};
    flow_start(NULL);
    for (unsigned i = 0; i < 10; i++) {
        beam_message *question = beam_message_new();
        REQUIRE_INT(beam_call(flow.session, "nobody", &question,
                              i == 3 ? free_on_reply : flow_on_reply, &answers[i], NULL),
                    0);
    }
    for (unsigned i = 0; i < 10; i++)
        FLOW_WAIT(answers[i].count == 1);
    CHECK_INT(answers[3].code, BEAM_NOT_FOUND);
    CHECK_UINT(flow.closes, 0);
}

static beam_session *self_freed;

static void free_session(beam_session *session, void *arg)
{
    (*(unsigned *)arg)++;
    self_freed = beam_session_free(session);
    flow_tick();
}

static void free_session_on_close(beam_session *session, const struct beam_status *status,
                                  void *arg)
{
    free_session(session, arg);
}

static const struct beam_session_handlers free_on_open = {.on_open = free_session};
static const struct beam_session_handlers free_on_close = {.on_close = free_session_on_close};

FLOW_TEST(session_may_be_freed_in_on_open_and_on_close)
{
    unsigned opened = 0, closed = 0;
    flow_start(NULL);
    self_freed = flow_connect(&free_on_open, &opened);
    FLOW_WAIT(opened == 1);
    self_freed = flow_connect(&free_on_close, &closed);
    beam_session_close(self_freed);
    FLOW_WAIT(closed == 1);
    flow_settle();
    CHECK_UINT(opened + closed, 2);
}

FLOW_TEST(many_sessions_come_and_go)
{
    flow_start(NULL);
    for (unsigned round = 0; round < 20; round++) {
        beam_session *sessions[8];
        struct flow_answer answers[8] = {0};
        for (unsigned i = 0; i < 8; i++) {
            sessions[i] = flow_connect(NULL, NULL);
            CHECK_INT(call(sessions[i], "nobody", &answers[i]), 0);
            if ((i + round) % 3 == 0)
                sessions[i] = beam_session_free(sessions[i]);
        }
        for (unsigned i = 0; i < 8; i++) {
            FLOW_WAIT(answers[i].count == 1);
            CHECK_INT(answers[i].code, sessions[i] ? BEAM_NOT_FOUND : BEAM_UNAVAILABLE);
            beam_session_free(sessions[i]);
        }
    }
    flow_settle();
}

/* --- ping ------------------------------------------------------------------------------------ */

struct pong {
    unsigned count;
    uint64_t ns;
};

static void on_pong(uint64_t ns, void *arg)
{
    struct pong *pong = arg;
    pong->count++;
    pong->ns = ns;
    flow_tick();
}

FLOW_TEST(ping_measures_the_way_there_and_back)
{
    struct pong pong = {0};
    flow_start(NULL);
    uint64_t before = beam_now_ns();
    CHECK_INT(beam_session_ping(flow.session, on_pong, &pong), 0);
    CHECK_INT(beam_session_ping(flow.session, on_pong, &pong), -EBUSY);
    FLOW_WAIT(pong.count == 1);
    CHECK(pong.ns > 0 && pong.ns <= beam_now_ns() - before);
    CHECK_INT(beam_session_ping(flow.session, on_pong, &pong), 0);
    FLOW_WAIT(pong.count == 2);
    beam_session *session = flow_connect(NULL, NULL);
    FLOW_WAIT(beam_session_is_open(session));
    CHECK_INT(beam_session_ping(session, on_pong, &pong), 0);
    beam_session_close(session);
    FLOW_WAIT(pong.count == 3);
    CHECK_UINT(pong.ns, 0);
    CHECK_INT(beam_session_ping(session, on_pong, &pong), -ESHUTDOWN);
    beam_session_free(session);
}

/* --- the end of a runtime -------------------------------------------------------------------- */

static void stop_here(void *arg)
{
    beam_runtime_stop(arg);
}

static void on_stop(beam_request *request, const beam_message *message, void *arg)
{
    CHECK_INT(beam_post(flow_runtime_here(), 0, stop_here, flow_runtime_here()), 0);
}

static void on_finish(void *arg)
{
    answer_all();
}

static void drop_cancelled(beam_request *request, void *arg)
{
    on_cancelled(request, arg);
    unsigned i = 0;
    while (kept[i] != request)
        i++;
    kept[i] = kept[--kept_count];
    beam_reply(request, NULL);
}

/* A runtime that stops does not wait for requests whose session is lost. */
static void on_keep_until_lost(beam_request *request, const beam_message *message, void *arg)
{
    keep(request, drop_cancelled, arg);
}

/* Stops its runtime while requests are under way, and answers them when it has begun to stop. */
static void on_stop_and_answer(beam_request *request, const beam_message *message, void *arg)
{
    beam_timer *timer;
    on_stop(request, message, arg);
    int r = beam_timer_new(flow_runtime_here(), 20 * BEAM_MS, 0, on_finish, NULL, &timer);
    CHECK_INT(r, 0);
    if (r < 0)
        answer_all();
}

FLOW_TEST_UNIX(stopping_server_finishes_what_is_under_way)
{
    struct counts *counts = flow_share(sizeof(*counts));
    struct flow_answer answers[4] = {0}, late = {0};
    kept_count = 0;
    flow_serve("keep", on_keep_until_lost, counts);
    flow_serve("stop", on_stop_and_answer, NULL);
    flow_start(NULL);
    for (unsigned i = 0; i < 4; i++)
        CHECK_INT(call(flow.session, "keep", &answers[i]), 0);
    FLOW_WAIT(counts->asked == 4);
    CHECK_INT(send_event("stop"), 0);
    for (unsigned i = 0; i < 4; i++) {
        FLOW_WAIT(answers[i].count == 1);
        REQUIRE_INT(answers[i].code, BEAM_OK); /* else they are still kept */
    }
    FLOW_WAIT(flow.closes == 1);
    CHECK_INT(flow.closed.code, BEAM_OK);
    CHECK_INT(call(flow.session, "keep", &late), -ESHUTDOWN);
    CHECK_UINT(counts->cancelled, 0);
}

static void fail_cancelled(beam_request *request, void *arg)
{
    on_cancelled(request, arg);
    beam_fail(request, BEAM_CANCELLED, "nobody waits for it");
}

static void on_keep_until_cancelled(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    beam_request_on_cancel(request, fail_cancelled, arg);
    ((struct counts *)arg)->asked++;
}

FLOW_TEST_UNIX(stopping_server_waits_no_longer_than_its_time)
{
    struct counts *counts = flow_share(sizeof(*counts));
    struct flow_answer answer = {0};
    flow_serve("keep", on_keep_until_cancelled, counts);
    flow_serve("stop", on_stop, NULL);
    flow_start(NULL);
    CHECK_INT(call(flow.session, "keep", &answer), 0);
    FLOW_WAIT(counts->asked == 1);
    uint64_t before = beam_now_ns();
    CHECK_INT(send_event("stop"), 0);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_UNKNOWN);
    CHECK(beam_now_ns() - before >= BEAM_SEC - 100 * BEAM_MS); /* its default */
    FLOW_WAIT(flow.closes == 1);
    CHECK(flow.closed.code != BEAM_OK);
    FLOW_WAIT(counts->cancelled == 1);
}

FLOW_TEST(runtime_stops_with_everything_open)
{
    struct flow_answer *answer = calloc(1, sizeof(*answer));
    struct counts *counts = flow_share(sizeof(*counts));
    beam_channel *channel = NULL;
    flow_start(&(struct flow_options){.unawaited = true});
    CHECK_INT(call(flow.session, "nobody", answer), 0);
    REQUIRE_INT(beam_open(flow.session, "nobody", NULL, NULL, NULL, NULL, &channel), 0);
    beam_channel_free(channel);
    flow_stop();
    CHECK_UINT(answer->count, 1);
    CHECK_UINT(counts->asked, 0);
    free(answer);
}
