/* A message: metadata (a map of keys and values), a codec number, a body of opaque bytes, and
 * attachments, which are file descriptors and fresh channels. It arrives whole or not at all.
 *
 *     beam_message *msg = beam_message_new();               // never NULL
 *     beam_message_put_str(msg, "path", "etc/hosts");       // no line of this can fail ...
 *     beam_message_attach_fd(msg, &fd);
 *     r = beam_call(session, "save", &msg, on_reply, NULL, NULL);    // ... until here
 *     beam_message_free(msg);                               // NULL if it was sent, else still ours
 *
 * Ownership. A message has one owner. Whoever sends it passes the address of its pointer: on
 * success the pointer is NULL afterwards, on failure the message is still the caller's. A callback
 * *borrows* the message it is given until it returns: it may read it and take attachments out of
 * it, and beam_message_keep makes it the callback's own.
 *
 * Errors. While a message is built its first error sticks, as with ferror(3): what follows has no
 * effect, and the call that sends the message returns that error. beam_message_error tells it
 * earlier.
 *
 * Credit. A received message occupies the credit of its sender until it is freed or sent on, or, if
 * it was only borrowed, until the callback returns. Keeping messages is how a slow receiver slows
 * its sender.
 *
 * Threads. A message may be built on any thread, by one at a time. A received one is used on the
 * reactor of its channel; what beam_call_wait returns, on any thread. */
#ifndef BEAM_MESSAGE_H
#define BEAM_MESSAGE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <beam/error.h>
#include <beam/export.h>
#include <beam/kv.h>
#include <beam/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct beam_message beam_message;
typedef struct beam_channel beam_channel;
typedef struct beam_stream beam_stream;

/* What the body is, for the two ends to agree upon; the library does not look (docs/spec/session.md
 * M1), unless a service asks for it (beam_serve_with). */
enum beam_codec_number {
    BEAM_CODEC_KV = 0, /* or nothing in particular: the default */
    BEAM_CODEC_JSON = 1,
    BEAM_CODEC_MSGPACK = 2,
    BEAM_CODEC_XML = 3,
    BEAM_CODEC_PROTOBUF = 4,
    BEAM_CODEC_APPLICATION = 65536, /* from here on, the application's own */
};

/* Limits of one message; what is over them is -EMSGSIZE. */
#define BEAM_METADATA_LEN_MAX 16384  /* bytes of the map as it travels; docs/spec/session.md M8 */
#define BEAM_METADATA_KEYS_MAX 64    /* M8 */
#define BEAM_MESSAGE_FDS_MAX 16      /* ours; docs/spec/session.md section 9 */
#define BEAM_MESSAGE_CHANNELS_MAX 64 /* M5 */

/* --- life --- */

/* An empty message, the caller's. Never NULL: without memory it is a static one whose sticky error
 * is -ENOMEM. Any thread; on a reactor it comes from that reactor's pool. */
BEAM_EXPORT beam_message *beam_message_new(void);

/* Frees a message that was not sent, with all that was not taken out of it: fds are closed,
 * channels end with CANCELLED, and the sender of a received one gets its credit back. Any thread.
 * Accepts NULL, returns NULL. */
BEAM_EXPORT beam_message *beam_message_free(beam_message *message);
static inline void beam_message_freep(beam_message **message)
{
    *message = beam_message_free(*message);
}

/* In a callback: makes the borrowed message the caller's own, to be freed or sent by it. Returns
 * the message to use from now on, which may be another one (then views into the old one end with
 * the callback), or NULL without memory. */
BEAM_EXPORT beam_message *beam_message_keep(const beam_message *message);

/* The sticky error: 0, -errno or -BEAM_EKV_…. */
BEAM_EXPORT int beam_message_error(const beam_message *message);

/* --- metadata --- */

/* Puts a value under a key. Keys are UTF-8 and come in any order; everything is copied. No effect on
 * a borrowed message. These errors stick:
 * -EEXIST: a key twice (found when the metadata is next looked at or sent). -EMSGSIZE: over
 * BEAM_METADATA_KEYS_MAX or BEAM_METADATA_LEN_MAX. -BEAM_EKV_UTF8: a key or text that is not.
 * -EINVAL: key or value is NULL, or the metadata has been looked at already, which seals it.
 * -ENOMEM. */
BEAM_EXPORT void beam_message_put_nil(beam_message *message, const char *key);
BEAM_EXPORT void beam_message_put_bool(beam_message *message, const char *key, bool value);
BEAM_EXPORT void beam_message_put_int(beam_message *message, const char *key, int64_t value);
BEAM_EXPORT void beam_message_put_uint(beam_message *message, const char *key, uint64_t value);
BEAM_EXPORT void beam_message_put_float(beam_message *message, const char *key, double value);

/* A text that ends with NUL; one of len bytes; bytes that are no text. */
BEAM_EXPORT void beam_message_put_str(beam_message *message, const char *key, const char *value);
BEAM_EXPORT void beam_message_put_strn(beam_message *message, const char *key, const char *value,
                                       size_t len);
BEAM_EXPORT void beam_message_put_bytes(beam_message *message, const char *key, const void *value,
                                        size_t len);

/* A text made by printf(3), of at most BEAM_METADATA_LEN_MAX bytes. */
BEAM_EXPORT void beam_message_putf(beam_message *message, const char *key, const char *format, ...)
    __attribute__((__format__(__printf__, 3, 4)));

/* Any value as a reader returned it, whole maps and lists included: these are checked on the way
 * in, and -BEAM_EKV_… sticks if they are not valid. key and value are borrowed for the call. */
BEAM_EXPORT void beam_message_put(beam_message *message, beam_str key,
                                  const struct beam_kv_value *value);

/* The value under a key, in the C type wanted; int, uint and float convert where nothing is lost.
 * Texts and bytes are views that end with the message. Looking seals a message under construction:
 * no more puts. -ENOENT: no such key. -EINVAL: a value of another kind. -ERANGE: a number that is
 * not exactly one of the type wanted. */
BEAM_EXPORT int beam_message_get(const beam_message *message, const char *key,
                                 struct beam_kv_value *ret_value);
BEAM_EXPORT int beam_message_get_str(const beam_message *message, const char *key,
                                     beam_str *ret_str);
BEAM_EXPORT int beam_message_get_int(const beam_message *message, const char *key,
                                     int64_t *ret_int);
BEAM_EXPORT int beam_message_get_uint(const beam_message *message, const char *key,
                                      uint64_t *ret_uint);
BEAM_EXPORT int beam_message_get_bytes(const beam_message *message, const char *key,
                                       beam_bytes *ret_bytes);
BEAM_EXPORT int beam_message_get_float(const beam_message *message, const char *key,
                                       double *ret_float);
BEAM_EXPORT int beam_message_get_bool(const beam_message *message, const char *key, bool *ret_bool);

/* The whole metadata: a checked document (<beam/kv.h>) whose value is a map, as a view that ends
 * with the message; NULL and length 0 when there is none, or none that is sound
 * (beam_message_error). Seals a message under construction. ret_len may be NULL. */
BEAM_EXPORT const void *beam_message_metadata(const beam_message *message, size_t *ret_len);

/* --- body --- */

/* Gives the message a body of len bytes, copied; a body it had is replaced. No effect on a borrowed
 * message. These errors stick: -EMSGSIZE: over 2^31 - 1 bytes (the peer's own limit is found when it
 * is sent). -ENOMEM. */
BEAM_EXPORT void beam_message_set_body(beam_message *message, const void *body, size_t len);

/* The same without the copy: returns the len bytes of the new body, to be written before the
 * message is sent; their content is undefined until then. NULL when an error sticks. */
BEAM_EXPORT void *beam_message_reserve_body(beam_message *message, size_t len);

/* The body, as a view that ends with the message; NULL when it is empty. ret_len may be NULL. */
BEAM_EXPORT const void *beam_message_body(const beam_message *message, size_t *ret_len);

/* The number that says what the body is: see enum beam_codec_number. Setting it cannot fail. */
BEAM_EXPORT void beam_message_set_codec(beam_message *message, uint32_t codec);
BEAM_EXPORT uint32_t beam_message_codec(const beam_message *message);

/* --- file descriptors ---
 *
 * A received one can be its sender's own end of the socket, which then does not end with the sender. So while a
 * session holds descriptors of its peer's that nobody has taken, a peer that answers nothing for a minute is
 * given up (docs/spec/session.md P4). */

/* Moves a descriptor into the message, which closes it unless it is sent or taken out again; *fd is
 * -1 afterwards, always. Bodies and metadata refer to it by its index, 0 first. The receiver gets a
 * descriptor of its own, close-on-exec, for the same open file: position and flags are shared
 * (unix(7), SCM_RIGHTS). These errors stick, and the descriptor is closed at once: -EMSGSIZE: over
 * BEAM_MESSAGE_FDS_MAX. -EBADF: *fd is below 0. -ENOMEM. */
BEAM_EXPORT void beam_message_attach_fd(beam_message *message, int *fd);

/* Moves a descriptor out of the message: it is the caller's to close. Out of a borrowed message
 * too. -1: there is none of this index, or it has been taken. */
BEAM_EXPORT int beam_message_take_fd(const beam_message *message, unsigned index);

/* A look at a descriptor that stays the message's; -1 as above. */
BEAM_EXPORT int beam_message_peek_fd(const beam_message *message, unsigned index);

/* How many descriptors came, or were attached; those that were taken count. */
BEAM_EXPORT unsigned beam_message_fd_count(const beam_message *message);

/* --- channels --- */

/* Adds a fresh channel to the message and returns our end of it, the caller's to free
 * (<beam/channel.h>). It may be used at once: what is sent on it waits until the message has left.
 * If the message is freed unsent the channel ends with CANCELLED. To be called on the reactor that
 * will send the message (of several embedded runtimes of one thread: the one made or turned last),
 * which is otherwise refused with -EXDEV. NULL when an error sticks: -EMSGSIZE: over
 * BEAM_MESSAGE_CHANNELS_MAX. -EPERM: not on a reactor. -ENOMEM. */
BEAM_EXPORT beam_channel *beam_message_attach_channel(beam_message *message);
BEAM_EXPORT beam_stream *beam_message_attach_stream(beam_message *message);

/* The receiver's end of an attached channel, the caller's from now on. Channels and streams are
 * counted together, 0 first. Set its handlers before the callback returns, because what has come on
 * it already is told right after that. NULL: there is none of this index, it is of the other kind,
 * or it has been taken. */
BEAM_EXPORT beam_channel *beam_message_take_channel(const beam_message *message, unsigned index);
BEAM_EXPORT beam_stream *beam_message_take_stream(const beam_message *message, unsigned index);

/* How many channels and streams came, or were attached; those that were taken count. */
BEAM_EXPORT unsigned beam_message_channel_count(const beam_message *message);

#ifdef __cplusplus
}
#endif

#endif
