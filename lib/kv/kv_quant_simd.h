/* kv_quant_simd.h - decoding many codes at once. Inside lib/kv only. */
#ifndef REELKV_KV_KV_QUANT_SIMD_H
#define REELKV_KV_KV_QUANT_SIMD_H

#include "kv/kv_geometry.h"

enum { KV_QUANT_LANES = 8 };

/* `count` codes of 8 bits, a multiple of KV_QUANT_LANES, into numbers of f16 or bf16: the bits of the portable way. False:
 * this processor or this build has it not; nothing was done. */
bool kv_quant_decode_avx2(enum kv_dtype dtype, const uint8_t *codes, float scale, uint32_t count,
                          uint8_t *to);

#endif
