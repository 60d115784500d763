/* The runner. Cases register themselves before main and run one after another in this process:
 *
 *     test_x [--list] [--repeat N] [FILTER]     FILTER: part of a case's name
 *     test_x --sweep allocation|allocations|completion|all [--every N] [--share N] [--most N] [--at N]
 *         [--jobs N] [FILTER]
 *
 * The last line is `N passed, N failed, N skipped`.
 *
 * A crash is left to crash (the core and the sanitizer's report are worth more than the cases that
 * would follow), but the case that was running is named first. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/results.h"
#include "tests/support/run.h"
#include "tests/support/snapshot.h"
#include "tests/support/sweep.h"
#include "tests/support/test.h"

#define CASE_TIMEOUT_S 100 /* below the 120 s of ctest, so that the case gets named */

static struct test_case *first;
static struct test_case **last = &first;

/* The running case. Checks come from any thread: relaxed is enough, since the counts are read after
 * the threads that made them were joined. */
static struct {
    const char *name;
    pthread_t thread;
    sigjmp_buf end;
    atomic_uint checks, failures;
    char skip_reason[200];
    char note[200];
    uint64_t seed;
} now;

static const char *program;

enum { LEFT_FAILED = 1, LEFT_SKIPPED = 2 };

void test_register(struct test_case *test)
{
    *last = test;
    last = &test->next;
}

void test_check(bool ok, const char *text, struct test_at at, bool required)
{
    atomic_fetch_add_explicit(&now.checks, 1, memory_order_relaxed);
    if (ok)
        return;
    if (sweep_tolerant()) {
        if (required)
            sweep_leave(pthread_equal(pthread_self(), now.thread));
        return;
    }
    atomic_fetch_add_explicit(&now.failures, 1, memory_order_relaxed);
    fprintf(stderr, "    %s:%d: %s\n", at.file, at.line, text);
    if (now.note[0])
        fprintf(stderr, "        while: %s\n", now.note);
    if (!required)
        return;
    if (!pthread_equal(pthread_self(), now.thread)) {
        fprintf(stderr, "    required, and not on the thread of the case: cannot go on\n");
        abort();
    }
    siglongjmp(now.end, LEFT_FAILED);
}

void test_demand(bool ok, const char *text, struct test_at at)
{
    if (ok || !sweep_tolerant()) {
        test_check(ok, text, at, true);
        return;
    }
    fprintf(stderr, "    %s:%d: %s\n", at.file, at.line, text);
    fflush(NULL);
    _exit(1);
}

void test_skip(const char *reason, struct test_at at)
{
    const char *ci = getenv("CI");
    snprintf(now.skip_reason, sizeof(now.skip_reason), "%s", reason);
    if (ci && strcmp(ci, "true") == 0 && strstr(reason, "io_uring")) {
        test_check(false, "skipped for want of io_uring, which CI must have", at, false);
        fprintf(stderr, "        reason: %s\n", reason);
        siglongjmp(now.end, LEFT_FAILED);
    }
    siglongjmp(now.end, LEFT_SKIPPED);
}

void test_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(now.note, sizeof(now.note), format, args);
    va_end(args);
}

const char *test_skip_reason(void)
{
    return now.skip_reason;
}

void test_seed_used(uint64_t seed)
{
    now.seed = seed;
}

enum test_outcome test_run_body(void (*fn)(void))
{
    now.thread = pthread_self();
    int left = sigsetjmp(now.end, 1);
    if (left == 0)
        fn();
    if (left == LEFT_SKIPPED)
        return TEST_SKIPPED;
    return atomic_load_explicit(&now.failures, memory_order_relaxed) ? TEST_FAILED : TEST_PASSED;
}

static enum test_outcome run_case(const struct test_case *test)
{
    now.name = test->name;
    now.note[0] = now.skip_reason[0] = '\0';
    now.seed = 0;
    atomic_store_explicit(&now.checks, 0, memory_order_relaxed);
    atomic_store_explicit(&now.failures, 0, memory_order_relaxed);

    struct test_snapshot before = test_snapshot_take();
    enum test_outcome outcome = test_run_body(test->run);
    test_tmpdir_remove();
    struct test_snapshot after = test_snapshot_take();

    /* Only where nothing else failed: a case that was left halfway leaks as a matter of course. */
    if (outcome == TEST_PASSED && !test_snapshot_same(&before, &after))
        outcome = TEST_FAILED;
    if (outcome == TEST_PASSED && atomic_load_explicit(&now.checks, memory_order_relaxed) == 0) {
        fprintf(stderr, "    made no check\n");
        outcome = TEST_FAILED;
    }
    if (outcome == TEST_FAILED && now.seed)
        fprintf(stderr, "    run again with BEAM_TEST_SEED=%llu\n", (unsigned long long)now.seed);
    test_snapshot_free(&before);
    test_snapshot_free(&after);
    return outcome;
}

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

static void name_case(void)
{
    if (!now.name)
        return;
    say("\n    in case ");
    say(now.name);
    say(" of ");
    say(program);
    say("\n");
}

static void on_alarm(int signal)
{
    (void)signal;
    say("    timed out");
    abort(); /* which names the case, and leaves a core that shows where it hung */
}

unsigned test_timeout_s(void)
{
    const char *text = getenv("BEAM_TEST_CASE_TIMEOUT");
    return text ? (unsigned)strtoul(text, NULL, 10) : CASE_TIMEOUT_S;
}

static long elapsed_ms(const struct timespec *since)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (t.tv_sec - since->tv_sec) * 1000 + (t.tv_nsec - since->tv_nsec) / 1000000;
}

static int run_all(const char *filter, long repeat)
{
    struct test_counts counts = {0};
    test_results_start(program);
    for (const struct test_case *test = first; test; test = test->next) {
        if (filter && !strstr(test->name, filter))
            continue;
        enum test_outcome outcome = TEST_PASSED;
        struct timespec since;
        clock_gettime(CLOCK_MONOTONIC, &since);
        for (long i = 0; i < repeat && outcome == TEST_PASSED; i++) {
            alarm(test_timeout_s());
            outcome = run_case(test);
        }
        alarm(0);
        now.name = NULL;
        counts.passed += outcome == TEST_PASSED;
        counts.failed += outcome == TEST_FAILED;
        counts.skipped += outcome == TEST_SKIPPED;
        if (outcome == TEST_SKIPPED) {
            printf("skip %s: %s\n", test->name, now.skip_reason);
            test_results_skip(program, test->name, now.skip_reason);
        } else {
            printf("%s %s (%ld ms)\n", outcome == TEST_PASSED ? "ok  " : "FAIL", test->name,
                   elapsed_ms(&since));
        }
        fflush(stdout);
    }
    printf("%u passed, %u failed, %u skipped\n", counts.passed, counts.failed, counts.skipped);
    fflush(stdout);
    test_results_end(program, counts);
    bool none = counts.passed + counts.failed + counts.skipped == 0;
    return counts.failed || none ? 1 : 0;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: %s [--list] [--repeat N] [FILTER]\n"
            "       %s --sweep allocation|allocations|completion|all [--every N] [--share N] "
            "[--most N] [--at "
            "N] [--jobs "
            "N] [FILTER]\n",
            program, program);
    return 2;
}

/* The kinds of faults that the argument of --sweep names; whether it names any. */
static bool choose_kinds(const char *name, bool kinds[FAULT_KINDS])
{
    static const char *const names[] = {
        [FAULT_ALLOCATION] = "allocation",
        [FAULT_ALLOCATIONS] = "allocations",
        [FAULT_COMPLETION] = "completion",
    };
    bool any = false;
    for (unsigned i = 0; i < FAULT_KINDS; i++) {
        kinds[i] = strcmp(name, names[i]) == 0 || strcmp(name, "all") == 0;
        any |= kinds[i];
    }
    return any;
}

int main(int argc, char **argv)
{
    const char *filter = NULL;
    long repeat = 1;
    bool sweeps = false;
    struct sweep_options sweep = {.every = 1, .jobs = 16};
    const char *slash = strrchr(argv[0], '/');
    program = slash ? slash + 1 : argv[0];

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            for (const struct test_case *test = first; test; test = test->next)
                puts(test->name);
            return 0;
        }
        if (strcmp(argv[i], "--repeat") == 0 && i + 1 < argc)
            repeat = strtol(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--sweep") == 0 && i + 1 < argc)
            sweeps = choose_kinds(argv[++i], sweep.kinds);
        else if (strcmp(argv[i], "--every") == 0 && i + 1 < argc)
            sweep.every = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--share") == 0 && i + 1 < argc)
            sweep.share = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--most") == 0 && i + 1 < argc)
            sweep.most = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--at") == 0 && i + 1 < argc)
            sweep.at = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--jobs") == 0 && i + 1 < argc)
            sweep.jobs = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (argv[i][0] != '-' && !filter)
            filter = argv[i];
        else
            return usage();
    }
    if (repeat < 1 || sweep.every < 1 || sweep.jobs < 1 || sweep.jobs > SWEEP_JOBS_MAX)
        return usage();
    test_on_crash(name_case);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    if (sweeps) {
        sweep.filter = filter;
        return sweep_cases(program, first, &sweep, run_case);
    }
    return run_all(filter, repeat);
}
