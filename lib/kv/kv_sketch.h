/* kv_sketch.h - representative keys in six bits a number, and from them bounds that no key's score is above.
 *
 * A pass over all keys takes as long as memory gives them. A sketch has two fifths of their bytes and says of most keys that
 * they cannot be among the best; the others' exact scores (kv_score.h) decide, so that what is chosen is the same, bit for bit.
 *
 * A sketch is of 16 keys of a layer. Of them it has the centre, and of each key what is left of it then:
 *
 *   key = centre + scale * (code - 31.5) + rest         code: 6 bits a number; of the rest, its length is known
 *
 *   query . key <= short . (centre + scale * (code - 31.5)) + |query| |rest| + |query - short| |key - rest| + rounding
 *
 * by Cauchy and Schwarz, `short` being the query in 8 bits (in 15 for the centre, which keys of one camera share, and which is
 * large beside what tells them apart). Products of codes are whole numbers: every variant gives the same bounds.
 *
 * A pass over sketches reads the upper five bits, code being 2 * five + 0.5 and the rest longer. The sixth is read of the keys
 * that such a bound does not rule out, and rules out most of them.
 *
 * The bytes of a sketch are this processor's own: they are never stored or sent.
 *
 * Thread: any; nothing is shared.
 * Bounds: kv_sketch_bytes(). */
#ifndef REELKV_KV_KV_SKETCH_H
#define REELKV_KV_KV_SKETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/kv_geometry.h"

enum { KV_SKETCH_KEYS = 16, KV_SKETCH_SIDE = 4 };

/* Of one layer, a multiple of 64. 0: such keys have no sketch, for it would have more than half their bytes. */
uint64_t kv_sketch_bytes(const struct kv_geometry *geometry);

/* Of 1 to KV_SKETCH_KEYS keys one behind the other, of one layer; bounds behind `count` say nothing. `sketch` at a multiple of
 * 64. False: there is none, because a number is not finite or too large to be added up, or because there is no memory. */
bool kv_sketch_make(const struct kv_geometry *geometry, const void *keys, uint32_t count, void *sketch);

/* A query as sketches need it. NULL: it is too large, or there is no memory. */
struct kv_sketch_query;
struct kv_sketch_query *kv_sketch_query_create(const float *query, uint32_t dims);
void kv_sketch_query_destroy(struct kv_sketch_query *query); /* NULL is fine */

/* Sketches that are read beside each other, and what will be read after each: any address. */
struct kv_sketch_run {
    const void *at[KV_SKETCH_SIDE], *ahead[KV_SKETCH_SIDE];
    float *bounds[KV_SKETCH_SIDE]; /* [KV_SKETCH_KEYS], to be filled */
    uint32_t count;                /* 1 to KV_SKETCH_SIDE */
};

/* bounds[i][j]: what kv_score.h gives for the j-th key of the i-th sketch is not above it. */
typedef void kv_sketch_bounds_fn(const struct kv_sketch_query *query, const struct kv_sketch_run *run);

/* A nearer bound of one key, whose `bound` is known. */
typedef float kv_sketch_refine_fn(const struct kv_sketch_query *query, const void *sketch, uint32_t key,
                                  float bound);

struct kv_sketch_ops {
    kv_sketch_bounds_fn *bounds;
    kv_sketch_refine_fn *refine;
};

/* The fastest variant that this processor can run; never NULL. */
const struct kv_sketch_ops *kv_sketch_ops(void);

/* All that it can run, portable first; NULL after the last. For tests. */
const struct kv_sketch_ops *kv_sketch_ops_at(size_t index);

/* Asks memory for what refining the key's bound will read. */
void kv_sketch_ask_refined(const struct kv_sketch_query *query, const void *sketch, uint32_t key);

#endif
