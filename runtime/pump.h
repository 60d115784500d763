/* A pump: bytes between a file descriptor and a stream, both ways, until both are over. It is how a
 * descriptor crosses a carrier that cannot pass it, and how a stream becomes a descriptor.
 *
 *     what is read from the descriptor -> the stream; its end of file ends our direction
 *     what comes on the stream -> the descriptor; the peer's end half closes it
 *
 * Credit of the stream goes back when its bytes have been written, so that a reader at the far end that
 * stops stops the writer. An abort of the stream is never an end of file: a socket of ours is reset
 * (SO_LINGER), so that its other end reads ECONNRESET; and an error of the descriptor aborts the
 * stream. Core's thread. */
#ifndef BM_PUMP_H
#define BM_PUMP_H

#include <stdbool.h>
#include <stdint.h>

#include <beam/channel.h>

struct bm_core;
struct bm_pump;

#define BM_PUMP_CHUNK_LEN 65536u /* read at once; ours: what a pipe holds (pipe(7)) */
#define BM_PUMP_TO_END UINT64_MAX

enum bm_pump_kind {
    BM_PUMP_FILE,   /* regular: read from its offset on */
    BM_PUMP_PIPE,   /* a pipe, or whatever else has read and write alone */
    BM_PUMP_SOCKET, /* a stream socket, which can be half closed */
};

struct bm_pump_options {
    enum bm_pump_kind kind;
    bool reads, writes; /* the descriptor; one of them at least */
    /* Exactly so many bytes are read, and come to be written: more or fewer abort. Or BM_PUMP_TO_END. */
    uint64_t read_len, write_len;
};

/* In two steps, of which the second cannot fail. Made, a pump is the caller's to free. Started, it takes the
 * stream (its handle) and the fd, and needs nobody any more: it ends by itself when both directions have,
 * when either breaks, or with the core. A direction that it does not use it ends at once. NULL: no
 * memory. */
struct bm_pump *bm_pump_new(struct bm_core *core);
void bm_pump_start(struct bm_pump *pump, const struct bm_pump_options *options, beam_stream *stream,
                   int *fd);
struct bm_pump *bm_pump_free(struct bm_pump *pump); /* not started; NULL is fine; NULL */

/* What a descriptor is for a pump. *ret_length: what a file has left, else BM_PUMP_TO_END. -ENOTSUP:
 * nothing that bytes can be read from or written to (an epoll, a directory, a datagram socket, shared
 * memory that can still be written to). -EBADF, or what else fstat(2) says. */
int bm_pump_judge(int fd, struct bm_pump_options *ret_options);

#endif
