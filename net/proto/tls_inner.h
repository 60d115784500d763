/* TLS as the files of the engine share it:
 *
 *   tls_library.c  wolfSSL in this process: for whom it is there, and what it is
 *   tls_context.c  what a program has decided once; protocols, staples and tickets, which are a context's
 *   tls.c          a connection: bytes in and out, its handshake, its sessions
 *   tls_failure.c  what is wrong with a peer or its certificate, as an error and in words
 *
 * Nobody else speaks to wolfSSL about TLS.
 *
 * Invariants:
 *   - wolfSSL is entered with a payer set (payer.h);
 *   - the first failure of a connection is the one that all further calls answer with;
 *   - a certificate, key or authority is loaded into a context before its first connection and never
 *     after: connections use the context's copies in place. */
#ifndef BM_TLS_INNER_H
#define BM_TLS_INNER_H

#include "net/proto/budget.h"
#include "net/proto/outbox.h"
#include "net/proto/payer.h"
#include "net/proto/pem.h"
#include "net/proto/tls.h"

struct WOLFSSL;
struct WOLFSSL_CTX;
struct WOLFSSL_X509_STORE_CTX;

#define BM_TLS_ID_LEN 32u /* bytes of a SHA-256 */

struct bm_tls_alpn_name {
    uint8_t len;
    char text[BM_TLS_ALPN_NAME_MAX + 1];
};

struct bm_tls_context {
    struct WOLFSSL_CTX *ctx;
    struct bm_payer *payer;
    struct bm_account *account;
    unsigned refs; /* of the one thread that uses it */
    enum bm_tls_role role;
    bool client_certificate;
    struct bm_tls_alpn_name alpn[BM_TLS_ALPN_MAX];
    unsigned alpn_count;
    bool has_ticket_keys;
    struct bm_tls_ticket_key ticket_keys[BM_TLS_TICKET_KEYS];
    struct bm_pem staple;
    uint8_t id[BM_TLS_ID_LEN]; /* of all that was configured: what a ticket is good for */
};

enum bm_tls_state {
    BM_TLS_HANDSHAKE,
    BM_TLS_OPEN,
    BM_TLS_FAILED, /* `failure` says how */
};

struct bm_tls {
    /* A server's NULL until the peer has said something. Stays the first: a test asks it for what Beam
     * never does. */
    struct WOLFSSL *ssl;
    struct bm_tls_context *context;
    struct bm_payer *payer;
    struct bm_account *account;
    enum bm_tls_state state;
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
    uint8_t session_id[BM_TLS_ID_LEN]; /* what its session is good for */
    bool has_ticket;

    int verify_error;                     /* the library's, of the peer's certificate */
    char issued_for[BM_TLS_HOST_MAX + 1]; /* a name in it that was not asked for */
    char server_name[BM_TLS_HOST_MAX + 1];
    char alpn[BM_TLS_ALPN_NAME_MAX + 1];
    struct bm_identity *peer;
    char why[BM_TLS_WHY_LEN];
};

/* tls_library.c */

/* The processor's AES, and a library that uses it. */
bool bm_tls_has_aes(void);

/* wolfSSL's own words for one of its errors. */
const char *bm_tls_library_says(int error);

/* tls_context.c */

/* Whether a peer has to prove something: WOLFSSL_VERIFY_NONE is 0. */
int bm_tls_verify_mode(const struct bm_tls_context *context);

/* The name the client asked for; at most BM_TLS_HOST_MAX bytes, else "". Its length. */
size_t bm_tls_asked_name(struct WOLFSSL *ssl, char ret_name[BM_TLS_HOST_MAX + 1]);

/* What a session with this host may be resumed for. 0 or -ENOMEM. */
int bm_tls_name_session(const struct bm_tls_context *context, const char *host, uint16_t port,
                        uint8_t ret_id[BM_TLS_ID_LEN]);

/* tls.c: what wolfSSL calls. */

int bm_tls_on_receive(struct WOLFSSL *ssl, char *buf, int len, void *arg);
int bm_tls_on_send(struct WOLFSSL *ssl, char *buf, int len, void *arg);

/* tls_failure.c */

/* Writes the text, if one is wanted (BM_TLS_WHY_LEN bytes); returns the error. */
__attribute__((format(printf, 3, 4))) int bm_tls_say(char *ret_why, int error, const char *format,
                                                     ...);

/* Called by wolfSSL. Remembers what was wrong, and with whose certificate. Refuses what the library lets
 * pass; the other way round never. */
int bm_tls_on_verify(int ok, struct WOLFSSL_X509_STORE_CTX *store);

/* Whose certificate this is, for a text about it. */
void bm_tls_remember_name(struct bm_tls *tls, const unsigned char *der, size_t len);

/* From an error of the library to one of ours, and to words. */
int bm_tls_failure_of(struct bm_tls *tls, int error);

/* The certificate is good, and another host's. */
int bm_tls_wrong_host(struct bm_tls *tls);

#endif
