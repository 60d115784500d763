/* The services of a store (docs/spec/kv.md, Y4 to Y8): what is asked is read and checked here, done by
 * store.c and store_watch.c, and answered here.
 *
 * An answer that tells of a change which is pending, a refusal that names one as well, waits for its
 * commit, as a reader of it, and is then what it was when it was asked for; if the change is undone it
 * ends with UNAVAILABLE, and may be asked again. It is made when its time has come, out of the entries
 * that it tells of: what is not of a later change stays until the commit is over, and so a thousand who
 * wait for one large value hold nothing but its address.
 *
 * What waits counts in its session, and has the limit of waiting answers there (request.c).
 *
 * Every request is kept as soon as it is looked at, for events share theirs: ending one that was not kept would
 * be the end of another that was, and still waits.
 *
 * The handlers run on the reactor of the store, with the store as their argument, also long after it
 * was closed: requests may have been on their way. */
#include "runtime/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/feed.h"
#include "runtime/runtime.h"
#include "runtime/service.h"

#define SCAN_LIMIT_DEFAULT 1000u
#define SCAN_LEN_MAX (48u << 10) /* Y5: with what is around it, one frame */
#define ENTRY_LEN_MIN 16u        /* with a key of one byte, and no value; docs/spec/kv.md K1 */
#define SCAN_ENTRIES_MAX (SCAN_LEN_MAX / ENTRY_LEN_MIN)
#define SCAN_KEYS_MAX 4096u /* ours: keys that are looked at for an answer, should most be gone */

/* What was asked. */
struct question {
    beam_store *store;
    beam_request *request;
    beam_kv_value map;
};

enum answer_kind {
    ANSWER_VALUE,    /* of one entry */
    ANSWER_ENTRIES,  /* some, and whether there are more */
    ANSWER_ABSENT,   /* there is no such key */
    ANSWER_CONFLICT, /* a key has changed since it was seen: which, and when */
};

/* What is to be told, of the revision `told` at that time. Entries and key are borrowed; the key is the one
 * that has changed, or with entries the one behind which to go on, if it need not be the last of them. */
struct answer {
    enum answer_kind kind;
    bool more;
    uint32_t count;
    const struct bm_tree_entry *const *entries;
    beam_str key;
    uint64_t rev;
};

/* One that waits for a commit. */
struct reader {
    struct bm_list node; /* bm_commit.readers */
    beam_store *store;
    beam_request *request;
    struct answer answer;
    size_t len;                            /* of this block */
    const struct bm_tree_entry *entries[]; /* of the answer, and behind them the bytes of its key */
};

static beam_str text_of(const char *text)
{
    return (beam_str){text, strlen(text)};
}

/* --- answers --------------------------------------------------------------------------------- */

static void begin_answer(beam_store *store, beam_kv_writer *w)
{
    char epoch[BM_EPOCH_TEXT_LEN + 1];
    bm_epoch_write(epoch, store->epoch);
    beam_kv_writer_init_buffer(w, &store->buffer);
    beam_kv_begin_map(w, NULL);
    beam_kv_put_str(w, "epoch", epoch);
}

/* NULL without memory. */
static beam_message *end_answer(beam_kv_writer *w)
{
    const void *document;
    size_t len;
    beam_kv_end(w);
    if (beam_kv_writer_finish(w, &document, &len) < 0)
        return NULL;
    beam_message *answer = beam_message_new();
    beam_message_set_body(answer, document, len);
    return beam_message_error(answer) < 0 ? beam_message_free(answer) : answer;
}

static void reply(beam_request *request, beam_message *answer)
{
    if (answer)
        beam_reply(request, &answer);
    else
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory for the answer");
}

static void fail_invalid(const struct question *q, const char *what)
{
    beam_fail(q->request, BEAM_INVALID_ARGUMENT, "%s", what);
}

/* Details of up to three keys, in a writer over `room`. */
#define DETAILS_ROOM (BEAM_STORE_KEY_LEN_MAX + 256)

static void fail_with(beam_request *request, enum beam_code code, beam_kv_writer *w,
                      const char *text)
{
    const void *document = NULL;
    size_t len = 0;
    beam_kv_end(w);
    (void)beam_kv_writer_finish(w, &document, &len);
    beam_fail_with(request, code, document, len, "%s", text);
}

static void fail_absent(beam_store *store, beam_request *request)
{
    beam_kv_writer w;
    uint8_t room[DETAILS_ROOM];
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_uint(&w, "now", store->told);
    fail_with(request, BEAM_NOT_FOUND, &w, "no such key");
}

static void fail_conflict(beam_store *store, beam_request *request, const struct answer *answer)
{
    beam_kv_writer w;
    uint8_t room[DETAILS_ROOM];
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_strn(&w, "key", answer->key.ptr, answer->key.len);
    beam_kv_put_uint(&w, "now", store->told);
    beam_kv_put_uint(&w, "rev", answer->rev);
    fail_with(request, BEAM_ABORTED, &w, "a key has changed since it was seen");
}

static void fail_error(beam_request *request, enum beam_code code, int error, const char *format)
{
    beam_kv_writer w;
    uint8_t room[DETAILS_ROOM];
    char text[256];
    snprintf(text, sizeof(text), "%s: %s", format, beam_strerror(error));
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "error", beam_error_name(error));
    fail_with(request, code, &w, text);
}

/* --- questions ------------------------------------------------------------------------------- */

/* A map or list without entries, which are somewhere all the same. */
static beam_kv_value nothing(beam_kv_type type)
{
    return (beam_kv_value){.type = type, .bytes = {"", 0}};
}

/* false: it has been answered. An empty body stands for an empty map. */
static bool ask(struct question *q, beam_store *store, beam_request *request,
                const beam_message *message)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    *q = (struct question){.store = store, .request = request, .map = nothing(BEAM_KV_MAP)};
    beam_request_keep(request); /* see above */
    if (!bm_store_is_open(store)) {
        beam_fail(request, BEAM_UNAVAILABLE, "the store has been closed");
        return false;
    }
    if (len == 0)
        return true;
    if (beam_message_codec(message) != BEAM_CODEC_KV || beam_kv_check(body, len, NULL) < 0 ||
        beam_kv_root(body, len, &q->map) < 0 || q->map.type != BEAM_KV_MAP) {
        fail_invalid(q, "the body is no kv map");
        return false;
    }
    return true;
}

/* The same where there is nothing but the answer: it is not made for who sends an event. */
static bool ask_to_hear(struct question *q, beam_store *store, beam_request *request,
                        const beam_message *message)
{
    if (!ask(q, store, request, message))
        return false;
    if (!beam_request_is_event(request))
        return true;
    fail_invalid(q, "who sends an event hears nothing");
    return false;
}

/* An argument that may be missing: ret is left alone then. */
static bool ask_str(const struct question *q, const char *key, beam_str *ret)
{
    int r = beam_kv_get_str(&q->map, key, ret);
    return r == 0 || r == -ENOENT;
}

/* *ret_given may be NULL. */
static bool ask_uint(const struct question *q, const char *key, uint64_t *ret, bool *ret_given)
{
    int r = beam_kv_get_uint(&q->map, key, ret);
    if (ret_given)
        *ret_given = r == 0;
    return r == 0 || r == -ENOENT;
}

/* Of the key that is asked for; false: it has been answered. */
static bool ask_key(const struct question *q, beam_str *ret_key)
{
    if (beam_kv_get_str(&q->map, "key", ret_key) < 0 || ret_key->len == 0 ||
        ret_key->len > BEAM_STORE_KEY_LEN_MAX) {
        fail_invalid(q, "key is a string of 1 to 1024 bytes");
        return false;
    }
    return true;
}

/* --- reading --------------------------------------------------------------------------------- */

static beam_message *value_message(beam_store *store, const struct bm_tree_entry *entry)
{
    beam_kv_writer w;
    beam_kv_value value = bm_state_value(entry);
    begin_answer(store, &w);
    beam_kv_put_uint(&w, "now", store->told);
    beam_kv_put_uint(&w, "rev", entry->rev);
    beam_kv_put(&w, text_of("value"), &value);
    return end_answer(&w);
}

static beam_message *entries_message(beam_store *store, const struct answer *answer)
{
    beam_kv_writer w;
    begin_answer(store, &w);
    if (answer->key.len > 0)
        beam_kv_put_strn(&w, "after", answer->key.ptr, answer->key.len);
    beam_kv_begin_map(&w, "entries");
    for (uint32_t i = 0; i < answer->count; i++) {
        beam_kv_value value = bm_state_value(answer->entries[i]);
        beam_kv_put(&w, bm_state_key(answer->entries[i]), &value);
    }
    beam_kv_end(&w);
    beam_kv_put_bool(&w, "more", answer->more);
    beam_kv_put_uint(&w, "now", store->told);
    return end_answer(&w);
}

/* All that it tells of has been told. */
static void tell(beam_store *store, beam_request *request, const struct answer *answer)
{
    switch (answer->kind) {
    case ANSWER_VALUE:
        reply(request, value_message(store, answer->entries[0]));
        break;
    case ANSWER_ENTRIES:
        reply(request, entries_message(store, answer));
        break;
    case ANSWER_ABSENT:
        fail_absent(store, request);
        break;
    case ANSWER_CONFLICT:
        fail_conflict(store, request, answer);
        break;
    }
}

static void reader_free(struct reader *reader)
{
    bm_list_unlink(&reader->node);
    bm_free(&reader->store->account, reader, reader->len);
}

void bm_store_readers_told(struct bm_commit *commit, bool undone)
{
    struct bm_list *node;
    while ((node = bm_list_pop_front(&commit->readers))) {
        struct reader *reader = bm_list_entry(node, struct reader, node);
        bm_request_wait_over(reader->request, reader->len);
        if (undone)
            beam_fail(reader->request, BEAM_UNAVAILABLE,
                      "the change that it would tell of was undone");
        else
            tell(reader->store, reader->request, &reader->answer);
        reader_free(reader);
    }
}

static void on_reader_cancel(beam_request *request, void *arg)
{
    struct reader *reader = arg;
    bm_request_wait_over(request, reader->len);
    reader_free(reader);
    beam_fail(request, BEAM_CANCELLED, "nobody waits for the answer any more");
}

/* An answer of this length; 0, or why it may not wait. */
static int reader_new(beam_store *store, beam_request *request, const struct answer *answer,
                      struct reader **ret_reader)
{
    size_t entries_len = answer->count * sizeof(answer->entries[0]);
    size_t len = sizeof(struct reader) + entries_len + answer->key.len;
    int r = bm_request_wait(request, len);
    if (r < 0)
        return r;
    struct reader *reader = bm_alloc(&store->account, len);
    if (!reader) {
        bm_request_wait_over(request, len);
        return -ENOMEM;
    }
    uint8_t *key = (uint8_t *)&reader->entries[answer->count];
    *reader = (struct reader){.store = store, .request = request, .answer = *answer, .len = len};
    if (entries_len > 0)
        memcpy(reader->entries, answer->entries, entries_len);
    if (answer->key.len > 0)
        memcpy(key, answer->key.ptr, answer->key.len);
    reader->answer.entries = reader->entries;
    reader->answer.key.ptr = (const char *)key;
    *ret_reader = reader;
    return 0;
}

/* Answers once what it tells of, up to rev, has been told. */
static void answer_at(beam_store *store, beam_request *request, uint64_t rev,
                      const struct answer *answer)
{
    struct bm_commit *commit = bm_store_pending(store, rev);
    struct reader *reader;
    if (!commit) {
        tell(store, request, answer);
        return;
    }
    if (beam_request_is_event(request)) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, NULL); /* it ends: nobody hears */
        return;
    }
    int r = reader_new(store, request, answer, &reader);
    if (r < 0) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED,
                  r == -ENOBUFS ? "too many answers wait for the disk"
                                : "no memory for the answer");
        return;
    }
    beam_request_on_cancel(request, on_reader_cancel, reader);
    bm_list_push_back(&commit->readers, &reader->node);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void on_get(beam_request *request, const beam_message *message, void *arg)
{
    beam_store *store = arg;
    struct question q;
    struct answer answer = {.kind = ANSWER_ABSENT};
    beam_str key;
    if (!ask_to_hear(&q, store, request, message) || !ask_key(&q, &key))
        return;
    const struct bm_tree_entry *entry = bm_tree_find(&store->state.tree, key.ptr, key.len);
    if (entry && !bm_state_is_del(entry))
        answer = (struct answer){.kind = ANSWER_VALUE, .count = 1, .entries = &entry};
    answer_at(store, request, entry ? entry->rev : 0, &answer);
}

/* What the answer tells, in `found`, and up to which revision. It looks at so many keys and no more. */
static uint64_t scan(const beam_store *store, beam_str prefix, beam_str after, uint64_t limit,
                     const struct bm_tree_entry *found[SCAN_ENTRIES_MAX], struct answer *ret_answer)
{
    struct bm_tree_iter iter = bm_tree_seek(&store->state.tree, prefix.ptr, prefix.len, false);
    if (after.ptr && bm_key_compare(after.ptr, after.len, prefix.ptr, prefix.len) >= 0)
        iter = bm_tree_seek(&store->state.tree, after.ptr, after.len, true);
    const struct bm_tree_entry *entry;
    beam_str last = {NULL, 0};
    uint64_t len = 0, rev = 0;
    *ret_answer = (struct answer){.kind = ANSWER_ENTRIES, .entries = found};
    for (unsigned keys = 0; !ret_answer->more && (entry = bm_tree_next(&iter)); keys++) {
        beam_str key = bm_state_key(entry);
        if (key.len < prefix.len || memcmp(key.ptr, prefix.ptr, prefix.len) != 0)
            break;
        if (keys == SCAN_KEYS_MAX) {
            ret_answer->more = true;
            ret_answer->key = last;
            break;
        }
        last = key;
        /* What is deleted and pending is passed over, and so is told of as well; that there are more
         * tells of the one which is. */
        rev = later(rev, entry->rev);
        if (bm_state_is_del(entry))
            continue;
        len += bm_state_entry_len(entry);
        ret_answer->more =
            ret_answer->count == limit || (ret_answer->count > 0 && len > SCAN_LEN_MAX);
        if (!ret_answer->more)
            found[ret_answer->count++] = entry;
    }
    return rev;
}

static void on_scan(beam_request *request, const beam_message *message, void *arg)
{
    beam_store *store = arg;
    const struct bm_tree_entry *found[SCAN_ENTRIES_MAX];
    struct question q;
    struct answer answer;
    beam_str prefix = {"", 0}, after = {NULL, 0};
    uint64_t limit = SCAN_LIMIT_DEFAULT;
    if (!ask_to_hear(&q, store, request, message))
        return;
    if (!ask_str(&q, "prefix", &prefix) || !ask_str(&q, "after", &after) ||
        !ask_uint(&q, "limit", &limit, NULL) || limit == 0) {
        fail_invalid(&q, "prefix and after are strings, limit is a number from 1");
        return;
    }
    uint64_t rev = scan(store, prefix, after, limit, found, &answer);
    answer_at(store, request, rev, &answer);
}

static void on_info(beam_request *request, const beam_message *message, void *arg)
{
    beam_store *store = arg;
    struct question q;
    beam_kv_writer w;
    if (!ask_to_hear(&q, store, request, message))
        return;
    /* As of `now`: the numbers that the state has are those of what is pending too. */
    begin_answer(store, &w);
    beam_kv_put_uint(&w, "bytes", store->told_len);
    beam_kv_put_uint(&w, "horizon", bm_history_horizon(&store->history));
    beam_kv_put_uint(&w, "keys", store->told_keys);
    beam_kv_put_uint(&w, "now", store->told);
    beam_kv_put_uint(&w, "watchers", store->watcher_count);
    if (store->error)
        beam_kv_put_str(&w, "error", beam_error_name(store->error));
    reply(request, end_answer(&w));
}

/* --- changing -------------------------------------------------------------------------------- */

/* The argument of a commit of ours is its request, whose service has the store. */
static void on_written(int error, uint64_t rev, void *arg)
{
    beam_request *request = arg;
    beam_store *store = request->channel.service->arg;
    beam_kv_writer w;
    if (error < 0) {
        fail_error(request, BEAM_UNKNOWN, error, "the disk failed, and may have the change");
        return;
    }
    begin_answer(store, &w);
    beam_kv_put_uint(&w, "rev", rev);
    reply(request, end_answer(&w));
}

static void fail_txn(const struct question *q, const struct bm_txn *txn, int error)
{
    switch (error) {
    case -ESTALE:
        answer_at(q->store, q->request, txn->conflict_rev,
                  &(struct answer){
                      .kind = ANSWER_CONFLICT, .key = txn->conflict, .rev = txn->conflict_rev});
        return;
    case -EINVAL:
        fail_invalid(q, "a key is in it twice");
        return;
    case -ENAMETOOLONG:
        fail_invalid(q, "keys have 1 to 1024 bytes");
        return;
    case -EMSGSIZE:
        fail_invalid(q, "the transaction is longer than the store takes");
        return;
    case -BEAM_EKV_DEPTH:
        fail_invalid(q, "a value is nested deeper than 30");
        return;
    case -EROFS:
        fail_error(q->request, BEAM_FAILED_PRECONDITION, q->store->error,
                   "the store can only be read, because of its disk");
        return;
    case -ESHUTDOWN:
        beam_fail(q->request, BEAM_UNAVAILABLE, "the store is being closed");
        return;
    default:
        fail_error(q->request, BEAM_RESOURCE_EXHAUSTED, error, "the store could not take it");
        return;
    }
}

/* The conditions of a change, and its beginning. false: it has been answered. */
static bool begin_txn(const struct question *q, struct bm_txn *txn)
{
    beam_str text = {NULL, 0};
    uint64_t epoch;
    bm_txn_begin(txn, q->store);
    if (!ask_uint(q, "seen", &txn->seen, &txn->conditional) || !ask_str(q, "epoch", &text) ||
        (text.ptr && bm_epoch_read(text, &epoch) < 0)) {
        fail_invalid(q, "seen is a revision, epoch 16 hexadecimal digits in lower case");
        return false;
    }
    if (!text.ptr || epoch == q->store->epoch)
        return true;
    beam_kv_writer w;
    uint8_t room[DETAILS_ROOM];
    char now[BM_EPOCH_TEXT_LEN + 1];
    bm_epoch_write(now, q->store->epoch);
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "epoch", now);
    fail_with(q->request, BEAM_ABORTED, &w, "the store has begun another epoch");
    return false;
}

/* r: what came of filling it. */
static void end_txn(const struct question *q, struct bm_txn *txn, int r)
{
    if (r == 0)
        r = bm_txn_commit(txn, on_written, q->request);
    else
        bm_txn_drop(txn);
    if (r < 0)
        fail_txn(q, txn, r);
}

/* A value that stands one level less deep here than it will in a delta. */
static int set_value(struct bm_txn *txn, beam_str key, const beam_kv_value *value,
                     const struct bm_entry *entry)
{
    bool nested = value->type == BEAM_KV_MAP || value->type == BEAM_KV_LIST;
    int r = nested ? bm_store_check_value(value) : 0;
    return r < 0 ? r : bm_txn_set(txn, key, entry->type, entry->value, entry->value_len);
}

/* The entry of a key in a map that was checked. */
static bool find_entry(const beam_kv_value *map, const char *wanted, struct bm_entry *ret_entry)
{
    const uint8_t *pos = map->bytes.ptr, *end = pos + map->bytes.len;
    size_t len = strlen(wanted);
    for (; pos < end; pos += ret_entry->len) {
        *ret_entry = bm_entry_at(pos);
        if (ret_entry->key_len == len && memcmp(bm_entry_key(ret_entry), wanted, len) == 0)
            return true;
    }
    return false;
}

static void on_put(beam_request *request, const beam_message *message, void *arg)
{
    struct question q;
    struct bm_txn txn;
    struct bm_entry entry;
    beam_kv_value value;
    beam_str key;
    if (!ask(&q, arg, request, message) || !ask_key(&q, &key))
        return;
    if (beam_kv_get(&q.map, "value", &value) < 0 || !find_entry(&q.map, "value", &entry)) {
        fail_invalid(&q, "a value is missing");
        return;
    }
    if (begin_txn(&q, &txn))
        end_txn(&q, &txn, set_value(&txn, key, &value, &entry));
}

static void on_delete(beam_request *request, const beam_message *message, void *arg)
{
    struct question q;
    struct bm_txn txn;
    beam_str key;
    if (!ask(&q, arg, request, message) || !ask_key(&q, &key))
        return;
    if (begin_txn(&q, &txn))
        end_txn(&q, &txn, bm_txn_delete(&txn, key));
}

static int add_set(struct bm_txn *txn, const beam_kv_value *set)
{
    const uint8_t *pos = set->bytes.ptr, *end = pos + set->bytes.len;
    int r = 0;
    while (r == 0 && pos < end) {
        struct bm_entry e = bm_entry_at(pos);
        r = bm_txn_set(txn, (beam_str){(const char *)bm_entry_key(&e), e.key_len}, e.type, e.value,
                       e.value_len);
        pos += e.len;
    }
    return r;
}

static int add_delete(struct bm_txn *txn, const beam_kv_value *keys)
{
    beam_kv_iter iter;
    beam_kv_value key;
    int r = 0;
    beam_kv_iter_init(&iter, keys);
    while (r == 0 && beam_kv_iter_next(&iter, NULL, &key) > 0)
        r = bm_txn_delete(txn, key.str);
    return r;
}

static bool all_strings(const beam_kv_value *list)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_kv_iter_init(&iter, list);
    while (beam_kv_iter_next(&iter, NULL, &value) > 0)
        if (value.type != BEAM_KV_STR)
            return false;
    return list->type == BEAM_KV_LIST;
}

static void on_txn(beam_request *request, const beam_message *message, void *arg)
{
    struct question q;
    struct bm_txn txn;
    beam_kv_value set = nothing(BEAM_KV_MAP), keys = nothing(BEAM_KV_LIST);
    if (!ask(&q, arg, request, message))
        return;
    (void)beam_kv_get(&q.map, "set", &set);
    (void)beam_kv_get(&q.map, "delete", &keys);
    if (set.type != BEAM_KV_MAP || !all_strings(&keys)) {
        fail_invalid(&q, "set is a map, delete a list of strings");
        return;
    }
    if (!begin_txn(&q, &txn))
        return;
    int r = add_set(&txn, &set);
    end_txn(&q, &txn, r == 0 ? add_delete(&txn, &keys) : r);
}

/* --- rewriting the file ---------------------------------------------------------------------- */

/* As on_written, of a compaction. */
static void on_compacted(int error, uint64_t rev, void *arg)
{
    beam_request *request = arg;
    beam_store *store = request->channel.service->arg;
    beam_kv_writer w;
    if (error < 0) {
        fail_error(request, BEAM_UNAVAILABLE, error,
                   "the file could not be rewritten, and is as it was");
        return;
    }
    begin_answer(store, &w);
    beam_kv_put_uint(&w, "after", bm_store_log_len(store));
    beam_kv_put_uint(&w, "before", store->compact_before);
    beam_kv_put_uint(&w, "rev", rev);
    reply(request, end_answer(&w));
}

static void on_compact(beam_request *request, const beam_message *message, void *arg)
{
    struct question q;
    if (!ask(&q, arg, request, message))
        return;
    int r = beam_store_compact(q.store, on_compacted, request);
    if (r == 0)
        beam_request_keep(request);
    else if (r == -ENOTSUP)
        fail_error(request, BEAM_FAILED_PRECONDITION, r, "the store has no file");
    else if (r == -EALREADY)
        fail_error(request, BEAM_FAILED_PRECONDITION, r, "the file is being rewritten already");
    else if (r == -EROFS)
        fail_error(request, BEAM_FAILED_PRECONDITION, q.store->error,
                   "the store can only be read, because of its disk");
    else
        fail_error(request, BEAM_RESOURCE_EXHAUSTED, r, "the file cannot be rewritten");
}

/* --- following ------------------------------------------------------------------------------- */

static void on_watch(beam_request *request, const beam_message *message, void *arg)
{
    beam_store *store = arg;
    struct question q;
    beam_str prefix = {"", 0}, text = {NULL, 0};
    uint64_t rev = 0, epoch = 0;
    bool given;
    if (!ask_to_hear(&q, store, request, message))
        return;
    if (!ask_str(&q, "prefix", &prefix) || !ask_str(&q, "epoch", &text) ||
        !ask_uint(&q, "rev", &rev, &given) || prefix.len > BEAM_STORE_KEY_LEN_MAX ||
        (text.ptr && bm_epoch_read(text, &epoch) < 0)) {
        fail_invalid(&q, "prefix is a string of up to 1024 bytes, epoch 16 hexadecimal digits in "
                         "lower case, rev a revision");
        return;
    }
    bm_watch_begin(store, request, prefix, given && text.ptr && epoch == store->epoch, rev);
}

/* --- serving --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    beam_handler *handler;
} services[] = {
    {"get", on_get},   {"put", on_put},   {"delete", on_delete}, {"txn", on_txn},
    {"scan", on_scan}, {"info", on_info}, {"watch", on_watch},   {"compact", on_compact},
};

#define SERVICES BM_ARRAY_LEN(services)
#define NAME_ROOM (BM_STORE_PREFIX_MAX + 16)

static void write_offers(beam_store *store, char names[SERVICES][NAME_ROOM],
                         struct bm_offer offers[SERVICES])
{
    for (size_t i = 0; i < SERVICES; i++) {
        snprintf(names[i], NAME_ROOM, "%s.%s", store->prefix, services[i].name);
        offers[i] = (struct bm_offer){
            .name = names[i],
            .handler = services[i].handler,
            .arg = store,
            .core = store->core->index,
            .codec = &beam_kv_codec,
            .allow = store->options.allow,
            .allow_arg = store->options.allow_arg,
        };
    }
}

int bm_store_services_add(beam_store *store)
{
    char names[SERVICES][NAME_ROOM];
    struct bm_offer offers[SERVICES];
    write_offers(store, names, offers);
    /* All at once: a store that is not served is freed when it is closed, and nobody may be on his way
     * to it. */
    return bm_services_offer(store->core->runtime, offers, SERVICES);
}

void bm_store_services_remove(beam_store *store)
{
    char names[SERVICES][NAME_ROOM];
    struct bm_offer offers[SERVICES];
    write_offers(store, names, offers);
    bm_services_withdraw(store->core->runtime, offers, SERVICES);
}
