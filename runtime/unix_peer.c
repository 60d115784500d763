/* The process at the other end of a unix socket, as a handle that cannot be reused for another. */
#include <errno.h>
#include <sys/socket.h>

#include "runtime/unix_session.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

int bm_unix_peer_pidfd(const beam_session *session)
{
    const struct bm_unix_session *us = bm_container_of(session, struct bm_unix_session, session);
    int pidfd;
    socklen_t len = sizeof(pidfd);
    if (us->fd < 0)
        return -ESHUTDOWN;
    if (getsockopt(us->fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) < 0)
        return errno == ENOPROTOOPT ? -ENOTSUP : -errno;
    return pidfd;
}
