/* Streams as file descriptors: beam_stream_to_fd, and what becomes of ends and breaks. */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/flow.h"

#define LONG_LEN ((size_t)1 << 20)

/* What the thread that has the descriptor saw. */
struct there {
    _Atomic bool started, done, closed_early;
    _Atomic uint64_t bytes, wrong;
    _Atomic int last; /* of read(2): 0, or -errno */
    _Atomic int fd;
    bool echoes; /* what it reads it writes; else it only reads */
    bool leaves; /* closes at once */
    bool stops;  /* half-closes at once */
};

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 7 + (i >> 8));
}

static void copy_back(struct there *there, int fd, const uint8_t *buf, ssize_t n)
{
    for (ssize_t done = 0; done < n;) {
        ssize_t w = send(fd, buf + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (w < 0) {
            there->closed_early = true;
            return;
        }
        done += w;
    }
}

static void *read_all(void *arg)
{
    struct there *there = arg;
    int fd = there->fd;
    uint8_t buf[8192];
    ssize_t n = 1;
    if (there->stops)
        (void)shutdown(fd, SHUT_WR);
    while (!there->leaves && (n = read(fd, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            there->wrong += buf[i] != byte_at(there->bytes + (uint64_t)i);
        there->bytes += (uint64_t)n;
        if (there->echoes)
            copy_back(there, fd, buf, n);
    }
    there->last = n < 0 ? -errno : (int)n;
    close(fd);
    there->done = true;
    return NULL;
}

static void on_take(beam_request *request, const beam_message *message, void *arg)
{
    struct there *there = arg;
    beam_stream *stream = beam_message_take_stream(message, 0);
    int fd = -1;
    pthread_t thread;
    int r = stream ? beam_stream_to_fd(&stream, &fd) : -ENOENT;
    if (r == 0) {
        CHECK_PTR(stream, NULL);
        there->fd = fd;
        there->started = true;
        r = -pthread_create(&thread, NULL, read_all, there);
        if (r == 0)
            pthread_detach(thread);
        else
            close(fd);
    } else {
        beam_stream_free(stream);
    }
    if (r == 0)
        beam_reply(request, NULL);
    else
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "%s", beam_strerror(r));
}

struct here {
    uint64_t sent, bytes, wrong;
    unsigned ends;
    enum beam_code code;
    uint64_t to_send;
    bool ended;
    beam_stream *stream;
};

static void push(struct here *here)
{
    uint8_t buf[4096];
    while (here->sent < here->to_send) {
        size_t len = sizeof(buf);
        if (here->to_send - here->sent < len)
            len = (size_t)(here->to_send - here->sent);
        for (size_t i = 0; i < len; i++)
            buf[i] = byte_at(here->sent + i);
        ssize_t n = beam_stream_write(here->stream, buf, len);
        if (n < 0)
            return;
        here->sent += (uint64_t)n;
    }
    if (here->ended)
        beam_stream_end(here->stream);
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct here *here = arg;
    for (size_t i = 0; i < len; i++)
        here->wrong += ((const uint8_t *)data)[i] != byte_at(here->bytes + i);
    here->bytes += len;
    flow_tick();
}

static void on_writable(beam_stream *stream, void *arg)
{
    push(arg);
}

static void on_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    struct here *here = arg;
    here->ends++;
    here->code = status->code;
    flow_tick();
}

static const struct beam_stream_handlers handlers = {on_data, on_writable, on_end};

/* Attaches a stream to a call of "take", and waits for the answer. Whether a thread has its fd. */
static bool begin(struct here *here)
{
    beam_message *message = beam_message_new();
    here->stream = beam_message_attach_stream(message);
    if (!here->stream) {
        beam_message_free(message);
        return false;
    }
    beam_stream_set_handlers(here->stream, &handlers, here);
    struct flow_answer answer = flow_ask("take", message);
    bool taken = answer.code == BEAM_OK;
    flow_answer_clear(&answer);
    return taken;
}

static struct there *start(struct there like)
{
    struct there *there = flow_share(sizeof(*there));
    there->echoes = like.echoes;
    there->leaves = like.leaves;
    there->stops = like.stops;
    flow_serve("take", on_take, there);
    flow_start(NULL);
    return there;
}

static void wait_for_thread(struct there *there)
{
    if (there->started)
        FLOW_WAIT(there->done);
}

FLOW_TEST(bytes_pass_both_ways_and_ends_are_ends)
{
    struct there *there = start((struct there){.echoes = true});
    struct here here = {.to_send = LONG_LEN, .ended = true};
    if (begin(&here)) {
        push(&here);
        FLOW_WAIT(here.ends == 1);
        CHECK_INT(here.code, BEAM_OK);
        CHECK_UINT(here.bytes, LONG_LEN);
        CHECK_UINT(here.wrong, 0);
        wait_for_thread(there);
        CHECK_UINT(there->bytes, LONG_LEN);
        CHECK_UINT(there->wrong, 0);
        CHECK_INT(there->last, 0);
    }
    here.stream = beam_stream_free(here.stream);
}

FLOW_TEST(a_half_close_leaves_the_other_half)
{
    struct there *there = start((struct there){.stops = true});
    struct here here = {.to_send = LONG_LEN};
    if (begin(&here)) {
        FLOW_WAIT(here.ends == 1);
        CHECK_INT(here.code, BEAM_OK);
        here.ended = true;
        push(&here);
        FLOW_WAIT(there->done);
        CHECK_UINT(there->bytes, LONG_LEN);
        CHECK_INT(there->last, 0);
    }
    here.stream = beam_stream_free(here.stream);
}

FLOW_TEST(a_reset_is_no_end_of_file)
{
    struct there *there = start((struct there){0});
    struct here here = {.to_send = 1000};
    if (begin(&here)) {
        push(&here);
        FLOW_WAIT(there->bytes == 1000);
        beam_stream_reset(here.stream, BEAM_ABORTED, "no more");
        FLOW_WAIT(there->done);
        CHECK_INT(there->last, -ECONNRESET);
    }
    here.stream = beam_stream_free(here.stream);
}

FLOW_TEST(a_lost_session_is_no_end_of_file)
{
    struct there *there = start((struct there){0});
    struct here here = {.to_send = 1000};
    if (begin(&here)) {
        push(&here);
        FLOW_WAIT(there->bytes == 1000);
        beam_session_close(flow.session);
        FLOW_WAIT(there->done);
        CHECK_INT(there->last, -ECONNRESET);
    }
    here.stream = beam_stream_free(here.stream);
}

FLOW_TEST(who_closes_the_descriptor_stops_the_sender)
{
    struct there *there = start((struct there){.leaves = true});
    struct here here = {.to_send = 16 * LONG_LEN};
    if (begin(&here)) {
        push(&here);
        FLOW_WAIT(here.ends > 0);
        /* The close is an end of file first, and breaks what is written after it. */
        if (here.code == BEAM_OK) {
            FLOW_WAIT(beam_stream_write(here.stream, "x", 1) == -EPIPE);
        } else {
            CHECK_INT(here.code, BEAM_CANCELLED);
        }
        CHECK(here.sent < here.to_send);
        wait_for_thread(there);
    }
    here.stream = beam_stream_free(here.stream);
}

FLOW_TEST(a_stream_nobody_has_sent_breaks_its_descriptor)
{
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_stream *stream = beam_message_attach_stream(message);
    int fd = -1;
    char byte;
    REQUIRE(stream != NULL);
    REQUIRE_INT(beam_stream_to_fd(&stream, &fd), 0);
    beam_message_free(message);
    ssize_t n = 0;
    FLOW_WAIT((n = recv(fd, &byte, 1, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
    CHECK_INT(n, -1);
    CHECK_INT(errno, ECONNRESET);
    close(fd);
}
