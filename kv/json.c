/* Documents as JSON text (docs/spec/kv.md, K15), into the caller's buffer. Only this direction:
 * nothing here reads JSON.
 *
 * The document is checked first, so the walk meets no surprise; the open maps and lists are a stack
 * as deep as K10 allows. Text that does not fit sets `full` and is dropped from there on. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "kv/entry.h"

/* sign, 17 digits, point, e, sign, three digits, NUL; room for a point of several bytes */
#define FLOAT_TEXT_LEN 48
#define FLOAT_DIGITS 17 /* enough for any binary64 */

struct text {
    char *buf;
    size_t len, cap;
    bool full;
};

static void add(struct text *t, const char *s, size_t len)
{
    if (t->full || len > t->cap - t->len) {
        t->full = true;
        return;
    }
    if (len > 0)
        memcpy(t->buf + t->len, s, len);
    t->len += len;
}

static void add_z(struct text *t, const char *s)
{
    add(t, s, strlen(s));
}

static void add_string(struct text *t, const char *s, size_t len, const char *before)
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

static void add_base64(struct text *t, const uint8_t *p, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (; len > 0 && !t->full; len -= len < 3 ? len : 3, p += 3) {
        uint32_t bits = (uint32_t)p[0] << 16;
        bits |= len > 1 ? (uint32_t)p[1] << 8 : 0;
        bits |= len > 2 ? p[2] : 0;
        char four[] = {digits[bits >> 18], digits[bits >> 12 & 63],
                       len > 1 ? digits[bits >> 6 & 63] : '=', len > 2 ? digits[bits & 63] : '='};
        add(t, four, sizeof(four));
    }
}

static bool is_power_of_two(double f)
{
    uint64_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits << 12 == 0;
}

/* f as its shortest decimal: digits (no zeros at the ends) and the power of ten behind the first.
 * Returns the number of digits. f is finite, above zero. */
static int shortest(double f, char digits[FLOAT_DIGITS + 1], int *ret_exponent)
{
    char text[FLOAT_TEXT_LEN];
    /* A normal number whose shortest form has up to 15 digits shows it when printed with 15, zeros
     * stripped (DBL_DIG); a subnormal one may have fewer good digits than that. */
    int n = f < 0x1p-1022 ? 1 : 15;
    for (;; n++) {
        snprintf(text, sizeof(text), "%.*e", n - 1, f);
        bool same = strtod(text, NULL) == f;
        if (!same && n < FLOAT_DIGITS && is_power_of_two(f)) {
            /* The neighbour below a power of two is half as far as the one above: the nearest
             * decimal of n digits can miss on that side while the next one up is still right. */
            char *last = strchr(text, 'e') - 1;
            if (*last >= '0' && *last < '9') {
                ++*last;
                same = strtod(text, NULL) == f;
            }
        }
        if (same || n == FLOAT_DIGITS)
            break;
    }
    /* The digits, past whatever the locale uses for a point. */
    int count = 0;
    const char *p = text;
    for (; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[count++] = *p;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    digits[count] = '\0';
    *ret_exponent = atoi(p + 1);
    return count;
}

/* The notation of ECMA-262 (Number::toString, radix 10), and ".0" where that looks like an int. */
static void add_float(struct text *t, double f)
{
    static const char zeros[] = "000000000000000000000";
    char digits[FLOAT_DIGITS + 1], exponent_text[8];
    int exponent = 0;

    if (!isfinite(f)) {
        add_z(t, isnan(f) ? "{\"$float\":\"nan\"}"
                 : f > 0  ? "{\"$float\":\"inf\"}"
                          : "{\"$float\":\"-inf\"}");
        return;
    }
    if (signbit(f))
        add_z(t, "-");
    if (f == 0) {
        add_z(t, "0.0");
        return;
    }
    int count = shortest(fabs(f), digits, &exponent);
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

static void add_number(struct text *t, bool negative, uint64_t magnitude)
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

/* A value, or the opening bracket of a map or list. */
static void add_value(struct text *t, const beam_kv_value *value)
{
    switch (value->type) {
    case BEAM_KV_NIL:
        add_z(t, "null");
        break;
    case BEAM_KV_FALSE:
        add_z(t, "false");
        break;
    case BEAM_KV_TRUE:
        add_z(t, "true");
        break;
    case BEAM_KV_INT:
        add_number(t, value->i < 0, value->i < 0 ? 0 - (uint64_t)value->i : (uint64_t)value->i);
        break;
    case BEAM_KV_UINT:
        add_number(t, false, value->u);
        break;
    case BEAM_KV_FLOAT:
        add_float(t, value->f);
        break;
    case BEAM_KV_STR:
        add_string(t, value->str.ptr, value->str.len, "");
        break;
    case BEAM_KV_BYTES:
        add_z(t, "{\"$bytes\":\"");
        add_base64(t, (const uint8_t *)value->bytes.ptr, value->bytes.len);
        add_z(t, "\"}");
        break;
    case BEAM_KV_MAP:
        add_z(t, "{");
        break;
    case BEAM_KV_LIST:
        add_z(t, "[");
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

static void render(struct text *t, const beam_kv_value *root)
{
    struct level stack[BEAM_KV_DEPTH_MAX];
    int top = -1;
    beam_kv_value value = *root;
    beam_str key;

    for (;;) {
        add_value(t, &value);
        if (value.type == BEAM_KV_MAP || value.type == BEAM_KV_LIST) {
            top++;
            bm_assert(top < BEAM_KV_DEPTH_MAX);
            stack[top].map = value.type == BEAM_KV_MAP;
            stack[top].escape = needs_escape(&value);
            stack[top].started = false;
            beam_kv_iter_init(&stack[top].iter, &value);
        }
        for (;; top--) {
            if (top < 0 || t->full)
                return;
            if (beam_kv_iter_next(&stack[top].iter, &key, &value) > 0)
                break;
            add_z(t, stack[top].map ? "}" : "]");
        }
        struct level *in = &stack[top];
        if (in->started)
            add_z(t, ",");
        in->started = true;
        if (in->map) {
            add_string(t, key.ptr, key.len, in->escape ? "$" : "");
            add_z(t, ":");
        }
    }
}

int beam_kv_to_json(const void *doc, size_t len, char *buf, size_t cap, size_t *ret_len)
{
    struct text t = {.buf = buf, .cap = cap};
    beam_kv_value root;

    int r = beam_kv_check(doc, len, NULL);
    if (r < 0)
        return r;
    bm_assert(beam_kv_root(doc, len, &root) == 0);
    render(&t, &root);
    add(&t, "", 1);
    if (t.full)
        return -ENOSPC;
    *ret_len = t.len - 1;
    return 0;
}
