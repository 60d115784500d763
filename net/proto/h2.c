/* An HTTP/2 connection over nghttp2: what is said to it, and what it says. Nobody else knows its
 * types.
 *
 * nghttp2 keeps the protocol: frames, HPACK, windows, states, what a message may look like. What
 * stands around it is what it leaves to others or does not know: whose turn it is to speak, bounded
 * output, the difference between an end and a loss, places for streams whose handler still runs,
 * and everything that a peer may do too often.
 *
 * Model. Bytes of the peer pass the guard (h2_guard.c) and then nghttp2. Behind them the control
 * frames that they caused are pulled into the output, and with them what nghttp2 thinks of the
 * peer; where the output is full they wait, and are bounded: answers to PING and SETTINGS by
 * BM_H2_ACKS_MAX, resets by the number of streams, windows by one each. Bodies are pulled by
 * bm_h2_output alone.
 *
 * Invariants: h2_inner.h. Our callbacks for nghttp2 fail in one way: they say whom to blame in
 * `condemned`, or memory was refused, and return the error that ends its work. on_stream_close
 * never fails (CVE-2023-35945).
 *
 * A WINDOW_UPDATE of 0 for a stream ends the connection: nghttp2 1.52 says so before any callback
 * is asked, where section 6.9 has an error of the stream, and section 5.4.1 allows more.
 *
 * Trailers are read past and never sent. Priorities of peers are ignored: streams take turns. */
#include "net/proto/h2.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "net/proto/h2_fields.h"
#include "net/proto/h2_inner.h"

static const struct bm_budget_limit fields_limit = {BM_H2_FIELDS_PER_S / 8, BM_H2_FIELDS_PER_S};

/* What a callback says that has had others do things: nghttp2 must not go on without memory. */
static int go_on(const struct bm_h2 *h2, int r)
{
    return h2->memory.refused ? NGHTTP2_ERR_CALLBACK_FAILURE : r;
}

static struct bm_h2_stream *find(const struct bm_h2 *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

static void break_off_for(struct bm_h2 *h2, int r)
{
    switch (r) {
    case NGHTTP2_ERR_NOMEM:
        bm_h2_break_off(h2, BM_H2_INTERNAL_ERROR, -ENOMEM);
        break;
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
        bm_h2_break_off(h2, BM_H2_PROTOCOL_ERROR, -BEAM_EH2_PREFACE);
        break;
    case NGHTTP2_ERR_FLOODED:
        bm_h2_break_off(h2, BM_H2_ENHANCE_YOUR_CALM, -BEAM_EH2_FLOOD);
        break;
    case NGHTTP2_ERR_CALLBACK_FAILURE: /* of go_on or condemn */
        bm_h2_settle(h2);
        bm_h2_break_off(h2, h2->condemned, bm_h2_error_of(h2->condemned));
        break;
    default:
        bm_h2_break_off(h2, BM_H2_PROTOCOL_ERROR, -BEAM_EH2_PROTOCOL);
        break;
    }
}

static int condemn(struct bm_h2 *h2, uint32_t code)
{
    h2->condemned = code;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* Something of ours that the peer's fault was. */
static int charge(struct bm_h2 *h2, enum bm_h2_budget budget)
{
    return bm_h2_guard_charge(&h2->guard, budget, h2->now_ns)
               ? 0
               : condemn(h2, BM_H2_ENHANCE_YOUR_CALM);
}

/* What nghttp2 tells of what came */

static int refuse(struct bm_h2 *h2, int32_t id)
{
    bm_h2_wire_reset(h2, id, BM_H2_REFUSED_STREAM);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int begin_request(struct bm_h2 *h2, int32_t id)
{
    if (++h2->streams_total >= h2->streams_total_max || (uint32_t)id / 2 >= BM_H2_STREAMS_TOTAL_MAX)
        bm_h2_drain(h2);
    if (h2->open + h2->held >= h2->streams_max)
        return refuse(h2, id);
    struct bm_h2_stream *stream = bm_h2_stream_new(h2, NULL);
    if (!stream)
        return refuse(h2, id);
    stream->id = id;
    bm_h2_stream_link(stream);
    nghttp2_session_set_stream_user_data(h2->session, id, stream);
    /* Else the oldest stream would be served until it has nothing more to say. */
    static const nghttp2_extpri in_turn = {.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1};
    nghttp2_session_change_extpri_stream_priority(h2->session, id, &in_turn, 1);
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct bm_h2 *h2 = user;
    bm_h2_block_clear(&h2->block);
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        return go_on(h2, begin_request(h2, frame->hd.stream_id));
    return 0;
}

static beam_str text_of(nghttp2_rcbuf *buf)
{
    nghttp2_vec vec = nghttp2_rcbuf_get_buf(buf);
    return (beam_str){(const char *)vec.base, vec.len};
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *user)
{
    struct bm_h2 *h2 = user;
    beam_str name_text = text_of(name), value_text = text_of(value);
    if (!bm_budget_spend(&h2->fields_budget, &fields_limit,
                         (uint32_t)(name_text.len + value_text.len), h2->now_ns))
        return condemn(h2, BM_H2_ENHANCE_YOUR_CALM);
    int r =
        bm_h2_block_add(&h2->block, name_text, value_text, (flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0);
    if (r == -EMSGSIZE)
        return condemn(h2, BM_H2_ENHANCE_YOUR_CALM);
    h2->memory.refused |= r == -ENOMEM; /* as if it had been nghttp2's own */
    return go_on(h2, 0);
}

/* A regular field that nghttp2 would leave out without a word: two readers of one request must not
 * see two. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
                             nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags, void *user)
{
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* 431, which no handler hears of. */
static int answer_too_large(struct bm_h2_stream *stream)
{
    struct bm_h2 *h2 = stream->h2;
    bm_h2_stream_stop(stream);
    bm_h2_respond(stream, 431, NULL, 0, NULL);
    return charge(h2, BM_H2_BUDGET_RESET);
}

static int request_came(struct bm_h2_stream *stream)
{
    struct bm_h2 *h2 = stream->h2;
    struct bm_h2_request request;
    if (bm_h2_block_too_large(&h2->block))
        return answer_too_large(stream);
    if (!bm_h2_block_request(&h2->block, &request)) {
        bm_h2_wire_reset(h2, stream->id, BM_H2_PROTOCOL_ERROR);
        return 0;
    }
    stream->shown = true;
    if (h2->handlers->on_request)
        h2->handlers->on_request(stream, &request, h2->arg);
    else
        bm_h2_stream_reset(stream, BM_H2_REFUSED_STREAM);
    return 0;
}

static int response_came(struct bm_h2_stream *stream)
{
    struct bm_h2 *h2 = stream->h2;
    int status = bm_h2_block_status(&h2->block);
    if (bm_h2_block_too_large(&h2->block)) {
        bm_h2_stream_reset(stream, BM_H2_ENHANCE_YOUR_CALM);
    } else if (status >= 0 && status < 100) { /* which nghttp2 lets pass */
        bm_h2_stream_reset(stream, BM_H2_PROTOCOL_ERROR);
    } else if (status >= 100) {
        if (status < 200 && charge(h2, BM_H2_BUDGET_OTHER) != 0)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        if (h2->handlers->on_response)
            h2->handlers->on_response(stream, (unsigned)status, h2->block.fields, h2->block.count,
                                      h2->arg);
    }
    return 0;
}

static int headers_came(struct bm_h2 *h2, const nghttp2_frame *frame)
{
    struct bm_h2_stream *stream = find(h2, frame->hd.stream_id);
    int r = 0;
    if (stream) { /* and not reset: then nghttp2 does not tell */
        if (!h2->server)
            r = response_came(stream);
        else if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            r = request_came(stream);
        if (r == 0 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
            bm_h2_stream_end_in(stream);
    }
    bm_h2_block_clear(&h2->block);
    return r;
}

static uint64_t token_of(const nghttp2_ping *ping)
{
    return bm_get_u64(ping->opaque_data);
}

static int frame_came(struct bm_h2 *h2, const nghttp2_frame *frame)
{
    struct bm_h2_stream *stream;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        return headers_came(h2, frame);
    case NGHTTP2_DATA:
        stream = find(h2, frame->hd.stream_id);
        if (stream && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
            bm_h2_stream_end_in(stream);
        return 0;
    case NGHTTP2_SETTINGS:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
            h2->settings_acked = true;
            h2->settings_sent_ns = UINT64_MAX;
        } else if (h2->handlers->on_settings) {
            h2->handlers->on_settings(h2, h2->arg);
        }
        return 0;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            bm_h2_pong(h2, token_of(&frame->ping));
        return 0;
    case NGHTTP2_GOAWAY:
        h2->goaway = true;
        if (h2->handlers->on_goaway)
            h2->handlers->on_goaway(h2, frame->goaway.error_code, h2->arg);
        return 0;
    default:
        return 0;
    }
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    return go_on(user, frame_came(user, frame));
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes,
                         size_t len, void *user)
{
    struct bm_h2 *h2 = user;
    struct bm_h2_stream *stream = find(h2, id);
    if (!stream || !stream->shown || stream->reset || !h2->handlers->on_data) {
        nghttp2_session_consume(session, id, len);
        return go_on(h2, 0);
    }
    stream->unconsumed += (uint32_t)len; /* within the window, which is below 2^31 */
    h2->handlers->on_data(stream, bytes, len, h2->arg);
    return go_on(h2, 0);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    struct bm_h2_stream *stream = find(user, id);
    if (stream)
        bm_h2_stream_close(stream, code);
    return 0;
}

static void stream_sent(struct bm_h2 *h2, const nghttp2_frame *frame)
{
    struct bm_h2_stream *stream = find(h2, frame->hd.stream_id);
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->hd.type == NGHTTP2_DATA)
        bm_h2_guard_sent(&h2->guard, frame->hd.length, end);
    if (!stream)
        return;
    stream->progress_ns = h2->now_ns;
    if (!stream->sent) {
        stream->sent = true;
        if (stream->window > 0)
            bm_h2_stream_window(stream, stream->window);
    }
    if (end)
        bm_h2_stream_end_out(stream);
}

static int frame_sent(struct bm_h2 *h2, const nghttp2_frame *frame)
{
    struct bm_h2_stream *stream;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
        stream_sent(h2, frame);
        return 0;
    case NGHTTP2_RST_STREAM:
        /* nghttp2's, or a refusal; what a handler resets is its own business, and it keeps its
         * place. */
        stream = find(h2, frame->hd.stream_id);
        return h2->server && !(stream && stream->reset) ? charge(h2, BM_H2_BUDGET_RESET) : 0;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK) && !h2->settings_acked)
            h2->settings_sent_ns = h2->now_ns;
        h2->settings_out = true;
        return 0;
    case NGHTTP2_PING:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK) && h2->ping_busy &&
            token_of(&frame->ping) == h2->ping_token)
            h2->ping_sent_ns = h2->now_ns;
        return 0;
    case NGHTTP2_GOAWAY:
        h2->code = frame->goaway.error_code;
        h2->verdict |= h2->code != NGHTTP2_NO_ERROR;
        return 0;
    default:
        return 0;
    }
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    return go_on(user, frame_sent(user, frame));
}

/* Into the output itself, behind the place of the head that send_data puts there next. */
static ssize_t read_source(nghttp2_session *session, int32_t id, uint8_t *buf, size_t cap,
                           uint32_t *flags, nghttp2_data_source *data, void *user)
{
    struct bm_h2 *h2 = user;
    struct bm_h2_stream *stream = find(h2, id);
    bool end = false;
    if (!stream)
        return NGHTTP2_ERR_DEFERRED;
    if (cap > BM_H2_CHUNK_LEN_MAX - BM_H2_HEAD_LEN)
        cap = BM_H2_CHUNK_LEN_MAX - BM_H2_HEAD_LEN;
    uint8_t *to = bm_h2_out_room(h2, BM_H2_HEAD_LEN + cap, true);
    h2->memory.refused |= !to; /* as if it had been nghttp2's own */
    ssize_t n = to ? bm_h2_stream_read(stream, to + BM_H2_HEAD_LEN, cap, &end) : -ENOMEM;
    if (h2->memory.refused)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (n < 0)
        return n == -EAGAIN ? NGHTTP2_ERR_DEFERRED : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    h2->data = to;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY | (end ? NGHTTP2_DATA_FLAG_EOF : 0);
    return n;
}

static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                     size_t len, nghttp2_data_source *data, void *user)
{
    struct bm_h2 *h2 = user;
    bm_assert(h2->data && frame->data.padlen == 0);
    memcpy(h2->data, head, BM_H2_HEAD_LEN);
    bm_h2_out_commit(h2, BM_H2_HEAD_LEN + len);
    h2->data = NULL;
    h2->data_put = true;
    return NGHTTP2_ERR_PAUSE; /* pull_some looks at the room that is left */
}

uint8_t *bm_h2_out_room(struct bm_h2 *h2, size_t len, bool all)
{
    size_t room;
    size_t want = all ? BM_H2_OUTPUT_LEN - h2->out.len : 0;
    return bm_outbox_room(&h2->out, len + BM_H2_LAST_LEN, want + BM_H2_LAST_LEN, &room);
}

void bm_h2_out_commit(struct bm_h2 *h2, size_t len)
{
    if (h2->out.len == 0)
        h2->out_ns = h2->now_ns;
    bm_outbox_commit(&h2->out, len);
}

/* Where there are streams there may be bodies, and room for them in one piece. */
static int pull_some(struct bm_h2 *h2, bool control)
{
    while (h2->out.len + BM_H2_CHUNK_LEN_MAX <= BM_H2_OUTPUT_LEN) {
        if (control && nghttp2_session_get_outbound_queue_size(h2->session) == 0)
            return 0;
        if (!control && h2->open > 0 && !bm_h2_out_room(h2, BM_H2_CHUNK_LEN_MAX, true))
            return NGHTTP2_ERR_NOMEM;
        const uint8_t *chunk;
        h2->data_put = false;
        ssize_t len = nghttp2_session_mem_send(h2->session, &chunk);
        if (len == 0 && h2->data_put)
            continue;
        if (len <= 0)
            return (int)len;
        uint8_t *to = bm_h2_out_room(h2, (size_t)len, false);
        h2->torn = !to; /* nghttp2 does not give it again */
        if (!to)
            return NGHTTP2_ERR_NOMEM;
        memcpy(to, chunk, (size_t)len);
        bm_h2_out_commit(h2, (size_t)len);
    }
    return 0;
}

void bm_h2_pull(struct bm_h2 *h2, bool control)
{
    bm_h2_settle(h2);
    if (h2->again && !control)
        bm_h2_streams_resume(h2);
    if (!bm_h2_wire_wants_write(h2))
        return;
    int r = pull_some(h2, control);
    if (r < 0)
        break_off_for(h2, r);
    else if (h2->verdict)
        bm_h2_finish(h2, h2->code, bm_h2_error_of(h2->code));
}

const uint8_t *bm_h2_output(struct bm_h2 *h2, size_t *ret_len)
{
    if (h2->busy == 0) {
        h2->busy++;
        bm_h2_pull(h2, false);
        h2->busy--;
    }
    return bm_outbox_output(&h2->out, ret_len);
}

size_t bm_h2_output_len(const struct bm_h2 *h2)
{
    return h2->out.len;
}

void bm_h2_output_ack(struct bm_h2 *h2, size_t len, uint64_t now_ns)
{
    bm_assert(!h2->sourcing); /* it writes behind what this would take away */
    h2->now_ns = now_ns;
    if (len > 0)
        h2->out_ns = now_ns;
    bm_outbox_ack(&h2->out, len);
}

/* Input */

static void receive(struct bm_h2 *h2, const void *bytes, size_t len)
{
    size_t fine;
    uint32_t code = bm_h2_guard_read(&h2->guard, bytes, len, h2->now_ns, &fine);
    ssize_t r = fine > 0 ? nghttp2_session_mem_recv(h2->session, bytes, fine) : 0;
    if (r < 0) {
        break_off_for(h2, (int)r);
        return;
    }
    bm_h2_pull(h2, true);
    if (code != BM_H2_NO_ERROR)
        bm_h2_end_with(h2, code, bm_h2_error_of(code));
}

int bm_h2_receive(struct bm_h2 *h2, const void *bytes, size_t len, uint64_t now_ns)
{
    bm_assert(h2->busy == 0);
    h2->now_ns = now_ns;
    h2->busy++;
    bm_h2_settle(h2);
    if (bm_h2_usable(h2))
        receive(h2, bytes, len);
    bm_h2_settle(h2);
    h2->busy--;
    return h2->error;
}

/* The connection */

/* What nghttp2 is told its callbacks and options in is the C library's memory, and gone when this
 * returns. */
static int session_new(struct bm_h2 *h2)
{
    nghttp2_mem mem = {&h2->memory, bm_h2_memory_alloc, bm_h2_memory_free, bm_h2_memory_calloc,
                       bm_h2_memory_realloc};
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int r = nghttp2_session_callbacks_new(&callbacks);
    if (r == 0)
        r = nghttp2_option_new(&option);
    if (r == 0) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
        nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
        nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_max_outbound_ack(option, BM_H2_ACKS_MAX);
#ifdef BEAM_HAVE_NGHTTP2_CONTINUATIONS
        /* It counts the pieces in which the heads of these frames arrive; the guard counts
         * frames. */
        nghttp2_option_set_max_continuations(option, BM_H2_CONTINUATIONS_MAX * BM_H2_HEAD_LEN + 1);
#endif
        r = h2->server ? nghttp2_session_server_new3(&h2->session, callbacks, h2, option, &mem)
                       : nghttp2_session_client_new3(&h2->session, callbacks, h2, option, &mem);
    }
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return r;
}

static int greet(struct bm_h2 *h2)
{
    const nghttp2_settings_entry server[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h2->streams_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, BM_H2_WINDOW},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, BM_H2_HEADER_TABLE_LEN},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, BM_H2_FIELDS_LEN_MAX},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    /* Not the last: a client's streams take turns only in the tree of RFC 7540, as nghttp2 has
     * it. */
    const nghttp2_settings_entry client[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, BM_H2_WINDOW},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, BM_H2_HEADER_TABLE_LEN},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, BM_H2_FIELDS_LEN_MAX},
    };
    int r =
        h2->server
            ? nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, server, BM_ARRAY_LEN(server))
            : nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, client, BM_ARRAY_LEN(client));
    if (r == 0)
        r = nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
                                                  BM_H2_WINDOW_CONNECTION);
    return r;
}

static void freep(struct bm_h2 **h2)
{
    bm_h2_free(*h2);
}

int bm_h2_new(struct bm_account *account, const struct bm_h2_options *options,
              struct bm_h2 **ret_h2)
{
    BM_CLEANUP(freep) struct bm_h2 *h2 = bm_alloc_zero(account, sizeof(*h2));
    if (!h2)
        return -ENOMEM;
    h2->account = account;
    h2->handlers = options->handlers;
    h2->arg = options->arg;
    h2->server = options->server;
    h2->now_ns = h2->start_ns = options->now_ns;
    h2->out = (struct bm_outbox){.account = account, .kept_max = BM_H2_OUTPUT_LEN + BM_H2_LAST_LEN};
    h2->out_ns = options->now_ns;
    h2->settings_sent_ns = h2->ping_sent_ns = UINT64_MAX;
    h2->streams_max = options->streams_max ? options->streams_max : BM_H2_STREAMS_MAX;
    h2->streams_total_max =
        options->streams_total_max ? options->streams_total_max : BM_H2_STREAMS_TOTAL_MAX;
    bm_assert(h2->streams_max <= BM_H2_STREAMS_MAX);
    bm_assert(h2->streams_total_max <= BM_H2_STREAMS_TOTAL_MAX);
    bm_h2_memory_init(&h2->memory, account);
    bm_h2_block_init(&h2->block, account);
    bm_list_init(&h2->streams);
    bm_h2_guard_init(&h2->guard, h2->server);
    if (session_new(h2) != 0 || greet(h2) != 0)
        return -ENOMEM;
    *ret_h2 = bm_take_ptr(h2);
    return 0;
}

struct bm_h2 *bm_h2_free(struct bm_h2 *h2)
{
    if (!h2)
        return NULL;
    bm_assert(h2->busy == 0 && h2->held == 0);
    for (struct bm_list *node; (node = bm_list_pop_front(&h2->streams)) != NULL;) {
        struct bm_h2_stream *stream = bm_list_entry(node, struct bm_h2_stream, node);
        bm_assert(stream->holds == 0);
        bm_h2_stream_free(stream);
    }
    /* nghttp2's session too: it has nothing but memory. */
    bm_h2_memory_free_all(&h2->memory);
    bm_h2_block_deinit(&h2->block);
    bm_outbox_deinit(&h2->out);
    return bm_free(h2->account, h2, sizeof(*h2));
}

uint32_t bm_h2_room(const struct bm_h2 *h2)
{
    if (!bm_h2_usable(h2) || h2->server || bm_h2_draining(h2))
        return 0;
    uint32_t most =
        nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (most > h2->streams_max)
        most = h2->streams_max;
    return most > h2->open ? most - h2->open : 0;
}

bool bm_h2_connect_protocol(const struct bm_h2 *h2)
{
    return bm_h2_usable(h2) && nghttp2_session_get_remote_settings(
                                   h2->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

/* In nghttp2's form. It copies names and values; its type is for those who want that it does
 * not. */
static size_t to_nv(nghttp2_nv *nv, const struct bm_h2_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        nv[i] = (nghttp2_nv){
            .name = (uint8_t *)(uintptr_t)list->fields[i].name,
            .namelen = list->fields[i].name_len,
            .value = (uint8_t *)(uintptr_t)list->fields[i].value,
            .valuelen = list->fields[i].value_len,
            .flags = list->fields[i].secret ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE,
        };
    return list->count;
}

int bm_h2_request(struct bm_h2 *h2, const struct bm_h2_request *request, bm_h2_source *source,
                  void *arg, struct bm_h2_stream **ret_stream)
{
    struct bm_h2_list list;
    nghttp2_nv nv[BM_ARRAY_LEN(list.fields)];
    const nghttp2_data_provider provider = {.read_callback = read_source};
    int r = h2->server ? -EINVAL : bm_h2_list_request(&list, request);
    if (r < 0)
        return r;
    if (!bm_h2_usable(h2) || bm_h2_draining(h2))
        return -ESHUTDOWN;
    if (request->protocol.len > 0 && !bm_h2_connect_protocol(h2))
        return -ENOTSUP;
    if (bm_h2_room(h2) == 0)
        return -EAGAIN;
    struct bm_h2_stream *stream = bm_h2_stream_new(h2, arg);
    if (!stream)
        return -ENOMEM;
    stream->source = source;
    stream->id = nghttp2_submit_request(h2->session, NULL, nv, to_nv(nv, &list),
                                        source ? &provider : NULL, stream);
    if (stream->id < 0) {
        bm_h2_stream_free(stream);
        return bm_h2_callable(h2) ? -ESHUTDOWN : -ENOMEM;
    }
    stream->shown = true;
    bm_h2_stream_link(stream);
    if (++h2->streams_total >= h2->streams_total_max)
        bm_h2_drain(h2);
    *ret_stream = stream;
    return 0;
}

static int may_answer(const struct bm_h2_stream *stream)
{
    if (!stream->h2->server)
        return -EINVAL;
    if (stream->closed || stream->reset || !bm_h2_usable(stream->h2))
        return -EPIPE;
    return stream->answered ? -EALREADY : 0;
}

int bm_h2_respond(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                  size_t count, bm_h2_source *source)
{
    struct bm_h2_list list;
    nghttp2_nv nv[BM_ARRAY_LEN(list.fields)];
    const nghttp2_data_provider provider = {.read_callback = read_source};
    int r = may_answer(stream);
    if (r == 0)
        r = status < 200 || status > 999 ? -EINVAL
                                         : bm_h2_list_response(&list, status, fields, count);
    if (r < 0)
        return r;
    r = nghttp2_submit_response(stream->h2->session, stream->id, nv, to_nv(nv, &list),
                                source ? &provider : NULL);
    if (r != 0)
        return bm_h2_callable(stream->h2) ? -EPIPE : -ENOMEM;
    stream->answered = true;
    stream->source = source;
    stream->progress_ns = stream->h2->now_ns;
    return 0;
}

int bm_h2_inform(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                 size_t count)
{
    struct bm_h2_list list;
    nghttp2_nv nv[BM_ARRAY_LEN(list.fields)];
    int r = may_answer(stream);
    if (r == 0)
        r = status < 100 || status > 199 || status == 101
                ? -EINVAL
                : bm_h2_list_response(&list, status, fields, count);
    if (r < 0)
        return r;
    r = nghttp2_submit_headers(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, nv,
                               to_nv(nv, &list), NULL);
    if (r != 0)
        return bm_h2_callable(stream->h2) ? -EPIPE : -ENOMEM;
    return 0;
}

/* For the other files. What nghttp2 returns is not looked at: these calls fail where memory is
 * missing, which is seen elsewhere, or for a stream that it has closed already. */

void bm_h2_wire_consume(struct bm_h2 *h2, int32_t id, size_t len)
{
    if (bm_h2_callable(h2) && len > 0)
        nghttp2_session_consume(h2->session, id, len); /* of a closed stream: for the connection */
}

void bm_h2_wire_raise(struct bm_h2 *h2, int32_t id, uint32_t window)
{
    if (bm_h2_callable(h2) &&
        (int32_t)window > nghttp2_session_get_stream_effective_local_window_size(h2->session, id))
        nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, id, (int32_t)window);
}

void bm_h2_wire_reset(struct bm_h2 *h2, int32_t id, uint32_t code)
{
    if (bm_h2_callable(h2))
        nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, id, code);
}

void bm_h2_wire_resume(struct bm_h2 *h2, int32_t id)
{
    if (bm_h2_callable(h2))
        nghttp2_session_resume_data(h2->session, id);
}

void bm_h2_wire_forget(struct bm_h2 *h2, int32_t id)
{
    if (bm_h2_callable(h2))
        nghttp2_session_set_stream_user_data(h2->session, id, NULL);
}

void bm_h2_wire_ping(struct bm_h2 *h2, uint64_t token)
{
    uint8_t bytes[8];
    bm_put_u64(bytes, token);
    if (bm_h2_callable(h2))
        nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, bytes);
}

void bm_h2_wire_notice(struct bm_h2 *h2)
{
    if (bm_h2_callable(h2))
        nghttp2_submit_shutdown_notice(h2->session);
}

void bm_h2_wire_goaway(struct bm_h2 *h2)
{
    if (bm_h2_callable(h2))
        nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(h2->session),
                              NGHTTP2_NO_ERROR, NULL, 0);
}

void bm_h2_wire_terminate(struct bm_h2 *h2, uint32_t code)
{
    if (bm_h2_callable(h2))
        nghttp2_session_terminate_session(h2->session, code);
}

uint32_t bm_h2_wire_last_id(const struct bm_h2 *h2)
{
    return (uint32_t)nghttp2_session_get_last_proc_stream_id(h2->session);
}

bool bm_h2_wire_wants_read(const struct bm_h2 *h2)
{
    return bm_h2_callable(h2) && nghttp2_session_want_read(h2->session);
}

bool bm_h2_wire_wants_write(const struct bm_h2 *h2)
{
    return bm_h2_callable(h2) && (h2->again || nghttp2_session_want_write(h2->session));
}
