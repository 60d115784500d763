/* What is found out about the kernel, and what is said when there is no io_uring. */
#define _GNU_SOURCE
#include <beam/error.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/uring/rig.h"
#include "uring/features.h"

TEST(features_name_the_kernel_and_the_library)
{
    const struct bm_features *features = bm_features_get();
    CHECK(strlen(features->kernel) > 0);
    CHECK(strchr(features->liburing, '.') != NULL);
    CHECK_PTR(bm_features_get(), features);
}

/* As a container engine does it: the filter answers a system call with an error of its choice. */
static void refuse(uint32_t call, uint32_t error)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof(program) / sizeof(program[0]), program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        _exit(77);
}

struct refusal {
    int result;
    char why[1024];
};

static struct refusal refused_in_child(uint32_t call, int error)
{
    struct refusal refusal = {.result = 12345};
    int pipe_fds[2];
    REQUIRE_INT(pipe(pipe_fds), 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        struct bm_reactor_options options = {.spin = BM_SPIN_NEVER};
        struct bm_reactor *reactor = NULL;
        refuse(call, (uint32_t)error);
        refusal.result = bm_reactor_new(&options, &reactor);
        strncpy(refusal.why, bm_features_why(), sizeof(refusal.why) - 1);
        _exit(write(pipe_fds[1], &refusal, sizeof(refusal)) == sizeof(refusal) ? 0 : 1);
    }
    close(pipe_fds[1]);
    CHECK_INT(read(pipe_fds[0], &refusal, sizeof(refusal)), sizeof(refusal));
    close(pipe_fds[0]);
    int status;
    waitpid(pid, &status, 0);
    CHECK_INT(status, 0);
    return refusal;
}

TEST(no_io_uring_is_one_error_with_the_cause_and_the_cure)
{
    static const struct {
        int error;
        const char *name;
    } rows[] = {{EPERM, "EPERM"}, {ENOSYS, "ENOSYS"}, {EACCES, "EACCES"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct refusal refusal = refused_in_child(__NR_io_uring_setup, rows[i].error);
        test_note("%s: %s", rows[i].name, refusal.why);
        CHECK_INT(refusal.result, -BEAM_ENO_IO_URING);
        CHECK(strstr(refusal.why, rows[i].name) != NULL);
        CHECK(strstr(refusal.why, "kernel.io_uring_disabled") != NULL);
        CHECK(strstr(refusal.why, "Seccomp: 2") != NULL);
        CHECK(strstr(refusal.why, "seccomp=") != NULL); /* the cure */
        CHECK(strchr(refusal.why, '\n') == NULL);
    }
}

/* A profile that was opened by halves. */
TEST(io_uring_that_may_be_set_up_but_not_used_is_none)
{
    static const uint32_t calls[] = {__NR_io_uring_enter, __NR_io_uring_register};
    static const int errors[] = {EPERM, ENOSYS, EACCES};
    for (size_t i = 0; i < 6; i++) {
        struct refusal refusal = refused_in_child(calls[i % 2], errors[i / 2]);
        test_note("call %u, error %d: %s", calls[i % 2], errors[i / 2], refusal.why);
        CHECK_INT(refusal.result, -BEAM_ENO_IO_URING);
        CHECK(strstr(refusal.why, "Seccomp: 2") != NULL);
        CHECK(strstr(refusal.why, "io_uring_enter") != NULL);
    }
}

TEST(too_old_a_kernel_is_named_as_such)
{
    struct refusal refusal = refused_in_child(__NR_io_uring_setup, EINVAL);
    CHECK_INT(refusal.result, -BEAM_ENO_IO_URING);
    CHECK(strstr(refusal.why, "6.1") != NULL);
}

TEST(other_failures_of_setup_are_passed_on)
{
    CHECK_INT(refused_in_child(__NR_io_uring_setup, ENOMEM).result, -ENOMEM);
    CHECK_INT(refused_in_child(__NR_io_uring_setup, EMFILE).result, -EMFILE);
}
