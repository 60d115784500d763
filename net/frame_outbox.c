/* A bm_outbox whose every room is a frame. Frames lie whole in one block, so that a header can be read
 * where it is lent; ids ascend on the wire (docs/spec/session.md M4), so that the first channel that was not
 * opened stands for all behind it.
 *
 * It holds no more than its owner lets it, and decides nothing about sessions. */
#include "net/frame_outbox.h"

#include "base/assert.h"
#include "runtime/frame.h"

#define WANT_BUSY 16000u /* ours: a block while others wait; an idle session keeps a small one */
_Static_assert(WANT_BUSY <= BM_FRAME_LEN_MAX, "a block is no longer than a frame may be");

void bm_frame_outbox_deinit(struct bm_frame_outbox *outbox)
{
    bm_outbox_deinit(&outbox->bytes);
    outbox->left = 0;
    outbox->opens = 0;
}

uint8_t *bm_frame_outbox_room(struct bm_frame_outbox *outbox, uint32_t len)
{
    size_t room;
    uint8_t *at = bm_outbox_room(&outbox->bytes, len, outbox->bytes.len > 0 ? WANT_BUSY : 0, &room);
    if (at)
        bm_outbox_commit(&outbox->bytes, len);
    return at;
}

static uint32_t frame_len(const uint8_t *frame)
{
    return (uint32_t)bm_round_up8(BM_FRAME_HEADER_LEN + (uint64_t)bm_get_u32(frame + 8));
}

/* The first channel that a frame of ours opens, or 0. */
static uint64_t opened_by(const uint8_t *frame_bytes)
{
    struct bm_bytes bytes = bm_bytes(frame_bytes, frame_len(frame_bytes));
    struct bm_frame frame;
    struct bm_message_head head;
    struct bm_attached attached;
    if (bm_frame_next(&bytes, &frame) != 1 || frame.kind != BM_FRAME_MSG)
        return 0;
    if (frame.flags & BM_MSG_OPEN)
        return frame.channel;
    if (frame.attached == 0 || bm_frame_parse_network_message(&frame, &head) < 0 ||
        bm_frame_parse_attached(&head, 0, &attached) < 0)
        return 0;
    return attached.id;
}

/* Whether it is worth a second look: most frames open nothing. */
static bool may_open(const uint8_t *frame)
{
    return frame[12] == BM_FRAME_MSG && ((frame[13] & BM_MSG_OPEN) || frame[15] > 0);
}

void bm_frame_outbox_given(struct bm_frame_outbox *outbox, size_t len)
{
    size_t have, at = 0;
    const uint8_t *bytes = bm_outbox_output(&outbox->bytes, &have);
    bm_assert(len <= have);
    while (at < len) {
        const uint8_t *frame = bytes + at;
        if (outbox->left == 0) {
            outbox->left = frame_len(frame);
            outbox->opens = may_open(frame) && outbox->left > len - at ? opened_by(frame) : 0;
        }
        size_t step = outbox->left < len - at ? outbox->left : len - at;
        outbox->left -= (uint32_t)step;
        at += step;
    }
    bm_outbox_ack(&outbox->bytes, len);
}

uint64_t bm_frame_outbox_drop(struct bm_frame_outbox *outbox)
{
    uint64_t opens = outbox->left > 0 ? outbox->opens : 0;
    const uint8_t *bytes;
    size_t len;
    while (opens == 0 && (bytes = bm_outbox_output(&outbox->bytes, &len))) {
        size_t at = outbox->left;
        outbox->left = 0;
        for (; at < len && opens == 0; at += frame_len(bytes + at))
            if (may_open(bytes + at))
                opens = opened_by(bytes + at);
        bm_outbox_ack(&outbox->bytes, len);
    }
    bm_frame_outbox_deinit(outbox);
    return opens;
}
