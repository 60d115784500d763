#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/documents.h"
#include "tests/support/test.h"

#define ROOM (64u << 10)

static int finish(beam_kv_writer *w)
{
    const void *doc;
    size_t len;
    return beam_kv_writer_finish(w, &doc, &len);
}

static void check_text(beam_kv_writer *w, const char *json)
{
    char text[4096];
    const void *doc;
    size_t len, text_len;
    REQUIRE_INT(beam_kv_writer_finish(w, &doc, &len), 0);
    REQUIRE_INT(beam_kv_to_json(doc, len, text, sizeof(text), &text_len), 0);
    CHECK_STR(text, json);
}

TEST(writer_sorts_keys_that_come_in_any_order)
{
    static const char *const keys[] = {"delta", "a", "charlie and more", "", "bravo"};
    uint64_t buf[40];
    /* all 120 orders of five keys */
    for (int n = 0; n < 120; n++) {
        bool used[5] = {false};
        beam_kv_writer w;
        beam_kv_writer_init(&w, buf, sizeof(buf));
        beam_kv_begin_map(&w, NULL);
        for (int left = 5, code = n; left > 0; code /= left, left--) {
            int pick = code % left, i = -1;
            do
                i++;
            while (used[i] || pick-- > 0);
            used[i] = true;
            beam_kv_put_int(&w, keys[i], i);
        }
        beam_kv_end(&w);
        test_note("order %d", n);
        check_text(&w, "{\"\":3,\"a\":1,\"bravo\":4,\"charlie and more\":2,\"delta\":0}");
    }
}

TEST(writer_nests_maps_and_lists_under_keys)
{
    uint64_t buf[60];
    beam_kv_writer w;
    beam_kv_writer_init(&w, buf, sizeof(buf));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_int(&w, "z", 1);
    beam_kv_begin_list(&w, "a list with a long key");
    beam_kv_put_nil(&w, NULL);
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_bool(&w, "y", true);
    beam_kv_begin_map(&w, "x");
    beam_kv_end(&w);
    beam_kv_end(&w);
    beam_kv_put_uint(&w, NULL, UINT64_MAX);
    beam_kv_end(&w);
    beam_kv_put_float(&w, "m", 0.5);
    beam_kv_put_bytes(&w, "b", "\0\1", 2);
    beam_kv_put_strn(&w, "c", "text and more", 4);
    beam_kv_end(&w);
    check_text(&w, "{\"a list with a long key\":[null,{\"x\":{},\"y\":true},18446744073709551615],"
                   "\"b\":{\"$bytes\":\"AAE=\"},\"c\":\"text\",\"m\":0.5,\"z\":1}");
}

TEST(writer_stores_numbers_in_their_one_encoding)
{
    uint64_t buf[20];
    uint64_t payload_nan = UINT64_C(0xfff8000000001234);
    double f;
    memcpy(&f, &payload_nan, sizeof(f));
    beam_kv_writer w;
    beam_kv_writer_init(&w, buf, sizeof(buf));
    beam_kv_begin_list(&w, NULL);
    beam_kv_put_uint(&w, NULL, 5);
    beam_kv_put_uint(&w, NULL, UINT64_C(1) << 63);
    beam_kv_put_float(&w, NULL, f);
    beam_kv_put_float(&w, NULL, -0.0);
    beam_kv_put_int(&w, NULL, INT64_MIN);
    beam_kv_end(&w);
    check_text(&w, "[5,9223372036854775808,{\"$float\":\"nan\"},-0.0,-9223372036854775808]");
    CHECK_UINT(buf[6], UINT64_C(0x7ff8000000000000));
}

TEST(writer_refuses_a_key_that_comes_twice)
{
    static const char *const orders[][3] = {
        {"a", "a", "b"}, {"a", "b", "a"}, {"b", "a", "a"}, {"", "x", ""}, {"b", "a", "b"}};
    uint64_t buf[20];
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        beam_kv_writer w;
        beam_kv_writer_init(&w, buf, sizeof(buf));
        beam_kv_begin_map(&w, NULL);
        for (int k = 0; k < 3; k++)
            CHECK_INT(beam_kv_put_nil(&w, orders[i][k]), 0);
        CHECK_INT(beam_kv_end(&w), -EEXIST);
        CHECK_INT(finish(&w), -EEXIST);
    }
    /* the same key in another map is another key */
    beam_kv_writer w;
    beam_kv_writer_init(&w, buf, sizeof(buf));
    beam_kv_begin_map(&w, NULL);
    beam_kv_begin_map(&w, "b");
    beam_kv_put_nil(&w, "b");
    beam_kv_end(&w);
    beam_kv_put_nil(&w, "a");
    beam_kv_end(&w);
    check_text(&w, "{\"a\":null,\"b\":{\"b\":null}}");
}

/* One wrong call after begin_map and begin_list; the rest of the calls are in order. */
enum wrong {
    KEY_MISSING,
    KEY_IN_LIST,
    KEY_AT_ROOT,
    KEY_NOT_UTF8,
    KEY_TOO_LONG,
    STR_NOT_UTF8,
    STR_NULL,
    BYTES_NULL,
    BYTES_TOO_LONG,
    SECOND_ROOT,
    END_TOO_MUCH,
    BEGIN_AN_INT,
    TYPE_UNKNOWN,
    RAW_BROKEN,
    RAW_UNEVEN,
    TOO_DEEP,
    FINISH_EARLY,
    FINISH_EMPTY,
    WRONG_COUNT
};

static void do_wrong(beam_kv_writer *w, enum wrong what)
{
    static char long_key[BEAM_KV_KEY_LEN_MAX + 2];
    static const uint64_t descending[] = {(uint64_t)BEAM_KV_NIL << 48 | UINT64_C(1) << 32, 'b',
                                          (uint64_t)BEAM_KV_NIL << 48 | UINT64_C(1) << 32, 'a'};
    beam_str none = {NULL, 0}, key = {"k", 1};
    beam_kv_value value = {.type = BEAM_KV_MAP, .bytes = {descending, sizeof(descending)}};
    switch (what) {
    case KEY_MISSING:
        beam_kv_begin_map(w, NULL);
        beam_kv_put_int(w, NULL, 1);
        break;
    case KEY_IN_LIST:
        beam_kv_begin_list(w, NULL);
        beam_kv_put_int(w, "", 1);
        break;
    case KEY_AT_ROOT:
        beam_kv_put_int(w, "k", 1);
        break;
    case KEY_NOT_UTF8:
        beam_kv_begin_map(w, NULL);
        beam_kv_begin_map(w, "\xff");
        break;
    case KEY_TOO_LONG:
        memset(long_key, 'k', sizeof(long_key) - 1);
        beam_kv_begin_map(w, NULL);
        beam_kv_put_nil(w, long_key);
        break;
    case STR_NOT_UTF8:
        beam_kv_put_str(w, NULL, "\xc3");
        break;
    case STR_NULL:
        beam_kv_put_str(w, NULL, NULL);
        break;
    case BYTES_NULL:
        beam_kv_put_bytes(w, NULL, NULL, 1);
        break;
    case BYTES_TOO_LONG:
        beam_kv_put_bytes(w, NULL, "", SIZE_MAX);
        break;
    case SECOND_ROOT:
        beam_kv_put_nil(w, NULL);
        beam_kv_put_nil(w, NULL);
        break;
    case END_TOO_MUCH:
        beam_kv_begin_map(w, NULL);
        beam_kv_end(w);
        beam_kv_end(w);
        break;
    case BEGIN_AN_INT:
        beam_kv_begin(w, none, BEAM_KV_INT);
        break;
    case TYPE_UNKNOWN:
        value.type = (beam_kv_type)11;
        beam_kv_put(w, none, &value);
        break;
    case RAW_BROKEN:
        beam_kv_begin_map(w, NULL);
        beam_kv_put(w, key, &value);
        break;
    case RAW_UNEVEN:
        value.bytes.len = 12;
        beam_kv_put(w, none, &value);
        break;
    case TOO_DEEP:
        for (int i = 0; i < BEAM_KV_DEPTH_MAX; i++)
            beam_kv_begin_list(w, NULL);
        CHECK_INT(w->error, 0);
        beam_kv_put_nil(w, NULL);
        break;
    case FINISH_EARLY:
        beam_kv_begin_list(w, NULL);
        finish(w);
        break;
    case FINISH_EMPTY:
        finish(w);
        break;
    case WRONG_COUNT:
        break;
    }
}

TEST(writer_errors_stick_and_name_what_was_wrong)
{
    static const int expected[WRONG_COUNT] = {
        [KEY_MISSING] = -BEAM_EKV_KEY,
        [KEY_IN_LIST] = -BEAM_EKV_KEY,
        [KEY_AT_ROOT] = -BEAM_EKV_KEY,
        [KEY_NOT_UTF8] = -BEAM_EKV_UTF8,
        [KEY_TOO_LONG] = -BEAM_EKV_TOO_LARGE,
        [STR_NOT_UTF8] = -BEAM_EKV_UTF8,
        [STR_NULL] = -EINVAL,
        [BYTES_NULL] = -EINVAL,
        [BYTES_TOO_LONG] = -BEAM_EKV_TOO_LARGE,
        [SECOND_ROOT] = -BEAM_EKV_TRAILING,
        [END_TOO_MUCH] = -EINVAL,
        [BEGIN_AN_INT] = -EINVAL,
        [TYPE_UNKNOWN] = -EINVAL,
        [RAW_BROKEN] = -BEAM_EKV_ORDER,
        [RAW_UNEVEN] = -BEAM_EKV_LENGTH,
        [TOO_DEEP] = -BEAM_EKV_DEPTH,
        [FINISH_EARLY] = -EINVAL,
        [FINISH_EMPTY] = -EINVAL,
    };
    uint8_t *buf = malloc(2 * ROOM);
    for (int what = 0; what < WRONG_COUNT; what++) {
        beam_kv_writer w;
        beam_kv_value value = {.type = BEAM_KV_NIL};
        int e = expected[what];
        test_note("wrong %d", what);
        beam_kv_writer_init(&w, buf, 2 * ROOM);
        do_wrong(&w, (enum wrong)what);
        CHECK_INT(w.error, e);
        size_t len = w.len;
        CHECK_INT(beam_kv_put_nil(&w, NULL), e);
        CHECK_INT(beam_kv_put_int(&w, "k", 1), e);
        CHECK_INT(beam_kv_put_str(&w, "k", NULL), e);
        CHECK_INT(beam_kv_put_bytes(&w, "k", "", SIZE_MAX), e);
        CHECK_INT(beam_kv_put(&w, (beam_str){NULL, 0}, &value), e);
        CHECK_INT(beam_kv_begin_map(&w, NULL), e);
        CHECK_INT(beam_kv_begin(&w, (beam_str){NULL, 0}, BEAM_KV_NIL), e);
        CHECK_INT(beam_kv_end(&w), e);
        CHECK_INT(finish(&w), e);
        CHECK_INT(beam_kv_writer_move(&w, buf, 2 * ROOM), 0); /* cures nothing but -ENOSPC */
        CHECK_INT(finish(&w), e);
        CHECK_INT(w.len, len);
    }
    free(buf);
}

TEST(writer_reaches_depth_32_and_the_longest_key)
{
    char *key = malloc(BEAM_KV_KEY_LEN_MAX + 1);
    uint8_t *buf = malloc(2 * ROOM);
    const void *doc;
    size_t len;
    beam_kv_writer w;
    memset(key, 'k', BEAM_KV_KEY_LEN_MAX);
    key[BEAM_KV_KEY_LEN_MAX] = '\0';
    beam_kv_writer_init(&w, buf, 2 * ROOM);
    beam_kv_begin_map(&w, NULL);
    for (int i = 2; i <= BEAM_KV_DEPTH_MAX; i++)
        beam_kv_begin_map(&w, i == 9 ? key : "x");
    for (int i = 0; i < BEAM_KV_DEPTH_MAX; i++)
        beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    CHECK_INT(beam_kv_check(doc, len, NULL), 0);
    CHECK_INT(len, 65536 + 8 + 8 + 30 * 16); /* the long one, the root, thirty "x" */
    free(key);
    free(buf);
}

TEST(writer_copies_whole_values_of_other_documents)
{
    uint64_t inner[20], outer[40];
    const void *doc;
    size_t len;
    beam_kv_value value;
    beam_kv_writer w;
    beam_kv_writer_init(&w, inner, sizeof(inner));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "k", "v");
    beam_kv_begin_list(&w, "l");
    beam_kv_put_int(&w, NULL, 1);
    beam_kv_end(&w);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    REQUIRE_INT(beam_kv_root(doc, len, &value), 0);

    beam_kv_writer_init(&w, outer, sizeof(outer));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put(&w, (beam_str){"twice", 5}, &value);
    beam_kv_put(&w, (beam_str){"once", 4}, &value);
    beam_kv_end(&w);
    check_text(&w, "{\"once\":{\"k\":\"v\",\"l\":[1]},\"twice\":{\"k\":\"v\",\"l\":[1]}}");

    /* the copied map counts from where it lands: its list's element would be at depth 33 */
    beam_kv_writer_init(&w, outer, sizeof(outer));
    for (int i = 0; i < BEAM_KV_DEPTH_MAX - 3; i++)
        beam_kv_begin_list(&w, NULL);
    CHECK_INT(beam_kv_put(&w, (beam_str){NULL, 0}, &value), 0);
    beam_kv_begin_list(&w, NULL);
    CHECK_INT(beam_kv_put(&w, (beam_str){NULL, 0}, &value), -BEAM_EKV_DEPTH);
}

/* Writes `value` again with as little room as the writer asks for, growing by moves. */
static int put_growing(beam_kv_writer *w, beam_str key, const beam_kv_value *value, size_t *moves);

static int grow(beam_kv_writer *w, size_t *moves)
{
    uint8_t *old = w->base, *grown = malloc(w->need);
    CHECK(w->need > w->cap);
    int r = beam_kv_writer_move(w, grown, w->need);
    CHECK_INT(r, 0);
    free(old);
    ++*moves;
    return r;
}

static int put_inside(beam_kv_writer *w, const beam_kv_value *value, size_t *moves)
{
    for (int odd = 1; odd >= 0; odd--) {
        bool map = value->type == BEAM_KV_MAP;
        beam_kv_iter iter;
        beam_kv_value inner;
        beam_str key, none = {NULL, 0};
        beam_kv_iter_init(&iter, value);
        for (int i = 0; beam_kv_iter_next(&iter, &key, &inner) > 0; i++)
            if (map ? i % 2 == odd : odd) {
                int r = put_growing(w, map ? key : none, &inner, moves);
                if (r < 0)
                    return r;
            }
    }
    return beam_kv_end(w); /* never -ENOSPC */
}

static int put_growing(beam_kv_writer *w, beam_str key, const beam_kv_value *value, size_t *moves)
{
    bool nested = value->type == BEAM_KV_MAP || value->type == BEAM_KV_LIST;
    int r;
    while ((r = nested ? beam_kv_begin(w, key, value->type) : beam_kv_put(w, key, value)) ==
           -ENOSPC)
        grow(w, moves);
    return r < 0 || !nested ? r : put_inside(w, value, moves);
}

TEST(writer_goes_on_in_a_larger_buffer_after_every_call)
{
    struct test_random random = test_random(0);
    uint8_t *buf = malloc(ROOM);
    size_t moves = 0;
    for (int round = 0; round < 200; round++) {
        size_t len = document_random(&random, 30, buf, ROOM), again_len = 0;
        const void *again;
        beam_kv_value root;
        beam_kv_writer w;
        REQUIRE_INT(beam_kv_root(buf, len, &root), 0);
        beam_kv_writer_init(&w, NULL, 0);
        CHECK_INT(put_growing(&w, (beam_str){NULL, 0}, &root, &moves), 0);
        REQUIRE_INT(beam_kv_writer_finish(&w, &again, &again_len), 0);
        CHECK_MEM(again, again_len, buf, len);
        CHECK_INT(w.cap, len); /* asked for no more than the document needs */
        free(w.base);
    }
    CHECK(moves > 1000);
    free(buf);
}

TEST(writer_needs_no_more_than_the_document_and_says_so)
{
    struct test_random random = test_random(0);
    uint8_t *buf = malloc(ROOM);
    for (int round = 0; round < 50; round++) {
        size_t len = document_random(&random, 30, buf, ROOM), again_len = 0;
        uint8_t *again = malloc(len);
        for (size_t cap = 0; cap < len; cap += 1 + test_random_below(&random, 40))
            CHECK_INT(document_rewrite(buf, len, again, cap, DOCUMENT_ODD_FIRST, &again_len),
                      -ENOSPC);
        CHECK_INT(document_rewrite(buf, len, again, len, DOCUMENT_ODD_FIRST, &again_len), 0);
        CHECK_MEM(again, again_len, buf, len);
        free(again);
    }
    free(buf);
}

TEST(writer_move_grows_in_place_and_refuses_to_shrink)
{
    uint8_t buf[128];
    beam_kv_writer w;
    beam_kv_writer_init(&w, buf, 31);
    beam_kv_begin_map(&w, NULL);
    CHECK_INT(beam_kv_begin_list(&w, "list"), 0);
    CHECK_INT(beam_kv_put_nil(&w, NULL), -ENOSPC);
    CHECK_INT(w.need, 32);
    CHECK_INT(beam_kv_writer_move(&w, buf, 30), -EINVAL);
    CHECK_INT(w.error, -ENOSPC);
    CHECK_INT(beam_kv_writer_move(&w, buf, sizeof(buf)), 0);
    CHECK_INT(beam_kv_put_nil(&w, NULL), 0);
    beam_kv_end(&w);
    beam_kv_end(&w);
    check_text(&w, "{\"list\":[null]}");
}

TEST(writer_finish_may_be_repeated)
{
    uint64_t buf[2];
    beam_kv_writer w;
    beam_kv_writer_init(&w, buf, sizeof(buf));
    beam_kv_put_int(&w, NULL, -1);
    check_text(&w, "-1");
    check_text(&w, "-1");
}

TEST(random_documents_survive_reading_and_writing)
{
    struct test_random random = test_random(0);
    uint8_t *buf = malloc(16 * ROOM), *again = malloc(16 * ROOM);
    for (int round = 0; round < 300; round++) {
        size_t len = document_random(&random, round, buf, 16 * ROOM), again_len = 0;
        CHECK_INT(beam_kv_check(buf, len, NULL), 0);
        for (int order = DOCUMENT_IN_ORDER; order <= DOCUMENT_ODD_FIRST; order++) {
            CHECK_INT(document_rewrite(buf, len, again, 16 * ROOM, (enum document_order)order,
                                       &again_len),
                      0);
            CHECK_MEM(again, again_len, buf, len);
        }
    }
    free(buf);
    free(again);
}
