/* unix: URLs: connecting, listening, accepting.
 *
 * AF_UNIX has no load-balancing SO_REUSEPORT: core 0 accepts and deals the sockets out. Accepting stops
 * for a while when the process has no fd left; one is held in reserve for that time, so that a
 * waiting peer is told (by a close) instead of being left to hang. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"
#include "runtime/unix_session.h"

#define ACCEPT_PAUSE_NS (10 * BM_NS_PER_MS) /* ours: after any error */
#define CONNECT_RETRY_NS BM_NS_PER_MS       /* backlog full: again after 1 … 20 ms */
#define CONNECT_RETRY_LAST_NS (20 * BM_NS_PER_MS)

struct unix_listener {
    struct bm_listener listener;
    struct bm_unix_address address;
    int fd;
    bool listening; /* else: one connected socket that was inherited */
    int reserve_fd;
    unsigned next_core;
    struct bm_op accept_op;
    struct bm_timer pause_timer;
};

/* --- connect --------------------------------------------------------------------------------- */

static void on_connected(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_unix_session *us = bm_container_of(op, struct bm_unix_session, connect_op);
    struct bm_core *core = us->session.core;
    uint64_t now = bm_reactor_now_ns(core->reactor);
    (void)flags;
    if (us->closing) {
        bm_unix_session_finish(us);
    } else if (res == 0) {
        bm_unix_session_up(us);
    } else if (res == -EAGAIN || res == -EINTR) {
        /* A full backlog says EAGAIN and cannot be waited for (unix(7)). The hello timer ends it. */
        us->retry_ns = us->retry_ns == 0 ? CONNECT_RETRY_NS : 2 * us->retry_ns;
        if (us->retry_ns > CONNECT_RETRY_LAST_NS)
            us->retry_ns = CONNECT_RETRY_LAST_NS;
        bm_timer_arm(core->reactor, &us->retry_timer, now + us->retry_ns);
    } else {
        us->session.connect_error = res;
        bm_session_lost(&us->session, BEAM_UNAVAILABLE, beam_strerror(res));
    }
}

static int unix_connect(struct bm_core *core, const char *url,
                        const struct beam_connect_options *options, beam_session **ret_session)
{
    struct bm_unix_address address;
    struct bm_unix_session *us;
    bool refused = core->runtime->limits.fds_refused;
    int fd = -1;
    if (options->net)
        return -EINVAL;
    int r = bm_unix_address_parse(url, &address);
    if (r < 0)
        return r;

    bool inherited = address.inherited_fd >= 0;
    bool listening = false;
    if (inherited) {
        r = bm_unix_socket_inherit(address.inherited_fd, refused, &listening);
        if (r >= 0 && listening)
            r = -ENOTCONN; /* a listening socket leads nowhere */
        fd = address.inherited_fd;
    } else {
        r = bm_unix_socket_new(refused, &fd);
    }
    if (r >= 0)
        r = bm_unix_session_new(core, &fd, true, &us);
    if (r < 0) {
        if (fd >= 0 && !inherited)
            close(fd);
        return r;
    }
    if (inherited) {
        bm_unix_session_up(us);
    } else {
        us->address = address.sun;
        us->connect_op.fn = on_connected;
        us->connect_op.fd = us->fd;
        us->connect_op.addr = &us->address;
        us->connect_op.len = address.len;
        bm_op_start(core->reactor, &us->connect_op);
    }
    *ret_session = &us->session;
    return 0;
}

/* --- accept ---------------------------------------------------------------------------------- */

/* One accepted socket on its way to the core that will own it. */
struct dealt {
    struct bm_core *core;
    int fd;
};

static void take_socket(struct bm_core *core, int fd)
{
    struct bm_unix_session *us;
    int r = bm_unix_socket_prepare(fd, core->runtime->limits.fds_refused);
    if (r >= 0)
        r = core->stopping ? -ESHUTDOWN : bm_unix_session_new(core, &fd, false, &us);
    if (r < 0) {
        bm_reactor_close_fd(core->reactor, &fd);
        return;
    }
    /* Who connected, before anything is said; who speaks, HELLO tells, and mostly it is the same. */
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(us->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
        bm_unix_session_admit(us, peer.uid))
        bm_unix_session_up(us);
}

static void take_dealt(void *arg)
{
    struct dealt dealt = *(struct dealt *)arg;
    bm_free(NULL, arg, sizeof(dealt));
    take_socket(dealt.core, dealt.fd);
}

static void deal(struct unix_listener *ul, int fd)
{
    beam_runtime *runtime = ul->listener.runtime;
    struct bm_core *to = &runtime->cores[ul->next_core++ % runtime->core_count];
    if (to != ul->listener.core) {
        struct dealt *dealt = bm_alloc(NULL, sizeof(*dealt));
        if (dealt) {
            *dealt = (struct dealt){to, fd};
            if (bm_mailbox_post(to->reactor, take_dealt, dealt) == 0)
                return;
            bm_free(NULL, dealt, sizeof(*dealt));
        }
    }
    take_socket(ul->listener.core, fd); /* or where it came in, when the other has no room */
}

static void unix_listener_free(struct bm_listener *listener);

static void accept_again(struct unix_listener *ul)
{
    ul->accept_op.fd = ul->fd;
    bm_op_start(ul->listener.core->reactor, &ul->accept_op);
}

/* Takes one peer off the backlog and closes it, with the fd that was kept for this. If there is one for
 * the reserve besides, there are fds again, and the peer can stay. */
static void turn_away(struct unix_listener *ul)
{
    if (ul->reserve_fd < 0)
        return;
    close(ul->reserve_fd);
    int fd = accept4(ul->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    ul->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (ul->reserve_fd >= 0) {
        deal(ul, fd);
        return;
    }
    close(fd);
    ul->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_accepted(struct bm_op *op, int res, uint32_t flags)
{
    struct unix_listener *ul = bm_container_of(op, struct unix_listener, accept_op);
    struct bm_core *core = ul->listener.core;
    (void)flags;
    if (ul->listener.closing) {
        if (res >= 0)
            close(res);
        unix_listener_free(&ul->listener);
        bm_core_check_quiet(core);
        return;
    }
    if (res >= 0) {
        deal(ul, res);
        accept_again(ul);
        return;
    }
    bm_core_log(core, BEAM_LOG_WARNING, "%s: cannot accept: %s", ul->listener.url,
                beam_strerror(res));
    if (res == -EMFILE || res == -ENFILE || res == -ENOMEM || res == -ENOBUFS)
        turn_away(ul);
    /* Also after what should be one connection's (ECONNABORTED, EPERM of a firewall): should it be
     * the listener's after all, asking again at once would never end. */
    bm_timer_arm(core->reactor, &ul->pause_timer,
                 bm_reactor_now_ns(core->reactor) + ACCEPT_PAUSE_NS);
}

static void on_pause_over(struct bm_timer *timer)
{
    accept_again(bm_container_of(timer, struct unix_listener, pause_timer));
}

/* --- listen ---------------------------------------------------------------------------------- */

static int unix_listen(beam_runtime *runtime, const char *url,
                       const struct beam_listen_options *options, struct bm_listener **ret_listener)
{
    if (options->net)
        return -EINVAL;
    struct unix_listener *ul = bm_alloc_zero(NULL, sizeof(*ul));
    if (!ul)
        return -ENOMEM;
    ul->fd = ul->reserve_fd = -1;
    int r = bm_unix_address_parse(url, &ul->address);
    if (r >= 0)
        r = bm_unix_socket_listen(&ul->address, options->mode ? options->mode : 0600,
                                  runtime->limits.fds_refused, &ul->fd, &ul->listening);
    if (r < 0) {
        bm_free(NULL, ul, sizeof(*ul));
        return r;
    }
    ul->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bm_op_init(&ul->accept_op, BM_OP_ACCEPT, on_accepted);
    bm_timer_init(&ul->pause_timer, on_pause_over);
    *ret_listener = &ul->listener;
    return 0;
}

static void unix_listener_free(struct bm_listener *listener)
{
    struct unix_listener *ul = bm_container_of(listener, struct unix_listener, listener);
    bm_list_unlink(&listener->node);
    if (ul->fd >= 0) {
        if (ul->listening && !bm_runtime_forked(listener->runtime))
            bm_unix_socket_unlink(&ul->address);
        close(ul->fd);
    }
    if (ul->reserve_fd >= 0)
        close(ul->reserve_fd);
    bm_free(NULL, listener->url, listener->url_len + 1);
    bm_free(NULL, ul, sizeof(*ul));
}

static void unix_start(struct bm_listener *listener, struct bm_core *core)
{
    struct unix_listener *ul = bm_container_of(listener, struct unix_listener, listener);
    listener->core = core;
    if (ul->listening) {
        accept_again(ul);
        return;
    }
    take_socket(core, bm_take_fd(&ul->fd)); /* whoever handed it out made us the acceptor */
}

static void unix_stop(struct bm_listener *listener)
{
    struct unix_listener *ul = bm_container_of(listener, struct unix_listener, listener);
    if (listener->closing)
        return;
    listener->closing = true;
    /* Refused from this moment on; the accept under way ends when the kernel gets to it. */
    if (ul->listening)
        shutdown(ul->fd, SHUT_RDWR);
    bm_timer_cancel(listener->core->reactor, &ul->pause_timer);
    if (bm_op_idle(&ul->accept_op))
        unix_listener_free(listener);
    else
        bm_op_cancel(listener->core->reactor, &ul->accept_op);
}

const struct beam_transport beam_unix = {
    .scheme = "unix:",
    .connect = unix_connect,
    .listen = unix_listen,
    .start = unix_start,
    .stop = unix_stop,
    .free = unix_listener_free,
};
