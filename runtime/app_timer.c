/* Timers of the application. Periodic ones keep their phase: each expiry is computed from the one
 * before, and those that were missed while a callback took its time are skipped. */
#include "runtime/app_timer.h"

#include <errno.h>

#include <beam/runtime.h>

#include "base/clock.h"
#include "runtime/core.h"

struct beam_timer {
    struct bm_timer timer;
    struct bm_list node; /* the core's timers */
    struct bm_core *core;
    uint64_t period_ns;
    beam_timer_fn *fn;
    void *arg;
    bool firing, freed;
};

static void release(beam_timer *timer)
{
    bm_timer_cancel(timer->core->reactor, &timer->timer);
    bm_list_unlink(&timer->node);
    bm_free(NULL, timer, sizeof(*timer));
}

static void on_fire(struct bm_timer *node)
{
    beam_timer *timer = bm_list_entry(node, beam_timer, timer);
    struct bm_reactor *reactor = timer->core->reactor;
    uint64_t due = timer->timer.expires_ns;
    timer->firing = true;
    timer->fn(timer->arg);
    timer->firing = false;
    if (timer->freed) {
        release(timer);
        return;
    }
    if (timer->period_ns == 0)
        return;
    uint64_t now = bm_reactor_now_ns(reactor);
    due = bm_clock_after(due, timer->period_ns);
    if (due <= now)
        due += (now - due) / timer->period_ns * timer->period_ns + timer->period_ns;
    bm_timer_arm(reactor, &timer->timer, due);
}

int beam_timer_new(beam_runtime *runtime, uint64_t delay_ns, uint64_t period_ns, beam_timer_fn *fn,
                   void *arg, beam_timer **ret_timer)
{
    struct bm_core *core = bm_core_here(runtime);
    if (!core)
        return -EPERM;
    beam_timer *timer = bm_alloc_zero(NULL, sizeof(*timer));
    if (!timer)
        return -ENOMEM;
    timer->core = core;
    timer->period_ns = period_ns;
    timer->fn = fn;
    timer->arg = arg;
    bm_timer_init(&timer->timer, on_fire);
    bm_list_push_back(&core->timers, &timer->node);
    /* The clock, not the turn's time: a delay counts from now. */
    bm_timer_arm(core->reactor, &timer->timer, bm_clock_after(bm_clock_now_ns(), delay_ns));
    *ret_timer = timer;
    return 0;
}

beam_timer *beam_timer_free(beam_timer *timer)
{
    if (!timer)
        return NULL;
    if (timer->firing)
        timer->freed = true;
    else
        release(timer);
    return NULL;
}

void bm_timers_stop(struct bm_core *core)
{
    for (struct bm_list *n = core->timers.next; n != &core->timers; n = n->next)
        bm_timer_cancel(core->reactor, &bm_list_entry(n, beam_timer, node)->timer);
}

void bm_timers_free(struct bm_core *core)
{
    struct bm_list *node;
    while ((node = bm_list_front(&core->timers)))
        release(bm_list_entry(node, beam_timer, node));
}

uint64_t beam_now_ns(void)
{
    return bm_clock_now_ns();
}
