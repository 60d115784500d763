/* URLs of networks, taken apart: who is asked, where, and below which prefix. Pure functions over
 * borrowed texts.
 *
 *     https://host:port/prefix   http://   wss://   ws://
 *     http+unix:/path            http+unix:@abstract
 *
 * The host is a name of ASCII (no IDNA: write the xn-- form), an IPv4 address, or an IPv6 address in
 * brackets, without a zone. The port is the scheme's unless it says; 0 is for listening. The prefix is
 * /beam unless it says, also after a bare slash; behind a socket file there is no room for one. No user,
 * query or fragment. */
#ifndef BM_URL_H
#define BM_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum bm_url_scheme {
    BM_URL_HTTPS = 1,
    BM_URL_HTTP,
    BM_URL_HTTP_UNIX,
    BM_URL_WSS,
    BM_URL_WS,
};

enum bm_url_host {
    BM_URL_NAME = 1,
    BM_URL_IPV4,
    BM_URL_IPV6,
    BM_URL_SOCKET_FILE, /* an abstract name too */
};

#define BM_URL_HOST_MAX 253u  /* RFC 1035 2.3.4, as text */
#define BM_URL_LABEL_MAX 63u  /* RFC 1035 2.3.4 */
#define BM_URL_PREFIX_MAX 64u /* ours */
#define BM_URL_PREFIX "/beam" /* spec rule A1 */
/* A host in brackets, a colon and five digits, with an end. */
#define BM_URL_AUTHORITY_LEN (BM_URL_HOST_MAX + 2u + 6u + 1u)

struct bm_url {
    enum bm_url_scheme scheme;
    enum bm_url_host kind;
    bool secure;                        /* TLS: https:, wss: */
    bool websocket;                     /* from the start: wss:, ws: */
    uint16_t port;                      /* of a socket file: 0 */
    char host[BM_URL_HOST_MAX + 1];     /* in lower case, without brackets; of a socket file "" */
    char prefix[BM_URL_PREFIX_MAX + 1]; /* begins with a slash, ends without */
    struct sockaddr_un sun;             /* of a socket file */
    socklen_t sun_len;
};

/* -BEAM_EURL: it is none of these; *ret_why, unless ret_why is NULL, is then a static text about it.
 * -ENAMETOOLONG: the name of a socket file over sun_path (unix(7)). */
int bm_url_parse(const char *url, struct bm_url *ret_url, const char **ret_why);

/* As `host` or `:authority` have it (RFC 9110 section 7.2): the port only if it is not the scheme's;
 * "localhost" for a socket file. Into BM_URL_AUTHORITY_LEN bytes. */
void bm_url_authority(const struct bm_url *url, char *ret_authority);

#endif
