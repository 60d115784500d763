/* Pending commits by revision: found at once, wherever the ring begins and however it has grown. */
#include "runtime/commit_index.h"

#include <errno.h>

#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

/* Commits are never looked into. */
static char some[5000];

static struct bm_commit *commit_of(uint64_t rev)
{
    return (struct bm_commit *)(void *)&some[rev % sizeof(some)];
}

static void push(struct bm_commit_index *index, uint64_t rev)
{
    REQUIRE_INT(bm_commit_index_reserve(index), 0);
    bm_commit_index_push(index, commit_of(rev));
}

TEST(commit_index_finds_what_is_pending_and_nothing_else)
{
    struct bm_account account = {0};
    struct bm_commit_index index;
    uint64_t told = 40, rev = 40;
    unsigned wrong = 0;
    bm_commit_index_init(&index, &account, told);
    CHECK_PTR(bm_commit_index_find(&index, 41), NULL);
    CHECK_PTR(bm_commit_index_find(&index, 0), NULL);
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 40 + round; i++)
            push(&index, ++rev);
        for (unsigned i = 0; i < 30; i++, told++)
            bm_commit_index_pop(&index);
        wrong += bm_commit_index_find(&index, told) != NULL;
        wrong += bm_commit_index_find(&index, rev + 1) != NULL;
        for (uint64_t r = told + 1; r <= rev; r++)
            wrong += bm_commit_index_find(&index, r) != commit_of(r);
    }
    CHECK_UINT(wrong, 0);
    CHECK_UINT(index.count, rev - told);
    bm_commit_index_clear(&index);
    CHECK_PTR(bm_commit_index_find(&index, told + 1), NULL);
    push(&index, told + 1);
    CHECK_PTR(bm_commit_index_find(&index, told + 1), commit_of(told + 1));
    bm_commit_index_deinit(&index);
    CHECK_UINT(account.used, 0);
}

TEST(commit_index_without_memory_is_as_it_was)
{
    struct bm_commit_index index;
    uint64_t rev = 0;
    bm_commit_index_init(&index, NULL, 0);
    push(&index, ++rev);
    while (index.count < index.cap)
        push(&index, ++rev);
    scarce_begin(0);
    int r = bm_commit_index_reserve(&index);
    scarce_end();
    CHECK_INT(r, -ENOMEM);
    CHECK_PTR(bm_commit_index_find(&index, rev), commit_of(rev));
    push(&index, ++rev);
    CHECK_PTR(bm_commit_index_find(&index, 1), commit_of(1));
    CHECK_PTR(bm_commit_index_find(&index, rev), commit_of(rev));
    bm_commit_index_deinit(&index);
}
