#include "net/proto/budget.h"
#include "tests/support/test.h"

static const struct bm_budget_limit ten = {.burst = 10, .per_s = 2};

TEST(budget_has_its_burst_and_then_its_rate)
{
    struct bm_budget budget = {0};
    uint64_t now_ns = 7 * BM_NS_PER_S;
    for (unsigned i = 0; i < 10; i++)
        CHECK(bm_budget_spend(&budget, &ten, 1, now_ns));
    CHECK(!bm_budget_spend(&budget, &ten, 1, now_ns));
    CHECK(!bm_budget_spend(&budget, &ten, 1, now_ns + BM_NS_PER_S / 2 - 1));
    CHECK(bm_budget_spend(&budget, &ten, 1, now_ns + BM_NS_PER_S / 2));
    CHECK(!bm_budget_spend(&budget, &ten, 1, now_ns + BM_NS_PER_S / 2));
}

TEST(budget_is_never_more_than_full)
{
    struct bm_budget budget = {0};
    uint64_t now_ns = 1000 * BM_NS_PER_S;
    CHECK(!bm_budget_spend(&budget, &ten, 11, now_ns));
    CHECK(bm_budget_spend(&budget, &ten, 10, now_ns));
    bm_budget_earn(&budget, &ten, 3);
    CHECK(!bm_budget_spend(&budget, &ten, 4, now_ns));
    CHECK(bm_budget_spend(&budget, &ten, 3, now_ns));
    bm_budget_earn(&budget, &ten, UINT32_MAX);
    CHECK(!bm_budget_spend(&budget, &ten, 11, now_ns));
    CHECK(bm_budget_spend(&budget, &ten, 10, now_ns));
    now_ns += 1000 * BM_NS_PER_S;
    CHECK(!bm_budget_spend(&budget, &ten, 11, now_ns));
    CHECK(bm_budget_spend(&budget, &ten, 10, now_ns));
}

TEST(budget_that_is_asked_takes_nothing)
{
    struct bm_budget budget = {0};
    CHECK(!bm_budget_has(&budget, &ten, 11, 0));
    CHECK(bm_budget_has(&budget, &ten, 10, 0));
    CHECK(bm_budget_spend(&budget, &ten, 4, 0));
    CHECK(!bm_budget_has(&budget, &ten, 7, 0));
    CHECK(bm_budget_has(&budget, &ten, 6, 0));
    CHECK(bm_budget_has(&budget, &ten, 7, BM_NS_PER_S / 2));
}

TEST(budget_takes_the_largest_numbers)
{
    static const struct bm_budget_limit limit = {.burst = UINT32_MAX, .per_s = 1};
    struct bm_budget budget = {0};
    CHECK(bm_budget_spend(&budget, &limit, UINT32_MAX, 0));
    CHECK(!bm_budget_spend(&budget, &limit, 1, 0));
    CHECK(bm_budget_spend(&budget, &limit, UINT32_MAX, UINT32_MAX * BM_NS_PER_S));
}
