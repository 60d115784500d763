/* The state of a store, its transactions, and its life. store.h has the model.
 *
 * A transaction allocates all it needs before it changes anything: blocks, delta, place in the history.
 * Then the state gets it, then the log, and if that refuses the state is as it was. Its end is told from
 * the loop: by the log when its promise holds (store_log.c), without one by the settle task.
 *
 * Left to others: what is asked and answered (store_service.c), who is told (store_watch.c), the file
 * (store_log.c). */
#include "runtime/store.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "kv/utf8.h"
#include "runtime/core.h"
#include "runtime/feed.h"
#include "runtime/options.h"
#include "runtime/runtime.h"

#define TXN_LEN_DEFAULT (1u << 20)
#define TXN_LEN_MAX (16u << 20) /* Y8 */
#define HISTORY_LEN_DEFAULT ((size_t)4 << 20)
#define PENDING_LEN_DEFAULT ((size_t)64 << 20)
#define WATCHERS_DEFAULT 65536u
#define HEARTBEAT_DEFAULT (5 * BM_NS_PER_S)
#define HEARTBEAT_MIN (10 * BM_NS_PER_MS) /* ours: a message for each follower, each time */
#define BATCH_DEFAULT (100 * BM_NS_PER_MS)
#define COMPACT_LEN_DEFAULT ((uint64_t)1 << 20)
#define COMPACT_PERCENT_DEFAULT 200u
#define BUFFER_KEPT ((size_t)256 << 10) /* ours: a longer one is given back with the next change */

static void on_settle(struct bm_task *task);

/* --- opening --------------------------------------------------------------------------------- */

static int read_options(struct beam_store_options *to, const struct beam_store_options *from)
{
    int r = bm_options_read(to, sizeof(*to), from);
    if (r < 0)
        return r;
#define DEFAULT(field, value) to->field = to->field ? to->field : (value)
    DEFAULT(batch_ns, BATCH_DEFAULT);
    DEFAULT(txn_len_max, TXN_LEN_DEFAULT);
    DEFAULT(history_len, HISTORY_LEN_DEFAULT);
    DEFAULT(pending_len_max, PENDING_LEN_DEFAULT);
    DEFAULT(watchers_max, WATCHERS_DEFAULT);
    DEFAULT(heartbeat_ns, HEARTBEAT_DEFAULT);
    DEFAULT(compact_len_min, COMPACT_LEN_DEFAULT);
    DEFAULT(compact_percent, COMPACT_PERCENT_DEFAULT);
    DEFAULT(mode, 0600);
#undef DEFAULT
    if (to->sync > BEAM_STORE_SYNC_NONE || to->txn_len_max > TXN_LEN_MAX ||
        to->heartbeat_ns < HEARTBEAT_MIN || to->compact_percent <= 100)
        return -EINVAL;
    return 0;
}

static beam_store *store_free(beam_store *store)
{
    bm_list_unlink(&store->node);
    bm_free(NULL, store, sizeof(*store));
    return NULL;
}

/* All but the struct. */
static void give_back(beam_store *store)
{
    bm_task_cancel(&store->settle_task);
    bm_watchers_deinit(store);
    bm_history_clear(&store->history);
    bm_commit_index_deinit(&store->index);
    bm_state_clear(&store->state);
    bm_tree_cursor_reset(&store->compact_at, &store->account);
    beam_buffer_deinit(&store->compact_part);
    beam_buffer_deinit(&store->buffer);
    bm_assert(store->account.used == 0);
}

static void begin_buffer(beam_store *store)
{
    beam_buffer_init(&store->buffer, BM_STORE_BUFFER_MAX);
    store->buffer.account = &store->account;
}

static uint64_t fresh_epoch(void)
{
    uint64_t epoch;
    do
        bm_random(&epoch, sizeof(epoch));
    while (epoch == 0);
    return epoch;
}

int beam_store_open(beam_runtime *runtime, const struct beam_store_options *options,
                    beam_store **ret_store)
{
    struct bm_core *core = runtime ? bm_core_here(runtime) : NULL;
    struct beam_store_options wanted;
    if (!core)
        return -EPERM;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    if (core->stopping)
        return -ESHUTDOWN;
    int r = read_options(&wanted, options);
    if (r < 0)
        return r;
    beam_store *store = bm_alloc_zero(NULL, sizeof(*store));
    if (!store)
        return -ENOMEM;
    store->core = core;
    store->options = wanted;
    bm_list_init(&store->pending);
    bm_state_init(&store->state, &store->account);
    bm_history_init(&store->history, &store->account, wanted.history_len, 0);
    begin_buffer(store);
    store->settle_task.fn = on_settle;
    bm_watchers_init(store);
    if (wanted.path)
        r = bm_store_log_open(store);
    else
        store->epoch = fresh_epoch();
    if (r < 0) {
        give_back(store);
        store_free(store);
        return r;
    }
    store->options.path = NULL; /* the caller's */
    store->told = store->rev;
    store->told_keys = bm_state_keys(&store->state);
    store->told_len = store->state.tree.data_len;
    bm_commit_index_init(&store->index, &store->account, store->rev);
    bm_gone_init(&store->gone, store->rev);
    bm_list_push_back(&core->stores, &store->node);
    *ret_store = store;
    return 0;
}

int beam_store_serve(beam_store *store, const char *prefix)
{
    size_t len = prefix ? strlen(prefix) : 2;
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    if (store->served)
        return -EALREADY;
    if (!bm_store_is_open(store) || store->stopping)
        return -ESHUTDOWN;
    if (len == 0 || len > BM_STORE_PREFIX_MAX)
        return -EINVAL;
    memcpy(store->prefix, prefix ? prefix : "kv", len + 1);
    int r = bm_store_services_add(store);
    if (r < 0)
        return r;
    store->served = true;
    return 0;
}

/* --- closing --------------------------------------------------------------------------------- */

static void end(beam_store *store, int error)
{
    beam_store_fn *fn = store->on_closed;
    void *arg = store->on_closed_arg;
    uint64_t rev = store->told;
    store->life = BM_STORE_CLOSED;
    give_back(store);
    if (!store->served)
        store_free(store);
    if (fn)
        fn(error, rev, arg);
}

void bm_store_closed(beam_store *store, int error)
{
    struct bm_core *core = store->core;
    end(store, error);
    bm_core_check_quiet(core);
}

/* One that is being closed is left alone: its log may have been about to go when the child was made. Its
 * lock is given back by the close, unless the parent dies before. */
static void leave(beam_store *store)
{
    if (bm_store_is_open(store) && store->log)
        bm_log_leave(store->log);
}

void beam_store_close(beam_store *store, beam_store_fn *fn, void *arg)
{
    if (!store || !bm_store_is_open(store))
        return;
    if (bm_store_forked(store)) {
        leave(store);
        return;
    }
    store->life = BM_STORE_CLOSING;
    store->on_closed = fn;
    store->on_closed_arg = arg;
    if (store->served)
        bm_store_services_remove(store);
    bm_watchers_end(store, BEAM_UNAVAILABLE, "the store has been closed");
    bm_timer_cancel(store->core->reactor, &store->heartbeat);
    if (store->log)
        bm_store_log_close(store);
    else
        bm_task_queue(store->core->reactor, &store->settle_task);
}

/* Another thread may have been at work on the list when it was copied: it is walked in the one direction
 * in which it is whole at any time, or ends. */
void bm_stores_leave(struct bm_core *core)
{
    for (struct bm_list *n = core->stores.next; n && n != &core->stores; n = n->next)
        leave(bm_list_entry(n, beam_store, node));
}

void bm_stores_stop(struct bm_core *core)
{
    for (struct bm_list *n = core->stores.next; n != &core->stores; n = n->next) {
        beam_store *store = bm_list_entry(n, beam_store, node);
        store->stopping = true;
        if (bm_store_is_open(store))
            bm_watchers_end(store, BEAM_UNAVAILABLE, "the owner of the store is stopping");
    }
}

bool bm_stores_close(struct bm_core *core)
{
    bool all = true;
    for (struct bm_list *n = core->stores.next; n != &core->stores; n = n->next) {
        beam_store *store = bm_list_entry(n, beam_store, node);
        beam_store_close(store, NULL, NULL);
        all = all && store->life == BM_STORE_CLOSED;
    }
    return all;
}

void bm_stores_free(struct bm_core *core)
{
    struct bm_list *node;
    while ((node = bm_list_front(&core->stores))) {
        beam_store *store = bm_list_entry(node, beam_store, node);
        if (store->life == BM_STORE_CLOSED) {
            store_free(store);
            continue;
        }
        store->life = BM_STORE_CLOSING;
        bm_watchers_end(store, BEAM_UNAVAILABLE, "the owner of the store has ended");
        bm_store_fail(store, -ECANCELED); /* first: those that the log tells are undone then */
        bm_store_log_free(store);
        end(store, store->error);
    }
}

/* --- reading --------------------------------------------------------------------------------- */

int beam_store_get(const beam_store *store, beam_str key, beam_kv_value *ret_value,
                   uint64_t *ret_rev)
{
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    return bm_state_get(&store->state, key, ret_value, ret_rev);
}

int beam_store_next(const beam_store *store, beam_str prefix, beam_str after, beam_str *ret_key,
                    beam_kv_value *ret_value, uint64_t *ret_rev)
{
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    return bm_state_next(&store->state, prefix, after, ret_key, ret_value, ret_rev);
}

int beam_store_info(const beam_store *store, struct beam_store_info *ret_info)
{
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    struct beam_store_info info = {
        .epoch = store->epoch,
        .rev = store->told,
        .horizon = bm_history_horizon(&store->history),
        .keys = bm_state_keys(&store->state),
        .data_len = store->state.tree.data_len,
        .memory_len = store->account.used + sizeof(*store),
        .file_len = bm_store_log_len(store),
        .watchers = store->watcher_count,
        .skips = store->skips,
        .compactions = store->compactions,
        .error = store->error,
    };
    return bm_options_write(ret_info, &info, sizeof(info));
}

/* --- transactions ---------------------------------------------------------------------------- */

void bm_txn_begin(struct bm_txn *txn, beam_store *store)
{
    *txn = (struct bm_txn){.store = store};
    bm_changes_init(&txn->changes, &store->account);
}

void bm_txn_drop(struct bm_txn *txn)
{
    bm_changes_clear(&txn->changes);
}

/* What is common to both kinds of changes. */
static int look(struct bm_txn *txn, beam_str key)
{
    beam_store *store = txn->store;
    if (key.len == 0 || key.len > BEAM_STORE_KEY_LEN_MAX)
        return -ENAMETOOLONG;
    const struct bm_tree_entry *entry = bm_tree_find(&store->state.tree, key.ptr, key.len);
    if (!txn->conditional)
        return 0;
    if (txn->seen == 0 && (!entry || bm_state_is_del(entry)))
        return 0;
    uint64_t rev = entry ? entry->rev : bm_gone_find(&store->gone, key);
    if (txn->seen > 0 && rev <= txn->seen)
        return 0;
    txn->conflict = key;
    txn->conflict_rev = rev;
    return -ESTALE;
}

static int charge(struct bm_txn *txn, beam_str key, size_t value_len)
{
    txn->len += bm_entry_len(value_len, key.len);
    return txn->len > txn->store->options.txn_len_max ? -EMSGSIZE : 0;
}

int bm_txn_set(struct bm_txn *txn, beam_str key, uint8_t type, const void *value, size_t len)
{
    int r = look(txn, key);
    if (r == 0)
        r = charge(txn, key, len);
    return r < 0 ? r : bm_changes_add(&txn->changes, txn->store->rev + 1, key, type, value, len);
}

int bm_txn_delete(struct bm_txn *txn, beam_str key)
{
    int r = look(txn, key);
    if (r == 0)
        r = charge(txn, key, 0);
    /* Whether it is there is looked at later: a key that comes twice is an error anyway. */
    return r < 0 ? r
                 : bm_changes_add(&txn->changes, txn->store->rev + 1, key, BM_ENTRY_DEL, NULL, 0);
}

/* What it counts for while it is pending. One that changes nothing does as well: who deletes what is not
 * there, in events that nobody hears of, must come to an end. */
static size_t commit_len(const struct bm_commit *commit)
{
    return sizeof(*commit) + commit->delta.len;
}

static void commit_free(struct bm_commit *commit)
{
    struct bm_account *account = &commit->store->account;
    bm_assert(bm_list_empty(&commit->readers) && !commit->changes.applied);
    bm_changes_clear(&commit->changes);
    bm_free(account, commit->delta.document, commit->delta.len);
    bm_free(account, commit, sizeof(*commit));
}

/* All the memory it needs. */
static int commit_new(struct bm_txn *txn, beam_store_fn *fn, void *arg,
                      struct bm_commit **ret_commit)
{
    beam_store *store = txn->store;
    struct bm_commit *commit = bm_alloc_zero(&store->account, sizeof(*commit));
    if (!commit)
        return -ENOMEM;
    commit->store = store;
    commit->fn = fn;
    commit->arg = arg;
    commit->rev = store->rev;
    bm_list_init(&commit->readers);
    bm_changes_init(&commit->changes, &store->account);
    if (txn->changes.count > 0) {
        commit->delta.len = bm_feed_delta_len(&txn->changes);
        commit->delta.document = bm_alloc(&store->account, commit->delta.len);
        if (!commit->delta.document ||
            bm_history_reserve(&store->history, store->index.count + 1) < 0 ||
            bm_commit_index_reserve(&store->index) < 0) {
            commit_free(commit);
            return -ENOMEM;
        }
        bm_feed_delta(commit->delta.document, &txn->changes, ++commit->rev);
    }
    commit->changes = txn->changes;
    bm_changes_init(&txn->changes, &store->account);
    *ret_commit = commit;
    return 0;
}

static int commit_apply(struct bm_commit *commit)
{
    beam_store *store = commit->store;
    if (commit->changes.count == 0)
        return 0;
    int r = bm_changes_apply(&commit->changes, &store->state);
    if (r == 0 && store->log)
        r = bm_store_log_append(commit);
    if (r < 0) {
        if (commit->changes.applied)
            bm_changes_undo(&commit->changes, &store->state, store->told);
        return r;
    }
    store->rev = commit->rev;
    bm_commit_index_push(&store->index, commit);
    return 0;
}

int bm_txn_commit(struct bm_txn *txn, beam_store_fn *fn, void *arg)
{
    beam_store *store = txn->store;
    struct bm_commit *commit = NULL;
    int r = bm_changes_sort(&txn->changes);
    if (r == -EEXIST)
        r = -EINVAL;
    if (r == 0 && !bm_store_is_open(store))
        r = -ESHUTDOWN;
    if (r == 0 && store->error)
        r = -EROFS;
    if (r == 0 && store->pending_len > store->options.pending_len_max)
        r = -ENOBUFS;
    if (r == 0) {
        bm_changes_drop_absent(&txn->changes, &store->state);
        r = commit_new(txn, fn, arg, &commit);
    }
    bm_txn_drop(txn);
    if (r < 0)
        return r;
    r = commit_apply(commit);
    if (r < 0) {
        commit_free(commit);
        return r;
    }
    bool first = bm_list_empty(&store->pending);
    bm_list_push_back(&store->pending, &commit->node);
    store->pending_len += commit_len(commit);
    if (!store->log || (commit->changes.count == 0 && first))
        bm_task_queue(store->core->reactor, &store->settle_task);
    return 0;
}

void bm_commit_finish(struct bm_commit *commit, int error)
{
    uint64_t rev = commit->rev;
    beam_store_fn *fn = commit->fn;
    void *arg = commit->arg;
    bm_list_unlink(&commit->node);
    bm_store_readers_told(commit, error < 0);
    commit_free(commit);
    if (fn)
        fn(error, rev, arg);
}

static void settle_one(beam_store *store, struct bm_commit *commit)
{
    store->pending_len -= commit_len(commit);
    if (commit->delta.document) {
        for (uint32_t i = 0; i < commit->changes.count; i++) {
            const struct bm_tree_entry *entry = commit->changes.items[i].entry;
            if (bm_state_is_del(entry))
                bm_gone_add(&store->gone, bm_state_key(entry), commit->rev);
        }
        bm_commit_index_pop(&store->index);
        int64_t keys, len;
        bm_changes_growth(&commit->changes, &keys, &len);
        store->told_keys += (uint64_t)keys;
        store->told_len += (uint64_t)len;
        store->told = commit->rev;
        bm_changes_done(&commit->changes, &store->state);
        bm_history_push(&store->history, commit->delta);
        commit->delta = (struct bm_delta){NULL, 0};
    }
    bm_commit_finish(commit, 0);
}

void bm_store_settle(beam_store *store, uint64_t rev)
{
    struct bm_list *node;
    while ((node = bm_list_front(&store->pending))) {
        struct bm_commit *commit = bm_list_entry(node, struct bm_commit, node);
        if (commit->rev > rev)
            break;
        settle_one(store, commit);
    }
    if (store->buffer.cap > BUFFER_KEPT) {
        beam_buffer_deinit(&store->buffer);
        begin_buffer(store);
    }
    bm_watchers_wake(store);
}

/* Those without a log, and those that had none before them to wait for. */
static void on_settle(struct bm_task *task)
{
    beam_store *store = bm_list_entry(task, beam_store, settle_task);
    bm_store_settle(store, store->log ? store->told : store->rev);
    if (store->life == BM_STORE_CLOSING && !store->log && bm_list_empty(&store->pending))
        bm_store_closed(store, store->error);
}

void bm_store_fail(beam_store *store, int error)
{
    if (store->error)
        return;
    store->error = error;
    if (error != -ECANCELED)
        bm_core_log(store->core, BEAM_LOG_ERROR, "a store can only be read from now on: %s",
                    beam_strerror(error));
    for (struct bm_list *n = store->pending.prev; n != &store->pending; n = n->prev) {
        struct bm_commit *commit = bm_list_entry(n, struct bm_commit, node);
        commit->undone = true;
        if (commit->changes.applied)
            bm_changes_undo(&commit->changes, &store->state, store->told);
    }
    store->rev = store->told;
    bm_commit_index_clear(&store->index);
    store->pending_len = 0;
    bm_watchers_begin_anew(store);
    /* The log still holds the others, and tells each. */
    struct bm_list *node = store->pending.next;
    while (node != &store->pending) {
        struct bm_commit *commit = bm_list_entry(node, struct bm_commit, node);
        node = node->next;
        if (!store->log || !commit->delta.document)
            bm_commit_finish(commit, error);
    }
}

/* --- transactions of the application --------------------------------------------------------- */

int bm_store_check_value(const beam_kv_value *value)
{
    const uint8_t *bad;
    switch (value->type) {
    case BEAM_KV_STR:
        return bm_utf8_valid(value->str.ptr, value->str.len) ? 0 : -BEAM_EKV_UTF8;
    case BEAM_KV_MAP:
    case BEAM_KV_LIST: /* what it holds stands at depth 4 of a delta */
        return bm_entries_check(value->bytes.ptr, value->bytes.len, value->type == BEAM_KV_MAP, 4,
                                &bad);
    default:
        return 0;
    }
}

/* Any value of the application's, in its one encoding. */
static int set_value(struct bm_txn *txn, beam_str key, const beam_kv_value *value)
{
    uint8_t room[64];
    beam_kv_writer w;
    const void *document;
    size_t len;
    int r = bm_utf8_valid(key.ptr, key.len) ? bm_store_check_value(value) : -BEAM_EKV_UTF8;
    if (r < 0)
        return r;
    if (value->type >= BEAM_KV_STR)
        return bm_txn_set(txn, key, (uint8_t)value->type, value->bytes.ptr, value->bytes.len);
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_put(&w, (beam_str){NULL, 0}, value);
    r = beam_kv_writer_finish(&w, &document, &len);
    if (r < 0)
        return r;
    struct bm_entry e = bm_entry_at(document);
    return bm_txn_set(txn, key, e.type, e.value, e.value_len);
}

static int add_set(struct bm_txn *txn, const beam_kv_value *set)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    const uint8_t *bad;
    int r = set->type != BEAM_KV_MAP
                ? -EINVAL
                : bm_entries_check(set->bytes.ptr, set->bytes.len, true, 3, &bad);
    beam_kv_iter_init(&iter, set);
    while (r == 0 && beam_kv_iter_next(&iter, &key, &value) > 0)
        r = set_value(txn, key, &value);
    return r;
}

static int add_remove(struct bm_txn *txn, const beam_kv_value *remove)
{
    beam_kv_iter iter;
    beam_kv_value key;
    int r = remove->type != BEAM_KV_LIST ? -EINVAL : 0;
    beam_kv_iter_init(&iter, remove);
    while (r == 0 && beam_kv_iter_next(&iter, NULL, &key) > 0)
        r = key.type == BEAM_KV_STR ? bm_txn_delete(txn, key.str) : -EINVAL;
    return r;
}

int beam_store_commit(beam_store *store, const struct beam_store_txn *wanted, beam_store_fn *fn,
                      void *arg)
{
    struct beam_store_txn options;
    struct bm_txn txn;
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    int r = bm_options_read(&options, sizeof(options), wanted);
    if (r < 0)
        return r;
    bm_txn_begin(&txn, store);
    txn.conditional = options.if_unchanged;
    txn.seen = options.seen;
    if (options.set)
        r = add_set(&txn, options.set);
    if (r == 0 && options.remove)
        r = add_remove(&txn, options.remove);
    if (r < 0) {
        bm_txn_drop(&txn);
        return r;
    }
    return bm_txn_commit(&txn, fn, arg);
}

int beam_store_put(beam_store *store, beam_str key, const beam_kv_value *value, beam_store_fn *fn,
                   void *arg)
{
    struct bm_txn txn;
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    bm_txn_begin(&txn, store);
    int r = set_value(&txn, key, value);
    if (r < 0) {
        bm_txn_drop(&txn);
        return r;
    }
    return bm_txn_commit(&txn, fn, arg);
}

int beam_store_delete(beam_store *store, beam_str key, beam_store_fn *fn, void *arg)
{
    struct bm_txn txn;
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    bm_txn_begin(&txn, store);
    int r = bm_txn_delete(&txn, key);
    if (r < 0) {
        bm_txn_drop(&txn);
        return r;
    }
    return bm_txn_commit(&txn, fn, arg);
}
