/* A server: what a listener of a network has decided once (beam_net_listen), the same on all cores, and
 * the way of each request from there: who asks (access.c), then by its path to a session, a call, what
 * is told about the server, or the application. */
#ifndef BM_SERVER_H
#define BM_SERVER_H

#include <stdatomic.h>

#include <beam/net.h>

#include "net/address_limits.h"
#include "net/connection.h"
#include "runtime/peer.h"

struct bm_access;
struct bm_url;

struct bm_server {
    beam_runtime *runtime;
    char *prefix; /* "/beam": begins with a slash, ends without */
    size_t prefix_len;
    struct bm_access *access; /* who may come in: access.h */
    beam_http_handler *on_request;
    void *on_request_arg;
    const char *const *origins; /* own copies */
    size_t origin_count;
    _Atomic bool draining; /* relaxed: health says 503, sessions are refused */
    struct bm_address_limits addresses;
    struct bm_address_limits identities; /* sessions */
    uint64_t memory_max;   /* of all connections of the process, or 0: memory_budget.h */
    _Atomic unsigned refs; /* the listener's and each connection's; acq_rel: the last one frees */
};

#define BM_SERVER_ORIGINS_MAX 256u /* ours */

/* With one reference. Copies what it needs; the application's functions are called as long as it lives.
 * -EINVAL: options that make no sense, ret_why (128 bytes) says which; -ENOMEM, with ret_why "". */
int bm_server_new(beam_runtime *runtime, const struct bm_url *url,
                  const struct beam_net_listen *options, struct bm_server **ret_server,
                  char *ret_why);
/* Any thread. */
struct bm_server *bm_server_ref(struct bm_server *server);
struct bm_server *bm_server_unref(struct bm_server *server); /* NULL; accepts it */

/* Somebody who asks, as far as access.c found out: in the order of spec rule I1. Views into the exchange's
 * connection and into name. */
struct bm_visitor {
    struct beam_peer peer; /* kind BEAM_PEER_NET, identity, address */
    bool known;            /* else anonymous */
    bool admitted;         /* may ask at all: known, or the server serves anybody */
    char name[256];        /* room for the identity */
};

/* Its peer, to be kept (bm_peer_clear) after its views have ended. *last are the texts of who asked before
 * on this connection, most often the same, and become those of this one; NULL: nobody keeps any. -ENOMEM.
 * visitor.c */
int bm_visitor_peer(const struct bm_visitor *visitor, struct bm_peer_texts **last,
                    struct bm_peer *ret_peer);

/* connection.h on_request of connections that a server accepted; arg is the struct bm_server. */
void bm_server_on_request(struct bm_connection *connection, struct bm_exchange *exchange,
                          const struct bm_exchange_request *request, void *arg);

/* --- where that leads; each takes or answers the exchange --- */

/* access.c: who asks. 0, or the status to refuse with: 401, 403, 431; 503: whom a token speaks for could
 * not be found out. Health asks too and looks at nothing of it. */
int bm_access_judge(const struct bm_access *access, const struct bm_exchange *exchange,
                    const struct bm_exchange_request *request, struct bm_visitor *ret_visitor);

/* POST PREFIX/v1, GET or CONNECT PREFIX/v1/ws: a session; net_session.c. */
void bm_session_exchange(struct bm_server *server, struct bm_exchange *exchange,
                         const struct bm_exchange_request *request,
                         const struct bm_visitor *visitor, bool websocket);

/* POST PREFIX/v1/stream: the stream of a channel, beside its session; dedicated_stream.c. */
void bm_stream_exchange(struct bm_exchange *exchange, const struct bm_exchange_request *request,
                        const struct bm_visitor *visitor);

/* POST PREFIX/call/SERVICE[/METHOD]; rest is what stands behind "call/"; call_exchange.c. */
void bm_call_exchange(struct bm_server *server, struct bm_exchange *exchange,
                      const struct bm_exchange_request *request, const struct bm_visitor *visitor,
                      beam_str rest);

/* GET PREFIX/services, health, stats; about.c. */
void bm_about_exchange(struct bm_server *server, struct bm_exchange *exchange,
                       const struct bm_exchange_request *request, const struct bm_visitor *visitor,
                       beam_str what);

/* Everything else; application.c. */
void bm_application_exchange(struct bm_server *server, struct bm_exchange *exchange,
                             const struct bm_exchange_request *request,
                             const struct bm_visitor *visitor);

/* Answers with an error as rule Q4 has it: {"code": …, "message": …}. refusal.c. */
void bm_exchange_refuse(struct bm_exchange *exchange, unsigned status, enum beam_code code,
                        const char *message, const struct bm_field *fields, size_t field_count);
/* The same with one field of literals, or none (name NULL). */
void bm_exchange_refuse_saying(struct bm_exchange *exchange, unsigned status, enum beam_code code,
                               const char *message, const char *name, const char *value);

#endif
