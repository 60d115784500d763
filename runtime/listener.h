/* The runtime's listeners. Before the start they wait in its list; core 0 runs them. */
#ifndef BM_LISTENER_H
#define BM_LISTENER_H

#include <beam/runtime.h>

struct bm_core;

/* Core 0, under the runtime's start_lock: those that wait begin to accept. */
void bm_listeners_start(struct bm_core *core);
/* Core 0: all end. No effect on other cores. */
void bm_listeners_stop(struct bm_core *core);
/* Once no core runs. */
void bm_listeners_free(beam_runtime *runtime);

#endif
