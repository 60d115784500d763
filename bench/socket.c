/* Pairs, frames and files for the hand-written socket contenders. */
#include "bench/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct frame_head {
    uint64_t channel;
    uint32_t length;
    uint8_t kind, flags, fds, attached;
    uint32_t metadata_len;
    uint32_t codec;
};

_Static_assert(sizeof(struct frame_head) == FRAME_HEAD_LEN, "as in docs/spec/session.md");

#define FRAME_KIND_MSG 2

unsigned char *frame_put(unsigned char *out, uint64_t sequence, const void *body, unsigned len)
{
    struct frame_head head = {
        .channel = 1,
        .length = len + 8,
        .kind = FRAME_KIND_MSG,
    };
    memcpy(out, &head, sizeof(head));
    memcpy(out + sizeof(head), body, len);
    memcpy(out + sizeof(head), &sequence, sizeof(sequence));
    return out + frame_len(len);
}

const unsigned char *frame_take(struct bench_run *run, const unsigned char **at,
                                const unsigned char *end, uint64_t expected)
{
    struct frame_head head;
    size_t left = (size_t)(end - *at);
    if (left < sizeof(head)) {
        bench_fail(run, "frame of %zu bytes", left);
        return NULL;
    }
    memcpy(&head, *at, sizeof(head));
    uint64_t whole = ((uint64_t)head.length + 16 + 7) & ~UINT64_C(7);
    if (head.kind != FRAME_KIND_MSG || head.channel != 1 || whole > left || head.length < 16) {
        bench_fail(run, "frame %u of %u bytes, %zu left", head.kind, head.length, left);
        return NULL;
    }
    const unsigned char *body = *at + sizeof(head);
    uint64_t sequence;
    memcpy(&sequence, body, sizeof(sequence));
    if (sequence != expected) {
        bench_fail(run, "expected message %llu, got %llu", (unsigned long long)expected,
                   (unsigned long long)sequence);
        return NULL;
    }
    *at += whole;
    return body;
}

int socket_pair(struct bench_run *run, int flags, int ret_fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0, ret_fds) < 0)
        return bench_fail(run, "socketpair: %s", strerror(errno));
    return 0;
}

int fd_files_new(struct bench_run *run, struct fd_files *ret)
{
    for (unsigned i = 0; i < 2; i++) {
        struct stat st;
        int fd = memfd_create("bench", MFD_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
            return bench_fail(run, "memfd: %s", strerror(errno));
        ret->fd[i] = fd;
        ret->inode[i] = st.st_ino;
    }
    return 0;
}

int fd_files_check(struct bench_run *run, const struct fd_files *files, uint64_t sequence, int fd)
{
    if (sequence >= 4 * FD_CHECK_EVERY && sequence / 2 % FD_CHECK_EVERY != 0)
        return 0;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return bench_fail(run, "message %llu: fd %d: %s", (unsigned long long)sequence, fd,
                          strerror(errno));
    if (st.st_ino != files->inode[sequence % 2])
        return bench_fail(run, "message %llu came with the fd of another",
                          (unsigned long long)sequence);
    return 0;
}
