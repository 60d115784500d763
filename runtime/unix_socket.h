/* Unix sockets before there is a session: URLs, addresses, binding, stale files, inherited fds. */
#ifndef BM_UNIX_SOCKET_H
#define BM_UNIX_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct bm_unix_address {
    struct sockaddr_un sun;
    socklen_t len;
    int inherited_fd; /* unix:fd:N; else -1 */
};

/* "unix:/path", "unix:relative", "unix:@abstract", "unix:fd:N". -BEAM_EURL when it is none of these,
 * -ENAMETOOLONG over sun_path (108 bytes, unix(7)). */
int bm_unix_address_parse(const char *url, struct bm_unix_address *ret_address);

/* A SOCK_SEQPACKET socket, non-blocking, close-on-exec, SO_PASSCRED on, SO_PASSRIGHTS off when
 * fds_refused (Linux 6.16; ignored before). */
int bm_unix_socket_new(bool fds_refused, int *ret_fd);

/* Bound and listening. A socket file nobody listens on is replaced, a live one is -EADDRINUSE, a file
 * that is no socket is -EEXIST. mode: of the file, set before anyone can connect (umask-safe).
 * An inherited fd is checked (AF_UNIX, SOCK_SEQPACKET), made non-blocking and close-on-exec;
 * *ret_listening tells whether it listens or is already connected (SO_ACCEPTCONN). */
int bm_unix_socket_listen(const struct bm_unix_address *address, unsigned mode, bool fds_refused,
                          int *ret_fd, bool *ret_listening);

/* Removes the socket file if it is still the one fd was bound to. */
void bm_unix_socket_unlink(const struct bm_unix_address *address, int fd);

/* Options of one accepted or inherited connected socket. */
int bm_unix_socket_prepare(int fd, bool fds_refused);

#endif
