/* The hash of the format with a seed, for the sums of records; without one it is public. */
#ifndef BM_DIGEST_H
#define BM_DIGEST_H

#include <stddef.h>
#include <stdint.h>

/* XXH3_64bits_withSeed of xxHash 0.8. */
uint64_t bm_xxh3_seeded(const void *data, size_t len, uint64_t seed);

#endif
