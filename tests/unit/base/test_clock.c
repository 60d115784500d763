/* The clock and the random source, the kernel's and a test's. */
#include "base/clock.h"

#include <string.h>

#include "tests/support/test.h"

TEST(clock_goes_forward)
{
    uint64_t last_ns = bm_clock_now_ns();
    CHECK(last_ns > 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t now_ns = bm_clock_now_ns();
        if (now_ns < last_ns)
            CHECK_UINT(now_ns, last_ns);
        last_ns = now_ns;
    }
}

TEST(random_fills_exactly_what_was_asked_for)
{
    unsigned char buf[600], other[600];
    memset(buf, 0, sizeof(buf));
    bm_random(buf + 1, 512); /* more than one call of getrandom(2) gives without being cut short */
    CHECK_INT(buf[0], 0);
    CHECK_INT(buf[513], 0);
    int zeros = 0;
    for (int i = 1; i < 513; i++)
        zeros += buf[i] == 0;
    CHECK(zeros < 100);
    bm_random(other + 1, 512);
    CHECK(memcmp(buf + 1, other + 1, 512) != 0);
    bm_random(buf, 0);
}

static uint64_t at_seven(void *arg)
{
    return *(uint64_t *)arg;
}

static void all_nines(void *buf, size_t len, void *arg)
{
    (void)arg;
    memset(buf, 9, len);
}

TEST(clock_and_random_are_replaceable)
{
    uint64_t seven = 7;
    const struct bm_clock clock = {.now_ns = at_seven, .random = all_nines, .arg = &seven};
    unsigned char buf[3];
    bm_clock_set(&clock);
    CHECK_UINT(bm_clock_now_ns(), 7);
    bm_random(buf, sizeof(buf));
    CHECK_MEM(buf, 3, "\x09\x09\x09", 3);
    bm_clock_set(NULL);
    CHECK(bm_clock_now_ns() != 7);
}

TEST(time_after_a_time_ends_at_the_end_of_time)
{
    CHECK_UINT(bm_clock_after(5, 0), 5);
    CHECK_UINT(bm_clock_after(5, 7), 12);
    CHECK_UINT(bm_clock_after(5, UINT64_MAX - 6), UINT64_MAX - 1);
    CHECK_UINT(bm_clock_after(5, UINT64_MAX - 5), UINT64_MAX);
    CHECK_UINT(bm_clock_after(5, UINT64_MAX), UINT64_MAX);
}
