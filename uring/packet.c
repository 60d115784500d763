/* The header is part of the kernel's interface: four words, namelen, controllen, payloadlen, flags. The
 * control area is reserved in full whatever came; the lengths say how much of it is real. */
#include "uring/packet.h"

#include "base/bytes.h"

bool bm_packet_view(void *buffer, int res, const struct msghdr *form,
                    struct bm_packet_view *ret_view)
{
    uint8_t *p = buffer;
    uint64_t head = BM_PACKET_OVERHEAD + (uint64_t)form->msg_namelen + form->msg_controllen;
    if (res < 0 || (uint64_t)res < head)
        return false;
    uint32_t control_len = bm_get_u32(p + 4);
    if (control_len > form->msg_controllen)
        control_len = (uint32_t)form->msg_controllen;
    *ret_view = (struct bm_packet_view){
        .payload = p + head,
        .payload_len = (uint32_t)((uint64_t)res - head),
        .control = p + BM_PACKET_OVERHEAD + form->msg_namelen,
        .control_len = control_len,
        .flags = (int)bm_get_u32(p + 12),
    };
    return true;
}
