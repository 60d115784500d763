/* What the files of the simulator share. */
#ifndef BEAM_TEST_SIM_INNER_H
#define BEAM_TEST_SIM_INNER_H

#include "base/list.h"
#include "tests/support/sim/sim.h"
#include "uring/kernel.h"

#define SIM_GROUPS 4u

/* A submission the kernel has taken. */
struct sim_request {
    struct bm_list node; /* kernel->requests, in the order they came */
    struct bm_kernel *kernel;
    struct io_uring_sqe sqe;
    struct sim_request *next; /* linked behind it */
    uint64_t due_ns;          /* not before */
    uint64_t digest;          /* of what a send names, when it was submitted */
    bool ready;               /* noticed: done at the next enter */
    bool cancelled;           /* ends with -ECANCELED when it is its turn */
    bool reset;               /* its peer has died: one -ECONNRESET is still to be told */
    bool begun;               /* it works on a file, and cannot be cancelled any more */
    uint64_t disk_at;         /* a sync: what it surely covers */
    uint32_t sent;            /* of a stream's bytes, by a send that is to send all (MSG_WAITALL) */
};

struct sim_group {
    bool used;
    uint16_t id;
    struct io_uring_buf_ring *ring;
    uint32_t count;
    uint16_t head;
};

struct sim_cqe {
    struct bm_list node; /* kernel->overflow */
    struct bm_cqe cqe;
};

struct bm_kernel {
    struct bm_list node; /* all kernels */
    unsigned number;
    struct io_uring_sqe *queue;
    unsigned queue_len, queue_head, queue_tail; /* head and tail count on */
    struct bm_cqe *ring;
    unsigned ring_len, ring_head, ring_tail;
    struct bm_list overflow;
    struct bm_list requests;
    struct sim_group groups[SIM_GROUPS];
    bool deferred; /* noticed work waits for an enter */
    int eventfd;
    bool notify;
};

/* request.c: from a submission to its completion. */
void sim_submit(struct bm_kernel *kernel, const struct io_uring_sqe *sqes, unsigned count);
void sim_request_notice(struct sim_request *request);
void sim_request_run(struct sim_request *request);
void sim_requests_free(struct bm_kernel *kernel);
/* Counts an attempt to do something, and says what it is refused with: the fault is at this place, or the
 * odds say so. 0: nothing goes wrong. The list ends with 0. */
int sim_refusal(const int *refusals, unsigned odds);
#define SIM_SHORT 1 /* among refusals: only a part of it is done */

/* operation.c: what an operation does, now. false: it has to wait. */
bool sim_operate(struct sim_request *request, int *ret_res, uint32_t *ret_flags);
bool sim_is_possible(const struct sim_request *request);
uint64_t sim_payload_digest(const struct io_uring_sqe *sqe);

/* disk.c: fault is 0, SIM_SHORT, or what it shall fail with. Results as of the kernel. */
int sim_disk_write(int fd, const void *bytes, size_t len, uint64_t offset, int fault);
int sim_disk_sync(int fd, uint64_t begun, int fault);
int sim_disk_reserve(int fd, int mode, uint64_t offset, uint64_t len, int fault);
int sim_disk_rename(int dir_fd, const char *from, int to_fd, const char *to, unsigned flags,
                    int fault);
uint64_t sim_disk_now(void);

/* kernel.c */
void sim_complete(struct bm_kernel *kernel, uint64_t user_data, int res, uint32_t flags);
/* There is work for the next enter that gets events. */
void sim_defer(struct bm_kernel *kernel);
bool sim_ring_is_full(const struct bm_kernel *kernel);
struct bm_list *sim_kernels(void);
/* The kernel with this bm_kernel_fd(); NULL. */
struct bm_kernel *sim_kernel_of(int fd);

/* memory.c */
void sim_memory_start(void);
void sim_memory_stop(void);
bool sim_memory_is_dead(const void *ptr);

#endif
