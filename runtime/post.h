/* Calls posted to a core, before it runs and after. */
#ifndef BM_POST_H
#define BM_POST_H

#include <beam/runtime.h>

struct bm_core;

/* A call posted before there was a reactor to run it. */
struct bm_early_post {
    struct bm_early_post *next;
    unsigned core;
    beam_post_fn *fn;
    void *arg;
};

/* Those of one core, in their order; under the runtime's start_lock. */
struct bm_early_post *bm_early_posts_take(struct bm_core *core);
void bm_early_posts_run(struct bm_early_post *posts);
/* Those that never ran. */
void bm_early_posts_drop(beam_runtime *runtime);

#endif
