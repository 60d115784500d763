/* Listening: a socket is made at once, on the caller's thread, so that its errors are told at once.
 *
 * Invariant: the list of listeners is under start_lock until core 0 has opened, and core 0's own from
 * then on; whoever comes later posts his listener there.
 *
 * What a socket is, and how peers are accepted, is the transport's. */
#include "runtime/listener.h"

#include <errno.h>
#include <string.h>

#include "runtime/core.h"
#include "runtime/options.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"

static void start(struct bm_listener *listener, struct bm_core *core)
{
    listener->running = true;
    listener->transport->start(listener, core);
}

void bm_listeners_start(struct bm_core *core)
{
    struct bm_list *all = &core->runtime->listeners;
    struct bm_list *node = all->next;
    while (node != all) {
        struct bm_listener *listener = bm_list_entry(node, struct bm_listener, node);
        node = node->next;
        start(listener, core);
    }
}

void bm_listeners_stop(struct bm_core *core)
{
    struct bm_list *all = &core->runtime->listeners;
    if (core->index != 0)
        return;
    struct bm_list *node = all->next;
    while (node != all) {
        struct bm_listener *listener = bm_list_entry(node, struct bm_listener, node);
        node = node->next;
        listener->transport->stop(listener);
    }
}

void bm_listeners_free(beam_runtime *runtime)
{
    struct bm_list *node;
    while ((node = bm_list_front(&runtime->listeners))) {
        struct bm_listener *listener = bm_list_entry(node, struct bm_listener, node);
        listener->transport->free(listener);
    }
}

static void add_here(void *arg)
{
    struct bm_listener *listener = arg;
    beam_runtime *runtime = listener->runtime;
    struct bm_core *core = &runtime->cores[0];
    if (core->stopping) {
        listener->transport->free(listener);
        return;
    }
    bm_list_push_back(&runtime->listeners, &listener->node);
    start(listener, core);
}

static int add(beam_runtime *runtime, struct bm_listener *listener)
{
    struct bm_core *core = &runtime->cores[0];
    pthread_mutex_lock(&runtime->start_lock);
    bool open = atomic_load_explicit(&core->open, memory_order_acquire);
    bool over = bm_runtime_state(runtime) == BM_RUNTIME_STOPPED;
    if (!open && !over)
        bm_list_push_back(&runtime->listeners, &listener->node);
    pthread_mutex_unlock(&runtime->start_lock);
    if (!open)
        return over ? -ESHUTDOWN : 0;
    if (bm_core_is_here(core)) {
        add_here(listener);
        return 0;
    }
    return bm_runtime_post(core, add_here, listener);
}

int beam_listen(beam_runtime *runtime, const char *url, const struct beam_listen_options *options)
{
    const struct beam_transport *transport = url ? bm_transport_find(runtime, url) : NULL;
    struct bm_listener *listener;
    if (!transport || !transport->listen)
        return -BEAM_EURL;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    struct beam_listen_options wanted;
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r >= 0)
        r = transport->listen(runtime, url, &wanted, &listener);
    if (r < 0)
        return r;
    listener->transport = transport;
    listener->runtime = runtime;
    listener->url_len = strlen(url);
    listener->url = bm_alloc(NULL, listener->url_len + 1);
    if (listener->url)
        memcpy(listener->url, url, listener->url_len + 1);
    r = listener->url ? add(runtime, listener) : -ENOMEM;
    if (r < 0)
        transport->free(listener);
    return r;
}

struct look {
    beam_runtime *runtime;
    const char *url;
    int (*fn)(struct bm_listener *listener, void *arg);
    void *arg;
    int result;
};

static void look_here(void *arg)
{
    struct look *look = arg;
    struct bm_list *node = look->runtime->listeners.next;
    while (node != &look->runtime->listeners) {
        struct bm_listener *listener = bm_list_entry(node, struct bm_listener, node);
        node = node->next;
        if (listener->closing || strcmp(listener->url, look->url) != 0)
            continue;
        int r = look->fn(listener, look->arg);
        if (look->result != 0)
            look->result = r;
    }
}

int bm_listeners_with(beam_runtime *runtime, const char *url,
                      int (*fn)(struct bm_listener *listener, void *arg), void *arg)
{
    struct look look = {runtime, url, fn, arg, -ENOENT};
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    struct bm_core *core = &runtime->cores[0];
    pthread_mutex_lock(&runtime->start_lock);
    bool open = atomic_load_explicit(&core->open, memory_order_relaxed);
    if (!open)
        look_here(&look);
    pthread_mutex_unlock(&runtime->start_lock);
    if (open) /* should it have ended meanwhile, it has left no listener */
        bm_runtime_call(core, look_here, &look);
    return look.result;
}

static int unlisten(struct bm_listener *listener, void *arg)
{
    (void)arg;
    if (listener->running)
        listener->transport->stop(listener);
    else
        listener->transport->free(listener);
    return 0;
}

int beam_unlisten(beam_runtime *runtime, const char *url)
{
    return url ? bm_listeners_with(runtime, url, unlisten, NULL) : -EINVAL;
}

struct real_url {
    char *buf;
    size_t size;
};

static int copy_url(struct bm_listener *listener, void *arg)
{
    const struct real_url *to = arg;
    const char *from = listener->real_url ? listener->real_url : listener->url;
    size_t len = listener->real_url ? listener->real_url_len : listener->url_len;
    if (len >= to->size)
        return -ENOSPC;
    memcpy(to->buf, from, len + 1);
    return 0;
}

int beam_listen_url(beam_runtime *runtime, const char *url, char *ret_url, size_t size)
{
    struct real_url to = {ret_url, size};
    return url ? bm_listeners_with(runtime, url, copy_url, &to) : -EINVAL;
}
