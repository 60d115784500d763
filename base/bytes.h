/* Bytes as they travel: numbers (little-endian, at any alignment), and a cursor over what a peer
 * has sent, which cannot be moved past the end: every length is compared in 64 bits with what is
 * left before anything is touched. */
#ifndef BM_BYTES_H
#define BM_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only little-endian machines are supported"
#endif

struct bm_bytes {
    const uint8_t *pos;
    const uint8_t *end;
};

static inline uint16_t bm_get_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t bm_get_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t bm_get_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* Up to eight bytes as a word in memory order, zeros behind; reads nothing around them. */
static inline uint64_t bm_get_word(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    if (len >= 8)
        return bm_get_u64(p);
    if (len >= 4) /* two halves that may overlap; where they do, they agree */
        return bm_get_u32(p) | (uint64_t)bm_get_u32(p + len - 4) << 8 * (len - 4);
    if (len == 0)
        return 0;
    return p[0] | (uint64_t)p[len / 2] << 8 * (len / 2) | (uint64_t)p[len - 1] << 8 * (len - 1);
}

static inline void bm_put_u16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}

static inline void bm_put_u32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static inline void bm_put_u64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

static inline uint64_t bm_round_up8(uint64_t n)
{
    return (n + 7) & ~UINT64_C(7);
}

static inline struct bm_bytes bm_bytes(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    return (struct bm_bytes){p, p + len};
}

static inline uint64_t bm_bytes_left(const struct bm_bytes *b)
{
    return (uint64_t)(b->end - b->pos);
}

/* The next len bytes, or NULL (and no movement) when fewer are left. */
static inline const uint8_t *bm_bytes_take(struct bm_bytes *b, uint64_t len)
{
    if (bm_bytes_left(b) < len)
        return NULL;
    const uint8_t *p = b->pos;
    b->pos += len;
    return p;
}

#endif
