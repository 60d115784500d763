/* The life of a channel, on every carrier: joining a session, credit, the two directions and how they
 * end. The states are explained in channel.h.
 *
 * Callbacks of the application run from a dispatch (a frame came in, a timer fired) or from the core's
 * notify task, never from inside a call of the application: what such a call causes is *due*, and told
 * by the notify task. Every callback may free its channel; a reference held around it keeps the
 * memory.
 *
 * Invariants: a channel that is gone is on no list of its session but `holders`; what it has in the
 * session's counters (queue_len, opened_here, fd_credit, large_sending) it gives back when it goes;
 * whatever ends, the application is told exactly once, or not at all after it has freed or reset
 * the channel itself.
 *
 * Left to others: which frame goes next (outgoing.c), what frames of the peer mean (incoming.c), what
 * comes before anybody can hear it (early.c), calls and requests (call.c, request.c). */
#include "runtime/channel.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "kv/utf8.h"
#include "runtime/core.h"
#include "runtime/dedicated.h"
#include "runtime/details.h"
#include "runtime/early.h"
#include "runtime/forward.h"
#include "runtime/message.h"
#include "runtime/session.h"
#include "runtime/transcode.h"

/* --- life ------------------------------------------------------------------------------------ */

static void on_deadline(struct bm_timer *timer);
static void on_fd_retry(struct bm_timer *timer);
static void tell_end(beam_channel *channel, const struct beam_status *status);

beam_channel *bm_channel_new(struct bm_core *core, enum bm_channel_mode mode)
{
    uint32_t cap;
    struct beam_request *request = bm_pool_get(&core->pool, sizeof(*request), &cap);
    if (!request)
        return NULL;
    beam_channel *channel = &request->channel;
    memset(request, 0, sizeof(*request));
    channel->core = core;
    channel->refs = 1;
    channel->mode = (uint8_t)mode;
    channel->send_credit = BM_WINDOW_MIN;
    channel->deadline_ns = UINT64_MAX;
    bm_timer_init(&channel->deadline_timer, on_deadline);
    bm_timer_init(&channel->fd_timer, on_fd_retry);
    bm_list_init(&request->children);
    bm_list_push_back(&core->channels, &channel->core_node);
    core->channel_count++;
    return channel;
}

struct bm_core *bm_channel_core(const beam_channel *channel)
{
    return channel->core;
}

void bm_channel_drop_out(beam_channel *channel)
{
    beam_message *message;
    while ((message = bm_message_queue_pop(&channel->out))) {
        if (channel->session && channel->dedicated_state != BM_DEDICATED_FLOWS) {
            channel->session->queue_len -= (uint64_t)bm_message_cost(message);
            if (!(message->flags & BM_MESSAGE_UNPAID))
                bm_session_take_back_fds(channel->session, bm_message_fds(message));
        }
        beam_message_free(message);
    }
}

static void drop_text(struct bm_pool *pool, char **text, uint32_t cap)
{
    bm_pool_put(pool, *text, cap);
    *text = NULL;
}

void bm_channel_dispose(beam_channel *channel)
{
    beam_request *request = bm_channel_request(channel);
    struct bm_core *core = channel->core;
    struct bm_pool *pool = bm_core_pool(core);
    bm_assert(!channel->in_table && !bm_list_linked(&channel->session_node));
    if (core) {
        bm_timer_cancel(core->reactor, &channel->deadline_timer);
        bm_timer_cancel(core->reactor, &channel->fd_timer);
        bm_list_unlink(&channel->core_node);
        core->channel_count--;
    }
    bm_list_unlink(&channel->child_node);
    while (bm_list_pop_front(&request->children))
        ; /* calls made on its behalf outlive an event */
    bm_channel_drop_out(channel);
    beam_message_free(channel->incoming);
    beam_message_free(channel->reply);
    bm_peer_clear(&channel->peer);
    drop_text(pool, &channel->end_text, channel->end_text_cap);
    bm_pool_put(pool, channel->end_details, channel->end_details_cap);
    drop_text(pool, &channel->told_text, channel->told_text_cap);
    if (channel->name_cap > 0)
        bm_pool_put(pool, channel->name, channel->name_cap);
    bm_pool_put(pool, request, bm_pool_cap(sizeof(*request)));
}

void bm_channel_orphan(beam_channel *channel)
{
    bm_channel_ref(channel);
    bm_channel_gone(channel);
    bm_list_unlink(&channel->core_node);
    channel->core = NULL;
    /* What it holds itself may refer to it in turn. */
    bm_channel_drop_out(channel);
    bm_early_drop(channel);
    beam_message *reply = channel->reply;
    channel->reply = NULL;
    beam_message_free(reply);
    if (bm_list_linked(&channel->notify_node)) {
        bm_list_unlink(&channel->notify_node);
        bm_channel_unref(channel);
    }
    bm_channel_unref(channel);
}

int bm_channel_set_name(beam_channel *channel, const char *name, size_t len)
{
    channel->name = channel->name_inline;
    if (len >= sizeof(channel->name_inline)) {
        channel->name = bm_pool_get(&channel->core->pool, len + 1, &channel->name_cap);
        if (!channel->name)
            return -ENOMEM;
    }
    memcpy(channel->name, name, len);
    channel->name[len] = '\0';
    channel->name_len = (uint8_t)len;
    return 0;
}

void bm_channel_attached(beam_channel *channel)
{
    channel->unbound = true;
    channel->handle = true;
    bm_channel_ref(channel); /* the message's, besides the handle's */
}

void bm_channel_taken(beam_channel *channel)
{
    channel->handle = true;
    bm_early_tell_later(channel);
}

void bm_channel_attachment_dropped(beam_channel *channel)
{
    bm_early_drop(channel);
    if (channel->core && channel->unbound) {
        /* Never sent: whoever holds our end hears that it leads nowhere. */
        bool told = channel->local_ended && channel->remote_ended;
        bm_channel_gone(channel);
        bm_channel_drop_out(channel);
        if (!told)
            bm_channel_end_later(channel, BEAM_CANCELLED,
                                 "the message it was attached to was not sent");
    } else {
        bm_channel_abort(channel, BEAM_CANCELLED, "not taken");
    }
    bm_channel_unref(channel);
}

void bm_channel_join(beam_channel *channel, beam_session *session)
{
    channel->session = session;
    bm_list_push_back(&session->channels, &channel->session_node);
    bm_channel_ref(channel);
    channel->send_credit += bm_session_send_window(session) - (int64_t)BM_WINDOW_MIN;
    channel->recv_credit = session->limits.window;
    for (const beam_message *m = bm_message_queue_first(&channel->out); m; m = m->next) {
        session->queue_len += (uint64_t)bm_message_cost(m);
        if (!session->hello_received)
            session->early_len += bm_message_len(m);
    }
    if (channel->blocked)
        bm_session_block(session, channel, 0, 0);
}

void bm_channel_bind(beam_channel *channel, beam_session *session, uint64_t id, bool ours)
{
    if (!channel->session)
        bm_channel_join(channel, session);
    channel->id = id;
    channel->ours = ours;
    channel->unbound = false;
    channel->in_table = true;
    bm_table_insert(&session->table, id, channel);
    if (!bm_message_queue_empty(&channel->out) || channel->end_due || channel->abort_due ||
        channel->owed > 0)
        bm_channel_make_ready(channel);
}

void bm_channel_unbind(beam_channel *channel)
{
    bm_assert(channel->in_table && channel->ours);
    bm_table_remove(&channel->session->table, channel->id);
    channel->in_table = false;
    channel->id = 0;
    bm_list_unlink(&channel->ready_node);
}

/* A large message of which only a part has come. */
static void drop_incoming(beam_channel *channel)
{
    beam_message *incoming = channel->incoming;
    channel->incoming = NULL; /* before the message, which gives its credit back to this channel */
    beam_message_free(incoming);
}

void bm_channel_gone(beam_channel *channel)
{
    if (channel->gone)
        return;
    beam_session *session = channel->session;
    channel->gone = true;
    channel->local_ended = channel->remote_ended = true;
    channel->end_due = channel->abort_due = false;
    bm_timer_cancel(channel->core->reactor, &channel->deadline_timer);
    bm_timer_cancel(channel->core->reactor, &channel->fd_timer);
    bm_list_unlink(&channel->child_node);
    if (!session)
        return;

    bm_dedicated_over(channel, false);
    bm_channel_drop_out(channel);
    drop_incoming(channel);
    if (bm_list_linked(&channel->held_node)) {
        /* It never ran, and its message must not outlive what limits it. */
        beam_message *request = channel->reply;
        bm_list_unlink(&channel->held_node);
        channel->reply = NULL;
        bm_message_done(request);
        bm_early_drop(channel);
        bm_channel_unref(channel);
    }
    if (channel->in_table) {
        bm_table_remove(&session->table, channel->id);
        channel->in_table = false;
    }
    bm_list_unlink(&channel->session_node);
    bm_list_unlink(&channel->ready_node);
    bm_list_unlink(&channel->blocked_node);
    if (channel->large_sending) {
        channel->large_sending = false;
        bm_outgoing_large_gone(session);
    }
    bool limited;
    if (channel->ours || channel->opening || channel->unbound) {
        limited = session->opened_here >= session->peer_channels_max;
        session->opened_here--;
    } else {
        limited = false;
        if (!channel->uncounted)
            session->opened_there--;
    }
    channel->session = NULL;
    /* The next event opens a channel of its own, and may be sent at once. */
    if (channel->kind == BM_CHANNEL_EVENTS &&
        (channel->blocked || (channel->due & BM_DUE_WRITABLE)))
        bm_session_wants_writable(session, 0, 0);
    if (limited || session->want_writable || session->want_channels)
        bm_session_unblock(session);
    bm_session_check_drained(session);
    bm_channel_unref(channel);
}

void bm_channel_gone_for_peer(beam_channel *channel)
{
    if (!channel->held_back) {
        bm_channel_gone(channel);
    } else if (!channel->ours && !channel->uncounted && channel->session) {
        channel->uncounted = true;
        channel->session->opened_there--;
    }
}

void bm_channel_check_gone(beam_channel *channel)
{
    if (!channel->local_ended || !channel->remote_ended || channel->end_due || channel->abort_due ||
        !bm_message_queue_empty(&channel->out) || channel->unbound || channel->opening)
        return;
    bm_channel_gone_for_peer(channel);
}

void bm_channel_count_again(beam_channel *channel)
{
    if (!channel->uncounted || channel->abort_due) /* an abort needs no answer from the peer */
        return;
    channel->uncounted = false;
    channel->session->opened_there++;
}

void bm_channel_lost(beam_channel *channel, enum beam_code code, const char *text)
{
    bm_channel_ref(channel);
    /* A request whose caller has said all still wants to know that nobody waits for its answer. */
    bool told = channel->remote_ended && channel->kind != BM_CHANNEL_REQUEST &&
                !(channel->kind == BM_CHANNEL_EVENTS && channel->handle);
    /* C4: what surely never left was surely not run. */
    if (channel->opening || channel->unbound || channel->never_left)
        code = BEAM_UNAVAILABLE;
    bm_channel_gone(channel);
    if (!told)
        bm_channel_end_later(channel, code, text);
    bm_channel_unref(channel);
}

/* --- flow ------------------------------------------------------------------------------------ */

static int refuse(beam_channel *channel, unsigned fds)
{
    channel->blocked = true;
    if (channel->session)
        bm_session_block(channel->session, channel, fds, 0);
    return -EAGAIN;
}

int bm_channel_may_send(beam_channel *channel, uint64_t len, unsigned fds)
{
    const beam_session *session = channel->session;
    if (channel->local_ended || channel->gone)
        return -EPIPE;
    if (channel->dedicated_state == BM_DEDICATED_FLOWS) {
        channel->blocked |= channel->send_credit <= 0;
        return channel->send_credit > 0 ? 0 : -EAGAIN;
    }
    if (session) {
        /* M5: the peer's limit for messages is none for the frames of a stream. */
        bool stream = channel->mode == BM_MODE_BYTES;
        int r = bm_session_may_take(session, len, fds, stream);
        if (r < 0)
            return r == -EAGAIN ? refuse(channel, fds) : r;
    } else if (fds > 0) {
        return refuse(channel, fds); /* nobody knows yet whether the peer takes any */
    }
    return channel->send_credit > 0 ? 0 : refuse(channel, fds);
}

void bm_channel_enqueue(beam_channel *channel, beam_message *message)
{
    beam_session *session = channel->session;
    int64_t cost = bm_message_cost(message);
    unsigned fds = bm_message_fds(message);

    bool unpaid = message->flags & BM_MESSAGE_UNPAID;
    if (!unpaid)
        channel->send_credit -= cost;
    bm_message_queue_push(&channel->out, message);
    channel->core->messages_sent++;
    if (message->flags & BM_MESSAGE_LAST)
        channel->local_ended = true;
    if (channel->dedicated_state == BM_DEDICATED_FLOWS) {
        bm_dedicated_ready(channel);
        return;
    }
    if (!session)
        return;
    session->queue_len += (uint64_t)cost;
    if (!unpaid)
        session->fd_credit -= fds;
    if (!session->hello_received)
        session->early_len += bm_message_len(message);
    bm_channel_make_ready(channel);
}

void bm_channel_make_ready(beam_channel *channel)
{
    beam_session *session = channel->session;
    if (!session || bm_list_linked(&channel->ready_node) || (channel->unbound && !channel->opening))
        return;
    if (bm_timer_armed(&channel->fd_timer))
        return;
    if (channel->dedicated_state != BM_DEDICATED_NONE && !channel->abort_due) {
        bm_dedicated_ready(channel);
        return;
    }
    bm_list_push_back(&session->ready, &channel->ready_node);
    bm_session_want_flush(session);
}

void bm_channel_return_credit(beam_channel *channel, int64_t amount)
{
    if (BM_UNLIKELY(channel->dedicated_state == BM_DEDICATED_FLOWS)) {
        bm_dedicated_consumed(channel, amount);
        return;
    }
    if (channel->gone || channel->remote_ended || !channel->session)
        return;
    channel->owed += amount;
    if (channel->owed * 2 >= (int64_t)channel->session->limits.window || channel->recv_credit <= 0)
        bm_channel_make_ready(channel);
}

void bm_channel_fd_done(beam_message *message, unsigned count)
{
    bm_assert(count <= message->fds_owed);
    message->fds_owed = (uint16_t)(message->fds_owed - count);
    if (message->payer && message->payer->holds_of)
        bm_session_return_fds(message->payer->holds_of, count);
}

void bm_channel_hold(beam_channel *channel, beam_session *session)
{
    if (channel->holds++ > 0)
        return;
    channel->holds_of = session;
    bm_list_push_back(&session->holders, &channel->holds_node);
}

void bm_channel_let_go(beam_channel *channel)
{
    bm_assert(channel->holds > 0);
    if (--channel->holds > 0)
        return;
    channel->holds_of = NULL;
    bm_list_unlink(&channel->holds_node);
}

void bm_channel_message_holds(beam_message *message, beam_session *session)
{
    message->flags |= BM_MESSAGE_HOLDS;
    bm_channel_hold(message->payer, session);
}

static void message_lets_go(beam_message *message)
{
    beam_channel *channel = message->payer;
    if (message->flags & BM_MESSAGE_CHARGED) {
        if (channel->holds_of)
            channel->holds_of->large_held -= message->charged;
        message->charged = 0; /* it may be sent on, and come again */
    }
    message->flags &= (uint16_t) ~(BM_MESSAGE_CHARGED | BM_MESSAGE_HOLDS);
    bm_channel_let_go(channel);
}

void bm_channel_message_done(beam_message *message)
{
    beam_channel *channel = message->payer;
    if (message->fds_owed > 0)
        bm_channel_fd_done(message, message->fds_owed);
    if (message->flags & BM_MESSAGE_HOLDS)
        message_lets_go(message);
    message->payer = NULL;
    bm_channel_return_credit(channel, bm_message_cost_received(message));
    message->flags &= (uint16_t)~BM_MESSAGE_CHANGED;
    bm_channel_unref(channel);
}

/* ETOOMANYREFS is over, or it is time to look again. */
static void on_fd_retry(struct bm_timer *timer)
{
    beam_channel *channel = bm_list_entry(timer, beam_channel, fd_timer);
    bm_channel_make_ready(channel);
}

/* --- endings --------------------------------------------------------------------------------- */

void bm_channel_set_text(struct bm_core *core, char **to, uint32_t *cap, const char *text)
{
    if (!text || !text[0])
        return;
    if (!*to)
        *to = bm_pool_get(&core->pool, 256, cap);
    if (!*to)
        return; /* the code says enough */
    size_t len = bm_utf8_whole(text, strnlen(text, 255));
    memcpy(*to, text, len);
    (*to)[len] = '\0';
}

void bm_channel_end(beam_channel *channel, uint32_t code, const char *text)
{
    if (channel->local_ended || channel->gone)
        return;
    channel->local_ended = true;
    beam_message *last = bm_message_queue_last(&channel->out);
    if (code == BEAM_OK && last) {
        last->flags |= BM_MESSAGE_LAST;
        return;
    }
    channel->end_due = true;
    channel->end_code = code;
    bm_channel_set_text(channel->core, &channel->end_text, &channel->end_text_cap, text);
    bm_channel_make_ready(channel);
}

void bm_channel_abort(beam_channel *channel, uint32_t code, const char *text)
{
    bm_channel_abort_with(channel, code, text, NULL, 0);
}

void bm_channel_abort_with(beam_channel *channel, uint32_t code, const char *text,
                           const void *details, size_t details_len)
{
    if (channel->gone || channel->abort_due)
        return;
    bool never_left = channel->opening;
    channel->local_ended = channel->remote_ended = true;
    channel->end_due = false;
    bm_timer_cancel(channel->core->reactor, &channel->deadline_timer);
    bm_timer_cancel(channel->core->reactor, &channel->fd_timer);
    if (never_left) {
        bm_channel_gone(channel);
        return;
    }
    bm_dedicated_over(channel, true);
    bm_channel_drop_out(channel);
    drop_incoming(channel);
    channel->abort_due = true;
    channel->end_code = code;
    bm_channel_set_text(channel->core, &channel->end_text, &channel->end_text_cap, text);
    if (details && !channel->end_details)
        channel->end_details =
            bm_details_make(&channel->core->pool, details, details_len, channel->end_text,
                            &channel->end_details_len, &channel->end_details_cap);
    bm_channel_make_ready(channel);
}

/* C3: the status of the serving end is the end of the request, so that its caller ends too. */
static void end_as_caller(beam_channel *channel)
{
    if (channel->ours && channel->name_len > 0 && !channel->oneway)
        bm_channel_end(channel, BEAM_OK, NULL);
}

void bm_channel_withdraw(beam_channel *channel)
{
    if (channel->gone || channel->abort_due || channel->remote_ended || channel->withdrawn)
        return;
    if (channel->opening) {
        bm_channel_end_later(channel, BEAM_CANCELLED, NULL);
        bm_channel_abort(channel, BEAM_CANCELLED, NULL);
        return;
    }
    channel->withdrawn = true;
    channel->end_due = true;
    channel->end_code = BEAM_CANCELLED;
    bm_channel_make_ready(channel);
}

void bm_channel_withdrawn(beam_channel *channel)
{
    const struct beam_status status = {.code = BEAM_CANCELLED};
    bool has_run = channel->kind == BM_CHANNEL_REQUEST && !bm_list_linked(&channel->held_node);
    /* Not yet; or it is over, and its end, which was still on its way, would not be sent any more. */
    if (!has_run || bm_channel_request(channel)->answered) {
        bm_channel_abort(channel, BEAM_CANCELLED, NULL);
        return;
    }
    channel->withdrawn = true;
    channel->local_ended = true;
    bm_channel_drop_out(channel);
    bm_request_peer_end(channel, &status);
}

void bm_channel_remote_end(beam_channel *channel, bool abort, uint32_t code, beam_str text,
                           const void *details, uint32_t details_len)
{
    struct beam_status status = {
        .code = code <= BEAM_UNAUTHENTICATED ? (enum beam_code)code : BEAM_UNKNOWN,
        .message = text,
        .details = details,
        .details_len = details_len,
    };
    /* An abort is never a success, whatever its code says. */
    if (abort && code == BEAM_OK)
        status.code = BEAM_CANCELLED;

    bm_channel_ref(channel);
    channel->remote_ended = true;
    if (abort)
        bm_channel_gone(channel);
    tell_end(channel, &status);
    if (!abort)
        end_as_caller(channel);
    bm_channel_check_gone(channel);
    bm_channel_unref(channel);
}

void bm_channel_notify(beam_channel *channel, unsigned due)
{
    channel->due |= (uint8_t)due;
    if (bm_list_linked(&channel->notify_node))
        return;
    bm_channel_ref(channel);
    bm_list_push_back(&channel->core->notify, &channel->notify_node);
    bm_task_queue(channel->core->reactor, &channel->core->notify_task);
}

void bm_channel_end_later(beam_channel *channel, uint32_t code, const char *text)
{
    if (channel->due & BM_DUE_END)
        return;
    channel->told_code = code;
    bm_channel_set_text(channel->core, &channel->told_text, &channel->told_text_cap, text);
    bm_channel_notify(channel, BM_DUE_END);
}

void bm_channel_run_due(beam_channel *channel)
{
    unsigned due = channel->due;
    channel->due = 0;
    if ((due & BM_DUE_WRITABLE) && channel->kind == BM_CHANNEL_EVENTS && channel->session) {
        /* Nobody holds this channel: who sends on it hears it from the session. */
        bm_session_wants_writable(channel->session, 0, 0);
        bm_session_writable(channel->session);
    }
    if ((due & BM_DUE_WRITABLE) && !channel->local_ended && channel->handle) {
        if (channel->mode == BM_MODE_BYTES) {
            const struct beam_stream_handlers *h = channel->handlers;
            if (h && h->on_writable)
                h->on_writable((beam_stream *)channel, channel->arg);
        } else {
            const struct beam_channel_handlers *h = channel->handlers;
            if (h && h->on_writable)
                h->on_writable(channel, channel->arg);
        }
    }
    if (due & BM_DUE_EARLY)
        bm_early_tell(channel);
    if (due & BM_DUE_END) {
        const char *text = channel->told_text ? channel->told_text : "";
        struct beam_status status = {
            .code = (enum beam_code)channel->told_code,
            .message = {text, strlen(text)},
        };
        tell_end(channel, &status);
    }
    bm_channel_unref(channel);
}

/* --- telling ---------------------------------------------------------------------------------- */

/* From within a dispatch or the notify task; the application hears it once. */
static void tell_end(beam_channel *channel, const struct beam_status *status)
{
    /* An end of our own making is on its way to the application already. What the peer says behind it is
     * nothing to go by: something of what it sent before got no room here. */
    if (channel->due & BM_DUE_END)
        return;
    if (channel->kind == BM_CHANNEL_REQUEST) {
        bm_request_peer_end(channel, status);
        return;
    }
    if (channel->end_told)
        return;
    if (bm_early_applies(channel)) {
        bm_early_end(channel, status);
        return;
    }
    channel->end_told = true;
    switch (channel->kind) {
    case BM_CHANNEL_CALL:
        bm_call_end(channel, status);
        return;
    case BM_CHANNEL_SINK:
        if (channel->hop)
            bm_forward_events_ended(channel, status->code);
        else if (status->code != BEAM_OK)
            bm_request_events_lost(channel);
        return;
    case BM_CHANNEL_REQUEST:
        return;
    case BM_CHANNEL_EVENTS: /* held by a hop alone */
    case BM_CHANNEL_PLAIN:
        break;
    }
    if (!channel->handle)
        return;
    if (channel->mode == BM_MODE_BYTES) {
        const struct beam_stream_handlers *h = channel->handlers;
        if (h && h->on_end)
            h->on_end((beam_stream *)channel, status, channel->arg);
    } else {
        const struct beam_channel_handlers *h = channel->handlers;
        if (h && h->on_end)
            h->on_end(channel, status, channel->arg);
    }
}

void bm_channel_deliver(beam_channel *channel, uint8_t flags, beam_message *message)
{
    bool last = flags & BM_MSG_END;
    bool kept;
    bm_channel_ref(channel);
    bm_message_lend(message, &kept);
    channel->core->messages_received++;
    if (last)
        channel->remote_ended = true;

    switch (channel->kind) {
    case BM_CHANNEL_CALL:
        bm_call_deliver(channel, last, message);
        break;
    case BM_CHANNEL_SINK:
        bm_request_run(channel, message);
        break;
    case BM_CHANNEL_REQUEST:
    case BM_CHANNEL_PLAIN: {
        const struct beam_channel_handlers *h = channel->handlers;
        if (bm_early_applies(channel))
            bm_early_put(channel, beam_message_keep(message));
        else if (h && h->on_message && channel->handle)
            h->on_message(channel, message, channel->arg);
        break;
    }
    case BM_CHANNEL_EVENTS:
        break;
    }
    bm_message_return(message, &kept);

    if (last) {
        tell_end(channel, &(struct beam_status){.code = BEAM_OK});
        end_as_caller(channel);
        bm_channel_check_gone(channel);
    }
    bm_channel_unref(channel);
}

/* --- deadline -------------------------------------------------------------------------------- */

void bm_channel_arm_deadline(beam_channel *channel, uint64_t deadline_ns)
{
    channel->deadline_ns = deadline_ns;
    if (deadline_ns != UINT64_MAX)
        bm_timer_arm(channel->core->reactor, &channel->deadline_timer, deadline_ns);
}

static void on_deadline(struct bm_timer *timer)
{
    beam_channel *channel = bm_list_entry(timer, beam_channel, deadline_timer);
    struct beam_status status = {
        .code = BEAM_DEADLINE_EXCEEDED,
        .message = {"deadline passed", sizeof("deadline passed") - 1},
    };
    bm_channel_ref(channel);
    channel->expired = true;
    bm_channel_abort(channel, BEAM_DEADLINE_EXCEEDED, "deadline passed");
    tell_end(channel, &status);
    bm_channel_unref(channel);
}

/* --- public ---------------------------------------------------------------------------------- */

void beam_channel_set_handlers(beam_channel *channel, const struct beam_channel_handlers *handlers,
                               void *arg)
{
    channel->handlers = handlers;
    channel->arg = arg;
    if (channel->kind == BM_CHANNEL_REQUEST)
        channel->handle = true;
    if (channel->transcodes)
        bm_transcode_set_handlers(bm_channel_request(channel), handlers, arg);
}

static int send_sealed(beam_channel *channel, beam_message **message, bool last)
{
    beam_message *m = *message;
    int r = bm_message_seal(m);
    if (r < 0)
        return r;
    if (m->flags & BM_MESSAGE_VIEW)
        return -EINVAL;
    if (channel->transcodes) {
        r = bm_transcode_admit(channel, m);
    } else {
        r = bm_channel_may_send(channel, bm_message_len(m), bm_message_fds_left(m));
        if (r == 0)
            r = bm_outgoing_admit(channel, m);
    }
    if (r < 0)
        return r;
    if (last)
        m->flags |= BM_MESSAGE_LAST;
    *message = NULL;
    bm_outgoing_send(channel, m);
    return 0;
}

int beam_channel_send(beam_channel *channel, beam_message **message)
{
    return send_sealed(channel, message, false);
}

int beam_channel_send_last(beam_channel *channel, beam_message **message)
{
    return send_sealed(channel, message, true);
}

int beam_channel_send_body(beam_channel *channel, const void *body, size_t len)
{
    if (len > INT32_MAX)
        return -EMSGSIZE;
    bool transcodes = channel->transcodes;
    int r = transcodes ? 0 : bm_channel_may_send(channel, len, 0);
    if (r < 0)
        return r;
    if (!transcodes && bm_outgoing_send_body(channel, body, len))
        return 0;
    BEAM_CLEANUP(beam_message_freep) beam_message *message = bm_message_new(channel->core);
    if (!message || bm_message_copy_body(message, body, (uint32_t)len) < 0)
        return -ENOMEM;
    if (transcodes && (r = bm_transcode_admit(channel, message)) < 0)
        return r;
    bm_outgoing_send(channel, message);
    message = NULL;
    return 0;
}

void beam_channel_end(beam_channel *channel)
{
    bm_channel_end(channel, BEAM_OK, NULL);
}

void beam_channel_reset(beam_channel *channel, enum beam_code code, const char *text)
{
    channel->end_told = true;
    bm_early_drop(channel);
    bm_channel_abort(channel, code, text);
}

beam_channel *beam_channel_free(beam_channel *channel)
{
    if (!channel || !channel->handle || channel->kind == BM_CHANNEL_REQUEST)
        return NULL;
    channel->handle = false;
    channel->end_told = true;
    channel->handlers = NULL;
    bm_early_drop(channel);
    if (!(channel->local_ended && channel->remote_ended))
        bm_channel_abort(channel, BEAM_CANCELLED, NULL);
    bm_channel_unref(channel);
    return NULL;
}

int64_t beam_channel_credit(const beam_channel *channel)
{
    return channel->send_credit;
}
