/* An end of HTTP/1 that writes down what happens to it, and what comes out of it. */
#ifndef TEST_HTTP1_RIG_H
#define TEST_HTTP1_RIG_H

#include <beam/error.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/proto/http1.h"
#include "tests/support/test.h"

#define RIG_SECOND UINT64_C(1000000000)

struct rig {
    struct bm_http1 *http;
    struct bm_account account;
    char log[4096]; /* "GET /a body:5 end sent" */
    size_t log_len;
    size_t body_len;      /* all that came in */
    uint8_t out[1 << 18]; /* all that came out */
    size_t out_len;
    uint64_t now_ns;
    bool hold;
    bool quiet; /* does not answer by itself */
    bool late;  /* answers when the request is whole */
    struct bm_http1_answer answer;
    int answered; /* what bm_http1_answer said */
    const struct bm_http1_message *message;
    char last_name; /* of the last field's name the first letter, as on_abort saw it */

    /* A source: gives `give` bytes of 'x' at once, `total` in all, then says so or fails. */
    size_t give, total;
    int source_error;
    unsigned reads;
};

__attribute__((format(printf, 2, 3))) static inline void rig_log(struct rig *rig,
                                                                 const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = sizeof(rig->log) - rig->log_len;
    int n = snprintf(rig->log + rig->log_len, room, rig->log_len ? " " : "");
    rig->log_len += (size_t)n;
    n = vsnprintf(rig->log + rig->log_len, sizeof(rig->log) - rig->log_len, format, args);
    va_end(args);
    rig->log_len += (size_t)n;
    REQUIRE(rig->log_len < sizeof(rig->log));
}

static inline void rig_on_message(struct bm_http1 *http, const struct bm_http1_message *message,
                                  void *arg)
{
    struct rig *rig = arg;
    rig->message = message;
    if (message->status > 0)
        rig_log(rig, "%d", message->status);
    else
        rig_log(rig, "%.*s %.*s", (int)message->method_len, message->method,
                (int)(message->path_len < 64 ? message->path_len : 64), message->path);
    if (rig->hold)
        bm_http1_hold(http, true);
    if (message->status == 0 && !rig->quiet && !rig->late)
        rig->answered = bm_http1_answer(http, &rig->answer);
}

static inline void rig_on_body(struct bm_http1 *http, const uint8_t *bytes, size_t len, void *arg)
{
    struct rig *rig = arg;
    (void)http;
    rig->body_len += len;
    if (rig->log_len > 200)
        return; /* it is clear by now */
    if (len <= 16)
        rig_log(rig, "'%.*s'", (int)len, (const char *)bytes);
    else
        rig_log(rig, "body:%zu", len);
}

static inline void rig_on_message_end(struct bm_http1 *http, void *arg)
{
    struct rig *rig = arg;
    rig_log(rig, "end");
    if (rig->message->status == 0 && rig->late)
        rig->answered = bm_http1_answer(http, &rig->answer);
}

static inline void rig_on_sent(struct bm_http1 *http, void *arg)
{
    (void)http;
    rig_log(arg, "sent");
}

static inline void rig_on_abort(struct bm_http1 *http, int error, void *arg)
{
    struct rig *rig = arg;
    if (rig->message && rig->message->field_count > 0) /* is still there */
        rig->last_name = rig->message->fields[rig->message->field_count - 1].name[0];
    rig_log(rig, "abort:%s", beam_error_name(error));
    CHECK_INT(bm_http1_answer(http, &rig->answer), -ENOTCONN);
}

static const struct bm_http1_handlers rig_handlers = {
    .on_message = rig_on_message,
    .on_body = rig_on_body,
    .on_message_end = rig_on_message_end,
    .on_sent = rig_on_sent,
    .on_abort = rig_on_abort,
};

static inline ssize_t rig_read(void *arg, uint8_t *buf, size_t len, bool *ret_end)
{
    struct rig *rig = arg;
    size_t n = rig->give < len ? rig->give : len;
    n = n < rig->total ? n : rig->total;
    rig->reads++;
    if (rig->source_error && rig->total == 0)
        return rig->source_error;
    memset(buf, 'x', n);
    rig->total -= n;
    *ret_end = rig->total == 0 && !rig->source_error;
    return (ssize_t)n;
}

static const struct bm_http1_source rig_source = {.read = rig_read};

/* As it is before an engine is made. */
static inline void rig_clear(struct rig *rig)
{
    memset(rig, 0, offsetof(struct rig, out));
    memset(&rig->out_len, 0, sizeof(*rig) - offsetof(struct rig, out_len));
    rig->now_ns = 1000 * RIG_SECOND;
    rig->answer = (struct bm_http1_answer){.status = 200, .body = {.len = 2, .bytes = "ok"}};
}

static inline void rig_init(struct rig *rig, bool client)
{
    rig_clear(rig);
    REQUIRE_INT(bm_http1_new(&(struct bm_http1_options){.client = client,
                                                        .account = &rig->account,
                                                        .handlers = &rig_handlers,
                                                        .arg = rig,
                                                        .now_ns = rig->now_ns},
                             &rig->http),
                0);
}

static inline void rig_deinit(struct rig *rig)
{
    rig->http = bm_http1_free(rig->http);
    CHECK_UINT(rig->account.used, 0);
}

/* Takes up to `most` bytes out. */
static inline size_t rig_drain_some(struct rig *rig, size_t most)
{
    size_t taken = 0, len;
    const uint8_t *bytes;
    while (taken < most && (bytes = bm_http1_output(rig->http, &len)) != NULL) {
        len = len < most - taken ? len : most - taken;
        REQUIRE(rig->out_len + len < sizeof(rig->out));
        memcpy(rig->out + rig->out_len, bytes, len);
        rig->out_len += len;
        taken += len;
        bm_http1_output_ack(rig->http, len);
    }
    rig->out[rig->out_len] = '\0';
    return taken;
}

static inline void rig_drain(struct rig *rig)
{
    (void)rig_drain_some(rig, SIZE_MAX);
}

/* Gives bytes in pieces of `piece`, from blocks of just their length, taking out what comes of
 * each. */
static inline int rig_give(struct rig *rig, const void *data, size_t len, size_t piece)
{
    const char *bytes = data;
    for (size_t at = 0; at < len;) {
        size_t n = len - at < piece ? len - at : piece, used = 0;
        uint8_t *copy = malloc(n);
        memcpy(copy, bytes + at, n);
        int r = bm_http1_receive(rig->http, copy, n, rig->now_ns, &used);
        free(copy);
        if (r != 0)
            return r;
        REQUIRE(used <= n);
        size_t out = rig->out_len;
        rig_drain(rig);
        if (used == 0 && rig->out_len == out && !bm_http1_wants_input(rig->http))
            return 0; /* takes no more */
        at += used;
    }
    return 0;
}

static inline int rig_say(struct rig *rig, const char *text)
{
    return rig_give(rig, text, strlen(text), SIZE_MAX);
}

/* The status of the last answer that came out; 0: none. */
static inline int rig_last_status(const struct rig *rig)
{
    int status = 0;
    const char *at = (const char *)rig->out;
    while ((at = strstr(at, "HTTP/1.1 ")) != NULL) {
        status = atoi(at + 9);
        at += 9;
    }
    return status;
}

#endif
