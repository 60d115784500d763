/* What a peer can break that only the session's state tells, one rule a case: GOAWAY names the error,
 * the session ends, the others do not notice. docs/spec/session.md. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/served.h"
#include "tests/support/vectors.h"

static struct raw_peer bad;
static struct raw_packet packet;

static struct served *attacked(void)
{
    struct served *served = served_start(NULL);
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    return served;
}

/* What was packed goes; the session must end for this reason, and nobody else's. */
static void expect(struct served *served, const char *error)
{
    raw_send(&bad, &packet);
    raw_expect_goaway(&bad, error);
    raw_close(&bad);
    served_check(served);
    served_check_clean(served);
    served_stop(served);
}

TEST(a_first_frame_that_is_not_hello_ends_the_session)
{
    struct served *served = served_start(NULL);
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    raw_put_ping(&packet, 7);
    expect(served, "HELLO_MISSING");
}

TEST(a_request_before_hello_ends_the_session_and_does_not_run)
{
    struct served *served = served_start(NULL);
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    raw_put_open(&packet, 1, BM_MSG_END, "echo", "x", 1);
    raw_put_hello(&packet, true);
    raw_send(&bad, &packet);
    raw_expect_goaway(&bad, "HELLO_MISSING");
    CHECK_UINT(atomic_load(&served->echoes), 0);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(a_second_hello_ends_the_session)
{
    struct served *served = attacked();
    raw_put_hello(&packet, true);
    expect(served, "HELLO_REPEATED");
}

TEST(a_hello_that_is_no_map_ends_the_session)
{
    struct served *served = served_start(NULL);
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    uint8_t out[64];
    uint8_t *end = bm_frame_put_hello(out, "garbage!", 8);
    raw_put(&packet, out, (size_t)(end - out));
    expect(served, "HELLO_MALFORMED");
}

TEST(a_hello_of_the_same_role_ends_the_session)
{
    struct served *served = served_start(NULL);
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    raw_put_hello(&packet, false);
    expect(served, "HELLO_ROLE");
}

TEST(an_even_id_of_the_opener_ends_the_session)
{
    struct served *served = attacked();
    raw_put_open(&packet, 2, BM_MSG_END, "hold", NULL, 0);
    expect(served, "FRAME_CHANNEL");
}

TEST(an_id_used_twice_ends_the_session)
{
    struct served *served = attacked();
    raw_put_open(&packet, 3, BM_MSG_END, "hold", NULL, 0);
    raw_put_open(&packet, 3, BM_MSG_END, "hold", NULL, 0);
    expect(served, "FRAME_CHANNEL");
}

TEST(an_id_below_the_last_ends_the_session)
{
    struct served *served = attacked();
    raw_put_open(&packet, 5, BM_MSG_END, "hold", NULL, 0);
    raw_put_open(&packet, 3, BM_MSG_END, "hold", NULL, 0);
    expect(served, "FRAME_CHANNEL");
}

TEST(an_id_of_a_refused_request_is_used_up)
{
    struct served *served = attacked();
    raw_put_open(&packet, 3, BM_MSG_END, "nobody", NULL, 0);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 3));
    CHECK_INT(raw_end_code(&bad), BEAM_NOT_FOUND);
    raw_put_open(&packet, 3, BM_MSG_END, "echo", NULL, 0);
    expect(served, "FRAME_CHANNEL");
}

TEST(each_kind_of_frame_for_an_id_nobody_opened_ends_the_session)
{
    struct served *served = served_start(NULL);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t id = i < 3 ? 9 : 10; /* the peer's to give, and ours */
        test_note("kind %u, channel %llu", i % 3, (unsigned long long)id);
        raw_open_session(&bad, served->name);
        raw_clear(&packet);
        if (i % 3 == 0)
            raw_put_message(&packet, id, 0, "x", 1);
        else if (i % 3 == 1)
            raw_put_end(&packet, id, 0, 0);
        else
            raw_put_credit(&packet, id, 1);
        raw_send(&bad, &packet);
        raw_expect_goaway(&bad, "FRAME_CHANNEL");
        raw_close(&bad);
        served_check(served);
    }
    served_check_clean(served);
    served_stop(served);
}

TEST(a_message_behind_end_ends_the_session)
{
    struct served *served = attacked();
    raw_put_open(&packet, 1, BM_MSG_END, "hold", NULL, 0);
    raw_put_message(&packet, 1, 0, "x", 1);
    expect(served, "FRAME_CHANNEL");
}

TEST(an_end_behind_end_ends_the_session)
{
    struct served *served = attacked();
    raw_put_open(&packet, 1, 0, "talk", NULL, 0);
    raw_put_message(&packet, 1, 0, "x", 1);
    raw_put_open(&packet, 3, BM_MSG_END, "hold", NULL, 0);
    raw_put_end(&packet, 3, 0, 0);
    expect(served, "FRAME_CHANNEL");
}

/* --- messages in several frames -------------------------------------------------------------- */

static void put_large(uint64_t id, uint64_t total, uint32_t first)
{
    static uint8_t body[1024];
    struct bm_message_head head = {
        .open = true,
        .name = {"echo", 4},
        .large = true,
        .body_total = total,
        .body = body,
        .body_len = first,
    };
    raw_put_head(&packet, id, BM_MSG_OPEN | BM_MSG_MORE, 0, &head, NULL);
}

TEST(frames_that_hold_more_than_was_announced_end_the_session)
{
    struct served *served = attacked();
    put_large(1, 100, 50);
    raw_put_bytes(&packet, 1, BM_MSG_END, packet.bytes, 51);
    expect(served, "FRAGMENT");
}

TEST(a_last_frame_that_leaves_the_message_short_ends_the_session)
{
    struct served *served = attacked();
    put_large(1, 100, 50);
    raw_put_bytes(&packet, 1, BM_MSG_END, packet.bytes, 49);
    expect(served, "FRAGMENT");
}

TEST(a_middle_frame_that_completes_the_message_ends_the_session)
{
    struct served *served = attacked();
    put_large(1, 100, 50);
    raw_put_bytes(&packet, 1, BM_MSG_MORE, packet.bytes, 50);
    expect(served, "FRAGMENT");
}

TEST(a_later_frame_without_bytes_ends_the_session)
{
    struct served *served = attacked();
    put_large(1, 100, 50);
    raw_put_bytes(&packet, 1, BM_MSG_MORE, NULL, 0);
    expect(served, "FRAGMENT");
}

TEST(a_plain_end_inside_a_message_ends_the_session)
{
    struct served *served = attacked();
    put_large(1, 100, 50);
    raw_put_end(&packet, 1, 0, 0);
    expect(served, "FRAGMENT");
}

TEST(an_abort_inside_a_message_ends_the_channel_alone)
{
    struct served *served = attacked();
    put_large(1, 100, 50);
    raw_put_end(&packet, 1, BM_END_ABORT, BEAM_CANCELLED);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    CHECK(raw_echo(&bad, 3, "on", 2));
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(open_on_a_later_frame_ends_the_session)
{
    struct served *served = attacked();
    put_large(1, 100, 50);
    raw_put_bytes(&packet, 1, BM_MSG_OPEN, packet.bytes, 50);
    raw_send(&bad, &packet);
    /* Whether it is a wrong flag or a wrong id is a matter of where one looks first. */
    REQUIRE(raw_find(&bad, BM_FRAME_GOAWAY, 0));
    raw_expect_end(&bad);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(fds_or_channels_on_a_later_frame_end_the_session)
{
    struct served *served = served_start(NULL);
    for (int i = 0; i < 2; i++) {
        raw_open_session(&bad, served->name);
        raw_clear(&packet);
        put_large(1, 100, 50);
        size_t at = packet.len;
        raw_put_bytes(&packet, 1, BM_MSG_END, packet.bytes, 50);
        packet.bytes[at + 14 + i] = 1;
        if (i == 0)
            raw_add_fd(&packet, 0);
        raw_send(&bad, &packet);
        raw_expect_goaway(&bad, i == 0 ? "FRAME_FDS" : "FRAME_ATTACHMENT");
        raw_close(&bad);
        served_check(served);
    }
    served_check_clean(served);
    served_stop(served);
}

/* --- credit ---------------------------------------------------------------------------------- */

TEST(a_message_without_credit_ends_the_session)
{
    static uint8_t body[40000];
    struct served *served = attacked();
    raw_put_open(&packet, 1, 0, "deaf", NULL, 0);
    raw_send(&bad, &packet);
    for (int i = 0; i < 2; i++) { /* takes the window of 65 536 below zero */
        raw_put_message(&packet, 1, 0, body, sizeof(body));
        raw_send(&bad, &packet);
    }
    raw_sync(&bad);
    CHECK_UINT(atomic_load(&served->messages), 2);
    raw_put_message(&packet, 1, 0, "x", 1);
    raw_send(&bad, &packet);
    raw_expect_goaway(&bad, "FLOW_CONTROL");
    CHECK_UINT(atomic_load(&served->messages), 2);
    raw_close(&bad);
    served_drop(served);
    served_check_clean(served);
    served_stop(served);
}

/* W1, W2, W3: to the byte. */
TEST(a_message_starts_on_the_last_byte_of_credit_and_not_on_none)
{
    static uint8_t body[65536];
    for (uint32_t left = 0; left < 2; left++) {
        struct served *served = attacked();
        test_note("%u left", left);
        raw_put_open(&packet, 1, 0, "deaf", NULL, 0);
        raw_send(&bad, &packet);
        raw_put_message(&packet, 1, 0, body, 65536 - 2 * 64 - left);
        raw_send(&bad, &packet);
        raw_put_message(&packet, 1, 0, "x", 1);
        raw_send(&bad, &packet);
        if (left > 0)
            raw_sync(&bad);
        else
            raw_expect_goaway(&bad, "FLOW_CONTROL");
        CHECK_UINT(atomic_load(&served->messages), 1 + left);
        raw_close(&bad);
        served_drop(served);
        served_check_clean(served);
        served_stop(served);
    }
}

TEST(credit_comes_back_when_the_messages_are_freed)
{
    static uint8_t body[40000];
    struct served *served = attacked();
    raw_put_open(&packet, 1, 0, "deaf", NULL, 0);
    raw_send(&bad, &packet);
    for (int i = 0; i < 2; i++) {
        raw_put_message(&packet, 1, 0, body, sizeof(body));
        raw_send(&bad, &packet);
    }
    WAIT_UNTIL(atomic_load(&served->messages) == 2);
    served_drop(served);
    uint64_t given = 0;
    while (given < 2 * (sizeof(body) + 64)) {
        REQUIRE(raw_find(&bad, BM_FRAME_CREDIT, 1));
        given += bm_frame_parse_u64(&bad.frame);
    }
    raw_put_message(&packet, 1, BM_MSG_END, "x", 1);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    CHECK_INT(raw_end_code(&bad), BEAM_OK);
    raw_close(&bad);
    served_drop(served);
    served_check_clean(served);
    served_stop(served);
}

TEST(credit_beyond_all_bounds_ends_the_session)
{
    struct served *served = attacked();
    raw_put_open(&packet, 1, 0, "talk", NULL, 0);
    raw_put_credit(&packet, 1, UINT64_C(1) << 62);
    expect(served, "CREDIT_OVERFLOW");
}

TEST(credit_of_all_ones_ends_the_session)
{
    struct served *served = attacked();
    raw_put_open(&packet, 1, 0, "talk", NULL, 0);
    raw_put_credit(&packet, 1, UINT64_MAX);
    expect(served, "CREDIT_OVERFLOW");
}

TEST(fd_credit_beyond_all_bounds_ends_the_session)
{
    struct served *served = attacked();
    raw_put_credit(&packet, 0, UINT64_C(1) << 62);
    raw_put_credit(&packet, 0, UINT64_C(1) << 62);
    expect(served, "CREDIT_OVERFLOW");
}

#define CHANNELS 20u /* more than the 16 that H3 grants in any case */

/* W6 */
TEST(one_channel_too_many_ends_the_session)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.channels_max = CHANNELS, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < CHANNELS; i++)
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "hold", NULL, 0);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    CHECK_UINT(atomic_load(&served->held), CHANNELS);
    raw_put_open(&packet, 1 + 2 * CHANNELS, BM_MSG_END, "hold", NULL, 0);
    expect(served, "TOO_MANY_CHANNELS");
    CHECK_UINT(atomic_load(&served->cancels), CHANNELS);
}

TEST(attached_channels_count_as_channels)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.channels_max = CHANNELS, .name = "served"));
    struct bm_attached attached[CHANNELS];
    struct bm_message_head head = {.open = true, .name = {"chat", 4}, .attached = CHANNELS};
    for (unsigned i = 0; i < CHANNELS; i++)
        attached[i] = (struct bm_attached){.id = 3 + 2 * i, .mode = BM_MODE_MESSAGES};
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    raw_put_head(&packet, 1, BM_MSG_OPEN, 0, &head, attached);
    expect(served, "TOO_MANY_CHANNELS");
}

/* --- attached channels ----------------------------------------------------------------------- */

static void expect_attached(const struct bm_attached *attached, unsigned count, const char *error)
{
    struct served *served = attacked();
    struct bm_message_head head = {.open = true, .name = {"chat", 4}, .attached = (uint8_t)count};
    raw_put_head(&packet, 5, BM_MSG_OPEN | BM_MSG_END, 0, &head, attached);
    expect(served, error);
}

TEST(an_attached_id_below_its_frames_own_ends_the_session)
{
    expect_attached((const struct bm_attached[]){{.id = 3}}, 1, "FRAME_CHANNEL");
}

TEST(attached_ids_that_do_not_ascend_end_the_session)
{
    expect_attached((const struct bm_attached[]){{.id = 9}, {.id = 7}}, 2, "FRAME_CHANNEL");
}

TEST(an_attached_id_of_the_wrong_side_ends_the_session)
{
    expect_attached((const struct bm_attached[]){{.id = 8}}, 1, "FRAME_CHANNEL");
}

TEST(an_attached_channel_of_no_mode_ends_the_session)
{
    expect_attached((const struct bm_attached[]){{.id = 7, .mode = (enum bm_channel_mode)2}}, 1,
                    "FRAME_ATTACHMENT");
}

/* --- fds ------------------------------------------------------------------------------------- */

static void put_fds(uint64_t id, const char *service, unsigned said, unsigned sent)
{
    struct bm_message_head head = {.open = true, .name = {service, strlen(service)}};
    raw_put_head(&packet, id, BM_MSG_OPEN | BM_MSG_END, (uint8_t)said, &head, NULL);
    for (unsigned i = 0; i < sent; i++)
        raw_add_fd(&packet, 0);
}

TEST(fds_without_fd_credit_end_the_session)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.fds_max = 4, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    put_fds(1, "take", 4, 4);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    CHECK_UINT(atomic_load(&served->fds), 4);
    put_fds(3, "take", 1, 1);
    raw_send(&bad, &packet);
    raw_expect_goaway(&bad, "FLOW_CONTROL");
    raw_close(&bad);
    served_drop(served);
    served_check_clean(served);
    served_stop(served);
}

TEST(more_fds_than_a_message_may_have_cost_credit_as_well)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.fds_max = 16, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    put_fds(1, "take", 17, 17);
    raw_send(&bad, &packet);
    raw_expect_goaway(&bad, "FLOW_CONTROL");
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(fds_for_one_that_takes_none_end_the_session_or_do_not_arrive)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.fds_refused = true, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    put_fds(1, "take", 1, 1);
    /* A kernel with SO_PASSRIGHTS does not even let them leave. */
    int r = raw_try_send(&bad, &packet, RAW_TIMEOUT_MS);
    if (r == 0) {
        raw_expect_goaway(&bad, beam_platform()->passrights ? "FRAME_FDS" : "FLOW_CONTROL");
    } else {
        CHECK_INT(r, -EPERM);
    }
    CHECK_UINT(atomic_load(&served->fds), 0);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(more_fds_than_the_frames_say_end_the_session)
{
    struct served *served = attacked();
    put_fds(1, "take", 1, 2);
    expect(served, "FRAME_FDS");
    CHECK_UINT(atomic_load(&served->fds), 0);
}

TEST(fewer_fds_than_the_frames_say_end_the_session)
{
    struct served *served = attacked();
    put_fds(1, "take", 2, 1);
    expect(served, "FRAME_FDS");
    CHECK_UINT(atomic_load(&served->fds), 0);
}

TEST(fds_that_were_said_and_not_sent_end_the_session)
{
    struct served *served = attacked();
    put_fds(1, "take", 1, 0);
    expect(served, "FRAME_FDS");
}

TEST(fds_beside_frames_that_have_none_end_the_session)
{
    struct served *served = attacked();
    raw_put_ping(&packet, 1);
    raw_add_fd(&packet, 0);
    expect(served, "FRAME_FDS");
}

TEST(fds_on_a_frame_to_be_ignored_are_closed)
{
    struct served *served = attacked();
    size_t at = packet.len;
    raw_put_bytes(&packet, 0, 0, "future", 6);
    packet.bytes[at + 12] = 0x90;
    packet.bytes[at + 14] = 2;
    raw_add_fd(&packet, 0);
    raw_add_fd(&packet, 0);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    CHECK(raw_echo(&bad, 1, "x", 1));
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* --- floods ---------------------------------------------------------------------------------- */

/* C6 */
TEST(too_many_aborts_end_the_session)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.aborts_per_s = 5, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < 100; i++) {
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "hold", NULL, 0);
        raw_put_end(&packet, 1 + 2 * i, BM_END_ABORT, BEAM_CANCELLED);
    }
    raw_send(&bad, &packet);
    struct bm_frame_goaway goaway;
    REQUIRE(raw_find(&bad, BM_FRAME_GOAWAY, 0));
    bm_frame_parse_goaway(&bad.frame, &goaway);
    CHECK_INT(goaway.why.code, BEAM_RESOURCE_EXHAUSTED);
    raw_expect_end(&bad);
    CHECK_UINT(atomic_load(&served->held), 11); /* a burst of twice the rate, and one more */
    CHECK_UINT(atomic_load(&served->cancels), 11);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(aborts_of_calls_whose_deadline_has_passed_are_free)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.aborts_per_s = 5, .name = "served"));
    raw_open_session(&bad, served->name);
    for (unsigned i = 0; i < 40; i++) {
        struct bm_message_head head = {.open = true, .name = {"hold", 4}, .deadline_ns = 1};
        raw_clear(&packet);
        raw_put_head(&packet, 1 + 2 * i, BM_MSG_OPEN | BM_MSG_END, 0, &head, NULL);
        raw_send(&bad, &packet);
        REQUIRE(raw_find(&bad, BM_FRAME_END, 1 + 2 * i));
        CHECK_INT(raw_end_code(&bad), BEAM_DEADLINE_EXCEEDED);
        raw_put_end(&packet, 1 + 2 * i, BM_END_ABORT, BEAM_DEADLINE_EXCEEDED);
        raw_send(&bad, &packet);
    }
    raw_sync(&bad);
    CHECK(raw_echo(&bad, 1001, "on", 2));
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(a_flood_of_pings_is_answered_without_ceasing_to_serve)
{
    struct served *served = attacked();
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned k = 0; k < 2000; k++)
            raw_put_ping(&packet, k);
        raw_send(&bad, &packet);
    }
    served_check(served);
    raw_sync(&bad);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(an_empty_packet_reads_as_the_end)
{
    struct served *served = attacked();
    raw_send(&bad, &packet);
    raw_expect_end(&bad);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(a_packet_over_the_limit_ends_the_session)
{
    static uint8_t zeros[RAW_PACKET_MAX];
    struct served *served = attacked();
    while (packet.len + 24 <= BM_FRAME_LEN_MAX)
        raw_put_ping(&packet, 1);
    raw_put(&packet, zeros, BM_FRAME_LEN_MAX + 24 - packet.len);
    expect(served, "FRAME_OVERSIZED");
}

TEST(all_that_stands_behind_the_offending_frame_is_left_alone)
{
    struct served *served = attacked();
    raw_put_open(&packet, 1, BM_MSG_END, "echo", NULL, 0);
    raw_put_hello(&packet, true);
    raw_put_open(&packet, 3, BM_MSG_END, "echo", NULL, 0);
    raw_send(&bad, &packet);
    raw_put_open(&packet, 5, BM_MSG_END, "echo", NULL, 0);
    (void)raw_try_send(&bad, &packet, 0); /* as far as it still goes */
    raw_expect_goaway(&bad, "HELLO_REPEATED");
    CHECK_UINT(atomic_load(&served->echoes), 1);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* --- vectors --------------------------------------------------------------------------------- */

TEST(each_invalid_vector_ends_a_session_that_has_begun_well)
{
    struct served *served = served_start(NULL);
    struct vectors vectors;
    unsigned count = 0;
    vectors_load("session.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        const char *error = vector_str(v, "error");
        size_t len;
        if (!error)
            continue;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        bool hello = len > 12 && bytes[12] == BM_FRAME_HELLO;
        test_note("vector '%s'", vector_str(v, "name"));
        raw_connect(&bad, served->name);
        raw_clear(&packet);
        if (!hello) {
            raw_put_hello(&packet, true);
            raw_send(&bad, &packet);
        }
        if (len > 0 && len <= RAW_PACKET_MAX) {
            raw_put(&packet, bytes, len);
            for (unsigned k = 0; k < (len > 14 ? bytes[14] : 0u) && k < 253; k++)
                raw_add_fd(&packet, 0);
            raw_send(&bad, &packet);
            REQUIRE(raw_find(&bad, BM_FRAME_GOAWAY, 0));
            struct bm_frame_goaway goaway;
            struct beam_kv_value details;
            beam_str name = {0};
            bm_frame_parse_goaway(&bad.frame, &goaway);
            REQUIRE_INT(beam_kv_root(goaway.why.details, goaway.why.details_len, &details), 0);
            CHECK_INT(beam_kv_get_str(&details, "error", &name), 0);
            CHECK_MEM(name.ptr, name.len, error, strlen(error));
            raw_expect_end(&bad);
            count++;
        }
        raw_close(&bad);
        free(bytes);
    }
    CHECK(count > 20);
    vectors_free(&vectors);
    served_check_clean(served);
    served_stop(served);
}
