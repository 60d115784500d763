/* One reactor with a store. */
#include "bench/store_run.h"

#include <errno.h>
#include <string.h>

#include "bench/beam_client.h"

static beam_runtime *the_runtime; /* one run to a process */

static void sample(struct bench_run *run, struct bench_counters *ret)
{
    /* Relaxed: all there is of a peer was published before what led here. */
    *ret = (struct bench_counters){
        .syscalls = atomic_load_explicit(&run->result->side[1].syscalls, memory_order_relaxed),
        .allocs = atomic_load_explicit(&run->result->side[1].allocs, memory_order_relaxed),
    };
    runtime_count(the_runtime, ret);
}

int store_run(struct store_run *store_run, struct bench_run *run, beam_post_fn *fn, void *arg)
{
    store_run->run = run;
    /* The reactor's thread and the kernel's for it inherit that. */
    if (bench_pin(run, run->cpu_here) < 0)
        return -1;
    if (sem_init(&store_run->end, 0, 0) < 0)
        return bench_fail(run, "sem_init: %s", strerror(errno));
    if (runtime_new(run, 1, &the_runtime) < 0)
        return -1;
    store_run->runtime = the_runtime;
    run->sample = sample;
    int r = beam_post(the_runtime, 0, fn, arg);
    if (r >= 0)
        r = beam_start(the_runtime);
    if (r < 0)
        return bench_fail(run, "start: %s", beam_strerror(r));
    while (sem_wait(&store_run->end) < 0 && errno == EINTR)
        ;
    return run->result->error[0] != 0 ? -1 : 0;
}

void store_run_end(struct store_run *store_run)
{
    if (store_run->over)
        return;
    store_run->over = true;
    sem_post(&store_run->end);
}

void store_run_fail(struct store_run *store_run, const char *what, int error)
{
    if (!store_run->over)
        bench_fail(store_run->run, "%s: %s", what, beam_strerror(error));
    store_run_end(store_run);
}
