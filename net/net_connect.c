/* The way out: from a URL to a session that is open.
 *
 * A *dial* is one session's search. It resolves the name, connects to one address after the other, and tries
 * one way of docs/spec/http.md section 6 after the other, until the server's HELLO has come over one: a request
 * of HTTP/2 with a body both ways; a WebSocket inside HTTP/2; a WebSocket over HTTP/1.1, on a connection of
 * its own. The session waits meanwhile, and nothing but HELLO of it leaves (net_session.c), so that a way
 * that has failed has run nothing. The time to connect is the session's own timer.
 *
 *     resolve -> [ address -> connection -> ask -> HELLO? ] -> open -> over
 *                    ^------------- next way -----'
 *
 * Handlers only note what has happened; what follows runs in the task, where exchanges may be let go.
 *
 * Invariants: at most one connection is the dial's, others are closing; the dial lives until the session is
 * over and no connection, question or op knows it, and holds the session until then. An answer that settles
 * it (401, 403, 406, 429, 503), and a certificate that is not the server's, end the search.
 *
 * Who comes back after a loss is the application's affair. */
#include "net/net_connect.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <beam/net.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "net/connection.h"
#include "net/http_status.h"
#include "net/known_servers.h"
#include "net/net_session.h"
#include "net/proto/websocket_handshake.h"
#include "net/resolve.h"
#include "runtime/core.h"
#include "runtime/options.h"
#include "runtime/peer.h"

#define STEP_NS (3 * BM_NS_PER_S)    /* docs/spec/http.md L1 */
#define ADDRESS_NS (3 * BM_NS_PER_S) /* ours: until the next address is tried, if there is one */
#define TOKEN_LEN_MAX 8192u          /* ours: what a header list of 16 KiB has room for */
#define PATH_LEN (BM_URL_PREFIX_MAX + 16u)
#define BEARER "Bearer "

enum { WAY_BITS = 1 << BEAM_NET_HTTP2 | 1 << BEAM_NET_CONNECT | 1 << BEAM_NET_UPGRADE };

struct dial {
    struct bm_net_session *ns; /* a reference */
    struct bm_core *core;
    struct bm_url url;
    char authority[BM_URL_AUTHORITY_LEN];
    char server_name[BM_TLS_HOST_MAX + 1];
    char *bearer; /* of `authorization`; or NULL */
    size_t bearer_len;
    struct bm_tls_context *both, *http1; /* which protocols they offer; NULL: no TLS */

    unsigned ways;         /* bits of those that are left */
    enum beam_net_way way; /* the one under way; ANY: none yet */

    struct bm_resolve *resolve;
    struct bm_socket_address addresses[BM_RESOLVE_ADDRESSES_MAX];
    unsigned address_count, address_next;
    struct bm_op connect_op;
    int fd;

    struct bm_connection *connection; /* the one in use, or NULL */
    bool usable;                      /* ... and open */
    bool settings;                    /* ... and an HTTP/2 that has told what it can do */
    unsigned connections;             /* that have not told us of their end */
    struct bm_websocket_offer offer;
    bool awaits_settings;

    struct bm_timer timer; /* a way, or an address, takes too long */
    struct bm_task task;
    bool connect_due; /* what the task is to do: the next address; */
    bool failed;      /* the next way, */
    bool settled;     /* or none */
    bool open, over;

    int error; /* the last thing that went wrong */
    enum beam_code code;
    char why[256];
};

static beam_str str(const char *text)
{
    return (beam_str){text, strlen(text)};
}

static struct bm_reactor *reactor_of(const struct dial *dial)
{
    return dial->core->reactor;
}

/* --- its end --------------------------------------------------------------------------------- */

static void free_secrets(struct dial *dial)
{
    if (dial->bearer) {
        explicit_bzero(dial->bearer, dial->bearer_len);
        dial->bearer = bm_free(NULL, dial->bearer, dial->bearer_len + 1);
    }
}

static void check_over(struct dial *dial)
{
    if (!dial->over || dial->connections > 0 || !bm_op_idle(&dial->connect_op))
        return;
    beam_session *session = &dial->ns->session;
    bm_task_cancel(&dial->task);
    free_secrets(dial);
    bm_tls_context_unref(dial->both);
    bm_tls_context_unref(dial->http1);
    bm_free(NULL, dial, sizeof(*dial));
    bm_session_unref(session);
}

/* A ticket comes some time after the handshake: asked for at the end, it is there. */
static void keep_ticket(const struct dial *dial)
{
    size_t len;
    const struct bm_tls *tls = dial->usable ? bm_connection_tls(dial->connection) : NULL;
    uint8_t *ticket = tls && dial->open ? bm_alloc(NULL, BM_TLS_SESSION_MAX) : NULL;
    if (!ticket)
        return;
    if (bm_tls_session((struct bm_tls *)tls, ticket, BM_TLS_SESSION_MAX, &len) == 0) {
        bm_known_servers_keep_ticket(dial->core, &dial->url, ticket, len);
        explicit_bzero(ticket, len);
    }
    bm_free(NULL, ticket, BM_TLS_SESSION_MAX);
}

static void leave_connection(struct dial *dial)
{
    struct bm_connection *connection = dial->connection;
    if (!connection)
        return;
    /* What the session still has to say goes first. */
    if (dial->over && dial->usable)
        bm_connection_drain(connection);
    else
        bm_connection_close(connection);
    dial->connection = NULL;
    dial->usable = dial->settings = dial->awaits_settings = false;
}

static void on_over(struct bm_net_session *ns, void *arg)
{
    struct dial *dial = arg;
    (void)ns;
    dial->over = true;
    keep_ticket(dial);
    bm_timer_cancel(reactor_of(dial), &dial->timer);
    bm_task_cancel(&dial->task);
    dial->resolve = bm_resolve_cancel(dial->resolve);
    bm_op_cancel(reactor_of(dial), &dial->connect_op);
    leave_connection(dial);
    check_over(dial);
}

static void give_up(struct dial *dial)
{
    beam_session *session = &dial->ns->session;
    session->connect_error = dial->error;
    bm_core_log(dial->core, BEAM_LOG_WARNING, "%s://%s%s: %s", dial->url.secure ? "https" : "http",
                dial->authority, dial->url.prefix, dial->why);
    bm_session_lost(session, dial->code, dial->why);
}

/* --- what has happened, for the task --------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static void say(struct dial *dial, int error,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(dial->why, sizeof(dial->why), format, args);
    va_end(args);
    dial->error = error;
    dial->code = BEAM_UNAVAILABLE;
}

/* This way leads nowhere. */
static void fail(struct dial *dial)
{
    dial->failed = true;
    bm_task_queue(reactor_of(dial), &dial->task);
}

/* None does. */
static void settle(struct dial *dial, enum beam_code code)
{
    dial->code = code;
    dial->settled = true;
    bm_task_queue(reactor_of(dial), &dial->task);
}

static bool on_lost(struct bm_net_session *ns, int error, void *arg)
{
    struct dial *dial = arg;
    (void)ns;
    if (dial->over || dial->open)
        return false;
    if (!dial->failed && !dial->settled)
        say(dial, error < 0 ? error : -ECONNRESET, "%s",
            error < 0 ? beam_strerror(error) : "the server has ended the session");
    fail(dial);
    return true;
}

static enum beam_code code_of(unsigned status)
{
    return status == 406 ? BEAM_UNIMPLEMENTED : bm_http_status_code(status);
}

/* A proxy that does not reach its server; or one that does not know the way, so that others are tried. */
static bool is_of_proxy(unsigned status)
{
    return status == 502 || status == 504;
}

static int error_of(unsigned status)
{
    return status == 401 || status == 403 ? -EACCES : status == 406 ? -EPROTONOSUPPORT : -EBUSY;
}

static bool settles(unsigned status)
{
    return status == 401 || status == 403 || status == 406 || status == 429 || status == 503;
}

/* S2. */
static bool is_session(const struct bm_field *fields, size_t count)
{
    const struct bm_field *type = bm_field_find(fields, count, "content-type");
    const struct bm_field *version = bm_field_find(fields, count, "beam-version");
    return type && bm_field_same(type->value, type->value_len, "application/x-beam") && version &&
           version->value_len == 1 && version->value[0] == '1';
}

/* Without one there are no streams beside the session. */
static void keep_id(struct bm_net_session *ns, const struct bm_field *fields, size_t count)
{
    const struct bm_field *id = bm_field_find(fields, count, "beam-session");
    if (id && id->value_len == BM_NET_SESSION_ID_LEN)
        memcpy(ns->id, id->value, BM_NET_SESSION_ID_LEN);
}

static int on_answer(struct bm_net_session *ns, unsigned status, const struct bm_field *fields,
                     size_t field_count, void *arg)
{
    struct dial *dial = arg;
    bool good = dial->way == BEAM_NET_HTTP2 ? status == 200 && is_session(fields, field_count)
                                            : bm_websocket_offer_verify(&dial->offer, (int)status,
                                                                        fields, field_count) == 0;
    if (good) {
        keep_id(ns, fields, field_count);
        return 0;
    }
    if (dial->failed || dial->settled)
        return -EPROTO;
    if (settles(status)) {
        say(dial, error_of(status), "the server has answered %u", status);
        settle(dial, code_of(status));
    } else if (is_of_proxy(status)) {
        say(dial, error_of(status), "the server has answered %u", status);
        fail(dial);
    } else {
        say(dial, -EPROTO, "the server has answered %u, and not as one of Beam", status);
        fail(dial);
    }
    return -EPROTO;
}

/* The certificate was verified for this name: that is who it is. */
static void set_peer(struct dial *dial)
{
    char name[BM_TLS_HOST_MAX + 5] = "";
    const char *address = dial->connection ? bm_connection_address(dial->connection) : "";
    struct bm_peer_texts *texts;
    bool is_name = dial->url.kind == BM_URL_NAME || strcmp(dial->server_name, dial->url.host) != 0;
    if (dial->url.secure)
        snprintf(name, sizeof(name), "%s:%s", is_name ? "dns" : "ip", dial->server_name);
    if (bm_peer_texts_new((beam_str){name, strlen(name)}, (beam_str){address, strlen(address)},
                          &texts) < 0)
        texts = NULL;
    bm_peer_set_net(&dial->ns->session.peer, texts);
}

static void on_open(struct bm_net_session *ns, void *arg)
{
    struct dial *dial = arg;
    (void)ns;
    dial->open = true;
    bm_timer_cancel(reactor_of(dial), &dial->timer);
    bm_task_cancel(&dial->task);
    bm_known_servers_learn(dial->core, &dial->url, dial->way);
    set_peer(dial);
    if (dial->way != BEAM_NET_HTTP2)
        free_secrets(dial); /* else requests beside the session need them too */
}

static struct bm_field authorization(const struct dial *dial)
{
    return (struct bm_field){.name = "authorization",
                             .name_len = 13,
                             .value = dial->bearer,
                             .value_len = dial->bearer_len,
                             .secret = true};
}

static int ask_beside(struct bm_net_session *ns, const char *path, const struct bm_field *fields,
                      size_t field_count, const struct bm_exchange_handlers *handlers,
                      void *handlers_arg, struct bm_exchange **ret_exchange, void *arg)
{
    struct dial *dial = arg;
    char whole[PATH_LEN];
    struct bm_field all[8];
    (void)ns;
    bm_assert(field_count < BM_ARRAY_LEN(all));
    if (!dial->usable || dial->over)
        return -ESHUTDOWN;
    snprintf(whole, sizeof(whole), "%s%s", dial->url.prefix, path);
    memcpy(all, fields, field_count * sizeof(fields[0]));
    if (dial->bearer)
        all[field_count++] = authorization(dial);
    const struct bm_connection_ask ask = {
        .method = str("POST"),
        .authority = str(dial->authority),
        .path = str(whole),
        .fields = all,
        .field_count = field_count,
        .body = true,
    };
    return bm_connection_ask(dial->connection, &ask, handlers, handlers_arg, ret_exchange);
}

static const struct bm_net_session_owner session_owner = {
    .on_answer = on_answer,
    .on_lost = on_lost,
    .on_open = on_open,
    .ask = ask_beside,
    .on_over = on_over,
};

static void on_timer(struct bm_timer *timer)
{
    struct dial *dial = bm_container_of(timer, struct dial, timer);
    if (!bm_op_idle(&dial->connect_op)) {
        bm_op_cancel(reactor_of(dial), &dial->connect_op); /* its end brings the next address */
        return;
    }
    say(dial, -ETIMEDOUT, "the server did not answer in time");
    fail(dial);
}

/* --- asking ---------------------------------------------------------------------------------- */

/* What the request of a way is made of. */
static int ask_for(struct dial *dial, struct bm_exchange **ret_exchange)
{
    bool http2 = dial->way == BEAM_NET_HTTP2, extended = dial->way == BEAM_NET_CONNECT;
    char path[PATH_LEN];
    struct bm_field fields[8];
    size_t count = 0;
    snprintf(path, sizeof(path), "%s/v1%s", dial->url.prefix, http2 ? "" : "/ws");
    if (http2) {
        fields[count++] = BM_FIELD("content-type", "application/x-beam");
        fields[count++] = BM_FIELD("beam-version", "1");
    } else {
        int r = bm_websocket_offer_init(&dial->offer, extended);
        if (r < 0)
            return r;
        memcpy(fields, dial->offer.fields, dial->offer.field_count * sizeof(fields[0]));
        count = dial->offer.field_count;
    }
    if (dial->bearer)
        fields[count++] = authorization(dial);
    const struct bm_connection_ask ask = {
        .method = str(http2      ? "POST"
                      : extended ? "CONNECT"
                                 : "GET"),
        .authority = str(dial->authority),
        .path = str(path),
        .protocol = extended ? str(BM_WEBSOCKET_UPGRADE) : (beam_str){0},
        .fields = fields,
        .field_count = count,
        .body = http2 || extended,
        .upgrade = http2 || extended ? NULL : BM_WEBSOCKET_UPGRADE,
    };
    return bm_connection_ask(dial->connection, &ask, &bm_net_session_handlers, dial->ns,
                             ret_exchange);
}

static void ask(struct dial *dial)
{
    struct bm_exchange *exchange;
    bm_timer_arm(reactor_of(dial), &dial->timer, bm_reactor_now_ns(reactor_of(dial)) + STEP_NS);
    if (dial->way == BEAM_NET_CONNECT && !bm_connection_connect_protocol(dial->connection)) {
        dial->awaits_settings = !dial->settings;
        if (dial->settings) {
            say(dial, -ENOTSUP, "the server takes no WebSocket over HTTP/2");
            fail(dial);
        }
        return;
    }
    int r = ask_for(dial, &exchange);
    if (r < 0) {
        say(dial, r, "the server cannot be asked: %s", beam_strerror(r));
        fail(dial);
        return;
    }
    r = bm_net_session_attach(dial->ns, exchange, dial->way != BEAM_NET_HTTP2);
    if (r < 0) {
        bm_exchange_reset(exchange);
        say(dial, r, "%s", beam_strerror(r));
        settle(dial, BEAM_RESOURCE_EXHAUSTED);
    }
}

/* --- the connection -------------------------------------------------------------------------- */

static void connection_open(struct bm_connection *connection, void *arg)
{
    struct dial *dial = arg;
    if (connection != dial->connection)
        return;
    dial->usable = true;
    if (bm_connection_version(connection) == 1 && dial->way != BEAM_NET_UPGRADE) {
        say(dial, -EPROTO, "the server speaks HTTP/1.1 alone");
        fail(dial); /* the upgrade then needs no connection of its own */
        return;
    }
    ask(dial);
}

static void connection_settings(struct bm_connection *connection, void *arg)
{
    struct dial *dial = arg;
    if (connection != dial->connection)
        return;
    dial->settings = true;
    if (dial->awaits_settings) {
        dial->awaits_settings = false;
        ask(dial);
    }
}

/* Another way would meet the same. */
static bool is_of_tls(int error)
{
    return error == -BEAM_ETLS_CERTIFICATE || error == -BEAM_ETLS_ALERT ||
           error == -BEAM_ETLS_PROTOCOL || error == -BEAM_ETLS_CONFIGURATION ||
           error == -BEAM_ETLS_FLOOD;
}

static void connection_close(struct bm_connection *connection, int error, const char *why,
                             void *arg)
{
    struct dial *dial = arg;
    dial->connections--;
    if (connection == dial->connection) {
        bool was_usable = dial->usable;
        dial->connection = NULL;
        dial->usable = dial->settings = dial->awaits_settings = false;
        if (!dial->open && !dial->over && !dial->settled) {
            say(dial, error < 0 ? error : -ECONNRESET, "%s",
                why[0]      ? why
                : error < 0 ? beam_strerror(error)
                            : "the server has closed the connection");
            if (!was_usable && is_of_tls(error))
                settle(dial, BEAM_UNAVAILABLE);
            else
                fail(dial);
        }
    }
    check_over(dial);
}

static const struct bm_connection_owner connection_owner = {
    .on_open = connection_open,
    .on_settings = connection_settings,
    .on_close = connection_close,
};

static void begin_connection(struct dial *dial)
{
    bool http1 = dial->way == BEAM_NET_UPGRADE;
    size_t ticket_len = 0;
    uint8_t *ticket =
        dial->both ? bm_known_servers_take_ticket(dial->core, &dial->url, &ticket_len) : NULL;
    const struct bm_tls_start start = {
        .size = sizeof(start),
        .host = dial->server_name,
        .port = dial->url.port,
        .resume = ticket,
        .resume_len = ticket_len,
    };
    const struct bm_connection_options options = {
        .core = dial->core,
        .tls = http1 ? dial->http1 : dial->both,
        .tls_start = &start,
        .http1 = http1,
        .http2 = !http1,
        .owner = &connection_owner,
        .arg = dial,
    };
    int r = bm_connection_new(&options, &dial->fd, &dial->connection);
    if (ticket) {
        explicit_bzero(ticket, ticket_len);
        bm_free(NULL, ticket, ticket_len);
    }
    if (r < 0) {
        bm_reactor_close_fd(reactor_of(dial), &dial->fd);
        say(dial, r, "%s", beam_strerror(r));
        settle(dial, BEAM_RESOURCE_EXHAUSTED);
        return;
    }
    dial->connections++;
}

static void connect_later(struct dial *dial)
{
    dial->connect_due = true;
    bm_task_queue(reactor_of(dial), &dial->task);
}

static void on_connected(struct bm_op *op, int res, uint32_t flags)
{
    struct dial *dial = bm_container_of(op, struct dial, connect_op);
    (void)flags;
    bm_timer_cancel(reactor_of(dial), &dial->timer);
    if (res == 0 && !dial->over) {
        begin_connection(dial);
        return;
    }
    bm_reactor_close_fd(reactor_of(dial), &dial->fd);
    if (dial->over) {
        check_over(dial);
        return;
    }
    if (res == -ECANCELED)
        res = -ETIMEDOUT;
    say(dial, res, "%s", beam_strerror(res));
    connect_later(dial);
}

static void connect_next(struct dial *dial)
{
    if (dial->address_next == dial->address_count) {
        settle(dial, BEAM_UNAVAILABLE); /* with what the last one said */
        return;
    }
    const struct bm_socket_address *address = &dial->addresses[dial->address_next++];
    int r = bm_socket_new(address, &dial->fd);
    if (r < 0) {
        say(dial, r, "%s", beam_strerror(r));
        connect_later(dial);
        return;
    }
    dial->connect_op.fd = dial->fd;
    dial->connect_op.addr = &address->any;
    dial->connect_op.len = address->len;
    bm_op_start(reactor_of(dial), &dial->connect_op);
    if (dial->address_next < dial->address_count)
        bm_timer_arm(reactor_of(dial), &dial->timer,
                     bm_reactor_now_ns(reactor_of(dial)) + ADDRESS_NS);
}

static void on_resolved(int error, const struct bm_socket_address *addresses, unsigned count,
                        void *arg)
{
    struct dial *dial = arg;
    dial->resolve = NULL;
    if (error < 0) {
        say(dial, error, "%s: %s", dial->url.host,
            error == -ENOENT ? "there is no such name" : beam_strerror(error));
        settle(dial, BEAM_UNAVAILABLE);
        return;
    }
    memcpy(dial->addresses, addresses, count * sizeof(*addresses));
    dial->address_count = count;
    connect_later(dial);
}

/* --- the ladder ------------------------------------------------------------------------------ */

/* Whether the connection there is can carry the next way. */
static bool carries(const struct dial *dial, enum beam_net_way way)
{
    unsigned version = dial->usable ? bm_connection_version(dial->connection) : 0;
    return way == BEAM_NET_UPGRADE ? version == 1 : version == 2;
}

static enum beam_net_way first_of(unsigned ways)
{
    enum beam_net_way way = BEAM_NET_HTTP2;
    while (!(ways & 1u << way))
        way++;
    return way;
}

static void next_way(struct dial *dial)
{
    enum beam_net_way last = dial->way;
    bool http2 = dial->usable && bm_connection_version(dial->connection) == 2;
    bm_net_session_detach(dial->ns);
    dial->ways &= ~(1u << last);
    /* A server that is no HTTP/2 has nothing inside it. */
    if (last == BEAM_NET_HTTP2 && !http2)
        dial->ways &= ~(1u << BEAM_NET_CONNECT);
    if (bm_known_servers_way(dial->core, &dial->url) == last)
        bm_known_servers_learn(dial->core, &dial->url, BEAM_NET_ANY);
    if (dial->ways == 0) {
        give_up(dial);
        return;
    }
    dial->way = first_of(dial->ways);
    if (carries(dial, dial->way)) {
        ask(dial);
        return;
    }
    leave_connection(dial);
    dial->address_next = 0;
    connect_next(dial);
}

static void run(struct bm_task *task)
{
    struct dial *dial = bm_container_of(task, struct dial, task);
    bool failed = dial->failed, connect_due = dial->connect_due;
    beam_session *session = bm_session_ref(&dial->ns->session);
    dial->failed = dial->connect_due = false;
    if (failed || dial->settled)
        bm_timer_cancel(reactor_of(dial), &dial->timer);
    if (dial->settled)
        give_up(dial);
    else if (failed)
        next_way(dial);
    else if (connect_due)
        connect_next(dial);
    bm_session_unref(session);
}

/* --- beginning ------------------------------------------------------------------------------- */

static struct bm_tls_bytes bytes_of(const struct beam_pem *pem)
{
    return (struct bm_tls_bytes){pem->path, pem->data, pem->len};
}

static int make_tls(struct dial *dial, const struct beam_net_connect *net)
{
    static const char *const both[] = {"h2", "http/1.1", NULL}, *const http1[] = {"http/1.1", NULL};
    char why[BM_TLS_WHY_LEN] = "";
    struct bm_tls_options options = {
        .size = sizeof(options),
        .role = BM_TLS_CLIENT,
        .chain = bytes_of(&net->certificate),
        .key = bytes_of(&net->key),
        .ca = bytes_of(&net->ca),
        .crl = bytes_of(&net->crl),
        .alpn = both,
        .tls12 = net->tls12,
    };
    int r = 0;
    if (dial->ways & ~(1u << BEAM_NET_UPGRADE))
        r = bm_tls_context_new(&dial->both, &options, why);
    options.alpn = http1;
    if (r == 0 && (dial->ways & 1u << BEAM_NET_UPGRADE))
        r = bm_tls_context_new(&dial->http1, &options, why);
    if (r < 0)
        bm_core_log(dial->core, BEAM_LOG_WARNING, "https://%s: %s", dial->authority,
                    why[0] ? why : beam_strerror(r));
    return r;
}

static int keep_token(struct dial *dial, const char *token)
{
    size_t len = token ? strlen(token) : 0;
    if (len == 0)
        return 0;
    if (len > TOKEN_LEN_MAX || !bm_field_is_value(token, len))
        return -EINVAL;
    dial->bearer_len = sizeof(BEARER) - 1 + len;
    dial->bearer = bm_alloc(NULL, dial->bearer_len + 1);
    if (!dial->bearer)
        return -ENOMEM;
    snprintf(dial->bearer, dial->bearer_len + 1, BEARER "%s", token);
    return 0;
}

static int choose_ways(struct dial *dial, enum beam_net_way way)
{
    if (way > BEAM_NET_UPGRADE ||
        (dial->url.websocket && way != BEAM_NET_ANY && way != BEAM_NET_UPGRADE))
        return -EINVAL;
    dial->ways = way != BEAM_NET_ANY   ? 1u << way
                 : dial->url.websocket ? 1u << BEAM_NET_UPGRADE
                                       : WAY_BITS;
    dial->way = bm_known_servers_way(dial->core, &dial->url);
    if (!(dial->ways & 1u << dial->way))
        dial->way = first_of(dial->ways);
    return 0;
}

static int init(struct dial *dial, const struct beam_net_connect *net)
{
    const char *name = net->server_name ? net->server_name : dial->url.host;
    bm_url_authority(&dial->url, dial->authority);
    if (strlen(name) > BM_TLS_HOST_MAX)
        return -EINVAL;
    strcpy(dial->server_name, name);
    if (!dial->url.secure && (net->certificate.path || net->certificate.len > 0 || net->ca.path ||
                              net->ca.len > 0 || net->server_name))
        return -EINVAL;
    int r = choose_ways(dial, net->way);
    if (r == 0)
        r = keep_token(dial, net->token);
    if (r == 0 && dial->url.secure)
        r = make_tls(dial, net);
    return r;
}

static void dial_freep(struct dial **dial)
{
    if (!*dial)
        return;
    free_secrets(*dial);
    bm_tls_context_unref((*dial)->both);
    bm_tls_context_unref((*dial)->http1);
    bm_free(NULL, *dial, sizeof(**dial));
}

int bm_net_connect(struct bm_core *core, const struct bm_url *url,
                   const struct beam_connect_options *options, beam_session **ret_session)
{
    struct beam_net_connect net;
    struct bm_net_session *ns;
    int r = bm_options_read(&net, sizeof(net), options ? options->net : NULL);
    if (r < 0)
        return r;
    BM_CLEANUP(dial_freep) struct dial *dial = bm_alloc_zero(NULL, sizeof(*dial));
    if (!dial)
        return -ENOMEM;
    dial->core = core;
    dial->url = *url;
    dial->fd = -1;
    dial->task.fn = run;
    bm_timer_init(&dial->timer, on_timer);
    bm_op_init(&dial->connect_op, BM_OP_CONNECT, on_connected);
    r = init(dial, &net);
    if (r == 0)
        r = bm_net_session_new(core, true, &ns);
    if (r < 0)
        return r;
    r = bm_resolve_start(core, url, on_resolved, dial, &dial->resolve);
    if (r < 0) {
        bm_session_lost(&ns->session, BEAM_UNAVAILABLE, beam_strerror(r));
        return r;
    }
    dial->ns = ns;
    bm_session_ref(&ns->session);
    ns->owner = &session_owner;
    ns->owner_arg = dial;
    *ret_session = &ns->session;
    bm_take_ptr(dial);
    return 0;
}
