/* JSON text to a document, in one pass: what is read is put at once, and no tree is built.
 *
 * Model. A cursor over the text, and a stack of the open objects and arrays, as deep as documents are. A
 * string is first passed over, which finds its end, checks its escapes and counts what it will be; then it
 * is put, or, if there are escapes, decoded into the place that the writer has set aside for it. So the
 * reader needs no memory of its own.
 *
 * An object of one key with a `$` in front may stand for another value (T10). Bytes and their like are
 * recognised before the object is begun, by looking ahead over one key and one string. A key with two of
 * them loses one when the object ends and has no other; if it is too long otherwise, at once, and then no
 * other may come.
 *
 * Invariants: pos <= end; every turn of the loop moves pos; `top` is below BEAM_KV_DEPTH_MAX,
 * because the writer refuses what is deeper. */
#include "kv/json.h"

#include "base/assert.h"
#include "kv/base64.h"
#include "kv/decimal.h"
#include "kv/entry.h"
#include "kv/utf8.h"
#include "kv/writer.h"

#define INT_LEN_MAX 64 /* of a $int; ours: 20 are enough */

#define EACH_BYTE(c) (UINT64_C(0x0101010101010101) * (c))

/* A string as it stands between its quotes, and how long it is when it is decoded: as long as raw only if it
 * has no escapes, for each of them stands for less than its own length. */
struct text {
    const uint8_t *raw;
    size_t raw_len, len;
};

/* What an object of one key, with a '$' in front, would be. */
enum form { FORM_NONE, FORM_BYTES, FORM_FLOAT, FORM_INT, FORM_ESCAPED };

struct level {
    bool map;
    bool more;                /* than one member */
    enum form form;           /* of the first key */
    const uint8_t *shortened; /* where that begins, if it has lost its '$' already */
};

struct reader {
    const uint8_t *pos, *end;
    beam_kv_writer *out;
    struct text key; /* of the value that comes next */
    struct level stack[BEAM_KV_DEPTH_MAX];
    int top; /* -1: in nothing */
};

static inline void skip_space(struct reader *r)
{
    while (r->pos < r->end &&
           (*r->pos == ' ' || *r->pos == '\n' || *r->pos == '\r' || *r->pos == '\t'))
        r->pos++;
}

/* The next byte that is no white space, which stays; or -1 at the end. */
static inline int peek(struct reader *r)
{
    skip_space(r);
    return r->pos < r->end ? *r->pos : -1;
}

/* What is wrong where something else was expected. */
static int unexpected(const struct reader *r)
{
    return r->pos < r->end ? -BEAM_ECODEC_SYNTAX : -BEAM_ECODEC_TRUNCATED;
}

/* --- strings ------------------------------------------------------------------------------------ */

/* A bit of each byte that ends a run of plain characters: a quote, a backslash, a control character. The
 * lowest one is right; above it there may be others that are not. */
static inline uint64_t special(uint64_t word)
{
    uint64_t quote = word ^ EACH_BYTE('"'), backslash = word ^ EACH_BYTE('\\');
    uint64_t found = ((quote - EACH_BYTE(1)) & ~quote) | ((backslash - EACH_BYTE(1)) & ~backslash) |
                     ((word - EACH_BYTE(0x20)) & ~word);
    return found & EACH_BYTE(0x80);
}

static inline const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 8) {
        uint64_t found = special(bm_get_u64(p));
        if (found)
            return p + __builtin_ctzll(found) / 8;
        p += 8;
    }
    while (p < end && *p >= 0x20 && *p != '"' && *p != '\\')
        p++;
    return p;
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits of a \u, at pos; moves behind them. */
static int read_hex(struct reader *r, unsigned *ret)
{
    unsigned code = 0;
    for (int i = 0; i < 4; i++, r->pos++) {
        int digit = r->pos < r->end ? hex_value(*r->pos) : -1;
        if (digit < 0)
            return unexpected(r);
        code = code << 4 | (unsigned)digit;
    }
    *ret = code;
    return 0;
}

/* pos is behind \u. */
static int read_code_point(struct reader *r, uint32_t *ret)
{
    const uint8_t *escape = r->pos - 2;
    unsigned high, low;
    int e = read_hex(r, &high);
    if (e < 0)
        return e;
    *ret = high;
    if (high < 0xd800 || high > 0xdfff)
        return 0;
    if (high < 0xdc00 && r->end - r->pos >= 2 && r->pos[0] == '\\' && r->pos[1] == 'u') {
        r->pos += 2;
        e = read_hex(r, &low);
        if (e < 0)
            return e;
        if (low >= 0xdc00 && low <= 0xdfff) {
            *ret = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            return 0;
        }
    } else if (high < 0xdc00 && (r->pos == r->end || (r->end - r->pos == 1 && *r->pos == '\\'))) {
        r->pos = r->end; /* its other half may have been cut off */
        return -BEAM_ECODEC_TRUNCATED;
    }
    r->pos = escape;
    return -BEAM_EKV_UTF8;
}

static inline size_t utf8_len(uint32_t code)
{
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

static uint8_t *put_utf8(uint8_t *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (uint8_t)code;
    } else if (code < 0x800) {
        *to++ = (uint8_t)(0xc0 | code >> 6);
        *to++ = (uint8_t)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *to++ = (uint8_t)(0xe0 | code >> 12);
        *to++ = (uint8_t)(0x80 | (code >> 6 & 63));
        *to++ = (uint8_t)(0x80 | (code & 63));
    } else {
        *to++ = (uint8_t)(0xf0 | code >> 18);
        *to++ = (uint8_t)(0x80 | (code >> 12 & 63));
        *to++ = (uint8_t)(0x80 | (code >> 6 & 63));
        *to++ = (uint8_t)(0x80 | (code & 63));
    }
    return to;
}

/* What a letter behind a backslash stands for; 0 for none (and for u). */
static uint8_t short_escape(uint8_t letter)
{
    switch (letter) {
    case '"':
    case '\\':
    case '/':
        return letter;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return 0;
    }
}

/* pos is at a backslash; *ret_len is how many bytes it stands for. */
static int skip_escape(struct reader *r, size_t *ret_len)
{
    uint32_t code;
    r->pos++;
    if (r->pos == r->end)
        return -BEAM_ECODEC_TRUNCATED;
    *ret_len = 1;
    if (*r->pos != 'u')
        return short_escape(*r->pos) ? (void)r->pos++, 0 : -BEAM_ECODEC_SYNTAX;
    r->pos++;
    int e = read_code_point(r, &code);
    if (e == 0)
        *ret_len = utf8_len(code);
    return e;
}

/* pos is behind the opening quote, and moves behind the closing one. On failure it is where that shows. */
static inline int skip_string(struct reader *r, struct text *ret)
{
    const uint8_t *start = r->pos;
    size_t saved = 0; /* by decoding */
    for (;;) {
        r->pos = skip_plain(r->pos, r->end);
        if (r->pos < r->end && *r->pos == '"')
            break;
        if (r->pos == r->end || *r->pos != '\\')
            return unexpected(r);
        const uint8_t *escape = r->pos;
        size_t len;
        int e = skip_escape(r, &len);
        if (e < 0)
            return e;
        saved += (size_t)(r->pos - escape) - len;
    }
    ret->raw = start;
    ret->raw_len = (size_t)(r->pos - start);
    ret->len = ret->raw_len - saved;
    r->pos++;
    return 0;
}

/* Decodes up to `most` bytes, and no half characters, of a string that was passed over. */
static void decode(uint8_t *to, const struct text *text, size_t most)
{
    const uint8_t *p = text->raw, *end = p + text->raw_len, *to_end = to + most;
    struct reader r = {.end = end};
    while (p < end && to < to_end) {
        if (*p != '\\') {
            const uint8_t *next = (const uint8_t *)memchr(p, '\\', (size_t)(end - p));
            size_t len = (size_t)((next ? next : end) - p);
            if (len > (size_t)(to_end - to))
                len = (size_t)(to_end - to);
            memcpy(to, p, len);
            to += len;
            p += len;
        } else if (p[1] != 'u') {
            *to++ = short_escape(p[1]);
            p += 2;
        } else {
            uint32_t code = 0;
            r.pos = p + 2;
            (void)read_code_point(&r, &code);
            if (utf8_len(code) > (size_t)(to_end - to))
                return;
            to = put_utf8(to, code);
            p = r.pos;
        }
    }
}

static inline bool is_plain(const struct text *text)
{
    return text->raw_len == text->len;
}

/* --- puts --------------------------------------------------------------------------------------- */

/* One value, or the beginning of a map or list. */
struct item {
    beam_kv_type type;
    size_t len;              /* of its value */
    uint64_t word;           /* INT, UINT, FLOAT */
    const struct text *text; /* STR, BYTES: still to be decoded */
};

/* Base64, into its place. With escapes in it ("\/" is common) it is first decoded as a string, in the same
 * place, and what comes of that is shorter than what was reserved. */
static int decode_bytes(struct bm_writer_entry *entry, const struct text *text)
{
    if (is_plain(text)) {
        bm_base64_decode(entry->value, text->raw, text->raw_len);
        return 0;
    }
    decode(entry->value, text, text->len);
    if (!bm_base64_check(entry->value, text->len, &entry->value_len))
        return -BEAM_ECODEC_SYNTAX;
    bm_base64_decode(entry->value, entry->value, text->len);
    entry->key = entry->value + entry->value_len;
    return 0;
}

static int put_in_place(struct reader *r, const struct item *item, bool keyed)
{
    struct bm_writer_entry entry = {.type = item->type, .in_map = keyed, .value_len = item->len};
    entry.key_len = keyed ? r->key.len : 0;
    if ((keyed && !bm_utf8_valid(r->key.raw, r->key.raw_len)) ||
        (item->type == BEAM_KV_STR && !bm_utf8_valid(item->text->raw, item->text->raw_len)))
        return -BEAM_EKV_UTF8;
    int e = bm_writer_reserve(r->out, &entry);
    if (e == 0 && item->type == BEAM_KV_BYTES)
        e = decode_bytes(&entry, item->text);
    if (e < 0)
        return e;
    if (keyed)
        decode(entry.key, &r->key, r->key.len);
    if (item->type == BEAM_KV_STR)
        decode(entry.value, item->text, item->len);
    else if (item->type != BEAM_KV_BYTES && item->len > 0)
        bm_put_u64(entry.value, item->word);
    bm_writer_commit(r->out, &entry);
    return 0;
}

static inline int put(struct reader *r, const struct item *item)
{
    bool keyed = r->top >= 0 && r->stack[r->top].map;
    if ((keyed && !is_plain(&r->key)) || item->type == BEAM_KV_BYTES ||
        (item->type == BEAM_KV_STR && !is_plain(item->text)))
        return put_in_place(r, item, keyed);

    beam_str key = {keyed ? (const char *)r->key.raw : NULL, keyed ? r->key.len : 0};
    if (item->type >= BEAM_KV_MAP)
        return beam_kv_begin(r->out, key, item->type);
    beam_kv_value value = {.type = item->type, .u = item->word};
    if (item->type == BEAM_KV_STR)
        value.str = (beam_str){(const char *)item->text->raw, item->text->len};
    return beam_kv_put(r->out, key, &value);
}

/* --- numbers ------------------------------------------------------------------------------------ */

static inline bool is_digit(const uint8_t *p, const uint8_t *end)
{
    return p < end && (uint8_t)(*p - '0') < 10;
}

static int read_digits(const uint8_t **p, const uint8_t *end)
{
    if (!is_digit(*p, end))
        return *p < end ? -BEAM_ECODEC_SYNTAX : -BEAM_ECODEC_TRUNCATED;
    while (is_digit(*p, end))
        ++*p;
    return 0;
}

static int read_integer(const uint8_t *p, const uint8_t *end, beam_kv_value *ret)
{
    bool negative = *p == '-';
    uint64_t magnitude = 0;
    for (p += negative; p < end; p++)
        if (__builtin_mul_overflow(magnitude, 10, &magnitude) ||
            __builtin_add_overflow(magnitude, (uint64_t)(*p - '0'), &magnitude))
            return -BEAM_ECODEC_UNSUPPORTED;
    if (negative && magnitude > UINT64_C(1) << 63)
        return -BEAM_ECODEC_UNSUPPORTED;
    *ret = (beam_kv_value){.type = magnitude >> 63 && !negative ? BEAM_KV_UINT : BEAM_KV_INT,
                           .u = negative ? 0 - magnitude : magnitude};
    return 0;
}

static int read_float(const uint8_t *text, size_t len, beam_kv_value *ret)
{
    double f = bm_decimal_to_double(text, len);
    if (f - f != 0) /* infinite */
        return -BEAM_ECODEC_UNSUPPORTED;
    *ret = (beam_kv_value){.type = BEAM_KV_FLOAT, .f = f};
    return 0;
}

/* The number at *p; moves *p behind it, or to where it stops being one. */
static int read_number(const uint8_t **p, const uint8_t *end, beam_kv_value *ret)
{
    const uint8_t *start = *p;
    bool whole = true;
    *p += **p == '-';
    if (is_digit(*p, end) && **p == '0') {
        ++*p; /* a digit behind it is no part of the number */
    } else {
        int e = read_digits(p, end);
        if (e < 0)
            return e;
    }
    if (*p < end && **p == '.') {
        whole = false;
        ++*p;
        int e = read_digits(p, end);
        if (e < 0)
            return e;
    }
    if (*p < end && (**p | 0x20) == 'e') {
        whole = false;
        ++*p;
        *p += *p < end && (**p == '+' || **p == '-');
        int e = read_digits(p, end);
        if (e < 0)
            return e;
    }
    int e = whole ? read_integer(start, *p, ret) : read_float(start, (size_t)(*p - start), ret);
    if (e < 0)
        *p = start;
    return e;
}

int bm_json_read_number(const uint8_t *text, size_t len, beam_kv_value *ret_number, size_t *ret_len)
{
    const uint8_t *p = text;
    int e = len > 0 ? read_number(&p, text + len, ret_number) : -BEAM_ECODEC_TRUNCATED;
    *ret_len = (size_t)(p - text);
    return e;
}

static int put_number(struct reader *r)
{
    const uint8_t *start = r->pos;
    beam_kv_value number;
    int e = read_number(&r->pos, r->end, &number);
    if (e < 0)
        return e;
    e = put(r, &(struct item){.type = number.type, .len = 8, .word = number.u});
    if (e < 0)
        r->pos = start;
    return e;
}

/* --- what begins with a $ ----------------------------------------------------------------------- */

static bool text_is(const struct text *text, const char *wanted)
{
    uint8_t decoded[8];
    size_t len = strlen(wanted);
    if (text->len != len || len > sizeof(decoded))
        return false;
    decode(decoded, text, len);
    return memcmp(decoded, wanted, len) == 0;
}

static enum form form_of(const struct text *key)
{
    uint8_t first[2] = {0};
    if (key->len < 2 || (key->raw[0] != '$' && key->raw[0] != '\\'))
        return FORM_NONE;
    decode(first, key, sizeof(first));
    if (first[0] != '$')
        return FORM_NONE;
    if (first[1] == '$')
        return FORM_ESCAPED;
    return text_is(key, "$bytes")   ? FORM_BYTES
           : text_is(key, "$float") ? FORM_FLOAT
           : text_is(key, "$int")   ? FORM_INT
                                    : FORM_NONE;
}

/* A string as what its form says. */
static int put_form(struct reader *r, enum form form, const struct text *text)
{
    static const struct {
        const char *text;
        uint64_t bits;
    } floats[] = {{"nan", BM_ENTRY_NAN_BITS},
                  {"inf", UINT64_C(0x7ff) << 52},
                  {"-inf", UINT64_C(0xfff) << 52}};
    struct item item = {.text = text, .len = 8};

    if (form == FORM_BYTES) {
        item.type = BEAM_KV_BYTES;
        item.len = text->len;
        if (is_plain(text) && !bm_base64_check(text->raw, text->raw_len, &item.len))
            return -BEAM_ECODEC_SYNTAX;
        return put(r, &item);
    }
    if (form == FORM_INT) {
        uint8_t digits[INT_LEN_MAX];
        beam_kv_value number;
        size_t used;
        if (text->len > sizeof(digits))
            return -BEAM_ECODEC_SYNTAX;
        decode(digits, text, text->len);
        int e = bm_json_read_number(digits, text->len, &number, &used);
        if (e < 0)
            return e == -BEAM_ECODEC_TRUNCATED ? -BEAM_ECODEC_SYNTAX : e;
        if (used < text->len || number.type == BEAM_KV_FLOAT)
            return -BEAM_ECODEC_SYNTAX;
        item.type = number.type;
        item.word = number.u;
        return put(r, &item);
    }
    item.type = BEAM_KV_FLOAT;
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++)
        if (text_is(text, floats[i].text)) {
            item.word = floats[i].bits;
            return put(r, &item);
        }
    return -BEAM_ECODEC_SYNTAX;
}

/* pos is behind a '{'. If the object is a string under the key of a form, and nothing else, puts what it
 * stands for, moves behind it and returns 1. Else, 0 and nothing has happened. */
static int take_form(struct reader *r)
{
    const uint8_t *start = r->pos;
    struct text key, text;
    bool likely = peek(r) == '"' && r->end - r->pos > 1 && (r->pos[1] == '$' || r->pos[1] == '\\');
    if (likely && (r->pos++, skip_string(r, &key) == 0)) {
        enum form form = form_of(&key);
        if (form != FORM_NONE && form != FORM_ESCAPED && peek(r) == ':' &&
            (r->pos++, peek(r) == '"') && (r->pos++, skip_string(r, &text) == 0) &&
            peek(r) == '}') {
            const uint8_t *behind = r->pos + 1;
            int e = put_form(r, form, &text);
            r->pos = e < 0 ? text.raw - 1 : behind;
            return e < 0 ? e : 1;
        }
    }
    r->pos = start;
    return 0;
}

/* --- the text ----------------------------------------------------------------------------------- */

static int begin(struct reader *r, beam_kv_type type)
{
    int e = put(r, &(struct item){.type = type});
    if (e < 0)
        return e;
    bm_assert(r->top + 1 < BEAM_KV_DEPTH_MAX);
    r->stack[++r->top] = (struct level){.map = type == BEAM_KV_MAP};
    return 0;
}

/* pos is at the closing bracket. */
static int end(struct reader *r)
{
    const struct level *in = &r->stack[r->top];
    if (in->form != FORM_NONE && !in->more) {
        if (in->form != FORM_ESCAPED)
            return -BEAM_ECODEC_SYNTAX;
        if (!in->shortened)
            bm_writer_unescape_key(r->out);
    }
    int e = beam_kv_end(r->out);
    if (e < 0)
        return e;
    r->pos++;
    r->top--;
    return 0;
}

/* The first key of an object. One that fits only without the '$' that a writer has put in front is taken
 * without it, as if it were known already that no other follows. */
static void take_first_key(struct reader *r)
{
    struct level *in = &r->stack[r->top];
    struct text *key = &r->key;
    in->form = form_of(key);
    if (in->form != FORM_ESCAPED || key->len != BEAM_KV_KEY_LEN_MAX + 1)
        return;
    size_t dollar_len = key->raw[0] == '$' ? 1 : strlen("\\u0024");
    in->shortened = key->raw - 1;
    key->raw += dollar_len;
    key->raw_len -= dollar_len;
    key->len--;
}

/* "key": in front of a value; pos is where it should be. */
static int read_key(struct reader *r, bool first)
{
    if (peek(r) != '"')
        return unexpected(r);
    r->pos++;
    int e = skip_string(r, &r->key);
    if (e < 0)
        return e;
    if (first)
        take_first_key(r);
    else
        r->stack[r->top].more = true;
    if (!first && r->stack[r->top].shortened)
        return -BEAM_EKV_TOO_LARGE;
    if (peek(r) != ':')
        return unexpected(r);
    r->pos++;
    return 0;
}

static int put_word(struct reader *r, const char *word, size_t len, beam_kv_type type)
{
    for (size_t i = 1; i < len; i++) /* the first letter brought us here */
        if (r->pos + i == r->end || r->pos[i] != (uint8_t)word[i]) {
            r->pos += i;
            return unexpected(r);
        }
    int e = put(r, &(struct item){.type = type});
    if (e == 0)
        r->pos += len;
    return e;
}

static int put_string(struct reader *r)
{
    const uint8_t *start = r->pos++;
    struct text text;
    int e = skip_string(r, &text);
    if (e < 0)
        return e;
    e = put(r, &(struct item){.type = BEAM_KV_STR, .len = text.len, .text = &text});
    if (e < 0)
        r->pos = start;
    return e;
}

/* One value, or the opening bracket of one: then 1. */
static int read_value(struct reader *r)
{
    int e;
    switch (peek(r)) {
    case '"':
        return put_string(r);
    case '{':
        r->pos++;
        e = take_form(r);
        if (e != 0)
            return e < 0 ? e : 0;
        r->pos--;
        e = begin(r, BEAM_KV_MAP);
        break;
    case '[':
        e = begin(r, BEAM_KV_LIST);
        break;
    case 'n':
        return put_word(r, "null", 4, BEAM_KV_NIL);
    case 'f':
        return put_word(r, "false", 5, BEAM_KV_FALSE);
    case 't':
        return put_word(r, "true", 4, BEAM_KV_TRUE);
    case '-':
    case '0' ... '9':
        return put_number(r);
    default:
        return unexpected(r);
    }
    if (e < 0)
        return e;
    r->pos++;
    return 1;
}

/* What comes before the next value: brackets that close, a comma, a key. 1: a value comes; 0: the outermost
 * one is over. */
static int go_on(struct reader *r, bool opened)
{
    while (r->top >= 0) {
        struct level *in = &r->stack[r->top];
        int c = peek(r);
        if (c == (in->map ? '}' : ']')) {
            int e = end(r);
            if (e < 0)
                return e;
            opened = false;
            continue;
        }
        if (!opened) {
            if (c != ',')
                return unexpected(r);
            r->pos++;
        }
        int e = in->map ? read_key(r, opened) : 0;
        return e < 0 ? e : 1;
    }
    return 0;
}

/* A key is put together with its value; pos is at that. Returns where the key begins if the error is its
 * own, or NULL. */
static const uint8_t *wrong_key(const struct reader *r, int error)
{
    if (r->top < 0 || !r->stack[r->top].map || !r->key.raw)
        return NULL;
    const struct level *in = &r->stack[r->top];
    bool wrong = (error == -BEAM_EKV_UTF8 && !bm_utf8_valid(r->key.raw, r->key.raw_len)) ||
                 (error == -BEAM_EKV_TOO_LARGE &&
                  (r->key.len > BEAM_KV_KEY_LEN_MAX || (in->shortened && in->more)));
    return !wrong ? NULL : in->shortened ? in->shortened : r->key.raw - 1;
}

int bm_json_read(const uint8_t *text, size_t len, beam_kv_writer *out, size_t *ret_offset)
{
    struct reader r = {.pos = text, .end = text + len, .out = out, .top = -1};
    int e;
    do {
        e = read_value(&r);
        if (e >= 0)
            e = go_on(&r, e > 0);
    } while (e > 0);
    if (e == 0 && peek(&r) >= 0)
        e = -BEAM_ECODEC_SYNTAX;
    if (e < 0) {
        const uint8_t *key = wrong_key(&r, e);
        *ret_offset = (size_t)((key ? key : r.pos) - text);
    }
    return e;
}
