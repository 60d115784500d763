/* See memory_budget.h. What an account can be asked for is exact at any time; what sessions have queued is
 * counted session by session, and so only now and then. */
#include "net/memory_budget.h"

#include <stdatomic.h>

#include "runtime/core.h"
#include "runtime/session.h"

static _Atomic size_t total; /* relaxed: a sum, for which nothing waits */

static void count_messages(struct bm_core *core)
{
    size_t sum = 0;
    for (struct bm_list *n = core->sessions.next; n != &core->sessions; n = n->next) {
        const beam_session *session = bm_list_entry(n, beam_session, node);
        struct beam_session_stats stats;
        if (!session->carrier->pumps_fds) /* it cannot take them along: it is none of a network */
            continue;
        beam_session_stats(session, &stats);
        sum += stats.memory_len - session->account.used; /* that is on the core's */
    }
    core->networks.messages = sum;
}

void bm_memory_tell(struct bm_core *core)
{
    struct bm_networks *networks = &core->networks;
    if (networks->account.used == 0) /* nor are there sessions */
        networks->messages = 0;
    size_t now = networks->account.used + networks->bodies + networks->messages;
    if (now == networks->told)
        return;
    atomic_fetch_add_explicit(&total, now - networks->told, memory_order_relaxed);
    networks->told = now;
    networks->total = &total; /* what is left when the core ends is taken off: core.c */
}

size_t bm_memory_total(void)
{
    return atomic_load_explicit(&total, memory_order_relaxed);
}

/* Those that came first are asked first. */
static void spare_idle(struct bm_core *core)
{
    unsigned count = 0;
    for (struct bm_list *n = core->dependents.next;
         n != &core->dependents && count < BM_MEMORY_IDLE_MOST; n = n->next) {
        struct bm_dependent *dependent = bm_list_entry(n, struct bm_dependent, node);
        count += dependent->calls->spare && dependent->calls->spare(dependent, BM_MEMORY_IDLE_NS);
    }
}

enum bm_memory_pressure bm_memory_look(struct bm_core *core, uint64_t max)
{
    uint64_t now_ns = bm_reactor_now_ns(core->reactor);
    if (max == 0)
        max = BM_MEMORY_MAX;
    bool counts = now_ns - core->networks.counted_ns >= BM_MEMORY_COUNT_NS;
    if (counts) {
        core->networks.counted_ns = now_ns;
        count_messages(core);
    }
    bm_memory_tell(core);
    size_t sum = bm_memory_total();
    if (sum <= max)
        return BM_MEMORY_ROOM;
    if (counts)
        spare_idle(core);
    return sum <= max + max / 4 ? BM_MEMORY_SHORT : BM_MEMORY_OUT;
}
