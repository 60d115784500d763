/* The pending commits of a store that change something, by their revisions: those are in a row, so that
 * finding one is no search. It owns none of them. */
#ifndef BM_COMMIT_INDEX_H
#define BM_COMMIT_INDEX_H

#include <stdint.h>

struct bm_account;
struct bm_commit;

struct bm_commit_index {
    struct bm_account *account;
    struct bm_commit **ring; /* of cap, a power of two; a revision is at rev % cap */
    uint32_t cap, count;
    uint64_t first; /* revision; the oldest, or the next to come */
};

/* Empty, and the next revision is rev + 1. */
void bm_commit_index_init(struct bm_commit_index *index, struct bm_account *account, uint64_t rev);
void bm_commit_index_deinit(struct bm_commit_index *index);
/* Room for one more. -ENOMEM. */
int bm_commit_index_reserve(struct bm_commit_index *index);
/* That of the next revision; room was reserved. */
void bm_commit_index_push(struct bm_commit_index *index, struct bm_commit *commit);
/* The oldest goes. */
void bm_commit_index_pop(struct bm_commit_index *index);
/* All go; the next revision is that of the oldest again. */
void bm_commit_index_clear(struct bm_commit_index *index);
/* NULL: it is gone, or has not come. */
struct bm_commit *bm_commit_index_find(const struct bm_commit_index *index, uint64_t rev);

#endif
