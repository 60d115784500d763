/* Who pays for the memory of a library whose allocator is told nothing but a size.
 *
 * Before such a library is entered, a payer is set for the thread; what it allocates is charged to that
 * payer's account, and what it frees is given back to whoever paid, whoever frees. Around each call:
 *
 *     struct bm_payer *outer = bm_payer_enter(payer);
 *     ... the library ...
 *     bm_payer_leave(outer);
 *
 * An account may end before the library lets go of everything it took under it (caches of its own): what
 * is left is then taken off the account, and freed when the library frees it, on any thread. */
#ifndef BM_PAYER_H
#define BM_PAYER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/alloc.h"

struct bm_payer;

/* NULL: no memory. The account may be NULL. */
struct bm_payer *bm_payer_new(struct bm_account *account);
/* The account is free of it from now on. Accepts NULL, returns NULL. */
struct bm_payer *bm_payer_free(struct bm_payer *payer);

struct bm_payer *bm_payer_enter(struct bm_payer *payer);
void bm_payer_leave(struct bm_payer *outer);

/* An allocation under it was refused since this was last asked. */
bool bm_payer_refused(struct bm_payer *payer);

/* The library's allocator. Aligned to 16. Without a payer on this thread nobody pays. */
void *bm_payer_malloc(size_t len);
void *bm_payer_realloc(void *ptr, size_t len);
void bm_payer_release(void *ptr);

#endif
