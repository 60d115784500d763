/* Quiet sends: what the kernel says nothing of has gone, and whatever else became of one is told once. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/uring/rig.h"
#include "uring/completion.h"
#include "uring/kernel.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"

static struct rig rig;

#define TEXT_LEN 100
#define FDS_MAX 4
#define FDS_MANY 60

/* A packet of TEXT_LEN bytes, with the descriptors that it passes on. */
struct packet {
    struct probe probe;
    struct msghdr msg;
    struct iovec iov;
    _Alignas(8) char control[CMSG_SPACE(sizeof(int) * FDS_MANY)];
    char text[TEXT_LEN];
    int fds[FDS_MANY];
    int number;  /* its place among those that ended; from 1 */
    bool linked; /* closes_linked, as its callback saw it */
    struct packet *restart;
};

static int ended;

static void packet_done(struct bm_op *op, int res, uint32_t flags)
{
    struct packet *packet = bm_container_of(op, struct packet, probe.op);
    packet->number = ++ended;
    packet->linked = op->closes_linked;
    CHECK(bm_op_idle(op));
    if (packet->restart) {
        struct packet *next = packet->restart;
        packet->restart = NULL;
        bm_op_start(rig.reactor, &next->probe.op);
    }
    probe_done(op, res, flags);
}

static void packet_init(struct packet *packet, int fd)
{
    *packet = (struct packet){0};
    packet->iov = (struct iovec){packet->text, TEXT_LEN};
    packet->msg = (struct msghdr){.msg_iov = &packet->iov, .msg_iovlen = 1};
    bm_op_init(&packet->probe.op, BM_OP_SENDMSG, packet_done);
    packet->probe.op.fd = fd;
    packet->probe.op.addr = &packet->msg;
    packet->probe.op.len = TEXT_LEN;
    packet->probe.op.quiet = true;
}

/* count write ends of one pipe travel and are to be closed; returns the read end. */
static int packet_pass(struct packet *packet, unsigned count)
{
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    packet->fds[0] = fds[1];
    for (unsigned i = 1; i < count; i++)
        packet->fds[i] = fcntl(fds[1], F_DUPFD_CLOEXEC, 0);
    packet->msg.msg_control = packet->control;
    packet->msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&packet->msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(cmsg), packet->fds, sizeof(int) * count);
    packet->probe.op.close_fds = packet->fds;
    packet->probe.op.close_count = (uint16_t)count;
    return fds[0];
}

static void close_packet(struct packet *packet)
{
    for (unsigned i = 0; i < packet->probe.op.close_count; i++)
        close(packet->fds[i]);
}

static bool all_closed(int read_fd)
{
    struct pollfd poll_fd = {.fd = read_fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLHUP);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* Of what lies in the socket; with its descriptors, which are closed. */
static int receive(int fd)
{
    char text[TEXT_LEN];
    _Alignas(8) char control[CMSG_SPACE(sizeof(int) * FDS_MANY)];
    struct iovec iov = {text, sizeof(text)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    int n = (int)recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    for (size_t i = 0; cmsg && i < (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
        int got;
        memcpy(&got, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
        CHECK(is_open(got));
        close(got);
    }
    return n;
}

static int fill(int fd)
{
    char text[TEXT_LEN] = {0};
    int n = 0;
    while (send(fd, text, sizeof(text), MSG_DONTWAIT) == TEXT_LEN)
        n++;
    CHECK_INT(errno, EAGAIN);
    return n;
}

static int pair[2];

static void open_all(void)
{
    rig_open(&rig);
    socket_pair(SOCK_SEQPACKET, pair);
    ended = 0;
    bm_reactor_turn(rig.reactor); /* its own read of the eventfd is a submission too */
}

static void some_turns(void)
{
    for (int i = 0; i < 4; i++)
        bm_reactor_turn(rig.reactor);
}

static void close_all(void)
{
    rig_close(&rig);
    close_pair(pair);
}

TEST(quiet_send_that_went_costs_no_completion_and_is_told_in_the_next_turn)
{
    struct packet packet;
    open_all();
    struct bm_reactor_stats before = *bm_reactor_stats(rig.reactor);
    packet_init(&packet, pair[0]);
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 0);
    CHECK_INT(packet.probe.op.state, BM_OP_INFLIGHT);
    CHECK_INT(receive(pair[1]), TEXT_LEN); /* it has gone all the same */
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    CHECK(!bm_op_more(packet.probe.flags));
    CHECK_INT(bm_reactor_inflight(rig.reactor), 0);
    struct bm_reactor_stats after = *bm_reactor_stats(rig.reactor);
    CHECK_UINT(after.enters - before.enters, 1);
    CHECK_UINT(after.sqes - before.sqes, 1);
    CHECK_UINT(after.cqes - before.cqes, 0);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 1);
    close_all();
}

/* Runs until the packet has been told, and says how often the reactor slept meanwhile. */
static uint64_t run_and_count_sleeps(struct packet *packet)
{
    uint64_t sleeps = bm_reactor_stats(rig.reactor)->sleeps;
    packet->probe.rig = &rig;
    rig_run(&rig);
    packet->probe.rig = NULL;
    return bm_reactor_stats(rig.reactor)->sleeps - sleeps;
}

static void tick(struct bm_timer *timer)
{
    (void)timer;
}

/* Sent with nobody waiting: a timer is what ends the sleep. */
static uint64_t send_and_count_sleeps(struct packet *packet)
{
    struct bm_timer timer;
    packet_init(packet, pair[0]);
    bm_op_start(rig.reactor, &packet->probe.op);
    bm_timer_init(&timer, tick);
    bm_timer_arm(rig.reactor, &timer, bm_clock_now_ns() + BM_NS_PER_MS);
    uint64_t sleeps = run_and_count_sleeps(packet);
    bm_timer_cancel(rig.reactor, &timer);
    return sleeps;
}

TEST(quiet_send_wakes_nobody_and_is_told_when_something_else_comes)
{
    struct packet packet;
    open_all();
    CHECK(send_and_count_sleeps(&packet) > 0);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    close_all();
}

TEST(quiet_send_somebody_waits_for_is_told_at_once)
{
    struct packet packet;
    open_all();
    packet_init(&packet, pair[0]);
    bm_op_hurry(rig.reactor, &packet.probe.op); /* not started: nothing */
    CHECK_UINT(rig.reactor->hurried, 0);
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_op_hurry(rig.reactor, &packet.probe.op); /* in line */
    CHECK_INT(packet.probe.calls, 0);
    CHECK_UINT(run_and_count_sleeps(&packet), 0);
    CHECK_INT(packet.probe.res, TEXT_LEN);

    bm_op_start(rig.reactor, &packet.probe.op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.op.state, BM_OP_INFLIGHT);
    bm_op_hurry(rig.reactor, &packet.probe.op); /* gone */
    CHECK_INT(packet.probe.calls, 1);
    CHECK_UINT(run_and_count_sleeps(&packet), 0);
    CHECK_INT(packet.probe.calls, 2);

    CHECK(send_and_count_sleeps(&packet) > 0); /* afterwards the reactor sleeps again */
    close_all();
}

static struct packet awaited;

static void start_and_hurry(struct bm_task *task)
{
    (void)task;
    bm_op_start(rig.reactor, &awaited.probe.op);
    bm_op_hurry(rig.reactor, &awaited.probe.op);
    bm_op_hurry(rig.reactor, &awaited.probe.op);
}

TEST(quiet_send_somebody_waits_for_is_told_at_once_also_when_another_settles_meanwhile)
{
    struct packet before;
    struct bm_task task = {.fn = start_and_hurry};
    open_all();
    packet_init(&before, pair[0]);
    packet_init(&awaited, pair[0]);
    bm_op_start(rig.reactor, &before.probe.op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(before.probe.calls, 0); /* it has left, and nobody waits for it */
    bm_task_queue(rig.reactor, &task);
    CHECK_UINT(run_and_count_sleeps(&awaited), 0);
    CHECK_INT(before.probe.calls, 1);
    CHECK_INT(awaited.probe.res, TEXT_LEN);
    CHECK_UINT(rig.reactor->hurried, 0);
    close_all();
}

TEST(quiet_send_cancelled_in_line_is_not_sent)
{
    struct packet packet;
    open_all();
    uint64_t sqes = bm_reactor_stats(rig.reactor)->sqes;
    packet_init(&packet, pair[0]);
    int read_fd = packet_pass(&packet, 2);
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_op_cancel(rig.reactor, &packet.probe.op);
    rig_settle(&rig);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, -ECANCELED);
    CHECK(!packet.linked);
    CHECK(is_open(packet.fds[0]) && is_open(packet.fds[1]));
    CHECK_UINT(bm_reactor_stats(rig.reactor)->sqes, sqes);
    CHECK_INT(receive(pair[1]), -EAGAIN);
    close_packet(&packet);
    close(read_fd);
    close_all();
}

TEST(quiet_send_cancelled_after_it_left_has_its_true_result_at_once)
{
    struct packet packet;
    open_all();
    packet_init(&packet, pair[0]);
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_reactor_turn(rig.reactor);
    uint64_t sqes = bm_reactor_stats(rig.reactor)->sqes;
    bm_op_cancel(rig.reactor, &packet.probe.op);
    bm_op_cancel(rig.reactor, &packet.probe.op);
    CHECK_INT(packet.probe.calls, 0);
    CHECK_UINT(run_and_count_sleeps(&packet), 0);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->sqes, sqes); /* the kernel was not asked */
    CHECK_INT(receive(pair[1]), TEXT_LEN);
    close_all();
}

static struct packet leaving;
static void (*then)(struct bm_reactor *reactor, struct bm_op *op);

static void hurry(struct bm_reactor *reactor, struct bm_op *op)
{
    bm_op_hurry(reactor, op);
}

/* The last thing a turn does before it sleeps; giving an fd back makes the line leave at once. */
static void leave_then(struct bm_task *task)
{
    int fd = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    (void)task;
    bm_op_start(rig.reactor, &leaving.probe.op);
    bm_reactor_close_fd(rig.reactor, &fd);
    CHECK_INT(leaving.probe.op.state, BM_OP_INFLIGHT);
    then(rig.reactor, &leaving.probe.op);
    CHECK_INT(leaving.probe.calls, 0);
}

TEST(quiet_send_that_left_in_this_turn_is_told_before_the_reactor_sleeps)
{
    static void (*const ways[])(struct bm_reactor *, struct bm_op *) = {hurry, bm_op_cancel};
    for (int i = 0; i < 2; i++) {
        struct bm_task task = {.fn = leave_then};
        test_note("%s", i ? "cancelled" : "hurried");
        open_all();
        packet_init(&leaving, pair[0]);
        then = ways[i];
        bm_task_queue(rig.reactor, &task);
        CHECK_UINT(run_and_count_sleeps(&leaving), 0);
        CHECK_INT(leaving.probe.res, TEXT_LEN);
        close_all();
    }
}

TEST(quiet_send_to_a_full_socket_says_so_and_may_be_sent_the_ordinary_way)
{
    struct packet packet;
    open_all();
    int n = fill(pair[0]);
    packet_init(&packet, pair[0]);
    CHECK_INT(probe_run(&rig, &packet.probe), -EAGAIN); /* unasked: it is a completion */
    for (int i = 0; i < n; i++)
        CHECK_INT(receive(pair[1]), TEXT_LEN);
    CHECK_INT(receive(pair[1]), -EAGAIN);
    packet.probe.op.quiet = false;
    CHECK_INT(probe_run(&rig, &packet.probe), TEXT_LEN);
    CHECK_INT(receive(pair[1]), TEXT_LEN);
    close_all();
}

TEST(quiet_send_to_a_peer_that_is_gone_is_an_error)
{
    struct packet packet;
    open_all();
    close(pair[1]);
    packet_init(&packet, pair[0]);
    int read_fd = packet_pass(&packet, 1);
    CHECK_INT(probe_run(&rig, &packet.probe), -EPIPE);
    CHECK(is_open(packet.fds[0]));
    close_packet(&packet);
    close(read_fd);
    rig_close(&rig);
    close(pair[0]);
}

TEST(quiet_sends_of_one_turn_go_in_order_as_far_as_there_is_room)
{
    enum { MANY = 600 };
    static struct packet packets[MANY];
    open_all();
    fill(pair[0]);
    for (int i = 0; i < 20; i++)
        CHECK_INT(receive(pair[1]), TEXT_LEN); /* room for some */
    for (int i = 0; i < MANY; i++) {
        packet_init(&packets[i], pair[0]);
        packets[i].text[0] = (char)i;
        bm_op_start(rig.reactor, &packets[i].probe.op);
    }
    rig_settle(&rig);
    int went = 0, full = 0;
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(packets[i].probe.calls, 1);
        went += packets[i].probe.res == TEXT_LEN;
        full += packets[i].probe.res == -EAGAIN;
        CHECK(packets[i].probe.res == TEXT_LEN || full > 0 || i < went);
    }
    CHECK_INT(went + full, MANY);
    CHECK(went > 0);
    CHECK(full > 0);
    int came = 0, behind = 0;
    char text[TEXT_LEN];
    while (recv(pair[1], text, sizeof(text), MSG_DONTWAIT) == TEXT_LEN)
        came++;
    int room =
        fill(pair[0]); /* what an empty socket takes: all of it was ours and what filled it */
    for (int i = 0; i < MANY; i++)
        behind += packets[i].probe.res == TEXT_LEN && i >= went;
    CHECK_INT(came, room);
    CHECK_INT(behind, 0); /* no later one went where an earlier one did not */
    CHECK_INT(went, 20);
    close_all();
}

/* Receives that end all at once put so many completions in front of the one that says "full". */
static void fail_behind(int others)
{
    int silent[2];
    struct packet packet;
    struct probe *receives = calloc((size_t)others, sizeof(*receives));
    static char inbox[16];
    open_all();
    socket_pair(SOCK_STREAM, silent);
    for (int i = 0; i < others; i++) {
        probe_init(&receives[i], BM_OP_RECV);
        receives[i].op.fd = silent[0];
        receives[i].op.addr = inbox;
        receives[i].op.len = sizeof(inbox);
        bm_op_start(rig.reactor, &receives[i].op);
    }
    while (receives[others - 1].op.state != BM_OP_INFLIGHT)
        bm_reactor_turn(rig.reactor);
    bm_reactor_turn(rig.reactor);
    fill(pair[0]);
    close(silent[1]);
    do /* the kernel deals with some of them at a time */
        bm_kernel_poll(rig.reactor->kernel);
    while (bm_kernel_pending(rig.reactor->kernel) & BM_PENDING_TASKRUN);
    CHECK_UINT(bm_kernel_reapable(rig.reactor->kernel),
               others < (int)BM_CQ_LEN ? (unsigned)others : BM_CQ_LEN);
    CHECK_INT(bm_kernel_pending(rig.reactor->kernel) & BM_PENDING_OVERFLOW,
              others < (int)BM_CQ_LEN ? 0 : BM_PENDING_OVERFLOW);
    packet_init(&packet, pair[0]);
    int read_fd = packet_pass(&packet, 1);
    bm_op_start(rig.reactor, &packet.probe.op);
    rig_settle(&rig);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, -EAGAIN);
    CHECK(is_open(packet.fds[0]));
    int once = 0;
    for (int i = 0; i < others; i++)
        once += receives[i].calls == 1 && receives[i].res == 0;
    CHECK_INT(once, others);
    close_packet(&packet);
    close(read_fd);
    close(silent[0]);
    close_all();
    free(receives);
}

TEST(quiet_send_that_failed_is_not_called_sent_while_its_completion_stands_in_line)
{
    fail_behind(1000); /* more than a turn deals with */
}

TEST(quiet_send_that_failed_is_not_called_sent_while_its_completion_has_overflowed)
{
    fail_behind((int)BM_CQ_LEN + 2000);
}

static bool goes_round;

static void go_round(struct bm_op *op, int res, uint32_t flags)
{
    (void)res;
    (void)flags;
    if (goes_round)
        bm_op_start(rig.reactor, op);
}

static uint64_t slow_now(void *arg)
{
    static uint64_t now_ns = BM_NS_PER_S;
    (void)arg;
    return now_ns += 2 * BM_TURN_NS;
}

/* The turns are long, and none comes to the end of the completions. */
TEST(quiet_send_is_told_its_true_result_while_others_keep_the_reactor_busy)
{
    enum { BUSY = 1000, TURNS = 60 };
    static const struct bm_clock slow = {.now_ns = slow_now};
    static struct bm_op busy[BUSY];
    int full[2];
    struct packet went, failed;
    open_all();
    socket_pair(SOCK_SEQPACKET, full);
    fill(full[0]);
    goes_round = true;
    for (int i = 0; i < BUSY; i++) {
        bm_op_init(&busy[i], BM_OP_NOP, go_round);
        bm_op_start(rig.reactor, &busy[i]);
    }
    for (int i = 0; i < 10; i++)
        bm_reactor_turn(rig.reactor);
    packet_init(&went, pair[0]);
    packet_init(&failed, full[0]);
    bm_op_start(rig.reactor, &went.probe.op);
    bm_op_start(rig.reactor, &failed.probe.op);
    bm_clock_set(&slow);
    for (int i = 0; i < TURNS; i++) {
        bm_reactor_turn(rig.reactor);
        CHECK(bm_kernel_pending(rig.reactor->kernel) & BM_PENDING_CQE);
    }
    bm_clock_set(NULL);
    CHECK_INT(went.probe.calls, 1);
    CHECK_INT(went.probe.res, TEXT_LEN);
    CHECK_INT(failed.probe.calls, 1);
    CHECK_INT(failed.probe.res, -EAGAIN);
    goes_round = false;
    rig_settle(&rig);
    close_pair(full);
    close_all();
}

static struct rig sleepy;

/* A doorbell carries off what was started before it, in the middle of the turn. */
static void leave_and_fail(struct bm_op *op, int res, uint32_t flags)
{
    int fd = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    bm_op_start(rig.reactor, &leaving.probe.op);
    bm_reactor_close_fd(rig.reactor, &fd);
    bm_reactor_wake(sleepy.reactor);
    CHECK_UINT(bm_kernel_queued(rig.reactor->kernel), 0);
    CHECK(bm_kernel_pending(rig.reactor->kernel) & BM_PENDING_CQE);
    probe_done(op, res, flags);
}

TEST(quiet_send_that_failed_behind_the_last_look_of_its_turn_is_not_called_sent)
{
    struct probe nop;
    rig_open(&sleepy);
    open_all();
    fill(pair[0]);
    atomic_store(&sleepy.reactor->sleeping, 1);
    packet_init(&leaving, pair[0]);
    probe_init(&nop, BM_OP_NOP);
    nop.op.fn = leave_and_fail;
    bm_op_start(rig.reactor, &nop.op);
    rig_settle(&rig);
    CHECK_INT(nop.calls, 1);
    CHECK_INT(leaving.probe.calls, 1);
    CHECK_INT(leaving.probe.res, -EAGAIN);
    rig_close(&sleepy);
    close_all();
}

/* --- what it closes -------------------------------------------------------------------------- */

static void check_closed(struct packet *packet, int read_fd)
{
    /* Where the kernel is not asked to close (a sanitizer would not see it), it is ours to do. */
    CHECK_INT(packet->linked, BM_KERNEL_CLOSES);
    if (!packet->linked)
        close_packet(packet);
    for (unsigned i = 0; i < packet->probe.op.close_count; i++)
        CHECK(!is_open(packet->fds[i]));
    CHECK_INT(receive(pair[1]), TEXT_LEN); /* and closes what came */
    CHECK(all_closed(read_fd));
    close(read_fd);
}

TEST(quiet_send_closes_what_it_passed_on_once_it_has_sent)
{
    for (unsigned count = 1; count <= FDS_MAX; count++) {
        struct packet packet;
        test_note("%u fds", count);
        open_all();
        struct bm_reactor_stats before = *bm_reactor_stats(rig.reactor);
        packet_init(&packet, pair[0]);
        int read_fd = packet_pass(&packet, count);
        bm_op_start(rig.reactor, &packet.probe.op);
        bm_reactor_turn(rig.reactor);
        bm_reactor_turn(rig.reactor);
        CHECK_INT(packet.probe.calls, 1);
        CHECK_INT(packet.probe.res, TEXT_LEN);
        struct bm_reactor_stats after = *bm_reactor_stats(rig.reactor);
        CHECK_UINT(after.cqes - before.cqes, 0);
        CHECK_UINT(after.sqes - before.sqes, 1 + (BM_KERNEL_CLOSES ? count : 0));
        /* Each link is a round of the kernel's own; an enter runs the first ones. */
        CHECK(after.enters - before.enters == 1 || count > 2);
        some_turns();
        check_closed(&packet, read_fd);
        close_all();
    }
}

TEST(quiet_send_that_failed_closes_nothing)
{
    struct packet packet;
    open_all();
    int n = fill(pair[0]);
    packet_init(&packet, pair[0]);
    int read_fd = packet_pass(&packet, 3);
    CHECK_INT(probe_run(&rig, &packet.probe), -EAGAIN);
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(rig.reactor);
    for (int i = 0; i < 3; i++)
        CHECK(is_open(packet.fds[i]));
    for (int i = 0; i < n; i++)
        CHECK_INT(receive(pair[1]), TEXT_LEN);
    /* Sent again the ordinary way, it closes them: once. */
    packet.probe.op.quiet = false;
    CHECK_INT(probe_run(&rig, &packet.probe), TEXT_LEN);
    some_turns();
    check_closed(&packet, read_fd);
    close_all();
}

TEST(send_that_waits_for_room_closes_only_when_it_has_gone)
{
    struct packet packet;
    open_all();
    int n = fill(pair[0]);
    packet_init(&packet, pair[0]);
    packet.probe.op.quiet = false;
    int read_fd = packet_pass(&packet, 2);
    bm_op_start(rig.reactor, &packet.probe.op);
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 0);
    CHECK(is_open(packet.fds[0]) && is_open(packet.fds[1]));
    for (int i = 0; i < n; i++)
        CHECK_INT(receive(pair[1]), TEXT_LEN);
    packet.probe.rig = &rig;
    rig_run(&rig);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    some_turns();
    check_closed(&packet, read_fd);
    close_all();
}

TEST(send_that_waits_for_room_and_is_cancelled_closes_nothing)
{
    struct packet packet;
    open_all();
    fill(pair[0]);
    packet_init(&packet, pair[0]);
    packet.probe.op.quiet = false;
    int read_fd = packet_pass(&packet, 2);
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_reactor_turn(rig.reactor);
    bm_op_cancel(rig.reactor, &packet.probe.op);
    rig_settle(&rig);
    CHECK_INT(packet.probe.res, -ECANCELED);
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(rig.reactor);
    CHECK(is_open(packet.fds[0]) && is_open(packet.fds[1]));
    close_packet(&packet);
    close(read_fd);
    close_all();
}

TEST(closes_go_on_whatever_became_of_the_one_before)
{
    struct packet packet;
    open_all();
    packet_init(&packet, pair[0]);
    int read_fd = packet_pass(&packet, 3);
    int second = packet.fds[1];
    packet.fds[1] = 1 << 20; /* no such descriptor */
    CHECK(!is_open(packet.fds[1]));
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_reactor_turn(rig.reactor);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    some_turns();
    close(second);
    check_closed(&packet, read_fd);
    close_all();
}

TEST(send_and_its_closes_are_submitted_together)
{
    /* Each count of submissions in front of them, up to a full queue. */
    static struct probe nops[BM_SQ_LEN];
    for (unsigned in_front = BM_SQ_LEN - FDS_MAX - 1; in_front <= BM_SQ_LEN; in_front++) {
        struct packet packet;
        test_note("%u in front", in_front);
        open_all();
        packet_init(&packet, pair[0]);
        int read_fd = packet_pass(&packet, FDS_MAX);
        for (unsigned i = 0; i < in_front; i++) {
            probe_init(&nops[i], BM_OP_NOP);
            bm_op_start(rig.reactor, &nops[i].op);
        }
        bm_op_start(rig.reactor, &packet.probe.op);
        rig_settle(&rig);
        CHECK_INT(packet.probe.calls, 1);
        CHECK_INT(packet.probe.res, TEXT_LEN);
        some_turns();
        check_closed(&packet, read_fd);
        close_all();
    }
}

/* --- with a hook ----------------------------------------------------------------------------- */

struct script {
    int res; /* 0: as it was */
    int hold;
    int asked;
};

static enum bm_completion_verdict play(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    struct script *script = arg;
    (void)op;
    (void)flags;
    script->asked++;
    if (script->hold > 0) {
        script->hold--;
        return BM_COMPLETION_HOLD;
    }
    if (script->res)
        *res = script->res;
    return BM_COMPLETION_PASS;
}

static void hook(struct script *script)
{
    bm_completion_hook = (struct bm_completion_hook){script ? play : NULL, script};
}

TEST(quiet_send_that_a_hook_calls_failed_has_closed_nothing)
{
    struct packet packet;
    struct script script = {.res = -ECONNRESET};
    open_all();
    hook(&script);
    packet_init(&packet, pair[0]);
    int read_fd = packet_pass(&packet, 2);
    bm_op_start(rig.reactor, &packet.probe.op);
    rig_settle(&rig);
    hook(NULL);
    CHECK_INT(script.asked, 1);
    CHECK_INT(packet.probe.res, -ECONNRESET);
    CHECK(!packet.linked);
    CHECK(is_open(packet.fds[0]) && is_open(packet.fds[1]));
    CHECK_INT(receive(pair[1]), TEXT_LEN);
    close_packet(&packet);
    CHECK(all_closed(read_fd));
    close(read_fd);
    close_all();
}

TEST(quiet_send_that_a_hook_holds_back_comes_once_and_later)
{
    struct packet packet;
    struct script script = {.hold = 3};
    open_all();
    hook(&script);
    packet_init(&packet, pair[0]);
    bm_op_start(rig.reactor, &packet.probe.op);
    for (int i = 0; i < 4; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 0);
    CHECK_INT(bm_reactor_inflight(rig.reactor), 1);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    CHECK_INT(script.asked, 4);
    hook(NULL);
    close_all();
}

TEST(quiet_send_whose_failure_a_hook_holds_back_has_not_gone)
{
    struct packet packet;
    struct script script = {.hold = 3};
    open_all();
    fill(pair[0]);
    hook(&script);
    packet_init(&packet, pair[0]);
    bm_op_start(rig.reactor, &packet.probe.op);
    rig_settle(&rig);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, -EAGAIN);
    CHECK_INT(script.asked, 4);
    hook(NULL);
    close_all();
}

/* --- callbacks and ends ---------------------------------------------------------------------- */

TEST(quiet_send_may_be_started_again_in_a_callback)
{
    struct packet packets[2];
    open_all();
    packet_init(&packets[0], pair[0]);
    packet_init(&packets[1], pair[0]);
    packets[0].restart = &packets[0];
    bm_op_start(rig.reactor, &packets[0].probe.op);
    bm_op_start(rig.reactor, &packets[1].probe.op);
    rig_settle(&rig);
    CHECK_INT(packets[0].probe.calls, 2);
    CHECK_INT(packets[1].probe.calls, 1);
    CHECK_INT(packets[1].number, 2); /* what was started then waits for the next turn */
    for (int i = 0; i < 3; i++)
        CHECK_INT(receive(pair[1]), TEXT_LEN);
    CHECK_INT(receive(pair[1]), -EAGAIN);
    close_all();
}

static void free_packet(struct bm_op *op, int res, uint32_t flags)
{
    (void)flags;
    CHECK_INT(res, TEXT_LEN);
    free(bm_container_of(op, struct packet, probe.op));
}

TEST(quiet_send_may_be_freed_in_its_callback)
{
    open_all();
    for (int i = 0; i < 10; i++) {
        struct packet *packet = malloc(sizeof(*packet));
        packet_init(packet, pair[0]);
        packet->probe.op.fn = free_packet;
        bm_op_start(rig.reactor, &packet->probe.op);
    }
    rig_settle(&rig);
    close_all();
}

TEST(quiet_sends_under_way_end_with_the_reactor)
{
    /* The first has left; the second, started after it, has not: it does not leave any more. */
    struct packet gone, waiting;
    open_all();
    packet_init(&gone, pair[0]);
    packet_init(&waiting, pair[0]);
    int read_fd = packet_pass(&gone, 2), other_fd = packet_pass(&waiting, 1);
    bm_op_start(rig.reactor, &gone.probe.op);
    bm_reactor_turn(rig.reactor);
    bm_op_start(rig.reactor, &waiting.probe.op);
    CHECK_INT(gone.probe.calls, 0);
    rig_close(&rig);
    CHECK_INT(gone.probe.calls, 1);
    CHECK_INT(gone.probe.res, TEXT_LEN);
    CHECK_INT(waiting.probe.calls, 1);
    CHECK_INT(waiting.probe.res, -ECANCELED);
    CHECK(is_open(waiting.fds[0]));
    close_packet(&waiting);
    CHECK(all_closed(other_fd));
    close(other_fd);
    check_closed(&gone, read_fd);
    CHECK_INT(receive(pair[1]), -EAGAIN);
    close_pair(pair);
}

TEST(quiet_send_under_way_closes_all_it_passed_on_before_the_reactor_ends)
{
    struct packet packet;
    open_all();
    packet_init(&packet, pair[0]);
    int read_fd = packet_pass(&packet, FDS_MANY); /* the kernel closes a few in each enter */
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_reactor_turn(rig.reactor);
    rig_close(&rig);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    check_closed(&packet, read_fd);
    close_pair(pair);
}

TEST(quiet_send_to_a_full_socket_ends_with_the_reactor_unsent)
{
    struct packet packet;
    open_all();
    fill(pair[0]);
    packet_init(&packet, pair[0]);
    bm_op_start(rig.reactor, &packet.probe.op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 0);
    rig_close(&rig);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, -EAGAIN);
    close_pair(pair);
}

TEST(quiet_send_somebody_waits_for_calls_the_host_of_an_embedded_reactor)
{
    struct packet packet;
    rig_open_with(&rig, (struct bm_reactor_options){.embedded = true});
    socket_pair(SOCK_SEQPACKET, pair);
    struct pollfd poll_fd = {.fd = bm_reactor_fd(rig.reactor), .events = POLLIN};
    bm_reactor_turn(rig.reactor);
    packet_init(&packet, pair[0]);
    bm_op_start(rig.reactor, &packet.probe.op);
    CHECK_INT(poll(&poll_fd, 1, 0), 1);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(receive(pair[1]), TEXT_LEN);
    CHECK_INT(poll(&poll_fd, 1, 0), 0); /* nobody waits for it */
    CHECK_INT(packet.probe.calls, 0);
    bm_op_hurry(rig.reactor, &packet.probe.op);
    CHECK_INT(poll(&poll_fd, 1, 0), 1);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(packet.probe.calls, 1);
    CHECK_INT(packet.probe.res, TEXT_LEN);
    CHECK_INT(poll(&poll_fd, 1, 0), 0);
    close_all();
}
