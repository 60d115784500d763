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

uint32_t bm_about_write(const struct bm_about *about, enum bm_channel_mode mode, void *out)
{
    beam_kv_writer writer;
    const void *document;
    size_t len;
    if (mode != BM_MODE_FD && !about->dedicated)
        return 0;
    beam_kv_writer_init(&writer, out, BM_ABOUT_LEN_MAX);
    beam_kv_begin_map(&writer, NULL);
    if (mode == BM_MODE_FD) {
        beam_kv_put_str(&writer, "access", !about->writable ? "r" : about->readable ? "rw" : "w");
        beam_kv_put_str(&writer, "kind", kinds[about->kind]);
        if (about->length != BM_PUMP_TO_END)
            beam_kv_put_int(&writer, "length", (int64_t)about->length);
    }
    if (about->dedicated)
        beam_kv_put_bytes(&writer, "token", about->token, BM_TOKEN_LEN);
    beam_kv_end(&writer);
    int r = beam_kv_writer_finish(&writer, &document, &len);
    bm_assert(r == 0 && len % 8 == 0); /* four short keys fit */
    return (uint32_t)len;
}

static int parse_descriptor(const beam_kv_value *map, struct bm_about *about)
{
    beam_str text;
    int64_t length;
    unsigned kind = 0;
    if (beam_kv_get_str(map, "kind", &text) < 0)
        return -BEAM_EFRAME_ATTACHMENT;
    while (kind < BM_ARRAY_LEN(kinds) && !same(text, kinds[kind]))
        kind++;
    if (kind == BM_ARRAY_LEN(kinds) || beam_kv_get_str(map, "access", &text) < 0)
        return -BEAM_EFRAME_ATTACHMENT;
    about->kind = (enum bm_pump_kind)kind;
    about->readable = same(text, "r") || same(text, "rw");
    about->writable = same(text, "w") || same(text, "rw");
    if (!about->readable && !about->writable)
        return -BEAM_EFRAME_ATTACHMENT;
    int r = beam_kv_get_int(map, "length", &length);
    if (r == 0 && length >= 0)
        about->length = (uint64_t)length;
    else if (r != -ENOENT)
        return -BEAM_EFRAME_ATTACHMENT;
    return 0;
}

static int parse_token(const beam_kv_value *map, struct bm_about *about)
{
    beam_bytes token;
    int r = beam_kv_get_bytes(map, "token", &token);
    if (r == -ENOENT)
        return 0;
    if (r < 0 || token.len != BM_TOKEN_LEN)
        return -BEAM_EFRAME_ATTACHMENT;
    about->dedicated = true;
    memcpy(about->token, token.ptr, BM_TOKEN_LEN);
    return 0;
}

int bm_about_parse(const void *document, uint32_t len, enum bm_channel_mode mode,
                   struct bm_about *ret_about)
{
    struct bm_about about = {.length = BM_PUMP_TO_END};
    beam_kv_value map;
    int r = 0;
    if (len > 0 || mode == BM_MODE_FD) {
        if (len > BM_ABOUT_LEN_MAX || beam_kv_check(document, len, NULL) < 0 ||
            beam_kv_root(document, len, &map) < 0)
            return -BEAM_EFRAME_ATTACHMENT;
        if (mode == BM_MODE_FD)
            r = parse_descriptor(&map, &about);
        if (r == 0 && mode != BM_MODE_MESSAGES)
            r = parse_token(&map, &about);
    }
    if (r == 0)
        *ret_about = about;
    return r;
}
