/* Records: written, and checked alone.
 *
 * A record is an entry, and is read like one: its length is formed in 64 bits and compared with what is
 * there before anything else is looked at. Then comes the sum, over all of it; only what has the right
 * sum is asked what it is, so that what nobody knows is told apart from what is damaged.
 *
 * Whether a record may come where it stands: scan.c. */
#include "kv/record.h"

#include "base/assert.h"
#include "kv/digest.h"
#include "kv/utf8.h"

#define SUM_LEN 8u
#define EPOCH_VALUE_OFFSET (BM_RECORD_BODY_OFFSET + BM_ENTRY_HEADER_LEN)

static uint64_t header_of(enum bm_record_kind kind, uint64_t body_len)
{
    return (body_len + BM_RECORD_BODY_OFFSET) | (uint64_t)BM_ENTRY_RECORD << 48 |
           (uint64_t)kind << 56;
}

/* Everything but the body. */
static void seal(uint8_t *to, enum bm_record_kind kind, uint64_t rev, size_t body_len,
                 uint64_t seed)
{
    size_t value_len = BM_RECORD_BODY_OFFSET + body_len;
    bm_assert(body_len % 8 == 0 && bm_record_len(body_len) <= BM_RECORD_LEN_MAX);
    bm_put_u64(to, header_of(kind, body_len));
    bm_put_u64(to + BM_ENTRY_HEADER_LEN, rev);
    bm_put_u64(to + value_len, bm_xxh3_seeded(to, value_len, seed));
}

void bm_record_write(uint8_t *to, enum bm_record_kind kind, uint64_t rev, const void *body,
                     size_t body_len, uint64_t epoch)
{
    uint8_t *place = to + BM_RECORD_BODY_OFFSET;
    if (body_len > 0 && body != place)
        memcpy(place, body, body_len);
    seal(to, kind, rev, body_len, epoch);
}

/* {"epoch": eight bytes, "format": 1} */
static const uint8_t head_body[] = {8,   0,   0, 0, 5, 0,   8,   0,   0,   0,   0,
                                    0,   0,   0, 0, 0, 'e', 'p', 'o', 'c', 'h', 0,
                                    0,   0,   8, 0, 0, 0,   6,   0,   4,   0,   BM_RECORD_FORMAT,
                                    0,   0,   0, 0, 0, 0,   0,   'f', 'o', 'r', 'm',
                                    'a', 't', 0, 0};

_Static_assert(sizeof(head_body) + BM_RECORD_BARE_LEN == BM_RECORD_HEAD_LEN, "one length of heads");

void bm_record_write_head(uint8_t *to, struct bm_record_head head)
{
    memcpy(to + BM_RECORD_BODY_OFFSET, head_body, sizeof(head_body));
    bm_put_u64(to + EPOCH_VALUE_OFFSET, head.epoch);
    seal(to, BM_RECORD_HEAD, head.base_rev, sizeof(head_body), 0);
}

/* What the header at pos says; its bytes have been looked at. */
static inline struct bm_record record_at(const uint8_t *pos)
{
    uint64_t header = bm_get_u64(pos);
    size_t len = BM_ENTRY_HEADER_LEN + (size_t)(uint32_t)header;
    return (struct bm_record){.kind = (enum bm_record_kind)(header >> 56),
                              .rev = bm_get_u64(pos + BM_ENTRY_HEADER_LEN),
                              .body = pos + BM_RECORD_BODY_OFFSET,
                              .body_len = len - BM_RECORD_BARE_LEN,
                              .len = len};
}

/* Header, length and sum of a record of any kind. */
static inline int check_any(const uint8_t *pos, uint64_t left, uint64_t seed, uint64_t *ret_need)
{
    if (ret_need)
        *ret_need = BM_ENTRY_HEADER_LEN;
    if (left < BM_ENTRY_HEADER_LEN)
        return -BEAM_EKV_TRUNCATED;
    uint64_t header = bm_get_u64(pos);
    uint64_t value_len = (uint32_t)header;
    if ((header >> 32 & 0xffff) != 0 || (header >> 48 & 0xff) != BM_ENTRY_RECORD ||
        value_len < BM_RECORD_BARE_LEN - BM_ENTRY_HEADER_LEN || value_len % 8 != 0)
        return -BEAM_EKV_RECORD;
    uint64_t len = BM_ENTRY_HEADER_LEN + value_len;
    if (len > BM_RECORD_LEN_MAX)
        return -BEAM_EKV_TOO_LARGE;
    if (ret_need)
        *ret_need = len;
    if (len > left)
        return -BEAM_EKV_TRUNCATED;
    if (bm_get_u64(pos + value_len) != bm_xxh3_seeded(pos, (size_t)value_len, seed))
        return -BEAM_EKV_SUM;
    return bm_get_u64(pos + BM_ENTRY_HEADER_LEN) > BM_RECORD_REV_MAX ? -BEAM_EKV_FORMAT : 0;
}

int bm_record_read(const uint8_t *pos, uint64_t left, uint64_t epoch, struct bm_record *ret,
                   uint64_t *ret_need)
{
    if (left == 0 || (left >= BM_ENTRY_HEADER_LEN && bm_get_u64(pos) == 0))
        return 0;
    int r = check_any(pos, left, epoch, ret_need);
    if (r < 0)
        return r;
    uint8_t kind = pos[7];
    if (kind < BM_RECORD_HEAD || kind >= BM_RECORD_KINDS)
        return -BEAM_EKV_FORMAT;
    bool bare = (uint32_t)bm_get_u64(pos) == BM_RECORD_BARE_LEN - BM_ENTRY_HEADER_LEN;
    if (!bare && (kind == BM_RECORD_LIVE || bm_record_is_mark((enum bm_record_kind)kind)))
        return -BEAM_EKV_FORMAT;
    *ret = record_at(pos); /* written once: a copy made of it at once would wait for it */
    return 1;
}

int bm_record_read_head(const uint8_t *pos, uint64_t left, struct bm_record_head *ret)
{
    if (left < BM_ENTRY_HEADER_LEN || pos[7] != BM_RECORD_HEAD)
        return -BEAM_EKV_FORMAT;
    int r = check_any(pos, left, 0, NULL);
    if (r < 0)
        return r == -BEAM_EKV_SUM || r == -BEAM_EKV_TRUNCATED ? r : -BEAM_EKV_FORMAT;
    struct bm_record record = record_at(pos);
    if (record.len != BM_RECORD_HEAD_LEN)
        return -BEAM_EKV_FORMAT;
    uint8_t body[sizeof(head_body)];
    memcpy(body, record.body, sizeof(body));
    uint8_t *epoch_at = body + EPOCH_VALUE_OFFSET - BM_RECORD_BODY_OFFSET;
    uint64_t epoch = bm_get_u64(epoch_at);
    memset(epoch_at, 0, sizeof(epoch));
    if (epoch == 0 || memcmp(body, head_body, sizeof(body)) != 0)
        return -BEAM_EKV_FORMAT;
    *ret = (struct bm_record_head){.epoch = epoch, .base_rev = record.rev};
    return 0;
}

/* --- bodies ------------------------------------------------------------------------------------- */

static bool is_del(const uint8_t *pos, size_t left)
{
    return left >= BM_ENTRY_HEADER_LEN && pos[6] == BM_ENTRY_DEL;
}

static int check_del(const uint8_t *pos, size_t left)
{
    struct bm_entry e = bm_entry_at(pos);
    if (e.len > left)
        return e.len > BEAM_KV_LEN_MAX ? -BEAM_EKV_TOO_LARGE : -BEAM_EKV_TRUNCATED;
    if (pos[7] != 0)
        return -BEAM_EKV_AUX;
    if (e.value_len != 0)
        return -BEAM_EKV_LENGTH;
    for (const uint8_t *p = bm_entry_key(&e) + e.key_len; p < pos + e.len; p++)
        if (*p != 0)
            return -BEAM_EKV_PADDING;
    return bm_utf8_valid(bm_entry_key(&e), e.key_len) ? 0 : -BEAM_EKV_UTF8;
}

/* The end of the entries from pos on that have a value, as far as their lengths make sense; where they
 * do not, the checker will say so. *ret_last: the last of them. */
static const uint8_t *end_of_run(const uint8_t *pos, const uint8_t *end, const uint8_t **ret_last)
{
    while (pos < end && !is_del(pos, (size_t)(end - pos))) {
        if (end - pos < BM_ENTRY_HEADER_LEN)
            return end;
        uint64_t len = bm_entry_at(pos).len;
        if (len > (uint64_t)(end - pos))
            return end;
        *ret_last = pos;
        pos += len;
    }
    return pos;
}

static bool follows(const uint8_t *last, const uint8_t *pos)
{
    if (!last)
        return true;
    struct bm_entry a = bm_entry_at(last), b = bm_entry_at(pos);
    return bm_key_compare(bm_entry_key(&a), a.key_len, bm_entry_key(&b), b.key_len) < 0;
}

/* Entries with a value are checked in runs, which is as fast as it gets; and between two runs there is
 * one that says that its key is gone. */
static int check_body(const uint8_t *pos, const uint8_t *end, const uint8_t **ret_bad)
{
    const uint8_t *last = NULL;
    while (pos < end) {
        const uint8_t *run_last = pos, *run = pos;
        int r;
        if (is_del(pos, (size_t)(end - pos))) {
            r = check_del(pos, (size_t)(end - pos));
            pos += r == 0 ? bm_entry_at(pos).len : 0;
            *ret_bad = run;
        } else {
            pos = end_of_run(pos, end, &run_last);
            r = bm_entries_check(run, (size_t)(pos - run), true, 2, ret_bad);
        }
        if (r < 0)
            return r;
        if (!follows(last, run)) {
            *ret_bad = run;
            return -BEAM_EKV_ORDER;
        }
        last = run_last;
    }
    return 0;
}

int bm_record_check_body(const void *body, size_t len, bool del, size_t *ret_offset)
{
    const uint8_t *pos = (const uint8_t *)body, *bad = pos;
    if (len == 0)
        return 0;
    int r = del ? check_body(pos, pos + len, &bad) : bm_entries_check(pos, len, true, 2, &bad);
    if (r < 0 && ret_offset)
        *ret_offset = (size_t)(bad - pos);
    return r;
}
