/* The front is what has been handed out, and only shrinks; the back is what is being filled, and moves when
 * it grows. They change places when the front is empty. A half grows by doubling, and keeps its memory
 * until it is trimmed, so that a busy connection allocates nothing. */
#include "net/proto/double_buffer.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

#define FIRST_CAP 1024u /* an alert, a short answer */

void bm_double_buffer_init(struct bm_double_buffer *buffer, size_t max, struct bm_account *account)
{
    *buffer = (struct bm_double_buffer){.max = max, .account = account};
}

static void half_free(struct bm_double_buffer *buffer, struct bm_double_buffer_half *half)
{
    if (half->data)
        bm_free(buffer->account, half->data, half->cap);
    *half = (struct bm_double_buffer_half){0};
}

void bm_double_buffer_deinit(struct bm_double_buffer *buffer)
{
    half_free(buffer, &buffer->front);
    half_free(buffer, &buffer->back);
    buffer->sent = 0;
}

size_t bm_double_buffer_room(const struct bm_double_buffer *buffer)
{
    return buffer->max - (buffer->front.len - buffer->sent) - buffer->back.len;
}

int bm_double_buffer_append(struct bm_double_buffer *buffer, const void *data, size_t len)
{
    if (len > bm_double_buffer_room(buffer))
        return -ENOBUFS;
    struct bm_double_buffer_half *half = &buffer->back;
    if (len > half->cap - half->len) {
        size_t cap = half->cap ? half->cap : FIRST_CAP;
        while (cap < half->len + len)
            cap *= 2;
        if (cap > buffer->max)
            cap = buffer->max;
        uint8_t *grown = (uint8_t *)bm_realloc(buffer->account, half->data, half->cap, cap);
        if (!grown)
            return -ENOMEM;
        half->data = grown;
        half->cap = cap;
    }
    if (len > 0)
        memcpy(half->data + half->len, data, len);
    half->len += len;
    return 0;
}

const uint8_t *bm_double_buffer_output(struct bm_double_buffer *buffer, size_t *ret_len)
{
    if (buffer->sent == buffer->front.len) {
        struct bm_double_buffer_half empty = buffer->front;
        empty.len = 0;
        buffer->front = buffer->back;
        buffer->back = empty;
        buffer->sent = 0;
    }
    *ret_len = buffer->front.len - buffer->sent;
    return *ret_len > 0 ? buffer->front.data + buffer->sent : NULL;
}

void bm_double_buffer_ack(struct bm_double_buffer *buffer, size_t n)
{
    bm_assert(n <= buffer->front.len - buffer->sent);
    buffer->sent += n;
}

void bm_double_buffer_trim(struct bm_double_buffer *buffer)
{
    if (buffer->sent == buffer->front.len) {
        half_free(buffer, &buffer->front);
        buffer->sent = 0;
    }
    if (buffer->back.len == 0)
        half_free(buffer, &buffer->back);
}
