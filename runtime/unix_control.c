/* Control messages (cmsg(3), unix(7)) taken apart and put together. The bytes come from the kernel;
 * all the same each length is compared with what is left, since a descriptor missed or made up here
 * would be leaked or be someone else's.
 *
 * Every descriptor in the bytes is afterwards either in ret_control->fds or closed. */
#include "runtime/unix_control.h"

#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"

#define TYPE_PIDFD 4 /* SCM_PIDFD, linux/socket.h since Linux 6.5; not in glibc 2.36 */

static void take_fds(const uint8_t *data, size_t count, struct bm_unix_control *control)
{
    size_t room = BM_PACKET_FDS_MAX - control->fd_count;
    size_t taken = count < room ? count : room;
    if (taken > 0)
        memcpy(control->fds + control->fd_count, data, taken * sizeof(int));
    control->fd_count += (unsigned)taken;
    for (size_t i = taken; i < count; i++) {
        int fd;
        memcpy(&fd, data + i * sizeof(int), sizeof(fd));
        close(fd);
    }
}

static void take(const struct cmsghdr *header, const uint8_t *data, struct bm_unix_control *control)
{
    size_t len = header->cmsg_len - CMSG_LEN(0);

    if (header->cmsg_level != SOL_SOCKET)
        return;
    switch (header->cmsg_type) {
    case SCM_RIGHTS:
        take_fds(data, len / sizeof(int), control);
        break;
    case SCM_CREDENTIALS:
        if (len == sizeof(struct ucred)) {
            memcpy(&control->credentials, data, len);
            control->has_credentials = true;
        }
        break;
    case TYPE_PIDFD: {
        int fd;
        if (len == sizeof(fd)) {
            memcpy(&fd, data, len);
            close(fd); /* or a negative error, if the kernel could make none */
        }
        break;
    }
    default:
        break;
    }
}

void bm_unix_control_parse(const void *control, size_t len, struct bm_unix_control *ret_control)
{
    const uint8_t *pos = control;

    ret_control->fd_count = 0;
    ret_control->has_credentials = false;
    while (len >= sizeof(struct cmsghdr)) {
        struct cmsghdr header;
        memcpy(&header, pos, sizeof(header));
        if (header.cmsg_len < CMSG_LEN(0) || header.cmsg_len > len)
            break;
        take(&header, pos + CMSG_LEN(0), ret_control);
        /* The kernel may leave out the padding behind the last one. */
        size_t step = CMSG_ALIGN(header.cmsg_len);
        if (step >= len)
            break;
        pos += step;
        len -= step;
    }
}

size_t bm_unix_control_write_fds(const int *fds, unsigned count, void *out)
{
    bm_assert(count <= BM_PACKET_FDS_MAX);
    if (count == 0)
        return 0;
    size_t data_len = count * sizeof(int), space = CMSG_SPACE(data_len);
    struct cmsghdr header = {
        .cmsg_len = CMSG_LEN(data_len),
        .cmsg_level = SOL_SOCKET,
        .cmsg_type = SCM_RIGHTS,
    };
    uint8_t *p = out;
    memset(p + space - sizeof(size_t), 0, sizeof(size_t)); /* padding, or overwritten below */
    memcpy(p, &header, sizeof(header));
    memcpy(p + CMSG_LEN(0), fds, data_len);
    return space;
}
