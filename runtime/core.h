/* A core: one reactor and all that the runtime keeps for it. Everything in it belongs to that
 * reactor's thread, but for the words that are marked otherwise. */
#ifndef BM_CORE_H
#define BM_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include <beam/beam.h>

#include "base/clock.h"
#include "base/list.h"
#include "runtime/fd_budget.h"
#include "runtime/message_queue.h"
#include "runtime/pool.h"
#include "uring/reactor.h"

#define BM_PACKET_BUFFERS 64u /* receive buffers per core; ours: 4.2 MiB, touched as needed */
#define BM_PACKET_GROUP 1u    /* their number in the ring */
#define BM_RETURNS_BATCH 6u   /* messages sent home at once: what one slot of a ring holds */
#define BM_CONNECT_TIMEOUT_NS (10 * BM_NS_PER_S) /* ours */

/* The session to one core, for what comes in here and is served there, and those that wait for room on
 * it: crossing.c. */
struct bm_hops {
    beam_session *session;  /* NULL: none yet, or closed */
    struct bm_list waiting; /* zeroed until there was a session */
};

/* Messages on their way home to one other core, collected until a slot is full: ring.c. */
struct bm_returns {
    beam_message *messages[BM_RETURNS_BATCH];
    unsigned count;
};

/* What hangs on a core besides its sessions, and has to be gone before it is quiet: a connection of a
 * network. On the core's list from its beginning to its end, and behind that it calls
 * bm_core_check_quiet(). Both calls come from the loop and only begin what they say: none of the list goes
 * inside one. */
struct bm_dependent {
    struct bm_list node;
    const struct bm_dependent_calls *calls;
};
struct bm_dependent_calls {
    void (*drain)(struct bm_dependent *dependent); /* the core stops: end when you are done */
    void (*end)(struct bm_dependent *dependent);   /* ... and has waited long enough: end now */
    /* Memory is short: end, if nothing has been going on for so long. True: it does. NULL: never. */
    bool (*spare)(struct bm_dependent *dependent, uint64_t idle_ns);
};

/* What connections of networks hold on a core; net/memory_budget.c looks after it. */
struct bm_networks {
    struct bm_account account; /* theirs, and their sessions' */
    size_t bodies;             /* of calls, in and out, bytes */
    size_t messages;           /* of their sessions, when they were last counted */
    size_t told;               /* of all three, to the process: */
    _Atomic size_t *total;     /* ... here; relaxed; NULL: never */
    uint64_t counted_ns;
};

struct bm_core {
    /* Aligned, because its neighbours in the array are other threads'. */
    _Alignas(64) beam_runtime *runtime;
    struct bm_reactor *reactor; /* set before `open` */
    _Atomic bool open;          /* seq_cst: other threads may use the reactor from now on */
    unsigned index;
    struct bm_pool pool;

    struct bm_list sessions;
    struct bm_list channels; /* all that exist, gone ones too */
    struct bm_list timers;   /* the application's */
    struct bm_list dialers;
    struct bm_list stores; /* those that were closed too, if anybody may still ask for them */
    struct bm_list dependents;
    struct bm_networks networks;
    struct bm_list notify; /* channels with a callback due */
    struct bm_list notify_sessions;
    struct bm_task notify_task; /* makes those callbacks */
    struct bm_source source;    /* the rings from other cores, and the stop flag */
    struct bm_buffers *packets;
    struct bm_hops *hops;         /* [cores] */
    struct bm_returns *returns;   /* [cores] */
    struct bm_list *ring_waiting; /* [cores]: ring sessions that found the ring there full */
    unsigned ring_waiters;        /* in all of them, and who is still to be refused */
    beam_session *ring_turn;      /* the one of them that goes on just now */
    unsigned ring_turn_left;      /* slots it may still fill before it is the turn of the next */

    struct bm_message_queue unposted; /* freed here, bound to cores whose mailbox was full */
    struct bm_timer unposted_timer;   /* tries again */

    struct bm_list fds_waiting;     /* sessions that were granted fewer fds than they may have */
    struct bm_fd_waiter fds_waiter; /* ... in the process's line while there are any */
    _Atomic bool fds_back;          /* seq_cst: set by whoever gives fds back, polled by `source` */

    struct bm_timer stop_timer; /* the drain has taken long enough */
    bool stopping;              /* the two steps of its end: core.c */
    bool quiet;

    uint64_t messages_sent, messages_received, packets_sent, packets_received;
    uint64_t fds_sent, fds_received;
    uint64_t session_count, channel_count; /* that exist now */
    uint64_t allocs_begin;                 /* the thread's allocations before it was this core's */

    /* The thread that makes and frees the runtime looks after these; */
    pthread_t thread; /* ours, once it is started; embedded: the host's */
    bool thread_started;
    /* ... these are under the runtime's start_lock. */
    unsigned early_posts; /* posts that wait for it to open */
    bool closed;          /* its thread touches nothing of it any more */
    int start_error;
};

/* The core whose thread this is, or NULL. A thread that is the host of several embedded runtimes
 * belongs to the core that it made or turned last. */
struct bm_core *bm_core_current(void);
/* The host turns this one now. */
void bm_core_enter(struct bm_core *core);

/* This thread is the core's: it runs on it, or is the host of an embedded one, which may have several. */
bool bm_core_is_here(const struct bm_core *core);

/* The core of this runtime whose thread this is, or NULL; runtime NULL: the current one. */
struct bm_core *bm_core_here(beam_runtime *runtime);

/* Owner's thread: makes the reactor and all that hangs on it. Errors as bm_reactor_new(). */
int bm_core_open(struct bm_core *core);
/* Owner's thread: gives the reactor's ring and buffers back. Sessions that the application still
 * holds become orphans. */
void bm_core_close(struct bm_core *core);
/* Any thread, once no core runs: the channels that the application still holds forget the core, so
 * that giving them back later is a matter of memory alone. */
void bm_core_detach(struct bm_core *core);
void bm_core_deinit(struct bm_core *core);

/* To be called whenever a session or a listener has ended: a stopping core with nothing left is
 * quiet, and when all are, all end. */
void bm_core_check_quiet(struct bm_core *core);

/* A session that came to us is of this user, as far as is known now: 0, or -EAGAIN if he has
 * sessions_uid_max without it, which spares our own user; -ENOMEM. */
int bm_core_admit(struct bm_core *core, beam_session *session, uint32_t uid);
/* It is over. */
void bm_core_dismiss(struct bm_core *core, beam_session *session);

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
