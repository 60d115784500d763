/* A buffer: bytes that grow up to a limit. What the writers of documents and of other formats write
 * into when nobody knows beforehand how long it will be.
 *
 *     beam_buffer out;
 *     beam_buffer_init(&out, 1 << 20);
 *     beam_buffer_add(&out, "hello ", 6);
 *     beam_buffer_add(&out, "world", 5);
 *     if (out.error) ...                                // the first error of all of the above
 *     write(fd, out.ptr, out.len);
 *     beam_buffer_deinit(&out);
 *
 * Errors stick, like ferror(3): after the first one nothing is added any more, and each call returns
 * it. One thread at a time. */
#ifndef BEAM_BUFFER_H
#define BEAM_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include <beam/error.h>
#include <beam/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ptr[0..len) are the bytes, valid until the next call that adds; ptr is NULL before the first. All
 * fields may be read, none is to be written. */
typedef struct beam_buffer {
    unsigned char *ptr;
    size_t len;
    size_t cap;
    size_t len_max; /* its limit */
    void *account;  /* who pays, the library's own; NULL: nobody in particular */
    int error;      /* the first one; 0: none */
} beam_buffer;

/* An empty buffer that takes at most len_max bytes. Takes no memory yet. */
BEAM_EXPORT void beam_buffer_init(beam_buffer *buffer, size_t len_max);

/* Gives the memory back; the buffer is then as good as zeroed. Accepts a zeroed one. */
BEAM_EXPORT void beam_buffer_deinit(beam_buffer *buffer);

/* Forgets the bytes and the error, and keeps the memory. */
BEAM_EXPORT void beam_buffer_clear(beam_buffer *buffer);

/* Adds a copy of bytes[0..len), which may be NULL when len is 0 and may not lie in the buffer.
 * Returns 0; -BEAM_ECODEC_TOO_LARGE: over the limit; -ENOMEM; or the error that stuck before. On
 * failure nothing of it is added. */
BEAM_EXPORT int beam_buffer_add(beam_buffer *buffer, const void *bytes, size_t len);

/* Makes room for len more bytes, for callers that write in place: *ret_room is where they go, and
 * beam_buffer_advance() makes as many of them part of the buffer as were written. Errors as for
 * beam_buffer_add. */
BEAM_EXPORT int beam_buffer_reserve(beam_buffer *buffer, size_t len, unsigned char **ret_room);

/* len is at most what was last reserved; more is an error of the caller and ends the program. */
BEAM_EXPORT void beam_buffer_advance(beam_buffer *buffer, size_t len);

/* Makes error (below 0) the sticky one, unless there is one. Returns the one that sticks. */
BEAM_EXPORT int beam_buffer_fail(beam_buffer *buffer, int error);

#ifdef __cplusplus
}
#endif

#endif
