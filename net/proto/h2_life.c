/* The course of an HTTP/2 connection: what is waited for and until when, how it drains, and how it
 * ends.
 *
 * There are three ways to end. Drained: both have said so, the streams are done, and nghttp2 has
 * nothing more to say. Terminated: nghttp2 says GOAWAY, because the peer broke a rule (it found
 * that itself) or because of what is decided here. Broken off: nghttp2 cannot be called any more,
 * and the last GOAWAY is written by hand. All but the first close every stream at once, and nothing
 * is received from then on; output is still there to be sent. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "net/proto/h2_inner.h"

#define DRAIN_TOKEN UINT64_C(0x6e69617264206d62) /* of the PING behind the notice */

/* By hand (RFC 9113 section 6.8), and never the first that the peer hears of us. */
static void put_goaway(struct bm_h2 *h2, uint32_t code)
{
    uint8_t frame[BM_H2_LAST_LEN] = {0, 0, BM_H2_LAST_LEN - BM_H2_HEAD_LEN, 7 /* GOAWAY */};
    uint8_t *to;
    if (!h2->settings_out || h2->torn || !(to = bm_h2_out_room(h2, 0, false)))
        return;
    bm_put_u32(frame + 9, __builtin_bswap32(bm_h2_wire_last_id(h2)));
    bm_put_u32(frame + 13, __builtin_bswap32(code));
    memcpy(to, frame, sizeof(frame));
    bm_h2_out_commit(h2, sizeof(frame));
    h2->code = code;
}

void bm_h2_finish(struct bm_h2 *h2, uint32_t code, int error)
{
    if (h2->error < 0)
        return;
    h2->error = error;
    for (struct bm_list *node; (node = bm_list_front(&h2->streams)) != NULL;) {
        struct bm_h2_stream *stream = bm_list_entry(node, struct bm_h2_stream, node);
        bool unsent = !h2->server && !stream->sent;
        bm_h2_stream_close(stream, unsent ? BM_H2_REFUSED_STREAM : code);
    }
}

void bm_h2_break_off(struct bm_h2 *h2, uint32_t code, int error)
{
    if (h2->broken)
        return;
    h2->broken = true;
    put_goaway(h2, code);
    bm_h2_finish(h2, code, error);
}

void bm_h2_settle(struct bm_h2 *h2)
{
    if (h2->memory.refused)
        bm_h2_break_off(h2, BM_H2_INTERNAL_ERROR, -ENOMEM);
}

int bm_h2_error_of(uint32_t code)
{
    switch (code) {
    case BM_H2_ENHANCE_YOUR_CALM:
        return -BEAM_EH2_FLOOD;
    case BM_H2_SETTINGS_TIMEOUT:
        return -BEAM_EH2_TIMEOUT;
    default:
        return -BEAM_EH2_PROTOCOL;
    }
}

void bm_h2_end_with(struct bm_h2 *h2, uint32_t code, int error)
{
    if (!bm_h2_usable(h2))
        return;
    bm_h2_wire_terminate(h2, code);
    if (bm_h2_callable(h2))
        h2->code = code;
    else
        bm_h2_break_off(h2, code, error);
    bm_h2_finish(h2, code, error);
    bm_h2_pull(h2, true);
}

static void drain_finally(struct bm_h2 *h2)
{
    h2->drain = BM_H2_DRAIN_FINAL;
    bm_h2_wire_goaway(h2);
}

void bm_h2_pong(struct bm_h2 *h2, uint64_t token)
{
    if (h2->ping_busy && h2->ping_sent_ns != UINT64_MAX && token == h2->ping_token) {
        h2->ping_busy = false;
        h2->rtt_ns = h2->now_ns > h2->ping_sent_ns ? h2->now_ns - h2->ping_sent_ns : 1;
        if (h2->handlers->on_pong)
            h2->handlers->on_pong(h2, token, h2->rtt_ns, h2->arg);
    } else if (h2->drain == BM_H2_DRAIN_NOTICE && token == DRAIN_TOKEN) {
        drain_finally(h2);
    }
}

void bm_h2_drain(struct bm_h2 *h2)
{
    if (!bm_h2_usable(h2) || h2->drain != BM_H2_DRAIN_NONE)
        return;
    if (!h2->server) {
        drain_finally(h2);
        return;
    }
    h2->drain = BM_H2_DRAIN_NOTICE;
    h2->drain_ns = h2->now_ns;
    bm_h2_wire_notice(h2);
    bm_h2_wire_ping(h2, DRAIN_TOKEN);
}

bool bm_h2_draining(const struct bm_h2 *h2)
{
    return h2->drain != BM_H2_DRAIN_NONE || h2->goaway;
}

int bm_h2_ping(struct bm_h2 *h2, uint64_t token)
{
    if (!bm_h2_usable(h2))
        return h2->error < 0 ? h2->error : -ENOMEM;
    if (h2->ping_busy)
        return -EBUSY;
    bm_h2_wire_ping(h2, token);
    if (!bm_h2_callable(h2))
        return -ENOMEM;
    h2->ping_busy = true;
    h2->ping_token = token;
    h2->ping_sent_ns = UINT64_MAX;
    return 0;
}

uint64_t bm_h2_ping_since_ns(const struct bm_h2 *h2)
{
    return h2->ping_busy ? h2->ping_sent_ns : UINT64_MAX;
}

uint64_t bm_h2_rtt_ns(const struct bm_h2 *h2)
{
    return h2->rtt_ns;
}

static uint64_t greeting_ns(const struct bm_h2 *h2)
{
    return h2->guard.greeted ? UINT64_MAX : bm_clock_after(h2->start_ns, BM_H2_GREETING_NS);
}

static uint64_t settings_ns(const struct bm_h2 *h2)
{
    return bm_clock_after(h2->settings_sent_ns, BM_H2_SETTINGS_NS);
}

static uint64_t block_ns(const struct bm_h2 *h2)
{
    return bm_clock_after(h2->guard.block_since_ns, BM_H2_BLOCK_NS);
}

static uint64_t drain_ns(const struct bm_h2 *h2)
{
    return h2->drain == BM_H2_DRAIN_NOTICE ? bm_clock_after(h2->drain_ns, BM_H2_DRAIN_NS)
                                           : UINT64_MAX;
}

/* When buffers that nobody needs are given back. */
static uint64_t kept_ns(const struct bm_h2 *h2)
{
    return bm_outbox_is_idle(&h2->out) ? bm_clock_after(h2->out_ns, BM_H2_OUTPUT_KEPT_NS)
                                       : UINT64_MAX;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t bm_h2_next_ns(const struct bm_h2 *h2)
{
    if (!bm_h2_usable(h2))
        return kept_ns(h2);
    uint64_t next_ns = earlier(greeting_ns(h2), settings_ns(h2));
    next_ns = earlier(next_ns, block_ns(h2));
    next_ns = earlier(next_ns, drain_ns(h2));
    return earlier(next_ns, kept_ns(h2));
}

int bm_h2_tick(struct bm_h2 *h2, uint64_t now_ns)
{
    bm_assert(h2->busy == 0);
    h2->now_ns = now_ns;
    if (kept_ns(h2) <= now_ns) {
        bm_outbox_trim(&h2->out);
        bm_h2_memory_trim(&h2->memory);
        if (h2->guard.block_since_ns == UINT64_MAX)
            bm_h2_block_deinit(&h2->block);
    }
    h2->busy++;
    bm_h2_settle(h2);
    if (!bm_h2_usable(h2))
        ; /* nothing is waited for */
    else if (greeting_ns(h2) <= now_ns || settings_ns(h2) <= now_ns)
        bm_h2_end_with(h2, BM_H2_SETTINGS_TIMEOUT, -BEAM_EH2_TIMEOUT);
    else if (block_ns(h2) <= now_ns)
        bm_h2_end_with(h2, BM_H2_ENHANCE_YOUR_CALM, -BEAM_EH2_TIMEOUT);
    else if (drain_ns(h2) <= now_ns)
        drain_finally(h2);
    bm_h2_settle(h2);
    h2->busy--;
    return h2->error;
}

void bm_h2_lost(struct bm_h2 *h2, uint32_t code)
{
    bm_assert(h2->busy == 0);
    h2->busy++;
    bm_h2_finish(h2, code, -ECONNRESET);
    h2->busy--;
}

int bm_h2_over(const struct bm_h2 *h2)
{
    if (h2->error < 0)
        return h2->error;
    if (h2->memory.refused)
        return -ENOMEM;
    return !bm_h2_output_more(h2) && !bm_h2_wire_wants_read(h2);
}

uint32_t bm_h2_code(const struct bm_h2 *h2)
{
    return h2->code;
}

uint32_t bm_h2_streams(const struct bm_h2 *h2)
{
    return h2->open + h2->held;
}

uint64_t bm_h2_stalled_since_ns(const struct bm_h2 *h2)
{
    return h2->out.len > 0 ? h2->out_ns : UINT64_MAX;
}

bool bm_h2_output_more(const struct bm_h2 *h2)
{
    return h2->out.len > 0 || bm_h2_wire_wants_write(h2) || (h2->memory.refused && !h2->broken);
}
