/* XXH3-64, the only hash of the format. xxHash is compiled into this file and seen by no other. */
#include "kv/digest.h"

#include <beam/kv.h>

#include "base/assert.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(sizeof(XXH3_state_t) <= sizeof(beam_xxh3_state), "the public state is too small");
_Static_assert(_Alignof(XXH3_state_t) <= _Alignof(beam_xxh3_state), "and too little aligned");

uint64_t beam_xxh3(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

uint64_t bm_xxh3_seeded(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}

uint64_t beam_kv_digest(const void *doc, size_t len)
{
    return beam_xxh3(doc, len);
}

void beam_xxh3_init(beam_xxh3_state *state)
{
    bm_assert(XXH3_64bits_reset((XXH3_state_t *)state) == XXH_OK);
}

void bm_xxh3_init_seeded(beam_xxh3_state *state, uint64_t seed)
{
    bm_assert(XXH3_64bits_reset_withSeed((XXH3_state_t *)state, seed) == XXH_OK);
}

void beam_xxh3_update(beam_xxh3_state *state, const void *data, size_t len)
{
    if (len > 0)
        bm_assert(XXH3_64bits_update((XXH3_state_t *)state, data, len) == XXH_OK);
}

uint64_t beam_xxh3_final(const beam_xxh3_state *state)
{
    return XXH3_64bits_digest((const XXH3_state_t *)state);
}
