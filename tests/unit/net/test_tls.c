/* TLS (net/proto/tls.h): both roles against each other in memory, and peers that do it wrong. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/unit/net/tls_rig.h"

TEST(tls_carries_bytes_both_ways)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    REQUIRE(rig_is_open(&rig));
    CHECK_STR(bm_tls_why(rig.at_client), "");

    struct bm_tls_facts facts;
    bm_tls_facts(rig.at_client, &facts);
    CHECK_STR(facts.version, "TLSv1.3");
    CHECK_STR(facts.alpn, "h2");
    CHECK_STR(facts.group, "X25519");
    bm_tls_facts(rig.at_server, &facts);
    CHECK_STR(facts.server_name, "localhost");
    CHECK_STR(facts.alpn, "h2");
    CHECK(!facts.resumed);

    rig_write(&rig, rig.at_client, "question", 8);
    rig_write(&rig, rig.at_server, "answer", 6);
    CHECK_MEM(rig.server_got, rig.server_got_len, "question", 8);
    CHECK_MEM(rig.client_got, rig.client_got_len, "answer", 6);
    rig_deinit(&rig);
}

TEST(tls_delivered_byte_by_byte_is_the_same)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    rig.piece = 1;
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    REQUIRE(rig_is_open(&rig));
    rig_write(&rig, rig.at_client, "in small pieces", 15);
    CHECK_MEM(rig.server_got, rig.server_got_len, "in small pieces", 15);
    rig_deinit(&rig);
}

TEST(tls_write_takes_what_the_output_has_room_for)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    REQUIRE(rig_is_open(&rig));
    char *data = (char *)malloc(200000);
    REQUIRE(data != NULL);
    for (size_t i = 0; i < 200000; i++)
        data[i] = (char)(i * 7 + i / 251);

    size_t taken = 0, len = 0, more = 0;
    CHECK_INT(bm_tls_write(rig.at_client, data, 200000, &taken), 0);
    CHECK(taken > BM_TLS_OUTPUT_MAX - 3000 && taken < BM_TLS_OUTPUT_MAX);
    const uint8_t *output = bm_tls_output(rig.at_client, &len);
    CHECK(len <= BM_TLS_OUTPUT_MAX);
    CHECK_INT(bm_tls_write(rig.at_client, data + taken, 200000 - taken, &more), 0);
    CHECK_UINT(more, 0);

    /* What is being sent stays where it is while more is encrypted. */
    uint8_t *copy = (uint8_t *)malloc(len);
    REQUIRE(copy != NULL);
    memcpy(copy, output, len);
    bm_tls_output_ack(rig.at_client, 40000);
    CHECK_INT(bm_tls_write(rig.at_client, data + taken, 200000 - taken, &more), 0);
    CHECK(more > 0);
    CHECK_MEM(output + 40000, len - 40000, copy + 40000, len - 40000);
    rig_give(&rig, rig.at_server, copy, len);
    bm_tls_output_ack(rig.at_client, len - 40000);
    rig_run(&rig);
    CHECK_MEM(rig.server_got, rig.server_got_len, data,
              taken + more < sizeof(rig.server_got) ? taken + more : sizeof(rig.server_got));
    free(copy);
    free(data);
    rig_deinit(&rig);
}

TEST(tls_received_bytes_wait_until_they_are_read)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    REQUIRE(rig_is_open(&rig));
    size_t taken, len, n;
    char piece[4];
    REQUIRE_INT(bm_tls_write(rig.at_client, "12345678", 8, &taken), 0);
    const uint8_t *bytes = bm_tls_output(rig.at_client, &len);
    CHECK_INT(bm_tls_receive(rig.at_server, bytes, len, rig.now_ns), 0);
    CHECK_INT(bm_tls_receive(rig.at_server, bytes, len, rig.now_ns), -EBUSY);
    CHECK_INT(bm_tls_read(rig.at_server, piece, 4, &n), 0);
    CHECK_MEM(piece, n, "1234", 4);
    CHECK_INT(bm_tls_read(rig.at_server, piece, 4, &n), 0);
    CHECK_MEM(piece, n, "5678", 4);
    CHECK_INT(bm_tls_read(rig.at_server, piece, 4, &n), BM_TLS_MORE);
    rig_deinit(&rig);
}

/* ---- Ends. */

TEST(tls_end_is_told_from_a_cut)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    REQUIRE(rig_is_open(&rig));
    size_t taken;
    rig_write(&rig, rig.at_client, "last words", 10);
    CHECK_INT(bm_tls_close(rig.at_client), 0);
    CHECK_INT(bm_tls_write(rig.at_client, "more", 4, &taken), -EPIPE);
    rig_run(&rig);
    CHECK_INT(rig.server_result, BM_TLS_END);
    CHECK_INT(bm_tls_cut(rig.at_server), 0);
    /* The other direction is still there. */
    rig_write(&rig, rig.at_server, "farewell", 8);
    CHECK_MEM(rig.client_got, rig.client_got_len, "farewell", 8);
    CHECK_INT(bm_tls_cut(rig.at_client), -BEAM_ETLS_CUT);
    CHECK(strstr(bm_tls_why(rig.at_client), "middle of the conversation"));
    CHECK_INT(bm_tls_read(rig.at_client, rig.client_got, 1, &taken), -BEAM_ETLS_CUT);
    rig_deinit(&rig);
}

TEST(tls_handshake_that_is_cut_says_so)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    size_t taken;
    CHECK_INT(bm_tls_write(rig.at_client, "early", 5, &taken), -EAGAIN);
    CHECK_INT(bm_tls_cut(rig.at_client), -BEAM_ETLS_CUT);
    CHECK(strstr(bm_tls_why(rig.at_client), "middle of the handshake"));
    rig_deinit(&rig);
}

/* ---- Whom to believe. */

static void refused(struct rig *rig, const char *host, const char *client_why,
                    const char *server_why)
{
    test_note("for %s", host);
    REQUIRE_INT(rig_begin(rig, host, NULL, 0), 0);
    rig_run(rig);
    CHECK_INT(rig->client_result, -BEAM_ETLS_CERTIFICATE);
    CHECK(strstr(bm_tls_why(rig->at_client), client_why));
    CHECK_INT(rig->server_result, -BEAM_ETLS_ALERT);
    CHECK(strstr(bm_tls_why(rig->at_server), server_why));
    CHECK(!bm_tls_is_open(rig->at_client) && !bm_tls_is_open(rig->at_server));
    rig_end(rig);
}

TEST(tls_client_refuses_another_host)
{
    struct rig rig;
    rig_init(&rig);
    rig.server = rig_certificate(BM_CERTIFICATE_SERVER, "dns:example.org", &rig.ca);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "the server's certificate is issued for example.org, not localhost",
            "certificate");
    refused(&rig, "127.0.0.1", "issued for example.org, not 127.0.0.1", "certificate");
    refused(&rig, "sub.example.org", "issued for example.org, not sub.example.org", "certificate");
    rig_deinit(&rig);
}

TEST(tls_client_accepts_addresses_and_wildcards_of_a_certificate)
{
    static const struct {
        const char *name, *good, *bad;
    } rows[] = {
        {"ip:127.0.0.1", "127.0.0.1", "127.0.0.2"},
        {"ip:::1", "::1", "::2"},
        {"dns:*.example.org", "a.example.org", "a.b.example.org"},
        {"dns:Example.ORG", "example.org", "example.org.evil.test"},
    };
    struct rig rig;
    rig_init(&rig);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rig.server = rig_certificate(BM_CERTIFICATE_SERVER, rows[i].name, &rig.ca);
        rig_contexts(&rig, NULL, NULL);
        REQUIRE_INT(rig_begin(&rig, rows[i].good, NULL, 0), 0);
        rig_run(&rig);
        CHECK(rig_is_open(&rig));
        rig_end(&rig);
        REQUIRE_INT(rig_begin(&rig, rows[i].bad, NULL, 0), 0);
        rig_run(&rig);
        CHECK_INT(rig.client_result, -BEAM_ETLS_CERTIFICATE);
        rig_deinit(&rig);
    }
}

TEST(tls_common_name_names_no_host)
{
    struct rig rig;
    rig_init(&rig);
    const struct bm_certificate_options options = {
        .size = sizeof(options),
        .use = BM_CERTIFICATE_SERVER,
        .common_name = "localhost",
        .issuer = &rig.ca,
    };
    REQUIRE_INT(bm_certificate_make(&rig.server, &options), 0);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "not localhost", "certificate");
    rig_deinit(&rig);
}

TEST(tls_client_wants_a_host)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    static const char *const hosts[] = {NULL, "", "a b", "a\nb", "http://x", "[::1]"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        const struct bm_tls_start start = {.size = sizeof(start), .host = hosts[i]};
        struct bm_tls *tls = NULL;
        CHECK_INT(bm_tls_new(&tls, rig.client_context, &start), -EINVAL);
        CHECK_PTR(tls, NULL);
    }
    rig_deinit(&rig);
}

static struct bm_certificate dated(const struct rig *rig, int64_t from_s, int64_t to_s)
{
    static const char *const names[] = {"dns:localhost", NULL};
    int64_t now_s = (int64_t)time(NULL);
    const struct bm_certificate_options options = {
        .size = sizeof(options),
        .use = BM_CERTIFICATE_SERVER,
        .common_name = "localhost",
        .names = names,
        .not_before_s = now_s + from_s,
        .not_after_s = now_s + to_s,
        .issuer = &rig->ca,
    };
    struct bm_certificate made;
    REQUIRE_INT(bm_certificate_make(&made, &options), 0);
    return made;
}

TEST(tls_client_refuses_a_certificate_out_of_its_time)
{
    struct rig rig;
    rig_init(&rig);
    rig.server = dated(&rig, -20 * 86400, -10 * 86400);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "the server's certificate (localhost) has expired", "expired");
    rig_deinit(&rig);
    rig.server = dated(&rig, 10 * 86400, 20 * 86400);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "is not valid yet", "certificate");
    rig_deinit(&rig);
}

TEST(tls_client_refuses_an_unknown_ca)
{
    struct rig rig;
    rig_init(&rig);
    struct bm_certificate other = rig_certificate(BM_CERTIFICATE_CA, "another CA", NULL);
    rig.server = rig_certificate(BM_CERTIFICATE_SERVER, "dns:localhost", &other);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "is signed by an unknown CA", "unknown certificate authority");
    rig_deinit(&rig);
    /* The same name, another key. */
    other = rig_certificate(BM_CERTIFICATE_CA, "a CA", NULL);
    rig.server = rig_certificate(BM_CERTIFICATE_SERVER, "dns:localhost", &other);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "the server's certificate (localhost)", "");
    rig_deinit(&rig);
    /* Signed by somebody who may not sign. */
    struct bm_certificate leaf = rig_certificate(BM_CERTIFICATE_SERVER, "dns:leaf.test", &rig.ca);
    rig.server = rig_certificate(BM_CERTIFICATE_SERVER, "dns:localhost", &leaf);
    size_t len = strlen(rig.server.pem);
    snprintf(rig.server.pem + len, sizeof(rig.server.pem) - len, "%s", leaf.pem);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "the server's certificate", "");
    rig_deinit(&rig);
}

TEST(tls_client_refuses_a_certificate_for_clients)
{
    struct rig rig;
    rig_init(&rig);
    rig.server = rig_certificate(BM_CERTIFICATE_CLIENT, "dns:localhost", &rig.ca);
    rig_contexts(&rig, NULL, NULL);
    refused(&rig, "localhost", "is for another use", "");
    rig_deinit(&rig);
}

static void mutual(struct rig *rig, const struct bm_certificate *client,
                   const struct bm_certificate *trusted)
{
    struct bm_tls_options server = rig_server_options(rig), from_client = rig_client_options(rig);
    server.client_certificate = true;
    server.ca = rig_text(trusted->pem);
    if (client) {
        from_client.chain = rig_text(client->pem);
        from_client.key = rig_text(client->key);
    }
    rig_contexts(rig, &server, &from_client);
    REQUIRE_INT(rig_begin(rig, "localhost", NULL, 0), 0);
    rig_run(rig);
}

TEST(tls_server_learns_the_names_of_a_client)
{
    static const char *const names[] = {"uri:spiffe://example.org/billing", "dns:billing.test",
                                        "email:billing@example.org", "ip:10.0.0.7", NULL};
    struct rig rig;
    rig_init(&rig);
    const struct bm_certificate_options options = {
        .size = sizeof(options),
        .use = BM_CERTIFICATE_CLIENT,
        .common_name = "Billing",
        .names = names,
        .issuer = &rig.ca,
    };
    REQUIRE_INT(bm_certificate_make(&rig.client, &options), 0);
    mutual(&rig, &rig.client, &rig.ca);
    REQUIRE(rig_is_open(&rig));
    const struct bm_identity *peer = bm_tls_peer(rig.at_server);
    REQUIRE(peer != NULL);
    CHECK_UINT(peer->count, 5);
    CHECK_STR(bm_identity_find(peer, BM_IDENTITY_URI), "spiffe://example.org/billing");
    CHECK_STR(bm_identity_find(peer, BM_IDENTITY_DNS), "billing.test");
    CHECK_STR(bm_identity_find(peer, BM_IDENTITY_EMAIL), "billing@example.org");
    CHECK_STR(bm_identity_find(peer, BM_IDENTITY_IP), "10.0.0.7");
    CHECK_STR(bm_identity_find(peer, BM_IDENTITY_COMMON_NAME), "Billing");
    CHECK_STR(bm_identity_find(bm_tls_peer(rig.at_client), BM_IDENTITY_DNS), "localhost");
    rig_write(&rig, rig.at_client, "hello", 5);
    CHECK_MEM(rig.server_got, rig.server_got_len, "hello", 5);
    rig_deinit(&rig);
}

TEST(tls_server_refuses_a_client_without_a_certificate)
{
    struct rig rig;
    rig_init(&rig);
    mutual(&rig, NULL, &rig.ca);
    CHECK_INT(rig.server_result, -BEAM_ETLS_CERTIFICATE);
    CHECK_STR(bm_tls_why(rig.at_server), "no client certificate");
    CHECK_INT(rig.client_result, -BEAM_ETLS_ALERT);
    CHECK(strstr(bm_tls_why(rig.at_client), "a client certificate is required"));
    CHECK_PTR(bm_tls_peer(rig.at_server), NULL);
    rig_deinit(&rig);
}

TEST(tls_server_refuses_a_client_of_another_ca)
{
    struct rig rig;
    rig_init(&rig);
    struct bm_certificate other = rig_certificate(BM_CERTIFICATE_CA, "another CA", NULL);
    mutual(&rig, &rig.client, &other);
    CHECK_INT(rig.server_result, -BEAM_ETLS_CERTIFICATE);
    CHECK(strstr(bm_tls_why(rig.at_server), "the client's certificate"));
    CHECK(strstr(bm_tls_why(rig.at_server), "unknown CA"));
    CHECK_INT(rig.client_result, -BEAM_ETLS_ALERT);
    CHECK(strstr(bm_tls_why(rig.at_client), "unknown certificate authority"));
    rig_deinit(&rig);
    /* A server's certificate is none for a client. */
    mutual(&rig, &rig.server, &rig.ca);
    CHECK_INT(rig.server_result, -BEAM_ETLS_CERTIFICATE);
    rig_deinit(&rig);
}

/* ---- Protocols of the application. */

TEST(tls_server_order_decides_the_protocol)
{
    static const char *const client_order[] = {"http/1.1", "x", "h2", NULL};
    static const char *const one[] = {"http/1.1", NULL};
    static const char *const none[] = {"spdy/3", NULL};
    struct rig rig;
    struct bm_tls_facts facts;
    rig_init(&rig);
    struct bm_tls_options client = rig_client_options(&rig);

    client.alpn = client_order;
    rig_contexts(&rig, NULL, &client);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    bm_tls_facts(rig.at_client, &facts);
    CHECK_STR(facts.alpn, "h2");
    rig_deinit(&rig);

    client.alpn = one;
    rig_contexts(&rig, NULL, &client);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    bm_tls_facts(rig.at_server, &facts);
    CHECK_STR(facts.alpn, "http/1.1");
    rig_deinit(&rig);

    client.alpn = NULL;
    rig_contexts(&rig, NULL, &client);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    CHECK(rig_is_open(&rig));
    bm_tls_facts(rig.at_server, &facts);
    CHECK_STR(facts.alpn, "");
    rig_deinit(&rig);

    client.alpn = none;
    rig_contexts(&rig, NULL, &client);
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    rig_run(&rig);
    CHECK_INT(rig.server_result, -BEAM_ETLS_ALPN);
    CHECK_INT(rig.client_result, -BEAM_ETLS_ALPN);
    CHECK(strstr(bm_tls_why(rig.at_client), "no application protocol in common (alert 120)"));
    rig_deinit(&rig);
}
