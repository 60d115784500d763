#include "net/proto/h2_guard.h"
#include "tests/unit/net/h2_ends.h"

static struct bm_h2_guard guard;
static struct raw raw;

#define NOW BM_NS_PER_S

static void begin(void)
{
    bm_h2_guard_init(&guard, true);
    raw.len = 0;
    raw_greet(&raw);
}

/* The code for what is in raw, which is told apart in all ways there are: whole, and byte by
 * byte. */
static uint32_t judge(void)
{
    struct bm_h2_guard copy = guard;
    size_t fine, at = 0;
    uint32_t code = bm_h2_guard_read(&guard, raw.bytes, raw.len, NOW, &fine), same = 0;
    CHECK(code != 0 ? fine < raw.len : fine == raw.len);
    for (; at < raw.len && same == 0; at++) {
        size_t one;
        same = bm_h2_guard_read(&copy, raw.bytes + at, 1, NOW, &one);
    }
    CHECK_UINT(same, code);
    CHECK(code == 0 || at > fine);
    raw.len = 0;
    return code;
}

TEST(guard_knows_every_gap_between_ids)
{
    static const struct {
        uint32_t id, code;
    } rows[] = {{1, 1}, {3, 1}, {5, 0}, {7, 1}, {9, 0}, {11, 1}, {13, 1}, {15, 1}, {17, 0}};
    for (unsigned i = 0; i < BM_ARRAY_LEN(rows); i++) {
        test_note("id %u", rows[i].id);
        begin();
        raw_post(&raw, 5);
        raw_post(&raw, 9);
        raw_post(&raw, 17);
        raw_frame(&raw, F_HEADERS, F_END_HEADERS, rows[i].id, BLOCK_GET, 3);
        CHECK_UINT(judge(), rows[i].code);
    }
}

TEST(guard_remembers_the_latest_gaps)
{
    begin();
    for (unsigned i = 1; i <= BM_H2_GAPS_MAX + 1; i++)
        raw_post(&raw, 4 * i + 1);
    CHECK_UINT(judge(), 0);
    raw_post(&raw, 4 * 1 - 1); /* before 5: forgotten */
    CHECK_UINT(judge(), 0);
    raw_post(&raw, 4 * 2 - 1);
    CHECK_UINT(judge(), BM_H2_PROTOCOL_ERROR);
}

TEST(guard_counts_continuations_of_each_block)
{
    begin();
    for (unsigned id = 1; id < 9; id += 2) {
        raw_frame(&raw, F_HEADERS, 0, id, BLOCK_GET, 3);
        for (unsigned i = 1; i <= BM_H2_CONTINUATIONS_MAX; i++)
            raw_frame(&raw, F_CONTINUATION, i == BM_H2_CONTINUATIONS_MAX ? F_END_HEADERS : 0, id,
                      BLOCK_GET, 1);
    }
    CHECK_UINT(judge(), 0);
    CHECK_UINT(guard.block_since_ns, UINT64_MAX);
    raw_frame(&raw, F_HEADERS, 0, 9, BLOCK_GET, 3);
    CHECK_UINT(judge(), 0);
    CHECK_UINT(guard.block_since_ns, NOW);
}

TEST(guard_lets_ends_without_data_pass)
{
    begin();
    for (unsigned i = 0; i < 300; i++) {
        raw_post(&raw, 2 * i + 1);
        raw_frame(&raw, F_DATA, i % 2 ? F_END_STREAM : F_END_STREAM | F_PADDED, 2 * i + 1, "\1\0",
                  i % 2 ? 0 : 2);
    }
    CHECK_UINT(judge(), 0);
    /* Padding around data is no emptiness, whatever it is. */
    raw_post(&raw, 601);
    for (unsigned i = 0; i < 300; i++)
        raw_frame(&raw, F_DATA, F_PADDED, 601, "\1x\0", 3);
    CHECK_UINT(judge(), 0);
    for (unsigned i = 0; i < 100; i++)
        raw_frame(&raw, F_DATA, F_PADDED, 601, "\2\0\0", 3);
    CHECK_UINT(judge(), 0);
    raw_frame(&raw, F_DATA, F_PADDED, 601, "\0", 1);
    CHECK_UINT(judge(), BM_H2_ENHANCE_YOUR_CALM);
}

TEST(guard_ignores_the_reserved_bit_of_ids)
{
    begin();
    raw_post(&raw, 3);
    raw_post(&raw, 0x80000001);
    CHECK_UINT(judge(), BM_H2_PROTOCOL_ERROR);
}

TEST(guard_of_a_client_expects_no_preface)
{
    bm_h2_guard_init(&guard, false);
    raw.len = 0;
    raw_frame(&raw, F_SETTINGS, 0, 0, "\0\4\0\0\0\1", 6);
    CHECK(!guard.greeted);
    CHECK_UINT(judge(), 0);
    CHECK(guard.greeted);
    raw_frame(&raw, F_HEADERS, F_END_HEADERS, 2005, "\x88", 1); /* answers come in any order */
    raw_frame(&raw, F_HEADERS, F_END_HEADERS, 2003, "\x88", 1);
    CHECK_UINT(judge(), 0);
    raw_frame(&raw, F_DATA, F_END_STREAM, 2005, "x", 1);
    raw_frame(&raw, F_DATA, F_END_STREAM, 2005, "x", 1);
    CHECK_UINT(judge(), 0);
    for (unsigned i = 0; i < 500; i++)
        raw_u32(&raw, F_RST_STREAM, 2 * i + 1, 7);
    CHECK_UINT(judge(), 0);
}
