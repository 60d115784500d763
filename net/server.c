/* See server.h. Paths are compared as they were sent, byte for byte: nothing is decoded or repaired before
 * it is known whose they are, so that a proxy in front and this agree on what they mean (rule A1). */
#include "net/server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/access.h"
#include "net/memory_budget.h"
#include "net/url.h"

#define WHY_LEN 128u

static bool is(beam_str text, const char *other)
{
    return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

static bool begins(beam_str text, const char *with, size_t len)
{
    return text.len >= len && memcmp(text.ptr, with, len) == 0;
}

/* --- life ------------------------------------------------------------------------------------ */

static size_t origins_len(const struct bm_server *server)
{
    return (server->origin_count + 1) * sizeof(server->origins[0]);
}

static void server_free(struct bm_server *server)
{
    char **origins = (char **)(uintptr_t)server->origins;
    for (size_t i = 0; i < server->origin_count; i++)
        bm_free(NULL, origins[i], origins[i] ? strlen(origins[i]) + 1 : 0);
    bm_free(NULL, origins, origins_len(server));
    if (server->prefix)
        bm_free(NULL, server->prefix, server->prefix_len + 1);
    bm_access_free(server->access);
    bm_address_limits_deinit(&server->addresses);
    bm_address_limits_deinit(&server->identities);
    bm_free(NULL, server, sizeof(*server));
}

struct bm_server *bm_server_ref(struct bm_server *server)
{
    atomic_fetch_add_explicit(&server->refs, 1, memory_order_relaxed);
    return server;
}

struct bm_server *bm_server_unref(struct bm_server *server)
{
    /* acq_rel; partners: the other calls of this. */
    if (server && atomic_fetch_sub_explicit(&server->refs, 1, memory_order_acq_rel) == 1)
        server_free(server);
    return NULL;
}

static void server_unrefp(struct bm_server **server)
{
    bm_server_unref(*server);
}

static char *copy(const char *text)
{
    size_t len = strlen(text) + 1;
    char *to = bm_alloc(NULL, len);
    return to ? memcpy(to, text, len) : NULL;
}

static int copy_origins(struct bm_server *server, const char *const *origins)
{
    size_t count = 0;
    while (origins && origins[count] && count <= BM_SERVER_ORIGINS_MAX)
        count++;
    if (count > BM_SERVER_ORIGINS_MAX)
        return -EINVAL;
    char **copies = bm_alloc_zero(NULL, (count + 1) * sizeof(copies[0]));
    if (!copies)
        return -ENOMEM;
    server->origin_count = count;
    server->origins = (const char *const *)copies;
    for (size_t i = 0; i < count; i++)
        if (!(copies[i] = copy(origins[i])))
            return -ENOMEM;
    return 0;
}

int bm_server_new(beam_runtime *runtime, const struct bm_url *url,
                  const struct beam_net_listen *options, struct bm_server **ret_server,
                  char *ret_why)
{
    ret_why[0] = '\0';
    if (options->connections_address_max > BM_ADDRESS_CONNECTIONS_LIMIT ||
        options->connections_address_per_s > BM_ADDRESS_CONNECTIONS_LIMIT ||
        options->sessions_identity_max > BM_ADDRESS_CONNECTIONS_LIMIT ||
        options->sessions_identity_per_s > BM_ADDRESS_CONNECTIONS_LIMIT) {
        snprintf(ret_why, WHY_LEN,
                 "more than 65536 connections from an address, or sessions of one identity");
        return -EINVAL;
    }
    BM_CLEANUP(server_unrefp)
    struct bm_server *server = bm_alloc_zero(NULL, sizeof(*server));
    if (!server)
        return -ENOMEM;
    atomic_init(&server->refs, 1);
    bm_address_limits_init(&server->addresses, options->connections_address_max,
                           options->connections_address_per_s);
    bm_address_limits_init(&server->identities,
                           options->sessions_identity_max ? options->sessions_identity_max
                                                          : BM_IDENTITY_SESSIONS_MAX,
                           options->sessions_identity_per_s ? options->sessions_identity_per_s
                                                            : BM_IDENTITY_SESSIONS_PER_S);
    server->memory_max = options->memory_max;
    server->runtime = runtime;
    server->on_request = options->on_request;
    server->on_request_arg = options->on_request_arg;
    server->prefix = copy(url->prefix);
    if (!server->prefix)
        return -ENOMEM;
    server->prefix_len = strlen(url->prefix);
    int r = copy_origins(server, options->origins);
    if (r == -EINVAL)
        snprintf(ret_why, WHY_LEN, "more than %u origins", BM_SERVER_ORIGINS_MAX);
    if (r == 0)
        r = bm_access_new(&server->access, options, url->kind == BM_URL_SOCKET_FILE, ret_why);
    if (r < 0)
        return r;
    *ret_server = bm_take_ptr(server);
    return 0;
}

/* --- requests -------------------------------------------------------------------------------- */

/* One request on its way. */
struct way {
    struct bm_server *server;
    struct bm_exchange *exchange;
    const struct bm_exchange_request *request;
    struct bm_visitor visitor;
};

static void refuse_method(const struct way *way, const char *allowed)
{
    const struct bm_field allow = BM_FIELD("allow", allowed);
    bm_exchange_refuse(way->exchange, 405, BEAM_UNIMPLEMENTED, "another method is needed here",
                       &allow, 1);
}

static void refuse_nothing_there(const struct way *way)
{
    bm_exchange_refuse(way->exchange, 404, BEAM_NOT_FOUND, "there is nothing at this path", NULL,
                       0);
}

static void refuse_visitor(const struct way *way, unsigned status)
{
    const char *challenge = bm_access_challenge(way->server->access);
    struct bm_field field;
    switch (status) {
    case 401:
        if (challenge)
            field = BM_FIELD("www-authenticate", challenge);
        bm_exchange_refuse(way->exchange, 401, BEAM_UNAUTHENTICATED, "who are you?", &field,
                           challenge ? 1 : 0);
        break;
    case 403:
        bm_exchange_refuse(way->exchange, 403, BEAM_PERMISSION_DENIED, "not for you", NULL, 0);
        break;
    case 503:
        bm_exchange_refuse(way->exchange, 503, BEAM_UNAVAILABLE,
                           "who you are cannot be found out now", NULL, 0);
        break;
    default:
        bm_exchange_refuse(way->exchange, status, BEAM_RESOURCE_EXHAUSTED,
                           "too much is said about who you are", NULL, 0);
        break;
    }
}

static const struct bm_field retry = {
    .name = "retry-after", .value = "1", .name_len = 11, .value_len = 1};

/* All connections together hold more than they may: nothing new begins. True: it was refused. */
static bool is_shed(const struct way *way)
{
    struct bm_core *core = bm_connection_core(bm_exchange_connection(way->exchange));
    if (bm_memory_look(core, way->server->memory_max) == BM_MEMORY_ROOM)
        return false;
    bm_exchange_refuse(way->exchange, 503, BEAM_RESOURCE_EXHAUSTED,
                       "this server has no memory to spare now", &retry, 1);
    return true;
}

static void to_session(const struct way *way, bool websocket)
{
    /* relaxed: who comes at the same moment comes before it. */
    if (atomic_load_explicit(&way->server->draining, memory_order_relaxed))
        bm_exchange_refuse(way->exchange, 503, BEAM_UNAVAILABLE, "this server is draining", &retry,
                           1);
    else if (!is_shed(way))
        bm_session_exchange(way->server, way->exchange, way->request, &way->visitor, websocket);
}

/* POST /v1 */
static void session(const struct way *way)
{
    static const struct bm_field upgrade = {
        .name = "upgrade", .value = "websocket", .name_len = 7, .value_len = 9};
    if (!is(way->request->method, "POST"))
        refuse_method(way, "POST");
    else if (way->request->version < 2)
        bm_exchange_refuse(way->exchange, 426, BEAM_FAILED_PRECONDITION,
                           "this takes HTTP/2; over HTTP/1.1 there is WebSocket", &upgrade, 1);
    else
        to_session(way, false);
}

/* GET /v1/ws over HTTP/1.1; CONNECT over HTTP/2 (RFC 8441). */
static void websocket(const struct way *way)
{
    bool extended = way->request->version >= 2;
    if (!is(way->request->method, extended ? "CONNECT" : "GET"))
        refuse_method(way, extended ? "CONNECT" : "GET");
    else if (extended && !is(way->request->protocol, "websocket"))
        bm_exchange_refuse(way->exchange, 501, BEAM_UNIMPLEMENTED, "this is for WebSocket", NULL,
                           0); /* as RFC 9220 section 3 has it */
    else
        to_session(way, true);
}

/* rest stands behind the prefix and a slash. */
static void below_prefix(struct way *way, beam_str rest)
{
    bool about = is(rest, "services") || is(rest, "health") || is(rest, "stats");
    int status = bm_access_judge(way->server->access, way->exchange, way->request, &way->visitor);
    if (status != 0 && !is(rest, "health"))
        refuse_visitor(way, (unsigned)status);
    else if (is(rest, "v1"))
        session(way);
    else if (is(rest, "v1/ws"))
        websocket(way);
    else if (is(rest, "v1/stream"))
        bm_stream_exchange(way->exchange, way->request, &way->visitor);
    else if (about)
        bm_about_exchange(way->server, way->exchange, way->request, &way->visitor, rest);
    else if (!begins(rest, "call/", 5) || rest.len == 5)
        refuse_nothing_there(way);
    else if (!is(way->request->method, "POST"))
        refuse_method(way, "POST");
    else if (!is_shed(way))
        bm_call_exchange(way->server, way->exchange, way->request, &way->visitor,
                         (beam_str){rest.ptr + 5, rest.len - 5});
}

void bm_server_on_request(struct bm_connection *connection, struct bm_exchange *exchange,
                          const struct bm_exchange_request *request, void *arg)
{
    struct way way = {.server = arg, .exchange = exchange, .request = request};
    size_t prefix_len = way.server->prefix_len;
    const char *query =
        request->path.len > 0 ? memchr(request->path.ptr, '?', request->path.len) : NULL;
    beam_str path = request->path;
    (void)connection;
    if (query)
        path.len = (size_t)(query - path.ptr);
    if (begins(path, way.server->prefix, prefix_len) &&
        (path.len == prefix_len || path.ptr[prefix_len] == '/')) {
        size_t skip = path.len == prefix_len ? prefix_len : prefix_len + 1;
        below_prefix(&way, (beam_str){path.ptr + skip, path.len - skip});
        return;
    }
    /* Nobody is refused here: who is known is told, and the rest is the application's. */
    (void)bm_access_judge(way.server->access, exchange, request, &way.visitor);
    if (is_shed(&way))
        return;
    bm_application_exchange(way.server, exchange, request, &way.visitor);
}
