/* Any bytes as what a peer of HTTP/1 sends, to a server or to a client that has asked. In whatever
 * pieces they come, the same is seen of them; what is handed on keeps to its limits; whoever is
 * refused is told, and what a server says a client understands.
 *
 * Covers: net/proto/http1.c net/proto/http1_parser.c net/proto/http1_line.c net/proto/http1_head.c
 * net/proto/field.c */
#include <errno.h>

#include "net/proto/http1.h"
#include "tests/fuzz/fuzz.h"

/* How it is gone about: the first byte of an input. */
enum {
    AS_CLIENT = 1,
    ASKED_HEAD = 2,
    ASKED_UPGRADE = 4,
    FROM_SOURCE = 8, /* answers come from a source, */
    LATER = 16,      /* ... or when the request is whole */
    HOLDS = 32,
    UPGRADES = 64,
    ENDS = 128, /* the peer ends its side in the end */
};

struct end {
    struct bm_http1 *http;
    struct bm_account account;
    uint8_t mode;
    uint8_t seen[1 << 16]; /* what it was told: all of it in a row */
    size_t seen_len;
    uint8_t *out;
    size_t out_len;
    unsigned messages, last_status;
    bool open, head, upgrade;
    unsigned given;
};

static void see(struct end *end, const void *bytes, size_t len)
{
    if (len > sizeof(end->seen) - end->seen_len)
        len = sizeof(end->seen) - end->seen_len;
    memcpy(end->seen + end->seen_len, bytes, len);
    end->seen_len += len;
}

static ssize_t give(void *arg, uint8_t *buf, size_t len, bool *ret_end)
{
    struct end *end = arg;
    EXPECT(len > 0);
    *buf = 'x';
    end->given++;
    *ret_end = end->given % 3 == 0;
    return end->given % 3 != 1;
}

static const struct bm_http1_source source = {.read = give};

static void answer(struct end *end)
{
    struct bm_http1_answer answer = {.status = 200, .body = {.len = 2, .bytes = "ok"}};
    struct bm_field field = BM_FIELD("x", "y");
    answer.fields = &field;
    answer.field_count = 1;
    if (end->mode & FROM_SOURCE)
        answer.body = (struct bm_http1_body){.len = -1, .source = &source, .arg = end};
    if (end->mode & UPGRADES && end->upgrade) {
        answer.status = 101;
        answer.upgrade = "x";
        answer.body = (struct bm_http1_body){0};
    }
    EXPECT(bm_http1_answer(end->http, &answer) == 0);
    EXPECT(bm_http1_answer(end->http, &answer) == -ENOTCONN);
}

static void on_message(struct bm_http1 *http, const struct bm_http1_message *message, void *arg)
{
    struct end *end = arg;
    (void)http;
    EXPECT(!end->open);
    EXPECT(message->field_count <= BM_HTTP1_FIELDS_MAX && message->minor_version <= 1);
    EXPECT(message->body_len >= -1 && message->body_len <= (int64_t)BM_HTTP1_BODY_MAX);
    end->open = true;
    end->upgrade = message->upgrade;
    end->last_status = (unsigned)message->status;
    if (end->messages++ == 0)
        end->head = message->method_len == 4 && memcmp(message->method, "HEAD", 4) == 0;
    see(end, "M", 1);
    if (!(end->mode & AS_CLIENT)) {
        EXPECT(message->path_len > 0 && (message->path[0] == '/' || message->path[0] == '*'));
        EXPECT(bm_field_is_name(message->method, message->method_len));
        EXPECT(bm_field_is_value(message->authority, message->authority_len));
        see(end, message->method, message->method_len);
        see(end, message->path, message->path_len);
        see(end, message->authority, message->authority_len);
    }
    for (size_t i = 0; i < message->field_count; i++) {
        const struct bm_field *field = &message->fields[i];
        EXPECT(bm_field_is_name(field->name, field->name_len));
        EXPECT(bm_field_is_value(field->value, field->value_len));
        for (size_t j = 0; j < field->name_len; j++)
            EXPECT(field->name[j] < 'A' || field->name[j] > 'Z');
        see(end, field->name, field->name_len);
        see(end, field->value, field->value_len);
    }
    if (end->mode & HOLDS)
        bm_http1_hold(http, true);
    if (!(end->mode & (AS_CLIENT | LATER)))
        answer(end);
}

static void on_body(struct bm_http1 *http, const uint8_t *bytes, size_t len, void *arg)
{
    struct end *end = arg;
    (void)http;
    EXPECT(end->open && len > 0);
    see(end, bytes, len);
}

static void on_message_end(struct bm_http1 *http, void *arg)
{
    struct end *end = arg;
    (void)http;
    EXPECT(end->open);
    end->open = false;
    see(end, "E", 1);
    if ((end->mode & (AS_CLIENT | LATER)) == LATER)
        answer(end);
}

static void on_sent(struct bm_http1 *http, void *arg)
{
    (void)http;
    (void)arg;
}

static void on_abort(struct bm_http1 *http, int error, void *arg)
{
    struct end *end = arg;
    (void)http;
    EXPECT(error < 0);
    end->open = false;
    see(end, "A", 1);
}

static const struct bm_http1_handlers handlers = {.on_message = on_message,
                                                  .on_body = on_body,
                                                  .on_message_end = on_message_end,
                                                  .on_sent = on_sent,
                                                  .on_abort = on_abort};

static void drain(struct end *end)
{
    const uint8_t *bytes;
    size_t len;
    while ((bytes = bm_http1_output(end->http, &len)) != NULL) {
        end->out = realloc(end->out, end->out_len + len);
        memcpy(end->out + end->out_len, bytes, len);
        end->out_len += len;
        bm_http1_output_ack(end->http, len);
    }
    bm_http1_resume(end->http);
}

static void start(struct end *end, uint8_t mode)
{
    memset(end, 0, sizeof(*end));
    end->mode = mode;
    struct bm_http1_options options = {
        .client = mode & AS_CLIENT, .account = &end->account, .handlers = &handlers, .arg = end};
    EXPECT(bm_http1_new(&options, &end->http) == 0);
    struct bm_http1_ask ask = {.method = mode & ASKED_HEAD ? "HEAD" : "GET",
                               .target = "/",
                               .authority = "a",
                               .upgrade = mode & ASKED_UPGRADE ? "x" : NULL};
    EXPECT(!(mode & AS_CLIENT) || bm_http1_ask(end->http, &ask) == 0);
    drain(end);
    end->out_len = 0;
}

/* Nobody waits for ever. */
static void expect_deadline(struct end *end)
{
    if (bm_http1_next_ns(end->http) == UINT64_MAX)
        return;
    EXPECT(bm_http1_tick(end->http, 1) == 0); /* what is waited for begins */
    uint64_t deadline = bm_http1_next_ns(end->http);
    EXPECT(bm_http1_tick(end->http, deadline - 1) == 0);
    EXPECT(bm_http1_tick(end->http, deadline) == -ETIMEDOUT);
    EXPECT(bm_http1_over(end->http) == 1 || bm_http1_output(end->http, &(size_t){0}) != NULL);
}

static void stop(struct end *end)
{
    expect_deadline(end);
    bm_http1_free(end->http);
    EXPECT(end->account.used == 0);
    free(end->out);
}

/* Gives it in pieces until it takes no more. Returns what it said last. */
static int run(struct end *end, const uint8_t *data, size_t size, size_t piece)
{
    int r = 0;
    for (size_t at = 0; at < size && r == 0;) {
        size_t len = size - at < piece ? size - at : piece, used = 0;
        uint8_t *copy = fuzz_copy(data + at, len);
        bool wanted = bm_http1_wants_input(end->http);
        r = bm_http1_receive(end->http, copy, len, 1, &used);
        free(copy);
        if (r < 0)
            break;
        EXPECT(used <= len && (used > 0 || !wanted) && (wanted || used == 0));
        EXPECT(used == len || !bm_http1_wants_input(end->http));
        at += used;
        size_t out_len = end->out_len;
        drain(end);
        if (used == 0 && out_len == end->out_len && !bm_http1_wants_input(end->http)) {
            if (!(end->mode & HOLDS))
                break;
            bm_http1_hold(end->http, false);
            if (!bm_http1_wants_input(end->http))
                break;
        }
    }
    if (r == 0 && end->mode & ENDS)
        r = bm_http1_receive_end(end->http);
    drain(end);
    drain(end); /* what a source had only then */
    drain(end);
    EXPECT(end->account.used < 200000);
    uint8_t byte = 0;
    size_t used = 0;
    if (r < 0) {
        EXPECT(bm_http1_receive(end->http, &byte, 1, 1, &used) == r);
        EXPECT(bm_http1_over(end->http) != 0 && !end->open);
        EXPECT(bm_http1_tick(end->http, UINT64_MAX) == r);
    }
    return r;
}

/* What a server said first is an answer to a client that asked the same way. */
static void expect_understood(const struct end *said)
{
    static struct end client;
    start(&client, AS_CLIENT | (said->head ? ASKED_HEAD : 0));
    size_t used = 0;
    int r = bm_http1_receive(client.http, said->out, said->out_len, 1, &used);
    if (r == 0) /* one that asks for HTTP/1.0 gets the body until the end */
        (void)bm_http1_receive_end(client.http);
    EXPECT(client.messages == 1); /* what comes behind it was not asked for */
    EXPECT(client.last_status == 200 || client.last_status >= 400);
    EXPECT(!client.open);
    stop(&client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct end whole, pieces;
    if (size < 2)
        return 0;
    uint8_t mode = data[0];
    size_t piece = 1 + data[1] % 64u + size / 256; /* long ones in not too many */
    start(&whole, mode);
    start(&pieces, mode);
    int r = run(&whole, data + 2, size - 2, SIZE_MAX);
    int s = run(&pieces, data + 2, size - 2, piece);
    /* A source is asked when output is taken, which decides how much of a body is waited for. */
    if (!(mode & FROM_SOURCE)) {
        EXPECT(r == s && whole.messages == pieces.messages);
        EXPECT(whole.seen_len == pieces.seen_len &&
               memcmp(whole.seen, pieces.seen, whole.seen_len) == 0);
    }
    if (!(mode & (AS_CLIENT | UPGRADES)) && whole.out_len > 0)
        expect_understood(&whole);
    EXPECT(!(mode & AS_CLIENT) || whole.out_len == 0);
    EXPECT(mode & AS_CLIENT || r >= 0 || whole.out_len > 0);
    stop(&whole);
    stop(&pieces);
    return 0;
}
