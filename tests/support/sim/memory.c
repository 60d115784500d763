/* Memory that remembers what was freed: a block that goes is filled with a pattern and kept a while, so
 * that whoever still reads it reads nonsense, and whoever still writes it is found out. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/support/sim/inner.h"
#include "uring/sanitize.h"

#define DEAD 0xdb
#define FILLED_MAX 4096u        /* of a large block only the beginning is watched */
#define KEPT 4096u              /* blocks kept, */
#define KEPT_LEN_MAX (1u << 20) /* of those that are not larger than this */

struct kept {
    unsigned char *ptr;
    size_t len;
};

static struct kept kept[KEPT];
static unsigned kept_next;

static size_t watched(size_t len)
{
    return len < FILLED_MAX ? len : FILLED_MAX;
}

static void let_go(struct kept *block)
{
    if (!block->ptr)
        return;
    bm_sanitize_ours(block->ptr, block->len);
    for (size_t i = 0; i < watched(block->len); i++)
        if (block->ptr[i] != DEAD)
            sim_fail("byte %zu of a block of %zu was written after it was freed", i, block->len);
    free(block->ptr);
    block->ptr = NULL;
}

static void keep(void *ptr, size_t len)
{
    memset(ptr, DEAD, watched(len));
    if (len > KEPT_LEN_MAX) {
        free(ptr);
        return;
    }
    struct kept *block = &kept[kept_next++ % KEPT];
    let_go(block);
    *block = (struct kept){ptr, len};
    bm_sanitize_theirs(ptr, len);
}

static bool is_refused(void)
{
    return (sim.fault == SIM_ALLOCATION && sim.allocations == sim.fault_at) ||
           (sim.fault == SIM_ALLOCATIONS && sim.allocations >= sim.fault_at);
}

static void *sim_realloc(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)arg;
    if (new_len == 0) {
        keep(ptr, old_len);
        return NULL;
    }
    sim.allocations++;
    if (is_refused() || sim_chance(sim.odds.no_memory)) {
        sim.scarce = true;
        sim_event("an allocation of %zu bytes is refused", new_len);
        return NULL;
    }
    void *fresh = NULL;
    if (posix_memalign(&fresh, new_len >= 64 ? 64 : 16, new_len) != 0)
        return NULL;
    if (old_len > 0) {
        memcpy(fresh, ptr, old_len < new_len ? old_len : new_len);
        keep(ptr, old_len);
    }
    return fresh;
}

void sim_memory_start(void)
{
    bm_alloc_set(&(struct bm_allocator){.realloc = sim_realloc});
}

void sim_memory_stop(void)
{
    for (unsigned i = 0; i < KEPT; i++)
        let_go(&kept[i]);
    bm_alloc_set(NULL);
}

bool sim_memory_is_dead(const void *ptr)
{
    static const unsigned char dead[16] = {DEAD, DEAD, DEAD, DEAD, DEAD, DEAD, DEAD, DEAD,
                                           DEAD, DEAD, DEAD, DEAD, DEAD, DEAD, DEAD, DEAD};
    return memcmp(ptr, dead, sizeof(dead)) == 0;
}
