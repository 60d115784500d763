/* The slowest right way to keep what a file says: a sorted array of keys, each with its entry. What
 * records do to it is written out from docs/spec/kv.md, R6 and R10. */
#ifndef TEST_MAP_MODEL_H
#define TEST_MAP_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/record.h"
#include "tests/support/test.h"

struct map_model_item {
    uint8_t *entry; /* whole, as in a map */
};

struct map_model {
    struct map_model_item *items;
    size_t len;
};

static inline void map_model_deinit(struct map_model *map)
{
    for (size_t i = 0; i < map->len; i++)
        free(map->items[i].entry);
    free(map->items);
    *map = (struct map_model){0};
}

/* Where the key is, or belongs. */
static inline size_t map_model_find(const struct map_model *map, const void *key, size_t len,
                                    bool *ret_there)
{
    size_t low = 0, high = map->len;
    *ret_there = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        struct bm_entry e = bm_entry_at(map->items[middle].entry);
        int order = bm_key_compare(bm_entry_key(&e), e.key_len, key, len);
        if (order == 0) {
            *ret_there = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static inline void map_model_put(struct map_model *map, const uint8_t *entry)
{
    struct bm_entry e = bm_entry_at(entry);
    bool there;
    size_t at = map_model_find(map, bm_entry_key(&e), e.key_len, &there);
    if (there) {
        free(map->items[at].entry);
    } else {
        map->items = realloc(map->items, (map->len + 1) * sizeof(*map->items));
        memmove(map->items + at + 1, map->items + at, (map->len - at) * sizeof(*map->items));
        map->len++;
    }
    map->items[at].entry = malloc(e.len);
    memcpy(map->items[at].entry, entry, e.len);
}

static inline void map_model_del(struct map_model *map, const uint8_t *entry)
{
    struct bm_entry e = bm_entry_at(entry);
    bool there;
    size_t at = map_model_find(map, bm_entry_key(&e), e.key_len, &there);
    if (!there)
        return;
    free(map->items[at].entry);
    map->len--;
    memmove(map->items + at, map->items + at + 1, (map->len - at) * sizeof(*map->items));
}

static inline void map_model_change(struct map_model *map, const uint8_t *body, size_t len)
{
    for (const uint8_t *p = body; p < body + len; p += bm_entry_at(p).len) {
        if (p[6] == BM_ENTRY_DEL)
            map_model_del(map, p);
        else
            map_model_put(map, p);
    }
}

static inline void map_model_apply(struct map_model *map, const struct bm_record *record)
{
    if (record->kind == BM_RECORD_SNAP || record->kind == BM_RECORD_DELTA)
        map_model_change(map, record->body, record->body_len);
}

/* What a body puts, and what it deletes (as entries without a value). */
static inline void map_model_split(const uint8_t *body, size_t len, struct map_model *puts,
                                   struct map_model *dels)
{
    for (const uint8_t *p = body; p < body + len; p += bm_entry_at(p).len)
        map_model_put(p[6] == BM_ENTRY_DEL ? dels : puts, p);
}

/* All entries, as the body of a map; for free(3). */
static inline uint8_t *map_model_body(const struct map_model *map, size_t *ret_len)
{
    uint8_t *body = NULL;
    size_t len = 0;
    for (size_t i = 0; i < map->len; i++) {
        size_t more = bm_entry_at(map->items[i].entry).len;
        body = realloc(body, len + more);
        memcpy(body + len, map->items[i].entry, more);
        len += more;
    }
    *ret_len = len;
    return body;
}

static inline bool map_model_same(const struct map_model *a, const struct map_model *b)
{
    bool same = a->len == b->len;
    for (size_t i = 0; same && i < a->len; i++) {
        size_t len = bm_entry_at(a->items[i].entry).len;
        same = bm_entry_at(b->items[i].entry).len == len &&
               memcmp(a->items[i].entry, b->items[i].entry, len) == 0;
    }
    return same;
}

static inline void map_model_json(const struct map_model *map, char *text, size_t cap)
{
    size_t len, text_len;
    uint8_t *body = map_model_body(map, &len);
    uint8_t *doc = calloc(1, 8 + len);
    bm_put_u64(doc, len | (uint64_t)BEAM_KV_MAP << 48);
    if (len > 0)
        memcpy(doc + 8, body, len);
    REQUIRE_INT(beam_kv_to_json(doc, 8 + len, text, cap, &text_len), 0);
    free(doc);
    free(body);
}

static inline void map_model_keys_json(const struct map_model *map, char *text, size_t cap)
{
    size_t used = (size_t)snprintf(text, cap, "[");
    for (size_t i = 0; i < map->len; i++) {
        struct bm_entry e = bm_entry_at(map->items[i].entry);
        used += (size_t)snprintf(text + used, cap - used, "%s\"%.*s\"", i > 0 ? "," : "",
                                 (int)e.key_len, (const char *)bm_entry_key(&e));
    }
    snprintf(text + used, cap - used, "]");
}

#endif
