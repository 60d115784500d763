/* Runs: forking, pinning, phases, and the end of everything that was started.
 *
 * Processes. The harness forks a run, the run may fork a peer. Each asks the kernel to be killed
 * when its parent dies (PR_SET_PDEATHSIG, prctl(2)), and the harness is a subreaper, so that
 * after a run, however it ended, waiting until there is no child left really leaves none.
 *
 * What is measured between warm-up and end: ticks on the measuring side, CPU time of both
 * processes (the kernel lets anyone read another process's CPU clock, clock_getcpuclockid(3)),
 * and the counters of both sides. */
#include "bench/contest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARM_OPERATIONS_MIN                                                                        \
    500 /* ours: an adaptive spin has settled, every page has been touched */

int bench_fail(struct bench_run *run, const char *format, ...)
{
    /* Relaxed: whoever is first writes, the harness reads after the process has ended. */
    if (atomic_exchange_explicit(&run->result->error_taken, 1, memory_order_relaxed) == 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(run->result->error, sizeof(run->result->error), format, args);
        va_end(args);
    }
    return -1;
}

void bench_note(struct bench_run *run, const char *name, double value)
{
    struct bench_note *notes = run->result->notes;
    for (unsigned i = 0; i < BENCH_NOTES_MAX; i++) {
        if (notes[i].name == NULL || strcmp(notes[i].name, name) == 0) {
            notes[i] = (struct bench_note){name, value};
            return;
        }
    }
}

int bench_pin(struct bench_run *run, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        return bench_fail(run, "cannot pin to cpu %d: %s", cpu, strerror(errno));
    return 0;
}

/* In a fresh child: dies with its parent, also when the parent died before we could ask for it. */
static void follow_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    /* Blocking calls with time-outs end when they should, not 50 us later. */
    prctl(PR_SET_TIMERSLACK, 1);
}

/* Only root can; for others a busy machine shows more. With sched_autogroup (sched(7)) nice
 * counts only within a session, so the run gets one of its own and raises that too. */
static void raise_priority(void)
{
    setsid();
    int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, "-20", 3) < 0) {
            /* not root */
        }
        close(fd);
    }
    setpriority(PRIO_PROCESS, 0, -20);
}

int bench_peer_start(struct bench_run *run, void (*fn)(struct bench_run *run, void *arg), void *arg)
{
    pid_t self = getpid();
    pid_t pid = fork();
    if (pid < 0)
        return bench_fail(run, "fork: %s", strerror(errno));
    if (pid == 0) {
        follow_parent(self);
        run->peer = 0;
        if (bench_pin(run, run->cpu_there) == 0)
            fn(run, arg);
        _exit(0);
    }
    run->peer = pid;
    return 0;
}

void bench_peer_stop(struct bench_run *run)
{
    if (run->peer == 0)
        return;
    kill(run->peer, SIGKILL);
    waitpid(run->peer, NULL, 0);
    run->peer = 0;
}

uint64_t bench_cpu_ns(pid_t pid)
{
    clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
    struct timespec used = {0};
    if (pid != 0 && clock_getcpuclockid(pid, &clock) != 0)
        return 0;
    if (clock_gettime(clock, &used) < 0)
        return 0;
    return (uint64_t)used.tv_sec * UINT64_C(1000000000) + (uint64_t)used.tv_nsec;
}

/* Of both sides, or of the server's alone. */
static uint64_t cpu_counted_ns(const struct bench_run *run)
{
    uint64_t there = run->peer != 0 ? bench_cpu_ns(run->peer) : 0;
    return run->row->kind == BENCH_CPU ? there : there + bench_cpu_ns(0);
}

static void counters_read(struct bench_run *run, struct bench_counters *ret)
{
    if (run->sample != NULL) {
        run->sample(run, ret);
        return;
    }
    memset(ret, 0, sizeof(*ret));
    for (unsigned i = 0; i < 2; i++) {
        struct bench_side *side = &run->result->side[i];
        ret->syscalls += atomic_load_explicit(&side->syscalls, memory_order_relaxed);
        ret->allocs += atomic_load_explicit(&side->allocs, memory_order_relaxed);
        ret->messages += atomic_load_explicit(&side->messages, memory_order_relaxed);
        ret->packets += atomic_load_explicit(&side->packets, memory_order_relaxed);
    }
}

void bench_start(struct bench_run *run)
{
    run->measuring = false;
    run->operations = 0;
    run->phase_end = bench_ticks() + bench_ns_to_ticks(run->warm_ns);
}

static void measure_begin(struct bench_run *run)
{
    memset(&run->result->latency, 0, sizeof(run->result->latency));
    run->operations = 0;
    run->measuring = true;
    counters_read(run, &run->begin);
    run->begin_cpu_ns = cpu_counted_ns(run);
    run->begin_ticks = bench_ticks();
    run->phase_end = run->begin_ticks + bench_ns_to_ticks(run->duration_ns);
}

static void measure_end(struct bench_run *run)
{
    struct bench_result *result = run->result;
    uint64_t ticks = bench_ticks();
    uint64_t cpu_ns = cpu_counted_ns(run);
    struct bench_counters now;
    counters_read(run, &now);
    result->elapsed_ns = bench_ticks_to_ns(ticks - run->begin_ticks);
    result->cpu_ns = cpu_ns - run->begin_cpu_ns;
    result->operations = run->operations;
    result->counters = (struct bench_counters){
        .syscalls = now.syscalls - run->begin.syscalls,
        .allocs = now.allocs - run->begin.allocs,
        .messages = now.messages - run->begin.messages,
        .packets = now.packets - run->begin.packets,
    };
    result->finished = true;
}

bool bench_phase_next(struct bench_run *run)
{
    if (run->measuring) {
        measure_end(run);
        return false;
    }
    if (run->operations >= WARM_OPERATIONS_MIN || run->row->kind == BENCH_WORK || run->row->slow)
        measure_begin(run);
    return true;
}

/* False: the time was over first. */
static bool wait_for_end(pid_t pid, uint64_t timeout_ns)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return false;
    uint64_t deadline = bench_clock_ns() + timeout_ns;
    bool ended = false;
    for (;;) {
        uint64_t now = bench_clock_ns();
        if (now >= deadline)
            break;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int r = poll(&p, 1, (int)((deadline - now) / 1000000 + 1));
        if (r > 0) {
            ended = true;
            break;
        }
        if (r < 0 && errno != EINTR)
            break;
    }
    close(fd);
    return ended;
}

void bench_run_execute(struct bench_run *run, const struct bench_contender *contender,
                       uint64_t timeout_ns)
{
    struct bench_result *result = run->result;
    memset(result, 0, sizeof(*result));
    run->contender = contender->name;
    pid_t self = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        bench_fail(run, "fork: %s", strerror(errno));
        return;
    }
    if (pid == 0) {
        follow_parent(self);
        raise_priority();
        int r = contender->run(run);
        bench_peer_stop(run);
        _exit(r < 0 ? 1 : 0);
    }
    if (!wait_for_end(pid, timeout_ns)) {
        bench_fail(run, "not done after %llu ms", (unsigned long long)(timeout_ns / 1000000));
        kill(pid, SIGKILL);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        bench_fail(run, "killed by %s", strsignal(WTERMSIG(status)));
    else if (!result->finished)
        bench_fail(run, "ended without a result");
    /* The peer of a run that died is ours now, and has been sent SIGKILL by the kernel. */
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}
