/* A log: the file of a store (docs/spec/kv.md, level 1), with one writer.
 *
 * It lives on a reactor. Transactions are appended in memory; all that have come in one turn, or while
 * an earlier group was on its way, are one group: one write, and one sync for them all. What a group
 * promises when its waits are told depends on the policy. At most one group is on its way.
 *
 *     bm_log_open -> append, sync, compact … -> bm_log_close
 *
 * All calls on the reactor's thread. Callbacks run from its loop, never from inside a call, and may
 * call anything here but bm_log_free(). Errors: -errno and -BEAM_EKV_….
 *
 * The file is locked as long as anybody has it open. A child that was forked has it open too, until it
 * executes another program or ends, and so long keeps out the writer that comes after its parent.
 *
 * A write or a sync that fails is final: nobody knows what the disk has, and asking again would be
 * told a lie (the kernel forgets). Every wait is told the error, on_failed too, and all calls from then
 * on return -EROFS. The file is as good as what was durable; opening it again finds that out. */
#ifndef BM_LOG_H
#define BM_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "kv/record.h"

struct bm_reactor;
struct bm_log;

#define BM_LOG_STEP_LEN ((uint64_t)16 << 20)   /* ours: the file is allocated in steps of this */
#define BM_LOG_QUEUE_LEN_MAX ((size_t)8 << 20) /* ours: records that wait to be written */
#define BM_LOG_RECORD_LEN_MAX ((size_t)(16 << 20) + 4096) /* ours: a message's body, and its key */
#define BM_LOG_INTERVAL_NS ((uint64_t)10000000) /* ours: 10 ms between two syncs of BATCH */
#define BM_LOG_IDLE_NS ((uint64_t)1000000000)   /* ours: a mark follows a second without writes */

#define BM_LOG_LOCK_WAIT_NS                                                                        \
    ((uint64_t)2000000000) /* ours: for the lock of a writer that has died */

/* When the waits of a group are told, and so what an acknowledgement is worth:
 *
 *   EACH   after the sync: it survives a loss of power. Nobody learns of a revision earlier.
 *   BATCH  after the write: it survives the end of this process. A sync follows within interval_ns;
 *          a loss of power may take what came since the last.
 *   NONE   after the write, and nothing is synced but by bm_log_sync(), compaction and the close.
 *
 * Under BATCH and NONE others may have seen revisions that a crash then takes. So, if the last writer
 * had one of these policies and did not close, the next open begins a new epoch: the file is written
 * anew, with the same revisions under another name, and no one can go on where he was. */
enum bm_log_policy {
    BM_LOG_EACH,
    BM_LOG_BATCH,
    BM_LOG_NONE,
};

struct bm_log_options {
    const char *
        path; /* borrowed during the open. "PATH.new" beside it is the log's, too: what stands there
                         and nobody has open is removed. So no path of a log ends in ".new" */
    enum bm_log_policy policy;
    /* 0: the constants above. */
    uint64_t interval_ns;
    uint64_t idle_ns;
    uint64_t
        lock_wait_ns;  /* a writer that was killed keeps its lock until the kernel has ended what it
                              had under way; who opens waits so long before he says LOCKED */
    uint64_t step_len; /* a multiple of 4096 */
    size_t queue_len_max;  /* bytes of records that wait; one alone may be longer */
    size_t record_len_max; /* bytes of one record, and what is read of a file in one piece */
    /* May be NULL. */
    void (*on_room)(void *arg); /* an append that was told -EAGAIN may be tried again */
    void (*on_failed)(void *arg, int error); /* once: the log is read-only from now on */
    void *arg;
};

#define BM_LOG_MESSAGE_LEN 512

/* What an open found, or why it did not. */
struct bm_log_found {
    uint64_t epoch;
    uint64_t rev;        /* of the last record */
    uint64_t base_rev;   /* of the head: all deltas above it are in the file */
    uint64_t records;    /* heads and marks included */
    uint64_t file_len;   /* where the next record goes */
    uint64_t cut_offset; /* a torn tail began here, */
    uint64_t cut_len;    /* and was so long; 0: there was none */
    bool created;        /* there was no file */
    bool clean;          /* the last writer had closed it, and nothing was cut */
    bool new_epoch;      /* the last writer had not, and had told of revisions early */
    uint64_t bad_offset; /* after -BEAM_EKV_CORRUPT and -BEAM_EKV_TOO_LARGE: where */
    char message
        [BM_LOG_MESSAGE_LEN]; /* one line for people: what was cut, or, after an error, what is
                                         wrong with which file and what can be done; else empty */
};

/* Gets the snap, live and delta records of a file in order, their bodies checked. record and its body
 * are borrowed for the call. A negative result ends the reading and is what it returns. */
typedef int bm_log_record_fn(void *arg, const struct bm_record *record);

/* Opens the file at options->path for writing, or makes one (mode 0600; not through a symbolic link),
 * and blocks until all of it has been read, a torn tail cut and everything that is left made durable:
 * before serving. on_record may be NULL.
 *
 * 0 and *ret_log; else an error, with *ret_found (may be NULL; always written) saying more:
 *   -BEAM_EKV_LOCKED   another process, or another log of this one, writes it (after lock_wait_ns)
 *   -BEAM_EKV_FORMAT   no kv file, or of a newer format
 *   -BEAM_EKV_CORRUPT  something that had been durable is damaged; the file was not touched
 *   -BEAM_EKV_TOO_LARGE  there is a whole record over record_len_max; the file was not touched
 *   -EEXIST            a file has to be made, and what is at "PATH.new" is none that was left over
 *   -EINVAL, -ENAMETOOLONG, -EISDIR, -ELOOP (a symbolic link), -ENOSPC, -EIO … */
int bm_log_open(struct bm_reactor *reactor, const struct bm_log_options *options,
                bm_log_record_fn *on_record, void *arg, struct bm_log **ret_log,
                struct bm_log_found *ret_found);

/* Someone who waits. Embedded in the caller's object, which stays put until fn was called; it is
 * called exactly once after each call that took it and returned 0. res: 0, or the error. */
struct bm_log_wait {
    struct bm_list node; /* the log's */
    uint64_t rev;        /* the log's */
    void (*fn)(struct bm_log_wait *wait, int res);
};

/* Appends one transaction: entries[0..len) as in a map, sorted, with BM_ENTRY_DEL for what goes; copied.
 * They are checked. wait (may be NULL) is told when the policy's promise holds, waits in the order of
 * their appends. *ret_rev (may be NULL): the revision it made.
 *
 * On an error nothing has happened:
 *   -EAGAIN             the queue is full; on_room follows
 *   -ENOSPC, -EDQUOT, -EFBIG   no room in the file system for this one; a later one may find some
 *   -ENOMEM
 *   -BEAM_EKV_…         the entries break a rule; -BEAM_EKV_TOO_LARGE: over record_len_max
 *   -EROFS, -ESHUTDOWN  the log has failed, is closing */
int bm_log_append(struct bm_log *log, const void *entries, size_t len, struct bm_log_wait *wait,
                  uint64_t *ret_rev);

/* Tells wait when all that has been appended is durable, whatever the policy. -EROFS, -ESHUTDOWN. */
int bm_log_sync(struct bm_log *log, struct bm_log_wait *wait);

/* The state, in parts, for a compaction. Each part is a run of entries like a map's (no BM_ENTRY_DEL),
 * by key order, keys above those of the part before; at most len_max bytes, unless it is one entry.
 * What the caller changes in between need not be looked after: parts and deltas are put in an order
 * that makes them right, as long as each part is the state as of a revision, and that never goes back. */
struct bm_log_source {
    /* Returns 1: *ret_entries (borrowed until fn returns to the loop), *ret_len, and *ret_rev, the
     * revision whose state they are part of, at most that of the last append; 0: there are no more
     * (*ret_rev is set all the same); or an error, which ends the compaction. Called from the loop. */
    int (*next)(struct bm_log_source *source, size_t len_max, const void **ret_entries,
                size_t *ret_len, uint64_t *ret_rev);
};

/* Writes the state into a new file, with the deltas that come meanwhile, and puts it in the place of
 * the old one. Appending goes on; near the end acknowledgements wait for one sync of the new file.
 * done is told 0, or the error; then the old file goes on as if nothing had been, unless the log itself
 * has failed. source stays put until then. -EBUSY: one is under way; -ENOMEM; -EROFS, -ESHUTDOWN.
 *
 * If the path means another file by now, as somebody has moved this one away, done is told -ESTALE, nothing
 * is replaced or removed, and the log fails of it: its file has all that was acknowledged, wherever that
 * is now, but whoever opens the path would not find what came later. -BEAM_EKV_LOCKED, -EEXIST: "PATH.new"
 * is somebody's, and stays. */
int bm_log_compact(struct bm_log *log, struct bm_log_source *source, struct bm_log_wait *done);

/* Writes what waits, syncs, appends a last mark, so that the next open is clean, and gives everything
 * back. done (may be NULL) is told 0 or why the file may lack something; the log is gone then. A
 * compaction under way is given up (-ECANCELED). Once. */
void bm_log_close(struct bm_log *log, struct bm_log_wait *done);

/* Gives everything back without a last mark, as if the process had died. Only when none of its
 * operations is under way: after bm_reactor_close(), and in tests. Waits that are left are told
 * -ECANCELED from inside. Accepts NULL, returns NULL. */
struct bm_log *bm_log_free(struct bm_log *log);

/* In a forked child, whose parent goes on with the log: closes the child's copies of its descriptors, which
 * share the lock and would keep it when the parent has died. Nothing else may be called then. */
void bm_log_leave(struct bm_log *log);

struct bm_log_state {
    uint64_t epoch;
    uint64_t rev;          /* of the last append */
    uint64_t durable_rev;  /* surely on the disk */
    uint64_t base_rev;     /* of the head of the file */
    uint64_t file_len;     /* bytes of records, those that wait included */
    uint64_t snapshot_len; /* ... of which head to live: what a compaction could not save */
    uint64_t groups, syncs;
    size_t queue_len;
    bool compacting;
    int error; /* what it failed of, or 0 */
};
struct bm_log_state bm_log_state(const struct bm_log *log);

/* Reads a file without a lock, also while it is written, and changes nothing: until the first word
 * that is zero or no record. *ret_found as above; `message` then says what stopped it, if that was not
 * a word of zeros. -BEAM_EKV_FORMAT, -BEAM_EKV_CORRUPT when there is not even a complete state,
 * -errno; else 0. A record over BM_LOG_RECORD_LEN_MAX is none. */
int bm_log_read_file(const char *path, bm_log_record_fn *on_record, void *arg,
                     struct bm_log_found *ret_found);

/* The same over bytes in memory. With `entries` false, bodies are not taken apart, and sums alone are
 * looked at. */
int bm_log_read(const void *bytes, size_t len, bool entries, bm_log_record_fn *on_record, void *arg,
                struct bm_log_found *ret_found);

#endif
