/* HTTP/2 between a link and exchanges: a stream is an exchange, the engine (proto/h2.h) does the rest.
 *
 * Why a stream is over is told by its code and by what has had its end: 0 only where both directions have.
 * A held exchange holds its stream, and gives it back before the engine goes. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "net/connection_inner.h"

#define STUCK_NS BM_LINK_STALL_NS /* a stream whose window the peer does not open; CVE-2019-9511 */
#define MANY                                                                                       \
    8u /* requests in one piece: they are served before another connection's are read; ours */
#define LENGTH_LEN 20u /* digits of a length */

static struct bm_exchange *exchange_of(struct bm_h2_stream *stream)
{
    return bm_h2_stream_arg(stream);
}

/* ---- what the engine tells ---- */

static void on_request(struct bm_h2_stream *stream, const struct bm_h2_request *request, void *arg)
{
    struct bm_connection *connection = arg;
    struct bm_exchange *exchange = bm_exchange_new(connection);
    if (!exchange) {
        bm_h2_stream_reset(stream, BM_H2_REFUSED_STREAM);
        return;
    }
    exchange->stream = stream;
    exchange->to_head = request->method.len == 4 && memcmp(request->method.ptr, "HEAD", 4) == 0;
    bm_h2_stream_set_arg(stream, exchange);
    const struct bm_exchange_request shown = {
        .method = request->method,
        .authority = request->authority,
        .path = request->path,
        .protocol = request->protocol,
        .fields = request->fields,
        .field_count = request->fields_count,
        .body_len = -1,
        .version = 2,
    };
    bm_exchange_show(exchange, &shown);
    if (!exchange->handlers)
        bm_h2_stream_stop(stream);
    else if (!exchange->answered && bm_field_lists(request->fields, request->fields_count, "expect",
                                                   "100-continue", false))
        (void)bm_h2_inform(stream, 100, NULL, 0);
}

static void on_response(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                        size_t count, void *arg)
{
    struct bm_exchange *exchange = exchange_of(stream);
    (void)arg;
    if (status >= 200 && exchange->handlers->on_answer)
        exchange->handlers->on_answer(exchange, status, fields, count, exchange->arg);
}

static void on_data(struct bm_h2_stream *stream, const uint8_t *bytes, size_t len, void *arg)
{
    (void)arg;
    if (exchange_of(stream))
        bm_exchange_body(exchange_of(stream), bytes, len);
    else
        bm_h2_stream_consumed(stream, len);
}

static void on_end(struct bm_h2_stream *stream, void *arg)
{
    (void)arg;
    if (exchange_of(stream))
        bm_exchange_end(exchange_of(stream));
}

static int error_of(const struct bm_connection *connection, const struct bm_h2_stream *stream,
                    uint32_t code)
{
    if (bm_h2_stream_ended_in(stream) && bm_h2_stream_ended_out(stream) && code == BM_H2_NO_ERROR)
        return 0;
    if (code == BM_H2_REFUSED_STREAM)
        return -ECONNREFUSED;
    int over = bm_h2_over(connection->h2);
    if (connection->failing && connection->error < 0)
        return connection->error;
    return over < 0 && over != -ECONNRESET ? over : -ECANCELED;
}

static void on_close(struct bm_h2_stream *stream, uint32_t code, void *arg)
{
    struct bm_connection *connection = arg;
    struct bm_exchange *exchange = exchange_of(stream);
    if (!exchange)
        return;
    if (exchange->holds == 0)
        exchange->stream = NULL;
    bm_exchange_finish(exchange, error_of(connection, stream, code));
}

static void on_settings(struct bm_h2 *h2, void *arg)
{
    struct bm_connection *connection = arg;
    (void)h2;
    if (!connection->server && connection->owner->on_settings)
        connection->owner->on_settings(connection, connection->arg);
}

static void on_goaway(struct bm_h2 *h2, uint32_t code, void *arg)
{
    struct bm_connection *connection = arg;
    (void)h2;
    (void)code;
    if (connection->owner->on_draining)
        connection->owner->on_draining(connection, connection->arg);
}

static const struct bm_h2_handlers handlers = {
    .on_request = on_request,
    .on_response = on_response,
    .on_data = on_data,
    .on_end = on_end,
    .on_close = on_close,
    .on_settings = on_settings,
    .on_goaway = on_goaway,
};

/* ---- the connection ---- */

static int http2_begin(struct bm_connection *connection)
{
    const struct bm_h2_options options = {
        .server = connection->server,
        .handlers = &handlers,
        .arg = connection,
        .now_ns = bm_connection_now_ns(connection),
    };
    int r = bm_h2_new(&connection->account, &options, &connection->h2);
    if (r == 0)
        bm_link_take_all(&connection->link);
    bm_link_flush(&connection->link);
    return r;
}

static void http2_free(struct bm_connection *connection)
{
    connection->h2 = bm_h2_free(connection->h2);
}

static size_t http2_receive(struct bm_connection *connection, const uint8_t *bytes, size_t len)
{
    uint32_t before = connection->open;
    (void)bm_h2_receive(connection->h2, bytes, len, bm_connection_now_ns(connection));
    if (connection->open >= before + MANY)
        bm_reactor_yield(connection->link.core->reactor);
    return len;
}

static void http2_receive_end(struct bm_connection *connection)
{
    bm_connection_fail(connection, connection->open > 0 ? -ECONNRESET : 0);
}

static const uint8_t *http2_output(struct bm_connection *connection, size_t *ret_len)
{
    return bm_h2_output(connection->h2, ret_len);
}

static size_t http2_output_len(const struct bm_connection *connection)
{
    return bm_h2_output_len(connection->h2);
}

static void http2_output_ack(struct bm_connection *connection, size_t len)
{
    bm_h2_output_ack(connection->h2, len, bm_connection_now_ns(connection));
}

static void http2_settle(struct bm_connection *connection)
{
    struct bm_h2 *h2 = connection->h2;
    int over = bm_h2_over(h2);
    if (over != 0)
        bm_connection_fail(connection, over < 0 ? over : 0);
    else if (bm_h2_draining(h2) && connection->open == 0)
        bm_op_hurry(connection->link.core->reactor, &connection->link.send_op);
}

static uint64_t http2_next_ns(const struct bm_connection *connection)
{
    return bm_h2_next_ns(connection->h2);
}

static void reset_stuck(struct bm_connection *connection, uint64_t now_ns)
{
    for (struct bm_list *n = connection->exchanges.next; n != &connection->exchanges; n = n->next) {
        const struct bm_exchange *exchange = bm_list_entry(n, struct bm_exchange, node);
        if (exchange->closed || exchange->patient)
            continue;
        uint64_t since_ns = bm_h2_stream_blocked_since_ns(exchange->stream);
        if ((since_ns != UINT64_MAX && now_ns - since_ns >= STUCK_NS) ||
            exchange->body_until_ns <= now_ns)
            bm_h2_stream_reset(exchange->stream, BM_H2_CANCEL);
    }
}

static void http2_tick(struct bm_connection *connection, uint64_t now_ns)
{
    if (connection->look_ns <= now_ns)
        reset_stuck(connection, now_ns);
    (void)bm_h2_tick(connection->h2, now_ns);
}

static void http2_trim(struct bm_connection *connection)
{
    (void)connection; /* its tick does it */
}

static void http2_drain(struct bm_connection *connection)
{
    bm_h2_drain(connection->h2);
}

static bool http2_end(struct bm_connection *connection)
{
    size_t len;
    if (connection->error == 0 && !bm_h2_draining(connection->h2)) {
        bm_h2_drain(connection->h2);
        (void)bm_h2_output(connection->h2, &len); /* GOAWAY, while there is something to say */
    }
    bm_h2_lost(connection->h2, BM_H2_CANCEL);
    return false;
}

/* ---- exchanges ---- */

static ssize_t read_source(struct bm_h2_stream *stream, uint8_t *buf, size_t len, bool *ret_end,
                           void *arg)
{
    struct bm_exchange *exchange = arg;
    (void)stream;
    if (!exchange->body)
        return bm_exchange_read(exchange, buf, len, ret_end);
    size_t left = exchange->body_len - exchange->body_at;
    size_t n = left < len ? left : len;
    memcpy(buf, exchange->body + exchange->body_at, n);
    exchange->body_at += n;
    *ret_end = n == left;
    return (ssize_t)n;
}

static int http2_ask(struct bm_connection *connection, const struct bm_connection_ask *ask,
                     struct bm_exchange *exchange)
{
    static const beam_str secure = {"https", 5}, plain = {"http", 4};
    const struct bm_h2_request request = {
        .method = ask->method,
        .scheme = connection->link.tls ? secure : plain,
        .authority = ask->authority,
        .path = ask->path,
        .protocol = ask->protocol,
        .fields = ask->fields,
        .fields_count = ask->field_count,
    };
    if (ask->upgrade)
        return -EINVAL;
    return bm_h2_request(connection->h2, &request, ask->body ? read_source : NULL, exchange,
                         &exchange->stream);
}

static struct bm_field length_field(char room[LENGTH_LEN], uint64_t len)
{
    size_t at = LENGTH_LEN;
    do {
        room[--at] = (char)('0' + len % 10);
        len /= 10;
    } while (len > 0);
    return (struct bm_field){.name = "content-length",
                             .name_len = sizeof("content-length") - 1,
                             .value = room + at,
                             .value_len = LENGTH_LEN - at};
}

static int http2_answer(struct bm_exchange *exchange, unsigned status,
                        const struct bm_field *fields, size_t field_count, const void *body,
                        int64_t body_len)
{
    struct bm_field all[BM_H2_FIELDS_MAX];
    char length[LENGTH_LEN];
    bool bodiless = exchange->to_head || status == 204 || status == 304;
    if (status < 200 || field_count >= BM_H2_FIELDS_MAX ||
        bm_field_find(fields, field_count, "content-length"))
        return -EINVAL;
    if (field_count > 0)
        memcpy(all, fields, field_count * sizeof(*fields));
    if (body_len >= 0 && status != 204 && !(status == 304 && body_len == 0)) {
        all[field_count++] = length_field(length, (uint64_t)body_len);
    }
    if (body_len > 0 && !bodiless) {
        int kept = bm_exchange_keep_body(exchange, body, (size_t)body_len);
        if (kept < 0)
            return kept;
    }
    int r = bm_h2_respond(exchange->stream, status, all, field_count,
                          bodiless || body_len == 0 ? NULL : read_source);
    if (r < 0)
        bm_exchange_drop_body(exchange);
    return r;
}

static void http2_resume(struct bm_exchange *exchange)
{
    bm_h2_stream_resume(exchange->stream);
}

static void http2_consumed(struct bm_exchange *exchange, size_t len)
{
    bm_h2_stream_consumed(exchange->stream, len);
}

static void http2_window(struct bm_exchange *exchange, uint32_t len)
{
    (void)bm_h2_stream_window(exchange->stream,
                              len < BM_H2_WINDOW_CONNECTION ? len : BM_H2_WINDOW_CONNECTION);
}

static void http2_reset(struct bm_exchange *exchange)
{
    bm_h2_stream_reset(exchange->stream, BM_H2_CANCEL);
}

static void http2_hold(struct bm_exchange *exchange, bool held)
{
    if (!exchange->stream)
        return;
    if (held)
        bm_h2_stream_hold(exchange->stream);
    else
        bm_h2_stream_release(exchange->stream);
    if (!held && exchange->closed)
        exchange->stream = NULL;
}

const struct bm_version bm_version_http2 = {
    .number = 2,
    .begin = http2_begin,
    .free = http2_free,
    .receive = http2_receive,
    .receive_end = http2_receive_end,
    .output = http2_output,
    .output_ack = http2_output_ack,
    .output_len = http2_output_len,
    .settle = http2_settle,
    .next_ns = http2_next_ns,
    .tick = http2_tick,
    .trim = http2_trim,
    .drain = http2_drain,
    .end = http2_end,
    .ask = http2_ask,
    .answer = http2_answer,
    .resume = http2_resume,
    .consumed = http2_consumed,
    .window = http2_window,
    .reset = http2_reset,
    .hold = http2_hold,
};
