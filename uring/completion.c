/* Where completions enter.
 *
 * Model: copied out of the ring in small batches, then dispatched one by one by the tag in their
 * user_data. Here faults are injected, memory that the kernel wrote is declared defined, buffers
 * change hands, and counters are kept; nowhere else does anybody look at a completion.
 *
 * Quiet ops. When the kernel has taken one, whatever it has to say of it stands in the ring already, or
 * in the overflow behind it. So its place in the stream of completions is noted then (news_until), and
 * once the reactor has got that far without having met the op, it ended well. A reactor that never
 * comes to the end of its completions gets that far all the same.
 *
 * Invariants: an op's last completion makes it IDLE before its callback runs, which may therefore
 * restart or free it; nothing of the op is touched after the callback. Callbacks run from the copy,
 * so they may submit, and the ring may fill again, without confusing the dispatch. */
#define _GNU_SOURCE
#include "uring/completion.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"
#include "uring/sleep.h"

struct bm_held {
    struct bm_op *op;
    int res;
    uint32_t flags;
};

#define NEWS_UNKNOWN UINT64_MAX /* completions have overflowed: how many come first, nobody knows */

struct bm_completion_hook bm_completion_hook;

/* The bytes a receiving op names were written by the kernel. */
static void declare_defined(const struct bm_op *op, int res)
{
#ifdef BM_SANITIZE_MEMORY
    if (res <= 0)
        return;
    if (op->kind == BM_OP_READ || op->kind == BM_OP_RECV) {
        bm_sanitize_defined(op->addr, (size_t)res);
    } else if (op->kind == BM_OP_RECVMSG) {
        const struct msghdr *msg = op->addr;
        bm_sanitize_defined(msg, sizeof(*msg));
        bm_sanitize_defined(msg->msg_name, msg->msg_namelen);
        bm_sanitize_defined(msg->msg_control, msg->msg_controllen);
        for (size_t i = 0; i < msg->msg_iovlen; i++)
            bm_sanitize_defined(msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);
    }
#else
    (void)op;
    (void)res;
#endif
}

static void deliver(struct bm_reactor *reactor, struct bm_op *op, int res, uint32_t flags)
{
    int buffer = bm_op_buffer(flags);
    if (buffer >= 0)
        bm_buffers_taken(reactor, op->group, buffer);
    declare_defined(op, res);
    if (res == -ENOBUFS)
        reactor->stats.enobufs++;
    if (!bm_op_more(flags)) {
        bm_list_unlink(&op->node);
        op->state = BM_OP_IDLE;
        bm_assert(reactor->inflight > 0);
        reactor->inflight--;
        if (op->hurried) {
            op->hurried = false;
            reactor->hurried--;
        }
    }
    op->fn(op, res, flags);
}

static bool held_back(const struct bm_reactor *reactor, const struct bm_op *op)
{
    for (unsigned i = 0; i < reactor->held_len; i++)
        if (reactor->held[i].op == op)
            return true;
    return false;
}

static void hold(struct bm_reactor *reactor, struct bm_op *op, int res, uint32_t flags)
{
    if (!reactor->held)
        reactor->held = bm_alloc(&reactor->account, sizeof(*reactor->held) * BM_HELD_MAX);
    bm_assert(reactor->held);
    bm_assert(reactor->held_len < BM_HELD_MAX);
    /* There is news of a quiet one: its silence means nothing any more. */
    if (op->quiet && op->state == BM_OP_INFLIGHT) {
        bm_list_unlink(&op->node);
        bm_list_push_back(&reactor->running, &op->node);
    }
    reactor->held[reactor->held_len++] = (struct bm_held){op, res, flags};
}

static void enter_op(struct bm_reactor *reactor, struct bm_op *op, int res, uint32_t flags)
{
    bm_assert(op->state == BM_OP_INFLIGHT || op->state == BM_OP_CANCELLING);
    if (BM_UNLIKELY(bm_completion_hook.fn != NULL)) {
        bool more = bm_op_more(flags);
        if (held_back(reactor, op) ||
            bm_completion_hook.fn(op, &res, &flags, bm_completion_hook.arg) == BM_COMPLETION_HOLD) {
            hold(reactor, op, res, flags);
            return;
        }
        bm_assert(bm_op_more(flags) == more);
    }
    deliver(reactor, op, res, flags);
}

void bm_completion_enter(struct bm_reactor *reactor, const struct bm_cqe *cqe)
{
    uint64_t rest = cqe->user_data & ~(uint64_t)BM_TAG_MASK;
    reactor->stats.cqes++;
    switch (cqe->user_data & BM_TAG_MASK) {
    case BM_TAG_OP:
        enter_op(reactor, (struct bm_op *)(uintptr_t)rest, cqe->res, cqe->flags);
        break;
    case BM_TAG_RANG:
        bm_doorbell_failed((struct bm_reactor *)(uintptr_t)rest);
        break;
    case BM_TAG_DOORBELL:
        bm_doorbell_taken(reactor, rest >> BM_TAG_BITS);
        break;
    case BM_TAG_WAKE:
        reactor->wake_armed = false;
        bm_doorbell_taken(reactor, 0);
        break;
    case BM_TAG_CLOSE:
        reactor->closing--; /* whatever the result: Linux has let go of the descriptor */
        break;
    case BM_TAG_TIMEOUT:
        reactor->timeout_armed = false;
        break;
    default:
        break; /* BM_TAG_IGNORE: a cancellation that found nothing */
    }
}

static void offer_held(struct bm_reactor *reactor)
{
    struct bm_held *held = reactor->held;
    unsigned len = reactor->held_len;
    reactor->held_len = 0;
    /* Refilled from the front while it is read: never ahead of the reader. */
    for (unsigned i = 0; i < len; i++) {
        struct bm_held h = held[i];
        enter_op(reactor, h.op, h.res, h.flags);
    }
}

static void run_ended(struct bm_reactor *reactor, unsigned max)
{
    struct bm_list *node;
    while (max-- > 0 && (node = bm_list_pop_front(&reactor->ended))) {
        struct bm_op *op = bm_list_entry(node, struct bm_op, node);
        struct bm_cqe cqe = {.user_data = (uint64_t)(uintptr_t)op, .res = -ECANCELED};
        bm_completion_enter(reactor, &cqe);
    }
}

static uint64_t news_end(const struct bm_reactor *reactor)
{
    if (bm_kernel_pending(reactor->kernel) & BM_PENDING_OVERFLOW)
        return NEWS_UNKNOWN;
    return reactor->reaped + bm_kernel_reapable(reactor->kernel);
}

void bm_completions_taken(struct bm_reactor *reactor)
{
    struct bm_list *node;
    if (bm_list_empty(&reactor->quiet))
        return;
    uint64_t until = news_end(reactor);
    for (node = reactor->quiet.next; node != &reactor->quiet; node = node->next)
        bm_list_entry(node, struct bm_op, node)->news_until = until;
    bm_list_splice_back(&reactor->left, &reactor->quiet);
}

/* Whether all that could be news of a quiet op has been looked at. */
static bool past_news(const struct bm_reactor *reactor, struct bm_op *op)
{
    if (op->news_until == NEWS_UNKNOWN)
        op->news_until = news_end(reactor); /* the overflow is in the ring now, or still is not */
    return op->news_until <= reactor->reaped;
}

/* Ends the quiet ops that have ended well. What has been reaped must have been dispatched. */
static void settle(struct bm_reactor *reactor)
{
    struct bm_list done;
    struct bm_list *node;
    bm_list_init(&done);
    while ((node = bm_list_front(&reactor->left))) {
        if (!past_news(reactor, bm_list_entry(node, struct bm_op, node)))
            break; /* those behind it left later */
        bm_list_unlink(node);
        bm_list_push_back(&done, node);
    }
    while ((node = bm_list_front(&done))) {
        struct bm_op *op = bm_list_entry(node, struct bm_op, node);
        struct bm_cqe cqe = {.user_data = (uint64_t)(uintptr_t)op, .res = (int)op->len};
        bm_list_unlink(node);
        bm_list_push_back(&reactor->running, node); /* deliver() takes it off, or a hook keeps it */
        reactor->stats.cqes--;                      /* the kernel posted none */
        bm_completion_enter(reactor, &cqe);
    }
}

static bool turn_is_long(struct bm_reactor *reactor)
{
    uint64_t now_ns = bm_clock_now_ns();
    if (reactor->turn_start_ns == 0)
        reactor->turn_start_ns = now_ns;
    return now_ns - reactor->turn_start_ns > BM_TURN_NS;
}

bool bm_completions_run(struct bm_reactor *reactor)
{
    if (BM_UNLIKELY(reactor->held_len > 0))
        offer_held(reactor);
    run_ended(reactor, BM_TURN_CQES);

    struct bm_cqe batch[BM_BATCH_CQES];
    bool left = false;
    const unsigned most = reactor->yielded ? 1 : BM_BATCH_CQES;
    reactor->yielded = false;
    for (unsigned done = 0; !left;) {
        unsigned n = bm_kernel_reap(reactor->kernel, batch, most);
        reactor->reaped += n;
        for (unsigned i = 0; i < n; i++)
            bm_completion_enter(reactor, &batch[i]);
        if (n < most)
            break;
        done += n;
        left = done >= BM_TURN_CQES || reactor->yielded || turn_is_long(reactor);
    }
    settle(reactor);
    return left || reactor->held_len > 0 || !bm_list_empty(&reactor->ended);
}

void bm_completions_deinit(struct bm_reactor *reactor)
{
    reactor->held = bm_free(&reactor->account, reactor->held, sizeof(*reactor->held) * BM_HELD_MAX);
}
