/* Timers of the application: one wheel node each, on the core that made it. */
#ifndef BM_APP_TIMER_H
#define BM_APP_TIMER_H

struct bm_core;

/* None fires any more; whoever has a handle may still free it. */
void bm_timers_stop(struct bm_core *core);
/* Frees what is left of a core's timers. */
void bm_timers_free(struct bm_core *core);

#endif
