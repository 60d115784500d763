/* The sleep protocol and the doorbells.
 *
 *   consumer                                 producer
 *   drain                                    publish
 *   exchange(sleeping, 1)                    if exchange(sleeping, 0) was 1:
 *   look at everything again                     ring the doorbell, before returning
 *   nothing: block                           else: nothing, the consumer is awake and will look
 *
 * Why it loses nothing: both sides use a read-modify-write on the one word, so one of them comes
 * later in its modification order and, by acquire and release, sees what the other did before. If
 * the producer is later it finds the 1 and rings; if the consumer is later its second look sees what
 * was published. `sleeping` is never stored plainly: that would cut the chain through a producer
 * which found 0. No stand-alone fence is used, because the thread sanitizer cannot see one.
 *
 * Whoever takes the 1 must ring at once: a second producer that finds 0 relies on it.
 *
 * Doorbells: MSG_RING from a reactor's thread, submitted there and then; it carries the sender's
 * time, which is how the cost of a wake is measured. From anywhere else, to a reactor of another family,
 * or when MSG_RING is refused, the eventfd. A doorbell says "look", never what at: data is published by our atomics. */
#define _GNU_SOURCE
#include "uring/sleep.h"

#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"

/* For the latest timers: far below what the kernel's arithmetic can hold. */
#define SLEEP_MAX_NS (24 * 3600 * BM_NS_PER_S)

bool bm_sleep_begin(struct bm_reactor *reactor)
{
    /* acq_rel; partners: the exchanges in bm_reactor_wake(), bm_reactor_stop(), bm_wake_dirty(). */
    atomic_exchange_explicit(&reactor->sleeping, 1, memory_order_acq_rel);
    if (!bm_reactor_anything(reactor))
        return true;
    atomic_exchange_explicit(&reactor->sleeping, 0, memory_order_acq_rel);
    return false;
}

void bm_sleep_end(struct bm_reactor *reactor)
{
    if (atomic_load_explicit(&reactor->sleeping, memory_order_relaxed))
        atomic_exchange_explicit(&reactor->sleeping, 0, memory_order_acq_rel);
}

void bm_reactor_sleep(struct bm_reactor *reactor)
{
    if (!bm_sleep_begin(reactor)) {
        bm_reactor_poll(reactor);
        return;
    }

    reactor->stats.sleeps++;
    uint64_t next_ns = bm_wheel_next_ns(&reactor->wheel);
    /* Without a timer liburing goes on waiting after a signal, if something was submitted; that is well
     * where its handler has run. */
    bool forever = next_ns == BM_WHEEL_NEVER && !BM_HANDLERS_WAIT;
    if (forever && !reactor->spinner.adaptive) {
        /* Nobody asks how late it is or how long it took. */
        reactor->slept_at_ns = 0;
        (void)bm_reactor_wait(reactor, BM_WAIT_FOREVER);
        bm_sleep_end(reactor);
        return;
    }

    uint64_t start_ns = bm_clock_now_ns();
    uint64_t timeout_ns = next_ns > start_ns ? next_ns - start_ns : 0;
    if (forever)
        timeout_ns = BM_WAIT_FOREVER;
    else if (timeout_ns > SLEEP_MAX_NS)
        timeout_ns = SLEEP_MAX_NS;
    bool pure = bm_kernel_queued(reactor->kernel) == 0;

    reactor->slept_at_ns = start_ns;
    int r = bm_reactor_wait(reactor, timeout_ns);
    bm_sleep_end(reactor);

    uint64_t now_ns = reactor->now_ns = bm_clock_now_ns();
    reactor->now_fresh = true;
    uint64_t slept_ns = now_ns - start_ns;
    if (r == -ETIME) {
        reactor->slept_at_ns = 0;
        if (timeout_ns > 0 && slept_ns >= timeout_ns)
            bm_spinner_sample_wake(&reactor->spinner, slept_ns - timeout_ns);
    } else if (pure || slept_ns > reactor->spinner.wake_ns) {
        /* With submissions of our own a short one may have been no sleep at all: an op that was done
         * at once ends it, and says nothing about how soon others answer. */
        bm_spinner_slept(&reactor->spinner, slept_ns);
    }
    reactor->stats.wake_cost_ns = reactor->spinner.wake_ns;
    reactor->stats.spin_budget_ns = reactor->spinner.budget_ns;
}

void bm_doorbell_eventfd(struct bm_reactor *to)
{
    const uint64_t one = 1;
    int saved = errno;
    /* A child would wake its parent, which has nothing to look at. */
    if (bm_reactor_forked(to))
        return;
    ssize_t n = write(to->wake_fd, &one, sizeof(one));
    /* Non-blocking: full means that nobody has read the bells before this one, which is enough. */
    (void)n;
    errno = saved;
}

static bool ring_by_message(struct bm_reactor *from, struct bm_reactor *to)
{
    struct io_uring_sqe *sqe = bm_kernel_sqe(from->kernel);
    if (!sqe)
        return false;
    sqe->opcode = IORING_OP_MSG_RING;
    sqe->fd = to->ring_fd;
    sqe->addr = IORING_MSG_DATA;
    sqe->off = bm_clock_now_ns() << BM_TAG_BITS | BM_TAG_DOORBELL;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = (uint64_t)(uintptr_t)to | BM_TAG_RANG;
    unsigned queued = bm_kernel_queued(from->kernel);
    int r = bm_kernel_submit(from->kernel);
    bm_reactor_entered(from, queued, r);
    return r > 0 && bm_kernel_queued(from->kernel) == 0;
}

static void ring(struct bm_reactor *from, struct bm_reactor *to)
{
    if (from)
        from->stats.wakes_sent++;
    if (!from || from == to || from->family != to->family || bm_reactor_forked(from) ||
        !ring_by_message(from, to))
        bm_doorbell_eventfd(to);
}

void bm_reactor_wake(struct bm_reactor *to)
{
    struct bm_reactor *from = bm_reactor_current();
    /* acq_rel; partner: bm_sleep_begin(). */
    if (atomic_exchange_explicit(&to->sleeping, 0, memory_order_acq_rel))
        ring(from, to);
    else if (from)
        from->stats.wakes_skipped++;
}

void bm_reactor_wake_signal(struct bm_reactor *to)
{
    /* acq_rel; partner: bm_sleep_begin(). The eventfd also from a reactor's own thread: a signal
     * handler may have interrupted it in the middle of a submission. */
    if (atomic_exchange_explicit(&to->sleeping, 0, memory_order_acq_rel))
        bm_doorbell_eventfd(to);
}

void bm_reactor_wake_soon(struct bm_reactor *from, struct bm_reactor *to)
{
    /* The plain look costs nothing and rings early; what it misses bm_wake_dirty() finds. */
    if (!from->in_turn || from->dirty_len == BM_DIRTY_MAX ||
        atomic_load_explicit(&to->sleeping, memory_order_relaxed)) {
        bm_reactor_wake(to);
        return;
    }
    for (unsigned i = from->dirty_len; i > 0; i--)
        if (from->dirty[i - 1] == to)
            return;
    from->dirty[from->dirty_len++] = to;
}

void bm_wake_dirty(struct bm_reactor *from)
{
    for (unsigned i = 0; i < from->dirty_len; i++) {
        struct bm_reactor *to = from->dirty[i];
        /* acq_rel; partner: bm_sleep_begin(). */
        if (atomic_exchange_explicit(&to->sleeping, 0, memory_order_acq_rel))
            ring(from, to);
        else
            from->stats.wakes_skipped++;
    }
    from->dirty_len = 0;
}

void bm_doorbell_taken(struct bm_reactor *reactor, uint64_t rang_ns)
{
    reactor->stats.wakes_taken++;
    /* Only one who really slept has felt the cost of a wake. */
    if (rang_ns > reactor->slept_at_ns && reactor->slept_at_ns > 0 && reactor->now_fresh &&
        reactor->now_ns > rang_ns)
        bm_spinner_sample_wake(&reactor->spinner, reactor->now_ns - rang_ns);
    reactor->slept_at_ns = 0;
}

void bm_doorbell_failed(struct bm_reactor *to)
{
    bm_doorbell_eventfd(to);
}
