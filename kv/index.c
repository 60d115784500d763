/* Look-ups by halves in a large map: an array of offsets, one for each entry, that the caller keeps.
 *
 * Nothing is believed of an offset. Each step looks whether header and entry lie inside the map before it
 * reads them, and the number of steps depends on the count alone; so an index of other bytes, or of numbers
 * that mean nothing, ends with a wrong answer or with KV_TRUNCATED, and never outside.
 *
 * What a search waits for is memory: in a map of 100 000 entries most of its 17 steps miss the nearer caches,
 * each after the other. So each step asks for both entries that the next one may look at (a tenth to a fifth
 * of the time; asking two steps ahead, and choosing the half without a branch, gained nothing). */
#include <errno.h>

#include "kv/entry.h"

#define AHEAD_COUNT_MIN 4 /* entries left: with fewer there are no two others to ask for */

static bool is_container(const beam_kv_value *value)
{
    return value->type == BEAM_KV_MAP || value->type == BEAM_KV_LIST;
}

/* The entry at an offset, if there is room for it there: its key can be read then. */
static inline int entry_at(const beam_bytes *entries, uint32_t offset, struct bm_entry *ret)
{
    if (BM_UNLIKELY(entries->len < BM_ENTRY_HEADER_LEN ||
                    offset > entries->len - BM_ENTRY_HEADER_LEN))
        return -BEAM_EKV_TRUNCATED;
    *ret = bm_entry_at((const uint8_t *)entries->ptr + offset);
    return BM_UNLIKELY(ret->len > entries->len - offset) ? -BEAM_EKV_TRUNCATED : 0;
}

/* Only asks, wherever that is: not even an address outside is an error. */
static inline void ask_for(const beam_bytes *entries, uint32_t offset)
{
    __builtin_prefetch((const void *)((uintptr_t)entries->ptr + offset));
}

int beam_kv_index_build(const beam_kv_value *container, uint32_t *offsets, size_t cap,
                        beam_kv_index *ret_index)
{
    if (!is_container(container))
        return -EINVAL;
    const beam_bytes *entries = &container->bytes;
    if (entries->len > BEAM_KV_LEN_MAX)
        return -BEAM_EKV_TOO_LARGE;

    size_t count = 0;
    for (size_t pos = 0; pos < entries->len; count++) {
        struct bm_entry e;
        int r = entry_at(entries, (uint32_t)pos, &e);
        if (r < 0)
            return r;
        if (count < cap)
            offsets[count] = (uint32_t)pos;
        pos += e.len;
    }
    *ret_index = (beam_kv_index){.container = *container, .offsets = offsets, .count = count};
    return count <= cap ? 0 : -ENOSPC;
}

int beam_kv_index_lower_bound(const beam_kv_index *index, beam_str key, size_t *ret_n)
{
    if (index->container.type != BEAM_KV_MAP)
        return -EINVAL;
    if (!key.ptr)
        key.ptr = "";

    const beam_bytes *entries = &index->container.bytes;
    const uint32_t *first = index->offsets; /* all keys before it are below */
    uint64_t wanted = bm_key_prefix(key.ptr, key.len);
    for (size_t count = index->count; count > 0;) { /* all keys from first + count on are not */
        size_t half = count / 2, rest = count - half - 1;
        if (count >= AHEAD_COUNT_MIN) {
            ask_for(entries, first[half / 2]);
            ask_for(entries, first[half + 1 + rest / 2]);
        }
        struct bm_entry e;
        int r = entry_at(entries, first[half], &e);
        if (BM_UNLIKELY(r < 0))
            return r;
        uint64_t prefix = bm_entry_prefix(&e);
        bool below = prefix < wanted;
        if (prefix == wanted)
            below = bm_key_compare(bm_entry_key(&e), e.key_len, key.ptr, key.len) < 0;
        first = below ? first + half + 1 : first;
        count = below ? rest : half;
    }
    *ret_n = (size_t)(first - index->offsets);
    return 0;
}

int beam_kv_index_at(const beam_kv_index *index, size_t n, beam_str *ret_key,
                     beam_kv_value *ret_value)
{
    if (n >= index->count || !is_container(&index->container))
        return -ENOENT;
    /* The walk from there on, of one step. */
    const beam_bytes *entries = &index->container.bytes;
    if (index->offsets[n] >= entries->len)
        return -BEAM_EKV_TRUNCATED;
    beam_kv_iter iter;
    beam_kv_iter_init(&iter, &index->container);
    iter.pos += index->offsets[n];
    int r = beam_kv_iter_next(&iter, ret_key, ret_value);
    return r < 0 ? r : 0;
}

int beam_kv_index_find(const beam_kv_index *index, beam_str key, beam_kv_value *ret_value)
{
    size_t n;
    beam_str found;
    beam_kv_value value;
    int r = beam_kv_index_lower_bound(index, key, &n);
    if (r == 0)
        r = beam_kv_index_at(index, n, &found, &value);
    if (r < 0)
        return r;
    if (found.len != key.len || (key.len > 0 && memcmp(found.ptr, key.ptr, key.len) != 0))
        return -ENOENT;
    *ret_value = value;
    return 0;
}
