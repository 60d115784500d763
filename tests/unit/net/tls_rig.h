/* Two ends of TLS in one test's memory: certificates that are made here, contexts, and a wire between two
 * connections that can be cut into pieces, looked at and spoilt. */
#ifndef BEAM_TEST_TLS_RIG_H
#define BEAM_TEST_TLS_RIG_H

#include <errno.h>
#include <string.h>

#include <beam/error.h>

#include "net/proto/certificate.h"
#include "net/proto/tls.h"
#include "tests/support/test.h"

struct rig {
    struct bm_certificate ca, server, client; /* the client's is its own only where asked for */
    struct bm_tls_context *server_context, *client_context;
    struct bm_tls *at_server, *at_client;
    size_t piece; /* bytes delivered at once; 0: all there are */
    uint64_t now_ns;
    int server_result, client_result; /* the last of bm_tls_receive(), bm_tls_read() */
    char server_got[70000], client_got[70000];
    size_t server_got_len, client_got_len;
    struct bm_account server_account, client_account;
    char why[BM_TLS_WHY_LEN];
};

static inline struct bm_certificate rig_certificate(enum bm_certificate_use use, const char *name,
                                                    const struct bm_certificate *issuer)
{
    const char *names[] = {name, NULL};
    const struct bm_certificate_options options = {
        .size = sizeof(options),
        .use = use,
        .common_name = name,
        .names = use == BM_CERTIFICATE_CA ? NULL : names,
        .issuer = issuer,
    };
    struct bm_certificate made;
    REQUIRE_INT(bm_certificate_make(&made, &options), 0);
    return made;
}

static inline struct bm_tls_bytes rig_text(const char *text)
{
    return (struct bm_tls_bytes){.data = text, .len = strlen(text)};
}

static inline struct bm_tls_options rig_server_options(const struct rig *rig)
{
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    return (struct bm_tls_options){
        .size = sizeof(struct bm_tls_options),
        .role = BM_TLS_SERVER,
        .chain = rig_text(rig->server.pem),
        .key = rig_text(rig->server.key),
        .alpn = alpn,
    };
}

static inline struct bm_tls_options rig_client_options(const struct rig *rig)
{
    static const char *const alpn[] = {"h2", NULL};
    return (struct bm_tls_options){
        .size = sizeof(struct bm_tls_options),
        .role = BM_TLS_CLIENT,
        .ca = rig_text(rig->ca.pem),
        .alpn = alpn,
    };
}

/* A CA, and a server's certificate for "localhost". */
static inline void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    rig->now_ns = 1000000000u;
    rig->ca = rig_certificate(BM_CERTIFICATE_CA, "a CA", NULL);
    rig->server = rig_certificate(BM_CERTIFICATE_SERVER, "dns:localhost", &rig->ca);
    rig->client = rig_certificate(BM_CERTIFICATE_CLIENT, "uri:beam://tests/client", &rig->ca);
}

static inline void rig_contexts(struct rig *rig, const struct bm_tls_options *server,
                                const struct bm_tls_options *client)
{
    struct bm_tls_options server_default = rig_server_options(rig);
    struct bm_tls_options client_default = rig_client_options(rig);
    int r = bm_tls_context_new(&rig->server_context, server ? server : &server_default, rig->why);
    test_note("%s", rig->why);
    REQUIRE_INT(r, 0);
    r = bm_tls_context_new(&rig->client_context, client ? client : &client_default, rig->why);
    test_note("%s", rig->why);
    REQUIRE_INT(r, 0);
}

static inline int rig_begin(struct rig *rig, const char *host, const uint8_t *resume,
                            size_t resume_len)
{
    struct bm_tls_start at_server = {.size = sizeof(at_server), .account = &rig->server_account};
    struct bm_tls_start at_client = {
        .size = sizeof(at_client),
        .host = host,
        .port = 443,
        .resume = resume,
        .resume_len = resume_len,
        .account = &rig->client_account,
    };
    rig->server_result = rig->client_result = 0;
    rig->server_got_len = rig->client_got_len = 0;
    int r = bm_tls_new(&rig->at_server, rig->server_context, &at_server);
    if (r == 0)
        r = bm_tls_new(&rig->at_client, rig->client_context, &at_client);
    return r;
}

static inline void rig_end(struct rig *rig)
{
    rig->at_server = bm_tls_free(rig->at_server);
    rig->at_client = bm_tls_free(rig->at_client);
    CHECK_UINT(rig->server_account.used, 0);
    CHECK_UINT(rig->client_account.used, 0);
}

static inline void rig_deinit(struct rig *rig)
{
    rig_end(rig);
    rig->server_context = bm_tls_context_unref(rig->server_context);
    rig->client_context = bm_tls_context_unref(rig->client_context);
}

/* Gives bytes to one end and reads all that they hold. */
static inline int rig_give(struct rig *rig, struct bm_tls *tls, const uint8_t *bytes, size_t len)
{
    bool server = tls == rig->at_server;
    char *got = server ? rig->server_got : rig->client_got;
    size_t *got_len = server ? &rig->server_got_len : &rig->client_got_len, n;
    int r = bm_tls_receive(tls, bytes, len, rig->now_ns);
    while (r == 0) {
        r = bm_tls_read(tls, got + *got_len, sizeof(rig->server_got) - *got_len, &n);
        if (r == 0)
            *got_len += n;
    }
    return r;
}

/* One end's output to the other, in pieces. True: there was some. */
static inline bool rig_carry(struct rig *rig, struct bm_tls *from, struct bm_tls *to, int *result)
{
    size_t len;
    const uint8_t *bytes = bm_tls_output(from, &len);
    if (len == 0)
        return false;
    for (size_t at = 0, n; at < len; at += n) {
        n = rig->piece > 0 && rig->piece < len - at ? rig->piece : len - at;
        int r = rig_give(rig, to, bytes + at, n);
        if (*result >= 0) /* the first failure stays */
            *result = r;
    }
    bm_tls_output_ack(from, len);
    return true;
}

/* Until neither has anything to say. */
static inline void rig_talk(struct rig *rig)
{
    for (bool moved = true; moved;) {
        moved = rig_carry(rig, rig->at_client, rig->at_server, &rig->server_result);
        moved = rig_carry(rig, rig->at_server, rig->at_client, &rig->client_result) || moved;
    }
}

/* The same, and says how it went. */
static inline void rig_run(struct rig *rig)
{
    rig_talk(rig);
    test_note("server %d (%s), client %d (%s)", rig->server_result, bm_tls_why(rig->at_server),
              rig->client_result, bm_tls_why(rig->at_client));
}

static inline bool rig_is_open(const struct rig *rig)
{
    return bm_tls_is_open(rig->at_server) && bm_tls_is_open(rig->at_client);
}

/* A handshake, as far as it goes, of a client that wants this host. */
static inline void rig_meet(struct rig *rig, const char *host)
{
    REQUIRE_INT(rig_begin(rig, host, NULL, 0), 0);
    rig_run(rig);
}

/* The same for "localhost", with new contexts; NULL: options as they are by default. */
static inline void rig_start(struct rig *rig, const struct bm_tls_options *server,
                             const struct bm_tls_options *client)
{
    rig_contexts(rig, server, client);
    rig_meet(rig, "localhost");
}

/* All of it from the beginning: two ends that understand each other. */
static inline void rig_open(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, NULL, NULL);
    REQUIRE(rig_is_open(rig));
}

/* All of it, over as many turns as the output needs. */
static inline void rig_write(struct rig *rig, struct bm_tls *from, const void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t taken = 0;
        REQUIRE_INT(bm_tls_write(from, (const char *)data + at, len - at, &taken), 0);
        at += taken;
        rig_run(rig);
        REQUIRE(taken > 0);
    }
}

#endif
