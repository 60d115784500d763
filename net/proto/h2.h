/* One HTTP/2 connection (RFC 9113), client or server, without I/O: bytes in, bytes out, time as an
 * argument.
 *
 *     bytes from the peer      -> bm_h2_receive     -> handlers
 *     bodies from their source -> bm_h2_output(_ack) -> bytes for the peer
 *     time                     -> bm_h2_tick, no later than bm_h2_next_ns says
 *
 * Handlers and sources run inside bm_h2_receive, bm_h2_output, bm_h2_tick and bm_h2_lost, and
 * inside nothing else. They may call every function here but those four and bm_h2_free: who wants
 * to free the connection in a handler remembers that, and does it when the call has returned. A
 * source does not call bm_h2_output_ack either: it writes right into the output.
 *
 * A stream is one request and its response. Each direction ends with an end (on_end; a source that
 * says so) or is lost; on_close comes once and last. A body is whole if and only if on_end has
 * come.
 *
 * All memory, nghttp2's too, is on the account given. One thread at a time. */
#ifndef BM_H2_H
#define BM_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <beam/kv.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/proto/field.h"

#define BM_H2_STREAMS_MAX 128u                 /* at once; proxies allow 100 to 250 */
#define BM_H2_STREAMS_TOTAL_MAX (1u << 29)     /* of a connection: ids up to 2^30, half of all */
#define BM_H2_WINDOW (256u << 10)              /* of a stream; bytes */
#define BM_H2_WINDOW_SESSION (4u << 20)        /* of a Beam session's: bm_h2_stream_window */
#define BM_H2_WINDOW_CONNECTION (16u << 20)    /* four of the latter */
#define BM_H2_HEADER_TABLE_LEN 4096u           /* of HPACK; CVE-2016-6581 */
#define BM_H2_FIELDS_LEN_MAX (16u << 10)       /* names and values of a header block, decoded */
#define BM_H2_FIELDS_MAX 64u                   /* without pseudo fields; CVE-2019-9516 */
#define BM_H2_FIELDS_EXCESS 4u                 /* times both: no mistake but an attack */
#define BM_H2_FIELDS_PER_S (256u << 20)        /* decoded bytes; at once: an eighth of it */
#define BM_H2_OUTPUT_LEN (64u << 10)           /* not acknowledged: four TLS records */
#define BM_H2_ACKS_MAX 100u                    /* of PING and SETTINGS that wait; CVE-2019-9512 */
#define BM_H2_GREETING_NS (5 * BM_NS_PER_S)    /* from the start to the peer's first frame */
#define BM_H2_SETTINGS_NS (10 * BM_NS_PER_S)   /* from our SETTINGS to the acknowledgement */
#define BM_H2_BLOCK_NS (10 * BM_NS_PER_S)      /* from a HEADERS to the end of its block */
#define BM_H2_DRAIN_NS (1 * BM_NS_PER_S)       /* from a notice to its GOAWAY, without a PING */
#define BM_H2_OUTPUT_KEPT_NS (5 * BM_NS_PER_S) /* idle so long, buffers are given back */

/* RFC 9113 section 7. */
enum bm_h2_code {
    BM_H2_NO_ERROR = 0,
    BM_H2_PROTOCOL_ERROR = 1,
    BM_H2_INTERNAL_ERROR = 2,
    BM_H2_FLOW_CONTROL_ERROR = 3,
    BM_H2_SETTINGS_TIMEOUT = 4,
    BM_H2_STREAM_CLOSED = 5,
    BM_H2_FRAME_SIZE_ERROR = 6,
    BM_H2_REFUSED_STREAM = 7, /* surely not run: may be sent again */
    BM_H2_CANCEL = 8,
    BM_H2_COMPRESSION_ERROR = 9,
    BM_H2_CONNECT_ERROR = 10,
    BM_H2_ENHANCE_YOUR_CALM = 11,
    BM_H2_INADEQUATE_SECURITY = 12,
    BM_H2_HTTP_1_1_REQUIRED = 13,
};

struct bm_h2;        /* a connection */
struct bm_h2_stream; /* lives until on_close has returned, or longer while it is held */

/* Empty is absent. protocol is that of extended CONNECT (RFC 8441). */
struct bm_h2_request {
    beam_str method, scheme, authority, path, protocol;
    const struct bm_field *fields;
    size_t fields_count;
};

/* Bytes of a body for the peer: up to cap (> 0) of them to buf, and how many. 0: nothing now, until
 * bm_h2_stream_resume. *ret_end, which is false before: these were the last. Below 0: the body is
 * broken off, and the stream reset with INTERNAL_ERROR. */
typedef ssize_t bm_h2_source(struct bm_h2_stream *stream, uint8_t *buf, size_t cap, bool *ret_end,
                             void *arg);

/* arg is that of the connection; what is the stream's own is got with bm_h2_stream_arg. NULL: not
 * wanted. */
struct bm_h2_handlers {
    /* Server: a request is there, its body may follow. A plain CONNECT has no scheme and no path.
     * Everything in it is borrowed for the call. From now on the stream is the receiver's, who
     * answers it (now or later), resets it, or waits for on_close. */
    void (*on_request)(struct bm_h2_stream *stream, const struct bm_h2_request *request, void *arg);

    /* Client: the fields of a response, borrowed for the call. A status below 200 announces one
     * that follows. */
    void (*on_response)(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                        size_t count, void *arg);

    /* Bytes of the body, borrowed for the call. They take room in the windows until
     * bm_h2_stream_consumed. */
    void (*on_data)(struct bm_h2_stream *stream, const uint8_t *bytes, size_t len, void *arg);

    /* The peer has ended its direction: what has come is whole. At most once, and never after a
     * loss. */
    void (*on_end)(struct bm_h2_stream *stream, void *arg);

    /* Nothing more will come, and nothing more will go. Once for each stream that on_request showed
     * or bm_h2_request made. REFUSED_STREAM: the request has surely not run. The code is NO_ERROR
     * also when the peer broke off with it: on_end tells what is whole. Not called while a handler
     * of the same connection runs. */
    void (*on_close)(struct bm_h2_stream *stream, uint32_t code, void *arg);

    /* The peer's SETTINGS have come; bm_h2_room and bm_h2_connect_protocol may say something
     * new. */
    void (*on_settings)(struct bm_h2 *h2, void *arg);

    /* The peer wants the connection to end; a server may say so twice. Requests that it has not
     * taken are closed with REFUSED_STREAM by themselves; the others go on, but for an error code
     * other than NO_ERROR. */
    void (*on_goaway)(struct bm_h2 *h2, uint32_t code, void *arg);

    /* The answer to bm_h2_ping. */
    void (*on_pong)(struct bm_h2 *h2, uint64_t token, uint64_t rtt_ns, void *arg);
};

struct bm_h2_options {
    bool server;
    const struct bm_h2_handlers *handlers; /* stays */
    void *arg;
    uint64_t now_ns;
    uint32_t streams_max; /* at once, of the client's; 0: BM_H2_STREAMS_MAX, which is the most */
    uint32_t streams_total_max; /* 0: BM_H2_STREAMS_TOTAL_MAX, which is the most */
};

/* A connection with its preface and SETTINGS in the output. account: who pays, or NULL; stays.
 * -ENOMEM. */
int bm_h2_new(struct bm_account *account, const struct bm_h2_options *options,
              struct bm_h2 **ret_h2);

/* NULL is fine; returns NULL. No stream is held any more. Streams that are open go without
 * on_close: who wants that calls bm_h2_lost before. */
struct bm_h2 *bm_h2_free(struct bm_h2 *h2);

/* Bytes of the peer, borrowed for the call; all are taken. 0, or the connection is over: all
 * streams have been closed, what the peer is told stands in the output, and every later call says
 * the same.
 *   -BEAM_EH2_PREFACE   the peer speaks something else
 *   -BEAM_EH2_PROTOCOL  the peer broke a rule of the protocol; bm_h2_code says which
 *   -BEAM_EH2_FLOOD     the peer did too much of something
 *   -BEAM_EH2_TIMEOUT   the peer left us waiting (of bm_h2_tick)
 *   -ECONNRESET         bm_h2_lost was called
 *   -ENOMEM             a limit of the account, or there is none */
int bm_h2_receive(struct bm_h2 *h2, const void *bytes, size_t len, uint64_t now_ns);

/* What is to be sent: *ret_len bytes, which stay where they are until they are acknowledged. 0 and
 * perhaps NULL: nothing. Asks sources for bodies as long as there is room, so call it once a turn,
 * when all that was received has been handled. */
const uint8_t *bm_h2_output(struct bm_h2 *h2, size_t *ret_len);

/* All that waits, of which bm_h2_output gives the first piece. */
size_t bm_h2_output_len(const struct bm_h2 *h2);

/* The first len bytes of the output are sent. */
void bm_h2_output_ack(struct bm_h2 *h2, size_t len, uint64_t now_ns);

/* There is output, or there would be if some were acknowledged: call bm_h2_output. */
bool bm_h2_output_more(const struct bm_h2 *h2);

/* Since when there is output of which nothing is acknowledged; UINT64_MAX: there is none. A peer
 * that does not read. */
uint64_t bm_h2_stalled_since_ns(const struct bm_h2 *h2);

/* When bm_h2_tick wants to be called next; UINT64_MAX: never. */
uint64_t bm_h2_next_ns(const struct bm_h2 *h2);

/* What time alone decides. As bm_h2_receive; early calls do no harm. */
int bm_h2_tick(struct bm_h2 *h2, uint64_t now_ns);

/* The bytes stop here, in order or not: every open stream is closed with this code. The connection
 * is over with -ECONNRESET, unless it was before. */
void bm_h2_lost(struct bm_h2 *h2, uint32_t code);

/* 0: it goes on. 1: both have said what they had to say, and the output is empty: close. Below 0:
 * what bm_h2_receive says. */
int bm_h2_over(const struct bm_h2 *h2);

/* The error code in the last GOAWAY that the peer was sent. */
uint32_t bm_h2_code(const struct bm_h2 *h2);

/* No new streams; those that are there go on, and then the connection is over. A server gives
 * notice first, and refuses only when the client must know of it (RFC 9113 section 6.8). Can be
 * said twice. */
void bm_h2_drain(struct bm_h2 *h2);
bool bm_h2_draining(const struct bm_h2 *h2); /* we have said so, or the peer has */

/* on_pong is called when the answer is there. -EBUSY: the last has no answer yet;
 * bm_h2_ping_since_ns. */
int bm_h2_ping(struct bm_h2 *h2, uint64_t token);

/* When the one without an answer left; UINT64_MAX: there is none, or it has not left. */
uint64_t bm_h2_ping_since_ns(const struct bm_h2 *h2);

/* Of the last that was answered; 0: none was. */
uint64_t bm_h2_rtt_ns(const struct bm_h2 *h2);

/* Client: how many requests can be made now. */
uint32_t bm_h2_room(const struct bm_h2 *h2);

/* Client: the server takes extended CONNECT. */
bool bm_h2_connect_protocol(const struct bm_h2 *h2);

/* Streams that are open or held. */
uint32_t bm_h2_streams(const struct bm_h2 *h2);

/* Makes a request, with a body if there is a source. arg is the stream's and the source's.
 *   -EAGAIN     no room (bm_h2_room); again after an on_close or on_settings
 *   -ESHUTDOWN  the connection is over or drains: make another
 *   -EINVAL     a field that may not be sent, too many, or a server's connection
 *   -ENOTSUP    protocol without bm_h2_connect_protocol
 *   -ENOMEM     and perhaps the connection is over: bm_h2_over
 * The same -ENOMEM is that of every call below. */
int bm_h2_request(struct bm_h2 *h2, const struct bm_h2_request *request, bm_h2_source *source,
                  void *arg, struct bm_h2_stream **ret_stream);

/* Server: a response, with a body if there is a source, whose arg is the stream's. Whether the body
 * of the request has come does not matter. -EINVAL: a field, or a status outside 200 to 999.
 * -EALREADY: there was one. -EPIPE: the stream is closed, or reset. -ENOMEM. */
int bm_h2_respond(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                  size_t count, bm_h2_source *source);

/* Server: an interim response, 100 to 199 without 101, before the response. Errors as above. */
int bm_h2_inform(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                 size_t count);

/* The source has something again, or an end. Harmless at any other time. */
void bm_h2_stream_resume(struct bm_h2_stream *stream);

/* So many bytes that on_data brought are done with: their room in the windows goes back to the
 * peer. Not more than have come. What is not given back by the time the stream goes is given back
 * then. */
void bm_h2_stream_consumed(struct bm_h2_stream *stream, size_t len);

/* Makes the stream's window for the peer this large; it never shrinks. At most
 * BM_H2_WINDOW_CONNECTION. -EINVAL, -EPIPE, -ENOMEM. */
int bm_h2_stream_window(struct bm_h2_stream *stream, uint32_t len);

/* Breaks the stream off, both ways: on_close follows, nothing else does. Harmless when it is
 * closed. */
void bm_h2_stream_reset(struct bm_h2_stream *stream, uint32_t code);

/* Server: no more of the request's body is wanted. When the response has gone out whole and the
 * client has not ended, the stream is reset with NO_ERROR (RFC 9113 section 8.1). */
void bm_h2_stream_stop(struct bm_h2_stream *stream);

/* A held stream keeps its place among BM_H2_STREAMS_MAX after it was closed, and its memory: for as
 * long as somebody works for it, so that resetting requests makes no room for more of them
 * (CVE-2023-44487, CVE-2025-8671). */
void bm_h2_stream_hold(struct bm_h2_stream *stream);
struct bm_h2_stream *bm_h2_stream_release(struct bm_h2_stream *stream); /* NULL */

uint32_t bm_h2_stream_id(const struct bm_h2_stream *stream);
struct bm_h2 *bm_h2_stream_connection(const struct bm_h2_stream *stream);
void bm_h2_stream_set_arg(struct bm_h2_stream *stream, void *arg);
void *bm_h2_stream_arg(const struct bm_h2_stream *stream);

/* on_close was called, or is being called. */
bool bm_h2_stream_closed(const struct bm_h2_stream *stream);

/* The peer's direction has had its end; ours has, and it is in the output. */
bool bm_h2_stream_ended_in(const struct bm_h2_stream *stream);
bool bm_h2_stream_ended_out(const struct bm_h2_stream *stream);

/* Since when its source could say something and nothing was taken, for want of a window or of room
 * in the output; UINT64_MAX: it has nothing to say. A peer that opens windows by the byte
 * (CVE-2019-9511), or not at all. */
uint64_t bm_h2_stream_blocked_since_ns(const struct bm_h2_stream *stream);

#endif
