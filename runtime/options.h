/* Options of public functions: structs that may grow, whose first member tells how long the caller's
 * is; as openat2(2) does it. */
#ifndef BM_OPTIONS_H
#define BM_OPTIONS_H

#include <stddef.h>

/* Reads a caller's options into ours, of len bytes: what a shorter one lacks is zero, and so is all of it
 * for NULL. -EINVAL: it does not say how long it is. -E2BIG: it has something we do not know, not zero. */
int bm_options_read(void *to, size_t len, const void *from);

/* The other way, for structs that a function fills in: as much of ours, of len bytes, as the caller's has
 * room for by its size, which stays; the rest of a longer one is zero. -EINVAL: it does not say how long
 * it is. */
int bm_options_write(void *to, const void *from, size_t len);

#endif
