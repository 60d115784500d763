/* See details.h. An end is told whether or not there is memory for what explains it, so nothing here
 * fails louder than by leaving it out. */
#include "runtime/details.h"

#include <stdbool.h>
#include <string.h>

#include "runtime/frame.h"
#include "runtime/pool.h"
#include "runtime/session.h"

#define WRITER_OVERHEAD 64u /* a key and headers, and what the writer keeps behind the entries */

uint32_t bm_details_write(const char *text, void *out)
{
    beam_kv_writer writer;
    const void *document;
    size_t len;
    if (!text || !text[0])
        return 0;
    beam_kv_writer_init(&writer, out, BM_DETAILS_LEN_MAX);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_str(&writer, "message", text);
    beam_kv_end(&writer);
    return beam_kv_writer_finish(&writer, &document, &len) == 0 ? (uint32_t)len : 0;
}

static bool is_message(beam_str key)
{
    static const char name[] = "message";
    return key.len == sizeof(name) - 1 && memcmp(key.ptr, name, key.len) == 0;
}

/* Puts all of map into the writer, its "message" only if there is no text to stand there. */
static void copy(beam_kv_writer *writer, const beam_kv_value *map, bool with_message)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    beam_kv_iter_init(&iter, map);
    while (beam_kv_iter_next(&iter, &key, &value) > 0)
        if (with_message || !is_message(key))
            beam_kv_put(writer, key, &value);
}

uint8_t *bm_details_make(struct bm_pool *pool, const void *map, size_t len, const char *text,
                         uint32_t *ret_len, uint32_t *ret_cap)
{
    bool has_text = text && text[0];
    beam_kv_writer writer;
    beam_kv_value root;
    const void *document;
    size_t new_len;
    uint32_t cap;
    if (len > BEAM_METADATA_LEN_MAX || beam_kv_check(map, len, NULL) < 0 ||
        beam_kv_root(map, len, &root) < 0 || root.type != BEAM_KV_MAP)
        return NULL;
    uint8_t *block = bm_pool_get(pool, len + (has_text ? strlen(text) : 0) + WRITER_OVERHEAD, &cap);
    if (!block)
        return NULL;
    beam_kv_writer_init(&writer, block, cap);
    beam_kv_begin_map(&writer, NULL);
    copy(&writer, &root, !has_text);
    if (has_text)
        beam_kv_put_str(&writer, "message", text);
    beam_kv_end(&writer);
    if (beam_kv_writer_finish(&writer, &document, &new_len) < 0 ||
        new_len > BEAM_METADATA_LEN_MAX) {
        bm_pool_put(pool, block, cap);
        return NULL;
    }
    *ret_len = (uint32_t)new_len;
    *ret_cap = cap;
    return block;
}
