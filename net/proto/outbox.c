/* A list of blocks. Only the last one is written to, only the first one is lent.
 *
 * Invariants:
 *   - `len` is the sum of what the blocks hold;
 *   - a block that holds nothing is the only one;
 *   - bytes are written once, at the place from which they are lent. */
#include "net/proto/outbox.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

struct bm_outbox_block {
    struct bm_outbox_block *next;
    size_t cap, start, end; /* of data: what waits is between start and end */
    uint8_t data[];
};

static void free_block(struct bm_outbox *outbox, struct bm_outbox_block *block)
{
    bm_free(outbox->account, block, sizeof(*block) + block->cap);
}

void bm_outbox_deinit(struct bm_outbox *outbox)
{
    while (outbox->first) {
        struct bm_outbox_block *block = outbox->first;
        outbox->first = block->next;
        free_block(outbox, block);
    }
    outbox->last = NULL;
    outbox->len = 0;
}

bool bm_outbox_is_idle(const struct bm_outbox *outbox)
{
    return outbox->first && outbox->len == 0;
}

void bm_outbox_trim(struct bm_outbox *outbox)
{
    if (outbox->len == 0)
        bm_outbox_deinit(outbox);
}

static size_t kept_max(const struct bm_outbox *outbox)
{
    return outbox->kept_max > 0 ? outbox->kept_max : BM_OUTBOX_KEPT_MAX;
}

static struct bm_outbox_block *add_block(struct bm_outbox *outbox, size_t need)
{
    size_t cap = need > BM_OUTBOX_BLOCK ? need : BM_OUTBOX_BLOCK;
    struct bm_outbox_block *block = bm_alloc(outbox->account, sizeof(*block) + cap);
    if (!block)
        return NULL;
    *block = (struct bm_outbox_block){.cap = cap};
    if (outbox->last && outbox->len == 0) { /* too small, and nobody needs it */
        free_block(outbox, outbox->last);
        outbox->first = outbox->last = NULL;
    }
    if (outbox->last)
        outbox->last->next = block;
    else
        outbox->first = block;
    outbox->last = block;
    return block;
}

uint8_t *bm_outbox_room(struct bm_outbox *outbox, size_t need, size_t want, size_t *ret_room)
{
    struct bm_outbox_block *block = outbox->last;
    if (!block || block->cap - block->end < need)
        block = add_block(outbox, want > need ? want : need);
    if (!block)
        return NULL;
    *ret_room = block->cap - block->end;
    return block->data + block->end;
}

void bm_outbox_commit(struct bm_outbox *outbox, size_t len)
{
    struct bm_outbox_block *block = outbox->last;
    if (len == 0)
        return;
    bm_assert(block && len <= block->cap - block->end);
    block->end += len;
    outbox->len += len;
}

int bm_outbox_append(struct bm_outbox *outbox, const void *data, size_t len)
{
    size_t room;
    uint8_t *to = len > 0 ? bm_outbox_room(outbox, len, len, &room) : NULL;
    if (len == 0)
        return 0;
    if (!to)
        return -ENOMEM;
    memcpy(to, data, len);
    bm_outbox_commit(outbox, len);
    return 0;
}

const uint8_t *bm_outbox_output(const struct bm_outbox *outbox, size_t *ret_len)
{
    const struct bm_outbox_block *block = outbox->first;
    *ret_len = block ? block->end - block->start : 0;
    return *ret_len > 0 ? block->data + block->start : NULL;
}

void bm_outbox_ack(struct bm_outbox *outbox, size_t len)
{
    struct bm_outbox_block *block = outbox->first;
    if (len == 0)
        return;
    bm_assert(block && len <= block->end - block->start);
    block->start += len;
    outbox->len -= len;
    if (block->start < block->end)
        return;
    if (block == outbox->last && block->cap <= kept_max(outbox)) {
        block->start = block->end = 0;
        return;
    }
    outbox->first = block->next;
    if (!outbox->first)
        outbox->last = NULL;
    free_block(outbox, block);
}
