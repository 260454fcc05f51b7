/* kv_read.h - questions of a benchmark: Retrieve calls that copy and check every slice, as many at once as asked for; and
 * scores alone.
 *
 * Thread: the main one; each question is asked by a thread of its own, over a channel of its own. */
#ifndef REELKV_BENCH_KV_READ_H
#define REELKV_BENCH_KV_READ_H

#include "kv_server.h"

struct kv_reading {
    struct kv_server *server;
    const struct kv_geometry *geometry;
    const char *stream;
    uint32_t tokens, top; /* of a block; blocks a layer */
    uint32_t questions;   /* at once */
    uint32_t pause_us; /* between a layer's last slice and the next layer's query: what the caller computes */
    uint32_t alike;    /* of 100, how much of a layer's query is the same in all layers */
    uint64_t seed;     /* of the queries */
    bool is_inline;
    /* found */
    double bytes, seconds, own_cpu_s, store_cpu_s;
};
void kv_read(struct kv_reading *reading);

/* Seconds of a processor for all layers: those of the threads that score, and the store's, its calls included. */
struct kv_scored {
    double scoring_s, all_s;
};

/* Scores every layer of the first `frames` frames, one call after the other. */
struct kv_scored kv_score_all(struct kv_server *server, const struct kv_geometry *geometry,
                              const char *stream, uint64_t frames);

#endif
