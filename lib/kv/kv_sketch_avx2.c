/* AVX2. A pair of products fits 16 bits: codes and the centre have at most 7, a query's parts 7 and a sign. */
#include "kv/kv_sketch_simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i load(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

AVX2 static inline __m256i products(__m256i codes, const int8_t *query)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, load(query)), _mm256_set1_epi16(1));
}

/* Each of 32 bits as a byte. */
AVX2 static inline __m256i spread_bits(const uint8_t *at)
{
    const __m256i of_byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)get_u32(at)), of_byte);

    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(1));
}

AVX2 static inline int32_t total(__m256i sum)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));

    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(half);
}

/* 32 of the lower numbers of 128, and as many of the upper ones: twice the upper four bits and the fifth. */
AVX2 static inline __m256i products_of_byte(const uint8_t *upper, const uint8_t *fifth, const int8_t *query)
{
    const __m256i field = _mm256_set1_epi8(0x1e);
    __m256i bytes = load(upper);
    __m256i low = _mm256_and_si256(_mm256_add_epi8(bytes, bytes), field);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 3), field);

    return _mm256_add_epi32(products(_mm256_or_si256(low, spread_bits(fifth)), query),
                            products(_mm256_or_si256(high, spread_bits(fifth + 8)), query + 64));
}

AVX2 static inline int32_t key_dot(const struct kv_sketch_query *query, const struct kv_sketch_run *run,
                                   uint32_t i, uint32_t key)
{
    const uint8_t *upper = (const uint8_t *)run->at[i] + kv_sketch_upper_at(query->dims, key);
    const uint8_t *fifth = (const uint8_t *)run->at[i] + kv_sketch_fifth_at(query->dims, key);
    __m256i sum = _mm256_setzero_si256();

    for (uint32_t at = 0; at < query->dims; at += 128, upper += 64, fifth += 16) {
        const int8_t *codes = query->short_codes + at;

        kv_sketch_ask(run->ahead[i], kv_sketch_upper_at(query->dims, key) + at / 2);
        sum = _mm256_add_epi32(sum, products_of_byte(upper, fifth, codes));
        sum = _mm256_add_epi32(sum, products_of_byte(upper + 32, fifth + 4, codes + 32));
    }
    return total(sum);
}

AVX2 static inline int32_t centre_dot(const uint8_t *centre, const int8_t *part, uint32_t dims)
{
    __m256i sum = _mm256_setzero_si256();

    for (uint32_t at = 0; at < dims; at += 32)
        sum = _mm256_add_epi32(sum, products(load(centre + at), part + at));
    return total(sum);
}

AVX2 static void dots_avx2(const struct kv_sketch_query *query, const struct kv_sketch_run *run,
                           struct kv_sketch_dots *dots)
{
    kv_sketch_ask_centres(run, query->dims);
    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++) {
        kv_sketch_ask_behind(run, query->dims, key);
        for (uint32_t i = 0; i < run->count; i++)
            dots[i].keys[key] = key_dot(query, run, i, key);
    }
    for (uint32_t i = 0; i < run->count; i++) {
        const uint8_t *centre = kv_sketch_centre(run->at[i], query->dims);

        dots[i].centre_high = centre == NULL ? 0 : centre_dot(centre, query->high, query->dims);
        dots[i].centre_low = centre == NULL ? 0 : centre_dot(centre, query->low, query->dims);
    }
}

AVX2 static void bounds_avx2(const struct kv_sketch_query *query, const struct kv_sketch_run *run)
{
    struct kv_sketch_dots dots[KV_SKETCH_SIDE];

    dots_avx2(query, run, dots);
    kv_sketch_bound(query, run, dots);
}

AVX2 static float refine_avx2(const struct kv_sketch_query *query, const void *sketch, uint32_t key,
                              float bound)
{
    const uint8_t *sixth = (const uint8_t *)sketch + kv_sketch_sixth_at(query->dims, key);
    __m256i sum = _mm256_setzero_si256();

    for (uint32_t at = 0; at < query->dims; at += 32)
        sum = _mm256_add_epi32(sum, products(spread_bits(sixth + at / 8), query->short_codes + at));
    return kv_sketch_refine_bound(query, sketch, key, bound, total(sum));
}

const struct kv_sketch_ops *kv_sketch_ops_avx2(void)
{
    static const struct kv_sketch_ops ops = { bounds_avx2, refine_avx2 };

    return __builtin_cpu_supports("avx2") ? &ops : NULL;
}
#else
const struct kv_sketch_ops *kv_sketch_ops_avx2(void)
{
    return NULL;
}
#endif
