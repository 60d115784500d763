/* See socket_pair.h. Connecting over loopback is done when connect(2) returns. Anybody on the machine can
 * connect to the port while it listens: what is accepted has to be our own other end, or is dropped. */
#include "runtime/socket_pair.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#define STRANGERS_MAX 8 /* ours: more of them in so short a time mean it */

static void close_all(int *fds, unsigned count)
{
    int error = errno;
    for (unsigned i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    errno = error;
}

static bool same_end(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
    return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
}

/* The one that comes from `from`. */
static int accept_own(int listener, const struct sockaddr_in *from)
{
    for (unsigned i = 0; i < STRANGERS_MAX; i++) {
        struct sockaddr_in peer;
        socklen_t len = sizeof(peer);
        int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 || same_end(&peer, from))
            return fd;
        close(fd);
    }
    errno = ECONNABORTED;
    return -1;
}

int bm_socket_pair_new(int ret_fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in own;
    socklen_t len = sizeof(address), own_len = sizeof(own);
    const int on = 1;
    int fds[3] = {-1, -1, -1}; /* listening, connected, accepted */
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fds[0] < 0)
        return -errno;
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fds[1] < 0 || bind(fds[0], (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fds[0], STRANGERS_MAX) < 0 ||
        getsockname(fds[0], (struct sockaddr *)&address, &len) < 0 ||
        connect(fds[1], (struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockname(fds[1], (struct sockaddr *)&own, &own_len) < 0 ||
        (fds[2] = accept_own(fds[0], &own)) < 0) {
        int r = -errno;
        close_all(fds, 3);
        return r;
    }
    (void)setsockopt(fds[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fds[2], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    close(fds[0]);
    ret_fds[0] = fds[2];
    ret_fds[1] = fds[1];
    return 0;
}
