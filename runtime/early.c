/* What comes on a channel before its owner can hear it: on one that is attached to a message and
 * has not been taken out of it yet, or behind a request that waits in session->held. It waits here,
 * and is told in its order as soon as there is somebody to tell.
 *
 * Invariants: it holds the peer's credit, so that a window bounds it on each channel, and early_held
 * bounds its memory in all of a session; the end is told last; while something waits, whatever else
 * comes waits behind it. */
#include "runtime/early.h"

#include <stdio.h>

#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/dedicated.h"
#include "runtime/message.h"
#include "runtime/session.h"

bool bm_early_applies(const beam_channel *channel)
{
    if (!bm_message_queue_empty(&channel->early) || channel->end_waits)
        return !channel->end_told;
    if (channel->kind == BM_CHANNEL_REQUEST)
        return bm_list_linked(&channel->held_node);
    return channel->kind == BM_CHANNEL_PLAIN && !channel->handle && !channel->end_told;
}

/* What a message takes here. A small one takes many times the credit it costs, and a large one's body is
 * charged to a budget of its own. */
static uint64_t memory_of(const beam_message *message)
{
    uint64_t len = message->cap;
    if ((message->flags & BM_MESSAGE_BODY_BLOCK) && !(message->flags & BM_MESSAGE_CHARGED))
        len += message->body_cap;
    if (message->flags & BM_MESSAGE_META_BLOCK)
        len += message->metadata_cap;
    return len;
}

/* docs/spec/session.md section 9: what a session may make us hold is arithmetic. */
static bool is_too_much(const beam_session *session, const beam_message *message)
{
    uint64_t most = (uint64_t)session->limits.channels_max *
                    ((uint64_t)session->limits.window + BM_FRAME_LEN_MAX);
    return session->early_held + memory_of(message) > most;
}

static void refuse(beam_channel *channel, const char *text)
{
    bm_channel_abort(channel, BEAM_RESOURCE_EXHAUSTED, text);
    bm_channel_end_later(channel, BEAM_RESOURCE_EXHAUSTED, text);
}

void bm_early_put(beam_channel *channel, beam_message *message)
{
    if (!message) {
        refuse(channel, "no memory");
        return;
    }
    if (is_too_much(channel->session, message)) {
        beam_message_free(message);
        refuse(channel, "messages of this session that nobody takes fill their limit");
        return;
    }
    channel->session->early_held += memory_of(message);
    bm_channel_hold(channel, channel->session);
    bm_message_queue_push(&channel->early, message);
}

void bm_early_put_bytes(beam_channel *channel, const uint8_t *bytes, uint32_t len)
{
    beam_message *message = bm_message_new(channel->core);
    if (message && bm_message_copy_body(message, bytes, len) < 0) {
        beam_message_free(message);
        message = NULL;
    }
    bm_early_put(channel, message);
}

static beam_message *pop_early(beam_channel *channel)
{
    beam_message *message = bm_message_queue_pop(&channel->early);
    if (channel->holds_of)
        channel->holds_of->early_held -= memory_of(message);
    bm_channel_let_go(channel);
    return message;
}

void bm_early_drop(beam_channel *channel)
{
    /* Each may hold a reference to the channel; the caller has one of its own. */
    while (!bm_message_queue_empty(&channel->early))
        beam_message_free(pop_early(channel));
}

static void tell_early_bytes(beam_channel *channel, beam_message *message)
{
    const struct beam_stream_handlers *h = channel->handlers;
    channel->hold_bytes = false;
    if (h && h->on_data)
        h->on_data((beam_stream *)channel, message->body, message->body_len, channel->arg);
    /* A frame's own cost is none on a stream of its own (dedicated.h). */
    int64_t own = channel->dedicated_state == BM_DEDICATED_FLOWS ? 0 : BM_MESSAGE_COST;
    bm_channel_return_credit(channel, channel->hold_bytes ? own : own + (int64_t)message->body_len);
    beam_message_free(message);
}

static void tell_early_message(beam_channel *channel, beam_message *message)
{
    const struct beam_channel_handlers *h = channel->handlers;
    bool kept;
    bm_message_lend(message, &kept);
    if (h && h->on_message)
        h->on_message(channel, message, channel->arg);
    bm_message_return(message, &kept);
}

void bm_early_tell(beam_channel *channel)
{
    while (!bm_message_queue_empty(&channel->early) && channel->handle) {
        if (channel->mode == BM_MODE_BYTES)
            tell_early_bytes(channel, pop_early(channel));
        else
            tell_early_message(channel, pop_early(channel));
    }
    if (channel->kind == BM_CHANNEL_REQUEST)
        bm_early_drop(channel); /* its handler wants to hear no more */
    if (channel->end_waits) {
        channel->end_waits = false;
        bm_channel_notify(channel, BM_DUE_END);
    }
}

void bm_early_end(beam_channel *channel, const struct beam_status *status)
{
    char text[256];
    snprintf(text, sizeof(text), "%.*s", BEAM_STR(status->message));
    channel->told_code = status->code;
    bm_channel_set_text(channel->core, &channel->told_text, &channel->told_text_cap, text);
    channel->end_waits = true;
}

void bm_early_tell_later(beam_channel *channel)
{
    if (!bm_message_queue_empty(&channel->early) || channel->end_waits)
        bm_channel_notify(channel, BM_DUE_EARLY);
}
