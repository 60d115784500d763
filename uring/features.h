/* What the kernel has, and why there is no io_uring. Any thread. */
#ifndef BM_FEATURES_H
#define BM_FEATURES_H

#include <stdbool.h>

struct bm_features {
    bool min_wait, no_iowait, passrights, pidfd;
    char kernel[64];   /* release */
    char liburing[16]; /* version */
};

/* Probed by the first call, once per process; static. */
const struct bm_features *bm_features_get(void);

/* A ring could not be made: finds out why, for bm_features_why(). error: -errno. */
void bm_features_refused(int error);

/* Why io_uring is not available and what to do, in one line; "" while it has not been refused. */
const char *bm_features_why(void);

#endif
