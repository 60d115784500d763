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

/* kv_contenders.c: documents. Beam's; memcpy of Beam's (raw); a sorted array (bare). */
int kv_beam_encode(struct bench_run *run);
int kv_beam_unsorted_encode(struct bench_run *run);
int kv_beam_decode(struct bench_run *run);
int kv_beam_get_fields(struct bench_run *run);
int kv_beam_get_entries(struct bench_run *run);
int kv_beam_dump(struct bench_run *run); /* a document to JSON */
int kv_beam_load(struct bench_run *run);
int kv_raw_encode(struct bench_run *run);
int kv_raw_decode(struct bench_run *run);
int kv_raw_dump(struct bench_run *run);
int kv_raw_load(struct bench_run *run);
int kv_array_get_entries(struct bench_run *run);

/* kv_records.c: the records of a file in memory, sums alone; and bodies; memcpy of it (raw). */
int kv_scan_sums(struct bench_run *run);
int kv_scan_checked(struct bench_run *run);
int kv_scan_copy(struct bench_run *run);

/* kv_commit.c: changes that are on the disk: many at once; one at a time; by hand (raw). */
int kv_commit_group(struct bench_run *run);
int kv_commit_single(struct bench_run *run);
int kv_commit_by_hand(struct bench_run *run);

/* kv_fanout.c: changes that many watch. */
int kv_fanout(struct bench_run *run);

/* kv_open.c: a store's file is opened; its bytes are read (raw). */
int kv_open_store(struct bench_run *run);
int kv_open_read(struct bench_run *run);

/* net_load.c: what serving over networks costs the servers of net_server.c: requests; Beam's own sessions; bytes;
 * connections that are made, and made again; connections that do nothing. */
int net_calls(struct bench_run *run);
int net_session(struct bench_run *run);
int net_bulk(struct bench_run *run);
int net_handshake(struct bench_run *run);
int net_resumed(struct bench_run *run);
int net_idle(struct bench_run *run);

/* The documents of kv_contenders.c in peers' formats. They are a build option (BEAM_BENCH_PEERS), each where it was found. */
#ifdef BENCH_MSGPACK
int kv_msgpack_encode(struct bench_run *run);
int kv_msgpack_decode(struct bench_run *run);
int kv_msgpack_get_fields(struct bench_run *run);
int kv_msgpack_get_entries(struct bench_run *run);
#else
#define kv_msgpack_encode NULL
#define kv_msgpack_decode NULL
#define kv_msgpack_get_fields NULL
#define kv_msgpack_get_entries NULL
#endif

#ifdef BENCH_FLEXBUFFERS
int kv_flexbuffers_encode(struct bench_run *run);
int kv_flexbuffers_decode(struct bench_run *run);
int kv_flexbuffers_get_fields(struct bench_run *run);
int kv_flexbuffers_get_entries(struct bench_run *run);
#else
#define kv_flexbuffers_encode NULL
#define kv_flexbuffers_decode NULL
#define kv_flexbuffers_get_fields NULL
#define kv_flexbuffers_get_entries NULL
#endif

#ifdef BENCH_JANSSON
int kv_jansson_encode(struct bench_run *run);
int kv_jansson_decode(struct bench_run *run);
int kv_jansson_get_fields(struct bench_run *run);
int kv_jansson_get_entries(struct bench_run *run);
int kv_jansson_dumps(struct bench_run *run); /* of a tree that is there already */
#else
#define kv_jansson_encode NULL
#define kv_jansson_decode NULL
#define kv_jansson_get_fields NULL
#define kv_jansson_get_entries NULL
#define kv_jansson_dumps NULL
#endif

#ifdef BENCH_PROTOBUF
int kv_protobuf_encode(struct bench_run *run);
int kv_protobuf_decode(struct bench_run *run);
#else
#define kv_protobuf_encode NULL
#define kv_protobuf_decode NULL
#endif

#endif
