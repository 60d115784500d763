/* Provided buffers: a ring shared with the kernel through which buffers go to it, and completions
 * through which they come back.
 *
 * Model: buffer i lies at memory + i * size and has id i for life. At home means: given to the
 * kernel. A completion takes it out; the one who got it gives it back with recycle.
 *
 * Invariants: a buffer is at home or out, never both (asserted both ways); an entry of the ring is
 * complete before the tail that publishes it is stored (release; partner: the kernel's acquire);
 * the group goes only when no op of it is in flight, which is the owner's to see to.
 *
 * Waiters are called from the loop when a buffer is at home, all of them: those who find none left
 * wait again. It has no timer, no low-water mark and does not grow. */
#define _GNU_SOURCE
#include "uring/buffers.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "uring/reactor_inner.h"
#include "uring/sanitize.h"

#define COUNT_MAX 32768u /* kernel: io_register_pbuf_ring() */

struct bm_buffers {
    struct bm_list node; /* reactor->buffers */
    struct bm_reactor *reactor;
    struct io_uring_buf_ring *ring;
    size_t ring_len;
    unsigned char *memory;
    bool *out;
    uint32_t size;
    uint32_t count;
    uint32_t home;
    uint16_t group;
    uint16_t tail;
    struct bm_list waiters;
    struct bm_task call_waiters;
};

static size_t memory_len(const struct bm_buffers *buffers)
{
    return (size_t)buffers->size * buffers->count;
}

static void give(struct bm_buffers *buffers, uint32_t index)
{
    /* The tail shares the first entry's reserved field, which is therefore never written here. */
    struct io_uring_buf *entry = &buffers->ring->bufs[buffers->tail % buffers->count];
    void *buffer = bm_buffers_at(buffers, (int)index);
    entry->addr = (uint64_t)(uintptr_t)buffer;
    entry->len = buffers->size;
    entry->bid = (uint16_t)index;
    bm_sanitize_theirs(buffer, buffers->size);
    buffers->home++;
    buffers->tail++;
}

static void publish(struct bm_buffers *buffers)
{
    __atomic_store_n(&buffers->ring->tail, buffers->tail, __ATOMIC_RELEASE);
}

static void call_waiters(struct bm_task *task)
{
    struct bm_buffers *buffers = bm_container_of(task, struct bm_buffers, call_waiters);
    if (buffers->home == 0)
        return;
    struct bm_list now;
    struct bm_list *node;
    bm_list_init(&now);
    bm_list_splice_back(&now, &buffers->waiters);
    while ((node = bm_list_pop_front(&now))) {
        struct bm_buffers_waiter *waiter = bm_list_entry(node, struct bm_buffers_waiter, node);
        waiter->fn(waiter);
    }
}

static void *map_ring(size_t len)
{
    void *ring = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring == MAP_FAILED)
        return NULL;
    madvise(ring, len, MADV_DONTFORK); /* a child must not make our pages copy-on-write */
    return ring;
}

int bm_buffers_new(struct bm_reactor *reactor, uint16_t group, uint32_t size, uint32_t count,
                   struct bm_buffers **ret)
{
    if (count == 0 || count > COUNT_MAX || (count & (count - 1)) != 0 || size == 0)
        return -EINVAL;
    struct bm_buffers *buffers = bm_alloc_zero(&reactor->account, sizeof(*buffers));
    if (!buffers)
        return -ENOMEM;
    buffers->reactor = reactor;
    buffers->group = group;
    buffers->size = size;
    buffers->count = count;
    buffers->call_waiters.fn = call_waiters;
    bm_list_init(&buffers->waiters);

    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    buffers->ring_len = (count * sizeof(struct io_uring_buf) + page - 1) & ~(page - 1);
    buffers->ring = map_ring(buffers->ring_len);
    buffers->memory = bm_alloc(&reactor->account, memory_len(buffers));
    buffers->out = bm_alloc_zero(&reactor->account, count * sizeof(*buffers->out));
    int r = -ENOMEM;
    if (buffers->ring && buffers->memory && buffers->out)
        r = bm_kernel_buffers_add(reactor->kernel, buffers->ring, count, group);
    if (r < 0) {
        bm_buffers_free(buffers);
        return r;
    }
    bm_list_push_back(&reactor->buffers, &buffers->node);
    for (uint32_t i = 0; i < count; i++)
        give(buffers, i);
    publish(buffers);
    *ret = buffers;
    return 0;
}

struct bm_buffers *bm_buffers_free(struct bm_buffers *buffers)
{
    if (!buffers)
        return NULL;
    struct bm_account *account = &buffers->reactor->account;
    bm_task_cancel(&buffers->call_waiters);
    while (bm_list_pop_front(&buffers->waiters))
        ;
    if (bm_list_linked(&buffers->node)) {
        bm_kernel_buffers_drop(buffers->reactor->kernel, buffers->group);
        bm_list_unlink(&buffers->node);
        bm_sanitize_ours(buffers->memory, memory_len(buffers));
    }
    if (buffers->ring)
        munmap(buffers->ring, buffers->ring_len);
    bm_free(account, buffers->memory, memory_len(buffers));
    bm_free(account, buffers->out, buffers->count * sizeof(*buffers->out));
    return bm_free(account, buffers, sizeof(*buffers));
}

void *bm_buffers_at(struct bm_buffers *buffers, int index)
{
    bm_assert(index >= 0 && (uint32_t)index < buffers->count);
    return buffers->memory + (size_t)index * buffers->size;
}

void bm_buffers_taken(struct bm_reactor *reactor, uint16_t group, int index)
{
    struct bm_list *node;
    for (node = reactor->buffers.next; node != &reactor->buffers; node = node->next) {
        struct bm_buffers *buffers = bm_list_entry(node, struct bm_buffers, node);
        if (buffers->group != group)
            continue;
        void *buffer = bm_buffers_at(buffers, index);
        bm_assert(!buffers->out[index]);
        buffers->out[index] = true;
        buffers->home--;
        bm_sanitize_ours(buffer, buffers->size);
        bm_sanitize_defined(buffer, buffers->size);
        return;
    }
    bm_assert_failed("a buffer of a known group", __FILE__, __LINE__);
}

void bm_buffers_recycle(struct bm_buffers *buffers, int index)
{
    bm_assert(index >= 0 && (uint32_t)index < buffers->count);
    bm_assert(buffers->out[index]);
    buffers->out[index] = false;
    give(buffers, (uint32_t)index);
    publish(buffers);
    if (!bm_list_empty(&buffers->waiters))
        bm_task_queue(buffers->reactor, &buffers->call_waiters);
}

void bm_buffers_wait(struct bm_buffers *buffers, struct bm_buffers_waiter *waiter)
{
    if (bm_list_linked(&waiter->node))
        return;
    bm_list_push_back(&buffers->waiters, &waiter->node);
    /* One may have come home between the kernel's refusal and now. */
    if (buffers->home > 0)
        bm_task_queue(buffers->reactor, &buffers->call_waiters);
}

void bm_buffers_unwait(struct bm_buffers *buffers, struct bm_buffers_waiter *waiter)
{
    (void)buffers;
    bm_list_unlink(&waiter->node);
}
