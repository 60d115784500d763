/* Which way a request goes: by its path, its method and who asks. All that stands at the ends of the ways is
 * the test's own. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/access.h"
#include "net/memory_budget.h"
#include "net/server.h"
#include "net/url.h"
#include "tests/support/test.h"

/* --- where the ways lead --------------------------------------------------------------------- */

static char seen[300];      /* "call a/b", "refused 404 …" */
static int judged = 0;      /* what access says */
static unsigned judgements; /* how often it was asked */
static const char *challenge;
static bool local;

__attribute__((format(printf, 1, 2))) static void saw(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    CHECK_STR(seen, ""); /* each request goes one way */
    vsnprintf(seen, sizeof(seen), format, args);
    va_end(args);
}

int bm_access_new(struct bm_access **ret_access, const struct beam_net_listen *options,
                  bool is_local, char *ret_why)
{
    if (options->identity_header) {
        strcpy(ret_why, "an identity without a proxy");
        return -EINVAL;
    }
    local = is_local;
    *ret_access = (struct bm_access *)&judged;
    return 0;
}

struct bm_access *bm_access_free(struct bm_access *access)
{
    CHECK(!access || access == (struct bm_access *)&judged);
    return NULL;
}

int bm_access_judge(const struct bm_access *access, const struct bm_exchange *exchange,
                    const struct bm_exchange_request *request, struct bm_visitor *ret_visitor)
{
    (void)access, (void)exchange, (void)request;
    judgements++;
    memset(ret_visitor, 0, sizeof(*ret_visitor));
    ret_visitor->known = judged == 0;
    return judged;
}

const char *bm_access_challenge(const struct bm_access *access)
{
    (void)access;
    return challenge;
}

void bm_session_exchange(struct bm_server *server, struct bm_exchange *exchange,
                         const struct bm_exchange_request *request,
                         const struct bm_visitor *visitor, bool websocket)
{
    (void)server, (void)exchange, (void)request;
    CHECK(visitor->known);
    saw("session%s", websocket ? " websocket" : "");
}

void bm_stream_exchange(struct bm_exchange *exchange, const struct bm_exchange_request *request,
                        const struct bm_visitor *visitor)
{
    (void)exchange, (void)request;
    CHECK(visitor->known);
    saw("stream");
}

void bm_call_exchange(struct bm_server *server, struct bm_exchange *exchange,
                      const struct bm_exchange_request *request, const struct bm_visitor *visitor,
                      beam_str rest)
{
    (void)server, (void)exchange, (void)request;
    CHECK(visitor->known);
    saw("call %.*s", (int)rest.len, rest.ptr);
}

void bm_about_exchange(struct bm_server *server, struct bm_exchange *exchange,
                       const struct bm_exchange_request *request, const struct bm_visitor *visitor,
                       beam_str what)
{
    (void)server, (void)exchange, (void)request, (void)visitor;
    saw("about %.*s", (int)what.len, what.ptr);
}

void bm_application_exchange(struct bm_server *server, struct bm_exchange *exchange,
                             const struct bm_exchange_request *request,
                             const struct bm_visitor *visitor)
{
    (void)server, (void)exchange, (void)request;
    saw("application%s", visitor->known ? "" : " stranger");
}

static enum bm_memory_pressure pressure;

enum bm_memory_pressure bm_memory_look(struct bm_core *core, uint64_t max)
{
    (void)core, (void)max;
    return pressure;
}

struct bm_connection *bm_exchange_connection(const struct bm_exchange *exchange)
{
    (void)exchange;
    return NULL;
}

struct bm_core *bm_connection_core(const struct bm_connection *connection)
{
    (void)connection;
    return NULL;
}

void bm_exchange_refuse(struct bm_exchange *exchange, unsigned status, enum beam_code code,
                        const char *message, const struct bm_field *fields, size_t field_count)
{
    (void)exchange;
    CHECK(code != BEAM_OK);
    CHECK(message[0] != '\0');
    if (field_count == 0) {
        saw("refused %u", status);
        return;
    }
    CHECK_UINT(field_count, 1);
    CHECK_UINT(fields->name_len, strlen(fields->name));
    CHECK_UINT(fields->value_len, strlen(fields->value));
    saw("refused %u %s: %s", status, fields->name, fields->value);
}

/* --- ways ------------------------------------------------------------------------------------ */

static const struct beam_net_listen defaults = {.size = sizeof(defaults)};

static struct bm_server *server_at(const char *text, const struct beam_net_listen *options)
{
    struct bm_url url;
    struct bm_server *server = NULL;
    char why[128] = "?";
    REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
    REQUIRE_INT(bm_server_new((beam_runtime *)&judged, &url, options, &server, why), 0);
    CHECK_STR(why, "");
    return server;
}

struct row {
    const char *method, *path, *expected;
    unsigned version; /* 2 */
    const char *protocol;
};

static const char *way_of(struct bm_server *server, const struct row *row)
{
    const struct bm_exchange_request request = {
        .method = {row->method, strlen(row->method)},
        .path = {row->path, strlen(row->path)},
        .protocol = {row->protocol, row->protocol ? strlen(row->protocol) : 0},
        .version = row->version ? row->version : 2,
    };
    seen[0] = '\0';
    judgements = 0;
    bm_server_on_request(NULL, NULL, &request, server);
    return seen;
}

static void check_rows(struct bm_server *server, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        test_note("%s %s", rows[i].method, rows[i].path);
        CHECK_STR(way_of(server, &rows[i]), rows[i].expected);
        CHECK_UINT(judgements, 1);
    }
    test_note("%s", "");
}

TEST(server_finds_the_way_by_the_path)
{
    static const struct row rows[] = {
        {"POST", "/beam/v1", "session", 2, NULL},
        {"POST", "/beam/v1?a=b", "session", 2, NULL},
        {"POST", "/beam/v1", "refused 426 upgrade: websocket", 1, NULL},
        {"GET", "/beam/v1", "refused 405 allow: POST", 2, NULL},
        {"GET", "/beam/v1", "refused 405 allow: POST", 1, NULL},
        {"POST", "/beam/v1/stream", "stream", 2, NULL},
        {"GET", "/beam/v1/ws", "session websocket", 1, NULL},
        {"POST", "/beam/v1/ws", "refused 405 allow: GET", 1, NULL},
        {"CONNECT", "/beam/v1/ws", "session websocket", 2, "websocket"},
        {"CONNECT", "/beam/v1/ws", "refused 501", 2, "connect-udp"},
        {"GET", "/beam/v1/ws", "refused 405 allow: CONNECT", 2, NULL},
        {"POST", "/beam/call/echo", "call echo", 2, NULL},
        {"POST", "/beam/call/echo/a/b%2fc", "call echo/a/b%2fc", 1, NULL},
        {"POST", "/beam/call/echo?x=/beam/v1", "call echo", 1, NULL},
        {"GET", "/beam/call/echo", "refused 405 allow: POST", 1, NULL},
        {"POST", "/beam/call/", "refused 404", 1, NULL},
        {"POST", "/beam/call", "refused 404", 1, NULL},
        {"GET", "/beam/services", "about services", 2, NULL},
        {"GET", "/beam/health", "about health", 2, NULL},
        {"GET", "/beam/stats?", "about stats", 2, NULL},
        {"POST", "/beam/stats", "about stats", 2, NULL}, /* which says 405 itself */
        {"GET", "/beam", "refused 404", 2, NULL},
        {"GET", "/beam/", "refused 404", 2, NULL},
        {"GET", "/beam?/v1", "refused 404", 2, NULL},
        {"POST", "/beam/v1/", "refused 404", 2, NULL},
        {"POST", "/beam//v1", "refused 404", 2, NULL},
        {"POST", "/beam/V1", "refused 404", 2, NULL},
        {"POST", "/beam/%76%31", "refused 404", 2, NULL},
        {"POST", "/beam/../v1", "refused 404", 2, NULL},
        {"GET", "/", "application", 2, NULL},
        {"GET", "", "application", 2, NULL},
        {"GET", "/bea", "application", 2, NULL},
        {"POST", "/beamer/v1", "application", 2, NULL},
        {"POST", "/Beam/v1", "application", 2, NULL},
        {"POST", "/%62eam/v1", "application", 2, NULL},
        {"POST", "/x/beam/v1", "application", 2, NULL},
        {"POST", "//beam/v1", "application", 2, NULL},
        {"GET", "/x?/beam/v1", "application", 2, NULL},
        {"OPTIONS", "*", "application", 2, NULL},
    };
    judged = 0;
    struct bm_server *server = server_at("http://h", &defaults);
    check_rows(server, rows, BM_ARRAY_LEN(rows));
    CHECK(!local);
    bm_server_unref(server);
}

TEST(server_has_its_prefix_from_the_url)
{
    static const struct row rows[] = {
        {"POST", "/api/v2/v1", "session", 2, NULL},
        {"GET", "/api/v2/health", "about health", 2, NULL},
        {"GET", "/api/v2", "refused 404", 2, NULL},
        {"GET", "/api", "application", 2, NULL},
        {"GET", "/api/v2x", "application", 2, NULL},
        {"GET", "/beam/health", "application", 2, NULL},
    };
    judged = 0;
    struct bm_server *server = server_at("http://h/api/v2/", &defaults);
    check_rows(server, rows, BM_ARRAY_LEN(rows));
    bm_server_unref(server);
    server = server_at("http+unix:@x", &defaults);
    CHECK(local);
    bm_server_unref(server);
}

TEST(server_asks_who_it_is_before_anything_else)
{
    static const struct row unknown[] = {
        {"POST", "/beam/v1", "refused 401 www-authenticate: Bearer", 2, NULL},
        {"GET", "/beam/v1", "refused 401 www-authenticate: Bearer", 2, NULL},
        {"GET", "/beam/v1/ws", "refused 401 www-authenticate: Bearer", 1, NULL},
        {"POST", "/beam/call/echo", "refused 401 www-authenticate: Bearer", 2, NULL},
        {"GET", "/beam/services", "refused 401 www-authenticate: Bearer", 2, NULL},
        {"GET", "/beam/stats", "refused 401 www-authenticate: Bearer", 2, NULL},
        {"GET", "/beam/nothing", "refused 401 www-authenticate: Bearer", 2, NULL},
        {"GET", "/beam/health", "about health", 2, NULL},
        {"GET", "/beam/healthy", "refused 401 www-authenticate: Bearer", 2, NULL},
        {"GET", "/other", "application stranger", 2, NULL},
    };
    static const struct row row = {"POST", "/beam/v1", NULL, 2, NULL};
    struct bm_server *server = server_at("http://h", &defaults);
    judged = 401;
    challenge = "Bearer";
    check_rows(server, unknown, BM_ARRAY_LEN(unknown));
    challenge = NULL;
    CHECK_STR(way_of(server, &row), "refused 401");
    judged = 403;
    CHECK_STR(way_of(server, &row), "refused 403");
    judged = 431;
    CHECK_STR(way_of(server, &row), "refused 431");
    judged = 503;
    CHECK_STR(way_of(server, &row), "refused 503");
    judged = 0;
    bm_server_unref(server);
}

TEST(server_without_memory_begins_nothing_and_tells_of_itself)
{
    static const struct row rows[] = {
        {"POST", "/beam/v1", "refused 503 retry-after: 1", 2, NULL},
        {"GET", "/beam/v1/ws", "refused 503 retry-after: 1", 1, NULL},
        {"POST", "/beam/call/echo", "refused 503 retry-after: 1", 2, NULL},
        {"GET", "/mine", "refused 503 retry-after: 1", 2, NULL},
        {"GET", "/beam/health", "about health", 2, NULL},
        {"GET", "/beam/stats", "about stats", 2, NULL},
        {"GET", "/beam/nothing", "refused 404", 2, NULL},
    };
    judged = 0;
    struct bm_server *server = server_at("http://h", &defaults);
    pressure = BM_MEMORY_SHORT;
    check_rows(server, rows, BM_ARRAY_LEN(rows));
    pressure = BM_MEMORY_ROOM;
    bm_server_unref(server);
}

TEST(server_that_drains_takes_no_sessions)
{
    static const struct row rows[] = {
        {"POST", "/beam/v1", "refused 503 retry-after: 1", 2, NULL},
        {"GET", "/beam/v1/ws", "refused 503 retry-after: 1", 1, NULL},
        {"POST", "/beam/call/echo", "call echo", 2, NULL},
        {"GET", "/beam/health", "about health", 2, NULL},
        {"GET", "/x", "application", 2, NULL},
    };
    judged = 0;
    struct bm_server *server = server_at("http://h", &defaults);
    atomic_store(&server->draining, true);
    check_rows(server, rows, BM_ARRAY_LEN(rows));
    bm_server_unref(server);
}

TEST(server_copies_its_options_and_refuses_bad_ones)
{
    const char *many[BM_SERVER_ORIGINS_MAX + 2];
    char origin[] = "https://a.example";
    const char *two[] = {origin, "https://b.example", NULL};
    struct bm_server *server = server_at("http://h", &BEAM_NET_LISTEN(.origins = two));
    origin[0] = 'x';
    REQUIRE_UINT(server->origin_count, 2);
    CHECK_STR(server->origins[0], "https://a.example");
    CHECK_STR(server->origins[1], "https://b.example");
    CHECK_UINT(server->addresses.max, BM_ADDRESS_CONNECTIONS_MAX);
    CHECK_UINT(server->addresses.per_s, BM_ADDRESS_CONNECTIONS_PER_S);
    bm_server_ref(server);
    bm_server_unref(server);
    CHECK_STR(server->prefix, "/beam"); /* still there */
    bm_server_unref(server);

    for (size_t i = 0; i <= BM_SERVER_ORIGINS_MAX; i++)
        many[i] = "https://a.example";
    many[BM_SERVER_ORIGINS_MAX + 1] = NULL;
    const struct beam_net_listen bad[] = {
        BEAM_NET_LISTEN(.origins = many),
        BEAM_NET_LISTEN(.identity_header = "x"),
        BEAM_NET_LISTEN(.connections_address_max = 65537),
        BEAM_NET_LISTEN(.connections_address_per_s = 65537),
    };
    struct bm_url url;
    REQUIRE_INT(bm_url_parse("http://h", &url, NULL), 0);
    for (size_t i = 0; i < BM_ARRAY_LEN(bad); i++) {
        char why[128] = "";
        CHECK_INT(bm_server_new((beam_runtime *)&judged, &url, &bad[i], &server, why), -EINVAL);
        CHECK(why[0] != '\0');
    }
    many[BM_SERVER_ORIGINS_MAX] = NULL;
    server = server_at("http://h", &BEAM_NET_LISTEN(.origins = many));
    bm_server_unref(server);
}
