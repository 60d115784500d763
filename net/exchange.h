/* An exchange: one request of HTTP and its answer, over HTTP/1.1 or HTTP/2, from either side. What
 * stands above (sessions, calls, the application's own requests) knows no version of HTTP.
 *
 * Server: the connection's owner is shown a request (connection.h) and takes the exchange there and
 * then, or answers it at once. Client: bm_connection_ask makes one.
 *
 * Each direction ends with an end or is lost; on_close comes once and last, and the exchange is gone
 * when it returns, unless it is held. All on the core's thread; handlers run from the loop and never
 * inside a call that is made here. */
#ifndef BM_EXCHANGE_H
#define BM_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <beam/kv.h>

#include "net/proto/field.h"

struct bm_connection;
struct bm_exchange;

/* Borrowed for the call that shows it. */
struct bm_exchange_request {
    beam_str method, authority, path; /* path with its query */
    beam_str protocol;                /* of extended CONNECT (RFC 8441), else empty */
    const struct bm_field *fields;
    size_t field_count;
    int64_t body_len; /* 0: none; -1: known at its end */
    bool upgrade;     /* HTTP/1.1: may be answered with 101 */
    unsigned version; /* 1 or 2 */
};

/* NULL: not wanted. arg is the exchange's. */
struct bm_exchange_handlers {
    /* Client: the answer has begun. Borrowed for the call. 101 too: from then on bytes are not HTTP. */
    void (*on_answer)(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                      size_t field_count, void *arg);
    /* Bytes of the peer's body, or after 101 what it sends; borrowed for the call. They stay in the
     * windows until bm_exchange_consumed. */
    void (*on_body)(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg);
    /* The peer's body is whole (after 101: it sends no more). Never after a loss. */
    void (*on_end)(struct bm_exchange *exchange, void *arg);
    /* Our body: puts up to len (> 0) bytes into buf and returns how many. 0: nothing now, until
     * bm_exchange_resume. *ret_end, false before: these were the last. Below 0: it is broken off. */
    ssize_t (*read)(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                    void *arg);
    /* Nothing more comes or goes. 0: both directions had their end. -ECONNREFUSED: the request has
     * surely not run (REFUSED_STREAM, or it was never sent). -ECANCELED: the peer, or we, have reset
     * it. Else why the connection ended. */
    void (*on_close)(struct bm_exchange *exchange, int error, void *arg);
};

/* Who looks after it from now on: within on_request, or before anything else is called here. */
void bm_exchange_take(struct bm_exchange *exchange, const struct bm_exchange_handlers *handlers,
                      void *arg);

/* Server: answers, once. body_len: 0 none; -1: `read` gives it, until its end; else that many bytes at
 * body, copied, up to BM_EXCHANGE_BODY_MAX. Status 101 is for requests with `upgrade`: from then on
 * `read` and on_body are raw bytes. 0; -EINVAL: a field that may not be sent; -EPIPE: the peer has
 * gone, on_close follows or came; -EMSGSIZE, -ENOMEM. */
#define BM_EXCHANGE_BODY_MAX (64u << 10)
int bm_exchange_answer(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                       size_t field_count, const void *body, int64_t body_len);

/* `read` has something again, or an end. Harmless at any other time. */
void bm_exchange_resume(struct bm_exchange *exchange);
/* Bytes of on_body are done with: more may come. */
void bm_exchange_consumed(struct bm_exchange *exchange, size_t len);
/* HTTP/2: the peer may send so many bytes ahead (S7); no effect over HTTP/1.1, which has no windows. */
void bm_exchange_window(struct bm_exchange *exchange, uint32_t len);
/* Server: the body is collected, so it has to come at a least rate (BM_HTTP1_BODY_NS, which HTTP/1.1 has for
 * every body); else the exchange is reset. Not for one that lasts, as a session's. */
void bm_exchange_expect_body(struct bm_exchange *exchange);
/* A peer that opens its window for nothing of ours is waited for, however long: a slow reader. Else its
 * stream is reset after a while (CVE-2019-9511). */
void bm_exchange_patient(struct bm_exchange *exchange);
/* Breaks off both ways; on_close follows. Over HTTP/1.1 the connection ends. */
void bm_exchange_reset(struct bm_exchange *exchange);
/* Lives on after on_close until it is released, and keeps its place among the peer's streams: for as long
 * as somebody works for it (CVE-2023-44487). */
void bm_exchange_hold(struct bm_exchange *exchange);
struct bm_exchange *bm_exchange_release(struct bm_exchange *exchange); /* NULL */

/* NULL: it was held, and the connection is gone. */
struct bm_connection *bm_exchange_connection(const struct bm_exchange *exchange);
unsigned bm_exchange_version(const struct bm_exchange *exchange); /* 1 or 2 */
bool bm_exchange_closed(const struct bm_exchange *exchange);

#endif
