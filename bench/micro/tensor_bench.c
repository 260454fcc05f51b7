/* tensor_bench - how near the CPU backend comes to what the machine can do, on the shapes of LLaVA-OneVision.
 *
 * usage: tensor_bench [--threads N] [--isa NAME] [--only TEXT] [--seconds S] [--json]
 *
 * Each case alternates with samples of its limit (peak.h) for S seconds; printed are the medians and the median of
 * the shares. Decoding rows are limited by reading memory, the others by arithmetic. A row "onednn" is the same
 * product by that library, with weights packed as it likes them and as many threads of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/require.h"
#include "peak.h"
#include "peer_dnnl.h"
#include "tensor/tensor.h"

enum { SAMPLES_MAX = 400, COPIES_MAX = 64 };

struct bench {
    uint32_t threads;
    const char *isa, *only;
    double seconds;
    struct json *rows; /* NULL: a table for people */
    struct tensor_device *device;
    struct tensor_queue *queue;
};

/* One thing to time. `run` does it once; operations or bytes say how much that is. */
struct bench_case {
    char name[64];
    enum peak_kind limit;
    double amount;
    void (*run)(void *context);
    void *context;
};

static const struct tensor_ops *const ops = &tensor_ops_cpu;

static void must(bool ok, const struct status *st)
{
    if (ok)
        return;
    fprintf(stderr, "tensor_bench: %s\n", st->text);
    exit(EXIT_FAILURE);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static bool wanted(const struct bench *bench, const char *name)
{
    return bench->only == NULL || strstr(name, bench->only) != NULL;
}

static void print_row(struct bench *bench, const struct bench_case *row, double rate, double share,
                      double milliseconds)
{
    const char *unit = row->limit == PEAK_READ ? "GB/s" : "GFLOP/s";

    if (bench->rows != NULL) {
        struct json *object = json_make_object();

        json_set_str(object, "name", row->name);
        json_set_str(object, "unit", unit);
        json_set_f64(object, "rate", rate * 1e-9);
        json_set_f64(object, "share", share);
        json_set_f64(object, "milliseconds", milliseconds);
        json_append(bench->rows, object);
    } else {
        printf("%-44s %9.3f ms %8.1f %-7s %5.1f %%\n", row->name, milliseconds, rate * 1e-9, unit,
               share * 100);
        fflush(stdout);
    }
}

static double time_once(const struct bench *bench, const struct bench_case *row, uint32_t repeats)
{
    uint64_t start = bench_now_ns(bench->threads);

    for (uint32_t i = 0; i < repeats; i++)
        row->run(row->context);
    return (double)(bench_now_ns(bench->threads) - start) * 1e-9 / repeats;
}

static void run_case(struct bench *bench, const struct bench_case *row)
{
    double shares[SAMPLES_MAX], rates[SAMPLES_MAX], spent, total = 0;
    size_t count = 0;
    uint32_t repeats;

    time_once(bench, row, 1);
    spent = time_once(bench, row, 1);
    repeats = spent < 0.004 ? (uint32_t)(0.004 / spent) + 1 : 1;
    while ((total < bench->seconds || count < 5) && count < SAMPLES_MAX) {
        double limit = peak_sample(row->limit, bench->isa, bench->threads, 0.004);

        spent = time_once(bench, row, repeats);
        rates[count] = row->amount / spent;
        shares[count] = rates[count] / limit;
        count++;
        total += spent * repeats + 0.004;
    }
    spent = row->amount / median(rates, count);
    print_row(bench, row, row->amount / spent, median(shares, count), spent * 1e3);
}

static struct tensor filled(struct bench *bench, enum tensor_dtype dtype, uint32_t rows, uint32_t cols)
{
    size_t count = (size_t)rows * cols, bytes = count * tensor_dtype_bytes(dtype);
    float *numbers = malloc(count * sizeof *numbers);
    void *host = malloc(bytes);
    struct tensor_buffer *buffer = NULL;
    struct status st = { 0 };

    REQUIRE(numbers != NULL && host != NULL);
    for (size_t i = 0; i < count; i++)
        numbers[i] = (float)(int)(i * 2654435761u % 2048) / 1024.0f - 1.0f;
    tensor_convert_host(host, dtype, numbers, TENSOR_F32, count);
    must(ops->buffer_create(&buffer, bench->device, bytes, &st) &&
             ops->write(bench->queue, buffer, 0, host, bytes, &st),
         &st);
    free(numbers);
    free(host);
    return tensor_at(buffer, 0, dtype, rows, cols);
}

struct gemm_shape {
    const char *name;
    uint32_t rows, inputs, outputs;
    enum tensor_epilogue epilogue;
};

struct gemm_context {
    struct bench *bench;
    struct tensor_gemm args;
    struct tensor_weights *copies[COPIES_MAX]; /* rotated, so that no cache holds them */
    uint32_t copy_count, next;
};

static void run_gemm(void *argument)
{
    struct gemm_context *context = argument;
    struct status st = { 0 };

    context->args.weights = context->copies[context->next++ % context->copy_count];
    must(ops->gemm(context->bench->queue, &context->args, &st), &st);
}

static void make_copies(struct gemm_context *context, const struct gemm_shape *shape, enum tensor_dtype dtype)
{
    size_t bytes = (size_t)shape->inputs * shape->outputs * tensor_dtype_bytes(dtype);
    struct tensor host = filled(context->bench, dtype, shape->outputs, shape->inputs);
    void *matrix = malloc(bytes);
    struct status st = { 0 };
    uint32_t parts = shape->epilogue == TENSOR_SWIGLU ? 2 : 1;
    struct tensor_weights_spec spec = { .inputs = shape->inputs, .compute = dtype, .part_count = parts };

    must(ops->read(context->bench->queue, matrix, host.buffer, 0, bytes, &st), &st);
    for (uint32_t p = 0; p < parts; p++)
        spec.parts[p] = (struct tensor_weights_part){ .matrix = (const uint8_t *)matrix + p * (bytes / 2),
                                                      .dtype = dtype,
                                                      .outputs = shape->outputs / parts };
    context->copy_count = (uint32_t)((160u << 20) / bytes) + 1;
    if (context->copy_count > COPIES_MAX)
        context->copy_count = COPIES_MAX;
    for (uint32_t i = 0; i < context->copy_count; i++)
        must(ops->weights_create(&context->copies[i], context->bench->device, &spec, &st), &st);
    free(matrix);
    ops->buffer_destroy(host.buffer);
}

static void bench_peer(struct bench *bench, const struct bench_case *row, const struct gemm_shape *shape,
                       bool bf16)
{
    struct peer_dnnl *peer =
        peer_dnnl_create(shape->rows, shape->inputs, shape->outputs, bf16, bench->threads);
    struct bench_case other = *row;

    if (peer == NULL)
        return;
    snprintf(other.name, sizeof other.name, "%.50s, onednn", row->name);
    other.run = peer_dnnl_run;
    other.context = peer;
    run_case(bench, &other);
    peer_dnnl_destroy(peer);
}

static void bench_gemm(struct bench *bench, const struct gemm_shape *shape, enum tensor_dtype dtype)
{
    struct gemm_context context = { .bench = bench };
    struct bench_case row = { .run = run_gemm, .context = &context };
    uint32_t cols = shape->epilogue == TENSOR_SWIGLU ? shape->outputs / 2 : shape->outputs;
    bool bf16 = dtype == TENSOR_BF16;

    snprintf(row.name, sizeof row.name, "gemm %s %s", bf16 ? "bf16" : "f32", shape->name);
    if (!wanted(bench, row.name))
        return;
    row.limit = shape->rows == 1 ? PEAK_READ : bf16 ? PEAK_BF16 : PEAK_F32;
    row.amount = shape->rows == 1 ? (double)shape->inputs * shape->outputs * tensor_dtype_bytes(dtype)
                                  : 2.0 * shape->rows * shape->inputs * shape->outputs;
    make_copies(&context, shape, dtype);
    context.args = (struct tensor_gemm){ .out = filled(bench, TENSOR_F32, shape->rows, cols),
                                         .in = filled(bench, dtype, shape->rows, shape->inputs),
                                         .epilogue = shape->epilogue,
                                         .group_ends = &shape->rows,
                                         .group_count = 1 };
    run_case(bench, &row);
    bench_peer(bench, &row, shape, bf16);
    for (uint32_t i = 0; i < context.copy_count; i++)
        ops->weights_destroy(context.copies[i]);
    ops->buffer_destroy(context.args.in.buffer);
    ops->buffer_destroy(context.args.out.buffer);
}

struct attention_shape {
    const char *name;
    uint32_t heads, kv_heads, head_dim, queries, keys;
    bool causal;
};

struct attention_context {
    struct bench *bench;
    struct tensor_attention args;
};

static void run_attention(void *argument)
{
    struct attention_context *context = argument;
    struct status st = { 0 };

    must(ops->attention(context->bench->queue, &context->args, &st), &st);
}

/* Queries over keys held as segments of one frame each, as the analyzer holds them. */
static void bench_attention(struct bench *bench, const struct attention_shape *shape, enum tensor_dtype dtype)
{
    enum { FRAME = 196 };
    uint32_t frames = shape->keys / FRAME, width = shape->heads * shape->head_dim;
    struct tensor_segment *segments = calloc(frames + 1, sizeof *segments);
    struct tensor keys, values, q, out;
    struct tensor_attention_item item = { .segments = segments };
    struct attention_context context = { .bench = bench, .args = { 0.125f, &item, 1 } };
    struct bench_case row = { .run = run_attention, .context = &context };
    bool bf16 = dtype == TENSOR_BF16;

    snprintf(row.name, sizeof row.name, "attention %s %s", bf16 ? "bf16" : "f32", shape->name);
    REQUIRE(segments != NULL);
    if (!wanted(bench, row.name)) {
        free(segments);
        return;
    }
    keys = filled(bench, dtype, shape->kv_heads * shape->keys, shape->head_dim);
    values = filled(bench, dtype, shape->kv_heads * shape->keys, shape->head_dim);
    q = filled(bench, dtype, shape->queries, width);
    out = filled(bench, dtype, shape->queries, width);
    for (uint32_t first = 0; first < shape->keys; first += FRAME) {
        struct tensor_segment *segment = &segments[item.segment_count++];
        uint32_t tokens = shape->keys - first < FRAME ? shape->keys - first : FRAME;
        size_t at = (size_t)first * shape->kv_heads * shape->head_dim * tensor_dtype_bytes(dtype);

        *segment = (struct tensor_segment){ .first_index = first, .max_distance = TENSOR_DISTANCE_MAX };
        segment->min_distance = shape->causal ? 0 : TENSOR_DISTANCE_MIN;
        segment->keys = tensor_heads_at(keys.buffer, at, dtype, shape->kv_heads, tokens, shape->head_dim);
        segment->values = tensor_heads_at(values.buffer, at, dtype, shape->kv_heads, tokens, shape->head_dim);
    }
    item.q = tensor_heads_of(q, shape->heads);
    item.out = tensor_heads_of(out, shape->heads);
    item.first_index = shape->keys - shape->queries;
    row.limit = shape->queries == 1 ? PEAK_READ : bf16 ? PEAK_BF16 : PEAK_F32;
    row.amount = shape->queries == 1
                     ? 2.0 * shape->kv_heads * shape->keys * shape->head_dim * tensor_dtype_bytes(dtype)
                     : 4.0 * width * shape->queries * shape->keys;
    run_case(bench, &row);
    ops->buffer_destroy(keys.buffer);
    ops->buffer_destroy(values.buffer);
    ops->buffer_destroy(q.buffer);
    ops->buffer_destroy(out.buffer);
    free(segments);
}

static const struct gemm_shape gemm_shapes[] = {
    { "siglip qkvo 729x1152x1152", 729, 1152, 1152, TENSOR_PLAIN },
    { "siglip fc1 729x1152x4304", 729, 1152, 4304, TENSOR_GELU_TANH },
    { "siglip fc2 729x4304x1152", 729, 4304, 1152, TENSOR_PLAIN },
    { "qwen-0.5b qo 196x896x896", 196, 896, 896, TENSOR_PLAIN },
    { "qwen-0.5b kv 196x896x256", 196, 896, 256, TENSOR_PLAIN },
    { "qwen-0.5b gate/up 196x896x9728", 196, 896, 9728, TENSOR_SWIGLU },
    { "qwen-0.5b down 196x4864x896", 196, 4864, 896, TENSOR_PLAIN },
    { "qwen-0.5b gate/up 1568x896x9728", 1568, 896, 9728, TENSOR_SWIGLU },
    { "qwen-7b gate/up 196x3584x37888", 196, 3584, 37888, TENSOR_SWIGLU },
    { "question gate/up 30x896x9728", 30, 896, 9728, TENSOR_SWIGLU },
    { "decode qo 1x896x896", 1, 896, 896, TENSOR_PLAIN },
    { "decode gate/up 1x896x9728", 1, 896, 9728, TENSOR_SWIGLU },
    { "decode down 1x4864x896", 1, 4864, 896, TENSOR_PLAIN },
    { "decode head 1x896x151936", 1, 896, 151936, TENSOR_PLAIN },
    { "decode 7b gate/up 1x3584x37888", 1, 3584, 37888, TENSOR_SWIGLU },
};

static const struct attention_shape attention_shapes[] = {
    { "qwen-0.5b frame 196 over 15104", 14, 2, 64, 196, 15104, true },
    { "qwen-7b frame 196 over 15104", 28, 4, 128, 196, 15104, true },
    { "qwen-0.5b question 30 over 12544", 14, 2, 64, 30, 12544, true },
    { "siglip 729 over 729", 16, 16, 72, 729, 729, false },
    { "decode qwen-0.5b 1 over 125440", 14, 2, 64, 1, 125440, true },
    { "decode qwen-7b 1 over 125440", 28, 4, 128, 1, 125440, true },
};

static void bench_all(struct bench *bench)
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        enum tensor_dtype dtype = bf16 ? TENSOR_BF16 : TENSOR_F32;

        for (size_t i = 0; i < ARRAY_LEN(gemm_shapes); i++)
            bench_gemm(bench, &gemm_shapes[i], dtype);
        for (size_t i = 0; i < ARRAY_LEN(attention_shapes); i++)
            bench_attention(bench, &attention_shapes[i], dtype);
    }
}

static bool parse(struct bench *bench, bool *json_p, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            *json_p = true;
        else if (i + 1 == argc)
            return false;
        else if (strcmp(argv[i], "--threads") == 0)
            bench->threads = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--isa") == 0)
            bench->isa = argv[++i];
        else if (strcmp(argv[i], "--only") == 0)
            bench->only = argv[++i];
        else if (strcmp(argv[i], "--seconds") == 0)
            bench->seconds = strtod(argv[++i], NULL);
        else
            return false;
    }
    return bench->threads >= 1 && bench->threads <= TENSOR_THREADS_MAX;
}

int main(int argc, char **argv)
{
    struct bench bench = { .threads = 1, .seconds = 0.5 };
    struct tensor_options options = { 0 };
    struct status st = { 0 };
    bool json = false;

    if (!parse(&bench, &json, argc, argv)) {
        fprintf(stderr,
                "usage: tensor_bench [--threads N] [--isa NAME] [--only TEXT] [--seconds S] [--json]\n");
        return 2;
    }
    options.threads = bench.threads;
    options.isa = bench.isa;
    must(ops->device_open(&bench.device, &options, &st) && ops->queue_create(&bench.queue, bench.device, &st),
         &st);
    bench.isa = ops->numerics(bench.device) + strlen("cpu ");
    if (json)
        bench.rows = json_make_array();
    else
        printf("%s, %u threads; shares are of limits measured beside each row\n", bench.isa, bench.threads);
    bench_all(&bench);
    if (json) {
        struct json *all = json_make_object();
        char *text;

        json_set_str(all, "isa", bench.isa);
        json_set_u64(all, "threads", bench.threads);
        json_set(all, "rows", bench.rows);
        text = json_text(all, 2);
        puts(text);
        free(text);
        json_free(all);
    }
    ops->queue_destroy(bench.queue);
    ops->device_close(bench.device);
    return EXIT_SUCCESS;
}
