/* kv_figures.h - what was measured beside the machine's own limits, and how it is shown.
 *
 * A figure is a rate or a time with, from the same moment, what the machine can do at most: both are taken once a
 * round, and the share of a round is of its own limit, because others on the machine take from both.
 *
 * Thread: the main one. Fails: never; a benchmark that cannot go on ends with a sentence (kv_die()).
 * Bounds: KV_FIGURES figures of KV_ROUNDS rounds. */
#ifndef REELKV_BENCH_KV_FIGURES_H
#define REELKV_BENCH_KV_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

enum { KV_FIGURES = 32, KV_ROUNDS = 96 };

/* Ends the program: exit code 1. Any thread. */
void kv_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* One round's sample. Rates are bytes a second; times (is_time) seconds, of which the limit is the least. */
struct kv_sample {
    const char *name;  /* of the figure, the same pointer each round */
    const char *limit; /* what bounds it */
    double value, bound;
    double goal; /* share to be reached; 0: none */
    bool is_time;
    double own_cpu,
        store_cpu; /* seconds of processors for a GB, of the caller and of the store; 0: not told */
};
void kv_add(const struct kv_sample *sample);

/* Medians, the shares' least and greatest, and the machine's limits, as a table or as JSON. */
void kv_report(bool as_json);

/* The median of what was measured of one limit in this run; for the head of the report. */
void kv_add_limit(const char *name, double bytes_per_second);

#endif
