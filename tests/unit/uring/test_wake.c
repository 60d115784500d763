/* The sleep protocol under fire: a lost wake-up ends in the watchdog. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "base/assert.h"
#include "tests/unit/uring/asleep.h"
#include "tests/unit/uring/rig.h"
#include "uring/reactor_inner.h"
#include "uring/spsc.h"

#define NEAR_THE_END (UINT32_MAX - 7)

/* Two reactors on two threads, a ring each way. */
struct end {
    struct bm_source source;
    struct rig rig;
    struct end *peer;
    struct bm_spsc *in;
    bool soon; /* wake with bm_reactor_wake_soon */
    int cpu;   /* -1: any */
    enum bm_spin spin;
    int rounds; /* 0: answers only */
    int seen;
    int wrong;
    pthread_t thread;
    struct bm_reactor_stats stats;
};

static struct end ends[2];
static pthread_barrier_t barrier;

static bool ready(struct bm_source *source)
{
    return bm_spsc_peek(bm_container_of(source, struct end, source)->in) != NULL;
}

static void say(struct end *end, uint64_t word)
{
    struct bm_spsc_slot *slot = bm_spsc_reserve(end->peer->in);
    bm_assert(slot);
    slot->word[0] = word;
    bm_spsc_publish(end->peer->in, slot);
    if (end->soon)
        bm_reactor_wake_soon(end->rig.reactor, end->peer->rig.reactor);
    else
        bm_reactor_wake(end->peer->rig.reactor);
}

static unsigned drain(struct bm_source *source, unsigned budget)
{
    struct end *end = bm_container_of(source, struct end, source);
    struct bm_spsc_slot *slot;
    unsigned n = 0;
    for (; n < budget && (slot = bm_spsc_peek(end->in)); n++) {
        uint64_t word = slot->word[0];
        bm_spsc_consume(end->in);
        end->wrong += word != (uint64_t)end->seen;
        end->seen++;
        if (end->rounds == 0) {
            say(end, word);
        } else if (end->seen < end->rounds) {
            say(end, (uint64_t)end->seen);
        } else {
            bm_reactor_stop(end->rig.reactor);
            bm_reactor_stop(end->peer->rig.reactor);
        }
    }
    bm_spsc_publish_head(end->in);
    return n;
}

static void *run_end(void *arg)
{
    struct end *end = arg;
    if (end->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(end->cpu, &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    rig_open_with(&end->rig, (struct bm_reactor_options){.spin = end->spin, .may_spin = true});
    end->source = (struct bm_source){.ready = ready, .drain = drain};
    bm_source_add(end->rig.reactor, &end->source);
    pthread_barrier_wait(&barrier);
    if (end->rounds > 0)
        say(end, 0);
    rig_run(&end->rig);
    pthread_barrier_wait(&barrier); /* nobody wakes us any more */
    bm_source_remove(end->rig.reactor, &end->source);
    end->stats = *bm_reactor_stats(end->rig.reactor);
    rig_close(&end->rig);
    return NULL;
}

static int first_cpu(void)
{
    cpu_set_t set;
    sched_getaffinity(0, sizeof(set), &set);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            return i;
    return -1;
}

static void ping_pong(enum bm_spin spin, bool soon, int cpu, int rounds)
{
    REQUIRE_INT(pthread_barrier_init(&barrier, NULL, 2), 0);
    for (int i = 0; i < 2; i++) {
        ends[i] = (struct end){.peer = &ends[1 - i],
                               .in = aligned_alloc(64, sizeof(struct bm_spsc)),
                               .soon = soon,
                               .cpu = cpu,
                               .spin = spin,
                               .rounds = i == 0 ? rounds : 0};
        bm_spsc_init(ends[i].in, NEAR_THE_END);
    }
    for (int i = 0; i < 2; i++)
        REQUIRE_INT(pthread_create(&ends[i].thread, NULL, run_end, &ends[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(ends[i].thread, NULL);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(ends[i].seen, rounds);
        CHECK_INT(ends[i].wrong, 0);
        free(ends[i].in);
    }
    pthread_barrier_destroy(&barrier);
}

TEST(wake_between_reactors_on_one_cpu_that_always_sleep)
{
    ping_pong(BM_SPIN_NEVER, false, first_cpu(), 50000);
    CHECK_UINT(ends[0].stats.spins, 0);
}

TEST(wake_soon_between_reactors_on_one_cpu_that_always_sleep)
{
    ping_pong(BM_SPIN_NEVER, true, first_cpu(), 50000);
}

TEST(wake_between_reactors_that_always_sleep)
{
    ping_pong(BM_SPIN_NEVER, false, -1, 5000);
}

TEST(wake_soon_between_reactors_that_always_sleep)
{
    ping_pong(BM_SPIN_NEVER, true, -1, 5000);
}

TEST(wake_between_reactors_that_spin_when_it_pays)
{
    ping_pong(BM_SPIN_ADAPTIVE, false, -1, 50000);
}

TEST(wake_soon_between_reactors_that_spin_when_it_pays)
{
    ping_pong(BM_SPIN_ADAPTIVE, true, -1, 50000);
}

TEST(wake_of_adaptive_reactors_on_one_cpu_does_not_burn_it)
{
    ping_pong(BM_SPIN_ADAPTIVE, true, first_cpu(), 50000);
    /* A spin on a shared cpu cannot hit; it is tried ever more rarely. */
    for (int i = 0; i < 2; i++)
        CHECK(ends[i].stats.spins < ends[i].stats.sleeps / 50 + 50);
}

/* Threads that are no reactors publish and wake through the eventfd. */
static struct rig rig;
static struct bm_spsc *foreign_in;
static int foreign_seen;

enum { FOREIGN = 20000 };

static bool foreign_ready(struct bm_source *source)
{
    (void)source;
    return bm_spsc_peek(foreign_in) != NULL;
}

static _Atomic int foreign_answered;

static unsigned foreign_drain(struct bm_source *source, unsigned budget)
{
    (void)source;
    unsigned n = 0;
    for (; n < budget && bm_spsc_peek(foreign_in); n++) {
        bm_spsc_consume(foreign_in);
        foreign_seen++;
    }
    bm_spsc_publish_head(foreign_in);
    if (n > 0)
        foreign_answered = foreign_seen;
    if (foreign_seen == FOREIGN)
        bm_reactor_stop(rig.reactor);
    return n;
}

static void *foreign_thread(void *arg)
{
    struct test_random random = test_random(7);
    (void)arg;
    for (int i = 0; i < FOREIGN; i++) {
        struct bm_spsc_slot *slot;
        while (!(slot = bm_spsc_reserve(foreign_in)))
            sched_yield();
        bm_spsc_publish(foreign_in, slot);
        bm_reactor_wake(rig.reactor);
        /* Now and then wait for the answer, so that the next one meets a reactor on its way to bed. */
        if (test_random_below(&random, 4) == 0)
            while (foreign_answered < i + 1)
                sched_yield();
        for (uint64_t spin = test_random_below(&random, 200); spin > 0; spin--)
            __asm__ __volatile__("" ::: "memory");
    }
    return NULL;
}

TEST(wake_from_a_foreign_thread_is_never_lost)
{
    static const enum bm_spin modes[] = {BM_SPIN_NEVER, BM_SPIN_ADAPTIVE};
    struct bm_source source = {.ready = foreign_ready, .drain = foreign_drain};
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        test_note("spin %d", modes[i]);
        foreign_in = aligned_alloc(64, sizeof(*foreign_in));
        bm_spsc_init(foreign_in, NEAR_THE_END);
        foreign_seen = 0;
        foreign_answered = 0;
        rig_open_with(&rig, (struct bm_reactor_options){.spin = modes[i], .may_spin = true});
        bm_source_add(rig.reactor, &source);
        REQUIRE_INT(pthread_create(&thread, NULL, foreign_thread, NULL), 0);
        rig_run(&rig);
        pthread_join(thread, NULL);
        CHECK_INT(foreign_seen, FOREIGN);
        CHECK(bm_reactor_stats(rig.reactor)->wakes_taken > 0);
        bm_source_remove(rig.reactor, &source);
        rig_close(&rig);
        free(foreign_in);
    }
}

/* MSG_RING refused: the doorbell falls back to the eventfd. */
static const _Atomic bool runs = true;

static void *wake_badly(void *arg)
{
    struct rig own;
    rig_open(&own);
    until_asleep(*(pid_t *)arg, &runs);
    CHECK(atomic_load(&rig.reactor->sleeping));
    struct bm_spsc_slot *slot = bm_spsc_reserve(foreign_in);
    bm_spsc_publish(foreign_in, slot);
    bm_reactor_wake(rig.reactor);
    for (int i = 0; i < 3; i++) /* the failure comes back as a completion */
        bm_reactor_turn(own.reactor);
    CHECK_UINT(bm_reactor_stats(own.reactor)->wakes_sent, 1);
    rig_close(&own);
    return NULL;
}

TEST(wake_that_the_ring_refuses_goes_through_the_eventfd)
{
    struct bm_source source = {.ready = foreign_ready, .drain = foreign_drain};
    pthread_t thread;
    foreign_in = aligned_alloc(64, sizeof(*foreign_in));
    bm_spsc_init(foreign_in, 0);
    foreign_seen = FOREIGN - 1;
    rig_open(&rig);
    bm_source_add(rig.reactor, &source);
    int fd = rig.reactor->ring_fd;
    rig.reactor->ring_fd = rig.reactor->wake_fd; /* not a ring: -EBADFD */
    pid_t tid = (pid_t)syscall(SYS_gettid);
    REQUIRE_INT(pthread_create(&thread, NULL, wake_badly, &tid), 0);
    rig_run(&rig);
    pthread_join(thread, NULL);
    rig.reactor->ring_fd = fd;
    CHECK_INT(foreign_seen, FOREIGN);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->wakes_taken, 1); /* and not by the watchdog */
    bm_source_remove(rig.reactor, &source);
    rig_close(&rig);
    free(foreign_in);
}

TEST(wake_of_a_reactor_that_is_awake_costs_no_doorbell)
{
    struct rig other;
    rig_open(&rig);
    rig_open(&other);
    for (int i = 0; i < 10; i++)
        bm_reactor_wake(rig.reactor);
    CHECK_UINT(bm_reactor_stats(other.reactor)->wakes_skipped, 10);
    CHECK_UINT(bm_reactor_stats(other.reactor)->wakes_sent, 0);
    CHECK_UINT(bm_reactor_stats(other.reactor)->enters, 0);
    rig_close(&other);
    rig_close(&rig);
}

/* The peer goes to bed between the plain look and the end of the turn. */
static struct rig sleepy;

static void look_then_it_sleeps(struct bm_task *task)
{
    (void)task;
    bm_reactor_wake_soon(rig.reactor, sleepy.reactor);
    bm_reactor_wake_soon(rig.reactor, sleepy.reactor);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->wakes_sent, 0);
    atomic_store(&sleepy.reactor->sleeping, 1);
}

TEST(wake_soon_makes_sure_at_the_end_of_the_turn)
{
    struct bm_task task = {.fn = look_then_it_sleeps};
    rig_open(&sleepy);
    rig_open(&rig);
    bm_task_queue(rig.reactor, &task);
    bm_reactor_turn(rig.reactor);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->wakes_sent, 1);
    CHECK_UINT(atomic_load(&sleepy.reactor->sleeping), 0);
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(sleepy.reactor);
    CHECK_UINT(bm_reactor_stats(sleepy.reactor)->wakes_taken, 1);
    rig_close(&rig);
    rig_close(&sleepy);
}

/* More peers than the list takes; nothing is known of them but whether they sleep. */
enum { PEERS = BM_DIRTY_MAX + 6 };
static struct bm_reactor peers[PEERS];

static void greet_everybody(struct bm_task *task)
{
    (void)task;
    for (unsigned i = 0; i < PEERS; i++)
        bm_reactor_wake_soon(rig.reactor, &peers[i]);
    CHECK_UINT(rig.reactor->dirty_len, BM_DIRTY_MAX);
}

TEST(wake_soon_of_more_peers_than_are_kept_is_done_at_once)
{
    struct bm_task task = {.fn = greet_everybody};
    rig_open(&rig);
    bm_task_queue(rig.reactor, &task);
    bm_reactor_turn(rig.reactor);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->wakes_skipped, PEERS);
    CHECK_UINT(rig.reactor->dirty_len, 0);
    rig_close(&rig);
}

TEST(wake_in_a_signal_handler_of_a_reactors_thread_submits_nothing)
{
    rig_open(&sleepy);
    rig_open(&rig);
    bm_reactor_turn(sleepy.reactor); /* from now on it reads its eventfd */
    bm_reactor_turn(rig.reactor);
    uint64_t enters = bm_reactor_stats(rig.reactor)->enters;
    atomic_store(&sleepy.reactor->sleeping, 1);
    bm_reactor_wake_signal(sleepy.reactor);
    CHECK_UINT(atomic_load(&sleepy.reactor->sleeping), 0);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->enters, enters);
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(sleepy.reactor);
    CHECK_UINT(bm_reactor_stats(sleepy.reactor)->wakes_taken, 1);
    rig_close(&rig);
    rig_close(&sleepy);
}

TEST(wake_takes_the_flag_and_the_second_one_need_not_ring)
{
    rig_open(&sleepy);
    rig_open(&rig);
    atomic_store(&sleepy.reactor->sleeping, 1);
    bm_reactor_wake(sleepy.reactor);
    CHECK_UINT(atomic_load(&sleepy.reactor->sleeping), 0);
    bm_reactor_wake(sleepy.reactor);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->wakes_sent, 1);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->wakes_skipped, 1);
    /* Outside a turn there is no end of the turn to wait for. */
    atomic_store(&sleepy.reactor->sleeping, 1);
    bm_reactor_wake_soon(rig.reactor, sleepy.reactor);
    CHECK_UINT(atomic_load(&sleepy.reactor->sleeping), 0);
    rig_close(&rig);
    rig_close(&sleepy);
}

/* A doorbell takes along what stands in the queue, quiet sends included. */
static struct bm_op letter;
static struct msghdr letter_msg;
static int spare, letters_gone;

static void letter_gone(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)flags;
    CHECK_INT(res, 1);
    letters_gone++;
}

static void post_and_ring(struct bm_task *task)
{
    (void)task;
    bm_op_start(rig.reactor, &letter);
    bm_reactor_close_fd(rig.reactor, &spare); /* moves the line into the queue */
    bm_reactor_wake(sleepy.reactor);
    bm_op_hurry(rig.reactor, &letter);
}

TEST(wake_that_submits_a_quiet_send_lets_it_end)
{
    int fds[2];
    struct bm_task task = {.fn = post_and_ring};
    struct iovec part = {(char[]){"x"}, 1};
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&sleepy);
    rig_open(&rig);
    atomic_store(&sleepy.reactor->sleeping, 1);
    spare = dup(fds[0]);
    letters_gone = 0;
    letter_msg = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    bm_op_init(&letter, BM_OP_SENDMSG, letter_gone);
    letter.fd = fds[0];
    letter.addr = &letter_msg;
    letter.len = 1;
    letter.quiet = true;
    bm_task_queue(rig.reactor, &task);
    rig_settle(&rig);
    bm_reactor_turn(rig.reactor);
    rig_settle(&rig);
    CHECK_INT(letters_gone, 1);
    rig_close(&rig);
    rig_close(&sleepy);
    close_pair(fds);
}
