/* An ordered map of entries in memory: a B+ tree whose leaves point at blocks, each one a revision and
 * an entry (docs/spec/kv.md, K1) as it would lie in a map. Keys are ordered as in a map, K8.
 *
 * It owns its blocks: they come in by bm_tree_put and go out by bm_tree_put, bm_tree_take or
 * bm_tree_clear. What an entry holds is not looked at but for its key and its length, which are the
 * caller's to have right. One thread at a time. */
#ifndef BM_TREE_H
#define BM_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

struct bm_tree_leaf;

struct bm_tree_entry {
    uint64_t rev;
    uint8_t bytes[]; /* one entry, header to padding */
};

struct bm_tree {
    struct bm_account *account; /* pays for the nodes; NULL: nobody */
    void *root;                 /* NULL: empty; the rest is zero then but for `changes` */
    struct bm_tree_leaf *front, *back;
    unsigned height; /* 1: the root is a leaf */
    uint64_t count;
    uint64_t data_len; /* of the bytes of all entries */
    uint64_t changes;  /* goes up with each; an iterator of before is void */
};

/* --- blocks; account is who pays for it, the same for all three --- */

/* A block with a fresh entry; NULL without memory. */
struct bm_tree_entry *bm_tree_entry_new(struct bm_account *account, uint64_t rev, uint8_t type,
                                        const void *key, size_t key_len, const void *value,
                                        size_t value_len);
/* The same of an entry that exists, and whose header is right. */
struct bm_tree_entry *bm_tree_entry_copy(struct bm_account *account, uint64_t rev,
                                         const uint8_t *bytes);
/* Accepts NULL, returns NULL. */
struct bm_tree_entry *bm_tree_entry_free(struct bm_account *account, struct bm_tree_entry *entry);

/* --- the map --- */

void bm_tree_init(struct bm_tree *tree, struct bm_account *account);
/* Frees all blocks (entries: who paid for them) and nodes; it is empty then, and may be used. */
void bm_tree_clear(struct bm_tree *tree, struct bm_account *entries);

/* Puts a block, which is the tree's from then on; *ret_old is the one that had its key, the caller's
 * now, or NULL. -ENOMEM: nothing has changed. Never where the key was there. Keys that come in
 * ascending order fill their leaves, and take no search. */
int bm_tree_put(struct bm_tree *tree, struct bm_tree_entry *entry, struct bm_tree_entry **ret_old);
/* Takes a block out, for the caller to keep or free; NULL: no such key. Never fails otherwise. */
struct bm_tree_entry *bm_tree_take(struct bm_tree *tree, const void *key, size_t len);
/* NULL: no such key. */
struct bm_tree_entry *bm_tree_find(const struct bm_tree *tree, const void *key, size_t len);

/* A place in front of an entry. Void after a change of the tree. */
struct bm_tree_iter {
    struct bm_tree_leaf *leaf;
    unsigned index;
};

/* In front of the first entry at key, or, with behind, behind it. */
struct bm_tree_iter bm_tree_seek(const struct bm_tree *tree, const void *key, size_t len,
                                 bool behind);
/* The next entry, or NULL at the end. */
struct bm_tree_entry *bm_tree_next(struct bm_tree_iter *iter);

/* A place that survives changes, as it holds its key. Zeroed, it stands in front of all. */
struct bm_tree_cursor {
    uint8_t *key;
    uint16_t len, cap;
    bool begun;
};

/* Behind this entry from now on. -ENOMEM: it stays where it was. */
int bm_tree_cursor_save(struct bm_tree_cursor *cursor, struct bm_account *account,
                        const struct bm_tree_entry *entry);
struct bm_tree_iter bm_tree_cursor_resume(const struct bm_tree *tree,
                                          const struct bm_tree_cursor *cursor);
/* In front of all again; its memory is freed. */
void bm_tree_cursor_reset(struct bm_tree_cursor *cursor, struct bm_account *account);

/* For tests: whether all that must hold within it does. */
bool bm_tree_valid(const struct bm_tree *tree);

#endif
