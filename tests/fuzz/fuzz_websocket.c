/* Any bytes as the frames of a peer of WebSocket, to both roles and in pieces. A second reader,
 * written from RFC 6455, says what is in them and with which code the connection ends; and what
 * comes out is understood by the other role.
 *
 * Covers: net/proto/websocket.c net/proto/outbox.c:-bm_outbox_append */
#include <beam/error.h>

#include <errno.h>

#include "net/proto/websocket.h"
#include "tests/fuzz/fuzz.h"

#define MESSAGE_MAX 3000u

/* What a reader has seen, in a row: each byte of a message behind a 'D', 'E' at its end, 'C' and
 * what stood in a close frame. */
struct seen {
    uint8_t bytes[1 << 14];
    size_t len;
    unsigned sent_code; /* of the close frame that is sent; 0: none; 1005: empty */
    int r;
};

static void see(struct seen *seen, char kind, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        EXPECT(seen->len + 2 <= sizeof(seen->bytes));
        seen->bytes[seen->len++] = (uint8_t)kind;
        seen->bytes[seen->len++] = bytes[i];
    }
}

static void see_mark(struct seen *seen, char kind)
{
    see(seen, kind, (const uint8_t *)&kind, 1);
}

/* ---- the second reader ---- */

struct reader {
    const uint8_t *pos, *end;
    bool client, in_message;
    uint64_t message_len;
    unsigned tokens;
    struct seen *seen;
};

static void refuse(struct reader *reader, unsigned code, int error)
{
    reader->seen->sent_code = code;
    reader->seen->r = error;
}

/* Code point by code point, each written again in the one form that it has. */
static bool is_text(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned lead = p[i], more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
        unsigned long c = more == 0 ? lead : lead & (0x3fu >> more);
        if (lead >= 0xf8 || (lead >= 0x80 && lead < 0xc0) || i + more >= len)
            return false;
        for (unsigned j = 1; j <= more; j++) {
            if ((p[i + j] & 0xc0) != 0x80)
                return false;
            c = c << 6 | (p[i + j] & 0x3f);
        }
        unsigned need = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        if (need != more || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return false;
        i += more + 1;
    }
    return true;
}

static void read_close(struct reader *reader, const uint8_t *p, size_t len)
{
    unsigned code = len >= 2 ? (unsigned)p[0] << 8 | p[1] : 1005;
    bool known = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                 (code >= 3000 && code < 5000);
    if (len == 1 || (len >= 2 && !known)) {
        refuse(reader, 1002, -BEAM_EWEBSOCKET_PROTOCOL);
    } else if (len > 2 && !is_text(p + 2, len - 2)) {
        refuse(reader, 1007, -BEAM_EWEBSOCKET_DATA);
    } else {
        reader->seen->sent_code = code;
        reader->seen->r = BM_WEBSOCKET_CLOSED;
        uint8_t both[2] = {(uint8_t)(code >> 8), (uint8_t)code};
        see(reader->seen, 'C', both, 2);
        see(reader->seen, 'C', p + 2, len > 2 ? len - 2 : 0);
    }
}

/* One frame; false: there is no whole one, or none should be read any more. */
static bool read_frame(struct reader *reader)
{
    const uint8_t *p = reader->pos;
    size_t left = (size_t)(reader->end - p), head = 2;
    if (left < 2)
        return false;
    bool fin = p[0] & 0x80, masked = p[1] & 0x80;
    unsigned opcode = p[0] & 15, form = p[1] & 0x7f, more = form == 126 ? 2 : form == 127 ? 8 : 0;
    uint64_t len = more ? 0 : form;
    if (opcode >= 8 && (!fin || form > 125))
        return refuse(reader, 1002, -BEAM_EWEBSOCKET_PROTOCOL), false;
    if (left < head + more)
        return false;
    for (unsigned i = 0; i < more; i++)
        len = len << 8 | p[head++];
    if ((more == 2 && len < 126) || (more == 8 && (len < 65536 || len >> 63)))
        return refuse(reader, 1002, -BEAM_EWEBSOCKET_PROTOCOL), false;
    const uint8_t *key = p + head;
    head += masked ? 4 : 0;
    if (left < head || (left == head && len > 0))
        return false;
    size_t there = left - head < len ? left - head : (size_t)len;
    if (p[0] & 0x70 || (opcode > 2 && opcode < 8) || opcode > 10 || masked == reader->client)
        return refuse(reader, 1002, -BEAM_EWEBSOCKET_PROTOCOL), false;
    if ((opcode >= 8 || len == 0) && reader->tokens-- == 0)
        return refuse(reader, 1008, -BEAM_EWEBSOCKET_FLOOD), false;
    if (opcode < 8 && (opcode == 0) != reader->in_message)
        return refuse(reader, 1002, -BEAM_EWEBSOCKET_PROTOCOL), false;
    if (opcode == 1)
        return refuse(reader, 1003, -BEAM_EWEBSOCKET_DATA), false;
    uint8_t *payload = malloc(there + 1);
    for (size_t i = 0; i < there; i++)
        payload[i] = p[head + i] ^ (masked ? key[i % 4] : 0);
    if (opcode < 8) {
        reader->message_len = opcode == 2 ? len : reader->message_len + len;
        if (reader->message_len > MESSAGE_MAX) {
            refuse(reader, 1009, -BEAM_EWEBSOCKET_TOO_LARGE);
        } else {
            see(reader->seen, 'D', payload, there);
            reader->in_message = !(fin && there == len);
            if (!reader->in_message)
                see_mark(reader->seen, 'E');
        }
    } else if (opcode == 8 && there == len) {
        read_close(reader, payload, there);
    }
    free(payload);
    reader->pos += head + there;
    return reader->seen->r == 0 && there == len;
}

/* ---- what is tried ---- */

struct end {
    struct bm_websocket *websocket;
    struct bm_account account;
    struct seen seen;
    bool open; /* a message has begun */
    uint8_t *out;
    size_t out_len;
};

static void on_data(struct bm_websocket *websocket, const uint8_t *bytes, size_t len, bool done,
                    void *arg)
{
    struct end *end = arg;
    struct bm_bytes back[] = {bm_bytes("<", 1), bm_bytes(bytes, len)};
    EXPECT(len > 0 || done);
    see(&end->seen, 'D', bytes, len);
    if (done)
        see_mark(&end->seen, 'E');
    EXPECT(bm_websocket_send(websocket, back, 2) == 0);
}

static void on_close(struct bm_websocket *websocket, uint16_t code, const char *reason, size_t len,
                     void *arg)
{
    struct end *end = arg;
    uint8_t both[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    see(&end->seen, 'C', both, 2);
    see(&end->seen, 'C', (const uint8_t *)reason, len);
    EXPECT(bm_websocket_send(websocket, NULL, 0) == -EPIPE);
}

static const struct bm_websocket_handlers handlers = {.on_data = on_data, .on_close = on_close};

static void start(struct end *end, bool client, uint64_t message_len_max)
{
    memset(end, 0, sizeof(*end));
    struct bm_websocket_options options = {.client = client,
                                           .account = &end->account,
                                           .handlers = &handlers,
                                           .arg = end,
                                           .message_len_max = message_len_max};
    EXPECT(bm_websocket_new(&options, &end->websocket) == 0);
}

static void drain(struct end *end)
{
    const uint8_t *bytes;
    size_t len;
    while ((bytes = bm_websocket_output(end->websocket, &len)) != NULL) {
        end->out = realloc(end->out, end->out_len + len);
        memcpy(end->out + end->out_len, bytes, len);
        end->out_len += len;
        bm_websocket_output_ack(end->websocket, len);
    }
}

/* Closes what is not closed; nobody waits for ever. */
static void expect_end(struct end *end)
{
    int r = end->seen.r;
    EXPECT(bm_websocket_close(end->websocket, 1000, "", 7) == (r == 0 ? 0 : -EPIPE));
    drain(end);
    uint64_t deadline = bm_websocket_next_ns(end->websocket);
    EXPECT((deadline == UINT64_MAX) == (r < 0));
    EXPECT(r < 0 || bm_websocket_tick(end->websocket, deadline - 1) == 0);
    int s = bm_websocket_tick(end->websocket, deadline);
    EXPECT(s == (r < 0 ? r : r == 0 ? -ETIMEDOUT : 0));
    EXPECT(bm_websocket_receive_end(end->websocket) == s);
    EXPECT(bm_websocket_over(end->websocket) == 1);
}

static void stop(struct end *end)
{
    expect_end(end);
    bm_websocket_free(end->websocket);
    EXPECT(end->account.used == 0);
    free(end->out);
}

static void run(struct end *end, const uint8_t *data, size_t size, size_t piece)
{
    int r = 0;
    for (size_t at = 0; at < size && r == 0; at += piece) {
        size_t len = size - at < piece ? size - at : piece;
        uint8_t *copy = fuzz_copy(data + at, len);
        r = bm_websocket_receive(end->websocket, copy, len, 0);
        free(copy);
    }
    end->seen.r = r;
    uint8_t byte = 0;
    EXPECT(bm_websocket_receive(end->websocket, &byte, r == 0 ? 0 : 1, 0) == r);
    EXPECT(end->account.used < 100000);
    drain(end);
    EXPECT(bm_websocket_over(end->websocket) == 0 || r != 0);
}

/* The other role gets the code that is expected, and nothing that it refuses. */
static void expect_understood(const struct end *said, bool client, unsigned code)
{
    static struct end other;
    start(&other, !client, 0);
    int r = 0;
    if (said->out_len > 0)
        r = bm_websocket_receive(other.websocket, said->out, said->out_len, 0);
    EXPECT(r == (code ? BM_WEBSOCKET_CLOSED : 0));
    other.seen.r = r;
    drain(&other);
    if (code) {
        const uint8_t *last = other.seen.bytes + other.seen.len - 4;
        EXPECT(other.seen.len >= 4 && last[1] == code >> 8 && last[3] == (code & 0xff));
    }
    stop(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct end whole, pieces;
    static struct seen expected;
    if (size < 2)
        return 0;
    bool client = data[0] & 1;
    size_t piece = 1 + data[1] % 64u + size / 256; /* long ones in not too many */
    memset(&expected, 0, sizeof(expected));
    struct reader reader = {.pos = data + 2,
                            .end = data + size,
                            .client = client,
                            .tokens = BM_WEBSOCKET_FRAMES_BURST,
                            .seen = &expected};
    while (read_frame(&reader))
        ;
    for (unsigned i = 0; i < 2; i++) {
        struct end *end = i ? &pieces : &whole;
        start(end, client, MESSAGE_MAX);
        run(end, data + 2, size - 2, i ? piece : SIZE_MAX / 2);
        EXPECT(end->seen.r == expected.r);
        EXPECT(end->seen.len == expected.len &&
               memcmp(end->seen.bytes, expected.bytes, expected.len) == 0);
        expect_understood(end, client, expected.sent_code);
        stop(end);
    }
    return 0;
}
