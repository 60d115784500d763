/* tests/vectors/http.json: what of docs/spec/http.md can be judged from bytes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/accept.h"
#include "net/beam_timeout.h"
#include "net/call_path.h"
#include "net/document_json.h"
#include "net/event_text.h"
#include "net/http_status.h"
#include "net/media.h"
#include "net/origin.h"
#include "net/percent.h"
#include "net/query.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"
#include "tests/unit/net/fake_exchange.h"

static enum beam_code code_named(const char *name)
{
    unsigned code = BEAM_OK;
    while (code < BEAM_UNAUTHENTICATED && strcmp(beam_code_name(code), name) != 0)
        code++;
    return (enum beam_code)code;
}

static beam_str text_of(const struct vector *v, const char *name)
{
    return fake_str(vector_str(v, name));
}

/* A result, or the error that is named. */
static bool check_error(const struct vector *v, int r)
{
    const char *error = vector_str(v, "error");
    CHECK_STR(beam_error_name(r), error ? error : "OK");
    return r == 0 && !error;
}

static void check_status(const struct vector *v)
{
    CHECK_INT(beam_code_http(code_named(vector_str(v, "code"))), vector_int(v, "http", 0));
}

static void check_foreign(const struct vector *v)
{
    unsigned status = (unsigned)vector_int(v, "http", 0);
    CHECK_STR(beam_code_name(bm_http_status_code(status)), vector_str(v, "code"));
}

static void check_timeout(const struct vector *v)
{
    uint64_t ns = 1;
    if (check_error(v, bm_beam_timeout_read(text_of(v, "in"), &ns)))
        CHECK_UINT(ns, (uint64_t)vector_int(v, "ns", -1)); /* null: never */
}

static void check_percent(const struct vector *v)
{
    char out[64];
    size_t len, wanted_len;
    beam_str text = text_of(v, "in");
    char *copy = malloc(text.len + 1); /* what is read behind its end is seen */
    memcpy(copy + 1, text.ptr, text.len);
    beam_str in = {copy + 1, text.len};
    if (check_error(v, bm_percent_decode(in, false, out, sizeof(out), &len))) {
        uint8_t *wanted = vector_hex(v, "out", &wanted_len);
        CHECK_MEM(out, len, wanted, wanted_len);
        if (wanted_len > 0)
            CHECK_INT(bm_percent_decode(in, false, out, wanted_len - 1, &len), -EMSGSIZE);
        free(wanted);
    }
    free(copy);
}

static void check_query(const struct vector *v)
{
    char all[256] = "", decoded[64];
    size_t at = 0, len;
    beam_str rest = text_of(v, "in"), key, value;
    int r = 0;
    while (r == 0 && bm_query_next(&rest, &key, &value)) {
        const beam_str parts[] = {key, value};
        for (size_t i = 0; i < 2 && r == 0; i++) {
            r = bm_percent_decode(parts[i], true, decoded, sizeof(decoded), &len);
            if (r == 0)
                at += (size_t)snprintf(all + at, sizeof(all) - at, "%.*s%s", (int)len, decoded,
                                       i == 0 ? "=" : "\n");
        }
    }
    if (check_error(v, r))
        CHECK_STR(all, vector_str(v, "pairs"));
}

static void check_path(const struct vector *v)
{
    char room[64];
    beam_str service, method;
    if (!check_error(v, bm_call_path_read(text_of(v, "in"), room, &service, &method)))
        return;
    CHECK_MEM(service.ptr, service.len, vector_str(v, "service"), strlen(vector_str(v, "service")));
    CHECK_MEM(method.ptr, method.len, vector_str(v, "method"), strlen(vector_str(v, "method")));
}

static size_t accept_field(const struct vector *v, struct bm_field *ret)
{
    const char *accept = vector_str(v, "accept");
    if (accept)
        *ret = BM_FIELD("accept", accept);
    return accept != NULL;
}

static void check_accept(const struct vector *v)
{
    struct bm_field field;
    size_t count = accept_field(v, &field);
    struct bm_accept accept = bm_accept_find(&field, count, vector_str(v, "type"));
    CHECK_UINT(accept.quality, (unsigned)vector_int(v, "quality", -1));
}

static const struct beam_codec *codec_named(const struct bm_codecs *codecs, const char *name)
{
    for (unsigned i = 0; name && i < codecs->count; i++)
        if (strcmp(codecs->known[i]->name, name) == 0)
            return codecs->known[i];
    CHECK(!name);
    return NULL;
}

static void check_choice(const struct vector *v)
{
    struct bm_codecs codecs;
    struct bm_field field;
    size_t count = accept_field(v, &field);
    bm_codecs_init(&codecs);
    struct bm_media_choice choice =
        bm_media_choose(&codecs, &field, count, codec_named(&codecs, vector_str(v, "spoken")),
                        codec_named(&codecs, vector_str(v, "asked")));
    const char *type = vector_str(v, "type");
    CHECK_STR(choice.codec ? choice.codec->media_type : "none", type ? type : "none");
    if (choice.codec)
        CHECK(bm_media_is_best(&codecs, &choice, choice.codec));
}

/* The document of a text of JSON. */
static void read_json(const char *text, beam_buffer *out)
{
    beam_buffer_init(out, 65536);
    if (text)
        REQUIRE_INT(beam_convert(&beam_json, &beam_kv_codec, text, strlen(text), NULL, out, NULL),
                    0);
}

static void check_field(const struct vector *v)
{
    beam_buffer document, out;
    bool empty;
    read_json(vector_str(v, "json"), &document);
    beam_buffer_init(&out, 65536);
    CHECK_INT(bm_document_json_field(document.ptr, document.len, "content-type", &out, &empty), 0);
    const char *wanted = vector_str(v, "field");
    CHECK(empty == (wanted[0] == '\0'));
    CHECK_MEM(out.ptr, out.len, wanted, strlen(wanted));
    CHECK(bm_field_is_value((const char *)out.ptr, out.len));
    beam_buffer_deinit(&document);
    beam_buffer_deinit(&out);
}

static void check_event(const struct vector *v)
{
    beam_buffer out;
    beam_str data = text_of(v, "data");
    beam_buffer_init(&out, 65536);
    CHECK_INT(bm_event_text_add(&out, "message", data.ptr, data.len), 0);
    CHECK_MEM(out.ptr, out.len, vector_str(v, "event"), strlen(vector_str(v, "event")));
    beam_buffer_deinit(&out);
}

static void check_origin(const struct vector *v)
{
    const char *origin = vector_str(v, "origin"), *allowed = vector_str(v, "allowed");
    struct bm_field field;
    if (origin)
        field = BM_FIELD("origin", origin);
    const struct bm_exchange_request request = {
        .authority = text_of(v, "authority"), .fields = &field, .field_count = origin != NULL};
    CHECK_INT(bm_origin_allows(&request, &allowed, allowed != NULL), vector_int(v, "ok", -1));
}

static void check_answered_error(const struct vector *v)
{
    struct bm_exchange exchange = {.connection = &fake_connection};
    struct bm_call call = {.exchange = &exchange};
    beam_buffer details;
    read_json(vector_str(v, "details"), &details);
    bm_answer_status(&call, &(struct beam_status){.code = code_named(vector_str(v, "code")),
                                                  .message = text_of(v, "message"),
                                                  .details = details.ptr,
                                                  .details_len = details.len});
    CHECK_UINT(exchange.status, (unsigned)vector_int(v, "http", 0));
    CHECK_STR(exchange.fields, "content-type: application/json\n");
    CHECK_STR(exchange.body, vector_str(v, "body"));
    free(exchange.body);
    beam_buffer_deinit(&details);
}

static const struct {
    const char *kind;
    void (*check)(const struct vector *v);
} kinds[] = {
    {"status", check_status}, {"foreign", check_foreign},      {"timeout", check_timeout},
    {"path", check_path},     {"query", check_query},          {"percent", check_percent},
    {"accept", check_accept}, {"choice", check_choice},        {"field", check_field},
    {"event", check_event},   {"error", check_answered_error}, {"origin", check_origin},
};

TEST(http_vectors_hold)
{
    struct vectors vectors;
    unsigned seen[sizeof(kinds) / sizeof(kinds[0])] = {0};
    vectors_load("http.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        bool known = false;
        test_note("%s", vector_str(v, "name"));
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
            if (strcmp(vector_str(v, "kind"), kinds[k].kind) == 0) {
                kinds[k].check(v);
                seen[k]++;
                known = true;
            }
        CHECK(known);
    }
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        CHECK(seen[k] > 0);
    vectors_free(&vectors);
}
