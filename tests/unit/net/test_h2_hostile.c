/* HTTP/2 peers that mean no good, byte by byte: each known attack meets its limit, is told so with
 * the right error code, and has cost no more than the limit says. */
#include "net/proto/h2.h"
#include "net/proto/h2_guard.h"
#include "tests/unit/net/h2_ends.h"

static struct end server, client;
static struct raw raw;

static void begin(void)
{
    memset(&server, 0, sizeof(server));
    server.consumes = true;
    end_greeted(&server, &raw);
}

/* The server has told the peer this code, and is over. */
static void check_over(int error, uint32_t code)
{
    char expected[64];
    CHECK_INT(bm_h2_over(server.h2), error);
    CHECK_INT(end_receive(&server, "x", 1), error);
    CHECK_UINT(bm_h2_code(server.h2), code);
    const char *frames = end_frames(&server);
    const char *goaway = strstr(frames, "GOAWAY");
    snprintf(expected, sizeof(expected), " %u; ", code);
    REQUIRE(goaway);
    CHECK_STR(goaway + strlen(goaway) - strlen(expected), expected);
    CHECK(!bm_h2_output_more(server.h2));
    CHECK_UINT(server.requests, server.closes);
    CHECK_UINT(bm_h2_streams(server.h2), 0);
    CHECK_STR(end_frames(&server), "");
    end_close(&server);
}

/* The same where nobody knows before the peer has read what was there. */
static void check_over_when_read(uint32_t code)
{
    char expected[64];
    CHECK_INT(bm_h2_over(server.h2), 0);
    const char *frames = end_frames(&server);
    snprintf(expected, sizeof(expected), " %u; ", code);
    CHECK_STR(frames + strlen(frames) - strlen(expected), expected);
    CHECK(bm_h2_over(server.h2) < 0);
    CHECK_UINT(server.requests, server.closes);
    end_close(&server);
}

/* Sends what `put` makes until the server has enough; how often that was. */
static unsigned flood(void (*put)(unsigned i), unsigned most)
{
    for (unsigned i = 0; i < most; i++) {
        put(i);
        if (raw_send(&raw, &server) < 0)
            return i;
        end_frames(&server); /* the peer reads */
        server.log_len = 0;
    }
    return most;
}

static void put_request_and_reset(unsigned i)
{
    raw_get(&raw, 2 * i + 1);
    raw_u32(&raw, F_RST_STREAM, 2 * i + 1, BM_H2_CANCEL);
}

TEST(h2_rapid_reset_is_stopped)
{
    begin();
    CHECK_UINT(flood(put_request_and_reset, 10000), 100);
    CHECK_UINT(server.requests, 101);
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

TEST(h2_resets_now_and_then_are_fine)
{
    begin();
    for (unsigned i = 0; i < 400; i++) {
        put_request_and_reset(i);
        REQUIRE_INT(raw_send(&raw, &server), 0);
        end_frames(&server);
        server.log_len = 0;
        server.now_ns += BM_NS_PER_S / 10;
    }
    CHECK_UINT(server.closes, 400);
    end_close(&server);
}

static struct bm_h2_stream *held[1000];

static void hold(struct bm_h2_stream *stream, struct end *end)
{
    bm_h2_stream_hold(stream);
    held[end->requests - 1] = stream;
}

TEST(h2_reset_request_keeps_its_place_while_it_is_worked_for)
{
    begin();
    server.on_request = hold;
    server.quiet = true;
    for (unsigned i = 0; i < BM_H2_STREAMS_MAX; i++) {
        put_request_and_reset(i);
        REQUIRE_INT(raw_send(&raw, &server), 0);
        end_frames(&server);
        server.now_ns += BM_NS_PER_S / 10;
    }
    CHECK_UINT(server.closes, BM_H2_STREAMS_MAX);
    CHECK_UINT(bm_h2_streams(server.h2), BM_H2_STREAMS_MAX);
    raw_get(&raw, 2 * BM_H2_STREAMS_MAX + 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_frames(&server), "RST_STREAM 257 7; ");
    CHECK_UINT(server.requests, BM_H2_STREAMS_MAX);
    bm_h2_stream_release(held[7]);
    raw_get(&raw, 2 * BM_H2_STREAMS_MAX + 3);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_frames(&server), "");
    CHECK_UINT(server.requests, BM_H2_STREAMS_MAX + 1);
    for (unsigned i = 0; i < BM_H2_STREAMS_MAX; i++)
        if (i != 7)
            bm_h2_stream_release(held[i]);
    bm_h2_lost(server.h2, BM_H2_CANCEL);
    bm_h2_stream_release(held[BM_H2_STREAMS_MAX]);
    end_close(&server);
}

TEST(h2_more_streams_than_allowed_at_once)
{
    begin();
    server.quiet = true;
    for (unsigned i = 0; i < BM_H2_STREAMS_MAX; i++)
        raw_get(&raw, 2 * i + 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_UINT(server.requests, BM_H2_STREAMS_MAX);
    raw_get(&raw, 2 * BM_H2_STREAMS_MAX + 1);
    CHECK(raw_send(&raw, &server) < 0);
    CHECK_UINT(server.requests, BM_H2_STREAMS_MAX);
    check_over(-BEAM_EH2_PROTOCOL, BM_H2_PROTOCOL_ERROR);
}

/* MadeYouReset: three ways to make the server reset. */

static void put_window_overflow(unsigned i)
{
    raw_get(&raw, 2 * i + 1);
    raw_u32(&raw, F_WINDOW_UPDATE, 2 * i + 1, 0x7fffffff);
}

static void put_upper_case(unsigned i)
{
    raw_get_with(&raw, 2 * i + 1, "X", "y");
}

static void put_wrong_length(unsigned i)
{
    uint8_t block[64];
    memcpy(block, BLOCK_POST, BLOCK_LEN);
    size_t len = BLOCK_LEN + hpack_put(block + BLOCK_LEN, "content-length", "5");
    raw_frame(&raw, F_HEADERS, F_END_HEADERS, 2 * i + 1, block, len);
    raw_frame(&raw, F_DATA, F_END_STREAM, 2 * i + 1, "four", 4);
}

static void put_update_of_nothing(unsigned i)
{
    raw_get(&raw, 2 * i + 1);
    raw_u32(&raw, F_WINDOW_UPDATE, 2 * i + 1, 0);
}

TEST(h2_resets_that_the_server_is_made_to_send_are_stopped)
{
    static void (*const ways[])(unsigned) = {put_window_overflow, put_upper_case, put_wrong_length};
    for (unsigned i = 0; i < BM_ARRAY_LEN(ways); i++) {
        test_note("way %u", i);
        begin();
        CHECK_UINT(flood(ways[i], 10000), 100);
        check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
    }
}

TEST(h2_window_update_of_nothing_is_an_error)
{
    begin();
    put_update_of_nothing(0);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
    CHECK_STR(end_said(&server), "request 1 GET https://a/; end 1; close 1 1; ");
    check_over(-BEAM_EH2_PROTOCOL, BM_H2_PROTOCOL_ERROR);
}

TEST(h2_resets_of_a_handler_are_its_own_business)
{
    begin();
    server.quiet = true;
    for (unsigned i = 0; i < 500; i++) {
        raw_get(&raw, 2 * i + 1);
        REQUIRE_INT(raw_send(&raw, &server), 0);
        bm_h2_stream_reset(server.last, BM_H2_CANCEL);
        end_frames(&server);
    }
    CHECK_UINT(server.closes, 500);
    end_close(&server);
}

TEST(h2_continuation_flood_is_stopped)
{
    begin();
    raw_frame(&raw, F_HEADERS, 0, 1, BLOCK_GET, BLOCK_LEN);
    for (unsigned i = 0; i < 8; i++)
        raw_frame(&raw, F_CONTINUATION, 0, 1, "", 0);
    CHECK_INT(raw_send(&raw, &server), 0);
    raw_frame(&raw, F_CONTINUATION, F_END_HEADERS, 1, "", 0);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_FLOOD);
    CHECK_UINT(server.requests, 0);
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

/* nghttp2's own count is of pieces. */
TEST(h2_continuations_may_come_byte_by_byte)
{
    begin();
    raw_frame(&raw, F_HEADERS, F_END_STREAM, 1, BLOCK_GET, BLOCK_LEN);
    for (unsigned i = 1; i <= BM_H2_CONTINUATIONS_MAX; i++)
        raw_frame(&raw, F_CONTINUATION, i == BM_H2_CONTINUATIONS_MAX ? F_END_HEADERS : 0, 1, "", 0);
    for (size_t i = 0; i < raw.len; i++)
        REQUIRE_INT(end_receive(&server, raw.bytes + i, 1), 0);
    CHECK_STR(end_said(&server), "request 1 GET https://a/; end 1; ");
    end_close(&server);
}

static void put_ping(unsigned i)
{
    raw_frame(&raw, F_PING, 0, 0, "12345678", 8);
}

static void put_settings(unsigned i)
{
    raw_frame(&raw, F_SETTINGS, 0, 0, "", 0);
}

static void put_priority(unsigned i)
{
    raw_frame(&raw, F_PRIORITY, 0, 2 * i + 1, "\0\0\0\0\1", 5);
}

static void put_empty_data(unsigned i)
{
    if (i == 0)
        raw_post(&raw, 1);
    raw_frame(&raw, F_DATA, 0, 1, "", 0);
}

static void put_padding(unsigned i)
{
    if (i == 0)
        raw_post(&raw, 1);
    raw_frame(&raw, F_DATA, F_PADDED, 1, "\2\0\0", 3);
}

static void put_unknown(unsigned i)
{
    raw_frame(&raw, 0xbb, 0, 0, "", 0);
}

static void put_window_update(unsigned i)
{
    raw_u32(&raw, F_WINDOW_UPDATE, 0, 1);
}

TEST(h2_floods_of_frames_that_do_nothing_are_stopped)
{
    static const struct {
        const char *name;
        void (*put)(unsigned);
        unsigned most;
    } rows[] = {
        {"PING", put_ping, 100},
        {"SETTINGS", put_settings, 30}, /* two came with the greeting */
        {"PRIORITY", put_priority, 512},
        {"empty DATA", put_empty_data, 100},
        {"DATA of padding", put_padding, 100},
        {"unknown type", put_unknown, 100},
        {"WINDOW_UPDATE", put_window_update, 4000},
    };
    for (unsigned i = 0; i < BM_ARRAY_LEN(rows); i++) {
        test_note("%s", rows[i].name);
        begin();
        CHECK_UINT(flood(rows[i].put, 10000), rows[i].most);
        check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
    }
}

TEST(h2_budgets_fill_up_again)
{
    begin();
    for (unsigned i = 0; i < 100; i++)
        put_ping(i);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    end_frames(&server);
    for (unsigned i = 0; i < 100; i++) {
        server.now_ns += BM_NS_PER_S / 20;
        put_ping(i);
        REQUIRE_INT(raw_send(&raw, &server), 0);
        end_frames(&server);
    }
    put_ping(0);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_FLOOD);
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

TEST(h2_window_updates_for_what_was_sent_are_free)
{
    struct says answer = {.left = 4u << 20};
    begin();
    raw_get(&raw, 1);
    raw_u32(&raw, F_WINDOW_UPDATE, 0, 64u << 20);
    raw_u32(&raw, F_WINDOW_UPDATE, 1, 64u << 20);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    bm_h2_stream_set_arg(server.last, &answer);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
    size_t len;
    unsigned updates = 0;
    while (bm_h2_output(server.h2, &len) && len > 0) {
        bm_h2_output_ack(server.h2, len, server.now_ns);
        for (size_t i = 0; i < len / 1024; i++, updates++)
            raw_u32(&raw, F_WINDOW_UPDATE, 0, 1024);
        REQUIRE_INT(raw_send(&raw, &server), 0);
    }
    CHECK(updates > 4050);
    end_close(&server);
}

TEST(h2_window_updates_for_small_bodies_are_free)
{
    struct says answers[2];
    begin();
    server.quiet = true;
    for (unsigned i = 0; i < 3000; i++) {
        raw_get(&raw, 2 * i + 1);
        REQUIRE_INT(raw_send(&raw, &server), 0);
        answers[i % 2] = (struct says){.text = "hi"};
        bm_h2_stream_set_arg(server.last, &answers[i % 2]);
        REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
        end_frames(&server);
        raw_u32(&raw, F_WINDOW_UPDATE, 0, 2);
        raw_u32(&raw, F_WINDOW_UPDATE, 2 * i + 1, 2);
        REQUIRE_INT(raw_send(&raw, &server), 0);
    }
    CHECK_UINT(server.closes, 3000);
    end_close(&server);
}

static void put_dribble(unsigned i)
{
    raw_u32(&raw, F_WINDOW_UPDATE, 1, 1);
}

TEST(h2_peer_that_opens_windows_by_the_byte_is_stopped)
{
    struct says answer = {.left = 1u << 20};
    begin();
    raw_frame(&raw, F_SETTINGS, 0, 0, "\0\4\0\0\0\0", 6);
    raw_get(&raw, 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    bm_h2_stream_set_arg(server.last, &answer);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
    CHECK_UINT(flood(put_dribble, 10000), 4000 + 4000 / BM_H2_UPDATE_LEN);
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

/* A peer that sends and never reads. */

TEST(h2_answers_to_a_peer_that_does_not_read_are_bounded)
{
    static struct says answers[BM_H2_STREAMS_MAX];
    begin();
    server.quiet = true;
    raw_u32(&raw, F_WINDOW_UPDATE, 0, 0x7fff0000);
    for (unsigned i = 0; i < BM_H2_STREAMS_MAX; i++)
        raw_get(&raw, 2 * i + 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    for (unsigned i = 0; i < BM_H2_STREAMS_MAX; i++) {
        answers[i] = (struct says){.left = 1u << 30};
        bm_h2_stream_set_arg(server.streams[i], &answers[i]);
        REQUIRE_INT(bm_h2_respond(server.streams[i], 200, NULL, 0, says_read), 0);
    }
    size_t len;
    uint64_t since_ns = server.now_ns;
    bm_h2_output(server.h2, &len);
    CHECK(len <= BM_H2_OUTPUT_LEN);
    size_t used = server.account.used;
    for (unsigned i = 0; i < 150; i++) {
        server.now_ns += BM_NS_PER_S;
        put_ping(i);
        if (raw_send(&raw, &server) < 0)
            break;
        bm_h2_output(server.h2, &len);
        REQUIRE(len <= BM_H2_OUTPUT_LEN);
        REQUIRE_UINT(bm_h2_stalled_since_ns(server.h2), since_ns);
        REQUIRE(server.account.used < used + 64 * 1024);
    }
    /* nghttp2 keeps a hundred answers to PING, and then has enough. */
    CHECK_INT(bm_h2_over(server.h2), -BEAM_EH2_FLOOD);
    CHECK_UINT(server.closes, BM_H2_STREAMS_MAX);
    end_close(&server);
}

/* A server whose output is full, because the peer reads nothing of a body. */
static void begin_stalled(void)
{
    static struct says answer;
    size_t len;
    begin();
    server.quiet = true;
    answer = (struct says){.left = 1u << 30};
    raw_post(&raw, 1);
    raw_u32(&raw, F_WINDOW_UPDATE, 0, 0x7fff0000);
    raw_u32(&raw, F_WINDOW_UPDATE, 1, 0x7fff0000);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    bm_h2_stream_set_arg(server.last, &answer);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
    bm_h2_output(server.h2, &len);
    CHECK(len > BM_H2_OUTPUT_LEN - 16394 && len <= BM_H2_OUTPUT_LEN);
}

TEST(h2_resets_that_wait_are_bounded)
{
    begin_stalled();
    size_t used = server.account.used;
    for (unsigned i = 1; i < 5000; i++) {
        put_upper_case(i);
        if (raw_send(&raw, &server) < 0)
            break;
    }
    CHECK(server.account.used < used + BM_H2_STREAMS_MAX * 2048);
    CHECK_UINT(server.requests, 1);
    /* nghttp2 has told the peer, who does not read it: more streams than allowed. */
    check_over_when_read(BM_H2_PROTOCOL_ERROR);
}

TEST(h2_window_updates_that_wait_are_bounded)
{
    static uint8_t zeros[16384];
    begin_stalled();
    size_t used = server.account.used;
    for (unsigned i = 0; i < 10000; i++) { /* all is consumed at once, and its room given back */
        raw_frame(&raw, F_DATA, 0, 1, zeros, sizeof(zeros));
        REQUIRE_INT(raw_send(&raw, &server), 0);
    }
    CHECK(server.account.used < used + 1024);
    check_over_when_read(BM_H2_FLOW_CONTROL_ERROR);
}

TEST(h2_stream_whose_peer_opens_no_window_says_since_when)
{
    struct says answer = {.text = "hello"};
    begin();
    raw_frame(&raw, F_SETTINGS, 0, 0, "\0\4\0\0\0\0", 6); /* INITIAL_WINDOW_SIZE 0 */
    raw_get(&raw, 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_UINT(bm_h2_stream_blocked_since_ns(server.last), UINT64_MAX);
    bm_h2_stream_set_arg(server.last, &answer);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
    CHECK_STR(end_frames(&server), "SETTINGS +ack; HEADERS 1; ");
    uint64_t since_ns = server.now_ns;
    server.now_ns += 1000;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    CHECK_STR(end_frames(&server), "");
    CHECK_UINT(bm_h2_stream_blocked_since_ns(server.last), since_ns);
    raw_u32(&raw, F_WINDOW_UPDATE, 1, 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_frames(&server), "DATA 1 1; ");
    CHECK_UINT(bm_h2_stream_blocked_since_ns(server.last), server.now_ns);
    raw_u32(&raw, F_WINDOW_UPDATE, 1, 100);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_frames(&server), "DATA 1 4 +end; ");
    end_close(&server);
}

/* Header blocks */

/* A request whose block puts a long value into the table and then names it `times` times. */
static void put_bomb(uint32_t id, size_t value_len, unsigned times)
{
    static uint8_t block[32768];
    uint8_t *pos = block;
    memcpy(pos, BLOCK_GET, BLOCK_LEN);
    pos += BLOCK_LEN;
    memcpy(pos, "\x40\1b", 3);
    pos += 3;
    *pos++ = 0x7f; /* a length in three bytes */
    *pos++ = (uint8_t)(((value_len - 127) & 0x7f) | 0x80);
    *pos++ = (uint8_t)((value_len - 127) >> 7);
    memset(pos, 'b', value_len);
    pos += value_len;
    memset(pos, 0xbe, times);
    pos += times;
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, id, block, (size_t)(pos - block));
}

TEST(h2_header_block_over_its_length_is_answered_431)
{
    begin();
    put_bomb(1, 4000, 3); /* 16 004 bytes and the pseudo fields */
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_UINT(server.requests, 1);
    CHECK_STR(end_frames(&server), "");
    put_bomb(3, 4000, 4);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_UINT(server.requests, 1);
    CHECK_STR(end_frames(&server), "HEADERS 3 +end; ");
    CHECK_UINT(bm_h2_streams(server.h2), 1);
    end_close(&server);
}

TEST(h2_hpack_bomb_is_stopped)
{
    begin();
    put_bomb(1, 4000, 10000);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_FLOOD);
    CHECK_UINT(server.requests, 0);
    CHECK(server.account.peak < 256 * 1024);
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

static void put_small_bomb(unsigned i)
{
    put_bomb(2 * i + 1, 3000, 5);
}

TEST(h2_header_blocks_over_their_length_are_not_for_ever)
{
    begin();
    CHECK_UINT(flood(put_small_bomb, 10000), 100);
    CHECK_UINT(server.requests, 0);
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

static void answer_nothing(struct bm_h2_stream *stream, struct end *end)
{
    CHECK_INT(bm_h2_respond(stream, 204, NULL, 0, NULL), 0);
}

static void put_long_block(unsigned i)
{
    put_bomb(2 * i + 1, 4000, 3);
}

TEST(h2_decoded_header_bytes_of_a_second_are_bounded)
{
    begin();
    server.on_request = answer_nothing;
    unsigned blocks = flood(put_long_block, 10000);
    CHECK_UINT(blocks, BM_H2_FIELDS_PER_S / 8 / (4 * 4001 + 39));
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

static void put_fields(uint32_t id, unsigned count)
{
    static uint8_t block[16384];
    uint8_t *pos = block;
    memcpy(pos, BLOCK_GET, BLOCK_LEN);
    pos += BLOCK_LEN;
    for (unsigned i = 0; i < count; i++)
        pos += hpack_put(pos, "a", "");
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, id, block, (size_t)(pos - block));
}

TEST(h2_too_many_fields_are_answered_431)
{
    begin();
    put_fields(1, BM_H2_FIELDS_MAX);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_UINT(server.requests, 1);
    put_fields(3, BM_H2_FIELDS_MAX + 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_UINT(server.requests, 1);
    CHECK_STR(end_frames(&server), "HEADERS 3 +end; ");
    put_fields(5, BM_H2_FIELDS_EXCESS * BM_H2_FIELDS_MAX + 1);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_FLOOD);
    check_over(-BEAM_EH2_FLOOD, BM_H2_ENHANCE_YOUR_CALM);
}

TEST(h2_upload_with_a_header_block_over_its_length_is_stopped)
{
    static uint8_t block[16384];
    begin();
    memcpy(block, BLOCK_POST, BLOCK_LEN);
    size_t len = BLOCK_LEN;
    for (unsigned i = 0; i < BM_H2_FIELDS_MAX + 1; i++)
        len += hpack_put(block + len, "a", "");
    raw_frame(&raw, F_HEADERS, F_END_HEADERS, 1, block, len);
    raw_frame(&raw, F_DATA, 0, 1, "body", 4);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_said(&server), "");
    CHECK_STR(end_frames(&server), "HEADERS 1 +end; RST_STREAM 1 0; ");
    CHECK_UINT(bm_h2_streams(server.h2), 0);
    end_close(&server);
}

TEST(h2_malformed_requests_are_reset_and_never_shown)
{
    static const struct {
        const char *name, *value;
    } rows[] = {
        {"x", "a\r\nb: c"},
        {"x", "a\nb"},
        {"x", " a"},
        {"x", "a "},
        {"x y", "a"},
        {"", "a"},
        {"X", "a"},
        {"connection", "x"},
        {"transfer-encoding", "chunked"},
        {"upgrade", "h2c"},
        {"te", "gzip"},
        {"content-length", "1x"},
        {"content-length", "5"},
        {"host", "b"},
        {"host", "a:80"},
        {":path", "/again"},
        {":unknown", "a"},
        {"keep-alive", "1"},
        {"proxy-connection", "keep"},
    };
    for (unsigned i = 0; i < BM_ARRAY_LEN(rows); i++) {
        test_note("%s: %s", rows[i].name, rows[i].value);
        begin();
        raw_get_with(&raw, 1, rows[i].name, rows[i].value);
        CHECK_INT(raw_send(&raw, &server), 0);
        CHECK_STR(end_said(&server), "");
        CHECK_STR(end_frames(&server), "RST_STREAM 1 1; ");
        CHECK_UINT(bm_h2_streams(server.h2), 0);
        end_close(&server);
    }
    begin();
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, 5, "\x82\x84\x87\x0f\x17\x01h",
              7); /* host alone */
    CHECK_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_said(&server), "request 5 GET https://h/ host=h; end 5; ");
    end_close(&server);

    begin();
    raw_get_with(&raw, 1, "host", "A");
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, 3, "\x82\x84\x87\x01\x03u@a", 8);
    CHECK_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_said(&server), "request 1 GET https://a/ host=A; end 1; ");
    CHECK_STR(end_frames(&server), "RST_STREAM 3 1; ");
    end_close(&server);
}

TEST(h2_trailers_are_read_past)
{
    uint8_t block[64];
    begin();
    raw_post(&raw, 1);
    raw_frame(&raw, F_DATA, 0, 1, "body", 4);
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, 1, block,
              hpack_put(block, "checksum", "1"));
    raw_get(&raw, 3);
    CHECK_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_said(&server), "request 1 POST https://a/; data 1 'body'; end 1; "
                                 "request 3 GET https://a/; end 3; ");
    end_close(&server);
}

/* Stream ids */

TEST(h2_ids_may_be_passed_over_but_not_opened_later)
{
    begin();
    raw_get(&raw, 5);
    raw_get(&raw, 11);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_UINT(server.requests, 2);
    raw_get(&raw, 7);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
    CHECK_UINT(server.requests, 2);
    check_over(-BEAM_EH2_PROTOCOL, BM_H2_PROTOCOL_ERROR);

    begin();
    raw_get(&raw, 2);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
    check_over(-BEAM_EH2_PROTOCOL, BM_H2_PROTOCOL_ERROR);
}

TEST(h2_closed_stream_is_not_opened_again)
{
    static const unsigned types[] = {F_HEADERS, F_DATA};
    for (unsigned i = 0; i < BM_ARRAY_LEN(types); i++) {
        begin();
        server.answers = true;
        raw_get(&raw, 1);
        REQUIRE_INT(raw_send(&raw, &server), 0);
        CHECK_STR(end_frames(&server), "HEADERS 1 +end; ");
        CHECK_UINT(server.closes, 1);
        raw_frame(&raw, types[i], F_END_HEADERS, 1, BLOCK_GET, BLOCK_LEN);
        CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
        check_over(-BEAM_EH2_PROTOCOL, BM_H2_STREAM_CLOSED);
    }
}

TEST(h2_nothing_comes_behind_an_end_or_a_reset)
{
    static const unsigned types[] = {F_HEADERS, F_DATA};
    for (unsigned i = 0; i < 2 * BM_ARRAY_LEN(types); i++) {
        test_note("case %u", i);
        begin();
        if (i < 2) {
            raw_get(&raw, 1);
        } else {
            raw_post(&raw, 1);
            raw_u32(&raw, F_RST_STREAM, 1, BM_H2_CANCEL);
        }
        raw_frame(&raw, types[i % 2], F_END_HEADERS | F_END_STREAM, 1, BLOCK_GET, BLOCK_LEN);
        CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
        CHECK_UINT(server.requests, 1);
        check_over(-BEAM_EH2_PROTOCOL, BM_H2_STREAM_CLOSED);
    }
}

/* What crosses a reset of ours is no fault of the client's. */
TEST(h2_frames_for_a_stream_that_was_reset_are_ignored)
{
    begin();
    raw_post(&raw, 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    bm_h2_stream_reset(server.last, BM_H2_CANCEL);
    CHECK_STR(end_frames(&server), "RST_STREAM 1 8; ");
    raw_frame(&raw, F_DATA, 0, 1, "body", 4);
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, 1, "\x82", 1);
    raw_get(&raw, 3);
    CHECK_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_said(&server),
              "request 1 POST https://a/; close 1 8; request 3 GET https://a/; end 3; ");
    end_close(&server);
}

/* Windows and frames */

TEST(h2_broken_rules_end_the_connection)
{
    static const struct {
        const char *name;
        unsigned type, flags;
        uint32_t id;
        const char *payload;
        size_t len;
        uint32_t code;
    } rows[] = {
        {"window overflow", F_WINDOW_UPDATE, 0, 0, "\x7f\xff\xff\xff", 4, BM_H2_FLOW_CONTROL_ERROR},
        {"no window", F_WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4, BM_H2_PROTOCOL_ERROR},
        {"short ping", F_PING, 0, 0, "1234567", 7, BM_H2_FRAME_SIZE_ERROR},
        {"ping on a stream", F_PING, 0, 1, "12345678", 8, BM_H2_PROTOCOL_ERROR},
        {"settings", F_SETTINGS, 0, 0, "\0\4\xff\xff\xff\xff", 6, BM_H2_FLOW_CONTROL_ERROR},
        {"data on idle", F_DATA, 0, 1, "x", 1, BM_H2_PROTOCOL_ERROR},
        {"continuation", F_CONTINUATION, F_END_HEADERS, 1, "", 0, BM_H2_PROTOCOL_ERROR},
        {"push", F_PUSH_PROMISE, F_END_HEADERS, 1, "\0\0\0\2\x82", 5, BM_H2_PROTOCOL_ERROR},
        {"padding", F_HEADERS, F_END_HEADERS | F_PADDED, 1, "\x09\x82", 2, BM_H2_PROTOCOL_ERROR},
        {"compression", F_HEADERS, F_END_HEADERS, 1, "\xff\xff\xff\xff\xff\x0f", 6,
         BM_H2_COMPRESSION_ERROR},
        {"rst on idle", F_RST_STREAM, 0, 1, "\0\0\0\1", 4, BM_H2_PROTOCOL_ERROR},
    };
    for (unsigned i = 0; i < BM_ARRAY_LEN(rows); i++) {
        test_note("%s", rows[i].name);
        begin();
        raw_frame(&raw, rows[i].type, rows[i].flags, rows[i].id, rows[i].payload, rows[i].len);
        raw_put(&raw, "12345678901234567890", 20); /* not looked at any more */
        CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
        check_over(-BEAM_EH2_PROTOCOL, rows[i].code);
    }
    begin();
    raw_head(&raw, 16385, F_DATA, 0, 1);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
    check_over(-BEAM_EH2_PROTOCOL, BM_H2_FRAME_SIZE_ERROR);
}

TEST(h2_body_over_its_window_is_an_error)
{
    static uint8_t zeros[16384];
    begin();
    server.consumes = false;
    raw_post(&raw, 1);
    for (unsigned i = 0; i < BM_H2_WINDOW / sizeof(zeros); i++) {
        raw_frame(&raw, F_DATA, 0, 1, zeros, sizeof(zeros));
        REQUIRE_INT(raw_send(&raw, &server), 0);
    }
    CHECK_UINT(server.data_len, BM_H2_WINDOW);
    raw_frame(&raw, F_DATA, 0, 1, zeros, 1);
    CHECK_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_frames(&server), "RST_STREAM 1 3; ");
    CHECK_UINT(server.closes, 1);
    end_close(&server);
}

TEST(h2_peer_that_speaks_something_else)
{
    memset(&server, 0, sizeof(server));
    end_open(&server, true);
    CHECK_INT(end_receive(&server, "GET / HTTP/1.1\r\n\r\n", 18), -BEAM_EH2_PREFACE);
    CHECK_STR(end_frames(&server), "");
    end_close(&server);

    memset(&server, 0, sizeof(server));
    end_open(&server, true);
    CHECK_STR(end_frames(&server), "SETTINGS; WINDOW_UPDATE 16711681; ");
    CHECK_INT(end_receive(&server, "GET / HTTP/1.1\r\n\r\n", 18), -BEAM_EH2_PREFACE);
    check_over(-BEAM_EH2_PREFACE, BM_H2_PROTOCOL_ERROR);

    memset(&server, 0, sizeof(server));
    end_open(&server, true);
    raw.len = 0;
    raw_put(&raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_ping(0);
    CHECK_INT(raw_send(&raw, &server), -BEAM_EH2_PROTOCOL);
    check_over(-BEAM_EH2_PROTOCOL, BM_H2_PROTOCOL_ERROR);

    memset(&server, 0, sizeof(server));
    end_open(&server, false); /* a client */
    CHECK_INT(end_receive(&server, "HTTP/1.1 400 Bad Request\r\n\r\n", 28), -BEAM_EH2_PROTOCOL);
    CHECK_STR(end_frames(&server), "SETTINGS; GOAWAY 0 1; ");
    end_close(&server);
}

/* Time */

TEST(h2_peer_that_says_nothing_is_left)
{
    memset(&server, 0, sizeof(server));
    end_open(&server, true);
    uint64_t end_ns = server.now_ns + BM_H2_GREETING_NS;
    server.now_ns += 3 * BM_NS_PER_S;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    end_frames(&server); /* SETTINGS: their own time begins now */
    raw.len = 0;
    raw_put(&raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    raw_head(&raw, 6, F_SETTINGS, 0, 0);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    server.now_ns = end_ns - 1;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    CHECK_UINT(bm_h2_next_ns(server.h2), end_ns);
    server.now_ns = end_ns;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), -BEAM_EH2_TIMEOUT);
    check_over(-BEAM_EH2_TIMEOUT, BM_H2_SETTINGS_TIMEOUT);
}

TEST(h2_settings_are_acknowledged_in_time)
{
    memset(&server, 0, sizeof(server));
    end_open(&server, true);
    raw.len = 0;
    raw_put(&raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    raw_frame(&raw, F_SETTINGS, 0, 0, "", 0);
    server.now_ns += 3 * BM_NS_PER_S;
    REQUIRE_INT(raw_send(&raw, &server), 0);
    end_frames(&server);
    uint64_t end_ns = server.now_ns + BM_H2_SETTINGS_NS; /* since they left */
    server.now_ns = end_ns - 1;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    CHECK_UINT(bm_h2_next_ns(server.h2), end_ns);
    server.now_ns = end_ns;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), -BEAM_EH2_TIMEOUT);
    check_over(-BEAM_EH2_TIMEOUT, BM_H2_SETTINGS_TIMEOUT);
}

TEST(h2_header_block_ends_in_time)
{
    begin();
    server.now_ns += 100 * BM_NS_PER_S;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0); /* nothing is owed */
    CHECK_UINT(bm_h2_next_ns(server.h2), UINT64_MAX);
    raw_frame(&raw, F_HEADERS, F_END_STREAM, 1, BLOCK_GET, 3);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    uint64_t end_ns = server.now_ns + BM_H2_BLOCK_NS;
    CHECK_UINT(bm_h2_next_ns(server.h2), end_ns);
    server.now_ns = end_ns - 1;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    raw_head(&raw, 3, F_CONTINUATION, F_END_HEADERS, 1);
    raw_put(&raw, &(BLOCK_GET)[3], 2);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    server.now_ns = end_ns;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), -BEAM_EH2_TIMEOUT);
    CHECK_UINT(server.requests, 0);
    check_over(-BEAM_EH2_TIMEOUT, BM_H2_ENHANCE_YOUR_CALM);

    begin();
    raw_frame(&raw, F_HEADERS, F_END_STREAM, 1, BLOCK_GET, 3);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    server.now_ns += BM_H2_OUTPUT_KEPT_NS; /* when buffers are given back */
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    raw_frame(&raw, F_CONTINUATION, F_END_HEADERS, 1, &(BLOCK_GET)[3], 3);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_said(&server), "request 1 GET https://a/; end 1; ");
    end_frames(&server);
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns + 60 * BM_NS_PER_S), 0);
    end_close(&server);
}

/* Servers that mean no good */

static void client_begin(void)
{
    struct bm_h2_stream *stream;
    memset(&client, 0, sizeof(client));
    end_open(&client, false);
    raw.len = 0;
    raw_frame(&raw, F_SETTINGS, 0, 0, "", 0);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    end_frames(&client);
    CHECK_STR(end_said(&client), "settings; ");
}

TEST(h2_server_that_only_ever_announces_a_response_is_left)
{
    client_begin();
    client.quiet = true;
    unsigned i = 0;
    for (; i < 1000; i++) {
        raw_frame(&raw, F_HEADERS, F_END_HEADERS, 1,
                  "\x08\x03"
                  "103",
                  5);
        if (raw_send(&raw, &client) < 0)
            break;
    }
    CHECK_UINT(i, 100);
    CHECK_INT(bm_h2_over(client.h2), -BEAM_EH2_FLOOD);
    CHECK_UINT(client.closes, 1);
    end_close(&client);
}

TEST(h2_response_with_a_header_block_over_its_length_is_reset)
{
    uint8_t block[1024];
    client_begin();
    block[0] = 0x88;
    size_t len = 1;
    for (unsigned i = 0; i < BM_H2_FIELDS_MAX + 1; i++)
        len += hpack_put(block + len, "a", "");
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, 1, block, len);
    CHECK_INT(raw_send(&raw, &client), 0);
    CHECK_STR(end_frames(&client), "RST_STREAM 1 11; ");
    CHECK_STR(end_said(&client), "close 1 11; ");
    end_close(&client);
}

TEST(h2_status_below_100_is_none)
{
    client_begin();
    raw_frame(&raw, F_HEADERS, F_END_HEADERS, 1,
              "\x08\x03"
              "099",
              5);
    CHECK_INT(raw_send(&raw, &client), 0);
    CHECK_STR(end_frames(&client), "RST_STREAM 1 1; ");
    CHECK_STR(end_said(&client), "close 1 1; ");
    end_close(&client);
}

TEST(h2_server_may_not_push)
{
    client_begin();
    raw_frame(&raw, F_SETTINGS, F_ACK, 0, "", 0);
    raw_frame(&raw, F_PUSH_PROMISE, F_END_HEADERS, 1, "\0\0\0\2" BLOCK_GET, 4 + BLOCK_LEN);
    CHECK_INT(raw_send(&raw, &client), -BEAM_EH2_PROTOCOL);
    CHECK_STR(end_said(&client), "close 1 1; ");
    CHECK_STR(end_frames(&client), "GOAWAY 0 1; ");
    end_close(&client);
}

TEST(h2_client_may_reset_malformed_responses_as_often_as_they_come)
{
    uint8_t block[64] = {0x88};
    struct bm_h2_stream *stream;
    size_t len = 1 + hpack_put(block + 1, "X", "y");
    client_begin();
    client.quiet = true;
    for (unsigned i = 0; i < 300; i++) {
        raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, 2 * i + 1, block, len);
        REQUIRE_INT(raw_send(&raw, &client), 0);
        REQUIRE_UINT(client.closes, i + 1);
        REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
        end_frames(&client);
    }
    end_close(&client);
}

TEST(h2_server_may_reset_as_often_as_it_is_asked)
{
    struct bm_h2_stream *stream;
    client_begin();
    raw_u32(&raw, F_RST_STREAM, 1, BM_H2_REFUSED_STREAM);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    for (unsigned i = 1; i < 500; i++) {
        REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
        end_frames(&client);
        raw_u32(&raw, F_RST_STREAM, 2 * i + 1, BM_H2_REFUSED_STREAM);
        REQUIRE_INT(raw_send(&raw, &client), 0);
    }
    CHECK_UINT(client.closes, 500);
    end_close(&client);
}
