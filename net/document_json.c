/* See document_json.h. A document is made of what is to be said, and that is converted: nothing here
 * knows how JSON is written, but for the escapes of characters that are not ASCII. */
#include "net/document_json.h"

#include <errno.h>
#include <string.h>

#define STACK_LEN 1024u /* ours: documents up to here need no memory */

static bool is(beam_str key, const char *name)
{
    return key.len == strlen(name) && memcmp(key.ptr, name, key.len) == 0;
}

/* Puts all of a map but one key; how many there were. */
static unsigned put_without(beam_kv_writer *writer, const beam_kv_value *map, const char *leave)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    unsigned count = 0;
    beam_kv_iter_init(&iter, map);
    while (beam_kv_iter_next(&iter, &key, &value) > 0) {
        if (leave && is(key, leave))
            continue;
        beam_kv_put(writer, key, &value);
        count++;
    }
    return count;
}

static int put_status(beam_kv_writer *writer, enum beam_code code, beam_str text,
                      const beam_kv_value *details)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    bool more = false;
    beam_kv_begin_map(writer, NULL);
    beam_kv_put_str(writer, "code", beam_code_name(code));
    beam_kv_iter_init(&iter, details);
    while (!more && beam_kv_iter_next(&iter, &key, &value) > 0)
        more = !is(key, "message");
    if (more) {
        beam_kv_begin_map(writer, "details");
        put_without(writer, details, "message");
        beam_kv_end(writer);
    }
    if (text.len > 0)
        beam_kv_put_strn(writer, "message", text.ptr, text.len);
    return beam_kv_end(writer);
}

int bm_document_json_status(enum beam_code code, beam_str text, const void *details, size_t len,
                            beam_buffer *out)
{
    const beam_kv_value none = {.type = BEAM_KV_NIL};
    _Alignas(8) uint8_t room[STACK_LEN];
    beam_kv_value map = none;
    beam_kv_writer writer;
    beam_buffer grown, json;
    const void *document;
    size_t document_len;
    if (details && (beam_kv_root(details, len, &map) < 0 || map.type != BEAM_KV_MAP))
        map = none;
    beam_buffer_init(&grown, SIZE_MAX);
    beam_buffer_init(&json, SIZE_MAX);
    beam_kv_writer_init(&writer, room, sizeof(room));
    int r = put_status(&writer, code, text, &map);
    if (r == -ENOSPC) {
        beam_kv_writer_init_buffer(&writer, &grown);
        r = put_status(&writer, code, text, &map);
    }
    if (r < 0 && r != -ENOMEM) { /* a text that is none: the code says enough */
        beam_kv_writer_init(&writer, room, sizeof(room));
        r = put_status(&writer, code, (beam_str){0}, &none);
    }
    if (r == 0)
        r = beam_kv_writer_finish(&writer, &document, &document_len);
    if (r == 0)
        r = beam_convert(&beam_kv_codec, &beam_json, document, document_len, NULL, &json, NULL);
    if (r == 0)
        r = beam_buffer_add(out, json.ptr, json.len);
    beam_buffer_deinit(&grown);
    beam_buffer_deinit(&json);
    return r;
}

/* The character that begins at text[0], which is UTF-8; its length. */
static size_t decode(const unsigned char *text, uint32_t *ret)
{
    unsigned char c = text[0];
    if (c < 0xe0) {
        *ret = (uint32_t)(c & 0x1f) << 6 | (text[1] & 0x3f);
        return 2;
    }
    if (c < 0xf0) {
        *ret = (uint32_t)(c & 0x0f) << 12 | (uint32_t)(text[1] & 0x3f) << 6 | (text[2] & 0x3f);
        return 3;
    }
    *ret = (uint32_t)(c & 0x07) << 18 | (uint32_t)(text[1] & 0x3f) << 12 |
           (uint32_t)(text[2] & 0x3f) << 6 | (text[3] & 0x3f);
    return 4;
}

static int add_escape(beam_buffer *out, uint32_t unit)
{
    static const char digits[] = "0123456789abcdef";
    char text[6] = {'\\',
                    'u',
                    digits[unit >> 12 & 15],
                    digits[unit >> 8 & 15],
                    digits[unit >> 4 & 15],
                    digits[unit & 15]};
    return beam_buffer_add(out, text, sizeof(text));
}

/* JSON as it was converted, so UTF-8, with everything that is not printable ASCII escaped; outside of
 * strings there is no such thing. */
static int add_ascii(beam_buffer *out, const unsigned char *text, size_t len)
{
    size_t i = 0;
    while (i < len) {
        size_t plain = i;
        while (plain < len && text[plain] >= 0x20 && text[plain] < 0x7f)
            plain++;
        beam_buffer_add(out, text + i, plain - i);
        i = plain;
        if (i == len)
            break;
        uint32_t c = text[i];
        i += c < 0x80 ? 1 : decode(text + i, &c);
        if (c >= 0x10000) {
            add_escape(out, 0xd800 + ((c - 0x10000) >> 10));
            add_escape(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
        } else {
            add_escape(out, c);
        }
    }
    return out->error;
}

int bm_document_json_field(const void *document, size_t len, const char *leave, beam_buffer *out,
                           bool *ret_empty)
{
    beam_buffer left, json;
    beam_kv_writer writer;
    beam_kv_value map, value;
    beam_kv_iter iter;
    int r = beam_kv_root(document, len, &map);
    if (r < 0)
        return r;
    beam_buffer_init(&left, SIZE_MAX);
    beam_buffer_init(&json, SIZE_MAX);
    bool leaves = leave && beam_kv_get(&map, leave, &value) == 0;
    beam_kv_iter_init(&iter, &map);
    unsigned count = 0;
    while (count <= leaves && beam_kv_iter_next(&iter, NULL, &value) > 0)
        count++;
    count -= leaves; /* most answers have nothing else */
    if (leaves && count > 0) {
        beam_kv_writer_init_buffer(&writer, &left);
        beam_kv_begin_map(&writer, NULL);
        put_without(&writer, &map, leave);
        beam_kv_end(&writer);
        r = beam_kv_writer_finish(&writer, &document, &len);
    }
    if (r == 0 && count > 0) {
        r = beam_convert(&beam_kv_codec, &beam_json, document, len, NULL, &json, NULL);
        if (r == 0)
            r = add_ascii(out, json.ptr, json.len);
    }
    beam_buffer_deinit(&left);
    beam_buffer_deinit(&json);
    if (r == 0)
        *ret_empty = count == 0;
    return r;
}
