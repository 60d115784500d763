/* Media types and codecs: which codec a body is in, and which one an answer is to be in. Pure, over the
 * codecs of a runtime, which do not change. */
#ifndef BM_MEDIA_H
#define BM_MEDIA_H

#include "net/proto/field.h"
#include "runtime/codec.h"

/* The codec of a `content-type`, or NULL. Some types have more names than the codec knows. */
const struct beam_codec *bm_media_codec(const struct bm_codecs *codecs, beam_str content_type);

/* What `accept` leaves to choose from. */
struct bm_media_choice {
    const struct beam_codec *codec; /* the one to answer in; NULL: none is wanted */
    uint32_t best;                  /* those that are wanted as much: bit n for codecs->known[n] */
};

/* spoken: the service's codec; the answer is in that or one it converts to. NULL: whatever. asked: the
 * question's, which is preferred where `accept` has no preference; NULL: JSON is. */
struct bm_media_choice bm_media_choose(const struct bm_codecs *codecs,
                                       const struct bm_field *fields, size_t count,
                                       const struct beam_codec *spoken,
                                       const struct beam_codec *asked);

/* Whether this codec is as good a choice as the one that was made. */
bool bm_media_is_best(const struct bm_codecs *codecs, const struct bm_media_choice *choice,
                      const struct beam_codec *codec);

#endif
