/* The kernel's calls fail now and then, as they may: nothing is lost, and nothing happens twice.
 *
 * The seam is replaced at link time: this is kernel.c again, with another name for the calls that a
 * test wants to fail. */
#define _GNU_SOURCE
#include "uring/kernel.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define bm_kernel_new real_new
#define bm_kernel_sqe real_sqe
#define bm_kernel_room real_room
#define bm_kernel_submit real_submit
#define bm_kernel_poll real_poll
#define bm_kernel_wait real_wait
#define bm_kernel_eventfd real_eventfd
#define bm_kernel_buffers_add real_buffers_add
#include "uring/kernel.c"
#pragma GCC diagnostic pop
#undef bm_kernel_new
#undef bm_kernel_sqe
#undef bm_kernel_room
#undef bm_kernel_submit
#undef bm_kernel_poll
#undef bm_kernel_wait
#undef bm_kernel_eventfd
#undef bm_kernel_buffers_add

#include <beam/error.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/unit/uring/rig.h"
#include "uring/features.h"
#include "uring/reactor_inner.h"

static struct rig rig;

/* What is to fail. */
static int setup_error, eventfd_error, buffers_error;
static uint32_t features_missing;
static bool no_room;    /* no submission is to be had */
static int enter_error; /* of the next enters_failing enters */
static int enters_failing;
static unsigned takes_only;      /* submissions of the next enter, unless 0 */
static bool marking;             /* each enter leaves the mark of deferred work */
static struct test_random *luck; /* each enter fails by chance, and each submission */

static int enter_fails(void)
{
    static const int errors[] = {-EAGAIN, -EBUSY, -EINTR, -ENOMEM};
    if (enters_failing > 0) {
        enters_failing--;
        return enter_error;
    }
    return luck && test_random_below(luck, 3) == 0 ? errors[test_random_below(luck, 4)] : 0;
}

int bm_kernel_new(struct bm_account *account, unsigned sq_len, unsigned cq_len,
                  struct bm_kernel **ret, uint32_t *ret_features)
{
    if (setup_error)
        return setup_error;
    int r = real_new(account, sq_len, cq_len, ret, ret_features);
    if (r == 0)
        *ret_features &= ~features_missing;
    return r;
}

struct io_uring_sqe *bm_kernel_sqe(struct bm_kernel *kernel)
{
    if (no_room || (luck && test_random_below(luck, 4) == 0))
        return NULL;
    return real_sqe(kernel);
}

unsigned bm_kernel_room(const struct bm_kernel *kernel)
{
    return no_room || luck ? 0 : real_room(kernel);
}

/* The kernel puts deferred work in its list first and sets its mark then: work that is run in between
 * leaves a mark for nothing, until the next work is run. */
static void leave_mark(struct bm_kernel *kernel)
{
    _Atomic unsigned *flags = (_Atomic unsigned *)kernel->ring.sq.kflags;
    if (marking)
        atomic_fetch_or(flags, IORING_SQ_TASKRUN);
}

int bm_kernel_submit(struct bm_kernel *kernel)
{
    int r = enter_fails();
    return r < 0 ? r : real_submit(kernel);
}

/* The others stay in the queue, as where the kernel has no memory for them. */
static int poll_partly(struct bm_kernel *kernel)
{
    unsigned queued = kernel->ring.sq.sqe_tail - kernel->ring.sq.sqe_head,
             kept = queued > takes_only ? queued - takes_only : 0;
    takes_only = 0;
    kernel->ring.sq.sqe_tail -= kept;
    int r = real_poll(kernel);
    kernel->ring.sq.sqe_tail += kept;
    return r;
}

int bm_kernel_poll(struct bm_kernel *kernel)
{
    int r = enter_fails();
    if (r >= 0)
        r = takes_only > 0 ? poll_partly(kernel) : real_poll(kernel);
    leave_mark(kernel);
    return r;
}

int bm_kernel_wait(struct bm_kernel *kernel, uint64_t timeout_ns)
{
    int r = enter_fails();
    if (r >= 0)
        r = real_wait(kernel, timeout_ns);
    leave_mark(kernel);
    return r;
}

int bm_kernel_eventfd(struct bm_kernel *kernel, int fd)
{
    return eventfd_error ? eventfd_error : real_eventfd(kernel, fd);
}

int bm_kernel_buffers_add(struct bm_kernel *kernel, void *ring, uint32_t count, uint16_t group)
{
    return buffers_error ? buffers_error : real_buffers_add(kernel, ring, count, group);
}

TEST(kernel_enter_that_fails_loses_no_op)
{
    static const int errors[] = {-EAGAIN, -EBUSY, -EINTR, -ENOMEM};
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct probe nop;
        test_note("error %d", errors[i]);
        rig_open(&rig);
        probe_init(&nop, BM_OP_NOP);
        enter_error = errors[i];
        enters_failing = 5;
        CHECK_INT(probe_run(&rig, &nop), 0);
        CHECK_INT(enters_failing, 0);
        rig_close(&rig);
    }
}

/* One enter takes a pair, another cuts one in two. */
TEST(kernel_that_takes_a_part_of_a_batch_is_trusted_with_no_link_in_it)
{
    rig_open(&rig);
    for (unsigned takes = 0; takes <= 3; takes++) {
        struct probe first, second;
        test_note("the kernel takes %u at first", takes);
        probe_init(&first, BM_OP_NOP);
        first.op.linked = true;
        probe_init(&second, BM_OP_NOP);
        bm_op_start(rig.reactor, &first.op);
        bm_op_start(rig.reactor, &second.op);
        bm_reactor_turn(rig.reactor); /* the eventfd's read is out of the way from now on */
        rig_settle(&rig);
        CHECK(first.op.linked);
        bm_op_start(rig.reactor, &first.op);
        bm_op_start(rig.reactor, &second.op);
        takes_only = takes;
        rig_settle(&rig);
        CHECK_INT(first.op.linked, takes != 1);
        CHECK_INT(second.res, 0);
    }
    takes_only = 0;
    rig_close(&rig);
}

TEST(kernel_that_has_not_taken_a_quiet_send_has_not_sent_it)
{
    int fds[2];
    char byte;
    struct probe sending;
    struct iovec part = {(char[]){"x"}, 1};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    bm_reactor_turn(rig.reactor);
    probe_init(&sending, BM_OP_SENDMSG);
    sending.op.fd = fds[0];
    sending.op.addr = &msg;
    sending.op.len = 1;
    sending.op.quiet = true;
    bm_op_start(rig.reactor, &sending.op);
    enter_error = -EAGAIN;
    enters_failing = 3;
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(enters_failing, 0);
    CHECK_INT(recv(fds[1], &byte, 1, MSG_DONTWAIT), -1);
    CHECK_INT(sending.calls, 0);
    rig_settle(&rig);
    CHECK_INT(sending.calls, 1);
    CHECK_INT(sending.res, 1);
    CHECK_INT(recv(fds[1], &byte, 1, MSG_DONTWAIT), 1);
    rig_close(&rig);
    close_pair(fds);
}

/* As a host does it: a turn only when the descriptor says so. */
static void host_turns(const struct probe *until, int turns_max)
{
    struct pollfd poll_fd = {.fd = bm_reactor_fd(rig.reactor), .events = POLLIN};
    for (int i = 0; i < turns_max && until->calls == 0 && poll(&poll_fd, 1, 0) == 1; i++)
        bm_reactor_turn(rig.reactor);
}

TEST(kernel_that_takes_nothing_yet_has_an_embedded_reactor_call_its_host_again)
{
    static const int errors[] = {-EAGAIN, -EBUSY, -EINTR, -ENOMEM};
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct probe nop;
        test_note("error %d", errors[i]);
        rig_open_with(&rig, (struct bm_reactor_options){.embedded = true});
        bm_reactor_turn(rig.reactor);
        probe_init(&nop, BM_OP_NOP);
        bm_op_start(rig.reactor, &nop.op);
        enter_error = errors[i];
        enters_failing = 3;
        host_turns(&nop, 20);
        CHECK_INT(enters_failing, 0);
        CHECK_INT(nop.calls, 1);
        rig_close(&rig);
    }
}

TEST(kernel_that_takes_nothing_yet_is_asked_again_by_a_spinning_reactor)
{
    struct probe nop;
    rig_open_with(&rig, (struct bm_reactor_options){.spin = BM_SPIN_ALWAYS, .may_spin = true});
    bm_reactor_turn(rig.reactor);
    CHECK_INT(bm_reactor_look(rig.reactor), BM_LOOK_NOTHING);
    probe_init(&nop, BM_OP_NOP);
    bm_op_start(rig.reactor, &nop.op);
    enter_error = -EAGAIN;
    enters_failing = 1;
    bm_reactor_turn(rig.reactor);
    CHECK_INT(enters_failing, 0);
    CHECK_INT(bm_reactor_look(rig.reactor), BM_LOOK_TURN);
    rig_settle(&rig);
    rig_close(&rig);
}

TEST(kernel_without_room_lets_ops_wait_and_closes_at_once)
{
    struct probe nop;
    rig_open(&rig);
    bm_reactor_turn(rig.reactor);
    probe_init(&nop, BM_OP_NOP);
    no_room = true;
    bm_op_start(rig.reactor, &nop.op);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), number = fd;
    bm_reactor_close_fd(rig.reactor, &fd);
    CHECK_INT(fd, -1);
    CHECK_INT(fcntl(number, F_GETFD), -1);
    for (int i = 0; i < 10; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(nop.calls, 0);
    CHECK_INT(nop.op.state, BM_OP_QUEUED);
    no_room = false;
    rig_settle(&rig);
    CHECK_INT(nop.calls, 1);
    rig_close(&rig);
}

TEST(kernel_that_takes_no_doorbell_is_rung_through_the_eventfd)
{
    for (int how = 0; how < 2; how++) {
        struct rig sleepy;
        test_note("how %d", how);
        rig_open(&sleepy);
        bm_reactor_turn(sleepy.reactor);
        rig_open(&rig);
        atomic_store(&sleepy.reactor->sleeping, 1);
        no_room = how == 0;
        enter_error = -EAGAIN;
        enters_failing = how == 1;
        bm_reactor_wake(sleepy.reactor);
        no_room = false;
        for (int i = 0; i < 3; i++)
            bm_reactor_turn(sleepy.reactor);
        CHECK_UINT(bm_reactor_stats(sleepy.reactor)->wakes_taken, 1);
        CHECK_UINT(bm_reactor_stats(rig.reactor)->wakes_sent, 1);
        rig_close(&rig);
        rig_close(&sleepy);
    }
}

TEST(kernel_that_refuses_a_part_of_a_reactor_leaves_nothing_behind)
{
    struct bm_reactor_options options = {.embedded = true};
    struct bm_reactor *reactor = NULL;
    struct bm_buffers *buffers = NULL;
    eventfd_error = -EBUSY;
    CHECK_INT(bm_reactor_new(&options, &reactor), -EBUSY);
    eventfd_error = 0;
    setup_error = -EPERM;
    CHECK_INT(bm_reactor_new(&options, &reactor), -BEAM_ENO_IO_URING);
    CHECK(bm_features_why()[0] != '\0');
    setup_error = -ENOMEM;
    CHECK_INT(bm_reactor_new(&options, &reactor), -ENOMEM);
    setup_error = 0;
    static const uint32_t needed[] = {IORING_FEAT_NODROP, IORING_FEAT_EXT_ARG};
    for (int i = 0; i < 2; i++) {
        features_missing = needed[i];
        CHECK_INT(bm_reactor_new(&options, &reactor), -BEAM_ENO_IO_URING);
    }
    features_missing = 0;
    CHECK_PTR(reactor, NULL);
    rig_open(&rig);
    buffers_error = -EINVAL;
    CHECK_INT(bm_buffers_new(rig.reactor, 1, 64, 4, &buffers), -EINVAL);
    buffers_error = 0;
    CHECK_PTR(buffers, NULL);
    rig_close(&rig);
}

/* msync(2) says whether there is a page. */
static bool is_mapped(const void *at)
{
    uintptr_t page = (uintptr_t)at & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);
    return msync((void *)page, 1, MS_ASYNC) == 0;
}

TEST(kernel_rings_are_not_there_in_a_child)
{
    rig_open(&rig);
    const struct io_uring *ring = &rig.reactor->kernel->ring;
    CHECK(is_mapped(ring->sq.khead) && is_mapped(ring->sq.sqes));
    int status;
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0)
        _exit(is_mapped(ring->sq.khead) || is_mapped(ring->sq.sqes));
    REQUIRE_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    rig_close(&rig);
}

/* An echo over a socket pair, byte by byte, while every third call fails. */
enum { BYTES = 2000 };

struct side {
    struct bm_op recv_op, send_op;
    unsigned char in, out;
    int received, sent, wrong;
    bool first;
};

static struct side sides[2];

static void received(struct bm_op *op, int res, uint32_t flags)
{
    struct side *side = bm_container_of(op, struct side, recv_op);
    (void)flags;
    if (res == -ECANCELED)
        return;
    side->wrong += res != 1 || side->in != (unsigned char)side->received;
    side->received++;
    if (side->first && side->received == BYTES) {
        bm_reactor_stop(rig.reactor);
        return;
    }
    side->out = side->first ? (unsigned char)side->received : side->in;
    side->wrong += !bm_op_idle(&side->send_op);
    bm_op_start(rig.reactor, &side->send_op);
    bm_op_start(rig.reactor, &side->recv_op);
}

static void sent(struct bm_op *op, int res, uint32_t flags)
{
    struct side *side = bm_container_of(op, struct side, send_op);
    (void)flags;
    side->sent++;
    side->wrong += res != 1;
}

TEST(kernel_that_fails_every_third_call_still_carries_an_echo)
{
    for (int round = 0; round < 5; round++) {
        struct test_random random = test_random(0);
        int fds[2];
        socket_pair(SOCK_STREAM, fds);
        rig_open(&rig);
        for (int i = 0; i < 2; i++) {
            sides[i] = (struct side){.first = i == 0};
            bm_op_init(&sides[i].recv_op, BM_OP_RECV, received);
            sides[i].recv_op.fd = fds[i];
            sides[i].recv_op.addr = &sides[i].in;
            sides[i].recv_op.len = 1;
            bm_op_init(&sides[i].send_op, BM_OP_SEND, sent);
            sides[i].send_op.fd = fds[i];
            sides[i].send_op.addr = &sides[i].out;
            sides[i].send_op.len = 1;
            bm_op_start(rig.reactor, &sides[i].recv_op);
        }
        luck = &random;
        bm_op_start(rig.reactor, &sides[0].send_op);
        rig_run(&rig);
        rig_close(&rig);
        luck = NULL;
        CHECK_INT(sides[0].received, BYTES);
        CHECK_INT(sides[1].received, BYTES);
        CHECK_INT(sides[0].sent, BYTES);
        CHECK_INT(sides[1].sent, BYTES);
        CHECK_INT(sides[0].wrong + sides[1].wrong, 0);
        close_pair(fds);
    }
}

/* --- a mark without work ------------------------------------------------------------------------- */

TEST(kernel_mark_without_work_does_not_hold_up_the_end_of_a_reactor)
{
    rig_open(&rig);
    marking = true;
    bm_reactor_turn(rig.reactor);
    rig_close(&rig);
    marking = false;
    CHECK(true);
}

static void stop_marked(struct bm_timer *timer)
{
    (void)timer;
    bm_reactor_stop(rig.reactor);
}

static void sleep_with_a_mark(enum bm_spin spin, uint64_t budget_ns)
{
    struct bm_timer timer;
    rig_open_with(&rig, (struct bm_reactor_options){.spin = spin, .may_spin = true});
    marking = true;
    bm_reactor_turn(rig.reactor);
    rig.reactor->spinner.wake_ns = 1;
    rig.reactor->spinner.budget_ns = budget_ns;
    uint64_t before = bm_reactor_stats(rig.reactor)->enters;
    bm_timer_init(&timer, stop_marked);
    bm_timer_arm(rig.reactor, &timer, bm_clock_now_ns() + 50 * BM_NS_PER_MS);
    rig_run(&rig);
    CHECK(bm_reactor_stats(rig.reactor)->sleeps > 0);
    CHECK(bm_reactor_stats(rig.reactor)->enters - before < 20);
    rig_close(&rig);
    marking = false;
}

TEST(kernel_mark_without_work_lets_a_reactor_sleep)
{
    sleep_with_a_mark(BM_SPIN_NEVER, 0);
    sleep_with_a_mark(BM_SPIN_ADAPTIVE, 0);
    sleep_with_a_mark(BM_SPIN_ADAPTIVE, 50 * BM_NS_PER_US);
}

/* Once the reactor sleeps, unless it never does. */
static void *send_to_sleeper(void *arg)
{
    while (!rig.reactor->spinner.always && !atomic_load(&rig.reactor->sleeping))
        sched_yield();
    CHECK_INT(send(*(int *)arg, "data", 4, 0), 4);
    return NULL;
}

TEST(kernel_mark_without_work_hides_no_work)
{
    static const enum bm_spin spins[] = {BM_SPIN_NEVER, BM_SPIN_ADAPTIVE, BM_SPIN_ALWAYS};
    for (size_t i = 0; i < 3; i++) {
        int fds[2];
        char text[4];
        pthread_t thread;
        struct probe probe;
        test_note("spin %d", spins[i]);
        socket_pair(SOCK_STREAM, fds);
        rig_open_with(&rig, (struct bm_reactor_options){.spin = spins[i], .may_spin = true});
        probe_init(&probe, BM_OP_RECV);
        probe.op.fd = fds[0];
        probe.op.addr = text;
        probe.op.len = sizeof(text);
        probe.rig = &rig;
        bm_op_start(rig.reactor, &probe.op);
        marking = true;
        bm_reactor_turn(rig.reactor);
        REQUIRE_INT(pthread_create(&thread, NULL, send_to_sleeper, &fds[1]), 0);
        rig_run(&rig);
        pthread_join(thread, NULL);
        CHECK_INT(probe.res, 4);
        marking = false;
        rig_close(&rig);
        close_pair(fds);
    }
}

TEST(kernel_mark_without_work_does_not_call_the_host_of_an_embedded_reactor)
{
    int fds[2];
    char text[4];
    struct probe probe;
    rig_open_with(&rig, (struct bm_reactor_options){.embedded = true});
    socket_pair(SOCK_STREAM, fds);
    probe_init(&probe, BM_OP_RECV);
    probe.op.fd = fds[0];
    probe.op.addr = text;
    probe.op.len = sizeof(text);
    bm_op_start(rig.reactor, &probe.op);
    struct pollfd pfd = {.fd = bm_reactor_fd(rig.reactor), .events = POLLIN};
    while (poll(&pfd, 1, 0) == 1)
        bm_reactor_turn(rig.reactor);
    marking = true;
    for (unsigned i = 0; i < 3; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(poll(&pfd, 1, 0), 0);
    /* And what comes then calls it. */
    CHECK_INT(send(fds[1], "data", 4, 0), 4);
    CHECK_INT(poll(&pfd, 1, 10000), 1);
    while (probe.calls == 0 && poll(&pfd, 1, 10000) == 1)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(probe.res, 4);
    marking = false;
    rig_close(&rig);
    close_pair(fds);
}
