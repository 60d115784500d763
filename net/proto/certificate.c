/* Certificates with wolfCrypt: a key pair, a body, a signature, as PEM.
 *
 * Made strictly: a CA may sign and nothing else, a server's or client's certificate is for that alone
 * (RFC 5280 4.2.1.3, 4.2.1.12), and says whom it is for in its alternative names. The common name is for
 * people.
 *
 * Not here: requests to be signed by somebody else, revocation, renewal. */
#define _GNU_SOURCE
#include "net/proto/certificate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <beam/error.h>

#ifndef WOLFSSL_USER_SETTINGS /* as in tls.c */
#include <wolfssl/options.h>
#endif
#include <wolfssl/version.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/random.h>

#include "net/proto/payer.h"
#include "net/proto/wolfssl_users.h"

#define DER_MAX 3072u /* of a certificate; in PEM four thirds of it */
#define KEY_DER_MAX 256u
#define ALT_NAMES_MAX 1024u /* bytes of all alternative names */
#define NAME_MAX_LEN 255u
#define SECONDS_A_DAY 86400
#define DEFAULT_DAYS 365u
#define LAST_UTC_TIME_S                                                                            \
    INT64_C(2524608000) /* 2050: from then on, the longer form (RFC 5280 4.1.2.5) */

/* What is needed at once, too much for a stack. */
struct maker {
    Cert cert;
    WC_RNG rng;
    ecc_key key, issuer_key;
    bool has_rng, has_key, has_issuer_key;
    uint8_t der[DER_MAX], issuer_der[DER_MAX];
    int issuer_len;
};

/* GeneralName in its implicit tag; returns its length, or < 0. */
static int put_name(uint8_t *to, size_t room, const char *name)
{
    static const struct {
        const char *prefix;
        uint8_t tag;
    } kinds[] = {{"dns:", 0x82}, {"email:", 0x81}, {"uri:", 0x86}, {"ip:", 0x87}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t skip = strlen(kinds[i].prefix);
        if (strncmp(name, kinds[i].prefix, skip) != 0)
            continue;
        uint8_t address[16];
        const void *value = name + skip;
        size_t len = strlen(name + skip);
        if (kinds[i].tag == 0x87) {
            len = inet_pton(AF_INET, name + skip, address) == 1    ? 4
                  : inet_pton(AF_INET6, name + skip, address) == 1 ? 16
                                                                   : 0;
            value = address;
        }
        size_t head = len < 128 ? 2 : 3;
        if (len == 0 || len > NAME_MAX_LEN)
            return -EINVAL;
        if (head + len > room)
            return -E2BIG;
        to[0] = kinds[i].tag;
        if (head == 3)
            to[1] = 0x81;
        to[head - 1] = (uint8_t)len;
        memcpy(to + head, value, len);
        return (int)(head + len);
    }
    return -EINVAL;
}

static int put_names(Cert *cert, const char *const *names)
{
    uint8_t list[ALT_NAMES_MAX];
    size_t len = 0;
    for (; names && *names; names++) {
        int n = put_name(list + len, sizeof(list) - len, *names);
        if (n < 0)
            return n;
        len += (size_t)n;
    }
    if (len == 0)
        return 0;
    uint8_t head[4] = {0x30, 0x82, (uint8_t)(len >> 8), (uint8_t)len};
    size_t head_len = 4;
    if (len < 128) {
        head[1] = (uint8_t)len;
        head_len = 2;
    } else if (len < 256) {
        head[1] = 0x81;
        head[2] = (uint8_t)len;
        head_len = 3;
    }
    if (head_len + len > sizeof(cert->altNames))
        return -E2BIG;
    memcpy(cert->altNames, head, head_len);
    memcpy(cert->altNames + head_len, list, len);
    cert->altNamesSz = (int)(head_len + len);
    return 0;
}

static int put_date(uint8_t *to, int64_t seconds)
{
    struct tm tm;
    time_t t = (time_t)seconds;
    if (!gmtime_r(&t, &tm))
        return -EINVAL;
    bool shorter = seconds < LAST_UTC_TIME_S; /* two digits of the year less */
    char text[32];
    if (tm.tm_year < 50 || tm.tm_year > 8099)
        return -EINVAL;
    snprintf(text, sizeof(text), "%04d%02d%02d%02d%02d%02dZ", tm.tm_year + 1900, tm.tm_mon + 1,
             tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    size_t skip = shorter ? 2 : 0, len = strlen(text) - skip;
    to[0] = shorter ? 0x17 : 0x18;
    to[1] = (uint8_t)len;
    memcpy(to + 2, text + skip, len);
    return (int)len + 2;
}

static int put_dates(Cert *cert, const struct bm_certificate_options *options)
{
    int64_t from = options->not_before_s, to = options->not_after_s;
    if (from == 0 && to == 0) {
        from = (int64_t)time(NULL) - SECONDS_A_DAY; /* clocks differ */
        to = from + (int64_t)(options->days ? options->days : DEFAULT_DAYS) * SECONDS_A_DAY;
    }
    cert->beforeDateSz = put_date(cert->beforeDate, from);
    cert->afterDateSz = put_date(cert->afterDate, to);
    return to < from || cert->beforeDateSz < 0 || cert->afterDateSz < 0 ? -EINVAL : 0;
}

static int load_issuer(struct maker *maker, const struct bm_certificate *issuer)
{
    uint8_t key[KEY_DER_MAX];
    word32 at = 0;
    int key_len =
        wc_KeyPemToDer((const byte *)issuer->key, (int)strlen(issuer->key), key, sizeof(key), NULL);
    maker->issuer_len = wc_CertPemToDer((const byte *)issuer->pem, (int)strlen(issuer->pem),
                                        maker->issuer_der, sizeof(maker->issuer_der), CERT_TYPE);
    if (key_len <= 0 || maker->issuer_len <= 0)
        return -EINVAL;
    maker->has_issuer_key = wc_ecc_init(&maker->issuer_key) == 0;
    int r = maker->has_issuer_key &&
                    wc_EccPrivateKeyDecode(key, &at, &maker->issuer_key, (word32)key_len) == 0 &&
                    wc_SetIssuerBuffer(&maker->cert, maker->issuer_der, maker->issuer_len) == 0 &&
                    wc_SetAuthKeyIdFromCert(&maker->cert, maker->issuer_der, maker->issuer_len) == 0
                ? 0
                : -EIO;
    explicit_bzero(key, sizeof(key));
    return r;
}

static int describe(struct maker *maker, const struct bm_certificate_options *options)
{
    static const struct {
        const char *key_usage, *extended;
    } uses[] = {
        [BM_CERTIFICATE_CA] = {"keyCertSign,cRLSign", NULL},
        [BM_CERTIFICATE_SERVER] = {"digitalSignature", "serverAuth"},
        [BM_CERTIFICATE_CLIENT] = {"digitalSignature", "clientAuth"},
    };
    Cert *cert = &maker->cert;
    size_t name_len = options->common_name ? strlen(options->common_name) : 0;
    if (name_len == 0 || name_len >= sizeof(cert->subject.commonName))
        return -EINVAL;
    memcpy(cert->subject.commonName, options->common_name, name_len + 1);
    cert->subject.commonNameEnc = CTC_UTF8;
    cert->sigType = CTC_SHA256wECDSA;
    cert->isCA = options->use == BM_CERTIFICATE_CA;
#if LIBWOLFSSL_VERSION_HEX >= 0x05009000 /* older ones cannot, and strict peers refuse theirs */
    cert->basicConstCrit = options->use == BM_CERTIFICATE_CA; /* RFC 5280 4.2.1.9 */
#endif
    cert->selfSigned = !options->issuer;
    int r = put_dates(cert, options);
    if (r == 0)
        r = put_names(cert, options->names);
    if (r < 0)
        return r;
    bool ok =
        wc_SetSubjectKeyIdFromPublicKey_ex(cert, ECC_TYPE, &maker->key) == 0 &&
        wc_SetKeyUsage(cert, uses[options->use].key_usage) == 0 &&
        (!uses[options->use].extended || wc_SetExtKeyUsage(cert, uses[options->use].extended) == 0);
    return ok ? 0 : -EIO;
}

static int to_pem(struct bm_certificate *ret, struct maker *maker, int der_len)
{
    uint8_t key[KEY_DER_MAX];
    word32 key_len = sizeof(key);
    memset(ret, 0, sizeof(*ret));
    int r = wc_EccKeyToPKCS8(&maker->key, key, &key_len);
    int pem_len =
        wc_DerToPem(maker->der, (word32)der_len, (byte *)ret->pem, sizeof(ret->pem) - 1, CERT_TYPE);
    int key_pem_len = r > 0 ? wc_DerToPem(key, (word32)r, (byte *)ret->key, sizeof(ret->key) - 1,
                                          PKCS8_PRIVATEKEY_TYPE)
                            : r;
    explicit_bzero(key, sizeof(key));
    return pem_len > 0 && key_pem_len > 0 ? 0 : -EIO;
}

static int make(struct bm_certificate *ret, struct maker *maker,
                const struct bm_certificate_options *options)
{
    maker->has_rng = wc_InitRng(&maker->rng) == 0;
    maker->has_key = maker->has_rng && wc_ecc_init(&maker->key) == 0;
    if (!maker->has_key || wc_InitCert(&maker->cert) != 0 ||
        wc_ecc_make_key_ex(&maker->rng, 32, &maker->key, ECC_SECP256R1) != 0)
        return -EIO;
    int r = describe(maker, options);
    if (r == 0 && options->issuer)
        r = load_issuer(maker, options->issuer);
    if (r < 0)
        return r;
    ecc_key *signer = options->issuer ? &maker->issuer_key : &maker->key;
    if (wc_MakeCert_ex(&maker->cert, maker->der, sizeof(maker->der), ECC_TYPE, &maker->key,
                       &maker->rng) < 0)
        return -EIO;
    int len = wc_SignCert_ex(maker->cert.bodySz, maker->cert.sigType, maker->der,
                             sizeof(maker->der), ECC_TYPE, signer, &maker->rng);
    return len > 0 ? to_pem(ret, maker, len) : -EIO;
}

int bm_certificate_make(struct bm_certificate *ret_certificate,
                        const struct bm_certificate_options *options)
{
    if (options->size != sizeof(*options) || options->use > BM_CERTIFICATE_CLIENT)
        return -EINVAL;
    int r = bm_wolfssl_enter();
    if (r < 0)
        return r;
    struct bm_payer *payer = bm_payer_new(options->account);
    struct maker *maker = (struct maker *)bm_alloc_zero(options->account, sizeof(*maker));
    r = -ENOMEM;
    if (payer && maker) {
        struct bm_payer *outer = bm_payer_enter(payer);
        r = make(ret_certificate, maker, options);
        if (maker->has_issuer_key)
            wc_ecc_free(&maker->issuer_key);
        if (maker->has_key)
            wc_ecc_free(&maker->key);
        if (maker->has_rng)
            wc_FreeRng(&maker->rng);
        bm_payer_leave(outer);
        if (r != 0 && bm_payer_refused(payer))
            r = -ENOMEM;
    }
    if (maker) {
        explicit_bzero(maker, sizeof(*maker));
        bm_free(options->account, maker, sizeof(*maker));
    }
    bm_payer_free(payer);
    bm_wolfssl_leave();
    return r;
}

/* The public point, computed from the private key, has to stand in the certificate. */
static int find_point(const uint8_t *certificate, size_t len, ecc_key *key)
{
    uint8_t point[2 * MAX_ECC_BYTES + 1];
    word32 point_len = sizeof(point);
    int r = wc_ecc_make_pub(key, NULL);
    if (r == 0)
        r = wc_ecc_export_x963(key, point, &point_len);
    if (r != 0)
        return -BEAM_ETLS_CONFIGURATION;
    return memmem(certificate, len, point, point_len) ? 0 : -BEAM_ETLS_CONFIGURATION;
}

int bm_certificate_check_key(const uint8_t *certificate, size_t certificate_len, const uint8_t *key,
                             size_t key_len, struct bm_account *account)
{
    ecc_key pair;
    word32 at = 0;
    size_t len = certificate_len > key_len ? certificate_len : key_len;
    uint8_t *der = (uint8_t *)bm_alloc(account, len);
    if (!der)
        return -ENOMEM;
    int r = wc_ecc_init(&pair), der_len = -1;
    if (r == 0) {
        der_len = wc_KeyPemToDer(key, (int)key_len, der, (int)len, NULL);
        if (der_len > 0 && wc_EccPrivateKeyDecode(der, &at, &pair, (word32)der_len) == 0) {
            explicit_bzero(der, len);
            der_len = wc_CertPemToDer(certificate, (int)certificate_len, der, (int)len, CERT_TYPE);
            r = der_len > 0 ? find_point(der, (size_t)der_len, &pair) : -BEAM_ETLS_CONFIGURATION;
        }
        wc_ecc_free(&pair);
    }
    explicit_bzero(der, len);
    bm_free(account, der, len);
    return r == 0 ? 0 : -BEAM_ETLS_CONFIGURATION;
}
