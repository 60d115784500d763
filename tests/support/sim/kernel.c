/* The kernel's side of the seam (uring/kernel.h) as a simulation: rings, enters, overflow, the eventfd.
 *
 * It keeps to what io_uring promises with SINGLE_ISSUER and DEFER_TASKRUN: what has become possible is
 * noticed at any time, but done inside an enter that gets events; a completion that finds the ring full
 * waits in the kernel, behind those that wait already, until such an enter; whatever a submission that
 * may not wait has to say stands in the ring, or in that overflow, when the enter returns.
 *
 * What a submission becomes is request.c's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "tests/support/sim/inner.h"

#define SMALL_RING_LEN 4u
#define ENTER_NS 2000u /* an enter takes up to so long */

static struct bm_list kernels;
static unsigned numbers;

struct bm_list *sim_kernels(void)
{
    if (!kernels.next)
        bm_list_init(&kernels);
    return &kernels;
}

static void *must_alloc(size_t count, size_t size)
{
    void *ptr = calloc(count, size);
    if (!ptr)
        sim_fail("no memory for the simulation itself");
    return ptr;
}

int bm_kernel_new(struct bm_account *account, unsigned sq_len, unsigned cq_len,
                  struct bm_kernel **ret, uint32_t *ret_features)
{
    (void)account;
    if (sim_chance(sim.odds.no_memory)) {
        sim.scarce = true;
        return -ENOMEM;
    }
    struct bm_kernel *kernel = must_alloc(1, sizeof(*kernel));
    kernel->number = numbers++;
    kernel->queue_len = sq_len;
    kernel->queue = must_alloc(sq_len, sizeof(*kernel->queue));
    kernel->ring_len = sim.odds.small_ring ? SMALL_RING_LEN : cq_len;
    kernel->ring = must_alloc(kernel->ring_len, sizeof(*kernel->ring));
    kernel->eventfd = -1;
    bm_list_init(&kernel->overflow);
    bm_list_init(&kernel->requests);
    bm_list_push_back(sim_kernels(), &kernel->node);
    *ret = kernel;
    *ret_features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    return 0;
}

struct bm_kernel *bm_kernel_free(struct bm_kernel *kernel, struct bm_account *account)
{
    (void)account;
    if (!kernel)
        return NULL;
    struct bm_list *node;
    while ((node = bm_list_pop_front(&kernel->overflow)))
        free(bm_list_entry(node, struct sim_cqe, node));
    sim_requests_free(kernel);
    bm_list_unlink(&kernel->node);
    if (bm_list_empty(sim_kernels()))
        numbers = 0;
    free(kernel->queue);
    free(kernel->ring);
    free(kernel);
    return NULL;
}

struct bm_kernel *bm_kernel_abandon(struct bm_kernel *kernel, struct bm_account *account)
{
    return bm_kernel_free(kernel, account);
}

/* A number that is no descriptor: for MSG_RING alone. */
#define RING_FD_BASE (1 << 20)

int bm_kernel_fd(const struct bm_kernel *kernel)
{
    return RING_FD_BASE + (int)kernel->number;
}

struct bm_kernel *sim_kernel_of(int fd)
{
    struct bm_list *node;
    for (node = sim_kernels()->next; node != sim_kernels(); node = node->next) {
        struct bm_kernel *kernel = bm_list_entry(node, struct bm_kernel, node);
        if (bm_kernel_fd(kernel) == fd)
            return kernel;
    }
    return NULL;
}

/* --- completions ----------------------------------------------------------------------------- */

bool sim_ring_is_full(const struct bm_kernel *kernel)
{
    return kernel->ring_tail - kernel->ring_head == kernel->ring_len ||
           !bm_list_empty(&kernel->overflow);
}

static void tell_host(const struct bm_kernel *kernel)
{
    const uint64_t one = 1;
    if (kernel->notify && kernel->eventfd >= 0 &&
        write(kernel->eventfd, &one, sizeof(one)) != sizeof(one))
        sim_fail("the eventfd of kernel %u cannot be written", kernel->number);
}

void sim_complete(struct bm_kernel *kernel, uint64_t user_data, int res, uint32_t flags)
{
    struct bm_cqe cqe = {user_data, res, flags};
    if (sim_ring_is_full(kernel)) {
        struct sim_cqe *late = must_alloc(1, sizeof(*late));
        late->cqe = cqe;
        bm_list_push_back(&kernel->overflow, &late->node);
    } else {
        kernel->ring[kernel->ring_tail++ % kernel->ring_len] = cqe;
    }
    tell_host(kernel);
}

void sim_defer(struct bm_kernel *kernel)
{
    kernel->deferred = true;
    tell_host(kernel);
}

static void flush_overflow(struct bm_kernel *kernel)
{
    while (!bm_list_empty(&kernel->overflow) &&
           kernel->ring_tail - kernel->ring_head < kernel->ring_len) {
        struct bm_list *node = bm_list_pop_front(&kernel->overflow);
        struct sim_cqe *late = bm_list_entry(node, struct sim_cqe, node);
        kernel->ring[kernel->ring_tail++ % kernel->ring_len] = late->cqe;
        free(late);
    }
}

unsigned bm_kernel_pending(const struct bm_kernel *kernel)
{
    return (kernel->ring_tail != kernel->ring_head ? BM_PENDING_CQE : 0u) |
           (kernel->deferred ? BM_PENDING_TASKRUN : 0u) |
           (bm_list_empty(&kernel->overflow) ? 0u : BM_PENDING_OVERFLOW);
}

unsigned bm_kernel_reapable(const struct bm_kernel *kernel)
{
    return kernel->ring_tail - kernel->ring_head;
}

unsigned bm_kernel_reap(struct bm_kernel *kernel, struct bm_cqe *ret, unsigned max)
{
    unsigned n = 0;
    while (n < max && kernel->ring_head != kernel->ring_tail)
        ret[n++] = kernel->ring[kernel->ring_head++ % kernel->ring_len];
    return n;
}

/* --- submissions and enters ------------------------------------------------------------------ */

struct io_uring_sqe *bm_kernel_sqe(struct bm_kernel *kernel)
{
    if (kernel->queue_tail - kernel->queue_head == kernel->queue_len)
        return NULL;
    struct io_uring_sqe *sqe = &kernel->queue[kernel->queue_tail++ % kernel->queue_len];
    return memset(sqe, 0, sizeof(*sqe));
}

unsigned bm_kernel_room(const struct bm_kernel *kernel)
{
    return kernel->queue_len - bm_kernel_queued(kernel);
}

unsigned bm_kernel_queued(const struct bm_kernel *kernel)
{
    return kernel->queue_tail - kernel->queue_head;
}

static bool is_linked(const struct io_uring_sqe *sqe)
{
    return sqe->flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK);
}

/* Takes up to max submissions, in their order. A chain is taken whole, but for one of what is done to a
 * file, which an enter that takes a part may cut: then the rest is no chain any more, or another. */
static unsigned take(struct bm_kernel *kernel, unsigned max)
{
    unsigned taken = 0;
    while (taken < max && bm_kernel_queued(kernel) > 0) {
        struct io_uring_sqe chain[256];
        unsigned n = 0;
        do {
            bm_assert(n < 256);
            chain[n] = kernel->queue[kernel->queue_head++ % kernel->queue_len];
        } while (is_linked(&chain[n++]) && bm_kernel_queued(kernel) > 0 &&
                 (taken + n < max || chain[0].opcode != IORING_OP_WRITE));
        sim_submit(kernel, chain, n);
        taken += n;
    }
    return taken;
}

/* The part of an enter that submits: how many were taken, or why none. */
static int submit(struct bm_kernel *kernel)
{
    static const int refusals[] = {-EAGAIN, -EBUSY, -ENOMEM, -EINTR};
    unsigned max = bm_kernel_queued(kernel);
    sim_advance(sim.now_ns + sim_below(ENTER_NS));
    if (sim_chance(sim.odds.enter)) {
        int r = refusals[sim_below(4)];
        sim_event("kernel %u: an enter is refused: %d", kernel->number, r);
        return r;
    }
    if (max > 1 && sim_chance(sim.odds.enter))
        max = 1 + (unsigned)sim_below(max);
    return (int)take(kernel, max);
}

static void notice(struct bm_kernel *kernel)
{
    struct bm_list *node;
    for (node = kernel->requests.next; node != &kernel->requests; node = node->next)
        sim_request_notice(bm_list_entry(node, struct sim_request, node));
}

static unsigned ready_requests(struct bm_kernel *kernel, struct sim_request **ret)
{
    unsigned n = 0;
    struct bm_list *node;
    for (node = kernel->requests.next; node != &kernel->requests; node = node->next) {
        struct sim_request *request = bm_list_entry(node, struct sim_request, node);
        if (request->ready && ret)
            ret[n] = request;
        n += request->ready;
    }
    return n;
}

static void shuffle(struct sim_request **requests, unsigned n)
{
    for (unsigned i = n; i > 1; i--) {
        unsigned other = (unsigned)sim_below(i);
        struct sim_request *request = requests[i - 1];
        requests[i - 1] = requests[other];
        requests[other] = request;
    }
}

/* The part of an enter that gets events: the deferred work is done, perhaps not all of it. */
static void get_events(struct bm_kernel *kernel)
{
    flush_overflow(kernel);
    notice(kernel);
    unsigned n = ready_requests(kernel, NULL);
    if (n > 0) {
        struct sim_request **requests = must_alloc(n, sizeof(struct sim_request *));
        (void)ready_requests(kernel, requests);
        if (sim_chance(sim.odds.reorder))
            shuffle(requests, n);
        unsigned some = sim_chance(sim.odds.late) ? 1 + (unsigned)sim_below(n) : n;
        for (unsigned i = 0; i < some; i++)
            sim_request_run(requests[i]);
        free(requests);
    }
    kernel->deferred = ready_requests(kernel, NULL) > 0;
}

int bm_kernel_submit(struct bm_kernel *kernel)
{
    return submit(kernel);
}

int bm_kernel_poll(struct bm_kernel *kernel)
{
    int r = submit(kernel);
    if (r >= 0)
        get_events(kernel);
    return r;
}

static uint64_t next_ns(const struct bm_kernel *kernel)
{
    uint64_t next = SIM_NEVER;
    const struct bm_list *node;
    for (node = kernel->requests.next; node != &kernel->requests; node = node->next) {
        const struct sim_request *request = bm_list_entry(node, const struct sim_request, node);
        if (request->due_ns > sim.now_ns && request->due_ns < next)
            next = request->due_ns;
    }
    return next;
}

int bm_kernel_wait(struct bm_kernel *kernel, uint64_t timeout_ns)
{
    uint64_t until_ns = timeout_ns < SIM_NEVER - sim.now_ns ? sim.now_ns + timeout_ns : SIM_NEVER;
    int r = submit(kernel);
    while (r >= 0) {
        get_events(kernel);
        if (kernel->ring_head != kernel->ring_tail)
            return r;
        if (sim_chance(sim.odds.enter))
            return -EINTR;
        uint64_t next = kernel->deferred ? sim.now_ns + 1 : next_ns(kernel);
        if (next == SIM_NEVER && until_ns == SIM_NEVER)
            sim_fail("kernel %u: a wait that nothing can end", kernel->number);
        if (next > until_ns) {
            sim_advance(until_ns);
            return -ETIME;
        }
        sim_advance(next);
    }
    return r;
}

/* --- the host's eventfd, buffers ------------------------------------------------------------- */

int bm_kernel_eventfd(struct bm_kernel *kernel, int fd)
{
    kernel->eventfd = fd;
    kernel->notify = true;
    return 0;
}

void bm_kernel_notify(struct bm_kernel *kernel, bool on)
{
    /* What comes in the last moment before the switch is told to nobody: it has to be looked for. */
    if (on && sim_chance(5000)) {
        kernel->notify = false;
        notice(kernel);
    }
    kernel->notify = on;
}

int bm_kernel_buffers_add(struct bm_kernel *kernel, void *ring, uint32_t count, uint16_t group)
{
    if (sim_chance(sim.odds.no_memory)) {
        sim.scarce = true;
        return -ENOMEM;
    }
    for (unsigned i = 0; i < SIM_GROUPS; i++) {
        if (kernel->groups[i].used)
            continue;
        kernel->groups[i] = (struct sim_group){.used = true, .id = group, ring, count, 0};
        return 0;
    }
    return -ENOMEM;
}

void bm_kernel_buffers_drop(struct bm_kernel *kernel, uint16_t group)
{
    for (unsigned i = 0; i < SIM_GROUPS; i++)
        if (kernel->groups[i].used && kernel->groups[i].id == group)
            kernel->groups[i].used = false;
}

const char *bm_kernel_library(void)
{
    return "simulated";
}

/* --- the world ------------------------------------------------------------------------------- */

void sim_notice(void)
{
    struct bm_list *node;
    for (node = sim_kernels()->next; node != sim_kernels(); node = node->next)
        notice(bm_list_entry(node, struct bm_kernel, node));
}

uint64_t sim_next_ns(void)
{
    uint64_t next = SIM_NEVER;
    struct bm_list *node;
    for (node = sim_kernels()->next; node != sim_kernels(); node = node->next) {
        uint64_t ns = next_ns(bm_list_entry(node, struct bm_kernel, node));
        if (ns < next)
            next = ns;
    }
    return next;
}
