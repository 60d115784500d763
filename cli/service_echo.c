/* The service `echo`: everything back. Metadata, body and file descriptors of a call are its
 * answer; on a channel that the caller keeps open each message comes back, until the caller ends
 * it.
 *
 * A caller that sends and does not read is held back by its own credit: what waits here has not
 * been freed, so its credit has not been returned. That bounds the queue. */
#include "cli/services.h"

#include <errno.h>
#include <stdlib.h>

struct waiting {
    struct waiting *next;
    beam_message *message;
};

struct echo {
    beam_request *request;
    struct waiting *head, **tail;
    bool ended; /* the caller will send no more */
};

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
    echo_free(echo);
    beam_fail(request, code, "%s", text);
}

static void send_waiting(struct echo *echo)
{
    beam_channel *channel = beam_request_channel(echo->request);
    while (echo->head) {
        struct waiting *waiting = echo->head;
        int r = beam_channel_send(channel, &waiting->message);
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
    if (echo->ended) {
        beam_request *request = echo->request;
        echo_free(echo);
        beam_reply(request, NULL);
    }
}

static void take(struct echo *echo, const beam_message *message)
{
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
    if (status->code != BEAM_OK)
        return; /* on_cancel follows, also when the caller cancels after its end */
    echo->ended = true;
    send_waiting(echo);
}

static void on_cancel(beam_request *request, void *arg)
{
    fail(arg, BEAM_CANCELLED, "the caller is gone");
}

static void echo_open_channel(beam_request *request, const beam_message *message)
{
    static const struct beam_channel_handlers handlers = {
        .on_message = on_message,
        .on_writable = on_writable,
        .on_end = on_end,
    };
    struct echo *echo = malloc(sizeof(*echo));
    if (!echo) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory for an echo");
        return;
    }
    *echo = (struct echo){.request = request};
    echo->tail = &echo->head;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, echo);
    beam_channel_set_handlers(beam_request_channel(request), &handlers, echo);
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
    .summary = "answers with what it was sent: metadata, body, file descriptors",
    .add = add,
};
