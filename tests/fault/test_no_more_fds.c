/* When there are no more file descriptors: in the receiver's table, for accepting, or for the user as a
 * whole (ETOOMANYREFS, unix(7)). What has nothing to do with fds goes on, what has is refused or waits,
 * and every fd is somewhere. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/asker.h"
#include "tests/support/served.h"
#include "tests/support/snapshot.h"

static struct raw_peer bad;
static struct raw_packet packet;
static struct asker asker;

static int some_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    return fd;
}

/* An fd that can be told from all others; *ret_ino is of the file it stands for. */
static int own_fd(ino_t *ret_ino)
{
    struct stat st;
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    close(fds[1]);
    REQUIRE_INT(fstat(fds[0], &st), 0);
    *ret_ino = st.st_ino;
    return fds[0];
}

static ino_t ino_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

/* --- the receiver's table is full ------------------------------------------------------------ */

static struct {
    struct rlimit before;
    int fds[256];
    unsigned count;
} filled;

/* Leaves `free` descriptors. */
static void fill_table(unsigned left)
{
    REQUIRE_INT(getrlimit(RLIMIT_NOFILE, &filled.before), 0);
    struct rlimit low = filled.before;
    low.rlim_cur = 128;
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    filled.count = 0;
    int fd;
    while (filled.count < 256 && (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        filled.fds[filled.count++] = fd;
    CHECK_INT(errno, EMFILE);
    while (left-- > 0)
        close(filled.fds[--filled.count]);
}

static void empty_table(void)
{
    while (filled.count > 0)
        close(filled.fds[--filled.count]);
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &filled.before), 0);
}

static void put_fds(uint64_t id, unsigned count, int fd)
{
    struct bm_message_head head = {.open = true, .name = {"take", 4}};
    raw_put_head(&packet, id, BM_MSG_OPEN | BM_MSG_END, (uint8_t)count, &head, NULL);
    for (unsigned i = 0; i < count; i++)
        raw_add_fd(&packet, fd);
}

TEST(messages_whose_fds_found_no_room_are_refused_and_the_others_delivered)
{
    struct served *served = served_start(NULL);
    int fd = some_fd();
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned room = 0; room <= 6; room++) {
        uint64_t first = 1 + 100 * room;
        test_note("room for %u of 6 fds", room);
        atomic_store(&served->fds, 0);
        put_fds(first, 2, fd);
        put_fds(first + 2, 3, fd);
        put_fds(first + 4, 1, fd);
        raw_put_open(&packet, first + 6, BM_MSG_END, "echo", NULL, 0);
        fill_table(room);
        raw_send(&bad, &packet);
        for (unsigned i = 0; i < 4; i++) {
            static const unsigned needs[] = {2, 5, 6, 0};
            do
                REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
            while (bad.frame.channel != first + 2 * i);
            CHECK_INT(raw_end_code(&bad), needs[i] > room ? BEAM_RESOURCE_EXHAUSTED : BEAM_OK);
        }
        CHECK_UINT(atomic_load(&served->fds), room >= 6 ? 6 : room >= 5 ? 5 : room >= 2 ? 2 : 0);
        served_drop(served);
        empty_table();
        served_check(served);
    }
    raw_close(&bad);
    close(fd);
    served_check_clean(served);
    served_stop(served);
}

TEST(fd_credit_returns_for_fds_that_found_no_room)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.fds_max = 8, .name = "served"));
    int fd = some_fd();
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    int64_t credit = 8;
    for (unsigned i = 0; i < 20; i++) {
        while (credit < 4) {
            REQUIRE(raw_find(&bad, BM_FRAME_CREDIT, 0));
            credit += bad.frame.channel == 0 ? (int64_t)bm_frame_parse_u64(&bad.frame) : 0;
        }
        put_fds(1 + 2 * i, 4, fd);
        fill_table(2);
        raw_send(&bad, &packet);
        credit -= 4;
        for (;;) {
            REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
            if (bad.frame.kind == BM_FRAME_CREDIT && bad.frame.channel == 0)
                credit += (int64_t)bm_frame_parse_u64(&bad.frame);
            if (bad.frame.kind == BM_FRAME_END)
                break;
        }
        CHECK_INT(raw_end_code(&bad), BEAM_RESOURCE_EXHAUSTED);
        empty_table();
    }
    raw_close(&bad);
    close(fd);
    served_check_clean(served);
    served_stop(served);
}

/* --- no fd to accept with -------------------------------------------------------------------- */

TEST(a_server_out_of_fds_serves_on_and_accepts_again_later)
{
    enum { PEERS = 20 };
    static struct raw_peer peers[PEERS];
    struct served *served = served_start(NULL);
    for (unsigned i = 0; i < PEERS; i++)
        raw_socket(&peers[i]);
    fill_table(0);
    for (unsigned i = 0; i < PEERS; i++)
        CHECK_INT(raw_try_connect_on(&peers[i], served->name), 0);

    /* The first is taken: io_uring goes by the limit of when accept was asked for. The next is told by a
     * close, and the old session goes on. */
    CHECK_INT(raw_next(&peers[1], RAW_TIMEOUT_MS), 0);
    served_check(served);
    struct beam_stats before = served_stats(served, 0);
    for (unsigned i = 0; i < 200; i++)
        served_nap();
    struct beam_stats after = served_stats(served, 0);
    CHECK(after.turns - before.turns < 400);
    CHECK(after.enters - before.enters < 400);
    served_check(served);
    empty_table();

    for (unsigned i = 0; i < PEERS; i++)
        raw_close(&peers[i]);
    raw_open_session(&bad, served->name);
    CHECK(raw_echo(&bad, 1, "new", 3));
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* --- fd credit of calls that were given up before they left ---------------------------------- */

TEST(fds_that_never_left_cost_no_fd_credit)
{
    static struct asked asked[300];
    asker_start(&asker, true);
    for (unsigned i = 0; i < 300; i++) {
        asked[i] = (struct asked){.service = "x", .open = true, .fds = {some_fd()}, .fd_count = 1};
        asked[i].timeout_ns = 0;
        asker_ask(&asker, &asked[i]);
        test_note("channel %u", i);
        REQUIRE_INT(asked[i].result, 0);
        asker_free_channel(&asked[i]);
        /* Some have left before they were given up: the peer gives their credit back, as it would. */
        while (raw_next(&asker.peer, 0) == 1)
            ;
        if (asker.peer.fd_count > 0) {
            raw_put_credit(&packet, 0, asker.peer.fd_count);
            raw_send(&asker.peer, &packet);
            while (asker.peer.fd_count > 0)
                close(asker.peer.fds[--asker.peer.fd_count]);
        }
    }
    asker_stop(&asker);
}

static void ask_and_free(void *arg)
{
    struct asker *a = arg;
    static const struct beam_channel_handlers none;
    for (unsigned i = 0; i < 200; i++) {
        beam_message *message = beam_message_new();
        beam_channel *channel = NULL;
        int fd = some_fd();
        beam_message_attach_fd(message, &fd);
        int r = beam_open(a->session, "x", &message, &none, NULL, NULL, &channel);
        if (r < 0)
            CHECK_INT(r, 0);
        beam_message_free(message);
        beam_channel_free(channel);
    }
}

TEST(opening_with_an_fd_and_giving_up_in_one_turn_costs_no_fd_credit)
{
    asker_start(&asker, true);
    for (unsigned i = 0; i < 3; i++)
        served_run(asker.runtime, 0, ask_and_free, &asker);
    asker_stop(&asker);
}

TEST(a_channel_attached_to_a_call_that_never_left_ends_cancelled)
{
    struct asked asked = {.service = "x", .channel_count = 2, .timeout_ns = 20 * BEAM_MS};
    asker_start(&asker, false);
    asker_ask(&asker, &asked);
    REQUIRE_INT(asked.result, 0);
    /* The opening frame left with HELLO or did not; a deadline that passes ends all three anyway. */
    WAIT_UNTIL(atomic_load(&asked.code) == BEAM_DEADLINE_EXCEEDED);
    asker_free_channels(&asked);
    asker_stop(&asker);
}

/* --- ETOOMANYREFS ---------------------------------------------------------------------------- */

/* Somebody of this user who has sent more fds than RLIMIT_NOFILE to one who does not read. */
static struct {
    int pair[2];
    struct rlimit before;
    struct test_snapshot snapshot;
} stuck;

#define LIMIT 100

static void get_stuck(void)
{
    struct rlimit low = {LIMIT, LIMIT};
    stuck.snapshot = test_snapshot_take();
    asker_start(&asker, true);
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, stuck.pair), 0);
    struct raw_peer sender;
    raw_wrap(&sender, stuck.pair[0]);
    int r = 0;
    for (unsigned i = 0; i < 20 && r == 0; i++) {
        raw_clear(&packet);
        raw_put_ping(&packet, 1);
        for (unsigned k = 0; k < 20; k++)
            raw_add_fd(&packet, 2);
        r = raw_try_send(&sender, &packet, 0);
    }
    raw_clear(&packet);
    CHECK_INT(r, -ETOOMANYREFS);
}

/* The stuck one reads at last. */
static void get_loose(void)
{
    struct raw_peer *reader = &bad;
    raw_wrap(reader, dup(stuck.pair[1]));
    while (raw_next(reader, 0) == 1)
        while (reader->fd_count > 0)
            close(reader->fds[--reader->fd_count]);
    raw_close(reader);
}

static void end_stuck(void)
{
    close(stuck.pair[0]);
    close(stuck.pair[1]);
    asker_stop(&asker);
    struct test_snapshot after = test_snapshot_take();
    CHECK(test_snapshot_same(&stuck.snapshot, &after));
    test_snapshot_free(&stuck.snapshot);
    test_snapshot_free(&after);
}

/* The frame last read brought this one fd. */
static void check_fd(ino_t ino)
{
    CHECK_INT(asker.peer.frame.fds, 1);
    REQUIRE(asker.peer.fd_count > 0);
    CHECK_UINT(ino_of(asker.peer.fds[0]), ino);
    close(asker.peer.fds[0]);
    asker.peer.fd_count--;
    memmove(asker.peer.fds, asker.peer.fds + 1, asker.peer.fd_count * sizeof(int));
}

static void others_go_on(void)
{
    struct bm_message_head head;
    ino_t ino;
    get_stuck();
    struct asked with = {.service = "with", .fds = {own_fd(&ino)}, .fd_count = 1};
    asker_ask(&asker, &with);
    for (unsigned i = 0; i < 50; i++) {
        struct asked without = {.service = "without", .body = "b", .body_len = 1};
        asker_ask(&asker, &without);
        REQUIRE_INT(without.result, 0);
        REQUIRE(asker_next(&asker, &head));
        CHECK_MEM(head.name.ptr, head.name.len, "without", 7);
        CHECK_INT(asker.peer.frame.fds, 0);
        asker_answer(&asker, asker.peer.frame.channel);
        WAIT_UNTIL(atomic_load(&without.code) == BEAM_OK);
    }
    CHECK_INT(atomic_load(&with.code), ASKER_PENDING);
    get_loose();
    REQUIRE(asker_next(&asker, &head));
    CHECK_MEM(head.name.ptr, head.name.len, "with", 4);
    check_fd(ino);
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&with.code) == BEAM_OK);
    end_stuck();
}

TEST(while_a_stuck_peer_holds_the_users_fds_messages_without_fds_pass)
{
    test_run_as_nobody(others_go_on);
    CHECK(true);
}

static void one_packet(void *arg)
{
    /* In one turn, so that all stand in one packet. */
    struct asked *asked = arg;
    static const struct beam_channel_handlers none;
    (void)none;
    for (unsigned i = 0; i < 6; i++) {
        beam_message *message = beam_message_new();
        beam_message_set_body(message, &asked[i].body_len, 1);
        for (unsigned k = 0; k < asked[i].fd_count; k++)
            beam_message_attach_fd(message, &asked[i].fds[k]);
        for (unsigned k = 0; k < asked[i].channel_count; k++) {
            asked[i].channels[k] = beam_message_attach_channel(message);
            (void)beam_channel_send_body(asked[i].channels[k], "first", 5);
        }
        asked[i].result = beam_open(asked[i].asker->session, asked[i].service, &message, NULL, NULL,
                                    NULL, &asked[i].channel);
        beam_message_free(message);
        /* Behind the first message: one without, one with the end. */
        if (asked[i].result == 0) {
            (void)beam_channel_send_body(asked[i].channel, "second", 6);
            (void)beam_channel_send_body(asked[i].channel, "third", 5);
            beam_channel_end(asked[i].channel);
        }
    }
}

static void order_is_kept(void)
{
    struct bm_message_head head;
    static struct asked asked[6];
    ino_t inos[6] = {0};
    uint64_t ids[6] = {0}, attached_ids[6] = {0};
    unsigned seen[6] = {0}, attached_seen[6] = {0};
    get_stuck();
    for (unsigned i = 0; i < 6; i++) {
        asked[i] =
            (struct asked){.asker = &asker, .service = i % 2 ? "odd" : "even", .body_len = 'a' + i};
        if (i % 3 != 2) {
            asked[i].fds[0] = own_fd(&inos[i]);
            asked[i].fd_count = 1;
        }
        if (i % 2 == 0)
            asked[i].channel_count = 1;
    }
    served_run(asker.runtime, 0, one_packet, asked);
    for (unsigned i = 0; i < 6; i++)
        REQUIRE_INT(asked[i].result, 0);

    /* 6 channels of 3 messages, and 3 attached ones of 1. */
    for (unsigned n = 0; n < 6 * 3 + 3; n++) {
        if (n == 7)
            get_loose(); /* 2 of the channels have no fds, and one of these an attached one */
        REQUIRE(asker_next(&asker, &head));
        const struct bm_frame *frame = &asker.peer.frame;
        if (head.open) {
            unsigned i = (unsigned)head.body[0] - 'a';
            REQUIRE(head.body_len == 1 && i < 6);
            CHECK_UINT(ids[i], 0);
            CHECK_UINT(frame->fds, asked[i].fd_count);
            CHECK_UINT(frame->attached, asked[i].channel_count);
            ids[i] = frame->channel;
            seen[i] = 1;
            if (head.attached > 0) {
                struct bm_attached attached;
                REQUIRE_INT(bm_frame_parse_attached(&head, 0, &attached), 0);
                attached_ids[i] = attached.id;
            }
            if (frame->fds > 0)
                check_fd(inos[i]);
            continue;
        }
        bool found = false;
        for (unsigned i = 0; i < 6 && !found; i++) {
            if (attached_ids[i] && attached_ids[i] == frame->channel) {
                CHECK_MEM(head.body, head.body_len, "first", 5);
                attached_seen[i]++;
                found = true;
            } else if (ids[i] == frame->channel) {
                found = true;
                if (seen[i]++ == 1) {
                    CHECK_MEM(head.body, head.body_len, "second", 6);
                    CHECK_INT(frame->flags, 0);
                } else {
                    CHECK_MEM(head.body, head.body_len, "third", 5);
                    CHECK_INT(frame->flags, BM_MSG_END);
                }
            }
        }
        CHECK(found);
    }
    for (unsigned i = 0; i < 6; i++) {
        CHECK_UINT(seen[i], 3);
        CHECK_UINT(attached_seen[i], asked[i].channel_count);
        asker_free_channels(&asked[i]);
        asker_free_channel(&asked[i]);
    }
    CHECK_UINT(asker.peer.fd_count, 0);
    end_stuck();
}

TEST(what_waits_for_its_fds_keeps_its_order_its_ids_and_its_fds)
{
    test_run_as_nobody(order_is_kept);
    CHECK(true);
}

static void open_channel_keeps_order(void)
{
    struct bm_message_head head;
    struct asked asked = {.service = "x", .open = true, .body = "0", .body_len = 1};
    ino_t inos[4] = {0};
    get_stuck();
    asker_ask(&asker, &asked);
    REQUIRE(asker_next(&asker, &head));
    for (unsigned i = 0; i < 4; i++) {
        char body = (char)('1' + i);
        int fd = i % 2 ? own_fd(&inos[i]) : -1;
        CHECK_INT(asker_send(&asked, &body, 1, &fd, i % 2, i == 3), 0);
    }
    REQUIRE(asker_next(&asker, &head));
    CHECK_MEM(head.body, head.body_len, "1", 1);
    get_loose();
    for (unsigned i = 1; i < 4; i++) {
        char body = (char)('1' + i);
        REQUIRE(asker_next(&asker, &head));
        CHECK_MEM(head.body, head.body_len, &body, 1);
        CHECK_INT(asker.peer.frame.flags, i == 3 ? BM_MSG_END : 0);
        if (i % 2)
            check_fd(inos[i]);
    }
    asker_free_channel(&asked);
    end_stuck();
}

TEST(on_an_open_channel_messages_wait_behind_the_one_with_fds)
{
    test_run_as_nobody(open_channel_keeps_order);
    CHECK(true);
}

static void deadline_ends_waiting(void)
{
    struct bm_message_head head;
    ino_t ino;
    get_stuck();
    struct asked asked = {.service = "x",
                          .fds = {own_fd(&ino)},
                          .fd_count = 1,
                          .channel_count = 1,
                          .timeout_ns = 50 * BEAM_MS};
    asker_ask(&asker, &asked);
    WAIT_UNTIL(atomic_load(&asked.code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asked.code), BEAM_DEADLINE_EXCEEDED);
    /* What was attached never left either. */
    WAIT_UNTIL(atomic_load(&asked.channel_codes[0]) == BEAM_CANCELLED);
    asker_free_channels(&asked);

    /* The peer never hears of it, and the session lives. */
    struct asked next = {.service = "y"};
    asker_ask(&asker, &next);
    REQUIRE_INT(raw_next(&asker.peer, RAW_TIMEOUT_MS), 1);
    CHECK_INT(asker.peer.frame.kind, BM_FRAME_MSG);
    REQUIRE_INT(bm_frame_parse_message(&asker.peer.frame, &head), 0);
    CHECK_MEM(head.name.ptr, head.name.len, "y", 1);
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&next.code) == BEAM_OK);
    get_loose();
    end_stuck();
}

TEST(a_deadline_ends_a_call_that_waits_for_its_fds)
{
    test_run_as_nobody(deadline_ends_waiting);
    CHECK(true);
}

static void five_seconds_end_waiting(void)
{
    ino_t ino;
    get_stuck();
    struct asked asked = {.service = "x", .fds = {own_fd(&ino)}, .fd_count = 1};
    asker_ask(&asker, &asked);
    WAIT_UNTIL(atomic_load(&asked.code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asked.code), BEAM_RESOURCE_EXHAUSTED);
    CHECK_UINT(atomic_load(&asked.replies), 1);
    CHECK_INT(atomic_load(&asker.closed), ASKER_PENDING);
    get_loose();
    end_stuck();
}

TEST(after_five_seconds_a_call_that_waits_for_its_fds_ends_resource_exhausted)
{
    test_run_as_nobody(five_seconds_end_waiting);
    CHECK(true);
}

static void abort_while_waiting(void)
{
    struct bm_message_head head;
    ino_t ino;
    struct asked open = {.service = "open", .open = true};
    get_stuck();
    asker_ask(&asker, &open);
    REQUIRE(asker_next(&asker, &head));
    uint64_t open_id = asker.peer.frame.channel;
    for (unsigned i = 0; i < 3; i++) {
        struct asked fresh = {.service = "fresh",
                              .open = true,
                              .fds = {own_fd(&ino)},
                              .fd_count = 1,
                              .channel_count = 2};
        asker_ask(&asker, &fresh);
        if (i == 1) { /* let it be tried and refused first */
            struct asked other = {.service = "other"};
            asker_ask(&asker, &other);
            REQUIRE(asker_next(&asker, &head));
            asker_answer(&asker, asker.peer.frame.channel);
            WAIT_UNTIL(atomic_load(&other.code) == BEAM_OK);
        }
        asker_free_channel(&fresh);
        if (i == 2)
            asker_free_channels(&fresh);
        else
            WAIT_UNTIL(atomic_load(&fresh.channel_codes[1]) == BEAM_CANCELLED);
        asker_free_channels(&fresh);
    }
    int fd = own_fd(&ino);
    CHECK_INT(asker_send(&open, "later", 5, &fd, 1, false), 0);
    asker_free_channel(&open);
    /* Of all that the peer hears one thing: the open channel was aborted. */
    REQUIRE_INT(raw_next(&asker.peer, RAW_TIMEOUT_MS), 1);
    CHECK_INT(asker.peer.frame.kind, BM_FRAME_END);
    CHECK_INT(asker.peer.frame.flags, BM_END_ABORT);
    CHECK_UINT(asker.peer.frame.channel, open_id);
    get_loose();
    struct asked last = {.service = "last", .fds = {own_fd(&ino)}, .fd_count = 1};
    asker_ask(&asker, &last);
    REQUIRE(asker_next(&asker, &head));
    CHECK_MEM(head.name.ptr, head.name.len, "last", 4);
    check_fd(ino);
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&last.code) == BEAM_OK);
    end_stuck();
}

TEST(channels_may_be_aborted_while_their_fds_wait)
{
    test_run_as_nobody(abort_while_waiting);
    CHECK(true);
}

static void death_while_waiting(void)
{
    ino_t ino;
    get_stuck();
    static struct asked asked[4];
    for (unsigned i = 0; i < 4; i++) {
        asked[i] = (struct asked){.service = "x",
                                  .fds = {own_fd(&ino)},
                                  .fd_count = 1,
                                  .channel_count = i % 2,
                                  .open = i > 1};
        asker_ask(&asker, &asked[i]);
    }
    raw_close(&asker.peer);
    for (unsigned i = 0; i < 4; i++) {
        WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
        CHECK_INT(atomic_load(&asked[i].code), BEAM_UNAVAILABLE);
        CHECK_UINT(atomic_load(&asked[i].replies), 1);
        if (asked[i].channel_count)
            WAIT_UNTIL(atomic_load(&asked[i].channel_codes[0]) != ASKER_PENDING);
        asker_free_channels(&asked[i]);
        asker_free_channel(&asked[i]);
    }
    end_stuck();
}

TEST(a_session_may_die_while_fds_wait_and_what_waited_was_surely_not_run)
{
    test_run_as_nobody(death_while_waiting);
    CHECK(true);
}

static uint8_t large_body[200000];

static void large_waits(void)
{
    ino_t ino;
    struct bm_message_head head;
    get_stuck();
    struct asked large = {.service = "large",
                          .fds = {own_fd(&ino)},
                          .fd_count = 1,
                          .channel_count = 1,
                          .body = large_body,
                          .body_len = sizeof(large_body)};
    asker_ask(&asker, &large);
    struct asked other = {.service = "other"};
    asker_ask(&asker, &other);
    REQUIRE(asker_next(&asker, &head));
    CHECK_MEM(head.name.ptr, head.name.len, "other", 5);
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&other.code) == BEAM_OK);
    get_loose();
    REQUIRE(asker_next(&asker, &head));
    CHECK_MEM(head.name.ptr, head.name.len, "large", 5);
    check_fd(ino);
    uint64_t id = asker.peer.frame.channel;
    size_t got = head.body_len;
    while (got < sizeof(large_body)) {
        REQUIRE(raw_find(&asker.peer, BM_FRAME_MSG, id));
        got += asker.peer.frame.len;
    }
    CHECK_UINT(got, sizeof(large_body));
    CHECK(asker.peer.frame.flags & BM_MSG_END);
    CHECK_INT(atomic_load(&large.channel_codes[0]), ASKER_PENDING);
    asker_answer(&asker, id);
    WAIT_UNTIL(atomic_load(&large.code) == BEAM_OK);
    asker_free_channels(&large);
    end_stuck();
}

TEST(a_large_message_with_fds_waits_and_holds_nothing_up)
{
    test_run_as_nobody(large_waits);
    CHECK(true);
}

static void large_aborted(void)
{
    ino_t ino, other_ino;
    struct bm_message_head head;
    get_stuck();
    struct asked large = {.service = "large",
                          .open = true,
                          .fds = {own_fd(&ino)},
                          .fd_count = 1,
                          .body = large_body,
                          .body_len = sizeof(large_body)};
    asker_ask(&asker, &large);
    asker_free_channel(&large);
    /* Its number is free again: whoever gets it now has nothing to do with the message. */
    int stranger[8];
    for (unsigned i = 0; i < 8; i++)
        stranger[i] = own_fd(&other_ino);
    get_loose();
    struct asked last = {.service = "last", .fds = {own_fd(&ino)}, .fd_count = 1};
    asker_ask(&asker, &last);
    REQUIRE(asker_next(&asker, &head));
    if (head.name.len == 5) { /* the large one had left, and its abort is behind it */
        check_fd(ino_of(asker.peer.fds[0]));
        REQUIRE(asker_next(&asker, &head));
    }
    CHECK_MEM(head.name.ptr, head.name.len, "last", 4);
    check_fd(ino);
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&last.code) == BEAM_OK);
    for (unsigned i = 0; i < 8; i++)
        close(stranger[i]);
    end_stuck();
}

TEST(a_large_message_may_be_aborted_while_its_fds_wait)
{
    test_run_as_nobody(large_aborted);
    CHECK(true);
}
