/* Runs conversations in the simulated world, one after the other, each from its seed; or one of them with
 * something going wrong at each place in turn. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/bytes.h"
#include "tests/sim/conversation.h"
#include "tests/support/results.h"

#define SWEPT_SEED 4u   /* one without other trouble */
#define TWICE_EVERY 50u /* of many seeds some are run twice, too */

static void name_seed(void)
{
    char text[100];
    int len = snprintf(text, sizeof(text), "\nin seed %llu: run it again with --seed %llu\n",
                       (unsigned long long)sim.seed, (unsigned long long)sim.seed);
    ssize_t n = write(STDERR_FILENO, text, (size_t)len);
    (void)n;
}

static int usage(FILE *file, const char *name)
{
    fprintf(
        file,
        "Usage: %s [--seeds N] [--first N]\n"
        "       %s --seed N [--quiet]\n"
        "       %s --sweep FAULT [--seed N] [--at K]\n"
        "       %s --bytes [--seeds N] [--first N]\n"
        "\n"
        "Conversations in a simulated world, each given by its seed.\n"
        "  --seeds N      so many, one after the other (2000)\n"
        "  --first N      the first of them (1)\n"
        "  --seed N       this one alone, twice, aloud: both times the same has to happen\n"
        "  --quiet        not aloud\n"
        "  --sweep FAULT  one thing goes wrong, at each place in turn, in a conversation that has "
        "no\n"
        "                 other trouble (--seed, 4): allocation, allocations (from there on) or\n"
        "                 operation\n"
        "  --at K         at this place alone, aloud\n"
        "  --bytes        no conversations, but bytes over a stream (500 seeds)\n",
        name, name, name, name);
    return file == stderr ? 2 : 0;
}

static const struct fault no_fault;

static void run_twice(uint64_t seed, bool aloud)
{
    uint64_t trace = conversation_run(seed, aloud, no_fault);
    if (conversation_run(seed, false, no_fault) != trace)
        sim_fail("the same seed does not do the same twice");
}

static void run_many(uint64_t first, uint64_t count)
{
    uint64_t events = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (seed % TWICE_EVERY == 0)
            run_twice(seed, false);
        else
            (void)conversation_run(seed, false, no_fault);
        events += sim.events;
    }
    printf("%llu conversations, %llu events\n", (unsigned long long)count,
           (unsigned long long)events);
}

static void run_bytes(uint64_t first, uint64_t count)
{
    sim_again = "--bytes ";
    for (uint64_t seed = first; seed < first + count; seed++)
        bytes_run(seed);
}

/* Until a run ends before it comes to the place. */
static void sweep(uint64_t seed, enum sim_fault kind)
{
    uint64_t at = 0, places;
    do {
        (void)conversation_run(seed, false, (struct fault){kind, ++at});
        places = kind == SIM_OPERATION ? sim.operations : sim.allocations;
    } while (at < places);
    printf("%llu places\n", (unsigned long long)at);
}

static enum sim_fault fault_named(const char *name)
{
    if (strcmp(name, "allocation") == 0)
        return SIM_ALLOCATION;
    if (strcmp(name, "allocations") == 0)
        return SIM_ALLOCATIONS;
    return strcmp(name, "operation") == 0 ? SIM_OPERATION : SIM_NO_FAULT;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"seeds", required_argument, NULL, 'n'},
                                            {"first", required_argument, NULL, 'f'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {"sweep", required_argument, NULL, 'w'},
                                            {"at", required_argument, NULL, 'a'},
                                            {"bytes", no_argument, NULL, 'b'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    uint64_t seed = 0, first = 1, count = 2000, at = 0;
    enum sim_fault kind = SIM_NO_FAULT;
    bool quiet = false, bytes = false;
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
        else if (c == 'q')
            quiet = true;
        else if (c == 'b')
            bytes = true;
        else if (c != 'w' || (kind = fault_named(optarg)) == SIM_NO_FAULT)
            return usage(c == 'h' ? stdout : stderr, argv[0]);
    }
    if (optind < argc)
        return usage(stderr, argv[0]);
    test_on_crash(name_seed);
    if (bytes)
        run_bytes(seed ? seed : first, seed ? 1 : count == 2000 ? 500 : count);
    else if (kind != SIM_NO_FAULT && at > 0)
        (void)conversation_run(seed ? seed : SWEPT_SEED, !quiet, (struct fault){kind, at});
    else if (kind != SIM_NO_FAULT)
        sweep(seed ? seed : SWEPT_SEED, kind);
    else if (seed)
        run_twice(seed, !quiet);
    else
        run_many(first, count);
    printf("1 passed, 0 failed, 0 skipped\n");
    return 0;
}
