#include "kv/kv_geometry.h"

#include <stdio.h>

static const char *const dtype_names[] = { "?", "f32", "f16", "bf16" };

static bool check_range(const char *what, uint32_t value, uint32_t max, struct status *st)
{
    if (value >= 1 && value <= max)
        return true;
    return status_fail(st, STATUS_INVALID, "geometry: %s must be 1 to %u, not %u", what, max, value);
}

bool kv_geometry_check(const struct kv_geometry *geometry, struct status *st)
{
    if (!check_range("layers", geometry->layers, LIMIT_LAYERS, st) ||
        !check_range("kv_heads", geometry->kv_heads, KV_HEADS_MAX, st) ||
        !check_range("head_dim", geometry->head_dim, KV_HEAD_DIM_MAX, st) ||
        !check_range("kv_heads * head_dim", kv_key_dims(geometry), KV_KEY_DIMS_MAX, st))
        return false;
    if (geometry->dtype != KV_DTYPE_F32 && geometry->dtype != KV_DTYPE_F16 &&
        geometry->dtype != KV_DTYPE_BF16)
        return status_fail(st, STATUS_INVALID, "geometry: dtype must be 1 (f32), 2 (f16) or 3 (bf16), not %d",
                           (int)geometry->dtype);
    return true;
}

bool kv_geometry_is_equal(const struct kv_geometry *a, const struct kv_geometry *b)
{
    return a->layers == b->layers && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
           a->dtype == b->dtype;
}

const char *kv_geometry_text(const struct kv_geometry *geometry, char out[KV_GEOMETRY_TEXT_BYTES])
{
    unsigned dtype = (unsigned)geometry->dtype;

    snprintf(out, KV_GEOMETRY_TEXT_BYTES, "%u layers of %u x %u %s", geometry->layers, geometry->kv_heads,
             geometry->head_dim, dtype_names[dtype <= KV_DTYPE_BF16 ? dtype : 0]);
    return out;
}
