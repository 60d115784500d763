/* Blocks with a head: where they stand among the others, and how long they are. */
#include "net/proto/h2_memory.h"

#include <stdint.h>
#include <string.h>

#include "base/assert.h"

struct block {
    struct bm_list node;
    size_t len; /* of all of it */
    bool spare; /* nobody uses it; what follows is aligned to 16 bytes */
};

#define CLASS_LEN 64u

/* Which blocks of this length are alike; BM_H2_SPARE_CLASSES: they are not kept. */
static size_t class_of(size_t len)
{
    size_t class = (len - 1) / CLASS_LEN;
    return class < BM_H2_SPARE_CLASSES ? class : BM_H2_SPARE_CLASSES;
}

/* A block with so many bytes behind its head; 0: there is no such length. */
static size_t len_for(size_t len)
{
    size_t sum;
    if (__builtin_add_overflow(len, sizeof(struct block), &sum))
        return 0;
    size_t class = class_of(sum);
    return class < BM_H2_SPARE_CLASSES ? (class + 1) * CLASS_LEN : sum;
}

void bm_h2_memory_init(struct bm_h2_memory *memory, struct bm_account *account)
{
    *memory = (struct bm_h2_memory){.account = account};
    bm_list_init(&memory->blocks);
    for (unsigned i = 0; i < BM_H2_SPARE_CLASSES; i++)
        bm_list_init(&memory->spare[i]);
}

static void free_list(struct bm_h2_memory *memory, struct bm_list *list)
{
    for (struct bm_list *node; (node = bm_list_pop_front(list)) != NULL;) {
        struct block *block = bm_list_entry(node, struct block, node);
        bm_free(memory->account, block, block->len);
    }
}

void bm_h2_memory_trim(struct bm_h2_memory *memory)
{
    for (unsigned i = 0; i < BM_H2_SPARE_CLASSES; i++)
        free_list(memory, &memory->spare[i]);
    memory->spare_len = 0;
}

void bm_h2_memory_free_all(struct bm_h2_memory *memory)
{
    bm_h2_memory_trim(memory);
    free_list(memory, &memory->blocks);
}

static void *keep(struct bm_h2_memory *memory, struct block *block, size_t len)
{
    block->len = len;
    block->spare = false;
    bm_list_push_back(&memory->blocks, &block->node);
    return block + 1;
}

static struct block *take_spare(struct bm_h2_memory *memory, size_t len)
{
    size_t class = class_of(len);
    struct bm_list *node =
        class < BM_H2_SPARE_CLASSES ? bm_list_pop_front(&memory->spare[class]) : NULL;
    if (!node)
        return NULL;
    memory->spare_len -= len;
    return bm_list_entry(node, struct block, node);
}

static void *get(struct bm_h2_memory *memory, size_t len)
{
    size_t sum = len_for(len);
    struct block *block = sum > 0 ? take_spare(memory, sum) : NULL;
    if (!block && sum > 0)
        block = bm_alloc(memory->account, sum);
    return block ? keep(memory, block, sum) : NULL;
}

void *bm_h2_memory_get(struct bm_h2_memory *memory, size_t len)
{
    void *bytes = get(memory, len);
    return bytes ? memset(bytes, 0, len) : NULL;
}

void *bm_h2_memory_alloc(size_t len, void *user)
{
    struct bm_h2_memory *memory = user;
    void *bytes = get(memory, len);
    memory->refused |= !bytes;
    return bytes;
}

void *bm_h2_memory_calloc(size_t count, size_t len, void *user)
{
    size_t sum;
    if (__builtin_mul_overflow(count, len, &sum))
        sum = SIZE_MAX;
    void *bytes = bm_h2_memory_alloc(sum, user);
    return bytes ? memset(bytes, 0, sum) : NULL;
}

void *bm_h2_memory_realloc(void *bytes, size_t len, void *user)
{
    struct bm_h2_memory *memory = user;
    struct block *block = bytes ? (struct block *)bytes - 1 : NULL;
    size_t sum = len_for(len);
    if (!block)
        return bm_h2_memory_alloc(len, user);
    if (sum > 0 && sum == block->len)
        return bytes;
    bm_list_unlink(&block->node);
    struct block *moved = sum > 0 ? bm_realloc(memory->account, block, block->len, sum) : NULL;
    if (moved)
        return keep(memory, moved, sum);
    keep(memory, block, block->len);
    memory->refused = true;
    return NULL;
}

void bm_h2_memory_free(void *bytes, void *user)
{
    struct bm_h2_memory *memory = user;
    if (!bytes)
        return;
    struct block *block = (struct block *)bytes - 1;
    size_t class = class_of(block->len);
    bm_assert(!block->spare);
    bm_list_unlink(&block->node);
    if (class < BM_H2_SPARE_CLASSES && memory->spare_len + block->len <= BM_H2_SPARE_MAX) {
        block->spare = true;
        bm_list_push_front(&memory->spare[class], &block->node);
        memory->spare_len += block->len;
    } else {
        bm_free(memory->account, block, block->len);
    }
}
