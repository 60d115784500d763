/* Calls without a session over an exchange in memory: rules Q1 to Q7. */
#include "base/clock.h"
#include "tests/unit/net/fake_exchange.h"
#include "tests/unit/runtime/scarce.h"

static struct {
    beam_request *kept;
    unsigned asked, cancels;
    char who[64];
    bool had_deadline;
} seen;

static void on_greet(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    beam_str name = {"nobody", 6}, method = {0};
    (void)arg;
    seen.asked++;
    const struct beam_peer *peer = beam_request_peer(request);
    snprintf(seen.who, sizeof(seen.who), "%.*s at %.*s", BEAM_STR(peer->identity),
             BEAM_STR(peer->address));
    seen.had_deadline = beam_request_deadline_ns(request) != UINT64_MAX;
    (void)beam_message_get_str(message, "name", &name);
    (void)beam_message_get_str(message, "method", &method);
    beam_message_putf(answer, "text", "hello, %.*s", BEAM_STR(name));
    if (method.len > 0)
        beam_message_put_strn(answer, "method", method.ptr, method.len);
    beam_reply(request, &answer);
}

/* Body and metadata back, as they are. */
static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    size_t len;
    beam_kv_value map, value;
    beam_kv_iter iter;
    beam_str key;
    const void *metadata = beam_message_metadata(message, &len);
    (void)arg;
    if (metadata && beam_kv_root(metadata, len, &map) == 0) {
        beam_kv_iter_init(&iter, &map);
        while (beam_kv_iter_next(&iter, &key, &value) > 0)
            beam_message_put(answer, key, &value);
    }
    const void *body = beam_message_body(message, &len);
    if (len > 0)
        beam_message_set_body(answer, body, len);
    beam_message_set_codec(answer, beam_message_codec(message));
    beam_reply(request, &answer);
}

/* A body in the service's own codec back. */
static void on_same(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    size_t len;
    const void *body = beam_message_body(message, &len);
    (void)arg;
    if (len > 0)
        beam_message_set_body(answer, body, len);
    else
        beam_message_set_body(answer, "[1]", 3);
    beam_message_set_codec(answer, beam_message_codec(message));
    beam_reply(request, &answer);
}

static void on_nothing(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_reply(request, NULL);
}

static void on_refuse(beam_request *request, const beam_message *message, void *arg)
{
    char room[256];
    beam_kv_writer writer;
    const void *details;
    size_t len;
    int64_t http;
    (void)arg;
    if (beam_message_get_int(message, "http", &http) < 0) {
        beam_fail(request, BEAM_ALREADY_EXISTS, "there is one: \"%s\"", "ä");
        return;
    }
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_int(&writer, "http", http);
    beam_kv_end(&writer);
    CHECK_INT(beam_kv_writer_finish(&writer, &details, &len), 0);
    beam_fail_with(request, BEAM_UNAVAILABLE, details, len, "not now");
}

static void on_cancel(beam_request *request, void *arg)
{
    (void)request;
    (void)arg;
    seen.cancels++;
}

static void on_keep(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, NULL);
    seen.kept = request;
}

/* Three messages and an answer. */
static void on_several(beam_request *request, const beam_message *message, void *arg)
{
    beam_channel *channel = beam_request_channel(request);
    beam_message *answer = beam_message_new();
    (void)message;
    (void)arg;
    for (int i = 0; i < 3; i++) {
        beam_message *one = beam_message_new();
        if (i == 0)
            beam_message_put_int(one, "n", i);
        else if (i == 1)
            beam_message_set_body(one, "ab", 2);
        else
            beam_message_set_body(one, "[1,\n2]", 6);
        if (i == 2)
            beam_message_set_codec(one, BEAM_CODEC_JSON);
        (void)beam_channel_send(channel, &one);
        beam_message_free(one); /* NULL, but for want of memory */
    }
    beam_message_put_str(answer, "a", "both");
    beam_message_set_body(answer, "{}", 2);
    beam_message_set_codec(answer, BEAM_CODEC_JSON);
    beam_reply(request, &answer);
}

static void on_pipe(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    struct given given = given_new();
    (void)message;
    (void)arg;
    close(given.read_fd);
    beam_message_attach_fd(answer, &given.fd);
    beam_reply(request, &answer);
}

#define LARGE (3u << 20)

static void on_large(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    (void)message;
    (void)arg;
    uint8_t *body = beam_message_reserve_body(answer, LARGE);
    for (size_t i = 0; body && i < LARGE; i++)
        body[i] = (uint8_t)(i * 31 + i / 255);
    beam_message_put_str(answer, "content-type", "image/png");
    beam_message_put_str(answer, "title", "\xc3\xa4\xf0\x9f\x98\x80");
    beam_reply(request, &answer);
}

static bool allow_nobody(beam_str service, const struct beam_peer *peer, void *arg)
{
    (void)service;
    (void)arg;
    CHECK_MEM(peer->identity.ptr, peer->identity.len, "cn:ada", 6);
    return false;
}

static void begin(void)
{
    fake_begin();
    memset(&seen, 0, sizeof(seen));
    const struct {
        const char *name;
        beam_handler *handler;
        const struct beam_codec *codec;
    } services[] = {
        {"greet", on_greet, NULL},
        {"echo", on_echo, NULL},
        {"nothing", on_nothing, NULL},
        {"refuse", on_refuse, NULL},
        {"keep", on_keep, NULL},
        {"several", on_several, NULL},
        {"pipe", on_pipe, NULL},
        {"large", on_large, NULL},
        {"a b/c", on_greet, NULL},
        {"json", on_same, &beam_json},
        {"packed", on_same, &beam_msgpack},
    };
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
        REQUIRE_INT(beam_serve_with(on_core_runtime, services[i].name, services[i].handler, NULL,
                                    &BEAM_SERVE_OPTIONS(.codec = services[i].codec)),
                    0);
    REQUIRE_INT(beam_serve_with(on_core_runtime, "secret", on_greet, NULL,
                                &BEAM_SERVE_OPTIONS(.allow = allow_nobody)),
                0);
}

/* What is answered to what, in whole. */
struct row {
    struct fake_request request;
    unsigned status;
    const char *fields, *body; /* NULL: not looked at */
};

#define JSON_TYPE "content-type: application/json"

static const struct row rows[] = {
    /* Q1, Q2: where metadata comes from */
    {{.path = "greet"}, 200, JSON_TYPE "\n", "{\"text\":\"hello, nobody\"}"},
    {{.path = "greet?name=ada"}, 200, JSON_TYPE "\n", "{\"text\":\"hello, ada\"}"},
    {{.path = "greet", .fields = {JSON_TYPE}, .body = "{\"name\":\"ada\"}"},
     200,
     JSON_TYPE "\n",
     "{\"text\":\"hello, ada\"}"},
    {{.path = "greet",
      .fields = {"content-type: Application/JSON; charset=utf-8"},
      .body = " {\"name\" : \"ada\"}"},
     200,
     NULL,
     "{\"text\":\"hello, ada\"}"},
    {{.path = "greet/say/it?name=a%20b%2b+c", .length_unknown = true},
     200,
     NULL,
     "{\"method\":\"say/it\",\"text\":\"hello, a b+ c\"}"},
    {{.path = "greet",
      .fields = {"content-type: application/x-www-form-urlencoded"},
      .body = "name=ada+l&x=%41"},
     200,
     NULL,
     "{\"text\":\"hello, ada l\"}"},
    {{.path = "greet?name=no", .fields = {"beam-metadata: {\"name\":\"ada\"}"}},
     200,
     NULL,
     "{\"text\":\"hello, ada\"}"},
    {{.path = "greet",
      .fields = {"content-type: application/vnd.msgpack"},
      .body = "\x81\xa4name\xa3"
              "ada"},
     200,
     "content-type: application/vnd.msgpack\n",
     "\x81\xa4text\xaahello, ada"},
    {{.path = "greet",
      .fields = {"content-type: application/x-msgpack", "accept: application/json"},
      .body = "\x81\xa4name\xa3"
              "ada"},
     200,
     NULL,
     "{\"text\":\"hello, ada\"}"},
    {{.path = "greet", .fields = {JSON_TYPE}, .body = "{}"}, 200, NULL, NULL},
    {{.path = "echo", .fields = {"content-type: text/plain"}, .body = "as it is"},
     200,
     "content-type: text/plain\n",
     "as it is"},
    {{.path = "echo?a=1", .body = "as it is"},
     200,
     "content-type: application/octet-stream\nbeam-metadata: {\"a\":\"1\"}\n",
     "as it is"},
    {{.path = "echo?a=1", .fields = {JSON_TYPE}, .body = "{\"b\":[1,{\"c\":2}]}"},
     200,
     JSON_TYPE "\n",
     "{\"a\":\"1\",\"b\":[1,{\"c\":2}]}"},
    {{.path = "a%20b%2fc"}, 200, NULL, "{\"text\":\"hello, nobody\"}"},
    {{.path = "nothing"}, 204, "", ""},
    {{.path = "echo"}, 204, "", ""},
    /* refused before anything runs */
    {{.path = "none"},
     404,
     JSON_TYPE "\n",
     "{\"code\":\"NOT_FOUND\",\"message\":\"no service of this name\"}"},
    {{.path = ""}, 404, NULL, NULL},
    {{.path = "secret"},
     403,
     JSON_TYPE "\n",
     "{\"code\":\"PERMISSION_DENIED\",\"message\":\"who asks may not\"}"},
    {{.path = "gree%"}, 400, NULL, NULL},
    {{.path = "greet?name=%4"}, 400, NULL, NULL},
    {{.path = "greet?a=1&a=2"},
     400,
     NULL,
     "{\"code\":\"INVALID_ARGUMENT\",\"message\":\"a key of the metadata comes twice\"}"},
    {{.path = "greet/x?method=y"}, 400, NULL, NULL},
    {{.path = "greet?name=ada", .fields = {JSON_TYPE}, .body = "{\"name\":\"ada\"}"},
     400,
     NULL,
     NULL},
    {{.path = "greet?a=%ff"}, 400, NULL, NULL},
    {{.path = "greet", .fields = {JSON_TYPE}, .body = "[1]"}, 400, NULL, NULL},
    {{.path = "greet", .fields = {JSON_TYPE}, .body = "{\"a\":"}, 400, NULL, NULL},
    {{.path = "greet", .fields = {JSON_TYPE}, .body = "{\"a\":1,\"a\":2}"}, 400, NULL, NULL},
    {{.path = "greet", .fields = {"beam-metadata: [1]"}}, 400, NULL, NULL},
    {{.path = "greet", .fields = {"beam-metadata: {"}}, 400, NULL, NULL},
    {{.method = "GET", .path = "greet"}, 405, JSON_TYPE "\nallow: POST\n", NULL},
    {{.path = "greet", .fields = {"content-encoding: gzip"}, .body = "x"},
     415,
     JSON_TYPE "\naccept-encoding: identity\n",
     NULL},
    {{.path = "greet", .fields = {"beam-timeout: 5"}}, 400, NULL, NULL},
    {{.path = "greet", .fields = {"beam-timeout: 0s"}},
     504,
     NULL,
     "{\"code\":\"DEADLINE_EXCEEDED\",\"message\":\"Connection timed out\"}"},
    {{.path = "greet", .fields = {"origin: https://evil.example"}}, 403, NULL, NULL},
    {{.path = "greet", .fields = {"origin: https://beam.example"}}, 200, NULL, NULL},
    {{.path = "greet", .fields = {"origin: null"}}, 403, NULL, NULL},
    /* services with a codec */
    {{.path = "json", .fields = {JSON_TYPE}, .body = "[1, 2]"}, 200, JSON_TYPE "\n", "[1, 2]"},
    {{.path = "json"}, 200, JSON_TYPE "\n", "[1]"},
    {{.path = "json", .fields = {"content-type: application/msgpack"}, .body = "\x92\x01\x02"},
     200,
     "content-type: application/vnd.msgpack\n",
     "\x92\x01\x02"},
    {{.path = "json",
      .fields = {"content-type: application/msgpack", "accept: application/json"},
      .body = "\x92\x01\x02"},
     200,
     JSON_TYPE "\n",
     "[1,2]"},
    {{.path = "json", .fields = {"accept: application/msgpack"}},
     200,
     "content-type: application/vnd.msgpack\n",
     "\x91\x01"},
    {{.path = "packed", .fields = {JSON_TYPE}, .body = "[1, 2]"}, 200, JSON_TYPE "\n", "[1,2]"},
    {{.path = "json", .fields = {"content-type: text/plain"}, .body = "x"}, 415, NULL, NULL},
    {{.path = "json", .body = "x"}, 415, NULL, NULL},
    {{.path = "json", .fields = {"accept: image/png"}}, 406, NULL, NULL},
    {{.path = "packed", .fields = {JSON_TYPE}, .body = "[1"}, 415, NULL, NULL},
    {{.path = "greet", .fields = {"accept: image/png"}}, 200, JSON_TYPE "\n", NULL},
    {{.path = "greet", .fields = {"accept: application/vnd.msgpack"}},
     200,
     "content-type: application/vnd.msgpack\n",
     "\x81\xa4text\xadhello, nobody"},
    /* Q4 */
    {{.path = "refuse"},
     409,
     JSON_TYPE "\n",
     "{\"code\":\"ALREADY_EXISTS\",\"message\":\"there is one: \\\"\xc3\xa4\\\"\"}"},
    {{.path = "refuse", .fields = {JSON_TYPE}, .body = "{\"http\":418}"},
     418,
     NULL,
     "{\"code\":\"UNAVAILABLE\",\"details\":{\"http\":418},\"message\":\"not now\"}"},
    {{.path = "refuse", .fields = {JSON_TYPE}, .body = "{\"http\":200}"}, 503, NULL, NULL},
    /* Q5, Q7 */
    {{.path = "several"},
     400,
     NULL,
     "{\"code\":\"FAILED_PRECONDITION\",\"message\":\"the service sends several messages: accept "
     "text/event-stream\"}"},
    {{.path = "several", .fields = {"accept: text/event-stream"}},
     200,
     "content-type: text/event-stream\ncache-control: no-store\nx-accel-buffering: no\n",
     "event: message\ndata: {\"n\":0}\n\n"
     "event: message\ndata: {\"$bytes\":\"YWI=\"}\n\n"
     "event: message\ndata: [1,\ndata: 2]\n\n"
     "event: metadata\ndata: {\"a\":\"both\"}\n\n"
     "event: message\ndata: {}\n\n"
     "event: end\ndata: {\"code\":\"OK\"}\n\n"},
    {{.path = "refuse", .fields = {"accept: application/json, text/event-stream"}},
     200,
     NULL,
     "event: end\ndata: {\"code\":\"ALREADY_EXISTS\",\"message\":\"there is one: "
     "\\\"\xc3\xa4\\\"\"}\n\n"},
    {{.path = "greet", .fields = {"accept: text/*"}}, 200, JSON_TYPE "\n", NULL},
    {{.path = "nothing", .fields = {"accept: text/event-stream"}},
     200,
     NULL,
     "event: end\ndata: {\"code\":\"OK\"}\n\n"},
    {{.path = "pipe"}, 501, NULL, NULL},
};

TEST(call_answers_are_those_of_the_spec)
{
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *row = &rows[i];
        struct bm_exchange exchange = {0};
        test_note("row %zu: %s", i, row->request.path);
        fake_ask(&exchange, &row->request);
        CHECK_UINT(exchange.status, row->status);
        if (row->fields)
            CHECK_STR(exchange.fields, row->fields);
        if (row->body)
            CHECK_STR(exchange.body, row->body);
        fake_over(&exchange);
    }
    fake_end();
}

TEST(call_paths_and_metadata_have_limits)
{
    static char path[9000], body[1000] = "{", deep[20000];
    struct bm_exchange exchange = {0};
    begin();
    for (int more = 0; more < 2;
         more++) { /* with "/beam/call/" before it 8192 bytes, and one more */
        int len = 8192 - (int)strlen("/beam/call/") + more;
        snprintf(path, sizeof(path), "greet?name=%0*d", len - 11, 0);
        CHECK_INT(strlen(path), len);
        fake_ask(&exchange, &(struct fake_request){.path = path});
        CHECK_UINT(exchange.status, more ? 414 : 200);
        fake_over(&exchange);
    }
    for (int i = 0; i < 65; i++) {
        sprintf(body + strlen(body), "%s\"%d\":%d", i ? "," : "", i, i);
        if (i < 63)
            continue;
        char whole[1001];
        snprintf(whole, sizeof(whole), "%s}", body);
        fake_ask(&exchange,
                 &(struct fake_request){.path = "echo", .fields = {JSON_TYPE}, .body = whole});
        CHECK_UINT(exchange.status, i < 64 ? 200 : 413);
        fake_over(&exchange);
    }
    snprintf(deep, sizeof(deep), "{\"a\":\"%016384d\"}", 0);
    fake_ask(&exchange,
             &(struct fake_request){.path = "echo", .fields = {JSON_TYPE}, .body = deep});
    CHECK_UINT(exchange.status, 413);
    fake_over(&exchange);
    fake_end();
}

TEST(call_tells_the_service_who_asks_and_how_long)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_ask(&exchange, &(struct fake_request){.path = "greet", .fields = {"beam-timeout: 1h"}});
    CHECK_UINT(exchange.status, 200);
    CHECK_STR(seen.who, "cn:ada at 192.0.2.7:4711");
    CHECK(seen.had_deadline);
    fake_over(&exchange);
    fake_ask(&exchange, &(struct fake_request){.path = "greet"});
    CHECK(!seen.had_deadline);
    fake_over(&exchange);
    fake_end();
}

TEST(call_ends_at_its_deadline)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_ask(&exchange, &(struct fake_request){.path = "keep", .fields = {"beam-timeout: 20ms"}});
    CHECK_UINT(exchange.status, 504);
    FAKE_WAIT(&exchange, seen.cancels == 1);
    fake_over(&exchange);
    beam_reply(seen.kept, NULL);
    fake_end();
}

TEST(call_streams_a_long_answer)
{
    struct bm_exchange exchange = {.piece = 5000};
    begin();
    fake_ask(&exchange, &(struct fake_request){.path = "large"});
    CHECK_UINT(exchange.status, 200);
    CHECK_STR(exchange.fields,
              "content-type: image/png\nbeam-metadata: {\"title\":\"\\u00e4\\ud83d\\ude00\"}\n");
    REQUIRE_UINT(exchange.body_len, LARGE);
    size_t wrong = 0;
    for (size_t i = 0; i < LARGE; i++)
        wrong += (uint8_t)exchange.body[i] != (uint8_t)(i * 31 + i / 255);
    CHECK_UINT(wrong, 0);
    fake_over(&exchange);
    fake_end();
}

/* A long body goes through whole, with its length and without. */
TEST(call_collects_a_long_body)
{
    static char body[1 << 20];
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (char)('a' + i * 7 % 26);
    begin();
    for (int unknown = 0; unknown < 2; unknown++) {
        struct bm_exchange exchange = {0};
        fake_ask(&exchange, &(struct fake_request){.path = "echo",
                                                   .fields = {"content-type: text/plain"},
                                                   .body = body,
                                                   .body_len = sizeof(body),
                                                   .length_unknown = unknown});
        CHECK_UINT(exchange.status, 200);
        CHECK_MEM(exchange.body, exchange.body_len, body, sizeof(body));
        fake_over(&exchange);
    }
    fake_end();
}

TEST(call_refuses_a_body_over_the_limit)
{
    static char body[(16u << 20) + 1];
    begin();
    for (int unknown = 0; unknown < 2; unknown++) {
        struct bm_exchange exchange = {0};
        fake_send(&exchange, &(struct fake_request){.path = "echo",
                                                    .body = body,
                                                    .body_len = sizeof(body),
                                                    .length_unknown = unknown});
        CHECK_UINT(exchange.status, 413);
        fake_over(&exchange);
    }
    fake_end();
}

/* What the bodies of one connection take together is limited; another connection has its own. */
TEST(call_bodies_of_a_connection_share_a_budget)
{
    const struct fake_request large = {.path = "echo", .body = "x", .body_len = 11u << 20};
    struct bm_exchange exchanges[4];
    struct bm_connection other = {0};
    begin();
    memset(exchanges, 0, sizeof(exchanges));
    for (int i = 0; i < 3; i++)
        fake_send_head(&exchanges[i], &large);
    CHECK(!exchanges[0].answered && !exchanges[1].answered);
    CHECK_UINT(exchanges[2].status, 429);
    fake_over(&exchanges[2]);
    other.core = fake_connection.core;
    exchanges[2] = (struct bm_exchange){.connection = &other};
    fake_send_head(&exchanges[2], &large);
    CHECK(!exchanges[2].answered);
    fake_over(&exchanges[0]);
    fake_send_head(&exchanges[3], &large);
    CHECK(!exchanges[3].answered);
    fake_over(&exchanges[2]);
    fake_over(&exchanges[1]);
    fake_over(&exchanges[3]);
    fake_end();
}

TEST(call_is_cancelled_when_its_peer_leaves)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_send(&exchange, &(struct fake_request){.path = "keep"});
    FAKE_WAIT(&exchange, seen.kept);
    fake_close(&exchange, -ECANCELED);
    FAKE_WAIT(&exchange, seen.cancels == 1);
    CHECK(!exchange.released); /* the service works for it yet */
    beam_reply(seen.kept, NULL);
    fake_over(&exchange);
    CHECK(exchange.released);
    fake_end();
}

/* Nothing runs for a request that was broken off before it was whole. */
TEST(call_broken_off_in_its_body_never_runs)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_send_head(&exchange, &(struct fake_request){.path = "greet", .body = "0123456789"});
    exchange.handlers->on_body(&exchange, (const uint8_t *)"01234", 5, exchange.arg);
    fake_close(&exchange, -ECANCELED);
    fake_over(&exchange);
    CHECK_UINT(seen.asked, 0);
    fake_end();
}

/* --- events --- */

static void send_until_full(void)
{
    beam_channel *channel = beam_request_channel(seen.kept);
    beam_message *message = NULL;
    int r;
    do {
        message = beam_message_new();
        beam_message_set_body(message, "0123456789", 10);
        r = beam_channel_send(channel, &message);
        seen.asked += r == 0;
    } while (r == 0);
    CHECK_INT(r, -EAGAIN);
    beam_message_free(message);
}

/* Who reads slowly slows the service: beyond the window nothing is taken of it. */
TEST(call_events_wait_for_their_reader)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_send_head(&exchange,
                   &(struct fake_request){.path = "keep", .fields = {"accept: text/event-stream"}});
    FAKE_WAIT(&exchange, seen.kept);
    exchange.stalled = true;
    send_until_full();
    for (int i = 0; i < 20; i++) {
        REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
        fake_pump(&exchange);
    }
    CHECK_INT(beam_channel_credit(beam_request_channel(seen.kept)) > 0, 0);
    CHECK_UINT(exchange.body_len, 0);
    exchange.stalled = false;
    fake_pump(&exchange);
    FAKE_WAIT(&exchange, beam_channel_credit(beam_request_channel(seen.kept)) > 30000);
    beam_reply(seen.kept, NULL);
    FAKE_WAIT(&exchange, exchange.whole);
    unsigned events = 0;
    for (const char *at = exchange.body; (at = strstr(at, "event: message\n")); at++)
        events++;
    CHECK_UINT(events, seen.asked);
    fake_over(&exchange);
    fake_end();
}

static uint64_t clock_offset;

static uint64_t later_now(void *arg)
{
    struct timespec now;
    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BM_NS_PER_S + (uint64_t)now.tv_nsec + clock_offset;
}

/* A comment goes after 15 s without an event, so that nobody takes the stream for dead; none while the
 * peer does not take what there is. */
TEST(call_events_are_kept_alive)
{
    struct bm_exchange exchange = {0};
    clock_offset = 0;
    bm_clock_set(&(struct bm_clock){.now_ns = later_now});
    begin();
    fake_send_head(&exchange,
                   &(struct fake_request){.path = "keep", .fields = {"accept: text/event-stream"}});
    FAKE_WAIT(&exchange, seen.kept);
    CHECK_UINT(exchange.status, 200);
    clock_offset = 14 * BM_NS_PER_S;
    for (int i = 0; i < 3; i++) {
        REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
        fake_pump(&exchange);
    }
    CHECK_UINT(exchange.body_len, 0);
    fake_poll_ms = 0; /* the kernel knows nothing of this clock */
    clock_offset = 16 * BM_NS_PER_S;
    FAKE_WAIT(&exchange, exchange.body_len > 0);
    CHECK_STR(exchange.body, ":\n\n");
    clock_offset = 40 * BM_NS_PER_S;
    FAKE_WAIT(&exchange, exchange.body_len > 3);
    CHECK_STR(exchange.body, ":\n\n:\n\n");
    exchange.stalled = true;
    clock_offset = 60 * BM_NS_PER_S;
    FAKE_WAIT(&exchange, exchange.resumed);
    for (uint64_t s = 80; s < 200; s += 20) {
        clock_offset = s * BM_NS_PER_S;
        REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
        REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
    }
    exchange.stalled = false;
    fake_poll_ms = 10000;
    beam_reply(seen.kept, NULL);
    FAKE_WAIT(&exchange, exchange.whole);
    CHECK_STR(exchange.body, ":\n\n:\n\n:\n\nevent: end\ndata: {\"code\":\"OK\"}\n\n");
    fake_over(&exchange);
    fake_end();
    bm_clock_set(NULL);
}

/* ... and what it has of an event is not lost meanwhile. */
TEST(call_events_are_not_lost_to_a_comment)
{
    struct bm_exchange exchange = {0};
    uint8_t some[5];
    bool end;
    clock_offset = 0;
    bm_clock_set(&(struct bm_clock){.now_ns = later_now});
    begin();
    fake_send_head(&exchange,
                   &(struct fake_request){.path = "keep", .fields = {"accept: text/event-stream"}});
    FAKE_WAIT(&exchange, seen.kept);
    exchange.stalled = true;
    beam_message *message = beam_message_new();
    beam_message_put_int(message, "n", 1);
    CHECK_INT(beam_channel_send(beam_request_channel(seen.kept), &message), 0);
    for (int i = 0; i < 5; i++)
        fake_turn(&exchange);
    CHECK_INT(exchange.handlers->read(&exchange, some, sizeof(some), &end, exchange.arg), 5);
    fake_poll_ms = 0;
    for (int i = 1; i < 4; i++) {
        clock_offset = (uint64_t)i * 20 * BM_NS_PER_S;
        fake_turn(&exchange);
        fake_turn(&exchange);
    }
    fake_poll_ms = 10000;
    exchange.stalled = false;
    beam_reply(seen.kept, NULL);
    FAKE_WAIT(&exchange, exchange.whole);
    CHECK_STR(exchange.body,
              ": message\ndata: {\"n\":1}\n\nevent: end\ndata: {\"code\":\"OK\"}\n\n");
    fake_over(&exchange);
    fake_end();
    bm_clock_set(NULL);
}

/* A service that hears of no cancel, and sends until it is told to stop, is told. */
TEST(call_that_nobody_waits_for_takes_nothing_more)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_send_head(&exchange,
                   &(struct fake_request){.path = "keep", .fields = {"accept: text/event-stream"}});
    FAKE_WAIT(&exchange, seen.kept);
    fake_close(&exchange, -ECANCELED);
    FAKE_WAIT(&exchange, beam_request_is_cancelled(seen.kept));
    beam_message *message = beam_message_new();
    CHECK_INT(beam_channel_send(beam_request_channel(seen.kept), &message), -EPIPE);
    beam_reply(seen.kept, &message);
    fake_over(&exchange);
    fake_end();
}

/* One that fails it ends it as well. */
TEST(call_that_nobody_waits_for_can_fail)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_send_head(&exchange, &(struct fake_request){.path = "keep"});
    FAKE_WAIT(&exchange, seen.kept);
    fake_close(&exchange, -ECANCELED);
    FAKE_WAIT(&exchange, seen.cancels == 1);
    beam_fail(seen.kept, BEAM_INTERNAL, "no more");
    fake_over(&exchange);
    fake_end();
}

/* Left before its question had: the service hears nothing of it. */
TEST(call_left_at_once_never_runs)
{
    struct bm_exchange exchange = {0};
    begin();
    fake_send_head(&exchange, &(struct fake_request){.path = "greet"});
    fake_close(&exchange, -ECANCELED);
    fake_over(&exchange);
    CHECK_UINT(seen.asked, 0);
    fake_end();
}

/* The same of one that stands in line because the session between cores is not open yet. */
TEST(call_left_in_line_never_runs)
{
    enum { MANY = 40 };
    static struct bm_exchange exchanges[MANY];
    begin();
    memset(exchanges, 0, sizeof(exchanges));
    for (int i = 0; i < MANY; i++)
        fake_send(&exchanges[i], &(struct fake_request){.path = "greet"});
    for (int i = MANY / 2; i < MANY; i++) {
        fake_close(&exchanges[i], -ECANCELED);
        CHECK(exchanges[i].released);
    }
    for (int i = 0; i < MANY; i++) {
        if (i < MANY / 2)
            FAKE_WAIT(&exchanges[i], exchanges[i].whole);
        fake_over(&exchanges[i]);
    }
    CHECK_UINT(seen.asked, MANY / 2);
    fake_end();
}

/* More calls at once than a session takes before it is open: all are answered. */
TEST(call_waits_for_room)
{
    enum { MANY = 200 };
    static struct bm_exchange exchanges[MANY];
    begin();
    memset(exchanges, 0, sizeof(exchanges));
    for (int i = 0; i < MANY; i++)
        fake_send(&exchanges[i], &(struct fake_request){.path = "greet"});
    for (int i = 0; i < MANY; i++) {
        FAKE_WAIT(&exchanges[i], exchanges[i].whole);
        CHECK_UINT(exchanges[i].status, 200);
        fake_over(&exchanges[i]);
    }
    CHECK_UINT(seen.asked, MANY);
    fake_end();
}

/* Whatever allocation fails, the call is answered or reset, and nothing is left behind. */
static void sweep(const struct fake_request *request)
{
    unsigned answered = 0, failed = 0;
    for (int left = 0; left < 200; left++) {
        struct bm_exchange exchange = {0};
        begin();
        test_note("%s, %d allocations", request->path, left);
        scarce_begin(left);
        fake_send(&exchange, request);
        fake_pump(&exchange);
        for (int i = 0; i < 50 && !exchange.whole && !exchange.reset; i++) {
            REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
            fake_pump(&exchange);
        }
        bool enough = scarce_left > 0;
        scarce_end();
        FAKE_WAIT(&exchange, exchange.whole || exchange.reset);
        bool ok = exchange.whole && exchange.status < 300;
        answered += ok;
        failed += !ok;
        fake_over(&exchange);
        fake_end();
        if (enough)
            break;
    }
    CHECK_UINT(answered >= 1, 1);
    CHECK_UINT(failed >= 1, 1);
}

TEST(call_survives_a_lack_of_memory)
{
    static char body[100000];
    memset(body, 'x', sizeof(body));
    sweep(&(struct fake_request){
        .path = "greet", .fields = {JSON_TYPE}, .body = "{\"name\":\"ada\"}"});
    sweep(&(struct fake_request){.path = "greet?a=1",
                                 .fields = {"beam-metadata: {\"b\":2}", JSON_TYPE},
                                 .body = "{\"name\":\"ada\"}"});
    sweep(&(struct fake_request){.path = "several", .fields = {"accept: text/event-stream"}});
    sweep(&(struct fake_request){.path = "packed", .fields = {JSON_TYPE}, .body = "[1, 2]"});
    sweep(&(struct fake_request){
        .path = "echo?a=1", .body = body, .body_len = sizeof(body), .length_unknown = true});
}
