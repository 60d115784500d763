/* Unix sockets before there is a session: URLs, addresses, binding, stale files, inherited fds. */
#ifndef BM_UNIX_SOCKET_H
#define BM_UNIX_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

struct bm_unix_address {
    struct sockaddr_un sun;
    socklen_t len;
    int inherited_fd; /* unix:fd:N; else -1 */
    /* The socket file that bm_unix_socket_listen made; 0 before, and where there is no file. */
    dev_t file_dev;
    ino_t file_ino;
};

/* "unix:/path", "unix:relative", "unix:@abstract", "unix:fd:N" (a file of that name is
 * "unix:./fd:N"). -BEAM_EURL when it is none of these, -ENAMETOOLONG over sun_path (108 bytes with
 * its NUL or '@', unix(7)). */
int bm_unix_address_parse(const char *url, struct bm_unix_address *ret_address);

/* A SOCK_SEQPACKET socket, non-blocking, close-on-exec, SO_PASSCRED on, SO_PASSRIGHTS off when
 * fds_refused (Linux 6.16; ignored before). */
int bm_unix_socket_new(bool fds_refused, int *ret_fd);

/* Bound and listening. A socket file nobody listens on is replaced, a live one is -EADDRINUSE, a file
 * that is no socket is -EEXIST. mode: of the file, exactly (umask-safe), set before anyone can connect.
 * Writes file_dev and file_ino of the address on success. An inherited fd goes through
 * bm_unix_socket_inherit and is itself *ret_fd: the caller owns it from then on, as any other. */
int bm_unix_socket_listen(struct bm_unix_address *address, unsigned mode, bool fds_refused,
                          int *ret_fd, bool *ret_listening);

/* The same for a socket of the caller's, of whatever type, that is not bound yet. */
int bm_unix_socket_listen_on(int fd, struct bm_unix_address *address, unsigned mode);

/* Readies an inherited socket: AF_UNIX and SOCK_SEQPACKET (else -EPROTOTYPE; -ENOTSOCK, -EBADF), made
 * non-blocking and close-on-exec, options as of bm_unix_socket_prepare. *ret_listening tells whether
 * it listens or is connected (SO_ACCEPTCONN); -ENOTCONN when neither. */
int bm_unix_socket_inherit(int fd, bool fds_refused, bool *ret_listening);

/* Removes the socket file that bm_unix_socket_listen made, if it is still that one. To be called
 * while its socket is open: until then no other file can have the same inode number. */
void bm_unix_socket_unlink(const struct bm_unix_address *address);

/* Options of one accepted or inherited connected socket. */
int bm_unix_socket_prepare(int fd, bool fds_refused);

#endif
