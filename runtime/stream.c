/* Streams: channels in byte mode. A stream is its channel; written bytes travel as messages of a
 * body alone, whose boundaries mean nothing to the receiver. Receiving is incoming.c's. */
#include <errno.h>
#include <string.h>

#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/session.h"

#define CHUNK_LEN 32768u /* ours: half a packet, so that two streams share one */

static beam_channel *channel_of(const beam_stream *stream)
{
    return (beam_channel *)stream;
}

void beam_stream_set_handlers(beam_stream *stream, const struct beam_stream_handlers *handlers,
                              void *arg)
{
    beam_channel *channel = channel_of(stream);
    channel->handlers = handlers;
    channel->arg = arg;
}

ssize_t beam_stream_write(beam_stream *stream, const void *data, size_t len)
{
    beam_channel *channel = channel_of(stream);
    const uint8_t *pos = data;
    size_t done = 0;
    while (done < len) {
        uint32_t part = len - done < CHUNK_LEN ? (uint32_t)(len - done) : CHUNK_LEN;
        int r = bm_channel_may_send(channel, part, 0);
        if (r == 0 && bm_outgoing_send_body(channel, pos + done, part)) {
            done += part;
            continue;
        }
        beam_message *message = r == 0 ? bm_message_new(channel->core) : NULL;
        if (r == 0 && (!message || bm_message_copy_body(message, pos + done, part) < 0)) {
            beam_message_free(message);
            r = -ENOMEM;
        }
        if (r < 0)
            return done > 0 ? (ssize_t)done : r;
        bm_outgoing_send(channel, message);
        done += part;
    }
    return (ssize_t)done;
}

void beam_stream_hold(beam_stream *stream)
{
    channel_of(stream)->hold_bytes = true;
}

void beam_stream_release(beam_stream *stream, size_t len)
{
    bm_channel_return_credit(channel_of(stream), (int64_t)len);
}

void beam_stream_end(beam_stream *stream)
{
    bm_channel_end(channel_of(stream), BEAM_OK, NULL);
}

void beam_stream_reset(beam_stream *stream, enum beam_code code, const char *text)
{
    beam_channel_reset(channel_of(stream), code, text);
}

beam_stream *beam_stream_free(beam_stream *stream)
{
    beam_channel_free((beam_channel *)stream);
    return NULL;
}
