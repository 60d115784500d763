/* The slow half of the histogram: merging and reading. */
#include "bench/histogram.h"

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->total += from->total;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

static uint64_t bucket_middle(unsigned index)
{
    if (index < (2u << HISTOGRAM_STEP_BITS))
        return index; /* these buckets are one wide */
    unsigned shift = (index >> HISTOGRAM_STEP_BITS) - 1;
    uint64_t low = (uint64_t)(index - (shift << HISTOGRAM_STEP_BITS)) << shift;
    return low + (UINT64_C(1) << shift) / 2;
}

uint64_t histogram_quantile(const struct histogram *histogram, double q)
{
    if (histogram->total == 0)
        return 0;
    uint64_t wanted = (uint64_t)(q * (double)histogram->total);
    if (wanted >= histogram->total)
        wanted = histogram->total - 1;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->bucket[i];
        if (seen > wanted)
            return bucket_middle(i);
    }
    return 0;
}
