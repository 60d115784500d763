/* See call.h. The life of a call: it lives as long as its exchange, and as its channel, whichever is
 * longer, and frees itself behind both. The exchange is held for so long: as the service works for it, it
 * keeps its place among the streams of its connection, whoever has reset it.
 *
 * Invariants: an exchange that was taken is answered or reset; a question leaves whole or not at all; what
 * comes behind the answer goes nowhere. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/http_call.h"
#include "net/pooled_buffer.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/runtime.h"

static void free_call(struct bm_call *call, bool held)
{
    struct bm_core *core = call->core;
    beam_message_free(call->question);
    beam_message_free(call->answer);
    bm_pooled_buffer_deinit(&call->converted, &core->pool);
    bm_collected_deinit(&call->body);
    if (call->events)
        bm_events_deinit(call);
    if (held)
        bm_exchange_release(call->exchange);
    bm_peer_clear(&call->asker);
    bm_pool_put(&core->pool, call, bm_pool_cap(sizeof(*call)));
}

static void check_over(struct bm_call *call)
{
    if (call->closed && !call->channel)
        free_call(call, true);
}

static void refuse(struct bm_call *call, unsigned status, enum beam_code code, const char *text)
{
    bm_answer_refusal(
        call, &(struct bm_refusal){.status = status, .code = code, .text = {text, strlen(text)}});
}

/* --- the channel ----------------------------------------------------------------------------- */

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct bm_call *call = arg;
    if (call->closed)
        return;
    if (call->events) {
        bm_events_message(call, message);
        return;
    }
    if (call->answered)
        return;
    if (call->answer) {
        refuse(call, (unsigned)beam_code_http(BEAM_FAILED_PRECONDITION), BEAM_FAILED_PRECONDITION,
               "the service sends several messages: accept text/event-stream");
        bm_channel_withdraw(channel);
        return;
    }
    if (channel->remote_ended) { /* the answer, and its status with it */
        bm_answer_message(call, message);
        return;
    }
    if (!bm_answer_reserve(call, message->body_len)) {
        bm_channel_withdraw(channel);
        return;
    }
    call->answer = beam_message_keep(message);
    if (!call->answer) {
        refuse(call, 503, BEAM_RESOURCE_EXHAUSTED, "no memory");
        bm_channel_withdraw(channel);
    }
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct bm_call *call = arg;
    call->channel = beam_channel_free(channel);
    if (!call->closed) {
        if (call->events)
            bm_events_end(call, status);
        else if (status->code == BEAM_OK)
            bm_answer_message(call, call->answer);
        else
            bm_answer_status(call, status);
    }
    check_over(call);
}

static const struct beam_channel_handlers channel_handlers = {
    .on_message = on_message,
    .on_end = on_end,
};

static int open_channel(struct bm_crossing *crossing, beam_session *session)
{
    struct bm_call *call = bm_list_entry(crossing, struct bm_call, crossing);
    const struct bm_ask ask = {
        .service = call->service->name, .asker = &call->asker, .deadline_ns = call->deadline_ns};
    return bm_open_for(session, &ask, &call->question, &channel_handlers, call, &call->channel);
}

static void cannot_be_reached(struct bm_crossing *crossing, int error)
{
    struct bm_call *call = bm_list_entry(crossing, struct bm_call, crossing);
    struct beam_status status = {.code = BEAM_UNAVAILABLE};
    const char *text = beam_strerror(error);
    if (error == -ETIMEDOUT)
        status.code = BEAM_DEADLINE_EXCEEDED;
    else if (error == -EMSGSIZE || error == -ENOMEM)
        status.code = BEAM_RESOURCE_EXHAUSTED;
    status.message = (beam_str){text, strlen(text)};
    if (call->events)
        bm_events_end(call, &status);
    else
        bm_answer_status(call, &status);
}

/* The request is whole. */
static void ask(struct bm_call *call)
{
    struct bm_refusal refusal;
    unsigned to = call->service->core == BM_ANY_CORE ? call->core->index : call->service->core;
    call->whole = true;
    if (!bm_question_finish(call, &refusal)) {
        bm_answer_refusal(call, &refusal);
        return;
    }
    if (call->events)
        bm_events_begin(call);
    call->crossing.open = open_channel;
    call->crossing.fail = cannot_be_reached;
    bm_crossing_start(&call->crossing, call->core, to);
}

/* --- the exchange ---------------------------------------------------------------------------- */

static void cannot_be_collected(struct bm_call *call, int error)
{
    call->whole = true;
    if (error == -EMSGSIZE)
        refuse(call, 413, BEAM_RESOURCE_EXHAUSTED, "message over the limit");
    else if (error == -ENOBUFS)
        refuse(call, 429, BEAM_RESOURCE_EXHAUSTED,
               "large messages of this connection fill their limit");
    else
        refuse(call, 503, BEAM_RESOURCE_EXHAUSTED, "no memory");
    bm_collected_deinit(&call->body);
}

static void on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    struct bm_call *call = arg;
    if (!call->whole) {
        int r = bm_collected_add(&call->body, bytes, len);
        if (r < 0)
            cannot_be_collected(call, r);
    }
    bm_exchange_consumed(exchange, len);
}

static void on_request_end(struct bm_exchange *exchange, void *arg)
{
    struct bm_call *call = arg;
    (void)exchange;
    if (!call->whole)
        ask(call);
}

static ssize_t on_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                       void *arg)
{
    struct bm_call *call = arg;
    (void)exchange;
    return call->events ? bm_events_read(call, buf, len, ret_end)
                        : bm_answer_read(call, buf, len, ret_end);
}

static void on_close(struct bm_exchange *exchange, int error, void *arg)
{
    struct bm_call *call = arg;
    (void)exchange;
    (void)error;
    call->closed = true;
    bm_crossing_cancel(&call->crossing);
    if (call->events)
        bm_timer_cancel(call->core->reactor, &call->comment_timer);
    if (call->channel)
        bm_channel_withdraw(call->channel);
    check_over(call);
}

static const struct bm_exchange_handlers exchange_handlers = {
    .on_body = on_body,
    .on_end = on_request_end,
    .read = on_read,
    .on_close = on_close,
};

static struct bm_call *new_call(struct bm_server *server, struct bm_exchange *exchange,
                                const struct bm_visitor *visitor)
{
    struct bm_connection *connection = bm_exchange_connection(exchange);
    struct bm_core *core = bm_connection_core(connection);
    uint32_t cap;
    struct bm_call *call = bm_pool_get(&core->pool, sizeof(*call), &cap);
    if (!call)
        return NULL;
    memset(call, 0, sizeof(*call));
    if (bm_visitor_peer(visitor, bm_connection_peer_texts(connection), &call->asker) < 0) {
        bm_pool_put(&core->pool, call, cap);
        return NULL;
    }
    call->exchange = exchange;
    call->server = server;
    call->core = core;
    bm_collected_init(&call->body, core, connection, server->memory_max);
    return call;
}

void bm_call_exchange(struct bm_server *server, struct bm_exchange *exchange,
                      const struct bm_exchange_request *request, const struct bm_visitor *visitor,
                      beam_str rest)
{
    struct bm_refusal refusal;
    struct bm_call *call = new_call(server, exchange, visitor);
    if (!call) {
        bm_exchange_refuse(exchange, 503, BEAM_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
        return;
    }
    if (!bm_question_begin(call, request, rest, &refusal)) {
        bm_exchange_refuse_with(exchange, &refusal);
        free_call(call, false);
        return;
    }
    bm_exchange_take(exchange, &exchange_handlers, call);
    bm_exchange_hold(exchange);
    bm_exchange_expect_body(exchange);
    int r =
        request->body_len > 0 ? bm_collected_reserve(&call->body, (uint64_t)request->body_len) : 0;
    if (r < 0)
        cannot_be_collected(call, r);
    else if (request->body_len == 0)
        ask(call);
}
