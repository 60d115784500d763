/* A short list, the most recently used in front, that hangs on its core (struct bm_dependent) and goes with
 * it. It is looked through from one end to the other: connecting costs much more.
 *
 * All of it is for speed: memory that is missing is a server that is not remembered. */
#include "net/known_servers.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/url.h"
#include "runtime/core.h"

struct server {
    struct bm_list node;
    bool secure, websocket;
    uint16_t port;
    enum beam_net_way way;
    uint64_t until_ns;
    uint8_t *ticket; /* or NULL */
    size_t ticket_len;
    char host[BM_URL_HOST_MAX + 1];
    char prefix[BM_URL_PREFIX_MAX + 1];
};

struct known_servers {
    struct bm_dependent dependent;
    struct bm_core *core;
    struct bm_task end_task;
    struct bm_list servers;
    unsigned count;
};

static void drop_ticket(struct server *server)
{
    if (server->ticket) {
        explicit_bzero(server->ticket, server->ticket_len);
        server->ticket = bm_free(NULL, server->ticket, server->ticket_len);
    }
}

static void drop(struct known_servers *known, struct server *server)
{
    bm_list_unlink(&server->node);
    known->count--;
    drop_ticket(server);
    bm_free(NULL, server, sizeof(*server));
}

static void run_end(struct bm_task *task)
{
    struct known_servers *known = bm_container_of(task, struct known_servers, end_task);
    struct bm_core *core = known->core;
    while (!bm_list_empty(&known->servers))
        drop(known, bm_list_entry(known->servers.next, struct server, node));
    bm_list_unlink(&known->dependent.node);
    bm_free(NULL, known, sizeof(*known));
    bm_core_check_quiet(core);
}

/* The core stops: nobody connects any more. */
static void end(struct bm_dependent *dependent)
{
    struct known_servers *known = bm_container_of(dependent, struct known_servers, dependent);
    bm_task_queue(known->core->reactor, &known->end_task);
}

static const struct bm_dependent_calls calls = {.drain = end, .end = end};

/* Stands in front of all that hangs on the core, so that it is found at once. */
static struct known_servers *find_all(struct bm_core *core)
{
    struct bm_list *node = core->dependents.next;
    if (node == &core->dependents)
        return NULL;
    struct bm_dependent *first = bm_list_entry(node, struct bm_dependent, node);
    return first->calls == &calls ? bm_container_of(first, struct known_servers, dependent) : NULL;
}

static struct known_servers *make_all(struct bm_core *core)
{
    struct known_servers *known = core->stopping ? NULL : bm_alloc_zero(NULL, sizeof(*known));
    if (!known)
        return NULL;
    known->dependent.calls = &calls;
    known->core = core;
    known->end_task.fn = run_end;
    bm_list_init(&known->servers);
    bm_list_insert_before(core->dependents.next, &known->dependent.node);
    return known;
}

static bool is(const struct server *server, const struct bm_url *url)
{
    return server->port == url->port && server->secure == url->secure &&
           server->websocket == url->websocket && strcmp(server->host, url->host) == 0 &&
           strcmp(server->prefix, url->prefix) == 0;
}

/* NULL: not known, or no longer. A socket file is not remembered: what lies behind is at hand. */
static struct server *find(struct bm_core *core, const struct bm_url *url)
{
    struct known_servers *known = find_all(core);
    uint64_t now = bm_reactor_now_ns(core->reactor);
    if (!known || url->kind == BM_URL_SOCKET_FILE)
        return NULL;
    for (struct bm_list *n = known->servers.next; n != &known->servers; n = n->next) {
        struct server *server = bm_list_entry(n, struct server, node);
        if (!is(server, url))
            continue;
        if (now >= server->until_ns) {
            drop(known, server);
            return NULL;
        }
        bm_list_unlink(n);
        bm_list_insert_before(known->servers.next, n);
        return server;
    }
    return NULL;
}

static struct server *make(struct bm_core *core, const struct bm_url *url)
{
    struct known_servers *known = find_all(core);
    struct server *server;
    if (!known)
        known = make_all(core);
    if (!known || url->kind == BM_URL_SOCKET_FILE)
        return NULL;
    server = bm_alloc_zero(NULL, sizeof(*server));
    if (!server)
        return NULL;
    if (known->count >= BM_KNOWN_SERVERS_MAX)
        drop(known, bm_list_entry(known->servers.prev, struct server, node));
    server->secure = url->secure;
    server->websocket = url->websocket;
    server->port = url->port;
    strcpy(server->host, url->host);
    strcpy(server->prefix, url->prefix);
    bm_list_insert_before(known->servers.next, &server->node);
    known->count++;
    return server;
}

enum beam_net_way bm_known_servers_way(struct bm_core *core, const struct bm_url *url)
{
    const struct server *server = find(core, url);
    return server ? server->way : BEAM_NET_ANY;
}

void bm_known_servers_learn(struct bm_core *core, const struct bm_url *url, enum beam_net_way way)
{
    struct server *server = find(core, url);
    if (!server && way != BEAM_NET_ANY)
        server = make(core, url);
    if (!server)
        return;
    server->way = way;
    server->until_ns = bm_reactor_now_ns(core->reactor) + BM_KNOWN_SERVERS_NS;
}

void bm_known_servers_keep_ticket(struct bm_core *core, const struct bm_url *url,
                                  const void *ticket, size_t len)
{
    struct server *server = find(core, url);
    if (!server)
        return;
    drop_ticket(server);
    server->ticket = bm_alloc(NULL, len);
    if (!server->ticket)
        return;
    memcpy(server->ticket, ticket, len);
    server->ticket_len = len;
}

uint8_t *bm_known_servers_take_ticket(struct bm_core *core, const struct bm_url *url,
                                      size_t *ret_len)
{
    struct server *server = find(core, url);
    if (!server || !server->ticket)
        return NULL;
    *ret_len = server->ticket_len;
    return bm_take_ptr(server->ticket);
}
