/* Intrusive doubly linked list. The head of a list is a node, which an empty list links to itself.
 * A node that is on no list is zeroed, so "is it on a list?" is one test and unlinking twice is
 * harmless. */
#ifndef BM_LIST_H
#define BM_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct bm_list {
    struct bm_list *prev, *next;
};

static inline void bm_list_init(struct bm_list *list)
{
    list->prev = list->next = list;
}

static inline bool bm_list_empty(const struct bm_list *list)
{
    return list->next == list;
}

static inline bool bm_list_linked(const struct bm_list *node)
{
    return node->next != NULL;
}

static inline void bm_list_insert_before(struct bm_list *at, struct bm_list *node)
{
    node->next = at;
    node->prev = at->prev;
    at->prev->next = node;
    at->prev = node;
}

static inline void bm_list_push_back(struct bm_list *list, struct bm_list *node)
{
    bm_list_insert_before(list, node);
}

static inline void bm_list_push_front(struct bm_list *list, struct bm_list *node)
{
    bm_list_insert_before(list->next, node);
}

static inline void bm_list_unlink(struct bm_list *node)
{
    if (!node->next)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = NULL;
}

static inline struct bm_list *bm_list_front(const struct bm_list *list)
{
    return bm_list_empty(list) ? NULL : list->next;
}

static inline struct bm_list *bm_list_pop_front(struct bm_list *list)
{
    struct bm_list *node = bm_list_front(list);
    if (node)
        bm_list_unlink(node);
    return node;
}

/* Moves all of `from` to the end of `to`; `from` is empty afterwards. */
static inline void bm_list_splice_back(struct bm_list *to, struct bm_list *from)
{
    if (bm_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    bm_list_init(from);
}

#define bm_list_entry(node, type, member) bm_container_of(node, type, member)

#endif
