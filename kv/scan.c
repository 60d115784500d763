/* From record to record. The rules of their order (R8 to R11) are one switch. */
#include "kv/scan.h"

#define MARK_WORD ((BM_RECORD_BARE_LEN - BM_ENTRY_HEADER_LEN) | (uint64_t)BM_ENTRY_RECORD << 48)

static bool may_come(const struct bm_scan *scan, const struct bm_record *record)
{
    bool live = scan->live_end > 0, same = record->rev == scan->rev;
    switch (record->kind) {
    case BM_RECORD_SNAP:
    case BM_RECORD_LIVE:
        return !live && same;
    case BM_RECORD_DELTA:
        return record->rev == scan->rev + 1; /* no revision is so great that this wraps */
    case BM_RECORD_MARK:
        return live && record->rev <= scan->rev && record->rev >= scan->durable_rev;
    case BM_RECORD_EARLY:
    case BM_RECORD_CLOSED:
        return live && same;
    default:
        return false;
    }
}

static void pass(struct bm_scan *scan, const struct bm_record *record)
{
    scan->offset += record->len;
    scan->records++;
    scan->closed = false;
    switch (record->kind) {
    case BM_RECORD_LIVE:
        scan->live_end = scan->durable_end = scan->offset; /* synced before it got its name */
        scan->durable_rev = record->rev;
        break;
    case BM_RECORD_DELTA:
        scan->rev = record->rev;
        break;
    case BM_RECORD_MARK:
    case BM_RECORD_EARLY:
    case BM_RECORD_CLOSED:
        if (record->rev == scan->rev) /* who vouches for the mark itself? */
            scan->durable_end = scan->offset - record->len;
        scan->durable_rev = record->rev;
        scan->closed = record->kind == BM_RECORD_CLOSED;
        if (record->kind != BM_RECORD_MARK)
            scan->early = record->kind == BM_RECORD_EARLY;
        break;
    default:
        break;
    }
}

static int pass_head(struct bm_scan *scan, const uint8_t *bytes, uint64_t left,
                     struct bm_record *ret, uint64_t *ret_need)
{
    struct bm_record_head head;
    if (ret_need)
        *ret_need = BM_RECORD_HEAD_LEN;
    int r = bm_record_read_head(bytes, left, &head);
    if (r < 0)
        return r;
    *scan = (struct bm_scan){.epoch = head.epoch,
                             .base_rev = head.base_rev,
                             .rev = head.base_rev,
                             .durable_rev = head.base_rev,
                             .offset = BM_RECORD_HEAD_LEN,
                             .records = 1};
    *ret = (struct bm_record){.kind = BM_RECORD_HEAD,
                              .rev = head.base_rev,
                              .body = bytes + BM_RECORD_BODY_OFFSET,
                              .body_len = BM_RECORD_HEAD_LEN - BM_RECORD_BARE_LEN,
                              .len = BM_RECORD_HEAD_LEN};
    return 1;
}

int bm_scan_next(struct bm_scan *scan, const uint8_t *bytes, uint64_t left, bool entries,
                 struct bm_record *ret, uint64_t *ret_need)
{
    if (scan->epoch == 0)
        return pass_head(scan, bytes, left, ret, ret_need);
    int r = bm_record_read(bytes, left, scan->epoch, ret, ret_need);
    if (r <= 0)
        return r;
    scan->wrong = true;
    if (!may_come(scan, ret))
        return -BEAM_EKV_SEQUENCE;
    if (entries && (ret->kind == BM_RECORD_SNAP || ret->kind == BM_RECORD_DELTA)) {
        r = bm_record_check_body(ret->body, ret->body_len, ret->kind == BM_RECORD_DELTA, NULL);
        if (r < 0)
            return r;
    }
    scan->wrong = false;
    pass(scan, ret);
    return 1;
}

int64_t bm_scan_find_mark(const uint8_t *bytes, size_t len, uint64_t epoch, uint64_t min_rev)
{
    struct bm_record record;
    for (size_t i = 0; i + BM_RECORD_BARE_LEN <= len; i += 8) {
        uint64_t word = bm_get_u64(bytes + i);
        if (BM_LIKELY((word & (UINT64_MAX >> 8)) != MARK_WORD))
            continue;
        if (bm_record_read(bytes + i, len - i, epoch, &record, NULL) == 1 &&
            bm_record_is_mark(record.kind) && record.rev >= min_rev)
            return (int64_t)i;
    }
    return -1;
}
