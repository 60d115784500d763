/* Requests: one question, one answer, in every way it can end. */
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/flow.h"

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message *answer = beam_message_new();
    beam_message_set_body(answer, body, len);
    beam_reply(request, &answer);
    CHECK_PTR(answer, NULL);
}

FLOW_TEST(request_is_answered)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    beam_message *question = beam_message_new();
    beam_message_set_body(question, "hello", 5);
    struct flow_answer answer = flow_ask("echo", question);
    CHECK_INT(answer.code, BEAM_OK);
    CHECK_STR(answer.text, "");
    REQUIRE(answer.message != NULL);
    size_t len;
    const void *body = beam_message_body(answer.message, &len);
    CHECK_MEM(body, len, "hello", 5);
    flow_answer_clear(&answer);
}

static void on_message_itself(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *kept = beam_message_keep(message);
    CHECK(kept != NULL);
    if (!kept)
        return;
    beam_reply(request, &kept);
}

FLOW_TEST(request_may_be_answered_with_its_own_message)
{
    flow_serve("echo", on_message_itself, NULL);
    flow_start(NULL);
    for (unsigned i = 0; i < 3; i++) {
        beam_message *question = flow_message_of(i * 1000, i);
        beam_message_put_uint(question, "round", i);
        struct flow_answer answer = flow_ask("echo", question);
        CHECK_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK(flow_body_is_right(answer.message, i * 1000, i));
        int64_t value = -1;
        CHECK_INT(beam_message_get_int(answer.message, "round", &value), 0);
        CHECK_INT(value, i);
        flow_answer_clear(&answer);
    }
}

static void on_nothing(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

FLOW_TEST(request_may_be_answered_with_nothing)
{
    flow_serve("nothing", on_nothing, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("nothing", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    if (answer.message) {
        size_t len;
        beam_message_body(answer.message, &len);
        CHECK_UINT(len, 0);
    }
    flow_answer_clear(&answer);
}

static void on_refuse(beam_request *request, const beam_message *message, void *arg)
{
    beam_fail(request, BEAM_PERMISSION_DENIED, "not for %s", "you");
    beam_fail(request, BEAM_INTERNAL, "the second ending has no effect");
    beam_message *late = beam_message_new();
    beam_reply(request, &late);
    CHECK_PTR(late, NULL);
}

FLOW_TEST(request_fails_with_code_and_text)
{
    flow_serve("refuse", on_refuse, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("refuse", NULL);
    CHECK_INT(answer.code, BEAM_PERMISSION_DENIED);
    CHECK_STR(answer.text, "not for you");
    CHECK_PTR(answer.message, NULL);
    flow_answer_clear(&answer);
}

static void on_every_code(beam_request *request, const beam_message *message, void *arg)
{
    int64_t code = 0;
    CHECK_INT(beam_message_get_int(message, "code", &code), 0);
    beam_fail(request, (enum beam_code)code, NULL);
}

FLOW_TEST(every_code_arrives_as_it_was_given)
{
    flow_serve("fail", on_every_code, NULL);
    flow_start(NULL);
    for (int code = 1; code <= 16; code++) {
        beam_message *question = beam_message_new();
        beam_message_put_int(question, "code", code);
        struct flow_answer answer = flow_ask("fail", question);
        CHECK_INT(answer.code, code);
        CHECK_STR(answer.text, "");
        flow_answer_clear(&answer);
    }
}

static void on_long_text(beam_request *request, const beam_message *message, void *arg)
{
    char text[600];
    memset(text, 'x', sizeof(text));
    text[254] = (char)0xc3; /* a character of two bytes over the edge of 255 */
    text[255] = (char)0xa9;
    text[599] = '\0';
    beam_fail(request, BEAM_ABORTED, "%s", text);
}

FLOW_TEST(long_text_of_an_error_is_cut_between_characters)
{
    flow_serve("fail", on_long_text, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("fail", NULL);
    CHECK_INT(answer.code, BEAM_ABORTED);
    CHECK_UINT(strlen(answer.text), 254);
    flow_answer_clear(&answer);
}

FLOW_TEST(unknown_service_is_not_found)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("ech", NULL);
    CHECK_INT(answer.code, BEAM_NOT_FOUND);
    CHECK_STR(answer.text, "no service of this name");
    flow_answer_clear(&answer);
    answer = flow_ask("echo", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
}

static void unserve_echo(beam_request *request, void *arg)
{
    CHECK_INT(beam_unserve(flow_runtime_here(), "echo"), 0);
    CHECK_INT(beam_unserve(flow_runtime_here(), "echo"), -ENOENT);
}

static void serve_echo(beam_request *request, void *arg)
{
    CHECK_INT(beam_serve(flow_runtime_here(), "echo", on_nothing, NULL), 0);
    CHECK_INT(beam_serve(flow_runtime_here(), "echo", on_nothing, NULL), -EEXIST);
}

FLOW_TEST(unserved_service_is_not_found_until_served_again)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    flow_at_server(unserve_echo, NULL);
    struct flow_answer answer = flow_ask("echo", NULL);
    CHECK_INT(answer.code, BEAM_NOT_FOUND);
    flow_answer_clear(&answer);
    flow_at_server(serve_echo, NULL);
    answer = flow_ask("echo", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
}

static void on_silence(beam_request *request, const beam_message *message, void *arg)
{
}

FLOW_TEST(handler_without_an_answer_is_internal)
{
    flow_serve("silence", on_silence, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("silence", NULL);
    CHECK_INT(answer.code, BEAM_INTERNAL);
    CHECK(answer.text[0] != '\0');
    flow_answer_clear(&answer);
}

FLOW_TEST(bad_service_names_are_refused_by_the_caller)
{
    char name[257];
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    struct flow_answer answer = {0};
    beam_message *question = beam_message_new();
    CHECK_INT(beam_call(flow.session, "", &question, flow_on_reply, &answer, NULL), -EINVAL);
    CHECK_INT(beam_call(flow.session, NULL, &question, flow_on_reply, &answer, NULL), -EINVAL);
    CHECK_INT(beam_call(flow.session, "\xff", &question, flow_on_reply, &answer, NULL), -EINVAL);
    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    CHECK_INT(beam_call(flow.session, name, &question, flow_on_reply, &answer, NULL), -EINVAL);
    CHECK(question != NULL);
    name[255] = '\0';
    int r = beam_call(flow.session, name, &question, flow_on_reply, &answer, NULL);
    CHECK_INT(r, 0);
    beam_message_free(question);
    if (r == 0)
        FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_NOT_FOUND);
    flow_answer_clear(&answer);
}

/* --- later ----------------------------------------------------------------------------------- */

#define KEPT_MAX 10000

/* The server's; each side has its own copy, only the server's is used. */
static beam_request *kept[KEPT_MAX];
static unsigned kept_count;
static int kept_peer_kind; /* of who asks; set before there is a server to read it */

struct counts {
    _Atomic unsigned asked, cancelled;
};

static void on_cancelled(beam_request *request, void *arg)
{
    struct counts *counts = arg;
    CHECK(beam_request_is_cancelled(request));
    counts->cancelled++;
    flow_tick();
}

static void on_keep(beam_request *request, const beam_message *message, void *arg)
{
    struct counts *counts = arg;
    REQUIRE(kept_count < KEPT_MAX);
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancelled, counts);
    kept[kept_count++] = request;
    counts->asked++;
    flow_tick();
}

static void answer_all(beam_request *request, void *arg)
{
    for (unsigned i = 0; i < kept_count; i++) {
        beam_message *answer = beam_message_new();
        beam_message_put_uint(answer, "nr", i);
        beam_reply(kept[i], &answer);
    }
    kept_count = 0;
}

FLOW_TEST(kept_request_is_answered_later)
{
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    flow_serve("keep", on_keep, counts);
    flow_start(NULL);
    struct flow_answer answer = {0};
    beam_message *question = beam_message_new();
    REQUIRE_INT(beam_call(flow.session, "keep", &question, flow_on_reply, &answer, NULL), 0);
    FLOW_WAIT(counts->asked == 1);
    flow_settle();
    CHECK_UINT(answer.count, 0);
    flow_at_server(answer_all, NULL);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_OK);
    flow_settle();
    CHECK_UINT(answer.count, 1);
    CHECK_UINT(counts->cancelled, 0);
    flow_answer_clear(&answer);
}

static void check_orphans(beam_request *request, void *arg)
{
    CHECK_UINT(kept_count, 1);
    CHECK_PTR(beam_request_session(kept[0]), NULL);
    CHECK(beam_request_is_cancelled(kept[0]));
    beam_str name = beam_request_service(kept[0]);
    CHECK_MEM(name.ptr, name.len, "keep", 4);
    CHECK_INT(beam_request_peer(kept[0])->kind, kept_peer_kind);
}

FLOW_TEST(request_outlives_its_session)
{
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    kept_peer_kind = flow_peer_kind();
    flow_serve("keep", on_keep, counts);
    flow_start(NULL);
    beam_session *second = flow_connect(NULL, NULL);
    struct flow_answer answer = {0};
    beam_message *question = beam_message_new();
    REQUIRE_INT(beam_call(second, "keep", &question, flow_on_reply, &answer, NULL), 0);
    FLOW_WAIT(counts->asked == 1);
    beam_session_close(second);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_UNKNOWN); /* it may have run */
    FLOW_WAIT(counts->cancelled == 1);
    flow_at_server(check_orphans, NULL);
    flow_at_server(answer_all, NULL);
    flow_settle();
    CHECK_UINT(answer.count, 1);
    CHECK_UINT(counts->cancelled, 1);
    beam_session_free(second);
    flow_answer_clear(&answer);
}

static void call_times(unsigned times, struct flow_answer *answers)
{
    for (unsigned i = 0; i < times; i++) {
        beam_message *question = beam_message_new();
        int r = beam_call(flow.session, "keep", &question, flow_on_reply, &answers[i], NULL);
        test_note("request %u", i);
        REQUIRE_INT(r, 0);
    }
    test_note("%s", "");
}

FLOW_TEST(a_thousand_requests_fly_and_the_next_waits_its_turn)
{
    const unsigned limit = 1024;
    struct flow_answer *answers = calloc(limit + 1, sizeof(*answers));
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    flow_serve("keep", on_keep, counts);
    flow_start(NULL);
    call_times(limit, answers);
    FLOW_WAIT(counts->asked == limit);

    beam_message *question = beam_message_new();
    int r = beam_call(flow.session, "keep", &question, flow_on_reply, &answers[limit], NULL);
    CHECK_INT(r, -EAGAIN);
    CHECK(question != NULL);
    flow_settle();
    CHECK_UINT(flow.writables, 0);

    /* One answer makes room for one; flow_at_server itself would be one too many. */
    beam_message *none = beam_message_new();
    CHECK_INT(beam_send_event(flow.session, "keep", &none), -EAGAIN);
    beam_message_free(none);
    beam_message_free(question);
    beam_session_close(flow.session);
    for (unsigned i = 0; i < limit; i++)
        FLOW_WAIT(answers[i].count == 1);
    FLOW_WAIT(counts->cancelled == limit);
    CHECK_UINT(answers[limit].count, 0);
    flow.session = beam_session_free(flow.session);
    flow.opens = 0;
    flow.session = flow_connect(NULL, NULL);
    flow_at_server(answer_all, NULL);
    for (unsigned i = 0; i < limit; i++)
        flow_answer_clear(&answers[i]);
    free(answers);
}

/* Answers the first when told so by an event channel that was opened before. */
static void on_answer_one(beam_request *request, const beam_message *message, void *arg)
{
    if (kept_count > 0 && beam_message_metadata(message, NULL) == NULL)
        beam_reply(kept[--kept_count], NULL);
}

FLOW_TEST(session_is_writable_when_a_request_has_ended)
{
    const unsigned limit = 128;
    struct flow_answer *answers = calloc(limit + 1, sizeof(*answers));
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    flow_serve("keep", on_keep, counts);
    flow_serve("answer.one", on_answer_one, NULL);
    flow_start(&(struct flow_options){.server = {.channels_max = limit}});
    beam_message *event = beam_message_new();
    beam_message_put_bool(event, "only to open the channel", true);
    REQUIRE_INT(beam_send_event(flow.session, "answer.one", &event), 0);
    flow_settle();
    call_times(limit - 1, answers);
    FLOW_WAIT(counts->asked == limit - 1);
    beam_message *question = beam_message_new();
    int r = beam_call(flow.session, "keep", &question, flow_on_reply, &answers[limit], NULL);
    REQUIRE_INT(r, -EAGAIN);

    event = beam_message_new();
    REQUIRE_INT(beam_send_event(flow.session, "answer.one", &event), 0);
    FLOW_WAIT(flow.writables == 1);
    r = beam_call(flow.session, "keep", &question, flow_on_reply, &answers[limit], NULL);
    CHECK_INT(r, 0);
    FLOW_WAIT(counts->asked == limit);
    flow_settle();
    CHECK_UINT(flow.writables, 1);

    /* The rest, one event each. */
    uint64_t until = flow_wait_limit_ns();
    unsigned done = 0;
    while (done < limit && beam_now_ns() < until) {
        event = beam_message_new();
        (void)beam_send_event(flow.session, "answer.one", &event);
        beam_message_free(event);
        flow_turn();
        done = 0;
        for (unsigned i = 0; i <= limit; i++)
            done += answers[i].count;
    }
    REQUIRE_UINT(flow.closes, 0); /* else some are still kept */
    for (unsigned i = 0; i <= limit; i++) {
        test_note("request %u", i);
        REQUIRE_UINT(answers[i].count, i == limit - 1 ? 0 : 1);
        flow_answer_clear(&answers[i]);
    }
    free(answers);
}

FLOW_TEST(ten_thousand_requests_fly_at_once_when_the_limit_is_raised)
{
    const unsigned count = flow_many(10000, 1100); /* the limit is 1024 unless it is raised */
    struct flow_answer *answers = calloc(count, sizeof(*answers));
    struct counts *counts = flow_share(sizeof(*counts));
    kept_count = 0;
    flow_serve("keep", on_keep, counts);
    flow_start(&(struct flow_options){.server = {.channels_max = 10001}});
    call_times(count, answers);
    FLOW_WAIT(counts->asked == count);
    for (unsigned i = 0; i < count; i++)
        if (answers[i].count != 0)
            CHECK_UINT(answers[i].count, 0);
    flow_at_server(answer_all, NULL);
    for (unsigned i = 0; i < count; i++)
        FLOW_WAIT(answers[i].count == 1);
    for (unsigned i = 0; i < count; i++) {
        int64_t nr = -1;
        if (answers[i].code != BEAM_OK)
            CHECK_INT(answers[i].code, BEAM_OK);
        REQUIRE(answers[i].message != NULL);
        beam_message_get_int(answers[i].message, "nr", &nr);
        if (nr != i)
            CHECK_INT(nr, i);
        flow_answer_clear(&answers[i]);
    }
    free(answers);
}

/* --- the other way --------------------------------------------------------------------------- */

static void on_called_back(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_request *request = arg;
    CHECK_INT(status->code, BEAM_OK);
    beam_message *answer = beam_message_new();
    int64_t value = 0;
    if (message)
        CHECK_INT(beam_message_get_int(message, "value", &value), 0);
    beam_message_put_int(answer, "value", value + 1);
    beam_reply(request, &answer);
}

static void on_ask_back(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    beam_message *question = beam_message_new();
    int r = beam_call(beam_request_session(request), "value", &question, on_called_back, request,
                      &BEAM_CALL_OPTIONS(.parent = request));
    CHECK_INT(r, 0);
    beam_message_free(question);
    if (r < 0)
        beam_reply(request, NULL);
}

static void on_value(beam_request *request, const beam_message *message, void *arg)
{
    CHECK_UINT(beam_request_depth(request), 1);
    CHECK(!beam_request_is_event(request));
    CHECK(!beam_request_is_open(request));
    beam_message *answer = beam_message_new();
    beam_message_put_int(answer, "value", 41);
    beam_reply(request, &answer);
}

FLOW_TEST(server_calls_the_client_on_the_same_session)
{
    flow_serve("ask.back", on_ask_back, NULL);
    flow_serve("value", on_value, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("ask.back", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    REQUIRE(answer.message != NULL);
    int64_t value = 0;
    CHECK_INT(beam_message_get_int(answer.message, "value", &value), 0);
    CHECK_INT(value, 42);
    flow_answer_clear(&answer);
}

struct nesting {
    _Atomic unsigned deepest;
    _Atomic int refused;
};

static void on_nested_end(const struct beam_status *status, const beam_message *message, void *arg)
{
    CHECK_INT(status->code, BEAM_OK);
    beam_reply(arg, NULL);
}

static void on_nest(beam_request *request, const beam_message *message, void *arg)
{
    struct nesting *nesting = arg;
    unsigned depth = beam_request_depth(request);
    if (depth > nesting->deepest)
        nesting->deepest = depth;
    beam_request_keep(request);
    beam_message *question = beam_message_new();
    int r = beam_call(beam_request_session(request), "nest", &question, on_nested_end, request,
                      &BEAM_CALL_OPTIONS(.parent = request));
    if (r < 0) {
        nesting->refused = r;
        beam_message_free(question);
        beam_reply(request, NULL);
    }
}

FLOW_TEST(requests_nest_in_both_directions_to_sixteen)
{
    struct nesting *nesting = flow_share(sizeof(*nesting));
    flow_serve("nest", on_nest, nesting);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("nest", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    CHECK_UINT(nesting->deepest, 16);
    CHECK_INT(nesting->refused, -ELOOP);
    flow_answer_clear(&answer);
}

/* --- who asks -------------------------------------------------------------------------------- */

struct who {
    _Atomic int kind, pid;
    _Atomic unsigned uid, gid;
    _Atomic unsigned depth;
    _Atomic bool deadline_is_none;
};

static void on_who(beam_request *request, const beam_message *message, void *arg)
{
    struct who *who = arg;
    const struct beam_peer *peer = beam_request_peer(request);
    who->kind = (int)peer->kind;
    who->pid = peer->pid;
    who->uid = peer->uid;
    who->gid = peer->gid;
    who->depth = beam_request_depth(request);
    who->deadline_is_none = beam_request_deadline_ns(request) == UINT64_MAX;
    beam_reply(request, NULL);
}

FLOW_TEST(handler_knows_who_asks)
{
    struct who *who = flow_share(sizeof(*who));
    flow_serve("who", on_who, who);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("who", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    CHECK_INT(who->kind, flow_peer_kind());
    CHECK_INT(who->pid, flow.network ? -1 : getpid());
    CHECK_UINT(who->uid, flow.network ? UINT32_MAX : getuid());
    CHECK_UINT(who->gid, flow.network ? UINT32_MAX : getgid());
    CHECK_UINT(who->depth, 0);
    CHECK(who->deadline_is_none);
    flow_answer_clear(&answer);
}
