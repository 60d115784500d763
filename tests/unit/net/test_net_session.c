/* Sessions over an exchange: frames however they are cut, HELLO before all else, who is silent, the end in
 * order and every other end, what was surely not sent, and hostile bytes. docs/spec/http.md section 2. */
#include "tests/unit/net/session_rig.h"

#include <fcntl.h>
#include <unistd.h>

#include "runtime/channel.h"

static struct raw_packet packet;

/* An acceptor that has been greeted. */
static void accept_end(struct rig_end *end)
{
    rig_new(end, false, false);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    rig_push(end, packet.bytes, packet.len, packet.len);
    rig_pull(end);
    CHECK_UINT(end->opens, 1);
    end->exchange->out_len = 0;
    raw_clear(&packet);
}

struct answer {
    unsigned count;
    enum beam_code code;
    size_t len;
    uint8_t first;
};

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct answer *answer = arg;
    answer->count++;
    answer->code = status->code;
    if (message) {
        const uint8_t *body = beam_message_body(message, &answer->len);
        answer->first = answer->len > 0 ? body[0] : 0;
    }
}

static void call(struct rig_end *end, const char *service, size_t len, struct answer *answer)
{
    beam_message *message = beam_message_new();
    uint8_t *body = beam_message_reserve_body(message, len);
    REQUIRE(body != NULL);
    memset(body, 'b', len);
    *answer = (struct answer){0};
    REQUIRE_INT(beam_call(end->session, service, &message, on_reply, answer, NULL), 0);
    rig_turn();
}

/* --- frames, however they are cut --- */

static void talk_in_pieces(size_t piece, bool websocket)
{
    static const size_t lens[] = {0, 1, 100, 65000, 65536, 300000};
    struct rig_end client, server;
    rig_begin();
    rig_new(&client, true, websocket);
    client.ns->answered = true; /* what an owner says of a good answer */
    rig_new(&server, false, websocket);
    test_note("pieces of %zu", piece);
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        struct answer there, back;
        call(&client, "echo", lens[i], &there);
        call(&server, "echo", lens[i], &back);
        rig_talk(&client, &server, piece);
        CHECK_UINT(there.count, 1);
        CHECK_INT(there.code, BEAM_OK);
        CHECK_UINT(there.len, lens[i]);
        CHECK_UINT(there.first, lens[i] > 0 ? 'b' : 0);
        CHECK_UINT(back.count, 1);
        CHECK_INT(back.code, BEAM_OK);
        CHECK_UINT(back.len, lens[i]);
    }
    CHECK_UINT(client.opens, 1);
    CHECK_UINT(server.opens, 1);
    beam_session_drain(client.session);
    rig_talk(&client, &server, piece);
    rig_talk(&client, &server, piece);
    CHECK_UINT(client.closes, 1);
    CHECK_UINT(server.closes, 1);
    CHECK_INT(client.code, BEAM_OK);
    CHECK_INT(server.code, BEAM_OK);
    CHECK(client.exchange->closed && server.exchange->closed);
    CHECK(!client.exchange->reset && !server.exchange->reset);
    rig_free(&client);
    rig_free(&server);
    rig_end();
}

TEST(frames_are_whole_again_however_they_were_cut)
{
    static const size_t pieces[] = {1, 7, 15, 16, 17, 4096, 16384, 65536, 1 << 20};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
        talk_in_pieces(pieces[i], false);
}

TEST(a_websocket_carries_the_same_however_it_was_cut)
{
    static const size_t pieces[] = {1, 13, 4096, 65536, 1 << 20};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
        talk_in_pieces(pieces[i], true);
}

TEST(bytes_are_consumed_as_they_come_whatever_the_application_does)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    CHECK_UINT(end.exchange->window, BM_NET_SESSION_WINDOW);
    raw_put_open(&packet, 1, 0, "hold", "x", 1);
    rig_push(&end, packet.bytes, packet.len, 5);
    CHECK_UINT(rig_held, 1);
    CHECK_UINT(end.exchange->consumed, end.exchange->shown);
    rig_free(&end);
    rig_end();
}

/* --- S3 --- */

TEST(nothing_but_hello_leaves_before_the_peers_has_come)
{
    struct rig_end end;
    struct answer answer;
    rig_begin();
    rig_new(&end, true, false);
    call(&end, "echo", 10, &answer);
    int r = beam_session_ping(end.session, NULL, NULL);
    CHECK_INT(r, 0);
    end.session->ping_fn = NULL;
    rig_pull(&end);
    struct rig_frames frames = rig_frames(&end);
    REQUIRE_INT(bm_frame_next(&frames.rest, &frames.frame), 1);
    CHECK_UINT(frames.frame.kind, BM_FRAME_HELLO);
    CHECK_UINT(bm_bytes_left(&frames.rest), 0);

    struct bm_hello hello;
    CHECK_INT(bm_hello_parse(frames.frame.payload, frames.frame.len, &hello), 0);
    CHECK_UINT(hello.ping_s, BM_NET_SESSION_PING_S);
    CHECK(!hello.fds_refused);

    end.exchange->out_len = 0;
    raw_clear(&packet);
    raw_put_hello(&packet, false);
    rig_push(&end, packet.bytes, packet.len, packet.len);
    rig_pull(&end);
    frames = rig_frames(&end);
    CHECK(rig_find(&frames, BM_FRAME_MSG));
    rig_free(&end);
    CHECK_UINT(answer.count, 1);
    CHECK_INT(answer.code, BEAM_UNKNOWN);
    rig_end();
}

TEST(what_waited_for_hello_was_surely_not_sent)
{
    struct rig_end end;
    struct answer answer;
    rig_begin();
    rig_new(&end, true, false);
    call(&end, "echo", 10, &answer);
    rig_pull(&end);
    rig_push_end(&end);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    CHECK_UINT(answer.count, 1);
    CHECK_INT(answer.code, BEAM_UNAVAILABLE);
    rig_free(&end);
    rig_end();
}

/* --- C4 --- */

/* An opener that has been greeted, of whose output `stuck` bytes more are taken. */
static void open_end(struct rig_end *end)
{
    rig_new(end, true, false);
    raw_clear(&packet);
    raw_put_hello(&packet, false);
    rig_push(end, packet.bytes, packet.len, packet.len);
    rig_pull(end);
    CHECK_UINT(end->opens, 1);
    end->exchange->out_len = 0;
    raw_clear(&packet);
}

TEST(what_was_not_given_to_the_network_was_surely_not_run)
{
    struct rig_end end;
    struct answer sent, cut, waits;
    rig_begin();
    open_end(&end);
    call(&end, "hold", 100, &sent);
    rig_pull(&end);
    size_t first = end.exchange->out_len;
    CHECK(first > 100);
    end.exchange->stuck = first + 20; /* a header of the next, and a little */
    call(&end, "hold", 100, &cut);
    call(&end, "hold", 100, &waits);
    rig_pull(&end);
    CHECK_UINT(end.exchange->out_len, first + 20);
    rig_close(&end, -ECONNRESET);
    rig_turn();
    CHECK_UINT(sent.count, 1);
    CHECK_INT(sent.code, BEAM_UNKNOWN);
    CHECK_UINT(cut.count, 1);
    CHECK_INT(cut.code, BEAM_UNAVAILABLE);
    CHECK_UINT(waits.count, 1);
    CHECK_INT(waits.code, BEAM_UNAVAILABLE);
    rig_free(&end);
    rig_end();
}

static struct {
    unsigned count;
    enum beam_code code;
} stream_end;

static void on_stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    (void)stream;
    (void)arg;
    stream_end.count++;
    stream_end.code = status->code;
}

/* Attached channels are opened too, whatever stands for a descriptor beside them. */
TEST(what_was_attached_beside_a_descriptor_and_not_given_was_surely_not_run)
{
    static const struct beam_stream_handlers handlers = {.on_end = on_stream_end};
    struct rig_end end;
    int fds[2];
    rig_begin();
    open_end(&end);
    stream_end.count = 0;
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE_INT(beam_call(end.session, "hold", &message, NULL, NULL, NULL), 0);
    rig_pull(&end);
    end.exchange->stuck = end.exchange->out_len;
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    message = beam_message_new();
    beam_stream *stream = beam_message_attach_stream(message);
    beam_stream_set_handlers(stream, &handlers, NULL);
    beam_message_attach_fd(message, &fds[0]);
    REQUIRE_INT(beam_channel_send(channel, &message), 0);
    rig_pull(&end);
    rig_close(&end, -ECONNRESET);
    rig_turn();
    CHECK_UINT(stream_end.count, 1);
    CHECK_INT(stream_end.code, BEAM_UNAVAILABLE);
    beam_stream_free(stream);
    beam_channel_free(channel);
    close(fds[1]);
    rig_free(&end);
    rig_end();
}

TEST(a_frame_that_has_left_whole_may_have_been_run)
{
    struct rig_end end;
    struct answer sent, waits;
    rig_begin();
    open_end(&end);
    call(&end, "hold", 8, &sent);
    rig_pull(&end);
    call(&end, "hold", 8, &waits);
    beam_session_close(end.session);
    CHECK(end.exchange->reset);
    rig_turn();
    CHECK_INT(sent.code, BEAM_UNKNOWN);
    CHECK_INT(waits.code, BEAM_UNAVAILABLE);
    rig_free(&end);
    rig_end();
}

/* --- the queue is the session's --- */

TEST(frames_wait_in_the_session_when_the_network_takes_none)
{
    struct rig_end end;
    struct answer answers[40];
    rig_begin();
    open_end(&end);
    end.exchange->stuck = 1;
    for (size_t i = 0; i < 40; i++) { /* all in one turn */
        beam_message *message = beam_message_new();
        answers[i] = (struct answer){0};
        REQUIRE(beam_message_reserve_body(message, 10000) != NULL);
        REQUIRE_INT(beam_call(end.session, "hold", &message, on_reply, &answers[i], NULL), 0);
    }
    rig_pull(&end);
    struct beam_session_stats stats;
    beam_session_stats(end.session, &stats);
    CHECK(bm_frame_outbox_len(&end.ns->out) <= BM_NET_SESSION_OUTPUT_MAX + BM_FRAME_LEN_MAX);
    CHECK(stats.queue_len >= 300000 - 65536);
    /* A credit that is due is written as soon as there is room. */
    end.exchange->stuck = 0;
    rig_pull(&end);
    beam_session_stats(end.session, &stats);
    CHECK_UINT(stats.queue_len, 0);
    CHECK(end.exchange->out_len > 400000);
    rig_free(&end);
    rig_end();
}

/* --- S6 --- */

TEST(who_has_said_nothing_for_long_sends_a_ping)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    rig_advance(BM_NET_SESSION_PING_S * BM_NS_PER_S - BM_NS_PER_S);
    rig_pull(&end);
    CHECK_UINT(end.exchange->out_len, 0);
    rig_advance(2 * BM_NS_PER_S);
    rig_pull(&end);
    struct rig_frames frames = rig_frames(&end);
    REQUIRE(rig_find(&frames, BM_FRAME_PING));
    CHECK_UINT(frames.frame.flags, 0);
    rig_free(&end);
    rig_end();
}

TEST(a_ping_that_cannot_leave_is_one)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    end.exchange->out_len = end.exchange->stuck = 1; /* takes nothing */
    rig_advance(BM_NET_SESSION_PING_S * BM_NS_PER_S + BM_NS_PER_MS);
    rig_advance(BM_NS_PER_S);
    CHECK_UINT(bm_frame_outbox_len(&end.ns->out), BM_FRAME_U64_LEN);
    rig_free(&end);
    rig_end();
}

TEST(a_peer_is_spoken_to_as_often_as_it_asked)
{
    struct rig_end end;
    rig_begin();
    rig_new(&end, false, false);
    raw_clear(&packet);
    raw_put_hello_of(&packet, &(struct bm_hello){
                                  .version = 1,
                                  .opener = true,
                                  .window = BM_WINDOW_MIN,
                                  .channels_max = 16,
                                  .message_len_max = 65536,
                                  .fds_refused = true,
                                  .ping_s = 3,
                              });
    rig_push(&end, packet.bytes, packet.len, packet.len);
    rig_pull(&end);
    end.exchange->out_len = 0;
    for (unsigned i = 0; i < 5; i++) {
        rig_advance(3 * BM_NS_PER_S + BM_NS_PER_MS);
        rig_pull(&end);
        CHECK_UINT(end.exchange->out_len, (i + 1) * BM_FRAME_U64_LEN);
    }
    rig_free(&end);
    rig_end();
}

TEST(a_peer_that_is_silent_for_three_times_that_is_gone)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    for (unsigned i = 0; i < 2; i++) {
        rig_advance(55 * BM_NS_PER_S);
        CHECK_UINT(end.closes, 0);
        raw_clear(&packet);
        raw_put_ping(&packet, 7);
        rig_push(&end, packet.bytes, packet.len, packet.len);
    }
    rig_advance(59 * BM_NS_PER_S);
    CHECK_UINT(end.closes, 0);
    rig_advance(2 * BM_NS_PER_S);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    CHECK_STR(end.text, "the peer has fallen silent");
    rig_free(&end);
    rig_end();
}

TEST(a_peer_that_never_says_hello_is_given_up)
{
    struct rig_end end;
    rig_begin();
    rig_new(&end, false, false);
    rig_advance(11 * BM_NS_PER_S);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    CHECK(end.exchange->reset);
    rig_free(&end);
    rig_end();
}

/* --- ends --- */

TEST(an_end_of_the_peers_body_is_no_ok)
{
    struct rig_end end;
    struct answer answer;
    rig_begin();
    open_end(&end);
    call(&end, "hold", 8, &answer);
    rig_pull(&end);
    rig_push_end(&end);
    CHECK_UINT(answer.count, 1);
    CHECK_INT(answer.code, BEAM_UNKNOWN);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    CHECK(end.exchange->ended && end.exchange->closed && !end.exchange->reset);
    rig_free(&end);
    rig_end();
}

TEST(an_end_in_the_midst_of_a_frame_is_an_end)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    raw_put_open(&packet, 1, BM_MSG_END, "echo", "0123456789", 10);
    rig_push(&end, packet.bytes, packet.len - 9, 11);
    rig_push_end(&end);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    CHECK_UINT(end.exchange->out_len, 0);
    CHECK(end.exchange->ended);
    rig_free(&end);
    rig_end();
}

TEST(a_peer_that_does_not_end_its_body_is_waited_for_a_while)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    beam_session_drain(end.session);
    rig_pull(&end);
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_OK);
    CHECK(end.exchange->ended && !end.exchange->closed);
    rig_advance(BM_NET_SESSION_LINGER_NS - BM_NS_PER_MS);
    CHECK(!end.exchange->reset);
    rig_advance(2 * BM_NS_PER_MS);
    CHECK(end.exchange->reset);
    rig_pull(&end);
    CHECK(end.exchange->closed);
    rig_free(&end);
    rig_end();
}

TEST(a_loss_of_the_connection_is_told_with_its_reason)
{
    struct rig_end end;
    rig_begin();
    accept_end(&end);
    rig_close(&end, -EHOSTUNREACH);
    rig_turn();
    CHECK_UINT(end.closes, 1);
    CHECK_INT(end.code, BEAM_UNAVAILABLE);
    CHECK_STR(end.text, beam_strerror(-EHOSTUNREACH));
    rig_free(&end);
    rig_end();
}

/* --- hostile bytes --- */

static void expect_failure(struct rig_end *end, const char *error)
{
    rig_pull(end);
    CHECK_UINT(end->closes, 1);
    CHECK_INT(end->code, BEAM_INTERNAL);
    rig_expect_goaway(end, error);
    CHECK(end->exchange->ended && !end->exchange->reset);
    rig_push_end(end);
    CHECK(end->exchange->closed);
    rig_free(end);
}

TEST(a_session_that_breaks_a_rule_is_told_which_and_ended)
{
    struct rig_end end;
    _Alignas(8) uint8_t frame[BM_FRAME_HEADER_LEN + 8] = {0};
    rig_begin();

    test_note("a frame before HELLO");
    rig_new(&end, false, false);
    raw_clear(&packet);
    raw_put_ping(&packet, 1);
    rig_push(&end, packet.bytes, packet.len, 3);
    expect_failure(&end, "HELLO_MISSING");

    test_note("a frame before HELLO, with the request");
    end = (struct rig_end){0};
    REQUIRE_INT(bm_net_session_new(bm_core_current(), false, &end.ns), 0);
    end.session = bm_session_ref(&end.ns->session);
    end.session->handle = true;
    bm_session_set_handlers(end.session, &rig_session_handlers, &end);
    end.exchange = rig_exchange(&bm_net_session_handlers, end.ns);
    REQUIRE_INT(bm_net_session_attach(end.ns, end.exchange, false), 0);
    rig_push(&end, packet.bytes, packet.len, packet.len);
    expect_failure(&end, "HELLO_MISSING");

    test_note("HELLO twice");
    accept_end(&end);
    raw_put_hello(&packet, true);
    rig_push(&end, packet.bytes, packet.len, 100);
    expect_failure(&end, "HELLO_REPEATED");

    test_note("HELLO of the same role");
    rig_new(&end, false, false);
    raw_clear(&packet);
    raw_put_hello(&packet, false);
    rig_push(&end, packet.bytes, packet.len, packet.len);
    expect_failure(&end, "HELLO_ROLE");

    test_note("a frame longer than allowed");
    accept_end(&end);
    bm_put_u64(frame, 1);
    bm_put_u32(frame + 8, BM_FRAME_LEN_MAX - BM_FRAME_HEADER_LEN + 1);
    frame[12] = BM_FRAME_MSG;
    rig_push(&end, frame, sizeof(frame), 1);
    expect_failure(&end, "FRAME_OVERSIZED");

    test_note("a frame of four gigabytes");
    accept_end(&end);
    bm_put_u32(frame + 8, UINT32_MAX);
    rig_push(&end, frame, sizeof(frame), sizeof(frame));
    expect_failure(&end, "FRAME_OVERSIZED");

    test_note("a frame with descriptors");
    accept_end(&end);
    raw_put_head(&packet, 1, BM_MSG_OPEN, 1,
                 &(struct bm_message_head){.open = true, .name = {"echo", 4}}, NULL);
    rig_push(&end, packet.bytes, packet.len, 9);
    expect_failure(&end, "FRAME_FDS");
    rig_end();
}

static int refuse_answer(struct bm_net_session *ns, unsigned status, const struct bm_field *fields,
                         size_t field_count, void *arg)
{
    return -EPROTO;
}

static bool try_again(struct bm_net_session *ns, int error, void *arg)
{
    return true;
}

/* The owner decides what follows a refusal, however the page about it arrives. */
TEST(what_comes_behind_another_answer_is_no_frame)
{
    static const struct bm_net_session_owner owner = {.on_answer = refuse_answer,
                                                      .on_lost = try_again};
    static const char page[] = "{\"code\":\"UNAUTHENTICATED\",\"message\":\"who are you?\"}";
    struct rig_end end;
    rig_begin();
    rig_new(&end, true, false);
    end.ns->owner = &owner;
    end.exchange->handlers->on_answer(end.exchange, 401, NULL, 0, end.exchange->arg);
    rig_push(&end, page, sizeof(page) - 1, 5);
    CHECK_UINT(end.closes, 0);
    CHECK_UINT(end.exchange->consumed, end.exchange->shown);
    end.ns->owner = NULL;
    rig_free(&end);
    rig_end();
}
