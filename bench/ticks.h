/* The cheapest steady clock there is: one read costs 11 ns as rdtsc and 54 ns as clock_gettime
 * here, which matters when a round trip takes 500. Calibrated once, before anything is forked. */
#ifndef BENCH_TICKS_H
#define BENCH_TICKS_H

#include <stdint.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

extern uint64_t bench_ns_per_tick; /* 32.32 fixed point */

void bench_ticks_calibrate(void);

static inline uint64_t bench_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline uint64_t bench_ticks(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#else
    return bench_clock_ns();
#endif
}

static inline uint64_t bench_ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * bench_ns_per_tick) >> 32);
}

static inline uint64_t bench_ns_to_ticks(uint64_t ns)
{
    return (uint64_t)(((unsigned __int128)ns << 32) / bench_ns_per_tick);
}

static inline void bench_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

/* Between two looks at a line that another core is about to write. A reader that looks without a
 * break takes the line away from a writer in the middle of its stores. How many pauses are best
 * differs between processors: the harness tries some at the start. */
extern unsigned bench_spin_pauses;

#endif
