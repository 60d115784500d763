/* One counter for the process. A session takes a share when it begins and keeps it, so that a peer,
 * or an application that leaves its fds lying, uses up that share and no more.
 *
 * Who found too little stands in a line, and costs nothing there. One at a time is woken and takes
 * his part, so that no busy one (a reactor, with its sessions) is always before the others. A give-back
 * takes from the counter first and looks at the line then; who joins does it the other way round: one of
 * the two sees the other, by the lock of the line. A limit that the application raises is seen at the
 * next give-back. */
#include "runtime/fd_budget.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "uring/forked.h"

/* Relaxed: the counter orders nothing but itself; the lock of the line does what is left. */
static _Atomic unsigned taken;

static struct {
    pthread_mutex_t lock;
    struct bm_list waiters;
    uint64_t turn;  /* how often something was given back */
    uint64_t epoch; /* of the process whose waiters they are */
} line = {.lock = PTHREAD_MUTEX_INITIALIZER, .turn = 1};

static void lock_line(void)
{
    pthread_mutex_lock(&line.lock);
    /* The reactors of a parent are not a forked child's to wake. */
    uint64_t epoch = bm_fork_epoch_seen();
    if (!line.waiters.next || line.epoch != epoch)
        bm_list_init(&line.waiters);
    line.epoch = epoch;
}

static unsigned limit(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return 256;
    rlim_t quarter = rl.rlim_cur / 4;
    return quarter > 1u << 20 ? 1u << 20 : (unsigned)quarter;
}

unsigned bm_fd_budget_take(unsigned wanted)
{
    unsigned max = limit();
    unsigned now = atomic_load_explicit(&taken, memory_order_relaxed);
    unsigned share;
    do {
        unsigned left = now < max ? max - now : 0;
        /* Half of what is left at most, so that later sessions find some too. */
        share = wanted <= left / 2 ? wanted : left / 2;
    } while (!atomic_compare_exchange_weak_explicit(&taken, &now, now + share, memory_order_relaxed,
                                                    memory_order_relaxed));
    return share;
}

static void wake_next(void)
{
    for (struct bm_list *n = line.waiters.next; n != &line.waiters; n = n->next) {
        struct bm_fd_waiter *waiter = bm_list_entry(n, struct bm_fd_waiter, node);
        if (waiter->turn == line.turn)
            continue;
        bm_list_unlink(n);
        bm_list_push_back(&line.waiters, n);
        waiter->wake(waiter);
        return;
    }
}

void bm_fd_budget_return(unsigned count)
{
    if (count == 0)
        return;
    atomic_fetch_sub_explicit(&taken, count, memory_order_relaxed);
    lock_line();
    line.turn++;
    wake_next();
    pthread_mutex_unlock(&line.lock);
}

uint64_t bm_fd_budget_turn(void)
{
    lock_line();
    uint64_t turn = line.turn;
    pthread_mutex_unlock(&line.lock);
    return turn;
}

void bm_fd_budget_pass_on(struct bm_fd_waiter *waiter, uint64_t turn, bool done)
{
    lock_line();
    if (done)
        waiter->turn = turn;
    wake_next();
    pthread_mutex_unlock(&line.lock);
}

void bm_fd_budget_wait(struct bm_fd_waiter *waiter)
{
    lock_line();
    if (!bm_list_linked(&waiter->node))
        bm_list_push_back(&line.waiters, &waiter->node);
    pthread_mutex_unlock(&line.lock);
}

void bm_fd_budget_leave(struct bm_fd_waiter *waiter)
{
    lock_line();
    bm_list_unlink(&waiter->node);
    pthread_mutex_unlock(&line.lock);
}
