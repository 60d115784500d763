/* Medians, ratios, and the two ways to print them.
 *
 * A ratio compares two contenders inside one round, where the machine was the same to both; the
 * score is the median of these. In rows about latency it is the p50 of one over the p50 of the
 * other (less is better), in rows about rate the operations per second (more is better). Rows about
 * work on one processor have the p50 of a batch, which is a time as well; rows about servers the processor time of an
 * operation, or the memory of a connection. */
#include "bench/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

unsigned score_contenders(const struct bench_row *row)
{
    unsigned n = 0;
    while (n < BENCH_CONTENDERS_MAX && row->contenders[n].name != NULL)
        n++;
    return n;
}

static void samples_add(struct samples *samples, double value)
{
    if (samples->count < BENCH_ROUNDS_MAX)
        samples->value[samples->count++] = value;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double samples_median(const struct samples *samples)
{
    double sorted[BENCH_ROUNDS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < samples->count; i++)
        if (!isnan(samples->value[i]))
            sorted[n++] = samples->value[i];
    if (n == 0)
        return NAN;
    qsort(sorted, n, sizeof(*sorted), compare);
    return n % 2 != 0 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static bool good(const struct bench_result *result)
{
    return result->finished && result->error[0] == 0 && result->operations > 0;
}

/* What the row is decided by. */
static double figure(const struct bench_row *row, const struct bench_result *result)
{
    if (!good(result))
        return NAN;
    if (row->kind == BENCH_CPU)
        return (double)result->cpu_ns / (double)result->operations;
    if (row->kind == BENCH_MEMORY)
        return (double)result->bytes / (double)result->operations;
    if (row->kind != BENCH_RATE)
        return (double)histogram_quantile(&result->latency, 0.5);
    return (double)result->operations * 1e9 / (double)result->elapsed_ns;
}

static double figure_of(const struct score *score, const struct bench_result *const *results,
                        const char *name)
{
    for (unsigned i = 0; i < score_contenders(score->row); i++)
        if (strcmp(score->row->contenders[i].name, name) == 0)
            return figure(score->row, results[i]);
    return NAN;
}

static uint64_t bytes_of(const struct score *score, const struct bench_result *const *results,
                         const char *name)
{
    for (unsigned i = 0; i < score_contenders(score->row); i++)
        if (strcmp(score->row->contenders[i].name, name) == 0 && good(results[i]))
            return results[i]->bytes;
    return 0;
}

static void tally_fail(struct tally *tally, const struct bench_result *result)
{
    if (tally->failures++ == 0)
        snprintf(tally->error, sizeof(tally->error), "%s",
                 result->error[0] != 0 ? result->error : "no result");
}

void score_add(struct score *score, const struct bench_result *const *results)
{
    double raw = figure_of(score, results, "raw");
    double bare = figure_of(score, results, "bare");
    double plain = figure_of(score, results, "plain");
    double beam = figure_of(score, results, "beam");
    uint64_t beam_bytes = bytes_of(score, results, "beam");
    score->rounds++;
    for (unsigned i = 0; i < score_contenders(score->row); i++) {
        const struct bench_result *result = results[i];
        struct tally *tally = &score->tally[i];
        if (score->row->contenders[i].run == NULL)
            continue;
        if (!good(result)) {
            tally_fail(tally, result);
            continue;
        }
        double mine = figure(score->row, result);
        double operations = (double)result->operations;
        double messages = operations * score->row->messages_per_op;
        histogram_merge(&tally->latency, &result->latency);
        samples_add(&tally->per_s, operations * 1e9 / (double)result->elapsed_ns);
        samples_add(&tally->cpu_ns, (double)result->cpu_ns / messages);
        samples_add(&tally->syscalls, (double)result->counters.syscalls / messages);
        samples_add(&tally->allocs, (double)result->counters.allocs / messages);
        samples_add(&tally->figures, mine);
        samples_add(&tally->to_raw, mine / raw);
        samples_add(&tally->to_bare, mine / bare);
        samples_add(&tally->to_plain, mine / plain);
        samples_add(&tally->of_beam, beam / mine);
        tally->bytes = result->bytes;
        tally->beam_bytes = beam_bytes;
        memcpy(tally->notes, result->notes, sizeof(tally->notes));
        tally->allocs_unknown = result->allocs_unknown;
    }
}

bool score_has_failed(const struct score *score)
{
    for (unsigned i = 0; i < score_contenders(score->row); i++)
        if (score->tally[i].failures > 0)
            return true;
    return false;
}

static bool of_server(const struct bench_row *row)
{
    return row->kind == BENCH_CPU || row->kind == BENCH_MEMORY;
}

/* Of one operation. */
static double quantile(const struct bench_row *row, const struct tally *tally, double q)
{
    if (tally->latency.total == 0)
        return NAN;
    double ns = (double)histogram_quantile(&tally->latency, q);
    return row->kind == BENCH_WORK ? ns / row->depth : ns;
}

static double allocs(const struct tally *tally)
{
    return tally->allocs_unknown ? NAN : samples_median(&tally->allocs);
}

/* Bytes of one document; NAN where there are none. */
static double document_bytes(const struct bench_row *row, const struct tally *tally)
{
    return tally->bytes > 0 ? (double)tally->bytes / row->depth : NAN;
}

static double bytes_of_beam(const struct tally *tally)
{
    if (tally->bytes == 0 || tally->beam_bytes == 0)
        return NAN;
    return (double)tally->beam_bytes / (double)tally->bytes;
}

static void json_number(FILE *out, const char *name, int decimals, double value)
{
    if (isnan(value) || isinf(value))
        fprintf(out, ",\"%s\":null", name);
    else
        fprintf(out, ",\"%s\":%.*f", name, decimals, value);
}

/* Texts here are our own or strerror's: quotes and control bytes are dropped, not escaped. */
static void json_text(FILE *out, const char *name, const char *text)
{
    fprintf(out, ",\"%s\":\"", name);
    for (; *text != 0; text++)
        if ((unsigned char)*text >= ' ' && *text != '"' && *text != '\\')
            fputc(*text, out);
    fputc('"', out);
}

void score_print_json(const struct score *score, FILE *out)
{
    const struct bench_row *row = score->row;
    int decimals = row->kind == BENCH_WORK ? 1 : 0;
    for (unsigned i = 0; i < score_contenders(row); i++) {
        const struct tally *tally = &score->tally[i];
        fprintf(out, "{\"cell\":\"%s\"", row->cell);
        json_text(out, "contender", row->contenders[i].name);
        json_text(out, "transport", row->transport);
        if (row->document != NULL)
            json_text(out, "document", row->document);
        json_number(out, "size", 0, row->size);
        json_number(out, "depth", 0, row->depth);
        json_number(out, "fds", 0, row->fds);
        json_text(out, "placement", row->placement);
        json_text(out, "regime", row->regime);
        json_number(out, "p50_ns", decimals, quantile(row, tally, 0.5));
        json_number(out, "p99_ns", decimals, quantile(row, tally, 0.99));
        json_number(out, "per_s", 0, samples_median(&tally->per_s));
        json_number(out, "cpu_ns_per_msg", 1,
                    row->kind == BENCH_MEMORY ? NAN : samples_median(&tally->cpu_ns));
        json_number(out, "syscalls_per_msg", 4,
                    of_server(row) ? NAN : samples_median(&tally->syscalls));
        json_number(out, "allocs_per_msg", 4, allocs(tally));
        json_number(out, "rounds", 0, tally->per_s.count);
        json_number(out, "dropped", 0, score->dropped);
        json_number(out, "ratio_to_raw", 3, samples_median(&tally->to_raw));
        json_number(out, "ratio_to_bare", 3, samples_median(&tally->to_bare));
        if (!isnan(samples_median(&tally->to_plain)))
            json_number(out, "ratio_to_plain", 3, samples_median(&tally->to_plain));
        json_number(out, "ratio_of_beam", 3, samples_median(&tally->of_beam));
        if (row->connections > 0)
            json_number(out, "connections", 0, row->connections);
        if (row->kind == BENCH_MEMORY)
            json_number(out, "bytes", 0, samples_median(&tally->figures));
        if (row->kind == BENCH_WORK) {
            json_number(out, "bytes", 1, document_bytes(row, tally));
            json_number(out, "bytes_ratio_of_beam", 3, bytes_of_beam(tally));
        }
        for (unsigned j = 0; j < BENCH_NOTES_MAX && tally->notes[j].name != NULL; j++)
            json_number(out, tally->notes[j].name, 0, tally->notes[j].value);
        if (row->contenders[i].run == NULL)
            fprintf(out, ",\"absent\":true");
        if (tally->failures > 0) {
            json_number(out, "failures", 0, tally->failures);
            json_text(out, "error", tally->error);
        }
        fprintf(out, "}\n");
    }
    fflush(out);
}

static void print_time(FILE *out, double ns)
{
    if (isnan(ns))
        fprintf(out, " %9s", "-");
    else if (ns < 10000)
        fprintf(out, " %6.0f ns", ns);
    else
        fprintf(out, " %6.1f us", ns / 1000);
}

static void print_rate(FILE *out, double per_s)
{
    if (isnan(per_s))
        fprintf(out, " %9s", "-");
    else if (per_s < 1e6)
        fprintf(out, " %7.1f k", per_s / 1e3);
    else
        fprintf(out, " %7.2f M", per_s / 1e6);
}

static void print_ratio(FILE *out, double ratio)
{
    if (isnan(ratio))
        fprintf(out, " %7s", "-");
    else
        fprintf(out, " %6.2fx", ratio);
}

/* The best of those that pass messages; probes are limits. -1: nobody has a result. */
static int winner(const struct score *score)
{
    const struct bench_row *row = score->row;
    bool less = row->kind != BENCH_RATE;
    int best = -1;
    double best_figure = NAN;
    for (unsigned i = 0; i < score_contenders(score->row); i++) {
        const struct tally *tally = &score->tally[i];
        double mine = of_server(row) ? samples_median(&tally->figures)
                      : less         ? quantile(row, tally, 0.5)
                                     : samples_median(&tally->per_s);
        if (score->row->contenders[i].probe || isnan(mine))
            continue;
        if (best < 0 || (less ? mine < best_figure : mine > best_figure)) {
            best = (int)i;
            best_figure = mine;
        }
    }
    return best;
}

static void print_number(FILE *out, int decimals, double value)
{
    if (isnan(value))
        fprintf(out, " %9s", "-");
    else
        fprintf(out, " %9.*f", decimals, value);
}

static void print_notes(FILE *out, const struct tally *tally)
{
    for (unsigned i = 0; i < BENCH_NOTES_MAX && tally->notes[i].name != NULL; i++)
        fprintf(out, "  %s %.0f", tally->notes[i].name, tally->notes[i].value);
}

/* Why a contender has none; absent: because it was not there, else NULL. */
static void print_no_figures(FILE *out, const char *absent, const struct tally *tally)
{
    fprintf(out, " %s\n", absent ? absent : tally->failures > 0 ? tally->error : "no round counts");
}

/* What is written and read instead of sent. */
static void print_work(const struct score *score, FILE *out)
{
    const struct bench_row *row = score->row;
    fprintf(out, "\n%s %s, %s, batches of %u   (%u rounds, %u dropped)\n", row->cell, row->document,
            row->regime, row->depth, score->rounds, score->dropped);
    fprintf(out, "  %-11s %9s %9s %9s %9s %9s %7s %7s %7s  winner\n", "", "p50 ns", "per s",
            "cpu ns", "allocs", "bytes", "/raw", "beam/it", "bytes");
    int best = winner(score);
    for (unsigned i = 0; i < score_contenders(row); i++) {
        const struct tally *tally = &score->tally[i];
        fprintf(out, "  %-11s", row->contenders[i].name);
        if (tally->per_s.count == 0) {
            print_no_figures(
                out, row->contenders[i].run ? NULL : "was not there when this was built", tally);
            continue;
        }
        print_number(out, 1, quantile(row, tally, 0.5));
        print_rate(out, samples_median(&tally->per_s));
        print_number(out, 1, samples_median(&tally->cpu_ns));
        print_number(out, 3, allocs(tally));
        print_number(out, 0, document_bytes(row, tally));
        print_ratio(out, samples_median(&tally->to_raw));
        print_ratio(out, samples_median(&tally->of_beam));
        print_ratio(out, bytes_of_beam(tally));
        fprintf(out, "  %s", (int)i == best ? "WINNER" : row->contenders[i].probe ? "(limit)" : "");
        print_notes(out, tally);
        if (tally->failures > 0)
            fprintf(out, "  %u void: %s", tally->failures, tally->error);
        fprintf(out, "\n");
    }
    fflush(out);
}

/* What it costs a server. */
static void print_server(const struct score *score, FILE *out)
{
    const struct bench_row *row = score->row;
    bool memory = row->kind == BENCH_MEMORY;
    fprintf(out, "\n%s %s", row->cell, row->transport);
    if (row->size > 0)
        fprintf(out, ", %u B", row->size);
    if (row->connections > 0)
        fprintf(out, ", %u connection%s", row->connections, row->connections == 1 ? "" : "s");
    if (row->depth > 0)
        fprintf(out, " x %u", row->depth);
    fprintf(out, "   (%u rounds, %u dropped)\n", score->rounds, score->dropped);
    fprintf(out, "  %-11s %9s %9s %7s  winner\n", "", memory ? "bytes" : "cpu/op", "per s",
            "beam/it");
    int best = winner(score);
    for (unsigned i = 0; i < score_contenders(row); i++) {
        const struct tally *tally = &score->tally[i];
        fprintf(out, "  %-11s", row->contenders[i].name);
        if (tally->per_s.count == 0) {
            print_no_figures(out, row->contenders[i].run ? NULL : "is not here", tally);
            continue;
        }
        if (memory)
            print_number(out, 0, samples_median(&tally->figures));
        else
            print_time(out, samples_median(&tally->figures));
        print_rate(out, memory ? NAN : samples_median(&tally->per_s));
        print_ratio(out, samples_median(&tally->of_beam));
        fprintf(out, "  %s", (int)i == best ? "WINNER" : "");
        print_notes(out, tally);
        if (tally->failures > 0)
            fprintf(out, "  %u void: %s", tally->failures, tally->error);
        fprintf(out, "\n");
    }
    fflush(out);
}

void score_print(const struct score *score, FILE *out)
{
    if (score->row->kind == BENCH_WORK) {
        print_work(score, out);
        return;
    }
    if (of_server(score->row)) {
        print_server(score, out);
        return;
    }
    const struct bench_row *row = score->row;
    fprintf(out, "\n%s %s, %u B", row->cell, row->transport, row->size);
    if (row->fds > 0)
        fprintf(out, " + %u fd%s", row->fds, row->fds == 1 ? "" : "s");
    fprintf(out, ", depth %u, %s, %s   (%u rounds, %u dropped)\n", row->depth, row->placement,
            row->regime, score->rounds, score->dropped);
    fprintf(out, "  %-6s %9s %9s %9s %9s %8s %9s %7s %7s  winner\n", "", "p50", "p99", "per s",
            "cpu/msg", "sys/msg", "alloc/msg", "/raw", "/bare");
    int best = winner(score);
    for (unsigned i = 0; i < score_contenders(row); i++) {
        const struct tally *tally = &score->tally[i];
        fprintf(out, "  %-6s", row->contenders[i].name);
        if (tally->per_s.count == 0) {
            print_no_figures(out, NULL, tally);
            continue;
        }
        print_time(out, quantile(row, tally, 0.5));
        print_time(out, quantile(row, tally, 0.99));
        print_rate(out, samples_median(&tally->per_s));
        print_time(out, samples_median(&tally->cpu_ns));
        fprintf(out, " %8.3f", samples_median(&tally->syscalls));
        fprintf(out, " %9.3f", samples_median(&tally->allocs));
        print_ratio(out, samples_median(&tally->to_raw));
        print_ratio(out, samples_median(&tally->to_bare));
        fprintf(out, "  %s", (int)i == best ? "WINNER" : row->contenders[i].probe ? "(limit)" : "");
        if (!isnan(samples_median(&tally->to_plain)))
            fprintf(out, " %.2fx of plain", samples_median(&tally->to_plain));
        print_notes(out, tally);
        if (tally->failures > 0)
            fprintf(out, "  %u void: %s", tally->failures, tally->error);
        fprintf(out, "\n");
    }
    fflush(out);
}
