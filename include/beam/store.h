/* Stores and replicas: keys with values that many can read, change and follow.
 *
 * A *store* owns an ordered map of keys and values (<beam/kv.h>), in memory and, given a path, in a
 * file too. It belongs to one reactor, which puts all changes in one order: each *transaction* is
 * one revision, a number that goes up by one. Served, it answers to `kv.get`, `kv.put`, `kv.delete`,
 * `kv.txn`, `kv.scan`, `kv.info`, `kv.compact` and `kv.watch` on every session of the runtime
 * (docs/spec/kv.md, Level 2).
 *
 * A *replica* follows a store over a session: it keeps a copy of all keys that begin with a prefix,
 * which is read without a round trip, tells what changes, and knows how far it is behind. It can be
 * given another session when the first is lost, and goes on where it was.
 *
 *     static void on_change(beam_replica *replica, beam_str key, const beam_kv_value *value,
 *                           uint64_t rev, void *arg) { ... value NULL: it was deleted ... }
 *     static const struct beam_replica_handlers handlers = {.on_change = on_change};
 *     ...
 *     r = beam_store_open(runtime, &BEAM_STORE_OPTIONS(.path = "settings.kv"), &store);
 *     if (r >= 0) r = beam_store_serve(store, NULL);
 *     ...                                                   // elsewhere, over a session
 *     r = beam_replica_new(&BEAM_REPLICA_OPTIONS(.prefix = "cfg/", .handlers = &handlers), &replica);
 *     if (r >= 0) r = beam_replica_attach(replica, session);
 *
 * Revisions count within an *epoch*: a number drawn at random when a store is begun, and again when
 * revisions that somebody may have seen could be given out a second time. Two states are the same
 * if epoch and revision are.
 *
 * Everything here is called on the reactor that owns the store or the replica, and callbacks run
 * there, from its loop. Keys and values that are looked at are views, which end when the store or
 * replica next changes: at the latest when the caller returns to the loop.
 *
 * fork(2): in a child all calls on stores and replicas of its parent answer -BEAM_EFORKED. The lock of a
 * file belongs to what parent and child have open together (fcntl_locking(2), open file description locks):
 * closing the store gives it back whoever has copies, but if the parent dies without that the file stays
 * locked for as long as a child has its copies of the descriptors. It gives them back by beam_store_close
 * or beam_runtime_free, which leave the parent's lock alone, by execve(2), or by its end; a child that does
 * none of these should not outlive its parent. */
#ifndef BEAM_STORE_H
#define BEAM_STORE_H

#include <beam/service.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct beam_store beam_store;
typedef struct beam_replica beam_replica;

#define BEAM_STORE_KEY_LEN_MAX 1024 /* bytes, at least 1; docs/spec/kv.md Y2 */
#define BEAM_STORE_DEPTH_MAX 30     /* of a value: a change wraps it twice; Y2 */

/* --- opening --- */

/* When a change counts as done: is told to be done, and is told to those who watch. */
enum beam_store_sync {
    BEAM_STORE_SYNC_EACH =
        0,                 /* once it is on the disk. Those that come while the disk is busy share
                                 the next write */
    BEAM_STORE_SYNC_BATCH, /* at once; the disk has it within batch_ns */
    BEAM_STORE_SYNC_NONE,  /* at once; the disk has it when the kernel thinks so */
};

/* Behind each field its default, which 0 means too. */
struct beam_store_options {
    size_t size;
    /* Of the file, made if it is not there; NULL: memory alone. "PATH.new" is its own too, so that no path
     * ends in ".new". */
    const char *path;
    enum beam_store_sync sync; /* EACH; of no meaning without a file */
    uint64_t batch_ns;         /* BATCH: 100 ms */
    unsigned mode;             /* of a file that is made, whatever the umask; 0600 */
    uint32_t txn_len_max;      /* keys and values of one transaction as they are kept, bytes; 1 MiB,
                                  at most 16 MiB. One value cannot be longer either */
    size_t history_len;     /* changes kept for those who watch, bytes; 4 MiB. Who is further behind
                                  gets the state anew */
    size_t pending_len_max; /* changes that wait for the disk, bytes; 64 MiB. More are refused. Each
                                  counts for some more, one that changes nothing too */
    uint32_t watchers_max;  /* 65 536 */
    uint64_t heartbeat_ns;  /* who watches hears something at least this often; 5 s */
    uint64_t compact_len_min; /* the file is rewritten when it is longer than this, 1 MiB, and */
    uint32_t compact_percent; /* ... than so many hundredths of what is in the store; 200. Never to
                                  save less than 4 KiB, or than a quarter of what is in the store */
    beam_allow_fn
        *allow;      /* who may ask for "PREFIX.get", "PREFIX.put" and so on, each by its name and
                                  as in struct beam_serve_options; every peer */
    void *allow_arg; /* as long as the runtime */
};
#define BEAM_STORE_OPTIONS(...)                                                                    \
    ((struct beam_store_options){.size = sizeof(struct beam_store_options), __VA_ARGS__})

/* Opens a store that belongs to the calling reactor. A file is read whole, which blocks: do it
 * before there are others to keep waiting (a call posted before the start). options may be NULL and
 * are copied, the path too. The caller owns the store until beam_store_close.
 * -EPERM: not on a reactor of this runtime. -EINVAL: no such sync, or a limit out of range.
 * -BEAM_EKV_LOCKED: another process, or this one, has the file open as a store. -BEAM_EKV_CORRUPT: the
 * file is damaged where it had been whole; nothing was changed. -BEAM_EKV_FORMAT: not a file of a
 * store, or of a format to come. What is wrong with the file is said to the log of the runtime, too, and
 * so is what was cut off its end. -ESHUTDOWN: the runtime is stopping. -E2BIG, -ENOMEM, -BEAM_EFORKED,
 * and what open(2), fallocate(2) and read(2) say. */
BEAM_EXPORT int beam_store_open(beam_runtime *runtime, const struct beam_store_options *options,
                                beam_store **ret_store);

/* Offers the services `PREFIX.get` and so on, for every session of the runtime; prefix is copied,
 * NULL means "kv". Once in a store's life. Errors as beam_serve; then none is served. -EALREADY: it is
 * served. */
BEAM_EXPORT int beam_store_serve(beam_store *store, const char *prefix);

/* How something with the store ended: error 0, or below 0; rev: the revision that resulted. */
typedef void beam_store_fn(int error, uint64_t rev, void *arg);

/* Ends a store: its services end, and those who watch it with UNAVAILABLE; what waits for the disk
 * is finished, the file is closed so that the next open finds all in order; then fn runs (it may be
 * NULL). store may not be used any more from now on. Stores that are open when the runtime stops are
 * closed likewise, behind the last session; a stop waits for that. Accepts NULL, and then fn does not
 * run. In a forked child it closes the child's copies of the descriptors alone, and fn does not run. */
BEAM_EXPORT void beam_store_close(beam_store *store, beam_store_fn *fn, void *arg);

/* --- reading --- */

/* The value of a key and the revision that set it; either may be NULL. -ENOENT: no such key.
 * A change that waits for the disk is seen here already, though by nobody over a session. */
BEAM_EXPORT int beam_store_get(const beam_store *store, beam_str key, beam_kv_value *ret_value,
                               uint64_t *ret_rev);

/* The first key behind `after` that begins with prefix, in the order of the bytes; after with ptr
 * NULL: the first of all. Returns 1; 0: there is none. No state is kept, so the store may change
 * between two calls, if the caller copies the key. ret_value and ret_rev may be NULL.
 *
 *     for (beam_str key = {0}; beam_store_next(store, prefix, key, &key, &value, NULL) > 0;) */
BEAM_EXPORT int beam_store_next(const beam_store *store, beam_str prefix, beam_str after,
                                beam_str *ret_key, beam_kv_value *ret_value, uint64_t *ret_rev);

struct beam_store_info {
    size_t size;         /* filled in by the caller, as options are */
    uint64_t epoch;      /* of its revisions */
    uint64_t rev;        /* the last one that was told as done */
    uint64_t horizon;    /* who watches and has seen this or a later one goes on from there */
    uint64_t keys;       /* now */
    uint64_t data_len;   /* bytes of keys and values as they are kept */
    uint64_t memory_len; /* bytes of all memory of the store */
    uint64_t file_len;   /* bytes used of the file; 0 without one */
    uint32_t watchers;   /* now */
    uint64_t skips;      /* times somebody who watches was too far behind, and got the state anew */
    uint64_t compactions;
    int error; /* 0, or why the disk took no more: the store can then only be read */
};
#define BEAM_STORE_INFO() ((struct beam_store_info){.size = sizeof(struct beam_store_info)})

/* -EINVAL: no size. -BEAM_EFORKED. */
BEAM_EXPORT int beam_store_info(const beam_store *store, struct beam_store_info *ret_info);

/* --- changing --- */

/* A transaction: all of it happens, as one revision, or nothing. */
struct beam_store_txn {
    size_t size;
    const beam_kv_value *set; /* a map: keys with their new values; NULL: none */
    const beam_kv_value
        *remove;       /* a list of keys (strings); those that are not there are no error */
    bool if_unchanged; /* only if no key of it has changed since revision `seen`; with seen 0: */
    uint64_t seen;     /* only if none of them is there */
};
#define BEAM_STORE_TXN(...)                                                                        \
    ((struct beam_store_txn){.size = sizeof(struct beam_store_txn), __VA_ARGS__})

/* Makes a transaction. What is read from the store from now on has it; fn (may be NULL) runs when
 * it is done in the sense of the store's sync, with the revision, or with the error that makes it
 * undone. A transaction that changes nothing (only removes what is not there) has the revision that
 * is current.
 * Errors change nothing, and fn does not run. -ESTALE: a key has changed since `seen`. -EINVAL: set is
 * no map, remove no list of strings, a key is in both or twice in remove. -ENAMETOOLONG: a key is empty
 * or over BEAM_STORE_KEY_LEN_MAX. -BEAM_EKV_DEPTH and other -BEAM_EKV_…: a value. -EMSGSIZE: over
 * txn_len_max. -ENOBUFS: over pending_len_max. -ENOSPC, -EDQUOT, -EFBIG: there is no room on the disk now.
 * -EROFS: the disk takes no more (beam_store_info).
 * -ESHUTDOWN: the runtime is stopping. -E2BIG, -ENOMEM. */
BEAM_EXPORT int beam_store_commit(beam_store *store, const struct beam_store_txn *txn,
                                  beam_store_fn *fn, void *arg);

/* The same for one key. value is borrowed; a map or list is checked. */
BEAM_EXPORT int beam_store_put(beam_store *store, beam_str key, const beam_kv_value *value,
                               beam_store_fn *fn, void *arg);
BEAM_EXPORT int beam_store_delete(beam_store *store, beam_str key, beam_store_fn *fn, void *arg);

/* Rewrites the file so that it holds what is in the store and no more, while all goes on; fn (may be
 * NULL) runs at the end. Happens by itself as well (compact_len_min). -EALREADY: it is under way.
 * -ENOTSUP: no file. -EROFS. -ESHUTDOWN: the store is being closed. -ENOMEM. fn is told what the file
 * system has said, and then the file is as it was; -ESTALE: the path means another file by now, so that
 * the store can only be read from then on. */
BEAM_EXPORT int beam_store_compact(beam_store *store, beam_store_fn *fn, void *arg);

/* --- following a store from elsewhere --- */

enum beam_replica_state {
    BEAM_REPLICA_EMPTY = 0, /* it has never been complete; there is nothing to read */
    BEAM_REPLICA_LIVE,      /* it has all that the owner has told, and is told all that comes */
    BEAM_REPLICA_STALE, /* it has what was so when its watch ended, or before it had to begin anew */
};

/* What a replica tells. Each slot may be NULL. A handler may free the replica, and is told nothing more;
 * or attach it anew: then the transaction, or the difference, that is being told is told to its end
 * first. */
struct beam_replica_handlers {
    /* A key has another value, or with value NULL none any more; once for each change of a
     * transaction, in the order of the keys. When the replica had to begin anew: once for each key
     * that is different from what it was. What is read meanwhile is the state behind the
     * transaction. */
    void (*on_change)(beam_replica *replica, beam_str key, const beam_kv_value *value, uint64_t rev,
                      void *arg);
    /* A transaction has been told whole; its revision. */
    void (*on_commit)(beam_replica *replica, uint64_t rev, void *arg);
    /* From now on it is LIVE. skipped: how many revisions were passed over because it had fallen
     * behind. */
    void (*on_live)(beam_replica *replica, uint64_t skipped, void *arg);
    /* It is not LIVE any more. Code OK: it has to begin anew on the same session, and on_live
     * follows. Else its watch has ended, as status says, or could not be begun: it waits for
     * beam_replica_attach. */
    void (*on_stale)(beam_replica *replica, const struct beam_status *status, void *arg);
};

struct beam_replica_options {
    size_t size;
    const char *service; /* the prefix that the store is served under; "kv" */
    const char *prefix;  /* of the keys; "": all. A store that is asked for all sees that nothing is
                            missing between two revisions; for a part of it the session vouches */
    size_t memory_len_max;                        /* bytes; none */
    const struct beam_replica_handlers *handlers; /* borrowed for the replica's life; none */
    void *arg;                                    /* of the handlers */
};
#define BEAM_REPLICA_OPTIONS(...)                                                                  \
    ((struct beam_replica_options){.size = sizeof(struct beam_replica_options), __VA_ARGS__})

/* Makes an empty replica of the calling reactor, the caller's to free. options may be NULL and are
 * copied, the texts too. -EPERM: not on a reactor. -EINVAL: the name of the service is too long, or
 * prefix is no UTF-8 or longer than a key. -E2BIG, -ENOMEM. */
BEAM_EXPORT int beam_replica_new(const struct beam_replica_options *options,
                                 beam_replica **ret_replica);

/* Follows the store at the other end of a session of the same reactor, from where the replica is; a
 * watch that it had is given up, without on_stale. The session is borrowed until the watch has ended.
 * Errors as beam_open; the replica is as it was, and an earlier watch ended. */
BEAM_EXPORT int beam_replica_attach(beam_replica *replica, beam_session *session);

/* Ends its watch, and frees it. Accepts NULL, returns NULL. */
BEAM_EXPORT beam_replica *beam_replica_free(beam_replica *replica);
static inline void beam_replica_freep(beam_replica **replica)
{
    *replica = beam_replica_free(*replica);
}

/* As beam_store_get and beam_store_next. -ENOENT also of an EMPTY one. rev is that of the change, or
 * of the state in which the key came. */
BEAM_EXPORT int beam_replica_get(const beam_replica *replica, beam_str key,
                                 beam_kv_value *ret_value, uint64_t *ret_rev);
BEAM_EXPORT int beam_replica_next(const beam_replica *replica, beam_str prefix, beam_str after,
                                  beam_str *ret_key, beam_kv_value *ret_value, uint64_t *ret_rev);

struct beam_replica_info {
    size_t size; /* filled in by the caller, as options are */
    enum beam_replica_state state;
    uint64_t epoch, rev; /* of what can be read */
    uint64_t owner_rev;  /* the owner's, as of the last word from there; less rev it is the lag */
    uint64_t heard_ns;   /* when that was, on beam_now_ns */
    uint64_t keys;
    uint64_t data_len;   /* bytes of keys and values as they are kept */
    uint64_t memory_len; /* bytes of all memory of the replica */
    uint64_t skipped;    /* revisions that were passed over, in all */
    uint64_t snapshots;  /* times it began anew */
};
#define BEAM_REPLICA_INFO() ((struct beam_replica_info){.size = sizeof(struct beam_replica_info)})

/* -EINVAL: no size. -BEAM_EFORKED. */
BEAM_EXPORT int beam_replica_info(const beam_replica *replica, struct beam_replica_info *ret_info);

/* --- files, without being their store ---
 *
 * Any thread, and no runtime; these calls block. A file is only read, without a lock: also one that a
 * store has open, in this process or another. */

/* What a file holds (docs/spec/kv.md, Level 1). */
struct beam_store_file_info {
    size_t size;       /* filled in by the caller, as options are */
    uint64_t epoch;    /* of its revisions */
    uint64_t rev;      /* the last one */
    uint64_t base_rev; /* the one that it begins with, as a whole; later ones are changes to that */
    uint64_t keys;     /* after the last revision */
    uint64_t data_len; /* bytes of keys and values as they are kept */
    uint64_t records;
    uint64_t file_len; /* bytes of these records; the rest is room */
    uint64_t tail_len; /* bytes of something torn behind them, which the next store to open the file
                          cuts off; 0: there is none, or it is in use, and more is on its way */
    bool in_use;       /* a store has it open */
    bool closed;       /* the last store that had it open was closed */
    bool renewed; /* ... was not, and had told of changes early: the next begins another epoch */
    int stop;     /* why there is no further record: 0: there are only zeros, or -BEAM_EKV_… */
    int verdict;  /* what the next store to open it would be told of its records: 0,
                     -BEAM_EKV_CORRUPT, -BEAM_EKV_FORMAT */
};
#define BEAM_STORE_FILE_INFO()                                                                     \
    ((struct beam_store_file_info){.size = sizeof(struct beam_store_file_info)})

/* Gets the keys of a state, in the order of their bytes; views, which end when it returns. A result
 * other than 0 ends the reading, and is what it returns. */
typedef int beam_store_entry_fn(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg);

/* Reads the state that a file holds, up to the first place where no record is, and only then gives it
 * to fn (may be NULL). ret_info may be NULL; it is written also after the errors marked with *, as far
 * as was read, and before fn is called. The state is kept in memory meanwhile.
 * -BEAM_EKV_CORRUPT *: damaged before there is a state. -BEAM_EKV_FORMAT *: not a file of a store, or
 * of a format to come. -EINVAL: no size. -ENOMEM, and what open(2) and read(2) say; -ELOOP: a symbolic
 * link. */
BEAM_EXPORT int beam_store_read_file(const char *path, beam_store_entry_fn *fn, void *arg,
                                     struct beam_store_file_info *ret_info);

/* The same of a file that is in memory. */
BEAM_EXPORT int beam_store_read(const void *bytes, size_t len, beam_store_entry_fn *fn, void *arg,
                                struct beam_store_file_info *ret_info);

/* Writes a state as a file, piece by piece, to wherever: of revision rev, and of an epoch of its own,
 * since what becomes of the copy is another history. It is a file as a store leaves one that was closed.
 *
 *     r = beam_store_dump_new(rev, write_somewhere, arg, &dump);
 *     while (r >= 0 && ...) r = beam_store_dump_put(dump, key, value);
 *     if (r >= 0) r = beam_store_dump_end(dump);
 *     beam_store_dump_free(dump); */
typedef struct beam_store_dump beam_store_dump;

/* Gets the next bytes of the file, borrowed; 0, or an error, which is what the call that led here
 * returns, and all later ones. */
typedef int beam_store_write_fn(const void *bytes, size_t len, void *arg);

/* -EINVAL: no fn. -ENOMEM. */
BEAM_EXPORT int beam_store_dump_new(uint64_t rev, beam_store_write_fn *fn, void *arg,
                                    beam_store_dump **ret_dump);
/* The next key, behind those before. -EINVAL: it is not, or the dump has ended. -ENAMETOOLONG,
 * -BEAM_EKV_…: as beam_store_commit. -ENOMEM. Errors stick. */
BEAM_EXPORT int beam_store_dump_put(beam_store_dump *dump, beam_str key,
                                    const beam_kv_value *value);
/* There are no more keys: the file is complete. Without this it is none. */
BEAM_EXPORT int beam_store_dump_end(beam_store_dump *dump);
/* Accepts NULL, returns NULL. */
BEAM_EXPORT beam_store_dump *beam_store_dump_free(beam_store_dump *dump);
static inline void beam_store_dump_freep(beam_store_dump **dump)
{
    *dump = beam_store_dump_free(*dump);
}

#ifdef __cplusplus
}
#endif

#endif
