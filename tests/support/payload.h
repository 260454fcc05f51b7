/* payload.h - where things lie in a block's payload (kv_geometry.h has its layout). */
#ifndef REELKV_TEST_PAYLOAD_H
#define REELKV_TEST_PAYLOAD_H

#include "kv/kv_geometry.h"

/* The K slice of a layer begins there; V follows it. */
static inline uint64_t payload_layer_offset(const struct kv_geometry *geometry, uint32_t tokens,
                                            uint32_t layer)
{
    return kv_keys_bytes(geometry) + 2 * layer * kv_slice_bytes(geometry, tokens);
}

#endif
