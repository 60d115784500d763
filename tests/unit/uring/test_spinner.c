/* What earns a spin budget and what loses it, without a kernel and without a clock of its own. */
#define _GNU_SOURCE
#include "uring/spinner.h"

#include "tests/unit/uring/rig.h"
#include "uring/reactor_inner.h"

#define US BM_NS_PER_US

static void adaptive(struct bm_spinner *spinner)
{
    bm_spinner_init(spinner, false, true);
    bm_spinner_sample_wake(spinner, 10 * US);
}

/* So many short sleeps until there is a budget. */
static int sleeps_until_granted(struct bm_spinner *spinner)
{
    int n = 0;
    while (spinner->budget_ns == 0 && n < 100000) {
        bm_spinner_slept(spinner, 15 * US);
        n++;
    }
    return n;
}

TEST(spinner_starts_without_a_budget_and_earns_it_by_short_sleeps)
{
    struct bm_spinner spinner;
    adaptive(&spinner);
    CHECK_UINT(spinner.budget_ns, 0);
    int n = sleeps_until_granted(&spinner);
    CHECK(n > 1);
    CHECK(n < 20);
    CHECK(spinner.budget_ns >= 10 * US);
    CHECK(spinner.budget_ns <= 100 * US);
}

TEST(spinner_never_earns_by_long_sleeps_or_when_it_may_not)
{
    struct bm_spinner spinner;
    adaptive(&spinner);
    for (int i = 0; i < 10000; i++)
        bm_spinner_slept(&spinner, 1000 * US);
    CHECK_UINT(spinner.budget_ns, 0);
    for (int i = 0; i < 10000; i++) /* every other one is not a run */
        bm_spinner_slept(&spinner, i % 2 ? 1000 * US : 15 * US);
    CHECK_UINT(spinner.budget_ns, 0);
    bm_spinner_init(&spinner, false, false);
    CHECK_INT(sleeps_until_granted(&spinner), 100000);
}

TEST(spinner_median_of_the_wake_follows_and_ignores_the_absurd)
{
    struct bm_spinner spinner;
    adaptive(&spinner);
    for (int i = 0; i < 1000; i++)
        bm_spinner_sample_wake(&spinner, (i % 2 ? 39 : 41) * US);
    CHECK(spinner.wake_ns > 30 * US);
    CHECK(spinner.wake_ns < 50 * US);
    for (int i = 0; i < 1000; i++)
        bm_spinner_sample_wake(&spinner, 5 * BM_NS_PER_S);
    CHECK(spinner.wake_ns < 50 * US);
}

/* The rest needs looks, and so a reactor; time is played. */
static struct rig rig;
static uint64_t fake_ns, step_ns;
static int gap_in; /* so many reads of the clock */

static uint64_t fake_now(void *arg)
{
    (void)arg;
    if (gap_in > 0 && --gap_in == 0)
        fake_ns += 8 * US;
    return fake_ns += step_ns;
}

static const struct bm_clock fake = {.now_ns = fake_now};

static int ready_after;

static bool ready(struct bm_source *source)
{
    (void)source;
    return false;
}

/* When it comes it is more than a look may deal with: a turn is due. */
static unsigned drain(struct bm_source *source, unsigned budget)
{
    (void)source;
    return ready_after-- <= 0 ? budget : 0;
}

static struct bm_source source = {.ready = ready, .drain = drain};

static struct bm_spinner *open_spinner(void)
{
    rig_open_with(&rig, (struct bm_reactor_options){.may_spin = true});
    bm_source_add(rig.reactor, &source);
    bm_spinner_sample_wake(&rig.reactor->spinner, 10 * US);
    fake_ns = bm_clock_now_ns();
    step_ns = US;
    bm_clock_set(&fake);
    return &rig.reactor->spinner;
}

static void close_spinner(void)
{
    bm_clock_set(NULL);
    bm_source_remove(rig.reactor, &source);
    rig_close(&rig);
}

static bool spin(int looks)
{
    ready_after = looks;
    return bm_reactor_spin(rig.reactor);
}

TEST(spinner_first_spin_that_fails_takes_the_whole_budget)
{
    struct bm_spinner *spinner = open_spinner();
    sleeps_until_granted(spinner);
    CHECK(!spin(1000000));
    CHECK_UINT(spinner->budget_ns, 0);
    close_spinner();
}

TEST(spinner_that_has_hit_loses_half_of_it_and_wins_it_back)
{
    struct bm_spinner *spinner = open_spinner();
    sleeps_until_granted(spinner);
    uint64_t full_ns = spinner->budget_ns;
    for (int i = 0; i < 16; i++) /* one of them is measured */
        CHECK(spin(3));
    CHECK_UINT(spinner->budget_ns, full_ns);
    CHECK(!spin(1000000));
    CHECK_UINT(spinner->budget_ns, full_ns / 2);
    for (int i = 0; i < 16; i++)
        CHECK(spin(3));
    CHECK_UINT(spinner->budget_ns, full_ns);
    for (int i = 0; i < 8; i++)
        spin(1000000);
    CHECK_UINT(spinner->budget_ns, 0);
    close_spinner();
}

TEST(spinner_on_a_shared_cpu_tries_ever_more_rarely)
{
    struct bm_spinner *spinner = open_spinner();
    int total = 0, granted = 0, last = 0;
    while (total < 100000) {
        last = sleeps_until_granted(spinner);
        total += last;
        granted++;
        CHECK(!spin(1000000));
    }
    CHECK(last > 1000);
    CHECK(granted < 120);
    /* And forgets it when spins hit again. */
    sleeps_until_granted(spinner);
    for (int i = 0; i < 16 * 20; i++)
        CHECK(spin(3));
    CHECK(!spin(1000000));
    while (spinner->budget_ns > 0)
        spin(1000000);
    CHECK(sleeps_until_granted(spinner) < 1000);
    close_spinner();
}

TEST(spinner_takes_an_answer_after_a_stolen_cpu_for_a_failure)
{
    struct bm_spinner *spinner = open_spinner();
    sleeps_until_granted(spinner);
    step_ns = 8 * US; /* between two looks at the clock somebody else ran */
    CHECK(spin(40));
    CHECK_UINT(spinner->budget_ns, 0);
    close_spinner();
}

TEST(spinner_takes_an_answer_long_after_a_stolen_cpu_for_a_failure_too)
{
    struct bm_spinner *spinner = open_spinner();
    sleeps_until_granted(spinner);
    gap_in = 3;
    CHECK(spin(32 * 8));
    CHECK_INT(gap_in, 0);
    CHECK_UINT(spinner->budget_ns, 0);
    close_spinner();
}

TEST(spinner_hit_within_the_first_looks_reads_no_clock)
{
    open_spinner();
    spin(3); /* measured */
    uint64_t before_ns = fake_ns;
    for (int i = 0; i < 15; i++)
        CHECK(spin(3));
    CHECK_UINT(fake_ns, before_ns);
    close_spinner();
}

static void nothing(struct bm_timer *timer)
{
    (void)timer;
}

/* Messages that cause nothing but answers are dealt with while spinning; timers still get their look. */
static int drained, drain_total;

static unsigned drain_one(struct bm_source *self, unsigned budget)
{
    (void)self;
    (void)budget;
    if (drained == drain_total)
        return 0;
    drained++;
    return 1;
}

TEST(spinner_deals_with_messages_without_a_turn_but_not_for_ever)
{
    struct bm_source busy = {.ready = ready, .drain = drain_one};
    struct bm_spinner *spinner = open_spinner();
    bm_source_remove(rig.reactor, &source);
    bm_source_add(rig.reactor, &busy);
    spinner->always = true;
    step_ns = 50 * US;
    struct bm_timer timer;
    bm_timer_init(&timer, nothing);
    bm_timer_arm(rig.reactor, &timer, fake_ns + 100 * US);
    drained = 0;
    drain_total = 1000000;
    CHECK(bm_reactor_spin(rig.reactor));
    CHECK(drained > 1);
    CHECK(drained < 1000);
    bm_reactor_once(rig.reactor); /* the turn after it looks at the clock */
    CHECK(!bm_timer_armed(&timer));
    bm_source_remove(rig.reactor, &busy);
    bm_source_add(rig.reactor, &source);
    close_spinner();
}
