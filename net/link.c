/* A link: one receive, one send, one task, one timer.
 *
 * In. Bytes come into the core's provided buffers, each given back before its callback returns. A user
 * that takes every byte has a multishot; else one receive at a time is armed, and none while bytes are
 * kept that were not taken: at most what one receive brought, so that a peer waits in TCP. Whatever ended
 * a receive, it is armed again while the link is there, when something has happened.
 *
 * Out. In a turn in which somebody has something to say the task runs, behind the others that were queued
 * before it: it asks for all there is, and one send takes it. While that is under way TLS encrypts what
 * comes next, up to its bounds. A send that is not large is quiet (uring/op.h): nobody waits for its end,
 * unless it fell short, more is to go or the link is to close (then it is hurried).
 *
 * The end. Ours is told behind all output: close_notify, then FIN; what still comes is dropped for a moment,
 * since a socket that is closed over unread bytes takes the last answer with it. The peer's end without
 * close_notify is -BEAM_ETLS_CUT. When the socket takes no more, what the peer said before is still read.
 *
 * Invariants: nothing goes while `depth` is above 0; both ops are idle when it goes; on_end comes once, and
 * nothing is delivered behind it. */
#define _GNU_SOURCE
#include "net/link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <beam/error.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "runtime/core.h"

#define QUIET_MAX 16384u /* more than that may well find no room in the socket; ours */
#define NEVER UINT64_MAX

static uint64_t now_ns(const struct bm_link *link)
{
    return bm_reactor_now_ns(link->core->reactor);
}

static uint64_t in_time(const struct bm_link *link, uint64_t ns)
{
    return bm_clock_after(now_ns(link), ns);
}

static void set_phase(struct bm_link *link, enum bm_link_phase phase)
{
    if (link->phase < phase)
        link->phase = (uint8_t)phase;
}

/* ---- in ---- */

static void input_ended(struct bm_link *link, int error)
{
    if (link->ended && (error == 0 || link->end_error < 0))
        return;
    link->ended = true;
    link->end_error = error;
}

/* Behind all that was kept, or at once when it is a loss. */
static void tell_end(struct bm_link *link)
{
    if (!link->ended || link->end_told || link->phase != BM_LINK_OPEN ||
        (link->end_error == 0 && link->kept_len > 0))
        return;
    link->end_told = true;
    link->events->on_end(link, link->end_error);
    bm_link_flush(link);
}

static void drop_kept(struct bm_link *link)
{
    link->kept = bm_free(link->account, link->kept, link->kept_cap);
    link->kept_at = link->kept_len = link->kept_cap = 0;
}

static void keep(struct bm_link *link, const uint8_t *bytes, size_t len)
{
    if (link->kept_at > 0 && link->kept_len > 0)
        memmove(link->kept, link->kept + link->kept_at, link->kept_len);
    link->kept_at = 0;
    if (link->kept_cap - link->kept_len < len) {
        size_t cap = link->kept_len + len;
        uint8_t *grown = bm_realloc(link->account, link->kept, link->kept_cap, cap);
        if (!grown) {
            input_ended(link, -ENOMEM);
            return;
        }
        link->kept = grown;
        link->kept_cap = cap;
    }
    memcpy(link->kept + link->kept_len, bytes, len);
    link->kept_len += len;
}

static void deliver(struct bm_link *link, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    if (link->phase != BM_LINK_OPEN || link->end_told)
        return;
    if (link->kept_len == 0)
        used = link->events->on_bytes(link, bytes, len);
    bm_assert(used <= len);
    if (used < len && link->phase == BM_LINK_OPEN)
        keep(link, bytes + used, len - used);
}

static void offer_kept(struct bm_link *link)
{
    while (link->kept_len > 0 && link->phase == BM_LINK_OPEN && !link->end_told) {
        size_t used = link->events->on_bytes(link, link->kept + link->kept_at, link->kept_len);
        bm_assert(used <= link->kept_len);
        if (used == 0)
            return;
        link->kept_at += used;
        link->kept_len -= used;
    }
    if (link->kept)
        drop_kept(link);
}

static void tls_failed(struct bm_link *link, int error)
{
    input_ended(link, error);
    bm_link_flush(link); /* an alert */
}

static void decrypt(struct bm_link *link, const uint8_t *bytes, size_t len)
{
    uint8_t plain[BM_TLS_RECORD_MAX];
    int r = bm_tls_receive(link->tls, bytes, len, now_ns(link));
    while (r == 0) {
        if (!link->secure && bm_tls_is_open(link->tls)) {
            link->secure = true;
            link->handshake_until_ns = NEVER;
            link->events->on_secure(link);
        }
        size_t n = 0;
        r = bm_tls_read(link->tls, plain, sizeof(plain), &n);
        if (r == 0)
            deliver(link, plain, n);
    }
    if (r < 0)
        tls_failed(link, r);
    else if (r == BM_TLS_END)
        input_ended(link, 0);
    bm_link_flush(link); /* a handshake, a ticket, a change of keys */
}

static void received(struct bm_link *link, const uint8_t *bytes, size_t len)
{
    if (link->phase != BM_LINK_OPEN) {
        link->lingered += len;
        if (link->lingered > BM_LINK_LINGER_MAX)
            bm_link_abort(link, false);
    } else if (link->ended) {
        ; /* behind a close_notify, or an error */
    } else if (link->tls) {
        decrypt(link, bytes, len);
    } else {
        deliver(link, bytes, len);
    }
}

static void input_cut(struct bm_link *link)
{
    int r = link->tls && link->phase == BM_LINK_OPEN ? bm_tls_cut(link->tls) : 0;
    input_ended(link, r);
    if (link->phase == BM_LINK_LINGERING)
        set_phase(link, BM_LINK_GONE);
}

static void on_received(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_link *link = bm_container_of(op, struct bm_link, receive_op);
    int index = bm_op_buffer(flags);
    bm_link_enter(link);
    if (index >= 0) {
        if (res > 0)
            received(link, bm_buffers_at(link->core->packets, index), (size_t)res);
        bm_buffers_recycle(link->core->packets, index);
    }
    if (res == 0) {
        link->fin = true;
        input_cut(link);
    } else if (res == -ENOBUFS) {
        if (link->phase != BM_LINK_GONE)
            bm_buffers_wait(link->core->packets, &link->buffers_waiter);
    } else if (res == -ENOMEM || res == -EAGAIN) {
        /* Nothing tells when that is over. */
        link->receive_later = true;
        link->retry_ns = in_time(link, BM_LINK_RETRY_NS);
    } else if (res < 0 && res != -EINTR && res != -ECANCELED) {
        link->fin = true;
        input_ended(link, res);
        if (link->phase != BM_LINK_OPEN)
            bm_link_abort(link, false);
    }
    if (!bm_op_more(flags) && op->kind == BM_OP_RECV_MULTISHOT)
        bm_reactor_count_rearm(link->core->reactor);
    bm_link_leave(link);
}

static void on_buffer_home(struct bm_buffers_waiter *waiter)
{
    struct bm_link *link = bm_container_of(waiter, struct bm_link, buffers_waiter);
    bm_link_enter(link);
    bm_link_leave(link); /* arms it again */
}

static void arm_receive(struct bm_link *link)
{
    struct bm_op *op = &link->receive_op;
    if (!bm_op_idle(op) || link->fin || link->phase == BM_LINK_GONE || link->receive_later ||
        bm_list_linked(&link->buffers_waiter.node))
        return;
    if (link->phase == BM_LINK_OPEN && link->kept_len > 0)
        return;
    bool all = link->takes_all && link->phase == BM_LINK_OPEN;
    op->kind = all ? BM_OP_RECV_MULTISHOT : BM_OP_RECV_SELECT;
    op->group = BM_PACKET_GROUP;
    op->fd = link->fd;
    op->len = all ? 0 : BM_LINK_RECEIVE_MAX;
    bm_op_start(link->core->reactor, op);
}

/* ---- out ---- */

/* Has TLS encrypt what there is and it has room for. */
static void encrypt(struct bm_link *link)
{
    size_t len, taken;
    const uint8_t *bytes;
    while (link->secure && (bytes = link->events->output(link, &len)) && len > 0) {
        int r = bm_tls_write(link->tls, bytes, len, &taken);
        if (r < 0) {
            tls_failed(link, r);
            return;
        }
        if (taken == 0)
            return; /* no room: when some of it has left */
        link->events->output_ack(link, taken);
    }
}

static const uint8_t *output(struct bm_link *link, size_t *ret_len)
{
    if (!link->tls)
        return link->events->output(link, ret_len);
    if (!link->closed)
        encrypt(link);
    return bm_tls_output(link->tls, ret_len);
}

/* More waits than these bytes: output comes in pieces. */
static bool has_more(struct bm_link *link, size_t len)
{
    if (!link->tls)
        return link->events->output_len(link) > len;
    return bm_tls_output_len(link->tls) > len ||
           (link->secure && !link->closed && link->events->output_len(link) > 0);
}

static void output_left(struct bm_link *link, size_t len)
{
    if (link->tls)
        bm_tls_output_ack(link->tls, len);
    else
        link->events->output_ack(link, len);
}

static void start_send(struct bm_link *link, const uint8_t *bytes, size_t len)
{
    struct bm_op *op = &link->send_op;
    op->fd = link->fd;
    op->addr = bytes;
    op->len = len < INT32_MAX ? (uint32_t)len : INT32_MAX;
    op->quiet = len <= QUIET_MAX && link->phase == BM_LINK_OPEN && !link->shut_due &&
                !link->fell_short && !has_more(link, len);
    if (!op->quiet && link->stalled_until_ns == NEVER)
        link->stalled_until_ns = in_time(link, BM_LINK_STALL_NS);
    bm_op_start(link->core->reactor, op);
}

/* All output has left: what comes behind it. True: there is output after all. */
static bool end_output(struct bm_link *link)
{
    if (link->shut || !(link->shut_due || link->phase == BM_LINK_CLOSING))
        return false;
    if (link->tls && !link->closed) {
        link->closed = true;
        (void)bm_tls_close(link->tls); /* one that has failed has said so itself */
        return true;
    }
    link->shut = true;
    (void)shutdown(link->fd, SHUT_WR);
    if (link->phase == BM_LINK_CLOSING) {
        set_phase(link, link->fin ? BM_LINK_GONE : BM_LINK_LINGERING);
        link->closing_until_ns = in_time(link, BM_LINK_LINGER_NS);
    }
    return false;
}

static void pump(struct bm_link *link)
{
    size_t len = 0;
    if (link->phase >= BM_LINK_LINGERING || link->mute || link->shut)
        return;
    const uint8_t *bytes = output(link, &len);
    if (!bm_op_idle(&link->send_op)) {
        if (has_more(link, link->send_op.len) || link->phase != BM_LINK_OPEN || link->shut_due)
            bm_op_hurry(link->core->reactor, &link->send_op);
        return;
    }
    if (len == 0 && end_output(link))
        bytes = output(link, &len);
    if (len == 0 && link->closed && !link->shut)
        (void)end_output(link);
    else if (len > 0 && link->phase < BM_LINK_LINGERING && !link->send_later)
        start_send(link, bytes, len);
}

/* It takes no more. What the peer has said before lies there to be read, with its end behind. */
static void went_mute(struct bm_link *link, int error)
{
    link->mute = true;
    link->mute_error = error;
    if (link->phase != BM_LINK_OPEN || link->fin) {
        bm_link_abort(link, false);
        return;
    }
    link->closing_until_ns = in_time(link, BM_LINK_LINGER_NS);
}

static void on_sent(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_link *link = bm_container_of(op, struct bm_link, send_op);
    (void)flags;
    bm_link_enter(link);
    link->fell_short = res == -EAGAIN || (res >= 0 && (uint32_t)res < op->len);
    if (res > 0) {
        link->stalled_until_ns = NEVER;
        link->trim_ns = in_time(link, BM_LINK_TRIM_NS);
        if (link->phase != BM_LINK_GONE)
            output_left(link, (size_t)res);
    } else if (res == -ENOMEM || res == -ENOBUFS) {
        link->send_later = true;
        link->retry_ns = in_time(link, BM_LINK_RETRY_NS);
    } else if (res < 0 && res != -EAGAIN && res != -EINTR && res != -ECANCELED) {
        went_mute(link, res);
    }
    bm_link_flush(link);
    bm_link_leave(link);
}

static void on_task(struct bm_task *task)
{
    struct bm_link *link = bm_container_of(task, struct bm_link, task);
    if (!link->second) { /* those that are queued now may have something to say too */
        link->second = true;
        bm_task_queue(link->core->reactor, task);
        return;
    }
    if (link->phase == BM_LINK_OPEN && bm_task_put_off(link->core->reactor, task))
        return;
    link->second = false;
    bm_link_enter(link);
    if (link->early) {
        uint8_t *early = bm_take_ptr(link->early);
        received(link, early, link->early_len);
        bm_free(link->account, early, link->early_len);
    }
    link->events->on_turn(link);
    pump(link);
    bm_link_leave(link);
}

void bm_link_flush(struct bm_link *link)
{
    if (link->phase < BM_LINK_LINGERING)
        bm_task_queue(link->core->reactor, &link->task);
}

/* ---- time ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* An armed timer is only ever moved forward: when it comes too early it is armed again. */
static void arm_timer(struct bm_link *link)
{
    uint64_t next = link->phase == BM_LINK_OPEN ? link->events->next_ns(link) : NEVER;
    next = earlier(next, link->handshake_until_ns);
    next = earlier(next, link->stalled_until_ns);
    next = earlier(next, link->closing_until_ns);
    next = earlier(next, link->retry_ns);
    next = earlier(next, link->trim_ns);
    if (next != NEVER && (!bm_timer_armed(&link->timer) || next < link->timer.expires_ns))
        bm_timer_arm(link->core->reactor, &link->timer, next);
}

static void on_timer(struct bm_timer *timer)
{
    struct bm_link *link = bm_container_of(timer, struct bm_link, timer);
    bm_link_enter(link);
    uint64_t now = now_ns(link);
    if (link->retry_ns <= now) {
        link->retry_ns = NEVER;
        link->receive_later = link->send_later = false;
        bm_link_flush(link);
    }
    if (link->trim_ns <= now) {
        link->trim_ns = NEVER;
        if (link->tls)
            bm_tls_trim(link->tls);
        link->events->on_idle(link);
    }
    if (link->handshake_until_ns <= now) {
        link->handshake_until_ns = NEVER;
        (void)bm_tls_close(link->tls);
        input_ended(link, -ETIMEDOUT);
    }
    if (link->stalled_until_ns <= now || link->closing_until_ns <= now) {
        int error = link->stalled_until_ns <= now ? -ETIMEDOUT
                    : link->mute_error < 0        ? link->mute_error
                                                  : 0;
        link->stalled_until_ns = link->closing_until_ns = NEVER;
        input_ended(link, error);
        tell_end(link);
        bm_link_abort(link, false);
    }
    if (link->phase == BM_LINK_OPEN)
        link->events->on_tick(link, now);
    bm_link_leave(link);
}

/* ---- life ---- */

int bm_link_init(struct bm_link *link, const struct bm_link_options *options, int *fd)
{
    memset(link, 0, sizeof(*link));
    link->core = options->core;
    link->account = options->account;
    link->events = options->events;
    link->handshake_until_ns = link->stalled_until_ns = link->closing_until_ns = NEVER;
    link->retry_ns = link->trim_ns = NEVER;
    bm_op_init(&link->receive_op, BM_OP_RECV_SELECT, on_received);
    bm_op_init(&link->send_op, BM_OP_SEND, on_sent);
    link->buffers_waiter.fn = on_buffer_home;
    link->task.fn = on_task;
    bm_timer_init(&link->timer, on_timer);
    if (options->early_len > 0) {
        link->early = bm_alloc(link->account, options->early_len);
        if (!link->early)
            return -ENOMEM;
        memcpy(link->early, options->early, options->early_len);
        link->early_len = options->early_len;
    }
    if (options->tls) {
        struct bm_tls_start start = {.size = sizeof(start)};
        if (options->tls_start)
            start = *options->tls_start;
        start.account = link->account;
        int r = bm_tls_new(&link->tls, options->tls, &start);
        if (r < 0) {
            link->early = bm_free(link->account, link->early, link->early_len);
            return r;
        }
        link->handshake_until_ns = in_time(link, BM_LINK_HANDSHAKE_NS);
    }
    link->secure = !link->tls;
    link->fd = bm_take_fd(fd);
    bm_link_flush(link);
    return 0;
}

void bm_link_take_all(struct bm_link *link)
{
    link->takes_all = true;
    if (link->receive_op.kind == BM_OP_RECV_SELECT)
        bm_op_cancel(link->core->reactor, &link->receive_op);
}

void bm_link_shut(struct bm_link *link)
{
    link->shut_due = true;
    bm_link_flush(link);
}

void bm_link_close(struct bm_link *link, bool broken)
{
    if (link->phase != BM_LINK_OPEN)
        return;
    if (broken || link->mute) {
        const struct linger at_once = {.l_onoff = 1};
        (void)setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        bm_link_abort(link, false);
        return;
    }
    set_phase(link, BM_LINK_CLOSING);
    link->closing_until_ns = in_time(link, BM_LINK_FAREWELL_NS);
    bm_op_hurry(link->core->reactor, &link->send_op);
    if (link->shut) { /* already */
        set_phase(link, link->fin ? BM_LINK_GONE : BM_LINK_LINGERING);
        link->closing_until_ns = in_time(link, BM_LINK_LINGER_NS);
    }
    bm_task_queue(link->core->reactor, &link->task);
}

/* The one direct send: it goes now or never, and nothing waits for it. */
static void say_goodbye(struct bm_link *link)
{
    size_t len = 0;
    if (link->mute || link->shut || link->send_op.state == BM_OP_INFLIGHT)
        return;
    const uint8_t *bytes = output(link, &len);
    if (link->tls && !link->closed) {
        link->closed = true;
        (void)bm_tls_close(link->tls);
        bytes = bm_tls_output(link->tls, &len);
    }
    if (len > 0 && bytes)
        (void)!send(link->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void bm_link_abort(struct bm_link *link, bool told)
{
    struct bm_reactor *reactor = link->core->reactor;
    if (link->phase == BM_LINK_GONE)
        return;
    if (link->send_op.state == BM_OP_QUEUED)
        bm_op_cancel(reactor, &link->send_op); /* what it has is said directly, or not at all */
    if (told)
        say_goodbye(link);
    set_phase(link, BM_LINK_GONE);
    if (link->depth == 0)
        bm_task_queue(reactor, &link->task);
}

/* The last step, when nothing of the kernel's is left. */
static void finish(struct bm_link *link)
{
    struct bm_reactor *reactor = link->core->reactor;
    bm_timer_cancel(reactor, &link->timer);
    if (link->core->packets)
        bm_buffers_unwait(link->core->packets, &link->buffers_waiter);
    bm_op_cancel(reactor, &link->receive_op);
    bm_op_cancel(reactor, &link->send_op);
    if (!bm_op_idle(&link->receive_op) || !bm_op_idle(&link->send_op))
        return;
    bm_task_cancel(&link->task);
    drop_kept(link);
    link->early = bm_free(link->account, link->early, link->early_len);
    bm_reactor_close_fd(reactor, &link->fd);
    link->events->on_gone(link);
}

void bm_link_enter(struct bm_link *link)
{
    link->depth++;
}

void bm_link_leave(struct bm_link *link)
{
    bm_assert(link->depth > 0);
    if (link->depth == 1) {
        offer_kept(link);
        tell_end(link);
        link->events->settle(link);
    }
    if (--link->depth > 0)
        return;
    if (link->phase == BM_LINK_GONE) {
        finish(link);
        return;
    }
    arm_receive(link);
    arm_timer(link);
}
