/* From channel id to channel: open addressing with linear probing, at most half full. The
 * peer chooses half of the ids, and may leave gaps of any width: one multiplication mixes them. */
#ifndef BM_TABLE_H
#define BM_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

#define BM_TABLE_CAP_MIN 64u

struct bm_table_slot {
    uint64_t id; /* 0: empty; no channel has the id 0 */
    void *value;
};

struct bm_table {
    struct bm_account *account;
    struct bm_table_slot *slots;
    uint32_t cap; /* a power of two, or 0 */
    uint32_t count;
};

void bm_table_init(struct bm_table *table, struct bm_account *account);
void bm_table_deinit(struct bm_table *table);

/* Makes sure that `more` insertions cannot fail. -ENOMEM. */
int bm_table_reserve(struct bm_table *table, uint32_t more);
void bm_table_insert(struct bm_table *table, uint64_t id, void *value);
void bm_table_remove(struct bm_table *table, uint64_t id);

/* Where the search for an id begins: the upper bits of a product depend on all bits of the id, and the
 * golden ratio spreads what counts upwards (Knuth, volume 3, section 6.4). */
static inline uint32_t bm_table_home(uint64_t id, uint32_t cap)
{
    return (uint32_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - __builtin_ctz(cap)));
}

static inline void *bm_table_find(const struct bm_table *table, uint64_t id)
{
    if (table->count == 0)
        return NULL;
    for (uint32_t i = bm_table_home(id, table->cap);; i = (i + 1) & (table->cap - 1)) {
        if (table->slots[i].id == id)
            return table->slots[i].value;
        if (table->slots[i].id == 0)
            return NULL;
    }
}

#endif
