/* The store inside: <beam/store.h> has what it is, docs/spec/kv.md, Level 2, what it says to others.
 *
 * Three numbers. `rev` is the last transaction that the state has; `told` the last one that counts as
 * done, and that anybody was told of; what lies between is *pending* and can still be undone. Without a
 * file, or when the log's promise comes early, a transaction is pending until the end of the turn.
 *
 * Invariants: pending are the commits of the revisions told + 1 to rev, in order, and empty ones that
 * wait for those before them. The history ends with told. Whatever is answered or sent is of told or
 * before, but for the parts of a snapshot: who gets those is not live before told has reached them, and
 * begins anew if that is undone.
 *
 * store.c has the state and its transactions, store_log.c the file, store_service.c what is asked,
 * store_watch.c who follows, store_history.c what was told last, commit_index.c what is pending,
 * store_gone.c what was deleted last. */
#ifndef BM_STORE_H
#define BM_STORE_H

#include <beam/buffer.h>
#include <beam/store.h>

#include "base/list.h"
#include "kv/log.h"
#include "runtime/commit_index.h"
#include "runtime/runtime.h"
#include "runtime/store_gone.h"
#include "runtime/store_history.h"
#include "runtime/store_state.h"
#include "uring/reactor.h"
#include "uring/timer.h"

struct bm_core;

#define BM_STORE_PREFIX_MAX 240u /* of its services: a name has 255 bytes */
#define BM_STORE_BUFFER_MAX                                                                        \
    ((size_t)64 << 20) /* above any transaction with what is around it; Y8 */

/* A transaction that is pending. */
struct bm_commit {
    struct bm_list node; /* store->pending */
    beam_store *store;
    struct bm_log_wait wait; /* the log's until its fn was called */
    struct bm_changes changes;
    uint64_t rev;
    struct bm_delta delta; /* NULL document: it changes nothing */
    beam_store_fn *fn;
    void *arg;
    struct bm_list readers; /* answers that tell of it: store_service.c */
    bool undone;
};

/* One in the making. */
struct bm_txn {
    beam_store *store;
    struct bm_changes changes;
    uint64_t len;     /* of its entries */
    bool conditional; /* only if unchanged since `seen` */
    uint64_t seen;
    beam_str conflict;     /* after -ESTALE: which key, a view of what was asked, */
    uint64_t conflict_rev; /* and when it changed */
};

enum bm_store_life {
    BM_STORE_OPEN,
    BM_STORE_CLOSING, /* the log is being closed, or the last pending are told */
    BM_STORE_CLOSED,  /* memory only: services may still lead here until the runtime ends */
};

struct beam_store {
    struct bm_list node; /* core->stores */
    struct bm_core *core;
    struct beam_store_options options;
    struct bm_account account; /* pays for all but the struct */
    enum bm_store_life life;
    bool stopping; /* the runtime is: nobody may follow any more */
    bool served;
    char prefix[BM_STORE_PREFIX_MAX + 1];

    struct bm_state state;
    uint64_t epoch, rev, told;
    uint64_t told_keys, told_len; /* of the state as of told: keys, and bytes of their entries */
    struct bm_list pending;       /* bm_commit */
    struct bm_commit_index index; /* those of them that change something */
    size_t pending_len;           /* of them and their deltas */
    struct bm_task settle_task;
    struct bm_history history;
    struct bm_gone gone;

    /* The file: store_log.c. */
    struct bm_log *log; /* NULL: none, or closed */
    int error;          /* of the log; from then on there are no more transactions */
    struct bm_log_wait closed;
    beam_store_fn *on_closed;
    void *on_closed_arg;
    bool compacting;
    struct bm_log_source source;
    struct bm_log_wait compacted;
    struct bm_tree_cursor compact_at;
    beam_buffer compact_part; /* made for each compaction */
    beam_store_fn *on_compacted;
    void *on_compacted_arg;
    uint64_t compactions;
    uint64_t compact_before; /* bytes of the file when the last one began */
    uint64_t compact_from;   /* not by itself before the file is so long */

    /* Who follows: store_watch.c. */
    struct bm_list watchers;    /* all */
    struct bm_list ready, idle; /* to be served; those that have all */
    uint32_t watcher_count;
    uint64_t skips;
    uint64_t watch_told;   /* told, when the idle ones were woken last */
    uint64_t watch_work;   /* what has been done for them, in all: store_watch.c has the unit */
    uint64_t watch_turn;   /* the reactor's, */
    uint64_t watch_until;  /* ... in which it may come to this */
    uint64_t watch_visits; /* how often one was served */
    struct bm_task watch_task;
    struct bm_source watch_source; /* the reactor's while some are left for its next turn */
    struct bm_timer heartbeat;

    beam_buffer buffer; /* for one answer or part at a time */
};

/* --- store.c --- */

static inline bool bm_store_is_open(const beam_store *store)
{
    return store->life == BM_STORE_OPEN;
}

/* This is a child of the process that opened it, which can do nothing with it. */
static inline bool bm_store_forked(const beam_store *store)
{
    return bm_runtime_forked(store->core->runtime);
}

/* A transaction: begin, what it changes, then commit or drop. Errors as of beam_store_commit. */
void bm_txn_begin(struct bm_txn *txn, beam_store *store);
/* A value as it lies in a document that was checked, of a depth that fits. */
int bm_txn_set(struct bm_txn *txn, beam_str key, uint8_t type, const void *value, size_t len);
int bm_txn_delete(struct bm_txn *txn, beam_str key);
void bm_txn_drop(struct bm_txn *txn);
/* Consumes it, however it ends. fn as in beam_store_commit. */
int bm_txn_commit(struct bm_txn *txn, beam_store_fn *fn, void *arg);
/* 0, or -BEAM_EKV_DEPTH: wrapped twice it would be too deep; other -BEAM_EKV_…: it is not valid. */
int bm_store_check_value(const beam_kv_value *value);

/* Of all that is pending up to rev the promise holds: it is told. */
void bm_store_settle(beam_store *store, uint64_t rev);
/* The log has failed: what is pending is undone, and its owners told. */
void bm_store_fail(beam_store *store, int error);
/* That of a commit is over: it is told if it was undone, and freed. */
void bm_commit_finish(struct bm_commit *commit, int error);
/* The pending commit of a revision; NULL: it has been told. */
static inline struct bm_commit *bm_store_pending(const beam_store *store, uint64_t rev)
{
    return bm_commit_index_find(&store->index, rev);
}
/* It holds nothing any more: the last step of closing. */
void bm_store_closed(beam_store *store, int error);

/* The stores of a core: those that are open no longer let others follow; then, behind the last session,
 * they are closed. true: all are. */
void bm_stores_stop(struct bm_core *core);
bool bm_stores_close(struct bm_core *core);
/* What is left of them goes; the reactor does not run any more. */
void bm_stores_free(struct bm_core *core);
/* A forked child gives back its copies of their descriptors, and so lets go of the locks. */
void bm_stores_leave(struct bm_core *core);

/* --- store_log.c --- */

/* Loads the file into the state, which is empty. Errors as of beam_store_open. */
int bm_store_log_open(beam_store *store);
/* Appends a commit, which gets its revision told; -ENOBUFS and what else the log says. */
int bm_store_log_append(struct bm_commit *commit);
void bm_store_log_close(beam_store *store);
/* Who waits for the log is told -ECANCELED, from inside; the store was failed before. */
void bm_store_log_free(beam_store *store);
uint64_t bm_store_log_len(const beam_store *store);
/* Rewrites the file if it is time to. */
void bm_store_log_look(beam_store *store);

/* --- store_service.c --- */

int bm_store_services_add(beam_store *store);
void bm_store_services_remove(beam_store *store);
/* Answers that waited for this commit: it has been told, or undone. */
void bm_store_readers_told(struct bm_commit *commit, bool undone);

/* --- store_watch.c --- */

void bm_watchers_init(beam_store *store);
void bm_watchers_deinit(beam_store *store); /* when all have ended */
/* A request for `watch`; offered: it has a state of this epoch and revision. Takes the request,
 * which is kept and no event. */
void bm_watch_begin(beam_store *store, beam_request *request, beam_str prefix, bool offered,
                    uint64_t rev);
/* There is more to be sent. */
void bm_watchers_wake(beam_store *store);
/* What was pending has been undone: parts of snapshots may have told of it. */
void bm_watchers_begin_anew(beam_store *store);
void bm_watchers_end(beam_store *store, enum beam_code code, const char *text);

#endif
