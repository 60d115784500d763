/* The vocabulary of a measurement.
 *
 * A *row* is one question: a cell ("unix-rtt") with size, depth and placement. Its *contenders*
 * answer it side by side, in shuffled order, round after round. A contender's turn is a *run*: a
 * process of its own, forked before any thread or io_uring exists, so that nothing of one
 * contender (threads, buffers, socket memory) is left for the next, and so that a run that hangs
 * can be killed.
 *
 * Inside a run time is divided in two: warm-up, then the measured part, both paced by
 * bench_lap(). */
#ifndef BENCH_CONTEST_H
#define BENCH_CONTEST_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench/histogram.h"
#include "bench/ticks.h"

#define BENCH_CONTENDERS_MAX 7 /* ours: beam twice, four peers, raw */
#define BENCH_NOTES_MAX 4      /* ours */

struct bench_run;

struct bench_contender {
    const char *name;
    /* Runs in the forked process. 0, or -1 after bench_fail(). May leave threads, fds and the peer
     * behind: the process ends with its return. NULL: a peer that was not there when this was
     * built; its line says so. */
    int (*run)(struct bench_run *run);
    /* A limit of the machine and not a way to pass messages: it cannot win. */
    bool probe;
};

enum bench_kind {
    BENCH_RTT,    /* one operation at a time: latency decides, less is better */
    BENCH_RATE,   /* as many as possible: operations per second decide, more is better */
    BENCH_WORK,   /* on one processor, in batches of `depth`: time per operation, less is better */
    BENCH_CPU,    /* a server's processor time per operation, less is better */
    BENCH_MEMORY, /* a server's memory for each of `connections`, less is better */
};

struct bench_row {
    const char *cell;
    const char *transport; /* "ring", "unix", or "none" where nothing travels */
    const char *document;  /* what is written or read; NULL where there is none */
    const char *placement; /* "same-core" or "cross-core" */
    const char *regime;    /* "asleep", "spinning" or "auto": what idle sides do; "hot" or "cold":
                            * whether caches hold the documents */
    enum bench_kind kind;
    unsigned messages_per_op; /* 2 for a round trip, 1 one way */
    unsigned size;            /* body of one message */
    unsigned depth;           /* operations under way; one way: messages in a hand-made packet */
    unsigned fds;             /* per message */
    unsigned connections;     /* each with `depth` under way; 0: one session */
    const char *driver;       /* a program that asks the servers; NULL: this one does */
    bool named; /* takes long and starts programs of others: measured when its cell is named */
    bool slow;  /* an operation asks a disk: the warm-up has no least number of them */
    struct bench_contender contenders[BENCH_CONTENDERS_MAX];
};

/* What one side of a run counts; written by that side alone, read by the measuring side. */
struct bench_side {
    _Alignas(64) _Atomic uint64_t syscalls;
    _Atomic uint64_t allocs;
    _Atomic uint64_t messages; /* sent, for messages per packet */
    _Atomic uint64_t packets;
};

struct bench_counters {
    uint64_t syscalls, allocs, messages, packets;
};

/* A figure that one cell alone has. */
struct bench_note {
    const char *name; /* a literal: runs are forks of the harness */
    double value;
};

/* Pages shared by the harness, the run and the run's peer. */
struct bench_result {
    struct histogram latency; /* of the measured part; empty when there is none to measure */
    uint64_t operations;
    uint64_t elapsed_ns;
    uint64_t cpu_ns; /* both sides */
    uint64_t bytes;  /* of the documents of a batch; 0 where there are none */
    struct bench_counters counters;
    struct bench_note notes[BENCH_NOTES_MAX];
    bool allocs_unknown; /* a library whose allocations nobody counted */
    bool finished;
    char error[200]; /* "" when all is well; the first one stays */
    _Atomic int error_taken;
    struct bench_side side[2]; /* here, there */
};

struct bench_run {
    const struct bench_row *row;
    const char *contender;
    struct bench_result *result;
    int cpu_here, cpu_there;
    unsigned packet_messages; /* how many messages Beam packed into a packet in this row */
    uint64_t warm_ns, duration_ns;
    uint64_t entries; /* of the file of kv-open */
    pid_t peer;       /* 0: none */

    /* The measuring side's own. */
    bool measuring;
    uint64_t operations;
    uint64_t phase_end; /* ticks */
    uint64_t begin_ticks;
    uint64_t begin_cpu_ns;
    struct bench_counters begin;
    /* Reads the counters of both sides; NULL: result->side[]. */
    void (*sample)(struct bench_run *run, struct bench_counters *ret);
    void *arg;
};

/* Records why the run is void, for the report. Any thread and side; returns -1. */
int bench_fail(struct bench_run *run, const char *format, ...)
    __attribute__((__format__(__printf__, 2, 3)));

/* Adds a figure to the report, or changes it; of several rounds the last is told. */
void bench_note(struct bench_run *run, const char *name, double value);

/* Pins the calling thread. */
int bench_pin(struct bench_run *run, int cpu);

/* What a process has used of its processors; 0: this one. */
uint64_t bench_cpu_ns(pid_t pid);

/* Forks the other side, which dies with this one and never returns from fn. */
int bench_peer_start(struct bench_run *run, void (*fn)(struct bench_run *run, void *arg),
                     void *arg);
void bench_peer_stop(struct bench_run *run);

/* Starts the warm-up. */
void bench_start(struct bench_run *run);

/* The slow path of the two below: from warm-up to measuring, and to the end. */
bool bench_phase_next(struct bench_run *run);

/* One operation has ended, which took so many ticks. False: enough, the result is written. The
 * caller reads the clock again before the next operation: what happens in here is nobody's
 * latency. */
static inline bool bench_lap(struct bench_run *run, uint64_t now, uint64_t ticks)
{
    histogram_add(&run->result->latency, bench_ticks_to_ns(ticks));
    run->operations++;
    return now < run->phase_end || bench_phase_next(run);
}

/* Many operations have ended; their latency is not asked for. */
static inline bool bench_count(struct bench_run *run, uint64_t operations)
{
    run->operations += operations;
    return bench_ticks() < run->phase_end || bench_phase_next(run);
}

/* A batch of row->depth operations has ended, which took so many ticks in all. The histogram holds
 * whole batches: one operation is shorter than the clock can tell. */
static inline bool bench_batch(struct bench_run *run, uint64_t now, uint64_t ticks)
{
    histogram_add(&run->result->latency, bench_ticks_to_ns(ticks));
    run->operations += run->row->depth;
    return now < run->phase_end || bench_phase_next(run);
}

static inline void bench_count_syscall(struct bench_side *side)
{
    /* One writer; relaxed, as the reader only wants a number. */
    atomic_store_explicit(&side->syscalls,
                          atomic_load_explicit(&side->syscalls, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Harness: runs a contender in its own process, at most timeout_ns. run->result says how it
 * went. */
void bench_run_execute(struct bench_run *run, const struct bench_contender *contender,
                       uint64_t timeout_ns);

/* Every row there is; ends with a row whose cell is NULL. */
extern const struct bench_row bench_rows[];

#endif
