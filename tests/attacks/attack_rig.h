/* A server as it stands on the Internet, an attacker that sends it any bytes, and a neighbour that behaves.
 *
 *   server     a runtime of one reactor with listeners at http://127.0.0.1:0 and https://127.0.0.1:0, that
 *              serves anybody; its clock may be moved on (attack_pass)
 *   attacker   a socket of the test's own thread, over TLS or not, that keeps count of what comes back
 *   neighbour  a thread with one connection of its own to the same reactor, that makes small calls one after
 *              the other and takes their times
 *
 * A case does its attack in rounds until the neighbour has made enough calls beside it; then there must be:
 * an answer to each of the neighbour's calls; less than ATTACK_GROWTH_MAX more memory than before, the
 * library's own count (the attackers' own is in it). How the neighbour's 99th percentile has changed is
 * printed; on a busy machine only a gross change says something. */
#ifndef BEAM_TEST_ATTACK_RIG_H
#define BEAM_TEST_ATTACK_RIG_H

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <beam/beam.h>
#include <beam/net.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "net/proto/certificate.h"
#include "net/proto/h2.h"
#include "net/proto/tls.h"
#include "net/resolve.h"
#include "net/stream_socket.h"
#include "net/url.h"
#include "tests/support/served.h"
#include "tests/support/test.h"

#define ATTACK_GROWTH_MAX (32u << 20) /* bytes */
#define ATTACK_CLOSED_MS 5000         /* until the server has closed on the attacker */
#define ATTACK_WINDOW 100u            /* calls of the neighbour that a percentile is taken of */
#define ATTACK_WINDOWS_MAX 64u
#define ATTACK_CALLS 300u /* of the neighbour, beside an attack at least */
#define ATTACK_ROUNDS_MIN 2u
#define ATTACK_REST 10u  /* of them between two rounds: three threads have two processors here */
#define ATTACK_GROSS 20u /* times slower */
#define ATTACK_FLOOR_US 5000u /* ... than this at least: below it the machine decides */
/* What the service `much` answers: to as many calls as there may be at once more than one connection may
 * have lying there, and less than ATTACK_GROWTH_MAX. */
#define ATTACK_MUCH (224u << 10)

/* Whoever asks all the server's memory of the sanitizer is slowed down himself, and his neighbour with him. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) ||                         \
    defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ATTACK_SANITIZED true
#else
#define ATTACK_SANITIZED false
#endif

/* ---- time, which a case may let pass ---- */

static _Atomic uint64_t attack_later_ns;

static inline uint64_t attack_real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BM_NS_PER_S + (uint64_t)now.tv_nsec;
}

static inline uint64_t attack_clock_now(void *arg)
{
    (void)arg;
    return attack_real_ns() + atomic_load(&attack_later_ns);
}

static inline void attack_clock_random(void *buf, size_t len, void *arg)
{
    (void)arg;
    if (getrandom(buf, len, 0) != (ssize_t)len)
        abort();
}

/* ---- the neighbour ---- */

struct neighbour {
    struct bm_socket_address address;
    pthread_t thread;
    pthread_mutex_t busy; /* held during a call */
    atomic_bool stop;
    atomic_uint calls;
    atomic_uint unanswered;
    atomic_size_t peak_bytes;
    uint32_t us[ATTACK_WINDOW];
    unsigned in_window, windows;
    uint32_t p99_us[ATTACK_WINDOWS_MAX];
    pthread_mutex_t figures;
};

static inline int attack_compare_u32(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static inline void neighbour_note(struct neighbour *neighbour, uint32_t us)
{
    neighbour->us[neighbour->in_window++] = us;
    if (neighbour->in_window < ATTACK_WINDOW)
        return;
    neighbour->in_window = 0;
    qsort(neighbour->us, ATTACK_WINDOW, sizeof(neighbour->us[0]), attack_compare_u32);
    pthread_mutex_lock(&neighbour->figures);
    if (neighbour->windows < ATTACK_WINDOWS_MAX)
        neighbour->p99_us[neighbour->windows++] = neighbour->us[ATTACK_WINDOW * 99 / 100 - 1];
    pthread_mutex_unlock(&neighbour->figures);
}

/* The median of the windows since the last time; 0: none was whole. */
static inline uint32_t neighbour_p99_us(struct neighbour *neighbour)
{
    uint32_t median = 0;
    pthread_mutex_lock(&neighbour->figures);
    qsort(neighbour->p99_us, neighbour->windows, sizeof(neighbour->p99_us[0]), attack_compare_u32);
    if (neighbour->windows > 0)
        median = neighbour->p99_us[neighbour->windows / 2];
    neighbour->windows = 0;
    pthread_mutex_unlock(&neighbour->figures);
    return median;
}

static inline void attack_see_memory(atomic_size_t *peak)
{
    size_t now = bm_alloc_totals().live_bytes, before = atomic_load(peak);
    while (now > before && !atomic_compare_exchange_weak(peak, &before, now))
        ;
}

static inline int attack_connect(const struct bm_socket_address *address)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* each byte when it is sent */
    if (connect(fd, &address->any, address->len) == 0)
        return fd;
    int r = -errno;
    close(fd);
    return r;
}

#define NEIGHBOUR_CALL                                                                             \
    "POST /beam/call/echo HTTP/1.1\r\nhost: n\r\ncontent-type: text/plain\r\n"                     \
    "content-length: 9\r\n\r\nneighbour"

/* One call over a connection that it has, or a new one. */
static inline bool neighbour_call(const struct neighbour *neighbour, int *fd)
{
    char got[2048];
    size_t len = 0;
    if (*fd < 0)
        *fd = attack_connect(&neighbour->address);
    if (*fd < 0 || send(*fd, NEIGHBOUR_CALL, sizeof(NEIGHBOUR_CALL) - 1, MSG_NOSIGNAL) < 0)
        return false;
    for (;;) {
        struct pollfd pfd = {.fd = *fd, .events = POLLIN};
        if (poll(&pfd, 1, ATTACK_CLOSED_MS) != 1)
            return false;
        ssize_t n = recv(*fd, got + len, sizeof(got) - 1 - len, 0);
        if (n <= 0)
            return false;
        len += (size_t)n;
        got[len] = '\0';
        if (len > 9 && strcmp(got + len - 9, "neighbour") == 0)
            return strncmp(got, "HTTP/1.1 200", 12) == 0;
    }
}

static inline void *neighbour_run(void *arg)
{
    struct neighbour *neighbour = arg;
    int fd = -1;
    while (!atomic_load(&neighbour->stop)) {
        pthread_mutex_lock(&neighbour->busy);
        uint64_t begin = attack_real_ns();
        bool again = fd >= 0;
        bool ok = neighbour_call(neighbour, &fd);
        if (!ok && fd >= 0) {
            close(fd);
            fd = -1;
            /* It was idle for as long as the server lets one be. */
            if (again)
                ok = neighbour_call(neighbour, &fd);
        }
        uint64_t took = attack_real_ns() - begin;
        pthread_mutex_unlock(&neighbour->busy);
        if (!ok)
            atomic_fetch_add(&neighbour->unanswered, 1);
        neighbour_note(neighbour, (uint32_t)(took / BM_NS_PER_US));
        attack_see_memory(&neighbour->peak_bytes);
        atomic_fetch_add(&neighbour->calls, 1);
        sched_yield();
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* ---- the server ---- */

static struct attack_site {
    beam_runtime *runtime;
    struct bm_certificate ca, certificate;
    struct bm_socket_address plain, secure;
    struct bm_tls_context *client_h2, *client_http1;
    struct neighbour neighbour;
    bool has_neighbour;
    uint32_t calm_us; /* the neighbour's percentile before */
    size_t before_bytes;
    atomic_uint held, cancels, echoes, applications;
    char log[8192];
    pthread_mutex_t log_lock;
} site;

#define ATTACK_PLAIN_URL "http://127.0.0.1:0"
#define ATTACK_SECURE_URL "https://127.0.0.1:0"

static inline void attack_on_log(enum beam_log_level level, const char *text, void *arg)
{
    (void)level, (void)arg;
    pthread_mutex_lock(&site.log_lock);
    size_t len = strlen(site.log);
    snprintf(site.log + len, sizeof(site.log) - len, "%s\n", text);
    pthread_mutex_unlock(&site.log_lock);
}

/* Something, since the last time. */
static inline bool attack_has_logged(void)
{
    pthread_mutex_lock(&site.log_lock);
    bool something = site.log[0] != '\0';
    pthread_mutex_unlock(&site.log_lock);
    return something;
}

/* Whether the server's log has said it, and forgets all that it has said. */
static inline bool attack_logged(const char *text)
{
    pthread_mutex_lock(&site.log_lock);
    bool found = strstr(site.log, text) != NULL;
    if (!found)
        test_note("looked for '%s' in the log: %.200s", text, site.log);
    site.log[0] = '\0';
    pthread_mutex_unlock(&site.log_lock);
    return found;
}

static inline void attack_echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    size_t len;
    const void *body = beam_message_body(message, &len);
    (void)arg;
    beam_message_set_body(answer, body, len);
    atomic_fetch_add(&site.echoes, 1);
    beam_reply(request, &answer);
}

static inline void attack_on_cancel(beam_request *request, void *arg)
{
    (void)arg;
    atomic_fetch_add(&site.cancels, 1);
    beam_fail(request, BEAM_CANCELLED, NULL);
}

/* Works until it is told that nobody waits for it. */
static inline void attack_hold(beam_request *request, const beam_message *message, void *arg)
{
    (void)message, (void)arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, attack_on_cancel, NULL);
    atomic_fetch_add(&site.held, 1);
}

static inline void attack_much(beam_request *request, const beam_message *message, void *arg)
{
    static const uint8_t much[ATTACK_MUCH];
    beam_message *answer = beam_message_new();
    (void)message, (void)arg;
    beam_message_set_body(answer, much, sizeof(much));
    beam_reply(request, &answer);
}

static inline void attack_application(beam_http_request *request, void *arg)
{
    static const uint8_t much[ATTACK_MUCH];
    bool asks_much = beam_http_path(request).len == 5; /* "/much" */
    (void)arg;
    atomic_fetch_add(&site.applications, 1);
    CHECK_INT(beam_http_respond(request, 200, NULL, 0, asks_much ? (const char *)much : "yours",
                                asks_much ? sizeof(much) : 5),
              0);
}

static bool attack_expired; /* the server's certificate has */

static inline struct bm_certificate attack_certificate(enum bm_certificate_use use,
                                                       const char *name,
                                                       const struct bm_certificate *issuer)
{
    const char *names[] = {name, NULL};
    bool expired = attack_expired && use == BM_CERTIFICATE_SERVER;
    int64_t now_s = (int64_t)time(NULL);
    struct bm_certificate made;
    REQUIRE_INT(bm_certificate_make(&made,
                                    &(struct bm_certificate_options){
                                        .size = sizeof(struct bm_certificate_options),
                                        .use = use,
                                        .common_name = name,
                                        .names = use == BM_CERTIFICATE_CA ? NULL : names,
                                        .issuer = issuer,
                                        .not_before_s = expired ? now_s - 20 * 86400 : 0,
                                        .not_after_s = expired ? now_s - 10 * 86400 : 0,
                                    }),
                0);
    return made;
}

static inline struct beam_pem attack_pem(const char *text)
{
    return (struct beam_pem){.data = text, .len = strlen(text)};
}

static inline struct bm_tls_context *attack_client_context(const struct bm_tls_options *more,
                                                           const char *alpn)
{
    const char *const names[] = {alpn, NULL};
    struct bm_tls_options options = more ? *more : (struct bm_tls_options){0};
    struct bm_tls_context *context = NULL;
    options.size = sizeof(options);
    options.role = BM_TLS_CLIENT;
    if (!options.ca.data)
        options.ca = (struct bm_tls_bytes){.data = site.ca.pem, .len = strlen(site.ca.pem)};
    options.alpn = alpn ? names : NULL;
    char why[BM_TLS_WHY_LEN] = "";
    int r = bm_tls_context_new(&context, &options, why);
    test_note("%s", why);
    REQUIRE_INT(r, 0);
    return context;
}

static inline struct bm_socket_address attack_address(const char *url)
{
    struct bm_url parsed;
    struct bm_socket_address address;
    char real[400];
    REQUIRE_INT(beam_listen_url(site.runtime, url, real, sizeof(real)), 0);
    REQUIRE_INT(bm_url_parse(real, &parsed, NULL), 0);
    REQUIRE_INT(bm_resolve_wait(&parsed, &address), 0);
    return address;
}

/* net: what both listeners have; NULL: what an attack needs. */
static inline void site_open(const struct beam_net_listen *net)
{
    static const struct beam_transport *const transports[] = {&beam_http, &beam_https, NULL};
    static const struct bm_clock clock = {attack_clock_now, attack_clock_random, NULL};
    struct beam_net_listen plain = {
        .size = sizeof(plain),
        .insecure_anonymous = true,
        .on_request = attack_application,
        .connections_address_max = 65536,
        .connections_address_per_s = 65536,
    };
    if (net)
        plain = *net;
    served_need_io_uring();
    memset(&site, 0, sizeof(site));
    pthread_mutex_init(&site.log_lock, NULL);
    atomic_store(&attack_later_ns, 0);
    bm_clock_set(&clock);
    site.ca = attack_certificate(BM_CERTIFICATE_CA, "ca", NULL);
    site.certificate = attack_certificate(BM_CERTIFICATE_SERVER, "dns:localhost", &site.ca);
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 1, .transports = transports,
                                                       .log = attack_on_log,
                                                       .stop_timeout_ns = 100 * BEAM_MS),
                                 &site.runtime),
                0);
    REQUIRE_INT(beam_serve(site.runtime, "echo", attack_echo, NULL), 0);
    REQUIRE_INT(beam_serve(site.runtime, "hold", attack_hold, NULL), 0);
    REQUIRE_INT(beam_serve(site.runtime, "much", attack_much, NULL), 0);
    struct beam_net_listen secure = plain;
    secure.certificate = attack_pem(site.certificate.pem);
    secure.key = attack_pem(site.certificate.key);
    plain.client_ca = plain.crl = (struct beam_pem){0};
    plain.tls12 = false;
    REQUIRE_INT(beam_listen(site.runtime, ATTACK_PLAIN_URL, &BEAM_LISTEN_OPTIONS(.net = &plain)),
                0);
    REQUIRE_INT(beam_listen(site.runtime, ATTACK_SECURE_URL, &BEAM_LISTEN_OPTIONS(.net = &secure)),
                0);
    REQUIRE_INT(beam_start(site.runtime), 0);
    site.plain = attack_address(ATTACK_PLAIN_URL);
    site.secure = attack_address(ATTACK_SECURE_URL);
    site.client_h2 = attack_client_context(NULL, "h2");
    site.client_http1 = attack_client_context(NULL, "http/1.1");
}

static inline void site_close(void)
{
    bm_tls_context_unref(site.client_h2);
    bm_tls_context_unref(site.client_http1);
    site.runtime = beam_runtime_free(site.runtime);
    pthread_mutex_destroy(&site.log_lock);
    bm_clock_set(NULL);
}

static inline void attack_nothing(void *arg)
{
    (void)arg;
}

static inline void neighbour_until(unsigned calls)
{
    unsigned begin = atomic_load(&site.neighbour.calls);
    WAIT_UNTIL(atomic_load(&site.neighbour.calls) - begin >= calls);
}

/* What was sent before has been read: it came before what the neighbour has sent since, and been answered. */
static inline void attack_settle(void)
{
    if (site.has_neighbour)
        neighbour_until(2); /* one may have been under way */
}

/* Lets so much time pass at once, between two calls of the neighbour, when the server has read what was sent. */
static inline void attack_pass(uint64_t ns)
{
    attack_settle();
    pthread_mutex_lock(&site.neighbour.busy);
    atomic_fetch_add(&attack_later_ns, ns);
    for (int i = 0; i < 3; i++) /* a turn each: what is due, and what follows */
        served_run(site.runtime, 0, attack_nothing, NULL);
    pthread_mutex_unlock(&site.neighbour.busy);
    attack_settle();
}

/* A server, its neighbour, and how that one is without any attack. */
static inline void attack_begin(const struct beam_net_listen *net)
{
    site_open(net);
    pthread_mutex_init(&site.neighbour.busy, NULL);
    pthread_mutex_init(&site.neighbour.figures, NULL);
    site.neighbour.address = site.plain;
    REQUIRE_INT(pthread_create(&site.neighbour.thread, NULL, neighbour_run, &site.neighbour), 0);
    site.has_neighbour = true;
    neighbour_until(ATTACK_WINDOW); /* warm */
    (void)neighbour_p99_us(&site.neighbour);
    neighbour_until(ATTACK_CALLS);
    site.calm_us = neighbour_p99_us(&site.neighbour);
    site.before_bytes = bm_alloc_totals().live_bytes;
    atomic_store(&site.neighbour.peak_bytes, site.before_bytes);
}

static inline void attack_end(const char *name)
{
    uint32_t during_us = neighbour_p99_us(&site.neighbour);
    size_t peak = atomic_load(&site.neighbour.peak_bytes);
    size_t growth = peak > site.before_bytes ? peak - site.before_bytes : 0;
    uint32_t floor_us = site.calm_us > ATTACK_FLOOR_US ? site.calm_us : ATTACK_FLOOR_US;
    printf("     %s: neighbour's p99 %u us before, %u us beside it (x %.1f); memory + %zu KiB\n",
           name, site.calm_us, during_us, site.calm_us > 0 ? (double)during_us / site.calm_us : 0.0,
           growth >> 10);
    CHECK(growth < ATTACK_GROWTH_MAX);
    CHECK(during_us < ATTACK_GROSS * floor_us || ATTACK_SANITIZED);
    neighbour_until(1); /* and it is still served */
    atomic_store(&site.neighbour.stop, true);
    REQUIRE_INT(pthread_join(site.neighbour.thread, NULL), 0);
    CHECK_UINT(atomic_load(&site.neighbour.unanswered), 0);
    pthread_mutex_destroy(&site.neighbour.busy);
    pthread_mutex_destroy(&site.neighbour.figures);
    site_close();
}

/* ---- the attacker ---- */

enum { ATTACK_FRAME_TYPES = 10, ATTACK_TEXT_LEN = 4096 };

struct attacker {
    int fd;
    struct bm_tls *tls;
    bool http2;
    bool deaf;   /* reads nothing while it sends */
    bool closed; /* by the server */
    int error;   /* of our TLS */
    /* Of what came: with HTTP/1.1 the first bytes, */
    char text[ATTACK_TEXT_LEN];
    size_t text_len;
    /* with HTTP/2 its frames. */
    uint8_t head[9];
    unsigned head_len, payload_len, payload_at;
    uint8_t payload[8];
    unsigned frames[ATTACK_FRAME_TYPES];
    uint64_t data_len;
    bool goaway;
    uint32_t code;       /* of the last GOAWAY */
    uint32_t reset_code; /* of the last RST_STREAM */
    unsigned answers;    /* HEADERS that came */
    unsigned oks;        /* ... with 200 */
};

enum {
    F_DATA,
    F_HEADERS,
    F_PRIORITY,
    F_RST_STREAM,
    F_SETTINGS,
    F_PUSH_PROMISE,
    F_PING,
    F_GOAWAY,
    F_WINDOW_UPDATE,
    F_CONTINUATION,
};
enum { F_ACK = 1, F_END_STREAM = 1, F_END_HEADERS = 4, F_PADDED = 8 };

static inline uint32_t attack_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline void attacker_frame_ended(struct attacker *attacker)
{
    unsigned type = attacker->head[3];
    attacker->head_len = 0;
    if (type >= ATTACK_FRAME_TYPES)
        return;
    attacker->frames[type]++;
    if (type == F_DATA)
        attacker->data_len += attacker->payload_len;
    if (type == F_GOAWAY) {
        attacker->goaway = true;
        attacker->code = attack_u32(attacker->payload + 4);
    }
    if (type == F_RST_STREAM)
        attacker->reset_code = attack_u32(attacker->payload);
    if (type == F_HEADERS) {
        attacker->answers++;
        attacker->oks += attacker->payload[0] == 0x88; /* RFC 7541, appendix A */
    }
}

static inline void attacker_hear(struct attacker *attacker, const uint8_t *bytes, size_t len)
{
    if (!attacker->http2) {
        size_t room = ATTACK_TEXT_LEN - 1 - attacker->text_len;
        size_t n = len < room ? len : room;
        memcpy(attacker->text + attacker->text_len, bytes, n);
        attacker->text_len += n;
        attacker->text[attacker->text_len] = '\0';
        attacker->data_len += len;
        return;
    }
    for (size_t i = 0; i < len;) {
        if (attacker->head_len < 9) {
            attacker->head[attacker->head_len++] = bytes[i++];
            if (attacker->head_len < 9)
                continue;
            attacker->payload_len = (unsigned)attacker->head[0] << 16 |
                                    (unsigned)attacker->head[1] << 8 | attacker->head[2];
            attacker->payload_at = 0;
        } else {
            size_t left = attacker->payload_len - attacker->payload_at;
            size_t n = len - i < left ? len - i : left;
            for (size_t k = 0; k < n && attacker->payload_at + k < sizeof(attacker->payload); k++)
                attacker->payload[attacker->payload_at + k] = bytes[i + k];
            attacker->payload_at += (unsigned)n;
            i += n;
        }
        if (attacker->payload_at == attacker->payload_len)
            attacker_frame_ended(attacker);
    }
}

/* False: the server has closed. */
static inline bool attacker_put(struct attacker *attacker, const uint8_t *bytes, size_t len);

/* Sends what TLS has to say. */
static inline bool attacker_flush(struct attacker *attacker)
{
    size_t len;
    const uint8_t *bytes;
    while (attacker->tls && (bytes = bm_tls_output(attacker->tls, &len)) && len > 0) {
        if (!attacker_put(attacker, bytes, len))
            return false;
        bm_tls_output_ack(attacker->tls, len);
    }
    return true;
}

/* Takes what has come. False: there was nothing. */
static inline bool attacker_take(struct attacker *attacker)
{
    static _Thread_local uint8_t bytes[65536], plain[BM_TLS_RECORD_MAX];
    ssize_t n = recv(attacker->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        attacker->closed = true;
        return false;
    }
    if (!attacker->tls) {
        attacker_hear(attacker, bytes, (size_t)n);
        return true;
    }
    int r = bm_tls_receive(attacker->tls, bytes, (size_t)n, bm_clock_now_ns());
    while (r == 0) {
        size_t len = 0;
        r = bm_tls_read(attacker->tls, plain, sizeof(plain), &len);
        if (r == 0)
            attacker_hear(attacker, plain, len);
    }
    if (r < 0 && attacker->error == 0)
        attacker->error = r;
    return true;
}

static inline bool attacker_put(struct attacker *attacker, const uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at < len && !attacker->closed;) {
        struct pollfd pfd = {.fd = attacker->fd,
                             .events = (short)(attacker->deaf ? POLLOUT : POLLOUT | POLLIN)};
        if (poll(&pfd, 1, ATTACK_CLOSED_MS) != 1)
            return false; /* it lets us wait */
        if (!attacker->deaf && (pfd.revents & POLLIN))
            (void)attacker_take(attacker);
        if (attacker->closed || !(pfd.revents & (POLLOUT | POLLERR | POLLHUP)))
            continue;
        ssize_t n = send(attacker->fd, bytes + at, len - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            at += (size_t)n;
        else if (errno != EAGAIN && errno != EINTR)
            attacker->closed = true;
    }
    attack_see_memory(&site.neighbour.peak_bytes);
    return !attacker->closed;
}

/* Bytes for the server. False: it has closed, has said that it will, or takes nothing. */
static inline bool attacker_send(struct attacker *attacker, const void *bytes, size_t len)
{
    if (!attacker->tls)
        return attacker_put(attacker, bytes, len) && !attacker->goaway;
    for (size_t at = 0; at < len;) {
        size_t taken = 0;
        int r = bm_tls_write(attacker->tls, (const uint8_t *)bytes + at, len - at, &taken);
        if (r < 0 || !attacker_flush(attacker))
            return false;
        at += taken;
    }
    return !attacker->goaway;
}

/* Waits for something of the server's; false: nothing came in time, or it has closed. */
static inline bool attacker_turn(struct attacker *attacker, int timeout_ms)
{
    struct pollfd pfd = {.fd = attacker->fd, .events = POLLIN};
    if (attacker->closed || poll(&pfd, 1, timeout_ms) != 1)
        return false;
    (void)attacker_take(attacker);
    attack_see_memory(&site.neighbour.peak_bytes);
    return !attacker->closed && (!attacker->tls || attacker_flush(attacker));
}

#define ATTACKER_UNTIL(attacker_, condition)                                                       \
    do {                                                                                           \
        while (!(condition) && attacker_turn((attacker_), ATTACK_CLOSED_MS))                       \
            ;                                                                                      \
        CHECK(condition);                                                                          \
    } while (0)

/* A byte each second; what is sent has come before time passes. Until the server has closed. */
static inline void attacker_send_slowly(struct attacker *attacker, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len && attacker_send(attacker, (const char *)bytes + i, 1); i++) {
        int unsent = 0;
        WAIT_UNTIL(ioctl(attacker->fd, SIOCOUTQ, &unsent) < 0 || unsent == 0);
        attack_pass(BM_NS_PER_S);
        while (attacker_turn(attacker, 0))
            ;
    }
}

/* The server closes in time. */
static inline bool attacker_is_closed(struct attacker *attacker)
{
    uint64_t end = attack_real_ns() + ATTACK_CLOSED_MS * BM_NS_PER_MS;
    while (!attacker->closed && attack_real_ns() < end)
        (void)attacker_turn(attacker, 100);
    return attacker->closed;
}

static inline void attacker_tcp(struct attacker *attacker, bool tls, bool http2)
{
    memset(attacker, 0, sizeof(*attacker));
    attacker->http2 = http2;
    attacker->fd = attack_connect(tls ? &site.secure : &site.plain);
    REQUIRE(attacker->fd >= 0);
}

/* A connection of its own. context NULL: one that the server trusts. */
static inline void attacker_open_with(struct attacker *attacker, bool tls, bool http2,
                                      struct bm_tls_context *context, const char *host)
{
    attacker_tcp(attacker, tls, http2);
    if (!tls)
        return;
    const struct bm_tls_start start = {.size = sizeof(start), .host = host, .port = 443};
    if (!context)
        context = http2 ? site.client_h2 : site.client_http1;
    REQUIRE_INT(bm_tls_new(&attacker->tls, context, &start), 0);
    (void)attacker_flush(attacker);
    while (!bm_tls_is_open(attacker->tls) && attacker->error == 0 &&
           attacker_turn(attacker, ATTACK_CLOSED_MS))
        ;
    (void)attacker_flush(attacker);
}

static inline void attacker_open(struct attacker *attacker, bool tls, bool http2)
{
    attacker_open_with(attacker, tls, http2, NULL, "localhost");
    if (tls)
        REQUIRE(bm_tls_is_open(attacker->tls));
}

static inline void attacker_close(struct attacker *attacker)
{
    attacker->tls = bm_tls_free(attacker->tls);
    close(attacker->fd);
}

/* ---- rounds ---- */

enum attack_way {
    ATTACK_PLAIN = 1,
    ATTACK_TLS = 2,
    ATTACK_BOTH = 3,
};

/* The attack over these ways, in rounds, each with a connection of its own that the server has to close. */
struct attack {
    const char *name;
    enum attack_way ways;
    bool http2;
    void (*round)(struct attacker *attacker);
    uint32_t code;        /* of the GOAWAY that has to come; 0: none has to */
    bool or_more_streams; /* ... or that of more streams than may be open, which ends it as well */
};

static inline bool attack_goes_on(unsigned rounds, unsigned begin)
{
    return rounds < ATTACK_ROUNDS_MIN || atomic_load(&site.neighbour.calls) - begin < ATTACK_CALLS;
}

static inline void attack_check_code(const struct attack *attack, const struct attacker *attacker)
{
    if (attack->code == 0)
        return;
    CHECK(attacker->goaway);
    if (!attack->or_more_streams || attacker->code != BM_H2_PROTOCOL_ERROR)
        CHECK_UINT(attacker->code, attack->code);
}

static inline void attack_over(const struct attack *attack, bool tls)
{
    static struct attacker attacker;
    char name[100];
    snprintf(name, sizeof(name), "%s%s%s", attack->name, attack->http2 ? ", HTTP/2" : ", HTTP/1.1",
             tls ? ", TLS" : "");
    test_note("%s", name);
    attack_begin(NULL);
    unsigned begin = atomic_load(&site.neighbour.calls);
    for (unsigned rounds = 0; attack_goes_on(rounds, begin); rounds++) {
        attacker_open(&attacker, tls, attack->http2);
        attack->round(&attacker);
        attacker.deaf = false;
        CHECK(attacker_is_closed(&attacker));
        attack_check_code(attack, &attacker);
        attacker_close(&attacker);
        neighbour_until(ATTACK_REST);
    }
    attack_end(name);
}

static inline void attack_run(const struct attack *attack)
{
    if (attack->ways & ATTACK_PLAIN)
        attack_over(attack, false);
    if (attack->ways & ATTACK_TLS)
        attack_over(attack, true);
}

#endif
