/* The counts of this program, left where whoever sums them looks, and the name of what crashed.
 *
 * A `start` line without its `end` is a program that crashed or hung, and is counted as a failure by
 * the one who sums. Each line is one write to a file opened for appending, so that programs that run
 * side by side do not mix theirs. */
#include "tests/support/results.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Present where a sanitizer is linked: called after its report, before it ends the process. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void (*name_what_crashed)(void);

__attribute__((format(printf, 1, 2))) static void append(const char *format, ...)
{
    const char *dir = getenv("BEAM_TEST_RESULTS");
    if (!dir)
        return;
    char path[4096], line[600];
    snprintf(path, sizeof(path), "%s/results", dir);
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, line, strlen(line)) < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    close(fd);
}

void test_results_start(const char *program)
{
    append("start %s\n", program);
}

void test_results_skip(const char *program, const char *name, const char *reason)
{
    append("skip %s %s: %s\n", program, name, reason);
}

void test_results_end(const char *program, struct test_counts counts)
{
    append("end %s %u %u %u\n", program, counts.passed, counts.failed, counts.skipped);
}

static void on_signal(int signal)
{
    name_what_crashed();
    /* SA_RESETHAND put the default action back: this ends the process once the handler returns. */
    raise(signal);
}

void test_on_crash(void (*name)(void))
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

    name_what_crashed = name;
    sigaction(SIGABRT, &action, NULL);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(name);
        return; /* its own handlers for faults say more than ours */
    }
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigaction(faults[i], &action, NULL);
}
