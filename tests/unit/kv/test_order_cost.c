/* How much work a sort is, counted where it is done: comparisons, entries that are walked over, and words that
 * are exchanged. No clock has a say. */
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

static size_t work;
#define ORDER_COUNT(n) (work += (n))
#define bm_entries_sort counted_sort
#include "kv/order.c" /* as it is, with the counter in it */

#include "tests/support/test.h"

enum pattern {
    ASCENDING,
    DESCENDING,
    INTERLEAVED,
    RANDOM,
    LONG_AND_SHORT,
    SAME_BEGINNING,
    PATTERNS
};

/* Eight bytes whose order is that of the number. */
static void write_number(uint8_t *to, uint64_t number)
{
    uint64_t word = __builtin_bswap64(number);
    memcpy(to, &word, sizeof(word));
}

/* One entry of `pattern`, number i of count; its length. */
static size_t write_entry(uint8_t *to, enum pattern pattern, size_t i, size_t count,
                          struct test_random *random)
{
    size_t value_len = pattern == LONG_AND_SHORT && i % 64 == 0 ? 1024 : 0;
    size_t before = pattern == SAME_BEGINNING ? 8 : 0;
    uint64_t head = value_len | (uint64_t)(before + 8) << 32 |
                    (uint64_t)(value_len > 0 ? BEAM_KV_BYTES : BEAM_KV_NIL) << 48;
    memcpy(to, &head, sizeof(head));
    memset(to + 8, 'a', value_len + before);
    uint64_t number = pattern == ASCENDING     ? i
                      : pattern == DESCENDING  ? count - i
                      : pattern == INTERLEAVED ? i % 2 * count + i
                                               : test_random_next(random);
    write_number(to + 8 + value_len + before, number);
    return 8 + value_len + before + 8;
}

static size_t log2_of(size_t n)
{
    return 63 - (size_t)__builtin_clzll(n);
}

/* 4 n log2 n, or 8 where keys begin alike or long values are moved; merging in place alone would take 13 to
 * 26, and n^2 some thousand. */
TEST(sort_is_little_more_than_n_log_n_work)
{
    struct test_random random = test_random(0);
    static const size_t counts[] = {1000, 30000, 200000};
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
            size_t count = counts[c], len = 0;
            uint8_t *entries = malloc(count * 96);
            for (size_t i = 0; i < count; i++)
                len += write_entry(entries + len, (enum pattern)pattern, i, count, &random);
            work = 0;
            CHECK_INT(counted_sort(entries, len), 0);
            size_t factor = pattern == SAME_BEGINNING || pattern == LONG_AND_SHORT ? 8 : 4;
            test_note("pattern %d, %zu entries: %zu", pattern, count, work);
            CHECK(work >= count - 1); /* it was counted */
            CHECK(work <= factor * count * log2_of(count));
            free(entries);
        }
    }
}
