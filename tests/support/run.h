/* What the runner (main.c) shares with the helpers that start processes or own files. Not for tests. */
#ifndef BEAM_TEST_RUN_H
#define BEAM_TEST_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/test.h"

enum test_outcome { TEST_PASSED, TEST_FAILED, TEST_SKIPPED };

/* Runs fn as the body of the current case, up to its end or the REQUIRE or SKIP that leaves it. */
enum test_outcome test_run_body(void (*fn)(void));

/* A REQUIRE that counts also in a run of a sweep: see sweep.h. Any thread there. */
void test_demand(bool ok, const char *text, struct test_at at);

/* Seconds that a case may take. */
unsigned test_timeout_s(void);

/* Text of the last SKIP. */
const char *test_skip_reason(void);

/* Remembers a seed, to be printed if the case fails. */
void test_seed_used(uint64_t seed);

/* Removes what test_tmpdir made, if anything. */
void test_tmpdir_remove(void);

#endif
