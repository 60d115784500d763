/* What an end says besides its code: a kv map, with a text for people under "message".
 * docs/spec/session.md C5. Any thread. */
#ifndef BM_DETAILS_H
#define BM_DETAILS_H

#include <stddef.h>
#include <stdint.h>

struct bm_pool;

/* Writes {"message": text} into out (BM_DETAILS_LEN_MAX bytes); its length, 0 for no text. */
uint32_t bm_details_write(const char *text, void *out);

/* A map with a text under "message", in place of what it may have there, in a block of the pool. text
 * NULL or empty: just the map. NULL: it is no valid map, or over F3's limit, or there is no memory. */
uint8_t *bm_details_make(struct bm_pool *pool, const void *map, size_t len, const char *text,
                         uint32_t *ret_len, uint32_t *ret_cap);

#endif
