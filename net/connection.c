/* A connection: which HTTP is spoken on a link, who owns it, how long it lives.
 *
 * Model. The link brings bytes and time; the version (http1_connection.c, http2_connection.c) makes
 * exchanges of them. What is asked for here is noted and done in the loop: draining and closing in the
 * task of the turn, and everything that ends in `settle`, when nothing of an engine is under way.
 *
 *     not known ── ALPN, the first bytes, or an option ──> a version ──> failing ──> ended ──> gone
 *
 * Invariants: `error` is the reason for the end, the first there was; exchanges are closed when it has
 * ended, and what is held goes on without it. */
#include "net/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <beam/error.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "net/connection_inner.h"
#include "net/memory_budget.h"

void bm_connection_fail(struct bm_connection *connection, int error)
{
    if (connection->failing)
        return;
    connection->failing = true;
    connection->error = error;
    const char *why = connection->link.tls ? bm_tls_why(connection->link.tls) : "";
    if (error < 0)
        snprintf(connection->why, sizeof(connection->why), "%s",
                 why[0] ? why : beam_strerror(error));
}

int bm_connection_loss(const struct bm_connection *connection)
{
    return connection->error < 0 ? connection->error : -ECANCELED;
}

/* ---- which HTTP it is ---- */

static int begin(struct bm_connection *connection, const struct bm_version *version)
{
    connection->version = version;
    connection->first_until_ns = UINT64_MAX;
    if (connection->server)
        connection->idle_until_ns =
            bm_clock_after(bm_connection_now_ns(connection), BM_CONNECTION_IDLE_NS);
    int r = version->begin(connection);
    if (r < 0) {
        connection->version = NULL;
        bm_connection_fail(connection, r);
        return r;
    }
    if (connection->drain_due)
        bm_link_flush(&connection->link);
    return 0;
}

static void on_secure(struct bm_link *link)
{
    struct bm_tls_facts facts;
    bm_tls_facts(link->tls, &facts);
    (void)begin(bm_connection_of(link),
                strcmp(facts.alpn, "h2") == 0 ? &bm_version_http2 : &bm_version_http1);
}

/* Until the first bytes differ from a preface they may be one. */
static size_t take_first(struct bm_connection *connection, const uint8_t *bytes, size_t len)
{
    size_t n = 0;
    while (n < len && !connection->version && !connection->failing) {
        connection->first[connection->first_len++] = bytes[n++];
        int is = bm_h2_is_preface(connection->first, connection->first_len);
        if (is != -EAGAIN)
            (void)begin(connection, is == 1 ? &bm_version_http2 : &bm_version_http1);
    }
    return n;
}

/* Both versions take this much at once. */
static void give_first(struct bm_connection *connection)
{
    size_t len = connection->first_len;
    connection->first_len = 0;
    if (len > 0)
        (void)connection->version->receive(connection, connection->first, len);
}

static size_t on_bytes(struct bm_link *link, const uint8_t *bytes, size_t len)
{
    struct bm_connection *connection = bm_connection_of(link);
    size_t n = 0;
    if (connection->ended)
        return len;
    if (!connection->version) {
        n = take_first(connection, bytes, len);
        if (!connection->version)
            return n;
        give_first(connection);
    }
    if (n < len && !connection->failing)
        n += connection->version->receive(connection, bytes + n, len - n);
    bm_link_flush(link);
    return connection->failing ? len : n;
}

static void on_end(struct bm_link *link, int error)
{
    struct bm_connection *connection = bm_connection_of(link);
    if (connection->ended)
        return;
    bool whole = connection->open == 0 && connection->version;
    if (error == 0 && connection->version)
        connection->version->receive_end(connection);
    else if (error == 0)
        bm_connection_fail(connection, connection->first_len > 0 ? -BEAM_EHTTP_CUT : 0);
    else if (error == -BEAM_ETLS_CUT && whole)
        bm_connection_fail(connection, 0); /* many do not say it, and nothing is missing */
    else
        bm_connection_fail(connection, error);
}

static const uint8_t *output(struct bm_link *link, size_t *ret_len)
{
    struct bm_connection *connection = bm_connection_of(link);
    *ret_len = 0;
    return connection->version ? connection->version->output(connection, ret_len) : NULL;
}

static size_t output_len(struct bm_link *link)
{
    struct bm_connection *connection = bm_connection_of(link);
    return connection->version ? connection->version->output_len(connection) : 0;
}

static void output_ack(struct bm_link *link, size_t len)
{
    struct bm_connection *connection = bm_connection_of(link);
    connection->version->output_ack(connection, len);
}

/* ---- its course ---- */

static void end(struct bm_connection *connection)
{
    bool broken = false;
    if (connection->version)
        broken = connection->version->end(connection);
    connection->ended = true;
    /* What is broken says nothing more: its exchange, whom it would be asked for, is gone. */
    if (connection->told && !broken)
        bm_link_abort(&connection->link, true);
    else
        bm_link_close(&connection->link, broken);
}

static void on_turn(struct bm_link *link)
{
    struct bm_connection *connection = bm_connection_of(link);
    if (connection->ended)
        return;
    if (connection->reset_due)
        bm_connection_fail(connection, -ECANCELED);
    if (connection->close_due)
        bm_connection_fail(connection, 0);
    if (connection->drain_due && connection->version && !connection->draining) {
        connection->draining = true;
        connection->version->drain(connection);
    } else if (connection->drain_due && !connection->version && connection->server && !link->tls &&
               connection->first_len == 0) {
        bm_connection_fail(connection, 0); /* nobody has said anything */
    }
    if (connection->failing)
        end(connection); /* before anything else is said */
}

static void settle(struct bm_link *link)
{
    struct bm_connection *connection = bm_connection_of(link);
    if (connection->ended)
        return;
    if (!connection->server && connection->version && !connection->opened && !connection->failing &&
        link->secure) {
        connection->opened = true;
        if (connection->owner->on_open)
            connection->owner->on_open(connection, connection->arg);
    }
    if (link->phase == BM_LINK_GONE)
        bm_connection_fail(connection, link->end_error < 0    ? link->end_error
                                       : link->mute_error < 0 ? link->mute_error
                                                              : -ECONNRESET);
    if (connection->version && !connection->failing)
        connection->version->settle(connection);
    if (connection->failing)
        end(connection);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_ns(struct bm_link *link)
{
    struct bm_connection *connection = bm_connection_of(link);
    uint64_t next = earlier(connection->first_until_ns, connection->idle_until_ns);
    if (!connection->version)
        return next;
    if (connection->open > 0 && connection->look_ns == UINT64_MAX)
        connection->look_ns =
            bm_clock_after(bm_connection_now_ns(connection), BM_CONNECTION_LOOK_NS);
    next = earlier(next, connection->look_ns);
    return earlier(next, connection->version->next_ns(connection));
}

static void on_tick(struct bm_link *link, uint64_t now_ns)
{
    struct bm_connection *connection = bm_connection_of(link);
    if (connection->ended)
        return;
    if (connection->first_until_ns <= now_ns) {
        connection->first_until_ns = UINT64_MAX;
        bm_connection_fail(connection, -ETIMEDOUT);
    }
    if (connection->idle_until_ns <= now_ns) {
        connection->idle_until_ns = UINT64_MAX;
        bm_connection_drain(connection);
    }
    if (connection->version && !connection->failing)
        connection->version->tick(connection, now_ns);
    if (connection->look_ns <= now_ns)
        connection->look_ns = UINT64_MAX;
    bm_link_flush(link);
}

static void on_idle(struct bm_link *link)
{
    struct bm_connection *connection = bm_connection_of(link);
    if (connection->version)
        connection->version->trim(connection);
}

/* ---- its end ---- */

static void free_connection(struct bm_connection *connection)
{
    struct bm_list *node;
    while ((node = bm_list_front(&connection->exchanges)))
        bm_exchange_orphan(bm_list_entry(node, struct bm_exchange, node));
    if (connection->version)
        connection->version->free(connection);
    bm_tls_free(connection->link.tls);
    bm_peer_texts_unref(connection->peer_texts);
    struct bm_account account = connection->account;
    bm_free(&account, connection, sizeof(*connection));
}

static void on_gone(struct bm_link *link)
{
    struct bm_connection *connection = bm_connection_of(link);
    struct bm_core *core = link->core;
    if (connection->owner->on_close)
        connection->owner->on_close(connection, connection->error, connection->why,
                                    connection->arg);
    bm_list_unlink(&connection->dependent.node);
    free_connection(connection);
    bm_memory_tell(core);
    bm_core_check_quiet(core);
}

static const struct bm_link_events events = {
    .on_secure = on_secure,
    .on_bytes = on_bytes,
    .on_end = on_end,
    .output = output,
    .output_ack = output_ack,
    .output_len = output_len,
    .on_turn = on_turn,
    .settle = settle,
    .next_ns = next_ns,
    .on_tick = on_tick,
    .on_idle = on_idle,
    .on_gone = on_gone,
};

static void drain_dependent(struct bm_dependent *dependent)
{
    bm_connection_drain(bm_container_of(dependent, struct bm_connection, dependent));
}

static void end_dependent(struct bm_dependent *dependent)
{
    struct bm_connection *connection = bm_container_of(dependent, struct bm_connection, dependent);
    connection->told = true;
    if (connection->ended)
        bm_link_abort(&connection->link, true);
    bm_connection_close(connection);
}

static bool spare_dependent(struct bm_dependent *dependent, uint64_t idle_ns)
{
    struct bm_connection *connection = bm_container_of(dependent, struct bm_connection, dependent);
    uint64_t until_ns = connection->idle_until_ns; /* of a server's without exchanges */
    if (until_ns == UINT64_MAX || connection->close_due || connection->ended ||
        bm_connection_now_ns(connection) < until_ns - BM_CONNECTION_IDLE_NS + idle_ns)
        return false;
    bm_connection_close(connection);
    return true;
}

static const struct bm_dependent_calls dependent_calls = {drain_dependent, end_dependent,
                                                          spare_dependent};

/* ---- its beginning ---- */

static void find_address(struct bm_connection *connection, int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_storage room;
    } peer;
    socklen_t len = sizeof(peer);
    char text[INET6_ADDRSTRLEN] = "";
    char *to = connection->address;
    if (getpeername(fd, &peer.any, &len) < 0)
        return;
    if (peer.any.sa_family == AF_UNIX)
        snprintf(to, sizeof(connection->address), "unix");
    else if (peer.any.sa_family == AF_INET)
        snprintf(to, sizeof(connection->address), "%s:%u",
                 inet_ntop(AF_INET, &peer.in.sin_addr, text, sizeof(text)),
                 ntohs(peer.in.sin_port));
    else if (peer.any.sa_family == AF_INET6)
        snprintf(to, sizeof(connection->address), "[%s]:%u",
                 inet_ntop(AF_INET6, &peer.in6.sin6_addr, text, sizeof(text)),
                 ntohs(peer.in6.sin6_port));
}

static void freep(struct bm_connection **connection)
{
    if (*connection)
        free_connection(*connection);
}

int bm_connection_new(const struct bm_connection_options *options, int *fd,
                      struct bm_connection **ret_connection)
{
    struct bm_core *core = options->core;
    struct bm_account account = {.parent = &core->networks.account};
    BM_CLEANUP(freep)
    struct bm_connection *connection = bm_alloc_zero(&account, sizeof(*connection));
    if (!connection)
        return -ENOMEM;
    connection->account = account;
    connection->owner = options->owner;
    connection->arg = options->arg;
    connection->server = options->server;
    connection->link.core = core;
    connection->first_until_ns = connection->idle_until_ns = connection->look_ns = UINT64_MAX;
    bm_list_init(&connection->exchanges);
    find_address(connection, *fd);
    if (!options->tls && !options->server) {
        connection->version = options->http2 ? &bm_version_http2 : &bm_version_http1;
    } else if (!options->tls) {
        connection->first_until_ns =
            bm_clock_after(bm_connection_now_ns(connection), BM_CONNECTION_FIRST_NS);
    }
    const struct bm_link_options link = {
        .core = core,
        .account = &connection->account,
        .events = &events,
        .tls = options->tls,
        .tls_start = options->tls_start,
        .early = options->early,
        .early_len = options->early_len,
    };
    int r = bm_link_init(&connection->link, &link, fd);
    if (r < 0) {
        connection->version = NULL;
        return r;
    }
    connection->dependent.calls = &dependent_calls;
    bm_list_push_back(&core->dependents, &connection->dependent.node);
    if (connection->version)
        (void)begin(connection, connection->version);
    if (core->stopping)
        bm_connection_drain(connection);
    *ret_connection = bm_take_ptr(connection);
    return 0;
}

/* ---- what the owner may ask for ---- */

int bm_connection_ask(struct bm_connection *connection, const struct bm_connection_ask *ask,
                      const struct bm_exchange_handlers *handlers, void *arg,
                      struct bm_exchange **ret_exchange)
{
    if (connection->failing || connection->ended || connection->close_due || connection->drain_due)
        return -ESHUTDOWN;
    if (connection->server || (ask->body && !handlers->read))
        return -EINVAL;
    if (!connection->version)
        return -EAGAIN;
    struct bm_exchange *exchange = bm_exchange_new(connection);
    if (!exchange)
        return -ENOMEM;
    bm_exchange_take(exchange, handlers, arg);
    exchange->upgrade = ask->upgrade != NULL;
    int r = connection->version->ask(connection, ask, exchange);
    if (r < 0) {
        bm_exchange_discard(exchange);
        return r;
    }
    bm_link_flush(&connection->link);
    *ret_exchange = exchange;
    return 0;
}

void bm_connection_drain(struct bm_connection *connection)
{
    if (connection->ended)
        return;
    connection->drain_due = true;
    bm_link_flush(&connection->link);
}

void bm_connection_close(struct bm_connection *connection)
{
    if (connection->ended)
        return;
    connection->close_due = true;
    bm_link_flush(&connection->link);
}

unsigned bm_connection_version(const struct bm_connection *connection)
{
    return connection->version ? connection->version->number : 0;
}

bool bm_connection_connect_protocol(const struct bm_connection *connection)
{
    return connection->h2 && bm_h2_connect_protocol(connection->h2);
}

bool bm_connection_secure(const struct bm_connection *connection)
{
    return connection->link.tls != NULL;
}

const struct bm_tls *bm_connection_tls(const struct bm_connection *connection)
{
    return connection->link.tls;
}

struct bm_peer_texts **bm_connection_peer_texts(struct bm_connection *connection)
{
    return &connection->peer_texts;
}

const char *bm_connection_address(const struct bm_connection *connection)
{
    return connection->address;
}

struct bm_core *bm_connection_core(const struct bm_connection *connection)
{
    return connection->link.core;
}

struct bm_account *bm_connection_account(struct bm_connection *connection)
{
    return &connection->account;
}
