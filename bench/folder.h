/* A folder of a run's own, for files that a disk is measured with; gone when the run is, however that
 * ended. It is made in $TMPDIR, or without one in the working directory: what is measured is the file
 * system that is there. */
#ifndef BENCH_FOLDER_H
#define BENCH_FOLDER_H

#include "bench/contest.h"

/* Makes it. Once a run, before there are threads. It belongs, with all that is in it, to a process that waits
 * for the end of this one and of all that it has forked. */
int bench_folder(struct bench_run *run, const char **ret_folder);

/* The same, and the path of a store's file in it. Notes "tmpfs" in the result. */
int bench_folder_make(struct bench_run *run, const char **ret_path);

#endif
