/* See commit_index.h. As the history of a store has it (store_history.c); growing moves each to its place. */
#include "runtime/commit_index.h"

#include <errno.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/assert.h"

#define CAP_MIN 64u
#define CAP_MAX (1u << 26) /* ours: 512 MiB of pointers; far beyond any limit of what is pending */

void bm_commit_index_init(struct bm_commit_index *index, struct bm_account *account, uint64_t rev)
{
    *index = (struct bm_commit_index){.account = account, .first = rev + 1};
}

void bm_commit_index_deinit(struct bm_commit_index *index)
{
    bm_free(index->account, index->ring, index->cap * sizeof(index->ring[0]));
    index->ring = NULL;
    index->cap = index->count = 0;
}

int bm_commit_index_reserve(struct bm_commit_index *index)
{
    if (index->count < index->cap)
        return 0;
    uint32_t cap = index->cap ? index->cap * 2 : CAP_MIN;
    struct bm_commit **ring =
        cap <= CAP_MAX ? bm_alloc(index->account, cap * sizeof(ring[0])) : NULL;
    if (!ring)
        return -ENOMEM;
    for (uint64_t rev = index->first; rev < index->first + index->count; rev++)
        ring[rev & (cap - 1)] = index->ring[rev & (index->cap - 1)];
    bm_free(index->account, index->ring, index->cap * sizeof(ring[0]));
    index->ring = ring;
    index->cap = cap;
    return 0;
}

void bm_commit_index_push(struct bm_commit_index *index, struct bm_commit *commit)
{
    bm_assert(index->count < index->cap);
    index->ring[(index->first + index->count) & (index->cap - 1)] = commit;
    index->count++;
}

void bm_commit_index_pop(struct bm_commit_index *index)
{
    bm_assert(index->count > 0);
    index->first++;
    index->count--;
}

void bm_commit_index_clear(struct bm_commit_index *index)
{
    index->count = 0;
}

struct bm_commit *bm_commit_index_find(const struct bm_commit_index *index, uint64_t rev)
{
    return rev >= index->first && rev - index->first < index->count
               ? index->ring[rev & (index->cap - 1)]
               : NULL;
}
