/* Documents as XML in the vocabulary of <kv> (docs/spec/codecs.md, T16). Only this direction, and without
 * expat; the other is xml.c.
 *
 * A text is escaped, or, if it holds a character that XML has no form for, written as base64. The open maps
 * and lists are a stack as deep as documents are. */
#include "kv/xml.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "kv/base64.h"
#include "kv/json.h"

static void add(beam_buffer *t, const char *s, size_t len)
{
    (void)beam_buffer_add(t, s, len);
}

static void add_z(beam_buffer *t, const char *s)
{
    add(t, s, strlen(s));
}

static void add_base64(beam_buffer *t, const void *bytes, size_t len)
{
    unsigned char *room;
    if (len == 0 || beam_buffer_reserve(t, bm_base64_encoded_len(len), &room) < 0)
        return;
    bm_base64_encode((char *)room, (const uint8_t *)bytes, len);
    beam_buffer_advance(t, bm_base64_encoded_len(len));
}

/* Whether XML 1.0 (section 2.2) has all of its characters. */
static bool is_xml_text(beam_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
            return false;
        if (c == 0xef && (memcmp(s.ptr + i, "\xef\xbf\xbe", 3) == 0 ||
                          memcmp(s.ptr + i, "\xef\xbf\xbf", 3) == 0))
            return false;
    }
    return true;
}

/* What a reader would take for markup, or change: line ends everywhere, white space in attributes. */
static const char *escape_of(char c, bool attribute)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '\r':
        return "&#13;";
    case '"':
        return attribute ? "&quot;" : NULL;
    case '\t':
        return attribute ? "&#9;" : NULL;
    case '\n':
        return attribute ? "&#10;" : NULL;
    default:
        return NULL;
    }
}

static void add_escaped(beam_buffer *t, beam_str s, bool attribute)
{
    size_t plain = 0; /* start of what needs no escape */
    for (size_t i = 0; i < s.len; i++) {
        const char *escape = escape_of(s.ptr[i], attribute);
        if (!escape)
            continue;
        add(t, s.ptr + plain, i - plain);
        add_z(t, escape);
        plain = i + 1;
    }
    if (s.len > plain)
        add(t, s.ptr + plain, s.len - plain);
}

static const char *name_of(beam_kv_type type)
{
    static const char *const names[] = {
        [BEAM_KV_NIL] = "nil",   [BEAM_KV_FALSE] = "false", [BEAM_KV_TRUE] = "true",
        [BEAM_KV_INT] = "int",   [BEAM_KV_UINT] = "int",    [BEAM_KV_FLOAT] = "float",
        [BEAM_KV_STR] = "str",   [BEAM_KV_BYTES] = "bytes", [BEAM_KV_MAP] = "map",
        [BEAM_KV_LIST] = "list",
    };
    return names[type];
}

/* Everything of a start tag but its end; key.ptr is NULL where there is none. */
static void add_tag(beam_buffer *t, beam_kv_type type, beam_str key)
{
    add(t, "<", 1);
    add_z(t, name_of(type));
    if (!key.ptr)
        return;
    if (is_xml_text(key)) {
        add_z(t, " k=\"");
        add_escaped(t, key, true);
    } else {
        add_z(t, " k64=\"");
        add_base64(t, key.ptr, key.len);
    }
    add(t, "\"", 1);
}

static void add_end(beam_buffer *t, beam_kv_type type)
{
    add(t, "</", 2);
    add_z(t, name_of(type));
    add(t, ">", 1);
}

/* A value, or the start tag of a map or list. */
static void add_value(beam_buffer *t, beam_str key, const beam_kv_value *value)
{
    bool base64 = value->type == BEAM_KV_STR && !is_xml_text(value->str);
    add_tag(t, value->type, key);
    if (value->type <= BEAM_KV_TRUE) {
        add(t, "/>", 2);
        return;
    }
    add_z(t, base64 ? " enc=\"b64\">" : ">");
    if (value->type >= BEAM_KV_MAP)
        return;
    if (value->type <= BEAM_KV_FLOAT)
        bm_json_write_number(value, t);
    else if (base64 || value->type == BEAM_KV_BYTES)
        add_base64(t, value->bytes.ptr, value->bytes.len);
    else
        add_escaped(t, value->str, false);
    add_end(t, value->type);
}

int bm_xml_write(const beam_kv_value *root, beam_buffer *t)
{
    struct {
        beam_kv_iter iter;
        beam_kv_type type;
    } stack[BEAM_KV_DEPTH_MAX];
    int top = -1;
    beam_kv_value value = *root;
    beam_str key = {NULL, 0};

    add_z(t, "<kv>");
    for (;;) {
        add_value(t, key, &value);
        if (value.type >= BEAM_KV_MAP) {
            top++;
            bm_assert(top < BEAM_KV_DEPTH_MAX);
            stack[top].type = value.type;
            beam_kv_iter_init(&stack[top].iter, &value);
        }
        for (; top >= 0 && beam_kv_iter_next(&stack[top].iter, &key, &value) <= 0; top--)
            add_end(t, stack[top].type);
        if (top < 0 || t->error)
            break;
        if (stack[top].type == BEAM_KV_LIST)
            key.ptr = NULL;
    }
    add_z(t, "</kv>");
    return t->error;
}
