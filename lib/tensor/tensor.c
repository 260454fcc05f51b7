#include "tensor/tensor.h"

#include "base/number.h"

static float get_number(const void *from, enum tensor_dtype dtype, size_t i)
{
    switch (dtype) {
    case TENSOR_F16:
        return number_f32_of_f16(((const uint16_t *)from)[i]);
    case TENSOR_BF16:
        return number_f32_of_bf16(((const uint16_t *)from)[i]);
    default:
        return ((const float *)from)[i];
    }
}

static void put_number(void *to, enum tensor_dtype dtype, size_t i, float value)
{
    switch (dtype) {
    case TENSOR_F16:
        ((uint16_t *)to)[i] = number_f16_of_f32(value);
        break;
    case TENSOR_BF16:
        ((uint16_t *)to)[i] = number_bf16_of_f32(value);
        break;
    default:
        ((float *)to)[i] = value;
    }
}

void tensor_convert_host(void *to, enum tensor_dtype to_dtype, const void *from, enum tensor_dtype from_dtype,
                         size_t count)
{
    if (to_dtype == from_dtype) {
        memcpy(to, from, count * tensor_dtype_bytes(to_dtype));
        return;
    }
    for (size_t i = 0; i < count; i++)
        put_number(to, to_dtype, i, get_number(from, from_dtype, i));
}
