/* Frames over wslay's frame layer; what they mean together is done here.
 *
 * Model: wslay takes apart and puts together single frames, with one buffer of 4 KiB for what comes
 * in. Its event layer is left alone: that one copies every message that goes out, queues a PONG for
 * every PING without end, and allocates by itself. So fragments, control frames, codes and closing
 * are this file's. A frame that comes is shown in pieces as its bytes do; `frame_left` tells where
 * one begins.
 *
 * Invariants:
 *   - what goes out is whole frames, written into room that was there before the first byte;
 *   - control frames in the output are bounded: one close frame, BM_WEBSOCKET_PONGS_MAX PONGs, and
 *     one that
 *     is owed, for the last PING;
 *   - after a close frame of ours nothing goes out; after one of the peer's nothing comes in.
 *
 * wslay's own memory is one block of fixed size, from malloc: wslay_frame_context_init takes no
 * allocator. What it has is charged to the account by hand. */
#include "net/proto/websocket.h"

#include <beam/error.h>

#include <errno.h>
#include <string.h>
#include <wslay/wslay.h>

#include "base/assert.h"
#include "base/clock.h"
#include "net/proto/budget.h"
#include "net/proto/outbox.h"

#define WSLAY_LEN 4272u /* bytes that wslay 1.1.1 takes, with malloc's head: 4 KiB are its buffer */
#define FRAME_HEAD_MAX 14u /* two bytes, eight of a length, four of a mask */
#define CONTROL_MAX 125u   /* RFC 6455 section 5.5 */
/* Output that is there so long after the last call with a time begins to be waited for. */
#define NOTICE_NS BM_NS_PER_S

static const struct bm_budget_limit frames_limit = {BM_WEBSOCKET_FRAMES_BURST,
                                                    BM_WEBSOCKET_FRAMES_RATE};

struct bm_websocket {
    struct bm_account *account;
    const struct bm_websocket_handlers *handlers;
    void *arg;
    wslay_frame_context_ptr frames;
    bool client;
    bool receiving; /* within a call that may call back */
    int error;

    /* What comes in. */
    const uint8_t *in;
    size_t in_len;
    uint64_t frame_left;  /* of the frame under way; 0 between frames */
    uint64_t message_len; /* of its fragments so far, with the frame under way */
    uint64_t message_len_max;
    bool in_message;
    uint8_t control[CONTROL_MAX];
    size_t control_len;
    struct bm_budget frames_budget; /* of frames without content */

    /* What goes out. */
    struct bm_outbox outbox;
    uint8_t *to;    /* where the frame under way is written */
    unsigned pongs; /* in the output, about */
    bool owes_pong;
    uint8_t pong[CONTROL_MAX];
    size_t pong_len;
    uint8_t masks[64]; /* of frames to come: one call for many */
    size_t masks_left;

    bool close_sent, close_received, ended;
    uint64_t close_ns; /* when one of both closed */
    uint64_t now_ns;
    uint64_t stall_ns; /* when output was first seen not to move; 0: not yet */
};

/* ---- what wslay calls ---- */

static ssize_t give_input(uint8_t *buf, size_t len, int flags, void *arg)
{
    struct bm_websocket *websocket = arg;
    size_t n = len < websocket->in_len ? len : websocket->in_len;
    (void)flags;
    if (n == 0)
        return -1;
    memcpy(buf, websocket->in, n);
    websocket->in += n;
    websocket->in_len -= n;
    return (ssize_t)n;
}

static ssize_t take_output(const uint8_t *data, size_t len, int flags, void *arg)
{
    struct bm_websocket *websocket = arg;
    (void)flags;
    memcpy(websocket->to, data, len);
    websocket->to += len;
    return (ssize_t)len;
}

static int make_mask(uint8_t *buf, size_t len, void *arg)
{
    struct bm_websocket *websocket = arg;
    if (websocket->masks_left < len) {
        bm_random(websocket->masks, sizeof(websocket->masks));
        websocket->masks_left = sizeof(websocket->masks);
    }
    websocket->masks_left -= len;
    memcpy(buf, websocket->masks + websocket->masks_left, len);
    return 0;
}

static const struct wslay_frame_callbacks callbacks = {
    .send_callback = take_output,
    .recv_callback = give_input,
    .genmask_callback = make_mask,
};

/* ---- what goes out ---- */

static void put_piece(struct bm_websocket *websocket, struct wslay_frame_iocb *frame)
{
    ssize_t n = wslay_frame_send(websocket->frames, frame);
    bm_assert(n >= 0 && (size_t)n == frame->data_length); /* there was room */
}

/* One frame of all the pieces, or -ENOMEM and nothing. */
static int put_frame(struct bm_websocket *websocket, uint8_t opcode, const struct bm_bytes *pieces,
                     size_t count)
{
    uint64_t len = 0;
    size_t room;
    for (size_t i = 0; i < count; i++)
        len += bm_bytes_left(&pieces[i]);
    if (len > SIZE_MAX - FRAME_HEAD_MAX)
        return -ENOMEM;
    uint8_t *from = bm_outbox_room(&websocket->outbox, (size_t)len + FRAME_HEAD_MAX, 0, &room);
    if (!from)
        return -ENOMEM;
    websocket->to = from;
    struct wslay_frame_iocb frame = {
        .fin = 1, .opcode = opcode, .payload_length = len, .mask = websocket->client};
    if (len == 0)
        put_piece(websocket, &frame);
    for (size_t i = 0; i < count; i++) {
        frame.data = pieces[i].pos;
        frame.data_length = (size_t)bm_bytes_left(&pieces[i]);
        if (frame.data_length > 0) /* after its last byte wslay would begin another frame */
            put_piece(websocket, &frame);
    }
    bm_outbox_commit(&websocket->outbox, (size_t)(websocket->to - from));
    return 0;
}

static int put_control(struct bm_websocket *websocket, uint8_t opcode, const uint8_t *data,
                       size_t len)
{
    struct bm_bytes piece = bm_bytes(data, len);
    return put_frame(websocket, opcode, &piece, 1);
}

static void put_pong(struct bm_websocket *websocket)
{
    if (!websocket->owes_pong || websocket->close_sent ||
        websocket->pongs >= BM_WEBSOCKET_PONGS_MAX)
        return;
    if (put_control(websocket, WSLAY_PONG, websocket->pong, websocket->pong_len) < 0)
        return; /* at the next chance */
    websocket->owes_pong = false;
    websocket->pongs++;
}

static int put_close(struct bm_websocket *websocket, uint16_t code, const char *reason, size_t len)
{
    uint8_t data[CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    if (code == BM_WEBSOCKET_NO_CODE) {
        len = 0;
    } else {
        memcpy(data + 2, reason, len);
        len += 2;
    }
    int r = put_control(websocket, WSLAY_CONNECTION_CLOSE, data, len);
    if (r == 0)
        websocket->close_sent = true;
    return r;
}

/* The connection is over for this reason; the peer is told unless it was told to close before. */
static int fail(struct bm_websocket *websocket, uint16_t code, int error)
{
    if (!websocket->close_sent)
        (void)put_close(websocket, code, "", 0); /* no memory: it is not told */
    websocket->error = error;
    return error;
}

/* ---- what comes in ---- */

static bool is_code(unsigned code)
{
    if (code >= 3000 && code <= 4999)
        return true; /* of libraries and applications */
    return code >= 1000 && code <= 1014 && (code < 1004 || code > 1006);
}

/* Well-formed as in table 3-7 of the Unicode standard: no surrogates, no overlong forms, nothing
 * above U+10FFFF. */
static bool is_utf8(const uint8_t *text, size_t len)
{
    while (len > 0) {
        uint8_t c = *text;
        size_t more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        uint8_t least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
        uint8_t most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        if ((c >= 0x80 && c < 0xc2) || c > 0xf4 || len <= more)
            return false;
        for (size_t i = 1; i <= more; i++) {
            if (text[i] < least || text[i] > most)
                return false;
            least = 0x80;
            most = 0xbf;
        }
        text += more + 1;
        len -= more + 1;
    }
    return true;
}

static int take_close(struct bm_websocket *websocket)
{
    const uint8_t *data = websocket->control;
    size_t len = websocket->control_len;
    uint16_t code = BM_WEBSOCKET_NO_CODE;
    if (len == 1)
        return fail(websocket, BM_WEBSOCKET_PROTOCOL_ERROR, -BEAM_EWEBSOCKET_PROTOCOL);
    if (len > 0) {
        code = (uint16_t)(data[0] << 8 | data[1]);
        if (!is_code(code))
            return fail(websocket, BM_WEBSOCKET_PROTOCOL_ERROR, -BEAM_EWEBSOCKET_PROTOCOL);
        if (!is_utf8(data + 2, len - 2))
            return fail(websocket, BM_WEBSOCKET_BAD_DATA, -BEAM_EWEBSOCKET_DATA);
        len -= 2;
    }
    websocket->close_received = true;
    if (!websocket->close_sent) {
        websocket->close_ns = websocket->now_ns;
        if (put_close(websocket, code, "", 0) < 0)
            return websocket->error = -ENOMEM;
    }
    websocket->handlers->on_close(websocket, code, len > 0 ? (const char *)data + 2 : "", len,
                                  websocket->arg);
    return BM_WEBSOCKET_CLOSED;
}

static int take_control(struct bm_websocket *websocket, const struct wslay_frame_iocb *frame)
{
    if (frame->data_length > 0)
        memcpy(websocket->control + websocket->control_len, frame->data, frame->data_length);
    websocket->control_len += frame->data_length;
    if (websocket->frame_left > 0)
        return 0;
    if (frame->opcode == WSLAY_CONNECTION_CLOSE)
        return take_close(websocket);
    if (frame->opcode == WSLAY_PING) {
        memcpy(websocket->pong, websocket->control, websocket->control_len);
        websocket->pong_len = websocket->control_len;
        websocket->owes_pong = true;
        put_pong(websocket);
    }
    return 0;
}

static int take_data(struct bm_websocket *websocket, const struct wslay_frame_iocb *frame)
{
    bool end = frame->fin && websocket->frame_left == 0;
    if (end)
        websocket->in_message = false;
    if (frame->data_length > 0 || end)
        websocket->handlers->on_data(websocket, frame->data, frame->data_length, end,
                                     websocket->arg);
    return websocket->error;
}

/* The head of a frame, seen with its first bytes. */
static int begin_data(struct bm_websocket *websocket, const struct wslay_frame_iocb *frame)
{
    bool first = frame->opcode != WSLAY_CONTINUATION_FRAME;
    if (first == websocket->in_message)
        return fail(websocket, BM_WEBSOCKET_PROTOCOL_ERROR, -BEAM_EWEBSOCKET_PROTOCOL);
    if (frame->opcode == WSLAY_TEXT_FRAME)
        return fail(websocket, BM_WEBSOCKET_UNSUPPORTED, -BEAM_EWEBSOCKET_DATA);
    if (first)
        websocket->message_len = 0;
    if (frame->payload_length > websocket->message_len_max - websocket->message_len)
        return fail(websocket, BM_WEBSOCKET_TOO_LARGE, -BEAM_EWEBSOCKET_TOO_LARGE);
    websocket->message_len += frame->payload_length;
    websocket->in_message = true;
    return 0;
}

static int begin_frame(struct bm_websocket *websocket, const struct wslay_frame_iocb *frame)
{
    bool control = wslay_is_ctrl_frame(frame->opcode);
    uint8_t last = control ? WSLAY_PONG : WSLAY_BINARY_FRAME;
    if (frame->rsv != 0 || frame->opcode > last || frame->mask == websocket->client)
        return fail(websocket, BM_WEBSOCKET_PROTOCOL_ERROR, -BEAM_EWEBSOCKET_PROTOCOL);
    websocket->frame_left = frame->payload_length;
    websocket->control_len = 0;
    if ((control || frame->payload_length == 0) &&
        !bm_budget_spend(&websocket->frames_budget, &frames_limit, 1, websocket->now_ns))
        return fail(websocket, BM_WEBSOCKET_POLICY, -BEAM_EWEBSOCKET_FLOOD);
    return control ? 0 : begin_data(websocket, frame);
}

/* Some bytes of a frame, or a whole one without any. */
static int take_frame(struct bm_websocket *websocket, const struct wslay_frame_iocb *frame)
{
    if (websocket->frame_left == 0) {
        int r = begin_frame(websocket, frame);
        if (r < 0)
            return r;
    }
    websocket->frame_left -= frame->data_length;
    return wslay_is_ctrl_frame(frame->opcode) ? take_control(websocket, frame)
                                              : take_data(websocket, frame);
}

/* ---- what may be called ---- */

static int frames_new(struct bm_websocket *websocket)
{
    int r = bm_account_charge(websocket->account, WSLAY_LEN);
    if (r == 0 && wslay_frame_context_init(&websocket->frames, &callbacks, websocket) != 0) {
        bm_account_refund(websocket->account, WSLAY_LEN);
        r = -ENOMEM;
    }
    return r;
}

int bm_websocket_new(const struct bm_websocket_options *options,
                     struct bm_websocket **ret_websocket)
{
    struct bm_websocket *websocket = bm_alloc_zero(options->account, sizeof(*websocket));
    if (!websocket)
        return -ENOMEM;
    websocket->account = websocket->outbox.account = options->account;
    websocket->handlers = options->handlers;
    websocket->arg = options->arg;
    websocket->client = options->client;
    websocket->message_len_max =
        options->message_len_max ? options->message_len_max : BM_WEBSOCKET_MESSAGE_MAX;
    websocket->now_ns = options->now_ns;
    int r = frames_new(websocket);
    if (r < 0) {
        bm_free(options->account, websocket, sizeof(*websocket));
        return r;
    }
    *ret_websocket = websocket;
    return 0;
}

struct bm_websocket *bm_websocket_free(struct bm_websocket *websocket)
{
    if (!websocket)
        return NULL;
    bm_assert(!websocket->receiving);
    wslay_frame_context_free(websocket->frames);
    bm_account_refund(websocket->account, WSLAY_LEN);
    bm_outbox_deinit(&websocket->outbox);
    return bm_free(websocket->account, websocket, sizeof(*websocket));
}

int bm_websocket_receive(struct bm_websocket *websocket, const uint8_t *bytes, size_t len,
                         uint64_t now_ns)
{
    int r = websocket->error;
    websocket->now_ns = now_ns;
    websocket->in = bytes;
    websocket->in_len = len;
    websocket->receiving = true;
    while (r == 0 && !websocket->close_received) {
        struct wslay_frame_iocb frame = {0};
        ssize_t n = wslay_frame_recv(websocket->frames, &frame);
        if (n == WSLAY_ERR_WANT_READ)
            break;
        r = n < 0 ? fail(websocket, BM_WEBSOCKET_PROTOCOL_ERROR, -BEAM_EWEBSOCKET_PROTOCOL)
                  : take_frame(websocket, &frame);
    }
    websocket->receiving = false;
    if (r < 0)
        return r;
    return websocket->close_received ? BM_WEBSOCKET_CLOSED : 0;
}

int bm_websocket_receive_end(struct bm_websocket *websocket)
{
    websocket->ended = true;
    if (!websocket->error && !websocket->close_received)
        websocket->error = -BEAM_EWEBSOCKET_CUT;
    return websocket->error;
}

int bm_websocket_send(struct bm_websocket *websocket, const struct bm_bytes *pieces, size_t count)
{
    if (websocket->error || websocket->close_sent || websocket->close_received)
        return -EPIPE;
    if (websocket->outbox.len >= BM_WEBSOCKET_OUTPUT_MAX)
        return -EAGAIN;
    return put_frame(websocket, WSLAY_BINARY_FRAME, pieces, count);
}

int bm_websocket_close(struct bm_websocket *websocket, uint16_t code, const char *reason,
                       uint64_t now_ns)
{
    size_t len = strlen(reason);
    if (websocket->error || websocket->close_sent)
        return -EPIPE;
    if (!is_code(code))
        return -EINVAL;
    int r = put_close(websocket, code, reason, len <= BM_WEBSOCKET_REASON_MAX ? len : 0);
    if (r == 0)
        websocket->close_ns = now_ns;
    return r;
}

const uint8_t *bm_websocket_output(struct bm_websocket *websocket, size_t *ret_len)
{
    put_pong(websocket);
    return bm_outbox_output(&websocket->outbox, ret_len);
}

void bm_websocket_output_ack(struct bm_websocket *websocket, size_t len)
{
    bm_outbox_ack(&websocket->outbox, len);
    if (websocket->outbox.len == 0)
        websocket->pongs = 0;
    if (len > 0)
        websocket->stall_ns = 0;
}

void bm_websocket_trim(struct bm_websocket *websocket)
{
    bm_outbox_trim(&websocket->outbox);
}

static bool is_closing(const struct bm_websocket *websocket)
{
    return websocket->close_sent && !websocket->error;
}

int bm_websocket_over(const struct bm_websocket *websocket)
{
    if (websocket->ended)
        return 1; /* nobody takes what is left */
    if (websocket->outbox.len > 0)
        return 0;
    return websocket->error ||
           (websocket->close_sent && websocket->close_received && !websocket->client);
}

int bm_websocket_tick(struct bm_websocket *websocket, uint64_t now_ns)
{
    websocket->now_ns = now_ns;
    if (websocket->error || websocket->ended)
        return websocket->error;
    if (is_closing(websocket) &&
        now_ns >= bm_clock_after(websocket->close_ns, BM_WEBSOCKET_CLOSE_NS)) {
        if (websocket->close_received && websocket->outbox.len == 0) {
            websocket->ended = true; /* a server that does not close: everything was said */
            return 0;
        }
        return websocket->error = -ETIMEDOUT;
    }
    if (websocket->outbox.len == 0)
        websocket->stall_ns = 0;
    else if (websocket->stall_ns == 0)
        websocket->stall_ns = now_ns;
    else if (now_ns - websocket->stall_ns >= BM_WEBSOCKET_STALL_NS)
        return fail(websocket, BM_WEBSOCKET_POLICY, -ETIMEDOUT);
    return 0;
}

uint64_t bm_websocket_next_ns(const struct bm_websocket *websocket)
{
    uint64_t closing = UINT64_MAX, stalled = UINT64_MAX;
    if (websocket->error || websocket->ended)
        return UINT64_MAX;
    if (is_closing(websocket))
        closing = bm_clock_after(websocket->close_ns, BM_WEBSOCKET_CLOSE_NS);
    if (websocket->outbox.len > 0)
        stalled = websocket->stall_ns ? bm_clock_after(websocket->stall_ns, BM_WEBSOCKET_STALL_NS)
                                      : bm_clock_after(websocket->now_ns, NOTICE_NS);
    return closing < stalled ? closing : stalled;
}
