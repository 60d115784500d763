/* TLS (net/proto/tls.h): both roles against each other in memory, and peers that do it wrong. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <unistd.h>

#include "tests/unit/net/tls_rig.h"
#include "tests/unit/runtime/scarce.h"

TEST(tls_carries_bytes_both_ways)
{
    struct rig rig;
    rig_open(&rig);
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
    rig_meet(&rig, "localhost");
    REQUIRE(rig_is_open(&rig));
    rig_write(&rig, rig.at_client, "in small pieces", 15);
    CHECK_MEM(rig.server_got, rig.server_got_len, "in small pieces", 15);
    rig_deinit(&rig);
}

TEST(tls_write_takes_what_the_output_has_room_for)
{
    struct rig rig;
    rig_open(&rig);
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

TEST(tls_small_records_that_wait_leave_in_large_pieces)
{
    struct rig rig;
    uint8_t bytes[100] = {0};
    size_t taken, len, sum = 0, pieces = 0;
    rig_open(&rig);
    for (unsigned i = 0; i < 200; i++) {
        REQUIRE_INT(bm_tls_write(rig.at_client, bytes, sizeof(bytes), &taken), 0);
        REQUIRE_UINT(taken, sizeof(bytes));
    }
    for (const uint8_t *out; (out = bm_tls_output(rig.at_client, &len)) != NULL; pieces++) {
        sum += len;
        rig_give(&rig, rig.at_server, out, len);
        bm_tls_output_ack(rig.at_client, len);
    }
    CHECK(sum > 200 * sizeof(bytes));
    CHECK_UINT(rig.server_got_len, 200 * sizeof(bytes));
    CHECK_UINT(pieces, 4); /* of some 4, 4, 8 and 16 thousand bytes */
    rig_deinit(&rig);
}

TEST(tls_received_bytes_wait_until_they_are_read)
{
    struct rig rig;
    rig_open(&rig);
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
    rig_open(&rig);
    size_t taken;
    rig_write(&rig, rig.at_client, "last words", 10);
    CHECK_INT(bm_tls_close(rig.at_client), 0);
    CHECK_INT(bm_tls_write(rig.at_client, "more", 4, &taken), -EPIPE);
    rig_run(&rig);
    CHECK_INT(rig.server_result, BM_TLS_END);
    for (unsigned i = 0; i < 2; i++) /* nothing that comes after it is looked at */
        CHECK_INT(rig_give(&rig, rig.at_server, (const uint8_t *)"anything", 8), BM_TLS_END);
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
    rig_meet(rig, host);
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
        {"dns:db", "db", "dc"}, /* of one label, as machines are called at home */
        {"dns:db", "db", "db.example.org"},
    };
    struct rig rig;
    rig_init(&rig);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rig.server = rig_certificate(BM_CERTIFICATE_SERVER, rows[i].name, &rig.ca);
        rig_contexts(&rig, NULL, NULL);
        rig_meet(&rig, rows[i].good);
        CHECK(rig_is_open(&rig));
        rig_end(&rig);
        rig_meet(&rig, rows[i].bad);
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
    rig_start(rig, &server, &from_client);
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

/* ---- Revocation (tests/vectors/tls, made by make.sh beside it). */

#define REVOCATION(name)                                                                           \
    {                                                                                              \
        .path = BEAM_SOURCE_DIR "/tests/vectors/tls/" name                                         \
    }

static void revocable(struct rig *rig, const char *which, struct bm_tls_bytes crl,
                      struct bm_tls_bytes staple)
{
    char chain[512], key[512];
    snprintf(chain, sizeof(chain), "%s/tests/vectors/tls/%s.pem", BEAM_SOURCE_DIR, which);
    snprintf(key, sizeof(key), "%s/tests/vectors/tls/%s.key", BEAM_SOURCE_DIR, which);
    struct bm_tls_options server = rig_server_options(rig), client = rig_client_options(rig);
    server.chain = (struct bm_tls_bytes){.path = chain};
    server.key = (struct bm_tls_bytes){.path = key};
    server.staple = staple;
    client.ca = (struct bm_tls_bytes)REVOCATION("ca.pem");
    client.crl = crl;
    rig_start(rig, &server, &client);
}

TEST(tls_revoked_certificates_are_refused_by_a_list)
{
    const struct bm_tls_bytes none = {0}, list = REVOCATION("crl.pem");
    struct rig rig;
    rig_init(&rig);
    revocable(&rig, "good", list, none);
    CHECK(rig_is_open(&rig));
    rig_deinit(&rig);
    revocable(&rig, "revoked", none, none); /* without the list nobody knows */
    CHECK(rig_is_open(&rig));
    rig_deinit(&rig);
    revocable(&rig, "revoked", list, none);
    CHECK_INT(rig.client_result, -BEAM_ETLS_CERTIFICATE);
    CHECK_STR(bm_tls_why(rig.at_client), "the server's certificate (localhost) has been revoked");
    CHECK_INT(rig.server_result, -BEAM_ETLS_ALERT);
    rig_deinit(&rig);
}

TEST(tls_certificate_without_its_list_is_refused)
{
    struct rig rig;
    char both[BM_CERTIFICATE_PEM_MAX + 4096];
    rig_init(&rig);
    FILE *file = fopen(BEAM_SOURCE_DIR "/tests/vectors/tls/ca.pem", "re");
    REQUIRE(file != NULL);
    size_t len = fread(both, 1, 4096, file);
    fclose(file);
    snprintf(both + len, sizeof(both) - len, "%s", rig.ca.pem);
    struct bm_tls_options client = rig_client_options(&rig);
    client.ca = rig_text(both);
    client.crl = (struct bm_tls_bytes)REVOCATION("crl.pem");
    rig_start(&rig, NULL, &client);
    CHECK_INT(rig.client_result, -BEAM_ETLS_CERTIFICATE);
    CHECK(strstr(bm_tls_why(rig.at_client), "there is no revocation list of its CA"));
    rig_deinit(&rig);
}

TEST(tls_staple_is_given_and_believed)
{
    const struct bm_tls_bytes none = {0}, good = REVOCATION("good.ocsp"),
                              revoked = REVOCATION("revoked.ocsp");
    struct rig rig;
    if (bm_tls_library_warning())
        SKIP("wolfSSL before 5.9 gives no staple that it has not asked for itself");
    rig_init(&rig);
    revocable(&rig, "good", none, good);
    CHECK(rig_is_open(&rig));
    rig_deinit(&rig);
    revocable(&rig, "revoked", none, revoked);
    CHECK_INT(rig.client_result, -BEAM_ETLS_CERTIFICATE);
    CHECK(strstr(bm_tls_why(rig.at_client), "revoked"));
    rig_deinit(&rig);
    revocable(&rig, "revoked", none, good); /* another certificate's */
    CHECK(rig.client_result < 0);
    rig_deinit(&rig);
    revocable(&rig, "good", none, rig_text("no response"));
    CHECK(rig.client_result < 0);
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
    rig_start(&rig, NULL, &client);
    bm_tls_facts(rig.at_client, &facts);
    CHECK_STR(facts.alpn, "h2");
    rig_deinit(&rig);

    client.alpn = one;
    rig_start(&rig, NULL, &client);
    bm_tls_facts(rig.at_server, &facts);
    CHECK_STR(facts.alpn, "http/1.1");
    rig_deinit(&rig);

    client.alpn = NULL;
    rig_start(&rig, NULL, &client);
    CHECK(rig_is_open(&rig));
    bm_tls_facts(rig.at_server, &facts);
    CHECK_STR(facts.alpn, "");
    rig_deinit(&rig);

    client.alpn = none;
    rig_start(&rig, NULL, &client);
    CHECK_INT(rig.server_result, -BEAM_ETLS_ALPN);
    if (bm_tls_library_warning()) { /* 5.5.4 goes on, and is ended in order */
        CHECK_INT(rig.client_result, BM_TLS_END);
    } else {
        CHECK_INT(rig.client_result, -BEAM_ETLS_ALPN);
        CHECK(strstr(bm_tls_why(rig.at_client), "no application protocol in common (alert 120)"));
    }
    rig_deinit(&rig);
}

/* ---- Sessions that are resumed. */

static const struct bm_tls_ticket_key *ticket_key(unsigned which)
{
    static struct bm_tls_ticket_key keys[4];
    for (unsigned i = 0; i < 4; i++) {
        memset(keys[i].name, (int)i + 1, sizeof(keys[i].name));
        memset(keys[i].secret, (int)i + 101, sizeof(keys[i].secret));
    }
    return &keys[which];
}

static void give_keys(struct bm_tls_context *context, unsigned a, unsigned b, unsigned c)
{
    const struct bm_tls_ticket_key keys[] = {*ticket_key(a), *ticket_key(b), *ticket_key(c)};
    bm_tls_context_ticket_keys(context, keys);
}

/* A connection from begin to end; its session, if there is one, and whether it was resumed. */
static bool resumes(struct rig *rig, const char *host, const uint8_t *from, size_t from_len,
                    uint8_t *ret_session, size_t *ret_len)
{
    REQUIRE_INT(rig_begin(rig, host, from, from_len), 0);
    rig_run(rig);
    REQUIRE(rig_is_open(rig));
    rig_write(rig, rig->at_server, "hello", 5);
    CHECK_MEM(rig->client_got, rig->client_got_len, "hello", 5);
    struct bm_tls_facts at_client, at_server;
    bm_tls_facts(rig->at_client, &at_client);
    bm_tls_facts(rig->at_server, &at_server);
    CHECK_INT(at_client.resumed, at_server.resumed);
    CHECK_STR(at_client.alpn, "h2");
    CHECK_STR(at_server.alpn, "h2");
    CHECK((bm_tls_peer(rig->at_client) == NULL) == at_client.resumed);
    if (ret_session)
        CHECK_INT(bm_tls_session(rig->at_client, ret_session, BM_TLS_SESSION_MAX, ret_len), 0);
    bool resumed = at_client.resumed;
    rig_end(rig);
    return resumed;
}

TEST(tls_session_is_resumed_with_a_ticket)
{
    struct rig rig;
    uint8_t session[BM_TLS_SESSION_MAX], again[BM_TLS_SESSION_MAX];
    size_t len = 0, again_len = 0;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    give_keys(rig.server_context, 0, 1, 2);
    CHECK(!resumes(&rig, "localhost", NULL, 0, session, &len));
    CHECK(len > 32 && len < 4096);
    CHECK(resumes(&rig, "localhost", session, len, again, &again_len));
    CHECK(resumes(&rig, "localhost", again, again_len, NULL, NULL));

    uint8_t small[16];
    REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
    CHECK_INT(bm_tls_session(rig.at_client, session, sizeof(session), &len), -ENODATA);
    rig_run(&rig);
    CHECK_INT(bm_tls_session(rig.at_client, small, sizeof(small), &len), -EMSGSIZE);
    rig_deinit(&rig);
}

TEST(tls_tickets_outlive_a_rotation_of_keys)
{
    struct rig rig;
    uint8_t session[BM_TLS_SESSION_MAX];
    size_t len = 0;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    give_keys(rig.server_context, 0, 1, 2);
    CHECK(!resumes(&rig, "localhost", NULL, 0, session, &len));
    give_keys(rig.server_context, 1, 3, 0);
    CHECK(resumes(&rig, "localhost", session, len, NULL, NULL));
    give_keys(rig.server_context, 3, 2, 1);
    CHECK(!resumes(&rig, "localhost", session, len, NULL, NULL));
    /* Another context with the same certificate and keys: another reactor. */
    give_keys(rig.server_context, 0, 1, 2);
    struct bm_tls_options options = rig_server_options(&rig);
    struct bm_tls_context *other = NULL;
    REQUIRE_INT(bm_tls_context_new(&other, &options, NULL), 0);
    give_keys(other, 2, 1, 0);
    bm_tls_context_unref(rig.server_context);
    rig.server_context = other;
    CHECK(resumes(&rig, "localhost", session, len, NULL, NULL));
    rig_deinit(&rig);
}

/* The length of a client's first flight: longer by what it offers to resume. */
static size_t hello_len(struct rig *rig, const char *host, const uint8_t *from, size_t from_len)
{
    size_t len;
    REQUIRE_INT(rig_begin(rig, host, from, from_len), 0);
    bm_tls_output(rig->at_client, &len);
    rig_end(rig);
    return len;
}

TEST(tls_session_is_good_for_one_host_and_one_server)
{
    static const char *const names[] = {"dns:localhost", "dns:other.test", NULL};
    struct rig rig;
    uint8_t session[BM_TLS_SESSION_MAX], other[BM_TLS_SESSION_MAX];
    size_t len = 0, other_len = 0;
    rig_init(&rig);
    const struct bm_certificate_options both = {
        .size = sizeof(both),
        .use = BM_CERTIFICATE_SERVER,
        .common_name = "both",
        .names = names,
        .issuer = &rig.ca,
    };
    REQUIRE_INT(bm_certificate_make(&rig.server, &both), 0);
    rig_contexts(&rig, NULL, NULL);
    give_keys(rig.server_context, 0, 1, 2);
    CHECK(!resumes(&rig, "localhost", NULL, 0, session, &len));
    size_t plain = hello_len(&rig, "other.test", NULL, 0);
    CHECK_UINT(hello_len(&rig, "other.test", session, len), plain);
    CHECK(!resumes(&rig, "other.test", session, len, other, &other_len));
    CHECK(hello_len(&rig, "other.test", other, other_len) > plain);
    CHECK(resumes(&rig, "other.test", other, other_len, NULL, NULL));
    /* A client that offers it all the same is asked to prove everything. */
    memcpy(session, other, 32);
    CHECK(!resumes(&rig, "other.test", session, len, NULL, NULL));
    /* Another certificate: another server, whatever its keys. */
    bm_tls_context_unref(rig.server_context);
    rig.server_context = NULL;
    REQUIRE_INT(bm_certificate_make(&rig.server, &both), 0);
    struct bm_tls_options options = rig_server_options(&rig);
    REQUIRE_INT(bm_tls_context_new(&rig.server_context, &options, rig.why), 0);
    give_keys(rig.server_context, 0, 1, 2);
    CHECK(!resumes(&rig, "other.test", other, other_len, NULL, NULL));
    /* Bytes that are no session. */
    for (size_t i = 32; i < other_len; i++)
        other[i] ^= 0x5a;
    CHECK_UINT(hello_len(&rig, "other.test", other, other_len), plain);
    other[100] ^= 1;
    CHECK_UINT(hello_len(&rig, "other.test", other, other_len), plain);
    CHECK(!resumes(&rig, "other.test", other, other_len, NULL, NULL));
    CHECK(!resumes(&rig, "other.test", other, 33, NULL, NULL));
    rig_deinit(&rig);
}

TEST(tls_server_that_asks_for_certificates_gives_no_tickets)
{
    struct rig rig;
    uint8_t session[BM_TLS_SESSION_MAX];
    size_t len = 0;
    rig_init(&rig);
    struct bm_tls_options server = rig_server_options(&rig), client = rig_client_options(&rig);
    server.client_certificate = true;
    server.ca = rig_text(rig.ca.pem);
    client.chain = rig_text(rig.client.pem);
    client.key = rig_text(rig.client.key);
    rig_contexts(&rig, &server, &client);
    give_keys(rig.server_context, 0, 1, 2);
    rig_meet(&rig, "localhost");
    REQUIRE(rig_is_open(&rig));
    rig_write(&rig, rig.at_server, "hello", 5);
    CHECK_INT(bm_tls_session(rig.at_client, session, sizeof(session), &len), -ENODATA);
    rig_deinit(&rig);
}

TEST(tls_connections_outlive_their_context)
{
    struct rig rig;
    rig_open(&rig);
    struct bm_tls *old_server = rig.at_server, *old_client = rig.at_client;

    /* New certificates: a new context for what comes. */
    rig.server = rig_certificate(BM_CERTIFICATE_SERVER, "dns:new.test", &rig.ca);
    struct bm_tls_options options = rig_server_options(&rig);
    rig.server_context = bm_tls_context_unref(rig.server_context);
    REQUIRE_INT(bm_tls_context_new(&rig.server_context, &options, rig.why), 0);
    rig_meet(&rig, "new.test");
    CHECK(rig_is_open(&rig));
    CHECK_STR(bm_identity_find(bm_tls_peer(rig.at_client), BM_IDENTITY_DNS), "new.test");
    bm_tls_free(rig.at_server);
    bm_tls_free(rig.at_client);

    rig.at_server = old_server;
    rig.at_client = old_client;
    rig_write(&rig, rig.at_client, "still here", 10);
    CHECK_MEM(rig.server_got, rig.server_got_len, "still here", 10);
    rig_deinit(&rig);
}

/* ---- Peers that do it wrong. */

struct bytes {
    uint8_t data[100000];
    size_t len;
};

static void put(struct bytes *bytes, const void *data, size_t len)
{
    REQUIRE(len <= sizeof(bytes->data) - bytes->len);
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

static void put_u16(struct bytes *bytes, size_t value)
{
    put(bytes, (uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

/* A ClientHello as TLS 1.2 and older made them (RFC 5246 7.4.1.2), with P-256 and ECDSA, and
 * so many bytes that say nothing (RFC 7685). */
static struct bytes old_hello(unsigned version, const uint16_t *suites, size_t count,
                              size_t padding)
{
    static const uint8_t extensions[] = {
        0, 10, 0, 4, 0, 2, 0, 23,       /* supported groups: secp256r1 */
        0, 11, 0, 2, 1, 0,              /* point formats: uncompressed */
        0, 13, 0, 6, 0, 4, 4, 3,  2, 3, /* signature algorithms: ECDSA with SHA-256, with SHA-1 */
    };
    struct bytes body = {.len = 0}, record = {.len = 0};
    put_u16(&body, version);
    for (unsigned i = 0; i < 32; i++)
        put(&body, &(uint8_t){(uint8_t)(i * 17)}, 1);
    put(&body, "", 1); /* no session */
    put_u16(&body, count * 2);
    for (size_t i = 0; i < count; i++)
        put_u16(&body, suites[i]);
    put(&body, "\1\0", 2); /* no compression */
    put_u16(&body, sizeof(extensions) + 4 + padding);
    put(&body, extensions, sizeof(extensions));
    put_u16(&body, 21);
    put_u16(&body, padding);
    memset(body.data + body.len, 0, padding);
    body.len += padding;

    put(&record, "\x16\x03\x01", 3);
    put_u16(&record, body.len + 4);
    put(&record, "\1\0", 2);
    put_u16(&record, body.len);
    put(&record, body.data, body.len);
    return record;
}

/* What one gets to hear who begins with these bytes: the number of the alert, 0 for an answer. */
static int answer(struct rig *rig, const void *bytes, size_t len)
{
    struct bm_tls_start start = {.size = sizeof(start), .account = &rig->server_account};
    REQUIRE_INT(bm_tls_new(&rig->at_server, rig->server_context, &start), 0);
    rig->server_result = rig_give(rig, rig->at_server, (const uint8_t *)bytes, len);
    size_t said_len;
    const uint8_t *said = bm_tls_output(rig->at_server, &said_len);
    int alert = said_len == 7 && said[0] == 21 ? said[6] : said_len > 7 && said[0] == 22 ? 0 : -1;
    test_note("result %d, alert %d: %s", rig->server_result, alert, bm_tls_why(rig->at_server));
    return alert;
}

TEST(tls_server_speaks_no_old_version_and_no_weak_suite)
{
    static const uint16_t good[] = {0xc02b};             /* ECDHE-ECDSA-AES128-GCM-SHA256 */
    static const uint16_t no_cipher[] = {0xc006, 2};     /* ECDHE-ECDSA-NULL-SHA, RSA-NULL-SHA */
    static const uint16_t no_aead[] = {0xc009, 0xc023};  /* ... with CBC */
    static const uint16_t no_secrecy[] = {0x9c, 0xc02d}; /* RSA, and static ECDH, with GCM */
    static const uint16_t anonymous[] = {0xc018, 0xa6};
    static const struct {
        bool tls12;
        unsigned version;
        const uint16_t *suites;
        size_t count;
        int alert;
    } rows[] = {
        {true, 0x0303, good, 1, 0}, /* the hello is right: it is answered where it is allowed */
        {false, 0x0303, good, 1, 70},     {false, 0x0302, good, 1, 70},
        {true, 0x0302, good, 1, 70},      {true, 0x0301, good, 1, 70},
        {true, 0x0300, good, 1, 70},      {true, 0x0303, no_cipher, 2, 40},
        {true, 0x0303, no_aead, 2, 40},   {true, 0x0303, no_secrecy, 2, 40},
        {true, 0x0303, anonymous, 2, 40},
    };
    struct rig rig;
    rig_init(&rig);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bm_tls_options options = rig_server_options(&rig);
        options.tls12 = rows[i].tls12;
        rig_contexts(&rig, &options, NULL);
        struct bytes hello = old_hello(rows[i].version, rows[i].suites, rows[i].count, 0);
        CHECK_INT(answer(&rig, hello.data, hello.len), rows[i].alert);
        CHECK_INT(rig.server_result, rows[i].alert ? -BEAM_ETLS_PROTOCOL : BM_TLS_MORE);
        if (rows[i].alert)
            CHECK_STR(bm_tls_why(rig.at_server), rows[i].alert == 70 ? "no version of TLS in common"
                                                                     : "no cipher suite in common");
        rig_deinit(&rig);
    }
}

/* The bytes of a client's first flight, with ALPN "h2" in it. */
static struct bytes hello_of(struct rig *rig)
{
    struct bytes hello = {.len = 0};
    size_t len;
    REQUIRE_INT(rig_begin(rig, "localhost", NULL, 0), 0);
    const uint8_t *bytes = bm_tls_output(rig->at_client, &len);
    put(&hello, bytes, len);
    rig_end(rig);
    return hello;
}

TEST(tls_server_refuses_malformed_alpn)
{
    static const uint8_t alpn[] = {0, 16, 0, 5, 0, 3, 2, 'h', '2'};
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    struct bytes hello = hello_of(&rig);
    uint8_t *at = (uint8_t *)memmem(hello.data, hello.len, alpn, sizeof(alpn));
    REQUIRE(at != NULL);
    CHECK_INT(answer(&rig, hello.data, hello.len), 0); /* it is right as it is */
    rig_end(&rig);
    static const struct {
        unsigned at;
        uint8_t value;
    } rows[] = {
        {6, 0}, {6, 1}, {6, 3}, {6, 4}, {6, 255},           /* the name's length */
        {5, 0}, {5, 1}, {5, 2}, {5, 4}, {5, 255}, {4, 255}, /* the list's */
        {3, 0}, {3, 1}, {3, 4}, {3, 6}, {2, 255},           /* the extension's */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t was = at[rows[i].at];
        at[rows[i].at] = rows[i].value;
        /* In a block of its own length: a sanitizer sees a byte too far. */
        uint8_t *copy = (uint8_t *)malloc(hello.len);
        REQUIRE(copy != NULL);
        memcpy(copy, hello.data, hello.len);
        int alert = answer(&rig, copy, hello.len);
        test_note("row %zu: %d, %s", i, rig.server_result, bm_tls_why(rig.at_server));
        if (!bm_tls_library_warning()) { /* 5.5.4 goes on to the end, to be refused there */
            CHECK(alert > 0);
            CHECK(rig.server_result == -BEAM_ETLS_ALPN || rig.server_result == -BEAM_ETLS_PROTOCOL);
        }
        free(copy);
        at[rows[i].at] = was;
        rig_end(&rig);
    }
    rig_deinit(&rig);
}

TEST(tls_what_is_no_tls_is_refused)
{
    static const char *const texts[] = {
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x15\x03\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        "\x16\x03\x01\xff\xff\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        "\x17\x03\x03\x7f\x7f\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    };
    struct rig rig;
    size_t n;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        answer(&rig, texts[i], strlen(texts[i]));
        CHECK(rig.server_result < 0);
        CHECK(strlen(bm_tls_why(rig.at_server)) > 0);
        CHECK_INT(bm_tls_write(rig.at_server, "x", 1, &n), rig.server_result);
        CHECK_INT(bm_tls_close(rig.at_server), rig.server_result);
        CHECK_INT(bm_tls_cut(rig.at_server), rig.server_result);
        rig_end(&rig);
        REQUIRE_INT(rig_begin(&rig, "localhost", NULL, 0), 0);
        CHECK(rig_give(&rig, rig.at_client, (const uint8_t *)texts[i], strlen(texts[i])) < 0);
        rig_end(&rig);
    }
    rig_deinit(&rig);
}

TEST(tls_one_changed_bit_ends_the_conversation)
{
    struct rig rig;
    struct test_random random = test_random(0);
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    for (unsigned i = 0; i < 30; i++) {
        rig_meet(&rig, "localhost");
        REQUIRE(rig_is_open(&rig));
        size_t taken, len;
        uint8_t spoilt[256];
        REQUIRE_INT(bm_tls_write(rig.at_client, "something said", 14, &taken), 0);
        const uint8_t *bytes = bm_tls_output(rig.at_client, &len);
        REQUIRE(len <= sizeof(spoilt));
        memcpy(spoilt, bytes, len);
        size_t bit = test_random_below(&random, (len - 5) * 8);
        spoilt[5 + bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_INT(rig_give(&rig, rig.at_server, spoilt, len), -BEAM_ETLS_PROTOCOL);
        CHECK_UINT(rig.server_got_len, 0);
        rig_end(&rig);
    }
    rig_deinit(&rig);
}

TEST(tls_handshake_in_crumbs_is_limited)
{
    static const uint16_t suite[] = {0xc02b};
    struct rig rig;
    rig_init(&rig);
    struct bm_tls_options options = rig_server_options(&rig);
    options.tls12 = true;
    rig_contexts(&rig, &options, NULL);
    static struct bytes hello, crumbs;
    hello = old_hello(0x0303, suite, 1, 8000);
    CHECK_INT(answer(&rig, hello.data, hello.len), 0); /* long, but within reason */
    rig_end(&rig);
    /* The same, byte by byte in records of their own, is within the limit; half as much again is not. */
    for (unsigned padding = 8000; padding <= 12000; padding += 4000) {
        hello = old_hello(0x0303, suite, 1, padding);
        crumbs.len = 0;
        put(&crumbs, "\x16\x03\x01\0\4", 5); /* less than its header is no handshake */
        put(&crumbs, hello.data + 5, 4);
        for (size_t i = 9; i < hello.len; i++) {
            put(&crumbs, "\x16\x03\x01\0\1", 5);
            put(&crumbs, hello.data + i, 1);
        }
        answer(&rig, crumbs.data, crumbs.len);
        if (padding == 8000) {
            CHECK_INT(rig.server_result, BM_TLS_MORE);
        } else {
            CHECK_INT(rig.server_result, -BEAM_ETLS_FLOOD);
            CHECK_STR(bm_tls_why(rig.at_server), "a handshake longer than allowed");
        }
        rig_end(&rig);
    }
    rig_deinit(&rig);
}

TEST(tls_handshake_is_limited)
{
    struct rig rig;
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    /* A hello that is longer than any, in full records. */
    static uint8_t record[5 + 16384] = {22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff};
    struct bm_tls_start start = {.size = sizeof(start), .account = &rig.server_account};
    REQUIRE_INT(bm_tls_new(&rig.at_server, rig.server_context, &start), 0);
    int r = BM_TLS_MORE;
    unsigned records = 0;
    for (; r >= 0 && records < 1000; records++)
        r = rig_give(&rig, rig.at_server, record, sizeof(record));
    CHECK(r == -BEAM_ETLS_FLOOD || r == -BEAM_ETLS_PROTOCOL);
    CHECK(records <= 5);
    CHECK(rig.server_account.peak < 512 * 1024);
    rig_end(&rig);
    /* Changes of the cipher that change nothing. */
    static const uint8_t nothing[] = {20, 3, 3, 0, 1, 1};
    struct bytes hello = hello_of(&rig);
    REQUIRE_INT(bm_tls_new(&rig.at_server, rig.server_context, &start), 0);
    r = rig_give(&rig, rig.at_server, hello.data, hello.len);
    CHECK_INT(r, BM_TLS_MORE);
    for (records = 0; r >= 0 && records < 100000; records++)
        r = rig_give(&rig, rig.at_server, nothing, sizeof(nothing));
    CHECK(r == -BEAM_ETLS_FLOOD || r == -BEAM_ETLS_PROTOCOL);
    CHECK(records <= BM_TLS_HANDSHAKE_MAX / sizeof(nothing));
    rig_deinit(&rig);
}

/* What Beam itself never does, by the library's own hand. */
extern int wolfSSL_update_keys(void *ssl);

static void change_keys(struct bm_tls *tls)
{
    void *ssl;
    memcpy(&ssl, tls, sizeof(ssl)); /* its first member */
    CHECK_INT(wolfSSL_update_keys(ssl), 1);
}

TEST(tls_changes_of_keys_are_followed_and_limited)
{
    struct rig rig;
    rig_open(&rig);
    for (unsigned i = 0; i < BM_TLS_IDLE_RECORDS_MAX; i++) {
        change_keys(rig.at_client);
        rig_run(&rig);
    }
    CHECK_INT(rig.server_result, BM_TLS_MORE);
    rig_write(&rig, rig.at_client, "after", 5);
    CHECK_MEM(rig.server_got, rig.server_got_len, "after", 5);
    rig_write(&rig, rig.at_server, "after", 5);
    CHECK_MEM(rig.client_got, rig.client_got_len, "after", 5);

    /* As slowly as anybody may, for ever. */
    for (unsigned i = 0; i < 100; i++) {
        rig.now_ns += 1000000000u;
        change_keys(rig.at_client);
        rig_run(&rig);
    }
    CHECK_INT(rig.server_result, BM_TLS_MORE);

    /* One by one, but faster than that. */
    rig_end(&rig);
    rig_meet(&rig, "localhost");
    for (unsigned i = 0; i <= BM_TLS_IDLE_RECORDS_MAX; i++) {
        CHECK_INT(rig.server_result, BM_TLS_MORE);
        change_keys(rig.at_client);
        rig_run(&rig);
    }
    CHECK_INT(rig.server_result, -BEAM_ETLS_FLOOD);
    rig_end(&rig);
    rig_meet(&rig, "localhost");

    /* A long silence is not saved up. */
    rig.now_ns += 3600 * 1000000000ull;
    for (unsigned i = 0; i <= BM_TLS_IDLE_RECORDS_MAX; i++)
        change_keys(rig.at_client);
    rig_run(&rig);
    CHECK_INT(rig.server_result, -BEAM_ETLS_FLOOD);
    CHECK_STR(bm_tls_why(rig.at_server), "too many records without content");
    rig_deinit(&rig);
}

/* ---- Configuration. */

TEST(tls_context_says_what_is_wrong_with_it)
{
    struct rig rig;
    struct bm_tls_context *context = NULL;
    rig_init(&rig);
    struct bm_tls_options good = rig_server_options(&rig), o = good;
    o.key = rig_text(rig.client.key);
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -BEAM_ETLS_CONFIGURATION);
    CHECK_STR(rig.why, "the key does not belong to the certificate");
    o = good;
    o.chain = rig_text("no certificate");
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -BEAM_ETLS_CONFIGURATION);
    CHECK(strstr(rig.why, "the certificate cannot be used"));
    o = good;
    o.key = rig_text("no key");
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -BEAM_ETLS_CONFIGURATION);
    CHECK(strstr(rig.why, "the key cannot be used"));
    o = good;
    o.chain = (struct bm_tls_bytes){.path = "/nowhere/certificate.pem"};
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -ENOENT);
    CHECK_STR(rig.why, "certificate /nowhere/certificate.pem: No such file or directory");
    o = good;
    o.chain = (struct bm_tls_bytes){.path = "/dev/zero"};
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -EFBIG);
    o = good;
    o.ca = rig_text(rig.ca.pem);
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -EINVAL);
    o.client_certificate = true;
    o.ca = rig_text("");
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -ENODATA);
    o.ca = rig_text("nobody");
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -BEAM_ETLS_CONFIGURATION);
    CHECK_STR(rig.why, "no authority to trust");
    o.ca = rig_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -BEAM_ETLS_CONFIGURATION);
    CHECK(strstr(rig.why, "authority 1: "));
    o = good;
    o.key = (struct bm_tls_bytes){0};
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -EINVAL);
    o.chain = o.key;
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -EINVAL);
    CHECK_STR(rig.why, "a server without a certificate");
    o = good;
    o.client_certificate = true;
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -EINVAL);
    o = good;
    o.client_certificate = true;
    o.ca = rig_text(rig.ca.pem);
    o.crl = rig_text("no list");
    CHECK_INT(bm_tls_context_new(&context, &o, rig.why), -BEAM_ETLS_CONFIGURATION);
    o = good;
    o.size = 1;
    CHECK_INT(bm_tls_context_new(&context, &o, NULL), -EINVAL);
    CHECK_PTR(context, NULL);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    REQUIRE(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK_INT(fclose(file), 0);
}

TEST(tls_context_reads_files_and_trusts_whom_the_system_does)
{
    struct rig rig;
    char chain[512], key[512], ca[512];
    rig_init(&rig);
    snprintf(chain, sizeof(chain), "%s/chain.pem", test_tmpdir());
    snprintf(key, sizeof(key), "%s/key.pem", test_tmpdir());
    snprintf(ca, sizeof(ca), "%s/ca.pem", test_tmpdir());
    write_file(chain, rig.server.pem);
    write_file(key, rig.server.key);
    /* A bundle with something in it that this library cannot read. */
    char bundle[2 * BM_CERTIFICATE_PEM_MAX];
    snprintf(bundle, sizeof(bundle),
             "# bundle\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n%s",
             rig.ca.pem);
    write_file(ca, bundle);
    struct bm_tls_options server = rig_server_options(&rig), client = rig_client_options(&rig);
    server.chain = (struct bm_tls_bytes){.path = chain};
    server.key = (struct bm_tls_bytes){.path = key};
    client.ca = (struct bm_tls_bytes){0};
    setenv("SSL_CERT_FILE", ca, 1);
    rig_start(&rig, &server, &client);
    CHECK(rig_is_open(&rig));
    rig_deinit(&rig);
    /* It is the bundle that decides: with the machine's own, nobody knows this CA. */
    unsetenv("SSL_CERT_FILE");
    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) == 0) {
        rig_contexts(&rig, &server, &client);
        refused(&rig, "localhost", "unknown CA", "unknown certificate authority");
        rig_deinit(&rig);
    }
}

TEST(tls_name_is_seen_before_a_connection_is_made)
{
    struct rig rig;
    char name[BM_TLS_HOST_MAX + 1];
    rig_init(&rig);
    rig_contexts(&rig, NULL, NULL);
    struct bytes hello = hello_of(&rig);
    CHECK_INT(bm_tls_peek_name(hello.data, hello.len, name), 0);
    CHECK_STR(name, "localhost");
    for (size_t len = 0; len < hello.len; len++)
        CHECK_INT(bm_tls_peek_name(hello.data, len, name), 1);
    CHECK(bm_tls_peek_name((const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18, name) < 0);
    REQUIRE_INT(rig_begin(&rig, "127.0.0.1", NULL, 0), 0);
    size_t len;
    const uint8_t *bytes = bm_tls_output(rig.at_client, &len);
    CHECK_INT(bm_tls_peek_name(bytes, len, name), -ENOENT);
    rig_deinit(&rig);
}

TEST(tls_library_says_what_it_is)
{
    CHECK(strstr(bm_tls_library(), "wolfSSL 5."));
    CHECK(strstr(bm_tls_library(), "AES-NI"));
}

/* ---- Memory. */

/* The whole life of a conversation. 0, or the first error. */
static int converse(struct rig *rig)
{
    struct bm_tls_options server = rig_server_options(rig), client = rig_client_options(rig);
    server.client_certificate = true;
    server.ca = rig_text(rig->ca.pem);
    client.chain = rig_text(rig->client.pem);
    client.key = rig_text(rig->client.key);
    int r = bm_tls_context_new(&rig->server_context, &server, rig->why);
    if (r == 0)
        r = bm_tls_context_new(&rig->client_context, &client, rig->why);
    if (r == 0)
        r = rig_begin(rig, "localhost", NULL, 0);
    if (r == 0) {
        size_t taken;
        rig_talk(rig);
        r = rig->server_result < 0   ? rig->server_result
            : rig->client_result < 0 ? rig->client_result
                                     : bm_tls_write(rig->at_client, "hello", 5, &taken);
        if (r == 0)
            rig_talk(rig);
        if (r == 0 && rig->server_result < 0)
            r = rig->server_result;
        if (r == 0)
            r = bm_tls_close(rig->at_client);
    }
    return r;
}

TEST(tls_any_allocation_may_fail)
{
    struct rig rig;
    if (bm_tls_library_warning())
        SKIP("wolfSSL before 5.9 leaks where memory is missing");
    rig_init(&rig);
    int left = 0, r = -1, odd = 0;
    for (; r != 0 && left < 20000; left++) {
        scarce_begin(left);
        r = converse(&rig);
        bool all = scarce_asked <= left;
        rig_deinit(&rig);
        scarce_end();
        if (r == 0 && !all)
            odd++;
        test_note("after %d allocations: %d, %s", left, r, rig.why);
        if (r != -ENOMEM && r != -BEAM_ETLS_ALERT)
            CHECK_INT(r, 0);
    }
    CHECK_INT(r, 0);
    test_note("%d allocations, %d refusals survived", left, odd);
    CHECK(left > 50);
}

TEST(tls_connection_is_paid_by_its_account)
{
    struct rig rig;
    rig_open(&rig);
    CHECK(rig.server_account.used > 10000);
    CHECK(rig.client_account.used > 10000);
    size_t before = rig.server_account.used;
    rig_write(&rig, rig.at_server, "hello", 5);
    bm_tls_trim(rig.at_server);
    CHECK(rig.server_account.used < before);
    rig_end(&rig);

    size_t peak = rig.server_account.peak;
    rig.server_account.limit = peak * 3 / 4;
    int r = rig_begin(&rig, "localhost", NULL, 0);
    if (r == 0) {
        rig_run(&rig);
        r = rig.server_result;
        CHECK_STR(bm_tls_why(rig.at_server), "no memory for this connection");
    }
    CHECK_INT(r, -ENOMEM);
    CHECK(rig.server_account.peak <= peak);
    rig_deinit(&rig);
}

/* ---- Threads. */

static void *converse_on_a_thread(void *arg)
{
    struct rig *rig = (struct rig *)arg;
    for (unsigned i = 0; i < 10; i++) {
        CHECK_INT(converse(rig), 0);
        CHECK_MEM(rig->server_got, rig->server_got_len, "hello", 5);
        rig_deinit(rig);
    }
    return NULL;
}

TEST(tls_contexts_of_several_threads_share_nothing)
{
    enum { THREADS = 3 };
    static struct rig rigs[THREADS];
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        rig_init(&rigs[i]);
        REQUIRE_INT(pthread_create(&threads[i], NULL, converse_on_a_thread, &rigs[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}
