/* The clock and the random source behind one table, so that a test may drive time and replay luck.
 *
 * The table is replaced while no other thread reads it (before the first runtime, as the
 * allocator's); there is no locking. Random bytes come from getrandom(2) without a buffer of our
 * own: nothing can be repeated in a child after fork, and nobody here needs many. */
#define _GNU_SOURCE
#include "base/clock.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "base/assert.h"

static uint64_t kernel_now_ns(void *arg)
{
    (void)arg;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * BM_NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* getrandom cannot fail for good once the pool is initialised: only a signal cuts it short. Anything
 * else would mean weak identifiers, so it ends the process. */
static void kernel_random(void *buf, size_t len, void *arg)
{
    (void)arg;
    unsigned char *pos = buf;
    while (len > 0) {
        ssize_t n = getrandom(pos, len, 0);
        if (n < 0) {
            bm_assert(errno == EINTR);
            continue;
        }
        pos += n;
        len -= (size_t)n;
    }
}

static const struct bm_clock kernel_clock = {.now_ns = kernel_now_ns, .random = kernel_random};
static struct bm_clock table = {.now_ns = kernel_now_ns, .random = kernel_random};

void bm_clock_set(const struct bm_clock *clock)
{
    table = clock ? *clock : kernel_clock;
}

uint64_t bm_clock_now_ns(void)
{
    return table.now_ns(table.arg);
}

void bm_random(void *buf, size_t len)
{
    table.random(buf, len, table.arg);
}
