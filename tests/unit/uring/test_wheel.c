/* The timer wheel against a list of expiries. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "tests/support/test.h"
#include "uring/wheel.h"

#define TICK_NS (UINT64_C(1) << BM_TICK_SHIFT)

static struct bm_wheel wheel;

struct alarm {
    struct bm_timer timer;
    uint64_t now_ns; /* when it fired */
    int fired;
};

static uint64_t now_ns;
static struct alarm *last_fired;

static void ring(struct bm_timer *timer)
{
    struct alarm *alarm = bm_container_of(timer, struct alarm, timer);
    CHECK(!bm_timer_armed(timer));
    alarm->fired++;
    alarm->now_ns = now_ns;
    last_fired = alarm;
}

static void alarm_init(struct alarm *alarm)
{
    *alarm = (struct alarm){0};
    bm_timer_init(&alarm->timer, ring);
}

/* From one event to the next, as a sleeping reactor does. */
static void run_to(uint64_t end_ns)
{
    for (;;) {
        uint64_t next_ns = bm_wheel_next_ns(&wheel);
        if (next_ns > end_ns)
            break;
        if (next_ns > now_ns)
            now_ns = next_ns;
        bm_wheel_run(&wheel, now_ns, 1000000);
    }
    now_ns = end_ns;
    bm_wheel_run(&wheel, now_ns, 1000000);
}

TEST(wheel_fires_in_order_never_early_and_at_most_a_tick_late)
{
    enum { COUNT = 3000 };
    static struct alarm alarms[COUNT];
    struct test_random random = test_random(0);
    for (int round = 0; round < 20; round++) {
        now_ns = test_random_next(&random) >> (4 + test_random_below(&random, 40));
        bm_wheel_init(&wheel, now_ns);
        uint64_t start_ns = now_ns;
        for (int i = 0; i < COUNT; i++) {
            alarm_init(&alarms[i]);
            uint64_t in_ns = test_random_next(&random) >> (10 + test_random_below(&random, 50));
            bm_wheel_arm(&wheel, &alarms[i].timer, now_ns + in_ns);
        }
        /* A third is cancelled, a third moved. */
        for (int i = 0; i < COUNT; i += 3)
            bm_wheel_cancel(&wheel, &alarms[i].timer);
        for (int i = 1; i < COUNT; i += 3)
            bm_wheel_arm(&wheel, &alarms[i].timer, now_ns + test_random_below(&random, 1u << 30));
        run_to(start_ns + (UINT64_C(1) << 54));
        CHECK_UINT(wheel.armed, 0);
        int early = 0, late = 0, wrong = 0;
        for (int i = 0; i < COUNT; i++) {
            wrong += alarms[i].fired != (i % 3 != 0);
            if (!alarms[i].fired)
                continue;
            uint64_t expires_ns = alarms[i].timer.expires_ns;
            early += alarms[i].now_ns < expires_ns;
            late += alarms[i].now_ns > (expires_ns > start_ns ? expires_ns : start_ns) + TICK_NS;
        }
        CHECK_INT(wrong, 0);
        CHECK_INT(early, 0);
        CHECK_INT(late, 0);
    }
}

TEST(wheel_next_is_never_later_than_the_earliest_timer)
{
    struct test_random random = test_random(0);
    for (int round = 0; round < 2000; round++) {
        struct alarm alarms[8];
        uint64_t earliest_ns = UINT64_MAX;
        now_ns = test_random_next(&random) >> 8;
        bm_wheel_init(&wheel, now_ns);
        for (int i = 0; i < 8; i++) {
            alarm_init(&alarms[i]);
            uint64_t at_ns =
                now_ns + (test_random_next(&random) >> test_random_below(&random, 60)) / 256;
            bm_wheel_arm(&wheel, &alarms[i].timer, at_ns);
            if (at_ns < earliest_ns)
                earliest_ns = at_ns;
        }
        CHECK(bm_wheel_next_ns(&wheel) <= earliest_ns + TICK_NS);
        bm_wheel_deinit(&wheel);
    }
}

TEST(wheel_of_nothing_has_no_next)
{
    struct alarm alarm;
    bm_wheel_init(&wheel, now_ns = 12345);
    CHECK_UINT(bm_wheel_next_ns(&wheel), BM_WHEEL_NEVER);
    alarm_init(&alarm);
    bm_wheel_arm(&wheel, &alarm.timer, now_ns + 100 * TICK_NS);
    bm_wheel_cancel(&wheel, &alarm.timer);
    bm_wheel_cancel(&wheel, &alarm.timer);
    CHECK_UINT(bm_wheel_next_ns(&wheel), BM_WHEEL_NEVER);
    CHECK_UINT(wheel.armed, 0);
}

TEST(wheel_takes_expiries_in_the_past_and_at_the_end_of_time)
{
    struct alarm past, never;
    bm_wheel_init(&wheel, now_ns = 50 * BM_NS_PER_S);
    alarm_init(&past);
    alarm_init(&never);
    bm_wheel_arm(&wheel, &past.timer, 3);
    bm_wheel_arm(&wheel, &never.timer, UINT64_MAX);
    run_to(now_ns + TICK_NS);
    CHECK_INT(past.fired, 1);
    run_to(now_ns + 365 * 24 * 3600 * BM_NS_PER_S);
    CHECK_INT(never.fired, 0);
    CHECK(bm_timer_armed(&never.timer));
    bm_wheel_deinit(&wheel);
    CHECK(!bm_timer_armed(&never.timer));
}

static struct alarm other;

static void cancel_other(struct bm_timer *timer)
{
    (void)timer;
    bm_wheel_cancel(&wheel, &other.timer);
}

TEST(wheel_callback_may_cancel_another_that_is_due)
{
    struct bm_timer first;
    bm_wheel_init(&wheel, now_ns = 0);
    bm_timer_init(&first, cancel_other);
    alarm_init(&other);
    bm_wheel_arm(&wheel, &first, 10 * TICK_NS);
    bm_wheel_arm(&wheel, &other.timer, 10 * TICK_NS);
    run_to(100 * TICK_NS);
    CHECK_INT(other.fired, 0);
    CHECK_UINT(wheel.armed, 0);
}

static int rearmed;

static void rearm_into_the_past(struct bm_timer *timer)
{
    rearmed++;
    bm_wheel_arm(&wheel, timer, 1);
}

TEST(wheel_callback_that_rearms_into_the_past_runs_once_a_tick)
{
    struct bm_timer timer;
    bm_wheel_init(&wheel, now_ns = BM_NS_PER_S);
    rearmed = 0;
    bm_timer_init(&timer, rearm_into_the_past);
    bm_wheel_arm(&wheel, &timer, 1);
    CHECK_UINT(bm_wheel_run(&wheel, now_ns + TICK_NS, 1000), 1);
    CHECK_INT(rearmed, 1);
    CHECK_UINT(bm_wheel_run(&wheel, now_ns + TICK_NS, 1000), 0);
    CHECK_UINT(bm_wheel_run(&wheel, now_ns + 2 * TICK_NS, 1000), 1);
    bm_wheel_deinit(&wheel);
}

TEST(wheel_leaves_what_is_over_the_budget_due)
{
    struct alarm alarms[10];
    bm_wheel_init(&wheel, now_ns = 0);
    for (int i = 0; i < 10; i++) {
        alarm_init(&alarms[i]);
        bm_wheel_arm(&wheel, &alarms[i].timer, (uint64_t)i * TICK_NS);
    }
    CHECK_UINT(bm_wheel_run(&wheel, 20 * TICK_NS, 4), 4);
    CHECK(bm_wheel_next_ns(&wheel) <= 20 * TICK_NS);
    /* One that is due but not yet run can still be cancelled. */
    bm_wheel_cancel(&wheel, &alarms[9].timer);
    CHECK_UINT(bm_wheel_run(&wheel, 20 * TICK_NS, 100), 5);
    CHECK_INT(alarms[9].fired, 0);
    CHECK_UINT(wheel.armed, 0);
}
