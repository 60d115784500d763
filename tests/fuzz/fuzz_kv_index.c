/* Any bytes as a document, and any numbers as an index over it.
 *
 * With the numbers: whatever is asked, the answer lies inside the document, and the search ends. With an
 * index that was built: over a valid map each key is found where the walk has it, what is not there is not
 * found, and entries by number are those of the walk.
 *
 * Input: how many offsets (a byte), each two bytes; a key's length (a byte) and the key; the document.
 *
 * Covers: kv/index.c */
#include <errno.h>
#include <stdbool.h>

#include <beam/kv.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_LEN_MAX (16u << 10)

struct document {
    uint8_t *bytes;
    size_t len;
};

static void check_inside(const struct document *doc, const void *ptr, size_t len)
{
    const uint8_t *p = (const uint8_t *)ptr;
    EXPECT(p >= doc->bytes && p <= doc->bytes + doc->len);
    EXPECT(len <= (size_t)(doc->bytes + doc->len - p));
}

static void check_answer(const struct document *doc, const beam_kv_value *value)
{
    EXPECT(value->type >= BEAM_KV_NIL && value->type <= BEAM_KV_LIST);
    if (value->type >= BEAM_KV_STR)
        check_inside(doc, value->bytes.ptr, value->bytes.len);
}

static void ask(const struct document *doc, const beam_kv_index *index, beam_str key)
{
    beam_kv_value value;
    beam_str found;
    size_t n;
    if (beam_kv_index_find(index, key, &value) == 0)
        check_answer(doc, &value);
    if (beam_kv_index_lower_bound(index, key, &n) == 0)
        EXPECT(n <= index->count);
    for (n = 0; n <= index->count; n++) {
        int r = beam_kv_index_at(index, n, &found, &value);
        EXPECT(n < index->count || r == -ENOENT);
        if (r < 0)
            continue;
        check_inside(doc, found.ptr, found.len);
        check_answer(doc, &value);
    }
}

static bool same(const beam_kv_value *a, const beam_kv_value *b)
{
    return a->type == b->type && (a->type <= BEAM_KV_TRUE || a->u == b->u);
}

static int compare(beam_str a, beam_str b)
{
    size_t both = a.len < b.len ? a.len : b.len;
    int order = both > 0 ? memcmp(a.ptr, b.ptr, both) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static void check_built(const beam_kv_index *index, beam_str wanted)
{
    const beam_kv_value *map = &index->container;
    beam_kv_value value, other;
    beam_kv_iter iter;
    beam_str key, key_at;
    size_t n = 0, below = 0, bound = 0;
    beam_kv_iter_init(&iter, map);
    for (; beam_kv_iter_next(&iter, &key, &value) > 0; n++) {
        EXPECT(beam_kv_index_at(index, n, &key_at, &other) == 0);
        EXPECT(key_at.ptr == key.ptr && key_at.len == key.len && same(&value, &other));
        below += compare(key, wanted) < 0;
        if (map->type == BEAM_KV_MAP)
            EXPECT(beam_kv_index_find(index, key, &other) == 0 && same(&value, &other));
    }
    EXPECT(n == index->count);
    if (map->type != BEAM_KV_MAP)
        return;
    int r = beam_kv_find(map, wanted, &value);
    EXPECT(beam_kv_index_find(index, wanted, &other) == r && (r < 0 || same(&value, &other)));
    EXPECT(beam_kv_index_lower_bound(index, wanted, &bound) == 0 && bound == below);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    beam_kv_value root;
    if (size > INPUT_LEN_MAX)
        return 0;

    size_t count = fuzz_byte(&in);
    uint32_t *lies = malloc(count * sizeof(*lies));
    for (size_t i = 0; i < count; i++) {
        lies[i] = fuzz_byte(&in);
        lies[i] |= (uint32_t)fuzz_byte(&in) << 8;
        if (lies[i] >> 8 == 0xff) /* the far ones, too */
            lies[i] |= UINT32_MAX << 8;
    }
    size_t key_len = fuzz_byte(&in);
    const uint8_t *view = fuzz_view(&in, &key_len);
    char *text = fuzz_copy(view, key_len);
    beam_str key = {text, key_len};
    struct document doc = {.len = (size_t)(in.end - in.pos)};
    doc.bytes = fuzz_copy(in.pos, doc.len);

    if (beam_kv_root(doc.bytes, doc.len, &root) == 0) {
        beam_kv_index index = {.container = root, .offsets = lies, .count = count};
        ask(&doc, &index, key);

        size_t cap = root.type >= BEAM_KV_MAP ? root.bytes.len / 8 : 0;
        uint32_t *offsets = malloc(cap * sizeof(*offsets));
        int r = beam_kv_index_build(&root, offsets, cap, &index);
        bool valid = beam_kv_check(doc.bytes, doc.len, NULL) == 0;
        EXPECT(r != -ENOSPC && (!valid || r == (root.type >= BEAM_KV_MAP ? 0 : -EINVAL)));
        if (r == 0)
            ask(&doc, &index, key);
        if (r == 0 && valid)
            check_built(&index, key);
        free(offsets);
    }
    free(doc.bytes);
    free(text);
    free(lies);
    return 0;
}
