/* A peer of TLS: any bytes to a server or to a client, or changes to the bytes of two ends that would
 * understand each other. Whatever comes, a connection ends with one error and stays with it, what waits in
 * its output keeps to its limit, nothing that was not encrypted by the other end is given out as plaintext,
 * and all memory comes back.
 *
 * Covers: net/proto/payer.c */
#include <errno.h>
#include <stdbool.h>

#include "net/proto/certificate.h"
#include "net/proto/tls.h"
#include "tests/fuzz/fuzz.h"

enum { MODE_SERVER, MODE_CLIENT, MODE_TO_SERVER, MODE_TO_CLIENT, MODES };

#define STEPS_MAX 64u
#define SAID "what one end has said"

static struct bm_tls_context *server, *client;

static struct bm_certificate make(enum bm_certificate_use use, const char *name,
                                  const struct bm_certificate *issuer)
{
    const char *names[] = {name, NULL};
    const struct bm_certificate_options options = {
        .size = sizeof(options),
        .use = use,
        .common_name = name,
        .names = names,
        .issuer = issuer,
    };
    struct bm_certificate made;
    EXPECT(bm_certificate_make(&made, &options) == 0);
    return made;
}

static struct bm_tls_bytes text(const char *pem)
{
    return (struct bm_tls_bytes){.data = pem, .len = strlen(pem)};
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    static const char *const alpn[] = {"h2", "http/1.1", NULL};
    static const struct bm_tls_ticket_key keys[BM_TLS_TICKET_KEYS];
    struct bm_certificate ca = make(BM_CERTIFICATE_CA, "dns:ca.test", NULL);
    struct bm_certificate own = make(BM_CERTIFICATE_SERVER, "dns:localhost", &ca);
    const struct bm_tls_options at_server = {
        .size = sizeof(at_server),
        .role = BM_TLS_SERVER,
        .chain = text(own.pem),
        .key = text(own.key),
        .alpn = alpn,
        .tls12 = true,
    };
    const struct bm_tls_options at_client = {
        .size = sizeof(at_client),
        .role = BM_TLS_CLIENT,
        .ca = text(ca.pem),
        .alpn = alpn,
        .tls12 = true,
    };
    EXPECT(bm_tls_context_new(&server, &at_server, NULL) == 0);
    EXPECT(bm_tls_context_new(&client, &at_client, NULL) == 0);
    bm_tls_context_ticket_keys(server, keys);
    return 0;
}

/* An end of the conversation, and what is known about it. */
struct end {
    struct bm_tls *tls;
    struct bm_account account;
    int result;
    size_t got; /* plaintext, which must be the beginning of SAID */
};

static void begin(struct end *end, struct bm_tls_context *context)
{
    const struct bm_tls_start start = {
        .size = sizeof(start),
        .host = "localhost",
        .account = &end->account,
    };
    EXPECT(bm_tls_new(&end->tls, context, &start) == 0);
}

static void finish(struct end *end)
{
    size_t len;
    if (end->tls) {
        bm_tls_output(end->tls, &len);
        EXPECT(len <= BM_TLS_OUTPUT_MAX);
        EXPECT((end->result >= 0) == (bm_tls_why(end->tls)[0] == '\0'));
        int r = bm_tls_cut(end->tls);
        EXPECT(end->result >= 0 || r == end->result);
    }
    end->tls = bm_tls_free(end->tls);
    EXPECT(end->account.used == 0);
}

static void give(struct end *end, const uint8_t *bytes, size_t len)
{
    char buf[64];
    size_t n = 0;
    void *copy = fuzz_copy(bytes, len);
    int r = bm_tls_receive(end->tls, copy, len, 1);
    while (r == 0) {
        r = bm_tls_read(end->tls, buf, sizeof(buf), &n);
        if (r == 0) {
            EXPECT(n > 0 && n <= sizeof(buf));
            EXPECT(end->got + n <= sizeof(SAID) - 1);
            EXPECT(memcmp(buf, &SAID[end->got], n) == 0);
            end->got += n;
        }
    }
    EXPECT(r == BM_TLS_MORE || r == BM_TLS_END || r < 0);
    EXPECT(end->result >= 0 || r == end->result);
    if (end->result >= 0)
        end->result = r;
    if (r < 0)
        EXPECT(!bm_tls_is_open(end->tls) && bm_tls_write(end->tls, "x", 1, &n) == r);
    free(copy);
}

/* Raw bytes in pieces whose lengths the input says. */
static void raw(struct bm_tls_context *context, struct fuzz_input *in)
{
    struct end end = {0};
    begin(&end, context);
    char name[BM_TLS_HOST_MAX + 1];
    (void)bm_tls_peek_name(in->pos, (size_t)(in->end - in->pos), name);
    while (in->pos < in->end) {
        size_t len = (size_t)fuzz_byte(in) * 8 + 1;
        const uint8_t *piece = fuzz_view(in, &len);
        give(&end, piece, len);
    }
    EXPECT(end.got == 0);
    finish(&end);
}

/* Changes some of what stands in bytes: where, and how, three bytes of input each. */
static void spoil(uint8_t *bytes, size_t len, struct fuzz_input *in)
{
    for (unsigned count = fuzz_byte(in) % 8; count > 0; count--) {
        size_t at = (size_t)fuzz_byte(in) | (size_t)fuzz_byte(in) << 8;
        uint8_t change = fuzz_byte(in);
        if (at < len)
            bytes[at] ^= change;
    }
}

static bool carry(struct end *from, struct end *to, struct fuzz_input *in, bool spoilt)
{
    size_t len;
    const uint8_t *output = bm_tls_output(from->tls, &len);
    if (len == 0)
        return false;
    uint8_t *copy = fuzz_copy(output, len);
    bm_tls_output_ack(from->tls, len);
    if (spoilt)
        spoil(copy, len, in);
    give(to, copy, len);
    free(copy);
    return true;
}

static void between(bool to_server, struct fuzz_input *in)
{
    struct end at_server = {0}, at_client = {0};
    bool said = false;
    size_t taken;
    begin(&at_server, server);
    begin(&at_client, client);
    for (unsigned step = 0; step < STEPS_MAX; step++) {
        bool moved = carry(&at_client, &at_server, in, to_server);
        moved = carry(&at_server, &at_client, in, !to_server) || moved;
        if (!said && bm_tls_is_open(at_server.tls) && bm_tls_is_open(at_client.tls)) {
            said = true;
            EXPECT(bm_tls_write(at_server.tls, SAID, sizeof(SAID) - 1, &taken) == 0);
            EXPECT(bm_tls_write(at_client.tls, SAID, sizeof(SAID) - 1, &taken) == 0);
            moved = true;
        }
        if (!moved)
            break;
    }
    finish(&at_server);
    finish(&at_client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    unsigned mode = fuzz_byte(&in) % MODES;
    if (mode == MODE_SERVER || mode == MODE_CLIENT)
        raw(mode == MODE_SERVER ? server : client, &in);
    else
        between(mode == MODE_TO_SERVER, &in);
    return 0;
}
