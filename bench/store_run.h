/* A run that is one reactor with a store, all of whose work is callbacks there. The thread that started it
 * waits for the end: whatever is under way then ends with the process. */
#ifndef BENCH_STORE_RUN_H
#define BENCH_STORE_RUN_H

#include <semaphore.h>

#include <beam/beam.h>

#include "bench/contest.h"

struct store_run {
    struct bench_run *run;
    beam_runtime *runtime;
    beam_store *store;
    bool over;
    sem_t end;
};

/* Starts a runtime whose reactor, pinned, calls fn(arg); returns when store_run_end() was called: 0, or
 * -1 after bench_fail(). run->sample reads the counters of the runtime. */
int store_run(struct store_run *store_run, struct bench_run *run, beam_post_fn *fn, void *arg);

/* On the reactor. */
void store_run_end(struct store_run *store_run);
void store_run_fail(struct store_run *store_run, const char *what, int error);

#endif
