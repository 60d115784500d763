/* Any message, as the program prints it. A terminal gets a line of whole characters, none of them a control
 * character, whatever the peer has sent; the JSON has all of the message and can be read back; a number or a
 * plain text is printed as the word that puts it into a message. On the way, entries that go from a document
 * into a message make the same metadata, and each getter finds them.
 *
 * Input: the length of the metadata in two bytes, the metadata, the body. Metadata that is no map stands for
 * none.
 *
 * Covers: cli/output.c runtime/metadata.c:-bm_message_copy_metadata */
#include <errno.h>
#include <math.h>
#include <stdbool.h>

#include <beam/beam.h>

#include "cli/arguments.h"
#include "cli/output.h"
#include "kv/utf8.h"
#include "tests/fuzz/from_json.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_LEN_MAX (32u << 10)

static char *printed;
static size_t printed_len;

static FILE *print_to_memory(void)
{
    printed = NULL;
    FILE *out = open_memstream(&printed, &printed_len);
    EXPECT(out);
    return out;
}

static void expect_line(const char *text, size_t len)
{
    EXPECT(len > 0 && text[len - 1] == '\n');
    EXPECT(bm_utf8_valid(text, len));
    for (size_t i = 0; i + 1 < len; i++) {
        unsigned char c = (unsigned char)text[i], next = (unsigned char)text[i + 1];
        EXPECT(c >= 0x20 && c != 0x7f && !(c == 0xc2 && next < 0xa0));
    }
}

/* What the object of `printed` has under this key, in a document in room. */
static bool read_back(void *room, size_t cap, const char *key, beam_kv_value *ret_value)
{
    beam_kv_value root;
    size_t len = 0;
    EXPECT(printed_len > 0 && printed[printed_len - 1] == '\n');
    printed[printed_len - 1] = '\0';
    return from_json(printed, room, cap, &len) && beam_kv_root(room, len, &root) == 0 &&
           beam_kv_get(&root, key, ret_value) == 0;
}

static unsigned depth_of(const beam_kv_value *value)
{
    beam_kv_iter iter;
    beam_kv_value inner;
    unsigned deepest = 0;
    beam_kv_iter_init(&iter, value);
    while (beam_kv_iter_next(&iter, NULL, &inner) > 0) {
        unsigned depth = depth_of(&inner);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
}

static void expect_json_has(const char *key, const beam_kv_value *map)
{
    size_t cap = printed_len * 8 + 64; /* "{}," is a value of 8 bytes */
    void *room = malloc(cap);
    beam_kv_value same;
    EXPECT(room);
    /* Inside an object it can be deeper than any document is. */
    if (depth_of(map) < BEAM_KV_DEPTH_MAX)
        EXPECT(read_back(room, cap, key, &same) && same.type == BEAM_KV_MAP &&
               same.bytes.len == map->bytes.len &&
               memcmp(same.bytes.ptr, map->bytes.ptr, map->bytes.len) == 0);
    free(room);
}

static void expect_json_has_body(const void *body, size_t len)
{
    size_t cap = printed_len * 8 + 64;
    void *room = malloc(cap);
    beam_kv_value same;
    EXPECT(room && read_back(room, cap, "body", &same));
    EXPECT(same.type == (bm_utf8_valid(body, len) ? BEAM_KV_STR : BEAM_KV_BYTES));
    EXPECT(same.bytes.len == len && memcmp(same.bytes.ptr, body, len) == 0);
    free(room);
}

static void print(const beam_message *message, const beam_kv_value *map)
{
    size_t body_len;
    const void *body = beam_message_body(message, &body_len);
    FILE *out = print_to_memory();
    EXPECT(output_line(out, message) >= 0);
    fclose(out);
    expect_line(printed, printed_len);
    free(printed);

    out = print_to_memory();
    EXPECT(output_json(out, message) == 0);
    fclose(out);
    EXPECT(!memchr(printed, '\n', printed_len - 1) && bm_utf8_valid(printed, printed_len));
    if (body_len > 0 && (!map || map->bytes.len == 0))
        expect_json_has_body(body, body_len);
    else if (map && map->bytes.len > 0)
        expect_json_has("metadata", map);
    free(printed);
}

static void print_error(unsigned code, const void *details, size_t len, const beam_kv_value *map)
{
    FILE *out = print_to_memory();
    EXPECT(output_json_error(out, code, details, len) == 0);
    fclose(out);
    if (map)
        expect_json_has("details", map);
    free(printed);
}

/* --- and back ---------------------------------------------------------------------------------- */

/* A key that a word can have, and a value that is printed without escapes. */
static bool is_plain(beam_str key, const beam_kv_value *value)
{
    beam_str text = value->type == BEAM_KV_STR ? value->str : (beam_str){"", 0};
    for (size_t i = 0; i < key.len + text.len; i++) {
        unsigned char c = (unsigned char)(i < key.len ? key.ptr[i] : text.ptr[i - key.len]);
        if (c < 0x20 || c >= 0x7f || (i < key.len && c == '='))
            return false;
    }
    if (value->type == BEAM_KV_FLOAT && !isfinite(value->f))
        return false; /* no number of JSON's */
    return value->type <= BEAM_KV_STR && key.len > 0 &&
           (value->type != BEAM_KV_STR || key.ptr[key.len - 1] != ':');
}

static void expect_same_pair(beam_str key, const beam_kv_value *value, const char *word)
{
    beam_message *again = beam_message_new();
    beam_kv_value same;
    char *name = fuzz_string(key.ptr, key.len);
    EXPECT(argument_put(again, word) == 0);
    EXPECT(beam_message_get(again, name, &same) == 0 && same.type == value->type);
    if (value->type == BEAM_KV_STR)
        EXPECT(same.str.len == value->str.len &&
               memcmp(same.str.ptr, value->str.ptr, same.str.len) == 0);
    else if (value->type >= BEAM_KV_INT)
        EXPECT(same.u == value->u);
    free(name);
    beam_message_free(again);
}

/* One key at a time, so that each is a word of its own. */
static void try_printed(beam_str key, const beam_kv_value *value)
{
    beam_message *one = beam_message_new();
    size_t len = 0;
    beam_message_put(one, key, value);
    const void *document = beam_message_metadata(one, &len);
    FILE *out = print_to_memory();
    EXPECT(document && output_pairs(out, document, len, ' ') == 1);
    fclose(out);
    if (is_plain(key, value))
        expect_same_pair(key, value, printed);
    free(printed);
    beam_message_free(one);
}

/* --- metadata ---------------------------------------------------------------------------------- */

#define EXPECT_GETTER(kind, ctype)                                                                 \
    do {                                                                                           \
        ctype a, b;                                                                                \
        memset(&a, 0, sizeof(a));                                                                  \
        memset(&b, 0, sizeof(b));                                                                  \
        EXPECT(beam_message_get_##kind(message, key, &a) == beam_kv_as_##kind(value, &b));         \
        EXPECT(memcmp(&a, &b, sizeof(a)) == 0 || value->type >= BEAM_KV_STR);                      \
    } while (0)

static void expect_getters(const beam_message *message, const char *key, const beam_kv_value *value)
{
    beam_kv_value same;
    EXPECT(beam_message_get(message, key, &same) == 0 && same.type == value->type);
    EXPECT_GETTER(str, beam_str);
    EXPECT_GETTER(int, int64_t);
    EXPECT_GETTER(uint, uint64_t);
    EXPECT_GETTER(bytes, beam_bytes);
    EXPECT_GETTER(float, double);
    EXPECT_GETTER(bool, bool);
}

/* By the call that is for the type, where the key is a C string. */
static void put(beam_message *message, beam_str key, const beam_kv_value *value)
{
    char *name = fuzz_string(key.ptr, key.len);
    if (strlen(name) != key.len || value->type >= BEAM_KV_MAP)
        beam_message_put(message, key, value);
    else if (value->type == BEAM_KV_NIL)
        beam_message_put_nil(message, name);
    else if (value->type <= BEAM_KV_TRUE)
        beam_message_put_bool(message, name, value->type == BEAM_KV_TRUE);
    else if (value->type == BEAM_KV_INT)
        beam_message_put_int(message, name, value->i);
    else if (value->type == BEAM_KV_UINT)
        beam_message_put_uint(message, name, value->u);
    else if (value->type == BEAM_KV_FLOAT)
        beam_message_put_float(message, name, value->f);
    else if (value->type == BEAM_KV_BYTES)
        beam_message_put_bytes(message, name, value->bytes.ptr, value->bytes.len);
    else if (memchr(value->str.ptr, '\0', value->str.len))
        beam_message_put_strn(message, name, value->str.ptr, value->str.len);
    else
        beam_message_putf(message, name, "%.*s", BEAM_STR(value->str));
    free(name);
}

static unsigned put_all(beam_message *message, const beam_kv_value *map)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    unsigned count = 0;
    beam_kv_iter_init(&iter, map);
    for (; beam_kv_iter_next(&iter, &key, &value) > 0; count++)
        put(message, key, &value);
    return count;
}

static void expect_all(const beam_message *message, const beam_kv_value *map)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    beam_kv_iter_init(&iter, map);
    while (beam_kv_iter_next(&iter, &key, &value) > 0) {
        char *name = fuzz_string(key.ptr, key.len);
        if (strlen(name) == key.len)
            expect_getters(message, name, &value);
        free(name);
        try_printed(key, &value);
    }
}

static void try_message(const uint8_t *document, size_t len, const uint8_t *body, size_t body_len)
{
    beam_message *message = beam_message_new();
    beam_kv_value map;
    bool is_map = len > 0 && beam_kv_check(document, len, NULL) == 0 &&
                  beam_kv_root(document, len, &map) == 0 && map.type == BEAM_KV_MAP;
    if (is_map) {
        unsigned count = put_all(message, &map);
        size_t same_len;
        const void *same = beam_message_metadata(message, &same_len);
        bool fits = count <= BEAM_METADATA_KEYS_MAX && len <= BEAM_METADATA_LEN_MAX;
        EXPECT(beam_message_error(message) == (fits ? 0 : -EMSGSIZE));
        EXPECT((same != NULL) == (fits && count > 0));
        EXPECT(!same || (same_len == len && memcmp(same, document, len) == 0));
        if (!fits) {
            beam_message_free(message);
            return;
        }
        expect_all(message, &map);
    }
    beam_message_set_body(message, body, body_len);
    beam_message_set_codec(message, (uint32_t)body_len % 3);
    print(message, is_map ? &map : NULL);
    print_error((unsigned)(body_len % 20), is_map ? document : NULL, is_map ? len : 0,
                is_map ? &map : NULL);
    beam_message_free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    if (size > INPUT_LEN_MAX)
        return 0;
    size_t len = fuzz_byte(&in);
    len |= (size_t)fuzz_byte(&in) << 8;
    size_t body_len = size;
    uint8_t *document = fuzz_copy(fuzz_view(&in, &len), len);
    const uint8_t *rest = fuzz_view(&in, &body_len);
    uint8_t *body = fuzz_copy(rest, body_len);
    try_message(document, len, body, body_len);
    free(document);
    free(body);
    return 0;
}
