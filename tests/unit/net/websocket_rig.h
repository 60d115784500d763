/* An end of WebSocket that writes down what happens to it, sends every message back, and takes its
 * output apart. */
#ifndef TEST_WEBSOCKET_RIG_H
#define TEST_WEBSOCKET_RIG_H

#include <beam/error.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/proto/websocket.h"
#include "tests/support/test.h"

#define RIG_SECOND UINT64_C(1000000000)
#define RIG_MESSAGE_MAX ((size_t)1 << 20)

/* First bytes of frames: FIN or not, and the opcode. */
enum {
    FIN = 0x80,
    CONT = 0,
    TEXT = 1,
    BINARY = 2,
    CLOSE = 8,
    PING = 9,
    PONG = 10,
};

struct rig {
    struct bm_websocket *websocket;
    struct bm_account account;
    bool client;
    bool quiet; /* sends nothing back */
    uint64_t now_ns;
    char log[4096]; /* "'hello'" a message, "close:1000 'why'" */
    size_t log_len;
    uint8_t *message;
    size_t message_len;
    unsigned parts; /* calls of on_data */
    uint8_t *out;   /* what came out */
    size_t out_len, out_cap;
};

__attribute__((format(printf, 2, 3))) static inline void rig_log(struct rig *rig,
                                                                 const char *format, ...)
{
    va_list args;
    va_start(args, format);
    rig->log_len += (size_t)snprintf(rig->log + rig->log_len, sizeof(rig->log) - rig->log_len, "%s",
                                     rig->log_len ? " " : "");
    rig->log_len +=
        (size_t)vsnprintf(rig->log + rig->log_len, sizeof(rig->log) - rig->log_len, format, args);
    va_end(args);
    REQUIRE(rig->log_len < sizeof(rig->log));
}

/* Short ones as they are, others by their length. */
static inline void rig_log_bytes(struct rig *rig, const char *what, const void *bytes, size_t len)
{
    if (len <= 125)
        rig_log(rig, "%s'%.*s'", what, (int)len, (const char *)bytes);
    else
        rig_log(rig, "%s%zu", what, len);
}

static inline void rig_on_data(struct bm_websocket *websocket, const uint8_t *bytes, size_t len,
                               bool end, void *arg)
{
    struct rig *rig = arg;
    rig->parts++;
    REQUIRE(rig->message_len + len <= RIG_MESSAGE_MAX);
    if (len > 0)
        memcpy(rig->message + rig->message_len, bytes, len);
    rig->message_len += len;
    if (!end)
        return;
    rig_log_bytes(rig, "", rig->message, rig->message_len);
    struct bm_bytes back = bm_bytes(rig->message, rig->message_len);
    if (!rig->quiet)
        (void)bm_websocket_send(websocket, &back, 1);
    rig->message_len = 0;
}

static inline void rig_on_close(struct bm_websocket *websocket, uint16_t code, const char *reason,
                                size_t len, void *arg)
{
    (void)websocket;
    rig_log(arg, "close:%u '%.*s'", code, (int)len, reason);
}

static const struct bm_websocket_handlers rig_handlers = {.on_data = rig_on_data,
                                                          .on_close = rig_on_close};

static inline int rig_open(struct rig *rig, bool client)
{
    *rig = (struct rig){.client = client, .now_ns = 1000 * RIG_SECOND};
    rig->message = malloc(RIG_MESSAGE_MAX);
    return bm_websocket_new(&(struct bm_websocket_options){.client = client,
                                                           .account = &rig->account,
                                                           .handlers = &rig_handlers,
                                                           .arg = rig,
                                                           .message_len_max = RIG_MESSAGE_MAX,
                                                           .now_ns = rig->now_ns},
                            &rig->websocket);
}

static inline void rig_init(struct rig *rig, bool client)
{
    REQUIRE_INT(rig_open(rig, client), 0);
}

static inline void rig_deinit(struct rig *rig)
{
    rig->websocket = bm_websocket_free(rig->websocket);
    CHECK_UINT(rig->account.used, 0);
    free(rig->message);
    free(rig->out);
}

static inline void rig_drain(struct rig *rig)
{
    const uint8_t *bytes;
    size_t len;
    while ((bytes = bm_websocket_output(rig->websocket, &len)) != NULL) {
        while (rig->out_cap < rig->out_len + len) {
            rig->out_cap = rig->out_cap ? rig->out_cap * 2 : 4096;
            rig->out = realloc(rig->out, rig->out_cap);
        }
        memcpy(rig->out + rig->out_len, bytes, len);
        rig->out_len += len;
        bm_websocket_output_ack(rig->websocket, len);
    }
}

/* In pieces of `piece`, from blocks of just their length. */
static inline int rig_give(struct rig *rig, const uint8_t *bytes, size_t len, size_t piece)
{
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        uint8_t *copy = malloc(n);
        memcpy(copy, bytes + at, n);
        int r = bm_websocket_receive(rig->websocket, copy, n, rig->now_ns);
        free(copy);
        if (r != 0)
            return r;
    }
    return 0;
}

/* Writes one frame to `to` (room for the payload and 14 bytes); returns its length. `length_form`:
 * 0 the shortest, else 16 or 64 bits. */
static inline size_t frame_put(uint8_t *to, uint8_t head, const void *payload, size_t len,
                               bool mask, unsigned length_form)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t n = 0;
    to[n++] = head;
    if (length_form == 64 || (length_form == 0 && len > 0xffff)) {
        to[n++] = (uint8_t)(127 | mask << 7);
        for (int i = 7; i >= 0; i--)
            to[n++] = (uint8_t)((uint64_t)len >> 8 * i);
    } else if (length_form == 16 || len > 125) {
        to[n++] = (uint8_t)(126 | mask << 7);
        to[n++] = (uint8_t)(len >> 8);
        to[n++] = (uint8_t)len;
    } else {
        to[n++] = (uint8_t)(len | (size_t)mask << 7);
    }
    if (mask) {
        memcpy(to + n, key, 4);
        n += 4;
    }
    for (size_t i = 0; i < len; i++)
        to[n++] = (uint8_t)(((const uint8_t *)payload)[i] ^ (mask ? key[i % 4] : 0));
    return n;
}

/* A frame of the rig's peer. */
static inline int rig_frame(struct rig *rig, uint8_t head, const void *payload, size_t len)
{
    uint8_t *frame = malloc(len + 14);
    size_t n = frame_put(frame, head, payload, len, !rig->client, 0);
    int r = rig_give(rig, frame, n, SIZE_MAX);
    free(frame);
    return r;
}

/* Takes what came out apart, and adds it to the log: "PONG'x'", "BINARY'x'", "CLOSE:1000'x'". */
static inline void rig_log_output(struct rig *rig)
{
    rig_drain(rig);
    for (size_t at = 0; at < rig->out_len;) {
        uint8_t head = rig->out[at];
        bool mask = rig->out[at + 1] & 0x80;
        uint64_t len = rig->out[at + 1] & 0x7f;
        unsigned more = len == 126 ? 2 : len == 127 ? 8 : 0;
        at += 2;
        CHECK_INT(mask, rig->client);
        CHECK_INT(head & 0xf0, FIN);
        for (unsigned i = 0; i < more; i++)
            len = (i == 0 ? 0 : len << 8) | rig->out[at++];
        const uint8_t *key = rig->out + at;
        at += mask ? 4 : 0;
        REQUIRE(at + len <= rig->out_len);
        uint8_t *payload = malloc((size_t)len + 1);
        for (size_t i = 0; i < len; i++)
            payload[i] = (uint8_t)(rig->out[at + i] ^ (mask ? key[i % 4] : 0));
        at += (size_t)len;
        if ((head & 15) == CLOSE && len >= 2) {
            rig_log(rig, "CLOSE:%u'%.*s'", (unsigned)(payload[0] << 8 | payload[1]), (int)len - 2,
                    (char *)payload + 2);
        } else {
            rig_log_bytes(rig,
                          (head & 15) == CLOSE    ? "CLOSE"
                          : (head & 15) == PONG   ? "PONG"
                          : (head & 15) == BINARY ? "BINARY"
                                                  : "?",
                          payload, (size_t)len);
        }
        free(payload);
    }
    rig->out_len = 0;
}

#endif
