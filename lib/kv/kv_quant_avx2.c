/* AVX2 with F16C. */
#include "kv/kv_quant_simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "kv/kv_cpu.h"

#define AVX2 __attribute__((target("avx2,f16c")))

AVX2 static inline __m256 numbers_of(const uint8_t *codes, __m256 scale)
{
    __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)codes));

    return _mm256_mul_ps(_mm256_cvtepi32_ps(wide), scale);
}

/* Half a step is added to what is cut off, a bit less where the step before is even. */
AVX2 static inline __m128i bf16_of(__m256 numbers)
{
    __m256i bits = _mm256_castps_si256(numbers);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i upper = _mm256_srli_epi32(rounded, 16);

    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}

AVX2 static void decode(enum kv_dtype dtype, const uint8_t *codes, float scale, uint32_t count, uint8_t *to)
{
    __m256 scales = _mm256_set1_ps(scale);

    for (uint32_t i = 0; i < count; i += KV_QUANT_LANES) {
        __m256 numbers = numbers_of(codes + i, scales);
        __m128i halves = dtype == KV_DTYPE_F16
                             ? _mm256_cvtps_ph(numbers, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
                             : bf16_of(numbers);

        _mm_storeu_si128((__m128i *)(void *)(to + 2 * (uint64_t)i), halves);
    }
}

bool kv_quant_decode_avx2(enum kv_dtype dtype, const uint8_t *codes, float scale, uint32_t count, uint8_t *to)
{
    if (!__builtin_cpu_supports("avx2") || !kv_cpu_has_f16c())
        return false;
    decode(dtype, codes, scale, count, to);
    return true;
}

#else

bool kv_quant_decode_avx2(enum kv_dtype dtype, const uint8_t *codes, float scale, uint32_t count, uint8_t *to)
{
    return false;
}

#endif
