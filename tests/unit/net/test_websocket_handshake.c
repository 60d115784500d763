#include <beam/error.h>

#include <string.h>

#include "net/proto/websocket_handshake.h"
#include "tests/support/test.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* and its answer: RFC 6455 section 1.3 */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* A field of the good request replaced, left out (no value), or added. */
struct change {
    const char *name, *value;
    bool added;
};

#define NONE                                                                                       \
    {                                                                                              \
        .name = NULL                                                                               \
    }

struct row {
    const char *what;
    int status, status_extended;
    struct change change;
    const char *method;
    bool no_upgrade;
    const char *origins[2];
};

static const struct row rows[] = {
    {.what = "as it is", .status = 101, .status_extended = 200, .change = NONE},
    {.what = "another protocol beside it",
     .status = 101,
     .status_extended = 200,
     .change = {.name = "sec-websocket-protocol", .value = "chat, beam.v1 , token.x"}},
    {.what = "extensions are declined",
     .status = 101,
     .status_extended = 200,
     .change = {.name = "sec-websocket-extensions", .value = "permessage-deflate", .added = true}},
    {.what = "POST", .status = 405, .status_extended = 200, .change = NONE, .method = "POST"},
    {.what = "no upgrade",
     .status = 426,
     .status_extended = 200,
     .change = NONE,
     .no_upgrade = true},
    {.what = "another upgrade",
     .status = 426,
     .status_extended = 200,
     .change = {.name = "upgrade", .value = "h2c"}},
    {.what = "upgrade to a list",
     .status = 101,
     .status_extended = 200,
     .change = {.name = "upgrade", .value = "h2c, WebSocket"}},
    {.what = "no version",
     .status = 426,
     .status_extended = 400,
     .change = {.name = "sec-websocket-version", .value = NULL}},
    {.what = "version 8",
     .status = 426,
     .status_extended = 400,
     .change = {.name = "sec-websocket-version", .value = "8"}},
    {.what = "versions",
     .status = 426,
     .status_extended = 400,
     .change = {.name = "sec-websocket-version", .value = "13, 8"}},
    {.what = "version twice",
     .status = 426,
     .status_extended = 400,
     .change = {.name = "sec-websocket-version", .value = "13", .added = true}},
    {.what = "no key",
     .status = 400,
     .status_extended = 200,
     .change = {.name = "sec-websocket-key", .value = NULL}},
    {.what = "key twice",
     .status = 400,
     .status_extended = 200,
     .change = {.name = "sec-websocket-key", .value = KEY, .added = true}},
    {.what = "short key",
     .status = 400,
     .status_extended = 200,
     .change = {.name = "sec-websocket-key", .value = "dGhlIHNhbXBsZSBub25j"}},
    {.what = "long key",
     .status = 400,
     .status_extended = 200,
     .change = {.name = "sec-websocket-key", .value = KEY "AAAA"}},
    {.what = "key of 17 bytes",
     .status = 400,
     .status_extended = 200,
     .change = {.name = "sec-websocket-key", .value = "dGhlIHNhbXBsZSBub25jZXM="}},
    {.what = "key with spare bits",
     .status = 400,
     .status_extended = 200,
     .change = {.name = "sec-websocket-key", .value = "dGhlIHNhbXBsZSBub25jZR=="}},
    {.what = "no base 64",
     .status = 400,
     .status_extended = 200,
     .change = {.name = "sec-websocket-key", .value = "dGhlIHNhbXBsZSBub2-jZQ=="}},
    {.what = "no protocol",
     .status = 400,
     .status_extended = 400,
     .change = {.name = "sec-websocket-protocol", .value = NULL}},
    {.what = "other protocols",
     .status = 400,
     .status_extended = 400,
     .change = {.name = "sec-websocket-protocol", .value = "beam.v2, xbeam.v1"}},
    {.what = "protocol in another case",
     .status = 400,
     .status_extended = 400,
     .change = {.name = "sec-websocket-protocol", .value = "Beam.v1"}},
    {.what = "own origin",
     .status = 101,
     .status_extended = 200,
     .change = {.name = "origin", .value = "https://Example.com:8443", .added = true}},
    {.what = "own origin, other scheme",
     .status = 101,
     .status_extended = 200,
     .change = {.name = "origin", .value = "http://example.com:8443", .added = true}},
    {.what = "another port",
     .status = 403,
     .status_extended = 403,
     .change = {.name = "origin", .value = "https://example.com", .added = true}},
    {.what = "foreign origin",
     .status = 403,
     .status_extended = 403,
     .change = {.name = "origin", .value = "https://evil.example", .added = true}},
    {.what = "foreign origin with ours in it",
     .status = 403,
     .status_extended = 403,
     .change = {.name = "origin", .value = "https://example.com:8443.evil.example", .added = true}},
    {.what = "no origin that is one",
     .status = 403,
     .status_extended = 403,
     .change = {.name = "origin", .value = "null", .added = true}},
    {.what = "empty origin",
     .status = 403,
     .status_extended = 403,
     .change = {.name = "origin", .value = "", .added = true}},
    {.what = "listed origin",
     .status = 101,
     .status_extended = 200,
     .change = {.name = "origin", .value = "https://b.example", .added = true},
     .origins = {"https://a.example", "https://b.example"}},
    {.what = "listed host, other scheme",
     .status = 403,
     .status_extended = 403,
     .change = {.name = "origin", .value = "http://b.example", .added = true},
     .origins = {"https://a.example", "https://b.example"}},
    {.what = "own origin, not listed",
     .status = 403,
     .status_extended = 403,
     .change = {.name = "origin", .value = "https://example.com:8443", .added = true},
     .origins = {"https://a.example", "https://b.example"}},
    {.what = "no origin, a list",
     .status = 101,
     .status_extended = 200,
     .change = NONE,
     .origins = {"https://a.example", "https://b.example"}},
};

static size_t make_fields(const struct change *change, struct bm_field *fields)
{
    const struct bm_field good[] = {
        BM_FIELD("host", "example.com:8443"),    BM_FIELD("connection", "Upgrade"),
        BM_FIELD("upgrade", "websocket"),        BM_FIELD("sec-websocket-key", KEY),
        BM_FIELD("sec-websocket-version", "13"), BM_FIELD("sec-websocket-protocol", "beam.v1"),
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        fields[count++] = good[i];
        if (!change->name || change->added || strcmp(change->name, good[i].name) != 0)
            continue;
        if (change->value)
            fields[count - 1] = BM_FIELD(change->name, change->value);
        else
            count--;
    }
    if (change->added)
        fields[count++] = BM_FIELD(change->name, change->value);
    return count;
}

TEST(websocket_request_is_judged)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (unsigned extended = 0; extended < 2; extended++) {
            const char *method = extended ? "CONNECT" : rows[i].method ? rows[i].method : "GET";
            struct bm_field fields[8];
            struct bm_websocket_answer answer;
            struct bm_websocket_request request = {
                .extended = extended,
                .upgrade = !rows[i].no_upgrade,
                .method = method,
                .method_len = strlen(method),
                .authority = "example.com:8443",
                .authority_len = 16,
                .fields = fields,
                .field_count = make_fields(&rows[i].change, fields),
            };
            struct bm_websocket_policy policy = {.origins = rows[i].origins,
                                                 .origin_count = rows[i].origins[0] ? 2 : 0};
            test_note("%s%s", rows[i].what, extended ? ", extended" : "");
            bm_websocket_judge(&request, &policy, &answer);
            CHECK_INT(answer.status, extended ? rows[i].status_extended : rows[i].status);
            CHECK_INT(answer.upgrade != NULL, answer.status == 101 || answer.status == 426);
            CHECK_INT(bm_field_count(answer.fields, answer.field_count, "sec-websocket-protocol"),
                      answer.status <= 200);
            CHECK_UINT(
                bm_field_count(answer.fields, answer.field_count, "sec-websocket-extensions"), 0);
            if (answer.status == 426)
                CHECK_MEM(answer.fields[0].value, answer.fields[0].value_len, "13", 2);
        }
    }
}

TEST(websocket_request_has_one_origin)
{
    const struct change none = NONE;
    struct bm_field fields[8];
    size_t count = make_fields(&none, fields);
    struct bm_websocket_answer answer;
    struct bm_websocket_policy policy = {0};
    fields[count] = fields[count + 1] = BM_FIELD("origin", "https://example.com:8443");
    struct bm_websocket_request request = {
        .upgrade = true,
        .method = "GET",
        .method_len = 3,
        .authority = "example.com:8443",
        .authority_len = 16,
        .fields = fields,
        .field_count = count + 1,
    };
    bm_websocket_judge(&request, &policy, &answer);
    CHECK_INT(answer.status, 101);
    request.field_count++;
    bm_websocket_judge(&request, &policy, &answer);
    CHECK_INT(answer.status, 403);
    fields[count] = BM_FIELD("origin", "https://"); /* nobody's, where no host was asked for */
    request.field_count = count + 1;
    request.authority_len = 0;
    bm_websocket_judge(&request, &policy, &answer);
    CHECK_INT(answer.status, 403);
}

TEST(websocket_accept_is_that_of_the_standard)
{
    char accept[BM_WEBSOCKET_ACCEPT_LEN + 1];
    CHECK_INT(bm_websocket_make_accept(KEY, accept), 0);
    CHECK_STR(accept, ACCEPT);
}

TEST(websocket_keys_are_keys_and_differ)
{
    struct bm_websocket_offer a, b;
    CHECK_INT(bm_websocket_offer_init(&a, false), 0);
    CHECK_INT(bm_websocket_offer_init(&b, false), 0);
    CHECK_UINT(strlen(a.key), BM_WEBSOCKET_KEY_LEN);
    CHECK(strcmp(a.key, b.key) != 0);
    CHECK_INT(bm_websocket_offer_init(&b, true), 0);
    CHECK_UINT(b.field_count, 2); /* without a key */
}

TEST(websocket_answer_is_verified)
{
    static const struct {
        const char *what;
        int status;
        struct change change;
        bool extended;
        bool good;
    } answers[] = {
        {"as it is", 101, NONE, false, true},
        {"as it is", 200, NONE, true, true},
        {"another status", 200, NONE, false, false},
        {"another status", 101, NONE, true, false},
        {"no accept", 101, {.name = "sec-websocket-accept", .value = NULL}, false, false},
        {"that of another key",
         101,
         {.name = "sec-websocket-accept", .value = ACCEPT},
         false,
         false},
        {"the key itself", 101, {.name = "sec-websocket-accept", .value = KEY}, false, false},
        {"accept twice",
         101,
         {.name = "sec-websocket-accept", .value = "x", .added = true},
         false,
         false},
        {"no upgrade", 101, {.name = "upgrade", .value = NULL}, false, false},
        {"another upgrade", 101, {.name = "upgrade", .value = "h2c"}, false, false},
        {"no connection", 101, {.name = "connection", .value = NULL}, false, false},
        {"no protocol", 101, {.name = "sec-websocket-protocol", .value = NULL}, false, false},
        {"no protocol", 200, {.name = "sec-websocket-protocol", .value = NULL}, true, false},
        {"another protocol",
         101,
         {.name = "sec-websocket-protocol", .value = "beam.v2"},
         false,
         false},
        {"two protocols",
         101,
         {.name = "sec-websocket-protocol", .value = "beam.v1", .added = true},
         false,
         false},
        {"an extension",
         101,
         {.name = "sec-websocket-extensions", .value = "permessage-deflate", .added = true},
         false,
         false},
        {"an extension",
         200,
         {.name = "sec-websocket-extensions", .value = "permessage-deflate", .added = true},
         true,
         false},
    };
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct bm_websocket_offer offer;
        const struct change *change = &answers[i].change;
        char accept[BM_WEBSOCKET_ACCEPT_LEN + 1];
        struct bm_field fields[8];
        size_t count = 0;
        test_note("%s", answers[i].what);
        REQUIRE_INT(bm_websocket_offer_init(&offer, answers[i].extended), 0);
        REQUIRE_INT(answers[i].extended ? 0 : bm_websocket_make_accept(offer.key, accept), 0);
        struct bm_field good[] = {
            BM_FIELD("connection", "keep-alive, Upgrade"),
            BM_FIELD("upgrade", "WebSocket"),
            BM_FIELD("sec-websocket-protocol", "beam.v1"),
            {.name = "sec-websocket-accept", .name_len = 20, .value = accept, .value_len = 28},
        };
        for (size_t j = 0; j < (answers[i].extended ? 3 : 4); j++) {
            bool changed =
                change->name && !change->added && strcmp(change->name, good[j].name) == 0;
            if (changed && !change->value)
                continue;
            fields[count++] = changed ? BM_FIELD(change->name, change->value) : good[j];
        }
        if (change->added)
            fields[count++] = BM_FIELD(change->name, change->value);
        CHECK_INT(bm_websocket_offer_verify(&offer, answers[i].status, fields, count),
                  answers[i].good ? 0 : -BEAM_EWEBSOCKET_HANDSHAKE);
    }
}
