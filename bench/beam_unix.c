/* Beam between two processes of one reactor each, over an abstract unix socket.
 *
 * The peer is forked before either side has a runtime. Its main thread waits at a pipe: a byte
 * asks for its counters, which it leaves in the shared pages; that happens only between warm-up
 * and measured part, and after it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/beam_client.h"
#include "bench/contenders.h"
#include "bench/socket.h"

#define HERE 0
#define THERE 1

struct unix_run {
    char url[64];
    int control[2]; /* a socket pair: a byte each way for every question */
    beam_runtime *runtime;
    struct fd_files files;
};

static void counters_publish(struct bench_side *side, beam_runtime *runtime)
{
    struct bench_counters now = {0};
    runtime_count(runtime, &now);
    /* Relaxed: the byte that follows on the socket orders them. */
    atomic_store_explicit(&side->syscalls, now.syscalls, memory_order_relaxed);
    atomic_store_explicit(&side->allocs, now.allocs, memory_order_relaxed);
    atomic_store_explicit(&side->messages, now.messages, memory_order_relaxed);
    atomic_store_explicit(&side->packets, now.packets, memory_order_relaxed);
}

static void peer(struct bench_run *run, void *arg)
{
    struct unix_run *unix_run = arg;
    beam_runtime *runtime;
    char byte = 0;
    close(unix_run->control[HERE]);
    run->arg = &unix_run->files;
    if (runtime_new(run, 1, &runtime) < 0 || services_offer(run, runtime) < 0)
        return;
    int r = beam_listen(runtime, unix_run->url, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    if (r < 0) {
        bench_fail(run, "listen: %s", beam_strerror(r));
        return;
    }
    do {
        counters_publish(&run->result->side[THERE], runtime);
        if (write(unix_run->control[THERE], &byte, 1) != 1)
            return;
    } while (read(unix_run->control[THERE], &byte, 1) == 1);
}

static int peer_answers(struct unix_run *unix_run)
{
    char byte;
    ssize_t r;
    while ((r = read(unix_run->control[HERE], &byte, 1)) < 0 && errno == EINTR)
        ;
    return r == 1 ? 0 : -1;
}

static struct unix_run the_unix_run; /* one run to a process */

static void unix_sample(struct bench_run *run, struct bench_counters *ret)
{
    struct bench_side *side = &run->result->side[THERE];
    if (write(the_unix_run.control[HERE], "", 1) != 1 || peer_answers(&the_unix_run) < 0)
        bench_fail(run, "the other side is gone");
    memset(ret, 0, sizeof(*ret));
    ret->syscalls = atomic_load_explicit(&side->syscalls, memory_order_relaxed);
    ret->allocs = atomic_load_explicit(&side->allocs, memory_order_relaxed);
    ret->messages = atomic_load_explicit(&side->messages, memory_order_relaxed);
    ret->packets = atomic_load_explicit(&side->packets, memory_order_relaxed);
    runtime_count(the_unix_run.runtime, ret);
}

static int unix_run_load(struct bench_run *run, enum client_load load, unsigned fds)
{
    struct unix_run *unix_run = &the_unix_run;
    snprintf(unix_run->url, sizeof(unix_run->url), "unix:@beam-bench-%d", (int)getpid());
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, unix_run->control) < 0)
        return bench_fail(run, "socketpair: %s", strerror(errno));
    if (fds > 0 && fd_files_new(run, &unix_run->files) < 0)
        return -1;
    if (bench_peer_start(run, peer, unix_run) < 0)
        return -1;
    close(unix_run->control[THERE]);
    /* Before the runtime's thread exists, which inherits it. */
    if (bench_pin(run, run->cpu_here) < 0)
        return -1;
    if (peer_answers(unix_run) < 0)
        return bench_fail(run, "the other side did not start");
    if (runtime_new(run, 1, &unix_run->runtime) < 0)
        return -1;
    int r = beam_start(unix_run->runtime);
    if (r < 0)
        return bench_fail(run, "start: %s", beam_strerror(r));
    run->arg = &unix_run->files;
    run->sample = unix_sample;
    struct client client = {
        .run = run,
        .runtime = unix_run->runtime,
        .url = unix_run->url,
        .load = load,
        .fds = fds,
    };
    return client_run(&client);
}

int beam_unix_rtt(struct bench_run *run)
{
    return unix_run_load(run, CLIENT_ECHO, run->row->fds);
}

/* An fd row's own reference: the same without the fd. */
int beam_unix_plain_rtt(struct bench_run *run)
{
    return unix_run_load(run, CLIENT_ECHO, 0);
}

int beam_unix_rate(struct bench_run *run)
{
    return unix_run_load(run, CLIENT_SINK, run->row->fds);
}

int beam_unix_calls(struct bench_run *run)
{
    return unix_run_load(run, CLIENT_CALLS, 0);
}
