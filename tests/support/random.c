/* Randomness for tests: splitmix64, whose whole state is the seed, so that a printed seed is all that a
 * failing run needs to be repeated. */
#include <string.h>

#include "tests/support/test.h"

uint64_t test_random_next(struct test_random *random)
{
    random->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = random->state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t test_random_below(struct test_random *random, uint64_t bound)
{
    /* The bias of a plain remainder is below 2^-32 for the bounds tests use. */
    return test_random_next(random) % bound;
}

void test_random_fill(struct test_random *random, void *buf, size_t len)
{
    unsigned char *p = buf;
    while (len > 0) {
        uint64_t word = test_random_next(random);
        size_t n = len < sizeof(word) ? len : sizeof(word);
        memcpy(p, &word, n);
        p += n;
        len -= n;
    }
}
