/* The documents of a watch (docs/spec/kv.md, Y9), made of entries as they lie in a store: copied, not
 * put together value by value. What is asked to write into a buffer clears it first. */
#ifndef BM_FEED_H
#define BM_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <beam/buffer.h>
#include <beam/kv.h>

#include "runtime/store_state.h"

/* The length of the delta of a change set, and the delta itself, written to as many bytes. */
size_t bm_feed_delta_len(const struct bm_changes *changes);
void bm_feed_delta(uint8_t *to, const struct bm_changes *changes, uint64_t rev);
/* The revision of a delta. */
uint64_t bm_feed_rev(const uint8_t *delta, size_t len);

/* The part of a delta that is about keys with this prefix. 1: it is in out; 0: there is none; or an
 * error of the buffer. *ret_looked, whatever it returns: at how many of its keys it had to look. */
int bm_feed_filter(const uint8_t *delta, size_t len, beam_str prefix, beam_buffer *out,
                   uint64_t *ret_looked);

/* A snap: begin, entries as long as they are wanted, end. Errors as of the buffer. */
int bm_feed_snap_begin(beam_buffer *out, uint64_t rev);
int bm_feed_snap_add(beam_buffer *out, const struct bm_tree_entry *entry);
int bm_feed_snap_end(beam_buffer *out);

/* What is short: written to `to`, BM_FEED_SHORT_MAX bytes; the length. */
#define BM_FEED_SHORT_MAX 256u
struct bm_feed_head {
    uint64_t epoch, rev, skipped, heartbeat_ms;
    bool resume;
};
size_t bm_feed_head(uint8_t *to, const struct bm_feed_head *head);
size_t bm_feed_live(uint8_t *to, uint64_t rev);
size_t bm_feed_mark(uint8_t *to, uint64_t rev, uint64_t now);

/* An epoch as text (Y1), and back. */
#define BM_EPOCH_TEXT_LEN 16u
void bm_epoch_write(char *to, uint64_t epoch); /* and a NUL */
int bm_epoch_read(beam_str text, uint64_t *ret_epoch);

#endif
