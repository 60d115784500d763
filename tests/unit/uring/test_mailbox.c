/* Calls posted into a reactor from other threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>

#include "tests/unit/uring/rig.h"
#include "uring/reactor_inner.h"

static struct rig rig;
static int ran;

static void count(void *arg)
{
    (void)arg;
    ran++;
}

TEST(mailbox_runs_what_the_owner_posts_in_order_and_not_from_inside)
{
    rig_open(&rig);
    ran = 0;
    for (int i = 0; i < 100; i++)
        CHECK_INT(bm_mailbox_post(rig.reactor, count, NULL), 0);
    CHECK_INT(ran, 0);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(ran, BM_TURN_MESSAGES); /* the budget of a turn */
    bm_reactor_turn(rig.reactor);
    CHECK_INT(ran, 100);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->mails, 100);
    rig_close(&rig);
}

static void stop_rig(void *arg)
{
    (void)arg;
    ran++;
    bm_reactor_stop(rig.reactor);
}

static void post_to_ourselves(struct bm_task *task)
{
    (void)task;
    CHECK_INT(bm_mailbox_post(rig.reactor, stop_rig, NULL), 0);
}

/* As another thread may in that moment: the reactor is awake, so that nobody rings. */
TEST(mailbox_filled_late_in_a_turn_is_looked_at_before_the_reactor_sleeps)
{
    struct bm_task task = {.fn = post_to_ourselves};
    rig_open(&rig);
    ran = 0;
    bm_task_queue(rig.reactor, &task);
    rig_run(&rig);
    CHECK_INT(ran, 1);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->sleeps, 0);
    rig_close(&rig);
}

TEST(mailbox_full_says_so_and_a_reactor_may_not_wait)
{
    rig_open(&rig);
    ran = 0;
    for (unsigned i = 0; i < BM_MAILBOX_SLOTS; i++)
        REQUIRE_INT(bm_mailbox_post(rig.reactor, count, NULL), 0);
    CHECK_INT(bm_mailbox_post(rig.reactor, count, NULL), -EAGAIN);
    CHECK_INT(bm_mailbox_post_wait(rig.reactor, count, NULL, UINT64_MAX), -EDEADLK);
    while (ran < (int)BM_MAILBOX_SLOTS)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(bm_mailbox_post(rig.reactor, count, NULL), 0);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(ran, BM_MAILBOX_SLOTS + 1);
    rig_close(&rig);
}

enum { PRODUCERS = 4, POSTS = 25000 };

struct producer {
    pthread_t thread;
    int number;
    int failed;
};

static int next_of[PRODUCERS];
static int disorder, done;

static void check_order(void *arg)
{
    unsigned packed = (unsigned)(uintptr_t)arg;
    unsigned who = packed % PRODUCERS;
    int number = (int)(packed / PRODUCERS);
    disorder += number != next_of[who];
    next_of[who] = number + 1;
    if (++done == PRODUCERS * POSTS)
        bm_reactor_stop(rig.reactor);
}

static void *produce(void *arg)
{
    struct producer *self = arg;
    for (int i = 0; i < POSTS; i++) {
        void *mail = (void *)(uintptr_t)(i * PRODUCERS + self->number);
        if (bm_mailbox_post_wait(rig.reactor, check_order, mail, UINT64_MAX) != 0)
            self->failed++;
    }
    return NULL;
}

TEST(mailbox_takes_a_hundred_thousand_posts_of_four_threads)
{
    static const enum bm_spin modes[] = {BM_SPIN_NEVER, BM_SPIN_ADAPTIVE};
    for (size_t mode = 0; mode < 2; mode++) {
        struct producer producers[PRODUCERS] = {0};
        test_note("spin %d", modes[mode]);
        rig_open_with(&rig, (struct bm_reactor_options){.spin = modes[mode], .may_spin = true});
        disorder = done = 0;
        for (int i = 0; i < PRODUCERS; i++) {
            next_of[i] = 0;
            producers[i].number = i;
            REQUIRE_INT(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
        }
        rig_run(&rig);
        for (int i = 0; i < PRODUCERS; i++) {
            pthread_join(producers[i].thread, NULL);
            CHECK_INT(producers[i].failed, 0);
            CHECK_INT(next_of[i], POSTS);
        }
        CHECK_INT(disorder, 0);
        CHECK_UINT(bm_reactor_stats(rig.reactor)->mails, PRODUCERS * POSTS);
        rig_close(&rig);
    }
}

struct waiting {
    pthread_t thread;
    uint64_t deadline_ns;
    int result;
};

static void *post_and_wait(void *arg)
{
    struct waiting *waiting = arg;
    waiting->result = bm_mailbox_post_wait(rig.reactor, count, NULL, waiting->deadline_ns);
    return NULL;
}

static void fill(void)
{
    while (bm_mailbox_post(rig.reactor, count, NULL) == 0)
        ;
}

static void start_waiting(struct waiting *waiting, uint64_t deadline_ns)
{
    *waiting = (struct waiting){.deadline_ns = deadline_ns, .result = 1};
    REQUIRE_INT(pthread_create(&waiting->thread, NULL, post_and_wait, waiting), 0);
}

static void until_waiters(unsigned n)
{
    while (atomic_load(&rig.reactor->mailbox.waiters) != n)
        sched_yield();
}

TEST(mailbox_full_lets_other_threads_wait_for_room)
{
    struct waiting waiting[3];
    rig_open(&rig);
    ran = 0;
    fill();
    for (int i = 0; i < 3; i++)
        start_waiting(&waiting[i], UINT64_MAX);
    until_waiters(3);
    while (ran < (int)BM_MAILBOX_SLOTS + 3) {
        bm_reactor_turn(rig.reactor);
        sched_yield();
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(waiting[i].thread, NULL);
        CHECK_INT(waiting[i].result, 0);
    }
    CHECK_INT(atomic_load(&rig.reactor->mailbox.waiters), 0);
    rig_close(&rig);
}

TEST(mailbox_wait_ends_at_its_deadline)
{
    struct waiting waiting;
    rig_open(&rig);
    fill();
    start_waiting(&waiting, bm_clock_now_ns() + 2 * BM_NS_PER_MS);
    pthread_join(waiting.thread, NULL);
    CHECK_INT(waiting.result, -ETIMEDOUT);
    start_waiting(&waiting, 1); /* long ago */
    pthread_join(waiting.thread, NULL);
    CHECK_INT(waiting.result, -ETIMEDOUT);
    rig_close(&rig);
}

TEST(mailbox_shut_refuses_ends_the_waits_and_runs_what_was_accepted)
{
    struct waiting waiting;
    rig_open(&rig);
    ran = 0;
    fill();
    start_waiting(&waiting, UINT64_MAX);
    until_waiters(1);
    bm_reactor_shut(rig.reactor);
    pthread_join(waiting.thread, NULL);
    CHECK_INT(waiting.result, -ESHUTDOWN);
    CHECK_INT(bm_mailbox_post(rig.reactor, count, NULL), -ESHUTDOWN);
    rig_close(&rig);
    CHECK_INT(ran, BM_MAILBOX_SLOTS);
}

/* Posts race with the end of the reactor: what was accepted runs, the rest is refused. */
static _Atomic int accepted, racing;

static void *post_until_refused(void *arg)
{
    (void)arg;
    int r;
    do {
        r = bm_mailbox_post(rig.reactor, count, NULL);
        if (r == 0)
            accepted++;
        else if (r == -EAGAIN)
            sched_yield();
        racing = 1;
    } while (r != -ESHUTDOWN);
    return NULL;
}

TEST(mailbox_loses_no_call_when_the_reactor_ends_under_fire)
{
    for (int round = 0; round < 20; round++) {
        pthread_t threads[3];
        rig_open(&rig);
        ran = 0;
        accepted = 0;
        racing = 0;
        for (int i = 0; i < 3; i++)
            REQUIRE_INT(pthread_create(&threads[i], NULL, post_until_refused, NULL), 0);
        while (!racing || round > ran)
            bm_reactor_turn(rig.reactor);
        if (round % 2)
            bm_reactor_shut(rig.reactor);
        else
            bm_reactor_close(rig.reactor);
        for (int i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        rig_close(&rig);
        CHECK_INT(ran, accepted);
    }
}

/* A thread that was stopped in the middle of its post. */
static _Atomic bool closed;

static void *finish_post(void *arg)
{
    struct bm_mailbox *box = &rig.reactor->mailbox;
    (void)arg;
    while (!atomic_load(&box->shut))
        sched_yield();
    for (int i = 0; i < 1000; i++)
        sched_yield();
    CHECK(!closed);
    box->slots[0].fn = count;
    atomic_store(&box->slots[0].seq, 1);
    atomic_fetch_sub(&box->inside, 1);
    return NULL;
}

TEST(mailbox_post_under_way_is_waited_for_by_the_end_of_the_reactor)
{
    pthread_t thread;
    rig_open(&rig);
    ran = 0;
    closed = false;
    atomic_fetch_add(&rig.reactor->mailbox.inside, 1);
    atomic_fetch_add(&rig.reactor->mailbox.tail, 1);
    REQUIRE_INT(pthread_create(&thread, NULL, finish_post, NULL), 0);
    bm_reactor_close(rig.reactor);
    closed = true;
    pthread_join(thread, NULL);
    CHECK_INT(ran, 1);
    rig_close(&rig);
}

/* --- posters of every kind, and an end at any moment ------------------------------------------------ */

enum { POSTERS = 4, END_ROUNDS = 60 };

struct poster {
    pthread_t thread;
    struct test_random random;
    unsigned number;
    unsigned tried; /* numbers that were handed in */
    /* What became of them; those refused leave gaps. */
    unsigned accepted, full, late;
    uint64_t sum;
    int last; /* what ended it */
};

/* The owner's. */
static struct {
    uint64_t sum, order_wrong;
    unsigned ran, last_of[POSTERS];
} box_end;

static _Atomic unsigned tried;

static void take_part(void *arg)
{
    unsigned packed = (unsigned)(uintptr_t)arg;
    unsigned who = packed % POSTERS, number = packed / POSTERS;
    box_end.order_wrong += number <= box_end.last_of[who];
    box_end.last_of[who] = number;
    box_end.sum += packed;
    box_end.ran++;
}

static void *post_every_way(void *arg)
{
    struct poster *me = arg;
    int r;
    do {
        unsigned packed = ++me->tried * POSTERS + me->number;
        void *mail = (void *)(uintptr_t)packed;
        uint64_t soon_ns = bm_clock_now_ns() + 50 * BM_NS_PER_US;
        switch (test_random_below(&me->random, 3)) {
        case 0:
            r = bm_mailbox_post(rig.reactor, take_part, mail);
            if (r != -EAGAIN)
                break;
            __attribute__((fallthrough));
        case 1:
            r = bm_mailbox_post_wait(rig.reactor, take_part, mail, soon_ns);
            break;
        default:
            r = bm_mailbox_post_wait(rig.reactor, take_part, mail, UINT64_MAX);
            break;
        }
        if (r == 0) {
            me->accepted++;
            me->sum += packed;
        }
        me->full += r == -EAGAIN;
        me->late += r == -ETIMEDOUT;
        atomic_fetch_add(&tried, 1);
        if (test_random_below(&me->random, 32) == 0)
            sched_yield();
    } while (r == 0 || r == -EAGAIN || r == -ETIMEDOUT);
    me->last = r;
    return NULL;
}

TEST(mailbox_ends_at_any_moment_under_posters_of_every_kind)
{
    struct test_random random = test_random(0);
    for (unsigned round = 0; round < END_ROUNDS; round++) {
        struct poster posters[POSTERS];
        test_note("round %u", round);
        rig_open(&rig);
        memset(&box_end, 0, sizeof(box_end));
        atomic_store(&tried, 0);
        for (unsigned i = 0; i < POSTERS; i++) {
            posters[i] =
                (struct poster){.number = i, .random = test_random(test_random_next(&random))};
            REQUIRE_INT(pthread_create(&posters[i].thread, NULL, post_every_way, &posters[i]), 0);
        }
        /* In some rounds nobody reads, so that the box is full and they wait; in others it never is. */
        unsigned enough = (unsigned)test_random_below(&random, 4000);
        bool reads = round % 3 != 0;
        if (!reads)
            enough = (unsigned)test_random_below(&random, BM_MAILBOX_SLOTS);
        while (atomic_load(&tried) < enough) {
            if (reads)
                bm_reactor_turn(rig.reactor);
            if (test_random_below(&random, 4) == 0)
                sched_yield();
        }
        if (round % 6 == 3) /* they wait for room, all of them */
            until_waiters(POSTERS);
        if (round % 2)
            bm_reactor_shut(rig.reactor);
        else
            bm_reactor_close(rig.reactor);
        uint64_t sum = 0;
        unsigned accepted_all = 0;
        for (unsigned i = 0; i < POSTERS; i++) {
            pthread_join(posters[i].thread, NULL);
            CHECK_INT(posters[i].last, -ESHUTDOWN);
            sum += posters[i].sum;
            accepted_all += posters[i].accepted;
        }
        rig_close(&rig);
        CHECK_UINT(box_end.ran, accepted_all);
        CHECK_UINT(box_end.sum, sum);
        CHECK_UINT(box_end.order_wrong, 0);
    }
}
