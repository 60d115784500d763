/* A stream of an HTTP/2 connection.
 *
 * It is open from the moment that it is linked until bm_h2_stream_close, which is called by nghttp2
 * (its on_stream_close) or at the end of the connection. What keeps it longer is a hold; it has a
 * place among those that are allowed for as long as it is there. Bytes that were delivered and not
 * consumed go back to the connection's window with it. */
#include <errno.h>

#include "base/assert.h"
#include "net/proto/h2_inner.h"

struct bm_h2_stream *bm_h2_stream_new(struct bm_h2 *h2, void *arg)
{
    struct bm_h2_stream *stream = bm_h2_memory_get(&h2->memory, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->h2 = h2;
    stream->arg = arg;
    stream->progress_ns = h2->now_ns;
    return stream;
}

struct bm_h2_stream *bm_h2_stream_free(struct bm_h2_stream *stream)
{
    bm_h2_memory_free(stream, &stream->h2->memory);
    return NULL;
}

void bm_h2_stream_link(struct bm_h2_stream *stream)
{
    bm_list_push_back(&stream->h2->streams, &stream->node);
    stream->h2->open++;
}

void bm_h2_stream_close(struct bm_h2_stream *stream, uint32_t code)
{
    struct bm_h2 *h2 = stream->h2;
    bm_list_unlink(&stream->node);
    h2->open--;
    h2->held++;
    stream->holds++; /* the handler may release what it held */
    stream->closed = true;
    bm_h2_wire_forget(h2, stream->id);
    if (stream->shown && h2->handlers->on_close)
        h2->handlers->on_close(stream, stream->reset ? stream->reset_code : code, h2->arg);
    bm_h2_stream_release(stream);
}

void bm_h2_stream_end_in(struct bm_h2_stream *stream)
{
    struct bm_h2 *h2 = stream->h2;
    stream->ended_in = true;
    if (stream->shown && !stream->reset && h2->handlers->on_end)
        h2->handlers->on_end(stream, h2->arg);
}

void bm_h2_stream_end_out(struct bm_h2_stream *stream)
{
    stream->ended_out = true;
    stream->source = NULL;
    if (stream->stopped && !stream->ended_in)
        bm_h2_stream_reset(stream, BM_H2_NO_ERROR);
}

ssize_t bm_h2_stream_read(struct bm_h2_stream *stream, uint8_t *buf, size_t cap, bool *ret_end)
{
    struct bm_h2 *h2 = stream->h2;
    if (stream->reset || !stream->source)
        return -EAGAIN;
    *ret_end = false;
    h2->sourcing = true;
    ssize_t n = stream->source(stream, buf, cap, ret_end, stream->arg);
    h2->sourcing = false;
    if (n < 0)
        return -EIO;
    bm_assert((size_t)n <= cap);
    if (n > 0 || *ret_end)
        return n;
    stream->paused = true;
    h2->again |= stream->again;
    return -EAGAIN;
}

void bm_h2_streams_resume(struct bm_h2 *h2)
{
    h2->again = false;
    for (struct bm_list *node = h2->streams.next; node != &h2->streams; node = node->next) {
        struct bm_h2_stream *stream = bm_list_entry(node, struct bm_h2_stream, node);
        if (stream->again) {
            stream->again = false;
            bm_h2_stream_resume(stream);
        }
    }
}

void bm_h2_stream_resume(struct bm_h2_stream *stream)
{
    struct bm_h2 *h2 = stream->h2;
    if (stream->closed || !bm_h2_usable(h2))
        return;
    if (h2->sourcing) {
        stream->again = true; /* nghttp2 puts it aside only when the source has returned */
        h2->again |= stream->paused;
    } else if (stream->paused) {
        stream->paused = false;
        stream->progress_ns = h2->now_ns;
        bm_h2_wire_resume(h2, stream->id);
    }
}

void bm_h2_stream_consumed(struct bm_h2_stream *stream, size_t len)
{
    bm_assert(len <= stream->unconsumed);
    stream->unconsumed -= (uint32_t)len;
    bm_h2_wire_consume(stream->h2, stream->id, len);
}

int bm_h2_stream_window(struct bm_h2_stream *stream, uint32_t len)
{
    struct bm_h2 *h2 = stream->h2;
    if (len > BM_H2_WINDOW_CONNECTION)
        return -EINVAL;
    if (stream->closed || stream->reset || !bm_h2_usable(h2))
        return -EPIPE;
    if (h2->server || stream->sent)
        bm_h2_wire_raise(h2, stream->id, len);
    else
        stream->window = len;
    return bm_h2_callable(h2) ? 0 : -ENOMEM;
}

void bm_h2_stream_reset(struct bm_h2_stream *stream, uint32_t code)
{
    if (stream->closed || stream->reset || !bm_h2_usable(stream->h2))
        return;
    stream->reset = true;
    stream->reset_code = code;
    bm_h2_wire_reset(stream->h2, stream->id, code);
}

void bm_h2_stream_stop(struct bm_h2_stream *stream)
{
    if (stream->closed || !stream->h2->server)
        return;
    stream->stopped = true;
    if (stream->ended_out && !stream->ended_in)
        bm_h2_stream_reset(stream, BM_H2_NO_ERROR);
}

void bm_h2_stream_hold(struct bm_h2_stream *stream)
{
    stream->holds++;
}

struct bm_h2_stream *bm_h2_stream_release(struct bm_h2_stream *stream)
{
    struct bm_h2 *h2 = stream->h2;
    bm_assert(stream->holds > 0);
    stream->holds--;
    if (!stream->closed || stream->holds > 0)
        return NULL;
    h2->held--;
    bm_h2_wire_consume(h2, stream->id, stream->unconsumed);
    return bm_h2_stream_free(stream);
}

uint32_t bm_h2_stream_id(const struct bm_h2_stream *stream)
{
    return (uint32_t)stream->id;
}

struct bm_h2 *bm_h2_stream_connection(const struct bm_h2_stream *stream)
{
    return stream->h2;
}

void bm_h2_stream_set_arg(struct bm_h2_stream *stream, void *arg)
{
    stream->arg = arg;
}

void *bm_h2_stream_arg(const struct bm_h2_stream *stream)
{
    return stream->arg;
}

bool bm_h2_stream_closed(const struct bm_h2_stream *stream)
{
    return stream->closed;
}

bool bm_h2_stream_ended_in(const struct bm_h2_stream *stream)
{
    return stream->ended_in;
}

bool bm_h2_stream_ended_out(const struct bm_h2_stream *stream)
{
    return stream->ended_out;
}

uint64_t bm_h2_stream_blocked_since_ns(const struct bm_h2_stream *stream)
{
    return stream->source && !stream->paused && !stream->closed ? stream->progress_ns : UINT64_MAX;
}
