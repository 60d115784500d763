/* Requests for sessions that are none: what they are answered. docs/spec/http.md S1, S2, B1. */
#include "tests/unit/net/dial_rig.h"

static struct {
    struct bm_connection *connection;
    unsigned opens, answers, closes;
    unsigned status;
    char name[32], value[128]; /* a field of the answer that the row asks for */
} client;

static void client_open(struct bm_connection *connection, void *arg)
{
    (void)connection;
    (void)arg;
    client.opens++;
}

static void client_close(struct bm_connection *connection, int error, const char *why, void *arg)
{
    (void)connection;
    (void)error;
    (void)why;
    (void)arg;
    client.connection = NULL;
}

static const struct bm_connection_owner client_owner = {.on_open = client_open,
                                                        .on_close = client_close};

static void got_answer(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                       size_t field_count, void *arg)
{
    const struct bm_field *field = bm_field_find(fields, field_count, client.name);
    (void)exchange;
    (void)arg;
    client.answers++;
    client.status = status;
    snprintf(client.value, sizeof(client.value), "%.*s", field ? (int)field->value_len : 0,
             field ? field->value : "");
}

static void got_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    (void)bytes;
    (void)arg;
    bm_exchange_consumed(exchange, len);
}

static ssize_t says_nothing(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                            void *arg)
{
    (void)exchange;
    (void)buf;
    (void)len;
    (void)ret_end;
    (void)arg;
    return 0;
}

static void got_close(struct bm_exchange *exchange, int error, void *arg)
{
    (void)exchange;
    (void)error;
    (void)arg;
    client.closes++;
}

static const struct bm_exchange_handlers handlers = {
    .on_answer = got_answer,
    .on_body = got_body,
    .read = says_nothing,
    .on_close = got_close,
};

struct row {
    const char *what;
    bool http1;
    const char *method, *path, *protocol;
    bool body;
    struct bm_field fields[4];
    unsigned status;
    const char *name, *value; /* what the answer has */
};

#define TYPE BM_FIELD("content-type", "application/x-beam")
#define VERSION BM_FIELD("beam-version", "1")
#define SOCKET BM_FIELD("sec-websocket-version", "13")
#define SPEAKS BM_FIELD("sec-websocket-protocol", "beam.v1")
#define KEY BM_FIELD("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")

static void try_row(const struct row *row)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(rig.port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_INT(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    const struct bm_connection_options options = {
        .core = rig.core,
        .http1 = row->http1,
        .http2 = !row->http1,
        .owner = &client_owner,
    };
    memset(&client, 0, sizeof(client));
    test_note("%s", row->what);
    snprintf(client.name, sizeof(client.name), "%s", row->name ? row->name : "");
    REQUIRE_INT(bm_connection_new(&options, &fd, &client.connection), 0);
    RIG_UNTIL(client.opens > 0);
    if (row->protocol)
        RIG_UNTIL(bm_connection_connect_protocol(client.connection));
    size_t count = 0;
    while (count < 4 && row->fields[count].name)
        count++;
    struct bm_exchange *exchange;
    const struct bm_connection_ask ask = {
        .method = {row->method, strlen(row->method)},
        .authority = {"localhost", 9},
        .path = {row->path, strlen(row->path)},
        .protocol = {row->protocol, row->protocol ? strlen(row->protocol) : 0},
        .fields = row->fields,
        .field_count = count,
        .body = row->body,
        .upgrade = row->http1 && count > 0 && row->fields[0].name[0] == 's' ? "websocket" : NULL,
    };
    REQUIRE_INT(bm_connection_ask(client.connection, &ask, &handlers, NULL, &exchange), 0);
    RIG_UNTIL(client.answers > 0);
    CHECK_UINT(client.status, row->status);
    if (row->value)
        CHECK_STR(client.value, row->value);
    if (client.connection)
        bm_connection_close(client.connection);
    RIG_UNTIL(!client.connection && rig.connections == 0);
}

TEST(a_request_for_a_session_is_judged_by_its_fields)
{
    static const struct row rows[] = {
        {"a session",
         false,
         "POST",
         "/beam/v1",
         NULL,
         true,
         {TYPE, VERSION},
         200,
         "cache-control",
         "no-store"},
        {"a type with parameters",
         false,
         "POST",
         "/beam/v1",
         NULL,
         true,
         {BM_FIELD("content-type", "Application/X-Beam; v=1"), VERSION},
         200,
         "x-accel-buffering",
         "no"},
        {"over HTTP/1.1",
         true,
         "POST",
         "/beam/v1",
         NULL,
         true,
         {TYPE, VERSION},
         426,
         "upgrade",
         "websocket"},
        {"another method",
         false,
         "PUT",
         "/beam/v1",
         NULL,
         true,
         {TYPE, VERSION},
         405,
         "allow",
         "POST"},
        {"another type",
         false,
         "POST",
         "/beam/v1",
         NULL,
         true,
         {BM_FIELD("content-type", "application/json"), VERSION},
         415,
         NULL,
         NULL},
        {"no type", false, "POST", "/beam/v1", NULL, true, {VERSION}, 415, NULL, NULL},
        {"no version", false, "POST", "/beam/v1", NULL, true, {TYPE}, 400, "beam-version", "1"},
        {"a version that is no number",
         false,
         "POST",
         "/beam/v1",
         NULL,
         true,
         {TYPE, BM_FIELD("beam-version", "one")},
         400,
         NULL,
         NULL},
        {"another version",
         false,
         "POST",
         "/beam/v1",
         NULL,
         true,
         {TYPE, BM_FIELD("beam-version", "12")},
         406,
         "beam-version",
         "1"},
        {"a WebSocket",
         true,
         "GET",
         "/beam/v1/ws",
         NULL,
         false,
         {SOCKET, SPEAKS, KEY},
         101,
         "sec-websocket-protocol",
         "beam.v1"},
        {"one inside HTTP/2",
         false,
         "CONNECT",
         "/beam/v1/ws",
         "websocket",
         true,
         {SOCKET, SPEAKS},
         200,
         "sec-websocket-protocol",
         "beam.v1"},
        {"another protocol inside HTTP/2",
         false,
         "CONNECT",
         "/beam/v1/ws",
         "connect-udp",
         true,
         {SOCKET, SPEAKS},
         501,
         NULL,
         NULL},
        {"a WebSocket of something else",
         true,
         "GET",
         "/beam/v1/ws",
         NULL,
         false,
         {SOCKET, KEY},
         400,
         NULL,
         NULL},
        {"from a page of somebody else",
         true,
         "GET",
         "/beam/v1/ws",
         NULL,
         false,
         {SOCKET, SPEAKS, KEY, BM_FIELD("origin", "https://evil.example")},
         403,
         NULL,
         NULL},
        {"a GET that is no WebSocket",
         true,
         "GET",
         "/beam/v1/ws",
         NULL,
         false,
         {{0}},
         426,
         "upgrade",
         "websocket"},
    };
    rig_begin(false);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        try_row(&rows[i]);
    rig_end();
}

TEST(a_session_has_an_id_of_its_own)
{
    static const struct row row = {"a session", false,           "POST", "/beam/v1",     NULL,
                                   true,        {TYPE, VERSION}, 200,    "beam-session", NULL};
    char first[32];
    rig_begin(false);
    try_row(&row);
    CHECK_UINT(strlen(client.value), 22);
    CHECK_UINT(
        strspn(client.value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
        22);
    snprintf(first, sizeof(first), "%s", client.value);
    try_row(&row);
    CHECK(strcmp(client.value, first) != 0);
    rig_end();
}

TEST(a_server_that_drains_takes_no_session)
{
    static const struct row rows[] = {
        {"a session",
         false,
         "POST",
         "/beam/v1",
         NULL,
         true,
         {TYPE, VERSION},
         503,
         "retry-after",
         "1"},
        {"a WebSocket",
         true,
         "GET",
         "/beam/v1/ws",
         NULL,
         false,
         {SOCKET, SPEAKS, KEY},
         503,
         "retry-after",
         "1"},
    };
    rig_begin(false);
    atomic_store(&rig.server.draining, true);
    try_row(&rows[0]);
    try_row(&rows[1]);
    rig_end();
}
