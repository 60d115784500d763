/* Removal shifts the following run back instead of leaving tombstones: a table that sees a million
 * channels come and go stays as it was. */
#include "runtime/table.h"

#include <errno.h>

#include "base/assert.h"

void bm_table_init(struct bm_table *table, struct bm_account *account)
{
    *table = (struct bm_table){.account = account};
}

void bm_table_deinit(struct bm_table *table)
{
    bm_free(table->account, table->slots, table->cap * sizeof(table->slots[0]));
    *table = (struct bm_table){.account = table->account};
}

static void place(struct bm_table_slot *slots, uint32_t cap, uint64_t id, void *value)
{
    uint32_t i = bm_table_home(id, cap);
    while (slots[i].id != 0) {
        bm_assert(slots[i].id != id);
        i = (i + 1) & (cap - 1);
    }
    slots[i] = (struct bm_table_slot){id, value};
}

int bm_table_reserve(struct bm_table *table, uint32_t more)
{
    uint64_t wanted = 2 * ((uint64_t)table->count + more);
    if (wanted <= table->cap)
        return 0;
    uint64_t cap = table->cap ? table->cap : BM_TABLE_CAP_MIN;
    while (cap < wanted)
        cap *= 2;
    if (cap > UINT32_MAX / 2)
        return -ENOMEM;

    struct bm_table_slot *slots = bm_alloc_zero(table->account, cap * sizeof(slots[0]));
    if (!slots)
        return -ENOMEM;
    for (uint32_t i = 0; i < table->cap; i++)
        if (table->slots[i].id != 0)
            place(slots, (uint32_t)cap, table->slots[i].id, table->slots[i].value);
    bm_free(table->account, table->slots, table->cap * sizeof(table->slots[0]));
    table->slots = slots;
    table->cap = (uint32_t)cap;
    return 0;
}

void bm_table_insert(struct bm_table *table, uint64_t id, void *value)
{
    bm_assert(id != 0);
    bm_assert(2 * (table->count + 1) <= table->cap);
    place(table->slots, table->cap, id, value);
    table->count++;
}

void bm_table_remove(struct bm_table *table, uint64_t id)
{
    if (table->count == 0)
        return;
    uint32_t mask = table->cap - 1;
    uint32_t hole = bm_table_home(id, table->cap);
    while (table->slots[hole].id != id) {
        if (table->slots[hole].id == 0)
            return;
        hole = (hole + 1) & mask;
    }

    for (uint32_t i = (hole + 1) & mask; table->slots[i].id != 0; i = (i + 1) & mask) {
        uint32_t home = bm_table_home(table->slots[i].id, table->cap);
        /* Move it back unless its home lies behind the hole, on the way from there to here. */
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table->slots[hole] = table->slots[i];
            hole = i;
        }
    }
    table->slots[hole] = (struct bm_table_slot){0};
    table->count--;
}
