#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "kv/order.h"
#include "tests/support/test.h"

enum pattern { ASCENDING, DESCENDING, INTERLEAVED, ORGAN_PIPE, RANDOM, LAST_FIRST, PATTERNS };

static size_t place(enum pattern pattern, size_t i, size_t count, struct test_random *random)
{
    switch (pattern) {
    case ASCENDING:
        return i;
    case DESCENDING:
        return count - 1 - i;
    case INTERLEAVED:
        return i % 2 ? (count + 1) / 2 + i / 2 : i / 2;
    case ORGAN_PIPE:
        return i < (count + 1) / 2 ? 2 * i : 2 * (count - 1 - i) + 1;
    case LAST_FIRST:
        return (i + 1) % count;
    default:
        return test_random_below(random, i + 1); /* where to swap with, see below */
    }
}

/* A map of count entries, number i with key %06i and a value whose length depends on i; sorted by
 * the writer. Then every entry must be there, in order, unharmed. */
static void sort_case(enum pattern pattern, size_t count, size_t value_len_max,
                      struct test_random *random)
{
    size_t *order = calloc(count + 1, sizeof(*order));
    uint8_t *value = malloc(value_len_max + 1);
    size_t cap = 64 + count * (24 + value_len_max);
    uint8_t *buf = malloc(cap);
    for (size_t i = 0; i < count; i++) {
        order[i] = pattern == RANDOM ? i : place(pattern, i, count, random);
        if (pattern == RANDOM) {
            size_t k = place(pattern, i, count, random);
            order[i] = order[k];
            order[k] = i;
        }
    }

    beam_kv_writer w;
    const void *doc;
    char key[16];
    size_t len = 0;
    beam_kv_writer_init(&w, buf, cap);
    beam_kv_begin_map(&w, NULL);
    for (size_t i = 0; i < count; i++) {
        size_t n = order[i] * 7919 % (value_len_max + 1);
        memset(value, (int)(order[i] & 0xff), n);
        snprintf(key, sizeof(key), "%06zu", order[i]);
        beam_kv_put_bytes(&w, key, value, n);
    }
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    CHECK_INT(beam_kv_check(doc, len, NULL), 0);

    beam_kv_value map, got;
    beam_kv_iter iter;
    size_t wrong = 0;
    REQUIRE_INT(beam_kv_root(doc, len, &map), 0);
    beam_kv_iter_init(&iter, &map);
    for (size_t i = 0; i < count; i++) {
        size_t n = i * 7919 % (value_len_max + 1);
        beam_str got_key;
        memset(value, (int)(i & 0xff), n);
        snprintf(key, sizeof(key), "%06zu", i);
        wrong += beam_kv_iter_next(&iter, &got_key, &got) != 1 || got_key.len != 6 ||
                 memcmp(got_key.ptr, key, 6) != 0 || got.bytes.len != n ||
                 memcmp(got.bytes.ptr, value, n) != 0;
    }
    CHECK_INT(wrong, 0);
    free(order);
    free(value);
    free(buf);
}

TEST(sort_orders_every_pattern_and_loses_nothing)
{
    struct test_random random = test_random(0);
    for (int pattern = 0; pattern < PATTERNS; pattern++)
        for (size_t count = 0; count < 40; count++) {
            test_note("pattern %d, %zu entries", pattern, count);
            sort_case((enum pattern)pattern, count, 30, &random);
        }
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        test_note("pattern %d, many entries", pattern);
        sort_case((enum pattern)pattern, 3000, 0, &random);
        sort_case((enum pattern)pattern, 1001, 700, &random);
    }
}

/* Few and short entries are sorted through a room on the stack: up to its end in number and length, and
 * one beyond. */
TEST(sort_of_as_many_and_as_long_as_fit_the_stack)
{
    enum { COUNT = 32, LEN = 2048 };
    uint64_t entries[2 * LEN / 8];
    for (size_t count = COUNT - 2; count <= COUNT + 2; count++)
        for (size_t len = LEN - 16; len <= LEN + 16; len += 8) {
            test_note("%zu entries, %zu bytes", count, len);
            memset(entries, 0, sizeof(entries));
            uint64_t *at = entries;
            for (size_t i = 0; i < count; i++) {
                /* bytes, and a key of four; the last takes what is left */
                size_t value_len = i + 1 < count ? 40 : len - (count - 1) * 56 - 16;
                at[0] = value_len | UINT64_C(4) << 32 | (uint64_t)BEAM_KV_BYTES << 48;
                at[1] = i;
                at[1 + value_len / 8] = __builtin_bswap32((uint32_t)(count - i));
                at += 2 + value_len / 8;
            }
            REQUIRE_INT((uint8_t *)at - (uint8_t *)entries, len);
            CHECK_INT(bm_entries_sort((uint8_t *)entries, len), 0);

            beam_kv_value map = {.type = BEAM_KV_MAP, .bytes = {entries, len}}, value;
            beam_kv_iter iter;
            beam_kv_iter_init(&iter, &map);
            for (size_t i = 0; i < count; i++) {
                uint64_t was = 0;
                beam_str key = {NULL, 0};
                uint32_t number = 0;
                REQUIRE_INT(beam_kv_iter_next(&iter, &key, &value), 1);
                memcpy(&was, value.bytes.ptr, sizeof(was));
                memcpy(&number, key.ptr, sizeof(number));
                CHECK_INT(__builtin_bswap32(number), i + 1);
                CHECK_INT(was, count - 1 - i);
            }
        }
}

TEST(sort_of_equal_keys_says_so)
{
    struct test_random random = test_random(0);
    for (int round = 0; round < 200; round++) {
        /* twelve keys of three bytes; sometimes two are equal */
        uint64_t entries[24];
        bool twice = false;
        for (size_t i = 0; i < 12; i++) {
            uint64_t key = 0x202020 + test_random_below(&random, 100);
            for (size_t k = 0; k < i; k++)
                twice = twice || entries[2 * k + 1] == key;
            entries[2 * i] = (uint64_t)BEAM_KV_NIL << 48 | UINT64_C(3) << 32;
            entries[2 * i + 1] = key;
        }
        CHECK_INT(bm_entries_sort((uint8_t *)entries, sizeof(entries)), twice ? -EEXIST : 0);
        for (size_t i = 0; i + 1 < 12; i++)
            CHECK(memcmp(&entries[2 * i + 1], &entries[2 * i + 3], 3) <= 0);
    }
}

/* What lies in a value is a peer's: where a header is read out of one, it leads far away. */
static size_t fill_lure(char *value, size_t len)
{
    static const uint64_t lure[] = {1 | UINT64_C(1) << 16 | UINT64_C(7) << 48, 0xfffffff0};
    for (size_t i = 0; i + 8 <= len; i += 8)
        memcpy(value + i, &lure[i / 8 % 2], 8);
    return len;
}

static int sort_lured(const char *keys, const size_t *lens, uint8_t *buf, size_t cap,
                      bool *ret_valid)
{
    static char value[200000];
    beam_kv_writer w;
    const void *doc;
    size_t len, offset;
    fill_lure(value, sizeof(value));
    beam_kv_writer_init(&w, buf, cap);
    beam_kv_begin_map(&w, NULL);
    for (size_t i = 0; keys[i]; i++) {
        const char key[] = {keys[i], 0};
        beam_kv_put_bytes(&w, key, value, lens[i]);
    }
    beam_kv_end(&w);
    int r = beam_kv_writer_finish(&w, &doc, &len);
    *ret_valid = r == 0 && beam_kv_check(doc, len, &offset) == 0;
    return r;
}

/* Two keys that are equal, with values of very different lengths: whichever of them a merge through the room
 * takes first, no other entry is mistaken for the last, and the one that is there twice is seen. */
TEST(sort_of_equal_keys_of_unequal_lengths_says_so)
{
    enum { CAP = 9 * 200064, KEYS = 8 };
    static const size_t lengths[] = {0, 8, 600, 9000, 15000, 20000, 200000};
    struct test_random random = test_random(0);
    uint8_t *buf = malloc(CAP);
    bool valid;
    CHECK_INT(sort_lured("xzyzabcd", (size_t[]){8, 20000, 8, 8, 8, 8, 8, 8}, buf, CAP, &valid),
              -EEXIST);
    CHECK_INT(sort_lured("xzyzabcs", (size_t[]){8, 20000, 8, 8, 8, 8, 8, 200000}, buf, CAP, &valid),
              -EEXIST);
    for (int round = 0; round < 3000; round++) {
        char keys[KEYS + 1] = "";
        size_t lens[KEYS], alike = 0;
        for (size_t i = 0; i < KEYS; i++) {
            keys[i] = (char)('a' + test_random_below(&random, 12));
            lens[i] = lengths[test_random_below(&random, sizeof(lengths) / sizeof(*lengths))];
            for (size_t k = 0; k < i; k++)
                alike += keys[k] == keys[i];
        }
        test_note("round %d: %s", round, keys);
        CHECK_INT(sort_lured(keys, lens, buf, CAP, &valid), alike > 0 ? -EEXIST : 0);
        CHECK_INT(valid, alike == 0);
    }
    free(buf);
}
