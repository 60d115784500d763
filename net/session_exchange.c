/* A request for a session, at a server: POST PREFIX/v1, or a WebSocket at PREFIX/v1/ws. Judged by its
 * fields, and answered at once, before a byte of its body has come (docs/spec/http.md S1, S2, B1); from then
 * on the exchange is the session's (net_session.c). Who asks has been settled before (access.c). */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/base64url.h"
#include "net/net_session.h"
#include "net/proto/websocket_handshake.h"
#include "net/server.h"
#include "runtime/core.h"

#define TYPE "application/x-beam"
#define VERSION "1"
#define RETRY_AFTER_S "1" /* ours: a server that drains is soon another one */

static bool is(beam_str text, const char *other)
{
    size_t len = strlen(other);
    return text.len == len && memcmp(text.ptr, other, len) == 0;
}

/* 128 bits that nobody can guess. */
static void make_id(char ret[BM_NET_SESSION_ID_LEN + 1])
{
    uint8_t bytes[16];
    bm_random(bytes, sizeof(bytes));
    bm_base64url_128(bytes, ret);
}

/* The media type, without its parameters. */
static bool type_is_ours(const struct bm_field *field)
{
    size_t len = sizeof(TYPE) - 1;
    return field && field->value_len >= len && bm_field_same(field->value, len, TYPE) &&
           (field->value_len == len || field->value[len] == ';' || field->value[len] == ' ');
}

static bool is_number(const struct bm_field *field)
{
    for (size_t i = 0; i < field->value_len; i++)
        if (field->value[i] < '0' || field->value[i] > '9')
            return false;
    return field->value_len > 0;
}

/* S1, S2. True: it is a request for a session; else it has been answered. */
static bool judge(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    const struct bm_field *fields = request->fields;
    size_t count = request->field_count;
    const struct bm_field *type = bm_field_find(fields, count, "content-type");
    const struct bm_field *version = bm_field_find(fields, count, "beam-version");
    if (request->protocol.len > 0 || !is(request->method, "POST"))
        bm_exchange_refuse_saying(exchange, 405, BEAM_UNIMPLEMENTED,
                                  "a session is asked for with POST", "allow", "POST");
    else if (request->version != 2)
        bm_exchange_refuse_saying(exchange, 426, BEAM_UNIMPLEMENTED,
                                  "over HTTP/1.1 a session is a WebSocket, beside this path at /ws",
                                  "upgrade", BM_WEBSOCKET_UPGRADE);
    else if (!type_is_ours(type))
        bm_exchange_refuse_saying(exchange, 415, BEAM_INVALID_ARGUMENT, "content-type is not " TYPE,
                                  NULL, NULL);
    else if (!version || !is_number(version))
        bm_exchange_refuse_saying(exchange, 400, BEAM_INVALID_ARGUMENT,
                                  "beam-version is missing, or no number", "beam-version", VERSION);
    else if (version->value_len != 1 || version->value[0] != VERSION[0])
        bm_exchange_refuse_saying(exchange, 406, BEAM_UNIMPLEMENTED,
                                  "only version " VERSION " is spoken here", "beam-version",
                                  VERSION);
    else if (request->body_len != -1)
        bm_exchange_refuse_saying(exchange, 400, BEAM_INVALID_ARGUMENT,
                                  "a session's body has no end", NULL, NULL);
    else
        return true;
    return false;
}

/* B1. True: go on with *ret_answer; else it has been answered. */
static bool judge_websocket(const struct bm_server *server, struct bm_exchange *exchange,
                            const struct bm_exchange_request *request,
                            struct bm_websocket_answer *ret_answer)
{
    if (request->protocol.len > 0 && !is(request->protocol, BM_WEBSOCKET_UPGRADE)) {
        bm_exchange_refuse_saying(exchange, 501, BEAM_UNIMPLEMENTED, "no such protocol", NULL,
                                  NULL);
        return false;
    }
    const struct bm_websocket_request asked = {
        .extended = request->protocol.len > 0,
        .upgrade = request->upgrade,
        .method = request->method.ptr,
        .method_len = request->method.len,
        .authority = request->authority.ptr,
        .authority_len = request->authority.len,
        .fields = request->fields,
        .field_count = request->field_count,
    };
    const struct bm_websocket_policy policy = {server->origins, server->origin_count};
    bm_websocket_judge(&asked, &policy, ret_answer);
    if (ret_answer->status == 101 || ret_answer->status == 200)
        return true;
    struct bm_field fields[3];
    size_t count = ret_answer->field_count;
    memcpy(fields, ret_answer->fields, count * sizeof(fields[0]));
    if (ret_answer->upgrade)
        fields[count++] = BM_FIELD("upgrade", BM_WEBSOCKET_UPGRADE);
    bm_exchange_refuse(exchange, (unsigned)ret_answer->status,
                       ret_answer->status == 403 ? BEAM_PERMISSION_DENIED : BEAM_INVALID_ARGUMENT,
                       ret_answer->status == 403 ? "this origin may not" : "no WebSocket of Beam",
                       fields, count);
    return false;
}

/* A place among the sessions that who asks may have, until his ends. */
struct seat {
    struct bm_server *server;
    struct bm_address_key key;
};

static void leave(struct bm_net_session *ns, void *arg)
{
    struct seat *seat = arg;
    (void)ns;
    bm_address_limits_leave(&seat->server->identities, &seat->key);
    bm_server_unref(seat->server);
    bm_free(NULL, seat, sizeof(*seat));
}

static const struct bm_net_session_owner seated = {.on_over = leave};

/* NULL: none is needed. -EAGAIN: he has as many as he may; -ENOMEM. */
static int take_seat(struct bm_server *server, struct bm_core *core,
                     const struct bm_visitor *visitor, struct seat **ret_seat)
{
    uint64_t refused;
    *ret_seat = NULL;
    if (visitor->peer.identity.len == 0)
        return 0;
    struct seat *seat = bm_alloc(NULL, sizeof(*seat));
    if (!seat)
        return -ENOMEM;
    bm_identity_key(&server->identities, visitor->peer.identity, &seat->key);
    int r = bm_address_limits_enter(&server->identities, &seat->key,
                                    bm_reactor_now_ns(core->reactor), &refused);
    if (r < 0) {
        bm_free(NULL, seat, sizeof(*seat));
        return r;
    }
    seat->server = bm_server_ref(server);
    *ret_seat = seat;
    return 0;
}

static int answer(struct bm_exchange *exchange, const char *id,
                  const struct bm_websocket_answer *handshake)
{
    struct bm_field fields[7] = {
        BM_FIELD("cache-control", "no-store"),
        BM_FIELD("x-accel-buffering", "no"),
    };
    size_t count = 2;
    fields[count++] = BM_FIELD("beam-session", id);
    if (!handshake) {
        fields[count++] = BM_FIELD("content-type", TYPE);
        fields[count++] = BM_FIELD("beam-version", VERSION);
        return bm_exchange_answer(exchange, 200, fields, count, NULL, -1);
    }
    memcpy(fields + count, handshake->fields, handshake->field_count * sizeof(fields[0]));
    count += handshake->field_count;
    if (handshake->status == 101)
        fields[count++] = BM_FIELD("upgrade", BM_WEBSOCKET_UPGRADE);
    return bm_exchange_answer(exchange, (unsigned)handshake->status, fields, count, NULL, -1);
}

void bm_session_exchange(struct bm_server *server, struct bm_exchange *exchange,
                         const struct bm_exchange_request *request,
                         const struct bm_visitor *visitor, bool websocket)
{
    struct bm_core *core = bm_connection_core(bm_exchange_connection(exchange));
    struct bm_websocket_answer handshake;
    struct bm_net_session *ns;
    if (websocket ? !judge_websocket(server, exchange, request, &handshake)
                  : !judge(exchange, request))
        return;
    /* relaxed; partner: whoever begins to drain it. */
    if (core->stopping || atomic_load_explicit(&server->draining, memory_order_relaxed)) {
        bm_exchange_refuse_saying(exchange, 503, BEAM_UNAVAILABLE, "the server is draining",
                                  "retry-after", RETRY_AFTER_S);
        return;
    }
    struct seat *seat;
    int r = take_seat(server, core, visitor, &seat);
    if (r == -EAGAIN) {
        bm_exchange_refuse_saying(exchange, 429, BEAM_RESOURCE_EXHAUSTED,
                                  "you have as many sessions as you may", "retry-after",
                                  RETRY_AFTER_S);
        return;
    }
    if (r == 0 && bm_net_session_new(core, false, &ns) < 0) {
        r = -ENOMEM;
        if (seat)
            leave(NULL, seat);
    }
    if (r < 0) {
        bm_exchange_refuse_saying(exchange, 503, BEAM_UNAVAILABLE, "no memory", "retry-after",
                                  RETRY_AFTER_S);
        return;
    }
    if (seat) {
        ns->owner = &seated;
        ns->owner_arg = seat;
    }
    beam_session *session = bm_session_ref(&ns->session);
    bm_exchange_take(exchange, &bm_net_session_handlers, ns);
    r = bm_net_session_attach(ns, exchange, websocket);
    make_id(ns->id);
    if (r == 0)
        r = bm_visitor_peer(visitor, NULL, &session->peer);
    if (r == 0)
        r = answer(exchange, ns->id, websocket ? &handshake : NULL);
    if (r < 0) {
        bm_session_lost(session, BEAM_UNAVAILABLE, beam_strerror(r));
        bm_exchange_reset(exchange);
    }
    bm_session_unref(session);
}
