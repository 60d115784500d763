#include "tests/unit/net/websocket_rig.h"
#include "tests/unit/runtime/scarce.h"

static struct rig end, other;

/* One frame of a conversation; the payload up to its NUL, or so long. */
struct frame {
    uint8_t head;
    const char *payload;
    size_t len;
    unsigned length_form;
    bool as_other; /* masked where it may not be, or not masked where it has to be */
};

#define FRAMES_MAX 12

struct row {
    const char *name; /* the number of the case in Autobahn's suite, where there is one */
    int r;
    const char *log; /* what the receiver was told, and then what came out */
    struct frame frames[FRAMES_MAX];
};

#define PROTOCOL -BEAM_EWEBSOCKET_PROTOCOL
#define BAD "CLOSE:1002''"
#define F(head_, ...)                                                                              \
    {                                                                                              \
        .head = (head_), .payload = __VA_ARGS__                                                    \
    }
#define NORMAL F(FIN | CLOSE, "\x03\xe8")
#define X125                                                                                       \
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"  \
    "1234567890123456789012345678901234"
#define RSV1 0x40
#define RSV2 0x20
#define RSV3 0x10

static const struct row rows[] = {
    /* 1: framing. Text is not for us. */
    {"1.1.1", -BEAM_EWEBSOCKET_DATA, "CLOSE:1003''", {F(FIN | TEXT, "")}},
    {"1.1.2", -BEAM_EWEBSOCKET_DATA, "CLOSE:1003''", {F(FIN | TEXT, "*")}},
    {"1.2.1", 1, "'' close:1000 '' BINARY'' CLOSE:1000''", {F(FIN | BINARY, ""), NORMAL}},
    {"1.2.2", 1, "'*' close:1000 '' BINARY'*' CLOSE:1000''", {F(FIN | BINARY, "*"), NORMAL}},
    {"1.2.2 x2",
     1,
     "'a' 'b' close:1000 '' BINARY'a' BINARY'b' CLOSE:1000''",
     {F(FIN | BINARY, "a"), F(FIN | BINARY, "b"), NORMAL}},
    {"125", 0, "'" X125 "' BINARY'" X125 "'", {F(FIN | BINARY, X125)}},
    {"length in 16 bits that fits into 7",
     PROTOCOL,
     BAD,
     {F(FIN | BINARY, "a", .length_form = 16)}},
    {"length in 64 bits that fits into 7",
     PROTOCOL,
     BAD,
     {F(FIN | BINARY, "a", .length_form = 64)}},
    {"no mask, or one", PROTOCOL, BAD, {F(FIN | BINARY, "a", .as_other = true)}},
    {"PING with no mask, or one", PROTOCOL, BAD, {F(FIN | PING, "a", .as_other = true)}},
    {"CLOSE with no mask, or one", PROTOCOL, BAD, {F(FIN | CLOSE, "\x03\xe8", .as_other = true)}},
    /* 2: PING and PONG. */
    {"2.1", 1, "close:1000 '' PONG'' CLOSE:1000''", {F(FIN | PING, ""), NORMAL}},
    {"2.2",
     1,
     "close:1000 '' PONG'Hello, world!' CLOSE:1000''",
     {F(FIN | PING, "Hello, world!"), NORMAL}},
    {"2.3", 0, "PONG'\x01\xff\xfe\xfd'", {F(FIN | PING, "\x01\xff\xfe\xfd")}},
    {"2.4", 0, "PONG'" X125 "'", {F(FIN | PING, X125)}},
    {"2.5", PROTOCOL, BAD, {F(FIN | PING, X125 "x")}},
    {"2.7", 1, "close:1000 '' CLOSE:1000''", {F(FIN | PONG, ""), NORMAL}},
    {"2.8", 0, "", {F(FIN | PONG, "unsolicited")}},
    {"2.9", 0, "PONG'ping'", {F(FIN | PONG, "unsolicited"), F(FIN | PING, "ping")}},
    {"2.10",
     0,
     "PONG'0' PONG'1' PONG'2' PONG'3' PONG'4' PONG'5' PONG'6' PONG'7' PONG'8' PONG'9'",
     {F(FIN | PING, "0"), F(FIN | PING, "1"), F(FIN | PING, "2"), F(FIN | PING, "3"),
      F(FIN | PING, "4"), F(FIN | PING, "5"), F(FIN | PING, "6"), F(FIN | PING, "7"),
      F(FIN | PING, "8"), F(FIN | PING, "9")}},
    /* 3: reserved bits. */
    {"3.1", PROTOCOL, BAD, {F(FIN | RSV3 | BINARY, "a")}},
    {"3.2",
     PROTOCOL,
     "'a' BINARY'a' " BAD,
     {F(FIN | BINARY, "a"), F(FIN | RSV2 | BINARY, "b"), F(FIN | PING, "")}},
    {"3.3", PROTOCOL, BAD, {F(FIN | RSV2 | RSV3 | BINARY, "a")}},
    {"3.4", PROTOCOL, BAD, {F(FIN | RSV1 | BINARY, "a")}},
    {"3.5", PROTOCOL, BAD, {F(FIN | RSV1 | RSV3 | BINARY, "a")}},
    {"3.6", PROTOCOL, BAD, {F(FIN | RSV1 | RSV2 | PING, "")}},
    {"3.7", PROTOCOL, BAD, {F(FIN | RSV1 | RSV2 | RSV3 | CLOSE, "")}},
    {"3 in a fragment", PROTOCOL, BAD, {F(BINARY, "a"), F(FIN | RSV1 | CONT, "b")}},
    /* 4: opcodes nobody has given. */
    {"4.1.1", PROTOCOL, BAD, {F(FIN | 3, "")}},
    {"4.1.2", PROTOCOL, BAD, {F(FIN | 4, "reserved")}},
    {"4.1.3",
     PROTOCOL,
     "'a' BINARY'a' " BAD,
     {F(FIN | BINARY, "a"), F(FIN | 5, ""), F(FIN | PING, "")}},
    {"4.1.4",
     PROTOCOL,
     "'a' BINARY'a' " BAD,
     {F(FIN | BINARY, "a"), F(FIN | 6, "reserved"), F(FIN | PING, "")}},
    {"4.1.5", PROTOCOL, BAD, {F(FIN | 7, "reserved")}},
    {"4.2.1", PROTOCOL, BAD, {F(FIN | 11, "")}},
    {"4.2.2", PROTOCOL, BAD, {F(FIN | 12, "reserved")}},
    {"4.2.3",
     PROTOCOL,
     "'a' BINARY'a' " BAD,
     {F(FIN | BINARY, "a"), F(FIN | 13, ""), F(FIN | PING, "")}},
    {"4.2.4",
     PROTOCOL,
     "'a' BINARY'a' " BAD,
     {F(FIN | BINARY, "a"), F(FIN | 14, "reserved"), F(FIN | PING, "")}},
    {"4.2.5", PROTOCOL, BAD, {F(FIN | 15, "reserved")}},
    /* 5: fragments. */
    {"5.1", PROTOCOL, BAD, {F(PING, "a"), F(FIN | CONT, "b")}},
    {"5.2", PROTOCOL, BAD, {F(PONG, "a"), F(FIN | CONT, "b")}},
    {"CLOSE in fragments", PROTOCOL, BAD, {F(CLOSE, "\x03\xe8"), F(FIN | CONT, "b")}},
    {"5.3", 0, "'ab' BINARY'ab'", {F(BINARY, "a"), F(FIN | CONT, "b")}},
    {"5.6", 0, "'ab' PONG'p' BINARY'ab'", {F(BINARY, "a"), F(FIN | PING, "p"), F(FIN | CONT, "b")}},
    {"5.9", PROTOCOL, BAD, {F(FIN | CONT, "a"), F(FIN | BINARY, "b")}},
    {"5.12", PROTOCOL, BAD, {F(CONT, "a"), F(FIN | BINARY, "b")}},
    {"5.15",
     PROTOCOL,
     "'ab' BINARY'ab' " BAD,
     {F(BINARY, "a"), F(FIN | CONT, "b"), F(CONT, "c"), F(FIN | BINARY, "d")}},
    {"5.16", PROTOCOL, BAD, {F(CONT, "a"), F(BINARY, "b"), F(FIN | CONT, "c")}},
    {"5.17", PROTOCOL, BAD, {F(FIN | CONT, "a"), F(BINARY, "b"), F(FIN | CONT, "c")}},
    {"5.18", PROTOCOL, BAD, {F(BINARY, "a"), F(FIN | BINARY, "b")}},
    {"5.18 text", PROTOCOL, BAD, {F(BINARY, "a"), F(FIN | TEXT, "b")}},
    {"5.19",
     0,
     "'abcde' PONG'p' PONG'q' BINARY'abcde'",
     {F(BINARY, "a"), F(CONT, "b"), F(FIN | PING, "p"), F(CONT, "c"), F(CONT, "d"),
      F(FIN | PING, "q"), F(FIN | CONT, "e")}},
    {"empty fragments",
     0,
     "'a' BINARY'a'",
     {F(BINARY, ""), F(CONT, ""), F(CONT, "a"), F(FIN | CONT, "")}},
    {"nothing at all in fragments", 0, "'' BINARY''", {F(BINARY, ""), F(FIN | CONT, "")}},
    {"a message after one in fragments",
     0,
     "'ab' 'c' BINARY'ab' BINARY'c'",
     {F(BINARY, "a"), F(FIN | CONT, "b"), F(FIN | BINARY, "c")}},
    /* 6: UTF-8 is only in reasons here. */
    {"6, a reason of all lengths",
     1,
     "close:1000 '\x24\xc2\xa2\xe2\x82\xac\xf0\x90\x8d\x88' CLOSE:1000''",
     {F(FIN | CLOSE, "\x03\xe8\x24\xc2\xa2\xe2\x82\xac\xf0\x90\x8d\x88")}},
    {"6, highest and lowest",
     1,
     "close:1000 '\xf4\x8f\xbf\xbf\xee\x80\x80\xed\x9f\xbf\xe0\xa0\x80' CLOSE:1000''",
     {F(FIN | CLOSE, "\x03\xe8\xf4\x8f\xbf\xbf\xee\x80\x80\xed\x9f\xbf\xe0\xa0\x80")}},
#define NO_UTF8(bytes)                                                                             \
    {                                                                                              \
        "6, " #bytes, -BEAM_EWEBSOCKET_DATA, "CLOSE:1007''",                                       \
        {                                                                                          \
            F(FIN | CLOSE, "\x03\xe8" bytes)                                                       \
        }                                                                                          \
    }
    NO_UTF8("\x80"),
    NO_UTF8("\xbf"),
    NO_UTF8("a\xc2"),
    NO_UTF8("\xc2"
            "a"),
    NO_UTF8("\xc0\xaf"),
    NO_UTF8("\xc1\xbf"),
    NO_UTF8("\xe0\x80\xaf"),
    NO_UTF8("\xe0\x9f\xbf"),
    NO_UTF8("\xe2\x82"),
    NO_UTF8("\xe2\x28\xa1"),
    NO_UTF8("\xe2\x82\x28"),
    NO_UTF8("\xed\xa0\x80"),
    NO_UTF8("\xed\xbf\xbf"),
    NO_UTF8("\xf0\x80\x80\xaf"),
    NO_UTF8("\xf0\x8f\xbf\xbf"),
    NO_UTF8("\xf0\x90\x8d"),
    NO_UTF8("\xf4\x90\x80\x80"),
    NO_UTF8("\xf5\x80\x80\x80"),
    NO_UTF8("\xf8\x88\x80\x80\x80"),
    NO_UTF8("\xfc\x84\x80\x80\x80\x80"),
    NO_UTF8("\xfe"),
    NO_UTF8("\xff"),
    NO_UTF8("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65"
            "\x64"), /* 6.3.1 */
    /* 7: closing. */
    {"7.1.1", 1, "'a' close:1000 '' BINARY'a' CLOSE:1000''", {F(FIN | BINARY, "a"), NORMAL}},
    {"7.1.2", 1, "close:1000 '' CLOSE:1000''", {NORMAL, NORMAL}},
    {"7.1.3", 1, "close:1000 '' CLOSE:1000''", {NORMAL, F(FIN | PING, "p")}},
    {"7.1.4", 1, "close:1000 '' CLOSE:1000''", {NORMAL, F(FIN | BINARY, "a")}},
    {"7.1.5", 1, "close:1000 '' CLOSE:1000''", {F(BINARY, "a"), NORMAL, F(FIN | CONT, "b")}},
    {"7.3.1", 1, "close:1005 '' CLOSE''", {F(FIN | CLOSE, "")}},
    {"7.3.2", PROTOCOL, BAD, {F(FIN | CLOSE, "a")}},
    {"one byte where two have been",
     PROTOCOL,
     "PONG'\x03\xe8' " BAD,
     {F(FIN | PING, "\x03\xe8"), F(FIN | CLOSE, "\x03")}},
    {"7.3.3", 1, "close:1000 '' CLOSE:1000''", {NORMAL}},
    {"7.3.4",
     1,
     "close:1000 'Hello, world!' CLOSE:1000''",
     {F(FIN | CLOSE, "\x03\xe8Hello, world!")}},
    {"7.3.6", PROTOCOL, BAD, {F(FIN | CLOSE, "\x03\xe8" X125)}},
#define GOOD_CODE(high, low, code)                                                                 \
    {                                                                                              \
        "7.7 " #code, 1, "close:" #code " '' CLOSE:" #code "''",                                   \
        {                                                                                          \
            F(FIN | CLOSE, high low, .len = 2)                                                     \
        }                                                                                          \
    }
#define BAD_CODE(high, low, code)                                                                  \
    {                                                                                              \
        "7.9 " #code, PROTOCOL, BAD,                                                               \
        {                                                                                          \
            F(FIN | CLOSE, high low, .len = 2)                                                     \
        }                                                                                          \
    }
    GOOD_CODE("\x03", "\xe8", 1000),
    GOOD_CODE("\x03", "\xe9", 1001),
    GOOD_CODE("\x03", "\xea", 1002),
    GOOD_CODE("\x03", "\xeb", 1003),
    GOOD_CODE("\x03", "\xef", 1007),
    GOOD_CODE("\x03", "\xf0", 1008),
    GOOD_CODE("\x03", "\xf1", 1009),
    GOOD_CODE("\x03", "\xf2", 1010),
    GOOD_CODE("\x03", "\xf3", 1011),
    GOOD_CODE("\x03", "\xf4", 1012),
    GOOD_CODE("\x03", "\xf6", 1014),
    GOOD_CODE("\x0b", "\xb8", 3000),
    GOOD_CODE("\x0f", "\x9f", 3999),
    GOOD_CODE("\x0f", "\xa0", 4000),
    GOOD_CODE("\x13", "\x87", 4999),
    BAD_CODE("\x00", "\x00", 0),
    BAD_CODE("\x03", "\xe7", 999),
    BAD_CODE("\x03", "\xec", 1004),
    BAD_CODE("\x03", "\xed", 1005),
    BAD_CODE("\x03", "\xee", 1006),
    BAD_CODE("\x03", "\xf7", 1015),
    BAD_CODE("\x03", "\xf8", 1016),
    BAD_CODE("\x04", "\x4c", 1100),
    BAD_CODE("\x07", "\xd0", 2000),
    BAD_CODE("\x0b", "\xb7", 2999),
    BAD_CODE("\x13", "\x88", 5000), /* 7.13 */
    BAD_CODE("\xff", "\xff", 65535),
};

static size_t put_frames(uint8_t *bytes, const struct frame *frames, bool mask)
{
    size_t len = 0;
    for (size_t i = 0; i < FRAMES_MAX && frames[i].payload; i++) {
        size_t payload = frames[i].len ? frames[i].len : strlen(frames[i].payload);
        len += frame_put(bytes + len, frames[i].head, frames[i].payload, payload,
                         mask != frames[i].as_other, frames[i].length_form);
    }
    return len;
}

TEST(websocket_frames_mean_what_the_suite_says)
{
    static uint8_t bytes[4096];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (unsigned client = 0; client < 2; client++) {
            for (size_t piece = 1; piece < 5000; piece *= 15) {
                test_note("%s, %s, pieces of %zu", rows[i].name, client ? "client" : "server",
                          piece);
                rig_init(&end, client);
                size_t len = put_frames(bytes, rows[i].frames, !client);
                CHECK_INT(rig_give(&end, bytes, len, piece), rows[i].r);
                rig_log_output(&end);
                CHECK_STR(end.log, rows[i].log);
                /* Whoever has closed, or was told why not, may go; a client waits for its
                 * server. */
                CHECK_INT(bm_websocket_over(end.websocket),
                          rows[i].r < 0 || (rows[i].r > 0 && !client));
                CHECK_INT(bm_websocket_receive_end(end.websocket), rows[i].r < 0 ? rows[i].r
                                                                   : rows[i].r > 0
                                                                       ? 0
                                                                       : -BEAM_EWEBSOCKET_CUT);
                CHECK_INT(bm_websocket_over(end.websocket), 1);
                rig_deinit(&end);
            }
        }
    }
}

/* Groups 9 and 10: long messages, whole, in fragments, and in pieces of all sizes. */
TEST(websocket_messages_of_all_lengths_come_and_go)
{
    static const size_t lens[] = {126, 127, 128, 4080, 4096, 65535, 65536, 65537, RIG_MESSAGE_MAX};
    static uint8_t message[RIG_MESSAGE_MAX], frame[RIG_MESSAGE_MAX * 2];
    struct test_random random = test_random(0);
    test_random_fill(&random, message, sizeof(message));
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        for (unsigned shape = 0; shape < 4; shape++) {
            size_t fragment = shape & 1 ? lens[i] / 7 + 1 : lens[i];
            size_t piece = shape & 2 ? 997 : sizeof(frame);
            size_t len = 0;
            test_note("%zu in fragments of %zu and pieces of %zu", lens[i], fragment, piece);
            for (size_t at = 0; at < lens[i]; at += fragment) {
                size_t n = lens[i] - at < fragment ? lens[i] - at : fragment;
                uint8_t head = (uint8_t)((at == 0 ? BINARY : CONT) | (at + n == lens[i] ? FIN : 0));
                len += frame_put(frame + len, head, message + at, n, true, 0);
            }
            rig_init(&end, false);
            rig_init(&other, true);
            CHECK_INT(rig_give(&end, frame, len, piece), 0);
            CHECK_MEM(end.message, lens[i], message, lens[i]);
            rig_drain(&end);
            other.quiet = true;
            CHECK_INT(rig_give(&other, end.out, end.out_len, piece), 0);
            CHECK_MEM(other.message, lens[i], message, lens[i]);
            CHECK(end.parts >= lens[i] / 4096);
            rig_deinit(&end);
            rig_deinit(&other);
        }
    }
}

TEST(websocket_limit_is_of_one_message)
{
    static uint8_t bytes[RIG_MESSAGE_MAX];
    rig_init(&end, false);
    end.quiet = true;
    for (unsigned i = 0; i < 3; i++) {
        CHECK_INT(rig_frame(&end, BINARY, bytes, sizeof(bytes) - 5), 0);
        CHECK_INT(rig_frame(&end, FIN | CONT, bytes, 5), 0);
    }
    rig_deinit(&end);
}

TEST(websocket_message_over_its_limit_is_refused_before_it_comes)
{
    static const struct {
        uint64_t first, second; /* lengths of two fragments */
        bool over;
    } sizes[] = {
        {RIG_MESSAGE_MAX, 0, false},
        {RIG_MESSAGE_MAX + 1, 0, true},
        {RIG_MESSAGE_MAX - 1, 1, false},
        {RIG_MESSAGE_MAX - 1, 2, true},
        {1, INT64_MAX, true},
        {INT64_MAX, 0, true},
    };
    static uint8_t bytes[RIG_MESSAGE_MAX * 2];
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t there = sizes[i].first <= RIG_MESSAGE_MAX ? (size_t)sizes[i].first : 1;
        static uint8_t payload[RIG_MESSAGE_MAX];
        test_note("row %zu", i);
        rig_init(&end, true);
        end.quiet = true;
        size_t len =
            frame_put(bytes, sizes[i].second ? BINARY : FIN | BINARY, payload, there, false, 64);
        for (unsigned j = 0; j < 8; j++)
            bytes[2 + j] = (uint8_t)(sizes[i].first >> 8 * (7 - j));
        int r = there < 65536 ? 0 : rig_give(&end, bytes, len, SIZE_MAX);
        if (there < 65536 && sizes[i].first > 1)
            r = rig_give(&end, bytes, len, SIZE_MAX);
        else if (there < 65536)
            r = rig_frame(&end, BINARY, "a", 1);
        if (r == 0 && sizes[i].second) {
            if (sizes[i].second <= 2) {
                r = rig_frame(&end, FIN | CONT, payload, (size_t)sizes[i].second);
            } else {
                len = frame_put(bytes, FIN | CONT, payload, 1, false, 64);
                for (unsigned j = 0; j < 8; j++)
                    bytes[2 + j] = (uint8_t)(sizes[i].second >> 8 * (7 - j));
                r = rig_give(&end, bytes, len, SIZE_MAX);
            }
        }
        CHECK_INT(r, sizes[i].over ? -BEAM_EWEBSOCKET_TOO_LARGE : 0);
        end.log_len = 0;
        end.log[0] = '\0';
        rig_log_output(&end);
        CHECK_STR(end.log, sizes[i].over ? "CLOSE:1009''" : "");
        rig_deinit(&end);
    }
}

TEST(websocket_pings_of_a_peer_that_reads_nothing_wait_for_nothing)
{
    rig_init(&end, false);
    for (unsigned i = 0; i < 10000; i++) {
        char text[16];
        snprintf(text, sizeof(text), "%u", i);
        end.now_ns += RIG_SECOND / BM_WEBSOCKET_FRAMES_RATE; /* as fast as it may */
        CHECK_INT(rig_frame(&end, FIN | PING, text, strlen(text)), 0);
    }
    CHECK(end.account.peak < 12288); /* a third of it is wslay's */
    rig_log_output(&end);
    CHECK_STR(end.log, "PONG'0' PONG'1' PONG'2' PONG'3' PONG'4' PONG'5' PONG'6' PONG'7' PONG'8' "
                       "PONG'9' PONG'10' PONG'11' PONG'12' PONG'13' PONG'14' PONG'15' PONG'9999'");
    end.log_len = 0;
    CHECK_INT(rig_frame(&end, FIN | PING, "x", 1), 0);
    rig_log_output(&end);
    CHECK_STR(end.log, "PONG'x'");
    rig_deinit(&end);
}

TEST(websocket_flood_of_frames_without_content_ends_the_connection)
{
    static const uint8_t heads[] = {FIN | PING, FIN | PONG, CONT, FIN | BINARY};
    for (size_t i = 0; i < sizeof(heads); i++) {
        unsigned count = 0;
        int r = 0;
        test_note("0x%02x", heads[i]);
        rig_init(&end, false);
        end.quiet = true;
        if (heads[i] == CONT)
            CHECK_INT(rig_frame(&end, BINARY, "a", 1), 0);
        for (; r == 0 && count < 10000; count++) {
            r = rig_frame(&end, heads[i], "", 0);
            end.log_len = 0;
        }
        CHECK_INT(r, -BEAM_EWEBSOCKET_FLOOD);
        CHECK_UINT(count, BM_WEBSOCKET_FRAMES_BURST + 1);
        rig_drain(&end);
        CHECK_MEM(end.out + end.out_len - 4, 4, "\x88\x02\x03\xf0", 4); /* 1008 */
        rig_deinit(&end);
    }
    rig_init(&end, false); /* nothing is saved up */
    end.now_ns += 1000000 * RIG_SECOND;
    unsigned count = 0;
    while (rig_frame(&end, FIN | PONG, "", 0) == 0)
        count++;
    CHECK_UINT(count, BM_WEBSOCKET_FRAMES_BURST);
    rig_deinit(&end);

    rig_init(&end, false); /* and so many a second for ever */
    for (unsigned i = 0; i < 5 * BM_WEBSOCKET_FRAMES_BURST; i++) {
        CHECK_INT(rig_frame(&end, FIN | PONG, "", 0), 0);
        end.now_ns += RIG_SECOND / BM_WEBSOCKET_FRAMES_RATE;
    }
    rig_deinit(&end);

    rig_init(&end, false); /* what has content is none */
    for (unsigned i = 0; i < 10000; i++) {
        CHECK_INT(rig_frame(&end, i ? CONT : BINARY, "a", 1), 0);
    }
    rig_deinit(&end);
}

TEST(websocket_sends_what_there_is_room_for)
{
    static uint8_t bytes[60000];
    struct bm_bytes pieces[] = {bm_bytes("", 0), bm_bytes("ab", 2), bm_bytes("", 0),
                                bm_bytes("cde", 3), bm_bytes("", 0)};
    rig_init(&end, true);
    CHECK_INT(bm_websocket_send(end.websocket, pieces, 5), 0);
    CHECK_INT(bm_websocket_send(end.websocket, pieces, 0), 0);
    CHECK_INT(bm_websocket_send(end.websocket, pieces, 1), 0);
    rig_log_output(&end);
    CHECK_STR(end.log, "BINARY'abcde' BINARY'' BINARY''");

    struct bm_bytes large = bm_bytes(bytes, sizeof(bytes));
    unsigned count = 0;
    int r;
    while ((r = bm_websocket_send(end.websocket, &large, 1)) == 0)
        count++;
    CHECK_INT(r, -EAGAIN);
    CHECK_UINT(count, BM_WEBSOCKET_OUTPUT_MAX / sizeof(bytes) + 1);
    CHECK_INT(rig_frame(&end, FIN | PING, "p", 1), 0); /* is answered all the same */
    size_t len;
    const uint8_t *out = bm_websocket_output(end.websocket, &len);
    uint8_t copy[16];
    memcpy(copy, out, sizeof(copy));
    CHECK_INT(rig_frame(&end, FIN | PING, "q", 1), 0);
    CHECK_MEM(out, sizeof(copy), copy, sizeof(copy)); /* what is lent stays where it is */
    bm_websocket_output_ack(end.websocket, len);
    CHECK_INT(bm_websocket_send(end.websocket, &large, 1), 0);
    end.log_len = 0;
    rig_log_output(&end);
    CHECK_STR(end.log,
              "BINARY60000 BINARY60000 BINARY60000 BINARY60000 PONG'p' PONG'q' BINARY60000");
    rig_deinit(&end);
}

TEST(websocket_message_after_message_allocates_nothing)
{
    static uint8_t bytes[16000];
    rig_init(&end, false);
    CHECK_INT(rig_frame(&end, FIN | BINARY, bytes, sizeof(bytes)), 0);
    rig_drain(&end);
    uint64_t allocs = end.account.allocs;
    for (unsigned i = 0; i < 100; i++) {
        CHECK_INT(rig_frame(&end, FIN | BINARY, bytes, sizeof(bytes)), 0);
        end.log_len = end.out_len = 0;
        rig_drain(&end);
    }
    CHECK_UINT(end.account.allocs, allocs);
    size_t used = end.account.used;
    bm_websocket_trim(end.websocket);
    CHECK(end.account.used + sizeof(bytes) <= used);
    rig_deinit(&end);
}

TEST(websocket_masks_differ)
{
    uint8_t first[4];
    struct bm_bytes piece = bm_bytes("abc", 3);
    rig_init(&end, true);
    for (unsigned i = 0; i < 40; i++) {
        CHECK_INT(bm_websocket_send(end.websocket, &piece, 1), 0);
        end.out_len = 0;
        rig_drain(&end);
        if (i > 0)
            CHECK(memcmp(first, end.out + 2, 4) != 0);
        memcpy(first, end.out + 2, 4);
    }
    rig_deinit(&end);
}

TEST(websocket_closes_both_ways)
{
    struct bm_bytes piece = bm_bytes("abc", 3);
    rig_init(&end, false);
    rig_init(&other, true);
    CHECK_INT(bm_websocket_close(end.websocket, 1005, "", end.now_ns), -EINVAL);
    CHECK_INT(bm_websocket_send(end.websocket, &piece, 1), 0);
    CHECK_INT(bm_websocket_close(end.websocket, 1001, "bye", end.now_ns), 0);
    CHECK_INT(bm_websocket_close(end.websocket, 1000, "", end.now_ns), -EPIPE);
    CHECK_INT(bm_websocket_send(end.websocket, &piece, 1), -EPIPE);
    rig_drain(&end);
    CHECK_INT(bm_websocket_over(end.websocket), 0); /* the other has not closed */
    CHECK_INT(rig_frame(&end, FIN | BINARY, "late", 4), 0);
    CHECK_STR(end.log, "'late'");
    CHECK_INT(rig_give(&other, end.out, end.out_len, SIZE_MAX), BM_WEBSOCKET_CLOSED);
    CHECK_STR(other.log, "'abc' close:1001 'bye'");
    CHECK_INT(bm_websocket_send(other.websocket, &piece, 1), -EPIPE);
    CHECK_INT(rig_frame(&other, FIN | BINARY, "behind", 6), BM_WEBSOCKET_CLOSED);
    CHECK_STR(other.log, "'abc' close:1001 'bye'"); /* nothing is looked at any more */
    rig_drain(&other);
    CHECK_INT(rig_give(&end, other.out, other.out_len, SIZE_MAX), BM_WEBSOCKET_CLOSED);
    CHECK_INT(bm_websocket_over(end.websocket), 1);
    CHECK_INT(bm_websocket_over(other.websocket), 0); /* it is the server's to end the connection */
    CHECK_INT(bm_websocket_receive_end(other.websocket), 0);
    CHECK_INT(bm_websocket_over(other.websocket), 1);
    rig_deinit(&end);
    rig_deinit(&other);
}

TEST(websocket_reason_that_is_too_long_is_left_out)
{
    char reason[BM_WEBSOCKET_REASON_MAX + 2] = "";
    for (unsigned over = 0; over < 2; over++) {
        memset(reason, 'a', BM_WEBSOCKET_REASON_MAX + over);
        rig_init(&end, false);
        CHECK_INT(bm_websocket_close(end.websocket, 1000, reason, 0), 0);
        rig_drain(&end);
        CHECK_UINT(end.out_len, over ? 4 : 127);
        rig_deinit(&end);
    }
}

TEST(websocket_peer_that_does_not_answer_a_close_is_left)
{
    rig_init(&end, false);
    CHECK_UINT(bm_websocket_next_ns(end.websocket), UINT64_MAX);
    CHECK_INT(bm_websocket_close(end.websocket, 1000, "", end.now_ns), 0);
    rig_drain(&end);
    uint64_t then = end.now_ns + 5 * RIG_SECOND;
    CHECK_UINT(bm_websocket_next_ns(end.websocket), then);
    CHECK_INT(bm_websocket_tick(end.websocket, then - 1), 0);
    CHECK_INT(bm_websocket_tick(end.websocket, then), -ETIMEDOUT);
    CHECK_INT(bm_websocket_over(end.websocket), 1);
    CHECK_UINT(bm_websocket_next_ns(end.websocket), UINT64_MAX);
    rig_deinit(&end);

    rig_init(&end, true); /* a server that has closed but does not go */
    CHECK_INT(rig_frame(&end, FIN | CLOSE, "", 0), BM_WEBSOCKET_CLOSED);
    rig_drain(&end);
    CHECK_UINT(bm_websocket_next_ns(end.websocket), then);
    CHECK_INT(bm_websocket_tick(end.websocket, then - 1), 0);
    CHECK_INT(bm_websocket_over(end.websocket), 0);
    CHECK_INT(bm_websocket_tick(end.websocket, then), 0);
    CHECK_INT(bm_websocket_over(end.websocket), 1);
    rig_deinit(&end);
}

TEST(websocket_peer_that_takes_nothing_is_left)
{
    struct bm_bytes piece = bm_bytes("abc", 3);
    rig_init(&end, false);
    CHECK_INT(bm_websocket_send(end.websocket, &piece, 1), 0);
    uint64_t now = end.now_ns;
    CHECK_UINT(bm_websocket_next_ns(end.websocket), now + RIG_SECOND);
    CHECK_INT(bm_websocket_tick(end.websocket, now += RIG_SECOND), 0);
    CHECK_UINT(bm_websocket_next_ns(end.websocket), now + 30 * RIG_SECOND);
    CHECK_INT(bm_websocket_tick(end.websocket, now += 29 * RIG_SECOND), 0);
    bm_websocket_output_ack(end.websocket, 1);
    CHECK_INT(bm_websocket_tick(end.websocket, now += 29 * RIG_SECOND), 0);
    CHECK_INT(bm_websocket_tick(end.websocket, now += 29 * RIG_SECOND), 0);
    CHECK_INT(bm_websocket_tick(end.websocket, now += RIG_SECOND), -ETIMEDOUT);
    rig_deinit(&end);
}

/* What both would have said, or the error of whoever had no memory. */
static int talk(void)
{
    uint8_t message[9000] = {0};
    struct bm_bytes piece = bm_bytes(message, sizeof(message));
    int r = bm_websocket_send(other.websocket, &piece, 1);
    if (r < 0)
        return r;
    rig_drain(&other);
    r = rig_give(&end, other.out, other.out_len, SIZE_MAX);
    if (r == 0)
        r = rig_frame(&end, FIN | PING, "p", 1);
    if (r == 0)
        r = rig_frame(&end, FIN | CLOSE, "", 0);
    rig_drain(&end);
    if (r < 0)
        return r;
    other.quiet = true;
    r = rig_give(&other, end.out, end.out_len, SIZE_MAX);
    return r < 0 ? r : 0;
}

TEST(websocket_pays_for_what_its_library_takes)
{
    rig_init(&end, false);
    size_t used = end.account.used;
    CHECK(used > 4264); /* of wslay alone */
    rig_deinit(&end);

    struct bm_account poor = {.limit = used - 1};
    const struct bm_websocket_options options = {.account = &poor, .handlers = &rig_handlers};
    struct bm_websocket *websocket;
    CHECK_INT(bm_websocket_new(&options, &websocket), -ENOMEM);
    CHECK_UINT(poor.used, 0);
    poor.limit = used;
    REQUIRE_INT(bm_websocket_new(&options, &websocket), 0);
    bm_websocket_free(websocket);
}

TEST(websocket_without_memory_fails_and_keeps_nothing)
{
    int left;
    for (left = 0; left < 50; left++) {
        test_note("%d allocations", left);
        scarce_begin(left);
        int r = rig_open(&end, false);
        int s = rig_open(&other, true);
        if (r == 0 && s == 0)
            r = talk();
        bool short_of = scarce_asked > left;
        rig_deinit(&end);
        rig_deinit(&other);
        scarce_end();
        if (!short_of) {
            CHECK_INT(r, 0);
            CHECK_STR(end.log, "9000 close:1005 ''");
            CHECK_STR(other.log, "9000 close:1005 ''");
            break;
        }
    }
    CHECK(left > 3 && left < 50);
    CHECK_PTR(bm_websocket_free(NULL), NULL);
}
