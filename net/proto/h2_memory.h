/* The memory of nghttp2, which frees without saying how much: each block knows its length.
 *
 * The blocks know each other, too, and all there is is freed here: where memory was refused in the
 * middle of something, nghttp2's structures may disagree, and it frees twice what it takes down
 * (1.52: a body that was being queued).
 *
 * A request costs nghttp2 a dozen small blocks. Those that it frees are kept for the next, up to a
 * limit; the account is charged for them. */
#ifndef BM_H2_MEMORY_H
#define BM_H2_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/list.h"

#define BM_H2_SPARE_CLASSES 16u /* sizes, of 64 bytes and so on, that are kept */
#define BM_H2_SPARE_MAX                                                                            \
    (128u << 10) /* bytes of them, of a connection: what as many streams as may be take */

struct bm_h2_memory {
    struct bm_account *account;
    struct bm_list blocks;
    bool refused;     /* once, at least */
    size_t spare_len; /* of what is kept */
    struct bm_list spare[BM_H2_SPARE_CLASSES];
};

void bm_h2_memory_init(struct bm_h2_memory *memory, struct bm_account *account);
void bm_h2_memory_trim(struct bm_h2_memory *memory); /* gives back what is kept */
void bm_h2_memory_free_all(struct bm_h2_memory *memory);

/* Zeroed; for blocks of ours that come and go with nghttp2's. NULL: nothing has happened but that. */
void *bm_h2_memory_get(struct bm_h2_memory *memory, size_t len);

/* As malloc(3) and its like, in the form in which nghttp2 calls them; `memory` is a struct
 * bm_h2_memory. */
void *bm_h2_memory_alloc(size_t len, void *memory);
void *bm_h2_memory_calloc(size_t count, size_t len, void *memory);
void *bm_h2_memory_realloc(void *block, size_t len, void *memory);
void bm_h2_memory_free(void *block, void *memory);

#endif
