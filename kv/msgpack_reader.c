/* msgpack to a document, in one pass: each object is put as it is read.
 *
 * Model. A cursor over the bytes, which cannot pass the end, and a stack of the open maps and arrays with
 * how many entries each still wants. A count that comes in is compared at once with the bytes that are left
 * (T14), so that nothing is done for entries that cannot be there.
 *
 * Invariant: `top` is below BEAM_KV_DEPTH_MAX, because the writer refuses what is deeper. */
#include "kv/msgpack.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "kv/utf8.h"

/* What the first byte of an object says. */
enum kind {
    KIND_NEVER, /* c1 */
    KIND_NIL,
    KIND_FALSE,
    KIND_TRUE,
    KIND_INT,   /* signed, of `width` bytes */
    KIND_UINT,  /* unsigned */
    KIND_FLOAT, /* of 4 or 8 bytes */
    KIND_STR,   /* with a length of `width` bytes */
    KIND_BIN,
    KIND_ARRAY, /* with a count of `width` bytes */
    KIND_MAP,
    KIND_EXT,
};

/* c0 to df */
static const struct {
    uint8_t kind, width;
} heads[32] = {
    {KIND_NIL, 0},   {KIND_NEVER, 0}, {KIND_FALSE, 0}, {KIND_TRUE, 0},  {KIND_BIN, 1},
    {KIND_BIN, 2},   {KIND_BIN, 4},   {KIND_EXT, 0},   {KIND_EXT, 0},   {KIND_EXT, 0},
    {KIND_FLOAT, 4}, {KIND_FLOAT, 8}, {KIND_UINT, 1},  {KIND_UINT, 2},  {KIND_UINT, 4},
    {KIND_UINT, 8},  {KIND_INT, 1},   {KIND_INT, 2},   {KIND_INT, 4},   {KIND_INT, 8},
    {KIND_EXT, 0},   {KIND_EXT, 0},   {KIND_EXT, 0},   {KIND_EXT, 0},   {KIND_EXT, 0},
    {KIND_STR, 1},   {KIND_STR, 2},   {KIND_STR, 4},   {KIND_ARRAY, 2}, {KIND_ARRAY, 4},
    {KIND_MAP, 2},   {KIND_MAP, 4},
};

struct object {
    enum kind kind;
    uint64_t number;      /* INT, UINT, FLOAT: big-endian and as it is; else a length or a count */
    unsigned width;       /* of the number */
    const uint8_t *bytes; /* STR, BIN */
};

struct level {
    uint64_t left; /* entries that are still to come */
    bool map;
};

struct reader {
    struct bm_bytes in;
    beam_kv_writer *out;
    struct level stack[BEAM_KV_DEPTH_MAX];
    int top; /* -1: in nothing */
};

static uint64_t big_endian(const uint8_t *p, unsigned width)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < width; i++)
        number = number << 8 | p[i];
    return number;
}

/* The next object: for a map or array its head, for all others all of it. */
static inline int read_object(struct bm_bytes *in, struct object *ret)
{
    const uint8_t *p = bm_bytes_take(in, 1);
    if (!p)
        return -BEAM_ECODEC_TRUNCATED;
    uint8_t head = *p;
    *ret = (struct object){.kind = KIND_UINT, .number = head, .width = 8};
    if (head < 0x80)
        return 0;
    if (head >= 0xe0) {
        *ret = (struct object){.kind = KIND_INT, .number = head, .width = 1};
        return 0;
    }
    if (head >= 0xc0) {
        ret->kind = (enum kind)heads[head - 0xc0].kind;
        ret->width = heads[head - 0xc0].width;
        p = bm_bytes_take(in, ret->width);
        if (!p)
            return -BEAM_ECODEC_TRUNCATED;
        ret->number = big_endian(p, ret->width);
    } else {
        ret->kind = head < 0x90 ? KIND_MAP : head < 0xa0 ? KIND_ARRAY : KIND_STR;
        ret->number = head & (head < 0xa0 ? 0x0f : 0x1f);
    }
    switch (ret->kind) {
    case KIND_NEVER:
        return -BEAM_ECODEC_SYNTAX;
    case KIND_EXT:
        return -BEAM_ECODEC_UNSUPPORTED;
    case KIND_STR:
    case KIND_BIN:
        ret->bytes = bm_bytes_take(in, ret->number);
        return ret->bytes ? 0 : -BEAM_ECODEC_TRUNCATED;
    case KIND_ARRAY:
        return ret->number <= bm_bytes_left(in) ? 0 : -BEAM_ECODEC_TRUNCATED;
    case KIND_MAP: /* at most 2^32 of them */
        return 2 * ret->number <= bm_bytes_left(in) ? 0 : -BEAM_ECODEC_TRUNCATED;
    default:
        return 0;
    }
}

static double to_float(const struct object *o)
{
    if (o->width == 4) {
        uint32_t bits = (uint32_t)o->number;
        float f;
        memcpy(&f, &bits, sizeof(f));
        return (double)f;
    }
    double f;
    memcpy(&f, &o->number, sizeof(f));
    return f;
}

static int64_t to_int(const struct object *o)
{
    unsigned unused = 64 - 8 * o->width;
    return (int64_t)(o->number << unused) >> unused; /* gcc and clang: the sign comes along */
}

static int begin(struct reader *r, beam_str key, const struct object *o)
{
    bool map = o->kind == KIND_MAP;
    int e = beam_kv_begin(r->out, key, map ? BEAM_KV_MAP : BEAM_KV_LIST);
    if (e < 0)
        return e;
    bm_assert(r->top + 1 < BEAM_KV_DEPTH_MAX);
    r->stack[++r->top] = (struct level){.left = o->number, .map = map};
    return 0;
}

static int put(struct reader *r, beam_str key, const struct object *o)
{
    beam_kv_value value = {.type = BEAM_KV_NIL};
    switch (o->kind) {
    case KIND_ARRAY:
    case KIND_MAP:
        return begin(r, key, o);
    case KIND_FALSE:
        value.type = BEAM_KV_FALSE;
        break;
    case KIND_TRUE:
        value.type = BEAM_KV_TRUE;
        break;
    case KIND_INT:
        value.type = BEAM_KV_INT;
        value.i = to_int(o);
        break;
    case KIND_UINT:
        value.type = BEAM_KV_UINT; /* the writer makes an INT of it where that holds it */
        value.u = o->number;
        break;
    case KIND_FLOAT:
        value.type = BEAM_KV_FLOAT;
        value.f = to_float(o);
        break;
    case KIND_STR:
        value.type = BEAM_KV_STR;
        value.str = (beam_str){(const char *)o->bytes, o->number};
        break;
    case KIND_BIN:
        value.type = BEAM_KV_BYTES;
        value.bytes = (beam_bytes){o->bytes, o->number};
        break;
    default: /* NIL; the others are no objects */
        break;
    }
    return beam_kv_put(r->out, key, &value);
}

/* Ends what wants no more entries. 1: another entry is to come. */
static int end_full(struct reader *r)
{
    for (; r->top >= 0; r->top--) {
        if (r->stack[r->top].left > 0)
            return 1;
        int e = beam_kv_end(r->out);
        if (e < 0)
            return e;
    }
    return 0;
}

/* A key is put together with its value. */
static bool key_is_wrong(beam_str key, int error)
{
    return (error == -BEAM_EKV_UTF8 && !bm_utf8_valid(key.ptr, key.len)) ||
           (error == -BEAM_EKV_TOO_LARGE && key.len > BEAM_KV_KEY_LEN_MAX);
}

/* One entry; *ret_start becomes where the object begins that an error is about. */
static int read_entry(struct reader *r, const uint8_t **ret_start)
{
    struct object o;
    beam_str key = {NULL, 0};
    *ret_start = r->in.pos;
    if (r->top >= 0) {
        r->stack[r->top].left--;
        if (r->stack[r->top].map) {
            int e = read_object(&r->in, &o);
            if (e == 0 && o.kind != KIND_STR)
                e = -BEAM_ECODEC_UNSUPPORTED;
            if (e < 0)
                return e;
            key = (beam_str){(const char *)o.bytes, o.number};
        }
    }
    const uint8_t *value = r->in.pos;
    int e = read_object(&r->in, &o);
    if (e == 0)
        e = put(r, key, &o);
    if (e < 0 && !key_is_wrong(key, e))
        *ret_start = value;
    return e;
}

int bm_msgpack_read(const uint8_t *in, size_t len, beam_kv_writer *out, size_t *ret_offset)
{
    struct reader r = {.in = bm_bytes(in, len), .out = out, .top = -1};
    const uint8_t *start = in;
    int e;
    do {
        e = read_entry(&r, &start);
        if (e < 0)
            break;
        start = r.in.pos;
        e = end_full(&r);
    } while (e > 0);
    if (e == 0 && bm_bytes_left(&r.in) > 0)
        e = -BEAM_ECODEC_SYNTAX;
    if (e < 0)
        *ret_offset = e == -BEAM_ECODEC_TRUNCATED ? len : (size_t)(start - in);
    return e;
}
