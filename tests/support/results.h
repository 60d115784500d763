/* What a test program tells the one who sums the counts of many. */
#ifndef BEAM_TEST_RESULTS_H
#define BEAM_TEST_RESULTS_H

struct test_counts {
    unsigned passed, failed, skipped;
};

/* With BEAM_TEST_RESULTS=DIR in the environment, appends a line to DIR/results: */
void test_results_start(const char *program); /* start PROGRAM */
void test_results_skip(const char *program, const char *name, const char *reason);
void test_results_end(const char *program, struct test_counts counts); /* end PROGRAM P F S */

/* Names on stderr what was going on when the process crashes; `name` runs in a signal handler. Where
 * a sanitizer is linked its report comes first. */
void test_on_crash(void (*name)(void));

#endif
