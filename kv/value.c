/* Reading checked documents: the value of an entry, the walk over a map or list, the look-up of a
 * key, and numbers as the caller wants them. Values borrow the document's bytes; nothing is copied
 * and nothing is kept.
 *
 * Every step goes through bm_entry_read, so bytes that were never checked can give wrong answers,
 * but never a read outside the buffer that beam_kv_root was given, and no walk without end (each
 * entry is at least 8 bytes long). */
#include <errno.h>

#include "kv/entry.h"

static void entry_value(const struct bm_entry *e, beam_kv_value *ret_value)
{
    ret_value->type = (beam_kv_type)e->type;
    if (e->type >= BEAM_KV_INT && e->type <= BEAM_KV_FLOAT)
        memcpy(&ret_value->u, e->value, sizeof(ret_value->u));
    else /* a beam_str is the same two words */
        ret_value->bytes = (beam_bytes){e->value, e->value_len};
}

int beam_kv_root(const void *doc, size_t len, beam_kv_value *ret_value)
{
    struct bm_entry e;
    int r = bm_entry_read((const uint8_t *)doc, len, &e);
    if (r < 0)
        return r;
    entry_value(&e, ret_value);
    return 0;
}

void beam_kv_iter_init(beam_kv_iter *iter, const beam_kv_value *container)
{
    *iter = (beam_kv_iter){NULL, NULL};
    if ((container->type != BEAM_KV_MAP && container->type != BEAM_KV_LIST) ||
        container->bytes.len == 0)
        return;
    iter->pos = (const uint8_t *)container->bytes.ptr;
    iter->end = iter->pos + container->bytes.len;
}

int beam_kv_iter_next(beam_kv_iter *iter, beam_str *ret_key, beam_kv_value *ret_value)
{
    struct bm_entry e;
    if (iter->pos == iter->end)
        return 0;
    int r = bm_entry_read(iter->pos, (uint64_t)(iter->end - iter->pos), &e);
    if (BM_UNLIKELY(r < 0))
        return r;
    iter->pos += e.len;
    entry_value(&e, ret_value);
    if (ret_key)
        *ret_key = (beam_str){(const char *)bm_entry_key(&e), e.key_len};
    return 1;
}

int beam_kv_find(const beam_kv_value *map, beam_str key, beam_kv_value *ret_value)
{
    if (map->type != BEAM_KV_MAP)
        return -EINVAL;
    if (map->bytes.len == 0)
        return -ENOENT;
    if (!key.ptr)
        key.ptr = "";

    const uint8_t *pos = (const uint8_t *)map->bytes.ptr;
    const uint8_t *end = pos + map->bytes.len;
    uint64_t wanted = bm_key_prefix(key.ptr, key.len);
    while (pos < end) {
        /* Of the entries that are passed over only the bounds matter. */
        uint64_t left = (uint64_t)(end - pos);
        if (BM_UNLIKELY(left < BM_ENTRY_HEADER_LEN))
            return -BEAM_EKV_TRUNCATED;
        struct bm_entry e = bm_entry_at(pos);
        if (BM_UNLIKELY(e.len > left))
            return -BEAM_EKV_TRUNCATED;
        uint64_t prefix = bm_entry_prefix(&e);
        if (prefix >= wanted) {
            int order = prefix > wanted;
            if (order == 0)
                order = bm_key_compare(bm_entry_key(&e), e.key_len, key.ptr, key.len);
            if (order > 0)
                return -ENOENT;
            if (order == 0) {
                int r = bm_entry_read(pos, left, &e);
                if (r == 0)
                    entry_value(&e, ret_value);
                return r;
            }
        }
        pos += e.len;
    }
    return -ENOENT;
}

int beam_kv_as_bool(const beam_kv_value *value, bool *ret_bool)
{
    if (value->type != BEAM_KV_TRUE && value->type != BEAM_KV_FALSE)
        return -EINVAL;
    *ret_bool = value->type == BEAM_KV_TRUE;
    return 0;
}

int beam_kv_as_int(const beam_kv_value *value, int64_t *ret_int)
{
    switch (value->type) {
    case BEAM_KV_INT:
        *ret_int = value->i;
        return 0;
    case BEAM_KV_UINT:
        return -ERANGE;
    case BEAM_KV_FLOAT:
        /* The bounds are powers of two, so doubles hold them; NaN fails both. */
        if (!(value->f >= -0x1p63 && value->f < 0x1p63) || (double)(int64_t)value->f != value->f)
            return -ERANGE;
        *ret_int = (int64_t)value->f;
        return 0;
    default:
        return -EINVAL;
    }
}

int beam_kv_as_uint(const beam_kv_value *value, uint64_t *ret_uint)
{
    switch (value->type) {
    case BEAM_KV_INT:
        if (value->i < 0)
            return -ERANGE;
        *ret_uint = (uint64_t)value->i;
        return 0;
    case BEAM_KV_UINT:
        *ret_uint = value->u;
        return 0;
    case BEAM_KV_FLOAT:
        if (!(value->f >= 0 && value->f < 0x1p64) || (double)(uint64_t)value->f != value->f)
            return -ERANGE;
        *ret_uint = (uint64_t)value->f;
        return 0;
    default:
        return -EINVAL;
    }
}

int beam_kv_as_float(const beam_kv_value *value, double *ret_float)
{
    double f;
    switch (value->type) {
    case BEAM_KV_INT:
        f = (double)value->i;
        /* 2^63 - 1 rounds up to 2^63, which must not be converted back */
        if (f >= 0x1p63 || (int64_t)f != value->i)
            return -ERANGE;
        break;
    case BEAM_KV_UINT:
        f = (double)value->u;
        if (f >= 0x1p64 || (uint64_t)f != value->u)
            return -ERANGE;
        break;
    case BEAM_KV_FLOAT:
        f = value->f;
        break;
    default:
        return -EINVAL;
    }
    *ret_float = f;
    return 0;
}

int beam_kv_as_str(const beam_kv_value *value, beam_str *ret_str)
{
    if (value->type != BEAM_KV_STR)
        return -EINVAL;
    *ret_str = value->str;
    return 0;
}

int beam_kv_as_bytes(const beam_kv_value *value, beam_bytes *ret_bytes)
{
    if (value->type != BEAM_KV_BYTES)
        return -EINVAL;
    *ret_bytes = value->bytes;
    return 0;
}

int beam_kv_get(const beam_kv_value *map, const char *key, beam_kv_value *ret_value)
{
    return beam_kv_find(map, (beam_str){key, strlen(key)}, ret_value);
}

#define GET(name, ctype)                                                                           \
    int beam_kv_get_##name(const beam_kv_value *map, const char *key, ctype *ret_##name)           \
    {                                                                                              \
        beam_kv_value value;                                                                       \
        int r = beam_kv_get(map, key, &value);                                                     \
        return r < 0 ? r : beam_kv_as_##name(&value, ret_##name);                                  \
    }

GET(bool, bool)
GET(int, int64_t)
GET(uint, uint64_t)
GET(float, double)
GET(str, beam_str)
GET(bytes, beam_bytes)
