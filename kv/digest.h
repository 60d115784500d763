/* The hash of the format with a seed, for the sums of records; without one it is public. */
#ifndef BM_DIGEST_H
#define BM_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include <beam/kv.h>

/* XXH3_64bits_withSeed of xxHash 0.8. */
uint64_t bm_xxh3_seeded(const void *data, size_t len, uint64_t seed);

/* Begins the same for beam_xxh3_update() and beam_xxh3_final(). */
void bm_xxh3_init_seeded(beam_xxh3_state *state, uint64_t seed);

#endif
