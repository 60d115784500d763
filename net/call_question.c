/* See call.h. What the head of a request says becomes the message at once, because it is gone when the
 * body has come; so nothing of it is copied but into the message. Where metadata comes from several
 * places the order is: the field `beam-metadata`, the query, the method, the body. A key that comes
 * twice is refused when the message is sealed, but for one of the query that the field has as well. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/accept.h"
#include "net/beam_timeout.h"
#include "net/call_path.h"
#include "net/http_call.h"
#include "net/origin.h"
#include "net/percent.h"
#include "net/pooled_buffer.h"
#include "net/query.h"
#include "runtime/runtime.h"

#define REFUSE(ret_, status_, code_, text_)                                                        \
    refuse(ret_, status_, BEAM_##code_, text_, sizeof(text_) - 1)

static bool refuse(struct bm_refusal *ret, unsigned status, enum beam_code code, const char *text,
                   size_t len)
{
    *ret = (struct bm_refusal){.status = status, .code = code, .text = {text, len}};
    return false;
}

/* The fields of a request that are of interest, each the first of its name. */
struct heads {
    beam_str type, coding, metadata, timeout;
    bool origin, accept; /* there is one */
};

static void take(beam_str *to, const struct bm_field *field)
{
    if (!to->ptr)
        *to = (beam_str){field->value, field->value_len};
}

/* In one pass: a request has some, and most are of no interest. */
static void read_heads(const struct bm_exchange_request *request, struct heads *ret)
{
    *ret = (struct heads){0};
    for (size_t i = 0; i < request->field_count; i++) {
        const struct bm_field *field = &request->fields[i];
#define IS(text) (memcmp(field->name, text, sizeof(text) - 1) == 0)
        switch (field->name_len) {
        case 6:
            ret->accept |= IS("accept");
            ret->origin |= IS("origin");
            break;
        case 12:
            if (IS("content-type"))
                take(&ret->type, field);
            else if (IS("beam-timeout"))
                take(&ret->timeout, field);
            break;
        case 13:
            if (IS("beam-metadata"))
                take(&ret->metadata, field);
            break;
        case 16:
            if (IS("content-encoding"))
                take(&ret->coding, field);
            break;
        default:
            break;
        }
#undef IS
    }
}

static const struct bm_codecs *codecs_of(const struct bm_call *call)
{
    return &call->core->runtime->codecs;
}

/* --- metadata -------------------------------------------------------------------------------- */

/* Why metadata cannot be: a sticky error of the message, or of what it was to be made of. */
static bool refuse_metadata(int error, struct bm_refusal *ret)
{
    switch (error) {
    case -EEXIST:
        return REFUSE(ret, 400, INVALID_ARGUMENT, "a key of the metadata comes twice");
    case -EMSGSIZE:
    case -BEAM_ECODEC_TOO_LARGE:
    case -BEAM_EKV_TOO_LARGE:
        return REFUSE(ret, 413, RESOURCE_EXHAUSTED, "more metadata than a message has room for");
    case -ENOMEM:
        return REFUSE(ret, 503, RESOURCE_EXHAUSTED, "no memory");
    default:
        return REFUSE(ret, 400, INVALID_ARGUMENT, "metadata that is none");
    }
}

static void put_text(beam_message *message, beam_str key, beam_str text)
{
    const beam_kv_value value = {.type = BEAM_KV_STR, .str = text};
    beam_message_put(message, key, &value);
}

/* Puts each pair but those with a key of `before`. */
static bool put_pairs(beam_message *message, beam_str text, const beam_kv_value *before,
                      struct bm_refusal *ret)
{
    char decoded[BEAM_METADATA_LEN_MAX];
    beam_str key, value;
    while (bm_query_next(&text, &key, &value)) {
        beam_kv_value there;
        size_t key_len, value_len;
        int r = bm_percent_decode(key, true, decoded, sizeof(decoded), &key_len);
        if (r == 0)
            r = bm_percent_decode(value, true, decoded + key_len, sizeof(decoded) - key_len,
                                  &value_len);
        if (r == -EMSGSIZE)
            return refuse_metadata(r, ret);
        if (r < 0)
            return REFUSE(ret, 400, INVALID_ARGUMENT, "% without two hexadecimal digits");
        key = (beam_str){decoded, key_len};
        if (beam_kv_find(before, key, &there) < 0)
            put_text(message, key, (beam_str){decoded + key_len, value_len});
    }
    return true;
}

/* All of a map; error is that of the message. */
static int put_map(beam_message *message, const beam_kv_value *map)
{
    beam_kv_iter iter;
    beam_kv_value value;
    beam_str key;
    beam_kv_iter_init(&iter, map);
    while (beam_kv_iter_next(&iter, &key, &value) > 0)
        beam_message_put(message, key, &value);
    return beam_message_error(message);
}

/* A document that was made of text of some codec; it lies in out. */
static int to_map(const struct beam_codec *from, const void *text, size_t len, beam_buffer *out,
                  beam_kv_value *ret_map)
{
    int r = beam_convert(from, &beam_kv_codec, text, len, NULL, out, NULL);
    if (r >= 0)
        r = beam_kv_root(out->ptr, out->len, ret_map);
    return r < 0 ? r : ret_map->type == BEAM_KV_MAP ? 0 : -EINVAL;
}

static bool put_head(struct bm_call *call, beam_str text, beam_str query, beam_str method,
                     struct bm_refusal *ret)
{
    beam_kv_value map = {.type = BEAM_KV_NIL};
    beam_buffer document = {0};
    bool ok = true;
    if (text.len > 0) {
        bm_pooled_buffer_init(&document, &call->core->pool, 4 * BEAM_METADATA_LEN_MAX);
        int r = to_map(&beam_json, text.ptr, text.len, &document, &map);
        if (r == 0)
            r = put_map(call->question, &map);
        if (r == -EINVAL)
            ok = REFUSE(ret, 400, INVALID_ARGUMENT, "beam-metadata is no JSON object");
        else if (r < 0)
            ok = refuse_metadata(r, ret);
    }
    ok = ok && put_pairs(call->question, query, &map, ret);
    if (ok && method.len > 0)
        put_text(call->question, (beam_str){"method", 6}, method);
    bm_pooled_buffer_deinit(&document, &call->core->pool);
    return ok;
}

static bool seal(struct bm_call *call, struct bm_refusal *ret)
{
    int r = bm_message_seal(call->question);
    return r == 0 || refuse_metadata(r, ret);
}

/* --- the head -------------------------------------------------------------------------------- */

static bool read_path(struct bm_call *call, beam_str path, char *room, beam_str *ret_method,
                      struct bm_refusal *ret)
{
    beam_str service;
    if (bm_call_path_read(path, room, &service, ret_method) < 0)
        return REFUSE(ret, 400, INVALID_ARGUMENT, "% without two hexadecimal digits");
    call->service =
        bm_services_find(bm_runtime_services(call->core->runtime), service.ptr, service.len);
    if (!call->service)
        return REFUSE(ret, 404, NOT_FOUND, "no service of this name");
    /* Before a body is asked for; it is asked again where the service is. */
    return bm_service_allowed(call->service, &call->asker.shown) ||
           REFUSE(ret, 403, PERMISSION_DENIED, "who asks may not");
}

static bool read_deadline(struct bm_call *call, beam_str text, struct bm_refusal *ret)
{
    uint64_t ns;
    call->deadline_ns = UINT64_MAX;
    if (text.len == 0)
        return true;
    if (bm_beam_timeout_read(text, &ns) < 0)
        return REFUSE(ret, 400, INVALID_ARGUMENT, "beam-timeout is a number and a unit: 500ms");
    if (ns != UINT64_MAX)
        call->deadline_ns = bm_clock_after(bm_reactor_now_ns(call->core->reactor), ns);
    return true;
}

static bool read_body_type(struct bm_call *call, const struct bm_exchange_request *request,
                           const struct heads *heads, struct bm_refusal *ret)
{
    static const struct bm_field identity[] = {
        {.name = "accept-encoding", .value = "identity", .name_len = 15, .value_len = 8}};
    beam_str coding = heads->coding, type = heads->type;
    if (coding.len > 0 && !bm_field_same(coding.ptr, coding.len, "identity")) {
        (void)REFUSE(ret, 415, INVALID_ARGUMENT, "a body in a content coding");
        ret->fields = identity;
        ret->field_count = 1;
        return false;
    }
    if (request->body_len == 0)
        return true;
    call->asked = bm_media_codec(codecs_of(call), type);
    if (call->asked) {
        call->merges = !call->service->codec;
        return true;
    }
    if (call->service->codec)
        return REFUSE(ret, 415, INVALID_ARGUMENT, "the content-type is none of those known here");
    beam_str essence = bm_accept_type_of(type);
    call->form = bm_field_same(essence.ptr, essence.len, "application/x-www-form-urlencoded");
    call->merges = call->form;
    if (!call->form && type.len > 0)
        put_text(call->question, (beam_str){"content-type", 12}, type);
    return true;
}

static bool read_accept(struct bm_call *call, const struct bm_exchange_request *request,
                        bool accept, struct bm_refusal *ret)
{
    const struct beam_codec *spoken = call->service->codec;
    if (accept && !bm_accept_is_anything(request->fields, request->field_count)) {
        struct bm_accept events =
            bm_accept_find(request->fields, request->field_count, "text/event-stream");
        call->events = events.exact && events.quality > 0;
    }
    if (call->events) {
        bool json = !spoken || bm_codec_converts(spoken, &beam_json);
        call->choice.codec = json ? &beam_json : spoken;
        return true;
    }
    call->choice = bm_media_choose(codecs_of(call), request->fields, request->field_count, spoken,
                                   call->asked);
    if (!call->choice.codec && spoken)
        return REFUSE(ret, 406, INVALID_ARGUMENT,
                      "the service answers in none of what is accepted");
    return true;
}

bool bm_question_begin(struct bm_call *call, const struct bm_exchange_request *request,
                       beam_str rest, struct bm_refusal *ret)
{
    static const struct bm_field allow[] = {
        {.name = "allow", .value = "POST", .name_len = 5, .value_len = 4}};
    char room[BM_CALL_TARGET_LEN_MAX];
    beam_str path, query, unused, method;
    struct heads heads;
    if (request->path.len > BM_CALL_TARGET_LEN_MAX)
        return REFUSE(ret, 414, INVALID_ARGUMENT, "the path is too long");
    if (!bm_field_same(request->method.ptr, request->method.len, "POST")) {
        (void)REFUSE(ret, 405, UNIMPLEMENTED, "calls are made with POST");
        ret->fields = allow;
        ret->field_count = 1;
        return false;
    }
    read_heads(request, &heads);
    if (heads.origin &&
        !bm_origin_allows(request, call->server->origins, call->server->origin_count))
        return REFUSE(ret, 403, PERMISSION_DENIED, "pages of this origin may not ask");
    bm_query_split(request->path, &unused, &query);
    bm_query_split(rest, &path, &unused);
    if (!read_path(call, path, room, &method, ret) || !read_deadline(call, heads.timeout, ret))
        return false;
    call->question = bm_message_new(call->core);
    if (!call->question)
        return REFUSE(ret, 503, RESOURCE_EXHAUSTED, "no memory");
    if (!read_body_type(call, request, &heads, ret) ||
        !read_accept(call, request, heads.accept, ret) ||
        !put_head(call, heads.metadata, query, method, ret))
        return false;
    const struct beam_codec *codec = call->asked            ? call->asked
                                     : call->service->codec ? call->choice.codec
                                                            : NULL;
    beam_message_set_codec(call->question, codec && !call->merges ? codec->number : 0);
    return call->merges || seal(call, ret);
}

/* --- the body -------------------------------------------------------------------------------- */

static unsigned count_keys(const beam_kv_value *map)
{
    beam_kv_iter iter;
    beam_kv_value value;
    unsigned count = 0;
    beam_kv_iter_init(&iter, map);
    while (beam_kv_iter_next(&iter, NULL, &value) > 0)
        count++;
    return count;
}

/* The document becomes the metadata, or part of it. */
static int merge(beam_message *message, const beam_buffer *document, const beam_kv_value *map)
{
    if (message->metadata || (message->flags & BM_MESSAGE_FAILED))
        return put_map(message, map);
    unsigned keys = count_keys(map);
    if (keys > BEAM_METADATA_KEYS_MAX || document->len > BEAM_METADATA_LEN_MAX)
        return -EMSGSIZE;
    return keys > 0 ? bm_message_copy_metadata(message, document->ptr, (uint32_t)document->len) : 0;
}

static bool merge_body(struct bm_call *call, struct bm_refusal *ret)
{
    const struct bm_body *body = &call->body.body;
    const beam_kv_value none = {.type = BEAM_KV_NIL};
    beam_kv_value map;
    beam_buffer document;
    if (call->form) {
        beam_str pairs = {(const char *)body->block, body->len};
        return put_pairs(call->question, pairs, &none, ret) && seal(call, ret);
    }
    bm_pooled_buffer_init(&document, &call->core->pool, 4 * BEAM_METADATA_LEN_MAX);
    int r = to_map(call->asked, body->block, body->len, &document, &map);
    bool is_body = r < 0; /* else the message is at fault */
    if (r == 0)
        r = merge(call->question, &document, &map);
    bm_pooled_buffer_deinit(&document, &call->core->pool);
    if (r == -EINVAL && is_body)
        return REFUSE(ret, 400, INVALID_ARGUMENT,
                      "the service reads metadata: the body has to be a map");
    if (r == -EMSGSIZE || r == -ENOMEM || r == -BEAM_ECODEC_TOO_LARGE || r == -BEAM_EKV_TOO_LARGE)
        return refuse_metadata(r, ret);
    if (r < 0 && is_body) {
        const char *why = beam_strerror(r);
        return refuse(ret, r == -BEAM_ECODEC_UNSUPPORTED ? 415 : 400, BEAM_INVALID_ARGUMENT, why,
                      strlen(why));
    }
    return (r == 0 && seal(call, ret)) || (r < 0 && refuse_metadata(r, ret));
}

bool bm_question_finish(struct bm_call *call, struct bm_refusal *ret)
{
    bool ok = true;
    if (call->body.body.len > 0 && call->merges)
        ok = merge_body(call, ret);
    else if (call->merges)
        ok = seal(call, ret);
    else if (call->body.body.len > 0)
        bm_message_put_body(call->question, &call->body.body);
    if (ok && bm_message_len(call->question) > call->core->runtime->limits.message_len_max)
        return REFUSE(ret, 413, RESOURCE_EXHAUSTED, "message over the limit");
    return ok;
}
