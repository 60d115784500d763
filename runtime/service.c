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

void bm_services_each(struct bm_services *services,
                      void (*fn)(const struct bm_service *service, void *arg), void *arg)
{
    for (unsigned i = 0; i < BM_SERVICE_BUCKETS; i++) {
        struct bm_service *s = atomic_load_explicit(&services->buckets[i], memory_order_acquire);
        for (; s; s = s->next)
            if (atomic_load_explicit(&s->live, memory_order_acquire))
                fn(s, arg);
    }
}

bool bm_service_allowed(const struct bm_service *service, const struct beam_peer *peer)
{
    return !service->allow ||
           service->allow((beam_str){service->name, service->name_len}, peer, service->allow_arg);
}

/* One that is, or was, served just so. Under the lock. */
static struct bm_service *find_like(struct bm_services *services, const struct bm_service *like)
{
    struct bm_service *s = atomic_load_explicit(
        &services->buckets[bucket_of(like->name, like->name_len)], memory_order_relaxed);
    for (; s; s = s->next)
        if (s->name_len == like->name_len && memcmp(s->name, like->name, s->name_len) == 0 &&
            s->handler == like->handler && s->arg == like->arg && s->core == like->core &&
            s->codec == like->codec && s->allow == like->allow && s->allow_arg == like->allow_arg)
            return s;
    return NULL;
}

static int fill(struct bm_service *s, const struct bm_offer *offer)
{
    size_t len = offer->name ? strlen(offer->name) : 0;
    if (len == 0 || len > BM_NAME_LEN_MAX || !offer->handler || !bm_utf8_valid(offer->name, len))
        return -EINVAL;
    *s = (struct bm_service){
        .handler = offer->handler,
        .arg = offer->arg,
        .core = offer->core,
        .codec = offer->codec,
        .allow = offer->allow,
        .allow_arg = offer->allow_arg,
        .name_len = (uint8_t)len,
    };
    memcpy(s->name, offer->name, len);
    atomic_init(&s->live, true);
    return 0;
}

static void drop(struct bm_service *set)
{
    while (set) {
        struct bm_service *next = set->next;
        bm_free(NULL, set, sizeof(*set));
        set = next;
    }
}

/* An entry for each, not published. */
static int make(const struct bm_offer *offers, size_t count, struct bm_service **ret_set)
{
    struct bm_service *set = NULL;
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++) {
        struct bm_service *s = bm_alloc_zero(NULL, sizeof(*s));
        r = s ? fill(s, &offers[i]) : -ENOMEM;
        if (s) {
            s->next = set;
            set = s;
        }
    }
    if (r < 0)
        drop(set);
    else
        *ret_set = set;
    return r;
}

/* Under the lock. */
static int may_publish(struct bm_services *services, const struct bm_service *set)
{
    unsigned fresh = 0;
    for (const struct bm_service *s = set; s; s = s->next) {
        if (find(services, s->name, s->name_len))
            return -EEXIST;
        fresh += !find_like(services, s);
    }
    return fresh > BM_SERVICES_MAX - services->count ? -ENOSPC : 0;
}

/* Consumes them. Under the lock. */
static void publish(struct bm_services *services, struct bm_service *set)
{
    while (set) {
        struct bm_service *s = set, *dead = find_like(services, s);
        set = s->next;
        if (dead) {
            atomic_store_explicit(&dead->live, true, memory_order_release);
            bm_free(NULL, s, sizeof(*s));
            continue;
        }
        _Atomic(struct bm_service *) *bucket = &services->buckets[bucket_of(s->name, s->name_len)];
        s->next = atomic_load_explicit(bucket, memory_order_relaxed);
        atomic_store_explicit(bucket, s, memory_order_release);
        services->count++;
    }
}

int bm_services_offer(beam_runtime *runtime, const struct bm_offer *offers, size_t count)
{
    struct bm_services *services = bm_runtime_services(runtime);
    struct bm_service *set;
    if (bm_runtime_forked(runtime)) /* a thread of the parent's may have held the lock */
        return -BEAM_EFORKED;
    int r = make(offers, count, &set);
    if (r < 0)
        return r;
    pthread_mutex_lock(&services->lock);
    r = may_publish(services, set);
    if (r == 0)
        publish(services, set);
    pthread_mutex_unlock(&services->lock);
    if (r < 0)
        drop(set);
    return r;
}

void bm_services_withdraw(beam_runtime *runtime, const struct bm_offer *offers, size_t count)
{
    struct bm_services *services = bm_runtime_services(runtime);
    if (bm_runtime_forked(runtime))
        return;
    pthread_mutex_lock(&services->lock);
    for (size_t i = 0; i < count; i++) {
        struct bm_service like,
            *s = fill(&like, &offers[i]) == 0 ? find_like(services, &like) : NULL;
        if (s)
            atomic_store_explicit(&s->live, false, memory_order_release);
    }
    pthread_mutex_unlock(&services->lock);
}

/* One of the application's. */
static int serve(beam_runtime *runtime, unsigned core, const char *name, beam_handler *handler,
                 void *arg, const struct beam_codec *codec, beam_allow_fn *allow)
{
    struct bm_offer offer = {name, handler, arg, core, codec, allow, arg};
    return bm_services_offer(runtime, &offer, 1);
}

int beam_serve(beam_runtime *runtime, const char *name, beam_handler *handler, void *arg)
{
    return serve(runtime, BM_ANY_CORE, name, handler, arg, NULL, NULL);
}

int beam_serve_on(beam_runtime *runtime, unsigned reactor, const char *name, beam_handler *handler,
                  void *arg)
{
    if (reactor >= beam_reactor_count(runtime))
        return -EINVAL;
    return serve(runtime, reactor, name, handler, arg, NULL, NULL);
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
    return serve(runtime, wanted.on_reactor ? wanted.reactor : BM_ANY_CORE, name, handler, arg,
                 wanted.codec, wanted.allow);
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
