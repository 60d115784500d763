/* The serving end of a request: handler, answer, cancel. A request is its channel; the reference
 * taken when it reaches the handler is the application's until it has answered (release).
 *
 * Events of one name share a channel, and so a request: each event that is kept takes a reference,
 * and ending one gives one back. They share what beam_request_on_cancel has set, too.
 *
 * Invariants: a request is answered once, and whatever the application does, its caller hears an
 * end; an answer is never refused to the handler for want of credit, it waits in line. */
#include "runtime/channel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/core.h"
#include "runtime/early.h"
#include "runtime/forward.h"
#include "runtime/message.h"
#include "runtime/runtime.h"
#include "runtime/service.h"
#include "runtime/session.h"
#include "runtime/transcode.h"

#define WAITING_ANSWERS_MAX                                                                        \
    (64u << 20) /* ours, bytes: beyond it large answers become errors, and none begins to wait */

/* What an event has set is over with the last that was kept. */
static void forget_cancel_of_events(beam_request *request)
{
    if (request->kept_events == 0 && !request->kept)
        request->on_cancel = NULL;
}

void bm_request_run(beam_channel *channel, beam_message *message)
{
    const struct bm_service *service = channel->service;
    if (service->core != BM_ANY_CORE && service->core != channel->core->index)
        bm_forward(channel, message);
    else if (service->codec)
        bm_transcode_run(channel, message);
    else
        bm_request_run_handler(channel, message);
}

void bm_request_run_handler(beam_channel *channel, beam_message *message)
{
    beam_request *request = bm_channel_request(channel);
    const struct bm_service *service = channel->service;
    bool event = channel->kind == BM_CHANNEL_SINK;

    bm_channel_ref(channel);
    request->in_handler = true;
    request->event_ended = false;
    service->handler(request, message, service->arg);
    request->in_handler = false;
    if (event && request->kept) {
        request->kept = false;
        request->kept_events++; /* its reference is the application's until it ends the event */
    } else if (event) {
        forget_cancel_of_events(request);
        bm_channel_unref(channel);
    } else if (!request->answered && !request->kept) {
        beam_fail(request, BEAM_INTERNAL, "handler returned without an answer");
    }
}

/* An event has no answer; ending one that was kept gives it back. They share one channel: in a
 * handler it is the one at hand that is meant, until that has ended. */
static void end_event(beam_request *request)
{
    if (request->in_handler && !request->event_ended) {
        request->event_ended = true;
        request->kept = false;
        forget_cancel_of_events(request);
    } else if (request->kept_events > 0) {
        request->kept_events--;
        forget_cancel_of_events(request);
        bm_channel_unref(&request->channel);
    }
}

static void cancel_children(beam_request *request)
{
    struct bm_list *node;
    while ((node = bm_list_pop_front(&request->children))) {
        beam_channel *child = bm_list_entry(node, beam_channel, child_node);
        bm_channel_ref(child);
        bm_channel_abort(child, BEAM_CANCELLED, "the request it was made for has ended");
        bm_channel_end_later(child, BEAM_CANCELLED, "the request it was made for was cancelled");
        bm_channel_unref(child);
    }
}

void bm_request_peer_end(beam_channel *channel, const struct beam_status *status)
{
    beam_request *request = bm_channel_request(channel);
    const struct beam_channel_handlers *h = channel->handlers;
    if (request->answered)
        return;
    if (status->code == BEAM_OK) {
        if (bm_early_applies(channel) && !channel->end_waits) {
            channel->told_code = BEAM_OK;
            channel->end_waits = true;
        } else if (h && h->on_end && !channel->end_told) {
            channel->end_told = true;
            h->on_end(channel, status, channel->arg);
        }
        return;
    }
    if (request->cancelled)
        return;
    request->cancelled = true;
    bm_channel_ref(channel);
    cancel_children(request);
    if (h && h->on_end && !channel->end_told) {
        channel->end_told = true;
        h->on_end(channel, status, channel->arg);
    }
    if (request->on_cancel && !request->answered)
        request->on_cancel(request, request->on_cancel_arg);
    bm_channel_unref(channel);
}

void bm_request_events_lost(beam_channel *channel)
{
    beam_request *request = bm_channel_request(channel);
    if (request->cancelled || request->kept_events == 0)
        return;
    request->cancelled = true;
    bm_channel_ref(channel);
    /* Calls made on their behalf go on: they may be of events that are long done with. */
    if (request->on_cancel)
        request->on_cancel(request, request->on_cancel_arg);
    bm_channel_unref(channel);
}

/* The application is done with the request. */
static void release(beam_request *request)
{
    beam_channel *channel = bm_request_channel(request);
    channel->handle = false;
    channel->handlers = NULL;
    request->on_cancel = NULL;
    if (channel->core) /* else it outlived its runtime */
        bm_timer_cancel(channel->core->reactor, &channel->deadline_timer);
    while (bm_list_pop_front(&request->children))
        ; /* calls made on its behalf go on by themselves */
    if (channel->withdrawn)
        bm_channel_abort(channel, BEAM_CANCELLED, NULL); /* who counts it counts it no more */
    bm_channel_check_gone(channel);
    bm_channel_unref(channel);
}

/* What the answers of a session take that cannot go: for want of credit, or for another reason. Those who wait
 * for the other do not count between two cores: each stands for one that was counted where it came in, as
 * in forward.c, and the answers of one caller would be refused for another's. */
static uint64_t waiting_len(const beam_session *session)
{
    return session->queue_len + (session->inner ? 0 : session->answers_held);
}

int bm_request_wait(beam_request *request, uint64_t len)
{
    beam_channel *channel = bm_request_channel(request);
    beam_session *session = channel->session;
    if (!session)
        return -EPIPE;
    if (!session->inner &&
        (len > WAITING_ANSWERS_MAX || waiting_len(session) > WAITING_ANSWERS_MAX - len))
        return -ENOBUFS;
    session->answers_held += len;
    bm_channel_hold(channel, session);
    return 0;
}

void bm_request_wait_over(beam_request *request, uint64_t len)
{
    beam_channel *channel = bm_request_channel(request);
    if (channel->holds_of)
        channel->holds_of->answers_held -= len;
    bm_channel_let_go(channel);
}

/* 0, or why this answer cannot go; text for the peer. */
static int judge_answer(beam_channel *channel, beam_message *message, const char **ret_text,
                        enum beam_code *ret_code)
{
    const beam_session *session = channel->session;
    int r = bm_message_seal(message);
    *ret_code = BEAM_INTERNAL;
    *ret_text = r < 0 ? beam_strerror(r) : "";
    if (r < 0)
        return r;
    if (!session)
        return 0;
    *ret_code = BEAM_RESOURCE_EXHAUSTED;
    uint64_t len = bm_message_len(message);
    if (len > session->peer_message_len_max) {
        *ret_text = "the answer is over the caller's limit for messages";
        return -EMSGSIZE;
    }
    if (waiting_len(session) > WAITING_ANSWERS_MAX && len > BM_FRAME_LEN_MAX) {
        *ret_text = "too many answers wait for the caller to read them";
        return -ENOBUFS;
    }
    unsigned fds = bm_message_fds_left(message);
    if (fds > 0 && session->fds_refused) {
        *ret_code = BEAM_FAILED_PRECONDITION;
        *ret_text = "the answer holds file descriptors, which the caller does not take";
        return -EPERM;
    }
    if (session->peer_fds_max > 0 && fds > session->peer_fds_max) {
        *ret_text = "the answer holds more file descriptors than the caller takes at once";
        return -EMSGSIZE;
    }
    if (bm_outgoing_admit(channel, message) < 0) {
        *ret_text = "the answer opens more channels than the caller takes";
        return -EAGAIN;
    }
    return 0;
}

void beam_reply(beam_request *request, beam_message **message)
{
    beam_channel *channel = bm_request_channel(request);
    beam_message *m = message ? *message : NULL;
    if (message)
        *message = NULL;
    if (request->answered || channel->oneway) {
        beam_message_free(m);
        if (channel->oneway)
            end_event(request);
        return;
    }

    if (m && channel->transcodes && !channel->gone && bm_message_seal(m) == 0 &&
        !bm_transcode_answer(request, m)) {
        beam_message_free(m);
        return;
    }
    const char *text;
    enum beam_code code;
    if (m && !channel->gone && judge_answer(channel, m, &text, &code) < 0) {
        beam_message_free(m);
        beam_fail(request, code, "%s", text);
        return;
    }
    request->answered = true;
    if (channel->gone || channel->local_ended) {
        beam_message_free(m); /* cancelled: nobody waits for it */
    } else if (m) {
        m->flags |= BM_MESSAGE_LAST;
        if (channel->send_credit > 0 && channel->session->fd_credit >= bm_message_fds(m)) {
            bm_outgoing_send(channel, m);
        } else {
            m->flags |= BM_MESSAGE_UNPAID;
            bm_channel_enqueue(channel, m);
        }
    } else {
        bm_channel_end(channel, BEAM_OK, NULL);
    }
    release(request);
}

static __attribute__((__format__(__printf__, 5, 0))) void
fail(beam_request *request, enum beam_code code, const void *details, size_t details_len,
     const char *format, va_list args)
{
    beam_channel *channel = bm_request_channel(request);
    if (channel->oneway) {
        end_event(request);
        return;
    }
    if (request->answered)
        return;
    char text[256] = "";
    if (format)
        vsnprintf(text, sizeof(text), format, args);
    request->answered = true;
    /* Both directions are over: whatever the caller still sends has nobody to read it. */
    bm_channel_abort_with(channel, code == BEAM_OK ? BEAM_UNKNOWN : code, text, details,
                          details_len);
    release(request);
}

void beam_fail(beam_request *request, enum beam_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(request, code, NULL, 0, format, args);
    va_end(args);
}

void beam_fail_with(beam_request *request, enum beam_code code, const void *details,
                    size_t details_len, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(request, code, details, details_len, format, args);
    va_end(args);
}

void beam_request_keep(beam_request *request)
{
    request->kept = true;
}

void beam_request_on_cancel(beam_request *request, void (*fn)(beam_request *request, void *arg),
                            void *arg)
{
    request->on_cancel = fn;
    request->on_cancel_arg = arg;
}

beam_channel *beam_request_channel(beam_request *request)
{
    return bm_request_channel(request);
}

beam_session *beam_request_session(const beam_request *request)
{
    return request->channel.session;
}

const struct beam_peer *beam_request_peer(const beam_request *request)
{
    return &request->channel.peer.shown;
}

beam_str beam_request_service(const beam_request *request)
{
    const struct bm_service *service = request->channel.service;
    return (beam_str){service->name, service->name_len};
}

bool beam_request_is_event(const beam_request *request)
{
    return request->channel.oneway;
}

bool beam_request_is_open(const beam_request *request)
{
    const beam_channel *channel = &request->channel;
    return !channel->oneway && (!channel->remote_ended ||
                                !bm_message_queue_empty(&channel->early) || channel->end_waits);
}

bool beam_request_is_cancelled(const beam_request *request)
{
    return request->cancelled;
}

unsigned beam_request_depth(const beam_request *request)
{
    return request->channel.depth;
}

uint64_t beam_request_deadline_ns(const beam_request *request)
{
    return request->channel.deadline_ns;
}
