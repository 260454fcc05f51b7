/* Slices of 8 and 4 bits: what is read back lies within the declared error of what was written, and both directions do
 * what the header says, by a reference that does it word for word. */
#include "kv/kv_quant.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/number.h"
#include "support/test.h"

enum { TOKENS = 5, NUMBERS_MAX = 2 * TOKENS * 256 };

static const enum kv_dtype dtypes[] = { KV_DTYPE_F32, KV_DTYPE_F16, KV_DTYPE_BF16 };
static const uint16_t codings[] = { 8, 4 };

static uint32_t next_random(void)
{
    static uint64_t state = 12345;

    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 32);
}

static double number_at(const uint8_t *slice, enum kv_dtype dtype, uint64_t at)
{
    if (dtype == KV_DTYPE_F32)
        return (double)number_f32_of_bits(get_u32(slice + 4 * at));
    return (double)(dtype == KV_DTYPE_F16 ? number_f32_of_f16(get_u16(slice + 2 * at))
                                          : number_f32_of_bf16(get_u16(slice + 2 * at)));
}

static void set_bits(uint8_t *slice, enum kv_dtype dtype, uint64_t at, uint32_t bits)
{
    if (dtype == KV_DTYPE_F32)
        put_u32(slice + 4 * at, bits);
    else
        put_u16(slice + 2 * at, (uint16_t)bits);
}

static bool is_finite_bits(enum kv_dtype dtype, uint32_t bits)
{
    uint8_t slice[4];

    set_bits(slice, dtype, 0, bits);
    return isfinite(number_at(slice, dtype, 0));
}

/* What a slice is made of. */
enum stuff { PLAIN, ANY_BITS, DENORMAL, LARGEST, ZEROS, STUFFS };

static uint32_t bits_of(enum stuff stuff, enum kv_dtype dtype)
{
    static const uint32_t largest[] = {
        [KV_DTYPE_F32] = 0x7f7fffff, [KV_DTYPE_F16] = 0x7bff, [KV_DTYPE_BF16] = 0x7f7f
    };
    uint32_t sign = dtype == KV_DTYPE_F32 ? 0x80000000u : 0x8000u, bits = next_random();
    float plain = ((float)(bits >> 8) / 0x1p24f - 0.5f) * 8;

    switch (stuff) {
    case PLAIN:
        return dtype == KV_DTYPE_F32   ? number_bits_of_f32(plain)
               : dtype == KV_DTYPE_F16 ? number_f16_of_f32(plain)
                                       : number_bf16_of_f32(plain);
    case ANY_BITS:
        bits = dtype == KV_DTYPE_F32 ? bits : bits & 0xffff;
        return is_finite_bits(dtype, bits) ? bits : sign;
    case DENORMAL:
        return (bits & sign) | (bits & 15);
    case LARGEST:
        return (bits & sign) | (largest[dtype] - (bits & 1));
    case ZEROS:
        return bits & sign;
    case STUFFS:
        break;
    }
    return 0;
}

static void fill(uint8_t *slice, enum stuff stuff, const struct kv_geometry *geometry)
{
    for (uint64_t i = 0; i < (uint64_t)kv_key_dims(geometry) * TOKENS; i++)
        set_bits(slice, geometry->dtype, i, bits_of(stuff, geometry->dtype));
}

static int reference_code(const uint8_t *codes, uint16_t bits, uint64_t at)
{
    int nibble = codes[at / 2] >> (at % 2 == 1 ? 4 : 0) & 15;

    return bits == 8 ? (int8_t)codes[at] : nibble >= 8 ? nibble - 16 : nibble;
}

static float reference_scale(double max, int code_max)
{
    float scale = (float)max / (float)code_max;

    if (max == 0)
        return 0;
    if (scale < 0x1p-126f)
        return 0x1p-126f;
    return isinf((float)code_max * scale) ? nextafterf(scale, 0) : scale;
}

static void check_slice(const struct kv_geometry *geometry, struct kv_encoding encoding, const uint8_t *from,
                        const uint8_t *encoded, const uint8_t *read)
{
    uint64_t numbers = (uint64_t)kv_key_dims(geometry) * TOKENS, groups = numbers / encoding.group;
    int code_max = encoding.bits == 8 ? 127 : 7;

    for (uint64_t g = 0; g < groups; g++) {
        float scale = number_f32_of_bits(get_u32(encoded + 4 * g));
        double max = 0;

        for (uint32_t i = 0; i < encoding.group; i++)
            max = fmax(max, fabs(number_at(from, geometry->dtype, g * encoding.group + i)));
        CHECK(scale == reference_scale(max, code_max));
        for (uint32_t i = 0; i < encoding.group; i++) {
            uint64_t at = g * encoding.group + i;
            double x = number_at(from, geometry->dtype, at), y = number_at(read, geometry->dtype, at);
            int code = reference_code(encoded + 4 * groups, encoding.bits, at);
            int nearest = scale == 0 ? 0 : (int)rint(x / (double)scale);
            uint8_t expected[4];

            CHECK_EQ(code, nearest > code_max ? code_max : nearest < -code_max ? -code_max : nearest);
            set_bits(expected, geometry->dtype, 0,
                     geometry->dtype == KV_DTYPE_F32   ? number_bits_of_f32((float)code * scale)
                     : geometry->dtype == KV_DTYPE_F16 ? number_f16_of_f32((float)code * scale)
                                                       : number_bf16_of_f32((float)code * scale));
            CHECK(y == number_at(expected, geometry->dtype, 0));
            if (!(fabs(y - x) <= kv_quant_error(geometry->dtype, encoding.bits, scale)))
                test_fail(__FILE__, __LINE__, "%u bit: %.17g was read as %.17g, scale %.9g", encoding.bits, x,
                          y, (double)scale);
        }
    }
}

/* Shapes with a group as long as a head, half as long, and of odd length; slices of all stuff. */
TEST(quant_reads_back_within_the_declared_error)
{
    static const uint32_t head_dims[] = { 64, 256, 7 };
    static uint8_t from[4 * NUMBERS_MAX], encoded[8 * NUMBERS_MAX], read[4 * NUMBERS_MAX];

    for (size_t n = 0; n < ARRAY_LEN(dtypes) * ARRAY_LEN(head_dims) * ARRAY_LEN(codings) * STUFFS; n++) {
        const struct kv_geometry geometry = {
            .layers = 1, .kv_heads = 2, .head_dim = head_dims[n / 6 % 3], .dtype = dtypes[n / 2 % 3]
        };
        struct kv_encoding encoding = kv_quant_encoding(&geometry, codings[n % 2]);
        uint64_t bytes;

        if (encoding.bits == 0)
            continue;
        CHECK(kv_encoding_fits(&geometry, encoding));
        bytes = kv_encoding_bytes(&geometry, encoding, TOKENS);
        CHECK(bytes < kv_slice_bytes(&geometry, TOKENS));
        fill(from, (enum stuff)(n / 18), &geometry);
        memset(encoded + bytes, 0x5a, 8);
        CHECK(kv_quant_encode(&geometry, encoding, TOKENS, from, encoded));
        CHECK_EQ(encoded[bytes], 0x5a); /* nothing behind it */
        kv_quant_decode(&geometry, encoding, TOKENS, encoded, read);
        check_slice(&geometry, encoding, from, encoded, read);
    }
}

TEST(quant_refuses_what_is_not_finite)
{
    static const uint32_t not_finite[][2] = { [KV_DTYPE_F32] = { 0x7f800000, 0xffc00001 },
                                              [KV_DTYPE_F16] = { 0xfc00, 0x7c01 },
                                              [KV_DTYPE_BF16] = { 0x7f80, 0xffff } };
    static uint8_t from[4 * NUMBERS_MAX], encoded[8 * NUMBERS_MAX];

    for (size_t n = 0; n < ARRAY_LEN(dtypes); n++) {
        const struct kv_geometry geometry = {
            .layers = 1, .kv_heads = 2, .head_dim = 64, .dtype = dtypes[n]
        };
        struct kv_encoding encoding = kv_quant_encoding(&geometry, 8);
        uint64_t last = (uint64_t)kv_key_dims(&geometry) * TOKENS - 1;

        fill(from, PLAIN, &geometry);
        CHECK(kv_quant_encode(&geometry, encoding, TOKENS, from, encoded));
        for (int i = 0; i < 2; i++) {
            set_bits(from, dtypes[n], last, not_finite[dtypes[n]][i]);
            CHECK(!kv_quant_encode(&geometry, encoding, TOKENS, from, encoded));
        }
    }
}

/* Of every head_dim the group is the largest that divides it, and what does not pay is not done. */
TEST(quant_chooses_an_encoding_that_pays)
{
    for (uint32_t head_dim = 1; head_dim <= KV_HEAD_DIM_MAX; head_dim++) {
        const struct kv_geometry geometry = {
            .layers = 1, .kv_heads = 1, .head_dim = head_dim, .dtype = KV_DTYPE_F16
        };
        struct kv_encoding encoding = kv_quant_encoding(&geometry, 8);

        if (encoding.bits == 0) {
            CHECK(!kv_encoding_fits(&geometry, (struct kv_encoding){ 8, 0 }));
            continue;
        }
        CHECK_EQ(head_dim % encoding.group, 0);
        for (uint16_t larger = encoding.group + 1; larger <= KV_QUANT_GROUP_MAX; larger++)
            CHECK(head_dim % larger != 0);
        CHECK(kv_encoding_bytes(&geometry, encoding, 1) < kv_slice_bytes(&geometry, 1));
    }
    CHECK_EQ(kv_quant_encoding(&(struct kv_geometry){ 1, 1, 128, KV_DTYPE_F16 }, 8).group, 128);
    CHECK_EQ(kv_quant_encoding(&(struct kv_geometry){ 1, 1, 131, KV_DTYPE_F16 }, 8).bits, 0); /* a prime */
}

TEST_MAIN()
