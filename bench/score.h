/* The score of one row: what its contenders did in the rounds that count. */
#ifndef BENCH_SCORE_H
#define BENCH_SCORE_H

#include <stdbool.h>
#include <stdio.h>

#include "bench/contest.h"

#define BENCH_ROUNDS_MAX 101 /* ours */

/* One value per round; NAN where a contender had none. */
struct samples {
    unsigned count;
    double value[BENCH_ROUNDS_MAX];
};

struct tally {
    struct histogram latency; /* of all rounds: percentiles are merged, never averaged */
    struct samples per_s, cpu_ns, syscalls, allocs; /* per second; the others per message */
    struct samples figures;                         /* what the row is decided by */
    struct samples to_raw, to_bare, to_plain;       /* formed inside the round */
    struct samples of_beam;                         /* Beam's figure to this one's, likewise */
    uint64_t bytes, beam_bytes;                     /* of a batch's documents; 0: there are none */
    struct bench_note notes[BENCH_NOTES_MAX];       /* of the last round */
    bool allocs_unknown;
    unsigned failures;
    char error[200]; /* of the first */
};

struct score {
    const struct bench_row *row;
    unsigned rounds;          /* that count */
    unsigned dropped;         /* because a probe had moved */
    unsigned packet_messages; /* Beam's, for the probe that sends packets of that size */
    struct tally tally[BENCH_CONTENDERS_MAX];
};

unsigned score_contenders(const struct bench_row *row);

/* Adds a round: the results of the row's contenders in their order. */
void score_add(struct score *score, const struct bench_result *const *results);

bool score_has_failed(const struct score *score);

/* One JSON object a line and contender. */
void score_print_json(const struct score *score, FILE *out);

/* A block of the table. */
void score_print(const struct score *score, FILE *out);

#endif
