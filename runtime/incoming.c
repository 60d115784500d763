/* The way in, the same on every carrier: frames that were taken apart meet the session's state.
 *
 * A message passes three questions. Which channel: the one it opens (open_request), or one that is
 * open (find_open). May it: credit, attached channels, limits (accept_message). To whom: to the
 * channel's owner, to a new request's handler, or into session->held while answers find no room
 * (deliver). One that is a body alone, for a channel with nothing special about it, goes straight
 * to its handler (bm_incoming_plain).
 *
 * Invariants: nothing a peer sends may reach an assertion, an unbounded loop, or an allocation of a
 * size it announced without a budget. What breaks the protocol ends the session (fail); what the
 * session cannot take is refused on its channel (refuse). On every path the message is consumed,
 * its fds are closed or owned, and their credit goes back.
 *
 * It does not look at bytes: frame.c has judged those. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "kv/utf8.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/dedicated.h"
#include "runtime/early.h"
#include "runtime/message.h"
#include "runtime/pumped_fds.h"
#include "runtime/runtime.h"
#include "runtime/service.h"
#include "runtime/session.h"

#define DEADLINE_ALLOWANCE_NS BM_NS_PER_S /* docs/spec/session.md C6 */

static bool fail(beam_session *session, int error)
{
    bm_session_fail(session, error);
    return false;
}

static bool alive(const beam_session *session)
{
    return session->state == BM_SESSION_OPEN;
}

beam_channel *bm_incoming_find(beam_session *session, uint64_t id)
{
    return bm_table_find(&session->table, id);
}

bool bm_incoming_expects_bytes(const beam_channel *channel)
{
    return channel->mode == BM_MODE_BYTES || channel->incoming;
}

/* Was this id given at any time? Then a channel that is not in the table is gone. */
bool bm_incoming_was_given(const beam_session *session, uint64_t id)
{
    bool ours = (id & 1) == (session->opener ? 1 : 0);
    return ours ? id < session->next_id : id <= session->last_peer_id;
}

/* --- session frames -------------------------------------------------------------------------- */

bool bm_incoming_hello(beam_session *session, const struct bm_hello *hello)
{
    if (session->hello_received)
        return fail(session, -BEAM_EHELLO_REPEATED);
    if (hello->opener == session->opener)
        return fail(session, -BEAM_EHELLO_ROLE);
    session->hello_received = true;
    session->peer_window = hello->window;
    session->peer_channels_max = hello->channels_max;
    session->peer_message_len_max = hello->message_len_max;
    session->fds_refused = hello->fds_refused;
    session->peer_fds_max = hello->fds_max;
    session->fd_credit += hello->fds_refused ? 0 : hello->fds_max;
    size_t len = hello->name.len < sizeof(session->peer_name) ? hello->name.len
                                                              : sizeof(session->peer_name) - 1;
    if (len > 0)
        memcpy(session->peer_name, hello->name.ptr, len);
    session->peer_name[len] = '\0';
    bm_timer_cancel(session->core->reactor, &session->hello_timer);

    /* H3: what was opened before gets the rest of its window. */
    for (struct bm_list *n = session->channels.next; n != &session->channels; n = n->next) {
        beam_channel *channel = bm_list_entry(n, beam_channel, session_node);
        channel->send_credit += (int64_t)session->peer_window - (int64_t)BM_WINDOW_MIN;
        bm_session_credited(session, channel);
    }
    bm_session_opened(session);
    bm_session_unblock(session);
    return alive(session);
}

bool bm_incoming_ping(beam_session *session, uint8_t flags, uint64_t token)
{
    if (!(flags & BM_PING_ACK)) {
        /* One answer stands for all that came since the last packet left: a flood costs one frame. */
        session->pong_token = token;
        session->pong_due = true;
        bm_session_want_flush(session);
        return true;
    }
    if (session->ping_fn && token == session->ping_sent_ns) {
        void (*fn)(uint64_t, void *) = session->ping_fn;
        session->ping_fn = NULL;
        uint64_t ns = bm_clock_now_ns() - token;
        fn(ns > 0 ? ns : 1, session->ping_arg);
    }
    return alive(session);
}

/* P2: what we opened by name above that id was surely not run. Losing one channel can end others, those
 * attached to its messages: they are moved to a list of their own first. Returns the highest id left. */
static uint64_t lose_unserved(beam_session *session, uint64_t last_id)
{
    struct bm_list lost;
    struct bm_list *node = session->channels.next;
    uint64_t highest = 0;
    bm_list_init(&lost);
    while (node != &session->channels) {
        beam_channel *channel = bm_list_entry(node, beam_channel, session_node);
        bool by_name = channel->opening || (channel->ours && channel->name_len > 0);
        node = node->next;
        if (channel->kind == BM_CHANNEL_EVENTS) {
            bm_channel_end(channel, BEAM_OK, NULL);
        } else if (by_name && (channel->opening || channel->id > last_id)) {
            channel->never_left = true;
            bm_list_unlink(&channel->session_node);
            bm_list_push_back(&lost, &channel->session_node);
        } else if (by_name && channel->id > highest) {
            highest = channel->id;
        }
    }
    while ((node = bm_list_pop_front(&lost)))
        bm_channel_lost(bm_list_entry(node, beam_channel, session_node), BEAM_UNAVAILABLE,
                        "the peer is draining");
    return highest;
}

bool bm_incoming_goaway(beam_session *session, const struct bm_frame_goaway *goaway)
{
    if (goaway->why.code != BEAM_OK) {
        struct beam_kv_value details;
        beam_str text = {0};
        /* F4: a text is there for people's sake, the error's name always. */
        if (goaway->why.details &&
            beam_kv_root(goaway->why.details, goaway->why.details_len, &details) == 0 &&
            beam_kv_get_str(&details, "message", &text) < 0)
            (void)beam_kv_get_str(&details, "error", &text);
        char reason[200];
        size_t len = text.len < sizeof(reason) - 1 ? text.len : sizeof(reason) - 1;
        if (len > 0) {
            len = bm_utf8_whole(text.ptr, len);
            memcpy(reason, text.ptr, len);
        }
        reason[len] = '\0';
        /* P3: the end of those that got there is not known; the others it has not looked at. */
        (void)lose_unserved(session, goaway->last_id);
        bm_session_lost(session,
                        goaway->why.code <= BEAM_UNAUTHENTICATED ? (enum beam_code)goaway->why.code
                                                                 : BEAM_UNKNOWN,
                        len > 0 ? reason : "the peer ended the session");
        return false;
    }
    /* Each costs a walk over all channels: one that refuses none of those we have left is no news, and
     * there will be no more of them. */
    if (session->peer_draining && goaway->last_id >= session->peer_last_id)
        return true;
    if (!session->peer_draining)
        bm_session_peer_drains(session);
    session->peer_draining = true;
    bm_callers_go_on(session);
    session->peer_last_id = lose_unserved(session, goaway->last_id);
    bm_session_check_drained(session);
    return alive(session);
}

bool bm_incoming_credit(beam_session *session, uint64_t id, uint64_t amount)
{
    const int64_t most = INT64_C(1) << 62; /* W4 */
    if (id == 0) {
        if (amount > (uint64_t)most || session->fd_credit + (int64_t)amount > most)
            return fail(session, -BEAM_ECREDIT_OVERFLOW);
        session->fd_credit += (int64_t)amount;
        bm_session_unblock_later(session);
        return true;
    }
    beam_channel *channel = bm_incoming_find(session, id);
    if (!channel)
        return bm_incoming_was_given(session, id) ? true : fail(session, -BEAM_EFRAME_CHANNEL);
    if (amount > (uint64_t)most || channel->send_credit + (int64_t)amount > most)
        return fail(session, -BEAM_ECREDIT_OVERFLOW);
    if (channel->dedicated_state == BM_DEDICATED_FLOWS)
        return true; /* there it means nothing */
    channel->send_credit += (int64_t)amount;
    bm_session_credited(session, channel);
    return true;
}

/* Whether an abort came because the deadline has passed: by our clock, or by the peer's, which
 * began to count a little earlier. */
static bool is_of_deadline(const beam_channel *channel, uint32_t code)
{
    return channel->deadline_ns != UINT64_MAX &&
           channel->deadline_ns <= bm_reactor_now_ns(channel->core->reactor) +
                                       (code == BEAM_DEADLINE_EXCEEDED ? DEADLINE_ALLOWANCE_NS : 0);
}

/* C6: a bucket of tokens for aborts of channels the peer opened itself. */
static bool abort_is_too_many(beam_session *session)
{
    uint64_t now = bm_reactor_now_ns(session->core->reactor);
    double rate = session->limits.aborts_per_s;
    session->abort_tokens += rate * (double)(now - session->abort_refill_ns) / 1e9;
    session->abort_refill_ns = now;
    if (session->abort_tokens > 2 * rate)
        session->abort_tokens = 2 * rate;
    session->abort_tokens -= 1;
    return session->abort_tokens < 0;
}

bool bm_incoming_end(beam_session *session, uint64_t id, uint8_t flags,
                     const struct bm_frame_end *end)
{
    beam_channel *channel = bm_incoming_find(session, id);
    bool abort = flags & BM_END_ABORT;
    if (!channel)
        return bm_incoming_was_given(session, id) ? true : fail(session, -BEAM_EFRAME_CHANNEL);
    if (channel->abort_due && !abort)
        return true; /* ours is on its way; theirs changes nothing */
    if (flags & BM_END_WITHDRAWN) {
        bm_channel_ref(channel);
        bm_channel_withdrawn(channel);
        bm_channel_unref(channel);
        return alive(session);
    }
    if (!abort && channel->incoming)
        return fail(session, -BEAM_EFRAGMENT);
    if (!abort && (channel->remote_ended || (channel->ours && channel->oneway) ||
                   !bm_dedicated_may_come(channel)))
        return fail(session, -BEAM_EFRAME_CHANNEL);
    if (abort && !channel->ours && !session->inner && !is_of_deadline(channel, end->code) &&
        abort_is_too_many(session))
        return fail(session, -BEAM_ETOO_MANY_ABORTS);
    if (channel->abort_due) {
        bm_channel_gone_for_peer(channel); /* nobody waits for ours any more */
        return alive(session);
    }

    struct beam_kv_value details;
    beam_str text = {0};
    if (end->details && beam_kv_root(end->details, end->details_len, &details) == 0)
        (void)beam_kv_get_str(&details, "message", &text);
    bm_channel_remote_end(channel, abort, end->code, text, end->details, end->details_len);
    return alive(session);
}

/* --- messages -------------------------------------------------------------------------------- */

/* H3: before it has read our HELLO the peer may open the least. */
static uint32_t channels_allowed(const beam_session *session)
{
    uint32_t max = session->limits.channels_max;
    return max > BM_EARLY_CHANNELS ? max : BM_EARLY_CHANNELS;
}

/* The next id of the peer's. 0 or -BEAM_EFRAME_CHANNEL. */
static int take_peer_id(beam_session *session, uint64_t id)
{
    bool ours = (id & 1) == (session->opener ? 1 : 0);
    if (ours || id <= session->last_peer_id)
        return -BEAM_EFRAME_CHANNEL;
    session->last_peer_id = id;
    return 0;
}

static beam_channel *open_channel(beam_session *session, uint64_t id, enum bm_channel_mode mode)
{
    if (bm_table_reserve(&session->table, session->opened_here + session->opened_there + 1) < 0)
        return NULL;
    beam_channel *channel = bm_channel_new(session->core, mode);
    if (!channel)
        return NULL;
    session->opened_there++;
    bm_channel_bind(channel, session, id, false);
    return channel;
}

/* Opens the channels attached to a message. 0, or what ends the session: -ENOMEM is among it, because
 * without memory for a channel there is none to refuse it on, and its peer would wait for ever. */
static int open_attached(beam_session *session, beam_message *message)
{
    for (unsigned i = 0; i < bm_message_channels(message); i++) {
        struct bm_attached_channel *entry = &message->attachments->channels[i];
        int r = take_peer_id(session, entry->id);
        if (r < 0)
            return r;
        if (session->opened_there >= channels_allowed(session))
            return -BEAM_ETOO_MANY_CHANNELS;
        entry->channel = open_channel(session, entry->id,
                                      entry->mode == BM_MODE_FD ? BM_MODE_BYTES : entry->mode);
        if (!entry->channel)
            return -ENOMEM;
        if (entry->about.dedicated)
            bm_dedicated_begin(entry->channel, entry->about.token);
    }
    if (message->attachments)
        message->attachments->received = true;
    return 0;
}

/* A refusal of the channel alone: the session goes on, what came with the message is disposed of.
 * Our own side hears of it too, unless it never knew of the channel. */
static bool refuse(beam_session *session, beam_channel *channel, beam_message *message,
                   enum beam_code code, const char *text)
{
    bool fresh = channel->kind == BM_CHANNEL_REQUEST && !channel->handed_over;
    bm_channel_ref(channel);
    bm_message_done(message);
    bm_channel_abort(channel, code, text);
    if (!fresh)
        bm_channel_end_later(channel, code, text);
    bm_channel_unref(channel);
    return alive(session);
}

/* Whether a request may run, or how it is refused. */
static enum beam_code judge_request(beam_session *session, beam_channel *channel,
                                    const struct bm_incoming_message *in, uint64_t len,
                                    const char **ret_text)
{
    if (session->draining) {
        *ret_text = "draining";
        return BEAM_UNAVAILABLE;
    }
    if (in->depth > BM_DEPTH_MAX) {
        *ret_text = "nested deeper than 16";
        return BEAM_RESOURCE_EXHAUSTED;
    }
    if (len > session->limits.message_len_max) {
        *ret_text = "message over the limit";
        return BEAM_RESOURCE_EXHAUSTED;
    }
    channel->service = in->service_known
                           ? in->service
                           : bm_services_find(bm_runtime_services(session->core->runtime),
                                              in->name.ptr, in->name.len);
    if (!channel->service) {
        *ret_text = "no service of this name";
        return BEAM_NOT_FOUND;
    }
    /* At the end of a hop too: by now the name may be served to others than where it began. */
    if (!bm_service_allowed(channel->service, &channel->peer.shown)) {
        *ret_text = "this peer may not ask for it";
        return BEAM_PERMISSION_DENIED;
    }
    return BEAM_OK;
}

/* The channel a request opens, with a reference for the caller; NULL: refused or worse, and the
 * message has been disposed of. */
static beam_channel *open_request(beam_session *session, const struct bm_incoming_message *in,
                                  uint64_t len, beam_message *message)
{
    int r = take_peer_id(session, in->id);
    if (r == 0 && session->opened_there >= channels_allowed(session))
        r = -BEAM_ETOO_MANY_CHANNELS;
    if (r < 0) {
        bm_message_done(message);
        fail(session, r);
        return NULL;
    }
    beam_channel *channel = open_channel(session, in->id, BM_MODE_MESSAGES);
    if (!channel) {
        /* Without memory for a channel there is none to refuse it on. */
        bm_message_done(message);
        fail(session, -ENOMEM);
        return NULL;
    }
    channel->kind = (in->flags & BM_MSG_ONEWAY) ? BM_CHANNEL_SINK : BM_CHANNEL_REQUEST;
    channel->oneway = in->flags & BM_MSG_ONEWAY;
    if (channel->oneway)
        channel->local_ended = true;
    channel->depth = in->depth;
    bm_peer_copy(&channel->peer, in->asker ? in->asker : &session->peer);

    const char *text = NULL;
    enum beam_code code = judge_request(session, channel, in, len, &text);
    if (code != BEAM_OK) {
        int a = open_attached(session, message);
        bm_session_return_fds(session, bm_message_fds(message)); /* closed with the message */
        bool go_on = refuse(session, channel, message, code, text);
        bm_channel_unref(channel);
        if (a < 0 && go_on)
            fail(session, a);
        return NULL;
    }
    if (in->deadline_ns != UINT64_MAX)
        bm_channel_arm_deadline(channel, in->deadline_ns);
    return channel;
}

static void run_request(beam_channel *channel, beam_message *message)
{
    bool kept;
    channel->core->messages_received++;
    bm_message_lend(message, &kept);
    bm_request_run(channel, message);
    bm_message_return(message, &kept);
}

/* A message that is here whole: to the application, or into session->held. */
static void deliver(beam_session *session, beam_channel *channel, uint8_t flags,
                    beam_message *message)
{
    bool first = channel->kind == BM_CHANNEL_REQUEST && !channel->handed_over;
    if (!first) {
        bm_channel_deliver(channel, flags, message);
        return;
    }

    channel->handed_over = true;
    if (flags & BM_MSG_END)
        channel->remote_ended = true;
    if (session->queue_len >= session->limits.queue_len_max || !bm_list_empty(&session->held)) {
        /* Its answer would find no room, or others wait for what there is: it waits, as one that has not
         * been read. */
        beam_message *copy = beam_message_keep(message);
        if (copy != message)
            bm_message_done(message);
        if (!copy) {
            bm_channel_abort(channel, BEAM_RESOURCE_EXHAUSTED, "no memory");
            return;
        }
        channel->reply = copy;
        bm_list_push_back(&session->held, &channel->held_node);
        bm_channel_ref(channel);
        return;
    }
    run_request(channel, message);
}

void bm_incoming_release_held(beam_session *session)
{
    while (session->queue_len * 2 <= session->limits.queue_len_max) {
        struct bm_list *node = bm_list_pop_front(&session->held);
        if (!node)
            return;
        beam_channel *channel = bm_list_entry(node, beam_channel, held_node);
        beam_message *message = channel->reply;
        channel->reply = NULL;
        if (channel->abort_due) {
            bm_message_done(message);
        } else {
            run_request(channel, message);
            bm_early_tell_later(channel);
        }
        bm_channel_unref(channel);
    }
}

/* W4: what was owed and not due yet is due once the peer has nothing left. */
static void take_credit(beam_channel *channel, int64_t cost)
{
    channel->recv_credit -= cost;
    if (BM_UNLIKELY(channel->recv_credit <= 0) && channel->owed > 0)
        bm_channel_make_ready(channel);
}

/* The first frame of a message in several: room for the whole, charged before it is given. */
static bool begin_large(beam_session *session, beam_channel *channel,
                        const struct bm_incoming_message *in, beam_message *view)
{
    const uint64_t most = session->limits.large_len_max;
    if (session->large_held > most || in->total > most - session->large_held)
        return refuse(session, channel, view, BEAM_RESOURCE_EXHAUSTED,
                      "large messages of this session fill their limit");

    beam_message *message = bm_message_new(session->core);
    uint8_t *room = message ? bm_message_body_room(message, (uint32_t)in->total) : NULL;
    if (!room || bm_message_copy_metadata(message, view->metadata, view->metadata_len) < 0) {
        if (message)
            bm_message_free_memory(message);
        return refuse(session, channel, view, BEAM_RESOURCE_EXHAUSTED, "no memory");
    }
    if (view->body_len > 0)
        memcpy(room, view->body, view->body_len);
    message->codec = view->codec;
    message->attachments = view->attachments;
    message->payer = view->payer;
    message->fds_owed = view->fds_owed;
    message->flags |= BM_MESSAGE_CHARGED;
    message->charged = (uint32_t)in->total;
    if (view->flags & BM_MESSAGE_HOLDS)
        message->flags |= BM_MESSAGE_HOLDS;
    else
        bm_channel_message_holds(message, session);
    view->flags &= (uint16_t)~BM_MESSAGE_HOLDS;
    view->attachments = NULL;
    view->payer = NULL;
    view->fds_owed = 0;
    bm_message_done(view);
    session->large_held += in->total;
    channel->incoming = message;
    channel->incoming_pos = room + view->body_len;
    channel->incoming_left = in->total - view->body_len;
    return true;
}

/* The channel of a message that opens none, with a reference for the caller. NULL: there is none
 * that could take it; the message has been disposed of. */
static beam_channel *find_open(beam_session *session, uint64_t id, beam_message *message)
{
    beam_channel *channel = bm_incoming_find(session, id);
    bool gone = !channel ? bm_incoming_was_given(session, id) : channel->abort_due;
    if (gone) {
        /* M3: dropped; its fds go back as credit, its channels are answered. */
        int r = open_attached(session, message);
        bm_session_return_fds(session, bm_message_fds(message));
        bm_message_done(message);
        if (r < 0)
            fail(session, r);
        return NULL;
    }
    if (!channel || channel->remote_ended || (channel->ours && channel->oneway)) {
        bm_message_done(message);
        fail(session, -BEAM_EFRAME_CHANNEL);
        return NULL;
    }
    return bm_channel_ref(channel);
}

/* Charges a message to its channel and hands it on, or refuses it there. */
static bool accept_message(beam_session *session, beam_channel *channel,
                           const struct bm_incoming_message *in, uint64_t len,
                           beam_message *message)
{
    /* The message holds the peer's credit from here on, and gives it back however it ends. */
    message->payer = bm_channel_ref(channel);
    message->fds_owed = (uint16_t)bm_message_fds(message);
    if (message->fds_owed > 0)
        bm_channel_message_holds(message, session);
    int r = channel->recv_credit > 0 ? 0 : -BEAM_EFLOW_CONTROL;
    take_credit(channel, (int64_t)(len + BM_MESSAGE_COST));
    if (r == 0)
        r = open_attached(session, message);

    if (r < 0) {
        bm_message_done(message);
        return fail(session, r);
    }
    const char *refusal = NULL;
    if (in->fds_missing || (message->attachments && message->attachments->pumped &&
                            !bm_pumped_fds_receive(session->core, message)))
        refusal = "the receiver has no room for more file descriptors";
    else if (len > session->limits.message_len_max)
        refusal = "message over the limit";
    if (refusal)
        return refuse(session, channel, message, BEAM_RESOURCE_EXHAUSTED, refusal);
    if (in->large)
        return begin_large(session, channel, in, message);
    deliver(session, channel, in->flags, message);
    return alive(session);
}

bool bm_incoming_message(beam_session *session, const struct bm_incoming_message *in,
                         beam_message *message)
{
    /* An announced length is any 64 bits of the peer's choice; what is over 32 is refused as such. */
    uint64_t body_len = in->total < UINT32_MAX ? in->total : UINT32_MAX;
    uint64_t len = message->metadata_len + (in->large ? body_len : message->body_len);
    unsigned fds = bm_message_fds(message);

    session->core->fds_received += fds;
    session->fds_recv_credit -= fds;
    if (fds > 0 && session->fds_recv_credit < 0) {
        bm_message_done(message);
        return fail(session, -BEAM_EFLOW_CONTROL);
    }
    beam_channel *channel =
        in->open ? open_request(session, in, len, message) : find_open(session, in->id, message);
    if (!channel)
        return alive(session);
    bool go_on = accept_message(session, channel, in, len, message);
    bm_channel_unref(channel);
    return go_on;
}

/* --- bytes ----------------------------------------------------------------------------------- */

static bool continue_message(beam_session *session, beam_channel *channel, uint8_t flags,
                             const uint8_t *bytes, uint32_t len)
{
    bool last = !(flags & BM_MSG_MORE);
    if ((flags & (BM_MSG_OPEN | BM_MSG_ONEWAY)) || ((flags & BM_MSG_END) && !last))
        return fail(session, -BEAM_EFRAME_FLAGS);
    if (len == 0 || len > channel->incoming_left || last != (len == channel->incoming_left))
        return fail(session, -BEAM_EFRAGMENT);
    memcpy(channel->incoming_pos, bytes, len);
    channel->incoming_pos += len;
    channel->incoming_left -= len;
    if (!last)
        return true;

    beam_message *message = channel->incoming;
    channel->incoming = NULL;
    bm_channel_ref(channel);
    deliver(session, channel, flags, message);
    bm_channel_unref(channel);
    return alive(session);
}

static bool stream_bytes(beam_session *session, beam_channel *channel, uint8_t flags,
                         const uint8_t *bytes, uint32_t len)
{
    int64_t cost = (int64_t)len + BM_MESSAGE_COST;
    if (flags & ~BM_MSG_END)
        return fail(session, -BEAM_EFRAME_FLAGS);
    if (channel->remote_ended || !bm_dedicated_may_come(channel))
        return fail(session, -BEAM_EFRAME_CHANNEL);
    if (channel->recv_credit <= 0)
        return fail(session, -BEAM_EFLOW_CONTROL);
    take_credit(channel, cost);

    bm_channel_ref(channel);
    const struct beam_stream_handlers *h = channel->handlers;
    channel->hold_bytes = false;
    channel->core->messages_received++;
    if (len > 0 && bm_early_applies(channel)) {
        bm_early_put_bytes(channel, bytes, len);
    } else {
        if (len > 0 && h && h->on_data && channel->handle)
            h->on_data((beam_stream *)channel, bytes, len, channel->arg);
        /* Held bytes are returned by beam_stream_release; the frame's own cost never is held. */
        bm_channel_return_credit(channel, channel->hold_bytes ? BM_MESSAGE_COST : cost);
    }
    if (flags & BM_MSG_END)
        bm_channel_remote_end(channel, false, BEAM_OK, (beam_str){0}, NULL, 0);
    bm_channel_unref(channel);
    return alive(session);
}

bool bm_incoming_bytes(beam_session *session, beam_channel *channel, uint8_t flags,
                       const uint8_t *bytes, uint32_t len)
{
    if (channel->abort_due)
        return true;
    return channel->incoming ? continue_message(session, channel, flags, bytes, len)
                             : stream_bytes(session, channel, flags, bytes, len);
}

/* Whether a plain message can go straight to a handler: everything else takes the long way. */
static bool is_plain(const beam_channel *channel)
{
    const struct beam_channel_handlers *h = channel->handlers;
    return channel->mode == BM_MODE_MESSAGES && !channel->incoming && !channel->remote_ended &&
           channel->recv_credit > 0 && channel->handle && bm_message_queue_empty(&channel->early) &&
           h && h->on_message &&
           (channel->kind == BM_CHANNEL_PLAIN ||
            (channel->kind == BM_CHANNEL_REQUEST && channel->handed_over)) &&
           !bm_early_applies(channel);
}

bool bm_incoming_plain(beam_session *session, uint64_t id, beam_message *view)
{
    beam_channel *channel = bm_incoming_find(session, id);
    if (BM_UNLIKELY(!channel || !is_plain(channel))) {
        if (channel && bm_incoming_expects_bytes(channel)) {
            bool go_on = bm_incoming_bytes(session, channel, 0, view->body, view->body_len);
            bm_message_done(view);
            return go_on;
        }
        struct bm_incoming_message in = {.id = id, .deadline_ns = UINT64_MAX};
        return bm_incoming_message(session, &in, view);
    }

    const struct beam_channel_handlers *h = channel->handlers;
    const int64_t cost = bm_message_cost(view);
    bool kept;
    take_credit(channel, cost);
    channel->refs += 2; /* this call's, and the payer's */
    view->payer = channel;
    bm_message_lend(view, &kept);
    channel->core->messages_received++;
    h->on_message(channel, view, channel->arg);
    if (view->payer) {
        view->payer = NULL;
        bm_channel_return_credit(channel, cost);
        channel->refs--;
    }
    if (view->shown)
        bm_message_done(view);
    bm_channel_unref(channel);
    return alive(session);
}
