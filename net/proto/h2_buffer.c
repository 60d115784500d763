/* One buffer, written at its end and read at its beginning. Nothing is moved: whoever sends may
 * still be reading. */
#include "net/proto/h2_buffer.h"

#include <string.h>

#include "base/assert.h"
#include "net/proto/h2.h"

#define CAP (BM_H2_OUTPUT_LEN + BM_H2_LAST_LEN)

void bm_h2_buffer_deinit(struct bm_h2_buffer *buffer)
{
    buffer->bytes = bm_free(buffer->account, buffer->bytes, buffer->bytes ? CAP : 0);
}

bool bm_h2_buffer_reserve(struct bm_h2_buffer *buffer)
{
    if (!buffer->bytes)
        buffer->bytes = bm_alloc(buffer->account, CAP);
    return buffer->bytes != NULL;
}

bool bm_h2_buffer_room(const struct bm_h2_buffer *buffer)
{
    return buffer->bytes && BM_H2_OUTPUT_LEN - buffer->len >= BM_H2_CHUNK_LEN_MAX;
}

void bm_h2_buffer_put(struct bm_h2_buffer *buffer, const uint8_t *bytes, size_t len,
                      uint64_t now_ns)
{
    bm_assert(buffer->bytes && len <= CAP - buffer->len);
    if (buffer->pos == buffer->len)
        buffer->since_ns = now_ns;
    memcpy(buffer->bytes + buffer->len, bytes, len);
    buffer->len += len;
}

void bm_h2_buffer_drop(struct bm_h2_buffer *buffer, size_t len, uint64_t now_ns)
{
    bm_assert(len <= buffer->len - buffer->pos);
    if (len == 0)
        return;
    buffer->pos += len;
    buffer->since_ns = now_ns;
    if (buffer->pos == buffer->len)
        buffer->pos = buffer->len = 0;
}
