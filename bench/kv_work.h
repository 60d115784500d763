/* The loops of the kv cells, the same for all formats.
 *
 * A batch is row->depth operations. Documents are as many, each different and with a place of its
 * own. In *hot* rows the places are the same in each batch, and caches hold them. In *cold* rows they
 * move through more memory than the second-level cache has, as buffers do that come from far away. */
#ifndef BENCH_KV_WORK_H
#define BENCH_KV_WORK_H

#include "bench/contest.h"
#include "bench/kv_format.h"

/* Writes the row's documents; reads them, checked. */
int kv_encode(struct bench_run *run, const struct kv_format *format);
int kv_decode(struct bench_run *run, const struct kv_format *format);

/* memcpy of the documents in this format, to the places that encode writes to; from those that decode
 * reads. */
int kv_copy_written(struct bench_run *run, const struct kv_format *format);
int kv_copy_read(struct bench_run *run, const struct kv_format *format);

/* Gets all fields of small documents; entries of a large map, in a random order. */
int kv_get_fields(struct bench_run *run, const struct kv_format *format);
int kv_get_entries(struct bench_run *run, const struct kv_format *format);

#endif
