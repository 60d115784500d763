/* The counters of one reactor, gathered from where they are kept: the reactor, its core, the
 * allocator. All are plain words of the reactor's thread; whoever reads them from another gets a
 * glance. */
#include <errno.h>

#include <beam/runtime.h>

#include "base/alloc.h"
#include "runtime/core.h"
#include "runtime/runtime.h"

int beam_runtime_stats(beam_runtime *runtime, unsigned reactor, struct beam_stats *ret_stats)
{
    if (reactor >= runtime->core_count)
        return -EINVAL;
    const struct bm_core *core = &runtime->cores[reactor];
    if (!core->reactor)
        return -ESHUTDOWN;
    const struct bm_reactor_stats *s = bm_reactor_stats(core->reactor);
    *ret_stats = (struct beam_stats){
        .turns = s->turns,
        .enters = s->enters,
        .sqes = s->sqes,
        .cqes = s->cqes,
        .overflows = s->overflows,
        .enobufs = s->enobufs,
        .rearms = s->rearms,
        .wakes_sent = s->wakes_sent,
        .wakes_skipped = s->wakes_skipped,
        .sleeps = s->sleeps,
        .spins = s->spins,
        .spin_hits = s->spin_hits,
        .wake_cost_ns = s->wake_cost_ns,
        .spin_budget_ns = s->spin_budget_ns,
        .allocs = core == bm_core_current() ? bm_alloc_count_thread() - core->allocs_begin : 0,
        .messages_sent = core->messages_sent,
        .messages_received = core->messages_received,
        .packets_sent = core->packets_sent,
        .packets_received = core->packets_received,
        .fds_sent = core->fds_sent,
        .fds_received = core->fds_received,
        .sessions = core->session_count,
        .channels = core->channel_count,
    };
    return 0;
}
