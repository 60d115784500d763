/* Channels, the one way to converse, and streams, which are channels of bytes instead of messages.
 *
 * A channel is full duplex. Each direction keeps its order, is ended by its sender alone, and is
 * limited by *credit*: how many bytes the receiver still takes. A send without credit says -EAGAIN
 * and takes nothing; on_writable tells when to go on. So a slow reader stops its sender, and nobody
 * else.
 *
 * Where they come from. Attached to a message (beam_message_attach_channel at one end,
 * beam_message_take_channel at the other), opened towards a service by its name (beam_open), or
 * found in a request (beam_request_channel).
 *
 * How they end. With a status: OK, once each side has ended its direction; or an error, in both
 * directions at once, when either side resets the channel or the session is lost. A loss is never
 * told as OK.
 *
 * Everything here is called on the channel's reactor, and all handlers run there, from its loop. */
#ifndef BEAM_CHANNEL_H
#define BEAM_CHANNEL_H

#include <sys/types.h>

#include <beam/message.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a channel or a request ended. message and details are views that end with the callback. */
struct beam_status {
    enum beam_code code;
    beam_str message;    /* for people; may be empty */
    const void *details; /* what the peer said besides: a kv document, a map; or NULL */
    size_t details_len;
};

/* --- channels of messages --- */

/* What a channel tells. Each slot may be NULL. A handler may free the channel. */
struct beam_channel_handlers {
    /* A message of the peer, borrowed until this returns. Slot NULL: messages are dropped. */
    void (*on_message)(beam_channel *channel, const beam_message *message, void *arg);
    /* A send has said -EAGAIN, and now there is room. Once for all refusals since the last time. */
    void (*on_writable)(beam_channel *channel, void *arg);
    /* The peer will send no more. Behind its last message, exactly once, unless the channel was
     * freed or reset here before. Code OK: its direction has ended, ours goes on. Any other code:
     * both are over. */
    void (*on_end)(beam_channel *channel, const struct beam_status *status, void *arg);
};

/* Sets the handlers, which are borrowed for the life of the channel (let them be static const), and
 * their argument. To be done before the function that took, attached or was given the channel
 * returns to the loop, as nothing is told before that; messages that find no handler then are
 * dropped. */
BEAM_EXPORT void beam_channel_set_handlers(beam_channel *channel,
                                           const struct beam_channel_handlers *handlers, void *arg);

/* Sends a message. 0: it is taken, *message is NULL, and it will arrive unless the channel breaks.
 * Otherwise nothing is taken.
 * -EAGAIN: no room now, be it credit, the queue of the session, or what the peer takes of fds and
 * channels; on_writable follows. (Until the peer has told its limits 64 KiB may wait, and no fds.)
 * -EPIPE: our direction has ended, or the whole channel. -EMSGSIZE: longer than the peer ever
 * takes, or with more fds or channels. -EPERM: fds, and the peer takes none. -EINVAL: the message is
 * only borrowed (beam_message_keep), or came with channels that nobody took. -EXDEV: a channel was
 * attached on another reactor. -ENOMEM. Or the sticky error of the message. */
BEAM_EXPORT int beam_channel_send(beam_channel *channel, beam_message **message);

/* Sends a message as the last one: our direction ends behind it, with OK. Errors as
 * beam_channel_send; nothing has ended then. */
BEAM_EXPORT int beam_channel_send_last(beam_channel *channel, beam_message **message);

/* Sends a message that is a body and nothing else: len bytes, copied. This is the fast way for
 * small ones; between reactors up to 40 bytes need no message at all. Errors as
 * beam_channel_send. */
BEAM_EXPORT int beam_channel_send_body(beam_channel *channel, const void *body, size_t len);

/* Ends our direction with OK, behind what was sent. No effect if it has ended. */
BEAM_EXPORT void beam_channel_end(beam_channel *channel);

/* Ends both directions now, with a code (not BEAM_OK) and a text for the peer (may be NULL; copied,
 * cut at 255 bytes). What is queued and has not been sent is dropped. on_end is not called. The
 * handle is still to be freed. */
BEAM_EXPORT void beam_channel_reset(beam_channel *channel, enum beam_code code, const char *text);

/* Gives the handle back; no handler runs any more. A channel of which a direction is still open is
 * reset with CANCELLED. Every channel that was attached, taken or opened is freed once; that of a
 * request belongs to its request, and is left alone here. Accepts NULL, returns NULL. */
BEAM_EXPORT beam_channel *beam_channel_free(beam_channel *channel);

/* The credit left for sending, in bytes; a message may start while it is above 0, and costs its
 * length plus 64 (docs/spec/session.md W2, W3). */
BEAM_EXPORT int64_t beam_channel_credit(const beam_channel *channel);

/* --- streams: channels of bytes --- */

/* As for channels. Bytes come in pieces whose boundaries mean nothing. */
struct beam_stream_handlers {
    /* len > 0 bytes of the peer, borrowed until this returns. Then their credit goes back to the
     * peer, unless beam_stream_hold was called. Slot NULL: bytes are dropped. */
    void (*on_data)(beam_stream *stream, const void *data, size_t len, void *arg);
    void (*on_writable)(beam_stream *stream, void *arg);
    void (*on_end)(beam_stream *stream, const struct beam_status *status, void *arg);
};

/* As beam_channel_set_handlers. */
BEAM_EXPORT void beam_stream_set_handlers(beam_stream *stream,
                                          const struct beam_stream_handlers *handlers, void *arg);

/* Sends bytes, copied, as many as there is room for now: returns how many (less than len when
 * credit or queue ran out on the way), or an error as of beam_channel_send if it is none. */
BEAM_EXPORT ssize_t beam_stream_write(beam_stream *stream, const void *data, size_t len);

/* Pacing a fast sender. In on_data: the credit of the bytes just delivered is withheld until
 * beam_stream_release gives it back, all at once or in parts, len bytes each time. The bytes
 * themselves are gone when on_data returns: whoever needs them copies them. */
BEAM_EXPORT void beam_stream_hold(beam_stream *stream);
BEAM_EXPORT void beam_stream_release(beam_stream *stream, size_t len);

/* Asks for a connection's stream of its own for a long transfer, where a carrier has such (HTTP/2): its bytes
 * then neither wait for the session's others nor hold them up. To be called where the stream was attached, before
 * its message is sent; no effect at any other time and on other carriers, and none but on speed. Costs
 * a round trip before the first byte. Descriptors, but for short files, get one by themselves. */
BEAM_EXPORT void beam_stream_dedicate(beam_stream *stream);

/* A stream as a file descriptor, for whoever wants read(2) and write(2): a connected stream socket, blocking
 * and close-on-exec, whose bytes the library moves from now on, both ways. An end is an end of file, and
 * shutdown(2) with SHUT_WR is our end; a reset, or the loss of the session, reads as ECONNRESET and never
 * as an end of file. A reader that stops stops the peer. Takes the stream on success, and the
 * descriptor is the caller's to close; that ends what is still open. On the stream's reactor; never
 * wait on the descriptor there.
 * -EPIPE: the channel has ended. -EMFILE and what else socket(2) says. -EADDRNOTAVAIL: there is no
 * loopback interface, which it goes over. -ENOMEM. */
BEAM_EXPORT int beam_stream_to_fd(beam_stream **stream, int *ret_fd);

/* As beam_channel_end, beam_channel_reset and beam_channel_free. */
BEAM_EXPORT void beam_stream_end(beam_stream *stream);
BEAM_EXPORT void beam_stream_reset(beam_stream *stream, enum beam_code code, const char *text);
BEAM_EXPORT beam_stream *beam_stream_free(beam_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
