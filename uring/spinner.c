/* The adaptive spin.
 *
 * Spinning pays when the answer comes sooner than a sleep and a wake would take, and costs dearly
 * when the one who should answer needs this core. So it is earned, and lost quickly:
 *
 *   - sleeps that were short (the wait itself below about two wakes) grant a budget, but only a run
 *     of them, and the run needed doubles with every spin that ends in sleep, up to SHORT_NEED_MAX;
 *   - a spin that ends in sleep halves the budget, and takes all of it while no spin has hit yet;
 *   - a hit doubles it again, up to two wakes, and halves the run that will be needed.
 *
 * On a shared core spins cannot hit, so the budget is granted once in SHORT_NEED_MAX sleeps and lost
 * at once: below one percent of the time. One thing looks like a hit there: the peer takes the core
 * in the middle of our spin and the answer is there when we get it back. That shows as a gap between
 * two looks at the clock, and counts as a failure.
 *
 * The clock costs as much as the whole rest of a look, so it is read every LOOKS_PER_CLOCK looks, and
 * for one spin in MEASURE_EVERY also at both ends. What the cost of a wake is, nobody can know
 * beforehand (2 us to a runnable thread, 50 us to a halted virtual CPU): it is measured. */
#define _GNU_SOURCE
#include "uring/spinner.h"

#include <errno.h>

#include "base/clock.h"
#include "uring/reactor_inner.h"

#define LOOKS_PER_CLOCK 32u                /* ours: about a microsecond of pauses */
#define MEASURE_EVERY 16u                  /* ours: spins of which one is timed exactly */
#define STOLEN_NS (5 * BM_NS_PER_US)       /* ours: so many looks never take that long */
#define SYSTEM_CALLS_NS (5 * BM_NS_PER_US) /* ours: a peer's two calls, on top of its wake */
#define BUDGET_MIN_NS (2 * BM_NS_PER_US)   /* below it a spin is shorter than the call it saves */
#define BUDGET_MAX_NS (100 * BM_NS_PER_US) /* ours: more is not waiting, it is burning */
#define WAKE_DEFAULT_NS (5 * BM_NS_PER_US) /* until something was measured */
#define WAKE_MAX_NS BM_NS_PER_MS           /* ours: above it somebody else had the core */
#define SHORT_NEED_MIN 4u
#define SHORT_NEED_MAX 1024u
#define DRAINS_PER_TURN 64u /* ours: then the timers are looked at again */
#define CALIBRATIONS 5u
#define CALIBRATION_NS (20 * BM_NS_PER_US)

/* One wait for something to come. */
struct wait {
    uint64_t due_ns;            /* the next timer */
    uint64_t first_ns, last_ns; /* looks at the clock; 0: none yet */
    bool stolen;                /* somebody else had the core in between */
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

void bm_spinner_init(struct bm_spinner *spinner, bool always, bool adaptive)
{
    *spinner = (struct bm_spinner){
        .always = always,
        .adaptive = adaptive,
        .short_need = SHORT_NEED_MIN,
    };
}

static uint64_t wake_of(const struct bm_spinner *spinner)
{
    return spinner->wake_ns ? spinner->wake_ns : WAKE_DEFAULT_NS;
}

/* Two wakes: ours, which spinning saves, and the peer's, which it has to outlast at the beginning. */
static uint64_t cap_of(const struct bm_spinner *spinner)
{
    uint64_t cap = 2 * wake_of(spinner) + SYSTEM_CALLS_NS;
    return cap < BUDGET_MAX_NS ? cap : BUDGET_MAX_NS;
}

/* A step of a sixteenth up or down comes to rest where half the samples are on either side. */
void bm_spinner_sample_wake(struct bm_spinner *spinner, uint64_t wake_ns)
{
    uint64_t median = spinner->wake_ns;
    if (wake_ns > WAKE_MAX_NS)
        return;
    if (median == 0)
        spinner->wake_ns = wake_ns;
    else if (wake_ns > median)
        spinner->wake_ns += median / 16 + 1;
    else if (wake_ns < median)
        spinner->wake_ns -= median / 16;
}

void bm_spinner_slept(struct bm_spinner *spinner, uint64_t slept_ns)
{
    if (!spinner->adaptive)
        return;
    uint64_t wake_ns = wake_of(spinner);
    uint64_t waited_ns = slept_ns > wake_ns ? slept_ns - wake_ns : 0;
    if (waited_ns > cap_of(spinner)) {
        spinner->short_run = 0;
        return;
    }
    if (++spinner->short_run < spinner->short_need)
        return;
    spinner->short_run = 0;
    if (spinner->budget_ns == 0)
        spinner->proven = false;
    spinner->budget_ns = cap_of(spinner);
}

static void failed(struct bm_spinner *spinner)
{
    if (!spinner->adaptive)
        return;
    spinner->budget_ns = spinner->proven ? spinner->budget_ns / 2 : 0;
    if (spinner->budget_ns < BUDGET_MIN_NS)
        spinner->budget_ns = 0;
    spinner->short_run = 0;
    if (spinner->short_need < SHORT_NEED_MAX)
        spinner->short_need *= 2;
}

static void hit(struct bm_spinner *spinner)
{
    if (!spinner->adaptive)
        return;
    spinner->proven = true;
    uint64_t cap = cap_of(spinner);
    spinner->budget_ns = 2 * spinner->budget_ns < cap ? 2 * spinner->budget_ns : cap;
    if (spinner->short_need > SHORT_NEED_MIN)
        spinner->short_need /= 2;
}

/* Begins to wait for the next thing; one wait in MEASURE_EVERY is timed from its start. */
static void wait_begin(struct bm_reactor *reactor, struct wait *wait)
{
    struct bm_spinner *spinner = &reactor->spinner;
    *wait = (struct wait){.due_ns = bm_wheel_next_ns(&reactor->wheel)};
    reactor->stats.spins++;
    if (spinner->spins++ % MEASURE_EVERY == 0)
        wait->first_ns = wait->last_ns = bm_clock_now_ns();
}

/* It came. */
static void wait_end(struct bm_reactor *reactor, const struct wait *wait)
{
    reactor->stats.spin_hits++;
    if (wait->first_ns == 0)
        return;
    reactor->now_ns = bm_clock_now_ns();
    reactor->now_fresh = true;
    if (wait->stolen || reactor->now_ns - wait->last_ns > STOLEN_NS)
        failed(&reactor->spinner);
    else
        hit(&reactor->spinner);
}

bool bm_reactor_spin(struct bm_reactor *reactor)
{
    struct bm_spinner *spinner = &reactor->spinner;
    struct wait wait;
    wait_begin(reactor, &wait);
    for (unsigned looks = 1, drained = 0;; looks++) {
        switch (bm_reactor_look(reactor)) {
        case BM_LOOK_TURN:
            wait_end(reactor, &wait);
            return true;
        case BM_LOOK_DRAINED:
            /* What came is dealt with, and nothing came of it that takes a turn. */
            wait_end(reactor, &wait);
            if (++drained == DRAINS_PER_TURN)
                reactor->unclocked = BM_TURNS_UNCLOCKED;
            if (drained == DRAINS_PER_TURN || (!spinner->always && spinner->budget_ns == 0))
                return true;
            wait_begin(reactor, &wait);
            looks = 0;
            continue;
        case BM_LOOK_NOTHING:
            break;
        }
        relax();
        if (looks % LOOKS_PER_CLOCK)
            continue;
        uint64_t now_ns = bm_clock_now_ns();
        if (wait.first_ns == 0)
            wait.first_ns = now_ns;
        else if (now_ns - wait.last_ns > STOLEN_NS)
            wait.stolen = true;
        wait.last_ns = now_ns;
        if (now_ns >= wait.due_ns) {
            reactor->now_ns = now_ns;
            reactor->now_fresh = true;
            return true;
        }
        if (!spinner->always && now_ns - wait.first_ns >= spinner->budget_ns) {
            failed(spinner);
            return false;
        }
    }
}

void bm_spinner_calibrate(struct bm_reactor *reactor)
{
    struct bm_spinner *spinner = &reactor->spinner;
    if (!spinner->adaptive || spinner->wake_ns)
        return;
    /* The best of them: the others were disturbed, and the moving median is slow to forget. */
    for (unsigned i = 0; i < CALIBRATIONS; i++) {
        uint64_t start_ns = bm_clock_now_ns();
        int r = bm_reactor_wait(reactor, CALIBRATION_NS);
        uint64_t late_ns = bm_clock_now_ns() - start_ns - CALIBRATION_NS;
        if (r == -ETIME && late_ns < WAKE_MAX_NS &&
            (spinner->wake_ns == 0 || late_ns < spinner->wake_ns))
            spinner->wake_ns = late_ns;
    }
}
