/* A token bucket. n below 2^32 and a burst below it keep every product below in 64 bits. */
#include "net/proto/budget.h"

static uint64_t cost_ns(const struct bm_budget_limit *limit, uint32_t n)
{
    return n * BM_NS_PER_S / limit->per_s;
}

/* What would be missing if n were taken. */
static uint64_t missing_ns(const struct bm_budget *budget, const struct bm_budget_limit *limit,
                           uint32_t n, uint64_t now_ns)
{
    uint64_t missing = budget->full_at_ns > now_ns ? budget->full_at_ns - now_ns : 0;
    return missing + cost_ns(limit, n);
}

bool bm_budget_has(const struct bm_budget *budget, const struct bm_budget_limit *limit, uint32_t n,
                   uint64_t now_ns)
{
    return missing_ns(budget, limit, n, now_ns) <= cost_ns(limit, limit->burst);
}

bool bm_budget_spend(struct bm_budget *budget, const struct bm_budget_limit *limit, uint32_t n,
                     uint64_t now_ns)
{
    if (!bm_budget_has(budget, limit, n, now_ns))
        return false;
    budget->full_at_ns = now_ns + missing_ns(budget, limit, n, now_ns);
    return true;
}

void bm_budget_earn(struct bm_budget *budget, const struct bm_budget_limit *limit, uint32_t n)
{
    uint64_t cost = cost_ns(limit, n);
    budget->full_at_ns -= cost < budget->full_at_ns ? cost : budget->full_at_ns;
}
