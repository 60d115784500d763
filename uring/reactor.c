/* The reactor's loop.
 *
 * Model: a turn drains what came in (mailbox, sources, timers, completions), runs the tasks that made,
 * completes the wakes it owes to others, turns the line of ops into submissions, and then enters the
 * kernel once: to submit and return when work is left or a spin budget is open, to submit and sleep
 * otherwise. While nothing is queued and the kernel shows no deferred work, a turn makes no system
 * call and does not read the clock.
 *
 * Invariants: callbacks run inside a turn only; everything but the first two lines of the struct and
 * the mailbox belongs to the owner; each loop over input has a budget, and who exceeds it is visited
 * again in the next turn, after everybody else.
 *
 * It knows nothing of sessions or messages. */
#define _GNU_SOURCE
#include "uring/reactor.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <beam/error.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "uring/completion.h"
#include "uring/embed.h"
#include "uring/features.h"
#include "uring/forked.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"
#include "uring/sleep.h"

#define FREE_DEADLINE_NS (10 * BM_NS_PER_S) /* ours: none that can be cancelled takes that long */
#define FREE_ROUND_NS (BM_NS_PER_S / 10)    /* ours: more in one round means we were stopped */
#define FREE_CHAIN_MAX 512u                 /* ours: a send and 253 closes behind it are 254 */
#define FREE_WAIT_NS (10 * BM_NS_PER_MS)    /* ours: then the cancelling is repeated */
#define SLACK_NS 1ul                        /* the kernel's 50 us would be added to every timer */

static _Thread_local struct bm_reactor *current;

struct bm_reactor *bm_reactor_current(void)
{
    return current;
}

static bool no_io_uring(int r)
{
    return r == -EPERM || r == -ENOSYS || r == -EACCES || r == -EINVAL || r == -EOPNOTSUPP;
}

static int make_ring(struct bm_reactor *reactor)
{
    uint32_t features;
    int r = bm_kernel_new(&reactor->account, BM_SQ_LEN, BM_CQ_LEN, &reactor->kernel, &features);
    /* Without NODROP completions could be lost, without EXT_ARG a wait would cost a timeout op. */
    if (r == 0 && (~features & (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)))
        r = -EOPNOTSUPP;
    if (no_io_uring(r)) {
        bm_features_refused(r);
        return -BEAM_ENO_IO_URING;
    }
    if (r == 0)
        reactor->ring_fd = bm_kernel_fd(reactor->kernel);
    return r;
}

static struct bm_reactor *dispose(struct bm_reactor *reactor)
{
    bm_mailbox_deinit(&reactor->mailbox, &reactor->account);
    bm_completions_deinit(reactor);
    if (reactor->wake_fd >= 0)
        close(reactor->wake_fd);
    if (current == reactor)
        current = NULL;
    return bm_free(NULL, reactor, sizeof(*reactor));
}

static int set_up(struct bm_reactor *reactor)
{
    reactor->epoch = bm_fork_epoch();
    if (reactor->epoch == 0)
        return -ENOMEM;
    int r = bm_mailbox_init(&reactor->mailbox, &reactor->account);
    if (r < 0)
        return r;
    reactor->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (reactor->wake_fd < 0)
        return -errno;
    r = make_ring(reactor);
    if (r < 0)
        return r;
    return reactor->embedded ? bm_embed_init(reactor) : 0;
}

int bm_reactor_new(const struct bm_reactor_options *options, struct bm_reactor **ret)
{
    struct bm_reactor *reactor = bm_alloc_zero(NULL, sizeof(*reactor));
    if (!reactor)
        return -ENOMEM;
    bool may_spin = options->may_spin && !options->embedded;
    reactor->wake_fd = -1;
    reactor->embedded = options->embedded;
    reactor->family = options->family;
    bm_list_init(&reactor->queued);
    bm_list_init(&reactor->running);
    bm_list_init(&reactor->quiet);
    bm_list_init(&reactor->left);
    bm_list_init(&reactor->ended);
    bm_list_init(&reactor->tasks);
    bm_list_init(&reactor->late);
    bm_list_init(&reactor->sources);
    bm_list_init(&reactor->buffers);
    bm_wheel_init(&reactor->wheel, bm_clock_now_ns());
    bm_spinner_init(&reactor->spinner, may_spin && options->spin == BM_SPIN_ALWAYS,
                    may_spin && options->spin == BM_SPIN_ADAPTIVE);

    int r = set_up(reactor);
    if (r < 0) {
        reactor->kernel = bm_kernel_free(reactor->kernel, &reactor->account);
        dispose(reactor);
        return r;
    }
    current = reactor;
    *ret = reactor;
    return 0;
}

void bm_reactor_shut(struct bm_reactor *reactor)
{
    bm_mailbox_shut(&reactor->mailbox);
}

static bool kernel_has_something(const struct bm_reactor *reactor)
{
    return reactor->inflight + reactor->closing > 0 || reactor->wake_armed ||
           reactor->timeout_armed || bm_kernel_queued(reactor->kernel) > 0 ||
           (bm_kernel_pending(reactor->kernel) & ~BM_PENDING_TASKRUN) != 0;
}

/* Deferred work that the kernel would drop with the ring may be linked closes, of which each enter runs
 * one at least. Whether there is any, the kernel's mark alone does not tell (bm_reactor_pending()). */
static bool may_defer_work(const struct bm_reactor *reactor, unsigned enters)
{
    return (bm_kernel_pending(reactor->kernel) & BM_PENDING_TASKRUN) && enters < FREE_CHAIN_MAX;
}

/* What has begun to work on a file goes on until the disk has answered, whoever asks it to end: that is no
 * bug of ours, and how long it takes is for the disk to say. */
static bool is_of_file(const struct bm_op *op)
{
    switch ((enum bm_op_kind)op->kind) {
    case BM_OP_NOP:
    case BM_OP_ACCEPT:
    case BM_OP_CONNECT:
    case BM_OP_SENDMSG:
    case BM_OP_RECVMSG:
    case BM_OP_RECVMSG_MULTISHOT:
    case BM_OP_READ: /* of what is read here: eventfds, pipes */
    case BM_OP_SEND:
    case BM_OP_RECV:
    case BM_OP_RECV_MULTISHOT:
    case BM_OP_RECV_SELECT:
    case BM_OP_POLL:
    case BM_OP_SHUTDOWN:
        return false;
    default:
        return true;
    }
}

static bool waits_for_file(const struct bm_reactor *reactor)
{
    const struct bm_list *node;
    if (reactor->closing > 0)
        return true;
    for (node = reactor->running.next; node != &reactor->running; node = node->next)
        if (is_of_file(bm_list_entry(node, const struct bm_op, node)))
            return true;
    return false;
}

/* Everything in flight is cancelled and its last completion dispatched. The kernel is asked again
 * when nothing has moved for a while: it may have been between two states of an op the first time. */
static void wind_up(struct bm_reactor *reactor)
{
    uint64_t last_ns = bm_clock_now_ns(), spent_ns = 0;
    bool asked = false;
    unsigned only_marked = 0; /* enters in a row that nothing but the mark was a reason for */
    reactor->ending = true;
    while (bm_reactor_once(reactor) || kernel_has_something(reactor) ||
           may_defer_work(reactor, only_marked)) {
        uint64_t now_ns = bm_clock_now_ns();
        spent_ns += now_ns - last_ns < FREE_ROUND_NS ? now_ns - last_ns : FREE_ROUND_NS;
        last_ns = now_ns;
        if (waits_for_file(reactor))
            spent_ns = 0;
        /* Freeing memory that the kernel may still write to would be worse than ending here. */
        bm_assert(spent_ns < FREE_DEADLINE_NS);
        if (!asked)
            bm_ops_cancel_all(reactor);
        asked = true;
        only_marked = kernel_has_something(reactor) ? 0 : only_marked + 1;
        if (only_marked > 0 || !bm_list_empty(&reactor->queued) || !bm_list_empty(&reactor->ended))
            bm_reactor_poll(reactor);
        else
            asked = bm_reactor_wait(reactor, FREE_WAIT_NS) != -ETIME;
    }
}

void bm_reactor_close(struct bm_reactor *reactor)
{
    if (bm_reactor_forked(reactor)) {
        reactor->kernel = bm_kernel_abandon(reactor->kernel, &reactor->account);
        close(reactor->wake_fd);
        reactor->wake_fd = -1;
        return;
    }
    bm_reactor_shut(reactor);
    bm_mailbox_settle(&reactor->mailbox);
    while (bm_mailbox_ready(&reactor->mailbox))
        bm_reactor_once(reactor);

    wind_up(reactor);
    bm_wheel_deinit(&reactor->wheel);
    bm_assert(bm_list_empty(&reactor->buffers));
    bm_sleep_end(reactor); /* an embedded one would count as asleep, and be rung at, for ever */
    reactor->kernel = bm_kernel_free(reactor->kernel, &reactor->account);
    if (current == reactor)
        current = NULL;
}

struct bm_reactor *bm_reactor_free(struct bm_reactor *reactor)
{
    if (!reactor)
        return NULL;
    if (reactor->kernel)
        bm_reactor_close(reactor);
    return dispose(reactor);
}

uint64_t bm_reactor_now_ns(struct bm_reactor *reactor)
{
    if (!reactor->now_fresh || !reactor->in_turn) {
        reactor->now_ns = bm_clock_now_ns();
        reactor->now_fresh = reactor->in_turn;
    }
    return reactor->now_ns;
}

void bm_reactor_yield(struct bm_reactor *reactor)
{
    reactor->yielded = true;
}

/* Returns whether a source has more than its budget; *ret_came, whether any had anything. */
static bool drain_sources(struct bm_reactor *reactor, bool *ret_came)
{
    bool came = false;
    bool left = false;
    struct bm_list *node = reactor->sources.next;
    while (node != &reactor->sources) {
        struct bm_source *source = bm_list_entry(node, struct bm_source, node);
        reactor->source_next = node->next;
        unsigned n = source->drain(source, BM_TURN_MESSAGES);
        came |= n > 0;
        left |= n >= BM_TURN_MESSAGES;
        node = reactor->source_next;
    }
    reactor->source_next = NULL;
    *ret_came = came;
    return left;
}

static bool run_tasks(struct bm_reactor *reactor)
{
    struct bm_list *node;
    unsigned n = 0;
    while ((node = bm_list_pop_front(&reactor->tasks))) {
        struct bm_task *task = bm_list_entry(node, struct bm_task, node);
        task->fn(task);
        if (++n == BM_TURN_TASKS)
            break;
    }
    return !bm_list_empty(&reactor->tasks);
}

/* In turns without an enter the clock is read only every few turns: they are short, and it costs as
 * much as all the rest of one. */
static bool run_timers(struct bm_reactor *reactor)
{
    if (reactor->wheel.armed == 0)
        return false;
    if (!reactor->now_fresh && ++reactor->unclocked < BM_TURNS_UNCLOCKED)
        return false;
    reactor->unclocked = 0;
    reactor->stats.timers +=
        bm_wheel_run(&reactor->wheel, bm_reactor_now_ns(reactor), BM_TURN_TIMERS);
    return !bm_list_empty(&reactor->wheel.due);
}

static bool run_mail(struct bm_reactor *reactor)
{
    if (!bm_mailbox_ready(&reactor->mailbox))
        return false;
    unsigned n = bm_mailbox_run(&reactor->mailbox, BM_TURN_MESSAGES);
    reactor->stats.mails += n;
    return n == BM_TURN_MESSAGES;
}

bool bm_reactor_once(struct bm_reactor *reactor)
{
    bm_assert(!reactor->in_turn);
    reactor->in_turn = true;
    reactor->turn_start_ns = reactor->now_fresh ? reactor->now_ns : 0;
    reactor->stats.turns++;
    current = reactor;

    bool came;
    bool left = run_mail(reactor);
    bool more = drain_sources(reactor, &came);
    reactor->catching_up = more && reactor->yielded && reactor->waited < BM_YIELD_TURNS;
    left |= run_tasks(reactor);
    left |= run_timers(reactor);
    if (BM_LIKELY(!reactor->yielded) || !more || ++reactor->waited > BM_YIELD_TURNS) {
        reactor->waited = 0;
        left |= bm_completions_run(reactor);
    }
    left |= more;
    left |= run_tasks(reactor);
    if (BM_UNLIKELY(!bm_list_empty(&reactor->late))) {
        bm_list_splice_back(&reactor->tasks, &reactor->late);
        left = true;
    }
    bm_wake_dirty(reactor);
    left |= !bm_ops_submit(reactor);

    reactor->now_fresh = false;
    reactor->in_turn = false;
    return left;
}

bool bm_reactor_anything(struct bm_reactor *reactor)
{
    if (bm_reactor_pending(reactor) || bm_mailbox_ready(&reactor->mailbox) || reactor->hurried > 0)
        return true;
    struct bm_list *node;
    for (node = reactor->sources.next; node != &reactor->sources; node = node->next) {
        struct bm_source *source = bm_list_entry(node, struct bm_source, node);
        if (source->ready(source))
            return true;
    }
    /* Relaxed: bm_reactor_stop() takes part in the sleep protocol after it has stored it. */
    return !reactor->embedded && atomic_load_explicit(&reactor->stopping, memory_order_relaxed);
}

enum bm_look bm_reactor_look(struct bm_reactor *reactor)
{
    /* Queued: by a descriptor given back in the look before, or left by an enter that failed. */
    if (bm_kernel_pending(reactor->kernel) || bm_kernel_queued(reactor->kernel) > 0 ||
        bm_mailbox_ready(&reactor->mailbox) || reactor->hurried > 0)
        return BM_LOOK_TURN;
    /* Relaxed, as in bm_reactor_anything(). */
    if (atomic_load_explicit(&reactor->stopping, memory_order_relaxed))
        return BM_LOOK_TURN;

    bool came;
    reactor->in_turn = true;
    reactor->now_fresh = false;
    bool left = drain_sources(reactor, &came);
    reactor->in_turn = false;
    /* A source without a message may have made work all the same: senders that found room again. */
    if (!came && bm_list_empty(&reactor->tasks) && reactor->dirty_len == 0)
        return BM_LOOK_NOTHING;
    reactor->stats.turns++;
    bm_wake_dirty(reactor);
    return left || !bm_list_empty(&reactor->tasks) || !bm_list_empty(&reactor->queued) ||
                   !bm_list_empty(&reactor->ended)
               ? BM_LOOK_TURN
               : BM_LOOK_DRAINED;
}

/* Submissions are never lost: what an enter did not take stays queued for the next one. */
/* A link does not reach from one enter into the next. */
static void distrust_links(struct bm_reactor *reactor)
{
    for (struct bm_list *node = reactor->running.next; node != &reactor->running; node = node->next)
        bm_list_entry(node, struct bm_op, node)->linked = false;
}

void bm_reactor_entered(struct bm_reactor *reactor, unsigned queued, int r)
{
    bm_assert(r >= 0 || r == -ETIME || r == -EINTR || r == -EAGAIN || r == -EBUSY || r == -ENOMEM);
    unsigned left = bm_kernel_queued(reactor->kernel);
    reactor->stats.enters++;
    reactor->stats.sqes += queued - left;
    if (left == 0)
        bm_completions_taken(reactor);
    else if (left < queued)
        distrust_links(reactor);
    reactor->unclocked = BM_TURNS_UNCLOCKED;
}

static void note_mark(struct bm_reactor *reactor, int r)
{
    reactor->mark_stayed =
        (r >= 0 || r == -ETIME) && (bm_kernel_pending(reactor->kernel) & BM_PENDING_TASKRUN);
}

static void look_for_overflow(struct bm_reactor *reactor, unsigned pending)
{
    bool now = pending & BM_PENDING_OVERFLOW;
    if (now && !reactor->overflowing)
        reactor->stats.overflows++;
    reactor->overflowing = now;
}

void bm_reactor_poll(struct bm_reactor *reactor)
{
    unsigned queued = bm_kernel_queued(reactor->kernel);
    unsigned pending = bm_kernel_pending(reactor->kernel);
    look_for_overflow(reactor, pending);
    if (queued == 0 && !(pending & (BM_PENDING_TASKRUN | BM_PENDING_OVERFLOW)))
        return;
    int r = bm_kernel_poll(reactor->kernel);
    bm_reactor_entered(reactor, queued, r);
    note_mark(reactor, r);
}

int bm_reactor_wait(struct bm_reactor *reactor, uint64_t timeout_ns)
{
    unsigned queued = bm_kernel_queued(reactor->kernel);
    int r = bm_kernel_wait(reactor->kernel, timeout_ns);
    bm_reactor_entered(reactor, queued, r);
    note_mark(reactor, r);
    return r;
}

static void turn(struct bm_reactor *reactor)
{
    (void)bm_reactor_once(reactor);
    bm_reactor_poll(reactor);
}

/* The end of a native turn. */
static void enter(struct bm_reactor *reactor, bool left)
{
    struct bm_spinner *spinner = &reactor->spinner;
    if (left) {
        bm_reactor_poll(reactor);
        return;
    }
    if (spinner->always || spinner->budget_ns > 0) {
        bm_reactor_poll(reactor);
        if (bm_reactor_anything(reactor))
            return;
        /* A spin would take a mark that has stayed for work each time it looks. */
        if ((spinner->always || !reactor->mark_stayed) && bm_reactor_spin(reactor))
            return;
    }
    bm_reactor_sleep(reactor);
}

int bm_reactor_run(struct bm_reactor *reactor)
{
    if (bm_reactor_forked(reactor))
        return -BEAM_EFORKED;
    if (reactor->embedded)
        return -EINVAL;
    int slack = prctl(PR_GET_TIMERSLACK);
    prctl(PR_SET_TIMERSLACK, SLACK_NS);
    bm_spinner_calibrate(reactor);
    /* acquire; partner: the exchange in bm_reactor_stop(). */
    while (!atomic_load_explicit(&reactor->stopping, memory_order_acquire))
        enter(reactor, bm_reactor_once(reactor));
    atomic_store_explicit(&reactor->stopping, false, memory_order_relaxed);
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, (unsigned long)slack);
    return 0;
}

void bm_reactor_stop(struct bm_reactor *reactor)
{
    atomic_store_explicit(&reactor->stopping, true, memory_order_release);
    /* acq_rel; partner: bm_sleep_begin(). Always the eventfd: a signal handler may have interrupted
     * the owner in the middle of a submission. */
    if (atomic_exchange_explicit(&reactor->sleeping, 0, memory_order_acq_rel))
        bm_doorbell_eventfd(reactor);
}

int bm_reactor_fd(struct bm_reactor *reactor)
{
    return reactor->wake_fd;
}

int bm_reactor_turn(struct bm_reactor *reactor)
{
    if (bm_reactor_forked(reactor))
        return -BEAM_EFORKED;
    if (reactor->in_turn)
        return -EDEADLK;
    if (reactor->embedded)
        bm_embed_turn(reactor);
    else
        turn(reactor);
    return 0;
}

void bm_task_queue(struct bm_reactor *reactor, struct bm_task *task)
{
    if (bm_list_linked(&task->node))
        return;
    bm_list_push_back(&reactor->tasks, &task->node);
    bm_embed_kick(reactor);
}

bool bm_task_put_off(struct bm_reactor *reactor, struct bm_task *task)
{
    if (!reactor->catching_up)
        return false;
    if (!bm_list_linked(&task->node))
        bm_list_push_back(&reactor->late, &task->node);
    return true;
}

void bm_task_cancel(struct bm_task *task)
{
    bm_list_unlink(&task->node);
}

void bm_source_add(struct bm_reactor *reactor, struct bm_source *source)
{
    bm_assert(!bm_list_linked(&source->node));
    bm_list_push_back(&reactor->sources, &source->node);
    bm_embed_kick(reactor);
}

void bm_source_remove(struct bm_reactor *reactor, struct bm_source *source)
{
    if (reactor->source_next == &source->node)
        reactor->source_next = source->node.next;
    bm_list_unlink(&source->node);
}

/* A submission behind all the ops that were started before. They may name the descriptor that is to be
 * closed, and must not meet it closed, or as somebody else's: so the line moves on, into the kernel if
 * there is no room. NULL: the kernel takes no more, or is not to close. */
static struct io_uring_sqe *last_in_line(struct bm_reactor *reactor)
{
    for (;;) {
        (void)bm_ops_submit(reactor);
        struct io_uring_sqe *sqe = NULL;
        if (BM_KERNEL_CLOSES && bm_list_empty(&reactor->queued))
            sqe = bm_kernel_sqe(reactor->kernel);
        unsigned queued = bm_kernel_queued(reactor->kernel);
        if (sqe || queued == 0)
            return sqe;
        int r = bm_kernel_submit(reactor->kernel);
        bm_reactor_entered(reactor, queued, r);
        if (r < 0)
            return NULL;
    }
}

void bm_reactor_close_fd(struct bm_reactor *reactor, int *fd)
{
    int closing = bm_take_fd(fd);
    if (closing < 0)
        return;
    /* In a child the rings are not there, and the descriptor is its own copy. */
    struct io_uring_sqe *sqe = bm_reactor_forked(reactor) ? NULL : last_in_line(reactor);
    if (!sqe) {
        close(closing);
        return;
    }
    sqe->opcode = IORING_OP_CLOSE;
    sqe->fd = closing;
    if (reactor->ending) {
        sqe->user_data = BM_TAG_CLOSE; /* waited for, should a file system take its time */
        reactor->closing++;
    } else {
        sqe->user_data = BM_TAG_IGNORE; /* nobody waits: it must not end anybody's sleep */
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    }
    bm_embed_kick(reactor);
}

unsigned bm_reactor_inflight(const struct bm_reactor *reactor)
{
    return reactor->inflight;
}

const struct bm_reactor_stats *bm_reactor_stats(const struct bm_reactor *reactor)
{
    return &reactor->stats;
}

void bm_reactor_count_rearm(struct bm_reactor *reactor)
{
    reactor->stats.rearms++;
}

struct bm_account *bm_reactor_account(struct bm_reactor *reactor)
{
    return &reactor->account;
}
