/* The way out of a session, the same on every carrier: which frame goes next.
 *
 * Channels that have something to send stand in `ready` and are served in turn, a few messages a
 * visit, so that one busy channel does not hold up the others. Credits, endings and session frames
 * are never queued as frames: they are flags and numbers, written when there is room. A large
 * message goes one frame a visit, at most two of them at a time. Where it gains something (an idle
 * ring) a message is put when it is sent, past all of that.
 *
 * Invariants: on one channel everything goes in the order in which it was sent, its end last; an
 * abort alone overtakes; ids are given when a frame is put, so that they ascend on the wire.
 *
 * How a frame looks and travels is the carrier's. */
#include <errno.h>

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/dedicated.h"
#include "runtime/details.h"
#include "runtime/message.h"
#include "runtime/pumped_fds.h"
#include "runtime/session.h"

#define MESSAGES_PER_VISIT 32 /* ours: a packet of small messages is about two visits */

int bm_outgoing_admit(beam_channel *channel, beam_message *message)
{
    int r = bm_message_make_ours(message);
    beam_session *session = channel->session;
    bool pumps = session && session->carrier->pumps_fds && bm_message_fds(message) > 0;
    unsigned channels = bm_message_channels(message);
    unsigned count = channels + (pumps ? bm_message_fds(message) : 0);
    if (r < 0 || count == 0)
        return r;
    for (unsigned i = 0; i < channels; i++)
        if (message->attachments->channels[i].channel->core != channel->core)
            return -EXDEV;
    if (session && session->hello_received && count > session->peer_channels_max)
        return -EMSGSIZE;
    if (!session || (uint64_t)session->opened_here + count > session->peer_channels_max) {
        channel->blocked = true;
        if (session)
            bm_session_block(session, channel, 0, count);
        return -EAGAIN;
    }
    if (bm_table_reserve(&session->table, session->opened_here + session->opened_there + count) < 0)
        return -ENOMEM;
    if (pumps) {
        r = bm_pumped_fds_send(channel->core, message);
        if (r < 0)
            return r;
    }
    for (unsigned i = 0; i < count; i++) {
        session->opened_here++;
        bm_channel_join(message->attachments->channels[i].channel, session);
    }
    return 0;
}

static bool can_put_now(beam_session *session, const beam_channel *channel)
{
    return session && session->carrier->immediate && bm_message_queue_empty(&channel->out) &&
           channel->id != 0 && !channel->end_due && !channel->abort_due &&
           bm_list_empty(&session->ready) && session->hello_sent &&
           session->state == BM_SESSION_OPEN;
}

void bm_outgoing_send(beam_channel *channel, beam_message *message)
{
    beam_session *session = channel->session;
    if (!can_put_now(session, channel)) {
        bm_channel_enqueue(channel, message);
        return;
    }

    int64_t cost = bm_message_cost(message);
    unsigned fds = bm_message_fds(message);
    bool last = message->flags & BM_MESSAGE_LAST;
    if (session->carrier->put_message(session, channel, message) != BM_PUT_DONE) {
        bm_channel_enqueue(channel, message);
        return;
    }
    channel->send_credit -= cost;
    session->fd_credit -= fds;
    channel->core->messages_sent++;
    if (last)
        channel->local_ended = true;
    session->carrier->commit(session);
    bm_channel_check_gone(channel);
}

bool bm_outgoing_send_body(beam_channel *channel, const void *body, size_t len)
{
    beam_session *session = channel->session;
    if (!can_put_now(session, channel) || !session->carrier->put_body ||
        !session->carrier->put_body(session, channel, body, len))
        return false;
    channel->send_credit -= (int64_t)(len + BM_MESSAGE_COST);
    channel->core->messages_sent++;
    session->carrier->commit(session);
    return true;
}

void bm_outgoing_bind(beam_session *session, beam_channel *channel, beam_message *message)
{
    if (channel->opening && channel->id == 0) {
        bm_channel_bind(channel, session, session->next_id, true);
        session->next_id += 2;
    }
    struct bm_attachments *att = message->attachments;
    for (unsigned i = 0; i < bm_message_channels(message); i++) {
        struct bm_attached_channel *entry = &att->channels[i];
        bm_channel_bind(entry->channel, session, session->next_id, true);
        entry->id = session->next_id;
        session->next_id += 2;
        if (entry->about.dedicated)
            bm_dedicated_begin(entry->channel, entry->about.token);
    }
}

void bm_outgoing_large_gone(beam_session *session)
{
    bm_assert(session->large_sending > 0);
    session->large_sending--;
    struct bm_list *node = bm_list_pop_front(&session->large_waiting);
    if (node) {
        bm_list_push_back(&session->ready, node);
        bm_session_want_flush(session);
    }
}

/* --- one channel ----------------------------------------------------------------------------- */

enum visit {
    NO_ROOM, /* the carrier is full; this channel is the first again */
    VISITED,
    PARKED,              /* stands in large_waiting */
    PARKED_UNTIL_CREDIT, /* stands nowhere; CREDIT makes it ready */
};

static bool credit_is_due(const beam_channel *channel)
{
    return channel->owed > 0 && channel->in_table && !channel->remote_ended &&
           (channel->owed * 2 >= (int64_t)channel->session->limits.window ||
            channel->recv_credit <= 0);
}

/* Whether it must wait until one of those under way has gone. */
static bool large_must_wait(beam_session *session, beam_channel *channel,
                            const beam_message *message)
{
    if (!(message->flags & BM_MESSAGE_LARGE) || channel->large_sending)
        return false;
    if (session->large_sending >= BM_LARGE_SENDING_MAX)
        return true;
    channel->large_sending = true;
    session->large_sending++;
    return false;
}

static void mark_large(const beam_session *session, beam_message *message)
{
    /* Exact limits are the carrier's; this only asks whether one frame could ever hold it. */
    unsigned attached = BM_ATTACHED_LEN + (session->carrier->pumps_fds ? BM_ABOUT_LEN_MAX : 0);
    if (!session->carrier->immediate && bm_message_len(message) + 64 +
                                                attached * bm_message_channels(message) +
                                                BM_NAME_LEN_MAX + 1 >
                                            BM_FRAME_LEN_MAX)
        message->flags |= BM_MESSAGE_LARGE;
}

/* An answer was taken without credit; it goes when there is some. */
static bool pay(beam_session *session, beam_channel *channel, beam_message *message)
{
    unsigned fds = bm_message_fds(message);
    if (!(message->flags & BM_MESSAGE_UNPAID))
        return true;
    if (channel->send_credit <= 0)
        return false;
    if (session->fd_credit < (int64_t)fds) {
        bm_session_block(session, channel, fds, 0);
        return false;
    }
    channel->send_credit -= bm_message_cost(message);
    session->fd_credit -= fds;
    message->flags &= (uint16_t)~BM_MESSAGE_UNPAID;
    return true;
}

static enum visit put_messages(beam_session *session, beam_channel *channel)
{
    beam_message *message;
    for (unsigned n = 0;
         (message = bm_message_queue_first(&channel->out)) && n < MESSAGES_PER_VISIT; n++) {
        int64_t cost = bm_message_cost(message);
        if (!pay(session, channel, message))
            return PARKED_UNTIL_CREDIT;
        mark_large(session, message);
        if (message->attachments)
            bm_dedicated_offer(session, message);
        if (large_must_wait(session, channel, message)) {
            bm_list_unlink(&channel->ready_node);
            bm_list_push_back(&session->large_waiting, &channel->ready_node);
            return PARKED;
        }

        bm_message_queue_pop(&channel->out); /* it may soon be another core's */
        int r = session->carrier->put_message(session, channel, message);
        if (r != BM_PUT_DONE)
            bm_message_queue_push_front(&channel->out, message);
        if (r == BM_PUT_FULL)
            return NO_ROOM;
        channel->opening = false;
        if (r == BM_PUT_PART)
            return VISITED;
        session->queue_len -= (uint64_t)cost;
        if (channel->large_sending) {
            channel->large_sending = false;
            bm_outgoing_large_gone(session);
        }
        if (bm_timer_armed(&channel->fd_timer))
            return VISITED;
    }
    return VISITED;
}

static bool put_end(beam_session *session, beam_channel *channel)
{
    _Alignas(8) uint8_t details[BM_DETAILS_LEN_MAX];
    struct bm_frame_end end = {.code = channel->end_code};
    if (channel->end_details) {
        end.details_len = channel->end_details_len;
        end.details = channel->end_details;
    } else {
        end.details_len = bm_details_write(channel->end_text, details);
        end.details = end.details_len > 0 ? details : NULL;
    }
    bool leaves = channel->withdrawn && channel->ours; /* the serving end only knows of it */
    uint8_t flags = channel->abort_due ? BM_END_ABORT : leaves ? BM_END_WITHDRAWN : 0;
    return session->carrier->put_end(session, channel->id, flags, &end);
}

static enum visit visit(beam_session *session, beam_channel *channel)
{
    if (channel->abort_due) {
        /* Its opening frame may yet have to be taken out of the packet. */
        if (channel->held_back)
            return VISITED;
        if (!put_end(session, channel))
            return NO_ROOM;
        channel->abort_due = false;
        bm_channel_gone(channel);
        return VISITED;
    }
    if (credit_is_due(channel)) {
        if (!session->carrier->put_u64(session, BM_FRAME_CREDIT, 0, channel->id,
                                       (uint64_t)channel->owed))
            return NO_ROOM;
        channel->recv_credit += channel->owed;
        channel->owed = 0;
    }
    /* Bytes that were put cannot be taken back: those behind an opening that may be wait for it. */
    bool bytes_wait = channel->held_back && channel->mode == BM_MODE_BYTES;
    if (!bm_message_queue_empty(&channel->out) && !bm_timer_armed(&channel->fd_timer) &&
        !bytes_wait) {
        enum visit r = put_messages(session, channel);
        if (r != VISITED)
            return r;
    }
    if (channel->end_due && bm_message_queue_empty(&channel->out) && !channel->held_back &&
        !channel->opening) {
        if (!put_end(session, channel))
            return NO_ROOM;
        channel->end_due = false;
    }
    bm_channel_check_gone(channel);
    return VISITED;
}

static bool has_more(const beam_channel *channel)
{
    return !channel->gone &&
           (!bm_message_queue_empty(&channel->out) || channel->abort_due || channel->end_due) &&
           !bm_timer_armed(&channel->fd_timer) && !channel->held_back;
}

/* --- the session's own frames ---------------------------------------------------------------- */

static bool put_session_frames(beam_session *session)
{
    const struct bm_carrier *carrier = session->carrier;
    if (!session->hello_sent) {
        if (!carrier->put_hello(session))
            return false;
        session->hello_sent = true;
    }
    if (session->pong_due) {
        if (!carrier->put_u64(session, BM_FRAME_PING, BM_PING_ACK, 0, session->pong_token))
            return false;
        session->pong_due = false;
    }
    if (session->ping_due) {
        if (!carrier->put_u64(session, BM_FRAME_PING, 0, 0, session->ping_sent_ns))
            return false;
        session->ping_due = false;
    }
    if (session->fds_owed > 0 && bm_session_fds_are_due(session)) {
        if (!carrier->put_u64(session, BM_FRAME_CREDIT, 0, 0, session->fds_owed))
            return false;
        session->fds_recv_credit += session->fds_owed;
        session->fds_owed = 0;
    }
    if (session->goaway_due) {
        _Alignas(8) uint8_t details[BM_DETAILS_LEN_MAX];
        bm_session_explain(session, &session->goaway, details);
        if (!carrier->put_goaway(session, &session->goaway))
            return false;
        session->goaway_due = false;
        session->goaway_sent = true;
    }
    return true;
}

void bm_outgoing_flush(beam_session *session)
{
    if (session->state != BM_SESSION_OPEN || !session->carrier->begin(session))
        return;
    bm_session_ref(session);

    if (put_session_frames(session)) {
        struct bm_list *node;
        while ((node = bm_list_front(&session->ready))) {
            beam_channel *channel = bm_list_entry(node, beam_channel, ready_node);
            bm_channel_ref(channel);
            enum visit r = visit(session, channel);
            if (r == PARKED_UNTIL_CREDIT)
                bm_list_unlink(&channel->ready_node);
            if (r == VISITED && !channel->gone) {
                bm_list_unlink(&channel->ready_node);
                if (has_more(channel))
                    bm_list_push_back(&session->ready, &channel->ready_node);
            }
            bm_channel_unref(channel);
            if (r == NO_ROOM)
                break;
        }
    }
    session->carrier->commit(session);
    bm_session_unblock(session);
    bm_session_check_drained(session);
    bm_session_unref(session);
}
