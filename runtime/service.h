/* The services of a runtime, by name. Read by every core without a lock; written rarely, under one.
 * Entries are never freed before the runtime: a request may still hold one. */
#ifndef BM_SERVICE_H
#define BM_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include <beam/service.h>

#define BM_SERVICE_BUCKETS 256u
#define BM_SERVICES_MAX 65536u /* ours: entries one runtime ever has; served once, there for good */
#define BM_ANY_CORE UINT32_MAX

struct bm_service {
    struct bm_service *next; /* set before the entry is published; never changed */
    _Atomic bool live;       /* release when (re)served; acquire by look-up */
    beam_handler *handler;
    void *arg;
    unsigned core;                  /* BM_ANY_CORE: wherever the request comes in */
    const struct beam_codec *codec; /* what the handler speaks; NULL: bodies as they come */
    beam_allow_fn *allow;           /* NULL: every peer may ask */
    void *allow_arg;
    uint8_t name_len;
    char name[256]; /* and a NUL */
};

struct bm_services {
    pthread_mutex_t lock; /* writers only */
    unsigned count;
    _Atomic(struct bm_service *) buckets[BM_SERVICE_BUCKETS]; /* release; acquire by look-up */
};

void bm_services_init(struct bm_services *services);
void bm_services_deinit(struct bm_services *services);
/* What is to be served under one name. */
struct bm_offer {
    const char *name;
    beam_handler *handler;
    void *arg;
    unsigned core;                  /* or BM_ANY_CORE */
    const struct beam_codec *codec; /* or NULL */
    beam_allow_fn *allow;           /* or NULL */
    void *allow_arg;
};

/* Serves all of them, or none: whoever looks finds no name of a set that is refused. No name comes twice.
 * Errors as beam_serve. */
int bm_services_offer(beam_runtime *runtime, const struct bm_offer *offers, size_t count);
/* Ends what was served just so; a name that somebody else serves by now stays his. */
void bm_services_withdraw(beam_runtime *runtime, const struct bm_offer *offers, size_t count);

/* A name that is served now, or NULL. Any thread, no lock; valid as long as the runtime. */
const struct bm_service *bm_services_find(struct bm_services *services, const char *name,
                                          size_t len);

/* Calls fn with each service that is served now, in no order. Any thread. */
void bm_services_each(struct bm_services *services,
                      void (*fn)(const struct bm_service *service, void *arg), void *arg);

/* Whether this peer may ask for it: struct beam_serve_options. On a reactor. */
bool bm_service_allowed(const struct bm_service *service, const struct beam_peer *peer);

#endif
