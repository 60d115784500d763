/* tests/vectors/codecs.json against each codec, both ways. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <beam/codec.h>

#include "tests/support/test.h"
#include "tests/support/vectors.h"

static const struct beam_codec *codec_named(const char *name)
{
    return strcmp(name, "json") == 0      ? &beam_json
           : strcmp(name, "msgpack") == 0 ? &beam_msgpack
           : strcmp(name, "xml") == 0     ? beam_xml()
                                          : NULL;
}

/* Converts and checks that the result is `wanted`, of which NULL means none. */
static void check_convert(const struct beam_codec *from, const struct beam_codec *to,
                          const uint8_t *in, size_t len, const uint8_t *wanted, size_t wanted_len,
                          const char *error, int64_t offset)
{
    beam_buffer out;
    size_t where = SIZE_MAX;
    beam_buffer_init(&out, SIZE_MAX);
    int r = beam_convert(from, to, in, len, NULL, &out, &where);
    CHECK_STR(beam_error_name(r), error ? error : "OK");
    CHECK_INT((int64_t)where, offset);
    if (wanted)
        CHECK_MEM(out.ptr, out.len, wanted, wanted_len);
    else
        CHECK_UINT(out.len, 0);
    beam_buffer_deinit(&out);
}

TEST(codec_vectors_are_read_or_refused_as_named_and_written_again)
{
    struct vectors vectors;
    vectors_load("codecs.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        const struct beam_codec *codec = codec_named(vector_str(v, "codec"));
        const char *error = vector_str(v, "error");
        size_t len, kv_len, out_len;
        test_note("%s", vector_str(v, "name"));
        if (!codec)
            continue;
        uint8_t *in = vector_hex(v, "in", &len);
        if (error) {
            check_convert(codec, &beam_kv_codec, in, len, NULL, 0, error,
                          vector_int(v, "offset", -1));
        } else {
            uint8_t *kv = vector_hex(v, "kv", &kv_len);
            uint8_t *out = vector_hex(v, vector_str(v, "out") ? "out" : "in", &out_len);
            check_convert(codec, &beam_kv_codec, in, len, kv, kv_len, NULL, -1);
            check_convert(&beam_kv_codec, codec, kv, kv_len, out, out_len, NULL, -1);
            check_convert(codec, codec, in, len, out, out_len, NULL, -1);
            check_convert(codec, &beam_kv_codec, out, out_len, kv, kv_len, NULL, -1);
            free(out);
            free(kv);
        }
        free(in);
    }
    vectors_free(&vectors);
}

/* What of a text is there is never another value, and never a crash: each beginning is refused, but for those
 * of a number and of text with white space behind it. */
TEST(codec_vectors_cut_short_are_refused)
{
    struct vectors vectors;
    vectors_load("codecs.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        const struct beam_codec *codec = codec_named(vector_str(v, "codec"));
        size_t len;
        test_note("%s", vector_str(v, "name"));
        if (!codec || vector_str(v, "error"))
            continue;
        uint8_t *in = vector_hex(v, "in", &len);
        bool number = codec == &beam_json && (in[0] == '-' || (in[0] >= '0' && in[0] <= '9'));
        for (size_t cut = 0; cut < len; cut += 1 + len / 512) {
            uint8_t *block =
                malloc(cut + 1); /* of just its length, so that a sanitizer sees one too far */
            beam_buffer out;
            size_t where = SIZE_MAX;
            memcpy(block + 1, in, cut);
            beam_buffer_init(&out, SIZE_MAX);
            int r = beam_convert(codec, &beam_kv_codec, block + 1, cut, NULL, &out, &where);
            /* what may stand behind a value */
            bool space = codec == &beam_json
                             ? strchr(" \n", in[len - 1]) && cut + 2 >= len
                             : codec == beam_xml() && memmem(in, cut, "</kv>", 5) != NULL;
            CHECK(r < 0 || number || space);
            CHECK(r == 0 || where <= cut);
            if (!number && !space && codec != beam_xml()) /* expat has names of its own */
                CHECK_INT(r, -BEAM_ECODEC_TRUNCATED);
            beam_buffer_deinit(&out);
            free(block);
        }
        free(in);
    }
    vectors_free(&vectors);
}

TEST(codec_vectors_cover_every_error_and_codec)
{
    static const char *const codecs[] = {"json", "msgpack", "xml"};
    static const int errors[] = {BEAM_ECODEC_SYNTAX, BEAM_ECODEC_TRUNCATED, BEAM_ECODEC_UNSUPPORTED,
                                 BEAM_EKV_UTF8,      BEAM_EKV_DEPTH,        EEXIST};
    struct vectors vectors;
    vectors_load("codecs.json", &vectors);
    for (size_t c = 0; c < sizeof(codecs) / sizeof(codecs[0]); c++) {
        for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
            size_t count = 0;
            for (size_t i = 0; i < vectors.count; i++) {
                const struct vector *v = &vectors.items[i];
                const char *error = vector_str(v, "error");
                count += error && strcmp(vector_str(v, "codec"), codecs[c]) == 0 &&
                         strcmp(error, beam_error_name(-errors[e])) == 0;
            }
            test_note("%s %s", codecs[c], beam_error_name(-errors[e]));

            CHECK(count > 0);
        }
    }
    vectors_free(&vectors);
}
