/* What the hand-written socket contenders share: the pair, the frame, and files to pass. */
#ifndef BENCH_SOCKET_H
#define BENCH_SOCKET_H

#include <stdint.h>

#include "bench/contest.h"

/* A frame as Beam's for a message without metadata: 16 bytes of header, 8 of lengths, the body
 * (docs/spec/session.md F1, M1). Hand-written contenders send frames of the same size, and the one
 * at the other end takes the header apart. */
#define FRAME_HEAD_LEN 24u
#define FRAME_BODY_MAX 4096u
#define PACKET_LEN_MAX 65536u

static inline unsigned frame_len(unsigned body_len)
{
    return (FRAME_HEAD_LEN + body_len + 7) & ~7u;
}

unsigned char *frame_put(unsigned char *out, uint64_t sequence, const void *body, unsigned len);

/* Takes one frame off [*at, end) and returns its body; NULL, with the run void, when it is not the
 * expected one. */
const unsigned char *frame_take(struct bench_run *run, const unsigned char **at,
                                const unsigned char *end, uint64_t expected);

/* A connected pair: [0] for the measuring side, [1] for its peer. Each side closes the other's
 * end, so that the death of one is the end of file of the other. */
int socket_pair(struct bench_run *run, int flags, int ret_fds[2]);

/* Two files that can be told apart, so that an fd that came with the wrong message is noticed. */
struct fd_files {
    int fd[2];
    uint64_t inode[2];
};

int fd_files_new(struct bench_run *run, struct fd_files *ret);

/* fd belongs to message `sequence`. Looks at every message while warming up and then at one in 64:
 * fstat costs as much as passing the fd. */
#define FD_CHECK_EVERY 64u
int fd_files_check(struct bench_run *run, const struct fd_files *files, uint64_t sequence, int fd);

#endif
