/* Connections of both roles against each other, on the reactor of one embedded runtime: over a pair of
 * sockets or TCP, with TLS or without, HTTP/1.1 or HTTP/2. A server that echoes, and clients that send and
 * count; both are replaced where a case wants something else. */
#ifndef BEAM_TEST_CONNECTION_RIG_H
#define BEAM_TEST_CONNECTION_RIG_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <beam/beam.h>

#include "net/connection_inner.h"
#include "net/proto/certificate.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "tests/support/test.h"

struct rig_way {
    const char *name;
    bool http2, tls, tcp;
};

static const struct rig_way rig_ways[] = {
    {"http/1.1 on a pair", false, false, false}, {"http/2 on a pair", true, false, false},
    {"http/1.1 on tcp", false, false, true},     {"http/2 on tcp", true, false, true},
    {"http/1.1 on tls", false, true, true},      {"http/2 on tls", true, true, true},
};
#define RIG_WAYS (sizeof(rig_ways) / sizeof(rig_ways[0]))

struct rig_end {
    struct bm_connection *connection; /* NULL: gone */
    unsigned opened, requests, draining, settings, closed;
    int error;
    char why[256];
    unsigned version; /* as it was at its end */
};

struct rig {
    beam_runtime *runtime;
    struct bm_core *core;
    struct rig_way way;
    struct bm_tls_context *server_tls, *client_tls;
    struct rig_end server, client;
    int server_fd, client_fd; /* borrowed: those of the connections */
    void (*serve)(struct bm_exchange *exchange, const struct bm_exchange_request *request);
    struct bm_alloc_totals before;
};
static struct rig rig;

/* ---- time, which a case may let pass ---- */

static uint64_t rig_later_ns;

static inline uint64_t rig_clock_now(void *arg)
{
    struct timespec now;
    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BM_NS_PER_S + (uint64_t)now.tv_nsec + rig_later_ns;
}

static inline void rig_clock_random(void *buf, size_t len, void *arg)
{
    (void)arg;
    REQUIRE_INT(getrandom(buf, len, 0), (long)len);
}

/* ---- the loop ---- */

/* A quiet send under way with more to go behind it: nobody would come back for that. */
static inline bool rig_is_stuck(const struct rig_end *end)
{
    const struct bm_connection *connection = end->connection;
    if (!connection || !connection->version || connection->link.mute)
        return false;
    const struct bm_link *link = &connection->link;
    const struct bm_op *op = &link->send_op;
    if (bm_op_idle(op) || !op->quiet || op->hurried || bm_list_linked(&link->task.node))
        return false;
    size_t waits = connection->version->output_len(connection);
    return link->tls ? bm_tls_output_len(link->tls) > op->len || (waits > 0 && link->secure)
                     : waits > op->len;
}

/* Turns only when the reactor has asked for it: what nobody is woken for is lost. */
static inline void rig_turn(int wait_ms)
{
    struct pollfd pfd = {.fd = beam_runtime_fd(rig.runtime), .events = POLLIN};
    if (poll(&pfd, 1, wait_ms) > 0 || wait_ms == 0)
        REQUIRE_INT(beam_runtime_turn(rig.runtime), 0);
    REQUIRE(!rig_is_stuck(&rig.server) && !rig_is_stuck(&rig.client));
}

/* Lets so much time pass at once. */
static inline void rig_pass(uint64_t ns)
{
    rig_later_ns += ns;
    for (int i = 0; i < 4; i++)
        rig_turn(0);
}

#define RIG_PATIENCE_NS (20 * BM_NS_PER_S) /* something is lost */

#define RIG_UNTIL(condition)                                                                       \
    do {                                                                                           \
        uint64_t rig_end_ = bm_clock_now_ns() + RIG_PATIENCE_NS;                                   \
        while (!(condition) && bm_clock_now_ns() < rig_end_)                                       \
            rig_turn(100);                                                                         \
        REQUIRE(condition);                                                                        \
    } while (0)

/* ---- the server: it sends back what comes ---- */

struct rig_echo {
    uint8_t *bytes;
    size_t at, len, cap;
    bool ended;
};
static unsigned rig_echoes; /* that there are */

static inline void echo_on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len,
                                void *arg)
{
    struct rig_echo *echo = arg;
    if (echo->cap - echo->len < len) {
        if (echo->len > echo->at)
            memmove(echo->bytes, echo->bytes + echo->at, echo->len - echo->at);
        echo->len -= echo->at;
        echo->at = 0;
        if (echo->cap - echo->len < len) {
            echo->cap = echo->len + len + 65536;
            echo->bytes = realloc(echo->bytes, echo->cap);
        }
    }
    memcpy(echo->bytes + echo->len, bytes, len);
    echo->len += len;
    bm_exchange_resume(exchange);
}

static inline void echo_on_end(struct bm_exchange *exchange, void *arg)
{
    ((struct rig_echo *)arg)->ended = true;
    bm_exchange_resume(exchange);
}

static inline ssize_t echo_read(struct bm_exchange *exchange, uint8_t *buf, size_t len,
                                bool *ret_end, void *arg)
{
    struct rig_echo *echo = arg;
    size_t n = echo->len - echo->at < len ? echo->len - echo->at : len;
    if (n > 0)
        memcpy(buf, echo->bytes + echo->at, n);
    echo->at += n;
    bm_exchange_consumed(exchange, n);
    *ret_end = echo->ended && echo->at == echo->len;
    return (ssize_t)n;
}

static int rig_echo_error; /* of the last that was closed */

static inline void echo_on_close(struct bm_exchange *exchange, int error, void *arg)
{
    struct rig_echo *echo = arg;
    (void)exchange;
    rig_echo_error = error;
    rig_echoes--;
    free(echo->bytes);
    free(echo);
}

static const struct bm_exchange_handlers rig_echo_handlers = {
    .on_body = echo_on_body,
    .on_end = echo_on_end,
    .read = echo_read,
    .on_close = echo_on_close,
};

static inline void rig_serve_echo(struct bm_exchange *exchange,
                                  const struct bm_exchange_request *request)
{
    const struct bm_field fields[] = {BM_FIELD("content-type", "text/plain")};
    (void)request;
    rig_echoes++;
    bm_exchange_take(exchange, &rig_echo_handlers, calloc(1, sizeof(struct rig_echo)));
    CHECK_INT(bm_exchange_answer(exchange, 200, fields, 1, NULL, -1), 0);
}

/* Answers at once: "hello". */
static inline void rig_serve_hello(struct bm_exchange *exchange,
                                   const struct bm_exchange_request *request)
{
    (void)request;
    CHECK_INT(bm_exchange_answer(exchange, 200, NULL, 0, "hello", 5), 0);
}

/* ---- owners ---- */

static inline void rig_on_open(struct bm_connection *connection, void *arg)
{
    (void)connection;
    ((struct rig_end *)arg)->opened++;
}

static inline void rig_on_request(struct bm_connection *connection, struct bm_exchange *exchange,
                                  const struct bm_exchange_request *request, void *arg)
{
    (void)connection;
    ((struct rig_end *)arg)->requests++;
    if (rig.serve)
        rig.serve(exchange, request);
}

static inline void rig_on_settings(struct bm_connection *connection, void *arg)
{
    (void)connection;
    ((struct rig_end *)arg)->settings++;
}

static inline void rig_on_draining(struct bm_connection *connection, void *arg)
{
    (void)connection;
    ((struct rig_end *)arg)->draining++;
}

static inline void rig_on_close(struct bm_connection *connection, int error, const char *why,
                                void *arg)
{
    struct rig_end *end = arg;
    end->closed++;
    end->error = error;
    end->version = bm_connection_version(connection);
    snprintf(end->why, sizeof(end->why), "%s", why);
    end->connection = NULL;
}

static const struct bm_connection_owner rig_owner = {
    .on_open = rig_on_open,
    .on_request = rig_on_request,
    .on_settings = rig_on_settings,
    .on_draining = rig_on_draining,
    .on_close = rig_on_close,
};

/* ---- sockets ---- */

static inline void rig_tcp(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(listener >= 0);
    REQUIRE_INT(bind(listener, (struct sockaddr *)&address, len), 0);
    REQUIRE_INT(listen(listener, 1), 0);
    REQUIRE_INT(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_INT(connect(fds[1], (struct sockaddr *)&address, len), 0);
    fds[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    REQUIRE(fds[0] >= 0);
    close(listener);
    for (int i = 0; i < 2; i++)
        (void)setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static inline void rig_sockets(int fds[2])
{
    if (rig.way.tcp)
        rig_tcp(fds);
    else
        REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

/* ---- TLS ---- */

static inline struct bm_certificate rig_certificate(enum bm_certificate_use use, const char *name,
                                                    const struct bm_certificate *issuer)
{
    const char *names[] = {name, NULL};
    const struct bm_certificate_options options = {
        .size = sizeof(options),
        .use = use,
        .common_name = name,
        .names = use == BM_CERTIFICATE_CA ? NULL : names,
        .issuer = issuer,
    };
    struct bm_certificate made;
    REQUIRE_INT(bm_certificate_make(&made, &options), 0);
    return made;
}

static inline struct bm_tls_bytes rig_pem(const char *text)
{
    return (struct bm_tls_bytes){.data = text, .len = strlen(text)};
}

static inline void rig_open_tls(bool http2)
{
    static const char *const both[] = {"h2", "http/1.1", NULL}, *const one[] = {"http/1.1", NULL};
    char why[BM_TLS_WHY_LEN];
    struct bm_certificate ca = rig_certificate(BM_CERTIFICATE_CA, "a CA", NULL);
    struct bm_certificate own = rig_certificate(BM_CERTIFICATE_SERVER, "dns:localhost", &ca);
    const struct bm_tls_options server = {
        .size = sizeof(server),
        .role = BM_TLS_SERVER,
        .chain = rig_pem(own.pem),
        .key = rig_pem(own.key),
        .alpn = both,
    };
    const struct bm_tls_options client = {
        .size = sizeof(client),
        .role = BM_TLS_CLIENT,
        .ca = rig_pem(ca.pem),
        .alpn = http2 ? both : one,
    };
    REQUIRE_INT(bm_tls_context_new(&rig.server_tls, &server, why), 0);
    REQUIRE_INT(bm_tls_context_new(&rig.client_tls, &client, why), 0);
}

/* ---- connections ---- */

static inline int rig_try_accept(int *fd)
{
    const struct bm_connection_options options = {
        .core = rig.core,
        .server = true,
        .tls = rig.server_tls,
        .owner = &rig_owner,
        .arg = &rig.server,
    };
    rig.server_fd = *fd;
    return bm_connection_new(&options, fd, &rig.server.connection);
}

static inline void rig_accept(int fd)
{
    REQUIRE_INT(rig_try_accept(&fd), 0);
    CHECK_INT(fd, -1);
}

static inline int rig_try_connect(int *fd)
{
    const struct bm_tls_start start = {.size = sizeof(start), .host = "localhost", .port = 443};
    const struct bm_connection_options options = {
        .core = rig.core,
        .tls = rig.client_tls,
        .tls_start = &start,
        .http1 = !rig.way.http2,
        .http2 = rig.way.http2,
        .owner = &rig_owner,
        .arg = &rig.client,
    };
    rig.client_fd = *fd;
    return bm_connection_new(&options, fd, &rig.client.connection);
}

static inline void rig_connect(int fd)
{
    REQUIRE_INT(rig_try_connect(&fd), 0);
    CHECK_INT(fd, -1);
}

static inline void rig_open_runtime(struct rig_way way)
{
    test_note("%s", way.name);
    rig = (struct rig){.way = way, .serve = rig_serve_echo};
    static const struct bm_clock clock = {rig_clock_now, rig_clock_random, NULL};
    bm_clock_set(&clock);
    rig_echoes = 0;
    rig_echo_error = 1;
    REQUIRE_INT(beam_runtime_new(
                    &BEAM_RUNTIME_OPTIONS(.embedded = true, .stop_timeout_ns = 200 * BM_NS_PER_MS),
                    &rig.runtime),
                0);
    rig.core = &rig.runtime->cores[0];
    if (way.tls)
        rig_open_tls(way.http2);
}

/* Both ends, and the client is open. */
static inline void rig_open(struct rig_way way)
{
    int fds[2];
    rig_open_runtime(way);
    rig_sockets(fds);
    rig_accept(fds[0]);
    rig_connect(fds[1]);
    RIG_UNTIL(rig.client.opened > 0);
}

static inline void rig_close_runtime(void)
{
    rig.runtime = beam_runtime_free(rig.runtime);
    bm_tls_context_unref(rig.server_tls);
    bm_tls_context_unref(rig.client_tls);
    CHECK_UINT(rig_echoes, 0);
    bm_clock_set(NULL);
}

/* The client ends it, in order; both ends say so. */
static inline void rig_close(void)
{
    bm_connection_close(rig.client.connection);
    RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
    CHECK_UINT(rig.client.closed, 1);
    CHECK_UINT(rig.server.closed, 1);
    CHECK_INT(rig.client.error, 0);
    CHECK_INT(rig.server.error, 0);
    CHECK_STR(rig.client.why, "");
    CHECK_UINT(rig.client.version, rig.way.http2 ? 2u : 1u);
    CHECK_UINT(rig.server.version, rig.way.http2 ? 2u : 1u);
    rig_close_runtime();
}

/* A server, and a plain socket to it. */
static inline int rig_open_raw(struct rig_way way)
{
    int fds[2];
    rig_open_runtime(way);
    rig_sockets(fds);
    rig_accept(fds[0]);
    return fds[1];
}

static inline void raw_send(int fd, const char *text)
{
    REQUIRE_INT(send(fd, text, strlen(text), MSG_NOSIGNAL), (long)strlen(text));
}

/* What has come, as text; waits until it ends with, or has, `last`. "" and an end: NULL is for that. */
static char raw_text[70000];
static size_t raw_text_len;

static inline bool raw_receive(int fd)
{
    ssize_t n =
        recv(fd, raw_text + raw_text_len, sizeof(raw_text) - 1 - raw_text_len, MSG_DONTWAIT);
    if (n > 0)
        raw_text_len += (size_t)n;
    raw_text[raw_text_len] = '\0';
    return n == 0;
}

static inline void raw_expect(int fd, const char *last)
{
    uint64_t end = bm_clock_now_ns() + RIG_PATIENCE_NS;
    raw_text_len = 0;
    raw_text[0] = '\0';
    while (!strstr(raw_text, last) && bm_clock_now_ns() < end) {
        rig_turn(10);
        (void)raw_receive(fd);
    }
    REQUIRE(strstr(raw_text, last) != NULL);
}

/* Until the peer has ended. */
static inline void raw_expect_end(int fd)
{
    uint64_t end = bm_clock_now_ns() + RIG_PATIENCE_NS;
    bool ended = false;
    while (!(ended = raw_receive(fd)) && bm_clock_now_ns() < end)
        rig_turn(10);
    REQUIRE(ended);
}

/* ---- a client's request ---- */

struct rig_talk {
    struct bm_exchange *exchange;
    size_t send_len, sent; /* of the body */
    size_t got;
    bool wrong; /* what came is not what was sent */
    unsigned status, answers, ends, closes;
    int error;
    char text[64]; /* the beginning of what came */
    char server[32];
    bool stop_reading; /* consumes nothing */
    bool endless;      /* its body has no end */
};

static inline uint8_t talk_byte(const struct rig_talk *talk, size_t at)
{
    (void)talk;
    return (uint8_t)(at * 7 + (at >> 11));
}

static inline void talk_on_answer(struct bm_exchange *exchange, unsigned status,
                                  const struct bm_field *fields, size_t field_count, void *arg)
{
    struct rig_talk *talk = arg;
    (void)exchange;
    talk->answers++;
    talk->status = status;
    const struct bm_field *type = bm_field_find(fields, field_count, "content-type");
    if (type)
        snprintf(talk->server, sizeof(talk->server), "%.*s", (int)type->value_len, type->value);
}

static inline void talk_on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len,
                                void *arg)
{
    struct rig_talk *talk = arg;
    for (size_t i = 0; i < len; i++) {
        if (talk->got + i < sizeof(talk->text) - 1)
            talk->text[talk->got + i] = (char)bytes[i];
        talk->wrong |= bytes[i] != talk_byte(talk, talk->got + i);
    }
    talk->got += len;
    if (!talk->stop_reading)
        bm_exchange_consumed(exchange, len);
}

static inline void talk_on_end(struct bm_exchange *exchange, void *arg)
{
    (void)exchange;
    ((struct rig_talk *)arg)->ends++;
}

static inline ssize_t talk_read(struct bm_exchange *exchange, uint8_t *buf, size_t len,
                                bool *ret_end, void *arg)
{
    struct rig_talk *talk = arg;
    (void)exchange;
    size_t n = talk->send_len - talk->sent < len ? talk->send_len - talk->sent : len;
    for (size_t i = 0; i < n; i++)
        buf[i] = talk_byte(talk, talk->sent + i);
    talk->sent += n;
    *ret_end = talk->sent == talk->send_len && !talk->endless;
    return (ssize_t)n;
}

static inline void talk_on_close(struct bm_exchange *exchange, int error, void *arg)
{
    struct rig_talk *talk = arg;
    (void)exchange;
    talk->closes++;
    talk->error = error;
    talk->exchange = NULL;
}

static const struct bm_exchange_handlers rig_talk_handlers = {
    .on_answer = talk_on_answer,
    .on_body = talk_on_body,
    .on_end = talk_on_end,
    .read = talk_read,
    .on_close = talk_on_close,
};

static inline beam_str rig_str(const char *text)
{
    return (beam_str){text, strlen(text)};
}

static inline int rig_ask(struct rig_talk *talk, const char *method, const char *path, bool body)
{
    const struct bm_connection_ask ask = {
        .method = rig_str(method),
        .authority = rig_str("localhost"),
        .path = rig_str(path),
        .body = body,
    };
    return bm_connection_ask(rig.client.connection, &ask, &rig_talk_handlers, talk,
                             &talk->exchange);
}

#endif
