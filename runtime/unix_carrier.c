/* The unix carrier's way out and its life: frames (packing.c) fill one packet, which one sendmsg sends;
 * the next packet is filled when that has completed. One send at a time, because two on one socket can
 * change places when the first has to wait for room.
 *
 * fds. A message with fds stays with the packet until the kernel has taken it (*retained*):
 * ETOOMANYREFS (the *user* has too many fds under way, unix(7)) takes nothing, and then the packet is
 * packed again without those messages; their channels wait and try again. What follows a retained
 * message on its channel, or on a channel it opens, is retained too, so that order and ids hold.
 * Everything else is a copy, and its message is done with when packed.
 *
 * Failure. A packet whose send failed was not received (SEQPACKET: whole or not at all), but what
 * earlier packets did is unknown: the session ends, and session.c tells not sent from unknown.
 *
 * Invariants: a packet does not change while its send is in flight; it has frames or there is none
 * (unix_packet.c); the fds of a retained message are closed once, by the kernel with the send or by
 * us. What frames mean is outgoing.c's, what comes in is unix_receive.c's. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/packing.h"
#include "runtime/unix_session.h"

#define LINKED_CLOSES_MAX 2u                  /* ours, measured: docs/adr/0203 */
#define FD_RETRY_FIRST_NS BM_NS_PER_MS        /* ETOOMANYREFS: again after 1 … 100 ms, */
#define FD_RETRY_LAST_NS (100 * BM_NS_PER_MS) /* for 5 s or the deadline */
#define SEND_RETRY_NS (10 * BM_NS_PER_MS) /* ours: no memory for a packet, here or in the kernel */
#define LAST_WORDS_NS BM_NS_PER_S         /* ours: a peer that closed has its end of file there */
#define FD_GIVE_UP_NS (5 * BM_NS_PER_S)

/* --- filling a packet --------------------------------------------------------------------------------- */

static bool unix_begin(beam_session *session)
{
    struct bm_unix_session *us = bm_unix_of(session);
    if (us->closing || bm_timer_armed(&us->retry_timer))
        return false;
    if (bm_op_idle(&us->send_op))
        return true;
    if (bm_session_has_output(session))
        bm_op_hurry(session->core->reactor, &us->send_op);
    return false;
}

static bool room_for(struct bm_unix_session *us, uint32_t len, unsigned fds)
{
    bool fresh = !us->packet.head;
    bool room = bm_unix_packet_reserve(&us->packet, us->session.core, len, fds);
    if (fresh && us->packet.head)
        us->packet.head->first_id = us->session.next_id;
    return room;
}

static uint8_t *unix_room(beam_session *session, uint32_t len)
{
    struct bm_unix_session *us = bm_unix_of(session);
    if (!room_for(us, len, 0))
        return NULL;
    uint8_t *at = bm_unix_packet_end(&us->packet);
    us->packet.len += len;
    return at;
}

/* The ends of channels that left with a message are the application's alone from now on. */
static void release_channels(struct bm_attachments *att)
{
    bm_attachments_release_channels(att);
    att->channel_count = 0;
}

/* What is said on channels whose opening may have to be taken back can be, too. */
static void hold_back_channels(const struct bm_attachments *att)
{
    for (unsigned i = 0; att && i < att->channel_count; i++)
        att->channels[i].channel->held_back = true;
}

/* Keeps a message that may have to be taken back out of this packet. */
static void retain(struct bm_unix_session *us, beam_channel *channel, beam_message *message,
                   uint32_t offset)
{
    struct bm_unix_packet_head *head = us->packet.head;
    message->payer = bm_channel_ref(channel);
    message->frame_offset = offset;
    bm_message_queue_push(&head->retained, message);
    channel->held_back = true;
    hold_back_channels(message->attachments);
}

/* The first frame of a large message with fds. The rest follows in later packets; the fds have to be there
 * until this one has left, whatever becomes of the message meanwhile. */
static void hold_large(struct bm_unix_session *us, beam_channel *channel, beam_message *message)
{
    struct bm_unix_packet_head *head = us->packet.head;
    bm_assert(!head->large && us->packet.len == BM_FRAME_LEN_MAX);
    head->large = bm_channel_ref(channel);
    head->large_attachments = message->attachments;
    message->attachments = NULL;
    hold_back_channels(head->large_attachments);
}

static void add_fds(struct bm_unix_packet_head *head, const struct bm_attachments *att)
{
    memcpy(&head->fds[head->fd_count], att->fds, att->fd_count * sizeof(int));
    head->fd_count += att->fd_count;
}

static int unix_put_message(beam_session *session, beam_channel *channel, beam_message *message)
{
    struct bm_unix_session *us = bm_unix_of(session);
    struct bm_packing packing;
    bm_packing_plan(channel, message, &packing);
    if (!room_for(us, packing.len, packing.fds))
        return BM_PUT_FULL;
    uint32_t offset = us->packet.len;
    bm_packing_write(&packing, bm_unix_packet_end(&us->packet));
    us->packet.len += packing.len;
    if (packing.fds > 0)
        add_fds(us->packet.head, message->attachments);
    if (packing.fds > 0 && !packing.whole) {
        hold_large(us, channel, message);
    } else if (packing.fds > 0 || (channel->held_back && packing.first && packing.whole)) {
        retain(us, channel, message, offset);
        return BM_PUT_DONE;
    }
    return bm_packing_left(&packing);
}

/* --- sending --------------------------------------------------------------------------------- */

/* The kernel walks a chain one link an enter unless it waits: short ones save one, long ones cost. */
static bool closes_are_linked(const struct bm_unix_packet_head *head)
{
    return head->fd_count <= LINKED_CLOSES_MAX && !head->large;
}

/* Does anybody wait to hear that this packet has left? */
static bool end_matters(const struct bm_unix_session *us)
{
    const beam_session *session = &us->session;
    const struct bm_unix_packet_head *head = us->packet.head;
    for (const beam_message *m = bm_message_queue_first(&head->retained); m; m = m->next)
        if (bm_message_channels(m) > 0 || m->payer->end_due ||
            !bm_message_queue_empty(&m->payer->out))
            return true;
    return !closes_are_linked(head) || us->lingering || session->shut || session->want_writable ||
           session->queue_len > 0 || !bm_list_empty(&session->ready) ||
           !bm_list_empty(&session->large_waiting) || !bm_list_empty(&session->blocked) ||
           !bm_list_empty(&session->held);
}

static void start_send(struct bm_unix_session *us, bool quiet)
{
    struct bm_unix_packet_head *head = us->packet.head;
    if (head->fd_count > 0) {
        head->iov = (struct iovec){us->packet.bytes, us->packet.len};
        head->msg = (struct msghdr){
            .msg_iov = &head->iov,
            .msg_iovlen = 1,
            .msg_control = head->control,
            .msg_controllen = bm_unix_control_write_fds(head->fds, head->fd_count, head->control),
        };
        us->send_op.kind = BM_OP_SENDMSG;
        us->send_op.addr = &head->msg;
    } else {
        us->send_op.kind = BM_OP_SEND;
        us->send_op.addr = us->packet.bytes;
    }
    us->send_op.fd = us->fd;
    us->send_op.len = us->packet.len;
    us->send_op.quiet = quiet;
    us->send_op.close_fds = head->fds;
    us->send_op.close_count = closes_are_linked(head) ? (uint16_t)head->fd_count : 0;
    bm_op_start(us->session.core->reactor, &us->send_op);
}

static void try_later(struct bm_unix_session *us)
{
    struct bm_reactor *reactor = us->session.core->reactor;
    bm_timer_arm(reactor, &us->retry_timer, bm_reactor_now_ns(reactor) + SEND_RETRY_NS);
}

static void unix_commit(beam_session *session)
{
    struct bm_unix_session *us = bm_unix_of(session);
    if (!us->packet.head) {
        /* There was no memory for a packet, and nothing that will come to an end would come back here. */
        if (!us->closing && bm_session_has_output(session))
            try_later(us);
    } else if (us->packet.len == 0) {
        bm_unix_packet_clear(&us->packet, session->core);
    } else {
        start_send(us, !end_matters(us));
    }
    if (us->fds_came)
        bm_unix_watch(us);
}

static void go_on(beam_channel *channel)
{
    channel->held_back = false;
    if (channel->end_due || channel->abort_due || !bm_message_queue_empty(&channel->out))
        bm_channel_make_ready(channel);
    bm_channel_check_gone(channel);
}

static void go_on_with_channels(struct bm_attachments *att)
{
    for (unsigned i = 0; att && i < att->channel_count; i++)
        go_on(att->channels[i].channel);
    if (att)
        release_channels(att);
}

/* Closes the fds, and ends the channels that are still there. */
static void drop_attachments(struct bm_attachments *att)
{
    beam_message view;
    bm_message_view_init(&view, NULL, 0);
    view.attachments = att;
    bm_message_done(&view);
}

/* The first message that stayed with the packet, and in *ret_channel its channel with the reference that
 * the message had; NULL when none is left. */
static beam_message *pop_retained(struct bm_unix_packet_head *head, beam_channel **ret_channel)
{
    beam_message *message = bm_message_queue_pop(&head->retained);
    if (!message)
        return NULL;
    *ret_channel = message->payer;
    message->payer = NULL;
    return message;
}

/* The packet has left: its fds are the kernel's, their messages are done with. */
static void packet_left(struct bm_unix_session *us)
{
    struct bm_unix_packet_head *head = us->packet.head;
    struct bm_core *core = us->session.core;
    us->spoken = true;
    core->packets_sent++;
    core->fds_sent += head->fd_count;
    beam_message *message;
    beam_channel *channel;
    while ((message = pop_retained(head, &channel))) {
        channel->fd_retry_ns = channel->fd_give_up_ns = 0;
        go_on_with_channels(message->attachments);
        if (us->send_op.closes_linked && message->attachments)
            message->attachments->fd_count = 0; /* the kernel has closed our copies */
        beam_message_free(message);
        go_on(channel);
        bm_channel_unref(channel);
    }
    if (head->large) {
        channel = head->large;
        head->large = NULL;
        channel->fd_retry_ns = channel->fd_give_up_ns = 0;
        go_on_with_channels(head->large_attachments);
        drop_attachments(head->large_attachments);
        bm_channel_unref(channel);
    }
    bm_unix_packet_clear(&us->packet, core);
}

/* The session ends with a packet that did not leave. */
static void packet_lost(struct bm_unix_session *us)
{
    struct bm_unix_packet_head *head = us->packet.head;
    if (!head)
        return;
    beam_message *message;
    beam_channel *channel;
    while ((message = pop_retained(head, &channel))) {
        beam_message_free(message);
        bm_channel_unref(channel);
    }
    if (head->large) {
        drop_attachments(head->large_attachments);
        bm_channel_unref(head->large);
        head->large = NULL;
    }
    bm_unix_packet_clear(&us->packet, us->session.core);
}

/* C4: what was opened in the packet that did not leave was surely not run. */
static void packet_never_left(struct bm_unix_session *us)
{
    struct bm_list *channels = &us->session.channels;
    if (!us->packet.head)
        return;
    for (struct bm_list *n = channels->next; n != channels; n = n->next) {
        beam_channel *channel = bm_list_entry(n, beam_channel, session_node);
        if (channel->ours && channel->id >= us->packet.head->first_id)
            channel->never_left = true;
    }
}

/* --- ETOOMANYREFS ---------------------------------------------------------------------------- */

/* Moves the frames that stay together; retained frames are left out. */
static void cut_retained(struct bm_unix_packet *packet)
{
    uint32_t out = 0;
    uint32_t in = 0;
    const beam_message *next = bm_message_queue_first(&packet->head->retained);
    while (in < packet->len) {
        uint32_t len = (uint32_t)bm_round_up8(BM_FRAME_HEADER_LEN +
                                              (uint64_t)bm_get_u32(packet->bytes + in + 8));
        if (next && next->frame_offset == in) {
            next = next->next;
        } else {
            memmove(packet->bytes + out, packet->bytes + in, len);
            out += len;
        }
        in += len;
    }
    packet->len = out;
    packet->head->fd_count = 0;
}

/* Ids of a frame that did not leave are not used: later ones are greater all the same. false: the peer
 * has ended a channel it cannot know of. */
static bool unbind_attached(struct bm_attachments *att)
{
    bool sound = true;
    for (unsigned i = 0; att && i < att->channel_count; i++) {
        beam_channel *channel = att->channels[i].channel;
        channel->held_back = false;
        att->channels[i].id = 0;
        if (channel->gone) {
            sound = false;
            continue;
        }
        bm_channel_unbind(channel);
        channel->unbound = true;
    }
    return sound;
}

static void unbind_opened(beam_channel *channel, const beam_message *message)
{
    if (message->flags & BM_MESSAGE_OPENED) {
        bm_channel_unbind(channel);
        channel->opening = true;
    }
}

/* Puts a message back in front of its channel's queue. */
static void take_back(beam_channel *channel, beam_message *message)
{
    bm_channel_count_again(channel);
    unbind_opened(channel, message);
    bm_message_queue_push_front(&channel->out, message);
    channel->session->queue_len += (uint64_t)bm_message_cost(message);
}

/* Ended while its frame was in the packet. A channel that was never opened the peer need not hear of. */
static void end_taken_back(beam_channel *channel)
{
    if (channel->opening) {
        channel->abort_due = false;
        bm_channel_gone(channel);
    } else {
        bm_channel_drop_out(channel);
        bm_channel_make_ready(channel);
    }
}

static void retry_later(beam_channel *channel)
{
    struct bm_reactor *reactor = channel->core->reactor;
    uint64_t now = bm_reactor_now_ns(reactor);
    if (channel->fd_give_up_ns == 0)
        channel->fd_give_up_ns = now + FD_GIVE_UP_NS;
    if (now >= channel->fd_give_up_ns) {
        const char *text = "the kernel has too many file descriptors of this user under way";
        bm_channel_ref(channel);
        bm_channel_abort(channel, BEAM_RESOURCE_EXHAUSTED, text);
        bm_channel_end_later(channel, BEAM_RESOURCE_EXHAUSTED, text);
        bm_channel_unref(channel);
        return;
    }
    uint64_t wait = channel->fd_retry_ns == 0 ? FD_RETRY_FIRST_NS : 2 * channel->fd_retry_ns;
    channel->fd_retry_ns = wait < FD_RETRY_LAST_NS ? wait : FD_RETRY_LAST_NS;
    bm_list_unlink(&channel->ready_node);
    bm_timer_arm(reactor, &channel->fd_timer, now + channel->fd_retry_ns);
}

/* The large message that begins in this packet: as if it had not been put. */
static bool take_back_large(struct bm_unix_session *us)
{
    struct bm_unix_packet_head *head = us->packet.head;
    beam_channel *channel = head->large;
    struct bm_attachments *att = head->large_attachments;
    bool sound = unbind_attached(att);
    head->large = NULL;
    head->large_attachments = NULL;
    us->packet.len = 0;
    head->fd_count = 0;
    if (channel->gone || channel->abort_due) {
        us->session.fd_credit += att->fd_count;
        drop_attachments(att);
        if (!channel->gone && channel->ours && channel->id >= head->first_id) {
            bm_channel_unbind(channel);
            channel->opening = true;
        }
        if (!channel->gone)
            end_taken_back(channel);
    } else {
        beam_message *message = bm_message_queue_first(&channel->out);
        message->attachments = att;
        message->packed = 0;
        unbind_opened(channel, message);
        channel->large_sending = false;
        bm_outgoing_large_gone(&us->session);
        retry_later(channel);
    }
    bm_channel_unref(channel);
    return sound;
}

/* From the last to the first, so that each message goes in front of what followed it. */
static bool take_back_retained(struct bm_unix_session *us)
{
    struct bm_unix_packet_head *head = us->packet.head;
    struct bm_message_queue reversed = {0};
    beam_message *message;
    bool sound = true;
    while ((message = bm_message_queue_pop(&head->retained)))
        bm_message_queue_push_front(&reversed, message);
    while ((message = bm_message_queue_pop(&reversed))) {
        beam_channel *channel = message->payer;
        unsigned fds = bm_message_fds(message);
        message->payer = NULL;
        channel->held_back = false;
        sound = unbind_attached(message->attachments) && sound;
        if (channel->gone) {
            us->session.fd_credit += fds;
            beam_message_free(message);
        } else if (channel->abort_due) {
            take_back(channel, message);
            end_taken_back(channel);
        } else {
            take_back(channel, message);
            if (fds > 0) /* others stand behind one, or on a channel that opens with one */
                retry_later(channel);
        }
        bm_channel_unref(channel);
    }
    return sound;
}

/* Packs the packet again without the messages that have fds. false: nothing helps. */
static bool refuse_fds(struct bm_unix_session *us)
{
    struct bm_unix_packet_head *head = us->packet.head;
    bool sound;
    if (bm_message_queue_empty(&head->retained) && !head->large)
        return false;
    if (head->large) {
        sound = take_back_large(us);
    } else {
        cut_retained(&us->packet);
        sound = take_back_retained(us);
    }
    if (us->packet.len > 0) {
        start_send(us, false);
    } else {
        bm_unix_packet_clear(&us->packet, us->session.core);
        bm_session_want_flush(&us->session);
    }
    if (!sound)
        bm_session_fail(&us->session, -BEAM_EFRAME_CHANNEL);
    return true;
}

/* U5: the peer has closed, and what it said before may lie unread: answers, and a GOAWAY that tells
 * what was not run. The end of file follows, unless the peer has only shut its way in. Until then the
 * packet stays, and no other is packed. */
static void read_last_words(struct bm_unix_session *us)
{
    struct bm_reactor *reactor = us->session.core->reactor;
    us->deserted = true;
    bm_timer_arm(reactor, &us->retry_timer, bm_reactor_now_ns(reactor) + LAST_WORDS_NS);
}

static void on_sent(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_unix_session *us = bm_container_of(op, struct bm_unix_session, send_op);
    beam_session *session = bm_session_ref(&us->session);
    (void)flags;

    if (res > 0) {
        packet_left(us);
        if (us->lingering)
            bm_session_lost(session, BEAM_OK, "closed");
        else if (!us->closing)
            bm_outgoing_flush(session);
    } else if (us->closing) {
        packet_lost(us);
    } else if (res == -EINTR || res == -EAGAIN) {
        start_send(us, false);
        bm_unix_watch(us);
    } else if (res == -ENOBUFS || res == -ENOMEM) {
        try_later(us);
    } else if (res != -ETOOMANYREFS || !refuse_fds(us)) {
        packet_never_left(us);
        if ((res == -EPIPE || res == -ECONNRESET) && us->receiving) {
            read_last_words(us);
        } else {
            bm_session_lost(session, BEAM_UNAVAILABLE, beam_strerror(res));
            packet_lost(us);
        }
    }
    if (us->closing)
        bm_unix_session_finish(us);
    bm_session_unref(session);
}

static void on_retry(struct bm_timer *timer)
{
    struct bm_unix_session *us = bm_container_of(timer, struct bm_unix_session, retry_timer);
    if (us->deserted)
        bm_session_lost(&us->session, BEAM_UNAVAILABLE, "the peer has gone");
    else if (us->packet.head)
        start_send(us, false);
    else if (us->session.state == BM_SESSION_CONNECTING)
        bm_op_start(us->session.core->reactor, &us->connect_op);
    else
        bm_session_want_flush(&us->session);
}

/* --- life ------------------------------------------------------------------------------------ */

static void unix_farewell(beam_session *session)
{
    struct bm_unix_session *us = bm_unix_of(session);
    _Alignas(8) uint8_t frame[BM_PACKING_FAREWELL_LEN];
    /* A packet under way has mostly left, its completion is not looked at yet; where it waits for room,
     * this finds none either. Only HELLO must not be overtaken. */
    if (us->fd < 0 || !(us->spoken || us->send_op.state == BM_OP_INFLIGHT))
        return;
    uint32_t len = bm_packing_farewell(session, frame);
    /* The one direct send: it goes now or never, and nothing waits for it. */
    ssize_t n = send(us->fd, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)n;
}

static void unix_shut(beam_session *session)
{
    struct bm_unix_session *us = bm_unix_of(session);
    if (us->deserted || (bm_op_idle(&us->send_op) && !us->packet.head)) {
        bm_session_lost(session, BEAM_OK, "closed");
        return;
    }
    us->lingering = true;
    bm_op_hurry(session->core->reactor, &us->send_op);
}

static void unix_abort(beam_session *session)
{
    struct bm_unix_session *us = bm_unix_of(session);
    struct bm_core *core = session->core;
    if (us->closing)
        return;
    us->closing = true;
    us->receiving = false;
    bm_timer_cancel(core->reactor, &us->retry_timer);
    bm_timer_cancel(core->reactor, &us->receive_timer);
    bm_timer_cancel(core->reactor, &us->watch_timer);
    if (core->packets)
        bm_buffers_unwait(core->packets, &us->buffers_waiter);
    bm_op_cancel(core->reactor, &us->connect_op);
    bm_op_cancel(core->reactor, &us->receive_op);
    bm_op_cancel(core->reactor, &us->send_op);
    bm_unix_session_finish(us);
}

void bm_unix_session_finish(struct bm_unix_session *us)
{
    if (!us->closing || us->finished || !bm_op_idle(&us->connect_op) ||
        !bm_op_idle(&us->receive_op) || !bm_op_idle(&us->send_op))
        return;
    struct bm_core *core = us->session.core;
    us->finished = true;
    packet_lost(us);
    bm_reactor_close_fd(core->reactor, &us->fd);
    bm_session_unref(&us->session);
}

static void unix_free(beam_session *session)
{
    struct bm_unix_session *us = bm_unix_of(session);
    bm_assert(us->fd < 0 && !us->packet.head);
    bm_free(NULL, us, sizeof(*us));
}

static size_t unix_memory(const beam_session *session)
{
    const struct bm_unix_session *us =
        bm_container_of(session, const struct bm_unix_session, session);
    const struct bm_unix_packet_head *head = us->packet.head;
    return sizeof(*us) + (head ? head->cap + us->packet.bytes_cap : 0u);
}

static const struct bm_carrier unix_carrier = {
    .begin = unix_begin,
    .room = unix_room,
    .put_hello = bm_packing_put_hello,
    .put_message = unix_put_message,
    .put_end = bm_packing_put_end,
    .put_u64 = bm_packing_put_u64,
    .put_goaway = bm_packing_put_goaway,
    .commit = unix_commit,
    .farewell = unix_farewell,
    .shut = unix_shut,
    .abort = unix_abort,
    .free = unix_free,
    .memory = unix_memory,
    .peer_pidfd = bm_unix_peer_pidfd,
};

int bm_unix_session_new(struct bm_core *core, int *fd, bool opener, struct bm_unix_session **ret)
{
    struct bm_unix_session *us = bm_alloc_zero(NULL, sizeof(*us));
    if (!us)
        return -ENOMEM;
    bm_session_init(&us->session, core, &unix_carrier, opener);
    us->session.peer.shown.kind = BEAM_PEER_UNIX;
    us->fd = bm_take_fd(fd);
    bm_op_init(&us->send_op, BM_OP_SENDMSG, on_sent);
    bm_op_init(&us->connect_op, BM_OP_CONNECT, NULL);
    bm_timer_init(&us->retry_timer, on_retry);
    bm_unix_receive_init(us);
    bm_unix_watch_init(us);
    *ret = us;
    return 0;
}

bool bm_unix_session_admit(struct bm_unix_session *us, uint32_t uid)
{
    beam_session *session = &us->session;
    int r = bm_core_admit(session->core, session, uid);
    if (r < 0)
        bm_session_lost(session, BEAM_RESOURCE_EXHAUSTED,
                        r == -EAGAIN ? "too many sessions of this user" : beam_strerror(r));
    return r == 0;
}

void bm_unix_session_up(struct bm_unix_session *us)
{
    bm_session_up(&us->session);
    bm_unix_receive_start(us);
}
