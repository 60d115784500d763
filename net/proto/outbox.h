/* Bytes on their way out: appended at one end, lent and acknowledged at the other. What was lent
 * does not move until it is acknowledged, whatever is appended meanwhile, so that a kernel may read
 * it. */
#ifndef BM_OUTBOX_H
#define BM_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

/* What a block holds at least. An outbox that is empty keeps one block of up to
 * BM_OUTBOX_KEPT_MAX. */
#define BM_OUTBOX_BLOCK 4000u     /* a page with the block's head and what malloc adds */
#define BM_OUTBOX_KEPT_MAX 20000u /* a TLS record of 16 KiB with room around it */

struct bm_outbox_block;

/* Zeroed but for its account it is empty. */
struct bm_outbox {
    struct bm_account *account;
    struct bm_outbox_block *first, *last;
    size_t len; /* bytes that wait */
};

/* Gives everything back. What was lent is gone too. */
void bm_outbox_deinit(struct bm_outbox *outbox);

/* Room of at least `need` bytes in one piece, for bm_outbox_commit; how much it is comes in
 * *ret_room. Where a new block is due it has `want` bytes at least. NULL: no memory. Good until the
 * next call. */
uint8_t *bm_outbox_room(struct bm_outbox *outbox, size_t need, size_t want, size_t *ret_room);
/* The first `len` bytes of the room have been written. */
void bm_outbox_commit(struct bm_outbox *outbox, size_t len);
/* All of it, or -ENOMEM and nothing. */
int bm_outbox_append(struct bm_outbox *outbox, const void *data, size_t len);

/* The next bytes, which stay put until they are acknowledged; NULL and 0 when there are none. */
const uint8_t *bm_outbox_output(const struct bm_outbox *outbox, size_t *ret_len);
/* That many of those lent have gone. */
void bm_outbox_ack(struct bm_outbox *outbox, size_t len);

#endif
