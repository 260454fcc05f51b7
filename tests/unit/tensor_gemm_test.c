#include <stdlib.h>

#include "support/tensor_rig.h"

/* A layer made for a test: its numbers as the device rounds them, and the device's copy. */
struct layer {
    uint32_t inputs, outputs;
    float *matrix, *bias; /* [outputs, inputs], [outputs] */
    struct tensor_weights *weights;
};

static void *stored(const float *numbers, enum tensor_dtype dtype, size_t count)
{
    void *bytes = malloc(count * 4 + 4);

    tensor_convert_host(bytes, dtype, numbers, TENSOR_F32, count);
    return bytes;
}

static void round_to(float *numbers, enum tensor_dtype dtype, size_t count)
{
    void *bytes = stored(numbers, dtype, count);

    tensor_convert_host(numbers, TENSOR_F32, bytes, dtype, count);
    free(bytes);
}

static struct layer make_layer(struct rig *rig, uint32_t inputs, const uint32_t *outputs, uint32_t parts,
                               enum tensor_dtype disk, enum tensor_dtype compute)
{
    struct tensor_weights_spec spec = { .inputs = inputs, .compute = compute, .part_count = parts };
    struct layer layer = { .inputs = inputs };
    struct status st = { 0 };
    uint32_t row = 0;

    for (uint32_t p = 0; p < parts; p++)
        layer.outputs += outputs[p];
    layer.matrix = malloc((size_t)layer.outputs * inputs * sizeof(float));
    layer.bias = malloc(layer.outputs * sizeof(float));
    rig_numbers(layer.matrix, (size_t)layer.outputs * inputs, 7);
    rig_numbers(layer.bias, layer.outputs, 8);
    round_to(layer.matrix, disk, (size_t)layer.outputs * inputs);
    round_to(layer.bias, disk, layer.outputs);
    for (uint32_t p = 0; p < parts; p++) {
        spec.parts[p].matrix = stored(layer.matrix + (size_t)row * inputs, disk, (size_t)outputs[p] * inputs);
        spec.parts[p].bias = stored(layer.bias + row, disk, outputs[p]);
        spec.parts[p].dtype = disk;
        spec.parts[p].outputs = outputs[p];
        row += outputs[p];
    }
    CHECK_OK(rig->ops->weights_create(&layer.weights, rig->device, &spec, &st), st);
    for (uint32_t p = 0; p < parts; p++) {
        free((void *)(uintptr_t)spec.parts[p].matrix);
        free((void *)(uintptr_t)spec.parts[p].bias);
    }
    round_to(layer.matrix, compute, (size_t)layer.outputs * inputs);
    return layer;
}

static void free_layer(struct rig *rig, struct layer *layer)
{
    struct status st = { 0 };

    CHECK_OK(rig->ops->queue_finish(rig->queue, &st), st);
    rig->ops->weights_destroy(layer->weights);
    free(layer->matrix);
    free(layer->bias);
}

static double epilogue_of(double x, double up, enum tensor_epilogue epilogue)
{
    switch (epilogue) {
    case TENSOR_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case TENSOR_GELU_ERF:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case TENSOR_SWIGLU:
        return x / (1 + exp(-x)) * up;
    default:
        return x;
    }
}

/* in [rows, inputs] as the device holds it; residual [rows, outputs] or NULL */
static double *expected(const struct layer *layer, const float *in, uint32_t rows,
                        enum tensor_epilogue epilogue, const float *residual)
{
    uint32_t cols = epilogue == TENSOR_SWIGLU ? layer->outputs / 2 : layer->outputs;
    double *want = malloc((size_t)rows * cols * sizeof *want);

    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t n = 0; n < cols; n++) {
            double sum[2];

            for (uint32_t half = 0; half < 2; half++) {
                uint32_t output = half * (layer->outputs - cols) + n;

                sum[half] = layer->bias[output];
                for (uint32_t k = 0; k < layer->inputs; k++)
                    sum[half] += (double)in[(size_t)r * layer->inputs + k] *
                                 layer->matrix[(size_t)output * layer->inputs + k];
            }
            want[(size_t)r * cols + n] = epilogue_of(sum[0], sum[1], epilogue) +
                                         (residual != NULL ? residual[(size_t)r * cols + n] : 0);
        }
    }
    return want;
}

struct shape {
    uint32_t rows, inputs, outputs[3], parts;
    enum tensor_epilogue epilogue;
    bool residual;
    enum tensor_dtype disk, out;
};

static void check_shape(struct rig *rig, const struct shape *shape, enum tensor_dtype compute)
{
    struct layer layer = make_layer(rig, shape->inputs, shape->outputs, shape->parts, shape->disk, compute);
    uint32_t cols = shape->epilogue == TENSOR_SWIGLU ? layer.outputs / 2 : layer.outputs;
    struct tensor in = rig_random(rig, compute, shape->rows, shape->inputs, 1);
    struct tensor out = rig_empty(rig, shape->out, shape->rows, cols);
    struct tensor residual = rig_random(rig, TENSOR_F32, shape->rows, cols, 2);
    struct tensor_gemm args = { .out = out, .in = in, .weights = layer.weights, .epilogue = shape->epilogue };
    struct status st = { 0 };
    float *host_in = rig_get(rig, in), *host_residual = rig_get(rig, residual), *got;
    double *want =
        expected(&layer, host_in, shape->rows, shape->epilogue, shape->residual ? host_residual : NULL);
    double error;

    args.residual = shape->residual ? &residual : NULL;
    args.group_ends = &shape->rows;
    args.group_count = 1;
    CHECK_OK(rig->ops->gemm(rig->queue, &args, &st), st);
    got = rig_get(rig, out);
    error = rig_error(got, want, (size_t)shape->rows * cols);
    if (!(error <= rig_tolerance(shape->out) * 2))
        test_fail(__FILE__, __LINE__, "%s: %u x %u x %u, epilogue %d, compute %d: off by %g", rig->label,
                  shape->rows, shape->inputs, layer.outputs, (int)shape->epilogue, (int)compute, error);
    free(host_in);
    free(host_residual);
    free(got);
    free(want);
    free_layer(rig, &layer);
}

/* Against sums in double: rows and sizes around every block and tile edge, all epilogues, all types on disk,
 * several parts, on every backend. */
TEST(gemm_is_the_product_it_claims_to_be)
{
    static const struct shape shapes[] = {
        { 1, 1, { 1 }, 1, TENSOR_PLAIN, false, TENSOR_F32, TENSOR_F32 },
        { 1, 896, { 130 }, 1, TENSOR_PLAIN, false, TENSOR_BF16, TENSOR_F32 },
        { 1, 4865, { 37 }, 1, TENSOR_PLAIN, true, TENSOR_F32, TENSOR_F32 },
        { 13, 64, { 48 }, 1, TENSOR_PLAIN, true, TENSOR_F16, TENSOR_F32 },
        { 14, 255, { 33 }, 1, TENSOR_GELU_TANH, false, TENSOR_F32, TENSOR_BF16 },
        { 15, 257, { 31 }, 1, TENSOR_GELU_ERF, false, TENSOR_F32, TENSOR_F32 },
        { 29, 600, { 70, 9, 9 }, 3, TENSOR_PLAIN, false, TENSOR_BF16, TENSOR_F32 },
        { 16, 128, { 384, 384 }, 2, TENSOR_SWIGLU, false, TENSOR_F32, TENSOR_BF16 },
        { 7, 33, { 21, 21 }, 2, TENSOR_SWIGLU, true, TENSOR_F16, TENSOR_F32 },
        { 197, 300, { 290 }, 1, TENSOR_PLAIN, true, TENSOR_BF16, TENSOR_F32 },
        { 400, 96, { 65 }, 1, TENSOR_GELU_TANH, false, TENSOR_F32, TENSOR_F32 },
    };

    RIG_EACH(rig)
    {
        for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
            check_shape(&rig, &shapes[i], TENSOR_F32);
            check_shape(&rig, &shapes[i], TENSOR_BF16);
        }
    }
}

/* Runs groups [first, last) of `in` in one call; returns the rows of group `pick`. */
static float *run_groups(struct rig *rig, const struct layer *layer, struct tensor in, const uint32_t *ends,
                         const uint32_t range[2], uint32_t pick)
{
    uint32_t base = range[0] > 0 ? ends[range[0] - 1] : 0, rows = ends[range[1] - 1] - base;
    uint32_t from = (pick > 0 ? ends[pick - 1] : 0) - base, own_ends[64];
    struct tensor out = rig_empty(rig, TENSOR_F32, rows, layer->outputs);
    struct tensor_gemm args = { .out = out,
                                .in = tensor_rows(in, base, rows),
                                .weights = layer->weights,
                                .epilogue = TENSOR_GELU_TANH,
                                .group_ends = own_ends,
                                .group_count = range[1] - range[0] };
    struct status st = { 0 };

    for (uint32_t i = range[0]; i < range[1]; i++)
        own_ends[i - range[0]] = ends[i] - base;
    CHECK_OK(rig->ops->gemm(rig->queue, &args, &st), st);
    return rig_get(rig, tensor_rows(out, from, ends[pick] - base - from));
}

/* A group's rows come out the same bit for bit alone and among any others: random group sizes, one row and
 * whole frames among them. */
TEST(gemm_of_a_group_is_the_same_alone_and_crowded)
{
    static const uint32_t outputs[] = { 200 };

    RIG_EACH(rig)
    {
        for (int bf16 = 0; bf16 < 2; bf16++) {
            enum tensor_dtype compute = bf16 ? TENSOR_BF16 : TENSOR_F32;
            struct layer layer = make_layer(&rig, 700, outputs, 1, TENSOR_F32, compute);
            uint32_t ends[12], rows = 0;
            struct tensor in;

            for (uint32_t i = 0; i < 12; i++) {
                rows += i % 3 == 0 ? 1 : rig_pick(5 + (uint64_t)bf16, i, 1, 230);
                ends[i] = rows;
            }
            in = rig_random(&rig, compute, rows, 700, 3);
            for (uint32_t pick = 0; pick < 12; pick++) {
                uint32_t alone[2] = { pick, pick + 1 }, all[2] = { 0, 12 };
                float *apart = run_groups(&rig, &layer, in, ends, alone, pick);
                float *among = run_groups(&rig, &layer, in, ends, all, pick);

                CHECK_MEM(apart, among,
                          (ends[pick] - (pick > 0 ? ends[pick - 1] : 0)) * (size_t)layer.outputs *
                              sizeof(float));
                free(apart);
                free(among);
            }
            free_layer(&rig, &layer);
        }
    }
}

/* One, two, three and eight workers give the same bits. */
TEST(gemm_does_not_depend_on_the_number_of_threads)
{
    static const char *const isas[] = { "avx512bf16", "avx512", "avx2", "portable" };
    static const uint32_t outputs[] = { 520 };

    for (size_t i = 0; i < ARRAY_LEN(isas); i++) {
        float *first = NULL;

        for (uint32_t threads = 1; threads <= 8; threads = threads < 3 ? threads + 1 : threads + 5) {
            struct tensor_options options = { threads, isas[i] };
            struct rig rig = { .ops = &tensor_ops_cpu };
            struct status st = { 0 };
            struct layer layer;
            struct tensor in;
            const uint32_t ends[] = { 1, 211 }, all[2] = { 0, 2 };
            float *got;

            CHECK_OK(rig.ops->device_open(&rig.device, &options, &st), st);
            CHECK_OK(rig.ops->queue_create(&rig.queue, rig.device, &st), st);
            layer = make_layer(&rig, 320, outputs, 1, TENSOR_BF16, TENSOR_BF16);
            in = rig_random(&rig, TENSOR_BF16, 211, 320, 4);
            got = run_groups(&rig, &layer, in, ends, all, 1);
            free_layer(&rig, &layer);
            rig.at = UINT32_MAX;
            CHECK(!rig_next(&rig));
            if (first == NULL) {
                first = got;
                continue;
            }
            CHECK_MEM(first, got, (size_t)210 * 520 * sizeof(float));
            free(got);
        }
        free(first);
    }
}

/* What does not fit is refused with a sentence, at the call or on waiting. */
static void check_refused(struct rig *rig, const struct tensor_gemm *args, const char *words)
{
    struct status st = { 0 };

    CHECK(!(rig->ops->gemm(rig->queue, args, &st) && rig->ops->queue_finish(rig->queue, &st)));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_HAS(st.text, words);
}

TEST(gemm_refuses_what_does_not_fit)
{
    static const uint32_t outputs[] = { 8 }, ends[] = { 3 }, short_ends[] = { 2 };

    RIG_EACH(rig)
    {
        struct layer layer = make_layer(&rig, 16, outputs, 1, TENSOR_F32, TENSOR_F32);
        struct tensor in = rig_random(&rig, TENSOR_F32, 3, 16, 1), out = rig_empty(&rig, TENSOR_F32, 3, 8);
        struct tensor_gemm good = {
            .out = out, .in = in, .weights = layer.weights, .group_ends = ends, .group_count = 1
        };
        struct tensor_gemm bad = good;

        bad.in.dtype = TENSOR_BF16;
        check_refused(&rig, &bad, "gemm's input has type 3");
        bad = good;
        bad.out.cols = 7;
        check_refused(&rig, &bad, "gemm's output must be");
        bad = good;
        bad.in.offset = 4;
        check_refused(&rig, &bad, "gemm's input ends past its buffer");
        bad = good;
        bad.group_ends = short_ends;
        check_refused(&rig, &bad, "the row groups end at 2");
        bad = good;
        bad.epilogue = TENSOR_SWIGLU;
        check_refused(&rig, &bad, "swiglu needs weights of two equal parts");
        free_layer(&rig, &layer);
    }
}

TEST(weights_refuse_what_they_cannot_hold)
{
    static const float one = 1;

    RIG_EACH(rig)
    {
        struct tensor_weights *weights = NULL;
        struct tensor_weights_spec spec = { .inputs = 1,
                                            .compute = TENSOR_F16,
                                            .part_count = 1,
                                            .parts = {
                                                { .matrix = &one, .dtype = TENSOR_F32, .outputs = 1 } } };
        struct status st = { 0 };

        CHECK(!rig.ops->weights_create(&weights, rig.device, &spec, &st));
        CHECK_EQ(st.code, STATUS_UNIMPLEMENTED);
        spec.compute = TENSOR_F32;
        spec.inputs = 0;
        CHECK(!rig.ops->weights_create(&weights, rig.device, &spec, &st));
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK(weights == NULL);
    }
}

TEST_MAIN()
