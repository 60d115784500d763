/* One entry as it lies in memory (docs/spec/kv.md, K1). Reading its shape is the one step that
 * checker, iterator and lookup share: after it, value and key are known to lie inside the given
 * range, and numbers to be 8 bytes long. Padding, keys, order and contents are for the checker. */
#ifndef BM_ENTRY_H
#define BM_ENTRY_H

#include <beam/kv.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define BM_ENTRY_HEADER_LEN 8
#define BM_ENTRY_NAN_BITS UINT64_C(0x7ff8000000000000) /* K6: the one NaN */

struct bm_entry {
    const uint8_t *value;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t type;
    uint64_t len; /* header to padding */
};

static inline const uint8_t *bm_entry_key(const struct bm_entry *e)
{
    return e->value + e->value_len;
}

static inline uint64_t bm_entry_len(uint64_t value_len, uint64_t key_len)
{
    return bm_round_up8(BM_ENTRY_HEADER_LEN + value_len + key_len);
}

/* K5. A table, because the types of neighbours differ and a jump would be guessed wrong. */
static inline bool bm_entry_value_len_fits(uint8_t type, uint32_t value_len)
{
    static const struct {
        uint32_t mask, expected;
    } lens[BEAM_KV_LIST + 1] = {
        [BEAM_KV_NIL] = {UINT32_MAX, 0},  [BEAM_KV_FALSE] = {UINT32_MAX, 0},
        [BEAM_KV_TRUE] = {UINT32_MAX, 0}, [BEAM_KV_INT] = {UINT32_MAX, 8},
        [BEAM_KV_UINT] = {UINT32_MAX, 8}, [BEAM_KV_FLOAT] = {UINT32_MAX, 8},
        [BEAM_KV_STR] = {0, 0},           [BEAM_KV_BYTES] = {0, 0},
        [BEAM_KV_MAP] = {7, 0},           [BEAM_KV_LIST] = {7, 0},
    };
    return (value_len & lens[type].mask) == lens[type].expected;
}

/* The entry at pos, of which left bytes are there. 0, or -BEAM_EKV_… in the order of K11. */
static inline int bm_entry_read(const uint8_t *pos, uint64_t left, struct bm_entry *ret)
{
    if (left < BM_ENTRY_HEADER_LEN)
        return -BEAM_EKV_TRUNCATED;
    /* Loads of their own: a walk cannot go faster than it gets from these two lengths to the next
     * entry, and each shift would be a cycle on that way. */
    uint32_t value_len = bm_get_u32(pos);
    uint16_t key_len = bm_get_u16(pos + 4);
    uint16_t type_aux = bm_get_u16(pos + 6);
    /* 64 bits: at most 2^32 + 2^16, where 32 would wrap to something small */
    uint64_t len = bm_entry_len(value_len, key_len);
    if (BM_UNLIKELY(len > left || len > BEAM_KV_LEN_MAX))
        return len > BEAM_KV_LEN_MAX ? -BEAM_EKV_TOO_LARGE : -BEAM_EKV_TRUNCATED;
    /* one comparison for a type out of range and an aux that is not 0 */
    if (BM_UNLIKELY((uint16_t)(type_aux - 1) >= BEAM_KV_LIST)) {
        uint8_t type = (uint8_t)type_aux;
        return type < BEAM_KV_NIL || type > BEAM_KV_LIST ? -BEAM_EKV_TYPE : -BEAM_EKV_AUX;
    }
    if (BM_UNLIKELY(!bm_entry_value_len_fits((uint8_t)type_aux, value_len)))
        return -BEAM_EKV_LENGTH;
    ret->value = pos + BM_ENTRY_HEADER_LEN;
    ret->value_len = value_len;
    ret->key_len = key_len;
    ret->type = (uint8_t)type_aux;
    ret->len = len;
    return 0;
}

/* The same for an entry whose header is known to be right, or as good as the caller makes it. */
static inline struct bm_entry bm_entry_at(const uint8_t *pos)
{
    struct bm_entry e = {.value = pos + BM_ENTRY_HEADER_LEN,
                         .value_len = bm_get_u32(pos),
                         .key_len = bm_get_u16(pos + 4),
                         .type = pos[6]};
    e.len = bm_entry_len(e.value_len, e.key_len);
    return e;
}

/* The first eight bytes of a key as a number whose order is that of the keys, with zeros behind a
 * shorter one; equal prefixes say nothing ("a" and "a\0"). */
static inline uint64_t bm_entry_prefix(const struct bm_entry *e)
{
    const uint8_t *key = bm_entry_key(e);
    if (e->key_len >= 8)
        return __builtin_bswap64(bm_get_u64(key));
    if (e->key_len == 0)
        return 0;
    /* The eight bytes *ending* with the key: its own header lies in front, so they can be read. */
    uint64_t word = bm_get_u64(key + e->key_len - 8);
    return __builtin_bswap64(word >> 8 * (8 - e->key_len));
}

/* The prefix of bytes with nothing readable around them. */
static inline uint64_t bm_key_prefix(const void *key, size_t len)
{
    return __builtin_bswap64(bm_get_word(key, len));
}

/* < 0, 0, > 0 in the order of K8. */
static inline int bm_key_compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* Checks the entries in pos[0..len), the value of a map or list, by K2 and K4 to K10; depth is
 * theirs. *ret_bad, only on failure: the entry that breaks a rule. */
int bm_entries_check(const uint8_t *pos, size_t len, bool map, int depth, const uint8_t **ret_bad);

#endif
