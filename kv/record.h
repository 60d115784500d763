/* Records (docs/spec/kv.md, level 1): the unit of a file. A record is one entry of type 0x10 whose
 * value is a revision, the entries of a map, and a sum over all before it, seeded with the epoch of
 * the file: what an older file has left on the disk is no record of this one.
 *
 *     0     header   vlen = 16 + body_len, klen 0, type 0x10, aux = kind
 *     8     rev      u64
 *     16    body     entries, as in a map
 *     vlen  sum      XXH3-64 of the bytes [0, vlen), seed = epoch; of a head: seed 0
 *
 * Pure: no memory, no state, any thread. Buffers may have any alignment. */
#ifndef BM_RECORD_H
#define BM_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/entry.h"

#define BM_ENTRY_DEL 0x0b    /* an entry of a delta without a value: the key is gone */
#define BM_ENTRY_RECORD 0x10 /* 0x11 is reserved for an index beside a document */

#define BM_RECORD_FORMAT 1u
#define BM_RECORD_BARE_LEN ((size_t)24)         /* one without entries: header, rev, sum */
#define BM_RECORD_HEAD_LEN ((size_t)72)         /* a head */
#define BM_RECORD_BODY_OFFSET ((size_t)16)      /* where entries begin */
#define BM_RECORD_LEN_MAX BEAM_KV_LEN_MAX       /* R2: as any entry */
#define BM_RECORD_REV_MAX ((uint64_t)INT64_MAX) /* R4, Y1: what an int of a document holds */
#define BM_SNAP_LEN_MAX                                                                            \
    ((size_t)(256 << 10)) /* ours: entries in a part of a snapshot, unless one
                                                 alone is longer; deltas go on in between */

enum bm_record_kind {
    BM_RECORD_HEAD = 1, /* the first of a file: its epoch; rev: what it starts from */
    BM_RECORD_SNAP,     /* a part of the state; rev: of all before it */
    BM_RECORD_LIVE,     /* the state is complete */
    BM_RECORD_DELTA,    /* one transaction; rev: one more than before */
    BM_RECORD_MARK,     /* all up to rev is durable */
    BM_RECORD_EARLY,  /* a mark; from here on others may learn of revisions that are not durable */
    BM_RECORD_CLOSED, /* a mark; the writer has ended, and nobody knows more than the file */
    BM_RECORD_KINDS,
};

struct bm_record {
    enum bm_record_kind kind;
    uint64_t rev;
    const uint8_t *body; /* borrowed from the bytes that were read */
    size_t body_len;
    size_t len; /* of the whole record */
};

/* What a head says. */
struct bm_record_head {
    uint64_t epoch; /* never 0 */
    uint64_t base_rev;
};

static inline bool bm_record_is_mark(enum bm_record_kind kind)
{
    return kind == BM_RECORD_MARK || kind == BM_RECORD_EARLY || kind == BM_RECORD_CLOSED;
}

/* The length of a record with so many bytes of entries. */
static inline uint64_t bm_record_len(uint64_t body_len)
{
    return BM_RECORD_BARE_LEN + body_len;
}

/* Writes a record of bm_record_len(body_len) bytes at `to`. The body is copied to its place, unless it
 * lies there already (body == to + BM_RECORD_BODY_OFFSET); it must pass bm_record_check_body(), be a
 * multiple of 8 long and keep the whole within BM_RECORD_LEN_MAX. Not for heads. */
void bm_record_write(uint8_t *to, enum bm_record_kind kind, uint64_t rev, const void *body,
                     size_t body_len, uint64_t epoch);

/* Writes the BM_RECORD_HEAD_LEN bytes of a head. */
void bm_record_write_head(uint8_t *to, struct bm_record_head head);

/* The record at pos, of which `left` bytes are there: shape and sum (R2 to R5), not what is in its
 * body, nor whether it may come here. Returns 1 and *ret; 0: a word of zeros, or nothing: the end of
 * the records; -BEAM_EKV_TRUNCATED: more than `left` would be needed, *ret_need (may be NULL) says
 * how much, which may be nonsense; -BEAM_EKV_RECORD: no record; -BEAM_EKV_SUM: one whose sum is not
 * right; -BEAM_EKV_TOO_LARGE; -BEAM_EKV_FORMAT: a record with the right sum of a kind, or with an
 * inside, that this version does not know, or of a revision above BM_RECORD_REV_MAX. For heads: the
 * next function. */
int bm_record_read(const uint8_t *pos, uint64_t left, uint64_t epoch, struct bm_record *ret,
                   uint64_t *ret_need);

/* The head at pos. Returns 0; -BEAM_EKV_FORMAT: these bytes begin no kv file, or one of another
 * format; -BEAM_EKV_SUM: a head, but damaged; -BEAM_EKV_TRUNCATED as above. */
int bm_record_read_head(const uint8_t *pos, uint64_t left, struct bm_record_head *ret);

/* Checks body[0..len) as the entries of a map (K2 to K10, at depth 2; R6): with `del` true, entries of
 * type BM_ENTRY_DEL are allowed at the top. Returns 0 or -BEAM_EKV_…, and then *ret_offset (may be
 * NULL): the entry that breaks a rule. */
int bm_record_check_body(const void *body, size_t len, bool del, size_t *ret_offset);

#endif
