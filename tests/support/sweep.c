/* The process that sweeps: it only starts runs, so many at a time, and judges how they ended.
 *
 * A run ends with status 0 when nothing was wrong, whatever became of its case; what it said goes to a
 * file in memory and is shown only when it failed. */
#include "tests/support/sweep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/results.h"
#include "tests/support/run.h"

#define WAIT_LEAST_NS UINT64_C(60000000) /* of a wait that may be in vain, ... */
#define WAIT_MOST_NS UINT64_C(500000000)
#define WAIT_TIMES 1u   /* ... and as often what the whole case took */
#define SHOWN_MAX 20000 /* bytes of what a failed run said */

struct sweep_run *sweep_run;

static const char *const kind_texts[] = {
    [FAULT_ALLOCATION] = "fails: allocation",
    [FAULT_ALLOCATIONS] = "fail for good: allocations from",
    [FAULT_COMPLETION] = "fails: completion",
};

/* --- in a run -------------------------------------------------------------------------------- */

static void (*finish)(void);

void sweep_set_finish(void (*fn)(void))
{
    finish = fn;
}

void sweep_say_end(enum sweep_end end)
{
    unsigned said = atomic_load(&sweep_run->end);
    while (said < end && !atomic_compare_exchange_weak(&sweep_run->end, &said, end))
        ;
}

void sweep_end(enum sweep_end end)
{
    sweep_say_end(end);
    fflush(NULL);
    _exit(0);
}

void sweep_give_up(void)
{
    atomic_store(&sweep_run->gave_up, true);
    sweep_end(SWEEP_GIVEN_UP);
}

void sweep_leave(bool on_thread_of_case)
{
    if (!on_thread_of_case || !finish)
        sweep_give_up();
    void (*fn)(void) = finish;
    finish = NULL; /* a REQUIRE of the end itself */
    fn();
    sweep_end(SWEEP_LEFT);
}

/* --- the runs -------------------------------------------------------------------------------- */

static struct job {
    pid_t pid; /* 0: free */
    int said_fd;
    struct sweep_run *run; /* shared with it */
} jobs[SWEEP_JOBS_MAX];

static struct {
    const struct sweep_options *options;
    enum test_outcome (*run_case)(const struct test_case *);
    const struct test_case *test; /* the one being swept */
    struct sweep_run counted;     /* its counting run */
    unsigned running;
    struct totals {
        unsigned runs, struck, answered, compared, failed, ends[SWEEP_ENDS];
    } of_case, of_all;
} now;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void describe(const struct fault *fault, char *text, size_t size)
{
    int n = snprintf(text, size, "%s %u", kind_texts[fault->kind], atomic_load(&fault->at));
    if (fault->kind == FAULT_COMPLETION && atomic_load(&fault->struck))
        n += snprintf(text + n, size - (size_t)n, " (operation %u: %s)", atomic_load(&fault->op),
                      strerror(-atomic_load(&fault->error)));
    if (fault->place > 0)
        snprintf(text + n, size - (size_t)n, " at the server");
}

static void show(const struct job *job)
{
    char buf[4096];
    off_t at = 0;
    ssize_t n;
    fflush(NULL);
    while (at < SHOWN_MAX && (n = pread(job->said_fd, buf, sizeof(buf), at)) > 0) {
        if (write(STDERR_FILENO, buf, (size_t)n) < 0)
            break;
        at += n;
    }
}

__attribute__((noreturn)) static void be_run(const struct job *job)
{
    sweep_run = job->run;
    dup2(job->said_fd, STDOUT_FILENO);
    dup2(job->said_fd, STDERR_FILENO);
    alarm(test_timeout_s());
    fault_set(&sweep_run->fault, 0);
    enum test_outcome outcome = now.run_case(now.test);
    fflush(NULL);
    if (outcome == TEST_FAILED)
        _exit(1);
    atomic_store(&sweep_run->compared, outcome == TEST_PASSED);
    sweep_end(SWEEP_RETURNED);
}

static void begin(struct job *job, const struct sweep_run *run)
{
    memcpy(job->run, run, sizeof(*run));
    if (ftruncate(job->said_fd, 0) < 0 || lseek(job->said_fd, 0, SEEK_SET) < 0)
        abort();
    fflush(NULL);
    job->pid = fork();
    if (job->pid < 0) {
        perror("fork");
        exit(2);
    }
    if (job->pid == 0)
        be_run(job);
    now.running++;
}

static void judge(struct job *job, int status)
{
    const struct sweep_run *run = job->run;
    struct totals *totals = &now.of_case;
    enum sweep_end end = atomic_load(&run->end);
    totals->runs++;
    totals->struck += atomic_load(&run->fault.struck);
    totals->answered += atomic_load(&run->answered);
    totals->compared += atomic_load(&run->compared);
    totals->ends[end]++;
    if (status == 0 && end != SWEEP_UNDECIDED)
        return;
    char text[160];
    describe(&run->fault, text, sizeof(text));
    printf("FAIL %s, %s: wait status %d\n", now.test->name, text, status);
    show(job);
    totals->failed++;
}

/* Waits until one run has ended. */
static struct job *await(int *ret_status)
{
    pid_t pid;
    do
        pid = waitpid(-1, ret_status, 0);
    while (pid < 0 && errno == EINTR);
    for (unsigned i = 0; i < now.options->jobs; i++)
        if (jobs[i].pid == pid) {
            jobs[i].pid = 0;
            now.running--;
            return &jobs[i];
        }
    abort(); /* no child is anybody else's */
}

static struct job *free_job(void)
{
    for (unsigned i = 0; i < now.options->jobs; i++)
        if (jobs[i].pid == 0)
            return &jobs[i];
    int status;
    struct job *job = await(&status);
    judge(job, status);
    return job;
}

static void drain(void)
{
    while (now.running > 0) {
        int status;
        struct job *job = await(&status);
        judge(job, status);
    }
}

/* --- a case ---------------------------------------------------------------------------------- */

static unsigned hash(const char *text)
{
    unsigned h = 2166136261u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

static void sweep_kind(enum fault_kind kind, unsigned place, unsigned count, uint64_t wait_ns)
{
    unsigned variants = kind == FAULT_COMPLETION ? FAULT_VARIANTS : 1;
    unsigned every = now.options->every;
    if (now.options->most && count * variants > now.options->most)
        every *= (count * variants + now.options->most - 1) / now.options->most;
    unsigned offset = hash(now.test->name) + kind;
    for (unsigned n = 0; n < count * variants; n++) {
        unsigned at = n / variants + 1;
        if (now.options->at ? at != now.options->at : (n + offset) % every != 0)
            continue;
        struct sweep_run run = {
            .fault = {.kind = kind,
                      .place = place,
                      .variant = n % variants,
                      .at = at,
                      .traced = now.options->at > 0},
            .wait_ns = wait_ns,
            .tolerant = true,
            .answer_expected = atomic_load(&now.counted.answered),
        };
        begin(free_job(), &run);
    }
}

/* Whether there is anything to sweep over. */
static enum test_outcome count(uint64_t *ret_wait_ns)
{
    struct sweep_run run = {0};
    uint64_t since = now_ns();
    int status;
    begin(&jobs[0], &run);
    struct job *job = await(&status);
    *ret_wait_ns = WAIT_LEAST_NS + WAIT_TIMES * (now_ns() - since);
    if (*ret_wait_ns > WAIT_MOST_NS)
        *ret_wait_ns = WAIT_MOST_NS;
    memcpy(&now.counted, job->run, sizeof(now.counted));
    if (status != 0) {
        printf("FAIL %s, without a fault: wait status %d\n", now.test->name, status);
        show(job);
        return TEST_FAILED;
    }
    return atomic_load(&now.counted.is_flow) ? TEST_PASSED : TEST_SKIPPED;
}

static void say_totals(const char *name, const struct totals *t)
{
    printf("%s: %u runs, %u faults, %u answered, %u not started, %u given up, %u compared, "
           "%u failed\n",
           name, t->runs, t->struck, t->answered, t->ends[SWEEP_NOT_STARTED],
           t->ends[SWEEP_GIVEN_UP], t->compared, t->failed);
}

static void add_totals(void)
{
    struct totals *all = &now.of_all;
    const struct totals *t = &now.of_case;
    all->runs += t->runs;
    all->struck += t->struck;
    all->answered += t->answered;
    all->compared += t->compared;
    all->failed += t->failed;
    for (unsigned i = 0; i < SWEEP_ENDS; i++)
        all->ends[i] += t->ends[i];
}

static enum test_outcome sweep_case(void)
{
    uint64_t wait_ns;
    memset(&now.of_case, 0, sizeof(now.of_case));
    enum test_outcome outcome = count(&wait_ns);
    if (outcome != TEST_PASSED)
        return outcome;
    for (unsigned place = 0; place < FAULT_PLACES; place++)
        for (unsigned kind = 0; kind < FAULT_KINDS; kind++)
            if (now.options->kinds[kind])
                sweep_kind(kind, place,
                           kind == FAULT_COMPLETION ? now.counted.fault.completions[place]
                                                    : now.counted.fault.allocations[place],
                           wait_ns);
    drain();
    add_totals();
    return now.of_case.failed ? TEST_FAILED : TEST_PASSED;
}

static void open_jobs(void)
{
    for (unsigned i = 0; i < now.options->jobs; i++) {
        jobs[i].run = mmap(NULL, sizeof(*jobs[i].run), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        jobs[i].said_fd = memfd_create("said", MFD_CLOEXEC);
        if (jobs[i].run == MAP_FAILED || jobs[i].said_fd < 0) {
            perror("sweep");
            exit(2);
        }
    }
}

int sweep_cases(const char *program, const struct test_case *first,
                const struct sweep_options *options,
                enum test_outcome (*run)(const struct test_case *))
{
    struct test_counts counts = {0};
    char name[100];
    snprintf(name, sizeof(name), "sweep:%s", program);
    now.options = options;
    now.run_case = run;
    open_jobs();
    test_results_start(name);
    for (now.test = first; now.test; now.test = now.test->next) {
        if (options->filter && !strstr(now.test->name, options->filter))
            continue;
        if (options->share > 1 && hash(now.test->name) / 64 % options->share != 0)
            continue;
        enum test_outcome outcome = sweep_case();
        counts.passed += outcome == TEST_PASSED;
        counts.failed += outcome == TEST_FAILED;
        if (outcome == TEST_SKIPPED) /* no case of the flow fixture: this is not about it */
            continue;
        char line[200];
        snprintf(line, sizeof(line), "%s %s", outcome == TEST_PASSED ? "ok  " : "FAIL",
                 now.test->name);
        say_totals(line, &now.of_case);
        fflush(stdout);
    }
    say_totals(name, &now.of_all);
    printf("%u passed, %u failed, %u skipped\n", counts.passed, counts.failed, counts.skipped);
    fflush(stdout);
    test_results_end(name, counts);
    bool none = counts.passed + counts.failed == 0 && options->share <= 1;
    return counts.failed || none ? 1 : 0;
}
