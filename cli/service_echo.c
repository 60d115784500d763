/* The service `echo`: everything back. Metadata, body and file descriptors of a call are its
 * answer; on a channel that the caller keeps open, or has attached to a message, each message comes
 * back, until the caller ends it.
 *
 * A caller that sends and does not read is held back by its own credit: what waits here has not
 * been freed, so its credit has not been returned. That bounds the queue. */
#include "cli/services.h"

#include <errno.h>
#include <stdlib.h>

#include "cli/echo_stream.h"

struct waiting {
    struct waiting *next;
    beam_message *message;
};

/* One channel on which what comes goes back. */
struct echo {
    beam_channel *channel;
    beam_request *request; /* whose channel it is; NULL: it was attached, and is ours to free */
    struct waiting *head, **tail;
    bool ended; /* the caller will send no more */
};

static struct echo *echo_new(beam_channel *channel, beam_request *request)
{
    struct echo *echo = malloc(sizeof(*echo));
    if (!echo)
        return NULL;
    *echo = (struct echo){.channel = channel, .request = request};
    echo->tail = &echo->head;
    return echo;
}

static void echo_free(struct echo *echo)
{
    while (echo->head) {
        struct waiting *waiting = echo->head;
        echo->head = waiting->next;
        beam_message_free(waiting->message);
        free(waiting);
    }
    free(echo);
}

static void fail(struct echo *echo, enum beam_code code, const char *text)
{
    beam_request *request = echo->request;
    beam_channel *channel = echo->channel;
    echo_free(echo);
    if (request) {
        beam_fail(request, code, "%s", text);
    } else {
        beam_channel_reset(channel, code, text);
        beam_channel_free(channel);
    }
}

static void finish(struct echo *echo)
{
    beam_request *request = echo->request;
    beam_channel *channel = echo->channel;
    echo_free(echo);
    if (request) {
        beam_reply(request, NULL);
    } else {
        beam_channel_end(channel);
        beam_channel_free(channel);
    }
}

static void send_waiting(struct echo *echo)
{
    while (echo->head) {
        struct waiting *waiting = echo->head;
        int r = beam_channel_send(echo->channel, &waiting->message);
        if (r == -EAGAIN)
            return; /* on_writable goes on */
        if (r < 0) {
            fail(echo, BEAM_RESOURCE_EXHAUSTED, beam_strerror(r));
            return;
        }
        echo->head = waiting->next;
        if (!echo->head)
            echo->tail = &echo->head;
        free(waiting);
    }
    if (echo->ended)
        finish(echo);
}

static void echo_attached(const beam_message *message);

static void take(struct echo *echo, const beam_message *message)
{
    echo_attached(message);
    struct waiting *waiting = malloc(sizeof(*waiting));
    if (waiting)
        *waiting = (struct waiting){.message = beam_message_keep(message)};
    if (!waiting || !waiting->message) {
        free(waiting);
        fail(echo, BEAM_RESOURCE_EXHAUSTED, "no memory for an echo");
        return;
    }
    *echo->tail = waiting;
    echo->tail = &waiting->next;
    send_waiting(echo);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    take(arg, message);
}

static void on_writable(beam_channel *channel, void *arg)
{
    send_waiting(arg);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct echo *echo = arg;
    if (status->code == BEAM_OK) {
        echo->ended = true;
        send_waiting(echo);
    } else if (!echo->request) {
        fail(echo, BEAM_CANCELLED, NULL);
    }
    /* Else on_cancel follows, also when the caller cancels after its end. */
}

static void on_cancel(beam_request *request, void *arg)
{
    fail(arg, BEAM_CANCELLED, "the caller is gone");
}

static const struct beam_channel_handlers handlers = {
    .on_message = on_message,
    .on_writable = on_writable,
    .on_end = on_end,
};

/* The channels and streams that came with a message, each an echo of its own. What is left in the
 * message for want of memory is reset with it. */
static void echo_attached(const beam_message *message)
{
    for (unsigned i = 0; i < beam_message_channel_count(message); i++) {
        beam_stream *stream = beam_message_take_stream(message, i);
        if (stream) {
            echo_stream_start(stream);
            continue;
        }
        beam_channel *channel = beam_message_take_channel(message, i);
        struct echo *echo = channel ? echo_new(channel, NULL) : NULL;
        if (echo)
            beam_channel_set_handlers(channel, &handlers, echo);
        else
            beam_channel_free(channel);
    }
}

static void echo_open_channel(beam_request *request, const beam_message *message)
{
    struct echo *echo = echo_new(beam_request_channel(request), request);
    if (!echo) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory for an echo");
        return;
    }
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, echo);
    beam_channel_set_handlers(echo->channel, &handlers, echo);
    take(echo, message);
}

static void on_request(beam_request *request, const beam_message *message, void *arg)
{
    if (beam_request_is_event(request))
        return;
    if (beam_request_is_open(request)) {
        echo_open_channel(request, message);
        return;
    }
    echo_attached(message);
    beam_message *answer = beam_message_keep(message);
    if (answer)
        beam_reply(request, &answer);
    else
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory for an echo");
}

static int add(beam_runtime *runtime, const char *name, const char *argument)
{
    return beam_serve(runtime, name, on_request, NULL);
}

const struct service_kind service_echo = {
    .name = "echo",
    .summary = "answers with what it was sent; what comes on attached channels goes back on them",
    .add = add,
};
