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

INLINE vec epilogue_of(vec sums, vec up, const enum tensor_epilogue epilogue)
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

/* What becomes of the sums of one tile: `blocks` are its two column blocks (equal when there is one only), `row`
 * its first row of the output. */
struct finish {
    const struct cpu_gemm *gemm;
    const float *sums; /* [rows][2 * LANES] */
    uint32_t blocks[2], row, rows;
};

INLINE vec load_some(const float *from, uint32_t count)
{
    float lanes[LANES] = { 0 };

    if (count == LANES)
        return v_load(from);
    memcpy(lanes, from, count * sizeof(float));
    return v_load(lanes);
}

INLINE void store_some(const struct cpu_gemm *gemm, uint32_t row, struct cpu_block block, vec value)
{
    uint8_t *out = gemm->out + row * gemm->out_stride;
    float lanes[LANES];
    uint16_t half[LANES];

    if (gemm->out_dtype == TENSOR_F32) {
        if (block.count == LANES) {
            v_store((float *)out + block.col, value);
            return;
        }
        v_store(lanes, value);
        memcpy((float *)out + block.col, lanes, block.count * sizeof(float));
    } else {
        if (block.count == LANES) {
            v_to_bf16((uint16_t *)out + block.col, value);
            return;
        }
        v_to_bf16(half, value);
        memcpy((uint16_t *)out + block.col, half, block.count * sizeof(uint16_t));
    }
}

INLINE void finish_with(const struct finish *tile, const enum tensor_epilogue epilogue)
{
    const struct cpu_gemm *gemm = tile->gemm;
    const float *bias = gemm->weights->bias;
    int columns = epilogue == TENSOR_SWIGLU || tile->blocks[0] == tile->blocks[1] ? 1 : 2;
    vec up_bias = v_load(bias + (size_t)tile->blocks[1] * LANES);

    for (int n = 0; n < columns; n++) {
        struct cpu_block block = gemm->weights->blocks[tile->blocks[n]];
        vec own_bias = v_load(bias + (size_t)tile->blocks[n] * LANES);

        for (uint32_t m = 0; m < tile->rows; m++) {
            const float *sums = tile->sums + (size_t)m * 2 * LANES;
            uint32_t row = tile->row + m;
            vec value = v_load(sums + n * LANES) + own_bias, up = v_all(0.0f);

            if (epilogue == TENSOR_SWIGLU)
                up = v_load(sums + LANES) + up_bias;
            value = epilogue_of(value, up, epilogue);
            if (gemm->residual != NULL)
                value += load_some(gemm->residual + row * gemm->residual_stride + block.col, block.count);
            store_some(gemm, row, block, value);
        }
    }
}

static void finish_tile(const struct finish *tile)
{
    switch (tile->gemm->epilogue) {
    case TENSOR_GELU_TANH:
        finish_with(tile, TENSOR_GELU_TANH);
        break;
    case TENSOR_GELU_ERF:
        finish_with(tile, TENSOR_GELU_ERF);
        break;
    case TENSOR_SWIGLU:
        finish_with(tile, TENSOR_SWIGLU);
        break;
    case TENSOR_PLAIN:
        finish_with(tile, TENSOR_PLAIN);
        break;
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
    uint32_t count = rows.to - rows.from, tiles = (count + TILE_ROWS - 1) / TILE_ROWS;
    size_t next = gemm->epilogue == TENSOR_SWIGLU ? 1 : 2;
    struct finish finish = { .gemm = gemm };
    struct tile tile = { .a_row = step->inputs_stride,
                         .a_step = 1,
                         .b_step = LANES,
                         .depth = step->depth,
                         .c_row = 2 * LANES,
                         .resume = step->from > 0 };

    blocks_of(gemm, column, finish.blocks);
    for (int n = 0; n < 2; n++)
        tile.b[n] = (const uint8_t *)weights->packed + finish.blocks[n] * weights->block_bytes + skip;
    for (uint32_t i = 0; i < tiles;
         i++) { /* of equal height: a tile of one row costs as much as one of four */
        uint32_t row = count * i / tiles, tall = count * (i + 1) / tiles - row;

        /* The first two tiles fetch the two column blocks that come next. */
        tile.ahead_step = i < 2 ? 64 : 0;
        tile.ahead = (const char *)tile.b[i < 2 ? i : 0] + (i < 2 ? next * weights->block_bytes : 0);
        tile.a = step->inputs + row * step->inputs_stride;
        tile.c = step->sums + (size_t)row * 2 * LANES;
        if (f32)
            tile_f32(&tile, tall, finish.blocks[0] == finish.blocks[1] ? 1 : 2);
        else
            tile_bf16(&tile, tall, finish.blocks[0] == finish.blocks[1] ? 1 : 2);
        if (step->last) {
            finish.sums = tile.c;
            finish.row = rows.from + row;
            finish.rows = tall;
            finish_tile(&finish);
        }
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
