/* Compiled for AVX2 and F16C. */
#if defined(__AVX2__)
#define KV_SKETCH_MAKE kv_sketch_make_avx2
#include "kv/kv_sketch_maker.h"
#else
#include "kv/kv_sketch_simd.h"

bool kv_sketch_make_avx2(const struct kv_geometry *geometry, const void *keys, uint32_t count, void *sketch)
{
    return kv_sketch_make_portable(geometry, keys, count, sketch);
}
#endif
