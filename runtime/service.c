/* A hash table of chains that only grow: an entry is published by one release store and found by
 * acquire loads. An entry never changes but for `live`, so that nobody sees a handler and an argument
 * that do not belong together: serving a name anew with others makes a new entry, in front of the old
 * one, and with the same ones revives the old. BM_SERVICES_MAX bounds what that can add up to.
 *
 * Running a handler is request.c's. */
#include "runtime/service.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "kv/utf8.h"
#include "runtime/codec.h"
#include "runtime/frame.h"
#include "runtime/options.h"
#include "runtime/runtime.h"

static unsigned bucket_of(const char *name, size_t len)
{
    uint32_t h = 2166136261u; /* FNV-1a, 32 bits */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 16777619u;
    return h % BM_SERVICE_BUCKETS;
}

void bm_services_init(struct bm_services *services)
{
    memset(services, 0, sizeof(*services));
    pthread_mutex_init(&services->lock, NULL);
}

void bm_services_deinit(struct bm_services *services)
{
    for (unsigned i = 0; i < BM_SERVICE_BUCKETS; i++) {
        struct bm_service *s = atomic_load_explicit(&services->buckets[i], memory_order_relaxed);
        while (s) {
            struct bm_service *next = s->next;
            bm_free(NULL, s, sizeof(*s));
            s = next;
        }
    }
    pthread_mutex_destroy(&services->lock);
}

static struct bm_service *find(struct bm_services *services, const char *name, size_t len)
{
    struct bm_service *s =
        atomic_load_explicit(&services->buckets[bucket_of(name, len)], memory_order_acquire);
    for (; s; s = s->next)
        if (s->name_len == len && memcmp(s->name, name, len) == 0 &&
            atomic_load_explicit(&s->live, memory_order_acquire))
            return s;
    return NULL;
}

const struct bm_service *bm_services_find(struct bm_services *services, const char *name,
                                          size_t len)
{
    return find(services, name, len);
}

/* One that was served just so and is no more. Under the lock. */
static struct bm_service *find_dead(struct bm_services *services, const struct bm_service *like)
{
    struct bm_service *s = atomic_load_explicit(
        &services->buckets[bucket_of(like->name, like->name_len)], memory_order_relaxed);
    for (; s; s = s->next)
        if (s->name_len == like->name_len && memcmp(s->name, like->name, s->name_len) == 0 &&
            s->handler == like->handler && s->arg == like->arg && s->core == like->core &&
            s->codec == like->codec)
            return s;
    return NULL;
}

static int add(beam_runtime *runtime, unsigned core, const char *name, beam_handler *handler,
               void *arg, const struct beam_codec *codec)
{
    struct bm_services *services = bm_runtime_services(runtime);
    size_t len = name ? strlen(name) : 0;
    if (len == 0 || len > BM_NAME_LEN_MAX || !handler || !bm_utf8_valid(name, len))
        return -EINVAL;
    if (bm_runtime_forked(runtime)) /* a thread of the parent's may have held the lock */
        return -BEAM_EFORKED;

    struct bm_service *s = bm_alloc_zero(NULL, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->handler = handler;
    s->arg = arg;
    s->core = core;
    s->codec = codec;
    s->name_len = (uint8_t)len;
    memcpy(s->name, name, len);
    atomic_init(&s->live, true);

    int r = 0;
    struct bm_service *dead = NULL;
    pthread_mutex_lock(&services->lock);
    if (find(services, name, len)) {
        r = -EEXIST;
    } else if ((dead = find_dead(services, s))) {
        atomic_store_explicit(&dead->live, true, memory_order_release);
    } else if (services->count >= BM_SERVICES_MAX) {
        r = -ENOSPC;
    } else {
        _Atomic(struct bm_service *) *bucket = &services->buckets[bucket_of(name, len)];
        s->next = atomic_load_explicit(bucket, memory_order_relaxed);
        atomic_store_explicit(bucket, s, memory_order_release);
        services->count++;
    }
    pthread_mutex_unlock(&services->lock);
    if (r < 0 || dead)
        bm_free(NULL, s, sizeof(*s));
    return r;
}

int beam_serve(beam_runtime *runtime, const char *name, beam_handler *handler, void *arg)
{
    return add(runtime, BM_ANY_CORE, name, handler, arg, NULL);
}

int beam_serve_on(beam_runtime *runtime, unsigned reactor, const char *name, beam_handler *handler,
                  void *arg)
{
    if (reactor >= beam_reactor_count(runtime))
        return -EINVAL;
    return add(runtime, reactor, name, handler, arg, NULL);
}

int beam_serve_with(beam_runtime *runtime, const char *name, beam_handler *handler, void *arg,
                    const struct beam_serve_options *options)
{
    struct beam_serve_options wanted;
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r < 0)
        return r;
    if (wanted.on_reactor && wanted.reactor >= beam_reactor_count(runtime))
        return -EINVAL;
    if (wanted.codec && !bm_codecs_has(&runtime->codecs, wanted.codec))
        return -BEAM_ECODEC_UNKNOWN;
    return add(runtime, wanted.on_reactor ? wanted.reactor : BM_ANY_CORE, name, handler, arg,
               wanted.codec);
}

int beam_unserve(beam_runtime *runtime, const char *name)
{
    struct bm_services *services = bm_runtime_services(runtime);
    if (!name)
        return -EINVAL;
    if (bm_runtime_forked(runtime))
        return -BEAM_EFORKED;
    pthread_mutex_lock(&services->lock);
    struct bm_service *s = find(services, name, strlen(name));
    if (s)
        atomic_store_explicit(&s->live, false, memory_order_release);
    pthread_mutex_unlock(&services->lock);
    return s ? 0 : -ENOENT;
}
