/* Any bytes as a document.
 *
 * The checker says of each what a second reader says, written out from docs/spec/kv.md section 3: the same
 * rule, of the same entry, wherever in memory the bytes lie. What is refused can still be walked without a
 * step outside. What is accepted comes out of the writer as the same bytes, in any order of puts, and out of
 * its JSON too; look-ups find each value again, and nothing else; numbers convert exactly or not at all.
 *
 * Covers: kv/checker.c kv/value.c kv/json.c kv/utf8.c kv/digest.c */
#include <errno.h>
#include <stdbool.h>

#include <beam/kv.h>

#include "tests/fuzz/from_json.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/documents.h"

#define INPUT_LEN_MAX (64u << 10)
#define FOUND_MAX 64 /* ours: looked up in each map; all of them would be quadratic */

/* --- the second reader ------------------------------------------------------------------------- */

enum within { DOCUMENT, MAP, LIST };

static uint64_t number_at(const uint8_t *p, unsigned len)
{
    uint64_t number = 0;
    while (len-- > 0)
        number = number << 8 | p[len];
    return number;
}

static bool is_utf8(const uint8_t *p, uint64_t len)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (const uint8_t *end = p + len; p < end;) {
        unsigned n = *p < 0x80   ? 1
                     : *p < 0xc0 ? 0
                     : *p < 0xe0 ? 2
                     : *p < 0xf0 ? 3
                     : *p < 0xf8 ? 4
                                 : 0;
        if (n == 0 || n > (size_t)(end - p))
            return false;
        uint32_t code = n == 1 ? *p : *p & (0x7fu >> n);
        for (unsigned i = 1; i < n; i++) {
            if (p[i] >> 6 != 2)
                return false;
            code = code << 6 | (p[i] & 63);
        }
        if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return false;
        p += n;
    }
    return true;
}

static bool ascends(beam_str last, beam_str key)
{
    if (!last.ptr)
        return true;
    int order = memcmp(last.ptr, key.ptr, last.len < key.len ? last.len : key.len);
    return order < 0 || (order == 0 && last.len < key.len);
}

static int read_entry(const uint8_t *buf, uint64_t pos, uint64_t end, int depth, enum within within,
                      beam_str *last, uint64_t *ret_next, uint64_t *ret_bad)
{
    *ret_bad = pos;
    if (depth > 32)
        return -BEAM_EKV_DEPTH;
    if (end - pos < 8)
        return -BEAM_EKV_TRUNCATED;
    uint64_t vlen = number_at(buf + pos, 4), klen = number_at(buf + pos + 4, 2);
    uint8_t type = buf[pos + 6], aux = buf[pos + 7];
    uint64_t size = 8 + (vlen + klen + 7) / 8 * 8;
    if (size > 2147483640)
        return -BEAM_EKV_TOO_LARGE;
    if (size > end - pos)
        return -BEAM_EKV_TRUNCATED;
    if (type < 1 || type > 10)
        return -BEAM_EKV_TYPE;
    if (aux != 0)
        return -BEAM_EKV_AUX;
    if (type <= 3 ? vlen != 0 : type <= 6 ? vlen != 8 : type >= 9 && vlen % 8 != 0)
        return -BEAM_EKV_LENGTH;
    uint64_t v = pos + 8, k = v + vlen, e = k + klen, next = pos + size;
    for (uint64_t i = e; i < next; i++)
        if (buf[i] != 0)
            return -BEAM_EKV_PADDING;
    beam_str key = {(const char *)buf + k, klen};
    if (within != MAP && klen > 0)
        return -BEAM_EKV_KEY;
    if (!is_utf8(buf + k, klen))
        return -BEAM_EKV_UTF8;
    if (within == MAP && !ascends(*last, key))
        return -BEAM_EKV_ORDER;
    *last = key;
    if (type == BEAM_KV_UINT && number_at(buf + v, 8) < UINT64_C(1) << 63)
        return -BEAM_EKV_NUMBER;
    if (type == BEAM_KV_FLOAT) {
        uint64_t bits = number_at(buf + v, 8), magnitude = bits & ~(UINT64_C(1) << 63);
        if (magnitude > UINT64_C(0x7ff) << 52 && bits != UINT64_C(0x7ff8) << 48)
            return -BEAM_EKV_NUMBER;
    }
    if (type == BEAM_KV_STR && !is_utf8(buf + v, vlen))
        return -BEAM_EKV_UTF8;
    beam_str inner = {NULL, 0};
    for (uint64_t p = v; type >= BEAM_KV_MAP && p < k;) {
        int r =
            read_entry(buf, p, k, depth + 1, type == BEAM_KV_MAP ? MAP : LIST, &inner, &p, ret_bad);
        if (r < 0)
            return r;
    }
    *ret_next = next;
    return 0;
}

static int read_document(const uint8_t *buf, size_t len, uint64_t *ret_bad)
{
    uint64_t next = 0;
    beam_str none = {NULL, 0};
    int r = read_entry(buf, 0, len, 1, DOCUMENT, &none, &next, ret_bad);
    if (r == 0 && next != len) {
        *ret_bad = next;
        r = -BEAM_EKV_TRAILING;
    }
    return r;
}

/* --- values ------------------------------------------------------------------------------------- */

/* long double holds every number of a document. */
static void check_number(const beam_kv_value *value)
{
    long double exact = value->type == BEAM_KV_INT    ? (long double)value->i
                        : value->type == BEAM_KV_UINT ? (long double)value->u
                                                      : (long double)value->f;
    bool whole = exact > -0x1p64L && exact < 0x1p64L && (long double)(__int128_t)exact == exact;
    bool in_int = whole && exact >= -0x1p63L && exact < 0x1p63L, in_uint = whole && exact >= 0;
    bool in_float = value->type == BEAM_KV_FLOAT || (long double)(double)exact == exact;
    int64_t i = 0;
    uint64_t u = 0;
    double f = 0;
    EXPECT(beam_kv_as_int(value, &i) == (in_int ? 0 : -ERANGE));
    EXPECT(!in_int || (long double)i == exact);
    EXPECT(beam_kv_as_uint(value, &u) == (in_uint ? 0 : -ERANGE));
    EXPECT(!in_uint || (long double)u == exact);
    EXPECT(beam_kv_as_float(value, &f) == (in_float ? 0 : -ERANGE));
    EXPECT(!in_float || (long double)f == exact || exact != exact);
}

/* Each getter takes the types it is for and no other. */
static void check_value(const beam_kv_value *value)
{
    bool number = value->type >= BEAM_KV_INT && value->type <= BEAM_KV_FLOAT;
    int64_t i;
    uint64_t u;
    double f;
    bool b;
    beam_str str;
    beam_bytes bytes;
    if (number) {
        check_number(value);
    } else {
        EXPECT(beam_kv_as_int(value, &i) == -EINVAL && beam_kv_as_uint(value, &u) == -EINVAL);
        EXPECT(beam_kv_as_float(value, &f) == -EINVAL);
    }
    bool truth = value->type == BEAM_KV_FALSE || value->type == BEAM_KV_TRUE;
    EXPECT(beam_kv_as_bool(value, &b) == (truth ? 0 : -EINVAL));
    EXPECT(!truth || b == (value->type == BEAM_KV_TRUE));
    EXPECT(beam_kv_as_str(value, &str) == (value->type == BEAM_KV_STR ? 0 : -EINVAL));
    EXPECT(beam_kv_as_bytes(value, &bytes) == (value->type == BEAM_KV_BYTES ? 0 : -EINVAL));
}

/* The same through the key of a map, as applications do. */
static void check_getters(const beam_kv_value *map, beam_str key, const beam_kv_value *value)
{
    char *name = fuzz_string(key.ptr, key.len);
    int64_t i = 0;
    uint64_t u = 0;
    double f = 0;
    bool b = false;
    beam_str str = {NULL, 0};
    beam_bytes bytes = {NULL, 0};
    EXPECT(beam_kv_get_int(map, name, &i) == beam_kv_as_int(value, &i));
    EXPECT(beam_kv_get_uint(map, name, &u) == beam_kv_as_uint(value, &u));
    EXPECT(beam_kv_get_float(map, name, &f) == beam_kv_as_float(value, &f));
    EXPECT(beam_kv_get_bool(map, name, &b) == beam_kv_as_bool(value, &b));
    EXPECT(beam_kv_get_str(map, name, &str) == beam_kv_as_str(value, &str));
    EXPECT(beam_kv_get_bytes(map, name, &bytes) == beam_kv_as_bytes(value, &bytes));
    free(name);
}

static bool same(const beam_kv_value *a, const beam_kv_value *b)
{
    return a->type == b->type && (a->type <= BEAM_KV_TRUE || a->u == b->u);
}

/* A key of a map, and neighbours of it that are not there unless they are. */
static void check_lookups(const beam_kv_value *map, beam_str key, const beam_kv_value *value)
{
    beam_kv_value found;
    EXPECT(beam_kv_find(map, key, &found) == 0 && same(&found, value));
    if (!memchr(key.ptr, '\0', key.len))
        check_getters(map, key, value);
    uint8_t *longer = malloc(key.len + 1);
    memcpy(longer, key.ptr, key.len);
    longer[key.len] = '\0';
    for (size_t len = key.len > 0 ? key.len - 1 : 1; len <= key.len + 1; len += 2) {
        uint8_t *near = fuzz_copy(longer, len);
        beam_kv_iter iter;
        beam_str other;
        bool there = false;
        beam_kv_iter_init(&iter, map);
        while (!there && beam_kv_iter_next(&iter, &other, &found) > 0)
            there = other.len == len && memcmp(other.ptr, longer, len) == 0;
        EXPECT(beam_kv_find(map, (beam_str){(const char *)near, len}, &found) ==
               (there ? 0 : -ENOENT));
        free(near);
    }
    free(longer);
}

static void check_all(const beam_kv_value *value)
{
    beam_kv_iter iter;
    beam_kv_value inner, found;
    beam_str key;
    int r;
    check_value(value);
    beam_kv_iter_init(&iter, value);
    for (unsigned i = 0; (r = beam_kv_iter_next(&iter, &key, &inner)) > 0; i++) {
        if (value->type == BEAM_KV_MAP && i < FOUND_MAX)
            check_lookups(value, key, &inner);
        else
            EXPECT(value->type == BEAM_KV_MAP || key.len == 0);
        check_all(&inner);
    }
    EXPECT(r == 0 && beam_kv_iter_next(&iter, NULL, &inner) == 0);
    EXPECT(value->type == BEAM_KV_MAP || beam_kv_find(value, key, &found) == -EINVAL);
}

/* Bytes that nobody has checked: whatever this says, it says it from inside. */
static uint64_t walk(const uint8_t *start, const uint8_t *end, const beam_kv_value *value,
                     int depth)
{
    uint64_t sum = 0;
    beam_kv_iter iter;
    beam_kv_value inner, found;
    beam_str key;
    double f;
    int64_t i;

    EXPECT(value->type >= BEAM_KV_NIL && value->type <= BEAM_KV_LIST);
    sum += (uint64_t)beam_kv_as_int(value, &i) + (uint64_t)beam_kv_as_float(value, &f);
    if (value->type < BEAM_KV_STR)
        return sum;
    const uint8_t *from = (const uint8_t *)value->bytes.ptr;
    EXPECT(from >= start && from <= end && value->bytes.len <= (size_t)(end - from));
    beam_kv_iter_init(&iter, value);
    for (unsigned n = 0; depth < 40 && beam_kv_iter_next(&iter, &key, &inner) > 0; n++) {
        sum += beam_xxh3(key.ptr, key.len) + walk(from, from + value->bytes.len, &inner, depth + 1);
        if (n < FOUND_MAX)
            beam_kv_find(value, key, &found);
    }
    if (value->type == BEAM_KV_STR || value->type == BEAM_KV_BYTES)
        sum += beam_xxh3(value->bytes.ptr, value->bytes.len);
    return sum;
}

/* The writer looks at what it is given, and takes what is valid alone. */
static void check_taken(const beam_kv_value *value, bool valid, size_t len)
{
    beam_kv_writer w;
    const void *doc;
    size_t doc_len = 0;
    uint8_t *room = malloc(len);
    beam_kv_writer_init(&w, room, len);
    int r = beam_kv_put(&w, (beam_str){NULL, 0}, value);
    EXPECT(!valid || r == 0);
    EXPECT(beam_kv_writer_finish(&w, &doc, &doc_len) == r);
    EXPECT(r < 0 || beam_kv_check(doc, doc_len, NULL) == 0);
    free(room);
}

/* --- documents ---------------------------------------------------------------------------------- */

static void check_written_again(const uint8_t *doc, size_t len)
{
    size_t again_len = 0;
    uint8_t *again = malloc(len);
    for (int order = DOCUMENT_IN_ORDER; order <= DOCUMENT_ODD_FIRST; order++) {
        EXPECT(document_rewrite(doc, len, again, len, (enum document_order)order, &again_len) == 0);
        EXPECT(again_len == len && memcmp(again, doc, len) == 0);
    }
    free(again);
}

static void check_json(const uint8_t *doc, size_t len)
{
    size_t cap = len * BEAM_KV_JSON_EXPANSION, text_len = 0, short_len = 0, again_len = 0;
    char *text = malloc(cap);
    uint8_t *again = malloc(len);

    EXPECT(beam_kv_to_json(doc, len, text, cap, &text_len) == 0);
    EXPECT(text_len < cap && strlen(text) == text_len);
    char *just = malloc(text_len + 1);
    EXPECT(beam_kv_to_json(doc, len, just, text_len + 1, &short_len) == 0);
    EXPECT(short_len == text_len && strcmp(just, text) == 0);
    EXPECT(beam_kv_to_json(doc, len, just, text_len, &short_len) == -ENOSPC);

    EXPECT(from_json(text, again, len, &again_len));
    EXPECT(again_len == len && memcmp(again, doc, len) == 0);
    free(just);
    free(again);
    free(text);
}

static void check_digest(const uint8_t *doc, size_t len)
{
    beam_xxh3_state state;
    beam_xxh3_init(&state);
    beam_xxh3_update(&state, doc, len / 3);
    beam_xxh3_update(&state, doc + len / 3, len - len / 3);
    EXPECT(beam_xxh3_final(&state) == beam_kv_digest(doc, len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    beam_kv_value root;
    size_t offset = SIZE_MAX, moved_offset = SIZE_MAX;
    uint64_t bad = 0;

    if (size > INPUT_LEN_MAX)
        return 0;
    int r = beam_kv_check(data, size, &offset), expected = read_document(data, size, &bad);
    EXPECT(r == expected);
    EXPECT(offset == (r < 0 ? bad : SIZE_MAX));

    /* At any other address, with the end of the block right behind. */
    size_t shift = 1 + size % 7;
    uint8_t *block = malloc(size + shift);
    if (size > 0)
        memcpy(block + shift, data, size);
    const uint8_t *moved = block + shift;
    EXPECT(beam_kv_check(moved, size, &moved_offset) == r && moved_offset == offset);

    char none;
    size_t none_len;
    EXPECT(r == 0 || beam_kv_to_json(moved, size, &none, 1, &none_len) == r);
    int rooted = beam_kv_root(moved, size, &root);
    EXPECT(r < 0 || rooted == 0);
    if (rooted == 0) {
        walk(moved, moved + size, &root, 0);
        check_taken(&root, r == 0, size);
    }
    if (r == 0) {
        check_all(&root);
        check_written_again(moved, size);
        check_json(moved, size);
        check_digest(moved, size);
    }
    free(block);
    return 0;
}
