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

static void try_threads(void)
{
    beam_runtime *runtime = NULL;
    int r =
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports, .reactors = 2), &runtime);
    if (r == 0)
        r = beam_start(runtime);
    if (beam_platform()->io_uring)
        _exit(97);
    fprintf(stderr, "%s\n", beam_runtime_why());
    beam_runtime_free(runtime);
    _exit(r == -BEAM_ENO_IO_URING ? 3 : 1);
}

static void try_embedded(void)
{
    beam_runtime *runtime = NULL;
    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports, .embedded = true),
                             &runtime);
    fprintf(stderr, "%s\n", beam_runtime_why());
    _exit(r == -BEAM_ENO_IO_URING ? beam_exit_code(r, NULL) : 1);
}

static void try_run(void)
{
    beam_runtime *runtime = NULL;
    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &runtime);
    if (r == 0)
        r = beam_run(runtime);
    int code = beam_exit_code(r, stderr);
    beam_runtime_free(runtime);
    _exit(code);
}

static void check_text(const char *text)
{
    CHECK(strstr(text, "io_uring") != NULL);
    CHECK(strlen(text) > 40);
    if (!strstr(text, "io_uring"))
        fprintf(stderr, "    said: %s\n", text);
}

TEST(without_io_uring_a_start_says_so_with_cause_and_cure)
{
    char text[2000];
    static const unsigned errors[] = {EPERM, ENOSYS, ENOMEM};
    static void (*const ways[])(void) = {try_threads, try_embedded, try_run};
    for (unsigned e = 0; e < 2; e++) {
        for (unsigned i = 0; i < 3; i++) {
            test_note("way %u with %s", i, strerror((int)errors[e]));
            CHECK_INT(in_child(errors[e], ways[i], text, sizeof(text)), 3);
            check_text(text);
        }
    }
}

static void run_program(void)
{
    const char *program = getenv("BEAM_PROGRAM");
    char url[80];
    snprintf(url, sizeof(url), "unix:@beam-test-none-%d", (int)getpid());
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    execl(program, program, "serve", "echo", "--listen", url, (char *)NULL);
    _exit(96);
}

TEST(without_io_uring_the_program_ends_with_3_and_one_message)
{
    char text[4000];
    if (!getenv("BEAM_PROGRAM"))
        SKIP("BEAM_PROGRAM does not name the program");
    CHECK_INT(in_child(EPERM, run_program, text, sizeof(text)), 3);
    check_text(text);
    /* One message, and it says so once. */
    const char *first = strstr(text, "beam: ");
    REQUIRE(first != NULL);
    CHECK(strstr(first + 1, "beam: ") == NULL);
    CHECK(strstr(text, "listening") == NULL); /* nobody does */
    const char *what = strstr(text, "io_uring is not available");
    REQUIRE(what != NULL);
    CHECK(strstr(what + 1, "io_uring is not available") == NULL);
}
