/* The measuring side of Beam's contenders: the same code over a ring and over a unix socket,
 * only the URL differs. Everything but the call itself happens on reactor 0. */
#ifndef BENCH_BEAM_CLIENT_H
#define BENCH_BEAM_CLIENT_H

#include <beam/beam.h>

#include "bench/contest.h"

enum client_load {
    CLIENT_ECHO,  /* one message at a time on a channel to "echo" */
    CLIENT_SINK,  /* messages on a channel to "sink", as many as credit allows */
    CLIENT_CALLS, /* calls of "answer", row->depth under way */
};

struct client {
    struct bench_run *run;
    beam_runtime *runtime;
    const char *url;
    const char *ca; /* whom to trust, of https: */
    enum client_load load;
    unsigned fds; /* with each message */
};

/* Connects, measures, returns 0 or -1. Leaves the session open: the process is about to end. */
int client_run(const struct client *client);

/* The services the other side offers, on every reactor. */
int services_offer(struct bench_run *run, beam_runtime *runtime);

/* A runtime as the row's regime wants it. */
int runtime_new(struct bench_run *run, unsigned reactors, beam_runtime **ret_runtime);

/* Adds the counters of all reactors of a runtime. */
void runtime_count(beam_runtime *runtime, struct bench_counters *counters);

#endif
