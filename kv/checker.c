/* The checker: every rule of docs/spec/kv.md (K1 to K10) over every byte of a document, once, from
 * front to back. It keeps the open maps and lists on a stack of its own, as deep as K10 allows, so
 * hostile nesting costs neither recursion nor memory.
 *
 * Invariant of the loop: pos is the start of an entry or equals end; end is inside the buffer.
 * The order of the checks is the order of the reader in section 3 of the specification, because the
 * vectors name the first rule that is broken. */
#include "kv/entry.h"

#include "kv/utf8.h"

/* What the walk inside one map or list has to remember. */
struct level {
    const uint8_t *end;
    const uint8_t *last; /* entry; NULL before the first */
    uint64_t last_prefix;
    bool map;
};

/* Where the walk comes back to when a nested one ends. */
struct outer {
    struct level level;
    const uint8_t *next;
};

/* K4. The padding is the end of the entry's last word, which may be its header. */
static inline bool padding_is_zero(const uint8_t *pos, const struct bm_entry *e)
{
    uint64_t used = UINT64_MAX >> 8 * (-(e->value_len + e->key_len) % 8);
    return (bm_get_u64(pos + e->len - 8) & ~used) == 0;
}

/* K8, where the first eight bytes of two keys are the same or out of order. */
static __attribute__((__noinline__)) bool comes_after(const struct bm_entry *e, const uint8_t *last)
{
    struct bm_entry before = bm_entry_at(last);
    return bm_key_compare(bm_entry_key(e), e->key_len, bm_entry_key(&before), before.key_len) > 0;
}

/* K7 and K8 (in a map), K9 (elsewhere). */
static inline int check_key(struct level *in, const uint8_t *pos, const struct bm_entry *e)
{
    if (!in->map)
        return e->key_len == 0 ? 0 : -BEAM_EKV_KEY;

    uint64_t prefix = bm_entry_prefix(e);
    if (BM_UNLIKELY((prefix & BM_UTF8_HIGH_BITS) != 0 || e->key_len > 8) &&
        !bm_utf8_valid(bm_entry_key(e), e->key_len))
        return -BEAM_EKV_UTF8;
    if (BM_UNLIKELY(prefix <= in->last_prefix) && in->last && !comes_after(e, in->last))
        return -BEAM_EKV_ORDER;
    in->last = pos;
    in->last_prefix = prefix;
    return 0;
}

/* K6 and K7. */
static inline int check_value(const struct bm_entry *e)
{
    uint64_t bits;
    switch (e->type) {
    case BEAM_KV_UINT:
        return bm_get_u64(e->value) >> 63 ? 0 : -BEAM_EKV_NUMBER;
    case BEAM_KV_FLOAT:
        bits = bm_get_u64(e->value);
        /* without its sign, a NaN is above the bits of infinity */
        return bits << 1 > UINT64_C(0x7ff) << 53 && bits != BM_ENTRY_NAN_BITS ? -BEAM_EKV_NUMBER
                                                                              : 0;
    case BEAM_KV_STR:
        return bm_utf8_valid(e->value, e->value_len) ? 0 : -BEAM_EKV_UTF8;
    default:
        return 0;
    }
}

static inline int check_entry(struct level *in, const uint8_t *pos, struct bm_entry *e)
{
    int r = bm_entry_read(pos, (uint64_t)(in->end - pos), e);
    if (BM_UNLIKELY(r < 0))
        return r;
    if (BM_UNLIKELY(!padding_is_zero(pos, e)))
        return -BEAM_EKV_PADDING;
    r = check_key(in, pos, e);
    if (BM_UNLIKELY(r < 0))
        return r;
    return check_value(e);
}

int bm_entries_check(const uint8_t *pos, size_t len, bool map, int depth, const uint8_t **ret_bad)
{
    struct outer stack[BEAM_KV_DEPTH_MAX];
    int top = 0, r = 0;

    if (len == 0)
        return 0;
    struct level in = {.end = pos + len, .map = map};
    if (depth > BEAM_KV_DEPTH_MAX)
        r = -BEAM_EKV_DEPTH;
    while (r == 0) {
        struct bm_entry e;
        r = check_entry(&in, pos, &e);
        if (BM_UNLIKELY(r < 0))
            break;
        pos += e.len;
        if (e.type >= BEAM_KV_MAP && e.value_len > 0) {
            /* depth >= 1, so that top stays below the length of the stack */
            if (depth + top == BEAM_KV_DEPTH_MAX)
                r = -BEAM_EKV_DEPTH;
            else
                stack[top++] = (struct outer){in, pos};
            in = (struct level){.end = e.value + e.value_len, .map = e.type == BEAM_KV_MAP};
            pos = e.value;
        }
        while (pos == in.end) {
            if (top == 0)
                return 0;
            in = stack[--top].level;
            pos = stack[top].next;
        }
    }
    *ret_bad = pos;
    return r;
}

int beam_kv_check(const void *doc, size_t len, size_t *error_offset)
{
    const uint8_t *bad = (const uint8_t *)doc;
    struct bm_entry root;

    int r = bm_entry_read(bad, len, &root);
    if (r == 0) /* a document is checked like a list of one */
        r = bm_entries_check(bad, root.len, false, 1, &bad);
    if (r == 0 && root.len < len) {
        bad += root.len;
        r = -BEAM_EKV_TRAILING;
    }
    if (r < 0 && error_offset)
        *error_offset = (size_t)(bad - (const uint8_t *)doc);
    return r;
}
