/* The peer's process, as a handle that cannot be reused. */
#include <errno.h>
#include <sys/socket.h>

#include "runtime/unix_session.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

int beam_session_peer_pidfd(const beam_session *session)
{
    if (session->carrier != &bm_unix_carrier)
        return -ENOTSUP;
    const struct bm_unix_session *us = bm_container_of(session, struct bm_unix_session, session);
    int pidfd;
    socklen_t len = sizeof(pidfd);
    if (us->fd < 0)
        return -ESHUTDOWN;
    if (getsockopt(us->fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) < 0)
        return errno == ENOPROTOOPT ? -ENOTSUP : -errno;
    return pidfd;
}
