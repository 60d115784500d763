/* XML to a document: what expat hands over, element by element, is put at once. Only this direction; the
 * other is xml_writer.c.
 *
 * Model. A stack of the open elements, as deep as documents are, and two texts: that of the innermost
 * element, and its key. In the vocabulary of <kv> a value is put when its element ends, a map or list is
 * opened when it begins. A foreign element (T17) is a map with a list in it from its beginning to its end.
 *
 * What expat could be talked into is out of reach: a document type declaration ends the parsing where it
 * begins, so that there are no entities to grow, and nothing outside is ever asked for. It keeps the input and
 * each name it has met, which can be 28 times the input if all are new and short. So its memory has a
 * limit, and an account. It says not for whom it asks, but asks only while it is called: whose it is
 * stands beside the thread for that long. */
#ifdef BEAM_XML

#include "kv/xml.h"

#include <errno.h>
#include <expat.h>
#include <stdalign.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "kv/base64.h"
#include "kv/buffer.h"
#include "kv/entry.h"
#include "kv/json.h"

#define PIECE_LEN_MAX ((size_t)1 << 30)      /* expat counts in int */
#define ELEMENTS_MAX (BEAM_KV_DEPTH_MAX + 2) /* <kv>, and one that the writer refuses */

/* What the parser may take, T15: of one token of any kind it needs up to 6 times the text, as its blocks
 * double; and there is room for some thousand names. */
#define PARSER_LEN_EACH 8
#define PARSER_LEN_FREE ((size_t)256 << 10)

enum kind { KIND_ROOT = BEAM_KV_LIST + 1, KIND_FOREIGN }; /* beside the types of values */

struct element {
    int kind;
    bool base64; /* STR: its text is */
    bool filled; /* ROOT: its one value is there */
    size_t start;
};

struct reader {
    XML_Parser parser;
    beam_kv_writer *out;
    beam_buffer text; /* of the innermost element */
    beam_buffer key;  /* of the same, with a NUL behind for nobody; only inside a map */
    bool keyed;
    struct element stack[ELEMENTS_MAX];
    int top; /* -1: in none */
    int error;
    size_t offset; /* of the error */
};

/* --- memory ------------------------------------------------------------------------------------- */

struct parser_memory {
    struct bm_account *account; /* may be NULL */
    size_t used, limit;
    bool over; /* more was asked for */
};

/* Of the parser that this thread is in; NULL outside of bm_xml_read. */
static _Thread_local struct parser_memory *memory_in_use;

/* What expat frees it does not tell the length of: it stands in front of the block. */
#define FRONT alignof(max_align_t)

static size_t len_of(const uint8_t *block)
{
    size_t len;
    memcpy(&len, block, sizeof(len));
    return len;
}

/* A block of len bytes, FRONT included, in place of one of old_len (0: none). */
static void *resize(uint8_t *block, size_t old_len, size_t len)
{
    struct parser_memory *m = memory_in_use;
    bm_assert(m && m->used >= old_len);
    if (len > m->limit - (m->used - old_len)) {
        m->over = true;
        return NULL;
    }
    block = (uint8_t *)bm_realloc(m->account, block, old_len, len);
    if (!block)
        return NULL;
    m->used += len - old_len;
    memcpy(block, &len, sizeof(len));
    return block + FRONT;
}

static void *xml_realloc(void *ptr, size_t len)
{
    uint8_t *block = ptr ? (uint8_t *)ptr - FRONT : NULL;
    return len <= SIZE_MAX - FRONT ? resize(block, block ? len_of(block) : 0, FRONT + len) : NULL;
}

static void *xml_malloc(size_t len)
{
    return xml_realloc(NULL, len);
}

static void xml_free(void *ptr)
{
    if (!ptr)
        return;
    uint8_t *block = (uint8_t *)ptr - FRONT;
    size_t len = len_of(block);
    bm_assert(memory_in_use && memory_in_use->used >= len);
    memory_in_use->used -= len;
    bm_free(memory_in_use->account, block, len);
}

static const XML_Memory_Handling_Suite memory = {xml_malloc, xml_realloc, xml_free};

/* --- what all handlers do ----------------------------------------------------------------------- */

static size_t here(const struct reader *r)
{
    return (size_t)XML_GetCurrentByteIndex(r->parser);
}

/* The first error ends the parsing; expat may still call for what it has begun. */
static void fail(struct reader *r, int error, size_t offset)
{
    if (r->error || error >= 0)
        return;
    r->error = error;
    r->offset = offset;
    (void)XML_StopParser(r->parser, XML_FALSE);
}

static struct element *innermost(struct reader *r)
{
    return r->top >= 0 ? &r->stack[r->top] : NULL;
}

static int push(struct reader *r, int kind)
{
    if (r->top + 1 == ELEMENTS_MAX) /* foreign ones: two levels of depth each, so this is not met */
        return -BEAM_EKV_DEPTH;
    r->stack[++r->top] = (struct element){.kind = kind, .start = here(r)};
    beam_buffer_clear(&r->text);
    return 0;
}

static bool is_space(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\n' && s[i] != '\r')
            return false;
    return true;
}

/* Base64 in a buffer becomes what it stands for, in the same place. */
static int decode_base64(beam_buffer *text)
{
    size_t len;
    if (text->len == 0)
        return 0;
    if (!bm_base64_check(text->ptr, text->len, &len))
        return -BEAM_ECODEC_SYNTAX;
    bm_base64_decode(text->ptr, text->ptr, text->len);
    text->len = len;
    return 0;
}

/* --- the vocabulary of <kv> --------------------------------------------------------------------- */

/* The type of an element by its name; 0 for none. INT stands for UINT too. */
static int type_named(const char *name)
{
    static const char *const names[] = {
        [BEAM_KV_NIL] = "nil",   [BEAM_KV_FALSE] = "false", [BEAM_KV_TRUE] = "true",
        [BEAM_KV_INT] = "int",   [BEAM_KV_UINT] = "int",    [BEAM_KV_FLOAT] = "float",
        [BEAM_KV_STR] = "str",   [BEAM_KV_BYTES] = "bytes", [BEAM_KV_MAP] = "map",
        [BEAM_KV_LIST] = "list",
    };
    for (int type = BEAM_KV_NIL; type <= BEAM_KV_LIST; type++)
        if (strcmp(names[type], name) == 0)
            return type;
    return 0;
}

static beam_str key_of(const struct reader *r)
{
    return (beam_str){r->keyed ? (const char *)r->key.ptr : NULL, r->keyed ? r->key.len - 1 : 0};
}

/* A key is kept with one byte behind it, so that an empty one has a place, too. */
static int set_key(struct reader *r, const char *text, bool base64)
{
    if (r->keyed)
        return -BEAM_ECODEC_SYNTAX;
    r->keyed = true;
    beam_buffer_clear(&r->key);
    (void)beam_buffer_add(&r->key, text, strlen(text));
    int e = r->key.error;
    if (e == 0 && base64)
        e = decode_base64(&r->key);
    return e < 0 ? e : beam_buffer_add(&r->key, "", 1);
}

static int read_attributes(struct reader *r, const XML_Char **attributes, int type, bool in_map,
                           bool *ret_base64)
{
    r->keyed = false;
    *ret_base64 = false;
    for (; attributes[0]; attributes += 2) {
        const char *name = attributes[0], *value = attributes[1];
        int e = -BEAM_ECODEC_SYNTAX;
        if (in_map && (strcmp(name, "k") == 0 || strcmp(name, "k64") == 0))
            e = set_key(r, value, name[1] != '\0');
        else if (type == BEAM_KV_STR && strcmp(name, "enc") == 0 && strcmp(value, "b64") == 0)
            e = 0, *ret_base64 = true;
        if (e < 0)
            return e;
    }
    return r->keyed == in_map ? 0 : -BEAM_ECODEC_SYNTAX;
}

static int begin_value(struct reader *r, const char *name, const XML_Char **attributes)
{
    struct element *in = innermost(r);
    int type = type_named(name);
    bool base64;
    if (type == 0 || in->filled || in->kind < BEAM_KV_MAP)
        return -BEAM_ECODEC_SYNTAX;
    in->filled = in->kind == KIND_ROOT;
    int e = read_attributes(r, attributes, type, in->kind == BEAM_KV_MAP, &base64);
    if (e == 0 && type >= BEAM_KV_MAP)
        e = beam_kv_begin(r->out, key_of(r), (beam_kv_type)type);
    if (e == 0)
        e = push(r, type);
    if (e == 0)
        innermost(r)->base64 = base64;
    return e;
}

static int read_number(const beam_buffer *text, bool whole, beam_kv_value *ret)
{
    static const struct {
        const char *text;
        uint64_t bits;
    } others[] = {{"nan", BM_ENTRY_NAN_BITS},
                  {"inf", UINT64_C(0x7ff) << 52},
                  {"-inf", UINT64_C(0xfff) << 52}};
    size_t used;
    for (size_t i = 0; !whole && i < sizeof(others) / sizeof(others[0]); i++)
        if (text->len == strlen(others[i].text) &&
            memcmp(text->ptr, others[i].text, text->len) == 0) {
            *ret = (beam_kv_value){.type = BEAM_KV_FLOAT, .u = others[i].bits};
            return 0;
        }
    int e = bm_json_read_number(text->ptr, text->len, ret, &used);
    if (e < 0)
        return e == -BEAM_ECODEC_TRUNCATED ? -BEAM_ECODEC_SYNTAX : e;
    return used == text->len && whole == (ret->type != BEAM_KV_FLOAT) ? 0 : -BEAM_ECODEC_SYNTAX;
}

/* The value of an element that has ended, and is no map or list. */
static int put_value(struct reader *r, const struct element *element)
{
    beam_kv_value value = {.type = (beam_kv_type)element->kind};
    int e = r->text.error;
    if (e == 0 && (element->base64 || element->kind == BEAM_KV_BYTES))
        e = decode_base64(&r->text);
    if (e == 0 && (element->kind == BEAM_KV_INT || element->kind == BEAM_KV_FLOAT))
        e = read_number(&r->text, element->kind == BEAM_KV_INT, &value);
    if (e < 0)
        return e;
    if (element->kind == BEAM_KV_STR)
        value.str = (beam_str){(const char *)r->text.ptr, r->text.len};
    else if (element->kind == BEAM_KV_BYTES)
        value.bytes = (beam_bytes){r->text.ptr, r->text.len};
    return beam_kv_put(r->out, key_of(r), &value);
}

static int end_value(struct reader *r, const struct element *element)
{
    if (element->kind == KIND_ROOT)
        return element->filled ? 0 : -BEAM_ECODEC_SYNTAX;
    return element->kind >= BEAM_KV_MAP ? beam_kv_end(r->out) : put_value(r, element);
}

/* --- foreign elements --------------------------------------------------------------------------- */

/* The text so far becomes a child; it ends where an element begins or ends. */
static int put_text(struct reader *r)
{
    int e = r->text.error;
    if (e == 0 && r->text.len > 0)
        e = beam_kv_put_strn(r->out, NULL, (const char *)r->text.ptr, r->text.len);
    beam_buffer_clear(&r->text);
    return e;
}

static int begin_foreign(struct reader *r, const XML_Char **attributes)
{
    int e = innermost(r) ? put_text(r) : 0;
    if (e == 0)
        e = push(r, KIND_FOREIGN);
    if (e < 0)
        return e;
    (void)beam_kv_begin_map(r->out, NULL);
    (void)beam_kv_begin_map(r->out, "attr");
    for (; attributes[0]; attributes += 2)
        (void)beam_kv_put_str(r->out, attributes[0], attributes[1]);
    (void)beam_kv_end(r->out);
    return beam_kv_begin_list(r->out, "child");
}

static int end_foreign(struct reader *r, const char *name)
{
    int e = put_text(r);
    if (e < 0)
        return e;
    (void)beam_kv_end(r->out);
    (void)beam_kv_put_str(r->out, "name", name);
    return beam_kv_end(r->out);
}

/* --- from expat --------------------------------------------------------------------------------- */

static void on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *r = (struct reader *)arg;
    struct element *in = innermost(r);
    int e;
    if (r->error)
        return;
    if (!in && strcmp(name, "kv") == 0)
        e = attributes[0] ? -BEAM_ECODEC_SYNTAX : push(r, KIND_ROOT);
    else if (!in || in->kind == KIND_FOREIGN)
        e = begin_foreign(r, attributes);
    else
        e = begin_value(r, name, attributes);
    fail(r, e, here(r));
}

static void on_end(void *arg, const XML_Char *name)
{
    struct reader *r = (struct reader *)arg;
    if (r->error)
        return;
    struct element ended = r->stack[r->top];
    int e = ended.kind == KIND_FOREIGN ? end_foreign(r, name) : end_value(r, &ended);
    r->top--;
    bool scalar = ended.kind < BEAM_KV_MAP; /* put just now, as a whole */
    fail(r, e, scalar ? ended.start : here(r));
}

static void on_text(void *arg, const XML_Char *text, int len)
{
    struct reader *r = (struct reader *)arg;
    const struct element *in = innermost(r);
    if (r->error || !in)
        return;
    if (in->kind == KIND_FOREIGN || (in->kind >= BEAM_KV_INT && in->kind <= BEAM_KV_BYTES))
        fail(r, beam_buffer_add(&r->text, text, (size_t)len), here(r));
    else if (!is_space(text, (size_t)len))
        fail(r, -BEAM_ECODEC_SYNTAX, here(r));
}

static void on_doctype(void *arg, const XML_Char *name, const XML_Char *system_id,
                       const XML_Char *public_id, int has_internal_subset)
{
    struct reader *r = (struct reader *)arg;
    fail(r, -BEAM_ECODEC_UNSUPPORTED, here(r));
}

static int error_of(XML_Parser parser)
{
    switch (XML_GetErrorCode(parser)) {
    case XML_ERROR_NO_MEMORY:
        return memory_in_use->over ? -BEAM_ECODEC_TOO_LARGE : -ENOMEM;
    case XML_ERROR_NO_ELEMENTS:
    case XML_ERROR_UNCLOSED_TOKEN:
    case XML_ERROR_PARTIAL_CHAR:
    case XML_ERROR_UNCLOSED_CDATA_SECTION:
        return -BEAM_ECODEC_TRUNCATED;
    default:
        return -BEAM_ECODEC_SYNTAX;
    }
}

static void parse(struct reader *r, const uint8_t *in, size_t len)
{
    const char *pos = (const char *)in;
    enum XML_Status status;
    size_t left = len, piece;
    XML_SetUserData(r->parser, r);
    XML_SetElementHandler(r->parser, on_start, on_end);
    XML_SetCharacterDataHandler(r->parser, on_text);
    XML_SetStartDoctypeDeclHandler(r->parser, on_doctype);
    do {
        piece = left < PIECE_LEN_MAX ? left : PIECE_LEN_MAX;
        left -= piece;
        status = XML_Parse(r->parser, pos, (int)piece, left == 0);
        pos += piece;
    } while (status == XML_STATUS_OK && left > 0);
    if (status == XML_STATUS_OK || r->error)
        return;
    r->error = error_of(r->parser);
    r->offset = r->error == -BEAM_ECODEC_TRUNCATED ? len : here(r);
}

static int read_with(struct reader *r, const uint8_t *in, size_t len, struct bm_account *account)
{
    r->parser = XML_ParserCreate_MM(NULL, &memory, NULL);
    if (!r->parser)
        return -ENOMEM;
    bm_buffer_init(&r->text, SIZE_MAX, account);
    bm_buffer_init(&r->key, SIZE_MAX, account);
    parse(r, in, len);
    beam_buffer_deinit(&r->text);
    beam_buffer_deinit(&r->key);
    XML_ParserFree(r->parser);
    return r->error;
}

int bm_xml_read(const uint8_t *in, size_t len, beam_kv_writer *out, struct bm_account *account,
                size_t *ret_offset)
{
    struct reader r = {.out = out, .top = -1, .offset = SIZE_MAX};
    struct parser_memory m = {.account = account};
    if (__builtin_mul_overflow(len, PARSER_LEN_EACH, &m.limit) ||
        __builtin_add_overflow(m.limit, PARSER_LEN_FREE, &m.limit))
        m.limit = SIZE_MAX;
    bm_assert(!memory_in_use);
    memory_in_use = &m;
    int e = read_with(&r, in, len, account);
    memory_in_use = NULL;
    bm_assert(m.used == 0);
    if (e < 0 && r.offset != SIZE_MAX)
        *ret_offset = r.offset;
    return e;
}

#endif
