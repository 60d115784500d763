/* What a server tells about itself: rule Q8. Made when it is asked for; a longer one is kept until its
 * peer has read it. */
#include <stdlib.h>
#include <string.h>

#include "net/exchange.h"
#include "net/server.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "runtime/service.h"

/* A body that is longer than an answer may hold. */
struct long_answer {
    beam_buffer body;
    size_t sent;
};

static ssize_t on_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                       void *arg)
{
    struct long_answer *answer = arg;
    size_t left = answer->body.len - answer->sent;
    size_t n = left < len ? left : len;
    (void)exchange;
    memcpy(buf, answer->body.ptr + answer->sent, n);
    answer->sent += n;
    *ret_end = n == left;
    return (ssize_t)n;
}

static void on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    (void)bytes;
    (void)arg;
    bm_exchange_consumed(exchange, len);
}

static void on_close(struct bm_exchange *exchange, int error, void *arg)
{
    struct long_answer *answer = arg;
    (void)exchange;
    (void)error;
    beam_buffer_deinit(&answer->body);
    bm_free(NULL, answer, sizeof(*answer));
}

static const struct bm_exchange_handlers long_handlers = {
    .on_body = on_body,
    .read = on_read,
    .on_close = on_close,
};

/* Takes the body. */
static void answer_with(struct bm_exchange *exchange, unsigned status, beam_buffer *body)
{
    const struct bm_field fields[] = {
        BM_FIELD("content-type", "application/json"),
        BM_FIELD("cache-control", "no-store"),
    };
    const size_t count = sizeof(fields) / sizeof(fields[0]);
    struct long_answer *answer = NULL;
    int r;
    if (body->len > BM_EXCHANGE_BODY_MAX) {
        answer = bm_alloc_zero(NULL, sizeof(*answer));
        if (!answer) {
            beam_buffer_deinit(body);
            bm_exchange_refuse(exchange, 503, BEAM_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
            return;
        }
        answer->body = *body;
        bm_exchange_take(exchange, &long_handlers, answer);
        r = bm_exchange_answer(exchange, status, fields, count, NULL, -1);
    } else {
        r = bm_exchange_answer(exchange, status, fields, count, body->ptr, (int64_t)body->len);
        beam_buffer_deinit(body);
    }
    if (r < 0)
        bm_exchange_reset(exchange);
}

/* What the writer has made, as JSON. */
static void answer_document(struct bm_exchange *exchange, unsigned status, beam_kv_writer *writer)
{
    beam_buffer json;
    const void *document;
    size_t len;
    beam_buffer_init(&json, SIZE_MAX);
    int r = beam_kv_writer_finish(writer, &document, &len);
    if (r == 0)
        r = beam_convert(&beam_kv_codec, &beam_json, document, len, NULL, &json, NULL);
    if (r < 0) {
        beam_buffer_deinit(&json);
        bm_exchange_refuse(exchange, 503, BEAM_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
        return;
    }
    answer_with(exchange, status, &json);
}

/* --- services -------------------------------------------------------------------------------- */

struct names {
    beam_buffer found; /* const struct bm_service * */
    const struct bm_visitor *visitor;
};

static void add_name(const struct bm_service *service, void *arg)
{
    struct names *names = arg;
    if (bm_service_allowed(service, &names->visitor->peer))
        (void)beam_buffer_add(&names->found, &service, sizeof(const struct bm_service *));
}

static int compare(const void *a, const void *b)
{
    const struct bm_service *const *one = a, *const *other = b;
    return strcmp((*one)->name, (*other)->name);
}

static void tell_services(struct bm_server *server, struct bm_exchange *exchange,
                          const struct bm_visitor *visitor)
{
    struct names names = {.visitor = visitor};
    beam_buffer document;
    beam_kv_writer writer;
    beam_buffer_init(&names.found, SIZE_MAX);
    beam_buffer_init(&document, SIZE_MAX);
    bm_services_each(bm_runtime_services(server->runtime), add_name, &names);
    const struct bm_service **found = (const struct bm_service **)(void *)names.found.ptr;
    size_t count = names.found.len / sizeof(*found);
    if (count > 0)
        qsort(found, count, sizeof(*found), compare);
    beam_kv_writer_init_buffer(&writer, &document);
    beam_kv_begin_list(&writer, NULL);
    for (size_t i = 0; i < count; i++)
        beam_kv_put_strn(&writer, NULL, found[i]->name, found[i]->name_len);
    beam_kv_end(&writer);
    if (names.found.error < 0)
        bm_exchange_refuse(exchange, 503, BEAM_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
    else
        answer_document(exchange, 200, &writer);
    beam_buffer_deinit(&names.found);
    beam_buffer_deinit(&document);
}

/* --- health and stats ------------------------------------------------------------------------ */

static void tell_health(const struct bm_server *server, struct bm_exchange *exchange)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    static const char draining[] = "{\"status\":\"draining\"}";
    const struct bm_field fields[] = {
        BM_FIELD("content-type", "application/json"),
        BM_FIELD("cache-control", "no-store"),
    };
    /* relaxed: a glance. */
    bool drains = atomic_load_explicit(&server->draining, memory_order_relaxed);
    int r = drains ? bm_exchange_answer(exchange, 503, fields, 2, draining, sizeof(draining) - 1)
                   : bm_exchange_answer(exchange, 200, fields, 2, ok, sizeof(ok) - 1);
    if (r < 0)
        bm_exchange_reset(exchange);
}

static void put_reactor(beam_kv_writer *writer, const struct beam_stats *stats)
{
    const struct {
        const char *name;
        uint64_t value;
    } counters[] = {
#define COUNTER(name) {#name, stats->name}
        COUNTER(turns),         COUNTER(enters),
        COUNTER(sqes),          COUNTER(cqes),
        COUNTER(overflows),     COUNTER(enobufs),
        COUNTER(rearms),        COUNTER(wakes_sent),
        COUNTER(wakes_skipped), COUNTER(sleeps),
        COUNTER(spins),         COUNTER(spin_hits),
        COUNTER(wake_cost_ns),  COUNTER(spin_budget_ns),
        COUNTER(messages_sent), COUNTER(messages_received),
        COUNTER(packets_sent),  COUNTER(packets_received),
        COUNTER(fds_sent),      COUNTER(fds_received),
        COUNTER(sessions),      COUNTER(channels),
#undef COUNTER
    };
    beam_kv_begin_map(writer, NULL);
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        beam_kv_put_uint(writer, counters[i].name, counters[i].value);
    beam_kv_end(writer);
}

static void tell_stats(struct bm_server *server, struct bm_exchange *exchange)
{
    beam_buffer document;
    beam_kv_writer writer;
    struct beam_stats stats;
    beam_buffer_init(&document, SIZE_MAX);
    beam_kv_writer_init_buffer(&writer, &document);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_bool(&writer, "draining",
                     atomic_load_explicit(&server->draining, memory_order_relaxed));
    beam_kv_begin_list(&writer, "reactors");
    for (unsigned i = 0; i < beam_reactor_count(server->runtime); i++)
        if (beam_runtime_stats(server->runtime, i, &stats) == 0)
            put_reactor(&writer, &stats);
    beam_kv_end(&writer);
    beam_kv_put_str(&writer, "version", beam_platform()->version);
    beam_kv_end(&writer);
    answer_document(exchange, 200, &writer);
    beam_buffer_deinit(&document);
}

static bool is(beam_str text, const char *other)
{
    return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

void bm_about_exchange(struct bm_server *server, struct bm_exchange *exchange,
                       const struct bm_exchange_request *request, const struct bm_visitor *visitor,
                       beam_str what)
{
    static const struct bm_field allow[] = {
        {.name = "allow", .value = "GET, HEAD", .name_len = 5, .value_len = 9}};
    if (!is(request->method, "GET") && !is(request->method, "HEAD"))
        bm_exchange_refuse(exchange, 405, BEAM_UNIMPLEMENTED, "it is asked for with GET", allow, 1);
    else if (is(what, "services"))
        tell_services(server, exchange, visitor);
    else if (is(what, "health"))
        tell_health(server, exchange);
    else if (is(what, "stats"))
        tell_stats(server, exchange);
    else
        bm_exchange_refuse(exchange, 404, BEAM_NOT_FOUND, "there is nothing of this name", NULL, 0);
}
