/* The history of a store: the latest deltas as they are sent (docs/spec/kv.md, Y9), in a ring that is
 * bounded in bytes. All who follow read from it; it knows nothing of them. */
#ifndef BM_STORE_HISTORY_H
#define BM_STORE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

struct bm_delta {
    uint8_t *document; /* one block of len bytes */
    size_t len;
};

struct bm_history {
    struct bm_account *account;
    struct bm_delta *ring; /* of cap, a power of two */
    uint32_t cap, count;
    uint64_t first;      /* the revision of the oldest; it is at first % cap */
    size_t len, len_max; /* bytes of the documents; the newest stays however long it is */
};

/* Empty, and the next revision is rev + 1. */
void bm_history_init(struct bm_history *history, struct bm_account *account, size_t len_max,
                     uint64_t rev);
void bm_history_clear(struct bm_history *history);
/* Room for so many more besides those that are there. -ENOMEM. */
int bm_history_reserve(struct bm_history *history, uint32_t more);
/* The delta of the next revision, consumed; room was reserved. The oldest go when it is too much. */
void bm_history_push(struct bm_history *history, struct bm_delta delta);

/* The revision behind which it has every one. */
static inline uint64_t bm_history_horizon(const struct bm_history *history)
{
    return history->first - 1;
}

/* That of a revision; NULL: it is gone, or has not come. */
static inline const struct bm_delta *bm_history_find(const struct bm_history *history, uint64_t rev)
{
    return rev >= history->first && rev - history->first < history->count
               ? &history->ring[rev & (history->cap - 1)]
               : NULL;
}

#endif
