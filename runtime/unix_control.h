/* Control messages of a received packet: fds, credentials, and whatever else a kernel adds. */
#ifndef BM_UNIX_CONTROL_H
#define BM_UNIX_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define BM_PACKET_FDS_MAX 253 /* kernel SCM_MAX_FD */

/* Room for the most a kernel can add: SCM_RIGHTS, SCM_CREDENTIALS, SCM_PIDFD, SCM_INQ. */
#define BM_UNIX_CONTROL_LEN                                                                        \
    (CMSG_SPACE(sizeof(int) * BM_PACKET_FDS_MAX) + CMSG_SPACE(sizeof(struct ucred)) +              \
     2 * CMSG_SPACE(sizeof(int)))

struct bm_unix_control {
    int fds[BM_PACKET_FDS_MAX]; /* only [0, fd_count) is written; the caller owns them */
    unsigned fd_count;
    bool has_credentials;
    struct ucred credentials;
};

/* Takes control messages apart by type; unknown types are passed over, a pidfd is closed. Never more
 * than BM_PACKET_FDS_MAX fds: the rest is closed. ret_control is written field by field, its fd array
 * is not cleared (1 KiB a packet would cost more than the parse). */
void bm_unix_control_parse(const void *control, size_t len, struct bm_unix_control *ret_control);

/* Writes one SCM_RIGHTS message; returns its length. out has BM_UNIX_CONTROL_LEN bytes, aligned as
 * struct cmsghdr. */
size_t bm_unix_control_write_fds(const int *fds, unsigned count, void *out);

#endif
