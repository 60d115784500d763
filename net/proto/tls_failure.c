/* Why a connection of TLS fails. wolfSSL tells little: a number, and the certificates while it looks at
 * them. Here that becomes an error of ours and a text for a log: which alert, which certificate, for which
 * name. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <beam/error.h>

#ifndef WOLFSSL_USER_SETTINGS /* the system's says in there how it was made; ours has our own file */
#include <wolfssl/options.h>
#endif
#include <wolfssl/error-ssl.h>
#include <wolfssl/ssl.h>

#include "base/cleanup.h"
#include "net/proto/alert.h"
#include "net/proto/tls_inner.h"

int bm_tls_say(char *ret_why, int error, const char *format, ...)
{
    if (ret_why) {
        va_list args;
        va_start(args, format);
        vsnprintf(ret_why, BM_TLS_WHY_LEN, format, args);
        va_end(args);
    }
    return error;
}

void bm_tls_remember_name(struct bm_tls *tls, const unsigned char *der, size_t len)
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

int bm_tls_on_verify(int ok, WOLFSSL_X509_STORE_CTX *store)
{
    struct bm_tls *tls = (struct bm_tls *)store->userCtx;
    if (!store->certs || store->error_depth < 0 || store->error_depth >= store->totalCerts)
        return ok;
    const WOLFSSL_BUFFER_INFO *certificate = &store->certs[store->error_depth];
    if (!ok && tls->verify_error == 0) {
        tls->verify_error = store->error;
        bm_tls_remember_name(tls, certificate->buffer, certificate->length);
    } else if (ok && store->error_depth == 0 && tls->context->role == BM_TLS_CLIENT) {
        /* Once more than the library's own check: 5.5.4 lets any certificate pass for an address, and
         * takes the common name for a host's. */
        struct bm_identity *names = NULL;
        if (bm_identity_new(&names, tls->account, certificate->buffer, certificate->length) < 0 ||
            !bm_identity_is_for_host(names, tls->host)) {
            tls->verify_error = DOMAIN_NAME_MISMATCH;
            bm_tls_remember_name(tls, certificate->buffer, certificate->length);
            ok = 0;
        }
        bm_identity_free(names, tls->account);
    }
    return ok;
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
        return bm_tls_say(tls->why, -BEAM_ETLS_CERTIFICATE, "no %s certificate",
                          tls->context->role == BM_TLS_SERVER ? "client" : "server");
    if (!tls->issued_for[0]) { /* not every way to fail comes through the callback */
        WOLFSSL_X509 *certificate = wolfSSL_get_peer_certificate(tls->ssl);
        int len = 0;
        const unsigned char *der = certificate ? wolfSSL_X509_get_der(certificate, &len) : NULL;
        if (der)
            bm_tls_remember_name(tls, der, (size_t)len);
        wolfSSL_X509_free(certificate);
    }
    if (error == DOMAIN_NAME_MISMATCH || error == IPADDR_MISMATCH ||
        tls->verify_error == DOMAIN_NAME_MISMATCH)
        return bm_tls_say(tls->why, -BEAM_ETLS_CERTIFICATE,
                          "%s's certificate is issued for %.100s, not %.100s", whose,
                          tls->issued_for[0] ? tls->issued_for : "nobody", tls->host);
    const char *text = certificate_text(error);
    if (!text && tls->verify_error != 0)
        text = certificate_text(tls->verify_error);
    if (text)
        return bm_tls_say(tls->why, -BEAM_ETLS_CERTIFICATE, "%s's certificate (%.100s) %s", whose,
                          tls->issued_for[0] ? tls->issued_for : "of no name", text);
    if (tls->verify_error != 0)
        return bm_tls_say(tls->why, -BEAM_ETLS_CERTIFICATE, "%s's certificate is not accepted: %s",
                          whose, bm_tls_library_says(error));
    return 0;
}

int bm_tls_failure_of(struct bm_tls *tls, int error)
{
    if (tls->flooded)
        return bm_tls_say(tls->why, -BEAM_ETLS_FLOOD,
                          tls->state == BM_TLS_HANDSHAKE ? "a handshake longer than allowed"
                                                         : "too many records without content");
    if (bm_payer_refused(tls->payer) || tls->out_error == -ENOMEM || error == MEMORY_E ||
        error == MEMORY_ERROR)
        return bm_tls_say(tls->why, -ENOMEM, "no memory for this connection");
    if (tls->out_error != 0)
        return bm_tls_say(tls->why, tls->out_error, "no room for what the peer is to be told");
    int r = certificate_failure(tls, error);
    if (r < 0)
        return r;
    if (error == UNKNOWN_ALPN_PROTOCOL_NAME_E)
        return bm_tls_say(tls->why, -BEAM_ETLS_ALPN, "no application protocol in common");
    WOLFSSL_ALERT_HISTORY history;
    if (wolfSSL_get_alert_history(tls->ssl, &history) == WOLFSSL_SUCCESS &&
        history.last_rx.code > 0 && history.last_rx.level == alert_fatal) {
        int code = history.last_rx.code;
        return bm_tls_say(tls->why, code == 120 ? -BEAM_ETLS_ALPN : -BEAM_ETLS_ALERT,
                          "the peer has refused: %s (alert %d)", bm_alert_text(code), code);
    }
    /* The first is what 5.9 turns the second into; no call of the system can fail here. */
    if (error == WOLFSSL_ERROR_SYSCALL || error == MATCH_SUITE_ERROR)
        return bm_tls_say(tls->why, -BEAM_ETLS_PROTOCOL, "no cipher suite in common");
    if (error == BUFFER_ERROR || error == BUFFER_E || error == INCOMPLETE_DATA)
        return bm_tls_say(tls->why, -BEAM_ETLS_PROTOCOL, "a message of the handshake is malformed");
    if (error == VERSION_ERROR)
        return bm_tls_say(tls->why, -BEAM_ETLS_PROTOCOL, "no version of TLS in common");
    return bm_tls_say(tls->why, -BEAM_ETLS_PROTOCOL, "%s", bm_tls_library_says(error));
}

int bm_tls_wrong_host(struct bm_tls *tls)
{
    return certificate_failure(tls, DOMAIN_NAME_MISMATCH);
}
