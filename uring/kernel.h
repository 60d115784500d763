/* The seam between the reactor and the kernel: everything that crosses it is declared here, and only
 * kernel.c knows liburing. A test may link another kernel.c that plays the same calls from a seed;
 * the rest of this folder is the production code in both.
 *
 * All calls on the owner's thread. Integers: 0 or a count, else -errno. */
#ifndef BM_KERNEL_H
#define BM_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <liburing/compat.h> /* before the next one, which needs its types */
#include <liburing/io_uring.h>

struct bm_kernel;
struct bm_account;

/* One completion, copied out of the shared ring. */
struct bm_cqe {
    uint64_t user_data;
    int res;
    uint32_t flags;
};

/* What bm_kernel_pending() reports. */
enum {
    BM_PENDING_CQE = 1u << 0,      /* completions to reap */
    BM_PENDING_TASKRUN = 1u << 1,  /* deferred work: completions appear after the next enter */
    BM_PENDING_OVERFLOW = 1u << 2, /* completions kept in the kernel until the next enter */
};

/* Makes a ring whose only submitter is the calling thread. *ret_features gets IORING_FEAT_*. */
int bm_kernel_new(struct bm_account *account, unsigned sq_len, unsigned cq_len,
                  struct bm_kernel **ret, uint32_t *ret_features);
struct bm_kernel *bm_kernel_free(struct bm_kernel *kernel, struct bm_account *account);

/* In a child after fork: gives the memory and the descriptor back without touching the ring, whose
 * mappings the child does not have. */
struct bm_kernel *bm_kernel_abandon(struct bm_kernel *kernel, struct bm_account *account);

int bm_kernel_fd(const struct bm_kernel *kernel);

/* A zeroed submission to fill in, or NULL when the queue is full. user_data must be set. */
struct io_uring_sqe *bm_kernel_sqe(struct bm_kernel *kernel);

/* How many more there is room for before the next enter. */
unsigned bm_kernel_room(const struct bm_kernel *kernel);

/* Submissions the kernel has not taken yet. A failed enter leaves them; the next one takes them. */
unsigned bm_kernel_queued(const struct bm_kernel *kernel);

/* Enter, in three forms: submit only; submit and run deferred work; submit and wait for one
 * completion, without end for BM_WAIT_FOREVER. Counts of submissions, or -errno; -ETIME when the wait
 * ran out, -EINTR, and -EAGAIN or -EBUSY when the caller should reap and come again. */
#define BM_WAIT_FOREVER UINT64_MAX
int bm_kernel_submit(struct bm_kernel *kernel);
int bm_kernel_poll(struct bm_kernel *kernel);
int bm_kernel_wait(struct bm_kernel *kernel, uint64_t timeout_ns);

/* Without a system call. */
unsigned bm_kernel_pending(const struct bm_kernel *kernel);
unsigned bm_kernel_reapable(const struct bm_kernel *kernel); /* what is in the ring */
unsigned bm_kernel_reap(struct bm_kernel *kernel, struct bm_cqe *ret, unsigned max);

/* The eventfd that says "there is something", for a foreign loop; and its switch. Switching it on
 * is a full barrier: what the kernel queued before is visible to the next bm_kernel_pending(). */
int bm_kernel_eventfd(struct bm_kernel *kernel, int fd);
void bm_kernel_notify(struct bm_kernel *kernel, bool on);

/* Provided buffers: ring is page-aligned, count * sizeof(struct io_uring_buf) long, count a power of
 * two. */
int bm_kernel_buffers_add(struct bm_kernel *kernel, void *ring, uint32_t count, uint16_t group);
void bm_kernel_buffers_drop(struct bm_kernel *kernel, uint16_t group);

/* The version of liburing in use, as text. */
const char *bm_kernel_library(void);

#endif
