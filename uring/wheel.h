/* A hierarchical timer wheel, by itself: no reactor, no clock. */
#ifndef BM_WHEEL_H
#define BM_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "uring/timer.h"

#define BM_TICK_SHIFT 16u  /* ours: a tick is 65.5 us; finer ones would only add levels */
#define BM_WHEEL_LEVELS 8u /* of 6 bits: the 48 that are left of a 64-bit time in ns */
#define BM_WHEEL_SLOTS 64u /* one word of occupancy a level */
#define BM_WHEEL_NEVER UINT64_MAX

struct bm_wheel {
    uint64_t now_tick;                  /* every timer in the slots expires later than this */
    unsigned armed;                     /* in the slots and due */
    struct bm_list due;                 /* expired, callback not yet run */
    uint64_t occupied[BM_WHEEL_LEVELS]; /* a clear bit: the slot is empty; a set one: perhaps not */
    struct bm_list slots[BM_WHEEL_LEVELS][BM_WHEEL_SLOTS];
};

void bm_wheel_init(struct bm_wheel *wheel, uint64_t now_ns);
/* Unlinks what is still armed, without a callback. */
void bm_wheel_deinit(struct bm_wheel *wheel);

void bm_wheel_arm(struct bm_wheel *wheel, struct bm_timer *timer, uint64_t expires_ns);
void bm_wheel_cancel(struct bm_wheel *wheel, struct bm_timer *timer);

/* Runs what has expired at now_ns, at most max of it; returns how many ran. */
unsigned bm_wheel_run(struct bm_wheel *wheel, uint64_t now_ns, unsigned max);

/* When bm_wheel_run() next has something to do, in ns: never later than the earliest timer, but
 * perhaps earlier (a slot of a higher level to be spread). BM_WHEEL_NEVER: nothing is armed. */
uint64_t bm_wheel_next_ns(struct bm_wheel *wheel);

#endif
