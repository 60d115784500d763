/* What the sender of an attached channel says about it beside its id and mode: a small kv map
 * (docs/spec/http.md D1), on networks alone. Of a channel that stands for a descriptor: what kind that
 * is, what can be done with it, and how many bytes follow. Of one of bytes, that one too: whether it may
 * have a stream of its own (dedicated.h). */
#ifndef BM_ATTACHED_ABOUT_H
#define BM_ATTACHED_ABOUT_H

#include <stdint.h>

#include "runtime/frame.h"
#include "runtime/pump.h"

#define BM_TOKEN_LEN 16u

struct bm_about {
    bool dedicated; /* modes BM_MODE_BYTES and BM_MODE_FD: the token is there */
    uint8_t token[BM_TOKEN_LEN];
    /* Of BM_MODE_FD: */
    enum bm_pump_kind kind;
    bool readable, writable; /* what the receiver can do */
    uint64_t length;         /* BM_PUMP_FILE; else BM_PUMP_TO_END */
};

/* Writes the map, BM_ABOUT_LEN_MAX bytes of room, 8-aligned; returns its length, a multiple of 8, and 0
 * where nothing is to be said. */
uint32_t bm_about_write(const struct bm_about *about, enum bm_channel_mode mode, void *out);

/* -BEAM_EFRAME_ATTACHMENT: malformed, or without what its mode needs, or none where something is needed.
 * The bytes may be any; len 0: there are none. */
int bm_about_parse(const void *document, uint32_t len, enum bm_channel_mode mode,
                   struct bm_about *ret_about);

#endif
