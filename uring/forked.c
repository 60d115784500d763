/* The epoch of a process: a word on a page that the kernel gives to a child as zeros.
 *
 * getpid(2) would do as well, at the price of a system call for each look; a handler of
 * pthread_atfork(3) would miss a raw clone(2). */
#define _GNU_SOURCE
#include "uring/forked.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"

static _Atomic uint64_t *page;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void map_page(void)
{
    size_t len = (size_t)sysconf(_SC_PAGESIZE);
    void *fresh = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return;
    if (madvise(fresh, len, MADV_WIPEONFORK) < 0) {
        munmap(fresh, len);
        return;
    }
    page = fresh;
}

uint64_t bm_fork_epoch(void)
{
    pthread_once(&once, map_page);
    if (!page)
        return 0;
    /* The number alone would not do: the first process of each pid namespace has the same. Relaxed: the
     * word publishes nothing but itself, and the first of several threads decides. */
    uint64_t epoch = atomic_load_explicit(page, memory_order_relaxed);
    if (epoch == 0) {
        uint32_t luck = 0;
        bm_random(&luck, sizeof(luck));
        uint64_t fresh = (uint64_t)getpid() << 32 | luck;
        if (atomic_compare_exchange_strong_explicit(page, &epoch, fresh, memory_order_relaxed,
                                                    memory_order_relaxed))
            epoch = fresh;
    }
    return epoch;
}

uint64_t bm_fork_epoch_seen(void)
{
    return page ? atomic_load_explicit(page, memory_order_relaxed) : 0;
}
