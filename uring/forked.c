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
    /* Relaxed: every thread would write the same number. */
    if (atomic_load_explicit(page, memory_order_relaxed) == 0)
        atomic_store_explicit(page, (uint64_t)getpid(), memory_order_relaxed);
    return atomic_load_explicit(page, memory_order_relaxed);
}

uint64_t bm_fork_epoch_seen(void)
{
    return page ? atomic_load_explicit(page, memory_order_relaxed) : 0;
}
