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

enum { KV_FIGURES = 32, KV_ROUNDS = 256 };

/* Ends the program: exit code 1. Any thread. */
void kv_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* What the machine did at most: bytes a second, and seconds of all processors for a GB. */
struct kv_limit {
    double rate, cpu;
};

/* A figure: the same pointers each round. */
struct kv_figure {
    const char *name;  /* short, as --only takes it */
    const char *title; /* what is measured */
    const char *limit; /* what bounds it */
    double goal;       /* share to be reached; 0: none */
};

/* What one round found. */
struct kv_sample {
    double bytes, seconds;
    double own_cpu_s, store_cpu_s; /* of processors, of the caller and of the store */
    bool is_time;                  /* shown as a time: that of the store's processors */
};

/* The limits were measured right before and right after; their mean bounds the sample. */
void kv_add(const struct kv_figure *figure, const struct kv_sample *sample, const struct kv_limit limits[2]);

/* One more measure of a limit, for the head of the report. */
void kv_add_limit(const char *name, struct kv_limit limit);

/* Of the figure's last round, for people: "7.31 GB/s, 81 % of its limit". */
void kv_print_last(const struct kv_figure *figure, char *to, uint32_t room);

/* Medians, the shares' least and greatest, and the machine's limits, as a table or as JSON. */
void kv_report(bool as_json);

#endif
