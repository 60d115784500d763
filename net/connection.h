/* A connection: a stream socket, TLS on it or not, and HTTP/1.1 or HTTP/2 on that, as server or as
 * client, driven by its core's reactor. It moves bytes and keeps the time; what they mean is its
 * owner's, who is shown requests (server) or makes them (client).
 *
 *     socket <-> link.c (receive, send, TLS) <-> an engine of net/proto <-> exchanges
 *
 * Which HTTP it is: with TLS what ALPN says; without, the first bytes tell a server, and an option a
 * client. All on the core's thread; the owner's callbacks run from the loop. */
#ifndef BM_CONNECTION_H
#define BM_CONNECTION_H

#include "net/exchange.h"
#include "net/proto/tls.h"
#include "runtime/peer.h"

struct bm_core;
struct bm_account;

struct bm_connection_owner {
    /* Client: exchanges can be made: it is connected, and TLS has proved the peer. */
    void (*on_open)(struct bm_connection *connection, void *arg);
    /* Server: takes the exchange (bm_exchange_take), or answers it with a body of its own and without
     * taking it. One that is neither taken nor answered when this returns is answered 500. */
    void (*on_request)(struct bm_connection *connection, struct bm_exchange *exchange,
                       const struct bm_exchange_request *request, void *arg);
    /* Client, HTTP/2: the peer's SETTINGS are there (bm_connection_connect_protocol). */
    void (*on_settings)(struct bm_connection *connection, void *arg);
    /* The peer takes no more requests. */
    void (*on_draining)(struct bm_connection *connection, void *arg);
    /* Gone, exchanges and all; the memory too when this returns. error: 0 in order, else an errno or
     * -BEAM_E…; why: for people ("" if nothing went wrong). Once. */
    void (*on_close)(struct bm_connection *connection, int error, const char *why, void *arg);
};

struct bm_connection_options {
    struct bm_core *core;
    bool server;
    struct bm_tls_context *tls;           /* NULL: none; gets a reference */
    const struct bm_tls_start *tls_start; /* client; copied; its account is ours */
    bool http1, http2;                    /* client without TLS: which of them (prior knowledge) */
    const void *early;                    /* server: what was read already, copied */
    size_t early_len;
    const struct bm_connection_owner *owner;
    void *arg;
};

/* Over a connected socket; takes the fd on success. -ENOMEM. */
int bm_connection_new(const struct bm_connection_options *options, int *fd,
                      struct bm_connection **ret_connection);

/* Client, from on_open on: makes a request. body: `read` gives it, without a length. fields and texts
 * are copied. upgrade: HTTP/1.1, to what. -EAGAIN: no room now (HTTP/2: streams; HTTP/1.1: one is under
 * way); -ESHUTDOWN; -ENOTSUP: extended CONNECT that the peer does not take; -EINVAL; -ENOMEM. */
struct bm_connection_ask {
    beam_str method, authority, path, protocol;
    const struct bm_field *fields;
    size_t field_count;
    bool body;
    const char *upgrade;
};
int bm_connection_ask(struct bm_connection *connection, const struct bm_connection_ask *ask,
                      const struct bm_exchange_handlers *handlers, void *arg,
                      struct bm_exchange **ret_exchange);

/* No new exchanges; when those that are there have ended it closes in order. */
void bm_connection_drain(struct bm_connection *connection);
/* Ends it now, in order if it can be told at once; on_close follows. */
void bm_connection_close(struct bm_connection *connection);

unsigned bm_connection_version(const struct bm_connection *connection); /* 1, 2; 0: not known yet */
bool bm_connection_connect_protocol(const struct bm_connection *connection);
bool bm_connection_secure(const struct bm_connection *connection);
/* After on_open, or in on_request; NULL without TLS. Borrowed. */
const struct bm_tls *bm_connection_tls(const struct bm_connection *connection);
/* "192.0.2.7:4711", "[2001:db8::1]:80", "unix": of the peer; borrowed. */
/* Who asked last, kept for whoever asks next: most often the same. */
struct bm_peer_texts **bm_connection_peer_texts(struct bm_connection *connection);
const char *bm_connection_address(const struct bm_connection *connection);
struct bm_core *bm_connection_core(const struct bm_connection *connection);
/* Who pays for it and all that hangs on it. */
struct bm_account *bm_connection_account(struct bm_connection *connection);

#endif
