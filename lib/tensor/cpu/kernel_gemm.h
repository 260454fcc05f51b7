/* kernel_gemm.h - packing of weights and one block of a gemm, static in each cpu/kernels_*.c.
 *
 * A task copies its rows of the input, CPU_DEPTH_BLOCK deep, side by side (a stride that is no power of two
 * keeps them apart in the cache), then walks pairs of column blocks (weights in L1) and in them tiles of rows
 * (inputs from L2). Sums wait in scratch between depths. Splitting rows, columns or depth differently
 * changes no bit (kernel_tile.h), so block sizes need not agree with anything. */
#ifndef REELKV_TENSOR_CPU_KERNEL_GEMM_H
#define REELKV_TENSOR_CPU_KERNEL_GEMM_H

#include "tensor/cpu/cpu.h"
#include "tensor/cpu/kernel_tile.h"

enum { DEPTH_PAD = 16 };

_Static_assert((CPU_ROWS_BLOCK * (CPU_DEPTH_BLOCK + DEPTH_PAD) + CPU_ROWS_BLOCK * CPU_COLS_BLOCK) * 4 <=
                   CPU_WORKER_BYTES,
               "a gemm task must fit its scratch");
_Static_assert((TILE_ROWS * (CPU_DEPTH_FEW + DEPTH_PAD) + CPU_ROWS_BLOCK * CPU_COLS_BLOCK) * 4 <=
                   CPU_WORKER_BYTES,
               "a gemm task of few rows must fit its scratch");

/* `rows` is [lanes][inputs] f32, zero where a block is not full. */
static void pack_block(struct tensor_weights *weights, uint32_t block, const float *rows)
{
    uint8_t *to = (uint8_t *)weights->packed + block * weights->block_bytes;
    uint32_t inputs = weights->inputs;

    for (uint32_t k = 0; k < inputs; k++) {
        for (uint32_t lane = 0; lane < LANES; lane++) {
            float value = rows[(size_t)lane * inputs + k];

            if (weights->compute == TENSOR_F32)
                ((float *)to)[(size_t)k * LANES + lane] = value;
            else if (HAS_DOT)
                ((uint16_t *)to)[((size_t)(k / 2) * LANES + lane) * 2 + k % 2] = number_bf16_of_f32(value);
            else
                ((uint16_t *)to)[(size_t)k * LANES + lane] = number_bf16_of_f32(value);
        }
    }
    if (weights->compute == TENSOR_BF16 && HAS_DOT && inputs % 2 == 1)
        for (uint32_t lane = 0; lane < LANES; lane++)
            ((uint16_t *)to)[((size_t)(inputs / 2) * LANES + lane) * 2 + 1] = 0;
}

/* Units [from, from + depth) of one input row, zero past its end. */
INLINE void copy_inputs(float *to, const uint8_t *row, const struct tensor_weights *weights, size_t from,
                        size_t depth)
{
    size_t inputs = weights->inputs;

    if (weights->compute == TENSOR_F32) {
        memcpy(to, (const float *)row + from, depth * sizeof(float));
    } else if (HAS_DOT) {
        size_t first = from * 2, count = first + depth * 2 <= inputs ? depth * 2 : inputs - first;

        to[depth - 1] = 0.0f;
        memcpy(to, (const uint16_t *)row + first, count * sizeof(uint16_t));
    } else {
        const uint16_t *half = (const uint16_t *)row + from;
        size_t k = 0;

        for (; k + LANES <= depth; k += LANES)
            v_store(to + k, v_of_bf16(half + k));
        for (; k < depth; k++)
            to[k] = number_f32_of_bf16(half[k]);
    }
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x * sigmoid(2 sqrt(2/pi) (...)) */
INLINE vec gelu_tanh(vec x)
{
    return x * v_sigmoid(1.5957691216f * (x + 0.044715f * x * x * x));
}

/* x * Phi(x); erf by Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7. */
INLINE vec gelu_erf(vec x)
{
    vec z = v_max(x, -x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z), p;

    p = v_fma(v_all(1.061405429f), t, v_all(-1.453152027f));
    p = v_fma(p, t, v_all(1.421413741f));
    p = v_fma(p, t, v_all(-0.284496736f));
    p = v_fma(p, t, v_all(0.254829592f)) * t;
    p = 0.5f * p * v_exp2(z * z * -1.44269504f); /* erfc(z) / 2, the small tail */
    return x * v_select(x < v_all(0.0f), p, 1.0f - p);
}

INLINE vec epilogue_of(vec sums, vec up, enum tensor_epilogue epilogue)
{
    switch (epilogue) {
    case TENSOR_GELU_TANH:
        return gelu_tanh(sums);
    case TENSOR_GELU_ERF:
        return gelu_erf(sums);
    case TENSOR_SWIGLU:
        return sums * v_sigmoid(sums) * up;
    default:
        return sums;
    }
}

/* Bias, epilogue, residual and the store of `count` columns of one row; `sums` holds one or two vectors. */
INLINE void finish_row(const struct cpu_gemm *gemm, const float *sums, const uint32_t blocks[2], uint32_t row)
{
    const struct tensor_weights *weights = gemm->weights;
    bool gated = gemm->epilogue == TENSOR_SWIGLU;

    for (int n = 0; n < (gated || blocks[0] == blocks[1] ? 1 : 2); n++) {
        struct cpu_block block = weights->blocks[blocks[n]];
        vec value = v_load(sums + n * LANES) + v_load(weights->bias + (size_t)blocks[n] * LANES), up = value;
        float lanes[LANES];
        uint16_t half[LANES];

        if (gated)
            up = v_load(sums + LANES) + v_load(weights->bias + (size_t)blocks[1] * LANES);
        value = epilogue_of(value, up, gemm->epilogue);
        if (gemm->residual != NULL) {
            memset(lanes, 0, sizeof lanes);
            memcpy(lanes, gemm->residual + row * gemm->residual_stride + block.col,
                   block.count * sizeof(float));
            value += v_load(lanes);
        }
        if (gemm->out_dtype == TENSOR_F32) {
            float *out = (float *)(gemm->out + row * gemm->out_stride) + block.col;

            if (block.count == LANES) {
                v_store(out, value);
            } else {
                v_store(lanes, value);
                memcpy(out, lanes, block.count * sizeof(float));
            }
        } else {
            v_to_bf16(half, value);
            memcpy((uint16_t *)(gemm->out + row * gemm->out_stride) + block.col, half,
                   block.count * sizeof(uint16_t));
        }
    }
}

/* The two column blocks that column c of a task covers: neighbours, or gate and up; equal when alone. */
INLINE void blocks_of(const struct cpu_gemm *gemm, uint32_t column, uint32_t blocks[2])
{
    if (gemm->epilogue == TENSOR_SWIGLU) {
        blocks[0] = column;
        blocks[1] = column + gemm->weights->block_count / 2;
    } else {
        blocks[0] = 2 * column;
        blocks[1] = 2 * column + 1 < gemm->weights->block_count ? 2 * column + 1 : 2 * column;
    }
}

struct gemm_step {
    const float *inputs;
    size_t inputs_stride, from, depth;
    float *sums;
    bool last;
};

/* One depth of one pair of column blocks, over all rows of the task. */
static void gemm_column(const struct cpu_gemm *gemm, struct cpu_range rows, uint32_t column,
                        const struct gemm_step *step)
{
    const struct tensor_weights *weights = gemm->weights;
    bool f32 = weights->compute == TENSOR_F32;
    size_t skip = step->from * LANES * (f32 || HAS_DOT ? 4 : 2);
    uint32_t blocks[2], count = rows.to - rows.from;
    struct tile tile = { .a_row = step->inputs_stride,
                         .a_step = 1,
                         .b_step = LANES,
                         .depth = step->depth,
                         .c_row = 2 * LANES,
                         .resume = step->from > 0 };

    blocks_of(gemm, column, blocks);
    for (int n = 0; n < 2; n++)
        tile.b[n] = (const uint8_t *)weights->packed + blocks[n] * weights->block_bytes + skip;
    for (uint32_t row = 0; row < count; row += TILE_ROWS) {
        uint32_t tall = count - row < TILE_ROWS ? count - row : TILE_ROWS;

        tile.a = step->inputs + row * step->inputs_stride;
        tile.c = step->sums + (size_t)row * 2 * LANES;
        if (f32)
            tile_f32(&tile, tall, blocks[0] == blocks[1] ? 1 : 2);
        else
            tile_bf16(&tile, tall, blocks[0] == blocks[1] ? 1 : 2);
        if (step->last)
            for (uint32_t m = 0; m < tall; m++)
                finish_row(gemm, tile.c + (size_t)m * 2 * LANES, blocks, rows.from + row + m);
    }
}

/* Rows and columns (pairs of blocks, see blocks_of) of one task: at most CPU_ROWS_BLOCK and
 * CPU_COLS_BLOCK / (2 LANES). */
static void gemm_block(const struct cpu_gemm *gemm, struct cpu_range rows, struct cpu_range columns,
                       uint8_t *scratch)
{
    const struct tensor_weights *weights = gemm->weights;
    uint32_t count = rows.to - rows.from;
    size_t limit = count <= TILE_ROWS ? CPU_DEPTH_FEW : CPU_DEPTH_BLOCK;
    size_t steps = (weights->depth + limit - 1) / limit;
    size_t depth = ((weights->depth + steps - 1) / steps + 15) / 16 * 16;
    float *sums = (float *)scratch, *inputs = sums + CPU_ROWS_BLOCK * CPU_COLS_BLOCK;

    for (size_t from = 0; from < weights->depth; from += depth) {
        struct gemm_step step = { .inputs = inputs, .from = from, .inputs_stride = depth + DEPTH_PAD };

        step.depth = weights->depth - from < depth ? weights->depth - from : depth;
        step.last = from + step.depth == weights->depth;
        for (uint32_t row = 0; row < count; row++)
            copy_inputs(inputs + row * step.inputs_stride, gemm->in + (rows.from + row) * gemm->in_stride,
                        weights, from, step.depth);
        for (uint32_t column = columns.from; column < columns.to; column++) {
            step.sums = sums + (size_t)(column - columns.from) * CPU_ROWS_BLOCK * 2 * LANES;
            gemm_column(gemm, rows, column, &step);
        }
    }
}

#endif
