/* Chunks: what the bodies of a channel's own stream are made of (docs/spec/http.md D7). Bytes alone, however
 * they are cut; it knows of order as far as a direction has one: GO first from a client, nothing behind END. */
#ifndef BM_CHUNK_H
#define BM_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BM_CHUNK_HEAD_LEN 4u
#define BM_CHUNK_LEN_MAX 65536u /* with its head */
#define BM_CHUNK_END_LEN 12u    /* an END without details, with its head */
#define BM_CHUNK_KIND_IGNORED 128

enum bm_chunk_kind {
    BM_CHUNK_GO = 1,
    BM_CHUNK_DATA = 2,
    BM_CHUNK_ALIVE = 3,
    BM_CHUNK_END = 4,
};

/* What one direction has come to. Zeroed but for `client` it is at its beginning. */
struct bm_chunk_reader {
    bool client; /* whose direction it is */
    bool went, ended;
    uint8_t head[BM_CHUNK_HEAD_LEN];
    uint8_t head_len; /* below BM_CHUNK_HEAD_LEN: inside one */
    uint8_t kind;     /* else of this one */
    uint32_t left;    /* of its bytes */
    uint8_t *end;     /* of an END, end_cap bytes; or NULL */
    uint32_t end_cap;
};

struct bm_chunk {
    const uint8_t *bytes; /* DATA: as many as are here, one at least */
    size_t len;
    uint32_t code;       /* END */
    const void *details; /* ... a checked kv map, until the reader is used again; or NULL */
    uint32_t details_len;
};

/* Takes from the bytes what the next event needs. A kind: GO, DATA (a piece of one) or END. 0: the bytes are
 * used up. -EPROTO: a rule is broken, or -ENOMEM; the rest is not to be looked at. */
int bm_chunk_read(struct bm_chunk_reader *reader, const uint8_t **bytes, size_t *len,
                  struct bm_chunk *ret_chunk);
void bm_chunk_reader_deinit(struct bm_chunk_reader *reader);

/* Returns the end. Behind the head of DATA its bytes follow. */
uint8_t *bm_chunk_put_head(uint8_t *out, enum bm_chunk_kind kind, uint32_t len);
uint8_t *bm_chunk_put_end(uint8_t *out, uint32_t code); /* BM_CHUNK_END_LEN bytes */

#endif
