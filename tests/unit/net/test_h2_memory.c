#include "net/proto/h2_memory.h"

#include <string.h>

#include "base/cleanup.h"
#include "tests/support/test.h"

static struct bm_account account;
static struct bm_h2_memory memory;

static void begin(void)
{
    memset(&account, 0, sizeof(account));
    bm_h2_memory_init(&memory, &account);
}

TEST(h2_memory_is_as_long_as_asked_for)
{
    static const size_t lens[] = {0, 1, 16, 32, 33, 95, 96, 97, 991, 992, 993, 100000};
    begin();
    for (size_t i = 0; i < BM_ARRAY_LEN(lens); i++) {
        uint8_t *bytes = bm_h2_memory_calloc(1, lens[i], &memory);
        REQUIRE(bytes);
        CHECK_UINT((uintptr_t)bytes % 16, 0);
        for (size_t k = 0; k < lens[i]; k++)
            CHECK_UINT(bytes[k], 0);
        memset(bytes, 0xaa, lens[i]);
        bytes = bm_h2_memory_realloc(bytes, lens[i] + 500, &memory);
        REQUIRE(bytes);
        for (size_t k = 0; k < lens[i]; k++)
            CHECK_UINT(bytes[k], 0xaa);
        memset(bytes, 0xbb, lens[i] + 500);
        bm_h2_memory_free(bytes, &memory);
    }
    bm_h2_memory_free(NULL, &memory);
    bm_h2_memory_free_all(&memory);
    CHECK_UINT(account.used, 0);
}

TEST(h2_memory_keeps_small_blocks_for_the_next)
{
    void *first, *second;
    begin();
    first = bm_h2_memory_alloc(100, &memory);
    bm_h2_memory_free(first, &memory);
    uint64_t allocs = account.allocs;
    second = bm_h2_memory_alloc(150, &memory); /* of the same class */
    CHECK_PTR(second, first);
    CHECK_UINT(account.allocs, allocs);
    bm_h2_memory_free(second, &memory);
    CHECK(account.used > 0);
    bm_h2_memory_trim(&memory);
    CHECK_UINT(account.used, 0);
}

TEST(h2_memory_keeps_no_more_than_its_limit)
{
    static void *blocks[1000];
    begin();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BM_ARRAY_LEN(blocks); i++)
            REQUIRE(blocks[i] = bm_h2_memory_alloc(480, &memory));
        CHECK_UINT(account.used, BM_ARRAY_LEN(blocks) * 512);
        for (unsigned i = 0; i < BM_ARRAY_LEN(blocks); i++)
            bm_h2_memory_free(blocks[i], &memory);
        CHECK_UINT(account.used, BM_H2_SPARE_MAX);
    }
    void *large = bm_h2_memory_alloc(100000, &memory);
    bm_h2_memory_free(large, &memory);
    CHECK_UINT(account.used, BM_H2_SPARE_MAX);
    REQUIRE(bm_h2_memory_alloc(100, &memory)); /* and what is left in use */
    bm_h2_memory_free_all(&memory);
    CHECK_UINT(account.used, 0);
}

TEST(h2_memory_that_was_refused_says_so)
{
    begin();
    uint8_t *bytes = bm_h2_memory_alloc(1000, &memory);
    REQUIRE(bytes);
    bytes[999] = 7;
    account.limit = account.used;
    CHECK(!memory.refused);
    CHECK_PTR(bm_h2_memory_realloc(bytes, 2000, &memory), NULL);
    CHECK(memory.refused);
    CHECK_UINT(bytes[999], 7); /* as it was */
    memory.refused = false;
    CHECK_PTR(bm_h2_memory_alloc(1, &memory), NULL);
    CHECK(memory.refused);
    memory.refused = false;
    CHECK_PTR(bm_h2_memory_calloc(SIZE_MAX / 2, 4, &memory), NULL);
    CHECK_PTR(bm_h2_memory_alloc(SIZE_MAX, &memory), NULL);
    CHECK(memory.refused);
    bm_h2_memory_free(bytes, &memory);
    bm_h2_memory_free_all(&memory);
    CHECK_UINT(account.used, 0);
}
