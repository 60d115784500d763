/* Runs part of a case without root's exemptions, in a child process that gives its privileges up. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/run.h"
#include "tests/support/test.h"

#define NOBODY 65534 /* the kernel's overflowuid; nothing else on the machine should run as it */
#define EXIT_SKIP 77 /* as in the runners of automake and liburing */

static int become_nobody(void)
{
    if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
        return -errno;
    /* A change of uid makes the process undumpable, and then root owns its /proc/self. */
    if (prctl(PR_SET_DUMPABLE, 1) < 0)
        return -errno;
    return 0;
}

static int run_child(void (*fn)(void), int reason_fd)
{
    int r = become_nobody();
    if (r < 0) {
        fprintf(stderr, "    cannot become uid %d: %s\n", NOBODY, strerror(-r));
        return 1;
    }
    enum test_outcome outcome = test_run_body(fn);
    if (outcome == TEST_SKIPPED) {
        ssize_t n = write(reason_fd, test_skip_reason(), strlen(test_skip_reason()));
        (void)n;
        return EXIT_SKIP;
    }
    return outcome == TEST_PASSED ? 0 : 1;
}

void test_run_as_nobody(void (*fn)(void))
{
    if (geteuid() != 0)
        SKIP("needs root, to become another user");

    int reason_fds[2];
    REQUIRE_INT(pipe(reason_fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        int status = run_child(fn, reason_fds[1]);
        fflush(NULL);
        _exit(status);
    }
    close(reason_fds[1]);
    int status = 0;
    pid_t waited;
    do
        waited = waitpid(pid, &status, 0);
    while (waited < 0 && errno == EINTR);
    char reason[200] = "";
    ssize_t n = read(reason_fds[0], reason, sizeof(reason) - 1);
    close(reason_fds[0]);
    CHECK_INT(waited, pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP)
        SKIP(n > 0 ? reason : "the part that runs as another user gave no reason");
    CHECK_INT(status, 0); /* a wait status: 256 is a failed check, below that a signal */
}
