/* A quarter of RLIMIT_NOFILE, shared by all sessions of the process: how many file descriptors peers
 * may have under way to us in all. Any thread. */
#ifndef BM_FD_BUDGET_H
#define BM_FD_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

/* Somebody who got less than he wanted, and is told when others give theirs back. */
struct bm_fd_waiter {
    struct bm_list node;
    /* Any thread; must not come back here. */
    void (*wake)(struct bm_fd_waiter *waiter);
    uint64_t turn; /* the last one in which he needs nothing more; the line's */
};

/* How many of `wanted` this session may grant; possibly 0. Given back with bm_fd_budget_return. */
unsigned bm_fd_budget_take(unsigned wanted);
void bm_fd_budget_return(unsigned count);

/* In line from now on, until he leaves it. What came back before this call is not told: who has begun to
 * wait asks once more. No effect when he is in line. */
void bm_fd_budget_wait(struct bm_fd_waiter *waiter);
/* wake is not running and will not run. No effect when he is not in line. */
void bm_fd_budget_leave(struct bm_fd_waiter *waiter);

/* Each give-back begins a turn: one after the other is woken, until nothing is left or each has had his
 * part, half of what is left at most, as above. Who was woken passes it on once he has taken something,
 * with done when he needs nothing more in this turn. */
uint64_t bm_fd_budget_turn(void);
void bm_fd_budget_pass_on(struct bm_fd_waiter *waiter, uint64_t turn, bool done);

#endif
