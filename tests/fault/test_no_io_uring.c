/* A machine whose kernel refuses io_uring, as containers and hardened systems do: one error, one text
 * with cause and cure, no crash. Played by a seccomp filter in a child. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <beam/beam.h>

#include "tests/support/snapshot.h"
#include "tests/support/test.h"

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

static int refuse_io_uring(unsigned error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return -errno;
    return 0;
}

/* Runs fn in a child where io_uring_setup(2) fails so; what it wrote to stderr is in text. */
static int in_child(unsigned error, void (*fn)(void), char *text, size_t cap)
{
    int fds[2], status = 0;
    size_t len = 0;
    REQUIRE_INT(pipe(fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        alarm(20);
        if (refuse_io_uring(error) < 0)
            _exit(99);
        fn();
        _exit(98);
    }
    close(fds[1]);
    ssize_t n;
    while (len < cap - 1 && (n = read(fds[0], text + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    close(fds[0]);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Says what the library says, and ends with the code that stands for it, unless something was left. */
__attribute__((noreturn)) static void end(int r, const struct test_snapshot *before)
{
    int code = beam_exit_code(r, stderr);
    struct test_snapshot after = test_snapshot_take();
    _exit(test_snapshot_same(before, &after) ? code : 95);
}

static void try_threads(void)
{
    struct test_snapshot before = test_snapshot_take();
    beam_runtime *runtime = NULL;
    beam_session *session = NULL;
    int r =
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports, .reactors = 2), &runtime);
    if (r == 0)
        r = beam_start(runtime);
    /* A lack of memory or files is the moment's, and not the machine's. */
    if (beam_platform()->io_uring == (r == -BEAM_ENO_IO_URING))
        _exit(97);
    if (beam_connect_wait(runtime, "ring:0", NULL, &session) != -ESHUTDOWN)
        _exit(94);
    beam_runtime_free(runtime);
    end(r, &before);
}

static void try_embedded(void)
{
    struct test_snapshot before = test_snapshot_take();
    beam_runtime *runtime = NULL;
    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports, .embedded = true),
                             &runtime);
    end(r, &before);
}

static void try_run(void)
{
    struct test_snapshot before = test_snapshot_take();
    beam_runtime *runtime = NULL;
    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &runtime);
    if (r == 0)
        r = beam_run(runtime);
    beam_runtime_free(runtime);
    end(r, &before);
}

/* What the kernel may say, the exit code that docs and <beam/runtime.h> give it, and what is told. */
static const struct {
    int error, code;
    const char *text;
} refusals[] = {
    {EPERM, 3, "io_uring is not available"},
    {EACCES, 3, "io_uring is not available"},
    {ENOSYS, 3, "io_uring is not available"},
    {ENOMEM, 6, "memory"},
    {EMFILE, 6, "files"},
};

/* One line of one message, which says this. */
static void check_one_message(const char *text, const char *what)
{
    const char *first = strstr(text, "beam: ");
    REQUIRE(first != NULL);
    CHECK(strstr(first + 1, "beam: ") == NULL);
    const char *said = strstr(text, what);
    CHECK(said != NULL);
    CHECK(said && !strstr(said + 1, what));
    const char *end_of_line = strchr(text, '\n');
    CHECK(end_of_line && end_of_line[1] == '\0');
    if (!said || !end_of_line || end_of_line[1])
        fprintf(stderr, "    said: %s\n", text);
}

TEST(a_start_that_the_kernel_refuses_says_why_and_leaves_nothing)
{
    char text[2000];
    static void (*const ways[])(void) = {try_threads, try_embedded, try_run};
    for (size_t e = 0; e < sizeof(refusals) / sizeof(refusals[0]); e++) {
        for (unsigned i = 0; i < 3; i++) {
            test_note("way %u with %s", i, strerror(refusals[e].error));
            CHECK_INT(in_child((unsigned)refusals[e].error, ways[i], text, sizeof(text)),
                      refusals[e].code);
            check_one_message(text, refusals[e].text);
            /* Cause and cure, where it is io_uring as such. */
            CHECK(refusals[e].code != 3 || strlen(text) > 100);
            CHECK(refusals[e].code != 3 || strstr(text, "seccomp"));
        }
    }
}

static const char *verb;

static void run_program(void)
{
    const char *program = getenv("BEAM_PROGRAM");
    char url[80];
    snprintf(url, sizeof(url), "unix:@beam-test-none-%d", (int)getpid());
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    if (strcmp(verb, "serve") == 0)
        execl(program, program, verb, "echo", "--listen", url, (char *)NULL);
    else
        execl(program, program, verb, url, "echo", (char *)NULL);
    _exit(96);
}

TEST(a_start_that_the_kernel_refuses_ends_each_verb_with_its_code_and_one_message)
{
    char text[4000];
    static const char *const verbs[] = {"serve", "call", "watch"};
    if (!getenv("BEAM_PROGRAM"))
        SKIP("BEAM_PROGRAM does not name the program");
    for (size_t v = 0; v < 3; v++) {
        for (size_t e = 0; e < sizeof(refusals) / sizeof(refusals[0]); e++) {
            verb = verbs[v];
            test_note("beam %s with %s", verb, strerror(refusals[e].error));
            CHECK_INT(in_child((unsigned)refusals[e].error, run_program, text, sizeof(text)),
                      refusals[e].code);
            check_one_message(text, refusals[e].text);
            CHECK(strstr(text, "listening") == NULL); /* nobody does */
        }
    }
}
