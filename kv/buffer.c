/* A buffer that grows: one block that doubles, up to a limit.
 *
 * Invariants: len <= cap <= len_max; after an error nothing changes but by clear and deinit. The
 * writer of documents uses all of cap, so growing keeps every byte of it (bm_buffer_grow). */
#include "kv/buffer.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"

#define CAP_MIN 256 /* ours: most results are smaller */

void beam_buffer_init(beam_buffer *b, size_t len_max)
{
    bm_buffer_init(b, len_max, NULL);
}

void bm_buffer_init(beam_buffer *b, size_t len_max, struct bm_account *account)
{
    *b = (beam_buffer){.len_max = len_max, .account = account};
}

void beam_buffer_deinit(beam_buffer *b)
{
    bm_free((struct bm_account *)b->account, b->ptr, b->cap);
    *b = (beam_buffer){0};
}

void beam_buffer_clear(beam_buffer *b)
{
    b->len = 0;
    b->error = 0;
}

int bm_buffer_grow(beam_buffer *b, size_t need)
{
    if (need <= b->cap)
        return 0;
    if (need > b->len_max)
        return -BEAM_ECODEC_TOO_LARGE;
    size_t cap = b->cap < CAP_MIN / 2 ? CAP_MIN : b->cap < b->len_max / 2 ? 2 * b->cap : b->len_max;
    if (cap < need)
        cap = need;
    if (cap > b->len_max)
        cap = b->len_max;
    void *ptr = bm_realloc((struct bm_account *)b->account, b->ptr, b->cap, cap);
    if (!ptr)
        return -ENOMEM;
    b->ptr = (unsigned char *)ptr;
    b->cap = cap;
    return 0;
}

int beam_buffer_fail(beam_buffer *b, int error)
{
    if (!b->error)
        b->error = error;
    return b->error;
}

int beam_buffer_reserve(beam_buffer *b, size_t len, unsigned char **ret_room)
{
    if (b->error)
        return b->error;
    if (len > b->cap - b->len) {
        int r = len > SIZE_MAX - b->len ? -BEAM_ECODEC_TOO_LARGE : bm_buffer_grow(b, b->len + len);
        if (r < 0)
            return beam_buffer_fail(b, r);
    }
    *ret_room = b->ptr ? b->ptr + b->len : NULL; /* nothing is nowhere */
    return 0;
}

void beam_buffer_advance(beam_buffer *b, size_t len)
{
    bm_assert(len <= b->cap - b->len);
    b->len += len;
}

int beam_buffer_add(beam_buffer *b, const void *bytes, size_t len)
{
    unsigned char *room;
    if (len == 0)
        return b->error;
    int r = beam_buffer_reserve(b, len, &room);
    if (r < 0)
        return r;
    memcpy(room, bytes, len);
    b->len += len;
    return 0;
}
