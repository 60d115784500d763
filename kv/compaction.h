/* A compaction of a log: a second file that grows beside the first one and takes its place (R18). Inner
 * to the log, which knows the rest. */
#ifndef BM_COMPACTION_H
#define BM_COMPACTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bm_compaction;
struct bm_log;
struct bm_log_source;
struct bm_log_wait;

int bm_compaction_start(struct bm_log *log, struct bm_log_source *source, struct bm_log_wait *done);

/* Whether a record of this length can be taken along: 0, -EAGAIN, -ENOMEM. */
int bm_compaction_reserve(struct bm_compaction *c, size_t len);
bool bm_compaction_is_full(const struct bm_compaction *c);

/* Takes along a record that was appended, for which there is room. */
void bm_compaction_add(struct bm_compaction *c, const uint8_t *record, size_t len);

/* Goes on, if it can. From the log's task. It may be gone then: log->compaction is NULL. */
void bm_compaction_step(struct bm_compaction *c);

/* It ends as soon as it can, and tells this error, unless it is past giving up. */
void bm_compaction_give_up(struct bm_compaction *c, int error);

/* Without an operation under way. Returns who waits for it. */
struct bm_log_wait *bm_compaction_free(struct bm_compaction *c);

/* As bm_log_leave(). */
void bm_compaction_leave(struct bm_compaction *c);

#endif
