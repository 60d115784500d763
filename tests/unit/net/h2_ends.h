/* Ends of HTTP/2 connections for tests: what happens to one is written down as text, bytes go from
 * one to the other, or come from a test that makes frames of its own. */
#ifndef TEST_H2_ENDS_H
#define TEST_H2_ENDS_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/proto/h2.h"
#include "tests/support/test.h"

#define END_STREAMS_MAX 256u

/* One end. What its handlers do besides writing down is said in the fields. */
struct end {
    struct bm_account account;
    struct bm_h2 *h2;
    uint64_t now_ns;
    char log[4096];
    size_t log_len;
    bool quiet;    /* writes nothing down */
    bool consumes; /* gives back at once what comes */
    bool answers;  /* 200 with an end, as soon as a request comes */
    void (*on_request)(struct bm_h2_stream *, struct end *);
    struct bm_h2_stream *streams[END_STREAMS_MAX]; /* that came and are open; by id / 2 */
    struct bm_h2_stream *last;
    uint64_t data_len;
    unsigned requests, closes;
    uint32_t close_code;
};

__attribute__((format(printf, 2, 3))) static inline void end_say(struct end *end,
                                                                 const char *format, ...)
{
    va_list args;
    if (end->quiet)
        return;
    va_start(args, format);
    int len = vsnprintf(end->log + end->log_len, sizeof(end->log) - end->log_len, format, args);
    va_end(args);
    if (len > 0 && end->log_len + (size_t)len < sizeof(end->log))
        end->log_len += (size_t)len;
}

/* What was written down since the last time. */
static inline const char *end_said(struct end *end)
{
    static char said[4096];
    memcpy(said, end->log, end->log_len);
    said[end->log_len] = '\0';
    end->log_len = 0;
    return said;
}

static inline void end_remember(struct end *end, struct bm_h2_stream *stream,
                                struct bm_h2_stream *value)
{
    end->streams[bm_h2_stream_id(stream) / 2 % END_STREAMS_MAX] = value;
    end->last = value;
}

static inline void end_on_request(struct bm_h2_stream *stream, const struct bm_h2_request *request,
                                  void *arg)
{
    struct end *end = arg;
    end->requests++;
    end_say(end, "request %u %.*s %.*s://%.*s%.*s", bm_h2_stream_id(stream),
            BEAM_STR(request->method), BEAM_STR(request->scheme), BEAM_STR(request->authority),
            BEAM_STR(request->path));
    if (request->protocol.len > 0)
        end_say(end, " protocol=%.*s", BEAM_STR(request->protocol));
    for (size_t i = 0; i < request->fields_count; i++)
        end_say(end, " %.*s=%.*s%s", (int)request->fields[i].name_len, request->fields[i].name,
                (int)request->fields[i].value_len, request->fields[i].value,
                request->fields[i].secret ? "!" : "");
    end_say(end, "; ");
    end_remember(end, stream, stream);
    if (end->answers)
        CHECK_INT(bm_h2_respond(stream, 200, NULL, 0, NULL), 0);
    if (end->on_request)
        end->on_request(stream, end);
}

static inline void end_on_response(struct bm_h2_stream *stream, unsigned status,
                                   const struct bm_field *fields, size_t count, void *arg)
{
    struct end *end = arg;
    end_say(end, "response %u %u", bm_h2_stream_id(stream), status);
    for (size_t i = 0; i < count; i++)
        end_say(end, " %.*s=%.*s", (int)fields[i].name_len, fields[i].name,
                (int)fields[i].value_len, fields[i].value);
    end_say(end, "; ");
}

static inline void end_on_data(struct bm_h2_stream *stream, const uint8_t *bytes, size_t len,
                               void *arg)
{
    struct end *end = arg;
    end->data_len += len;
    if (len < 32 && bytes[0] != 'x')
        end_say(end, "data %u '%.*s'; ", bm_h2_stream_id(stream), (int)len, (const char *)bytes);
    if (end->consumes)
        bm_h2_stream_consumed(stream, len);
}

static inline void end_on_end(struct bm_h2_stream *stream, void *arg)
{
    end_say(arg, "end %u; ", bm_h2_stream_id(stream));
}

static inline void end_on_close(struct bm_h2_stream *stream, uint32_t code, void *arg)
{
    struct end *end = arg;
    end->closes++;
    end->close_code = code;
    end_say(end, "close %u %u; ", bm_h2_stream_id(stream), code);
    end_remember(end, stream, NULL);
}

static inline void end_on_settings(struct bm_h2 *h2, void *arg)
{
    end_say(arg, "settings; ");
}

static inline void end_on_goaway(struct bm_h2 *h2, uint32_t code, void *arg)
{
    end_say(arg, "goaway %u; ", code);
}

static inline void end_on_pong(struct bm_h2 *h2, uint64_t token, uint64_t rtt_ns, void *arg)
{
    end_say(arg, "pong %llu %llu; ", (unsigned long long)token, (unsigned long long)rtt_ns);
}

static const struct bm_h2_handlers end_handlers = {
    .on_request = end_on_request,
    .on_response = end_on_response,
    .on_data = end_on_data,
    .on_end = end_on_end,
    .on_close = end_on_close,
    .on_settings = end_on_settings,
    .on_goaway = end_on_goaway,
    .on_pong = end_on_pong,
};

static inline int end_open_with(struct end *end, struct bm_h2_options options)
{
    if (end->now_ns == 0)
        end->now_ns = BM_NS_PER_S;
    options.handlers = &end_handlers;
    options.arg = end;
    options.now_ns = end->now_ns;
    return bm_h2_new(&end->account, &options, &end->h2);
}

static inline void end_open(struct end *end, bool server)
{
    REQUIRE_INT(end_open_with(end, (struct bm_h2_options){.server = server}), 0);
}

/* Frees it; nothing is left on its account. */
static inline void end_close(struct end *end)
{
    end->h2 = bm_h2_free(end->h2);
    CHECK_UINT(end->account.used, 0);
}

static inline int end_receive(struct end *end, const void *bytes, size_t len)
{
    return bm_h2_receive(end->h2, bytes, len, end->now_ns);
}

/* All output of `from` goes to `to`, in parts of at most `part` bytes; true when there was any. */
static inline bool end_carry(struct end *from, struct end *to, size_t part)
{
    bool any = false;
    size_t len;
    const uint8_t *out;
    while ((out = bm_h2_output(from->h2, &len)) != NULL && len > 0) {
        if (len > part)
            len = part;
        end_receive(to, out, len);
        bm_h2_output_ack(from->h2, len, from->now_ns);
        any = true;
    }
    return any;
}

/* Until neither has anything to say. */
static inline void ends_talk(struct end *a, struct end *b)
{
    bool any;
    do {
        any = end_carry(a, b, SIZE_MAX);
        any |= end_carry(b, a, SIZE_MAX);
    } while (any);
}

/* A client and a server that have exchanged their SETTINGS. */
static inline void ends_open(struct end *client, struct end *server)
{
    end_open(client, false);
    end_open(server, true);
    ends_talk(client, server);
    CHECK_STR(end_said(client), "settings; ");
    CHECK_STR(end_said(server), "settings; ");
}

static inline void ends_close(struct end *client, struct end *server)
{
    end_close(client);
    end_close(server);
}

/* Frames by hand */

enum {
    F_DATA,
    F_HEADERS,
    F_PRIORITY,
    F_RST_STREAM,
    F_SETTINGS,
    F_PUSH_PROMISE,
    F_PING,
    F_GOAWAY,
    F_WINDOW_UPDATE,
    F_CONTINUATION,
};
enum { F_ACK = 1, F_END_STREAM = 1, F_END_HEADERS = 4, F_PADDED = 8 };

struct raw {
    uint8_t bytes[128u << 10];
    size_t len;
};

static inline void raw_put(struct raw *raw, const void *bytes, size_t len)
{
    REQUIRE(raw->len + len <= sizeof(raw->bytes));
    memcpy(raw->bytes + raw->len, bytes, len);
    raw->len += len;
}

static inline void raw_head(struct raw *raw, size_t len, unsigned type, unsigned flags, uint32_t id)
{
    const uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,
                             (uint8_t)type,        (uint8_t)flags,      (uint8_t)(id >> 24),
                             (uint8_t)(id >> 16),  (uint8_t)(id >> 8),  (uint8_t)id};
    raw_put(raw, head, sizeof(head));
}

static inline void raw_frame(struct raw *raw, unsigned type, unsigned flags, uint32_t id,
                             const void *payload, size_t len)
{
    raw_head(raw, len, type, flags, id);
    raw_put(raw, payload, len);
}

static inline void raw_u32(struct raw *raw, unsigned type, uint32_t id, uint32_t value)
{
    const uint8_t payload[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16),
                                (uint8_t)(value >> 8), (uint8_t)value};
    raw_frame(raw, type, 0, id, payload, 4);
}

/* A client's first words: preface, empty SETTINGS, and the acknowledgement of the server's. */
static inline void raw_greet(struct raw *raw)
{
    raw_put(raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    raw_frame(raw, F_SETTINGS, 0, 0, "", 0);
    raw_frame(raw, F_SETTINGS, F_ACK, 0, "", 0);
}

/* A field without a table and without Huffman (RFC 7541 section 6.2.2). */
static inline size_t hpack_put(uint8_t *block, const char *name, const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value);
    uint8_t *pos = block;
    REQUIRE(name_len < 127 && value_len < 127);
    *pos++ = 0;
    *pos++ = (uint8_t)name_len;
    memcpy(pos, name, name_len);
    pos += name_len;
    *pos++ = (uint8_t)value_len;
    memcpy(pos, value, value_len);
    return (size_t)(pos - block) + value_len;
}

/* GET (or POST) https://a/ in static entries, 6 bytes. */
#define BLOCK_GET                                                                                  \
    "\x82\x84\x87\x01\x01"                                                                         \
    "a"
#define BLOCK_POST                                                                                 \
    "\x83\x84\x87\x01\x01"                                                                         \
    "a"
#define BLOCK_LEN 6u

static inline void raw_get(struct raw *raw, uint32_t id)
{
    raw_frame(raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, id, BLOCK_GET, BLOCK_LEN);
}

static inline void raw_post(struct raw *raw, uint32_t id)
{
    raw_frame(raw, F_HEADERS, F_END_HEADERS, id, BLOCK_POST, BLOCK_LEN);
}

/* A request with one more field. */
static inline void raw_get_with(struct raw *raw, uint32_t id, const char *name, const char *value)
{
    uint8_t block[512];
    memcpy(block, BLOCK_GET, BLOCK_LEN);
    size_t len = BLOCK_LEN + hpack_put(block + BLOCK_LEN, name, value);
    raw_frame(raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, id, block, len);
}

/* Hands all of it over and begins anew. */
static inline int raw_send(struct raw *raw, struct end *end)
{
    int r = end_receive(end, raw->bytes, raw->len);
    raw->len = 0;
    return r;
}

/* Takes all output and says which frames it has: "SETTINGS; HEADERS 1 +end; DATA 1 5 +end;
 * RST_STREAM 1 7; GOAWAY last code; ". */
static inline const char *end_frames(struct end *end)
{
    static const char *const names[] = {"DATA",          "HEADERS",      "PRIORITY", "RST_STREAM",
                                        "SETTINGS",      "PUSH_PROMISE", "PING",     "GOAWAY",
                                        "WINDOW_UPDATE", "CONTINUATION"};
    static char text[8192];
    static uint8_t all[1u << 20];
    size_t all_len = 0, len, at = 0;
    const uint8_t *out;
    size_t skip = 0;
    text[0] = '\0';
    while ((out = bm_h2_output(end->h2, &len)) != NULL && len > 0) {
        REQUIRE(all_len + len <= sizeof(all));
        memcpy(all + all_len, out, len);
        all_len += len;
        bm_h2_output_ack(end->h2, len, end->now_ns);
    }
    if (all_len >= 24 && memcmp(all, "PRI ", 4) == 0)
        skip = 24; /* a client's */
    for (const uint8_t *pos = all + skip, *stop = all + all_len; pos < stop && at < sizeof(text);) {
        REQUIRE(stop - pos >= 9 && pos[3] < BM_ARRAY_LEN(names));
        uint32_t frame_len = (uint32_t)pos[0] << 16 | (uint32_t)pos[1] << 8 | pos[2];
        uint32_t id =
            (uint32_t)pos[5] << 24 | (uint32_t)pos[6] << 16 | (uint32_t)pos[7] << 8 | pos[8];
        const uint8_t *body = pos + 9;
        REQUIRE(frame_len <= (size_t)(stop - body));
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s", names[pos[3]]);
        if (id > 0)
            at += (size_t)snprintf(text + at, sizeof(text) - at, " %u", id);
        if (pos[3] == F_DATA)
            at += (size_t)snprintf(text + at, sizeof(text) - at, " %u", frame_len);
        if (pos[3] == F_RST_STREAM || pos[3] == F_WINDOW_UPDATE)
            at += (size_t)snprintf(text + at, sizeof(text) - at, " %u",
                                   (uint32_t)body[0] << 24 | (uint32_t)body[1] << 16 |
                                       (uint32_t)body[2] << 8 | body[3]);
        if (pos[3] == F_GOAWAY)
            at += (size_t)snprintf(text + at, sizeof(text) - at, " %u %u",
                                   (uint32_t)body[0] << 24 | (uint32_t)body[1] << 16 |
                                       (uint32_t)body[2] << 8 | body[3],
                                   (uint32_t)body[6] << 8 | body[7]);
        if (pos[3] <= F_HEADERS && (pos[4] & F_END_STREAM))
            at += (size_t)snprintf(text + at, sizeof(text) - at, " +end");
        if ((pos[3] == F_SETTINGS || pos[3] == F_PING) && (pos[4] & F_ACK))
            at += (size_t)snprintf(text + at, sizeof(text) - at, " +ack");
        at += (size_t)snprintf(text + at, sizeof(text) - at, "; ");
        pos = body + frame_len;
    }
    return text;
}

/* A server whose client, a test, has greeted it; its own first words are taken. */
static inline void end_greeted(struct end *server, struct raw *raw)
{
    end_open(server, true);
    raw->len = 0;
    raw_greet(raw);
    REQUIRE_INT(raw_send(raw, server), 0);
    CHECK_STR(end_said(server), "settings; ");
    CHECK_STR(end_frames(server), "SETTINGS; SETTINGS +ack; WINDOW_UPDATE 16711681; ");
}

/* A source that says a text and ends, or so many bytes, or nothing for ever. */
struct says {
    const char *text;
    size_t left; /* bytes, when there is no text */
    bool silent; /* nothing now */
    bool broken;
    unsigned asked;
    uint64_t said; /* bytes */
};

static inline ssize_t says_read(struct bm_h2_stream *stream, uint8_t *buf, size_t cap,
                                bool *ret_end, void *arg)
{
    struct says *says = bm_h2_stream_arg(stream);
    size_t len = says->text ? strlen(says->text) : says->left;
    CHECK_PTR(arg, says);
    says->asked++;
    if (says->broken)
        return -1;
    if (says->silent)
        return 0;
    if (len > cap)
        len = cap;
    if (says->text) {
        memcpy(buf, says->text, len);
        says->text += len;
        *ret_end = *says->text == '\0';
    } else {
        memset(buf, 'x', len);
        says->left -= len;
        *ret_end = says->left == 0;
    }
    says->said += len;
    return (ssize_t)len;
}

#define STR(text) ((beam_str){text, sizeof(text) - 1})
#define FIELD(name_, value_)                                                                       \
    {                                                                                              \
        .name = name_, .value = value_, .name_len = sizeof(name_) - 1,                             \
        .value_len = sizeof(value_) - 1                                                            \
    }

static inline int end_request(struct end *client, const char *method, const char *path,
                              struct says *body, struct bm_h2_stream **ret_stream)
{
    const struct bm_h2_request request = {
        .method = {method, strlen(method)},
        .scheme = STR("https"),
        .authority = STR("a.test"),
        .path = {path, strlen(path)},
    };
    return bm_h2_request(client->h2, &request, body ? says_read : NULL, body, ret_stream);
}

#endif
