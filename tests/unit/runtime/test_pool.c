/* Size classes, what is kept, and that every byte is given back to whom it was charged. */
#include "runtime/pool.h"

#include <string.h>

#include "base/cleanup.h"
#include "tests/support/test.h"

static struct bm_account account;
static struct bm_pool pool;

static void open_pool(void)
{
    account = (struct bm_account){0};
    bm_pool_init(&pool, &account);
}

static void close_pool(void)
{
    bm_pool_deinit(&pool);
    CHECK_UINT(account.used, 0);
}

/* The class of a length as the header describes it: the smallest power of two from 128 on. */
static uint32_t cap_of(size_t len)
{
    uint32_t cap = BM_POOL_CLASS_MIN;
    while (cap < len)
        cap *= 2;
    return cap;
}

TEST(pool_block_holds_what_was_asked_for_and_has_the_size_of_its_class)
{
    open_pool();
    const uint32_t top = BM_POOL_CLASS_MIN << (BM_POOL_CLASSES - 1);
    CHECK_UINT(top, 65536);
    for (unsigned bits = 0; bits <= 16; bits++) {
        for (int delta = -1; delta <= 1; delta++) {
            size_t len = (size_t)((1 << bits) + delta);
            uint32_t cap = 0;
            if (len > top)
                continue;
            test_note("length %zu", len);
            void *block = bm_pool_get(&pool, len, &cap);
            REQUIRE(block != NULL);
            CHECK_UINT(cap, cap_of(len));
            CHECK_UINT((uintptr_t)block % 64, 0);
            CHECK_UINT(account.used, cap);
            memset(block, 0xa5, cap);
            bm_pool_put(&pool, block, cap);
            bm_pool_deinit(&pool);
            CHECK_UINT(account.used, 0);
        }
    }
    close_pool();
}

TEST(pool_gives_back_first_what_was_freed_last)
{
    uint32_t cap;
    open_pool();
    void *a = bm_pool_get(&pool, 300, &cap);
    void *b = bm_pool_get(&pool, 300, &cap);
    void *other = bm_pool_get(&pool, 100, &cap);
    bm_pool_put(&pool, other, 128);
    bm_pool_put(&pool, a, 512);
    bm_pool_put(&pool, b, 512);
    uint64_t allocs = account.allocs;
    CHECK_PTR(bm_pool_get(&pool, 512, &cap), b);
    CHECK_PTR(bm_pool_get(&pool, 257, &cap), a);
    CHECK_UINT(cap, 512);
    CHECK_UINT(account.allocs, allocs);
    void *c = bm_pool_get(&pool, 256, &cap); /* its class is empty: not a block of another's */
    CHECK_UINT(cap, 256);
    CHECK_UINT(account.allocs, allocs + 1);
    CHECK_UINT(account.used, 512 + 512 + 256 + 128);
    bm_pool_put(&pool, a, 512);
    bm_pool_put(&pool, b, 512);
    bm_pool_put(&pool, c, 256);
    close_pool();
}

TEST(pool_keeps_a_mebibyte_of_each_class_and_gives_the_rest_back)
{
    static void *blocks[BM_POOL_CLASS_KEPT / BM_POOL_CLASS_MIN + 8];
    for (unsigned i = 0; i < BM_POOL_CLASSES; i++) {
        uint32_t cap = BM_POOL_CLASS_MIN << i, got;
        unsigned kept = BM_POOL_CLASS_KEPT / cap, n = kept + 5;
        test_note("blocks of %u", cap);
        open_pool();
        for (unsigned k = 0; k < n; k++) {
            blocks[k] = bm_pool_get(&pool, cap, &got);
            REQUIRE(blocks[k] != NULL);
        }
        CHECK_UINT(account.used, (size_t)n * cap);
        for (unsigned k = 0; k < n; k++) {
            bm_pool_put(&pool, blocks[k], cap);
            CHECK_UINT(pool.classes[i].free_count, k < kept ? k + 1 : kept);
        }
        CHECK_UINT(account.used, BM_POOL_CLASS_KEPT);
        /* What is kept serves again, without the allocator. */
        uint64_t allocs = account.allocs;
        for (unsigned k = 0; k < kept; k++)
            blocks[k] = bm_pool_get(&pool, cap, &got);
        CHECK_UINT(account.allocs, allocs);
        CHECK_PTR(pool.classes[i].free, NULL);
        for (unsigned k = 0; k < kept; k++)
            bm_pool_put(&pool, blocks[k], cap);
        close_pool();
    }
}

TEST(pool_passes_what_is_beyond_its_classes_on_to_the_allocator)
{
    static const size_t lens[] = {65537, 100000, 1 << 20, (16 << 20) + 1};
    open_pool();
    for (size_t i = 0; i < BM_ARRAY_LEN(lens); i++) {
        uint32_t cap;
        test_note("length %zu", lens[i]);
        void *block = bm_pool_get(&pool, lens[i], &cap);
        REQUIRE(block != NULL);
        CHECK_UINT(cap, lens[i]);
        CHECK_UINT((uintptr_t)block % 64, 0);
        CHECK_UINT(account.used, lens[i]);
        bm_pool_put(&pool, block, cap);
        CHECK_UINT(account.used, 0);
    }
    for (unsigned i = 0; i < BM_POOL_CLASSES; i++)
        CHECK_UINT(pool.classes[i].free_count, 0);
    close_pool();
}

TEST(pool_refuses_a_length_that_no_block_can_say)
{
    uint32_t cap = 77;
    open_pool();
    CHECK_PTR(bm_pool_get(&pool, (size_t)UINT32_MAX + 1, &cap), NULL);
    CHECK_PTR(bm_pool_get(&pool, SIZE_MAX, &cap), NULL);
    CHECK_PTR(bm_pool_get(NULL, SIZE_MAX, &cap), NULL);
    CHECK_UINT(cap, 77);
    close_pool();
}

TEST(pool_of_nobody_goes_to_the_allocator_and_keeps_nothing)
{
    struct bm_alloc_totals before = bm_alloc_totals();
    uint32_t cap;
    void *small = bm_pool_get(NULL, 1, &cap);
    CHECK_UINT(cap, BM_POOL_CLASS_MIN); /* as from a pool, so that one may take it later */
    void *large = bm_pool_get(NULL, 70000, &cap);
    CHECK_UINT(cap, 70000);
    CHECK_UINT(bm_alloc_totals().live_bytes, before.live_bytes + 128 + 70000);
    bm_pool_put(NULL, small, 128);
    bm_pool_put(NULL, large, 70000);
    bm_pool_put(NULL, NULL, 128);
    CHECK_UINT(bm_alloc_totals().live_bytes, before.live_bytes);
    CHECK_UINT(bm_alloc_totals().live_blocks, before.live_blocks);
}

TEST(pool_takes_the_block_of_nobody)
{
    /* As messages travel: made without a pool, freed into one, and the other way round. */
    uint32_t cap;
    bm_pool_init(&pool, NULL);
    void *block = bm_pool_get(NULL, 1000, &cap);
    bm_pool_put(&pool, block, cap);
    CHECK_UINT(pool.classes[3].free_count, 1);
    CHECK_PTR(bm_pool_get(&pool, 1024, &cap), block);
    bm_pool_put(NULL, block, cap);
    CHECK_UINT(pool.classes[3].free_count, 0);
    bm_pool_put(&pool, NULL, 0);
    bm_pool_deinit(&pool);
}

TEST(pool_without_memory_says_no_and_stays_as_it_was)
{
    uint32_t cap = 77;
    open_pool();
    account.limit = 1024;
    void *a = bm_pool_get(&pool, 600, &cap);
    REQUIRE(a != NULL);
    cap = 77;
    CHECK_PTR(bm_pool_get(&pool, 1, &cap), NULL);
    CHECK_PTR(bm_pool_get(&pool, 100000, &cap), NULL);
    CHECK_UINT(cap, 77);
    CHECK_UINT(account.used, 1024);
    bm_pool_put(&pool, a, 1024);
    CHECK_PTR(bm_pool_get(&pool, 1024, &cap), a); /* what is kept needs no leave */
    bm_pool_put(&pool, a, 1024);
    close_pool();
}

TEST(pool_serves_random_lengths_in_any_order_and_loses_nothing)
{
    enum { MANY = 256 };
    static struct {
        uint8_t *block;
        uint32_t cap;
        uint8_t mark;
    } held[MANY];
    struct test_random random = test_random(0);
    size_t held_bytes = 0;
    open_pool();
    memset(held, 0, sizeof(held));
    for (int round = 0; round < 20000; round++) {
        size_t i = test_random_below(&random, MANY);
        if (held[i].block) {
            /* Nobody else wrote into it. */
            CHECK_UINT(held[i].block[0], held[i].mark);
            CHECK_UINT(held[i].block[held[i].cap - 1], held[i].mark);
            bm_pool_put(&pool, held[i].block, held[i].cap);
            held_bytes -= held[i].cap;
            held[i].block = NULL;
            continue;
        }
        size_t len = test_random_below(&random, (uint64_t)1 << test_random_below(&random, 18));
        held[i].block = bm_pool_get(&pool, len, &held[i].cap);
        REQUIRE(held[i].block != NULL);
        CHECK(held[i].cap >= len);
        held[i].mark = (uint8_t)round;
        memset(held[i].block, held[i].mark, held[i].cap);
        held_bytes += held[i].cap;
    }
    size_t kept = 0;
    for (unsigned i = 0; i < BM_POOL_CLASSES; i++) {
        size_t bytes = (size_t)pool.classes[i].free_count * (BM_POOL_CLASS_MIN << i);
        CHECK(bytes <= BM_POOL_CLASS_KEPT);
        kept += bytes;
    }
    CHECK_UINT(account.used, held_bytes + kept);
    for (size_t i = 0; i < MANY; i++)
        bm_pool_put(&pool, held[i].block, held[i].cap);
    close_pool();
}
