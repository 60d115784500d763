/* The one clock and the one source of randomness, both replaceable by a test. */
#ifndef BM_CLOCK_H
#define BM_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define BM_NS_PER_US UINT64_C(1000)
#define BM_NS_PER_MS UINT64_C(1000000)
#define BM_NS_PER_S UINT64_C(1000000000)

struct bm_clock {
    uint64_t (*now_ns)(void *arg);                    /* CLOCK_MONOTONIC */
    void (*random)(void *buf, size_t len, void *arg); /* getrandom(2); never fails */
    void *arg;
};

void bm_clock_set(const struct bm_clock *clock); /* NULL: the kernel's */
uint64_t bm_clock_now_ns(void);
void bm_random(void *buf, size_t len);

/* The time `ns` after `now_ns`; UINT64_MAX, which is never, when that is beyond the end of time. */
static inline uint64_t bm_clock_after(uint64_t now_ns, uint64_t ns)
{
    return ns < UINT64_MAX - now_ns ? now_ns + ns : UINT64_MAX;
}

#endif
