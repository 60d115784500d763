/* A client whose server breaks the rules, or whose answers cannot be taken: calls end exactly once, the
 * session ends where it must, and the runtime goes on. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/asker.h"
#include "tests/support/served.h"

static struct raw_packet packet;
static struct asker asker;
static uint8_t body[200000];

/* Two calls under way, whose ids are 1 and 3. */
static void begin(struct asked asked[2])
{
    struct bm_message_head head;
    asker_start(&asker, true);
    for (unsigned i = 0; i < 2; i++) {
        asked[i] = (struct asked){.service = "x", .open = i == 1};
        asker_ask(&asker, &asked[i]);
        REQUIRE(asker_next(&asker, &head));
        REQUIRE_UINT(asker.peer.frame.channel, 1 + 2 * i);
    }
    raw_clear(&packet);
}

static void expect(const char *error)
{
    raw_send(&asker.peer, &packet);
    raw_expect_goaway(&asker.peer, error);
}

static void finish(struct asked asked[2])
{
    for (unsigned i = 0; i < 2; i++) {
        WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
        CHECK_INT(atomic_load(&asked[i].code), BEAM_UNKNOWN); /* both had left */
        CHECK_UINT(atomic_load(&asked[i].replies), 1);
    }
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    asker_free_channel(&asked[1]);
    struct asked late = {.service = "x"};
    asker_ask(&asker, &late);
    CHECK_INT(late.result, -ESHUTDOWN);
    asker_stop(&asker);
}

#define BREAKS(name, error, ...)                                                                   \
    TEST(name)                                                                                     \
    {                                                                                              \
        struct asked asked[2];                                                                     \
        begin(asked);                                                                              \
        __VA_ARGS__                                                                                \
        expect(error);                                                                             \
        finish(asked);                                                                             \
    }

BREAKS(a_server_that_says_hello_twice_is_left, "HELLO_REPEATED", { raw_put_hello(&packet, false); })
BREAKS(a_server_that_opens_odd_ids_is_left, "FRAME_CHANNEL",
       { raw_put_open(&packet, 5, BM_MSG_END, "x", NULL, 0); })
BREAKS(a_server_that_answers_what_was_not_asked_is_left, "FRAME_CHANNEL",
       { raw_put_message(&packet, 5, BM_MSG_END, NULL, 0); })
BREAKS(a_server_that_uses_an_id_twice_is_left, "FRAME_CHANNEL", {
    raw_put_open(&packet, 2, BM_MSG_END, "x", NULL, 0);
    raw_put_open(&packet, 2, BM_MSG_END, "x", NULL, 0);
})
BREAKS(a_server_that_credits_beyond_all_bounds_is_left, "CREDIT_OVERFLOW",
       { raw_put_credit(&packet, 3, UINT64_MAX / 2); })
BREAKS(a_server_whose_answer_ends_short_is_left, "FRAGMENT", {
    struct bm_message_head head = {.large = true, .body_total = 100, .body = body, .body_len = 50};
    raw_put_head(&packet, 3, BM_MSG_MORE, 0, &head, NULL);
    raw_put_bytes(&packet, 3, BM_MSG_END, body, 10);
})
BREAKS(a_server_that_sends_fds_it_does_not_announce_is_left, "FRAME_FDS", {
    raw_put_message(&packet, 3, 0, NULL, 0);
    raw_add_fd(&packet, 0);
})

TEST(a_server_of_the_same_role_is_not_talked_to)
{
    asker_start(&asker, false);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    raw_send(&asker.peer, &packet);
    raw_expect_goaway(&asker.peer, "HELLO_ROLE");
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    CHECK(!atomic_load(&asker.opened));
    asker_stop(&asker);
}

TEST(a_server_that_answers_twice_ends_the_session_and_the_call_once)
{
    struct asked asked[2];
    begin(asked);
    raw_put_message(&packet, 3, BM_MSG_END, NULL, 0);
    raw_put_message(&packet, 3, BM_MSG_END, NULL, 0);
    raw_send(&asker.peer, &packet);
    /* The channel may be gone by then: then the second is dropped in silence. */
    WAIT_UNTIL(atomic_load(&asked[1].code) == BEAM_OK);
    raw_close(&asker.peer);
    WAIT_UNTIL(atomic_load(&asked[0].code) == BEAM_UNKNOWN);
    CHECK_UINT(atomic_load(&asked[0].replies), 1);
    CHECK_UINT(atomic_load(&asked[1].replies), 1);
    asker_free_channel(&asked[1]);
    asker_stop(&asker);
}

TEST(a_server_that_ends_the_session_with_an_error_ends_its_calls)
{
    struct asked asked[2];
    begin(asked);
    raw_put_goaway(&packet, 3, BEAM_INTERNAL);
    raw_send(&asker.peer, &packet);
    raw_expect_end(&asker.peer);
    finish(asked);
}

/* F4: the name of the error is all that must be there. */
TEST(a_server_that_ends_the_session_with_a_bare_error_name_is_quoted)
{
    struct asked asked[2];
    uint8_t meta[64];
    beam_kv_writer w;
    struct bm_frame_goaway goaway = {.last_id = 3, .why.code = BEAM_RESOURCE_EXHAUSTED};
    size_t len;
    begin(asked);
    beam_kv_writer_init(&w, meta, sizeof(meta));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "error", "FLOW_CONTROL");
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &goaway.why.details, &len), 0);
    goaway.why.details_len = (uint32_t)len;
    packet.len = (size_t)(bm_frame_put_goaway(packet.bytes, &goaway) - packet.bytes);
    raw_send(&asker.peer, &packet);
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asker.closed), BEAM_RESOURCE_EXHAUSTED);
    CHECK_STR(asker.closed_text, "FLOW_CONTROL");
    finish(asked);
}

TEST(a_draining_server_finishes_what_it_has_and_the_rest_was_surely_not_run)
{
    struct asked asked[2];
    begin(asked);
    raw_put_goaway(&packet, 1, 0);
    raw_send(&asker.peer, &packet);
    WAIT_UNTIL(atomic_load(&asked[1].code) == BEAM_UNAVAILABLE);
    CHECK_INT(atomic_load(&asked[0].code), ASKER_PENDING);
    asker_answer(&asker, 1);
    WAIT_UNTIL(atomic_load(&asked[0].code) == BEAM_OK);
    raw_expect_end(&asker.peer);
    WAIT_UNTIL(atomic_load(&asker.closed) == BEAM_OK);
    asker_free_channel(&asked[1]);
    asker_stop(&asker);
}

/* --- answers that cannot be taken ------------------------------------------------------------ */

TEST(an_answer_over_the_limit_ends_its_call_alone)
{
    struct bm_message_head head;
    struct asked large = {.service = "large"}, small = {.service = "small"};
    asker_start_with(&asker, &BEAM_RUNTIME_OPTIONS(.limits.message_len_max = 1000, .name = "asker"),
                     NULL);
    asker_ask(&asker, &large);
    REQUIRE(asker_next(&asker, &head));
    raw_clear(&packet);
    raw_put_message(&packet, asker.peer.frame.channel, BM_MSG_END, body, 2000);
    raw_send(&asker.peer, &packet);
    WAIT_UNTIL(atomic_load(&large.code) == BEAM_RESOURCE_EXHAUSTED);
    asker_ask(&asker, &small);
    REQUIRE(asker_next(&asker, &head));
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&small.code) == BEAM_OK);
    CHECK_UINT(atomic_load(&large.replies), 1);
    asker_stop(&asker);
}

TEST(a_call_whose_answers_fds_found_no_room_ends_alone)
{
    struct bm_message_head head;
    struct asked asked = {.service = "fds"};
    struct rlimit before, low;
    int fds[128];
    unsigned count = 0;
    asker_start(&asker, true);
    asker_ask(&asker, &asked);
    REQUIRE(asker_next(&asker, &head));
    raw_clear(&packet);
    head = (struct bm_message_head){.body = body, .body_len = 4};
    raw_put_head(&packet, asker.peer.frame.channel, BM_MSG_END, 3, &head, NULL);
    for (unsigned i = 0; i < 3; i++)
        raw_add_fd(&packet, 0);

    REQUIRE_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = 128;
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (count < 128 && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    close(fds[--count]);
    raw_send(&asker.peer, &packet);
    WAIT_UNTIL(atomic_load(&asked.code) != ASKER_PENDING);
    while (count > 0)
        close(fds[--count]);
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_INT(atomic_load(&asked.code), BEAM_RESOURCE_EXHAUSTED);

    struct asked next = {.service = "next"};
    asker_ask(&asker, &next);
    REQUIRE(asker_next(&asker, &head));
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&next.code) == BEAM_OK);
    CHECK_UINT(atomic_load(&asked.replies), 1);
    asker_stop(&asker);
}

/* --- calls given up in every state ----------------------------------------------------------- */

TEST(a_large_message_with_a_channel_attached_leaves_the_channel_open)
{
    struct bm_message_head head;
    struct asked asked = {
        .service = "large", .body = body, .body_len = sizeof(body), .channel_count = 1};
    asker_start(&asker, true);
    asker_ask(&asker, &asked);
    REQUIRE(asker_next(&asker, &head));
    uint64_t id = asker.peer.frame.channel;
    struct bm_attached attached;
    REQUIRE_INT(bm_frame_parse_attached(&head, 0, &attached), 0);
    size_t got = head.body_len;
    bool first = false;
    while (got < sizeof(body) || !first) {
        REQUIRE_INT(raw_next(&asker.peer, RAW_TIMEOUT_MS), 1);
        CHECK(asker.peer.frame.kind == BM_FRAME_MSG);
        if (asker.peer.frame.channel == id)
            got += asker.peer.frame.len;
        else if (asker.peer.frame.channel == attached.id)
            first = true;
    }
    asker_answer(&asker, id);
    WAIT_UNTIL(atomic_load(&asked.code) == BEAM_OK);
    raw_clear(&packet);
    raw_put_message(&packet, attached.id, 0, "hi", 2);
    raw_send(&asker.peer, &packet);
    WAIT_UNTIL(atomic_load(&asked.messages) == 1);
    CHECK_INT(atomic_load(&asked.channel_codes[0]), ASKER_PENDING);
    asker_free_channels(&asked);
    asker_stop(&asker);
}

TEST(a_large_message_may_be_given_up_at_any_of_its_frames)
{
    for (unsigned fds = 0; fds < 2; fds++) {
        for (unsigned frames = 0; frames < 4; frames++) {
            struct bm_message_head head;
            struct asked asked = {.service = "large",
                                  .open = true,
                                  .body = body,
                                  .body_len = sizeof(body),
                                  .fd_count = fds,
                                  .channel_count = 1};
            test_note("after %u frames, %u fds", frames, fds);
            if (fds > 0)
                asked.fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            asker_start(&asker, true);
            asker_ask(&asker, &asked);
            for (unsigned i = 0; i < frames; i++)
                REQUIRE_INT(raw_next(&asker.peer, RAW_TIMEOUT_MS), 1);
            asker_free_channel(&asked);
            asker_free_channels(&asked);
            struct asked next = {.service = "next"};
            asker_ask(&asker, &next);
            do
                REQUIRE(raw_find(&asker.peer, BM_FRAME_MSG, 0));
            while (bm_frame_parse_message(&asker.peer.frame, &head) != 0 || !head.open ||
                   head.name.len != 4);
            asker_answer(&asker, asker.peer.frame.channel);
            WAIT_UNTIL(atomic_load(&next.code) == BEAM_OK);
            asker_stop(&asker);
        }
    }
    CHECK(true);
}

static ino_t ino_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

/* The packet with the fd waits for room in the socket at one of these moments; its number is given to
 * others as soon as the message is given up. */
TEST(no_stranger_leaves_in_place_of_an_fd_that_was_given_up)
{
    for (unsigned frames = 0; frames < 10; frames++) {
        struct asked filler = {.service = "filler", .body = body, .body_len = sizeof(body)};
        struct asked asked = {.service = "with fd",
                              .open = true,
                              .body = body,
                              .body_len = sizeof(body),
                              .fd_count = 1};
        int own[2], strangers[8];
        REQUIRE_INT(pipe2(own, O_CLOEXEC), 0);
        ino_t ino = ino_of(own[0]);
        asked.fds[0] = own[0];
        asker_start(&asker, true);
        asker_ask(&asker, &filler);
        asker_ask(&asker, &asked);
        for (unsigned i = 0; i < frames; i++)
            (void)raw_next(&asker.peer, 100);
        asker_free_channel(&asked);
        for (unsigned i = 0; i < 8; i++)
            strangers[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        struct asked last = {.service = "last"};
        asker_ask(&asker, &last);
        struct bm_message_head head = {0};
        test_note("given up after %u packets", frames);
        do
            REQUIRE(raw_find(&asker.peer, BM_FRAME_MSG, 0));
        while (!(asker.peer.frame.flags & BM_MSG_OPEN) ||
               bm_frame_parse_message(&asker.peer.frame, &head) != 0 || head.name.len != 4);
        CHECK(asker.peer.fd_count <= 1);
        if (asker.peer.fd_count > 0)
            CHECK_UINT(ino_of(asker.peer.fds[0]), ino);
        asker_answer(&asker, asker.peer.frame.channel);
        WAIT_UNTIL(atomic_load(&last.code) == BEAM_OK);
        for (unsigned i = 0; i < 8; i++)
            close(strangers[i]);
        close(own[1]);
        asker_stop(&asker);
    }
}

TEST(a_runtime_may_stop_with_everything_under_way)
{
    for (unsigned round = 0; round < 10; round++) {
        static struct asked asked[40];
        asker_start(&asker, round % 2);
        for (unsigned i = 0; i < 40; i++) {
            asked[i] = (struct asked){.service = "x",
                                      .body = body,
                                      .open = i % 2,
                                      .body_len = i % 5 == 0 && round % 2 ? sizeof(body) : 100,
                                      .channel_count = i % 3,
                                      .fd_count = i % 4 == 0 && round % 2};
            if (asked[i].fd_count)
                asked[i].fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            asker_ask(&asker, &asked[i]);
        }
        /* The handles go back on the reactor; what is under way is nobody's any more. */
        for (unsigned i = 0; i < 40; i++) {
            asker_free_channels(&asked[i]);
            asker_free_channel(&asked[i]);
        }
        asker_stop(&asker);
        for (unsigned i = 0; i < 40; i++)
            if (!asked[i].open && asked[i].result == 0)
                CHECK_UINT(atomic_load(&asked[i].replies), 1);
    }
}

static atomic_int busy; /* 1: the reactor is, until it is 0 */

static void be_busy(void *arg)
{
    atomic_store(&busy, 1);
    while (atomic_load(&busy) == 1)
        served_nap();
}

/* U5: the kernel reports the reset in front of what the peer said before it closed; the reactor looks when
 * both have happened. */
TEST(what_a_server_said_is_read_though_it_left_calls_unread)
{
    struct asked asked[2], unread = {.service = "x"};
    int there = 0;
    begin(asked);
    asker_ask(&asker, &unread);
    WAIT_UNTIL(ioctl(asker.peer.fd, FIONREAD, &there) == 0 && there > 0);
    REQUIRE_INT(beam_post(asker.runtime, 0, be_busy, NULL), 0);
    WAIT_UNTIL(atomic_load(&busy) == 1);
    raw_put_message(&packet, 1, BM_MSG_END, NULL, 0);
    raw_send(&asker.peer, &packet);
    raw_put_goaway(&packet, 3, BEAM_PERMISSION_DENIED);
    raw_send(&asker.peer, &packet);
    raw_close(&asker.peer);
    atomic_store(&busy, 0);
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asker.closed), BEAM_PERMISSION_DENIED);
    CHECK_INT(atomic_load(&asked[0].code), BEAM_OK);
    CHECK_INT(atomic_load(&asked[1].code), BEAM_UNKNOWN);
    CHECK_INT(atomic_load(&unread.code), BEAM_UNAVAILABLE); /* P3: above its last id */
    asker_free_channel(&asked[1]);
    asker_stop(&asker);
}

/* W5 */
TEST(no_more_than_two_large_messages_are_under_way)
{
    struct asked asked[5];
    uint64_t begun[5] = {0};
    size_t left[5] = {0};
    unsigned whole = 0, most = 0;
    asker_start(&asker, true);
    for (unsigned i = 0; i < 5; i++) {
        asked[i] = (struct asked){.service = "x", .body = body, .body_len = sizeof(body)};
        asker_ask(&asker, &asked[i]);
    }
    while (whole < 5 && raw_next(&asker.peer, RAW_TIMEOUT_MS) == 1) {
        const struct bm_frame *frame = &asker.peer.frame;
        struct bm_message_head head;
        unsigned i = (unsigned)(frame->channel / 2), now = 0;
        if (frame->kind != BM_FRAME_MSG)
            continue;
        REQUIRE(i < 5);
        if (!begun[i]++) {
            REQUIRE_INT(bm_frame_parse_message(frame, &head), 0);
            left[i] = head.body_total - head.body_len;
        } else {
            left[i] -= frame->len;
        }
        for (unsigned k = 0; k < 5; k++)
            now += left[k] > 0;
        most = now > most ? now : most;
        if (left[i] == 0) {
            whole++;
            asker_answer(&asker, frame->channel);
        }
    }
    CHECK_UINT(whole, 5);
    CHECK_UINT(most, 2);
    for (unsigned i = 0; i < 5; i++)
        WAIT_UNTIL(atomic_load(&asked[i].code) == BEAM_OK);
    asker_stop(&asker);
}
