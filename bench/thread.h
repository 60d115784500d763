/* The second thread of a ring contender, pinned to the other CPU. */
#ifndef BENCH_THREAD_H
#define BENCH_THREAD_H

#include <pthread.h>
#include <string.h>

#include "bench/contest.h"

static inline int bench_thread_start(struct bench_run *run, pthread_t *ret_thread,
                                     void *(*fn)(void *arg), void *arg)
{
    int r = pthread_create(ret_thread, NULL, fn, arg);
    if (r != 0)
        return bench_fail(run, "pthread_create: %s", strerror(r));
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(run->cpu_there, &set);
    r = pthread_setaffinity_np(*ret_thread, sizeof(set), &set);
    if (r != 0)
        return bench_fail(run, "cannot pin to cpu %d: %s", run->cpu_there, strerror(r));
    return bench_pin(run, run->cpu_here);
}

#endif
