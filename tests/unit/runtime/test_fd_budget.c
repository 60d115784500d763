/* The one counter that keeps peers from filling our table of descriptors. */
#include "runtime/fd_budget.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "tests/support/test.h"

static struct rlimit before;

static void limit_files(rlim_t files)
{
    if (before.rlim_max == 0)
        getrlimit(RLIMIT_NOFILE, &before);
    struct rlimit rl = {files, before.rlim_max};
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &rl), 0);
}

static void restore(void)
{
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    before = (struct rlimit){0};
}

TEST(fd_budget_gives_what_is_asked_for_while_there_is_plenty)
{
    limit_files(1024);
    CHECK_UINT(bm_fd_budget_take(64), 64);
    CHECK_UINT(bm_fd_budget_take(0), 0);
    CHECK_UINT(bm_fd_budget_take(16), 16);
    bm_fd_budget_return(64 + 16);
    CHECK_UINT(bm_fd_budget_take(128), 128); /* all of it is back */
    bm_fd_budget_return(128);
    restore();
}

TEST(fd_budget_never_exceeds_a_quarter_of_the_limit_and_leaves_something_for_the_next)
{
    static const rlim_t limits[] = {64, 100, 257, 1000};
    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        unsigned quarter = (unsigned)limits[i] / 4, sum = 0, share;
        test_note("limit %u", (unsigned)limits[i]);
        limit_files(limits[i]);
        for (int session = 0; session < 1000; session++) {
            unsigned left = quarter - sum;
            share = bm_fd_budget_take(64);
            CHECK_UINT(share, left / 2 < 64 ? left / 2 : 64);
            sum += share;
            CHECK(sum <= quarter);
        }
        CHECK_UINT(share, 0);
        CHECK_UINT(sum, quarter - 1);
        bm_fd_budget_return(sum);
        CHECK_UINT(bm_fd_budget_take(quarter / 2), quarter / 2);
        bm_fd_budget_return(quarter / 2);
        restore();
    }
}

TEST(fd_budget_grants_nothing_while_a_lowered_limit_is_exceeded)
{
    limit_files(1024);
    unsigned share = bm_fd_budget_take(100);
    CHECK_UINT(share, 100);
    limit_files(80);
    CHECK_UINT(bm_fd_budget_take(64), 0);
    CHECK_UINT(bm_fd_budget_take(UINT32_MAX), 0);
    bm_fd_budget_return(share);
    CHECK_UINT(bm_fd_budget_take(UINT32_MAX), 10);
    bm_fd_budget_return(10);
    restore();
}

#define QUARTER 50u

/* Counted up after a take and down before a return: never above what the budget thinks. */
static _Atomic unsigned held;

static void *session_after_session(void *arg)
{
    struct test_random *random = arg;
    for (int i = 0; i < 20000; i++) {
        unsigned share = bm_fd_budget_take((unsigned)test_random_below(random, 64));
        CHECK(atomic_fetch_add(&held, share) + share <= QUARTER);
        atomic_fetch_sub(&held, share);
        bm_fd_budget_return(share);
    }
    return NULL;
}

TEST(fd_budget_holds_for_sessions_of_many_threads)
{
    pthread_t threads[4];
    struct test_random random[4];
    limit_files(QUARTER * 4);
    for (unsigned i = 0; i < 4; i++) {
        random[i] = test_random(i + 1);
        REQUIRE_INT(pthread_create(&threads[i], NULL, session_after_session, &random[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_UINT(bm_fd_budget_take(QUARTER / 2), QUARTER / 2); /* everything came back */
    bm_fd_budget_return(QUARTER / 2);
    restore();
}

/* --- the line --------------------------------------------------------------------------------- */

struct waiter {
    struct bm_fd_waiter waiter;
    unsigned woken;
};

static void count_wake(struct bm_fd_waiter *waiter)
{
    bm_container_of(waiter, struct waiter, waiter)->woken++;
}

TEST(fd_budget_wakes_those_in_line_in_turn_when_something_comes_back)
{
    struct waiter w[2] = {{.waiter.wake = count_wake}, {.waiter.wake = count_wake}};
    unsigned share = bm_fd_budget_take(6);
    REQUIRE_UINT(share, 6);
    bm_fd_budget_return(1); /* nobody is there */
    bm_fd_budget_wait(&w[0].waiter);
    bm_fd_budget_wait(&w[1].waiter);
    bm_fd_budget_wait(&w[0].waiter);
    CHECK_UINT(w[0].woken + w[1].woken, 0);
    bm_fd_budget_return(0);
    CHECK_UINT(w[0].woken + w[1].woken, 0);
    bm_fd_budget_return(1);
    CHECK_UINT(w[0].woken, 1);
    uint64_t turn = bm_fd_budget_turn();
    bm_fd_budget_pass_on(&w[0].waiter, turn, true);
    CHECK_UINT(w[1].woken, 1);
    bm_fd_budget_pass_on(&w[1].waiter, turn, false);
    CHECK_UINT(w[1].woken, 2); /* alone it goes on */
    bm_fd_budget_pass_on(&w[1].waiter, turn, true);
    CHECK_UINT(w[0].woken, 1);
    CHECK_UINT(w[1].woken, 2);
    bm_fd_budget_return(2);
    CHECK_UINT(w[0].woken, 2);
    bm_fd_budget_leave(&w[1].waiter);
    bm_fd_budget_leave(&w[1].waiter);
    bm_fd_budget_return(1);
    CHECK_UINT(w[0].woken, 3);
    CHECK_UINT(w[1].woken, 2);
    bm_fd_budget_leave(&w[0].waiter);
    bm_fd_budget_return(1);
    CHECK_UINT(w[0].woken, 3);
}
