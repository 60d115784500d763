/* A message: metadata (a kv map), a codec number, a body of opaque bytes, and attachments (file
 * descriptors and fresh channels). It arrives whole or not at all.
 *
 * Ownership. A message has one owner. Sending takes a `beam_message **`: on success the pointer is
 * NULL afterwards, on failure the message is still the caller's. A callback *borrows* its message
 * until it returns; beam_message_keep() makes it the caller's own.
 *
 * Building cannot fail line by line: the first error (no memory, key twice, over a limit) sticks, as
 * with ferror(3), and comes out of the call that sends the message. */
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

enum beam_codec_number { /* docs/spec/session.md M1 */
                         BEAM_CODEC_KV = 0,
                         BEAM_CODEC_JSON = 1,
                         BEAM_CODEC_MSGPACK = 2,
                         BEAM_CODEC_XML = 3,
                         BEAM_CODEC_PROTOBUF = 4,
                         BEAM_CODEC_APPLICATION = 65536, /* from here on, the application's own */
};

#define BEAM_METADATA_LEN_MAX 16384 /* docs/spec/session.md M8 */
#define BEAM_METADATA_KEYS_MAX 64
#define BEAM_MESSAGE_FDS_MAX 16
#define BEAM_MESSAGE_CHANNELS_MAX 64

/* An empty message. Never NULL: without memory it is a static one that carries -ENOMEM to whoever
 * sends it. On a reactor it comes from that reactor's pool, elsewhere from the allocator. */
BEAM_EXPORT beam_message *beam_message_new(void);

/* Frees a message that was not sent: closes the fds and resets the channels nobody took, returns the
 * peer's credit. Any thread; NULL is fine; returns NULL. */
BEAM_EXPORT beam_message *beam_message_free(beam_message *message);
static inline void beam_message_freep(beam_message **message)
{
    *message = beam_message_free(*message);
}

/* In a callback: makes the borrowed message the caller's own, to be freed or sent by it. The memory
 * and the sender's credit stay in use until then. Returns the message to use from now on, or NULL
 * without memory (the borrowed one stays readable until the callback returns). */
BEAM_EXPORT beam_message *beam_message_keep(const beam_message *message);

/* The sticky error of a message under construction: 0 or -errno. */
BEAM_EXPORT int beam_message_error(const beam_message *message);

/* Metadata: one value per key, keys in any order, UTF-8. A key twice: -EEXIST sticks; more than 64
 * keys or 16 384 bytes: -EMSGSIZE. Strings and bytes are copied. */
BEAM_EXPORT void beam_message_put_nil(beam_message *message, const char *key);
BEAM_EXPORT void beam_message_put_bool(beam_message *message, const char *key, bool value);
BEAM_EXPORT void beam_message_put_int(beam_message *message, const char *key, int64_t value);
BEAM_EXPORT void beam_message_put_uint(beam_message *message, const char *key, uint64_t value);
BEAM_EXPORT void beam_message_put_float(beam_message *message, const char *key, double value);
BEAM_EXPORT void beam_message_put_str(beam_message *message, const char *key, const char *value);
BEAM_EXPORT void beam_message_put_strn(beam_message *message, const char *key, const char *value,
                                       size_t len);
BEAM_EXPORT void beam_message_put_bytes(beam_message *message, const char *key, const void *value,
                                        size_t len);
/* Any value, whole maps and lists included, as a reader returned it; key.ptr and value are borrowed. */
BEAM_EXPORT void beam_message_put(beam_message *message, beam_str key,
                                  const struct beam_kv_value *value);
BEAM_EXPORT void beam_message_putf(beam_message *message, const char *key, const char *format, ...)
    __attribute__((__format__(__printf__, 3, 4)));

/* Metadata by key. The views end with the message. A message under construction is sealed by looking
 * at it (no more puts). -ENOENT: no such key; -EINVAL: another type; -ERANGE: a number that is not
 * exactly one of the type wanted (int and float convert when exact). */
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

/* The whole metadata as a kv document; NULL and 0 when there is none. Of a message under
 * construction: seals it (no more puts: -EINVAL sticks). */
BEAM_EXPORT const void *beam_message_metadata(const beam_message *message, size_t *ret_len);

/* The body. set copies; reserve returns len bytes of the message's own to write into (NULL without
 * memory: the error sticks). Setting it again replaces it. */
BEAM_EXPORT void beam_message_set_body(beam_message *message, const void *body, size_t len);
BEAM_EXPORT void *beam_message_reserve_body(beam_message *message, size_t len);
BEAM_EXPORT const void *beam_message_body(const beam_message *message, size_t *ret_len);
BEAM_EXPORT void beam_message_set_codec(beam_message *message, uint32_t codec);
BEAM_EXPORT uint32_t beam_message_codec(const beam_message *message);

/* File descriptors. attach moves: *fd is -1 afterwards (also when the error sticks: it is closed with
 * the message). take moves out: -1 without such an fd. Bodies refer to them by index, 0 first.
 * A received fd is close-on-exec; its flags and offset are shared with the sender (unix(7)). */
BEAM_EXPORT void beam_message_attach_fd(beam_message *message, int *fd);
BEAM_EXPORT int beam_message_take_fd(const beam_message *message, unsigned index);
BEAM_EXPORT int beam_message_peek_fd(const beam_message *message, unsigned index); /* borrowed */
BEAM_EXPORT unsigned beam_message_fd_count(const beam_message *message);

/* Fresh channels. attach returns our end, usable at once: what is sent on it waits until the message
 * has left. It ends with CANCELLED if the message is freed unsent. NULL: the error sticks (over 64,
 * no memory, off a reactor). take gives the receiver the other end, by index over channels and
 * streams alike; NULL without such a one, or when it is of the other kind. */
BEAM_EXPORT beam_channel *beam_message_attach_channel(beam_message *message);
BEAM_EXPORT beam_stream *beam_message_attach_stream(beam_message *message);
BEAM_EXPORT beam_channel *beam_message_take_channel(const beam_message *message, unsigned index);
BEAM_EXPORT beam_stream *beam_message_take_stream(const beam_message *message, unsigned index);
BEAM_EXPORT unsigned beam_message_channel_count(const beam_message *message);

#ifdef __cplusplus
}
#endif

#endif
