/* A reactor inside an epoll loop that knows one descriptor and nothing else.
 *
 * In each case the loop is asleep in epoll_wait before the event comes; a wake that is lost ends in
 * the loop's time-out. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "tests/unit/uring/asleep.h"
#include "tests/unit/uring/rig.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"
#include "uring/spsc.h"

#define TIMEOUT_MS 20000

static struct rig rig;
static int epoll;
static pid_t host_tid;
static _Atomic bool host_waits;

static void open_host(void)
{
    rig_open_with(&rig, (struct bm_reactor_options){.embedded = true});
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    REQUIRE_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, bm_reactor_fd(rig.reactor), &event), 0);
    host_tid = (pid_t)syscall(SYS_gettid);
}

static void close_host(void)
{
    rig_close(&rig);
    close(epoll);
}

static int done;

/* The host's whole contract: wait for the fd, call the turn. How many turns until `done` is n. */
static int host_until(int n_done)
{
    int turns = 0;
    while (done < n_done) {
        struct epoll_event event;
        host_waits = true;
        int n = epoll_wait(epoll, &event, 1, TIMEOUT_MS);
        host_waits = false;
        /* The kernel lets go of an earlier case's ring in the background, and interrupts the thread
         * that owned it once to do so. */
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            CHECK_INT(n, 1);
            break;
        }
        CHECK_INT(bm_reactor_turn(rig.reactor), 0);
        turns++;
    }
    return turns;
}

static bool is_readable(void)
{
    struct pollfd p = {.fd = bm_reactor_fd(rig.reactor), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

/* Turns until the reactor has nothing to do and its fd is quiet. */
static void quiesce(void)
{
    for (int i = 0; i < 100 && is_readable(); i++)
        bm_reactor_turn(rig.reactor);
    CHECK(!is_readable());
}

static void op_done(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)res;
    (void)flags;
    done++;
}

static void *send_when_asleep(void *arg)
{
    until_asleep(host_tid, &host_waits);
    CHECK_INT(send(*(int *)arg, "x", 1, 0), 1);
    return NULL;
}

TEST(embed_sleeping_host_is_woken_by_a_completion)
{
    int fds[2];
    char byte;
    struct bm_op op;
    socket_pair(SOCK_STREAM, fds);
    open_host();
    bm_op_init(&op, BM_OP_RECV, op_done);
    op.fd = fds[0];
    op.addr = &byte;
    op.len = 1;
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        done = 0;
        bm_op_start(rig.reactor, &op);
        bm_reactor_turn(rig.reactor);
        quiesce();
        REQUIRE_INT(pthread_create(&thread, NULL, send_when_asleep, &fds[1]), 0);
        CHECK(host_until(1) <= 3);
        pthread_join(thread, NULL);
        CHECK_INT(done, 1);
    }
    close_host();
    close_pair(fds);
}

/* A ring message: published, then the wake; from a reactor and from a plain thread. */
static struct bm_spsc *ring;
static int wanted;

static bool ring_ready(struct bm_source *source)
{
    (void)source;
    return bm_spsc_peek(ring) != NULL;
}

static unsigned ring_drain(struct bm_source *source, unsigned budget)
{
    (void)source;
    unsigned n = 0;
    for (; n < budget && bm_spsc_peek(ring); n++)
        bm_spsc_consume(ring);
    bm_spsc_publish_head(ring);
    wanted -= (int)n;
    done = wanted <= 0;
    return n;
}

struct sender {
    bool from_a_reactor;
    int messages;
};

static void *publish_when_asleep(void *arg)
{
    const struct sender *sender = arg;
    struct rig own;
    if (sender->from_a_reactor)
        rig_open(&own);
    until_asleep(host_tid, &host_waits);
    for (int i = 0; i < sender->messages; i++)
        bm_spsc_publish(ring, bm_spsc_reserve(ring));
    bm_reactor_wake(rig.reactor);
    if (sender->from_a_reactor) {
        CHECK_UINT(bm_reactor_stats(own.reactor)->wakes_sent, 1);
        rig_close(&own);
    }
    return NULL;
}

static void ring_case(struct sender sender, int rounds, int turns_min, int turns_max)
{
    struct bm_source source = {.ready = ring_ready, .drain = ring_drain};
    ring = aligned_alloc(64, sizeof(*ring));
    bm_spsc_init(ring, UINT32_MAX - 7);
    open_host();
    bm_source_add(rig.reactor, &source);
    for (int i = 0; i < rounds; i++) {
        pthread_t thread;
        quiesce();
        done = 0;
        wanted = sender.messages;
        REQUIRE_INT(pthread_create(&thread, NULL, publish_when_asleep, &sender), 0);
        int turns = host_until(1);
        pthread_join(thread, NULL);
        CHECK_INT(wanted, 0);
        CHECK(turns >= turns_min);
        CHECK(turns <= turns_max);
    }
    quiesce();
    bm_source_remove(rig.reactor, &source);
    close_host();
    free(ring);
}

TEST(embed_sleeping_host_is_woken_by_a_message_of_another_reactor)
{
    ring_case((struct sender){.from_a_reactor = true, .messages = 1}, 50, 1, 2);
}

TEST(embed_sleeping_host_is_woken_by_a_message_of_a_foreign_thread)
{
    ring_case((struct sender){.from_a_reactor = false, .messages = 1}, 50, 1, 2);
}

TEST(embed_sleeping_host_is_woken_again_for_what_the_budget_left)
{
    ring_case((struct sender){.from_a_reactor = false, .messages = 1000}, 5, 1000 / 64, 40);
}

static uint64_t fired_ns;

static void fire(struct bm_timer *timer)
{
    (void)timer;
    fired_ns = bm_clock_now_ns();
    done++;
}

enum { TASKS = 20000 };

static void run_often(struct bm_task *task)
{
    if (++done < TASKS)
        bm_task_queue(rig.reactor, task);
}

TEST(embed_host_is_called_again_for_ops_tasks_and_timers_that_were_left)
{
    enum { OPS = 3000, TIMERS = 1000 };
    static struct bm_op ops[OPS];
    static struct bm_timer timers[TIMERS];
    open_host();
    quiesce();
    done = 0;
    for (int i = 0; i < OPS; i++) {
        bm_op_init(&ops[i], BM_OP_NOP, op_done);
        bm_op_start(rig.reactor, &ops[i]);
    }
    CHECK(host_until(OPS) >= 2);
    quiesce();
    done = 0;
    for (int i = 0; i < TIMERS; i++) {
        bm_timer_init(&timers[i], fire);
        bm_timer_arm(rig.reactor, &timers[i], bm_clock_now_ns() + 2 * BM_NS_PER_MS);
    }
    CHECK(host_until(TIMERS) >= 2);
    quiesce();
    done = 0;
    struct bm_task task = {.fn = run_often};
    bm_task_queue(rig.reactor, &task);
    CHECK(host_until(TASKS) >= 2);
    close_host();
}

static void *post_when_asleep(void *arg)
{
    until_asleep(host_tid, &host_waits);
    CHECK_INT(bm_mailbox_post_wait(rig.reactor, arg, NULL, UINT64_MAX), 0);
    return NULL;
}

static void mail(void *arg)
{
    (void)arg;
    done++;
}

TEST(embed_sleeping_host_is_woken_by_mail)
{
    open_host();
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        quiesce();
        done = 0;
        REQUIRE_INT(pthread_create(&thread, NULL, post_when_asleep, mail), 0);
        host_until(1);
        pthread_join(thread, NULL);
        CHECK_INT(done, 1);
    }
    close_host();
}

TEST(embed_sleeping_host_is_woken_by_a_timer)
{
    struct bm_timer timer;
    open_host();
    bm_timer_init(&timer, fire);
    for (int i = 0; i < 5; i++) {
        uint64_t at_ns = bm_clock_now_ns() + 3 * BM_NS_PER_MS;
        done = 0;
        bm_timer_arm(rig.reactor, &timer, at_ns);
        CHECK(is_readable()); /* armed between turns: the host must come once */
        bm_reactor_turn(rig.reactor);
        quiesce();
        CHECK(host_until(1) < 10);
        CHECK(fired_ns >= at_ns);
    }
    close_host();
}

TEST(embed_timer_that_moves_to_earlier_is_not_late)
{
    struct bm_timer late, early;
    open_host();
    bm_timer_init(&late, fire);
    bm_timer_init(&early, fire);
    bm_timer_arm(rig.reactor, &late, bm_clock_now_ns() + 3600 * BM_NS_PER_S);
    bm_reactor_turn(rig.reactor);
    quiesce();
    done = 0;
    uint64_t at_ns = bm_clock_now_ns() + 2 * BM_NS_PER_MS;
    bm_timer_arm(rig.reactor, &early, at_ns);
    CHECK(host_until(1) < 15);
    CHECK(fired_ns >= at_ns);
    CHECK(bm_timer_armed(&late));
    close_host();
}

TEST(embed_timer_comes_also_when_ops_have_filled_the_queue)
{
    static struct bm_op ops[BM_SQ_LEN];
    struct bm_timer timer;
    int fds[2];
    char byte;
    socket_pair(SOCK_STREAM, fds);
    open_host();
    quiesce();
    for (unsigned i = 0; i < BM_SQ_LEN; i++) {
        bm_op_init(&ops[i], BM_OP_RECV, op_done);
        ops[i].fd = fds[0];
        ops[i].addr = &byte;
        ops[i].len = 1;
        bm_op_start(rig.reactor, &ops[i]);
    }
    done = 0;
    bm_timer_init(&timer, fire);
    bm_timer_arm(rig.reactor, &timer, bm_clock_now_ns() + 2 * BM_NS_PER_MS);
    CHECK(host_until(1) < 15);
    CHECK(!bm_timer_armed(&timer));
    close_host();
    close_pair(fds);
}

/* What the host itself starts between two turns. */
static void run_task(struct bm_task *task)
{
    (void)task;
    done++;
}

TEST(embed_work_queued_between_turns_makes_the_fd_readable)
{
    struct bm_task task = {.fn = run_task};
    struct bm_op op;
    open_host();
    quiesce();
    done = 0;
    bm_task_queue(rig.reactor, &task);
    CHECK(is_readable());
    CHECK_INT(host_until(1), 1);

    quiesce();
    done = 0;
    bm_op_init(&op, BM_OP_NOP, op_done);
    bm_op_start(rig.reactor, &op);
    CHECK(is_readable());
    CHECK_INT(host_until(1), 1); /* what is done at once takes no second round */
    CHECK(!is_readable());       /* nor does what the turn has looked at call the host */

    quiesce();
    struct bm_source source = {.ready = ring_ready, .drain = ring_drain};
    ring = aligned_alloc(64, sizeof(*ring));
    bm_spsc_init(ring, 0);
    bm_spsc_publish(ring, bm_spsc_reserve(ring)); /* it has something already, and nobody rings */
    done = 0;
    wanted = 1;
    bm_source_add(rig.reactor, &source);
    CHECK(is_readable());
    CHECK_INT(host_until(1), 1);
    bm_source_remove(rig.reactor, &source);
    free(ring);

    int fds[2];
    char byte;
    socket_pair(SOCK_STREAM, fds);
    bm_op_init(&op, BM_OP_RECV, op_done);
    op.fd = fds[0];
    op.addr = &byte;
    op.len = 1;
    bm_op_start(rig.reactor, &op);
    bm_reactor_turn(rig.reactor);
    quiesce();
    done = 0;
    bm_op_cancel(rig.reactor, &op);
    CHECK(is_readable());
    CHECK(host_until(1) <= 2);
    close_pair(fds);

    quiesce();
    int fd = dup(epoll);
    bm_reactor_close_fd(rig.reactor, &fd);
    CHECK_INT(is_readable(), BM_KERNEL_CLOSES);
    bm_reactor_turn(rig.reactor);
    close_host();
}

TEST(embed_turn_without_a_reason_is_harmless)
{
    open_host();
    for (int i = 0; i < 100; i++)
        CHECK_INT(bm_reactor_turn(rig.reactor), 0);
    CHECK(!is_readable());
    CHECK_INT(bm_reactor_run(rig.reactor), -EINVAL);
    close_host();
}

static void turn_again(struct bm_task *task)
{
    (void)task;
    CHECK_INT(bm_reactor_turn(rig.reactor), -EDEADLK);
    done++;
}

TEST(embed_turn_inside_a_turn_is_refused)
{
    struct bm_task task = {.fn = turn_again};
    open_host();
    quiesce();
    done = 0;
    bm_task_queue(rig.reactor, &task);
    CHECK_INT(host_until(1), 1);
    close_host();
}

/* A thread sends as fast as it can while the host goes back to sleep after every turn. */
enum { FLOOD = 20000 };

static void *flood(void *arg)
{
    struct test_random random = test_random(3);
    (void)arg;
    for (int i = 0; i < FLOOD; i++) {
        struct bm_spsc_slot *slot;
        while (!(slot = bm_spsc_reserve(ring)))
            sched_yield();
        bm_spsc_publish(ring, slot);
        bm_reactor_wake(rig.reactor);
        for (uint64_t n = test_random_below(&random, 2000); n > 0; n--)
            __asm__ __volatile__("" ::: "memory");
    }
    return NULL;
}

TEST(embed_host_under_a_flood_misses_nothing)
{
    struct bm_source source = {.ready = ring_ready, .drain = ring_drain};
    pthread_t thread;
    ring = aligned_alloc(64, sizeof(*ring));
    bm_spsc_init(ring, 0);
    open_host();
    bm_source_add(rig.reactor, &source);
    bm_reactor_turn(rig.reactor);
    done = 0;
    wanted = FLOOD;
    REQUIRE_INT(pthread_create(&thread, NULL, flood, NULL), 0);
    host_until(1);
    pthread_join(thread, NULL);
    CHECK_INT(wanted, 0);
    bm_source_remove(rig.reactor, &source);
    close_host();
    free(ring);
}

static void *echo(void *arg)
{
    int fd = *(int *)arg;
    char byte;
    for (int i = 0; i < 1000; i++)
        if (send(fd, "x", 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
            break;
    return NULL;
}

static struct bm_op answering;

static void got_byte(struct bm_op *op, int res, uint32_t flags)
{
    (void)res;
    (void)flags;
    bm_op_start(rig.reactor, &answering);
    if (++done < 1000)
        bm_op_start(rig.reactor, op);
}

static void answered(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)flags;
    CHECK_INT(res, 1);
}

TEST(embed_host_answers_a_thousand_requests_of_a_socket)
{
    int fds[2];
    char byte;
    struct bm_op receiving;
    pthread_t thread;
    socket_pair(SOCK_STREAM, fds);
    open_host();
    bm_op_init(&receiving, BM_OP_RECV, got_byte);
    receiving.fd = fds[0];
    receiving.addr = &byte;
    receiving.len = 1;
    bm_op_init(&answering, BM_OP_SEND, answered);
    answering.fd = fds[0];
    answering.addr = "y";
    answering.len = 1;
    done = 0;
    bm_op_start(rig.reactor, &receiving);
    REQUIRE_INT(pthread_create(&thread, NULL, echo, &fds[1]), 0);
    host_until(1000);
    quiesce();
    pthread_join(thread, NULL);
    CHECK_INT(done, 1000);
    CHECK_INT(bm_reactor_inflight(rig.reactor), 0);
    close_host();
    close_pair(fds);
}

/* --- two of a thread ------------------------------------------------------------------------- */

static uint64_t sqes_of_a_wake(const void *family)
{
    struct rig one, other;
    rig_open_with(&one, (struct bm_reactor_options){.embedded = true, .family = &one});
    rig_open_with(&other, (struct bm_reactor_options){.embedded = true, .family = family});
    REQUIRE_INT(bm_reactor_turn(other.reactor), 0);
    REQUIRE_INT(bm_reactor_turn(one.reactor), 0); /* which is this thread's from now on */
    uint64_t before = bm_reactor_stats(one.reactor)->sqes;
    bm_reactor_wake(other.reactor);
    uint64_t sqes = bm_reactor_stats(one.reactor)->sqes - before;
    struct pollfd pfd = {.fd = bm_reactor_fd(other.reactor), .events = POLLIN};
    REQUIRE_INT(bm_reactor_turn(one.reactor), 0);
    CHECK_INT(poll(&pfd, 1, 5000), 1);
    bm_reactor_free(other.reactor);
    bm_reactor_free(one.reactor);
    return sqes;
}

/* What a ring is told of a failed doorbell later names its target, which could have gone by then. */
TEST(embedded_reactor_of_another_family_is_woken_without_the_ring)
{
    static const char stranger;
    CHECK_UINT(sqes_of_a_wake(&stranger), 0);
}
