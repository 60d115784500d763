/* Size classes are powers of two; a freed block is linked through its own first word. A class that
 * holds more free memory than BM_POOL_CLASS_KEPT gives the surplus back, so that a burst is not
 * paid for ever. */
#include "runtime/pool.h"

#include "base/assert.h"
#include "base/cleanup.h"

static unsigned class_of(size_t len)
{
    if (len <= BM_POOL_CLASS_MIN)
        return 0;
    return 64u - (unsigned)__builtin_clzll((unsigned long long)len - 1) - 7u;
}

void bm_pool_init(struct bm_pool *pool, struct bm_account *account)
{
    *pool = (struct bm_pool){.account = account};
}

void bm_pool_deinit(struct bm_pool *pool)
{
    for (unsigned i = 0; i < BM_POOL_CLASSES; i++) {
        void *block = pool->classes[i].free;
        while (block) {
            void *next = *(void **)block;
            bm_free(pool->account, block, (size_t)BM_POOL_CLASS_MIN << i);
            block = next;
        }
        pool->classes[i] = (struct bm_pool_class){0};
    }
}

void *bm_pool_get(struct bm_pool *pool, size_t len, uint32_t *ret_cap)
{
    unsigned i = class_of(len);
    if (i >= BM_POOL_CLASSES) {
        if (len > UINT32_MAX)
            return NULL;
        void *block = bm_alloc(pool ? pool->account : NULL, len);
        if (block)
            *ret_cap = (uint32_t)len;
        return block;
    }

    uint32_t cap = BM_POOL_CLASS_MIN << i;
    void *block = NULL;
    if (pool && pool->classes[i].free) {
        block = pool->classes[i].free;
        pool->classes[i].free = *(void **)block;
        pool->classes[i].free_count--;
    } else {
        block = bm_alloc(pool ? pool->account : NULL, cap);
    }
    if (block)
        *ret_cap = cap;
    return block;
}

void bm_pool_put(struct bm_pool *pool, void *block, uint32_t cap)
{
    if (!block)
        return;
    unsigned i = class_of(cap);
    if (!pool || i >= BM_POOL_CLASSES) {
        bm_free(pool ? pool->account : NULL, block, cap);
        return;
    }
    bm_assert(cap == BM_POOL_CLASS_MIN << i);
    if ((uint64_t)pool->classes[i].free_count * cap >= BM_POOL_CLASS_KEPT) {
        bm_free(pool->account, block, cap);
        return;
    }
    *(void **)block = pool->classes[i].free;
    pool->classes[i].free = block;
    pool->classes[i].free_count++;
}
