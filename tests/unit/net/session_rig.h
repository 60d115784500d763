/* Sessions over exchanges that exist in memory alone: an embedded runtime on the thread of the test, a clock
 * that stands still until it is told, and ends whose bytes the test moves, cuts and makes up. */
#ifndef TEST_SESSION_RIG_H
#define TEST_SESSION_RIG_H

#include <beam/beam.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/net_session.h"
#include "net/proto/websocket.h"
#include "net/server.h"
#include "runtime/core.h"
#include "runtime/frame.h"
#include "tests/support/raw_peer.h"
#include "tests/support/test.h"
#include "uring/reactor_inner.h"

#define RIG_OUT_MAX ((size_t)4 << 20)

/* --- the exchange, in place of net/exchange.c --- */

struct bm_exchange {
    const struct bm_exchange_handlers *handlers;
    void *arg;
    uint32_t window;
    size_t consumed;
    size_t shown; /* bytes that on_body was given */
    bool peer_ended, ended, reset, closed;
    int reset_error; /* what on_close says after a reset */
    size_t stuck;    /* no more than so much is taken of what it sends; 0: all */
    uint8_t *out;    /* what it has sent and nobody has looked at */
    size_t out_len;
};

void bm_exchange_resume(struct bm_exchange *exchange)
{
    CHECK(!exchange->closed);
}

void bm_exchange_consumed(struct bm_exchange *exchange, size_t len)
{
    exchange->consumed += len;
}

void bm_exchange_window(struct bm_exchange *exchange, uint32_t len)
{
    exchange->window = len;
}

void bm_exchange_reset(struct bm_exchange *exchange)
{
    CHECK(!exchange->closed);
    exchange->reset = true;
}

/* Of streams beside a session there are none here. */
void bm_exchange_patient(struct bm_exchange *exchange)
{
    CHECK(!exchange->closed);
}

void bm_exchange_take(struct bm_exchange *exchange, const struct bm_exchange_handlers *handlers,
                      void *arg)
{
    (void)exchange, (void)handlers, (void)arg;
    CHECK(false);
}

int bm_exchange_answer(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                       size_t field_count, const void *body, int64_t body_len)
{
    (void)exchange, (void)status, (void)fields, (void)field_count, (void)body, (void)body_len;
    CHECK(false);
    return -EINVAL;
}

struct bm_connection *bm_exchange_connection(const struct bm_exchange *exchange)
{
    (void)exchange;
    return NULL;
}

struct bm_core *bm_connection_core(const struct bm_connection *connection)
{
    (void)connection;
    return NULL;
}

/* --- the clock --- */

static uint64_t rig_ns;

static uint64_t rig_now(void *arg)
{
    (void)arg;
    return rig_ns;
}

static void rig_random(void *buf, size_t len, void *arg)
{
    (void)arg;
    memset(buf, 0x5a, len);
}

/* --- the runtime --- */

static beam_runtime *rig_runtime;
static unsigned rig_held;

static void rig_echo(beam_request *request, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message *answer = beam_message_new();
    (void)arg;
    beam_message_set_body(answer, body, len);
    beam_reply(request, &answer);
}

/* Never answers, and is not there to be cancelled. */
static void rig_hold(beam_request *request, const beam_message *message, void *arg)
{
    (void)request;
    (void)message;
    (void)arg;
    rig_held++;
}

static inline void rig_begin(void)
{
    rig_ns = 1000 * BM_NS_PER_S;
    rig_held = 0;
    bm_clock_set(&(struct bm_clock){rig_now, rig_random, NULL});
    struct beam_runtime_options options = BEAM_RUNTIME_OPTIONS(.embedded = true, .name = "rig");
    REQUIRE_INT(beam_runtime_new(&options, &rig_runtime), 0);
    REQUIRE_INT(beam_serve(rig_runtime, "echo", rig_echo, NULL), 0);
    REQUIRE_INT(beam_serve(rig_runtime, "hold", rig_hold, NULL), 0);
}

static inline void rig_turn(void)
{
    for (unsigned i = 0; i < 4; i++)
        REQUIRE_INT(beam_runtime_turn(rig_runtime), 0);
}

static inline void rig_advance(uint64_t ns)
{
    rig_ns += ns;
    for (unsigned i = 0; i < BM_TURNS_UNCLOCKED;
         i++) /* until the reactor has looked at the clock */
        rig_turn();
}

static inline void rig_end(void)
{
    rig_turn();
    CHECK(bm_list_empty(&bm_core_current()->sessions));
    rig_runtime = beam_runtime_free(rig_runtime);
    bm_clock_set(NULL);
}

/* --- an end --- */

struct rig_end {
    struct bm_net_session *ns;
    beam_session *session; /* a handle, of an opener */
    struct bm_exchange *exchange;
    unsigned opens, closes;
    enum beam_code code;
    char text[256];
};

static void rig_on_open(beam_session *session, void *arg)
{
    struct rig_end *end = arg;
    (void)session;
    end->opens++;
}

static void rig_on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct rig_end *end = arg;
    (void)session;
    end->closes++;
    end->code = status->code;
    snprintf(end->text, sizeof(end->text), "%.*s", BEAM_STR(status->message));
}

static const struct beam_session_handlers rig_session_handlers = {.on_open = rig_on_open,
                                                                  .on_close = rig_on_close};

static inline struct bm_exchange *rig_exchange(const struct bm_exchange_handlers *handlers,
                                               void *arg)
{
    struct bm_exchange *exchange = calloc(1, sizeof(*exchange));
    REQUIRE(exchange != NULL);
    exchange->handlers = handlers;
    exchange->arg = arg;
    exchange->reset_error = -ECANCELED;
    exchange->out = malloc(RIG_OUT_MAX);
    REQUIRE(exchange->out != NULL);
    return exchange;
}

/* A session with a handle, whichever role it has. */
static inline void rig_new(struct rig_end *end, bool opener, bool websocket)
{
    *end = (struct rig_end){0};
    REQUIRE_INT(bm_net_session_new(bm_core_current(), opener, &end->ns), 0);
    end->session = bm_session_ref(&end->ns->session);
    end->session->handle = true;
    bm_session_set_handlers(end->session, &rig_session_handlers, end);
    end->exchange = rig_exchange(&bm_net_session_handlers, end->ns);
    REQUIRE_INT(bm_net_session_attach(end->ns, end->exchange, websocket), 0);
    rig_turn();
}

/* The exchange has ended in both directions, or all at once. */
static inline void rig_close(struct rig_end *end, int error)
{
    struct bm_exchange *exchange = end->exchange;
    if (exchange->closed)
        return;
    exchange->closed = true;
    exchange->handlers->on_close(exchange, error, exchange->arg);
}

/* Takes what it has to say, and lets it end as a connection would. */
static inline void rig_pull(struct rig_end *end)
{
    struct bm_exchange *exchange = end->exchange;
    rig_turn();
    while (!exchange->closed && !exchange->ended && !exchange->reset) {
        bool ended = false;
        size_t room = 16384;
        if (exchange->stuck > 0)
            room = exchange->stuck > exchange->out_len ? exchange->stuck - exchange->out_len : 0;
        if (room == 0)
            break;
        REQUIRE(exchange->out_len + room <= RIG_OUT_MAX);
        ssize_t n = exchange->handlers->read(exchange, exchange->out + exchange->out_len, room,
                                             &ended, exchange->arg);
        if (n < 0) {
            exchange->reset = true;
            break;
        }
        exchange->out_len += (size_t)n;
        exchange->ended = ended;
        rig_turn();
        if (n == 0)
            break;
    }
    if (exchange->reset)
        rig_close(end, exchange->reset_error);
    else if (exchange->ended && exchange->peer_ended)
        rig_close(end, 0);
    rig_turn();
}

/* Bytes of the peer, in pieces of `piece` bytes, each from a block of its own length. */
static inline void rig_push(struct rig_end *end, const void *bytes, size_t len, size_t piece)
{
    const uint8_t *from = bytes;
    while (len > 0 && !end->exchange->closed && !end->exchange->reset) {
        size_t part = piece < len ? piece : len;
        uint8_t *block = malloc(part);
        REQUIRE(block != NULL);
        memcpy(block, from, part);
        end->exchange->shown += part;
        end->exchange->handlers->on_body(end->exchange, block, part, end->exchange->arg);
        free(block);
        from += part;
        len -= part;
    }
    rig_turn();
}

static inline void rig_push_end(struct rig_end *end)
{
    struct bm_exchange *exchange = end->exchange;
    if (exchange->closed || exchange->reset || exchange->peer_ended)
        return;
    exchange->peer_ended = true;
    exchange->handlers->on_end(exchange, exchange->arg);
    rig_pull(end);
}

/* Gives back what is left of it. */
static inline void rig_free(struct rig_end *end)
{
    end->session = beam_session_free(end->session);
    rig_turn();
    rig_pull(end);
    if (!end->exchange->closed)
        rig_close(end, -ECONNRESET);
    rig_turn();
    CHECK_UINT(end->exchange->consumed, end->exchange->shown);
    free(end->exchange->out);
    free(end->exchange);
    *end = (struct rig_end){0};
}

/* --- the end as one that hands bytes to another --- */

/* Everything that two ends have for each other, until they are silent. */
static inline void rig_talk(struct rig_end *a, struct rig_end *b, size_t piece)
{
    for (;;) {
        rig_pull(a);
        rig_pull(b);
        size_t len = a->exchange->out_len, other = b->exchange->out_len;
        if (len == 0 && other == 0)
            break;
        a->exchange->out_len = b->exchange->out_len = 0;
        rig_push(b, a->exchange->out, len, piece);
        rig_push(a, b->exchange->out, other, piece);
    }
    if (a->exchange->ended)
        rig_push_end(b);
    if (b->exchange->ended)
        rig_push_end(a);
    if (a->exchange->reset && !b->exchange->closed)
        rig_close(b, -ECANCELED);
    if (b->exchange->reset && !a->exchange->closed)
        rig_close(a, -ECANCELED);
    rig_turn();
}

/* --- frames that it has said --- */

struct rig_frames {
    struct bm_bytes rest;
    struct bm_frame frame;
};

static inline struct rig_frames rig_frames(const struct rig_end *end)
{
    return (struct rig_frames){.rest = bm_bytes(end->exchange->out, end->exchange->out_len)};
}

/* The next frame of a kind; others are passed over. */
static inline bool rig_find(struct rig_frames *frames, uint8_t kind)
{
    while (bm_frame_next(&frames->rest, &frames->frame) == 1)
        if (frames->frame.kind == kind)
            return true;
    return false;
}

/* Whether its last word is GOAWAY with the name of this error. */
static inline void rig_expect_goaway(struct rig_end *end, const char *error)
{
    struct rig_frames frames = rig_frames(end);
    struct bm_frame_goaway goaway;
    beam_kv_value details;
    beam_str name = {0};
    REQUIRE(rig_find(&frames, BM_FRAME_GOAWAY));
    CHECK_UINT(bm_bytes_left(&frames.rest), 0);
    bm_frame_parse_goaway(&frames.frame, &goaway);
    REQUIRE_INT(beam_kv_root(goaway.why.details, goaway.why.details_len, &details), 0);
    CHECK_INT(beam_kv_get_str(&details, "error", &name), 0);
    CHECK_MEM(name.ptr, name.len, error, strlen(error));
}

#endif
