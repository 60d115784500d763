/* A request: a submission that the kernel has taken, on its way to its completion.
 *
 *   submitted -- at once --> done            (also: refused, or too late for what it wants to cancel)
 *             -- or has to wait --> noticed (it could be done) --> done in an enter that gets events
 *
 * Kept to, because the code relies on it: a send that may not wait is done at once; a link goes on when
 * its head has succeeded, and if that is a write, has written all; a hard link anyway; a multishot whose
 * completion finds the ring full ends; what has begun to work on a file is not cancelled.
 *
 * Checked here, because only the kernel can see it: one send at a time on a socket, the bytes of a send or
 * a write unchanged until it is done, nothing submitted twice, and memory that lives as long as its request. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/support/sim/inner.h"

#define LATE_NS_MAX 3000000u /* an operation that is late, mostly: up to 3 ms */
#define VERY_LATE 8u         /* ... and one of so many twenty times that */
#define STUCK_NS 20000000000u
#define TAG_MASK 7u

static struct sim_request *request_new(struct bm_kernel *kernel, const struct io_uring_sqe *sqe)
{
    struct sim_request *request = calloc(1, sizeof(*request));
    if (!request)
        sim_fail("no memory for the simulation itself");
    request->kernel = kernel;
    request->sqe = *sqe;
    return request;
}

static bool is_send(const struct io_uring_sqe *sqe)
{
    return sqe->opcode == IORING_OP_SEND || sqe->opcode == IORING_OP_SENDMSG;
}

static bool is_file(const struct io_uring_sqe *sqe)
{
    return sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_FSYNC ||
           sqe->opcode == IORING_OP_RENAMEAT || sqe->opcode == IORING_OP_FALLOCATE;
}

/* Whose bytes are the kernel's until it is done. */
static bool has_payload(const struct io_uring_sqe *sqe)
{
    return is_send(sqe) || sqe->opcode == IORING_OP_WRITE;
}

static bool is_multishot(const struct io_uring_sqe *sqe)
{
    return (sqe->opcode == IORING_OP_RECVMSG || sqe->opcode == IORING_OP_RECV) &&
           (sqe->ioprio & IORING_RECV_MULTISHOT);
}

static bool may_be_late(const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_ASYNC_CANCEL:
    case IORING_OP_TIMEOUT_REMOVE:
    case IORING_OP_TIMEOUT:
    case IORING_OP_NOP:
        return false;
    case IORING_OP_CLOSE: /* of files without flush(), as all here are, it is done at once; a late one is
                             played only where the code says that it waits for it */
        return !(sqe->flags & IOSQE_CQE_SKIP_SUCCESS);
    default:
        return !(is_send(sqe) && (sqe->msg_flags & MSG_DONTWAIT));
    }
}

static uint64_t lateness(void)
{
    uint64_t ns = 1 + sim_below(LATE_NS_MAX);
    return sim_below(VERY_LATE) == 0 ? 20 * ns : ns;
}

/* --- what only the kernel can see ------------------------------------------------------------ */

static void check_alone(const struct bm_kernel *kernel, const struct io_uring_sqe *sqe)
{
    const struct bm_list *node;
    for (node = kernel->requests.next; node != &kernel->requests; node = node->next) {
        const struct sim_request *other = bm_list_entry(node, const struct sim_request, node);
        if (is_send(sqe) && is_send(&other->sqe) && other->sqe.fd == sqe->fd)
            sim_fail("two sends are under way on descriptor %d: they may change places", sqe->fd);
        if ((sqe->user_data & TAG_MASK) == 0 && other->sqe.user_data == sqe->user_data)
            sim_fail("an op is submitted that is under way already (opcode %u)", sqe->opcode);
    }
}

static void check_alive(const struct sim_request *request)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    if ((sqe->user_data & TAG_MASK) == 0 && sqe->user_data &&
        sim_memory_is_dead((const void *)(uintptr_t)sqe->user_data))
        sim_fail("an op was freed before its last completion (opcode %u)", sqe->opcode);
    if (has_payload(sqe) && sim_payload_digest(sqe) != request->digest)
        sim_fail("the bytes of a %s have changed while it was under way",
                 is_send(sqe) ? "send" : "write");
}

/* --- completion ------------------------------------------------------------------------------ */

static void issue(struct sim_request *request);

static void dispose(struct sim_request *request)
{
    while (request) {
        struct sim_request *next = request->next;
        bm_list_unlink(&request->node);
        free(request);
        request = next;
    }
}

/* A send that was to send all of a stream's bytes and could not: told, even if it should be silent. */
static bool fell_short(const struct io_uring_sqe *sqe, int res)
{
    return sqe->opcode == IORING_OP_SEND && (sqe->msg_flags & MSG_WAITALL) && res >= 0 &&
           res < (int)sqe->len;
}

/* As io_uring has it: a write that is short fails the link behind it, and is told as what it is. */
static bool holds_link(const struct io_uring_sqe *sqe, int res)
{
    if (fell_short(sqe, res))
        return sqe->flags & IOSQE_IO_HARDLINK;
    if (sqe->flags & IOSQE_IO_HARDLINK)
        return true;
    return sqe->opcode == IORING_OP_WRITE ? res == (int)sqe->len : res >= 0;
}

static void complete(struct sim_request *request, int res, uint32_t flags)
{
    struct bm_kernel *kernel = request->kernel;
    const struct io_uring_sqe *sqe = &request->sqe;
    sim_event("kernel %u: opcode %u on %d: %d, flags %#x", kernel->number, sqe->opcode, sqe->fd,
              res, flags & 0xffff);
    if (res < 0 || !(sqe->flags & IOSQE_CQE_SKIP_SUCCESS) || fell_short(sqe, res))
        sim_complete(kernel, sqe->user_data, res, flags);
    if (flags & IORING_CQE_F_MORE)
        return;

    struct sim_request *next = request->next;
    bool go_on = holds_link(sqe, res);
    request->next = NULL;
    dispose(request);
    if (next && go_on) {
        issue(next);
        return;
    }
    /* A chain that broke: those behind are cancelled, and with SKIP_SUCCESS not even told. */
    for (const struct sim_request *r = next; r; r = r->next)
        if (!(r->sqe.flags & IOSQE_CQE_SKIP_SUCCESS) || sim_chance(5000))
            sim_complete(kernel, r->sqe.user_data, -ECANCELED, 0);
    dispose(next);
}

/* --- doing it -------------------------------------------------------------------------------- */

/* What an operation may be told at any time, whatever the state of things; ends with 0. */
static const int *refusals_of(const struct io_uring_sqe *sqe)
{
    static const int receive[] = {-ENOMEM, -EINTR, -EAGAIN, 0};
    static const int send[] = {-ENOMEM, -ENOBUFS, -EINTR, 0};
    static const int accept[] = {-ENOMEM, -ENFILE, -ECONNABORTED, -EMFILE, -EINTR, 0};
    static const int connect[] = {-EAGAIN, -EINTR, 0};
    static const int ring[] = {-ENOMEM, 0};
    static const int write[] = {-EIO, -ENOSPC, -EDQUOT, -EINTR, -EAGAIN, SIM_SHORT, 0};
    static const int sync[] = {-EIO, -ENOSPC, -EDQUOT, -EINTR, 0};
    static const int rename[] = {-EIO, -ENOSPC, -EDQUOT, -ENOMEM, 0};
    static const int room[] = {-ENOSPC, -EDQUOT, -EIO, -EINTR, 0};
    static const int none[] = {0};
    switch (sqe->opcode) {
    case IORING_OP_RECV:
    case IORING_OP_RECVMSG:
        return receive;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        return send;
    case IORING_OP_ACCEPT:
        return accept;
    case IORING_OP_CONNECT:
        return connect;
    case IORING_OP_MSG_RING:
        return ring;
    case IORING_OP_WRITE:
        return write;
    case IORING_OP_FSYNC:
        return sync;
    case IORING_OP_RENAMEAT:
        return rename;
    case IORING_OP_FALLOCATE:
        return room;
    default:
        return none;
    }
}

int sim_refusal(const int *refusals, unsigned odds)
{
    bool here = ++sim.operations == sim.fault_at && sim.fault == SIM_OPERATION;
    unsigned n = 0;
    while (refusals[n] != 0)
        n++;
    if (n == 0 || !(here || sim_chance(odds)))
        return 0;
    bool given = here && sim.fault_variant > 0;
    return refusals[given ? (sim.fault_variant - 1) % n : sim_below(n)];
}

/* What goes wrong with this kind of operation besides; 0: nothing. */
static int trouble(struct sim_request *request)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    if (request->reset) {
        request->reset = false;
        return -ECONNRESET;
    }
    if ((sqe->flags & IOSQE_BUFFER_SELECT) && sim_chance(sim.odds.no_buffer))
        return -ENOBUFS;
    if (sqe->opcode == IORING_OP_SENDMSG &&
        ((const struct msghdr *)(uintptr_t)sqe->addr)->msg_controllen > 0 &&
        sim_chance(sim.odds.many_refs))
        return -ETOOMANYREFS;
    if (is_send(sqe) && (sqe->msg_flags & MSG_DONTWAIT) && sim_chance(sim.odds.late))
        return -EAGAIN;
    if (sqe->opcode == IORING_OP_ACCEPT && sim_chance(sim.odds.no_fds))
        return -EMFILE;
    if (sqe->opcode == IORING_OP_WRITE && sim_chance(sim.odds.short_write))
        return SIM_SHORT;
    return 0;
}

static int refusal(struct sim_request *request)
{
    int r = trouble(request);
    bool room = request->sqe.opcode == IORING_OP_FALLOCATE;
    unsigned odds = r != 0 ? 0 : room ? sim.odds.no_room : sim.odds.refused;
    int other = sim_refusal(refusals_of(&request->sqe), odds);
    return r != 0 ? r : other;
}

/* What is done to a file leaves traces when it fails, too. */
static int operate_on_file(const struct sim_request *request, int fault)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    const void *addr = (const void *)(uintptr_t)sqe->addr;
    switch (sqe->opcode) {
    case IORING_OP_WRITE:
        return sim_disk_write(sqe->fd, addr, sqe->len, sqe->off, fault);
    case IORING_OP_FSYNC:
        return sim_disk_sync(sqe->fd, request->disk_at, fault);
    case IORING_OP_FALLOCATE:
        return sim_disk_reserve(sqe->fd, (int)sqe->len, sqe->off, sqe->addr, fault);
    default:
        return sim_disk_rename(sqe->fd, addr, (int)sqe->len, (const void *)(uintptr_t)sqe->off, 0,
                               fault);
    }
}

/* A send that has sent a part says so, whatever ends it. */
static int cancelled_with(const struct sim_request *request)
{
    return request->sent > 0 ? (int)request->sent : -ECANCELED;
}

/* A multishot goes on as long as there is something and the ring has room. */
static void run_multishot(struct sim_request *request)
{
    for (;;) {
        int res = refusal(request);
        uint32_t flags = 0;
        if (res == 0 && !sim_operate(request, &res, &flags))
            return;
        bool over = !(flags & IORING_CQE_F_MORE) || sim_ring_is_full(request->kernel) ||
                    sim_chance(sim.odds.ends_early);
        if (over)
            flags &= ~IORING_CQE_F_MORE;
        complete(request, res, flags);
        if (over || sim_chance(sim.odds.late))
            return;
    }
}

static void run_single(struct sim_request *request)
{
    int res = refusal(request);
    uint32_t flags = 0;
    if (is_file(&request->sqe))
        res = operate_on_file(request, res);
    else if (res == 0 && !sim_operate(request, &res, &flags))
        return;
    if (res < 0 && request->sent > 0)
        res = (int)request->sent;
    complete(request, res, flags);
}

void sim_request_run(struct sim_request *request)
{
    request->ready = false;
    check_alive(request);
    if (request->cancelled)
        complete(request, cancelled_with(request), 0);
    else if (is_multishot(&request->sqe))
        run_multishot(request);
    else
        run_single(request);
}

void sim_request_notice(struct sim_request *request)
{
    if (request->ready || request->due_ns > sim.now_ns)
        return;
    if (!request->cancelled && !sim_is_possible(request))
        return;
    request->ready = true;
    sim_defer(request->kernel);
}

/* --- cancelling, timeouts -------------------------------------------------------------------- */

static struct sim_request *find(struct bm_kernel *kernel, uint64_t user_data)
{
    struct bm_list *node;
    for (node = kernel->requests.next; node != &kernel->requests; node = node->next) {
        struct sim_request *request = bm_list_entry(node, struct sim_request, node);
        if (request->sqe.user_data == user_data)
            return request;
    }
    return NULL;
}

/* Three things may come of it: the end at once; an end a little later, before which a result may come;
 * or the cancellation meets the op in its last step, which then completes as if nothing had been. */
static int cancel(struct bm_kernel *kernel, uint64_t user_data)
{
    struct sim_request *target = find(kernel, user_data);
    if (!target)
        return -ENOENT;
    check_alive(target);
    if (target->begun)
        return -EALREADY;
    if (!sim_chance(sim.odds.cancel_race)) {
        complete(target, cancelled_with(target), 0);
        return 0;
    }
    if (sim_is_possible(target) && sim_chance(5000))
        sim_request_run(target);
    target = find(kernel, user_data);
    if (target) {
        target->cancelled = true;
        target->due_ns = sim.now_ns + sim_below(LATE_NS_MAX);
    }
    return -EALREADY;
}

static uint64_t duration(uint64_t addr)
{
    const struct __kernel_timespec *ts = (const void *)(uintptr_t)addr;
    return (uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec;
}

static int update_timeout(struct bm_kernel *kernel, const struct io_uring_sqe *sqe)
{
    struct sim_request *target = find(kernel, sqe->addr);
    if (!target || target->ready)
        return -ENOENT;
    target->due_ns = sim.now_ns + duration(sqe->addr2);
    return 0;
}

/* A completion for another ring is deferred work there. */
static int message_ring(struct sim_request *request)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    struct bm_kernel *target = sim_kernel_of(sqe->fd);
    int r = target ? refusal(request) : -EBADFD;
    if (r < 0)
        return r;
    struct sim_request *message = request_new(target, &(struct io_uring_sqe){
                                                          .opcode = IORING_OP_NOP,
                                                          .fd = -1,
                                                          .user_data = sqe->off,
                                                      });
    bm_list_push_back(&target->requests, &message->node);
    sim_request_notice(message);
    return 0;
}

/* --- submission ------------------------------------------------------------------------------ */

static void issue(struct sim_request *request)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    struct bm_kernel *kernel = request->kernel;
    check_alone(kernel, sqe);
    bm_list_push_back(&kernel->requests, &request->node);
    if (has_payload(sqe))
        request->digest = sim_payload_digest(sqe);
    request->begun = is_file(sqe) && sim_chance(5000);
    request->disk_at = sim_disk_now();

    if (sqe->opcode == IORING_OP_ASYNC_CANCEL) {
        complete(request, cancel(kernel, sqe->addr), 0);
    } else if (sqe->opcode == IORING_OP_TIMEOUT_REMOVE) {
        complete(request, update_timeout(kernel, sqe), 0);
    } else if (sqe->opcode == IORING_OP_MSG_RING) {
        complete(request, message_ring(request), 0);
    } else if (sqe->opcode == IORING_OP_TIMEOUT) {
        request->due_ns = sim.now_ns + duration(sqe->addr);
    } else if (is_file(sqe) && sim_chance(sim.odds.stuck)) {
        request->begun = true;
        request->due_ns = sim.now_ns + STUCK_NS;
    } else if (may_be_late(sqe) && sim_chance(sim.odds.late)) {
        request->due_ns = sim.now_ns + lateness();
    } else {
        sim_request_run(request);
    }
}

void sim_submit(struct bm_kernel *kernel, const struct io_uring_sqe *sqes, unsigned count)
{
    struct sim_request *first = NULL;
    struct sim_request **next = &first;
    for (unsigned i = 0; i < count; i++) {
        *next = request_new(kernel, &sqes[i]);
        next = &(*next)->next;
    }
    issue(first);
}

void sim_requests_free(struct bm_kernel *kernel)
{
    struct bm_list *node;
    while ((node = bm_list_front(&kernel->requests))) {
        struct sim_request *request = bm_list_entry(node, struct sim_request, node);
        if ((request->sqe.user_data & TAG_MASK) == 0)
            sim_fail("a ring goes while an op is under way (opcode %u)", request->sqe.opcode);
        dispose(request);
    }
}
