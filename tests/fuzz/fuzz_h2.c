/* A conversation over HTTP/2: bytes of a hostile peer, in pieces, between steps of a program that
 * answers, resets, holds, consumes or does not, drains, and of time that passes. Nothing may crash.
 * Whatever comes: each stream that was shown is closed once, an end comes at most once and never
 * behind it, no more bytes are delivered than windows allow, the output keeps to its bound and is
 * made of whole frames, and all memory is given back.
 *
 * Covers: net/proto/h2.c net/proto/h2_stream.c net/proto/h2_life.c net/proto/h2_guard.c
 *   net/proto/h2_block.c net/proto/outbox.c:-bm_outbox_append net/proto/h2_memory.c net/proto/budget.c */
#include "net/proto/h2.h"
#include "tests/fuzz/fuzz.h"

#define STREAMS_MAX 256u

enum { ANSWER, RESET, HOLD, STOP, CONSUME, RESUME, INFORM, WINDOW, STEPS };

struct body {
    struct bm_h2_stream *stream; /* NULL: gone */
    size_t left;
    uint64_t came; /* bytes not consumed */
    bool open, held, ended, paused;
};

static struct bm_account account;
static struct bm_h2 *h2;
static bool is_server;
static struct fuzz_input *input;
static struct body bodies[STREAMS_MAX];
static unsigned bodies_count, shown, closed;
static uint64_t now_ns;
static size_t frame_left, head_len, preface_left; /* of the output */
static uint8_t head[9];

static struct body *body_new(struct bm_h2_stream *stream)
{
    EXPECT(bodies_count < STREAMS_MAX);
    struct body *body = &bodies[bodies_count++];
    *body = (struct body){.stream = stream, .open = true, .left = fuzz_byte(input) * 64u};
    bm_h2_stream_set_arg(stream, body);
    shown++;
    return body;
}

static ssize_t read_body(struct bm_h2_stream *stream, uint8_t *buf, size_t cap, bool *ret_end,
                         void *arg)
{
    struct body *body = arg;
    EXPECT(body->open && cap > 0);
    if (body->left % 128 == 64 && !body->paused) {
        body->paused = true;
        if (body->left % 256 == 64) { /* has something all the same, and others, too */
            bm_h2_stream_resume(stream);
            if (bodies[0].stream)
                bm_h2_stream_resume(bodies[0].stream);
        }
        return 0;
    }
    size_t len = body->left < cap ? body->left : cap;
    memset(buf, 'b', len);
    body->left -= len;
    *ret_end = body->left == 0;
    return (ssize_t)len;
}

static void step_stream(struct body *body, uint8_t what)
{
    static const struct bm_field field = {
        .name = "x-field", .name_len = 7, .value = "value", .value_len = 5, .secret = true};
    struct bm_h2_stream *stream = body->stream;
    switch (what % STEPS) {
    case ANSWER:
        bm_h2_respond(stream, 200 + what, &field, what & 1, what & 2 ? read_body : NULL);
        break;
    case RESET:
        bm_h2_stream_reset(stream, what);
        break;
    case HOLD:
        if (body->held) {
            body->held = false;
            if (!body->open)
                body->stream = NULL;
            bm_h2_stream_release(stream);
        } else if (body->open) {
            body->held = true;
            bm_h2_stream_hold(stream);
        }
        break;
    case STOP:
        bm_h2_stream_stop(stream);
        break;
    case CONSUME:
        bm_h2_stream_consumed(stream, body->came);
        body->came = 0;
        break;
    case RESUME:
        bm_h2_stream_resume(stream);
        break;
    case INFORM:
        bm_h2_inform(stream, 100 + what % 8, &field, 1);
        break;
    case WINDOW:
        bm_h2_stream_window(stream, (uint32_t)what << 12);
        break;
    }
}

static void on_request(struct bm_h2_stream *stream, const struct bm_h2_request *request, void *arg)
{
    EXPECT(is_server && request->method.len > 0 && request->fields_count <= BM_H2_FIELDS_MAX);
    size_t len = request->method.len + request->scheme.len + request->authority.len +
                 request->path.len + request->protocol.len;
    for (size_t i = 0; i < request->fields_count; i++) {
        EXPECT(request->fields[i].name_len > 0);
        EXPECT(!memchr(request->fields[i].name, ':', 1));
        EXPECT(!memchr(request->fields[i].value, '\n', request->fields[i].value_len));
        len += request->fields[i].name_len + request->fields[i].value_len;
    }
    EXPECT(len <= BM_H2_FIELDS_LEN_MAX);
    EXPECT(request->authority.len > 0);
    if (bodies_count == STREAMS_MAX) { /* not looked at; it is closed all the same */
        shown++;
        bm_h2_stream_reset(stream, BM_H2_CANCEL);
        return;
    }
    step_stream(body_new(stream), fuzz_byte(input));
}

static void on_response(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                        size_t count, void *arg)
{
    struct body *body = bm_h2_stream_arg(stream);
    EXPECT(!is_server && body->open && !body->ended && status >= 100 && status <= 999);
    EXPECT(count <= BM_H2_FIELDS_MAX);
}

static void on_data(struct bm_h2_stream *stream, const uint8_t *bytes, size_t len, void *arg)
{
    struct body *body = bm_h2_stream_arg(stream);
    EXPECT(body && body->open && !body->ended && len > 0);
    body->came += len;
    EXPECT(body->came <= BM_H2_WINDOW_CONNECTION + 16384);
}

static void on_end(struct bm_h2_stream *stream, void *arg)
{
    struct body *body = bm_h2_stream_arg(stream);
    EXPECT(body && body->open && !body->ended && bm_h2_stream_ended_in(stream));
    body->ended = true;
}

static void on_close(struct bm_h2_stream *stream, uint32_t code, void *arg)
{
    struct body *body = bm_h2_stream_arg(stream);
    closed++;
    EXPECT(bm_h2_stream_closed(stream));
    if (!body)
        return;
    EXPECT(body->open && body->stream == stream);
    body->open = false;
    if (!body->held)
        body->stream = NULL;
}

static void on_pong(struct bm_h2 *connection, uint64_t token, uint64_t rtt_ns, void *arg)
{
    EXPECT(token == 4711);
}

static const struct bm_h2_handlers handlers = {
    .on_request = on_request,
    .on_response = on_response,
    .on_data = on_data,
    .on_end = on_end,
    .on_close = on_close,
    .on_pong = on_pong,
};

/* The output is frames of at most 16 KiB, whatever the pieces it is taken in. */
static void look_at(const uint8_t *bytes, size_t len)
{
    for (const uint8_t *pos = bytes, *end = bytes + len; pos < end;) {
        if (preface_left > 0) {
            preface_left--;
            pos++;
        } else if (frame_left > 0) {
            size_t part = (size_t)(end - pos) < frame_left ? (size_t)(end - pos) : frame_left;
            frame_left -= part;
            pos += part;
        } else {
            head[head_len++] = *pos++;
            if (head_len < 9)
                continue;
            head_len = 0;
            frame_left = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
            EXPECT(frame_left <= 16384 && head[3] <= 9);
        }
    }
}

static void take_output(size_t most)
{
    size_t len;
    const uint8_t *out = bm_h2_output(h2, &len);
    /* Who waits until there is no more does not wait for ever. */
    for (unsigned i = 0; len == 0 && bm_h2_output_more(h2); i++) {
        EXPECT(i < 8);
        out = bm_h2_output(h2, &len);
    }
    EXPECT(len <= BM_H2_OUTPUT_LEN + 17);
    if (len > most)
        len = most;
    if (len > 0)
        look_at(out, len);
    bm_h2_output_ack(h2, len, now_ns);
}

static void give_input(void)
{
    size_t len = fuzz_byte(input);
    const uint8_t *view = fuzz_view(input, &len);
    uint8_t *copy = fuzz_copy(view, len);
    int over = bm_h2_over(h2);
    int r = bm_h2_receive(h2, copy, len, now_ns);
    EXPECT(r <= 0 && (over >= 0 || r == over));
    free(copy);
}

static void request(uint8_t what)
{
    struct bm_h2_request wanted = {
        .method = {"POST", 4}, .scheme = {"https", 5}, .authority = {"a", 1}, .path = {"/", 1}};
    struct bm_h2_stream *stream;
    if (bodies_count == STREAMS_MAX)
        return;
    /* The source is asked later, when the body is there. */
    if (bm_h2_request(h2, &wanted, what & 1 ? read_body : NULL, &bodies[bodies_count], &stream) ==
        0)
        body_new(stream);
}

static void step(void)
{
    uint8_t what = fuzz_byte(input);
    switch (what % 8) {
    case 0:
    case 1:
    case 2:
        give_input();
        break;
    case 3:
        take_output(what & 8 ? SIZE_MAX : fuzz_byte(input));
        break;
    case 4:
        if (bodies_count > 0) {
            struct body *body = &bodies[what / 8 % bodies_count];
            if (body->stream)
                step_stream(body, fuzz_byte(input));
        }
        break;
    case 5:
        now_ns += fuzz_u64(input) % (20 * BM_NS_PER_S);
        bm_h2_tick(h2, now_ns);
        break;
    case 6:
        if (is_server || what >= 128)
            bm_h2_ping(h2, 4711);
        else
            request(what / 8);
        break;
    case 7:
        if (what == 7)
            bm_h2_drain(h2);
        else
            take_output(SIZE_MAX);
        break;
    }
    EXPECT(bm_h2_next_ns(h2) > 0 && bm_h2_over(h2) <= 1);
    EXPECT(bm_h2_streams(h2) <= BM_H2_STREAMS_MAX + shown);
    EXPECT(bm_h2_rtt_ns(h2) <= now_ns);
    for (unsigned i = 0; i < bodies_count; i++) {
        const struct bm_h2_stream *stream = bodies[i].stream;
        if (!stream)
            continue;
        EXPECT(bm_h2_stream_id(stream) % 2 == 1 && bm_h2_stream_connection(stream) == h2);
        EXPECT(bm_h2_stream_closed(stream) == !bodies[i].open);
        uint64_t since_ns = bm_h2_stream_blocked_since_ns(stream);
        EXPECT(since_ns == UINT64_MAX || (since_ns <= now_ns && !bm_h2_stream_ended_out(stream)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t greeting[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    struct fuzz_input in = {data, data + size};
    input = &in;
    uint8_t how = fuzz_byte(input);
    is_server = how & 1;
    account = (struct bm_account){.limit = how & 2 ? (64u + how) << 10 : 0};
    bodies_count = shown = closed = 0;
    now_ns = BM_NS_PER_S;
    frame_left = head_len = 0;
    preface_left = is_server ? 0 : 24;
    struct bm_h2_options options = {.server = is_server,
                                    .handlers = &handlers,
                                    .now_ns = now_ns,
                                    .streams_total_max = how & 4 ? 20 : 0};
    if (bm_h2_new(&account, &options, &h2) == 0) {
        if (how & 8) /* past what every connection begins with */
            bm_h2_receive(h2, is_server ? greeting : greeting + 24,
                          sizeof(greeting) - 1 - (is_server ? 0 : 24), now_ns);
        while (in.pos < in.end)
            step();
        if (how & 16)
            for (unsigned i = 0; i < 1000 && bm_h2_output_more(h2) && !(how & 2); i++)
                take_output(SIZE_MAX);
        bm_h2_lost(h2, BM_H2_CANCEL);
        EXPECT(closed == shown);
        for (unsigned i = 0; i < bodies_count; i++)
            if (bodies[i].held)
                bm_h2_stream_release(bodies[i].stream);
        EXPECT(bm_h2_streams(h2) == 0);
        h2 = bm_h2_free(h2);
    }
    EXPECT(account.used == 0);
    return 0;
}
