/* What everything that takes a value does with bytes that nobody checked (K17): any answer, but from inside,
 * and an end. Documents lie in blocks of exactly their length, so that a sanitizer sees one byte too many;
 * without one, the pointers that come back are compared. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <beam/kv.h>

#include "tests/support/test.h"
#include "tests/support/vectors.h"

#define DEPTH_MAX                                                                                  \
    40 /* of the walk: nesting that was not checked may be as deep as there are bytes */

struct range {
    const uint8_t *start, *end;
};

static bool inside(struct range range, const void *ptr, size_t len)
{
    const uint8_t *p = (const uint8_t *)ptr;
    return p >= range.start && p <= range.end && len <= (size_t)(range.end - p);
}

static bool value_is_inside(struct range range, const beam_kv_value *value)
{
    if (value->type < BEAM_KV_NIL || value->type > BEAM_KV_LIST)
        return false;
    return value->type < BEAM_KV_STR || inside(range, value->bytes.ptr, value->bytes.len);
}

/* By each key that is there, and some that may be: the value, if any, is inside. */
static bool lookups_stay_inside(struct range range, const beam_kv_value *map, beam_str there)
{
    const beam_str keys[] = {there, {NULL, 0}, {"cmd", 3}, {"\0\0\0\0\0\0\0\0\0", 9}, {"\xff", 1}};
    bool b, good = true;
    int64_t i;
    uint64_t u;
    double f;
    beam_str str;
    beam_bytes bytes;
    beam_kv_value found;
    for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++)
        good &= beam_kv_find(map, keys[n], &found) < 0 || value_is_inside(range, &found);
    good &= beam_kv_get(map, "fd", &found) < 0 || value_is_inside(range, &found);
    good &= beam_kv_get_str(map, "cmd", &str) < 0 || inside(range, str.ptr, str.len);
    good &= beam_kv_get_bytes(map, "k", &bytes) < 0 || inside(range, bytes.ptr, bytes.len);
    (void)(beam_kv_get_bool(map, "ok", &b) + beam_kv_get_int(map, "fd", &i));
    (void)(beam_kv_get_uint(map, "fd", &u) + beam_kv_get_float(map, "fd", &f));
    return good;
}

static bool index_stays_inside(struct range range, const beam_kv_value *container)
{
    uint32_t offsets[8];
    beam_kv_index index;
    beam_kv_value value;
    beam_str key;
    size_t n;
    bool good = true;
    if (beam_kv_index_build(container, offsets, 8, &index) < 0)
        return true;
    for (n = 0; beam_kv_index_at(&index, n, &key, &value) == 0; n++) {
        good &= inside(range, key.ptr, key.len) && value_is_inside(range, &value);
        good &= beam_kv_index_find(&index, key, &value) < 0 || value_is_inside(range, &value);
    }
    good &= beam_kv_index_lower_bound(&index, (beam_str){"fd", 2}, &n) < 0 || n <= index.count;
    return good && beam_kv_index_at(&index, index.count, NULL, &value) == -ENOENT;
}

/* The writer takes what is valid and nothing else, and what it finishes is valid. */
static bool writer_checks(const beam_kv_value *value)
{
    uint64_t buf[256];
    beam_kv_writer w;
    const void *doc;
    size_t len;
    beam_kv_writer_init(&w, buf, sizeof(buf));
    beam_kv_begin_list(&w, NULL);
    int r = beam_kv_put(&w, (beam_str){NULL, 0}, value);
    beam_kv_end(&w);
    return beam_kv_writer_finish(&w, &doc, &len) == r &&
           (r < 0 || beam_kv_check(doc, len, NULL) == 0);
}

/* Returns the number of entries below, or SIZE_MAX when something lay outside. */
static size_t walk(struct range range, const beam_kv_value *value, int depth)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    beam_str key = {NULL, 0};
    size_t count = 0;
    int64_t i;
    uint64_t u;
    double f;
    int r;
    bool good = value_is_inside(range, value) && writer_checks(value) &&
                index_stays_inside(range, value) && lookups_stay_inside(range, value, key);
    (void)(beam_kv_as_int(value, &i) + beam_kv_as_uint(value, &u) + beam_kv_as_float(value, &f));

    struct range within = {value->bytes.ptr, NULL};
    beam_kv_iter_init(&iter, value);
    if (value->type >= BEAM_KV_MAP)
        within.end = within.start + value->bytes.len;
    while (depth < DEPTH_MAX && (r = beam_kv_iter_next(&iter, &key, &inner)) > 0) {
        good = good && inside(within, key.ptr, key.len) && lookups_stay_inside(range, value, key);
        size_t below = walk(within, &inner, depth + 1);
        if (!good || below == SIZE_MAX)
            return SIZE_MAX;
        count += 1 + below;
    }
    if (depth < DEPTH_MAX)
        good &= r == 0 || beam_kv_iter_next(&iter, &key, &inner) == r;
    return good ? count : SIZE_MAX;
}

static void check_document(const uint8_t *doc, size_t len)
{
    beam_kv_value root;
    size_t text_len;
    char text[16];
    int checked = beam_kv_check(doc, len, NULL);
    int r = beam_kv_root(doc, len, &root);
    if (r < 0)
        REQUIRE(checked < 0);
    else
        REQUIRE(walk((struct range){doc, doc + len}, &root, 0) <= len / 8);
    r = beam_kv_to_json(doc, len, text, sizeof(text), &text_len);
    if (checked < 0)
        CHECK_INT(r, checked);
}

TEST(unchecked_vectors_are_read_from_inside)
{
    struct vectors vectors;
    vectors_load("kv.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        size_t len;
        uint8_t *doc = vector_hex(&vectors.items[i], "hex", &len);
        test_note("%s", vector_str(&vectors.items[i], "name"));
        check_document(doc, len);
        free(doc);
    }
    vectors_free(&vectors);
}

TEST(unchecked_changes_of_any_byte_are_read_from_inside)
{
    static const uint8_t others[] = {0, 1, 7, 8, 9, 10, 16, 0x7f, 0x80, 0xf8, 0xff};
    struct vectors vectors;
    vectors_load("kv.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        size_t len;
        uint8_t *doc = vector_hex(&vectors.items[i], "hex", &len);
        test_note("%s", vector_str(&vectors.items[i], "name"));
        for (size_t at = 0; at < len && at < 96; at++) {
            uint8_t was = doc[at];
            for (size_t n = 0; n < sizeof(others); n++) {
                doc[at] = others[n];
                check_document(doc, len);
            }
            doc[at] = was;
        }
        free(doc);
    }
    vectors_free(&vectors);
}

TEST(unchecked_maps_of_odd_length_are_read_from_inside)
{
    static const uint8_t entries[] = {0, 0, 0, 0, 1, 0, 1, 0, 'a', 0, 0, 0, 0, 0, 0, 0,
                                      0, 0, 0, 0, 1, 0, 1, 0, 'b', 0, 0, 0, 0, 0, 0, 0};
    for (size_t len = 1; len <= sizeof(entries); len++) {
        uint8_t *block = malloc(len);
        memcpy(block, entries, len);
        beam_kv_value map = {.type = BEAM_KV_MAP, .bytes = {block, len}}, found;
        test_note("%zu bytes", len);
        CHECK(walk((struct range){block, block + len}, &map, 0) == len / 16);
        CHECK_INT(beam_kv_find(&map, (beam_str){"a", 1}, &found),
                  len < 16 ? -BEAM_EKV_TRUNCATED : 0);
        CHECK_INT(beam_kv_find(&map, (beam_str){"b", 1}, &found), len == 16  ? -ENOENT
                                                                  : len < 32 ? -BEAM_EKV_TRUNCATED
                                                                             : 0);
        free(block);
    }
}

/* Entries whose lengths wrap in 32 bits: with 5 GiB behind them, bounds alone would let them pass. The room
 * is never touched but at its start and, by prefixes of keys, far behind it. */
TEST(unchecked_lengths_do_not_wrap_with_four_gibibytes_behind_them)
{
    static const struct {
        uint32_t vlen;
        uint16_t klen;
    } rows[] = {{UINT32_MAX, 1}, {UINT32_MAX, 9},      {UINT32_MAX, 0xffff}, {0xfffffff8, 0},
                {0xfffffff9, 0}, {0xffff0000, 0xffff}, {0x80000000, 0},      {0x7ffffff8, 0}};
    size_t room = (size_t)5 << 30;
    uint64_t *doc = mmap(NULL, room, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(doc != MAP_FAILED);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        beam_kv_value root, found;
        beam_kv_index index;
        beam_kv_iter iter;
        uint32_t offset;
        uint64_t len = 8 + ((rows[i].vlen + (uint64_t)rows[i].klen + 7) & ~UINT64_C(7));
        test_note("row %zu", i);
        for (int type = BEAM_KV_BYTES; type <= BEAM_KV_LIST; type++) {
            doc[0] = rows[i].vlen | (uint64_t)rows[i].klen << 32 | (uint64_t)type << 48;
            CHECK_INT(beam_kv_check(doc, room, NULL), -BEAM_EKV_TOO_LARGE);
            CHECK_INT(beam_kv_root(doc, room, &root), -BEAM_EKV_TOO_LARGE);

            /* as a map made by hand, longer than any that a document can hold */
            beam_kv_value map = {.type = BEAM_KV_MAP, .bytes = {doc, len - 8}};
            beam_kv_iter_init(&iter, &map);
            CHECK(beam_kv_iter_next(&iter, NULL, &found) < 0);
            CHECK_INT(beam_kv_find(&map, (beam_str){"a", 1}, &found), -BEAM_EKV_TRUNCATED);
            CHECK(beam_kv_index_build(&map, &offset, 1, &index) < 0);
            map.bytes.len = room;
            beam_kv_iter_init(&iter, &map);
            CHECK_INT(beam_kv_iter_next(&iter, NULL, &found), -BEAM_EKV_TOO_LARGE);
            CHECK_INT(beam_kv_index_build(&map, &offset, 1, &index), -BEAM_EKV_TOO_LARGE);
        }
    }
    munmap(doc, room);
}

TEST(unchecked_nesting_costs_the_library_no_stack)
{
    size_t count = 100000;
    uint64_t *doc = malloc(count * sizeof(*doc));
    for (size_t i = 0; i < count; i++)
        doc[i] = (count - 1 - i) * 8 | (uint64_t)BEAM_KV_MAP << 48;
    beam_kv_value value, inner;
    REQUIRE_INT(beam_kv_root(doc, count * sizeof(*doc), &value), 0);
    size_t depth = 1;
    for (;; depth++) {
        beam_kv_iter iter;
        beam_kv_iter_init(&iter, &value);
        if (beam_kv_iter_next(&iter, NULL, &inner) <= 0)
            break;
        value = inner;
    }
    CHECK_UINT(depth, count);

    beam_kv_writer w;
    uint64_t buf[8];
    beam_kv_writer_init(&w, buf, sizeof(buf));
    REQUIRE_INT(beam_kv_root(doc, count * sizeof(*doc), &value), 0);
    CHECK_INT(beam_kv_put(&w, (beam_str){NULL, 0}, &value), -BEAM_EKV_DEPTH);
    free(doc);
}
