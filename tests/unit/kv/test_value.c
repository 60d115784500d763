#include <errno.h>
#include <math.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/test.h"

static beam_kv_value of_int(int64_t i)
{
    return (beam_kv_value){.type = BEAM_KV_INT, .i = i};
}

static beam_kv_value of_uint(uint64_t u)
{
    return (beam_kv_value){.type = BEAM_KV_UINT, .u = u};
}

static beam_kv_value of_float(double f)
{
    return (beam_kv_value){.type = BEAM_KV_FLOAT, .f = f};
}

TEST(int_is_had_from_every_number_that_is_exactly_one)
{
    static const struct {
        beam_kv_value value;
        int r;
        int64_t i;
    } rows[] = {
        {{.type = BEAM_KV_INT, .i = INT64_MIN}, 0, INT64_MIN},
        {{.type = BEAM_KV_INT, .i = INT64_MAX}, 0, INT64_MAX},
        {{.type = BEAM_KV_FLOAT, .f = 1.0}, 0, 1},
        {{.type = BEAM_KV_FLOAT, .f = -0.0}, 0, 0},
        {{.type = BEAM_KV_FLOAT, .f = -0x1p63}, 0, INT64_MIN},
        {{.type = BEAM_KV_FLOAT, .f = 0x1p63}, -ERANGE, 0},
        {{.type = BEAM_KV_FLOAT, .f = 0.5}, -ERANGE, 0},
        {{.type = BEAM_KV_FLOAT, .f = NAN}, -ERANGE, 0},
        {{.type = BEAM_KV_FLOAT, .f = INFINITY}, -ERANGE, 0},
        {{.type = BEAM_KV_FLOAT, .f = -INFINITY}, -ERANGE, 0},
        {{.type = BEAM_KV_UINT, .u = UINT64_C(1) << 63}, -ERANGE, 0},
        {{.type = BEAM_KV_TRUE}, -EINVAL, 0},
        {{.type = BEAM_KV_STR, .str = {"1", 1}}, -EINVAL, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t got = 77;
        test_note("row %zu", i);
        CHECK_INT(beam_kv_as_int(&rows[i].value, &got), rows[i].r);
        CHECK_INT(got, rows[i].r ? 77 : rows[i].i);
    }
}

TEST(uint_is_had_from_every_number_that_is_exactly_one)
{
    static const struct {
        beam_kv_value value;
        int r;
        uint64_t u;
    } rows[] = {
        {{.type = BEAM_KV_INT, .i = 0}, 0, 0},
        {{.type = BEAM_KV_INT, .i = -1}, -ERANGE, 0},
        {{.type = BEAM_KV_UINT, .u = UINT64_MAX}, 0, UINT64_MAX},
        {{.type = BEAM_KV_FLOAT, .f = 0x1p63}, 0, UINT64_C(1) << 63},
        {{.type = BEAM_KV_FLOAT, .f = -0.0}, 0, 0},
        {{.type = BEAM_KV_FLOAT, .f = 0x1p64}, -ERANGE, 0},
        {{.type = BEAM_KV_FLOAT, .f = -1.0}, -ERANGE, 0},
        {{.type = BEAM_KV_FLOAT, .f = NAN}, -ERANGE, 0},
        {{.type = BEAM_KV_NIL}, -EINVAL, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t got = 77;
        test_note("row %zu", i);
        CHECK_INT(beam_kv_as_uint(&rows[i].value, &got), rows[i].r);
        CHECK_UINT(got, rows[i].r ? 77 : rows[i].u);
    }
}

TEST(float_is_had_from_every_number_that_is_exactly_one)
{
    double f = 77;
    beam_kv_value v = of_float(0.1);
    CHECK_INT(beam_kv_as_float(&v, &f), 0);
    CHECK(f == 0.1);
    v = of_int(-(INT64_C(1) << 53));
    CHECK_INT(beam_kv_as_float(&v, &f), 0);
    CHECK(f == -0x1p53);
    v = of_int(INT64_MIN);
    CHECK_INT(beam_kv_as_float(&v, &f), 0);
    CHECK(f == -0x1p63);
    v = of_uint(UINT64_C(1) << 63);
    CHECK_INT(beam_kv_as_float(&v, &f), 0);
    CHECK(f == 0x1p63);
    v = of_int((INT64_C(1) << 53) + 1);
    CHECK_INT(beam_kv_as_float(&v, &f), -ERANGE);
    v = of_int(INT64_MAX);
    CHECK_INT(beam_kv_as_float(&v, &f), -ERANGE);
    v = of_uint(UINT64_MAX);
    CHECK_INT(beam_kv_as_float(&v, &f), -ERANGE);
    v.type = BEAM_KV_STR;
    CHECK_INT(beam_kv_as_float(&v, &f), -EINVAL);
    CHECK(f == 0x1p63);
}

/* {"": nil, "a": 1, "a\0": 2, "aaaaaaaa": 3, "aaaaaaaab": 4, "b": "x", "é": false} */
static size_t keys_document(void *buf, size_t cap)
{
    beam_kv_writer w;
    const void *doc;
    size_t len = 0;
    beam_kv_value two = of_int(2);
    beam_kv_writer_init(&w, buf, cap);
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_bool(&w, "é", false);
    beam_kv_put_str(&w, "b", "x");
    beam_kv_put_int(&w, "aaaaaaaab", 4);
    beam_kv_put_int(&w, "aaaaaaaa", 3);
    beam_kv_put(&w, (beam_str){"a", 2}, &two);
    beam_kv_put_int(&w, "a", 1);
    beam_kv_put_nil(&w, "");
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    return len;
}

TEST(find_knows_every_key_and_no_other)
{
    uint64_t buf[40];
    beam_kv_value map, value;
    size_t len = keys_document(buf, sizeof(buf));
    REQUIRE_INT(beam_kv_root(buf, len, &map), 0);

    static const struct {
        const char *key;
        size_t len;
        int type; /* 0: not there */
        int64_t i;
    } rows[] = {
        {"", 0, BEAM_KV_NIL, 0},
        {NULL, 0, BEAM_KV_NIL, 0},
        {"a", 1, BEAM_KV_INT, 1},
        {"a", 2, BEAM_KV_INT, 2},
        {"a\0\0", 3, 0, 0},
        {"aa", 2, 0, 0},
        {"aaaaaaaa", 8, BEAM_KV_INT, 3},
        {"aaaaaaaab", 9, BEAM_KV_INT, 4},
        {"aaaaaaaa", 9, 0, 0},
        {"aaaaaaaaa", 9, 0, 0},
        {"aaaaaaaac", 9, 0, 0},
        {"b", 1, BEAM_KV_STR, 0},
        {"c", 1, 0, 0},
        {"é", 2, BEAM_KV_FALSE, 0},
        {"\xff", 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        int r = beam_kv_find(&map, (beam_str){rows[i].key, rows[i].len}, &value);
        CHECK_INT(r, rows[i].type ? 0 : -ENOENT);
        if (r == 0)
            CHECK_INT(value.type, rows[i].type);
        if (r == 0 && rows[i].type == BEAM_KV_INT)
            CHECK_INT(value.i, rows[i].i);
    }
}

TEST(getters_tell_missing_from_wrong)
{
    uint64_t buf[40];
    beam_kv_value map, value;
    beam_bytes bytes;
    beam_str str;
    int64_t i = 0;
    double f = 0;
    bool b = true;
    REQUIRE_INT(beam_kv_root(buf, keys_document(buf, sizeof(buf)), &map), 0);
    CHECK_INT(beam_kv_get_int(&map, "a", &i), 0);
    CHECK_INT(i, 1);
    CHECK_INT(beam_kv_get_float(&map, "a", &f), 0);
    CHECK(f == 1.0);
    CHECK_INT(beam_kv_get_bool(&map, "é", &b), 0);
    CHECK(!b);
    CHECK_INT(beam_kv_get_str(&map, "b", &str), 0);
    CHECK_MEM(str.ptr, str.len, "x", 1);
    CHECK_INT(beam_kv_get_str(&map, "a", &str), -EINVAL);
    CHECK_INT(beam_kv_get_bytes(&map, "b", &bytes), -EINVAL);
    CHECK_INT(beam_kv_get_bool(&map, "a", &b), -EINVAL);
    CHECK_INT(beam_kv_get_int(&map, "zz", &i), -ENOENT);
    REQUIRE_INT(beam_kv_get(&map, "a", &value), 0);
    CHECK_INT(beam_kv_get_int(&value, "a", &i), -EINVAL);
}

TEST(iteration_goes_in_key_order_and_ends)
{
    static const char *const keys[] = {"", "a", "a", "aaaaaaaa", "aaaaaaaab", "b", "é"};
    static const size_t lens[] = {0, 1, 2, 8, 9, 1, 2};
    uint64_t buf[40];
    beam_kv_value map, value;
    beam_kv_iter iter;
    beam_str key;
    REQUIRE_INT(beam_kv_root(buf, keys_document(buf, sizeof(buf)), &map), 0);
    beam_kv_iter_init(&iter, &map);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        REQUIRE_INT(beam_kv_iter_next(&iter, &key, &value), 1);
        CHECK_MEM(key.ptr, key.len, keys[i], lens[i]);
    }
    CHECK_INT(beam_kv_iter_next(&iter, &key, &value), 0);
    CHECK_INT(beam_kv_iter_next(&iter, NULL, &value), 0);
}

TEST(iteration_of_what_holds_nothing_ends_at_once)
{
    beam_kv_value value = of_int(1), inner;
    beam_kv_iter iter;
    beam_kv_iter_init(&iter, &value);
    CHECK_INT(beam_kv_iter_next(&iter, NULL, &inner), 0);
    value = (beam_kv_value){.type = BEAM_KV_LIST};
    beam_kv_iter_init(&iter, &value);
    CHECK_INT(beam_kv_iter_next(&iter, NULL, &inner), 0);
    value.type = BEAM_KV_MAP;
    CHECK_INT(beam_kv_get(&value, "a", &inner), -ENOENT);
}

TEST(iteration_over_broken_bytes_reports_them_every_time)
{
    uint8_t doc[16] = {8, 0, 0, 0, 0, 0, BEAM_KV_LIST, 0, 0, 0, 0, 0, 0, 0, 77, 0};
    beam_kv_value list, inner;
    beam_kv_iter iter;
    REQUIRE_INT(beam_kv_root(doc, sizeof(doc), &list), 0);
    beam_kv_iter_init(&iter, &list);
    CHECK_INT(beam_kv_iter_next(&iter, NULL, &inner), -BEAM_EKV_TYPE);
    CHECK_INT(beam_kv_iter_next(&iter, NULL, &inner), -BEAM_EKV_TYPE);
}
