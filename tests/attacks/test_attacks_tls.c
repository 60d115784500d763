/* Peers that are not who they have to be, speak what is not spoken here, or begin and never go on: refused,
 * with a word that says why at both ends, and at little cost. docs/attacks.md. */
#include "tests/attacks/attack_rig.h"

#include <sys/resource.h>

/* ---- handshakes that never end ---- */

enum { HANDSHAKES = 2000 };

/* As many of them as both ends have descriptors for. */
static unsigned handshakes_max(void)
{
    struct rlimit limit;
    REQUIRE_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    unsigned each = (unsigned)(limit.rlim_cur < 20000 ? limit.rlim_cur : 20000) / 2;
    return each > HANDSHAKES + 100 ? HANDSHAKES : each - 100;
}

/* Half of them say nothing, the others begin. */
TEST(attack_idle_handshakes)
{
    static const uint8_t begin[] = {0x16, 3, 1, 2, 0, 1};
    static int fds[HANDSHAKES];
    unsigned count = handshakes_max(), closed = 0;
    attack_begin(NULL);
    unsigned calls = atomic_load(&site.neighbour.calls);
    for (unsigned i = 0; i < count; i++) {
        fds[i] = attack_connect(&site.secure);
        REQUIRE(fds[i] >= 0);
        if (i % 2 == 1)
            CHECK_INT(send(fds[i], begin, sizeof(begin), MSG_NOSIGNAL), (ssize_t)sizeof(begin));
    }
    while (atomic_load(&site.neighbour.calls) - calls < ATTACK_CALLS)
        neighbour_until(10);
    attack_see_memory(&site.neighbour.peak_bytes);
    printf("     %u handshakes cost %zu bytes each\n", count,
           (atomic_load(&site.neighbour.peak_bytes) - site.before_bytes) / count);
    attack_pass(5 * BM_NS_PER_S);
    for (unsigned i = 0; i < count; i++) {
        struct pollfd pfd = {.fd = fds[i], .events = POLLIN};
        char byte;
        while (poll(&pfd, 1, ATTACK_CLOSED_MS) == 1 && recv(fds[i], &byte, 1, 0) > 0)
            ; /* an alert */
        closed += pfd.revents != 0;
        close(fds[i]);
    }
    CHECK_UINT(closed, count);
    attack_end("handshakes that never end");
}

/* ---- certificates ---- */

/* The client says why, and so does the server's log. */
static void refused(const char *host, struct bm_tls_context *context, const char *client_why,
                    const char *server_why)
{
    struct attacker attacker;
    attacker_open_with(&attacker, true, true, context, host);
    ATTACKER_UNTIL(&attacker, attacker.closed);
    const char *why = bm_tls_why(attacker.tls);
    test_note("the client says '%s'", why);
    CHECK(attacker.error < 0);
    CHECK(strstr(why, client_why) != NULL);
    attacker_close(&attacker);
    WAIT_UNTIL(attack_has_logged());
    CHECK(attack_logged(server_why));
}

TEST(attack_wrong_host)
{
    site_open(NULL);
    refused("other.example", NULL, "issued for localhost, not other.example", "alert");
    site_close();
}

TEST(attack_expired_certificate)
{
    attack_expired = true;
    site_open(NULL);
    attack_expired = false;
    refused("localhost", NULL, "has expired", "expired");
    site_close();
}

TEST(attack_unknown_authority)
{
    site_open(NULL);
    struct bm_certificate other = attack_certificate(BM_CERTIFICATE_CA, "other", NULL);
    struct bm_tls_context *context = attack_client_context(
        &(struct bm_tls_options){.ca = {.data = other.pem, .len = strlen(other.pem)}}, "h2");
    refused("localhost", context, "signed by an unknown CA", "unknown certificate authority");
    bm_tls_context_unref(context);
    site_close();
}

/* A server that asks for certificates; from two authorities. */
TEST(attack_without_client_certificate)
{
    struct bm_certificate ca = attack_certificate(BM_CERTIFICATE_CA, "clients", NULL);
    struct bm_certificate other = attack_certificate(BM_CERTIFICATE_CA, "others", NULL);
    struct bm_certificate client =
        attack_certificate(BM_CERTIFICATE_CLIENT, "uri:beam://me", &other);
    site_open(&(struct beam_net_listen){.size = sizeof(struct beam_net_listen),
                                        .client_ca = attack_pem(ca.pem)});
    refused("localhost", NULL, "the peer has refused", "no client certificate");
    struct bm_tls_context *context = attack_client_context(
        &(struct bm_tls_options){.chain = {.data = client.pem, .len = strlen(client.pem)},
                                 .key = {.data = client.key, .len = strlen(client.key)}},
        "h2");
    refused("localhost", context, "the peer has refused", "signed by an unknown CA");
    bm_tls_context_unref(context);
    site_close();
}

/* ---- what is not spoken here ---- */

/* A ClientHello by hand. */
struct hello {
    uint8_t bytes[600];
    size_t len;
};

static void put(struct hello *hello, const void *bytes, size_t len)
{
    memcpy(hello->bytes + hello->len, bytes, len);
    hello->len += len;
}

static void put_u16(struct hello *hello, unsigned value)
{
    const uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    put(hello, bytes, 2);
}

static void put_extension(struct hello *hello, unsigned type, const void *bytes, size_t len)
{
    put_u16(hello, type);
    put_u16(hello, (unsigned)len);
    put(hello, bytes, len);
}

struct offer {
    const char *name;
    unsigned version; /* the highest; 0x0304: TLS 1.3 */
    unsigned cipher;
    const char *alpn; /* the extension, as it goes out */
    size_t alpn_len;
    unsigned alert;
    const char *server_why;
};

#define ALPN(bytes) .alpn = (bytes), .alpn_len = sizeof(bytes) - 1
#define ALPN_H2 ALPN("\0\3\2h2")

static void make_hello(struct hello *hello, const struct offer *offer)
{
    static const uint8_t groups[] = {0, 2, 0, 29};                  /* X25519 */
    static const uint8_t signatures[] = {0, 4, 4, 3, 8, 4};         /* P-256, RSA-PSS */
    static const uint8_t versions[] = {2, 3, 4};                    /* 1.3 */
    uint8_t share[38] = {0, 36, 0, 29, 0, 32, 9}, random[32] = {7}; /* 9: the base point */
    struct hello body = {.len = 0}, extensions = {.len = 0};
    put_extension(&extensions, 10, groups, sizeof(groups));
    put_extension(&extensions, 13, signatures, sizeof(signatures));
    put_extension(&extensions, 16, offer->alpn, offer->alpn_len);
    if (offer->version == 0x0304) {
        put_extension(&extensions, 43, versions, sizeof(versions));
        put_extension(&extensions, 51, share, sizeof(share));
    }
    put_u16(&body, offer->version < 0x0303 ? offer->version : 0x0303);
    put(&body, random, sizeof(random));
    put(&body, "", 1); /* no session */
    put_u16(&body, 2);
    put_u16(&body, offer->cipher);
    put(&body, "\1\0", 2); /* no compression */
    put_u16(&body, (unsigned)extensions.len);
    put(&body, extensions.bytes, extensions.len);
    hello->len = 0;
    put(hello, "\x16\3\1", 3);
    put_u16(hello, (unsigned)body.len + 4);
    put(hello, "\1\0", 2);
    put_u16(hello, (unsigned)body.len);
    put(hello, body.bytes, body.len);
}

enum {
    HANDSHAKE_FAILURE = 40,
    DECODE_ERROR = 50,
    PROTOCOL_VERSION = 70,
    MISSING_EXTENSION = 109,
    NO_ALPN = 120,
    MALFORMED = 1000,
};

static void check_offer(const struct offer *offer)
{
    struct attacker attacker;
    struct hello hello;
    test_note("%s", offer->name);
    make_hello(&hello, offer);
    attacker_tcp(&attacker, true, false);
    REQUIRE(attacker_send(&attacker, hello.bytes, hello.len));
    CHECK(attacker_is_closed(&attacker));
    const uint8_t *got = (const uint8_t *)attacker.text;
    if (offer->alert == 0) {
        CHECK_UINT(got[0], 0x16); /* a ServerHello: this is one that goes through */
    } else {
        test_note("%s: got %zu bytes: %02x .. alert %u", offer->name, attacker.text_len, got[0],
                  got[6]);
        CHECK_UINT(attacker.text_len, 7);
        CHECK_UINT(got[0], 0x15); /* fatal alert */
        CHECK_UINT(got[5], 2);
        if (offer->alert == MALFORMED)
            CHECK(got[6] == DECODE_ERROR || got[6] == MISSING_EXTENSION); /* the library decides */
        else
            CHECK_UINT(got[6], offer->alert);
    }
    attacker_close(&attacker);
    if (offer->alert != 0) {
        WAIT_UNTIL(attack_has_logged());
        CHECK(attack_logged(offer->server_why));
    }
}

TEST(attack_old_versions_of_tls)
{
    static const struct offer offers[] = {
        {"TLS 1.0", 0x0301, 0xc013, ALPN_H2, PROTOCOL_VERSION, "version of TLS"},
        {"TLS 1.1", 0x0302, 0xc013, ALPN_H2, PROTOCOL_VERSION, "version of TLS"},
        {"TLS 1.2", 0x0303, 0xc02b, ALPN_H2, PROTOCOL_VERSION, "version of TLS"},
    };
    site_open(NULL);
    for (unsigned i = 0; i < BM_ARRAY_LEN(offers); i++)
        check_offer(&offers[i]);
    site_close();
}

/* Ciphers that encrypt nothing, of 1.3 (RFC 9150) and of 1.2, where that is spoken. */
TEST(attack_null_cipher)
{
    static const struct offer offers[] = {
        {"1.3, integrity alone", 0x0304, 0xc0b4, ALPN_H2, HANDSHAKE_FAILURE, "cipher suite"},
        {"1.2, NULL", 0x0303, 0x003b, ALPN_H2, HANDSHAKE_FAILURE, "cipher suite"},
        {"1.2, ECDHE with NULL", 0xc006, 0xc006, ALPN_H2, HANDSHAKE_FAILURE, "cipher suite"},
    };
    site_open(&(struct beam_net_listen){.size = sizeof(struct beam_net_listen), .tls12 = true});
    for (unsigned i = 0; i < BM_ARRAY_LEN(offers); i++)
        check_offer(&offers[i]);
    site_close();
}

TEST(attack_malformed_alpn)
{
    static const struct offer offers[] = {
        {"none in common", 0x0304, 0x1301, ALPN("\0\3\2h3"), NO_ALPN, "application protocol"},
        {"an empty list", 0x0304, 0x1301, ALPN("\0\0"), MALFORMED, "malformed"},
        {"an empty name", 0x0304, 0x1301, ALPN("\0\1\0"), MALFORMED, "malformed"},
        {"an empty name behind another", 0x0304, 0x1301, ALPN("\0\4\2h2\0"), MALFORMED,
         "malformed"},
        {"a list longer than the extension", 0x0304, 0x1301, ALPN("\0\4\2h2"), MALFORMED,
         "malformed"},
        {"a list shorter than the extension", 0x0304, 0x1301, ALPN("\0\3\2h2\2"), MALFORMED,
         "malformed"},
        {"a name longer than the list", 0x0304, 0x1301, ALPN("\0\3\3h2"), MALFORMED, "malformed"},
        {"no list", 0x0304, 0x1301, ALPN(""), MALFORMED, "malformed"},
        {"half a length", 0x0304, 0x1301, ALPN("\0"), MALFORMED, "malformed"},
    };
    site_open(NULL);
    for (unsigned i = 0; i < BM_ARRAY_LEN(offers); i++)
        check_offer(&offers[i]);
    site_close();
}
