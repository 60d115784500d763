/* Rings between the cores of one runtime: the carrier that moves pointers, and the way home of
 * messages. On the thread of `core`, if not marked otherwise. */
#ifndef BM_RING_H
#define BM_RING_H

#include <beam/session.h>

#include "base/list.h"
#include "uring/spsc.h"

struct bm_core;
struct bm_peer;

/* Opens a session from this core to another (or itself); the caller gets no reference. inner: for what
 * is served there. -BEAM_EURL: there is no such core. -ENOMEM. */
int bm_ring_connect(struct bm_core *core, unsigned to, bool inner, beam_session **ret_session);

/* Sends the memory of a message home to the core it came from, in time: it is collected until a
 * slot is full. */
void bm_ring_return(struct bm_core *core, struct bm_core *home, beam_message *message);
/* What came home in a slot; core NULL: to the allocator. */
void bm_ring_take_home(struct bm_core *core, const struct bm_spsc_slot *slot);
/* On whose behalf a slot opens a channel, to be cleared by the caller; false: it opens none, or we ask
 * ourselves. Once for each slot. Any thread. */
bool bm_ring_take_asker(const struct bm_spsc_slot *slot, struct bm_peer *ret);
/* Frees what is collected; at the end. */
void bm_ring_drop_returns(struct bm_core *core);

/* Whether there is a slot to read, or room for a session that waits for it. */
bool bm_ring_ready(struct bm_core *core);
/* Reads at most budget slots of each ring to this core, and lets sessions that waited for room go
 * on; returns how many of both there were. */
unsigned bm_ring_drain(struct bm_core *core, unsigned budget);

#endif
