/* Deadlines and cancel: they travel with the request, hold at both ends, and reach what was asked on
 * the request's behalf. */
#include "tests/support/flow.h"

#define SHORT (20 * BEAM_MS)
#define LONG (3600 * BEAM_SEC)

struct seen {
    _Atomic unsigned asked, cancelled, child_asked, child_cancelled, child_ended;
    _Atomic int child_code, late_call;
    _Atomic uint64_t deadline_ns, asked_at_ns, child_deadline_ns;
};

/* The server's own. */
static beam_request *waiting, *child_waiting;

static void on_cancel(beam_request *request, void *arg)
{
    struct seen *seen = arg;
    CHECK(beam_request_is_cancelled(request));
    CHECK_PTR(request, waiting);
    seen->cancelled++;
    flow_tick();
}

static void on_wait(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, seen);
    seen->deadline_ns = beam_request_deadline_ns(request);
    seen->asked_at_ns = beam_now_ns();
    waiting = request;
    seen->asked++;
    flow_tick();
}

static void reply_waiting(beam_request *request, void *arg)
{
    beam_reply(waiting, NULL);
    waiting = NULL;
}

static void call(const char *service, struct flow_answer *answer, uint64_t timeout_ns)
{
    beam_message *question = beam_message_new();
    int r = beam_call(flow.session, service, &question, flow_on_reply, answer,
                      &BEAM_CALL_OPTIONS(.timeout_ns = timeout_ns));
    REQUIRE_INT(r, 0);
}

FLOW_TEST(deadline_ends_a_request_at_both_ends)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer answer = {0};
    flow_serve("wait", on_wait, seen);
    flow_start(NULL);
    uint64_t before = beam_now_ns();
    call("wait", &answer, SHORT);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_DEADLINE_EXCEEDED);
    CHECK(beam_now_ns() - before >= SHORT);
    FLOW_WAIT(seen->cancelled == 1);
    flow_at_server(reply_waiting, NULL); /* to nobody */
    flow_settle();
    CHECK_UINT(answer.count, 1);
    CHECK_UINT(seen->cancelled, 1);
    CHECK_UINT(flow.closes, 0);
}

FLOW_TEST(deadline_travels_as_what_is_left)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer answer = {0};
    flow_serve("wait", on_wait, seen);
    flow_start(NULL);
    uint64_t before = beam_now_ns();
    call("wait", &answer, LONG);
    FLOW_WAIT(seen->asked == 1);
    CHECK(seen->deadline_ns >= before);
    CHECK(seen->deadline_ns - seen->asked_at_ns <= LONG);
    CHECK(seen->deadline_ns - seen->asked_at_ns > LONG - 60 * BEAM_SEC);
    flow_at_server(reply_waiting, NULL);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_OK);
    CHECK_UINT(seen->cancelled, 0);
    flow_answer_clear(&answer);
}

static void on_channel_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    flow_on_reply(status, NULL, arg);
}

static const struct beam_channel_handlers channel_handlers = {.on_end = on_channel_end};

FLOW_TEST(deadline_of_a_channel_ends_it_at_both_ends)
{
    struct seen *seen = flow_share(sizeof(*seen));
    beam_channel *channel = NULL;
    flow_serve("wait", on_wait, seen);
    flow_start(NULL);
    struct flow_answer end = {0};
    REQUIRE_INT(beam_open(flow.session, "wait", NULL, &channel_handlers, &end,
                          &BEAM_CALL_OPTIONS(.timeout_ns = SHORT), &channel),
                0);
    FLOW_WAIT(end.count == 1 && seen->cancelled == 1);
    CHECK_INT(end.code, BEAM_DEADLINE_EXCEEDED);
    CHECK_INT(beam_channel_send_body(channel, "x", 1), -EPIPE);
    flow_at_server(reply_waiting, NULL);
    flow_settle();
    CHECK_UINT(end.count, 1);
    CHECK_UINT(seen->cancelled, 1);
    beam_channel_free(channel);
}

FLOW_TEST(deadline_covers_the_wait_for_a_peer_that_does_not_come)
{
    struct flow_answer answer = {0};
    flow_start(&(struct flow_options){.unawaited = true});
    uint64_t before = beam_now_ns();
    /* One nanosecond: over before anything could leave. */
    call("wait", &answer, 1);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_DEADLINE_EXCEEDED);
    CHECK(beam_now_ns() - before < 10 * BEAM_SEC);
    flow_settle();
    CHECK_UINT(answer.count, 1);
    CHECK_UINT(flow.closes, 0);
}

/* --- children -------------------------------------------------------------------------------- */

static void on_child_end(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    seen->child_code = (int)status->code;
    seen->child_ended++;
    flow_tick();
}

static void on_child_cancel(beam_request *request, void *arg)
{
    struct seen *seen = arg;
    seen->child_cancelled++;
    flow_tick();
}

/* Serves on the client's side: asked by "parent", for the request it serves. */
static void on_child(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_child_cancel, seen);
    seen->child_deadline_ns = beam_request_deadline_ns(request);
    child_waiting = request;
    seen->child_asked++;
    flow_tick();
}

static void on_parent(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    int64_t timeout = 0;
    (void)beam_message_get_int(message, "timeout", &timeout);
    on_wait(request, message, arg);
    beam_message *question = beam_message_new();
    CHECK_INT(beam_call(beam_request_session(request), "child", &question, on_child_end, seen,
                        &BEAM_CALL_OPTIONS(.parent = request, .timeout_ns = (uint64_t)timeout)),
              0);
    beam_message_free(question);
}

static struct seen *start_family(void)
{
    struct seen *seen = flow_share(sizeof(*seen));
    waiting = child_waiting = NULL;
    flow_serve("parent", on_parent, seen);
    flow_serve("child", on_child, seen);
    flow_start(NULL);
    return seen;
}

static void call_parent(struct flow_answer *answer, uint64_t timeout, uint64_t child_timeout)
{
    beam_message *question = beam_message_new();
    beam_message_put_uint(question, "timeout", child_timeout);
    REQUIRE_INT(beam_call(flow.session, "parent", &question, flow_on_reply, answer,
                          &BEAM_CALL_OPTIONS(.timeout_ns = timeout)),
                0);
}

static void reply_child(void)
{
    beam_reply(child_waiting, NULL);
    child_waiting = NULL;
}

FLOW_TEST(child_gets_what_is_left_of_its_parents_time)
{
    struct seen *seen = start_family();
    struct flow_answer answer = {0};
    call_parent(&answer, LONG, 2 * LONG);
    FLOW_WAIT(seen->child_asked == 1);
    /* One clock for all of them: this machine's. */
    CHECK(seen->child_deadline_ns <= seen->deadline_ns + BEAM_SEC);
    CHECK(seen->child_deadline_ns > seen->deadline_ns - 60 * BEAM_SEC);
    reply_child();
    FLOW_WAIT(seen->child_ended == 1);
    CHECK_INT(seen->child_code, BEAM_OK);
    flow_at_server(reply_waiting, NULL);
    FLOW_WAIT(answer.count == 1);
    flow_answer_clear(&answer);
}

FLOW_TEST(child_keeps_a_smaller_time_of_its_own)
{
    struct seen *seen = start_family();
    struct flow_answer answer = {0};
    call_parent(&answer, LONG, SHORT);
    FLOW_WAIT(seen->child_ended == 1);
    CHECK_INT(seen->child_code, BEAM_DEADLINE_EXCEEDED);
    CHECK_UINT(answer.count, 0);
    CHECK_UINT(seen->cancelled, 0);
    FLOW_WAIT(seen->child_cancelled == 1);
    reply_child();
    flow_at_server(reply_waiting, NULL);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
}

FLOW_TEST(deadline_of_the_parent_ends_the_child_too)
{
    struct seen *seen = start_family();
    struct flow_answer answer = {0};
    call_parent(&answer, SHORT, 0);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_DEADLINE_EXCEEDED);
    FLOW_WAIT(seen->cancelled == 1 && seen->child_ended == 1 && seen->child_cancelled == 1);
    CHECK(seen->child_code == BEAM_DEADLINE_EXCEEDED || seen->child_code == BEAM_CANCELLED);
    reply_child();
    flow_at_server(reply_waiting, NULL);
    flow_settle();
    CHECK_UINT(seen->child_ended, 1);
    CHECK_UINT(seen->child_cancelled, 1);
    flow_answer_clear(&answer);
}

static void call_for_cancelled(beam_request *request, void *arg)
{
    struct seen *seen = arg;
    beam_message *question = beam_message_new();
    seen->late_call = beam_call(beam_request_session(request), "child", &question, on_child_end,
                                seen, &BEAM_CALL_OPTIONS(.parent = waiting));
    beam_message_free(question);
}

FLOW_TEST(cancelling_a_request_cancels_what_was_asked_for_it)
{
    struct seen *seen = start_family();
    beam_channel *channel = NULL;
    beam_message *question = beam_message_new();
    REQUIRE_INT(beam_open(flow.session, "parent", &question, NULL, NULL, NULL, &channel), 0);
    FLOW_WAIT(seen->child_asked == 1);
    beam_channel_reset(channel, BEAM_CANCELLED, "changed my mind");
    FLOW_WAIT(seen->cancelled == 1 && seen->child_ended == 1 && seen->child_cancelled == 1);
    CHECK_INT(seen->child_code, BEAM_CANCELLED);
    /* Nothing more can be asked on its behalf. */
    flow_at_server(call_for_cancelled, seen);
    CHECK_INT(seen->late_call, -ECANCELED);
    reply_child();
    flow_at_server(reply_waiting, NULL);
    flow_settle();
    CHECK_UINT(seen->child_ended, 1);
    beam_channel_free(channel);
}

FLOW_TEST(nothing_is_asked_for_a_request_whose_time_is_over)
{
    struct seen *seen = start_family();
    struct flow_answer answer = {0};
    call_parent(&answer, SHORT, 0);
    FLOW_WAIT(answer.count == 1 && seen->cancelled == 1 && seen->child_cancelled == 1);
    flow_at_server(call_for_cancelled, seen);
    CHECK(seen->late_call == -ETIMEDOUT || seen->late_call == -ECANCELED);
    reply_child();
    flow_at_server(reply_waiting, NULL);
    flow_answer_clear(&answer);
}

FLOW_TEST(an_answered_request_leaves_its_children_alone)
{
    struct seen *seen = start_family();
    struct flow_answer answer = {0};
    call_parent(&answer, 0, 0);
    FLOW_WAIT(seen->child_asked == 1);
    flow_at_server(reply_waiting, NULL);
    FLOW_WAIT(answer.count == 1);
    flow_settle();
    CHECK_UINT(seen->child_ended, 0);
    CHECK_UINT(seen->child_cancelled, 0);
    reply_child();
    FLOW_WAIT(seen->child_ended == 1);
    CHECK_INT(seen->child_code, BEAM_OK);
    flow_answer_clear(&answer);
}
