/* `beam bench`: options, rounds, probes.
 *
 * A pass goes over all rows in shuffled order; in each row the contenders run one after the
 * other in shuffled order, between two looks at the machine: a raw cache-line round trip and a
 * system call that does nothing. When a probe has moved by more than a fifth, the machine was
 * not the same to all, and the round of that row is dropped, counted, and tried again in a later
 * pass. */
#include "bench/bench.h"

#include <beam/beam.h>

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/contenders.h"
#include "bench/net_server.h"
#include "bench/score.h"

#define ROUNDS 7
#define ROUNDS_QUICK 3
#define DURATION_NS (100 * BEAM_MS)
#define DURATION_QUICK_NS (20 * BEAM_MS)
#define WARM_NS_MIN (10 * BEAM_MS)
#define TIMEOUT_NS (10 * BEAM_SEC) /* on top of the time a run is meant to take */
#define PROBE_NS (5 * BEAM_MS)     /* about ten thousand round trips */
#define PROBE_MOVED 0.2
#define PASSES_PER_ROUND 3 /* dropped rounds are tried again until so many passes were made */
#define CELLS_MAX 32       /* ours */
#define ENTRIES 100000
#define ENTRIES_MAX 50000000
#define ENTRY_TIMEOUT_NS                                                                           \
    (20 * BEAM_US) /* on top of that for each entry of kv-open: it is written first */

/* Descriptors that a hand-written loop of an fd-rate row can have under way: some 270 packets of 64 fit
 * a socket, and a user has no more on the way than files open (unix(7), ETOOMANYREFS). Measured: 8192
 * are not enough, 16384 are. */
#define NOFILE_FD_RATE 16384
#define ROWS_MAX 64 /* ours */

struct options {
    bool json, quick, help;
    unsigned rounds;
    uint64_t duration_ns;
    uint64_t seed;
    uint64_t entries;
    const char *only; /* one contender; NULL: all */
    const char *cells[CELLS_MAX];
    unsigned cell_count;
};

struct probes {
    double line_ns, syscall_ns;
};

struct bench {
    struct options options;
    struct bench_run run; /* what all runs have in common */
    struct bench_result *results[BENCH_CONTENDERS_MAX];
    struct score *scores;
    struct bench_row *rows; /* theirs, with the contenders that were asked for */
    unsigned score_count;
    bool progress;
    uint64_t random;
    rlim_t nofile;
};

static const char help[] =
    "Usage: beam bench [CELL...] [--json] [--quick] [--rounds N] [--duration D] [--seed N]\n"
    "                  [--only CONTENDER] [--entries N]\n"
    "\n"
    "Measures Beam beside hand-written equivalents (bare) and what the machine itself can do "
    "(raw),\n"
    "in one run. Trust the ratios: the machine changes from minute to minute, and to all alike.\n"
    "\n"
    "  CELL           one or more of:";

static const char help_rest[] =
    "\n                 (no cell: all but net-...; kv, unix, ...: all that begin so)\n"
    "  --json         one JSON object a line and contender\n"
    "  --quick        fewer and shorter rounds: a look, not a measurement\n"
    "  --rounds N     rounds that count, 1 to 101 (7)\n"
    "  --duration D   measured time of one contender in one round: 250us, 100ms, 1s (100ms)\n"
    "  --seed N       of the order of rows and contenders (printed; default: random)\n"
    "  --only NAME    one contender, without ratios: for a profiler\n"
    "  --entries N    in the file of kv-open, 1 to 50000000 (100000)\n"
    "\n"
    "Exit code: 0 measured, 1 a contender failed, 2 usage, 3 no io_uring.\n"
    "docs/benchmarking.md says what each number means.\n";

static void print_cells(FILE *out)
{
    const char *last = "";
    for (const struct bench_row *row = bench_rows; row->cell != NULL; row++) {
        if (strcmp(row->cell, last) != 0)
            fprintf(out, " %s", row->cell);
        last = row->cell;
    }
}

static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != 0 || errno != 0 || value > max)
        return false;
    *ret = value;
    return true;
}

static bool parse_duration(const char *text, uint64_t *ret_ns)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"ns", 1}, {"us", BEAM_US}, {"ms", BEAM_MS}, {"s", BEAM_SEC}};
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || errno != 0 || !(value > 0))
        return false;
    for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        double ns = value * (double)units[i].ns;
        if (ns < (double)BEAM_US || ns > 60 * (double)BEAM_SEC)
            return false;
        *ret_ns = (uint64_t)ns;
        return true;
    }
    return false;
}

/* "kv-get" is itself; "kv" is all whose names go on with a hyphen. */
static bool cell_is(const char *cell, const char *name)
{
    size_t len = strlen(name);
    return strncmp(cell, name, len) == 0 && (cell[len] == 0 || cell[len] == '-');
}

static bool cell_exists(const char *name)
{
    for (const struct bench_row *row = bench_rows; row->cell != NULL; row++)
        if (cell_is(row->cell, name))
            return true;
    return false;
}

static int usage(const char *what, const char *which)
{
    fprintf(stderr, "beam bench: %s%s%s (try --help)\n", what, which != NULL ? ": " : "",
            which != NULL ? which : "");
    return -EINVAL;
}

static int options_parse(int argc, char **argv, struct options *ret)
{
    static const struct option known[] = {
        {"json", no_argument, NULL, 'j'},
        {"quick", no_argument, NULL, 'q'},
        {"rounds", required_argument, NULL, 'r'},
        {"duration", required_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 's'},
        {"only", required_argument, NULL, 'o'},
        {"entries", required_argument, NULL, 'e'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    uint64_t number = 0;
    bool seeded = false;
    optind = 0; /* GNU: start afresh, whatever the program parsed before */
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'j':
            ret->json = true;
            break;
        case 'q':
            ret->quick = true;
            break;
        case 'h':
            ret->help = true;
            break;
        case 'r':
            if (!parse_number(optarg, BENCH_ROUNDS_MAX, &number) || number == 0)
                return usage("--rounds takes 1 to 101, not", optarg);
            ret->rounds = (unsigned)number;
            break;
        case 'd':
            if (!parse_duration(optarg, &ret->duration_ns))
                return usage("--duration takes 1us to 60s, not", optarg);
            break;
        case 'e':
            if (!parse_number(optarg, ENTRIES_MAX, &ret->entries) || ret->entries == 0)
                return usage("--entries takes 1 to 50000000, not", optarg);
            break;
        case 'o':
            ret->only = optarg;
            break;
        case 's':
            if (!parse_number(optarg, UINT64_MAX, &ret->seed))
                return usage("--seed takes a number, not", optarg);
            seeded = true;
            break;
        default:
            return usage("unknown option or missing value", argv[optind - 1]);
        }
    }
    for (; optind < argc; optind++) {
        if (!cell_exists(argv[optind]))
            return usage("no such cell", argv[optind]);
        if (ret->cell_count == CELLS_MAX)
            return usage("too many cells", NULL);
        ret->cells[ret->cell_count++] = argv[optind];
    }
    if (ret->rounds == 0)
        ret->rounds = ret->quick ? ROUNDS_QUICK : ROUNDS;
    if (ret->entries == 0)
        ret->entries = ENTRIES;
    if (ret->duration_ns == 0)
        ret->duration_ns = ret->quick ? DURATION_QUICK_NS : DURATION_NS;
    if (!seeded)
        ret->seed = bench_clock_ns() % 1000000; /* short enough to be typed again */
    return 0;
}

static bool row_wanted(const struct options *options, const struct bench_row *row)
{
    for (unsigned i = 0; i < options->cell_count; i++)
        if (cell_is(row->cell, options->cells[i]))
            return true;
    return options->cell_count == 0 && !row->named;
}

/* splitmix64, by Sebastiano Vigna: enough to shuffle with, and the same everywhere. */
static uint64_t random_next(struct bench *bench)
{
    uint64_t z = (bench->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void shuffle(struct bench *bench, unsigned *order, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        order[i] = i;
    for (unsigned i = count; i > 1; i--) {
        unsigned j = (unsigned)(random_next(bench) % i);
        unsigned swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

static double probe(struct bench *bench, int (*fn)(struct bench_run *run))
{
    static const struct bench_row row = {
        .cell = "probe", .regime = "spinning", .size = 8, .depth = 1};
    struct bench_contender contender = {"probe", fn, true};
    struct bench_run run = bench->run;
    run.row = &row;
    run.result = bench->results[0];
    run.warm_ns = BEAM_MS;
    run.duration_ns = PROBE_NS;
    bench_run_execute(&run, &contender, TIMEOUT_NS);
    if (!run.result->finished)
        return NAN;
    return (double)histogram_quantile(&run.result->latency, 0.5);
}

static struct probes probe_all(struct bench *bench)
{
    struct probes probes = {.line_ns = NAN};
    if (bench->run.cpu_here != bench->run.cpu_there)
        probes.line_ns = probe(bench, line_rtt);
    probes.syscall_ns = probe(bench, syscall_null);
    return probes;
}

static bool moved(double before, double after)
{
    if (isnan(before) || isnan(after))
        return false;
    double low = before < after ? before : after, high = before < after ? after : before;
    return high > low * (1 + PROBE_MOVED);
}

/* Lines between cores say nothing about a row that stays on one. */
static bool row_disturbed(const struct bench_row *row, const struct probes *before,
                          const struct probes *after)
{
    if (moved(before->syscall_ns, after->syscall_ns))
        return true;
    return strcmp(row->placement, "cross-core") == 0 && moved(before->line_ns, after->line_ns);
}

/* How many pauses between two looks make the fastest round trip on this processor. */
static void tune_spin(struct bench *bench)
{
    static const unsigned candidates[] = {0, 1, 2, 3, 4, 6, 8};
    unsigned best = 0;
    double best_ns = NAN;
    for (unsigned i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        bench_spin_pauses = candidates[i];
        double ns = probe(bench, ring_tuned_rtt);
        if (isnan(best_ns) || ns < best_ns) {
            best_ns = ns;
            best = candidates[i];
        }
    }
    bench_spin_pauses = best;
}

static void progress(struct bench *bench, unsigned done, unsigned all, const struct bench_row *row,
                     const char *contender)
{
    if (!bench->progress)
        return;
    if (row == NULL)
        fprintf(stderr, "\r\033[K");
    else
        fprintf(stderr, "\r\033[K[%u/%u] %s %s %u %s %s: %s", done, all, row->cell,
                row->document != NULL ? row->document : row->transport, row->size, row->placement,
                row->regime, contender);
}

static void run_contender(struct bench *bench, struct score *score, unsigned index)
{
    const struct bench_contender *contender = &score->row->contenders[index];
    struct bench_run run = bench->run;
    if (contender->run == NULL) {
        /* Nor is there a result: a probe may have left one. */
        memset(bench->results[index], 0, sizeof(*bench->results[index]));
        return;
    }
    run.row = score->row;
    run.result = bench->results[index];
    run.packet_messages = score->packet_messages != 0 ? score->packet_messages : score->row->depth;
    if (strcmp(score->row->placement, "same-core") == 0)
        run.cpu_there = run.cpu_here;
    uint64_t timeout_ns = TIMEOUT_NS + run.warm_ns + run.duration_ns;
    if (strcmp(score->row->cell, "kv-open") == 0)
        timeout_ns += run.entries * ENTRY_TIMEOUT_NS;
    bench_run_execute(&run, contender, timeout_ns);
    const struct bench_counters *counters = &run.result->counters;
    if (strcmp(contender->name, "beam") == 0 && counters->packets > 0)
        score->packet_messages = (unsigned)(counters->messages / counters->packets);
}

/* One row, all its contenders. The probes after it are the ones before the next. */
static void run_row(struct bench *bench, struct score *score, struct probes *probes, unsigned done,
                    unsigned all)
{
    unsigned order[BENCH_CONTENDERS_MAX], count = score_contenders(score->row);
    shuffle(bench, order, count);
    if (score->packet_messages ==
        0) { /* Beam, the first, goes first once: a probe needs its packets */
        for (unsigned i = 0; i < count; i++)
            order[i] = i;
    }
    for (unsigned i = 0; i < count; i++) {
        progress(bench, done, all, score->row, score->row->contenders[order[i]].name);
        run_contender(bench, score, order[i]);
    }
    /* The probes borrow results[0]. */
    const struct bench_result *results[BENCH_CONTENDERS_MAX];
    struct bench_result *first = bench->results[0];
    static struct bench_result kept;
    memcpy(&kept, first, sizeof(kept));
    for (unsigned i = 0; i < count; i++)
        results[i] = i == 0 ? &kept : bench->results[i];

    struct probes before = *probes;
    *probes = probe_all(bench);
    if (row_disturbed(score->row, &before, probes))
        score->dropped++;
    else
        score_add(score, results);
}

static void run_rounds(struct bench *bench)
{
    unsigned rounds = bench->options.rounds, count = bench->score_count, done = 0;
    unsigned order[ROWS_MAX];
    struct probes probes = probe_all(bench);
    for (unsigned pass = 0; pass < rounds * PASSES_PER_ROUND; pass++) {
        bool missing = false;
        shuffle(bench, order, count);
        for (unsigned i = 0; i < count; i++) {
            struct score *score = &bench->scores[order[i]];
            if (score->rounds == rounds)
                continue;
            missing = true;
            run_row(bench, score, &probes, done, rounds * count);
            done = 0;
            for (unsigned j = 0; j < count; j++)
                done += bench->scores[j].rounds;
        }
        if (!missing)
            break;
    }
    progress(bench, 0, 0, NULL, NULL);
}

/* The first two CPUs we may use; the same one twice when there is only one. */
static void choose_cpus(struct bench_run *run)
{
    cpu_set_t set;
    int found = 0;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof(set), &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (!CPU_ISSET(cpu, &set))
            continue;
        if (found++ == 0)
            run->cpu_here = run->cpu_there = cpu;
        else
            run->cpu_there = cpu;
    }
}

static void *pages(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Copies the row without the contenders nobody asked for; false when none is left. Servers that are not installed
 * stay, with a line that says so. */
static bool row_take(const struct options *options, const struct bench_row *row,
                     struct bench_row *ret)
{
    unsigned count = 0;
    *ret = *row;
    memset(ret->contenders, 0, sizeof(ret->contenders));
    for (unsigned i = 0; i < score_contenders(row); i++)
        if (options->only == NULL || strcmp(options->only, row->contenders[i].name) == 0)
            ret->contenders[count++] = row->contenders[i];
    for (unsigned i = 0; i < count; i++)
        if (row->named && !net_server_is_here(row, ret->contenders[i].name))
            ret->contenders[i].run = NULL;
    return count > 0;
}

/* As many as we may: what users have by default is for programs that use select(2). */
static rlim_t raise_nofile(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? before : limit.rlim_cur;
}

/* Why a row cannot be measured here; NULL when it can. */
static const char *row_wants(const struct bench *bench, const struct bench_row *row)
{
    if (bench->run.cpu_here == bench->run.cpu_there && strcmp(row->placement, "cross-core") == 0)
        return "two CPUs";
    if (strcmp(row->cell, "fd-rate") == 0 && bench->nofile < NOFILE_FD_RATE)
        return "16384 open files (ulimit -Hn)";
    return NULL;
}

/* Rows that need what this machine does not have are left out, and said so. */
static int choose_rows(struct bench *bench)
{
    size_t all = 0;
    while (bench_rows[all].cell != NULL)
        all++;
    bench->scores = calloc(all, sizeof(*bench->scores));
    bench->rows = calloc(all, sizeof(*bench->rows));
    if (bench->scores == NULL || bench->rows == NULL)
        return -ENOMEM;
    for (const struct bench_row *row = bench_rows; row->cell != NULL; row++) {
        if (!row_wanted(&bench->options, row) || bench->score_count == ROWS_MAX)
            continue;
        const char *wants = row_wants(bench, row);
        if (wants) {
            fprintf(stderr, "beam bench: %s %s left out: it needs %s\n", row->cell, row->regime,
                    wants);
            continue;
        }
        if (!row_take(&bench->options, row, &bench->rows[bench->score_count]))
            continue;
        bench->scores[bench->score_count].row = &bench->rows[bench->score_count];
        bench->score_count++;
    }
    if (bench->score_count == 0 && bench->options.only != NULL)
        return usage("no such contender here", bench->options.only);
    for (unsigned i = 0; i < BENCH_CONTENDERS_MAX; i++)
        if ((bench->results[i] = pages(sizeof(struct bench_result))) == NULL)
            return -ENOMEM;
    return 0;
}

static void print_head(struct bench *bench, FILE *out)
{
    const struct options *options = &bench->options;
    struct probes probes = probe_all(bench);
    double load = 0;
    if (getloadavg(&load, 1) != 1)
        load = 0;
    fprintf(out, "beam bench: %u rounds of %.3g ms, seed %llu, cpus %d and %d\n", options->rounds,
            (double)options->duration_ns / 1e6, (unsigned long long)options->seed,
            bench->run.cpu_here, bench->run.cpu_there);
    fprintf(out, "  cache line round trip %.0f ns, null system call %.0f ns, %u pauses tuned\n",
            probes.line_ns, probes.syscall_ns, bench_spin_pauses);
    if (load > (double)sysconf(_SC_NPROCESSORS_ONLN))
        fprintf(out, "  load %.1f: this machine is busy; believe counters, not times\n", load);
}

static int measure(struct bench *bench)
{
    int failed = 0;
    bench->run.duration_ns = bench->options.duration_ns;
    bench->run.entries = bench->options.entries;
    bench->run.warm_ns = bench->options.duration_ns / 4;
    if (bench->run.warm_ns < WARM_NS_MIN)
        bench->run.warm_ns = WARM_NS_MIN;
    bench->random = bench->options.seed;
    bench->progress = isatty(STDERR_FILENO) != 0;
    bench_ticks_calibrate();
    if (bench->run.cpu_here != bench->run.cpu_there)
        tune_spin(bench);
    print_head(bench, bench->options.json ? stderr : stdout);
    fflush(stdout); /* or every run would inherit it */
    run_rounds(bench);
    for (unsigned i = 0; i < bench->score_count; i++) {
        if (bench->options.json)
            score_print_json(&bench->scores[i], stdout);
        else
            score_print(&bench->scores[i], stdout);
        failed |= score_has_failed(&bench->scores[i]);
    }
    return failed;
}

static void dispose(struct bench *bench)
{
    for (unsigned i = 0; i < BENCH_CONTENDERS_MAX; i++)
        if (bench->results[i] != NULL)
            munmap(bench->results[i], sizeof(struct bench_result));
    free(bench->scores);
    free(bench->rows);
}

int beam_bench_main(int argc, char **argv)
{
    struct bench bench = {0};
    if (options_parse(argc, argv, &bench.options) < 0)
        return 2;
    if (bench.options.help) {
        printf("%s", help);
        print_cells(stdout);
        printf("%s", help_rest);
        return 0;
    }
    if (!beam_platform()->io_uring)
        return beam_exit_code(-BEAM_ENO_IO_URING, stderr);
    choose_cpus(&bench.run);
    bench.nofile = raise_nofile();
    int r = choose_rows(&bench);
    if (r < 0) {
        dispose(&bench);
        return r == -EINVAL ? 2 : beam_exit_code(r, stderr);
    }
    /* A peer whose run died is given to us to wait for. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int failed = measure(&bench);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    dispose(&bench);
    return failed;
}
