/* Any bytes as a packet. Nothing may crash or read outside; whatever is accepted is written again to the same
 * bytes. A frame says the same alone, in a block of its own length, as among others, and is missed when its
 * last byte is.
 *
 * Covers: runtime/frame.c */
#include "runtime/frame.h"
#include "tests/fuzz/fuzz.h"

static uint8_t again[BM_FRAME_LEN_MAX + 8];

static void expect_same(const uint8_t *end, const struct bm_frame *frame)
{
    size_t len = BM_FRAME_HEADER_LEN + bm_round_up8(frame->len);
    EXPECT((size_t)(end - again) == len);
    EXPECT(memcmp(again, frame->payload - BM_FRAME_HEADER_LEN, len) == 0);
}

static void try_message(const struct bm_frame *frame)
{
    struct bm_message_head head;
    uint8_t *entries;

    /* As a later frame, or of a byte-mode channel. */
    if (frame->fds == 0 && frame->attached == 0)
        expect_same(
            bm_frame_put_bytes(again, frame->channel, frame->flags, frame->payload, frame->len),
            frame);
    if (bm_frame_parse_message(frame, &head) < 0)
        return;
    EXPECT(!head.open || (head.name.len >= 1 && head.name.len <= BM_NAME_LEN_MAX));
    EXPECT(!head.large || head.body_len < head.body_total);
    EXPECT((head.metadata != NULL) == (head.metadata_len > 0));
    EXPECT(head.metadata_len <= BEAM_METADATA_LEN_MAX && head.metadata_len % 8 == 0);
    EXPECT(head.body + head.body_len == frame->payload + frame->len);
    EXPECT(bm_frame_message_head_len(&head) ==
           (size_t)(head.body - frame->payload) + BM_FRAME_HEADER_LEN);

    uint8_t *end =
        bm_frame_put_message(again, frame->channel, frame->flags, frame->fds, &head, &entries);
    for (unsigned i = 0; i < head.attached; i++) {
        struct bm_attached attached;
        if (bm_frame_parse_attached(&head, i, &attached) < 0)
            return;
        bm_frame_put_attached(entries + i * BM_ATTACHED_LEN, &attached);
    }
    expect_same(end, frame);
}

static void try_frame(const struct bm_frame *frame)
{
    struct bm_frame_goaway goaway;
    struct bm_frame_end end;

    EXPECT(frame->len <= BM_FRAME_LEN_MAX - BM_FRAME_HEADER_LEN);
    EXPECT(frame->kind == BM_FRAME_MSG || (frame->fds == 0 && frame->attached == 0));
    switch (frame->kind) {
    case BM_FRAME_HELLO:
        if (frame->len % 8 == 0) /* as documents are; others are refused later */
            expect_same(bm_frame_put_hello(again, frame->payload, frame->len), frame);
        break;
    case BM_FRAME_MSG:
        try_message(frame);
        break;
    case BM_FRAME_END:
        bm_frame_parse_end(frame, &end);
        expect_same(bm_frame_put_end(again, frame->channel, frame->flags, &end), frame);
        break;
    case BM_FRAME_GOAWAY:
        bm_frame_parse_goaway(frame, &goaway);
        expect_same(bm_frame_put_goaway(again, &goaway), frame);
        break;
    case BM_FRAME_CREDIT:
    case BM_FRAME_PING:
        expect_same(bm_frame_put_u64(again, (enum bm_frame_kind)frame->kind, frame->flags,
                                     frame->channel, bm_frame_parse_u64(frame)),
                    frame);
        break;
    default:
        EXPECT(frame->kind <= BM_FRAME_GOAWAY); /* of a kind we know */
    }
}

/* One frame of a packet, of len bytes in all, as the only one of another. */
static void try_alone(const struct bm_frame *frame, size_t len, int expected)
{
    const uint8_t *start = frame->payload - BM_FRAME_HEADER_LEN;
    uint8_t *alone = fuzz_copy(start, len);
    struct bm_bytes in = bm_bytes(alone, len);
    struct bm_frame same;
    EXPECT(bm_frame_next(&in, &same) == expected && in.pos == in.end);
    EXPECT(same.payload == alone + BM_FRAME_HEADER_LEN && same.len == frame->len);
    EXPECT(same.channel == frame->channel && same.kind == frame->kind &&
           same.flags == frame->flags);
    EXPECT(same.fds == frame->fds && same.attached == frame->attached);
    if (expected == 1)
        try_frame(&same);
    free(alone);

    static const size_t missing[] = {1, 7, 8, 9, BM_FRAME_HEADER_LEN};
    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]) && missing[i] < len; i++) {
        uint8_t *part = fuzz_copy(start, len - missing[i]);
        in = bm_bytes(part, len - missing[i]);
        EXPECT(bm_frame_next(&in, &same) == -BEAM_EFRAME_TRUNCATED);
        free(part);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bm_bytes in = bm_bytes(data, size);
    struct bm_frame frame;
    int r;
    do {
        const uint8_t *pos = in.pos;
        r = bm_frame_next(&in, &frame);
        EXPECT(r > 0 ? in.pos >= pos + BM_FRAME_HEADER_LEN && in.pos <= in.end : in.pos == pos);
        EXPECT(r != 2 || frame.kind >= BM_FRAME_KIND_IGNORED);
        if (r > 0)
            try_alone(&frame, (size_t)(in.pos - pos), r);
    } while (r > 0);
    EXPECT(r < 0 || in.pos == in.end);
    return 0;
}
