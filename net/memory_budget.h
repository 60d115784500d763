/* How much memory the connections of networks hold in this process, with all that hangs on them: TLS, HTTP,
 * bodies of calls, and what their sessions have queued or not freed yet; of all runtimes, listeners and
 * cores together. When it is more than it may be, who is idle is closed, whoever asks for something new is
 * told to come back later, and when that was not enough, new connections are not taken.
 *
 * Each core counts its own and tells the process the difference, when something comes in; what is counted
 * is bounded by limits of its own in between (docs/spec/http.md, section 10). On the core's thread. */
#ifndef BM_MEMORY_BUDGET_H
#define BM_MEMORY_BUDGET_H

#include <stddef.h>
#include <stdint.h>

struct bm_core;

#define BM_MEMORY_MAX                                                                              \
    (UINT64_C(1) << 30) /* ours: ten thousand connections, and as much for bodies */
#define BM_MEMORY_COUNT_NS (100 * BM_NS_PER_MS) /* ours: between two looks at each session */
#define BM_MEMORY_IDLE_NS (1 * BM_NS_PER_S)     /* ours: who may be closed for others' sake */
#define BM_MEMORY_IDLE_MOST 64u                 /* ours: of them, at each look */

enum bm_memory_pressure {
    BM_MEMORY_ROOM,
    BM_MEMORY_SHORT, /* more than the budget: nothing new begins */
    BM_MEMORY_OUT,   /* a quarter more than that: nothing comes in */
};

/* Tells what this core has, and asks for how it is with all; max 0: BM_MEMORY_MAX. May ask idle connections of this core to close. */
enum bm_memory_pressure bm_memory_look(struct bm_core *core, uint64_t max);
/* Tells what this core has: when some of it has gone. */
void bm_memory_tell(struct bm_core *core);
/* Bytes that all cores have told of. Any thread. */
size_t bm_memory_total(void);

#endif
