/* Hierarchical timing wheel (Varghese and Lauck, 1987), with the level chosen by the highest group
 * of six bits in which the expiry differs from the present.
 *
 * Invariants:
 *   - a timer on level n agrees with now_tick in all bits above level n and is ahead of it within
 *     level n; so all timers of a level come before all of the next, and the first set bit of the
 *     lowest occupied level is the next thing to do;
 *   - moving now_tick to any point before that keeps the invariant: nothing is touched in between;
 *   - a timer never fires early: its tick is its expiry rounded up, and a tick has passed only when
 *     the clock has reached its end.
 *
 * Cancelling unlinks and does not look for the slot, so an occupancy bit may outlive its timers; it
 * is cleared when somebody looks. */
#include "uring/wheel.h"

#include "base/assert.h"

void bm_wheel_init(struct bm_wheel *wheel, uint64_t now_ns)
{
    wheel->now_tick = now_ns >> BM_TICK_SHIFT;
    wheel->armed = 0;
    bm_list_init(&wheel->due);
    for (unsigned level = 0; level < BM_WHEEL_LEVELS; level++) {
        wheel->occupied[level] = 0;
        for (unsigned slot = 0; slot < BM_WHEEL_SLOTS; slot++)
            bm_list_init(&wheel->slots[level][slot]);
    }
}

void bm_wheel_deinit(struct bm_wheel *wheel)
{
    for (unsigned level = 0; level < BM_WHEEL_LEVELS; level++)
        for (unsigned slot = 0; slot < BM_WHEEL_SLOTS; slot++)
            while (bm_list_pop_front(&wheel->slots[level][slot]))
                ;
    while (bm_list_pop_front(&wheel->due))
        ;
    wheel->armed = 0;
}

static uint64_t tick_of(uint64_t expires_ns)
{
    const uint64_t last = UINT64_MAX >> BM_TICK_SHIFT; /* rounding up must not leave the wheel */
    uint64_t whole = expires_ns >> BM_TICK_SHIFT;
    return whole == last ? last : whole + ((whole << BM_TICK_SHIFT) != expires_ns);
}

static void place(struct bm_wheel *wheel, struct bm_timer *timer, uint64_t tick)
{
    bm_assert(tick > wheel->now_tick);
    unsigned top_bit = 63u - (unsigned)__builtin_clzll(tick ^ wheel->now_tick);
    unsigned level = top_bit / 6;
    unsigned slot = (unsigned)(tick >> (6 * level)) % BM_WHEEL_SLOTS;
    bm_list_push_back(&wheel->slots[level][slot], &timer->node);
    wheel->occupied[level] |= UINT64_C(1) << slot;
}

void bm_wheel_arm(struct bm_wheel *wheel, struct bm_timer *timer, uint64_t expires_ns)
{
    if (!bm_timer_armed(timer))
        wheel->armed++;
    bm_list_unlink(&timer->node);
    timer->expires_ns = expires_ns;
    /* Due already: in the next tick, so that a callback that re-arms itself into the past cannot
     * keep one run going for ever. */
    uint64_t tick = tick_of(expires_ns);
    place(wheel, timer, tick > wheel->now_tick ? tick : wheel->now_tick + 1);
}

void bm_wheel_cancel(struct bm_wheel *wheel, struct bm_timer *timer)
{
    if (!bm_timer_armed(timer))
        return;
    bm_list_unlink(&timer->node);
    wheel->armed--;
}

/* The lowest level with a timer and its first occupied slot. */
static bool first_slot(struct bm_wheel *wheel, unsigned *ret_level, unsigned *ret_slot)
{
    for (unsigned level = 0; level < BM_WHEEL_LEVELS; level++) {
        while (wheel->occupied[level]) {
            unsigned slot = (unsigned)__builtin_ctzll(wheel->occupied[level]);
            if (!bm_list_empty(&wheel->slots[level][slot])) {
                *ret_level = level;
                *ret_slot = slot;
                return true;
            }
            wheel->occupied[level] &= ~(UINT64_C(1) << slot);
        }
    }
    return false;
}

static uint64_t slot_tick(const struct bm_wheel *wheel, unsigned level, unsigned slot)
{
    unsigned shift = 6 * level;
    uint64_t above = wheel->now_tick >> shift >> 6;
    return (above << 6 | slot) << shift;
}

uint64_t bm_wheel_next_ns(struct bm_wheel *wheel)
{
    unsigned level, slot;
    if (!bm_list_empty(&wheel->due))
        return wheel->now_tick << BM_TICK_SHIFT;
    if (wheel->armed == 0 || !first_slot(wheel, &level, &slot))
        return BM_WHEEL_NEVER;
    return slot_tick(wheel, level, slot) << BM_TICK_SHIFT;
}

/* Moves the present to `to`; on the way, expired timers go to the due list in the order of their
 * ticks, and slots of higher levels are spread over the lower ones. */
static void advance(struct bm_wheel *wheel, uint64_t to)
{
    unsigned level, slot;
    while (first_slot(wheel, &level, &slot)) {
        uint64_t tick = slot_tick(wheel, level, slot);
        if (tick > to)
            break;
        wheel->now_tick = tick;
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
        if (level == 0) {
            bm_list_splice_back(&wheel->due, &wheel->slots[level][slot]);
            continue;
        }
        struct bm_list spread;
        bm_list_init(&spread);
        bm_list_splice_back(&spread, &wheel->slots[level][slot]);
        struct bm_list *node;
        while ((node = bm_list_pop_front(&spread))) {
            struct bm_timer *timer = bm_list_entry(node, struct bm_timer, node);
            uint64_t expiry = tick_of(timer->expires_ns);
            if (expiry <= tick)
                bm_list_push_back(&wheel->due, node);
            else
                place(wheel, timer, expiry);
        }
    }
    if (to > wheel->now_tick)
        wheel->now_tick = to;
}

unsigned bm_wheel_run(struct bm_wheel *wheel, uint64_t now_ns, unsigned max)
{
    advance(wheel, now_ns >> BM_TICK_SHIFT);

    unsigned ran = 0;
    struct bm_list *node;
    while (ran < max && (node = bm_list_pop_front(&wheel->due))) {
        struct bm_timer *timer = bm_list_entry(node, struct bm_timer, node);
        wheel->armed--;
        ran++;
        timer->fn(timer); /* may free the timer, arm it again, or cancel another that is due */
    }
    return ran;
}
