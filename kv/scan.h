/* The way through the records of a file, from the head on: which may come next, where they end, and what
 * has been learnt until there. Pure; the bytes are the caller's. */
#ifndef BM_SCAN_H
#define BM_SCAN_H

#include "kv/record.h"

/* Follows the records of a file from its head on: which may come next (R8 to R12), and what has been
 * learnt. Plain data; start with a zeroed one. */
struct bm_scan {
    uint64_t epoch;       /* 0: no head yet */
    uint64_t base_rev;    /* of the head */
    uint64_t rev;         /* of the last record */
    uint64_t durable_rev; /* of the last mark */
    uint64_t offset;      /* of the next record */
    uint64_t
        durable_end; /* all before this offset is durable: the last mark that speaks of all before it */
    uint64_t live_end; /* offset behind `live`; 0: not complete */
    uint64_t records;
    bool wrong;  /* what stands there is a whole record, and wrong: no torn one */
    bool early;  /* others may know of revisions that never were durable */
    bool closed; /* the last record says that its writer has ended */
};

/* The next record: bytes[0..left) are what lies at scan->offset. Returns as bm_record_read(), after 1
 * the scan is one record further, and *ret is that record; -BEAM_EKV_SEQUENCE: a record that may not come here;
 * -BEAM_EKV_FORMAT and -BEAM_EKV_SUM also of the head. With `entries` true the body is checked too
 * (-BEAM_EKV_…), as it must be before anybody takes it apart. */
int bm_scan_next(struct bm_scan *scan, const uint8_t *bytes, uint64_t left, bool entries,
                 struct bm_record *ret, uint64_t *ret_need);

/* The first mark of this epoch in bytes[0..len), which begin at a multiple of 8 of the file, whose rev
 * is at least min_rev. Returns its offset, or -1. */
int64_t bm_scan_find_mark(const uint8_t *bytes, size_t len, uint64_t epoch, uint64_t min_rev);

#endif
