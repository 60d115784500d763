/* A quarter of RLIMIT_NOFILE, shared by all sessions of the process: how many file descriptors peers
 * may have under way to us in all. Any thread. */
#ifndef BM_FD_BUDGET_H
#define BM_FD_BUDGET_H

/* How many of `wanted` this session may grant; possibly 0. Given back with bm_fd_budget_return. */
unsigned bm_fd_budget_take(unsigned wanted);
void bm_fd_budget_return(unsigned count);

#endif
