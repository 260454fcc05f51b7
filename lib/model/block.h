/* block.h - where things lie in a block's payload (model.h has the layout). */
#ifndef REELKV_MODEL_BLOCK_H
#define REELKV_MODEL_BLOCK_H

#include "model/decoder.h"

static inline size_t block_slice_bytes(const struct decoder_shape *shape, uint32_t tokens)
{
    return (size_t)shape->kv_heads * tokens * shape->head_dim * tensor_dtype_bytes(shape->dtype);
}

static inline size_t block_key_bytes(const struct decoder_shape *shape)
{
    return (size_t)shape->kv_heads * shape->head_dim * tensor_dtype_bytes(shape->dtype);
}

/* Of the layer's K; its V follows at once. */
static inline size_t block_slice_offset(const struct decoder_shape *shape, uint32_t tokens, uint32_t layer)
{
    return shape->layers * block_key_bytes(shape) + 2 * (size_t)layer * block_slice_bytes(shape, tokens);
}

static inline size_t block_bytes(const struct decoder_shape *shape, uint32_t tokens)
{
    return block_slice_offset(shape, tokens, shape->layers);
}

/* K (value false) or V of a layer in a payload that begins at byte `at` of `buffer`. */
static inline struct tensor_heads block_slice(const struct decoder_shape *shape, struct tensor_buffer *buffer,
                                              size_t at, uint32_t tokens, uint32_t layer, bool value)
{
    at += block_slice_offset(shape, tokens, layer) + (value ? block_slice_bytes(shape, tokens) : 0);
    return tensor_heads_at(buffer, at, shape->dtype, shape->kv_heads, tokens, shape->head_dim);
}

#endif
