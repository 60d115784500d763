/* Stream sockets of networks, TCP and unix, before there is a connection: addresses, options, listening.
 * (Socket files: runtime/unix_socket.h.) Plain system calls that wait for no peer. Any thread.
 *
 * Who gets a port. A port is taken exclusively first, without SO_REUSEPORT and already listening: that
 * succeeds only if nobody listens there, in whatever process, with whatever options. Only then it is
 * opened for sharing, and the sockets of the other reactors join. So no listener is ever shared that was
 * there before us, and of two programs that do as we do, at the same time, one gets the port. What the
 * kernel lets happen later it still does: another program of the same user that asks for SO_REUSEPORT by
 * itself can join a port that several reactors share (socket(7)). With one reactor nobody can. */
#ifndef BM_STREAM_SOCKET_H
#define BM_STREAM_SOCKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct bm_url;

struct bm_socket_address {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    socklen_t len;
};

#define BM_SOCKET_TEXT_LEN 64u /* "[", 45 of an address, "]:65535", and an end */
/* A peer that acknowledges nothing of what was sent is gone after this (tcp(7), TCP_USER_TIMEOUT); one
 * that is silent is asked after 60 s, and has as long to answer. */
#define BM_SOCKET_USER_TIMEOUT_MS 30000u /* ours; spec section 10 */
#define BM_SOCKET_KEEPALIVE_IDLE_S 60    /* ours */
#define BM_SOCKET_KEEPALIVE_INTERVAL_S 10
#define BM_SOCKET_KEEPALIVE_COUNT 3

/* Who is at the other end of a connected socket. -ENOTCONN. */
int bm_socket_peer(int fd, struct bm_socket_address *ret_address);

/* Of a URL whose host is an address or a socket file: 0. 1: it is a name, to be resolved. */
int bm_socket_address_of(const struct bm_url *url, struct bm_socket_address *ret_address);
uint16_t bm_socket_port(const struct bm_socket_address *address);
void bm_socket_set_port(struct bm_socket_address *address, uint16_t port);
/* "192.0.2.7:4711", "[2001:db8::1]:80", "unix". An IPv4 address that came in the form of IPv6 is
 * written as what it is. Into BM_SOCKET_TEXT_LEN bytes. */
void bm_socket_text(const struct bm_socket_address *address, char *ret_text);

/* All sockets made here are non-blocking and close-on-exec, and those of TCP send at once (TCP_NODELAY),
 * and notice a peer that is gone (above); what is accepted from them inherits that. */

/* To be connected. Errors of socket(2). */
int bm_socket_new(const struct bm_socket_address *address, int *ret_fd);
/* Readies a connected socket that somebody else has made as if it were one of ours: a stream of TCP or
 * unix, else -EPROTOTYPE; -ENOTCONN, -ENOTSOCK, -EBADF. */
int bm_socket_adopt(int fd);

/* count (at least 1) sockets that listen on one TCP address, which is written back with the port it got if it was 0.
 * [::] takes IPv4 too. All or none. -EADDRINUSE: somebody listens there, or is bound to it. Errors of
 * socket(2), bind(2), setsockopt(2). */
int bm_socket_listen(struct bm_socket_address *address, unsigned count, int *ret_fds);

#endif
