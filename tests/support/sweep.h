/* Sweeps: every case of a program is run once to count its allocations and completions, and then again
 * for each of them, with that one failing. Each run is a process of its own.
 *
 * In such a run the case is *tolerant*: what it checks does not count, and a REQUIRE that fails ends its
 * body. What counts is what no fault excuses: no crash, no assertion, no report of a sanitizer, no hang;
 * and, when the fault has been lifted, an answer from the service, an end in order, and descriptors and
 * memory as they were before. The fixture of the flow tests (flow.c) sees to the answer and the end.
 *
 * A body that a REQUIRE ends is not left by a jump: its frame is what callbacks still refer to. The end
 * is run on top of it, and the process ends there. What such a body held is not given back, so that
 * memory and descriptors are compared only where it returned. */
#ifndef BEAM_TEST_SWEEP_H
#define BEAM_TEST_SWEEP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/support/fault.h"
#include "tests/support/run.h"
#include "tests/support/test.h"

/* How a run ended; of several that are said, the last of these is right. */
enum sweep_end {
    SWEEP_UNDECIDED,
    SWEEP_RETURNED,    /* the body did */
    SWEEP_LEFT,        /* a REQUIRE ended it */
    SWEEP_NOT_STARTED, /* a runtime could not be made or started, and said so */
    SWEEP_GIVEN_UP,    /* a REQUIRE failed inside a callback or a handler: nobody was asked */
    SWEEP_ENDS,
};

/* Shared by the process that sweeps, the run, and the server of the run. */
struct sweep_run {
    struct fault fault;
    uint64_t wait_ns;      /* what a wait of the case is given */
    bool tolerant;         /* it is no counting run */
    bool answer_expected;  /* the counting run had one */
    _Atomic unsigned end;  /* enum sweep_end */
    _Atomic bool is_flow;  /* it uses the fixture */
    _Atomic bool answered; /* after the fault was lifted */
    _Atomic bool compared; /* descriptors and memory, and they were the same */
    _Atomic bool gave_up, server_not_started;
};

/* The run that this process is part of, or NULL: nobody sweeps. */
extern struct sweep_run *sweep_run;

/* Checks do not count. */
static inline bool sweep_tolerant(void)
{
    return sweep_run && sweep_run->tolerant;
}

/* finish is called by a REQUIRE that fails on the thread of the case: it ends what the case began, and
 * then the run, with sweep_end(). NULL: there is nothing to end. */
void sweep_set_finish(void (*finish)(void));

/* A REQUIRE has failed in a tolerant run. */
__attribute__((noreturn)) void sweep_leave(bool on_thread_of_case);

/* Where the end cannot be run: inside a callback, or in the server. */
__attribute__((noreturn)) void sweep_give_up(void);

void sweep_say_end(enum sweep_end end);

/* The same, and ends this process, which is the run or its server. */
__attribute__((noreturn)) void sweep_end(enum sweep_end end);

#define SWEEP_JOBS_MAX 64u

struct sweep_options {
    const char *filter; /* part of a case's name, or NULL */
    bool kinds[FAULT_KINDS];
    unsigned every; /* only each so-manieth; where it begins differs from case to case */
    unsigned share; /* only one case of so many */
    unsigned most;  /* of a case, a kind and a process, evenly spread; 0: all */
    unsigned at;    /* only this one; 0: all */
    unsigned jobs;  /* runs at a time */
};

/* Sweeps over the cases; the exit status of the program. */
int sweep_cases(const char *program, const struct test_case *first,
                const struct sweep_options *options,
                enum test_outcome (*run)(const struct test_case *));

#endif
