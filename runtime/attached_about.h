/* What the sender of an attached channel says about it beside its id and mode: a small kv map
 * (docs/spec/http.md D1), on networks alone. Of a channel that stands for a descriptor: what kind that
 * is, what can be done with it, and how many bytes follow. */
#ifndef BM_ATTACHED_ABOUT_H
#define BM_ATTACHED_ABOUT_H

#include <stdint.h>

#include "runtime/frame.h"
#include "runtime/pump.h"

struct bm_about {
    enum bm_pump_kind kind;
    bool readable, writable; /* what the receiver can do */
    uint64_t length;         /* BM_PUMP_FILE; else BM_PUMP_TO_END */
};

/* Writes the map, BM_ABOUT_LEN_MAX bytes of room, 8-aligned; returns its length, a multiple of 8. */
uint32_t bm_about_write(const struct bm_about *about, void *out);

/* -BEAM_EFRAME_ATTACHMENT: none, malformed, or without what it needs. The bytes may be any. */
int bm_about_parse(const void *document, uint32_t len, struct bm_about *ret_about);

#endif
