/* Physical probes: what the machine itself can do, below any way to pass messages.
 *
 * line_rtt: two threads, a cache line in each direction, each written by one side only: the least a
 * round trip through memory can cost. Also the probe around every round of a row.
 *
 * line_stream: 64-byte lines from core to core through a buffer of a ring's size, published 64 at a
 * time: the most lines per second a ring could carry if announcing them were free.
 *
 * syscall_null: one system call that does nothing. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/contenders.h"
#include "bench/thread.h"

struct line {
    _Alignas(64) _Atomic uint64_t value;
};

struct line_pair {
    struct line there, back;
};

#define LINE_STOP UINT64_MAX

static void *line_answer(void *arg)
{
    struct line_pair *pair = arg;
    uint64_t expected = 1, value;
    do {
        /* Acquire and release pair with line_rtt's. */
        while ((value = atomic_load_explicit(&pair->there.value, memory_order_acquire)) < expected)
            ;
        atomic_store_explicit(&pair->back.value, value, memory_order_release);
        expected++;
    } while (value != LINE_STOP);
    return NULL;
}

int line_rtt(struct bench_run *run)
{
    static struct line_pair pair;
    pthread_t thread;
    if (bench_thread_start(run, &thread, line_answer, &pair) < 0)
        return -1;
    uint64_t value = 0, start, now;
    bench_start(run);
    do {
        value++;
        start = bench_ticks();
        atomic_store_explicit(&pair.there.value, value, memory_order_release);
        while (atomic_load_explicit(&pair.back.value, memory_order_acquire) != value)
            ;
        now = bench_ticks();
    } while (bench_lap(run, now, now - start));
    atomic_store_explicit(&pair.there.value, LINE_STOP, memory_order_release);
    pthread_join(thread, NULL);
    return 0;
}

#define STREAM_LINES 1024u /* the slots of a ring */
#define STREAM_BATCH 64u

struct stream {
    struct line written; /* lines written; by the producer every STREAM_BATCH */
    struct line read;
    _Alignas(64) uint64_t lines[STREAM_LINES][8];
    struct bench_run *run;
};

static void *stream_read(void *arg)
{
    struct stream *stream = arg;
    uint64_t at = 0, sum = 0;
    for (;;) {
        uint64_t end;
        while ((end = atomic_load_explicit(&stream->written.value, memory_order_acquire)) == at)
            ;
        bool stop = end == LINE_STOP;
        for (; !stop && at < end; at++) {
            const uint64_t *line = stream->lines[at % STREAM_LINES];
            if (line[0] != at) {
                bench_fail(stream->run, "line %llu holds %llu", (unsigned long long)at,
                           (unsigned long long)line[0]);
                return NULL;
            }
            for (unsigned i = 0; i < 8; i++)
                sum += line[i];
        }
        /* The sum must be looked at, or nothing need be read. */
        __asm__ volatile("" ::"r"(sum));
        if (stop)
            return NULL;
        atomic_store_explicit(&stream->read.value, at, memory_order_release);
    }
}

int line_stream(struct bench_run *run)
{
    static struct stream stream;
    stream.run = run;
    pthread_t thread;
    if (bench_thread_start(run, &thread, stream_read, &stream) < 0)
        return -1;
    uint64_t at = 0, read = 0;
    bench_start(run);
    do {
        while (at + STREAM_BATCH - read > STREAM_LINES)
            read = atomic_load_explicit(&stream.read.value, memory_order_acquire);
        for (unsigned i = 0; i < STREAM_BATCH; i++, at++) {
            uint64_t *line = stream.lines[at % STREAM_LINES];
            for (unsigned j = 0; j < 8; j++)
                line[j] = at;
        }
        atomic_store_explicit(&stream.written.value, at, memory_order_release);
    } while (bench_count(run, STREAM_BATCH));
    atomic_store_explicit(&stream.written.value, LINE_STOP, memory_order_release);
    pthread_join(thread, NULL);
    return 0;
}

int syscall_null(struct bench_run *run)
{
    if (bench_pin(run, run->cpu_here) < 0)
        return -1;
    uint64_t start, now;
    bench_start(run);
    do {
        start = bench_ticks();
        syscall(SYS_getppid);
        now = bench_ticks();
    } while (bench_lap(run, now, now - start));
    return 0;
}
