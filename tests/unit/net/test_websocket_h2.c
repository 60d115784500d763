/* The handshake of WebSocket over HTTP/2 (RFC 8441), between two ends in memory: what the handshake
 * makes is what the engine takes, and the other way round. */
#include "net/proto/websocket_handshake.h"
#include "tests/unit/net/h2_ends.h"

static struct end client, server;
static struct bm_websocket_offer offer;
static int verdict; /* of the client on the answer */
static unsigned status_came;

static void judge(struct bm_h2_stream *stream, const struct bm_h2_request *request, void *arg)
{
    static const struct bm_websocket_policy policy;
    const struct bm_websocket_request asked = {
        .extended = true,
        .method = request->method.ptr,
        .method_len = request->method.len,
        .authority = request->authority.ptr,
        .authority_len = request->authority.len,
        .fields = request->fields,
        .field_count = request->fields_count,
    };
    struct bm_websocket_answer answer;
    bm_websocket_judge(&asked, &policy, &answer);
    CHECK_INT(
        bm_h2_respond(stream, (unsigned)answer.status, answer.fields, answer.field_count, NULL), 0);
}

static void verify(struct bm_h2_stream *stream, unsigned status, const struct bm_field *fields,
                   size_t count, void *arg)
{
    status_came = status;
    verdict = bm_websocket_offer_verify(&offer, (int)status, fields, count);
}

static void open_end(struct end *end, bool is_server)
{
    static const struct bm_h2_handlers handlers = {.on_request = judge, .on_response = verify};
    const struct bm_h2_options options = {
        .server = is_server, .handlers = &handlers, .arg = end, .now_ns = BM_NS_PER_S};
    memset(end, 0, sizeof(*end));
    end->now_ns = BM_NS_PER_S;
    REQUIRE_INT(bm_h2_new(&end->account, &options, &end->h2), 0);
}

static void ask(size_t field_count)
{
    struct bm_h2_stream *stream;
    const struct bm_h2_request request = {
        .method = STR("CONNECT"),
        .scheme = STR("https"),
        .authority = STR("a.test"),
        .path = STR("/beam/v1/ws"),
        .protocol = STR("websocket"),
        .fields = offer.fields,
        .fields_count = field_count,
    };
    verdict = 1;
    status_came = 0;
    REQUIRE_INT(bm_h2_request(client.h2, &request, NULL, NULL, &stream), 0);
    ends_talk(&client, &server);
}

TEST(websocket_is_offered_and_taken_over_h2)
{
    open_end(&client, false);
    open_end(&server, true);
    ends_talk(&client, &server);
    REQUIRE_INT(bm_websocket_offer_init(&offer, true), 0);
    ask(offer.field_count);
    CHECK_UINT(status_came, 200);
    CHECK_INT(verdict, 0);
    ask(offer.field_count - 1); /* without the protocol: refused in the same way */
    CHECK_UINT(status_came, 400);
    CHECK(verdict < 0);
    ends_close(&client, &server);
}
