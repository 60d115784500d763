/* Who pays for a library that is told nothing but sizes (net/proto/payer.h), and the buffer behind it. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "net/proto/payer.h"
#include "tests/support/test.h"

TEST(payer_pays_for_what_is_allocated_under_it)
{
    struct bm_account parent = {0}, a = {.parent = &parent}, b = {.limit = 1000};
    struct bm_payer *first = bm_payer_new(&a), *second = bm_payer_new(&b);
    REQUIRE(first != NULL && second != NULL);
    struct bm_payer *outer = bm_payer_enter(first);
    CHECK_PTR(outer, NULL);
    char *block = (char *)bm_payer_malloc(100);
    REQUIRE(block != NULL);
    CHECK_UINT((uintptr_t)block % 16, 0);
    CHECK_UINT(a.used, 116);
    CHECK_UINT(parent.used, 116);

    /* Another one meanwhile: what is freed goes back to who paid. */
    struct bm_payer *between = bm_payer_enter(second);
    CHECK_PTR(between, first);
    memcpy(block, "content", 8);
    char *moved = (char *)bm_payer_realloc(block, 200);
    REQUIRE(moved != NULL);
    CHECK_STR(moved, "content");
    CHECK_UINT(a.used, 0);
    CHECK_UINT(b.used, 216);
    CHECK_PTR(bm_payer_malloc(1000), NULL);
    CHECK(bm_payer_refused(second));
    CHECK(!bm_payer_refused(second));
    CHECK_PTR(bm_payer_realloc(moved, 2000), NULL);
    CHECK_STR(moved, "content");
    CHECK_PTR(bm_payer_malloc(SIZE_MAX), NULL);
    bm_payer_leave(between);
    bm_payer_release(moved);
    bm_payer_release(NULL);
    CHECK_UINT(b.used, 0);
    bm_payer_leave(outer);
    CHECK_PTR(bm_payer_free(first), NULL);
    CHECK_PTR(bm_payer_free(second), NULL);
    CHECK_PTR(bm_payer_free(NULL), NULL);
}

static void *release(void *block)
{
    bm_payer_release(block);
    return NULL;
}

TEST(payer_may_end_before_its_blocks)
{
    struct bm_account parent = {0}, account = {.parent = &parent};
    struct bm_payer *payer = bm_payer_new(&account);
    REQUIRE(payer != NULL);
    struct bm_payer *outer = bm_payer_enter(payer);
    void *kept = bm_payer_malloc(50), *other = bm_payer_malloc(60);
    bm_payer_leave(outer);
    REQUIRE(kept != NULL && other != NULL);
    bm_payer_free(payer);
    CHECK_UINT(account.used, 0);
    CHECK_UINT(parent.used, 0);
    bm_payer_release(kept);
    pthread_t thread;
    REQUIRE_INT(pthread_create(&thread, NULL, release, other), 0);
    pthread_join(thread, NULL);
    CHECK_UINT(account.used, 0);
}

TEST(payer_is_of_its_thread)
{
    void *block = bm_payer_malloc(10); /* nobody pays */
    REQUIRE(block != NULL);
    bm_payer_release(block);
}
