/* A log-linear histogram of nanoseconds: 128 steps per power of two, so a bucket is less than
 * 1 % wide, as in HdrHistogram with two significant digits. Plain memory, no pointers: it lives in
 * pages shared between processes and is merged by adding. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS 7
#define HISTOGRAM_VALUE_BITS 40 /* 18 minutes in ns; more is counted as that */
#define HISTOGRAM_BUCKETS ((HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS)

struct histogram {
    uint64_t total;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_index(uint64_t value)
{
    if (value < (UINT64_C(1) << HISTOGRAM_STEP_BITS))
        return (unsigned)value;
    if (value >> HISTOGRAM_VALUE_BITS)
        value = (UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1;
    unsigned shift = (unsigned)(63 - __builtin_clzll(value)) - HISTOGRAM_STEP_BITS;
    /* The leading one is in value >> shift as well: it counts the shift up by one. */
    return (shift << HISTOGRAM_STEP_BITS) + (unsigned)(value >> shift);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->total++;
    histogram->bucket[histogram_index(value)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from);

/* The middle of the bucket that holds the q-quantile (0 < q <= 1), or 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, double q);

#endif
