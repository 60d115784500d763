/* The runtime: its cores, services, listeners and options. Set when it is made and then only read,
 * by any thread, but for what is marked otherwise. */
#ifndef BM_RUNTIME_H
#define BM_RUNTIME_H

#include <pthread.h>
#include <stdatomic.h>

#include <beam/beam.h>

#include "base/list.h"
#include "runtime/codec.h"
#include "runtime/core.h"
#include "runtime/message_queue.h"
#include "runtime/service.h"
#include "runtime/user_sessions.h"
#include "uring/forked.h"

struct bm_early_post;
struct bm_path;

enum bm_runtime_state {
    BM_RUNTIME_NEW,
    BM_RUNTIME_RUNNING,
    BM_RUNTIME_STOPPED,
};

#define BM_TRANSPORTS_MAX 8u /* ours: there are six */

struct beam_runtime {
    struct beam_runtime_options options;
    const struct beam_transport *transports[BM_TRANSPORTS_MAX + 1];
    struct beam_limits limits;
    char name[256];
    uint64_t fork_epoch; /* of the process that made it: after a fork it is of no use */
    unsigned core_count;
    bool may_spin; /* a CPU for each reactor */
    struct bm_core *cores;
    /* The rings between cores, [to * core_count + from], so that those a core polls stand together.
     * Made by whoever needs one first; release, acquire by the poller. */
    _Atomic(struct bm_path *) *paths;
    struct bm_codecs codecs; /* changed before the start alone */
    struct bm_services services;
    struct bm_user_sessions user_sessions; /* limits.sessions_uid_max */

    _Atomic bool stop; /* seq_cst: set by beam_runtime_stop, polled by each core's source */
    _Atomic unsigned quiet_count; /* cores with nothing left; acq_rel */
    _Atomic uint8_t state;        /* enum bm_runtime_state; release, acquire */

    struct bm_list listeners; /* under start_lock until core 0 is open, then core 0's */
    pthread_mutex_t start_lock;
    pthread_cond_t start_cond; /* a core has opened, or the start or the runtime is over */
    unsigned visitors; /* threads in a wait for start_cond that are no reactors; under start_lock */
    unsigned started;
    struct bm_message_queue left_behind; /* freed when their core had ended; under start_lock */
    struct bm_early_post *early_posts, **early_tail; /* under start_lock */
};

/* This is a child of the process that made it: its threads are not here. */
static inline bool bm_runtime_forked(const beam_runtime *runtime)
{
    return runtime->fork_epoch != bm_fork_epoch_seen();
}

struct beam_limits bm_runtime_limits(const beam_runtime *runtime);
const char *bm_runtime_name(const beam_runtime *runtime);
struct bm_services *bm_runtime_services(beam_runtime *runtime);
/* A core that has its reactor begins: from now on posts go to its mailbox and listeners to core 0;
 * what came before goes first. Its own thread. */
void bm_runtime_open_core(struct bm_core *core);
/* Waits, on another thread, until a core that is being started has begun: -ESHUTDOWN when it does
 * not, -ETIMEDOUT on bm_clock_now_ns(). */
int bm_runtime_await_core(struct bm_core *core, uint64_t deadline_ns);
/* Waits, on another thread, until a core whose mailbox is shut has put its things away. */
void bm_runtime_await_closed(struct bm_core *core);
enum bm_runtime_state bm_runtime_state(const beam_runtime *runtime);
bool bm_runtime_may_spin(const beam_runtime *runtime);
bool bm_runtime_has_core(const beam_runtime *runtime, const struct bm_core *core);

/* Posts fn(arg) to an open core, however full its mailbox. -ESHUTDOWN. */
int bm_runtime_post(struct bm_core *core, void (*fn)(void *arg), void *arg);

/* Runs fn(arg) on a core, from any thread, and returns when it has run; on the core itself, or when
 * no core runs any more, at once. Not at all in a forked child. */
void bm_runtime_call(struct bm_core *core, void (*fn)(void *arg), void *arg);

#endif
