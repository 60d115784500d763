/* The output of an HTTP/2 connection: one buffer of BM_H2_OUTPUT_LEN bytes, which is there while it
 * is needed. What stands in it stays where it is until it is acknowledged; when all is, it begins
 * anew. */
#ifndef BM_H2_BUFFER_H
#define BM_H2_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

#define BM_H2_CHUNK_LEN_MAX (16384u + 9u + 1u) /* of nghttp2: a frame and a pad length */
#define BM_H2_LAST_LEN 17u /* for a GOAWAY of our own making there is always room */

struct bm_h2_buffer {
    struct bm_account *account;
    uint8_t *bytes; /* or NULL */
    size_t pos, len;
    uint64_t since_ns; /* of the oldest bytes that are there, or when they became none */
};

/* Zeroed but for account and since_ns it is ready. */
void bm_h2_buffer_deinit(struct bm_h2_buffer *buffer);

/* Makes sure that there is a buffer. False: no memory. */
bool bm_h2_buffer_reserve(struct bm_h2_buffer *buffer);

/* There is a buffer, and room in it for a chunk of any length. */
bool bm_h2_buffer_room(const struct bm_h2_buffer *buffer);

/* At most BM_H2_CHUNK_LEN_MAX bytes where there is room, or the last BM_H2_LAST_LEN ever, behind a
 * reserve. */
void bm_h2_buffer_put(struct bm_h2_buffer *buffer, const uint8_t *bytes, size_t len,
                      uint64_t now_ns);

static inline size_t bm_h2_buffer_len(const struct bm_h2_buffer *buffer)
{
    return buffer->len - buffer->pos;
}

void bm_h2_buffer_drop(struct bm_h2_buffer *buffer, size_t len, uint64_t now_ns);

#endif
