/* From an op to a submission.
 *
 * Model: starting an op only puts it in line. At the end of the turn the line becomes submissions,
 * in its order, as far as the submission queue has room; the rest waits for the next turn, after
 * completions have been looked at. So there is no "queue full" for the user, one batch a turn, and
 * an op cancelled before it left the line costs the kernel nothing. A cancellation of an op in
 * flight stands in the same line, on the op's own node: it needs no memory of its own.
 *
 * Invariants: an op that is not IDLE is on exactly one list of the reactor: in line, running, quiet, or
 * ended without the kernel; its last completion takes it off. The result of a cancellation is
 * ignored: the op's own last completion is the truth. */
#include "uring/op.h"

#include <errno.h>

#include "base/assert.h"
#include "uring/completion.h"
#include "uring/embed.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"

bool bm_op_more(uint32_t flags)
{
    return flags & IORING_CQE_F_MORE;
}

int bm_op_buffer(uint32_t flags)
{
    return flags & IORING_CQE_F_BUFFER ? (int)(flags >> IORING_CQE_BUFFER_SHIFT) : -1;
}

void bm_op_start(struct bm_reactor *reactor, struct bm_op *op)
{
    bm_assert(op->state == BM_OP_IDLE);
    bm_assert(op->fn);
    op->state = BM_OP_QUEUED;
    reactor->inflight++;
    bm_list_push_back(&reactor->queued, &op->node);
    bm_embed_kick(reactor);
}

void bm_op_cancel(struct bm_reactor *reactor, struct bm_op *op)
{
    if (op->state == BM_OP_QUEUED) {
        bm_list_unlink(&op->node);
        bm_list_push_back(&reactor->ended, &op->node);
    } else if (op->state == BM_OP_INFLIGHT && op->quiet) {
        bm_op_hurry(reactor, op);
        return;
    } else if (op->state == BM_OP_INFLIGHT) {
        bm_list_unlink(&op->node);
        bm_list_push_back(&reactor->queued, &op->node);
    } else {
        return;
    }
    op->state = BM_OP_CANCELLING;
    bm_embed_kick(reactor);
}

void bm_op_hurry(struct bm_reactor *reactor, struct bm_op *op)
{
    if (op->state == BM_OP_IDLE || !op->quiet || op->hurried)
        return;
    op->hurried = true;
    reactor->hurried++;
    bm_embed_kick(reactor);
}

static void fill_send(struct io_uring_sqe *sqe, const struct bm_op *op)
{
    sqe->msg_flags = op->flags | MSG_NOSIGNAL;
    if (op->quiet) {
        /* Of a stream: less than all is then no success, which would be silent. */
        sqe->msg_flags |= MSG_DONTWAIT | MSG_WAITALL;
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    }
}

static void fill(struct io_uring_sqe *sqe, const struct bm_op *op)
{
    sqe->fd = op->fd;
    sqe->addr = (uint64_t)(uintptr_t)op->addr;
    sqe->user_data = (uint64_t)(uintptr_t)op;

    switch ((enum bm_op_kind)op->kind) {
    case BM_OP_NOP:
        sqe->opcode = IORING_OP_NOP;
        sqe->addr = 0;
        break;
    case BM_OP_ACCEPT:
        sqe->opcode = IORING_OP_ACCEPT;
        sqe->addr = 0;
        sqe->accept_flags = op->flags | SOCK_CLOEXEC | SOCK_NONBLOCK;
        break;
    case BM_OP_CONNECT:
        sqe->opcode = IORING_OP_CONNECT;
        sqe->off = op->len;
        break;
    case BM_OP_SENDMSG:
        sqe->opcode = IORING_OP_SENDMSG;
        sqe->len = 1;
        fill_send(sqe, op);
        break;
    case BM_OP_RECVMSG:
        sqe->opcode = IORING_OP_RECVMSG;
        sqe->len = 1;
        sqe->msg_flags = op->flags | MSG_CMSG_CLOEXEC;
        break;
    case BM_OP_RECVMSG_MULTISHOT:
        sqe->opcode = IORING_OP_RECVMSG;
        sqe->len = 1;
        sqe->msg_flags = op->flags | MSG_CMSG_CLOEXEC;
        sqe->ioprio = IORING_RECV_MULTISHOT;
        sqe->flags = IOSQE_BUFFER_SELECT;
        sqe->buf_group = op->group;
        break;
    case BM_OP_READ:
        sqe->opcode = IORING_OP_READ;
        sqe->len = op->len;
        sqe->off = op->offset;
        break;
    case BM_OP_WRITE:
        sqe->opcode = IORING_OP_WRITE;
        sqe->len = op->len;
        sqe->off = op->offset;
        sqe->flags = op->flags & 1 ? IOSQE_ASYNC : 0;
        break;
    case BM_OP_SEND:
        sqe->opcode = IORING_OP_SEND;
        sqe->len = op->len;
        fill_send(sqe, op);
        break;
    case BM_OP_RECV:
        sqe->opcode = IORING_OP_RECV;
        sqe->len = op->len;
        sqe->msg_flags = op->flags;
        break;
    case BM_OP_RECV_MULTISHOT:
        sqe->opcode = IORING_OP_RECV;
        sqe->addr = 0;
        sqe->msg_flags = op->flags;
        sqe->ioprio = IORING_RECV_MULTISHOT;
        sqe->flags = IOSQE_BUFFER_SELECT;
        sqe->buf_group = op->group;
        break;
    case BM_OP_RECV_SELECT:
        sqe->opcode = IORING_OP_RECV;
        sqe->addr = 0;
        sqe->len = op->len;
        sqe->msg_flags = op->flags;
        sqe->flags = IOSQE_BUFFER_SELECT;
        sqe->buf_group = op->group;
        break;
    case BM_OP_POLL:
        sqe->opcode = IORING_OP_POLL_ADD;
        sqe->addr = 0;
        sqe->poll32_events = op->flags;
        break;
    case BM_OP_CLOSE:
        sqe->opcode = IORING_OP_CLOSE;
        sqe->addr = 0;
        /* The last close of a file without a name frees all of it, on the thread that closes it. */
        sqe->flags = op->flags & 1 ? IOSQE_ASYNC : 0;
        break;
    case BM_OP_SHUTDOWN:
        sqe->opcode = IORING_OP_SHUTDOWN;
        sqe->addr = 0;
        sqe->len = op->flags;
        break;
    case BM_OP_FSYNC:
        sqe->opcode = IORING_OP_FSYNC;
        sqe->addr = 0;
        sqe->fsync_flags = op->flags & 1 ? IORING_FSYNC_DATASYNC : 0;
        break;
    case BM_OP_RENAME:
        sqe->opcode = IORING_OP_RENAMEAT;
        sqe->len = (uint32_t)op->fd;
        sqe->off = op->offset;
        break;
    case BM_OP_FALLOCATE:
        sqe->opcode = IORING_OP_FALLOCATE;
        sqe->addr = op->len;
        sqe->off = op->offset;
        break;
    default:
        bm_assert_failed("a known kind of op", __FILE__, __LINE__);
    }
    if (op->linked)
        sqe->flags |= IOSQE_IO_LINK;
}

static void fill_cancel(struct io_uring_sqe *sqe, uint64_t user_data)
{
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->addr = user_data;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = BM_TAG_IGNORE;
}

/* Our own read of the eventfd goes first: without it no other thread could wake us. */
static bool submit_wake(struct bm_reactor *reactor)
{
    if (reactor->wake_armed || reactor->embedded || reactor->ending)
        return true;
    struct io_uring_sqe *sqe = bm_kernel_sqe(reactor->kernel);
    if (!sqe)
        return false;
    sqe->opcode = IORING_OP_READ;
    sqe->fd = reactor->wake_fd;
    sqe->addr = (uint64_t)(uintptr_t)&reactor->wake_value;
    sqe->len = sizeof(reactor->wake_value);
    sqe->user_data = BM_TAG_WAKE;
    reactor->wake_armed = true;
    return true;
}

/* These give something back, and a reactor that is ending still does that. */
static bool gives_back(const struct bm_op *op)
{
    return op->kind == BM_OP_CLOSE || op->kind == BM_OP_SHUTDOWN;
}

/* Each close goes on whatever became of the one before; none goes unless the send did. */
static bool link_closes(struct bm_reactor *reactor, struct io_uring_sqe *sqe,
                        const struct bm_op *op)
{
    /* A hook may call a send failed that did happen; then the closes must not have happened. */
    if (!BM_KERNEL_CLOSES || bm_completion_hook.fn ||
        bm_kernel_room(reactor->kernel) < op->close_count)
        return false;
    sqe->flags |= IOSQE_IO_LINK;
    for (unsigned i = 0; i < op->close_count; i++) {
        sqe = bm_kernel_sqe(reactor->kernel);
        sqe->opcode = IORING_OP_CLOSE;
        sqe->fd = op->close_fds[i];
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
        if (i + 1u < op->close_count)
            sqe->flags |= IOSQE_IO_HARDLINK;
        sqe->user_data = BM_TAG_IGNORE;
    }
    return true;
}

bool bm_ops_submit(struct bm_reactor *reactor)
{
    if (!submit_wake(reactor))
        return false;
    struct bm_list *node;
    struct bm_op *before = NULL;
    while ((node = bm_list_front(&reactor->queued))) {
        struct bm_op *op = bm_list_entry(node, struct bm_op, node);
        if (reactor->ending && op->state == BM_OP_QUEUED && !gives_back(op)) {
            bm_op_cancel(reactor, op);
            continue;
        }
        /* A chain is submitted whole, or it is none. */
        unsigned chain_len = 1u + op->close_count + op->linked;
        if (chain_len > 1 && bm_kernel_room(reactor->kernel) < chain_len &&
            bm_kernel_queued(reactor->kernel) > 0)
            return false;
        struct io_uring_sqe *sqe = bm_kernel_sqe(reactor->kernel);
        if (!sqe) {
            if (before)
                before->linked = false; /* to nothing */
            return false;
        }
        bm_list_unlink(node);
        bm_list_push_back(op->quiet ? &reactor->quiet : &reactor->running, node);
        if (op->state == BM_OP_CANCELLING) {
            fill_cancel(sqe, (uint64_t)(uintptr_t)op);
        } else {
            fill(sqe, op);
            op->state = BM_OP_INFLIGHT;
            op->closes_linked = op->close_count > 0 && link_closes(reactor, sqe, op);
        }
        before = op;
    }
    return bm_list_empty(&reactor->ended);
}

static void cancel_tag(struct bm_reactor *reactor, uint64_t tag)
{
    struct io_uring_sqe *sqe = bm_kernel_sqe(reactor->kernel);
    if (sqe)
        fill_cancel(sqe, tag);
}

void bm_ops_cancel_all(struct bm_reactor *reactor)
{
    if (reactor->wake_armed)
        cancel_tag(reactor, BM_TAG_WAKE);
    if (reactor->timeout_armed)
        cancel_tag(reactor, BM_TAG_TIMEOUT);

    struct bm_list running;
    struct bm_list *node;
    bm_list_init(&running);
    bm_list_splice_back(&running, &reactor->running);
    while ((node = bm_list_pop_front(&running))) {
        struct bm_op *op = bm_list_entry(node, struct bm_op, node);
        if (gives_back(op)) {
            bm_list_push_back(&reactor->running, node);
        } else {
            op->state = BM_OP_CANCELLING;
            bm_list_push_back(&reactor->queued, node);
        }
    }
}
