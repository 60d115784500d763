/* Those who follow a store (docs/spec/kv.md, Y9 to Y15). A watcher is a place in the history and, while
 * it gets a snapshot, one in the state; it has no queue. In each turn in which there is more to tell,
 * those that are ready are sent some messages each, in line, until they have all of it or their channel
 * has no room: then they stand aside until on_writable.
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
 * state beyond snap_rev. A watcher is in the list `ready` or it has all, or waits for room, or, in LIVE,
 * for told to come up to snap_rev. */
#include "runtime/store.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "runtime/core.h"
#include "runtime/feed.h"

#define TURN_MESSAGES 64u        /* to one watcher, before it is the turn of the next */
#define TURN_WATCHERS 256u       /* ... and so many of them before others than the store go on */
#define PART_LEN_MAX (48u << 10) /* of a snapshot: with what is around it, one frame */

enum step { HEAD, SNAP, LIVE, DELTAS };

struct watcher {
    struct bm_list node;       /* store->watchers */
    struct bm_list ready_node; /* store->ready */
    beam_store *store;
    beam_request *request;
    uint64_t cursor;
    uint64_t snap_rev;
    struct bm_tree_cursor at; /* of the snapshot */
    uint8_t step;
    bool resume; /* HEAD: deltas follow */
    bool fell;   /* HEAD: it was left behind at cursor */
    bool sent;   /* something, since the last heartbeat */
    bool waits;  /* there was no room: on_writable is owed */
    uint16_t prefix_len;
    char prefix[];
};

static void on_wake(struct bm_task *task);
static void on_heartbeat(struct bm_timer *timer);

void bm_watchers_init(beam_store *store)
{
    bm_list_init(&store->watchers);
    bm_list_init(&store->ready);
    store->watch_task.fn = on_wake;
    bm_timer_init(&store->heartbeat, on_heartbeat);
}

/* --- beginning and end ----------------------------------------------------------------------- */

static void watcher_free(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    bm_list_unlink(&watcher->node);
    bm_list_unlink(&watcher->ready_node);
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
    if (!bm_list_linked(&watcher->ready_node))
        bm_list_push_back(&store->ready, &watcher->ready_node);
    bm_task_queue(store->core->reactor, &store->watch_task);
}

static void on_writable(beam_channel *channel, void *arg)
{
    struct watcher *watcher = arg;
    watcher->waits = false;
    make_ready(watcher);
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
    int r = beam_channel_send_body(beam_request_channel(watcher->request), document, len);
    if (r == 0) {
        watcher->sent = true;
        return SENT;
    }
    if (r == -EAGAIN || r == -EPIPE) { /* the latter: cancelled, which we are about to be told */
        watcher->waits = true;
        return WAIT;
    }
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

/* The next delta; ALL: it has them all. */
static enum outcome send_delta(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    while (watcher->cursor < store->told) {
        const struct bm_delta *delta = bm_history_find(&store->history, watcher->cursor + 1);
        if (!delta) {
            fall_behind(watcher);
            return SENT;
        }
        const void *document = delta->document;
        size_t len = delta->len;
        if (watcher->prefix_len > 0) {
            beam_str prefix = {watcher->prefix, watcher->prefix_len};
            int r = bm_feed_filter(delta->document, delta->len, prefix, &store->buffer);
            if (r == 0) {
                watcher->cursor++;
                continue;
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
    return ALL;
}

/* The entries of the next part, into the store's buffer. *ret_last: the last one that was looked at;
 * NULL: there are no more. */
static int build_part(struct watcher *watcher, const struct bm_tree_entry **ret_last)
{
    beam_store *store = watcher->store;
    const struct bm_tree *tree = &store->state.tree;
    struct bm_tree_iter iter =
        watcher->at.begun ? bm_tree_cursor_resume(tree, &watcher->at)
                          : bm_tree_seek(tree, watcher->prefix, watcher->prefix_len, false);
    const struct bm_tree_entry *entry;
    size_t len = 0;
    *ret_last = NULL;
    int r = bm_feed_snap_begin(&store->buffer, store->told);
    while (r == 0 && (entry = bm_tree_next(&iter))) {
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
        *ret_last = entry;
    }
    if (len == 0)
        *ret_last = NULL;
    return r < 0 ? r : bm_feed_snap_end(&store->buffer);
}

static enum outcome send_part(struct watcher *watcher)
{
    beam_store *store = watcher->store;
    const struct bm_tree_entry *last;
    enum outcome outcome = send_delta(watcher);
    if (outcome != ALL)
        return outcome;
    int r = build_part(watcher, &last);
    if (r == 0 && !last) {
        watcher->step = LIVE;
        watcher->snap_rev = store->rev;
        bm_tree_cursor_reset(&watcher->at, &store->account);
        return SENT;
    }
    if (r == 0) {
        outcome = send_document(watcher, store->buffer.ptr, store->buffer.len);
        if (outcome != SENT)
            return outcome;
        r = bm_tree_cursor_save(&watcher->at, &store->account, last);
    }
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

static enum outcome send_next(struct watcher *watcher)
{
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
    return send_delta(watcher);
}

static void on_wake(struct bm_task *task)
{
    beam_store *store = bm_list_entry(task, beam_store, watch_task);
    for (unsigned i = 0; i < TURN_WATCHERS && !bm_list_empty(&store->ready); i++) {
        struct watcher *watcher =
            bm_list_entry(bm_list_pop_front(&store->ready), struct watcher, ready_node);
        enum outcome outcome = SENT;
        for (unsigned n = 0; n < TURN_MESSAGES && outcome == SENT; n++)
            outcome = send_next(watcher);
        if (outcome == SENT)
            bm_list_push_back(&store->ready, &watcher->ready_node);
    }
    if (!bm_list_empty(&store->ready))
        bm_task_queue(store->core->reactor, &store->watch_task);
}

/* Those who have all, or wait for told. */
void bm_watchers_wake(beam_store *store)
{
    if (bm_list_empty(&store->watchers))
        return;
    for (struct bm_list *n = store->watchers.next; n != &store->watchers; n = n->next) {
        struct watcher *watcher = bm_list_entry(n, struct watcher, node);
        if (!watcher->waits && !bm_list_linked(&watcher->ready_node))
            bm_list_push_back(&store->ready, &watcher->ready_node);
    }
    bm_task_queue(store->core->reactor, &store->watch_task);
}

void bm_watchers_begin_anew(beam_store *store)
{
    for (struct bm_list *n = store->watchers.next; n != &store->watchers; n = n->next) {
        struct watcher *watcher = bm_list_entry(n, struct watcher, node);
        if (watcher->step == SNAP || watcher->step == LIVE) {
            fall_behind(watcher);
            if (!watcher->waits)
                make_ready(watcher);
        }
    }
}

/* --- marks ----------------------------------------------------------------------------------- */

/* Twice in each interval, so that none is longer: who was sent something since the last time is passed
 * over once. */
static void on_heartbeat(struct bm_timer *timer)
{
    beam_store *store = bm_list_entry(timer, beam_store, heartbeat);
    uint8_t room[BM_FEED_SHORT_MAX];
    struct bm_list *node = store->watchers.next;
    while (node != &store->watchers) {
        struct watcher *watcher = bm_list_entry(node, struct watcher, node);
        node = node->next;
        bool sent = watcher->sent;
        watcher->sent = false;
        if (sent || watcher->step != DELTAS)
            continue;
        size_t len = bm_feed_mark(room, watcher->cursor, store->told);
        if (send_document(watcher, room, len) == SENT)
            watcher->sent = false; /* a mark is owed again after the next interval */
    }
    if (!bm_list_empty(&store->watchers))
        bm_timer_arm(store->core->reactor, &store->heartbeat,
                     bm_reactor_now_ns(store->core->reactor) + store->options.heartbeat_ns / 2);
}
