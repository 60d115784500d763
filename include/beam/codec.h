/* Codecs: the same values in other formats. A document (kv.h) is what all of them meet in: a codec
 * says how its format becomes a document and how a document becomes its format, and so every format
 * goes to every other. The mappings are docs/spec/codecs.md.
 *
 *     beam_buffer out;
 *     size_t where = SIZE_MAX;
 *     beam_buffer_init(&out, 1 << 20);
 *     r = beam_convert(&beam_json, &beam_msgpack, text, strlen(text), NULL, &out, &where);
 *     if (r < 0 && where != SIZE_MAX) ...               // what is wrong with byte `where` of text
 *     if (r >= 0) use(out.ptr, out.len);
 *     beam_buffer_deinit(&out);
 *
 * A codec of one's own is puts one way and adds the other, without limits, memory or errors to look
 * after, for the writer and the buffer keep those. One whose bytes are one text:
 *
 *     static int text_to_kv(const struct beam_codec *codec, const void *in, size_t len,
 *                           beam_kv_writer *out, size_t *ret_error_offset)
 *     {
 *         return beam_kv_put_strn(out, NULL, (const char *)in, len);
 *     }
 *     static int text_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
 *                             beam_buffer *out)
 *     {
 *         beam_str text;
 *         int r = beam_kv_as_str(value, &text);
 *         return r < 0 ? -BEAM_ECODEC_UNSUPPORTED : beam_buffer_add(out, text.ptr, text.len);
 *     }
 *     const struct beam_codec text = {sizeof(text), 65536, "text", "text/plain",
 *                                     text_to_kv, text_from_kv};
 *
 * Everything here may be called on any thread, as long as no two write the same object. */
#ifndef BEAM_CODEC_H
#define BEAM_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include <beam/buffer.h>
#include <beam/error.h>
#include <beam/export.h>
#include <beam/kv.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A format. A const value that lives as long as whoever was given it uses it. */
struct beam_codec {
    size_t size;            /* sizeof(struct beam_codec), as the one who fills it in knows it */
    uint32_t number;        /* what travels in a message: enum beam_codec_number (message.h), or an
                               application's own from BEAM_CODEC_APPLICATION up */
    const char *name;       /* "json": for people and for `beam convert` */
    const char *media_type; /* "application/json": for HTTP */

    /* Either of the two may be NULL: then there is no such direction (-BEAM_ECODEC_UNSUPPORTED). */

    /* Reads in[0..len) and puts the one value it stands for into out. Pure: it reads its arguments
     * and nothing else, on whatever thread; it does not keep, recurse over or trust what it reads
     * (lengths and counts in there least of all), and any bytes at all may come. in is borrowed and
     * never NULL.
     * out grows by itself, up to a limit that it keeps, and is not finished or moved here; its
     * errors stick, so that puts need no checking, except where a loop would go on for long after
     * one. Its depth is BEAM_KV_DEPTH_MAX. Returns 0, or an error: -BEAM_ECODEC_SYNTAX,
     * -BEAM_ECODEC_TRUNCATED, -BEAM_ECODEC_UNSUPPORTED, or what a put returned. With an error of the
     * input, *ret_error_offset (never NULL) becomes the offset of the byte where it shows. */
    int (*to_kv)(const struct beam_codec *codec, const void *in, size_t len, beam_kv_writer *out,
                 size_t *ret_error_offset);

    /* Adds the form of value, which is borrowed and was checked, to out, which may hold bytes
     * already. Pure in the same way; nesting goes to BEAM_KV_DEPTH_MAX. Errors of out stick, and
     * what is in it after one is of no use. Returns 0, -BEAM_ECODEC_UNSUPPORTED, or the error of
     * out. */
    int (*from_kv)(const struct beam_codec *codec, const beam_kv_value *value, beam_buffer *out);
};

/* Those that are always here. kv is the documents themselves. */
BEAM_EXPORT extern const struct beam_codec beam_kv_codec;
BEAM_EXPORT extern const struct beam_codec beam_json;
BEAM_EXPORT extern const struct beam_codec beam_msgpack;

/* json for receivers with one kind of number (JavaScript): reads the same, and writes integers beyond
 * 2^53 - 1 as {"$int":"9007199254740993"}. */
BEAM_EXPORT extern const struct beam_codec beam_json_safe;

/* XML, or NULL in a library that was built without it (BEAM_XML of CMake, which needs expat). */
BEAM_EXPORT const struct beam_codec *beam_xml(void);

#define BEAM_CONVERT_OUTPUT_LEN_MAX ((size_t)16 << 20) /* ours: as kv.md has it for messages */
#define BEAM_CONVERT_AMPLIFICATION_MAX 20 /* <a/> of foreign XML is 75 bytes in that of <kv> */
#define BEAM_CONVERT_LEN_FREE 256         /* ours: so much may come out of however few bytes */

/* What a conversion may cost. Zero: the default above. The depth is BEAM_KV_DEPTH_MAX always.
 * amplification_max is bytes a byte of input, of the result and of the document on the way; the first
 * BEAM_CONVERT_LEN_FREE are not counted. JSON that is escaped inside a `$` form counts as long as it
 * stands there until it is decoded. */
struct beam_convert_limits {
    size_t size;              /* sizeof(struct beam_convert_limits) */
    size_t output_len_max;    /* bytes of the result */
    size_t amplification_max; /* of all that is made, for each byte of input */
};
#define BEAM_CONVERT_LIMITS(...)                                                                   \
    ((struct beam_convert_limits){.size = sizeof(struct beam_convert_limits), __VA_ARGS__})

/* Converts in[0..len), any bytes at all, from one format to another. Equal codecs are checked and
 * copied for kv, and made regular for the others (json without its white space); a caller that wants
 * bytes untouched does not ask.
 *
 * limits may be NULL. out is initialised, and becomes the result: what it held is replaced. Its own
 * limit counts too. On failure it is empty. The document on the way takes memory for the time of the
 * call, on the account of out; there is none with kv at either end.
 *
 * Returns 0 or the error of a codec: -BEAM_ECODEC_SYNTAX: the input is not of that format.
 * -BEAM_ECODEC_TRUNCATED: it ends too early. -BEAM_ECODEC_UNSUPPORTED: it holds a value that has no
 * form in a document, or the document one that has none in the other format.
 * -BEAM_ECODEC_TOO_LARGE: over a limit. -EEXIST: a key twice in a map. -BEAM_EKV_…: rules of documents
 * (depth, UTF-8, length of a key; from kv: all of them). -ENOMEM. -EINVAL and -E2BIG: limits are not
 * of a size known here, or ask for what is not known here.
 * *ret_error_offset (may be NULL) is written only on failure, and only if it was the input's fault:
 * the offset of the byte where it shows, for -EEXIST the end of the map. */
BEAM_EXPORT int beam_convert(const struct beam_codec *from, const struct beam_codec *to,
                             const void *in, size_t len, const struct beam_convert_limits *limits,
                             beam_buffer *out, size_t *ret_error_offset);

#ifdef __cplusplus
}
#endif

#endif
