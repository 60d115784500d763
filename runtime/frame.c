/* Frames as bytes, both ways.
 *
 * Reading: bm_frame_next judges one frame at a time, in the order of docs/spec/session.md F3: shape
 * (size, padding), kind, flags, channel, fds, attached, length, contents. After it, header fields and
 * payload length fit the kind, so that the parse functions of END, GOAWAY, CREDIT and PING cannot
 * fail. A MSG is only judged whole by bm_frame_parse_message, because its payload has a head in the
 * first frame of a message alone.
 *
 * Invariant: nothing is read outside [packet->pos, packet->end), whatever the bytes; lengths are
 * compared in 64 bits. Writing trusts its arguments, which are ours.
 *
 * Knows no session: ids, credit, limits of HELLO and the order of frames are judged elsewhere. */
#include "runtime/frame.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "kv/utf8.h"

#define OPEN_LEN 16u    /* deadline, name length, depth, reserved; the name follows */
#define BODY_HEAD_LEN 8 /* metadata length, codec */

/* The least length of a map with more than BEAM_METADATA_KEYS_MAX keys: keys differ, so at most one is
 * empty and fits its entry's header; each other entry takes 16 bytes. */
#define METADATA_LEN_COUNTED (8 + 8 + 16 * BEAM_METADATA_KEYS_MAX)

/* Bit f is set when the flags may be f; F3 and M2. */
#define MAY(f) (1u << (f))
static const uint16_t flags_allowed[] = {
    [BM_FRAME_HELLO] = MAY(0),
    [BM_FRAME_MSG] = MAY(0) | MAY(BM_MSG_OPEN) | MAY(BM_MSG_MORE) | MAY(BM_MSG_OPEN | BM_MSG_MORE) |
                     MAY(BM_MSG_END) | MAY(BM_MSG_OPEN | BM_MSG_END) |
                     MAY(BM_MSG_OPEN | BM_MSG_ONEWAY) |
                     MAY(BM_MSG_OPEN | BM_MSG_ONEWAY | BM_MSG_MORE) |
                     MAY(BM_MSG_OPEN | BM_MSG_ONEWAY | BM_MSG_END),
    [BM_FRAME_END] = MAY(0) | MAY(BM_END_ABORT),
    [BM_FRAME_CREDIT] = MAY(0),
    [BM_FRAME_PING] = MAY(0) | MAY(BM_PING_ACK),
    [BM_FRAME_GOAWAY] = MAY(0),
};
#define FLAGS_ALL 16u

/* Whether the bytes from p + len up to the next multiple of 8 are zero; all of them are readable. */
static inline bool padding_is_zero(const uint8_t *p, uint64_t len)
{
    return len % 8 == 0 || bm_get_u64(p + (len & ~UINT64_C(7))) >> (8 * (len % 8)) == 0;
}

static int check_map(const uint8_t *doc, uint32_t len, beam_kv_value *ret_map)
{
    if (len > BEAM_METADATA_LEN_MAX || beam_kv_check(doc, len, NULL) < 0 ||
        beam_kv_root(doc, len, ret_map) < 0 || ret_map->type != BEAM_KV_MAP)
        return -BEAM_EFRAME_METADATA;
    return 0;
}

static int check_metadata(const uint8_t *doc, uint32_t len)
{
    beam_kv_value map, value;
    beam_kv_iter iter;
    unsigned keys = 0;

    int r = check_map(doc, len, &map);
    if (r < 0 || len < METADATA_LEN_COUNTED)
        return r;
    beam_kv_iter_init(&iter, &map);
    while (beam_kv_iter_next(&iter, NULL, &value) > 0)
        keys++;
    return keys <= BEAM_METADATA_KEYS_MAX ? 0 : -BEAM_EFRAME_METADATA;
}

/* A u32 code, a u32 of zero, details or nothing: the end of END and GOAWAY. */
static int check_why(const struct bm_frame *frame, uint32_t offset)
{
    beam_kv_value map;
    if (frame->len < offset + 8)
        return -BEAM_EFRAME_LENGTH;
    if (bm_get_u32(frame->payload + offset + 4) != 0)
        return -BEAM_EFRAME_PADDING;
    offset += 8;
    if (frame->len == offset)
        return 0;
    return check_map(frame->payload + offset, frame->len - offset, &map);
}

/* Whatever is no MSG; the kind is known and its flags are right. */
static int check_other(const struct bm_frame *frame)
{
    bool of_session = frame->kind != BM_FRAME_END && frame->kind != BM_FRAME_CREDIT;

    if (of_session ? frame->channel != 0 : frame->channel == 0 && frame->kind == BM_FRAME_END)
        return -BEAM_EFRAME_CHANNEL;
    if (frame->fds != 0)
        return -BEAM_EFRAME_FDS;
    if (frame->attached != 0)
        return -BEAM_EFRAME_ATTACHMENT;
    switch (frame->kind) {
    case BM_FRAME_HELLO:
        return frame->len >= 8 ? 0 : -BEAM_EFRAME_LENGTH; /* the least document */
    case BM_FRAME_END:
        return check_why(frame, 0);
    case BM_FRAME_GOAWAY:
        return check_why(frame, 8);
    default: /* CREDIT, PING */
        return frame->len == 8 ? 0 : -BEAM_EFRAME_LENGTH;
    }
}

int bm_frame_next(struct bm_bytes *packet, struct bm_frame *ret_frame)
{
    const uint8_t *pos = packet->pos;
    uint64_t left = bm_bytes_left(packet);
    if (left < BM_FRAME_HEADER_LEN)
        return left == 0 ? 0 : -BEAM_EFRAME_TRUNCATED;

    uint64_t rest = bm_get_u64(pos + 8);
    struct bm_frame frame = {
        .channel = bm_get_u64(pos),
        .len = (uint32_t)rest,
        .kind = (uint8_t)(rest >> 32),
        .flags = (uint8_t)(rest >> 40),
        .fds = (uint8_t)(rest >> 48),
        .attached = (uint8_t)(rest >> 56),
        .payload = pos + BM_FRAME_HEADER_LEN,
    };
    uint64_t len = BM_FRAME_HEADER_LEN + bm_round_up8(frame.len);
    if (BM_UNLIKELY(len > BM_FRAME_LEN_MAX))
        return -BEAM_EFRAME_OVERSIZED;
    if (BM_UNLIKELY(len > left))
        return -BEAM_EFRAME_TRUNCATED;
    if (BM_UNLIKELY(!padding_is_zero(frame.payload, frame.len)))
        return -BEAM_EFRAME_PADDING;

    int r = 1;
    if (BM_UNLIKELY(frame.kind >= BM_FRAME_KIND_IGNORED)) {
        r = 2;
    } else {
        if (BM_UNLIKELY(frame.kind < BM_FRAME_HELLO || frame.kind > BM_FRAME_GOAWAY))
            return -BEAM_EFRAME_KIND;
        if (BM_UNLIKELY(frame.flags >= FLAGS_ALL ||
                        !(flags_allowed[frame.kind] & MAY(frame.flags))))
            return -BEAM_EFRAME_FLAGS;
        if (BM_LIKELY(frame.kind == BM_FRAME_MSG)) {
            if (BM_UNLIKELY(frame.channel == 0))
                return -BEAM_EFRAME_CHANNEL;
        } else {
            int bad = check_other(&frame);
            if (BM_UNLIKELY(bad < 0))
                return bad;
        }
    }
    packet->pos = pos + len;
    *ret_frame = frame;
    return r;
}

static int parse_open(struct bm_bytes *in, struct bm_message_head *head)
{
    const uint8_t *p = bm_bytes_take(in, OPEN_LEN);
    if (!p)
        return -BEAM_EFRAME_LENGTH;
    uint64_t word = bm_get_u64(p + 8);
    uint16_t name_len = (uint16_t)word;
    head->deadline_ns = bm_get_u64(p);
    head->depth = (uint8_t)(word >> 16);
    if (word >> 24 != 0)
        return -BEAM_EFRAME_PADDING;
    if (name_len == 0 || name_len > BM_NAME_LEN_MAX)
        return -BEAM_EFRAME_NAME;
    const uint8_t *name = bm_bytes_take(in, bm_round_up8(name_len));
    if (!name)
        return -BEAM_EFRAME_LENGTH;
    if (!padding_is_zero(name, name_len))
        return -BEAM_EFRAME_PADDING;
    if (!bm_utf8_valid(name, name_len))
        return -BEAM_EFRAME_NAME;
    head->name = (beam_str){(const char *)name, name_len};
    return 0;
}

/* What stands behind the entries: as long as they say, in all. */
static int parse_abouts(struct bm_bytes *in, struct bm_message_head *head)
{
    uint64_t len = 0;
    for (unsigned i = 0; i < head->attached; i++) {
        uint32_t about_len = bm_get_u32(head->attached_entries + (size_t)i * BM_ATTACHED_LEN + 12);
        if (about_len % 8 != 0 || about_len > BM_ABOUT_LEN_MAX)
            return -BEAM_EFRAME_ATTACHMENT;
        len += about_len;
    }
    head->abouts = bm_bytes_take(in, len);
    head->abouts_len = (uint32_t)len;
    return head->abouts ? 0 : -BEAM_EFRAME_ATTACHMENT;
}

static int parse_message(const struct bm_frame *frame, bool network,
                         struct bm_message_head *ret_head)
{
    struct bm_bytes in = bm_bytes(frame->payload, frame->len);
    struct bm_message_head head = {
        .open = frame->flags & BM_MSG_OPEN,
        .large = frame->flags & BM_MSG_MORE,
        .attached = frame->attached,
        .network = network,
    };
    const uint8_t *p;

    if (head.open) {
        int r = parse_open(&in, &head);
        if (BM_UNLIKELY(r < 0))
            return r;
    }
    if (head.large) {
        p = bm_bytes_take(&in, 8);
        if (!p)
            return -BEAM_EFRAME_LENGTH;
        head.body_total = bm_get_u64(p);
    }
    if (head.attached > 0) {
        if (head.attached > BM_ATTACHED_MAX)
            return -BEAM_EFRAME_ATTACHMENT;
        head.attached_entries = bm_bytes_take(&in, (uint64_t)head.attached * BM_ATTACHED_LEN);
        if (!head.attached_entries)
            return -BEAM_EFRAME_ATTACHMENT;
        int r = network ? parse_abouts(&in, &head) : 0;
        if (r < 0)
            return r;
    }
    p = bm_bytes_take(&in, BODY_HEAD_LEN);
    if (BM_UNLIKELY(!p))
        return -BEAM_EFRAME_LENGTH;
    head.metadata_len = bm_get_u32(p);
    head.codec = bm_get_u32(p + 4);
    if (head.metadata_len > 0) {
        if (BM_UNLIKELY(head.metadata_len > BEAM_METADATA_LEN_MAX))
            return -BEAM_EFRAME_METADATA;
        p = bm_bytes_take(&in, head.metadata_len);
        if (BM_UNLIKELY(!p))
            return -BEAM_EFRAME_LENGTH;
        int r = check_metadata(p, head.metadata_len);
        if (BM_UNLIKELY(r < 0))
            return r;
        head.metadata = p;
    }
    head.body = in.pos;
    head.body_len = (uint32_t)bm_bytes_left(&in);
    /* The later frames hold at least one byte. */
    if (head.large && BM_UNLIKELY(head.body_total <= head.body_len))
        return -BEAM_EFRAGMENT;
    *ret_head = head;
    return 0;
}

int bm_frame_parse_message(const struct bm_frame *frame, struct bm_message_head *ret_head)
{
    return parse_message(frame, false, ret_head);
}

int bm_frame_parse_network_message(const struct bm_frame *frame, struct bm_message_head *ret_head)
{
    return parse_message(frame, true, ret_head);
}

int bm_frame_parse_attached(const struct bm_message_head *head, unsigned i,
                            struct bm_attached *ret_attached)
{
    bm_assert(i < head->attached);
    const uint8_t *entry = head->attached_entries + (size_t)i * BM_ATTACHED_LEN;
    uint32_t mode = bm_get_u32(entry + 8);
    uint32_t about_len = bm_get_u32(entry + 12);
    if (mode > (head->network ? BM_MODE_FD : BM_MODE_BYTES))
        return -BEAM_EFRAME_ATTACHMENT;
    if (about_len != 0 && !head->network)
        return -BEAM_EFRAME_PADDING;
    const uint8_t *about = head->abouts;
    for (unsigned k = 0; k < i && head->network; k++)
        about += bm_get_u32(head->attached_entries + (size_t)k * BM_ATTACHED_LEN + 12);
    *ret_attached = (struct bm_attached){
        .id = bm_get_u64(entry),
        .mode = (enum bm_channel_mode)mode,
        .about_len = about_len,
        .about = about_len > 0 ? about : NULL,
    };
    return 0;
}

static void parse_why(const struct bm_frame *frame, uint32_t offset, struct bm_frame_end *ret_why)
{
    const uint8_t *p = frame->payload + offset;
    uint32_t details_len = frame->len - offset - 8;
    *ret_why = (struct bm_frame_end){
        .code = bm_get_u32(p),
        .details = details_len ? p + 8 : NULL,
        .details_len = details_len,
    };
}

void bm_frame_parse_end(const struct bm_frame *frame, struct bm_frame_end *ret_end)
{
    bm_assert(frame->kind == BM_FRAME_END);
    parse_why(frame, 0, ret_end);
}

void bm_frame_parse_goaway(const struct bm_frame *frame, struct bm_frame_goaway *ret_goaway)
{
    bm_assert(frame->kind == BM_FRAME_GOAWAY);
    ret_goaway->last_id = bm_get_u64(frame->payload);
    parse_why(frame, 8, &ret_goaway->why);
}

/* The header, and zeros in the last word when the payload will not fill it; the payload goes over
 * them. Returns where the payload begins. */
static inline uint8_t *put_header(uint8_t *out, uint64_t channel, uint64_t len,
                                  enum bm_frame_kind kind, uint8_t flags, uint16_t fds_attached)
{
    bm_assert(len <= BM_FRAME_LEN_MAX - BM_FRAME_HEADER_LEN);
    bm_put_u64(out, channel);
    bm_put_u64(out + 8,
               len | (uint64_t)kind << 32 | (uint64_t)flags << 40 | (uint64_t)fds_attached << 48);
    out += BM_FRAME_HEADER_LEN;
    if (len % 8 != 0)
        bm_put_u64(out + (len & ~UINT64_C(7)), 0);
    return out;
}

static inline uint8_t *put_copy(uint8_t *out, const void *bytes, size_t len)
{
    if (len > 0) /* memcpy(3) wants a pointer even for nothing */
        memcpy(out, bytes, len);
    return out + len;
}

static inline uint8_t *put_why(uint8_t *out, const struct bm_frame_end *why)
{
    bm_put_u64(out, why->code); /* and the zero behind it */
    return put_copy(out + 8, why->details, why->details_len);
}

uint8_t *bm_frame_put_u64(uint8_t *out, enum bm_frame_kind kind, uint8_t flags, uint64_t channel,
                          uint64_t value)
{
    out = put_header(out, channel, 8, kind, flags, 0);
    bm_put_u64(out, value);
    return out + 8;
}

/* Details are kv documents and so end at a multiple of 8, as do documents of HELLO. */
uint8_t *bm_frame_put_end(uint8_t *out, uint64_t channel, uint8_t flags,
                          const struct bm_frame_end *end)
{
    out = put_header(out, channel, 8 + (uint64_t)end->details_len, BM_FRAME_END, flags, 0);
    return put_why(out, end);
}

uint8_t *bm_frame_put_goaway(uint8_t *out, const struct bm_frame_goaway *goaway)
{
    out = put_header(out, 0, 16 + (uint64_t)goaway->why.details_len, BM_FRAME_GOAWAY, 0, 0);
    bm_put_u64(out, goaway->last_id);
    return put_why(out + 8, &goaway->why);
}

uint8_t *bm_frame_put_hello(uint8_t *out, const void *document, uint32_t document_len)
{
    out = put_header(out, 0, document_len, BM_FRAME_HELLO, 0, 0);
    return put_copy(out, document, document_len);
}

uint32_t bm_frame_message_head_len(const struct bm_message_head *head)
{
    uint64_t len = BM_FRAME_HEADER_LEN + BODY_HEAD_LEN + head->metadata_len +
                   (uint64_t)head->attached * BM_ATTACHED_LEN + head->abouts_len;
    if (head->open)
        len += OPEN_LEN + bm_round_up8(head->name.len);
    if (head->large)
        len += 8;
    return (uint32_t)len;
}

uint8_t *bm_frame_put_message(uint8_t *out, uint64_t channel, uint8_t flags, uint8_t fds,
                              const struct bm_message_head *head, uint8_t **ret_attached)
{
    bm_assert(head->open == !!(flags & BM_MSG_OPEN) && head->large == !!(flags & BM_MSG_MORE));
    uint64_t len = (uint64_t)bm_frame_message_head_len(head) - BM_FRAME_HEADER_LEN + head->body_len;
    uint8_t *end = out + BM_FRAME_HEADER_LEN + bm_round_up8(len);
    out = put_header(out, channel, len, BM_FRAME_MSG, flags, (uint16_t)(fds | head->attached << 8));
    if (head->open) {
        size_t name_len = head->name.len;
        bm_assert(name_len >= 1 && name_len <= BM_NAME_LEN_MAX);
        bm_put_u64(out, head->deadline_ns);
        bm_put_u64(out + 8, name_len | (uint64_t)head->depth << 16);
        out += OPEN_LEN;
        uint8_t *name_end = out + bm_round_up8(name_len);
        bm_put_u64(name_end - 8, 0);
        memcpy(out, head->name.ptr, name_len);
        out = name_end;
    }
    if (head->large) {
        bm_put_u64(out, head->body_total);
        out += 8;
    }
    if (ret_attached)
        *ret_attached = out;
    out += (size_t)head->attached * BM_ATTACHED_LEN + head->abouts_len;
    bm_put_u64(out, head->metadata_len | (uint64_t)head->codec << 32);
    out = put_copy(out + BODY_HEAD_LEN, head->metadata, head->metadata_len);
    put_copy(out, head->body, head->body_len);
    return end;
}

void bm_frame_put_attached(uint8_t *entry, const struct bm_attached *attached)
{
    bm_put_u64(entry, attached->id);
    bm_put_u64(entry + 8, attached->mode | (uint64_t)attached->about_len << 32);
}

uint8_t *bm_frame_put_bytes(uint8_t *out, uint64_t channel, uint8_t flags, const void *bytes,
                            uint32_t len)
{
    out = put_header(out, channel, len, BM_FRAME_MSG, flags, 0);
    put_copy(out, bytes, len);
    return out + bm_round_up8(len);
}
