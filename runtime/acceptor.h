/* An acceptor: a listening socket of any family, accepted from by one core. What becomes of a peer is
 * its user's.
 *
 * Accepting stops for a while after an error. When the process has no fd left one is held in reserve for
 * that time, so that a waiting peer is told (by a close) instead of being left to hang. */
#ifndef BM_ACCEPTOR_H
#define BM_ACCEPTOR_H

#include <stdatomic.h>
#include <stdbool.h>

#include "uring/op.h"
#include "uring/timer.h"

struct bm_core;
struct bm_acceptor;

#define BM_ACCEPT_PAUSE_NS (10 * BM_NS_PER_MS) /* ours: after any error */

struct bm_acceptor_events {
    /* Core's thread: somebody has come; the fd is the user's, non-blocking and close-on-exec. */
    void (*on_socket)(struct bm_acceptor *acceptor, int fd);
    /* Core's thread: it has stopped, and may be freed. Also from inside bm_acceptor_stop. */
    void (*on_stopped)(struct bm_acceptor *acceptor);
};

struct bm_acceptor {
    const struct bm_acceptor_events *events;
    struct bm_core *core; /* once it has started */
    const char *name;     /* for the log; lives as long */
    int fd, reserve_fd;
    _Atomic bool
        shut; /* relaxed: set by bm_acceptor_shut; the kernel tells the core by its own means */
    bool stopping;
    struct bm_op op;
    struct bm_timer pause_timer;
};

/* Any thread. Takes the listening socket. */
void bm_acceptor_init(struct bm_acceptor *acceptor, const struct bm_acceptor_events *events,
                      const char *name, int *fd);
/* Core's thread: accepts from now on. */
void bm_acceptor_start(struct bm_acceptor *acceptor, struct bm_core *core);
/* Any thread: peers are refused from this moment on. The core's stop follows, and until then nothing else. */
void bm_acceptor_shut(struct bm_acceptor *acceptor);
/* Core's thread, once, of one that has started. Shuts it; the accept under way ends when the kernel gets
 * to it. */
void bm_acceptor_stop(struct bm_acceptor *acceptor);
/* Any thread, of one that has stopped or never started: closes what it has. */
void bm_acceptor_deinit(struct bm_acceptor *acceptor);

#endif
