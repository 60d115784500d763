/* What the kernel has, and why it has nothing. */
#ifndef BM_FEATURES_H
#define BM_FEATURES_H

/* Makes the text of bm_reactor_why() for a ring that could not be made; error: -errno. */
void bm_features_refused(int error);

#endif
