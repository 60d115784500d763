/* What an operation does once its time has come: a system call that does not wait.
 *
 * A full table of descriptors is made with RLIMIT_NOFILE around the one call, so that what the kernel
 * then leaves behind (MSG_CTRUNC, and the descriptors that still found room) is the kernel's own work. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/sim/inner.h"
#include "uring/packet.h"
#include "uring/sanitize.h"

/* The C library's own: the program's poll(2) is world.c's. */
int __real_poll(struct pollfd *fds, nfds_t count, int timeout);

static bool polled(int fd, short events)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    return __real_poll(&pfd, 1, 0) != 0; /* an error is a result, too */
}

bool sim_is_possible(const struct sim_request *request)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    switch (sqe->opcode) {
    case IORING_OP_ACCEPT:
    case IORING_OP_RECV:
    case IORING_OP_RECVMSG:
    case IORING_OP_READ:
        return polled(sqe->fd, POLLIN);
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        return polled(sqe->fd, POLLOUT);
    default:
        return true; /* it was only late */
    }
}

uint64_t sim_payload_digest(const struct io_uring_sqe *sqe)
{
    uint64_t digest = 14695981039346656037u; /* FNV-1a over words */
    const unsigned char *bytes = (const void *)(uintptr_t)sqe->addr;
    size_t len = sqe->len;
    if (sqe->opcode == IORING_OP_SENDMSG) {
        const struct msghdr *msg = (const void *)(uintptr_t)sqe->addr;
        bytes = msg->msg_iov[0].iov_base;
        len = msg->msg_iov[0].iov_len;
        digest ^= msg->msg_controllen;
    }
    for (size_t i = 0; i + 8 <= len; i += 8) { /* frames are padded to 8 */
        uint64_t word;
        memcpy(&word, bytes + i, sizeof(word));
        digest = (digest ^ word) * 1099511628211u;
    }
    return digest ^ len;
}

/* --- a full table of descriptors ------------------------------------------------------------- */

static struct rlimit limit_before;

/* Leaves room for `room` more descriptors. */
static void limit_fds(unsigned room)
{
    int free_fd = dup(0);
    struct rlimit limit;
    close(free_fd);
    getrlimit(RLIMIT_NOFILE, &limit_before);
    limit = limit_before;
    limit.rlim_cur = (rlim_t)free_fd + room;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void unlimit_fds(void)
{
    setrlimit(RLIMIT_NOFILE, &limit_before);
}

/* --- receiving ------------------------------------------------------------------------------- */

static struct sim_group *group_of(struct bm_kernel *kernel, uint16_t id)
{
    for (unsigned i = 0; i < SIM_GROUPS; i++)
        if (kernel->groups[i].used && kernel->groups[i].id == id)
            return &kernel->groups[i];
    sim_fail("a receive names a group of buffers that is not registered");
}

static ssize_t receive(int fd, struct msghdr *msg, int flags)
{
    bool full = sim_chance(sim.odds.no_fds);
    if (full)
        limit_fds((unsigned)sim_below(2));
    ssize_t n = recvmsg(fd, msg, flags | MSG_DONTWAIT);
    int error = errno;
    if (full)
        unlimit_fds();
    errno = error;
    return n;
}

/* One packet into one provided buffer, laid out as io_uring_prep_recvmsg_multishot(3) says. */
static bool receive_packet(struct sim_request *request, int *ret_res, uint32_t *ret_flags)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    const struct msghdr *form = (const void *)(uintptr_t)sqe->addr;
    struct sim_group *group = group_of(request->kernel, sqe->buf_group);
    uint16_t tail = __atomic_load_n(&group->ring->tail, __ATOMIC_ACQUIRE);
    if (!polled(sqe->fd, POLLIN))
        return false;
    if (tail == group->head) {
        *ret_res = -ENOBUFS;
        return true;
    }
    const struct io_uring_buf *entry = &group->ring->bufs[group->head % group->count];
    unsigned char *buffer = (void *)(uintptr_t)entry->addr;
    size_t head = BM_PACKET_OVERHEAD + form->msg_namelen + form->msg_controllen;
    bm_sanitize_ours(buffer, entry->len);

    struct iovec iov = {buffer + head, entry->len - head};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = buffer + BM_PACKET_OVERHEAD + form->msg_namelen,
        .msg_controllen = form->msg_controllen,
    };
    ssize_t n = receive(sqe->fd, &msg, (int)sqe->msg_flags);
    if (n < 0) {
        bm_sanitize_theirs(buffer, entry->len);
        *ret_res = -errno;
        return errno != EAGAIN;
    }
    uint32_t out[4] = {0, (uint32_t)msg.msg_controllen, (uint32_t)n, (uint32_t)msg.msg_flags};
    memcpy(buffer, out, sizeof(out));
    group->head++;
    *ret_res = (int)(head + (size_t)n);
    *ret_flags = IORING_CQE_F_BUFFER | (uint32_t)entry->bid << IORING_CQE_BUFFER_SHIFT |
                 (n > 0 ? IORING_CQE_F_MORE : 0);
    return true;
}

/* As many bytes of a stream as there are, or fewer, into one provided buffer. The end and an error may come
 * with a buffer, too: it was chosen before the kernel knew. */
static bool receive_bytes(struct sim_request *request, int *ret_res, uint32_t *ret_flags)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    struct sim_group *group = group_of(request->kernel, sqe->buf_group);
    uint16_t tail = __atomic_load_n(&group->ring->tail, __ATOMIC_ACQUIRE);
    bool multishot = sqe->ioprio & IORING_RECV_MULTISHOT;
    if (multishot && (sqe->addr != 0 || sqe->len != 0 || (sqe->msg_flags & MSG_WAITALL)))
        sim_fail("a multishot receive with what it cannot have");
    if (!polled(sqe->fd, POLLIN))
        return false;
    if (tail == group->head) {
        *ret_res = -ENOBUFS;
        return true;
    }
    const struct io_uring_buf *entry = &group->ring->bufs[group->head % group->count];
    void *buffer = (void *)(uintptr_t)entry->addr;
    size_t len = sqe->len > 0 && sqe->len < entry->len ? sqe->len : entry->len;
    if (sim_chance(sim.odds.short_recv))
        len = 1 + sim_below(len);
    bm_sanitize_ours(buffer, entry->len);
    ssize_t n = recv(sqe->fd, buffer, len, (int)sqe->msg_flags | MSG_DONTWAIT);
    *ret_res = n < 0 ? -errno : (int)n;
    if (n <= 0 && (*ret_res == -EAGAIN || sim_chance(5000))) {
        bm_sanitize_theirs(buffer, entry->len);
        return *ret_res != -EAGAIN;
    }
    group->head++;
    *ret_flags = IORING_CQE_F_BUFFER | (uint32_t)entry->bid << IORING_CQE_BUFFER_SHIFT |
                 (multishot && n > 0 ? IORING_CQE_F_MORE : 0);
    return true;
}

/* --- the rest -------------------------------------------------------------------------------- */

static bool result(ssize_t r, int *ret_res)
{
    *ret_res = r < 0 ? -errno : (int)r;
    return *ret_res != -EAGAIN;
}

static bool is_stream(int fd)
{
    int type = 0;
    socklen_t len = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

/* Bytes of a stream. With MSG_WAITALL it goes on until all have gone, or until it may not wait. */
static bool send_bytes(struct sim_request *request, int *ret_res)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    const unsigned char *addr = (const void *)(uintptr_t)sqe->addr;
    int flags = ((int)sqe->msg_flags & ~MSG_WAITALL) | MSG_DONTWAIT;
    bool cut = sim_chance(sim.odds.short_send);
    for (;;) {
        uint32_t left = sqe->len - request->sent;
        size_t len = cut ? 1 + sim_below(left) : left;
        ssize_t n = send(sqe->fd, addr + request->sent, len, flags);
        int error = errno;
        if (n > 0)
            request->sent += (uint32_t)n;
        *ret_res = request->sent > 0 ? (int)request->sent : n < 0 ? -error : 0;
        if (n < 0)
            return error != EAGAIN || (sqe->msg_flags & MSG_DONTWAIT);
        if (request->sent == sqe->len || !(sqe->msg_flags & MSG_WAITALL))
            return true;
        if (cut) /* there was no room for more at the moment */
            return sqe->msg_flags & MSG_DONTWAIT;
    }
}

static bool send_now(struct sim_request *request, int *ret_res)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    const void *addr = (const void *)(uintptr_t)sqe->addr;
    int flags = (int)sqe->msg_flags | MSG_DONTWAIT;
    if (sqe->opcode == IORING_OP_SEND && sqe->len > 0 && is_stream(sqe->fd))
        return send_bytes(request, ret_res);
    ssize_t n = sqe->opcode == IORING_OP_SEND ? send(sqe->fd, addr, sqe->len, flags)
                                              : sendmsg(sqe->fd, addr, flags);
    return result(n, ret_res) || (sqe->msg_flags & MSG_DONTWAIT);
}

/* An accepted socket that has lost its place in the table is closed with its peer none the wiser. */
static bool accept_now(const struct io_uring_sqe *sqe, int *ret_res)
{
    return result(accept4(sqe->fd, NULL, NULL, (int)sqe->accept_flags), ret_res);
}

bool sim_operate(struct sim_request *request, int *ret_res, uint32_t *ret_flags)
{
    const struct io_uring_sqe *sqe = &request->sqe;
    void *addr = (void *)(uintptr_t)sqe->addr;
    switch (sqe->opcode) {
    case IORING_OP_NOP:
        *ret_res = 0;
        return true;
    case IORING_OP_TIMEOUT:
        *ret_res = -ETIME;
        return request->due_ns <= sim.now_ns;
    case IORING_OP_ACCEPT:
        return accept_now(sqe, ret_res);
    case IORING_OP_CONNECT:
        (void)result(connect(sqe->fd, addr, (socklen_t)sqe->off), ret_res);
        return true;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        return send_now(request, ret_res);
    case IORING_OP_RECVMSG:
        if (sqe->ioprio & IORING_RECV_MULTISHOT)
            return receive_packet(request, ret_res, ret_flags);
        return result(receive(sqe->fd, addr, (int)sqe->msg_flags), ret_res);
    case IORING_OP_RECV:
        if (sqe->flags & IOSQE_BUFFER_SELECT)
            return receive_bytes(request, ret_res, ret_flags);
        return result(recv(sqe->fd, addr, sqe->len, (int)sqe->msg_flags | MSG_DONTWAIT), ret_res);
    case IORING_OP_READ:
        return polled(sqe->fd, POLLIN) && result(read(sqe->fd, addr, sqe->len), ret_res);
    case IORING_OP_CLOSE:
        (void)result(close(sqe->fd), ret_res);
        return true;
    case IORING_OP_SHUTDOWN:
        (void)result(shutdown(sqe->fd, (int)sqe->len), ret_res);
        return true;
    default:
        sim_fail("opcode %u is not simulated", sqe->opcode);
    }
}
