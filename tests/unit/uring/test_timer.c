/* Timers of a reactor, on the kernel's clock and on a replaced one. */
#include "tests/unit/uring/rig.h"
#include "uring/reactor_inner.h"

static struct rig rig;

struct alarm {
    struct bm_timer timer;
    uint64_t fired_ns;
    int left; /* re-arms itself so often */
};

static void ring(struct bm_timer *timer)
{
    struct alarm *alarm = bm_container_of(timer, struct alarm, timer);
    alarm->fired_ns = bm_clock_now_ns();
    if (alarm->left-- > 0)
        bm_timer_arm(rig.reactor, timer, bm_reactor_now_ns(rig.reactor) + 200 * BM_NS_PER_US);
    else
        bm_reactor_stop(rig.reactor);
}

TEST(timer_wakes_a_sleeping_reactor_and_not_early)
{
    struct alarm alarm = {.left = 0};
    rig_open(&rig);
    bm_timer_init(&alarm.timer, ring);
    uint64_t at_ns = bm_clock_now_ns() + 3 * BM_NS_PER_MS;
    bm_timer_arm(rig.reactor, &alarm.timer, at_ns);
    rig_run(&rig);
    CHECK(alarm.fired_ns >= at_ns);
    /* One for the timer, at most a few to spread the slots on the way to it. */
    CHECK(bm_reactor_stats(rig.reactor)->enters < 15);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->timers, 1);
    rig_close(&rig);
}

TEST(timer_rearms_in_its_callback)
{
    struct alarm alarm = {.left = 20};
    rig_open(&rig);
    bm_timer_init(&alarm.timer, ring);
    bm_timer_arm(rig.reactor, &alarm.timer, 0);
    rig_run(&rig);
    CHECK_INT(alarm.left, -1);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->timers, 21);
    rig_close(&rig);
}

TEST(timer_wakes_a_spinning_reactor)
{
    struct alarm alarm = {.left = 0};
    rig_open_with(&rig, (struct bm_reactor_options){.spin = BM_SPIN_ALWAYS, .may_spin = true});
    bm_timer_init(&alarm.timer, ring);
    uint64_t at_ns = bm_clock_now_ns() + BM_NS_PER_MS;
    bm_timer_arm(rig.reactor, &alarm.timer, at_ns);
    rig_run(&rig);
    CHECK(alarm.fired_ns >= at_ns);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->sleeps, 0);
    rig_close(&rig);
}

TEST(timer_armed_at_the_end_of_the_reactor_is_let_go)
{
    struct alarm alarm = {.left = 0};
    rig_open(&rig);
    bm_timer_init(&alarm.timer, ring);
    bm_timer_arm(rig.reactor, &alarm.timer, UINT64_MAX);
    rig_close(&rig);
    CHECK(!bm_timer_armed(&alarm.timer));
    CHECK_UINT(alarm.fired_ns, 0);
}

static uint64_t fake_ns;

static uint64_t fake_now(void *arg)
{
    (void)arg;
    return fake_ns;
}

static void fake_random(void *buf, size_t len, void *arg)
{
    (void)buf;
    (void)len;
    (void)arg;
}

TEST(timer_follows_the_replaced_clock)
{
    static const struct bm_clock fake = {.now_ns = fake_now, .random = fake_random};
    struct alarm alarm = {.left = 0};
    fake_ns = 1000 * BM_NS_PER_S;
    bm_clock_set(&fake);
    rig_open(&rig);
    bm_timer_init(&alarm.timer, ring);
    bm_timer_arm(rig.reactor, &alarm.timer, fake_ns + 3600 * BM_NS_PER_S);
    for (unsigned i = 0; i < 2 * BM_TURNS_UNCLOCKED; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_UINT(alarm.fired_ns, 0);
    fake_ns += 3600 * BM_NS_PER_S - 1;
    for (unsigned i = 0; i < 2 * BM_TURNS_UNCLOCKED; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_UINT(alarm.fired_ns, 0);
    fake_ns += 1 + (1u << BM_TICK_SHIFT);
    for (unsigned i = 0; i < 2 * BM_TURNS_UNCLOCKED; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_UINT(alarm.fired_ns, fake_ns);
    rig_close(&rig);
    bm_clock_set(NULL);
}
