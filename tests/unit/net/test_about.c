/* What a server tells of itself (rule Q8), and requests of the application. */
#include <stdatomic.h>

#include <beam/net.h>

#include "net/access.h"
#include "tests/unit/net/fake_exchange.h"
#include "tests/unit/runtime/scarce.h"

static void on_request(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_reply(request, NULL);
}

static struct bm_exchange_request head_of(const char *method, const char *path)
{
    return (struct bm_exchange_request){.method = fake_str(method),
                                        .authority = fake_str("beam.example"),
                                        .path = fake_str(path),
                                        .version = 2};
}

static void tell(struct bm_exchange *exchange, const char *method, const char *what)
{
    struct bm_exchange_request head = head_of(method, "/beam/x");
    *exchange = (struct bm_exchange){.connection = &fake_connection, .piece = exchange->piece};
    bm_about_exchange(&fake_server, exchange, &head, &fake_visitor, fake_str(what));
    if (exchange->taken)
        fake_pump(exchange);
}

static bool allow_bob(beam_str service, const struct beam_peer *peer, void *arg)
{
    (void)service;
    (void)arg;
    return peer->identity.len == 6 && memcmp(peer->identity.ptr, "cn:bob", 6) == 0;
}

TEST(about_tells_services_that_who_asks_may_call)
{
    struct bm_exchange exchange = {0};
    fake_begin();
    REQUIRE_INT(beam_serve(on_core_runtime, "all", on_request, NULL), 0);
    REQUIRE_INT(beam_serve_with(on_core_runtime, "bobs", on_request, NULL,
                                &BEAM_SERVE_OPTIONS(.allow = allow_bob)),
                0);
    tell(&exchange, "GET", "services");
    CHECK_STR(exchange.body, "[\"all\"]");
    fake_over(&exchange);
    fake_visitor.peer.identity = fake_str("cn:bob");
    tell(&exchange, "GET", "services");
    CHECK_STR(exchange.body, "[\"all\",\"bobs\"]");
    fake_over(&exchange);
    fake_end();
}

TEST(about_tells_services_in_their_order)
{
    struct bm_exchange exchange = {0};
    fake_begin();
    tell(&exchange, "GET", "services");
    CHECK_UINT(exchange.status, 200);
    CHECK_STR(exchange.fields, "content-type: application/json\ncache-control: no-store\n");
    CHECK_STR(exchange.body, "[]");
    fake_over(&exchange);
    static const char *const names[] = {"b", "a\"", "c.d", "gone", "\xc3\xa4"};
    for (size_t i = 0; i < 5; i++)
        REQUIRE_INT(beam_serve(on_core_runtime, names[i], on_request, NULL), 0);
    REQUIRE_INT(beam_unserve(on_core_runtime, "gone"), 0);
    tell(&exchange, "GET", "services");
    CHECK_STR(exchange.body, "[\"a\\\"\",\"b\",\"c.d\",\"\xc3\xa4\"]");
    fake_over(&exchange);
    fake_end();
}

/* A list that is longer than an answer may be goes in pieces. */
TEST(about_tells_many_services)
{
    struct bm_exchange exchange = {.piece = 1000};
    char name[64];
    fake_begin();
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof(name), "a.service.of.a.name.that.is.not.short.%05d", i);
        REQUIRE_INT(beam_serve(on_core_runtime, name, on_request, NULL), 0);
    }
    tell(&exchange, "GET", "services");
    CHECK(exchange.whole);
    CHECK_UINT(exchange.body_len,
               3000 * strlen("\"a.service.of.a.name.that.is.not.short.00000\",") + 1);
    CHECK(strstr(exchange.body, "00000\"") && strstr(exchange.body, "02999\"]"));
    fake_over(&exchange);
    fake_end();
}

TEST(about_tells_health)
{
    struct bm_exchange exchange = {0};
    fake_begin();
    tell(&exchange, "GET", "health");
    CHECK_UINT(exchange.status, 200);
    CHECK_STR(exchange.body, "{\"status\":\"ok\"}");
    fake_over(&exchange);
    atomic_store(&fake_server.draining, true);
    tell(&exchange, "HEAD", "health");
    CHECK_UINT(exchange.status, 503);
    CHECK_STR(exchange.body, "{\"status\":\"draining\"}");
    fake_over(&exchange);
    fake_end();
}

TEST(about_tells_counters)
{
    struct bm_exchange exchange = {0};
    fake_begin();
    tell(&exchange, "GET", "stats");
    CHECK_UINT(exchange.status, 200);
    beam_buffer document;
    beam_kv_value map, reactors, first;
    beam_kv_iter iter;
    int64_t turns;
    beam_buffer_init(&document, 65536);
    REQUIRE_INT(beam_convert(&beam_json, &beam_kv_codec, exchange.body, exchange.body_len, NULL,
                             &document, NULL),
                0);
    CHECK_INT(beam_kv_root(document.ptr, document.len, &map), 0);
    CHECK_INT(beam_kv_get(&map, "reactors", &reactors), 0);
    beam_kv_iter_init(&iter, &reactors);
    CHECK_INT(beam_kv_iter_next(&iter, NULL, &first), 1);
    CHECK_INT(beam_kv_get_int(&first, "turns", &turns), 0);
    beam_buffer_deinit(&document);
    fake_over(&exchange);
    fake_end();
}

TEST(about_refuses_what_it_does_not_have)
{
    struct bm_exchange exchange = {0};
    fake_begin();
    tell(&exchange, "POST", "health");
    CHECK_UINT(exchange.status, 405);
    CHECK(strstr(exchange.fields, "allow: GET, HEAD\n") != NULL);
    fake_over(&exchange);
    tell(&exchange, "GET", "other");
    CHECK_UINT(exchange.status, 404);
    fake_over(&exchange);
    fake_end();
}

/* --- the application's own ------------------------------------------------------------------- */

static struct {
    beam_http_request *kept;
    unsigned shown;
    int r;
    bool keeps;
    size_t answer_len;
} app;

static char answer_body[200000];

static void respond(beam_http_request *request)
{
    const struct beam_http_field fields[] = {{fake_str("content-type"), fake_str("text/plain")}};
    app.r = beam_http_respond(request, 201, fields, 1, answer_body, app.answer_len);
}

static void on_http(beam_http_request *request, void *arg)
{
    beam_str body = beam_http_body(request);
    (void)arg;
    app.shown++;
    CHECK_MEM(beam_http_method(request).ptr, beam_http_method(request).len, "PUT", 3);
    CHECK_MEM(beam_http_path(request).ptr, beam_http_path(request).len, "/api/x?y=z", 10);
    CHECK_MEM(body.ptr, body.len, "0123456789", 10);
    CHECK_MEM(beam_http_get(request, "x-one").ptr, beam_http_get(request, "x-one").len, "1", 1);
    CHECK_PTR(beam_http_get(request, "x-none").ptr, NULL);
    beam_str who = beam_http_peer(request)->identity;
    CHECK_MEM(who.ptr, who.len, "cn:ada", 6);
    app.kept = request;
    if (!app.keeps)
        respond(request);
}

static void app_begin(void)
{
    fake_begin();
    memset(&app, 0, sizeof(app));
    memset(answer_body, 'a', sizeof(answer_body));
    app.answer_len = 5;
    fake_server.on_request = on_http;
}

static void put(struct bm_exchange *exchange, int64_t body_len)
{
    static const struct bm_field fields[] = {
        {.name = "x-one", .value = "1", .name_len = 5, .value_len = 1}};
    struct bm_exchange_request head = head_of("PUT", "/api/x?y=z");
    head.fields = fields;
    head.field_count = 1;
    head.body_len = body_len;
    *exchange = (struct bm_exchange){.connection = &fake_connection};
    bm_application_exchange(&fake_server, exchange, &head, &fake_visitor);
    if (exchange->answered)
        return;
    REQUIRE(exchange->taken);
    exchange->handlers->on_body(exchange, (const uint8_t *)"01234", 5, exchange->arg);
    exchange->handlers->on_body(exchange, (const uint8_t *)"56789", 5, exchange->arg);
    exchange->handlers->on_end(exchange, exchange->arg);
    fake_pump(exchange);
}

TEST(application_answers_at_once)
{
    struct bm_exchange exchange = {0};
    app_begin();
    for (int64_t len = -1; len <= 10; len += 11) {
        put(&exchange, len);
        CHECK_INT(app.r, 0);
        CHECK_UINT(exchange.status, 201);
        CHECK_STR(exchange.fields, "content-type: text/plain\n");
        CHECK_STR(exchange.body, "aaaaa");
        fake_over(&exchange);
    }
    CHECK_UINT(app.shown, 2);
    fake_end();
}

TEST(application_answers_later_and_at_length)
{
    struct bm_exchange exchange = {0};
    app_begin();
    app.keeps = true;
    app.answer_len = sizeof(answer_body);
    put(&exchange, 10);
    CHECK(!exchange.answered);
    respond(app.kept);
    CHECK_INT(app.r, 0);
    fake_pump(&exchange);
    CHECK_MEM(exchange.body, exchange.body_len, answer_body, sizeof(answer_body));
    fake_over(&exchange);
    fake_end();
}

/* Its peer has gone; the request is the application's until it has answered. */
TEST(application_answers_nobody)
{
    struct bm_exchange exchange = {0};
    app_begin();
    app.keeps = true;
    put(&exchange, 10);
    fake_close(&exchange, -ECANCELED);
    CHECK(!exchange.released);
    CHECK_MEM(beam_http_path(app.kept).ptr, beam_http_path(app.kept).len, "/api/x?y=z", 10);
    respond(app.kept);
    CHECK_INT(app.r, 0);
    CHECK(exchange.released);
    fake_over(&exchange);
    fake_end();
}

static void on_looks(beam_http_request *request, void *arg)
{
    (void)arg;
    app.shown += beam_http_get(request, "x-user").ptr == NULL;
    app.shown += beam_http_get(request, "x-one").ptr != NULL;
    CHECK_INT(beam_http_respond(request, 200, NULL, 0, NULL, 0), 0);
}

/* What only a proxy may say is not shown when somebody else says it. */
TEST(application_is_not_told_what_only_a_proxy_may_tell)
{
    static const char *const proxies[] = {"198.51.100.1", NULL}, *const ours[] = {"192.0.2.7",
                                                                                  NULL};
    static const struct bm_field fields[] = {
        {.name = "x-user", .value = "root", .name_len = 6, .value_len = 4},
        {.name = "x-one", .value = "1", .name_len = 5, .value_len = 1}};
    for (int trusted = 0; trusted < 2; trusted++) {
        struct bm_exchange exchange = {.connection = &fake_connection};
        struct bm_exchange_request head = head_of("GET", "/");
        char why[128];
        app_begin();
        fake_server.on_request = on_looks;
        REQUIRE_INT(bm_access_new(&fake_server.access,
                                  &BEAM_NET_LISTEN(.proxies = trusted ? ours : proxies,
                                                   .identity_header = "x-user"),
                                  false, why),
                    0);
        head.fields = fields;
        head.field_count = 2;
        bm_application_exchange(&fake_server, &exchange, &head, &fake_visitor);
        CHECK_UINT(exchange.status, 200);
        CHECK_UINT(app.shown, trusted ? 1 : 2);
        fake_over(&exchange);
        fake_server.access = bm_access_free(fake_server.access);
        fake_end();
    }
}

TEST(application_is_refused_what_is_no_answer)
{
    const struct beam_http_field bad[] = {{fake_str("a b"), fake_str("x")}},
                                 worse[] = {{fake_str("a"), fake_str("x\r\nb: y")}};
    struct bm_exchange exchange = {0};
    app_begin();
    app.keeps = true;
    put(&exchange, 10);
    CHECK_INT(beam_http_respond(app.kept, 199, NULL, 0, NULL, 0), -EINVAL);
    CHECK_INT(beam_http_respond(app.kept, 600, NULL, 0, NULL, 0), -EINVAL);
    CHECK_INT(beam_http_respond(app.kept, 200, bad, 1, NULL, 0), -EINVAL);
    CHECK_INT(beam_http_respond(app.kept, 200, worse, 1, NULL, 0), -EINVAL);
    CHECK(!exchange.answered);
    CHECK_INT(beam_http_respond(app.kept, 404, NULL, 0, NULL, 0), 0);
    CHECK_UINT(exchange.status, 404);
    fake_over(&exchange);
    fake_end();
}

TEST(application_is_not_shown_what_is_not_whole)
{
    struct bm_exchange exchange = {0};
    app_begin();
    put(&exchange, (17 << 20));
    CHECK_UINT(exchange.status, 413);
    fake_over(&exchange);
    CHECK_UINT(app.shown, 0);
    fake_server.on_request = NULL;
    put(&exchange, 10);
    CHECK_UINT(exchange.status, 404);
    fake_over(&exchange);
    fake_end();
}

TEST(application_survives_a_lack_of_memory)
{
    app_begin();
    app.answer_len = sizeof(answer_body);
    unsigned failed = 0;
    for (int left = 0; left < 20; left++) {
        struct bm_exchange exchange = {0};
        app.shown = 0;
        app.kept = NULL;
        test_note("%d allocations", left);
        scarce_begin(left);
        put(&exchange, -1);
        scarce_end();
        if (app.shown && app.r < 0) {
            CHECK_INT(app.r, -ENOMEM);
            respond(app.kept);
            fake_pump(&exchange);
        }
        failed += exchange.status != 201;
        CHECK(exchange.whole || exchange.reset);
        fake_over(&exchange);
    }
    CHECK(failed > 0);
    fake_end();
}
