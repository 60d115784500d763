/* Tells whether bytes are UTF-8. Runs of ASCII go 32 and then 8 bytes at a time, everything else by
 * the table of well-formed byte sequences (RFC 3629 section 4), where only the second byte's range
 * depends on the first. Decodes nothing. */
#include "kv/utf8.h"

static inline bool is_tail(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* The length of the sequence of several bytes at p, or 0. */
static size_t sequence_len(const uint8_t *p, size_t left)
{
    uint8_t first = p[0];
    if (first < 0xc2) /* a tail byte, or an overlong form of ASCII */
        return 0;
    if (first < 0xe0)
        return left >= 2 && is_tail(p[1]) ? 2 : 0;
    if (first < 0xf0) {
        if (left < 3 || !is_tail(p[1]) || !is_tail(p[2]))
            return 0;
        if ((first == 0xe0 && p[1] < 0xa0) || (first == 0xed && p[1] >= 0xa0))
            return 0; /* overlong; surrogates */
        return 3;
    }
    if (first > 0xf4 || left < 4 || !is_tail(p[1]) || !is_tail(p[2]) || !is_tail(p[3]))
        return 0;
    if ((first == 0xf0 && p[1] < 0x90) || (first == 0xf4 && p[1] >= 0x90))
        return 0; /* overlong; above U+10FFFF */
    return 4;
}

bool bm_utf8_sequences_valid(const uint8_t *p, size_t len)
{
    while (len > 0) {
        while (len >= 32) {
            uint64_t all =
                bm_get_u64(p) | bm_get_u64(p + 8) | bm_get_u64(p + 16) | bm_get_u64(p + 24);
            if (all & BM_UTF8_HIGH_BITS)
                break;
            p += 32;
            len -= 32;
        }
        /* Over the ASCII in front of the first byte that is none. */
        size_t n = len < 8 ? len : 8;
        uint64_t high = bm_get_word(p, n) & BM_UTF8_HIGH_BITS;
        if (high)
            n = (size_t)__builtin_ctzll(high) / 8;
        p += n;
        len -= n;
        /* Text in other scripts stays in this loop. */
        while (len > 0 && *p >= 0x80) {
            n = sequence_len(p, len);
            if (n == 0)
                return false;
            p += n;
            len -= n;
        }
    }
    return true;
}
