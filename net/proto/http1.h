/* HTTP/1.1 (RFC 9110, RFC 9112) on one connection, as server or as client: bytes in, bytes out, no
 * socket.
 *
 *     bm_http1_new ── bm_http1_receive ──> on_message, on_body…, on_message_end
 *                     bm_http1_answer / bm_http1_ask
 *                     bm_http1_output, bm_http1_output_ack ──> on_sent
 *                     bm_http1_tick at bm_http1_next_ns
 *
 * An exchange is one request and its answer. There is one at a time: bytes behind a request are
 * taken only when its answer is complete, so that a peer that sends requests in a row waits, and
 * costs nothing.
 *
 * A negative result of any call but bm_http1_answer and bm_http1_ask is the end of the connection;
 * the same one is given from then on. A server's peer has been told by then, in the output, where
 * there was a way to tell (400, 408, 411, 413, 414, 417, 431, 501, 505 with `connection: close`):
 * send what is left, shut writing down, and drop for a moment what still comes: a connection that
 * is closed over unread bytes takes the answer with it (RFC 9112 section 9.6). */
#ifndef BM_HTTP1_H
#define BM_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/proto/field.h"

#define BM_HTTP1_START_LINE_MAX 8192u /* RFC 9112 section 3 wants 8000 at least; else 414 */
/* All field lines of a head; as SETTINGS_MAX_HEADER_LIST_SIZE of HTTP/2. Else 431. */
#define BM_HTTP1_FIELDS_LEN_MAX 16384u
#define BM_HTTP1_FIELDS_MAX 64u /* as many as metadata may have keys; else 431 */
#define BM_HTTP1_TRAILERS_LEN_MAX 16384u
#define BM_HTTP1_EXTENSIONS_MAX 16384u /* of all chunks of a body: 16 bytes for each of 1024 */
#define BM_HTTP1_INTERIMS_MAX 16u      /* answers 1xx before the answer; one or two are usual */
#define BM_HTTP1_BODY_MAX (UINT64_C(16) << 20) /* default of body_len_max: one message */
#define BM_HTTP1_OUTPUT_MAX (64u << 10)        /* what waits before a source is asked for more */
#define BM_HTTP1_DRAIN_MAX (64u << 10) /* of an answered request's body, for the next one's sake */

#define BM_HTTP1_HEAD_NS (10 * BM_NS_PER_S)  /* a head, from its first byte on */
#define BM_HTTP1_IDLE_NS (300 * BM_NS_PER_S) /* between requests */
#define BM_HTTP1_STALL_NS (30 * BM_NS_PER_S) /* output of which nothing is taken */
/* A body: so long, and a second more for each so many bytes (what mod_reqtimeout of Apache has by
 * default). */
#define BM_HTTP1_BODY_NS (20 * BM_NS_PER_S)
#define BM_HTTP1_BODY_RATE_MIN 500u

struct bm_http1;

/* The head of a request or of an answer. Everything in it is borrowed until the exchange ends
 * (on_message_end and on_sent have both come, or on_abort). */
struct bm_http1_message {
    unsigned minor_version; /* 0 or 1 */

    /* Of a request. The target's scheme and authority are taken off the path; where it has none the
     * authority is that of Host, and empty in HTTP/1.0 without one. The path begins with "/", or is
     * "*" (OPTIONS). */
    const char *method, *path, *authority;
    size_t method_len, path_len, authority_len;
    /* It may be answered with 101: HTTP/1.1, no body, Connection and Upgrade are there. */
    bool upgrade;

    int status; /* of an answer */

    /* In their order, names in lower case. Transfer-Encoding and the like are among them. */
    const struct bm_field *fields;
    size_t field_count;
    int64_t body_len; /* 0: none; -1: known at its end */
};

/* Where a body that goes out comes from. Const; called from bm_http1_output only. */
struct bm_http1_source {
    /* Puts up to `len` bytes (at least 1) into buf and returns how many. 0 with *ret_end false:
     * nothing now, and it is asked again after bm_http1_resume. *ret_end, false before: these were
     * the last. A negative error: the body ends in its middle, and the connection with it, so that
     * the peer cannot take it for whole. Not called again after the end or an error. */
    ssize_t (*read)(void *arg, uint8_t *buf, size_t len, bool *ret_end);
};

/* Called from bm_http1_receive, _receive_end, _output and _tick, never from another call. The
 * engine may not be freed in one (note it, and do it when the call is back); everything else may be
 * called. */
struct bm_http1_handlers {
    /* A request, or the answer to ours, has begun. A server answers now or later, before or after
     * the body. */
    void (*on_message)(struct bm_http1 *http, const struct bm_http1_message *message, void *arg);
    /* The next bytes of its body, one at least, borrowed for the call. */
    void (*on_body)(struct bm_http1 *http, const uint8_t *bytes, size_t len, void *arg);
    /* The message is whole. Trailers were dropped. */
    void (*on_message_end)(struct bm_http1 *http, void *arg);
    /* What was answered or asked stands in the output whole; its source will not be called again.
     * For 101 this is the end of HTTP here. */
    void (*on_sent)(struct bm_http1 *http, void *arg);
    /* The exchange that on_message or bm_http1_ask began will not end: `error` says why. No source
     * is called again and no other callback comes for it. -ECANCELED: the answer is whole and the
     * request is not, which nobody waits for; the connection ends then. */
    void (*on_abort)(struct bm_http1 *http, int error, void *arg);
};

struct bm_http1_options {
    bool client;
    struct bm_account *account;               /* or NULL */
    const struct bm_http1_handlers *handlers; /* all set; outlives the engine */
    void *arg;
    uint64_t body_len_max; /* of a request or an answer; 0: BM_HTTP1_BODY_MAX */
    uint64_t now_ns;
};

/* 0 or -ENOMEM. */
int bm_http1_new(const struct bm_http1_options *options, struct bm_http1 **ret_http);
/* Calls nothing, not even on_abort. NULL is fine; returns NULL. */
struct bm_http1 *bm_http1_free(struct bm_http1 *http);

enum {
    /* 101 has been sent or received: what was not used belongs to the new protocol. */
    BM_HTTP1_UPGRADED = 1,
};

/* Bytes of the peer. *ret_used of them were taken; fewer than all when bm_http1_wants_input says
 * false now. The caller keeps the others, reads no more, and gives them again when it says true. 0,
 * BM_HTTP1_UPGRADED, or an error:
 *   -BEAM_EHTTP_SYNTAX, -BEAM_EHTTP_TOO_LARGE, -BEAM_EHTTP_UNSUPPORTED   what the peer did
 *   -ENOMEM */
int bm_http1_receive(struct bm_http1 *http, const uint8_t *bytes, size_t len, uint64_t now_ns,
                     size_t *ret_used);
/* The peer sends no more, and all that it sent was taken. 0 when nothing is missing: a server goes
 * on answering then. -BEAM_EHTTP_CUT within a message. */
int bm_http1_receive_end(struct bm_http1 *http);
/* Whether bm_http1_receive would take a byte now. May change with every call. While an answer is
 * under way it is false: who wants to hear of the peer's end all the same may read on, and hold
 * what comes up to a bound of its own. */
bool bm_http1_wants_input(const struct bm_http1 *http);
/* Stops and goes on taking the body: bytes a receiver has no room for stay with the caller. What
 * came with the call under way is still delivered. A client that waits for 100 Continue gets it
 * when the body is not held: who wants to look at the head first holds it in on_message. A server's
 * on_sent lets go: then the rest is only in the way. */
void bm_http1_hold(struct bm_http1 *http, bool held);

/* What goes out. Texts and fields are copied. */
struct bm_http1_body {
    int64_t len;                          /* 0: none; -1: known at its end */
    const void *bytes;                    /* all of it, copied, up to BM_HTTP1_OUTPUT_MAX; or */
    const struct bm_http1_source *source; /* where it comes from, */
    void *arg;                            /* and what to call it with */
};

struct bm_http1_answer {
    int status; /* 101, or 200 to 599 */
    const struct bm_field *fields;
    size_t field_count;
    struct bm_http1_body body;
    const char *upgrade; /* for 101 and 426: to what */
    bool close;          /* last one on this connection */
};

/* Answers the request of on_message, once. The engine writes Connection, Content-Length,
 * Transfer-Encoding and Upgrade, and no Date (it has no clock). A body of unknown length is sent in
 * chunks, to HTTP/1.0 until the connection ends; to HEAD and with 204 and 304 none is sent, and a
 * source not called. 0, or, with nothing changed:
 *   -EINVAL    a field that is the engine's, or no field at all (a line break in a value); 101 to a
 *              request without `upgrade`; a status or a body that do not go together
 *   -ENOTCONN  there is no request, or it has its answer
 *   -EMSGSIZE  bytes beyond BM_HTTP1_OUTPUT_MAX, or a head of more than BM_HTTP1_FIELDS_LEN_MAX
 *   -ENOMEM */
int bm_http1_answer(struct bm_http1 *http, const struct bm_http1_answer *answer);

struct bm_http1_ask {
    const char *method, *target, *authority; /* terminated; authority becomes Host */
    const struct bm_field *fields;
    size_t field_count;
    struct bm_http1_body body;
    const char *upgrade; /* to what, or NULL */
};

/* Sends a request. Errors as above; -EBUSY: another one is under way, which it is until
 * bm_http1_receive has come back from its on_message_end; -ENOTCONN: the connection takes no
 * more. */
int bm_http1_ask(struct bm_http1 *http, const struct bm_http1_ask *ask);

/* The source has something again. */
void bm_http1_resume(struct bm_http1 *http);

/* The next bytes for the peer, or NULL and 0; they stay where they are until they are acknowledged.
 * Asks the source. */
const uint8_t *bm_http1_output(struct bm_http1 *http, size_t *ret_len);
/* All that waits, of which bm_http1_output gives the first piece. */
size_t bm_http1_output_len(const struct bm_http1 *http);
/* The first `len` of them have gone. */
void bm_http1_output_ack(struct bm_http1 *http, size_t len);
/* Gives back the output's memory where it is empty: for a connection that falls silent. */
void bm_http1_trim(struct bm_http1 *http);

/* No other exchange begins after the one that has (one whose head has begun to come is one); a
 * server's answer says so. Then the connection is over. */
void bm_http1_drain(struct bm_http1 *http);

/* Time-outs: 0, or -ETIMEDOUT (the peer was told 408 where it was sending a request). */
int bm_http1_tick(struct bm_http1 *http, uint64_t now_ns);
/* When to call it next; UINT64_MAX: no need. */
uint64_t bm_http1_next_ns(const struct bm_http1 *http);

/* 0: it goes on. 1: nothing more will come or go, all output is acknowledged: close. A negative
 * error: end the connection so that the peer sees it broken, once the output is acknowledged (a
 * reset, no close_notify). */
int bm_http1_over(const struct bm_http1 *http);
/* Whether a 101 was sent or received: then the output that is left goes first, and the rest is not
 * HTTP. */
bool bm_http1_upgraded(const struct bm_http1 *http);

#endif
