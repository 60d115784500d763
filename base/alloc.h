/* The one allocator table. All memory of the library comes through it, so that a test can fail any
 * single allocation, and all memory of a session is charged to that session.
 *
 * The table is process-wide and is replaced before the first runtime exists (bm_alloc_set). Blocks
 * carry no header: the caller knows the size it asked for and gives it back on free, which is what
 * makes accounting exact without a look-up. */
#ifndef BM_ALLOC_H
#define BM_ALLOC_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* One function as in Lua: old_len 0 allocates, new_len 0 frees and returns NULL.
 * Memory is aligned to 64 bytes when new_len >= 64, else to 16. Called on any thread. */
struct bm_allocator {
    void *(*realloc)(void *ptr, size_t old_len, size_t new_len, void *arg);
    void *arg;
};

/* Who pays. Zeroed it is an account without a limit. One thread at a time. */
struct bm_account {
    size_t used;  /* bytes, now */
    size_t peak;  /* ... and the most there ever were */
    size_t limit; /* 0: none */
    uint64_t allocs;
    struct bm_account
        *parent; /* is charged the same, and asked too (session -> reactor); or NULL */
};

/* Process-wide sums over all threads, relaxed; tests compare them before and after. */
struct bm_alloc_totals {
    size_t live_bytes;
    size_t live_blocks;
    uint64_t allocs;
};

/* Copies the table; NULL: back to the C library's. While no other thread allocates. */
void bm_alloc_set(const struct bm_allocator *allocator);
struct bm_alloc_totals bm_alloc_totals(void);
/* Calls of the allocator by this thread since it began: a loop that allocates nothing does not
 * change it. */
uint64_t bm_alloc_count_thread(void);

/* NULL when the table or a limit of the account says no; bm_realloc then leaves the block as it
 * was. The account may be NULL. A length of 0 is a block of one byte, to be freed with length 0:
 * NULL means refused and nothing else. Any thread, but an account has one at a time. */
void *bm_alloc(struct bm_account *account, size_t len);
void *bm_alloc_zero(struct bm_account *account, size_t len);
void *bm_realloc(struct bm_account *account, void *ptr, size_t old_len, size_t new_len);
/* Accepts NULL. Returns NULL, so that `p = bm_free(a, p, n)` leaves nothing dangling. */
void *bm_free(struct bm_account *account, void *ptr, size_t len);

/* Bytes of a library that allocates by itself and has no hook: on the account, and asked of its
 * limits, but in no total. 0 or -ENOMEM. */
int bm_account_charge(struct bm_account *account, size_t len);
void bm_account_refund(struct bm_account *account, size_t len);

#endif
