/* What a multishot recvmsg leaves in a provided buffer: a small header, room for control messages,
 * then the payload (io_uring_prep_recvmsg_multishot(3)). */
#ifndef BM_PACKET_H
#define BM_PACKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define BM_PACKET_OVERHEAD 16u /* sizeof(struct io_uring_recvmsg_out) */

struct bm_packet_view {
    const uint8_t *payload;
    uint32_t payload_len;
    void *control;
    uint32_t control_len;
    int flags; /* MSG_CTRUNC, MSG_TRUNC, … */
};

/* form: the msghdr the op was armed with. false: res is too small to be one. */
bool bm_packet_view(void *buffer, int res, const struct msghdr *form,
                    struct bm_packet_view *ret_view);

#endif
