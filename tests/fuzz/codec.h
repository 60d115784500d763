/* What holds for every codec, whatever bytes it is given. */
#ifndef BEAM_FUZZ_CODEC_H
#define BEAM_FUZZ_CODEC_H

#include <errno.h>
#include <stdbool.h>

#include <beam/codec.h>

#include "tests/fuzz/fuzz.h"

#define FUZZ_CODEC_LEN_MAX (64u << 10)

static inline void fuzz_convert(const struct beam_codec *from, const struct beam_codec *to,
                                const beam_buffer *in, beam_buffer *ret_out)
{
    beam_buffer_init(ret_out, SIZE_MAX);
    EXPECT(beam_convert(from, to, in->ptr, in->len, NULL, ret_out, NULL) == 0);
}

static inline bool fuzz_same(const beam_buffer *a, const beam_buffer *b)
{
    return a->len == b->len && memcmp(a->ptr, b->ptr, a->len) == 0;
}

/* A valid document comes back as the same bytes, and its form is the same every time. */
static inline void fuzz_document_survives(const struct beam_codec *codec, const beam_buffer *doc)
{
    beam_buffer form, back, again;
    fuzz_convert(&beam_kv_codec, codec, doc, &form);
    fuzz_convert(codec, &beam_kv_codec, &form, &back);
    EXPECT(fuzz_same(doc, &back));
    fuzz_convert(codec, codec, &form, &again);
    EXPECT(fuzz_same(&form, &again));
    beam_buffer_deinit(&form);
    beam_buffer_deinit(&back);
    beam_buffer_deinit(&again);
}

static inline bool fuzz_has_dollar(const struct beam_codec *codec, const uint8_t *data, size_t size)
{
    return codec == &beam_json &&
           (memchr(data, '$', size) != NULL || memmem(data, size, "\\u0024", 6) != NULL);
}

/* Any bytes as the codec's: refused, with a byte of them to blame, or a valid document, which *ret_doc
 * becomes. A limit of just its length is enough, and one byte less is not; what is escaped with a `$` in JSON
 * takes more until it is decoded. With a byte behind it it is refused. */
static inline bool fuzz_read(const struct beam_codec *codec, const uint8_t *data, size_t size,
                             beam_buffer *ret_doc)
{
    uint8_t *block = fuzz_copy(data, size);
    size_t where = SIZE_MAX;
    beam_buffer_init(ret_doc, SIZE_MAX);
    int r = beam_convert(codec, &beam_kv_codec, block, size, NULL, ret_doc, &where);
    if (r < 0) {
        EXPECT((where <= size || r == -BEAM_ECODEC_TOO_LARGE) && ret_doc->len == 0);
        /* as T15 has it; the limits of results are never met by what is this short */
        bool parser_limit = codec == beam_xml() && r == -BEAM_ECODEC_TOO_LARGE && size > 4096;
        EXPECT(r == -BEAM_ECODEC_SYNTAX || r == -BEAM_ECODEC_TRUNCATED ||
               r == -BEAM_ECODEC_UNSUPPORTED || r == -EEXIST || parser_limit ||
               (r <= -BEAM_EKV_TRUNCATED && r >= -BEAM_EKV_TOO_LARGE));
    } else {
        beam_buffer tight;
        EXPECT(where == SIZE_MAX);
        EXPECT(beam_kv_check(ret_doc->ptr, ret_doc->len, NULL) == 0);
        for (size_t less = 0; less <= 1; less++) {
            beam_buffer_init(&tight, ret_doc->len - less);
            r = beam_convert(codec, &beam_kv_codec, block, size, NULL, &tight, &where);
            EXPECT(r == (less ? -BEAM_ECODEC_TOO_LARGE : 0) ||
                   (r == -BEAM_ECODEC_TOO_LARGE && fuzz_has_dollar(codec, block, size)));
            EXPECT(where == SIZE_MAX && (r < 0 || fuzz_same(ret_doc, &tight)));
            beam_buffer_deinit(&tight);
        }
        /* one byte more, which begins nothing anywhere */
        uint8_t *longer = malloc(size + 1);
        memcpy(longer, data, size);
        longer[size] = 0xff;
        beam_buffer_init(&tight, SIZE_MAX);
        EXPECT(beam_convert(codec, &beam_kv_codec, longer, size + 1, NULL, &tight, NULL) < 0);
        beam_buffer_deinit(&tight);
        free(longer);
        r = 0;
    }
    free(block);
    return r == 0;
}

/* The same bytes as the codec's and as a document: `check` is what else has to hold of what they become. */
static inline void fuzz_codec(const struct beam_codec *codec, const uint8_t *data, size_t size,
                              void (*check)(const beam_buffer *doc, size_t size))
{
    beam_buffer doc;
    if (size > FUZZ_CODEC_LEN_MAX)
        return;
    if (fuzz_read(codec, data, size, &doc)) {
        fuzz_document_survives(codec, &doc);
        check(&doc, size);
    }
    beam_buffer_deinit(&doc);
    if (fuzz_read(&beam_kv_codec, data, size, &doc))
        fuzz_document_survives(codec, &doc);
    beam_buffer_deinit(&doc);
}

#endif
