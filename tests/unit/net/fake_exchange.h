/* An exchange in memory, in place of net/exchange.h's: what stands above one is shown a request, and what
 * it answers is collected. All on the thread of the test, which is a reactor (on_core.h); what the real
 * one does from its loop is done by fake_turn. */
#ifndef TEST_FAKE_EXCHANGE_H
#define TEST_FAKE_EXCHANGE_H

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "net/http_call.h"
#include "net/server.h"
#include "tests/unit/runtime/on_core.h"

struct bm_connection {
    struct bm_core *core;
};

struct bm_exchange {
    struct bm_connection *connection;
    const struct bm_exchange_handlers *handlers;
    void *arg;
    bool taken, held, released, closed, reset;
    bool resumed;     /* `read` is to be asked */
    bool answered;    /* its head has come */
    bool whole;       /* ... and all of its body */
    bool stalled;     /* the peer takes nothing of the body */
    int answer_error; /* what bm_exchange_answer returns */
    unsigned status;
    char fields[16384]; /* "name: value\n" each */
    char *body;         /* ended by a zero byte */
    size_t body_len;
    size_t consumed;
    size_t piece; /* how much `read` is asked for at once */
};

static struct bm_connection fake_connection;
static struct bm_server fake_server;
static struct bm_visitor fake_visitor;
static int fake_poll_ms = 10000;

void bm_exchange_take(struct bm_exchange *exchange, const struct bm_exchange_handlers *handlers,
                      void *arg)
{
    CHECK(!exchange->taken && !exchange->answered);
    exchange->taken = true;
    exchange->handlers = handlers;
    exchange->arg = arg;
}

static void fake_add(struct bm_exchange *exchange, const void *bytes, size_t len)
{
    exchange->body = realloc(exchange->body, exchange->body_len + len + 1);
    if (len > 0)
        memcpy(exchange->body + exchange->body_len, bytes, len);
    exchange->body_len += len;
    exchange->body[exchange->body_len] = '\0';
}

int bm_exchange_answer(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                       size_t field_count, const void *body, int64_t body_len)
{
    size_t len = 0;
    CHECK(!exchange->answered);
    CHECK(!exchange->released);
    if (exchange->answer_error)
        return exchange->answer_error;
    if (body_len > (int64_t)BM_EXCHANGE_BODY_MAX)
        return -EMSGSIZE;
    for (size_t i = 0; i < field_count; i++)
        if (!bm_field_is_name(fields[i].name, fields[i].name_len) ||
            !bm_field_is_value(fields[i].value, fields[i].value_len))
            return -EINVAL;
    exchange->answered = true;
    exchange->status = status;
    for (size_t i = 0; i < field_count; i++)
        len += (size_t)snprintf(exchange->fields + len, sizeof(exchange->fields) - len,
                                "%.*s: %.*s\n", (int)fields[i].name_len, fields[i].name,
                                (int)fields[i].value_len, fields[i].value);
    if (body_len >= 0) {
        fake_add(exchange, body, (size_t)body_len);
        exchange->whole = true;
    } else {
        CHECK(exchange->taken);
        exchange->resumed = true;
    }
    return 0;
}

void bm_exchange_resume(struct bm_exchange *exchange)
{
    CHECK(!exchange->released);
    exchange->resumed = true;
}

void bm_exchange_consumed(struct bm_exchange *exchange, size_t len)
{
    exchange->consumed += len;
}

void bm_exchange_reset(struct bm_exchange *exchange)
{
    exchange->reset = true;
}

void bm_exchange_expect_body(struct bm_exchange *exchange)
{
    CHECK(exchange->taken);
}

void bm_exchange_hold(struct bm_exchange *exchange)
{
    CHECK(exchange->taken && !exchange->held);
    exchange->held = true;
}

struct bm_exchange *bm_exchange_release(struct bm_exchange *exchange)
{
    CHECK(exchange->held && !exchange->released);
    exchange->released = true;
    return NULL;
}

struct bm_connection *bm_exchange_connection(const struct bm_exchange *exchange)
{
    return exchange->connection;
}

struct bm_core *bm_connection_core(const struct bm_connection *connection)
{
    return connection->core;
}

struct bm_peer_texts **bm_connection_peer_texts(struct bm_connection *connection)
{
    (void)connection;
    return NULL;
}

const char *bm_connection_address(const struct bm_connection *connection)
{
    (void)connection;
    return "192.0.2.7:4711";
}

const struct bm_tls *bm_connection_tls(const struct bm_connection *connection)
{
    (void)connection;
    return NULL;
}

/* --- the test's side --- */

/* Between the runtime's beginning and its first turn. */
static inline void fake_begin(void)
{
    core_begin();
    fake_connection.core = bm_core_current();
    fake_server = (struct bm_server){.runtime = on_core_runtime};
    fake_visitor = (struct bm_visitor){.peer = {.kind = BEAM_PEER_NET,
                                                .identity = {"cn:ada", 6},
                                                .address = {"192.0.2.7:4711", 14}},
                                       .known = true,
                                       .admitted = true};
}

static inline void fake_end(void)
{
    core_end();
}

static inline void fake_pump(struct bm_exchange *exchange)
{
    uint8_t room[70000];
    size_t piece = exchange->piece ? exchange->piece : sizeof(room);
    while (exchange->resumed && !exchange->whole && !exchange->closed && !exchange->reset &&
           !exchange->stalled && exchange->answered) {
        bool end = false;
        ssize_t n = exchange->handlers->read(exchange, room, piece, &end, exchange->arg);
        if (n < 0) {
            exchange->reset = true;
            return;
        }
        CHECK((size_t)n <= piece);
        fake_add(exchange, room, (size_t)n);
        exchange->whole = end;
        exchange->resumed = n > 0 && !end;
    }
}

/* Turns the reactor once, waiting for something to do for up to fake_poll_ms. */
static inline void fake_turn(struct bm_exchange *exchange)
{
    struct pollfd poll_fd = {.fd = beam_runtime_fd(on_core_runtime), .events = POLLIN};
    (void)poll(&poll_fd, 1, fake_poll_ms);
    REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
    fake_pump(exchange);
}

#define FAKE_WAIT(exchange, condition)                                                             \
    do {                                                                                           \
        for (unsigned turns_ = 0; !(condition) && turns_ < 1000; turns_++)                         \
            fake_turn(exchange);                                                                   \
        CHECK(condition);                                                                          \
    } while (0)

static inline void fake_close(struct bm_exchange *exchange, int error)
{
    if (!exchange->taken || exchange->closed)
        return;
    exchange->closed = true;
    exchange->handlers->on_close(exchange, error, exchange->arg);
}

/* Closes what is open, and checks that nobody holds it any more. */
static inline void fake_over(struct bm_exchange *exchange)
{
    fake_close(exchange, exchange->reset ? -ECANCELED : 0);
    FAKE_WAIT(exchange, !exchange->held || exchange->released);
    free(exchange->body);
    exchange->body = NULL;
    exchange->body_len = 0;
}

/* A request for a call: fields are "name: value" each, NULL behind the last. */
struct fake_request {
    const char *method; /* POST */
    const char *path;   /* behind /beam/call/, with its query */
    const char *fields[8];
    const char *body;
    size_t body_len;     /* 0: strlen(body) */
    bool length_unknown; /* it is sent without its length */
};

static inline size_t fake_fields(const char *const *texts, struct bm_field *ret)
{
    size_t n = 0;
    for (; texts[n]; n++) {
        const char *colon = strchr(texts[n], ':');
        ret[n] = (struct bm_field){.name = texts[n],
                                   .value = colon + 2,
                                   .name_len = (size_t)(colon - texts[n]),
                                   .value_len = strlen(colon + 2)};
    }
    return n;
}

static inline beam_str fake_str(const char *text)
{
    return (beam_str){text, text ? strlen(text) : 0};
}

/* The head alone; what it is handed to is `to`. */
static inline void fake_send_head(struct bm_exchange *exchange, const struct fake_request *request)
{
    struct bm_field fields[8];
    char path[20000];
    size_t len = request->body_len ? request->body_len : request->body ? strlen(request->body) : 0;
    snprintf(path, sizeof(path), "/beam/call/%s", request->path);
    *exchange = (struct bm_exchange){.connection = exchange->connection ? exchange->connection
                                                                        : &fake_connection,
                                     .piece = exchange->piece,
                                     .answer_error = exchange->answer_error};
    struct bm_exchange_request head = {
        .method = fake_str(request->method ? request->method : "POST"),
        .authority = fake_str("beam.example"),
        .path = fake_str(path),
        .fields = fields,
        .field_count = fake_fields(request->fields, fields),
        .body_len = request->length_unknown ? -1 : (int64_t)len,
        .version = 2,
    };
    bm_call_exchange(&fake_server, exchange, &head, &fake_visitor,
                     (beam_str){path + strlen("/beam/call/"), strlen(request->path)});
}

/* All of it, as far as it is wanted. */
static inline void fake_send(struct bm_exchange *exchange, const struct fake_request *request)
{
    size_t len = request->body_len ? request->body_len : request->body ? strlen(request->body) : 0;
    fake_send_head(exchange, request);
    CHECK(exchange->taken || exchange->answered);
    if (!exchange->taken)
        return;
    for (size_t at = 0; at < len;) {
        size_t part = len - at < 16384 ? len - at : 16384;
        exchange->handlers->on_body(exchange, (const uint8_t *)request->body + at, part,
                                    exchange->arg);
        at += part;
    }
    exchange->handlers->on_end(exchange, exchange->arg);
    CHECK_UINT(exchange->consumed, len);
}

/* ... and its whole answer. */
static inline void fake_ask(struct bm_exchange *exchange, const struct fake_request *request)
{
    fake_send(exchange, request);
    fake_pump(exchange);
    FAKE_WAIT(exchange, exchange->whole || exchange->reset);
}

#endif
