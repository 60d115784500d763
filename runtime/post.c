/* Calls that other threads want run on a core: beam_post, which goes on at once, and bm_runtime_call,
 * which waits until the call has run.
 *
 * Before the core is open calls wait in a list under the runtime's start_lock; from then on they go
 * through its mailbox. Invariant: which of the two is decided under that lock, so that no call is left
 * behind in the list. The lock is never held while a call runs. */
#include "runtime/post.h"

#include <errno.h>
#include <pthread.h>

#include "runtime/core.h"
#include "runtime/runtime.h"

/* --- before the start ------------------------------------------------------------------------ */

struct bm_early_post *bm_early_posts_take(struct bm_core *core)
{
    beam_runtime *runtime = core->runtime;
    struct bm_early_post *mine = NULL;
    struct bm_early_post **tail = &mine;
    struct bm_early_post **place = &runtime->early_posts;
    while (*place) {
        struct bm_early_post *post = *place;
        if (post->core != core->index) {
            place = &post->next;
            continue;
        }
        *place = post->next;
        post->next = NULL;
        *tail = post;
        tail = &post->next;
    }
    runtime->early_tail = place;
    return mine;
}

void bm_early_posts_run(struct bm_early_post *posts)
{
    while (posts) {
        struct bm_early_post post = *posts;
        bm_free(NULL, posts, sizeof(*posts));
        post.fn(post.arg);
        posts = post.next;
    }
}

void bm_early_posts_drop(beam_runtime *runtime)
{
    while (runtime->early_posts) {
        struct bm_early_post *post = runtime->early_posts;
        runtime->early_posts = post->next;
        bm_free(NULL, post, sizeof(*post));
    }
}

/* > 0: the core has opened meanwhile. */
static int post_early(beam_runtime *runtime, struct bm_core *core, beam_post_fn *fn, void *arg)
{
    struct bm_early_post *post = bm_alloc(NULL, sizeof(*post));
    if (!post)
        return -ENOMEM;
    *post = (struct bm_early_post){.core = core->index, .fn = fn, .arg = arg};
    int r = 0;
    pthread_mutex_lock(&runtime->start_lock);
    if (atomic_load_explicit(&core->open, memory_order_relaxed)) {
        r = 1;
    } else if (bm_runtime_state(runtime) == BM_RUNTIME_STOPPED) {
        r = -ESHUTDOWN;
    } else if (core->early_posts == BM_MAILBOX_SLOTS) {
        r = -EAGAIN;
    } else {
        core->early_posts++;
        *runtime->early_tail = post;
        runtime->early_tail = &post->next;
    }
    pthread_mutex_unlock(&runtime->start_lock);
    if (r != 0)
        bm_free(NULL, post, sizeof(*post));
    return r;
}

/* --- from then on ---------------------------------------------------------------------------- */

int beam_post(beam_runtime *runtime, unsigned reactor, beam_post_fn *fn, void *arg)
{
    if (reactor >= runtime->core_count || !fn)
        return -EINVAL;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    struct bm_core *core = &runtime->cores[reactor];
    /* acquire; partner: bm_runtime_open_core(), which has set the reactor before. */
    if (!atomic_load_explicit(&core->open, memory_order_acquire)) {
        int r = post_early(runtime, core, fn, arg);
        if (r <= 0)
            return r;
    }
    return bm_mailbox_post(core->reactor, fn, arg);
}

/* A call that somebody waits for. On the waiter's stack, which stays until done. */
struct errand {
    void (*fn)(void *arg);
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

static void run_errand(void *arg)
{
    struct errand *errand = arg;
    errand->fn(errand->arg);
    pthread_mutex_lock(&errand->lock);
    errand->done = true;
    pthread_cond_signal(&errand->cond);
    pthread_mutex_unlock(&errand->lock);
}

int bm_runtime_post(struct bm_core *core, void (*fn)(void *arg), void *arg)
{
    int r = bm_mailbox_post_wait(core->reactor, fn, arg, UINT64_MAX);
    if (r == -EDEADLK) /* another reactor, whom that call refuses: it asks until there is room */
        do
            r = bm_mailbox_post(core->reactor, fn, arg);
        while (r == -EAGAIN);
    return r;
}

void bm_runtime_call(struct bm_core *core, void (*fn)(void *arg), void *arg)
{
    struct errand errand = {.fn = fn, .arg = arg};
    struct bm_core *was = bm_core_current();
    if (bm_runtime_forked(core->runtime))
        return;
    if (!atomic_load_explicit(&core->open, memory_order_acquire)) {
        fn(arg);
        return;
    }
    if (bm_core_is_here(core)) {
        bm_core_enter(core);
        fn(arg);
        bm_core_enter(was);
        return;
    }
    pthread_mutex_init(&errand.lock, NULL);
    pthread_cond_init(&errand.cond, NULL);
    if (bm_runtime_post(core, run_errand, &errand) == 0) {
        pthread_mutex_lock(&errand.lock);
        while (!errand.done)
            pthread_cond_wait(&errand.cond, &errand.lock);
        pthread_mutex_unlock(&errand.lock);
    } else {
        /* The core takes nothing more, but may still be putting its things away. */
        bm_runtime_await_closed(core);
        fn(arg);
    }
    pthread_mutex_destroy(&errand.lock);
    pthread_cond_destroy(&errand.cond);
}
