/* The way home: the memory of messages that were freed on another core than they came from.
 *
 * Model: each core collects what belongs to each other one and sends it, a slot full at a time, on the
 * ring that leads there. Nobody is woken for it. Where no ring leads, or it is full, the memory goes to
 * the allocator: a pool that runs dry costs an allocation, and nothing is lost. */
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/path.h"
#include "runtime/ring.h"

/* Pointers, not a chain through the messages: whoever takes them home would follow it from one
 * remote cache line to the next. */
static bool send_home(struct bm_core *core, const struct bm_core *home,
                      const struct bm_returns *returns)
{
    struct bm_path *path = bm_path_between(core->runtime, core->index, home->index);
    struct bm_spsc_slot *slot = path ? bm_spsc_reserve(&path->ring) : NULL;
    if (!slot)
        return false;
    /* No wake: memory can wait, and a sleeping reactor needs none. */
    struct bm_spsc_slot from = {.kind = BM_SLOT_RETURN, .len = (uint16_t)returns->count};
    for (unsigned i = 0; i < returns->count; i++)
        from.word[1 + i] = (uintptr_t)returns->messages[i];
    bm_spsc_put(&path->ring, slot, &from);
    return true;
}

void bm_ring_take_home(struct bm_core *core, const struct bm_spsc_slot *slot)
{
    for (unsigned i = 0; i < slot->len; i++)
        __builtin_prefetch((const void *)(uintptr_t)slot->word[1 + i], 1);
    for (unsigned i = 0; i < slot->len; i++)
        bm_message_take_home(core, (beam_message *)(uintptr_t)slot->word[1 + i]);
}

static void drop_returns(struct bm_returns *returns)
{
    for (unsigned i = 0; i < returns->count; i++)
        bm_message_take_home(NULL, returns->messages[i]);
    returns->count = 0;
}

void bm_ring_return(struct bm_core *core, struct bm_core *home, beam_message *message)
{
    struct bm_returns *returns = &core->returns[home->index];
    returns->messages[returns->count++] = message;
    if (returns->count < BM_RETURNS_BATCH)
        return;
    if (send_home(core, home, returns))
        returns->count = 0;
    else
        drop_returns(returns); /* no ring leads there, or it is full */
}

void bm_ring_drop_returns(struct bm_core *core)
{
    for (unsigned i = 0; i < core->runtime->core_count; i++)
        drop_returns(&core->returns[i]);
}
