/* A server for clients to find, or not: it listens on loopback, speaks what a case lets it, and counts. Both
 * ends live on the reactor of one embedded runtime, turned by the test; the clock is the kernel's and what
 * the test adds. */
#ifndef TEST_DIAL_RIG_H
#define TEST_DIAL_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <beam/beam.h>
#include <beam/net.h>

#include "base/clock.h"
#include "net/connection.h"
#include "net/net_connect.h"
#include "net/net_session.h"
#include "net/proto/certificate.h"
#include "net/server.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "tests/support/test.h"

struct dial_rig {
    beam_runtime *runtime;
    struct bm_core *core;
    uint64_t skipped_ns; /* what the clock is ahead of the kernel's */
    char log[1024];
    /* The server. */
    struct bm_server server;
    int listener;
    uint16_t port;
    struct bm_tls_context *tls; /* NULL: none */
    struct bm_certificate ca, own;
    unsigned accepted, connections, requests;
    unsigned posts, connects, upgrades; /* requests for sessions, by way */
    unsigned post_status, connect_status,
        upgrade_status;               /* 0: a session; 1: no answer; else this */
    unsigned streams;                 /* requests for streams beside a session */
    unsigned stream_status;           /* as post_status */
    void (*on_stream)(bool answered); /* before and after it is shown to the server; or NULL */
    const char *stranger;             /* who asks for them, if it is somebody else */
    bool deaf;                        /* what connects is not spoken with */
    bool scarce;                      /* memory may be missing */
    unsigned resumed;                 /* ... over a TLS that was */
    char authorization[64];           /* of the last request */
    int silent_fds[8];                /* accepted and not spoken with */
    unsigned silent_count;
    /* The client. */
    beam_session *session;
    unsigned opens, closes;
    enum beam_code code;
    char text[256];
};
static struct dial_rig rig;

static uint64_t rig_now(void *arg)
{
    struct timespec now;
    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BM_NS_PER_S + (uint64_t)now.tv_nsec + rig.skipped_ns;
}

static void rig_random(void *buf, size_t len, void *arg)
{
    static uint8_t next;
    (void)arg;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = next += 7;
}

static void rig_log(enum beam_log_level level, const char *text, void *arg)
{
    (void)level;
    (void)arg;
    snprintf(rig.log + strlen(rig.log), sizeof(rig.log) - strlen(rig.log), "%s\n", text);
}

/* --- the server --- */

static const struct bm_exchange_handlers rig_nothing;

static void on_stream_request(struct bm_exchange *exchange,
                              const struct bm_exchange_request *request,
                              const struct bm_visitor *visitor)
{
    struct bm_visitor asker = *visitor;
    rig.streams++;
    if (rig.on_stream)
        rig.on_stream(false);
    if (rig.stranger)
        asker.peer.identity = (beam_str){rig.stranger, strlen(rig.stranger)};
    if (rig.stream_status == 1)
        bm_exchange_take(exchange, &rig_nothing, NULL);
    else if (rig.stream_status > 1)
        CHECK_INT(bm_exchange_answer(exchange, rig.stream_status, NULL, 0, NULL, 0), 0);
    else
        bm_stream_exchange(exchange, request, &asker);
    if (rig.on_stream)
        rig.on_stream(true);
}

static void on_request(struct bm_connection *connection, struct bm_exchange *exchange,
                       const struct bm_exchange_request *request, void *arg)
{
    const struct bm_visitor visitor = {
        .peer = {.kind = BEAM_PEER_NET, .identity = {"cn:somebody", 11}},
        .known = true,
        .admitted = true};
    bool connect = request->protocol.len > 0;
    bool websocket =
        connect || (request->method.len == 3 && memcmp(request->method.ptr, "GET", 3) == 0);
    unsigned status = connect     ? rig.connect_status
                      : websocket ? rig.upgrade_status
                                  : rig.post_status;
    const struct bm_field *field =
        bm_field_find(request->fields, request->field_count, "authorization");
    const struct bm_tls *tls = bm_connection_tls(connection);
    struct bm_tls_facts facts = {0};
    if (tls)
        bm_tls_facts(tls, &facts);
    (void)arg;
    rig.requests++;
    rig.resumed += facts.resumed;
    rig.posts += !websocket;
    rig.connects += connect;
    rig.upgrades += websocket && !connect;
    snprintf(rig.authorization, sizeof(rig.authorization), "%.*s",
             field ? (int)field->value_len : 0, field ? field->value : "");
    if (request->path.len > 7 &&
        memcmp(request->path.ptr + request->path.len - 7, "/stream", 7) == 0) {
        on_stream_request(exchange, request, &visitor);
        return;
    }
    if (status == 1) {
        bm_exchange_take(exchange, &rig_nothing, NULL);
    } else if (status > 1) {
        /* With what a server says about it: no frames. */
        static const char why[] = "{\"code\":\"UNKNOWN\",\"message\":\"why\"}";
        CHECK_INT(bm_exchange_answer(exchange, status, NULL, 0, why, sizeof(why) - 1), 0);
    } else {
        bm_session_exchange(&rig.server, exchange, request, &visitor, websocket);
    }
}

static void on_server_close(struct bm_connection *connection, int error, const char *why, void *arg)
{
    (void)connection;
    (void)error;
    (void)why;
    (void)arg;
    rig.connections--;
}

static const struct bm_connection_owner server_owner = {
    .on_request = on_request,
    .on_close = on_server_close,
};

static inline void rig_accept(void)
{
    int fd = accept4(rig.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    rig.accepted++;
    if (rig.deaf) {
        REQUIRE(rig.silent_count < 8);
        rig.silent_fds[rig.silent_count++] = fd;
        return;
    }
    struct bm_connection *connection;
    const struct bm_connection_options options = {
        .core = rig.core,
        .server = true,
        .tls = rig.tls,
        .owner = &server_owner,
    };
    int r = bm_connection_new(&options, &fd, &connection);
    if (r == -ENOMEM && rig.scarce) {
        close(fd);
        return;
    }
    REQUIRE_INT(r, 0);
    rig.connections++;
}

static inline void rig_turn(int wait_ms)
{
    struct pollfd fds[] = {{.fd = beam_runtime_fd(rig.runtime), .events = POLLIN},
                           {.fd = rig.listener, .events = POLLIN}};
    (void)poll(fds, 2, wait_ms);
    rig_accept();
    REQUIRE_INT(beam_runtime_turn(rig.runtime), 0);
}

#define RIG_UNTIL(condition)                                                                       \
    do {                                                                                           \
        uint64_t rig_end_ = rig_now(NULL) + 20 * BM_NS_PER_S;                                      \
        while (!(condition) && rig_now(NULL) < rig_end_)                                           \
            rig_turn(20);                                                                          \
        REQUIRE(condition);                                                                        \
    } while (0)

/* Time passes, all at once, when there is nothing more to be done. */
static inline void rig_skip(uint64_t ns)
{
    for (unsigned i = 0; i < 20; i++)
        rig_turn(2);
    rig.skipped_ns += ns;
    for (unsigned i = 0; i < 20; i++)
        rig_turn(2);
}

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

static inline void rig_open_tls(void)
{
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    char why[BM_TLS_WHY_LEN];
    rig.ca = rig_certificate(BM_CERTIFICATE_CA, "a CA", NULL);
    rig.own = rig_certificate(BM_CERTIFICATE_SERVER, "dns:localhost", &rig.ca);
    const struct bm_tls_options options = {
        .size = sizeof(options),
        .role = BM_TLS_SERVER,
        .chain = {.data = rig.own.pem, .len = strlen(rig.own.pem)},
        .key = {.data = rig.own.key, .len = strlen(rig.own.key)},
        .alpn = alpn,
    };
    REQUIRE_INT(bm_tls_context_new(&rig.tls, &options, why), 0);
    struct bm_tls_ticket_key keys[BM_TLS_TICKET_KEYS];
    memset(keys, 7, sizeof(keys));
    bm_tls_context_ticket_keys(rig.tls, keys);
}

static void rig_echo(beam_request *request, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message *answer = beam_message_new();
    (void)arg;
    beam_message_set_body(answer, body, len);
    beam_reply(request, &answer);
}

static inline void rig_begin(bool tls)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    rig = (struct dial_rig){0};
    bm_clock_set(&(struct bm_clock){rig_now, rig_random, NULL});
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true, .log = rig_log,
                                                       .stop_timeout_ns = 200 * BM_NS_PER_MS),
                                 &rig.runtime),
                0);
    REQUIRE_INT(beam_serve(rig.runtime, "echo", rig_echo, NULL), 0);
    rig.core = &rig.runtime->cores[0];
    rig.server.runtime = rig.runtime;
    atomic_init(&rig.server.refs, 1);
    bm_address_limits_init(&rig.server.identities, BM_ADDRESS_CONNECTIONS_LIMIT,
                           BM_ADDRESS_CONNECTIONS_LIMIT);
    rig.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    REQUIRE(rig.listener >= 0);
    REQUIRE_INT(bind(rig.listener, (struct sockaddr *)&address, len), 0);
    REQUIRE_INT(listen(rig.listener, 16), 0);
    REQUIRE_INT(getsockname(rig.listener, (struct sockaddr *)&address, &len), 0);
    rig.port = ntohs(address.sin_port);
    if (tls)
        rig_open_tls();
}

static inline void rig_end(void)
{
    rig.session = beam_session_free(rig.session);
    for (unsigned i = 0; i < rig.silent_count; i++)
        close(rig.silent_fds[i]);
    rig.runtime = beam_runtime_free(rig.runtime);
    CHECK_UINT(rig.connections, 0);
    CHECK_UINT(atomic_load(&rig.server.refs), 1);
    bm_address_limits_deinit(&rig.server.identities); /* all have left */
    bm_tls_context_unref(rig.tls);
    close(rig.listener);
    bm_clock_set(NULL);
}

/* --- the client --- */

static void rig_on_open(beam_session *session, void *arg)
{
    (void)session;
    (void)arg;
    rig.opens++;
}

static void rig_on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    (void)session;
    (void)arg;
    rig.closes++;
    rig.code = status->code;
    snprintf(rig.text, sizeof(rig.text), "%.*s", BEAM_STR(status->message));
}

static const struct beam_session_handlers rig_handlers = {.on_open = rig_on_open,
                                                          .on_close = rig_on_close};

static void rig_on_timeout(struct bm_timer *timer)
{
    beam_session *session = bm_list_entry(timer, beam_session, hello_timer);
    session->connect_error = -ETIMEDOUT;
    bm_session_lost(session, BEAM_UNAVAILABLE, "no answer from the peer in time");
}

/* As beam_connect does it: a handle, and a time to come up. */
static inline int rig_connect_to(const char *text, const struct beam_net_connect *net)
{
    struct beam_connect_options options = BEAM_CONNECT_OPTIONS(.net = net);
    struct bm_url url;
    REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
    rig.opens = rig.closes = 0;
    int r = bm_net_connect(rig.core, &url, &options, &rig.session);
    if (r < 0)
        return r;
    rig.session->hello_timer.fn = rig_on_timeout;
    bm_timer_arm(rig.core->reactor, &rig.session->hello_timer,
                 bm_reactor_now_ns(rig.core->reactor) + 60 * BM_NS_PER_S);
    rig.session->handle = true;
    bm_session_set_handlers(rig.session, &rig_handlers, NULL);
    bm_session_ref(rig.session);
    return 0;
}

/* To the rig's own server, trusting its CA. */
static inline void rig_connect(const char *scheme, struct beam_net_connect *net)
{
    char url[64];
    struct beam_net_connect none = BEAM_NET_CONNECT_OPTIONS(.way = BEAM_NET_ANY);
    if (!net)
        net = &none;
    net->size = sizeof(*net);
    if (rig.tls && net->ca.len == 0)
        net->ca = (struct beam_pem){.data = rig.ca.pem, .len = strlen(rig.ca.pem)};
    snprintf(url, sizeof(url), "%s://localhost:%u", scheme, rig.port);
    REQUIRE_INT(rig_connect_to(url, net), 0);
}

struct rig_answer {
    unsigned count;
    enum beam_code code;
    size_t len;
};

static void rig_on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct rig_answer *answer = arg;
    answer->count++;
    answer->code = status->code;
    if (message)
        (void)beam_message_body(message, &answer->len);
}

static inline void rig_call(size_t len, struct rig_answer *answer)
{
    beam_message *message = beam_message_new();
    uint8_t *body = beam_message_reserve_body(message, len);
    REQUIRE(body != NULL);
    memset(body, 'c', len);
    *answer = (struct rig_answer){0};
    REQUIRE_INT(beam_call(rig.session, "echo", &message, rig_on_reply, answer, NULL), 0);
}

/* The session is open, and carries messages of all lengths. */
static inline void rig_expect_session(void)
{
    static const size_t lens[] = {0, 100, 65536, 1000000};
    RIG_UNTIL(rig.opens > 0 || rig.closes > 0);
    if (rig.closes > 0)
        test_note("closed: %s", rig.text);
    REQUIRE_INT(rig.opens, 1);
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        struct rig_answer answer;
        rig_call(lens[i], &answer);
        RIG_UNTIL(answer.count > 0);
        CHECK_INT(answer.code, BEAM_OK);
        CHECK_UINT(answer.len, lens[i]);
    }
}

/* It ends in order, and its connection with it. */
static inline void rig_drain(void)
{
    beam_session_drain(rig.session);
    RIG_UNTIL(rig.closes > 0 && rig.connections == 0);
    CHECK_INT(rig.code, BEAM_OK);
    rig.session = beam_session_free(rig.session);
}

#endif
