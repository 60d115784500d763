/* Channels and streams: the one conversation primitive, and the same in byte mode.
 *
 * A channel is full duplex, ordered in each direction, ended in each direction by its sender, and
 * flow controlled by credit. It ends with a status: OK, or one of the codes. Losing the session ends
 * it too, and never with OK. */
#ifndef BEAM_CHANNEL_H
#define BEAM_CHANNEL_H

#include <sys/types.h>

#include <beam/message.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a channel or request ended. message and details are views for the callback they come in. */
struct beam_status {
    enum beam_code code;
    beam_str message;    /* for people; may be empty */
    const void *details; /* a kv map, or NULL */
    size_t details_len;
};

/* Each slot may be NULL. All run on the channel's reactor, never from inside a call on the channel. */
struct beam_channel_handlers {
    /* One message of the peer; borrowed until it returns. NULL slot: messages are dropped. */
    void (*on_message)(beam_channel *channel, const beam_message *message, void *arg);
    /* A send that said -EAGAIN is worth another try. Once per refusal. */
    void (*on_writable)(beam_channel *channel, void *arg);
    /* The peer's direction has ended: code OK, or an error. Exactly once, after the last message.
     * With an error or after a reset both directions are over. */
    void (*on_end)(beam_channel *channel, const struct beam_status *status, void *arg);
};

/* Handlers are borrowed for the channel's life (use a static const). */
BEAM_EXPORT void beam_channel_set_handlers(beam_channel *channel,
                                           const struct beam_channel_handlers *handlers, void *arg);

/* Sends. 0: taken, *message is NULL. -EAGAIN: no credit, queue full, no fd credit, or ring full;
 * nothing taken, on_writable follows. -EPIPE: this direction has ended, or the channel has.
 * -EPERM: the peer takes no fds. -EMSGSIZE: over the peer's limit. Or the message's sticky error. */
BEAM_EXPORT int beam_channel_send(beam_channel *channel, beam_message **message);

/* Sends, and ends our direction with OK behind it. */
BEAM_EXPORT int beam_channel_send_last(beam_channel *channel, beam_message **message);

/* Sends a message that is a body alone, copied. Up to 40 bytes travel inside the slot of a ring.
 * Errors as beam_channel_send. */
BEAM_EXPORT int beam_channel_send_body(beam_channel *channel, const void *body, size_t len);

/* Ends our direction with OK. Cannot fail; no effect when it has ended. */
BEAM_EXPORT void beam_channel_end(beam_channel *channel);

/* Ends both directions now, with a code and a text for the peer (may be NULL, copied, cut at 255
 * bytes). What was queued and not yet sent is dropped. on_end is not called for our own reset. */
BEAM_EXPORT void beam_channel_reset(beam_channel *channel, enum beam_code code, const char *text);

/* Gives the handle back: resets the channel with CANCELLED unless both directions have ended.
 * No callback follows. Accepts NULL, returns NULL. Every channel that was attached, taken or
 * opened is freed once; a request's channel belongs to its request. */
BEAM_EXPORT beam_channel *beam_channel_free(beam_channel *channel);

/* Bytes that may still be sent before -EAGAIN; 0 or less: none. */
BEAM_EXPORT int64_t beam_channel_credit(const beam_channel *channel);

/* Streams. write takes as much as credit and queue allow: returns the count (> 0), or an error as
 * above (-EAGAIN: on_writable follows). Data is copied. */
struct beam_stream_handlers {
    /* Bytes of the peer, borrowed. Credit returns when it returns, unless it says otherwise with
     * beam_stream_hold. */
    void (*on_data)(beam_stream *stream, const void *data, size_t len, void *arg);
    void (*on_writable)(beam_stream *stream, void *arg);
    void (*on_end)(beam_stream *stream, const struct beam_status *status, void *arg);
};
BEAM_EXPORT void beam_stream_set_handlers(beam_stream *stream,
                                          const struct beam_stream_handlers *handlers, void *arg);
BEAM_EXPORT ssize_t beam_stream_write(beam_stream *stream, const void *data, size_t len);

/* Within on_data: the bytes just delivered are not done with; their credit is withheld until
 * beam_stream_release(len). The bytes themselves must be copied. For pacing a fast sender. */
BEAM_EXPORT void beam_stream_hold(beam_stream *stream);
BEAM_EXPORT void beam_stream_release(beam_stream *stream, size_t len);

BEAM_EXPORT void beam_stream_end(beam_stream *stream);
BEAM_EXPORT void beam_stream_reset(beam_stream *stream, enum beam_code code, const char *text);
BEAM_EXPORT beam_stream *beam_stream_free(beam_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
