/* AVX-512 with VNNI: sixteen groups of four products are added at once. */
#include "kv/kv_sketch_simd.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

AVX512 static inline __m512i load(const void *at)
{
    return _mm512_loadu_si512(at);
}

AVX512 static inline __mmask64 load_bits(const uint8_t *at)
{
    return (__mmask64)get_u64(at);
}

struct sums {
    __m512i of[KV_SKETCH_SIDE]; /* sixteen each, that are to be added */
};

/* Of twice the upper four bits and the fifth. Each number is taken where it stands in its byte, so that the upper halves of
 * bytes give eight times theirs. */
AVX512 static inline struct sums key_sums(const struct kv_sketch_query *query,
                                          const struct kv_sketch_run *run, uint32_t key)
{
    const __m512i one = _mm512_set1_epi8(1), eight = _mm512_set1_epi8(8);
    const __m512i low = _mm512_set1_epi8(0x1e), high = _mm512_set1_epi8((char)0xf0);
    uint64_t upper = kv_sketch_upper_at(query->dims, key), fifth = kv_sketch_fifth_at(query->dims, key);
    struct sums once = { 0 }, times_eight = { 0 };

    for (uint32_t n = 0; n < query->dims; n += 128, upper += 64, fifth += 16) {
        __m512i q0 = load(query->short_codes + n), q1 = load(query->short_codes + n + 64);

#pragma GCC unroll 4
        for (unsigned i = 0; i < KV_SKETCH_SIDE; i++) {
            const uint8_t *at = run->at[i];
            __m512i bytes = load(at + upper);
            __m512i x = _mm512_and_si512(_mm512_add_epi8(bytes, bytes), low);
            __m512i y = _mm512_and_si512(bytes, high);

            kv_sketch_ask(run->ahead[i], upper);
            x = _mm512_mask_add_epi8(x, load_bits(at + fifth), x, one);
            y = _mm512_mask_add_epi8(y, load_bits(at + fifth + 8), y, eight);
            once.of[i] = _mm512_dpbusd_epi32(once.of[i], x, q0);
            times_eight.of[i] = _mm512_dpbusd_epi32(times_eight.of[i], y, q1);
        }
    }
    for (unsigned i = 0; i < KV_SKETCH_SIDE; i++)
        once.of[i] = _mm512_add_epi32(once.of[i], _mm512_srai_epi32(times_eight.of[i], 3));
    return once;
}

/* The totals of four times sixteen sums. */
AVX512 static inline __m128i totals(const struct sums *sums)
{
    const __m512i *of = sums->of;
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(of[0], of[1]), _mm512_unpackhi_epi32(of[0], of[1]));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(of[2], of[3]), _mm512_unpackhi_epi32(of[2], of[3]));
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

/* Always of four: where there are fewer, the first one again. */
AVX512 static void dots_avx512(const struct kv_sketch_query *query, const struct kv_sketch_run *run,
                               struct kv_sketch_dots *dots)
{
    struct kv_sketch_run four = *run;

    for (uint32_t i = run->count; i < KV_SKETCH_SIDE; i++) {
        four.at[i] = run->at[0];
        four.ahead[i] = run->ahead[0];
    }
    kv_sketch_ask_centres(run, query->dims);
    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++) {
        struct sums sums = key_sums(query, &four, key);
        int32_t found[KV_SKETCH_SIDE];

        kv_sketch_ask_behind(run, query->dims, key);
        _mm_storeu_si128((__m128i *)found, totals(&sums));
        for (uint32_t i = 0; i < KV_SKETCH_SIDE; i++)
            dots[i].keys[key] = found[i];
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

AVX512 static float refine_avx512(const struct kv_sketch_query *query, const void *sketch, uint32_t key,
                                  float bound)
{
    const uint8_t *sixth = (const uint8_t *)sketch + kv_sketch_sixth_at(query->dims, key);
    __m512i sum = _mm512_setzero_si512();

    for (uint32_t at = 0; at < query->dims; at += 64)
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1),
                                  _mm512_maskz_mov_epi8(load_bits(sixth + at / 8),
                                                        load(query->short_codes + at)));
    return kv_sketch_refine_bound(query, sketch, key, bound, _mm512_reduce_add_epi32(sum));
}

const struct kv_sketch_ops *kv_sketch_ops_avx512(void)
{
    static const struct kv_sketch_ops ops = { bounds_avx512, refine_avx512 };

    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vnni")
               ? &ops
               : NULL;
}
#else
const struct kv_sketch_ops *kv_sketch_ops_avx512(void)
{
    return NULL;
}
#endif
