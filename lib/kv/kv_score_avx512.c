/* AVX-512. Multiplies and adds apart, never fused: the bits are those of the portable scorer. */
#include "kv/kv_score_simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

AVX512 static inline __m512 load_f32(const void *key, uint32_t index)
{
    return _mm512_loadu_ps((const float *)key + index);
}

AVX512 static inline __m512 load_f16(const void *key, uint32_t index)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)key + index)));
}

AVX512 static inline __m512 load_bf16(const void *key, uint32_t index)
{
    __m256i brain = _mm256_loadu_si256((const __m256i *)((const uint16_t *)key + index));

    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(brain), 16));
}

/* Four vectors of sixteen hold the 64 sums. The halving of kv_score_finish() is done in registers when no
 * element is left over. */
AVX512 static inline float halve(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 sum16 = _mm512_add_ps(_mm512_add_ps(a, c), _mm512_add_ps(b, d));
    __m256 sum8 = _mm256_add_ps(_mm512_castps512_ps256(sum16),
                                _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(sum16), 1)));
    __m128 sum4 = _mm_add_ps(_mm256_castps256_ps128(sum8), _mm256_extractf128_ps(sum8, 1));
    __m128 sum2 = _mm_add_ps(sum4, _mm_movehl_ps(sum4, sum4));
    float sum = _mm_cvtss_f32(_mm_add_ss(sum2, _mm_movehdup_ps(sum2)));

    return __builtin_isnan(sum) ? -__builtin_inff() : sum;
}

/* Out of line, so that the compiler knows nothing of the array's alignment: with AddressSanitizer gcc 12
 * believes in 64 bytes where its fake stack gives 32 (GCC bug 110027). */
AVX512 __attribute__((noinline)) static void spill(float *sums, __m512 a, __m512 b, __m512 c, __m512 d)
{
    _mm512_storeu_ps(sums, a);
    _mm512_storeu_ps(sums + 16, b);
    _mm512_storeu_ps(sums + 32, c);
    _mm512_storeu_ps(sums + 48, d);
}

#define SCORE_AVX512(suffix, kind)                                                                         \
    AVX512 static inline __m512 add_##suffix(__m512 sum, const float *query, const void *key, uint32_t at) \
    {                                                                                                      \
        return _mm512_add_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(query + at), load_##suffix(key, at)));     \
    }                                                                                                      \
                                                                                                           \
    AVX512 static void score_##suffix(const float *query, const struct kv_score_keys *keys, float *scores) \
    {                                                                                                      \
        for (uint32_t i = 0; i < keys->count; i++) {                                                       \
            const void *key = keys->at[i], *ahead = kv_score_next(keys, i);                                \
            struct kv_score_rest rest = { .query = query, .key = key, .dtype = kind, .dims = keys->dims }; \
            __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;                                           \
            float sums[KV_SCORE_LANES];                                                                    \
                                                                                                           \
            for (; rest.from + KV_SCORE_LANES <= keys->dims; rest.from += KV_SCORE_LANES) {                \
                kv_score_ask(ahead, kind, rest.from);                                                      \
                a = add_##suffix(a, query, key, rest.from);                                                \
                b = add_##suffix(b, query, key, rest.from + 16);                                           \
                c = add_##suffix(c, query, key, rest.from + 32);                                           \
                d = add_##suffix(d, query, key, rest.from + 48);                                           \
            }                                                                                              \
            if (rest.from == keys->dims) {                                                                 \
                scores[i] = halve(a, b, c, d);                                                             \
                continue;                                                                                  \
            }                                                                                              \
            spill(sums, a, b, c, d);                                                                       \
            scores[i] = kv_score_finish(sums, &rest);                                                      \
        }                                                                                                  \
    }

SCORE_AVX512(f32, KV_DTYPE_F32)
SCORE_AVX512(f16, KV_DTYPE_F16)
SCORE_AVX512(bf16, KV_DTYPE_BF16)

static const struct kv_score_ops avx512_ops = { .name = "avx512",
                                                .of_dtype = { NULL, score_f32, score_f16, score_bf16 } };

const struct kv_score_ops *kv_score_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl")
               ? &avx512_ops
               : NULL;
}
#else
const struct kv_score_ops *kv_score_avx512(void)
{
    return NULL;
}
#endif
