/* See call.h. A message that comes waits in the queue, with the credit it has of its sender, until all
 * before it has been read by the peer: so whoever reads slowly slows the service, and what waits here is
 * bounded by the channel's window. It becomes text only then. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/http_call.h"
#include "net/document_json.h"
#include "net/event_text.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/runtime.h"

static const char comment[] = ":\n\n";

static int add_converted(beam_buffer *out, const char *name, const struct beam_codec *codec,
                         const void *in, size_t len)
{
    beam_buffer json;
    beam_buffer_init(&json, SIZE_MAX);
    int r = beam_convert(codec, &beam_json, in, len, NULL, &json, NULL);
    if (r == 0)
        r = bm_event_text_add(out, name, (const char *)json.ptr, json.len);
    beam_buffer_deinit(&json);
    return r;
}

/* {"$bytes": …} */
static int add_bytes(beam_buffer *out, const char *name, const void *bytes, size_t len)
{
    beam_kv_writer writer;
    beam_buffer made;
    const void *document;
    size_t document_len;
    beam_buffer_init(&made, SIZE_MAX);
    beam_kv_writer_init_buffer(&writer, &made);
    beam_kv_put_bytes(&writer, NULL, bytes, len);
    int r = beam_kv_writer_finish(&writer, &document, &document_len);
    if (r == 0)
        r = add_converted(out, name, &beam_kv_codec, document, document_len);
    beam_buffer_deinit(&made);
    return r;
}

static int add_body(const struct bm_call *call, const beam_message *message, beam_buffer *out)
{
    const struct beam_codec *codec = bm_answer_codec(call, message);
    if (codec == &beam_json)
        return bm_event_text_add(out, "message", (const char *)message->body, message->body_len);
    int r = codec && codec->to_kv
                ? add_converted(out, "message", codec, message->body, message->body_len)
                : -BEAM_ECODEC_UNSUPPORTED;
    if (r == 0 || r == -ENOMEM)
        return r;
    return add_bytes(out, "message", message->body, message->body_len);
}

static int add_message(const struct bm_call *call, const beam_message *message, beam_buffer *out)
{
    int r = 0;
    if (message->body_len == 0 && message->metadata_len == 0)
        return bm_event_text_add(out, "message", "{}", 2);
    if (message->metadata_len > 0)
        r = add_converted(out, message->body_len > 0 ? "metadata" : "message", &beam_kv_codec,
                          message->metadata, message->metadata_len);
    if (r == 0 && message->body_len > 0)
        r = add_body(call, message, out);
    return r;
}

/* --- time ------------------------------------------------------------------------------------ */

static void arm(struct bm_call *call)
{
    struct bm_reactor *reactor = call->core->reactor;
    bm_timer_arm(reactor, &call->comment_timer,
                 bm_clock_after(bm_reactor_now_ns(reactor), BM_CALL_COMMENT_NS));
}

static void on_silence(struct bm_timer *timer)
{
    struct bm_call *call = bm_list_entry(timer, struct bm_call, comment_timer);
    bool waits = call->sent < call->text.len || !bm_message_queue_empty(&call->queue);
    if (call->ended || call->closed)
        return;
    if (!waits) { /* else the peer is silent, and not we */
        beam_buffer_clear(&call->text);
        call->sent = 0;
        (void)beam_buffer_add(&call->text, comment, sizeof(comment) - 1);
        bm_exchange_resume(call->exchange);
    }
    arm(call);
}

/* --- what comes ------------------------------------------------------------------------------ */

void bm_events_begin(struct bm_call *call)
{
    const struct bm_field fields[] = {
        BM_FIELD("content-type", "text/event-stream"),
        BM_FIELD("cache-control", "no-store"),
        BM_FIELD("x-accel-buffering", "no"),
    };
    beam_buffer_init(&call->text, SIZE_MAX);
    beam_buffer_init(&call->last, SIZE_MAX);
    bm_timer_init(&call->comment_timer, on_silence);
    call->answered = true;
    if (bm_exchange_answer(call->exchange, 200, fields, sizeof(fields) / sizeof(fields[0]), NULL,
                           -1) < 0) {
        bm_exchange_reset(call->exchange);
        return;
    }
    arm(call);
}

void bm_events_message(struct bm_call *call, const beam_message *message)
{
    if (call->closed)
        return;
    beam_message *kept = beam_message_keep(message);
    if (!kept) {
        bm_exchange_reset(call->exchange);
        return;
    }
    bm_message_queue_push(&call->queue, kept);
    bm_exchange_resume(call->exchange);
    arm(call);
}

void bm_events_end(struct bm_call *call, const struct beam_status *status)
{
    beam_buffer json;
    if (call->closed || call->ended)
        return;
    beam_buffer_init(&json, SIZE_MAX);
    int r = bm_document_json_status(status->code, status->message, status->details,
                                    status->details_len, &json);
    if (r == 0)
        r = bm_event_text_add(&call->last, "end", (const char *)json.ptr, json.len);
    beam_buffer_deinit(&json);
    bm_timer_cancel(call->core->reactor, &call->comment_timer);
    call->ended = true;
    if (r < 0)
        bm_exchange_reset(call->exchange); /* an end that is not told is none */
    else
        bm_exchange_resume(call->exchange);
}

/* --- what goes ------------------------------------------------------------------------------- */

/* The next text to send, when all of the last has gone. false: there is none. */
static bool next_text(struct bm_call *call, int *ret_error)
{
    beam_message *message = bm_message_queue_pop(&call->queue);
    *ret_error = 0;
    beam_buffer_clear(&call->text);
    call->sent = 0;
    if (message) {
        *ret_error = add_message(call, message, &call->text);
        beam_message_free(message);
        return *ret_error == 0;
    }
    if (call->last.len == 0)
        return false;
    beam_buffer_deinit(&call->text);
    call->text = call->last;
    call->last = (beam_buffer){0};
    return true;
}

ssize_t bm_events_read(struct bm_call *call, uint8_t *buf, size_t len, bool *ret_end)
{
    size_t n = 0;
    while (n < len) {
        size_t left = call->text.len - call->sent;
        int r;
        if (left == 0 && !next_text(call, &r)) {
            if (r < 0)
                return r;
            break;
        }
        left = call->text.len - call->sent;
        size_t part = left < len - n ? left : len - n;
        memcpy(buf + n, call->text.ptr + call->sent, part);
        call->sent += part;
        n += part;
    }
    *ret_end = call->ended && call->last.len == 0 && call->sent == call->text.len &&
               bm_message_queue_empty(&call->queue);
    return (ssize_t)n;
}

void bm_events_deinit(struct bm_call *call)
{
    beam_message *message;
    while ((message = bm_message_queue_pop(&call->queue)))
        beam_message_free(message);
    bm_timer_cancel(call->core->reactor, &call->comment_timer);
    beam_buffer_deinit(&call->text);
    beam_buffer_deinit(&call->last);
}
