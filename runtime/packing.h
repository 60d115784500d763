/* Frames into bytes, for every carrier that sends bytes: which frame a message gives next, how long that is,
 * and the frame itself. How the bytes travel, and when there is room for them, is the carrier's.
 *
 * A message goes in two steps, so that nothing has happened when there is no room:
 *
 *     bm_packing_plan(channel, message, &packing);
 *     there is no room for packing.len bytes and packing.fds fds: BM_PUT_FULL
 *     bm_packing_write(&packing, at);
 *     return bm_packing_left(&packing);   or what else the carrier does with the message
 */
#ifndef BM_PACKING_H
#define BM_PACKING_H

#include "runtime/session.h"

struct bm_packing {
    beam_channel *channel;
    beam_message *message;
    uint32_t len;  /* of the frame, padding included: at most BM_FRAME_LEN_MAX, a multiple of 8 */
    uint32_t part; /* bytes of the body in it */
    uint8_t fds;   /* what its header says; how they travel is the carrier's */
    bool first;    /* the first frame of a message; else bytes alone */
    bool whole;    /* nothing of the message is left behind it */
    struct bm_message_head head; /* first */
};

/* The next frame of a message that the session wants to be put. Changes nothing. */
void bm_packing_plan(beam_channel *channel, beam_message *message, struct bm_packing *ret);

/* Writes the frame, exactly packing->len bytes, 8-aligned. It surely goes: ids are given to the channel and
 * to those that are attached, and the message remembers how much of it has been written. */
void bm_packing_write(const struct bm_packing *packing, uint8_t *out);

/* For carriers that need nothing of a message any more: the ends of channels that were attached are the
 * application's alone, and a whole message is freed. Returns what put_message does. */
int bm_packing_left(const struct bm_packing *packing);

/* The other slots of a carrier that has `room`. */
bool bm_packing_put_hello(beam_session *session);
bool bm_packing_put_end(beam_session *session, uint64_t id, uint8_t flags,
                        const struct bm_frame_end *end);
bool bm_packing_put_u64(beam_session *session, enum bm_frame_kind kind, uint8_t flags, uint64_t id,
                        uint64_t value);
bool bm_packing_put_goaway(beam_session *session, const struct bm_frame_goaway *goaway);

/* For a carrier's farewell: the GOAWAY of a session that has failed, with its name. Writes at most
 * BM_PACKING_FAREWELL_LEN bytes, 8-aligned, and returns how many. */
#define BM_PACKING_FAREWELL_LEN (BM_DETAILS_LEN_MAX + 64u)
uint32_t bm_packing_farewell(const beam_session *session, uint8_t *out);

#endif
