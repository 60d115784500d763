/* The guard of an HTTP/2 connection.
 *
 * The stream of bytes is a preface (from a client) and frames: a head of nine bytes and a payload
 * of the length it says. Lengths over the limit are not complained about here, nor any other rule
 * that nghttp2 keeps: what is counted is only what is legal once and harmful a thousand times.
 *
 * A client may pass over stream ids, and a stream with a lower id than the last may not be opened
 * (section 5.1.1). nghttp2 takes a HEADERS with such an id for one that crossed our RST_STREAM, and
 * ignores it. Whoever remembers which ids were passed over, and which streams the client has ended
 * or reset itself, can tell the two apart. */
#include "net/proto/h2_guard.h"

enum {
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION
};
enum { END_STREAM = 1, END_HEADERS = 4, PADDED = 8 };
enum { NO_ERROR = 0, PROTOCOL_ERROR = 1, STREAM_CLOSED = 5, ENHANCE_YOUR_CALM = 11 };

static const struct bm_budget_limit limits[BM_H2_BUDGETS] = {
#define LIMIT(name, burst, per_s) [BM_H2_BUDGET_##name] = {burst, per_s},
    BM_H2_BUDGET_TABLE(LIMIT)
#undef LIMIT
};

void bm_h2_guard_init(struct bm_h2_guard *guard, bool server)
{
    *guard = (struct bm_h2_guard){
        .server = server,
        .preface_left = server ? BM_H2_PREFACE_LEN : 0,
        .block_since_ns = UINT64_MAX,
    };
}

bool bm_h2_guard_charge(struct bm_h2_guard *guard, enum bm_h2_budget budget, uint64_t now_ns)
{
    return bm_budget_spend(&guard->budgets[budget], &limits[budget], 1, now_ns);
}

void bm_h2_guard_sent(struct bm_h2_guard *guard, size_t len, bool end)
{
    uint64_t sum = guard->update_len + (uint64_t)len + (end ? 2 * BM_H2_UPDATE_LEN : 0);
    guard->update_len = (uint32_t)(sum % BM_H2_UPDATE_LEN);
    bm_budget_earn(&guard->budgets[BM_H2_BUDGET_UPDATE], &limits[BM_H2_BUDGET_UPDATE],
                   (uint32_t)(sum / BM_H2_UPDATE_LEN));
}

static uint32_t charge(struct bm_h2_guard *guard, enum bm_h2_budget budget, uint64_t now_ns)
{
    return bm_h2_guard_charge(guard, budget, now_ns) ? NO_ERROR : ENHANCE_YOUR_CALM;
}

/* More of a stream of which there was to be no more (section 5.1): of one that is still open
 * nghttp2 says so itself. */
static uint32_t judge_ended(struct bm_h2_guard *guard)
{
    uint32_t *ended = &guard->ended[guard->id / 2 % BM_H2_ENDED_MAX];
    if (!guard->server || guard->id == 0) /* what a server says too much is not listened to */
        return NO_ERROR;
    if (*ended == guard->id)
        return STREAM_CLOSED;
    if (guard->flags & END_STREAM)
        *ended = guard->id;
    return NO_ERROR;
}

/* A client's HEADERS. */
static uint32_t judge_id(struct bm_h2_guard *guard)
{
    uint32_t id = guard->id;
    if (!guard->server || id % 2 == 0)
        return NO_ERROR;
    if (id > guard->last_id) {
        uint32_t expected = guard->last_id == 0 ? 1 : guard->last_id + 2;
        if (id > expected)
            guard->gaps[guard->gap_next++ % BM_H2_GAPS_MAX] =
                (struct bm_h2_gap){.first = expected, .last = id - 2};
        guard->last_id = id;
        return NO_ERROR;
    }
    for (unsigned i = 0; i < BM_H2_GAPS_MAX; i++)
        if (id >= guard->gaps[i].first && id <= guard->gaps[i].last)
            return PROTOCOL_ERROR;
    return NO_ERROR;
}

static uint32_t judge_headers(struct bm_h2_guard *guard, uint64_t now_ns)
{
    guard->continuations = 0;
    guard->block_since_ns = now_ns;
    uint32_t code = judge_id(guard);
    return code == NO_ERROR ? judge_ended(guard) : code;
}

static uint32_t judge_data(struct bm_h2_guard *guard, uint64_t now_ns)
{
    guard->prefix_left = (guard->flags & PADDED) && guard->payload_left > 0; /* the pad length */
    if (guard->payload_left == 0 && !(guard->flags & END_STREAM) &&
        charge(guard, BM_H2_BUDGET_EMPTY, now_ns) != NO_ERROR)
        return ENHANCE_YOUR_CALM;
    return judge_ended(guard);
}

/* nghttp2 looks at none when it was told that they mean nothing, not even at what is wrong in each
 * (RFC 7540 section 5.3.1, 6.3). */
static uint32_t judge_priority(struct bm_h2_guard *guard, uint64_t now_ns)
{
    if (guard->id == 0)
        return PROTOCOL_ERROR;
    guard->prefix_left = guard->payload_left >= 4 ? 4 : 0; /* the stream that it depends on */
    return charge(guard, BM_H2_BUDGET_PRIORITY, now_ns);
}

static uint32_t judge_prefix(struct bm_h2_guard *guard, uint64_t now_ns)
{
    if (guard->type == PRIORITY)
        return (guard->prefix & 0x7fffffff) == guard->id ? PROTOCOL_ERROR : NO_ERROR;
    /* DATA; its pad length is a part of what is left. */
    if (guard->prefix + 1 >= guard->payload_left && !(guard->flags & END_STREAM))
        return charge(guard, BM_H2_BUDGET_EMPTY, now_ns);
    return NO_ERROR;
}

static uint32_t judge_reset(struct bm_h2_guard *guard, uint64_t now_ns)
{
    if (guard->id > 0)
        guard->ended[guard->id / 2 % BM_H2_ENDED_MAX] = guard->id;
    /* A server's are about requests that we made. */
    return guard->server ? charge(guard, BM_H2_BUDGET_RESET, now_ns) : NO_ERROR;
}

static uint32_t judge_head(struct bm_h2_guard *guard, uint64_t now_ns)
{
    switch (guard->type) {
    case DATA:
        return judge_data(guard, now_ns);
    case HEADERS:
        return judge_headers(guard, now_ns);
    case CONTINUATION:
        return ++guard->continuations > BM_H2_CONTINUATIONS_MAX ? ENHANCE_YOUR_CALM : NO_ERROR;
    case PRIORITY:
        return judge_priority(guard, now_ns);
    case RST_STREAM:
        return judge_reset(guard, now_ns);
    case SETTINGS:
        return charge(guard, BM_H2_BUDGET_SETTINGS, now_ns);
    case PING:
        return charge(guard, BM_H2_BUDGET_PING, now_ns);
    case WINDOW_UPDATE:
        return charge(guard, BM_H2_BUDGET_UPDATE, now_ns);
    case PUSH_PROMISE: /* never legal here */
        return NO_ERROR;
    default:
        return charge(guard, BM_H2_BUDGET_OTHER, now_ns);
    }
}

static void end_frame(struct bm_h2_guard *guard)
{
    guard->head_len = 0;
    guard->greeted = true;
    if ((guard->type == HEADERS || guard->type == CONTINUATION) && (guard->flags & END_HEADERS))
        guard->block_since_ns = UINT64_MAX;
}

/* Bytes of the head, as many as there are; the head is judged with its last. */
static uint32_t read_head(struct bm_h2_guard *guard, const uint8_t **pos, const uint8_t *end,
                          uint64_t now_ns)
{
    while (guard->head_len < BM_H2_HEAD_LEN && *pos < end)
        guard->head[guard->head_len++] = *(*pos)++;
    if (guard->head_len < BM_H2_HEAD_LEN)
        return NO_ERROR;

    const uint8_t *head = guard->head;
    guard->payload_left = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
    guard->type = head[3];
    guard->prefix = 0;
    guard->flags = head[4];
    guard->id =
        ((uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8]) &
        0x7fffffff;
    uint32_t code = judge_head(guard, now_ns);
    if (code == NO_ERROR && guard->payload_left == 0)
        end_frame(guard);
    return code;
}

static uint32_t read_payload(struct bm_h2_guard *guard, const uint8_t **pos, const uint8_t *end,
                             uint64_t now_ns)
{
    uint32_t code = NO_ERROR;
    while (guard->prefix_left > 0 && *pos < end) {
        guard->prefix = guard->prefix << 8 | *(*pos)++;
        if (--guard->prefix_left == 0)
            code = judge_prefix(guard, now_ns);
        guard->payload_left--;
    }
    size_t len = (size_t)(end - *pos);
    if (len > guard->payload_left)
        len = guard->payload_left;
    *pos += len;
    guard->payload_left -= (uint32_t)len;
    if (guard->payload_left == 0)
        end_frame(guard);
    return code;
}

uint32_t bm_h2_guard_read(struct bm_h2_guard *guard, const uint8_t *bytes, size_t len,
                          uint64_t now_ns, size_t *ret_len)
{
    const uint8_t *pos = bytes, *end = bytes + len;
    if (guard->preface_left > 0) {
        size_t part = len < guard->preface_left ? len : guard->preface_left;
        pos += part;
        guard->preface_left -= (uint32_t)part;
    }
    while (pos < end) {
        const uint8_t *start = pos;
        uint32_t code = guard->head_len < BM_H2_HEAD_LEN ? read_head(guard, &pos, end, now_ns)
                                                         : read_payload(guard, &pos, end, now_ns);
        if (code != NO_ERROR) {
            *ret_len = (size_t)(start - bytes);
            return code;
        }
    }
    *ret_len = len;
    return NO_ERROR;
}
