/* See stream_socket.h. Options stand on a listening socket, and what is accepted inherits them, so that a
 * connection costs no system calls for them. */
#include "net/stream_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/url.h"

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* --- addresses ------------------------------------------------------------------------------- */

int bm_socket_address_of(const struct bm_url *url, struct bm_socket_address *ret_address)
{
    struct bm_socket_address address = {.len = 0};
    switch (url->kind) {
    case BM_URL_IPV4:
        address.in.sin_family = AF_INET;
        inet_pton(AF_INET, url->host, &address.in.sin_addr);
        address.len = sizeof(address.in);
        break;
    case BM_URL_IPV6:
        address.in6.sin6_family = AF_INET6;
        inet_pton(AF_INET6, url->host, &address.in6.sin6_addr);
        address.len = sizeof(address.in6);
        break;
    case BM_URL_SOCKET_FILE:
        address.un = url->sun;
        address.len = url->sun_len;
        break;
    case BM_URL_NAME:
        return 1;
    }
    bm_socket_set_port(&address, url->port);
    *ret_address = address;
    return 0;
}

uint16_t bm_socket_port(const struct bm_socket_address *address)
{
    switch (address->any.sa_family) {
    case AF_INET:
        return ntohs(address->in.sin_port);
    case AF_INET6:
        return ntohs(address->in6.sin6_port);
    default:
        return 0;
    }
}

void bm_socket_set_port(struct bm_socket_address *address, uint16_t port)
{
    if (address->any.sa_family == AF_INET)
        address->in.sin_port = htons(port);
    else if (address->any.sa_family == AF_INET6)
        address->in6.sin6_port = htons(port);
}

void bm_socket_text(const struct bm_socket_address *address, char *ret_text)
{
    char host[INET6_ADDRSTRLEN];
    unsigned port = bm_socket_port(address);
    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof(host));
        snprintf(ret_text, BM_SOCKET_TEXT_LEN, "%s:%u", host, port);
    } else if (address->any.sa_family == AF_INET6) {
        const struct in6_addr *in6 = &address->in6.sin6_addr;
        bool mapped = IN6_IS_ADDR_V4MAPPED(in6);
        if (mapped)
            inet_ntop(AF_INET, in6->s6_addr + 12, host, sizeof(host));
        else
            inet_ntop(AF_INET6, in6, host, sizeof(host));
        snprintf(ret_text, BM_SOCKET_TEXT_LEN, mapped ? "%s:%u" : "[%s]:%u", host, port);
    } else {
        strcpy(ret_text, "unix");
    }
}

int bm_socket_peer(int fd, struct bm_socket_address *ret_address)
{
    struct bm_socket_address address = {.len = sizeof(struct sockaddr_un)};
    if (getpeername(fd, &address.any, &address.len) < 0)
        return -errno;
    *ret_address = address;
    return 0;
}

/* --- options --------------------------------------------------------------------------------- */

static int set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int prepare(int fd, int family)
{
    static const struct {
        int level, option, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, BM_SOCKET_USER_TIMEOUT_MS},
        {IPPROTO_TCP, TCP_KEEPIDLE, BM_SOCKET_KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, BM_SOCKET_KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, BM_SOCKET_KEEPALIVE_COUNT},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
    };
    int r = 0;
    if (family == AF_UNIX)
        return 0;
    for (size_t i = 0; i < BM_ARRAY_LEN(options) && r == 0; i++)
        r = set(fd, options[i].level, options[i].option, options[i].value);
    return r;
}

int bm_socket_new(const struct bm_socket_address *address, int *ret_fd)
{
    int family = address->any.sa_family;
    BM_CLEANUP(close_fdp) int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int r = prepare(fd, family);
    if (r < 0)
        return r;
    *ret_fd = bm_take_fd(&fd);
    return 0;
}

int bm_socket_adopt(int fd)
{
    struct bm_socket_address peer;
    int type;
    socklen_t len = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
        return -errno;
    if (type != SOCK_STREAM)
        return -EPROTOTYPE;
    int r = bm_socket_peer(fd, &peer); /* one that listens has none */
    if (r < 0)
        return r;
    int family = peer.any.sa_family;
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
        return -EPROTOTYPE;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return prepare(fd, family);
}

/* --- listening ------------------------------------------------------------------------------- */

static int bind_to(int fd, struct bm_socket_address *address)
{
    if (bind(fd, &address->any, address->len) < 0)
        return -errno;
    struct bm_socket_address bound = {.len = sizeof(bound.in6)};
    if (getsockname(fd, &bound.any, &bound.len) < 0)
        return -errno;
    bm_socket_set_port(address, bm_socket_port(&bound));
    return 0;
}

static int listen_one(struct bm_socket_address *address, bool first, bool shared, int *ret_fd)
{
    BM_CLEANUP(close_fdp) int fd = -1;
    /* A port of the kernel's choice is to be nobody's at all, also of none who only holds it. */
    bool chosen = bm_socket_port(address) == 0;
    int r = bm_socket_new(address, &fd);
    if (r == 0 && address->any.sa_family == AF_INET6)
        r = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0); /* for [::]; others have one family anyway */
    if (r == 0 && !chosen)
        r = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r == 0 && !first)
        r = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r == 0)
        r = bind_to(fd, address);
    if (r == 0 && chosen)
        r = set(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* for whoever comes after us */
    if (r == 0 && listen(fd, SOMAXCONN) < 0)
        r = -errno;
    if (r == 0 && first && shared)
        r = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r < 0)
        return r;
    *ret_fd = bm_take_fd(&fd);
    return 0;
}

int bm_socket_listen(struct bm_socket_address *address, unsigned count, int *ret_fds)
{
    struct bm_socket_address wanted = *address;
    for (unsigned i = 0; i < count; i++) {
        int r = listen_one(&wanted, i == 0, count > 1, &ret_fds[i]);
        if (r == 0)
            continue;
        while (i > 0)
            close(ret_fds[--i]);
        return r;
    }
    *address = wanted;
    return 0;
}
