/* Quiet sends, and the descriptors that are closed behind them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>

#include "tests/unit/uring/rig.h"
#include "uring/kernel.h"
#include "uring/reactor_inner.h"

static struct rig rig;

struct letter {
    struct probe probe;
    struct iovec part;
    struct msghdr msg;
    int fds[2];
};

static void letter_init(struct letter *letter, int fd, const char *text)
{
    *letter = (struct letter){0};
    probe_init(&letter->probe, BM_OP_SENDMSG);
    letter->part = (struct iovec){(char *)text, strlen(text)};
    letter->msg = (struct msghdr){.msg_iov = &letter->part, .msg_iovlen = 1};
    letter->probe.op.fd = fd;
    letter->probe.op.addr = &letter->msg;
    letter->probe.op.len = (uint32_t)strlen(text);
    letter->probe.op.quiet = true;
}

static void letter_encloses_two_fds(struct letter *letter)
{
    for (int i = 0; i < 2; i++)
        letter->fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    letter->probe.op.close_fds = letter->fds;
    letter->probe.op.close_count = 2;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void post(struct letter *letter)
{
    bm_op_start(rig.reactor, &letter->probe.op);
}

static void fill_socket(int fd)
{
    while (send(fd, "full", 4, MSG_DONTWAIT) == 4)
        ;
}

TEST(quiet_send_that_ends_well_posts_no_completion)
{
    int fds[2];
    char got[16];
    struct letter letter;
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    bm_reactor_turn(rig.reactor);
    letter_init(&letter, fds[0], "quiet");
    uint64_t cqes = bm_reactor_stats(rig.reactor)->cqes;
    for (int i = 1; i <= 10; i++) {
        post(&letter);
        CHECK_INT(letter.probe.calls, i - 1);
        bm_reactor_turn(rig.reactor);
        CHECK_UINT(bm_kernel_pending(rig.reactor->kernel), 0);
        CHECK_INT(recv(fds[1], got, sizeof(got), MSG_DONTWAIT), 5);
        bm_reactor_turn(rig.reactor);
        CHECK_INT(letter.probe.calls, i);
        CHECK_INT(letter.probe.res, 5);
        CHECK(bm_op_idle(&letter.probe.op));
    }
    CHECK_UINT(bm_reactor_stats(rig.reactor)->cqes, cqes);
    rig_close(&rig);
    close_pair(fds);
}

TEST(quiet_send_without_room_or_peer_says_so)
{
    int fds[2];
    struct letter letter;
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    fill_socket(fds[0]);
    letter_init(&letter, fds[0], "quiet");
    post(&letter);
    rig_settle(&rig);
    CHECK_INT(letter.probe.res, -EAGAIN);
    close(fds[1]);
    post(&letter);
    rig_settle(&rig);
    CHECK(letter.probe.res == -EPIPE || letter.probe.res == -ECONNRESET);
    CHECK_INT(letter.probe.calls, 2);
    rig_close(&rig);
    close(fds[0]);
}

TEST(quiet_send_may_be_hurried_or_cancelled_in_every_state)
{
    for (int turns = 0; turns < 3; turns++) {
        for (int cancel = 0; cancel < 2; cancel++) {
            int fds[2];
            struct letter letter;
            test_note("%s after %d turns", cancel ? "cancel" : "hurry", turns);
            socket_pair(SOCK_SEQPACKET, fds);
            rig_open(&rig);
            letter_init(&letter, fds[0], "quiet");
            post(&letter);
            for (int i = 0; i < turns; i++)
                bm_reactor_turn(rig.reactor);
            if (cancel)
                bm_op_cancel(rig.reactor, &letter.probe.op);
            else
                bm_op_hurry(rig.reactor, &letter.probe.op);
            if (letter.probe.calls == 0) { /* the reactor would go to sleep otherwise */
                letter.probe.rig = &rig;
                rig_run(&rig);
                CHECK_UINT(bm_reactor_stats(rig.reactor)->sleeps, 0);
            }
            CHECK_INT(letter.probe.calls, 1);
            CHECK_INT(letter.probe.res, cancel && turns == 0 ? -ECANCELED : 5);
            rig_close(&rig);
            close_pair(fds);
        }
    }
}

/* Submitted in the middle of a turn, or not yet although it is in the queue: no news is no good news. */
static struct letter urgent;
static struct rig sleepy;
static int spare;
static bool with_a_doorbell;

static void post_in_the_middle(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)res;
    (void)flags;
    post(&urgent);
    bm_reactor_close_fd(rig.reactor, &spare); /* moves the line into the queue */
    if (with_a_doorbell)
        bm_reactor_wake(sleepy.reactor); /* submits the queue */
}

TEST(quiet_send_is_not_taken_for_done_before_it_was_looked_at)
{
    for (int doorbell = 0; doorbell < 2; doorbell++) {
        int fds[2];
        struct bm_op nop;
        test_note("doorbell %d", doorbell);
        socket_pair(SOCK_SEQPACKET, fds);
        fill_socket(fds[0]);
        spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        rig_open(&sleepy);
        rig_open(&rig);
        atomic_store(&sleepy.reactor->sleeping, 1);
        with_a_doorbell = doorbell;
        letter_init(&urgent, fds[0], "quiet");
        bm_op_init(&nop, BM_OP_NOP, post_in_the_middle);
        bm_op_start(rig.reactor, &nop);
        rig_settle(&rig);
        CHECK_INT(urgent.probe.calls, 1);
        CHECK_INT(urgent.probe.res, -EAGAIN);
        rig_close(&rig);
        rig_close(&sleepy);
        close_pair(fds);
    }
}

TEST(quiet_send_in_flight_at_the_end_of_the_reactor_is_called_back)
{
    for (int turns = 0; turns < 2; turns++) {
        int fds[2];
        struct letter letter;
        test_note("after %d turns", turns);
        socket_pair(SOCK_SEQPACKET, fds);
        rig_open(&rig);
        letter_init(&letter, fds[0], "quiet");
        post(&letter);
        for (int i = 0; i < turns; i++)
            bm_reactor_turn(rig.reactor);
        rig_close(&rig);
        CHECK_INT(letter.probe.calls, 1);
        CHECK_INT(letter.probe.res, turns == 0 ? -ECANCELED : 5);
        close_pair(fds);
    }
}

TEST(enclosed_fds_are_closed_behind_a_send_that_went)
{
    int fds[2];
    struct letter letter;
    socket_pair(SOCK_SEQPACKET, fds);
    for (int quiet = 0; quiet < 2; quiet++) {
        test_note("quiet %d", quiet);
        rig_open(&rig);
        letter_init(&letter, fds[0], "with fds");
        letter.probe.op.quiet = quiet;
        letter_encloses_two_fds(&letter);
        post(&letter);
        rig_settle(&rig);
        CHECK_INT(letter.probe.res, 8);
        CHECK(letter.probe.op.closes_linked);
        rig_close(&rig);
        CHECK(!is_open(letter.fds[0]));
        CHECK(!is_open(letter.fds[1]));
    }
    close_pair(fds);
}

TEST(enclosed_fds_stay_open_when_the_send_did_not_go)
{
    int fds[2];
    struct letter letter;
    socket_pair(SOCK_SEQPACKET, fds);
    fill_socket(fds[0]);
    rig_open(&rig);
    letter_init(&letter, fds[0], "with fds");
    letter_encloses_two_fds(&letter);
    post(&letter);
    rig_settle(&rig);
    CHECK_INT(letter.probe.res, -EAGAIN);
    for (int i = 0; i < 5; i++)
        bm_reactor_turn(rig.reactor);
    for (int i = 0; i < 2; i++) {
        CHECK(is_open(letter.fds[i]));
        close(letter.fds[i]);
    }
    rig_close(&rig);
    close_pair(fds);
}

TEST(enclosed_fds_are_closed_though_the_reactor_ends_at_once)
{
    for (int round = 0; round < 50; round++) {
        int fds[2];
        struct letter letter;
        socket_pair(SOCK_SEQPACKET, fds);
        rig_open(&rig);
        letter_init(&letter, fds[0], "with fds");
        letter_encloses_two_fds(&letter);
        post(&letter);
        bm_reactor_once(rig.reactor);          /* in the submission queue */
        bm_kernel_submit(rig.reactor->kernel); /* the closes wait as deferred work */
        rig_close(&rig);
        CHECK_INT(letter.probe.res, 8);
        for (int i = 0; i < 2; i++)
            if (letter.probe.op.closes_linked)
                CHECK(!is_open(letter.fds[i]));
        close_pair(fds);
    }
}

TEST(enclosed_fds_in_a_crowd_that_does_not_fit_the_queue)
{
    enum { LETTERS = 300 };
    static struct letter letters[LETTERS];
    int fds[2];
    char got[16];
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    for (int i = 0; i < LETTERS; i++) {
        letter_init(&letters[i], fds[0], "with fds");
        letters[i].probe.op.quiet = false;
        letter_encloses_two_fds(&letters[i]);
        post(&letters[i]);
    }
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (bm_reactor_inflight(rig.reactor) > 0 && bm_clock_now_ns() < end_ns) {
        bm_reactor_turn(rig.reactor);
        while (recv(fds[1], got, sizeof(got), MSG_DONTWAIT) > 0)
            ;
    }
    for (int i = 0; i < LETTERS; i++) {
        CHECK_INT(letters[i].probe.calls, 1);
        CHECK_INT(letters[i].probe.res, 8);
        CHECK(letters[i].probe.op.closes_linked);
    }
    rig_close(&rig);
    for (int i = 0; i < LETTERS; i++)
        CHECK(!is_open(letters[i].fds[1]));
    close_pair(fds);
}
