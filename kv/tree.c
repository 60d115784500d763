/* The B+ tree. A node has up to SLOTS slots, each with the least entry below it and that entry's prefix
 * (entry.h), so that most steps of a search touch the node alone; a leaf's slots are the entries
 * themselves. Leaves are linked.
 *
 * Invariants. Slots ascend. What a slot of an inner node calls its first is the first of the child's
 * slots. No node is empty; the root has two children unless it is a leaf. Of two neighbours under one
 * parent, of which one was thinned out below THIN by taking, the other is too full to be joined with
 * it. What a change needs is allocated before anything is changed, so that a put either happens or
 * leaves all as it was, and a take never fails.
 *
 * A node that overflows at the right edge of the tree leaves its entries where they are, and a new one
 * begins: so ascending keys make full nodes. */
#include "kv/tree.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "kv/entry.h"

#define SLOTS 64u
#define THIN (SLOTS / 4)
#define JOINED_MAX (SLOTS * 3 / 4) /* a joined node takes some more before it is split again */
#define HEIGHT_MAX 16u             /* at THIN children a node: 2^64 entries */

struct node {
    unsigned count;
    uint64_t prefix[SLOTS];
    struct bm_tree_entry *first[SLOTS];
};

struct bm_tree_leaf {
    struct node node;
    struct bm_tree_leaf *prev, *next;
};

struct inner {
    struct node node;
    struct node *child[SLOTS];
};

/* From the root, path[height - 1], down to a leaf, path[0]. */
struct step {
    struct node *node;
    unsigned index;
};

struct key {
    const void *bytes;
    size_t len;
    uint64_t prefix;
};

/* --- blocks ---------------------------------------------------------------------------------- */

static size_t block_len(const struct bm_tree_entry *entry)
{
    return sizeof(*entry) + bm_entry_at(entry->bytes).len;
}

struct bm_tree_entry *bm_tree_entry_new(struct bm_account *account, uint64_t rev, uint8_t type,
                                        const void *key, size_t key_len, const void *value,
                                        size_t value_len)
{
    uint64_t len = bm_entry_len(value_len, key_len);
    struct bm_tree_entry *entry = bm_alloc(account, sizeof(*entry) + len);
    if (!entry)
        return NULL;
    entry->rev = rev;
    bm_put_u64(entry->bytes + len - 8, 0); /* the padding; of an empty entry its header */
    bm_put_u32(entry->bytes, (uint32_t)value_len);
    bm_put_u16(entry->bytes + 4, (uint16_t)key_len);
    entry->bytes[6] = type;
    entry->bytes[7] = 0;
    if (value_len > 0)
        memcpy(entry->bytes + BM_ENTRY_HEADER_LEN, value, value_len);
    if (key_len > 0)
        memcpy(entry->bytes + BM_ENTRY_HEADER_LEN + value_len, key, key_len);
    return entry;
}

struct bm_tree_entry *bm_tree_entry_copy(struct bm_account *account, uint64_t rev,
                                         const uint8_t *bytes)
{
    uint64_t len = bm_entry_at(bytes).len;
    struct bm_tree_entry *entry = bm_alloc(account, sizeof(*entry) + len);
    if (!entry)
        return NULL;
    entry->rev = rev;
    memcpy(entry->bytes, bytes, len);
    return entry;
}

struct bm_tree_entry *bm_tree_entry_free(struct bm_account *account, struct bm_tree_entry *entry)
{
    return entry ? bm_free(account, entry, block_len(entry)) : NULL;
}

/* --- searching ------------------------------------------------------------------------------- */

static struct key key_of(const struct bm_tree_entry *entry)
{
    struct bm_entry e = bm_entry_at(entry->bytes);
    return (struct key){bm_entry_key(&e), e.key_len, bm_entry_prefix(&e)};
}

static struct key key_from(const void *bytes, size_t len)
{
    return (struct key){len > 0 ? bytes : "", len, bm_key_prefix(bytes, len)};
}

static int compare(const struct node *node, unsigned slot, const struct key *key)
{
    if (node->prefix[slot] != key->prefix)
        return node->prefix[slot] < key->prefix ? -1 : 1;
    struct bm_entry e = bm_entry_at(node->first[slot]->bytes);
    return bm_key_compare(bm_entry_key(&e), e.key_len, key->bytes, key->len);
}

/* How many slots are below key; *ret_equal: the one behind them is key. */
static unsigned slots_below(const struct node *node, const struct key *key, bool *ret_equal)
{
    unsigned low = 0, high = node->count;
    *ret_equal = false;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = compare(node, middle, key);
        if (order == 0) {
            *ret_equal = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The way to where key is or would be; true: it is there. The tree is not empty. */
static bool descend(const struct bm_tree *tree, const struct key *key, struct step *path)
{
    struct node *node = tree->root;
    bool equal;
    for (unsigned level = tree->height; level-- > 1;) {
        unsigned below = slots_below(node, key, &equal);
        unsigned index = equal || below == 0 ? below : below - 1;
        path[level] = (struct step){node, index};
        node = ((struct inner *)node)->child[index];
    }
    path[0] = (struct step){node, slots_below(node, key, &equal)};
    return equal;
}

/* The way behind the last entry. */
static void descend_to_end(const struct bm_tree *tree, struct step *path)
{
    struct node *node = tree->root;
    for (unsigned level = tree->height; level-- > 1;) {
        path[level] = (struct step){node, node->count - 1};
        node = ((struct inner *)node)->child[node->count - 1];
    }
    path[0] = (struct step){node, node->count};
}

struct bm_tree_entry *bm_tree_find(const struct bm_tree *tree, const void *key, size_t len)
{
    struct step path[HEIGHT_MAX];
    struct key wanted = key_from(key, len);
    if (!tree->root || !descend(tree, &wanted, path))
        return NULL;
    return path[0].node->first[path[0].index];
}

struct bm_tree_iter bm_tree_seek(const struct bm_tree *tree, const void *key, size_t len,
                                 bool behind)
{
    struct step path[HEIGHT_MAX];
    struct key wanted = key_from(key, len);
    if (!tree->root)
        return (struct bm_tree_iter){NULL, 0};
    bool equal = descend(tree, &wanted, path);
    return (struct bm_tree_iter){(struct bm_tree_leaf *)path[0].node,
                                 path[0].index + (equal && behind)};
}

struct bm_tree_entry *bm_tree_next(struct bm_tree_iter *iter)
{
    while (iter->leaf && iter->index == iter->leaf->node.count)
        *iter = (struct bm_tree_iter){iter->leaf->next, 0};
    return iter->leaf ? iter->leaf->node.first[iter->index++] : NULL;
}

/* --- putting --------------------------------------------------------------------------------- */

void bm_tree_init(struct bm_tree *tree, struct bm_account *account)
{
    *tree = (struct bm_tree){.account = account};
}

static size_t node_len(unsigned level)
{
    return level == 0 ? sizeof(struct bm_tree_leaf) : sizeof(struct inner);
}

/* Inner nodes above `level` learn that its least entry is another, or another block. */
static void tell_first(const struct bm_tree *tree, struct step *path, unsigned level)
{
    const struct node *node = path[level].node;
    for (unsigned up = level + 1; up < tree->height; up++) {
        struct step *step = &path[up];
        step->node->prefix[step->index] = node->prefix[0];
        step->node->first[step->index] = node->first[0];
        if (step->index > 0)
            return;
    }
}

static void open_slot(struct node *node, unsigned level, unsigned at)
{
    size_t behind = node->count - at;
    memmove(&node->prefix[at + 1], &node->prefix[at], behind * sizeof(node->prefix[0]));
    memmove(&node->first[at + 1], &node->first[at], behind * sizeof(node->first[0]));
    if (level > 0) {
        struct node **child = ((struct inner *)node)->child;
        memmove(&child[at + 1], &child[at], behind * sizeof(child[0]));
    }
    node->count++;
}

static void close_slot(struct node *node, unsigned level, unsigned at)
{
    size_t behind = --node->count - at;
    memmove(&node->prefix[at], &node->prefix[at + 1], behind * sizeof(node->prefix[0]));
    memmove(&node->first[at], &node->first[at + 1], behind * sizeof(node->first[0]));
    if (level > 0) {
        struct node **child = ((struct inner *)node)->child;
        memmove(&child[at], &child[at + 1], behind * sizeof(child[0]));
    }
}

/* Moves the slots from `at` on to the end of another node. */
static void move_slots(struct node *from, unsigned at, struct node *to, unsigned level)
{
    unsigned n = from->count - at;
    memcpy(&to->prefix[to->count], &from->prefix[at], n * sizeof(from->prefix[0]));
    memcpy(&to->first[to->count], &from->first[at], n * sizeof(from->first[0]));
    if (level > 0)
        memcpy(&((struct inner *)to)->child[to->count], &((struct inner *)from)->child[at],
               n * sizeof(from->first[0]));
    to->count += n;
    from->count = at;
}

static void link_leaf(struct bm_tree *tree, struct bm_tree_leaf *left, struct bm_tree_leaf *leaf)
{
    leaf->prev = left;
    leaf->next = left->next;
    *(left->next ? &left->next->prev : &tree->back) = leaf;
    left->next = leaf;
}

static void unlink_leaf(struct bm_tree *tree, struct bm_tree_leaf *leaf)
{
    *(leaf->prev ? &leaf->prev->next : &tree->front) = leaf->next;
    *(leaf->next ? &leaf->next->prev : &tree->back) = leaf->prev;
}

/* What is put into one slot: an entry, or at an inner node a child with its least entry. */
struct slot {
    uint64_t prefix;
    struct bm_tree_entry *first;
    struct node *child;
};

static void fill_slot(struct node *node, unsigned level, unsigned at, const struct slot *slot)
{
    open_slot(node, level, at);
    node->prefix[at] = slot->prefix;
    node->first[at] = slot->first;
    if (level > 0)
        ((struct inner *)node)->child[at] = slot->child;
}

/* Puts a slot into a full node, of which a part goes to `fresh`, to the right of it. at_edge: no node
 * of this level is further right. */
static void split(struct bm_tree *tree, struct node *node, struct node *fresh, unsigned level,
                  unsigned at, const struct slot *slot, bool at_edge)
{
    fresh->count = 0;
    if (at < SLOTS || !at_edge)
        move_slots(node, SLOTS / 2, fresh, level);
    if (at > node->count || node->count == SLOTS)
        fill_slot(fresh, level, at - node->count, slot);
    else
        fill_slot(node, level, at, slot);
    if (level == 0)
        link_leaf(tree, (struct bm_tree_leaf *)node, (struct bm_tree_leaf *)fresh);
}

/* Nodes for all that will be split, and a root above; fresh[0] is the leaf. -ENOMEM: none. */
static int reserve(struct bm_tree *tree, const struct step *path, struct node **fresh)
{
    unsigned n = 0;
    while (n < tree->height && path[n].node->count == SLOTS)
        n++;
    if (n == tree->height)
        n++;
    else if (n == 0)
        return 0;
    bm_assert(n <= HEIGHT_MAX);
    for (unsigned level = 0; level < n; level++) {
        fresh[level] = bm_alloc(tree->account, node_len(level));
        if (!fresh[level]) {
            while (level-- > 0)
                bm_free(tree->account, fresh[level], node_len(level));
            return -ENOMEM;
        }
    }
    return 0;
}

static void insert(struct bm_tree *tree, struct step *path, struct node **fresh,
                   const struct slot *entry)
{
    struct slot slot = *entry;
    bool at_edge = (struct bm_tree_leaf *)path[0].node == tree->back;
    for (unsigned level = 0; level < tree->height; level++) {
        struct step *step = &path[level];
        unsigned at = level == 0 ? step->index : step->index + 1;
        if (step->node->count < SLOTS) {
            fill_slot(step->node, level, at, &slot);
            if (level == 0 && at == 0)
                tell_first(tree, path, 0);
            return;
        }
        split(tree, step->node, fresh[level], level, at, &slot, at_edge);
        if (level == 0 && at == 0)
            tell_first(tree, path, 0);
        slot = (struct slot){fresh[level]->prefix[0], fresh[level]->first[0], fresh[level]};
    }
    /* The root was split. */
    struct node *left = tree->root, *root = fresh[tree->height];
    unsigned level = tree->height++;
    root->count = 0;
    fill_slot(root, level, 0, &(struct slot){left->prefix[0], left->first[0], left});
    fill_slot(root, level, 1, &slot);
    tree->root = root;
}

static int begin(struct bm_tree *tree)
{
    struct bm_tree_leaf *leaf = bm_alloc(tree->account, sizeof(*leaf));
    if (!leaf)
        return -ENOMEM;
    leaf->node.count = 0;
    leaf->prev = leaf->next = NULL;
    tree->root = leaf;
    tree->front = tree->back = leaf;
    tree->height = 1;
    return 0;
}

int bm_tree_put(struct bm_tree *tree, struct bm_tree_entry *entry, struct bm_tree_entry **ret_old)
{
    struct step path[HEIGHT_MAX];
    struct node *fresh[HEIGHT_MAX];
    struct key key = key_of(entry);
    uint64_t len = bm_entry_at(entry->bytes).len;
    bool there = false;
    if (!tree->root && begin(tree) < 0)
        return -ENOMEM;

    if (tree->count == 0 || compare(&tree->back->node, tree->back->node.count - 1, &key) < 0)
        descend_to_end(tree, path);
    else
        there = descend(tree, &key, path);
    if (there) {
        struct bm_tree_entry **place = &path[0].node->first[path[0].index];
        *ret_old = *place;
        tree->data_len += len - bm_entry_at((*place)->bytes).len;
        *place = entry;
        if (path[0].index == 0)
            tell_first(tree, path, 0);
        tree->changes++;
        return 0;
    }
    if (reserve(tree, path, fresh) < 0)
        return -ENOMEM;
    insert(tree, path, fresh, &(struct slot){.prefix = key.prefix, .first = entry});
    tree->count++;
    tree->data_len += len;
    tree->changes++;
    *ret_old = NULL;
    return 0;
}

/* --- taking ---------------------------------------------------------------------------------- */

static void free_node(struct bm_tree *tree, struct node *node, unsigned level)
{
    if (level == 0)
        unlink_leaf(tree, (struct bm_tree_leaf *)node);
    bm_free(tree->account, node, node_len(level));
}

/* Joins a node that has become thin with a neighbour, if both fit; returns which slot of the parent is
 * to go, or -1. */
static int join(struct bm_tree *tree, struct step *step, struct step *up, unsigned level)
{
    struct inner *parent = (struct inner *)up->node;
    struct node *node = step->node;
    if (node->count == 0) {
        free_node(tree, node, level);
        return (int)up->index;
    }
    if (node->count >= THIN)
        return -1;
    for (unsigned i = 0; i < 2; i++) {
        unsigned left = up->index - (i == 0 ? 0 : 1), right = left + 1;
        if (left >= up->node->count || right >= up->node->count) /* there is no such neighbour */
            continue;
        if (parent->child[left]->count + parent->child[right]->count > JOINED_MAX)
            continue;
        struct node *gone = parent->child[right];
        move_slots(gone, 0, parent->child[left], level);
        free_node(tree, gone, level);
        return (int)right;
    }
    return -1;
}

struct bm_tree_entry *bm_tree_take(struct bm_tree *tree, const void *key, size_t len)
{
    struct step path[HEIGHT_MAX];
    struct key wanted = key_from(key, len);
    if (!tree->root || !descend(tree, &wanted, path))
        return NULL;

    struct bm_tree_entry *entry = path[0].node->first[path[0].index];
    tree->count--;
    tree->data_len -= bm_entry_at(entry->bytes).len;
    tree->changes++;
    unsigned gone = path[0].index;
    for (unsigned level = 0;; level++) {
        struct node *node = path[level].node;
        close_slot(node, level, gone);
        if (gone == 0 && node->count > 0)
            tell_first(tree, path, level);
        if (level + 1 == tree->height)
            break;
        int r = join(tree, &path[level], &path[level + 1], level);
        if (r < 0)
            break;
        gone = (unsigned)r;
    }
    struct node *root = tree->root;
    while (tree->height > 1 && root->count == 1) {
        struct node *child = ((struct inner *)root)->child[0];
        tree->height--;
        bm_free(tree->account, root, sizeof(struct inner));
        tree->root = root = child;
    }
    if (root->count == 0) {
        free_node(tree, root, 0);
        tree->root = NULL;
        tree->height = 0;
    }
    return entry;
}

static void free_nodes(struct bm_tree *tree, struct node *node, unsigned level)
{
    if (level > 0)
        for (unsigned i = 0; i < node->count; i++)
            free_nodes(tree, ((struct inner *)node)->child[i], level - 1);
    bm_free(tree->account, node, node_len(level));
}

void bm_tree_clear(struct bm_tree *tree, struct bm_account *entries)
{
    for (struct bm_tree_leaf *leaf = tree->front; leaf; leaf = leaf->next)
        for (unsigned i = 0; i < leaf->node.count; i++)
            bm_tree_entry_free(entries, leaf->node.first[i]);
    if (tree->root)
        free_nodes(tree, tree->root, tree->height - 1);
    *tree = (struct bm_tree){.account = tree->account, .changes = tree->changes + 1};
}

/* --- the cursor ------------------------------------------------------------------------------ */

int bm_tree_cursor_save(struct bm_tree_cursor *cursor, struct bm_account *account,
                        const struct bm_tree_entry *entry)
{
    struct bm_entry e = bm_entry_at(entry->bytes);
    if (e.key_len > cursor->cap) {
        uint8_t *key = bm_realloc(account, cursor->key, cursor->cap, e.key_len);
        if (!key)
            return -ENOMEM;
        cursor->key = key;
        cursor->cap = e.key_len;
    }
    if (e.key_len > 0)
        memcpy(cursor->key, bm_entry_key(&e), e.key_len);
    cursor->len = e.key_len;
    cursor->begun = true;
    return 0;
}

struct bm_tree_iter bm_tree_cursor_resume(const struct bm_tree *tree,
                                          const struct bm_tree_cursor *cursor)
{
    return bm_tree_seek(tree, cursor->key, cursor->len, cursor->begun);
}

void bm_tree_cursor_reset(struct bm_tree_cursor *cursor, struct bm_account *account)
{
    bm_free(account, cursor->key, cursor->cap);
    *cursor = (struct bm_tree_cursor){.key = NULL};
}

/* --- for tests ------------------------------------------------------------------------------- */

struct walk {
    const struct bm_tree_leaf *leaf; /* the next one in the chain */
    const struct bm_tree_leaf *before;
    const struct bm_tree_entry *last;
    uint64_t count, data_len;
};

static bool leaf_valid(const struct bm_tree_leaf *leaf, struct walk *walk)
{
    if (leaf != walk->leaf || leaf->prev != walk->before)
        return false;
    for (unsigned i = 0; i < leaf->node.count; i++) {
        struct bm_tree_entry *entry = leaf->node.first[i];
        struct key key = key_of(entry);
        if (key.prefix != leaf->node.prefix[i])
            return false;
        if (walk->last) {
            struct key last = key_of(walk->last);
            if (bm_key_compare(last.bytes, last.len, key.bytes, key.len) >= 0)
                return false;
        }
        walk->last = entry;
        walk->count++;
        walk->data_len += bm_entry_at(entry->bytes).len;
    }
    walk->before = leaf;
    walk->leaf = leaf->next;
    return true;
}

static bool node_valid(const struct node *node, unsigned level, struct walk *walk)
{
    if (node->count == 0 || node->count > SLOTS)
        return false;
    if (level == 0)
        return leaf_valid((const struct bm_tree_leaf *)node, walk);
    for (unsigned i = 0; i < node->count; i++) {
        const struct node *child = ((const struct inner *)node)->child[i];
        if (!node_valid(child, level - 1, walk) || node->first[i] != child->first[0] ||
            node->prefix[i] != child->prefix[0])
            return false;
    }
    return true;
}

bool bm_tree_valid(const struct bm_tree *tree)
{
    struct walk walk = {.leaf = tree->front};
    const struct node *root = tree->root;
    if (!root)
        return tree->height == 0 && tree->count == 0 && tree->data_len == 0 && !tree->front &&
               !tree->back;
    return (tree->height == 1 || root->count > 1) && node_valid(root, tree->height - 1, &walk) &&
           !walk.leaf && walk.before == tree->back && walk.count == tree->count &&
           walk.data_len == tree->data_len;
}
