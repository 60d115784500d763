/* Beam between two reactors of one runtime, each pinned to a CPU of its own and never asleep: a
 * session from reactor 0 to "ring:1". */
#include <string.h>

#include "bench/beam_client.h"
#include "bench/contenders.h"

static void pin_there(void *arg)
{
    struct bench_run *run = arg;
    bench_pin(run, run->cpu_there);
}

static beam_runtime *the_runtime; /* one run to a process */

static void ring_sample(struct bench_run *run, struct bench_counters *ret)
{
    memset(ret, 0, sizeof(*ret));
    runtime_count(the_runtime, ret);
}

static int ring_run(struct bench_run *run, enum client_load load)
{
    if (runtime_new(run, 2, &the_runtime) < 0 || services_offer(run, the_runtime) < 0)
        return -1;
    int r = beam_start(the_runtime);
    if (r >= 0)
        r = beam_post(the_runtime, 1, pin_there, run);
    if (r < 0)
        return bench_fail(run, "start: %s", beam_strerror(r));
    run->sample = ring_sample;
    struct client client = {
        .run = run,
        .runtime = the_runtime,
        .url = "ring:1",
        .load = load,
    };
    return client_run(&client);
}

int beam_ring_rtt(struct bench_run *run)
{
    return ring_run(run, CLIENT_ECHO);
}

int beam_ring_rate(struct bench_run *run)
{
    return ring_run(run, CLIENT_SINK);
}

int beam_ring_calls(struct bench_run *run)
{
    return ring_run(run, CLIENT_CALLS);
}
