/* A frame is taken apart as far as its bytes tell, and handed to incoming.c, which knows what it means.
 *
 * Invariants: nothing but HELLO comes before HELLO; fds of a frame are charged to the peer's credit, be they
 * there or not, and are taken by a message or closed on every path; messages are handed on as views, so that
 * nothing is copied here. */
#include "runtime/unpacking.h"

#include <errno.h>

#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"

static bool fail(beam_session *session, int error)
{
    bm_session_fail(session, error);
    return false;
}

/* W7: what was sent was paid for, be it there or not. false: it was not, and the session has ended. */
static bool charge_fds(beam_session *session, unsigned count)
{
    session->fds_recv_credit -= count;
    return count == 0 || session->fds_recv_credit >= 0 || fail(session, -BEAM_EFLOW_CONTROL);
}

/* The fds of a frame that nobody will see: they cost credit, and give it back. */
static bool discard_fds(beam_session *session, const struct bm_unpacking *carrier, void *arg,
                        unsigned count)
{
    if (count == 0)
        return true;
    carrier->discard_fds(count, arg);
    if (!charge_fds(session, count))
        return false;
    bm_session_return_fds(session, count);
    return true;
}

static bool on_hello(beam_session *session, const struct bm_unpacking *carrier, void *arg,
                     const struct bm_frame *frame)
{
    struct bm_hello hello;
    int r = bm_hello_parse(frame->payload, frame->len, &hello);
    if (r < 0)
        return fail(session, r);
    if (!session->hello_received && carrier->on_hello && !carrier->on_hello(session, &hello, arg))
        return false;
    if (!bm_incoming_hello(session, &hello))
        return false;
    bm_session_want_flush(session);
    return true;
}

/* D2: it counts as a descriptor, and becomes one when its channel is open. */
static int take_descriptor(struct bm_attachments *att)
{
    if (att->fd_count == BEAM_MESSAGE_FDS_MAX)
        return -BEAM_EFRAME_FDS;
    att->fds[att->fd_count++] = -1;
    att->pumped = true;
    return 0;
}

/* 0, a session error, or -ENOMEM. */
static int take_attached(const struct bm_message_head *head, beam_message *message)
{
    for (unsigned i = 0; i < head->attached; i++) {
        struct bm_attached attached;
        int r = bm_frame_parse_attached(head, i, &attached);
        if (r < 0)
            return r;
        struct bm_attached_channel *entry = bm_attachments_add_channel(message);
        if (!entry)
            return -ENOMEM;
        entry->id = attached.id;
        entry->mode = attached.mode;
        if (attached.mode == BM_MODE_FD)
            r = take_descriptor(message->attachments);
        if (r == 0)
            r = bm_about_parse(attached.about, attached.about_len, attached.mode, &entry->about);
        if (r < 0)
            return r;
    }
    return 0;
}

static struct bm_incoming_message describe(const struct bm_core *core, const struct bm_frame *frame,
                                           const struct bm_message_head *head)
{
    struct bm_incoming_message in = {
        .id = frame->channel,
        .flags = frame->flags,
        .open = head->open,
        .depth = head->depth,
        .large = head->large,
        .total = head->body_total,
        .name = head->name,
        .deadline_ns = UINT64_MAX,
    };
    /* One that lies centuries ahead is none, and must not wrap around. */
    if (head->deadline_ns > 0 && head->deadline_ns <= UINT64_MAX / 2)
        in.deadline_ns = bm_reactor_now_ns(core->reactor) + head->deadline_ns;
    return in;
}

static void view_init(beam_message *view, const struct bm_message_head *head)
{
    bm_message_view_init(view, head->body, head->body_len);
    view->metadata = head->metadata;
    view->metadata_len = head->metadata_len;
    view->codec = head->codec;
}

static bool on_message(beam_session *session, const struct bm_unpacking *carrier, void *arg,
                       const struct bm_frame *frame)
{
    bool open = frame->flags & BM_MSG_OPEN;
    beam_channel *channel = open ? NULL : bm_incoming_find(session, frame->channel);

    if (channel && bm_incoming_expects_bytes(channel)) {
        if (frame->fds > 0 || frame->attached > 0)
            return fail(session, frame->fds > 0 ? -BEAM_EFRAME_FDS : -BEAM_EFRAME_ATTACHMENT);
        return bm_incoming_bytes(session, channel, frame->flags, frame->payload, frame->len);
    }
    bool over = channel ? channel->abort_due : bm_incoming_was_given(session, frame->channel);
    if (!open && over && frame->attached == 0) {
        /* M3: for a channel that is gone, or as good as; whether it is a first frame or bytes nobody
         * can tell. */
        return discard_fds(session, carrier, arg, frame->fds);
    }

    struct bm_message_head head;
    int r = session->carrier->pumps_fds ? bm_frame_parse_network_message(frame, &head)
                                        : bm_frame_parse_message(frame, &head);
    if (r < 0)
        return fail(session, r);
    struct bm_incoming_message in = describe(session->core, frame, &head);
    beam_message view;
    view_init(&view, &head);
    if (frame->fds > 0) {
        in.fds_missing = !carrier->take_fds(frame->fds, &view, arg);
        if (in.fds_missing && !charge_fds(session, frame->fds))
            return false;
    }
    if (head.attached > 0) {
        r = take_attached(&head, &view);
        if (r < 0) {
            bm_message_done(&view);
            return fail(session, r);
        }
    }
    bool go_on = bm_incoming_message(session, &in, &view);
    if (in.fds_missing && go_on)
        bm_session_return_fds(session, frame->fds);
    return go_on;
}

bool bm_unpacking_frame(beam_session *session, const struct bm_unpacking *carrier, void *arg,
                        const struct bm_frame *frame, bool known)
{
    if (frame->fds > 0 && !carrier->take_fds)
        return fail(session, -BEAM_EFRAME_FDS);
    if (!session->hello_received && frame->kind != BM_FRAME_HELLO)
        return fail(session, -BEAM_EHELLO_MISSING);
    if (!known)
        return discard_fds(session, carrier, arg, frame->fds);
    switch (frame->kind) {
    case BM_FRAME_HELLO:
        return on_hello(session, carrier, arg, frame);
    case BM_FRAME_MSG:
        return on_message(session, carrier, arg, frame);
    case BM_FRAME_END: {
        struct bm_frame_end end;
        bm_frame_parse_end(frame, &end);
        return bm_incoming_end(session, frame->channel, frame->flags, &end);
    }
    case BM_FRAME_CREDIT:
        return bm_incoming_credit(session, frame->channel, bm_frame_parse_u64(frame));
    case BM_FRAME_PING:
        return bm_incoming_ping(session, frame->flags, bm_frame_parse_u64(frame));
    case BM_FRAME_GOAWAY: {
        struct bm_frame_goaway goaway;
        bm_frame_parse_goaway(frame, &goaway);
        return bm_incoming_goaway(session, &goaway);
    }
    default:
        return true;
    }
}
