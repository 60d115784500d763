/* A reactor inside libuv: one poll handle on its descriptor, and nothing else. */
#define _GNU_SOURCE
#include "tests/unit/uring/rig.h"

#ifdef BEAM_HAVE_LIBUV

#include <pthread.h>
#include <sys/syscall.h>
#include <uv.h>

#include "tests/unit/uring/asleep.h"

static struct rig rig;
static uv_loop_t loop;
static uv_poll_t handle;
static uv_timer_t guard;
static uv_prepare_t before_poll;
static uv_check_t after_poll;
static bool timed_out;
static _Atomic bool host_waits;
static pid_t host_tid;

/* libuv keeps a pipe for signals from its first loop on: not a leak of the first case. */
__attribute__((constructor)) static void open_libuv_once(void)
{
    uv_loop_init(&loop);
    uv_loop_close(&loop);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)events;
    CHECK_INT(status, 0);
    CHECK_INT(bm_reactor_turn(rig.reactor), 0);
}

static void on_guard(uv_timer_t *timer)
{
    (void)timer;
    timed_out = true;
    uv_stop(&loop);
}

static void waits(uv_prepare_t *prepare)
{
    (void)prepare;
    host_waits = true;
}

static void woke(uv_check_t *check)
{
    (void)check;
    host_waits = false;
}

static void open_loop(void)
{
    rig_open_with(&rig, (struct bm_reactor_options){.embedded = true});
    REQUIRE_INT(uv_loop_init(&loop), 0);
    REQUIRE_INT(uv_poll_init(&loop, &handle, bm_reactor_fd(rig.reactor)), 0);
    REQUIRE_INT(uv_poll_start(&handle, UV_READABLE, on_readable), 0);
    uv_timer_init(&loop, &guard);
    uv_timer_start(&guard, on_guard, 20000, 0);
    uv_prepare_init(&loop, &before_poll);
    uv_prepare_start(&before_poll, waits);
    uv_check_init(&loop, &after_poll);
    uv_check_start(&after_poll, woke);
    timed_out = false;
    host_tid = (pid_t)syscall(SYS_gettid);
}

static void close_loop(void)
{
    uv_close((uv_handle_t *)&handle, NULL);
    uv_close((uv_handle_t *)&guard, NULL);
    uv_close((uv_handle_t *)&before_poll, NULL);
    uv_close((uv_handle_t *)&after_poll, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&loop), 0);
    CHECK(!timed_out);
    rig_close(&rig);
}

static void stop_loop(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)flags;
    CHECK_INT(res, 1);
    uv_stop(&loop);
}

static void *send_when_asleep(void *arg)
{
    until_asleep(host_tid, &host_waits);
    CHECK_INT(send(*(int *)arg, "x", 1, 0), 1);
    return NULL;
}

TEST(libuv_is_woken_by_a_completion)
{
    int fds[2];
    char byte;
    struct bm_op op;
    socket_pair(SOCK_STREAM, fds);
    open_loop();
    bm_op_init(&op, BM_OP_RECV, stop_loop);
    op.fd = fds[0];
    op.addr = &byte;
    op.len = 1;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        bm_op_start(rig.reactor, &op);
        REQUIRE_INT(pthread_create(&thread, NULL, send_when_asleep, &fds[1]), 0);
        uv_run(&loop, UV_RUN_DEFAULT);
        pthread_join(thread, NULL);
        CHECK(bm_op_idle(&op));
    }
    close_loop();
    close_pair(fds);
}

static void on_timer(struct bm_timer *timer)
{
    (void)timer;
    uv_stop(&loop);
}

TEST(libuv_is_woken_by_a_timer_of_the_reactor)
{
    struct bm_timer timer;
    open_loop();
    bm_timer_init(&timer, on_timer);
    uint64_t at_ns = bm_clock_now_ns() + 3 * BM_NS_PER_MS;
    bm_timer_arm(rig.reactor, &timer, at_ns);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(bm_clock_now_ns() >= at_ns);
    close_loop();
}

static void mail(void *arg)
{
    (void)arg;
    uv_stop(&loop);
}

static void *post_when_asleep(void *arg)
{
    (void)arg;
    until_asleep(host_tid, &host_waits);
    CHECK_INT(bm_mailbox_post(rig.reactor, mail, NULL), 0);
    return NULL;
}

TEST(libuv_is_woken_by_mail_of_another_thread)
{
    open_loop();
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        REQUIRE_INT(pthread_create(&thread, NULL, post_when_asleep, NULL), 0);
        uv_run(&loop, UV_RUN_DEFAULT);
        pthread_join(thread, NULL);
    }
    close_loop();
}

#else

TEST(libuv_drives_a_reactor)
{
    SKIP("libuv's headers are not installed (libuv1-dev)");
}

#endif
