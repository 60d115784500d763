/* Unix sockets before there is a session. Plain system calls on the caller's thread: this happens once
 * per listener or connection, and none of it can wait for a peer.
 *
 * The socket file. It is bound, given its mode, and only then listened on, so nobody connects under
 * the wrong mode. A file left behind by a dead server is told from a live one by connecting to it.
 * Since a file that is bound and not yet listened on looks dead too, the whole sequence runs under
 * flock(2) of the directory; the lock keeps two starting servers apart, not an enemy, who with write
 * permission for the directory could do worse. */
#include "runtime/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <beam/error.h>

#include "base/cleanup.h"
#include "uring/reactor.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* asm-generic/socket.h since Linux 6.16 */
#endif

#define PATH_LEN_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)
#define LOCK_WAIT_MS 500 /* ours; bind to listen takes far less than one */

#define STALE_TRIES 25u      /* ours: a quarter of a second in all; */
#define STALE_WAIT_US 10000u /* measured: 5 to 8 ms after kill -9 */

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static int parse_number(const char *text, int *ret_number)
{
    int number = 0;
    if (!*text)
        return -BEAM_EURL;
    for (; *text; text++) {
        int digit = *text - '0';
        if (digit < 0 || digit > 9 || number > (INT_MAX - digit) / 10)
            return -BEAM_EURL;
        number = number * 10 + digit;
    }
    *ret_number = number;
    return 0;
}

int bm_unix_address_parse(const char *url, struct bm_unix_address *ret_address)
{
    struct bm_unix_address address = {.sun.sun_family = AF_UNIX, .inherited_fd = -1};

    if (strncmp(url, "unix:", 5) != 0)
        return -BEAM_EURL;
    const char *path = url + 5;
    if (strncmp(path, "fd:", 3) == 0) {
        int r = parse_number(path + 3, &address.inherited_fd);
        if (r < 0)
            return r;
        *ret_address = address;
        return 0;
    }
    size_t len = strlen(path);
    bool abstract = path[0] == '@';
    /* An abstract name of no bytes would be legal to bind, but nobody means it. */
    if (len == (abstract ? 1 : 0))
        return -BEAM_EURL;
    if (len > PATH_LEN_MAX)
        return -ENAMETOOLONG;
    memcpy(address.sun.sun_path, path, len);
    if (abstract)
        address.sun.sun_path[0] = '\0';
    /* With the NUL of a path; an abstract name is as long as it is said to be. */
    address.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (abstract ? 0 : 1));
    *ret_address = address;
    return 0;
}

int bm_unix_socket_prepare(int fd, bool fds_refused)
{
    int on = 1, off = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
        return -errno;
    if (fds_refused && setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) < 0 &&
        errno != ENOPROTOOPT)
        return -errno;
    return 0;
}

int bm_unix_socket_new(bool fds_refused, int *ret_fd)
{
    BM_CLEANUP(close_fdp)
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int r = bm_unix_socket_prepare(fd, fds_refused);
    if (r < 0)
        return r;
    *ret_fd = bm_take_fd(&fd);
    return 0;
}

static int get_option(int fd, int option, int *ret_value)
{
    socklen_t len = sizeof(*ret_value);
    return getsockopt(fd, SOL_SOCKET, option, ret_value, &len) < 0 ? -errno : 0;
}

int bm_unix_socket_inherit(int fd, bool fds_refused, bool *ret_listening)
{
    int domain, type, listening;
    int r = get_option(fd, SO_DOMAIN, &domain);
    if (r == 0)
        r = get_option(fd, SO_TYPE, &type);
    if (r == 0)
        r = get_option(fd, SO_ACCEPTCONN, &listening);
    if (r < 0)
        return r;
    if (domain != AF_UNIX || type != SOCK_SEQPACKET)
        return -EPROTOTYPE;
    struct sockaddr_un peer;
    socklen_t len = sizeof(peer);
    if (!listening && getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
        return -errno;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    r = bm_unix_socket_prepare(fd, fds_refused);
    if (r < 0)
        return r;
    *ret_listening = listening;
    return 0;
}

static bool has_file(const struct bm_unix_address *address)
{
    return address->inherited_fd < 0 && address->sun.sun_path[0] != '\0';
}

/* The directory of the path, locked against others who run the same code; -1 without. Waits a little
 * for the lock and then goes on without it: it must not be a way to keep servers from starting. */
static int lock_directory(const char *path)
{
    char directory[PATH_LEN_MAX + 1] = ".";
    const char *slash = strrchr(path, '/');
    if (slash) {
        size_t len = slash == path ? 1 : (size_t)(slash - path);
        memcpy(directory, path, len);
        directory[len] = '\0';
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (int ms = 0; flock(fd, LOCK_EX | LOCK_NB) < 0 && ms < LOCK_WAIT_MS; ms++)
        poll(NULL, 0, 1);
    return fd;
}

/* 0: nobody listens on the socket file and it can go. */
static int check_stale(const struct bm_unix_address *address)
{
    struct stat st;
    if (lstat(address->sun.sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    BM_CLEANUP(close_fdp)
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address->sun, address->len) == 0)
        return -EADDRINUSE;
    switch (errno) {
    case ECONNREFUSED:
    case ENOENT:
        return 0;
    case EAGAIN:     /* its backlog is full: very much alive */
    case EPROTOTYPE: /* of another type, and alive, or it would be ECONNREFUSED */
        return -EADDRINUSE;
    default:
        return -errno;
    }
}

static int bind_file(int fd, const struct bm_unix_address *address)
{
    if (bind(fd, (const struct sockaddr *)&address->sun, address->len) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    int r = check_stale(address);
    /* A server that was killed a moment ago can still be found: its ring lets go of the socket a few
     * milliseconds after the process. A reactor must not wait for that; it starts no servers anew. */
    for (unsigned i = 0; r == -EADDRINUSE && i < STALE_TRIES && !bm_reactor_current(); i++) {
        usleep(STALE_WAIT_US);
        r = check_stale(address);
    }
    if (r < 0)
        return r;
    if (unlink(address->sun.sun_path) < 0 && errno != ENOENT)
        return -errno;
    return bind(fd, (const struct sockaddr *)&address->sun, address->len) < 0 ? -errno : 0;
}

static int listen_on(int fd)
{
    return listen(fd, SOMAXCONN) < 0 ? -errno : 0;
}

static int listen_at_file(int fd, struct bm_unix_address *address, unsigned mode)
{
    const char *path = address->sun.sun_path;
    struct stat st;

    int r = bind_file(fd, address);
    if (r < 0)
        return r;
    if (chmod(path, mode) < 0 || lstat(path, &st) < 0)
        r = -errno;
    if (r == 0)
        r = listen_on(fd);
    if (r < 0) {
        unlink(path);
        return r;
    }
    address->file_dev = st.st_dev;
    address->file_ino = st.st_ino;
    return 0;
}

int bm_unix_socket_listen_on(int fd, struct bm_unix_address *address, unsigned mode)
{
    if (!has_file(address)) {
        if (bind(fd, (const struct sockaddr *)&address->sun, address->len) < 0)
            return -errno;
        return listen_on(fd);
    }
    int directory_fd = lock_directory(address->sun.sun_path);
    int r = listen_at_file(fd, address, mode);
    close_fdp(&directory_fd); /* which unlocks it */
    return r;
}

int bm_unix_socket_listen(struct bm_unix_address *address, unsigned mode, bool fds_refused,
                          int *ret_fd, bool *ret_listening)
{
    int r;
    if (address->inherited_fd >= 0) {
        r = bm_unix_socket_inherit(address->inherited_fd, fds_refused, ret_listening);
        if (r == 0)
            *ret_fd = address->inherited_fd;
        return r;
    }
    BM_CLEANUP(close_fdp) int fd = -1;
    r = bm_unix_socket_new(fds_refused, &fd);
    if (r < 0)
        return r;
    r = bm_unix_socket_listen_on(fd, address, mode);
    if (r < 0)
        return r;
    *ret_fd = bm_take_fd(&fd);
    *ret_listening = true;
    return 0;
}

void bm_unix_socket_unlink(const struct bm_unix_address *address)
{
    struct stat st; /* without a file the path is "" and not there */
    if (lstat(address->sun.sun_path, &st) == 0 && st.st_dev == address->file_dev &&
        st.st_ino == address->file_ino)
        unlink(address->sun.sun_path);
}
