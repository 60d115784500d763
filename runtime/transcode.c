/* See transcode.h.
 *
 * The way in. A body in the service's codec passes as it is. Any other becomes the body of a message
 * that takes the place of the one that came, with its metadata, its attachments, and what it owes to
 * its sender (bm_message_keep_with). Further messages pass through the handlers below, which stand in
 * for those of the application; so nobody else has to ask whether there is anything to convert.
 *
 * The way out. The new body is made first, where it may fail, and takes the old one's place when
 * nothing can fail any more: a message that is refused is its sender's as it was.
 *
 * Memory. A body is made in a block of the core's pool, which becomes the message's; while things are
 * steady only a document on the way between two other codecs is allocated, on the session's account and
 * within its limit for large messages. What a body grows by beyond one frame is charged to the session's
 * budget for those, as if it had come like that. Behind a hop that is the budget of the session between the
 * two cores, in which all callers from over there share, so it is that of several.
 *
 * Invariants: on every path a message is delivered or given back once; a refusal ends the channel with
 * its reason; a body that is passed on was not read. */
#include "runtime/transcode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kv/convert.h"
#include "runtime/codec.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "runtime/service.h"
#include "runtime/session.h"

#define BLOCK_LEN_MIN 256u   /* ours: most bodies become no longer */
#define BLOCK_LEN_MAX 65536u /* the pool's longest; beyond it a buffer grows by itself */
#define CALLERS_BEHIND_HOP 8 /* ours: whose budgets all callers of one hop have together */
#define DETAILS_LEN_MAX 4096 /* BM_CODECS_MAX names of BM_CODEC_NAME_LEN_MAX, and the rest */

enum { HTTP_NOT_ACCEPTABLE = 406, HTTP_UNSUPPORTED_MEDIA_TYPE = 415 }; /* RFC 9110 */

/* Why a message does not get to where it should, for its sender. */
struct refusal {
    enum beam_code code;
    int http;      /* 0: it is no matter of codecs */
    int error;     /* of the body; 0: it was not looked at */
    size_t offset; /* ... in it; SIZE_MAX: no single byte */
    char text[256];
};

static const struct bm_codecs *codecs_of(const beam_channel *channel)
{
    return &channel->core->runtime->codecs;
}

/* --- converting ------------------------------------------------------------------------------ */

/* Makes what a buffer holds a block that the pool takes back: one of its classes, or one beyond
 * them. */
static int to_body(beam_buffer *buffer, struct bm_body *ret)
{
    size_t cap = buffer->len <= BLOCK_LEN_MAX ? bm_pool_cap(buffer->len) : buffer->len;
    bool is_class = buffer->cap <= BLOCK_LEN_MAX && buffer->cap == bm_pool_cap(buffer->cap);
    if (!is_class && buffer->cap != cap) {
        void *block = bm_realloc(NULL, buffer->ptr, buffer->cap, cap);
        if (!block)
            return -ENOMEM;
        buffer->ptr = block;
        buffer->cap = cap;
    }
    *ret = (struct bm_body){
        .block = buffer->ptr, .cap = (uint32_t)buffer->cap, .len = (uint32_t)buffer->len};
    return 0;
}

static size_t large_len_max(const beam_session *session)
{
    return (size_t)session->limits.large_len_max * (session->inner ? CALLERS_BEHIND_HOP : 1);
}

/* What it takes is on the account of the channel's session, while it lasts: one at a time on each core.
 * *ret_offset is written only if a byte of `in` is at fault. */
static int convert(beam_channel *channel, const struct beam_codec *from,
                   const struct beam_codec *to, const void *in, size_t len, size_t len_max,
                   struct bm_body *ret, size_t *ret_offset)
{
    struct bm_pool *pool = &channel->core->pool;
    beam_session *session = channel->session;
    const struct bm_convert_way way = {
        .account = session ? &session->account : bm_reactor_account(channel->core->reactor),
        .len_max = channel->core->runtime->limits.large_len_max,
    };
    size_t want = 2 * len < BLOCK_LEN_MIN ? BLOCK_LEN_MIN : 2 * len;
    uint32_t cap;
    uint8_t *block = bm_pool_get(pool, want < BLOCK_LEN_MAX ? want : BLOCK_LEN_MAX, &cap);
    if (!block)
        return -ENOMEM;
    beam_buffer buffer;
    beam_buffer_init(&buffer, len_max < cap ? cap : len_max);
    buffer.ptr = block;
    buffer.cap = cap;
    int r = bm_convert(from, to, in, len, &BEAM_CONVERT_LIMITS(.output_len_max = len_max), &way,
                       &buffer, ret_offset);
    if (r >= 0 && buffer.len > len_max)
        r = -BEAM_ECODEC_TOO_LARGE;
    if (r >= 0)
        r = to_body(&buffer, ret);
    if (r >= 0)
        return 0;
    if (buffer.ptr == block && buffer.cap == cap)
        bm_pool_put(pool, block, cap);
    else
        beam_buffer_deinit(&buffer);
    return r;
}

/* What is left of a limit for a message beside its metadata; never 0, which would mean the default. */
static size_t body_len_max(uint32_t message_len_max, const beam_message *message)
{
    return message_len_max > message->metadata_len ? message_len_max - message->metadata_len : 1;
}

/* --- refusing -------------------------------------------------------------------------------- */

static bool is_of_size(int error)
{
    return error == -BEAM_ECODEC_TOO_LARGE || error == -BEAM_EKV_TOO_LARGE;
}

/* {"codecs": [...], "error": ..., "http": ..., "offset": ...}; its length. */
static size_t write_details(const beam_channel *channel, const struct refusal *refusal, void *out)
{
    const struct beam_codec *own = channel->service->codec;
    const struct bm_codecs *codecs = codecs_of(channel);
    beam_kv_writer writer;
    const void *document;
    size_t len;
    beam_kv_writer_init(&writer, out, DETAILS_LEN_MAX);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_begin_list(&writer, "codecs");
    beam_kv_put_str(&writer, NULL, own->name);
    for (unsigned i = 0; i < codecs->count; i++) {
        const struct beam_codec *other = codecs->known[i];
        if (other != own && bm_codec_converts(other, own) && bm_codec_converts(own, other))
            beam_kv_put_str(&writer, NULL, other->name);
    }
    beam_kv_end(&writer);
    if (refusal->error < 0)
        beam_kv_put_str(&writer, "error", beam_error_name(refusal->error));
    beam_kv_put_int(&writer, "http", refusal->http);
    if (refusal->offset != SIZE_MAX)
        beam_kv_put_uint(&writer, "offset", refusal->offset);
    beam_kv_end(&writer);
    return beam_kv_writer_finish(&writer, &document, &len) < 0 ? 0 : len;
}

/* The channel ends with it. A request that has reached its handler hears of it as of a cancel; one that
 * has not is nobody's here. */
static void refuse(beam_channel *channel, const struct refusal *refusal, bool first)
{
    _Alignas(8) uint8_t details[DETAILS_LEN_MAX];
    size_t len = refusal->http ? write_details(channel, refusal, details) : 0;
    const void *explained = len > 0 ? details : NULL;
    if (first && channel->kind == BM_CHANNEL_REQUEST) {
        bm_channel_ref(channel); /* the application's, which ending it gives back */
        beam_fail_with(bm_channel_request(channel), refusal->code, explained, len, "%s",
                       refusal->text);
        return;
    }
    bm_channel_abort_with(channel, refusal->code, refusal->text, explained, len);
    if (!first)
        bm_channel_end_later(channel, refusal->code, refusal->text);
}

/* --- the way in ------------------------------------------------------------------------------ */

static void refuse_codec(const beam_channel *channel, uint32_t number,
                         const struct beam_codec *from, struct refusal *ret)
{
    *ret = (struct refusal){BEAM_INVALID_ARGUMENT, HTTP_UNSUPPORTED_MEDIA_TYPE, 0, SIZE_MAX, ""};
    if (from)
        snprintf(ret->text, sizeof(ret->text), "%s cannot be converted to %s", from->name,
                 channel->service->codec->name);
    else
        snprintf(ret->text, sizeof(ret->text), "there is no codec %u here", (unsigned)number);
}

static void refuse_body(const char *codec, int error, size_t offset, struct refusal *ret)
{
    *ret = (struct refusal){BEAM_RESOURCE_EXHAUSTED, 0, error, offset, ""};
    if (error == -ENOMEM) {
        snprintf(ret->text, sizeof(ret->text), "no memory to convert it");
    } else if (is_of_size(error)) {
        snprintf(ret->text, sizeof(ret->text), "converted, the message is over the limit");
    } else {
        ret->code = BEAM_INVALID_ARGUMENT;
        ret->http = HTTP_UNSUPPORTED_MEDIA_TYPE;
        if (offset == SIZE_MAX)
            snprintf(ret->text, sizeof(ret->text), "the body as %s: %s", codec,
                     beam_strerror(error));
        else
            snprintf(ret->text, sizeof(ret->text), "the body as %s: %s, at byte %zu", codec,
                     beam_strerror(error), offset);
    }
}

/* What a body has become is charged as if it had come like that. */
static bool charge(beam_session *session, beam_message *message)
{
    /* Behind a hop what it was before is charged to the session by which it came. */
    const uint32_t passed = message->flags & BM_MESSAGE_PASSED ? message->charge->charged : 0;
    const uint32_t before = message->charged + passed;
    if (message->body_len <= BM_FRAME_LEN_MAX || message->body_len <= before || !session)
        return true;
    const uint64_t most = large_len_max(session);
    const uint32_t more = message->body_len - before;
    if (session->large_held > most || more > most - session->large_held)
        return false;
    if (!(message->flags & BM_MESSAGE_HOLDS))
        bm_channel_message_holds(message, session);
    message->flags |= BM_MESSAGE_CHARGED;
    message->charged += more;
    session->large_held += more;
    return true;
}

/* A borrowed message in the service's codec: the same, or *ret_own that takes its place. false:
 * refused; the message is still to be given back by whoever lends it. */
static bool take_in(beam_channel *channel, const beam_message *message, beam_message **ret_own,
                    struct refusal *ret)
{
    const struct beam_codec *to = channel->service->codec;
    *ret_own = NULL;
    if (message->codec == to->number)
        return true;
    const struct beam_codec *from = bm_codecs_find(codecs_of(channel), message->codec);
    if (!from || !bm_codec_converts(from, to)) {
        refuse_codec(channel, message->codec, from, ret);
        return false;
    }
    if (message->body_len == 0) {
        ((beam_message *)message)->codec = to->number; /* nobody else looks at it any more */
        return true;
    }

    struct bm_body body;
    size_t offset = SIZE_MAX;
    int r = convert(channel, from, to, message->body, message->body_len,
                    body_len_max(channel->core->runtime->limits.message_len_max, message), &body,
                    &offset);
    beam_message *own = r < 0 ? NULL : bm_message_keep_with(message, &body, to->number);
    if (r == 0 && !own) {
        bm_pool_put(&channel->core->pool, body.block, body.cap);
        r = -ENOMEM;
    }
    if (r < 0) {
        refuse_body(from->name, r, offset, ret);
        return false;
    }
    if (!charge(channel->session, own)) {
        *ret = (struct refusal){BEAM_RESOURCE_EXHAUSTED, 0, 0, SIZE_MAX,
                                "large messages of this session fill their limit"};
        beam_message_free(own);
        return false;
    }
    *ret_own = own;
    return true;
}

void bm_transcode_run(beam_channel *channel, beam_message *message)
{
    const struct beam_codec *spoken = channel->service->codec;
    struct refusal refusal;
    beam_message *own;
    if (channel->kind == BM_CHANNEL_REQUEST) {
        channel->transcodes = true;
        bm_channel_request(channel)->caller_codec =
            message->codec == spoken->number ? spoken
                                             : bm_codecs_find(codecs_of(channel), message->codec);
    }
    if (!take_in(channel, message, &own, &refusal)) {
        refuse(channel, &refusal, true);
        return;
    }
    if (!own) {
        bm_request_run_handler(channel, message);
        return;
    }
    bool kept;
    bm_message_lend(own, &kept);
    bm_request_run_handler(channel, own);
    bm_message_return(own, &kept);
}

/* --- handlers that stand in for the application's ---------------------------------------------- */

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    const beam_request *request = arg;
    const struct beam_channel_handlers *h = request->handlers;
    struct refusal refusal;
    beam_message *own;
    /* abort_due: one before it was refused just now. */
    if (!h->on_message || channel->abort_due)
        return;
    if (!take_in(channel, message, &own, &refusal)) {
        refuse(channel, &refusal, false);
        return;
    }
    if (!own) {
        h->on_message(channel, message, request->handlers_arg);
        return;
    }
    bool kept;
    bm_message_lend(own, &kept);
    h->on_message(channel, own, request->handlers_arg);
    bm_message_return(own, &kept);
}

static void on_writable(beam_channel *channel, void *arg)
{
    const beam_request *request = arg;
    if (request->handlers->on_writable)
        request->handlers->on_writable(channel, request->handlers_arg);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    const beam_request *request = arg;
    if (request->handlers->on_end)
        request->handlers->on_end(channel, status, request->handlers_arg);
}

static const struct beam_channel_handlers stand_ins = {
    .on_message = on_message,
    .on_writable = on_writable,
    .on_end = on_end,
};

void bm_transcode_set_handlers(beam_request *request, const struct beam_channel_handlers *handlers,
                               void *arg)
{
    request->handlers = handlers;
    request->handlers_arg = arg;
    request->channel.handlers = handlers ? &stand_ins : NULL;
    request->channel.arg = request;
}

/* --- the way out ----------------------------------------------------------------------------- */

/* What becomes of a message of the handler's. */
struct transcoded {
    struct bm_body body; /* the new one, if `converted` */
    bool converted;
    uint32_t codec; /* what it is to be called */
};

/* *ret_from: what the message is in, or NULL; *ret_offset as of convert(). */
static int prepare(beam_channel *channel, const beam_message *message, struct transcoded *ret,
                   const struct beam_codec **ret_from, size_t *ret_offset)
{
    const struct beam_codec *to = bm_channel_request(channel)->caller_codec;
    const struct beam_codec *own = channel->service->codec;
    *ret_from = own;
    *ret = (struct transcoded){.codec = to->number};
    if (message->codec != BEAM_CODEC_KV) /* else none was set: the service's */
        *ret_from = bm_codecs_find(codecs_of(channel), message->codec);
    if (message->body_len == 0 || *ret_from == to)
        return 0;
    if (!*ret_from)
        return -BEAM_ECODEC_UNKNOWN;
    if (!bm_codec_converts(*ret_from, to))
        return -BEAM_ECODEC_UNSUPPORTED;
    ret->converted = true;
    return convert(channel, *ret_from, to, message->body, message->body_len,
                   body_len_max(channel->session->peer_message_len_max, message), &ret->body,
                   ret_offset);
}

static void commit(beam_message *message, struct transcoded *transcoded)
{
    if (transcoded->converted)
        bm_message_put_body(message, &transcoded->body);
    message->codec = transcoded->codec;
}

int bm_transcode_admit(beam_channel *channel, beam_message *message)
{
    const unsigned fds = bm_message_fds_left(message);
    const struct beam_codec *from;
    struct transcoded transcoded;
    size_t offset;
    /* First whether anything could go now: its length counts as it will be. */
    int r = bm_channel_may_send(channel, 0, fds);
    if (r == 0)
        r = prepare(channel, message, &transcoded, &from, &offset);
    if (r < 0)
        return r;
    uint32_t len = transcoded.converted ? transcoded.body.len : message->body_len;
    r = bm_channel_may_send(channel, (uint64_t)message->metadata_len + len, fds);
    if (r == 0)
        r = bm_outgoing_admit(channel, message);
    if (r == 0)
        commit(message, &transcoded);
    else if (transcoded.converted)
        bm_pool_put(&channel->core->pool, transcoded.body.block, transcoded.body.cap);
    return r;
}

/* Whether an error is the answer's own, which is not what its handler says it is. */
static bool is_unsound(int error)
{
    return error != -BEAM_ECODEC_UNKNOWN && error != -BEAM_ECODEC_UNSUPPORTED;
}

bool bm_transcode_answer(beam_request *request, beam_message *message)
{
    beam_channel *channel = bm_request_channel(request);
    const struct beam_codec *from;
    struct transcoded transcoded;
    struct refusal refusal;
    size_t offset = SIZE_MAX;
    int r = prepare(channel, message, &transcoded, &from, &offset);
    if (r >= 0) {
        commit(message, &transcoded);
        return true;
    }
    refusal = (struct refusal){BEAM_RESOURCE_EXHAUSTED, 0, r, SIZE_MAX, ""};
    if (r == -ENOMEM) {
        snprintf(refusal.text, sizeof(refusal.text), "no memory to convert the answer");
    } else if (is_of_size(r)) {
        snprintf(refusal.text, sizeof(refusal.text),
                 "converted, the answer is over the caller's limit");
    } else if (is_unsound(r)) {
        refusal.code = BEAM_INTERNAL;
        snprintf(refusal.text, sizeof(refusal.text), "the answer as %s: %s", from->name,
                 beam_strerror(r));
    } else {
        refusal.code = BEAM_UNIMPLEMENTED;
        refusal.http = HTTP_NOT_ACCEPTABLE;
        snprintf(refusal.text, sizeof(refusal.text), "the answer as %s: %s",
                 request->caller_codec->name, beam_strerror(r));
    }
    _Alignas(8) uint8_t details[DETAILS_LEN_MAX];
    size_t len = refusal.http ? write_details(channel, &refusal, details) : 0;
    beam_fail_with(request, refusal.code, len > 0 ? details : NULL, len, "%s", refusal.text);
    return false;
}
