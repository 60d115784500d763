/* Services of one reactor, asked on another: one hop over a ring, which nobody notices. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/flow.h"

struct seen {
    _Atomic unsigned asked, cancelled, messages, ends, wrong, depth;
    _Atomic int reactor, code, session_reactor;
    _Atomic uint64_t deadline_ns, bytes;
};

static void note_session_reactor(beam_request *request, void *arg)
{
    ((struct seen *)arg)->session_reactor = beam_reactor_current();
}

/* --- requests -------------------------------------------------------------------------------- */

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    seen->reactor = beam_reactor_current();
    seen->depth = beam_request_depth(request);
    seen->asked++;
    beam_message *kept = beam_message_keep(message);
    beam_reply(request, &kept);
}

FLOW_TEST(hop_request_runs_on_its_reactor_and_is_answered)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve_at_home("echo", on_echo, seen);
    flow_start(NULL);
    flow_at_server(note_session_reactor, seen);
    static const size_t lens[] = {0, 1, 40, 41, 192, 193, 5000, 65536, 1 << 20, 15 << 20};
    for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        beam_message *question = flow_message_of(lens[i], i);
        beam_message_put_uint(question, "i", i);
        test_note("%zu bytes", lens[i]);
        struct flow_answer answer = flow_ask("echo", question);
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK(flow_body_is_right(answer.message, lens[i], i));
        int64_t value = -1;
        REQUIRE(answer.message != NULL);
        CHECK_INT(beam_message_get_int(answer.message, "i", &value), 0);
        CHECK_INT(value, i);
        flow_answer_clear(&answer);
    }
    CHECK(seen->reactor != seen->session_reactor);
    CHECK_UINT(seen->depth, 0); /* a hop is no nesting */
}

/* An answer of 2000 bytes, or one with an fd. */
static void on_answer_too_much(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    size_t len;
    beam_message *answer = beam_message_new();
    seen->asked++;
    (void)beam_message_body(message, &len);
    if (len == 0) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        beam_message_attach_fd(answer, &fd);
    } else {
        void *room = beam_message_reserve_body(answer, 2000);
        CHECK(room != NULL);
        if (room)
            memset(room, 0, 2000);
    }
    beam_reply(request, &answer);
}

/* It ran, so that UNAVAILABLE would be a lie. */
FLOW_TEST_UNIX(hop_answer_that_its_caller_does_not_take_ends_as_without_a_hop)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.client = {.message_len_max = 1000, .fds_refused = true}};
    flow_serve_at_home("home", on_answer_too_much, seen);
    flow_serve("here", on_answer_too_much, seen);
    flow_start(&options);
    for (unsigned i = 0; i < 4; i++) {
        test_note("%s", i % 2 ? "with a hop" : "without");
        struct flow_answer answer =
            flow_ask(i % 2 ? "home" : "here", i < 2 ? flow_message_of(8, i) : beam_message_new());
        CHECK_INT(answer.code, i < 2 ? BEAM_RESOURCE_EXHAUSTED : BEAM_FAILED_PRECONDITION);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->asked, 4);
}

static void on_fail(beam_request *request, const beam_message *message, void *arg)
{
    beam_fail(request, BEAM_ALREADY_EXISTS, "there is %s", "one");
}

static void on_silence(beam_request *request, const beam_message *message, void *arg)
{
}

FLOW_TEST(hop_request_fails_as_it_would_without)
{
    flow_serve_at_home("fail", on_fail, NULL);
    flow_serve_at_home("silence", on_silence, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("fail", NULL);
    CHECK_INT(answer.code, BEAM_ALREADY_EXISTS);
    CHECK_STR(answer.text, "there is one");
    flow_answer_clear(&answer);
    answer = flow_ask("silence", NULL);
    CHECK_INT(answer.code, BEAM_INTERNAL);
    flow_answer_clear(&answer);
    answer = flow_ask("nobody", NULL);
    CHECK_INT(answer.code, BEAM_NOT_FOUND);
    flow_answer_clear(&answer);
}

/* Who a service trusts must not depend on the reactor it runs on. */
struct asker {
    _Atomic int kind, pid;
    _Atomic unsigned uid, gid, count;
};

static void note_asker(beam_request *request, const beam_message *message, void *arg)
{
    struct asker *asker = arg;
    const struct beam_peer *peer = beam_request_peer(request);
    asker->kind = (int)peer->kind;
    asker->pid = peer->pid;
    asker->uid = peer->uid;
    asker->gid = peer->gid;
    asker->count++;
    beam_reply(request, NULL);
}

static void check_asker(const struct asker *asker)
{
    CHECK_INT(asker->kind, flow_peer_kind());
    CHECK_INT(asker->pid, flow.network ? -1 : getpid());
    CHECK_UINT(asker->uid, flow.network ? UINT32_MAX : getuid());
    CHECK_UINT(asker->gid, flow.network ? UINT32_MAX : getgid());
}

FLOW_TEST(hop_request_tells_who_asks)
{
    struct asker *asker = flow_share(sizeof(*asker));
    flow_serve_at_home("who", note_asker, asker);
    flow_serve_at_home("who.event", note_asker, asker);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("who", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    check_asker(asker);
    flow_answer_clear(&answer);
    asker->kind = 0;
    asker->uid = asker->gid = UINT32_MAX;
    asker->pid = -1;
    beam_message *event = beam_message_new();
    REQUIRE_INT(beam_send_event(flow.session, "who.event", &event), 0);
    FLOW_WAIT(asker->count == 2);
    check_asker(asker);
}

#define MANY 500

static beam_request *kept[MANY];
static unsigned kept_count;

static void on_cancel(beam_request *request, void *arg)
{
    ((struct seen *)arg)->cancelled++;
}

static void on_keep(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, seen);
    seen->deadline_ns = beam_request_deadline_ns(request);
    kept[kept_count++] = request;
    seen->asked++;
}

static void answer_all(beam_request *request, void *arg)
{
    while (kept_count > 0)
        beam_reply(kept[--kept_count], NULL);
}

static void call_kept(struct flow_answer *answer, uint64_t timeout_ns)
{
    beam_message *question = beam_message_new();
    REQUIRE_INT(beam_call(flow.session, "keep", &question, flow_on_reply, answer,
                          &BEAM_CALL_OPTIONS(.timeout_ns = timeout_ns)),
                0);
}

FLOW_TEST(hop_requests_wait_in_hundreds)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer *answers = calloc(MANY, sizeof(*answers));
    kept_count = 0;
    flow_serve_at_home("keep", on_keep, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < MANY; i++)
        call_kept(&answers[i], 0);
    FLOW_WAIT(seen->asked == MANY);
    flow_at_home(answer_all, NULL);
    for (unsigned i = 0; i < MANY; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_OK);
        flow_answer_clear(&answers[i]);
    }
    CHECK_UINT(seen->cancelled, 0);
    free(answers);
}

FLOW_TEST(hop_deadline_travels_and_ends_both_sides)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer answer = {0};
    kept_count = 0;
    flow_serve_at_home("keep", on_keep, seen);
    flow_start(NULL);
    uint64_t before = beam_now_ns();
    call_kept(&answer, 30 * BEAM_MS);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_DEADLINE_EXCEEDED);
    FLOW_WAIT(seen->cancelled == seen->asked);
    if (seen->asked)
        CHECK(seen->deadline_ns >= before && seen->deadline_ns < before + 20 * BEAM_SEC);
    flow_at_home(answer_all, NULL);
    flow_settle();
    CHECK_UINT(answer.count, 1);
}

FLOW_TEST(hop_requests_hear_that_their_session_is_lost)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer answers[5] = {0};
    kept_count = 0;
    flow_serve_at_home("keep", on_keep, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 5; i++)
        call_kept(&answers[i], 0);
    FLOW_WAIT(seen->asked == 5);
    flow.session = beam_session_free(flow.session);
    FLOW_WAIT(seen->cancelled == 5);
    for (unsigned i = 0; i < 5; i++)
        FLOW_WAIT(answers[i].count == 1);
    flow.session = flow_connect(NULL, NULL);
    flow_at_home(answer_all, NULL);
}

/* --- many callers share the way ---------------------------------------------------------------- */

static void on_curt(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL); /* its caller has not ended yet */
}

static void on_answered(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct seen *seen = arg;
    seen->code = (int)status->code;
    seen->ends++;
    flow_tick();
}

static const struct beam_channel_handlers answer_handlers = {.on_end = on_answered};

FLOW_TEST(hop_outlives_any_number_of_conversations_that_its_service_ends)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer lasting = {0};
    kept_count = 0;
    flow_serve_at_home("curt", on_curt, NULL);
    flow_serve_at_home("keep", on_keep, seen);
    flow_start(NULL);
    call_kept(&lasting, 0);
    for (unsigned i = 0; i < flow_many(1000, 100); i++) {
        struct seen here = {.code = -1};
        beam_channel *channel = NULL;
        int r = beam_open(flow.session, "curt", NULL, &answer_handlers, &here, NULL, &channel);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(here.ends == 1);
        beam_channel_free(channel);
        test_note("conversation %u", i);
        REQUIRE_INT(here.code, BEAM_OK);
    }
    CHECK_UINT(seen->cancelled, 0);
    flow_at_home(answer_all, NULL);
    FLOW_WAIT(lasting.count == 1);
    CHECK_INT(lasting.code, BEAM_OK);
}

/* A further session that does not come in at home: a listener deals them out in turn. */
static beam_session *connect_away(void)
{
    if (!flow.one_runtime) {
        beam_session *at_home = flow_connect(NULL, NULL);
        FLOW_WAIT(beam_session_is_open(at_home));
        beam_session_free(at_home);
    }
    beam_session *session = flow_connect(NULL, NULL);
    FLOW_WAIT(beam_session_is_open(session));
    return session;
}

FLOW_TEST(hop_has_room_for_all_whatever_one_session_has_open)
{
    enum { MOST = 64 };
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer answers[MOST] = {0};
    kept_count = 0;
    flow_serve_at_home("keep", on_keep, seen);
    flow_serve_at_home("echo", on_echo, seen);
    flow_start(
        &(struct flow_options){.client = {.channels_max = MOST}, .server = {.channels_max = MOST}});
    beam_session *greedy = connect_away();
    for (unsigned i = 0; i < MOST; i++) {
        beam_message *question = beam_message_new();
        REQUIRE_INT(beam_call(greedy, "keep", &question, flow_on_reply, &answers[i], NULL), 0);
    }
    FLOW_WAIT(seen->asked == MOST);
    struct flow_answer answer = flow_ask("echo", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    flow_at_home(answer_all, NULL);
    for (unsigned i = 0; i < MOST; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_OK);
        flow_answer_clear(&answers[i]);
    }
    beam_session_free(greedy);
}

/* --- channels -------------------------------------------------------------------------------- */

static void count_number(struct seen *seen, const beam_message *message)
{
    size_t len;
    uint32_t n = UINT32_MAX;
    const void *body = beam_message_body(message, &len);
    if (len >= sizeof(n))
        memcpy(&n, body, sizeof(n));
    if (n != seen->messages)
        seen->wrong++;
    seen->messages++;
    flow_tick();
}

static void on_number(beam_channel *channel, const beam_message *message, void *arg)
{
    count_number(arg, message);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct seen *seen = arg;
    seen->code = (int)status->code;
    seen->ends++;
    flow_tick();
}

static unsigned writables;

static void on_writable(beam_channel *channel, void *arg)
{
    writables++;
    flow_tick();
}

static const struct beam_channel_handlers handlers = {on_number, on_writable, on_end};

static beam_request *served;

static void on_talk(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, seen);
    beam_channel_set_handlers(beam_request_channel(request), &handlers, seen);
    CHECK(beam_request_is_open(request));
    served = request;
    seen->asked++;
}

static void send_hundred(beam_request *request, void *arg)
{
    for (uint32_t n = 0; n < 100; n++)
        CHECK_INT(beam_channel_send_body(beam_request_channel(served), &n, sizeof(n)), 0);
}

static void reply_served(beam_request *request, void *arg)
{
    beam_reply(served, NULL);
}

static void fail_served(beam_request *request, void *arg)
{
    beam_fail(served, BEAM_DATA_LOSS, "torn");
}

static beam_channel *open_talk(struct seen *there, struct seen *here)
{
    beam_channel *channel = NULL;
    REQUIRE_INT(beam_open(flow.session, "talk", NULL, &handlers, here, NULL, &channel), 0);
    FLOW_WAIT(there->asked == 1);
    return channel;
}

FLOW_TEST(hop_channel_carries_both_ways_and_ends_each_way)
{
    struct seen *there = flow_share(sizeof(*there));
    struct seen here = {0};
    writables = 0;
    flow_serve_at_home("talk", on_talk, there);
    flow_start(NULL);
    beam_channel *channel = open_talk(there, &here);
    for (uint32_t n = 0; n < 5000;) {
        unsigned before = writables;
        int r = beam_channel_send_body(channel, &n, sizeof(n));
        if (r == 0)
            n++;
        else
            FLOW_WAIT(writables > before);
    }
    flow_at_home(send_hundred, NULL);
    FLOW_WAIT(there->messages == 5000 && here.messages == 100);
    beam_channel_end(channel);
    FLOW_WAIT(there->ends == 1);
    CHECK_INT(there->code, BEAM_OK);
    CHECK_UINT(here.ends, 0);
    flow_at_home(reply_served, NULL);
    FLOW_WAIT(here.ends == 1);
    CHECK_INT(here.code, BEAM_OK);
    CHECK_UINT(there->wrong + here.wrong, 0);
    CHECK_UINT(there->cancelled, 0);
    beam_channel_free(channel);
}

FLOW_TEST(hop_channel_carries_resets_either_way)
{
    struct seen *there = flow_share(sizeof(*there));
    struct seen here = {0};
    flow_serve_at_home("talk", on_talk, there);
    flow_start(NULL);
    beam_channel *channel = open_talk(there, &here);
    beam_channel_reset(channel, BEAM_ABORTED, "enough");
    FLOW_WAIT(there->ends == 1 && there->cancelled == 1);
    CHECK_INT(there->code, BEAM_ABORTED);
    flow_at_home(reply_served, NULL);
    beam_channel_free(channel);

    there->asked = 0;
    channel = open_talk(there, &here);
    flow_at_home(fail_served, NULL);
    FLOW_WAIT(here.ends == 1);
    CHECK_INT(here.code, BEAM_DATA_LOSS);
    beam_channel_free(channel);
}

static beam_message *hoard[2000];
static unsigned hoarded;

static void hoard_number(beam_channel *channel, const beam_message *message, void *arg)
{
    REQUIRE(hoarded < 2000);
    count_number(arg, message);
    hoard[hoarded++] = beam_message_keep(message);
}

static const struct beam_channel_handlers hoard_handlers = {hoard_number, NULL, on_end};

static void on_hoard(beam_request *request, const beam_message *message, void *arg)
{
    on_talk(request, message, arg);
    beam_channel_set_handlers(beam_request_channel(request), &hoard_handlers, arg);
}

static void free_hoard(beam_request *request, void *arg)
{
    while (hoarded > 0)
        beam_message_free(hoard[--hoarded]);
}

FLOW_TEST(hop_adds_a_window_and_no_more_to_what_a_slow_reader_holds)
{
    struct seen *there = flow_share(sizeof(*there));
    struct seen here = {0};
    uint8_t body[936] = {0}; /* 1000 with its cost */
    hoarded = writables = 0;
    flow_serve_at_home("talk", on_hoard, there);
    flow_start(NULL);
    beam_channel *channel = open_talk(there, &here);
    uint32_t n = 0;
    /* Until nothing moves any more. */
    for (unsigned still = 0; still < 10;) {
        memcpy(body, &n, sizeof(n));
        int r = beam_channel_send_body(channel, body, sizeof(body));
        still = r == 0 ? 0 : still + 1;
        n += r == 0;
        if (r < 0)
            flow_settle();
    }
    CHECK(n >= 65 && n <= 2 * 66 + 2);
    unsigned before = writables;
    for (unsigned round = 0; round < 4; round++)
        flow_at_home(free_hoard, NULL);
    FLOW_WAIT(writables > before);
    FLOW_WAIT(there->messages == n);
    flow_at_home(free_hoard, NULL);
    CHECK_UINT(there->wrong, 0);
    beam_channel_free(channel);
    FLOW_WAIT(there->cancelled == 1);
    flow_at_home(free_hoard, NULL);
    flow_at_home(reply_served, NULL);
}

/* Sends until nothing moves any more; how many went. */
static uint32_t send_with_streams(beam_channel *channel, beam_stream **streams, uint32_t max)
{
    uint8_t body[936] = {0}; /* 1000 with its cost */
    uint32_t n = 0;
    for (unsigned still = 0; still < 10 && n < max;) {
        beam_message *message = beam_message_new();
        streams[n] = beam_message_attach_stream(message);
        REQUIRE(streams[n] != NULL);
        memcpy(body, &n, sizeof(n));
        beam_message_set_body(message, body, sizeof(body));
        if (beam_channel_send(channel, &message) == 0) {
            n++;
            still = 0;
            continue;
        }
        beam_message_free(message);
        beam_stream_free(streams[n]);
        flow_settle();
        still++;
    }
    return n;
}

FLOW_TEST(hop_messages_with_channels_hold_their_credit_like_others)
{
    enum { MOST = 500 };
    struct seen *there = flow_share(sizeof(*there));
    struct seen here = {0};
    static beam_stream *streams[MOST];
    hoarded = 0;
    flow_serve_at_home("talk", on_hoard, there);
    flow_start(NULL);
    beam_channel *channel = open_talk(there, &here);
    uint32_t n = send_with_streams(channel, streams, MOST);
    CHECK(n >= 65 && n <= 2 * 66 + 2);
    for (unsigned round = 0; round < 4; round++)
        flow_at_home(free_hoard, NULL);
    FLOW_WAIT(there->messages == n);
    CHECK_UINT(there->wrong, 0);
    for (uint32_t i = 0; i < n; i++)
        beam_stream_free(streams[i]);
    beam_channel_free(channel);
    FLOW_WAIT(there->cancelled == 1);
    flow_at_home(free_hoard, NULL);
    flow_at_home(reply_served, NULL);
}

/* --- events ---------------------------------------------------------------------------------- */

static void on_tick(beam_request *request, const beam_message *message, void *arg)
{
    if (!beam_request_is_event(request))
        ((struct seen *)arg)->wrong++;
    count_number(arg, message);
}

FLOW_TEST(hop_events_arrive_in_order)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve_at_home("tick", on_tick, seen);
    flow_start(NULL);
    for (uint32_t n = 0; n < 5000;) {
        unsigned before = flow.writables;
        beam_message *event = beam_message_new();
        beam_message_set_body(event, &n, sizeof(n));
        int r = beam_send_event(flow.session, "tick", &event);
        beam_message_free(event);
        if (r == 0)
            n++;
        else
            FLOW_WAIT(flow.writables > before);
    }
    FLOW_WAIT(seen->messages == 5000);
    CHECK_UINT(seen->wrong, 0);
}

/* --- attachments ----------------------------------------------------------------------------- */

static void on_look(beam_request *request, const beam_message *message, void *arg)
{
    _Atomic uint64_t *inos = arg;
    for (unsigned i = 0; i < beam_message_fd_count(message); i++) {
        struct stat st;
        int fd = beam_message_take_fd(message, i);
        CHECK_INT(fstat(fd, &st), 0);
        inos[i] = st.st_ino;
        close(fd);
    }
    beam_reply(request, NULL);
}

FLOW_TEST_FDS(hop_fds_arrive_as_the_same_files)
{
    _Atomic uint64_t *inos = flow_share(16 * sizeof(*inos));
    flow_serve_at_home("look", on_look, inos);
    flow_start(NULL);
    for (unsigned round = 0; round < 50; round++) {
        uint64_t wanted[3];
        beam_message *message = flow_message_of(round * 3000, round);
        for (unsigned i = 0; i < 3; i++) {
            struct stat st;
            int fd = memfd_create("hop", MFD_CLOEXEC);
            REQUIRE_INT(fstat(fd, &st), 0);
            wanted[i] = st.st_ino;
            beam_message_attach_fd(message, &fd);
        }
        struct flow_answer answer = flow_ask("look", message);
        CHECK_INT(answer.code, BEAM_OK);
        for (unsigned i = 0; i < 3; i++)
            CHECK_UINT(inos[i], wanted[i]);
        flow_answer_clear(&answer);
    }
}

static beam_message *sat_on[64];
static unsigned sat_on_count;

static void on_sit(beam_request *request, const beam_message *message, void *arg)
{
    sat_on[sat_on_count++] = beam_message_keep(message);
    ((struct seen *)arg)->asked++;
    beam_reply(request, NULL);
}

static void get_up(beam_request *request, void *arg)
{
    while (sat_on_count > 0)
        beam_message_free(sat_on[--sat_on_count]);
}

FLOW_TEST_FDS(hop_requests_without_fds_do_not_wait_behind_those_with)
{
    enum { FDS = 4 };
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer answers[FDS + 1] = {0};
    beam_session *sessions[FDS + 1];
    sat_on_count = 0;
    flow_serve_at_home("sit", on_sit, seen);
    flow_serve_at_home("echo", on_echo, seen);
    flow_start(&(struct flow_options){.server = {.fds_max = FDS}});
    /* Each caller has credit for one; together they want more than a service may sit on. */
    for (unsigned i = 0; i < FDS + 1; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        beam_message *question = beam_message_new();
        beam_message_attach_fd(question, &fd);
        sessions[i] = connect_away();
        REQUIRE_INT(beam_call(sessions[i], "sit", &question, flow_on_reply, &answers[i], NULL), 0);
        if (i < FDS)
            FLOW_WAIT(answers[i].count == 1);
    }
    for (unsigned i = 0; i < 3; i++) {
        struct flow_answer answer = flow_ask("echo", NULL);
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->asked, FDS + 3);
    CHECK_UINT(answers[FDS].count, 0);
    flow_at_home(get_up, NULL);
    FLOW_WAIT(answers[FDS].count == 1);
    flow_at_home(get_up, NULL);
    for (unsigned i = 0; i < FDS + 1; i++) {
        CHECK_INT(answers[i].code, BEAM_OK);
        flow_answer_clear(&answers[i]);
        beam_session_free(sessions[i]);
    }
}

/* --- large messages -------------------------------------------------------------------------- */

enum { LARGE = 1 << 17 };

static void sit_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    sat_on[sat_on_count++] = beam_message_keep(message);
    ((struct seen *)arg)->asked++;
}

static const struct beam_channel_handlers sit_handlers = {.on_message = sit_on_message,
                                                          .on_end = on_end};

/* Sits on what comes on its channel. */
static void on_sit_long(beam_request *request, const beam_message *message, void *arg)
{
    on_talk(request, message, arg);
    beam_channel_set_handlers(beam_request_channel(request), &sit_handlers, arg);
}

static beam_channel *sat_channel;

static void on_sit_attached(beam_request *request, const beam_message *message, void *arg)
{
    sat_channel = beam_message_take_channel(message, 0);
    REQUIRE(sat_channel != NULL);
    beam_channel_set_handlers(sat_channel, &sit_handlers, arg);
    beam_reply(request, NULL);
}

static void free_sat_channel(beam_request *request, void *arg)
{
    sat_channel = beam_channel_free(sat_channel);
}

/* What the session of the caller has at the other end. */
static void note_held(beam_request *request, void *arg)
{
    struct beam_session_stats stats = {0};
    beam_session_stats(beam_request_session(request), &stats);
    ((struct seen *)arg)->bytes = stats.large_len;
}

static uint64_t held(struct seen *seen)
{
    flow_at_server(note_held, seen);
    return seen->bytes;
}

static void send_large(beam_channel *channel)
{
    beam_message *message = flow_message_of(LARGE, 1);
    int r;
    FLOW_WAIT((r = beam_channel_send(channel, &message)) != -EAGAIN);
    beam_message_free(message);
    REQUIRE_INT(r, 0);
}

static void ask_large(const char *service, enum beam_code code)
{
    struct flow_answer answer = flow_ask(service, flow_message_of(LARGE, 2));
    CHECK_INT(answer.code, code);
    flow_answer_clear(&answer);
}

/* W5: until the application behind the hop is done with them. */
FLOW_TEST_UNIX(hop_large_messages_stay_in_the_budget_of_their_caller)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct seen here = {0};
    sat_on_count = 0;
    flow_serve_at_home("sit", on_sit, seen);
    flow_serve_at_home("talk", on_sit_long, seen);
    flow_serve_at_home("attached", on_sit_attached, seen);
    flow_serve_at_home("echo", on_echo, flow_share(sizeof(*seen)));
    flow_start(
        &(struct flow_options){.server = {.message_len_max = LARGE, .large_len_max = 4 * LARGE}});
    beam_channel *talk = open_talk(seen, &here);
    beam_message *message = beam_message_new();
    beam_channel *attached = beam_message_attach_channel(message);
    REQUIRE(attached != NULL);
    struct flow_answer answer = flow_ask("attached", message);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    for (unsigned round = 0; round < 3; round++) {
        CHECK_UINT(held(seen), 0);
        seen->asked = 0;
        message = flow_message_of(LARGE, 0);
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        beam_message_attach_fd(message, &fd);
        answer = flow_ask("sit", message);
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
        CHECK_UINT(held(seen), LARGE);
        message = flow_message_of(LARGE, 0);
        REQUIRE_INT(beam_send_event(flow.session, "sit", &message), 0);
        FLOW_WAIT(seen->asked == 2);
        CHECK_UINT(held(seen), 2 * LARGE);
        send_large(talk);
        FLOW_WAIT(seen->asked == 3);
        CHECK_UINT(held(seen), 3 * LARGE);
        send_large(attached);
        FLOW_WAIT(seen->asked == 4);
        CHECK_UINT(held(seen), 4 * LARGE);
        ask_large("echo", BEAM_RESOURCE_EXHAUSTED);
        answer = flow_ask("echo", flow_message_of(1000, 3));
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);

        flow_at_home(get_up, NULL);
        FLOW_WAIT(held(seen) == 0);
        /* What goes back as it came is its receiver's no more. */
        ask_large("echo", BEAM_OK);
        FLOW_WAIT(held(seen) == 0);
    }
    beam_channel_free(talk);
    beam_channel_free(attached);
    FLOW_WAIT(seen->cancelled == 1);
    flow_at_home(reply_served, NULL);
    flow_at_home(free_sat_channel, NULL);
}

FLOW_TEST_UNIX(hop_large_messages_that_do_not_go_on_leave_the_budget_as_it_was)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct seen here = {0};
    sat_on_count = 0;
    flow_serve_at_home("talk", on_sit_long, seen);
    flow_start(
        &(struct flow_options){.server = {.message_len_max = LARGE, .large_len_max = 4 * LARGE}});
    beam_channel *channel = open_talk(seen, &here);
    seen->asked = 0;
    send_large(channel);
    FLOW_WAIT(seen->asked == 1);
    /* No credit behind the hop: it waits there. */
    send_large(channel);
    FLOW_WAIT(held(seen) == 2 * LARGE);
    flow_settle();
    CHECK_UINT(seen->asked, 1);
    beam_channel_free(channel);
    FLOW_WAIT(seen->cancelled == 1);
    FLOW_WAIT(held(seen) == LARGE);
    flow_at_home(get_up, NULL);
    FLOW_WAIT(held(seen) == 0);
    flow_at_home(reply_served, NULL);
}

FLOW_TEST_UNIX(hop_large_messages_outlive_the_session_of_their_caller)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct seen here = {0};
    sat_on_count = 0;
    flow_serve_at_home("sit", on_sit, seen);
    flow_serve_at_home("talk", on_sit_long, seen);
    flow_serve_at_home("echo", on_echo, flow_share(sizeof(*seen)));
    flow_start(
        &(struct flow_options){.server = {.message_len_max = LARGE, .large_len_max = LARGE}});
    for (unsigned round = 0; round < 3; round++) {
        seen->asked = seen->cancelled = 0;
        beam_channel *channel = open_talk(seen, &here);
        send_large(channel);
        FLOW_WAIT(seen->asked == 2);
        CHECK_UINT(held(seen), LARGE);
        flow.session = beam_session_free(flow.session);
        FLOW_WAIT(seen->cancelled == 1);
        beam_channel_free(channel);
        flow.session = flow_connect(NULL, NULL);
        FLOW_WAIT(beam_session_is_open(flow.session));
        CHECK_UINT(held(seen), 0); /* that of the one before is not this one's */
        ask_large("echo", BEAM_OK);
        if (round < 2)
            flow_at_home(get_up, NULL);
        flow_at_home(reply_served, NULL);
        FLOW_WAIT(held(seen) == 0);
    }
    flow_at_home(get_up, NULL);
}

static struct {
    beam_message *message;
    beam_channel *channel;
} unsent;

/* To a channel that leads nowhere yet, where it waits. */
static void send_on(beam_request *request, void *arg)
{
    unsent.message = beam_message_new();
    unsent.channel = beam_message_attach_channel(unsent.message);
    REQUIRE(unsent.channel != NULL && sat_on_count == 1);
    REQUIRE_INT(beam_channel_send(unsent.channel, &sat_on[0]), 0);
    sat_on_count = 0;
}

static void free_unsent(beam_request *request, void *arg)
{
    unsent.message = beam_message_free(unsent.message);
    unsent.channel = beam_channel_free(unsent.channel);
}

FLOW_TEST_UNIX(hop_large_messages_that_are_sent_on_are_their_callers_no_more)
{
    struct seen *seen = flow_share(sizeof(*seen));
    sat_on_count = 0;
    flow_serve_at_home("sit", on_sit, seen);
    flow_start(NULL);
    ask_large("sit", BEAM_OK);
    CHECK_UINT(held(seen), LARGE);
    flow_at_home(send_on, NULL);
    FLOW_WAIT(held(seen) == 0);
    flow_at_home(free_unsent, NULL);
    CHECK_UINT(held(seen), 0);
}

FLOW_TEST_UNIX(hop_gives_the_credit_of_large_messages_back_and_no_more)
{
    enum { WINDOW = 16384, MANY_LARGE = 300 };
    struct seen *seen = flow_share(sizeof(*seen));
    struct seen here = {0};
    uint8_t body[936] = {0}; /* 1000 with its cost */
    sat_on_count = 0;
    flow_serve_at_home("talk", on_sit_long, seen);
    flow_start(&(struct flow_options){.server = {.window = WINDOW}});
    beam_channel *channel = open_talk(seen, &here);
    seen->asked = 0;
    for (unsigned i = 1; i <= flow_many(MANY_LARGE, 3); i++) {
        send_large(channel);
        FLOW_WAIT(seen->asked == i);
        flow_at_home(get_up, NULL);
    }
    /* What one who does not read lets in is a window here, and one behind the hop. */
    unsigned n = 0;
    for (unsigned still = 0; still < 10 && n < 2 * WINDOW / 1000 + 4;) {
        int r = beam_channel_send_body(channel, body, sizeof(body));
        still = r == 0 ? 0 : still + 1;
        n += r == 0;
        if (r < 0)
            flow_settle();
    }
    CHECK(n >= 2 * WINDOW / 1000 - 2 && n < 2 * WINDOW / 1000 + 4);
    beam_channel_free(channel);
    FLOW_WAIT(seen->cancelled == 1);
    flow_at_home(get_up, NULL);
    flow_at_home(reply_served, NULL);
}

/* Freed when nothing runs any more of what they came over. */
FLOW_TEST_UNIX(hop_large_messages_outlive_their_runtime)
{
    struct seen *seen = flow_share(sizeof(*seen));
    sat_on_count = 0;
    flow_serve_at_home("sit", on_sit, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 3; i++)
        ask_large("sit", BEAM_OK);
    CHECK_UINT(held(seen), 3 * LARGE);
    if (!flow.one_process)
        flow_at_home(get_up, NULL);
    flow_stop();
    get_up(NULL, NULL);
}

/* --- channels that are attached ---------------------------------------------------------------- */

static beam_channel *taken_channel;
static beam_stream *taken_stream;

static void back_number(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    count_number(arg, message);
    CHECK_INT(beam_channel_send_body(channel, body, len), 0);
}

static void back_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    on_end(channel, status, arg);
    beam_channel_end(channel);
}

static const struct beam_channel_handlers back_handlers = {back_number, NULL, back_end};

static void count_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct seen *seen = arg;
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++)
        if (p[i] != (uint8_t)((seen->bytes + i) * 7))
            seen->wrong++;
    seen->bytes += len;
    flow_tick();
}

static void stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    on_end(NULL, status, arg);
    beam_stream_end(stream);
}

static const struct beam_stream_handlers count_handlers = {count_data, NULL, stream_end};

struct taken {
    struct seen channel, stream;
};

static void on_take(beam_request *request, const beam_message *message, void *arg)
{
    struct taken *taken = arg;
    taken_channel = beam_message_take_channel(message, 0);
    taken_stream = beam_message_take_stream(message, 1);
    REQUIRE(taken_channel && taken_stream);
    beam_channel_set_handlers(taken_channel, &back_handlers, &taken->channel);
    beam_stream_set_handlers(taken_stream, &count_handlers, &taken->stream);
    beam_reply(request, NULL);
}

static void free_taken(beam_request *request, void *arg)
{
    taken_channel = beam_channel_free(taken_channel);
    taken_stream = beam_stream_free(taken_stream);
}

static void stream_writable(beam_stream *stream, void *arg)
{
    flow_tick();
}

static const struct beam_stream_handlers write_handlers = {NULL, stream_writable, stream_end};

FLOW_TEST(hop_channels_and_streams_are_joined)
{
    const uint64_t total = 3 << 20;
    struct taken *there = flow_share(sizeof(*there));
    struct seen here = {0}, ended = {0};
    flow_serve_at_home("take", on_take, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    beam_stream *stream = beam_message_attach_stream(message);
    REQUIRE(stream != NULL);
    beam_channel_set_handlers(channel, &handlers, &here);
    beam_stream_set_handlers(stream, &write_handlers, &ended);
    uint32_t n = 0;
    CHECK_INT(beam_channel_send_body(channel, &n, sizeof(n)), 0);
    struct flow_answer answer = flow_ask("take", message);
    CHECK_INT(answer.code, BEAM_OK);
    for (n = 1; n < 100; n++)
        CHECK_INT(beam_channel_send_body(channel, &n, sizeof(n)), 0);

    static uint8_t chunk[40000];
    for (uint64_t written = 0; written < total;) {
        size_t len = total - written < sizeof(chunk) ? (size_t)(total - written) : sizeof(chunk);
        for (size_t i = 0; i < len; i++)
            chunk[i] = (uint8_t)((written + i) * 7);
        ssize_t w = beam_stream_write(stream, chunk, len);
        if (w == -EAGAIN) {
            flow_turn();
            continue;
        }
        REQUIRE(w > 0);
        written += (uint64_t)w;
    }
    beam_stream_end(stream);
    beam_channel_end(channel);
    FLOW_WAIT(here.messages == 100 && here.ends == 1 && ended.ends == 1);
    CHECK_UINT(there->stream.bytes, total);
    CHECK_UINT(there->stream.wrong + there->channel.wrong + here.wrong, 0);
    CHECK_INT(here.code, BEAM_OK);
    CHECK_INT(ended.code, BEAM_OK);
    beam_channel_free(channel);
    beam_stream_free(stream);
    flow_at_home(free_taken, NULL);
    flow_answer_clear(&answer);
}

static void hold_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    ((struct seen *)arg)->bytes += len;
    beam_stream_hold(stream);
}

static const struct beam_stream_handlers hold_handlers = {.on_data = hold_data};

static void on_hold(beam_request *request, const beam_message *message, void *arg)
{
    taken_stream = beam_message_take_stream(message, 0);
    CHECK(taken_stream != NULL);
    if (!taken_stream)
        return;
    beam_stream_set_handlers(taken_stream, &hold_handlers, arg);
    beam_reply(request, NULL);
}

static void free_held(beam_request *request, void *arg)
{
    taken_stream = beam_stream_free(taken_stream);
}

static void pass(beam_request *request, void *arg)
{
}

FLOW_TEST(hop_holds_no_more_of_a_stream_however_small_its_frames)
{
    enum { WINDOW = 16384 };
    struct seen *there = flow_share(sizeof(*there));
    flow_serve_at_home("hold", on_hold, there);
    flow_start(&(struct flow_options){.server = {.window = WINDOW}});
    beam_message *message = beam_message_new();
    beam_stream *stream = beam_message_attach_stream(message);
    REQUIRE(stream != NULL);
    struct flow_answer answer = flow_ask("hold", message);
    CHECK_INT(answer.code, BEAM_OK);
    unsigned written = 0;
    for (unsigned still = 0; still < 10;) {
        if (beam_stream_write(stream, "x", 1) == 1) {
            written++;
            still = 0;
            continue;
        }
        flow_settle();
        flow_at_home(pass, NULL); /* it has had its turn too */
        still++;
    }
    /* The holder's window of bytes, and one of frames with their cost at the hop. */
    CHECK(written >= WINDOW);
    CHECK(written <= WINDOW + WINDOW / 64 + 64);
    FLOW_WAIT(there->bytes >= WINDOW);
    beam_stream_free(stream);
    flow_at_home(free_held, NULL);
    flow_answer_clear(&answer);
}

FLOW_TEST(hop_channels_carry_resets)
{
    struct taken *there = flow_share(sizeof(*there));
    flow_serve_at_home("take", on_take, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    beam_stream *stream = beam_message_attach_stream(message);
    REQUIRE(stream != NULL);
    struct flow_answer answer = flow_ask("take", message);
    CHECK_INT(answer.code, BEAM_OK);
    beam_channel_reset(channel, BEAM_OUT_OF_RANGE, "no");
    beam_stream_free(stream);
    FLOW_WAIT(there->channel.ends == 1 && there->stream.ends == 1);
    CHECK_INT(there->channel.code, BEAM_OUT_OF_RANGE);
    CHECK_INT(there->stream.code, BEAM_CANCELLED);
    beam_channel_free(channel);
    flow_at_home(free_taken, NULL);
    flow_answer_clear(&answer);
}
