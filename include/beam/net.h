/* Networks: sessions between machines, and calls by anybody who can speak HTTP. In a library of its
 * own, libbeam-net, with what that needs (TLS, HTTP/2); a program gives its transports to the runtime:
 *
 *     BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix, &beam_https))
 *
 *     https://host:port/prefix   HTTP/2 over TLS, from there to WebSocket where a proxy lets nothing
 *                                else through; the port is 443 and the prefix /beam unless it says
 *     http://host:port/prefix    the same without TLS: for loopback and trusted networks; port 80
 *     http+unix:/path            the same over a socket file (curl --unix-socket), or http+unix:@name
 *     wss:, ws:                  WebSocket from the start; what listens there is the same
 *
 * host is a name in ASCII, an IPv4 address or an IPv6 address in brackets; the prefix is taken as it is
 * written, without percent signs, and a slash alone is none. A listener at a name takes the first IPv4
 * address that the name has, at [::] all addresses of both families, and port 0 is one of the kernel's
 * choice (beam_listen_url). Whether others of the same user may share its port with SO_REUSEPORT (socket(7))
 * once it listens depends on whether the runtime has several reactors; it never joins one that is there.
 *
 * A server answers on one port to HTTP/2 and HTTP/1.1: sessions, and plain calls of every service
 * (POST /beam/call/SERVICE), as docs/spec/http.md has them. It serves nobody that it does not know,
 * unless it is told to. */
#ifndef BEAM_NET_H
#define BEAM_NET_H

#include <beam/session.h>

#ifdef __cplusplus
extern "C" {
#endif

BEAM_EXPORT extern const struct beam_transport beam_https, beam_http, beam_http_unix, beam_wss,
    beam_ws;

/* PEM, from a file or from memory: one of the two. Zeroed: none. */
struct beam_pem {
    const char *path;
    const void *data;
    size_t len;
};

/* Whom a bearer token (RFC 6750) speaks for. Writes a name for it (UTF-8 without control characters, 1 to
 * 249 bytes, ended), which handlers see as the identity "token:NAME", and returns 0; -EACCES: nobody's.
 * Any other error: it could not be found out, and 503 is answered. On the reactor that asks, several at
 * once, so it may not wait. The bytes are a secret:
 * compare them with beam_token_equal. */
typedef int beam_authenticate_fn(beam_str token, char *ret_name, size_t size, void *arg);

/* Whether two tokens are the same, in a time that tells nothing about them but their lengths. */
BEAM_EXPORT bool beam_token_equal(beam_str a, beam_str b);

/* --- an application's own requests --- */

typedef struct beam_http_request beam_http_request;

struct beam_http_field {
    beam_str name, value; /* names in lower case */
};

/* A request for a path that is not below the prefix, whole: its body has come. To be answered once, now
 * or later, on this reactor, with beam_http_respond; when the runtime has ended, on any thread. */
typedef void beam_http_handler(beam_http_request *request, void *arg);

/* Views, until the request is answered or its peer is gone. */
BEAM_EXPORT beam_str beam_http_method(const beam_http_request *request);
BEAM_EXPORT beam_str beam_http_path(const beam_http_request *request); /* with its query */
BEAM_EXPORT beam_str beam_http_body(const beam_http_request *request);
/* The value of a field, or an empty one with ptr NULL. */
BEAM_EXPORT beam_str beam_http_get(const beam_http_request *request, const char *name);
BEAM_EXPORT const struct beam_peer *beam_http_peer(const beam_http_request *request);

/* Answers, and takes the request; everything is copied. -EINVAL, with nothing taken: a status outside
 * 200 to 599, or a field that may not be sent. -ENOMEM. */
BEAM_EXPORT int beam_http_respond(beam_http_request *request, unsigned status,
                                  const struct beam_http_field *fields, size_t field_count,
                                  const void *body, size_t len);

/* --- listening --- */

struct beam_net_listen {
    size_t size;
    /* TLS: required for https: and wss:, -EINVAL elsewhere. ECDSA (P-256) is many times cheaper than
     * RSA. */
    struct beam_pem certificate, key; /* own certificate first, then the chain */
    struct beam_pem client_ca;        /* clients need a certificate that one of these has signed */
    struct beam_pem crl;              /* revoked client certificates */
    bool tls12;                       /* TLS 1.2 too, for old proxies */
    /* Who it is: a client certificate, else a bearer token, else what a proxy says. */
    beam_authenticate_fn *authenticate; /* of bearer tokens; none are taken without it */
    void *authenticate_arg;
    const char *const
        *proxies; /* addresses and networks ("10.0.0.0/8", "unix"), NULL behind the last */
    const char *identity_header; /* of which this field is believed: "x-remote-user" */
    bool insecure_anonymous;     /* serve also those whom nobody knows */
    /* Which pages may call, and open a WebSocket (Origin, RFC 6454), "https://app.example.com"; NULL
     * behind the last. None: those of the host that was asked. */
    const char *const *origins;
    /* For paths that are not below the prefix; none: 404. Whoever asks is shown, known or not: the peer
     * of one that is not has no identity. */
    beam_http_handler *on_request;
    void *on_request_arg;
    /* Connections from one address (IPv6: /64; http+unix: one user), over all reactors, and how many new
     * ones it may make in a second, twice that in a burst; 256 and 50, at most 65 536. Further ones are
     * closed as soon as they are accepted. Behind a proxy all have one address. */
    uint32_t connections_address_max, connections_address_per_s;
    /* Sessions that one who is known has with this listener, over all reactors, and how many new ones he may
     * open in a second, twice that in a burst; 256 and 50, at most 65 536. Further ones are refused (429, with
     * retry-after). */
    uint32_t sessions_identity_max, sessions_identity_per_s;
    /* How many bytes all connections of networks may hold in this process together, their calls' bodies and
     * their sessions' messages included; 1 GiB. Above that idle ones are closed, calls and sessions refused
     * (503, with retry-after) until there is room again, and a quarter above it new connections closed as
     * soon as they are accepted. What a connection may hold has limits besides. */
    uint64_t memory_max;
};
#define BEAM_NET_LISTEN(...)                                                                       \
    ((struct beam_net_listen){.size = sizeof(struct beam_net_listen), __VA_ARGS__})

/* New certificates and lists for a listener, named by the URL it was given; what the options say besides
 * (other than tls12) is not looked at. Connections that are there go on with the old ones. Reads files.
 * Any thread. -ENOENT: nobody listens there. -EINVAL: no options, or a URL without TLS; else as
 * beam_listen. */
BEAM_EXPORT int beam_net_reload(beam_runtime *runtime, const char *url,
                                const struct beam_net_listen *options);

/* Hands a listener a connected stream socket that somebody else has accepted, and what was read from it
 * already (at most 64 KiB, copied). Takes the fd on success. How many an address may have is the
 * business of who accepts. Any thread. -ENOENT: nobody listens at this URL. -EPROTOTYPE: no stream socket of TCP
 * or unix. -ENOTCONN, -ENOTSOCK, -EBADF. -EMSGSIZE: more bytes. -ESHUTDOWN: the runtime has not started, or
 * stops. -EINVAL, -ENOMEM, -BEAM_EFORKED. */
BEAM_EXPORT int beam_net_adopt(beam_runtime *runtime, const char *url, int *fd, const void *bytes,
                               size_t len);

/* --- connecting --- */

enum beam_net_way {
    BEAM_NET_ANY = 0, /* one after the other, until one works */
    BEAM_NET_HTTP2,   /* a request of HTTP/2 that stays open */
    BEAM_NET_CONNECT, /* WebSocket over HTTP/2, RFC 8441 */
    BEAM_NET_UPGRADE, /* WebSocket over HTTP/1.1, RFC 6455 */
};

struct beam_net_connect {
    size_t size;
    struct beam_pem ca;               /* whom to trust; whom the system does */
    struct beam_pem certificate, key; /* our own, for servers that ask */
    struct beam_pem crl;
    bool tls12;
    const char *server_name; /* the certificate's; the host of the URL */
    const char *token;       /* sent as bearer token */
    enum beam_net_way way;
};
#define BEAM_NET_CONNECT_OPTIONS(...)                                                              \
    ((struct beam_net_connect){.size = sizeof(struct beam_net_connect), __VA_ARGS__})

/* "wolfSSL 5.9.2, AES-NI": what encrypts. A text for ever. */
BEAM_EXPORT const char *beam_tls_library(void);
/* What the Internet knows about this version of it and it does not yet, for whoever exposes it; NULL:
 * nothing that this version of Beam has heard of. A text for ever. */
BEAM_EXPORT const char *beam_tls_library_warning(void);

/* --- certificates, for trying things and for tests ---
 *
 * ECDSA with P-256, signed by an authority of one's own. Nothing of it is ever renewed or revoked, and
 * keys lie where they were made: what serves strangers has its certificates from elsewhere. */

enum beam_certificate_use {
    BEAM_CERTIFICATE_CA = 1, /* signs others, and nothing else */
    BEAM_CERTIFICATE_SERVER,
    BEAM_CERTIFICATE_CLIENT,
};

/* PEM texts, ended by a zero byte. The key is a secret: wipe it (explicit_bzero(3)). */
struct beam_certificate {
    char pem[4096];
    char key[512];
};

struct beam_certificate_options {
    size_t size;
    enum beam_certificate_use use;
    const char *common_name;               /* for people; 1 to 63 bytes */
    const char *const *names;              /* whom it is for: "dns:localhost", "ip:::1", "uri:…",
                                              "email:…"; NULL behind the last; NULL: none */
    unsigned days;                         /* from yesterday on; 365; at most 36 500 */
    const struct beam_certificate *issuer; /* a CA made here; NULL: signs itself */
};
#define BEAM_CERTIFICATE_OPTIONS(...)                                                              \
    ((struct beam_certificate_options){.size = sizeof(struct beam_certificate_options),            \
                                       __VA_ARGS__})

/* Makes a key and a certificate for it, into the caller's struct. Any thread; takes about a
 * millisecond. -EINVAL: a use, a name or an issuer that is none, or more days; -E2BIG: more names than
 * there is room for (1 KiB), or as any options; -EIO: the TLS library would not; -ENOMEM. */
BEAM_EXPORT int beam_certificate_make(struct beam_certificate *ret_certificate,
                                      const struct beam_certificate_options *options);

#ifdef __cplusplus
}
#endif

#endif
