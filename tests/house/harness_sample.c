/* Cases with a known outcome, for harness.py: the harness has to be able to fail. Each is named after
 * the outcome it must have. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/test.h"

TEST(pass_checks_hold)
{
    CHECK(true);
    CHECK_INT(-1, -1);
    CHECK_UINT(UINT64_MAX, UINT64_MAX);
    CHECK_STR("a", "a");
    CHECK_STR(NULL, NULL);
    CHECK_MEM("abc", 3, "abc", 3);
    CHECK_PTR(NULL, NULL);
}

TEST(pass_tmpdir_is_fresh_and_writable)
{
    CHECK_INT(access(test_tmpdir(), W_OK | X_OK), 0);
    CHECK_INT(chdir(test_tmpdir()), 0);
    int fd = open("left-over", O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    CHECK_INT(chdir("/"), 0);
}

TEST(pass_random_repeats_with_its_seed)
{
    struct test_random a = test_random(7), b = test_random(7);
    CHECK_UINT(test_random_next(&a), test_random_next(&b));
    CHECK(test_random_below(&a, 3) < 3);
}

TEST(fail_no_check_made)
{
}

TEST(fail_check_int)
{
    test_note("row %d", 3);
    CHECK_INT(1 + 1, 3);
}

TEST(fail_check_mem_length)
{
    CHECK_MEM("abc", 2, "abc", 3);
}

TEST(fail_require_leaves)
{
    REQUIRE(false);
    abort();
}

TEST(fail_fd_left_open)
{
    CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

TEST(fail_fd_replaced)
{
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CHECK(dup2(fd, STDIN_FILENO) >= 0);
    close(fd);
}

TEST(fail_memory_left)
{
    CHECK(bm_alloc(NULL, 100) != NULL);
}

TEST(skip_reason)
{
    SKIP("no reason at all");
}

TEST(skip_io_uring)
{
    SKIP("io_uring is not there");
}

static void check_uid(void)
{
    CHECK_INT(getuid(), 65534);
    CHECK_INT(access("/proc/self/fd/0", F_OK), 0);
}

static void check_root(void)
{
    REQUIRE_INT(getuid(), 0);
}

TEST(root_pass_nobody)
{
    test_run_as_nobody(check_uid);
}

TEST(root_fail_nobody)
{
    test_run_as_nobody(check_root);
}

TEST(crash_abort)
{
    abort();
}

TEST(crash_null)
{
    int *volatile nowhere = NULL;
    *nowhere = 1;
}

TEST(crash_hang)
{
    for (;;)
        pause();
}
