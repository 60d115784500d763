/* Bounded queue of calls, many producers and one consumer, after Vyukov's array queue: each slot
 * carries the position it is free for, producers race for positions and never for slots.
 *
 * Orders:
 *   slot.seq   release by who filled or emptied the slot, acquire by who looks at it next;
 *   tail       relaxed: it hands out positions and publishes nothing;
 *   inside and shut, waiters and slot.seq: each side writes its own word and then reads the other's,
 *              so all four accesses are read-modify-writes or sequentially consistent.
 *
 * A producer between its position and its release store makes the consumer see an empty box although
 * later slots are full. That is harmless: the same producer wakes the consumer afterwards.
 *
 * The box itself wakes waiting producers only; the reactor is woken by bm_reactor_wake(). */
#define _GNU_SOURCE
#include "uring/mailbox.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "uring/reactor_inner.h"

#define SLOTS_LEN (sizeof(struct bm_mail_slot) * BM_MAILBOX_SLOTS)

_Static_assert(sizeof(struct bm_mail_slot) == 32, "two slots fill a cache line");

int bm_mailbox_init(struct bm_mailbox *box, struct bm_account *account)
{
    box->slots = bm_alloc_zero(account, SLOTS_LEN);
    if (!box->slots)
        return -ENOMEM;
    for (uint64_t i = 0; i < BM_MAILBOX_SLOTS; i++)
        atomic_init(&box->slots[i].seq, i);
    return 0;
}

void bm_mailbox_deinit(struct bm_mailbox *box, struct bm_account *account)
{
    box->slots = bm_free(account, box->slots, SLOTS_LEN);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* -ETIMEDOUT, or 0 for "look again". */
static int futex_wait_until(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns)
{
    struct timespec ts = {
        .tv_sec = (time_t)(deadline_ns / BM_NS_PER_S),
        .tv_nsec = (long)(deadline_ns % BM_NS_PER_S),
    };
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                     deadline_ns == UINT64_MAX ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY);
    return r < 0 && errno == ETIMEDOUT ? -ETIMEDOUT : 0;
}

/* Counts the caller as inside; false: the box is shut (go_out() is due all the same). Partner:
 * bm_mailbox_settle(). */
static bool come_in(struct bm_mailbox *box)
{
    atomic_fetch_add_explicit(&box->inside, 1, memory_order_seq_cst);
    return !atomic_load_explicit(&box->shut, memory_order_seq_cst);
}

static void go_out(struct bm_mailbox *box)
{
    atomic_fetch_sub_explicit(&box->inside, 1, memory_order_seq_cst);
}

static int put(struct bm_mailbox *box, bm_mail_fn *fn, void *arg)
{
    uint64_t pos = atomic_load_explicit(&box->tail, memory_order_relaxed);
    struct bm_mail_slot *slot;
    for (;;) {
        slot = &box->slots[pos % BM_MAILBOX_SLOTS];
        uint64_t seq = atomic_load_explicit(&slot->seq, memory_order_acquire);
        if (seq == pos) {
            if (atomic_compare_exchange_weak_explicit(&box->tail, &pos, pos + 1,
                                                      memory_order_relaxed, memory_order_relaxed))
                break;
        } else if (seq < pos) {
            return -EAGAIN;
        } else {
            pos = atomic_load_explicit(&box->tail, memory_order_relaxed);
        }
    }
    slot->fn = fn;
    slot->arg = arg;
    atomic_store_explicit(&slot->seq, pos + 1, memory_order_release);
    return 0;
}

int bm_mailbox_post(struct bm_reactor *reactor, bm_mail_fn *fn, void *arg)
{
    struct bm_mailbox *box = &reactor->mailbox;
    int r = come_in(box) ? put(box, fn, arg) : -ESHUTDOWN;
    if (r == 0)
        bm_reactor_wake(reactor);
    go_out(box);
    return r;
}

static int put_waiting(struct bm_mailbox *box, bm_mail_fn *fn, void *arg, uint64_t deadline_ns)
{
    for (;;) {
        uint32_t room = atomic_load_explicit(&box->room, memory_order_acquire);
        if (atomic_load_explicit(&box->shut, memory_order_seq_cst))
            return -ESHUTDOWN;
        int r = put(box, fn, arg);
        if (r != -EAGAIN)
            return r;
        r = futex_wait_until(&box->room, room, deadline_ns);
        if (r < 0)
            return r;
    }
}

int bm_mailbox_post_wait(struct bm_reactor *reactor, bm_mail_fn *fn, void *arg,
                         uint64_t deadline_ns)
{
    if (bm_reactor_current())
        return -EDEADLK;
    struct bm_mailbox *box = &reactor->mailbox;
    int r = come_in(box) ? put(box, fn, arg) : -ESHUTDOWN;
    if (r == -EAGAIN) {
        atomic_fetch_add_explicit(&box->waiters, 1, memory_order_acq_rel);
        r = put_waiting(box, fn, arg, deadline_ns);
        atomic_fetch_sub_explicit(&box->waiters, 1, memory_order_acq_rel);
    }
    if (r == 0)
        bm_reactor_wake(reactor);
    go_out(box);
    return r;
}

static void announce_room(struct bm_mailbox *box)
{
    atomic_fetch_add_explicit(&box->room, 1, memory_order_acq_rel);
    futex_wake_all(&box->room);
}

void bm_mailbox_shut(struct bm_mailbox *box)
{
    atomic_store_explicit(&box->shut, 1, memory_order_seq_cst);
    announce_room(box);
}

void bm_mailbox_settle(struct bm_mailbox *box)
{
    bm_assert(atomic_load_explicit(&box->shut, memory_order_relaxed));
    /* A post takes less than a microsecond and the waiting ones have been woken. */
    while (atomic_load_explicit(&box->inside, memory_order_seq_cst) > 0)
        sched_yield();
}

bool bm_mailbox_ready(const struct bm_mailbox *box)
{
    const struct bm_mail_slot *slot = &box->slots[box->head % BM_MAILBOX_SLOTS];
    return atomic_load_explicit(&slot->seq, memory_order_acquire) == box->head + 1;
}

unsigned bm_mailbox_run(struct bm_mailbox *box, unsigned max)
{
    unsigned n = 0;
    while (n < max && bm_mailbox_ready(box)) {
        struct bm_mail_slot *slot = &box->slots[box->head % BM_MAILBOX_SLOTS];
        bm_mail_fn *fn = slot->fn;
        void *arg = slot->arg;
        atomic_store_explicit(&slot->seq, box->head + BM_MAILBOX_SLOTS, memory_order_release);
        box->head++;
        n++;
        fn(arg);
    }
    /* A read-modify-write that changes nothing: either it comes before the waiter's own on the same
     * word and the waiter sees our free slots, or it comes after and we see the waiter. */
    if (n > 0 && atomic_fetch_add_explicit(&box->waiters, 0, memory_order_acq_rel) > 0)
        announce_room(box);
    return n;
}
