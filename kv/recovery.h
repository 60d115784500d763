/* What is in a file, and what a writer has to make of it before he writes (docs/spec/kv.md, R17). */
#ifndef BM_RECOVERY_H
#define BM_RECOVERY_H

#include "kv/log.h"
#include "kv/scan.h"
#include "kv/window.h"

struct bm_log_place;

struct bm_recovery {
    struct bm_scan scan;
    bool too_long; /* a record is whole, and longer than the window takes */
    int stop;      /* why no further record: of bm_scan_next(), 0: a word of zeros or the end */
    uint64_t tail_offset; /* there, in the file that was read, */
    uint64_t tail_len;    /* and from there to the last byte that is not zero */
};

/* Follows the records to where none is. 0 with all of *ret but tail_len; an error: of reading, memory, or
 * on_record. */
int bm_recovery_follow(struct bm_window *window, bool entries, bm_log_record_fn *on_record,
                       void *arg, struct bm_recovery *ret);

/* The verdict on a file that was followed to the end: 0: it may be written, behind a torn tail of
 * ret->tail_len bytes is cut; -BEAM_EKV_CORRUPT, -BEAM_EKV_FORMAT; -BEAM_EKV_TOO_LARGE: there is a whole
 * record that is longer than the window takes; an error of reading. */
int bm_recovery_judge(struct bm_window *window, struct bm_recovery *recovery);

/* The verdict for a reader: 0, -BEAM_EKV_CORRUPT, -BEAM_EKV_FORMAT. */
int bm_recovery_judge_read(const struct bm_recovery *recovery);

/* Cuts the tail, writes what may have been in memory alone once more, and syncs. */
int bm_recovery_settle(int fd, const struct bm_recovery *recovery, struct bm_account *account);

/* Copies all records but marks into a new file of a new epoch and puts it in the place of the old one.
 * *fd, the old file, is closed and becomes the new one; the recovery says what is in it. */
int bm_recovery_renew(const struct bm_log_place *place, int *fd, size_t record_len_max,
                      struct bm_recovery *recovery, struct bm_account *account);

/* A number that no file has had, as far as chance goes; never 0. */
uint64_t bm_recovery_draw_epoch(void);

/* What is found, as the caller of log.h is told it. `path` may be NULL. */
void bm_recovery_tell(const struct bm_recovery *recovery, const char *path, int error,
                      struct bm_log_found *ret);

#endif
