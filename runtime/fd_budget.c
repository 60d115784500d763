/* One counter for the process. A session takes a share when it begins and keeps it, so that a peer,
 * or an application that leaves its fds lying, uses up that share and no more. */
#include "runtime/fd_budget.h"

#include <stdatomic.h>
#include <sys/resource.h>

/* Relaxed: the counter orders nothing but itself. */
static _Atomic unsigned taken;

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

void bm_fd_budget_return(unsigned count)
{
    atomic_fetch_sub_explicit(&taken, count, memory_order_relaxed);
}
