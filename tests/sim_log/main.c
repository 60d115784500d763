/* Runs the lives of a log in the simulated world, one seed after the other; or one of them with something
 * going wrong at each place in turn. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim_log/life.h"
#include "tests/sim_log/service.h"
#include "tests/sim_log/truth.h"
#include "tests/support/results.h"

#define SWEPT_SEED 8u
#define TWICE_EVERY 50u /* of many seeds some are run twice, too */
#define VARIANTS 6u     /* as many errors as any operation can have */

static void name_seed(void)
{
    char text[160];
    int len = snprintf(text, sizeof(text),
                       "\nin seed %llu, --at %llu --variant %u: run it again with --seed %llu\n",
                       (unsigned long long)sim.seed, (unsigned long long)sim.fault_at,
                       sim.fault_variant, (unsigned long long)sim.seed);
    ssize_t n = write(STDERR_FILENO, text, (size_t)len);
    (void)n;
}

static int usage(FILE *file, const char *name)
{
    fprintf(file,
            "Usage: %s [--store] [--seeds N] [--first N]\n"
            "       %s [--store] --seed N [--quiet]\n"
            "       %s [--store] --sweep FAULT [--seed N] [--at K] [--variant V]\n"
            "\n"
            "Lives of a log on a simulated disk, each seed some.\n"
            "  --store        of a store over it, that is asked and followed\n"
            "  --seeds N      so many, one after the other (500)\n"
            "  --first N      the first of them (1)\n"
            "  --seed N       this one alone, twice, aloud: both times the same has to happen\n"
            "  --quiet        not aloud\n"
            "  --sweep FAULT  one thing goes wrong, at each place in turn, in a world that has no\n"
            "                 other trouble (--seed, %u): allocation, or operation, and that with\n"
            "                 each error it can have\n"
            "  --at K         at this place alone, aloud; --variant V: with this error\n",
            name, name, name, SWEPT_SEED);
    return file == stderr ? 2 : 0;
}

static const struct fault no_fault;
static uint64_t (*run)(uint64_t seed, bool aloud, struct fault fault) = lives_run;

static void run_twice(uint64_t seed, bool aloud)
{
    uint64_t trace = run(seed, aloud, no_fault);
    if (run(seed, false, no_fault) != trace)
        sim_fail("the same seed does not do the same twice");
}

static void run_many(uint64_t first, uint64_t count)
{
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (seed % TWICE_EVERY == 0)
            run_twice(seed, false);
        else
            (void)run(seed, false, no_fault);
    }
}

/* Until a run ends before it comes to the place. */
static void sweep(uint64_t seed, enum sim_fault kind)
{
    uint64_t at = 0, places, runs = 0;
    do {
        at++;
        places = 0;
        for (unsigned variant = 1; variant <= (kind == SIM_OPERATION ? VARIANTS : 1); variant++) {
            (void)run(seed, false, (struct fault){kind, at, variant});
            uint64_t these = kind == SIM_OPERATION ? sim.operations : sim.allocations;
            if (these > places)
                places = these;
            runs++;
        }
    } while (at < places);
    printf("%llu places, %llu runs\n", (unsigned long long)at, (unsigned long long)runs);
}

static enum sim_fault fault_named(const char *name)
{
    if (strcmp(name, "allocation") == 0)
        return SIM_ALLOCATION;
    return strcmp(name, "operation") == 0 ? SIM_OPERATION : SIM_NO_FAULT;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},    {"seeds", required_argument, NULL, 'n'},
        {"first", required_argument, NULL, 'f'},   {"quiet", no_argument, NULL, 'q'},
        {"sweep", required_argument, NULL, 'w'},   {"at", required_argument, NULL, 'a'},
        {"variant", required_argument, NULL, 'v'}, {"store", no_argument, NULL, 'S'},
        {"help", no_argument, NULL, 'h'},          {0}};
    uint64_t seed = 0, first = 1, count = 500, at = 0;
    unsigned variant = 0;
    enum sim_fault kind = SIM_NO_FAULT;
    bool quiet = false;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (c == 'n')
            count = strtoull(optarg, NULL, 10);
        else if (c == 'f')
            first = strtoull(optarg, NULL, 10);
        else if (c == 'a')
            at = strtoull(optarg, NULL, 10);
        else if (c == 'v')
            variant = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'S')
            run = services_run, sim_again = "--store ";
        else if (c == 'q')
            quiet = true;
        else if (c != 'w' || (kind = fault_named(optarg)) == SIM_NO_FAULT)
            return usage(c == 'h' ? stdout : stderr, argv[0]);
    }
    if (optind < argc)
        return usage(stderr, argv[0]);
    test_on_crash(name_seed);
    if (kind != SIM_NO_FAULT && at > 0)
        (void)run(seed ? seed : SWEPT_SEED, !quiet, (struct fault){kind, at, variant});
    else if (kind != SIM_NO_FAULT)
        sweep(seed ? seed : SWEPT_SEED, kind);
    else if (seed)
        run_twice(seed, !quiet);
    else
        run_many(first, count);
    printf("%llu states of a disk\n", (unsigned long long)truth.judged);
    printf("1 passed, 0 failed, 0 skipped\n");
    return 0;
}
