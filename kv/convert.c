/* The codecs that are always here, and the way from one to another.
 *
 * A document is what they meet in. It takes a buffer of its own, unless it is the input or the result. */
#include "kv/convert.h"

#include <errno.h>
#include <string.h>

#include <beam/message.h>

#include "base/assert.h"
#include "kv/buffer.h"
#include "kv/entry.h"
#include "kv/json.h"
#include "kv/msgpack.h"
#include "kv/xml.h"

/* Whose account the reader of this thread is on, beside that of the document; NULL: the same. */
static _Thread_local struct bm_account *reader_account;

/* --- kv itself ---------------------------------------------------------------------------------- */

static int kv_to_kv(const struct beam_codec *codec, const void *in, size_t len, beam_kv_writer *out,
                    size_t *ret_error_offset)
{
    beam_kv_value root;
    int r = beam_kv_check(in, len, ret_error_offset);
    if (r < 0)
        return r;
    bm_assert(beam_kv_root(in, len, &root) == 0);
    return beam_kv_put(out, (beam_str){NULL, 0}, &root);
}

static int kv_from_kv(const struct beam_codec *codec, const beam_kv_value *value, beam_buffer *out)
{
    unsigned char *room;
    beam_kv_writer w;
    const void *doc;
    size_t value_len = value->type <= BEAM_KV_TRUE    ? 0
                       : value->type <= BEAM_KV_FLOAT ? 8
                                                      : value->bytes.len;
    size_t len = bm_entry_len(value_len, 0);
    int r = beam_buffer_reserve(out, len, &room);
    if (r < 0)
        return r;
    beam_kv_writer_init(&w, room, len);
    (void)beam_kv_put(&w, (beam_str){NULL, 0}, value);
    r = beam_kv_writer_finish(&w, &doc, &len);
    if (r < 0)
        return beam_buffer_fail(out, r);
    beam_buffer_advance(out, len);
    return 0;
}

const struct beam_codec beam_kv_codec = {
    .size = sizeof(struct beam_codec),
    .number = BEAM_CODEC_KV,
    .name = "kv",
    .media_type = "application/vnd.beam.kv",
    .to_kv = kv_to_kv,
    .from_kv = kv_from_kv,
};

/* --- JSON and msgpack --------------------------------------------------------------------------- */

static int json_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                      beam_kv_writer *out, size_t *ret_error_offset)
{
    return bm_json_read((const uint8_t *)in, len, out, ret_error_offset);
}

static int json_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                        beam_buffer *out)
{
    return bm_json_write(value, false, out);
}

static int json_safe_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                             beam_buffer *out)
{
    return bm_json_write(value, true, out);
}

static int msgpack_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                         beam_kv_writer *out, size_t *ret_error_offset)
{
    return bm_msgpack_read((const uint8_t *)in, len, out, ret_error_offset);
}

static int msgpack_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                           beam_buffer *out)
{
    return bm_msgpack_write(value, out);
}

const struct beam_codec beam_json = {
    .size = sizeof(struct beam_codec),
    .number = BEAM_CODEC_JSON,
    .name = "json",
    .media_type = "application/json",
    .to_kv = json_to_kv,
    .from_kv = json_from_kv,
};

const struct beam_codec beam_json_safe = {
    .size = sizeof(struct beam_codec),
    .number = BEAM_CODEC_JSON,
    .name = "json",
    .media_type = "application/json",
    .to_kv = json_to_kv,
    .from_kv = json_safe_from_kv,
};

const struct beam_codec beam_msgpack = {
    .size = sizeof(struct beam_codec),
    .number = BEAM_CODEC_MSGPACK,
    .name = "msgpack",
    .media_type = "application/vnd.msgpack",
    .to_kv = msgpack_to_kv,
    .from_kv = msgpack_from_kv,
};

/* --- XML ---------------------------------------------------------------------------------------- */

#ifdef BEAM_XML

static int xml_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                     beam_kv_writer *out, size_t *ret_error_offset)
{
    struct bm_account *account = reader_account;
    if (!account && out->buffer)
        account = (struct bm_account *)out->buffer->account;
    return bm_xml_read((const uint8_t *)in, len, out, account, ret_error_offset);
}

static int xml_from_kv(const struct beam_codec *codec, const beam_kv_value *value, beam_buffer *out)
{
    return bm_xml_write(value, out);
}

static const struct beam_codec xml = {
    .size = sizeof(struct beam_codec),
    .number = BEAM_CODEC_XML,
    .name = "xml",
    .media_type = "application/xml",
    .to_kv = xml_to_kv,
    .from_kv = xml_from_kv,
};

const struct beam_codec *beam_xml(void)
{
    return &xml;
}

#else

const struct beam_codec *beam_xml(void)
{
    return NULL;
}

#endif

/* --- from one to another ------------------------------------------------------------------------ */

/* The caller's struct may be of another version: as runtime/options.c reads its own. */
static int read_limits(const struct beam_convert_limits *from, struct beam_convert_limits *ret)
{
    struct beam_convert_limits limits = {0};
    if (from) {
        if (from->size < sizeof(from->size))
            return -EINVAL;
        for (size_t i = sizeof(limits); i < from->size; i++)
            if (((const uint8_t *)from)[i] != 0)
                return -E2BIG;
        memcpy(&limits, from, from->size < sizeof(limits) ? from->size : sizeof(limits));
    }
    if (limits.output_len_max == 0)
        limits.output_len_max = BEAM_CONVERT_OUTPUT_LEN_MAX;
    if (limits.amplification_max == 0)
        limits.amplification_max = BEAM_CONVERT_AMPLIFICATION_MAX;
    *ret = limits;
    return 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* What may become of len bytes. */
static size_t amplified(size_t len, const struct beam_convert_limits *limits)
{
    size_t most;
    if (__builtin_mul_overflow(len, limits->amplification_max, &most) ||
        __builtin_add_overflow(most, BEAM_CONVERT_LEN_FREE, &most))
        return SIZE_MAX;
    return most;
}

/* Reads in into a document, in doc, whose limit is set. */
static int read_into(const struct beam_codec *from, const void *in, size_t len,
                     struct bm_account *account, beam_buffer *doc, size_t *error_offset)
{
    struct bm_account *outer = reader_account; /* a codec may convert in order to read */
    beam_kv_writer w;
    const void *start;
    size_t offset = SIZE_MAX;
    beam_kv_writer_init_buffer(&w, doc);
    reader_account = account;
    int r = from->to_kv(from, in, len, &w, &offset);
    reader_account = outer;
    if (r >= 0)
        r = beam_kv_writer_finish(&w, &start, &len);
    /* Limits and memory are not the input's fault, though they show at some byte of it. */
    if (r < 0 && offset != SIZE_MAX && r != -BEAM_ECODEC_TOO_LARGE && r != -ENOMEM)
        *error_offset = offset;
    return r < 0 ? r : 0;
}

static int write_from(const struct beam_codec *to, const void *doc, size_t len, beam_buffer *out)
{
    beam_kv_value root;
    bm_assert(beam_kv_root(doc, len, &root) == 0);
    int r = to->from_kv(to, &root, out);
    return r < 0 ? r : out->error;
}

static int convert(const struct beam_codec *from, const struct beam_codec *to, const void *in,
                   size_t len, const struct bm_convert_way *way, beam_buffer *out,
                   size_t *error_offset)
{
    if (to == &beam_kv_codec)
        return read_into(from, in, len, way->account, out, error_offset);
    if (from == &beam_kv_codec) {
        int r = beam_kv_check(in, len, error_offset);
        return r < 0 ? r : write_from(to, in, len, out);
    }
    beam_buffer doc;
    bm_buffer_init(&doc, way->len_max, way->account);
    int r = read_into(from, in, len, way->account, &doc, error_offset);
    if (r >= 0)
        r = write_from(to, doc.ptr, doc.len, out);
    beam_buffer_deinit(&doc);
    return r;
}

int bm_convert(const struct beam_codec *from, const struct beam_codec *to, const void *in,
               size_t len, const struct beam_convert_limits *limits,
               const struct bm_convert_way *way, beam_buffer *out, size_t *ret_error_offset)
{
    struct beam_convert_limits l;
    struct bm_convert_way within = *way;
    size_t own_len_max = out->len_max, own_cap = out->cap, error_offset = SIZE_MAX;
    if (len == 0)
        in = ""; /* so that codecs may add to it */
    beam_buffer_clear(out);
    int r = read_limits(limits, &l);
    if (r == 0 && (!from->to_kv || !to->from_kv))
        r = -BEAM_ECODEC_UNSUPPORTED;
    if (r < 0)
        return r;
    size_t most = amplified(len, &l);
    out->len_max = least(least(own_len_max, l.output_len_max), most);
    out->cap = least(own_cap, out->len_max); /* a block that is too long already does not count */
    within.len_max = least(within.len_max, least(most, BEAM_KV_LEN_MAX));
    r = convert(from, to, in, len, &within, out, &error_offset);
    out->len_max = own_len_max;
    if (out->cap < own_cap) /* then it could not grow, and is the same block */
        out->cap = own_cap;
    if (r < 0) {
        beam_buffer_clear(out);
        if (ret_error_offset && error_offset != SIZE_MAX)
            *ret_error_offset = error_offset;
    }
    return r;
}

int beam_convert(const struct beam_codec *from, const struct beam_codec *to, const void *in,
                 size_t len, const struct beam_convert_limits *limits, beam_buffer *out,
                 size_t *ret_error_offset)
{
    const struct bm_convert_way way = {.account = (struct bm_account *)out->account,
                                       .len_max = SIZE_MAX};
    return bm_convert(from, to, in, len, limits, &way, out, ret_error_offset);
}
