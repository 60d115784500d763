/* A frame is planned from the state of its message and channel, and written from the plan; between the two
 * nothing of them may change.
 *
 * Invariants: what was planned is written to the byte, so that a carrier may count on the length; until it
 * is written, no id is given and no message is begun. It does not know packets, room or descriptors: a frame
 * says how many fds belong to it, and the carrier sees to it that they are there. */
#include "runtime/packing.h"

#include "base/assert.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/message.h"

/* A later frame of a large message, or a frame of a stream. */
static void plan_bytes(struct bm_packing *packing)
{
    uint32_t left = packing->message->body_len - packing->message->packed;
    uint32_t most = BM_FRAME_LEN_MAX - BM_FRAME_HEADER_LEN;
    packing->part = left < most ? left : most;
    packing->whole = packing->part == left;
    packing->len = (uint32_t)bm_round_up8(BM_FRAME_HEADER_LEN + (uint64_t)packing->part);
    packing->fds = 0;
    packing->first = false;
}

/* What the maps of attached channels take in all. */
static uint32_t abouts_len(const beam_message *message)
{
    _Alignas(8) uint8_t scratch[BM_ABOUT_LEN_MAX];
    const struct bm_attachments *att = message->attachments;
    uint32_t len = 0;
    for (unsigned i = 0; i < att->channel_count; i++)
        len += bm_about_write(&att->channels[i].about, att->channels[i].mode, scratch);
    return len;
}

static void plan_first(struct bm_packing *packing)
{
    const beam_channel *channel = packing->channel;
    const beam_message *message = packing->message;
    struct bm_message_head *head = &packing->head;
    *head = (struct bm_message_head){
        .open = channel->opening,
        .depth = channel->depth,
        .attached = (uint8_t)bm_message_channels(message),
        .codec = message->codec,
        .name = {channel->name, channel->name_len},
        .large = message->flags & BM_MESSAGE_LARGE,
        .body_total = message->body_len,
        .metadata = message->metadata_len > 0 ? message->metadata : NULL,
        .metadata_len = message->metadata_len,
        .body = message->body,
        .body_len = message->body_len,
    };
    bool pumped = message->attachments && message->attachments->pumped;
    if (head->attached > 0 && channel->session->carrier->pumps_fds)
        head->abouts_len = abouts_len(message);
    uint32_t head_len = bm_frame_message_head_len(head);
    if (head->large && BM_FRAME_LEN_MAX - head_len < head->body_len)
        head->body_len = BM_FRAME_LEN_MAX - head_len;
    else
        head->large = false;
    if (!head->large)
        head_len = bm_frame_message_head_len(head);
    packing->part = head->body_len;
    packing->whole = !head->large;
    packing->len = (uint32_t)bm_round_up8((uint64_t)head_len + head->body_len);
    packing->fds = pumped ? 0 : (uint8_t)bm_message_fds(message);
    packing->first = true;
}

void bm_packing_plan(beam_channel *channel, beam_message *message, struct bm_packing *ret)
{
    ret->channel = channel;
    ret->message = message;
    if (message->packed > 0 || channel->mode == BM_MODE_BYTES)
        plan_bytes(ret);
    else
        plan_first(ret);
}

static uint8_t *write_bytes(const struct bm_packing *packing, uint8_t *out)
{
    const beam_channel *channel = packing->channel;
    beam_message *message = packing->message;
    uint8_t flags = 0;
    if (channel->mode == BM_MODE_MESSAGES && !packing->whole)
        flags |= BM_MSG_MORE;
    if (packing->whole && (message->flags & BM_MESSAGE_LAST))
        flags |= BM_MSG_END;
    const uint8_t *bytes = packing->part > 0 ? message->body + message->packed : NULL;
    out = bm_frame_put_bytes(out, channel->id, flags, bytes, packing->part);
    message->packed += packing->part;
    return out;
}

static void write_attached(const beam_message *message, uint8_t *entry, bool says_more)
{
    const struct bm_attachments *att = message->attachments;
    uint8_t *about = entry + (size_t)att->channel_count * BM_ATTACHED_LEN;
    for (unsigned i = 0; i < att->channel_count; i++, entry += BM_ATTACHED_LEN) {
        struct bm_attached attached = {.id = att->channels[i].id, .mode = att->channels[i].mode};
        if (says_more)
            attached.about_len = bm_about_write(&att->channels[i].about, attached.mode, about);
        about += attached.about_len;
        bm_frame_put_attached(entry, &attached);
    }
}

/* Remaining time is written when the frame is: waiting in line counts. */
static uint64_t time_left(const beam_channel *channel)
{
    if (channel->deadline_ns == UINT64_MAX)
        return 0;
    uint64_t now = bm_reactor_now_ns(channel->core->reactor);
    return channel->deadline_ns > now ? channel->deadline_ns - now : 1;
}

static uint8_t *write_first(const struct bm_packing *packing, uint8_t *out)
{
    beam_channel *channel = packing->channel;
    beam_message *message = packing->message;
    struct bm_message_head head = packing->head;
    uint8_t flags = 0;
    if (head.open) {
        flags |= BM_MSG_OPEN | (channel->oneway ? BM_MSG_ONEWAY : 0);
        head.deadline_ns = time_left(channel);
        message->flags |= BM_MESSAGE_OPENED;
    }
    if (head.large)
        flags |= BM_MSG_MORE;
    else if (message->flags & BM_MESSAGE_LAST)
        flags |= BM_MSG_END;
    if (head.open || head.attached > 0)
        bm_outgoing_bind(channel->session, channel, message);

    uint8_t *attached;
    out = bm_frame_put_message(out, channel->id, flags, packing->fds, &head, &attached);
    if (head.attached > 0)
        write_attached(message, attached, head.abouts_len > 0);
    if (head.large)
        message->packed = head.body_len;
    return out;
}

void bm_packing_write(const struct bm_packing *packing, uint8_t *out)
{
    uint8_t *end = packing->first ? write_first(packing, out) : write_bytes(packing, out);
    bm_assert(end == out + packing->len);
}

int bm_packing_left(const struct bm_packing *packing)
{
    beam_message *message = packing->message;
    if (bm_message_channels(message) > 0) {
        bm_attachments_release_channels(message->attachments);
        message->attachments->channel_count = 0;
    }
    if (!packing->whole)
        return BM_PUT_PART;
    message->flags &= (uint16_t)~BM_MESSAGE_LAST;
    beam_message_free(message);
    return BM_PUT_DONE;
}

/* --- the session's frames ------------------------------------------------------------------------ */

bool bm_packing_put_hello(beam_session *session)
{
    _Alignas(8) uint8_t document[BM_HELLO_LEN_MAX];
    struct bm_hello hello;
    bm_session_hello(session, &hello);
    uint32_t len = (uint32_t)bm_hello_write(&hello, document);
    uint8_t *out = session->carrier->room(
        session, (uint32_t)bm_round_up8(BM_FRAME_HEADER_LEN + (uint64_t)len));
    if (out)
        bm_frame_put_hello(out, document, len);
    return out;
}

bool bm_packing_put_end(beam_session *session, uint64_t id, uint8_t flags,
                        const struct bm_frame_end *end)
{
    uint8_t *out = session->carrier->room(session, bm_frame_end_len(end->details_len));
    if (out)
        bm_frame_put_end(out, id, flags, end);
    return out;
}

bool bm_packing_put_u64(beam_session *session, enum bm_frame_kind kind, uint8_t flags, uint64_t id,
                        uint64_t value)
{
    uint8_t *out = session->carrier->room(session, BM_FRAME_U64_LEN);
    if (out)
        bm_frame_put_u64(out, kind, flags, id, value);
    return out;
}

bool bm_packing_put_goaway(beam_session *session, const struct bm_frame_goaway *goaway)
{
    uint8_t *out = session->carrier->room(session, bm_frame_goaway_len(goaway->why.details_len));
    if (out)
        bm_frame_put_goaway(out, goaway);
    return out;
}

uint32_t bm_packing_farewell(const beam_session *session, uint8_t *out)
{
    _Alignas(8) uint8_t details[BM_DETAILS_LEN_MAX];
    struct bm_frame_goaway goaway = session->goaway;
    bm_session_explain(session, &goaway, details);
    return (uint32_t)(bm_frame_put_goaway(out, &goaway) - out);
}
