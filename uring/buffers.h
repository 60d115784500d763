/* Provided receive buffers: one group per reactor and size, registered with its ring. The kernel
 * picks a free one for each packet; it is borrowed during the completion's callback and recycled
 * before that callback returns. */
#ifndef BM_BUFFERS_H
#define BM_BUFFERS_H

#include <stdint.h>

#include "base/list.h"

struct bm_reactor;
struct bm_buffers;

/* Somebody whose multishot ended with -ENOBUFS; called back (from the loop, not from inside
 * recycle) when a buffer has come home. Never retried on a timer. */
struct bm_buffers_waiter {
    struct bm_list node;
    void (*fn)(struct bm_buffers_waiter *waiter);
};

/* count: a power of two <= 32768. group is unique in the reactor. -ENOMEM, or what the kernel says. */
int bm_buffers_new(struct bm_reactor *reactor, uint16_t group, uint32_t size, uint32_t count,
                   struct bm_buffers **ret);
struct bm_buffers *bm_buffers_free(struct bm_buffers *buffers);

void *bm_buffers_at(struct bm_buffers *buffers, int index);
void bm_buffers_recycle(struct bm_buffers *buffers, int index);
/* The completion entry's: a buffer came with a completion. */
void bm_buffers_taken(struct bm_reactor *reactor, uint16_t group, int index);
void bm_buffers_wait(struct bm_buffers *buffers, struct bm_buffers_waiter *waiter);
void bm_buffers_unwait(struct bm_buffers *buffers, struct bm_buffers_waiter *waiter);

#endif
