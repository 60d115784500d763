/* Timers of a reactor: the wheel, and a nudge for a host that would sleep past a new one. */
#include "uring/timer.h"

#include "uring/embed.h"
#include "uring/reactor_inner.h"

void bm_timer_arm(struct bm_reactor *reactor, struct bm_timer *timer, uint64_t expires_ns)
{
    bm_wheel_arm(&reactor->wheel, timer, expires_ns);
    bm_embed_kick(reactor);
}

void bm_timer_cancel(struct bm_reactor *reactor, struct bm_timer *timer)
{
    bm_wheel_cancel(&reactor->wheel, timer);
}
