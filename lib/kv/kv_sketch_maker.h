/* kv_sketch_maker.h - how a sketch is made: plain loops that the compiler makes vectors of. Included by a source for each
 * width, which defines KV_SKETCH_MAKE, the name of the function. Inside lib/kv only. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/number.h"
#include "kv/kv_sketch_simd.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

enum { CENTRE_MAX = 63 };

struct maker {
    const struct kv_geometry *geometry;
    uint32_t dims, filled;
    uint8_t *sketch;
    struct kv_sketch_measures *measures;
    float *centre, *numbers; /* [filled], [key][filled]; zeros behind `dims` */
};

static void read_f16(const uint8_t *from, uint32_t dims, float *numbers)
{
    uint32_t i = 0;

#if defined(__F16C__)
    for (; i + 8 <= dims; i += 8)
        _mm256_storeu_ps(numbers + i,
                         _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 2 * (size_t)i))));
#endif
    for (; i < dims; i++)
        numbers[i] = number_f32_of_f16(get_u16(from + 2 * (size_t)i));
}

static void read_key(const struct maker *maker, const uint8_t *from, float *numbers)
{
    switch (maker->geometry->dtype) {
    case KV_DTYPE_F32:
        memcpy(numbers, from, maker->dims * sizeof *numbers);
        break;
    case KV_DTYPE_F16:
        read_f16(from, maker->dims, numbers);
        break;
    case KV_DTYPE_BF16:
        for (uint32_t i = 0; i < maker->dims; i++)
            numbers[i] = number_f32_of_bf16(get_u16(from + 2 * (size_t)i));
        break;
    }
}

/* What of it is left is not much shorter than a key: it would be read for nothing. `largest` is the centre's. */
static bool is_of_no_use(const struct maker *maker, float largest)
{
    double centre = 0, keys = 0, unit = largest > 0 ? 1 / (double)largest : 0;

    for (uint32_t i = 0; i < maker->filled; i++)
        centre += (double)maker->centre[i] * unit * ((double)maker->centre[i] * unit);
    for (uint32_t i = 0; i < maker->filled; i++)
        keys += (double)maker->numbers[i] * unit * ((double)maker->numbers[i] * unit);
    return centre < keys / 4;
}

/* The mean, rounded to 7 bits a number; `centre` is what those stand for. */
static bool make_centre(const struct maker *maker)
{
    float *restrict centre = maker->centre, largest, scale, inverse;
    uint8_t *restrict codes = maker->sketch + kv_sketch_centre_at(maker->filled);
    int32_t squares = 0;

    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
        for (uint32_t i = 0; i < maker->filled; i++)
            centre[i] += maker->numbers[(size_t)key * maker->filled + i] / KV_SKETCH_KEYS;
    largest = kv_sketch_largest(centre, maker->filled);
    if (!(largest < kv_sketch_largest_max))
        return false;
    scale = is_of_no_use(maker, largest) ? 0 : kv_sketch_scale(largest, CENTRE_MAX);
    inverse = scale > 0 ? 1 / scale : 0;
    for (uint32_t i = 0; i < maker->filled; i++) {
        int code = (int)(centre[i] * inverse + KV_SKETCH_CENTRE_ZERO + 0.5f) - KV_SKETCH_CENTRE_ZERO;

        code = code > CENTRE_MAX ? CENTRE_MAX : code;
        codes[i] = (uint8_t)(KV_SKETCH_CENTRE_ZERO + code);
        centre[i] = scale * (float)code;
        squares += code * code;
    }
    maker->measures->centre_scale = scale;
    maker->measures->centre_length = scale * sqrtf((float)squares) * kv_sketch_generous;
    return true;
}

/* Of a block, in units of the scale: the squares of twice what codes stand for, and of what rounding to six bits left, and to
 * five. */
struct rounded {
    int32_t kept;
    float rests, coarse;
};

static struct rounded round_block(const float *restrict numbers, float inverse, uint8_t *restrict codes)
{
    enum { LANES = 16 };
    struct rounded found = { 0 };
    float lanes[LANES] = { 0 }, coarse[LANES] = { 0 };

    for (uint32_t at = 0; at < KV_SKETCH_BLOCK; at += LANES)
        for (uint32_t lane = 0; lane < LANES; lane++) {
            float number = numbers[at + lane] * inverse, rest;
            int code = (int)(number + (KV_SKETCH_CODE_MAX + 1) / 2);

            code = code > KV_SKETCH_CODE_MAX ? KV_SKETCH_CODE_MAX : code;
            codes[at + lane] = (uint8_t)code;
            rest = number - ((float)code - KV_SKETCH_CODE_MAX / 2.0f);
            lanes[lane] += rest * rest;
            rest = number - (float)((code & ~1) - KV_SKETCH_CODE_MAX / 2);
            coarse[lane] += rest * rest;
            found.kept += (2 * code - KV_SKETCH_CODE_MAX) * (2 * code - KV_SKETCH_CODE_MAX);
        }
    for (uint32_t lane = 0; lane < LANES; lane++) {
        found.rests += lanes[lane];
        found.coarse += coarse[lane];
    }
    return found;
}

static void pack_upper(const uint8_t *restrict codes, uint8_t *restrict upper)
{
    for (uint32_t i = 0; i < 64; i++) {
        upper[i] = (uint8_t)(codes[i] >> 2 | codes[64 + i] >> 2 << 4);
        upper[64 + i] = (uint8_t)(codes[128 + i] >> 2 | codes[192 + i] >> 2 << 4);
    }
}

/* Of eight numbers at once: the factor moves the lowest bit of byte i to bit 56 + i, and no two bits to one place. */
static void pack_bits(const uint8_t *codes, unsigned bit, uint8_t *bits)
{
    for (uint32_t i = 0; i < KV_SKETCH_BLOCK / 8; i++) {
        uint64_t eight = get_u64(codes + 8 * (size_t)i) >> bit & 0x0101010101010101;

        bits[i] = (uint8_t)(eight * 0x0102040810204080 >> 56);
    }
}

/* Too small to have a scale: nothing of it is kept. */
static void measure_tiny(const struct maker *maker, uint32_t key, const float *numbers)
{
    double squares = 0;

    for (uint32_t i = 0; i < maker->filled; i++)
        squares += (double)numbers[i] * (double)numbers[i];
    maker->measures->rest[key] = kv_sketch_bf16_up((float)sqrt(squares) * kv_sketch_generous + FLT_MIN);
}

static void measure_key(const struct maker *maker, uint32_t key, float scale, const struct rounded *all)
{
    const float off = 1e-5f; /* more than a code's unit is wrong by */
    struct kv_sketch_measures *measures = maker->measures;
    float root = sqrtf((float)maker->filled);
    float length = scale * 0.5f * (sqrtf((float)all->kept) + root) * kv_sketch_generous;
    float rest = scale * (sqrtf(all->rests) * kv_sketch_generous + off * root) + FLT_MIN;
    float coarse = scale * (sqrtf(all->coarse) * kv_sketch_generous + off * root) + FLT_MIN;

    measures->scale[key] = kv_sketch_bf16_up(scale);
    measures->rest[key] = kv_sketch_bf16_up(coarse > rest ? coarse : rest);
    measures->saved[key] = coarse > rest ? kv_sketch_bf16_down(coarse - rest) : 0;
    measures->length = length > measures->length ? length : measures->length;
}

/* False: some number of it is not finite, or too large. */
static bool make_key(const struct maker *maker, uint32_t key)
{
    uint8_t *sketch = maker->sketch;
    uint32_t filled = maker->filled;
    float *restrict numbers = maker->numbers + (size_t)key * filled, largest, scale;
    struct rounded all = { 0 };

    for (uint32_t i = 0; i < filled; i++)
        numbers[i] -= maker->centre[i];
    largest = kv_sketch_largest(numbers, filled);
    if (!(largest < kv_sketch_largest_max))
        return false;
    scale = number_f32_of_bf16(kv_sketch_bf16_up(kv_sketch_scale(largest, KV_SKETCH_CODE_MAX / 2.0f)));
    if (!(scale > 0)) {
        measure_tiny(maker, key, numbers);
        return true;
    }
    for (uint32_t at = 0; at < filled; at += KV_SKETCH_BLOCK) {
        uint8_t codes[KV_SKETCH_BLOCK];
        struct rounded block = round_block(numbers + at, 1 / scale, codes);

        pack_upper(codes, sketch + kv_sketch_upper_at(filled, key) + at / 2);
        pack_bits(codes, 1, sketch + kv_sketch_fifth_at(filled, key) + at / 8);
        pack_bits(codes, 0, sketch + kv_sketch_sixth_at(filled, key) + at / 8);
        all.kept += block.kept;
        all.rests += block.rests;
        all.coarse += block.coarse;
    }
    measure_key(maker, key, scale, &all);
    return true;
}

static uint64_t numbers_of(uint32_t filled)
{
    return (1 + KV_SKETCH_KEYS) * (uint64_t)filled;
}

/* What was seen may be forgotten: nothing of its keys stays on the heap. */
static void maker_free(struct maker *maker)
{
    explicit_bzero(maker->centre, numbers_of(maker->filled) * sizeof *maker->centre);
    free(maker->centre);
}

/* Where there are fewer keys, some stand twice. */
bool KV_SKETCH_MAKE(const struct kv_geometry *geometry, const void *keys, uint32_t count, void *sketch)
{
    uint32_t dims = kv_key_dims(geometry), filled = kv_sketch_fill_up(dims);
    struct maker maker = { .geometry = geometry, .dims = dims, .filled = filled, .sketch = sketch };
    bool ok;

    maker.centre = calloc(numbers_of(filled), sizeof *maker.centre);
    if (maker.centre == NULL)
        return false;
    maker.numbers = maker.centre + filled;
    memset(sketch, 0, kv_sketch_dims_bytes(filled));
    maker.measures = kv_sketch_measures_of(sketch, filled);
    for (uint32_t key = 0; key < KV_SKETCH_KEYS; key++)
        read_key(&maker, (const uint8_t *)keys + (size_t)(key % count) * kv_key_bytes(geometry),
                 maker.numbers + (size_t)key * filled);
    ok = make_centre(&maker);
    for (uint32_t key = 0; ok && key < KV_SKETCH_KEYS; key++)
        ok = make_key(&maker, key);
    maker_free(&maker);
    return ok;
}
