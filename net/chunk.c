/* See chunk.h. The bytes of DATA are shown where they lie; those of an END are collected, because a kv map is
 * looked at whole, and aligned. */
#include "net/chunk.h"

#include <errno.h>
#include <string.h>

#include <beam/kv.h>

#include "base/alloc.h"
#include "base/bytes.h"

#define WHY_LEN 8u             /* u32 code, u32 zero */
#define DETAILS_LEN_MAX 16384u /* docs/spec/session.md F3 */

/* The head is here: may this come now? */
static int begin(struct bm_chunk_reader *reader)
{
    const uint8_t *head = reader->head;
    uint32_t len = head[1] | (uint32_t)head[2] << 8 | (uint32_t)head[3] << 16;
    reader->kind = head[0];
    reader->left = len;
    if (len > BM_CHUNK_LEN_MAX - BM_CHUNK_HEAD_LEN || reader->ended)
        return -EPROTO;
    if ((reader->kind == BM_CHUNK_GO) != (reader->client && !reader->went))
        return -EPROTO;
    switch (reader->kind) {
    case BM_CHUNK_GO:
    case BM_CHUNK_ALIVE:
        return len == 0 ? 0 : -EPROTO;
    case BM_CHUNK_DATA:
        return 0;
    case BM_CHUNK_END:
        if (len < WHY_LEN || len > WHY_LEN + DETAILS_LEN_MAX)
            return -EPROTO;
        reader->end_cap = len;
        reader->end = bm_alloc(NULL, len);
        return reader->end ? 0 : -ENOMEM;
    default:
        return reader->kind >= BM_CHUNK_KIND_IGNORED ? 0 : -EPROTO;
    }
}

static int parse_end(struct bm_chunk_reader *reader, struct bm_chunk *ret_chunk)
{
    const uint8_t *at = reader->end;
    uint32_t details_len = reader->end_cap - WHY_LEN;
    beam_kv_value map;
    if (bm_get_u32(at + 4) != 0)
        return -EPROTO;
    if (details_len > 0 &&
        (beam_kv_check(at + WHY_LEN, details_len, NULL) < 0 ||
         beam_kv_root(at + WHY_LEN, details_len, &map) < 0 || map.type != BEAM_KV_MAP))
        return -EPROTO;
    *ret_chunk = (struct bm_chunk){
        .code = bm_get_u32(at),
        .details = details_len > 0 ? at + WHY_LEN : NULL,
        .details_len = details_len,
    };
    reader->ended = true;
    return BM_CHUNK_END;
}

/* Its bytes, as far as they are here. An event, 0, or an error. */
static int go_on(struct bm_chunk_reader *reader, const uint8_t *bytes, size_t part,
                 struct bm_chunk *ret_chunk)
{
    if (reader->kind == BM_CHUNK_END)
        memcpy(reader->end + (reader->end_cap - reader->left), bytes, part);
    reader->left -= (uint32_t)part;
    if (reader->left == 0)
        reader->head_len = 0;
    switch (reader->kind) {
    case BM_CHUNK_GO:
        reader->went = true;
        return BM_CHUNK_GO;
    case BM_CHUNK_DATA:
        *ret_chunk = (struct bm_chunk){.bytes = bytes, .len = part};
        return part > 0 ? BM_CHUNK_DATA : 0;
    case BM_CHUNK_END:
        return reader->left == 0 ? parse_end(reader, ret_chunk) : 0;
    default:
        return 0;
    }
}

int bm_chunk_read(struct bm_chunk_reader *reader, const uint8_t **bytes, size_t *len,
                  struct bm_chunk *ret_chunk)
{
    while (*len > 0) {
        int r = 0;
        if (reader->head_len < BM_CHUNK_HEAD_LEN) {
            reader->head[reader->head_len++] = **bytes;
            ++*bytes;
            --*len;
            if (reader->head_len < BM_CHUNK_HEAD_LEN)
                continue;
            r = begin(reader);
            if (r < 0)
                return r;
            if (reader->left > 0)
                continue;
        }
        size_t part = reader->left < *len ? reader->left : *len;
        const uint8_t *at = *bytes;
        *bytes += part;
        *len -= part;
        r = go_on(reader, at, part, ret_chunk);
        if (r != 0)
            return r;
    }
    return 0;
}

void bm_chunk_reader_deinit(struct bm_chunk_reader *reader)
{
    if (reader->end)
        reader->end = bm_free(NULL, reader->end, reader->end_cap);
}

uint8_t *bm_chunk_put_head(uint8_t *out, enum bm_chunk_kind kind, uint32_t len)
{
    out[0] = (uint8_t)kind;
    out[1] = (uint8_t)len;
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)(len >> 16);
    return out + BM_CHUNK_HEAD_LEN;
}

uint8_t *bm_chunk_put_end(uint8_t *out, uint32_t code)
{
    out = bm_chunk_put_head(out, BM_CHUNK_END, WHY_LEN);
    bm_put_u32(out, code);
    bm_put_u32(out + 4, 0);
    return out + WHY_LEN;
}
