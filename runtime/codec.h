/* The codecs of a runtime: those that are always known, and the application's own. Registered before
 * the start by one thread, and then only read, by any. */
#ifndef BM_CODEC_H
#define BM_CODEC_H

#include <stdbool.h>

#include <beam/codec.h>

#define BM_CODECS_MAX 32u                /* ours: the names of all of them fit what an error says */
#define BM_CODEC_NAME_LEN_MAX 64u        /* ours */
#define BM_CODEC_MEDIA_TYPE_LEN_MAX 255u /* ours; RFC 6838 has 127 and 127 */

struct bm_codecs {
    unsigned count;
    const struct beam_codec *known[BM_CODECS_MAX]; /* borrowed, as long as the runtime */
};

/* Those that are always known. */
void bm_codecs_init(struct bm_codecs *codecs);

/* The codec of a number, or NULL. */
const struct beam_codec *bm_codecs_find(const struct bm_codecs *codecs, uint32_t number);

/* Whether this very codec is known. */
bool bm_codecs_has(const struct bm_codecs *codecs, const struct beam_codec *codec);

/* Whether there is a way from one to the other; to itself always. */
static inline bool bm_codec_converts(const struct beam_codec *from, const struct beam_codec *to)
{
    return from == to || (from->to_kv && to->from_kv);
}

#endif
