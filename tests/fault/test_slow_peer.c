/* Peers that do not read, or all speak at once: queues end somewhere, memory with them, and nobody else
 * notices. */
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <linux/sockios.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/asker.h"
#include "tests/support/served.h"
#include "tests/support/snapshot.h"

static struct raw_peer bad;
static struct raw_packet packet;

/* Stands before the library's: rings may be made small. */
static unsigned ring_len;

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
    int (*real)(unsigned, struct io_uring *, struct io_uring_params *);
    *(void **)&real = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
    if (!real)
        return -ENOSYS;
    if (ring_len > 0) {
        entries = ring_len;
        p->cq_entries = ring_len;
    }
    return real(entries, ring, p);
}

/* Everything sent on it has been received. */
static bool is_read(int fd)
{
    int left = 1;
    return ioctl(fd, SIOCOUTQ, &left) == 0 && left == 0;
}

TEST(a_sender_to_a_peer_that_never_reads_is_told_eagain_and_memory_is_bounded)
{
    enum { QUEUE = 256 * 1024, BODY = 4000, MAX = 1000 };
    static uint8_t body[BODY];
    static struct asked asked[MAX];
    struct asker asker;
    asker_start_with(&asker, &BEAM_RUNTIME_OPTIONS(.limits.queue_len_max = QUEUE, .name = "asker"),
                     NULL);
    size_t before = bm_alloc_totals().live_bytes;
    unsigned count = 0;
    int r = 0;
    while (count < MAX && r == 0) {
        asked[count] = (struct asked){.service = "x", .body = body, .body_len = BODY};
        asker_ask(&asker, &asked[count]);
        r = asked[count].result;
        count += r == 0;
    }
    CHECK_INT(r, -EAGAIN);
    CHECK(count >= QUEUE / (BODY + 64));
    /* The queue, the packet under way, what the pools round up; not what the socket holds. */
    CHECK(bm_alloc_totals().live_bytes - before < 3u * QUEUE + (1u << 20));
    CHECK_UINT(atomic_load(&asker.writable), 0);
    struct beam_stats stats = served_stats_of(asker.runtime, 0);
    for (unsigned i = 0; i < 50; i++)
        served_nap();
    struct beam_stats later = served_stats_of(asker.runtime, 0);
    CHECK(later.turns - stats.turns < 20); /* it waits, and does not try and try */

    struct bm_message_head head;
    for (unsigned i = 0; i < count; i++) {
        test_note("message %u of %u", i, count);
        REQUIRE(asker_next(&asker, &head));
        CHECK_UINT(head.body_len, BODY);
        asker_answer(&asker, asker.peer.frame.channel);
    }
    for (unsigned i = 0; i < count; i++)
        WAIT_UNTIL(atomic_load(&asked[i].code) == BEAM_OK);
    CHECK_UINT(atomic_load(&asker.writable), 1);
    struct asked last = {.service = "x", .body = body, .body_len = BODY};
    asker_ask(&asker, &last);
    CHECK_INT(last.result, 0);
    REQUIRE(asker_next(&asker, &head));
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&last.code) == BEAM_OK);
    asker_stop(&asker);
}

TEST(a_caller_that_reads_no_answers_is_served_no_further_until_it_does)
{
    enum { CALLS = 400, BODY = 30000, QUEUE = 1 << 20 };
    static uint8_t body[BODY];
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.queue_len_max = QUEUE, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < CALLS; i++) {
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "echo", body, BODY);
        raw_send(&bad, &packet);
    }
    WAIT_UNTIL(is_read(bad.fd));
    served_check(served);
    /* What the queue takes, what the socket holds and the packet under way. */
    unsigned ran = atomic_load(&served->echoes);
    CHECK(ran < CALLS);
    CHECK(ran >= QUEUE / (BODY + 64));
    served_check(served);

    unsigned answers = 0;
    while (answers < CALLS) {
        test_note("answer %u", answers);
        REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
        if (bad.frame.kind == BM_FRAME_MSG)
            answers++;
    }
    CHECK_UINT(atomic_load(&served->echoes), CALLS + 2);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(requests_held_back_are_dropped_when_their_caller_dies_or_gives_up)
{
    enum { CALLS = 200, BODY = 30000, QUEUE = 256 * 1024 };
    static uint8_t body[BODY];
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.queue_len_max = QUEUE, .name = "served"));
    for (unsigned round = 0; round < 2; round++) {
        raw_open_session(&bad, served->name);
        raw_clear(&packet);
        for (unsigned i = 0; i < CALLS; i++) {
            raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "echo", body, BODY);
            raw_send(&bad, &packet);
        }
        if (round == 1) {
            for (unsigned i = CALLS - 50; i < CALLS; i++)
                raw_put_end(&packet, 1 + 2 * i, BM_END_ABORT, BEAM_CANCELLED);
            raw_send(&bad, &packet);
        }
        WAIT_UNTIL(is_read(bad.fd));
        raw_close(&bad);
        served_check(served);
        served_check_clean(served);
    }
    CHECK(atomic_load(&served->echoes) < 2 * CALLS);
    served_stop(served);
}

TEST(a_hundred_peers_that_do_not_read_cost_each_its_own_queue_alone)
{
    enum { PEERS = 100, CALLS = 20, BODY = 60000, QUEUE = 128 * 1024 };
    static struct raw_peer peers[PEERS];
    static uint8_t body[BODY];
    struct served *served = served_start(
        &BEAM_RUNTIME_OPTIONS(.limits.queue_len_max = QUEUE, .reactors = 2, .name = "served"));
    for (unsigned i = 0; i < PEERS; i++) {
        raw_open_session(&peers[i], served->name);
        raw_clear(&packet);
        for (unsigned k = 0; k < CALLS; k++) {
            raw_put_open(&packet, 1 + 2 * k, BM_MSG_END, "echo", body, BODY);
            raw_send(&peers[i], &packet);
        }
    }
    for (unsigned i = 0; i < 20; i++)
        served_check(served);
    for (unsigned i = 0; i < PEERS; i++) {
        unsigned answers = 0;
        while (answers < CALLS) {
            REQUIRE_INT(raw_next(&peers[i], RAW_TIMEOUT_MS), 1);
            answers += peers[i].frame.kind == BM_FRAME_MSG;
        }
        raw_close(&peers[i]);
    }
    served_check_clean(served);
    served_stop(served);
}

/* --- all at once ----------------------------------------------------------------------------- */

static void wait_here(void *arg)
{
    while (sem_wait(arg) < 0)
        ;
}

static void burst(unsigned peers_count, unsigned packets)
{
    static struct raw_peer peers[300];
    sem_t go;
    struct served *served = served_start(NULL);
    REQUIRE(peers_count <= 300);
    for (unsigned i = 0; i < peers_count; i++)
        raw_open_session(&peers[i], served->name);
    struct beam_stats before = served_stats(served, 0);

    /* The reactor stands still while the packets come. */
    sem_init(&go, 0, 0);
    REQUIRE_INT(beam_post(served->runtime, 0, wait_here, &go), 0);
    raw_clear(&packet);
    for (unsigned k = 0; k < packets; k++) {
        for (unsigned i = 0; i < peers_count; i++) {
            raw_put_open(&packet, 1 + 2 * k, BM_MSG_END, "echo", &i, sizeof(i));
            raw_send(&peers[i], &packet);
        }
    }
    sem_post(&go);
    for (unsigned i = 0; i < peers_count; i++) {
        for (unsigned k = 0; k < packets;) {
            struct bm_message_head head;
            test_note("peer %u, answer %u", i, k);
            REQUIRE_INT(raw_next(&peers[i], RAW_TIMEOUT_MS), 1);
            if (peers[i].frame.kind != BM_FRAME_MSG)
                continue;
            REQUIRE_INT(bm_frame_parse_message(&peers[i].frame, &head), 0);
            CHECK_UINT(peers[i].frame.channel, 1 + 2 * k);
            CHECK_MEM(head.body, head.body_len, &i, sizeof(i));
            k++;
        }
    }
    struct beam_stats after = served_stats(served, 0);
    if (ring_len > 0)
        CHECK(after.overflows > before.overflows);
    else
        CHECK(after.enobufs > before.enobufs);
    for (unsigned i = 0; i < peers_count; i++)
        raw_close(&peers[i]);
    served_check_clean(served);
    sem_destroy(&go);
    served_stop(served);
}

TEST(more_packets_than_receive_buffers_all_arrive_in_order)
{
    burst(100, 4);
}

TEST(three_hundred_peers_at_once_are_all_answered)
{
    burst(300, 8);
}

TEST(more_completions_than_the_queue_holds_all_arrive)
{
    ring_len = 8;
    burst(50, 8);
    ring_len = 0;
}

/* --- the same for an ordinary user, whom the limits of sockets and memory hold for ---------------- */

static void queues_of_nobody(void)
{
    struct test_snapshot before = test_snapshot_take();
    test_a_sender_to_a_peer_that_never_reads_is_told_eagain_and_memory_is_bounded();
    test_a_caller_that_reads_no_answers_is_served_no_further_until_it_does();
    test_a_hundred_peers_that_do_not_read_cost_each_its_own_queue_alone();
    struct test_snapshot after = test_snapshot_take();
    CHECK(test_snapshot_same(&before, &after));
    test_snapshot_free(&before);
    test_snapshot_free(&after);
}

TEST(an_ordinary_users_queues_are_bounded_and_he_is_served_beside_those_who_do_not_read)
{
    test_run_as_nobody(queues_of_nobody);
    CHECK(true);
}
