/* kv_write.h - writers of a benchmark: streams of blocks by shared memory or in chunks, as many at once as asked for.
 *
 * Thread: the main one; each stream is written by a thread of its own. */
#ifndef REELKV_BENCH_KV_WRITE_H
#define REELKV_BENCH_KV_WRITE_H

#include "kv_server.h"

struct kv_writing {
    struct kv_server *server;
    const struct kv_geometry *geometry;
    uint32_t tokens;  /* of a block */
    uint64_t frames;  /* of each stream */
    uint32_t streams; /* named PREFIX0, PREFIX1, ...; made here */
    const char *prefix;
    bool is_inline;
    /* found: payload bytes in all, seconds until all were in the store's memory, until all were on its disk, and of
     * processors here and in the store */
    double bytes, stored_s, durable_s, own_cpu_s, store_cpu_s;
};
void kv_write(struct kv_writing *writing);

/* A number of a key or query: the same for the same place, between -1 and 1. */
float kv_number(uint64_t seed, uint64_t at);

#endif
