/* Memory that runs out: the library's allocator with some of its answers turned into NULL. */
#ifndef TEST_SCARCE_H
#define TEST_SCARCE_H

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static int scarce_left;  /* allocations that still succeed */
static int scarce_asked; /* allocations since scarce_begin */

static inline void *scarce_realloc(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    void *fresh;
    (void)arg;
    if (new_len == 0) {
        free(ptr);
        return NULL;
    }
    scarce_asked++;
    if (scarce_left == 0 || posix_memalign(&fresh, 64, new_len) != 0)
        return NULL;
    scarce_left--;
    if (ptr) {
        memcpy(fresh, ptr, old_len < new_len ? old_len : new_len);
        free(ptr);
    }
    return fresh;
}

/* From now on the first `left` allocations succeed and no other. On no thread may one be under way. */
static inline void scarce_begin(int left)
{
    scarce_left = left;
    scarce_asked = 0;
    bm_alloc_set(&(struct bm_allocator){.realloc = scarce_realloc});
}

static inline void scarce_end(void)
{
    bm_alloc_set(NULL);
}

#endif
