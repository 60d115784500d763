/* A buffer whose first memory is a block of a core's pool: most of what is made for one request is no
 * longer, and then nothing is allocated. On the core's thread. */
#ifndef BM_POOLED_BUFFER_H
#define BM_POOLED_BUFFER_H

#include <beam/buffer.h>

#include "runtime/pool.h"

#define BM_POOLED_BUFFER_LEN 512u /* ours */

static inline void bm_pooled_buffer_init(beam_buffer *buffer, struct bm_pool *pool, size_t len_max)
{
    uint32_t cap;
    beam_buffer_init(buffer, len_max);
    buffer->ptr = bm_pool_get(pool, BM_POOLED_BUFFER_LEN, &cap);
    if (buffer->ptr)
        buffer->cap = cap;
}

/* Accepts a zeroed one. What it has grown to goes back to the pool, if that has such blocks. */
static inline void bm_pooled_buffer_deinit(beam_buffer *buffer, struct bm_pool *pool)
{
    const size_t longest = (size_t)BM_POOL_CLASS_MIN << (BM_POOL_CLASSES - 1);
    if (buffer->ptr && buffer->cap <= longest && bm_pool_cap(buffer->cap) == buffer->cap) {
        bm_pool_put(pool, buffer->ptr, (uint32_t)buffer->cap);
        *buffer = (beam_buffer){0};
    }
    beam_buffer_deinit(buffer);
}

#endif
