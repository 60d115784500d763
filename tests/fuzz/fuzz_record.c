/* Records as they lie in a file, one behind the other, with the rules of their order. A second reader,
 * written out from docs/spec/kv.md (R1 to R9), must come to the same place for the same reason. What is
 * accepted is written again to the same bytes; a body is accepted just where the document with the same
 * entries would be, a del counting as nil.
 *
 * The first byte says what is done before: 1: each sum is set right, so that what is behind it is reached.
 *
 * Covers: kv/record.c kv/scan.c */
#include <beam/kv.h>

#include "kv/digest.h"
#include "kv/scan.h"
#include "tests/fuzz/fuzz.h"

enum { INPUT_LEN_MAX = 4096 };

static uint64_t u64_at(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static uint64_t u32_at(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24;
}

/* Bytes of a record at p, or 0 if its header is none or it does not fit. */
static size_t shape(const uint8_t *p, size_t left)
{
    if (left < 8 || p[4] || p[5] || p[6] != 0x10 || u32_at(p) < 16 || u32_at(p) % 8 != 0)
        return 0;
    return u32_at(p) + 8 <= left ? (size_t)u32_at(p) + 8 : 0;
}

static void set_sums(uint8_t *bytes, size_t len)
{
    uint64_t epoch = 0;
    size_t n;
    for (size_t at = 0; (n = shape(bytes + at, len - at)) > 0; at += n) {
        bm_put_u64(bytes + at + n - 8, bm_xxh3_seeded(bytes + at, n - 8, epoch));
        if (at == 0 && n == 72)
            epoch = u64_at(bytes + 24);
    }
}

/* The document that has the entries of a body. */
static int check_as_document(const uint8_t *body, size_t len, bool del)
{
    uint8_t *doc = malloc(len + 8);
    bm_put_u64(doc, len | UINT64_C(9) << 48);
    memcpy(doc + 8, body, len);
    for (size_t at = 8; del && len + 8 - at >= 8 && at < len + 8;) {
        uint64_t size = u32_at(doc + at) + doc[at + 4] + 256u * doc[at + 5];
        if (doc[at + 6] == 0x0b)
            doc[at + 6] = 1;
        at += 8 + (size_t)((size + 7) / 8 * 8);
    }
    int r = beam_kv_check(doc, len + 8, NULL);
    free(doc);
    return r;
}

static void check_body(const uint8_t *body, size_t len, bool del)
{
    uint8_t *copy = fuzz_copy(body, len);
    size_t offset = SIZE_MAX;
    int r = bm_record_check_body(copy, len, del, &offset);
    EXPECT((r == 0) == (check_as_document(copy, len, del) == 0));
    EXPECT(r == 0 ? offset == SIZE_MAX : offset < len);
    free(copy);
}

/* --- the second reader ---------------------------------------------------------------------------- */

struct reader {
    uint64_t epoch, rev, mark;
    bool live;
};

static int read_head(const uint8_t *p, size_t left, struct reader *reader)
{
    static const uint8_t form[] = {
        0x40, 0, 0, 0, 0, 0, 0x10, 1, 0, 0, 0,   0,   0,   0,   0,   0,   8,   0,   0, 0, 5, 0,
        8,    0, 0, 0, 0, 0, 0,    0, 0, 0, 'e', 'p', 'o', 'c', 'h', 0,   0,   0,   8, 0, 0, 0,
        6,    0, 4, 0, 1, 0, 0,    0, 0, 0, 0,   0,   'f', 'o', 'r', 'm', 'a', 't', 0, 0};
    if (left < 8 || p[7] != 1 || p[4] || p[5] || p[6] != 0x10 || u32_at(p) < 16 ||
        u32_at(p) % 8 != 0 || u32_at(p) + 8 > 2147483640)
        return -BEAM_EKV_FORMAT;
    if (u32_at(p) + 8 > left)
        return -BEAM_EKV_TRUNCATED;
    size_t vlen = (size_t)u32_at(p);
    if (u64_at(p + vlen) != bm_xxh3_seeded(p, vlen, 0))
        return -BEAM_EKV_SUM;
    for (size_t i = 0; i < sizeof(form) && i < vlen; i++)
        if (!(i >= 8 && i < 16) && !(i >= 24 && i < 32) && p[i] != form[i])
            return -BEAM_EKV_FORMAT;
    if (vlen != 64 || u64_at(p + 24) == 0 || u64_at(p + 8) >> 63)
        return -BEAM_EKV_FORMAT;
    *reader = (struct reader){.epoch = u64_at(p + 24), .rev = u64_at(p + 8), .mark = u64_at(p + 8)};
    return 1;
}

static int read_next(const uint8_t *p, size_t left, struct reader *reader)
{
    if (left == 0 || (left >= 8 && u64_at(p) == 0))
        return 0;
    if (left < 8)
        return -BEAM_EKV_TRUNCATED;
    if (p[4] || p[5] || p[6] != 0x10 || u32_at(p) < 16 || u32_at(p) % 8 != 0)
        return -BEAM_EKV_RECORD;
    if (u32_at(p) + 8 > 2147483640)
        return -BEAM_EKV_TOO_LARGE;
    if (u32_at(p) + 8 > left)
        return -BEAM_EKV_TRUNCATED;
    size_t vlen = (size_t)u32_at(p);
    uint64_t rev = u64_at(p + 8);
    uint8_t kind = p[7];
    if (u64_at(p + vlen) != bm_xxh3_seeded(p, vlen, reader->epoch))
        return -BEAM_EKV_SUM;
    if (kind < 1 || kind > 7 || ((kind == 3 || kind >= 5) && vlen != 16) || rev >> 63)
        return -BEAM_EKV_FORMAT;
    bool fits = kind == 2 || kind == 3   ? !reader->live && rev == reader->rev
                : kind == 4              ? rev - 1 == reader->rev && rev != 0
                : kind == 5              ? reader->live && rev <= reader->rev && rev >= reader->mark
                : kind == 6 || kind == 7 ? reader->live && rev == reader->rev
                                         : false;
    if (!fits)
        return -BEAM_EKV_SEQUENCE;
    int r = kind == 2 || kind == 4 ? check_as_document(p + 16, vlen - 16, kind == 4) : 0;
    if (r < 0)
        return r;
    if (kind == 4)
        reader->rev = rev;
    if (kind == 3 || kind >= 5)
        reader->mark = rev;
    reader->live = reader->live || kind == 3;
    return 1;
}

/* -------------------------------------------------------------------------------------------------- */

static void check_written_again(const uint8_t *bytes, const struct bm_scan *scan,
                                const struct bm_record *record)
{
    uint8_t *again = malloc(record->len);
    if (record->kind == BM_RECORD_HEAD)
        bm_record_write_head(again, (struct bm_record_head){scan->epoch, record->rev});
    else
        bm_record_write(again, record->kind, record->rev, record->body, record->body_len,
                        scan->epoch);
    EXPECT(memcmp(again, bytes, record->len) == 0);
    free(again);
}

static void check_marks(const uint8_t *bytes, size_t len, uint64_t epoch)
{
    int64_t found = bm_scan_find_mark(bytes, len, epoch, 1);
    for (size_t at = 0; at + 24 <= len; at += 8) {
        if (u32_at(bytes + at) == 16 && bytes[at + 4] == 0 && bytes[at + 5] == 0 &&
            bytes[at + 6] == 0x10 && bytes[at + 7] >= 5 && bytes[at + 7] <= 7 &&
            u64_at(bytes + at + 8) >= 1 && u64_at(bytes + at + 8) >> 63 == 0 &&
            u64_at(bytes + at + 16) == bm_xxh3_seeded(bytes + at, 16, epoch)) {
            EXPECT(found == (int64_t)at);
            return;
        }
    }
    EXPECT(found == -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > INPUT_LEN_MAX)
        return 0;
    size_t len = size - 1;
    uint8_t *bytes = fuzz_copy(data + 1, len);
    if (data[0] & 1)
        set_sums(bytes, len);

    struct bm_scan scan = {0};
    struct bm_record record;
    struct reader reader = {0};
    for (;;) {
        size_t at = (size_t)scan.offset;
        uint64_t need = 0;
        bool head = at == 0;
        int r = bm_scan_next(&scan, bytes + at, len - at, true, &record, &need);
        int expected =
            head ? read_head(bytes, len, &reader) : read_next(bytes + at, len - at, &reader);
        bool both_bodies = r < 0 && expected < 0 && r > -4200 && expected > -4200;
        EXPECT(r == expected || both_bodies); /* which rule of a body is named first may differ */
        if (r == -BEAM_EKV_TRUNCATED && !both_bodies && !head)
            EXPECT(need > len - at);
        if (r <= 0)
            break;
        EXPECT(scan.offset == at + record.len && scan.rev == reader.rev);
        check_written_again(bytes + at, &scan, &record);
    }
    check_body(bytes, len, data[0] & 2);
    if (scan.epoch)
        check_marks(bytes, len, scan.epoch);
    free(bytes);
    return 0;
}
