/* Those who follow a store (docs/spec/kv.md, Y9 to Y15). A watcher is a place in the history and, while
 * it gets a snapshot, one in the state; it has no queue. When there is more to tell, those that are ready
 * are sent some messages each, in line, until they have all of it or their channel has no room: then they
 * stand aside until on_writable.
 *
 * How much is done for them in one turn of the reactor is bounded by the work it is, messages or not.
 * The first that is served is the task's business, at the end of the turn that had something to tell;
 * what is left then is that of a source of the reactor, once a turn, behind all others.
 *
 * The steps of a watcher:
 *
 *   HEAD    it is to be told what follows
 *   SNAP    parts of the state, in front of each all deltas up to told, so that it has what the part has
 *   LIVE    all parts have left; deltas up to what the last of them had in it, then `live`
 *   DELTAS  one after the other
 *
 * One that the history has left behind goes back to HEAD, wherever it was.
 *
 * Invariants: up to `cursor` it has been sent everything of its prefix; in SNAP and LIVE nothing of the
 * state beyond snap_rev. A watcher is in the list `ready`; or in `idle`, and has all, or waits in LIVE for
 * told to come up to snap_rev; or in neither, and waits for room. So nobody is looked at for whom there is
 * nothing to do, and waking those who have all is one step. */
#include "runtime/store.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/core.h"
#include "runtime/feed.h"

#define VISIT_MESSAGES 64u       /* ours: to one watcher, before it is the turn of the next */
#define PART_LEN_MAX (48u << 10) /* of a snapshot: with what is around it, one frame */
#define PART_KEYS_MAX 4096u      /* ours: keys that are looked at for a part, should most be gone */

/* Work is counted in bytes that are copied; other things are worth so many. */
#define WORK_VISIT 64u
#define WORK_KEY 32u                    /* looked at, and found to be of the prefix or not */
#define WORK_MESSAGE 512u               /* besides its length */
#define TURN_WORK ((uint64_t)512 << 10) /* ours: a quarter of a millisecond or so */
/* ... and this if those in line would soon be left behind by the history. It is not they who are slow,
 * but we: each of them that falls out of it costs a snapshot, which is more work and not less. */
#define TURN_WORK_LATE ((uint64_t)64 << 20)

enum step { HEAD, SNAP, LIVE, DELTAS };

struct watcher {
    struct bm_list node;  /* store->watchers */
    struct bm_list place; /* store->ready, store->idle, or neither */
    beam_store *store;
    beam_request *request;
    uint64_t cursor;
    uint64_t snap_rev;
    struct bm_tree_cursor at; /* of the snapshot */
    uint8_t step;
    bool resume; /* HEAD: deltas follow */
    bool fell;   /* HEAD: it was left behind at cursor */
    bool sent;   /* something, since the last heartbeat */
    bool marked; /* DELTAS: a mark is owed, when it has all */
    uint16_t prefix_len;
    char prefix[];
};

static void on_wake(struct bm_task *task);
static bool source_ready(struct bm_source *source);
static unsigned source_drain(struct bm_source *source, unsigned budget);
static void on_heartbeat(struct bm_timer *timer);

void bm_watchers_init(beam_store *store)
{
    bm_list_init(&store->watchers);
    bm_list_init(&store->ready);
    bm_list_init(&store->idle);
    store->watch_task.fn = on_wake;
    store->watch_source.ready = source_ready;
    store->watch_source.drain = source_drain;
    bm_timer_init(&store->heartbeat, on_heartbeat);
}

void bm_watchers_deinit(beam_store *store)
{
    bm_assert(bm_list_empty(&store->watchers));
    bm_task_cancel(&store->watch_task);
    bm_source_remove(store->core->reactor, &store->watch_source);
    bm_timer_cancel(store->core->reactor, &store->heartbeat);
}

/* --- beginning and end ----------------------------------------------------------------------- */

static void watcher_free(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    bm_list_unlink(&watcher->node);
    bm_list_unlink(&watcher->place);
    bm_tree_cursor_reset(&watcher->at, &store->account);
    bm_free(&store->account, watcher, sizeof(*watcher) + watcher->prefix_len);
    store->watcher_count--;
}

static void watcher_end(struct watcher *watcher, enum beam_code code, const char *text)
{
    beam_request *request = watcher->request;
    watcher_free(watcher);
    beam_fail(request, code, "%s", text);
}

static void on_cancel(beam_request *request, void *arg)
{
    watcher_end(arg, BEAM_CANCELLED, "nobody follows any more");
}

static void make_ready(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    bm_list_unlink(&watcher->place);
    bm_list_push_back(&store->ready, &watcher->place);
    bm_task_queue(store->core->reactor, &store->watch_task);
}

static void on_writable(beam_channel *channel, void *arg)
{
    make_ready(arg);
}

static const struct beam_channel_handlers watch_handlers = {.on_writable = on_writable};

void bm_watch_begin(beam_store *store, beam_request *request, beam_str prefix, bool offered,
                    uint64_t rev)
{
    if (store->stopping) {
        beam_fail(request, BEAM_UNAVAILABLE, "the owner of the store is stopping");
        return;
    }
    if (store->watcher_count >= store->options.watchers_max) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "too many follow this store");
        return;
    }
    struct watcher *watcher = bm_alloc_zero(&store->account, sizeof(*watcher) + prefix.len);
    if (!watcher) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory for one more who follows");
        return;
    }
    watcher->store = store;
    watcher->request = request;
    watcher->prefix_len = (uint16_t)prefix.len;
    memcpy(watcher->prefix, prefix.ptr, prefix.len);
    offered = offered && rev <= store->told;
    watcher->resume = offered && rev >= bm_history_horizon(&store->history);
    watcher->fell = offered && !watcher->resume;
    watcher->cursor = offered ? rev : store->told;
    bm_list_push_back(&store->watchers, &watcher->node);
    store->watcher_count++;
    beam_request_on_cancel(request, on_cancel, watcher);
    beam_channel_set_handlers(beam_request_channel(request), &watch_handlers, watcher);
    if (!bm_timer_armed(&store->heartbeat))
        bm_timer_arm(store->core->reactor, &store->heartbeat,
                     bm_reactor_now_ns(store->core->reactor) + store->options.heartbeat_ns / 2);
    make_ready(watcher);
}

void bm_watchers_end(beam_store *store, enum beam_code code, const char *text)
{
    struct bm_list *node;
    while ((node = bm_list_front(&store->watchers)))
        watcher_end(bm_list_entry(node, struct watcher, node), code, text);
}

/* --- sending --------------------------------------------------------------------------------- */

/* What came of a step: SENT and more may follow; ALL: there is nothing to send now; WAIT: no room, and
 * on_writable follows; GONE: the watcher is no more. */
enum outcome { SENT, ALL, WAIT, GONE };

static enum outcome send_document(struct watcher *watcher, const void *document, size_t len)
{
    watcher->store->watch_work += WORK_MESSAGE + len;
    int r = beam_channel_send_body(beam_request_channel(watcher->request), document, len);
    if (r == 0) {
        watcher->sent = true;
        watcher->marked = false;
        return SENT;
    }
    if (r == -EAGAIN || r == -EPIPE) /* the latter: cancelled, which we are about to be told */
        return WAIT;
    watcher_end(watcher, BEAM_RESOURCE_EXHAUSTED,
                r == -EMSGSIZE ? "a change is longer than the session takes"
                               : "no memory for what is to be told");
    return GONE;
}

static void fall_behind(struct watcher *watcher)
{
    watcher->step = HEAD;
    watcher->resume = false;
    watcher->fell = true;
    bm_tree_cursor_reset(&watcher->at, &watcher->store->account);
}

static enum outcome send_head(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    uint8_t room[BM_FEED_SHORT_MAX];
    struct bm_feed_head head = {
        .epoch = store->epoch,
        .rev = store->told,
        .skipped = watcher->fell ? store->told - watcher->cursor : 0,
        .heartbeat_ms = store->options.heartbeat_ns / BEAM_MS,
        .resume = watcher->resume,
    };
    enum outcome outcome = send_document(watcher, room, bm_feed_head(room, &head));
    if (outcome != SENT)
        return outcome;
    store->skips += watcher->fell;
    watcher->fell = false;
    watcher->step = watcher->resume ? DELTAS : SNAP;
    if (!watcher->resume)
        watcher->cursor = watcher->snap_rev = store->told;
    return SENT;
}

/* The next delta, or as much of it as is of the prefix; ALL: it has them all. */
static enum outcome send_delta(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    if (watcher->cursor == store->told)
        return ALL;
    const struct bm_delta *delta = bm_history_find(&store->history, watcher->cursor + 1);
    if (!delta) {
        fall_behind(watcher);
        return SENT;
    }
    const void *document = delta->document;
    size_t len = delta->len;
    if (watcher->prefix_len > 0) {
        beam_str prefix = {watcher->prefix, watcher->prefix_len};
        uint64_t looked;
        int r = bm_feed_filter(delta->document, delta->len, prefix, &store->buffer, &looked);
        store->watch_work += looked * WORK_KEY;
        if (r == 0) {
            watcher->cursor++;
            return SENT;
        }
        if (r < 0) {
            watcher_end(watcher, BEAM_RESOURCE_EXHAUSTED, "no memory for what is to be told");
            return GONE;
        }
        document = store->buffer.ptr;
        len = store->buffer.len;
    }
    enum outcome outcome = send_document(watcher, document, len);
    if (outcome == SENT)
        watcher->cursor++;
    return outcome;
}

/* The entries of the next part, into the store's buffer; *ret_len bytes of them, which may be 0 where keys
 * are about to go. *ret_last: the last one that was looked at; NULL: there are no more. */
static int build_part(struct watcher *watcher, size_t *ret_len,
                      const struct bm_tree_entry **ret_last)
{
    beam_store *store = watcher->store;
    const struct bm_tree *tree = &store->state.tree;
    struct bm_tree_iter iter =
        watcher->at.begun ? bm_tree_cursor_resume(tree, &watcher->at)
                          : bm_tree_seek(tree, watcher->prefix, watcher->prefix_len, false);
    const struct bm_tree_entry *entry, *last = NULL;
    size_t len = 0;
    unsigned keys = 0;
    int r = bm_feed_snap_begin(&store->buffer, store->told);
    for (; r == 0 && keys < PART_KEYS_MAX && (entry = bm_tree_next(&iter)); keys++) {
        beam_str key = bm_state_key(entry);
        if (key.len < watcher->prefix_len ||
            memcmp(key.ptr, watcher->prefix, watcher->prefix_len) != 0)
            break;
        if (!bm_state_is_del(entry)) {
            size_t entry_len = bm_state_entry_len(entry);
            if (len > 0 && len + entry_len > PART_LEN_MAX)
                break;
            len += entry_len;
            r = bm_feed_snap_add(&store->buffer, entry);
        }
        last = entry;
    }
    store->watch_work += keys * WORK_KEY;
    if (r == 0)
        r = bm_feed_snap_end(&store->buffer);
    *ret_len = len;
    *ret_last = last;
    return r;
}

static enum outcome send_part(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    const struct bm_tree_entry *last;
    size_t len;
    enum outcome outcome = send_delta(watcher);
    if (outcome != ALL)
        return outcome;
    int r = build_part(watcher, &len, &last);
    if (r == 0 && !last) {
        watcher->step = LIVE;
        watcher->snap_rev = store->rev;
        bm_tree_cursor_reset(&watcher->at, &store->account);
        return SENT;
    }
    if (r == 0 && len > 0) {
        outcome = send_document(watcher, store->buffer.ptr, store->buffer.len);
        if (outcome != SENT)
            return outcome;
    }
    if (r == 0)
        r = bm_tree_cursor_save(&watcher->at, &store->account, last);
    if (r < 0) {
        watcher_end(watcher, BEAM_RESOURCE_EXHAUSTED, "no memory for what is to be told");
        return GONE;
    }
    return SENT;
}

static enum outcome send_live(struct watcher *watcher)
{
    uint8_t room[BM_FEED_SHORT_MAX];
    enum outcome outcome = send_delta(watcher);
    if (outcome != ALL)
        return outcome;
    if (watcher->store->told < watcher->snap_rev)
        return ALL; /* what the parts had in it is still pending */
    outcome = send_document(watcher, room, bm_feed_live(room, watcher->cursor));
    if (outcome == SENT)
        watcher->step = DELTAS;
    return outcome;
}

static enum outcome send_mark(struct watcher *watcher)
{
    uint8_t room[BM_FEED_SHORT_MAX];
    size_t len = bm_feed_mark(room, watcher->cursor, watcher->store->told);
    enum outcome outcome = send_document(watcher, room, len);
    if (outcome == SENT)
        watcher->sent = false; /* a mark is owed again after the next interval */
    return outcome;
}

static enum outcome send_next(struct watcher *watcher)
{
    enum outcome outcome;
    switch ((enum step)watcher->step) {
    case HEAD:
        return send_head(watcher);
    case SNAP:
        return send_part(watcher);
    case LIVE:
        return send_live(watcher);
    case DELTAS:
        break;
    }
    outcome = send_delta(watcher);
    return outcome == ALL && watcher->marked ? send_mark(watcher) : outcome;
}

/* --- turns ----------------------------------------------------------------------------------- */

/* The first in line has waited longest. */
static bool is_late(const beam_store *store)
{
    const struct bm_history *history = &store->history;
    const struct watcher *first = bm_list_entry(store->ready.next, struct watcher, place);
    uint64_t horizon = bm_history_horizon(history);
    return history->len > history->len_max / 2 && first->step != HEAD && first->cursor >= horizon &&
           first->cursor < horizon + history->count / 2;
}

static bool has_time(const beam_store *store)
{
    return store->watch_work < store->watch_until;
}

/* As much as this turn still has time for. true: some are left. */
static bool serve(beam_store *store)
{
    uint64_t turn = bm_reactor_stats(store->core->reactor)->turns;
    struct bm_list *node;
    if (bm_list_empty(&store->ready))
        return false;
    if (store->watch_turn != turn) {
        store->watch_turn = turn;
        store->watch_until = store->watch_work + (is_late(store) ? TURN_WORK_LATE : TURN_WORK);
    }
    while (has_time(store) && (node = bm_list_pop_front(&store->ready))) {
        struct watcher *watcher = bm_list_entry(node, struct watcher, place);
        enum outcome outcome = SENT;
        store->watch_visits++;
        store->watch_work += WORK_VISIT;
        for (unsigned n = 0; n < VISIT_MESSAGES && outcome == SENT && has_time(store); n++)
            outcome = send_next(watcher);
        if (outcome == SENT || outcome == ALL)
            bm_list_push_back(outcome == SENT ? &store->ready : &store->idle, &watcher->place);
    }
    return !bm_list_empty(&store->ready);
}

static void on_wake(struct bm_task *task)
{
    beam_store *store = bm_list_entry(task, beam_store, watch_task);
    /* A task that queued itself would run again in this turn. */
    if (!bm_list_linked(&store->watch_source.node) && serve(store))
        bm_source_add(store->core->reactor, &store->watch_source);
}

static bool source_ready(struct bm_source *source)
{
    (void)source; /* it is the reactor's only while there is something to do */
    return true;
}

static unsigned source_drain(struct bm_source *source, unsigned budget)
{
    beam_store *store = bm_list_entry(source, beam_store, watch_source);
    if (serve(store))
        return budget;
    bm_source_remove(store->core->reactor, source);
    return 1;
}

void bm_watchers_wake(beam_store *store)
{
    if (store->watch_told == store->told)
        return;
    store->watch_told = store->told;
    if (bm_list_empty(&store->idle))
        return;
    bm_list_splice_back(&store->ready, &store->idle);
    bm_task_queue(store->core->reactor, &store->watch_task);
}

void bm_watchers_begin_anew(beam_store *store)
{
    for (struct bm_list *n = store->watchers.next; n != &store->watchers; n = n->next) {
        struct watcher *watcher = bm_list_entry(n, struct watcher, node);
        if (watcher->step != SNAP && watcher->step != LIVE)
            continue;
        fall_behind(watcher);
        if (bm_list_linked(&watcher->place)) /* else it waits for room */
            make_ready(watcher);
    }
}

/* --- marks ----------------------------------------------------------------------------------- */

/* Twice in each interval, so that none is longer: who was sent something since the last time is passed
 * over once. */
static void on_heartbeat(struct bm_timer *timer)
{
    beam_store *store = bm_list_entry(timer, beam_store, heartbeat);
    for (struct bm_list *n = store->watchers.next; n != &store->watchers; n = n->next) {
        struct watcher *watcher = bm_list_entry(n, struct watcher, node);
        bool owed = !watcher->sent && watcher->step == DELTAS;
        watcher->sent = false;
        if (!owed)
            continue;
        watcher->marked = true;
        if (bm_list_linked(&watcher->place))
            make_ready(watcher);
    }
    if (!bm_list_empty(&store->watchers))
        bm_timer_arm(store->core->reactor, &store->heartbeat,
                     bm_reactor_now_ns(store->core->reactor) + store->options.heartbeat_ns / 2);
}
