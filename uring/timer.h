/* Timers: an intrusive hierarchical wheel, O(1) to arm and to cancel, no allocation. The next expiry
 * becomes the time-out of the reactor's wait; the kernel sees no timer of ours. */
#ifndef BM_TIMER_H
#define BM_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct bm_reactor;
struct bm_timer;

typedef void bm_timer_fn(struct bm_timer *timer);

struct bm_timer {
    struct bm_list node;
    uint64_t expires_ns; /* absolute, bm_clock_now_ns() */
    bm_timer_fn *fn;
};

static inline void bm_timer_init(struct bm_timer *timer, bm_timer_fn *fn)
{
    *timer = (struct bm_timer){.fn = fn};
}

static inline bool bm_timer_armed(const struct bm_timer *timer)
{
    return bm_list_linked(&timer->node);
}

/* Arms, or moves an armed one. Never fires early; late by at most one tick (66 us) plus the turns
 * under way. The callback runs from the loop with the timer disarmed; it may re-arm or free it. */
void bm_timer_arm(struct bm_reactor *reactor, struct bm_timer *timer, uint64_t expires_ns);
void bm_timer_cancel(struct bm_reactor *reactor, struct bm_timer *timer);

#endif
