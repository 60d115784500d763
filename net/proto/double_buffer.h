/* Bytes that wait to be sent: one buffer is being sent and stays where it is, the other is being filled.
 * Both together hold at most `max` bytes that have not left. */
#ifndef BM_DOUBLE_BUFFER_H
#define BM_DOUBLE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

struct bm_double_buffer {
    struct bm_double_buffer_half {
        uint8_t *data;
        size_t len, cap;
    } front, back;
    size_t sent; /* of the front */
    size_t max;
    struct bm_account *account;
};

void bm_double_buffer_init(struct bm_double_buffer *buffer, size_t max, struct bm_account *account);
void bm_double_buffer_deinit(struct bm_double_buffer *buffer);

/* How much may be appended. */
size_t bm_double_buffer_room(const struct bm_double_buffer *buffer);
/* -ENOBUFS: over that; -ENOMEM. All or nothing. */
int bm_double_buffer_append(struct bm_double_buffer *buffer, const void *data, size_t len);

/* What is to be sent next; stays in place until it is acknowledged. NULL and 0: nothing. */
const uint8_t *bm_double_buffer_output(struct bm_double_buffer *buffer, size_t *ret_len);
/* The first n bytes of that have left. */
void bm_double_buffer_ack(struct bm_double_buffer *buffer, size_t n);

/* Gives back the memory of halves that hold nothing. */
void bm_double_buffer_trim(struct bm_double_buffer *buffer);

#endif
