/* The kernel side of the seam, over liburing.
 *
 * Model: one ring per reactor. SINGLE_ISSUER and DEFER_TASKRUN make the kernel run completions only
 * inside our own enter, so nothing interrupts a turn; TASKRUN_FLAG shows in shared memory that such
 * work waits, so that a spinning reactor need not ask. SUBMIT_ALL: one refused submission does not
 * stop those behind it. liburing from 2.3 on is used; what that version lacks is not needed or is
 * filled in raw.
 *
 * Invariants: submissions are zeroed before they are handed out; a completion is copied before its
 * slot is given back; the CQ is large (multishots) and the SQ small (it holds one turn's batch).
 *
 * It does not retry, interpret results or count: that is the reactor's. */
#define _GNU_SOURCE
#include "uring/kernel.h"

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "uring/sanitize.h"

struct bm_kernel {
    struct io_uring ring;
};

static const unsigned setup_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                    IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
                                    IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;

/* A filter of system calls may let a ring be set up and forbid its use. */
static bool is_refusal(int r)
{
    return r == -EPERM || r == -ENOSYS || r == -EACCES;
}

static int try_out(struct io_uring *ring)
{
    /* The child has no use for the mappings; without this it could write into our ring. */
    int r = io_uring_ring_dontfork(ring);
    if (r < 0)
        return r;
    /* Saves the look-up of the descriptor in every enter; a ring without it works as well. */
    r = io_uring_register_ring_fd(ring);
    if (is_refusal(r))
        return r;
    r = io_uring_get_events(ring);
    return is_refusal(r) ? r : 0;
}

int bm_kernel_new(struct bm_account *account, unsigned sq_len, unsigned cq_len,
                  struct bm_kernel **ret, uint32_t *ret_features)
{
    struct bm_kernel *kernel = bm_alloc_zero(account, sizeof(*kernel));
    if (!kernel)
        return -ENOMEM;

    struct io_uring_params params = {.flags = setup_flags, .cq_entries = cq_len};
    int r = io_uring_queue_init_params(sq_len, &kernel->ring, &params);
    if (r < 0) {
        bm_free(account, kernel, sizeof(*kernel));
        return r;
    }
    /* Written by a library that the memory sanitizer did not see. */
    bm_sanitize_defined(&kernel->ring, sizeof(kernel->ring));

    r = try_out(&kernel->ring);
    if (r < 0) {
        io_uring_queue_exit(&kernel->ring);
        bm_free(account, kernel, sizeof(*kernel));
        return r;
    }
    bm_sanitize_defined(&kernel->ring, sizeof(kernel->ring));

    *ret = kernel;
    *ret_features = params.features;
    return 0;
}

struct bm_kernel *bm_kernel_free(struct bm_kernel *kernel, struct bm_account *account)
{
    if (!kernel)
        return NULL;
    io_uring_queue_exit(&kernel->ring);
    return bm_free(account, kernel, sizeof(*kernel));
}

struct bm_kernel *bm_kernel_abandon(struct bm_kernel *kernel, struct bm_account *account)
{
    if (!kernel)
        return NULL;
    close(kernel->ring.ring_fd);
    return bm_free(account, kernel, sizeof(*kernel));
}

int bm_kernel_fd(const struct bm_kernel *kernel)
{
    return kernel->ring.ring_fd;
}

struct io_uring_sqe *bm_kernel_sqe(struct bm_kernel *kernel)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&kernel->ring);
    return sqe ? memset(sqe, 0, sizeof(*sqe)) : NULL;
}

unsigned bm_kernel_room(const struct bm_kernel *kernel)
{
    return io_uring_sq_space_left(&kernel->ring);
}

unsigned bm_kernel_queued(const struct bm_kernel *kernel)
{
    return io_uring_sq_ready(&kernel->ring);
}

int bm_kernel_submit(struct bm_kernel *kernel)
{
    return io_uring_submit(&kernel->ring);
}

int bm_kernel_poll(struct bm_kernel *kernel)
{
    return io_uring_submit_and_get_events(&kernel->ring);
}

int bm_kernel_wait(struct bm_kernel *kernel, uint64_t timeout_ns)
{
    struct io_uring_cqe *cqe;
    /* A timer that is not needed is not cheap: set up, queued and cancelled with each wait. */
    if (timeout_ns == BM_WAIT_FOREVER)
        return io_uring_submit_and_wait_timeout(&kernel->ring, &cqe, 1, NULL, NULL);
    struct __kernel_timespec ts = {
        .tv_sec = (long long)(timeout_ns / BM_NS_PER_S),
        .tv_nsec = (long long)(timeout_ns % BM_NS_PER_S),
    };
    return io_uring_submit_and_wait_timeout(&kernel->ring, &cqe, 1, &ts, NULL);
}

unsigned bm_kernel_pending(const struct bm_kernel *kernel)
{
    unsigned flags = IO_URING_READ_ONCE(*kernel->ring.sq.kflags);
    return (io_uring_cq_ready(&kernel->ring) ? BM_PENDING_CQE : 0u) |
           (flags & IORING_SQ_TASKRUN ? BM_PENDING_TASKRUN : 0u) |
           (flags & IORING_SQ_CQ_OVERFLOW ? BM_PENDING_OVERFLOW : 0u);
}

unsigned bm_kernel_reapable(const struct bm_kernel *kernel)
{
    return io_uring_cq_ready(&kernel->ring);
}

unsigned bm_kernel_reap(struct bm_kernel *kernel, struct bm_cqe *ret, unsigned max)
{
    struct io_uring_cqe *cqe;
    unsigned head;
    unsigned n = 0;
    io_uring_for_each_cqe(&kernel->ring, head, cqe)
    {
        if (n == max)
            break;
        ret[n++] = (struct bm_cqe){cqe->user_data, cqe->res, cqe->flags};
    }
    if (n > 0)
        io_uring_cq_advance(&kernel->ring, n);
    return n;
}

int bm_kernel_eventfd(struct bm_kernel *kernel, int fd)
{
    return io_uring_register_eventfd(&kernel->ring, fd);
}

void bm_kernel_notify(struct bm_kernel *kernel, bool on)
{
    (void)io_uring_cq_eventfd_toggle(&kernel->ring, on);
    /* Pairs with the full barrier between the kernel's setting of TASKRUN and its look at our switch.
     * A stand-alone fence is right here: the other side is not a thread a sanitizer could see. */
    if (on)
        atomic_thread_fence(memory_order_seq_cst);
}

int bm_kernel_buffers_add(struct bm_kernel *kernel, void *ring, uint32_t count, uint16_t group)
{
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)ring,
        .ring_entries = count,
        .bgid = group,
    };
    return io_uring_register_buf_ring(&kernel->ring, &reg, 0);
}

void bm_kernel_buffers_drop(struct bm_kernel *kernel, uint16_t group)
{
    (void)io_uring_unregister_buf_ring(&kernel->ring, group);
}

const char *bm_kernel_library(void)
{
#ifdef IO_URING_VERSION_MAJOR
    static char text[16];
    if (!text[0])
        snprintf(text, sizeof(text), "%d.%d", io_uring_major_version(), io_uring_minor_version());
    return text;
#else
    return "2.3"; /* the oldest supported, and the last one that does not say */
#endif
}
