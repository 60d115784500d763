/* The loop itself: tasks, sources, stop, descriptors, fork, signals, memory. */
#define _GNU_SOURCE
#include <beam/error.h>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "tests/unit/uring/rig.h"
#include "uring/forked.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"

static struct rig rig;

struct job {
    struct bm_task task;
    int ran;
    int again; /* queues itself so often */
};

static void work(struct bm_task *task)
{
    struct job *job = bm_container_of(task, struct job, task);
    job->ran++;
    if (job->again-- > 0)
        bm_task_queue(rig.reactor, task);
}

TEST(task_runs_once_however_often_it_is_queued)
{
    struct job job = {.task.fn = work};
    rig_open(&rig);
    bm_task_queue(rig.reactor, &job.task);
    bm_task_queue(rig.reactor, &job.task);
    CHECK_INT(job.ran, 0);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(job.ran, 1);
    bm_task_queue(rig.reactor, &job.task);
    bm_task_cancel(&job.task);
    bm_task_cancel(&job.task);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(job.ran, 1);
    rig_close(&rig);
}

TEST(task_that_queues_itself_does_not_hold_the_turn)
{
    struct job job = {.task.fn = work, .again = INT32_MAX};
    rig_open(&rig);
    bm_task_queue(rig.reactor, &job.task);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(job.ran, 2 * BM_TURN_TASKS); /* before and after the completions */
    bm_task_cancel(&job.task);
    rig_close(&rig);
}

static struct job chained = {.task.fn = work};

static void nop_queues_task(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)res;
    (void)flags;
    bm_task_queue(rig.reactor, &chained.task);
}

TEST(task_made_ready_by_a_completion_runs_in_the_same_turn)
{
    struct bm_op op;
    rig_open(&rig);
    chained.ran = 0;
    bm_op_init(&op, BM_OP_NOP, nop_queues_task);
    bm_op_start(rig.reactor, &op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(chained.ran, 0);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(chained.ran, 1);
    rig_close(&rig);
}

struct well {
    struct bm_source source;
    int left;
    int drains;
    struct well *removes; /* another source to remove while draining */
};

static bool well_ready(struct bm_source *source)
{
    return bm_container_of(source, struct well, source)->left > 0;
}

static unsigned well_drain(struct bm_source *source, unsigned budget)
{
    struct well *well = bm_container_of(source, struct well, source);
    unsigned n = well->left < (int)budget ? (unsigned)well->left : budget;
    well->left -= (int)n;
    well->drains++;
    if (well->removes)
        bm_source_remove(rig.reactor, &well->removes->source);
    return n;
}

#define WELL(n)                                                                                    \
    (struct well)                                                                                  \
    {                                                                                              \
        .source = {.ready = well_ready, .drain = well_drain}, .left = (n)                          \
    }

TEST(source_is_drained_within_its_budget_and_all_of_them_in_turn)
{
    struct well a = WELL(1000), b = WELL(10);
    rig_open(&rig);
    bm_source_add(rig.reactor, &a.source);
    bm_source_add(rig.reactor, &b.source);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(a.left, 1000 - (int)BM_TURN_MESSAGES);
    CHECK_INT(b.left, 0);
    uint64_t sleeps = bm_reactor_stats(rig.reactor)->sleeps;
    while (a.left > 0)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(a.drains, 1000 / BM_TURN_MESSAGES + 1);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->sleeps, sleeps);
    bm_source_remove(rig.reactor, &a.source);
    bm_source_remove(rig.reactor, &b.source);
    rig_close(&rig);
}

TEST(source_may_be_removed_while_sources_are_drained)
{
    for (int which = 0; which < 3; which++) {
        struct well wells[3] = {WELL(1), WELL(1), WELL(1)};
        test_note("which %d", which);
        rig_open(&rig);
        for (int i = 0; i < 3; i++)
            bm_source_add(rig.reactor, &wells[i].source);
        wells[1].removes = &wells[which];
        bm_reactor_turn(rig.reactor);
        CHECK_INT(wells[0].drains, 1);
        CHECK_INT(wells[1].drains, 1);
        CHECK_INT(wells[2].drains, which == 2 ? 0 : 1);
        for (int i = 0; i < 3; i++)
            bm_source_remove(rig.reactor, &wells[i].source);
        rig_close(&rig);
    }
}

static struct well *filled; /* by each completion */
static int completions, latest_left;

static void nop_yields(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)res;
    (void)flags;
    completions++;
    latest_left = latest_left > filled->left ? latest_left : filled->left;
    filled->left += 200;
    bm_reactor_yield(rig.reactor);
}

/* The first turn does not know it yet; from then on each brings what the one before was served. */
TEST(completions_wait_behind_one_that_yields_until_sources_have_caught_up)
{
    struct bm_op ops[40];
    struct well well = WELL(0);
    filled = &well;
    completions = latest_left = 0;
    rig_open(&rig);
    bm_source_add(rig.reactor, &well.source);
    for (int i = 0; i < 40; i++) {
        bm_op_init(&ops[i], BM_OP_NOP, nop_yields);
        bm_op_start(rig.reactor, &ops[i]);
    }
    while (completions < (int)BM_BATCH_CQES)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(completions, (int)BM_BATCH_CQES);
    latest_left = 0;
    well.left = 200;
    while (completions < 40) {
        int before = completions;
        bm_reactor_turn(rig.reactor);
        CHECK(completions - before <= 1);
    }
    CHECK(latest_left < (int)BM_TURN_MESSAGES);
    rig_settle(&rig);
    bm_source_remove(rig.reactor, &well.source);
    rig_close(&rig);
}

/* ... but not for ever, when a source has more and more. */
TEST(completions_wait_for_sources_no_longer_than_some_turns)
{
    struct bm_op op;
    struct well well = WELL(INT32_MAX);
    filled = &(struct well){0};
    completions = 0;
    rig_open(&rig);
    bm_source_add(rig.reactor, &well.source);
    for (int i = 0; i < 2; i++) {
        bm_op_init(&op, BM_OP_NOP, nop_yields);
        bm_op_start(rig.reactor, &op);
        for (unsigned turns = 0; turns < BM_YIELD_TURNS + 4; turns++)
            bm_reactor_turn(rig.reactor);
        CHECK_INT(completions, i + 1);
    }
    bm_source_remove(rig.reactor, &well.source);
    rig_close(&rig);
}

static void put_off(struct bm_task *task)
{
    struct job *job = bm_container_of(task, struct job, task);
    job->again++;
    if (!bm_task_put_off(rig.reactor, task))
        job->ran++;
}

TEST(task_may_be_put_off_while_sources_catch_up)
{
    struct bm_op op;
    struct well well = WELL(0);
    struct job job = {.task.fn = put_off};
    filled = &well;
    completions = 0;
    rig_open(&rig);
    bm_source_add(rig.reactor, &well.source);
    bm_op_init(&op, BM_OP_NOP, nop_yields);
    bm_op_start(rig.reactor, &op);
    while (completions == 0)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(well.left, 200);
    bm_task_queue(rig.reactor, &job.task);
    while (well.left >= (int)BM_TURN_MESSAGES) {
        bm_reactor_turn(rig.reactor);
        CHECK_INT(job.ran, 0);
    }
    bm_reactor_turn(rig.reactor);
    CHECK_INT(job.ran, 1);
    CHECK_INT(job.again, 200 / (int)BM_TURN_MESSAGES + 1); /* once a turn, not over and over */
    bm_source_remove(rig.reactor, &well.source);
    rig_close(&rig);
}

static void *stop_when_asleep(void *arg)
{
    struct bm_reactor *reactor = arg;
    while (!atomic_load(&reactor->sleeping))
        sched_yield();
    bm_reactor_stop(reactor);
    return NULL;
}

TEST(stop_from_another_thread_ends_a_sleeping_run)
{
    rig_open(&rig);
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        REQUIRE_INT(pthread_create(&thread, NULL, stop_when_asleep, rig.reactor), 0);
        rig_run(&rig);
        pthread_join(thread, NULL);
    }
    rig_close(&rig);
}

TEST(stop_before_run_ends_it_at_once)
{
    rig_open(&rig);
    bm_reactor_stop(rig.reactor);
    CHECK_INT(bm_reactor_run(rig.reactor), 0);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->sleeps, 0);
    rig_close(&rig);
}

static _Atomic int signals;

static void on_signal(int number)
{
    (void)number;
    if (++signals == 100)
        bm_reactor_stop(rig.reactor);
}

static pthread_t sleeper;

static void *pester(void *arg)
{
    (void)arg;
    for (int sent = 0; signals < 100;) {
        if (atomic_load(&rig.reactor->sleeping) && sent == signals) {
            sent++;
            pthread_kill(sleeper, SIGUSR1);
        }
        sched_yield();
    }
    return NULL;
}

TEST(signals_interrupt_a_sleep_and_a_handler_may_stop_the_reactor)
{
    struct sigaction action = {.sa_handler = on_signal}, before;
#ifdef BM_SANITIZE_THREAD
    SKIP("the thread sanitizer runs handlers at calls it knows, and a sleep in the ring is none");
#endif
    sigaction(SIGUSR1, &action, &before);
    pthread_t thread;
    rig_open(&rig);
    signals = 0;
    sleeper = pthread_self();
    REQUIRE_INT(pthread_create(&thread, NULL, pester, NULL), 0);
    rig_run(&rig);
    pthread_join(thread, NULL);
    CHECK_INT(signals, 100);
    sigaction(SIGUSR1, &before, NULL);
    rig_close(&rig);
}

TEST(close_fd_closes_behind_the_ops_that_were_started_before)
{
    int fds[2];
    char got[8];
    struct probe sending;
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    probe_init(&sending, BM_OP_SEND);
    sending.op.fd = fds[0];
    sending.op.addr = "last";
    sending.op.len = 4;
    bm_op_start(rig.reactor, &sending.op);
    int number = fds[0];
    bm_reactor_close_fd(rig.reactor, &fds[0]);
    CHECK_INT(fds[0], -1);
    bm_reactor_close_fd(rig.reactor, &fds[0]); /* -1: nothing */
    rig_settle(&rig);
    CHECK_INT(sending.res, 4);
    CHECK_INT(fcntl(number, F_GETFD), -1);
    CHECK_INT(recv(fds[1], got, sizeof(got), 0), 4);
    CHECK_INT(recv(fds[1], got, sizeof(got), 0), 0);
    rig_close(&rig);
    close(fds[1]);
}

TEST(close_fd_comes_last_also_when_the_queue_is_full)
{
    enum { NOPS = 1000 };
    static struct bm_op nops[NOPS];
    int fds[2];
    char got[8];
    struct probe sending;
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    for (int i = 0; i < NOPS; i++) {
        bm_op_init(&nops[i], BM_OP_NOP, nop_queues_task);
        bm_op_start(rig.reactor, &nops[i]);
    }
    probe_init(&sending, BM_OP_SEND);
    sending.op.fd = fds[0];
    sending.op.addr = "last";
    sending.op.len = 4;
    bm_op_start(rig.reactor, &sending.op);
    bm_reactor_close_fd(rig.reactor, &fds[0]);
    CHECK_INT(sending.calls, 0);
    rig_settle(&rig);
    CHECK_INT(sending.res, 4);
    CHECK_INT(recv(fds[1], got, sizeof(got), 0), 4);
    CHECK_INT(recv(fds[1], got, sizeof(got), 0), 0);
    rig_close(&rig);
    close(fds[1]);
}

TEST(close_fd_in_crowds_and_at_the_end_of_the_reactor)
{
    enum { FDS = 600 };
    int fds[FDS];
    rig_open(&rig);
    for (int i = 0; i < FDS; i++)
        REQUIRE((fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    int last = fds[FDS - 1];
    for (int i = 0; i < FDS; i++)
        bm_reactor_close_fd(rig.reactor, &fds[i]);
    rig_close(&rig);
    CHECK_INT(fcntl(last, F_GETFD), -1);
}

/* A message that is dealt with in the spin and gives a descriptor back. */
struct parcel {
    struct bm_source source;
    int fd;
};

static bool parcel_ready(struct bm_source *source)
{
    return bm_container_of(source, struct parcel, source)->fd >= 0;
}

static unsigned parcel_drain(struct bm_source *source, unsigned budget)
{
    struct parcel *parcel = bm_container_of(source, struct parcel, source);
    (void)budget;
    if (parcel->fd < 0)
        return 0;
    bm_reactor_close_fd(rig.reactor, &parcel->fd);
    return 1;
}

TEST(close_fd_while_spinning_does_not_wait_for_the_end_of_the_spin)
{
    int fds[2], looks = 0;
    char byte;
    struct parcel parcel = {.source = {.ready = parcel_ready, .drain = parcel_drain}};
    socket_pair(SOCK_STREAM, fds);
    rig_open_with(&rig, (struct bm_reactor_options){.spin = BM_SPIN_ALWAYS, .may_spin = true});
    bm_reactor_turn(rig.reactor);
    parcel.fd = fds[0];
    bm_source_add(rig.reactor, &parcel.source);
    CHECK_INT(bm_reactor_look(rig.reactor), BM_LOOK_DRAINED);
    while (BM_KERNEL_CLOSES && looks < 100 && bm_reactor_look(rig.reactor) != BM_LOOK_TURN)
        looks++;
    CHECK(looks < 100);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(recv(fds[1], &byte, 1, MSG_DONTWAIT), 0);
    CHECK_INT(bm_reactor_look(rig.reactor), BM_LOOK_NOTHING);
    bm_source_remove(rig.reactor, &parcel.source);
    rig_close(&rig);
    close(fds[1]);
}

static void start_again(struct bm_op *op, int res, uint32_t flags)
{
    struct probe *probe = bm_container_of(op, struct probe, op);
    (void)flags;
    probe->calls++;
    probe->res = res;
    if (probe->calls < 5)
        bm_op_start(rig.reactor, op);
}

TEST(free_ends_ops_that_are_started_while_it_runs)
{
    int fds[2];
    char byte;
    struct probe probe;
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    probe_init(&probe, BM_OP_RECV);
    probe.op.fn = start_again;
    probe.op.fd = fds[0];
    probe.op.addr = &byte;
    probe.op.len = 1;
    bm_op_start(rig.reactor, &probe.op);
    bm_reactor_turn(rig.reactor);
    rig_close(&rig);
    CHECK_INT(probe.calls, 5);
    CHECK_INT(probe.res, -ECANCELED);
    close_pair(fds);
}

static uint64_t lost_ns;
static unsigned looks_left;

static uint64_t jumping_now(void *arg)
{
    (void)arg;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    if (looks_left > 0 && --looks_left == 0)
        lost_ns += 3600 * BM_NS_PER_S;
    return (uint64_t)ts.tv_sec * BM_NS_PER_S + (uint64_t)ts.tv_nsec + lost_ns;
}

TEST(free_is_not_hurried_by_the_time_a_process_stood_still)
{
    static const struct bm_clock jumping = {.now_ns = jumping_now};
    for (unsigned look = 1; look <= 8; look++) {
        int fds[2];
        char byte;
        struct probe probe;
        test_note("look %u", look);
        socket_pair(SOCK_STREAM, fds);
        rig_open(&rig);
        probe_init(&probe, BM_OP_RECV);
        probe.op.fn = start_again;
        probe.op.fd = fds[0];
        probe.op.addr = &byte;
        probe.op.len = 1;
        bm_op_start(rig.reactor, &probe.op);
        bm_reactor_turn(rig.reactor);
        looks_left = look;
        bm_clock_set(&jumping);
        rig_close(&rig);
        bm_clock_set(NULL);
        CHECK_INT(probe.calls, 5);
        close_pair(fds);
    }
}

static struct probe parting, closing;

static void send_and_close(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)flags;
    CHECK_INT(res, -ECANCELED);
    bm_op_start(rig.reactor, &parting.op);
    bm_op_start(rig.reactor, &closing.op);
}

TEST(free_starts_nothing_new_but_still_gives_back)
{
    int fds[2], spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char byte;
    struct bm_op receiving;
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    bm_op_init(&receiving, BM_OP_RECV, send_and_close);
    receiving.fd = fds[0];
    receiving.addr = &byte;
    receiving.len = 1;
    probe_init(&parting, BM_OP_SEND);
    parting.op.fd = fds[0];
    parting.op.addr = "x";
    parting.op.len = 1;
    probe_init(&closing, BM_OP_CLOSE);
    closing.op.fd = spare;
    bm_op_start(rig.reactor, &receiving);
    bm_reactor_turn(rig.reactor);
    rig_close(&rig);
    CHECK_INT(parting.res, -ECANCELED);
    CHECK_INT(recv(fds[1], &byte, 1, MSG_DONTWAIT), -1);
    CHECK_INT(closing.res, 0);
    CHECK_INT(fcntl(spare, F_GETFD), -1);
    close_pair(fds);
}

static void never(void *arg)
{
    (void)arg;
    CHECK_STR("called", "not called");
}

static void *use_closed(void *arg)
{
    (void)arg;
    CHECK_INT(bm_mailbox_post(rig.reactor, never, NULL), -ESHUTDOWN);
    CHECK_INT(bm_mailbox_post_wait(rig.reactor, never, NULL, UINT64_MAX), -ESHUTDOWN);
    bm_reactor_wake(rig.reactor);
    bm_reactor_wake_signal(rig.reactor);
    bm_reactor_stop(rig.reactor);
    return bm_reactor_free(rig.reactor);
}

TEST(closed_reactor_may_be_posted_to_woken_and_freed_by_other_threads)
{
    for (int embedded = 0; embedded < 2; embedded++) {
        pthread_t thread;
        rig_open_with(&rig, (struct bm_reactor_options){.embedded = embedded});
        bm_reactor_turn(rig.reactor);
        bm_reactor_close(rig.reactor);
        CHECK_PTR(bm_reactor_current(), NULL);
        CHECK_UINT(atomic_load(&rig.reactor->sleeping), 0);
        REQUIRE_INT(pthread_create(&thread, NULL, use_closed, NULL), 0);
        pthread_join(thread, NULL);
    }
}

TEST(reactor_current_is_the_reactor_of_this_thread)
{
    CHECK_PTR(bm_reactor_current(), NULL);
    rig_open(&rig);
    CHECK_PTR(bm_reactor_current(), rig.reactor);
    rig_close(&rig);
    CHECK_PTR(bm_reactor_current(), NULL);
    CHECK_PTR(bm_reactor_free(NULL), NULL);
}

TEST(idle_turn_enters_nothing_and_a_sleep_is_one_enter)
{
    rig_open(&rig);
    bm_reactor_turn(rig.reactor);
    uint64_t enters = bm_reactor_stats(rig.reactor)->enters;
    for (int i = 0; i < 1000; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->enters, enters);
    rig_close(&rig);
}

static int in_child(int (*fn)(void))
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0)
        _exit(fn());
    int status;
    REQUIRE_INT(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int use_in_child(void)
{
    bm_fork_epoch(); /* as a reactor of the child's own would */
    if (bm_reactor_run(rig.reactor) != -BEAM_EFORKED)
        return 1;
    if (bm_reactor_turn(rig.reactor) != -BEAM_EFORKED)
        return 2;
    bm_reactor_free(rig.reactor);
    struct bm_reactor_options options = {.spin = BM_SPIN_NEVER};
    struct bm_reactor *own;
    if (bm_reactor_new(&options, &own) != 0)
        return 3;
    if (bm_reactor_turn(own) != 0)
        return 4;
    bm_reactor_free(own);
    return 0;
}

TEST(fork_leaves_the_child_without_the_reactor_and_the_parent_with_it)
{
    int fds[2];
    char byte;
    struct probe receiving, nop;
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    probe_init(&receiving, BM_OP_RECV);
    receiving.op.fd = fds[0];
    receiving.op.addr = &byte;
    receiving.op.len = 1;
    bm_op_start(rig.reactor, &receiving.op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(in_child(use_in_child), 0);

    probe_init(&nop, BM_OP_NOP);
    CHECK_INT(probe_run(&rig, &nop), 0);
    CHECK_INT(receiving.calls, 0);
    CHECK_INT(send(fds[1], "x", 1, 0), 1);
    rig_settle(&rig);
    CHECK_INT(receiving.res, 1);
    rig_close(&rig);
    close_pair(fds);
}

/* Each process that a container starts first has the number 1. */
static int in_first_of_its_namespace(int (*fn)(void))
{
    if (unshare(CLONE_NEWPID) < 0)
        return 77;
    pid_t pid = fork();
    if (pid == 0)
        _exit(getpid() == 1 ? fn() : 78);
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return 79;
    return WEXITSTATUS(status);
}

static int use_of_same_number(void)
{
    return in_first_of_its_namespace(use_in_child);
}

static int make_and_pass_on(void)
{
    struct bm_reactor_options options = {.spin = BM_SPIN_NEVER};
    if (bm_reactor_new(&options, &rig.reactor) != 0)
        return 80;
    int r = in_child(use_of_same_number);
    bm_reactor_free(rig.reactor);
    return r;
}

static int first_of_a_namespace(void)
{
    return in_first_of_its_namespace(make_and_pass_on);
}

TEST(fork_into_another_namespace_with_the_same_process_id_is_a_fork)
{
    int r = in_child(first_of_a_namespace);
    if (r == 77)
        SKIP("no right to make a pid namespace");
    CHECK_INT(r, 0);
}

/* The k-th allocation fails, for every k. */
static int allocations_left;

static void *scarce(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)old_len;
    (void)arg;
    if (new_len == 0) {
        free(ptr);
        return NULL;
    }
    if (allocations_left-- <= 0)
        return NULL;
    void *fresh = NULL;
    return posix_memalign(&fresh, 64, new_len) == 0 ? fresh : NULL;
}

TEST(reactor_and_buffers_survive_every_failing_allocation)
{
    static const struct bm_allocator scarcity = {.realloc = scarce};
    struct bm_reactor_options options = {.spin = BM_SPIN_NEVER};
    bm_alloc_set(&scarcity);
    int k = 0;
    for (bool complete = false; !complete; k++) {
        struct bm_reactor *reactor = NULL;
        struct bm_buffers *buffers = NULL;
        allocations_left = k;
        int r = bm_reactor_new(&options, &reactor);
        if (r == 0)
            r = bm_buffers_new(reactor, 1, 64, 8, &buffers);
        CHECK(r == 0 || r == -ENOMEM);
        complete = r == 0;
        bm_buffers_free(buffers);
        bm_reactor_free(reactor);
    }
    CHECK(k > 5);
    CHECK_UINT(bm_alloc_totals().live_blocks, 0);
    bm_alloc_set(NULL);
}
