/* See dedicated.h. The channel's queue out is what the stream takes its bytes from. While it flows, credit of
 * the session says nothing about it: send_credit counts what that queue has room for, and nothing of
 * it counts in the session's queue, which a stream that stands still must not fill.
 *
 * Invariants: nothing of the channel is put into the session while it is undecided or flows, but END ABORT;
 * of a stream and its channel each knows the other, or neither does. */
#include "runtime/dedicated.h"

#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/early.h"
#include "runtime/message.h"
#include "runtime/session.h"

void beam_stream_dedicate(beam_stream *stream)
{
    beam_channel *channel = (beam_channel *)stream;
    if (channel->unbound && !channel->session)
        channel->dedicate = true;
}

/* --- deciding -------------------------------------------------------------------------------- */

void bm_dedicated_offer(const beam_session *session, beam_message *message)
{
    const struct bm_carrier *carrier = session->carrier;
    struct bm_attachments *att = message->attachments;
    for (unsigned i = 0; i < att->channel_count; i++) {
        struct bm_attached_channel *entry = &att->channels[i];
        if (!entry->channel->dedicate || entry->about.dedicated || !carrier->dedicates ||
            !carrier->dedicates(session))
            continue;
        entry->about.dedicated = true;
        bm_random(entry->about.token, BM_TOKEN_LEN);
    }
}

/* The session it is. A message without a byte says so, if nothing else does. */
static void decide_for_session(beam_channel *channel)
{
    channel->dedicated_state = BM_DEDICATED_NONE;
    if (!bm_message_queue_empty(&channel->out) || channel->end_due || channel->abort_due) {
        bm_channel_make_ready(channel);
        return;
    }
    beam_message *message = channel->local_ended ? NULL : bm_message_new(channel->core);
    if (message) {
        bm_channel_enqueue(channel, message);
    } else if (!channel->local_ended) {
        bm_channel_abort(channel, BEAM_RESOURCE_EXHAUSTED, "no memory");
        bm_channel_end_later(channel, BEAM_RESOURCE_EXHAUSTED, "no memory");
    }
}

void bm_dedicated_begin(beam_channel *channel, const uint8_t *token)
{
    beam_session *session = channel->session;
    if (channel->mode != BM_MODE_BYTES || channel->abort_due || channel->gone)
        return;
    bm_list_unlink(&channel->ready_node);
    channel->dedicated_state = BM_DEDICATED_UNDECIDED;
    bool taken = session->carrier->dedicate && session->carrier->dedicate(session, channel, token);
    if (!taken && session->opener)
        decide_for_session(channel);
}

bool bm_dedicated_may_come(beam_channel *channel)
{
    if (BM_LIKELY(channel->dedicated_state == BM_DEDICATED_NONE))
        return true;
    if (channel->dedicated_state == BM_DEDICATED_FLOWS || channel->session->opener)
        return false;
    channel->dedicated_state = BM_DEDICATED_NONE;
    bm_dedicated_over(channel, false);
    if (!bm_message_queue_empty(&channel->out) || channel->end_due)
        bm_channel_make_ready(channel);
    return true;
}

void bm_dedicated_join(struct bm_dedicated *dedicated, const struct bm_dedicated_calls *calls,
                       beam_channel *channel)
{
    bm_assert(channel->dedicated_state == BM_DEDICATED_UNDECIDED && !channel->dedicated);
    dedicated->calls = calls;
    dedicated->channel = channel;
    channel->dedicated = dedicated;
}

static beam_channel *part(struct bm_dedicated *dedicated)
{
    beam_channel *channel = dedicated->channel;
    dedicated->channel = NULL;
    channel->dedicated = NULL;
    return channel;
}

void bm_dedicated_decline(struct bm_dedicated *dedicated)
{
    bm_assert(dedicated->channel->dedicated_state == BM_DEDICATED_UNDECIDED);
    beam_channel *channel = part(dedicated);
    if (channel->session->opener)
        decide_for_session(channel);
}

void bm_dedicated_go(struct bm_dedicated *dedicated)
{
    beam_channel *channel = dedicated->channel;
    bm_assert(channel->dedicated_state == BM_DEDICATED_UNDECIDED);
    channel->dedicated_state = BM_DEDICATED_FLOWS;
    channel->send_credit = BM_DEDICATED_QUEUE_LEN;
    for (const beam_message *m = bm_message_queue_first(&channel->out); m; m = m->next) {
        channel->send_credit -= bm_message_cost(m);
        channel->session->queue_len -= (uint64_t)bm_message_cost(m);
    }
    bm_list_unlink(&channel->blocked_node);
    bm_list_unlink(&channel->ready_node);
    bm_session_unblock_later(channel->session);
    if (channel->blocked) {
        channel->blocked = false;
        bm_channel_notify(channel, BM_DUE_WRITABLE);
    }
    bm_dedicated_ready(channel);
}

/* --- between the two ------------------------------------------------------------------------- */

void bm_dedicated_ready(beam_channel *channel)
{
    struct bm_dedicated *dedicated = channel->dedicated;
    if (dedicated && channel->dedicated_state == BM_DEDICATED_FLOWS &&
        (!bm_message_queue_empty(&channel->out) || channel->end_due))
        dedicated->calls->ready(dedicated);
}

void bm_dedicated_consumed(beam_channel *channel, int64_t len)
{
    struct bm_dedicated *dedicated = channel->dedicated;
    if (dedicated && len > 0)
        dedicated->calls->consumed(dedicated, (size_t)len);
}

void bm_dedicated_over(beam_channel *channel, bool told)
{
    struct bm_dedicated *dedicated = channel->dedicated;
    if (!dedicated)
        return;
    part(dedicated);
    dedicated->calls->over(dedicated, told);
}

/* --- out ------------------------------------------------------------------------------------- */

static void message_taken(beam_channel *channel)
{
    beam_message *message = bm_message_queue_pop(&channel->out);
    channel->send_credit += bm_message_cost(message);
    if (message->flags & BM_MESSAGE_LAST) {
        channel->end_due = true;
        channel->end_code = BEAM_OK;
    }
    message->flags &= (uint16_t)~BM_MESSAGE_LAST;
    beam_message_free(message);
    if (channel->blocked && channel->send_credit * 2 >= BM_DEDICATED_QUEUE_LEN) {
        channel->blocked = false;
        bm_channel_notify(channel, BM_DUE_WRITABLE);
    }
}

size_t bm_dedicated_take(struct bm_dedicated *dedicated, uint8_t *buf, size_t len)
{
    beam_channel *channel = dedicated->channel;
    beam_message *message;
    size_t done = 0;
    while ((message = bm_message_queue_first(&channel->out))) {
        size_t left = message->body_len - message->packed;
        size_t n = left < len - done ? left : len - done;
        if (n > 0)
            memcpy(buf + done, message->body + message->packed, n);
        message->packed += (uint32_t)n;
        done += n;
        if (message->packed < message->body_len)
            break;
        message_taken(channel);
    }
    return done;
}

bool bm_dedicated_take_end(struct bm_dedicated *dedicated, uint32_t *ret_code)
{
    beam_channel *channel = dedicated->channel;
    if (!channel->end_due || !bm_message_queue_empty(&channel->out))
        return false;
    channel->end_due = false;
    *ret_code = channel->end_code;
    return true;
}

/* --- in -------------------------------------------------------------------------------------- */

void bm_dedicated_data(struct bm_dedicated *dedicated, const uint8_t *bytes, size_t len)
{
    beam_channel *channel = bm_channel_ref(dedicated->channel);
    const struct beam_stream_handlers *h = channel->handlers;
    channel->hold_bytes = false;
    channel->core->messages_received++;
    if (bm_early_applies(channel)) {
        bm_early_put_bytes(channel, bytes, (uint32_t)len);
    } else {
        if (h && h->on_data && channel->handle)
            h->on_data((beam_stream *)channel, bytes, len, channel->arg);
        if (!channel->hold_bytes)
            bm_dedicated_consumed(channel, (int64_t)len);
    }
    bm_channel_unref(channel);
}

void bm_dedicated_end(struct bm_dedicated *dedicated, uint32_t code, const void *details,
                      uint32_t details_len)
{
    struct beam_kv_value map;
    beam_str text = {0};
    if (details && beam_kv_root(details, details_len, &map) == 0)
        (void)beam_kv_get_str(&map, "message", &text);
    bm_channel_remote_end(dedicated->channel, code != BEAM_OK, code, text, details, details_len);
}

void bm_dedicated_break(struct bm_dedicated *dedicated, enum beam_code code, const char *text)
{
    beam_channel *channel = bm_channel_ref(dedicated->channel);
    bool told = channel->remote_ended;
    bm_channel_abort(channel, code, text);
    if (!told)
        bm_channel_end_later(channel, code, text);
    bm_channel_unref(channel);
}
