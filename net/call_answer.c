/* See call.h. An answer of up to BM_EXCHANGE_BODY_MAX bytes goes whole, copied once; a longer one is kept,
 * and read from where it lies. */
#include <stdio.h>
#include <string.h>

#include "net/http_call.h"
#include "net/document_json.h"
#include "net/pooled_buffer.h"
#include "runtime/message.h"
#include "runtime/runtime.h"

#define FIELDS_MAX 2u

static const struct bm_codecs *codecs_of(const struct bm_call *call)
{
    return &call->core->runtime->codecs;
}

void bm_answer_refusal(struct bm_call *call, const struct bm_refusal *refusal)
{
    if (call->answered)
        return;
    call->answered = true;
    bm_exchange_refuse_with(call->exchange, refusal);
}

static void fail(struct bm_call *call, unsigned status, enum beam_code code, const char *text)
{
    bm_answer_refusal(
        call, &(struct bm_refusal){.status = status, .code = code, .text = {text, strlen(text)}});
}

/* The status that details ask for, or that of the code. */
static unsigned http_of(const struct beam_status *status)
{
    beam_kv_value map;
    int64_t http;
    if (status->details && beam_kv_root(status->details, status->details_len, &map) == 0 &&
        beam_kv_get_int(&map, "http", &http) == 0 && http >= 400 && http <= 599)
        return (unsigned)http;
    return (unsigned)beam_code_http(status->code);
}

void bm_answer_status(struct bm_call *call, const struct beam_status *status)
{
    bm_answer_refusal(call, &(struct bm_refusal){
                                .status = http_of(status),
                                .code = status->code,
                                .text = status->message,
                                .details = status->details,
                                .details_len = status->details_len,
                            });
}

const struct beam_codec *bm_answer_codec(const struct bm_call *call, const beam_message *message)
{
    if (message->codec == BEAM_CODEC_KV)
        return call->service->codec ? &beam_kv_codec : NULL;
    return bm_codecs_find(codecs_of(call), message->codec);
}

/* What an answer is made of. */
struct parts {
    const void *body;
    size_t len;
    bool own; /* body is the message's */
    struct bm_field fields[FIELDS_MAX];
    size_t field_count;
};

static int convert(struct bm_call *call, const struct beam_codec *from, const struct beam_codec *to,
                   const void *in, size_t len, struct parts *parts)
{
    bm_pooled_buffer_init(&call->converted, &call->core->pool,
                          call->core->runtime->limits.message_len_max);
    int r = beam_convert(from, to, in, len, NULL, &call->converted, NULL);
    parts->body = call->converted.ptr;
    parts->len = call->converted.len;
    parts->own = false;
    return r;
}

static void add_field(struct parts *parts, const char *name, const char *value, size_t value_len)
{
    parts->fields[parts->field_count++] = (struct bm_field){
        .name = name, .value = value, .name_len = strlen(name), .value_len = value_len};
}

static void add_type(struct parts *parts, const char *type)
{
    add_field(parts, "content-type", type, strlen(type));
}

/* The type that a body without a codec says it has. */
static bool add_own_type(struct parts *parts, const beam_message *message)
{
    beam_str type;
    if (beam_message_get_str(message, "content-type", &type) < 0 || type.len == 0 ||
        type.len > 255 || !bm_field_is_value(type.ptr, type.len))
        return false;
    add_field(parts, "content-type", type.ptr, type.len);
    return true;
}

/* Its metadata is the answer. */
static bool of_metadata(struct bm_call *call, const beam_message *message, struct parts *parts)
{
    const struct beam_codec *to =
        call->choice.codec && call->choice.codec->from_kv ? call->choice.codec : &beam_json;
    if (message->metadata_len == 0)
        return true;
    if (to == &beam_kv_codec) {
        parts->body = message->metadata;
        parts->len = message->metadata_len;
        parts->own = true;
    } else {
        int r = convert(call, &beam_kv_codec, to, message->metadata, message->metadata_len, parts);
        if (r < 0) {
            fail(call, r == -BEAM_ECODEC_UNSUPPORTED ? 406 : 500,
                 r == -BEAM_ECODEC_UNSUPPORTED ? BEAM_UNIMPLEMENTED : BEAM_INTERNAL,
                 beam_strerror(r));
            return false;
        }
    }
    add_type(parts, to->media_type);
    return true;
}

/* Its body is; the metadata goes beside it. */
static bool of_body(struct bm_call *call, const beam_message *message, beam_buffer *field,
                    struct parts *parts)
{
    const struct beam_codec *codec = bm_answer_codec(call, message);
    const struct beam_codec *to = call->choice.codec;
    const char *leave = NULL;
    *parts = (struct parts){.body = message->body, .len = message->body_len, .own = true};
    if (!codec) {
        if (add_own_type(parts, message))
            leave = "content-type";
        else
            add_type(parts, "application/octet-stream");
    } else if (!to || to == codec || bm_media_is_best(codecs_of(call), &call->choice, codec) ||
               !bm_codec_converts(codec, to)) {
        add_type(parts, codec->media_type);
    } else {
        int r = convert(call, codec, to, message->body, message->body_len, parts);
        if (r < 0) {
            bool unsound = r != -BEAM_ECODEC_UNSUPPORTED && r != -BEAM_ECODEC_TOO_LARGE;
            fail(call, unsound ? 500 : 406, unsound ? BEAM_INTERNAL : BEAM_UNIMPLEMENTED,
                 beam_strerror(r));
            return false;
        }
        add_type(parts, to->media_type);
    }
    if (message->metadata_len == 0)
        return true;
    bool empty;
    int r = bm_document_json_field(message->metadata, message->metadata_len, leave, field, &empty);
    if (r < 0) {
        fail(call, 501, BEAM_UNIMPLEMENTED,
             "the answer has more metadata beside its body than a field holds");
        return false;
    }
    if (!empty)
        add_field(parts, "beam-metadata", (const char *)field->ptr, field->len);
    return true;
}

/* The answer, whatever there is of it, goes nowhere. */
static void drop(struct bm_call *call)
{
    call->answer = beam_message_free(call->answer);
    bm_pooled_buffer_deinit(&call->converted, &call->core->pool);
}

bool bm_answer_reserve(struct bm_call *call, size_t len)
{
    if (bm_collected_answer(&call->body, len) == 0)
        return true;
    fail(call, 429, BEAM_RESOURCE_EXHAUSTED,
         "large messages of this connection fill their limit: read the answers that are there");
    drop(call);
    return false;
}

static void send_parts(struct bm_call *call, const beam_message *message, const struct parts *parts)
{
    bool whole = parts->len <= BM_EXCHANGE_BODY_MAX;
    if (!bm_answer_reserve(call, parts->len))
        return;
    if (!whole && parts->own) {
        beam_message *kept = message == call->answer ? call->answer : beam_message_keep(message);
        if (!kept) {
            fail(call, 503, BEAM_RESOURCE_EXHAUSTED, "no memory");
            return;
        }
        call->answer = kept;
    }
    call->sending = whole ? NULL : parts->own ? call->answer->body : parts->body;
    call->sending_len = whole ? 0 : parts->len;
    call->answered = true;
    unsigned status = parts->len == 0 ? 204 : 200;
    int r = bm_exchange_answer(call->exchange, status, parts->fields, parts->field_count,
                               parts->body, whole ? (int64_t)parts->len : -1);
    if (r < 0)
        bm_exchange_reset(call->exchange);
}

void bm_answer_message(struct bm_call *call, const beam_message *message)
{
    struct parts parts = {0};
    beam_buffer field;
    bool ok = true;
    if (call->answered)
        return;
    if (message && (bm_message_fds(message) > 0 || bm_message_channels(message) > 0)) {
        fail(call, 501, BEAM_UNIMPLEMENTED, "the answer has attachments, which do not pass here");
        return;
    }
    beam_buffer_init(&field, BM_CALL_METADATA_FIELD_LEN_MAX);
    if (message && message->body_len > 0)
        ok = of_body(call, message, &field, &parts);
    else if (message)
        ok = of_metadata(call, message, &parts);
    if (ok)
        send_parts(call, message, &parts);
    beam_buffer_deinit(&field);
}

ssize_t bm_answer_read(struct bm_call *call, uint8_t *buf, size_t len, bool *ret_end)
{
    size_t left = call->sending_len - call->sent;
    size_t n = left < len ? left : len;
    if (n > 0)
        memcpy(buf, call->sending + call->sent, n);
    call->sent += n;
    *ret_end = n == left;
    return (ssize_t)n;
}
