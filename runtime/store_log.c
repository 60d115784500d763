/* The file of a store: loading it, appending to it, rewriting it. kv/log.h does all three; here is what
 * they mean for the state.
 *
 * A commit's entries go to the log in the order of their keys, deletions among them, which is how its
 * changes stand. The log tells each commit once its promise holds, in their order, or that it has
 * failed, which is final (bm_store_fail). */
#include "runtime/store.h"

#include <errno.h>

#include "base/assert.h"
#include "runtime/core.h"
#include "runtime/feed.h"

#define PART_KEYS_MAX 65536u    /* ours: keys that are looked at for a part, should most be gone */
#define COMPACT_SAVED_MIN 4096u /* ours: a block; less frees nothing on most disks */
#define COMPACT_SAVED_PART 4u /* ours: a quarter of what is kept, as if compact_percent were 125 */

/* --- loading --------------------------------------------------------------------------------- */

/* A part of a state: keys ascend. */
static int load_snap(beam_store *store, const struct bm_record *record)
{
    const uint8_t *pos = record->body, *end = pos + record->body_len;
    while (pos < end) {
        struct bm_tree_entry *entry = bm_tree_entry_copy(&store->account, record->rev, pos);
        if (!entry || bm_state_load(&store->state, entry) < 0)
            return -ENOMEM;
        pos += bm_entry_at(pos).len;
    }
    return 0;
}

/* A transaction, for the history too. */
static int load_delta(beam_store *store, const struct bm_record *record)
{
    struct bm_changes changes;
    const uint8_t *pos = record->body, *end = pos + record->body_len;
    int r = 0;
    bm_changes_init(&changes, &store->account);
    for (; r == 0 && pos < end; pos += bm_entry_at(pos).len)
        r = bm_changes_copy(&changes, record->rev, pos);
    struct bm_delta delta = {.len = bm_feed_delta_len(&changes)};
    if (r == 0)
        r = bm_history_reserve(&store->history, 1);
    if (r == 0 && !(delta.document = bm_alloc(&store->account, delta.len)))
        r = -ENOMEM;
    if (r == 0) {
        bm_feed_delta(delta.document, &changes, record->rev);
        r = bm_changes_apply(&changes, &store->state);
    }
    if (r < 0) {
        bm_free(&store->account, delta.document, delta.len);
        bm_changes_clear(&changes);
        return r;
    }
    bm_changes_done(&changes, &store->state);
    bm_history_push(&store->history, delta);
    return 0;
}

static int on_record(void *arg, const struct bm_record *record)
{
    beam_store *store = arg;
    switch (record->kind) {
    case BM_RECORD_SNAP:
        return load_snap(store, record);
    case BM_RECORD_DELTA:
        /* Those between the parts of a snapshot may come before the first that is kept. */
        if (record->rev != store->history.first + store->history.count) {
            bm_history_clear(&store->history);
            store->history.first = record->rev;
        }
        return load_delta(store, record);
    default:
        return 0;
    }
}

static void on_failed(void *arg, int error)
{
    bm_store_fail(arg, error);
}

int bm_store_log_open(beam_store *store)
{
    static const enum bm_log_policy policies[] = {
        [BEAM_STORE_SYNC_EACH] = BM_LOG_EACH,
        [BEAM_STORE_SYNC_BATCH] = BM_LOG_BATCH,
        [BEAM_STORE_SYNC_NONE] = BM_LOG_NONE,
    };
    struct bm_log_found found;
    struct bm_log_options options = {
        .path = store->options.path,
        .policy = policies[store->options.sync],
        .interval_ns = store->options.batch_ns,
        .queue_len_max = store->options.pending_len_max,
        .on_failed = on_failed,
        .arg = store,
    };
    int r = bm_log_open(store->core->reactor, &options, on_record, store, &store->log, &found);
    if (found.message[0])
        bm_core_log(store->core, r < 0 ? BEAM_LOG_ERROR : BEAM_LOG_WARNING, "%s", found.message);
    if (r < 0) {
        store->log = NULL;
        return r;
    }
    store->epoch = found.epoch;
    store->rev = found.rev;
    if (store->history.first + store->history.count != found.rev + 1) {
        /* There are no deltas: nobody can go on from anything but what there is now. */
        bm_history_clear(&store->history);
        store->history.first = found.rev + 1;
    }
    return 0;
}

/* --- appending ------------------------------------------------------------------------------- */

static void on_promise(struct bm_log_wait *wait, int res)
{
    struct bm_commit *commit = bm_list_entry(wait, struct bm_commit, wait);
    beam_store *store = commit->store;
    if (res < 0)
        bm_store_fail(store, res);
    if (commit->undone) {
        bm_commit_finish(commit, store->error);
        return;
    }
    bm_store_settle(store, commit->rev);
    bm_store_log_look(store);
}

int bm_store_log_append(struct bm_commit *commit)
{
    beam_store *store = commit->store;
    uint64_t rev;
    unsigned char *to;
    beam_buffer *out = &store->buffer;
    beam_buffer_clear(out);
    for (uint32_t i = 0; i < commit->changes.count; i++) {
        const struct bm_tree_entry *entry = commit->changes.items[i].entry;
        beam_buffer_add(out, entry->bytes, bm_state_entry_len(entry));
    }
    int r = beam_buffer_reserve(out, 0, &to); /* the error that stuck, if one did */
    if (r < 0)
        return -ENOMEM;
    commit->wait.fn = on_promise;
    r = bm_log_append(store->log, out->ptr, out->len, &commit->wait, &rev);
    bm_assert(r < 0 || rev == commit->rev);
    return r == -EAGAIN ? -ENOBUFS : r;
}

uint64_t bm_store_log_len(const beam_store *store)
{
    return store->log ? bm_log_state(store->log).file_len : 0;
}

/* --- rewriting ------------------------------------------------------------------------------- */

static int next_part(struct bm_log_source *source, size_t len_max, const void **ret_entries,
                     size_t *ret_len, uint64_t *ret_rev)
{
    beam_store *store = bm_list_entry(source, beam_store, source);
    beam_buffer *out = &store->compact_part;
    struct bm_tree_iter iter = bm_tree_cursor_resume(&store->state.tree, &store->compact_at);
    const struct bm_tree_entry *entry, *last = NULL;
    unsigned keys = 0;
    beam_buffer_clear(out);
    *ret_rev = store->rev;
    for (; keys < PART_KEYS_MAX && (entry = bm_tree_next(&iter)); keys++) {
        uint64_t len = bm_state_entry_len(entry);
        if (!bm_state_is_del(entry)) {
            if (out->len > 0 && out->len + len > len_max)
                break;
            if (beam_buffer_add(out, entry->bytes, len) < 0)
                return -ENOMEM;
        }
        last = entry;
    }
    if (last && bm_tree_cursor_save(&store->compact_at, &store->account, last) < 0)
        return -ENOMEM;
    *ret_entries = out->ptr;
    *ret_len = out->len;
    return out->len > 0 || keys == PART_KEYS_MAX;
}

static void on_compacted(struct bm_log_wait *wait, int res)
{
    beam_store *store = bm_list_entry(wait, beam_store, compacted);
    beam_store_fn *fn = store->on_compacted;
    store->compacting = false;
    store->on_compacted = NULL;
    bm_tree_cursor_reset(&store->compact_at, &store->account);
    beam_buffer_deinit(&store->compact_part);
    if (res == 0)
        store->compactions++;
    if (res < 0 && res != -ECANCELED)
        bm_core_log(store->core, BEAM_LOG_WARNING, "the file of a store was not rewritten: %s",
                    beam_strerror(res));
    /* One that found no room is not tried again at once. */
    store->compact_from = res < 0 ? bm_store_log_len(store) * 2 : 0;
    if (fn)
        fn(res, store->told, store->on_compacted_arg);
    bm_store_log_look(store); /* much may have come meanwhile */
}

int beam_store_compact(beam_store *store, beam_store_fn *fn, void *arg)
{
    if (bm_store_forked(store))
        return -BEAM_EFORKED;
    if (!bm_store_is_open(store))
        return -ESHUTDOWN;
    if (!store->log)
        return -ENOTSUP;
    if (store->error)
        return -EROFS;
    if (store->compacting)
        return -EALREADY;
    store->source.next = next_part;
    store->compacted.fn = on_compacted;
    bm_tree_cursor_reset(&store->compact_at, &store->account);
    beam_buffer_init(&store->compact_part, BM_STORE_BUFFER_MAX);
    store->compact_part.account = &store->account;
    int r = bm_log_compact(store->log, &store->source, &store->compacted);
    if (r < 0)
        return r;
    store->compacting = true;
    store->compact_before = bm_store_log_len(store);
    store->on_compacted = fn;
    store->on_compacted_arg = arg;
    return 0;
}

/* What a rewrite leaves is what is in the store and little more. It has to save a part of that which is
 * worth the writing, whatever the options say; so all that is rewritten is at most so many times what was
 * appended, and one that has just taken place is no reason for another. */
static bool is_worth_while(const beam_store *store, uint64_t len)
{
    uint64_t kept = store->state.tree.data_len;
    uint64_t saved = len > kept ? len - kept : 0;
    return saved >= COMPACT_SAVED_MIN && saved >= kept / COMPACT_SAVED_PART;
}

void bm_store_log_look(beam_store *store)
{
    uint64_t len = bm_store_log_len(store);
    if (!bm_store_is_open(store) || store->compacting || store->error ||
        len < store->options.compact_len_min || len < store->compact_from ||
        len / store->options.compact_percent < store->state.tree.data_len / 100 ||
        !is_worth_while(store, len))
        return;
    if (beam_store_compact(store, NULL, NULL) < 0)
        store->compact_from = len * 2;
}

/* --- closing --------------------------------------------------------------------------------- */

static void on_closed(struct bm_log_wait *wait, int res)
{
    beam_store *store = bm_list_entry(wait, beam_store, closed);
    if (!store->log) /* told by bm_store_log_free(), whose caller ends the store */
        return;
    store->log = NULL;
    bm_store_settle(store, store->told); /* those that change nothing, if there are any */
    bm_store_closed(store, res);
}

void bm_store_log_close(beam_store *store)
{
    store->closed.fn = on_closed;
    bm_log_close(store->log, &store->closed);
}

void bm_store_log_free(beam_store *store)
{
    struct bm_log *log = store->log;
    store->log = NULL; /* whoever is told on the way finds none */
    bm_log_free(log);
}
