/* tensor_rig.h - every tensor backend, instruction set and number of threads a test should run on, and numbers
 * to feed them.
 *
 *   RIG_EACH(rig) { struct tensor a = rig_random(&rig, TENSOR_F32, rows, cols, seed); ... }
 *
 * Owner: a rig owns its device and every buffer rig_*() made; the loop frees them when it moves on. Failures of
 *        the backend fail the running test. */
#ifndef REELKV_TENSOR_RIG_H
#define REELKV_TENSOR_RIG_H

#include "support/test.h"
#include "tensor/tensor.h"

enum { RIG_BUFFERS_MAX = 512 };

struct rig {
    const char *label; /* "cpu avx2, 3 threads" */
    const struct tensor_ops *ops;
    struct tensor_device *device;
    struct tensor_queue *queue;
    struct tensor_buffer *buffers[RIG_BUFFERS_MAX];
    uint32_t buffer_count;
    uint32_t at; /* which one of all */
};

/* Opens the next rig this machine has, frees the one before; false after the last. Start from a zero struct. */
bool rig_next(struct rig *rig);

#define RIG_EACH(rig) for (struct rig rig = { 0 }; rig_next(&rig);)

/* Numbers in [-1, 1), a function of the seed and the place only. */
float rig_number(uint64_t seed, size_t i);
void rig_numbers(float *to, size_t count, uint64_t seed);
uint32_t rig_pick(uint64_t seed, size_t i, uint32_t from, uint32_t to); /* from <= x < to */

/* A compact matrix on the device: from host f32 numbers (rounded to the type), random, or unset. */
struct tensor rig_put(struct rig *rig, const float *numbers, enum tensor_dtype dtype, uint32_t rows,
                      uint32_t cols);
struct tensor rig_random(struct rig *rig, enum tensor_dtype dtype, uint32_t rows, uint32_t cols,
                         uint64_t seed);
struct tensor rig_empty(struct rig *rig, enum tensor_dtype dtype, uint32_t rows, uint32_t cols);

/* malloc'd f32 copies of what is on the device; `rig_get` in the view's rows and columns. */
float *rig_get(struct rig *rig, struct tensor from);
float *rig_get_heads(struct rig *rig, struct tensor_heads from);

/* max |got - want| / max |want|; want in double */
double rig_error(const float *got, const double *want, size_t count);

/* tanh of 1 is fine, so is 2e-2: what a result of this type may be off by, relative to the largest. */
double rig_tolerance(enum tensor_dtype dtype);

#endif
