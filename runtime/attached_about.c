/* See attached_about.h. Keys nobody here knows are passed over. Knows nothing of channels and descriptors. */
#include "runtime/attached_about.h"

#include <errno.h>
#include <string.h>

#include <beam/error.h>
#include <beam/kv.h>

#include "base/assert.h"
#include "base/cleanup.h"

static const char *const kinds[] = {
    [BM_PUMP_FILE] = "file",
    [BM_PUMP_PIPE] = "pipe",
    [BM_PUMP_SOCKET] = "socket",
};

static bool same(beam_str text, const char *other)
{
    return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

uint32_t bm_about_write(const struct bm_about *about, void *out)
{
    beam_kv_writer writer;
    const void *document;
    size_t len;
    beam_kv_writer_init(&writer, out, BM_ABOUT_LEN_MAX);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_str(&writer, "access", !about->writable ? "r" : about->readable ? "rw" : "w");
    beam_kv_put_str(&writer, "kind", kinds[about->kind]);
    if (about->length != BM_PUMP_TO_END)
        beam_kv_put_int(&writer, "length", (int64_t)about->length);
    beam_kv_end(&writer);
    int r = beam_kv_writer_finish(&writer, &document, &len);
    bm_assert(r == 0 && len % 8 == 0); /* three short keys fit */
    return (uint32_t)len;
}

int bm_about_parse(const void *document, uint32_t len, struct bm_about *ret_about)
{
    struct bm_about about = {.length = BM_PUMP_TO_END};
    beam_kv_value map;
    beam_str text;
    int64_t length;
    if (len > BM_ABOUT_LEN_MAX || beam_kv_check(document, len, NULL) < 0 ||
        beam_kv_root(document, len, &map) < 0 || beam_kv_get_str(&map, "kind", &text) < 0)
        return -BEAM_EFRAME_ATTACHMENT;
    unsigned kind = 0;
    while (kind < BM_ARRAY_LEN(kinds) && !same(text, kinds[kind]))
        kind++;
    if (kind == BM_ARRAY_LEN(kinds) || beam_kv_get_str(&map, "access", &text) < 0)
        return -BEAM_EFRAME_ATTACHMENT;
    about.kind = (enum bm_pump_kind)kind;
    about.readable = same(text, "r") || same(text, "rw");
    about.writable = same(text, "w") || same(text, "rw");
    if (!about.readable && !about.writable)
        return -BEAM_EFRAME_ATTACHMENT;
    int r = beam_kv_get_int(&map, "length", &length);
    if (r == 0 && length >= 0)
        about.length = (uint64_t)length;
    else if (r != -ENOENT)
        return -BEAM_EFRAME_ATTACHMENT;
    *ret_about = about;
    return 0;
}
