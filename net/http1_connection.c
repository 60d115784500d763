/* HTTP/1.1 between a link and exchanges: one at a time, by the engine (proto/http1.h), and behind a 101
 * the bytes of another protocol.
 *
 * What a receiver has not consumed bounds what is taken: the engine is held, the link keeps what it has
 * got and receives no more. The engine tells of both halves of an exchange; that it is over is seen in
 * `settle`, when the engine is not under way and would take the next. */
#include <errno.h>
#include <string.h>

#include <beam/error.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "net/connection_inner.h"

/* ---- what the engine tells ---- */

static beam_str text_of(const char *text, size_t len)
{
    return (beam_str){text, len};
}

/* Both halves of an exchange have been. */
static bool finish_whole(struct bm_connection *connection)
{
    struct bm_exchange *exchange = connection->current;
    if (!exchange || !exchange->in_end || !exchange->out_end)
        return false;
    if (exchange->end_due) {
        exchange->end_due = false;
        bm_exchange_end(exchange);
    }
    connection->current = NULL;
    bm_exchange_finish(exchange, 0);
    return true;
}

static void request_came(struct bm_connection *connection, const struct bm_http1_message *message)
{
    (void)finish_whole(connection); /* the one before, of the same bytes */
    struct bm_exchange *exchange = bm_exchange_new(connection);
    if (!exchange) {
        bm_connection_fail(connection, -ENOMEM);
        return;
    }
    connection->current = exchange;
    exchange->upgrade = message->upgrade;
    const struct bm_exchange_request request = {
        .method = text_of(message->method, message->method_len),
        .authority = text_of(message->authority, message->authority_len),
        .path = text_of(message->path, message->path_len),
        .fields = message->fields,
        .field_count = message->field_count,
        .body_len = message->body_len,
        .upgrade = message->upgrade,
        .version = 1,
    };
    bm_exchange_show(exchange, &request);
}

static void on_message(struct bm_http1 *http, const struct bm_http1_message *message, void *arg)
{
    struct bm_connection *connection = arg;
    struct bm_exchange *exchange = connection->current;
    (void)http;
    if (connection->server) {
        if (!connection->failing)
            request_came(connection, message);
    } else if (exchange && exchange->handlers->on_answer) {
        exchange->handlers->on_answer(exchange, (unsigned)message->status, message->fields,
                                      message->field_count, exchange->arg);
    }
}

static void hold_if_full(struct bm_connection *connection, const struct bm_exchange *exchange)
{
    bool full = exchange->unconsumed >= BM_CONNECTION_UNCONSUMED_MAX;
    if (!connection->upgraded)
        bm_http1_hold(connection->http1, full);
}

static void on_body(struct bm_http1 *http, const uint8_t *bytes, size_t len, void *arg)
{
    struct bm_connection *connection = arg;
    (void)http;
    if (!connection->current)
        return;
    bm_exchange_body(connection->current, bytes, len);
    hold_if_full(connection, connection->current);
}

static void on_message_end(struct bm_http1 *http, void *arg)
{
    struct bm_connection *connection = arg;
    struct bm_exchange *exchange = connection->current;
    if (!exchange || bm_http1_upgraded(http))
        return;
    exchange->in_end = true;
    if (connection->server && exchange->upgrade)
        exchange->end_due = true;
    else
        bm_exchange_end(exchange);
}

static void on_sent(struct bm_http1 *http, void *arg)
{
    struct bm_connection *connection = arg;
    if (connection->current && !bm_http1_upgraded(http))
        connection->current->out_end = true;
}

/* The exchange is over with the connection, or with all that anybody waits for. */
static void on_abort(struct bm_http1 *http, int error, void *arg)
{
    struct bm_connection *connection = arg;
    struct bm_exchange *exchange = bm_take_ptr(connection->current);
    (void)http;
    if (!exchange)
        return;
    if (!connection->server && !exchange->left)
        error = -ECONNREFUSED;
    bm_exchange_finish(exchange, error);
}

static const struct bm_http1_handlers handlers = {
    .on_message = on_message,
    .on_body = on_body,
    .on_message_end = on_message_end,
    .on_sent = on_sent,
    .on_abort = on_abort,
};

/* ---- bytes that are not HTTP ---- */

static void begin_raw(struct bm_connection *connection)
{
    if (connection->upgraded || !bm_http1_upgraded(connection->http1))
        return;
    connection->upgraded = true;
    if (connection->current) {
        connection->current->in_end = connection->current->out_end = false;
        connection->current->end_due = false;
    }
}

static size_t raw_receive(struct bm_connection *connection, const uint8_t *bytes, size_t len)
{
    struct bm_exchange *exchange = connection->current;
    if (!exchange)
        return len;
    if (exchange->unconsumed >= BM_CONNECTION_UNCONSUMED_MAX)
        return 0;
    bm_exchange_body(exchange, bytes, len);
    return len;
}

static void raw_pull(struct bm_connection *connection)
{
    struct bm_exchange *exchange = connection->current;
    if (connection->raw_len > 0 || connection->raw_end || !exchange || exchange->out_end ||
        !exchange->handlers || !exchange->handlers->read)
        return;
    if (!connection->raw)
        connection->raw = bm_alloc(&connection->account, BM_CONNECTION_RAW_LEN);
    if (!connection->raw) {
        bm_connection_fail(connection, -ENOMEM);
        return;
    }
    bool end = false;
    ssize_t n = bm_exchange_read(exchange, connection->raw, BM_CONNECTION_RAW_LEN, &end);
    if (n < 0) {
        connection->reset_due = true;
        bm_link_flush(&connection->link);
        return;
    }
    connection->raw_at = 0;
    connection->raw_len = (size_t)n;
    connection->raw_full = n == BM_CONNECTION_RAW_LEN;
    connection->raw_end = end;
}

static void raw_drop(struct bm_connection *connection)
{
    if (connection->raw && connection->raw_len == 0)
        connection->raw = bm_free(&connection->account, connection->raw, BM_CONNECTION_RAW_LEN);
}

static const uint8_t *raw_output(struct bm_connection *connection, size_t *ret_len)
{
    struct bm_exchange *exchange = connection->current;
    raw_pull(connection);
    if (connection->raw_len == 0) {
        raw_drop(connection);
        if (connection->raw_end && exchange && !exchange->out_end) {
            exchange->out_end = true;
            if (!exchange->in_end)
                bm_link_shut(&connection->link);
        }
    }
    *ret_len = connection->raw_len;
    return connection->raw_len > 0 ? connection->raw + connection->raw_at : NULL;
}

/* ---- the connection ---- */

static int http1_begin(struct bm_connection *connection)
{
    const struct bm_http1_options options = {
        .client = !connection->server,
        .account = &connection->account,
        .handlers = &handlers,
        .arg = connection,
        .body_len_max = INT64_MAX, /* who takes a body has a limit of his own */
        .now_ns = bm_connection_now_ns(connection),
    };
    bm_link_flush(&connection->link);
    return bm_http1_new(&options, &connection->http1);
}

static void http1_free(struct bm_connection *connection)
{
    connection->raw_len = 0;
    raw_drop(connection);
    connection->http1 = bm_http1_free(connection->http1);
}

static size_t http1_receive(struct bm_connection *connection, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    begin_raw(connection);
    if (connection->upgraded)
        return raw_receive(connection, bytes, len);
    int r =
        bm_http1_receive(connection->http1, bytes, len, bm_connection_now_ns(connection), &used);
    if (r < 0) { /* the peer is told, and what still comes is nobody's */
        connection->refused = r;
        return len;
    }
    begin_raw(connection);
    return used;
}

static void http1_receive_end(struct bm_connection *connection)
{
    struct bm_exchange *exchange = connection->current;
    begin_raw(connection);
    if (!connection->upgraded) {
        connection->refused = bm_http1_receive_end(connection->http1);
    } else if (exchange && !exchange->in_end) {
        exchange->in_end = true;
        bm_exchange_end(exchange);
    }
}

static const uint8_t *http1_output(struct bm_connection *connection, size_t *ret_len)
{
    const uint8_t *bytes = bm_http1_output(connection->http1, ret_len);
    if (*ret_len > 0) {
        if (connection->current)
            connection->current->left = true;
        return bytes;
    }
    begin_raw(connection);
    return connection->upgraded ? raw_output(connection, ret_len) : NULL;
}

/* Behind a 101, and behind raw bytes, there may be more, or the end, which are asked for when these have left:
 * as if they were one byte more. */
static size_t http1_output_len(const struct bm_connection *connection)
{
    size_t head = bm_http1_output_len(connection->http1), raw = connection->raw_len;
    bool more = raw > 0 ? connection->raw_full || connection->raw_end
                        : head > 0 && bm_http1_upgraded(connection->http1);
    return head + raw + (more ? 1 : 0);
}

static void http1_output_ack(struct bm_connection *connection, size_t len)
{
    if (connection->raw_len > 0) {
        bm_assert(len <= connection->raw_len);
        connection->raw_at += len;
        connection->raw_len -= len;
    } else {
        bm_http1_output_ack(connection->http1, len);
    }
}

static void http1_settle(struct bm_connection *connection)
{
    struct bm_exchange *exchange = connection->current;
    begin_raw(connection);
    if (exchange && exchange->end_due && exchange->answered) {
        exchange->end_due = false;
        bm_exchange_end(exchange);
    }
    if (finish_whole(connection)) {
        if (connection->upgraded)
            bm_connection_fail(connection, 0);
        if (connection->link.kept_len > 0)
            bm_link_flush(&connection->link); /* the next one is there */
    }
    int over = bm_http1_over(connection->http1);
    if (over != 0 && !connection->failing)
        bm_connection_fail(connection, over < 0 ? over : connection->refused);
    else if (!connection->current && !bm_http1_wants_input(connection->http1))
        bm_op_hurry(connection->link.core->reactor, &connection->link.send_op);
}

static uint64_t http1_next_ns(const struct bm_connection *connection)
{
    return connection->upgraded ? UINT64_MAX : bm_http1_next_ns(connection->http1);
}

static void http1_tick(struct bm_connection *connection, uint64_t now_ns)
{
    if (!connection->upgraded)
        connection->refused = bm_http1_tick(connection->http1, now_ns);
}

static void http1_trim(struct bm_connection *connection)
{
    bm_http1_trim(connection->http1);
}

static void http1_drain(struct bm_connection *connection)
{
    bm_http1_drain(connection->http1);
}

static bool http1_end(struct bm_connection *connection)
{
    struct bm_exchange *exchange = bm_take_ptr(connection->current);
    bool broken = bm_http1_over(connection->http1) < 0;
    if (!exchange)
        return broken;
    int error = bm_connection_loss(connection);
    if (!connection->server && !exchange->left)
        error = -ECONNREFUSED;
    bm_exchange_finish(exchange, error);
    return true;
}

/* ---- exchanges ---- */

static ssize_t read_source(void *arg, uint8_t *buf, size_t len, bool *ret_end)
{
    return bm_exchange_read(arg, buf, len, ret_end);
}

static const struct bm_http1_source source = {read_source};

static void put_text(char **to, const char **ret_text, beam_str text)
{
    *ret_text = *to;
    if (text.len > 0)
        memcpy(*to, text.ptr, text.len);
    (*to)[text.len] = '\0';
    *to += text.len + 1;
}

static int http1_ask(struct bm_connection *connection, const struct bm_connection_ask *ask,
                     struct bm_exchange *exchange)
{
    struct bm_http1_ask asked = {
        .fields = ask->fields,
        .field_count = ask->field_count,
        .body = {.len = ask->body ? -1 : 0, .source = ask->body ? &source : NULL, .arg = exchange},
        .upgrade = ask->upgrade,
    };
    if (ask->protocol.len > 0)
        return -ENOTSUP;
    if (connection->current)
        return -EAGAIN;
    if (ask->method.len > BM_HTTP1_START_LINE_MAX || ask->path.len > BM_HTTP1_START_LINE_MAX ||
        ask->authority.len > BM_HTTP1_START_LINE_MAX)
        return -EINVAL;
    size_t len = ask->method.len + ask->path.len + ask->authority.len + 3;
    char *texts = bm_alloc(&connection->account, len), *to = texts;
    if (!texts)
        return -ENOMEM;
    put_text(&to, &asked.method, ask->method);
    put_text(&to, &asked.target, ask->path);
    put_text(&to, &asked.authority, ask->authority);
    int r = bm_http1_ask(connection->http1, &asked);
    bm_free(&connection->account, texts, len);
    if (r == -EBUSY)
        return -EAGAIN;
    if (r == -ENOTCONN)
        return -ESHUTDOWN;
    if (r == 0)
        connection->current = exchange;
    return r;
}

static int http1_answer(struct bm_exchange *exchange, unsigned status,
                        const struct bm_field *fields, size_t field_count, const void *body,
                        int64_t body_len)
{
    struct bm_field rest[BM_HTTP1_FIELDS_MAX];
    char upgrade[64] = "websocket";
    struct bm_http1_answer answer = {
        .status = (int)status,
        .fields = rest,
        .body = {.len = body_len,
                 .bytes = body_len > 0 ? body : NULL,
                 .source = body_len == -1 ? &source : NULL,
                 .arg = exchange},
        .upgrade = status == 101 || status == 426 ? upgrade : NULL,
    };
    if (field_count > BM_HTTP1_FIELDS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < field_count; i++) {
        bool names = bm_field_same(fields[i].name, fields[i].name_len, "upgrade");
        if (!names || !answer.upgrade) {
            rest[answer.field_count++] = fields[i];
        } else if (fields[i].value_len < sizeof(upgrade)) {
            memcpy(upgrade, fields[i].value, fields[i].value_len);
            upgrade[fields[i].value_len] = '\0';
        } else {
            return -EINVAL;
        }
    }
    if (status == 101)
        answer.body = (struct bm_http1_body){0};
    int r = bm_http1_answer(exchange->connection->http1, &answer);
    return r == -ENOTCONN ? -EPIPE : r;
}

static void http1_resume(struct bm_exchange *exchange)
{
    bm_http1_resume(exchange->connection->http1);
}

static void http1_consumed(struct bm_exchange *exchange, size_t len)
{
    (void)len;
    hold_if_full(exchange->connection, exchange);
}

static void http1_window(struct bm_exchange *exchange, uint32_t len)
{
    (void)exchange;
    (void)len;
}

static void http1_reset(struct bm_exchange *exchange)
{
    exchange->connection->reset_due = true;
}

static void http1_hold(struct bm_exchange *exchange, bool held)
{
    (void)exchange;
    (void)held;
}

const struct bm_version bm_version_http1 = {
    .number = 1,
    .begin = http1_begin,
    .free = http1_free,
    .receive = http1_receive,
    .receive_end = http1_receive_end,
    .output = http1_output,
    .output_ack = http1_output_ack,
    .output_len = http1_output_len,
    .settle = http1_settle,
    .next_ns = http1_next_ns,
    .tick = http1_tick,
    .trim = http1_trim,
    .drain = http1_drain,
    .end = http1_end,
    .ask = http1_ask,
    .answer = http1_answer,
    .resume = http1_resume,
    .consumed = http1_consumed,
    .window = http1_window,
    .reset = http1_reset,
    .hold = http1_hold,
};
