#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <beam/kv.h>

#include "tests/support/documents.h"
#include "tests/support/test.h"

#define ROOM (64u << 10)

static int check_at(const void *doc, size_t len, size_t *offset)
{
    *offset = 9999;
    return beam_kv_check(doc, len, offset);
}

TEST(check_names_the_entry_that_breaks_a_rule)
{
    /* {"cmd":"open","fd":7,"ok":true}: entries at 0, 8, 24 and 48 */
    uint8_t doc[64];
    size_t len, offset;
    const void *start;
    beam_kv_writer w;
    beam_kv_writer_init(&w, doc, sizeof(doc));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "cmd", "open");
    beam_kv_put_int(&w, "fd", 7);
    beam_kv_put_bool(&w, "ok", true);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &start, &len), 0);
    REQUIRE_INT(len, 64);

    static const struct {
        size_t at, entry;
        uint8_t value;
        int error;
    } rows[] = {
        {0, 0, 0x40, -BEAM_EKV_TRUNCATED},
        {6, 0, 11, -BEAM_EKV_TYPE},
        {7, 0, 1, -BEAM_EKV_AUX},
        {15, 8, 1, -BEAM_EKV_AUX},
        {16, 8, 0xff, -BEAM_EKV_UTF8},
        {23, 8, 1, -BEAM_EKV_PADDING},
        {24, 24, 9, -BEAM_EKV_LENGTH},
        {40, 24, 'a', -BEAM_EKV_ORDER},
        {56, 48, 'f', 0},
        {63, 48, 0x80, -BEAM_EKV_PADDING},
        {56, 48, 'a', -BEAM_EKV_ORDER},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        uint8_t was = doc[rows[i].at];
        doc[rows[i].at] = rows[i].value;
        int r = check_at(doc, sizeof(doc), &offset);
        CHECK_INT(r, rows[i].error);
        CHECK_INT(offset, rows[i].error ? rows[i].entry : 9999);
        doc[rows[i].at] = was;
    }
}

TEST(check_names_the_first_byte_behind_a_document)
{
    uint8_t nil[16] = {0, 0, 0, 0, 0, 0, BEAM_KV_NIL};
    size_t offset;
    CHECK_INT(check_at(nil, 8, &offset), 0);
    CHECK_INT(check_at(nil, 9, &offset), -BEAM_EKV_TRAILING);
    CHECK_INT(offset, 8);
    CHECK_INT(check_at(nil, 16, &offset), -BEAM_EKV_TRAILING);
}

TEST(check_of_nothing_is_truncated)
{
    size_t offset;
    CHECK_INT(check_at(NULL, 0, &offset), -BEAM_EKV_TRUNCATED);
    CHECK_INT(offset, 0);
    CHECK_INT(beam_kv_check("", 0, NULL), -BEAM_EKV_TRUNCATED);
}

TEST(check_survives_any_depth)
{
    /* 8000 lists inside each other */
    static uint64_t doc[8000];
    size_t count = sizeof(doc) / sizeof(doc[0]), offset;
    for (size_t i = 0; i < count; i++)
        doc[i] = (count - 1 - i) * 8 | (uint64_t)BEAM_KV_LIST << 48;
    CHECK_INT(check_at(doc, sizeof(doc), &offset), -BEAM_EKV_DEPTH);
    CHECK_INT(offset, 32 * 8);
    CHECK_INT(check_at(doc + count - 32, 32 * 8, &offset), 0);
    CHECK_INT(check_at(doc + count - 33, 33 * 8, &offset), -BEAM_EKV_DEPTH);
}

TEST(check_knows_the_largest_document_and_refuses_one_more)
{
    /* untouched pages cost nothing, and the inside of bytes is never read */
    size_t room = BEAM_KV_LEN_MAX + 8, offset;
    uint64_t *doc = mmap(NULL, room, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(doc != MAP_FAILED);
    *doc = (BEAM_KV_LEN_MAX - 8) | (uint64_t)BEAM_KV_BYTES << 48;
    CHECK_INT(check_at(doc, room - 8, &offset), 0);
    CHECK_INT(check_at(doc, room, &offset), -BEAM_EKV_TRAILING);
    CHECK_INT(check_at(doc, room - 16, &offset), -BEAM_EKV_TRUNCATED);
    *doc = BEAM_KV_LEN_MAX | (uint64_t)BEAM_KV_BYTES << 48;
    CHECK_INT(check_at(doc, room, &offset), -BEAM_EKV_TOO_LARGE);
    munmap(doc, room);
}

/* Walks everything that can be reached, trusting nothing; returns the number of values. */
static size_t walk(const beam_kv_value *value, int depth)
{
    size_t count = 1;
    beam_kv_iter iter;
    beam_kv_value inner;
    beam_str key;
    uint64_t sum = 0;

    if (value->type == BEAM_KV_STR || value->type >= BEAM_KV_BYTES)
        for (size_t i = 0; i < value->bytes.len; i++)
            sum += ((const uint8_t *)value->bytes.ptr)[i];
    beam_kv_iter_init(&iter, value);
    while (depth < 40 && beam_kv_iter_next(&iter, &key, &inner) > 0) {
        for (size_t i = 0; i < key.len; i++)
            sum += (uint8_t)key.ptr[i];
        count += walk(&inner, depth + 1);
    }
    if (value->type == BEAM_KV_MAP)
        sum += (uint64_t)beam_kv_find(value, (beam_str){"a#1", 3}, &inner);
    __asm__ volatile("" : : "r"(sum));
    return count;
}

TEST(check_lets_pass_only_what_is_written_the_same_way)
{
    struct test_random random = test_random(0);
    uint8_t *buf = malloc(ROOM), *again = malloc(ROOM);
    size_t refused = 0, passed = 0;
    for (int round = 0; round < 60; round++) {
        size_t len = document_random(&random, 12, buf, ROOM), again_len = 0;
        uint8_t *doc = malloc(len);
        memcpy(doc, buf, len);
        for (size_t i = 0; i < len; i++) {
            uint8_t was = doc[i];
            uint8_t flips[] = {1, 0x80, (uint8_t)(1 + test_random_below(&random, 255))};
            for (size_t k = 0; k < sizeof(flips); k++) {
                doc[i] = was ^ flips[k];
                beam_kv_value root;
                if (beam_kv_check(doc, len, NULL) < 0) {
                    refused++;
                    /* what was refused must still be safe to read */
                    if (beam_kv_root(doc, len, &root) == 0)
                        walk(&root, 0);
                    continue;
                }
                passed++;
                CHECK_INT(document_rewrite(doc, len, again, ROOM, DOCUMENT_ODD_FIRST, &again_len),
                          0);
                CHECK_MEM(again, again_len, doc, len);
            }
            doc[i] = was;
        }
        CHECK_INT(beam_kv_check(doc, len, NULL), 0);
        free(doc);
    }
    CHECK(refused > 1000);
    CHECK(passed > 1000);
    free(buf);
    free(again);
}

TEST(check_refuses_every_prefix)
{
    struct test_random random = test_random(0);
    uint8_t *buf = malloc(ROOM);
    for (int round = 0; round < 20; round++) {
        size_t len = document_random(&random, 20, buf, ROOM);
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *doc = malloc(cut + 1); /* the sanitizer guards all but one byte */
            memcpy(doc + 1, buf, cut);
            CHECK_INT(beam_kv_check(doc + 1, cut, NULL), -BEAM_EKV_TRUNCATED);
            free(doc);
        }
    }
    free(buf);
}

TEST(reading_noise_stays_inside_and_ends)
{
    struct test_random random = test_random(0);
    for (int round = 0; round < 20000; round++) {
        size_t len = 8 + 8 * test_random_below(&random, 12);
        uint8_t *noise = malloc(len);
        test_random_fill(&random, noise, len);
        for (size_t i = 0; i < len; i += 8) { /* small lengths and real types reach further */
            noise[i] &= 0x3f;
            noise[i + 1] = noise[i + 2] = noise[i + 3] = 0;
            noise[i + 4] &= 7;
            noise[i + 5] = noise[i + 7] = 0;
            noise[i + 6] = (uint8_t)(1 + noise[i + 6] % 10);
        }
        beam_kv_value root;
        if (beam_kv_root(noise, len, &root) == 0)
            CHECK(walk(&root, 0) <= len / 8);
        beam_kv_check(noise, len, NULL);
        free(noise);
    }
}
