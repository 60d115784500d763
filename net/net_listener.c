/* See net_listener.h. One *gate* a core: what that core needs to make connections of sockets.
 *
 *     TCP            each gate accepts from a socket of its own, which share a port (SO_REUSEPORT)
 *     a socket file  gate 0 accepts, and deals the sockets out, as unix_transport.c does
 *
 * Who owns what. The listener is core 0's, a gate its core's from the moment it is told to open until it
 * has said that it is shut; all it hears comes from core 0, in order, by mail, and "shut" is the last of
 * it. The listener goes when all gates have shut. Connections go on without it: what they need is the
 * server's, of which each has a reference.
 *
 * Ticket keys are the listener's: made anew each hour and given to all gates, so that a client comes back
 * to any core. */
#include "net/net_listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <beam/net.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "net/memory_budget.h"
#include "net/resolve.h"
#include "net/server.h"
#include "net/stream_socket.h"
#include "net/url.h"
#include "runtime/acceptor.h"
#include "runtime/core.h"
#include "runtime/listener.h"
#include "runtime/options.h"
#include "runtime/runtime.h"
#include "runtime/unix_socket.h"

#define KEYS_RENEWED_NS (3600 * BM_NS_PER_S) /* ours; tls.h: a key lives for two of them */
#define KEYS_RETRY_NS (60 * BM_NS_PER_S)     /* ours: there was no memory */
#define START_WAIT_NS (10 * BM_NS_PER_S)     /* ours; it takes milliseconds */
#define EARLY_LEN_MAX (64u << 10)            /* <beam/net.h>, beam_net_adopt */
#define REAL_URL_LEN 400u /* a scheme, an authority, a prefix; their limits are less */

struct net_listener;

struct gate {
    struct net_listener *owner;
    struct bm_core *core;
    bool accepts; /* has a socket */
    bool open;    /* its core has begun */
    struct bm_acceptor acceptor;
    struct bm_tls_context *tls; /* NULL: none */
};

struct net_listener {
    struct bm_listener listener;
    struct bm_server *server;
    struct bm_unix_address file; /* inherited_fd -2: there is none */
    struct bm_tls_ticket_key keys[BM_TLS_TICKET_KEYS];
    bool secure;
    bool spread; /* the other cores know */
    struct bm_task spread_task;
    struct bm_timer keys_timer;
    unsigned next_gate, gates_shut, gate_count;
    struct gate gates[];
};

static struct net_listener *listener_of(struct bm_listener *listener)
{
    return bm_container_of(listener, struct net_listener, listener);
}

/* --- connections ----------------------------------------------------------------------------- */

/* One connection, while it lasts. */
struct visit {
    struct bm_server *server;
    struct bm_address_key key;
    bool counted;
};

static void visit_end(struct visit *visit)
{
    if (visit->counted)
        bm_address_limits_leave(&visit->server->addresses, &visit->key);
    bm_server_unref(visit->server);
    bm_free(NULL, visit, sizeof(*visit));
}

static void on_request(struct bm_connection *connection, struct bm_exchange *exchange,
                       const struct bm_exchange_request *request, void *arg)
{
    const struct visit *visit = arg;
    bm_server_on_request(connection, exchange, request, visit->server);
}

static void on_close(struct bm_connection *connection, int error, const char *why, void *arg)
{
    if (error < 0)
        bm_core_log(bm_connection_core(connection), BEAM_LOG_INFO, "%s: %s",
                    bm_connection_address(connection), why);
    visit_end(arg);
}

static const struct bm_connection_owner owner = {
    .on_request = on_request,
    .on_close = on_close,
};

/* The address of a peer has room for him, or he is known not to have been counted. */
static int admit(struct gate *gate, struct visit *visit, int fd)
{
    struct bm_socket_address address;
    struct ucred user = {.uid = UINT32_MAX};
    socklen_t len = sizeof(user);
    uint64_t refused = 0;
    int r = bm_socket_peer(fd, &address);
    if (r < 0)
        return r; /* it has gone again */
    if (address.any.sa_family == AF_UNIX &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &len) < 0)
        return -errno;
    bm_address_key(&address, user.uid, &visit->key);
    r = bm_address_limits_enter(&visit->server->addresses, &visit->key,
                                bm_reactor_now_ns(gate->core->reactor), &refused);
    visit->counted = r == 0;
    if (r == -EAGAIN && (refused & (refused - 1)) == 0) { /* now and then */
        char text[BM_SOCKET_TEXT_LEN];
        bm_socket_text(&address, text);
        bm_core_log(gate->core, BEAM_LOG_WARNING,
                    "%s: too many connections from one address (%s); refused so far: %llu",
                    gate->owner->listener.url, text, (unsigned long long)refused);
    }
    return r;
}

static int begin_connection(struct gate *gate, int *fd, bool limited, const void *early,
                            size_t early_len)
{
    struct bm_connection *connection;
    if (gate->core->stopping)
        return -ESHUTDOWN;
    struct visit *visit = bm_alloc_zero(NULL, sizeof(*visit));
    if (!visit)
        return -ENOMEM;
    visit->server = bm_server_ref(gate->owner->server);
    const struct bm_connection_options options = {
        .core = gate->core,
        .server = true,
        .tls = gate->tls,
        .early = early,
        .early_len = early_len,
        .owner = &owner,
        .arg = visit,
    };
    int r = 0;
    if (bm_memory_look(gate->core, visit->server->memory_max) == BM_MEMORY_OUT)
        r = -ENOBUFS; /* who is here already asks the others to come back */
    if (r == 0 && limited)
        r = admit(gate, visit, *fd);
    if (r == 0)
        r = bm_connection_new(&options, fd, &connection);
    if (r < 0)
        visit_end(visit);
    return r;
}

/* A socket that somebody has accepted, on its way to a gate. */
struct arrival {
    struct gate *gate;
    int fd;
    bool limited;
    uint32_t early_len;
    uint8_t early[];
};

static void take(struct gate *gate, int fd, bool limited, const void *early, size_t early_len)
{
    if (begin_connection(gate, &fd, limited, early, early_len) < 0)
        bm_reactor_close_fd(gate->core->reactor, &fd);
}

static void take_arrival(void *arg)
{
    struct arrival *arrival = arg;
    take(arrival->gate, arrival->fd, arrival->limited, arrival->early, arrival->early_len);
    bm_free(NULL, arrival, sizeof(*arrival) + arrival->early_len);
}

/* Core 0: the gate whose turn it is. */
static struct gate *next_gate(struct net_listener *nl)
{
    return nl->spread ? &nl->gates[nl->next_gate++ % nl->gate_count] : &nl->gates[0];
}

static void deal(struct net_listener *nl, int fd)
{
    struct gate *gate = next_gate(nl);
    struct arrival *arrival = NULL;
    if (gate != &nl->gates[0])
        arrival = bm_alloc(NULL, sizeof(*arrival));
    if (arrival) {
        *arrival = (struct arrival){.gate = gate, .fd = fd, .limited = true};
        if (bm_mailbox_post(gate->core->reactor, take_arrival, arrival) == 0)
            return;
        bm_free(NULL, arrival, sizeof(*arrival));
    }
    take(&nl->gates[0], fd, true, NULL, 0); /* or where it came in, when the other has no room */
}

/* --- gates ----------------------------------------------------------------------------------- */

static void listener_release(struct net_listener *nl);

static void gate_is_shut(void *arg)
{
    struct net_listener *nl = arg;
    struct bm_core *core = nl->listener.core;
    if (++nl->gates_shut < nl->gate_count)
        return;
    listener_release(nl);
    bm_core_check_quiet(core);
}

/* A gate has shut, or never opened. */
static void tell_shut(struct gate *gate)
{
    struct net_listener *nl = gate->owner;
    struct bm_core *first = nl->listener.core;
    gate->tls = bm_tls_context_unref(gate->tls); /* here: its connections count on it too (tls.h) */
    if (gate->core == first)
        gate_is_shut(nl);
    else
        (void)bm_runtime_post(first, gate_is_shut, nl); /* it waits for us */
}

static void on_socket(struct bm_acceptor *acceptor, int fd)
{
    struct gate *gate = bm_container_of(acceptor, struct gate, acceptor);
    if (gate->owner->file.inherited_fd == -1)
        deal(gate->owner, fd);
    else
        take(gate, fd, true, NULL, 0);
}

static void on_stopped(struct bm_acceptor *acceptor)
{
    tell_shut(bm_container_of(acceptor, struct gate, acceptor));
}

static const struct bm_acceptor_events acceptor_events = {
    .on_socket = on_socket,
    .on_stopped = on_stopped,
};

static void gate_open(void *arg)
{
    struct gate *gate = arg;
    gate->open = true;
    if (gate->accepts)
        bm_acceptor_start(&gate->acceptor, gate->core);
}

static void gate_shut(void *arg)
{
    struct gate *gate = arg;
    if (gate->accepts && gate->open)
        bm_acceptor_stop(&gate->acceptor);
    else
        tell_shut(gate);
}

/* Core 0: has a gate do something on its core, in order. -ESHUTDOWN: that core has ended, before its
 * time, and the gate with it. */
static int tell(struct gate *gate, void (*fn)(void *arg), void *arg)
{
    if (gate != &gate->owner->gates[0])
        return bm_runtime_post(gate->core, fn, arg);
    fn(arg);
    return 0;
}

/* --- certificates and keys ------------------------------------------------------------------- */

/* On its way to a gate: new keys, and perhaps a new context, which goes over. */
struct renewal {
    struct gate *gate;
    struct bm_tls_context *tls;
    struct bm_tls_ticket_key keys[BM_TLS_TICKET_KEYS];
};

static void renewal_free(struct renewal *renewal)
{
    bm_tls_context_unref(renewal->tls);
    explicit_bzero(renewal->keys, sizeof(renewal->keys));
    bm_free(NULL, renewal, sizeof(*renewal));
}

static void gate_renew(void *arg)
{
    struct renewal *renewal = arg;
    struct gate *gate = renewal->gate;
    if (renewal->tls) {
        bm_tls_context_unref(gate->tls);
        gate->tls = bm_take_ptr(renewal->tls);
    }
    bm_tls_context_ticket_keys(gate->tls, renewal->keys);
    renewal_free(renewal);
}

/* All gates, or none for want of memory. contexts: one for each, taken on success; NULL: the old ones. */
static int renew(struct net_listener *nl, struct bm_tls_context **contexts)
{
    struct renewal *renewals[BEAM_REACTORS_MAX];
    for (unsigned i = 0; i < nl->gate_count; i++) {
        renewals[i] = bm_alloc_zero(NULL, sizeof(*renewals[i]));
        if (renewals[i])
            continue;
        while (i > 0)
            renewal_free(renewals[--i]);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < nl->gate_count; i++) {
        renewals[i]->gate = &nl->gates[i];
        renewals[i]->tls = contexts ? bm_take_ptr(contexts[i]) : NULL;
        memcpy(renewals[i]->keys, nl->keys, sizeof(nl->keys));
        if (!nl->spread)
            gate_renew(renewals[i]);
        else if (tell(&nl->gates[i], gate_renew, renewals[i]) < 0)
            renewal_free(renewals[i]);
    }
    return 0;
}

static void on_keys_due(struct bm_timer *timer)
{
    struct net_listener *nl = bm_container_of(timer, struct net_listener, keys_timer);
    struct bm_reactor *reactor = nl->listener.core->reactor;
    struct bm_tls_ticket_key before[BM_TLS_TICKET_KEYS];
    uint64_t wait_ns = KEYS_RENEWED_NS;
    memcpy(before, nl->keys, sizeof(before));
    nl->keys[2] = before[0];
    nl->keys[0] = before[1];
    bm_random(&nl->keys[1], sizeof(nl->keys[1]));
    if (renew(nl, NULL) < 0) {
        memcpy(nl->keys, before, sizeof(before));
        wait_ns = KEYS_RETRY_NS;
    }
    explicit_bzero(before, sizeof(before));
    bm_timer_arm(reactor, &nl->keys_timer, bm_clock_after(bm_reactor_now_ns(reactor), wait_ns));
}

static struct bm_tls_bytes bytes_of(const struct beam_pem *pem)
{
    return (struct bm_tls_bytes){.path = pem->path, .data = pem->data, .len = pem->len};
}

static void free_contexts(struct bm_tls_context **contexts, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        contexts[i] = bm_tls_context_unref(contexts[i]);
}

/* count contexts, or none. */
static int make_contexts(const struct beam_net_listen *options, unsigned count,
                         struct bm_tls_context **ret_contexts, char *ret_why)
{
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    const struct bm_tls_options tls = {
        .size = sizeof(tls),
        .role = BM_TLS_SERVER,
        .chain = bytes_of(&options->certificate),
        .key = bytes_of(&options->key),
        .ca = bytes_of(&options->client_ca),
        .crl = bytes_of(&options->crl),
        .alpn = alpn,
        .client_certificate = options->client_ca.path || options->client_ca.data,
        .tls12 = options->tls12,
    };
    for (unsigned i = 0; i < count; i++) {
        int r = bm_tls_context_new(&ret_contexts[i], &tls, ret_why);
        if (r == 0)
            continue;
        free_contexts(ret_contexts, i);
        return r;
    }
    return 0;
}

/* --- listening ------------------------------------------------------------------------------- */

static void say_why(beam_runtime *runtime, const char *url, const char *why)
{
    if (why[0])
        bm_core_log(&runtime->cores[0], BEAM_LOG_ERROR, "%s: %s", url, why);
}

static bool is_pem(const struct beam_pem *pem)
{
    return pem->path || pem->data;
}

/* What has to be there for a URL with TLS, and may not for another. */
static int check_options(const struct bm_url *url, const struct beam_net_listen *net, char *ret_why)
{
    if (url->secure && (!is_pem(&net->certificate) || !is_pem(&net->key))) {
        snprintf(ret_why, BM_TLS_WHY_LEN, "TLS needs a certificate and its key");
        return -EINVAL;
    }
    if (!url->secure && (is_pem(&net->certificate) || is_pem(&net->key) ||
                         is_pem(&net->client_ca) || is_pem(&net->crl) || net->tls12)) {
        snprintf(ret_why, BM_TLS_WHY_LEN, "certificates are for https: and wss:");
        return -EINVAL;
    }
    return 0;
}

static int open_file(struct net_listener *nl, const struct bm_url *url, unsigned mode)
{
    struct bm_unix_address file = {.sun = url->sun, .len = url->sun_len, .inherited_fd = -1};
    struct bm_socket_address address;
    int fd;
    (void)bm_socket_address_of(url, &address);
    int r = bm_socket_new(&address, &fd);
    if (r < 0)
        return r;
    r = bm_unix_socket_listen_on(fd, &file, mode ? mode : 0600);
    if (r < 0) {
        close(fd);
        return r;
    }
    nl->file = file;
    nl->gates[0].accepts = true;
    bm_acceptor_init(&nl->gates[0].acceptor, &acceptor_events, "", &fd);
    return 0;
}

static int set_real_url(struct net_listener *nl, struct bm_url *url, uint16_t port)
{
    static const char *const schemes[] = {
        [BM_URL_HTTPS] = "https", [BM_URL_HTTP] = "http", [BM_URL_WSS] = "wss", [BM_URL_WS] = "ws"};
    char authority[BM_URL_AUTHORITY_LEN], text[REAL_URL_LEN];
    url->port = port;
    bm_url_authority(url, authority);
    int len = snprintf(text, sizeof(text), "%s://%s%s", schemes[url->scheme], authority,
                       strcmp(url->prefix, BM_URL_PREFIX) == 0 ? "" : url->prefix);
    nl->listener.real_url_len = (size_t)len;
    nl->listener.real_url = bm_alloc(NULL, (size_t)len + 1);
    if (!nl->listener.real_url)
        return -ENOMEM;
    memcpy(nl->listener.real_url, text, (size_t)len + 1);
    return 0;
}

static int open_port(struct net_listener *nl, struct bm_url *url)
{
    struct bm_socket_address address;
    int fds[BEAM_REACTORS_MAX];
    int r = bm_resolve_wait(url, &address);
    if (r == 0)
        r = bm_socket_listen(&address, nl->gate_count, fds);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < nl->gate_count; i++) {
        nl->gates[i].accepts = true;
        bm_acceptor_init(&nl->gates[i].acceptor, &acceptor_events, "", &fds[i]);
    }
    return url->port == 0 ? set_real_url(nl, url, bm_socket_port(&address)) : 0;
}

static int open_sockets(struct net_listener *nl, struct bm_url *url, unsigned mode)
{
    return url->kind == BM_URL_SOCKET_FILE ? open_file(nl, url, mode) : open_port(nl, url);
}

static int open_tls(struct net_listener *nl, const struct beam_net_listen *net, char *ret_why)
{
    struct bm_tls_context *contexts[BEAM_REACTORS_MAX];
    if (!nl->secure)
        return 0;
    int r = make_contexts(net, nl->gate_count, contexts, ret_why);
    if (r < 0)
        return r;
    bm_random(nl->keys, sizeof(nl->keys));
    for (unsigned i = 0; i < nl->gate_count; i++) {
        nl->gates[i].tls = contexts[i];
        bm_tls_context_ticket_keys(contexts[i], nl->keys);
    }
    return 0;
}

static size_t listener_len(unsigned gates)
{
    return sizeof(struct net_listener) + gates * sizeof(struct gate);
}

static void spread(struct bm_task *task)
{
    struct net_listener *nl = bm_container_of(task, struct net_listener, spread_task);
    nl->spread = true;
    for (unsigned i = 1; i < nl->gate_count; i++)
        (void)tell(&nl->gates[i], gate_open, &nl->gates[i]);
}

int bm_net_listen(beam_runtime *runtime, const char *text,
                  const struct beam_listen_options *options, struct bm_listener **ret_listener)
{
    struct bm_url url;
    struct beam_net_listen net;
    char why[BM_TLS_WHY_LEN] = "";
    const char *url_why = "";
    int r = bm_url_parse(text, &url, &url_why);
    if (r < 0) {
        say_why(runtime, text, url_why);
        return r;
    }
    r = bm_options_read(&net, sizeof(net), options->net);
    if (r == 0)
        r = check_options(&url, &net, why);
    struct net_listener *nl = NULL;
    if (r == 0 && !(nl = bm_alloc_zero(NULL, listener_len(runtime->core_count))))
        r = -ENOMEM;
    if (r == 0) {
        nl->listener.runtime = runtime;
        nl->secure = url.secure;
        nl->gate_count = runtime->core_count;
        nl->file.inherited_fd = -2;
        nl->spread_task.fn = spread;
        bm_timer_init(&nl->keys_timer, on_keys_due);
        for (unsigned i = 0; i < nl->gate_count; i++) {
            nl->gates[i].owner = nl;
            nl->gates[i].core = &runtime->cores[i];
        }
        r = bm_server_new(runtime, &url, &net, &nl->server, why);
    }
    if (r == 0)
        r = open_tls(nl, &net, why);
    if (r == 0)
        r = open_sockets(nl, &url, options->mode);
    if (r < 0) {
        say_why(runtime, text, why);
        if (nl)
            listener_release(nl);
        return r;
    }
    *ret_listener = &nl->listener;
    return 0;
}

/* All that it has; no gate is open. In a forked child the descriptors alone: the rest is its parent's. */
static void listener_release(struct net_listener *nl)
{
    bool forked = bm_runtime_forked(nl->listener.runtime);
    bm_list_unlink(&nl->listener.node);
    if (nl->file.inherited_fd == -1 && !forked)
        bm_unix_socket_unlink(&nl->file);
    for (unsigned i = 0; i < nl->gate_count; i++)
        if (nl->gates[i].accepts)
            bm_acceptor_deinit(&nl->gates[i].acceptor);
    if (forked)
        return;
    for (unsigned i = 0; i < nl->gate_count; i++)
        bm_tls_context_unref(nl->gates[i].tls);
    bm_server_unref(nl->server);
    explicit_bzero(nl->keys, sizeof(nl->keys));
    if (nl->listener.real_url)
        bm_free(NULL, nl->listener.real_url, nl->listener.real_url_len + 1);
    if (nl->listener.url)
        bm_free(NULL, nl->listener.url, nl->listener.url_len + 1);
    bm_free(NULL, nl, listener_len(nl->gate_count));
}

void bm_net_listener_free(struct bm_listener *listener)
{
    listener_release(listener_of(listener));
}

void bm_net_listener_start(struct bm_listener *listener, struct bm_core *core)
{
    struct net_listener *nl = listener_of(listener);
    listener->core = core;
    for (unsigned i = 0; i < nl->gate_count; i++)
        nl->gates[i].acceptor.name = listener->url;
    gate_open(&nl->gates[0]);
    /* From the loop, when all cores have a reactor. */
    bm_task_queue(core->reactor, &nl->spread_task);
    if (nl->secure)
        bm_timer_arm(core->reactor, &nl->keys_timer,
                     bm_clock_after(bm_reactor_now_ns(core->reactor), KEYS_RENEWED_NS));
}

void bm_net_listener_stop(struct bm_listener *listener)
{
    struct net_listener *nl = listener_of(listener);
    if (listener->closing)
        return;
    listener->closing = true;
    atomic_store_explicit(&nl->server->draining, true, memory_order_relaxed);
    bm_task_cancel(&nl->spread_task);
    bm_timer_cancel(listener->core->reactor, &nl->keys_timer);
    for (unsigned i = 0; i < nl->gate_count; i++)
        if (nl->gates[i].accepts)
            bm_acceptor_shut(&nl->gates[i].acceptor);
    /* Our own last: it may be the end of the listener. */
    for (unsigned i = nl->gate_count; i-- > 0;)
        if ((i > 0 && !nl->spread) || tell(&nl->gates[i], gate_shut, &nl->gates[i]) < 0)
            nl->gates_shut++;
}

/* --- for the application --------------------------------------------------------------------- */

static bool is_net(const struct bm_listener *listener)
{
    return listener->transport->listen == bm_net_listen;
}

struct reload {
    struct bm_tls_context *contexts[BEAM_REACTORS_MAX];
};

static int reload_here(struct bm_listener *listener, void *arg)
{
    struct reload *reload = arg;
    if (!is_net(listener) || !reload->contexts[0])
        return -ENOENT;
    return renew(listener_of(listener), reload->contexts);
}

int beam_net_reload(beam_runtime *runtime, const char *text, const struct beam_net_listen *options)
{
    struct reload reload = {{NULL}};
    struct beam_net_listen net;
    struct bm_url url;
    char why[BM_TLS_WHY_LEN] = "";
    if (!text || !options)
        return -EINVAL;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    int r = bm_options_read(&net, sizeof(net), options);
    if (r == 0)
        r = bm_url_parse(text, &url, NULL);
    if (r == 0 && !url.secure)
        r = -EINVAL;
    if (r == 0)
        r = check_options(&url, &net, why);
    if (r == 0)
        r = make_contexts(&net, runtime->core_count, reload.contexts, why);
    if (r == 0) {
        r = bm_listeners_with(runtime, text, reload_here, &reload);
        free_contexts(reload.contexts, runtime->core_count); /* if they were not taken */
    }
    if (r < 0)
        say_why(runtime, text, why);
    return r;
}

static int adopt_here(struct bm_listener *listener, void *arg)
{
    struct arrival **arrival = arg;
    if (!is_net(listener) || !*arrival)
        return -ENOENT;
    if (!listener->running || listener->core->stopping)
        return -ESHUTDOWN;
    struct gate *gate = next_gate(listener_of(listener));
    (*arrival)->gate = gate;
    int r = tell(gate, take_arrival, *arrival);
    if (r == 0)
        *arrival = NULL;
    return r;
}

int beam_net_adopt(beam_runtime *runtime, const char *url, int *fd, const void *bytes, size_t len)
{
    if (!url || !fd || (len > 0 && !bytes))
        return -EINVAL;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    if (len > EARLY_LEN_MAX)
        return -EMSGSIZE;
    int r = bm_socket_adopt(*fd);
    if (r < 0)
        return r;
    struct arrival *arrival = bm_alloc_zero(NULL, sizeof(*arrival) + len);
    if (!arrival)
        return -ENOMEM;
    /* Behind beam_start the first reactor may still be on its way. */
    struct bm_core *first = &runtime->cores[0];
    r = bm_runtime_await_core(first, bm_clock_after(bm_clock_now_ns(), START_WAIT_NS));
    if (r < 0) {
        bm_free(NULL, arrival, sizeof(*arrival) + len);
        return r;
    }
    arrival->fd = *fd;
    arrival->early_len = (uint32_t)len;
    if (len > 0)
        memcpy(arrival->early, bytes, len);
    r = bm_listeners_with(runtime, url, adopt_here, &arrival);
    if (arrival) /* not taken */
        bm_free(NULL, arrival, sizeof(*arrival) + len);
    else
        *fd = -1;
    return r;
}
