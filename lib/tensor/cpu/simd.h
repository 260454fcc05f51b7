/* simd.h - a vector of LANES floats in three widths, chosen by the flags of the file that includes it. Only
 * cpu/kernels_*.c include this (through the kernel_*.h bodies); everything here is static. */
#ifndef REELKV_TENSOR_CPU_SIMD_H
#define REELKV_TENSOR_CPU_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/number.h"

#if defined(__AVX512F__)
#include <immintrin.h>
enum { LANES = 16, TILE_ROWS = 14 }; /* 28 sums, 2 columns, 1 broadcast of 32 registers */
#elif defined(__AVX2__)
#include <immintrin.h>
enum { LANES = 8, TILE_ROWS = 6 }; /* 12 sums, 2 columns, 1 broadcast of 16 registers */
#else
enum { LANES = 4, TILE_ROWS = 6 };
#endif

#define INLINE   static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint16_t half_vec __attribute__((vector_size(2 * LANES)));

INLINE vec v_load(const float *from)
{
    vec value;

    memcpy(&value, from, sizeof value);
    return value;
}
INLINE void v_store(float *to, vec value)
{
    memcpy(to, &value, sizeof value);
}
INLINE vec v_all(float value)
{
    return value - (vec){ 0 };
}
INLINE vec v_select(ivec mask, vec yes, vec no)
{
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

#if defined(__AVX512F__)
INLINE vec v_fma(vec a, vec b, vec c)
{
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE vec v_max(vec a, vec b)
{
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
}
INLINE vec v_min(vec a, vec b)
{
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
}
INLINE vec v_round(vec a)
{
    return (vec)_mm512_roundscale_ps((__m512)a, 0);
}
#elif defined(__AVX2__)
INLINE vec v_fma(vec a, vec b, vec c)
{
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
INLINE vec v_max(vec a, vec b)
{
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
}
INLINE vec v_min(vec a, vec b)
{
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
}
INLINE vec v_round(vec a)
{
    return (vec)_mm256_round_ps((__m256)a, 8);
}
#else
INLINE vec v_fma(vec a, vec b, vec c)
{
    return a * b + c;
}
INLINE vec v_max(vec a, vec b)
{
    return v_select(a > b, a, b);
}
INLINE vec v_min(vec a, vec b)
{
    return v_select(a < b, a, b);
}
/* For |a| < 2^22: the sum has no room for a fraction. */
INLINE vec v_round(vec a)
{
    return (a + 0x1.8p23f) - 0x1.8p23f;
}
#endif

/* Sum and largest of all lanes, in one fixed order. */
INLINE float v_sum(vec value)
{
    float lanes[LANES];

    v_store(lanes, value);
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++)
            lanes[i] += lanes[i + step];
    return lanes[0];
}

/* LANES 16-bit numbers to 32 bits, zeros above. (GCC 12 makes four moves of a __builtin_convertvector.) */
INLINE ivec v_widen(const uint16_t *from)
{
#if defined(__AVX512F__)
    return (ivec)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__AVX2__)
    return (ivec)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
#else
    half_vec half;

    memcpy(&half, from, sizeof half);
    return __builtin_convertvector(half, ivec);
#endif
}

INLINE vec v_of_bf16(const uint16_t *from)
{
    return (vec)(v_widen(from) << 16);
}

INLINE vec v_of_f16(const uint16_t *from)
{
#if defined(__AVX512F__)
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__AVX2__)
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
    float lanes[LANES];

    for (int i = 0; i < LANES; i++)
        lanes[i] = number_f32_of_f16(from[i]);
    return v_load(lanes);
#endif
}

#if defined(__AVX512BF16__)
INLINE void v_to_bf16(uint16_t *to, vec value)
{
    __m256bh half = _mm512_cvtneps_pbh((__m512)value);

    memcpy(to, &half, sizeof half);
}
/* sums[i] += a[2i] * b[2i] + a[2i + 1] * b[2i + 1], the vectors read as pairs of bf16 */
INLINE vec v_dot_bf16(vec a, vec b, vec sums)
{
    return (vec)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
}
#else
INLINE void v_to_bf16(uint16_t *to, vec value)
{
    ivec bits = (ivec)value, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    ivec is_nan = (bits & 0x7fffffff) > 0x7f800000;
    half_vec half = __builtin_convertvector((is_nan & (bits >> 16 | 0x40)) | (~is_nan & rounded), half_vec);

    memcpy(to, &half, sizeof half);
}
#endif

/* Lane i of what is stored holds the pair (even[i], odd[i]) rounded to bf16. */
INLINE void v_store_pairs(float *to, vec even, vec odd)
{
#if defined(__AVX512BF16__)
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512bh both = _mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);

    v_store(to, (vec)_mm512_permutexvar_epi16(order, (__m512i)both));
#else
    uint16_t low[LANES], high[LANES], *pairs = (uint16_t *)to;

    v_to_bf16(low, even);
    v_to_bf16(high, odd);
    for (int i = 0; i < LANES; i++) {
        pairs[2 * i] = low[i];
        pairs[2 * i + 1] = high[i];
    }
#endif
}

/* Lane i holds the 16-bit numbers (even[i], odd[i]). */
INLINE vec v_pairs_of(const uint16_t *even, const uint16_t *odd)
{
    return (vec)(v_widen(even) | v_widen(odd) << 16);
}

/* 2^x for x <= 127; exactly 1 at 0, exactly 0 at -inf, 0 or next to it from -127 down. x = n + r with |r| <= 1/2;
 * 2^r by its Taylor series to the 6th power (relative error below 2e-7), or to the 4th (5e-5) for what is
 * rounded to bf16 anyway. */
INLINE vec v_exp2_to(vec x, const int power)
{
    vec n, r, p = v_all(9.6181291e-3f);

    x = v_max(x, v_all(-200.0f));
    n = v_round(x);
    r = x - n;
    if (power == 6) {
        p = v_fma(v_all(1.5403530e-4f), r, v_all(1.3333558e-3f));
        p = v_fma(p, r, v_all(9.6181291e-3f));
    }
    p = v_fma(p, r, v_all(5.5504109e-2f));
    p = v_fma(p, r, v_all(2.4022651e-1f));
    p = v_fma(p, r, v_all(6.9314718e-1f));
    p = v_fma(p, r, v_all(1.0f));
#if defined(__AVX512F__)
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * (vec)((__builtin_convertvector(v_max(n, v_all(-127.0f)), ivec) + 127) << 23);
#endif
}

INLINE vec v_exp2(vec x)
{
    return v_exp2_to(x, 6);
}

/* 1 / (1 + e^-x) */
INLINE vec v_sigmoid(vec x)
{
    return 1.0f / (1.0f + v_exp2(v_min(x * -1.44269504f, v_all(126.0f))));
}

#endif
