/* number.h - the 16-bit number types, one number at a time: plain C, the reference for every vector path. */
#ifndef REELKV_BASE_NUMBER_H
#define REELKV_BASE_NUMBER_H

#include <stdint.h>
#include <string.h>

static inline uint32_t number_bits_of_f32(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float number_f32_of_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float number_f32_of_bf16(uint16_t bits)
{
    return number_f32_of_bits((uint32_t)bits << 16);
}

/* Round to nearest even; a NaN stays a (quiet) NaN. */
static inline uint16_t number_bf16_of_f32(float value)
{
    uint32_t bits = number_bits_of_f32(value);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float number_f32_of_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, rest = bits & 0x7fffu;

    if (rest >= 0x7c00u) /* inf and NaN */
        return number_f32_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13 | (rest > 0x7c00u) << 22);
    if (rest < 0x0400u) /* zero and subnormal: rest * 2^-24 */
        return number_f32_of_bits(sign | number_bits_of_f32((float)rest * 0x1p-24f));
    return number_f32_of_bits(sign | ((rest << 13) + (112u << 23)));
}

static inline uint16_t number_f16_of_f32(float value)
{
    uint32_t bits = number_bits_of_f32(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;

    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x1ffu));
    if (rest >= 0x477ff000u) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (rest < 0x38800000u) { /* below 2^-14: adding 0.5 lets the FPU round at 2^-24 */
        float shifted = number_f32_of_bits(rest) + 0.5f;

        return (uint16_t)(sign | (number_bits_of_f32(shifted) - 0x3f000000u));
    }
    rest += 0xfffu + (rest >> 13 & 1u);
    return (uint16_t)(sign | (rest - (112u << 23)) >> 13);
}

#endif
