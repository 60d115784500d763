/* The hand-written io_uring loop: one SOCK_SEQPACKET socket, multishot recvmsg into provided
 * buffers, a registered file and ring, the flags Beam's reactor uses, and nothing else: no op
 * objects, no channels, no credit, no credentials. It carries frames of the size Beam's have,
 * and takes each apart.
 *
 * Waiting comes in two regimes, as the row says. Asleep: one enter submits and blocks. Spinning:
 * one enter submits, then user space watches the completion queue and the flag that says the
 * kernel has deferred work for us, and enters only for that.
 *
 * A send to a unix socket copies inside the submission. With MSG_DONTWAIT it has succeeded or
 * failed when the enter returns, and with IOSQE_CQE_SKIP_SUCCESS success is silence: no
 * completion that would end a wait early, so a round trip costs one enter a side instead of two
 * (0.98 against 1.10 of blocking calls). That needs room in the socket: fine in a closed loop of
 * 64 small messages; one way, where the socket is full all the time, sends wait and tell. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/contenders.h"
#include "bench/socket.h"

#define HERE 0
#define THERE 1

#define BUFFERS 64u /* a power of two; packets that can wait to be read */
#define GROUP 0
#define SQ_ENTRIES 256u
#define CQ_ENTRIES 4096u

enum tag { TAG_RECV = 1, TAG_SEND, TAG_CLOSE };

struct loop {
    struct io_uring ring;
    struct bench_run *run;
    struct bench_side *side;
    bool spin;
    int fd;
    struct msghdr recv_head; /* what a multishot recvmsg takes from it: the control length */
    struct io_uring_buf_ring *buffers;
    unsigned char *memory;
    unsigned buffer_len;
    unsigned sending; /* sends that will tell and have not yet */
};

/* A packet in a provided buffer; give it back with packet_done(). */
struct packet {
    unsigned char *begin, *end;
    struct io_uring_recvmsg_out *out;
    unsigned id;
};

static int loop_init(struct loop *loop, struct bench_run *run, unsigned side, int fd,
                     unsigned packet_len, unsigned control_len)
{
    memset(loop, 0, sizeof(*loop));
    loop->run = run;
    loop->side = &run->result->side[side];
    loop->spin = strcmp(run->row->regime, "spinning") == 0;
    loop->fd = fd;
    loop->recv_head.msg_controllen = control_len;
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |
                 IORING_SETUP_CLAMP,
        .cq_entries = CQ_ENTRIES,
    };
    int r = io_uring_queue_init_params(SQ_ENTRIES, &loop->ring, &params);
    if (r < 0)
        return bench_fail(run, "io_uring: %s", strerror(-r));
    r = io_uring_register_ring_fd(&loop->ring);
    if (r >= 0)
        r = io_uring_register_files(&loop->ring, &fd, 1);
    if (r < 0)
        return bench_fail(run, "io_uring_register: %s", strerror(-r));

    loop->buffer_len =
        (unsigned)(sizeof(struct io_uring_recvmsg_out) + control_len + packet_len + 63) & ~63u;
    size_t ring_len = BUFFERS * sizeof(struct io_uring_buf);
    loop->buffers =
        mmap(NULL, ring_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    loop->memory = aligned_alloc(64, (size_t)BUFFERS * loop->buffer_len);
    if (loop->buffers == MAP_FAILED || loop->memory == NULL)
        return bench_fail(run, "no memory");
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)loop->buffers,
        .ring_entries = BUFFERS,
        .bgid = GROUP,
    };
    r = io_uring_register_buf_ring(&loop->ring, &reg, 0);
    if (r < 0)
        return bench_fail(run, "io_uring_register_buf_ring: %s", strerror(-r));
    io_uring_buf_ring_init(loop->buffers);
    memset(loop->memory, 0, (size_t)BUFFERS * loop->buffer_len);
    for (unsigned i = 0; i < BUFFERS; i++)
        io_uring_buf_ring_add(loop->buffers, loop->memory + (size_t)i * loop->buffer_len,
                              loop->buffer_len, (unsigned short)i, io_uring_buf_ring_mask(BUFFERS),
                              (int)i);
    io_uring_buf_ring_advance(loop->buffers, BUFFERS);
    return 0;
}

static struct io_uring_sqe *sqe_get(struct loop *loop)
{
    struct io_uring_sqe *sqe;
    while ((sqe = io_uring_get_sqe(&loop->ring)) == NULL) {
        bench_count_syscall(loop->side);
        io_uring_submit(&loop->ring);
    }
    return sqe;
}

static void recv_arm(struct loop *loop)
{
    struct io_uring_sqe *sqe = sqe_get(loop);
    io_uring_prep_recvmsg_multishot(sqe, 0, &loop->recv_head, MSG_CMSG_CLOEXEC);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    io_uring_sqe_set_data64(sqe, TAG_RECV);
}

/* Silent on success; buf is free again after the next enter. */
static void send_queue(struct loop *loop, const void *buf, size_t len)
{
    struct io_uring_sqe *sqe = sqe_get(loop);
    io_uring_prep_send(sqe, 0, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, TAG_SEND);
}

/* Submits what is queued; returns once there is at least one completion. */
static int loop_turn(struct loop *loop)
{
    struct io_uring *ring = &loop->ring;
    int r;
    if (!loop->spin) {
        bench_count_syscall(loop->side);
        r = io_uring_submit_and_wait(ring, 1);
        return r < 0 && r != -EINTR ? bench_fail(loop->run, "enter: %s", strerror(-r)) : 0;
    }
    if (io_uring_sq_ready(ring) != 0) {
        bench_count_syscall(loop->side);
        r = io_uring_submit_and_get_events(ring);
        if (r < 0)
            return bench_fail(loop->run, "enter: %s", strerror(-r));
    }
    while (io_uring_cq_ready(ring) == 0) {
        /* Relaxed: only a hint that the enter below has something to do. */
        if ((__atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) != 0) {
            bench_count_syscall(loop->side);
            io_uring_get_events(ring);
        }
    }
    return 0;
}

/* 1: a packet; 0: only a send or close completed; -1: end of file, or the run is void. */
static int loop_take(struct loop *loop, struct packet *ret)
{
    struct io_uring *ring = &loop->ring;
    struct io_uring_cqe *cqe;
    unsigned head;
    io_uring_for_each_cqe(ring, head, cqe)
    {
        uint64_t tag = cqe->user_data;
        int res = cqe->res;
        unsigned flags = cqe->flags;
        io_uring_cq_advance(ring, 1);
        if (tag == TAG_SEND) {
            loop->sending--;
            if (res < 0) /* a packet goes whole or not at all */
                return bench_fail(loop->run, "send: %s", strerror(-res));
            continue;
        }
        if (tag == TAG_CLOSE)
            continue;
        if ((flags & IORING_CQE_F_MORE) == 0)
            recv_arm(loop);
        if (res == -ENOBUFS)
            continue; /* armed again; the caller gives buffers back before the next turn */
        if (res < 0)
            return bench_fail(loop->run, "recvmsg: %s", strerror(-res));
        ret->id = flags >> IORING_CQE_BUFFER_SHIFT;
        unsigned char *buf = loop->memory + (size_t)ret->id * loop->buffer_len;
        ret->out = io_uring_recvmsg_validate(buf, res, &loop->recv_head);
        if (ret->out == NULL)
            return bench_fail(loop->run, "recvmsg: malformed");
        unsigned len = io_uring_recvmsg_payload_length(ret->out, res, &loop->recv_head);
        if (len == 0)
            return -1;
        ret->begin = io_uring_recvmsg_payload(ret->out, &loop->recv_head);
        ret->end = ret->begin + len;
        return 1;
    }
    return 0;
}

static inline void packet_done(struct loop *loop, const struct packet *packet)
{
    io_uring_buf_ring_add(loop->buffers, loop->memory + (size_t)packet->id * loop->buffer_len,
                          loop->buffer_len, (unsigned short)packet->id,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(loop->buffers, 1);
}

/* Turns until a packet is there. */
static inline int packet_wait(struct loop *loop, struct packet *ret)
{
    int r;
    while ((r = loop_take(loop, ret)) == 0)
        if (loop_turn(loop) < 0)
            return -1;
    return r < 0 ? -1 : 0;
}

/* Turns until the sends that tell have told; for a side that gets no answers. */
static inline int send_wait(struct loop *loop)
{
    while (loop->sending > 0) {
        struct packet packet;
        int r = loop_take(loop, &packet);
        if (r != 0)
            return r < 0 ? -1 : bench_fail(loop->run, "an answer came unasked");
        if (loop->sending > 0 && loop_turn(loop) < 0)
            return -1;
    }
    return 0;
}

#define WINDOW_PACKET_LEN_MAX 16384u /* 64 frames of 256 bytes */
#define OUT_PACKETS 64u              /* more than can be under way in a window of 64 */

/* Answers a packet of n frames with one packet of the same n. */
static void peer_echo(struct bench_run *run, void *arg)
{
    int *fds = arg;
    static struct loop loop;
    static unsigned char out[OUT_PACKETS][WINDOW_PACKET_LEN_MAX];
    struct packet packet;
    uint64_t expected = 0;
    unsigned which = 0;
    close(fds[HERE]);
    if (loop_init(&loop, run, THERE, fds[THERE], WINDOW_PACKET_LEN_MAX, 0) < 0)
        return;
    recv_arm(&loop);
    while (packet_wait(&loop, &packet) == 0) {
        const unsigned char *at = packet.begin, *body;
        unsigned char *begin = out[which++ % OUT_PACKETS], *put = begin;
        while (at < packet.end) {
            if ((body = frame_take(run, &at, packet.end, expected)) == NULL)
                return;
            put = frame_put(put, expected++, body, run->row->size);
        }
        packet_done(&loop, &packet);
        send_queue(&loop, begin, (size_t)(put - begin));
    }
}

static int open_here(struct bench_run *run, struct loop *loop,
                     void (*peer)(struct bench_run *run, void *arg), unsigned control_len)
{
    int fds[2];
    if (socket_pair(run, 0, fds) < 0 || bench_peer_start(run, peer, fds) < 0 ||
        bench_pin(run, run->cpu_here) < 0)
        return -1;
    close(fds[THERE]);
    if (loop_init(loop, run, HERE, fds[HERE], PACKET_LEN_MAX, control_len) < 0)
        return -1;
    recv_arm(loop);
    return 0;
}

int uring_rtt(struct bench_run *run)
{
    static struct loop loop;
    if (open_here(run, &loop, peer_echo, 0) < 0)
        return -1;
    unsigned char body[FRAME_BODY_MAX] = {0}, out[FRAME_BODY_MAX + FRAME_HEAD_LEN];
    struct packet packet;
    uint64_t sequence = 0, start, now;
    bench_start(run);
    do {
        start = bench_ticks();
        const unsigned char *end = frame_put(out, sequence, body, run->row->size);
        send_queue(&loop, out, (size_t)(end - out));
        if (packet_wait(&loop, &packet) < 0)
            return bench_fail(run, "the other side is gone");
        const unsigned char *at = packet.begin;
        const unsigned char *back = frame_take(run, &at, packet.end, sequence);
        now = bench_ticks();
        if (back == NULL)
            return -1;
        packet_done(&loop, &packet);
        sequence++;
    } while (bench_lap(run, now, now - start));
    return 0;
}

#define WINDOW_MAX 1024u

/* Fills the window again with as many messages as have been answered, in one packet: the more
 * are under way, the larger the packets. It starts with two, so that both sides have something
 * to do. */
int uring_window(struct bench_run *run)
{
    static struct loop loop;
    static uint64_t start[WINDOW_MAX];
    static unsigned char out[OUT_PACKETS][WINDOW_PACKET_LEN_MAX];
    if (open_here(run, &loop, peer_echo, 0) < 0)
        return -1;
    unsigned char body[FRAME_BODY_MAX] = {0};
    unsigned depth = run->row->depth, fill = depth / 2, which = 0;
    struct packet packet;
    uint64_t sent = 0, received = 0, now;
    bench_start(run);
    for (;;) {
        unsigned char *begin = out[which++ % OUT_PACKETS], *put = begin;
        now = bench_ticks();
        for (unsigned i = 0; i < fill; i++, sent++) {
            start[sent % WINDOW_MAX] = now;
            put = frame_put(put, sent, body, run->row->size);
        }
        send_queue(&loop, begin, (size_t)(put - begin));
        if (sent < depth) {
            fill = depth - (unsigned)sent;
            continue;
        }
        if (packet_wait(&loop, &packet) < 0)
            return bench_fail(run, "the other side is gone");
        const unsigned char *at = packet.begin;
        for (fill = 0; at < packet.end; fill++) {
            if (frame_take(run, &at, packet.end, received) == NULL)
                return -1;
            now = bench_ticks();
            if (!bench_lap(run, now, now - start[received % WINDOW_MAX]))
                return 0;
            received++;
        }
        packet_done(&loop, &packet);
    }
}

static void peer_swallow(struct bench_run *run, void *arg)
{
    int *fds = arg;
    static struct loop loop;
    struct packet packet;
    uint64_t expected = 0;
    close(fds[HERE]);
    if (loop_init(&loop, run, THERE, fds[THERE], PACKET_LEN_MAX, 0) < 0)
        return;
    recv_arm(&loop);
    while (packet_wait(&loop, &packet) == 0) {
        const unsigned char *at = packet.begin;
        while (at < packet.end)
            if (frame_take(run, &at, packet.end, expected++) == NULL)
                return;
        packet_done(&loop, &packet);
    }
}

#define CHAIN 8u /* packets linked in one submission: sent in order; measured: more gain nothing */

/* One way: packets of `depth` messages each, written one by one, CHAIN packets to an enter. */
int uring_batches(struct bench_run *run)
{
    static struct loop loop;
    static unsigned char out[CHAIN][PACKET_LEN_MAX];
    if (open_here(run, &loop, peer_swallow, 0) < 0)
        return -1;
    unsigned char body[FRAME_BODY_MAX] = {0};
    unsigned depth = run->row->depth;
    uint64_t sequence = 0;
    bench_start(run);
    do {
        for (unsigned i = 0; i < CHAIN; i++) {
            unsigned char *put = out[i];
            for (unsigned j = 0; j < depth; j++)
                put = frame_put(put, sequence++, body, run->row->size);
            size_t len = (size_t)(put - out[i]);
            struct io_uring_sqe *sqe = sqe_get(&loop);
            io_uring_prep_send(sqe, 0, out[i], len, MSG_NOSIGNAL);
            sqe->flags |= IOSQE_FIXED_FILE;
            /* The links keep their order; only the last tells, and it is last. */
            if (i + 1 < CHAIN)
                sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
            io_uring_sqe_set_data64(sqe, TAG_SEND);
        }
        loop.sending++;
        if (loop_turn(&loop) < 0 || send_wait(&loop) < 0)
            return -1;
    } while (bench_count(run, CHAIN * depth));
    return 0;
}

/* fds. */

#define FDS_MAX 64u /* to a packet: Beam's credit for fds under way */

union control {
    char buf[CMSG_SPACE(sizeof(int) * FDS_MAX)];
    struct cmsghdr align;
};

struct fd_packet {
    struct msghdr msg;
    struct iovec iov;
    union control control;
};

static struct io_uring_sqe *send_fds_queue(struct loop *loop, struct fd_packet *packet, void *buf,
                                           size_t len, const int *fds, unsigned count)
{
    packet->iov = (struct iovec){.iov_base = buf, .iov_len = len};
    packet->msg = (struct msghdr){
        .msg_iov = &packet->iov,
        .msg_iovlen = 1,
        .msg_control = packet->control.buf,
        .msg_controllen = CMSG_SPACE(sizeof(int) * count),
    };
    packet->control.align = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int) * count),
        .cmsg_level = SOL_SOCKET,
        .cmsg_type = SCM_RIGHTS,
    };
    memcpy(CMSG_DATA(&packet->control.align), fds, sizeof(int) * count);
    struct io_uring_sqe *sqe = sqe_get(loop);
    io_uring_prep_sendmsg(sqe, 0, &packet->msg, MSG_NOSIGNAL);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, TAG_SEND);
    return sqe;
}

/* Silent on success, as send_queue. */
static void send_fd_queue(struct loop *loop, struct fd_packet *packet, void *buf, size_t len,
                          int fd)
{
    struct io_uring_sqe *sqe = send_fds_queue(loop, packet, buf, len, &fd, 1);
    sqe->msg_flags |= MSG_DONTWAIT;
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

/* A close costs no enter of its own: it goes with the next one. Its success is not told. */
static void close_queue(struct loop *loop, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(loop);
    io_uring_prep_close(sqe, fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, TAG_CLOSE);
}

/* The fds of a packet; less than `count` of them void the run. */
static int packet_fds(struct loop *loop, const struct packet *packet, unsigned count, int *ret_fds)
{
    struct cmsghdr *head = io_uring_recvmsg_cmsg_firsthdr(packet->out, &loop->recv_head);
    if (head == NULL || head->cmsg_type != SCM_RIGHTS ||
        head->cmsg_len != CMSG_LEN(sizeof(int) * count) || (packet->out->flags & MSG_CTRUNC) != 0)
        return bench_fail(loop->run, "a packet came without its %u fds", count);
    memcpy(ret_fds, CMSG_DATA(head), sizeof(int) * count);
    return 0;
}

static void peer_fd_echo(struct bench_run *run, void *arg)
{
    int *fds = arg;
    static struct loop loop;
    static unsigned char out[FRAME_BODY_MAX];
    static struct fd_packet reply;
    struct packet packet;
    uint64_t expected = 0;
    close(fds[HERE]);
    if (loop_init(&loop, run, THERE, fds[THERE], FRAME_BODY_MAX, sizeof(union control)) < 0)
        return;
    recv_arm(&loop);
    int before = -1; /* sent last time, and closed with the next enter */
    while (packet_wait(&loop, &packet) == 0) {
        const unsigned char *at = packet.begin;
        const unsigned char *body = frame_take(run, &at, packet.end, expected);
        int fd = -1;
        if (body == NULL || packet_fds(&loop, &packet, 1, &fd) < 0)
            return;
        const unsigned char *end = frame_put(out, expected++, body, run->row->size);
        packet_done(&loop, &packet);
        send_fd_queue(&loop, &reply, out, (size_t)(end - out), fd);
        if (before >= 0)
            close_queue(&loop, before);
        before = fd;
    }
}

int uring_fd_rtt(struct bench_run *run)
{
    static struct loop loop;
    static struct fd_packet request;
    struct fd_files files;
    if (fd_files_new(run, &files) < 0 ||
        open_here(run, &loop, peer_fd_echo, sizeof(union control)) < 0)
        return -1;
    unsigned char body[FRAME_BODY_MAX] = {0}, out[FRAME_BODY_MAX + FRAME_HEAD_LEN];
    struct packet packet;
    uint64_t sequence = 0, start, now;
    int fd[2] = {dup(files.fd[0]), dup(files.fd[1])}, before = -1;
    bench_start(run);
    do {
        int *mine = &fd[sequence % 2];
        start = bench_ticks();
        const unsigned char *end = frame_put(out, sequence, body, run->row->size);
        send_fd_queue(&loop, &request, out, (size_t)(end - out), *mine);
        if (before >= 0)
            close_queue(&loop, before);
        before = *mine;
        if (packet_wait(&loop, &packet) < 0)
            return bench_fail(run, "the other side is gone");
        const unsigned char *at = packet.begin;
        if (frame_take(run, &at, packet.end, sequence) == NULL ||
            packet_fds(&loop, &packet, 1, mine) < 0)
            return -1;
        now = bench_ticks();
        packet_done(&loop, &packet);
        if (fd_files_check(run, &files, sequence, *mine) < 0)
            return -1;
        sequence++;
    } while (bench_lap(run, now, now - start));
    return 0;
}

struct swallow_arg {
    int fds[2];
    struct fd_files files;
};

/* As many messages to a packet as Beam's credit for fds lets be under way. */
static unsigned fd_batch(const struct bench_row *row)
{
    return FDS_MAX / row->fds;
}

static void peer_fd_swallow(struct bench_run *run, void *arg)
{
    struct swallow_arg *swallow = arg;
    static struct loop loop;
    struct packet packet;
    unsigned batch = fd_batch(run->row), count = batch * run->row->fds;
    uint64_t expected = 0;
    close(swallow->fds[HERE]);
    if (loop_init(&loop, run, THERE, swallow->fds[THERE], PACKET_LEN_MAX, sizeof(union control)) <
        0)
        return;
    recv_arm(&loop);
    while (packet_wait(&loop, &packet) == 0) {
        const unsigned char *at = packet.begin;
        int fds[FDS_MAX];
        if (packet_fds(&loop, &packet, count, fds) < 0)
            return;
        for (unsigned i = 0; at < packet.end; i++, expected++)
            if (frame_take(run, &at, packet.end, expected) == NULL ||
                fd_files_check(run, &swallow->files, expected, fds[i * run->row->fds]) < 0)
                return;
        packet_done(&loop, &packet);
        for (unsigned i = 0; i < count; i++)
            close_queue(&loop, fds[i]);
    }
}

int uring_fd_rate(struct bench_run *run)
{
    static struct loop loop;
    static struct fd_packet request;
    static unsigned char out[PACKET_LEN_MAX];
    struct swallow_arg swallow;
    unsigned batch = fd_batch(run->row), count = run->row->fds;
    if (fd_files_new(run, &swallow.files) < 0 || socket_pair(run, 0, swallow.fds) < 0 ||
        bench_peer_start(run, peer_fd_swallow, &swallow) < 0 || bench_pin(run, run->cpu_here) < 0)
        return -1;
    close(swallow.fds[THERE]);
    if (loop_init(&loop, run, HERE, swallow.fds[HERE], FRAME_BODY_MAX, 0) < 0)
        return -1;
    recv_arm(&loop);
    unsigned char body[FRAME_BODY_MAX] = {0};
    uint64_t sequence = 0;
    bench_start(run);
    do {
        int fds[FDS_MAX];
        unsigned char *put = out;
        for (unsigned i = 0; i < batch; i++, sequence++) {
            for (unsigned j = 0; j < count; j++)
                fds[i * count + j] = fcntl(swallow.files.fd[sequence % 2], F_DUPFD_CLOEXEC, 0);
            put = frame_put(put, sequence, body, run->row->size);
        }
        send_fds_queue(&loop, &request, out, (size_t)(put - out), fds, batch * count);
        loop.sending++;
        if (loop_turn(&loop) < 0 || send_wait(&loop) < 0)
            return -1;
        for (unsigned i = 0; i < batch * count; i++)
            close_queue(&loop, fds[i]);
    } while (bench_count(run, batch));
    return 0;
}
