/* WebSocket (RFC 6455) once its handshake is over: frames in, bytes of binary messages out, and
 * back. The handshake is websocket_handshake.h's. Over HTTP/2 (RFC 8441) it is the same.
 *
 *     bm_websocket_receive ──> on_data… on_close
 *     bm_websocket_send, bm_websocket_close
 *     bm_websocket_output, bm_websocket_output_ack
 *     bm_websocket_tick at bm_websocket_next_ns
 *
 * Messages are binary; text is refused with 1003. They are handed on as their bytes come, and
 * nothing of one is kept. No extension is spoken, so that reserved bits are an error.
 *
 * A negative result of receive, receive_end or tick is the end of the connection, and given again
 * from then on. The peer has been told by then, with a close frame in the output: send what is
 * left, then close. */
#ifndef BM_WEBSOCKET_H
#define BM_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"

#define BM_WEBSOCKET_MESSAGE_MAX (UINT64_C(16) << 20) /* default of message_len_max */
/* What waits when a message is refused: four of the largest frames of a session. */
#define BM_WEBSOCKET_OUTPUT_MAX (256u << 10)
#define BM_WEBSOCKET_REASON_MAX 123u /* RFC 6455 section 5.5: 125 with the code */
#define BM_WEBSOCKET_PONGS_MAX 16u /* in the output at once; then the last PING alone is answered */
/* Frames without content (control frames, empty fragments; CVE-2019-9512, -9518 are those of
 * HTTP/2): so many at once, and so many a second. */
#define BM_WEBSOCKET_FRAMES_BURST 100u
#define BM_WEBSOCKET_FRAMES_RATE 10u
#define BM_WEBSOCKET_CLOSE_NS (5 * BM_NS_PER_S) /* from close frame to close frame, or to the end */
#define BM_WEBSOCKET_STALL_NS (30 * BM_NS_PER_S) /* output of which nothing is taken */

/* RFC 6455 section 7.4.1. */
enum bm_websocket_code {
    BM_WEBSOCKET_NORMAL = 1000,
    BM_WEBSOCKET_GOING_AWAY = 1001,
    BM_WEBSOCKET_PROTOCOL_ERROR = 1002,
    BM_WEBSOCKET_UNSUPPORTED = 1003,
    BM_WEBSOCKET_NO_CODE = 1005, /* never sent: the close frame was empty */
    BM_WEBSOCKET_BAD_DATA = 1007,
    BM_WEBSOCKET_POLICY = 1008,
    BM_WEBSOCKET_TOO_LARGE = 1009,
    BM_WEBSOCKET_INTERNAL = 1011,
};

struct bm_websocket;

/* Called from bm_websocket_receive only. The engine may not be freed in one; everything else may be
 * called but bm_websocket_receive. */
struct bm_websocket_handlers {
    /* The next bytes of a message, borrowed for the call; `end` with its last ones, which may be
     * none. */
    void (*on_data)(struct bm_websocket *websocket, const uint8_t *bytes, size_t len, bool end,
                    void *arg);
    /* The peer closes, once. BM_WEBSOCKET_NO_CODE: it did not say why. The reason is UTF-8,
     * borrowed for the call. The answer to it stands in the output afterwards; a message that has
     * not ended will not. */
    void (*on_close)(struct bm_websocket *websocket, uint16_t code, const char *reason,
                     size_t reason_len, void *arg);
};

struct bm_websocket_options {
    bool client;                                  /* masks what it sends */
    struct bm_account *account;                   /* or NULL */
    const struct bm_websocket_handlers *handlers; /* both set; outlives the engine */
    void *arg;
    uint64_t message_len_max; /* of a peer's message; 0: BM_WEBSOCKET_MESSAGE_MAX */
    uint64_t now_ns;
};

/* 0 or -ENOMEM. */
int bm_websocket_new(const struct bm_websocket_options *options,
                     struct bm_websocket **ret_websocket);
/* Calls nothing. NULL is fine; returns NULL. */
struct bm_websocket *bm_websocket_free(struct bm_websocket *websocket);

enum {
    BM_WEBSOCKET_CLOSED = 1, /* the peer has closed: nothing that it sends is looked at any more */
};

/* Bytes of the peer, all of which are taken. 0, BM_WEBSOCKET_CLOSED, or an error:
 *   -BEAM_EWEBSOCKET_PROTOCOL    1002: a reserved bit or opcode; a mask where there may be none, or
 *                                none where there has to be one; fragments out of order; control
 *                                frames that are long or fragmented; a code that may not be sent
 *   -BEAM_EWEBSOCKET_DATA        1003: text; 1007: a reason that is not UTF-8
 *   -BEAM_EWEBSOCKET_TOO_LARGE   1009
 *   -BEAM_EWEBSOCKET_FLOOD       1008
 *   -ENOMEM                      nothing could be told */
int bm_websocket_receive(struct bm_websocket *websocket, const uint8_t *bytes, size_t len,
                         uint64_t now_ns);
/* The connection's other end is gone. 0 after the peer's close frame; else -BEAM_EWEBSOCKET_CUT:
 * what is missing was lost. */
int bm_websocket_receive_end(struct bm_websocket *websocket);

/* One binary message from `count` pieces, copied into the output as one frame. 0, or with nothing
 * sent:
 *   -EAGAIN   BM_WEBSOCKET_OUTPUT_MAX or more wait; again after an acknowledgement
 *   -EPIPE    one of both has closed, or the connection is over
 *   -ENOMEM */
int bm_websocket_send(struct bm_websocket *websocket, const struct bm_bytes *pieces, size_t count);

/* Begins to close: the peer gets code and reason (at most BM_WEBSOCKET_REASON_MAX bytes of UTF-8; a
 * longer one is not sent) behind what waits, and has BM_WEBSOCKET_CLOSE_NS to answer. Messages
 * still come until it has. 0; -EPIPE: closed before; -EINVAL: a code that may not be sent;
 * -ENOMEM. */
int bm_websocket_close(struct bm_websocket *websocket, uint16_t code, const char *reason,
                       uint64_t now_ns);

/* The next bytes for the peer, or NULL and 0; they stay where they are until they are
 * acknowledged. */
const uint8_t *bm_websocket_output(struct bm_websocket *websocket, size_t *ret_len);
void bm_websocket_output_ack(struct bm_websocket *websocket, size_t len);

/* Gives back the output's memory where it is empty: for a connection that falls silent. */
void bm_websocket_trim(struct bm_websocket *websocket);

/* 0, or -ETIMEDOUT: the peer did not answer a close, or takes no output. */
int bm_websocket_tick(struct bm_websocket *websocket, uint64_t now_ns);
/* When to call it next; UINT64_MAX: no need. */
uint64_t bm_websocket_next_ns(const struct bm_websocket *websocket);

/* 0: it goes on. 1: all that will be said has been said and acknowledged: close the connection. A
 * server does so once both have closed; a client waits for it (RFC 6455 section 7.1.1) until
 * bm_websocket_receive_end or the deadline. */
int bm_websocket_over(const struct bm_websocket *websocket);

#endif
