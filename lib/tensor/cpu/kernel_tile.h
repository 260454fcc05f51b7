/* kernel_tile.h - the one inner loop of gemm and attention, static in each cpu/kernels_*.c.
 *
 *   c[m][n] (+)= sum over k of a[m][k] * b[k][n],   m < rows, n < columns * LANES
 *
 * The unit of k is one f32, or a pair of bf16 where TILE_DOT: then each product is two. Every c[m][n] is its
 * own chain of additions in ascending k, so the value does not depend on rows, on columns, on which tile it
 * falls into, or on where k is interrupted. */
#ifndef REELKV_TENSOR_CPU_KERNEL_TILE_H
#define REELKV_TENSOR_CPU_KERNEL_TILE_H

#include <stdbool.h>

#include "tensor/cpu/simd.h"

enum tile_kind {
    TILE_F32,   /* a and b are f32 */
    TILE_WIDEN, /* a is f32, b is bf16 */
    TILE_DOT,   /* a and b are pairs of bf16 */
};

struct tile {
    const float *a; /* 4-byte units */
    size_t a_row, a_step;
    const void *b[2]; /* a vector of columns each, `b_step` elements from k to k */
    size_t b_step;
    size_t depth;
    float *c;
    size_t c_row;
    bool resume; /* start from what c holds, else from zero */
    const char
        *ahead; /* memory to fetch meanwhile, `ahead_step` bytes for each k; step 0: nothing worth it */
    size_t ahead_step;
};

INLINE vec tile_column(const void *b, size_t at, const enum tile_kind kind)
{
    return kind == TILE_WIDEN ? v_of_bf16((const uint16_t *)b + at) : v_load((const float *)b + at);
}

INLINE vec tile_multiply(vec a, vec b, vec sums, const enum tile_kind kind)
{
#ifdef __AVX512BF16__
    if (kind == TILE_DOT)
        return v_dot_bf16(a, b, sums);
#endif
    return v_fma(a, b, sums);
}

INLINE void tile_run(const struct tile *tile, const int rows, const int columns, const enum tile_kind kind)
{
    const float *a = tile->a;
    const char *ahead = tile->ahead;
    size_t a_row = tile->a_row, a_step = tile->a_step, b_step = tile->b_step, at = 0;
    vec sums[TILE_ROWS][2];

#pragma GCC unroll 14
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < columns; n++)
            sums[m][n] =
                tile->resume ? v_load(tile->c + (size_t)m * tile->c_row + (size_t)n * LANES) : v_all(0.0f);
    for (size_t k = 0; k < tile->depth; k++, a += a_step, at += b_step, ahead += tile->ahead_step) {
        vec b0 = tile_column(tile->b[0], at, kind), b1 = b0;

        __builtin_prefetch(ahead, 0, 2);
        if (columns == 2)
            b1 = tile_column(tile->b[1], at, kind);
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            vec value = v_all(a[(size_t)m * a_row]);

            sums[m][0] = tile_multiply(value, b0, sums[m][0], kind);
            if (columns == 2)
                sums[m][1] = tile_multiply(value, b1, sums[m][1], kind);
        }
    }
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < columns; n++)
            v_store(tile->c + (size_t)m * tile->c_row + (size_t)n * LANES, sums[m][n]);
}

#define TILE_CASE(n)                    \
    case n:                             \
        if (columns == 2)               \
            tile_run(tile, n, 2, kind); \
        else                            \
            tile_run(tile, n, 1, kind); \
        break;

/* rows 1 to TILE_ROWS, columns 1 or 2 */
INLINE void tile_of_kind(const struct tile *tile, uint32_t rows, uint32_t columns, const enum tile_kind kind)
{
    switch (rows) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
#if defined(__AVX512F__)
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
        TILE_CASE(13)
        TILE_CASE(14)
#endif
    }
}

/* Kept out of line: within other code GCC 12 gives the sums up to memory, at less than half the speed. */
static NOINLINE void tile_f32(const struct tile *tile, uint32_t rows, uint32_t columns)
{
    tile_of_kind(tile, rows, columns, TILE_F32);
}

/* The tile for bf16 weights, whatever this instruction set makes of them. */
#ifdef __AVX512BF16__
enum { HAS_DOT = 1 };

static NOINLINE void tile_bf16(const struct tile *tile, uint32_t rows, uint32_t columns)
{
    tile_of_kind(tile, rows, columns, TILE_DOT);
}
#else
enum { HAS_DOT = 0 };

static NOINLINE void tile_bf16(const struct tile *tile, uint32_t rows, uint32_t columns)
{
    tile_of_kind(tile, rows, columns, TILE_WIDEN);
}
#endif

#endif
