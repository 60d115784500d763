/* What RFC 9113 and RFC 7541 (and of RFC 7540 what others still check) want of a server, rule by
 * rule: a client's frames, and the frames that answer them. The rows follow those of h2spec. */
#include "net/proto/h2.h"
#include "tests/unit/net/h2_ends.h"

#define GET "828487010161"  /* GET https://a/ */
#define POST "838487010161" /* POST https://a/ */
#define OK_1 "HEADERS 1 +end; "

/* frames: type, flags (hexadecimal), stream, payload (hexadecimal; '-': none), and again. */
struct row {
    const char *rule, *frames, *answer;
};

static const struct row rows[] = {
    {"4.1 unknown type is ignored", "22 0 0 00 6 0 0 0102030405060708", "PING +ack; "},
    {"4.1 undefined flags are ignored", "6 16 0 0102030405060708", "PING +ack; "},
    {"4.1 reserved bit is ignored", "6 0 2147483648 0102030405060708", "PING +ack; "},
    {"4.3 block that cannot be decoded", "1 5 1 ff", "GOAWAY 1 9; "},
    {"4.3 PRIORITY within a block", "1 1 1 82 2 0 1 0000000010", "GOAWAY 1 1; "},
    {"4.3 HEADERS of another stream within a block", "1 1 1 82 1 5 3 " GET, "GOAWAY 1 1; "},
    {"5.1 idle: DATA", "0 1 1 61", "GOAWAY 0 1; "},
    {"5.1 idle: RST_STREAM", "3 0 1 00000008", "GOAWAY 0 1; "},
    {"5.1 idle: WINDOW_UPDATE", "8 0 1 00000064", "GOAWAY 0 1; "},
    {"5.1 idle: CONTINUATION", "9 4 1 82", "GOAWAY 0 1; "},
    {"5.1 half closed: DATA", "1 5 1 " GET " 0 1 1 61", "GOAWAY 1 5; "},
    {"5.1 half closed: HEADERS", "1 5 1 " GET " 1 5 1 " GET, "GOAWAY 1 5; "},
    {"5.1 half closed: CONTINUATION", "1 5 1 " GET " 9 4 1 " GET, "GOAWAY 1 1; "},
    {"5.1 reset: DATA", "1 4 1 " POST " 3 0 1 00000008 0 1 1 61", "GOAWAY 1 5; "},
    {"5.1 reset: HEADERS", "1 4 1 " POST " 3 0 1 00000008 1 5 1 " GET, "GOAWAY 1 5; "},
    {"5.1 reset: CONTINUATION", "1 4 1 " POST " 3 0 1 00000008 9 4 1 " GET, "GOAWAY 1 1; "},
    {"5.1.1 even id", "1 5 2 " GET, "GOAWAY 0 1; "},
    {"5.1.1 lower id", "1 5 5 " GET " 1 5 3 " GET, "GOAWAY 5 1; "},
    {"5.3.1 HEADERS that depends on itself", "1 25 1 000000010f" GET, "GOAWAY 0 1; "},
    {"5.3.1 PRIORITY that depends on itself", "2 0 1 800000010f", "GOAWAY 0 1; "},
    {"5.3.1 PRIORITY of another", "2 0 3 000000010f 1 5 1 " GET, OK_1},
    {"5.5 unknown type within a block", "1 1 1 82 22 0 0 00", "GOAWAY 1 1; "},
    {"6.1 DATA on stream 0", "0 1 0 61", "GOAWAY 0 1; "},
    {"6.1 pad longer than the frame", "1 4 1 " POST " 0 9 1 0661", "GOAWAY 1 1; "},
    {"6.1 DATA with padding", "1 4 1 " POST " 0 9 1 02610000", OK_1},
    {"6.2 HEADERS on stream 0", "1 5 0 " GET, "GOAWAY 0 1; "},
    {"6.2 pad longer than the frame", "1 d 1 10" GET, "GOAWAY 0 1; "},
    {"6.3 PRIORITY on stream 0", "2 0 0 000000010f", "GOAWAY 0 1; "},
    {"6.3 PRIORITY of 4 bytes", "2 0 1 00000003", "GOAWAY 0 6; "},
    {"6.4 RST_STREAM on stream 0", "3 0 0 00000008", "GOAWAY 0 1; "},
    {"6.4 RST_STREAM of 3 bytes", "1 5 1 " GET " 3 0 1 000000", "GOAWAY 1 6; "},
    {"6.5 acknowledgement with a payload", "4 1 0 000100000000", "GOAWAY 0 6; "},
    {"6.5 SETTINGS on a stream", "4 0 1 000300000064", "GOAWAY 0 1; "},
    {"6.5 SETTINGS of 3 bytes", "4 0 0 000300", "GOAWAY 0 6; "},
    {"6.5.2 ENABLE_PUSH 2", "4 0 0 000200000002", "GOAWAY 0 1; "},
    {"6.5.2 INITIAL_WINDOW_SIZE 2^31", "4 0 0 000480000000", "GOAWAY 0 3; "},
    {"6.5.2 MAX_FRAME_SIZE 2^14 - 1", "4 0 0 000500003fff", "GOAWAY 0 1; "},
    {"6.5.2 MAX_FRAME_SIZE 2^24", "4 0 0 000501000000", "GOAWAY 0 1; "},
    {"6.5.2 unknown setting", "4 0 0 00ff00000001", "SETTINGS +ack; "},
    {"6.7 PING with an acknowledgement", "6 1 0 0102030405060708 1 5 1 " GET, OK_1},
    {"6.7 PING on a stream", "6 0 1 0102030405060708", "GOAWAY 0 1; "},
    {"6.7 PING of 6 bytes", "6 0 0 010203040506", "GOAWAY 0 6; "},
    {"6.8 GOAWAY on a stream", "7 0 1 0000000000000000", "GOAWAY 0 1; "},
    {"6.9 WINDOW_UPDATE of 0", "8 0 0 00000000", "GOAWAY 0 1; "},
    /* nghttp2 ends the connection itself where a reset would be enough; section 5.4.1 lets it. */
    {"6.9 WINDOW_UPDATE of 0 for a stream", "1 4 1 " POST " 8 0 1 00000000", "GOAWAY 1 1; "},
    {"6.9 WINDOW_UPDATE of 3 bytes", "8 0 0 000001", "GOAWAY 0 6; "},
    {"6.9.1 windows over 2^31 - 1", "8 0 0 7fffffff 8 0 0 7fffffff", "GOAWAY 0 3; "},
    {"6.9.1 a stream's window over it", "1 4 1 " POST " 8 0 1 7fffffff", "RST_STREAM 1 3; "},
    {"6.10 blocks in pieces", "1 1 1 82 9 0 1 84 9 4 1 87010161", OK_1},
    {"6.10 CONTINUATION on stream 0", "1 1 1 82 9 4 0 84", "GOAWAY 1 1; "},
    {"6.10 CONTINUATION behind an end of headers", "1 4 1 " POST " 9 4 1 84", "GOAWAY 1 1; "},
    {"6.10 DATA within a block", "1 0 1 83 0 1 1 61", "GOAWAY 1 1; "},
    {"7 GOAWAY with an unknown code", "7 0 0 00000000000000ff", ""},
    {"7 RST_STREAM with an unknown code", "1 4 1 " POST " 3 0 1 000000ff 1 5 3 " GET,
     "HEADERS 3 +end; "},
    {"8.1 trailers without an end", "1 4 1 " POST " 1 4 1 0001610162", "RST_STREAM 1 1; "},
    {"8.1 trailers", "1 4 1 " POST " 0 0 1 61 1 5 1 0001610162", OK_1},
    {"8.2.1 upper case", "1 5 1 " GET "0001410162", "RST_STREAM 1 1; "},
    {"8.3 unknown pseudo field", "1 5 1 " GET "00023a610162", "RST_STREAM 1 1; "},
    {"8.3 pseudo field of a response", "1 5 1 " GET "88", "RST_STREAM 1 1; "},
    {"8.3 pseudo field in trailers", "1 4 1 " POST " 1 5 1 82", "RST_STREAM 1 1; "},
    {"8.3 pseudo field behind another", "1 5 1 82840001610162870101", "GOAWAY 1 9; "},
    {"8.3 pseudo field behind a regular one",
     "1 5 1 828400016101628701"
     "0161",
     "RST_STREAM 1 1; "},
    {"8.2.2 connection", "1 5 1 " GET "000a636f6e6e656374696f6e0161", "RST_STREAM 1 1; "},
    {"8.2.2 te that is not trailers", "1 5 1 " GET "000274650161", "RST_STREAM 1 1; "},
    {"8.3.1 empty path", "1 5 1 82044087010161", "GOAWAY 1 9; "},
    {"8.3.1 empty path", "1 5 1 82040087010161", "RST_STREAM 1 1; "},
    {"8.3.1 no method", "1 5 1 8487010161", "RST_STREAM 1 1; "},
    {"8.3.1 no scheme", "1 5 1 8284010161", "RST_STREAM 1 1; "},
    {"8.3.1 no path", "1 5 1 8287010161", "RST_STREAM 1 1; "},
    {"8.3.1 two methods",
     "1 5 1 8282"
     "8487010161",
     "RST_STREAM 1 1; "},
    {"8.3.1 two schemes", "1 5 1 82848787010161", "RST_STREAM 1 1; "},
    {"8.3.1 two paths", "1 5 1 82848487010161", "RST_STREAM 1 1; "},
    {"8.1.1 content-length, one DATA", "1 4 1 " POST "0f0d0131 0 1 1 6161", "RST_STREAM 1 1; "},
    {"8.1.1 content-length, two DATA", "1 4 1 " POST "0f0d0131 0 0 1 61 0 1 1 61",
     "RST_STREAM 1 1; "},
    {"8.4 PUSH_PROMISE of a client", "5 4 1 00000003" GET, "GOAWAY 0 1; "},
    {"hpack 2.3.3 index outside", "1 5 1 " GET "c6", "GOAWAY 1 9; "},
    {"hpack 4.2 size update behind a field", "1 5 1 " GET "20", "GOAWAY 1 9; "},
    {"hpack 5.2 padding longer than 7 bits", "1 5 1 " GET "00016182ffff", "GOAWAY 1 9; "},
    {"hpack 6.1 index 0", "1 5 1 " GET "80", "GOAWAY 1 9; "},
    {"hpack 6.3 size update over the limit", "1 5 1 3fe27f" GET, "GOAWAY 1 9; "},
};

static unsigned digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void put_frames(struct raw *raw, const char *frames)
{
    unsigned type, flags, id;
    char hex[256];
    int used;
    for (; sscanf(frames, "%u %x %u %255s%n", &type, &flags, &id, hex, &used) == 4;
         frames += used) {
        uint8_t payload[128];
        size_t len = strlen(hex) / 2;
        for (size_t i = 0; i < len; i++)
            payload[i] = (uint8_t)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
        raw_frame(raw, type, flags, id, payload, len);
    }
    REQUIRE(*frames == '\0');
}

/* Answers when the request has ended. */
static void answer(struct end *server)
{
    for (unsigned i = 0; i < END_STREAMS_MAX; i++)
        if (server->streams[i] && bm_h2_stream_ended_in(server->streams[i]))
            bm_h2_respond(server->streams[i], 200, NULL, 0, NULL);
}

TEST(h2_server_answers_as_the_specifications_want)
{
    static struct end server;
    static struct raw raw;
    for (unsigned i = 0; i < BM_ARRAY_LEN(rows); i++) {
        test_note("%s: %s", rows[i].rule, rows[i].frames);
        memset(&server, 0, sizeof(server));
        server.consumes = true;
        end_greeted(&server, &raw);
        put_frames(&raw, rows[i].frames);
        int r = raw_send(&raw, &server);
        answer(&server);
        CHECK_STR(end_frames(&server), rows[i].answer);
        CHECK_INT(r < 0, strncmp(rows[i].answer, "GOAWAY", 6) == 0);
        end_close(&server);
    }
}
