/* A connection and its exchanges as the files of them share them:
 *
 *     connection.c        which HTTP it is, who owns it, its course and its end
 *     http1_connection.c  \ one version each, between the link and the exchanges: a const struct
 *     http2_connection.c  / bm_version
 *     exchange.c          what can be done with an exchange, whatever its version
 *
 * Invariants.
 *  - An exchange is on its connection's list from its beginning until it is freed, or the connection is;
 *    one that is held then goes on without a connection.
 *  - on_close is called by bm_exchange_finish and nowhere else.
 *  - Handlers and the owner's callbacks run while the link's depth is above 0. What they ask for that
 *    would call others is noted, and done in bm_connection's settle. */
#ifndef BM_CONNECTION_INNER_H
#define BM_CONNECTION_INNER_H

#include "base/list.h"
#include "net/connection.h"
#include "net/link.h"
#include "net/proto/h2.h"
#include "net/proto/h2_preface.h"
#include "net/proto/http1.h"
#include "runtime/core.h"

#define BM_CONNECTION_FIRST_NS (5 * BM_NS_PER_S) /* without TLS: the first bytes; spec section 10 */
#define BM_CONNECTION_IDLE_NS                                                                      \
    (300 * BM_NS_PER_S)                         /* server, without exchanges; as BM_HTTP1_IDLE_NS */
#define BM_CONNECTION_LOOK_NS (5 * BM_NS_PER_S) /* how often for exchanges that are stuck; ours */
#define BM_CONNECTION_UNCONSUMED_MAX (64u << 10) /* HTTP/1.1, of a body; ours */
#define BM_EXCHANGE_SMALL_MAX 2048u              /* bytes of an answer; ours */
#define BM_CONNECTION_RAW_LEN (16u << 10)        /* behind a 101, to send: a record of TLS */
#define BM_CONNECTION_ADDRESS_LEN 64u            /* "[" INET6_ADDRSTRLEN "%scope]:65535" */

/* What HTTP/1.1 and HTTP/2 do differently. The connection's are called from the loop alone. */
struct bm_version {
    unsigned number;
    int (*begin)(struct bm_connection *connection);
    void (*free)(struct bm_connection *connection);
    /* How many bytes were taken. */
    size_t (*receive)(struct bm_connection *connection, const uint8_t *bytes, size_t len);
    void (*receive_end)(struct bm_connection *connection);
    const uint8_t *(*output)(struct bm_connection *connection, size_t *ret_len);
    void (*output_ack)(struct bm_connection *connection, size_t len);
    size_t (*output_len)(const struct bm_connection *connection); /* not acknowledged */
    /* What follows from what has happened: exchanges that are over; the connection's end. */
    void (*settle)(struct bm_connection *connection);
    uint64_t (*next_ns)(const struct bm_connection *connection);
    void (*tick)(struct bm_connection *connection, uint64_t now_ns);
    void (*trim)(struct bm_connection *connection); /* buffers that are empty may go */
    void (*drain)(struct bm_connection *connection);
    /* It ends: says what can be said, closes all exchanges. True: the peer has to see it broken. */
    bool (*end)(struct bm_connection *connection);

    int (*ask)(struct bm_connection *connection, const struct bm_connection_ask *ask,
               struct bm_exchange *exchange);

    int (*answer)(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                  size_t field_count, const void *body, int64_t body_len);
    /* Of an exchange that is not closed. */
    void (*resume)(struct bm_exchange *exchange);
    void (*consumed)(struct bm_exchange *exchange, size_t len);
    void (*window)(struct bm_exchange *exchange, uint32_t len);
    void (*reset)(struct bm_exchange *exchange);
    /* It is held from now on, closed or not; or no longer. */
    void (*hold)(struct bm_exchange *exchange, bool held);
};

extern const struct bm_version bm_version_http1, bm_version_http2;

struct bm_exchange {
    struct bm_list node;
    struct bm_connection *connection; /* NULL: gone */
    const struct bm_version *version;
    const struct bm_exchange_handlers *handlers; /* NULL: nobody's */
    void *arg;
    struct bm_h2_stream *stream; /* HTTP/2, while it is there */
    uint8_t *body;               /* HTTP/2: of an answer, what goes out */
    size_t body_len, body_at;
    uint32_t body_cap;      /* 0: it is the account's, else the pool's */
    size_t unconsumed;      /* bytes that on_body brought */
    uint64_t body_until_ns; /* HTTP/2: the peer's has to be there; UINT64_MAX: no hurry */
    unsigned holds;
    bool answered;
    bool to_head;         /* no body goes back */
    bool wants_continue;  /* HTTP/2: a 100 is waited for */
    bool upgrade;         /* HTTP/1.1: a 101 may come */
    bool in_end, out_end; /* HTTP/1.1 */
    bool end_due;         /* ... on_end is still to be called, unless it becomes another protocol */
    bool left;            /* ... something of it has left */
    bool patient;         /* a window that stays shut is no reason to end it */
    bool finishing, closed;
};

struct bm_connection {
    struct bm_link link;
    struct bm_dependent dependent;
    struct bm_account account;
    const struct bm_connection_owner *owner;
    void *arg;
    const struct bm_version *version; /* NULL: not known yet */
    struct bm_h2 *h2;
    struct bm_http1 *http1;
    struct bm_exchange *current; /* HTTP/1.1: the one there is */
    struct bm_list exchanges;
    uint32_t open; /* of them, not closed */
    bool server;
    bool opened;    /* on_open was called */
    bool drain_due; /* as was asked for; done in the next turn */
    bool close_due;
    bool reset_due; /* HTTP/1.1: an exchange was reset */
    bool draining;  /* the version has been told */
    bool failing;   /* it is to end, with `error`; done in settle */
    bool told;      /* ... which cannot wait for the peer */
    bool ended;
    bool upgraded; /* HTTP/1.1: these are bytes of another protocol */
    bool raw_end;  /* ... and ours have had their end */
    bool raw_full; /* ... and its owner may have more than `raw` had room for */
    uint8_t first_len;
    uint8_t first[BM_H2_PREFACE_LEN]; /* server, without TLS: until it is known */
    uint8_t *raw;                     /* BM_CONNECTION_RAW_LEN, or NULL */
    size_t raw_at, raw_len;
    int refused; /* HTTP/1.1: why the engine takes no more */
    int error;
    uint64_t first_until_ns, idle_until_ns, look_ns;
    struct bm_peer_texts *peer_texts; /* who asked last; NULL: nobody */
    char address[BM_CONNECTION_ADDRESS_LEN];
    char why[BM_TLS_WHY_LEN];
};

static inline struct bm_connection *bm_connection_of(struct bm_link *link)
{
    return bm_container_of(link, struct bm_connection, link);
}

static inline uint64_t bm_connection_now_ns(const struct bm_connection *connection)
{
    return bm_reactor_now_ns(connection->link.core->reactor);
}

/* It ends for this reason, 0: in order. Only the first counts. */
void bm_connection_fail(struct bm_connection *connection, int error);

/* What its exchanges are told whose end it is. */
int bm_connection_loss(const struct bm_connection *connection);

/* exchange.c */

/* One more of the connection; NULL: no memory. */
struct bm_exchange *bm_exchange_new(struct bm_connection *connection);
/* HTTP/2: a copy of what goes out. A small one is not charged: there are as many as streams. -ENOMEM. */
int bm_exchange_keep_body(struct bm_exchange *exchange, const void *body, size_t len);
void bm_exchange_drop_body(struct bm_exchange *exchange);
/* Shows a request to the owner, and answers it if nobody does. */
void bm_exchange_show(struct bm_exchange *exchange, const struct bm_exchange_request *request);
void bm_exchange_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len);
void bm_exchange_end(struct bm_exchange *exchange);
/* What its owner has to say. */
ssize_t bm_exchange_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end);
/* Its end: on_close; and it is freed unless it is held. */
void bm_exchange_finish(struct bm_exchange *exchange, int error);
/* One that never was. */
void bm_exchange_discard(struct bm_exchange *exchange);
/* The connection goes. */
void bm_exchange_orphan(struct bm_exchange *exchange);

#endif
