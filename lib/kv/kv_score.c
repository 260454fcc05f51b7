/* The portable scorer, the choice between variants, and queries from the wire. */
#include "kv/kv_score.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "base/number.h"
#include "kv/kv_score_simd.h"

float kv_score_key_at(const void *key, enum kv_dtype dtype, uint32_t index)
{
    const uint8_t *bytes = key;

    if (dtype == KV_DTYPE_F32)
        return number_f32_of_bits(get_u32(bytes + 4 * (size_t)index));
    if (dtype == KV_DTYPE_F16)
        return number_f32_of_f16(get_u16(bytes + 2 * (size_t)index));
    return number_f32_of_bf16(get_u16(bytes + 2 * (size_t)index));
}

float kv_score_finish(float sums[KV_SCORE_LANES], const struct kv_score_rest *rest)
{
    for (uint32_t i = rest->from; i < rest->dims; i++)
        sums[i % KV_SCORE_LANES] += rest->query[i] * kv_score_key_at(rest->key, rest->dtype, i);
    for (uint32_t half = KV_SCORE_LANES / 2; half > 0; half /= 2)
        for (uint32_t i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return isnan(sums[0]) ? -INFINITY : sums[0];
}

static void score_portable(const float *query, const struct kv_score_keys *keys, enum kv_dtype dtype,
                           float *scores)
{
    for (uint32_t i = 0; i < keys->count; i++) {
        float sums[KV_SCORE_LANES] = { 0 };
        struct kv_score_rest rest = {
            .query = query, .key = keys->at[i], .dtype = dtype, .dims = keys->dims
        };

        scores[i] = kv_score_finish(sums, &rest);
    }
}

static void score_f32(const float *query, const struct kv_score_keys *keys, float *scores)
{
    score_portable(query, keys, KV_DTYPE_F32, scores);
}

static void score_f16(const float *query, const struct kv_score_keys *keys, float *scores)
{
    score_portable(query, keys, KV_DTYPE_F16, scores);
}

static void score_bf16(const float *query, const struct kv_score_keys *keys, float *scores)
{
    score_portable(query, keys, KV_DTYPE_BF16, scores);
}

static const struct kv_score_ops portable_ops = { .name = "portable",
                                                  .of_dtype = { NULL, score_f32, score_f16, score_bf16 } };

static const struct kv_score_ops *present[4]; /* portable first, NULL after the last */
static size_t present_count;
static pthread_once_t present_once = PTHREAD_ONCE_INIT;

static void find_present(void)
{
    present[present_count++] = &portable_ops;
    if (kv_score_avx2() != NULL)
        present[present_count++] = kv_score_avx2();
    if (kv_score_avx512() != NULL)
        present[present_count++] = kv_score_avx512();
}

const struct kv_score_ops *kv_score_ops(void)
{
    pthread_once(&present_once, find_present);
    return present[present_count - 1];
}

const struct kv_score_ops *kv_score_ops_at(size_t index)
{
    pthread_once(&present_once, find_present);
    return index < present_count ? present[index] : NULL;
}

bool kv_query_read(const struct kv_geometry *geometry, const void *bytes, size_t len, float *query,
                   struct status *st)
{
    uint32_t dims = kv_key_dims(geometry);

    if (len != (size_t)dims * sizeof *query)
        return status_fail(st, STATUS_INVALID, "query has %zu bytes; this model's is %u x %u f32, %zu bytes",
                           len, geometry->kv_heads, geometry->head_dim, (size_t)dims * sizeof *query);
    memcpy(query, bytes, len);
    for (uint32_t i = 0; i < dims; i++)
        if (!isfinite(query[i]))
            return status_fail(st, STATUS_INVALID, "query number %u is not finite", i);
    return true;
}
