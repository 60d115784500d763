/* Plain blocking calls on a SOCK_SEQPACKET pair: what everybody writes first, and the reference for
 * every unix row. One message, one packet, one call; the body alone, without a frame around it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench/contenders.h"
#include "bench/socket.h"

#define HERE 0
#define THERE 1

struct link {
    int fd;
    struct bench_run *run;
    struct bench_side *side;
    struct fd_files files;
};

static int call_failed(struct link *link, const char *what, ssize_t r)
{
    if (r < 0)
        return bench_fail(link->run, "%s: %s", what, strerror(errno));
    return bench_fail(link->run, "%s: %s", what, r == 0 ? "the other side is gone" : "cut short");
}

static inline int put(struct link *link, const void *buf, size_t len)
{
    bench_count_syscall(link->side);
    ssize_t r = send(link->fd, buf, len, MSG_NOSIGNAL);
    return r == (ssize_t)len ? 0 : call_failed(link, "send", r);
}

static inline ssize_t get(struct link *link, void *buf, size_t len)
{
    bench_count_syscall(link->side);
    return recv(link->fd, buf, len, 0);
}

static int wrong(struct link *link, uint64_t expected, const void *body)
{
    uint64_t sequence;
    memcpy(&sequence, body, sizeof(sequence));
    return bench_fail(link->run, "expected message %llu, got %llu", (unsigned long long)expected,
                      (unsigned long long)sequence);
}

static inline bool right(uint64_t expected, const void *body)
{
    return memcmp(body, &expected, sizeof(expected)) == 0;
}

static void peer_echo(struct bench_run *run, void *arg)
{
    int *fds = arg;
    close(fds[HERE]);
    struct link link = {.fd = fds[THERE], .run = run, .side = &run->result->side[THERE]};
    unsigned char body[FRAME_BODY_MAX];
    ssize_t len;
    for (uint64_t expected = 0; (len = get(&link, body, sizeof(body))) > 0; expected++) {
        if (!right(expected, body)) {
            wrong(&link, expected, body);
            return;
        }
        if (put(&link, body, (size_t)len) < 0)
            return;
    }
}

/* The pair, the peer, and this side pinned. */
static int link_open(struct bench_run *run, void (*peer)(struct bench_run *run, void *arg),
                     struct link *ret)
{
    int fds[2];
    if (socket_pair(run, 0, fds) < 0 || bench_peer_start(run, peer, fds) < 0)
        return -1;
    close(fds[THERE]);
    ret->fd = fds[HERE];
    ret->run = run;
    ret->side = &run->result->side[HERE];
    return bench_pin(run, run->cpu_here);
}

int blocking_rtt(struct bench_run *run)
{
    struct link link;
    if (link_open(run, peer_echo, &link) < 0)
        return -1;
    unsigned char body[FRAME_BODY_MAX] = {0};
    size_t size = run->row->size;
    uint64_t sequence = 0, start, now;
    bench_start(run);
    do {
        memcpy(body, &sequence, sizeof(sequence));
        start = bench_ticks();
        if (put(&link, body, size) < 0)
            return -1;
        ssize_t r = get(&link, body, sizeof(body));
        now = bench_ticks();
        if (r != (ssize_t)size)
            return call_failed(&link, "recv", r);
        if (!right(sequence, body))
            return wrong(&link, sequence, body);
        sequence++;
    } while (bench_lap(run, now, now - start));
    return 0;
}

#define WINDOW_MAX 1024u

int blocking_window(struct bench_run *run)
{
    struct link link;
    if (link_open(run, peer_echo, &link) < 0)
        return -1;
    static uint64_t start[WINDOW_MAX];
    unsigned char body[FRAME_BODY_MAX] = {0};
    size_t size = run->row->size;
    uint64_t sent = 0, received = 0, now;
    bench_start(run);
    for (;;) {
        for (; sent - received < run->row->depth; sent++) {
            memcpy(body, &sent, sizeof(sent));
            start[sent % WINDOW_MAX] = bench_ticks();
            if (put(&link, body, size) < 0)
                return -1;
        }
        ssize_t r = get(&link, body, sizeof(body));
        now = bench_ticks();
        if (r != (ssize_t)size)
            return call_failed(&link, "recv", r);
        if (!right(received, body))
            return wrong(&link, received, body);
        if (!bench_lap(run, now, now - start[received % WINDOW_MAX]))
            return 0;
        received++;
    }
}

static void peer_swallow(struct bench_run *run, void *arg)
{
    int *fds = arg;
    close(fds[HERE]);
    struct link link = {.fd = fds[THERE], .run = run, .side = &run->result->side[THERE]};
    static unsigned char packet[PACKET_LEN_MAX];
    for (uint64_t expected = 0; get(&link, packet, sizeof(packet)) > 0; expected++) {
        if (!right(expected, packet)) {
            wrong(&link, expected, packet);
            return;
        }
    }
}

/* Packets of the size Beam chose in this row, with as many messages as Beam put in, none of them
 * written or read one by one: the socket's own limit. */
int blocking_packets(struct bench_run *run)
{
    struct link link;
    if (link_open(run, peer_swallow, &link) < 0)
        return -1;
    static unsigned char packet[PACKET_LEN_MAX];
    unsigned messages = run->packet_messages;
    size_t len = (size_t)messages * frame_len(run->row->size);
    if (len > sizeof(packet)) {
        messages = PACKET_LEN_MAX / frame_len(run->row->size);
        len = (size_t)messages * frame_len(run->row->size);
    }
    uint64_t sequence = 0;
    bench_start(run);
    do {
        memcpy(packet, &sequence, sizeof(sequence));
        if (put(&link, packet, len) < 0)
            return -1;
        sequence++;
    } while (bench_count(run, messages));
    return 0;
}

/* fds. */

#define FDS_MAX 16u

union control {
    char buf[CMSG_SPACE(sizeof(int) * FDS_MAX)];
    struct cmsghdr align;
};

static int put_fds(struct link *link, void *body, size_t len, const int *fds, unsigned count)
{
    struct iovec iov = {.iov_base = body, .iov_len = len};
    union control control;
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = CMSG_SPACE(sizeof(int) * count),
    };
    control.align = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int) * count),
        .cmsg_level = SOL_SOCKET,
        .cmsg_type = SCM_RIGHTS,
    };
    memcpy(CMSG_DATA(&control.align), fds, sizeof(int) * count);
    bench_count_syscall(link->side);
    ssize_t r = sendmsg(link->fd, &msg, MSG_NOSIGNAL);
    return r == (ssize_t)len ? 0 : call_failed(link, "sendmsg", r);
}

/* Returns the length, 0 at the end of file, or -1 with the run void. */
static ssize_t get_fds(struct link *link, void *body, size_t len, int *fds, unsigned count)
{
    struct iovec iov = {.iov_base = body, .iov_len = len};
    union control control;
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    bench_count_syscall(link->side);
    ssize_t r = recvmsg(link->fd, &msg, MSG_CMSG_CLOEXEC);
    if (r == 0)
        return 0;
    if (r < 0)
        return call_failed(link, "recvmsg", r);
    const struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    if (head == NULL || head->cmsg_type != SCM_RIGHTS ||
        head->cmsg_len != CMSG_LEN(sizeof(int) * count) || (msg.msg_flags & MSG_CTRUNC) != 0)
        return bench_fail(link->run, "a message came without its %u fds", count);
    memcpy(fds, CMSG_DATA(head), sizeof(int) * count);
    return r;
}

static inline void close_counted(struct link *link, int fd)
{
    bench_count_syscall(link->side);
    close(fd);
}

static void peer_fd_echo(struct bench_run *run, void *arg)
{
    int *fds = arg;
    close(fds[HERE]);
    struct link link = {.fd = fds[THERE], .run = run, .side = &run->result->side[THERE]};
    unsigned char body[FRAME_BODY_MAX];
    ssize_t len;
    int fd;
    for (uint64_t expected = 0; (len = get_fds(&link, body, sizeof(body), &fd, 1)) > 0;
         expected++) {
        if (!right(expected, body)) {
            wrong(&link, expected, body);
            return;
        }
        if (put_fds(&link, body, (size_t)len, &fd, 1) < 0)
            return;
        close_counted(&link, fd);
    }
}

/* The fd travels there and back, as if moved: each side closes what it has sent. */
int blocking_fd_rtt(struct bench_run *run)
{
    struct link link;
    struct fd_files files;
    if (fd_files_new(run, &files) < 0 || link_open(run, peer_fd_echo, &link) < 0)
        return -1;
    unsigned char body[FRAME_BODY_MAX] = {0};
    size_t size = run->row->size;
    int fd[2] = {dup(files.fd[0]), dup(files.fd[1])};
    uint64_t sequence = 0, start, now;
    bench_start(run);
    do {
        int *mine = &fd[sequence % 2], back = -1;
        memcpy(body, &sequence, sizeof(sequence));
        start = bench_ticks();
        if (put_fds(&link, body, size, mine, 1) < 0)
            return -1;
        close_counted(&link, *mine);
        ssize_t r = get_fds(&link, body, sizeof(body), &back, 1);
        now = bench_ticks();
        if (r != (ssize_t)size)
            return call_failed(&link, "recvmsg", r);
        if (!right(sequence, body))
            return wrong(&link, sequence, body);
        if (fd_files_check(run, &files, sequence, back) < 0)
            return -1;
        *mine = back;
        sequence++;
    } while (bench_lap(run, now, now - start));
    return 0;
}

struct swallow_arg {
    int fds[2];
    struct fd_files files;
};

static void peer_fd_swallow(struct bench_run *run, void *arg)
{
    struct swallow_arg *swallow = arg;
    close(swallow->fds[HERE]);
    struct link link = {.fd = swallow->fds[THERE], .run = run, .side = &run->result->side[THERE]};
    unsigned char body[FRAME_BODY_MAX];
    unsigned count = run->row->fds;
    int fds[FDS_MAX];
    for (uint64_t expected = 0; get_fds(&link, body, sizeof(body), fds, count) > 0; expected++) {
        if (!right(expected, body)) {
            wrong(&link, expected, body);
            return;
        }
        if (fd_files_check(run, &swallow->files, expected, fds[0]) < 0)
            return;
        for (unsigned i = 0; i < count; i++)
            close_counted(&link, fds[i]);
    }
}

/* Fresh fds with every message: made by dup (not counted, every contender does it), moved,
 * closed at both ends. */
int blocking_fd_rate(struct bench_run *run)
{
    struct swallow_arg swallow;
    unsigned count = run->row->fds;
    if (fd_files_new(run, &swallow.files) < 0 || socket_pair(run, 0, swallow.fds) < 0 ||
        bench_peer_start(run, peer_fd_swallow, &swallow) < 0 || bench_pin(run, run->cpu_here) < 0)
        return -1;
    close(swallow.fds[THERE]);
    struct link link = {.fd = swallow.fds[HERE], .run = run, .side = &run->result->side[HERE]};
    unsigned char body[FRAME_BODY_MAX] = {0};
    uint64_t sequence = 0;
    bench_start(run);
    do {
        int fds[FDS_MAX];
        for (unsigned i = 0; i < count; i++)
            fds[i] = fcntl(swallow.files.fd[sequence % 2], F_DUPFD_CLOEXEC, 0);
        memcpy(body, &sequence, sizeof(sequence));
        if (put_fds(&link, body, run->row->size, fds, count) < 0)
            return -1;
        for (unsigned i = 0; i < count; i++)
            close_counted(&link, fds[i]);
        sequence++;
    } while (bench_count(run, 1));
    return 0;
}
