/* The one clock and the one source of randomness, both replaceable by a test. Any thread. */
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

/* Copies the table; NULL: the kernel's. While no other thread reads it. */
void bm_clock_set(const struct bm_clock *clock);
/* Nanoseconds of CLOCK_MONOTONIC; never go back. */
uint64_t bm_clock_now_ns(void);
/* len bytes that nobody can guess. */
void bm_random(void *buf, size_t len);

/* The time `ns` after `now_ns`, or UINT64_MAX, which stands for never, when that does not fit. */
static inline uint64_t bm_clock_after(uint64_t now_ns, uint64_t ns)
{
    return ns < UINT64_MAX - now_ns ? now_ns + ns : UINT64_MAX;
}

#endif
