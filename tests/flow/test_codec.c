/* Services that speak one codec to callers of any: docs/spec/session.md section 13, N1 to N7. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/flow.h"

enum { TEXT = BEAM_CODEC_APPLICATION, NOBODYS = BEAM_CODEC_APPLICATION + 1, LOOKING };

/* A codec of the application's whose bytes are one text: nothing else has a form in it. */
static int text_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                      beam_kv_writer *out, size_t *ret_error_offset)
{
    return beam_kv_put_strn(out, NULL, in, len);
}

static int text_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                        beam_buffer *out)
{
    beam_str text;
    int r = beam_kv_as_str(value, &text);
    return r < 0 ? -BEAM_ECODEC_UNSUPPORTED : beam_buffer_add(out, text.ptr, text.len);
}

static const struct beam_codec text = {sizeof(text), TEXT,       "text",
                                       "text/plain", text_to_kv, text_from_kv};
/* Bodies that nobody but the application can read. */
static const struct beam_codec opaque = {
    sizeof(opaque), BEAM_CODEC_PROTOBUF, "protobuf", "application/protobuf", NULL, NULL};

struct seen {
    _Atomic unsigned count, wrong, ends, cancelled, writables, codec;
    _Atomic int r, code;
    _Atomic uint64_t len;
};

static void flag(struct seen *seen, bool right)
{
    if (!right)
        seen->wrong++;
}

static const char *const ways[] = {"here", "home"};

static void serve_both_ways(const struct beam_codec *codec, beam_handler *handler, void *arg)
{
    flow_serve_in(codec, "here", handler, arg);
    flow_serve_in_at_home(codec, "home", handler, arg);
}

static beam_message *message_in(uint32_t codec, const void *body, size_t len)
{
    beam_message *message = beam_message_new();
    beam_message_set_body(message, body, len);
    beam_message_set_codec(message, codec);
    return message;
}

static beam_message *json(const char *body)
{
    return message_in(BEAM_CODEC_JSON, body, strlen(body));
}

static bool body_is(const beam_message *message, const void *body, size_t len)
{
    size_t n;
    const void *p = beam_message_body(message, &n);
    return n == len && (len == 0 || memcmp(p, body, len) == 0);
}

static bool text_is(const beam_message *message, const char *body)
{
    return body_is(message, body, strlen(body));
}

/* {"a": a, "b": b} or {"sum": a}, as a document. */
static size_t write_kv(void *room, size_t cap, const char *key, int64_t a, int64_t b)
{
    beam_kv_writer writer;
    const void *document;
    size_t len = 0;
    beam_kv_writer_init(&writer, room, cap);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_int(&writer, key, a);
    if (b != 0)
        beam_kv_put_int(&writer, "b", b);
    beam_kv_end(&writer);
    REQUIRE_INT(beam_kv_writer_finish(&writer, &document, &len), 0);
    return len;
}

static beam_message *kv(const char *key, int64_t a, int64_t b)
{
    uint8_t room[128];
    size_t len = write_kv(room, sizeof(room), key, a, b);
    return message_in(BEAM_CODEC_KV, room, len);
}

/* --- questions and answers ------------------------------------------------------------------- */

/* Adds a and b, which are a document; so is its answer. */
static void on_add(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_kv_value map;
    int64_t a = 0, b = 0;
    size_t len;
    const void *body = beam_message_body(message, &len);
    seen->count++;
    seen->codec = beam_message_codec(message);
    if (beam_kv_check(body, len, NULL) < 0 || beam_kv_root(body, len, &map) < 0 ||
        beam_kv_get_int(&map, "a", &a) < 0 || beam_kv_get_int(&map, "b", &b) < 0) {
        seen->wrong++;
        return;
    }
    beam_message *answer = kv("sum", a + b, 0);
    beam_reply(request, &answer);
}

/* N1, N2 */
FLOW_TEST(codec_caller_in_json_is_answered_in_json_by_a_service_of_documents)
{
    struct seen *seen = flow_share(sizeof(*seen));
    serve_both_ways(&beam_kv_codec, on_add, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        seen->codec = 99;
        struct flow_answer answer = flow_ask(ways[i], json(" { \"b\" : 3, \"a\" : 4 } "));
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK_UINT(beam_message_codec(answer.message), BEAM_CODEC_JSON);
        CHECK(text_is(answer.message, "{\"sum\":7}"));
        CHECK_UINT(seen->codec, BEAM_CODEC_KV);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->count, 2);
    CHECK_UINT(seen->wrong, 0);
}

/* Wants {"a":1,"b":2} as this text, and answers without saying that it does so in json. */
static void on_add_json(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    seen->count++;
    seen->codec = beam_message_codec(message);
    flag(seen, text_is(message, "{\"a\":1,\"b\":2}"));
    beam_message *answer = beam_message_new();
    beam_message_set_body(answer, "{\"sum\":3}", 9);
    beam_reply(request, &answer);
}

FLOW_TEST(codec_caller_with_documents_is_answered_with_one_by_a_service_of_json)
{
    struct seen *seen = flow_share(sizeof(*seen));
    uint8_t sum[64];
    size_t len = write_kv(sum, sizeof(sum), "sum", 3, 0);
    serve_both_ways(&beam_json, on_add_json, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        struct flow_answer answer = flow_ask(ways[i], kv("a", 1, 2));
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK_UINT(beam_message_codec(answer.message), BEAM_CODEC_KV);
        CHECK(body_is(answer.message, sum, len));
        CHECK_UINT(seen->codec, BEAM_CODEC_JSON);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->count, 2);
    CHECK_UINT(seen->wrong, 0);
}

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    seen->count++;
    seen->codec = beam_message_codec(message);
    beam_message *kept = beam_message_keep(message);
    beam_reply(request, &kept);
}

/* One codec for each way in and out, and the application's among them. */
FLOW_TEST(codec_any_known_one_goes_to_any_other_and_back)
{
    static const struct beam_codec *const spoken[] = {&beam_kv_codec, &beam_json, &beam_msgpack,
                                                      &text};
    static const char *const names[] = {"kv", "json", "msgpack", "text"};
    struct seen *seen = flow_share(sizeof(*seen));
    flow_register(&text);
    for (unsigned i = 0; i < 4; i++)
        flow_serve_in(spoken[i], names[i], on_echo, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned j = 0; j < 4; j++) {
            beam_buffer body;
            test_note("%s asked in %s", names[i], names[j]);
            beam_buffer_init(&body, 1000);
            int r = beam_convert(&beam_json, spoken[j], "\"a text\"", 8, NULL, &body, NULL);
            REQUIRE_INT(r, 0);
            struct flow_answer answer =
                flow_ask(names[i], message_in(spoken[j]->number, body.ptr, body.len));
            CHECK_INT(answer.code, BEAM_OK);
            if (answer.message) {
                CHECK_UINT(beam_message_codec(answer.message), spoken[j]->number);
                CHECK(body_is(answer.message, body.ptr, body.len));
            }
            CHECK_UINT(seen->codec, spoken[i]->number);
            flow_answer_clear(&answer);
            beam_buffer_deinit(&body);
        }
    }
    CHECK_UINT(seen->count, 16);
}

/* --- what is not touched --------------------------------------------------------------------- */

/* Answers with a body of its own that is no json either, in the service's codec by its name or by none. */
static void on_odd(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    flag(seen, text_is(message, " {not json"));
    beam_message *answer = beam_message_new();
    beam_message_set_body(answer, "nor this}", 9);
    if (seen->count++ % 2)
        beam_message_set_codec(answer, BEAM_CODEC_JSON);
    beam_reply(request, &answer);
}

/* N3 */
FLOW_TEST(codec_equal_ones_are_not_even_read)
{
    struct seen *seen = flow_share(sizeof(*seen));
    serve_both_ways(&beam_json, on_odd, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 4; i++) {
        struct flow_answer answer = flow_ask(ways[i % 2], json(" {not json"));
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK_UINT(beam_message_codec(answer.message), BEAM_CODEC_JSON);
        CHECK(text_is(answer.message, "nor this}"));
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->count, 4);
    CHECK_UINT(seen->wrong, 0);
}

/* A message of its caller's in another codec than the service's that is in the caller's is passed on, too. */
static void on_answer_in_json(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = json("as it is");
    beam_reply(request, &answer);
}

FLOW_TEST(codec_answer_in_the_callers_is_not_read_by_a_service_of_another)
{
    serve_both_ways(&beam_kv_codec, on_answer_in_json, NULL);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct flow_answer answer = flow_ask(ways[i], json("{}"));
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK(text_is(answer.message, "as it is"));
        flow_answer_clear(&answer);
    }
}

static _Atomic uintptr_t body_here, body_there;

static void on_look(beam_request *request, const beam_message *message, void *arg)
{
    body_there = (uintptr_t)beam_message_body(message, NULL);
    beam_message *kept = beam_message_keep(message);
    beam_reply(request, &kept);
}

/* Over a ring a message is its address. */
FLOW_TEST_ONE_PROCESS(codec_equal_ones_pass_as_the_same_message)
{
    flow_serve_in(&beam_json, "look", on_look, NULL);
    flow_start(NULL);
    if (!flow.one_runtime)
        return;
    static const size_t lens[] = {300, 70000};
    for (unsigned i = 0; i < 2; i++) {
        beam_message *question = flow_message_of(lens[i], i);
        beam_message_set_codec(question, BEAM_CODEC_JSON);
        body_here = (uintptr_t)beam_message_body(question, NULL);
        struct flow_answer answer = flow_ask("look", question);
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK_PTR((void *)body_there, (void *)body_here);
        CHECK_PTR(beam_message_body(answer.message, NULL), (const void *)body_here);
        flow_answer_clear(&answer);
    }
}

/* --- what nothing costs ---------------------------------------------------------------------- */

static void note_allocs(beam_request *request, void *arg)
{
    struct beam_stats stats;
    unsigned here = (unsigned)beam_reactor_current();
    CHECK_INT(beam_runtime_stats(flow_runtime_here(), here, &stats), 0);
    ((struct seen *)arg)->len = stats.allocs;
}

static struct {
    unsigned begun, ended, wanted, wrong;
} run;

static void ask_next(void);

static void on_next(const struct beam_status *status, const beam_message *message, void *arg)
{
    run.wrong += status->code != BEAM_OK;
    run.ended++;
    if (run.begun < run.wanted && flow.session)
        ask_next();
    else if (run.ended == run.wanted)
        flow_tick();
}

static void ask_next(void)
{
    beam_message *question = json("{\"a\":1,\"b\":2}");
    run.begun++;
    int r = beam_call(flow.session, "add", &question, on_next, NULL, NULL);
    CHECK_INT(r, 0);
    beam_message_free(question);
}

static void ask_many(unsigned count)
{
    memset(&run, 0, sizeof(run));
    run.wanted = count;
    ask_next();
    FLOW_WAIT(run.ended == count);
    CHECK_UINT(run.wrong, 0);
}

/* Warm is a matter of luck between threads: see test_steady.c. */
static uint64_t allocs_of_asking(struct seen *seen)
{
    uint64_t most = flow_allocs_max(flow_many(2000, 20)), allocs = most + 1;
    ask_many(flow_many(2000, 20));
    for (unsigned i = 0; i < 8 && allocs > most; i++) {
        flow_at_server(note_allocs, seen);
        uint64_t before = seen->len;
        ask_many(flow_many(2000, 20));
        flow_at_server(note_allocs, seen);
        allocs = seen->len - before;
    }
    return allocs > most ? allocs : 0;
}

FLOW_TEST(codec_equal_ones_allocate_nothing)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve_in(&beam_json, "add", on_add_json, seen);
    flow_start(NULL);
    CHECK_UINT(allocs_of_asking(seen), 0);
    CHECK_UINT(seen->wrong, 0);
}

/* With documents at one end there is none on the way. */
FLOW_TEST(codec_converting_to_documents_and_back_allocates_nothing)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve_in(&beam_kv_codec, "add", on_add, seen);
    flow_start(NULL);
    CHECK_UINT(allocs_of_asking(seen), 0);
    CHECK_UINT(seen->wrong, 0);
}

/* --- empty bodies ---------------------------------------------------------------------------- */

static void on_empty(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    size_t len;
    (void)beam_message_body(message, &len);
    flag(seen, len == 0 && beam_message_codec(message) == BEAM_CODEC_JSON);
    beam_message *answer = beam_message_new();
    beam_message_put_int(answer, "n", 7);
    beam_reply(request, &answer);
}

/* N2, N3 */
FLOW_TEST(codec_of_an_empty_body_counts_and_it_stays_empty)
{
    static const uint32_t codecs[] = {BEAM_CODEC_KV, BEAM_CODEC_JSON, BEAM_CODEC_MSGPACK};
    struct seen *seen = flow_share(sizeof(*seen));
    serve_both_ways(&beam_json, on_empty, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 6; i++) {
        uint32_t codec = codecs[i / 2];
        test_note("codec %u, %s", codec, ways[i % 2]);
        struct flow_answer answer = flow_ask(ways[i % 2], message_in(codec, NULL, 0));
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK_UINT(beam_message_codec(answer.message), codec);
        CHECK(body_is(answer.message, NULL, 0));
        int64_t n = 0;
        CHECK_INT(beam_message_get_int(answer.message, "n", &n), 0);
        CHECK_INT(n, 7);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->wrong, 0);
}

/* --- what stays with a message --------------------------------------------------------------- */

static bool is_null_device(int fd)
{
    char byte;
    return fd >= 0 && read(fd, &byte, 1) == 0;
}

static void attach_null(beam_message *message)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    beam_message_attach_fd(message, &fd);
}

static void on_attached_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    /* N4: no part of the conversation, and so as it was sent. */
    flag(seen, text_is(message, "{\"raw\": 1}") && beam_message_codec(message) == BEAM_CODEC_JSON);
    seen->writables++;
    beam_channel_free(channel);
    flow_tick();
}

static void on_attached_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_channel_free(
        channel); /* it was not sent, its receiver has freed it, or what it brings has no room */
}

static const struct beam_channel_handlers attached_handlers = {.on_message = on_attached_message,
                                                               .on_end = on_attached_end};

static const struct beam_channel_handlers attached_sender = {.on_end = on_attached_end};

static void on_carry(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    int64_t n = 0;
    seen->codec = beam_message_codec(message);
    flag(seen, beam_message_get_int(message, "n", &n) == 0 && n == 7);
    flag(seen, beam_message_fd_count(message) == 2);
    int fd = beam_message_take_fd(message, 1);
    flag(seen, is_null_device(fd));
    close(fd);
    beam_channel *channel = beam_message_take_channel(message, 0);
    if (channel)
        beam_channel_set_handlers(channel, &attached_handlers, seen);
    seen->count++;

    beam_message *answer = beam_message_new();
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message_set_body(answer, body, len);
    beam_message_put_int(answer, "n", 8);
    attach_null(answer);
    channel = beam_message_attach_channel(answer);
    if (channel) {
        beam_message *sent = json("{\"raw\": 1}");
        CHECK_INT(beam_channel_send(channel, &sent), 0);
        beam_message_free(sent);
        beam_channel_set_handlers(channel, &attached_sender, NULL);
    }
    beam_reply(request, &answer);
}

/* A text of so many bytes in json, quotes and all. */
static beam_message *json_text(size_t len, char c)
{
    beam_message *message = beam_message_new();
    char *room = beam_message_reserve_body(message, len);
    beam_message_set_codec(message, BEAM_CODEC_JSON);
    if (room) {
        memset(room, c, len);
        room[0] = room[len - 1] = '"';
    }
    return message;
}

static bool is_json_text(const beam_message *message, size_t len, char c)
{
    size_t n;
    const char *p = beam_message_body(message, &n);
    if (n != len || p[0] != '"' || p[len - 1] != '"')
        return false;
    for (size_t i = 1; i < len - 1; i++)
        if (p[i] != c)
            return false;
    return true;
}

/* N4 */
FLOW_TEST_FDS(codec_attachments_and_metadata_stay_with_a_body_that_is_converted)
{
    static const size_t lens[] = {20, 1000, 200000};
    struct seen *seen = flow_share(sizeof(*seen));
    struct seen *here = flow_share(sizeof(*here));
    serve_both_ways(&beam_kv_codec, on_carry, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 6; i++) {
        size_t len = lens[i / 2];
        test_note("%zu bytes, %s", len, ways[i % 2]);
        beam_message *question = json_text(len, 'x');
        beam_message_put_int(question, "n", 7);
        attach_null(question);
        attach_null(question);
        beam_channel *channel = beam_message_attach_channel(question);
        REQUIRE(channel != NULL);
        beam_message *sent = json("{\"raw\": 1}");
        int r = beam_channel_send(channel, &sent);
        CHECK_INT(r, 0);
        beam_message_free(sent);
        beam_channel_end(channel);

        struct flow_answer answer = flow_ask(ways[i % 2], question);
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK(is_json_text(answer.message, len, 'x'));
        int64_t n = 0;
        CHECK_INT(beam_message_get_int(answer.message, "n", &n), 0);
        CHECK_INT(n, 8);
        int fd = beam_message_take_fd(answer.message, 0);
        CHECK(is_null_device(fd));
        close(fd);
        beam_channel *came = beam_message_take_channel(answer.message, 0);
        REQUIRE(came != NULL);
        beam_channel_set_handlers(came, &attached_handlers, here);
        FLOW_WAIT(here->writables == i + 1 && seen->writables == i + 1);
        flow_answer_clear(&answer);
        beam_channel_free(channel);
    }
    CHECK_UINT(seen->wrong, 0);
    CHECK_UINT(here->wrong, 0);
    CHECK_UINT(seen->codec, BEAM_CODEC_KV);
}

/* --- kept, large, and many ------------------------------------------------------------------- */

static beam_request *kept_request;
static beam_message *kept_message;

static void on_keep(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_request_keep(request);
    kept_request = request;
    kept_message = beam_message_keep(message);
    seen->count++;
}

static void answer_kept(beam_request *request, void *arg)
{
    if (kept_request)
        beam_reply(kept_request, &kept_message);
    kept_message = beam_message_free(kept_message);
    kept_request = NULL;
}

FLOW_TEST(codec_converted_question_may_be_kept_whatever_its_length)
{
    static const size_t lens[] = {2, 40, 190, 191, 192, 193, 5000, 65400, 70000, 1 << 20, 9 << 20};
    struct seen *seen = flow_share(sizeof(*seen));
    kept_request = NULL;
    kept_message = NULL;
    flow_serve_in(&beam_kv_codec, "keep", on_keep, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        static struct flow_answer answer;
        test_note("%zu bytes", lens[i]);
        answer = (struct flow_answer){0};
        beam_message *question = json_text(lens[i], 'k');
        beam_message_put_str(question, "key", "value");
        int r = beam_call(flow.session, "keep", &question, flow_on_reply, &answer, NULL);
        beam_message_free(question);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(seen->count == i + 1);
        flow_at_server(answer_kept, NULL);
        FLOW_WAIT(answer.count == 1);
        CHECK_INT(answer.code, BEAM_OK);
        CHECK(answer.message && is_json_text(answer.message, lens[i], 'k'));
        beam_str value;
        CHECK(answer.message && beam_message_get_str(answer.message, "key", &value) == 0);
        flow_answer_clear(&answer);
    }
}

static void note_large(beam_request *request, void *arg)
{
    struct beam_session_stats stats = {0};
    beam_session_stats(beam_request_session(request), &stats);
    ((struct seen *)arg)->len = stats.large_len;
}

/* A list of so many zeros in json, two bytes each, which are sixteen in a document. */
static beam_message *json_zeros(size_t count)
{
    beam_message *message = beam_message_new();
    char *room = beam_message_reserve_body(message, 2 * count + 1);
    beam_message_set_codec(message, BEAM_CODEC_JSON);
    for (size_t i = 0; room && i < count; i++) {
        room[2 * i] = i == 0 ? '[' : ',';
        room[2 * i + 1] = '0';
    }
    if (room)
        room[2 * count] = ']';
    return message;
}

static struct {
    beam_request *request;
    beam_message *message;
} hoard[10];
static unsigned hoarded;

static void on_hoard(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    if (hoarded == sizeof(hoard) / sizeof(hoard[0]))
        return;
    beam_request_keep(request);
    hoard[hoarded].request = request;
    hoard[hoarded++].message = beam_message_keep(message);
    seen->count++;
}

static void answer_hoarded(beam_request *request, void *arg)
{
    while (hoarded > 0) {
        hoarded--;
        beam_reply(hoard[hoarded].request, &hoard[hoarded].message);
    }
}

/* N5: 60 001 bytes that become eight times as many, of which two find room. */
FLOW_TEST_UNIX(codec_growth_beyond_a_frame_is_charged_to_the_session)
{
    enum { ZEROS = 30000, GROWN = 16 * ZEROS + 8 };
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.server = {.message_len_max = 500000, .large_len_max = 1000000}};
    static struct flow_answer answers[2];
    memset(answers, 0, sizeof(answers));
    hoarded = 0;
    flow_serve_in(&beam_kv_codec, "hoard", on_hoard, seen);
    flow_start(&options);
    for (unsigned i = 0; i < 2; i++) {
        beam_message *question = json_zeros(ZEROS);
        int r = beam_call(flow.session, "hoard", &question, flow_on_reply, &answers[i], NULL);
        beam_message_free(question);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(seen->count == i + 1);
        flow_at_server(note_large, seen);
        CHECK_UINT(seen->len, (i + 1) * GROWN);
    }
    struct flow_answer refused = flow_ask("hoard", json_zeros(ZEROS));
    CHECK_INT(refused.code, BEAM_RESOURCE_EXHAUSTED);
    flow_answer_clear(&refused);
    CHECK_UINT(seen->count, 2);

    flow_at_server(answer_hoarded, NULL);
    for (unsigned i = 0; i < 2; i++) {
        beam_message *same = json_zeros(ZEROS);
        size_t len = 0;
        const void *body = beam_message_body(same, &len);
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_OK);
        CHECK(answers[i].message && body_is(answers[i].message, body, len));
        flow_answer_clear(&answers[i]);
        beam_message_free(same);
    }
    flow_at_server(note_large, seen);
    CHECK_UINT(seen->len, 0);
}

/* N5: behind a hop all callers share the budgets of eight. */
FLOW_TEST(codec_growth_behind_a_hop_is_charged_to_the_session_between)
{
    enum { ZEROS = 30000, GROWN = 16 * ZEROS + 8, BUDGETS = 8 };
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.server = {.message_len_max = 500000, .large_len_max = 500000}};
    static struct flow_answer answers[BUDGETS];
    memset(answers, 0, sizeof(answers));
    hoarded = 0;
    flow_serve_in_at_home(&beam_kv_codec, "hoard", on_hoard, seen);
    flow_start(&options);
    for (unsigned i = 0; i < BUDGETS; i++) {
        beam_message *question = json_zeros(ZEROS);
        int r = beam_call(flow.session, "hoard", &question, flow_on_reply, &answers[i], NULL);
        beam_message_free(question);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(seen->count == i + 1);
        flow_at_home(note_large, seen);
        CHECK_UINT(seen->len, (i + 1) * GROWN);
    }
    struct flow_answer refused = flow_ask("hoard", json_zeros(ZEROS));
    CHECK_INT(refused.code, BEAM_RESOURCE_EXHAUSTED);
    flow_answer_clear(&refused);
    CHECK_UINT(seen->count, BUDGETS);

    flow_at_home(answer_hoarded, NULL);
    for (unsigned i = 0; i < BUDGETS; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_OK);
        flow_answer_clear(&answers[i]);
    }
    flow_at_home(note_large, seen);
    CHECK_UINT(seen->len, 0);
}

/* What came as a large one is charged to the session of its caller, and what it grew by to the one between. */
FLOW_TEST_UNIX(codec_growth_of_a_large_message_behind_a_hop_is_charged_once)
{
    enum { ZEROS = 60000, CAME = 2 * ZEROS + 1, GROWN = 16 * ZEROS + 8 };
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_answer answer = {0};
    hoarded = 0;
    flow_serve_in_at_home(&beam_kv_codec, "hoard", on_hoard, seen);
    flow_start(NULL);
    for (unsigned round = 1; round <= 2; round++) {
        beam_message *question = json_zeros(ZEROS);
        int r = beam_call(flow.session, "hoard", &question, flow_on_reply, &answer, NULL);
        beam_message_free(question);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(seen->count == round);
        flow_at_home(note_large, seen);
        CHECK_UINT(seen->len, GROWN - CAME);
        flow_at_server(note_large, seen);
        CHECK_UINT(seen->len, CAME);
        flow_at_home(answer_hoarded, NULL);
        FLOW_WAIT(answer.count == 1);
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
        flow_at_home(note_large, seen);
        CHECK_UINT(seen->len, 0);
        FLOW_WAIT((flow_at_server(note_large, seen), seen->len == 0));
    }
}

/* A codec that looks, while a document is on its way to it, at what the session of its callers has. */
static struct {
    beam_session *session;
    struct seen *seen;
} looks;

static int looking_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                         beam_kv_writer *out, size_t *ret_error_offset)
{
    return beam_kv_put_nil(out, NULL);
}

static int looking_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                           beam_buffer *out)
{
    struct beam_session_stats stats = {0};
    if (looks.session) {
        beam_session_stats(looks.session, &stats);
        looks.seen->len = stats.memory_len;
    }
    return beam_buffer_add(out, "?", 1);
}

static const struct beam_codec looking = {sizeof(looking), LOOKING,       "looking",
                                          "x/looking",     looking_to_kv, looking_from_kv};

static void on_nothing(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

static void begin_to_look(beam_request *request, void *arg)
{
    struct beam_session_stats stats = {0};
    looks.seen = arg;
    looks.session = beam_request_session(request);
    beam_session_stats(looks.session, &stats);
    looks.seen->len = stats.memory_len;
}

FLOW_TEST(codec_document_on_the_way_is_on_the_account_of_the_session)
{
    enum { ZEROS = 30000, DOCUMENT = 16 * ZEROS + 8 };
    struct seen *seen = flow_share(sizeof(*seen));
    looks.session = NULL;
    flow_register(&looking);
    flow_serve_in(&looking, "look", on_nothing, NULL);
    flow_start(NULL);
    flow_at_server(begin_to_look, seen);
    uint64_t before = seen->len;
    struct flow_answer answer = flow_ask("look", json_zeros(ZEROS));
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    CHECK(seen->len >= before + DOCUMENT);
    flow_at_server(begin_to_look, seen);
    CHECK(seen->len < before + DOCUMENT);
}

/* --- limits ---------------------------------------------------------------------------------- */

/* N5 */
FLOW_TEST(codec_question_that_grows_over_the_services_limit_is_refused)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.server = {.message_len_max = 20000}};
    serve_both_ways(&beam_kv_codec, on_echo, seen);
    flow_start(&options);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        /* 8 + 1249 * 16 = 19 992 */
        struct flow_answer answer = flow_ask(ways[i], json_zeros(1249));
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
        answer = flow_ask(ways[i], json_zeros(1250));
        CHECK_INT(answer.code, BEAM_RESOURCE_EXHAUSTED);
        flow_answer_clear(&answer);
        /* Its metadata takes of the same room. */
        beam_message *question = json_zeros(1249);
        beam_message_put_int(question, "n", 7);
        answer = flow_ask(ways[i], question);
        CHECK_INT(answer.code, BEAM_RESOURCE_EXHAUSTED);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->count, 2);
}

/* N5: 30 000 zeros are 30 003 bytes of msgpack, and 480 008 on the way there. */
FLOW_TEST(codec_document_on_the_way_has_a_limit)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.server = {.message_len_max = 400000, .large_len_max = 400000}};
    serve_both_ways(&beam_msgpack, on_echo, seen);
    flow_start(&options);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        struct flow_answer answer = flow_ask(ways[i], json_zeros(20000));
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
        answer = flow_ask(ways[i], json_zeros(30000));
        CHECK_INT(answer.code, BEAM_RESOURCE_EXHAUSTED);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->count, 2);
}

/* Wants a list of nothing and answers one of a thousand numbers: 3001 bytes of json, 16 008 as a document. */
static void on_zeros(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_message *answer = json_zeros(1000);
    seen->count++;
    beam_reply(request, &answer);
}

FLOW_TEST(codec_answer_that_grows_over_the_callers_limit_is_an_error)
{
    struct seen *seen = flow_share(sizeof(*seen));
    serve_both_ways(&beam_json, on_zeros, seen);
    struct flow_options options = {.client = {.message_len_max = 16007},
                                   .server = {.message_len_max = 16007}};
    flow_start(&options);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        struct flow_answer answer = flow_ask(ways[i], message_in(BEAM_CODEC_KV, NULL, 0));
        CHECK_INT(answer.code, BEAM_RESOURCE_EXHAUSTED);
        flow_answer_clear(&answer);
        answer = flow_ask(ways[i], message_in(BEAM_CODEC_JSON, NULL, 0));
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(seen->count, 4);
}

/* One that is over the limit as the service has it, and not as its caller gets it. */
static void on_shrinking(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    uint8_t room[16100];
    beam_kv_writer writer;
    const void *document;
    size_t len = 0;
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_begin_list(&writer, NULL);
    for (unsigned i = 0; i < 1000; i++)
        beam_kv_put_int(&writer, NULL, 0);
    beam_kv_end(&writer);
    CHECK_INT(beam_kv_writer_finish(&writer, &document, &len), 0);
    beam_message *sent = message_in(BEAM_CODEC_KV, room, len);
    seen->r = beam_channel_send(beam_request_channel(request), &sent);
    beam_message_free(sent);
    seen->count++;
    beam_message *answer = message_in(BEAM_CODEC_KV, room, len);
    beam_reply(request, &answer);
}

FLOW_TEST(codec_limits_of_the_caller_are_for_what_it_gets)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.client = {.message_len_max = 4000},
                                   .server = {.message_len_max = 4000}};
    flow_serve_in(&beam_kv_codec, "here", on_shrinking, seen);
    flow_start(&options);
    struct flow_answer answer = flow_ask("here", json("[]"));
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    CHECK_INT(seen->r, 0);
    answer = flow_ask("here", message_in(BEAM_CODEC_KV, NULL, 0));
    CHECK_INT(answer.code, BEAM_RESOURCE_EXHAUSTED);
    flow_answer_clear(&answer);
    CHECK_INT(seen->r, -EMSGSIZE);
    CHECK_UINT(seen->count, 2);
}

/* --- refusals -------------------------------------------------------------------------------- */

struct refused {
    unsigned count;
    enum beam_code code;
    char text[256];
    int64_t http, offset;
    char codecs[256]; /* joined by commas */
    char error[64];
};

static void note_refusal(struct refused *refused, const struct beam_status *status)
{
    beam_kv_value map, list, name;
    beam_kv_iter iter;
    beam_str error;
    *refused = (struct refused){.count = refused->count + 1, .code = status->code, .offset = -1};
    flow_copy_text(refused->text, sizeof(refused->text), status->message);
    flow_tick();
    if (!status->details || beam_kv_root(status->details, status->details_len, &map) < 0)
        return;
    (void)beam_kv_get_int(&map, "http", &refused->http);
    (void)beam_kv_get_int(&map, "offset", &refused->offset);
    if (beam_kv_get_str(&map, "error", &error) == 0)
        flow_copy_text(refused->error, sizeof(refused->error), error);
    if (beam_kv_get(&map, "codecs", &list) < 0)
        return;
    beam_kv_iter_init(&iter, &list);
    for (size_t n = 0; beam_kv_iter_next(&iter, NULL, &name) > 0 && n < sizeof(refused->codecs);)
        n += (size_t)snprintf(refused->codecs + n, sizeof(refused->codecs) - n, "%s%.*s",
                              n > 0 ? "," : "", BEAM_STR(name.str));
}

static void on_refusal(const struct beam_status *status, const beam_message *message, void *arg)
{
    note_refusal(arg, status);
}

static struct refused ask_in_vain(const char *service, beam_message *question)
{
    static struct refused refused;
    refused = (struct refused){0};
    int r = beam_call(flow.session, service, &question, on_refusal, &refused, NULL);
    beam_message_free(question);
    REQUIRE_INT(r, 0);
    FLOW_WAIT(refused.count > 0);
    CHECK_UINT(refused.count, 1);
    return refused;
}

/* With xml, where it is built in. */
static const char *known(const char *without, const char *with)
{
    return beam_xml() ? with : without;
}

/* N6, also of an empty body, which could not be answered either. */
FLOW_TEST(codec_that_nobody_knows_is_415_and_says_which_are_known)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_register(&opaque);
    flow_register(&text);
    serve_both_ways(&beam_json, on_echo, seen);
    flow_start(NULL);
    static const uint32_t numbers[] = {NOBODYS, 5, 65535, UINT32_MAX, BEAM_CODEC_PROTOBUF};
    for (unsigned i = 0; i < 20; i++) {
        uint32_t number = numbers[i / 4];
        test_note("codec %u, %s, %s", number, i % 4 < 2 ? "empty" : "a body", ways[i % 2]);
        struct refused refused = ask_in_vain(ways[i % 2], i % 4 < 2 ? message_in(number, NULL, 0)
                                                                    : message_in(number, "{}", 2));
        CHECK_INT(refused.code, BEAM_INVALID_ARGUMENT);
        CHECK_INT(refused.http, 415);
        CHECK_STR(refused.codecs, known("json,kv,msgpack,text", "json,kv,msgpack,xml,text"));
        CHECK_STR(refused.error, "");
        CHECK_INT(refused.offset, -1);
        CHECK(refused.text[0] != '\0');
    }
    CHECK_UINT(seen->count, 0);
}

FLOW_TEST(codec_body_that_is_not_of_it_is_415_and_says_where)
{
    struct seen *seen = flow_share(sizeof(*seen));
    serve_both_ways(&beam_kv_codec, on_echo, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        struct refused refused = ask_in_vain(ways[i], json("[1, x]"));
        CHECK_INT(refused.code, BEAM_INVALID_ARGUMENT);
        CHECK_INT(refused.http, 415);
        CHECK_STR(refused.error, "CODEC_SYNTAX");
        CHECK_INT(refused.offset, 4);
        CHECK_STR(refused.codecs, known("kv,json,msgpack", "kv,json,msgpack,xml"));
        refused = ask_in_vain(ways[i], json("[1,"));
        CHECK_INT(refused.http, 415);
        CHECK_STR(refused.error, "CODEC_TRUNCATED");
    }
    struct flow_answer answer = flow_ask("here", json("[1]"));
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    CHECK_UINT(seen->count, 1);
}

FLOW_TEST(codec_without_adapters_passes_untouched_or_not_at_all)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_register(&opaque);
    serve_both_ways(&opaque, on_echo, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        struct flow_answer answer =
            flow_ask(ways[i], message_in(BEAM_CODEC_PROTOBUF, "\x08\x96\x01", 3));
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK_UINT(beam_message_codec(answer.message), BEAM_CODEC_PROTOBUF);
        CHECK(body_is(answer.message, "\x08\x96\x01", 3));
        flow_answer_clear(&answer);
        struct refused refused = ask_in_vain(ways[i], json("{}"));
        CHECK_INT(refused.code, BEAM_INVALID_ARGUMENT);
        CHECK_INT(refused.http, 415);
        CHECK_STR(refused.codecs, "protobuf");
    }
    CHECK_UINT(seen->count, 2);
}

/* Answers what its caller's codec has no form for, in a codec that nobody knows, or no document at all. */
static void on_answer_in_vain(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    int64_t how = 0;
    beam_message *answer;
    seen->count++;
    (void)beam_message_get_int(message, "how", &how);
    if (how == 0)
        answer = kv("sum", 7, 0);
    else if (how == 1)
        answer = message_in(NOBODYS, "x", 1);
    else
        answer = message_in(BEAM_CODEC_KV, "no document", 11);
    attach_null(answer); /* closed with it */
    beam_reply(request, &answer);
}

/* N7 */
FLOW_TEST(codec_answer_without_a_form_in_the_callers_is_406)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_register(&text);
    serve_both_ways(&beam_kv_codec, on_answer_in_vain, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 6; i++) {
        test_note("%u, %s", i / 2, ways[i % 2]);
        beam_message *question = message_in(TEXT, "add them", 8);
        beam_message_put_int(question, "how", i / 2);
        struct refused refused = ask_in_vain(ways[i % 2], question);
        if (i / 2 < 2) {
            CHECK_INT(refused.code, BEAM_UNIMPLEMENTED);
            CHECK_INT(refused.http, 406);
            CHECK_STR(refused.error, i / 2 ? "CODEC_UNKNOWN" : "CODEC_UNSUPPORTED");
            CHECK_STR(refused.codecs, known("kv,json,msgpack,text", "kv,json,msgpack,xml,text"));
        } else {
            CHECK_INT(refused.code, BEAM_INTERNAL); /* the service's own fault */
            CHECK_INT(refused.http, 0);
        }
    }
    CHECK_UINT(seen->count, 6);
}

/* Its caller has gone while it was at work. */
FLOW_TEST(codec_answer_to_a_caller_that_is_gone_goes_nowhere)
{
    struct seen *seen = flow_share(sizeof(*seen));
    kept_request = NULL;
    kept_message = NULL;
    flow_serve_in(&beam_kv_codec, "keep", on_keep, seen);
    flow_start(NULL);
    static struct flow_answer answer;
    answer = (struct flow_answer){0};
    beam_message *question = json("[1,2]");
    int r = beam_call(flow.session, "keep", &question, flow_on_reply, &answer,
                      &BEAM_CALL_OPTIONS(.timeout_ns = 20 * BEAM_MS));
    beam_message_free(question);
    REQUIRE_INT(r, 0);
    FLOW_WAIT(seen->count == 1 && answer.count == 1);
    CHECK_INT(answer.code, BEAM_DEADLINE_EXCEEDED);
    flow_at_server(answer_kept, NULL);
    flow_answer_clear(&answer);
}

/* --- events ---------------------------------------------------------------------------------- */

static beam_message *kept_events[16];
static beam_request *kept_event_requests[16];
static unsigned kept_event_count;

static void on_event(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_kv_value value;
    int64_t n = -1;
    size_t len;
    const void *body = beam_message_body(message, &len);
    flag(seen, beam_request_is_event(request) && beam_message_codec(message) == BEAM_CODEC_KV);
    flag(seen, beam_kv_check(body, len, NULL) == 0 && beam_kv_root(body, len, &value) == 0 &&
                   beam_kv_as_int(&value, &n) == 0);
    flag(seen, n == (int64_t)seen->count);
    seen->count++;
    if (n % 3 == 0 && kept_event_count < 16) {
        beam_request_keep(request);
        kept_event_requests[kept_event_count] = request;
        kept_events[kept_event_count++] = beam_message_keep(message);
    }
}

static void end_events(beam_request *request, void *arg)
{
    struct seen *seen = arg;
    for (unsigned i = 0; i < kept_event_count; i++) {
        beam_kv_value value;
        int64_t n = -1;
        size_t len;
        const void *body = kept_events[i] ? beam_message_body(kept_events[i], &len) : NULL;
        flag(seen, body && beam_kv_root(body, len, &value) == 0 &&
                       beam_kv_as_int(&value, &n) == 0 && n == 3 * (int64_t)i);
        beam_message_free(kept_events[i]);
        beam_reply(kept_event_requests[i], NULL);
    }
    kept_event_count = 0;
}

static void send_event(const char *service, beam_message *event)
{
    int r = beam_send_event(flow.session, service, &event);
    beam_message_free(event);
    REQUIRE_INT(r, 0);
}

/* N1; each by the codec it names itself. */
FLOW_TEST(codec_events_are_converted_one_by_one)
{
    struct seen *seen = flow_share(sizeof(*seen));
    kept_event_count = 0;
    flow_serve_in(&beam_kv_codec, "here", on_event, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 40; i++) {
        char number[16];
        snprintf(number, sizeof(number), "%u", i);
        beam_message *event = json(number);
        if (i % 2) {
            uint8_t room[64];
            beam_kv_writer writer;
            const void *document;
            size_t len = 0;
            beam_kv_writer_init(&writer, room, sizeof(room));
            beam_kv_put_int(&writer, NULL, i);
            REQUIRE_INT(beam_kv_writer_finish(&writer, &document, &len), 0);
            beam_message_free(event);
            event = message_in(BEAM_CODEC_KV, room, len);
        }
        send_event("here", event);
    }
    FLOW_WAIT(seen->count == 40);
    flow_at_server(end_events, seen);
    CHECK_UINT(seen->wrong, 0);
}

static void on_any_event(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    flag(seen, beam_message_codec(message) == BEAM_CODEC_KV);
    seen->count++;
}

/* N6: as those of a name that nobody serves, the channel of the events ends, and the next opens another. */
FLOW_TEST(codec_event_that_is_broken_is_refused_and_later_ones_arrive)
{
    struct seen *seen = flow_share(sizeof(*seen));
    serve_both_ways(&beam_kv_codec, on_any_event, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        send_event(ways[i], json("1"));
        FLOW_WAIT(seen->count == 3 * i + 1);
        send_event(ways[i], json("[1"));
        flow_settle();
        flow_settle();
        send_event(ways[i], message_in(NOBODYS, "1", 1));
        flow_settle();
        flow_settle();
        CHECK_UINT(seen->count, 3 * i + 1);
        send_event(ways[i], json("2"));
        send_event(ways[i], json("3"));
        FLOW_WAIT(seen->count == 3 * i + 3);
    }
    CHECK_UINT(seen->wrong, 0);
}

/* --- more than one message ------------------------------------------------------------------- */

/* Sends back what comes, doubled; the request ends when its caller's direction does. */
struct conversation {
    beam_request *request;
    struct seen *seen;
};
static struct conversation conversation;

static void on_number(beam_channel *channel, const beam_message *message, void *arg)
{
    struct conversation *c = arg;
    beam_kv_value value;
    int64_t n = -1;
    size_t len;
    const void *body = beam_message_body(message, &len);
    uint8_t room[64];
    beam_kv_writer writer;
    const void *document;
    flag(c->seen, beam_message_codec(message) == BEAM_CODEC_KV &&
                      beam_kv_check(body, len, NULL) == 0 && beam_kv_root(body, len, &value) == 0 &&
                      beam_kv_as_int(&value, &n) == 0);
    flag(c->seen, n == (int64_t)c->seen->count);
    c->seen->count++;
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_put_int(&writer, NULL, 2 * n);
    len = 0;
    CHECK_INT(beam_kv_writer_finish(&writer, &document, &len), 0);
    if (n % 2) {
        flag(c->seen, beam_channel_send_body(channel, room, len) == 0);
    } else {
        beam_message *back = message_in(BEAM_CODEC_KV, room, len);
        flag(c->seen, beam_channel_send(channel, &back) == 0);
        beam_message_free(back);
    }
}

static void on_numbers_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct conversation *c = arg;
    c->seen->ends++;
    c->seen->code = (int)status->code;
    if (status->code != BEAM_OK)
        return; /* on_cancel follows */
    beam_message *last = kv("sum", c->seen->count, 0);
    beam_reply(c->request, &last);
    c->request = NULL;
}

static const struct beam_channel_handlers number_handlers = {.on_message = on_number,
                                                             .on_end = on_numbers_end};

static void on_conversation_cancel(beam_request *request, void *arg)
{
    ((struct seen *)arg)->cancelled++;
}

static void on_converse(beam_request *request, const beam_message *message, void *arg)
{
    conversation.request = request;
    conversation.seen = arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_conversation_cancel, arg);
    beam_channel_set_handlers(beam_request_channel(request), &number_handlers, &conversation);
}

/* The caller's end of it. */
struct caller {
    unsigned count, wrong, ends;
    enum beam_code code;
    struct refused refused;
    char last[64];
};

static void on_doubled(beam_channel *channel, const beam_message *message, void *arg)
{
    struct caller *caller = arg;
    char wanted[32];
    size_t len;
    const void *body = beam_message_body(message, &len);
    snprintf(wanted, sizeof(wanted), "%u", 2 * caller->count);
    caller->wrong += beam_message_codec(message) != BEAM_CODEC_JSON;
    if (text_is(message, wanted))
        caller->count++;
    else
        flow_copy_text(caller->last, sizeof(caller->last), (beam_str){body, len});
    flow_tick();
}

static void on_caller_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct caller *caller = arg;
    caller->ends++;
    caller->code = status->code;
    note_refusal(&caller->refused, status);
}

static const struct beam_channel_handlers caller_handlers = {.on_message = on_doubled,
                                                             .on_end = on_caller_end};
static struct caller caller;

static beam_channel *converse(const char *service, beam_message *first)
{
    beam_channel *channel = NULL;
    caller = (struct caller){0};
    int r = beam_open(flow.session, service, &first, &caller_handlers, &caller, NULL, &channel);
    beam_message_free(first);
    REQUIRE_INT(r, 0);
    return channel;
}

static void send_number(beam_channel *channel, unsigned n)
{
    char number[16];
    snprintf(number, sizeof(number), "%u", n);
    for (;;) {
        beam_message *message = json(number);
        int r = beam_channel_send(channel, &message);
        beam_message_free(message);
        if (r == 0)
            return;
        REQUIRE_INT(r, -EAGAIN);
        flow_turn();
    }
}

/* N2: a thousand, so that the credit of what was converted goes back as it was charged. */
FLOW_TEST(codec_conversation_is_converted_in_both_directions)
{
    struct seen *seen = flow_share(sizeof(*seen));
    const unsigned count = flow_many(1000, 10);
    serve_both_ways(&beam_kv_codec, on_converse, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        seen->count = seen->ends = 0;
        beam_channel *channel = converse(ways[i], json("null"));
        for (unsigned n = 0; n < count; n++) {
            send_number(channel, n);
            if (n % 50 == 49)
                FLOW_WAIT(caller.count > n - 20);
        }
        beam_channel_end(channel);
        FLOW_WAIT(caller.ends == 1);
        CHECK_INT(caller.code, BEAM_OK);
        CHECK_UINT(caller.count, count);
        CHECK_UINT(caller.wrong, 0);
        char last[32];
        snprintf(last, sizeof(last), "{\"sum\":%u}", count);
        CHECK_STR(caller.last, last);
        CHECK_UINT(seen->count, count);
        CHECK_UINT(seen->ends, 1);
        CHECK_UINT(seen->cancelled, 0);
        beam_channel_free(channel);
    }
    CHECK_UINT(seen->wrong, 0);
}

static void answer_conversation(beam_request *request, void *arg)
{
    if (conversation.request)
        beam_reply(conversation.request, NULL);
    conversation.request = NULL;
}

/* N6 */
FLOW_TEST(codec_further_message_that_is_broken_ends_the_conversation)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve_in(&beam_kv_codec, "here", on_converse, seen);
    flow_start(NULL);
    beam_channel *channel = converse("here", json("null"));
    send_number(channel, 0);
    FLOW_WAIT(caller.count == 1);
    beam_message *broken = json("]");
    CHECK_INT(beam_channel_send(channel, &broken), 0);
    beam_message_free(broken);
    send_number(channel, 1);
    FLOW_WAIT(caller.ends == 1 && seen->cancelled == 1);
    CHECK_INT(caller.code, BEAM_INVALID_ARGUMENT);
    CHECK_INT(caller.refused.http, 415);
    CHECK_STR(caller.refused.error, "CODEC_SYNTAX");
    CHECK_UINT(caller.count, 1);
    CHECK_UINT(seen->count, 1);
    CHECK_UINT(seen->wrong, 0);
    CHECK_UINT(seen->ends, 1);
    CHECK_INT(seen->code, BEAM_INVALID_ARGUMENT);
    flow_at_server(answer_conversation, NULL);
    beam_channel_free(channel);
}

/* Sends one that has no form in its caller's codec, finds it as it was, and goes on. */
static void on_stubborn(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    beam_channel *channel = beam_request_channel(request);
    beam_message *sent = kv("a", 1, 2);
    beam_message_put_int(sent, "n", 7);
    attach_null(sent);
    seen->r = beam_channel_send(channel, &sent);
    uint8_t room[128];
    size_t len = write_kv(room, sizeof(room), "a", 1, 2);
    flag(seen, sent && body_is(sent, room, len) && beam_message_codec(sent) == BEAM_CODEC_KV &&
                   beam_message_peek_fd(sent, 0) >= 0);
    beam_message_free(sent);
    flag(seen, beam_channel_send_body(channel, room, len) == -BEAM_ECODEC_UNSUPPORTED);
    sent = message_in(TEXT, "in between", 10);
    flag(seen, beam_channel_send(channel, &sent) == 0);
    beam_message_free(sent);
    beam_message *answer = message_in(TEXT, "at last", 7);
    beam_reply(request, &answer);
    seen->count++;
}

static void on_text(beam_channel *channel, const beam_message *message, void *arg)
{
    struct caller *c = arg;
    c->wrong += beam_message_codec(message) != TEXT ||
                !text_is(message, c->count == 0 ? "in between" : "at last");
    c->count++;
}

static const struct beam_channel_handlers text_handlers = {.on_message = on_text,
                                                           .on_end = on_caller_end};

/* N7 */
FLOW_TEST_FDS(codec_message_without_a_form_is_refused_to_its_sender_who_goes_on)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_register(&text);
    serve_both_ways(&beam_kv_codec, on_stubborn, seen);
    flow_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        beam_channel *channel = NULL;
        test_note("%s", ways[i]);
        caller = (struct caller){0};
        beam_message *first = message_in(TEXT, "hello", 5);
        int r = beam_open(flow.session, ways[i], &first, &text_handlers, &caller, NULL, &channel);
        beam_message_free(first);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(caller.ends == 1);
        CHECK_INT(caller.code, BEAM_OK);
        CHECK_UINT(caller.count, 2);
        CHECK_UINT(caller.wrong, 0);
        CHECK_INT(seen->r, -BEAM_ECODEC_UNSUPPORTED);
        CHECK_UINT(seen->wrong, 0);
        beam_channel_free(channel);
    }
}

/* Sends as long as it may, and again when it may again. */
static struct {
    beam_request *request;
    struct seen *seen;
    beam_message *waiting;
    unsigned sent;
} flood;

enum { FLOOD = 60, FLOOD_LEN = 8008 }; /* 500 numbers as a document; 1001 bytes in json */

static beam_message *kv_zeros(unsigned count)
{
    static uint8_t room[FLOOD_LEN + 64];
    beam_kv_writer writer;
    const void *document;
    size_t len = 0;
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_begin_list(&writer, NULL);
    for (unsigned i = 0; i < count; i++)
        beam_kv_put_int(&writer, NULL, 0);
    beam_kv_end(&writer);
    REQUIRE_INT(beam_kv_writer_finish(&writer, &document, &len), 0);
    return message_in(BEAM_CODEC_KV, room, len);
}

static void go_on(beam_channel *channel)
{
    for (;;) {
        if (flood.sent == FLOOD) {
            beam_reply(flood.request, NULL);
            return;
        }
        if (!flood.waiting)
            flood.waiting = kv_zeros(500);
        int r = beam_channel_send(channel, &flood.waiting);
        if (r == -EAGAIN) {
            size_t len;
            (void)beam_message_body(flood.waiting, &len);
            flag(flood.seen,
                 len == FLOOD_LEN && beam_message_codec(flood.waiting) == BEAM_CODEC_KV);
            flood.seen->count++;
            return;
        }
        flag(flood.seen, r == 0);
        if (r < 0) {
            flood.waiting = beam_message_free(flood.waiting);
            beam_fail(flood.request, BEAM_ABORTED, "%s", beam_strerror(r));
            return;
        }
        flood.sent++;
    }
}

static void on_flood_writable(beam_channel *channel, void *arg)
{
    flood.seen->writables++;
    go_on(channel);
}

static const struct beam_channel_handlers flood_handlers = {.on_writable = on_flood_writable};

static void drop_flood(beam_request *request, void *arg)
{
    flood.waiting = beam_message_free(flood.waiting);
    beam_reply(request, NULL);
}

static void on_flood(beam_request *request, const beam_message *message, void *arg)
{
    memset(&flood, 0, sizeof(flood));
    flood.request = request;
    flood.seen = arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, drop_flood, NULL);
    beam_channel_set_handlers(beam_request_channel(request), &flood_handlers, NULL);
    go_on(beam_request_channel(request));
}

static beam_message *hoarded_numbers[FLOOD];

static void on_flooded(beam_channel *channel, const beam_message *message, void *arg)
{
    struct caller *c = arg;
    size_t len;
    (void)beam_message_body(message, &len);
    c->wrong += beam_message_codec(message) != BEAM_CODEC_JSON || len != 1001;
    if (c->count < FLOOD)
        hoarded_numbers[c->count++] = beam_message_keep(message);
    flow_tick();
}

static const struct beam_channel_handlers flooded_handlers = {.on_message = on_flooded,
                                                              .on_end = on_caller_end};

/* What counts is what goes over: with documents a fourth would wait. */
FLOW_TEST(codec_message_that_waits_for_credit_stays_as_it_was)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.client = {.window = 16384}, .server = {.window = 16384}};
    beam_channel *channel = NULL;
    flow_serve_in(&beam_kv_codec, "flood", on_flood, seen);
    flow_start(&options);
    caller = (struct caller){0};
    beam_message *first = json("null");
    int r = beam_open(flow.session, "flood", &first, &flooded_handlers, &caller, NULL, &channel);
    beam_message_free(first);
    REQUIRE_INT(r, 0);
    FLOW_WAIT(seen->count == 1);
    FLOW_WAIT(caller.count == 16); /* 16384 / (1001 + 64), and the one that makes it negative */
    CHECK_UINT(caller.ends, 0);
    for (unsigned i = 0; i < FLOOD; i++) {
        FLOW_WAIT(caller.count > i);
        hoarded_numbers[i] = beam_message_free(hoarded_numbers[i]);
    }
    FLOW_WAIT(caller.ends == 1);
    CHECK_INT(caller.code, BEAM_OK);
    CHECK(seen->writables > 0);
    CHECK_UINT(caller.wrong, 0);
    CHECK_UINT(seen->wrong, 0);
    beam_channel_free(channel);
}

static void on_first_of_two(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    if (seen->codec++ == 0) {
        /* Fills the queue: the next request waits for its handler. */
        beam_message *large = json_text(9000, 'l');
        beam_reply(request, &large);
        return;
    }
    on_converse(request, message, seen);
}

/* What comes behind a request that waits is told later, and converted then. */
FLOW_TEST_UNIX(codec_messages_that_come_early_are_converted_when_they_are_told)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.server = {.queue_len_max = 4096}};
    flow_serve_in(&beam_kv_codec, "here", on_first_of_two, seen);
    flow_start(&options);
    static struct flow_answer answer;
    answer = (struct flow_answer){0};
    beam_message *question = json("1");
    int r = beam_call(flow.session, "here", &question, flow_on_reply, &answer, NULL);
    beam_message_free(question);
    REQUIRE_INT(r, 0);
    beam_channel *channel = converse("here", json("null"));
    send_number(channel, 0);
    send_number(channel, 1);
    beam_channel_end(channel);
    FLOW_WAIT(answer.count == 1 && caller.ends == 1);
    CHECK_INT(caller.code, BEAM_OK);
    CHECK_UINT(caller.count, 2);
    CHECK_STR(caller.last, "{\"sum\":2}");
    CHECK_UINT(caller.wrong, 0);
    CHECK_UINT(seen->wrong, 0);
    flow_answer_clear(&answer);
    beam_channel_free(channel);
}

/* Sends a message with two channels to a caller that takes one, and finds it as it was. */
static void on_two_channels(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    uint8_t room[128];
    size_t len = write_kv(room, sizeof(room), "a", 1, 2);
    beam_message *sent = message_in(BEAM_CODEC_KV, room, len);
    for (unsigned i = 0; i < 2; i++) {
        beam_channel *channel = beam_message_attach_channel(sent);
        if (channel)
            beam_channel_set_handlers(channel, &attached_sender, NULL);
    }
    seen->r = beam_channel_send(beam_request_channel(request), &sent);
    flag(seen, sent && body_is(sent, room, len) && beam_message_codec(sent) == BEAM_CODEC_KV);
    beam_message_free(sent);
    beam_message *answer = kv("sum", 3, 0);
    beam_reply(request, &answer);
}

FLOW_TEST(codec_message_that_cannot_leave_for_its_channels_stays_as_it_was)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct flow_options options = {.client = {.channels_max = 1}, .server = {.channels_max = 1}};
    flow_serve_in(&beam_kv_codec, "here", on_two_channels, seen);
    flow_start(&options);
    struct flow_answer answer = flow_ask("here", json("{}"));
    CHECK_INT(answer.code, BEAM_OK);
    CHECK(answer.message && text_is(answer.message, "{\"sum\":3}"));
    CHECK_INT(seen->r, -EMSGSIZE);
    CHECK_UINT(seen->wrong, 0);
    flow_answer_clear(&answer);
}

static void on_long_text(beam_channel *channel, const beam_message *message, void *arg)
{
    struct conversation *c = arg;
    c->seen->count++;
    beam_message *kept = beam_message_keep(message);
    if (!kept)
        return;
    flag(c->seen, beam_message_codec(kept) == BEAM_CODEC_KV);
    if (beam_channel_send(channel, &kept) < 0) {
        c->seen->wrong++;
        beam_message_free(kept);
    }
}

static const struct beam_channel_handlers long_text_handlers = {.on_message = on_long_text,
                                                                .on_end = on_numbers_end};

static void on_long_texts(beam_request *request, const beam_message *message, void *arg)
{
    conversation.request = request;
    conversation.seen = arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, drop_flood, NULL);
    beam_channel_set_handlers(beam_request_channel(request), &long_text_handlers, &conversation);
}

static void on_long_text_back(beam_channel *channel, const beam_message *message, void *arg)
{
    struct caller *c = arg;
    c->wrong += !is_json_text(message, 3000, 'e') && !text_is(message, "{\"sum\":200}");
    c->count++;
    flow_tick();
}

static const struct beam_channel_handlers long_text_back = {.on_message = on_long_text_back,
                                                            .on_end = on_caller_end};

/* What was converted gives back the credit that it cost, no less and no more: many windows of it. */
FLOW_TEST(codec_credit_goes_back_as_it_was_charged)
{
    struct seen *seen = flow_share(sizeof(*seen));
    beam_channel *channel = NULL;
    flow_serve_in(&beam_kv_codec, "here", on_long_texts, seen);
    flow_start(NULL);
    caller = (struct caller){0};
    beam_message *first = json("null");
    int r = beam_open(flow.session, "here", &first, &long_text_back, &caller, NULL, &channel);
    beam_message_free(first);
    REQUIRE_INT(r, 0);
    for (unsigned i = 0; i < 200; i++) {
        beam_message *message = json_text(3000, 'e');
        r = beam_channel_send(channel, &message);
        beam_message_free(message);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(caller.count == i + 1);
        CHECK(beam_channel_credit(channel) <= 65536);
    }
    beam_channel_end(channel);
    FLOW_WAIT(caller.ends == 1);
    CHECK_INT(caller.code, BEAM_OK);
    CHECK_UINT(caller.wrong, 0);
    CHECK_UINT(seen->wrong, 0);
    beam_channel_free(channel);
}
