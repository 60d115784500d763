/* A log without a file, for the simulator: what kv/log.h promises, over a disk that does what it is told
 * to. The functions here replace those of the library at link time. Nothing happens by itself: groups
 * are written, synced, failed and lost when the test says so, which may be at any moment.
 *
 * It also keeps what is true: the state behind each revision of each epoch. Keys are "k/00" to "k/47",
 * values are ints. */
#ifndef TEST_DISK_H
#define TEST_DISK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/log.h"
#include "tests/support/test.h"

#define DISK_KEYS 48u
#define DISK_REVS 8192u
#define DISK_EPOCHS 512u

/* INT64_MIN: the key is not there. */
struct truth {
    int64_t values[DISK_KEYS];
};

struct disk_record {
    uint8_t *bytes;
    size_t len;
};

struct bm_log {
    struct bm_log_options options;
    struct bm_list waits;
    struct bm_log_wait *closing; /* close has been called */
    bool closed;
    int error;
    struct bm_log_source *source; /* of a compaction */
    struct bm_log_wait *compacted;
    struct truth built; /* what it has made so far */
    uint64_t built_rev;
};

static struct disk {
    uint64_t epochs[DISK_EPOCHS];
    struct truth *truths[DISK_EPOCHS]; /* by revision */
    uint64_t firsts[DISK_EPOCHS];      /* of each epoch */
    unsigned epoch_count;              /* the last one is the current */
    struct disk_record records[DISK_REVS];
    uint64_t base_rev;               /* records before it are gone, */
    uint64_t rev;                    /* appended */
    uint64_t written, durable, told; /* revisions; told: the promise, as far as it was given */
    bool clean, begun, early;        /* early: the last writer told before it was durable */
    enum bm_log_policy policy;
    struct bm_log *log;
    unsigned wrong_compactions, compactions, wrong_appends;
    /* Rules that a test can break. */
    bool no_new_epoch; /* after an end that was not clean */
    bool tell_early;   /* EACH: tells when it is written */
} disk;

static inline int disk_key(beam_str key)
{
    return key.len == 4 ? (key.ptr[2] - '0') * 10 + key.ptr[3] - '0' : -1;
}

static inline void disk_key_name(unsigned n, char *name)
{
    memcpy(name, "k/", 2);
    name[2] = (char)('0' + n / 10);
    name[3] = (char)('0' + n % 10);
    name[4] = '\0';
}

static inline struct truth *disk_truth(uint64_t epoch, uint64_t rev)
{
    for (unsigned i = disk.epoch_count; i-- > 0;)
        if (disk.epochs[i] == epoch)
            return rev >= disk.firsts[i] && rev < DISK_REVS ? &disk.truths[i][rev] : NULL;
    return NULL;
}

static inline uint64_t disk_epoch(void)
{
    return disk.epochs[disk.epoch_count - 1];
}

static inline void disk_apply(struct truth *truth, const uint8_t *bytes, size_t len)
{
    for (const uint8_t *pos = bytes; pos < bytes + len; pos += bm_entry_at(pos).len) {
        struct bm_entry e = bm_entry_at(pos);
        int n = disk_key((beam_str){(const char *)bm_entry_key(&e), e.key_len});
        if (n < 0 || n >= (int)DISK_KEYS)
            disk.wrong_appends++;
        else
            truth->values[n] = e.type == BM_ENTRY_DEL ? INT64_MIN : (int64_t)bm_get_u64(e.value);
    }
}

/* A new epoch begins with a state. */
static inline void disk_begin_epoch(uint64_t epoch, const struct truth *truth, uint64_t rev)
{
    REQUIRE(disk.epoch_count < DISK_EPOCHS);
    disk.epochs[disk.epoch_count] = epoch;
    disk.firsts[disk.epoch_count] = rev;
    disk.truths[disk.epoch_count] = calloc(DISK_REVS, sizeof(struct truth));
    disk.truths[disk.epoch_count][rev] = *truth;
    disk.epoch_count++;
}

static inline void disk_clear(void)
{
    for (unsigned i = 0; i < disk.epoch_count; i++)
        free(disk.truths[i]);
    for (unsigned i = 0; i < DISK_REVS; i++)
        free(disk.records[i].bytes);
    memset(&disk, 0, sizeof(disk));
}

static inline void disk_new(enum bm_log_policy policy, uint64_t epoch)
{
    struct truth empty;
    disk_clear();
    for (unsigned i = 0; i < DISK_KEYS; i++)
        empty.values[i] = INT64_MIN;
    disk.policy = policy;
    disk.clean = true;
    disk_begin_epoch(epoch, &empty, 0);
}

/* --- the log --------------------------------------------------------------------------------- */

static inline void disk_snap(bm_log_record_fn *fn, void *arg, int *ret)
{
    uint8_t room[DISK_KEYS * 32];
    beam_kv_writer w;
    const void *document;
    size_t len;
    struct truth *truth = disk_truth(disk_epoch(), disk.base_rev);
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    for (unsigned i = 0; i < DISK_KEYS; i++) {
        char name[8];
        disk_key_name(i, name);
        if (truth->values[i] != INT64_MIN)
            beam_kv_put_int(&w, name, truth->values[i]);
    }
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    struct bm_record record = {.kind = BM_RECORD_SNAP,
                               .rev = disk.base_rev,
                               .body = (const uint8_t *)document + 8,
                               .body_len = len - 8};
    *ret = fn(arg, &record);
}

int bm_log_open(struct bm_reactor *reactor, const struct bm_log_options *options,
                bm_log_record_fn *on_record, void *arg, struct bm_log **ret_log,
                struct bm_log_found *ret_found)
{
    struct bm_log *log = calloc(1, sizeof(*log));
    int r = 0;
    log->options = *options;
    bm_list_init(&log->waits);
    *ret_found = (struct bm_log_found){.rev = disk.rev, .base_rev = disk.base_rev};
    if (!disk.clean && disk.early && !disk.no_new_epoch) {
        struct truth now = *disk_truth(disk_epoch(), disk.rev);
        uint64_t epoch = disk_epoch() + 1;
        disk_begin_epoch(epoch, &now, disk.rev);
        disk.base_rev = disk.rev;
        ret_found->new_epoch = true;
    }
    ret_found->epoch = disk_epoch();
    ret_found->clean = disk.clean;
    disk_snap(on_record, arg, &r);
    for (uint64_t rev = disk.base_rev + 1; r == 0 && rev <= disk.rev; rev++) {
        struct bm_record record = {.kind = BM_RECORD_DELTA,
                                   .rev = rev,
                                   .body = disk.records[rev].bytes,
                                   .body_len = disk.records[rev].len};
        r = on_record(arg, &record);
    }
    disk.clean = false;
    disk.early = disk.policy != BM_LOG_EACH;
    disk.written = disk.durable = disk.told = disk.rev;
    if (r < 0) {
        free(log);
        return r;
    }
    disk.log = *ret_log = log;
    return 0;
}

int bm_log_append(struct bm_log *log, const void *entries, size_t len, struct bm_log_wait *wait,
                  uint64_t *ret_rev)
{
    if (log->error || log->closing)
        return log->error ? -EROFS : -ESHUTDOWN;
    uint64_t rev = ++disk.rev;
    REQUIRE(rev < DISK_REVS);
    struct disk_record *record = &disk.records[rev];
    free(record->bytes);
    *record = (struct disk_record){malloc(len), len};
    memcpy(record->bytes, entries, len);
    struct truth *truth = disk_truth(disk_epoch(), rev);
    *truth = truth[-1];
    disk_apply(truth, entries, len);
    wait->rev = rev;
    bm_list_push_back(&log->waits, &wait->node);
    *ret_rev = rev;
    return 0;
}

static inline void disk_tell(struct bm_log *log, uint64_t rev, int res)
{
    struct bm_list *node;
    while ((node = bm_list_front(&log->waits))) {
        struct bm_log_wait *wait = bm_list_entry(node, struct bm_log_wait, node);
        if (wait->rev > rev)
            break;
        bm_list_unlink(node);
        if (res == 0)
            disk.told = wait->rev;
        wait->fn(wait, res);
    }
}

/* A part of a compaction, if one is under way. */
static inline void disk_compact_step(struct bm_log *log, struct test_random *random)
{
    const void *entries;
    size_t len;
    uint64_t rev;
    if (!log->source)
        return;
    int r = log->source->next(log->source, 24 + 24 * test_random_below(random, 6), &entries, &len,
                              &rev);
    if (rev < log->built_rev || rev > disk.rev)
        disk.wrong_compactions++;
    /* The deltas up to its revision are in front of a part. */
    while (log->built_rev < rev) {
        log->built_rev++;
        disk_apply(&log->built, disk.records[log->built_rev].bytes,
                   disk.records[log->built_rev].len);
    }
    if (r > 0) {
        const uint8_t *end = (const uint8_t *)entries + len;
        for (const uint8_t *pos = entries; pos < end; pos += bm_entry_at(pos).len)
            disk.wrong_compactions +=
                bm_entry_at(pos).type == BM_ENTRY_DEL; /* those are a delta's */
        disk_apply(&log->built, entries, len);
        return;
    }
    if (r < 0)
        disk.wrong_compactions++;
    struct bm_log_wait *done = log->compacted;
    log->source = NULL;
    log->compacted = NULL;
    struct truth *truth = disk_truth(disk_epoch(), rev);
    if (memcmp(truth, &log->built, sizeof(*truth)) != 0)
        disk.wrong_compactions++;
    if (rev <= disk.durable) /* else some of what is in it may yet be lost */
        disk.base_rev = rev;
    disk.compactions++;
    done->fn(done, 0);
}

int bm_log_compact(struct bm_log *log, struct bm_log_source *source, struct bm_log_wait *done)
{
    if (log->error || log->closing)
        return -EROFS;
    if (log->source)
        return -EBUSY;
    log->source = source;
    log->compacted = done;
    log->built_rev = disk.base_rev;
    /* A fuzzy one begins with nothing. */
    for (unsigned i = 0; i < DISK_KEYS; i++)
        log->built.values[i] = INT64_MIN;
    log->built_rev = disk.rev;
    return 0;
}

static inline void disk_compact_end(struct bm_log *log, int res)
{
    struct bm_log_wait *done = log->compacted;
    log->source = NULL;
    log->compacted = NULL;
    if (done)
        done->fn(done, res);
}

void bm_log_close(struct bm_log *log, struct bm_log_wait *done)
{
    log->closing = done;
}

struct bm_log *bm_log_free(struct bm_log *log)
{
    free(log);
    return NULL;
}

void bm_log_leave(struct bm_log *log)
{
    (void)log;
}

struct bm_log_state bm_log_state(const struct bm_log *log)
{
    return (struct bm_log_state){.epoch = disk_epoch(), .rev = disk.rev, .file_len = 0};
}

/* --- what the test has happen ---------------------------------------------------------------- */

/* The group that waits is written; EACH: and synced. */
static inline void disk_write(struct test_random *random)
{
    struct bm_log *log = disk.log;
    if (!log || log->error)
        return;
    uint64_t upto = disk.written + test_random_below(random, disk.rev - disk.written + 1);
    disk.written = upto;
    if (disk.policy == BM_LOG_EACH && !disk.tell_early)
        disk.durable = upto;
    disk_tell(log, upto, 0);
}

static inline void disk_sync(void)
{
    if (disk.log && !disk.log->error)
        disk.durable = disk.written;
}

/* It takes no more. */
static inline void disk_fail(struct test_random *random)
{
    struct bm_log *log = disk.log;
    bool first = test_random_below(random, 2);
    if (!log || log->error || log->closing)
        return;
    log->error = -EIO;
    if (first && log->options.on_failed)
        log->options.on_failed(log->options.arg, -EIO);
    disk_compact_end(log, -EIO);
    disk_tell(log, UINT64_MAX, -EIO);
    if (!first && log->options.on_failed)
        log->options.on_failed(log->options.arg, -EIO);
}

/* close was called: in order, or as if the machine had stopped, which takes what is not durable or a part
 * of it. */
static inline void disk_end(struct test_random *random, bool crash)
{
    struct bm_log *log = disk.log;
    struct bm_log_wait *done = log->closing;
    REQUIRE(done != NULL);
    crash = crash || log->error;
    if (!crash) {
        disk.written = disk.durable = disk.rev;
        disk.clean = true;
    }
    disk_compact_end(log, -ECANCELED);
    disk_tell(log, UINT64_MAX, crash ? -ECANCELED : 0);
    if (crash)
        disk.rev = disk.durable + test_random_below(random, disk.rev - disk.durable + 1);
    disk.log = NULL;
    done->fn(done, crash ? -ECANCELED : 0);
    free(log);
}

#endif
