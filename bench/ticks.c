/* Calibration of the tick counter against CLOCK_MONOTONIC.
 *
 * A counter that stops or changes its rate (a processor of before 2008, without constant_tsc and
 * nonstop_tsc) is not detected. */
#include "bench/ticks.h"

uint64_t bench_ns_per_tick = UINT64_C(1) << 32;
unsigned bench_spin_pauses = 2;

#define CALIBRATION_NS UINT64_C(30000000) /* reading both clocks costs 0.1 us: an error of 1e-5 */

void bench_ticks_calibrate(void)
{
    uint64_t ns_begin = bench_clock_ns(), ticks_begin = bench_ticks();
    uint64_t ns, ticks;
    do {
        ns = bench_clock_ns() - ns_begin;
        ticks = bench_ticks() - ticks_begin;
    } while (ns < CALIBRATION_NS);
    bench_ns_per_tick = (uint64_t)(((unsigned __int128)ns << 32) / ticks);
}
