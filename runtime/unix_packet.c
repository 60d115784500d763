/* Two blocks of the pool, taken with the first frame of a packet and given back when it has left. */
#include "runtime/unix_packet.h"

#include "base/assert.h"
#include "runtime/core.h"

bool bm_unix_packet_reserve(struct bm_unix_packet *packet, struct bm_core *core, uint32_t len,
                            unsigned fds)
{
    if (!packet->head) {
        uint32_t cap;
        struct bm_unix_packet_head *head = bm_pool_get(&core->pool, sizeof(*head), &cap);
        if (!head)
            return false;
        packet->bytes = bm_pool_get(&core->pool, BM_FRAME_LEN_MAX, &packet->bytes_cap);
        if (!packet->bytes) {
            bm_pool_put(&core->pool, head, cap);
            return false;
        }
        head->cap = cap;
        head->fd_count = 0;
        head->first_id = 0;
        head->large = NULL;
        head->large_attachments = NULL;
        bm_message_queue_init(&head->retained);
        packet->head = head;
        packet->len = 0;
    }
    return len <= BM_FRAME_LEN_MAX - packet->len &&
           fds <= BM_PACKET_FDS_MAX - packet->head->fd_count;
}

void bm_unix_packet_clear(struct bm_unix_packet *packet, struct bm_core *core)
{
    if (!packet->head)
        return;
    bm_assert(bm_message_queue_empty(&packet->head->retained) && !packet->head->large);
    bm_pool_put(&core->pool, packet->bytes, packet->bytes_cap);
    bm_pool_put(&core->pool, packet->head, packet->head->cap);
    *packet = (struct bm_unix_packet){0};
}
