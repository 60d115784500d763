/* See feed.h. A map or list is its header, its entries, and then its own key, so that a document is
 * written from front to back if the length of what it holds is known, or the header is filled in at the
 * end. The keys of a message are in their order: delete, kind, rev, set.
 *
 * What is written here passes beam_kv_check, if the entries do; what is read here was written here. */
#include "runtime/feed.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

/* --- writing --------------------------------------------------------------------------------- */

static uint8_t *put_header(uint8_t *to, uint64_t value_len, size_t key_len, uint8_t type)
{
    bm_put_u32(to, (uint32_t)value_len);
    bm_put_u16(to + 4, (uint16_t)key_len);
    to[6] = type;
    to[7] = 0;
    return to + BM_ENTRY_HEADER_LEN;
}

/* Value and key of one entry, whose header is in front of `to`, and the padding. */
static uint8_t *put_rest(uint8_t *to, const void *value, size_t value_len, const char *key)
{
    size_t key_len = strlen(key), end = bm_round_up8(value_len + key_len);
    if (end > 0)
        bm_put_u64(to + end - 8, 0);
    if (value_len > 0)
        memcpy(to, value, value_len);
    memcpy(to + value_len, key, key_len);
    return to + end;
}

static uint8_t *put_key(uint8_t *to, const char *key)
{
    return put_rest(to, NULL, 0, key);
}

static uint8_t *put_kind(uint8_t *to, const char *kind)
{
    to = put_header(to, strlen(kind), 4, BEAM_KV_STR);
    return put_rest(to, kind, strlen(kind), "kind");
}

static uint8_t *put_rev(uint8_t *to, uint64_t rev)
{
    to = put_header(to, 8, 3, BEAM_KV_INT);
    return put_rest(to, &rev, 8, "rev");
}

#define KIND_LEN(len) (8 + bm_round_up8(len + 4)) /* of an entry under "kind" */
#define REV_LEN ((size_t)24)
#define SET_KEY_LEN ((size_t)8)

static size_t delta_len(uint64_t delete_len, uint64_t set_len)
{
    return (size_t)(BM_ENTRY_HEADER_LEN + (delete_len ? BM_ENTRY_HEADER_LEN + delete_len + 8 : 0) +
                    KIND_LEN(5) + REV_LEN +
                    (set_len ? BM_ENTRY_HEADER_LEN + set_len + SET_KEY_LEN : 0));
}

static void measure(const struct bm_changes *changes, uint64_t *ret_delete, uint64_t *ret_set)
{
    *ret_delete = *ret_set = 0;
    for (uint32_t i = 0; i < changes->count; i++) {
        const struct bm_tree_entry *entry = changes->items[i].entry;
        *(bm_state_is_del(entry) ? ret_delete : ret_set) += bm_state_entry_len(entry);
    }
}

size_t bm_feed_delta_len(const struct bm_changes *changes)
{
    uint64_t delete_len, set_len;
    measure(changes, &delete_len, &set_len);
    return delta_len(delete_len, set_len);
}

/* A key in the list of those that go: a string, which is as long as the deletion's entry. */
static uint8_t *put_deleted(uint8_t *to, const struct bm_tree_entry *entry)
{
    beam_str key = bm_state_key(entry);
    to = put_header(to, key.len, 0, BEAM_KV_STR);
    return put_rest(to, key.ptr, key.len, "");
}

void bm_feed_delta(uint8_t *to, const struct bm_changes *changes, uint64_t rev)
{
    uint64_t delete_len, set_len;
    measure(changes, &delete_len, &set_len);
    to = put_header(to, delta_len(delete_len, set_len) - BM_ENTRY_HEADER_LEN, 0, BEAM_KV_MAP);
    if (delete_len > 0) {
        to = put_header(to, delete_len, 6, BEAM_KV_LIST);
        for (uint32_t i = 0; i < changes->count; i++)
            if (bm_state_is_del(changes->items[i].entry))
                to = put_deleted(to, changes->items[i].entry);
        to = put_key(to, "delete");
    }
    to = put_kind(to, "delta");
    to = put_rev(to, rev);
    if (set_len == 0)
        return;
    to = put_header(to, set_len, 3, BEAM_KV_MAP);
    for (uint32_t i = 0; i < changes->count; i++) {
        const struct bm_tree_entry *entry = changes->items[i].entry;
        if (bm_state_is_del(entry))
            continue;
        memcpy(to, entry->bytes, bm_state_entry_len(entry));
        to += bm_state_entry_len(entry);
    }
    put_key(to, "set");
}

uint64_t bm_feed_rev(const uint8_t *delta, size_t len)
{
    beam_kv_value map;
    uint64_t rev = 0;
    if (beam_kv_root(delta, len, &map) == 0)
        (void)beam_kv_get_uint(&map, "rev", &rev);
    return rev;
}

/* --- filtering ------------------------------------------------------------------------------- */

/* Whether a key is before, among or behind those with the prefix: below, at or above 0. */
static int compare_prefix(const uint8_t *key, size_t len, beam_str prefix)
{
    int order = memcmp(key, prefix.ptr, len < prefix.len ? len : prefix.len);
    return order == 0 && len < prefix.len ? -1 : order;
}

/* Of the entries of a map, or a list of strings, both in order, those with the prefix: one run. */
static beam_bytes run_of(const beam_kv_value *container, beam_str prefix, uint64_t *looked)
{
    const uint8_t *pos = container->bytes.ptr, *end = pos + container->bytes.len, *from = NULL;
    while (pos < end) {
        struct bm_entry e = bm_entry_at(pos);
        bool list = container->type == BEAM_KV_LIST;
        const uint8_t *key = list ? e.value : bm_entry_key(&e);
        size_t len = list ? e.value_len : e.key_len;
        int order = compare_prefix(key, len, prefix);
        ++*looked;
        if (order > 0)
            break;
        if (order == 0 && !from)
            from = pos;
        pos += e.len;
    }
    return from ? (beam_bytes){from, (size_t)(pos - from)} : (beam_bytes){NULL, 0};
}

int bm_feed_filter(const uint8_t *delta, size_t len, beam_str prefix, beam_buffer *out,
                   uint64_t *ret_looked)
{
    beam_kv_value map, part;
    beam_bytes deleted = {NULL, 0}, set = {NULL, 0};
    int r = beam_kv_root(delta, len, &map);
    bm_assert(r == 0);
    *ret_looked = 0;
    if (beam_kv_get(&map, "delete", &part) == 0)
        deleted = run_of(&part, prefix, ret_looked);
    if (beam_kv_get(&map, "set", &part) == 0)
        set = run_of(&part, prefix, ret_looked);
    if (deleted.len == 0 && set.len == 0)
        return 0;

    size_t total = delta_len(deleted.len, set.len);
    uint8_t *to;
    beam_buffer_clear(out);
    r = beam_buffer_reserve(out, total, &to);
    if (r < 0)
        return r;
    beam_buffer_advance(out, total);
    to = put_header(to, total - BM_ENTRY_HEADER_LEN, 0, BEAM_KV_MAP);
    if (deleted.len > 0) {
        to = put_header(to, deleted.len, 6, BEAM_KV_LIST);
        memcpy(to, deleted.ptr, deleted.len);
        to = put_key(to + deleted.len, "delete");
    }
    to = put_kind(to, "delta");
    to = put_rev(to, bm_feed_rev(delta, len));
    if (set.len > 0) {
        to = put_header(to, set.len, 3, BEAM_KV_MAP);
        memcpy(to, set.ptr, set.len);
        put_key(to + set.len, "set");
    }
    return 1;
}

/* --- snapshots ------------------------------------------------------------------------------- */

#define SNAP_SET_AT (BM_ENTRY_HEADER_LEN + KIND_LEN(4) + REV_LEN)

int bm_feed_snap_begin(beam_buffer *out, uint64_t rev)
{
    uint8_t *to;
    beam_buffer_clear(out);
    int r = beam_buffer_reserve(out, SNAP_SET_AT + BM_ENTRY_HEADER_LEN, &to);
    if (r < 0)
        return r;
    put_rev(put_kind(to + BM_ENTRY_HEADER_LEN, "snap"), rev);
    beam_buffer_advance(out, SNAP_SET_AT + BM_ENTRY_HEADER_LEN); /* two headers are still to come */
    return 0;
}

int bm_feed_snap_add(beam_buffer *out, const struct bm_tree_entry *entry)
{
    return beam_buffer_add(out, entry->bytes, bm_state_entry_len(entry));
}

int bm_feed_snap_end(beam_buffer *out)
{
    uint8_t *to;
    size_t set_len = out->len - SNAP_SET_AT - BM_ENTRY_HEADER_LEN;
    int r = beam_buffer_reserve(out, SET_KEY_LEN, &to);
    if (r < 0)
        return r;
    put_key(to, "set");
    beam_buffer_advance(out, SET_KEY_LEN);
    put_header(out->ptr + SNAP_SET_AT, set_len, 3, BEAM_KV_MAP);
    put_header(out->ptr, out->len - BM_ENTRY_HEADER_LEN, 0, BEAM_KV_MAP);
    return 0;
}

/* --- what is short --------------------------------------------------------------------------- */

static size_t finish(beam_kv_writer *writer)
{
    const void *document;
    size_t len = 0;
    beam_kv_end(writer);
    int r = beam_kv_writer_finish(writer, &document, &len);
    bm_assert(r == 0);
    return len;
}

size_t bm_feed_head(uint8_t *to, const struct bm_feed_head *head)
{
    beam_kv_writer w;
    char epoch[BM_EPOCH_TEXT_LEN + 1];
    bm_epoch_write(epoch, head->epoch);
    beam_kv_writer_init(&w, to, BM_FEED_SHORT_MAX);
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "epoch", epoch);
    beam_kv_put_uint(&w, "heartbeat_ms", head->heartbeat_ms);
    beam_kv_put_str(&w, "kind", "head");
    beam_kv_put_bool(&w, "resume", head->resume);
    beam_kv_put_uint(&w, "rev", head->rev);
    if (head->skipped > 0)
        beam_kv_put_uint(&w, "skipped", head->skipped);
    return finish(&w);
}

size_t bm_feed_live(uint8_t *to, uint64_t rev)
{
    beam_kv_writer w;
    beam_kv_writer_init(&w, to, BM_FEED_SHORT_MAX);
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "kind", "live");
    beam_kv_put_uint(&w, "rev", rev);
    return finish(&w);
}

size_t bm_feed_mark(uint8_t *to, uint64_t rev, uint64_t now)
{
    beam_kv_writer w;
    beam_kv_writer_init(&w, to, BM_FEED_SHORT_MAX);
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "kind", "mark");
    beam_kv_put_uint(&w, "now", now);
    beam_kv_put_uint(&w, "rev", rev);
    return finish(&w);
}

void bm_epoch_write(char *to, uint64_t epoch)
{
    snprintf(to, BM_EPOCH_TEXT_LEN + 1, "%016" PRIx64, epoch);
}

int bm_epoch_read(beam_str text, uint64_t *ret_epoch)
{
    uint64_t epoch = 0;
    if (text.len != BM_EPOCH_TEXT_LEN)
        return -EINVAL;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return -EINVAL;
        epoch = epoch << 4 | (unsigned)digit;
    }
    *ret_epoch = epoch;
    return 0;
}
