/* Frames on their way out: packed at one end, given as bytes at the other, and it knows where each one
 * begins, so that it can say which channels a peer surely never heard of (docs/spec/session.md C4). */
#ifndef BM_FRAME_OUTBOX_H
#define BM_FRAME_OUTBOX_H

#include <stdbool.h>

#include "net/proto/outbox.h"

/* Zeroed but for bytes.account it is empty. */
struct bm_frame_outbox {
    struct bm_outbox bytes;
    uint32_t left;  /* of the frame that has been given in part; 0: none */
    uint64_t opens; /* ... the first channel that it opens; 0: none */
};

static inline size_t bm_frame_outbox_len(const struct bm_frame_outbox *outbox)
{
    return outbox->bytes.len;
}

/* Gives everything back. */
void bm_frame_outbox_deinit(struct bm_frame_outbox *outbox);

/* Room for a frame of that length, padding included, 8-aligned, which is written at once. NULL: no
 * memory. */
uint8_t *bm_frame_outbox_room(struct bm_frame_outbox *outbox, uint32_t len);

/* The next bytes, as bm_outbox_output; at most BM_FRAME_LEN_MAX. Where nothing has been given in part they
 * are whole frames. */
static inline const uint8_t *bm_frame_outbox_output(const struct bm_frame_outbox *outbox,
                                                    size_t *ret_len)
{
    return bm_outbox_output(&outbox->bytes, ret_len);
}
/* That many of those have been given. */
void bm_frame_outbox_given(struct bm_frame_outbox *outbox, size_t len);

/* Drops what has not been given. Returns the lowest id of a channel that one of the dropped frames opens,
 * one given in part among them: nobody can have read it. 0: none. */
uint64_t bm_frame_outbox_drop(struct bm_frame_outbox *outbox);

#endif
