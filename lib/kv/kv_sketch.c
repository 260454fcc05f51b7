/* Making sketches, and the queries for them; the portable dots, the choice between variants, and the bounds. */
#include "kv/kv_sketch.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "kv/kv_cpu.h"
#include "kv/kv_score_simd.h"
#include "kv/kv_sketch_simd.h"

static const double length_max = 1e18; /* times that of a key it can be added up */

enum { SHORT_MAX = 127, LONG_MAX_CODE = 127 * 128 };

uint64_t kv_sketch_bytes(const struct kv_geometry *geometry)
{
    uint64_t bytes = kv_sketch_dims_bytes(kv_sketch_fill_up(kv_key_dims(geometry)));

    return 2 * bytes <= (uint64_t)KV_SKETCH_KEYS * kv_key_bytes(geometry) ? bytes : 0;
}

bool kv_sketch_make(const struct kv_geometry *geometry, const void *keys, uint32_t count, void *sketch)
{
    if (kv_sketch_ops_avx2() != NULL && kv_cpu_has_f16c())
        return kv_sketch_make_avx2(geometry, keys, count, sketch);
    return kv_sketch_make_portable(geometry, keys, count, sketch);
}

/* --- queries --- */

/* Too short by less than the least number that multiplies exactly, which it gets on top. */
static float length_of(double squares)
{
    return (float)sqrt(squares) * kv_sketch_generous + FLT_MIN;
}

/* How far the query is from its codes. */
static float lost_by(const float *query, uint32_t dims, float scale, int max, int16_t *codes)
{
    double lost = 0;

    for (uint32_t i = 0; i < dims; i++) {
        int code = scale > 0 ? (int)rintf(query[i] / scale) : 0;
        double off;

        code = code > max ? max : code < -max ? -max : code;
        off = (double)query[i] - (double)scale * code;
        lost += off * off;
        codes[i] = (int16_t)code;
    }
    return length_of(lost);
}

static void make_short(struct kv_sketch_query *made, const float *query, uint32_t dims, int16_t *codes)
{
    float largest = kv_sketch_largest(query, dims);

    made->short_scale = kv_sketch_scale(largest, SHORT_MAX);
    made->short_lost = lost_by(query, dims, made->short_scale, SHORT_MAX, codes);
    for (uint32_t i = 0; i < dims; i++) {
        made->short_codes[i] = (int8_t)codes[i];
        made->short_sum += codes[i];
    }
    made->long_scale = kv_sketch_scale(largest, LONG_MAX_CODE);
    made->long_lost = lost_by(query, dims, made->long_scale, LONG_MAX_CODE, codes);
    for (uint32_t i = 0; i < dims; i++) {
        int low = codes[i] & 127;

        made->high[i] = (int8_t)((codes[i] - low) / 128);
        made->low[i] = (int8_t)low;
        made->long_sum += codes[i];
    }
}

struct kv_sketch_query *kv_sketch_query_create(const float *query, uint32_t dims)
{
    uint32_t filled = kv_sketch_fill_up(dims);
    struct kv_sketch_query *made = calloc(1, sizeof *made + 3 * (size_t)filled);
    int16_t *codes = malloc(dims * sizeof *codes);
    double squares = 0;

    for (uint32_t i = 0; i < dims; i++)
        squares += (double)query[i] * (double)query[i];
    if (made == NULL || codes == NULL || !(sqrt(squares) < length_max)) {
        free(made);
        free(codes);
        return NULL;
    }
    made->dims = filled;
    made->length = length_of(squares);
    made->short_codes = (int8_t *)(made + 1);
    made->high = made->short_codes + filled;
    made->low = made->high + filled;
    /* A score is dims / 64 additions in a row, and 6 of halves; the rest is for what bounds are computed of. */
    made->rounding = ((float)dims / KV_SCORE_LANES + 40) * FLT_EPSILON * made->length;
    make_short(made, query, dims, codes);
    free(codes);
    return made;
}

void kv_sketch_query_destroy(struct kv_sketch_query *query)
{
    free(query);
}

/* --- bounds --- */

static int32_t bit_of(const uint8_t *bits, uint32_t at)
{
    return bits[at / 8] >> at % 8 & 1;
}

static int32_t key_dot(const struct kv_sketch_query *query, const void *sketch, uint32_t key)
{
    const uint8_t *upper = (const uint8_t *)sketch + kv_sketch_upper_at(query->dims, key);
    const uint8_t *fifth = (const uint8_t *)sketch + kv_sketch_fifth_at(query->dims, key);
    int32_t sum = 0;

    for (uint32_t at = 0; at < query->dims; at += 128, upper += 64)
        for (uint32_t i = 0; i < 64; i++) {
            const int8_t *codes = query->short_codes + at + i;

            sum += codes[0] * (2 * (upper[i] & 15) + bit_of(fifth, at + i));
            sum += codes[64] * (2 * (upper[i] >> 4) + bit_of(fifth, at + 64 + i));
        }
    return sum;
}

static void dots_portable(const struct kv_sketch_query *query, const struct kv_sketch_run *run,
                          struct kv_sketch_dots *dots)
{
    for (uint32_t i = 0; i < run->count; i++) {
        const uint8_t *centre = kv_sketch_centre(run->at[i], query->dims);

        for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
            dots[i].keys[key] = key_dot(query, run->at[i], key);
        dots[i].centre_high = dots[i].centre_low = 0;
        for (uint32_t n = 0; centre != NULL && n < query->dims; n++) {
            dots[i].centre_high += centre[n] * query->high[n];
            dots[i].centre_low += centre[n] * query->low[n];
        }
    }
}

static void bounds_portable(const struct kv_sketch_query *query, const struct kv_sketch_run *run)
{
    struct kv_sketch_dots dots[KV_SKETCH_SIDE];

    dots_portable(query, run, dots);
    kv_sketch_bound(query, run, dots);
}

static float refine_portable(const struct kv_sketch_query *query, const void *sketch, uint32_t key,
                             float bound)
{
    const uint8_t *sixth = (const uint8_t *)sketch + kv_sketch_sixth_at(query->dims, key);
    int32_t sum = 0;

    for (uint32_t i = 0; i < query->dims; i++)
        sum += query->short_codes[i] * bit_of(sixth, i);
    return kv_sketch_refine_bound(query, sketch, key, bound, sum);
}

void kv_sketch_ask_refined(const struct kv_sketch_query *query, const void *sketch, uint32_t key)
{
    uint32_t dims = query->dims;

    kv_sketch_ask_range(sketch, kv_sketch_sixth_at(dims, key), kv_sketch_sixth_at(dims, key + 1));
    __builtin_prefetch(kv_sketch_measures_of(sketch, dims), 0, 2);
}

static const struct kv_sketch_ops *present[4]; /* portable first, NULL after the last */
static size_t present_count;
static pthread_once_t present_once = PTHREAD_ONCE_INIT;

static void find_present(void)
{
    static const struct kv_sketch_ops portable = { bounds_portable, refine_portable };

    present[present_count++] = &portable;
    if (kv_sketch_ops_avx2() != NULL)
        present[present_count++] = kv_sketch_ops_avx2();
    if (kv_sketch_ops_avx512() != NULL)
        present[present_count++] = kv_sketch_ops_avx512();
}

const struct kv_sketch_ops *kv_sketch_ops_at(size_t index)
{
    pthread_once(&present_once, find_present);
    return index < present_count ? present[index] : NULL;
}

const struct kv_sketch_ops *kv_sketch_ops(void)
{
    pthread_once(&present_once, find_present);
    return present[present_count - 1];
}
