#include "kv/kv_quant.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/number.h"
#include "base/require.h"
#include "kv/kv_quant_simd.h"

static int code_max(uint16_t bits)
{
    return bits == 8 ? 127 : 7;
}

static uint64_t numbers_of(const struct kv_geometry *geometry, uint32_t tokens)
{
    return (uint64_t)kv_key_dims(geometry) * tokens;
}

bool kv_encoding_fits(const struct kv_geometry *geometry, struct kv_encoding encoding)
{
    if (encoding.bits == 0)
        return encoding.group == 0;
    return kv_encoding_is_known(encoding.bits) && encoding.group >= 1 &&
           encoding.group <= KV_QUANT_GROUP_MAX && geometry->head_dim % encoding.group == 0;
}

uint64_t kv_encoding_bytes(const struct kv_geometry *geometry, struct kv_encoding encoding, uint32_t tokens)
{
    uint64_t numbers = numbers_of(geometry, tokens);

    if (encoding.bits == 0)
        return kv_slice_bytes(geometry, tokens);
    return numbers / encoding.group * sizeof(float) + (numbers * encoding.bits + 7) / 8;
}

struct kv_encoding kv_quant_encoding(const struct kv_geometry *geometry, uint16_t bits)
{
    struct kv_encoding encoding = { .bits = bits, .group = KV_QUANT_GROUP_MAX };

    while (geometry->head_dim % encoding.group != 0)
        encoding.group--;
    if (kv_encoding_bytes(geometry, encoding, 1) >= kv_slice_bytes(geometry, 1))
        return (struct kv_encoding){ 0 };
    return encoding;
}

/* --- numbers of a dtype --- */

static float number_get(enum kv_dtype dtype, const uint8_t *from, uint64_t at)
{
    if (dtype == KV_DTYPE_F32)
        return number_f32_of_bits(get_u32(from + 4 * at));
    if (dtype == KV_DTYPE_F16)
        return number_f32_of_f16(get_u16(from + 2 * at));
    return number_f32_of_bf16(get_u16(from + 2 * at));
}

static void number_put(enum kv_dtype dtype, uint8_t *to, uint64_t at, float value)
{
    if (dtype == KV_DTYPE_F32)
        put_u32(to + 4 * at, number_bits_of_f32(value));
    else if (dtype == KV_DTYPE_F16)
        put_u16(to + 2 * at, number_f16_of_f32(value));
    else
        put_u16(to + 2 * at, number_bf16_of_f32(value));
}

/* --- one group --- */

/* False: a number is not finite. */
static bool group_max(const float *numbers, uint32_t count, float *max_p)
{
    float max = 0;

    for (uint32_t i = 0; i < count; i++) {
        float size = fabsf(numbers[i]);

        if (!(size <= FLT_MAX)) /* a NaN too */
            return false;
        max = size > max ? size : max;
    }
    *max_p = max;
    return true;
}

static float scale_of(float max, uint16_t bits)
{
    float scale = max / (float)code_max(bits);

    if (max > 0 && scale < FLT_MIN)
        return FLT_MIN;
    return (float)code_max(bits) * scale > FLT_MAX ? nextafterf(scale, 0) : scale;
}

static void put_code(uint8_t *codes, uint16_t bits, uint64_t at, int code)
{
    if (bits == 8)
        codes[at] = (uint8_t)code;
    else
        codes[at / 2] |= (uint8_t)((code & 15) << (at % 2 * 4));
}

static int get_code(const uint8_t *codes, uint16_t bits, uint64_t at)
{
    int code;

    if (bits == 8)
        return (int8_t)codes[at];
    code = codes[at / 2] >> (at % 2 * 4) & 15;
    return code < 8 ? code : code - 16;
}

static int code_of(float number, float scale, uint16_t bits)
{
    int max = code_max(bits), code = (int)rint((double)number / (double)scale);

    return code > max ? max : code < -max ? -max : code;
}

/* --- a slice --- */

bool kv_quant_encode(const struct kv_geometry *geometry, struct kv_encoding encoding, uint32_t tokens,
                     const void *from, void *to)
{
    uint64_t numbers = numbers_of(geometry, tokens), groups = numbers / encoding.group;
    uint8_t *codes = (uint8_t *)to + groups * sizeof(float);
    float group[KV_QUANT_GROUP_MAX], max;

    REQUIRE(encoding.bits != 0);
    REQUIRE(kv_encoding_fits(geometry, encoding));
    memset(codes, 0, (numbers * encoding.bits + 7) / 8);
    for (uint64_t g = 0; g < groups; g++) {
        uint64_t first = g * encoding.group;
        float scale;

        for (uint32_t i = 0; i < encoding.group; i++)
            group[i] = number_get(geometry->dtype, from, first + i);
        if (!group_max(group, encoding.group, &max))
            return false;
        scale = scale_of(max, encoding.bits);
        put_u32((uint8_t *)to + g * sizeof scale, number_bits_of_f32(scale));
        for (uint32_t i = 0; scale > 0 && i < encoding.group; i++)
            put_code(codes, encoding.bits, first + i, code_of(group[i], scale, encoding.bits));
    }
    return true;
}

void kv_quant_decode(const struct kv_geometry *geometry, struct kv_encoding encoding, uint32_t tokens,
                     const void *from, void *to)
{
    uint64_t numbers = numbers_of(geometry, tokens), groups = numbers / encoding.group;
    const uint8_t *codes = (const uint8_t *)from + groups * sizeof(float);
    bool can_many =
        encoding.bits == 8 && geometry->dtype != KV_DTYPE_F32 && encoding.group % KV_QUANT_LANES == 0;

    REQUIRE(encoding.bits != 0);
    REQUIRE(kv_encoding_fits(geometry, encoding));
    for (uint64_t g = 0; g < groups; g++) {
        float scale = number_f32_of_bits(get_u32((const uint8_t *)from + g * sizeof scale));
        uint64_t first = g * encoding.group;

        if (can_many && kv_quant_decode_avx2(geometry->dtype, codes + first, scale, encoding.group,
                                             (uint8_t *)to + first * sizeof(uint16_t)))
            continue;
        for (uint64_t at = first; at < first + encoding.group; at++)
            number_put(geometry->dtype, to, at, (float)get_code(codes, encoding.bits, at) * scale);
    }
}

double kv_quant_error(enum kv_dtype dtype, uint16_t bits, float scale)
{
    /* By dtype: half a step of a number near 1 (of f32: of the quotient's and the product's), and half the least number. */
    static const double rounding[] = {
        [KV_DTYPE_F32] = 0x1p-23, [KV_DTYPE_F16] = 0x1p-11, [KV_DTYPE_BF16] = 0x1p-8
    };
    static const double least[] = {
        [KV_DTYPE_F32] = 0x1p-150, [KV_DTYPE_F16] = 0x1p-25, [KV_DTYPE_BF16] = 0x1p-134
    };

    return (double)scale * (0.5 + (code_max(bits) + 1) * rounding[dtype]) + least[dtype];
}
