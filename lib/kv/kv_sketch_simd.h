/* kv_sketch_simd.h - what the variants of kv_sketch_ops share. Inside lib/kv only.
 *
 * Numbers stand in blocks of 256, the last filled up with zeros. Of a block a key has 128 bytes with the upper four bits of
 * its codes (byte i of the first half: numbers i and 64 + i; of the second: 128 + i and 192 + i), 32 with the fifth ones (byte i:
 * numbers 8 * i to 8 * i + 7, from the lowest bit on), and elsewhere 32 with the sixth ones.
 *
 *   upper [key][dims / 2] | fifth [key][dims / 8] | struct kv_sketch_measures | centre u8 [dims] | sixth [key][dims / 8]
 *
 * The centre is read only where there is one, the sixth bits where a bound is refined. */
#ifndef REELKV_KV_KV_SKETCH_SIMD_H
#define REELKV_KV_KV_SKETCH_SIMD_H

#include <float.h>
#include <string.h>

#include "base/bytes.h"
#include "base/number.h"
#include "kv/kv_sketch.h"

enum { KV_SKETCH_BLOCK = 256, KV_SKETCH_LINE = 64, KV_SKETCH_CODE_MAX = 63, KV_SKETCH_CENTRE_ZERO = 64 };

/* More than what rounding takes from a length. */
static const float kv_sketch_generous = 1.0001f;

/* Numbers up to this can be squared and added, and multiplied with a query's; from the other on a scale has an inverse. */
static const float kv_sketch_largest_max = 1e16f, kv_sketch_largest_min = 1e-30f;

/* Without its sign; as whole numbers these are in the same order, infinity and what is no number above all others. */
static inline float kv_sketch_largest(const float *numbers, uint32_t count)
{
    int32_t largest = 0;

    for (uint32_t i = 0; i < count; i++) {
        int32_t bits = (int32_t)(number_bits_of_f32(numbers[i]) & 0x7fffffff);

        largest = bits > largest ? bits : largest;
    }
    return number_f32_of_bits((uint32_t)largest);
}

static inline float kv_sketch_scale(float largest, float codes)
{
    return largest > kv_sketch_largest_min ? largest / codes : 0;
}

static inline uint32_t kv_sketch_fill_up(uint32_t dims)
{
    return (uint32_t)round_up(dims, KV_SKETCH_BLOCK);
}

/* Of a key in bf16, rounded up; what is saved, down. */
struct kv_sketch_measures {
    uint16_t scale[KV_SKETCH_KEYS];
    uint16_t saved[KV_SKETCH_KEYS]; /* of the rest's length by the sixth bits */
    uint16_t rest[KV_SKETCH_KEYS];  /* its length, or a little more; likewise below */
    float length;                   /* of the longest key's scale * (code - 31.5), by five bits and by six */
    float centre_scale, centre_length;
    float unused[5];
};

static inline uint16_t kv_sketch_bf16_down(float number)
{
    return (uint16_t)(number_bits_of_f32(number) >> 16);
}

static inline uint16_t kv_sketch_bf16_up(float number)
{
    return (uint16_t)((number_bits_of_f32(number) + 0xffff) >> 16);
}

/* A query: number = short_scale * short_codes, or long_scale * (128 * high + low), and that far away. */
struct kv_sketch_query {
    uint32_t dims; /* filled up */
    float length;
    float short_scale, short_lost;
    float long_scale, long_lost;
    float rounding; /* of a score, for each unit of the key's length */
    int32_t short_sum;
    int64_t long_sum;
    int8_t *short_codes, *high, *low; /* [dims] */
};

/* --- where things stand in a sketch --- */

static inline uint64_t kv_sketch_upper_at(uint32_t dims, uint32_t key)
{
    return (uint64_t)key * (dims / 2);
}

static inline uint64_t kv_sketch_fifth_at(uint32_t dims, uint32_t key)
{
    return kv_sketch_upper_at(dims, KV_SKETCH_KEYS) + (uint64_t)key * (dims / 8);
}

static inline uint64_t kv_sketch_measures_at(uint32_t dims)
{
    return kv_sketch_fifth_at(dims, KV_SKETCH_KEYS);
}

static inline uint64_t kv_sketch_centre_at(uint32_t dims)
{
    return kv_sketch_measures_at(dims) + sizeof(struct kv_sketch_measures);
}

static inline uint64_t kv_sketch_sixth_at(uint32_t dims, uint32_t key)
{
    return kv_sketch_centre_at(dims) + dims + (uint64_t)key * (dims / 8);
}

static inline uint64_t kv_sketch_dims_bytes(uint32_t dims)
{
    return kv_sketch_sixth_at(dims, KV_SKETCH_KEYS);
}

static inline struct kv_sketch_measures *kv_sketch_measures_of(const void *sketch, uint32_t dims)
{
    return (struct kv_sketch_measures *)(uintptr_t)((const uint8_t *)sketch + kv_sketch_measures_at(dims));
}

/* --- reading ahead --- */

static inline void kv_sketch_ask_range(const void *from, uint64_t first, uint64_t end)
{
    for (uint64_t at = first / KV_SKETCH_LINE * KV_SKETCH_LINE; at < end; at += KV_SKETCH_LINE)
        __builtin_prefetch((const char *)from + at, 0, 2);
}

/* Memory gives most to one that asks evenly: for a line of what will be read next whenever one is read, and for what stands
 * behind the upper bits a key at a time. */
static inline void kv_sketch_ask(const void *ahead, uint64_t at)
{
    __builtin_prefetch((const char *)ahead + at, 0, 2);
}

static inline void kv_sketch_ask_behind(const struct kv_sketch_run *run, uint32_t dims, uint32_t key)
{
    uint64_t first = kv_sketch_fifth_at(dims, 0), bytes = kv_sketch_centre_at(dims) - first;

    for (uint32_t i = 0; i < run->count; i++)
        kv_sketch_ask_range(run->ahead[i], first + bytes * key / KV_SKETCH_KEYS,
                            first + bytes * (key + 1) / KV_SKETCH_KEYS);
}

/* The centre's codes, asked for while the keys are read; NULL: there is none. */
static inline const uint8_t *kv_sketch_centre(const void *sketch, uint32_t dims)
{
    if (!(kv_sketch_measures_of(sketch, dims)->centre_scale > 0))
        return NULL;
    return (const uint8_t *)sketch + kv_sketch_centre_at(dims);
}

static inline void kv_sketch_ask_centres(const struct kv_sketch_run *run, uint32_t dims)
{
    for (uint32_t i = 0; i < run->count; i++)
        if (kv_sketch_centre(run->at[i], dims) != NULL)
            kv_sketch_ask_range(run->at[i], kv_sketch_centre_at(dims), kv_sketch_sixth_at(dims, 0));
}

bool kv_sketch_make_portable(const struct kv_geometry *geometry, const void *keys, uint32_t count,
                             void *sketch);
bool kv_sketch_make_avx2(const struct kv_geometry *geometry, const void *keys, uint32_t count, void *sketch);

/* The whole numbers that a bound is made of: five . short, and of the centre with both parts of the longer one. */
struct kv_sketch_dots {
    int32_t keys[KV_SKETCH_KEYS], centre_high, centre_low;
};

/* In one order, and never fused: every variant gives the same. */
static inline void kv_sketch_bound_keys(const struct kv_sketch_query *query, const void *sketch,
                                        const struct kv_sketch_dots *dots, float bounds[KV_SKETCH_KEYS])
{
    const struct kv_sketch_measures *measures = kv_sketch_measures_of(sketch, query->dims);
    int64_t centre_dot =
        128ll * dots->centre_high + dots->centre_low - KV_SKETCH_CENTRE_ZERO * query->long_sum;
    float common = query->long_scale * (measures->centre_scale * (float)centre_dot) +
                   (query->long_lost + query->rounding) * measures->centre_length +
                   (query->short_lost + query->rounding) * measures->length + FLT_MIN;
    float short_scale = query->short_scale, length = query->length + query->rounding;
    int32_t offset = KV_SKETCH_CODE_MAX / 2 * query->short_sum;
    float found[KV_SKETCH_KEYS];

    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
        found[key] =
            common +
            short_scale * (number_f32_of_bf16(measures->scale[key]) * (float)(2 * dots->keys[key] - offset)) +
            length * number_f32_of_bf16(measures->rest[key]);
    memcpy(bounds, found, sizeof found);
}

static inline void kv_sketch_bound(const struct kv_sketch_query *query, const struct kv_sketch_run *run,
                                   const struct kv_sketch_dots *dots)
{
    for (uint32_t i = 0; i < run->count; i++)
        kv_sketch_bound_keys(query, run->at[i], &dots[i], run->bounds[i]);
}

/* From sixth . short. */
static inline float kv_sketch_refine_bound(const struct kv_sketch_query *query, const void *sketch,
                                           uint32_t key, float bound, int32_t dot)
{
    const struct kv_sketch_measures *measures = kv_sketch_measures_of(sketch, query->dims);

    return bound +
           query->short_scale *
               (number_f32_of_bf16(measures->scale[key]) * 0.5f * (float)(2 * dot - query->short_sum)) -
           query->length * number_f32_of_bf16(measures->saved[key]);
}

/* NULL when this processor or this build has it not. */
const struct kv_sketch_ops *kv_sketch_ops_avx2(void);
const struct kv_sketch_ops *kv_sketch_ops_avx512(void);

#endif
