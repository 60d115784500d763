/* unix: URLs: connecting, listening, and what becomes of those who come.
 *
 * AF_UNIX has no load-balancing SO_REUSEPORT: core 0 accepts and deals the sockets out. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/acceptor.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"
#include "runtime/unix_session.h"

#define CONNECT_RETRY_NS BM_NS_PER_MS /* backlog full: again after 1 … 20 ms */
#define CONNECT_RETRY_LAST_NS (20 * BM_NS_PER_MS)

struct unix_listener {
    struct bm_listener listener;
    struct bm_unix_address address;
    bool listening; /* else: one connected socket that was inherited, */
    int fd;         /* ... this one, until it starts */
    unsigned next_core;
    struct bm_acceptor acceptor;
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

static void deal(struct bm_acceptor *acceptor, int fd)
{
    struct unix_listener *ul = bm_container_of(acceptor, struct unix_listener, acceptor);
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

static void on_stopped(struct bm_acceptor *acceptor)
{
    struct bm_core *core = acceptor->core;
    unix_listener_free(&bm_container_of(acceptor, struct unix_listener, acceptor)->listener);
    bm_core_check_quiet(core);
}

static const struct bm_acceptor_events acceptor_events = {
    .on_socket = deal,
    .on_stopped = on_stopped,
};

/* --- listen ---------------------------------------------------------------------------------- */

static int unix_listen(beam_runtime *runtime, const char *url,
                       const struct beam_listen_options *options, struct bm_listener **ret_listener)
{
    if (options->net)
        return -EINVAL;
    struct unix_listener *ul = bm_alloc_zero(NULL, sizeof(*ul));
    if (!ul)
        return -ENOMEM;
    ul->fd = -1;
    int r = bm_unix_address_parse(url, &ul->address);
    if (r >= 0)
        r = bm_unix_socket_listen(&ul->address, options->mode ? options->mode : 0600,
                                  runtime->limits.fds_refused, &ul->fd, &ul->listening);
    if (r < 0) {
        bm_free(NULL, ul, sizeof(*ul));
        return r;
    }
    if (ul->listening)
        bm_acceptor_init(&ul->acceptor, &acceptor_events, "", &ul->fd);
    *ret_listener = &ul->listener;
    return 0;
}

static void unix_listener_free(struct bm_listener *listener)
{
    struct unix_listener *ul = bm_container_of(listener, struct unix_listener, listener);
    bm_list_unlink(&listener->node);
    if (ul->listening) {
        if (!bm_runtime_forked(listener->runtime))
            bm_unix_socket_unlink(&ul->address);
        bm_acceptor_deinit(&ul->acceptor);
    } else if (ul->fd >= 0) {
        close(ul->fd);
    }
    bm_free(NULL, listener->url, listener->url_len + 1);
    bm_free(NULL, ul, sizeof(*ul));
}

static void unix_start(struct bm_listener *listener, struct bm_core *core)
{
    struct unix_listener *ul = bm_container_of(listener, struct unix_listener, listener);
    listener->core = core;
    if (ul->listening) {
        ul->acceptor.name = listener->url;
        bm_acceptor_start(&ul->acceptor, core);
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
    if (ul->listening)
        bm_acceptor_stop(&ul->acceptor);
    else
        unix_listener_free(listener);
}

const struct beam_transport beam_unix = {
    .scheme = "unix:",
    .connect = unix_connect,
    .listen = unix_listen,
    .start = unix_start,
    .stop = unix_stop,
    .free = unix_listener_free,
};
