/* What the sanitizers cannot see for themselves: memory that the kernel writes (MSan takes it for
 * undefined) and memory that the kernel owns (ASan lets us touch it). Nothing in other builds.
 * TSan keeps account of descriptors and does not see the kernel close one: there they are closed by
 * close(2). It runs signal handlers in calls that it knows, and a wait in the ring is none: one follows.
 * Otherwise it needs no help: no happens-before is ever taken from a completion. */
#ifndef BM_SANITIZE_H
#define BM_SANITIZE_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define BM_SANITIZE_ADDRESS 1
#endif
#if defined(__SANITIZE_THREAD__)
#define BM_SANITIZE_THREAD 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BM_SANITIZE_ADDRESS 1
#endif
#if __has_feature(thread_sanitizer)
#define BM_SANITIZE_THREAD 1
#endif
#if __has_feature(memory_sanitizer)
#define BM_SANITIZE_MEMORY 1
#endif
#endif

#ifdef BM_SANITIZE_ADDRESS
#include <sanitizer/asan_interface.h>
#endif
#ifdef BM_SANITIZE_MEMORY
#include <sanitizer/msan_interface.h>
#endif

#ifdef BM_SANITIZE_THREAD
#define BM_KERNEL_CLOSES false
#define BM_HANDLERS_WAIT true
#else
#define BM_KERNEL_CLOSES true
#define BM_HANDLERS_WAIT false
#endif

/* The kernel, or code without instrumentation, wrote these bytes. */
static inline void bm_sanitize_defined(const void *ptr, size_t len)
{
#ifdef BM_SANITIZE_MEMORY
    __msan_unpoison(ptr, len);
#else
    (void)ptr;
    (void)len;
#endif
}

/* The kernel owns these bytes until bm_sanitize_ours(). */
static inline void bm_sanitize_theirs(const void *ptr, size_t len)
{
#ifdef BM_SANITIZE_ADDRESS
    __asan_poison_memory_region(ptr, len);
#else
    (void)ptr;
    (void)len;
#endif
}

static inline void bm_sanitize_ours(const void *ptr, size_t len)
{
#ifdef BM_SANITIZE_ADDRESS
    __asan_unpoison_memory_region(ptr, len);
#else
    (void)ptr;
    (void)len;
#endif
}

#endif
