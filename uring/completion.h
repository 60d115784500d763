/* Where completions enter: every one of every reactor passes bm_completion_enter(). Reactor's
 * thread. */
#ifndef BM_COMPLETION_H
#define BM_COMPLETION_H

#include <stdbool.h>
#include <stdint.h>

#include "uring/op.h"

struct bm_cqe;
struct bm_reactor;

#define BM_HELD_MAX 4096u /* ours: what a test may hold back on one reactor */

/* What a test wants done with a completion of an op. It may change *res and *flags before it says so,
 * with two duties: a descriptor or a buffer in the result it hides stays its own to give back, and
 * F_MORE may not be taken away while the kernel will go on (cancel the op and change its last result
 * instead). Called on the reactor's thread; held completions are offered again in every turn, in
 * their order, and completions of the same op queue up behind them. */
enum bm_completion_verdict {
    BM_COMPLETION_PASS,
    BM_COMPLETION_HOLD,
};

typedef enum bm_completion_verdict bm_completion_fn(struct bm_op *op, int *res, uint32_t *flags,
                                                    void *arg);

struct bm_completion_hook {
    bm_completion_fn *fn;
    void *arg;
};

/* Process-wide, NULL fn: none. Set while no reactor runs. */
extern struct bm_completion_hook bm_completion_hook;

/* Dispatches one completion, by the tag in its user_data. */
void bm_completion_enter(struct bm_reactor *reactor, const struct bm_cqe *cqe);

/* Dispatches what the ring has within the turn's budget; true when more is left. */
bool bm_completions_run(struct bm_reactor *reactor);

/* The kernel has taken all submissions, quiet ones among them. */
void bm_completions_taken(struct bm_reactor *reactor);

void bm_completions_deinit(struct bm_reactor *reactor);

#endif
