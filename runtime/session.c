/* The session itself: beginning, limits of both ends, ending. Frames in and out have files of their
 * own, and how frames travel is the carrier's.
 *
 *   CONNECTING --bm_session_up--> OPEN --drained, closed, failed or lost--> CLOSED
 *
 * OPEN means that frames flow; to the application a session is open once the peer's HELLO has come
 * too. Every end passes bm_session_lost: it ends the channels, has the application told, and the
 * carrier end the link.
 *
 * A session is freed when nobody refers to it: the carrier (until no op and no peer knows it), the
 * handle of beam_connect, each dispatch under way, each notice that is due. */
#include "runtime/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "kv/utf8.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/fd_budget.h"
#include "runtime/message.h"
#include "runtime/runtime.h"

#define HELLO_TIMEOUT_NS (10 * BM_NS_PER_S) /* ours: how long a peer may stay unknown */

static void run_flush(struct bm_task *task)
{
    bm_outgoing_flush(bm_list_entry(task, beam_session, flush_task));
}

static void on_hello_timeout(struct bm_timer *timer)
{
    beam_session *session = bm_list_entry(timer, beam_session, hello_timer);
    bm_session_lost(session, BEAM_UNAVAILABLE, "no answer from the peer in time");
}

void bm_session_init(beam_session *session, struct bm_core *core, const struct bm_carrier *carrier,
                     bool opener)
{
    memset(session, 0, sizeof(*session));
    session->core = core;
    session->carrier = carrier;
    session->opener = opener;
    session->refs = 1;
    session->account.parent = bm_reactor_account(core->reactor);
    session->limits = bm_runtime_limits(core->runtime);
    session->next_id = opener ? 1 : 2;
    session->peer_window = BM_WINDOW_MIN;
    session->peer_channels_max = BM_EARLY_CHANNELS;
    session->peer_message_len_max = BM_EARLY_LEN;
    bm_table_init(&session->table, &session->account);
    bm_list_init(&session->channels);
    bm_list_init(&session->events);
    bm_list_init(&session->ready);
    bm_list_init(&session->large_waiting);
    bm_list_init(&session->callers);
    bm_list_init(&session->blocked);
    bm_list_init(&session->held);
    bm_list_init(&session->holders);
    session->flush_task.fn = run_flush;
    bm_timer_init(&session->hello_timer, on_hello_timeout);
    session->abort_tokens = 2.0 * session->limits.aborts_per_s;
    session->abort_refill_ns = bm_reactor_now_ns(core->reactor);
    if (!session->limits.fds_refused) {
        session->fds_reserved = bm_fd_budget_take(session->limits.fds_max);
        session->fds_granted = session->fds_reserved;
        session->fds_recv_credit = session->fds_granted;
    }
    bm_list_push_back(&core->sessions, &session->node);
    core->session_count++;
}

void bm_session_dispose(beam_session *session)
{
    struct bm_core *core = session->core;
    bm_assert(session->state == BM_SESSION_CLOSED);
    bm_assert(bm_list_empty(&session->channels) && bm_list_empty(&session->callers));
    bm_assert(!bm_timer_armed(&session->hello_timer));
    bm_assert(!bm_list_linked(&session->fds_node));
    bm_assert(!bm_list_linked(&session->notify_node));
    bm_list_unlink(&session->node);
    bm_table_deinit(&session->table);
    bm_peer_clear(&session->peer);
    bm_fd_budget_return(session->fds_reserved);
    bool orphan = bm_session_is_orphan(session);
    if (!orphan)
        core->session_count--;
    session->carrier->free(session);
    if (!orphan)
        bm_core_check_quiet(core);
}

void bm_session_is_handle_alone(beam_session *session)
{
    if (!bm_session_is_orphan(session))
        bm_core_check_quiet(session->core);
}

void bm_session_orphan(beam_session *session)
{
    /* What it has of the core's: its account hangs below the reactor's. */
    bm_table_deinit(&session->table);
    bm_table_init(&session->table, NULL);
    session->account.parent = NULL;
    /* release; partner: bm_session_is_orphan(). */
    atomic_store_explicit(&session->orphan, true, memory_order_release);
}

void bm_session_up(beam_session *session)
{
    if (session->state != BM_SESSION_CONNECTING)
        return;
    session->state = BM_SESSION_OPEN;
    if (!bm_timer_armed(&session->hello_timer))
        bm_timer_arm(session->core->reactor, &session->hello_timer,
                     bm_reactor_now_ns(session->core->reactor) + HELLO_TIMEOUT_NS);
    bm_session_want_flush(session);
}

void bm_session_want_flush(beam_session *session)
{
    if (session->state == BM_SESSION_OPEN)
        bm_task_queue(session->core->reactor, &session->flush_task);
}

void bm_session_hello(const beam_session *session, struct bm_hello *ret_hello)
{
    const char *name = bm_runtime_name(session->core->runtime);
    *ret_hello = (struct bm_hello){
        .version = BM_PROTOCOL_VERSION,
        .opener = session->opener,
        .name = {name, strlen(name)},
        .window = session->limits.window,
        .channels_max = session->limits.channels_max,
        .message_len_max = session->limits.message_len_max,
        .fds_max = session->fds_granted,
        .fds_refused = session->limits.fds_refused,
        .ping_s = session->ping_s,
    };
}

bool bm_session_has_output(const beam_session *session)
{
    return !bm_list_empty(&session->ready) || !session->hello_sent || session->pong_due ||
           session->ping_due || session->goaway_due || session->shut ||
           (session->fds_owed > 0 && bm_session_fds_are_due(session));
}

/* --- file descriptors ------------------------------------------------------------------------ */

bool bm_session_fds_are_due(const beam_session *session)
{
    /* Half of the grant is owed; or the peer has half or less left, or too few for a message with as many
     * as one may hold: it must not wait for credit that lies here. */
    return session->fds_owed * 2 >= session->fds_granted ||
           session->fds_recv_credit * 2 <= session->fds_granted ||
           session->fds_recv_credit < BEAM_MESSAGE_FDS_MAX;
}

void bm_session_take_back_fds(beam_session *session, unsigned count)
{
    session->fd_credit += count;
    if (count > 0 && !bm_list_empty(&session->blocked))
        bm_session_want_flush(session);
}

void bm_session_return_fds(beam_session *session, unsigned count)
{
    session->fds_owed += count;
    if (bm_session_fds_are_due(session))
        bm_session_want_flush(session);
}

static void wait_for_fds(beam_session *session)
{
    struct bm_core *core = session->core;
    if (session->limits.fds_refused || session->fds_granted >= session->limits.fds_max)
        return;
    /* What it got when it began was its part of this turn, unless nobody stood in line to be told. */
    bm_list_push_back(&core->fds_waiting, &session->fds_node);
    bm_fd_budget_wait(&core->fds_waiter);
    /* Something may have come back since it asked. */
    atomic_store_explicit(&core->fds_back, true, memory_order_seq_cst);
}

static void wait_for_fds_no_more(beam_session *session)
{
    struct bm_core *core = session->core;
    if (!bm_list_linked(&session->fds_node))
        return;
    bm_list_unlink(&session->fds_node);
    if (bm_list_empty(&core->fds_waiting))
        bm_fd_budget_leave(&core->fds_waiter);
}

void bm_session_share_fds(struct bm_core *core)
{
    uint64_t turn = bm_fd_budget_turn();
    struct bm_list *node = bm_list_front(&core->fds_waiting);
    beam_session *session = node ? bm_list_entry(node, beam_session, fds_node) : NULL;
    /* They stand in the order in which they last got something. */
    bool done = !session || session->fds_turn == turn;
    if (!done) {
        unsigned more = bm_fd_budget_take(session->limits.fds_max - session->fds_granted);
        if (more == 0)
            return; /* nor is there any for the others */
        session->fds_turn = turn;
        session->fds_granted += more;
        session->fds_reserved += more;
        bm_session_return_fds(session, more);
        bm_list_unlink(node);
        if (session->fds_granted < session->limits.fds_max)
            bm_list_push_back(&core->fds_waiting, node);
    }
    if (bm_list_empty(&core->fds_waiting))
        bm_fd_budget_leave(&core->fds_waiter);
    bm_fd_budget_pass_on(&core->fds_waiter, turn, done);
}

/* --- those who were refused ------------------------------------------------------------------ */

int bm_session_may_take(const beam_session *session, uint64_t len, unsigned fds, bool stream)
{
    if (session->state == BM_SESSION_CLOSED)
        return -EPIPE;
    if (!stream && len > session->peer_message_len_max)
        return session->hello_received ? -EMSGSIZE : -EAGAIN;
    if (fds > 0 && session->hello_received && session->fds_refused)
        return -EPERM;
    /* More at once than the peer ever takes would wait for ever; a peer that takes none yet may. */
    if (session->peer_fds_max > 0 && fds > session->peer_fds_max)
        return -EMSGSIZE;
    if (session->queue_len >= session->limits.queue_len_max)
        return -EAGAIN;
    if (!session->hello_received && session->early_len + len > BM_EARLY_LEN)
        return -EAGAIN;
    return session->fd_credit < (int64_t)fds ? -EAGAIN : 0;
}

void bm_session_wants_writable(beam_session *session, unsigned fds, unsigned channels)
{
    if (!session->want_writable || session->wanted_fds > fds)
        session->wanted_fds = (uint16_t)fds;
    if (!session->want_writable || session->wanted_channels > channels)
        session->wanted_channels = (uint16_t)channels;
    session->want_writable = true;
}

/* Whether all that a refused message needs is there now. */
static bool has_what_it_wants(const beam_session *session, const beam_channel *channel)
{
    return channel->send_credit > 0 && session->fd_credit >= channel->wanted_fds &&
           session->opened_here + channel->wanted_channels <= session->peer_channels_max &&
           session->queue_len * 2 <= session->limits.queue_len_max;
}

void bm_session_block(beam_session *session, beam_channel *channel, unsigned fds, unsigned channels)
{
    channel->wanted_fds = (uint8_t)fds;
    channel->wanted_channels = (uint8_t)channels;
    if (channel->send_credit <= 0) {
        bm_list_unlink(&channel->blocked_node);
        return; /* whatever else it lacks is looked at when its CREDIT has come */
    }
    session->want_channels |= channels > 0;
    if (!bm_list_linked(&channel->blocked_node))
        bm_list_push_back(&session->blocked, &channel->blocked_node);
}

void bm_session_credited(beam_session *session, beam_channel *channel)
{
    if (channel->send_credit <= 0)
        return;
    if (!bm_message_queue_empty(&channel->out))
        bm_channel_make_ready(channel);
    if (!channel->blocked)
        return;
    if (!has_what_it_wants(session, channel)) {
        bm_session_block(session, channel, channel->wanted_fds, channel->wanted_channels);
        return;
    }
    bm_list_unlink(&channel->blocked_node);
    channel->blocked = false;
    bm_channel_notify(channel, BM_DUE_WRITABLE);
}

static void notify_session(beam_session *session)
{
    if (bm_list_linked(&session->notify_node))
        return;
    bm_session_ref(session);
    bm_list_push_back(&session->core->notify_sessions, &session->notify_node);
    bm_task_queue(session->core->reactor, &session->core->notify_task);
}

void bm_session_writable(beam_session *session)
{
    if (!session->want_writable)
        return;
    session->want_writable = false;
    session->writable_due = true;
    notify_session(session);
}

/* As has_what_it_wants(); but an answer that was taken without credit stands in line already,
 * and needs credit alone. */
static bool can_go_on(const beam_session *session, const beam_channel *channel)
{
    const beam_message *next = bm_message_queue_first(&channel->out);
    if (next && (next->flags & BM_MESSAGE_UNPAID))
        return channel->send_credit > 0 && session->fd_credit >= bm_message_fds(next);
    return has_what_it_wants(session, channel);
}

void bm_session_unblock(beam_session *session)
{
    struct bm_list *node = session->blocked.next;
    while (node != &session->blocked) {
        beam_channel *channel = bm_list_entry(node, beam_channel, blocked_node);
        node = node->next;
        if (channel->send_credit > 0 && !can_go_on(session, channel))
            continue;
        bm_list_unlink(&channel->blocked_node);
        if (channel->send_credit <= 0)
            continue; /* spent since: its CREDIT finds it */
        if (!bm_message_queue_empty(&channel->out))
            bm_channel_make_ready(channel);
        if (channel->blocked) {
            channel->blocked = false;
            bm_channel_notify(channel, BM_DUE_WRITABLE);
        }
    }
    if (bm_list_empty(&session->blocked))
        session->want_channels = false;
    if (session->queue_len * 2 > session->limits.queue_len_max)
        return;
    if (session->opened_here < session->peer_channels_max &&
        session->opened_here + session->wanted_channels <= session->peer_channels_max &&
        session->fd_credit >= session->wanted_fds)
        bm_session_writable(session);
    if (!bm_list_empty(&session->held))
        notify_session(session); /* handlers do not run from inside a call */
}

void bm_session_unblock_later(beam_session *session)
{
    if (bm_list_empty(&session->blocked) && !session->want_writable)
        return;
    session->unblock_due = true;
    notify_session(session);
}

void bm_session_run_due(beam_session *session)
{
    if (session->unblock_due) {
        session->unblock_due = false;
        if (session->state == BM_SESSION_OPEN)
            bm_session_unblock(session);
    }
    if (session->writable_due) {
        session->writable_due = false;
        bm_callers_go_on(session);
        if (session->handle && session->handlers && session->handlers->on_writable &&
            session->state != BM_SESSION_CLOSED)
            session->handlers->on_writable(session, session->arg);
    }
    if (session->state == BM_SESSION_OPEN)
        bm_incoming_release_held(session);
    if (session->open_due) {
        session->open_due = false;
        if (session->handle && session->handlers && session->handlers->on_open &&
            session->state != BM_SESSION_CLOSED)
            session->handlers->on_open(session, session->arg);
    }
    if (session->draining_due) {
        session->draining_due = false;
        if (session->handle && session->handlers && session->handlers->on_draining &&
            session->state != BM_SESSION_CLOSED)
            session->handlers->on_draining(session, session->arg);
    }
    if (session->closed_due) {
        session->closed_due = false;
        if (session->ping_fn) {
            void (*fn)(uint64_t, void *) = session->ping_fn;
            session->ping_fn = NULL;
            fn(0, session->ping_arg);
        }
        if (session->handle && session->handlers && session->handlers->on_close) {
            struct beam_status status = {
                .code = session->close_code,
                .message = {session->close_text, strlen(session->close_text)},
            };
            session->handlers->on_close(session, &status, session->arg);
        }
    }
    struct bm_core *core = session->core;
    bm_session_unref(session);
    bm_core_check_quiet(core);
}

void bm_session_peer_drains(beam_session *session)
{
    session->draining_due = true;
    notify_session(session);
}

void bm_session_opened(beam_session *session)
{
    session->open_due = true;
    notify_session(session);
    wait_for_fds(session);
}

/* --- endings --------------------------------------------------------------------------------- */

void bm_session_lost(beam_session *session, enum beam_code code, const char *text)
{
    if (session->state == BM_SESSION_CLOSED)
        return;
    bm_session_ref(session);
    session->state = BM_SESSION_CLOSED;
    bm_core_dismiss(session->core, session);
    bm_timer_cancel(session->core->reactor, &session->hello_timer);
    wait_for_fds_no_more(session);
    bm_task_cancel(&session->flush_task);
    session->close_code = code;
    size_t len = text ? bm_utf8_whole(text, strnlen(text, sizeof(session->close_text) - 1)) : 0;
    snprintf(session->close_text, sizeof(session->close_text), "%.*s", (int)len, text ? text : "");

    if (session->carrier->unsent)
        session->carrier->unsent(session);
    struct bm_list *node;
    while ((node = bm_list_front(&session->channels)))
        bm_channel_lost(bm_list_entry(node, beam_channel, session_node),
                        session->hello_sent ? BEAM_UNKNOWN : BEAM_UNAVAILABLE, session->close_text);
    while ((node = bm_list_pop_front(&session->holders)))
        bm_list_entry(node, beam_channel, holds_node)->holds_of = NULL;
    bm_callers_go_on(session);
    session->closed_due = true;
    notify_session(session);
    session->carrier->abort(session);
    bm_session_unref(session);
}

/* Of ours or of the peer's; anything else is a broken rule. */
static bool is_limit(int error)
{
    switch (-error) {
    case ENOMEM:
    case BEAM_ETOO_MANY_CHANNELS:
    case BEAM_EFLOW_CONTROL:
    case BEAM_ECREDIT_OVERFLOW:
    case BEAM_ETOO_MANY_ABORTS:
    case BEAM_EFRAME_OVERSIZED:
        return true;
    default:
        return false;
    }
}

void bm_session_explain(const beam_session *session, struct bm_frame_goaway *goaway, void *out)
{
    goaway->why.details = NULL;
    goaway->why.details_len = 0;
    if (session->error == 0)
        return;
    beam_kv_writer writer;
    const void *document;
    size_t len;
    beam_kv_writer_init(&writer, out, BM_DETAILS_LEN_MAX);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_str(&writer, "error", beam_error_name(session->error));
    beam_kv_put_str(&writer, "message", beam_strerror(session->error));
    beam_kv_end(&writer);
    if (beam_kv_writer_finish(&writer, &document, &len) < 0)
        return;
    goaway->why.details = document;
    goaway->why.details_len = (uint32_t)len;
}

void bm_session_fail(beam_session *session, int error)
{
    if (session->state == BM_SESSION_CLOSED)
        return;
    bm_session_ref(session);
    session->error = error;
    session->goaway = (struct bm_frame_goaway){
        .last_id = session->last_peer_id,
        .why.code = is_limit(error) ? BEAM_RESOURCE_EXHAUSTED : BEAM_INVALID_ARGUMENT,
    };
    session->goaway_due = true;
    bm_core_log(session->core, BEAM_LOG_WARNING, "session with %s ended: %s (%s)",
                session->peer_name[0] ? session->peer_name : "a peer", beam_strerror(error),
                beam_error_name(error));
    session->carrier->farewell(session);
    bm_session_lost(session, BEAM_INTERNAL, beam_strerror(error));
    bm_session_unref(session);
}

void bm_session_check_drained(beam_session *session)
{
    if (session->state != BM_SESSION_OPEN || session->shut || !bm_list_empty(&session->channels))
        return;
    bool asked = session->draining && session->goaway_sent;
    if (!asked && !session->peer_draining)
        return;
    if (session->pong_due || session->ping_due || session->goaway_due)
        return;
    session->shut = true;
    session->carrier->shut(session);
}

void beam_session_drain(beam_session *session)
{
    if (session->state == BM_SESSION_CLOSED || session->draining)
        return;
    session->draining = true;
    bm_callers_go_on(session);
    /* Event channels have no end of their own; they would keep the session open for ever. */
    struct bm_list *node = session->channels.next;
    while (node != &session->channels) {
        beam_channel *channel = bm_list_entry(node, beam_channel, session_node);
        node = node->next;
        if (channel->kind == BM_CHANNEL_EVENTS)
            bm_channel_end(channel, BEAM_OK, NULL);
    }
    if (session->state == BM_SESSION_CONNECTING) {
        bm_session_lost(session, BEAM_CANCELLED, "closed before it was open");
        return;
    }
    session->goaway = (struct bm_frame_goaway){.last_id = session->last_peer_id};
    session->goaway_due = true;
    bm_session_want_flush(session);
}

void beam_session_close(beam_session *session)
{
    bm_session_lost(session, BEAM_CANCELLED, "closed");
}

static void free_here(void *arg)
{
    beam_session *session = arg;
    session->handle = false;
    session->handlers = NULL;
    session->ping_fn = NULL;
    if (session->state != BM_SESSION_CLOSED)
        bm_session_lost(session, BEAM_CANCELLED, "closed");
    bm_session_unref(session);
}

beam_session *beam_session_free(beam_session *session)
{
    if (!session || !session->handle)
        return NULL;
    if (bm_session_is_orphan(session) || bm_core_current() == session->core)
        free_here(session);
    else
        bm_runtime_call(session->core, free_here, session);
    return NULL;
}

/* --- public ---------------------------------------------------------------------------------- */

void bm_session_set_handlers(beam_session *session, const struct beam_session_handlers *handlers,
                             void *arg)
{
    session->handlers = handlers;
    session->arg = arg;
}

const struct beam_peer *beam_session_peer(const beam_session *session)
{
    return &session->peer.shown;
}

beam_str beam_session_peer_name(const beam_session *session)
{
    return (beam_str){session->peer_name, strlen(session->peer_name)};
}

int beam_session_peer_pidfd(const beam_session *session)
{
    return session->carrier->peer_pidfd ? session->carrier->peer_pidfd(session) : -ENOTSUP;
}

bool beam_session_is_open(const beam_session *session)
{
    return session->state == BM_SESSION_OPEN && session->hello_received;
}

void beam_session_stats(const beam_session *session, struct beam_session_stats *ret_stats)
{
    uint32_t channels = session->opened_here + session->opened_there;
    *ret_stats = (struct beam_session_stats){
        .queue_len = session->queue_len,
        .large_len = session->large_held,
        .channels = channels,
        .fds_received = (uint32_t)((int64_t)session->fds_granted - session->fds_recv_credit -
                                   (int64_t)session->fds_owed),
    };
    ret_stats->memory_len = session->account.used + session->queue_len + session->large_held +
                            session->early_held + session->answers_held +
                            (uint64_t)channels * sizeof(struct beam_request) +
                            session->carrier->memory(session);
}

int beam_session_ping(beam_session *session, void (*fn)(uint64_t ns, void *arg), void *arg)
{
    if (session->state == BM_SESSION_CLOSED)
        return -ESHUTDOWN;
    if (session->ping_fn)
        return -EBUSY;
    session->ping_fn = fn;
    session->ping_arg = arg;
    session->ping_sent_ns = bm_clock_now_ns();
    session->ping_due = true;
    bm_session_want_flush(session);
    return 0;
}
