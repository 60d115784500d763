/* TLS without I/O: bytes of the network in, plaintext out, and the other way round.
 *
 * A *context* holds what a program has decided once: its role, its certificate, whom it trusts. It does
 * not change; new certificates are a new context, and connections go on with the one they began with. A
 * *connection* is one peer. What is decided here, and cannot be undone by a peer or by an option:
 *
 *   - TLS 1.3 alone, or with 1.2 by an option; AEAD with ephemeral keys (X25519, P-256) in both; no
 *     renegotiation, no early data, no compression;
 *   - a client always verifies the chain and the name of the server; a server that asks for a
 *     certificate gets one or refuses. There is no function that weakens this;
 *   - nothing is looked up over a network: revocation comes from a file, a staple from the application;
 *   - no session is kept in here: a server's tickets hold the state themselves, a client's caller keeps
 *     what it resumes with. A server that asks for certificates gives no tickets, so that each
 *     connection proves its identity anew.
 *
 * Not without surroundings in one thing: the validity of certificates is compared with the system's
 * clock, and random numbers are the kernel's.
 *
 * Threads: a context is made on any thread, and from its first connection on belongs to one thread, with
 * all its connections: one context a reactor. Different contexts share nothing.
 *
 * Memory of a connection, the library's too, is charged to the account it was made with; an account that
 * refuses ends that connection with -ENOMEM. */
#ifndef BM_TLS_H
#define BM_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "net/proto/identity.h"

struct bm_tls_context;
struct bm_tls;

enum bm_tls_role {
    BM_TLS_SERVER,
    BM_TLS_CLIENT,
};

#define BM_TLS_PEM_MAX                                                                             \
    (1u << 20)                   /* bytes of a file; a system's bundle of authorities has 200 KiB */
#define BM_TLS_ALPN_MAX 8u       /* protocols that a context speaks; Beam has two */
#define BM_TLS_ALPN_NAME_MAX 32u /* bytes of one; RFC 7301 allows 255 */
#define BM_TLS_HOST_MAX 253u     /* RFC 1035 2.3.4, as text */
#define BM_TLS_RECORD_MAX 16384u /* RFC 8446 5.1 */
#define BM_TLS_OUTPUT_MAX                                                                          \
    65536u /* encrypted bytes that wait, unless the connection says otherwise */
/* Bytes that a handshake may take: a chain of four certificates has some 8 KiB, RFC 8446 limits only
 * each. */
#define BM_TLS_HANDSHAKE_MAX 65536u
/* Records without plaintext (changes of keys, tickets, empty ones) that a peer may send at once, and in
 * a second for ever: RFC 8446 5.5 asks for a change of keys each 2^24 records at most. */
#define BM_TLS_IDLE_RECORDS_MAX 32u
#define BM_TLS_IDLE_RECORDS_PER_S 1u
#define BM_TLS_SESSION_MAX 16384u /* bytes to resume with: a ticket, and what was negotiated */
#define BM_TLS_WHY_LEN 256u       /* a text about an error, with its end */

/* Bytes in memory, or a file: one of the two. */
struct bm_tls_bytes {
    const char *path;
    const void *data;
    size_t len;
};

/* What tickets are sealed with. Of random bytes all three, name included. */
struct bm_tls_ticket_key {
    uint8_t name[16];
    uint8_t secret[32];
};
#define BM_TLS_TICKET_KEYS 3u

/* Zeros are the defaults. All is copied. */
struct bm_tls_options {
    size_t size; /* sizeof(struct bm_tls_options) */
    enum bm_tls_role role;
    struct bm_tls_bytes chain,
        key;                    /* PEM: own certificate first; a server's, or a client's for mTLS */
    struct bm_tls_bytes ca;     /* PEM: whom to trust; a client without it: whom the system does */
    struct bm_tls_bytes crl;    /* PEM: a list for each authority that is met; else none is asked */
    struct bm_tls_bytes staple; /* DER: an OCSP response, given to clients that ask (server) */
    const char *const *alpn;    /* names, NULL behind the last; the server's order decides */
    bool client_certificate;    /* a server demands one, signed by `ca` */
    bool tls12;                 /* allow TLS 1.2 too, with AEAD and ECDHE suites */
    uint32_t ticket_lifetime_s; /* of a ticket's key: what rotation lets one live (default 7200) */
    struct bm_account *account; /* pays for the context; outlives it; or NULL */
};

/* Makes a context with one reference. Reads files: not on a reactor that has connections. Whoever stands in
 * `ca` is trusted to sign, whatever that certificate says of itself.
 * -EINVAL: options that contradict each other; -BEAM_ETLS_CONFIGURATION: a certificate, key or list that
 * cannot be used; -ENOTSUP: a staple where the library is older than 5.9; an errno for a file; -ENOMEM. `ret_why` (BM_TLS_WHY_LEN bytes, or NULL) is written on
 * failure: which, and what is wrong with it. */
int bm_tls_context_new(struct bm_tls_context **ret_context, const struct bm_tls_options *options,
                       char *ret_why);
struct bm_tls_context *bm_tls_context_ref(struct bm_tls_context *context);
/* Accepts NULL, returns NULL. Connections have references of their own. */
struct bm_tls_context *bm_tls_context_unref(struct bm_tls_context *context);

/* Tickets from now on are sealed with keys[0]; those sealed with any of the three are accepted. Without
 * this call a server gives no tickets. Whoever has several contexts gives all of them the same keys: the
 * one to come stands at [1] for a while before it moves to [0], and the last one at [2] after. On the
 * context's thread. */
void bm_tls_context_ticket_keys(struct bm_tls_context *context,
                                const struct bm_tls_ticket_key keys[BM_TLS_TICKET_KEYS]);

/* What a connection begins with. */
struct bm_tls_start {
    size_t size;      /* sizeof(struct bm_tls_start) */
    const char *host; /* client: a name or an IP address that the certificate must have */
    uint16_t port;    /* client: only to keep what is resumed apart */
    const uint8_t
        *resume; /* client: what bm_tls_session() gave, or NULL. Not trusted to fit: a session */
    size_t resume_len; /* ... with another host, port, ALPN, certificate or trust is not used */
    size_t output_max; /* 0: BM_TLS_OUTPUT_MAX; at least that of one record */
    struct bm_account *account; /* pays; outlives the connection; or NULL */
};

/* A client has its first bytes in its output at once. -EINVAL: a client without a host, or with one that
 * is neither a name nor an address; -ENOMEM. */
int bm_tls_new(struct bm_tls **ret_tls, struct bm_tls_context *context,
               const struct bm_tls_start *start);
/* At any time; accepts NULL, returns NULL. */
struct bm_tls *bm_tls_free(struct bm_tls *tls);

/* The name a client asks for in its first bytes, so that a server can choose among contexts before it
 * makes a connection. 0, 1: not enough bytes yet, or < 0: there is none, or these are no TLS.
 * `ret_name` has BM_TLS_HOST_MAX + 1 bytes. */
int bm_tls_peek_name(const uint8_t *bytes, size_t len, char *ret_name);

/* Positive results of the calls below. */
#define BM_TLS_MORE 1 /* all bytes received have been taken; give more */
#define BM_TLS_END 2  /* the peer has said that nothing follows (close_notify) */

/* Takes bytes from the network. They stay in place until bm_tls_read() has said BM_TLS_MORE, or an end or
 * an error: until then they are not all read, and further ones are refused with -EBUSY. Works on the
 * handshake as far as they go. A failure is for good: < 0 now and from all further calls; what the peer is
 * to be told about it stands in the output. `now_ns` is of any monotonic clock.
 *   -BEAM_ETLS_CERTIFICATE  the peer's certificate, or its absence, is not accepted
 *   -BEAM_ETLS_ALERT        the peer has refused
 *   -BEAM_ETLS_ALPN         no protocol in common
 *   -BEAM_ETLS_PROTOCOL     these bytes are no TLS, or none that is spoken here
 *   -BEAM_ETLS_FLOOD        more handshake, or more empty records, than the limits above
 *   -ENOMEM, -ENOBUFS       no memory; no room in the output for what has to be answered */
int bm_tls_receive(struct bm_tls *tls, const uint8_t *bytes, size_t len, uint64_t now_ns);

/* Plaintext, up to len bytes. 0 with *ret_len > 0, BM_TLS_MORE, BM_TLS_END, or an error as above. May put
 * something into the output. */
int bm_tls_read(struct bm_tls *tls, void *buf, size_t len, size_t *ret_len);

/* The transport has ended. 0: after the peer's close_notify; -BEAM_ETLS_CUT: without it, so that nobody
 * knows what is missing; or the error that there has been. */
int bm_tls_cut(struct bm_tls *tls);

/* Encrypts what the output has room for, in whole records where it can; *ret_taken bytes of it, maybe 0.
 * -EAGAIN before the end of the handshake; -EPIPE after bm_tls_close(). */
int bm_tls_write(struct bm_tls *tls, const void *data, size_t len, size_t *ret_taken);

/* Puts close_notify into the output; nothing can be written after. Reading goes on. During a handshake it
 * ends that, with an alert. */
int bm_tls_close(struct bm_tls *tls);

/* Bytes for the network, *ret_len of them (0: none). They stay in place until they are acknowledged,
 * whatever else is called, but bm_tls_free(). Of the bytes given last, n have left. */
const uint8_t *bm_tls_output(struct bm_tls *tls, size_t *ret_len);
void bm_tls_output_ack(struct bm_tls *tls, size_t n);
/* All that waits, of which bm_tls_output() gives the first piece. */
size_t bm_tls_output_len(const struct bm_tls *tls);

/* Gives back the buffers that are empty: for a connection that falls silent. */
void bm_tls_trim(struct bm_tls *tls);

/* The handshake is done: both have proved what they had to. */
bool bm_tls_is_open(const struct bm_tls *tls);
/* What went wrong, for a log: which alert, which certificate, for which name; "" if nothing did. */
const char *bm_tls_why(const struct bm_tls *tls);

/* After the handshake. */
struct bm_tls_facts {
    const char *version;     /* "TLSv1.3" */
    const char *cipher;      /* "TLS_AES_128_GCM_SHA256", as the library names it */
    const char *group;       /* of the key exchange: "X25519", or "" */
    const char *alpn;        /* "" if none was asked for */
    const char *server_name; /* server: which name the client asked for; "" if none */
    bool resumed;            /* with a ticket: no certificate was sent */
};
/* Borrowed until the connection is freed. */
void bm_tls_facts(const struct bm_tls *tls, struct bm_tls_facts *ret_facts);

/* The names in the peer's verified certificate; NULL if it has sent none (or the connection was resumed). */
const struct bm_identity *bm_tls_peer(const struct bm_tls *tls);

/* Client: bytes to resume with, once the server has sent a ticket (TLS 1.3: some time after the handshake).
 * They hold secrets. -ENODATA: none yet; -EMSGSIZE: over len; at most BM_TLS_SESSION_MAX bytes. Use each
 * once (RFC 8446 C.4). */
int bm_tls_session(struct bm_tls *tls, uint8_t *buf, size_t len, size_t *ret_len);

/* "wolfSSL 5.9.2, AES-NI": the library, its version, and what it encrypts with. One text, for ever. */
const char *bm_tls_library(void);
/* What the Internet knows about this version of the library and it does not yet: fixes that are missing.
 * NULL: none that this program knows of. */
const char *bm_tls_library_warning(void);

#endif
