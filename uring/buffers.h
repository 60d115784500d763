/* Provided receive buffers: a group of them is registered with the ring of its reactor. The kernel
 * picks a free one for each packet; the callback of the completion borrows it and recycles it before
 * it returns. Reactor's thread. */
#ifndef BM_BUFFERS_H
#define BM_BUFFERS_H

#include <stdint.h>

#include "base/list.h"

struct bm_reactor;
struct bm_buffers;

/* Somebody whose multishot ended with -ENOBUFS. Called back, from the loop and not from inside
 * recycle, when a buffer has come home; whoever finds none left then waits again. */
struct bm_buffers_waiter {
    struct bm_list node;
    void (*fn)(struct bm_buffers_waiter *waiter);
};

/* count buffers (a power of two <= 32768) of size bytes each. group is unique in the reactor. -EINVAL,
 * -ENOMEM, or what the kernel says. */
int bm_buffers_new(struct bm_reactor *reactor, uint16_t group, uint32_t size, uint32_t count,
                   struct bm_buffers **ret);
/* No op of the group may be in flight. Accepts NULL, returns NULL. */
struct bm_buffers *bm_buffers_free(struct bm_buffers *buffers);

/* The buffer that bm_op_buffer() names, while it is out. */
void *bm_buffers_at(struct bm_buffers *buffers, int index);
/* Gives it back to the kernel. */
void bm_buffers_recycle(struct bm_buffers *buffers, int index);
/* For bm_completion_enter() alone: the kernel has given this buffer out. */
void bm_buffers_taken(struct bm_reactor *reactor, uint16_t group, int index);
void bm_buffers_wait(struct bm_buffers *buffers, struct bm_buffers_waiter *waiter);
void bm_buffers_unwait(struct bm_buffers *buffers, struct bm_buffers_waiter *waiter);

#endif
