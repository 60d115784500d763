/* Sessions counted by user. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "runtime/user_sessions.h"
#include "tests/support/test.h"

static struct bm_user_sessions all;

TEST(user_sessions_are_limited_for_each_user_alone)
{
    bm_user_sessions_init(&all);
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(bm_user_sessions_enter(&all, 1000, 3), 0);
    CHECK_INT(bm_user_sessions_enter(&all, 1000, 3), -EAGAIN);
    CHECK_INT(bm_user_sessions_enter(&all, 1001, 1), 0);
    CHECK_INT(bm_user_sessions_enter(&all, 1001, 1), -EAGAIN);
    bm_user_sessions_leave(&all, 1000);
    CHECK_INT(bm_user_sessions_enter(&all, 1000, 3), 0);
    bm_user_sessions_leave(&all, 1001);
    CHECK_INT(bm_user_sessions_enter(&all, 1001, 1), 0);
    bm_user_sessions_leave(&all, 1001);
    for (unsigned i = 0; i < 3; i++)
        bm_user_sessions_leave(&all, 1000);
    CHECK_INT(bm_user_sessions_enter(&all, 1000, 0), -EAGAIN);
    bm_user_sessions_deinit(&all);
}

enum { THREADS = 3, ROUNDS = 20000, MAX = 2 };

static atomic_uint inside[2], too_many;

static void *come_and_go(void *arg)
{
    struct test_random random = *(const struct test_random *)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t user = (uint32_t)test_random_below(&random, 2);
        if (bm_user_sessions_enter(&all, user, MAX) < 0)
            continue;
        if (atomic_fetch_add(&inside[user], 1) >= MAX)
            atomic_fetch_add(&too_many, 1);
        if (test_random_below(&random, 16) == 0)
            sched_yield();
        atomic_fetch_sub(&inside[user], 1);
        bm_user_sessions_leave(&all, user);
    }
    return NULL;
}

TEST(user_sessions_of_many_reactors_have_one_limit)
{
    pthread_t threads[THREADS];
    struct test_random randoms[THREADS];
    bm_user_sessions_init(&all);
    for (unsigned i = 0; i < THREADS; i++) {
        randoms[i] = test_random(i + 1);
        REQUIRE_INT(pthread_create(&threads[i], NULL, come_and_go, &randoms[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_UINT(atomic_load(&too_many), 0);
    bm_user_sessions_deinit(&all);
}
