/* Metadata as applications build and read it, up to each limit and a step beyond. */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "runtime/message.h"
#include "tests/unit/runtime/on_core.h"
#include "tests/unit/runtime/scarce.h"

static char text[BEAM_METADATA_LEN_MAX + 100];

static void fill_text(void)
{
    for (size_t i = 0; i < sizeof(text) - 1; i++)
        text[i] = (char)('a' + i % 26);
}

static void check_document(const beam_message *message)
{
    size_t len;
    const void *doc = beam_message_metadata(message, &len);
    REQUIRE(doc != NULL);
    CHECK(len <= BEAM_METADATA_LEN_MAX);
    CHECK_INT(beam_kv_check(doc, len, NULL), 0);
}

static beam_str str_of(const char *s)
{
    return (beam_str){s, strlen(s)};
}

/* A list, taken from a document of its own. */
static struct beam_kv_value list_value(void)
{
    static uint8_t room[128];
    struct beam_kv_value root, value;
    const void *doc;
    size_t len;
    beam_kv_writer w;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_list(&w, NULL);
    beam_kv_put_int(&w, NULL, 3);
    beam_kv_put_str(&w, NULL, "four");
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    REQUIRE_INT(beam_kv_root(doc, len, &root), 0);
    value = root;
    return value;
}

static void put_one(beam_message *message, int which)
{
    struct beam_kv_value list;
    switch (which) {
    case 0:
        beam_message_put_nil(message, "nil");
        break;
    case 1:
        beam_message_put_bool(message, "yes", true);
        break;
    case 2:
        beam_message_put_bool(message, "no", false);
        break;
    case 3:
        beam_message_put_int(message, "int", INT64_MIN);
        break;
    case 4:
        beam_message_put_uint(message, "uint", UINT64_MAX);
        break;
    case 5:
        beam_message_put_float(message, "float", -0.5);
        break;
    case 6:
        beam_message_put_str(message, "str", "gr\xc3\xbc\xc3\x9f");
        break;
    case 7:
        beam_message_put_strn(message, "strn", "cut here", 3);
        break;
    case 8:
        beam_message_put_bytes(message, "bytes", "\0\1\2\377", 4);
        break;
    case 9:
        list = list_value();
        beam_message_put(message, str_of("list"), &list);
        break;
    case 10:
        beam_message_putf(message, "putf", "%s-%03d", "no", 7);
        break;
    default:
        beam_message_put_str(message, "", "the empty key");
        break;
    }
}

#define TYPES 12

static void check_all(const beam_message *message)
{
    struct beam_kv_value value, inner;
    beam_kv_iter iter;
    beam_bytes raw;
    beam_str str;
    uint64_t u;
    int64_t n;
    double d;
    bool b;
    CHECK_INT(beam_message_get(message, "nil", &value), 0);
    CHECK_INT(value.type, BEAM_KV_NIL);
    CHECK_INT(beam_message_get_bool(message, "yes", &b), 0);
    CHECK(b);
    CHECK_INT(beam_message_get_bool(message, "no", &b), 0);
    CHECK(!b);
    CHECK_INT(beam_message_get_int(message, "int", &n), 0);
    CHECK_INT(n, INT64_MIN);
    CHECK_INT(beam_message_get(message, "uint", &value), 0);
    CHECK_INT(beam_kv_as_uint(&value, &u), 0);
    CHECK_UINT(u, UINT64_MAX);
    CHECK_INT(beam_message_get_float(message, "float", &d), 0);
    CHECK(d == -0.5);
    CHECK_INT(beam_message_get_str(message, "str", &str), 0);
    CHECK_MEM(str.ptr, str.len, "gr\xc3\xbc\xc3\x9f", 6);
    CHECK_INT(beam_message_get_str(message, "strn", &str), 0);
    CHECK_MEM(str.ptr, str.len, "cut", 3);
    CHECK_INT(beam_message_get(message, "bytes", &value), 0);
    CHECK_INT(beam_kv_as_bytes(&value, &raw), 0);
    CHECK_MEM(raw.ptr, raw.len, "\0\1\2\377", 4);
    CHECK_INT(beam_message_get(message, "list", &value), 0);
    beam_kv_iter_init(&iter, &value);
    CHECK_INT(beam_kv_iter_next(&iter, NULL, &inner), 1);
    CHECK_INT(beam_kv_as_int(&inner, &n), 0);
    CHECK_INT(n, 3);
    CHECK_INT(beam_message_get_str(message, "putf", &str), 0);
    CHECK_MEM(str.ptr, str.len, "no-007", 6);
    CHECK_INT(beam_message_get_str(message, "", &str), 0);
    CHECK_MEM(str.ptr, str.len, "the empty key", 13);
}

static void puts_in_any_order(void)
{
    struct test_random random = test_random(0);
    for (int round = 0; round < 200; round++) {
        int order[TYPES];
        for (int i = 0; i < TYPES; i++) {
            int k = (int)test_random_below(&random, (uint64_t)i + 1);
            order[i] = order[k];
            order[k] = i;
        }
        beam_message *message = beam_message_new();
        for (int i = 0; i < TYPES; i++)
            put_one(message, order[i]);
        CHECK_INT(beam_message_error(message), 0);
        check_document(message);
        check_all(message);
        beam_message_free(message);
    }
}

TEST(metadata_of_every_type_is_read_as_it_was_put_in_any_order)
{
    off_and_on_a_core(puts_in_any_order);
}

TEST(metadata_get_tells_a_missing_key_from_another_type)
{
    int64_t n = 77;
    double d = 77;
    bool b;
    beam_str str = {0};
    struct beam_kv_value value;
    beam_message *message = beam_message_new();
    CHECK_INT(beam_message_get_int(message, "n", &n), -ENOENT); /* there is no metadata at all */
    beam_message_put_int(message, "n", 5);
    beam_message_put_float(message, "d", 6.0);
    beam_message_put_float(message, "h", 6.5);
    beam_message_put_str(message, "s", "x");
    CHECK_INT(beam_message_get(message, "m", &value), -ENOENT);
    CHECK_INT(beam_message_get_int(message, "m", &n), -ENOENT);
    CHECK_INT(beam_message_get_int(message, "s", &n), -EINVAL);
    CHECK_INT(beam_message_get_int(message, "h", &n), -ERANGE);
    CHECK_INT(beam_message_get_str(message, "n", &str), -EINVAL);
    CHECK_INT(beam_message_get_bool(message, "n", &b), -EINVAL);
    CHECK_INT(beam_message_get_float(message, "s", &d), -EINVAL);
    CHECK_INT(n, 77); /* written only on success */
    CHECK(d == 77);
    CHECK_INT(beam_message_get_int(message, "d", &n), 0); /* exact, so it converts */
    CHECK_INT(n, 6);
    CHECK_INT(beam_message_get_float(message, "n", &d), 0);
    CHECK(d == 5.0);
    beam_message_free(message);
}

static void check_sticks(beam_message *message, int error)
{
    size_t len = 77;
    beam_message_put_int(message, "later", 1);
    CHECK_INT(bm_message_seal(message), error);
    CHECK_INT(beam_message_error(message), error);
    CHECK_PTR(beam_message_metadata(message, &len), NULL);
    CHECK_UINT(len, 0);
    beam_message_free(message);
}

TEST(metadata_key_twice_sticks)
{
    for (int apart = 0; apart < 40; apart++) {
        beam_message *message = beam_message_new();
        test_note("%d others between", apart);
        beam_message_put_int(message, "key", 1);
        for (int i = 0; i < apart; i++) {
            char key[16];
            snprintf(key, sizeof(key), "%c%d", i % 2 ? 'a' : 'z', i);
            beam_message_put_int(message, key, i);
        }
        beam_message_put_str(message, "key", "again");
        check_sticks(message, -EEXIST);
    }
    beam_message *message = beam_message_new();
    beam_message_put_int(message, "", 1);
    beam_message_put_int(message, "", 1);
    check_sticks(message, -EEXIST);
}

static void put_keys(beam_message *message, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key %u", (i * 37) % count);
        beam_message_put_uint(message, key, (i * 37) % count);
    }
}

TEST(metadata_has_64_keys_and_no_more)
{
    int64_t n;
    beam_message *message = beam_message_new();
    put_keys(message, 64);
    CHECK_INT(bm_message_seal(message), 0);
    check_document(message);
    CHECK_INT(beam_message_get_int(message, "key 63", &n), 0);
    CHECK_INT(n, 63);
    beam_message_free(message);

    message = beam_message_new();
    put_keys(message, 65);
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    check_sticks(message, -EMSGSIZE);
}

/* One entry and the map around it cost 8 each, the key is padded with the value. */
static beam_message *one_value_of(size_t document_len)
{
    beam_message *message = beam_message_new();
    beam_message_put_strn(message, "text", text, document_len - 16 - 4);
    return message;
}

static void check_len_limit(void)
{
    size_t len;
    beam_str str;
    fill_text();
    beam_message *message = one_value_of(BEAM_METADATA_LEN_MAX);
    CHECK_INT(bm_message_seal(message), 0);
    check_document(message);
    beam_message_metadata(message, &len);
    CHECK_UINT(len, BEAM_METADATA_LEN_MAX);
    CHECK_INT(beam_message_get_str(message, "text", &str), 0);
    CHECK_MEM(str.ptr, str.len, text, BEAM_METADATA_LEN_MAX - 20);
    beam_message_free(message);

    static const size_t more[] = {1, 8, 9, 16, 64, 65, 72, 80};
    for (size_t i = 0; i < BM_ARRAY_LEN(more); i++)
        check_sticks(one_value_of(BEAM_METADATA_LEN_MAX + more[i]), -EMSGSIZE);

    /* In many small steps to just over it. */
    message = beam_message_new();
    for (int i = 0; i < 64; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key %02d ", i); /* 8 + 8 + 240 = 256 each, 8 for the map */
        beam_message_put_strn(message, key, text, 240);
    }
    check_sticks(message, -EMSGSIZE);

    /* What is far beyond it costs no memory first. */
    message = beam_message_new();
    scarce_begin(INT_MAX);
    beam_message_put_bytes(message, "all", text, sizeof(text));
    scarce_end();
    CHECK_INT(scarce_asked, 0);
    check_sticks(message, -EMSGSIZE);
    message = beam_message_new();
    beam_message_put_bytes(message, "all", text, SIZE_MAX / 2);
    CHECK(beam_message_error(message) < 0);
    beam_message_free(message);
}

TEST(metadata_has_16384_bytes_and_no_more)
{
    off_and_on_a_core(check_len_limit);
}

TEST(metadata_key_that_is_none_sticks)
{
    struct beam_kv_value list = list_value();
    beam_message *message = beam_message_new();
    beam_message_put_int(message, NULL, 1);
    check_sticks(message, -EINVAL);
    message = beam_message_new();
    beam_message_put_int(message, "good", 1);
    beam_message_putf(message, NULL, "%d", 1);
    check_sticks(message, -EINVAL);
    message = beam_message_new();
    beam_message_put(message, (beam_str){NULL, 0}, &list);
    check_sticks(message, -EINVAL);
    message = beam_message_new();
    beam_message_put_int(message, "\xff", 1);
    check_sticks(message, -BEAM_EKV_UTF8);
    message = beam_message_new();
    beam_message_put_str(message, "key", "\xc0\xaf");
    check_sticks(message, -BEAM_EKV_UTF8);
}

TEST(metadata_is_sealed_by_looking_at_it)
{
    int64_t n;
    size_t len;
    beam_message *message = beam_message_new();
    beam_message_put_int(message, "n", 1);
    CHECK_INT(beam_message_get_int(message, "n", &n), 0);
    const void *doc = beam_message_metadata(message, &len);
    CHECK_INT(bm_message_seal(message), 0); /* once more: nothing */
    CHECK_INT(beam_message_error(message), 0);
    beam_message_put_int(message, "m", 2);
    CHECK_INT(beam_message_error(message), -EINVAL);
    CHECK_PTR(beam_message_metadata(message, NULL), doc); /* what was sealed stays readable */
    CHECK_INT(beam_message_get_int(message, "m", &n), -ENOENT);
    CHECK_INT(beam_message_get_int(message, "n", &n), 0);
    beam_message_free(message);
}

static void grow_step_by_step(void)
{
    fill_text();
    for (size_t step = 1; step < 240; step += 29) {
        beam_message *message = beam_message_new();
        size_t live = bm_alloc_totals().live_blocks, len;
        for (int i = 0; i < 64; i++) {
            char key[16];
            snprintf(key, sizeof(key), "%d", 63 - i);
            beam_message_put_strn(message, key, text + i, step);
        }
        CHECK_INT(bm_message_seal(message), 0);
        check_document(message);
        /* At any time one block beside the message, and none while 128 bytes are enough. */
        if (!bm_core_current())
            CHECK_UINT(bm_alloc_totals().live_blocks, live + 1);
        for (int i = 0; i < 64; i++) {
            char key[16];
            beam_str str;
            snprintf(key, sizeof(key), "%d", 63 - i);
            CHECK_INT(beam_message_get_str(message, key, &str), 0);
            CHECK_MEM(str.ptr, str.len, text + i, step);
        }
        beam_message_metadata(message, &len);
        CHECK(message->metadata == message->metadata_block);
        beam_message_free(message);
    }
}

TEST(metadata_grows_from_the_message_into_blocks_and_keeps_what_it_has)
{
    off_and_on_a_core(grow_step_by_step);
}

TEST(metadata_of_128_bytes_needs_no_block)
{
    fill_text();
    uint64_t allocs;
    for (size_t len = 0; len <= 128; len++) {
        test_note("%zu bytes of text", len);
        beam_message *message = beam_message_new();
        allocs = bm_alloc_totals().allocs;
        beam_message_put_strn(message, "text", text, len);
        CHECK_INT(bm_message_seal(message), 0);
        bool block = bm_alloc_totals().allocs != allocs;
        CHECK(block == (16 + len + 4 > BM_MESSAGE_METADATA_INLINE));
        CHECK((message->metadata == message->metadata_inline) == !block);
        beam_message_free(message);
    }
}

TEST(metadata_that_cannot_grow_sticks)
{
    fill_text();
    for (int left = 0; left < 3; left++) {
        beam_message *message = beam_message_new();
        test_note("%d allocations succeed", left);
        scarce_begin(left);
        beam_message_put_strn(message, "a", text, 100); /* in the message */
        beam_message_put_strn(message, "b", text, 100);
        beam_message_put_strn(message, "c", text, 200);
        beam_message_put_strn(message, "d", text, 400);
        scarce_end();
        check_sticks(message, -ENOMEM);
    }
}

static void copy_documents(void)
{
    fill_text();
    static const size_t lens[] = {24, 120, 128, 136, 1000, BEAM_METADATA_LEN_MAX};
    for (size_t i = 0; i < BM_ARRAY_LEN(lens); i++) {
        size_t len;
        beam_message *source = one_value_of(lens[i]), *copy = beam_message_new();
        const void *doc = beam_message_metadata(source, &len);
        CHECK_UINT(len, lens[i]);
        CHECK_INT(bm_message_copy_metadata(copy, doc, (uint32_t)len), 0);
        CHECK_MEM(copy->metadata, copy->metadata_len, doc, len);
        CHECK((copy->metadata == copy->metadata_inline) == (len <= BM_MESSAGE_METADATA_INLINE));
        beam_message_free(source);
        beam_message_free(copy);
    }
    beam_message *copy = beam_message_new();
    CHECK_INT(bm_message_copy_metadata(copy, NULL, 0), 0);
    CHECK_PTR(beam_message_metadata(copy, NULL), NULL);
    beam_message_free(copy);
}

TEST(metadata_is_copied_into_the_message_or_a_block)
{
    off_and_on_a_core(copy_documents);
}

TEST(metadata_without_memory_is_not_copied)
{
    static uint8_t doc[136];
    beam_message *copy = beam_message_new();
    scarce_begin(0);
    CHECK_INT(bm_message_copy_metadata(copy, doc, sizeof(doc)), -ENOMEM);
    scarce_end();
    CHECK_PTR(beam_message_metadata(copy, NULL), NULL);
    CHECK_INT(beam_message_error(copy), 0); /* its caller says what becomes of it */
    beam_message_free(copy);
}

static void check_putf_of(size_t len)
{
    beam_str str;
    beam_message *message = beam_message_new();
    beam_message_putf(message, "f", "%.*s", (int)len, text);
    CHECK_INT(beam_message_get_str(message, "f", &str), 0);
    CHECK_MEM(str.ptr, str.len, text, len);
    beam_message_free(message);
}

static void putf_of_every_length(void)
{
    static const size_t lens[] = {0, 1, 1022, 1023, 1024, 1025, 4000, BEAM_METADATA_LEN_MAX - 17};
    fill_text();
    for (size_t i = 0; i < BM_ARRAY_LEN(lens); i++)
        check_putf_of(lens[i]);
}

TEST(metadata_putf_writes_text_of_any_length)
{
    off_and_on_a_core(putf_of_every_length);
}

TEST(metadata_putf_beyond_the_limit_or_without_memory_sticks)
{
    fill_text();
    beam_message *message = beam_message_new();
    scarce_begin(INT_MAX);
    beam_message_putf(message, "f", "%s%s", text, text);
    scarce_end();
    CHECK_INT(scarce_asked, 0);
    check_sticks(message, -EMSGSIZE);
    message = beam_message_new();
    beam_message_putf(message, "f", "%.*s", BEAM_METADATA_LEN_MAX, text);
    check_sticks(message, -EMSGSIZE);
    message = beam_message_new();
    scarce_begin(0);
    beam_message_putf(message, "f", "%2000d", 1);
    scarce_end();
    check_sticks(message, -ENOMEM);
    /* The room for a long text is given back whatever becomes of it. */
    message = beam_message_new();
    beam_message_putf(message, "f", "%2000d", 1);
    beam_message_putf(message, "f", "%2000d", 1);
    check_sticks(message, -EEXIST);
}
