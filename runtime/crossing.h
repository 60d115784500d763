/* A crossing: what comes in on one core is served on another, or on the same one without a session of its
 * own, and so goes there over a session between the two, as a channel. */
#ifndef BM_CROSSING_H
#define BM_CROSSING_H

#include <beam/session.h>

#include "base/list.h"

struct bm_core;

/* One channel that is to be opened there; part of whoever it is for, zeroed before. */
struct bm_crossing {
    struct bm_list node; /* in line */
    bool fds;            /* its message holds some: it may wait for credit of its own */
    /* Opens the channel. 0; -EAGAIN: no room now, it is asked again; else it cannot be. */
    int (*open)(struct bm_crossing *crossing, beam_session *session);
    /* It cannot: the last call. From within bm_crossing_start too. */
    void (*fail)(struct bm_crossing *crossing, int error);
};

/* Opens it on the session to a core (our own too), now or when there is room. Core's thread. */
void bm_crossing_start(struct bm_crossing *crossing, struct bm_core *core, unsigned to);
/* Out of the line, if it stands there. Neither function is called any more. */
void bm_crossing_cancel(struct bm_crossing *crossing);

#endif
