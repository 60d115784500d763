/* The inside of a log, shared by log.c, group.c and compaction.c. */
#ifndef BM_LOG_INNER_H
#define BM_LOG_INNER_H

#include "base/alloc.h"
#include "base/assert.h"
#include "kv/compaction.h"
#include "kv/log.h"
#include "kv/log_file.h"
#include "uring/op.h"
#include "uring/reactor.h"
#include "uring/sanitize.h"
#include "uring/timer.h"

#define BM_LOG_BUFFER_LEN ((size_t)4096)     /* ours: of a group, at first */
#define BM_LOG_BUFFER_KEPT ((size_t)1 << 20) /* ours: more is given back when a group is done */
#define BM_LOG_MARKS_LEN                                                                           \
    (2 * BM_RECORD_BARE_LEN) /* room kept behind the records: a mark, a closed */

/* Records that are written at once. The first BM_RECORD_BARE_LEN bytes are set aside for a mark. */
struct bm_log_group {
    uint8_t *bytes;
    size_t len, cap; /* len: with the mark's place */
    size_t start;    /* where writing begins: 0 if there is a mark */
    size_t written;  /* bytes from start on that the kernel has taken */
    uint64_t rev;    /* of the last record in it */
    struct bm_list waits;
};

struct bm_log {
    struct bm_reactor *reactor;
    struct bm_account *account;
    struct bm_log_place place;
    struct bm_log_options options; /* without the path */
    int fd;

    uint64_t epoch, base_rev;
    uint64_t rev;         /* of the last append, */
    uint64_t written_rev; /* of what is in the file and was told, */
    uint64_t durable_rev; /* of what a sync has covered, */
    uint64_t marked_rev;  /* and of the last mark that is in the file or on its way */
    uint64_t wanted_rev;  /* somebody waits for a sync of this */
    uint64_t end;         /* of the records in the file: where the next group goes */
    struct bm_log_room room;
    uint64_t snapshot_len; /* head to live */
    uint64_t groups, syncs;

    struct bm_log_group filling, flying;
    struct bm_list syncing;          /* waits of bm_log_sync(), by rev */
    struct bm_op write, sync, ahead; /* ahead: room for what comes after a while */
    int write_res, sync_res;
    uint64_t sync_rev; /* what the sync under way covers */
    bool group_flies;  /* until its waits are told */
    bool group_syncs;  /* its own sync is linked behind its write */
    bool sync_due;     /* the interval of BATCH is over */
    bool held;         /* a compaction puts its file in place: nothing starts */
    bool closing;
    bool last_mark;  /* the closed is on its way, or was there from the beginning */
    bool wants_room; /* an append was told -EAGAIN */
    int error;

    struct bm_task task;
    struct bm_timer interval, idle;
    struct bm_log_wait *closed;
    struct bm_compaction *compaction;
};

static inline size_t bm_log_group_records_len(const struct bm_log_group *group)
{
    return group->len - BM_RECORD_BARE_LEN;
}

/* What is next is looked at later in this turn. */
void bm_log_step_soon(struct bm_log *log);

/* The file is not to be relied on any more. From the loop: it tells. */
void bm_log_fail(struct bm_log *log, int error);

/* Room in the queue and on the disk for one more record: 0, -EAGAIN, -ENOMEM, -ENOSPC … */
int bm_log_reserve(struct bm_log *log, size_t len);

/* group.c: */
int bm_log_groups_init(struct bm_log *log);
void bm_log_groups_deinit(struct bm_log *log);
int bm_log_group_grow(struct bm_log *log, struct bm_log_group *group, size_t len);
void bm_log_groups_step(struct bm_log *log); /* starts what may start */
bool bm_log_groups_rest(const struct bm_log *log);

/* Nothing is under way in the file. */
bool bm_log_rests(const struct bm_log *log);
void bm_log_tell(struct bm_list *waits, int res);
void bm_log_tell_durable(struct bm_log *log);
void bm_log_arm_idle(struct bm_log *log);

#endif
