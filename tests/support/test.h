/* The test harness: cases, checks, and the helpers that tests of every layer share.
 *
 *     TEST(list_unlink_twice_is_harmless)
 *     {
 *         ...
 *         CHECK_INT(r, 0);
 *     }
 *
 * A case passes when it made at least one check, every check held, and the open file descriptors and
 * the live memory of the library are afterwards what they were before. CHECK* records a failure and
 * goes on; REQUIRE* also ends the case. CHECK* may be used on any thread; REQUIRE* and SKIP end the
 * case by a jump and so belong on the thread that runs it (elsewhere a failing REQUIRE* aborts). */
#ifndef BEAM_TEST_H
#define BEAM_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
};

#define TEST(name_)                                                                                \
    static void test_##name_(void);                                                                \
    __attribute__((constructor)) static void test_register_##name_(void)                           \
    {                                                                                              \
        static struct test_case test_case_ = {#name_, test_##name_, NULL};                         \
        test_register(&test_case_);                                                                \
    }                                                                                              \
    static void test_##name_(void)

#define CHECK(expr) test_check((expr) ? true : false, #expr, TEST_AT_, false)
#define CHECK_INT(actual, expected)                                                                \
    test_check_int((long long)(actual), (long long)(expected), #actual, #expected, TEST_AT_, false)
#define CHECK_UINT(actual, expected)                                                               \
    test_check_uint((unsigned long long)(actual), (unsigned long long)(expected), #actual,         \
                    #expected, TEST_AT_, false)
#define CHECK_PTR(actual, expected)                                                                \
    test_check_ptr((const void *)(actual), (const void *)(expected), #actual, #expected, TEST_AT_, \
                   false)
#define CHECK_STR(actual, expected)                                                                \
    test_check_str((actual), (expected), #actual, #expected, TEST_AT_, false)
#define CHECK_MEM(a, alen, b, blen)                                                                \
    test_check_mem((a), (size_t)(alen), (b), (size_t)(blen), #a, #b, TEST_AT_, false)

#define REQUIRE(expr) test_check((expr) ? true : false, #expr, TEST_AT_, true)
#define REQUIRE_INT(actual, expected)                                                              \
    test_check_int((long long)(actual), (long long)(expected), #actual, #expected, TEST_AT_, true)
#define REQUIRE_UINT(actual, expected)                                                             \
    test_check_uint((unsigned long long)(actual), (unsigned long long)(expected), #actual,         \
                    #expected, TEST_AT_, true)
#define REQUIRE_PTR(actual, expected)                                                              \
    test_check_ptr((const void *)(actual), (const void *)(expected), #actual, #expected, TEST_AT_, \
                   true)
#define REQUIRE_STR(actual, expected)                                                              \
    test_check_str((actual), (expected), #actual, #expected, TEST_AT_, true)
#define REQUIRE_MEM(a, alen, b, blen)                                                              \
    test_check_mem((a), (size_t)(alen), (b), (size_t)(blen), #a, #b, TEST_AT_, true)

/* Ends the case as skipped. A reason that names io_uring is a failure when CI=true. Before anything
 * that has to be released: the jump runs no cleanup. */
#define SKIP(reason) test_skip((reason), TEST_AT_)

/* Printed with every failure of this case from now on; says which row of a table is being tried. */
__attribute__((format(printf, 1, 2))) void test_note(const char *format, ...);

/* A fresh directory (mode 0700) that is removed with its contents when the case ends; the same one
 * for every call within a case. */
const char *test_tmpdir(void);

/* Runs fn in a child process as uid and gid 65534 with no supplementary groups; its checks count
 * for the case. Root is exempt from several limits under test. Skips the case when not root. */
void test_run_as_nobody(void (*fn)(void));

/* Reproducible randomness (splitmix64). Seed 0 takes BEAM_TEST_SEED or a fresh seed; the seed is
 * printed when the case fails. */
struct test_random {
    uint64_t state;
};
struct test_random test_random(uint64_t seed);
uint64_t test_random_next(struct test_random *random);
uint64_t test_random_below(struct test_random *random, uint64_t bound); /* 0 <= result < bound */
void test_random_fill(struct test_random *random, void *buf, size_t len);

/* Behind the macros. */
struct test_at {
    const char *file;
    int line;
};
#define TEST_AT_ ((struct test_at){__FILE__, __LINE__})

void test_register(struct test_case *test);
void test_check(bool ok, const char *expr, struct test_at at, bool required);
void test_check_int(long long actual, long long expected, const char *actual_expr,
                    const char *expected_expr, struct test_at at, bool required);
void test_check_uint(unsigned long long actual, unsigned long long expected,
                     const char *actual_expr, const char *expected_expr, struct test_at at,
                     bool required);
void test_check_ptr(const void *actual, const void *expected, const char *actual_expr,
                    const char *expected_expr, struct test_at at, bool required);
void test_check_str(const char *actual, const char *expected, const char *actual_expr,
                    const char *expected_expr, struct test_at at, bool required);
void test_check_mem(const void *a, size_t a_len, const void *b, size_t b_len, const char *a_expr,
                    const char *b_expr, struct test_at at, bool required);
__attribute__((noreturn)) void test_skip(const char *reason, struct test_at at);

#endif
