/* Bytes on their way out: appended at one end, lent and acknowledged at the other. What was lent
 * does not move until it is acknowledged, whatever is appended meanwhile, so that a kernel may read
 * it. */
#ifndef BM_OUTBOX_H
#define BM_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

#define BM_OUTBOX_BLOCK 4000u     /* bytes: a page with the block's head and what malloc adds */
#define BM_OUTBOX_KEPT_MAX 20000u /* bytes: a TLS record of 16 KiB with room around it */

struct bm_outbox_block;

/* Zeroed but for its account it is empty. A block has BM_OUTBOX_BLOCK bytes at least. An
 * outbox that is emptied keeps one of up to kept_max, so that a busy connection allocates nothing.
 * How much it may hold is for its owner to say, who knows what can be refused and what cannot. */
struct bm_outbox {
    struct bm_account *account;
    size_t kept_max; /* 0: BM_OUTBOX_KEPT_MAX */
    struct bm_outbox_block *first, *last;
    size_t len; /* bytes that wait */
};

/* Gives everything back. What was lent is gone too. */
void bm_outbox_deinit(struct bm_outbox *outbox);

/* It is empty and keeps memory, which bm_outbox_trim gives back: for a connection that falls
 * silent. */
bool bm_outbox_is_idle(const struct bm_outbox *outbox);
void bm_outbox_trim(struct bm_outbox *outbox);

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
