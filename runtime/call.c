/* Asking: requests with one answer, channels opened by name, events. All three open a channel
 * towards a name with a message (open_named); they differ in what becomes of it. A call's channel
 * lives until its answer, held by the session alone; that of beam_open is the application's; an
 * event's is found again for the next event of its name (session->events).
 *
 * Invariant: until open_named has succeeded nothing is taken, and nobody is told anything. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "kv/utf8.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/options.h"
#include "runtime/runtime.h"
#include "runtime/session.h"

/* What a request inherits from the one it is made for. */
struct lineage {
    beam_request *parent; /* or NULL */
    uint64_t deadline_ns;
    uint8_t depth;
};

static int find_lineage(const beam_session *session, const struct beam_call_options *options,
                        struct lineage *ret)
{
    uint64_t now = bm_reactor_now_ns(session->core->reactor);
    beam_request *request = options->parent;
    *ret = (struct lineage){.parent = request, .deadline_ns = UINT64_MAX};
    if (options->timeout_ns > 0)
        ret->deadline_ns = bm_clock_after(now, options->timeout_ns);
    if (!request)
        return 0;
    const beam_channel *parent = &request->channel;
    if (parent->core != session->core)
        return -EXDEV;
    if (request->cancelled)
        return parent->expired ? -ETIMEDOUT : -ECANCELED;
    if (parent->depth >= BM_DEPTH_MAX)
        return -ELOOP;
    ret->depth = (uint8_t)(parent->depth + 1);
    if (parent->deadline_ns < ret->deadline_ns)
        ret->deadline_ns = parent->deadline_ns;
    return ret->deadline_ns <= now ? -ETIMEDOUT : 0;
}

/* Whether the session takes this message on a new channel now; -EAGAIN: its on_writable follows. */
static int may_open(beam_session *session, const beam_message *message)
{
    unsigned channels = 1 + bm_message_channels(message);
    if (session->state == BM_SESSION_CLOSED || session->draining || session->peer_draining)
        return -ESHUTDOWN;
    if (bm_runtime_forked(session->core->runtime))
        return -BEAM_EFORKED;
    int r =
        bm_session_may_take(session, bm_message_len(message), bm_message_fds_left(message), false);
    if (r == 0 && session->opened_here + channels > session->peer_channels_max)
        r = -EAGAIN;
    if (r == -EAGAIN)
        bm_session_wants_writable(session, bm_message_fds_left(message), channels);
    if (r < 0)
        return r == -EPIPE ? -ESHUTDOWN : r;
    return bm_table_reserve(&session->table, session->opened_here + session->opened_there + 1);
}

/* A channel that will be opened by its first frame; the caller's reference and the session's. */
static int new_named(beam_session *session, const char *service, beam_channel **ret_channel)
{
    beam_channel *channel = bm_channel_new(session->core, BM_MODE_MESSAGES);
    if (!channel)
        return -ENOMEM;
    int r = bm_channel_set_name(channel, service, strlen(service));
    if (r < 0) {
        channel->gone = true;
        bm_channel_unref(channel);
        return r;
    }
    channel->opening = true;
    channel->ours = true;
    session->opened_here++;
    bm_channel_join(channel, session);
    *ret_channel = channel;
    return 0;
}

/* Opens a channel towards a name with a message as its first; takes the message on success.
 * *ret_channel has the caller's reference. */
static int open_named(beam_session *session, const char *service, beam_message **message,
                      enum bm_channel_kind kind, const struct beam_call_options *options,
                      beam_channel **ret_channel)
{
    size_t name_len = service ? strlen(service) : 0;
    beam_message *m = *message;
    struct beam_call_options wanted;
    struct lineage lineage;
    beam_channel *channel;
    if (name_len == 0 || name_len > BM_NAME_LEN_MAX || !bm_utf8_valid(service, name_len))
        return -EINVAL;
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r >= 0)
        r = find_lineage(session, &wanted, &lineage);
    if (r >= 0)
        r = bm_message_seal(m);
    if (r >= 0)
        r = may_open(session, m);
    if (r >= 0)
        r = new_named(session, service, &channel);
    if (r < 0)
        return r;

    r = bm_outgoing_admit(channel, m);
    if (r < 0) {
        channel->end_told = true;
        bm_channel_gone(channel);
        bm_channel_unref(channel);
        if (r == -EAGAIN)
            bm_session_wants_writable(session, bm_message_fds_left(m), 1 + bm_message_channels(m));
        return r;
    }
    channel->kind = (uint8_t)kind;
    channel->depth = lineage.depth;
    if (lineage.parent)
        bm_list_push_back(&lineage.parent->children, &channel->child_node);
    bm_channel_arm_deadline(channel, lineage.deadline_ns);
    if (kind == BM_CHANNEL_EVENTS)
        channel->oneway = channel->remote_ended = true;
    if (kind == BM_CHANNEL_CALL)
        m->flags |= BM_MESSAGE_LAST; /* one message, and our direction is over */
    *message = NULL;
    *ret_channel = channel;
    bm_channel_enqueue(channel, m);
    return 0;
}

/* --- one request, one answer ----------------------------------------------------------------- */

int beam_call(beam_session *session, const char *service, beam_message **message,
              beam_reply_fn *on_reply, void *arg, const struct beam_call_options *options)
{
    beam_channel *channel;
    int r = open_named(session, service, message, BM_CHANNEL_CALL, options, &channel);
    if (r < 0)
        return r;
    channel->on_reply = on_reply;
    channel->arg = arg;
    bm_channel_unref(channel); /* the session's reference lasts until the answer */
    return 0;
}

static void answer(beam_channel *channel, const struct beam_status *status,
                   const beam_message *message)
{
    beam_reply_fn *fn = channel->on_reply;
    channel->on_reply = NULL;
    channel->end_told = true;
    bm_timer_cancel(channel->core->reactor, &channel->deadline_timer);
    bm_list_unlink(&channel->child_node);
    if (fn)
        fn(status, message, channel->arg);
}

void bm_call_deliver(beam_channel *channel, bool last, beam_message *message)
{
    if (last) {
        beam_message *earlier = channel->reply;
        channel->reply = NULL;
        answer(channel, &(struct beam_status){.code = BEAM_OK}, message);
        beam_message_free(earlier);
        return;
    }
    /* One of several: the last one counts, should the status come without a message. */
    beam_message *kept = beam_message_keep(message);
    beam_message *old = channel->reply;
    if (!kept)
        return;
    channel->reply = kept;
    beam_message_free(old);
}

void bm_call_end(beam_channel *channel, const struct beam_status *status)
{
    beam_message *message = channel->reply;
    bool kept;
    channel->reply = NULL;
    if (!message) {
        answer(channel, status, NULL);
        return;
    }
    bm_message_lend(message, &kept);
    answer(channel, status, status->code == BEAM_OK ? message : NULL);
    bm_message_return(message, &kept);
}

/* --- a channel by name ----------------------------------------------------------------------- */

/* The caller's reference becomes the application's handle. */
static beam_channel *hand_out(beam_channel *channel, const struct beam_channel_handlers *handlers,
                              void *arg)
{
    channel->handlers = handlers;
    channel->arg = arg;
    channel->handle = true;
    return channel;
}

int beam_open(beam_session *session, const char *service, beam_message **message,
              const struct beam_channel_handlers *handlers, void *arg,
              const struct beam_call_options *options, beam_channel **ret_channel)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *empty = NULL;
    beam_channel *channel;
    if (!message) {
        empty = beam_message_new();
        message = &empty;
    }
    int r = open_named(session, service, message, BM_CHANNEL_PLAIN, options, &channel);
    if (r < 0)
        return r;
    *ret_channel = hand_out(channel, handlers, arg);
    return 0;
}

/* --- events ---------------------------------------------------------------------------------- */

static beam_channel *find_events(beam_session *session, const char *service)
{
    for (struct bm_list *n = session->events.next; n != &session->events; n = n->next) {
        beam_channel *channel = bm_list_entry(n, beam_channel, child_node);
        if (strcmp(channel->name, service) == 0)
            return channel;
    }
    return NULL;
}

int beam_send_event(beam_session *session, const char *service, beam_message **message)
{
    beam_channel *channel = service ? find_events(session, service) : NULL;
    if (session->state == BM_SESSION_CLOSED || session->draining || session->peer_draining)
        return -ESHUTDOWN;
    if (bm_runtime_forked(session->core->runtime))
        return -BEAM_EFORKED;
    if (channel)
        return beam_channel_send(channel, message); /* refused: see bm_channel_run_due */
    int r = open_named(session, service, message, BM_CHANNEL_EVENTS, NULL, &channel);
    if (r < 0)
        return r;
    /* Gone takes it off the list: a channel that the peer has aborted is opened anew. */
    bm_list_push_back(&session->events, &channel->child_node);
    bm_channel_unref(channel);
    return 0;
}

int bm_open_events(beam_session *session, const char *service, beam_message **message,
                   const struct beam_channel_handlers *handlers, void *arg,
                   beam_channel **ret_channel)
{
    beam_channel *channel;
    int r = open_named(session, service, message, BM_CHANNEL_EVENTS, NULL, &channel);
    if (r < 0)
        return r;
    *ret_channel = hand_out(channel, handlers, arg);
    return 0;
}

/* --- for somebody else ----------------------------------------------------------------------- */

int bm_open_for(beam_session *session, const struct bm_ask *ask, beam_message **message,
                const struct beam_channel_handlers *handlers, void *arg, beam_channel **ret_channel)
{
    const uint64_t now = bm_reactor_now_ns(session->core->reactor);
    beam_channel *channel;
    if (ask->deadline_ns <= now)
        return -ETIMEDOUT;
    int r = open_named(session, ask->service, message, BM_CHANNEL_PLAIN, NULL, &channel);
    if (r < 0)
        return r;
    /* Before the flush, which comes later in the turn. */
    bm_peer_copy(&channel->peer, ask->asker);
    bm_channel_arm_deadline(channel, ask->deadline_ns);
    bm_channel_end(channel, BEAM_OK, NULL);
    *ret_channel = hand_out(channel, handlers, arg);
    return 0;
}
