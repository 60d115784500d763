/* Back from the JSON of documents (docs/spec/kv.md, K15) to the document: the proof that nothing is lost on
 * the way there. Strict: it reads what the library writes, and nothing else. */
#ifndef BEAM_FUZZ_FROM_JSON_H
#define BEAM_FUZZ_FROM_JSON_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

/* Recurses as deep as the text; a document's is at most 32, or 33 inside something else. */
struct from_json {
    char *pos; /* in a text that ends with NUL; strings are decoded in place */
    beam_kv_writer *w;
};

static inline bool from_json_take(struct from_json *in, const char *text)
{
    size_t len = strlen(text);
    if (strncmp(in->pos, text, len) != 0)
        return false;
    in->pos += len;
    return true;
}

/* \u00xx, the only form of \u that is written: for control characters. pos is behind the u. */
static inline bool from_json_control(struct from_json *in, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    if (!from_json_take(in, "00") || !in->pos[0] || !in->pos[1])
        return false;
    const char *high = strchr(digits, in->pos[0]), *low = strchr(digits, in->pos[1]);
    if (!high || !low || high - digits > 1)
        return false;
    *ret = (char)((high - digits) * 16 + (low - digits));
    in->pos += 2;
    return true;
}

static inline bool from_json_string(struct from_json *in, beam_str *ret)
{
    static const char from[] = "\"\\bfnrt", to[] = "\"\\\b\f\n\r\t";
    if (!from_json_take(in, "\""))
        return false;
    char *start = in->pos, *out = start;
    while (*in->pos != '"') {
        char c = *in->pos++;
        if ((unsigned char)c < 0x20) /* the end of the text, too */
            return false;
        if (c != '\\') {
            *out++ = c;
            continue;
        }
        c = *in->pos++;
        const char *escape = c ? strchr(from, c) : NULL;
        if (escape)
            *out++ = to[escape - from];
        else if (c != 'u' || !from_json_control(in, out++))
            return false;
    }
    in->pos++;
    *ret = (beam_str){start, (size_t)(out - start)};
    return true;
}

/* In place. */
static inline bool from_base64(beam_str text, beam_bytes *ret)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *start = (uint8_t *)(uintptr_t)text.ptr, *out = start;
    if (text.len % 4 != 0)
        return false;
    for (size_t i = 0; i < text.len; i += 4) {
        uint32_t bits = 0, pads = 0;
        for (size_t j = i; j < i + 4; j++) {
            const char *digit = text.ptr[j] ? strchr(digits, text.ptr[j]) : NULL;
            bool pad = text.ptr[j] == '=' && i + 4 == text.len && j >= i + 2;
            if (!(pad || (digit && pads == 0)))
                return false;
            pads += pad;
            bits = bits << 6 | (uint32_t)(pad ? 0 : digit - digits);
        }
        for (unsigned byte = 0; byte < 3 - pads; byte++)
            *out++ = (uint8_t)(bits >> (16 - 8 * byte));
        if (pads > 0 && (bits & ((1u << 8 * pads) - 1)) != 0)
            return false; /* bits that nobody reads */
    }
    *ret = (beam_bytes){start, (size_t)(out - start)};
    return true;
}

/* Whether the value that begins here is followed by the end of its object. */
static inline bool from_json_is_last(const char *p)
{
    int open = 0;
    for (bool string = false; *p && (string || open > 0 || (*p != ',' && *p != '}')); p++) {
        if (string && *p == '\\' && p[1])
            p++;
        else if (*p == '"')
            string = !string;
        else if (!string)
            open += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
    }
    return *p == '}';
}

static inline bool from_json_value(struct from_json *in, beam_str key);

/* {"$bytes":"…"} or {"$float":"…"}; pos is behind the colon. */
static inline bool from_json_special(struct from_json *in, beam_str key, beam_str name)
{
    beam_kv_value value = {.type = BEAM_KV_BYTES};
    beam_str text;
    if (!from_json_string(in, &text) || !from_json_take(in, "}"))
        return false;
    if (name.len == 6 && memcmp(name.ptr, "$bytes", 6) == 0)
        return from_base64(text, &value.bytes) && beam_kv_put(in->w, key, &value) == 0;
    value.type = BEAM_KV_FLOAT;
    if (text.len == 3 && memcmp(text.ptr, "nan", 3) == 0)
        value.f = __builtin_nan("");
    else if (text.len == 3 && memcmp(text.ptr, "inf", 3) == 0)
        value.f = __builtin_inf();
    else if (text.len == 4 && memcmp(text.ptr, "-inf", 4) == 0)
        value.f = -__builtin_inf();
    else
        return false;
    return name.len == 6 && memcmp(name.ptr, "$float", 6) == 0 &&
           beam_kv_put(in->w, key, &value) == 0;
}

/* pos is behind the bracket. */
static inline bool from_json_object(struct from_json *in, beam_str key)
{
    bool begun = false;
    if (from_json_take(in, "}"))
        return beam_kv_begin(in->w, key, BEAM_KV_MAP) == 0 && beam_kv_end(in->w) == 0;
    do {
        beam_str inner;
        if (!from_json_string(in, &inner) || !from_json_take(in, ":"))
            return false;
        if (!begun && inner.len > 0 && inner.ptr[0] == '$' && from_json_is_last(in->pos)) {
            if (inner.len < 2 || inner.ptr[1] != '$')
                return from_json_special(in, key, inner);
            inner.ptr++;
            inner.len--;
        }
        if (!begun && beam_kv_begin(in->w, key, BEAM_KV_MAP) < 0)
            return false;
        begun = true;
        if (!from_json_value(in, inner))
            return false;
    } while (from_json_take(in, ","));
    return from_json_take(in, "}") && beam_kv_end(in->w) == 0;
}

static inline bool from_json_list(struct from_json *in, beam_str key)
{
    if (beam_kv_begin(in->w, key, BEAM_KV_LIST) < 0)
        return false;
    if (!from_json_take(in, "]")) {
        do {
            if (!from_json_value(in, (beam_str){NULL, 0}))
                return false;
        } while (from_json_take(in, ","));
        if (!from_json_take(in, "]"))
            return false;
    }
    return beam_kv_end(in->w) == 0;
}

static inline bool from_json_number(struct from_json *in, beam_str key)
{
    beam_kv_value value = {.type = BEAM_KV_FLOAT};
    char *start = in->pos, *end;
    size_t len = strspn(start, "0123456789+-.e");
    if (memchr(start, '.', len) || memchr(start, 'e', len)) {
        value.f = strtod(start, &end);
    } else if (*start == '-') {
        value.type = BEAM_KV_INT;
        value.i = strtoll(start, &end, 10);
    } else {
        value.type = BEAM_KV_UINT;
        value.u = strtoull(start, &end, 10);
    }
    in->pos += len;
    return len > 0 && end == in->pos && beam_kv_put(in->w, key, &value) == 0;
}

static inline bool from_json_value(struct from_json *in, beam_str key)
{
    static const struct {
        const char *text;
        beam_kv_type type;
    } words[] = {{"null", BEAM_KV_NIL}, {"false", BEAM_KV_FALSE}, {"true", BEAM_KV_TRUE}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (from_json_take(in, words[i].text))
            return beam_kv_put(in->w, key, &(beam_kv_value){.type = words[i].type}) == 0;
    if (from_json_take(in, "{"))
        return from_json_object(in, key);
    if (from_json_take(in, "["))
        return from_json_list(in, key);
    if (*in->pos == '"') {
        beam_kv_value value = {.type = BEAM_KV_STR};
        return from_json_string(in, &value.str) && beam_kv_put(in->w, key, &value) == 0;
    }
    return from_json_number(in, key);
}

/* Reads one document's text, which it changes, into buf; false: it is none, or there is no room. */
static inline bool from_json(char *text, void *buf, size_t cap, size_t *ret_len)
{
    beam_kv_writer w;
    struct from_json in = {text, &w};
    const void *doc;
    beam_kv_writer_init(&w, buf, cap);
    return from_json_value(&in, (beam_str){NULL, 0}) && !*in.pos &&
           beam_kv_writer_finish(&w, &doc, ret_len) == 0;
}

#endif
