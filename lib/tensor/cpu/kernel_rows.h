/* kernel_rows.h - what happens to one row or one head of numbers, static in each cpu/kernels_*.c. */
#ifndef REELKV_TENSOR_CPU_KERNEL_ROWS_H
#define REELKV_TENSOR_CPU_KERNEL_ROWS_H

#include <math.h>

#include "tensor/cpu/cpu.h"
#include "tensor/cpu/simd.h"

/* `count` (up to LANES) numbers of any type from element `at`; missing lanes are zero. */
INLINE vec row_load(struct cpu_row row, size_t at, uint32_t count)
{
    float lanes[LANES] = { 0 };
    uint16_t half[LANES] = { 0 };

    if (row.dtype == TENSOR_F32) {
        if (count == LANES)
            return v_load((const float *)row.data + at);
        memcpy(lanes, (const float *)row.data + at, count * sizeof(float));
        return v_load(lanes);
    }
    if (row.dtype == TENSOR_BF16) {
        if (count == LANES)
            return v_of_bf16((const uint16_t *)row.data + at);
        memcpy(half, (const uint16_t *)row.data + at, count * sizeof(uint16_t));
        return v_of_bf16(half);
    }
    for (uint32_t i = 0; i < count; i++)
        lanes[i] = number_f32_of_f16(((const uint16_t *)row.data)[at + i]);
    return v_load(lanes);
}

INLINE void row_store(struct cpu_row row, size_t at, uint32_t count, vec value)
{
    float lanes[LANES];
    uint16_t half[LANES];

    if (row.dtype == TENSOR_F32) {
        if (count == LANES) {
            v_store((float *)row.data + at, value);
            return;
        }
        v_store(lanes, value);
        memcpy((float *)row.data + at, lanes, count * sizeof(float));
    } else if (row.dtype == TENSOR_BF16) {
        if (count == LANES) {
            v_to_bf16((uint16_t *)row.data + at, value);
            return;
        }
        v_to_bf16(half, value);
        memcpy((uint16_t *)row.data + at, half, count * sizeof(uint16_t));
    } else {
        v_store(lanes, value);
        for (uint32_t i = 0; i < count; i++)
            ((uint16_t *)row.data)[at + i] = number_f16_of_f32(lanes[i]);
    }
}

INLINE uint32_t lanes_left(uint32_t count, uint32_t at)
{
    return count - at < LANES ? count - at : LANES;
}

static void norm_row(struct cpu_row out, const float *in, const struct cpu_norm *norm)
{
    struct cpu_row from = { (void *)(uintptr_t)in, TENSOR_F32 };
    struct cpu_row gain = { (void *)(uintptr_t)norm->gain, TENSOR_F32 };
    struct cpu_row bias = { (void *)(uintptr_t)norm->bias, TENSOR_F32 };
    vec sum = v_all(0.0f), squares = v_all(0.0f), mean = v_all(0.0f), scale;
    uint32_t cols = norm->cols;

    if (norm->centered) {
        for (uint32_t i = 0; i < cols; i += LANES)
            sum += row_load(from, i, lanes_left(cols, i));
        mean = v_all(v_sum(sum) / (float)cols);
    }
    for (uint32_t i = 0; i < cols; i += LANES) {
        uint32_t count = lanes_left(cols, i);
        float lanes[LANES];
        vec value = row_load(from, i, count) - mean;

        if (count < LANES) { /* missing lanes are zero, not minus the mean */
            v_store(lanes, value);
            memset(lanes + count, 0, (LANES - count) * sizeof(float));
            value = v_load(lanes);
        }
        squares = v_fma(value, value, squares);
    }
    scale = v_all(1.0f / sqrtf(v_sum(squares) / (float)cols + norm->epsilon));
    for (uint32_t i = 0; i < cols; i += LANES) {
        uint32_t count = lanes_left(cols, i);
        vec value = (row_load(from, i, count) - mean) * scale * row_load(gain, i, count);

        if (norm->bias != NULL)
            value += row_load(bias, i, count);
        row_store(out, i, count, value);
    }
}

static void copy_row(struct cpu_row out, struct cpu_row in, uint32_t count)
{
    for (uint32_t i = 0; i < count; i += LANES)
        row_store(out, i, lanes_left(count, i), row_load(in, i, lanes_left(count, i)));
}

static void add_row(float *out, const float *a, const float *b, uint32_t count)
{
    struct cpu_row to = { out, TENSOR_F32 }, left = { (void *)(uintptr_t)a, TENSOR_F32 };
    struct cpu_row right = { (void *)(uintptr_t)b, TENSOR_F32 };

    for (uint32_t i = 0; i < count; i += LANES) {
        uint32_t n = lanes_left(count, i);

        row_store(to, i, n, row_load(left, i, n) + row_load(right, i, n));
    }
}

static void turn_head(struct cpu_row out, struct cpu_row in, const float *angles, uint32_t head_dim)
{
    struct cpu_row table = { (void *)(uintptr_t)angles, TENSOR_F32 };
    uint32_t half = head_dim / 2;

    for (uint32_t i = 0; i < half; i += LANES) {
        uint32_t n = lanes_left(half, i);
        vec cosine = row_load(table, i, n), sine = row_load(table, half + i, n);
        vec x1 = row_load(in, i, n), x2 = row_load(in, half + i, n);

        row_store(out, i, n, x1 * cosine - x2 * sine);
        row_store(out, half + i, n, x2 * cosine + x1 * sine);
    }
}

static void sum_of_rows(float *sums, struct cpu_row in, size_t stride, uint32_t rows, uint32_t cols)
{
    struct cpu_row to = { sums, TENSOR_F32 };

    for (uint32_t i = 0; i < cols; i += LANES) {
        uint32_t n = lanes_left(cols, i);
        vec sum = row_load(to, i, n);

        for (uint32_t r = 0; r < rows; r++)
            sum += row_load(in, r * stride + i, n);
        row_store(to, i, n, sum);
    }
}

/* The table of the instruction set this file was compiled for. */
#define CPU_KERNELS(isa)                                                                          \
    {                                                                                             \
        .name = isa, .lanes = LANES, .bf16_dot = HAS_DOT, .pack = pack_block, .gemm = gemm_block, \
        .partial_floats = attention_partial_floats, .attention = attention_task,                  \
        .attention_merge = attention_join, .norm = norm_row, .copy = copy_row, .add = add_row,    \
        .turn = turn_head, .sum_rows = sum_of_rows,                                               \
    }

#endif
