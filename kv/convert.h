/* beam_convert() for callers with a say about the memory on the way. */
#ifndef BM_CONVERT_H
#define BM_CONVERT_H

#include <beam/codec.h>

struct bm_account;

/* What a conversion takes besides its result, and gives back before it returns: the document on the way and
 * what a reader needs. */
struct bm_convert_way {
    struct bm_account *account; /* may be NULL */
    size_t len_max;             /* of the document; more is -BEAM_ECODEC_TOO_LARGE */
};

int bm_convert(const struct beam_codec *from, const struct beam_codec *to, const void *in,
               size_t len, const struct beam_convert_limits *limits,
               const struct bm_convert_way *way, beam_buffer *out, size_t *ret_error_offset);

#endif
