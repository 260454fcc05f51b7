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
    if (kv_sketch_bounds_avx2() != NULL && kv_cpu_has_f16c())
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
    /* A score is dims / 64 additions in a row, and 6 of halves; what is computed below takes no more than 16. */
    made->rounding = ((float)dims / KV_SCORE_LANES + 32) * FLT_EPSILON * made->length;
    make_short(made, query, dims, codes);
    free(codes);
    return made;
}

void kv_sketch_query_destroy(struct kv_sketch_query *query)
{
    free(query);
}

/* --- bounds --- */

static int32_t key_dot(const struct kv_sketch_query *query, const void *sketch, uint32_t key)
{
    const uint8_t *upper = kv_sketch_upper(sketch, query->dims, key);
    const uint8_t *lower = kv_sketch_lower(sketch, query->dims, key);
    int32_t sum = 0;

    for (uint32_t block = 0; block < query->dims; block += KV_SKETCH_BLOCK, upper += 128, lower += 64)
        for (uint32_t i = 0; i < 64; i++) {
            const int8_t *codes = query->short_codes + block + i;

            sum += codes[0] * ((upper[i] & 15) << 2 | (lower[i] & 3));
            sum += codes[64] * ((upper[i] >> 4) << 2 | (lower[i] >> 2 & 3));
            sum += codes[128] * ((upper[64 + i] & 15) << 2 | (lower[i] >> 4 & 3));
            sum += codes[192] * ((upper[64 + i] >> 4) << 2 | lower[i] >> 6);
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

static kv_sketch_bounds_fn *present[4]; /* portable first, NULL after the last */
static size_t present_count;
static pthread_once_t present_once = PTHREAD_ONCE_INIT;

static void find_present(void)
{
    present[present_count++] = bounds_portable;
    if (kv_sketch_bounds_avx2() != NULL)
        present[present_count++] = kv_sketch_bounds_avx2();
    if (kv_sketch_bounds_avx512() != NULL)
        present[present_count++] = kv_sketch_bounds_avx512();
}

kv_sketch_bounds_fn *kv_sketch_bounds_at(size_t index)
{
    pthread_once(&present_once, find_present);
    return index < present_count ? present[index] : NULL;
}

void kv_sketch_bounds(const struct kv_sketch_query *query, const struct kv_sketch_run *run)
{
    pthread_once(&present_once, find_present);
    present[present_count - 1](query, run);
}
