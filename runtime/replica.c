/* A replica: the following end of a watch (docs/spec/kv.md, Y9 to Y15). It has the state of one revision,
 * which can be read at any time, and while it gets a snapshot a second one, *next*, which nobody sees
 * until it is complete; then they are swapped, and what is different between them is told.
 *
 * A delta is applied as a whole or not at all, with what a store uses for the same (store_state.h), and
 * told between applying and being done with it: a key that goes can still be named then.
 *
 * Invariants: epoch and rev are those of the state that is read; a watch is asked to go on only from
 * there. A handler may free the replica, or attach it anew. The state is what it was then, so that what
 * is being told is told to its end, unless it was freed; but nothing is told of the watch that was.
 * Nothing a peer says is trusted: what breaks the order of messages, is about keys that are none of
 * ours, or finds no memory, ends the watch, and the state stays as it was. */
#include <errno.h>
#include <string.h>

#include <beam/store.h>

#include "base/assert.h"
#include "base/clock.h"
#include "kv/utf8.h"
#include "runtime/core.h"
#include "runtime/feed.h"
#include "runtime/options.h"
#include "runtime/runtime.h"
#include "runtime/store_state.h"

#define SERVICE_MAX 249u /* of a prefix: with ".watch" a name of 255 bytes */

/* A state on its way to be complete. */
struct next {
    struct bm_state state;
    uint64_t epoch, rev;
    uint64_t skipped;
};

struct beam_replica {
    const struct beam_replica_handlers *handlers;
    void *arg;
    struct bm_account account; /* pays for all but the struct */
    uint64_t fork_epoch;       /* of the process that made it */
    beam_channel *channel;     /* of the watch; NULL: none */
    uint64_t watch; /* goes up with each that ends, so that a handler's doings are noticed */
    unsigned calls; /* from its channel that are running: it is freed behind the last */
    bool freed;

    enum beam_replica_state is;
    struct bm_state state;
    uint64_t epoch, rev;
    bool building; /* `next` is: from a head to live */
    struct next next;
    bool headed; /* a head has come on this watch */
    bool asked;  /* it was asked to go on */

    uint64_t owner_rev, heard_ns, skipped, snapshots;
    uint64_t untold; /* of those that were skipped: for the next on_live */
    uint16_t prefix_len, service_len;
    char *prefix; /* a block of prefix_len */
    char service[SERVICE_MAX + 7];
};

/* --- life ------------------------------------------------------------------------------------ */

static beam_replica *release(beam_replica *replica)
{
    bm_state_clear(&replica->state);
    bm_state_clear(&replica->next.state);
    bm_free(&replica->account, replica->prefix, replica->prefix_len);
    bm_assert(replica->account.used == 0);
    return bm_free(NULL, replica, sizeof(*replica));
}

int beam_replica_new(const struct beam_replica_options *wanted, beam_replica **ret_replica)
{
    struct beam_replica_options options;
    if (!bm_core_current())
        return -EPERM;
    if (bm_runtime_forked(bm_core_current()->runtime))
        return -BEAM_EFORKED;
    int r = bm_options_read(&options, sizeof(options), wanted);
    if (r < 0)
        return r;
    const char *service = options.service ? options.service : "kv";
    const char *prefix = options.prefix ? options.prefix : "";
    size_t service_len = strlen(service), prefix_len = strlen(prefix);
    if (service_len == 0 || service_len > SERVICE_MAX || prefix_len > BEAM_STORE_KEY_LEN_MAX ||
        !bm_utf8_valid(prefix, prefix_len))
        return -EINVAL;
    beam_replica *replica = bm_alloc_zero(NULL, sizeof(*replica));
    if (!replica)
        return -ENOMEM;
    replica->fork_epoch = bm_fork_epoch_seen();
    replica->handlers = options.handlers;
    replica->arg = options.arg;
    replica->account.limit = options.memory_len_max;
    bm_state_init(&replica->state, &replica->account);
    bm_state_init(&replica->next.state, &replica->account);
    replica->prefix = bm_alloc(&replica->account, prefix_len);
    if (!replica->prefix) {
        bm_free(NULL, replica, sizeof(*replica));
        return -ENOMEM;
    }
    replica->prefix_len = (uint16_t)prefix_len;
    memcpy(replica->prefix, prefix, prefix_len);
    memcpy(replica->service, service, service_len);
    memcpy(replica->service + service_len, ".watch", sizeof(".watch"));
    *ret_replica = replica;
    return 0;
}

static void end_watch(beam_replica *replica)
{
    replica->channel = beam_channel_free(replica->channel);
    replica->watch++;
    replica->building = false;
    bm_state_clear(&replica->next.state);
}

beam_replica *beam_replica_free(beam_replica *replica)
{
    if (!replica || replica->freed)
        return NULL;
    end_watch(replica);
    replica->freed = true;
    if (replica->calls == 0)
        release(replica);
    return NULL;
}

/* --- telling --------------------------------------------------------------------------------- */

/* All of these are called from a call of the channel's, behind which one that a handler has freed is
 * released. */
static void leave(beam_replica *replica)
{
    if (--replica->calls == 0 && replica->freed)
        release(replica);
}

static void tell_change(beam_replica *replica, const struct bm_tree_entry *entry, bool gone,
                        uint64_t rev)
{
    if (!replica->handlers || !replica->handlers->on_change)
        return;
    beam_kv_value value = gone ? (beam_kv_value){.type = BEAM_KV_NIL} : bm_state_value(entry);
    replica->handlers->on_change(replica, bm_state_key(entry), gone ? NULL : &value, rev,
                                 replica->arg);
}

static void tell_stale(beam_replica *replica, const struct beam_status *status)
{
    if (replica->is == BEAM_REPLICA_LIVE)
        replica->is = BEAM_REPLICA_STALE;
    if (replica->handlers && replica->handlers->on_stale)
        replica->handlers->on_stale(replica, status, replica->arg);
}

static void tell_live(beam_replica *replica)
{
    uint64_t skipped = replica->untold;
    replica->is = BEAM_REPLICA_LIVE;
    replica->untold = 0;
    if (replica->handlers && replica->handlers->on_live)
        replica->handlers->on_live(replica, skipped, replica->arg);
}

static void tell_commit(beam_replica *replica, uint64_t rev)
{
    if (replica->handlers && replica->handlers->on_commit)
        replica->handlers->on_commit(replica, rev, replica->arg);
}

/* The watch is given up, because of something here or something wrong from there. */
static void give_up(beam_replica *replica, enum beam_code code, const char *text)
{
    struct beam_status status = {.code = code, .message = {text, strlen(text)}};
    beam_channel_reset(replica->channel, BEAM_CANCELLED, text);
    end_watch(replica);
    tell_stale(replica, &status);
}

static void give_up_order(beam_replica *replica)
{
    give_up(replica, BEAM_DATA_LOSS, "the messages of the watch break their order");
}

static void give_up_key(beam_replica *replica)
{
    give_up(replica, BEAM_DATA_LOSS,
            "the owner tells of a key that is empty, too long, or outside the prefix");
}

/* --- what comes ------------------------------------------------------------------------------ */

/* A revision, which ends below 2^63 (Y1). */
static int get_rev(const beam_kv_value *map, const char *key, uint64_t *ret_rev)
{
    uint64_t rev;
    if (beam_kv_get_uint(map, key, &rev) < 0 || rev > INT64_MAX)
        return -EINVAL;
    *ret_rev = rev;
    return 0;
}

/* That of the state which the messages are about. */
static uint64_t *own_rev(beam_replica *replica)
{
    return replica->building ? &replica->next.rev : &replica->rev;
}

/* Of a message that tells of no change: without a prefix nothing may be missing before it (Y12). */
static bool is_in_place(beam_replica *replica, uint64_t rev)
{
    uint64_t own = *own_rev(replica);
    return replica->prefix_len > 0 ? rev >= own : rev == own;
}

static void advance(beam_replica *replica, uint64_t rev)
{
    *own_rev(replica) = rev;
    if (rev > replica->owner_rev)
        replica->owner_rev = rev;
}

/* A key that a store can have (Y2), and that was asked for. */
static bool is_ours(const beam_replica *replica, const void *key, size_t len)
{
    return len > 0 && len <= BEAM_STORE_KEY_LEN_MAX && len >= replica->prefix_len &&
           (replica->prefix_len == 0 || memcmp(key, replica->prefix, replica->prefix_len) == 0);
}

static void on_head(beam_replica *replica, const beam_kv_value *map)
{
    bool resume;
    uint64_t rev, epoch, skipped = 0;
    beam_str text;
    if (beam_kv_get_bool(map, "resume", &resume) < 0 || get_rev(map, "rev", &rev) < 0 ||
        beam_kv_get_str(map, "epoch", &text) < 0 || bm_epoch_read(text, &epoch) < 0 ||
        (resume &&
         (replica->headed || !replica->asked || epoch != replica->epoch || rev < replica->rev))) {
        give_up_order(replica);
        return;
    }
    (void)beam_kv_get_uint(map, "skipped", &skipped);
    replica->headed = true;
    replica->owner_rev = rev;
    if (resume) {
        tell_live(replica);
        return;
    }
    /* One that comes before `live` takes the place of what was being built. */
    bm_state_clear(&replica->next.state);
    replica->next.skipped = (replica->building ? replica->next.skipped : 0) + skipped;
    replica->building = true;
    replica->next.epoch = epoch;
    replica->next.rev = rev;
    if (replica->is == BEAM_REPLICA_LIVE)
        tell_stale(replica, &(struct beam_status){.code = BEAM_OK});
}

static void on_snap(beam_replica *replica, const beam_kv_value *map)
{
    uint64_t rev;
    beam_kv_value set;
    if (!replica->building || get_rev(map, "rev", &rev) < 0 || !is_in_place(replica, rev) ||
        beam_kv_get(map, "set", &set) < 0 || set.type != BEAM_KV_MAP) {
        give_up_order(replica);
        return;
    }
    advance(replica, rev);
    const uint8_t *pos = set.bytes.ptr, *end = pos + set.bytes.len;
    for (; pos < end; pos += bm_entry_at(pos).len) {
        struct bm_entry e = bm_entry_at(pos);
        if (!is_ours(replica, bm_entry_key(&e), e.key_len)) {
            give_up_key(replica);
            return;
        }
        struct bm_tree_entry *entry = bm_tree_entry_copy(&replica->account, rev, pos);
        if (!entry || bm_state_load(&replica->next.state, entry) < 0) {
            give_up(replica, BEAM_RESOURCE_EXHAUSTED, "no memory for the state");
            return;
        }
    }
}

static int read_set(beam_replica *replica, const beam_kv_value *set, uint64_t rev,
                    struct bm_changes *changes)
{
    int r = set->type == BEAM_KV_MAP ? 0 : -EINVAL;
    const uint8_t *pos = set->bytes.ptr, *end = r == 0 ? pos + set->bytes.len : pos;
    for (; r == 0 && pos < end; pos += bm_entry_at(pos).len) {
        struct bm_entry e = bm_entry_at(pos);
        r = is_ours(replica, bm_entry_key(&e), e.key_len) ? bm_changes_copy(changes, rev, pos)
                                                          : -ENAMETOOLONG;
    }
    return r;
}

static int read_delete(beam_replica *replica, const beam_kv_value *list, uint64_t rev,
                       struct bm_changes *changes)
{
    beam_kv_value key;
    beam_kv_iter iter;
    beam_str last = {NULL, 0};
    int r = list->type == BEAM_KV_LIST ? 0 : -EINVAL;
    beam_kv_iter_init(&iter, list);
    while (r == 0 && beam_kv_iter_next(&iter, NULL, &key) > 0) {
        if (key.type != BEAM_KV_STR ||
            (last.ptr && bm_key_compare(last.ptr, last.len, key.str.ptr, key.str.len) >= 0))
            return -EINVAL;
        r = is_ours(replica, key.str.ptr, key.str.len)
                ? bm_changes_add(changes, rev, key.str, BM_ENTRY_DEL, NULL, 0)
                : -ENAMETOOLONG;
        last = key.str;
    }
    return r;
}

/* The changes of a delta in the order of their keys. -ENAMETOOLONG: a key is not ours. */
static int read_delta(beam_replica *replica, const beam_kv_value *map, uint64_t rev,
                      struct bm_changes *changes)
{
    beam_kv_value part;
    int r = 0;
    bm_changes_init(changes, &replica->account);
    if (beam_kv_get(map, "set", &part) == 0)
        r = read_set(replica, &part, rev, changes);
    if (r == 0 && beam_kv_get(map, "delete", &part) == 0)
        r = read_delete(replica, &part, rev, changes);
    return r == 0 ? bm_changes_sort(changes) : r;
}

static void tell_delta(beam_replica *replica, struct bm_changes *changes, uint64_t rev)
{
    for (uint32_t i = 0; i < changes->count && !replica->freed; i++) {
        const struct bm_tree_entry *entry = changes->items[i].entry;
        tell_change(replica, entry, bm_state_is_del(entry), rev);
    }
    bm_changes_done(changes, &replica->state);
    if (!replica->freed)
        tell_commit(replica, rev);
}

static void on_delta(beam_replica *replica, const beam_kv_value *map)
{
    uint64_t rev, own = *own_rev(replica);
    struct bm_state *state = replica->building ? &replica->next.state : &replica->state;
    struct bm_changes changes;
    if (!replica->headed || get_rev(map, "rev", &rev) < 0 || rev <= own ||
        (replica->prefix_len == 0 && rev != own + 1)) {
        give_up_order(replica);
        return;
    }
    int r = read_delta(replica, map, rev, &changes);
    if (r == 0)
        r = bm_changes_apply(&changes, state);
    if (r < 0) {
        bm_changes_clear(&changes);
        if (r == -ENOMEM)
            give_up(replica, BEAM_RESOURCE_EXHAUSTED, "no memory for a change");
        else if (r == -ENAMETOOLONG)
            give_up_key(replica);
        else
            give_up_order(replica);
        return;
    }
    advance(replica, rev);
    if (replica->building)
        bm_changes_done(&changes, state);
    else
        tell_delta(replica, &changes, rev);
}

static void on_mark(beam_replica *replica, const beam_kv_value *map)
{
    uint64_t rev, now;
    if (!replica->headed || get_rev(map, "rev", &rev) < 0 || !is_in_place(replica, rev)) {
        give_up_order(replica);
        return;
    }
    advance(replica, rev);
    replica->owner_rev = get_rev(map, "now", &now) == 0 && now > rev ? now : rev;
}

/* What is different between two states, in the order of the keys. */
static void tell_difference(beam_replica *replica, const struct bm_state *before)
{
    struct bm_tree_iter old_at = bm_tree_seek(&before->tree, NULL, 0, false);
    struct bm_tree_iter new_at = bm_tree_seek(&replica->state.tree, NULL, 0, false);
    const struct bm_tree_entry *old = bm_tree_next(&old_at), *new = bm_tree_next(&new_at);
    while ((old || new) && !replica->freed) {
        beam_str old_key = old ? bm_state_key(old) : (beam_str){NULL, 0};
        beam_str new_key = new ? bm_state_key(new) : (beam_str){NULL, 0};
        int order = !old   ? 1
                    : !new ? -1
                           : bm_key_compare(old_key.ptr, old_key.len, new_key.ptr, new_key.len);
        bool same = order == 0 && bm_state_entry_len(old) == bm_state_entry_len(new) &&
                    memcmp(old->bytes, new->bytes, bm_state_entry_len(new)) == 0;
        if (!same)
            tell_change(replica, order < 0 ? old : new, order < 0, replica->rev);
        if (order <= 0)
            old = bm_tree_next(&old_at);
        if (order >= 0)
            new = bm_tree_next(&new_at);
    }
}

static void on_live(beam_replica *replica, const beam_kv_value *map)
{
    uint64_t rev;
    if (!replica->building || get_rev(map, "rev", &rev) < 0 || !is_in_place(replica, rev)) {
        give_up_order(replica);
        return;
    }
    advance(replica, rev);
    struct bm_state before = replica->state;
    uint64_t watch = replica->watch;
    replica->state = replica->next.state;
    bm_state_init(&replica->next.state, &replica->account);
    replica->building = false;
    replica->epoch = replica->next.epoch;
    replica->rev = rev;
    replica->is = BEAM_REPLICA_STALE; /* not live before all is told, and not empty any more */
    replica->skipped += replica->next.skipped;
    replica->untold += replica->next.skipped;
    replica->snapshots++;
    tell_difference(replica, &before);
    bm_state_clear(&before);
    if (replica->watch == watch)
        tell_live(replica);
}

static const struct {
    const char *kind;
    void (*fn)(beam_replica *replica, const beam_kv_value *map);
} kinds[] = {
    {"delta", on_delta}, {"head", on_head}, {"live", on_live}, {"mark", on_mark}, {"snap", on_snap},
};

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    beam_replica *replica = arg;
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_kv_value map;
    beam_str kind;
    replica->heard_ns = bm_clock_now_ns();
    replica->calls++;
    if (!body || beam_kv_check(body, len, NULL) < 0 || beam_kv_root(body, len, &map) < 0 ||
        beam_kv_get_str(&map, "kind", &kind) < 0) {
        give_up_order(replica);
    } else {
        for (size_t i = 0; i < BM_ARRAY_LEN(kinds); i++)
            if (kind.len == strlen(kinds[i].kind) && memcmp(kind.ptr, kinds[i].kind, kind.len) == 0)
                kinds[i].fn(replica, &map);
    }
    leave(replica);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_replica *replica = arg;
    struct beam_status ended = *status;
    if (ended.code == BEAM_OK) /* a watch has no end of its own */
        ended.code = BEAM_UNKNOWN;
    end_watch(replica);
    replica->calls++;
    tell_stale(replica, &ended);
    leave(replica);
}

static const struct beam_channel_handlers watch_handlers = {
    .on_message = on_message,
    .on_end = on_end,
};

/* --- public ---------------------------------------------------------------------------------- */

static bool is_forked(const beam_replica *replica)
{
    return replica->fork_epoch != bm_fork_epoch_seen();
}

int beam_replica_attach(beam_replica *replica, beam_session *session)
{
    uint8_t room[BEAM_STORE_KEY_LEN_MAX + 256];
    char epoch[BM_EPOCH_TEXT_LEN + 1];
    beam_kv_writer w;
    const void *document;
    size_t len;
    if (is_forked(replica))
        return -BEAM_EFORKED;
    end_watch(replica);
    if (replica->is == BEAM_REPLICA_LIVE)
        replica->is = BEAM_REPLICA_STALE;
    replica->headed = false;
    replica->asked = replica->is != BEAM_REPLICA_EMPTY;
    bm_epoch_write(epoch, replica->epoch);
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    if (replica->prefix_len > 0)
        beam_kv_put_strn(&w, "prefix", replica->prefix, replica->prefix_len);
    if (replica->asked) {
        beam_kv_put_str(&w, "epoch", epoch);
        beam_kv_put_uint(&w, "rev", replica->rev);
    }
    beam_kv_end(&w);
    int r = beam_kv_writer_finish(&w, &document, &len);
    bm_assert(r == 0);
    BEAM_CLEANUP(beam_message_freep) beam_message *message = beam_message_new();
    beam_message_set_body(message, document, len);
    return beam_open(session, replica->service, &message, &watch_handlers, replica, NULL,
                     &replica->channel);
}

int beam_replica_get(const beam_replica *replica, beam_str key, beam_kv_value *ret_value,
                     uint64_t *ret_rev)
{
    if (is_forked(replica))
        return -BEAM_EFORKED;
    return bm_state_get(&replica->state, key, ret_value, ret_rev);
}

int beam_replica_next(const beam_replica *replica, beam_str prefix, beam_str after,
                      beam_str *ret_key, beam_kv_value *ret_value, uint64_t *ret_rev)
{
    if (is_forked(replica))
        return -BEAM_EFORKED;
    return bm_state_next(&replica->state, prefix, after, ret_key, ret_value, ret_rev);
}

int beam_replica_info(const beam_replica *replica, struct beam_replica_info *ret_info)
{
    struct beam_replica_info info = {
        .state = replica->is,
        .epoch = replica->epoch,
        .rev = replica->rev,
        .owner_rev = replica->owner_rev,
        .heard_ns = replica->heard_ns,
        .keys = bm_state_keys(&replica->state),
        .data_len = replica->state.tree.data_len,
        .memory_len = replica->account.used + sizeof(*replica),
        .skipped = replica->skipped,
        .snapshots = replica->snapshots,
    };
    if (is_forked(replica))
        return -BEAM_EFORKED;
    return bm_options_write(ret_info, &info, sizeof(info));
}
