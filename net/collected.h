/* A body on its way in, collected whole, and the answer to it on its way out, which lies there until the
 * peer has read it. Each is as long as a message may be, and all of one connection together three quarters
 * of what the large messages of a session may have (docs/spec/session.md W5; or one message): with the
 * small ones of all its streams that is what one peer can cost. On the core's thread. */
#ifndef BM_COLLECTED_H
#define BM_COLLECTED_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "runtime/message.h"

struct bm_core;

struct bm_collected {
    struct bm_core *core;
    const void *payer;   /* whose budget: the connection */
    struct bm_body body; /* so far; a block of the core's pool */
    struct bm_list node; /* among those that are charged, */
    const void *list;    /* ... which are of one thread; NULL: it is not */
    uint64_t charged;    /* bytes; 0 for what fits a frame */
    size_t held;         /* bytes, among those of the core's networks */
    uint64_t memory_max; /* memory_budget.h */
};

void bm_collected_init(struct bm_collected *collected, struct bm_core *core, const void *payer,
                       uint64_t memory_max);
/* Room for so many bytes in all. -EMSGSIZE: over the limit for messages. -ENOBUFS: the connection has too
 * much under way. -ENOMEM, also when all connections together hold too much. */
int bm_collected_reserve(struct bm_collected *collected, uint64_t len);
/* The next bytes. Errors as bm_collected_reserve. */
int bm_collected_add(struct bm_collected *collected, const uint8_t *bytes, size_t len);
/* So many bytes are to go out, besides the body, unless somebody has taken that. -ENOBUFS: the connection
 * has too much under way. */
int bm_collected_answer(struct bm_collected *collected, size_t len);
/* Gives the bytes back, unless somebody has taken `body`, and what they were charged. Idempotent. When the
 * core has ended, on any thread. */
void bm_collected_deinit(struct bm_collected *collected);

#endif
