/* Making the rings between cores, and emptying them when all has ended.
 *
 * Model: a table of runtime->core_count squared pointers, read by any core and written once each. A
 * path lasts as long as the runtime: its two ends look at it without a lock. What lies in it at the end
 * are pointers to memory, and its sessions are gone. */
#include "runtime/path.h"

#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/peer.h"
#include "runtime/ring.h"

/* Whoever connects first makes the ring; the loser of that race frees its own. */
struct bm_path *bm_path_make(beam_runtime *runtime, unsigned from, unsigned to)
{
    struct bm_path *path = bm_path_between(runtime, from, to);
    if (path)
        return path;
    path = bm_alloc(NULL, sizeof(*path));
    if (!path)
        return NULL;
    bm_spsc_init(&path->ring, BM_PATH_START);
    atomic_init(&path->want_room, 0);
    path->refused = NULL;
    struct bm_path *none = NULL;
    if (!atomic_compare_exchange_strong_explicit(&runtime->paths[to * runtime->core_count + from],
                                                 &none, path, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        bm_free(NULL, path, sizeof(*path));
        return none;
    }
    return path;
}

static void dispose(const struct bm_spsc_slot *slot)
{
    struct bm_peer asker;
    beam_message *message = NULL;
    switch (slot->kind) {
    case BM_SLOT_RETURN:
        bm_ring_take_home(NULL, slot);
        return;
    case BM_SLOT_MSG:
        if (bm_ring_take_asker(slot, &asker))
            bm_peer_clear(&asker);
        message = (beam_message *)(uintptr_t)slot->word[2];
        break;
    case BM_SLOT_SMALL:
        message = (beam_message *)(uintptr_t)slot->word[2];
        break;
    case BM_SLOT_END:
    case BM_SLOT_GOAWAY:
        message = (beam_message *)(uintptr_t)slot->word[3];
        break;
    default:
        return;
    }
    if (message) {
        message->home = NULL;
        beam_message_free(message);
    }
}

void bm_paths_deinit(beam_runtime *runtime)
{
    for (unsigned i = 0; i < runtime->core_count * runtime->core_count; i++) {
        struct bm_path *path = atomic_load_explicit(&runtime->paths[i], memory_order_acquire);
        struct bm_spsc_slot *slot;
        if (!path)
            continue;
        while ((slot = bm_spsc_peek(&path->ring))) {
            dispose(slot);
            bm_spsc_consume(&path->ring);
        }
        bm_free(NULL, path, sizeof(*path));
        atomic_store_explicit(&runtime->paths[i], NULL, memory_order_relaxed);
    }
}
