/* kv_geometry.h - the shape of a model's KV, and the sizes that follow from it.
 *
 *   slice               [kv_heads, tokens, head_dim], K or V of one layer of one block
 *   representative key  [kv_heads, head_dim], one a layer: the mean of a block's un-rotated keys
 *   payload of a block  representative keys [layers][kv_heads, head_dim], then for each layer its K and its V
 *                       slice; all of one dtype, nothing between them
 *
 * Fails:  INVALID with the field and what is allowed.
 * Bounds: those of kv_geometry_check(); with them no size here passes 2^38. */
#ifndef REELKV_KV_KV_GEOMETRY_H
#define REELKV_KV_KV_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

/* Numbers of proto Dtype, and of the files. */
enum kv_dtype { KV_DTYPE_F32 = 1, KV_DTYPE_F16 = 2, KV_DTYPE_BF16 = 3 };

enum {
    KV_HEADS_MAX = 128,
    KV_HEAD_DIM_MAX = 1024,
    KV_KEY_DIMS_MAX = 16384, /* kv_heads * head_dim */
};

struct kv_geometry {
    uint32_t layers;
    uint32_t kv_heads;
    uint32_t head_dim;
    enum kv_dtype dtype;
};

bool kv_geometry_check(const struct kv_geometry *geometry, struct status *st);
bool kv_geometry_is_equal(const struct kv_geometry *a, const struct kv_geometry *b);

/* "24 layers of 2 x 64 f16", for sentences. Returns `out`. */
enum { KV_GEOMETRY_TEXT_BYTES = 64 };
const char *kv_geometry_text(const struct kv_geometry *geometry, char out[KV_GEOMETRY_TEXT_BYTES]);

/* Sizes; the geometry has been checked, tokens are at most LIMIT_FRAME_TOKENS. */
static inline uint32_t kv_dtype_bytes(enum kv_dtype dtype)
{
    return dtype == KV_DTYPE_F32 ? 4 : 2;
}
/* Numbers in a representative key. */
static inline uint32_t kv_key_dims(const struct kv_geometry *geometry)
{
    return geometry->kv_heads * geometry->head_dim;
}
static inline uint32_t kv_key_bytes(const struct kv_geometry *geometry)
{
    return kv_key_dims(geometry) * kv_dtype_bytes(geometry->dtype);
}
/* All layers' representative keys of one block. */
static inline uint64_t kv_keys_bytes(const struct kv_geometry *geometry)
{
    return (uint64_t)geometry->layers * kv_key_bytes(geometry);
}
static inline uint64_t kv_slice_bytes(const struct kv_geometry *geometry, uint32_t tokens)
{
    return (uint64_t)kv_key_bytes(geometry) * tokens;
}
static inline uint64_t kv_payload_bytes(const struct kv_geometry *geometry, uint32_t tokens)
{
    return kv_keys_bytes(geometry) + 2 * geometry->layers * kv_slice_bytes(geometry, tokens);
}

#endif
