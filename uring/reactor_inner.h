/* The inside of a reactor, shared by the files of this folder only. */
#ifndef BM_REACTOR_INNER_H
#define BM_REACTOR_INNER_H

#include <stdatomic.h>

#include "base/clock.h"
#include "uring/forked.h"
#include "uring/kernel.h"
#include "uring/reactor.h"
#include "uring/spinner.h"
#include "uring/wheel.h"

#define BM_SQ_LEN 256u  /* ours: one turn's batch; more stay in line for the next turn */
#define BM_CQ_LEN 4096u /* ours: for the multishots of a thousand sessions between two turns */

#define BM_BATCH_CQES 32u    /* ours: copied at once; then the clock is looked at */
#define BM_YIELD_TURNS 32u   /* ours: turns without completions for a source that has more */
#define BM_TURN_CQES 256u    /* ours: completions a turn */
#define BM_TURN_MESSAGES 64u /* ours: of each source and of the mailbox, a turn */
#define BM_TURN_TASKS 4096u  /* ours: a task that queues itself must not hold the turn */
#define BM_TURN_TIMERS 256u  /* ours: as completions */
#define BM_TURN_NS (500 * BM_NS_PER_US) /* ours: of completions before the kernel is entered */
#define BM_TURNS_UNCLOCKED 8u           /* ours: turns without an enter between two clock reads */
#define BM_DIRTY_MAX 64u                /* ours: peers to be woken later; more are woken at once */

/* The kind of a submission, in the low bits of its user_data. */
enum {
    BM_TAG_OP = 0,       /* the rest is the address of a struct bm_op */
    BM_TAG_RANG = 1,     /* a doorbell we rang failed; the rest is the address of its target */
    BM_TAG_DOORBELL = 2, /* somebody rang; the rest is the sender's time, in ns */
    BM_TAG_IGNORE = 3,
    BM_TAG_WAKE = 4, /* the read of our eventfd */
    BM_TAG_CLOSE = 5,
    BM_TAG_TIMEOUT = 6, /* the one timeout of an embedded reactor */
    BM_TAG_BITS = 3,
    BM_TAG_MASK = (1 << BM_TAG_BITS) - 1,
};

struct bm_held;

struct bm_reactor {
    /* 1: about to sleep, or asleep. Exchanged by both sides (sleep.c). */
    _Alignas(64) _Atomic uint32_t sleeping;

    /* Read by others, written once or twice. */
    _Alignas(64) int ring_fd;
    int wake_fd; /* an eventfd; embedded: the one the host polls */
    bool embedded;
    const void *family; /* reactor.h */
    _Atomic bool stopping;

    struct bm_mailbox mailbox;

    /* From here on the owner's alone. */
    _Alignas(64) struct bm_kernel *kernel;
    uint64_t epoch; /* forked.h; read by those who ring at us, too */

    bool in_turn;
    bool kicked;       /* embedded: the host has been told since its last turn */
    bool ending;       /* in bm_reactor_free() */
    bool wake_armed;   /* BM_TAG_WAKE is in flight */
    bool now_fresh;    /* now_ns was read in this turn */
    uint8_t unclocked; /* turns since the clock was read for the timers */
    bool timeout_armed;
    bool overflowing;
    bool mark_stayed; /* bm_reactor_pending() */

    unsigned inflight; /* ops not IDLE */
    unsigned hurried;  /* quiet ops somebody waits for */
    unsigned closing;  /* BM_TAG_CLOSE in flight */
    uint64_t now_ns;
    uint64_t turn_start_ns; /* 0: not asked yet */
    bool catching_up;       /* yielded, and a source had more in this turn */
    bool yielded;           /* as asked for; completions come one by one, and wait for sources */
    unsigned waited;        /* turns, in a row, in which they have */
    uint64_t slept_at_ns;   /* when we last went to sleep; 0: a doorbell is no measure of a wake */

    /* An op that is not IDLE is on one of these. */
    struct bm_list queued;  /* in line: QUEUED ops, and CANCELLING ones whose cancellation is due */
    struct bm_list running; /* the kernel has them: INFLIGHT, or CANCELLING and asked for */
    struct bm_list quiet;   /* quiet sends in the submission queue */
    struct bm_list left; /* ... that the kernel has taken: one without a completion has succeeded */
    struct bm_list ended; /* cancelled before the kernel knew of them */
    uint64_t reaped;      /* completions copied out of the ring, ever */
    struct bm_list tasks;
    struct bm_list late; /* tasks of the next turn */
    struct bm_list sources;
    struct bm_list *source_next; /* where a drain goes on, whichever source was removed meanwhile */
    struct bm_list buffers;

    struct bm_reactor *dirty[BM_DIRTY_MAX];
    unsigned dirty_len;

    struct __kernel_timespec timeout;
    uint64_t timeout_at_ns;
    uint64_t wake_value; /* where BM_TAG_WAKE reads to */

    struct bm_held *held; /* completions a test's hook holds back */
    unsigned held_len;

    struct bm_spinner spinner;
    struct bm_wheel wheel;
    struct bm_account account;
    struct bm_reactor_stats stats;
};

/* This is a child of the process that made it: the rings are not here, and the eventfd is the parent's. */
static inline bool bm_reactor_forked(const struct bm_reactor *reactor)
{
    return bm_fork_epoch_seen() != reactor->epoch;
}

/* What the kernel has for us, before a sleep. Its mark of deferred work counts for nothing where the last
 * enter has left it set: the kernel puts work in its list first and marks it then, so that work which is
 * run in between leaves a mark without work, until there is more. If it is real all the same, the sleep is
 * an enter too, which looks at the list itself. */
static inline unsigned bm_reactor_pending(const struct bm_reactor *reactor)
{
    unsigned pending = bm_kernel_pending(reactor->kernel);
    return reactor->mark_stayed ? pending & ~(unsigned)BM_PENDING_TASKRUN : pending;
}

/* One turn without its enter; true when work is left. */
bool bm_reactor_once(struct bm_reactor *reactor);

/* Whether there is anything that sleeping now would miss. */
bool bm_reactor_anything(struct bm_reactor *reactor);

/* A look for work while spinning. What the sources have is dealt with at once, without a turn around
 * it: most messages between threads cause nothing that needs the rest of a turn, and that rest would
 * only delay the next message. */
enum bm_look {
    BM_LOOK_NOTHING, /* there is none */
    BM_LOOK_DRAINED, /* there was some, all of it from sources, and it is done */
    BM_LOOK_TURN,    /* a whole turn is due */
};
enum bm_look bm_reactor_look(struct bm_reactor *reactor);

/* The enters, counted. poll does nothing when there is nothing to do. */
void bm_reactor_poll(struct bm_reactor *reactor);
int bm_reactor_wait(struct bm_reactor *reactor, uint64_t timeout_ns);
/* After any other enter: how many submissions stood in the queue before it, and what it returned. */
void bm_reactor_entered(struct bm_reactor *reactor, unsigned queued, int r);

/* Turns the line of ops into submissions; false when some are left for the next turn. */
bool bm_ops_submit(struct bm_reactor *reactor);
/* Puts a cancellation in line for everything in flight except closes and shutdowns. */
void bm_ops_cancel_all(struct bm_reactor *reactor);

#endif
