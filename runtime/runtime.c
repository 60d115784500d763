/* The runtime: its cores and their threads, from the first to the last.
 *
 *   NEW --beam_start, beam_run, or beam_runtime_new when embedded--> RUNNING --stop--> STOPPED
 *
 * Every core opens its reactor on its own thread; the start is over when all have, or one has failed.
 * Listeners are made at once, so that their errors are told at once, and run on core 0. */
#include "runtime/runtime.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/frame.h"
#include "runtime/listener.h"
#include "runtime/message.h"
#include "runtime/options.h"
#include "runtime/post.h"
#include "runtime/path.h"
#include "runtime/session.h"
#include "runtime/store.h"
#include "runtime/transport.h"

#define FINISH_POLL_MS 100 /* a bound on one wait, should the stop time-out be far off */

/* docs/spec/session.md section 9 */
static const struct beam_limits default_limits = {
    .size = sizeof(struct beam_limits),
    .window = 65536,
    .channels_max = 1024,
    .message_len_max = 16u << 20,
    .large_len_max = 32u << 20,
    .queue_len_max = 4u << 20,
    .fds_max = 64,
    .sessions_uid_max = 256,
    .aborts_per_s = 100,
};

void beam_limits_default(struct beam_limits *ret_limits)
{
    *ret_limits = default_limits;
}

static uint32_t or_default(uint32_t value, uint32_t by_default)
{
    return value ? value : by_default;
}

/* H1: on the wire each is a number of 32 bits with a sign. */
static uint32_t clamp(uint32_t value)
{
    return value < INT32_MAX ? value : INT32_MAX;
}

static struct beam_limits complete(const struct beam_limits *wanted)
{
    struct beam_limits l = *wanted;
    const struct beam_limits *d = &default_limits;
    l.size = sizeof(l);
    l.window = clamp(or_default(l.window, d->window));
    if (l.window < BM_WINDOW_MIN)
        l.window = BM_WINDOW_MIN;
    l.channels_max = clamp(or_default(l.channels_max, d->channels_max));
    l.message_len_max = clamp(or_default(l.message_len_max, d->message_len_max));
    l.large_len_max = or_default(l.large_len_max, d->large_len_max);
    if (l.large_len_max < l.message_len_max)
        l.large_len_max = l.message_len_max;
    l.queue_len_max = or_default(l.queue_len_max, d->queue_len_max);
    l.fds_max = clamp(or_default(l.fds_max, d->fds_max));
    l.sessions_uid_max = or_default(l.sessions_uid_max, d->sessions_uid_max);
    l.aborts_per_s = or_default(l.aborts_per_s, d->aborts_per_s);
    return l;
}

/* --- what others ask ------------------------------------------------------------------------- */

struct beam_limits bm_runtime_limits(const beam_runtime *runtime)
{
    return runtime->limits;
}

const char *bm_runtime_name(const beam_runtime *runtime)
{
    return runtime->name;
}

struct bm_services *bm_runtime_services(beam_runtime *runtime)
{
    return &runtime->services;
}

bool bm_runtime_has_core(const beam_runtime *runtime, const struct bm_core *core)
{
    return core >= runtime->cores && core < runtime->cores + runtime->core_count;
}

static unsigned cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

bool bm_runtime_may_spin(const beam_runtime *runtime)
{
    return runtime->may_spin;
}

unsigned beam_reactor_count(const beam_runtime *runtime)
{
    return runtime->core_count;
}

int beam_reactor_current(void)
{
    const struct bm_core *core = bm_core_current();
    return core ? (int)core->index : -1;
}

const struct beam_transport *bm_transport_find(const beam_runtime *runtime, const char *url)
{
    const struct beam_transport *const *t = runtime->transports;
    for (; *t; t++)
        if (strncmp(url, (*t)->scheme, strlen((*t)->scheme)) == 0)
            return *t;
    return NULL;
}

enum bm_runtime_state bm_runtime_state(const beam_runtime *runtime)
{
    /* acquire; partner: set_state(). */
    return (enum bm_runtime_state)atomic_load_explicit(&runtime->state, memory_order_acquire);
}

static void set_state(beam_runtime *runtime, enum bm_runtime_state state)
{
    pthread_mutex_lock(&runtime->start_lock);
    /* release; partner: bm_runtime_state(). */
    atomic_store_explicit(&runtime->state, state, memory_order_release);
    pthread_cond_broadcast(&runtime->start_cond);
    pthread_mutex_unlock(&runtime->start_lock);
}

/* --- new and free ---------------------------------------------------------------------------- */

static int new_cores(beam_runtime *runtime)
{
    unsigned count = runtime->core_count;
    runtime->cores = bm_alloc_zero(NULL, count * sizeof(runtime->cores[0]));
    runtime->paths = bm_alloc_zero(NULL, (size_t)count * count * sizeof(runtime->paths[0]));
    if (!runtime->cores || !runtime->paths)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        struct bm_core *core = &runtime->cores[i];
        core->runtime = runtime;
        core->index = i;
        bm_pool_init(&core->pool, NULL);
        bm_list_init(&core->channels);
        core->returns = bm_alloc_zero(NULL, count * sizeof(core->returns[0]));
        core->ring_waiting = bm_alloc_zero(NULL, count * sizeof(core->ring_waiting[0]));
        core->hops = bm_alloc_zero(NULL, count * sizeof(core->hops[0]));
        if (!core->returns || !core->ring_waiting || !core->hops)
            return -ENOMEM;
    }
    return 0;
}

/* Cores that new_cores() has made, perhaps not to the end. */
static void free_cores(beam_runtime *runtime)
{
    unsigned count = runtime->core_count;
    for (unsigned i = 0; runtime->cores && i < count; i++) {
        struct bm_core *core = &runtime->cores[i];
        core->reactor = bm_reactor_free(core->reactor);
        bm_core_deinit(core);
        bm_free(NULL, core->returns, count * sizeof(core->returns[0]));
        bm_free(NULL, core->hops, count * sizeof(core->hops[0]));
        bm_free(NULL, core->ring_waiting, count * sizeof(core->ring_waiting[0]));
    }
    bm_free(NULL, runtime->cores, count * sizeof(runtime->cores[0]));
    bm_free(NULL, runtime->paths, (size_t)count * count * sizeof(runtime->paths[0]));
}

int beam_runtime_new(const struct beam_runtime_options *options, beam_runtime **ret_runtime)
{
    struct beam_runtime_options wanted;
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r < 0)
        return r;
    unsigned count = wanted.reactors ? wanted.reactors : 1;
    unsigned transports = 0;
    while (wanted.transports && transports <= BM_TRANSPORTS_MAX && wanted.transports[transports])
        transports++;
    if (count > BEAM_REACTORS_MAX || (wanted.embedded && count != 1) ||
        transports > BM_TRANSPORTS_MAX || wanted.spin > BEAM_SPIN_FOREVER)
        return -EINVAL;

    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = bm_alloc_zero(NULL, sizeof(*runtime));
    if (!runtime)
        return -ENOMEM;
    runtime->options = wanted;
    runtime->early_tail = &runtime->early_posts;
    for (unsigned i = 0; i < transports; i++)
        runtime->transports[i] = wanted.transports[i];
    runtime->limits = complete(&wanted.limits);
    runtime->fork_epoch = bm_fork_epoch();
    runtime->core_count = count;
    /* Before any thread is pinned: a pinned one sees a single CPU. */
    runtime->may_spin = cpus() >= count && !wanted.embedded;
    strncpy(runtime->name, wanted.name ? wanted.name : program_invocation_short_name,
            sizeof(runtime->name) - 1);
    bm_codecs_init(&runtime->codecs);
    bm_services_init(&runtime->services);
    bm_user_sessions_init(&runtime->user_sessions);
    bm_list_init(&runtime->listeners);
    pthread_mutex_init(&runtime->start_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&runtime->start_cond, &monotonic);
    pthread_condattr_destroy(&monotonic);

    r = new_cores(runtime);
    if (r < 0)
        return r;
    if (wanted.embedded) {
        runtime->cores[0].thread = pthread_self();
        r = bm_core_open(&runtime->cores[0]);
        if (r < 0)
            return r;
        bm_runtime_open_core(&runtime->cores[0]);
        set_state(runtime, BM_RUNTIME_RUNNING);
    }
    *ret_runtime = bm_take_ptr(runtime);
    return 0;
}

static void join(beam_runtime *runtime)
{
    for (unsigned i = 0; i < runtime->core_count; i++) {
        struct bm_core *core = &runtime->cores[i];
        if (core->thread_started)
            pthread_join(core->thread, NULL);
        core->thread_started = false;
    }
}

/* An embedded runtime is turned by its host; at the end it turns itself until all is closed. */
static void finish_embedded(beam_runtime *runtime)
{
    struct bm_core *core = &runtime->cores[0];
    struct bm_core *was = bm_core_current();
    if (!core->reactor)
        return;
    bm_core_enter(core);
    beam_runtime_stop(runtime);
    while (!core->quiet && bm_reactor_turn(core->reactor) >= 0) {
        struct pollfd pfd = {.fd = bm_reactor_fd(core->reactor), .events = POLLIN};
        if (!core->quiet)
            (void)poll(&pfd, 1, FINISH_POLL_MS);
    }
    bm_core_close(core);
    if (was != core)
        bm_core_enter(was);
}

/* A child closes its copies of what the kernel gave. The memory stays: other threads were at work in it
 * when it was copied, and whatever the application still holds refers to it. */
static void leave_to_parent(beam_runtime *runtime)
{
    bm_listeners_free(runtime);
    for (unsigned i = 0; i < runtime->core_count; i++)
        if (runtime->cores[i].reactor) {
            bm_stores_leave(&runtime->cores[i]);
            bm_reactor_close(runtime->cores[i].reactor);
        }
}

static void free_left_behind(beam_runtime *runtime)
{
    beam_message *message;
    /* Detached: each is a matter of memory now. */
    for (unsigned i = 0; runtime->cores && i < runtime->core_count; i++)
        bm_message_post_again(&runtime->cores[i]);
    while ((message = bm_message_queue_pop(&runtime->left_behind)))
        beam_message_free(message);
}

/* Whoever waited for one of our cores has seen what became of it. */
static void await_visitors(beam_runtime *runtime)
{
    pthread_mutex_lock(&runtime->start_lock);
    while (runtime->visitors > 0)
        pthread_cond_wait(&runtime->start_cond, &runtime->start_lock);
    pthread_mutex_unlock(&runtime->start_lock);
}

beam_runtime *beam_runtime_free(beam_runtime *runtime)
{
    if (!runtime)
        return NULL;
    if (bm_runtime_forked(runtime)) {
        leave_to_parent(runtime);
        return NULL;
    }
    if (runtime->cores) {
        if (runtime->options.embedded) {
            finish_embedded(runtime);
        } else if (bm_runtime_state(runtime) == BM_RUNTIME_RUNNING) {
            beam_runtime_stop(runtime);
            join(runtime);
        }
    }
    await_visitors(runtime);
    bm_listeners_free(runtime);
    for (unsigned i = 0; runtime->cores && i < runtime->core_count; i++)
        bm_core_detach(&runtime->cores[i]);
    free_left_behind(runtime);
    if (runtime->paths && runtime->cores)
        bm_paths_deinit(runtime);
    free_cores(runtime);
    bm_early_posts_drop(runtime);
    bm_services_deinit(&runtime->services);
    bm_user_sessions_deinit(&runtime->user_sessions);
    pthread_mutex_destroy(&runtime->start_lock);
    pthread_cond_destroy(&runtime->start_cond);
    bm_free(NULL, runtime, sizeof(*runtime));
    return NULL;
}

/* --- threads --------------------------------------------------------------------------------- */

static void report_start(struct bm_core *core, int r)
{
    beam_runtime *runtime = core->runtime;
    pthread_mutex_lock(&runtime->start_lock);
    core->start_error = r;
    runtime->started++;
    pthread_cond_broadcast(&runtime->start_cond);
    pthread_mutex_unlock(&runtime->start_lock);
}

/* All have opened, or one could not: the first error. */
static int await_start(beam_runtime *runtime)
{
    int r = 0;
    pthread_mutex_lock(&runtime->start_lock);
    while (runtime->started < runtime->core_count)
        pthread_cond_wait(&runtime->start_cond, &runtime->start_lock);
    for (unsigned i = 0; i < runtime->core_count && r == 0; i++)
        r = runtime->cores[i].start_error;
    pthread_mutex_unlock(&runtime->start_lock);
    return r;
}

static void leave(beam_runtime *runtime)
{
    if (--runtime->visitors == 0)
        pthread_cond_broadcast(&runtime->start_cond);
    pthread_mutex_unlock(&runtime->start_lock);
}

int bm_runtime_await_core(struct bm_core *core, uint64_t deadline_ns)
{
    beam_runtime *runtime = core->runtime;
    struct timespec until = {
        .tv_sec = (time_t)(deadline_ns / BM_NS_PER_S),
        .tv_nsec = (long)(deadline_ns % BM_NS_PER_S),
    };
    int r = 0;
    /* acquire; partner: bm_runtime_open_core(), which has set the reactor before. */
    if (atomic_load_explicit(&core->open, memory_order_acquire))
        return 0;
    pthread_mutex_lock(&runtime->start_lock);
    runtime->visitors++;
    while (r == 0 && !atomic_load_explicit(&core->open, memory_order_relaxed))
        r = bm_runtime_state(runtime) != BM_RUNTIME_RUNNING
                ? -ESHUTDOWN
                : -pthread_cond_timedwait(&runtime->start_cond, &runtime->start_lock, &until);
    leave(runtime);
    return r;
}

void bm_runtime_await_closed(struct bm_core *core)
{
    beam_runtime *runtime = core->runtime;
    pthread_mutex_lock(&runtime->start_lock);
    runtime->visitors++;
    while (!core->closed)
        pthread_cond_wait(&runtime->start_cond, &runtime->start_lock);
    leave(runtime);
}

void bm_runtime_open_core(struct bm_core *core)
{
    beam_runtime *runtime = core->runtime;
    pthread_mutex_lock(&runtime->start_lock);
    if (core->index == 0)
        bm_listeners_start(core);
    struct bm_early_post *posts = bm_early_posts_take(core);
    /* seq_cst; partner: beam_runtime_stop(), which has stored `stop` before it looks here. */
    atomic_store_explicit(&core->open, true, memory_order_seq_cst);
    pthread_cond_broadcast(&runtime->start_cond);
    pthread_mutex_unlock(&runtime->start_lock);
    bm_early_posts_run(posts);
}

static int turn_core(struct bm_core *core)
{
    beam_runtime *runtime = core->runtime;
    int r = bm_core_open(core);
    report_start(core, r);
    /* Nobody turns before all can: a ring to a core without a reactor leads nowhere. */
    int all = await_start(runtime);
    if (r >= 0 && all >= 0) {
        bm_runtime_open_core(core);
        r = bm_reactor_run(core->reactor);
    }
    bm_core_close(core);
    return all < 0 ? all : r;
}

static void pin(unsigned index)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return;
    unsigned seen = 0;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || seen++ != index)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)sched_setaffinity(0, sizeof(one), &one); /* a hint; it runs without too */
        return;
    }
}

static void *thread_main(void *arg)
{
    struct bm_core *core = arg;
    /* Several reactors with a CPU for each are pinned; a single one goes where there is room. */
    if (core->runtime->core_count > 1 && cpus() >= core->runtime->core_count)
        pin(core->index);
    (void)turn_core(core);
    return NULL;
}

static int start_threads(beam_runtime *runtime, unsigned first)
{
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    if (bm_runtime_state(runtime) != BM_RUNTIME_NEW)
        return -EALREADY;
    set_state(runtime, BM_RUNTIME_RUNNING);
    for (unsigned i = first; i < runtime->core_count; i++) {
        struct bm_core *core = &runtime->cores[i];
        int r = pthread_create(&core->thread, NULL, thread_main, core);
        if (r != 0)
            report_start(core, -r); /* the others see it and give up */
        else
            core->thread_started = true;
    }
    return 0;
}

int beam_start(beam_runtime *runtime)
{
    if (runtime->options.embedded)
        return -EINVAL;
    int r = start_threads(runtime, 0);
    if (r < 0)
        return r;
    r = await_start(runtime);
    if (r < 0) {
        join(runtime);
        set_state(runtime, BM_RUNTIME_STOPPED);
    }
    return r;
}

int beam_run(beam_runtime *runtime)
{
    if (runtime->options.embedded)
        return -EINVAL;
    int r = start_threads(runtime, 1);
    if (r < 0)
        return r;
    r = turn_core(&runtime->cores[0]);
    join(runtime);
    set_state(runtime, BM_RUNTIME_STOPPED);
    return r;
}

void beam_runtime_stop(beam_runtime *runtime)
{
    if (bm_runtime_forked(runtime))
        return;
    /* seq_cst: polled by each core's source, which the sleep protocol looks at again. */
    atomic_store_explicit(&runtime->stop, true, memory_order_seq_cst);
    for (unsigned i = 0; i < runtime->core_count; i++) {
        struct bm_core *core = &runtime->cores[i];
        /* seq_cst; partner: bm_runtime_open_core(). One that opens later looks at `stop` in its first turn. */
        if (atomic_load_explicit(&core->open, memory_order_seq_cst))
            bm_reactor_wake_signal(core->reactor);
    }
}

int beam_runtime_fd(beam_runtime *runtime)
{
    if (!runtime->options.embedded)
        return -EINVAL;
    return bm_reactor_fd(runtime->cores[0].reactor);
}

int beam_runtime_turn(beam_runtime *runtime)
{
    if (!runtime->options.embedded)
        return -EINVAL;
    bm_core_enter(&runtime->cores[0]);
    return bm_reactor_turn(runtime->cores[0].reactor);
}
