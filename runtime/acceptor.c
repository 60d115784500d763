/* See acceptor.h. One accept is under way at a time, single shot: its result comes with everything else of
 * the turn, and a peer's is asked for when the last one has a place. */
#include "runtime/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <beam/error.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "runtime/core.h"

static int reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_again(struct bm_acceptor *acceptor)
{
    acceptor->op.fd = acceptor->fd;
    bm_op_start(acceptor->core->reactor, &acceptor->op);
}

/* Takes one peer off the backlog and closes it, with the fd that was kept for this. If there is one for
 * the reserve besides, there are fds again, and the peer can stay. */
static void turn_away(struct bm_acceptor *acceptor)
{
    if (acceptor->reserve_fd < 0)
        return;
    close(acceptor->reserve_fd);
    int fd = accept4(acceptor->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    acceptor->reserve_fd = reserve();
    if (fd < 0)
        return;
    if (acceptor->reserve_fd >= 0) {
        acceptor->events->on_socket(acceptor, fd);
        return;
    }
    close(fd);
    acceptor->reserve_fd = reserve();
}

static void on_accepted(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_acceptor *acceptor = bm_container_of(op, struct bm_acceptor, op);
    struct bm_core *core = acceptor->core;
    (void)flags;
    if (acceptor->stopping) {
        if (res >= 0)
            close(res);
        acceptor->events->on_stopped(acceptor);
        return;
    }
    if (res >= 0) {
        acceptor->events->on_socket(acceptor, res);
        accept_again(acceptor);
        return;
    }
    if (atomic_load_explicit(&acceptor->shut, memory_order_relaxed))
        return; /* bm_acceptor_stop is on its way */
    bm_core_log(core, BEAM_LOG_WARNING, "%s: cannot accept: %s", acceptor->name,
                beam_strerror(res));
    if (res == -EMFILE || res == -ENFILE || res == -ENOMEM || res == -ENOBUFS)
        turn_away(acceptor);
    /* Also after what should be one connection's (ECONNABORTED, EPERM of a firewall): should it be
     * the listener's after all, asking again at once would never end. */
    bm_timer_arm(core->reactor, &acceptor->pause_timer,
                 bm_reactor_now_ns(core->reactor) + BM_ACCEPT_PAUSE_NS);
}

static void on_pause_over(struct bm_timer *timer)
{
    accept_again(bm_container_of(timer, struct bm_acceptor, pause_timer));
}

void bm_acceptor_init(struct bm_acceptor *acceptor, const struct bm_acceptor_events *events,
                      const char *name, int *fd)
{
    *acceptor = (struct bm_acceptor){
        .events = events,
        .name = name,
        .fd = bm_take_fd(fd),
        .reserve_fd = reserve(),
    };
    bm_op_init(&acceptor->op, BM_OP_ACCEPT, on_accepted);
    bm_timer_init(&acceptor->pause_timer, on_pause_over);
}

void bm_acceptor_start(struct bm_acceptor *acceptor, struct bm_core *core)
{
    acceptor->core = core;
    accept_again(acceptor);
}

void bm_acceptor_shut(struct bm_acceptor *acceptor)
{
    atomic_store_explicit(&acceptor->shut, true, memory_order_relaxed);
    shutdown(acceptor->fd, SHUT_RDWR);
}

void bm_acceptor_stop(struct bm_acceptor *acceptor)
{
    struct bm_reactor *reactor = acceptor->core->reactor;
    acceptor->stopping = true;
    bm_acceptor_shut(acceptor);
    bm_timer_cancel(reactor, &acceptor->pause_timer);
    if (bm_op_idle(&acceptor->op))
        acceptor->events->on_stopped(acceptor);
    else
        bm_op_cancel(reactor, &acceptor->op);
}

void bm_acceptor_deinit(struct bm_acceptor *acceptor)
{
    if (acceptor->fd >= 0)
        close(acceptor->fd);
    if (acceptor->reserve_fd >= 0)
        close(acceptor->reserve_fd);
    acceptor->fd = acceptor->reserve_fd = -1;
}
