/* One ring hop: a channel that came in here is joined to a fresh one over a ring session to the core
 * that serves it. What comes in on either end goes out on the other, endings and resets too; fds
 * travel along, and attached channels are joined in the same way.
 *
 * A message holds its sender's credit until it has gone on, so a slow end slows the other and no more
 * than a window waits here. Each core keeps one session to each other core, opened at the first
 * request. */
#include "runtime/forward.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/runtime.h"
#include "runtime/service.h"
#include "runtime/session.h"

/* One of the two ends; what waits for credit on it stands in its queue. */
struct end {
    beam_channel *channel; /* NULL: given back */
    beam_message *head, **tail;
    bool ending; /* the other's peer has ended: so shall this, behind the queue */
    bool ended;
};

struct hop {
    struct end near, far;
    beam_request *request; /* near is a request of ours to answer; or NULL */
    bool events;           /* near is a sink of events: nothing comes back */
};

static const struct beam_channel_handlers channel_handlers;
static const struct beam_stream_handlers stream_handlers;

static void end_init(struct end *end, beam_channel *channel)
{
    *end = (struct end){.channel = channel};
    end->tail = &end->head;
}

static void end_drop(struct end *end)
{
    while (end->head) {
        beam_message *message = end->head;
        end->head = message->next;
        message->next = NULL;
        beam_message_free(message);
    }
    end->tail = &end->head;
}

static struct hop *hop_new(beam_channel *near, beam_channel *far)
{
    struct hop *hop = bm_alloc_zero(NULL, sizeof(*hop));
    if (!hop)
        return NULL;
    end_init(&hop->near, near);
    end_init(&hop->far, far);
    return hop;
}

/* Both ends are over, however. An end that is not gets reset by giving it back. */
static void hop_free(struct hop *hop)
{
    end_drop(&hop->near);
    end_drop(&hop->far);
    if (hop->events && hop->near.channel)
        hop->near.channel->hop = NULL;
    else if (!hop->request)
        beam_channel_free(hop->near.channel);
    beam_channel_free(hop->far.channel);
    bm_free(NULL, hop, sizeof(*hop));
}

/* --- joining attached channels --------------------------------------------------------------- */

static void set_handlers(beam_channel *channel, struct hop *hop)
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
    int r = bm_message_make_ours(message);
    for (unsigned i = 0; i < count; i++) {
        beam_channel *goes = r < 0 || !came[i] ? NULL
                             : came[i]->mode == BM_MODE_BYTES
                                 ? (beam_channel *)beam_message_attach_stream(message)
                                 : beam_message_attach_channel(message);
        struct hop *hop = goes ? hop_new(came[i], goes) : NULL;
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

/* --- what flows ------------------------------------------------------------------------------ */

/* false: the hop is no more. */
static bool hop_break(struct hop *hop, enum beam_code code, const char *text)
{
    if (hop->request) {
        beam_request *request = hop->request;
        hop->near.channel = NULL;
        beam_fail(request, code, "%s", text);
    } else if (hop->near.channel) {
        bm_channel_abort(hop->near.channel, code, text);
    }
    if (hop->far.channel)
        bm_channel_abort(hop->far.channel, code, text);
    hop_free(hop);
    return false;
}

/* Sends what waits for `to`; ends it when its time has come. false: the hop is no more. */
static bool pump(struct hop *hop, struct end *to)
{
    while (to->head) {
        beam_message *message = to->head;
        beam_message *next = message->next;
        uint32_t len = message->body_len;
        int r = beam_channel_send(to->channel, &message);
        if (r == -EAGAIN)
            return true;
        if (r < 0)
            return hop_break(hop, BEAM_UNAVAILABLE, beam_strerror(r));
        to->head = next;
        if (!next)
            to->tail = &to->head;
        if (to->channel->mode == BM_MODE_BYTES) {
            struct end *from = to == &hop->near ? &hop->far : &hop->near;
            beam_stream_release((beam_stream *)from->channel, len);
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
        beam_channel_end(to->channel);
        if (hop->near.ended && hop->far.ended) {
            hop_free(hop);
            return false;
        }
    }
    return true;
}

static struct end *other_end(struct hop *hop, const beam_channel *channel)
{
    return channel == hop->near.channel ? &hop->far : &hop->near;
}

/* Takes over a message that has come in, for `to`. false: the hop is no more. */
static bool take_on(struct hop *hop, struct end *to, const beam_message *borrowed)
{
    beam_message *message = beam_message_keep(borrowed);
    if (!message)
        return hop_break(hop, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
    if (bm_message_channels(message) > 0 && join_attached(message) < 0) {
        beam_message_free(message);
        return hop_break(hop, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
    }
    message->next = NULL;
    *to->tail = message;
    to->tail = &message->next;
    return pump(hop, to);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct hop *hop = arg;
    (void)take_on(hop, other_end(hop, channel), message);
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct hop *hop = arg;
    beam_channel *channel = (beam_channel *)stream;
    struct end *to = other_end(hop, channel);
    beam_message *message = bm_message_new(channel->core);
    if (!message || bm_message_copy_body(message, data, (uint32_t)len) < 0) {
        beam_message_free(message);
        (void)hop_break(hop, BEAM_RESOURCE_EXHAUSTED, "no memory to pass it on");
        return;
    }
    beam_stream_hold(stream);
    *to->tail = message;
    to->tail = &message->next;
    (void)pump(hop, to);
}

static void go_on(beam_channel *channel, struct hop *hop)
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
    struct hop *hop = arg;
    struct end *to = other_end(hop, channel);
    if (status->code != BEAM_OK) {
        char text[256];
        snprintf(text, sizeof(text), "%.*s", BEAM_STR(status->message));
        (void)hop_break(hop, status->code, text);
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

static void on_session_close(beam_session *session, const struct beam_status *status, void *arg)
{
    beam_session **place = arg;
    (void)status;
    *place = NULL;
    beam_session_free(session);
}

static const struct beam_session_handlers session_handlers = {.on_close = on_session_close};

static beam_session *session_to(struct bm_core *core, unsigned to)
{
    beam_session **place = &core->hops[to];
    char url[24];
    if (*place)
        return *place;
    snprintf(url, sizeof(url), "ring:%u", to);
    int r = beam_connect(core->runtime, url,
                         &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers, .arg = place), place);
    return r < 0 ? NULL : *place;
}

/* --- requests and events --------------------------------------------------------------------- */

static void forward_request(beam_channel *channel, beam_message *message)
{
    beam_request *request = bm_channel_request(channel);
    beam_session *session = session_to(channel->core, channel->service->core);
    struct hop *hop = session ? hop_new(channel, NULL) : NULL;
    beam_message *first = hop ? beam_message_keep(message) : NULL;
    int r = first ? 0 : -ENOMEM;
    if (r == 0 && bm_message_channels(first) > 0)
        r = join_attached(first);
    if (r == 0) {
        hop->request = request;
        beam_request_keep(request);
        bm_channel_ref(channel); /* the application's, as in bm_request_run() */
        r = beam_open(session, channel->service->name, &first, &channel_handlers, hop,
                      &BEAM_CALL_OPTIONS(.parent = request), &hop->far.channel);
        if (r == 0) {
            hop->far.channel->depth = channel->depth; /* a hop is no nesting */
            beam_channel_set_handlers(channel, &channel_handlers, hop);
            if (channel->remote_ended)
                on_end(channel, &(struct beam_status){.code = BEAM_OK}, hop);
            return;
        }
        bm_channel_unref(channel);
    }
    beam_message_free(first);
    bm_free(NULL, hop, sizeof(*hop));
    bm_channel_ref(channel);
    beam_fail(request, r == -EAGAIN ? BEAM_RESOURCE_EXHAUSTED : BEAM_UNAVAILABLE,
              "the reactor that serves it cannot be reached: %s", beam_strerror(r));
}

static void forward_event(beam_channel *channel, beam_message *message)
{
    struct hop *hop = channel->hop;
    if (hop) {
        (void)take_on(hop, &hop->far, message);
        return;
    }
    beam_session *session = session_to(channel->core, channel->service->core);
    beam_message *first = session ? beam_message_keep(message) : NULL;
    hop = first ? hop_new(channel, NULL) : NULL;
    if (hop && bm_open_events(session, channel->service->name, &first, &channel_handlers, hop,
                              &hop->far.channel) == 0) {
        hop->events = true;
        channel->hop = hop;
        return;
    }
    beam_message_free(first);
    bm_free(NULL, hop, sizeof(*hop));
    bm_channel_abort(channel, BEAM_UNAVAILABLE, "the reactor that serves it cannot be reached");
}

void bm_forward(beam_channel *channel, beam_message *message)
{
    if (channel->kind == BM_CHANNEL_SINK)
        forward_event(channel, message);
    else
        forward_request(channel, message);
}

void bm_forward_events_ended(beam_channel *channel)
{
    struct hop *hop = channel->hop;
    channel->hop = NULL;
    hop->near.channel = NULL;
    hop_free(hop);
}
