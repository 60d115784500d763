/* Writes a document into the caller's memory, or into a buffer that grows, front to back.
 *
 * Model. The entries written so far lie at the front, base[0..len). A map or list is opened by its
 * header; its own key belongs behind its entries, so until it is closed the key waits at the end of
 * the buffer, in the last `tail` bytes (innermost first, each padded to 8). What is needed to come
 * back from a nested one stands in the open header itself: in vlen the offset of the one around it,
 * in klen the length of its key, in aux whether its keys came out of order. So the writer is small
 * enough to live inside a message, and holds offsets instead of pointers: the buffer may move.
 *
 * Invariants. len and tail are multiples of 8, and len + tail <= cap. Each open map or list has
 * set aside its padded key, so closing always has room, and a buffer of exactly the document's
 * length is always enough. `last` is the last entry of the innermost open map or list, and last_prefix
 * the beginning of its key, which is not read back: what was stored a moment ago in pieces is slow to
 * load. A call that fails with -ENOSPC has changed nothing but error and need. */
#include <errno.h>

#include "kv/buffer.h"
#include "kv/entry.h"
#include "kv/order.h"
#include "kv/utf8.h"
#include "kv/writer.h"

#define NONE UINT32_MAX /* no offset: offsets are below 2^31 */

enum { UNSORTED = 1 }; /* aux of an open map */

#define PREFETCH_LEN 512 /* ahead: buffers that were last used on another core come in time */
#define SHORT 64         /* up to here a loop over words is faster than a call */

static inline void put_header(uint8_t *p, uint32_t value_len, size_t key_len, uint8_t type,
                              uint8_t aux)
{
    bm_put_u64(p, value_len | (uint64_t)key_len << 32 | (uint64_t)type << 48 | (uint64_t)aux << 56);
}

static inline uint8_t open_type(const beam_kv_writer *w)
{
    return w->open == NONE ? 0 : w->base[w->open + 6];
}

static int fail(beam_kv_writer *w, int error)
{
    w->error = error;
    return error;
}

/* What a full writer can still do: grow, if it has where. Cold, so that a put that fits pays
 * nothing. */
static __attribute__((__noinline__, __cold__)) int make_room(beam_kv_writer *w, uint64_t need)
{
    w->need = (uint32_t)need;
    if (!w->buffer)
        return fail(w, -ENOSPC);
    int r = bm_buffer_grow(w->buffer, (size_t)need);
    if (r < 0)
        return fail(w, r);
    /* the block has moved, with all that was in it */
    w->base = w->buffer->ptr;
    return beam_kv_writer_move(w, w->base, w->buffer->cap);
}

/* Whether an entry of that length, with or without a key, may come where the writer is, and has room. */
static int check_place(beam_kv_writer *w, bool keyed, size_t key_len, uint64_t len)
{
    if (w->error)
        return w->error;
    if (w->open == NONE && w->len > 0)
        return fail(w, -BEAM_EKV_TRAILING);
    if ((open_type(w) == BEAM_KV_MAP) != keyed)
        return fail(w, -BEAM_EKV_KEY);
    if (w->depth >= BEAM_KV_DEPTH_MAX)
        return fail(w, -BEAM_EKV_DEPTH);
    if (key_len > BEAM_KV_KEY_LEN_MAX)
        return fail(w, -BEAM_EKV_TOO_LARGE);
    uint64_t need = (uint64_t)w->len + w->tail + len;
    if (need > BEAM_KV_LEN_MAX)
        return fail(w, -BEAM_EKV_TOO_LARGE);
    return need > w->cap ? make_room(w, need) : 0;
}

static int check_next(beam_kv_writer *w, beam_str key, uint64_t len)
{
    int r = check_place(w, key.ptr != NULL, key.len, len);
    return r < 0 || bm_utf8_valid(key.ptr, key.len) ? r : fail(w, -BEAM_EKV_UTF8);
}

/* Notes it if the key does not come after that of the last entry. */
static void compare_with_last(beam_kv_writer *w, beam_str key)
{
    if (w->last == NONE || !key.ptr)
        return;
    struct bm_entry e = bm_entry_at(w->base + w->last);
    if (bm_key_compare(key.ptr, key.len, bm_entry_key(&e), e.key_len) <= 0)
        w->base[w->open + 7] = UNSORTED;
}

static __attribute__((__noinline__)) int check_and_compare(beam_kv_writer *w, beam_str key,
                                                           uint64_t len)
{
    int r = check_next(w, key, len);
    if (r == 0)
        compare_with_last(w, key);
    return r;
}

/* True is the answer for nearly all entries, at the price of a few comparisons: check_and_compare
 * would find nothing. word is the key's first eight bytes, as they lie in memory. */
static inline bool is_plain(const beam_kv_writer *w, beam_str key, uint64_t word, uint64_t len)
{
    if (w->error != 0 || w->open == NONE || w->depth >= BEAM_KV_DEPTH_MAX ||
        (uint64_t)w->len + w->tail + len > w->cap)
        return false;
    if (w->base[w->open + 6] != BEAM_KV_MAP)
        return key.ptr == NULL;
    return key.ptr != NULL && key.len <= 8 && (word & BM_UTF8_HIGH_BITS) == 0 &&
           __builtin_bswap64(word) > w->last_prefix;
}

/* The entry that comes now is the last one from here on. */
static inline void follow(beam_kv_writer *w, uint64_t word)
{
    w->last_prefix = __builtin_bswap64(word);
    w->last = w->len;
}

/* Admits an entry of that length. */
static inline int admit(beam_kv_writer *w, beam_str key, uint64_t word, uint64_t len)
{
    if (BM_UNLIKELY(!is_plain(w, key, word, len))) {
        int r = check_and_compare(w, key, len);
        if (r < 0)
            return r;
    }
    follow(w, word);
    return 0;
}

/* Begins an entry: its header. *ret_body is where its value comes, and then its key. */
static inline int add(beam_kv_writer *w, beam_str key, uint64_t word, beam_kv_type type,
                      uint64_t value_len, uint8_t **ret_body)
{
    uint64_t len = bm_entry_len(value_len, key.len);
    int r = admit(w, key, word, len);
    if (BM_UNLIKELY(r < 0))
        return r;
    uint8_t *p = w->base + w->len;
    __builtin_prefetch(p + PREFETCH_LEN, 1);
    put_header(p, (uint32_t)value_len, key.len, (uint8_t)type, 0);
    w->len += (uint32_t)len;
    *ret_body = p + BM_ENTRY_HEADER_LEN;
    return 0;
}

/* Writes a key and its padding where a word begins. */
static inline void put_key(uint8_t *p, beam_str key, uint64_t word)
{
    if (BM_UNLIKELY(key.len > 8)) {
        bm_put_u64(p + bm_round_up8(key.len) - 8, 0);
        memcpy(p, key.ptr, key.len);
    } else if (key.len > 0) {
        bm_put_u64(p, word);
    }
}

static int put_empty(beam_kv_writer *w, beam_str key, beam_kv_type type)
{
    uint64_t word = bm_get_word(key.ptr, key.len);
    uint8_t *body = NULL;
    int r = add(w, key, word, type, 0, &body);
    if (BM_LIKELY(r == 0))
        put_key(body, key, word);
    return r;
}

static int put_number(beam_kv_writer *w, beam_str key, beam_kv_type type, uint64_t bits)
{
    uint64_t word = bm_get_word(key.ptr, key.len);
    uint8_t *body = NULL;
    int r = add(w, key, word, type, sizeof(bits), &body);
    if (BM_LIKELY(r == 0)) {
        bm_put_u64(body, bits);
        put_key(body + sizeof(bits), key, word);
    }
    return r;
}

/* Writes a value that may end inside a word, a key of at most eight bytes and the padding: whole
 * words, the last one or two put together from what the value has left and the key. */
static inline void put_body(uint8_t *p, const uint8_t *value, size_t len, size_t key_len,
                            uint64_t word)
{
    size_t rest = len % 8, whole = len - rest;
    if (whole > SHORT) {
        memcpy(p, value, whole);
    } else {
        for (size_t i = 0; i < whole; i += 8)
            bm_put_u64(p + i, bm_get_u64(value + i));
    }
    p += whole;
    if (rest == 0) {
        if (key_len > 0)
            bm_put_u64(p, word);
        return;
    }
    uint64_t end =
        whole > 0 ? bm_get_u64(value + len - 8) >> 8 * (8 - rest) : bm_get_word(value, rest);
    bm_put_u64(p, end | word << 8 * rest);
    if (rest + key_len > 8)
        bm_put_u64(p + 8, word >> 8 * (8 - rest));
}

static int put(beam_kv_writer *w, beam_str key, beam_kv_type type, const void *value, size_t len)
{
    if (BM_UNLIKELY(len > BEAM_KV_LEN_MAX) && !w->error) /* before a sum can overflow */
        return fail(w, -BEAM_EKV_TOO_LARGE);
    uint64_t word = bm_get_word(key.ptr, key.len);
    uint8_t *body = NULL;
    int r = add(w, key, word, type, len, &body);
    if (BM_UNLIKELY(r < 0))
        return r;
    if (BM_LIKELY(key.len <= 8)) {
        put_body(body, (const uint8_t *)value, len, key.len, word);
        return 0;
    }
    bm_put_u64(body + bm_round_up8(len + key.len) - 8, 0);
    if (len > 0)
        memcpy(body, value, len);
    memcpy(body + len, key.ptr, key.len);
    return 0;
}

static inline int put_str(beam_kv_writer *w, beam_str key, const char *str, size_t len)
{
    if (BM_UNLIKELY(w->error))
        return w->error;
    if (BM_UNLIKELY(!str && len > 0))
        return fail(w, -EINVAL);
    if (BM_UNLIKELY(!bm_utf8_valid(str, len)))
        return fail(w, -BEAM_EKV_UTF8);
    return put(w, key, BEAM_KV_STR, str, len);
}

static int put_float(beam_kv_writer *w, beam_str key, double value)
{
    uint64_t bits = BM_ENTRY_NAN_BITS;
    if (value == value)
        memcpy(&bits, &value, sizeof(bits));
    return put_number(w, key, BEAM_KV_FLOAT, bits);
}

static int put_uint(beam_kv_writer *w, beam_str key, uint64_t value)
{
    return put_number(w, key, value >> 63 ? BEAM_KV_UINT : BEAM_KV_INT, value);
}

static inline beam_str key_of(const char *key)
{
    return (beam_str){key, key ? strlen(key) : 0};
}

/* No document needs more. */
static uint32_t usable(size_t cap)
{
    return (uint32_t)(cap < BEAM_KV_LEN_MAX ? cap : BEAM_KV_LEN_MAX);
}

void beam_kv_writer_init(beam_kv_writer *w, void *buf, size_t cap)
{
    *w = (beam_kv_writer){.base = (uint8_t *)buf, .cap = usable(cap), .open = NONE, .last = NONE};
}

void beam_kv_writer_init_buffer(beam_kv_writer *w, beam_buffer *buffer)
{
    beam_kv_writer_init(w, buffer->ptr, buffer->cap);
    w->buffer = buffer;
    beam_buffer_clear(buffer);
}

int beam_kv_writer_move(beam_kv_writer *w, void *new_buf, size_t new_cap)
{
    uint8_t *base = (uint8_t *)new_buf;
    uint32_t cap = usable(new_cap);
    if (cap < w->cap)
        return -EINVAL;
    if (w->len > 0 && base != w->base)
        memcpy(base, w->base, w->len);
    if (w->tail > 0)
        memmove(base + cap - w->tail, w->base + w->cap - w->tail, w->tail);
    w->base = base;
    w->cap = cap;
    if (w->error == -ENOSPC)
        w->error = 0;
    return 0;
}

int beam_kv_writer_finish(beam_kv_writer *w, const void **ret_doc, size_t *ret_len)
{
    if (w->error)
        return w->error;
    if (w->len == 0 || w->open != NONE)
        return fail(w, -EINVAL);
    if (w->buffer)
        w->buffer->len = w->len;
    *ret_doc = w->base;
    *ret_len = w->len;
    return 0;
}

int beam_kv_put(beam_kv_writer *w, beam_str key, const beam_kv_value *value)
{
    const uint8_t *bad;
    int r;

    if (w->error)
        return w->error;
    switch (value->type) {
    case BEAM_KV_NIL:
    case BEAM_KV_FALSE:
    case BEAM_KV_TRUE:
        return put_empty(w, key, value->type);
    case BEAM_KV_INT:
        return put_number(w, key, BEAM_KV_INT, value->u);
    case BEAM_KV_UINT:
        return put_uint(w, key, value->u);
    case BEAM_KV_FLOAT:
        return put_float(w, key, value->f);
    case BEAM_KV_STR:
        return put_str(w, key, value->str.ptr, value->str.len);
    case BEAM_KV_BYTES:
        if (!value->bytes.ptr && value->bytes.len > 0)
            return fail(w, -EINVAL);
        return put(w, key, BEAM_KV_BYTES, value->bytes.ptr, value->bytes.len);
    case BEAM_KV_MAP:
    case BEAM_KV_LIST:
        if (!value->bytes.ptr && value->bytes.len > 0)
            return fail(w, -EINVAL);
        if (value->bytes.len % 8 != 0)
            return fail(w, -BEAM_EKV_LENGTH);
        /* This value will stand at depth + 1, and what it holds one below. */
        r = bm_entries_check((const uint8_t *)value->bytes.ptr, value->bytes.len,
                             value->type == BEAM_KV_MAP, w->depth + 2, &bad);
        if (r < 0)
            return fail(w, r);
        return put(w, key, value->type, value->bytes.ptr, value->bytes.len);
    }
    return fail(w, -EINVAL);
}

int beam_kv_put_nil(beam_kv_writer *w, const char *key)
{
    return put_empty(w, key_of(key), BEAM_KV_NIL);
}

int beam_kv_put_bool(beam_kv_writer *w, const char *key, bool value)
{
    return put_empty(w, key_of(key), value ? BEAM_KV_TRUE : BEAM_KV_FALSE);
}

int beam_kv_put_int(beam_kv_writer *w, const char *key, int64_t value)
{
    return put_number(w, key_of(key), BEAM_KV_INT, (uint64_t)value);
}

int beam_kv_put_uint(beam_kv_writer *w, const char *key, uint64_t value)
{
    return put_uint(w, key_of(key), value);
}

int beam_kv_put_float(beam_kv_writer *w, const char *key, double value)
{
    return put_float(w, key_of(key), value);
}

int beam_kv_put_strn(beam_kv_writer *w, const char *key, const char *str, size_t len)
{
    return put_str(w, key_of(key), str, len);
}

int beam_kv_put_str(beam_kv_writer *w, const char *key, const char *str)
{
    /* one byte at NULL is what put_str refuses */
    return put_str(w, key_of(key), str, str ? strlen(str) : 1);
}

int beam_kv_put_bytes(beam_kv_writer *w, const char *key, const void *bytes, size_t len)
{
    return beam_kv_put(
        w, key_of(key),
        &(beam_kv_value){.type = BEAM_KV_BYTES, .bytes = {.ptr = bytes, .len = len}});
}

/* Writes the header of a map or list; its key is the caller's, in the tail. */
static inline void open_container(beam_kv_writer *w, beam_kv_type type, size_t key_len)
{
    put_header(w->base + w->len, w->open, key_len, (uint8_t)type, 0);
    w->open = w->len;
    w->last = NONE;
    w->last_prefix = 0;
    w->depth++;
    w->len += BM_ENTRY_HEADER_LEN;
    w->tail += (uint32_t)bm_round_up8(key_len);
}

int beam_kv_begin(beam_kv_writer *w, beam_str key, beam_kv_type type)
{
    if (!w->error && type != BEAM_KV_MAP && type != BEAM_KV_LIST)
        return fail(w, -EINVAL);
    uint64_t word = bm_get_word(key.ptr, key.len);
    int r = admit(w, key, word, bm_entry_len(0, key.len));
    if (r < 0)
        return r;
    open_container(w, type, key.len);
    put_key(w->base + w->cap - w->tail, key, word);
    return 0;
}

int beam_kv_begin_map(beam_kv_writer *w, const char *key)
{
    return beam_kv_begin(w, key_of(key), BEAM_KV_MAP);
}

int beam_kv_begin_list(beam_kv_writer *w, const char *key)
{
    return beam_kv_begin(w, key_of(key), BEAM_KV_LIST);
}

int beam_kv_end(beam_kv_writer *w)
{
    if (w->error)
        return w->error;
    if (w->open == NONE)
        return fail(w, -EINVAL);

    uint8_t *header = w->base + w->open;
    struct bm_entry e = bm_entry_at(header);
    uint8_t *entries = header + BM_ENTRY_HEADER_LEN;
    size_t len = (size_t)(w->base + w->len - entries);
    uint32_t outer = e.value_len;
    if (header[7] == UNSORTED) {
        int r = bm_entries_sort(entries, len);
        if (r < 0)
            return fail(w, r);
    }
    put_header(header, (uint32_t)len, e.key_len, e.type, 0);

    /* The key moves towards the front, over the free room, with the padding that it has already. The
     * keys behind it stay as they are. */
    uint32_t padded = (uint32_t)bm_round_up8(e.key_len);
    uint8_t *key = w->base + w->len;
    const uint8_t *kept = w->base + w->cap - w->tail;
    uint64_t word = padded > 0 ? bm_get_u64(kept) : 0;
    if (BM_UNLIKELY(padded > 8))
        memmove(key, kept, padded);
    else if (padded > 0)
        bm_put_u64(key, word);
    w->len += padded;
    w->tail -= padded;
    w->last = w->open;
    w->last_prefix = __builtin_bswap64(word);
    w->open = outer;
    w->depth--;
    return 0;
}

int bm_writer_reserve(beam_kv_writer *w, struct bm_writer_entry *entry)
{
    bool container = entry->type == BEAM_KV_MAP || entry->type == BEAM_KV_LIST;
    if (entry->value_len > BEAM_KV_LEN_MAX && !w->error) /* before a sum can overflow */
        return fail(w, -BEAM_EKV_TOO_LARGE);
    int r = check_place(w, entry->in_map, entry->key_len,
                        bm_entry_len(entry->value_len, entry->key_len));
    if (r < 0)
        return r;
    entry->value = w->base + w->len + BM_ENTRY_HEADER_LEN;
    entry->key = container ? w->base + w->cap - w->tail - bm_round_up8(entry->key_len)
                           : entry->value + entry->value_len;
    return 0;
}

void bm_writer_commit(beam_kv_writer *w, const struct bm_writer_entry *entry)
{
    beam_str key = {entry->in_map ? (const char *)entry->key : NULL, entry->key_len};
    uint64_t word = bm_get_word(key.ptr, key.len);
    if (__builtin_bswap64(word) <= w->last_prefix)
        compare_with_last(w, key);
    follow(w, word);
    /* The padding is that of the key, wherever it waits. */
    size_t padded = bm_round_up8(entry->value_len + entry->key_len);
    memset(entry->key + entry->key_len, 0, padded - entry->value_len - entry->key_len);
    if (entry->type == BEAM_KV_MAP || entry->type == BEAM_KV_LIST) {
        open_container(w, entry->type, entry->key_len);
        return;
    }
    put_header(w->base + w->len, (uint32_t)entry->value_len, entry->key_len, (uint8_t)entry->type,
               0);
    w->len += (uint32_t)(BM_ENTRY_HEADER_LEN + padded);
}

void bm_writer_unescape_key(beam_kv_writer *w)
{
    uint8_t *p = w->base + w->last;
    struct bm_entry e = bm_entry_at(p);
    uint8_t *key = p + BM_ENTRY_HEADER_LEN + e.value_len;
    size_t key_len = e.key_len - 1u;
    memmove(key, key + 1, key_len);
    key[key_len] = 0; /* the rest of the padding is there already */
    put_header(p, e.value_len, key_len, e.type, 0);
    w->last_prefix = __builtin_bswap64(bm_get_word(key, key_len));
    w->len = w->last + (uint32_t)bm_entry_len(e.value_len, key_len);
}
