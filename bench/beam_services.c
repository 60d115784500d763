/* The other side of Beam's contenders: services that echo, swallow and answer.
 *
 *   echo    a channel: each message comes back, its fds with it
 *   sink    a channel: each message is checked and dropped, its fds closed
 *   answer  a request with one answer: the body back */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bench/beam_client.h"
#include "bench/socket.h"

#define INLINE_MAX 40u /* longer bodies need a message: beam/channel.h */

static struct bench_run *the_run; /* one run to a process */
static bool over_socket;

static void check_sequence(const void *body, size_t len, uint64_t *expected)
{
    uint64_t sequence = UINT64_MAX;
    if (len >= sizeof(sequence))
        memcpy(&sequence, body, sizeof(sequence));
    if (sequence != *expected)
        bench_fail(the_run, "expected message %llu, got %llu of %zu bytes",
                   (unsigned long long)*expected, (unsigned long long)sequence, len);
    (*expected)++;
}

static int echo_with_fds(beam_channel *channel, const beam_message *message, const void *body,
                         size_t len)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *reply = beam_message_new();
    beam_message_set_body(reply, body, len);
    for (unsigned i = 0; i < beam_message_fd_count(message); i++) {
        int fd = beam_message_take_fd(message, i);
        beam_message_attach_fd(reply, &fd);
    }
    return beam_channel_send(channel, &reply);
}

/* Over a ring a message goes back as it is; over a socket it is copied in either case. */
static int echo_whole(beam_channel *channel, const beam_message *message)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *kept = beam_message_keep(message);
    return kept == NULL ? -ENOMEM : beam_channel_send(channel, &kept);
}

static void echo_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    int r;
    if (beam_message_fd_count(message) > 0)
        r = echo_with_fds(channel, message, body, len);
    else if (len <= INLINE_MAX || over_socket)
        r = beam_channel_send_body(channel, body, len);
    else
        r = echo_whole(channel, message);
    if (r < 0)
        bench_fail(the_run, "echo: %s", beam_strerror(r));
}

static uint64_t sink_expected;

static void sink_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    check_sequence(body, len, &sink_expected);
    if (beam_message_fd_count(message) != the_run->row->fds)
        bench_fail(the_run, "a message came with %u fds", beam_message_fd_count(message));
    if (the_run->row->fds > 0)
        fd_files_check(the_run, the_run->arg, sink_expected - 1, beam_message_peek_fd(message, 0));
}

static void channel_on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_reply(arg, NULL);
}

static void channel_serve(beam_request *request, const struct beam_channel_handlers *handlers)
{
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), handlers, request);
}

static void echo(beam_request *request, const beam_message *message, void *arg)
{
    static const struct beam_channel_handlers handlers = {
        .on_message = echo_on_message,
        .on_end = channel_on_end,
    };
    channel_serve(request, &handlers);
}

static void sink(beam_request *request, const beam_message *message, void *arg)
{
    static const struct beam_channel_handlers handlers = {
        .on_message = sink_on_message,
        .on_end = channel_on_end,
    };
    channel_serve(request, &handlers);
}

static void answer(beam_request *request, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message *reply = beam_message_new();
    beam_message_set_body(reply, body, len);
    beam_reply(request, &reply);
}

int services_offer(struct bench_run *run, beam_runtime *runtime)
{
    the_run = run;
    over_socket = strcmp(run->row->transport, "unix") == 0;
    int r = beam_serve(runtime, "echo", echo, NULL);
    if (r >= 0)
        r = beam_serve(runtime, "sink", sink, NULL);
    if (r >= 0)
        r = beam_serve(runtime, "answer", answer, NULL);
    return r < 0 ? bench_fail(run, "serve: %s", beam_strerror(r)) : 0;
}
