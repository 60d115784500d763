/* Frames against tests/vectors/session.json: the error of each invalid packet, the summary of each valid
 * one, and that writing what was read gives the same bytes. Then what vectors cannot say. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/frame.h"
#include "runtime/hello.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"

#define SUMMARY_MAX 131072 /* of a packet of 2700 small frames */
#define STATE_MAX 8        /* channels that a vector needs remembered */

/* The packet as text, and written again. */
struct decoded {
    char *summary;
    size_t summary_len;
    uint8_t *again;
    uint8_t *again_end;
    bool ignored; /* some frame was: it cannot be written again */
    /* What tells later frames and bytes from first frames; a session keeps it per channel. */
    uint64_t bytes_channels[STATE_MAX], open_messages[STATE_MAX];
    unsigned bytes_count, open_count;
};

__attribute__((format(printf, 2, 3))) static void say(struct decoded *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(d->summary + d->summary_len, SUMMARY_MAX - d->summary_len, format, args);
    va_end(args);
    REQUIRE(n >= 0 && d->summary_len + (size_t)n < SUMMARY_MAX);
    d->summary_len += (size_t)n;
}

static bool is_among(const uint64_t *ids, unsigned count, uint64_t id)
{
    for (unsigned i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static void remember(uint64_t *ids, unsigned *count, uint64_t id)
{
    REQUIRE(*count < STATE_MAX);
    ids[(*count)++] = id;
}

static void say_flags(struct decoded *d, uint8_t flags)
{
    static const char *const names[] = {"OPEN", "MORE", "END", "ONEWAY"};
    const char *between = " ";
    for (unsigned i = 0; i < 4; i++) {
        if (flags & 1u << i) {
            say(d, "%s%s", between, names[i]);
            between = "|";
        }
    }
}

static int decode_hello(struct decoded *d, const struct bm_frame *frame)
{
    struct bm_hello hello;
    int r = bm_hello_parse(frame->payload, frame->len, &hello);
    if (r < 0)
        return r;
    say(d, "HELLO version=%u role=%s", hello.version, hello.opener ? "opener" : "acceptor");
    if (hello.name.len > 0)
        say(d, " name=%.*s", BEAM_STR(hello.name));
    say(d, " window=%u channels=%u message=%u", hello.window, hello.channels_max,
        hello.message_len_max);
    if (hello.fds_refused)
        say(d, " fds=none");
    else
        say(d, " fds=%u", hello.fds_max);
    if (hello.ping_s > 0)
        say(d, " ping=%u", hello.ping_s);
    d->again_end = bm_frame_put_hello(d->again_end, frame->payload, frame->len);
    return 0;
}

static int decode_first(struct decoded *d, const struct bm_frame *frame)
{
    struct bm_message_head head;
    struct bm_attached attached[BM_ATTACHED_MAX];
    int r = bm_frame_parse_message(frame, &head);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < head.attached; i++) {
        r = bm_frame_parse_attached(&head, i, &attached[i]);
        if (r < 0)
            return r;
    }
    say(d, "MSG ch=%llu", (unsigned long long)frame->channel);
    say_flags(d, frame->flags);
    if (frame->fds > 0)
        say(d, " fds=%u", frame->fds);
    if (head.open)
        say(d, " name=%.*s depth=%u deadline=%llu", BEAM_STR(head.name), head.depth,
            (unsigned long long)head.deadline_ns);
    if (head.large) {
        say(d, " total=%llu", (unsigned long long)head.body_total);
        remember(d->open_messages, &d->open_count, frame->channel);
    }
    for (unsigned i = 0; i < head.attached; i++) {
        bool bytes = attached[i].mode == BM_MODE_BYTES;
        say(d, "%s%llu:%s", i ? "," : " attached=", (unsigned long long)attached[i].id,
            bytes ? "bytes" : "messages");
        if (bytes && d->bytes_count < STATE_MAX)
            remember(d->bytes_channels, &d->bytes_count, attached[i].id);
    }
    say(d, " meta=%u", head.metadata_len);
    if (head.codec != 0)
        say(d, " codec=%u", head.codec);
    say(d, " body=%u", head.body_len);

    uint8_t *entries = NULL, *start = d->again_end;
    uint32_t head_len = bm_frame_message_head_len(&head);
    CHECK_UINT(head.body_len > 0 ? head.body - (frame->payload - BM_FRAME_HEADER_LEN) : head_len,
               head_len);
    d->again_end = bm_frame_put_message(start, frame->channel, frame->flags, frame->fds, &head,
                                        head.attached ? &entries : NULL);
    CHECK_UINT(d->again_end - start, bm_round_up8((uint64_t)head_len + head.body_len));
    for (unsigned i = 0; i < head.attached; i++)
        bm_frame_put_attached(entries + i * BM_ATTACHED_LEN, &attached[i]);
    return 0;
}

static int decode_message(struct decoded *d, const struct bm_frame *frame)
{
    bool later = is_among(d->open_messages, d->open_count, frame->channel);
    if (!later && !is_among(d->bytes_channels, d->bytes_count, frame->channel))
        return decode_first(d, frame);
    say(d, "MSG ch=%llu", (unsigned long long)frame->channel);
    say_flags(d, frame->flags);
    say(d, " bytes=%u", frame->len);
    d->again_end =
        bm_frame_put_bytes(d->again_end, frame->channel, frame->flags, frame->payload, frame->len);
    return 0;
}

static void decode_end(struct decoded *d, const struct bm_frame *frame)
{
    struct bm_frame_end end;
    bm_frame_parse_end(frame, &end);
    say(d, "END ch=%llu%s code=%u details=%u", (unsigned long long)frame->channel,
        frame->flags & BM_END_ABORT ? " ABORT" : "", end.code, end.details_len);
    CHECK((end.details != NULL) == (end.details_len > 0));
    uint8_t *start = d->again_end;
    d->again_end = bm_frame_put_end(start, frame->channel, frame->flags, &end);
    CHECK_UINT(d->again_end - start, bm_frame_end_len(end.details_len));
}

static void decode_goaway(struct decoded *d, const struct bm_frame *frame)
{
    struct bm_frame_goaway goaway;
    bm_frame_parse_goaway(frame, &goaway);
    say(d, "GOAWAY last=%llu code=%u details=%u", (unsigned long long)goaway.last_id,
        goaway.why.code, goaway.why.details_len);
    CHECK((goaway.why.details != NULL) == (goaway.why.details_len > 0));
    uint8_t *start = d->again_end;
    d->again_end = bm_frame_put_goaway(start, &goaway);
    CHECK_UINT(d->again_end - start, bm_frame_goaway_len(goaway.why.details_len));
}

static int decode_frame(struct decoded *d, const struct bm_frame *frame)
{
    unsigned long long value;
    switch (frame->kind) {
    case BM_FRAME_HELLO:
        return decode_hello(d, frame);
    case BM_FRAME_MSG:
        return decode_message(d, frame);
    case BM_FRAME_END:
        decode_end(d, frame);
        return 0;
    case BM_FRAME_GOAWAY:
        decode_goaway(d, frame);
        return 0;
    default:
        value = bm_frame_parse_u64(frame);
        if (frame->kind == BM_FRAME_CREDIT)
            say(d, "CREDIT ch=%llu amount=%llu", (unsigned long long)frame->channel, value);
        else
            say(d, "PING%s token=%llu", frame->flags & BM_PING_ACK ? " ACK" : "", value);
        d->again_end = bm_frame_put_u64(d->again_end, (enum bm_frame_kind)frame->kind, frame->flags,
                                        frame->channel, value);
        return 0;
    }
}

/* 0, or the first error. */
static int decode(struct decoded *d, const uint8_t *packet, size_t len)
{
    struct bm_bytes in = bm_bytes(packet, len);
    for (;;) {
        struct bm_frame frame;
        memset(&frame, 0xa5, sizeof(frame));
        struct bm_frame untouched = frame;
        const uint8_t *pos = in.pos;
        int r = bm_frame_next(&in, &frame);
        if (r <= 0) {
            CHECK_MEM(&frame, sizeof(frame), &untouched, sizeof(untouched));
            CHECK_PTR(in.pos, pos);
            return r;
        }
        if (d->summary_len > 0)
            say(d, "; ");
        if (r == 2) {
            say(d, "IGNORED kind=%u fds=%u length=%u", frame.kind, frame.fds, frame.len);
            d->ignored = true;
            continue;
        }
        REQUIRE_INT(r, 1);
        r = decode_frame(d, &frame);
        if (r < 0)
            return r;
    }
}

static void check_vector(const struct vector *v, struct decoded *d)
{
    size_t len;
    uint8_t *packet = vector_hex(v, "hex", &len);
    const char *error = vector_str(v, "error"), *summary = vector_str(v, "summary");
    uint8_t *again = d->again;
    char *text = d->summary;

    test_note("%s: %s", vector_str(v, "rule"), vector_str(v, "name"));
    *d = (struct decoded){.summary = text, .again = again, .again_end = again};
    text[0] = '\0';
    /* What a writer leaves untouched must not look right by chance. */
    memset(again, 0xa5, BM_FRAME_LEN_MAX);
    int r = decode(d, packet, len);
    CHECK_STR(r < 0 ? beam_error_name(r) : NULL, error);
    if (r == 0 && !error) {
        CHECK_STR(d->summary, summary);
        if (!d->ignored)
            CHECK_MEM(again, d->again_end - again, packet, len);
    } else {
        CHECK_STR(summary, NULL);
    }
    free(packet);
}

TEST(frame_vectors_give_their_error_or_summary_and_their_bytes_again)
{
    struct vectors vectors;
    struct decoded d = {.summary = malloc(SUMMARY_MAX), .again = malloc(BM_FRAME_LEN_MAX)};
    vectors_load("session.json", &vectors);
    CHECK(vectors.count > 400);
    for (size_t i = 0; i < vectors.count; i++)
        check_vector(&vectors.items[i], &d);
    vectors_free(&vectors);
    free(d.summary);
    free(d.again);
}

/* Whatever is written is in one of the vectors' bytes; here only what the vectors cannot tell apart. */
TEST(frame_of_an_empty_packet_is_none)
{
    struct bm_bytes in = bm_bytes("", 0);
    struct bm_frame frame;
    CHECK_INT(bm_frame_next(&in, &frame), 0);
}

TEST(frame_next_moves_over_exactly_one_frame)
{
    uint8_t packet[2 * BM_FRAME_U64_LEN];
    uint8_t *second = bm_frame_put_u64(packet, BM_FRAME_PING, 0, 0, 1);
    uint8_t *end = bm_frame_put_u64(second, BM_FRAME_CREDIT, 0, 9, 2);
    struct bm_bytes in = bm_bytes(packet, sizeof(packet));
    struct bm_frame frame;

    CHECK_PTR(end, packet + sizeof(packet));
    CHECK_INT(bm_frame_next(&in, &frame), 1);
    CHECK_PTR(in.pos, second);
    CHECK_PTR(frame.payload, packet + BM_FRAME_HEADER_LEN);
    CHECK_INT(bm_frame_next(&in, &frame), 1);
    CHECK_PTR(in.pos, end);
    CHECK_UINT(frame.channel, 9);
    CHECK_UINT(bm_frame_parse_u64(&frame), 2);
    CHECK_INT(bm_frame_next(&in, &frame), 0);
}

TEST(frame_with_both_lengths_hostile_is_refused)
{
    static const uint32_t lengths[] = {16385, 65536, INT32_MAX, UINT32_MAX - 7, UINT32_MAX};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint8_t packet[BM_FRAME_HEADER_LEN + 16] = {1, [8] = 16, [12] = BM_FRAME_MSG};
        bm_put_u32(packet + BM_FRAME_HEADER_LEN, lengths[i]);
        struct bm_bytes in = bm_bytes(packet, sizeof(packet));
        struct bm_frame frame;
        struct bm_message_head head = {.codec = 77};
        test_note("metadata length %u", lengths[i]);
        REQUIRE_INT(bm_frame_next(&in, &frame), 1);
        CHECK_INT(bm_frame_parse_message(&frame, &head), -BEAM_EFRAME_METADATA);
        CHECK_UINT(head.codec, 77);
    }
}

/* Every cut of every field, with the payload on the heap at exactly its length for the sanitizers. */
TEST(frame_parse_message_stays_inside_a_payload_of_any_length)
{
    uint8_t room[256];
    uint8_t *entries;
    struct bm_attached attached = {.id = 4, .mode = BM_MODE_BYTES};
    struct bm_message_head head = {
        .open = true,
        .large = true,
        .attached = 1,
        .name = {"service", 7},
        .body_total = 1000,
        .body = (const uint8_t *)"body",
        .body_len = 4,
    };
    const uint8_t flags = BM_MSG_OPEN | BM_MSG_MORE;
    uint8_t *end = bm_frame_put_message(room, 2, flags, 0, &head, &entries);
    bm_frame_put_attached(entries, &attached);
    uint32_t head_len = bm_frame_message_head_len(&head) - BM_FRAME_HEADER_LEN;
    CHECK_UINT(end - room, BM_FRAME_HEADER_LEN + head_len + 8);

    for (uint32_t len = 0; len <= head_len; len++) {
        uint8_t *payload = malloc(len ? len : 1);
        memcpy(payload, room + BM_FRAME_HEADER_LEN, len);
        struct bm_frame frame = {
            .channel = 2,
            .len = len,
            .kind = BM_FRAME_MSG,
            .flags = flags,
            .attached = 1,
            .payload = payload,
        };
        test_note("payload of %u", len);
        CHECK_INT(bm_frame_parse_message(&frame, &head) == 0, len == head_len);
        free(payload);
    }
}

TEST(frame_put_bytes_pads_with_zeros)
{
    for (uint32_t len = 0; len <= 9; len++) {
        uint8_t room[64];
        memset(room, 0xa5, sizeof(room));
        uint8_t *end = bm_frame_put_bytes(room, 3, BM_MSG_END, "123456789", len);
        struct bm_bytes in = bm_bytes(room, (size_t)(end - room));
        struct bm_frame frame;
        test_note("%u bytes", len);
        CHECK_UINT(end - room, BM_FRAME_HEADER_LEN + bm_round_up8(len));
        CHECK_INT(bm_frame_next(&in, &frame), 1);
        CHECK_INT(frame.flags, BM_MSG_END);
        CHECK_MEM(frame.payload, frame.len, "123456789", len);
        CHECK_INT(*end, 0xa5); /* nothing behind it was touched */
    }
}
