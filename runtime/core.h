/* A core: what the runtime keeps beside one reactor. Everything in it belongs to that reactor's
 * thread, except the rings' far ends and the few words marked otherwise. */
#ifndef BM_CORE_H
#define BM_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include <beam/beam.h>

#include "base/clock.h"
#include "base/list.h"
#include "runtime/pool.h"
#include "uring/reactor.h"

#define BM_PACKET_BUFFERS 64u /* receive buffers per core; ours: 4.2 MiB, touched as needed */
#define BM_PACKET_GROUP 1u
#define BM_RETURNS_BATCH 6u /* messages sent home at once: what one slot of a ring holds */
#define BM_CONNECT_TIMEOUT_NS (10 * BM_NS_PER_S) /* ours */

/* The session to one other core, for what is served there, and what waits for room on it. */
struct bm_hops {
    beam_session *session; /* NULL: none yet, or closed */
    struct bm_list waiting;
};

/* Messages on their way home to one other core. */
struct bm_returns {
    beam_message *messages[BM_RETURNS_BATCH];
    unsigned count;
};

struct bm_core {
    /* Its neighbours in the array are other threads'. */
    _Alignas(64) beam_runtime *runtime;
    struct bm_reactor *reactor; /* set before `open` */
    _Atomic bool open;          /* seq_cst: other threads may use the reactor from now on */
    unsigned index;
    struct bm_pool pool;

    struct bm_list sessions;
    struct bm_list channels; /* all that exist, until it has ended */
    struct bm_list timers;
    struct bm_list notify; /* channels with a callback due */
    struct bm_list notify_sessions;
    struct bm_task notify_task;
    struct bm_source source; /* the rings from other cores, and the stop flag */
    struct bm_buffers *packets;
    struct bm_hops *hops;         /* [cores] */
    struct bm_returns *returns;   /* [cores] */
    struct bm_list *ring_waiting; /* [cores]: ring sessions that found the ring there full */
    unsigned ring_waiters;        /* in all of them, and who is still to be refused */
    beam_session *ring_turn;      /* the one of them that goes on just now */

    beam_message *unposted; /* freed here, bound to cores whose mailbox was full */
    struct bm_timer unposted_timer;

    struct bm_timer stop_timer;
    bool stopping;
    bool quiet;

    uint64_t messages_sent, messages_received, packets_sent, packets_received;
    uint64_t fds_sent, fds_received;
    uint64_t session_count, channel_count;
    uint64_t allocs_begin;

    pthread_t thread; /* ours, once it is started; embedded: the host's */
    bool thread_started;
    unsigned early_posts; /* under start_lock: those that wait for it to open */
    bool closed;          /* under start_lock: its thread touches nothing of it any more */
    int start_error;
};

/* The core whose thread this is, or NULL. */
struct bm_core *bm_core_current(void);
/* Makes it that: a thread may have several embedded ones, and is the one it turned last. */
void bm_core_enter(struct bm_core *core);

/* This thread is the core's: it runs on it, or is the host of an embedded one, which may have several. */
bool bm_core_is_here(const struct bm_core *core);

/* Owner's thread: makes the reactor and all that hangs on it; -BEAM_ENO_IO_URING, -ENOMEM. */
int bm_core_open(struct bm_core *core);
/* Owner's thread: ends what is left. */
void bm_core_close(struct bm_core *core);
/* Any thread, once no core runs: cuts what the application still holds loose from the core, so that
 * giving it back later is a matter of memory alone. */
void bm_core_detach(struct bm_core *core);
void bm_core_deinit(struct bm_core *core);

/* Looks whether a stopping core has nothing left to do. */
void bm_core_check_quiet(struct bm_core *core);

/* Whether the peer of a new session may have one more: those of *other* users are counted. */
bool bm_core_admits(struct bm_core *core, const beam_session *session);

/* A session to another core for what is served there; beam_connect without a URL. */
int bm_core_join(struct bm_core *core, unsigned to, const struct beam_connect_options *options,
                 beam_session **ret_session);

void bm_core_log(struct bm_core *core, enum beam_log_level level, const char *format, ...)
    __attribute__((__format__(__printf__, 3, 4)));

static inline struct bm_pool *bm_core_pool(struct bm_core *core)
{
    return core ? &core->pool : NULL;
}

#endif
