/* AVX2 with F16C. Multiplies and adds apart, never fused: the bits are those of the portable scorer. */
#include "kv/kv_score_simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kv/kv_cpu.h"

#define AVX2 __attribute__((target("avx2,f16c")))

AVX2 static inline __m256 load_f32(const void *key, uint32_t index)
{
    return _mm256_loadu_ps((const float *)key + index);
}

AVX2 static inline __m256 load_f16(const void *key, uint32_t index)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)key + index)));
}

AVX2 static inline __m256 load_bf16(const void *key, uint32_t index)
{
    __m128i brain = _mm_loadu_si128((const __m128i *)((const uint16_t *)key + index));

    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(brain), 16));
}

/* Eight vectors of eight hold the 64 sums. */
#define SCORE_AVX2(suffix, kind)                                                                           \
    AVX2 static void score_##suffix(const float *query, const struct kv_score_keys *keys, float *scores)   \
    {                                                                                                      \
        for (uint32_t i = 0; i < keys->count; i++) {                                                       \
            const void *key = keys->at[i], *ahead = kv_score_next(keys, i);                                \
            struct kv_score_rest rest = { .query = query, .key = key, .dtype = kind, .dims = keys->dims }; \
            float sums[KV_SCORE_LANES];                                                                    \
            __m256 sum[8];                                                                                 \
                                                                                                           \
            for (uint32_t lane = 0; lane < 8; lane++)                                                      \
                sum[lane] = _mm256_setzero_ps();                                                           \
            for (; rest.from + KV_SCORE_LANES <= keys->dims; rest.from += KV_SCORE_LANES) {                \
                kv_score_ask(ahead, kind, rest.from);                                                      \
                for (uint32_t lane = 0; lane < 8; lane++) {                                                \
                    uint32_t at = rest.from + 8 * lane;                                                    \
                                                                                                           \
                    sum[lane] = _mm256_add_ps(sum[lane], _mm256_mul_ps(_mm256_loadu_ps(query + at),        \
                                                                       load_##suffix(key, at)));           \
                }                                                                                          \
            }                                                                                              \
            for (uint32_t lane = 0; lane < 8; lane++)                                                      \
                _mm256_storeu_ps(sums + 8 * lane, sum[lane]);                                              \
            scores[i] = kv_score_finish(sums, &rest);                                                      \
        }                                                                                                  \
    }

SCORE_AVX2(f32, KV_DTYPE_F32)
SCORE_AVX2(f16, KV_DTYPE_F16)
SCORE_AVX2(bf16, KV_DTYPE_BF16)

static const struct kv_score_ops avx2_ops = { .name = "avx2",
                                              .of_dtype = { NULL, score_f32, score_f16, score_bf16 } };

const struct kv_score_ops *kv_score_avx2(void)
{
    return __builtin_cpu_supports("avx2") && kv_cpu_has_f16c() ? &avx2_ops : NULL;
}
#else
const struct kv_score_ops *kv_score_avx2(void)
{
    return NULL;
}
#endif
