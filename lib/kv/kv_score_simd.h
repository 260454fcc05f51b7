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

/* Asks memory for the numbers of `ahead` that stand where [at, at + KV_SCORE_LANES) do in a key. Into the second level: the
 * first one's few places for what is on its way stay free for what is being read. */
static inline void kv_score_ask(const void *ahead, enum kv_dtype dtype, uint32_t at)
{
    enum { LINE_BYTES = 64 };
    const char *line = (const char *)ahead + (size_t)at * kv_dtype_bytes(dtype);

    for (uint32_t i = 0; i < KV_SCORE_LANES * kv_dtype_bytes(dtype); i += LINE_BYTES)
        __builtin_prefetch(line + i, 0, 2);
}

/* What comes after the i-th key: itself, where nothing does. */
static inline const void *kv_score_next(const struct kv_score_keys *keys, uint32_t i)
{
    return keys->ahead == NULL ? keys->at[i] : keys->ahead[i];
}

/* NULL when this processor or this build has it not. */
const struct kv_score_ops *kv_score_avx2(void);
const struct kv_score_ops *kv_score_avx512(void);

#endif
