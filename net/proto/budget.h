/* A token bucket: so many at once, and so many a second for ever. It is one number, the time at
 * which it will be full again (the generic cell rate algorithm), so that there is nothing to refill
 * and nothing to drift. */
#ifndef BM_BUDGET_H
#define BM_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

struct bm_budget_limit {
    uint32_t burst; /* at once */
    uint32_t per_s; /* above 0 */
};

/* Zeroed it is full. */
struct bm_budget {
    uint64_t full_at_ns;
};

/* Takes n out of it; false, and takes nothing, when there are not so many. now_ns never goes
 * back. */
bool bm_budget_spend(struct bm_budget *budget, const struct bm_budget_limit *limit, uint32_t n,
                     uint64_t now_ns);

/* Whether there are so many. */
bool bm_budget_has(const struct bm_budget *budget, const struct bm_budget_limit *limit, uint32_t n,
                   uint64_t now_ns);

/* Puts n back, no more than there is room for. */
void bm_budget_earn(struct bm_budget *budget, const struct bm_budget_limit *limit, uint32_t n);

#endif
