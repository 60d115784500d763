/* Connections: one behaviour after the other, over each kind of socket and each version of HTTP. */
#include "tests/unit/net/connection_rig.h"

TEST(connection_asks_and_is_answered)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {0};
        rig_open(rig_ways[i]);
        rig.serve = rig_serve_hello;
        REQUIRE_INT(rig_ask(&talk, "GET", "/", false), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_INT(talk.error, 0);
        CHECK_UINT(talk.status, 200);
        CHECK_STR(talk.text, "hello");
        CHECK_UINT(talk.ends, 1);
        CHECK_UINT(talk.answers, 1);
        rig_close();
    }
}

TEST(connection_carries_a_body_both_ways)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 1000000};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_INT(talk.error, 0);
        CHECK_UINT(talk.got, talk.send_len);
        CHECK(!talk.wrong);
        CHECK_UINT(talk.ends, 1);
        CHECK_STR(talk.server, "text/plain");
        RIG_UNTIL(rig_echoes == 0);
        CHECK_INT(rig_echo_error, 0);
        rig_close();
    }
}

TEST(connection_is_used_again)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        rig_open(rig_ways[i]);
        for (unsigned n = 0; n < 20; n++) {
            struct rig_talk talk = {.send_len = n * 100};
            REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
            RIG_UNTIL(talk.closes > 0);
            CHECK_INT(talk.error, 0);
            CHECK_UINT(talk.got, talk.send_len);
            CHECK(!talk.wrong);
        }
        CHECK_UINT(rig.server.requests, 20);
        rig_close();
    }
}

static bool all_closed(const struct rig_talk *talks, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (talks[i].closes == 0)
            return false;
    return true;
}

TEST(connection_carries_eight_bodies_both_ways_at_once)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talks[8] = {0};
        if (!rig_ways[i].http2)
            continue;
        rig_open(rig_ways[i]);
        for (unsigned n = 0; n < 8; n++) {
            talks[n].send_len = 1 << 20;
            REQUIRE_INT(rig_ask(&talks[n], "POST", "/echo", true), 0);
        }
        RIG_UNTIL(all_closed(talks, 8));
        for (unsigned n = 0; n < 8; n++) {
            CHECK_INT(talks[n].error, 0);
            CHECK_UINT(talks[n].got, 1 << 20);
            CHECK(!talks[n].wrong);
        }
        rig_close();
    }
}

static const struct rig_way h1 = {"http/1.1 on a pair", false, false, false};
static const struct rig_way h1_tcp = {"http/1.1 on tcp", false, false, true};
static const struct rig_way h2 = {"http/2 on a pair", true, false, false};
static const struct rig_way h2_tls = {"http/2 on tls", true, true, true};

/* The server's side when the client is a plain socket. */
static void close_raw(int fd)
{
    close(fd);
    RIG_UNTIL(rig.server.closed > 0);
    CHECK_UINT(rig.server.closed, 1);
    rig_close_runtime();
}

TEST(connection_says_continue_to_who_waits_for_it)
{
    int fd = rig_open_raw(h1);
    raw_send(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                 "Content-Length: 5\r\n\r\n");
    raw_expect(fd, "\r\n\r\n");
    CHECK(strncmp(raw_text, "HTTP/1.1 ", 9) == 0);
    raw_send(fd, "quick");
    raw_expect(fd, "quick");
    close_raw(fd);
}

static struct bm_exchange *waiting;
static unsigned waiting_ends;

static void waiting_on_end(struct bm_exchange *exchange, void *arg)
{
    (void)arg;
    waiting_ends++;
    CHECK_INT(bm_exchange_answer(exchange, 200, NULL, 0, "done", 4), 0);
}

static void waiting_on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len,
                            void *arg)
{
    (void)bytes;
    (void)arg;
    bm_exchange_consumed(exchange, len);
}

static int waiting_error;
static unsigned waiting_closes;

static void waiting_on_close(struct bm_exchange *exchange, int error, void *arg)
{
    (void)arg;
    CHECK_PTR(exchange, waiting);
    waiting_error = error;
    waiting_closes++;
    waiting = NULL;
}

/* Answers when the request is whole. */
static void serve_waiting(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    static const struct bm_exchange_handlers handlers = {
        .on_body = waiting_on_body,
        .on_end = waiting_on_end,
        .on_close = waiting_on_close,
    };
    (void)request;
    waiting = exchange;
    waiting_ends = waiting_closes = 0;
    waiting_error = 1;
    bm_exchange_take(exchange, &handlers, NULL);
}

TEST(connection_says_continue_before_the_answer)
{
    int fd = rig_open_raw(h1);
    rig.serve = serve_waiting;
    raw_send(fd, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                 "Content-Length: 5\r\n\r\n");
    raw_expect(fd, "\r\n\r\n");
    CHECK_STR(raw_text, "HTTP/1.1 100 Continue\r\n\r\n");
    raw_send(fd, "quick");
    raw_expect(fd, "done");
    CHECK(strncmp(raw_text, "HTTP/1.1 200 OK\r\n", 17) == 0);
    CHECK_INT(waiting_error, 0);
    close_raw(fd);
}

TEST(connection_answers_requests_in_a_row_in_their_order)
{
    int fd = rig_open_raw(h1);
    char all[4096] = "";
    for (int i = 0; i < 20; i++)
        snprintf(all + strlen(all), sizeof(all) - strlen(all),
                 "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nn%02d", i);
    raw_send(fd, all);
    raw_expect(fd, "n19");
    const char *at = raw_text;
    for (int i = 0; i < 20; i++) {
        char wanted[8];
        snprintf(wanted, sizeof(wanted), "n%02d", i);
        at = strstr(at, wanted);
        REQUIRE(at != NULL);
    }
    CHECK_UINT(rig.server.requests, 20);
    close_raw(fd);
}

TEST(connection_knows_http2_by_bytes_that_come_one_by_one)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    int fd = rig_open_raw(h1_tcp);
    for (size_t i = 0; i < sizeof(preface) - 1; i++) {
        REQUIRE_INT(send(fd, preface + i, 1, MSG_NOSIGNAL), 1);
        rig_turn(0);
        rig_turn(0);
    }
    RIG_UNTIL(bm_connection_version(rig.server.connection) != 0);
    CHECK_UINT(bm_connection_version(rig.server.connection), 2);
    close_raw(fd);
}

TEST(connection_knows_http1_by_what_differs_from_a_preface)
{
    int fd = rig_open_raw(h1_tcp);
    raw_send(fd, "PR");
    rig_turn(0);
    raw_send(fd, "OPFIND / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw_expect(fd, "\r\n\r\n");
    CHECK_UINT(bm_connection_version(rig.server.connection), 1);
    close_raw(fd);
}

TEST(connection_takes_bytes_that_were_read_before)
{
    static const char early[] = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nqu";
    int fds[2];
    rig_open_runtime(h1_tcp);
    rig_sockets(fds);
    const struct bm_connection_options options = {
        .core = rig.core,
        .server = true,
        .early = early,
        .early_len = sizeof(early) - 1,
        .owner = &rig_owner,
        .arg = &rig.server,
    };
    REQUIRE_INT(bm_connection_new(&options, &fds[0], &rig.server.connection), 0);
    raw_expect(fds[1], "qu");
    raw_send(fds[1], "ick");
    raw_expect(fds[1], "ick");
    CHECK(strncmp(bm_connection_address(rig.server.connection), "127.0.0.1:", 10) == 0);
    close_raw(fds[1]);
}

/* ---- another protocol ---- */

static void serve_upgrade(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    const struct bm_field fields[] = {BM_FIELD("upgrade", "websocket")};
    CHECK(request->upgrade);
    rig_echoes++;
    bm_exchange_take(exchange, &rig_echo_handlers, calloc(1, sizeof(struct rig_echo)));
    CHECK_INT(bm_exchange_answer(exchange, 101, fields, 1, NULL, 0), 0);
}

TEST(connection_becomes_another_protocol_and_takes_the_bytes_behind)
{
    int fd = rig_open_raw(h1_tcp);
    rig.serve = serve_upgrade;
    raw_send(fd, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n"
                 "Upgrade: websocket\r\n\r\nbytes behind");
    raw_expect(fd, "bytes behind");
    CHECK(strncmp(raw_text, "HTTP/1.1 101 ", 13) == 0);
    CHECK(strstr(raw_text, "upgrade: websocket\r\n") != NULL);
    raw_send(fd, "and more");
    raw_expect(fd, "and more");
    REQUIRE_INT(shutdown(fd, SHUT_WR), 0);
    raw_expect_end(fd);
    RIG_UNTIL(rig_echoes == 0);
    CHECK_INT(rig_echo_error, 0);
    close_raw(fd);
    CHECK_INT(rig.server.error, 0);
}

TEST(connection_carries_another_protocol_both_ways)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        if (rig_ways[i].http2)
            continue;
        struct rig_talk talk = {.send_len = 3 << 20};
        rig_open(rig_ways[i]);
        rig.serve = serve_upgrade;
        const struct bm_connection_ask ask = {
            .method = rig_str("GET"),
            .authority = rig_str("localhost"),
            .path = rig_str("/ws"),
            .upgrade = "websocket",
        };
        REQUIRE_INT(bm_connection_ask(rig.client.connection, &ask, &rig_talk_handlers, &talk,
                                      &talk.exchange),
                    0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_UINT(talk.status, 101);
        CHECK_INT(talk.error, 0);
        CHECK_UINT(talk.got, talk.send_len);
        CHECK(!talk.wrong);
        CHECK_UINT(talk.ends, 1);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        CHECK_INT(rig.client.error, 0);
        CHECK_INT(rig.server.error, 0);
        rig_close_runtime();
    }
}

#define POUR_LEN 300000u

static struct {
    size_t left;
    unsigned closes;
} pour;

static ssize_t pour_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                         void *arg)
{
    size_t n = pour.left < len ? pour.left : len;
    (void)exchange;
    (void)arg;
    memset(buf, 'p', n);
    pour.left -= n;
    *ret_end = pour.left == 0;
    return (ssize_t)n;
}

static void pour_on_close(struct bm_exchange *exchange, int error, void *arg)
{
    (void)exchange;
    (void)arg;
    pour.closes++;
    CHECK_INT(error, 0);
}

static const struct bm_exchange_handlers pour_handlers = {
    .read = pour_read,
    .on_close = pour_on_close,
};

static void serve_pour(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    const struct bm_field fields[] = {BM_FIELD("upgrade", "websocket")};
    CHECK(request->upgrade);
    bm_exchange_take(exchange, &pour_handlers, NULL);
    CHECK_INT(bm_exchange_answer(exchange, 101, fields, 1, NULL, 0), 0);
}

/* Nobody says a word meanwhile: what is sent has to bring what comes next, and the end, by itself, and not
 * the next timer (BM_LINK_TRIM_NS). */
TEST(connection_says_all_of_another_protocol_to_a_peer_that_is_silent)
{
    int fd = rig_open_raw(h1_tcp);
    static char bytes[65536];
    size_t got = 0;
    ssize_t n = -1;
    pour.left = POUR_LEN;
    pour.closes = 0;
    rig.serve = serve_pour;
    raw_send(fd, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n"
                 "Upgrade: websocket\r\n\r\n");
    unsigned idle = 0; /* times in a row that nothing was there for either end */
    while (n != 0 && idle < 20) {
        struct pollfd ends[] = {{.fd = beam_runtime_fd(rig.runtime), .events = POLLIN},
                                {.fd = fd, .events = POLLIN}};
        idle = poll(ends, 2, 100) > 0 ? 0 : idle + 1;
        if (ends[0].revents)
            REQUIRE_INT(beam_runtime_turn(rig.runtime), 0);
        n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++)
            got += bytes[i] == 'p' ? 1 : 0;
    }
    CHECK_INT(n, 0);
    CHECK(got >= POUR_LEN && got < POUR_LEN + 8); /* the head has some, too */
    close_raw(fd);
    CHECK_UINT(pour.closes, 1);
}

/* ---- resets ---- */

TEST(connection_client_resets_an_exchange)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 100, .endless = true};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        RIG_UNTIL(talk.got == 100);
        bm_exchange_reset(talk.exchange);
        CHECK_UINT(talk.closes, 0);
        RIG_UNTIL(talk.closes > 0 && rig_echoes == 0);
        CHECK_INT(talk.error, -ECANCELED);
        CHECK_UINT(talk.ends, 0);
        CHECK(rig_echo_error < 0);
        if (rig_ways[i].http2) {
            CHECK_INT(rig_echo_error, -ECANCELED);
            rig_close();
            continue;
        }
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        CHECK_INT(rig.client.error, -ECANCELED);
        CHECK(rig.server.error < 0);
        rig_close_runtime();
    }
}

static void serve_reset(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    rig_serve_echo(exchange, request);
    bm_exchange_reset(exchange);
    CHECK_UINT(rig_echoes, 1); /* not from inside */
}

TEST(connection_server_resets_an_exchange)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 100};
        rig_open(rig_ways[i]);
        rig.serve = serve_reset;
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        RIG_UNTIL(talk.closes > 0 && rig_echoes == 0);
        CHECK_INT(rig_echo_error, -ECANCELED);
        CHECK(talk.error < 0);
        CHECK_UINT(talk.ends, 0);
        if (rig_ways[i].http2) {
            CHECK_INT(talk.error, -ECANCELED);
            rig_close();
            continue;
        }
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        rig_close_runtime();
    }
}

/* ---- draining, closing, stopping ---- */

TEST(connection_drains_when_what_runs_has_ended)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 100, .endless = true}, late = {0};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        RIG_UNTIL(talk.got == 100);
        bm_connection_drain(rig.server.connection);
        if (rig_ways[i].http2)
            RIG_UNTIL(rig.client.draining > 0);
        else
            rig_turn(0);
        CHECK_UINT(talk.closes, 0);
        talk.endless = false;
        bm_exchange_resume(talk.exchange);
        RIG_UNTIL(talk.closes > 0);
        CHECK_INT(talk.error, 0);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        CHECK_INT(rig.client.error, 0);
        CHECK_INT(rig.server.error, 0);
        (void)late;
        rig_close_runtime();
    }
}

TEST(connection_that_drains_takes_no_more)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 10, .endless = true}, late = {0};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        bm_connection_drain(rig.client.connection);
        CHECK_INT(rig_ask(&late, "GET", "/", false), -ESHUTDOWN);
        RIG_UNTIL(talk.got == 10);
        talk.endless = false;
        bm_exchange_resume(talk.exchange);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        CHECK_INT(talk.error, 0);
        CHECK_INT(rig.client.error, 0);
        CHECK_INT(rig.server.error, 0);
        rig_close_runtime();
    }
}

TEST(connection_closes_with_exchanges_under_way)
{
    for (size_t i = 0; i < RIG_WAYS; i++)
        for (int who = 0; who < 2; who++) {
            struct rig_talk talk = {.send_len = 100, .endless = true};
            rig_open(rig_ways[i]);
            REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
            RIG_UNTIL(talk.got == 100);
            bm_connection_close(who ? rig.server.connection : rig.client.connection);
            CHECK_UINT(rig.client.closed + rig.server.closed + talk.closes, 0);
            RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
            CHECK_UINT(talk.closes, 1);
            CHECK(talk.error < 0);
            CHECK(rig_echo_error < 0);
            CHECK_INT(who ? rig.server.error : rig.client.error, 0);
            rig_close_runtime();
        }
}

TEST(connection_ends_with_the_runtime)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 100, .endless = true};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        RIG_UNTIL(talk.got == 100);
        rig_close_runtime();
        CHECK_UINT(rig.client.closed, 1);
        CHECK_UINT(rig.server.closed, 1);
        CHECK_UINT(talk.closes, 1);
        CHECK(talk.error < 0);
    }
}

static ssize_t fragment_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                             void *arg)
{
    unsigned *given = arg;
    (void)exchange;
    (void)ret_end;
    CHECK_UINT(waiting_closes, 0);
    CHECK(len >= 8);
    memcpy(buf, "fragment", 8);
    return (*given)++ == 0 ? 8 : 0;
}

static unsigned fragments;

static void serve_fragment(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    static const struct bm_exchange_handlers handlers = {
        .read = fragment_read,
        .on_close = waiting_on_close,
    };
    (void)request;
    waiting = exchange;
    fragments = waiting_closes = 0;
    bm_exchange_take(exchange, &handlers, &fragments);
    CHECK_INT(bm_exchange_answer(exchange, 200, NULL, 0, NULL, -1), 0);
}

/* A body to HTTP/1.0 ends with its connection: one that is cut off must not look whole. */
TEST(connection_that_ends_with_the_runtime_shows_a_broken_answer_as_broken)
{
    int fd = rig_open_raw(h1_tcp);
    rig.serve = serve_fragment;
    raw_send(fd, "GET / HTTP/1.0\r\n\r\n");
    raw_expect(fd, "fragment");
    rig_turn(0); /* and its send has ended */
    /* What it has to say now comes too late: nobody asks an exchange that is gone. */
    bm_exchange_resume(waiting);
    struct bm_dependent *dependent = &rig.server.connection->dependent;
    dependent->calls->end(dependent);
    RIG_UNTIL(rig.server.closed > 0);
    CHECK_UINT(waiting_closes, 1);
    CHECK_INT(recv(fd, raw_text, sizeof(raw_text), MSG_DONTWAIT), -1);
    CHECK_INT(errno, ECONNRESET);
    close_raw(fd);
}

TEST(connection_without_exchanges_ends_with_the_runtime_at_once)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        rig_open(rig_ways[i]);
        rig.runtime->options.stop_timeout_ns = 3600 * BM_NS_PER_S;
        rig_close_runtime();
        CHECK_UINT(rig.client.closed, 1);
        CHECK_UINT(rig.server.closed, 1);
        CHECK_INT(rig.client.error, 0);
        CHECK_INT(rig.server.error, 0);
    }
}

/* ---- peers that do not do what they should ---- */

TEST(connection_waits_for_a_handshake_only_so_long)
{
    int fd = rig_open_raw(h2_tls);
    rig_turn(0);
    rig_pass(BM_LINK_HANDSHAKE_NS - BM_NS_PER_S);
    CHECK_UINT(rig.server.closed, 0);
    rig_pass(2 * BM_NS_PER_S);
    raw_text_len = 0;
    raw_expect_end(fd);
    CHECK(raw_text_len > 0); /* an alert */
    close_raw(fd);
    CHECK_INT(rig.server.error, -ETIMEDOUT);
    CHECK(rig.server.why[0] != '\0');
}

TEST(connection_waits_for_the_first_bytes_only_so_long)
{
    int fd = rig_open_raw(h1_tcp);
    rig_turn(0);
    raw_send(fd, "PRI");
    rig_turn(0);
    rig_pass(4 * BM_NS_PER_S);
    CHECK_UINT(rig.server.closed, 0);
    rig_pass(2 * BM_NS_PER_S);
    raw_expect_end(fd);
    close_raw(fd);
    CHECK_INT(rig.server.error, -ETIMEDOUT);
}

TEST(connection_of_a_server_that_is_idle_is_closed)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {0};
        rig_open(rig_ways[i]);
        rig.serve = rig_serve_hello;
        REQUIRE_INT(rig_ask(&talk, "GET", "/", false), 0);
        RIG_UNTIL(talk.closes > 0);
        rig_turn(0);
        rig_pass(290 * BM_NS_PER_S);
        rig_turn(0);
        CHECK_UINT(rig.server.closed, 0);
        rig_pass(20 * BM_NS_PER_S);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        CHECK_INT(rig.client.error, 0);
        rig_close_runtime();
    }
}

TEST(connection_whose_peer_vanishes_tells_everybody)
{
    struct linger at_once = {.l_onoff = 1};
    int fd = rig_open_raw(h1_tcp);
    rig.serve = serve_waiting;
    raw_send(fd, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nqu");
    RIG_UNTIL(waiting != NULL);
    REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close_raw(fd);
    CHECK_UINT(waiting_closes, 1);
    CHECK_INT(waiting_error, -ECONNRESET);
    CHECK_INT(rig.server.error, -ECONNRESET);
    CHECK_UINT(waiting_ends, 0);
}

/* Of a session of HTTP/2 too, which must not take it for an end. */
TEST(connection_that_is_cut_within_a_body_is_lost)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 100, .endless = true};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        RIG_UNTIL(talk.got == 100);
        REQUIRE_INT(shutdown(rig.client_fd, SHUT_WR), 0); /* behind its back */
        RIG_UNTIL(rig_echoes == 0);
        CHECK_INT(rig_echo_error, rig_ways[i].tls     ? -BEAM_ETLS_CUT
                                  : rig_ways[i].http2 ? -ECONNRESET
                                                      : -BEAM_EHTTP_CUT);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        CHECK(talk.error < 0);
        CHECK_UINT(talk.ends, 0);
        rig_close_runtime();
    }
}

static ssize_t flood_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                          void *arg)
{
    (void)exchange;
    (void)ret_end;
    (void)arg;
    memset(buf, 'x', len);
    return (ssize_t)len;
}

static void serve_flood(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    static const struct bm_exchange_handlers handlers = {
        .read = flood_read,
        .on_close = waiting_on_close,
    };
    (void)request;
    waiting = exchange;
    waiting_closes = 0;
    bm_exchange_take(exchange, &handlers, NULL);
    CHECK_INT(bm_exchange_answer(exchange, 200, NULL, 0, NULL, -1), 0);
}

static void turn_until_nothing_moves(void)
{
    uint64_t before = 0, now;
    for (int still = 0; still < 10; before = now) {
        rig_turn(10);
        now = bm_reactor_stats(rig.core->reactor)->sqes;
        still = now == before ? still + 1 : 0;
    }
}

TEST(connection_whose_peer_reads_nothing_is_given_up)
{
    int fd = rig_open_raw(h1_tcp);
    rig.serve = serve_flood;
    raw_send(fd, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    RIG_UNTIL(waiting != NULL);
    turn_until_nothing_moves();
    CHECK(bm_connection_account(rig.server.connection)->used < 200000);
    rig_pass(25 * BM_NS_PER_S);
    CHECK_UINT(rig.server.closed, 0);
    rig_pass(10 * BM_NS_PER_S);
    RIG_UNTIL(rig.server.closed > 0);
    CHECK_INT(rig.server.error, -ETIMEDOUT);
    CHECK_UINT(waiting_closes, 1);
    CHECK_INT(waiting_error, -ETIMEDOUT);
    close_raw(fd);
}

TEST(connection_resets_a_stream_that_the_peer_does_not_read)
{
    struct rig_talk talk = {.stop_reading = true}, other = {0};
    rig_open(h2);
    rig.serve = serve_flood;
    REQUIRE_INT(rig_ask(&talk, "GET", "/", false), 0);
    RIG_UNTIL(talk.got == BM_H2_WINDOW);
    for (int i = 0; i < 10; i++)
        rig_pass(4 * BM_NS_PER_S);
    RIG_UNTIL(talk.closes > 0);
    CHECK_INT(talk.error, -ECANCELED);
    CHECK_INT(waiting_error, -ECANCELED);
    rig.serve = rig_serve_hello;
    REQUIRE_INT(rig_ask(&other, "GET", "/", false), 0);
    RIG_UNTIL(other.closes > 0);
    CHECK_STR(other.text, "hello");
    rig_close();
}

TEST(connection_refuses_what_is_no_http_and_the_peer_gets_to_know)
{
    static char junk[300000];
    int fd = rig_open_raw(h1_tcp);
    raw_send(fd, "NO HTTP\r\n\r\n");
    memset(junk, 'j', sizeof(junk));
    (void)send(fd, junk, sizeof(junk), MSG_NOSIGNAL | MSG_DONTWAIT);
    for (int i = 0; i < 10; i++) {
        rig_turn(1);
        ssize_t n = send(fd, junk, sizeof(junk), MSG_NOSIGNAL | MSG_DONTWAIT);
        CHECK(n > 0 || errno == EAGAIN); /* it is dropped, and not answered with a reset */
    }
    raw_text_len = 0;
    raw_expect_end(fd);
    CHECK(strncmp(raw_text, "HTTP/1.1 400 ", 13) == 0);
    close_raw(fd);
    CHECK_INT(rig.server.error, -BEAM_EHTTP_SYNTAX);
    CHECK_UINT(rig.server.requests, 0);
}

TEST(connection_refuses_what_is_no_http2)
{
    int fd = rig_open_raw(h1_tcp);
    raw_send(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    raw_text_len = 0;
    raw_expect_end(fd);
    CHECK(raw_text_len > 9); /* SETTINGS, GOAWAY */
    close_raw(fd);
    CHECK(rig.server.error < 0);
}

TEST(connection_of_a_client_proves_the_server)
{
    int fds[2];
    rig_open_runtime(h2_tls);
    rig_sockets(fds);
    rig_accept(fds[0]);
    const struct bm_tls_start start = {.size = sizeof(start), .host = "example.com", .port = 443};
    const struct bm_connection_options options = {
        .core = rig.core,
        .tls = rig.client_tls,
        .tls_start = &start,
        .owner = &rig_owner,
        .arg = &rig.client,
    };
    REQUIRE_INT(bm_connection_new(&options, &fds[1], &rig.client.connection), 0);
    RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
    CHECK_UINT(rig.client.opened, 0);
    CHECK_INT(rig.client.error, -BEAM_ETLS_CERTIFICATE);
    CHECK(strstr(rig.client.why, "issued for localhost, not example.com") != NULL);
    CHECK_INT(rig.server.error, -BEAM_ETLS_ALERT);
    rig_close_runtime();
}

/* ---- who takes, holds, and does things inside of callbacks ---- */

static void serve_nobody(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    (void)exchange;
    (void)request;
}

TEST(connection_answers_500_where_nobody_does)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 10};
        rig_open(rig_ways[i]);
        rig.serve = serve_nobody;
        REQUIRE_INT(rig_ask(&talk, "POST", "/", true), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_UINT(talk.status, 500);
        CHECK_UINT(talk.ends, 1);
        rig_close();
    }
}

TEST(exchange_that_is_held_outlives_its_connection)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 10};
        rig_open(rig_ways[i]);
        rig.serve = serve_waiting;
        talk.endless = true;
        REQUIRE_INT(rig_ask(&talk, "POST", "/", true), 0);
        waiting = NULL;
        RIG_UNTIL(waiting != NULL);
        struct bm_exchange *held = waiting;
        bm_exchange_hold(held);
        bm_connection_close(rig.client.connection);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        CHECK_UINT(waiting_closes, 1);
        CHECK(bm_exchange_closed(held));
        CHECK_PTR(bm_exchange_connection(held), NULL);
        CHECK_INT(bm_exchange_answer(held, 200, NULL, 0, NULL, 0), -EPIPE);
        bm_exchange_resume(held);
        bm_exchange_reset(held);
        bm_exchange_release(held);
        rig_close_runtime();
    }
}

TEST(exchange_that_is_held_keeps_its_place)
{
    struct rig_talk talks[BM_H2_STREAMS_MAX + 1];
    struct bm_exchange *held[BM_H2_STREAMS_MAX];
    rig_open(h2);
    rig.serve = serve_waiting;
    memset(talks, 0, sizeof(talks));
    for (unsigned i = 0; i < BM_H2_STREAMS_MAX; i++) {
        talks[i].endless = true;
        waiting = NULL;
        REQUIRE_INT(rig_ask(&talks[i], "POST", "/", true), 0);
        RIG_UNTIL(waiting != NULL);
        held[i] = waiting;
        bm_exchange_hold(held[i]);
        bm_exchange_reset(talks[i].exchange);
        RIG_UNTIL(waiting_closes > 0);
        rig_pass(BM_NS_PER_S / 5); /* not too often */
    }
    struct rig_talk *last = &talks[BM_H2_STREAMS_MAX];
    REQUIRE_INT(rig_ask(last, "GET", "/", false), 0);
    RIG_UNTIL(last->closes > 0);
    CHECK_INT(last->error, -ECONNREFUSED);
    for (unsigned i = 0; i < BM_H2_STREAMS_MAX; i++)
        bm_exchange_release(held[i]);
    rig_close();
}

enum place { IN_REQUEST, IN_BODY, IN_END, IN_READ, IN_CLOSE, PLACES };
static enum place place;
static bool place_resets;

static void end_here(struct bm_exchange *exchange, enum place here)
{
    if (here != place)
        return;
    if (place_resets)
        bm_exchange_reset(exchange);
    else
        bm_connection_close(rig.server.connection);
}

static void place_on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    echo_on_body(exchange, bytes, len, arg);
    end_here(exchange, IN_BODY);
}

static void place_on_end(struct bm_exchange *exchange, void *arg)
{
    echo_on_end(exchange, arg);
    end_here(exchange, IN_END);
}

static ssize_t place_read(struct bm_exchange *exchange, uint8_t *buf, size_t len, bool *ret_end,
                          void *arg)
{
    end_here(exchange, IN_READ);
    return echo_read(exchange, buf, len, ret_end, arg);
}

static void place_on_close(struct bm_exchange *exchange, int error, void *arg)
{
    end_here(exchange, IN_CLOSE);
    echo_on_close(exchange, error, arg);
}

static void serve_place(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    static const struct bm_exchange_handlers handlers = {
        .on_body = place_on_body,
        .on_end = place_on_end,
        .read = place_read,
        .on_close = place_on_close,
    };
    (void)request;
    rig_echoes++;
    bm_exchange_take(exchange, &handlers, calloc(1, sizeof(struct rig_echo)));
    CHECK_INT(bm_exchange_answer(exchange, 200, NULL, 0, NULL, -1), 0);
    end_here(exchange, IN_REQUEST);
}

TEST(connection_may_be_closed_inside_every_callback)
{
    for (size_t i = 0; i < RIG_WAYS; i++)
        for (place = 0; place < PLACES; place++)
            for (int resets = 0; resets < 2; resets++) {
                struct rig_talk talk = {.send_len = 100000};
                place_resets = resets;
                rig_open(rig_ways[i]);
                test_note("%s, place %d, %s", rig_ways[i].name, (int)place,
                          resets ? "reset" : "close");
                rig.serve = serve_place;
                REQUIRE_INT(rig_ask(&talk, "POST", "/", true), 0);
                RIG_UNTIL(talk.closes > 0 && rig_echoes == 0);
                if (rig.client.connection)
                    bm_connection_close(rig.client.connection);
                RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
                CHECK_UINT(rig.server.closed, 1);
                rig_close_runtime();
            }
}

/* ---- bounds ---- */

static void hoard_on_body(struct bm_exchange *exchange, const uint8_t *bytes, size_t len, void *arg)
{
    (void)exchange;
    (void)bytes;
    *(size_t *)arg += len;
}

static size_t hoarded;

/* Consumes nothing. */
static void serve_hoard(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    static const struct bm_exchange_handlers handlers = {.on_body = hoard_on_body};
    (void)request;
    hoarded = 0;
    waiting = exchange;
    bm_exchange_take(exchange, &handlers, &hoarded);
}

TEST(connection_whose_bodies_are_not_consumed_lets_the_peer_wait)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 64 << 20};
        rig_open(rig_ways[i]);
        rig.serve = serve_hoard;
        REQUIRE_INT(rig_ask(&talk, "POST", "/", true), 0);
        turn_until_nothing_moves();
        CHECK(hoarded >= BM_CONNECTION_UNCONSUMED_MAX);
        CHECK(hoarded <= BM_H2_WINDOW);
        CHECK(talk.sent < 32 << 20); /* the rest is the sockets' */
        CHECK(bm_connection_account(rig.server.connection)->used < 300000);
        size_t before = hoarded;
        bm_exchange_consumed(waiting, before);
        RIG_UNTIL(hoarded > before);
        bm_connection_close(rig.client.connection);
        bm_connection_close(rig.server.connection); /* it has no room to learn of that */
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        rig_close_runtime();
    }
}

TEST(connection_that_is_idle_costs_little)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 300000};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/", true), 0);
        RIG_UNTIL(talk.closes > 0 && rig_echoes == 0);
        rig_turn(0);
        for (int n = 0; n < 4; n++)
            rig_pass(3 * BM_NS_PER_S);
        size_t used = bm_connection_account(rig.server.connection)->used;
        test_note("%s: %zu bytes", rig_ways[i].name, used);
        CHECK(used > 0);
        /* nghttp2 keeps a frame of 16 KiB and its tables */
        CHECK(used <= (rig_ways[i].tls ? 80u << 10 : rig_ways[i].http2 ? 36u << 10 : 12u << 10));
        rig_close();
    }
}

/* The output of an engine stands in blocks, and what lies in the next one is not forgotten (rig_turn). */
TEST(connection_forgets_no_answer_among_many)
{
    enum { REQUESTS = 200 };
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static char requests[REQUESTS * (sizeof(request) - 1) + 1];
    int fd = rig_open_raw(h1_tcp);
    rig.serve = rig_serve_hello;
    for (int i = 0; i < REQUESTS; i++)
        memcpy(requests + (size_t)i * (sizeof(request) - 1), request, sizeof(request));
    raw_send(fd, requests);
    RIG_UNTIL(rig.server.requests == REQUESTS);
    unsigned answers = 0;
    raw_text_len = 0;
    for (unsigned n = 0; n < 2000 && answers < REQUESTS; n++) {
        rig_turn(10);
        (void)raw_receive(fd);
        answers = 0;
        for (const char *at = raw_text; (at = strstr(at, "hello")); at++)
            answers++;
    }
    CHECK_UINT(answers, REQUESTS);
    CHECK(raw_text_len > 2 * 4096);
    close_raw(fd);
}

TEST(connection_answers_of_one_turn_leave_together)
{
    struct rig_talk talks[50];
    rig_open(h2_tls);
    rig.serve = rig_serve_hello;
    memset(talks, 0, sizeof(talks));
    rig_turn(10);
    rig_turn(10);
    uint64_t sqes = bm_reactor_stats(rig.core->reactor)->sqes;
    for (unsigned i = 0; i < 50; i++)
        REQUIRE_INT(rig_ask(&talks[i], "GET", "/", false), 0);
    RIG_UNTIL(all_closed(talks, 50));
    for (unsigned i = 0; i < 50; i++)
        CHECK_UINT(talks[i].ends, 1);
    sqes = bm_reactor_stats(rig.core->reactor)->sqes - sqes;
    CHECK(sqes >= 2);
    CHECK(sqes <= 4); /* one send each, and what timers need */
    rig_close();
}
