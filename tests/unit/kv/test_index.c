#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/documents.h"
#include "tests/support/test.h"

/* A document of its own length, so that a sanitizer sees one byte too many, and its map. */
struct indexed {
    uint8_t *doc;
    size_t len;
    uint32_t *offsets;
    beam_kv_value map;
    beam_kv_index index;
};

static void indexed_init(struct indexed *in, const void *doc, size_t len)
{
    in->doc = malloc(len);
    memcpy(in->doc, doc, len);
    in->len = len;
    REQUIRE_INT(beam_kv_check(in->doc, len, NULL), 0);
    REQUIRE_INT(beam_kv_root(in->doc, len, &in->map), 0);
    REQUIRE_INT(beam_kv_index_build(&in->map, NULL, 0, &in->index),
                in->map.bytes.len > 0 ? -ENOSPC : 0);
    size_t cap = in->index.count;
    in->offsets = malloc(cap * sizeof(*in->offsets));
    REQUIRE_INT(beam_kv_index_build(&in->map, in->offsets, cap, &in->index), 0);
    REQUIRE_UINT(in->index.count, cap);
}

static void indexed_deinit(struct indexed *in)
{
    free(in->doc);
    free(in->offsets);
}

/* {"key 0": 0, "key 7": 7, …}, of count keys as they are in decimal */
static void indexed_numbers(struct indexed *in, unsigned count)
{
    size_t cap = 64 + 64 * (size_t)count, len;
    const void *doc;
    beam_kv_writer w;
    char key[32];
    void *buf = malloc(cap);
    beam_kv_writer_init(&w, buf, cap);
    beam_kv_begin_map(&w, NULL);
    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "key %u", 7 * i);
        beam_kv_put_int(&w, key, 7 * i);
    }
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    indexed_init(in, doc, len);
    free(buf);
}

/* What the walk from the front says: the number of the first key that is not below. */
static size_t lower_bound_by_walking(const beam_kv_value *map, beam_str key)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str other;
    size_t n = 0;
    beam_kv_iter_init(&iter, map);
    for (; beam_kv_iter_next(&iter, &other, &value) > 0; n++) {
        size_t both = other.len < key.len ? other.len : key.len;
        int order = both > 0 ? memcmp(other.ptr, key.ptr, both) : 0;
        if (order > 0 || (order == 0 && other.len >= key.len))
            break;
    }
    return n;
}

static void check_key(const struct indexed *in, beam_str key)
{
    beam_kv_value by_index = {.type = BEAM_KV_NIL}, by_walking = {.type = BEAM_KV_NIL};
    size_t n = SIZE_MAX;
    int r = beam_kv_find(&in->map, key, &by_walking);
    CHECK_INT(beam_kv_index_find(&in->index, key, &by_index), r);
    CHECK_INT(by_index.type, by_walking.type);
    if (r == 0 && by_walking.type > BEAM_KV_TRUE)
        CHECK_UINT(by_index.u, by_walking.u);
    CHECK_INT(beam_kv_index_lower_bound(&in->index, key, &n), 0);
    CHECK_UINT(n, lower_bound_by_walking(&in->map, key));
}

/* Each key, what comes just before and just after it, and entry by entry. */
static void check_all(const struct indexed *in)
{
    beam_kv_iter iter;
    beam_kv_value value, at;
    beam_str key, key_at;
    size_t n = 0;
    beam_kv_iter_init(&iter, &in->map);
    for (; beam_kv_iter_next(&iter, &key, &value) > 0; n++) {
        char near[256];
        REQUIRE(key.len + 1 < sizeof(near));
        memcpy(near, key.ptr, key.len);
        near[key.len] = '\0';
        check_key(in, key);
        check_key(in, (beam_str){near, key.len + 1});
        if (key.len > 0) {
            check_key(in, (beam_str){near, key.len - 1});
            near[key.len - 1]++;
            check_key(in, (beam_str){near, key.len});
        }
        REQUIRE_INT(beam_kv_index_at(&in->index, n, &key_at, &at), 0);
        CHECK_PTR(key_at.ptr, key.ptr);
        CHECK_UINT(key_at.len, key.len);
        CHECK_INT(at.type, value.type);
    }
    CHECK_UINT(in->index.count, n);
    CHECK_INT(beam_kv_index_at(&in->index, n, NULL, &at), -ENOENT);
    CHECK_INT(beam_kv_index_at(&in->index, SIZE_MAX, NULL, &at), -ENOENT);
    check_key(in, (beam_str){NULL, 0});
    check_key(in, (beam_str){"\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9});
}

TEST(index_says_what_walking_says_for_maps_of_every_small_size)
{
    for (unsigned count = 0; count <= 70; count++) {
        struct indexed in;
        test_note("%u entries", count);
        indexed_numbers(&in, count);
        check_all(&in);
        indexed_deinit(&in);
    }
}

TEST(index_says_what_walking_says_for_random_maps)
{
    struct test_random random = test_random(0);
    unsigned maps = 0;
    static uint8_t buf[1 << 17];
    while (maps < 50) {
        size_t len = document_random(&random, 60, buf, sizeof(buf));
        if (buf[6] != BEAM_KV_MAP)
            continue;
        struct indexed in;
        indexed_init(&in, buf, len);
        check_all(&in);
        indexed_deinit(&in);
        maps++;
    }
}

TEST(index_of_a_large_map_finds_each_key)
{
    struct indexed in;
    indexed_numbers(&in, 100000);
    for (unsigned i = 0; i < 100000; i++) {
        char key[32];
        beam_kv_value value;
        int64_t number = -1;
        size_t len = (size_t)snprintf(key, sizeof(key), "key %u", 7 * i);
        int r = beam_kv_index_find(&in.index, (beam_str){key, len}, &value);
        if (r == 0)
            r = beam_kv_as_int(&value, &number);
        if (r != 0 || number != 7 * i || i == 0) /* not a hundred thousand checks */
            CHECK_INT(number, 7 * i);
    }
    indexed_deinit(&in);
}

TEST(index_scans_the_keys_that_begin_with_a_prefix)
{
    static const char *const keys[] = {"a", "a/", "a/b", "a/c/d", "a/\xc3\xa9", "a0", "b"};
    uint64_t buf[64];
    uint32_t offsets[8];
    beam_kv_writer w;
    beam_kv_value map, value;
    beam_kv_index index;
    beam_str key;
    const void *doc;
    size_t len, n = 0, found = 0;
    beam_kv_writer_init(&w, buf, sizeof(buf));
    beam_kv_begin_map(&w, NULL);
    for (size_t i = 0; i < 7; i++)
        beam_kv_put_nil(&w, keys[6 - i]);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    REQUIRE_INT(beam_kv_root(doc, len, &map), 0);
    REQUIRE_INT(beam_kv_index_build(&map, offsets, 8, &index), 0);
    CHECK_UINT(index.count, 7);

    REQUIRE_INT(beam_kv_index_lower_bound(&index, (beam_str){"a/", 2}, &n), 0);
    CHECK_UINT(n, 1);
    for (; beam_kv_index_at(&index, n, &key, &value) == 0 && key.len >= 2 &&
           memcmp(key.ptr, "a/", 2) == 0;
         n++)
        found++;
    CHECK_UINT(found, 4);
}

TEST(index_of_a_list_knows_its_elements_by_number)
{
    uint64_t buf[64];
    uint32_t offsets[5];
    beam_kv_writer w;
    beam_kv_value list, value;
    beam_kv_index index;
    const void *doc;
    size_t len, n = 77;
    beam_kv_writer_init(&w, buf, sizeof(buf));
    beam_kv_begin_list(&w, NULL);
    for (int i = 0; i < 5; i++)
        beam_kv_put_bytes(&w, NULL, buf, (size_t)i); /* of different lengths */
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    REQUIRE_INT(beam_kv_root(doc, len, &list), 0);
    REQUIRE_INT(beam_kv_index_build(&list, offsets, 5, &index), 0);
    for (size_t i = 0; i < 5; i++) {
        beam_str key = {"unchanged?", 10};
        REQUIRE_INT(beam_kv_index_at(&index, i, &key, &value), 0);
        CHECK_UINT(value.bytes.len, i);
        CHECK_UINT(key.len, 0);
    }
    CHECK_INT(beam_kv_index_at(&index, 5, NULL, &value), -ENOENT);
    CHECK_INT(beam_kv_index_find(&index, (beam_str){"", 0}, &value), -EINVAL);
    CHECK_INT(beam_kv_index_lower_bound(&index, (beam_str){"", 0}, &n), -EINVAL);
    CHECK_UINT(n, 77);
}

TEST(index_build_tells_how_much_room_it_needs)
{
    struct indexed in;
    beam_kv_index index = {.count = 77};
    uint32_t offsets[4] = {9, 9, 9, 9};
    indexed_numbers(&in, 4);
    CHECK_INT(beam_kv_index_build(&in.map, offsets, 3, &index), -ENOSPC);
    CHECK_UINT(index.count, 4);
    CHECK_UINT(offsets[3], 9);
    CHECK_INT(beam_kv_index_build(&in.map, offsets, 4, &index), 0);

    beam_kv_value other = {.type = BEAM_KV_BYTES, .bytes = in.map.bytes};
    index.count = 77;
    CHECK_INT(beam_kv_index_build(&other, offsets, 4, &index), -EINVAL);
    in.map.bytes.len -= 8;
    CHECK_INT(beam_kv_index_build(&in.map, offsets, 4, &index), -BEAM_EKV_TRUNCATED);
    in.map.bytes.len = BEAM_KV_LEN_MAX + 8; /* nothing of it is looked at */
    CHECK_INT(beam_kv_index_build(&in.map, offsets, 4, &index), -BEAM_EKV_TOO_LARGE);
    CHECK_UINT(index.count, 77);
    indexed_deinit(&in);
}

static bool inside(const struct indexed *in, const void *ptr, size_t len)
{
    const uint8_t *p = (const uint8_t *)ptr;
    return p >= in->doc && p <= in->doc + in->len && len <= (size_t)(in->doc + in->len - p);
}

/* Nothing is asked of the answers but that they lie in the document. */
static void ask_all(const struct indexed *in, struct test_random *random,
                    const beam_kv_index *index)
{
    for (int i = 0; i < 8; i++) {
        char text[12];
        beam_str key;
        beam_kv_value value;
        size_t n = 0;
        snprintf(text, sizeof(text), "key %u", (unsigned)test_random_below(random, 200));
        beam_str wanted = {text, test_random_below(random, strlen(text) + 1)};
        bool good = true;
        int r = beam_kv_index_lower_bound(index, wanted, &n);
        good &= r < 0 || n <= index->count;
        r = beam_kv_index_find(index, wanted, &value);
        good &= r < 0 || value.type < BEAM_KV_STR || inside(in, value.bytes.ptr, value.bytes.len);
        r = beam_kv_index_at(index, test_random_below(random, index->count + 1), &key, &value);
        good &= r < 0 || inside(in, key.ptr, key.len);
        good &= r < 0 || value.type < BEAM_KV_STR || inside(in, value.bytes.ptr, value.bytes.len);
        CHECK(good);
    }
}

TEST(index_that_lies_reads_nothing_outside)
{
    struct test_random random = test_random(0);
    struct indexed in;
    indexed_numbers(&in, 30);
    for (int i = 0; i < 2000; i++) {
        size_t count = test_random_below(&random, 40);
        uint32_t *lies = malloc(count * sizeof(*lies));
        for (size_t n = 0; n < count; n++) {
            uint64_t any = test_random_next(&random);
            lies[n] = (uint32_t)(any >> 60 == 0 ? any
                                 : any >> 63    ? any % (in.map.bytes.len + 16)
                                                : in.offsets[any % in.index.count] + any % 3 - 1);
        }
        /* and now and then other bytes, too */
        if (i % 2 == 0)
            in.doc[8 + test_random_below(&random, in.len - 8)] = (uint8_t)test_random_next(&random);
        beam_kv_index index = {.container = in.map, .offsets = lies, .count = count};
        ask_all(&in, &random, &index);
        free(lies);
    }
    indexed_deinit(&in);
}

TEST(index_of_nothing_with_offsets_answers_without_reading)
{
    static const uint32_t offsets[] = {0, 8, UINT32_MAX};
    beam_kv_value value;
    size_t n;
    for (size_t len = 0; len < 8; len++) {
        uint8_t *bytes = malloc(len);
        beam_kv_index index = {
            .container = {.type = BEAM_KV_MAP, .bytes = {len ? bytes : NULL, len}},
            .offsets = offsets,
            .count = 3};
        CHECK_INT(beam_kv_index_lower_bound(&index, (beam_str){"a", 1}, &n), -BEAM_EKV_TRUNCATED);
        CHECK_INT(beam_kv_index_find(&index, (beam_str){"a", 1}, &value), -BEAM_EKV_TRUNCATED);
        for (size_t i = 0; i < 3; i++)
            CHECK_INT(beam_kv_index_at(&index, i, NULL, &value), -BEAM_EKV_TRUNCATED);
        free(bytes);
    }
}
