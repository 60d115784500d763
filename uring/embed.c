/* A reactor inside a foreign loop.
 *
 * Model: the host polls one eventfd, level-triggered, and calls the turn when it is readable; that is
 * its whole contract. The ring's own descriptor will not do: with deferred task work a sleeping poll
 * is not woken by completions. The eventfd is registered with the ring instead, and everything that
 * can happen makes it readable: a completion and a doorbell (through the ring), a foreign thread
 * (writes it, as its doorbell), a timer (one OP_TIMEOUT for the earliest, the only timer that is an
 * op), work left by the budget or queued by the host between turns (we write it ourselves).
 *
 * During a turn the ring's notifications are off, because the turn looks anyway. Between the moment
 * they are on again and the host's sleep lies the same protocol as before any sleep, with the ring's
 * TASKRUN among what is looked at: what came while they were off is found there.
 *
 * It never spins and never blocks. */
#define _GNU_SOURCE
#include "uring/embed.h"

#include <unistd.h>

#include "base/assert.h"
#include "uring/reactor_inner.h"
#include "uring/sleep.h"

#define PASSES_MAX 4u /* ours: what is done at once is answered without a round through the host */

int bm_embed_init(struct bm_reactor *reactor)
{
    /* Between turns an embedded reactor counts as asleep. Relaxed: nobody else knows it yet. */
    atomic_store_explicit(&reactor->sleeping, 1, memory_order_relaxed);
    return bm_kernel_eventfd(reactor->kernel, reactor->wake_fd);
}

void bm_embed_kick(struct bm_reactor *reactor)
{
    if (!reactor->embedded || reactor->in_turn || reactor->kicked)
        return;
    reactor->kicked = true;
    bm_doorbell_eventfd(reactor);
}

/* False when it has to be tried again: the queue is full. */
static bool set_timeout(struct bm_reactor *reactor)
{
    uint64_t next_ns = bm_wheel_next_ns(&reactor->wheel);
    /* One that is too early is only a turn too many; a cancelled timer is not worth an op. */
    if (next_ns == BM_WHEEL_NEVER || (reactor->timeout_armed && reactor->timeout_at_ns <= next_ns))
        return true;
    struct io_uring_sqe *sqe = bm_kernel_sqe(reactor->kernel);
    if (!sqe)
        return false;

    uint64_t now_ns = bm_clock_now_ns();
    uint64_t in_ns = next_ns > now_ns ? next_ns - now_ns : 1;
    reactor->timeout = (struct __kernel_timespec){
        .tv_sec = (long long)(in_ns / BM_NS_PER_S),
        .tv_nsec = (long long)(in_ns % BM_NS_PER_S),
    };
    if (reactor->timeout_armed) {
        sqe->opcode = IORING_OP_TIMEOUT_REMOVE;
        sqe->fd = -1;
        sqe->addr = BM_TAG_TIMEOUT;
        sqe->addr2 = (uint64_t)(uintptr_t)&reactor->timeout;
        sqe->timeout_flags = IORING_TIMEOUT_UPDATE;
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
        sqe->user_data = BM_TAG_IGNORE; /* it fails when the old one has just expired: also good */
    } else {
        sqe->opcode = IORING_OP_TIMEOUT;
        sqe->fd = -1;
        sqe->addr = (uint64_t)(uintptr_t)&reactor->timeout;
        sqe->len = 1;
        sqe->user_data = BM_TAG_TIMEOUT;
    }
    reactor->timeout_armed = true;
    reactor->timeout_at_ns = next_ns;
    return true;
}

static void clear_eventfd(struct bm_reactor *reactor)
{
    uint64_t value;
    ssize_t n = read(reactor->wake_fd, &value, sizeof(value));
    (void)n; /* empty: the host came without being called, which is allowed */
}

void bm_embed_turn(struct bm_reactor *reactor)
{
    bm_kernel_notify(reactor->kernel, false);
    clear_eventfd(reactor);
    bm_sleep_end(reactor);
    reactor->kicked = false;

    bool left;
    unsigned passes = 0;
    do {
        left = bm_reactor_once(reactor);
        left |= !set_timeout(reactor);
        bm_reactor_poll(reactor);
        left |= bm_kernel_queued(reactor->kernel) > 0; /* it took none, or not all: nobody waits */
    } while (!left && ++passes < PASSES_MAX &&
             (bm_kernel_pending(reactor->kernel) & BM_PENDING_CQE));

    bm_kernel_notify(reactor->kernel, true);
    /* What was deferred while it was off is run now; of what comes from here on the eventfd tells. */
    if (bm_kernel_pending(reactor->kernel) & BM_PENDING_TASKRUN)
        bm_reactor_poll(reactor);
    /* Left: the host is called again by us, so that we count as awake and need no doorbells. */
    if (left || !bm_sleep_begin(reactor))
        bm_embed_kick(reactor);
}
