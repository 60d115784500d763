/* Documents as msgpack. Only this direction; the other is msgpack_reader.c.
 *
 * A map or array begins with its count, which a document does not hold: the entries are counted first, by
 * their headers, so each is visited twice. The open ones are a stack as deep as documents are. */
#include "kv/msgpack.h"

#include "base/assert.h"
#include "kv/entry.h"

#define HEAD_LEN_MAX 9

static void add(beam_buffer *out, const void *bytes, size_t len)
{
    (void)beam_buffer_add(out, bytes, len);
}

/* A first byte and a number of `width` bytes, highest first. */
static void add_head(beam_buffer *out, uint8_t head, uint64_t number, unsigned width)
{
    uint8_t bytes[HEAD_LEN_MAX] = {head};
    for (unsigned i = 0; i < width; i++)
        bytes[1 + i] = (uint8_t)(number >> 8 * (width - 1 - i));
    add(out, bytes, 1 + width);
}

/* The exponent of the shortest of 1, 2, 4, 8 bytes that hold it. */
static unsigned width_log2(uint64_t number)
{
    return number <= UINT8_MAX ? 0 : number <= UINT16_MAX ? 1 : number <= UINT32_MAX ? 2 : 3;
}

static void add_uint(beam_buffer *out, uint64_t u)
{
    unsigned log2 = width_log2(u);
    if (u < 0x80)
        add_head(out, (uint8_t)u, 0, 0);
    else
        add_head(out, (uint8_t)(0xcc + log2), u, 1u << log2);
}

static void add_int(beam_buffer *out, int64_t i)
{
    if (i >= 0) {
        add_uint(out, (uint64_t)i);
    } else if (i >= -32) {
        add_head(out, (uint8_t)i, 0, 0);
    } else {
        /* Its magnitude less one, doubled, takes as many bits as it does with its sign. */
        unsigned log2 = i < INT32_MIN ? 3 : width_log2(2 * ~(uint64_t)i);
        add_head(out, (uint8_t)(0xd0 + log2), (uint64_t)i, 1u << log2);
    }
}

/* The head of a str, bin, array or map: `fixed` with the number in it for those below fixed_end, else the
 * first of the forms from `base` on that is wide enough. */
static void add_len(beam_buffer *out, uint8_t fixed, uint64_t fixed_end, uint8_t base,
                    unsigned log2_min, uint64_t len)
{
    unsigned log2 = width_log2(len);
    if (log2 < log2_min)
        log2 = log2_min;
    if (len < fixed_end)
        add_head(out, (uint8_t)(fixed | len), 0, 0);
    else
        add_head(out, (uint8_t)(base + log2 - log2_min), len, 1u << log2);
}

static void add_str(beam_buffer *out, beam_str str)
{
    add_len(out, 0xa0, 32, 0xd9, 0, str.len);
    add(out, str.ptr, str.len);
}

static uint64_t count_entries(const beam_kv_value *container)
{
    const uint8_t *pos = (const uint8_t *)container->bytes.ptr, *end = pos + container->bytes.len;
    uint64_t count = 0;
    for (; pos < end; count++)
        pos += bm_entry_at(pos).len;
    return count;
}

/* A value, or the head of a map or list. */
static void add_value(beam_buffer *out, const beam_kv_value *value)
{
    switch (value->type) {
    case BEAM_KV_NIL:
        add_head(out, 0xc0, 0, 0);
        break;
    case BEAM_KV_FALSE:
        add_head(out, 0xc2, 0, 0);
        break;
    case BEAM_KV_TRUE:
        add_head(out, 0xc3, 0, 0);
        break;
    case BEAM_KV_INT:
        add_int(out, value->i);
        break;
    case BEAM_KV_UINT:
        add_uint(out, value->u);
        break;
    case BEAM_KV_FLOAT:
        add_head(out, 0xcb, value->u, 8);
        break;
    case BEAM_KV_STR:
        add_str(out, value->str);
        break;
    case BEAM_KV_BYTES:
        add_len(out, 0, 0, 0xc4, 0, value->bytes.len);
        add(out, value->bytes.ptr, value->bytes.len);
        break;
    case BEAM_KV_MAP:
        add_len(out, 0x80, 16, 0xde, 1, count_entries(value));
        break;
    case BEAM_KV_LIST:
        add_len(out, 0x90, 16, 0xdc, 1, count_entries(value));
        break;
    }
}

int bm_msgpack_write(const beam_kv_value *root, beam_buffer *out)
{
    struct {
        beam_kv_iter iter;
        bool map;
    } stack[BEAM_KV_DEPTH_MAX];
    int top = -1;
    beam_kv_value value = *root;
    beam_str key;

    for (;;) {
        add_value(out, &value);
        if (value.type == BEAM_KV_MAP || value.type == BEAM_KV_LIST) {
            top++;
            bm_assert(top < BEAM_KV_DEPTH_MAX);
            stack[top].map = value.type == BEAM_KV_MAP;
            beam_kv_iter_init(&stack[top].iter, &value);
        }
        while (top >= 0 && beam_kv_iter_next(&stack[top].iter, &key, &value) <= 0)
            top--;
        if (top < 0 || out->error)
            return out->error;
        if (stack[top].map)
            add_str(out, key);
    }
}
