/* The paths between the cores of one runtime: a ring for each direction of each pair that talks. */
#ifndef BM_PATH_H
#define BM_PATH_H

#include <stdatomic.h>

#include "runtime/runtime.h"
#include "uring/spsc.h"

struct ring_session;

/* Where the indices of a ring begin: a little below their end, so that whatever does not survive the
 * wrap fails with the first messages and not after four thousand million. */
#define BM_PATH_START (UINT32_MAX - 7)

/* A ring with the word by which a producer that found it full asks to be woken. */
struct bm_path {
    struct bm_spsc ring;
    /* Set by the producer (exchange, seq_cst) each time before it looks at the head and may sleep, when it
     * counts as asleep already; taken by the consumer (exchange, seq_cst) after it has published the head.
     * tests/model/path.pml */
    _Alignas(64) _Atomic uint32_t want_room;
    /* The producer's own: ends that wanted a session and are still to hear that there is no memory. */
    _Alignas(64) struct ring_session *refused;
};

/* What a slot is. Its words are ring.c's and ring_home.c's. */
enum {
    BM_SLOT_CONNECT = 1,
    BM_SLOT_HELLO,
    BM_SLOT_MSG,
    BM_SLOT_SMALL, /* a message and what describes it: its first line need not come along */
    BM_SLOT_BODY,
    BM_SLOT_END,
    BM_SLOT_CREDIT,
    BM_SLOT_PING,
    BM_SLOT_GOAWAY,
    BM_SLOT_CLOSE,
    BM_SLOT_RETURN,
};

/* The path to read on `to` and to write on `from`; NULL: nobody has needed it yet. */
static inline struct bm_path *bm_path_between(const beam_runtime *runtime, unsigned from,
                                              unsigned to)
{
    /* acquire; partner: the exchange in bm_path_make(). */
    return atomic_load_explicit(&runtime->paths[to * runtime->core_count + from],
                                memory_order_acquire);
}

/* The same, made when it is missing, on either of the two threads; NULL without memory. */
struct bm_path *bm_path_make(beam_runtime *runtime, unsigned from, unsigned to);

/* Any thread, after all cores have ended: frees what is still in the rings, and the rings. */
void bm_paths_deinit(beam_runtime *runtime);

#endif
