/* Sessions in the messages of a WebSocket: how frames and messages go together, close codes, and a peer that
 * breaks the rules of either. docs/spec/http.md section 5. */
#include "tests/unit/net/session_rig.h"

#include "tests/support/vectors.h"

enum {
    FIN = 0x80,
    CONTINUATION = 0,
    TEXT = 1,
    BINARY = 2,
    CLOSE = 8,
    PING = 9,
};

static struct raw_packet packet;
static uint8_t wire[RAW_PACKET_MAX * 2];
static size_t wire_len;

/* One frame of a client, masked with zeros unless it is to be wrong. */
static void put(uint8_t first, const void *bytes, size_t len, bool masked)
{
    uint8_t *to = wire + wire_len;
    uint8_t mask = masked ? 0x80 : 0;
    *to++ = first;
    if (len < 126) {
        *to++ = (uint8_t)(mask | len);
    } else if (len < 65536) {
        *to++ = mask | 126;
        *to++ = (uint8_t)(len >> 8);
        *to++ = (uint8_t)len;
    } else {
        *to++ = mask | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            *to++ = (uint8_t)((uint64_t)len >> shift);
    }
    if (masked) {
        memset(to, 0, 4);
        to += 4;
    }
    if (len > 0)
        memcpy(to, bytes, len);
    wire_len = (size_t)(to - wire) + len;
}

static void send_wire(struct rig_end *end)
{
    rig_push(end, wire, wire_len, wire_len);
    wire_len = 0;
    rig_pull(end);
}

/* What a server says: unmasked frames. */
struct said {
    const uint8_t *at, *end;
    uint8_t first;
    const uint8_t *bytes;
    size_t len;
};

static struct said said(const struct rig_end *end)
{
    return (struct said){end->exchange->out, end->exchange->out + end->exchange->out_len, 0, NULL,
                         0};
}

static bool said_next(struct said *said)
{
    if (said->end - said->at < 2)
        return false;
    said->first = said->at[0];
    said->len = said->at[1];
    CHECK(said->len < 128); /* no mask */
    said->bytes = said->at + 2;
    if (said->len == 126) {
        said->len = (size_t)said->at[2] << 8 | said->at[3];
        said->bytes += 2;
    } else if (said->len == 127) {
        said->len = (size_t)said->at[7] << 16 | (size_t)said->at[8] << 8 | said->at[9];
        said->bytes += 8;
    }
    said->at = said->bytes + said->len;
    REQUIRE(said->at <= said->end);
    return true;
}

/* A server's end that has said HELLO and heard it. */
static void accept_end(struct rig_end *end)
{
    wire_len = 0;
    rig_new(end, false, true);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    put(FIN | BINARY, packet.bytes, packet.len, true);
    send_wire(end);
    CHECK_UINT(end->opens, 1);
    end->exchange->out_len = 0;
    raw_clear(&packet);
}

/* Its last words are a close frame of this code; in front of it there may be GOAWAY with an error. */
static void expect_close(struct rig_end *end, unsigned code, const char *error)
{
    struct said frame = said(end);
    bool found = false;
    bool told = error == NULL;
    while (said_next(&frame)) {
        CHECK(!found);
        if (frame.first == (FIN | BINARY) && error) {
            struct bm_bytes rest = bm_bytes(frame.bytes, frame.len);
            struct bm_frame last;
            while (bm_frame_next(&rest, &last) == 1)
                told |= last.kind == BM_FRAME_GOAWAY &&
                        memmem(last.payload, last.len, error, strlen(error)) != NULL;
        } else if (frame.first == (FIN | CLOSE)) {
            found = true;
            REQUIRE(frame.len >= 2);
            CHECK_UINT(frame.bytes[0] << 8 | frame.bytes[1], code);
        }
    }
    CHECK(found);
    CHECK(told);
    CHECK_UINT(end->closes, 1);
}

TEST(a_message_holds_whole_frames_and_no_more_than_it_may)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    static uint8_t body[60000];
    raw_put_open(&packet, 1, BM_MSG_END, "echo", body, sizeof(body));
    put(FIN | BINARY, packet.bytes, packet.len, true);
    raw_clear(&packet);
    raw_put_open(&packet, 3, BM_MSG_END, "echo", body, 5000);
    raw_put_open(&packet, 5, BM_MSG_END, "echo", body, 5000);
    put(FIN | BINARY, packet.bytes, packet.len, true);
    send_wire(&end);

    struct said message = said(&end);
    unsigned messages = 0, ends = 0;
    while (said_next(&message)) {
        struct bm_bytes rest = bm_bytes(message.bytes, message.len);
        struct bm_frame frame;
        int r;
        CHECK_UINT(message.first, FIN | BINARY);
        CHECK(message.len <= BM_WEBSOCKET_PIPE_MESSAGE_MAX);
        messages++;
        while ((r = bm_frame_next(&rest, &frame)) == 1)
            ends += frame.kind == BM_FRAME_MSG && (frame.flags & BM_MSG_END);
        CHECK_INT(r, 0);
    }
    CHECK_UINT(ends, 3);
    CHECK(messages >= 2);
    rig_free(&end);
    rig_end();
}

TEST(a_message_in_fragments_is_one)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    raw_put_open(&packet, 1, BM_MSG_END, "echo", "0123456789", 10);
    put(BINARY, packet.bytes, 21, true);
    put(FIN | PING, "p", 1, true);
    put(CONTINUATION, packet.bytes + 21, packet.len - 22, true);
    put(FIN | CONTINUATION, packet.bytes + packet.len - 1, 1, true);
    send_wire(&end);
    CHECK_UINT(end.closes, 0);
    struct said message = said(&end);
    bool pong = false, answered = false;
    while (said_next(&message)) {
        pong |= message.first == (FIN | 10) && message.len == 1;
        answered |=
            message.first == (FIN | BINARY) && memmem(message.bytes, message.len, "0123456789", 10);
    }
    CHECK(pong);
    CHECK(answered);
    rig_free(&end);
    rig_end();
}

static void end_orderly(struct rig_end *end)
{
    CHECK(end->exchange->ended || end->exchange->closed);
    rig_push_end(end);
    CHECK(end->exchange->closed && !end->exchange->reset);
    rig_free(end);
}

TEST(who_breaks_the_rules_of_websocket_hears_which)
{
    struct rig_end end;
    static uint8_t long_message[BM_WEBSOCKET_PIPE_MESSAGE_MAX + 8];
    rig_begin();

    test_note("text");
    accept_end(&end);
    put(FIN | TEXT, "hello", 5, true);
    send_wire(&end);
    expect_close(&end, 1003, NULL);
    end_orderly(&end);

    test_note("no mask");
    accept_end(&end);
    raw_put_ping(&packet, 1);
    put(FIN | BINARY, packet.bytes, packet.len, false);
    send_wire(&end);
    expect_close(&end, 1002, NULL);
    end_orderly(&end);

    test_note("a message too long");
    accept_end(&end);
    put(FIN | BINARY, long_message, sizeof(long_message), true);
    send_wire(&end);
    expect_close(&end, 1009, NULL);
    end_orderly(&end);

    test_note("a message too long, in fragments");
    accept_end(&end);
    bm_put_u64(long_message, 0); /* an unknown kind that is passed over */
    bm_put_u32(long_message + 8, 65000);
    long_message[12] = 0x80;
    put(BINARY, long_message, 65024, true);
    put(CONTINUATION, long_message, 1000, true);
    send_wire(&end);
    expect_close(&end, 1009, NULL);
    end_orderly(&end);
    memset(long_message, 0, 16);

    rig_end();
}

TEST(who_breaks_the_rules_of_a_session_hears_it_before_1008)
{
    struct rig_end end;
    rig_begin();

    test_note("a frame that runs past its message");
    accept_end(&end);
    raw_put_open(&packet, 1, BM_MSG_END, "echo", "0123456789", 10);
    put(FIN | BINARY, packet.bytes, packet.len - 8, true);
    put(FIN | BINARY, packet.bytes + packet.len - 8, 8, true);
    send_wire(&end);
    expect_close(&end, 1008, "FRAME_TRUNCATED");
    /* The peer answers the close, then its own connection ends. */
    put(FIN | CLOSE, "\x03\xf0", 2, true);
    send_wire(&end);
    end_orderly(&end);

    test_note("a frame longer than allowed");
    accept_end(&end);
    _Alignas(8) uint8_t frame[24] = {0};
    bm_put_u32(frame + 8, 70000);
    frame[12] = 0x80;
    put(FIN | BINARY, frame, sizeof(frame), true);
    send_wire(&end);
    expect_close(&end, 1008, "FRAME_OVERSIZED");
    put(FIN | CLOSE, "\x03\xf0", 2, true);
    send_wire(&end);
    end_orderly(&end);
    rig_end();
}

TEST(an_end_in_order_is_goaway_and_1000)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    beam_session_drain(end.session);
    rig_pull(&end);
    struct said frame = said(&end);
    REQUIRE(said_next(&frame));
    CHECK_UINT(frame.first, FIN | BINARY);
    CHECK_UINT(frame.bytes[12], BM_FRAME_GOAWAY);
    REQUIRE(said_next(&frame));
    CHECK_UINT(frame.first, FIN | CLOSE);
    CHECK_UINT(frame.bytes[0] << 8 | frame.bytes[1], 1000);
    CHECK(!said_next(&frame));
    put(FIN | CLOSE, "\x03\xe8", 2, true);
    send_wire(&end);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_OK);
    end_orderly(&end);
    rig_end();
}

TEST(a_close_that_nobody_answers_is_waited_for_a_while)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    beam_session_drain(end.session);
    rig_pull(&end);
    CHECK_UINT(end.closes, 0);
    rig_advance(BM_WEBSOCKET_CLOSE_NS + BM_NS_PER_S);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    CHECK(end.exchange->reset);
    rig_free(&end);
    rig_end();
}

TEST(a_connection_that_is_lost_without_a_close_is_a_loss)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    rig_push_end(&end);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    end_orderly(&end);
    rig_end();
}

TEST(a_client_says_nothing_before_its_request_is_answered)
{
    struct rig_end end;
    rig_begin();
    rig_new(&end, true, true);
    rig_pull(&end);
    CHECK_UINT(end.exchange->out_len, 0);
    end.ns->answered = true; /* as after a good answer */
    rig_pull(&end);
    CHECK(end.exchange->out_len > 0);
    CHECK_UINT(end.exchange->out[0], FIN | BINARY);
    CHECK(end.exchange->out[1] & 0x80); /* masked */
    rig_free(&end);
    rig_end();
}

/* Every row of tests/vectors/http_session.json: what one message does to a session that has been greeted. */
TEST(the_vectors_of_messages_hold)
{
    struct vectors vectors;
    rig_begin();
    vectors_load("http_session.json", &vectors);
    REQUIRE(vectors.count > 0);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *row = &vectors.items[i];
        struct rig_end end;
        size_t len;
        test_note("%s", vector_str(row, "name"));
        uint8_t *bytes = vector_hex(row, "hex", &len);
        const char *error = vector_str(row, "error");
        accept_end(&end);
        rig_push(&end, bytes, len, len);
        rig_pull(&end);
        if (vector_int(row, "close", 0) == 0) {
            CHECK_UINT(end.closes, 0);
            rig_free(&end);
        } else {
            expect_close(&end, (unsigned)vector_int(row, "close", 0), error);
            rig_push_end(&end);
            rig_free(&end);
        }
        free(bytes);
    }
    vectors_free(&vectors);
    rig_end();
}
