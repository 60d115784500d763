/* Blocks of memory for messages and channels: size classes with a free list each, one pool per core,
 * so that the steady state allocates nothing. Owner's thread only; the blocks may travel.
 *
 * Without a pool (a foreign thread) the same calls go straight to the allocator. */
#ifndef BM_POOL_H
#define BM_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

#define BM_POOL_CLASS_MIN 128u /* two cache lines: less would share lines between owners */
#define BM_POOL_CLASSES 10u    /* 128 B … 64 KiB; beyond that every block is the allocator's */
#define BM_POOL_CLASS_KEPT 1048576u /* bytes of free blocks a class keeps; the rest goes back */

struct bm_pool_class {
    void *free; /* singly linked through the first word */
    uint32_t free_count;
};

struct bm_pool {
    struct bm_account *account;
    struct bm_pool_class classes[BM_POOL_CLASSES];
};

void bm_pool_init(struct bm_pool *pool, struct bm_account *account);
void bm_pool_deinit(struct bm_pool *pool);

/* What a block of at least len bytes, up to 64 KiB, really has. */
static inline uint32_t bm_pool_cap(size_t len)
{
    uint32_t cap = BM_POOL_CLASS_MIN;
    while (cap < len)
        cap *= 2;
    return cap;
}

/* At least len bytes, 64-byte aligned; NULL without memory. *ret_cap is what the block really has and
 * what it is given back with. pool may be NULL. */
void *bm_pool_get(struct bm_pool *pool, size_t len, uint32_t *ret_cap);
void bm_pool_put(struct bm_pool *pool, void *block, uint32_t cap);

#endif
