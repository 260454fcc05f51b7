/* kv_score.h - exact scores of a query against columns of representative keys, and the best of them.
 *
 * ReKV's score of a block is the dot product of the mean question query with the block's mean un-rotated key,
 * summed over query heads. Query heads that share a KV head see the same key, so the caller sums them first
 * ("folding") and the store keeps one key a KV head: the same scores from a G-th of the bytes.
 *
 * The order of additions is fixed (64 partial sums: element i goes to i mod 64; then halves are added), so
 * every variant gives the same bits and lists of different machines merge exactly.
 *
 * Thread: any; nothing is shared. */
#ifndef REELKV_KV_KV_SCORE_H
#define REELKV_KV_KV_SCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/kv_geometry.h"

/* Keys in the order of scoring, each at any address. What is read next may stand anywhere: the scorer asks memory for ahead[i]
 * while it scores at[i], for a processor by itself looks no further than a page, and keys come from memory as fast as they
 * are scored. Several runs of keys beside each other (the first of each, then the second of each) are read faster than one
 * after the other. */
struct kv_score_keys {
    const void *const *at;    /* [count], each [dims] of a dtype */
    const void *const *ahead; /* [count]; addresses of anything, read or not; NULL: nothing comes next */
    uint32_t count, dims;
};

/* scores[i] = sum over j of query[j] * at[i][j], in f32. NaN (a broken key) reads as -infinity.
 * query f32 [dims]; scores f32 [count]. */
typedef void kv_score_fn(const float *query, const struct kv_score_keys *keys, float *scores);

struct kv_score_ops {
    const char *name;         /* "portable", "avx2", "avx512" */
    kv_score_fn *of_dtype[4]; /* by enum kv_dtype; [0] is NULL */
};

/* The fastest this processor has; chosen once. */
const struct kv_score_ops *kv_score_ops(void);

/* All variants this build has and this processor can run, portable first; NULL after the last. For tests. */
const struct kv_score_ops *kv_score_ops_at(size_t index);

/* A query as it comes over the wire: f32 little endian, kv_key_dims() of them, all finite. INVALID
 * otherwise. `query` is filled. */
bool kv_query_read(const struct kv_geometry *geometry, const void *bytes, size_t len, float *query,
                   struct status *st);

#endif
