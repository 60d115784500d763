/* Bytes back on the stream they came on.
 *
 * What cannot be written yet waits in a copy, and its credit is withheld: a caller that writes and does
 * not read is stopped by its own window. It does not read ahead or join pieces. */
#include "cli/echo_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct piece {
    struct piece *next;
    size_t len, done;
    unsigned char bytes[];
};

struct echo_stream {
    beam_stream *stream;
    struct piece *head, **tail;
    bool ended; /* the caller will send no more */
};

static void dispose(struct echo_stream *echo)
{
    while (echo->head) {
        struct piece *piece = echo->head;
        echo->head = piece->next;
        free(piece);
    }
    beam_stream_free(echo->stream);
    free(echo);
}

static void fail(struct echo_stream *echo, const char *text)
{
    beam_stream_reset(echo->stream, BEAM_RESOURCE_EXHAUSTED, text);
    dispose(echo);
}

static void write_waiting(struct echo_stream *echo)
{
    while (echo->head) {
        struct piece *piece = echo->head;
        ssize_t n =
            beam_stream_write(echo->stream, piece->bytes + piece->done, piece->len - piece->done);
        if (n == -EAGAIN)
            return; /* on_writable goes on */
        if (n < 0) {
            fail(echo, beam_strerror((int)n));
            return;
        }
        beam_stream_release(echo->stream, (size_t)n);
        piece->done += (size_t)n;
        if (piece->done < piece->len)
            continue;
        echo->head = piece->next;
        if (!echo->head)
            echo->tail = &echo->head;
        free(piece);
    }
    if (echo->ended) {
        beam_stream_end(echo->stream);
        dispose(echo);
    }
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct echo_stream *echo = arg;
    struct piece *piece = malloc(sizeof(*piece) + len);
    if (!piece) {
        fail(echo, "no memory for an echo");
        return;
    }
    *piece = (struct piece){.len = len};
    memcpy(piece->bytes, data, len);
    *echo->tail = piece;
    echo->tail = &piece->next;
    beam_stream_hold(stream);
    write_waiting(echo);
}

static void on_writable(beam_stream *stream, void *arg)
{
    write_waiting(arg);
}

static void on_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    struct echo_stream *echo = arg;
    if (status->code != BEAM_OK) {
        dispose(echo);
        return;
    }
    echo->ended = true;
    write_waiting(echo);
}

void echo_stream_start(beam_stream *stream)
{
    static const struct beam_stream_handlers handlers = {
        .on_data = on_data,
        .on_writable = on_writable,
        .on_end = on_end,
    };
    struct echo_stream *echo = malloc(sizeof(*echo));
    if (!echo) {
        beam_stream_free(stream);
        return;
    }
    *echo = (struct echo_stream){.stream = stream};
    echo->tail = &echo->head;
    beam_stream_set_handlers(stream, &handlers, echo);
}
