/* kv_quant.h - slices with fewer bits: what is written, what is read back, and how far the two may lie apart.
 *
 * An encoding says how the numbers of a slice are written. `bits` 0: as the geometry's dtype. 8 and 4: a *group* is a run of
 * `group` numbers along head_dim of one head of one token, so `group` divides head_dim. A slice of n numbers is then
 *
 *   scales   n / group f32, little endian, in the order of the groups
 *   codes    8: n signed bytes, -127 to 127.  4: n signed nibbles, -7 to 7, two in a byte, the low one first
 *
 * A group's scale is max|x| / 127 (8 bit) or / 7 (4 bit) in f32, but at least 2^-126 where some x is not 0 (so that it is a
 * normal number), and one step lower where 127 or 7 times it would be infinite. A code is x / scale rounded to the nearest,
 * halves to even. Read back it is code * scale in f32, rounded to the nearest number of the dtype, halves to even.
 *
 * Declared: |read - x| <= kv_quant_error(), which is scale / 2 and the rounding to the dtype.
 *
 * Thread: any. Bounds: KV_QUANT_GROUP_MAX. */
#ifndef REELKV_KV_KV_QUANT_H
#define REELKV_KV_KV_QUANT_H

#include "kv/kv_geometry.h"

enum { KV_QUANT_GROUP_MAX = 128 };

struct kv_encoding {
    uint16_t bits;  /* 0, 4 or 8 */
    uint16_t group; /* numbers a scale is for; 0 with bits 0 */
};

static inline bool kv_encoding_is_known(uint16_t bits)
{
    return bits == 0 || bits == 4 || bits == 8;
}

/* Whether slices of this geometry can have it. */
bool kv_encoding_fits(const struct kv_geometry *geometry, struct kv_encoding encoding);

/* Of a slice; the encoding fits. */
uint64_t kv_encoding_bytes(const struct kv_geometry *geometry, struct kv_encoding encoding, uint32_t tokens);

/* The encoding of so many bits with the largest group there is; one that does not make slices smaller is none (bits 0). */
struct kv_encoding kv_quant_encoding(const struct kv_geometry *geometry, uint16_t bits);

/* Between a slice of the dtype and one of an encoding with 8 or 4 bits that fits. Encoding is false when a number is not
 * finite: such a slice stays as it is, `to` then holds nothing. Neither side needs an alignment; they do not overlap. */
bool kv_quant_encode(const struct kv_geometry *geometry, struct kv_encoding encoding, uint32_t tokens,
                     const void *from, void *to);
void kv_quant_decode(const struct kv_geometry *geometry, struct kv_encoding encoding, uint32_t tokens,
                     const void *from, void *to);

/* The most by which a number of a group with this scale may differ. */
double kv_quant_error(enum kv_dtype dtype, uint16_t bits, float scale);

#endif
