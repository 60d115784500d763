/* The allocator table and its accounts. */
#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"

TEST(alloc_aligns_to_a_cache_line_from_64_bytes_on)
{
    static const size_t lens[] = {0, 1, 15, 16, 63, 64, 65, 100, 4096, 100000};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        test_note("length %zu", lens[i]);
        void *p = bm_alloc(NULL, lens[i]);
        REQUIRE(p != NULL);
        CHECK_UINT((uintptr_t)p % (lens[i] >= 64 ? 64 : 16), 0);
        memset(p, 0xa5, lens[i]);
        CHECK_PTR(bm_free(NULL, p, lens[i]), NULL);
    }
}

TEST(alloc_of_nothing_is_a_block_and_free_of_null_is_nothing)
{
    struct bm_account account = {0};
    size_t blocks = bm_alloc_totals().live_blocks;
    void *p = bm_alloc(&account, 0);
    CHECK(p != NULL);
    CHECK_UINT(bm_alloc_totals().live_blocks, blocks + 1);
    CHECK_PTR(bm_free(&account, p, 0), NULL);
    CHECK_PTR(bm_free(&account, NULL, 100), NULL);
    CHECK_UINT(bm_alloc_totals().live_blocks, blocks);
    CHECK_UINT(account.used, 0);
}

TEST(alloc_zero_is_zero)
{
    unsigned char *p = bm_alloc(NULL, 300);
    memset(p, 0xff, 300);
    bm_free(NULL, p, 300);
    p = bm_alloc_zero(NULL, 300);
    for (int i = 0; i < 300; i++)
        CHECK_INT(p[i], 0);
    bm_free(NULL, p, 300);
}

TEST(realloc_keeps_the_bytes_the_alignment_and_the_account)
{
    static const size_t lens[] = {1, 40, 63, 64, 200, 5000, 64, 63, 100, 8, 0, 70};
    struct bm_account account = {0};
    size_t old_len = 0;
    unsigned char *p = bm_realloc(&account, NULL, 0, 0);
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        size_t len = lens[i], kept = old_len < len ? old_len : len;
        test_note("%zu to %zu", old_len, len);
        p = bm_realloc(&account, p, old_len, len);
        REQUIRE(p != NULL);
        CHECK_UINT((uintptr_t)p % (len >= 64 ? 64 : 16), 0);
        for (size_t k = 0; k < kept; k++)
            if (p[k] != (unsigned char)k)
                CHECK_UINT(p[k], (unsigned char)k);
        for (size_t k = 0; k < len; k++)
            p[k] = (unsigned char)k;
        CHECK_UINT(account.used, len ? len : 1);
        old_len = len;
    }
    bm_free(&account, p, old_len);
    CHECK_UINT(account.used, 0);
    CHECK_UINT(account.peak, 5000);
}

TEST(account_charges_its_parents_and_their_limits_count)
{
    struct bm_account reactor = {.limit = 1000};
    struct bm_account a = {.parent = &reactor}, b = {.parent = &reactor, .limit = 300};
    void *p = bm_alloc(&a, 600);
    CHECK(p != NULL);
    CHECK_PTR(bm_alloc(&b, 301), NULL); /* its own limit */
    void *q = bm_alloc(&b, 300);
    CHECK(q != NULL);
    CHECK_PTR(bm_alloc(&b, 1), NULL);
    CHECK_PTR(bm_alloc(&a, 101), NULL); /* the parent's */
    CHECK_UINT(reactor.used, 900);
    CHECK_UINT(reactor.allocs, 2);
    CHECK_PTR(bm_realloc(&a, p, 600, 701), NULL); /* and the old block is still there */
    p = bm_realloc(&a, p, 600, 700);
    CHECK(p != NULL);
    CHECK_UINT(reactor.used, 1000);
    CHECK_UINT(reactor.peak, 1000);
    bm_free(&a, p, 700);
    bm_free(&b, q, 300);
    CHECK_UINT(reactor.used, 0);
    CHECK_UINT(a.used, 0);
    CHECK_UINT(b.used, 0);
}

TEST(account_limit_is_not_fooled_by_huge_lengths)
{
    struct bm_account account = {.limit = 1000};
    void *p = bm_alloc(&account, 999);
    CHECK_PTR(bm_alloc(&account, SIZE_MAX), NULL);
    CHECK_PTR(bm_alloc(&account, SIZE_MAX - 998), NULL);
    CHECK_PTR(bm_realloc(&account, p, 999, SIZE_MAX), NULL);
    CHECK_UINT(account.used, 999);
    bm_free(&account, p, 999);
}

static void *refuse(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)old_len;
    if (new_len == 0) {
        free(ptr);
        return NULL;
    }
    if (--*(int *)arg < 0)
        return NULL;
    return realloc(ptr, new_len);
}

TEST(alloc_that_fails_charges_nothing)
{
    int left = 1;
    const struct bm_allocator table = {.realloc = refuse, .arg = &left};
    struct bm_account account = {0};
    bm_alloc_set(&table);
    uint64_t allocs = bm_alloc_totals().allocs;
    void *p = bm_alloc(&account, 10);
    CHECK(p != NULL);
    CHECK_PTR(bm_alloc(&account, 20), NULL);
    CHECK_PTR(bm_alloc_zero(&account, 20), NULL);
    CHECK_PTR(bm_realloc(&account, p, 10, 20), NULL);
    CHECK_UINT(account.used, 10);
    CHECK_UINT(account.allocs, 1);
    CHECK_UINT(bm_alloc_totals().allocs, allocs + 1);
    bm_free(&account, p, 10);
    bm_alloc_set(NULL);
    CHECK_UINT(bm_alloc_totals().live_blocks, 0);
}

static void *allocate_some(void *arg)
{
    uint64_t before = bm_alloc_count_thread();
    (void)arg;
    for (int i = 0; i < 1000; i++)
        bm_free(NULL, bm_alloc(NULL, 8), 8);
    CHECK_UINT(before, 0);
    CHECK_UINT(bm_alloc_count_thread(), 1000);
    return NULL;
}

TEST(alloc_counts_per_thread_and_in_total)
{
    pthread_t threads[3];
    uint64_t total = bm_alloc_totals().allocs, own = bm_alloc_count_thread();
    for (int i = 0; i < 3; i++)
        REQUIRE_INT(pthread_create(&threads[i], NULL, allocate_some, NULL), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK_UINT(bm_alloc_totals().allocs, total + 3000);
    CHECK_UINT(bm_alloc_count_thread(), own);
}

TEST(account_is_charged_for_what_others_allocate)
{
    struct bm_account parent = {.limit = 100}, child = {.parent = &parent};
    uint64_t blocks = bm_alloc_totals().live_blocks;
    CHECK_INT(bm_account_charge(&child, 60), 0);
    CHECK_UINT(child.used, 60);
    CHECK_UINT(parent.used, 60);
    CHECK_INT(bm_account_charge(&child, 41), -ENOMEM);
    CHECK_UINT(child.used, 60);
    CHECK_PTR(bm_alloc(&child, 41), NULL);
    CHECK_UINT(bm_alloc_totals().live_blocks, blocks);
    bm_account_refund(&child, 60);
    CHECK_UINT(child.used, 0);
    CHECK_UINT(parent.used, 0);
    CHECK_INT(bm_account_charge(NULL, 60), 0); /* nobody pays */
    bm_account_refund(NULL, 60);
}
