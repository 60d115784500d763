/* An operation: one request to the kernel, embedded in the object it belongs to.
 *
 * The address of the op is the user_data of its submission. From bm_op_start() until the callback
 * that ends it, the op and every buffer it names are the kernel's: they neither move nor die.
 *
 *     IDLE -> QUEUED (in line, the kernel knows nothing) -> INFLIGHT -> callback -> IDLE
 *                                     bm_op_cancel() only asks: -> CANCELLING -> callback
 *
 * The callback runs on the reactor's thread, from its loop, never from inside bm_op_start() or
 * bm_op_cancel(). An ordinary op calls back exactly once. A multishot op calls back many times; the
 * last one has bm_op_more(flags) false, and only then is the op IDLE. When it is IDLE the callback
 * may free or restart it. */
#ifndef BM_OP_H
#define BM_OP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/list.h"

struct bm_reactor;
struct bm_op;

/* res: the kernel's result, >= 0 or -errno. flags: the CQE's flags (bm_op_more, bm_op_buffer). */
typedef void bm_op_fn(struct bm_op *op, int res, uint32_t flags);

enum bm_op_kind {
    BM_OP_NOP,
    BM_OP_ACCEPT,  /* fd; flags: SOCK_CLOEXEC|SOCK_NONBLOCK are always added; single shot */
    BM_OP_CONNECT, /* fd, addr, len */
    BM_OP_SENDMSG, /* fd, addr = const struct msghdr *, flags (MSG_NOSIGNAL always added) */
    BM_OP_RECVMSG, /* fd, addr = struct msghdr *, flags (MSG_CMSG_CLOEXEC always added) */
    BM_OP_RECVMSG_MULTISHOT, /* fd, addr = struct msghdr * (namelen, controllen only), group */
    BM_OP_READ,              /* fd, addr, len, offset (-1: current) */
    BM_OP_WRITE,             /* fd, addr, len, offset (-1: current) */
    BM_OP_SEND,              /* fd, addr, len, flags */
    BM_OP_RECV,              /* fd, addr, len, flags */
    BM_OP_POLL,              /* fd, flags = poll events; single shot */
    BM_OP_CLOSE,             /* fd */
    BM_OP_SHUTDOWN,          /* fd, flags = SHUT_* */
    BM_OP_FSYNC,             /* fd, flags: 1 = data only */
};

enum bm_op_state {
    BM_OP_IDLE = 0,
    BM_OP_QUEUED,
    BM_OP_INFLIGHT,
    BM_OP_CANCELLING,
};

struct bm_op {
    bm_op_fn *fn;
    struct bm_list node; /* the reactor's: in line for the submission queue */
    uint8_t kind;        /* enum bm_op_kind */
    uint8_t state;       /* enum bm_op_state; the reactor's */
    uint16_t group;      /* provided buffer group, for RECVMSG_MULTISHOT */
    bool quiet;          /* SENDMSG, SEND: see below */
    bool hurried;        /* quiet, and somebody waits for its end; the reactor's */
    int fd;
    uint32_t len;
    uint32_t flags;
    const void *addr;
    uint64_t offset;
    uint64_t news_until;  /* quiet, and taken by the kernel: see completion.c; the reactor's */
    const int *close_fds; /* SENDMSG: close_count fds to be closed by the kernel once it has sent */
    uint16_t close_count;
    bool closes_linked; /* ... and it was asked to: with res > 0 they are no longer the caller's */
};

/* A quiet send ends inside its submission, one way or the other (MSG_DONTWAIT), and asks for no
 * completion when it ends well: so an answer costs one enter that sends it and waits for the next
 * request, not two. The callback runs all the same, with res = len (the caller sets it to what the
 * message holds), but only in a turn that comes for another reason: for sends whose end nobody waits
 * for. -EAGAIN: the socket had no room, nothing was sent; send again without. */
/* close_fds: the copies of what a message passes on are closed by the same submission, in the kernel,
 * right behind the send and only if that succeeded. Without closes_linked in the callback (there may
 * not have been room) they are still the caller's to close. */
static inline void bm_op_init(struct bm_op *op, enum bm_op_kind kind, bm_op_fn *fn)
{
    *op = (struct bm_op){.fn = fn, .kind = (uint8_t)kind, .fd = -1};
}

static inline bool bm_op_idle(const struct bm_op *op)
{
    return op->state == BM_OP_IDLE;
}

/* Puts the op in line for the end of the turn, where the line becomes submissions in its order. Never
 * fails and never calls back from inside: what finds the submission queue full stays in line for the
 * next turn; a submission the kernel refuses comes back through the callback as a negative result.
 * The op must be IDLE. */
void bm_op_start(struct bm_reactor *reactor, struct bm_op *op);

/* Asks the kernel to end the op early; one still in line is ended without asking. The callback still
 * runs, exactly once more, usually with -ECANCELED but possibly with the true result when that came
 * first: its fds and bytes are then the caller's to dispose of. No effect on an IDLE op or one already
 * being cancelled; a quiet one that has left ends in the next turn, which then comes at once. */
void bm_op_cancel(struct bm_reactor *reactor, struct bm_op *op);

/* Somebody waits for the end of a quiet op after all: it comes in the next turn, at once. */
void bm_op_hurry(struct bm_reactor *reactor, struct bm_op *op);

/* More callbacks will follow this one. */
bool bm_op_more(uint32_t flags);

/* The provided buffer that came with this completion, or -1. It may be present when res <= 0 too:
 * whoever sees one gives it back with bm_buffers_recycle(). */
int bm_op_buffer(uint32_t flags);

#endif
