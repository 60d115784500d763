/* From one format to another: limits, memory, errors, and a codec of somebody else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/codec.h>
#include <beam/message.h>

#include "base/alloc.h"
#include "kv/buffer.h"
#include "tests/support/documents.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

#define ROOM (64u << 10)

static int convert(const struct beam_codec *from, const struct beam_codec *to, const char *in,
                   const struct beam_convert_limits *limits, beam_buffer *out)
{
    return beam_convert(from, to, in, strlen(in), limits, out, NULL);
}

TEST(codecs_have_their_numbers_and_names)
{
    static const struct beam_codec *const codecs[] = {&beam_kv_codec, &beam_json, &beam_msgpack};
    static const char *const names[] = {"kv", "json", "msgpack"};
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_UINT(codecs[i]->number, i); /* BEAM_CODEC_KV, _JSON, _MSGPACK */
        CHECK_STR(codecs[i]->name, names[i]);
        CHECK_UINT(codecs[i]->size, sizeof(struct beam_codec));
    }
    CHECK_UINT(beam_json_safe.number, BEAM_CODEC_JSON);
    const char *ci = getenv("CI"); /* where expat may not be missing */
    CHECK(beam_xml() ? beam_xml()->number == BEAM_CODEC_XML : !ci || strcmp(ci, "true") != 0);
}

TEST(documents_come_back_from_every_format)
{
    struct test_random random = test_random(0);
    const struct beam_codec *codecs[] = {&beam_kv_codec, &beam_json, &beam_json_safe, &beam_msgpack,
                                         beam_xml()};
    uint8_t *doc = malloc(ROOM);
    for (int i = 0; i < 500; i++) {
        size_t len =
            document_random(&random, 1 + (unsigned)test_random_below(&random, 60), doc, ROOM);
        for (size_t a = 0; a < 5; a++) {
            for (size_t b = 0; codecs[a] && b < 5; b++) {
                beam_buffer first, second, back;
                beam_buffer_init(&first, SIZE_MAX);
                beam_buffer_init(&second, SIZE_MAX);
                beam_buffer_init(&back, SIZE_MAX);
                if (codecs[b]) {
                    test_note("kv, %s, %s, kv", codecs[a]->name, codecs[b]->name);
                    CHECK_INT(beam_convert(&beam_kv_codec, codecs[a], doc, len, NULL, &first, NULL),
                              0);
                    CHECK_INT(beam_convert(codecs[a], codecs[b], first.ptr, first.len, NULL,
                                           &second, NULL),
                              0);
                    CHECK_INT(beam_convert(codecs[b], &beam_kv_codec, second.ptr, second.len, NULL,
                                           &back, NULL),
                              0);
                    CHECK_MEM(back.ptr, back.len, doc, len);
                }
                beam_buffer_deinit(&first);
                beam_buffer_deinit(&second);
                beam_buffer_deinit(&back);
            }
        }
    }
    free(doc);
}

TEST(safe_json_has_large_integers_as_text)
{
    beam_buffer out;
    beam_buffer_init(&out, 1000);
    CHECK_INT(convert(&beam_json, &beam_json_safe,
                      "[9007199254740991,9007199254740992,-9007199254740991,-9007199254740992,"
                      "18446744073709551615,1e300]",
                      NULL, &out),
              0);
    beam_buffer_add(&out, "", 1);
    CHECK_STR((char *)out.ptr,
              "[9007199254740991,{\"$int\":\"9007199254740992\"},-9007199254740991,"
              "{\"$int\":\"-9007199254740992\"},{\"$int\":\"18446744073709551615\"},1e+300]");
    beam_buffer_deinit(&out);
}

TEST(convert_keeps_the_limit_of_the_result_and_that_of_the_buffer)
{
    beam_buffer out;
    beam_buffer_init(&out, 1000);
    CHECK_INT(convert(&beam_json, &beam_msgpack, "[\"0123456789\"]",
                      &BEAM_CONVERT_LIMITS(.output_len_max = 12), &out),
              0);
    CHECK_UINT(out.len, 12);
    CHECK_INT(convert(&beam_json, &beam_msgpack, "[\"0123456789\"]",
                      &BEAM_CONVERT_LIMITS(.output_len_max = 11), &out),
              -BEAM_ECODEC_TOO_LARGE); /* though its block is long enough */
    CHECK_UINT(out.len, 0);
    CHECK_INT(convert(&beam_json, &beam_kv_codec, "[\"0123456789\"]",
                      &BEAM_CONVERT_LIMITS(.output_len_max = 31), &out),
              -BEAM_ECODEC_TOO_LARGE);
    CHECK_INT(convert(&beam_json, &beam_kv_codec, "[\"0123456789\"]",
                      &BEAM_CONVERT_LIMITS(.output_len_max = 32), &out),
              0);
    beam_buffer_deinit(&out);
    beam_buffer_init(&out, 11);
    CHECK_INT(convert(&beam_json, &beam_msgpack, "[\"0123456789\"]", NULL, &out),
              -BEAM_ECODEC_TOO_LARGE);
    CHECK_INT(out.error, 0);
    CHECK_UINT(out.len_max, 11);
    beam_buffer_deinit(&out);
}

/* Small numbers are 16 bytes each on the way, and 1 where they come from. */
TEST(convert_keeps_the_amplification_also_on_the_way)
{
    uint8_t in[3 + 1000] = {0xdc, 1000 >> 8, 1000 & 255};
    beam_buffer out;
    size_t where = SIZE_MAX;
    beam_buffer_init(&out, SIZE_MAX);
    CHECK_INT(beam_convert(&beam_msgpack, &beam_kv_codec, in, sizeof(in), NULL, &out, NULL), 0);
    CHECK_UINT(out.len, 8 + 16 * 1000);
    struct beam_convert_limits limits = BEAM_CONVERT_LIMITS(.amplification_max = 15);
    CHECK_INT(beam_convert(&beam_msgpack, &beam_kv_codec, in, sizeof(in), &limits, &out, &where),
              -BEAM_ECODEC_TOO_LARGE);
    CHECK_INT(beam_convert(&beam_msgpack, &beam_json, in, sizeof(in), &limits, &out, &where),
              -BEAM_ECODEC_TOO_LARGE);
    CHECK_INT((int64_t)where, -1); /* no byte is wrong */
    CHECK_UINT(out.len, 0);
    limits.amplification_max = SIZE_MAX; /* more than can be counted: none */
    CHECK_INT(beam_convert(&beam_msgpack, &beam_json, in, sizeof(in), &limits, &out, &where), 0);
    beam_buffer_deinit(&out);
}

/* What grows most of each format: many of one shape, into every other format, within the limits as they are
 * unless told otherwise (T5). */
TEST(no_shape_grows_beyond_the_amplification)
{
    static const struct {
        const char *codec, *begin, *shape, *end;
    } shapes[] = {
        {"xml", "<r>", "<a/>", "</r>"},
        {"xml", "<r>", "<a/>x", "</r>"},
        {"xml", "<r>", "<a/>>", "</r>"},
        {"xml", "<r>", "<a>></a>", "</r>"},
        {"xml", "<?xml version='1.0' encoding='ISO-8859-1'?><r>", "<\xe9/>", "</r>"},
        {"xml", "<?xml version='1.0' encoding='ISO-8859-1'?><r>", "<\xe9/>\xe9", "</r>"},
        {"xml", "<r><![CDATA[", "&", "]]></r>"},
        {"xml", "<kv><list>", "<nil/>", "</list></kv>"},
        {"xml", "<kv><list>", "<int>1</int>", "</list></kv>"},
        {"json", "[0", ",1", "]"},
        {"json", "[0", ",{}", "]"},
        {"json", "[0", ",\"\"", "]"},
        {"json", "[0", ",1e9", "]"},
        {"json", "[0", ",[[[[[{\"\":1}]]]]]", "]"},
        {"json", "\"", "&", "\""},
        {"json", "\"", "\x7f", "\""},
        {"json", "{\"", "\\\"", "\":1}"},
        {"msgpack", "", "\xe0", ""}, /* a list of as many follows from the count */
        {"msgpack", "", "\xc2", ""},
        {"msgpack", "", "\xa0", ""},
        {"msgpack", "", "\xa1\x01", ""},
        {"msgpack", "", "\x90", ""},
        {"msgpack", "", "\x91\xe0", ""},
        {"msgpack", "", "\xca\x01\x80\x01\x01", ""},
        {"msgpack", "", "\xca\xff\x80\x80\x80", ""},
        {"msgpack", "", "\x81\xa1\x01\xe0", ""},
    };
    enum { COUNT = sizeof(shapes) / sizeof(shapes[0]), TIMES = 20000 };
    const struct beam_codec *codecs[] = {&beam_kv_codec, &beam_json, &beam_json_safe, &beam_msgpack,
                                         beam_xml()};
    char *text = malloc(TIMES * 20 + 100);
    beam_buffer out;
    beam_buffer_init(&out, SIZE_MAX);
    for (size_t i = 0; i < COUNT; i++) {
        const struct beam_codec *from = strcmp(shapes[i].codec, "xml") == 0    ? beam_xml()
                                        : strcmp(shapes[i].codec, "json") == 0 ? &beam_json
                                                                               : &beam_msgpack;
        size_t times =
            strlen(shapes[i].begin) == 2 && shapes[i].begin[0] == '{' ? 60000 / 2 : TIMES;
        size_t shape_len = strlen(shapes[i].shape), len = strlen(shapes[i].begin);
        memcpy(text, shapes[i].begin, len);
        if (from == &beam_msgpack) {
            const uint8_t head[] = {0xdd, 0, 0, TIMES >> 8, TIMES & 255};
            memcpy(text, head, sizeof(head));
            len = sizeof(head);
        }
        for (size_t n = 0; n < times; n++, len += shape_len)
            memcpy(text + len, shapes[i].shape, shape_len);
        memcpy(text + len, shapes[i].end, strlen(shapes[i].end));
        len += strlen(shapes[i].end);
        for (size_t to = 0; from && to < 5; to++) {
            if (!codecs[to])
                continue;
            test_note("%s of %s to %s", shapes[i].shape, from->name, codecs[to]->name);
            CHECK_INT(beam_convert(from, codecs[to], text, len, NULL, &out, NULL), 0);
            CHECK(out.len <= BEAM_CONVERT_AMPLIFICATION_MAX * len + BEAM_CONVERT_LEN_FREE);
        }
    }
    beam_buffer_deinit(&out);
    free(text);
}

TEST(convert_reads_limits_of_other_versions)
{
    struct {
        struct beam_convert_limits limits;
        uint64_t later;
    } longer = {.limits = {.size = sizeof(longer)}};
    struct beam_convert_limits none = {0};
    beam_buffer out;
    beam_buffer_init(&out, 1000);
    CHECK_INT(convert(&beam_json, &beam_msgpack, "1", &longer.limits, &out), 0);
    longer.later = 1;
    CHECK_INT(convert(&beam_json, &beam_msgpack, "1", &longer.limits, &out), -E2BIG);
    CHECK_INT(convert(&beam_json, &beam_msgpack, "1", &none, &out), -EINVAL);
    struct beam_convert_limits only_size = {.size = sizeof(size_t), .output_len_max = 1};
    CHECK_INT(convert(&beam_json, &beam_json, "[1]", &only_size, &out), 0);
    beam_buffer_deinit(&out);
}

/* A key as long as may be, and one byte longer, in each format. */
TEST(keys_are_as_long_as_documents_have_them)
{
    size_t most = BEAM_KV_KEY_LEN_MAX;
    char *json = malloc(most + 100);
    for (size_t len = most; len <= most + 1; len++) {
        for (int escaped = 0; escaped < 2; escaped++) {
            beam_buffer out;
            size_t where = SIZE_MAX;
            beam_buffer_init(&out, SIZE_MAX);
            size_t n = (size_t)sprintf(json, "{\"a\":0,\"");
            memset(json + n, 'k', len);
            n += len;
            if (escaped) { /* the last one */
                memcpy(json + n - 1, "\\n", 2);
                n++;
            }
            memcpy(json + n, "\":[]}", 5);
            int r = beam_convert(&beam_json, &beam_msgpack, json, n + 5, NULL, &out, &where);
            CHECK_INT(r, len > most ? -BEAM_EKV_TOO_LARGE : 0);
            CHECK_INT((int64_t)where, len > most ? 7 : -1);
            beam_buffer_deinit(&out);
        }
    }
    free(json);

    uint8_t *packed = calloc(1, most + 20);
    memcpy(packed, "\x82\xa0\xc0\xdb\x00\x01\x00\x00", 8);
    beam_buffer out;
    size_t where = SIZE_MAX;
    beam_buffer_init(&out, SIZE_MAX);
    packed[8 + most + 1] = 0xc0;
    CHECK_INT(beam_convert(&beam_msgpack, &beam_kv_codec, packed, 8 + most + 2, NULL, &out, &where),
              -BEAM_EKV_TOO_LARGE);
    CHECK_UINT(where, 3);
    memcpy(packed + 3, "\xdb\x00\x00\xff\xff", 5);
    packed[8 + most] = 0xc0;
    CHECK_INT(beam_convert(&beam_msgpack, &beam_kv_codec, packed, 8 + most + 1, NULL, &out, NULL),
              0);
    beam_buffer_deinit(&out);
    free(packed);
}

/* The '$' that a writer puts in front of an only key does not count against the limit: T1 holds for the
 * longest key, too. What is no such '$' counts. */
TEST(a_key_that_is_escaped_may_be_as_long_as_any)
{
    size_t most = BEAM_KV_KEY_LEN_MAX;
    char *key = malloc(most), *json = malloc(most + 100);
    memset(key, 'k', most);
    key[0] = '$';

    beam_buffer doc, text, back;
    beam_kv_writer w;
    const void *start;
    size_t len = 0;
    beam_buffer_init(&doc, SIZE_MAX);
    beam_buffer_init(&text, SIZE_MAX);
    beam_buffer_init(&back, SIZE_MAX);
    beam_kv_writer_init_buffer(&w, &doc);
    beam_kv_begin_map(&w, NULL);
    beam_kv_begin(&w, (beam_str){key, most}, BEAM_KV_LIST);
    beam_kv_put_int(&w, NULL, 7);
    beam_kv_end(&w);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &start, &len), 0);
    CHECK_INT(beam_convert(&beam_kv_codec, &beam_json, start, len, NULL, &text, NULL), 0);
    CHECK_UINT(text.len, 1 + 1 + 1 + most + 1 + 1 + 3 + 1); /* {"$…":[7]} */
    CHECK_INT(beam_convert(&beam_json, &beam_kv_codec, text.ptr, text.len, NULL, &back, NULL), 0);
    CHECK_MEM(back.ptr, back.len, start, len);

    static const struct {
        const char *before; /* the key; what is left of most + 1 bytes is 'k' */
        size_t before_len;
        const char *behind;
        int error;
        int64_t offset;
    } cases[] = {
        {"$$", 2, ":{}}", 0, -1},
        {"\\u0024$", 2, ":{}}", 0, -1},
        {"$\\u0024", 2, ":1}", 0, -1},
        {"\\u0024\\u0024", 2, ":\"\\n\"}", 0, -1},
        {"$$\\n", 3, ":\"x\"}", 0, -1},
        {"$$$", 3, ":{\"$$\":1}}", 0, -1},
        {"$$", 2, ":{},\"a\":1}", -BEAM_EKV_TOO_LARGE, 1}, /* is not alone */
        {"$$\\n", 3, ":{\"x\":1} , \"a\":1}", -BEAM_EKV_TOO_LARGE, 1},
        {"$a", 2, ":{}}", -BEAM_EKV_TOO_LARGE, 1}, /* is not escaped */
        {"a$", 2, ":{}}", -BEAM_EKV_TOO_LARGE, 1},
        {"$$k", 2, ":{}}", -BEAM_EKV_TOO_LARGE, 1}, /* one more */
        {"$$\xff", 3, ":{}}", -BEAM_EKV_UTF8, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t where = SIZE_MAX, n = (size_t)sprintf(json, "{\"%s", cases[i].before);
        test_note("%s", cases[i].before);
        memset(json + n, 'k', most + 1 - cases[i].before_len);
        n += most + 1 - cases[i].before_len;
        n += (size_t)sprintf(json + n, "\"%s", cases[i].behind);
        CHECK_INT(beam_convert(&beam_json, &beam_kv_codec, json, n, NULL, &back, &where),
                  cases[i].error);
        CHECK_INT((int64_t)where, cases[i].offset);
        if (cases[i].error == 0) {
            beam_kv_value map;
            beam_kv_iter iter;
            beam_str got = {NULL, 0};
            REQUIRE_INT(beam_kv_check(back.ptr, back.len, NULL), 0);
            REQUIRE_INT(beam_kv_root(back.ptr, back.len, &map), 0);
            beam_kv_iter_init(&iter, &map);
            CHECK_INT(beam_kv_iter_next(&iter, &got, &map), 1);
            CHECK_UINT(got.len, most);
            CHECK(got.len == most && got.ptr[0] == '$' && got.ptr[most - 1] == 'k');
        }
    }
    beam_buffer_deinit(&doc);
    beam_buffer_deinit(&text);
    beam_buffer_deinit(&back);
    free(key);
    free(json);
}

/* --- memory ------------------------------------------------------------------------------------- */

/* Each allocation fails once: -ENOMEM, nothing left behind, and enough of them is enough. */
TEST(convert_without_memory_says_so_and_leaves_nothing)
{
    const struct beam_codec *codecs[] = {&beam_kv_codec, &beam_json, &beam_msgpack, beam_xml()};
    struct test_random random = test_random(0);
    uint8_t *doc = malloc(ROOM);
    size_t len = document_random(&random, 300, doc, ROOM);
    for (size_t a = 0; a < 4; a++) {
        for (size_t b = 0; codecs[a] && b < 4; b++) {
            beam_buffer in, out;
            if (!codecs[b])
                continue;
            beam_buffer_init(&in, SIZE_MAX);
            REQUIRE_INT(beam_convert(&beam_kv_codec, codecs[a], doc, len, NULL, &in, NULL), 0);
            int r = -ENOMEM;
            for (int left = 0; r == -ENOMEM && left < 1000; left++) {
                struct bm_account account = {0};
                size_t where = SIZE_MAX;
                scarce_begin(left);
                bm_buffer_init(&out, SIZE_MAX, &account);
                r = beam_convert(codecs[a], codecs[b], in.ptr, in.len, NULL, &out, &where);
                size_t used = account.used;
                bool empty = out.len == 0;
                beam_buffer_deinit(&out);
                scarce_end();
                test_note("%s to %s with %d", codecs[a]->name, codecs[b]->name, left);
                CHECK(r == 0 || r == -ENOMEM);
                CHECK(r == 0 || empty);
                CHECK_INT((int64_t)where, -1);
                CHECK(used <= 2 * len + ROOM); /* the document on the way is gone */
                CHECK_UINT(account.used, 0);
            }
            CHECK_INT(r, 0);
            beam_buffer_deinit(&in);
        }
    }
    free(doc);
}

TEST(convert_to_a_buffer_that_is_large_enough_takes_no_memory)
{
    beam_buffer out;
    static const char text[] =
        "{\"cmd\":\"open\",\"fd\":7,\"f\":1.5,\"k\\n\":\"\\u20ac\",\"b\":{\"$bytes\":\"AQI=\"}}";
    beam_buffer_init(&out, 1000);
    REQUIRE_INT(convert(&beam_json, &beam_kv_codec, text, NULL, &out), 0);
    uint64_t before = bm_alloc_count_thread();
    CHECK_INT(convert(&beam_json, &beam_kv_codec, text, NULL, &out), 0);
    CHECK_UINT(bm_alloc_count_thread(), before);
    beam_buffer_deinit(&out);
}

/* --- somebody else's codec ---------------------------------------------------------------------- */

static int text_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                      beam_kv_writer *out, size_t *ret_error_offset)
{
    return beam_kv_put_strn(out, NULL, (const char *)in, len);
}

static int text_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                        beam_buffer *out)
{
    beam_str text;
    int r = beam_kv_as_str(value, &text);
    return r < 0 ? -BEAM_ECODEC_UNSUPPORTED : beam_buffer_add(out, text.ptr, text.len);
}

/* Puts nothing, and two values: both are no document. */
static int odd_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                     beam_kv_writer *out, size_t *ret_error_offset)
{
    for (size_t i = 0; i < len; i++)
        (void)beam_kv_put_nil(out, NULL);
    return 0;
}

static int odd_from_kv(const struct beam_codec *codec, const beam_kv_value *value, beam_buffer *out)
{
    (void)beam_buffer_fail(out, -EIO); /* and does not look */
    return 0;
}

TEST(a_codec_of_ones_own_needs_only_puts_and_adds)
{
    static const struct beam_codec text = {
        sizeof(text), BEAM_CODEC_APPLICATION, "text", "text/plain", text_to_kv, text_from_kv};
    static const struct beam_codec odd = {
        sizeof(odd), BEAM_CODEC_APPLICATION + 1, "odd", "x/odd", odd_to_kv, odd_from_kv};
    beam_buffer out;
    beam_buffer_init(&out, 1000);
    CHECK_INT(convert(&text, &beam_json, "a \"text\"", NULL, &out), 0);
    CHECK_MEM(out.ptr, out.len, "\"a \\\"text\\\"\"", 12);
    CHECK_INT(convert(&beam_json, &text, "\"a\\ntext\"", NULL, &out), 0);
    CHECK_MEM(out.ptr, out.len, "a\ntext", 6);
    CHECK_INT(convert(&text, &text, "as it is", NULL, &out), 0);
    CHECK_MEM(out.ptr, out.len, "as it is", 8);
    CHECK_INT(convert(&beam_json, &text, "[\"text\"]", NULL, &out), -BEAM_ECODEC_UNSUPPORTED);
    CHECK_INT(convert(&text, &beam_msgpack, "\xff", NULL, &out), -BEAM_EKV_UTF8);
    CHECK_INT(convert(&odd, &beam_json, "", NULL, &out), -EINVAL);
    CHECK_INT(convert(&odd, &beam_json, "x", NULL, &out), 0);
    CHECK_INT(convert(&odd, &beam_json, "xx", NULL, &out), -BEAM_EKV_TRAILING);
    CHECK_INT(convert(&beam_json, &odd, "1", NULL, &out), -EIO);
    CHECK_UINT(out.len, 0);
    beam_buffer_deinit(&out);
}

TEST(a_codec_of_one_direction_is_refused_in_the_other)
{
    static const struct beam_codec in = {
        sizeof(in), BEAM_CODEC_APPLICATION, "in", "x/in", text_to_kv, NULL};
    static const struct beam_codec out_only = {
        sizeof(out_only), BEAM_CODEC_APPLICATION, "out", "x/out", NULL, text_from_kv};
    beam_buffer out;
    beam_buffer_init(&out, 1000);
    CHECK_INT(convert(&in, &out_only, "text", NULL, &out), 0);
    CHECK_MEM(out.ptr, out.len, "text", 4);
    CHECK_INT(convert(&beam_json, &in, "\"text\"", NULL, &out), -BEAM_ECODEC_UNSUPPORTED);
    CHECK_UINT(out.len, 0);
    CHECK_INT(convert(&out_only, &beam_json, "text", NULL, &out), -BEAM_ECODEC_UNSUPPORTED);
    beam_buffer_deinit(&out);
}

TEST(kv_that_is_no_document_is_refused_with_its_offset)
{
    uint64_t doc[] = {UINT64_C(8) | (uint64_t)BEAM_KV_LIST << 48, UINT64_C(77) << 48};
    const struct beam_codec *to[] = {&beam_kv_codec, &beam_json, &beam_msgpack};
    beam_buffer out;
    beam_buffer_init(&out, 1000);
    for (size_t i = 0; i < 3; i++) {
        size_t where = SIZE_MAX;
        CHECK_INT(beam_convert(&beam_kv_codec, to[i], doc, sizeof(doc), NULL, &out, &where),
                  -BEAM_EKV_TYPE);
        CHECK_UINT(where, 8);
    }
    beam_buffer_deinit(&out);
}
