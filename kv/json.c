/* Documents as JSON text (docs/spec/kv.md, K15). Only this direction; the other is json_reader.c.
 *
 * The document was checked, so the walk meets no surprise; the open maps and lists are a stack as
 * deep as K10 allows. Text that does not fit is dropped from there on: the buffer keeps the error. */
#include "kv/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "kv/base64.h"
#include "kv/decimal.h"
#include "kv/entry.h"

#define SAFE_MAX ((INT64_C(1) << 53) - 1) /* T11 */

static inline void add(beam_buffer *t, const char *s, size_t len)
{
    if (!t->error && len <= t->cap - t->len) {
        if (len > 0)
            memcpy(t->ptr + t->len, s, len);
        t->len += len;
        return;
    }
    (void)beam_buffer_add(t, s, len);
}

static inline void add_z(beam_buffer *t, const char *s)
{
    add(t, s, strlen(s));
}

static void add_string(beam_buffer *t, const char *s, size_t len, const char *before)
{
    static const char hex[] = "0123456789abcdef";
    size_t plain = 0; /* start of what needs no escape */

    add_z(t, "\"");
    add_z(t, before);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        add(t, s + plain, i - plain);
        plain = i + 1;
        /* by position: b t n (v has no short form) f r are 8 to 13 */
        char escape[] = {'\\', c < 0x20 ? 'u' : (char)c, '0', '0', hex[c >> 4], hex[c & 15]};
        size_t escape_len = c < 0x20 ? 6 : 2;
        if (c >= 8 && c <= 13 && c != 11) {
            escape[1] = "btn?fr"[c - 8];
            escape_len = 2;
        }
        add(t, escape, escape_len);
    }
    add(t, s + plain, len - plain);
    add_z(t, "\"");
}

static void add_base64(beam_buffer *t, const uint8_t *p, size_t len)
{
    unsigned char *room;
    if (beam_buffer_reserve(t, bm_base64_encoded_len(len), &room) < 0)
        return;
    bm_base64_encode((char *)room, p, len);
    beam_buffer_advance(t, bm_base64_encoded_len(len));
}

/* The notation of ECMA-262 (Number::toString, radix 10), and ".0" where that looks like an int. */
static void add_float(beam_buffer *t, double f)
{
    static const char zeros[] = "000000000000000000000";
    char digits[BM_DECIMAL_DIGITS_MAX + 1], exponent_text[8];
    int exponent = 0;

    if (!isfinite(f)) {
        add_z(t, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    if (signbit(f))
        add_z(t, "-");
    if (f == 0) {
        add_z(t, "0.0");
        return;
    }
    int count = bm_decimal_shortest(fabs(f), digits, &exponent);
    if (exponent > 20 || exponent < -6) {
        add(t, digits, 1);
        if (count > 1) {
            add_z(t, ".");
            add_z(t, digits + 1);
        }
        snprintf(exponent_text, sizeof(exponent_text), "e%+d", exponent);
        add_z(t, exponent_text);
    } else if (exponent < 0) {
        add_z(t, "0.");
        add(t, zeros, (size_t)(-exponent - 1));
        add_z(t, digits);
    } else if (exponent + 1 >= count) {
        add_z(t, digits);
        add(t, zeros, (size_t)(exponent + 1 - count));
        add_z(t, ".0");
    } else {
        add(t, digits, (size_t)(exponent + 1));
        add_z(t, ".");
        add_z(t, digits + exponent + 1);
    }
}

static void add_integer(beam_buffer *t, bool negative, uint64_t magnitude)
{
    char text[24], *p = text + sizeof(text);
    do {
        *--p = (char)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude > 0);
    if (negative)
        *--p = '-';
    add(t, p, (size_t)(text + sizeof(text) - p));
}

void bm_json_write_number(const beam_kv_value *number, beam_buffer *out)
{
    if (number->type == BEAM_KV_FLOAT)
        add_float(out, number->f);
    else if (number->type == BEAM_KV_INT && number->i < 0)
        add_integer(out, true, 0 - number->u);
    else
        add_integer(out, false, number->u);
}

/* Whether a receiver whose numbers are all binary64 could take it for another one. */
static bool is_unsafe(const beam_kv_value *value)
{
    return value->type == BEAM_KV_UINT ||
           (value->type == BEAM_KV_INT && (value->i > SAFE_MAX || value->i < -SAFE_MAX));
}

/* A value, or the opening bracket of a map or list. */
static void add_value(beam_buffer *t, const beam_kv_value *value, bool safe)
{
    switch (value->type) {
    case BEAM_KV_NIL:
        add(t, "null", 4);
        break;
    case BEAM_KV_FALSE:
        add(t, "false", 5);
        break;
    case BEAM_KV_TRUE:
        add(t, "true", 4);
        break;
    case BEAM_KV_INT:
    case BEAM_KV_UINT:
    case BEAM_KV_FLOAT: {
        const char *form = value->type == BEAM_KV_FLOAT
                               ? (isfinite(value->f) ? NULL : "{\"$float\":\"")
                               : (safe && is_unsafe(value) ? "{\"$int\":\"" : NULL);
        if (form)
            add_z(t, form);
        bm_json_write_number(value, t);
        if (form)
            add(t, "\"}", 2);
        break;
    }
    case BEAM_KV_STR:
        add_string(t, value->str.ptr, value->str.len, "");
        break;
    case BEAM_KV_BYTES:
        add_z(t, "{\"$bytes\":\"");
        add_base64(t, (const uint8_t *)value->bytes.ptr, value->bytes.len);
        add(t, "\"}", 2);
        break;
    case BEAM_KV_MAP:
        add(t, "{", 1);
        break;
    case BEAM_KV_LIST:
        add(t, "[", 1);
        break;
    }
}

/* Whether this is a map of one key that could be taken for one of ours. */
static bool needs_escape(const beam_kv_value *map)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    beam_kv_iter_init(&iter, map);
    return map->type == BEAM_KV_MAP && beam_kv_iter_next(&iter, &key, &value) == 1 && key.len > 0 &&
           key.ptr[0] == '$' && iter.pos == iter.end;
}

struct level {
    beam_kv_iter iter;
    bool map;
    bool escape;
    bool started;
};

int bm_json_write(const beam_kv_value *root, bool safe, beam_buffer *t)
{
    struct level stack[BEAM_KV_DEPTH_MAX];
    int top = -1;
    beam_kv_value value = *root;
    beam_str key;

    for (;;) {
        add_value(t, &value, safe);
        if (value.type == BEAM_KV_MAP || value.type == BEAM_KV_LIST) {
            top++;
            bm_assert(top < BEAM_KV_DEPTH_MAX);
            stack[top].map = value.type == BEAM_KV_MAP;
            stack[top].escape = needs_escape(&value);
            stack[top].started = false;
            beam_kv_iter_init(&stack[top].iter, &value);
        }
        for (;; top--) {
            if (top < 0 || t->error)
                return t->error;
            if (beam_kv_iter_next(&stack[top].iter, &key, &value) > 0)
                break;
            add(t, stack[top].map ? "}" : "]", 1);
        }
        struct level *in = &stack[top];
        if (in->started)
            add(t, ",", 1);
        in->started = true;
        if (in->map) {
            add_string(t, key.ptr, key.len, in->escape ? "$" : "");
            add(t, ":", 1);
        }
    }
}

int beam_kv_to_json(const void *doc, size_t len, char *buf, size_t cap, size_t *ret_len)
{
    /* the caller's memory as a buffer that cannot grow */
    beam_buffer t = {.ptr = (unsigned char *)buf, .cap = cap, .len_max = cap};
    beam_kv_value root;

    int r = beam_kv_check(doc, len, NULL);
    if (r < 0)
        return r;
    bm_assert(beam_kv_root(doc, len, &root) == 0);
    (void)bm_json_write(&root, false, &t);
    add(&t, "", 1);
    if (t.error)
        return -ENOSPC;
    *ret_len = t.len - 1;
    return 0;
}
