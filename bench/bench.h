/* `beam bench`: Beam against hand-written equivalents and physical probes, in one run. */
#ifndef BENCH_H
#define BENCH_H

/* argv[0] is the verb; the rest as `beam bench --help` says. Returns the exit code: 0 measured,
 * 1 a contender failed, 2 usage, 3 no io_uring. */
int beam_bench_main(int argc, char **argv);

#endif
