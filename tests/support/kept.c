/* See kept.h. */
#include "tests/support/kept.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct kept *kept;

/* --- text ------------------------------------------------------------------------------------ */

struct reader {
    const char *pos;
    beam_kv_writer *w;
    bool bad;
};

static void skip_space(struct reader *r)
{
    while (*r->pos == ' ')
        r->pos++;
}

static beam_str read_string(struct reader *r)
{
    const char *from = ++r->pos;
    while (*r->pos && *r->pos != '\'')
        r->pos++;
    beam_str text = {from, (size_t)(r->pos - from)};
    r->bad = r->bad || *r->pos != '\'';
    r->pos += *r->pos == '\'';
    return text;
}

/* Recurses as deep as the text, which is the test's own. */
static void read_value(struct reader *r, beam_str key)
{
    beam_kv_value value = {.type = BEAM_KV_NIL};
    skip_space(r);
    char c = *r->pos;
    if (c == '{' || c == '[') {
        char close = c == '{' ? '}' : ']';
        beam_kv_begin(r->w, key, c == '{' ? BEAM_KV_MAP : BEAM_KV_LIST);
        r->pos++;
        skip_space(r);
        while (!r->bad && *r->pos != close) {
            beam_str inner = {NULL, 0};
            if (c == '{') {
                skip_space(r);
                inner = read_string(r);
                r->bad = r->bad || *r->pos != ':';
                r->pos += *r->pos == ':';
            }
            read_value(r, inner);
            skip_space(r);
            if (*r->pos == ',')
                r->pos++;
            else if (*r->pos != close)
                r->bad = true;
        }
        r->pos += *r->pos == close;
        beam_kv_end(r->w);
        return;
    }
    if (c == '\'') {
        value.type = BEAM_KV_STR;
        value.str = read_string(r);
    } else if (isdigit((unsigned char)c) || c == '-') {
        char *end;
        value.type = BEAM_KV_INT;
        errno = 0;
        value.i = strtoll(r->pos, &end, 10);
        if (errno == ERANGE && c != '-') {
            value.type = BEAM_KV_UINT;
            value.u = strtoull(r->pos, &end, 10);
        }
        r->pos = end;
    } else if (strncmp(r->pos, "true", 4) == 0) {
        value.type = BEAM_KV_TRUE;
        r->pos += 4;
    } else if (strncmp(r->pos, "false", 5) == 0) {
        value.type = BEAM_KV_FALSE;
        r->pos += 5;
    } else if (strncmp(r->pos, "null", 4) == 0) {
        r->pos += 4;
    } else {
        r->bad = true;
    }
    beam_kv_put(r->w, key, &value);
}

size_t kept_document(const char *text, void *buf, size_t cap)
{
    beam_kv_writer w;
    struct reader r = {.pos = text, .w = &w};
    const void *document;
    size_t len = 0;
    beam_kv_writer_init(&w, buf, cap);
    read_value(&r, (beam_str){NULL, 0});
    int error = beam_kv_writer_finish(&w, &document, &len);
    if (r.bad || *r.pos != '\0' || error < 0)
        CHECK_STR("no document", text);
    REQUIRE_INT(error, 0);
    return len;
}

void kept_text(const void *document, size_t len, char *text, size_t size)
{
    size_t text_len;
    char epoch[32], *at = text;
    int r = beam_kv_to_json(document, len, text, size, &text_len);
    if (r < 0) {
        snprintf(text, size, "%s, %zu bytes", beam_error_name(r), len);
        return;
    }
    for (char *c = text; *c; c++)
        if (*c == '"')
            *c = '\'';
    snprintf(epoch, sizeof(epoch), "%016llx", (unsigned long long)kept->info.epoch);
    while ((at = strstr(at, "'epoch':'"))) {
        at += strlen("'epoch':'");
        memcpy(at, memcmp(at, epoch, 16) == 0 ? "EPOCH" : "OTHER", 5);
        memmove(at + 5, at + 16, strlen(at + 16) + 1);
    }
}

/* --- the store ------------------------------------------------------------------------------- */

void kept_share(void)
{
    kept = flow_share(sizeof(*kept));
}

static void at_open(beam_request *request, void *arg)
{
    struct kept *k = arg;
    struct beam_store_options options = k->options;
    options.path = k->in_memory ? NULL : k->path;
    k->store = NULL;
    k->result = beam_store_open(flow_runtime_here(), &options, &k->store);
    if (k->result == 0)
        k->result = beam_store_serve(k->store, k->prefix[0] ? k->prefix : NULL);
    k->info = BEAM_STORE_INFO();
    if (k->store)
        CHECK_INT(beam_store_info(k->store, &k->info), 0);
}

static void at_hand(beam_request *request, void *arg)
{
    struct kept *k = arg;
    k->hand++; /* seq_cst, as each of these: what was written before the last one is seen */
    k->fn(request, k);
    k->hand++;
}

void kept_at(void (*fn)(beam_request *request, void *arg))
{
    kept->fn = fn;
    kept->hand++;
    if (kept->at_home)
        flow_at_home(at_hand, kept);
    else
        flow_at_server(at_hand, kept);
    kept->hand++;
}

int kept_try_open(const struct beam_store_options *options, const char *name)
{
    kept->options = options ? *options : BEAM_STORE_OPTIONS();
    kept->in_memory = !name;
    if (name)
        snprintf(kept->path, sizeof(kept->path), "%s/%s", test_tmpdir(), name);
    kept_at(at_open);
    return kept->result;
}

void kept_open(const struct beam_store_options *options, const char *name)
{
    REQUIRE_INT(kept_try_open(options, name), 0);
}

void kept_start(const struct beam_store_options *options)
{
    kept_share();
    flow_start(NULL);
    kept_open(options, NULL);
}

static void on_closed(int error, uint64_t rev, void *arg)
{
    struct kept *k = arg;
    k->last_error = error;
    k->closes++;
    flow_tick();
}

static void at_close(beam_request *request, void *arg)
{
    struct kept *k = arg;
    beam_store_close(k->store, on_closed, k);
}

void kept_close(void)
{
    unsigned closes = kept->closes;
    kept_at(at_close);
    FLOW_WAIT(kept->closes == closes + 1);
    CHECK_INT(kept->last_error, 0);
}

static void at_info(beam_request *request, void *arg)
{
    struct kept *k = arg;
    k->info = BEAM_STORE_INFO();
    CHECK_INT(beam_store_info(k->store, &k->info), 0);
}

const struct beam_store_info *kept_info(void)
{
    kept_at(at_info);
    return &kept->info;
}

static void on_filled(int error, uint64_t rev, void *arg)
{
    struct kept *k = arg;
    if (error < 0)
        k->last_error = error;
    k->done++;
    flow_tick();
}

static void at_fill(beam_request *request, void *arg)
{
    struct kept *k = arg;
    char key[64], *bytes = calloc(1, k->len + 1);
    for (unsigned i = 0; i < k->count; i++) {
        int n = snprintf(key, sizeof(key), "%s%u", k->prefix + 16, k->from + i);
        beam_kv_value value = {.type = BEAM_KV_BYTES};
        value.bytes = (beam_bytes){bytes, k->len};
        int r = beam_store_put(k->store, (beam_str){key, (size_t)n}, &value, on_filled, k);
        if (r < 0) {
            k->last_error = r;
            k->done++;
        }
    }
    free(bytes);
}

void kept_fill(const char *prefix, unsigned from, unsigned count, unsigned len)
{
    snprintf(kept->prefix + 16, 16, "%s", prefix);
    kept->from = from;
    kept->count = count;
    kept->len = len;
    kept->done = 0;
    kept->last_error = 0;
    kept_at(at_fill);
    FLOW_WAIT(kept->done == count);
    REQUIRE_INT(kept->last_error, 0);
}

/* --- asking ---------------------------------------------------------------------------------- */

struct asked {
    unsigned count;
    char text[KEPT_TEXT_MAX];
};

/* The details without the text for people. */
static void put_details(const struct beam_status *status, char *text, size_t size)
{
    uint8_t room[4096];
    beam_kv_writer w;
    beam_kv_value map, value;
    beam_kv_iter iter;
    beam_str key;
    const void *document;
    size_t len;
    if (!status->details || beam_kv_root(status->details, status->details_len, &map) < 0)
        return;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_iter_init(&iter, &map);
    while (beam_kv_iter_next(&iter, &key, &value) > 0)
        if (key.len != 7 || memcmp(key.ptr, "message", 7) != 0)
            beam_kv_put(&w, key, &value);
    beam_kv_end(&w);
    if (beam_kv_writer_finish(&w, &document, &len) == 0 && len > 8) {
        *text = ' ';
        kept_text(document, len, text + 1, size - 1);
    }
}

static void on_asked(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct asked *asked = arg;
    size_t len = 0;
    const void *body = message ? beam_message_body(message, &len) : NULL;
    asked->count++;
    if (status->code != BEAM_OK) {
        int n = snprintf(asked->text, sizeof(asked->text), "%s", beam_code_name(status->code));
        put_details(status, asked->text + n, sizeof(asked->text) - (size_t)n);
        if (status->message.len == 0)
            snprintf(asked->text, sizeof(asked->text), "%s without a text",
                     beam_code_name(status->code));
    } else if (body) {
        kept_text(body, len, asked->text, sizeof(asked->text));
    }
    flow_tick();
}

static beam_message *question(const char *argument)
{
    static uint8_t room[1 << 16];
    beam_message *message = beam_message_new();
    if (argument)
        beam_message_set_body(message, room, kept_document(argument, room, sizeof(room)));
    return message;
}

const char *kept_ask(const char *service, const char *argument)
{
    static struct asked asked;
    asked = (struct asked){0};
    beam_message *message = question(argument);
    int r = beam_call(flow.session, service, &message, on_asked, &asked, NULL);
    if (r < 0)
        beam_message_free(message);
    REQUIRE_INT(r, 0);
    FLOW_WAIT(asked.count > 0);
    CHECK_UINT(asked.count, 1);
    return asked.text;
}

void kept_ask_later(const char *service, const char *argument, struct flow_answer *answer)
{
    beam_message *message = question(argument);
    int r = beam_call(flow.session, service, &message, flow_on_reply, answer, NULL);
    if (r < 0)
        beam_message_free(message);
    REQUIRE_INT(r, 0);
}

/* --- following ------------------------------------------------------------------------------- */

static void note_rev(struct kept_watch *watch, const beam_kv_value *map, bool may_jump)
{
    uint64_t rev = 0;
    if (beam_kv_get_uint(map, "rev", &rev) < 0 || (rev < watch->rev && !may_jump))
        watch->bad++;
    watch->rev = rev;
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct kept_watch *watch = arg;
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_kv_value map;
    beam_str kind = {"", 0};
    uint64_t skipped = 0;
    if (beam_kv_check(body, len, NULL) < 0 || beam_kv_root(body, len, &map) < 0 ||
        beam_kv_get_str(&map, "kind", &kind) < 0) {
        watch->bad++;
        return;
    }
    if (watch->count < KEPT_LINES_MAX)
        kept_text(body, len, watch->lines[watch->count], KEPT_LINE_MAX);
    watch->count++;
    char first = kind.ptr[0];
    watch->heads += first == 'h';
    watch->snaps += first == 's';
    watch->lives += first == 'l';
    watch->deltas += first == 'd';
    watch->marks += first == 'm';
    uint64_t before = watch->rev;
    note_rev(watch, &map, first == 'h');
    if (first == 's') {
        beam_kv_value set;
        beam_kv_iter iter;
        beam_kv_iter_init(&iter, beam_kv_get(&map, "set", &set) == 0 ? &set : &map);
        while (beam_kv_iter_next(&iter, NULL, &set) > 0)
            watch->snap_keys++;
        watch->bad += watch->rev != before; /* all up to it has been told */
    }
    if (first == 'h')
        watch->snap_keys = 0;
    if (first == 'd' && watch->rev != before + 1)
        watch->bad++;
    if (first == 'h') {
        bool resume = false;
        (void)beam_kv_get_bool(&map, "resume", &resume);
        if (resume)
            watch->rev = before;
    }
    if (first == 'h' && beam_kv_get_uint(&map, "skipped", &skipped) == 0)
        watch->skipped += skipped;
    if (watch->hold && watch->held_count < 1024)
        watch->held[watch->held_count++] = beam_message_keep(message);
    flow_tick();
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct kept_watch *watch = arg;
    watch->ends++;
    watch->code = status->code;
    flow_tick();
}

static const struct beam_channel_handlers handlers = {.on_message = on_message, .on_end = on_end};

void kept_watch_on(struct kept_watch *watch, beam_session *session, const char *argument)
{
    beam_message *message = question(argument);
    int r = beam_open(session, "kv.watch", &message, &handlers, watch, NULL, &watch->channel);
    if (r < 0)
        beam_message_free(message);
    REQUIRE_INT(r, 0);
}

void kept_watch(struct kept_watch *watch, const char *argument)
{
    kept_watch_on(watch, flow.session, argument);
}

void kept_watch_release(struct kept_watch *watch)
{
    watch->hold = false;
    while (watch->held_count > 0)
        beam_message_free(watch->held[--watch->held_count]);
}

void kept_watch_end(struct kept_watch *watch)
{
    kept_watch_release(watch);
    watch->channel = beam_channel_free(watch->channel);
}
