/* AVX-512 with VNNI: sixteen groups of four products are added at once. */
#include "kv/kv_sketch_simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

AVX512 static inline __m512i load(const void *at)
{
    return _mm512_loadu_si512(at);
}

/* Those of the codes' six bits that `mask` has, where they stand. */
AVX512 static inline __m512i add(__m512i sum, __m512i bytes, char mask, __m512i query)
{
    return _mm512_dpbusd_epi32(sum, _mm512_and_si512(bytes, _mm512_set1_epi8(mask)), query);
}

/* Sixteen sums that are to be added. Bits are multiplied where they stand in their bytes, and the sums moved. */
AVX512 static inline __m512i key_sums(const struct kv_sketch_query *query, const void *sketch, uint32_t key)
{
    const uint8_t *upper = kv_sketch_upper(sketch, query->dims, key);
    const uint8_t *lower = kv_sketch_lower(sketch, query->dims, key);
    __m512i u0 = _mm512_setzero_si512(), u4 = u0, l0 = u0, l2 = u0, l4 = u0, l6 = u0;

    for (uint32_t at = 0; at < query->dims; at += KV_SKETCH_BLOCK, upper += 128, lower += 64) {
        const int8_t *codes = query->short_codes + at;
        __m512i q0 = load(codes), q1 = load(codes + 64), q2 = load(codes + 128), q3 = load(codes + 192);
        __m512i x = load(upper), y = load(upper + 64), z = load(lower);

        u0 = add(u0, x, 0x0f, q0);
        u4 = add(u4, x, (char)0xf0, q1);
        l0 = add(l0, z, 0x03, q0);
        l2 = add(l2, z, 0x0c, q1);
        u0 = add(u0, y, 0x0f, q2);
        u4 = add(u4, y, (char)0xf0, q3);
        l4 = add(l4, z, 0x30, q2);
        l6 = add(l6, z, (char)0xc0, q3);
    }
    u0 = _mm512_slli_epi32(_mm512_add_epi32(u0, _mm512_srai_epi32(u4, 4)), 2);
    l0 = _mm512_add_epi32(l0, _mm512_srai_epi32(l2, 2));
    l4 = _mm512_add_epi32(_mm512_srai_epi32(l4, 4), _mm512_srai_epi32(l6, 6));
    return _mm512_add_epi32(u0, _mm512_add_epi32(l0, l4));
}

/* The totals of four times sixteen sums. */
AVX512 static inline __m128i totals(const __m512i sums[KV_SKETCH_SIDE])
{
    __m512i ab =
        _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]), _mm512_unpackhi_epi32(sums[0], sums[1]));
    __m512i cd =
        _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]), _mm512_unpackhi_epi32(sums[2], sums[3]));
    __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));

    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

AVX512 static inline int32_t centre_dot(const uint8_t *centre, const int8_t *part, uint32_t dims)
{
    __m512i sum = _mm512_setzero_si512();

    for (uint32_t at = 0; at < dims; at += 64)
        sum = _mm512_dpbusd_epi32(sum, load(centre + at), load(part + at));
    return _mm512_reduce_add_epi32(sum);
}

AVX512 static void dots_avx512(const struct kv_sketch_query *query, const struct kv_sketch_run *run,
                               struct kv_sketch_dots *dots)
{
    kv_sketch_ask_centres(run, query->dims);
    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++) {
        __m512i sums[KV_SKETCH_SIDE] = { 0 };
        int32_t four[KV_SKETCH_SIDE];

        for (uint32_t i = 0; i < run->count; i++) {
            kv_sketch_ask(run->ahead[i], query->dims, key);
            sums[i] = key_sums(query, run->at[i], key);
        }
        _mm_storeu_si128((__m128i *)four, totals(sums));
        for (uint32_t i = 0; i < run->count; i++)
            dots[i].keys[key] = four[i];
    }
    for (uint32_t i = 0; i < run->count; i++) {
        const uint8_t *centre = kv_sketch_centre(run->at[i], query->dims);

        dots[i].centre_high = centre == NULL ? 0 : centre_dot(centre, query->high, query->dims);
        dots[i].centre_low = centre == NULL ? 0 : centre_dot(centre, query->low, query->dims);
    }
}

AVX512 static void bounds_avx512(const struct kv_sketch_query *query, const struct kv_sketch_run *run)
{
    struct kv_sketch_dots dots[KV_SKETCH_SIDE];

    dots_avx512(query, run, dots);
    kv_sketch_bound(query, run, dots);
}

kv_sketch_bounds_fn *kv_sketch_bounds_avx512(void)
{
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vnni")
               ? bounds_avx512
               : NULL;
}
#else
kv_sketch_bounds_fn *kv_sketch_bounds_avx512(void)
{
    return NULL;
}
#endif
