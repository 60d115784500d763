/* A client of Beam's, for the tests beside this file: what a session has to be able to do, whatever stands between
 * it and its server, one task for each run.
 *
 *     peer_client URL CA WAY TASK [NUMBER...]
 *
 *     open                              a session
 *     duplex CHANNELS MESSAGES LENGTH   so many channels to the service `echo`, all open at once, each with so
 *                                       many messages out and back, as fast as there is room
 *     streams COUNT LENGTH              the same with attached streams, of so many bytes each
 *     dedicated COUNT LENGTH            the same, each in an HTTP/2 stream of its own where there can be one
 *     reverse COUNT LENGTH              so many calls at once of `reverse`, which calls a service of ours
 *     drain                             a channel; says "ready", waits until the server drains, talks on, ends
 *     silence SECONDS                   a message, silence, and another on the same channel
 *
 * CA is a file, or "-" without TLS; WAY is any, http2, connect or upgrade. All that comes back is compared with what
 * was sent. Then the session ends in order, and what is printed is how long connecting took, as JSON. It exits 1
 * if anything was wrong, and says what. It does not know a proxy from a server. */
#include <beam/beam.h>
#include <beam/net.h>

#include <errno.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TALKS_MAX 128u

/* One channel or stream, and how far it is. */
struct talk {
    beam_channel *channel;
    beam_stream *stream;
    unsigned number;
    size_t sent, came; /* messages; of a stream bytes */
    bool whole, ended;
};

struct task {
    const char *name;
    unsigned number_count;
    void (*begin)(void *arg);
};

static struct {
    beam_runtime *runtime;
    beam_session *session;
    const struct task *task;
    size_t numbers[3];
    struct talk talks[TALKS_MAX];
    unsigned talk_count, opened, whole, ended;
    unsigned replies;
    bool draining, over, draining_expected;
    char why[512]; /* empty: all is well */
    sem_t done;
} app;

/* --- the end --------------------------------------------------------------------------------- */

static void finish(void *arg)
{
    (void)arg;
    if (!app.over)
        sem_post(&app.done);
    app.over = true;
}

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!app.why[0])
        vsnprintf(app.why, sizeof(app.why), format, args);
    va_end(args);
    finish(NULL);
}

static void fail_with(const char *what, int error)
{
    fail("%s: %s", what, beam_strerror(error));
}

/* --- what is sent ---------------------------------------------------------------------------- */

/* Byte `at` of message `index` of a talk; long enough not to repeat where a window would. */
static unsigned char byte_of(unsigned number, size_t index, size_t at)
{
    uint64_t mixed = (at + 1) * UINT64_C(0x9e3779b97f4a7c15) + index * 101 + number * 7;
    return (unsigned char)(mixed >> 32);
}

static beam_message *message_of(unsigned number, size_t index, size_t len)
{
    beam_message *message = beam_message_new();
    unsigned char *body = beam_message_reserve_body(message, len);
    for (size_t i = 0; body && i < len; i++)
        body[i] = byte_of(number, index, i);
    return message;
}

static bool is_right(const unsigned char *bytes, size_t len, unsigned number, size_t index,
                     size_t at)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != byte_of(number, index, at + i))
            return false;
    return true;
}

static bool message_is_right(const beam_message *message, unsigned number, size_t index, size_t len)
{
    size_t have;
    const unsigned char *body = beam_message_body(message, &have);
    return have == len && is_right(body, len, number, index, 0);
}

/* --- channels -------------------------------------------------------------------------------- */

static void end_session(void)
{
    if (app.draining_expected)
        return; /* the server does */
    beam_session_drain(app.session);
}

/* Nobody ends before all are whole: so they were all open at once. */
static void talk_is_whole(struct talk *talk)
{
    talk->whole = true;
    if (++app.whole < app.talk_count)
        return;
    for (unsigned i = 0; i < app.talk_count; i++) {
        if (app.talks[i].channel)
            beam_channel_end(app.talks[i].channel);
        else
            beam_stream_end(app.talks[i].stream);
    }
}

static void talk_has_ended(struct talk *talk, const struct beam_status *status)
{
    if (status->code != BEAM_OK || !talk->whole || talk->ended) {
        fail("number %u has ended with %s: %.*s, after %zu", talk->number,
             beam_code_text(status->code), BEAM_STR(status->message), talk->came);
        return;
    }
    talk->ended = true;
    if (++app.ended == app.talk_count)
        end_session();
}

static void send_on(struct talk *talk)
{
    size_t count = app.numbers[1], len = app.numbers[2];
    while (talk->sent < count) {
        BEAM_CLEANUP(beam_message_freep)
        beam_message *message = message_of(talk->number, talk->sent, len);
        int r = beam_channel_send(talk->channel, &message);
        if (r == -EAGAIN)
            return; /* on_writable */
        if (r < 0) {
            fail_with("sending", r);
            return;
        }
        talk->sent++;
    }
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct talk *talk = arg;
    (void)channel;
    if (!message_is_right(message, talk->number, talk->came, app.numbers[2]))
        fail("message %zu of number %u has changed on its way", talk->came, talk->number);
    if (++talk->came == app.numbers[1])
        talk_is_whole(talk);
}

static void on_writable(beam_channel *channel, void *arg)
{
    (void)channel;
    send_on(arg);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)channel;
    talk_has_ended(arg, status);
}

static const struct beam_channel_handlers channel_handlers = {
    .on_message = on_message, .on_writable = on_writable, .on_end = on_end};

/* As many as there is room for; on_session_writable goes on. */
static void open_channels(const struct beam_channel_handlers *handlers)
{
    while (app.opened < app.talk_count) {
        struct talk *talk = &app.talks[app.opened];
        BEAM_CLEANUP(beam_message_freep)
        beam_message *message = message_of(app.opened, 0, app.numbers[2]);
        int r = beam_open(app.session, "echo", &message, handlers, talk, NULL, &talk->channel);
        if (r == -EAGAIN)
            return;
        if (r < 0) {
            fail_with("opening", r);
            return;
        }
        talk->number = app.opened++;
        talk->sent = 1;
    }
    for (unsigned i = 0; handlers == &channel_handlers && i < app.talk_count; i++)
        send_on(&app.talks[i]);
}

static void begin_duplex(void *arg)
{
    (void)arg;
    app.talk_count = (unsigned)app.numbers[0];
    open_channels(&channel_handlers);
}

/* --- streams --------------------------------------------------------------------------------- */

static void write_on(struct talk *talk)
{
    unsigned char bytes[16384];
    size_t len = app.numbers[1];
    while (talk->sent < len) {
        size_t part = len - talk->sent < sizeof(bytes) ? len - talk->sent : sizeof(bytes);
        for (size_t i = 0; i < part; i++)
            bytes[i] = byte_of(talk->number, 0, talk->sent + i);
        ssize_t n = beam_stream_write(talk->stream, bytes, part);
        if (n == -EAGAIN)
            return;
        if (n < 0) {
            fail_with("writing", (int)n);
            return;
        }
        talk->sent += (size_t)n;
    }
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct talk *talk = arg;
    (void)stream;
    if (!is_right(data, len, talk->number, 0, talk->came))
        fail("stream %u has changed on its way, behind %zu bytes", talk->number, talk->came);
    talk->came += len;
    if (talk->came == app.numbers[1])
        talk_is_whole(talk);
}

static void on_stream_writable(beam_stream *stream, void *arg)
{
    (void)stream;
    write_on(arg);
}

static void on_stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    (void)stream;
    talk_has_ended(arg, status);
}

static const struct beam_stream_handlers stream_handlers = {
    .on_data = on_data, .on_writable = on_stream_writable, .on_end = on_stream_end};

static void on_streams_taken(const struct beam_status *status, const beam_message *message,
                             void *arg)
{
    (void)message;
    (void)arg;
    if (status->code != BEAM_OK)
        fail("echo has answered %s: %.*s", beam_code_text(status->code), BEAM_STR(status->message));
}

static void open_streams(bool dedicated)
{
    app.talk_count = (unsigned)app.numbers[0];
    for (unsigned i = 0; i < app.talk_count; i++) {
        BEAM_CLEANUP(beam_message_freep) beam_message *message = beam_message_new();
        struct talk *talk = &app.talks[i];
        talk->number = i;
        talk->stream = beam_message_attach_stream(message);
        if (dedicated && talk->stream)
            beam_stream_dedicate(talk->stream);
        int r = beam_call(app.session, "echo", &message, on_streams_taken, NULL, NULL);
        if (r < 0) {
            fail_with("calling", r);
            return;
        }
        beam_stream_set_handlers(talk->stream, &stream_handlers, talk);
        write_on(talk);
    }
}

static void begin_streams(void *arg)
{
    (void)arg;
    open_streams(false);
}

static void begin_dedicated(void *arg)
{
    (void)arg;
    open_streams(true);
}

/* --- the other way round --------------------------------------------------------------------- */

static void on_own(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_keep(message);
    (void)arg;
    beam_reply(request, &answer);
}

static void on_reverse(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct talk *talk = arg;
    if (status->code != BEAM_OK || !message ||
        !message_is_right(message, talk->number, 0, app.numbers[1]))
        fail("reverse has answered %s: %.*s", beam_code_text(status->code),
             BEAM_STR(status->message));
    if (++app.replies == app.talk_count)
        end_session();
}

static void call_reverse(void)
{
    while (app.opened < app.talk_count) {
        struct talk *talk = &app.talks[app.opened];
        BEAM_CLEANUP(beam_message_freep)
        beam_message *message = message_of(app.opened, 0, app.numbers[1]);
        beam_message_put_str(message, "service", "own");
        int r = beam_call(app.session, "reverse", &message, on_reverse, talk, NULL);
        if (r == -EAGAIN)
            return;
        if (r < 0) {
            fail_with("calling", r);
            return;
        }
        talk->number = app.opened++;
    }
}

static void begin_reverse(void *arg)
{
    (void)arg;
    app.talk_count = (unsigned)app.numbers[0];
    call_reverse();
}

/* --- two messages, and something between them ------------------------------------------------ */

static void on_pair_message(beam_channel *channel, const beam_message *message, void *arg);

static const struct beam_channel_handlers pair_handlers = {.on_message = on_pair_message,
                                                           .on_end = on_end};

static void send_second(void *arg)
{
    struct talk *talk = &app.talks[0];
    BEAM_CLEANUP(beam_message_freep) beam_message *message = message_of(0, 1, app.numbers[2]);
    (void)arg;
    int r = beam_channel_send(talk->channel, &message);
    if (r < 0)
        fail_with("sending", r);
}

static void on_pair_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct talk *talk = arg;
    (void)channel;
    if (!message_is_right(message, 0, talk->came, app.numbers[2]))
        fail("message %zu has changed on its way", talk->came);
    if (++talk->came == 2) {
        talk_is_whole(talk);
    } else if (app.draining_expected) {
        puts("ready");
        fflush(stdout);
    } else {
        beam_timer *timer;
        int r =
            beam_timer_new(app.runtime, app.numbers[0] * BEAM_SEC, 0, send_second, NULL, &timer);
        if (r < 0)
            fail_with("a timer", r);
    }
}

static void begin_pair(void *arg)
{
    (void)arg;
    app.talk_count = 1;
    app.numbers[2] = 1000;
    open_channels(&pair_handlers);
}

static void begin_drain(void *arg)
{
    app.draining_expected = true;
    begin_pair(arg);
}

static void begin_open(void *arg)
{
    (void)arg;
    end_session();
}

static const struct task tasks[] = {
    {"open", 0, begin_open},           {"duplex", 3, begin_duplex},   {"streams", 2, begin_streams},
    {"dedicated", 2, begin_dedicated}, {"reverse", 2, begin_reverse}, {"drain", 0, begin_drain},
    {"silence", 1, begin_pair},
};

/* --- the session ----------------------------------------------------------------------------- */

static void on_session_writable(beam_session *session, void *arg)
{
    (void)session;
    (void)arg;
    if (app.task->begin == begin_reverse)
        call_reverse();
    else if (app.task->begin == begin_duplex)
        open_channels(&channel_handlers);
}

static void on_draining(beam_session *session, void *arg)
{
    (void)session;
    (void)arg;
    if (!app.draining_expected)
        fail("the server drains");
    app.draining = true;
    send_second(NULL);
}

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    (void)session;
    (void)arg;
    if (status->code != BEAM_OK)
        fail("the session has ended with %s: %.*s", beam_code_text(status->code),
             BEAM_STR(status->message));
    if (app.draining_expected && !app.draining)
        fail("the session has ended before it was drained");
    finish(NULL);
}

static const struct beam_session_handlers session_handlers = {
    .on_writable = on_session_writable, .on_draining = on_draining, .on_close = on_close};

/* What is left of a task that has failed. */
static void free_talks(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < TALKS_MAX; i++) {
        app.talks[i].channel = beam_channel_free(app.talks[i].channel);
        app.talks[i].stream = beam_stream_free(app.talks[i].stream);
    }
    sem_post(&app.done);
}

static bool read_arguments(int argc, char **argv, struct beam_net_connect *net)
{
    static const char *const ways[] = {"any", "http2", "connect", "upgrade"};
    bool known = false;
    for (unsigned i = 0; argc > 4 && i < sizeof(ways) / sizeof(ways[0]); i++)
        if (strcmp(argv[3], ways[i]) == 0) {
            net->way = (enum beam_net_way)i;
            known = true;
        }
    for (unsigned i = 0; known && i < sizeof(tasks) / sizeof(tasks[0]); i++)
        if (strcmp(argv[4], tasks[i].name) == 0 && (unsigned)argc == 5 + tasks[i].number_count)
            app.task = &tasks[i];
    for (int i = 5; app.task && i < argc; i++)
        app.numbers[i - 5] = strtoul(argv[i], NULL, 10);
    if (!app.task || (app.task->number_count > 1 && app.numbers[0] - 1 >= TALKS_MAX))
        return false;
    if (strcmp(argv[2], "-") != 0)
        net->ca.path = argv[2];
    return true;
}

static void log_line(enum beam_log_level level, const char *text, void *arg)
{
    (void)level;
    (void)arg;
    fprintf(stderr, "%s\n", text);
}

int main(int argc, char **argv)
{
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = BEAM_NET_ANY);
    if (!read_arguments(argc, argv, &net)) {
        fputs("usage: peer_client URL CA WAY TASK [NUMBER...]\n", stderr);
        return 2;
    }
    sem_init(&app.done, 0, 0);
    int r =
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(
                                                   &beam_https, &beam_http, &beam_wss, &beam_ws),
                                               .log = log_line),
                         &app.runtime);
    if (r >= 0)
        r = beam_serve(app.runtime, "own", on_own, NULL);
    if (r >= 0)
        r = beam_start(app.runtime);
    uint64_t begun_ns = beam_now_ns();
    if (r >= 0)
        r = beam_connect_wait(app.runtime, argv[1],
                              &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers, .net = &net),
                              &app.session);
    uint64_t connect_ns = beam_now_ns() - begun_ns;
    if (r >= 0)
        r = beam_post(app.runtime, 0, app.task->begin, NULL);
    if (r >= 0) {
        sem_wait(&app.done);
        beam_post(app.runtime, 0, free_talks, NULL);
        sem_wait(&app.done);
    } else {
        snprintf(app.why, sizeof(app.why), "connecting: %s", beam_strerror(r));
    }
    app.session = beam_session_free(app.session);
    app.runtime = beam_runtime_free(app.runtime);
    if (app.why[0])
        fprintf(stderr, "%s\n", app.why);
    else
        printf("{\"connect_ms\": %u}\n", (unsigned)(connect_ns / BEAM_MS));
    return app.why[0] ? 1 : 0;
}
