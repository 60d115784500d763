/* The packet being packed or under way: frames, the fds beside them, and the messages that must be
 * taken back out should the kernel refuse those fds. */
#ifndef BM_UNIX_PACKET_H
#define BM_UNIX_PACKET_H

#include <sys/socket.h>

#include <beam/message.h>

#include "runtime/frame.h"
#include "runtime/message_queue.h"
#include "runtime/unix_control.h"

struct bm_attachments;
struct bm_core;

/* What only a packet with contents needs; comes from the core's pool and goes back between packets,
 * so that an idle session holds none. */
struct bm_unix_packet_head {
    struct msghdr msg;
    struct iovec iov;
    uint32_t cap;      /* of this block */
    uint64_t first_id; /* ids of ours from here up appear in this packet first */
    /* A large message with fds begins here, and its first frame fills the packet. */
    beam_channel *large;                      /* referenced */
    struct bm_attachments *large_attachments; /* the message's, until the packet has left */
    unsigned fd_count;
    int fds[BM_PACKET_FDS_MAX];
    /* Messages with fds, and what followed them on their channels: kept until the packet has left. */
    struct bm_message_queue retained;
    _Alignas(struct cmsghdr) uint8_t control[BM_UNIX_CONTROL_LEN];
};

struct bm_unix_packet {
    struct bm_unix_packet_head *head; /* NULL: empty */
    uint8_t *bytes;                   /* BM_FRAME_LEN_MAX */
    uint32_t bytes_cap;
    uint32_t len;
};

/* Room for len more bytes and fds more fds; false when the packet is full or there is no memory. */
bool bm_unix_packet_reserve(struct bm_unix_packet *packet, struct bm_core *core, uint32_t len,
                            unsigned fds);
static inline uint8_t *bm_unix_packet_end(const struct bm_unix_packet *packet)
{
    return packet->bytes + packet->len;
}
/* Everything in it is somebody else's or sent: memory goes back. fds must be gone. */
void bm_unix_packet_clear(struct bm_unix_packet *packet, struct bm_core *core);

#endif
