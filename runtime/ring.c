/* Sessions between cores of one runtime. The same session, channels and credit as anywhere; only
 * the frames are slots of a ring and a message is its pointer, with what describes it if it is small
 * (docs/adr/0206). Up to 40 bytes of body without metadata or attachments travel in the slot itself.
 *
 *   opener                         acceptor
 *   CONNECT(me) ----------------->  makes its end
 *                <----------------  HELLO(me)
 *   HELLO ------------------------>
 *   ... MSG, BODY, END, CREDIT ... in both directions
 *   CLOSE <---------------------->  CLOSE      each end's last slot
 *
 * A slot names the receiving end by its address. That is sound because an end is freed only after
 * it has sent its CLOSE and received the other's, behind which nothing can come.
 *
 * A full ring: the session stands in ring_waiting and is flushed when the consumer has made room.
 *
 * The rings themselves are path.c's. They also take messages home (ring_home.c; BM_SLOT_RETURN, which
 * belongs to no session).
 *
 * It trusts what it reads: both ends are this library. Limits and credit are kept all the same, by
 * the code above that serves every carrier. */
#include "runtime/ring.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"
#include "runtime/path.h"
#include "runtime/runtime.h"
#include "runtime/service.h"
#include "runtime/session.h"

/* Words of a slot: 0 the receiving end, 1 the channel; the rest by kind. */
#define BODY_LEN_MAX 40u
#define BODY_WORD 2
#define SMALL_WORD 6
#define NO_HOME UINT16_MAX

struct ring_session {
    beam_session session;
    struct ring_session *peer; /* the other end's address; NULL until it has told */
    struct bm_core *to;
    struct bm_path *out;
    struct bm_list waiting_node;
    bool connect_due, close_due, close_sent, close_received;
    struct ring_session *next_refused; /* the other core's, should it make no end of its own */
};

static struct ring_session *ring_of(beam_session *session)
{
    return bm_container_of(session, struct ring_session, session);
}

/* --- way out --------------------------------------------------------------------------------- */

static void wait_for_room(struct ring_session *rs)
{
    struct bm_core *core = rs->session.core;
    if (!bm_list_linked(&rs->waiting_node)) {
        core->ring_waiters++;
        bm_list_push_back(&core->ring_waiting[rs->to->index], &rs->waiting_node);
    }
    /* What fills the ring may be messages on their way home, for which nobody was woken. */
    bm_reactor_wake_soon(core->reactor, rs->to->reactor);
}

/* Somebody else stands in line for this ring. */
static bool others_wait(const struct ring_session *rs)
{
    const struct bm_core *core = rs->session.core;
    return BM_UNLIKELY(core->ring_waiters > 0) && core->ring_turn != &rs->session &&
           !bm_list_empty(&core->ring_waiting[rs->to->index]);
}

/* A reader that keeps up would have a turn last for as long as there is something to say. */
static bool turn_is_over(const struct ring_session *rs)
{
    struct bm_core *core = rs->session.core;
    if (BM_LIKELY(core->ring_turn != &rs->session))
        return false;
    if (core->ring_turn_left == 0)
        return true;
    core->ring_turn_left--;
    return false;
}

/* A slot to fill, or NULL: the session then waits its turn. */
static struct bm_spsc_slot *reserve(struct ring_session *rs)
{
    bool others_first = others_wait(rs) || turn_is_over(rs);
    struct bm_spsc_slot *slot = others_first ? NULL : bm_spsc_reserve(&rs->out->ring);
    if (BM_UNLIKELY(!slot))
        wait_for_room(rs);
    return slot;
}

/* A slot for the other end, to be filled in here and written in one go. */
static struct bm_spsc_slot fill(const struct ring_session *rs, uint8_t kind, uint8_t flags)
{
    struct bm_spsc_slot slot = {.kind = kind, .flags = flags};
    slot.word[0] = (uintptr_t)rs->peer;
    return slot;
}

static void put(struct ring_session *rs, struct bm_spsc_slot *slot, const struct bm_spsc_slot *from)
{
    bm_spsc_put(&rs->out->ring, slot, from);
}

static void ring_commit(beam_session *session)
{
    bm_reactor_wake_soon(session->core->reactor, ring_of(session)->to->reactor);
}

static bool ring_begin(beam_session *session)
{
    return ring_of(session)->peer != NULL;
}

static bool ring_put_hello(beam_session *session)
{
    struct ring_session *rs = ring_of(session);
    struct bm_spsc_slot *slot = reserve(rs);
    struct bm_hello hello;
    if (!slot)
        return false;
    bm_session_hello(session, &hello);
    struct bm_spsc_slot from = fill(rs, BM_SLOT_HELLO, hello.fds_refused);
    from.word[1] = (uintptr_t)rs;
    from.word[2] = (uint64_t)hello.window << 32 | hello.channels_max;
    from.word[3] = (uint64_t)hello.message_len_max << 32 | hello.fds_max;
    put(rs, slot, &from);
    return true;
}

/* false: it comes from another runtime's. Without a look into the core, whose lines may be elsewhere. */
static bool home_index(const beam_runtime *runtime, const struct bm_core *home, uint16_t *ret)
{
    if (home && !bm_runtime_has_core(runtime, home))
        return false;
    *ret = home ? (uint16_t)(home - runtime->cores) : NO_HOME;
    return true;
}

/* Has a slot carry what describes the message, if it is small. */
static void describe(const beam_runtime *runtime, struct bm_spsc_slot *slot, beam_message *message)
{
    struct bm_core *home;
    beam_message *small = bm_message_small(message, &home);
    if (!small || !home_index(runtime, home, &slot->len))
        return;
    struct bm_small description = bm_message_describe(message);
    memcpy(&slot->word[SMALL_WORD], &description, sizeof(description));
    slot->kind = BM_SLOT_SMALL;
    slot->word[2] = (uintptr_t)small;
    if (small != message) {
        message->shown = NULL;
        bm_message_free_memory(message);
    }
}

/* On whose behalf a hop opens a channel. The word that has its uid, or its identity with a reference, is for
 * a small message otherwise. */
static void write_asker(const struct bm_peer *asker, struct bm_spsc_slot *slot)
{
    const struct beam_peer *shown = &asker->shown;
    slot->word[5] |= (uint64_t)(uint32_t)shown->pid << 32 | (uint64_t)shown->kind << 8;
    slot->word[6] = shown->kind == BEAM_PEER_NET ? (uintptr_t)bm_peer_texts_ref(asker->texts)
                                                 : (uint64_t)shown->uid << 32 | shown->gid;
}

bool bm_ring_take_asker(const struct bm_spsc_slot *slot, struct bm_peer *ret)
{
    uint8_t kind = (uint8_t)(slot->word[5] >> 8);
    if (slot->kind != BM_SLOT_MSG || !(slot->flags & BM_MSG_OPEN) || kind == 0)
        return false;
    *ret = (struct bm_peer){0};
    if (kind == BEAM_PEER_NET) {
        bm_peer_set_net(ret, (struct bm_peer_texts *)(uintptr_t)slot->word[6]);
        return true;
    }
    ret->shown.kind = kind;
    ret->shown.pid = (int32_t)(slot->word[5] >> 32);
    ret->shown.uid = (uint32_t)(slot->word[6] >> 32);
    ret->shown.gid = (uint32_t)slot->word[6];
    return true;
}

static int ring_put_message(beam_session *session, beam_channel *channel, beam_message *message)
{
    struct ring_session *rs = ring_of(session);
    struct bm_spsc_slot *slot = reserve(rs);
    uint8_t flags = 0;
    if (!slot)
        return BM_PUT_FULL;
    bool opening = channel->opening;
    if (opening || message->attachments)
        bm_outgoing_bind(session, channel, message);
    if (message->attachments)
        bm_attachments_release_channels(message->attachments);
    if (message->flags & BM_MESSAGE_LAST)
        flags |= BM_MSG_END;
    message->flags &= (uint16_t) ~(BM_MESSAGE_LAST | BM_MESSAGE_LARGE);
    message->next = NULL;

    if (opening)
        flags |= BM_MSG_OPEN | (channel->oneway ? BM_MSG_ONEWAY : 0);
    struct bm_spsc_slot from = fill(rs, BM_SLOT_MSG, flags);
    from.word[1] = channel->id;
    from.word[2] = (uintptr_t)message;
    /* Who asks takes the room of what describes a small message. */
    bool asked = opening && channel->peer.shown.kind != 0;
    if (!asked)
        describe(session->core->runtime, &from, message);
    if (opening) {
        from.word[3] = (uintptr_t)bm_services_find(bm_runtime_services(session->core->runtime),
                                                   channel->name, channel->name_len);
        from.word[4] = channel->deadline_ns;
        from.word[5] = channel->depth;
    }
    if (asked)
        write_asker(&channel->peer, &from);
    put(rs, slot, &from);
    return BM_PUT_DONE;
}

static bool ring_put_body(beam_session *session, beam_channel *channel, const void *body,
                          size_t len)
{
    struct ring_session *rs = ring_of(session);
    if (len > BODY_LEN_MAX)
        return false;
    struct bm_spsc_slot *slot = reserve(rs);
    if (!slot)
        return false;
    struct bm_spsc_slot from = fill(rs, BM_SLOT_BODY, 0);
    from.word[1] = channel->id;
    from.len = (uint16_t)len;
    memcpy(&from.word[BODY_WORD], body, len);
    put(rs, slot, &from);
    return true;
}

/* Details travel as the metadata of a message. NULL: none, or no memory; the code says enough. */
static beam_message *wrap_details(struct bm_core *core, const struct bm_frame_end *end)
{
    if (!end->details)
        return NULL;
    beam_message *message = bm_message_new(core);
    if (message && bm_message_copy_metadata(message, end->details, end->details_len) < 0) {
        bm_message_free_memory(message);
        return NULL;
    }
    return message;
}

static bool ring_put_end(beam_session *session, uint64_t id, uint8_t flags,
                         const struct bm_frame_end *end)
{
    struct ring_session *rs = ring_of(session);
    struct bm_spsc_slot *slot = reserve(rs);
    if (!slot)
        return false;
    struct bm_spsc_slot from = fill(rs, BM_SLOT_END, flags);
    from.word[1] = id;
    from.word[2] = end->code;
    from.word[3] = (uintptr_t)wrap_details(session->core, end);
    put(rs, slot, &from);
    return true;
}

static bool ring_put_u64(beam_session *session, enum bm_frame_kind kind, uint8_t flags, uint64_t id,
                         uint64_t value)
{
    struct ring_session *rs = ring_of(session);
    struct bm_spsc_slot *slot = reserve(rs);
    if (!slot)
        return false;
    struct bm_spsc_slot from =
        fill(rs, kind == BM_FRAME_CREDIT ? BM_SLOT_CREDIT : BM_SLOT_PING, flags);
    from.word[1] = id;
    from.word[2] = value;
    put(rs, slot, &from);
    return true;
}

static bool ring_put_goaway(beam_session *session, const struct bm_frame_goaway *goaway)
{
    struct ring_session *rs = ring_of(session);
    struct bm_spsc_slot *slot = reserve(rs);
    if (!slot)
        return false;
    struct bm_spsc_slot from = fill(rs, BM_SLOT_GOAWAY, 0);
    from.word[1] = goaway->last_id;
    from.word[2] = goaway->why.code;
    from.word[3] = (uintptr_t)wrap_details(session->core, &goaway->why);
    put(rs, slot, &from);
    return true;
}

static void ring_farewell(beam_session *session)
{
    struct bm_frame_goaway goaway = session->goaway;
    _Alignas(8) uint8_t details[BM_DETAILS_LEN_MAX];
    bm_session_explain(session, &goaway, details);
    if (ring_begin(session))
        (void)ring_put_goaway(session, &goaway);
}

/* --- beginning and end of an end ------------------------------------------------------------- */

static void try_close(struct ring_session *rs)
{
    if (!rs->close_due || !rs->peer)
        return;
    struct bm_spsc_slot *slot = reserve(rs);
    if (!slot)
        return;
    rs->close_due = false;
    rs->close_sent = true;
    struct bm_spsc_slot from = fill(rs, BM_SLOT_CLOSE, 0);
    put(rs, slot, &from);
    ring_commit(&rs->session);
    if (rs->close_received)
        bm_session_unref(&rs->session);
}

static void try_connect(struct ring_session *rs)
{
    struct bm_spsc_slot *slot = rs->connect_due ? reserve(rs) : NULL;
    if (!slot)
        return;
    rs->connect_due = false;
    struct bm_spsc_slot from = fill(rs, BM_SLOT_CONNECT, rs->session.inner);
    from.word[1] = (uintptr_t)rs;
    put(rs, slot, &from);
    ring_commit(&rs->session);
}

static void ring_shut(beam_session *session)
{
    bm_session_lost(session, BEAM_OK, "closed");
}

static void ring_abort(beam_session *session)
{
    struct ring_session *rs = ring_of(session);
    if (rs->close_due || rs->close_sent)
        return;
    rs->close_due = true;
    try_close(rs);
}

static void ring_free(beam_session *session)
{
    struct ring_session *rs = ring_of(session);
    if (bm_list_linked(&rs->waiting_node)) {
        bm_list_unlink(&rs->waiting_node);
        session->core->ring_waiters--;
    }
    bm_free(NULL, rs, sizeof(*rs));
}

static size_t ring_memory(const beam_session *session)
{
    (void)session;
    return sizeof(struct ring_session);
}

static const struct bm_carrier ring_carrier = {
    .immediate = true,
    .begin = ring_begin,
    .put_hello = ring_put_hello,
    .put_message = ring_put_message,
    .put_body = ring_put_body,
    .put_end = ring_put_end,
    .put_u64 = ring_put_u64,
    .put_goaway = ring_put_goaway,
    .commit = ring_commit,
    .farewell = ring_farewell,
    .shut = ring_shut,
    .abort = ring_abort,
    .free = ring_free,
    .memory = ring_memory,
};

/* inner: each channel of it stands for one that came in elsewhere, where it was counted. */
static int new_end(struct bm_core *core, unsigned to, bool opener, bool inner,
                   struct ring_session **ret)
{
    struct bm_path *out = bm_path_make(core->runtime, core->index, to);
    struct bm_path *back = out ? bm_path_make(core->runtime, to, core->index) : NULL;
    if (!back)
        return -ENOMEM;
    struct ring_session *rs = bm_alloc_zero(NULL, sizeof(*rs));
    if (!rs)
        return -ENOMEM;
    bm_session_init(&rs->session, core, &ring_carrier, opener);
    rs->session.peer.shown = (struct beam_peer){
        .kind = BEAM_PEER_SELF, .uid = getuid(), .gid = getgid(), .pid = getpid()};
    rs->session.inner = inner;
    if (inner)
        rs->session.limits.channels_max = INT32_MAX;
    rs->to = &core->runtime->cores[to];
    rs->out = out;
    *ret = rs;
    return 0;
}

int bm_ring_connect(struct bm_core *core, unsigned to, bool inner, beam_session **ret_session)
{
    struct ring_session *rs;
    if (to >= core->runtime->core_count)
        return -BEAM_EURL;
    int r = new_end(core, to, true, inner, &rs);
    if (r < 0)
        return r;
    rs->connect_due = true;
    bm_session_up(&rs->session);
    try_connect(rs);
    *ret_session = &rs->session;
    return 0;
}

/* CLOSE from nobody, for openers that found no memory here, or a core that stops. How many were told. */
static unsigned tell_refused(struct bm_core *core, unsigned to, struct bm_path *out)
{
    struct bm_spsc_slot *slot;
    unsigned n = 0;
    while (out->refused && (slot = bm_spsc_reserve(&out->ring))) {
        struct bm_spsc_slot from = {
            .kind = BM_SLOT_CLOSE, .flags = core->stopping, .word = {(uintptr_t)out->refused}};
        out->refused = out->refused->next_refused;
        core->ring_waiters--;
        bm_spsc_put(&out->ring, slot, &from);
        n++;
    }
    bm_reactor_wake_soon(core->reactor, core->runtime->cores[to].reactor);
    return n;
}

/* The peer wants a session. A core that stops takes none: it may be quiet already, and who is quiet does
 * not wait for a session to end. */
static void accept_end(struct bm_core *core, unsigned from, const struct bm_spsc_slot *connect)
{
    struct ring_session *opener = (struct ring_session *)(uintptr_t)connect->word[1];
    struct ring_session *rs;
    if (core->stopping || new_end(core, from, false, connect->flags, &rs) < 0) {
        /* Both rings are there: the opener has made them. Until it is told, that word of it is ours. */
        struct bm_path *out = bm_path_between(core->runtime, core->index, from);
        opener->next_refused = out->refused;
        out->refused = opener;
        core->ring_waiters++;
        (void)tell_refused(core, from, out);
        return;
    }
    rs->peer = opener;
    bm_session_up(&rs->session);
}

/* --- way in ---------------------------------------------------------------------------------- */

static void take_details(uint64_t word, struct bm_frame_end *end, beam_message **ret_holder)
{
    beam_message *holder = (beam_message *)(uintptr_t)word;
    *ret_holder = holder;
    end->details = holder ? holder->metadata : NULL;
    end->details_len = holder ? holder->metadata_len : 0;
}

static void on_hello_slot(struct ring_session *rs, const struct bm_spsc_slot *slot)
{
    rs->peer = (struct ring_session *)(uintptr_t)slot->word[1];
    if (rs->session.state != BM_SESSION_OPEN) { /* it ended before it was known */
        try_close(rs);
        return;
    }
    const char *name = bm_runtime_name(rs->session.core->runtime);
    struct bm_hello hello = {
        .version = BM_PROTOCOL_VERSION,
        .opener = !rs->session.opener,
        .window = (uint32_t)(slot->word[2] >> 32),
        .channels_max = (uint32_t)slot->word[2],
        .message_len_max = (uint32_t)(slot->word[3] >> 32),
        .fds_max = (uint32_t)slot->word[3],
        .fds_refused = slot->flags,
        .name = {name, strlen(name)},
    };
    bm_incoming_hello(&rs->session, &hello);
    bm_session_want_flush(&rs->session);
}

static void on_close_slot(struct ring_session *rs, const struct bm_spsc_slot *slot)
{
    bool orderly =
        bm_list_empty(&rs->session.channels) && (rs->session.draining || rs->session.peer_draining);
    rs->close_received = true;
    if (!rs->peer) {
        /* Refused before there was another end. */
        rs->close_sent = true;
        rs->close_due = false;
        bm_session_lost(&rs->session, BEAM_UNAVAILABLE,
                        slot->flags ? "the other reactor stops"
                                    : "the other reactor has no memory");
        bm_session_unref(&rs->session);
        return;
    }
    if (rs->close_sent) {
        bm_session_unref(&rs->session);
        return;
    }
    bm_session_lost(&rs->session, orderly ? BEAM_OK : BEAM_UNAVAILABLE,
                    orderly ? "closed" : "the other end has closed the session");
}

static void drop_asker(const struct bm_spsc_slot *slot)
{
    struct bm_peer asker;
    if (bm_ring_take_asker(slot, &asker))
        bm_peer_clear(&asker);
}

static void on_message_slot(beam_session *session, const struct bm_spsc_slot *slot,
                            beam_message *message)
{
    uint64_t id = slot->word[1];
    bool open = slot->flags & BM_MSG_OPEN;
    if (message->attachments)
        message->attachments->received = true;
    if (session->state != BM_SESSION_OPEN) {
        drop_asker(slot);
        bm_message_done(message);
        return;
    }

    beam_channel *channel = open ? NULL : bm_incoming_find(session, id);
    if (channel && bm_incoming_expects_bytes(channel)) {
        (void)bm_incoming_bytes(session, channel, slot->flags, message->body, message->body_len);
        bm_message_done(message);
        return;
    }
    struct bm_incoming_message in = {
        .id = id,
        .flags = slot->flags,
        .open = open,
        .deadline_ns = open ? slot->word[4] : UINT64_MAX,
        .depth = open ? (uint8_t)slot->word[5] : 0,
        .service = open ? (const struct bm_service *)(uintptr_t)slot->word[3] : NULL,
        .service_known = open,
    };
    struct bm_peer asker;
    if (open && bm_ring_take_asker(slot, &asker))
        in.asker = &asker; /* else we ask ourselves */
    (void)bm_incoming_message(session, &in, message);
    if (in.asker)
        bm_peer_clear(&asker);
}

static void on_small_slot(beam_session *session, const struct bm_spsc_slot *slot)
{
    struct bm_core *cores = session->core->runtime->cores;
    struct bm_small small;
    beam_message view;
    memcpy(&small, &slot->word[SMALL_WORD], sizeof(small));
    bm_message_show(&view, (beam_message *)(uintptr_t)slot->word[2], small,
                    slot->len == NO_HOME ? NULL : &cores[slot->len]);
    if (slot->flags == 0 && session->state == BM_SESSION_OPEN)
        (void)bm_incoming_plain(session, slot->word[1], &view);
    else
        on_message_slot(session, slot, &view);
}

static void on_body_slot(beam_session *session, const struct bm_spsc_slot *slot)
{
    beam_message view;
    bm_message_view_init(&view, &slot->word[BODY_WORD], slot->len);
    (void)bm_incoming_plain(session, slot->word[1], &view);
}

static void dispatch(struct bm_core *core, unsigned from, const struct bm_spsc_slot *slot)
{
    struct ring_session *rs = (struct ring_session *)(uintptr_t)slot->word[0];
    if (slot->kind == BM_SLOT_RETURN) {
        bm_ring_take_home(core, slot);
        return;
    }
    if (slot->kind == BM_SLOT_CONNECT) {
        accept_end(core, from, slot);
        return;
    }

    beam_session *session = bm_session_ref(&rs->session);
    beam_message *holder = NULL;
    struct bm_frame_end end;
    bool open = session->state == BM_SESSION_OPEN;
    switch (slot->kind) {
    case BM_SLOT_MSG:
        on_message_slot(session, slot, (beam_message *)(uintptr_t)slot->word[2]);
        break;
    case BM_SLOT_SMALL:
        on_small_slot(session, slot);
        break;
    case BM_SLOT_BODY:
        if (open)
            on_body_slot(session, slot);
        break;
    case BM_SLOT_CREDIT:
        if (open)
            (void)bm_incoming_credit(session, slot->word[1], slot->word[2]);
        break;
    case BM_SLOT_END:
        end.code = (uint32_t)slot->word[2];
        take_details(slot->word[3], &end, &holder);
        if (open)
            (void)bm_incoming_end(session, slot->word[1], slot->flags, &end);
        break;
    case BM_SLOT_PING:
        if (open)
            (void)bm_incoming_ping(session, slot->flags, slot->word[2]);
        break;
    case BM_SLOT_GOAWAY: {
        struct bm_frame_goaway goaway = {.last_id = slot->word[1]};
        goaway.why.code = (uint32_t)slot->word[2];
        take_details(slot->word[3], &goaway.why, &holder);
        if (open)
            (void)bm_incoming_goaway(session, &goaway);
        break;
    }
    case BM_SLOT_HELLO:
        on_hello_slot(rs, slot);
        break;
    case BM_SLOT_CLOSE:
        on_close_slot(rs, slot);
        break;
    default:
        bm_assert(false && "a slot of a kind nobody writes");
    }
    if (holder)
        bm_message_done(holder);
    bm_session_unref(session);
}

/* --- polling --------------------------------------------------------------------------------- */

/* Whoever waits asks here and nowhere else: each time, and before he looks. A question may be taken for
 * room that he has had, by a reader who was held up between publishing its head and looking at the
 * question; then he is still awake, or has yet to sleep, and comes here again. */
static bool room_came(struct bm_core *core)
{
    for (unsigned to = 0; to < core->runtime->core_count; to++) {
        struct bm_path *out = bm_path_between(core->runtime, core->index, to);
        if (!out || (!out->refused && bm_list_empty(&core->ring_waiting[to])))
            continue;
        /* seq_cst; partner: offer_room(). */
        atomic_exchange_explicit(&out->want_room, 1, memory_order_seq_cst);
        if (bm_spsc_room(&out->ring, 1) > 0)
            return true;
    }
    return false;
}

bool bm_ring_ready(struct bm_core *core)
{
    const beam_runtime *runtime = core->runtime;
    for (unsigned from = 0; from < runtime->core_count; from++) {
        struct bm_path *path = bm_path_between(runtime, from, core->index);
        if (path && bm_spsc_peek(&path->ring))
            return true;
    }
    return core->ring_waiters > 0 && room_came(core);
}

static void offer_room(struct bm_core *core, unsigned from, struct bm_path *path)
{
    bm_spsc_publish_head(&path->ring);
    if (atomic_exchange_explicit(&path->want_room, 0, memory_order_seq_cst) != 0)
        bm_reactor_wake_soon(core->reactor, core->runtime->cores[from].reactor);
}

static void prefetch_body(const struct bm_spsc_slot *slot)
{
    __builtin_prefetch(((const beam_message *)(uintptr_t)slot->word[2])->body_inline);
}

/* The line of a message that its receiver reads first is on its way while the two slots before it are
 * dealt with. */
static void prefetch_ahead(const struct bm_spsc *ring)
{
    uint32_t index = ring->head + 2;
    const struct bm_spsc_slot *slot = &ring->slots[index % BM_SPSC_SLOTS];
    if (atomic_load_explicit(&slot->seq, memory_order_acquire) != index + 1)
        return;
    if (slot->kind == BM_SLOT_SMALL)
        prefetch_body(slot);
    else if (slot->kind == BM_SLOT_MSG)
        __builtin_prefetch((const void *)(uintptr_t)slot->word[2], 1);
}

static unsigned drain_path(struct bm_core *core, unsigned from, struct bm_path *path,
                           unsigned budget)
{
    struct bm_spsc_slot slot;
    unsigned n = 0;
    /* A copy, so that the slot is free before a handler runs: what it sends in answer may need the
     * room, and what it views must not change under it. */
    while (n < budget && bm_spsc_take(&path->ring, &slot)) {
        if (slot.kind == BM_SLOT_SMALL)
            prefetch_body(&slot);
        bm_spsc_consume(&path->ring);
        n++;
        prefetch_ahead(&path->ring);
        if (path->ring.head_published == path->ring.head)
            offer_room(core, from, path);
        dispatch(core, from, &slot);
    }
    return n;
}

/* How many sessions go on: that is work too, and a drain without any ends in sleep. Each has one turn,
 * of a ring at most; who fills it again stands at the end of the line. */
static unsigned retry_waiting(struct bm_core *core, unsigned to)
{
    struct bm_list *line = &core->ring_waiting[to];
    struct bm_list waiting;
    unsigned n = 0;
    struct bm_path *out = bm_path_between(core->runtime, core->index, to);
    if (out && out->refused)
        n += tell_refused(core, to, out);
    if (bm_list_empty(line))
        return n;
    bm_list_init(&waiting);
    bm_list_splice_back(&waiting, line);
    while (!bm_list_empty(&waiting) && bm_spsc_room(&out->ring, 1) > 0) {
        struct ring_session *rs =
            bm_list_entry(bm_list_pop_front(&waiting), struct ring_session, waiting_node);
        core->ring_waiters--;
        core->ring_turn = bm_session_ref(&rs->session);
        core->ring_turn_left = BM_SPSC_SLOTS;
        try_connect(rs);
        try_close(rs);
        bm_outgoing_flush(&rs->session);
        core->ring_turn = NULL;
        bm_session_unref(&rs->session);
        n++;
    }
    bm_list_splice_back(&waiting, line);
    bm_list_splice_back(line, &waiting);
    return n;
}

unsigned bm_ring_drain(struct bm_core *core, unsigned budget)
{
    beam_runtime *runtime = core->runtime;
    unsigned n = 0;
    for (unsigned from = 0; from < runtime->core_count; from++) {
        struct bm_path *path = bm_path_between(runtime, from, core->index);
        if (path)
            n += drain_path(core, from, path, budget);
        if (core->ring_waiters > 0)
            n += retry_waiting(core, from);
    }
    return n;
}
