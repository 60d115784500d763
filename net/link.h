/* A link: a connected stream socket, with TLS on it or without, on its core's reactor. Bytes in, bytes
 * out, and the time that both may take; what they mean is its user's (connection.c), which it calls from
 * the loop and never from inside a call that is made here.
 *
 *     OPEN ── bm_link_close ──> CLOSING ── all is sent, FIN ──> LINGERING ──> GONE ──> on_gone
 *       └──── bm_link_abort, or closing takes too long ─────────────────────────┘ */
#ifndef BM_LINK_H
#define BM_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/proto/tls.h"
#include "uring/buffers.h"
#include "uring/op.h"
#include "uring/reactor.h"

struct bm_core;
struct bm_link;

#define BM_LINK_HANDSHAKE_NS (5 * BM_NS_PER_S) /* of TLS; spec section 10 */
#define BM_LINK_STALL_NS (30 * BM_NS_PER_S)    /* the peer takes nothing; CVE-2019-9511 */
#define BM_LINK_FAREWELL_NS (5 * BM_NS_PER_S)  /* what is left to say once it closes; ours */
#define BM_LINK_LINGER_NS (1 * BM_NS_PER_S)    /* from our FIN to the peer's; ours */
#define BM_LINK_LINGER_MAX (4u << 20)          /* bytes dropped meanwhile; ours */
#define BM_LINK_RETRY_NS (10 * BM_NS_PER_MS)   /* the kernel has no memory; ours */
#define BM_LINK_RECEIVE_MAX (16u << 10)        /* at once, where input may have to be kept */
#define BM_LINK_TRIM_NS (5 * BM_NS_PER_S)      /* idle so long, buffers are given back; ours */

/* All set; const. */
struct bm_link_events {
    /* TLS has proved the peer. Without TLS it is not called. */
    void (*on_secure)(struct bm_link *link);
    /* Bytes of the peer, TLS taken off; borrowed. Returns how many were taken. The others are kept and
     * given again, whenever something has happened; no more is received meanwhile. */
    size_t (*on_bytes)(struct bm_link *link, const uint8_t *bytes, size_t len);
    /* The peer sends no more: 0 in order, and all it sent was taken; else the link cannot go on: an
     * errno, or what TLS says. Once. */
    void (*on_end)(struct bm_link *link, int error);
    /* The next bytes for the peer, which stay where they are until they are acknowledged, and more may
     * be asked for before. NULL and 0: none. */
    const uint8_t *(*output)(struct bm_link *link, size_t *ret_len);
    void (*output_ack)(struct bm_link *link, size_t len);
    /* How many there are that are not acknowledged: output comes in pieces. */
    size_t (*output_len)(struct bm_link *link);
    /* Once in a turn for which bm_link_flush was called, before output is asked for. */
    void (*on_turn)(struct bm_link *link);
    /* Something has happened: what follows from it is decided here. */
    void (*settle)(struct bm_link *link);
    uint64_t (*next_ns)(
        struct bm_link *link); /* when on_tick is to be called; early calls come too */
    void (*on_tick)(struct bm_link *link, uint64_t now_ns);
    /* Nothing was sent for BM_LINK_TRIM_NS: buffers that are empty may go. */
    void (*on_idle)(struct bm_link *link);
    /* The socket is closed and nothing refers to the link any more: its memory, and `tls`, are the
     * user's. */
    void (*on_gone)(struct bm_link *link);
};

enum bm_link_phase {
    BM_LINK_OPEN,
    BM_LINK_CLOSING,
    BM_LINK_LINGERING,
    BM_LINK_GONE,
};

struct bm_link {
    struct bm_core *core;
    struct bm_account *account;
    const struct bm_link_events *events;
    struct bm_tls *tls; /* or NULL */
    int fd;
    uint8_t phase;   /* enum bm_link_phase */
    bool secure;     /* the handshake is over; or there is none */
    bool takes_all;  /* the user takes every byte: bm_link_take_all */
    bool ended;      /* the peer sends no more */
    bool end_told;   /* ... and on_end has said so */
    bool fin;        /* ... and neither does the socket have anything */
    bool mute;       /* the socket takes no more */
    bool closed;     /* close_notify is in the output */
    bool fell_short; /* the last send took a part, so that the next one waits for room */
    bool second;     /* the task has let others go first */
    bool shut_due;   /* bm_link_shut */
    bool shut;       /* FIN is sent */
    bool receive_later, send_later; /* the kernel had no memory: after retry_ns */
    int end_error, mute_error;
    unsigned depth; /* callbacks of the loop under way: nothing goes meanwhile */
    struct bm_op receive_op, send_op;
    struct bm_buffers_waiter buffers_waiter;
    struct bm_task task;
    struct bm_timer timer;
    uint8_t *kept; /* what the user has not taken, from kept_at */
    size_t kept_at, kept_len, kept_cap;
    uint8_t *early; /* received before us; given to the user in the first turn */
    size_t early_len;
    size_t lingered;
    /* UINT64_MAX: none. */
    uint64_t handshake_until_ns, stalled_until_ns, closing_until_ns, retry_ns, trim_ns;
};

struct bm_link_options {
    struct bm_core *core;
    struct bm_account *account; /* pays; stays */
    const struct bm_link_events *events;
    struct bm_tls_context *tls; /* or NULL */
    const struct bm_tls_start *tls_start;
    const void *early; /* bytes that were received already */
    size_t early_len;
};

/* Over a connected socket, taken on success. The link is the caller's memory. Nothing happens before the
 * loop turns. -ENOMEM, -EINVAL (tls_start). */
int bm_link_init(struct bm_link *link, const struct bm_link_options *options, int *fd);

/* There may be output, or something for on_turn: later in this turn, behind the tasks that are queued. */
void bm_link_flush(struct bm_link *link);
/* From now on the user takes every byte it is given: receiving never stops. */
void bm_link_take_all(struct bm_link *link);
/* Ends our direction behind the output that there is; the peer may go on. */
void bm_link_shut(struct bm_link *link);
/* Sends the output that there is, says that it was all, and waits a moment for the peer to do so too.
 * broken: nothing of that, as the peer has to see that something is missing: it is reset. */
void bm_link_close(struct bm_link *link, bool broken);
/* Ends it. told: with what can be sent at once. */
void bm_link_abort(struct bm_link *link, bool told);

/* Around what the user does from the loop and outside of the events: its own timers and tasks. */
void bm_link_enter(struct bm_link *link);
void bm_link_leave(struct bm_link *link); /* it may be gone */

#endif
