/* See dedicated_stream.h. It joins a channel (runtime/dedicated.h) and an exchange, and lives as long as it
 * has one of them.
 *
 *     client   OFFERED --task--> ASKED --200--> GONE          any other answer, or none: the session
 *     server   OFFERED --POST--> ANSWERED --GO--> GONE        no GO: the token is dead
 *              PARKED --the channel comes--^
 *     both     --> LEFT: the channel has gone, or does not want it; the exchange ends, or is reset
 *
 * Out: the channel's queue is written right into the connection's output, behind the head of a chunk. In:
 * pieces are shown to the application where they lie; what it holds stays in the stream's window until it is
 * done with it.
 *
 * Invariants: before GO, nothing that happens to the exchange is a loss; after it, everything is but both ENDs.
 * A reset is not sent as long as the peer has to read in the session why. A slow reader is waited for. */
#include "net/dedicated_stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "net/server.h"
#include "runtime/channel.h"
#include "runtime/core.h"

#define TYPE "application/x-beam-stream"
#define ID_LEN 20u /* digits of a channel's id */

_Static_assert(BM_NET_SESSION_ID_LEN == BM_BASE64URL_128_LEN, "an id has 128 bits");

static uint64_t now_ns(const struct bm_dedicated_stream *ds)
{
    return bm_reactor_now_ns(ds->core->reactor);
}

static void arm(struct bm_dedicated_stream *ds, uint64_t ns)
{
    bm_timer_arm(ds->core->reactor, &ds->timer, now_ns(ds) + ns);
}

static void on_timer(struct bm_timer *timer);
static void on_task(struct bm_task *task);
static const struct bm_dedicated_calls calls;
static const struct bm_exchange_handlers handlers;

/* --- life ------------------------------------------------------------------------------------ */

static struct bm_dedicated_stream *stream_new(struct bm_net_session *ns, uint64_t id)
{
    struct bm_dedicated_stream *ds = bm_alloc_zero(NULL, sizeof(*ds));
    if (!ds)
        return NULL;
    ds->core = ns->session.core;
    ds->ns = ns;
    ds->id = id;
    ds->reader.client = !ns->session.opener;
    ds->task.fn = on_task;
    bm_timer_init(&ds->timer, on_timer);
    bm_list_push_back(&ns->streams, &ds->node);
    return ds;
}

/* Of its session it knows no more. */
static void leave(struct bm_dedicated_stream *ds)
{
    bm_timer_cancel(ds->core->reactor, &ds->timer);
    bm_task_cancel(&ds->task);
    if (ds->state != BM_DEDICATED_LEFT) {
        bm_list_unlink(&ds->node);
        ds->ns = NULL;
        ds->state = BM_DEDICATED_LEFT;
    }
}

static void free_if_done(struct bm_dedicated_stream *ds)
{
    if (ds->exchange || ds->way.channel)
        return;
    leave(ds);
    bm_chunk_reader_deinit(&ds->reader);
    explicit_bzero(ds->token, sizeof(ds->token));
    bm_free(NULL, ds, sizeof(*ds));
}

/* Its exchange ends now. */
static void reset(struct bm_dedicated_stream *ds)
{
    leave(ds);
    if (ds->exchange)
        bm_exchange_reset(ds->exchange);
}

/* The channel goes its way in the session, or waits to hear that it does. */
static void decline(struct bm_dedicated_stream *ds)
{
    leave(ds);
    if (ds->way.channel)
        bm_dedicated_decline(&ds->way);
    free_if_done(ds);
}

static void give_back(struct bm_dedicated_stream *ds, size_t len)
{
    if (len > ds->held)
        len = ds->held;
    ds->held -= len;
    if (ds->exchange && len > 0)
        bm_exchange_consumed(ds->exchange, len);
}

static void way_ready(struct bm_dedicated *way)
{
    const struct bm_dedicated_stream *ds = bm_container_of(way, struct bm_dedicated_stream, way);
    if (ds->exchange)
        bm_exchange_resume(ds->exchange);
}

static void way_consumed(struct bm_dedicated *way, size_t len)
{
    give_back(bm_container_of(way, struct bm_dedicated_stream, way), len);
}

static void way_over(struct bm_dedicated *way, bool told)
{
    struct bm_dedicated_stream *ds = bm_container_of(way, struct bm_dedicated_stream, way);
    bool gone = ds->state == BM_DEDICATED_GONE;
    give_back(ds, ds->held);
    leave(ds);
    if (!ds->exchange) {
        free_if_done(ds);
    } else if (gone && (told || ((ds->ending || ds->said_end) && ds->heard_end))) {
        arm(ds, BM_DEDICATED_LINGER_NS);
        bm_exchange_resume(ds->exchange);
    } else {
        bm_exchange_reset(ds->exchange);
    }
}

static const struct bm_dedicated_calls calls = {
    .ready = way_ready,
    .consumed = way_consumed,
    .over = way_over,
};

/* What is not the peer's mistake: the channel is aborted, and its stream with it. */
static void lose(struct bm_dedicated_stream *ds, enum beam_code code, const char *text)
{
    if (ds->way.channel)
        bm_dedicated_break(&ds->way, code, text); /* over */
    else
        leave(ds);
}

/* The peer has broken a rule. */
static void fail(struct bm_dedicated_stream *ds)
{
    lose(ds, BEAM_INTERNAL, "the stream of its own has broken a rule");
    if (ds->exchange)
        bm_exchange_reset(ds->exchange);
}

/* The client has some time to end its body too. */
static void refuse_parked(struct bm_dedicated_stream *ds, unsigned status, enum beam_code code,
                          const char *text)
{
    leave(ds);
    arm(ds, BM_DEDICATED_LINGER_NS);
    bm_exchange_refuse(ds->exchange, status, code, text, NULL, 0);
}

static void on_timer(struct bm_timer *timer)
{
    struct bm_dedicated_stream *ds = bm_container_of(timer, struct bm_dedicated_stream, timer);
    switch (ds->state) {
    case BM_DEDICATED_PARKED:
        refuse_parked(ds, 410, BEAM_NOT_FOUND, "no such channel");
        break;
    case BM_DEDICATED_ASKED: /* the others would wait as long */
        ds->ns->streams_refused = true;
        reset(ds);
        decline(ds);
        break;
    case BM_DEDICATED_ANSWERED:
        reset(ds);
        decline(ds);
        break;
    case BM_DEDICATED_GONE:
        if (ds->ending)
            break;
        if (now_ns(ds) >= ds->said_ns + BM_DEDICATED_ALIVE_NS) {
            ds->alive_due = true;
            ds->said_ns = now_ns(ds); /* or as good as: it waits for room */
            bm_exchange_resume(ds->exchange);
        }
        bm_timer_arm(ds->core->reactor, &ds->timer, ds->said_ns + BM_DEDICATED_ALIVE_NS);
        break;
    default:
        reset(ds);
        break;
    }
}

static void go(struct bm_dedicated_stream *ds)
{
    ds->state = BM_DEDICATED_GONE;
    ds->said_ns = now_ns(ds);
    arm(ds, BM_DEDICATED_ALIVE_NS);
    bm_exchange_patient(ds->exchange);
    bm_dedicated_go(&ds->way);
}

/* --- out ------------------------------------------------------------------------------------- */

static void wait_with(struct bm_dedicated_stream *ds, const uint8_t *end)
{
    ds->waiting_len = (uint8_t)(end - ds->waiting);
    ds->waiting_at = 0;
}

/* A chunk of what the channel has, right where it goes. 0: it has nothing. */
static size_t put_data(struct bm_dedicated_stream *ds, uint8_t *buf, size_t len)
{
    size_t most = BM_CHUNK_LEN_MAX < len ? BM_CHUNK_LEN_MAX : len;
    size_t n = bm_dedicated_take(&ds->way, buf + BM_CHUNK_HEAD_LEN, most - BM_CHUNK_HEAD_LEN);
    if (n == 0)
        return 0;
    bm_chunk_put_head(buf, BM_CHUNK_DATA, (uint32_t)n);
    return BM_CHUNK_HEAD_LEN + n;
}

/* The next thing to be said, if it is not DATA, or there is little room for that. false: none. */
static bool prepare(struct bm_dedicated_stream *ds)
{
    uint32_t code;
    uint8_t *out = ds->waiting;
    if (ds->go_due) {
        ds->go_due = false;
        wait_with(ds, bm_chunk_put_head(out, BM_CHUNK_GO, 0));
        return true;
    }
    if (!ds->way.channel || ds->ending)
        return false;
    size_t n = put_data(ds, out, sizeof(ds->waiting));
    if (n > 0) {
        wait_with(ds, out + n);
    } else if (bm_dedicated_take_end(&ds->way, &code)) {
        ds->ending = true;
        wait_with(ds, bm_chunk_put_end(out, code));
    } else if (ds->alive_due) {
        wait_with(ds, bm_chunk_put_head(out, BM_CHUNK_ALIVE, 0));
    } else {
        return false;
    }
    ds->alive_due = false;
    return true;
}

static size_t put(struct bm_dedicated_stream *ds, uint8_t *buf, size_t len)
{
    size_t done = 0, n;
    while (done < len) {
        size_t waits = ds->waiting_len - ds->waiting_at;
        if (waits > 0) {
            n = waits < len - done ? waits : len - done;
            memcpy(buf + done, ds->waiting + ds->waiting_at, n);
            ds->waiting_at += (uint8_t)n;
            done += n;
            continue;
        }
        bool room = len - done >= sizeof(ds->waiting) && !ds->go_due && ds->way.channel;
        if (room && !ds->ending && (n = put_data(ds, buf + done, len - done)) > 0) {
            ds->alive_due = false;
            done += n;
            continue;
        }
        if (!prepare(ds))
            break;
    }
    return done;
}

static ssize_t on_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                       void *arg)
{
    struct bm_dedicated_stream *ds = arg;
    (void)exchange;
    if (ds->said_end)
        return 0;
    if (ds->give_up) {
        ds->said_end = *ret_end = true;
        return 0;
    }
    if (ds->state != BM_DEDICATED_GONE && !ds->ending)
        return 0;
    size_t n = put(ds, buf, len);
    if (n > 0)
        ds->said_ns = now_ns(ds);
    if (ds->ending && ds->waiting_at == ds->waiting_len) {
        ds->said_end = *ret_end = true;
        if (ds->way.channel)
            bm_channel_check_gone(ds->way.channel);
    }
    return (ssize_t)n;
}

/* --- in -------------------------------------------------------------------------------------- */

/* What came, up to an end of the channel or a broken rule. Returns how much of it the application has got. */
static size_t take(struct bm_dedicated_stream *ds, const uint8_t *bytes, size_t len)
{
    struct bm_chunk chunk;
    size_t shown = 0;
    while (ds->way.channel) {
        int r = bm_chunk_read(&ds->reader, &bytes, &len, &chunk);
        if (r == 0)
            break;
        if (r < 0) {
            fail(ds);
        } else if (r == BM_CHUNK_GO) {
            go(ds);
        } else if (r == BM_CHUNK_DATA) {
            ds->held += chunk.len;
            shown += chunk.len;
            bm_dedicated_data(&ds->way, chunk.bytes, chunk.len);
        } else {
            ds->heard_end = true;
            bm_dedicated_end(&ds->way, chunk.code, chunk.details, chunk.details_len);
        }
    }
    return shown;
}

static void on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    struct bm_dedicated_stream *ds = arg;
    size_t shown = 0;
    if (ds->state == BM_DEDICATED_ANSWERED || ds->state == BM_DEDICATED_GONE)
        shown = take(ds, bytes, len);
    else if (ds->state == BM_DEDICATED_PARKED)
        reset(ds); /* it has not been answered */
    bm_exchange_consumed(exchange, len - shown);
}

static void on_end(struct bm_exchange *exchange, void *arg)
{
    struct bm_dedicated_stream *ds = arg;
    (void)exchange;
    switch (ds->state) {
    case BM_DEDICATED_GONE:
        if (!ds->heard_end)
            lose(ds, BEAM_UNKNOWN, "the stream of its own has ended without an end");
        break;
    case BM_DEDICATED_PARKED:
    case BM_DEDICATED_ANSWERED: /* it has changed its mind */
        reset(ds);
        decline(ds);
        break;
    default:
        break;
    }
}

static void on_close(struct bm_exchange *exchange, int error, void *arg)
{
    struct bm_dedicated_stream *ds = arg;
    (void)exchange;
    (void)error;
    ds->exchange = NULL;
    ds->held = 0;
    if (ds->state == BM_DEDICATED_GONE)
        lose(ds, BEAM_UNKNOWN, "the stream of its own was lost");
    else
        decline(ds);
}

/* The answers that another request would get too. */
static bool is_for_all(unsigned status)
{
    return status != 409 && status != 410 && status != 429 && status != 503;
}

static bool type_is_ours(const struct bm_field *fields, size_t count)
{
    const struct bm_field *type = bm_field_find(fields, count, "content-type");
    return type && bm_field_same(type->value, type->value_len, TYPE);
}

static void on_answer(struct bm_exchange *exchange, unsigned status, const struct bm_field *fields,
                      size_t field_count, void *arg)
{
    struct bm_dedicated_stream *ds = arg;
    if (ds->state != BM_DEDICATED_ASKED)
        return;
    if (status == 200 && type_is_ours(fields, field_count)) {
        ds->go_due = true;
        go(ds);
        bm_exchange_resume(exchange);
        return;
    }
    ds->ns->streams_refused |= is_for_all(status);
    ds->give_up = true;
    leave(ds);
    arm(ds, BM_DEDICATED_LINGER_NS);
    bm_exchange_resume(exchange);
    bm_dedicated_decline(&ds->way);
}

static const struct bm_exchange_handlers handlers = {
    .on_answer = on_answer,
    .on_body = on_body,
    .on_end = on_end,
    .read = on_read,
    .on_close = on_close,
};

static unsigned open_streams(const struct bm_net_session *ns)
{
    unsigned count = 0;
    for (const struct bm_list *n = ns->streams.next; n != &ns->streams; n = n->next)
        count += bm_list_entry(n, struct bm_dedicated_stream, node)->exchange != NULL;
    return count;
}

/* --- the client ------------------------------------------------------------------------------ */

static int ask(struct bm_dedicated_stream *ds)
{
    struct bm_net_session *ns = ds->ns;
    char id[ID_LEN + 1], token[BM_BASE64URL_128_LEN + 1];
    bm_base64url_128(ds->token, token);
    snprintf(id, sizeof(id), "%llu", (unsigned long long)ds->id);
    struct bm_field fields[4] = {
        BM_FIELD("content-type", TYPE),
        BM_FIELD("beam-session", ns->id),
        BM_FIELD("beam-channel", id),
        BM_FIELD("beam-token", token),
    };
    fields[3].secret = true;
    if (ns->streams_refused || open_streams(ns) >= BM_DEDICATED_STREAMS_MAX)
        return -EAGAIN;
    int r = ns->owner->ask(ns, "/v1/stream", fields, BM_ARRAY_LEN(fields), &handlers, ds,
                           &ds->exchange, ns->owner_arg);
    if (r < 0)
        ds->exchange = NULL;
    return r;
}

static void on_task(struct bm_task *task)
{
    struct bm_dedicated_stream *ds = bm_container_of(task, struct bm_dedicated_stream, task);
    if (ask(ds) < 0) {
        decline(ds);
        return;
    }
    ds->state = BM_DEDICATED_ASKED;
    arm(ds, BM_DEDICATED_ANSWER_NS);
}

/* --- the server ------------------------------------------------------------------------------ */

/* It takes the same time however much of it is right. */
static bool token_is(const uint8_t token[BM_TOKEN_LEN], const char *text)
{
    char own[BM_BASE64URL_128_LEN + 1];
    unsigned differs = 0;
    bm_base64url_128(token, own);
    for (unsigned i = 0; i < BM_BASE64URL_128_LEN; i++)
        differs |= (unsigned)((uint8_t)own[i] ^ (uint8_t)text[i]);
    return differs == 0;
}

/* Its token is used up. */
static void answer(struct bm_dedicated_stream *ds)
{
    static const struct bm_field fields[] = {
        {.name = "content-type", .name_len = 12, .value = TYPE, .value_len = sizeof(TYPE) - 1},
        {.name = "cache-control", .name_len = 13, .value = "no-store", .value_len = 8},
        {.name = "x-accel-buffering", .name_len = 17, .value = "no", .value_len = 2},
    };
    if (bm_exchange_answer(ds->exchange, 200, fields, BM_ARRAY_LEN(fields), NULL, -1) < 0) {
        reset(ds);
        decline(ds);
        return;
    }
    ds->state = BM_DEDICATED_ANSWERED;
    arm(ds, BM_DEDICATED_GO_NS);
}

bool bm_dedicated_stream_can(const beam_session *session)
{
    const struct bm_net_session *ns =
        bm_container_of(session, const struct bm_net_session, session);
    return ns->exchange && !ns->websocket && !ns->streams_refused && ns->id[0] != '\0' &&
           session->hello_received && (!session->opener || (ns->owner && ns->owner->ask));
}

static struct bm_dedicated_stream *find(const struct bm_net_session *ns, uint64_t id, bool parked)
{
    for (struct bm_list *n = ns->streams.next; n != &ns->streams; n = n->next) {
        struct bm_dedicated_stream *ds = bm_list_entry(n, struct bm_dedicated_stream, node);
        if (ds->id == id && (ds->state == BM_DEDICATED_PARKED) == parked)
            return ds;
    }
    return NULL;
}

bool bm_dedicated_stream_begin(beam_session *session, beam_channel *channel, const uint8_t *token)
{
    struct bm_net_session *ns = bm_container_of(session, struct bm_net_session, session);
    if (!bm_dedicated_stream_can(session))
        return false;
    struct bm_dedicated_stream *ds = find(ns, channel->id, true);
    if (ds && !token_is(token, ds->asked)) {
        refuse_parked(ds, 403, BEAM_PERMISSION_DENIED, "not for you");
        ds = NULL;
    }
    bool parked = ds;
    if (!ds)
        ds = stream_new(ns, channel->id);
    if (!ds)
        return false;
    memcpy(ds->token, token, BM_TOKEN_LEN);
    bm_dedicated_join(&ds->way, &calls, channel);
    if (parked)
        answer(ds);
    else if (session->opener)
        bm_task_queue(ds->core->reactor, &ds->task);
    return true;
}

void bm_dedicated_stream_session_over(struct bm_net_session *ns)
{
    while (!bm_list_empty(&ns->streams)) {
        struct bm_dedicated_stream *ds =
            bm_list_entry(ns->streams.next, struct bm_dedicated_stream, node);
        bm_assert(ds->state == BM_DEDICATED_PARKED); /* the others went with their channels */
        reset(ds);
    }
}

/* D6, as it was asked for. */
struct asked {
    const struct bm_field *session, *channel, *token;
    uint64_t id;
};

static bool parse_id(const struct bm_field *field, uint64_t *ret_id)
{
    uint64_t id = 0;
    if (!field || field->value_len == 0 || field->value_len >= ID_LEN) /* so that it fits */
        return false;
    for (size_t i = 0; i < field->value_len; i++) {
        if (field->value[i] < '0' || field->value[i] > '9')
            return false;
        id = id * 10 + (unsigned)(field->value[i] - '0');
    }
    *ret_id = id;
    return id != 0;
}

static bool is_128(const struct bm_field *field)
{
    return field && field->value_len == BM_BASE64URL_128_LEN;
}

/* True: it asks for a stream; else it has been answered. */
static bool judge(struct bm_exchange *exchange, const struct bm_exchange_request *request,
                  struct asked *ret_asked)
{
    const struct bm_field *fields = request->fields;
    size_t count = request->field_count;
    bool post = request->method.len == 4 && memcmp(request->method.ptr, "POST", 4) == 0;
    *ret_asked = (struct asked){
        .session = bm_field_find(fields, count, "beam-session"),
        .channel = bm_field_find(fields, count, "beam-channel"),
        .token = bm_field_find(fields, count, "beam-token"),
    };
    if (request->protocol.len > 0 || !post)
        bm_exchange_refuse_saying(exchange, 405, BEAM_UNIMPLEMENTED,
                                  "a stream is asked for with POST", "allow", "POST");
    else if (request->version != 2)
        bm_exchange_refuse_saying(exchange, 426, BEAM_UNIMPLEMENTED,
                                  "there are no streams over HTTP/1.1", "upgrade", "h2c");
    else if (!type_is_ours(fields, count))
        bm_exchange_refuse_saying(exchange, 415, BEAM_INVALID_ARGUMENT, "content-type is not " TYPE,
                                  NULL, NULL);
    else if (!is_128(ret_asked->session) || !is_128(ret_asked->token) ||
             !parse_id(ret_asked->channel, &ret_asked->id))
        bm_exchange_refuse_saying(exchange, 400, BEAM_INVALID_ARGUMENT,
                                  "beam-session, beam-channel or beam-token is missing, or none",
                                  NULL, NULL);
    else
        return true;
    return false;
}

static bool same(beam_str a, beam_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* The message that attaches it may come yet. */
static bool may_come(const struct bm_net_session *ns, uint64_t id)
{
    return (id & 1) == 1 && id > ns->session.last_peer_id;
}

static void take_exchange(struct bm_dedicated_stream *ds, struct bm_exchange *exchange)
{
    ds->exchange = exchange;
    bm_exchange_take(exchange, &handlers, ds);
}

static void park(struct bm_net_session *ns, struct bm_exchange *exchange, const struct asked *asked)
{
    struct bm_dedicated_stream *ds = stream_new(ns, asked->id);
    if (!ds) {
        bm_exchange_refuse_saying(exchange, 503, BEAM_UNAVAILABLE, "no memory", NULL, NULL);
        return;
    }
    ds->state = BM_DEDICATED_PARKED;
    memcpy(ds->asked, asked->token->value, BM_BASE64URL_128_LEN);
    take_exchange(ds, exchange);
    arm(ds, BM_DEDICATED_ANSWER_NS);
}

void bm_stream_exchange(struct bm_exchange *exchange, const struct bm_exchange_request *request,
                        const struct bm_visitor *visitor)
{
    struct bm_core *core = bm_connection_core(bm_exchange_connection(exchange));
    struct asked asked;
    if (!judge(exchange, request, &asked))
        return;
    struct bm_net_session *ns = bm_net_session_find(core, asked.session->value);
    if (!ns) {
        bm_exchange_refuse_saying(exchange, 421, BEAM_NOT_FOUND, "no such session here",
                                  "beam-error", "no-session");
        return;
    }
    if (!same(visitor->peer.identity, ns->session.peer.shown.identity)) {
        bm_exchange_refuse_saying(exchange, 403, BEAM_PERMISSION_DENIED, "not for you", NULL, NULL);
        return;
    }
    struct bm_dedicated_stream *ds = find(ns, asked.id, false);
    if (find(ns, asked.id, true) || (ds && ds->state != BM_DEDICATED_OFFERED))
        bm_exchange_refuse_saying(exchange, 409, BEAM_ALREADY_EXISTS, "it has been asked for", NULL,
                                  NULL);
    else if (!ds && !may_come(ns, asked.id))
        bm_exchange_refuse_saying(exchange, 410, BEAM_NOT_FOUND,
                                  "no such channel, or it has no token", NULL, NULL);
    else if (open_streams(ns) >= BM_DEDICATED_STREAMS_MAX)
        bm_exchange_refuse_saying(exchange, 429, BEAM_RESOURCE_EXHAUSTED,
                                  "too many streams of this session", NULL, NULL);
    else if (!ds)
        park(ns, exchange, &asked);
    else if (!token_is(ds->token, asked.token->value))
        bm_exchange_refuse_saying(exchange, 403, BEAM_PERMISSION_DENIED, "not for you", NULL, NULL);
    else {
        take_exchange(ds, exchange);
        answer(ds);
    }
}
