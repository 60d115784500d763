/* Base64 with padding (RFC 4648 section 4). */
#ifndef BM_BASE64_H
#define BM_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t bm_base64_encoded_len(size_t len)
{
    return (len + 2) / 3 * 4;
}

void bm_base64_encode(char *to, const uint8_t *bytes, size_t len);

/* Whether text is the one encoding of some bytes: padded, unused bits zero, nothing else in it; and how many
 * bytes they are. */
bool bm_base64_check(const uint8_t *text, size_t len, size_t *ret_len);

/* text was checked. */
void bm_base64_decode(uint8_t *to, const uint8_t *text, size_t len);

#endif
