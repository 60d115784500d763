/* Contexts of TLS: what is decided once, made strict whatever the options, and loaded.
 *
 * One a reactor, and connections keep theirs alive. What a context is (role, certificate, trust, protocols)
 * has a sum, `id`: a ticket opens nothing else, and a session is resumed with nothing else. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <beam/error.h>

#ifndef WOLFSSL_USER_SETTINGS /* the system's says in there how it was made; ours has our own file */
#include <wolfssl/options.h>
#endif
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/chacha20_poly1305.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "base/cleanup.h"
#include "net/proto/certificate.h"
#include "net/proto/tls_inner.h"
#include "net/proto/wolfssl_users.h"

#define DEFAULT_TICKET_LIFETIME_S 7200u

_Static_assert(BM_TLS_ID_LEN == 256 / 8, "a SHA-256");

static void context_freep(struct bm_tls_context **context)
{
    bm_tls_context_unref(*context);
}

struct bm_tls_context *bm_tls_context_ref(struct bm_tls_context *context)
{
    context->refs++;
    return context;
}

struct bm_tls_context *bm_tls_context_unref(struct bm_tls_context *context)
{
    if (!context || --context->refs > 0)
        return NULL;
    struct bm_payer *outer = bm_payer_enter(context->payer);
    wolfSSL_CTX_free(context->ctx);
    bm_payer_leave(outer);
    bm_wolfssl_leave();
    bm_payer_free(context->payer);
    bm_pem_deinit(&context->staple, context->account);
    explicit_bzero(context->ticket_keys, sizeof(context->ticket_keys));
    return (struct bm_tls_context *)bm_free(context->account, context, sizeof(*context));
}

static int load(struct bm_pem *ret_pem, const struct bm_tls_bytes *from, const char *what,
                struct bm_account *account, char *ret_why)
{
    int r = bm_pem_load(ret_pem, account, from->path, from->data, from->len, BM_TLS_PEM_MAX);
    if (r < 0)
        bm_tls_say(ret_why, r, "%s%s%s: %s", what, from->path ? " " : "",
                   from->path ? from->path : "", beam_strerror(r));
    return r;
}

static void mix(wc_Sha256 *hash, const void *data, size_t len)
{
    uint64_t len64 = len;
    (void)wc_Sha256Update(hash, (const byte *)&len64, sizeof(len64));
    if (len > 0)
        (void)wc_Sha256Update(hash, (const byte *)data, (word32)len);
}

/* Authorities one by one: of a system's bundle, those that this library cannot use are left out. */
static int add_authorities(struct bm_tls_context *context, const struct bm_pem *pem, bool strict,
                           char *ret_why)
{
    const uint8_t *block;
    size_t at = 0, len;
    unsigned count = 0;
    while (bm_pem_next(pem, "CERTIFICATE", &at, &block, &len) == 0) {
        int r =
            wolfSSL_CTX_load_verify_buffer(context->ctx, block, (long)len, WOLFSSL_FILETYPE_PEM);
        if (bm_payer_refused(context->payer))
            return -ENOMEM;
        if (r == WOLFSSL_SUCCESS)
            count++;
        else if (strict)
            return bm_tls_say(ret_why, -BEAM_ETLS_CONFIGURATION, "authority %u: %s", count + 1,
                              bm_tls_library_says(r));
    }
    return count > 0 ? 0 : bm_tls_say(ret_why, -BEAM_ETLS_CONFIGURATION, "no authority to trust");
}

static int load_system_authorities(struct bm_pem *ret_pem, struct bm_account *account,
                                   char *ret_why)
{
    static const char *const places[] = {
        "/etc/ssl/certs/ca-certificates.crt", /* Debian */
        "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora */
        "/etc/ssl/ca-bundle.pem",             /* SUSE */
        "/etc/ssl/cert.pem",                  /* Alpine */
    };
    const char *told = secure_getenv("SSL_CERT_FILE"); /* as OpenSSL does */
    int r = -ENOENT;
    if (told)
        r = bm_pem_load(ret_pem, account, told, NULL, 0, BM_TLS_PEM_MAX);
    for (size_t i = 0; !told && r == -ENOENT && i < BM_ARRAY_LEN(places); i++)
        r = bm_pem_load(ret_pem, account, places[i], NULL, 0, BM_TLS_PEM_MAX);
    return r < 0 ? bm_tls_say(ret_why, r, "the system's authorities%s%s: %s", told ? " " : "",
                              told ? told : "", beam_strerror(r))
                 : 0;
}

static int trust(struct bm_tls_context *context, const struct bm_tls_options *options,
                 wc_Sha256 *hash, char *ret_why)
{
    struct bm_pem ca = {0}, crl = {0};
    bool own = options->ca.path || options->ca.data;
    int r = 0;
    if (own)
        r = load(&ca, &options->ca, "authorities", context->account, ret_why);
    else if (context->role == BM_TLS_CLIENT)
        r = load_system_authorities(&ca, context->account, ret_why);
    if (r == 0)
        r = load(&crl, &options->crl, "revocation list", context->account, ret_why);
    mix(hash, ca.data, ca.len);
    mix(hash, crl.data, crl.len);
    if (r == 0 && ca.data)
        r = add_authorities(context, &ca, own, ret_why);
    if (r == 0 && crl.data) {
        const uint8_t *block;
        size_t at = 0, len;
        unsigned count = 0;
        if (wolfSSL_CTX_EnableCRL(context->ctx, WOLFSSL_CRL_CHECKALL) != WOLFSSL_SUCCESS)
            r = -ENOMEM;
#ifdef HAVE_CRL_IO /* the system's would fetch, and wait for it */
        wolfSSL_CTX_SetCRL_IOCb(context->ctx, NULL);
#endif
        for (; r == 0 && bm_pem_next(&crl, "X509 CRL", &at, &block, &len) == 0; count++) {
            int said =
                wolfSSL_CTX_LoadCRLBuffer(context->ctx, block, (long)len, WOLFSSL_FILETYPE_PEM);
            if (bm_payer_refused(context->payer))
                r = -ENOMEM;
            else if (said != WOLFSSL_SUCCESS)
                r = bm_tls_say(ret_why, -BEAM_ETLS_CONFIGURATION, "revocation list %u: %s",
                               count + 1, bm_tls_library_says(said));
        }
        if (r == 0 && count == 0)
            r = bm_tls_say(ret_why, -BEAM_ETLS_CONFIGURATION,
                           "no revocation list where one was named");
    }
    bm_pem_deinit(&ca, context->account);
    bm_pem_deinit(&crl, context->account);
    return r;
}

static int use_key_pair(struct bm_tls_context *context, const struct bm_pem *chain,
                        const struct bm_pem *key, char *ret_why)
{
    int said =
        wolfSSL_CTX_use_certificate_chain_buffer(context->ctx, chain->data, (long)chain->len);
    if (said != WOLFSSL_SUCCESS)
        return bm_tls_say(ret_why, -BEAM_ETLS_CONFIGURATION, "the certificate cannot be used: %s",
                          bm_tls_library_says(said));
    said = wolfSSL_CTX_use_PrivateKey_buffer(context->ctx, key->data, (long)key->len,
                                             WOLFSSL_FILETYPE_PEM);
    if (said != WOLFSSL_SUCCESS)
        return bm_tls_say(ret_why, -BEAM_ETLS_CONFIGURATION, "the key cannot be used: %s",
                          bm_tls_library_says(said));
    int r = wolfSSL_CTX_check_private_key(context->ctx) == WOLFSSL_SUCCESS
                ? bm_certificate_check_key(chain->data, chain->len, key->data, key->len,
                                           context->account)
                : -BEAM_ETLS_CONFIGURATION;
    return r == -BEAM_ETLS_CONFIGURATION
               ? bm_tls_say(ret_why, r, "the key does not belong to the certificate")
               : r;
}

static int identify(struct bm_tls_context *context, const struct bm_tls_options *options,
                    wc_Sha256 *hash, char *ret_why)
{
    struct bm_pem chain = {0}, key = {0};
    int r = load(&chain, &options->chain, "certificate", context->account, ret_why);
    if (r == 0)
        r = load(&key, &options->key, "key", context->account, ret_why);
    mix(hash, chain.data, chain.len);
    if (r == 0 && chain.data)
        r = use_key_pair(context, &chain, &key, ret_why);
    if (bm_payer_refused(context->payer))
        r = -ENOMEM;
    bm_pem_deinit(&chain, context->account);
    bm_pem_deinit(&key, context->account);
    return r;
}

/* ---- What wolfSSL calls. */

/* A key with a password would be asked for at the terminal. */
static int no_password(char *buf, int len, int writing, void *arg)
{
    (void)buf;
    (void)len;
    (void)writing;
    (void)arg;
    return 0;
}

/* Instead of wolfSSL's own, which opens a connection and waits. */
static int no_lookup(void *arg, const char *url, int url_len, unsigned char *request,
                     int request_len, unsigned char **response)
{
    (void)arg;
    (void)url;
    (void)url_len;
    (void)request;
    (void)request_len;
    (void)response;
    return -1;
}

/* The list is the peer's: a length, then so many bytes, again and again (RFC 7301 3.1). */
static int on_alpn(WOLFSSL *ssl, const unsigned char **ret_name, unsigned char *ret_len,
                   const unsigned char *list, unsigned list_len, void *arg)
{
    const struct bm_tls_context *context = (const struct bm_tls_context *)arg;
    struct bm_tls *tls = (struct bm_tls *)wolfSSL_GetIOReadCtx(ssl);
    tls->alpn_refused = true;
    for (unsigned i = 0; i < context->alpn_count; i++) {
        const struct bm_tls_alpn_name *ours = &context->alpn[i];
        for (unsigned at = 0; at < list_len; at += 1u + list[at]) {
            unsigned len = list[at];
            if (len == 0 || len > list_len - at - 1)
                return SSL_TLSEXT_ERR_ALERT_FATAL;
            if (len == ours->len && memcmp(list + at + 1, ours->text, len) == 0) {
                *ret_name = (const unsigned char *)ours->text;
                *ret_len = ours->len;
                tls->alpn_refused = false;
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* wolfSSL takes the copy, and frees it. */
static int on_staple(WOLFSSL *ssl, void *arg)
{
    const struct bm_tls_context *context = (const struct bm_tls_context *)arg;
    unsigned char *copy = (unsigned char *)XMALLOC(context->staple.len, NULL, DYNAMIC_TYPE_OPENSSL);
    if (!copy)
        return SSL_TLSEXT_ERR_NOACK;
    memcpy(copy, context->staple.data, context->staple.len);
    wolfSSL_set_tlsext_status_ocsp_resp(ssl, copy, (int)context->staple.len);
    return SSL_TLSEXT_ERR_OK;
}

size_t bm_tls_asked_name(WOLFSSL *ssl, char ret_name[BM_TLS_HOST_MAX + 1])
{
    void *name = NULL;
    size_t len = wolfSSL_SNI_GetRequest(ssl, WOLFSSL_SNI_HOST_NAME, &name);
    if (!name || len > BM_TLS_HOST_MAX)
        len = 0;
    if (len > 0)
        memcpy(ret_name, name, len);
    ret_name[len] = '\0';
    return len;
}

/* A ticket is bound to what the server is (certificate, trust, protocols) and to the name it was asked for:
 * it opens nothing else, even where the keys are the same. */
static size_t ticket_binding(const struct bm_tls_context *context, WOLFSSL *ssl,
                             const uint8_t name[16],
                             uint8_t ret_binding[16 + BM_TLS_ID_LEN + BM_TLS_HOST_MAX + 1])
{
    memcpy(ret_binding, name, 16);
    memcpy(ret_binding + 16, context->id, sizeof(context->id));
    return 16 + sizeof(context->id) +
           bm_tls_asked_name(ssl, (char *)ret_binding + 16 + sizeof(context->id));
}

static int on_ticket(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ],
                     unsigned char nonce[WOLFSSL_TICKET_IV_SZ],
                     unsigned char tag[WOLFSSL_TICKET_MAC_SZ], int seal, unsigned char *ticket,
                     int len, int *ret_len, void *arg)
{
    const struct bm_tls_context *context = (const struct bm_tls_context *)arg;
    uint8_t binding[16 + BM_TLS_ID_LEN + BM_TLS_HOST_MAX + 1];
    const struct bm_tls_ticket_key *key = &context->ticket_keys[0];
    if (!context->has_ticket_keys || context->client_certificate)
        return WOLFSSL_TICKET_RET_REJECT;
    if (seal) {
        memcpy(name, key->name, sizeof(key->name));
        memset(tag, 0, WOLFSSL_TICKET_MAC_SZ);
        size_t bound = ticket_binding(context, ssl, name, binding);
        *ret_len = len;
        return getrandom(nonce, WOLFSSL_TICKET_IV_SZ, 0) == WOLFSSL_TICKET_IV_SZ &&
                       wc_ChaCha20Poly1305_Encrypt(key->secret, nonce, binding, (word32)bound,
                                                   ticket, (word32)len, ticket, tag) == 0
                   ? WOLFSSL_TICKET_RET_OK
                   : WOLFSSL_TICKET_RET_FATAL;
    }
    for (unsigned i = 0; i < BM_TLS_TICKET_KEYS; i++, key++) {
        if (memcmp(key->name, name, sizeof(key->name)) != 0) /* no secret */
            continue;
        size_t bound = ticket_binding(context, ssl, name, binding);
        *ret_len = len;
        if (wc_ChaCha20Poly1305_Decrypt(key->secret, nonce, binding, (word32)bound, ticket,
                                        (word32)len, tag, ticket) == 0)
            /* TLS 1.3 gives a new one with each connection; a result that asks for it refuses this. */
            return i == 0 || wolfSSL_version(ssl) == TLS1_3_VERSION ? WOLFSSL_TICKET_RET_OK
                                                                    : WOLFSSL_TICKET_RET_CREATE;
    }
    return WOLFSSL_TICKET_RET_REJECT; /* a whole handshake then */
}

/* ---- Making one. */

/* Strongest that is fast first; TLS 1.3 has nothing weak, of 1.2 these are the ones with AEAD and ECDHE. */
static const char aes_first[] =
    "TLS13-AES128-GCM-SHA256:TLS13-CHACHA20-POLY1305-SHA256:TLS13-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
static const char chacha_first[] =
    "TLS13-CHACHA20-POLY1305-SHA256:TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";

static WOLFSSL_METHOD *method_of(const struct bm_tls_options *options)
{
    if (options->role == BM_TLS_SERVER)
        return options->tls12 ? wolfSSLv23_server_method() : wolfTLSv1_3_server_method();
    return options->tls12 ? wolfSSLv23_client_method() : wolfTLSv1_3_client_method();
}

int bm_tls_verify_mode(const struct bm_tls_context *context)
{
    if (context->role == BM_TLS_CLIENT)
        return WOLFSSL_VERIFY_PEER;
    return context->client_certificate ? WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                       : WOLFSSL_VERIFY_NONE;
}

/* What every context has, whatever the options. */
static int make_strict(struct bm_tls_context *context, const struct bm_tls_options *options)
{
    WOLFSSL_CTX *ctx = context->ctx;
    int groups[] = {WOLFSSL_ECC_X25519, WOLFSSL_ECC_SECP256R1};
    bool server = context->role == BM_TLS_SERVER;
    bool ok = wolfSSL_CTX_SetMinVersion(ctx, options->tls12 ? WOLFSSL_TLSV1_2 : WOLFSSL_TLSV1_3) ==
                  WOLFSSL_SUCCESS &&
              wolfSSL_CTX_set_cipher_list(ctx, bm_tls_has_aes() ? aes_first : chacha_first) ==
                  WOLFSSL_SUCCESS &&
              wolfSSL_CTX_UseSupportedCurve(ctx, WOLFSSL_ECC_X25519) == WOLFSSL_SUCCESS &&
              wolfSSL_CTX_UseSupportedCurve(ctx, WOLFSSL_ECC_SECP256R1) == WOLFSSL_SUCCESS &&
              wolfSSL_CTX_set_groups(ctx, groups, 2) == WOLFSSL_SUCCESS;
#ifdef WOLFSSL_USER_SETTINGS /* 5.5.4 has no such call: it prefers fresh keys, but does not insist */
    ok = ok && wolfSSL_CTX_only_dhe_psk(ctx) == 0;
#endif
    if (!ok)
        return -ENOMEM;
    /* Before anything is loaded: an authority is looked at as strictly as this says. */
    wolfSSL_CTX_set_verify(ctx, bm_tls_verify_mode(context), NULL);
    wolfSSL_CTX_set_session_cache_mode(ctx, WOLFSSL_SESS_CACHE_OFF);
    wolfSSL_CTX_set_default_passwd_cb(ctx, no_password);
    wolfSSL_CTX_SetIORecv(ctx, bm_tls_on_receive);
    wolfSSL_CTX_SetIOSend(ctx, bm_tls_on_send);
    wolfSSL_CTX_SetOCSP_Cb(ctx, no_lookup, NULL, NULL);
    if (server && context->alpn_count > 0)
        wolfSSL_CTX_set_alpn_select_cb(ctx, on_alpn, context);
    if (server) {
        uint32_t lifetime_s =
            options->ticket_lifetime_s ? options->ticket_lifetime_s : DEFAULT_TICKET_LIFETIME_S;
        /* Half, so that a client has no ticket whose key is gone already. */
        ok = wolfSSL_CTX_set_TicketEncCb(ctx, on_ticket) == WOLFSSL_SUCCESS &&
             wolfSSL_CTX_set_TicketEncCtx(ctx, context) == WOLFSSL_SUCCESS &&
             wolfSSL_CTX_set_TicketHint(ctx, (int)(lifetime_s / 2)) == WOLFSSL_SUCCESS &&
             wolfSSL_CTX_set_timeout(ctx, lifetime_s / 2) > 0;
    }
    if (!server)
        ok = wolfSSL_CTX_EnableOCSPStapling(ctx) == WOLFSSL_SUCCESS;
    return ok ? 0 : -ENOMEM;
}

static int add_staple(struct bm_tls_context *context, const struct bm_tls_options *options,
                      char *ret_why)
{
    int r = load(&context->staple, &options->staple, "OCSP response", context->account, ret_why);
    if (r < 0 || !context->staple.data)
        return r;
    if (wolfSSL_lib_version_hex() < 0x05009000) /* 5.5.4 wants to ask the responder itself */
        return bm_tls_say(ret_why, -ENOTSUP, "OCSP response: this wolfSSL is too old to give one");
    if (wolfSSL_CTX_EnableOCSPStapling(context->ctx) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_set_tlsext_status_cb(context->ctx, on_staple) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_set_tlsext_status_arg(context->ctx, context) != WOLFSSL_SUCCESS)
        return -ENOMEM;
    return 0;
}

static bool is_named(const struct bm_tls_bytes *bytes)
{
    return bytes->path || bytes->data;
}

static int take_alpn(struct bm_tls_context *context, const struct bm_tls_options *options,
                     char *ret_why)
{
    for (const char *const *name = options->alpn; name && *name; name++) {
        size_t len = strlen(*name);
        if (context->alpn_count == BM_TLS_ALPN_MAX || len == 0 || len > BM_TLS_ALPN_NAME_MAX ||
            strchr(*name, ','))
            return bm_tls_say(ret_why, -EINVAL,
                              "too many application protocols, or a name of no use");
        struct bm_tls_alpn_name *alpn = &context->alpn[context->alpn_count++];
        alpn->len = (uint8_t)len;
        memcpy(alpn->text, *name, len);
    }
    return 0;
}

static int check_options(const struct bm_tls_options *options, char *ret_why)
{
    if (options->size != sizeof(*options))
        return bm_tls_say(ret_why, -EINVAL, "options of another version");
    if (is_named(&options->chain) != is_named(&options->key))
        return bm_tls_say(ret_why, -EINVAL, "a certificate without its key, or a key without one");
    if (options->role == BM_TLS_SERVER && !is_named(&options->chain))
        return bm_tls_say(ret_why, -EINVAL, "a server without a certificate");
    if (options->client_certificate && (options->role != BM_TLS_SERVER || !is_named(&options->ca)))
        return bm_tls_say(ret_why, -EINVAL,
                          "client certificates are for a server that names who signs them");
    if (options->role == BM_TLS_SERVER && !options->client_certificate &&
        (is_named(&options->ca) || is_named(&options->crl)))
        return bm_tls_say(ret_why, -EINVAL,
                          "authorities for a server that asks for no certificates");
    if (options->role == BM_TLS_CLIENT && is_named(&options->staple))
        return bm_tls_say(ret_why, -EINVAL, "an OCSP response is for a server to give");
    return 0;
}

static int fill_context(struct bm_tls_context *context, const struct bm_tls_options *options,
                        char *ret_why)
{
    wc_Sha256 hash;
    if (wc_InitSha256(&hash) != 0)
        return -ENOMEM;
    uint8_t decided[] = {(uint8_t)options->role, options->client_certificate, options->tls12};
    mix(&hash, decided, sizeof(decided));
    mix(&hash, context->alpn, sizeof(context->alpn));
    int r = make_strict(context, options);
    if (r == 0)
        r = trust(context, options, &hash, ret_why);
    if (r == 0)
        r = identify(context, options, &hash, ret_why);
    if (r == 0)
        r = add_staple(context, options, ret_why);
    if (wc_Sha256Final(&hash, context->id) != 0 && r == 0)
        r = -ENOMEM;
    wc_Sha256Free(&hash);
    if (bm_payer_refused(context->payer) && r != 0)
        r = -ENOMEM;
    return r == -ENOMEM ? bm_tls_say(ret_why, r, "no memory") : r;
}

int bm_tls_context_new(struct bm_tls_context **ret_context, const struct bm_tls_options *options,
                       char *ret_why)
{
    int r = check_options(options, ret_why);
    if (r < 0)
        return r;
    r = bm_wolfssl_enter();
    if (r < 0)
        return bm_tls_say(ret_why, r, "no memory");
    struct bm_tls_context *made =
        (struct bm_tls_context *)bm_alloc_zero(options->account, sizeof(*made));
    if (!made) {
        bm_wolfssl_leave();
        return bm_tls_say(ret_why, -ENOMEM, "no memory");
    }
    BM_CLEANUP(context_freep) struct bm_tls_context *context = made;
    context->refs = 1;
    context->account = options->account;
    context->role = options->role;
    context->client_certificate = options->client_certificate;
    context->payer = bm_payer_new(options->account);
    if (!context->payer)
        return bm_tls_say(ret_why, -ENOMEM, "no memory");
    r = take_alpn(context, options, ret_why);
    if (r < 0)
        return r;
    struct bm_payer *outer = bm_payer_enter(context->payer);
    context->ctx = wolfSSL_CTX_new(method_of(options));
    r = context->ctx ? fill_context(context, options, ret_why)
                     : bm_tls_say(ret_why, -ENOMEM, "no memory");
    bm_payer_leave(outer);
    if (r < 0)
        return r;
    *ret_context = bm_take_ptr(context);
    return 0;
}

void bm_tls_context_ticket_keys(struct bm_tls_context *context,
                                const struct bm_tls_ticket_key keys[BM_TLS_TICKET_KEYS])
{
    memcpy(context->ticket_keys, keys, sizeof(context->ticket_keys));
    context->has_ticket_keys = true;
}

int bm_tls_name_session(const struct bm_tls_context *context, const char *host, uint16_t port,
                        uint8_t ret_id[BM_TLS_ID_LEN])
{
    wc_Sha256 hash;
    if (wc_InitSha256(&hash) != 0)
        return -ENOMEM;
    mix(&hash, context->id, sizeof(context->id));
    mix(&hash, host, strlen(host));
    mix(&hash, &port, sizeof(port));
    int r = wc_Sha256Final(&hash, ret_id);
    wc_Sha256Free(&hash);
    return r == 0 ? 0 : -ENOMEM;
}
