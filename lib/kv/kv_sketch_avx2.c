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

AVX2 static inline __m256i field(__m256i bytes, int shift, int8_t mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), _mm256_set1_epi8(mask));
}

AVX2 static inline int32_t total(__m256i sum)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));

    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(half);
}

/* Half of a block: of each 64 numbers the 32 that begin at `query`. */
AVX2 static inline void add_half(__m256i sums[2], const uint8_t *upper, const uint8_t *lower,
                                 const int8_t *query)
{
    __m256i x = load(upper), y = load(upper + 64), z = load(lower);

    sums[0] = _mm256_add_epi32(sums[0], products(field(x, 0, 15), query));
    sums[0] = _mm256_add_epi32(sums[0], products(field(x, 4, 15), query + 64));
    sums[0] = _mm256_add_epi32(sums[0], products(field(y, 0, 15), query + 128));
    sums[0] = _mm256_add_epi32(sums[0], products(field(y, 4, 15), query + 192));
    sums[1] = _mm256_add_epi32(sums[1], products(field(z, 0, 3), query));
    sums[1] = _mm256_add_epi32(sums[1], products(field(z, 2, 3), query + 64));
    sums[1] = _mm256_add_epi32(sums[1], products(field(z, 4, 3), query + 128));
    sums[1] = _mm256_add_epi32(sums[1], products(field(z, 6, 3), query + 192));
}

AVX2 static inline int32_t key_dot(const struct kv_sketch_query *query, const void *sketch, uint32_t key)
{
    const uint8_t *upper = kv_sketch_upper(sketch, query->dims, key);
    const uint8_t *lower = kv_sketch_lower(sketch, query->dims, key);
    __m256i sums[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };

    for (uint32_t at = 0; at < query->dims; at += KV_SKETCH_BLOCK) {
        add_half(sums, upper + at / 2, lower + at / 4, query->short_codes + at);
        add_half(sums, upper + at / 2 + 32, lower + at / 4 + 32, query->short_codes + at + 32);
    }
    return total(_mm256_add_epi32(_mm256_slli_epi32(sums[0], 2), sums[1]));
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
    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
        for (uint32_t i = 0; i < run->count; i++) {
            kv_sketch_ask(run->ahead[i], query->dims, key);
            dots[i].keys[key] = key_dot(query, run->at[i], key);
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

kv_sketch_bounds_fn *kv_sketch_bounds_avx2(void)
{
    return __builtin_cpu_supports("avx2") ? bounds_avx2 : NULL;
}
#else
kv_sketch_bounds_fn *kv_sketch_bounds_avx2(void)
{
    return NULL;
}
#endif
