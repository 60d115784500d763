/* Three loads, driven by callbacks on reactor 0; the thread that started them waits for the end.
 *
 * A load has ended when bench_lap() or bench_count() said so, or when something failed. What is
 * still under way then is ignored. */
#include "bench/beam_client.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include <beam/net.h>

#include "bench/socket.h"

#define INLINE_MAX 40u
#define CALLS_MAX 1024u /* ours: the default limit of channels */
#define COUNT_EVERY 64u /* messages between two looks at the clock */
#define FDS_MAX 16u

struct load;

struct call {
    struct load *load;
    uint64_t sequence;
    uint64_t start;
    bool waiting; /* refused with -EAGAIN */
};

struct load {
    const struct client *client;
    struct bench_run *run;
    beam_session *session;
    beam_channel *channel;
    beam_message *refused; /* a message that -EAGAIN left with us */
    uint64_t sequence;     /* of the next message */
    uint64_t start;        /* of the one under way */
    bool over;
    bool body_alone; /* sent as a body; else as a message */
    sem_t end;
    unsigned char body[FRAME_BODY_MAX];
    struct fd_files files;
    int fd[2]; /* echo: travelling there and back */
    struct call calls[CALLS_MAX];
};

static void load_end(struct load *load)
{
    if (load->over)
        return;
    load->over = true;
    sem_post(&load->end);
}

static void load_fail(struct load *load, const char *what, int r)
{
    if (!load->over)
        bench_fail(load->run, "%s: %s", what, beam_strerror(r));
    load_end(load);
}

static void body_stamp(struct load *load, uint64_t sequence)
{
    memcpy(load->body, &sequence, sizeof(sequence));
}

static bool body_is(const beam_message *message, uint64_t sequence, size_t size)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    return len == size && memcmp(body, &sequence, sizeof(sequence)) == 0;
}

/* Echo. */

static beam_message *message_with(struct load *load, int *fds, unsigned count)
{
    beam_message *message = beam_message_new();
    beam_message_set_body(message, load->body, load->run->row->size);
    for (unsigned i = 0; i < count; i++)
        beam_message_attach_fd(message, &fds[i]);
    return message;
}

static void echo_send(struct load *load)
{
    const struct bench_row *row = load->run->row;
    int r;
    body_stamp(load, load->sequence);
    load->start = bench_ticks();
    if (load->client->fds > 0) {
        BEAM_CLEANUP(beam_message_freep)
        beam_message *message = message_with(load, &load->fd[load->sequence % 2], 1);
        r = beam_channel_send(load->channel, &message);
    } else if (load->body_alone) {
        r = beam_channel_send_body(load->channel, load->body, row->size);
    } else {
        BEAM_CLEANUP(beam_message_freep) beam_message *message = message_with(load, NULL, 0);
        r = beam_channel_send(load->channel, &message);
    }
    if (r < 0) /* -EAGAIN too: one message is never over a window */
        load_fail(load, "send", r);
}

static void echo_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct load *load = arg;
    uint64_t now = bench_ticks();
    if (load->over)
        return;
    if (!body_is(message, load->sequence, load->run->row->size)) {
        bench_fail(load->run, "message %llu did not come back", (unsigned long long)load->sequence);
        load_end(load);
        return;
    }
    if (load->client->fds > 0) {
        int fd = beam_message_take_fd(message, 0);
        load->fd[load->sequence % 2] = fd;
        if (fd_files_check(load->run, &load->files, load->sequence, fd) < 0) {
            load_end(load);
            return;
        }
    }
    load->sequence++;
    if (!bench_lap(load->run, now, now - load->start))
        load_end(load);
    else
        echo_send(load);
}

/* Sink. */

static int sink_send(struct load *load)
{
    const struct bench_row *row = load->run->row;
    if (load->refused == NULL) {
        body_stamp(load, load->sequence);
        if (load->body_alone)
            return beam_channel_send_body(load->channel, load->body, row->size);
        int fds[FDS_MAX];
        for (unsigned i = 0; i < load->client->fds; i++)
            fds[i] = fcntl(load->files.fd[load->sequence % 2], F_DUPFD_CLOEXEC, 0);
        load->refused = message_with(load, fds, load->client->fds);
    }
    return beam_channel_send(load->channel, &load->refused);
}

static void sink_on_writable(beam_channel *channel, void *arg)
{
    struct load *load = arg;
    unsigned sent = 0;
    while (!load->over) {
        int r = sink_send(load);
        if (r < 0 && r != -EAGAIN) {
            load_fail(load, "send", r);
            return;
        }
        if (r >= 0) {
            load->sequence++;
            sent++;
        }
        if (r == -EAGAIN || sent == COUNT_EVERY) {
            if (!bench_count(load->run, sent))
                load_end(load);
            sent = 0;
        }
        if (r == -EAGAIN)
            return;
    }
}

static void channel_on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct load *load = arg;
    if (!load->over)
        bench_fail(load->run, "channel ended: %s %.*s", beam_code_name(status->code),
                   (int)status->message.len, status->message.ptr);
    load_end(load);
}

static int channel_open(struct load *load, const char *service)
{
    static const struct beam_channel_handlers handlers = {
        .on_message = echo_on_message,
        .on_writable = sink_on_writable,
        .on_end = channel_on_end,
    };
    return beam_open(load->session, service, NULL, &handlers, load, NULL, &load->channel);
}

/* Calls. */

static void call_start(struct call *call);

static void call_on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct call *call = arg;
    struct load *load = call->load;
    uint64_t now = bench_ticks();
    if (load->over)
        return;
    if (status->code != BEAM_OK || message == NULL ||
        !body_is(message, call->sequence, load->run->row->size)) {
        bench_fail(load->run, "call %llu: %s %.*s", (unsigned long long)call->sequence,
                   beam_code_name(status->code), (int)status->message.len, status->message.ptr);
        load_end(load);
        return;
    }
    if (!bench_lap(load->run, now, now - call->start))
        load_end(load);
    else
        call_start(call);
}

static void call_start(struct call *call)
{
    struct load *load = call->load;
    call->sequence = load->sequence++;
    body_stamp(load, call->sequence);
    call->start = bench_ticks();
    BEAM_CLEANUP(beam_message_freep) beam_message *message = message_with(load, NULL, 0);
    int r = beam_call(load->session, "answer", &message, call_on_reply, call, NULL);
    call->waiting = r == -EAGAIN;
    if (r < 0 && r != -EAGAIN)
        load_fail(load, "call", r);
}

static void session_on_writable(beam_session *session, void *arg)
{
    struct load *load = arg;
    for (unsigned i = 0; i < load->run->row->depth && i < CALLS_MAX && !load->over; i++)
        if (load->calls[i].waiting)
            call_start(&load->calls[i]);
}

static void session_on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct load *load = arg;
    if (!load->over)
        bench_fail(load->run, "session closed: %s %.*s", beam_code_name(status->code),
                   (int)status->message.len, status->message.ptr);
    load_end(load);
}

/* The peer's HELLO has come: fds may be sent, and its windows are known. */
static void session_on_open(beam_session *session, void *arg)
{
    struct load *load = arg;
    int r = 0;
    if (load->client->load == CLIENT_ECHO)
        r = channel_open(load, "echo");
    else if (load->client->load == CLIENT_SINK)
        r = channel_open(load, "sink");
    if (r < 0) {
        load_fail(load, "open", r);
        return;
    }
    bench_start(load->run);
    switch (load->client->load) {
    case CLIENT_ECHO:
        echo_send(load);
        break;
    case CLIENT_SINK:
        sink_on_writable(load->channel, load);
        break;
    case CLIENT_CALLS:
        for (unsigned i = 0; i < load->run->row->depth && i < CALLS_MAX; i++) {
            load->calls[i].load = load;
            call_start(&load->calls[i]);
        }
        break;
    }
}

static void load_begin(void *arg)
{
    static const struct beam_session_handlers handlers = {
        .on_open = session_on_open,
        .on_writable = session_on_writable,
        .on_close = session_on_close,
    };
    struct load *load = arg;
    const struct client *client = load->client;
    if (bench_pin(load->run, load->run->cpu_here) < 0) {
        load_end(load);
        return;
    }
    const struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.ca = {.path = client->ca});
    int r = beam_connect(
        client->runtime, client->url,
        &BEAM_CONNECT_OPTIONS(.handlers = &handlers, .arg = load, .net = client->ca ? &net : NULL),
        &load->session);
    if (r < 0)
        load_fail(load, client->url, r);
}

int client_run(const struct client *client)
{
    static struct load load;
    load.client = client;
    load.run = client->run;
    const struct bench_row *row = client->run->row;
    load.body_alone =
        client->fds == 0 && (row->size <= INLINE_MAX || strcmp(row->transport, "unix") == 0);
    if (sem_init(&load.end, 0, 0) < 0)
        return bench_fail(client->run, "sem_init: %s", strerror(errno));
    if (client->fds > 0) {
        load.files = *(const struct fd_files *)client->run->arg;
        for (unsigned i = 0; i < 2; i++)
            load.fd[i] = fcntl(load.files.fd[i], F_DUPFD_CLOEXEC, 0);
    }
    int r = beam_post(client->runtime, 0, load_begin, &load);
    if (r < 0)
        return bench_fail(client->run, "post: %s", beam_strerror(r));
    while (sem_wait(&load.end) < 0 && errno == EINTR)
        ;
    return client->run->result->error[0] != 0 ? -1 : 0;
}

int runtime_new(struct bench_run *run, unsigned reactors, beam_runtime **ret_runtime)
{
    static const struct beam_transport *const transports[] = {&beam_unix, &beam_https,
                                                              NULL}; /* borrowed */
    enum beam_spin_policy spin = BEAM_SPIN_AUTO;
    if (strcmp(run->row->regime, "asleep") == 0)
        spin = BEAM_SPIN_OFF;
    else if (strcmp(run->row->regime, "spinning") == 0)
        spin = BEAM_SPIN_FOREVER;
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.reactors = reactors, .spin = spin, .transports = transports);
    int r = beam_runtime_new(&options, ret_runtime);
    return r < 0 ? bench_fail(run, "runtime: %s", beam_strerror(r)) : 0;
}

void runtime_count(beam_runtime *runtime, struct bench_counters *counters)
{
    for (unsigned i = 0; i < beam_reactor_count(runtime); i++) {
        struct beam_stats stats;
        if (beam_runtime_stats(runtime, i, &stats) < 0)
            continue;
        counters->syscalls += stats.enters;
        counters->allocs += stats.allocs;
        counters->messages += stats.messages_sent;
        counters->packets += stats.packets_sent;
    }
}
