/* kv_cases.h - what the benchmark measures: figures, each with its limit, in scenes that share a store.
 *
 * A round of a figure is its limit, the figure, its limit again. A limit costs about as much as what it bounds.
 *
 * Thread: the main one. */
#ifndef REELKV_BENCH_KV_CASES_H
#define REELKV_BENCH_KV_CASES_H

#include "kv_figures.h"
#include "kv_server.h"

struct kv_options {
    const char *only, *folder, *store;
    uint32_t rounds, streams, channels, top, frames, score_frames, pause_us, alike;
    bool json, list;
};

struct bench {
    struct kv_options options;
    char folder[3100]; /* of this run, on the disk that is measured */
    struct kv_server server;
    uint64_t slice;  /* bytes */
    uint8_t *source; /* as many bytes as a question copies */
    size_t source_bytes;
    unsigned cores;
};

struct kv_case {
    struct kv_figure figure;
    struct kv_limit (*limit)(struct bench *bench);
    void (*measure)(struct bench *bench, unsigned round, struct kv_sample *sample);
};

struct kv_scene {
    const char *doing; /* what open() does, for people who wait */
    bool each_round;   /* opened and closed for each */
    void (*open)(struct bench *bench);
    void (*close)(struct bench *bench);
    const struct kv_case *cases;
    unsigned count;
};

extern const struct kv_scene kv_scenes[];
extern const unsigned kv_scene_count;

/* After the options and the folder are known. */
void kv_cases_prepare(struct bench *bench);

#endif
