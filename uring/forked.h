/* Telling a forked child from its parent without a system call: each process has an *epoch*, which
 * an object remembers from its birth. Any thread. */
#ifndef BM_FORKED_H
#define BM_FORKED_H

#include <stdint.h>

/* Makes sure that this process has an epoch, and returns it: never 0, and another one in every
 * process. 0 when there is no memory for it. */
uint64_t bm_fork_epoch(void);

/* The epoch of this process, or 0 in a child that has not asked for one. */
uint64_t bm_fork_epoch_seen(void);

#endif
