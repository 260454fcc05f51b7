#include "support/tensor_rig.h"

#include <stdlib.h>

#include "support/tensor_standin.h"

static const struct {
    const char *label, *numerics;
    const struct tensor_ops *ops;
    struct tensor_options options;
} all_rigs[] = {
    { "cpu, best, 2 threads", NULL, &tensor_ops_cpu, { 2, NULL } },
    { "cpu avx512bf16, 3 threads", "cpu avx512bf16", &tensor_ops_cpu, { 3, "avx512bf16" } },
    { "cpu avx512, 1 thread", "cpu avx512", &tensor_ops_cpu, { 1, "avx512" } },
    { "cpu avx2, 2 threads", "cpu avx2", &tensor_ops_cpu, { 2, "avx2" } },
    { "cpu portable, 5 threads", "cpu portable", &tensor_ops_cpu, { 5, "portable" } },
    { "stand-in", NULL, &tensor_ops_standin, { 2, NULL } },
};

static void close_rig(struct rig *rig)
{
    if (rig->ops == NULL)
        return;
    rig->ops->queue_destroy(rig->queue);
    for (uint32_t i = 0; i < rig->buffer_count; i++)
        rig->ops->buffer_destroy(rig->buffers[i]);
    rig->ops->device_close(rig->device);
    *rig = (struct rig){ .at = rig->at };
}

bool rig_next(struct rig *rig)
{
    struct status st = { 0 };

    close_rig(rig);
    while (rig->at < ARRAY_LEN(all_rigs)) {
        uint32_t at = rig->at++;

        rig->label = all_rigs[at].label;
        rig->ops = all_rigs[at].ops;
        CHECK_OK(rig->ops->device_open(&rig->device, &all_rigs[at].options, &st), st);
        if (all_rigs[at].numerics == NULL ||
            strcmp(all_rigs[at].numerics, rig->ops->numerics(rig->device)) == 0) {
            CHECK_OK(rig->ops->queue_create(&rig->queue, rig->device, &st), st);
            return true;
        }
        rig->ops->device_close(rig->device); /* this machine lacks the instructions */
        *rig = (struct rig){ .at = rig->at };
    }
    return false;
}

static uint64_t mix(uint64_t seed, uint64_t i)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + i + 1;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

float rig_number(uint64_t seed, size_t i)
{
    return (float)(int32_t)(mix(seed, i) >> 40) / 8388608.0f - 1.0f;
}

void rig_numbers(float *to, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++)
        to[i] = rig_number(seed, i);
}

uint32_t rig_pick(uint64_t seed, size_t i, uint32_t from, uint32_t to)
{
    return from + (uint32_t)(mix(seed, i) % (to - from));
}

static struct tensor_buffer *new_buffer(struct rig *rig, size_t bytes)
{
    struct status st = { 0 };
    struct tensor_buffer *buffer = NULL;

    REQUIRE(rig->buffer_count < RIG_BUFFERS_MAX);
    CHECK_OK(rig->ops->buffer_create(&buffer, rig->device, bytes, &st), st);
    rig->buffers[rig->buffer_count++] = buffer;
    return buffer;
}

struct tensor rig_empty(struct rig *rig, enum tensor_dtype dtype, uint32_t rows, uint32_t cols)
{
    return tensor_at(new_buffer(rig, (size_t)rows * cols * tensor_dtype_bytes(dtype)), 0, dtype, rows, cols);
}

struct tensor rig_put(struct rig *rig, const float *numbers, enum tensor_dtype dtype, uint32_t rows,
                      uint32_t cols)
{
    size_t count = (size_t)rows * cols, bytes = count * tensor_dtype_bytes(dtype);
    struct tensor made = rig_empty(rig, dtype, rows, cols);
    struct status st = { 0 };
    void *host = malloc(bytes);

    tensor_convert_host(host, dtype, numbers, TENSOR_F32, count);
    CHECK_OK(rig->ops->write(rig->queue, made.buffer, 0, host, bytes, &st), st);
    free(host);
    return made;
}

struct tensor rig_random(struct rig *rig, enum tensor_dtype dtype, uint32_t rows, uint32_t cols,
                         uint64_t seed)
{
    float *numbers = malloc((size_t)rows * cols * sizeof *numbers);
    struct tensor made;

    rig_numbers(numbers, (size_t)rows * cols, seed);
    made = rig_put(rig, numbers, dtype, rows, cols);
    free(numbers);
    return made;
}

float *rig_get_heads(struct rig *rig, struct tensor_heads from)
{
    size_t size = tensor_dtype_bytes(from.dtype), dim = from.head_dim;
    float *got = malloc((size_t)from.heads * from.tokens * dim * sizeof *got);
    uint8_t row[TENSOR_COLS_MAX * 4 / 16];
    struct status st = { 0 };

    REQUIRE(dim * size <= sizeof row);
    for (uint32_t h = 0; h < from.heads; h++) {
        for (uint32_t t = 0; t < from.tokens; t++) {
            size_t at = from.offset + (h * from.head_stride + t * from.token_stride) * size;

            CHECK_OK(rig->ops->read(rig->queue, row, from.buffer, at, dim * size, &st), st);
            tensor_convert_host(got + ((size_t)h * from.tokens + t) * dim, TENSOR_F32, row, from.dtype, dim);
        }
    }
    return got;
}

float *rig_get(struct rig *rig, struct tensor from)
{
    return rig_get_heads(rig, tensor_heads_of(from, 1));
}

double rig_error(const float *got, const double *want, size_t count)
{
    double worst = 0, largest = 1e-30;

    for (size_t i = 0; i < count; i++) {
        double off = fabs(got[i] - want[i]);

        worst = !(off <= worst) ? off : worst; /* NaN stays */
        largest = fabs(want[i]) > largest ? fabs(want[i]) : largest;
    }
    return worst / largest;
}

double rig_tolerance(enum tensor_dtype dtype)
{
    return dtype == TENSOR_F32 ? 2e-6 : dtype == TENSOR_F16 ? 6e-4 : 5e-3;
}
