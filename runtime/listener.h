/* The runtime's listeners. Before the start they wait in its list; core 0 runs them. */
#ifndef BM_LISTENER_H
#define BM_LISTENER_H

#include <beam/runtime.h>

struct bm_core;
struct bm_listener;

/* Core 0, under the runtime's start_lock: those that wait begin to accept. */
void bm_listeners_start(struct bm_core *core);
/* Core 0: all end. No effect on other cores. */
void bm_listeners_stop(struct bm_core *core);
/* Once no core runs. */
void bm_listeners_free(beam_runtime *runtime);

/* Runs fn with each listener that was given this URL and is not closing: on core 0, or before that runs on
 * the caller's thread under the runtime's start_lock; waits until it is done. 0 if fn said so once, else
 * what it said last; -ENOENT: there is none; -BEAM_EFORKED. */
int bm_listeners_with(beam_runtime *runtime, const char *url,
                      int (*fn)(struct bm_listener *listener, void *arg), void *arg);

#endif
