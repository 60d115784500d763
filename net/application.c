/* Requests for paths that are none of Beam's: shown to the application whole, and answered by it when it
 * likes (beam_http_* of <beam/net.h>).
 *
 * Life. A request is its exchange's, which is held, until that has closed, and the application's until it
 * has answered; it frees itself behind both, which may be after the end of the runtime. What it shows are
 * its own copies. */
#include <errno.h>
#include <string.h>

#include <beam/net.h>

#include "net/access.h"
#include "net/collected.h"
#include "net/exchange.h"
#include "net/server.h"
#include "runtime/core.h"
#include "runtime/pool.h"

#define FIELDS_MAX 64u /* of an answer; as many as a request may have */

struct beam_http_request {
    struct bm_exchange *exchange;
    struct bm_server *server;
    struct bm_core *core;
    bool closed;   /* the exchange's on_close has come */
    bool shown;    /* to the application */
    bool answered; /* by it, or by us before it was shown */
    struct bm_collected body;
    beam_str method, path;
    struct bm_field *fields; /* in `head`, as the two above */
    size_t field_count;
    uint8_t *head;
    uint32_t head_cap;
    uint8_t *answer; /* a long one */
    size_t answer_len, sent;
    struct bm_peer peer;
};

static void free_request(beam_http_request *request)
{
    struct bm_pool *pool = bm_core_pool(bm_core_current()); /* the core may have ended */
    bm_collected_deinit(&request->body);
    if (request->head)
        bm_pool_put(pool, request->head, request->head_cap);
    bm_free(NULL, request->answer, request->answer_len);
    bm_exchange_release(request->exchange);
    bm_peer_clear(&request->peer);
    bm_free(NULL, request, sizeof(*request));
}

static void check_over(beam_http_request *request)
{
    if (request->closed && (request->answered || !request->shown))
        free_request(request);
}

/* --- the head -------------------------------------------------------------------------------- */

static beam_str copy_text(uint8_t **pos, const char *text, size_t len)
{
    char *to = (char *)*pos;
    if (len > 0)
        memcpy(to, text, len);
    *pos += len;
    return (beam_str){to, len};
}

/* A field that its peer may not set: the application would take it for a proxy's word. */
static bool hides(const beam_http_request *request, const struct bm_field *field)
{
    const struct bm_access *access = request->server->access;
    return access && bm_access_hides(access, bm_exchange_connection(request->exchange),
                                     (beam_str){field->name, field->name_len});
}

/* -ENOMEM. */
static int copy_head(beam_http_request *request, const struct bm_exchange_request *from)
{
    size_t fields_len = from->field_count * sizeof(request->fields[0]);
    size_t len = fields_len + from->method.len + from->path.len;
    for (size_t i = 0; i < from->field_count; i++)
        len += from->fields[i].name_len + from->fields[i].value_len;
    request->head = bm_pool_get(&request->core->pool, len, &request->head_cap);
    if (!request->head)
        return -ENOMEM;
    uint8_t *pos = request->head + fields_len;
    request->fields = (struct bm_field *)(void *)request->head;
    request->method = copy_text(&pos, from->method.ptr, from->method.len);
    request->path = copy_text(&pos, from->path.ptr, from->path.len);
    for (size_t i = 0; i < from->field_count; i++) {
        const struct bm_field *field = &from->fields[i];
        if (hides(request, field))
            continue;
        beam_str name = copy_text(&pos, field->name, field->name_len);
        beam_str value = copy_text(&pos, field->value, field->value_len);
        struct bm_field *to = &request->fields[request->field_count++];
        *to = *field;
        to->name = name.ptr;
        to->value = value.ptr;
    }
    return 0;
}

/* --- the exchange ---------------------------------------------------------------------------- */

static void show(beam_http_request *request)
{
    request->shown = true;
    request->server->on_request(request, request->server->on_request_arg);
}

static void cannot_be_collected(beam_http_request *request, int error)
{
    request->answered = true;
    if (error == -EMSGSIZE)
        bm_exchange_refuse(request->exchange, 413, BEAM_RESOURCE_EXHAUSTED, "body over the limit",
                           NULL, 0);
    else if (error == -ENOBUFS)
        bm_exchange_refuse(request->exchange, 429, BEAM_RESOURCE_EXHAUSTED,
                           "large bodies of this connection fill their limit", NULL, 0);
    else
        bm_exchange_refuse(request->exchange, 503, BEAM_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
    bm_collected_deinit(&request->body);
}

static void on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    beam_http_request *request = arg;
    if (!request->answered) {
        int r = bm_collected_add(&request->body, bytes, len);
        if (r < 0)
            cannot_be_collected(request, r);
    }
    bm_exchange_consumed(exchange, len);
}

static void on_end(struct bm_exchange *exchange, void *arg)
{
    beam_http_request *request = arg;
    (void)exchange;
    if (!request->answered && !request->shown)
        show(request);
}

static ssize_t on_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                       void *arg)
{
    beam_http_request *request = arg;
    size_t left = request->answer_len - request->sent;
    size_t n = left < len ? left : len;
    (void)exchange;
    if (n > 0)
        memcpy(buf, request->answer + request->sent, n);
    request->sent += n;
    *ret_end = n == left;
    return (ssize_t)n;
}

static void on_close(struct bm_exchange *exchange, int error, void *arg)
{
    beam_http_request *request = arg;
    (void)exchange;
    (void)error;
    request->closed = true;
    check_over(request);
}

static const struct bm_exchange_handlers exchange_handlers = {
    .on_body = on_body,
    .on_end = on_end,
    .read = on_read,
    .on_close = on_close,
};

static beam_http_request *new_request(struct bm_server *server, struct bm_exchange *exchange,
                                      const struct bm_exchange_request *from,
                                      const struct bm_visitor *visitor)
{
    struct bm_connection *connection = bm_exchange_connection(exchange);
    beam_http_request *request = bm_alloc_zero(NULL, sizeof(*request));
    if (!request)
        return NULL;
    request->exchange = exchange;
    request->server = server;
    request->core = bm_connection_core(connection);
    bm_collected_init(&request->body, request->core, connection, server->memory_max);
    if (copy_head(request, from) < 0 || bm_visitor_peer(visitor, NULL, &request->peer) < 0) {
        if (request->head)
            bm_pool_put(&request->core->pool, request->head, request->head_cap);
        bm_free(NULL, request, sizeof(*request));
        return NULL;
    }
    return request;
}

void bm_application_exchange(struct bm_server *server, struct bm_exchange *exchange,
                             const struct bm_exchange_request *from,
                             const struct bm_visitor *visitor)
{
    if (!server->on_request) {
        bm_exchange_refuse(exchange, 404, BEAM_NOT_FOUND, "there is nothing at this path", NULL, 0);
        return;
    }
    beam_http_request *request = new_request(server, exchange, from, visitor);
    if (!request) {
        bm_exchange_refuse(exchange, 503, BEAM_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
        return;
    }
    bm_exchange_take(exchange, &exchange_handlers, request);
    bm_exchange_hold(exchange);
    bm_exchange_expect_body(exchange);
    int r = from->body_len > 0 ? bm_collected_reserve(&request->body, (uint64_t)from->body_len) : 0;
    if (r < 0)
        cannot_be_collected(request, r);
    else if (from->body_len == 0)
        show(request);
}

/* --- what the application calls -------------------------------------------------------------- */

beam_str beam_http_method(const beam_http_request *request)
{
    return request->method;
}

beam_str beam_http_path(const beam_http_request *request)
{
    return request->path;
}

beam_str beam_http_body(const beam_http_request *request)
{
    return (beam_str){(const char *)request->body.body.block, request->body.body.len};
}

beam_str beam_http_get(const beam_http_request *request, const char *name)
{
    const struct bm_field *field = bm_field_find(request->fields, request->field_count, name);
    return field ? (beam_str){field->value, field->value_len} : (beam_str){0};
}

const struct beam_peer *beam_http_peer(const beam_http_request *request)
{
    return &request->peer.shown;
}

static bool is_sound(unsigned status, const struct beam_http_field *fields, size_t count)
{
    if (status < 200 || status > 599 || count > FIELDS_MAX)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!bm_field_is_name(fields[i].name.ptr, fields[i].name.len) ||
            !bm_field_is_value(fields[i].value.ptr, fields[i].value.len))
            return false;
    return true;
}

int beam_http_respond(beam_http_request *request, unsigned status,
                      const struct beam_http_field *fields, size_t field_count, const void *body,
                      size_t len)
{
    struct bm_field sent[FIELDS_MAX];
    bool whole = len <= BM_EXCHANGE_BODY_MAX;
    uint8_t *copy = NULL;
    if (!is_sound(status, fields, field_count))
        return -EINVAL;
    for (size_t i = 0; i < field_count; i++)
        sent[i] = (struct bm_field){.name = fields[i].name.ptr,
                                    .value = fields[i].value.ptr,
                                    .name_len = fields[i].name.len,
                                    .value_len = fields[i].value.len};
    if (!whole && !request->closed) {
        copy = bm_alloc(NULL, len);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, body, len);
        request->answer = copy;
        request->answer_len = len;
    }
    if (copy && bm_collected_answer(&request->body, len) < 0) {
        request->answer = bm_free(NULL, copy, len);
        request->answer_len = 0;
        request->answered = true;
        bm_exchange_refuse(request->exchange, 429, BEAM_RESOURCE_EXHAUSTED,
                           "large bodies of this connection fill their limit", NULL, 0);
        check_over(request);
        return 0;
    }
    int r = request->closed ? 0
                            : bm_exchange_answer(request->exchange, status, sent, field_count, body,
                                                 whole ? (int64_t)len : -1);
    if (r < 0 && r != -EPIPE) {
        request->answer = bm_free(NULL, copy, len);
        request->answer_len = 0;
        return r == -ENOMEM ? r : -EINVAL;
    }
    request->answered = true;
    check_over(request);
    return 0;
}
