/* An operation (op): one request to the kernel, embedded in the object it belongs to.
 *
 * The address of the op is the user_data of its submission. From bm_op_start() until the callback
 * that ends it, the op and every buffer it names are the kernel's: they neither move nor die.
 *
 *     IDLE -> QUEUED (in line; the kernel does not know it yet) -> INFLIGHT -> callback -> IDLE
 *     QUEUED or INFLIGHT -> CANCELLING (bm_op_cancel() has asked) -> callback -> IDLE
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
    BM_OP_WRITE,             /* fd, addr, len, offset (-1: current); flags: 1 = on a thread of the
                                kernel's, where SIGPIPE is blocked (write(2): a pipe nobody reads) */
    BM_OP_SEND,              /* fd, addr, len, flags */
    BM_OP_RECV,              /* fd, addr, len, flags */
    BM_OP_RECV_MULTISHOT, /* fd, group, flags (no MSG_WAITALL); of streams: res bytes in a buffer */
    BM_OP_RECV_SELECT,    /* the same, once; len: at most so many, 0: what the buffer holds */
    BM_OP_POLL,           /* fd, flags = poll events; single shot */
    BM_OP_CLOSE,          /* fd; flags: 1 = on another thread, as it may take long */
    BM_OP_SHUTDOWN,       /* fd, flags = SHUT_* */
    BM_OP_FSYNC,          /* fd, flags: 1 = data only */
    BM_OP_RENAME,         /* fd = directory of both, addr = old name, offset = address of the new */
    BM_OP_FALLOCATE,      /* fd, offset, len: the file reaches so far, with room for it */
};

enum bm_op_state {
    BM_OP_IDLE = 0,
    BM_OP_QUEUED,
    BM_OP_INFLIGHT,
    BM_OP_CANCELLING,
};

/* On a stream socket a send may take a part: 0 < res < len, and the rest is the caller's to send. With
 * MSG_WAITALL in flags the kernel goes on by itself until all has gone; then res < len says that the rest
 * cannot go (an error, or a cancellation), and the next send is told why. A receive there ends with 0 at
 * the end of the stream. A multishot goes on only as long as there are bytes: its end, and every error, is
 * its last completion. -ENOBUFS: the group had no buffer; nothing is lost.
 *
 * Two options of SENDMSG, of which SEND has the first:
 *
 * A *quiet* send asks for no completion if it succeeds, so that an answer costs one enter, which sends
 * it and waits for the next request, instead of two. It never waits in the kernel (MSG_DONTWAIT):
 * -EAGAIN says that the socket had no room and nothing was sent; it is then sent again without this
 * option. The callback runs all the same, but only in a turn that comes for another reason, with
 * res = len, which the caller has set to what the message holds. For sends whose end nobody waits for.
 * On a stream socket it is not silent about a part (MSG_WAITALL is added for that): 0 < res < len, and the
 * rest is to be sent without this option, since there was no room for it.
 *
 * *close_fds* are the sender's copies of the descriptors it passes on. They are closed in the kernel by
 * the same submission, behind the send and only if that succeeded. If closes_linked is false in the
 * callback (there was no room for the submissions) they are still the caller's to close. */
/* Any op may be *linked*: the one that is started right behind it, before any other, is submitted in the
 * same batch and runs when this one has succeeded; if it fails, or moves fewer bytes than asked for, the
 * other ends with -ECANCELED. Who cancels the first cancels the second too. Where the kernel has taken a batch
 * only in part, nobody knows whether it has cut the link: `linked` is false in the callbacks then. */
struct bm_op {
    bm_op_fn *fn;
    struct bm_list node; /* the reactor's: the one list of it that the op is on */
    uint8_t kind;        /* enum bm_op_kind */
    uint8_t state;       /* enum bm_op_state; the reactor's */
    uint16_t group;      /* provided buffer group, for RECVMSG_MULTISHOT and RECV_… */
    bool quiet;          /* SENDMSG, SEND */
    bool linked;         /* not with close_fds */
    bool hurried;        /* quiet, and somebody waits for its end; the reactor's */
    int fd;
    uint32_t len;
    uint32_t flags;
    const void *addr;
    uint64_t offset;
    uint64_t news_until;  /* quiet, and taken by the kernel: see completion.c; the reactor's */
    const int *close_fds; /* SENDMSG; frozen like every buffer */
    uint16_t close_count;
    bool closes_linked; /* the reactor's: with res > 0 the fds are no longer the caller's */
};

static inline void bm_op_init(struct bm_op *op, enum bm_op_kind kind, bm_op_fn *fn)
{
    *op = (struct bm_op){.fn = fn, .kind = (uint8_t)kind, .fd = -1};
}

static inline bool bm_op_idle(const struct bm_op *op)
{
    return op->state == BM_OP_IDLE;
}

/* Puts the op in line. At the end of the turn the line becomes submissions, in its order; what finds
 * the submission queue full stays in line for the next turn. Never fails and never calls back from
 * inside: what the kernel refuses comes back through the callback as a negative result. The op must
 * be IDLE. */
void bm_op_start(struct bm_reactor *reactor, struct bm_op *op);

/* Asks for an early end. The callback still runs, exactly once more: usually with -ECANCELED, but with
 * the true result if that came first, whose fds and bytes are then the caller's to dispose of. An op
 * still in line ends without the kernel. A quiet send that has left is only hurried (below). No effect
 * on an op that is IDLE or being cancelled. */
void bm_op_cancel(struct bm_reactor *reactor, struct bm_op *op);

/* Somebody waits for the end of a quiet op after all: the next turn comes at once and brings it. */
void bm_op_hurry(struct bm_reactor *reactor, struct bm_op *op);

/* More callbacks will follow this one. */
bool bm_op_more(uint32_t flags);

/* The provided buffer that came with this completion, or -1. It may be present when res <= 0 too:
 * whoever sees one gives it back with bm_buffers_recycle(). */
int bm_op_buffer(uint32_t flags);

#endif
