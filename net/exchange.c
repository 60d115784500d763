/* Exchanges, whatever carries them: whose they are, and for how long. What a version of HTTP makes of a
 * call is that version's (struct bm_version).
 *
 * An exchange has no account: one that is held outlives its connection, and with it who paid. There are as
 * many as the peer may have streams (BM_H2_STREAMS_MAX). */
#include "net/exchange.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "net/connection_inner.h"

struct bm_exchange *bm_exchange_new(struct bm_connection *connection)
{
    uint32_t cap;
    struct bm_exchange *exchange =
        bm_pool_get(&connection->link.core->pool, sizeof(*exchange), &cap);
    if (!exchange)
        return NULL;
    memset(exchange, 0, sizeof(*exchange));
    exchange->connection = connection;
    exchange->version = connection->version;
    exchange->body_until_ns = UINT64_MAX;
    bm_list_push_back(&connection->exchanges, &exchange->node);
    connection->open++;
    connection->idle_until_ns = UINT64_MAX;
    return exchange;
}

static void free_body(struct bm_exchange *exchange)
{
    if (exchange->body && exchange->body_cap > 0)
        bm_pool_put(&exchange->connection->link.core->pool, exchange->body, exchange->body_cap);
    else if (exchange->body)
        bm_free(&exchange->connection->account, exchange->body, exchange->body_len);
    exchange->body = NULL;
}

int bm_exchange_keep_body(struct bm_exchange *exchange, const void *body, size_t len)
{
    struct bm_connection *connection = exchange->connection;
    exchange->body_cap = 0;
    exchange->body = len <= BM_EXCHANGE_SMALL_MAX
                         ? bm_pool_get(&connection->link.core->pool, len, &exchange->body_cap)
                         : bm_alloc(&connection->account, len);
    if (!exchange->body)
        return -ENOMEM;
    memcpy(exchange->body, body, len);
    exchange->body_len = len;
    return 0;
}

void bm_exchange_drop_body(struct bm_exchange *exchange)
{
    free_body(exchange);
}

static void free_exchange(struct bm_exchange *exchange)
{
    bm_list_unlink(&exchange->node);
    /* The core may have ended. */
    bm_pool_put(bm_core_pool(bm_core_current()), exchange, bm_pool_cap(sizeof(*exchange)));
}

static void left_connection(struct bm_exchange *exchange)
{
    struct bm_connection *connection = exchange->connection;
    exchange->closed = true;
    free_body(exchange);
    bm_assert(connection->open > 0);
    if (--connection->open == 0 && connection->server)
        connection->idle_until_ns =
            bm_clock_after(bm_connection_now_ns(connection), BM_CONNECTION_IDLE_NS);
}

void bm_exchange_discard(struct bm_exchange *exchange)
{
    left_connection(exchange);
    free_exchange(exchange);
}

void bm_exchange_finish(struct bm_exchange *exchange, int error)
{
    if (exchange->closed)
        return;
    left_connection(exchange);
    exchange->finishing = true;
    if (exchange->handlers && exchange->handlers->on_close)
        exchange->handlers->on_close(exchange, error, exchange->arg);
    exchange->finishing = false;
    if (exchange->holds == 0)
        free_exchange(exchange);
}

void bm_exchange_orphan(struct bm_exchange *exchange)
{
    bm_assert(exchange->closed && exchange->holds > 0);
    exchange->version->hold(exchange, false);
    exchange->connection = NULL;
    exchange->stream = NULL;
    bm_list_unlink(&exchange->node);
}

void bm_exchange_show(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    struct bm_connection *connection = exchange->connection;
    if (connection->owner->on_request)
        connection->owner->on_request(connection, exchange, request, connection->arg);
    if (!exchange->handlers && !exchange->answered)
        (void)bm_exchange_answer(exchange, 500, NULL, 0, NULL, 0);
}

void bm_exchange_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len)
{
    exchange->unconsumed += len;
    exchange->body_until_ns =
        bm_clock_after(exchange->body_until_ns, len * (BM_NS_PER_S / BM_HTTP1_BODY_RATE_MIN));
    if (exchange->handlers && exchange->handlers->on_body)
        exchange->handlers->on_body(exchange, bytes, len, exchange->arg);
    else
        bm_exchange_consumed(exchange, len);
}

void bm_exchange_end(struct bm_exchange *exchange)
{
    exchange->body_until_ns = UINT64_MAX;
    if (exchange->handlers && exchange->handlers->on_end)
        exchange->handlers->on_end(exchange, exchange->arg);
}

ssize_t bm_exchange_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end)
{
    if (!exchange->handlers || !exchange->handlers->read)
        return -EPIPE;
    ssize_t n = exchange->handlers->read(exchange, buf, len, ret_end, exchange->arg);
    bm_assert(n <= (ssize_t)len);
    return n;
}

void bm_exchange_take(struct bm_exchange *exchange, const struct bm_exchange_handlers *handlers,
                      void *arg)
{
    exchange->handlers = handlers;
    exchange->arg = arg;
}

int bm_exchange_answer(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                       size_t field_count, const void *body, int64_t body_len)
{
    struct bm_connection *connection = exchange->connection;
    if (exchange->closed || !connection || connection->failing)
        return -EPIPE;
    if (!connection->server || body_len < -1 || (body_len > 0 && !body) ||
        (body_len == -1 && (!exchange->handlers || !exchange->handlers->read)))
        return -EINVAL;
    if (body_len > BM_EXCHANGE_BODY_MAX)
        return -EMSGSIZE;
    if (exchange->answered)
        return -EALREADY;
    int r = exchange->version->answer(exchange, status, fields, field_count, body, body_len);
    if (r < 0)
        return r;
    exchange->answered = true;
    bm_link_flush(&connection->link);
    return 0;
}

static bool is_alive(const struct bm_exchange *exchange)
{
    return !exchange->closed && exchange->connection && !exchange->connection->ended;
}

void bm_exchange_resume(struct bm_exchange *exchange)
{
    if (!is_alive(exchange))
        return;
    exchange->version->resume(exchange);
    bm_link_flush(&exchange->connection->link);
}

void bm_exchange_consumed(struct bm_exchange *exchange, size_t len)
{
    bm_assert(len <= exchange->unconsumed);
    exchange->unconsumed -= len;
    if (!is_alive(exchange) || len == 0)
        return;
    exchange->version->consumed(exchange, len);
    bm_link_flush(&exchange->connection->link);
}

void bm_exchange_window(struct bm_exchange *exchange, uint32_t len)
{
    if (!is_alive(exchange))
        return;
    exchange->version->window(exchange, len);
    bm_link_flush(&exchange->connection->link);
}

void bm_exchange_expect_body(struct bm_exchange *exchange)
{
    if (is_alive(exchange) && exchange->version->number >= 2)
        exchange->body_until_ns =
            bm_clock_after(bm_connection_now_ns(exchange->connection), BM_HTTP1_BODY_NS);
}

void bm_exchange_patient(struct bm_exchange *exchange)
{
    exchange->patient = true;
}

void bm_exchange_reset(struct bm_exchange *exchange)
{
    if (!is_alive(exchange))
        return;
    exchange->version->reset(exchange);
    bm_link_flush(&exchange->connection->link);
}

void bm_exchange_hold(struct bm_exchange *exchange)
{
    if (exchange->holds++ == 0 && exchange->connection)
        exchange->version->hold(exchange, true);
}

struct bm_exchange *bm_exchange_release(struct bm_exchange *exchange)
{
    bm_assert(exchange->holds > 0);
    if (--exchange->holds > 0)
        return NULL;
    if (exchange->connection)
        exchange->version->hold(exchange, false);
    if (exchange->closed && !exchange->finishing)
        free_exchange(exchange);
    return NULL;
}

struct bm_connection *bm_exchange_connection(const struct bm_exchange *exchange)
{
    return exchange->connection;
}

unsigned bm_exchange_version(const struct bm_exchange *exchange)
{
    return exchange->version->number;
}

bool bm_exchange_closed(const struct bm_exchange *exchange)
{
    return exchange->closed;
}
