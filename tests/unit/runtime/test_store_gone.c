/* What a store knows of keys that it deleted: always as late as it was or later, and found in few steps
 * whatever the keys are. */
#include "runtime/store_gone.h"

#include <stdio.h>

#include "tests/support/test.h"

#define STEPS_MAX 11u /* of a search: one more than the logarithm of BM_GONE_MAX */

static struct bm_gone gone;

static beam_str name_of(unsigned i, char room[24])
{
    return (beam_str){room, (size_t)snprintf(room, 24, "key %u", i)};
}

TEST(gone_keys_are_known_until_as_many_came_behind_them)
{
    char room[24];
    bm_gone_init(&gone, 5);
    CHECK_UINT(bm_gone_find(&gone, name_of(1, room)), 5);
    for (unsigned i = 0; i < BM_GONE_MAX; i++)
        bm_gone_add(&gone, name_of(i, room), 10 + i);
    for (unsigned i = 0; i < BM_GONE_MAX; i++)
        CHECK_UINT(bm_gone_find(&gone, name_of(i, room)), 10 + i);
    CHECK_UINT(bm_gone_find(&gone, name_of(BM_GONE_MAX, room)), 5);
    bm_gone_add(&gone, name_of(BM_GONE_MAX, room), 10 + BM_GONE_MAX);
    CHECK_UINT(bm_gone_find(&gone, name_of(0, room)), 10);
    CHECK_UINT(bm_gone_find(&gone, name_of(1, room)), 11);
    CHECK_UINT(bm_gone_find(&gone, name_of(BM_GONE_MAX + 1, room)), 10); /* it might be key 0 */
    CHECK_UINT(gone.count, BM_GONE_MAX);
}

/* Against a list of all that was ever deleted: few keys, so that most come again and again. */
TEST(gone_keys_are_as_a_list_of_them)
{
    static struct {
        unsigned key;
        uint64_t rev;
    } all[20000];
    struct test_random random = test_random(0);
    char room[24];
    uint64_t rev = 1;
    unsigned wrong = 0;
    bm_gone_init(&gone, 0);
    for (unsigned n = 0; n < 20000; n++) {
        /* Some in one transaction, and at times most of them new. */
        unsigned key = (unsigned)test_random_below(&random, n / 4000 % 2 ? 10000 : 700);
        rev += test_random_below(&random, 3) == 0;
        all[n].key = key;
        all[n].rev = rev;
        bm_gone_add(&gone, name_of(key, room), rev);

        unsigned asked = (unsigned)test_random_below(&random, 800);
        unsigned from = n + 1 > BM_GONE_MAX ? n + 1 - BM_GONE_MAX : 0;
        uint64_t expected = from > 0 ? all[from - 1].rev : 0;
        for (unsigned i = from; i <= n; i++)
            if (all[i].key == asked)
                expected = all[i].rev;
        wrong += bm_gone_find(&gone, name_of(asked, room)) != expected;
    }
    CHECK_UINT(wrong, 0);
}

TEST(gone_keys_take_few_steps_each)
{
    char room[24];
    bm_gone_init(&gone, 0);
    for (unsigned i = 0; i < 5 * BM_GONE_MAX; i++) {
        uint64_t before = gone.compared;
        bm_gone_add(&gone, name_of(i, room), 1 + i);
        CHECK(gone.compared - before <= 2 * STEPS_MAX);
        before = gone.compared;
        (void)bm_gone_find(&gone, name_of(i / 2, room));
        CHECK(gone.compared - before <= STEPS_MAX);
    }
    /* One key alone, which is one digest: no worse. */
    for (unsigned i = 0; i < 2 * BM_GONE_MAX; i++) {
        uint64_t before = gone.compared;
        bm_gone_add(&gone, name_of(7, room), 100000 + i);
        CHECK(gone.compared - before <= 2 * STEPS_MAX);
    }
    uint64_t before = gone.compared;
    CHECK_UINT(bm_gone_find(&gone, name_of(7, room)), 100000 + 2 * BM_GONE_MAX - 1);
    CHECK(gone.compared - before <= STEPS_MAX);
}
