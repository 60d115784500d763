/* The reactor: one thread, one io_uring, everything it owns.
 *
 * A turn: drain the mailbox and the sources, run ready tasks, copy completions and dispatch them
 * within a budget, run the tasks those made ready, and then exactly one enter that submits what was
 * queued and either returns at once (work left, or spinning) or sleeps until something comes. */
#ifndef BM_REACTOR_H
#define BM_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/list.h"
#include "uring/buffers.h"
#include "uring/mailbox.h"
#include "uring/op.h"
#include "uring/timer.h"

struct bm_reactor;

/* Something to run once, later in this turn, before the enter. Embedded; linked at most once. */
struct bm_task {
    struct bm_list node;
    void (*fn)(struct bm_task *task);
};

/* Something polled every turn: the runtime's rings from other reactors. `ready` is called while
 * spinning and in the sleep protocol after `sleeping` was set, so it must be cheap and must see
 * everything published before the producer's wake. `drain` handles at most `budget` messages and
 * returns how many; what it leaves is drained in the next turn. */
struct bm_source {
    struct bm_list node;
    bool (*ready)(struct bm_source *source);
    unsigned (*drain)(struct bm_source *source, unsigned budget);
};

/* Counters, plain, owner's thread; read them on that thread or accept a torn view. */
struct bm_reactor_stats {
    uint64_t turns;
    uint64_t enters;    /* io_uring_enter calls of any kind */
    uint64_t sqes;      /* submissions */
    uint64_t cqes;      /* completions dispatched */
    uint64_t overflows; /* times the kernel said SQ_CQ_OVERFLOW */
    uint64_t enobufs;
    uint64_t rearms;        /* multishots started again after they ended by themselves */
    uint64_t wakes_sent;    /* doorbells rung at other reactors */
    uint64_t wakes_skipped; /* producer found the peer awake */
    uint64_t wakes_taken;   /* doorbells that reached us */
    uint64_t sleeps;        /* enters that were allowed to block */
    uint64_t spins;         /* spin phases entered */
    uint64_t spin_hits;     /* ... that ended with work */
    uint64_t timers;        /* timers fired */
    uint64_t mails;         /* mailbox calls run */
    uint64_t wake_cost_ns;  /* the measured cost of a wake, moving median */
    uint64_t spin_budget_ns;
};

enum bm_spin {
    BM_SPIN_ADAPTIVE = 0,
    BM_SPIN_NEVER,  /* always sleep */
    BM_SPIN_ALWAYS, /* never sleep: for benchmarks and dedicated cores */
};

struct bm_reactor_options {
    enum bm_spin spin;
    bool embedded; /* lives in a foreign loop: bm_reactor_fd, bm_reactor_turn */
    bool may_spin; /* false when there are fewer CPUs than reactors */
    /* Reactors of one family are freed together, when none of them runs any more. A doorbell that is rung
     * through the kernel may be told as failed after a turn or more: only within a family is its target
     * sure to be there still. Others are woken by their eventfd. */
    const void *family;
};

/* Makes the ring on the calling thread, which is the owner from then on (SINGLE_ISSUER).
 * -BEAM_ENO_IO_URING when the kernel refuses io_uring (bm_features_why() has the cause and the cure),
 * -ENOMEM, -EMFILE or what else the kernel says. */
int bm_reactor_new(const struct bm_reactor_options *options, struct bm_reactor **ret);

/* Owner's thread. Shuts, cancels what is in flight, turns until the last completion has come, closes
 * fds that arrived meanwhile, and gives the ring back. What remains is memory: other threads may
 * still post (-ESHUTDOWN) and wake (no effect) until it is freed. */
void bm_reactor_close(struct bm_reactor *reactor);

/* Closes it first if that is still to do (owner's thread), then frees; of a closed one any thread,
 * once nobody refers to it. Accepts NULL. */
struct bm_reactor *bm_reactor_free(struct bm_reactor *reactor);

/* Marks the reactor as ended: posts from other threads fail with -ESHUTDOWN from now on. Mail already
 * accepted is still run by bm_reactor_free(). */
void bm_reactor_shut(struct bm_reactor *reactor);

/* Turns until bm_reactor_stop(). */
int bm_reactor_run(struct bm_reactor *reactor);
void bm_reactor_stop(struct bm_reactor *reactor); /* any thread, async-signal-safe */

/* Embedded: a pollable fd (level-triggered; borrowed) and one non-blocking turn (-EDEADLK from a
 * callback, which is inside one). */
int bm_reactor_fd(struct bm_reactor *reactor);
int bm_reactor_turn(struct bm_reactor *reactor);

/* The reactor whose thread this is, or NULL. */
struct bm_reactor *bm_reactor_current(void);

/* What a completion has brought is much, and goes on by way of sources: completions behind it wait until
 * those have caught up, but no longer than some turns, so that what all of them bring is not under way at
 * once, in memory that no cache holds. From a completion's callback. */
void bm_reactor_yield(struct bm_reactor *reactor);

/* The time as of this turn, on bm_clock_now_ns(): the clock is read once a turn, by the first who asks. */
uint64_t bm_reactor_now_ns(struct bm_reactor *reactor);

/* Queue a task for this turn (owner's thread); no effect when it is already queued. */
void bm_task_queue(struct bm_reactor *reactor, struct bm_task *task);
/* For a task that collects what others say: puts it off to the next turn while sources catch up after a
 * bm_reactor_yield, and says so. That ends with them, and after some turns at the latest. */
bool bm_task_put_off(struct bm_reactor *reactor, struct bm_task *task);
void bm_task_cancel(struct bm_task *task);

void bm_source_add(struct bm_reactor *reactor, struct bm_source *source);
void bm_source_remove(struct bm_reactor *reactor, struct bm_source *source);

/* Producer's half of the sleep protocol; call after publishing into something `to` polls.
 * bm_reactor_wake: any thread; if `to` sleeps, takes its flag and rings the doorbell before it
 * returns (MSG_RING submitted at once from a reactor's thread, eventfd from elsewhere).
 * bm_reactor_wake_soon: owner of `from`; rings at once when a plain look says `to` sleeps, and in any
 * case makes sure with the full protocol before `from` next enters the kernel. For senders of many
 * messages in one turn: one locked operation per peer and turn instead of per message. */
void bm_reactor_wake(struct bm_reactor *to);
void bm_reactor_wake_signal(struct bm_reactor *to); /* the same, async-signal-safe */
void bm_reactor_wake_soon(struct bm_reactor *from, struct bm_reactor *to);

/* Closes fd asynchronously, exactly once; sets *fd = -1. Never fails, never calls back; when no op
 * can be had it falls back to close(2). */
void bm_reactor_close_fd(struct bm_reactor *reactor, int *fd);

/* Ops that exist and are not IDLE; for tests and shutdown. */
unsigned bm_reactor_inflight(const struct bm_reactor *reactor);

const struct bm_reactor_stats *bm_reactor_stats(const struct bm_reactor *reactor);
void bm_reactor_count_rearm(struct bm_reactor *reactor);

/* Memory of this reactor; sessions hang their accounts below it. */
struct bm_account *bm_reactor_account(struct bm_reactor *reactor);

#endif
