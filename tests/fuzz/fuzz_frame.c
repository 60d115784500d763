/* Any bytes as a packet, as a HELLO document and as control messages. Nothing may crash or read outside;
 * whatever is accepted is written again to the same bytes, and descriptors made of noise are counted,
 * never closed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/frame.h"
#include "runtime/hello.h"
#include "runtime/unix_control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(expr)                                                                               \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #expr);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Stands before the C library's, so that the parser closes nothing of ours. */
static bool closing_noise;
static size_t noise_closed;

int close(int fd)
{
    if (closing_noise) {
        noise_closed++;
        return 0;
    }
    return (int)syscall(SYS_close, fd);
}

static uint8_t again[BM_FRAME_LEN_MAX + 8];

static void expect_same(const uint8_t *end, const struct bm_frame *frame)
{
    size_t len = BM_FRAME_HEADER_LEN + bm_round_up8(frame->len);
    EXPECT((size_t)(end - again) == len);
    EXPECT(memcmp(again, frame->payload - BM_FRAME_HEADER_LEN, len) == 0);
}

static bool try_hello(const void *document, size_t len)
{
    uint8_t room[BM_HELLO_LEN_MAX];
    struct bm_hello hello, second;
    int r = bm_hello_parse(document, len, &hello);
    EXPECT(r == 0 || r == -BEAM_EHELLO_MALFORMED);
    if (r < 0)
        return false;
    EXPECT(hello.version >= 1 && hello.window >= BM_WINDOW_MIN && hello.channels_max >= 1);
    EXPECT(hello.message_len_max >= 1 && hello.name.len <= 255);
    EXPECT(!hello.fds_refused || hello.fds_max == 0);
    size_t written = bm_hello_write(&hello, room);
    EXPECT(bm_hello_parse(room, written, &second) == 0);
    EXPECT(second.version == hello.version && second.opener == hello.opener);
    EXPECT(second.window == hello.window && second.channels_max == hello.channels_max);
    EXPECT(second.message_len_max == hello.message_len_max);
    EXPECT(second.fds_max == hello.fds_max && second.fds_refused == hello.fds_refused);
    EXPECT(second.name.len == hello.name.len);
    EXPECT(hello.name.len == 0 || memcmp(second.name.ptr, hello.name.ptr, hello.name.len) == 0);
    return true;
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
        if (try_hello(frame->payload, frame->len))
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

static void try_packet(const uint8_t *data, size_t size)
{
    struct bm_bytes in = bm_bytes(data, size);
    struct bm_frame frame;
    int r;
    do {
        const uint8_t *pos = in.pos;
        r = bm_frame_next(&in, &frame);
        EXPECT(r > 0 ? in.pos >= pos + BM_FRAME_HEADER_LEN && in.pos <= in.end : in.pos == pos);
        if (r == 1)
            try_frame(&frame);
        EXPECT(r != 2 || frame.kind >= BM_FRAME_KIND_IGNORED);
    } while (r > 0);
    EXPECT(r < 0 || in.pos == in.end);
}

static void try_control(const uint8_t *data, size_t size)
{
    struct bm_unix_control control;
    noise_closed = 0;
    closing_noise = true;
    bm_unix_control_parse(data, size, &control);
    closing_noise = false;
    EXPECT(control.fd_count <= BM_PACKET_FDS_MAX);
    EXPECT((control.fd_count + noise_closed) * sizeof(int) <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_packet(data, size);
    try_hello(data, size);
    try_control(data, size);
    return 0;
}
