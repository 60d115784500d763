/* The kernel refuses a part of a start that has begun well: the ring of a later reactor, or what is
 * registered with one. Then none runs, the error is told, and nothing is left of those that could have.
 *
 * The calls of liburing stand here before the library's own, and fail when it is their turn. */
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/served.h"
#include "tests/support/snapshot.h"

enum part { RING, BUFFERS, RING_FD, FORKING, PARTS };

static const char *const part_names[] = {"the ring", "the buffers", "the ring's number",
                                         "a ring that is not inherited"};

/* The call of that part that fails: 1 is the next one, 0 none. Reactors are made on several threads. */
static atomic_int countdown[PARTS];
static int part_error;

static bool fails(enum part part)
{
    int left = atomic_load(&countdown[part]);
    while (left > 0 && !atomic_compare_exchange_weak(&countdown[part], &left, left - 1))
        ;
    return left == 1;
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
    int (*real)(unsigned, struct io_uring *, struct io_uring_params *);
    if (fails(RING))
        return -part_error;
    *(void **)&real = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
    return real ? real(entries, ring, p) : -ENOSYS;
}

int io_uring_register_buf_ring(struct io_uring *ring, struct io_uring_buf_reg *reg, unsigned flags)
{
    int (*real)(struct io_uring *, struct io_uring_buf_reg *, unsigned);
    if (fails(BUFFERS))
        return -part_error;
    *(void **)&real = dlsym(RTLD_NEXT, "io_uring_register_buf_ring");
    return real ? real(ring, reg, flags) : -ENOSYS;
}

int io_uring_register_ring_fd(struct io_uring *ring)
{
    int (*real)(struct io_uring *);
    if (fails(RING_FD))
        return -part_error;
    *(void **)&real = dlsym(RTLD_NEXT, "io_uring_register_ring_fd");
    return real ? real(ring) : -ENOSYS;
}

int io_uring_ring_dontfork(struct io_uring *ring)
{
    int (*real)(struct io_uring *);
    if (fails(FORKING))
        return -part_error;
    *(void **)&real = dlsym(RTLD_NEXT, "io_uring_ring_dontfork");
    return real ? real(ring) : -ENOSYS;
}

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

static void count(void *arg)
{
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static void nobody_asks(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_reply(request, NULL);
}

/* A thread that would like to connect all the while. */
static atomic_bool enough;

static void *connect_in_vain(void *arg)
{
    beam_session *session = NULL;
    int r;
    do {
        r = beam_connect_wait(arg, "ring:0", NULL, &session);
        if (r != -ESHUTDOWN)
            CHECK_INT(r, -ESHUTDOWN);
    } while (!atomic_load(&enough));
    return NULL;
}

static int expected(enum part part, int error)
{
    bool refused = error == EPERM || error == ENOSYS;
    if (refused && part != BUFFERS)
        return -BEAM_ENO_IO_URING;
    return -error;
}

enum { REACTORS = 3 };

static void refuse(enum part part, int nth, int error, bool run)
{
    char path[200];
    atomic_uint ran = 0;
    pthread_t thread;
    struct stat st;
    beam_runtime *runtime;
    test_note("%s: %s of reactor %d, %s", strerror(error), part_names[part], nth,
              run ? "beam_run" : "beam_start");
    snprintf(path, sizeof(path), "unix:%s/socket", test_tmpdir());
    REQUIRE_INT(
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = REACTORS, .transports = transports),
                         &runtime),
        0);
    REQUIRE_INT(beam_serve(runtime, "x", nobody_asks, NULL), 0);
    REQUIRE_INT(beam_listen(runtime, path, NULL), 0);
    for (unsigned i = 0; i < REACTORS; i++)
        CHECK_INT(beam_post(runtime, i, count, &ran), 0);
    atomic_store(&enough, false);
    REQUIRE_INT(pthread_create(&thread, NULL, connect_in_vain, runtime), 0);

    part_error = error;
    atomic_store(&countdown[part], nth);
    CHECK_INT(run ? beam_run(runtime) : beam_start(runtime), expected(part, error));
    CHECK_INT(atomic_load(&countdown[part]), 0);

    CHECK_INT(beam_start(runtime), -EALREADY);
    for (unsigned i = 0; i < REACTORS; i++)
        CHECK_INT(beam_post(runtime, i, count, &ran), -ESHUTDOWN);
    CHECK_INT(beam_listen(runtime, "unix:@never", NULL), -ESHUTDOWN);
    beam_runtime_stop(runtime);
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
    beam_runtime_free(runtime);
    CHECK_UINT(atomic_load(&ran), 0);
    CHECK_INT(stat(path + strlen("unix:"), &st), -1);
}

TEST(a_later_reactor_that_is_refused_ends_the_start_and_leaves_nothing)
{
    static const int errors[] = {EPERM, ENOSYS, ENOMEM, EMFILE};
    served_need_io_uring();
    for (unsigned part = 0; part < PARTS; part++)
        for (int nth = 1; nth <= REACTORS; nth++)
            for (unsigned e = 0; e < 4; e++) {
                /* A ring whose number finds no place works as well: kernel.c. */
                if (part == RING_FD && e >= 2)
                    continue;
                refuse(part, nth, errors[e], false);
                refuse(part, nth, errors[e], true);
            }
    CHECK(strstr(beam_runtime_why(), "io_uring is not available"));
}

TEST(an_embedded_reactor_that_is_refused_leaves_nothing)
{
    static const int errors[] = {EPERM, ENOSYS, ENOMEM, EMFILE};
    served_need_io_uring();
    for (unsigned part = 0; part < PARTS; part++)
        for (unsigned e = 0; e < 4; e++) {
            beam_runtime *runtime = NULL;
            if (part == RING_FD && e >= 2)
                continue;
            test_note("%s: %s", strerror(errors[e]), part_names[part]);
            part_error = errors[e];
            atomic_store(&countdown[part], 1);
            CHECK_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &runtime),
                      expected(part, errors[e]));
            CHECK_PTR(runtime, NULL);
        }
}

TEST(a_start_after_one_that_was_refused_works)
{
    served_need_io_uring();
    refuse(RING, REACTORS, ENOMEM, false);
    struct served *served = served_start(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .name = "served"));
    served_check(served);
    served_stop(served);
}

/* --- the kernel itself, at a limit ------------------------------------------------------------- */

/* Runs fn in a child, whose checks it answers for with its exit code. */
static int in_child(int (*fn)(void))
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        alarm(20);
        struct test_snapshot before = test_snapshot_take();
        int code = fn();
        struct test_snapshot after = test_snapshot_take();
        _exit(test_snapshot_same(&before, &after) ? code : 95);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Descriptors for some reactors, and not for all. */
static int start_with_few_files(void)
{
    beam_runtime *runtime;
    struct rlimit low = {24, 24};
    if (setrlimit(RLIMIT_NOFILE, &low) < 0 ||
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 16), &runtime) < 0)
        return 99;
    int code = beam_exit_code(beam_start(runtime), NULL);
    beam_runtime_free(runtime);
    return code;
}

static void run_serve_with_few_files(void)
{
    const char *program = getenv("BEAM_PROGRAM");
    char url[80];
    struct rlimit low = {24, 24};
    snprintf(url, sizeof(url), "unix:@beam-test-few-%d", (int)getpid());
    setrlimit(RLIMIT_NOFILE, &low);
    execl(program, program, "serve", "echo", "--reactors", "16", "--listen", url, (char *)NULL);
}

TEST(too_few_files_for_all_reactors_end_the_start_and_leave_nothing)
{
    served_need_io_uring();
    CHECK_INT(in_child(start_with_few_files), 6);
    if (!getenv("BEAM_PROGRAM"))
        return;

    char text[2000];
    int fds[2], status = 0;
    REQUIRE_INT(pipe(fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        alarm(20);
        run_serve_with_few_files();
        _exit(96);
    }
    close(fds[1]);
    size_t len = 0;
    ssize_t n;
    while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    close(fds[0]);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(WEXITSTATUS(status), 6);
    CHECK_STR(text, "beam: Too many open files\n");
}

/* No memory may be locked: kernels of today do not count what a reactor takes, others may refuse it. */
static void start_without_locked_memory(void)
{
    struct test_snapshot before = test_snapshot_take();
    struct rlimit none = {0, 0};
    beam_runtime *runtime;
    REQUIRE_INT(setrlimit(RLIMIT_MEMLOCK, &none), 0);
    REQUIRE_INT(
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .transports = transports), &runtime),
        0);
    REQUIRE_INT(beam_serve(runtime, "x", nobody_asks, NULL), 0);
    int r = beam_start(runtime);
    CHECK(r == 0 || r == -ENOMEM);
    if (r == 0) {
        beam_session *session = NULL;
        beam_message *message = beam_message_new();
        CHECK_INT(beam_connect_wait(runtime, "ring:1", NULL, &session), 0);
        CHECK_INT(beam_call_wait(session, "x", &message, NULL, NULL), 0);
        beam_session_free(session);
    }
    beam_runtime_free(runtime);
    struct test_snapshot after = test_snapshot_take();
    CHECK(test_snapshot_same(&before, &after));
    test_snapshot_free(&before);
    test_snapshot_free(&after);
}

TEST(without_memory_to_lock_a_start_works_or_says_so)
{
    served_need_io_uring();
    test_run_as_nobody(start_without_locked_memory);
    CHECK(true);
}
