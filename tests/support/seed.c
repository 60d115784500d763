/* Where a test's seed comes from: the caller, the environment, or the kernel. */
#include <stdlib.h>
#include <sys/random.h>

#include "tests/support/run.h"
#include "tests/support/test.h"

static uint64_t pick_seed(void)
{
    const char *text = getenv("BEAM_TEST_SEED");
    uint64_t seed = 0;
    if (text)
        seed = strtoull(text, NULL, 0);
    while (seed == 0)
        if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
            abort();
    return seed;
}

struct test_random test_random(uint64_t seed)
{
    if (seed == 0)
        seed = pick_seed();
    test_seed_used(seed);
    return (struct test_random){seed};
}
