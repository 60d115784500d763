/* JSON and msgpack against the libraries that others use: jansson and msgpack-c read what is written here,
 * and what they write is read here, as the same values. Of changed bytes both sides say the same, but for
 * what is refused on purpose. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <beam/codec.h>

#include "tests/support/documents.h"
#include "tests/support/test.h"

#define ROOM (64u << 10)
#define ROUNDS 2000

#if defined(BEAM_HAVE_JANSSON) || defined(BEAM_HAVE_MSGPACK)

static bool same(const void *a, const void *b, size_t len)
{
    return len == 0 || memcmp(a, b, len) == 0;
}

/* A random document, and its form in another format; the latter is to be freed. */
static void random_form(struct test_random *random, const struct beam_codec *codec, unsigned size,
                        uint8_t *doc, size_t *ret_len, beam_buffer *ret_form)
{
    *ret_len = document_random(random, 1 + (unsigned)test_random_below(random, size), doc, ROOM);
    beam_buffer_init(ret_form, SIZE_MAX);
    REQUIRE_INT(beam_convert(&beam_kv_codec, codec, doc, *ret_len, NULL, ret_form, NULL), 0);
}

static void check_reads_as(const struct beam_codec *codec, const void *form, size_t form_len,
                           const uint8_t *doc, size_t len)
{
    beam_buffer out;
    beam_buffer_init(&out, SIZE_MAX);
    CHECK_INT(beam_convert(codec, &beam_kv_codec, form, form_len, NULL, &out, NULL), 0);
    CHECK_MEM(out.ptr, out.len, doc, len);
    beam_buffer_deinit(&out);
}

static int reads(const struct beam_codec *codec, const void *form, size_t len)
{
    beam_buffer out;
    beam_buffer_init(&out, SIZE_MAX);
    int r = beam_convert(codec, &beam_kv_codec, form, len, NULL, &out, NULL);
    beam_buffer_deinit(&out);
    return r;
}

/* A byte changed, taken out or put in, here and there. */
static size_t change(struct test_random *random, uint8_t *bytes, size_t len, const char *likely)
{
    for (uint64_t n = 1 + test_random_below(random, 3); n > 0 && len > 1; n--) {
        size_t at = test_random_below(random, len);
        uint8_t byte = test_random_below(random, 3)
                           ? (uint8_t)likely[test_random_below(random, strlen(likely))]
                           : (uint8_t)test_random_next(random);
        switch (test_random_below(random, 3)) {
        case 0:
            bytes[at] = byte;
            break;
        case 1:
            memmove(bytes + at, bytes + at + 1, len - at - 1);
            len--;
            break;
        default:
            memmove(bytes + at + 1, bytes + at, len - at);
            bytes[at] = byte;
            len++;
        }
    }
    return len;
}

#endif

#ifdef BEAM_HAVE_JANSSON
#include <jansson.h>

/* Whether jansson has a place for it at all: no integer from 2^63 up, no key with U+0000. */
static bool jansson_can(const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);
    return code != json_error_numeric_overflow && code != json_error_null_byte_in_key;
}

static bool jansson_equals(const json_t *json, const beam_kv_value *value)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    beam_str key;
    size_t count = 0;
    beam_kv_iter_init(&iter, value);
    switch (value->type) {
    case BEAM_KV_NIL:
        return json_is_null(json);
    case BEAM_KV_FALSE:
        return json_is_false(json);
    case BEAM_KV_TRUE:
        return json_is_true(json);
    case BEAM_KV_INT:
        return json_is_integer(json) && json_integer_value(json) == value->i;
    case BEAM_KV_FLOAT:
        if (!isfinite(value->f))
            return json_is_object(json) && json_is_string(json_object_get(json, "$float"));
        return json_is_real(json) && json_real_value(json) == value->f &&
               signbit(json_real_value(json)) == signbit(value->f);
    case BEAM_KV_STR:
        return json_is_string(json) && json_string_length(json) == value->str.len &&
               same(json_string_value(json), value->str.ptr, value->str.len);
    case BEAM_KV_BYTES:
        return json_is_object(json) && json_is_string(json_object_get(json, "$bytes"));
    case BEAM_KV_LIST:
        while (beam_kv_iter_next(&iter, NULL, &inner) > 0)
            if (!jansson_equals(json_array_get(json, count++), &inner))
                return false;
        return json_is_array(json) && json_array_size(json) == count;
    case BEAM_KV_MAP:
        for (; beam_kv_iter_next(&iter, &key, &inner) > 0; count++) {
            char name[256] = "$"; /* one more, if it is the only one and begins with one */
            memcpy(name + 1, key.ptr, key.len);
            bool only = json_object_size(json) == 1 && key.len > 0 && key.ptr[0] == '$';
            if (!jansson_equals(json_object_get(json, name + !only), &inner))
                return false;
        }
        return json_is_object(json) && json_object_size(json) == count;
    default:
        return false;
    }
}

TEST(jansson_reads_what_is_written_and_the_other_way_round)
{
    static const size_t styles[] = {JSON_COMPACT, JSON_INDENT(3),
                                    JSON_ENSURE_ASCII | JSON_SORT_KEYS,
                                    JSON_ESCAPE_SLASH | JSON_ENSURE_ASCII | JSON_INDENT(1)};
    struct test_random random = test_random(0);
    uint8_t *doc = malloc(ROOM);
    unsigned read = 0;
    for (int i = 0; i < ROUNDS; i++) {
        size_t len;
        beam_buffer text;
        beam_kv_value root;
        json_error_t error;
        random_form(&random, &beam_json, 30, doc, &len, &text);
        check_reads_as(&beam_json, text.ptr, text.len, doc, len);
        json_t *json =
            json_loadb((const char *)text.ptr, text.len,
                       JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        CHECK(json || !jansson_can(&error));
        if (json) {
            read++;
            REQUIRE_INT(beam_kv_root(doc, len, &root), 0);
            CHECK(jansson_equals(json, &root));
            size_t style = styles[i % 4];
            char *dumped = json_dumps(json, style | JSON_ENCODE_ANY);
            REQUIRE(dumped);
            check_reads_as(&beam_json, dumped, strlen(dumped), doc, len);
            free(dumped);
            json_decref(json);
        }
        beam_buffer_deinit(&text);
    }
    CHECK(read > ROUNDS / 4);
    free(doc);
}

TEST(jansson_and_this_reader_agree_on_changed_text)
{
    struct test_random random = test_random(0);
    uint8_t *doc = malloc(ROOM), *changed = malloc(ROOM);
    unsigned good = 0, bad = 0;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        size_t len;
        beam_buffer text;
        json_error_t error;
        random_form(&random, &beam_json, 6, doc, &len, &text);
        len = text.len < ROOM / 2 ? text.len : 0;
        memcpy(changed, text.ptr, len);
        beam_buffer_deinit(&text);
        len = change(&random, changed, len, "\"\\{}[],:0123456789.eE+-nul \n\t/bfu");
        /* what begins with a $ may be a form that is wrong, of which jansson knows nothing */
        if (len == 0 || memchr(changed, '$', len) || memmem(changed, len, "\\u0024", 6))
            continue;
        test_note("%.*s", (int)len, (const char *)changed);
        if (memchr(changed, '\0',
                   len)) { /* jansson passes over one behind a number; JSON has none */
            CHECK(reads(&beam_json, changed, len) < 0);
            continue;
        }
        json_t *json =
            json_loadb((const char *)changed, len,
                       JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        int r = reads(&beam_json, changed, len);
        if (json) {
            CHECK(r == 0 || r == -BEAM_EKV_DEPTH);
            good++;
        } else {
            CHECK(r < 0 || !jansson_can(&error));
            bad++;
        }
        json_decref(json);
    }
    CHECK(good > 100 && bad > 100);
    free(changed);
    free(doc);
}

#else

TEST(jansson_reads_what_is_written_and_the_other_way_round)
{
    const char *ci = getenv("CI");
    REQUIRE(!ci || strcmp(ci, "true") != 0);
    SKIP("jansson's headers are not installed (libjansson-dev)");
}

#endif

#ifdef BEAM_HAVE_MSGPACK
#include <msgpack.h>

static bool msgpack_equals(const msgpack_object *o, const beam_kv_value *value)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    beam_str key;
    uint32_t count = 0;
    beam_kv_iter_init(&iter, value);
    switch (value->type) {
    case BEAM_KV_NIL:
        return o->type == MSGPACK_OBJECT_NIL;
    case BEAM_KV_FALSE:
    case BEAM_KV_TRUE:
        return o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean == (value->type == BEAM_KV_TRUE);
    case BEAM_KV_INT:
        return value->i < 0 ? o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER && o->via.i64 == value->i
                            : o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 == value->u;
    case BEAM_KV_UINT:
        return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 == value->u;
    case BEAM_KV_FLOAT:
        return o->type == MSGPACK_OBJECT_FLOAT64 && memcmp(&o->via.f64, &value->f, 8) == 0;
    case BEAM_KV_STR:
        return o->type == MSGPACK_OBJECT_STR && o->via.str.size == value->str.len &&
               same(o->via.str.ptr, value->str.ptr, value->str.len);
    case BEAM_KV_BYTES:
        return o->type == MSGPACK_OBJECT_BIN && o->via.bin.size == value->bytes.len &&
               same(o->via.bin.ptr, value->bytes.ptr, value->bytes.len);
    case BEAM_KV_LIST:
        if (o->type != MSGPACK_OBJECT_ARRAY)
            return false;
        for (; beam_kv_iter_next(&iter, NULL, &inner) > 0; count++)
            if (count >= o->via.array.size || !msgpack_equals(&o->via.array.ptr[count], &inner))
                return false;
        return count == o->via.array.size;
    case BEAM_KV_MAP:
        if (o->type != MSGPACK_OBJECT_MAP)
            return false;
        for (; beam_kv_iter_next(&iter, &key, &inner) > 0; count++) {
            const msgpack_object_kv *member = &o->via.map.ptr[count];
            if (count >= o->via.map.size || member->key.type != MSGPACK_OBJECT_STR ||
                member->key.via.str.size != key.len ||
                !same(member->key.via.str.ptr, key.ptr, key.len) ||
                !msgpack_equals(&member->val, &inner))
                return false;
        }
        return count == o->via.map.size;
    default:
        return false;
    }
}

static size_t entries_of(const beam_kv_value *value)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    size_t count = 0;
    beam_kv_iter_init(&iter, value);
    while (beam_kv_iter_next(&iter, NULL, &inner) > 0)
        count++;
    return count;
}

static void pack(msgpack_packer *packer, const beam_kv_value *value)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    beam_str key;
    switch (value->type) {
    case BEAM_KV_NIL:
        msgpack_pack_nil(packer);
        break;
    case BEAM_KV_FALSE:
        msgpack_pack_false(packer);
        break;
    case BEAM_KV_TRUE:
        msgpack_pack_true(packer);
        break;
    case BEAM_KV_INT:
        msgpack_pack_int64(packer, value->i);
        break;
    case BEAM_KV_UINT:
        msgpack_pack_uint64(packer, value->u);
        break;
    case BEAM_KV_FLOAT:
        msgpack_pack_double(packer, value->f);
        break;
    case BEAM_KV_STR:
        msgpack_pack_str(packer, value->str.len);
        msgpack_pack_str_body(packer, value->str.ptr, value->str.len);
        break;
    case BEAM_KV_BYTES:
        msgpack_pack_bin(packer, value->bytes.len);
        msgpack_pack_bin_body(packer, value->bytes.ptr, value->bytes.len);
        break;
    case BEAM_KV_MAP:
        msgpack_pack_map(packer, entries_of(value));
        break;
    case BEAM_KV_LIST:
        msgpack_pack_array(packer, entries_of(value));
        break;
    }
    beam_kv_iter_init(&iter, value);
    while (beam_kv_iter_next(&iter, &key, &inner) > 0) {
        if (value->type == BEAM_KV_MAP) {
            msgpack_pack_str(packer, key.len);
            msgpack_pack_str_body(packer, key.ptr, key.len);
        }
        pack(packer, &inner);
    }
}

TEST(msgpack_c_reads_what_is_written_and_writes_the_same_bytes)
{
    struct test_random random = test_random(0);
    uint8_t *doc = malloc(ROOM);
    for (int i = 0; i < ROUNDS; i++) {
        size_t len, used = 0;
        beam_buffer form;
        beam_kv_value root;
        msgpack_unpacked unpacked;
        msgpack_sbuffer packed;
        msgpack_packer packer;
        random_form(&random, &beam_msgpack, 30, doc, &len, &form);
        REQUIRE_INT(beam_kv_root(doc, len, &root), 0);

        msgpack_unpacked_init(&unpacked);
        CHECK_INT(msgpack_unpack_next(&unpacked, (const char *)form.ptr, form.len, &used),
                  MSGPACK_UNPACK_SUCCESS);
        CHECK_UINT(used, form.len);
        CHECK(msgpack_equals(&unpacked.data, &root));
        msgpack_unpacked_destroy(&unpacked);

        msgpack_sbuffer_init(&packed);
        msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
        pack(&packer, &root);
        CHECK_MEM(form.ptr, form.len, packed.data, packed.size);
        check_reads_as(&beam_msgpack, packed.data, packed.size, doc, len);
        msgpack_sbuffer_destroy(&packed);
        beam_buffer_deinit(&form);
    }
    free(doc);
}

TEST(msgpack_c_and_this_reader_agree_on_changed_bytes)
{
    struct test_random random = test_random(0);
    uint8_t *doc = malloc(ROOM), *changed = malloc(ROOM);
    unsigned good = 0, bad = 0;
    for (int i = 0; i < 4 * ROUNDS; i++) {
        size_t len, used = 0;
        beam_buffer form;
        msgpack_unpacked unpacked;
        random_form(&random, &beam_msgpack, 6, doc, &len, &form);
        len = form.len < ROOM / 2 ? form.len : 0;
        memcpy(changed, form.ptr, len);
        beam_buffer_deinit(&form);
        len = change(&random, changed, len,
                     "\xc0\xc2\xcc\xcd\xce\xcf\xd0\xd9\xda\xa1\xa2\x91\x81\xc4\x01");
        /* msgpack-c allocates what a count of 32 bits says */
        if (len == 0 || memchr(changed, 0xdd, len) || memchr(changed, 0xdf, len))
            continue;
        msgpack_unpacked_init(&unpacked);
        int theirs = msgpack_unpack_next(&unpacked, (const char *)changed, len, &used);
        msgpack_unpacked_destroy(&unpacked);
        int ours = reads(&beam_msgpack, changed, len);
        bool whole = theirs == MSGPACK_UNPACK_SUCCESS && used == len;
        if (ours == 0) {
            CHECK(whole);
            good++;
        } else if (whole) {
            CHECK(ours == -BEAM_EKV_UTF8 || ours == -BEAM_ECODEC_UNSUPPORTED || ours == -EEXIST ||
                  ours == -BEAM_EKV_DEPTH);
        } else {
            bad++;
        }
    }
    CHECK(good > 100 && bad > 100);
    free(changed);
    free(doc);
}

#else

TEST(msgpack_c_reads_what_is_written_and_writes_the_same_bytes)
{
    const char *ci = getenv("CI");
    REQUIRE(!ci || strcmp(ci, "true") != 0);
    SKIP("msgpack-c's headers are not installed (libmsgpack-dev)");
}

#endif
