/* The allocator table and the accounts.
 *
 * Model: every block of the library is born and dies here. The caller keeps the length, so a block
 * has no header and an account is exact: what was charged at birth is given back at death, to the
 * account and to each of its parents.
 *
 * Invariants:
 *   - the limits are asked before the table is, so that an account never stands above its limit;
 *   - an account is touched by one thread only (its owner); the totals by all, relaxed;
 *   - len 0 is a real block of one byte: NULL always means "no", never "nothing".
 *
 * It does not pool, cache or trim: those who need speed keep free lists of their own. */
#define _GNU_SOURCE
#include "base/alloc.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define CACHE_LINE 64u /* the contract in alloc.h; x86-64 and ARMv8 lines */

/* One set per thread would need a registry of threads; one shared line costs a locked add per
 * allocation, and the steady state has none. */
static struct {
    _Atomic size_t live_bytes;
    _Atomic size_t live_blocks;
    _Atomic uint64_t allocs;
} totals __attribute__((aligned(CACHE_LINE)));

static _Thread_local uint64_t allocs_of_thread;

/* malloc aligns to 16. From 64 bytes on it must be 64, which realloc(3) does not keep: a block that
 * is or becomes that large moves by hand. */
static void *libc_realloc(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)arg;
    if (new_len == 0) {
        free(ptr);
        return NULL;
    }
    if (new_len < CACHE_LINE)
        return realloc(ptr, new_len);

    void *fresh;
    if (posix_memalign(&fresh, CACHE_LINE, new_len) != 0)
        return NULL;
    if (ptr) {
        memcpy(fresh, ptr, old_len < new_len ? old_len : new_len);
        free(ptr);
    }
    return fresh;
}

static const struct bm_allocator libc_allocator = {.realloc = libc_realloc};
static struct bm_allocator table = {.realloc = libc_realloc};

void bm_alloc_set(const struct bm_allocator *allocator)
{
    table = allocator ? *allocator : libc_allocator;
}

struct bm_alloc_totals bm_alloc_totals(void)
{
    return (struct bm_alloc_totals){
        .live_bytes = atomic_load_explicit(&totals.live_bytes, memory_order_relaxed),
        .live_blocks = atomic_load_explicit(&totals.live_blocks, memory_order_relaxed),
        .allocs = atomic_load_explicit(&totals.allocs, memory_order_relaxed),
    };
}

uint64_t bm_alloc_count_thread(void)
{
    return allocs_of_thread;
}

static size_t block_len(size_t len)
{
    return len ? len : 1;
}

static bool may_charge(const struct bm_account *account, size_t len)
{
    for (; account; account = account->parent) {
        size_t room = account->limit > account->used ? account->limit - account->used : 0;
        if (account->limit && len > room)
            return false;
    }
    return true;
}

static void charge(struct bm_account *account, size_t len)
{
    for (; account; account = account->parent) {
        account->used += len;
        if (account->used > account->peak)
            account->peak = account->used;
    }
}

static void refund(struct bm_account *account, size_t len)
{
    for (; account; account = account->parent) {
        bm_assert(account->used >= len);
        account->used -= len;
    }
}

static void count_alloc(struct bm_account *account)
{
    for (; account; account = account->parent)
        account->allocs++;
    allocs_of_thread++;
    atomic_fetch_add_explicit(&totals.allocs, 1, memory_order_relaxed);
}

void *bm_alloc(struct bm_account *account, size_t len)
{
    len = block_len(len);
    if (!may_charge(account, len))
        return NULL;
    void *ptr = table.realloc(NULL, 0, len, table.arg);
    if (!ptr)
        return NULL;
    charge(account, len);
    count_alloc(account);
    atomic_fetch_add_explicit(&totals.live_bytes, len, memory_order_relaxed);
    atomic_fetch_add_explicit(&totals.live_blocks, 1, memory_order_relaxed);
    return ptr;
}

void *bm_alloc_zero(struct bm_account *account, size_t len)
{
    void *ptr = bm_alloc(account, len);
    return ptr ? memset(ptr, 0, block_len(len)) : NULL;
}

void *bm_realloc(struct bm_account *account, void *ptr, size_t old_len, size_t new_len)
{
    if (!ptr)
        return bm_alloc(account, new_len);
    old_len = block_len(old_len);
    new_len = block_len(new_len);
    /* A block that grows by moving exists twice for a moment; the account is charged for the one
     * that stays, because the other is the table's business. */
    if (new_len > old_len && !may_charge(account, new_len - old_len))
        return NULL;
    void *moved = table.realloc(ptr, old_len, new_len, table.arg);
    if (!moved)
        return NULL;
    if (new_len > old_len)
        charge(account, new_len - old_len);
    else
        refund(account, old_len - new_len);
    count_alloc(account);
    /* Unsigned wrap-around makes one addition serve growing and shrinking. */
    atomic_fetch_add_explicit(&totals.live_bytes, new_len - old_len, memory_order_relaxed);
    return moved;
}

void *bm_free(struct bm_account *account, void *ptr, size_t len)
{
    if (!ptr)
        return NULL;
    len = block_len(len);
    refund(account, len);
    atomic_fetch_sub_explicit(&totals.live_bytes, len, memory_order_relaxed);
    atomic_fetch_sub_explicit(&totals.live_blocks, 1, memory_order_relaxed);
    return table.realloc(ptr, len, 0, table.arg);
}

int bm_account_charge(struct bm_account *account, size_t len)
{
    if (!may_charge(account, len))
        return -ENOMEM;
    charge(account, len);
    return 0;
}

void bm_account_refund(struct bm_account *account, size_t len)
{
    refund(account, len);
}
