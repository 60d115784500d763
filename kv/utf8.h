/* UTF-8 as of RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef BM_UTF8_H
#define BM_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* A word without these is eight characters of ASCII. */
#define BM_UTF8_HIGH_BITS UINT64_C(0x8080808080808080)

#define BM_UTF8_SHORT 64 /* from here on the loop that can stop early is as fast */

/* Right for all bytes; made for those of which not all are ASCII. */
bool bm_utf8_sequences_valid(const uint8_t *p, size_t len);

static inline bool bm_utf8_is_ascii(const uint8_t *p, size_t len)
{
    uint64_t all = 0;
    if (len >= 8) {
        for (size_t i = 0; i < len - 8; i += 8)
            all |= bm_get_u64(p + i);
        all |= bm_get_u64(p + len - 8); /* overlaps the one before */
    } else if (len >= 4) {
        all = bm_get_u32(p) | bm_get_u32(p + len - 4);
    } else if (len > 0) {
        all = p[0] | p[len / 2] | p[len - 1];
    }
    return (all & BM_UTF8_HIGH_BITS) == 0;
}

/* ptr may be NULL when len is 0. Reads nothing outside ptr[0..len). */
static inline bool bm_utf8_valid(const void *ptr, size_t len)
{
    const uint8_t *p = (const uint8_t *)ptr;
    /* Most keys and strings are short; long ones find out on the way. */
    return (len <= BM_UTF8_SHORT && bm_utf8_is_ascii(p, len)) || bm_utf8_sequences_valid(p, len);
}

/* The length of a text that was cut to len bytes, without the character at its end if the cut went
 * through it: half a character is not UTF-8, and the whole text would be refused for it. */
static inline size_t bm_utf8_whole(const char *text, size_t len)
{
    size_t start = len;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0)
        return len;
    unsigned char lead = (unsigned char)text[--start];
    size_t wanted = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return len - start < wanted ? start : len;
}

#endif
