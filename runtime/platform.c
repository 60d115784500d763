/* What this build and this machine are: features were tried, and are put together once per
 * process. */
#include <pthread.h>

#include <beam/runtime.h>

#include "uring/features.h"
#include "uring/reactor.h"

#ifndef BEAM_VERSION
#define BEAM_VERSION "0.1.0"
#endif

static struct beam_platform platform;

/* Whether io_uring works is known once somebody has tried; a reactor's thread has. */
static void try_io_uring(void)
{
    struct bm_reactor *reactor;
    if (bm_reactor_current() ||
        bm_reactor_new(&(struct bm_reactor_options){.spin = BM_SPIN_NEVER}, &reactor) < 0)
        return;
    bm_reactor_free(reactor);
}

static void fill_in(void)
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
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_in);
    return &platform;
}

const char *beam_runtime_why(void)
{
    return bm_features_why();
}
