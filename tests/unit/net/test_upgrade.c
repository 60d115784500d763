/* From a request of HTTP/1.1 to messages of WebSocket, between two ends in memory: what one engine
 * leaves of the bytes is the other's. */
#include <beam/error.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/proto/http1.h"
#include "net/proto/websocket.h"
#include "net/proto/websocket_handshake.h"
#include "tests/support/test.h"

struct end {
    bool client;
    struct bm_http1 *http;
    struct bm_websocket *websocket;
    struct bm_websocket_offer offer;   /* of the client */
    struct bm_websocket_answer answer; /* of the server */
    int status;                        /* that the client got */
    char messages[64];                 /* that came, with a blank behind each */
    unsigned closed;                   /* with this code */
    uint8_t out[4096];
    size_t out_len, taken;
};

static struct end client, server;

static void on_message(struct bm_http1 *http, const struct bm_http1_message *message, void *arg)
{
    struct end *end = arg;
    if (end->client) {
        int r = bm_websocket_offer_verify(&end->offer, message->status, message->fields,
                                          message->field_count);
        end->status = r < 0 ? r : message->status;
        return;
    }
    static const struct bm_websocket_policy policy;
    struct bm_websocket_request request = {
        .upgrade = message->upgrade,
        .method = message->method,
        .method_len = message->method_len,
        .authority = message->authority,
        .authority_len = message->authority_len,
        .fields = message->fields,
        .field_count = message->field_count,
    };
    bm_websocket_judge(&request, &policy, &end->answer);
    struct bm_http1_answer answer = {
        .status = end->answer.status,
        .fields = end->answer.fields,
        .field_count = end->answer.field_count,
        .upgrade = end->answer.upgrade,
    };
    CHECK_INT(bm_http1_answer(http, &answer), 0);
}

static void on_body(struct bm_http1 *http, const uint8_t *bytes, size_t len, void *arg)
{
    CHECK_UINT(len, 0); /* no message here has a body */
}

static void on_nothing(struct bm_http1 *http, void *arg)
{
}

static void on_abort(struct bm_http1 *http, int error, void *arg)
{
    CHECK_INT(error, 0);
}

static void on_data(struct bm_websocket *websocket, const uint8_t *bytes, size_t len, bool last,
                    void *arg)
{
    struct end *end = arg;
    strncat(end->messages, (const char *)bytes, len);
    if (last)
        strcat(end->messages, " ");
}

static void on_close(struct bm_websocket *websocket, uint16_t code, const char *reason, size_t len,
                     void *arg)
{
    ((struct end *)arg)->closed = code;
}

static void begin(struct end *end, bool is_client)
{
    static const struct bm_http1_handlers handlers = {.on_message = on_message,
                                                      .on_body = on_body,
                                                      .on_message_end = on_nothing,
                                                      .on_sent = on_nothing,
                                                      .on_abort = on_abort};
    *end = (struct end){.client = is_client};
    struct bm_http1_options options = {.client = is_client, .handlers = &handlers, .arg = end};
    REQUIRE_INT(bm_http1_new(&options, &end->http), 0);
}

static void finish(struct end *end)
{
    bm_http1_free(end->http);
    bm_websocket_free(end->websocket);
}

/* What HTTP has left to say goes first. */
static void drain(struct end *end)
{
    const uint8_t *bytes;
    size_t len;
    while ((bytes = bm_http1_output(end->http, &len)) != NULL) {
        memcpy(end->out + end->out_len, bytes, len);
        end->out_len += len;
        bm_http1_output_ack(end->http, len);
    }
    while (end->websocket && (bytes = bm_websocket_output(end->websocket, &len)) != NULL) {
        memcpy(end->out + end->out_len, bytes, len);
        end->out_len += len;
        bm_websocket_output_ack(end->websocket, len);
    }
}

/* Gives `to` what `from` has said since, in pieces. */
static void carry(struct end *from, struct end *to, size_t piece)
{
    static const struct bm_websocket_handlers handlers = {.on_data = on_data, .on_close = on_close};
    drain(from);
    while (from->taken < from->out_len) {
        size_t len = from->out_len - from->taken < piece ? from->out_len - from->taken : piece;
        const uint8_t *bytes = from->out + from->taken;
        size_t used = 0;
        if (!to->websocket) {
            int r = bm_http1_receive(to->http, bytes, len, 0, &used);
            CHECK_INT(r, bm_http1_upgraded(to->http) ? BM_HTTP1_UPGRADED : 0);
            if (r == BM_HTTP1_UPGRADED) {
                struct bm_websocket_options options = {
                    .client = to->client, .handlers = &handlers, .arg = to};
                REQUIRE_INT(bm_websocket_new(&options, &to->websocket), 0);
            }
        }
        if (to->websocket)
            CHECK(bm_websocket_receive(to->websocket, bytes + used, len - used, 0) >= 0);
        from->taken += len;
    }
}

static void say(struct end *end, const char *text)
{
    struct bm_bytes piece = bm_bytes(text, strlen(text));
    REQUIRE(end->websocket);
    CHECK_INT(bm_websocket_send(end->websocket, &piece, 1), 0);
}

TEST(upgrade_leads_from_a_request_to_messages)
{
    for (size_t piece = 1; piece < 5000; piece *= 70) {
        test_note("pieces of %zu", piece);
        begin(&client, true);
        begin(&server, false);
        REQUIRE_INT(bm_websocket_offer_init(&client.offer, false), 0);
        struct bm_http1_ask ask = {
            .method = "GET",
            .target = "/beam/v1/ws",
            .authority = "example.com",
            .fields = client.offer.fields,
            .field_count = client.offer.field_count,
            .upgrade = BM_WEBSOCKET_UPGRADE,
        };
        CHECK_INT(bm_http1_ask(client.http, &ask), 0);
        carry(&client, &server, piece);
        say(&server, "early"); /* right behind the 101 */
        carry(&server, &client, piece);
        CHECK_INT(client.status, 101);
        CHECK_STR(client.messages, "early ");
        say(&client, "one");
        say(&client, "two");
        CHECK_INT(bm_websocket_close(client.websocket, BM_WEBSOCKET_NORMAL, "", 0), 0);
        carry(&client, &server, piece);
        CHECK_STR(server.messages, "one two ");
        CHECK_UINT(server.closed, 1000);
        carry(&server, &client, piece);
        CHECK_UINT(client.closed, 1000);
        CHECK_INT(bm_websocket_over(server.websocket), 1);
        finish(&client);
        finish(&server);
    }
}

TEST(upgrade_that_is_refused_leaves_the_connection_as_it_was)
{
    begin(&client, true);
    begin(&server, false);
    REQUIRE_INT(bm_websocket_offer_init(&client.offer, false), 0);
    struct bm_http1_ask ask = {
        .method = "GET",
        .target = "/beam/v1/ws",
        .authority = "example.com",
        .fields = client.offer.fields,
        .field_count = 2, /* without a key */
        .upgrade = BM_WEBSOCKET_UPGRADE,
    };
    for (unsigned i = 0; i < 2; i++) {
        CHECK_INT(bm_http1_ask(client.http, &ask), 0);
        carry(&client, &server, 1000);
        CHECK_INT(server.answer.status, 400);
        carry(&server, &client, 1000);
        CHECK_INT(client.status, -BEAM_EWEBSOCKET_HANDSHAKE);
        CHECK_PTR(client.websocket, NULL);
        CHECK_PTR(server.websocket, NULL);
    }
    finish(&client);
    finish(&server);
}
