/* The unix carrier's way in: a multishot recvmsg into the core's provided buffers, each packet taken
 * apart (unpacking.c) and its buffer recycled before the callback returns.
 *
 * A multishot ends for many reasons (no buffer, a full completion queue, an error); whatever the
 * reason, it is armed again unless the session is ending. Without a buffer it waits for one to come
 * home, without memory of the kernel's a little while. Every fd of a packet is put into its message, or closed, on every path. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/unpacking.h"
#include "runtime/unix_session.h"
#include "uring/packet.h"

#define RECEIVE_RETRY_NS (10 * BM_NS_PER_MS) /* ours: the kernel has no memory, or puts it off */

/* The fds of one packet while its frames are taken apart. */
struct fds {
    struct bm_core *core;
    struct bm_unix_control control;
    unsigned next;
    bool truncated; /* MSG_CTRUNC: the last ones are missing */
};

static void discard_fds(unsigned count, void *arg)
{
    struct fds *fds = arg;
    for (unsigned i = 0; i < count && fds->next < fds->control.fd_count; i++)
        bm_reactor_close_fd(fds->core->reactor, &fds->control.fds[fds->next++]);
}

static bool take_fds(unsigned count, beam_message *message, void *arg)
{
    struct fds *fds = arg;
    unsigned have = fds->control.fd_count - fds->next;
    bool complete = have >= count;
    unsigned n = complete ? count : have;
    struct bm_attachments *att = NULL;
    if (complete && n <= BEAM_MESSAGE_FDS_MAX)
        att = bm_message_attachments(message);
    for (unsigned i = 0; i < n; i++) {
        int *fd = &fds->control.fds[fds->next++];
        if (att)
            att->fds[att->fd_count++] = bm_take_fd(fd);
        else
            bm_reactor_close_fd(fds->core->reactor, fd);
    }
    return att != NULL;
}

/* U3: who sent this packet, says the kernel; it need not be who connected. */
static bool on_hello(beam_session *session, const struct bm_hello *hello, void *arg)
{
    struct bm_unix_session *us = bm_unix_of(session);
    const struct fds *fds = arg;
    (void)hello;
    if (!fds->control.has_credentials) {
        bm_session_fail(session, -BEAM_EPEER_IDENTITY);
        return false;
    }
    session->peer.shown.uid = fds->control.credentials.uid;
    session->peer.shown.gid = fds->control.credentials.gid;
    session->peer.shown.pid = fds->control.credentials.pid;
    if (!bm_unix_session_admit(us, session->peer.shown.uid))
        return false;
    int off = 0;
    /* Later packets need not carry credentials: that saves both kernels' ends their work. */
    (void)setsockopt(us->fd, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
    return true;
}

static const struct bm_unpacking unpacking = {
    .on_hello = on_hello,
    .take_fds = take_fds,
    .discard_fds = discard_fds,
};

/* U2: before anything is delivered, the count must be right. */
static int count_fds(struct bm_bytes packet, const struct fds *fds)
{
    struct bm_frame frame;
    unsigned sum = 0;
    int r;
    while ((r = bm_frame_next(&packet, &frame)) > 0)
        sum += frame.fds;
    if (r < 0)
        return r;
    return fds->truncated || sum == fds->control.fd_count ? 0 : -BEAM_EFRAME_FDS;
}

static void on_packet(struct bm_unix_session *us, const struct bm_packet_view *view)
{
    beam_session *session = &us->session;
    struct bm_core *core = session->core;
    struct fds fds;
    fds.core = core;
    fds.next = 0;
    fds.truncated = view->flags & MSG_CTRUNC;
    bm_unix_control_parse(view->control, view->control_len, &fds.control);
    core->packets_received++;
    us->heard = true;

    struct bm_bytes packet = bm_bytes(view->payload, view->payload_len);
    struct bm_frame frame;
    int r = 0;
    if (view->flags & MSG_TRUNC)
        r = -BEAM_EFRAME_OVERSIZED;
    /* Frames with a wrong count of fds cannot be told whose are whose; only then is a second look
     * at the headers worth its time. */
    if (r == 0 && fds.control.fd_count > 0)
        r = count_fds(packet, &fds);

    while (r == 0 && session->state == BM_SESSION_OPEN) {
        int n = bm_frame_next(&packet, &frame);
        if (n == 0)
            break;
        if (n < 0)
            r = n;
        else if (frame.fds > 0 && fds.control.fd_count == 0 && !fds.truncated)
            r = -BEAM_EFRAME_FDS;
        else if (!bm_unpacking_frame(session, &unpacking, &fds, &frame, n == 1))
            break;
    }
    discard_fds(fds.control.fd_count, &fds);
    if (fds.control.fd_count > 0) {
        us->fds_came = true;
        if (session->queue_len == 0) /* else when that has been sent, as far as it can be */
            bm_unix_watch(us);
    }
    if (r < 0)
        bm_session_fail(session, r);
}

/* --- the multishot --------------------------------------------------------------------------- */

static void on_buffer_home(struct bm_buffers_waiter *waiter)
{
    struct bm_unix_session *us = bm_container_of(waiter, struct bm_unix_session, buffers_waiter);
    bm_unix_receive_start(us);
}

static void receive_again(struct bm_unix_session *us, int res)
{
    struct bm_core *core = us->session.core;
    if (!us->receiving)
        return;
    if (res == -ENOBUFS) {
        bm_buffers_wait(core->packets, &us->buffers_waiter);
        return;
    }
    if (res == -ENOMEM || res == -EAGAIN) {
        /* Nothing tells when that is over, and asking at once is mostly told the same. */
        bm_timer_arm(core->reactor, &us->receive_timer,
                     bm_reactor_now_ns(core->reactor) + RECEIVE_RETRY_NS);
        return;
    }
    bm_reactor_count_rearm(core->reactor);
    bm_unix_receive_start(us);
}

static void on_receive_retry(struct bm_timer *timer)
{
    struct bm_unix_session *us = bm_container_of(timer, struct bm_unix_session, receive_timer);
    bm_reactor_count_rearm(us->session.core->reactor);
    bm_unix_receive_start(us);
}

static void on_received(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_unix_session *us = bm_container_of(op, struct bm_unix_session, receive_op);
    beam_session *session = bm_session_ref(&us->session);
    struct bm_core *core = session->core;
    int index = bm_op_buffer(flags);
    bool ended = false;

    if (index >= 0) {
        void *buffer = bm_buffers_at(core->packets, index);
        struct bm_packet_view view;
        if (res >= 0 && bm_packet_view(buffer, res, &us->receive_form, &view)) {
            /* Also when closing: its fds are in our table by now. */
            if (view.payload_len > 0 || view.control_len > 0)
                on_packet(us, &view);
            ended = view.payload_len == 0;
        }
        bm_buffers_recycle(core->packets, index);
    }

    if (res == -ECONNRESET && !us->reset_seen) {
        /* The peer closed with something of ours unread; what it had sent before lies behind. */
        us->reset_seen = true;
    } else if (ended || (res < 0 && res != -ENOBUFS && res != -EINTR && res != -EAGAIN &&
                         res != -ENOMEM && res != -ECANCELED)) {
        bool orderly =
            bm_list_empty(&session->channels) && (session->draining || session->peer_draining);
        us->receiving = false;
        bm_session_lost(session, orderly ? BEAM_OK : BEAM_UNAVAILABLE,
                        orderly ? "closed" : "the peer has closed the session");
    }
    if (!bm_op_more(flags)) {
        receive_again(us, res);
        if (us->closing)
            bm_unix_session_finish(us);
    }
    bm_session_unref(session);
}

void bm_unix_receive_init(struct bm_unix_session *us)
{
    bm_op_init(&us->receive_op, BM_OP_RECVMSG_MULTISHOT, on_received);
    us->receive_op.group = BM_PACKET_GROUP;
    us->receive_form = (struct msghdr){.msg_controllen = BM_UNIX_CONTROL_LEN};
    us->buffers_waiter.fn = on_buffer_home;
    bm_timer_init(&us->receive_timer, on_receive_retry);
}

void bm_unix_receive_start(struct bm_unix_session *us)
{
    us->receiving = true;
    us->receive_op.fd = us->fd;
    us->receive_op.addr = &us->receive_form;
    bm_op_start(us->session.core->reactor, &us->receive_op);
}
