/* The carrier of sessions over HTTP.
 *
 * Out: the session's flush packs frames into `out` (runtime/packing.h) until that is full; the exchange
 * takes bytes from there when its connection has room (on_read), or the pipe of WebSocket does. In: bytes
 * come as the connection has them (on_body), whole frames are taken apart where they lie, and one that is
 * cut is collected first. What was taken apart is consumed at once: credit bounds memory, the windows of
 * HTTP/2 do not (docs/spec/http.md S7).
 *
 * The end. An exchange has two directions, each of which ends. We end ours behind the last frame (shut,
 * farewell), or because the peer has ended its own; otherwise the exchange is reset. The session is CLOSED by
 * then; exchanges hold references to it until they are gone (on_close), and a timer sees to it that they go.
 *
 * Invariants: nothing but HELLO is put before the peer's HELLO has come (S3); frames that were not given to
 * the exchange were surely not run (C4); an end of the exchange, whatever it is, is no channel's OK (S5).
 * Which exchange, over which connection, is the affair of who attaches it. */
#include "net/net_session.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "net/dedicated_stream.h"
#include "net/memory_budget.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/packing.h"
#include "runtime/unpacking.h"

#define OUTPUT_LOW (BM_NET_SESSION_OUTPUT_MAX / 2) /* ours: full until no more than this waits */
#define MEMORY_RETRY_NS (10 * BM_NS_PER_MS)        /* ours: nothing tells when there is memory */

static uint64_t now_ns(const struct bm_net_session *ns)
{
    return bm_reactor_now_ns(ns->session.core->reactor);
}

/* --- out ------------------------------------------------------------------------------------- */

static bool may_put(const struct bm_net_session *ns)
{
    const beam_session *session = &ns->session;
    return ns->exchange && !ns->closing && (!session->hello_sent || session->hello_received);
}

static bool net_begin(beam_session *session)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    if (!may_put(ns))
        return false;
    if (bm_frame_outbox_len(&ns->out) > BM_NET_SESSION_OUTPUT_MAX)
        ns->full = true;
    return !ns->full;
}

static uint8_t *net_room(beam_session *session, uint32_t len)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    if (!may_put(ns))
        return NULL;
    if (bm_frame_outbox_len(&ns->out) > BM_NET_SESSION_OUTPUT_MAX) {
        ns->full = true;
        return NULL;
    }
    uint8_t *at = bm_frame_outbox_room(&ns->out, len);
    if (!at && bm_frame_outbox_len(&ns->out) == 0)
        bm_timer_arm(session->core->reactor, &ns->memory_timer, now_ns(ns) + MEMORY_RETRY_NS);
    else if (!at)
        ns->full = true; /* what waits gives memory back when it leaves */
    return at;
}

static void on_memory_retry(struct bm_timer *timer)
{
    bm_session_want_flush(&bm_container_of(timer, struct bm_net_session, memory_timer)->session);
}

static int net_put_message(beam_session *session, beam_channel *channel, beam_message *message)
{
    struct bm_packing packing;
    bm_packing_plan(channel, message, &packing);
    uint8_t *at = net_room(session, packing.len);
    if (!at)
        return BM_PUT_FULL;
    bm_packing_write(&packing, at);
    return bm_packing_left(&packing);
}

static void net_commit(beam_session *session)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    if (ns->exchange && bm_frame_outbox_len(&ns->out) > 0)
        bm_exchange_resume(ns->exchange);
}

static bool ends_after_output(const struct bm_net_session *ns)
{
    return ns->shut || ns->farewell || (ns->closing && ns->heard_end);
}

static ssize_t give(struct bm_net_session *ns, uint8_t *buf, size_t len, bool *ret_end)
{
    size_t done = 0, have;
    const uint8_t *bytes;
    if (ns->websocket)
        return bm_websocket_pipe_read(&ns->pipe, buf, len, ret_end);
    while (done < len && (bytes = bm_frame_outbox_output(&ns->out, &have))) {
        size_t part = have < len - done ? have : len - done;
        memcpy(buf + done, bytes, part);
        bm_frame_outbox_given(&ns->out, part);
        done += part;
    }
    *ret_end = ends_after_output(ns) && bm_frame_outbox_len(&ns->out) == 0;
    return (ssize_t)done;
}

static ssize_t on_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                       void *arg)
{
    struct bm_net_session *ns = arg;
    beam_session *session = &ns->session;
    if (exchange != ns->exchange || !ns->answered || ns->said_end)
        return 0;
    bool end = false;
    ssize_t n = give(ns, buf, len, &end);
    if (n > 0)
        ns->said_ns = now_ns(ns);
    if (ns->full && bm_frame_outbox_len(&ns->out) <= OUTPUT_LOW) {
        ns->full = false;
        bm_session_want_flush(session);
    }
    if (n >= 0 && end) {
        *ret_end = true;
        ns->said_end = true;
        if (session->state == BM_SESSION_OPEN)
            bm_session_lost(session, ns->shut ? BEAM_OK : BEAM_UNAVAILABLE,
                            ns->shut ? "closed" : "the peer has closed the session");
    }
    return n;
}

/* --- in -------------------------------------------------------------------------------------- */

static void ask_for_life(struct bm_net_session *ns);

static bool on_hello(beam_session *session, const struct bm_hello *hello, void *arg)
{
    struct bm_net_session *ns = arg;
    (void)session;
    ns->peer_ping_s = hello->ping_s > 0 ? hello->ping_s : BM_NET_SESSION_PING_S;
    return true;
}

static const struct bm_unpacking unpacking = {.on_hello = on_hello};

/* false: the session has ended. */
static bool take_frame(struct bm_net_session *ns, const uint8_t *bytes, uint32_t len)
{
    beam_session *session = &ns->session;
    struct bm_bytes packet = bm_bytes(bytes, len);
    struct bm_frame frame;
    bool first = !session->hello_received;
    int r = bm_frame_next(&packet, &frame);
    if (r < 0) {
        bm_session_fail(session, r);
        return false;
    }
    if (!bm_unpacking_frame(session, &unpacking, ns, &frame, r == 1))
        return false;
    if (first) {
        ask_for_life(ns);
        if (ns->owner && ns->owner->on_open)
            ns->owner->on_open(ns, ns->owner_arg);
    }
    return true;
}

static void drop_cut(struct bm_net_session *ns)
{
    if (ns->cut)
        bm_pool_put(bm_core_pool(ns->session.core), ns->cut, ns->cut_cap);
    ns->cut = NULL;
    ns->cut_cap = ns->cut_total = ns->cut_len = 0;
}

/* The whole length of a frame, of which a header is here; 0: longer than one may be. */
static uint32_t frame_len(const uint8_t *head)
{
    uint64_t len = bm_round_up8(BM_FRAME_HEADER_LEN + (uint64_t)bm_get_u32(head + 8));
    return len <= BM_FRAME_LEN_MAX ? (uint32_t)len : 0;
}

/* Collects a frame that is cut. Returns how many bytes it has taken; 0: the session has ended. */
static size_t collect(struct bm_net_session *ns, const uint8_t *bytes, size_t len)
{
    bool in_head = ns->cut_len < BM_FRAME_HEADER_LEN;
    uint32_t total = in_head ? BM_FRAME_HEADER_LEN : ns->cut_total;
    size_t part = total - ns->cut_len < len ? total - ns->cut_len : len;
    memcpy((in_head ? ns->cut_head : ns->cut) + ns->cut_len, bytes, part);
    ns->cut_len += (uint32_t)part;
    if (ns->cut_len < total)
        return part;

    if (in_head) {
        ns->cut_total = frame_len(ns->cut_head);
        if (ns->cut_total == 0) {
            bm_session_fail(&ns->session, -BEAM_EFRAME_OVERSIZED);
            return 0;
        }
        ns->cut = bm_pool_get(bm_core_pool(ns->session.core), ns->cut_total, &ns->cut_cap);
        if (!ns->cut) {
            bm_session_fail(&ns->session, -ENOMEM);
            return 0;
        }
        memcpy(ns->cut, ns->cut_head, BM_FRAME_HEADER_LEN);
    }
    if (ns->cut_len == ns->cut_total) {
        /* Its own block: an end of the session drops what is cut. */
        uint8_t *frame = ns->cut;
        uint32_t cap = ns->cut_cap, whole = ns->cut_total;
        ns->cut = NULL;
        drop_cut(ns);
        bool go_on = take_frame(ns, frame, whole);
        bm_pool_put(bm_core_pool(ns->session.core), frame, cap);
        if (!go_on)
            return 0;
    }
    return part;
}

/* Bytes of frames, cut anywhere. */
static void take(struct bm_net_session *ns, const uint8_t *bytes, size_t len)
{
    while (len > 0 && ns->session.state == BM_SESSION_OPEN) {
        size_t part;
        uint32_t whole = ns->cut_len == 0 && len >= BM_FRAME_HEADER_LEN ? frame_len(bytes) : 0;
        if (whole > 0 && whole <= len)
            part = take_frame(ns, bytes, whole) ? whole : 0;
        else
            part = collect(ns, bytes, len);
        if (part == 0)
            return;
        bytes += part;
        len -= part;
    }
}

static void on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    struct bm_net_session *ns = arg;
    beam_session *session = bm_session_ref(&ns->session);
    if (exchange == ns->exchange) {
        ns->heard_ns = now_ns(ns);
        if (ns->websocket && ns->answered) {
            int r = bm_websocket_pipe_receive(&ns->pipe, bytes, len);
            if (r < 0 && session->state == BM_SESSION_OPEN)
                bm_session_fail(session, r);
        } else if (ns->answered) {
            take(ns, bytes, len);
        }
    }
    bm_exchange_consumed(exchange, len);
    bm_session_unref(session);
}

/* The peer says no more. What was under way is lost, unless nothing was and the end was agreed on. */
static void peer_ended(struct bm_net_session *ns)
{
    beam_session *session = &ns->session;
    bool orderly =
        bm_list_empty(&session->channels) && (session->draining || session->peer_draining);
    if (session->state != BM_SESSION_CLOSED)
        bm_session_lost(session, orderly ? BEAM_OK : BEAM_UNAVAILABLE,
                        orderly ? "closed" : "the peer has closed the session");
}

static bool try_another_way(struct bm_net_session *ns, int error)
{
    return ns->owner && ns->owner->on_lost && !ns->session.hello_received && !ns->closing &&
           ns->owner->on_lost(ns, error, ns->owner_arg);
}

static void on_end(struct bm_exchange *exchange, void *arg)
{
    struct bm_net_session *ns = arg;
    if (exchange != ns->exchange)
        return;
    beam_session *session = bm_session_ref(&ns->session);
    ns->heard_end = true;
    if (ns->websocket && ns->answered)
        (void)bm_websocket_pipe_receive_end(
            &ns->pipe); /* whether it had been closed, on_close knows */
    if (ns->closing)
        bm_exchange_resume(exchange); /* ours ends too */
    else if (!try_another_way(ns, -ECONNRESET))
        peer_ended(ns);
    bm_session_unref(session);
}

static void pipe_data(const uint8_t *bytes, size_t len, bool end, void *arg)
{
    struct bm_net_session *ns = arg;
    take(ns, bytes, len);
    if (end && ns->cut_len > 0 && ns->session.state == BM_SESSION_OPEN)
        bm_session_fail(&ns->session, -BEAM_EFRAME_TRUNCATED); /* B2 */
}

static void pipe_close(uint16_t code, const char *reason, size_t len, void *arg)
{
    struct bm_net_session *ns = arg;
    (void)code;
    (void)reason;
    (void)len;
    ns->heard_end = true;
    if (!try_another_way(ns, -ECONNRESET))
        peer_ended(ns);
}

static void pipe_output(void *arg)
{
    struct bm_net_session *ns = arg;
    if (ns->exchange)
        bm_exchange_resume(ns->exchange);
}

static void pipe_broken(int error, void *arg)
{
    struct bm_net_session *ns = arg;
    beam_session *session = bm_session_ref(&ns->session);
    bm_session_lost(session, BEAM_UNAVAILABLE, beam_strerror(error));
    if (ns->exchange)
        bm_exchange_reset(ns->exchange);
    bm_session_unref(session);
}

static const struct bm_websocket_pipe_handlers pipe_handlers = {
    .on_data = pipe_data,
    .on_close = pipe_close,
    .on_output = pipe_output,
    .on_broken = pipe_broken,
};

/* --- life ------------------------------------------------------------------------------------ */

/* S6: when the next look is due. */
static void ask_for_life(struct bm_net_session *ns)
{
    uint64_t speak = ns->said_ns + ns->peer_ping_s * BM_NS_PER_S;
    uint64_t give_up =
        ns->heard_ns + BM_NET_SESSION_PINGS_MISSED * BM_NET_SESSION_PING_S * BM_NS_PER_S;
    if (!ns->closing)
        bm_timer_arm(ns->session.core->reactor, &ns->life_timer, speak < give_up ? speak : give_up);
}

static void on_life(struct bm_timer *timer)
{
    struct bm_net_session *ns = bm_container_of(timer, struct bm_net_session, life_timer);
    beam_session *session = &ns->session;
    uint64_t now = now_ns(ns);
    if (now >= ns->heard_ns + BM_NET_SESSION_PINGS_MISSED * BM_NET_SESSION_PING_S * BM_NS_PER_S) {
        bm_session_lost(session, BEAM_UNAVAILABLE, "the peer has fallen silent");
        return;
    }
    if (now >= ns->said_ns + ns->peer_ping_s * BM_NS_PER_S) {
        if (!session->ping_fn) /* else the application's does as well */
            session->ping_sent_ns = bm_clock_now_ns();
        session->ping_due = true;
        ns->said_ns = now; /* or as good as: it waits for room */
        bm_session_want_flush(session);
    }
    ask_for_life(ns);
}

static void on_linger(struct bm_timer *timer)
{
    struct bm_net_session *ns = bm_container_of(timer, struct bm_net_session, linger_timer);
    if (ns->exchange)
        bm_exchange_reset(ns->exchange);
}

/* C4: what nobody can have read was surely not run. */
static void net_unsent(beam_session *session)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    uint64_t first = session->hello_received ? UINT64_MAX : 0; /* S3 */
    if (!ns->farewell && !ns->shut) {
        uint64_t dropped = bm_frame_outbox_drop(&ns->out);
        if (dropped > 0 && dropped < first)
            first = dropped;
    }
    for (struct bm_list *n = session->channels.next; n != &session->channels; n = n->next) {
        beam_channel *channel = bm_list_entry(n, beam_channel, session_node);
        if (channel->ours && channel->id >= first)
            channel->never_left = true;
    }
}

static void net_farewell(beam_session *session)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    if (!ns->exchange || ns->closing || ns->said_end)
        return;
    if (!session->hello_sent)
        session->hello_sent = bm_packing_put_hello(session);
    _Alignas(8) uint8_t frame[BM_PACKING_FAREWELL_LEN];
    uint32_t len = bm_packing_farewell(session, frame);
    /* Past all limits but that of memory: it is the last. */
    uint8_t *at = session->hello_sent ? bm_frame_outbox_room(&ns->out, len) : NULL;
    if (!at)
        return;
    memcpy(at, frame, len);
    ns->farewell = true;
}

static void net_shut(beam_session *session)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    if (!ns->exchange) {
        bm_session_lost(session, BEAM_OK, "closed");
        return;
    }
    ns->shut = true;
    if (ns->websocket)
        bm_websocket_pipe_close(&ns->pipe, BM_WEBSOCKET_NORMAL);
    else
        bm_exchange_resume(ns->exchange);
}

/* Our direction ends behind what waits, and the peer's has some time to end too. */
static void end_exchange(struct bm_net_session *ns)
{
    struct bm_reactor *reactor = ns->session.core->reactor;
    bm_timer_arm(reactor, &ns->linger_timer, now_ns(ns) + BM_NET_SESSION_LINGER_NS);
    if (ns->websocket && ns->farewell)
        bm_websocket_pipe_close(&ns->pipe, BM_WEBSOCKET_POLICY);
    else
        bm_exchange_resume(ns->exchange);
}

static void net_abort(beam_session *session)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    struct bm_reactor *reactor = session->core->reactor;
    if (ns->closing)
        return;
    ns->closing = true;
    bm_timer_cancel(reactor, &ns->life_timer);
    bm_timer_cancel(reactor, &ns->memory_timer);
    bm_dedicated_stream_session_over(ns);
    drop_cut(ns);
    if (ns->exchange && (ns->farewell || ns->shut || ns->heard_end || ns->said_end))
        end_exchange(ns);
    else if (ns->exchange)
        bm_exchange_reset(ns->exchange);
    if (ns->owner && ns->owner->on_over)
        ns->owner->on_over(ns, ns->owner_arg);
    bm_session_unref(session);
}

/* What belongs to the exchange that was. */
static void forget_exchange(struct bm_net_session *ns)
{
    ns->exchange = NULL;
    bm_timer_cancel(ns->session.core->reactor, &ns->linger_timer);
    bm_frame_outbox_deinit(&ns->out);
    bm_websocket_pipe_deinit(&ns->pipe);
    drop_cut(ns);
}

static void on_close(struct bm_exchange *exchange, int error, void *arg)
{
    struct bm_net_session *ns = arg;
    beam_session *session = &ns->session; /* the reference of the exchange goes with it */
    if (exchange == ns->exchange) {
        ns->exchange = NULL;
        if (!try_another_way(ns, error))
            bm_session_lost(session, BEAM_UNAVAILABLE,
                            error < 0 ? beam_strerror(error) : "the peer has closed the session");
        forget_exchange(ns);
    }
    bm_session_unref(session);
}

static void on_answer(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                      size_t field_count, void *arg)
{
    struct bm_net_session *ns = arg;
    if (exchange != ns->exchange || !ns->owner || !ns->owner->on_answer)
        return;
    beam_session *session = bm_session_ref(&ns->session);
    int r = ns->owner->on_answer(ns, status, fields, field_count, ns->owner_arg);
    if (r < 0 && exchange == ns->exchange) {
        ns->answered = false; /* what follows is a page about the refusal, and no frames */
    } else if (exchange == ns->exchange && !ns->answered) {
        ns->answered = true;
        bm_exchange_resume(exchange);
    }
    bm_session_unref(session);
}

const struct bm_exchange_handlers bm_net_session_handlers = {
    .on_answer = on_answer,
    .on_body = on_body,
    .on_end = on_end,
    .read = on_read,
    .on_close = on_close,
};

int bm_net_session_attach(struct bm_net_session *ns, struct bm_exchange *exchange, bool websocket)
{
    beam_session *session = &ns->session;
    bm_assert(!ns->exchange && !ns->closing && !session->hello_received);
    bm_session_ref(session); /* the exchange's, until on_close */
    if (websocket) {
        int r = bm_websocket_pipe_init(&ns->pipe, session->core, session->opener, &session->account,
                                       &ns->out, &pipe_handlers, ns);
        if (r < 0)
            return r;
    }
    ns->exchange = exchange;
    ns->websocket = websocket;
    ns->answered = !websocket || !session->opener;
    ns->full = ns->said_end = ns->heard_end = false;
    ns->said_ns = ns->heard_ns = now_ns(ns);
    session->hello_sent = false;
    bm_exchange_window(exchange, BM_NET_SESSION_WINDOW);
    bm_session_up(session);
    bm_session_want_flush(session);
    return 0;
}

void bm_net_session_detach(struct bm_net_session *ns)
{
    struct bm_exchange *exchange = ns->exchange;
    if (!exchange)
        return;
    forget_exchange(ns);
    bm_exchange_reset(exchange);
}

/* --- the carrier ----------------------------------------------------------------------------- */

static void net_free(beam_session *session)
{
    struct bm_net_session *ns = bm_net_session_of(session);
    bm_assert(!ns->exchange && !ns->cut && !ns->pipe.websocket && bm_list_empty(&ns->streams));
    if (!bm_session_is_orphan(session))
        bm_memory_tell(session->core);
    bm_free(NULL, ns, sizeof(*ns));
}

static size_t net_memory(const beam_session *session)
{
    const struct bm_net_session *ns =
        bm_container_of(session, const struct bm_net_session, session);
    return sizeof(*ns) + ns->cut_cap; /* the outbox and the pipe are the account's */
}

static const struct bm_carrier net_carrier = {
    .pumps_fds = true,
    .begin = net_begin,
    .room = net_room,
    .put_hello = bm_packing_put_hello,
    .put_message = net_put_message,
    .put_end = bm_packing_put_end,
    .put_u64 = bm_packing_put_u64,
    .put_goaway = bm_packing_put_goaway,
    .dedicates = bm_dedicated_stream_can,
    .dedicate = bm_dedicated_stream_begin,
    .commit = net_commit,
    .farewell = net_farewell,
    .shut = net_shut,
    .unsent = net_unsent,
    .abort = net_abort,
    .free = net_free,
    .memory = net_memory,
};

struct bm_net_session *bm_net_session_find(struct bm_core *core, const char *id)
{
    /* All of them are looked at: who asks has been let in, and asks for 64 at most. */
    for (struct bm_list *n = core->sessions.next; n != &core->sessions; n = n->next) {
        beam_session *session = bm_list_entry(n, beam_session, node);
        struct bm_net_session *ns = bm_net_session_of(session);
        if (session->carrier == &net_carrier && !session->opener &&
            session->state == BM_SESSION_OPEN && memcmp(ns->id, id, BM_NET_SESSION_ID_LEN) == 0)
            return ns;
    }
    return NULL;
}

int bm_net_session_new(struct bm_core *core, bool opener, struct bm_net_session **ret_ns)
{
    struct bm_net_session *ns = bm_alloc_zero(NULL, sizeof(*ns));
    if (!ns)
        return -ENOMEM;
    bm_session_init(&ns->session, core, &net_carrier, opener);
    ns->session.account.parent = &core->networks.account;
    ns->session.ping_s = BM_NET_SESSION_PING_S;
    ns->out.bytes.account = &ns->session.account;
    ns->peer_ping_s = BM_NET_SESSION_PING_S;
    bm_list_init(&ns->streams);
    bm_timer_init(&ns->life_timer, on_life);
    bm_timer_init(&ns->linger_timer, on_linger);
    bm_timer_init(&ns->memory_timer, on_memory_retry);
    *ret_ns = ns;
    return 0;
}
