/* Blocking calls of foreign threads: the work is posted to the reactor that owns the session, and
 * the caller sleeps on a futex in a slot both refer to. Whoever of the two leaves last frees the
 * slot, so a call that times out leaves at once and a late answer finds a place to be dropped in.
 *
 * A call that finds no room stands in its session's `callers` and is tried again when there is some. It
 * is the caller who watches the time: leaving, he takes a call that still waits back with him, which is
 * how he knows that it has surely not run.
 *
 * Invariant: from the post until `done` the fields of the slot are the reactor's, else the caller's; and
 * the caller's again once he has given up a call that waits. */
#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/options.h"
#include "runtime/runtime.h"
#include "runtime/session.h"

#define LEFT_ALONE_NS (10 * BM_NS_PER_MS) /* ours: how long one that gave up may lie about */
#define TEXT_LEN_MAX 4096u                /* PATH_MAX; a name or URL that is longer is none */

enum call_stage {
    CALL_TRIED,    /* the reactor tries it, or has made it; or has not looked at it yet */
    CALL_WAITS,    /* for room: not made */
    CALL_GIVEN_UP, /* its caller is gone */
};

struct slot {
    _Atomic uint32_t stage; /* of a call; acq_rel: whose the message is hangs on it */
    struct bm_list node;    /* session->callers */
    struct bm_timer timer;  /* ... and a look whether the caller is still there */
    uint64_t deadline_ns;
    _Atomic unsigned refs; /* acq_rel: the last one frees */
    _Atomic uint32_t done; /* release by the reactor; acquire by the caller; the futex */
    int result;            /* 0, > 0: a status code, < 0: -errno */
    beam_message *message; /* in: to send; out: the answer */
    beam_session *session; /* call: the caller's */
    beam_session *opened;  /* connect: the slot's until it is handed over */
    beam_runtime *runtime;
    const char *text; /* service or URL; the caller's while it waits, hence copied */
    struct beam_call_options call_options;
    struct beam_connect_options connect_options;
    char copy[TEXT_LEN_MAX];
};

static bool fits(const char *text)
{
    return strnlen(text, TEXT_LEN_MAX) < TEXT_LEN_MAX;
}

static struct slot *slot_new(const char *text)
{
    struct slot *slot = bm_alloc_zero(NULL, sizeof(*slot));
    if (!slot)
        return NULL;
    memcpy(slot->copy, text, strlen(text) + 1);
    slot->text = slot->copy;
    atomic_init(&slot->refs, 2);
    return slot;
}

static void slot_unref(struct slot *slot)
{
    if (atomic_fetch_sub_explicit(&slot->refs, 1, memory_order_acq_rel) > 1)
        return;
    beam_message_free(slot->message);
    /* Nobody waited for the session that was opened for him. */
    beam_session_free(slot->opened);
    bm_free(NULL, slot, sizeof(*slot));
}

/* The reactor's last look at the slot. */
static void slot_finish(struct slot *slot, int result)
{
    slot->result = result;
    atomic_store_explicit(&slot->done, 1, memory_order_release);
    syscall(SYS_futex, &slot->done, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    slot_unref(slot);
}

/* 0 when done, -ETIMEDOUT. deadline on bm_clock_now_ns(). */
static int slot_wait(struct slot *slot, uint64_t deadline_ns)
{
    while (!atomic_load_explicit(&slot->done, memory_order_acquire)) {
        struct timespec ts;
        struct timespec *timeout = NULL;
        if (deadline_ns != UINT64_MAX) {
            uint64_t now = bm_clock_now_ns();
            if (now >= deadline_ns)
                return -ETIMEDOUT;
            ts.tv_sec = (time_t)((deadline_ns - now) / BM_NS_PER_S);
            ts.tv_nsec = (long)((deadline_ns - now) % BM_NS_PER_S);
            timeout = &ts;
        }
        syscall(SYS_futex, &slot->done, FUTEX_WAIT_PRIVATE, 0, timeout, NULL, 0);
    }
    return 0;
}

/* --- calls ----------------------------------------------------------------------------------- */

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct slot *slot = arg;
    int result = status->code;
    if (message) {
        slot->message = beam_message_keep(message);
        if (slot->message)
            bm_message_unbind(slot->message);
        else
            result = -ENOMEM;
    } else if (status->details) {
        slot->message = bm_message_new(NULL);
        if (slot->message)
            (void)bm_message_copy_metadata(slot->message, status->details,
                                           (uint32_t)status->details_len);
    } else if (status->message.len > 0) {
        slot->message = bm_message_new(NULL);
        if (slot->message)
            beam_message_put_strn(slot->message, "message", status->message.ptr,
                                  status->message.len);
    }
    slot_finish(slot, result);
}

static bool move_on(struct slot *slot, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong_explicit(&slot->stage, &from, to, memory_order_acq_rel,
                                                   memory_order_acquire);
}

static void wait_for_room(struct slot *slot)
{
    bm_list_push_back(&slot->session->callers, &slot->node);
    if (slot->deadline_ns != UINT64_MAX && !bm_timer_armed(&slot->timer))
        bm_timer_arm(slot->session->core->reactor, &slot->timer,
                     bm_clock_after(slot->deadline_ns, LEFT_ALONE_NS));
}

static void wait_no_more(struct slot *slot)
{
    bm_list_unlink(&slot->node);
    bm_timer_cancel(slot->session->core->reactor, &slot->timer);
}

static void on_caller_late(struct bm_timer *timer)
{
    struct slot *slot = bm_container_of(timer, struct slot, timer);
    struct bm_reactor *reactor = slot->session->core->reactor;
    if (atomic_load_explicit(&slot->stage, memory_order_acquire) == CALL_GIVEN_UP) {
        wait_no_more(slot);
        slot_unref(slot);
    } else {
        bm_timer_arm(reactor, timer, bm_reactor_now_ns(reactor) + LEFT_ALONE_NS);
    }
}

/* Its stage is CALL_TRIED. */
static void try_call(struct slot *slot)
{
    int r =
        beam_call(slot->session, slot->text, &slot->message, on_reply, slot, &slot->call_options);
    if (r == -EAGAIN && move_on(slot, CALL_TRIED, CALL_WAITS)) {
        wait_for_room(slot);
        return;
    }
    wait_no_more(slot);
    if (r < 0)
        slot_finish(slot, r);
}

static bool nobody_can_go_on(const beam_session *session)
{
    return session->state != BM_SESSION_CLOSED && !session->draining && !session->peer_draining &&
           (session->opened_here >= session->peer_channels_max ||
            session->queue_len >= session->limits.queue_len_max);
}

void bm_callers_go_on(beam_session *session)
{
    struct bm_list todo;
    struct bm_list *node;
    if (bm_list_empty(&session->callers))
        return;
    uint64_t now = bm_clock_now_ns();
    bm_list_init(&todo);
    bm_list_splice_back(&todo, &session->callers);
    while (!nobody_can_go_on(session) && (node = bm_list_pop_front(&todo))) {
        struct slot *slot = bm_list_entry(node, struct slot, node);
        if (slot->deadline_ns <= now && session->state != BM_SESSION_CLOSED) {
            wait_for_room(slot); /* its caller is about to leave */
        } else if (move_on(slot, CALL_WAITS, CALL_TRIED)) {
            if (slot->deadline_ns != UINT64_MAX)
                slot->call_options.timeout_ns =
                    slot->deadline_ns > now ? slot->deadline_ns - now : 1;
            try_call(slot);
        } else {
            wait_no_more(slot);
            slot_unref(slot);
        }
    }
    if (bm_list_empty(&todo))
        return;
    /* Those who were not asked may need less than those who were. */
    bm_session_wants_writable(session, 0, 1);
    bm_list_splice_back(&todo, &session->callers);
    bm_list_splice_back(&session->callers, &todo);
}

static void call_here(void *arg)
{
    struct slot *slot = arg;
    bm_timer_init(&slot->timer, on_caller_late);
    if (bm_list_empty(&slot->session->callers)) {
        try_call(slot);
    } else if (move_on(slot, CALL_TRIED, CALL_WAITS)) {
        wait_for_room(slot); /* behind those who came before */
        bm_callers_go_on(slot->session);
    } else {
        slot_unref(slot);
    }
}

int beam_call_wait(beam_session *session, const char *service, beam_message **message,
                   const struct beam_call_options *options, beam_message **ret_reply)
{
    if (bm_core_current())
        return -EDEADLK;
    if (!service || !fits(service) || !session->handle)
        return -EINVAL;
    struct beam_call_options wanted;
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r < 0)
        return r;
    bool orphan = bm_session_is_orphan(session);
    if (!orphan && bm_runtime_forked(session->core->runtime))
        return -BEAM_EFORKED;
    uint64_t timeout = wanted.timeout_ns;
    uint64_t deadline = timeout > 0 ? bm_clock_after(bm_clock_now_ns(), timeout) : UINT64_MAX;
    r = bm_message_seal(*message);
    if (r < 0)
        return r;
    struct slot *slot = slot_new(service);
    if (!slot)
        return -ENOMEM;
    slot->session = session;
    slot->message = *message;
    slot->call_options = BEAM_CALL_OPTIONS(.timeout_ns = timeout);
    slot->deadline_ns = deadline;

    r = orphan ? -ESHUTDOWN
               : bm_mailbox_post_wait(session->core->reactor, call_here, slot, deadline);
    if (r < 0) {
        slot->message = NULL;
        slot_unref(slot);
        slot_unref(slot);
        return r;
    }
    *message = NULL;
    r = slot_wait(slot, deadline);
    if (r == 0) {
        r = slot->result;
        if (r >= 0 && ret_reply)
            *ret_reply = bm_take_ptr(slot->message);
        else if (r < 0)
            *message = bm_take_ptr(slot->message); /* not taken after all */
    } else if (atomic_exchange_explicit(&slot->stage, CALL_GIVEN_UP, memory_order_acq_rel) ==
               CALL_WAITS) {
        *message = bm_take_ptr(slot->message);
    } else {
        r = BEAM_DEADLINE_EXCEEDED;
        if (ret_reply)
            *ret_reply = NULL;
    }
    slot_unref(slot);
    return r;
}

/* --- connect --------------------------------------------------------------------------------- */

static void on_open(beam_session *session, void *arg)
{
    struct slot *slot = arg;
    bm_session_set_handlers(session, slot->connect_options.handlers, slot->connect_options.arg);
    slot_finish(slot, 0);
}

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct slot *slot = arg;
    int r = session->connect_error;
    if (r == 0)
        r = session->error; /* what answered did not keep to the protocol */
    if (r == 0)
        r = status->code == BEAM_UNAVAILABLE ? -ECONNABORTED : -ECONNREFUSED;
    slot->opened = NULL;
    beam_session_free(session);
    slot_finish(slot, r);
}

static const struct beam_session_handlers waiting_handlers = {
    .on_open = on_open,
    .on_close = on_close,
};

static void connect_here(void *arg)
{
    struct slot *slot = arg;
    struct beam_connect_options options = slot->connect_options;
    options.handlers = &waiting_handlers;
    options.arg = slot;
    int r = beam_connect(slot->runtime, slot->text, &options, &slot->opened);
    if (r < 0)
        slot_finish(slot, r);
}

int beam_connect_wait(beam_runtime *runtime, const char *url,
                      const struct beam_connect_options *options, beam_session **ret_session)
{
    if (bm_core_current())
        return -EDEADLK;
    if (!url)
        return -EINVAL;
    if (!fits(url))
        return -BEAM_EURL;
    struct beam_connect_options wanted;
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r < 0)
        return r;
    if (wanted.reactor >= runtime->core_count)
        return -EINVAL;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    if (wanted.timeout_ns == 0)
        wanted.timeout_ns = BM_CONNECT_TIMEOUT_NS;
    struct bm_core *core = &runtime->cores[wanted.reactor];
    uint64_t deadline = bm_clock_after(bm_clock_now_ns(), wanted.timeout_ns);
    r = bm_runtime_await_core(core, deadline);
    if (r < 0)
        return r;
    struct slot *slot = slot_new(url);
    if (!slot)
        return -ENOMEM;
    slot->runtime = runtime;
    slot->connect_options = wanted;

    r = bm_mailbox_post_wait(core->reactor, connect_here, slot, deadline);
    if (r < 0) {
        slot_unref(slot);
        slot_unref(slot);
        return r;
    }
    /* The session's own timer ends it; there is no second one here that could win by a hair. */
    (void)slot_wait(slot, UINT64_MAX);
    r = slot->result;
    if (r == 0)
        *ret_session = bm_take_ptr(slot->opened);
    slot_unref(slot);
    return r;
}
