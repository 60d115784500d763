/* What of wolfSSL cmake/wolfssl.sh builds, under the name that wolfSSL asks for. Read by its own sources
 * (the assembler's, too) and by net/proto/tls.c.
 *
 * In: TLS 1.3 and 1.2, ECDHE over X25519 and P-256, AES-GCM and ChaCha20-Poly1305, certificates with
 * ECDSA, Ed25519 and RSA, and what net/proto/tls.h promises. Out, so that no option can bring it back:
 * older versions, renegotiation, suites without encryption or without forward secrecy, PSK of the
 * application, DTLS, compression, look-ups of any kind over a network. */
#ifndef BEAM_WOLFSSL_USER_SETTINGS_H
#define BEAM_WOLFSSL_USER_SETTINGS_H

/* The machine. */
#define HAVE_THREAD_LS
#define HAVE___UINT128_T 1 /* as its own build finds out, in the same words */
#define SIZEOF_LONG 8
#define SIZEOF_LONG_LONG 8
#define HAVE_GMTIME_R 1
#define WOLFSSL_USE_ALIGN
#ifdef __x86_64__
#define WOLFSSL_X86_64_BUILD
#define WOLFSSL_AESNI
#define USE_INTEL_SPEEDUP
#define WOLFSSL_SP_X86_64
#define WOLFSSL_SP_X86_64_ASM
#endif
#define WOLFSSL_HAVE_SP_ECC /* P-256 and RSA by code of their own */
#define WOLFSSL_HAVE_SP_RSA
#define WOLFSSL_SP_MATH_ALL
#define SP_INT_BITS 4096
#define TFM_TIMING_RESISTANT
#define ECC_TIMING_RESISTANT
#define WC_RSA_BLINDING

/* Random numbers are the kernel's, each time. The library's own generator is made anew for every connection
 * and every certificate that is looked at, with tests of itself, which took half of a handshake. */
#ifndef __ASSEMBLER__
#include <sys/random.h>
static inline int beam_random(unsigned char *bytes, unsigned len)
{
    while (len > 0) {
        ssize_t n = getrandom(bytes, len, 0); /* up to 256 bytes always whole */
        if (n <= 0)
            return -1;
        bytes += n;
        len -= (unsigned)n;
    }
    return 0;
}
#define CUSTOM_RAND_GENERATE_BLOCK beam_random
#define CUSTOM_RAND_GENERATE_SEED beam_random
#endif

/* The protocol. */
#define WOLFSSL_TLS13
#define NO_OLD_TLS
#define HAVE_TLS_EXTENSIONS
#define HAVE_SUPPORTED_CURVES
#define HAVE_EXTENDED_MASTER
#define HAVE_SERVER_RENEGOTIATION_INFO /* a TLS 1.2 server says that it has none: RFC 5746 3.6 */
#define HAVE_SNI
#define WOLFSSL_ALWAYS_KEEP_SNI
#define HAVE_ALPN
#define HAVE_SESSION_TICKET
#define WOLFSSL_TICKET_HAVE_ID
#define MICRO_SESSION_CACHE
#define HAVE_EXT_CACHE /* a session as bytes; the cache itself is switched off */
#define WOLFSSL_EXTRA_ALERTS
#define HAVE_KEYING_MATERIAL
#define HAVE_OCSP
#define HAVE_CERTIFICATE_STATUS_REQUEST
#define HAVE_CRL
#define KEEP_PEER_CERT
#define WOLFSSL_ALT_NAMES
#define WOLFSSL_IP_ALT_NAME
#define WOLFSSL_HOSTNAME_VERIFY_ALT_NAME_ONLY /* RFC 9525 2: the common name names no host */

/* The select callback of ALPN, and the names of a certificate, come with these. */
#define OPENSSL_EXTRA
#define OPENSSL_ALL
#define NO_ERROR_QUEUE
#define NO_OLD_RNGNAME
#define NO_OLD_WC_NAMES
#define NO_OLD_SSL_NAMES
#define NO_OLD_SHA_NAMES
#define NO_OLD_MD5_NAME
#define HAVE_EX_DATA

/* The algorithms. */
#define HAVE_ECC
#define ECC_SHAMIR
#define ECC_USER_CURVES /* P-256 and the two below; no others */
#define HAVE_ECC384
#define HAVE_ECC521
#define HAVE_CURVE25519
#define HAVE_ED25519
#define WC_RSA_PSS
#define WOLFSSL_MIN_RSA_BITS                                                                       \
    2048 /* of a peer's key; RFC 8446 leaves it open, CAs do not issue less */
#define HAVE_AESGCM
#define HAVE_CHACHA
#define HAVE_POLY1305
#define HAVE_ONE_TIME_AUTH
#define WOLFSSL_SHA224
#define WOLFSSL_SHA384
#define WOLFSSL_SHA512
#define HAVE_HKDF
#define NO_DH
#define NO_DSA
#define NO_RC4
#define NO_MD4
#define NO_DES3

/* Certificates made for trying things (net/proto/certificate.c). */
#define WOLFSSL_CERT_GEN
#define WOLFSSL_CERT_EXT
#define WOLFSSL_CERT_REQ
#define WOLFSSL_DER_TO_PEM
#define WOLFSSL_PEM_TO_DER
#define WOLFSSL_KEY_GEN
#define WOLFSSL_BASE64_ENCODE
#define HAVE_PKCS8

#endif
