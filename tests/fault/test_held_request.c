/* Requests whose answers would find no room wait, unread, until the caller reads: what comes behind them
 * waits too and arrives in order, and what gives them up gives up their memory. */
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/alloc.h"
#include "tests/support/served.h"

static struct raw_peer bad;
static struct raw_packet packet;

enum { QUEUE = 256 * 1024, FILL = 40, FILL_BODY = 60000 };
static uint8_t body[FILL_BODY];

/* Everything sent on it has been received. */
static bool is_read(int fd)
{
    int left = 1;
    return ioctl(fd, SIOCOUTQ, &left) == 0 && left == 0;
}

/* Calls whose answers fill the queue, since nobody reads them. The last of them wait. */
static struct served *attacked_and_full(void)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.queue_len_max = QUEUE, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < FILL; i++) {
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "echo", body, FILL_BODY);
        raw_send(&bad, &packet);
    }
    WAIT_UNTIL(is_read(bad.fd));
    served_check(served);
    CHECK(atomic_load(&served->echoes) < FILL);
    return served;
}

static void finish(struct served *served)
{
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* Reads until all answers of `attacked_and_full` have come. */
static void read_answers(void)
{
    for (unsigned n = 0; n < FILL;) {
        test_note("answer %u", n);
        REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
        n += bad.frame.kind == BM_FRAME_MSG;
    }
}

#define BEHIND 1001 /* the id of the request that waits */

static void check_behind(unsigned messages)
{
    struct served *served = attacked_and_full();
    raw_put_open(&packet, BEHIND, 0, "talk", "a", 1);
    for (unsigned i = 0; i + 1 < messages; i++)
        raw_put_message(&packet, BEHIND, 0, "b", 1);
    raw_send(&bad, &packet);
    switch (messages % 3) {
    case 0: /* the end alone, in a packet of its own */
        raw_put_message(&packet, BEHIND, 0, "b", 1);
        raw_send(&bad, &packet);
        raw_put_end(&packet, BEHIND, 0, BEAM_OK);
        break;
    case 1: /* with the last message */
        raw_put_message(&packet, BEHIND, BM_MSG_END, "b", 1);
        break;
    case 2: { /* with the last frame of several */
        struct bm_message_head head = {
            .large = true, .body_total = 100000, .body = body, .body_len = 50000};
        raw_put_head(&packet, BEHIND, BM_MSG_MORE, 0, &head, NULL);
        raw_send(&bad, &packet);
        raw_put_bytes(&packet, BEHIND, BM_MSG_END, body, 50000);
        break;
    }
    }
    raw_send(&bad, &packet);
    WAIT_UNTIL(is_read(bad.fd));
    served_check(served);
    CHECK_UINT(atomic_load(&served->held), 0);
    CHECK_UINT(atomic_load(&served->messages), 0);
    read_answers();
    WAIT_UNTIL(atomic_load(&served->ends) == 1);
    CHECK_UINT(atomic_load(&served->messages), messages);
    REQUIRE(raw_find(&bad, BM_FRAME_END, BEHIND));
    CHECK_INT(raw_end_code(&bad), BEAM_OK);
    finish(served);
}

TEST(messages_and_end_behind_a_request_that_waits_arrive_when_it_runs)
{
    check_behind(6);
}

TEST(a_last_message_behind_a_request_that_waits_arrives_when_it_runs)
{
    check_behind(4);
}

TEST(a_message_of_several_frames_behind_a_request_that_waits_arrives_when_it_runs)
{
    check_behind(5);
}

/* What room comes is theirs, step by step. */
TEST(a_request_does_not_overtake_those_that_wait)
{
    struct served *served = attacked_and_full();
    for (unsigned i = 0; i < 4; i++) {
        test_note("%u answers were read", i + 1);
        REQUIRE(raw_find(&bad, BM_FRAME_MSG, 0));
        served_check(served);
        raw_put_open(&packet, BEHIND + 2 * i, BM_MSG_END, "hold", "a", 1);
        raw_send(&bad, &packet);
        WAIT_UNTIL(is_read(bad.fd));
        served_check(served);
        CHECK(atomic_load(&served->echoes) < FILL);
        CHECK_UINT(atomic_load(&served->held), 0);
    }
    finish(served);
}

TEST(a_request_that_is_aborted_while_it_waits_does_not_run)
{
    struct served *served = attacked_and_full();
    raw_put_open(&packet, BEHIND, 0, "talk", "a", 1);
    raw_put_message(&packet, BEHIND, 0, "b", 1);
    raw_put_end(&packet, BEHIND, BM_END_ABORT, BEAM_CANCELLED);
    raw_put_open(&packet, BEHIND + 2, BM_MSG_END, "hold", "a", 1);
    raw_put_end(&packet, BEHIND + 2, BM_END_ABORT, BEAM_CANCELLED);
    raw_send(&bad, &packet);
    WAIT_UNTIL(is_read(bad.fd));
    read_answers();
    raw_sync(&bad);
    CHECK_UINT(atomic_load(&served->held), 0);
    CHECK_UINT(atomic_load(&served->messages), 0);
    finish(served);
}

static void put_behind(uint64_t deadline_ns)
{
    struct bm_message_head head = {.open = true, .name = {"talk", 4}, .deadline_ns = deadline_ns};
    raw_put_head(&packet, BEHIND, BM_MSG_OPEN, 0, &head, NULL);
    for (unsigned i = 0; i < 3; i++)
        raw_put_message(&packet, BEHIND, 0, body, 1000);
    raw_put_end(&packet, BEHIND, 0, BEAM_OK);
    raw_send(&bad, &packet);
}

TEST(a_request_whose_time_passes_while_it_waits_does_not_run)
{
    struct served *served = attacked_and_full();
    unsigned answers = 0;
    bool ended = false;
    put_behind(10 * BEAM_MS);
    WAIT_UNTIL(is_read(bad.fd));
    served_check(served);
    uint64_t until = beam_now_ns() + 20 * BEAM_MS;
    WAIT_UNTIL(beam_now_ns() > until);
    while (answers < FILL || !ended) {
        test_note("answer %u", answers);
        REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
        answers += bad.frame.kind == BM_FRAME_MSG;
        if (bad.frame.kind != BM_FRAME_END)
            continue;
        CHECK_UINT(bad.frame.channel, BEHIND);
        CHECK_INT(raw_end_code(&bad), BEAM_DEADLINE_EXCEEDED);
        ended = true;
    }
    raw_sync(&bad);
    CHECK_UINT(atomic_load(&served->held), 0);
    CHECK_UINT(atomic_load(&served->messages), 0);
    finish(served);
}

TEST(what_waits_behind_a_request_that_waits_goes_with_its_session)
{
    struct served *served = attacked_and_full();
    put_behind(0);
    WAIT_UNTIL(is_read(bad.fd));
    served_check(served);
    raw_close(&bad);
    served_check_clean(served);
    CHECK_UINT(atomic_load(&served->held), 0);
    finish(served);
}

TEST(a_runtime_may_stop_while_requests_wait)
{
    struct served *served = attacked_and_full();
    put_behind(0);
    WAIT_UNTIL(is_read(bad.fd));
    served_stop(served);
    raw_close(&bad);
}

/* An abort that says "my deadline" is not counted as one that gives up; whether it is believed or
 * ends the session, the memory of what waited goes with it. */
TEST(requests_opened_and_aborted_behind_a_full_queue_cost_no_memory)
{
    enum { ROUNDS = 1000 };
    struct served *served = attacked_and_full();
    size_t before = bm_alloc_totals().live_bytes;
    bool alive = true;
    for (unsigned i = 0; i < ROUNDS && alive; i++) {
        struct bm_message_head head = {
            .open = true,
            .name = {"echo", 4},
            .deadline_ns = 3600 * BEAM_SEC,
            .body = body,
            .body_len = FILL_BODY,
        };
        uint64_t id = BEHIND + 2 * i;
        raw_clear(&packet);
        raw_put_head(&packet, id, BM_MSG_OPEN | BM_MSG_END, 0, &head, NULL);
        raw_put_end(&packet, id, BM_END_ABORT, BEAM_DEADLINE_EXCEEDED);
        alive = raw_try_send(&bad, &packet, RAW_TIMEOUT_MS) == 0;
    }
    raw_clear(&packet);
    if (alive) {
        WAIT_UNTIL(is_read(bad.fd));
        served_check(served);
        CHECK(served_stats(served, 0).channels <= FILL);
    }
    size_t now = bm_alloc_totals().live_bytes;
    test_note("%zu bytes before, %zu now", before, now);
    CHECK(now < before + (8u << 20));
    if (alive) {
        read_answers();
        CHECK(raw_echo(&bad, BEHIND + 2 * ROUNDS, "on", 2));
    }
    finish(served);
}

/* The least of messages costs 64 bytes of credit and takes a block of memory. */
TEST(small_messages_behind_requests_that_wait_cost_no_more_memory_than_a_session_may)
{
    enum { CHANNELS = 100, WINDOW = 65536, MESSAGES = WINDOW / 64 };
    struct served *served = served_start(&BEAM_RUNTIME_OPTIONS(.limits = {.queue_len_max = QUEUE,
                                                                          .channels_max = CHANNELS,
                                                                          .window = WINDOW},
                                                               .name = "served"));
    const size_t most = (size_t)CHANNELS * (WINDOW + BM_FRAME_LEN_MAX);
    unsigned refused = 0;
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < FILL; i++) {
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "echo", body, FILL_BODY);
        raw_send(&bad, &packet);
    }
    size_t before = bm_alloc_totals().live_bytes;
    for (unsigned i = 0; i < CHANNELS - FILL; i++) {
        raw_put_open(&packet, BEHIND + 2 * i, 0, "talk", NULL, 0);
        for (unsigned n = 1; n < MESSAGES; n++)
            raw_put_message(&packet, BEHIND + 2 * i, n + 1 == MESSAGES ? BM_MSG_END : 0, NULL, 0);
        raw_send(&bad, &packet);
    }
    WAIT_UNTIL(is_read(bad.fd));
    served_check(served);
    size_t now = bm_alloc_totals().live_bytes;
    test_note("%zu bytes before, %zu now, %zu at most", before, now, most);
    CHECK(now < before + most + (4u << 20));

    /* What was within the limit arrives; the rest is refused by name, on its channel. */
    for (unsigned n = 0; n < CHANNELS - FILL;) {
        REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
        if (bad.frame.kind != BM_FRAME_END)
            continue;
        if (raw_end_code(&bad) != BEAM_OK) {
            CHECK_INT(raw_end_code(&bad), BEAM_RESOURCE_EXHAUSTED);
            refused++;
        }
        n++;
    }
    CHECK(refused > 0 && refused < CHANNELS - FILL);
    WAIT_UNTIL(atomic_load(&served->ends) == CHANNELS - FILL - refused);
    CHECK_UINT(atomic_load(&served->messages), (MESSAGES - 1) * (CHANNELS - FILL - refused));
    CHECK(raw_echo(&bad, BEHIND + 2 * CHANNELS, "on", 2));
    finish(served);
}
