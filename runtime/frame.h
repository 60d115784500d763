/* Session frames as bytes: docs/spec/session.md sections 2 to 4. Pure functions, no state, no I/O.
 *
 * What can be judged without knowing the session is judged here, and named; what depends on it
 * (ids, credit, fragments, whether a MSG continues another) is the session's. */
#ifndef BM_FRAME_H
#define BM_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include <beam/kv.h>
#include <beam/message.h>

#include "base/bytes.h"

#define BM_FRAME_HEADER_LEN 16u
#define BM_FRAME_LEN_MAX 65536u   /* header to padding; docs/spec/session.md F2 */
#define BM_FRAME_KIND_IGNORED 128 /* unknown kinds from here up are skipped; F3 */
#define BM_NAME_LEN_MAX 255u
#define BM_ATTACHED_MAX BEAM_MESSAGE_CHANNELS_MAX
#define BM_ATTACHED_LEN 16u
#define BM_ABOUT_LEN_MAX 256u /* of the map that says more of one; http.md D1 */
#define BM_DEPTH_MAX 16u      /* of nesting; M9 */
#define BM_WINDOW_MIN 16384u  /* H1 */

/* Until the peer's HELLO has come, besides the least window; H3. */
#define BM_EARLY_CHANNELS 16u /* open at once */
#define BM_EARLY_LEN 65536u   /* of messages in all, bytes */

enum bm_frame_kind {
    BM_FRAME_HELLO = 1,
    BM_FRAME_MSG = 2,
    BM_FRAME_END = 3,
    BM_FRAME_CREDIT = 4,
    BM_FRAME_PING = 5,
    BM_FRAME_GOAWAY = 6,
};

enum {
    BM_MSG_OPEN = 1,
    BM_MSG_MORE = 2,
    BM_MSG_END = 4,
    BM_MSG_ONEWAY = 8,
    BM_END_ABORT = 1,
    BM_END_WITHDRAWN = 0x80, /* between cores alone: bm_channel_withdraw() */
    BM_PING_ACK = 1,
};

enum bm_channel_mode {
    BM_MODE_MESSAGES = 0,
    BM_MODE_BYTES = 1,
    BM_MODE_FD = 2, /* bytes of a descriptor; networks alone, http.md D1 */
};

/* A frame with its header taken apart. payload points into the packet. */
struct bm_frame {
    uint64_t channel;
    uint32_t len; /* of the payload */
    uint8_t kind, flags, fds, attached;
    const uint8_t *payload;
};

/* The head of a message: everything in its first frame before the body. */
struct bm_message_head {
    bool open; /* name, depth and deadline_ns are there */
    uint8_t depth;
    uint8_t attached; /* entries of BM_ATTACHED_LEN bytes each */
    uint32_t codec;
    uint64_t deadline_ns; /* nanoseconds left; 0: none */
    beam_str name;
    bool large; /* body_total is there: first of several */
    uint64_t body_total;
    const uint8_t *attached_entries;
    bool network;          /* entries may have a map behind them, and mode BM_MODE_FD */
    const uint8_t *abouts; /* those maps, in the entries' order */
    uint32_t abouts_len;
    const void *metadata; /* checked kv map, or NULL */
    uint32_t metadata_len;
    const uint8_t *body; /* the part of the body in this frame */
    uint32_t body_len;
};

struct bm_frame_end {
    uint32_t code;
    const void *details; /* checked kv map, or NULL */
    uint32_t details_len;
};

struct bm_frame_goaway {
    uint64_t last_id;
    struct bm_frame_end why;
};

struct bm_attached {
    uint64_t id;
    enum bm_channel_mode mode;
    uint32_t about_len; /* a multiple of 8; 0: none */
    const uint8_t *about;
};

/* Takes the next frame off a packet and checks header, length, padding, flags, channel and fixed
 * payloads (END and GOAWAY details included; of HELLO only that it is there). Returns
 *   1: a frame;
 *   2: a frame of an unknown kind, to be ignored (its fds count all the same);
 *   0: the packet is used up;
 *   -BEAM_EFRAME_…: the rest of the packet is not to be looked at. */
int bm_frame_next(struct bm_bytes *packet, struct bm_frame *ret_frame);

/* Takes apart the first frame of a message on a message-mode channel. 0 or -BEAM_EFRAME_…;
 * -BEAM_EFRAGMENT: the first of several, yet nothing of the announced length is left for them.
 * After 0, body_len < body_total holds if large. */
int bm_frame_parse_message(const struct bm_frame *frame, struct bm_message_head *ret_head);
/* The same of a carrier that passes no descriptors: entries of attached channels may say more. */
int bm_frame_parse_network_message(const struct bm_frame *frame, struct bm_message_head *ret_head);
/* i < head->attached. -BEAM_EFRAME_ATTACHMENT: unknown mode; -BEAM_EFRAME_PADDING: reserved field.
 * Whether the id is one the peer may use is not looked at. */
int bm_frame_parse_attached(const struct bm_message_head *head, unsigned i,
                            struct bm_attached *ret_attached);
void bm_frame_parse_end(const struct bm_frame *frame, struct bm_frame_end *ret_end);
void bm_frame_parse_goaway(const struct bm_frame *frame, struct bm_frame_goaway *ret_goaway);
static inline uint64_t bm_frame_parse_u64(const struct bm_frame *frame) /* CREDIT, PING */
{
    return bm_get_u64(frame->payload);
}

/* Writers: all write whole frames with padding at out (8-aligned, room given by the _len function
 * or the constants) and return the end. */
#define BM_FRAME_U64_LEN 24u
uint8_t *bm_frame_put_u64(uint8_t *out, enum bm_frame_kind kind, uint8_t flags, uint64_t channel,
                          uint64_t value);

static inline uint32_t bm_frame_end_len(uint32_t details_len)
{
    return (uint32_t)bm_round_up8(BM_FRAME_HEADER_LEN + 8 + (uint64_t)details_len);
}
uint8_t *bm_frame_put_end(uint8_t *out, uint64_t channel, uint8_t flags,
                          const struct bm_frame_end *end);

static inline uint32_t bm_frame_goaway_len(uint32_t details_len)
{
    return (uint32_t)bm_round_up8(BM_FRAME_HEADER_LEN + 16 + (uint64_t)details_len);
}
uint8_t *bm_frame_put_goaway(uint8_t *out, const struct bm_frame_goaway *goaway);
uint8_t *bm_frame_put_hello(uint8_t *out, const void *document, uint32_t document_len);

/* Bytes of header and head, up to where the body begins. */
uint32_t bm_frame_message_head_len(const struct bm_message_head *head);
/* Writes a whole frame, with the head->body_len bytes at head->body. OPEN and MORE in flags agree
 * with head->open and head->large. The entries of attached channels are left to the caller, who
 * writes head->attached of them from *ret_attached on, with bm_frame_put_attached, and behind them
 * head->abouts_len bytes of their maps; ret_attached may be NULL when there are none. */
uint8_t *bm_frame_put_message(uint8_t *out, uint64_t channel, uint8_t flags, uint8_t fds,
                              const struct bm_message_head *head, uint8_t **ret_attached);
void bm_frame_put_attached(uint8_t *entry, const struct bm_attached *attached);
/* A later frame of a message, or any MSG of a byte-mode channel: header and bytes. */
uint8_t *bm_frame_put_bytes(uint8_t *out, uint64_t channel, uint8_t flags, const void *bytes,
                            uint32_t len);

#endif
