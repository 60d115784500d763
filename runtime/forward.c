/* A hop joins two channels: *near*, which came in here, and *far*, a fresh one over a ring session
 * to the core that serves it. What comes in on either end goes out on the other, endings and resets
 * too; fds travel along, and channels attached to a message are joined by hops of their own.
 *
 * A message holds its sender's credit until it has gone on, so a slow end slows the other and no
 * more than a window waits here. A large one stays in the budget of the session by which it came until
 * the application behind the hop is done with it (message.h, charge). The sessions between the cores are
 * crossing.c's.
 *
 * Invariants: a hop lives until both ends are over, however, and then frees itself; functions that
 * may have done so return false. It uses the public interface of channels where that will do, and
 * knows nothing of frames. */
#include "runtime/forward.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/crossing.h"
#include "runtime/message.h"
#include "runtime/runtime.h"
#include "runtime/service.h"
#include "runtime/session.h"

/* One of the two ends, and the messages that wait for credit on it. */
struct end {
    beam_channel *channel; /* NULL: given back */
    struct bm_message_queue queue;
    bool ending; /* the other end's peer has ended: so shall this one, behind the queue */
    bool ended;  /* our direction on it has */
};

struct bm_hop {
    struct end near, far;
    struct bm_core *core;
    const struct bm_service *service;
    struct bm_peer peer; /* who asks, for the handler to know */
    beam_message *first; /* opens far; NULL once it has */
    struct bm_crossing crossing;
    beam_request *request;      /* near is a request of ours to answer; or NULL */
    bool events;                /* near is a sink of events: nothing comes back */
    enum beam_code events_code; /* ... and how their sender has ended */
};

static const struct beam_channel_handlers channel_handlers;
static const struct beam_stream_handlers stream_handlers;

static void end_drop(struct end *end)
{
    beam_message *message;
    while ((message = bm_message_queue_pop(&end->queue)))
        beam_message_free(message);
}

static struct bm_hop *hop_new(beam_channel *near, beam_channel *far)
{
    struct bm_hop *hop = bm_alloc_zero(NULL, sizeof(*hop));
    if (!hop)
        return NULL;
    hop->near.channel = near;
    hop->far.channel = far;
    return hop;
}

/* Both ends are over, however. An end that is not gets reset by giving it back. */
static void hop_free(struct bm_hop *hop)
{
    end_drop(&hop->near);
    end_drop(&hop->far);
    beam_message_free(hop->first);
    bm_crossing_cancel(&hop->crossing);
    if (hop->events && hop->near.channel)
        hop->near.channel->hop = NULL;
    else if (!hop->request)
        beam_channel_free(hop->near.channel);
    beam_channel_free(hop->far.channel);
    bm_peer_clear(&hop->peer);
    bm_free(NULL, hop, sizeof(*hop));
}

/* --- joining attached channels --------------------------------------------------------------- */

static void set_handlers(beam_channel *channel, struct bm_hop *hop)
{
    if (channel->mode == BM_MODE_BYTES)
        beam_stream_set_handlers((beam_stream *)channel, &stream_handlers, hop);
    else
        beam_channel_set_handlers(channel, &channel_handlers, hop);
}

/* Joins each channel that came with a message to a fresh one that goes on with it. -ENOMEM. */
static int join_attached(beam_message *message)
{
    unsigned count = bm_message_channels(message);
    beam_channel *came[BM_ATTACHED_MAX];
    for (unsigned i = 0; i < count; i++) {
        struct bm_attached_channel *entry = &message->attachments->channels[i];
        came[i] = entry->mode == BM_MODE_BYTES
                      ? (beam_channel *)beam_message_take_stream(message, i)
                      : beam_message_take_channel(message, i);
    }
    /* Not yet ours: it holds its sender's credit until it has gone on. */
    bm_attachments_renew(message->attachments);
    int r = 0;
    for (unsigned i = 0; i < count; i++) {
        beam_channel *goes = r < 0 || !came[i] ? NULL
                             : came[i]->mode == BM_MODE_BYTES
                                 ? (beam_channel *)beam_message_attach_stream(message)
                                 : beam_message_attach_channel(message);
        struct bm_hop *hop = goes ? hop_new(came[i], goes) : NULL;
        if (!hop) {
            beam_channel_free(came[i]);
            beam_channel_free(goes);
            r = -ENOMEM;
            continue;
        }
        set_handlers(came[i], hop);
        set_handlers(goes, hop);
    }
    return r;
}

/* Before a message that has come in goes on. -ENOMEM. */
static int prepare(beam_message *message)
{
    int r = bm_message_pass_charge(message);
    return r == 0 && bm_message_channels(message) > 0 ? join_attached(message) : r;
}

/* --- what flows ------------------------------------------------------------------------------ */

/* As one end has ended, so does the other. false: the hop is no more. */
static bool hop_break_as(struct bm_hop *hop, const struct beam_status *status)
{
    char text[256];
    snprintf(text, sizeof(text), "%.*s", BEAM_STR(status->message));
    if (hop->request) {
        beam_request *request = hop->request;
        hop->near.channel = NULL;
        beam_fail_with(request, status->code, status->details, status->details_len, "%s", text);
    } else if (hop->near.channel) {
        bm_channel_abort_with(hop->near.channel, status->code, text, status->details,
                              status->details_len);
    }
    if (hop->far.channel)
        bm_channel_abort_with(hop->far.channel, status->code, text, status->details,
                              status->details_len);
    hop_free(hop);
    return false;
}

/* false: the hop is no more. */
static bool hop_break(struct bm_hop *hop, enum beam_code code, const char *text)
{
    return hop_break_as(hop, &(struct beam_status){.code = code, .message = {text, strlen(text)}});
}

/* Why what was to go on cannot: as an answer that is refused without a hop ends. Not UNAVAILABLE, which
 * would say that it surely was not run. */
static enum beam_code code_of(int error)
{
    switch (error) {
    case -EMSGSIZE:
    case -ENOMEM:
        return BEAM_RESOURCE_EXHAUSTED;
    case -EPERM:
        return BEAM_FAILED_PRECONDITION;
    default:
        return BEAM_UNKNOWN;
    }
}

/* Sends what waits for `to`; ends it when its time has come. false: the hop is no more. */
static bool pump(struct bm_hop *hop, struct end *to)
{
    if (to == &hop->far && hop->first)
        return true; /* not open yet */
    beam_message *message;
    while ((message = bm_message_queue_pop(&to->queue))) {
        uint32_t len = message->body_len;
        int r = beam_channel_send(to->channel, &message);
        if (r < 0)
            bm_message_queue_push_front(&to->queue, message);
        if (r == -EAGAIN)
            return true;
        if (r < 0)
            return hop_break(hop, code_of(r), beam_strerror(r));
        if (to->channel->mode == BM_MODE_BYTES) {
            struct end *from = to == &hop->near ? &hop->far : &hop->near;
            bm_channel_return_credit(from->channel, (int64_t)len + BM_MESSAGE_COST);
        }
    }
    if (to->ending && !to->ended) {
        to->ended = true;
        if (to == &hop->near && hop->request) {
            hop->near.channel = NULL;
            beam_reply(hop->request, NULL);
            hop_free(hop);
            return false;
        }
        bm_channel_end(to->channel, hop->events_code, NULL);
        if (hop->near.ended && hop->far.ended) {
            hop_free(hop);
            return false;
        }
    }
    return true;
}

static struct end *other_end(struct bm_hop *hop, const beam_channel *channel)
{
    return channel == hop->near.channel ? &hop->far : &hop->near;
}

/* Takes over a message that has come in, for `to`. false: the hop is no more. */
static bool take_on(struct bm_hop *hop, struct end *to, const beam_message *borrowed)
{
    beam_message *message = beam_message_keep(borrowed);
    if (!message)
        return hop_break(hop, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
    if (prepare(message) < 0) {
        beam_message_free(message);
        return hop_break(hop, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
    }
    bm_message_queue_push(&to->queue, message);
    return pump(hop, to);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct bm_hop *hop = arg;
    (void)take_on(hop, other_end(hop, channel), message);
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct bm_hop *hop = arg;
    beam_channel *channel = (beam_channel *)stream;
    struct end *to = other_end(hop, channel);
    beam_message *message = bm_message_new(channel->core);
    if (!message || bm_message_copy_body(message, data, (uint32_t)len) < 0) {
        beam_message_free(message);
        (void)hop_break(hop, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
        return;
    }
    /* All of it, the cost of the frame too: many small ones weigh more than their bytes. */
    beam_stream_hold(stream);
    bm_channel_return_credit(channel, -(int64_t)BM_MESSAGE_COST);
    bm_message_queue_push(&to->queue, message);
    (void)pump(hop, to);
}

static void go_on(beam_channel *channel, struct bm_hop *hop)
{
    (void)pump(hop, channel == hop->near.channel ? &hop->near : &hop->far);
}

static void on_writable(beam_channel *channel, void *arg)
{
    go_on(channel, arg);
}

static void on_stream_writable(beam_stream *stream, void *arg)
{
    go_on((beam_channel *)stream, arg);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct bm_hop *hop = arg;
    struct end *to = other_end(hop, channel);
    if (status->code != BEAM_OK) {
        (void)hop_break_as(hop, status);
        return;
    }
    to->ending = true;
    (void)pump(hop, to);
}

static void on_stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    on_end((beam_channel *)stream, status, arg);
}

static const struct beam_channel_handlers channel_handlers = {
    .on_message = on_message,
    .on_writable = on_writable,
    .on_end = on_end,
};

static const struct beam_stream_handlers stream_handlers = {
    .on_data = on_data,
    .on_writable = on_stream_writable,
    .on_end = on_stream_end,
};

/* --- the sessions between cores -------------------------------------------------------------- */

static int hop_open(struct bm_crossing *crossing, beam_session *session)
{
    struct bm_hop *hop = bm_list_entry(crossing, struct bm_hop, crossing);
    const beam_channel *near = hop->near.channel;
    int r;
    if (hop->events) {
        r = bm_open_events(session, hop->service->name, &hop->first, &channel_handlers, hop,
                           &hop->far.channel);
    } else {
        /* Not as a child of the request: a hop is no nesting, and the code of a cancel goes on. */
        uint64_t now = bm_reactor_now_ns(hop->core->reactor);
        uint64_t timeout = near->deadline_ns == UINT64_MAX ? 0
                           : near->deadline_ns > now       ? near->deadline_ns - now
                                                           : 1;
        r = beam_open(session, hop->service->name, &hop->first, &channel_handlers, hop,
                      &BEAM_CALL_OPTIONS(.timeout_ns = timeout), &hop->far.channel);
        if (r == 0)
            hop->far.channel->depth = near->depth;
    }
    if (r == 0) {
        bm_peer_copy(&hop->far.channel->peer, &hop->peer);
        (void)pump(hop, &hop->far);
    }
    return r;
}

static void cannot_be_reached(struct bm_crossing *crossing, int error)
{
    struct bm_hop *hop = bm_list_entry(crossing, struct bm_hop, crossing);
    char text[200];
    snprintf(text, sizeof(text), "the reactor that serves it cannot be reached: %s",
             beam_strerror(error));
    (void)hop_break(hop, BEAM_UNAVAILABLE, text);
}

static void hop_start(struct bm_hop *hop)
{
    hop->crossing.open = hop_open;
    hop->crossing.fail = cannot_be_reached;
    hop->crossing.fds = bm_message_fds_left(hop->first) > 0;
    bm_crossing_start(&hop->crossing, hop->core, hop->service->core);
}

/* --- requests and events --------------------------------------------------------------------- */

/* A hop that begins with this message, its attachments joined; NULL without memory. */
static struct bm_hop *hop_begin(beam_channel *channel, beam_message *message)
{
    struct bm_hop *hop = hop_new(channel, NULL);
    if (!hop)
        return NULL;
    hop->core = channel->core;
    hop->service = channel->service;
    hop->first = beam_message_keep(message);
    if (hop->first && prepare(hop->first) == 0) {
        bm_peer_copy(&hop->peer, &channel->peer);
        return hop;
    }
    beam_message_free(hop->first);
    bm_free(NULL, hop, sizeof(*hop));
    return NULL;
}

/* Cancelled after its caller had ended its direction, which on_end has told. */
static void on_request_cancelled(beam_request *request, void *arg)
{
    bool expired = bm_request_channel(request)->expired;
    (void)hop_break(arg, expired ? BEAM_DEADLINE_EXCEEDED : BEAM_CANCELLED, "cancelled");
}

static void forward_request(beam_channel *channel, beam_message *message)
{
    beam_request *request = bm_channel_request(channel);
    struct bm_hop *hop = hop_begin(channel, message);
    beam_request_keep(request);
    bm_channel_ref(channel); /* the application's, as in bm_request_run() */
    if (!hop) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
        return;
    }
    hop->request = request;
    beam_channel_set_handlers(channel, &channel_handlers, hop);
    beam_request_on_cancel(request, on_request_cancelled, hop);
    hop->far.ending = channel->remote_ended;
    hop_start(hop);
}

static void forward_event(beam_channel *channel, beam_message *message)
{
    if (channel->hop) {
        (void)take_on(channel->hop, &channel->hop->far, message);
        return;
    }
    struct bm_hop *hop = hop_begin(channel, message);
    if (!hop) {
        bm_channel_abort(channel, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
        return;
    }
    hop->events = true;
    hop->near.ended = true; /* nothing comes back */
    channel->hop = hop;
    hop_start(hop);
}

void bm_forward(beam_channel *channel, beam_message *message)
{
    if (channel->kind == BM_CHANNEL_SINK)
        forward_event(channel, message);
    else
        forward_request(channel, message);
}

void bm_forward_events_ended(beam_channel *channel, enum beam_code code)
{
    struct bm_hop *hop = channel->hop;
    channel->hop = NULL;
    hop->near.channel = NULL;
    /* What was accepted goes on, and how it ended behind that. */
    hop->events_code = code;
    hop->far.ending = true;
    (void)pump(hop, &hop->far);
}
