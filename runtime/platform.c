/* What this build and this machine are, and what a program prints when the library says no. */
#include <errno.h>
#include <pthread.h>

#include <beam/runtime.h>

#include "base/alloc.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "uring/features.h"

#ifndef BEAM_VERSION
#define BEAM_VERSION "0.1.0"
#endif

/* Whether io_uring works is known once somebody has tried; a reactor's thread has. */
static void try_io_uring(void)
{
    struct bm_reactor *reactor;
    if (bm_reactor_current() ||
        bm_reactor_new(&(struct bm_reactor_options){.spin = BM_SPIN_NEVER}, &reactor) < 0)
        return;
    bm_reactor_free(reactor);
}

static struct beam_platform platform;
static pthread_once_t found = PTHREAD_ONCE_INIT;

static void find_platform(void)
{
    const struct bm_features *f = bm_features_get();
    try_io_uring();
    platform = (struct beam_platform){
        .version = BEAM_VERSION,
        .kernel = f->kernel,
        .liburing = f->liburing,
        .io_uring = bm_features_why()[0] == '\0',
        .passrights = f->passrights,
        .pidfd = f->pidfd,
        .min_wait = f->min_wait,
        .no_iowait = f->no_iowait,
    };
}

const struct beam_platform *beam_platform(void)
{
    pthread_once(&found, find_platform);
    return &platform;
}

const char *beam_runtime_why(void)
{
    return bm_features_why();
}

static int exit_code_of_status(unsigned code)
{
    switch (code) {
    case BEAM_UNAVAILABLE:
        return 4;
    case BEAM_PERMISSION_DENIED:
    case BEAM_UNAUTHENTICATED:
        return 5;
    case BEAM_RESOURCE_EXHAUSTED:
        return 6;
    case BEAM_DEADLINE_EXCEEDED:
        return 7;
    case BEAM_NOT_FOUND:
        return 8;
    default:
        return 9;
    }
}

static int exit_code_of_error(int error)
{
    switch (-error) {
    case EINVAL:
    case ENAMETOOLONG:
    case BEAM_EURL:
        return 2;
    case BEAM_ENO_IO_URING:
        return 3;
    case ENOENT:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ECONNRESET:
    case EPIPE:
    case EPROTOTYPE:
    case ESHUTDOWN:
        return 4;
    case EACCES:
    case EPERM:
        return 5;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case EAGAIN:
    case EMSGSIZE:
    case EADDRINUSE:
        return 6;
    case ETIMEDOUT:
        return 7;
    default:
        return 1;
    }
}

int beam_exit_code(int error, FILE *out)
{
    if (error == 0)
        return 0;
    if (error > 0) {
        if (out)
            fprintf(out, "beam: %s (%s)\n", beam_code_text((unsigned)error),
                    beam_code_name((unsigned)error));
        return exit_code_of_status((unsigned)error);
    }
    if (out)
        fprintf(out, "beam: %s\n",
                error == -BEAM_ENO_IO_URING ? bm_features_why() : beam_strerror(error));
    return exit_code_of_error(error);
}

int beam_runtime_stats(beam_runtime *runtime, unsigned reactor, struct beam_stats *ret_stats)
{
    if (reactor >= runtime->core_count)
        return -EINVAL;
    const struct bm_core *core = &runtime->cores[reactor];
    if (!core->reactor)
        return -ESHUTDOWN;
    const struct bm_reactor_stats *s = bm_reactor_stats(core->reactor);
    *ret_stats = (struct beam_stats){
        .turns = s->turns,
        .enters = s->enters,
        .sqes = s->sqes,
        .cqes = s->cqes,
        .overflows = s->overflows,
        .enobufs = s->enobufs,
        .rearms = s->rearms,
        .wakes_sent = s->wakes_sent,
        .wakes_skipped = s->wakes_skipped,
        .sleeps = s->sleeps,
        .spins = s->spins,
        .spin_hits = s->spin_hits,
        .wake_cost_ns = s->wake_cost_ns,
        .spin_budget_ns = s->spin_budget_ns,
        .allocs = core == bm_core_current() ? bm_alloc_count_thread() - core->allocs_begin : 0,
        .messages_sent = core->messages_sent,
        .messages_received = core->messages_received,
        .packets_sent = core->packets_sent,
        .packets_received = core->packets_received,
        .fds_sent = core->fds_sent,
        .fds_received = core->fds_received,
        .sessions = core->session_count,
        .channels = core->channel_count,
    };
    return 0;
}
