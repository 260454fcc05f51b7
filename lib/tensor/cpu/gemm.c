/* Weights and gemm of the CPU backend: what is dealt out to the workers. The arithmetic is kernel_gemm.h's,
 * whose results depend on nothing but the row and the weights; the promise about row groups follows. */
#include "tensor/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"

struct pack_job {
    struct tensor_weights *weights;
    const struct tensor_weights_spec *spec;
    const struct cpu_kernels *kernels;
    float *rows; /* [threads][lanes][inputs] */
};

static void part_of_block(const struct tensor_weights_spec *spec, const struct cpu_block *block,
                          uint32_t *part_p, uint32_t *row_p)
{
    uint32_t part = 0, row = block->col;

    while (row >= spec->parts[part].outputs)
        row -= spec->parts[part++].outputs;
    *part_p = part;
    *row_p = row;
}

static void pack_task(void *context, uint32_t task, uint32_t worker)
{
    const struct pack_job *job = context;
    uint32_t lanes = job->kernels->lanes, inputs = job->spec->inputs, part, row;
    const struct cpu_block *block = &job->weights->blocks[task];
    float *rows = job->rows + (size_t)worker * lanes * inputs,
          *bias = job->weights->bias + (size_t)task * lanes;
    const struct tensor_weights_part *from;
    size_t size;

    part_of_block(job->spec, block, &part, &row);
    from = &job->spec->parts[part];
    size = tensor_dtype_bytes(from->dtype);
    memset(rows, 0, (size_t)lanes * inputs * sizeof *rows);
    memset(bias, 0, lanes * sizeof *bias);
    tensor_convert_host(rows, TENSOR_F32, (const uint8_t *)from->matrix + (size_t)row * inputs * size,
                        from->dtype, (size_t)block->count * inputs);
    if (from->bias != NULL)
        tensor_convert_host(bias, TENSOR_F32, (const uint8_t *)from->bias + row * size, from->dtype,
                            block->count);
    job->kernels->pack(job->weights, task, rows);
}

static bool check_spec(const struct tensor_weights_spec *spec, struct status *st)
{
    uint64_t outputs = 0;

    if (spec->compute != TENSOR_F32 && spec->compute != TENSOR_BF16)
        return status_fail(st, STATUS_UNIMPLEMENTED, "weights are computed in f32 or bf16, not in type %d",
                           (int)spec->compute);
    if (spec->inputs == 0 || spec->inputs > TENSOR_COLS_MAX)
        return cpu_bad(st, "weights have %u inputs; 1 to %d are possible", spec->inputs, TENSOR_COLS_MAX);
    if (spec->part_count == 0 || spec->part_count > TENSOR_PARTS_MAX)
        return cpu_bad(st, "weights have %u parts; 1 to %d are possible", spec->part_count, TENSOR_PARTS_MAX);
    for (uint32_t i = 0; i < spec->part_count; i++) {
        const struct tensor_weights_part *part = &spec->parts[i];

        if (part->matrix == NULL || part->outputs == 0)
            return cpu_bad(st, "part %u of the weights is empty", i);
        if (part->dtype != TENSOR_F32 && part->dtype != TENSOR_F16 && part->dtype != TENSOR_BF16)
            return cpu_bad(st, "part %u of the weights has the unknown type %d", i, (int)part->dtype);
        outputs += part->outputs;
    }
    if (outputs > TENSOR_COLS_MAX)
        return cpu_bad(st, "weights have %llu outputs; 1 to %d are possible", (unsigned long long)outputs,
                       TENSOR_COLS_MAX);
    return true;
}

static void lay_out_blocks(struct tensor_weights *weights, const struct tensor_weights_spec *spec,
                           uint32_t lanes)
{
    struct cpu_block *block = weights->blocks;
    uint32_t col = 0;

    for (uint32_t i = 0; i < spec->part_count; i++) {
        uint32_t left = spec->parts[i].outputs;

        while (left > 0) {
            *block = (struct cpu_block){ .col = col, .count = left < lanes ? left : lanes };
            col += block->count;
            left -= block->count;
            block++;
        }
    }
}

void cpu_weights_destroy(struct tensor_weights *weights)
{
    if (weights == NULL)
        return;
    free(weights->blocks);
    free(weights->bias);
    free(weights->packed);
    free(weights);
}

static bool allocate_weights(struct tensor_weights *weights, const struct tensor_weights_spec *spec,
                             const struct cpu_kernels *kernels)
{
    uint32_t lanes = kernels->lanes;
    bool pairs = spec->compute == TENSOR_BF16 && kernels->bf16_dot;

    for (uint32_t i = 0; i < spec->part_count; i++) {
        weights->outputs += spec->parts[i].outputs;
        weights->block_count += (spec->parts[i].outputs + lanes - 1) / lanes;
    }
    weights->inputs = spec->inputs;
    weights->compute = spec->compute;
    weights->gated = spec->part_count == 2 && spec->parts[0].outputs == spec->parts[1].outputs;
    weights->depth = pairs ? (spec->inputs + 1) / 2 : spec->inputs;
    weights->block_bytes = (size_t)weights->depth * lanes * (pairs ? 4 : tensor_dtype_bytes(spec->compute));
    weights->blocks = calloc(weights->block_count, sizeof *weights->blocks);
    weights->bias = calloc((size_t)weights->block_count * lanes, sizeof(float));
    weights->packed = cpu_alloc(weights->block_count * weights->block_bytes);
    return weights->blocks != NULL && weights->bias != NULL && weights->packed != NULL;
}

bool cpu_weights_create(struct tensor_weights **weights_p, struct tensor_device *device,
                        const struct tensor_weights_spec *spec, struct status *st)
{
    const struct cpu_kernels *kernels = device->kernels;
    struct tensor_weights *weights = NULL;
    struct pack_job job = { .spec = spec, .kernels = kernels };
    bool ok = false;

    if (!check_spec(spec, st))
        return false;
    weights = calloc(1, sizeof *weights);
    job.rows = calloc((size_t)pool_threads(device->pool) * kernels->lanes * spec->inputs, sizeof(float));
    if (weights == NULL || job.rows == NULL || !allocate_weights(weights, spec, kernels)) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for weights of %u inputs", spec->inputs);
        goto out;
    }
    lay_out_blocks(weights, spec, kernels->lanes);
    job.weights = weights;
    pool_run(device->pool, pack_task, &job, weights->block_count);
    *weights_p = weights;
    weights = NULL;
    ok = true;
out:
    free(job.rows);
    cpu_weights_destroy(weights);
    return ok;
}

/* A task is a block of one group's rows times some columns. */
struct gemm_job {
    struct cpu_gemm gemm;
    struct tensor_device *device;
    const struct cpu_range *row_blocks;
    uint32_t row_block_count;
    uint32_t columns_per_task;
};

static void gemm_task(void *context, uint32_t task, uint32_t worker)
{
    const struct gemm_job *job = context;
    struct cpu_range columns;

    /* Neighbouring tasks share weights: they come from memory once. */
    columns.from = task / job->row_block_count * job->columns_per_task;
    columns.to = columns.from + job->columns_per_task;
    if (columns.to > job->gemm.columns)
        columns.to = job->gemm.columns;
    job->device->kernels->gemm(&job->gemm, job->row_blocks[task % job->row_block_count], columns,
                               job->device->scratch + (size_t)worker * CPU_WORKER_BYTES);
}

static bool check_gemm(const struct tensor_gemm *args, struct status *st)
{
    const struct tensor_weights *weights = args->weights;
    uint32_t outputs, end = 0;

    if (weights == NULL)
        return cpu_bad(st, "gemm has no weights");
    outputs = args->epilogue == TENSOR_SWIGLU ? weights->outputs / 2 : weights->outputs;
    if (args->epilogue == TENSOR_SWIGLU && !weights->gated)
        return cpu_bad(st, "swiglu needs weights of two equal parts, gate and up");
    if ((unsigned)args->epilogue > TENSOR_SWIGLU)
        return cpu_bad(st, "gemm has the unknown epilogue %d", (int)args->epilogue);
    if (!cpu_check(&args->in, "gemm's input", false, st) || !cpu_check(&args->out, "gemm's output", true, st))
        return false;
    if (args->in.dtype != weights->compute || args->in.cols != weights->inputs)
        return cpu_bad(st, "gemm's input has type %d and %u columns, the weights want type %d and %u",
                       (int)args->in.dtype, args->in.cols, (int)weights->compute, weights->inputs);
    if (args->out.dtype == TENSOR_F16 || args->out.rows != args->in.rows || args->out.cols != outputs)
        return cpu_bad(st, "gemm's output must be f32 or bf16 [%u, %u], not type %d [%u, %u]", args->in.rows,
                       outputs, (int)args->out.dtype, args->out.rows, args->out.cols);
    if (args->residual != NULL &&
        !cpu_check_f32(args->residual, "gemm's residual", args->in.rows, outputs, st))
        return false;
    if (args->group_count == 0 || args->group_count > TENSOR_GROUPS_MAX)
        return cpu_bad(st, "gemm has %u row groups; 1 to %d are possible", args->group_count,
                       TENSOR_GROUPS_MAX);
    for (uint32_t i = 0; i < args->group_count; i++) {
        if (args->group_ends[i] < end || args->group_ends[i] > args->in.rows)
            return cpu_bad(st, "row group %u ends at %u, after %u and with %u rows in all", i,
                           args->group_ends[i], end, args->in.rows);
        end = args->group_ends[i];
    }
    if (end != args->in.rows)
        return cpu_bad(st, "the row groups end at %u, the input has %u rows", end, args->in.rows);
    return true;
}

bool cpu_gemm(struct tensor_queue *queue, const struct tensor_gemm *args, struct status *st)
{
    const struct cpu_kernels *kernels = queue->device->kernels;
    struct gemm_job job = { .device = queue->device };
    struct cpu_range *blocks;
    uint32_t threads = pool_threads(queue->device->pool), per_task, tasks;

    if (!check_gemm(args, st))
        return false;
    job.gemm = (struct cpu_gemm){
        .weights = args->weights,
        .in = cpu_at(&args->in, 0),
        .in_stride = args->in.stride * tensor_dtype_bytes(args->in.dtype),
        .out = cpu_at(&args->out, 0),
        .out_stride = args->out.stride * tensor_dtype_bytes(args->out.dtype),
        .out_dtype = args->out.dtype,
        .epilogue = args->epilogue,
    };
    if (args->residual != NULL) {
        job.gemm.residual = (const float *)cpu_at(args->residual, 0);
        job.gemm.residual_stride = args->residual->stride;
    }
    job.gemm.columns = args->epilogue == TENSOR_SWIGLU ? args->weights->block_count / 2
                                                       : (args->weights->block_count + 1) / 2;
    /* Row blocks may cross groups: no result depends on where rows are cut. */
    job.row_block_count = (args->in.rows + CPU_ROWS_BLOCK - 1) / CPU_ROWS_BLOCK;
    blocks = cpu_scratch(&queue->lists, job.row_block_count * sizeof *blocks, st);
    if (blocks == NULL)
        return false;
    for (uint32_t i = 0; i < job.row_block_count; i++) {
        blocks[i].from = (uint32_t)((uint64_t)args->in.rows * i / job.row_block_count);
        blocks[i].to = (uint32_t)((uint64_t)args->in.rows * (i + 1) / job.row_block_count);
    }
    job.row_blocks = blocks;
    per_task = CPU_COLS_BLOCK / (2 * kernels->lanes);
    while (per_task > 1 && (job.gemm.columns + per_task - 1) / per_task * job.row_block_count < threads * 4)
        per_task /= 2;
    job.columns_per_task = per_task;
    tasks = (job.gemm.columns + per_task - 1) / per_task * job.row_block_count;
    pool_run(queue->device->pool, gemm_task, &job, tasks);
    return true;
}
