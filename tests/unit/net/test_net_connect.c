/* From a URL to a session: each way, one after the other when they fail, answers that end the search, what is
 * remembered, and everything that can go wrong on the way. docs/spec/http.md sections 2, 5 and 6. */
#include "tests/unit/net/dial_rig.h"

#include "net/known_servers.h"

static const char *scheme(bool tls)
{
    return tls ? "https" : "http";
}

TEST(the_first_way_is_a_request_of_http2)
{
    for (unsigned tls = 0; tls < 2; tls++) {
        rig_begin(tls);
        rig_connect(scheme(tls), NULL);
        rig_expect_session();
        CHECK_UINT(rig.posts, 1);
        CHECK_UINT(rig.requests, 1);
        CHECK_UINT(rig.accepted, 1);
        const struct beam_peer *peer = beam_session_peer(rig.session);
        CHECK_UINT(peer->kind, BEAM_PEER_NET);
        CHECK_STR(peer->identity.ptr, tls ? "dns:localhost" : "");
        CHECK(strncmp(peer->address.ptr, "127.0.0.1:", 10) == 0);
        rig_drain();
        rig_end();
    }
}

TEST(each_way_can_be_asked_for)
{
    for (unsigned tls = 0; tls < 2; tls++)
        for (enum beam_net_way way = BEAM_NET_HTTP2; way <= BEAM_NET_UPGRADE; way++) {
            struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = way, .token = "secret");
            test_note("way %d, TLS %u", (int)way, tls);
            rig_begin(tls);
            rig_connect(scheme(tls), &net);
            rig_expect_session();
            CHECK_UINT(rig.posts, way == BEAM_NET_HTTP2);
            CHECK_UINT(rig.connects, way == BEAM_NET_CONNECT);
            CHECK_UINT(rig.upgrades, way == BEAM_NET_UPGRADE);
            CHECK_STR(rig.authorization, "Bearer secret");
            rig_drain();
            rig_end();
        }
}

TEST(wss_and_ws_begin_with_the_upgrade)
{
    for (unsigned tls = 0; tls < 2; tls++) {
        rig_begin(tls);
        rig_connect(tls ? "wss" : "ws", NULL);
        rig_expect_session();
        CHECK_UINT(rig.upgrades, 1);
        CHECK_UINT(rig.requests, 1);
        rig_drain();
        rig_end();
    }
}

TEST(a_way_that_is_refused_leads_to_the_next)
{
    for (unsigned tls = 0; tls < 2; tls++) {
        rig_begin(tls);
        rig.post_status = 404;
        rig_connect(scheme(tls), NULL);
        rig_expect_session();
        CHECK_UINT(rig.posts, 1);
        CHECK_UINT(rig.connects, 1);
        CHECK_UINT(rig.upgrades, 0);
        CHECK_UINT(rig.accepted, 1); /* on the same connection */
        rig_drain();
        rig_end();

        rig_begin(tls);
        rig.post_status = 404;
        rig.connect_status = 502;
        rig_connect(scheme(tls), NULL);
        rig_expect_session();
        CHECK_UINT(rig.upgrades, 1);
        CHECK_UINT(rig.accepted, 2);
        rig_drain();
        rig_end();
    }
}

TEST(a_way_that_does_not_answer_leads_to_the_next_after_three_seconds)
{
    rig_begin(true);
    rig.post_status = 1;
    rig_connect("https", NULL);
    RIG_UNTIL(rig.posts == 1);
    struct rig_answer answer;
    rig_call(5, &answer);      /* waits, and is not lost */
    rig_skip(2 * BM_NS_PER_S); /* and a second of real time, on a busy machine */
    CHECK_UINT(rig.requests, 1);
    rig_skip(1 * BM_NS_PER_S);
    RIG_UNTIL(rig.opens > 0);
    CHECK_UINT(rig.connects, 1);
    RIG_UNTIL(answer.count > 0);
    CHECK_INT(answer.code, BEAM_OK);
    rig_drain();
    rig_end();
}

TEST(some_answers_end_the_search)
{
    static const struct {
        unsigned status;
        enum beam_code code;
        int error;
    } rows[] = {
        {401, BEAM_UNAUTHENTICATED, -EACCES},
        {403, BEAM_PERMISSION_DENIED, -EACCES},
        {406, BEAM_UNIMPLEMENTED, -EPROTONOSUPPORT},
        {429, BEAM_UNAVAILABLE, -EBUSY},
        {503, BEAM_UNAVAILABLE, -EBUSY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[64];
        test_note("%u", rows[i].status);
        rig_begin(false);
        rig.post_status = rig.connect_status = rig.upgrade_status = rows[i].status;
        rig_connect("http", NULL);
        struct rig_answer answer;
        rig_call(5, &answer);
        RIG_UNTIL(rig.closes > 0);
        CHECK_UINT(rig.requests, 1);
        CHECK_INT(rig.code, rows[i].code);
        CHECK_INT(rig.session->connect_error, rows[i].error);
        snprintf(text, sizeof(text), "the server has answered %u", rows[i].status);
        CHECK_STR(rig.text, text);
        CHECK(strstr(rig.log, text) != NULL);
        CHECK_INT(answer.count, 1);
        CHECK_INT(answer.code, BEAM_UNAVAILABLE);
        rig_end();
    }
}

TEST(a_server_without_beam_is_told_of_as_one)
{
    rig_begin(false);
    rig.post_status = rig.connect_status = rig.upgrade_status = 404;
    rig_connect("http", NULL);
    RIG_UNTIL(rig.closes > 0);
    CHECK_UINT(rig.requests, 3);
    CHECK_INT(rig.code, BEAM_UNAVAILABLE);
    CHECK_INT(rig.session->connect_error, -EPROTO);
    CHECK_STR(rig.text, "the server has answered 404, and not as one of Beam");
    rig_end();
}

/* Each way is tried all the same: some proxies say that of a way which they do not know. */
TEST(a_proxy_that_does_not_reach_its_server_is_told_of_as_one)
{
    static const unsigned statuses[] = {502, 504};
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        char text[64];
        rig_begin(false);
        rig.post_status = rig.connect_status = rig.upgrade_status = statuses[i];
        rig_connect("http", NULL);
        RIG_UNTIL(rig.closes > 0);
        CHECK_UINT(rig.requests, 3);
        CHECK_INT(rig.code, BEAM_UNAVAILABLE);
        CHECK_INT(rig.session->connect_error, -EBUSY);
        snprintf(text, sizeof(text), "the server has answered %u", statuses[i]);
        CHECK_STR(rig.text, text);
        rig_end();
    }
}

TEST(nobody_at_the_address_is_said_at_once)
{
    char url[64];
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = BEAM_NET_ANY);
    rig_begin(false);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* bound, and nobody listens */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    REQUIRE_INT(bind(fd, (struct sockaddr *)&address, len), 0);
    REQUIRE_INT(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", ntohs(address.sin_port));
    REQUIRE_INT(rig_connect_to(url, &net), 0);
    RIG_UNTIL(rig.closes > 0);
    CHECK_INT(rig.session->connect_error, -ECONNREFUSED);
    CHECK_INT(rig.code, BEAM_UNAVAILABLE);
    close(fd);
    rig_end();
}

TEST(a_certificate_that_is_not_the_servers_ends_the_search)
{
    rig_begin(true);
    struct bm_certificate other = rig_certificate(BM_CERTIFICATE_CA, "another CA", NULL);
    struct beam_net_connect net =
        BEAM_NET_CONNECT_OPTIONS(.ca = {.data = other.pem, .len = strlen(other.pem)});
    rig_connect("https", &net);
    RIG_UNTIL(rig.closes > 0);
    CHECK_INT(rig.session->connect_error, -BEAM_ETLS_CERTIFICATE);
    CHECK_UINT(rig.accepted, 1);
    CHECK_UINT(rig.requests, 0);
    CHECK(strstr(rig.log, "certificate") != NULL);
    rig.session = beam_session_free(rig.session);
    RIG_UNTIL(rig.connections == 0);

    test_note("another name");
    struct beam_net_connect named = BEAM_NET_CONNECT_OPTIONS(.server_name = "example.com");
    rig_connect("https", &named);
    RIG_UNTIL(rig.closes > 0);
    CHECK_INT(rig.session->connect_error, -BEAM_ETLS_CERTIFICATE);
    RIG_UNTIL(rig.connections == 0);
    rig_end();
}

TEST(a_server_that_says_nothing_is_given_up_in_time)
{
    rig_begin(false);
    rig.deaf = true;
    rig_connect("http", NULL);
    RIG_UNTIL(rig.accepted > 0);
    for (unsigned i = 0; i < 8 && rig.closes == 0; i++)
        rig_skip(3100 * BM_NS_PER_MS);
    CHECK_UINT(rig.closes, 1);
    CHECK_INT(rig.session->connect_error, -ETIMEDOUT);
    CHECK_STR(rig.text, "the server did not answer in time");
    rig_end();
}

TEST(what_worked_is_remembered_for_ten_minutes)
{
    rig_begin(true);
    rig.post_status = rig.connect_status = 404;
    rig_connect("https", NULL);
    rig_expect_session();
    CHECK_UINT(rig.posts + rig.connects, 2);
    rig_drain();

    rig_connect("https", NULL);
    rig_expect_session();
    CHECK_UINT(rig.posts + rig.connects, 2);
    CHECK_UINT(rig.upgrades, 2);
    rig_drain();

    test_note("it does not work any more");
    rig.upgrade_status = 404;
    rig.post_status = 0;
    rig_connect("https", NULL);
    rig_expect_session();
    CHECK_UINT(rig.upgrades, 3);
    CHECK_UINT(rig.posts, 2);
    rig_drain();

    test_note("and is forgotten");
    rig.upgrade_status = 0;
    rig_connect("https", NULL);
    rig_expect_session();
    CHECK_UINT(rig.posts, 3);
    CHECK_UINT(rig.upgrades, 3);
    rig_drain();
    struct bm_url url;
    char text[64];
    snprintf(text, sizeof(text), "https://localhost:%u", rig.port);
    REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
    CHECK_UINT(bm_known_servers_way(rig.core, &url), BEAM_NET_HTTP2);
    rig_skip(601 * BM_NS_PER_S);
    CHECK_UINT(bm_known_servers_way(rig.core, &url), BEAM_NET_ANY);
    rig_end();
}

TEST(no_more_servers_are_remembered_than_may_be)
{
    struct bm_url url;
    char text[64];
    rig_begin(false);
    for (unsigned i = 0; i < BM_KNOWN_SERVERS_MAX + 10; i++) {
        snprintf(text, sizeof(text), "https://host%u", i);
        REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
        bm_known_servers_learn(rig.core, &url, BEAM_NET_CONNECT);
        bm_known_servers_keep_ticket(rig.core, &url, "ticket", 7);
    }
    unsigned known = 0;
    for (unsigned i = 0; i < BM_KNOWN_SERVERS_MAX + 10; i++) {
        snprintf(text, sizeof(text), "https://host%u", i);
        REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
        known += bm_known_servers_way(rig.core, &url) == BEAM_NET_CONNECT;
    }
    CHECK_UINT(known, BM_KNOWN_SERVERS_MAX);
    size_t len;
    uint8_t *ticket = bm_known_servers_take_ticket(rig.core, &url, &len);
    REQUIRE(ticket != NULL);
    CHECK_MEM(ticket, len, "ticket", 7);
    bm_free(NULL, ticket, len);
    CHECK_PTR(bm_known_servers_take_ticket(rig.core, &url, &len), NULL); /* once */
    rig_end();
}

TEST(tls_is_resumed_with_the_ticket_of_the_last_session)
{
    struct bm_url url;
    char text[64];
    size_t len;
    rig_begin(true);
    snprintf(text, sizeof(text), "https://localhost:%u", rig.port);
    REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
    rig_connect("https", NULL);
    rig_expect_session();
    rig_drain();
    uint8_t *ticket = bm_known_servers_take_ticket(rig.core, &url, &len);
    REQUIRE(ticket != NULL);
    bm_known_servers_keep_ticket(rig.core, &url, ticket, len);
    bm_free(NULL, ticket, len);
    CHECK_UINT(rig.resumed, 0);
    rig_connect("https", NULL);
    rig_expect_session();
    CHECK_UINT(rig.resumed, 1);
    CHECK_STR(beam_session_peer(rig.session)->identity.ptr, "dns:localhost");
    rig_drain();
    rig_end();
}

TEST(options_that_contradict_each_other_are_refused)
{
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = BEAM_NET_HTTP2);
    rig_begin(false);
    CHECK_INT(rig_connect_to("ws://localhost", &net), -EINVAL);
    net = BEAM_NET_CONNECT_OPTIONS(.token = "two\r\nlines");
    CHECK_INT(rig_connect_to("http://localhost", &net), -EINVAL);
    net = BEAM_NET_CONNECT_OPTIONS(.ca = {.path = "/dev/null"});
    CHECK_INT(rig_connect_to("http://localhost", &net), -EINVAL);
    net = BEAM_NET_CONNECT_OPTIONS(.ca = {.path = "/nowhere/ca.pem"});
    CHECK_INT(rig_connect_to("https://localhost", &net), -ENOENT);
    net = BEAM_NET_CONNECT_OPTIONS(.way = BEAM_NET_ANY);
    net.size = 0;
    CHECK_INT(rig_connect_to("http://localhost", &net), -EINVAL);
    rig_end();
}

/* The end of the search at any moment. */
TEST(a_session_can_be_closed_wherever_its_search_is)
{
    for (unsigned tls = 0; tls < 2; tls++)
        for (unsigned turns = 0; turns < 12; turns++) {
            test_note("after %u turns, TLS %u", turns, tls);
            rig_begin(tls);
            rig_connect(scheme(tls), NULL);
            for (unsigned i = 0; i < turns; i++)
                rig_turn(1);
            rig.session = beam_session_free(rig.session);
            RIG_UNTIL(rig.connections == 0);
            rig_end();
        }
    CHECK_UINT(rig.connections, 0);
}

/* Nor need it be closed before the runtime. */
TEST(a_runtime_can_end_wherever_a_search_is)
{
    for (unsigned turns = 0; turns < 12; turns++) {
        test_note("after %u turns", turns);
        rig_begin(true);
        rig_connect("https", NULL);
        for (unsigned i = 0; i < turns; i++)
            rig_turn(1);
        beam_session *session = rig.session;
        rig.session = NULL;
        rig.runtime = beam_runtime_free(rig.runtime);
        beam_session_free(session);
        rig_end();
    }
}
