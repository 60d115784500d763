/* Programs of others that a run starts: servers that are measured, and what drives them. They end with the run,
 * however that ends. */
#ifndef BENCH_NET_PROGRAM_H
#define BENCH_NET_PROGRAM_H

#include "bench/contest.h"

#define NET_WORDS_MAX 32 /* ours: of a command */

/* Writes where a program is; false when it is nowhere. Servers are looked for where root has them, too. */
bool net_program_find(const char *name, char *ret_path, size_t size);

/* Starts argv, which ends with NULL, pinned to a cpu, with its output in `out` and `in` as its input (-1: nothing). */
int net_program_start(struct bench_run *run, const char *const *argv, int cpu, int in, int out,
                      pid_t *ret_pid);

/* The same, beside the server; waits until it has ended well, and gives the end of its output as text. */
int net_program_run(struct bench_run *run, const char *const *argv, char *ret_text, size_t size);

#endif
