/* One core's beginning, turning and end. The end has two steps: *stopping* (no new sessions, the old
 * ones drain, until the stop time is over), then *quiet* (nothing left); a quiet core goes on turning
 * until all are, because the others' ring sessions may still need its answer. */
#include "runtime/core.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/channel.h"
#include "runtime/dialers.h"
#include "runtime/frame.h"
#include "runtime/listener.h"
#include "runtime/message.h"
#include "runtime/options.h"
#include "runtime/ring.h"
#include "runtime/runtime.h"
#include "runtime/session.h"
#include "runtime/store.h"
#include "runtime/app_timer.h"
#include "runtime/transport.h"
#include "runtime/unix_control.h"
#include "uring/packet.h"

static _Thread_local struct bm_core *current;

struct bm_core *bm_core_current(void)
{
    return current;
}

void bm_core_enter(struct bm_core *core)
{
    current = core;
}

bool bm_core_is_here(const struct bm_core *core)
{
    return core == current ||
           (core->runtime->options.embedded && pthread_equal(core->thread, pthread_self()));
}

struct bm_core *bm_core_here(beam_runtime *runtime)
{
    if (current && (!runtime || current->runtime == runtime))
        return current;
    return runtime && runtime->options.embedded && bm_core_is_here(&runtime->cores[0])
               ? &runtime->cores[0]
               : NULL;
}

void bm_core_log(struct bm_core *core, enum beam_log_level level, const char *format, ...)
{
    const struct beam_runtime_options *options = &core->runtime->options;
    char text[512];
    if (!options->log)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    options->log(level, text, options->log_arg);
}

/* --- callbacks that are due ------------------------------------------------------------------ */

static void run_notify(struct bm_task *task)
{
    struct bm_core *core = bm_list_entry(task, struct bm_core, notify_task);
    struct bm_list due, sessions_due;
    struct bm_list *node;
    /* What these cause is told in the next round, so that two ends cannot keep each other here. */
    bm_list_init(&due);
    bm_list_init(&sessions_due);
    bm_list_splice_back(&due, &core->notify);
    bm_list_splice_back(&sessions_due, &core->notify_sessions);
    while ((node = bm_list_pop_front(&due)))
        bm_channel_run_due(bm_list_entry(node, beam_channel, notify_node));
    while ((node = bm_list_pop_front(&sessions_due)))
        bm_session_run_due(bm_list_entry(node, beam_session, notify_node));
}

static void on_unposted(struct bm_timer *timer)
{
    bm_message_post_again(bm_list_entry(timer, struct bm_core, unposted_timer));
}

/* --- stopping -------------------------------------------------------------------------------- */

static void end_sessions(struct bm_core *core)
{
    /* They stay where they are seen: each that goes asks whether it was the last. */
    struct bm_list *node = core->sessions.next;
    while (node != &core->sessions) {
        beam_session *session = bm_list_entry(node, beam_session, node);
        node = node->next;
        bm_session_ref(session);
        bm_session_lost(session, BEAM_CANCELLED, "the runtime has stopped");
        bm_session_unref(session);
    }
}

static void tell_dependents(struct bm_core *core, bool end)
{
    for (struct bm_list *n = core->dependents.next; n != &core->dependents; n = n->next) {
        struct bm_dependent *dependent = bm_list_entry(n, struct bm_dependent, node);
        if (end)
            dependent->calls->end(dependent);
        else
            dependent->calls->drain(dependent);
    }
}

static void on_stop_timeout(struct bm_timer *timer)
{
    struct bm_core *core = bm_list_entry(timer, struct bm_core, stop_timer);
    end_sessions(core);
    tell_dependents(core, true);
}

static void begin_stop(struct bm_core *core)
{
    beam_runtime *runtime = core->runtime;
    uint64_t timeout = runtime->options.stop_timeout_ns;
    core->stopping = true;
    bm_listeners_stop(core);
    bm_stores_stop(core); /* who follows one would keep his session from its end */

    struct bm_list *node = core->sessions.next;
    while (node != &core->sessions) {
        beam_session *session = bm_list_entry(node, beam_session, node);
        node = node->next;
        bm_session_ref(session);
        beam_session_drain(session);
        bm_session_unref(session);
    }
    tell_dependents(core, false);
    bm_timer_arm(core->reactor, &core->stop_timer,
                 bm_clock_after(bm_reactor_now_ns(core->reactor), timeout ? timeout : BEAM_SEC));
    bm_core_check_quiet(core);
}

/* Sessions whose handle the application still holds are no longer waited for once closed. */
static bool sessions_are_closed(const struct bm_core *core)
{
    for (struct bm_list *n = core->sessions.next; n != &core->sessions; n = n->next) {
        const beam_session *session = bm_list_entry(n, beam_session, node);
        if (session->state != BM_SESSION_CLOSED || session->refs > (session->handle ? 1u : 0u))
            return false;
    }
    return true;
}

void bm_core_check_quiet(struct bm_core *core)
{
    beam_runtime *runtime = core->runtime;
    bool listens = core->index == 0 && !bm_list_empty(&runtime->listeners);
    if (!core->stopping || core->quiet || listens || !sessions_are_closed(core) ||
        !bm_list_empty(&core->dependents))
        return;
    if (!bm_stores_close(core) || core->quiet) /* the last of them asks again */
        return;
    core->quiet = true;
    bm_timer_cancel(core->reactor, &core->stop_timer);
    /* acq_rel: the last core to be quiet sees all that the others did. */
    if (atomic_fetch_add_explicit(&runtime->quiet_count, 1, memory_order_acq_rel) + 1 <
        runtime->core_count)
        return;
    for (unsigned i = 0; i < runtime->core_count; i++)
        bm_reactor_stop(runtime->cores[i].reactor);
}

/* --- what is polled -------------------------------------------------------------------------- */

static bool source_ready(struct bm_source *source)
{
    struct bm_core *core = bm_list_entry(source, struct bm_core, source);
    if (BM_UNLIKELY(!core->stopping &&
                    atomic_load_explicit(&core->runtime->stop, memory_order_seq_cst)))
        return true;
    if (BM_UNLIKELY(atomic_load_explicit(&core->fds_back, memory_order_seq_cst)))
        return true;
    return bm_ring_ready(core);
}

static unsigned source_drain(struct bm_source *source, unsigned budget)
{
    struct bm_core *core = bm_list_entry(source, struct bm_core, source);
    unsigned n = 0;
    if (BM_UNLIKELY(!core->stopping &&
                    atomic_load_explicit(&core->runtime->stop, memory_order_seq_cst))) {
        begin_stop(core);
        n++;
    }
    if (BM_UNLIKELY(atomic_load_explicit(&core->fds_back, memory_order_seq_cst))) {
        atomic_store_explicit(&core->fds_back, false, memory_order_seq_cst);
        bm_session_share_fds(core);
        n++;
    }
    n += bm_ring_drain(core, budget);
    if (BM_UNLIKELY(core->stopping && !core->quiet))
        bm_core_check_quiet(core);
    return n;
}

/* Somebody has given fds back. The lock of the line keeps the reactor alive. */
static void wake_for_fds(struct bm_fd_waiter *waiter)
{
    struct bm_core *core = bm_list_entry(waiter, struct bm_core, fds_waiter);
    /* seq_cst: polled by the core's source, which the sleep protocol looks at again. */
    if (!atomic_exchange_explicit(&core->fds_back, true, memory_order_seq_cst))
        bm_reactor_wake(core->reactor);
}

/* --- beginning and end ----------------------------------------------------------------------- */

int bm_core_open(struct bm_core *core)
{
    beam_runtime *runtime = core->runtime;
    struct bm_reactor *reactor;
    struct bm_reactor_options options = {
        .spin = (enum bm_spin)runtime->options.spin,
        .embedded = runtime->options.embedded,
        .may_spin = bm_runtime_may_spin(runtime),
        .family = runtime,
    };
    current = core;
    int r = bm_reactor_new(&options, &reactor);
    if (r >= 0) {
        r = bm_buffers_new(reactor, BM_PACKET_GROUP,
                           (uint32_t)(BM_PACKET_OVERHEAD + BM_UNIX_CONTROL_LEN + BM_FRAME_LEN_MAX),
                           BM_PACKET_BUFFERS, &core->packets);
        if (r < 0)
            bm_reactor_free(reactor);
    }
    if (r < 0) {
        current = NULL;
        return r;
    }
    core->reactor = reactor;
    core->networks.account.parent = bm_reactor_account(reactor);
    core->allocs_begin = bm_alloc_count_thread();
    bm_list_init(&core->sessions);
    bm_list_init(&core->timers);
    bm_list_init(&core->dialers);
    bm_list_init(&core->stores);
    bm_list_init(&core->dependents);
    bm_list_init(&core->notify);
    bm_list_init(&core->notify_sessions);
    bm_list_init(&core->fds_waiting);
    core->fds_waiter.wake = wake_for_fds;
    for (unsigned i = 0; i < runtime->core_count; i++)
        bm_list_init(&core->ring_waiting[i]);
    core->notify_task.fn = run_notify;
    bm_timer_init(&core->stop_timer, on_stop_timeout);
    bm_timer_init(&core->unposted_timer, on_unposted);
    core->source.ready = source_ready;
    core->source.drain = source_drain;
    bm_source_add(reactor, &core->source);
    return 0;
}

void bm_core_close(struct bm_core *core)
{
    struct bm_reactor *reactor = core->reactor;
    if (!reactor)
        return;
    bm_reactor_shut(reactor);
    bm_timer_cancel(reactor, &core->stop_timer);
    bm_timer_cancel(reactor, &core->unposted_timer);
    bm_source_remove(reactor, &core->source);
    bm_timers_stop(core);
    bm_dialers_free(core);
    core->packets = bm_buffers_free(core->packets);
    bm_reactor_close(reactor);
    bm_stores_free(core);
    bm_fd_budget_leave(&core->fds_waiter);
    if (atomic_load_explicit(&core->fds_back, memory_order_seq_cst))
        bm_fd_budget_pass_on(&core->fds_waiter, 0, false); /* it was woken and has not looked */
    /* Behind the last mail, which was run just now: it may have freed or made timers, and freed messages. */
    bm_timers_free(core);
    bm_ring_drop_returns(core);
    /* Handles the application did not give back: their memory stays its own to free, and nothing else
     * can be done with them. Behind the last mail, which may be a call on one of them whose caller has
     * not waited for it: until here who gives one back waits for us. */
    struct bm_list *node;
    while ((node = bm_list_pop_front(&core->sessions)))
        bm_session_orphan(bm_list_entry(node, beam_session, node));
    if (core->networks.total)
        atomic_fetch_sub_explicit(core->networks.total, core->networks.told, memory_order_relaxed);
    current = NULL;
    pthread_mutex_lock(&core->runtime->start_lock);
    core->closed = true;
    pthread_cond_broadcast(&core->runtime->start_cond);
    pthread_mutex_unlock(&core->runtime->start_lock);
}

void bm_core_detach(struct bm_core *core)
{
    struct bm_list *node;
    while ((node = bm_list_front(&core->channels)))
        bm_channel_orphan(bm_list_entry(node, beam_channel, core_node));
}

/* --- sessions -------------------------------------------------------------------------------- */

int bm_core_admit(struct bm_core *core, beam_session *session, uint32_t uid)
{
    if (session->user_counted && session->user == uid)
        return 0;
    bm_core_dismiss(core, session);
    /* Where we have gone ourselves is our own affair. */
    if (session->opener || uid == getuid())
        return 0;
    int r = bm_user_sessions_enter(&core->runtime->user_sessions, uid,
                                   session->limits.sessions_uid_max);
    if (r < 0)
        return r;
    session->user = uid;
    session->user_counted = true;
    return 0;
}

void bm_core_dismiss(struct bm_core *core, beam_session *session)
{
    if (session->user_counted)
        bm_user_sessions_leave(&core->runtime->user_sessions, session->user);
    session->user_counted = false;
}

static void on_connect_timeout(struct bm_timer *timer)
{
    beam_session *session = bm_list_entry(timer, beam_session, hello_timer);
    session->connect_error = -ETIMEDOUT;
    bm_session_lost(session, BEAM_UNAVAILABLE, "no answer from the peer in time");
}

/* The application's handle, and its time to come up. */
static beam_session *hand_out(struct bm_core *core, beam_session *session,
                              const struct beam_connect_options *options)
{
    uint64_t timeout = options && options->timeout_ns ? options->timeout_ns : BM_CONNECT_TIMEOUT_NS;
    session->hello_timer.fn = on_connect_timeout;
    bm_timer_arm(core->reactor, &session->hello_timer,
                 bm_clock_after(bm_reactor_now_ns(core->reactor), timeout));
    session->handle = true;
    if (options)
        bm_session_set_handlers(session, options->handlers, options->arg);
    return bm_session_ref(session);
}

int beam_connect(beam_runtime *runtime, const char *url, const struct beam_connect_options *options,
                 beam_session **ret_session)
{
    struct bm_core *core = bm_core_here(runtime);
    struct beam_connect_options wanted;
    beam_session *session;
    int r;
    if (!core)
        return -EPERM;
    if (!url)
        return -EINVAL;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    if (core->stopping)
        return -ESHUTDOWN;
    r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r < 0)
        return r;

    if (strncmp(url, "ring:", 5) == 0) {
        char *end;
        unsigned long to = strtoul(url + 5, &end, 10);
        if (url[5] < '0' || url[5] > '9' || *end || to >= runtime->core_count)
            return -BEAM_EURL;
        r = wanted.net ? -EINVAL : bm_ring_connect(core, (unsigned)to, false, &session);
    } else {
        const struct beam_transport *transport = bm_transport_find(runtime, url);
        r = transport && transport->connect ? transport->connect(core, url, &wanted, &session)
                                            : -BEAM_EURL;
    }
    if (r < 0)
        return r;
    *ret_session = hand_out(core, session, &wanted);
    return 0;
}

int bm_core_join(struct bm_core *core, unsigned to, const struct beam_connect_options *options,
                 beam_session **ret_session)
{
    beam_session *session;
    if (core->stopping)
        return -ESHUTDOWN;
    int r = bm_ring_connect(core, to, true, &session);
    if (r < 0)
        return r;
    *ret_session = hand_out(core, session, options);
    return 0;
}

void bm_core_deinit(struct bm_core *core)
{
    bm_pool_deinit(&core->pool);
}
