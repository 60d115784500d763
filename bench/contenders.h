/* All contenders, by who wrote the loop and what it travels over. */
#ifndef BENCH_CONTENDERS_H
#define BENCH_CONTENDERS_H

#include "bench/contest.h"

/* line.c: cache lines between two threads, and what a system call costs. */
int line_rtt(struct bench_run *run);
int line_stream(struct bench_run *run);
int syscall_null(struct bench_run *run);

/* ring_bare.c: the bare SPSC ring, hand-driven. */
int ring_bare_rtt(struct bench_run *run);
int ring_tuned_rtt(struct bench_run *run);
int ring_bare_rate(struct bench_run *run);
int ring_bare_window(struct bench_run *run);

/* socket_blocking.c: plain send, recv, sendmsg and recvmsg on SOCK_SEQPACKET. */
int blocking_rtt(struct bench_run *run);
int blocking_packets(struct bench_run *run);
int blocking_window(struct bench_run *run);
int blocking_fd_rtt(struct bench_run *run);
int blocking_fd_rate(struct bench_run *run);

/* socket_uring.c: a hand-written io_uring loop on SOCK_SEQPACKET. */
int uring_rtt(struct bench_run *run);
int uring_batches(struct bench_run *run);
int uring_window(struct bench_run *run);
int uring_fd_rtt(struct bench_run *run);
int uring_fd_rate(struct bench_run *run);

/* beam_ring.c, beam_unix.c: Beam through its public headers. */
int beam_ring_rtt(struct bench_run *run);
int beam_ring_rate(struct bench_run *run);
int beam_ring_calls(struct bench_run *run);
int beam_unix_rtt(struct bench_run *run);
int beam_unix_rate(struct bench_run *run);
int beam_unix_calls(struct bench_run *run);
int beam_unix_plain_rtt(struct bench_run *run); /* fd rows without the fd */

#endif
