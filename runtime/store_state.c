/* See store_state.h. The tree knows nothing of values and deletions; all that does is here.
 *
 * Invariant: of the entries with one key that exist, the newest is in the tree, and each other one is
 * the `old` of the change that came behind it. So a change finds its own block in the tree, or it is
 * somebody else's by now, who will free it. */
#include "runtime/store_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "kv/entry.h"

void bm_state_init(struct bm_state *state, struct bm_account *account)
{
    *state = (struct bm_state){.account = account};
    bm_tree_init(&state->tree, account);
}

void bm_state_clear(struct bm_state *state)
{
    bm_tree_clear(&state->tree, state->account);
    state->dead = 0;
}

beam_str bm_state_key(const struct bm_tree_entry *entry)
{
    struct bm_entry e = bm_entry_at(entry->bytes);
    return (beam_str){(const char *)bm_entry_key(&e), e.key_len};
}

beam_kv_value bm_state_value(const struct bm_tree_entry *entry)
{
    beam_kv_value value = {.type = BEAM_KV_NIL};
    (void)beam_kv_root(entry->bytes, bm_entry_at(entry->bytes).len, &value);
    return value;
}

static void tell(const struct bm_tree_entry *entry, beam_kv_value *ret_value, uint64_t *ret_rev)
{
    if (ret_value)
        *ret_value = bm_state_value(entry);
    if (ret_rev)
        *ret_rev = entry->rev;
}

int bm_state_get(const struct bm_state *state, beam_str key, beam_kv_value *ret_value,
                 uint64_t *ret_rev)
{
    const struct bm_tree_entry *entry = bm_tree_find(&state->tree, key.ptr, key.len);
    if (!entry || bm_state_is_del(entry))
        return -ENOENT;
    tell(entry, ret_value, ret_rev);
    return 0;
}

int bm_state_next(const struct bm_state *state, beam_str prefix, beam_str after, beam_str *ret_key,
                  beam_kv_value *ret_value, uint64_t *ret_rev)
{
    bool behind = after.ptr && bm_key_compare(after.ptr, after.len, prefix.ptr ? prefix.ptr : "",
                                              prefix.len) >= 0;
    beam_str from = behind ? after : prefix;
    struct bm_tree_iter iter = bm_tree_seek(&state->tree, from.ptr, from.len, behind);
    const struct bm_tree_entry *entry;
    do
        entry = bm_tree_next(&iter);
    while (entry && bm_state_is_del(entry));
    if (!entry)
        return 0;
    beam_str key = bm_state_key(entry);
    if (key.len < prefix.len || (prefix.len > 0 && memcmp(key.ptr, prefix.ptr, prefix.len) != 0))
        return 0;
    *ret_key = key;
    tell(entry, ret_value, ret_rev);
    return 1;
}

/* Takes out what is known to be there. */
static void take(struct bm_state *state, const struct bm_tree_entry *entry)
{
    beam_str key = bm_state_key(entry);
    struct bm_tree_entry *taken = bm_tree_take(&state->tree, key.ptr, key.len);
    bm_assert(taken == entry);
    state->dead -= bm_state_is_del(taken);
    bm_tree_entry_free(state->account, taken);
}

/* -ENOMEM only where the key is not there. */
static int put(struct bm_state *state, struct bm_tree_entry *entry, struct bm_tree_entry **ret_old)
{
    int r = bm_tree_put(&state->tree, entry, ret_old);
    if (r < 0)
        return r;
    state->dead += bm_state_is_del(entry);
    state->dead -= *ret_old && bm_state_is_del(*ret_old);
    return 0;
}

int bm_state_load(struct bm_state *state, struct bm_tree_entry *entry)
{
    struct bm_tree_entry *old;
    if (bm_state_is_del(entry)) {
        beam_str key = bm_state_key(entry);
        bm_tree_entry_free(state->account, bm_tree_take(&state->tree, key.ptr, key.len));
        bm_tree_entry_free(state->account, entry);
        return 0;
    }
    int r = put(state, entry, &old);
    bm_tree_entry_free(state->account, r < 0 ? entry : old);
    return r;
}

/* --- change sets ----------------------------------------------------------------------------- */

void bm_changes_init(struct bm_changes *changes, struct bm_account *account)
{
    *changes = (struct bm_changes){.account = account, .sorted = true};
}

static void free_items(struct bm_changes *changes)
{
    bm_free(changes->account, changes->items, changes->cap * sizeof(*changes->items));
    changes->items = NULL;
    changes->count = changes->cap = 0;
}

void bm_changes_clear(struct bm_changes *changes)
{
    bm_assert(!changes->applied);
    for (uint32_t i = 0; i < changes->count; i++)
        bm_tree_entry_free(changes->account, changes->items[i].entry);
    free_items(changes);
}

static int add(struct bm_changes *changes, struct bm_tree_entry *entry)
{
    if (!entry)
        return -ENOMEM;
    if (changes->count == changes->cap) {
        uint32_t cap = changes->cap ? changes->cap * 2 : 2;
        struct bm_change *items = bm_realloc(changes->account, changes->items,
                                             changes->cap * sizeof(*items), cap * sizeof(*items));
        if (!items) {
            bm_tree_entry_free(changes->account, entry);
            return -ENOMEM;
        }
        changes->items = items;
        changes->cap = cap;
    }
    if (changes->count > 0 && changes->sorted) {
        beam_str last = bm_state_key(changes->items[changes->count - 1].entry);
        beam_str key = bm_state_key(entry);
        changes->sorted = bm_key_compare(last.ptr, last.len, key.ptr, key.len) < 0;
    }
    changes->items[changes->count++] = (struct bm_change){.entry = entry};
    return 0;
}

int bm_changes_add(struct bm_changes *changes, uint64_t rev, beam_str key, uint8_t type,
                   const void *value, size_t value_len)
{
    return add(changes,
               bm_tree_entry_new(changes->account, rev, type, key.ptr, key.len, value, value_len));
}

int bm_changes_copy(struct bm_changes *changes, uint64_t rev, const uint8_t *bytes)
{
    return add(changes, bm_tree_entry_copy(changes->account, rev, bytes));
}

static int compare_changes(const void *a, const void *b)
{
    beam_str i = bm_state_key(((const struct bm_change *)a)->entry);
    beam_str k = bm_state_key(((const struct bm_change *)b)->entry);
    return bm_key_compare(i.ptr, i.len, k.ptr, k.len);
}

int bm_changes_sort(struct bm_changes *changes)
{
    if (changes->sorted)
        return 0;
    qsort(changes->items, changes->count, sizeof(changes->items[0]), compare_changes);
    for (uint32_t i = 1; i < changes->count; i++)
        if (compare_changes(&changes->items[i - 1], &changes->items[i]) == 0)
            return -EEXIST;
    changes->sorted = true;
    return 0;
}

void bm_changes_drop_absent(struct bm_changes *changes, const struct bm_state *state)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < changes->count; i++) {
        struct bm_change change = changes->items[i];
        if (bm_state_is_del(change.entry) &&
            bm_state_get(state, bm_state_key(change.entry), NULL, NULL) < 0)
            bm_tree_entry_free(changes->account, change.entry);
        else
            changes->items[kept++] = change;
    }
    changes->count = kept;
}

/* The first `count` of them go out of the state again, the last first; their blocks stay ours. */
static void take_back(struct bm_changes *changes, struct bm_state *state, uint32_t count)
{
    while (count-- > 0) {
        struct bm_change *change = &changes->items[count];
        beam_str key = bm_state_key(change->entry);
        struct bm_tree_entry *taken;
        if (change->old) {
            int r = put(state, change->old, &taken);
            bm_assert(r == 0);
        } else {
            taken = bm_tree_take(&state->tree, key.ptr, key.len);
            state->dead -= bm_state_is_del(taken);
        }
        bm_assert(taken == change->entry);
    }
}

int bm_changes_apply(struct bm_changes *changes, struct bm_state *state)
{
    bm_assert(changes->sorted && !changes->applied);
    for (uint32_t i = 0; i < changes->count; i++) {
        if (put(state, changes->items[i].entry, &changes->items[i].old) < 0) {
            take_back(changes, state, i);
            return -ENOMEM;
        }
    }
    changes->applied = true;
    return 0;
}

void bm_changes_growth(const struct bm_changes *changes, int64_t *ret_keys, int64_t *ret_len)
{
    bm_assert(changes->applied);
    *ret_keys = *ret_len = 0;
    for (uint32_t i = 0; i < changes->count; i++) {
        const struct bm_change *change = &changes->items[i];
        if (!bm_state_is_del(change->entry)) {
            *ret_keys += 1;
            *ret_len += (int64_t)bm_state_entry_len(change->entry);
        }
        if (change->old && !bm_state_is_del(change->old)) {
            *ret_keys -= 1;
            *ret_len -= (int64_t)bm_state_entry_len(change->old);
        }
    }
}

void bm_changes_done(struct bm_changes *changes, struct bm_state *state)
{
    bm_assert(changes->applied);
    for (uint32_t i = 0; i < changes->count; i++) {
        struct bm_change *change = &changes->items[i];
        bm_tree_entry_free(changes->account, change->old);
        if (!bm_state_is_del(change->entry))
            continue;
        beam_str key = bm_state_key(change->entry);
        if (bm_tree_find(&state->tree, key.ptr, key.len) == change->entry)
            take(state, change->entry);
    }
    changes->applied = false;
    free_items(changes);
}

void bm_changes_undo(struct bm_changes *changes, struct bm_state *state, uint64_t told)
{
    bm_assert(changes->applied);
    take_back(changes, state, changes->count);
    for (uint32_t i = 0; i < changes->count; i++) {
        struct bm_change *change = &changes->items[i];
        bm_tree_entry_free(changes->account, change->entry);
        if (change->old && bm_state_is_del(change->old) && change->old->rev <= told)
            take(state, change->old);
    }
    changes->applied = false;
    free_items(changes);
}
