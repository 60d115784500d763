/* What is known to bring down servers of HTTP/2, done to ours: docs/attacks.md. */
#include "tests/attacks/attack_frames.h"

enum { MUCH_OF_IT = 20000 };

#define SETTING_WINDOW 4u /* SETTINGS_INITIAL_WINDOW_SIZE */

static void greet(struct attacker *attacker)
{
    frames_greet(0, 0);
    REQUIRE(frames_send(attacker));
}

/* ---- floods ---- */

static void put_rapid_reset(unsigned i)
{
    frames_post(2 * i + 1, HOLD, F_END_STREAM);
    frames_u32(F_RST_STREAM, 2 * i + 1, BM_H2_CANCEL);
}

static void put_window_overflow(unsigned i)
{
    frames_post(2 * i + 1, HOLD, F_END_STREAM);
    frames_u32(F_WINDOW_UPDATE, 2 * i + 1, 0x7fffffff);
}

static void put_wrong_length(unsigned i)
{
    frames_post_with(2 * i + 1, ECHO, 0, "content-length", "5");
    frames_add(F_DATA, F_END_STREAM, 2 * i + 1, "four", 4);
}

static void put_upper_case(unsigned i)
{
    frames_post_with(2 * i + 1, ECHO, F_END_STREAM, "X", "y");
}

static void put_empty_name(unsigned i)
{
    frames_post_with(2 * i + 1, ECHO, F_END_STREAM, "", "");
}

static void put_ping(unsigned i)
{
    uint64_t token = i;
    frames_add(F_PING, 0, 0, &token, 8);
}

static void put_priority(unsigned i)
{
    static const uint8_t root[5] = {0, 0, 0, 0, 15};
    frames_add(F_PRIORITY, 0, 2 * i + 1, root, 5);
}

static void put_settings(unsigned i)
{
    frames_setting(SETTING_WINDOW, 65535 + i % 2);
}

static void put_empty_data(unsigned i)
{
    if (i == 0)
        frames_post(1, ECHO, 0);
    frames_add(F_DATA, 0, 1, "", 0);
}

static void put_padding(unsigned i)
{
    static const uint8_t padded[256] = {255}; /* no byte of a body */
    if (i == 0)
        frames_post(1, ECHO, 0);
    frames_add(F_DATA, F_PADDED, 1, padded, sizeof(padded));
}

static void put_unknown(unsigned i)
{
    frames_add(200, 0, 0, &i, 4);
}

static void put_reset_of_closed(unsigned i)
{
    if (i == 0)
        frames_post(1, ECHO, F_END_STREAM);
    frames_u32(F_RST_STREAM, 1, BM_H2_CANCEL);
}

static void put_continuation(unsigned i)
{
    uint8_t block[512];
    size_t len = block_post(block, ECHO);
    if (i == 0)
        frames_add(F_HEADERS, F_END_STREAM, 1, block, len);
    frames_add(F_CONTINUATION, 0, 1, block, field_put(block, "x", "y"));
}

static void put_empty_continuation(unsigned i)
{
    if (i == 0)
        frames_add(F_HEADERS, F_END_STREAM, 1, "", 0);
    frames_add(F_CONTINUATION, 0, 1, "", 0);
}

static void (*flooding)(unsigned i);

static void flood_round(struct attacker *attacker)
{
    greet(attacker);
    flood(attacker, flooding, MUCH_OF_IT);
}

static void flood_with(const char *name, enum attack_way ways, void (*put)(unsigned i))
{
    flooding = put;
    attack_run(&(struct attack){name, ways, true, flood_round, BM_H2_ENHANCE_YOUR_CALM, false});
}

/* The server is made to reset; those that it has not come to yet may be too many. */
static void flood_resets(const char *name, void (*put)(unsigned i))
{
    flooding = put;
    attack_run(
        &(struct attack){name, ATTACK_PLAIN, true, flood_round, BM_H2_ENHANCE_YOUR_CALM, true});
}

TEST(attack_rapid_reset)
{
    flood_with("rapid reset", ATTACK_BOTH, put_rapid_reset);
}

TEST(attack_made_you_reset)
{
    flood_resets("resets for a window", put_window_overflow);
    flood_resets("resets for a length", put_wrong_length);
    flood_resets("resets for a name", put_upper_case);
}

TEST(attack_reset_flood)
{
    flood_with("resets of a stream that is closed", ATTACK_PLAIN, put_reset_of_closed);
}

TEST(attack_continuation_flood)
{
    flood_with("CONTINUATION", ATTACK_PLAIN, put_continuation);
    flood_with("empty CONTINUATION", ATTACK_PLAIN, put_empty_continuation);
}

TEST(attack_ping_flood)
{
    flood_with("PING", ATTACK_BOTH, put_ping);
}

TEST(attack_priority_flood)
{
    flood_with("PRIORITY", ATTACK_PLAIN, put_priority);
}

TEST(attack_settings_flood)
{
    flood_with("SETTINGS", ATTACK_PLAIN, put_settings);
}

TEST(attack_empty_frames)
{
    flood_with("DATA without data", ATTACK_PLAIN, put_empty_data);
    flood_with("DATA that is padding", ATTACK_PLAIN, put_padding);
    flood_with("frames of no type", ATTACK_PLAIN, put_unknown);
}

TEST(attack_empty_header_names)
{
    flood_resets("fields without a name", put_empty_name);
}

/* ---- rules that are broken ---- */

static void window_round(struct attacker *attacker)
{
    greet(attacker);
    frames_u32(F_WINDOW_UPDATE, 0, 0x7fffffff);
    (void)frames_send(attacker);
}

static void nothing_round(struct attacker *attacker)
{
    greet(attacker);
    frames_u32(F_WINDOW_UPDATE, 0, 0);
    (void)frames_send(attacker);
}

/* More padding than there is frame (RFC 9113 section 6.1). */
static void padding_round(struct attacker *attacker)
{
    static const uint8_t padded[8] = {8};
    greet(attacker);
    frames_post(1, ECHO, 0);
    frames_add(F_DATA, F_PADDED, 1, padded, sizeof(padded));
    (void)frames_send(attacker);
}

TEST(attack_window_overflow)
{
    attack_run(&(struct attack){"window overflow", ATTACK_PLAIN, true, window_round,
                                BM_H2_FLOW_CONTROL_ERROR, false});
}

TEST(attack_window_update_of_nothing)
{
    attack_run(&(struct attack){"WINDOW_UPDATE 0", ATTACK_PLAIN, true, nothing_round,
                                BM_H2_PROTOCOL_ERROR, false});
}

TEST(attack_bad_padding)
{
    attack_run(&(struct attack){"bad padding", ATTACK_PLAIN, true, padding_round,
                                BM_H2_PROTOCOL_ERROR, false});
}

/* ---- memory ---- */

/* 4000 bytes go into the table once, and each byte behind them is one more copy. */
static void bomb_round(struct attacker *attacker)
{
    static uint8_t block[16000];
    size_t len = block_post(block, ECHO);
    block[len++] = 0x40; /* literal, into the table */
    block[len++] = 1;
    block[len++] = 'x';
    block[len++] = 0x7f; /* 4000, in parts of seven bits */
    block[len++] = ((4000 - 127) & 0x7f) | 0x80;
    block[len++] = (4000 - 127) >> 7;
    memset(block + len, 'y', 4000);
    len += 4000;
    memset(block + len, 0x80 | 62, 4000);
    greet(attacker);
    for (uint32_t i = 0; i < 100; i++) {
        frames_add(F_HEADERS, F_END_HEADERS | F_END_STREAM, 2 * i + 1, block, len + 4000);
        if (!frames_send(attacker))
            return;
    }
}

TEST(attack_hpack_bomb)
{
    attack_run(&(struct attack){"HPACK bomb", ATTACK_PLAIN, true, bomb_round,
                                BM_H2_ENHANCE_YOUR_CALM, false});
}

static const char *asking;

/* Asks for all that may be asked for at once, without a window for it. */
static void ask_without_window(struct attacker *attacker)
{
    frames_greet(SETTING_WINDOW, 0);
    for (uint32_t i = 0; i < BM_H2_STREAMS_MAX; i++)
        frames_post(2 * i + 1, asking, F_END_STREAM);
    REQUIRE(frames_send(attacker));
}

/* The answers lie there until their streams are reset; then nobody asks for anything. */
static void no_window_round(struct attacker *attacker)
{
    ask_without_window(attacker);
    ATTACKER_UNTIL(attacker, attacker->answers == BM_H2_STREAMS_MAX);
    CHECK_UINT(attacker->oks, (24u << 20) / ATTACK_MUCH); /* the others: 429 */
    for (unsigned i = 0; i < 8 && attacker->frames[F_RST_STREAM] < BM_H2_STREAMS_MAX; i++) {
        attack_pass(10 * BM_NS_PER_S);
        while (attacker_turn(attacker, 20))
            ;
    }
    CHECK_UINT(attacker->frames[F_RST_STREAM], BM_H2_STREAMS_MAX);
    attack_pass(BM_H2_SETTINGS_NS + 300 * BM_NS_PER_S); /* nothing but idle */
    attack_pass(BM_H2_DRAIN_NS);
}

TEST(attack_no_window)
{
    asking = MUCH;
    attack_run(&(struct attack){"answers without a window", ATTACK_PLAIN, true, no_window_round,
                                BM_H2_NO_ERROR, false});
    asking = "/much";
    attack_run(&(struct attack){"the application's, without a window", ATTACK_PLAIN, true,
                                no_window_round, BM_H2_NO_ERROR, false});
}

/* A window that grows by the byte: what is sent costs us much more than them. */
static void dribble_round(struct attacker *attacker)
{
    frames_greet(SETTING_WINDOW, 1);
    frames_post(1, MUCH, F_END_STREAM);
    REQUIRE(frames_send(attacker));
    for (unsigned i = 0; i < MUCH_OF_IT; i++) {
        frames_u32(F_WINDOW_UPDATE, 1, 1);
        if (i % 16 == 15 && !frames_send(attacker))
            return;
    }
}

TEST(attack_data_dribble)
{
    attack_run(&(struct attack){"windows by the byte", ATTACK_BOTH, true, dribble_round,
                                BM_H2_ENHANCE_YOUR_CALM, false});
}

/* All windows are open, and nothing is read. */
static void reads_nothing_round(struct attacker *attacker)
{
    attacker->deaf = true;
    frames_greet(SETTING_WINDOW, 0x7fffffff);
    frames_u32(F_WINDOW_UPDATE, 0, 0x7ff00000);
    for (uint32_t i = 0; i < BM_H2_STREAMS_MAX; i++)
        frames_post(2 * i + 1, MUCH, F_END_STREAM);
    REQUIRE(frames_send(attacker));
    /* Until it has answered as much as the sockets take: no more comes. */
    neighbour_until(20);
    attack_pass(40 * BM_NS_PER_S);
}

TEST(attack_internal_data_buffering)
{
    attack_run(&(struct attack){"answers that nobody reads", ATTACK_BOTH, true, reads_nothing_round,
                                0, false});
}

/* ---- time ---- */

static void slow_greeting_round(struct attacker *attacker)
{
    frames_greet(0, 0);
    attacker_send_slowly(attacker, frames.bytes, BM_H2_GREETING_NS / BM_NS_PER_S);
    attack_pass(BM_NS_PER_S);
}

static void slow_head_round(struct attacker *attacker)
{
    greet(attacker);
    frames_post_with(1, ECHO, F_END_STREAM, "x", "a value that takes its time and never ends");
    attacker_send_slowly(attacker, frames.bytes, 9 + BM_H2_BLOCK_NS / BM_NS_PER_S);
    attack_pass(BM_NS_PER_S);
    frames.len = 0;
}

static void no_acknowledgement_round(struct attacker *attacker)
{
    frames.len = 0;
    frames_put("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    frames_add(F_SETTINGS, 0, 0, "", 0);
    REQUIRE(frames_send(attacker));
    ATTACKER_UNTIL(attacker, attacker->frames[F_SETTINGS] >= 1);
    attack_pass(BM_H2_SETTINGS_NS + BM_NS_PER_S);
}

TEST(attack_slow_headers_http2)
{
    attack_run(&(struct attack){"a greeting by the byte", ATTACK_BOTH, true, slow_greeting_round, 0,
                                false});
    attack_run(&(struct attack){"a header block by the byte", ATTACK_BOTH, true, slow_head_round,
                                BM_H2_ENHANCE_YOUR_CALM, false});
    attack_run(&(struct attack){"SETTINGS without acknowledgement", ATTACK_PLAIN, true,
                                no_acknowledgement_round, BM_H2_SETTINGS_TIMEOUT, false});
}

/* A byte every ten seconds, on as many streams as there may be: each of them is given up, and then there
 * is nobody who asks. */
static void slow_post_round(struct attacker *attacker)
{
    greet(attacker);
    for (uint32_t i = 0; i < BM_H2_STREAMS_MAX; i++)
        frames_post(2 * i + 1, ECHO, 0);
    REQUIRE(frames_send(attacker));
    for (unsigned turn = 0; turn < 12 && attacker->frames[F_RST_STREAM] == 0; turn++) {
        for (uint32_t i = 0; i < BM_H2_STREAMS_MAX; i++)
            frames_add(F_DATA, 0, 2 * i + 1, "x", 1);
        CHECK(frames_send(attacker));
        attack_pass(10 * BM_NS_PER_S);
        while (attacker_turn(attacker, 20))
            ;
    }
    CHECK_UINT(attacker->frames[F_RST_STREAM], BM_H2_STREAMS_MAX);
    attack_pass(300 * BM_NS_PER_S);
    attack_pass(BM_H2_DRAIN_NS);
}

TEST(attack_slow_post_http2)
{
    attack_run(
        &(struct attack){"bodies by the byte", ATTACK_PLAIN, true, slow_post_round, 0, false});
}

static void idle_round(struct attacker *attacker)
{
    greet(attacker);
    ATTACKER_UNTIL(attacker, attacker->frames[F_SETTINGS] >= 2); /* with the acknowledgement */
    attack_pass(300 * BM_NS_PER_S);
    while (attacker_turn(attacker, 20))
        ;
    attack_pass(BM_H2_DRAIN_NS);
}

TEST(attack_idle_http2)
{
    attack_run(&(struct attack){"nothing at all", ATTACK_BOTH, true, idle_round, 0, false});
}
