/* HTTP/2 between a client and a server in memory: what each hears of the other. Peers that mean no
 * good: test_h2_hostile.c. */
#include "net/proto/h2.h"
#include "tests/unit/net/h2_ends.h"

static struct end client, server;

static void begin(void)
{
    memset(&client, 0, sizeof(client));
    memset(&server, 0, sizeof(server));
    client.consumes = server.consumes = true;
    ends_open(&client, &server);
}

TEST(h2_request_and_response_with_bodies)
{
    struct says question = {.text = "who?"}, answer = {.text = "me"};
    struct bm_field fields[] = {FIELD("content-type", "text/plain"),
                                FIELD("authorization", "token"), FIELD("x-key", "k")};
    const struct bm_h2_request request = {
        .method = STR("POST"),
        .scheme = STR("https"),
        .authority = STR("a.test:8443"),
        .path = STR("/x?y"),
        .fields = fields,
        .fields_count = BM_ARRAY_LEN(fields),
    };
    struct bm_h2_stream *stream;
    fields[1].secret = fields[2].secret = true;
    begin();
    REQUIRE_INT(bm_h2_request(client.h2, &request, says_read, &question, &stream), 0);
    CHECK_UINT(bm_h2_stream_id(stream), 1);
    bm_h2_stream_stop(stream); /* means nothing to a client */
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "request 1 POST https://a.test:8443/x?y content-type=text/plain "
                                 "authorization=token! x-key=k!; data 1 'who?'; end 1; ");
    CHECK(bm_h2_stream_ended_out(stream));
    CHECK(!bm_h2_stream_ended_in(stream));

    bm_h2_stream_set_arg(server.last, &answer);
    const struct bm_field length[] = {FIELD("content-length", "2")};
    REQUIRE_INT(bm_h2_respond(server.last, 200, length, 1, says_read), 0);
    CHECK_INT(bm_h2_respond(server.last, 200, NULL, 0, NULL), -EALREADY);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "close 1 0; ");
    CHECK_STR(end_said(&client),
              "response 1 200 content-length=2; data 1 'me'; end 1; close 1 0; ");
    CHECK_UINT(bm_h2_streams(client.h2), 0);
    CHECK_UINT(bm_h2_streams(server.h2), 0);
    ends_close(&client, &server);
}

TEST(h2_server_answers_before_the_body_has_come_and_goes_on)
{
    struct says question = {.silent = true, .text = "late"},
                answer = {.silent = true, .text = "bye"};
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "request 1 POST https://a.test/; ");
    bm_h2_stream_set_arg(server.last, &answer);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "response 1 200; ");

    question.silent = false;
    bm_h2_stream_resume(stream);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "data 1 'late'; end 1; ");
    answer.silent = false;
    bm_h2_stream_resume(server.last);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "data 1 'bye'; end 1; close 1 0; ");
    CHECK_STR(end_said(&server), "close 1 0; ");
    ends_close(&client, &server);
}

TEST(h2_reset_is_never_an_end)
{
    struct says question = {.silent = true};
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    ends_talk(&client, &server);
    end_said(&server);
    bm_h2_stream_reset(server.last, BM_H2_NO_ERROR);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "close 1 0; "); /* NO_ERROR, and no end before it */
    CHECK_STR(end_said(&server), "close 1 0; ");

    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    ends_talk(&client, &server);
    end_said(&server);
    bm_h2_stream_reset(stream, BM_H2_CANCEL);
    bm_h2_stream_reset(stream, BM_H2_CANCEL);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "close 3 8; ");
    CHECK_STR(end_said(&server), "close 3 8; ");
    ends_close(&client, &server);
}

TEST(h2_bodies_are_pulled_by_the_output_alone)
{
    struct says answer = {.text = "late"};
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    bm_h2_stream_set_arg(server.last, &answer);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
    REQUIRE_INT(bm_h2_ping(client.h2, 1), 0);
    end_carry(&client, &server, SIZE_MAX);
    CHECK_UINT(answer.asked, 0);
    CHECK_STR(end_frames(&server), "PING +ack; HEADERS 1; DATA 1 4 +end; ");
    ends_close(&client, &server);
}

TEST(h2_bodies_that_nobody_wants_are_read_past)
{
    static const struct bm_h2_handlers deaf = {.on_request = end_on_request,
                                               .on_close = end_on_close};
    struct says question = {.left = 20u << 20};
    struct bm_h2_stream *stream;
    memset(&client, 0, sizeof(client));
    memset(&server, 0, sizeof(server));
    end_open(&client, false);
    server.now_ns = client.now_ns;
    const struct bm_h2_options options = {
        .server = true, .handlers = &deaf, .arg = &server, .now_ns = server.now_ns};
    REQUIRE_INT(bm_h2_new(&server.account, &options, &server.h2), 0);
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    ends_talk(&client, &server);
    CHECK(bm_h2_stream_ended_in(server.last));
    CHECK_UINT(question.said, 20u << 20);
    ends_close(&client, &server);
}

TEST(h2_settings_say_what_is_allowed)
{
    static const uint8_t expected[] = {
        0,  0,   36,   F_SETTINGS,
        0,  0,   0,    0,
        0, /* */
        0,  3,   0,    0,
        0,  128, /* MAX_CONCURRENT_STREAMS */
        0,  4,   0,    4,
        0,  0, /* INITIAL_WINDOW_SIZE */
        0,  1,   0,    0,
        16, 0, /* HEADER_TABLE_SIZE */
        0,  6,   0,    0,
        64, 0, /* MAX_HEADER_LIST_SIZE */
        0,  8,   0,    0,
        0,  1, /* ENABLE_CONNECT_PROTOCOL */
        0,  9,   0,    0,
        0,  1, /* NO_RFC7540_PRIORITIES */
        0,  0,   4,    F_WINDOW_UPDATE,
        0,  0,   0,    0,
        0,  0,   0xff, 0,
        1,
    };
    size_t len;
    memset(&server, 0, sizeof(server));
    end_open(&server, true);
    const uint8_t *out = bm_h2_output(server.h2, &len);
    CHECK_MEM(out, len, expected, sizeof(expected));
    end_close(&server);
}

TEST(h2_source_that_breaks_off_resets_the_stream)
{
    struct says question = {.broken = true};
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "close 1 2; ");
    CHECK_STR(end_said(&server), "request 1 POST https://a.test/; close 1 2; ");
    ends_close(&client, &server);
}

static ssize_t resumes_itself(struct bm_h2_stream *stream, uint8_t *buf, size_t cap, bool *ret_end,
                              void *arg)
{
    struct says *says = arg;
    if (says->asked++ == 0) {
        bm_h2_stream_resume(stream);
        return 0;
    }
    *ret_end = true;
    return 0;
}

TEST(h2_resume_inside_the_source_is_not_forgotten)
{
    struct says question = {.asked = 0};
    struct bm_h2_stream *stream;
    const struct bm_h2_request request = {
        .method = STR("POST"), .scheme = STR("https"), .authority = STR("a"), .path = STR("/")};
    begin();
    REQUIRE_INT(bm_h2_request(client.h2, &request, resumes_itself, &question, &stream), 0);
    size_t len;
    bm_h2_output(client.h2, &len);
    CHECK_UINT(question.asked, 1);
    CHECK(bm_h2_output_more(client.h2));
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "request 1 POST https://a/; end 1; ");
    CHECK_UINT(question.asked, 2);
    ends_close(&client, &server);
}

static struct bm_h2_stream *other_stream;

static ssize_t resumes_another(struct bm_h2_stream *stream, uint8_t *buf, size_t cap, bool *ret_end,
                               void *arg)
{
    bm_h2_stream_resume(other_stream);
    *ret_end = true;
    return 0;
}

TEST(h2_resume_of_another_stream_inside_a_source_is_not_forgotten)
{
    struct says question = {.silent = true, .text = "hey"};
    struct bm_h2_stream *stream;
    const struct bm_h2_request request = {
        .method = STR("POST"), .scheme = STR("https"), .authority = STR("a"), .path = STR("/")};
    begin();
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &other_stream), 0);
    ends_talk(&client, &server);
    question.silent = false;
    REQUIRE_INT(bm_h2_request(client.h2, &request, resumes_another, NULL, &stream), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server),
              "request 1 POST https://a.test/; request 3 POST https://a/; end 3; "
              "data 1 'hey'; end 1; ");
    ends_close(&client, &server);
}

TEST(h2_stream_that_has_nothing_to_say_is_not_blocked)
{
    struct says question = {.silent = true, .text = "hey"};
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    CHECK_UINT(bm_h2_stream_blocked_since_ns(stream), client.now_ns);
    ends_talk(&client, &server);
    CHECK_UINT(bm_h2_stream_blocked_since_ns(stream), UINT64_MAX);
    client.now_ns += 1000;
    CHECK_INT(bm_h2_tick(client.h2, client.now_ns), 0);
    question.silent = false;
    bm_h2_stream_resume(stream);
    CHECK_UINT(bm_h2_stream_blocked_since_ns(stream), client.now_ns);
    ends_talk(&client, &server);
    CHECK_UINT(bm_h2_stream_blocked_since_ns(stream), UINT64_MAX);
    ends_close(&client, &server);
}

TEST(h2_response_to_a_request_that_was_reset_is_not_heard)
{
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    end_carry(&client, &server, SIZE_MAX);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, NULL), 0);
    bm_h2_stream_reset(stream, BM_H2_CANCEL);
    end_carry(&server, &client, SIZE_MAX);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "close 1 8; ");
    ends_close(&client, &server);
}

TEST(h2_interim_responses_come_before_the_response)
{
    struct bm_h2_stream *stream;
    const struct bm_field link[] = {FIELD("link", "</x>")};
    begin();
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    CHECK_INT(bm_h2_inform(server.last, 101, NULL, 0), -EINVAL);
    CHECK_INT(bm_h2_inform(server.last, 200, NULL, 0), -EINVAL);
    CHECK_INT(bm_h2_respond(server.last, 103, NULL, 0, NULL), -EINVAL);
    CHECK_INT(bm_h2_inform(server.last, 100, NULL, 0), 0);
    CHECK_INT(bm_h2_inform(server.last, 103, link, 1), 0);
    CHECK_INT(bm_h2_respond(server.last, 204, NULL, 0, NULL), 0);
    CHECK_INT(bm_h2_inform(server.last, 100, NULL, 0), -EALREADY);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client),
              "response 1 100; response 1 103 link=</x>; response 1 204; end 1; close 1 0; ");
    ends_close(&client, &server);
}

TEST(h2_stopped_upload_is_reset_when_the_response_is_out)
{
    struct says question = {.left = 1u << 20}, answer = {.text = "enough"};
    struct bm_h2_stream *stream;
    begin();
    client.quiet = false;
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    server.consumes = false;
    ends_talk(&client, &server); /* until the window is full */
    CHECK_UINT(server.data_len, BM_H2_WINDOW);
    CHECK_UINT(bm_h2_stream_blocked_since_ns(stream), client.now_ns);
    bm_h2_stream_set_arg(server.last, &answer);
    bm_h2_stream_stop(server.last);
    REQUIRE_INT(bm_h2_respond(server.last, 413, NULL, 0, says_read), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "response 1 413; data 1 'enough'; end 1; close 1 0; ");
    CHECK_STR(end_said(&server), "request 1 POST https://a.test/; close 1 0; ");
    ends_close(&client, &server);
}

TEST(h2_upload_can_be_stopped_when_the_response_is_out_already)
{
    struct says question = {.silent = true};
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    ends_talk(&client, &server);
    REQUIRE_INT(bm_h2_respond(server.last, 413, NULL, 0, NULL), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "response 1 413; end 1; ");
    bm_h2_stream_stop(server.last);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "close 1 0; ");
    CHECK_STR(end_said(&server), "request 1 POST https://a.test/; close 1 0; ");
    ends_close(&client, &server);
}

TEST(h2_window_opens_as_bytes_are_consumed)
{
    struct says question = {.left = 8u << 20};
    struct bm_h2_stream *stream;
    begin();
    server.consumes = false;
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    ends_talk(&client, &server);
    CHECK_UINT(server.data_len, BM_H2_WINDOW);
    bm_h2_stream_consumed(server.last, BM_H2_WINDOW / 2);
    ends_talk(&client, &server);
    CHECK_UINT(server.data_len, BM_H2_WINDOW + BM_H2_WINDOW / 2);
    CHECK_INT(bm_h2_stream_window(server.last, BM_H2_WINDOW_SESSION), 0);
    CHECK_INT(bm_h2_stream_window(server.last, BM_H2_WINDOW), 0); /* does not shrink */
    ends_talk(&client, &server);
    CHECK_UINT(server.data_len, BM_H2_WINDOW_SESSION + BM_H2_WINDOW / 2);
    bm_h2_stream_consumed(server.last, BM_H2_WINDOW_SESSION / 2);
    ends_talk(&client, &server);
    CHECK_UINT(server.data_len, BM_H2_WINDOW_SESSION * 3 / 2 + BM_H2_WINDOW / 2);
    ends_close(&client, &server);
}

TEST(h2_window_of_a_client_s_stream_can_be_raised_before_it_is_sent)
{
    struct says answer = {.left = 8u << 20};
    struct bm_h2_stream *stream;
    begin();
    client.consumes = false;
    REQUIRE_INT(end_request(&client, "POST", "/", &(struct says){.silent = true}, &stream), 0);
    CHECK_INT(bm_h2_stream_window(stream, BM_H2_WINDOW_CONNECTION + 1), -EINVAL);
    CHECK_INT(bm_h2_stream_window(stream, BM_H2_WINDOW_SESSION), 0);
    ends_talk(&client, &server);
    bm_h2_stream_set_arg(server.last, &answer);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, says_read), 0);
    ends_talk(&client, &server);
    CHECK_UINT(client.data_len, BM_H2_WINDOW_SESSION);
    ends_close(&client, &server);
}

/* What a lost stream had in the connection's window comes back, and that of a held one when it is
 * consumed. */
TEST(h2_connection_window_comes_back_from_closed_streams)
{
    struct bm_h2_stream *stream;
    begin();
    server.consumes = false;
    for (unsigned i = 0; i < 200; i++) { /* 50 MiB in all, through a window of 16 MiB */
        struct says question = {.left = BM_H2_WINDOW};
        REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
        server.data_len = 0;
        ends_talk(&client, &server);
        REQUIRE_UINT(server.data_len, BM_H2_WINDOW);
        struct bm_h2_stream *at_server = server.last;
        bm_h2_stream_hold(at_server);
        bm_h2_stream_reset(stream, BM_H2_CANCEL);
        ends_talk(&client, &server);
        CHECK(bm_h2_stream_closed(at_server));
        if (i % 2 == 0)
            bm_h2_stream_consumed(at_server, BM_H2_WINDOW);
        CHECK_PTR(bm_h2_stream_release(at_server), NULL);
        server.now_ns += BM_NS_PER_S;
        client.now_ns = server.now_ns;
    }
    ends_close(&client, &server);
}

/* Less than half of the connection's window: it would be opened if the bytes were counted twice. */
TEST(h2_consumed_bytes_come_back_once)
{
    struct says question = {.left = 5u << 20};
    struct bm_h2_stream *stream;
    begin();
    server.consumes = false;
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    end_carry(&client, &server, SIZE_MAX);
    CHECK_INT(bm_h2_stream_window(server.last, BM_H2_WINDOW_CONNECTION), 0);
    ends_talk(&client, &server);
    CHECK_UINT(server.data_len, 5u << 20);
    bm_h2_stream_consumed(server.last, 5u << 20);
    CHECK_STR(end_frames(&server), "");
    bm_h2_stream_reset(server.last, BM_H2_CANCEL);
    ends_talk(&client, &server);

    struct says more = {.left = 12u << 20};
    REQUIRE_INT(end_request(&client, "POST", "/", &more, &stream), 0);
    end_carry(&client, &server, SIZE_MAX);
    CHECK_INT(bm_h2_stream_window(server.last, BM_H2_WINDOW_CONNECTION), 0);
    ends_talk(&client, &server);
    CHECK_UINT(server.data_len, BM_H2_WINDOW_CONNECTION);
    bm_h2_stream_consumed(server.last, 1);
    CHECK_STR(end_frames(&server), "");
    ends_close(&client, &server);
}

TEST(h2_streams_take_turns)
{
    struct says questions[2] = {{.left = 100u << 10}, {.left = 100u << 10}};
    struct says answers[2] = {{.left = 100u << 10}, {.left = 100u << 10}};
    struct bm_h2_stream *streams[2];
    size_t len;
    begin();
    for (unsigned i = 0; i < 2; i++)
        REQUIRE_INT(end_request(&client, "POST", "/", &questions[i], &streams[i]), 0);
    bm_h2_output(client.h2, &len);
    CHECK_UINT(questions[0].said, 32768); /* of four chunks that there is room for */
    CHECK_UINT(questions[1].said, 16384);
    ends_talk(&client, &server);
    for (unsigned i = 0; i < 2; i++) {
        bm_h2_stream_set_arg(server.streams[i], &answers[i]);
        REQUIRE_INT(bm_h2_respond(server.streams[i], 200, NULL, 0, says_read), 0);
    }
    bm_h2_output(server.h2, &len);
    CHECK_UINT(answers[0].said + answers[1].said, 3 * 16384);
    CHECK(answers[0].said >= 16384 && answers[1].said >= 16384);
    ends_talk(&client, &server);
    ends_close(&client, &server);
}

static const uint8_t *source_wrote_to;

static ssize_t note_where(struct bm_h2_stream *stream, uint8_t *buf, size_t cap, bool *ret_end,
                          void *arg)
{
    memcpy(buf, "here", 4);
    source_wrote_to = buf;
    *ret_end = true;
    return 4;
}

TEST(h2_source_writes_right_into_the_output)
{
    struct bm_h2_stream *stream;
    const struct bm_h2_request request = {
        .method = STR("POST"), .scheme = STR("https"), .authority = STR("a"), .path = STR("/")};
    size_t len;
    begin();
    REQUIRE_INT(bm_h2_request(client.h2, &request, note_where, NULL, &stream), 0);
    const uint8_t *out = bm_h2_output(client.h2, &len);
    REQUIRE(len > 4);
    CHECK_PTR(source_wrote_to, out + len - 4);
    CHECK_MEM(out + len - 4, 4, "here", 4);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "request 1 POST https://a/; data 1 'here'; end 1; ");
    ends_close(&client, &server);
}

TEST(h2_output_is_bounded_and_stays_where_it_is)
{
    struct says question = {.left = 8u << 20};
    struct bm_h2_stream *stream;
    size_t len, more;
    begin();
    CHECK(!bm_h2_output_more(client.h2));
    CHECK_UINT(bm_h2_stalled_since_ns(client.h2), UINT64_MAX);
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    CHECK(bm_h2_output_more(client.h2));
    client.now_ns += 5;
    CHECK_INT(bm_h2_tick(client.h2, client.now_ns), 0);
    const uint8_t *out = bm_h2_output(client.h2, &len);
    CHECK(len > 40000 && len <= BM_H2_OUTPUT_LEN);
    CHECK_UINT(bm_h2_stalled_since_ns(client.h2), client.now_ns);
    CHECK_PTR(bm_h2_output(client.h2, &more), out);
    CHECK_UINT(more, len);
    client.now_ns += 7;
    end_receive(&server, out, 1000);
    bm_h2_output_ack(client.h2, 1000, client.now_ns);
    CHECK_PTR(bm_h2_output(client.h2, &more), out + 1000);
    CHECK_UINT(more, len - 1000);
    CHECK_UINT(bm_h2_stalled_since_ns(client.h2), client.now_ns);
    end_receive(&server, out + 1000, more);
    bm_h2_output_ack(client.h2, more, client.now_ns);
    CHECK(bm_h2_output_more(client.h2));
    ends_talk(&client, &server);
    CHECK_UINT(server.data_len, 8u << 20);
    ends_close(&client, &server);
}

TEST(h2_bytes_may_come_one_by_one)
{
    struct says question = {.text = "who?"};
    struct bm_h2_stream *stream;
    memset(&client, 0, sizeof(client));
    memset(&server, 0, sizeof(server));
    server.consumes = server.answers = true;
    end_open(&client, false);
    end_open(&server, true);
    REQUIRE_INT(end_request(&client, "POST", "/", &question, &stream), 0);
    while (end_carry(&client, &server, 1) || end_carry(&server, &client, 1))
        ;
    CHECK_STR(end_said(&server),
              "settings; request 1 POST https://a.test/; data 1 'w'; data 1 'h'; data 1 'o'; "
              "data 1 '?'; end 1; close 1 0; ");
    CHECK_STR(end_said(&client), "settings; response 1 200; end 1; close 1 0; ");
    ends_close(&client, &server);
}

TEST(h2_ping_measures_the_round_trip)
{
    begin();
    CHECK_UINT(bm_h2_rtt_ns(client.h2), 0);
    REQUIRE_INT(bm_h2_ping(client.h2, 77), 0);
    CHECK_INT(bm_h2_ping(client.h2, 78), -EBUSY);
    CHECK_UINT(bm_h2_ping_since_ns(client.h2), UINT64_MAX);
    end_carry(&client, &server, SIZE_MAX);
    CHECK_UINT(bm_h2_ping_since_ns(client.h2), client.now_ns);
    client.now_ns += 1234;
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "pong 77 1234; ");
    CHECK_UINT(bm_h2_rtt_ns(client.h2), 1234);
    CHECK_INT(bm_h2_ping(client.h2, 78), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "pong 78 1; ");

    struct raw raw = {.len = 0};
    REQUIRE_INT(bm_h2_ping(client.h2, 79), 0);
    end_frames(&client);
    raw_frame(&raw, F_PING, F_ACK, 0, "whatever", 8); /* not the answer */
    CHECK_INT(raw_send(&raw, &client), 0);
    CHECK_STR(end_said(&client), "");
    CHECK_INT(bm_h2_ping(client.h2, 80), -EBUSY);
    ends_close(&client, &server);
}

TEST(h2_server_drains_with_notice_and_loses_nothing)
{
    struct says question = {.silent = true, .text = "x"};
    struct bm_h2_stream *first, *second;
    begin();
    REQUIRE_INT(end_request(&client, "POST", "/1", &question, &first), 0);
    ends_talk(&client, &server);
    bm_h2_drain(server.h2);
    bm_h2_drain(server.h2);
    CHECK(bm_h2_draining(server.h2));
    /* Crosses the notice, and is served. */
    REQUIRE_INT(end_request(&client, "GET", "/2", NULL, &second), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server),
              "request 1 POST https://a.test/1; request 3 GET https://a.test/2; end 3; ");
    CHECK_STR(end_said(&client), "goaway 0; goaway 0; ");
    CHECK(bm_h2_draining(client.h2));
    CHECK_UINT(bm_h2_room(client.h2), 0);
    CHECK_INT(end_request(&client, "GET", "/3", NULL, &second), -ESHUTDOWN);
    CHECK_INT(bm_h2_over(client.h2), 0);
    CHECK_INT(bm_h2_over(server.h2), 0);

    question.silent = false;
    bm_h2_stream_resume(first);
    REQUIRE_INT(bm_h2_respond(server.streams[0], 200, NULL, 0, NULL), 0);
    REQUIRE_INT(bm_h2_respond(server.streams[1], 200, NULL, 0, NULL), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client),
              "response 1 200; end 1; close 1 0; response 3 200; end 3; close 3 0; ");
    CHECK_INT(bm_h2_over(client.h2), 1);
    CHECK_INT(bm_h2_over(server.h2), 1);
    ends_close(&client, &server);
}

TEST(h2_drain_without_an_answer_is_final_after_a_while)
{
    struct raw raw;
    memset(&server, 0, sizeof(server));
    end_greeted(&server, &raw);
    raw_post(&raw, 1);
    raw_send(&raw, &server);
    bm_h2_drain(server.h2);
    bm_h2_drain(server.h2);
    CHECK_STR(end_frames(&server), "PING; GOAWAY 2147483647 0; ");
    CHECK_UINT(bm_h2_next_ns(server.h2), server.now_ns + BM_H2_DRAIN_NS);
    server.now_ns += BM_H2_DRAIN_NS - 1;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    CHECK_STR(end_frames(&server), "");
    server.now_ns++;
    CHECK_INT(bm_h2_tick(server.h2, server.now_ns), 0);
    CHECK_STR(end_frames(&server), "GOAWAY 1 0; ");
    /* What comes now is not looked at, and the client knows. */
    end_said(&server);
    raw_get(&raw, 3);
    CHECK_INT(raw_send(&raw, &server), 0);
    CHECK_STR(end_said(&server), "");
    CHECK_STR(end_frames(&server), "");
    end_close(&server);
}

TEST(h2_client_drains)
{
    struct bm_h2_stream *stream, *other;
    begin();
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    bm_h2_drain(client.h2);
    CHECK_INT(end_request(&client, "GET", "/", NULL, &other), -ESHUTDOWN);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "request 1 GET https://a.test/; end 1; goaway 0; ");
    CHECK_INT(bm_h2_over(client.h2), 0);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, NULL), 0);
    ends_talk(&client, &server);
    CHECK_INT(bm_h2_over(client.h2), 1);
    CHECK_INT(bm_h2_over(server.h2), 1);
    ends_close(&client, &server);
}

TEST(h2_request_that_the_server_never_took_is_refused)
{
    struct raw raw = {.len = 0};
    struct bm_h2_stream *first, *second;
    memset(&client, 0, sizeof(client));
    end_open(&client, false);
    raw_frame(&raw, F_SETTINGS, 0, 0, "", 0);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &first), 0);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &second), 0);
    end_frames(&client);
    raw_frame(&raw, F_GOAWAY, 0, 0, "\0\0\0\1\0\0\0\0", 8);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    CHECK_STR(end_said(&client), "settings; goaway 0; close 3 7; ");
    raw_frame(&raw, F_HEADERS, F_END_HEADERS | F_END_STREAM, 1, "\x88", 1);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    CHECK_STR(end_said(&client), "response 1 200; end 1; close 1 0; ");
    CHECK_STR(end_frames(&client), "");
    CHECK_INT(bm_h2_over(client.h2), 1);
    end_close(&client);
}

TEST(h2_request_reset_before_it_was_sent_is_closed_once)
{
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    bm_h2_stream_reset(stream, BM_H2_CANCEL);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "close 1 8; ");
    CHECK_STR(end_said(&server), "");
    CHECK_UINT(bm_h2_streams(client.h2), 0);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server), "request 3 GET https://a.test/; end 3; ");
    ends_close(&client, &server);
}

TEST(h2_request_that_was_not_sent_when_the_connection_ended_is_closed_once)
{
    struct raw raw = {.len = 0};
    struct bm_h2_stream *stream;
    begin();
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    raw_frame(&raw, F_PING, 0, 1, "12345678", 8);
    CHECK_INT(raw_send(&raw, &client), -BEAM_EH2_PROTOCOL);
    CHECK_STR(end_said(&client), "close 1 7; ");
    CHECK_STR(end_frames(&client), "GOAWAY 0 1; ");
    CHECK_STR(end_said(&client), "");
    ends_close(&client, &server);

    memset(&client, 0, sizeof(client));
    end_open(&client, false);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    CHECK_STR(end_frames(&client), "SETTINGS; WINDOW_UPDATE 16711681; HEADERS 1 +end; ");
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    client.now_ns += BM_H2_GREETING_NS;
    CHECK_INT(bm_h2_tick(client.h2, client.now_ns), -BEAM_EH2_TIMEOUT);
    CHECK_STR(end_said(&client), "close 1 4; close 3 7; ");
    CHECK_STR(end_frames(&client), "GOAWAY 0 4; ");
    CHECK_STR(end_said(&client), "");
    CHECK_UINT(client.closes, 2);
    end_close(&client);
}

TEST(h2_lost_connection_closes_every_stream_once)
{
    struct bm_h2_stream *streams[3], *other;
    begin();
    for (unsigned i = 0; i < 3; i++)
        REQUIRE_INT(end_request(&client, "GET", "/", NULL, &streams[i]), 0);
    ends_talk(&client, &server);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &other), 0); /* never sent */
    end_said(&server);
    bm_h2_lost(client.h2, BM_H2_CONNECT_ERROR);
    CHECK_STR(end_said(&client), "close 1 10; close 3 10; close 5 10; close 7 7; ");
    CHECK_INT(bm_h2_over(client.h2), -ECONNRESET);
    CHECK_INT(end_receive(&client, "x", 1), -ECONNRESET);
    CHECK_INT(bm_h2_tick(client.h2, client.now_ns), -ECONNRESET);
    CHECK_INT(end_request(&client, "GET", "/", NULL, &other), -ESHUTDOWN);
    CHECK_INT(bm_h2_ping(client.h2, 1), -ECONNRESET);
    bm_h2_lost(client.h2, BM_H2_CONNECT_ERROR);
    CHECK_STR(end_said(&client), "");

    struct bm_h2_stream *held = server.streams[0];
    bm_h2_stream_hold(held);
    bm_h2_lost(server.h2, BM_H2_CANCEL);
    CHECK_STR(end_said(&server), "close 1 8; close 3 8; close 5 8; ");
    CHECK_INT(bm_h2_respond(held, 200, NULL, 0, NULL), -EPIPE);
    CHECK_INT(bm_h2_stream_window(held, BM_H2_WINDOW_SESSION), -EPIPE);
    bm_h2_stream_reset(held, BM_H2_CANCEL);
    bm_h2_stream_resume(held);
    bm_h2_stream_stop(held);
    bm_h2_stream_release(held);
    ends_close(&client, &server);
}

TEST(h2_client_keeps_to_the_streams_that_the_server_allows)
{
    struct raw raw = {.len = 0};
    struct bm_h2_stream *streams[3], *other;
    memset(&client, 0, sizeof(client));
    end_open(&client, false);
    CHECK_UINT(bm_h2_room(client.h2), 100); /* before it is known, as RFC 9113 recommends */
    raw_frame(&raw, F_SETTINGS, 0, 0, "\0\3\0\0\0\3", 6);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    CHECK_UINT(bm_h2_room(client.h2), 3);
    raw_frame(&raw, F_SETTINGS, 0, 0, "\0\3\0\0\4\0", 6); /* more than we keep up with */
    REQUIRE_INT(raw_send(&raw, &client), 0);
    CHECK_UINT(bm_h2_room(client.h2), BM_H2_STREAMS_MAX);
    raw_frame(&raw, F_SETTINGS, 0, 0, "\0\3\0\0\0\3", 6);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    for (unsigned i = 0; i < 3; i++)
        REQUIRE_INT(end_request(&client, "GET", "/", NULL, &streams[i]), 0);
    CHECK_UINT(bm_h2_room(client.h2), 0);
    CHECK_INT(end_request(&client, "GET", "/", NULL, &other), -EAGAIN);
    end_frames(&client);
    raw_u32(&raw, F_RST_STREAM, 3, BM_H2_REFUSED_STREAM);
    REQUIRE_INT(raw_send(&raw, &client), 0);
    CHECK_STR(end_said(&client), "settings; settings; settings; close 3 7; ");
    CHECK_INT(end_request(&client, "GET", "/", NULL, &other), 0);
    end_close(&client);
}

TEST(h2_extended_connect)
{
    struct says silent = {.silent = true};
    struct bm_h2_stream *stream;
    struct bm_h2_request request = {
        .method = STR("CONNECT"),
        .scheme = STR("https"),
        .authority = STR("a.test"),
        .path = STR("/ws"),
        .protocol = STR("websocket"),
    };
    memset(&client, 0, sizeof(client));
    memset(&server, 0, sizeof(server));
    end_open(&client, false);
    end_open(&server, true);
    CHECK(!bm_h2_connect_protocol(client.h2));
    CHECK_INT(bm_h2_request(client.h2, &request, says_read, &silent, &stream), -ENOTSUP);
    ends_talk(&client, &server);
    CHECK(bm_h2_connect_protocol(client.h2));
    REQUIRE_INT(bm_h2_request(client.h2, &request, says_read, &silent, &stream), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&server),
              "settings; request 1 CONNECT https://a.test/ws protocol=websocket; ");
    ends_close(&client, &server);
}

TEST(h2_connection_ends_when_its_streams_are_used_up)
{
    struct bm_h2_stream *stream;
    memset(&client, 0, sizeof(client));
    memset(&server, 0, sizeof(server));
    REQUIRE_INT(end_open_with(&client, (struct bm_h2_options){.streams_total_max = 3}), 0);
    REQUIRE_INT(
        end_open_with(&server, (struct bm_h2_options){.server = true, .streams_total_max = 2}), 0);
    server.answers = true;
    ends_talk(&client, &server);
    end_said(&client);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "response 1 200; end 1; close 1 0; ");
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "goaway 0; response 3 200; end 3; close 3 0; ");
    CHECK_INT(bm_h2_over(client.h2), 1);
    ends_close(&client, &server);

    /* By ids: half of what there is. */
    struct raw raw;
    memset(&server, 0, sizeof(server));
    end_greeted(&server, &raw);
    raw_get(&raw, (1u << 30) + 1);
    REQUIRE_INT(raw_send(&raw, &server), 0);
    CHECK(bm_h2_draining(server.h2));
    CHECK_STR(end_frames(&server), "PING; GOAWAY 2147483647 0; ");
    end_close(&server);

    /* The client's own limit. */
    memset(&client, 0, sizeof(client));
    REQUIRE_INT(end_open_with(&client, (struct bm_h2_options){.streams_total_max = 1}), 0);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    CHECK_INT(end_request(&client, "GET", "/", NULL, &stream), -ESHUTDOWN);
    CHECK(bm_h2_draining(client.h2));
    end_close(&client);
}

TEST(h2_fields_that_may_not_be_sent_are_refused)
{
    static const struct bm_field bad[] = {
        FIELD("", "x"),          FIELD("Upper", "x"),      FIELD("a b", "x"),
        FIELD(":status", "200"), FIELD("connection", "x"), FIELD("transfer-encoding", "chunked"),
        FIELD("te", "gzip"),     FIELD("x", "a\r\nb: c"),  FIELD("x", "a\0b"),
        FIELD("x", " a"),        FIELD("x", "a\t"),        FIELD("x", "\x7f"),
    };
    struct bm_h2_stream *stream;
    struct bm_h2_request request = {
        .method = STR("GET"), .scheme = STR("https"), .authority = STR("a"), .path = STR("/")};
    begin();
    for (unsigned i = 0; i < BM_ARRAY_LEN(bad); i++) {
        test_note("field %u", i);
        request.fields = &bad[i];
        request.fields_count = 1;
        CHECK_INT(bm_h2_request(client.h2, &request, NULL, NULL, &stream), -EINVAL);
    }
    static const struct bm_field good = FIELD("te", "trailers");
    struct bm_field many[BM_H2_FIELDS_MAX + 1];
    for (unsigned i = 0; i < BM_ARRAY_LEN(many); i++)
        many[i] = good;
    request.fields = many;
    request.fields_count = BM_H2_FIELDS_MAX + 1;
    CHECK_INT(bm_h2_request(client.h2, &request, NULL, NULL, &stream), -EINVAL);
    CHECK_UINT(bm_h2_streams(client.h2), 0);
    request.fields_count = BM_H2_FIELDS_MAX;
    CHECK_INT(bm_h2_request(client.h2, &request, NULL, NULL, &stream), 0);
    ends_talk(&client, &server);
    CHECK_UINT(server.requests, 1);
    CHECK_INT(bm_h2_respond(server.last, 200, &bad[0], 1, NULL), -EINVAL);
    CHECK_INT(bm_h2_respond(server.last, 200, &good, 1, NULL), 0);

    static char long_value[BM_H2_FIELDS_LEN_MAX];
    memset(long_value, 'a', sizeof(long_value));
    struct bm_field too_long = {
        .name = "x", .name_len = 1, .value = long_value, .value_len = sizeof(long_value)};
    request.fields = &too_long;
    request.fields_count = 1;
    CHECK_INT(bm_h2_request(client.h2, &request, NULL, NULL, &stream), -EINVAL);
    request.fields_count = 0;

    struct bm_h2_request wrong[] = {request, request, request, request, request, request, request};
    wrong[0].method = STR("");
    wrong[1].method = STR("GE T");
    wrong[2].scheme = STR("1http");
    wrong[3].authority = STR("user@a");
    wrong[4].path = STR("x");
    wrong[5].path = STR("/a b");
    wrong[6].path = STR("/a#b");
    for (unsigned i = 0; i < BM_ARRAY_LEN(wrong); i++) {
        test_note("request %u", i);
        CHECK_INT(bm_h2_request(client.h2, &wrong[i], NULL, NULL, &stream), -EINVAL);
    }
    CHECK_INT(bm_h2_request(server.h2, &request, NULL, NULL, &stream), -EINVAL);
    ends_close(&client, &server);
}

TEST(h2_idle_connection_gives_its_buffer_back)
{
    struct bm_h2_stream *stream;
    begin();
    CHECK(client.account.used < BM_H2_OUTPUT_LEN); /* without streams it is small */
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    REQUIRE_INT(bm_h2_respond(server.last, 200, NULL, 0, NULL), 0);
    ends_talk(&client, &server);
    end_said(&client);
    size_t used = client.account.used;
    uint64_t next_ns = bm_h2_next_ns(client.h2);
    CHECK_UINT(next_ns, client.now_ns + BM_H2_OUTPUT_KEPT_NS);
    CHECK_INT(bm_h2_tick(client.h2, next_ns - 1), 0);
    CHECK_UINT(client.account.used, used);
    CHECK_INT(bm_h2_tick(client.h2, next_ns), 0);
    CHECK(client.account.used + BM_H2_OUTPUT_LEN < used);
    CHECK_UINT(bm_h2_next_ns(client.h2), UINT64_MAX);
    client.now_ns = next_ns;
    REQUIRE_INT(bm_h2_ping(client.h2, 1), 0);
    ends_talk(&client, &server);
    CHECK_STR(end_said(&client), "pong 1 1; ");
    ends_close(&client, &server);
}
