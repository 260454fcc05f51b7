/* kv_score_simd.h - what the variants of the scorer share. Inside lib/kv only. */
#ifndef REELKV_KV_KV_SCORE_SIMD_H
#define REELKV_KV_KV_SCORE_SIMD_H

#include "kv/kv_score.h"

enum { KV_SCORE_LANES = 64 };

/* Element [from, dims) of a key that the vector part has not added; from is a multiple of KV_SCORE_LANES. */
struct kv_score_rest {
    const float *query;
    const void *key;
    enum kv_dtype dtype;
    uint32_t from, dims;
};

/* Adds the rest, then halves: the one order of additions of all variants. */
float kv_score_finish(float sums[KV_SCORE_LANES], const struct kv_score_rest *rest);
float kv_score_key_at(const void *key, enum kv_dtype dtype, uint32_t index);

/* NULL when this processor or this build has it not. */
const struct kv_score_ops *kv_score_avx2(void);
const struct kv_score_ops *kv_score_avx512(void);

#endif
