/* Requests for streams that nobody offered, and chunks that break the rules, from a client that is the test
 * itself; the session beside is a real one. docs/spec/http.md D6, D7. */
#include "tests/unit/net/dedicated_rig.h"

#include <netinet/tcp.h>

#include "net/base64url.h"

/* One request for a stream. */
struct raw {
    struct bm_exchange *exchange;
    unsigned status;
    char error[32]; /* beam-error */
    uint8_t got[256];
    size_t got_len;
    const uint8_t *says;
    size_t says_len, said;
    bool ends;
    unsigned closes;
};

static struct bm_connection *raw_connection;
static bool raw_open;
static struct bm_net_session_owner owner;

static void raw_on_open(struct bm_connection *connection, void *arg)
{
    (void)connection, (void)arg;
    raw_open = true;
}

static void raw_on_connection_close(struct bm_connection *connection, int error, const char *why,
                                    void *arg)
{
    (void)connection, (void)error, (void)why, (void)arg;
    raw_connection = NULL;
}

static void raw_on_answer(struct bm_exchange *exchange, unsigned status,
                          const struct bm_field *fields, size_t field_count, void *arg)
{
    struct raw *raw = arg;
    const struct bm_field *error = bm_field_find(fields, field_count, "beam-error");
    (void)exchange;
    raw->status = status;
    if (error)
        snprintf(raw->error, sizeof(raw->error), "%.*s", (int)error->value_len, error->value);
}

static void raw_on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    struct raw *raw = arg;
    size_t room = sizeof(raw->got) - raw->got_len;
    size_t n = len < room ? len : room;
    memcpy(raw->got + raw->got_len, bytes, n);
    raw->got_len += n;
    bm_exchange_consumed(exchange, len);
}

static ssize_t raw_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                        void *arg)
{
    struct raw *raw = arg;
    size_t left = raw->says_len - raw->said;
    size_t n = left < len ? left : len;
    (void)exchange;
    if (n > 0)
        memcpy(buf, raw->says + raw->said, n);
    raw->said += n;
    *ret_end = raw->ends && raw->said == raw->says_len;
    return (ssize_t)n;
}

static void raw_on_close(struct bm_exchange *exchange, int error, void *arg)
{
    struct raw *raw = arg;
    (void)exchange, (void)error;
    raw->closes++;
    raw->exchange = NULL;
}

static const struct bm_exchange_handlers raw_handlers = {
    .on_answer = raw_on_answer,
    .on_body = raw_on_body,
    .read = raw_read,
    .on_close = raw_on_close,
};

/* The session's own client asks for nothing, and waits. */
static int ask_nothing(struct bm_net_session *ns, const char *path, const struct bm_field *fields,
                       size_t field_count, const struct bm_exchange_handlers *handlers,
                       void *handlers_arg, struct bm_exchange **ret_exchange, void *arg)
{
    (void)ns, (void)path, (void)fields, (void)field_count, (void)handlers, (void)handlers_arg,
        (void)arg;
    *ret_exchange = NULL;
    return 0;
}

/* A session, and a connection beside it for what the test makes up. */
static void begin_raw(void)
{
    static const struct bm_connection_owner connection_owner = {
        .on_open = raw_on_open, .on_close = raw_on_connection_close};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    begin(NULL);
    owner = *client()->owner;
    owner.ask = ask_nothing;
    client()->owner = &owner;
    address.sin_port = htons(rig.port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    REQUIRE_INT(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_INT(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
    const struct bm_connection_options options = {
        .core = rig.core, .http2 = true, .owner = &connection_owner};
    raw_open = false;
    REQUIRE_INT(bm_connection_new(&options, &fd, &raw_connection), 0);
    RIG_UNTIL(raw_open);
}

static void end_raw(void)
{
    if (raw_connection)
        bm_connection_close(raw_connection);
    RIG_UNTIL(!raw_connection);
    end();
}

/* What is said of a stream; NULL: what is right. */
struct claim {
    const char *method, *type, *session, *channel, *token;
    bool without_channel;
};

static void raw_ask(struct raw *raw, const struct claim *claim)
{
    char id[24] = "0", token[BM_BASE64URL_128_LEN + 1] = "";
    const struct bm_dedicated_stream *ds = here.stream ? stream_of(&here) : NULL;
    if (ds) {
        snprintf(id, sizeof(id), "%llu", (unsigned long long)ds->id);
        bm_base64url_128(ds->token, token);
    }
    const struct bm_field fields[] = {
        BM_FIELD("content-type", claim->type ? claim->type : "application/x-beam-stream"),
        BM_FIELD("beam-session", claim->session ? claim->session : client()->id),
        BM_FIELD("beam-token", claim->token ? claim->token : token),
        BM_FIELD("beam-channel", claim->channel ? claim->channel : id),
    };
    const char *method = claim->method ? claim->method : "POST";
    const struct bm_connection_ask ask = {
        .method = {method, strlen(method)},
        .authority = {"localhost", 9},
        .path = {"/beam/v1/stream", 15},
        .fields = fields,
        .field_count = claim->without_channel ? 3 : 4,
        .body = true,
    };
    REQUIRE_INT(bm_connection_ask(raw_connection, &ask, &raw_handlers, raw, &raw->exchange), 0);
}

static void raw_says(struct raw *raw, const void *bytes, size_t len, bool ends)
{
    raw->says = bytes;
    raw->says_len = len;
    raw->said = 0;
    raw->ends = ends;
    bm_exchange_resume(raw->exchange);
}

static void raw_drop(struct raw *raw)
{
    if (raw->exchange)
        bm_exchange_reset(raw->exchange);
    RIG_UNTIL(!raw->exchange);
}

/* A stream that is offered to who has its token, and that nobody asks for. */
static void offer(void)
{
    here = there = (struct side){.stays = true};
    there.wants = 5;
    REQUIRE_INT(attach(true), 0);
    RIG_UNTIL(answer.count == 1 && stream_of(&here)->state == BM_DEDICATED_ASKED);
    bm_timer_cancel(rig.core->reactor, &stream_of(&here)->timer);
}

/* The client decides for the session, and all is well. */
static void expect_in_session(void)
{
    struct bm_timer *timer = &stream_of(&here)->timer;
    timer->fn(timer);
    RIG_UNTIL(here.got == there.wants);
    CHECK(!here.apart);
    CHECK_UINT(here.ends + there.ends, 0);
    client()->streams_refused = false;
}

TEST(a_request_for_a_stream_is_judged_by_what_it_says)
{
    static const struct {
        struct claim claim;
        unsigned status;
        const char *error;
    } requests[] = {
        {{.session = "AAAAAAAAAAAAAAAAAAAAAA"}, 421, "no-session"},
        {{.session = "AAAAAAAAAAAAAAAAAAAAA"}, 400, ""},
        {{.session = ""}, 400, ""},
        {{.token = "AAAAAAAAAAAAAAAAAAAAAA"}, 403, ""},
        {{.token = "A"}, 400, ""},
        {{.without_channel = true}, 400, ""},
        {{.channel = "0"}, 400, ""},
        {{.channel = "3x"}, 400, ""},
        {{.channel = "-3"}, 400, ""},
        {{.channel = ""}, 400, ""},
        {{.channel = "18446744073709551617"}, 400, ""},
        {{.channel = "1"}, 410, ""},   /* open, and without a token */
        {{.channel = "2"}, 410, ""},   /* none that the client could have known */
        {{.channel = "100"}, 410, ""}, /* ... yet */
        {{.type = "application/x-beam"}, 415, ""},
        {{.method = "GET"}, 405, ""},
        {{.method = "PUT"}, 405, ""},
    };
    begin_raw();
    offer();
    for (size_t i = 0; i < BM_ARRAY_LEN(requests); i++) {
        struct raw raw = {0};
        test_note("request %zu", i);
        raw_ask(&raw, &requests[i].claim);
        RIG_UNTIL(raw.status > 0);
        CHECK_UINT(raw.status, requests[i].status);
        CHECK_STR(raw.error, requests[i].error);
        raw_drop(&raw);
    }
    /* None of it has used the token up. */
    struct raw right = {0}, again = {0};
    raw_ask(&right, &(struct claim){0});
    RIG_UNTIL(right.status > 0);
    CHECK_UINT(right.status, 200);
    raw_ask(&again, &(struct claim){0});
    RIG_UNTIL(again.status > 0);
    CHECK_UINT(again.status, 409);
    CHECK_UINT(right.closes, 0);
    raw_drop(&again);
    raw_drop(&right);
    raw_ask(&again, &(struct claim){0});
    RIG_UNTIL(again.status != 409);
    CHECK_UINT(again.status, 410); /* single use */
    raw_drop(&again);
    expect_in_session();
    end_raw();
}

TEST(a_stream_belongs_to_who_opened_the_session)
{
    struct raw raw = {0};
    begin_raw();
    offer();
    rig.stranger = "cn:somebody else";
    raw_ask(&raw, &(struct claim){0});
    RIG_UNTIL(raw.status > 0);
    CHECK_UINT(raw.status, 403);
    raw_drop(&raw);
    rig.stranger = "";
    raw.status = 0;
    raw_ask(&raw, &(struct claim){0});
    RIG_UNTIL(raw.status > 0);
    CHECK_UINT(raw.status, 403);
    raw_drop(&raw);
    expect_in_session();
    end_raw();
}

TEST(a_token_is_dead_once_the_session_carries_the_channel)
{
    struct raw raw = {0};
    char token[BM_BASE64URL_128_LEN + 1], id[24];
    begin_raw();
    offer();
    bm_base64url_128(stream_of(&here)->token, token);
    snprintf(id, sizeof(id), "%llu", (unsigned long long)stream_of(&here)->id);
    expect_in_session();
    raw_ask(&raw, &(struct claim){.token = token, .channel = id});
    RIG_UNTIL(raw.status > 0);
    CHECK_UINT(raw.status, 410);
    raw_drop(&raw);
    end_raw();
}

/* --- requests that come before their channels ------------------------------------------------ */

/* What the rig gives out next in place of randomness. */
static void next_token(char ret[BM_BASE64URL_128_LEN + 1])
{
    uint8_t last[16], next[16];
    bm_random(last, sizeof(last));
    for (unsigned i = 0; i < 16; i++)
        next[i] = (uint8_t)(last[15] + 7 * (i + 1));
    bm_base64url_128(next, ret);
}

TEST(a_request_that_overtakes_its_channel_waits_for_it)
{
    static const uint8_t chunks[] = {1, 0, 0, 0, 2, 3, 0, 0, 0, 7, 14, 4,
                                     8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (unsigned i = 0; i < 2; i++) {
        struct raw raw = {0}, twice = {0};
        char token[BM_BASE64URL_128_LEN + 1], id[24];
        begin_raw();
        snprintf(id, sizeof(id), "%llu", (unsigned long long)rig.session->next_id + 2);
        next_token(token);
        if (i == 1)
            token[0] = token[0] == 'A' ? 'B' : 'A';
        raw_ask(&raw, &(struct claim){.token = token, .channel = id});
        RIG_UNTIL(rig.streams == 1);
        for (unsigned n = 0; n < 5; n++)
            rig_turn(1);
        CHECK_UINT(raw.status, 0);
        raw_ask(&twice, &(struct claim){.token = token, .channel = id});
        RIG_UNTIL(twice.status > 0);
        CHECK_UINT(twice.status, 409);
        raw_drop(&twice);
        offer();
        RIG_UNTIL(raw.status > 0);
        CHECK_UINT(raw.status, i == 0 ? 200 : 403);
        if (i == 0) {
            raw_says(&raw, chunks, sizeof(chunks), false);
            RIG_UNTIL(there.ends > 0);
            CHECK_UINT(there.got, 3);
            CHECK_UINT(there.wrong, 0);
            CHECK_INT(there.code, BEAM_OK);
            RIG_UNTIL(raw.got_len == 9);
            CHECK_MEM(raw.got, 9, "\2\5\0\0\0\7\16\25\34", 9);
        } else {
            expect_in_session();
        }
        raw_drop(&raw);
        end_raw();
    }
}

TEST(a_request_for_a_channel_that_never_comes_is_refused_in_time)
{
    struct raw raw = {0}, impatient = {0};
    begin_raw();
    raw_ask(&raw, &(struct claim){.token = "AAAAAAAAAAAAAAAAAAAAAA", .channel = "1001"});
    raw_ask(&impatient, &(struct claim){.token = "AAAAAAAAAAAAAAAAAAAAAA", .channel = "1003"});
    RIG_UNTIL(rig.streams == 2);
    raw_says(&impatient, "\1\0\0\0", 4, false);
    RIG_UNTIL(impatient.closes == 1);
    CHECK_UINT(raw.status, 0);
    rig_skip(BM_DEDICATED_ANSWER_NS);
    RIG_UNTIL(raw.status > 0);
    CHECK_UINT(raw.status, 410);
    raw_drop(&raw);
    /* And one that waits when the session ends. */
    raw_ask(&raw, &(struct claim){.token = "AAAAAAAAAAAAAAAAAAAAAA", .channel = "1005"});
    RIG_UNTIL(rig.streams == 3);
    rig_turn(2);
    beam_session_close(rig.session);
    RIG_UNTIL(raw.closes == 2);
    end_raw();
}

TEST(a_session_has_no_more_streams_than_it_may)
{
    static struct raw raws[BM_DEDICATED_STREAMS_MAX + 1];
    char id[24];
    begin_raw();
    memset(raws, 0, sizeof(raws));
    for (unsigned i = 0; i <= BM_DEDICATED_STREAMS_MAX; i++) {
        snprintf(id, sizeof(id), "%u", 1001 + 2 * i);
        raw_ask(&raws[i], &(struct claim){.token = "AAAAAAAAAAAAAAAAAAAAAA", .channel = id});
    }
    RIG_UNTIL(raws[BM_DEDICATED_STREAMS_MAX].status > 0);
    CHECK_UINT(raws[BM_DEDICATED_STREAMS_MAX].status, 429);
    CHECK_UINT(raws[0].status, 0);
    rig_skip(BM_DEDICATED_ANSWER_NS);
    for (unsigned i = 0; i <= BM_DEDICATED_STREAMS_MAX; i++)
        raw_drop(&raws[i]);
    end_raw();
}

/* --- chunks ---------------------------------------------------------------------------------- */

static void ask_well(struct raw *raw)
{
    *raw = (struct raw){0};
    offer();
    raw_ask(raw, &(struct claim){0});
    RIG_UNTIL(raw->status > 0);
    REQUIRE_UINT(raw->status, 200);
    for (unsigned n = 0; n < 5; n++)
        rig_turn(1);
    CHECK_UINT(raw->got_len, 0); /* nothing is said before GO */
}

TEST(a_stream_that_breaks_a_rule_aborts_its_channel)
{
    static const struct {
        const char *name, *bytes;
        size_t len;
        bool ends, went;
    } rows[] = {
        {"DATA before GO", "\2\1\0\0x", 5, false, false},
        {"GO twice", "\1\0\0\0\1\0\0\0", 8, false, true},
        {"a chunk too long", "\1\0\0\0\2\xfd\xff\0", 8, false, true},
        {"an unknown kind", "\1\0\0\0\5\0\0\0", 8, false, true},
        {"an END that is none", "\1\0\0\0\4\1\0\0\0", 9, false, true},
        {"END_STREAM without END", "\1\0\0\0", 4, true, true},
        {"END_STREAM in a chunk", "\1\0\0\0\2\5\0\0x", 9, true, true},
    };
    begin_raw();
    for (size_t i = 0; i < BM_ARRAY_LEN(rows); i++) {
        struct raw raw;
        test_note("%s", rows[i].name);
        ask_well(&raw);
        raw_says(&raw, rows[i].bytes, rows[i].len, rows[i].ends);
        RIG_UNTIL(there.ends > 0 && here.ends > 0);
        CHECK(there.code != BEAM_OK && there.code == here.code);
        CHECK_INT(there.code, rows[i].ends ? BEAM_UNKNOWN : BEAM_INTERNAL);
        free_sides();
        raw_drop(&raw);
    }
    beam_session_drain(rig.session);
    RIG_UNTIL(rig.closes > 0);
    CHECK_INT(rig.code, BEAM_OK);
    end_raw();
}

TEST(a_stream_that_is_reset_behind_go_aborts_its_channel)
{
    struct raw raw;
    begin_raw();
    ask_well(&raw);
    raw_says(&raw, "\1\0\0\0\2\1\0\0", 9, false);
    RIG_UNTIL(there.got == 1);
    raw_drop(&raw);
    RIG_UNTIL(there.ends > 0 && here.ends > 0);
    CHECK_INT(there.code, BEAM_UNKNOWN);
    CHECK_INT(here.code, BEAM_UNKNOWN);
    end_raw();
}

TEST(a_silent_server_says_alive_until_its_end)
{
    struct raw raw;
    begin_raw();
    ask_well(&raw);
    raw_says(&raw, "\1\0\0\0", 4, false);
    RIG_UNTIL(raw.got_len == 9);
    rig_skip(BM_DEDICATED_ALIVE_NS);
    RIG_UNTIL(raw.got_len == 13);
    CHECK_MEM(raw.got + 9, 4, "\3\0\0\0", 4);
    beam_stream_end(there.stream);
    RIG_UNTIL(raw.got_len == 25);
    rig_skip(BM_DEDICATED_ALIVE_NS);
    CHECK_UINT(raw.got_len, 25);
    raw_drop(&raw);
    end_raw();
}

TEST(an_end_with_a_code_ends_both_ways)
{
    static const uint8_t chunks[] = {1, 0, 0, 0, 4, 8, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0};
    struct raw raw;
    begin_raw();
    ask_well(&raw);
    raw_says(&raw, chunks, sizeof(chunks), false);
    RIG_UNTIL(there.ends > 0);
    CHECK_INT(there.code, BEAM_ABORTED);
    RIG_UNTIL(raw.closes == 1);
    end_raw();
}

TEST(a_stream_without_go_is_given_up_in_time)
{
    for (unsigned i = 0; i < 3; i++) {
        struct raw raw;
        begin_raw();
        ask_well(&raw);
        if (i == 0)
            rig_skip(BM_DEDICATED_GO_NS);
        else if (i == 1)
            raw_says(&raw, NULL, 0, true);
        else
            bm_exchange_reset(raw.exchange);
        RIG_UNTIL(raw.closes == 1);
        CHECK_UINT(here.ends + there.ends, 0);
        expect_in_session();
        end_raw();
    }
}

TEST(who_has_gone_says_nothing_in_the_session)
{
    struct raw raw;
    begin_raw();
    ask_well(&raw);
    raw_says(&raw, "\1\0\0\0", 4, false);
    RIG_UNTIL(raw.got_len > 0);
    struct bm_timer *timer = &stream_of(&here)->timer;
    timer->fn(timer); /* an empty MSG */
    RIG_UNTIL(rig.closes > 0);
    CHECK(strstr(rig.log, "FRAME_CHANNEL") != NULL);
    RIG_UNTIL(there.ends > 0 && raw.closes > 0);
    end_raw();
}

TEST(a_server_that_speaks_before_the_decision_breaks_the_session)
{
    begin_raw();
    offer();
    channel_of(&there)->dedicated_state = BM_DEDICATED_NONE; /* as a server that knows no tokens */
    bm_channel_make_ready(channel_of(&there));
    RIG_UNTIL(rig.closes > 0);
    CHECK(strstr(rig.log, "FRAME_CHANNEL") != NULL);
    end_raw();
}

TEST(a_client_takes_a_stream_without_end_for_a_loss)
{
    begin(NULL);
    here.wants = there.wants = 10;
    here.stays = there.stays = true;
    REQUIRE_INT(attach(true), 0);
    RIG_UNTIL(here.got == 10 && there.got == 10);
    /* The server's body ends without a word. */
    stream_of(&there)->give_up = true;
    bm_exchange_resume(stream_of(&there)->exchange);
    RIG_UNTIL(here.ends > 0);
    CHECK_INT(here.code, BEAM_UNKNOWN);
    RIG_UNTIL(there.ends > 0);
    CHECK_INT(there.code, BEAM_UNKNOWN);
    free_sides();
    rig_drain();
    end();
}
