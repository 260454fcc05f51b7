/* sketches.h - sketches (kv/kv_sketch.h) of the chunks that questions see, in what the index's memory has to spare.
 *
 *   wanted (a question sees a chunk without one that gets no more frames) -> made, on a computing thread -> there, for later questions
 *
 * They cost no frame: one is made only while an eighth of the index's limit stays free besides, and they are given back, the
 * oldest first, as soon as frames need the room. One that questions hold then goes with the last of them; others that begin
 * meanwhile do without it.
 *
 * Owner:  the store. A chunk's sketch stays while a question holds it.
 * Thread: loop; sketches are made, and read by questions, on computing threads.
 * Bounds: index_memory.limit_bytes, with the index itself; SKETCHES_WANTED chunks that wait for theirs. */
#ifndef REELKV_KVSTORE_SKETCHES_H
#define REELKV_KVSTORE_SKETCHES_H

#include "kvstore/index.h"
#include "loop/work_pool.h"

enum { SKETCHES_WANTED = 4096, SKETCHES_AT_ONCE = 8 };

struct sketch_making {
    struct index_chunk *chunk;
    uint32_t count; /* of its frames */
    uint8_t *sketch;
    struct large_region *region;
    bool ok;
};

struct sketches {
    struct index_chunk *wanted[SKETCHES_WANTED]; /* each held; a ring */
    uint32_t first, count;
    struct sketch_making making[SKETCHES_AT_ONCE]; /* the work's, while it runs */
    uint32_t making_count;
    bool is_running;
    uint64_t made; /* ever */
    struct work work;
};

struct store;

/* A question sees the chunk. True: no more are taken now. */
bool sketches_want(struct store *store, struct index_chunk *chunk);

/* The store closes: nothing is wanted any more. What is being made ends by itself (is_running). */
void sketches_stop(struct store *store);

/* The index has grown: back to its limit. */
void sketches_trim(struct index_memory *memory);

/* For a question, until it lets go of it. NULL: there is none, or it is about to be given back. */
const uint8_t *sketch_hold(struct index_chunk *chunk);
void sketch_let_go(struct index_chunk *chunk);

/* The chunk goes. */
void sketch_drop(struct index_chunk *chunk);

#endif
