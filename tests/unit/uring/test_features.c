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

TEST(features_name_the_kernel_and_the_library)
{
    const struct bm_features *features = bm_features_get();
    CHECK(strlen(features->kernel) > 0);
    CHECK(strchr(features->liburing, '.') != NULL);
    CHECK_PTR(bm_features_get(), features);
}

/* As a container engine does it: the filter answers io_uring_setup with an error of its choice. */
static void refuse_setup(uint32_t error)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
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

static struct refusal refused_in_child(int error)
{
    struct refusal refusal = {.result = 12345};
    int pipe_fds[2];
    REQUIRE_INT(pipe(pipe_fds), 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        struct bm_reactor_options options = {.spin = BM_SPIN_NEVER};
        struct bm_reactor *reactor = NULL;
        refuse_setup((uint32_t)error);
        refusal.result = bm_reactor_new(&options, &reactor);
        strncpy(refusal.why, bm_reactor_why(), sizeof(refusal.why) - 1);
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
        struct refusal refusal = refused_in_child(rows[i].error);
        test_note("%s: %s", rows[i].name, refusal.why);
        CHECK_INT(refusal.result, -BEAM_ENO_IO_URING);
        CHECK(strstr(refusal.why, rows[i].name) != NULL);
        CHECK(strstr(refusal.why, "kernel.io_uring_disabled") != NULL);
        CHECK(strstr(refusal.why, "Seccomp: 2") != NULL);
        CHECK(strstr(refusal.why, "seccomp=") != NULL); /* the cure */
        CHECK(strchr(refusal.why, '\n') == NULL);
    }
}

TEST(too_old_a_kernel_is_named_as_such)
{
    struct refusal refusal = refused_in_child(EINVAL);
    CHECK_INT(refusal.result, -BEAM_ENO_IO_URING);
    CHECK(strstr(refusal.why, "6.1") != NULL);
}

TEST(other_failures_of_setup_are_passed_on)
{
    CHECK_INT(refused_in_child(ENOMEM).result, -ENOMEM);
    CHECK_INT(refused_in_child(EMFILE).result, -EMFILE);
}
