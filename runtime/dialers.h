/* The dialers of a core, at its end. */
#ifndef BM_DIALERS_H
#define BM_DIALERS_H

struct bm_core;

/* Core's thread: frees those that the application has not. */
void bm_dialers_free(struct bm_core *core);

#endif
