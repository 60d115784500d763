/* What a store holds, and a replica: an ordered map of keys and values, and changes to it that happen
 * as a whole or not at all.
 *
 * A change set is built first, which allocates all it can, then applied, and then done or undone;
 * several may be applied one behind the other, if the first is the first to be done, and the last the
 * first to be undone. Until it is done a key that it deletes is still in the tree, as an entry of the
 * type that stands for that: nobody who looks sees it, and undoing needs no memory. */
#ifndef BM_STORE_STATE_H
#define BM_STORE_STATE_H

#include <beam/kv.h>

#include "kv/record.h"
#include "kv/tree.h"

struct bm_state {
    struct bm_account *account;
    struct bm_tree tree;
    uint64_t dead; /* entries that are deletions */
};

struct bm_change {
    struct bm_tree_entry *entry; /* the tree's once applied */
    struct bm_tree_entry *old;   /* applied: what was there, ours until done or undone; or NULL */
};

struct bm_changes {
    struct bm_account *account;
    struct bm_change *items;
    uint32_t count, cap;
    bool sorted; /* so far */
    bool applied;
};

void bm_state_init(struct bm_state *state, struct bm_account *account);
void bm_state_clear(struct bm_state *state);

static inline bool bm_state_is_del(const struct bm_tree_entry *entry)
{
    return entry->bytes[6] == BM_ENTRY_DEL;
}

static inline uint64_t bm_state_keys(const struct bm_state *state)
{
    return state->tree.count - state->dead;
}

static inline uint64_t bm_state_entry_len(const struct bm_tree_entry *entry)
{
    return bm_entry_at(entry->bytes).len;
}

beam_str bm_state_key(const struct bm_tree_entry *entry);
beam_kv_value bm_state_value(const struct bm_tree_entry *entry);

/* Views, as beam_store_get and beam_store_next have them. */
int bm_state_get(const struct bm_state *state, beam_str key, beam_kv_value *ret_value,
                 uint64_t *ret_rev);
int bm_state_next(const struct bm_state *state, beam_str prefix, beam_str after, beam_str *ret_key,
                  beam_kv_value *ret_value, uint64_t *ret_rev);

/* Puts one block without a change set, for loading: a deletion takes the key away. Consumes the entry,
 * also on -ENOMEM. */
int bm_state_load(struct bm_state *state, struct bm_tree_entry *entry);

void bm_changes_init(struct bm_changes *changes, struct bm_account *account);
/* One more, of any key; value_len bytes of a value of this type. -ENOMEM. */
int bm_changes_add(struct bm_changes *changes, uint64_t rev, beam_str key, uint8_t type,
                   const void *value, size_t value_len);
/* The same of an entry as it lies in a map. */
int bm_changes_copy(struct bm_changes *changes, uint64_t rev, const uint8_t *bytes);
/* In the order of the keys. -EEXIST: one comes twice. */
int bm_changes_sort(struct bm_changes *changes);
/* Without deletions of what is not there. */
void bm_changes_drop_absent(struct bm_changes *changes, const struct bm_state *state);
/* Frees what was not applied. */
void bm_changes_clear(struct bm_changes *changes);

/* 0: the state has them; -ENOMEM: it is as it was. */
int bm_changes_apply(struct bm_changes *changes, struct bm_state *state);
/* By how much the keys, and the bytes of their entries, became more when it was applied, deletions taken for
 * done. */
void bm_changes_growth(const struct bm_changes *changes, int64_t *ret_keys, int64_t *ret_len);
/* There is no way back: what was before is freed. */
void bm_changes_done(struct bm_changes *changes, struct bm_state *state);
/* The state is what it was before; never fails. Deletions of up to told, which were done meanwhile, are
 * not brought back. */
void bm_changes_undo(struct bm_changes *changes, struct bm_state *state, uint64_t told);

#endif
