

#include "net/proto/http1_line.h"
#include "net/proto/outbox.h"
#include "tests/unit/net/http1_rig.h"
#include "tests/unit/runtime/scarce.h"

static struct rig server, client;

TEST(http1_request_is_answered)
{
    rig_init(&server, false);
    struct bm_field fields[] = {BM_FIELD("content-type", "text/plain"), BM_FIELD("x-empty", "")};
    server.answer.fields = fields;
    server.answer.field_count = 2;
    CHECK_INT(
        rig_say(&server, "GET /a?b=c HTTP/1.1\r\nHost: example.com:80\r\nX-Other:  v w \r\n\r\n"),
        0);
    CHECK_STR(server.log, "GET /a?b=c end sent");
    CHECK_STR((char *)server.out, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-empty: \r\n"
                                  "content-length: 2\r\n\r\nok");
    CHECK_INT(bm_http1_over(server.http), 0);
    CHECK(bm_http1_wants_input(server.http));
    rig_deinit(&server);
}

static void keep_head(struct bm_http1 *http, const struct bm_http1_message *message, void *arg)
{
    struct rig *rig = arg;
    rig->message = message;
    rig_log(rig, "%.*s|%.*s", (int)message->authority_len, message->authority,
            (int)message->path_len, message->path);
    for (size_t i = 0; i < message->field_count; i++)
        rig_log(rig, "%.*s=%.*s", (int)message->fields[i].name_len, message->fields[i].name,
                (int)message->fields[i].value_len, message->fields[i].value);
    (void)http;
}

TEST(http1_head_is_the_same_in_whatever_pieces_it_comes)
{
    static const char text[] =
        "\r\nOPTIONS http://Some-Host:8080 HTTP/1.1\r\nHOST: some-host:8080\r\n"
        "X-Empty:\r\nx-blanks: \t a b\t \r\nCookie: a\r\ncookie: b\r\n\r\n";
    struct bm_http1_handlers handlers = rig_handlers;
    handlers.on_message = keep_head;
    for (size_t piece = 1; piece <= sizeof(text); piece++) {
        rig_init(&server, false);
        bm_http1_free(server.http);
        REQUIRE_INT(bm_http1_new(&(struct bm_http1_options){.account = &server.account,
                                                            .handlers = &handlers,
                                                            .arg = &server},
                                 &server.http),
                    0);
        CHECK_INT(rig_give(&server, text, sizeof(text) - 1, piece), 0);
        CHECK_STR(server.log, "Some-Host:8080|* host=some-host:8080 x-empty= x-blanks=a b cookie=a "
                              "cookie=b end");
        rig_deinit(&server);
    }
}

TEST(http1_bodies_come_as_they_are)
{
    static const struct {
        const char *framing, *body, *log;
    } rows[] = {
        {"Content-Length: 5\r\n", "hello", "POST / sent 'hello' end"},
        {"Content-Length:   5  \r\n", "hello", "POST / sent 'hello' end"},
        {"Content-Length: 0\r\n", "", "POST / end sent"},
        {"Transfer-Encoding:   chunked  \r\n", "0\r\n\r\n", "POST / sent end"},
        {"Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", "POST / sent 'hello' end"},
        {"transfer-encoding: Chunked\r\n", "0\r\n\r\n", "POST / sent end"},
        {"Transfer-Encoding: chunked\r\n",
         "0003;a=\"b c\";d\r\nabc\r\nA\r\n0123456789\r\n000;x\r\nTrailer: no\r\nOther:x\r\n\r\n",
         "POST / sent 'abc' '0123456789' end"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[512];
        test_note("row %zu", i);
        snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n%s", rows[i].framing,
                 rows[i].body);
        rig_init(&server, false);
        CHECK_INT(rig_say(&server, text), 0);
        CHECK_STR(server.log, rows[i].log);
        CHECK_INT(rig_last_status(&server), 200);
        /* ... and the next request is found behind them, however the bytes come. */
        CHECK_INT(rig_say(&server, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
        CHECK(strstr(server.log, "GET /next end sent"));
        rig_deinit(&server);
        rig_init(&server, false);
        CHECK_INT(rig_give(&server, text, strlen(text), 1), 0);
        CHECK_INT(rig_last_status(&server), 200);
        CHECK(strstr(server.log, "end"));
        CHECK(bm_http1_wants_input(server.http));
        rig_deinit(&server);
    }
}

/* What each hostile request is answered with; nothing of what stands behind it is ever a
 * request. */
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
static const struct {
    int status;
    const char *text;
    size_t len; /* 0: up to the NUL */
} hostile[] = {
    /* Two lengths, or two ways to say it (RFC 9112 section 6.1 and 6.3). */
    {400, POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 0},
    {400, POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 0},
    {400, POST "Content-Length: 5, 5\r\n\r\nhello", 0},
    {400, POST "Content-Length: +5\r\n\r\nhello", 0},
    {400, POST "Content-Length: -5\r\n\r\nhello", 0},
    {400, POST "Content-Length: 0x5\r\n\r\nhello", 0},
    {400, POST "Content-Length: 5 5\r\n\r\nhello", 0},
    {400, POST "Content-Length: 5;\r\n\r\nhello", 0},
    {400, POST "Content-Length:\r\n\r\n", 0},
    {400, POST "Content-Length: five\r\n\r\n", 0},
    {400, POST "Content-Length: 18446744073709551616\r\n\r\n", 0},
    {400, POST "Content-Length: 99999999999999999999999999999999\r\n\r\n", 0},
    {413, POST "Content-Length: 9223372036854775807\r\n\r\n", 0},
    {413, POST "Content-Length: 16777217\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 0},
    {400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {411, "POST / HTTP/1.0\r\nHost: a\r\n\r\n", 0},
    /* Codings that are not known, or hidden. */
    {400, POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 0},
    {501, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: identity\r\n\r\n", 0},
    {501, POST "Transfer-Encoding:\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "X: y\r\n\tfolded\r\n\r\n", 0},
    {400, POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 0},
    {400, POST "\r\x0bTransfer-Encoding: chunked\r\n\r\n", 0},
    {400, POST "X: y\rTransfer-Encoding: chunked\r\n\r\n", 0},
    {400, POST "X: y\nTransfer-Encoding: chunked\r\n\r\n", 0},
    {400, POST "X: y\r\r\nTransfer-Encoding: chunked\r\n\r\n", 0},
    {400, POST "X: y\r\n\nTransfer-Encoding: chunked\r\n\r\n", 0},
    {400,
     POST "Trans\xe2\x80\x8b"
          "fer-Encoding: chunked\r\n\r\n",
     0},
    /* Line ends. */
    {400, "GET / HTTP/1.1\nHost: a\n\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n\n", 0},
    {400, "GET / HTTP/1.1\rHost: a\r\r", 0},
    {400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    /* Bytes that do not belong into fields. */
    {400, "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 29},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 34},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nNo-Colon\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n: nameless\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX (y): z\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: z\r\n\r\n", 0},
    /* Where it goes to. */
    {400, "GET / HTTP/1.1\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 0},
    {400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 0},
    {400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 0},
    {400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET http://a/ HTTP/1.1\r\n\r\n", 0},
    {400, "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {501, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    /* The request line. */
    {400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET / a HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 0},
    {400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET /\r\nHost: a\r\n\r\n", 0},
    {400, "GET / HTTX/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET / http/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 0},
    {400, "GET / HTTP/11\r\nHost: a\r\n\r\n", 0},
    {505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 0},
    {505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 0},
    {505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 0},
    {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
    {501, "FETCH / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {501, "get / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11}, /* the beginning of TLS */
    {417, POST "Content-Length: 5\r\nExpect: 200-ok\r\n\r\n", 0},
    /* Chunks. */
    {400, CHUNKED "g\r\n", 0},
    {400, CHUNKED "\r\n", 0},
    {400, CHUNKED "-1\r\n", 0},
    {400, CHUNKED "+1\r\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED "0x1\r\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED " 1\r\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1 \r\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1 ;x\r\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1\ra\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1;x\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1;x\ra\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1;\x01\r\na\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1\r\nab\r\n0\r\n\r\n", 0},
    {400, CHUNKED "1\r\na0\r\n\r\n", 0},
    {400, CHUNKED "1\r\na\n0\r\n\r\n", 0},
    {400, CHUNKED "1\r\na\rX0\r\n\r\n", 0},
    {400, CHUNKED "0\r\n\n", 0},
    {400, CHUNKED "0\r\n\rX", 0},
    {400, CHUNKED "0\r\nX : y\r\n\r\n", 0},
    {400, CHUNKED "0\r\n X: y\r\n\r\n", 0},
    {400, CHUNKED "0\r\nX\r\n\r\n", 0},
    {400, CHUNKED "0\r\nX: y\nZ: a\r\n\r\n", 0},
    {400, CHUNKED "0\r\nGET / HTTP/1.1\r\n\r\n", 0},
    {400, CHUNKED "100000000\r\n", 0},
    {400, CHUNKED "000000001\r\na\r\n0\r\n\r\n", 0},
    {413, CHUNKED "ffffffff\r\n", 0},
    {413, CHUNKED "1000001\r\n", 0},
    {400, CHUNKED "fffffffffffffffff\r\n", 0},
};

TEST(http1_what_could_be_read_in_two_ways_is_refused)
{
    static const char behind[] = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        size_t len = hostile[i].len ? hostile[i].len : strlen(hostile[i].text);
        char text[512];
        REQUIRE(len + sizeof(behind) <= sizeof(text));
        memcpy(text, hostile[i].text, len);
        memcpy(text + len, behind, sizeof(behind));
        for (size_t piece = 1; piece < 4000; piece *= 60) {
            test_note("row %zu, pieces of %zu: %.*s", i, piece, (int)len, hostile[i].text);
            rig_init(&server, false);
            server.quiet = true;
            int r = rig_give(&server, text, len + sizeof(behind) - 1, piece);
            CHECK(r < 0);
            rig_drain(&server);
            CHECK_INT(rig_last_status(&server), hostile[i].status);
            CHECK(strstr((char *)server.out, "connection: close\r\n"));
            CHECK(!strstr(server.log, "smuggled"));
            CHECK_INT(bm_http1_over(server.http), 1);
            size_t used = 9;
            CHECK_INT(bm_http1_receive(server.http, (uint8_t *)text, 1, 0, &used), r);
            rig_deinit(&server);
        }
    }
}

/* A request that grows by `more` bytes in one place: just within a limit it is answered, and one
 * byte beyond it is refused. */
static void check_limit(const char *before, const char *unit, size_t times, const char *after,
                        int status)
{
    static char text[1 << 17];
    size_t unit_len = strlen(unit);
    for (unsigned over = 0; over < 2; over++) {
        size_t len = (size_t)snprintf(text, sizeof(text), "%s", before);
        for (size_t i = 0; i < times + over; i++, len += unit_len) {
            REQUIRE(len + unit_len + strlen(after) < sizeof(text));
            memcpy(text + len, unit, unit_len + 1);
        }
        strcat(text + len, after);
        test_note("%zu times %.10s, %d", times + over, unit, status);
        rig_init(&server, false);
        server.quiet = over == 1;
        int r = rig_give(&server, text, strlen(text), 1000);
        rig_drain(&server);
        CHECK_INT(r, over ? -BEAM_EHTTP_TOO_LARGE : 0);
        CHECK_INT(rig_last_status(&server), over ? status : 200);
        rig_deinit(&server);
    }
}

TEST(http1_limits_are_what_they_say)
{
    /* "GET / HTTP/1.1" and "Host: a", CR, LF without the path, and without the value */
    check_limit("GET /", "a", BM_HTTP1_START_LINE_MAX - 14, " HTTP/1.1\r\nHost: a\r\n\r\n", 414);
    check_limit("GET / HTTP/1.1\r\nHost: a\r\nX: ", "a", BM_HTTP1_FIELDS_LEN_MAX - 14, "\r\n\r\n",
                431);
    check_limit("GET / HTTP/1.1\r\nHost: a\r\n", "X: y\r\n", BM_HTTP1_FIELDS_MAX - 1, "\r\n", 431);
    check_limit(CHUNKED "0\r\n", "X: y\r\n", BM_HTTP1_FIELDS_MAX, "\r\n", 431);
    check_limit(CHUNKED "0\r\nX: ", "a", BM_HTTP1_TRAILERS_LEN_MAX - 7, "\r\n\r\n", 431);
}

TEST(http1_extensions_of_chunks_are_bounded)
{
    char extension[BM_HTTP1_EXTENSION_MAX + 1], text[1024];
    memset(extension, 'x', sizeof(extension));
    extension[0] = ';';
    for (unsigned over = 0; over < 2; over++) { /* of one chunk */
        rig_init(&server, false);
        snprintf(text, sizeof(text), CHUNKED "1%.*s\r\na\r\n0\r\n\r\n",
                 (int)(BM_HTTP1_EXTENSION_MAX + over), extension);
        CHECK_INT(rig_say(&server, text), over ? -BEAM_EHTTP_SYNTAX : 0);
        rig_deinit(&server);
    }
    rig_init(&server, false); /* of all */
    CHECK_INT(rig_say(&server, CHUNKED), 0);
    snprintf(text, sizeof(text), "1%.*s\r\na\r\n", (int)BM_HTTP1_EXTENSION_MAX, extension);
    for (size_t i = 0; i < BM_HTTP1_EXTENSIONS_MAX / BM_HTTP1_EXTENSION_MAX; i++)
        CHECK_INT(rig_say(&server, text), 0);
    CHECK_INT(rig_say(&server, "1\r\na\r\n1;x\r\n"), -BEAM_EHTTP_SYNTAX);
    rig_deinit(&server);
}

TEST(http1_sum_of_chunks_is_bounded)
{
    static char body[65536];
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(rig_say(&server, CHUNKED), 0);
    for (size_t i = 0; i < BM_HTTP1_BODY_MAX / sizeof(body); i++) {
        CHECK_INT(rig_say(&server, "10000\r\n"), 0);
        CHECK_INT(rig_give(&server, body, sizeof(body), SIZE_MAX), 0);
        CHECK_INT(rig_say(&server, "\r\n"), 0);
        server.log_len = 0;
    }
    CHECK_INT(rig_say(&server, "1\r\n"), -BEAM_EHTTP_TOO_LARGE);
    rig_drain(&server);
    CHECK_INT(rig_last_status(&server), 413);
    CHECK_STR(server.log, "abort:HTTP_TOO_LARGE");
    CHECK(server.account.peak < 16384);
    rig_deinit(&server);
}

TEST(http1_next_request_waits_for_the_answer)
{
    static const char text[] =
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    size_t first = strlen(text) / 2, used;
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)text, strlen(text), 0, &used), 0);
    CHECK_UINT(used, first);
    CHECK_STR(server.log, "GET /1 end");
    CHECK(!bm_http1_wants_input(server.http));
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)text + first, 5, 0, &used), 0);
    CHECK_UINT(used, 0);
    CHECK_INT(bm_http1_answer(server.http, &server.answer), 0);
    CHECK_INT(bm_http1_answer(server.http, &server.answer), -ENOTCONN);
    CHECK_STR(server.log, "GET /1 end"); /* nothing is called from there */
    rig_drain(&server);
    CHECK_STR(server.log, "GET /1 end sent");
    CHECK(bm_http1_wants_input(server.http));
    CHECK_INT(rig_say(&server, text + first), 0);
    CHECK_STR(server.log, "GET /1 end sent GET /2 end");
    rig_deinit(&server);
}

TEST(http1_requests_of_a_peer_that_reads_no_answers_are_not_taken)
{
    static const char text[] = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    static char bytes[10000];
    size_t used = strlen(text), count = 0;
    rig_init(&server, false);
    server.answer.body = (struct bm_http1_body){.len = sizeof(bytes), .bytes = bytes};
    while (used == strlen(text)) {
        CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)text, strlen(text), 0, &used), 0);
        count++;
        server.log_len = 0;
        REQUIRE(count < 100);
    }
    CHECK_UINT(used, 0);
    CHECK(server.account.peak < BM_HTTP1_OUTPUT_MAX + 4 * sizeof(bytes));
    rig_drain(&server);
    CHECK(bm_http1_wants_input(server.http));
    rig_deinit(&server);
}

TEST(http1_connection_persists_or_not)
{
    static const struct {
        const char *text;
        const char *said; /* of the connection, in the answer */
        bool ended, close;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", NULL, false, false},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "close", true, true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close", true, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x , Close\r\n\r\n", "close", true, false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n", "close", true,
         false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", NULL, false, false},
        {"GET / HTTP/1.0\r\n\r\n", "close", true, false},
        {"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "keep-alive", false, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char said[64];
        test_note("row %zu", i);
        rig_init(&server, false);
        server.answer.close = rows[i].close;
        CHECK_INT(rig_say(&server, rows[i].text), 0);
        rig_drain(&server);
        CHECK_STR(server.log, "GET / end sent");
        CHECK_INT(bm_http1_over(server.http), rows[i].ended);
        CHECK_INT(bm_http1_wants_input(server.http), !rows[i].ended);
        snprintf(said, sizeof(said), "\r\nconnection: %s\r\n", rows[i].said ? rows[i].said : "");
        CHECK_INT(strstr((char *)server.out, said) != NULL, rows[i].said != NULL);
        rig_deinit(&server);
    }
}

TEST(http1_drained_connection_ends_with_its_exchange)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t len = 0; len < sizeof(text); len++) {
        test_note("after %zu bytes", len);
        rig_init(&server, false);
        server.quiet = true;
        CHECK_INT(rig_give(&server, text, len, SIZE_MAX), 0);
        bm_http1_drain(server.http);
        CHECK_INT(bm_http1_over(server.http), len == 0);
        if (len > 0) {
            CHECK_INT(rig_say(&server, text + len), 0);
            CHECK_INT(bm_http1_answer(server.http, &server.answer), 0);
            rig_drain(&server);
            CHECK_STR(server.log, "GET / end sent");
            CHECK(strstr((char *)server.out, "\r\nconnection: close\r\n"));
            CHECK_INT(bm_http1_over(server.http), 1);
        }
        CHECK(!bm_http1_wants_input(server.http));
        rig_deinit(&server);
    }
    rig_init(&client, true);
    struct bm_http1_ask what = {.method = "GET", .target = "/", .authority = "a"};
    CHECK_INT(bm_http1_ask(client.http, &what), 0);
    rig_drain(&client);
    bm_http1_drain(client.http);
    CHECK_INT(rig_say(&client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), 0);
    CHECK_STR(client.log, "sent 200 end");
    CHECK_INT(bm_http1_ask(client.http, &what), -ENOTCONN);
    CHECK_INT(bm_http1_over(client.http), 1);
    rig_deinit(&client);
}

TEST(http1_answers_have_the_framing_that_fits)
{
    static const struct {
        const char *method;
        unsigned minor;
        int status;
        int64_t len;
        const char *out;
        bool ended;
    } rows[] = {
        {"GET", 1, 200, 3, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nxxx", false},
        {"HEAD", 1, 200, 3, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", false},
        {"HEAD", 1, 200, -1, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", false},
        {"GET", 1, 200, -1,
         "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxxx\r\n0\r\n\r\n", false},
        {"GET", 0, 200, -1, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nxxx", true},
        {"GET", 1, 204, 0, "HTTP/1.1 204 No Content\r\n\r\n", false},
        {"GET", 1, 304, 0, "HTTP/1.1 304 Not Modified\r\n\r\n", false},
        {"GET", 1, 304, 3, "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", false},
        {"GET", 1, 404, 0, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false},
        {"GET", 1, 599, 0, "HTTP/1.1 599 Other\r\ncontent-length: 0\r\n\r\n", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[128];
        test_note("row %zu", i);
        rig_init(&server, false);
        server.give = server.total = 3;
        server.answer = (struct bm_http1_answer){
            .status = rows[i].status,
            .body = {
                .len = rows[i].len, .source = rows[i].len ? &rig_source : NULL, .arg = &server}};
        snprintf(text, sizeof(text), "%s / HTTP/1.%u\r\nHost: a\r\n\r\n", rows[i].method,
                 rows[i].minor);
        CHECK_INT(rig_say(&server, text), 0);
        CHECK_INT(server.answered, 0);
        CHECK_STR((char *)server.out, rows[i].out);
        CHECK_INT(bm_http1_over(server.http), rows[i].ended);
        CHECK_UINT(server.account.used > 0, 1);
        rig_deinit(&server);
    }
}

TEST(http1_body_until_the_end_ends_the_connection_whatever_was_asked)
{
    rig_init(&server, false);
    server.give = server.total = 3;
    server.answer.body = (struct bm_http1_body){.len = -1, .source = &rig_source, .arg = &server};
    CHECK_INT(rig_say(&server, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), 0);
    CHECK_STR((char *)server.out, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nxxx");
    CHECK_INT(bm_http1_over(server.http), 1);
    rig_deinit(&server);
}

TEST(http1_is_over_when_the_last_byte_has_gone)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    size_t used;
    rig_init(&server, false);
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)text, strlen(text), 0, &used), 0);
    CHECK_INT(bm_http1_over(server.http), 0);
    while (rig_drain_some(&server, 1) > 0)
        CHECK_INT(bm_http1_over(server.http), server.out[server.out_len - 1] == 'k');
    CHECK_STR((char *)server.out + server.out_len - 2, "ok");
    rig_deinit(&server);
}

TEST(http1_long_head_is_not_kept)
{
    static char text[12000];
    rig_init(&server, false);
    size_t len =
        (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nX: %09000d\r\n\r\n", 0);
    CHECK_INT(rig_give(&server, text, len, SIZE_MAX), 0);
    CHECK(server.account.peak > 15000);
    CHECK(server.account.used < 9000);
    CHECK_INT(rig_say(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
    rig_deinit(&server);
}

TEST(http1_answers_that_cannot_be_are_not_taken)
{
    static char big[BM_HTTP1_OUTPUT_MAX + 1], long_value[BM_HTTP1_FIELDS_LEN_MAX];
    memset(long_value, 'a', sizeof(long_value) - 1);
    struct bm_field split = BM_FIELD("x", "a\r\nset-cookie: b");
    struct bm_field name = BM_FIELD("x y", "a");
    struct bm_field blank = BM_FIELD("x", " a");
    struct bm_field nul = {.name = "x", .name_len = 1, .value = "a\0b", .value_len = 3};
    struct bm_field length = BM_FIELD("Content-Length", "5");
    struct bm_field coding = BM_FIELD("transfer-encoding", "chunked");
    struct bm_field connection = BM_FIELD("connection", "close");
    struct bm_field large = BM_FIELD("x", long_value);
    const struct {
        int r;
        struct bm_http1_answer answer;
    } rows[] = {
        {-EINVAL, {.status = 200, .fields = &split, .field_count = 1}},
        {-EINVAL, {.status = 200, .fields = &name, .field_count = 1}},
        {-EINVAL, {.status = 200, .fields = &blank, .field_count = 1}},
        {-EINVAL, {.status = 200, .fields = &nul, .field_count = 1}},
        {-EINVAL, {.status = 200, .fields = &length, .field_count = 1}},
        {-EINVAL, {.status = 200, .fields = &coding, .field_count = 1}},
        {-EINVAL, {.status = 200, .fields = &connection, .field_count = 1}},
        {-EMSGSIZE, {.status = 200, .fields = &large, .field_count = 1}},
        {-EMSGSIZE, {.status = 200, .body = {.len = sizeof(big), .bytes = big}}},
        {-EINVAL, {.status = 200, .body = {.len = 5}}},
        {-EINVAL, {.status = 200, .body = {.len = -1, .bytes = "x"}}},
        {-EINVAL, {.status = 200, .body = {.len = -2, .source = &rig_source}}},
        {-EINVAL, {.status = 204, .body = {.len = 1, .bytes = "x"}}},
        {-EINVAL, {.status = 100}},
        {-EINVAL, {.status = 99}},
        {-EINVAL, {.status = 600}},
        {-EINVAL, {.status = 101, .upgrade = "x"}},
        {-EINVAL, {.status = 426}},
        {-EINVAL, {.status = 426, .upgrade = "a\r\nb: c"}},
        {-EINVAL, {.status = 200, .upgrade = "x"}},
    };
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(bm_http1_answer(server.http, &server.answer), -ENOTCONN);
    CHECK_INT(rig_say(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        CHECK_INT(bm_http1_answer(server.http, &rows[i].answer), rows[i].r);
        CHECK_UINT(rig_drain_some(&server, SIZE_MAX), 0);
    }
    CHECK_INT(bm_http1_answer(server.http, &server.answer), 0);
    rig_drain(&server);
    CHECK_INT(rig_last_status(&server), 200);
    rig_deinit(&server);
}

TEST(http1_source_is_asked_when_there_is_room_and_it_has_something)
{
    rig_init(&server, false);
    server.answer.body = (struct bm_http1_body){.len = -1, .source = &rig_source, .arg = &server};
    server.give = 5;
    server.total = 1 << 20;
    size_t used, len;
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                               27, 0, &used),
              0);
    CHECK_UINT(server.reads, 0);
    CHECK(bm_http1_output(server.http, &len) != NULL);
    CHECK(server.account.used < 2 * BM_HTTP1_OUTPUT_MAX); /* and no further */
    unsigned reads = server.reads;
    CHECK(bm_http1_output(server.http, &len) != NULL);
    CHECK_UINT(server.reads, reads);
    server.give = 0;
    rig_drain(&server);
    CHECK_UINT(server.reads, reads + 1); /* it had nothing */
    rig_drain(&server);
    CHECK_UINT(server.reads, reads + 1); /* ... and is not asked until it says so */
    server.give = 100;
    server.total = 100;
    size_t out = server.out_len;
    bm_http1_resume(server.http);
    rig_drain(&server);
    CHECK_MEM(server.out + out, 4, "64\r\n", 4);
    CHECK_MEM(server.out + server.out_len - 7, 7, "\r\n0\r\n\r\n", 7);
    CHECK_UINT(server.out_len - out, 4 + 100 + 7);
    CHECK_STR(server.log, "GET / end sent");
    reads = server.reads;
    bm_http1_resume(server.http);
    rig_drain(&server);
    CHECK_UINT(server.reads, reads);
    rig_deinit(&server);
}

TEST(http1_source_is_asked_for_much_at_once)
{
    rig_init(&server, false);
    server.answer.body = (struct bm_http1_body){.len = -1, .source = &rig_source, .arg = &server};
    server.give = server.total = 100000;
    CHECK_INT(rig_say(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
    CHECK(server.out_len > 100000);
    CHECK(server.reads < 10);
    rig_deinit(&server);
}

TEST(http1_source_that_fails_breaks_the_connection)
{
    static const struct {
        int64_t len;
        size_t total;
        int source_error;
        const char *log;
        int r;
    } rows[] = {
        {-1, 10, -EIO, "GET / end abort:EIO", -EIO},
        {20, 10, -EIO, "GET / end abort:EIO", -EIO},
        {20, 10, 0, "GET / end abort:EPROTO", -EPROTO}, /* it promised more */
        {10, 20, 0, "GET / end sent", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        rig_init(&server, false);
        server.answer.body =
            (struct bm_http1_body){.len = rows[i].len, .source = &rig_source, .arg = &server};
        server.give = 100;
        server.total = rows[i].total;
        server.source_error = rows[i].source_error;
        int r = rig_say(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK(r == 0 || r == rows[i].r);
        rig_drain(&server);
        CHECK_STR(server.log, rows[i].log);
        CHECK(!strstr((char *)server.out, "\r\n0\r\n\r\n"));
        CHECK_INT(bm_http1_over(server.http), rows[i].r);
        rig_deinit(&server);
    }
}

TEST(http1_continue_is_sent_when_the_body_is_wanted)
{
    static const char text[] = POST "Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n";
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    rig_init(&server, false); /* at once */
    server.quiet = true;
    CHECK_INT(rig_say(&server, text), 0);
    CHECK_STR((char *)server.out, go_on);
    CHECK_INT(rig_say(&server, "hello"), 0);
    CHECK_INT(bm_http1_answer(server.http, &server.answer), 0);
    rig_drain(&server);
    CHECK_STR(server.log, "POST / 'hello' end sent");
    CHECK_INT(bm_http1_over(server.http), 0);
    rig_deinit(&server);

    rig_init(&server, false); /* later */
    server.quiet = server.hold = true;
    CHECK_INT(rig_say(&server, text), 0);
    CHECK_UINT(server.out_len, 0);
    CHECK(!bm_http1_wants_input(server.http));
    bm_http1_hold(server.http, false);
    rig_drain(&server);
    CHECK_STR((char *)server.out, go_on);
    rig_deinit(&server);

    rig_init(&server, false); /* not at all: whoever did not send the body may not go on */
    server.answer.status = 403;
    CHECK_INT(rig_say(&server, text), 0);
    CHECK(!strstr((char *)server.out, "100 Continue"));
    CHECK(strstr((char *)server.out, "connection: close"));
    CHECK_STR(server.log, "POST / sent abort:ECANCELED");
    CHECK_INT(bm_http1_over(server.http), 1);
    rig_deinit(&server);

    rig_init(&server, false); /* nor to who has not waited for it */
    server.quiet = true;
    size_t used;
    char both[256];
    snprintf(both, sizeof(both), "%shel", text);
    CHECK_INT(bm_http1_receive(server.http, (uint8_t *)both, strlen(both), 0, &used), 0);
    rig_drain(&server);
    CHECK_UINT(server.out_len, 0);
    CHECK_INT(rig_say(&server, "lo"), 0);
    CHECK_INT(bm_http1_answer(server.http, &server.answer), 0);
    rig_drain(&server);
    CHECK_INT(bm_http1_over(server.http), 0);
    rig_deinit(&server);

    rig_init(&server, false); /* HTTP/1.0 has no such thing */
    server.quiet = true;
    CHECK_INT(
        rig_say(&server, "POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
        0);
    CHECK_UINT(server.out_len, 0);
    rig_deinit(&server);
}

TEST(http1_rest_of_a_request_is_taken_for_the_next_ones_sake_but_not_without_end)
{
    static char body[BM_HTTP1_DRAIN_MAX + 1];
    for (unsigned over = 0; over < 2; over++) {
        char text[128];
        rig_init(&server, false);
        server.hold = true;
        snprintf(text, sizeof(text), POST "Content-Length: %zu\r\n\r\n", sizeof(body) - !over);
        CHECK_INT(rig_say(&server, text), 0);
        CHECK_INT(rig_last_status(&server), 200);
        CHECK_INT(rig_give(&server, body, sizeof(body) - !over, SIZE_MAX),
                  over ? -BEAM_EHTTP_TOO_LARGE : 0);
        CHECK(strstr(server.log,
                     over ? "POST / sent abort:HTTP_TOO_LARGE" : "POST / sent body:65536 end"));
        CHECK_INT(bm_http1_over(server.http), over);
        CHECK_INT(rig_last_status(&server), 200); /* not a second answer */
        rig_deinit(&server);
    }
}

TEST(http1_held_body_stays_with_the_caller)
{
    size_t used;
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(rig_say(&server, POST "Content-Length: 5\r\n\r\n"), 0);
    bm_http1_hold(server.http, true);
    CHECK(!bm_http1_wants_input(server.http));
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)"hello", 5, 0, &used), 0);
    CHECK_UINT(used, 0);
    CHECK_UINT(bm_http1_next_ns(server.http), UINT64_MAX); /* it is not the peer that is slow */
    bm_http1_hold(server.http, false);
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)"hello", 5, 0, &used), 0);
    CHECK_UINT(used, 5);
    CHECK_STR(server.log, "POST / 'hello' end");
    rig_deinit(&server);

    rig_init(&server, false); /* ... and has as long as ever then */
    server.quiet = true;
    CHECK_INT(rig_say(&server, POST "Content-Length: 5\r\n\r\n"), 0);
    bm_http1_hold(server.http, true);
    server.now_ns += 100 * RIG_SECOND; /* which nobody tells it */
    bm_http1_hold(server.http, false);
    CHECK_INT(bm_http1_tick(server.http, server.now_ns), 0);
    CHECK_UINT(bm_http1_next_ns(server.http), server.now_ns + 20 * RIG_SECOND);
    rig_deinit(&server);
}

TEST(http1_body_that_breaks_is_answered_if_nothing_was)
{
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(rig_say(&server, CHUNKED "1\r\na\r\nx"), -BEAM_EHTTP_SYNTAX);
    rig_drain(&server);
    CHECK_INT(rig_last_status(&server), 400);
    CHECK_STR(server.log, "POST / 'a' abort:HTTP_SYNTAX");
    CHECK_INT(bm_http1_answer(server.http, &server.answer), -ENOTCONN);
    CHECK_INT(bm_http1_over(server.http), 1);
    rig_deinit(&server);

    rig_init(&server, false); /* half an answer is under way: nothing can be said */
    server.answer.body = (struct bm_http1_body){.len = -1, .source = &rig_source, .arg = &server};
    server.total = 1;
    CHECK_INT(rig_say(&server, CHUNKED), 0);
    CHECK_INT(rig_say(&server, "1\r\na\r\nx"), -BEAM_EHTTP_SYNTAX);
    rig_drain(&server);
    CHECK_INT(rig_last_status(&server), 200);
    CHECK(!strstr((char *)server.out, "400"));
    CHECK_STR(server.log, "POST / 'a' abort:HTTP_SYNTAX");
    CHECK_INT(bm_http1_over(server.http), -BEAM_EHTTP_SYNTAX);
    rig_deinit(&server);
}

TEST(http1_head_is_there_until_the_exchange_has_ended)
{
    static char text[12000];
    rig_init(&server, false);
    server.quiet = true;
    size_t len = (size_t)snprintf(text, sizeof(text),
                                  POST "Transfer-Encoding: chunked\r\nYou: %09000d\r\n\r\n", 0);
    CHECK_INT(rig_give(&server, text, len, SIZE_MAX), 0);
    CHECK_INT(rig_say(&server, "x"), -BEAM_EHTTP_SYNTAX);
    CHECK_STR(server.log, "POST / abort:HTTP_SYNTAX");
    CHECK_INT(server.last_name, 'y');
    CHECK(server.account.used < 9000);
    rig_deinit(&server);
}

TEST(http1_end_of_the_peer_is_told_from_a_cut)
{
    static const struct {
        const char *text;
        int r;
        int status;
    } rows[] = {
        {"", 0, 0},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, 200},
        {"G", -BEAM_EHTTP_CUT, 400},
        {"GET / HTTP/1.1\r\nHost: a\r\n", -BEAM_EHTTP_CUT, 400},
        {POST "Content-Length: 5\r\n\r\nhell", -BEAM_EHTTP_CUT, 400},
        {CHUNKED "5\r\nhello\r\n", -BEAM_EHTTP_CUT, 400},
        {CHUNKED "0\r\n", -BEAM_EHTTP_CUT, 400},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        rig_init(&server, false);
        server.quiet = true;
        CHECK_INT(rig_say(&server, rows[i].text), 0);
        CHECK_INT(bm_http1_receive_end(server.http), rows[i].r);
        if (rows[i].status == 200) { /* half a connection is enough for the answer */
            CHECK_INT(bm_http1_over(server.http), 0);
            CHECK_INT(bm_http1_answer(server.http, &server.answer), 0);
        }
        rig_drain(&server);
        CHECK_INT(rig_last_status(&server), rows[i].status);
        CHECK_INT(bm_http1_over(server.http), 1);
        rig_deinit(&server);
    }
}

#define UPGRADE "Connection: keep-alive, Upgrade\r\nUpgrade: beam\r\n"

TEST(http1_upgrade_leaves_the_rest_to_others)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n" UPGRADE "\r\n\x01\x02GET";
    size_t len = sizeof(text) - 1, used;
    rig_init(&server, false);
    server.answer = (struct bm_http1_answer){.status = 101, .upgrade = "beam"};
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)text, len, 0, &used),
              BM_HTTP1_UPGRADED);
    CHECK_UINT(used, len - 5);
    rig_drain(&server);
    CHECK_STR((char *)server.out,
              "HTTP/1.1 101 Switching Protocols\r\nupgrade: beam\r\nconnection: upgrade\r\n\r\n");
    CHECK_STR(server.log, "GET / end sent");
    CHECK(bm_http1_upgraded(server.http));
    CHECK_INT(bm_http1_over(server.http), 0);
    CHECK_UINT(bm_http1_next_ns(server.http), UINT64_MAX);
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)text, len, 0, &used),
              BM_HTTP1_UPGRADED);
    CHECK_UINT(used, 0);
    rig_deinit(&server);

    rig_init(&server, false); /* whoever does not want it answers as ever */
    CHECK_INT(rig_say(&server, "GET / HTTP/1.1\r\nHost: a\r\n" UPGRADE
                               "\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
              0);
    CHECK_STR(server.log, "GET / end sent GET /2 end sent");
    rig_deinit(&server);
}

TEST(http1_upgrade_is_offered_only_where_one_can_be)
{
    static const struct {
        const char *text;
        bool offered;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n" UPGRADE "\r\n", true},
        {"GET / HTTP/1.0\r\nHost: a\r\n" UPGRADE "\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: beam\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n", false},
        {POST UPGRADE "Content-Length: 1\r\n\r\na", false},
        {POST UPGRADE "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
        {POST UPGRADE "Content-Length: 0\r\n\r\n", true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        rig_init(&server, false);
        server.answer = (struct bm_http1_answer){.status = 101, .upgrade = "beam"};
        int r = rig_say(&server, rows[i].text);
        CHECK_INT(server.answered, rows[i].offered ? 0 : -EINVAL);
        CHECK_INT(r, rows[i].offered ? BM_HTTP1_UPGRADED : 0);
        CHECK(strstr(server.log, "end"));
        rig_deinit(&server);
    }
}

TEST(http1_slow_peers_are_told_and_left)
{
    static const struct {
        const char *text;
        uint64_t after; /* seconds */
        int status;
    } rows[] = {
        {"", 10, 0},
        {"G", 10, 408},
        {"\r\n", 10, 0},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: ", 10, 408},
        {POST "Content-Length: 100\r\n\r\n", 20, 408},
        {CHUNKED, 20, 408},
        {CHUNKED "1", 20, 408},
        {CHUNKED "0\r\n", 20, 408},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 300, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        rig_init(&server, false);
        server.quiet = rows[i].after == 20;
        CHECK_INT(rig_say(&server, rows[i].text), 0);
        rig_drain(&server);
        CHECK_INT(bm_http1_tick(server.http, server.now_ns), 0);
        uint64_t then = server.now_ns + rows[i].after * RIG_SECOND;
        CHECK_UINT(bm_http1_next_ns(server.http), then);
        CHECK_INT(bm_http1_tick(server.http, then - 1), 0);
        CHECK_INT(bm_http1_over(server.http), 0);
        server.out_len = 0;
        CHECK_INT(bm_http1_tick(server.http, then), -ETIMEDOUT);
        rig_drain(&server);
        CHECK_INT(rig_last_status(&server), rows[i].status);
        CHECK_INT(bm_http1_over(server.http), 1);
        CHECK_UINT(bm_http1_next_ns(server.http), UINT64_MAX);
        CHECK_INT(bm_http1_tick(server.http, then), -ETIMEDOUT);
        rig_deinit(&server);
    }
}

TEST(http1_time_that_an_answer_took_is_not_the_peers)
{
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(rig_say(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
    CHECK_UINT(bm_http1_next_ns(server.http), UINT64_MAX);
    server.now_ns += 1000 * RIG_SECOND;
    CHECK_INT(bm_http1_answer(server.http, &server.answer), 0);
    rig_drain(&server);
    CHECK(bm_http1_next_ns(server.http) <= server.now_ns + RIG_SECOND);
    CHECK_INT(bm_http1_tick(server.http, server.now_ns), 0);
    CHECK_UINT(bm_http1_next_ns(server.http), server.now_ns + 300 * RIG_SECOND);
    rig_deinit(&server);
}

TEST(http1_dribbled_bytes_do_not_move_a_heads_deadline)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nX: aaaaaaaaaaaa";
    rig_init(&server, false);
    uint64_t begun = server.now_ns;
    for (size_t i = 0; i < 10; i++, server.now_ns += RIG_SECOND) {
        CHECK_INT(rig_give(&server, text + i, 1, 1), 0);
        CHECK_INT(bm_http1_tick(server.http, server.now_ns), 0);
        CHECK_UINT(bm_http1_next_ns(server.http), begun + 10 * RIG_SECOND);
    }
    CHECK_INT(bm_http1_tick(server.http, server.now_ns), -ETIMEDOUT);
    rig_deinit(&server);
}

TEST(http1_body_has_as_long_as_its_bytes_earn)
{
    static char body[5000];
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(rig_say(&server, POST "Content-Length: 100000\r\n\r\n"), 0);
    CHECK_INT(rig_give(&server, body, sizeof(body), SIZE_MAX), 0);
    CHECK_UINT(bm_http1_next_ns(server.http), server.now_ns + 30 * RIG_SECOND);
    rig_deinit(&server);
}

TEST(http1_body_has_its_time_from_the_heads_end_on)
{
    rig_init(&server, false);
    server.quiet = true;
    CHECK_INT(rig_say(&server, POST "Content-Length: 5\r\n"), 0);
    server.now_ns += 9 * RIG_SECOND;
    CHECK_INT(rig_say(&server, "\r\n"), 0);
    CHECK_UINT(bm_http1_next_ns(server.http), server.now_ns + 20 * RIG_SECOND);
    rig_deinit(&server);
}

TEST(http1_peer_that_takes_no_output_is_left)
{
    static char bytes[60000];
    rig_init(&server, false);
    server.answer.body = (struct bm_http1_body){.len = sizeof(bytes), .bytes = bytes};
    size_t used;
    CHECK_INT(bm_http1_receive(server.http, (const uint8_t *)"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                               27, server.now_ns, &used),
              0);
    uint64_t now = server.now_ns;
    CHECK_UINT(bm_http1_next_ns(server.http), now + RIG_SECOND);
    CHECK_INT(bm_http1_tick(server.http, now += RIG_SECOND), 0);
    CHECK_UINT(bm_http1_next_ns(server.http), now + 30 * RIG_SECOND);
    CHECK_INT(bm_http1_tick(server.http, now += 29 * RIG_SECOND), 0);
    CHECK_UINT(rig_drain_some(&server, 1),
               1); /* one byte is progress; the rest of the row is TCP's */
    CHECK_INT(bm_http1_tick(server.http, now), 0);
    CHECK_INT(bm_http1_tick(server.http, now += 29 * RIG_SECOND), 0);
    CHECK_INT(bm_http1_tick(server.http, now += RIG_SECOND), -ETIMEDOUT);
    rig_deinit(&server);
}

TEST(http1_exchange_after_exchange_allocates_nothing)
{
    static const char text[] = CHUNKED "5\r\nhello\r\n0\r\n\r\n";
    rig_init(&server, false);
    CHECK_INT(rig_say(&server, text), 0);
    uint64_t allocs = server.account.allocs;
    for (unsigned i = 0; i < 100; i++) {
        CHECK_INT(rig_give(&server, text, strlen(text), 10), 0);
        server.out_len = server.log_len = 0;
    }
    CHECK_UINT(server.account.allocs, allocs);
    size_t used = server.account.used;
    CHECK(used < 12000); /* what one that waits costs */
    bm_http1_trim(server.http);
    CHECK(server.account.used + BM_OUTBOX_BLOCK <= used);
    CHECK_INT(rig_say(&server, text), 0);
    rig_deinit(&server);
}

/* ---- the other role ---- */

static void ask(const char *method, const char *upgrade)
{
    struct bm_http1_ask what = {
        .method = method, .target = "/", .authority = "a", .upgrade = upgrade};
    REQUIRE_INT(bm_http1_ask(client.http, &what), 0);
    rig_drain(&client);
}

TEST(http1_client_asks_and_is_answered)
{
    struct bm_field field = BM_FIELD("accept", "*/*");
    rig_init(&client, true);
    for (unsigned i = 0; i < 2; i++) { /* on the same connection */
        struct bm_http1_ask what = {.method = "POST",
                                    .target = "/a?b",
                                    .authority = "example.com",
                                    .fields = &field,
                                    .field_count = 1,
                                    .body = {.len = 5, .bytes = "hello"}};
        client.log_len = client.out_len = 0;
        CHECK_INT(bm_http1_ask(client.http, &what), 0);
        CHECK_INT(bm_http1_ask(client.http, &what), -EBUSY);
        rig_drain(&client);
        CHECK_STR((char *)client.out, "POST /a?b HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\n"
                                      "content-length: 5\r\n\r\nhello");
        CHECK_INT(rig_say(&client, "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\r\nyes"), 0);
        CHECK_STR(client.log, "sent 200 'yes' end");
        CHECK_INT(bm_http1_over(client.http), 0);
    }
    rig_deinit(&client);
}

TEST(http1_client_takes_every_framing)
{
    static const struct {
        const char *method, *text, *log;
        bool end; /* of the connection */
        int ended;
    } rows[] = {
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "sent 200 end", false, 0},
        {"GET",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nX: y\r\n\r\n",
         "sent 200 'yes' end", false, 0},
        {"GET", "HTTP/1.1 200 \r\n\r\nyes", "sent 200 'yes' end", true, 1},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nyes", "sent 200 'yes' end", false, 1},
        {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nyes",
         "sent 200 'yes' end", false, 1},
        {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "sent 200 end", false, 0},
        {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "sent 200 end", false, 0},
        {"GET", "HTTP/1.1 204 None\r\nContent-Length: 3\r\n\r\n", "sent 204 end", false, 0},
        {"GET", "HTTP/1.1 304 None\r\nContent-Length: 3\r\n\r\n", "sent 304 end", false, 0},
        {"GET",
         "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 "
         "404\r\nContent-Length: 0\r\n\r\n",
         "sent 404 end", false, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t piece = 1; piece < 1000; piece *= 100) {
            test_note("row %zu", i);
            rig_init(&client, true);
            ask(rows[i].method, NULL);
            CHECK_INT(rig_give(&client, rows[i].text, strlen(rows[i].text), piece), 0);
            if (rows[i].end)
                CHECK_INT(bm_http1_receive_end(client.http), 0);
            if (piece > 1)
                CHECK_STR(client.log, rows[i].log);
            CHECK_STR(client.log + client.log_len - 3, "end");
            CHECK_INT(bm_http1_over(client.http), rows[i].ended);
            rig_deinit(&client);
        }
    }
}

TEST(http1_client_takes_so_much_until_the_end)
{
    static char body[65536];
    rig_init(&client, true);
    ask("GET", NULL);
    CHECK_INT(rig_say(&client, "HTTP/1.1 200 OK\r\n\r\n"), 0);
    for (size_t i = 0; i < BM_HTTP1_BODY_MAX / sizeof(body); i++)
        CHECK_INT(rig_give(&client, body, sizeof(body), SIZE_MAX), 0);
    CHECK_INT(rig_say(&client, "x"), -BEAM_EHTTP_TOO_LARGE);
    rig_deinit(&client);
}

TEST(http1_client_refuses_answers_that_could_be_read_in_two_ways)
{
    static const char *const rows[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\nContent-Length: 16777217\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", /* nobody asked */
        "ICY 200 OK\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("%s", rows[i]);
        rig_init(&client, true);
        ask("GET", NULL);
        client.out_len = 0;
        CHECK(rig_say(&client, rows[i]) < 0);
        rig_drain(&client);
        CHECK_UINT(client.out_len, 0); /* a server is told nothing */
        CHECK(strncmp(client.log, "sent abort:HTTP_", 16) == 0);
        CHECK_INT(bm_http1_over(client.http), 1);
        rig_deinit(&client);
    }
}

TEST(http1_client_takes_no_answer_that_it_did_not_ask_for)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    rig_init(&client, true);
    ask("GET", NULL);
    CHECK_INT(rig_say(&client, text), 0);
    CHECK_INT(rig_say(&client, text), -BEAM_EHTTP_SYNTAX);
    struct bm_http1_ask what = {.method = "GET", .target = "/", .authority = "a"};
    CHECK_INT(bm_http1_ask(client.http, &what), -ENOTCONN);
    rig_deinit(&client);
}

TEST(http1_client_waits_for_an_answer_through_so_many_others)
{
    rig_init(&client, true);
    ask("GET", NULL);
    for (unsigned i = 0; i < BM_HTTP1_INTERIMS_MAX; i++)
        CHECK_INT(rig_say(&client, "HTTP/1.1 100 Continue\r\n\r\n"), 0);
    CHECK_INT(rig_say(&client, "HTTP/1.1 100 Continue\r\n\r\n"), -BEAM_EHTTP_TOO_LARGE);
    rig_deinit(&client);
}

TEST(http1_client_that_is_answered_early_sends_no_more)
{
    rig_init(&client, true);
    struct bm_http1_ask what = {
        .method = "PUT",
        .target = "/",
        .authority = "a",
        .body = {.len = 100, .source = &rig_source, .arg = &client},
    };
    client.total = 100;
    client.give = 0;
    CHECK_INT(bm_http1_ask(client.http, &what), 0);
    rig_drain(&client);
    CHECK_INT(rig_say(&client, "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"), 0);
    CHECK_STR(client.log, "413 end abort:ECANCELED");
    unsigned reads = client.reads;
    bm_http1_resume(client.http);
    rig_drain(&client);
    CHECK_UINT(client.reads, reads);
    CHECK_INT(bm_http1_over(client.http), -ECANCELED);
    rig_deinit(&client);
}

TEST(http1_client_holds_an_answer_while_it_asks)
{
    size_t used;
    rig_init(&client, true);
    struct bm_http1_ask what = {
        .method = "PUT",
        .target = "/",
        .authority = "a",
        .body = {.len = 100, .source = &rig_source, .arg = &client},
    };
    client.total = 100;
    client.hold = true;
    CHECK_INT(bm_http1_ask(client.http, &what), 0);
    rig_drain(&client);
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    CHECK_INT(bm_http1_receive(client.http, (const uint8_t *)head, sizeof(head) - 1, 0, &used), 0);
    client.give = 100;
    bm_http1_resume(client.http);
    rig_drain(&client);
    CHECK_STR(client.log, "200 sent");
    CHECK(!bm_http1_wants_input(client.http)); /* still */
    bm_http1_hold(client.http, false);
    CHECK_INT(rig_say(&client, "yes"), 0);
    CHECK_STR(client.log, "200 sent 'yes' end");
    rig_deinit(&client);
}

TEST(http1_client_is_told_of_a_cut)
{
    static const char *const rows[] = {
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nye",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        rig_init(&client, true);
        ask("GET", NULL);
        CHECK_INT(rig_say(&client, rows[i]), 0);
        CHECK_INT(bm_http1_receive_end(client.http), -BEAM_EHTTP_CUT);
        CHECK(strstr(client.log, "abort:HTTP_CUT"));
        rig_deinit(&client);
    }
}

TEST(http1_client_is_upgraded)
{
    static const char text[] =
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: beam\r\n\r\n\x01\x02";
    size_t used;
    rig_init(&client, true);
    ask("GET", "beam");
    CHECK_STR((char *)client.out,
              "GET / HTTP/1.1\r\nhost: a\r\nupgrade: beam\r\nconnection: upgrade\r\n\r\n");
    CHECK_INT(bm_http1_receive(client.http, (const uint8_t *)text, sizeof(text) - 1, 0, &used),
              BM_HTTP1_UPGRADED);
    CHECK_UINT(used, sizeof(text) - 3);
    CHECK_STR(client.log, "sent 101 end");
    CHECK(bm_http1_upgraded(client.http));
    rig_deinit(&client);
}

TEST(http1_asks_that_cannot_be_are_not_sent)
{
    struct bm_field host = BM_FIELD("Host", "b");
    const struct bm_http1_ask rows[] = {
        {.method = "G T", .target = "/", .authority = "a"},
        {.method = "", .target = "/", .authority = "a"},
        {.method = "GET", .target = "", .authority = "a"},
        {.method = "GET", .target = "/ HTTP/1.1\r\nX: y", .authority = "a"},
        {.method = "GET", .target = "/\xc3\xa4", .authority = "a"},
        {.method = "GET", .target = "/", .authority = "a\r\nX: y"},
        {.method = "GET", .target = "/", .authority = "a", .fields = &host, .field_count = 1},
        {.method = "GET", .target = "/", .authority = "a", .upgrade = "b\r\nc: d"},
        {.method = "GET",
         .target = "/",
         .authority = "a",
         .upgrade = "b",
         .body = {.len = 1, .bytes = "x"}},
    };
    rig_init(&client, true);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        CHECK_INT(bm_http1_ask(client.http, &rows[i]), -EINVAL);
    }
    rig_drain(&client);
    CHECK_UINT(client.out_len, 0);
    rig_deinit(&client);
}

/* What one says is given to the other until both are silent. */
static int converse(size_t piece)
{
    struct rig *ends[2] = {&client, &server};
    size_t told[2] = {0, 0};
    bool more = true;
    while (more) {
        more = false;
        for (unsigned i = 0; i < 2; i++) {
            rig_drain(ends[i]);
            size_t from = told[i];
            told[i] = ends[i]->out_len;
            more = more || told[i] > from;
            int r = rig_give(ends[!i], ends[i]->out + from, told[i] - from, piece);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

#define BODY_LEN 100000u

/* Bodies of unknown length both ways; 0 when all of it came, or the error of whoever had no
 * memory. */
static int exchange_bodies(size_t piece)
{
    struct bm_http1_ask what = {
        .method = "POST",
        .target = "/",
        .authority = "a",
        .body = {.len = -1, .source = &rig_source, .arg = &client},
    };
    client.give = server.give = 700;
    server.late = true;
    client.total = server.total = BODY_LEN;
    server.answer.body = (struct bm_http1_body){.len = -1, .source = &rig_source, .arg = &server};
    int r = bm_http1_ask(client.http, &what);
    return r < 0 ? r : converse(piece);
}

TEST(http1_ends_understand_each_other)
{
    for (size_t piece = 1; piece < 100000; piece *= 300) {
        rig_init(&client, true);
        rig_init(&server, false);
        CHECK_INT(exchange_bodies(piece), 0);
        CHECK_UINT(client.body_len, BODY_LEN);
        CHECK_UINT(server.body_len, BODY_LEN);
        CHECK_STR(client.log + client.log_len - 3, "end");
        CHECK(strstr(server.log, "POST /") && strstr(server.log, "end") &&
              strstr(server.log, "sent"));
        CHECK_INT(bm_http1_over(client.http), 0);
        CHECK_INT(bm_http1_over(server.http), 0);
        rig_deinit(&client);
        rig_deinit(&server);
    }
}

TEST(http1_without_memory_fails_and_keeps_nothing)
{
    int left;
    for (left = 0; left < 200; left++) {
        test_note("%d allocations", left);
        rig_clear(&client);
        rig_clear(&server);
        scarce_begin(left);
        struct bm_http1_options options = {
            .client = true, .account = &client.account, .handlers = &rig_handlers, .arg = &client};
        int r = bm_http1_new(&options, &client.http);
        options.client = false;
        options.account = &server.account;
        options.arg = &server;
        r = r < 0 ? r : bm_http1_new(&options, &server.http);
        r = r < 0 ? r : exchange_bodies(5000);
        bool short_of = scarce_asked > left;
        /* Somebody was told, and nobody takes what came for whole. */
        CHECK(!short_of || r < 0 || server.answered == -ENOMEM || bm_http1_over(client.http) ||
              bm_http1_over(server.http));
        CHECK(!short_of || client.body_len < BODY_LEN || !strstr(client.log, "end"));
        rig_deinit(&client);
        rig_deinit(&server);
        scarce_end();
        if (!short_of)
            break;
    }
    CHECK(left > 5 && left < 200);
    CHECK_STR(client.log + client.log_len - 3, "end");
}

TEST(http1_freed_at_any_moment_it_keeps_nothing)
{
    static const char text[] = POST "Expect: 100-continue\r\nTransfer-Encoding: "
                                    "chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\nGET";
    for (size_t len = 0; len < sizeof(text); len++) {
        rig_init(&server, false);
        server.quiet = true;
        CHECK_INT(rig_give(&server, text, len, SIZE_MAX), 0);
        rig_deinit(&server);
    }
    CHECK_PTR(bm_http1_free(NULL), NULL);
}
