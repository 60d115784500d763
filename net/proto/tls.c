/* TLS with wolfSSL: contexts, and connections that move bytes between the caller's memory and its own.
 *
 * Model: wolfSSL reads and writes through two callbacks. Reading takes from the bytes that the caller lent
 * (`in`), and wants more when they are used up; writing appends to a bounded buffer. Before anything is
 * encrypted, room is there for all that it becomes, so that the writing callback never says "later": after
 * that wolfSSL would have to be called again with the same bytes, and drops others in silence.
 *
 * Invariants:
 *   - wolfSSL is entered with a payer set (payer.h), and never but through functions of this file;
 *   - the first failure of a connection is the one that all further calls answer with;
 *   - a certificate, key or authority is loaded into a context before its first connection and never
 *     after: connections use the context's copies in place;
 *   - every record that a peer sends before it proved or said something costs it one of a limited number.
 *
 * Contexts: one a reactor, and connections keep theirs alive. What is common to the process is wolfSSL's
 * own: counted here, so that nothing of it is left when the last context is gone.
 *
 * Left to others: sockets, deadlines, how many handshakes an address may begin, and what a name that was
 * proved may do. */
#define _GNU_SOURCE
#include "net/proto/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include <beam/error.h>

#ifndef WOLFSSL_USER_SETTINGS /* the system's says in there how it was made; ours has our own file */
#include <wolfssl/options.h>
#endif
#include <wolfssl/error-ssl.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/chacha20_poly1305.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "net/proto/alert.h"
#include "net/proto/budget.h"
#include "net/proto/certificate.h"
#include "net/proto/outbox.h"
#include "net/proto/payer.h"
#include "net/proto/pem.h"
#include "net/proto/wolfssl_users.h"

#define RECORD_OVERHEAD 64u  /* header, type, tag, nonce: 22 in TLS 1.3, 29 in 1.2 */
#define OUTPUT_RESERVE 1024u /* of the output: alerts, close_notify, answers to a change of keys */
#define WRITE_LEAST 1024u    /* no smaller record is made for want of room */
#define ADDRESS_MAX 16u      /* bytes of an IPv6 address */
#define DEFAULT_TICKET_LIFETIME_S 7200u

/* ---- The library, in this process. */

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned library_users;

int bm_wolfssl_enter(void)
{
    int r = 0;
    struct bm_payer *outer = bm_payer_enter(NULL);
    pthread_mutex_lock(&library_lock);
    if (library_users == 0) {
        /* For good: blocks of others' making must not come back to another allocator. */
        wolfSSL_SetAllocators(bm_payer_malloc, bm_payer_release, bm_payer_realloc);
        r = wolfSSL_Init() == WOLFSSL_SUCCESS ? 0 : -ENOMEM;
    }
    if (r == 0)
        library_users++;
    pthread_mutex_unlock(&library_lock);
    bm_payer_leave(outer);
    return r;
}

void bm_wolfssl_leave(void)
{
    struct bm_payer *outer = bm_payer_enter(NULL);
#ifdef FP_ECC /* the system's keeps points for this thread, some MB of them */
    wc_ecc_fp_free();
#endif
    pthread_mutex_lock(&library_lock);
    if (--library_users == 0)
        wolfSSL_Cleanup();
    pthread_mutex_unlock(&library_lock);
    bm_payer_leave(outer);
}

/* The processor's AES, and a library that uses it. */
static bool has_aes(void)
{
#if defined(WOLFSSL_AESNI) && defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#else
    return false;
#endif
}

static char library_text[96];

static void describe_library(void)
{
    snprintf(library_text, sizeof(library_text), "wolfSSL %s, %s", wolfSSL_lib_version(),
             has_aes() ? "AES-NI" : "without AES-NI, ChaCha20 first");
}

const char *bm_tls_library(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, describe_library);
    return library_text;
}

const char *bm_tls_library_warning(void)
{
    word32 version = wolfSSL_lib_version_hex();
    if (version < 0x05009000)
        return "wolfSSL is older than 5.9.0: as released it lacks the fixes of CVE-2023-6937, "
               "CVE-2024-0901, CVE-2024-1544, CVE-2024-5814, CVE-2026-3547 and CVE-2026-11703; "
               "do not expose it to the Internet unless your distribution has them";
    if (version < 0x05009002)
        return "wolfSSL is older than 5.9.2: it lacks the fix of CVE-2026-11703";
    return NULL;
}

/* ---- Contexts. */

struct alpn_name {
    uint8_t len;
    char text[BM_TLS_ALPN_NAME_MAX + 1];
};

struct bm_tls_context {
    WOLFSSL_CTX *ctx;
    struct bm_payer *payer;
    struct bm_account *account;
    unsigned refs; /* of the one thread that uses it */
    enum bm_tls_role role;
    bool client_certificate;
    struct alpn_name alpn[BM_TLS_ALPN_MAX];
    unsigned alpn_count;
    bool has_ticket_keys;
    struct bm_tls_ticket_key ticket_keys[BM_TLS_TICKET_KEYS];
    struct bm_pem staple;
    uint8_t id[WC_SHA256_DIGEST_SIZE]; /* of all that was configured: what a ticket is good for */
};

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

__attribute__((format(printf, 3, 4))) static int say(char *ret_why, int error, const char *format,
                                                     ...)
{
    if (ret_why) {
        va_list args;
        va_start(args, format);
        vsnprintf(ret_why, BM_TLS_WHY_LEN, format, args);
        va_end(args);
    }
    return error;
}

/* wolfSSL's own words for one of its errors. */
static const char *library_says(int error)
{
    const char *text = wolfSSL_ERR_reason_error_string((unsigned long)error);
    return text ? text : "unknown error";
}

static int load(struct bm_pem *ret_pem, const struct bm_tls_bytes *from, const char *what,
                struct bm_account *account, char *ret_why)
{
    int r = bm_pem_load(ret_pem, account, from->path, from->data, from->len, BM_TLS_PEM_MAX);
    if (r < 0)
        say(ret_why, r, "%s%s%s: %s", what, from->path ? " " : "", from->path ? from->path : "",
            beam_strerror(r));
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
            return say(ret_why, -BEAM_ETLS_CONFIGURATION, "authority %u: %s", count + 1,
                       library_says(r));
    }
    return count > 0 ? 0 : say(ret_why, -BEAM_ETLS_CONFIGURATION, "no authority to trust");
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
    return r < 0 ? say(ret_why, r, "the system's authorities%s%s: %s", told ? " " : "",
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
                r = say(ret_why, -BEAM_ETLS_CONFIGURATION, "revocation list %u: %s", count + 1,
                        library_says(said));
        }
        if (r == 0 && count == 0)
            r = say(ret_why, -BEAM_ETLS_CONFIGURATION, "no revocation list where one was named");
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
        return say(ret_why, -BEAM_ETLS_CONFIGURATION, "the certificate cannot be used: %s",
                   library_says(said));
    said = wolfSSL_CTX_use_PrivateKey_buffer(context->ctx, key->data, (long)key->len,
                                             WOLFSSL_FILETYPE_PEM);
    if (said != WOLFSSL_SUCCESS)
        return say(ret_why, -BEAM_ETLS_CONFIGURATION, "the key cannot be used: %s",
                   library_says(said));
    int r = wolfSSL_CTX_check_private_key(context->ctx) == WOLFSSL_SUCCESS
                ? bm_certificate_check_key(chain->data, chain->len, key->data, key->len,
                                           context->account)
                : -BEAM_ETLS_CONFIGURATION;
    return r == -BEAM_ETLS_CONFIGURATION
               ? say(ret_why, r, "the key does not belong to the certificate")
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

static int on_receive(WOLFSSL *ssl, char *buf, int len, void *arg);
static int on_send(WOLFSSL *ssl, char *buf, int len, void *arg);
static int on_alpn(WOLFSSL *ssl, const unsigned char **ret_name, unsigned char *ret_len,
                   const unsigned char *list, unsigned list_len, void *arg);
static int on_staple(WOLFSSL *ssl, void *arg);
static int on_ticket(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ],
                     unsigned char nonce[WOLFSSL_TICKET_IV_SZ],
                     unsigned char tag[WOLFSSL_TICKET_MAC_SZ], int seal, unsigned char *ticket,
                     int len, int *ret_len, void *arg);

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

static int verify_mode(const struct bm_tls_context *context)
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
    bool ok =
        wolfSSL_CTX_SetMinVersion(ctx, options->tls12 ? WOLFSSL_TLSV1_2 : WOLFSSL_TLSV1_3) ==
            WOLFSSL_SUCCESS &&
        wolfSSL_CTX_set_cipher_list(ctx, has_aes() ? aes_first : chacha_first) == WOLFSSL_SUCCESS &&
        wolfSSL_CTX_UseSupportedCurve(ctx, WOLFSSL_ECC_X25519) == WOLFSSL_SUCCESS &&
        wolfSSL_CTX_UseSupportedCurve(ctx, WOLFSSL_ECC_SECP256R1) == WOLFSSL_SUCCESS &&
        wolfSSL_CTX_set_groups(ctx, groups, 2) == WOLFSSL_SUCCESS;
#ifdef WOLFSSL_USER_SETTINGS /* 5.5.4 has no such call: it prefers fresh keys, but does not insist */
    ok = ok && wolfSSL_CTX_only_dhe_psk(ctx) == 0;
#endif
    if (!ok)
        return -ENOMEM;
    /* Before anything is loaded: an authority is looked at as strictly as this says. */
    wolfSSL_CTX_set_verify(ctx, verify_mode(context), NULL);
    wolfSSL_CTX_set_session_cache_mode(ctx, WOLFSSL_SESS_CACHE_OFF);
    wolfSSL_CTX_set_default_passwd_cb(ctx, no_password);
    wolfSSL_CTX_SetIORecv(ctx, on_receive);
    wolfSSL_CTX_SetIOSend(ctx, on_send);
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
        return say(ret_why, -ENOTSUP, "OCSP response: this wolfSSL is too old to give one");
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
            return say(ret_why, -EINVAL, "too many application protocols, or a name of no use");
        struct alpn_name *alpn = &context->alpn[context->alpn_count++];
        alpn->len = (uint8_t)len;
        memcpy(alpn->text, *name, len);
    }
    return 0;
}

static int check_options(const struct bm_tls_options *options, char *ret_why)
{
    if (options->size != sizeof(*options))
        return say(ret_why, -EINVAL, "options of another version");
    if (is_named(&options->chain) != is_named(&options->key))
        return say(ret_why, -EINVAL, "a certificate without its key, or a key without one");
    if (options->role == BM_TLS_SERVER && !is_named(&options->chain))
        return say(ret_why, -EINVAL, "a server without a certificate");
    if (options->client_certificate && (options->role != BM_TLS_SERVER || !is_named(&options->ca)))
        return say(ret_why, -EINVAL,
                   "client certificates are for a server that names who signs them");
    if (options->role == BM_TLS_SERVER && !options->client_certificate &&
        (is_named(&options->ca) || is_named(&options->crl)))
        return say(ret_why, -EINVAL, "authorities for a server that asks for no certificates");
    if (options->role == BM_TLS_CLIENT && is_named(&options->staple))
        return say(ret_why, -EINVAL, "an OCSP response is for a server to give");
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
    return r == -ENOMEM ? say(ret_why, r, "no memory") : r;
}

int bm_tls_context_new(struct bm_tls_context **ret_context, const struct bm_tls_options *options,
                       char *ret_why)
{
    int r = check_options(options, ret_why);
    if (r < 0)
        return r;
    r = bm_wolfssl_enter();
    if (r < 0)
        return say(ret_why, r, "no memory");
    struct bm_tls_context *made =
        (struct bm_tls_context *)bm_alloc_zero(options->account, sizeof(*made));
    if (!made) {
        bm_wolfssl_leave();
        return say(ret_why, -ENOMEM, "no memory");
    }
    BM_CLEANUP(context_freep) struct bm_tls_context *context = made;
    context->refs = 1;
    context->account = options->account;
    context->role = options->role;
    context->client_certificate = options->client_certificate;
    context->payer = bm_payer_new(options->account);
    if (!context->payer)
        return say(ret_why, -ENOMEM, "no memory");
    r = take_alpn(context, options, ret_why);
    if (r < 0)
        return r;
    struct bm_payer *outer = bm_payer_enter(context->payer);
    context->ctx = wolfSSL_CTX_new(method_of(options));
    r = context->ctx ? fill_context(context, options, ret_why) : say(ret_why, -ENOMEM, "no memory");
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

/* ---- Connections. */

enum tls_state {
    STATE_HANDSHAKE,
    STATE_OPEN,
    STATE_FAILED, /* `failure` says how */
};

struct bm_tls {
    WOLFSSL *ssl;
    struct bm_tls_context *context;
    struct bm_payer *payer;
    struct bm_account *account;
    enum tls_state state;
    int failure;
    bool closed;      /* our close_notify is in the output */
    bool peer_closed; /* ... and the peer's has come */

    const uint8_t *in; /* lent by the caller */
    size_t in_left;
    struct bm_outbox out;
    size_t out_max;    /* bytes that wait */
    size_t out_coming; /* plaintext that is about to be encrypted */
    int out_error;     /* of appending to it */

    /* Where in the peer's records we are, and what it has left to spend. */
    uint8_t header[5];
    unsigned header_len;
    size_t body_left;
    size_t handshake_len;         /* bytes it has taken */
    unsigned started;             /* records since there was plaintext last */
    struct bm_budget idle_budget; /* of those without it */
    uint64_t now_ns;
    bool flooded;
    bool alpn_refused; /* server: nothing in common */

    /* A client's. */
    char host[BM_TLS_HOST_MAX + 1];
    bool host_is_address;
    uint8_t session_id[WC_SHA256_DIGEST_SIZE]; /* what its session is good for */
    bool has_ticket;

    int verify_error;                     /* the library's, of the peer's certificate */
    char issued_for[BM_TLS_HOST_MAX + 1]; /* a name in it that was not asked for */
    char server_name[BM_TLS_HOST_MAX + 1];
    char alpn[BM_TLS_ALPN_NAME_MAX + 1];
    struct bm_identity *peer;
    char why[BM_TLS_WHY_LEN];
};

static const struct bm_budget_limit idle_limit = {BM_TLS_IDLE_RECORDS_MAX,
                                                  BM_TLS_IDLE_RECORDS_PER_S};

/* Follows the records as they are taken. False: one too many. */
static bool follow_records(struct bm_tls *tls, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        if (tls->body_left > 0) {
            size_t n = len < tls->body_left ? len : tls->body_left;
            tls->body_left -= n;
            bytes += n;
            len -= n;
            continue;
        }
        if (tls->header_len == 0 && tls->state == STATE_OPEN &&
            !bm_budget_has(&tls->idle_budget, &idle_limit, tls->started++, tls->now_ns))
            return false;
        tls->header[tls->header_len++] = *bytes++;
        len--;
        if (tls->header_len == sizeof(tls->header)) {
            tls->body_left = (size_t)tls->header[3] << 8 | tls->header[4];
            tls->header_len = 0;
        }
    }
    return true;
}

static int on_receive(WOLFSSL *ssl, char *buf, int len, void *arg)
{
    (void)ssl;
    struct bm_tls *tls = (struct bm_tls *)arg;
    if (tls->in_left == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    size_t n = tls->in_left < (size_t)len ? tls->in_left : (size_t)len;
    if (tls->state == STATE_HANDSHAKE) {
        tls->handshake_len += n;
        tls->flooded = tls->handshake_len > BM_TLS_HANDSHAKE_MAX;
    }
    if (tls->flooded || !follow_records(tls, tls->in, n)) {
        tls->flooded = true;
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    memcpy(buf, tls->in, n);
    tls->in += n;
    tls->in_left -= n;
    return (int)n;
}

static size_t out_room(const struct bm_tls *tls)
{
    return tls->out_max - tls->out.len;
}

/* Room that will be needed, so that much leaves in one piece: for the plaintext that is there, and when
 * it is little at a time for as much as waits already. */
static size_t out_wanted(const struct bm_tls *tls)
{
    size_t room = out_room(tls), coming = tls->out_coming;
    if (coming >= room)
        return room;
    coming += (coming / BM_TLS_RECORD_MAX + 1) * RECORD_OVERHEAD;
    if (coming < tls->out.len)
        coming = tls->out.len;
    return coming < room ? coming : room;
}

static int on_send(WOLFSSL *ssl, char *buf, int len, void *arg)
{
    (void)ssl;
    struct bm_tls *tls = (struct bm_tls *)arg;
    size_t room, n = (size_t)len;
    uint8_t *to = n > out_room(tls) ? NULL : bm_outbox_room(&tls->out, n, out_wanted(tls), &room);
    if (!to) {
        tls->out_error = n > out_room(tls) ? -ENOBUFS : -ENOMEM;
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    memcpy(to, buf, n);
    bm_outbox_commit(&tls->out, n);
    return len;
}

/* The list is the peer's: a length, then so many bytes, again and again (RFC 7301 3.1). */
static int on_alpn(WOLFSSL *ssl, const unsigned char **ret_name, unsigned char *ret_len,
                   const unsigned char *list, unsigned list_len, void *arg)
{
    const struct bm_tls_context *context = (const struct bm_tls_context *)arg;
    struct bm_tls *tls = (struct bm_tls *)wolfSSL_GetIOReadCtx(ssl);
    tls->alpn_refused = true;
    for (unsigned i = 0; i < context->alpn_count; i++) {
        const struct alpn_name *ours = &context->alpn[i];
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

/* The name the client asked for; at most BM_TLS_HOST_MAX bytes, else "". */
static size_t asked_name(WOLFSSL *ssl, char ret_name[BM_TLS_HOST_MAX + 1])
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
                             uint8_t ret_binding[16 + WC_SHA256_DIGEST_SIZE + BM_TLS_HOST_MAX + 1])
{
    memcpy(ret_binding, name, 16);
    memcpy(ret_binding + 16, context->id, sizeof(context->id));
    return 16 + sizeof(context->id) +
           asked_name(ssl, (char *)ret_binding + 16 + sizeof(context->id));
}

static int on_ticket(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ],
                     unsigned char nonce[WOLFSSL_TICKET_IV_SZ],
                     unsigned char tag[WOLFSSL_TICKET_MAC_SZ], int seal, unsigned char *ticket,
                     int len, int *ret_len, void *arg)
{
    const struct bm_tls_context *context = (const struct bm_tls_context *)arg;
    uint8_t binding[16 + WC_SHA256_DIGEST_SIZE + BM_TLS_HOST_MAX + 1];
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

/* Whose certificate this is, for a text about it. */
static void remember_name(struct bm_tls *tls, const unsigned char *der, size_t len)
{
    static const enum bm_identity_kind kinds[] = {BM_IDENTITY_DNS, BM_IDENTITY_IP, BM_IDENTITY_URI,
                                                  BM_IDENTITY_COMMON_NAME};
    struct bm_identity *names = NULL;
    if (bm_identity_new(&names, tls->account, der, len) < 0)
        return;
    const char *name = tls->host_is_address ? bm_identity_find(names, BM_IDENTITY_IP) : NULL;
    for (size_t i = 0; !name && i < BM_ARRAY_LEN(kinds); i++)
        name = bm_identity_find(names, kinds[i]);
    snprintf(tls->issued_for, sizeof(tls->issued_for), "%s", name ? name : "nobody");
    bm_identity_free(names, tls->account);
}

static bool fits_name(const char *pattern, const char *host)
{
    if (strncmp(pattern, "*.", 2) == 0) { /* one label, the leftmost (RFC 9525 6.3) */
        const char *dot = strchr(host, '.');
        return dot && dot != host && strchr(dot + 1, '.') && strcasecmp(pattern + 1, dot) == 0;
    }
    return strcasecmp(pattern, host) == 0;
}

/* Once more than the library's own check: 5.5.4 lets any certificate pass for an address, and takes the
 * common name for a host's. */
static bool is_for_host(const struct bm_tls *tls, const struct bm_identity *names)
{
    uint8_t asked[ADDRESS_MAX] = {0}, found[ADDRESS_MAX] = {0};
    int family = strchr(tls->host, ':') ? AF_INET6 : AF_INET;
    if (tls->host_is_address && inet_pton(family, tls->host, asked) != 1)
        return false;
    for (size_t i = 0; names && i < names->count; i++) {
        const struct bm_identity_name *name = &names->names[i];
        if (!tls->host_is_address && name->kind == BM_IDENTITY_DNS &&
            fits_name(name->text, tls->host))
            return true;
        if (tls->host_is_address && name->kind == BM_IDENTITY_IP &&
            inet_pton(family, name->text, found) == 1 && memcmp(asked, found, sizeof(asked)) == 0)
            return true;
    }
    return false;
}

/* Remembers what was wrong, and with whose certificate. Refuses what the library lets pass; the other way
 * round never. */
static int on_verify(int ok, WOLFSSL_X509_STORE_CTX *store)
{
    struct bm_tls *tls = (struct bm_tls *)store->userCtx;
    if (!store->certs || store->error_depth < 0 || store->error_depth >= store->totalCerts)
        return ok;
    const WOLFSSL_BUFFER_INFO *certificate = &store->certs[store->error_depth];
    if (!ok && tls->verify_error == 0) {
        tls->verify_error = store->error;
        remember_name(tls, certificate->buffer, certificate->length);
    } else if (ok && store->error_depth == 0 && tls->context->role == BM_TLS_CLIENT) {
        struct bm_identity *names = NULL;
        if (bm_identity_new(&names, tls->account, certificate->buffer, certificate->length) < 0 ||
            !is_for_host(tls, names)) {
            tls->verify_error = DOMAIN_NAME_MISMATCH;
            remember_name(tls, certificate->buffer, certificate->length);
            ok = 0;
        }
        bm_identity_free(names, tls->account);
    }
    return ok;
}

static int on_new_ticket(WOLFSSL *ssl, const unsigned char *ticket, int len, void *arg)
{
    (void)ssl;
    (void)ticket;
    ((struct bm_tls *)arg)->has_ticket = len > 0;
    return 0;
}

/* What is wrong with a certificate, in words; NULL: this is another error. Two numberings: the library's
 * own, and OpenSSL's, which it gives to the callback where it was built so. */
static const char *certificate_text(int error)
{
    switch (error) {
    case ASN_AFTER_DATE_E:
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "has expired";
    case ASN_BEFORE_DATE_E:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "is not valid yet";
    case ASN_NO_SIGNER_E:
    case ASN_SELF_SIGNED_E:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return "is signed by an unknown CA";
    case ASN_SIG_CONFIRM_E:
        return "has a wrong signature";
    case CRL_CERT_REVOKED:
    case OCSP_CERT_REVOKED:
    case X509_V_ERR_CERT_REVOKED:
        return "has been revoked";
    case CRL_MISSING:
    case X509_V_ERR_UNABLE_TO_GET_CRL:
        return "cannot be checked: there is no revocation list of its CA";
    case KEYUSE_SIGNATURE_E:
    case KEYUSE_ENCIPHER_E:
    case EXTKEYUSE_AUTH_E:
        return "is for another use";
    case VERIFY_CERT_ERROR:
    case MAX_CHAIN_ERROR:
    case ASN_PATHLEN_SIZE_E:
    case ASN_PATHLEN_INV_E:
    case NOT_CA_ERROR:
        return "has a chain that is not valid";
    default:
        return NULL;
    }
}

static int certificate_failure(struct bm_tls *tls, int error)
{
    const char *whose = tls->context->role == BM_TLS_SERVER ? "the client" : "the server";
    if (error == NO_PEER_CERT)
        return say(tls->why, -BEAM_ETLS_CERTIFICATE, "no %s certificate",
                   tls->context->role == BM_TLS_SERVER ? "client" : "server");
    if (!tls->issued_for[0]) { /* not every way to fail comes through the callback */
        WOLFSSL_X509 *certificate = wolfSSL_get_peer_certificate(tls->ssl);
        int len = 0;
        const unsigned char *der = certificate ? wolfSSL_X509_get_der(certificate, &len) : NULL;
        if (der)
            remember_name(tls, der, (size_t)len);
        wolfSSL_X509_free(certificate);
    }
    if (error == DOMAIN_NAME_MISMATCH || error == IPADDR_MISMATCH ||
        tls->verify_error == DOMAIN_NAME_MISMATCH)
        return say(tls->why, -BEAM_ETLS_CERTIFICATE,
                   "%s's certificate is issued for %.100s, not %.100s", whose,
                   tls->issued_for[0] ? tls->issued_for : "nobody", tls->host);
    const char *text = certificate_text(error);
    if (!text && tls->verify_error != 0)
        text = certificate_text(tls->verify_error);
    if (text)
        return say(tls->why, -BEAM_ETLS_CERTIFICATE, "%s's certificate (%.100s) %s", whose,
                   tls->issued_for[0] ? tls->issued_for : "of no name", text);
    if (tls->verify_error != 0)
        return say(tls->why, -BEAM_ETLS_CERTIFICATE, "%s's certificate is not accepted: %s", whose,
                   library_says(error));
    return 0;
}

/* From an error of the library to one of ours, and to words. */
static int failure_of(struct bm_tls *tls, int error)
{
    if (tls->flooded)
        return say(tls->why, -BEAM_ETLS_FLOOD,
                   tls->state == STATE_HANDSHAKE ? "a handshake longer than allowed"
                                                 : "too many records without content");
    if (bm_payer_refused(tls->payer) || tls->out_error == -ENOMEM || error == MEMORY_E ||
        error == MEMORY_ERROR)
        return say(tls->why, -ENOMEM, "no memory for this connection");
    if (tls->out_error != 0)
        return say(tls->why, tls->out_error, "no room for what the peer is to be told");
    int r = certificate_failure(tls, error);
    if (r < 0)
        return r;
    if (error == UNKNOWN_ALPN_PROTOCOL_NAME_E)
        return say(tls->why, -BEAM_ETLS_ALPN, "no application protocol in common");
    WOLFSSL_ALERT_HISTORY history;
    if (wolfSSL_get_alert_history(tls->ssl, &history) == WOLFSSL_SUCCESS &&
        history.last_rx.code > 0 && history.last_rx.level == alert_fatal) {
        int code = history.last_rx.code;
        return say(tls->why, code == 120 ? -BEAM_ETLS_ALPN : -BEAM_ETLS_ALERT,
                   "the peer has refused: %s (alert %d)", bm_alert_text(code), code);
    }
    /* The first is what 5.9 turns the second into; no call of the system can fail here. */
    if (error == WOLFSSL_ERROR_SYSCALL || error == MATCH_SUITE_ERROR)
        return say(tls->why, -BEAM_ETLS_PROTOCOL, "no cipher suite in common");
    if (error == VERSION_ERROR)
        return say(tls->why, -BEAM_ETLS_PROTOCOL, "no version of TLS in common");
    return say(tls->why, -BEAM_ETLS_PROTOCOL, "%s", library_says(error));
}

static int fail(struct bm_tls *tls, int error)
{
    tls->failure = failure_of(tls, error);
    tls->state = STATE_FAILED;
    tls->in_left = 0;
    return tls->failure;
}

static int read_peer(struct bm_tls *tls)
{
    if (wolfSSL_session_reused(tls->ssl) == 1)
        return 0; /* proved when the session began, for this host */
    WOLFSSL_X509 *certificate = wolfSSL_get_peer_certificate(tls->ssl);
    int len = 0, r = 0;
    const unsigned char *der = certificate ? wolfSSL_X509_get_der(certificate, &len) : NULL;
    if (der)
        r = bm_identity_new(&tls->peer, tls->account, der, (size_t)len);
    if (der && !tls->issued_for[0])
        remember_name(tls, der, (size_t)len);
    wolfSSL_X509_free(certificate);
    if (r == 0 && !tls->peer && verify_mode(tls->context) != WOLFSSL_VERIFY_NONE)
        return -ENOMEM; /* it was there, or the handshake would not have ended */
    return r;
}

/* What is known about the peer from now on; or that it is refused after all. */
static int opened(struct bm_tls *tls)
{
    tls->started = 0;
    char *name = NULL;
    unsigned short len = 0;
    if (wolfSSL_ALPN_GetProtocol(tls->ssl, &name, &len) == WOLFSSL_SUCCESS && name &&
        len <= BM_TLS_ALPN_NAME_MAX)
        memcpy(tls->alpn, name, len);
    if (tls->context->role == BM_TLS_SERVER)
        (void)asked_name(tls->ssl, tls->server_name);
    int r = read_peer(tls);
    if (r == -ENOMEM)
        (void)say(tls->why, r, "no memory for this connection");
    else if (r < 0)
        r = say(tls->why, -BEAM_ETLS_CERTIFICATE,
                "the peer's certificate has too many names, or one that is none");
    else if (tls->context->role == BM_TLS_CLIENT && wolfSSL_session_reused(tls->ssl) != 1 &&
             !is_for_host(tls, tls->peer))
        r = certificate_failure(tls, DOMAIN_NAME_MISMATCH);
    else if (tls->alpn_refused) /* where the library goes on all the same: 5.5.4 */
        r = say(tls->why, -BEAM_ETLS_ALPN, "no application protocol in common");
    tls->state = r == 0 ? STATE_OPEN : STATE_FAILED;
    tls->failure = r;
    if (r < 0)
        (void)wolfSSL_shutdown(tls->ssl);
    return r;
}

static int negotiate(struct bm_tls *tls)
{
    int r =
        tls->context->role == BM_TLS_SERVER ? wolfSSL_accept(tls->ssl) : wolfSSL_connect(tls->ssl);
    if (r == WOLFSSL_SUCCESS)
        return opened(tls);
    int error = wolfSSL_get_error(tls->ssl, r);
    return error == WOLFSSL_ERROR_WANT_READ ? 0 : fail(tls, error);
}

/* A name as it may stand in a certificate, or an address. */
static int take_host(struct bm_tls *tls, const char *host)
{
    uint8_t address[ADDRESS_MAX];
    size_t len = host ? strlen(host) : 0;
    if (len == 0 || len > BM_TLS_HOST_MAX)
        return -EINVAL;
    tls->host_is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    for (const char *p = host; !tls->host_is_address && *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
              *p == '-' || *p == '.' || *p == '_'))
            return -EINVAL;
    memcpy(tls->host, host, len + 1);
    return 0;
}

/* What a session may be resumed for. */
static int name_session(struct bm_tls *tls, uint16_t port)
{
    wc_Sha256 hash;
    if (wc_InitSha256(&hash) != 0)
        return -ENOMEM;
    mix(&hash, tls->context->id, sizeof(tls->context->id));
    mix(&hash, tls->host, strlen(tls->host));
    mix(&hash, &port, sizeof(port));
    int r = wc_Sha256Final(&hash, tls->session_id);
    wc_Sha256Free(&hash);
    return r == 0 ? 0 : -ENOMEM;
}

/* A session as bytes: what it is good for, a sum, and the library's form of it. The sum, because the library
 * reads what it is given without much care. */
#define SESSION_HEAD (2 * WC_SHA256_DIGEST_SIZE)

static void try_to_resume(struct bm_tls *tls, const struct bm_tls_start *start)
{
    const size_t id_len = sizeof(tls->session_id);
    uint8_t sum[WC_SHA256_DIGEST_SIZE];
    if (!start->resume || start->resume_len <= SESSION_HEAD ||
        start->resume_len > BM_TLS_SESSION_MAX ||
        memcmp(start->resume, tls->session_id, id_len) != 0)
        return;
    const unsigned char *bytes = start->resume + SESSION_HEAD;
    size_t len = start->resume_len - SESSION_HEAD;
    if (wc_Sha256Hash(bytes, (word32)len, sum) != 0 ||
        memcmp(start->resume + id_len, sum, sizeof(sum)) != 0)
        return;
    WOLFSSL_SESSION *session = wolfSSL_d2i_SSL_SESSION(NULL, &bytes, (long)len);
    if (session)
        (void)wolfSSL_set_session(tls->ssl, session); /* too old: a whole handshake */
    wolfSSL_SESSION_free(session);
}

static int begin_client(struct bm_tls *tls, const struct bm_tls_start *start)
{
    char alpn[BM_TLS_ALPN_MAX * (BM_TLS_ALPN_NAME_MAX + 1)] = "";
    size_t len = 0;
    for (unsigned i = 0; i < tls->context->alpn_count; i++) {
        const struct alpn_name *name = &tls->context->alpn[i];
        if (i > 0)
            alpn[len++] = ',';
        memcpy(alpn + len, name->text, name->len);
        len += name->len;
    }
    bool ok = len == 0 || wolfSSL_UseALPN(tls->ssl, alpn, (unsigned)len,
                                          WOLFSSL_ALPN_FAILED_ON_MISMATCH) == WOLFSSL_SUCCESS;
    if (tls->host_is_address)
        ok = ok && wolfSSL_X509_VERIFY_PARAM_set1_ip_asc(wolfSSL_get0_param(tls->ssl), tls->host) ==
                       WOLFSSL_SUCCESS;
    else
        ok = ok && wolfSSL_check_domain_name(tls->ssl, tls->host) == WOLFSSL_SUCCESS &&
             wolfSSL_UseSNI(tls->ssl, WOLFSSL_SNI_HOST_NAME, tls->host,
                            (unsigned short)strlen(tls->host)) == WOLFSSL_SUCCESS;
    ok = ok && wolfSSL_UseOCSPStapling(tls->ssl, WOLFSSL_CSR_OCSP, 0) == WOLFSSL_SUCCESS &&
         wolfSSL_UseSessionTicket(tls->ssl) == WOLFSSL_SUCCESS &&
         wolfSSL_set_SessionTicket_cb(tls->ssl, on_new_ticket, tls) == WOLFSSL_SUCCESS &&
         wolfSSL_UseKeyShare(tls->ssl, WOLFSSL_ECC_X25519) == WOLFSSL_SUCCESS;
    if (!ok)
        return -ENOMEM;
    int r = name_session(tls, start->port);
    if (r < 0)
        return r;
    try_to_resume(tls, start);
    return negotiate(tls);
}

static int begin(struct bm_tls *tls, const struct bm_tls_start *start)
{
    bool client = tls->context->role == BM_TLS_CLIENT;
    tls->ssl = wolfSSL_new(tls->context->ctx);
    if (!tls->ssl)
        return -ENOMEM;
    wolfSSL_SetIOReadCtx(tls->ssl, tls);
    wolfSSL_SetIOWriteCtx(tls->ssl, tls);
    wolfSSL_SetCertCbCtx(tls->ssl, tls);
    int mode = verify_mode(tls->context);
    wolfSSL_set_verify(tls->ssl, mode, mode != WOLFSSL_VERIFY_NONE ? on_verify : NULL);
    if (client)
        return begin_client(tls, start);
    bool tickets = tls->context->has_ticket_keys && !tls->context->client_certificate;
    return tickets || (wolfSSL_no_ticket_TLSv13(tls->ssl) == 0 &&
                       wolfSSL_NoTicketTLSv12(tls->ssl) == WOLFSSL_SUCCESS)
               ? 0
               : -ENOMEM;
}

static void tls_freep(struct bm_tls **tls)
{
    bm_tls_free(*tls);
}

int bm_tls_new(struct bm_tls **ret_tls, struct bm_tls_context *context,
               const struct bm_tls_start *start)
{
    size_t out_max = start->output_max ? start->output_max : BM_TLS_OUTPUT_MAX;
    if (start->size != sizeof(*start) ||
        out_max < BM_TLS_RECORD_MAX + RECORD_OVERHEAD + OUTPUT_RESERVE)
        return -EINVAL;
    BM_CLEANUP(tls_freep)
    struct bm_tls *tls = (struct bm_tls *)bm_alloc_zero(start->account, sizeof(*tls));
    if (!tls)
        return -ENOMEM;
    tls->context = bm_tls_context_ref(context);
    tls->account = start->account;
    tls->out = (struct bm_outbox){.account = start->account, .kept_max = out_max};
    tls->out_max = out_max;
    int r = context->role == BM_TLS_CLIENT ? take_host(tls, start->host) : 0;
    if (r < 0)
        return r;
    tls->payer = bm_payer_new(start->account);
    if (!tls->payer)
        return -ENOMEM;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    r = begin(tls, start);
    bm_payer_leave(outer);
    if (r < 0)
        return r;
    *ret_tls = bm_take_ptr(tls);
    return 0;
}

struct bm_tls *bm_tls_free(struct bm_tls *tls)
{
    if (!tls)
        return NULL;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    wolfSSL_free(tls->ssl);
    bm_payer_leave(outer);
    bm_payer_free(tls->payer);
    bm_outbox_deinit(&tls->out);
    bm_identity_free(tls->peer, tls->account);
    bm_tls_context_unref(tls->context);
    struct bm_account *account = tls->account;
    explicit_bzero(tls, sizeof(*tls));
    return (struct bm_tls *)bm_free(account, tls, sizeof(*tls));
}

int bm_tls_peek_name(const uint8_t *bytes, size_t len, char *ret_name)
{
    static const uint8_t begin[] = {22, 3}; /* a record of a handshake, SSL 3 or later */
    unsigned name_len = BM_TLS_HOST_MAX;
    if (memcmp(bytes, begin, len < sizeof(begin) ? len : sizeof(begin)) != 0)
        return -BEAM_ETLS_PROTOCOL;
    size_t record_len = len < 5 ? 0 : 5 + ((size_t)bytes[3] << 8 | bytes[4]);
    if (record_len > 5 + BM_TLS_RECORD_MAX)
        return -BEAM_ETLS_PROTOCOL;
    if (len < 5 || len < record_len)
        return 1;
    int r = wolfSSL_SNI_GetFromBuffer(bytes, (unsigned)record_len, WOLFSSL_SNI_HOST_NAME,
                                      (unsigned char *)ret_name, &name_len);
    if (r == 0 || (r == WOLFSSL_SUCCESS && name_len == 0))
        return -ENOENT;
    if (r != WOLFSSL_SUCCESS || name_len > BM_TLS_HOST_MAX)
        return -BEAM_ETLS_PROTOCOL;
    ret_name[name_len] = '\0';
    return strlen(ret_name) == name_len ? 0 : -BEAM_ETLS_PROTOCOL;
}

int bm_tls_receive(struct bm_tls *tls, const uint8_t *bytes, size_t len, uint64_t now_ns)
{
    if (tls->state == STATE_FAILED)
        return tls->failure;
    if (tls->in_left > 0)
        return -EBUSY;
    if (tls->peer_closed) /* RFC 8446 6.1: what comes after it is ignored */
        return 0;
    tls->in = bytes;
    tls->in_left = len;
    tls->now_ns = now_ns;
    if (tls->state != STATE_HANDSHAKE)
        return 0;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    int r = negotiate(tls);
    bm_payer_leave(outer);
    return r;
}

/* After a call of wolfSSL_read(): which of the records it began are done, and cost something. False: more
 * than there was left to spend. */
static bool count_records(struct bm_tls *tls, bool plaintext)
{
    unsigned under_way = tls->started > 0 && (tls->header_len > 0 || tls->body_left > 0);
    unsigned done = tls->started - under_way;
    if (plaintext && done > 0)
        done--; /* the last of them had it */
    tls->started = under_way;
    return bm_budget_spend(&tls->idle_budget, &idle_limit, done, tls->now_ns);
}

int bm_tls_read(struct bm_tls *tls, void *buf, size_t len, size_t *ret_len)
{
    if (tls->state == STATE_FAILED)
        return tls->failure;
    if (len == 0)
        return -EINVAL;
    if (tls->state == STATE_HANDSHAKE)
        return BM_TLS_MORE;
    if (tls->peer_closed)
        return BM_TLS_END;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    int r = 0, n = wolfSSL_read(tls->ssl, buf, len > INT_MAX ? INT_MAX : (int)len);
    if (n > 0) {
        (void)count_records(tls, true); /* on_receive() has seen to that */
        *ret_len = (size_t)n;
    } else {
        int error = wolfSSL_get_error(tls->ssl, n);
        if (error == WOLFSSL_ERROR_WANT_READ) {
            tls->flooded = !count_records(tls, false);
            r = tls->flooded ? fail(tls, error) : BM_TLS_MORE;
        } else if (error == WOLFSSL_ERROR_ZERO_RETURN) {
            tls->peer_closed = true;
            tls->in_left = 0;
            r = BM_TLS_END;
        } else {
            r = fail(tls, error);
        }
    }
    bm_payer_leave(outer);
    return r;
}

int bm_tls_cut(struct bm_tls *tls)
{
    if (tls->state == STATE_FAILED)
        return tls->failure;
    if (tls->peer_closed)
        return 0;
    tls->failure = say(tls->why, -BEAM_ETLS_CUT, "the connection ended in the middle of %s",
                       tls->state == STATE_HANDSHAKE ? "the handshake" : "the conversation");
    tls->state = STATE_FAILED;
    tls->in_left = 0;
    return tls->failure;
}

int bm_tls_write(struct bm_tls *tls, const void *data, size_t len, size_t *ret_taken)
{
    if (tls->state == STATE_FAILED)
        return tls->failure;
    if (tls->closed)
        return -EPIPE;
    if (tls->state == STATE_HANDSHAKE)
        return -EAGAIN;
    const uint8_t *bytes = (const uint8_t *)data;
    size_t taken = 0;
    int r = 0;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    while (taken < len) {
        tls->out_coming = len - taken;
        size_t room = out_room(tls);
        size_t n = len - taken < BM_TLS_RECORD_MAX ? len - taken : BM_TLS_RECORD_MAX;
        if (room < OUTPUT_RESERVE + RECORD_OVERHEAD)
            break;
        room -= OUTPUT_RESERVE + RECORD_OVERHEAD;
        if (n > room) {
            if (room < WRITE_LEAST)
                break;
            n = room;
        }
        int wrote = wolfSSL_write(tls->ssl, bytes + taken, (int)n);
        if (wrote <= 0) {
            r = fail(tls, wolfSSL_get_error(tls->ssl, wrote));
            break;
        }
        taken += (size_t)wrote;
    }
    tls->out_coming = 0;
    bm_payer_leave(outer);
    if (r == 0)
        *ret_taken = taken;
    return r;
}

int bm_tls_close(struct bm_tls *tls)
{
    if (tls->state == STATE_FAILED)
        return tls->failure;
    if (tls->closed)
        return 0;
    tls->closed = true;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    (void)wolfSSL_shutdown(tls->ssl);
    bm_payer_leave(outer);
    return tls->out_error;
}

const uint8_t *bm_tls_output(struct bm_tls *tls, size_t *ret_len)
{
    return bm_outbox_output(&tls->out, ret_len);
}

void bm_tls_output_ack(struct bm_tls *tls, size_t n)
{
    bm_outbox_ack(&tls->out, n);
}

void bm_tls_trim(struct bm_tls *tls)
{
    bm_outbox_trim(&tls->out);
}

bool bm_tls_is_open(const struct bm_tls *tls)
{
    return tls->state == STATE_OPEN;
}

const char *bm_tls_why(const struct bm_tls *tls)
{
    return tls->why;
}

void bm_tls_facts(const struct bm_tls *tls, struct bm_tls_facts *ret_facts)
{
    bool open = tls->state == STATE_OPEN;
    const char *group = open ? wolfSSL_get_curve_name(tls->ssl) : NULL;
    *ret_facts = (struct bm_tls_facts){
        .version = open ? wolfSSL_get_version(tls->ssl) : "",
        .cipher = open ? wolfSSL_get_cipher_name(tls->ssl) : "",
        .group = group ? group : "",
        .alpn = tls->alpn,
        .server_name = tls->server_name,
        .resumed = open && wolfSSL_session_reused(tls->ssl) == 1,
    };
}

const struct bm_identity *bm_tls_peer(const struct bm_tls *tls)
{
    return tls->state == STATE_OPEN ? tls->peer : NULL;
}

int bm_tls_session(struct bm_tls *tls, uint8_t *buf, size_t len, size_t *ret_len)
{
    size_t room = len < BM_TLS_SESSION_MAX ? len : BM_TLS_SESSION_MAX;
    if (!tls->has_ticket || tls->state != STATE_OPEN)
        return -ENODATA;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    WOLFSSL_SESSION *session = wolfSSL_get1_session(tls->ssl);
    int needed = session ? wolfSSL_i2d_SSL_SESSION(session, NULL) : 0, r = -ENOMEM;
    if (needed > 0 && (size_t)needed + SESSION_HEAD > room) {
        r = -EMSGSIZE;
    } else if (needed > 0) {
        unsigned char *to = buf + SESSION_HEAD;
        if (wolfSSL_i2d_SSL_SESSION(session, &to) == needed &&
            wc_Sha256Hash(buf + SESSION_HEAD, (word32)needed, buf + sizeof(tls->session_id)) == 0) {
            memcpy(buf, tls->session_id, sizeof(tls->session_id));
            *ret_len = SESSION_HEAD + (size_t)needed;
            r = 0;
        }
    }
    wolfSSL_SESSION_free(session);
    bm_payer_leave(outer);
    return r;
}
