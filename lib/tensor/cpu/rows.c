/* Operations of the CPU backend that work on rows and heads one by one; kernel_rows.h has the arithmetic. A
 * task is a stretch of rows, long enough to be worth a worker. */
#include "tensor/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum { TASK_NUMBERS = 16384 }; /* numbers one task should touch */

struct rows_job {
    const struct cpu_kernels *kernels;
    void (*row)(const struct rows_job *job, uint32_t row);
    uint32_t rows, rows_per_task;
    struct tensor out, in, other;
    struct tensor_heads heads_out, heads_in;
    struct cpu_norm norm;
    const uint32_t *ids;
    uint32_t *found;
    const double *frequencies;
    int64_t first_position;
    uint32_t fold, grid;
};

static void rows_task(void *context, uint32_t task, uint32_t worker)
{
    const struct rows_job *job = context;
    uint32_t from = task * job->rows_per_task, to = from + job->rows_per_task;

    for (uint32_t row = from; row < to && row < job->rows; row++)
        job->row(job, row);
}

static void run_rows(struct tensor_queue *queue, struct rows_job *job, uint32_t rows,
                     uint64_t numbers_per_row)
{
    uint64_t per_task = numbers_per_row > 0 ? TASK_NUMBERS / numbers_per_row + 1 : TASK_NUMBERS;

    job->kernels = queue->device->kernels;
    job->rows = rows;
    job->rows_per_task = (uint32_t)per_task;
    pool_run(queue->device->pool, rows_task, job, (rows + job->rows_per_task - 1) / job->rows_per_task);
}

static struct cpu_row row_of(const struct tensor *view, uint32_t row)
{
    return (struct cpu_row){ cpu_at(view, row), view->dtype };
}

static struct cpu_row head_of(const struct tensor_heads *view, uint32_t head, uint32_t token)
{
    return (struct cpu_row){ cpu_heads_at(view, head, token), view->dtype };
}

static void norm_one(const struct rows_job *job, uint32_t row)
{
    job->kernels->norm(row_of(&job->out, row), (const float *)cpu_at(&job->in, row), &job->norm);
}

static bool norm(struct tensor_queue *queue, const struct tensor_norm *args, bool centered, struct status *st)
{
    struct rows_job job = { .row = norm_one, .out = args->out, .in = args->in };

    if (!cpu_check(&args->in, "norm's input", false, st) || !cpu_check(&args->out, "norm's output", true, st))
        return false;
    if (args->in.dtype != TENSOR_F32 || args->out.dtype == TENSOR_F16 || args->in.rows != args->out.rows ||
        args->in.cols != args->out.cols)
        return cpu_bad(st, "norm takes f32 [%u, %u] to f32 or bf16 of the same shape", args->in.rows,
                       args->in.cols);
    if (args->gain == NULL || !cpu_check_f32(args->gain, "norm's gain", 1, args->in.cols, st))
        return cpu_bad(st, "norm needs a gain, f32 [1, %u]", args->in.cols);
    if (args->bias != NULL && !cpu_check_f32(args->bias, "norm's bias", 1, args->in.cols, st))
        return false;
    job.norm = (struct cpu_norm){ .gain = (const float *)cpu_at(args->gain, 0),
                                  .bias = args->bias != NULL ? (const float *)cpu_at(args->bias, 0) : NULL,
                                  .cols = args->in.cols,
                                  .epsilon = args->epsilon,
                                  .centered = centered };
    run_rows(queue, &job, args->in.rows, args->in.cols);
    return true;
}

bool cpu_layer_norm(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st)
{
    return norm(queue, args, true, st);
}

bool cpu_rms_norm(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st)
{
    if (args->bias != NULL)
        return cpu_bad(st, "rms_norm has no bias");
    return norm(queue, args, false, st);
}

static void embed_one(const struct rows_job *job, uint32_t row)
{
    job->kernels->copy(row_of(&job->out, row), row_of(&job->in, job->ids[row]), job->out.cols);
}

bool cpu_embed(struct tensor_queue *queue, struct tensor out, struct tensor table, const uint32_t *ids,
               struct status *st)
{
    struct rows_job job = { .row = embed_one, .out = out, .in = table, .ids = ids };

    if (!cpu_check(&out, "embed's output", true, st) || !cpu_check(&table, "the embedding table", false, st))
        return false;
    if (out.dtype != TENSOR_F32 || out.cols != table.cols)
        return cpu_bad(st, "embed's output must be f32 with %u columns", table.cols);
    for (uint32_t i = 0; i < out.rows; i++)
        if (ids[i] >= table.rows)
            return cpu_bad(st, "token id %u is not in the embedding table of %u rows", ids[i], table.rows);
    run_rows(queue, &job, out.rows, out.cols);
    return true;
}

static void add_one(const struct rows_job *job, uint32_t row)
{
    job->kernels->add((float *)cpu_at(&job->out, row), (const float *)cpu_at(&job->in, row),
                      (const float *)cpu_at(&job->other, row % job->other.rows), job->out.cols);
}

bool cpu_add(struct tensor_queue *queue, struct tensor out, struct tensor a, struct tensor b,
             struct status *st)
{
    struct rows_job job = { .row = add_one, .out = out, .in = a, .other = b };

    if (!cpu_check(&out, "add's output", true, st) ||
        !cpu_check_f32(&a, "add's first", out.rows, out.cols, st) ||
        !cpu_check_f32(&b, "add's second", b.rows, out.cols, st))
        return false;
    if (out.dtype != TENSOR_F32)
        return cpu_bad(st, "add's output must be f32");
    run_rows(queue, &job, out.rows, out.cols);
    return true;
}

static bool check_same(const struct tensor_heads *out, const struct tensor_heads *in, const char *what,
                       struct status *st)
{
    if (!cpu_check_heads(in, what, false, st) || !cpu_check_heads(out, what, true, st))
        return false;
    if (in->heads != out->heads || in->tokens != out->tokens || in->head_dim != out->head_dim)
        return cpu_bad(st, "%s from [%u, %u, %u] to [%u, %u, %u]: shapes must be equal", what, in->heads,
                       in->tokens, in->head_dim, out->heads, out->tokens, out->head_dim);
    return true;
}

static void convert_one(const struct rows_job *job, uint32_t token)
{
    for (uint32_t head = 0; head < job->heads_in.heads; head++)
        job->kernels->copy(head_of(&job->heads_out, head, token), head_of(&job->heads_in, head, token),
                           job->heads_in.head_dim);
}

bool cpu_convert(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                 struct status *st)
{
    struct rows_job job = { .row = convert_one, .heads_out = out, .heads_in = in };

    if (!check_same(&out, &in, "convert", st))
        return false;
    run_rows(queue, &job, in.tokens, (uint64_t)in.heads * in.head_dim);
    return true;
}

static void angles_one(const struct rows_job *job, uint32_t row)
{
    float *to = (float *)cpu_at(&job->out, row);
    uint32_t half = job->out.cols / 2;
    double position = (double)(job->first_position + row);

    for (uint32_t i = 0; i < half; i++) {
        double angle = position * job->frequencies[i];

        to[i] = (float)cos(angle);
        to[half + i] = (float)sin(angle);
    }
}

bool cpu_rotary_table(struct tensor_queue *queue, struct tensor table, const double *frequencies,
                      int64_t first_position, struct status *st)
{
    struct rows_job job = {
        .row = angles_one, .out = table, .frequencies = frequencies, .first_position = first_position
    };

    if (!cpu_check(&table, "the rotary table", true, st))
        return false;
    if (table.dtype != TENSOR_F32 || table.cols % 2 != 0 || table.cols > TENSOR_HEAD_DIM_MAX)
        return cpu_bad(st, "the rotary table must be f32 with an even number of columns up to %d",
                       TENSOR_HEAD_DIM_MAX);
    if (first_position > INT64_MAX - table.rows)
        return cpu_bad(st, "positions of the rotary table overflow");
    run_rows(queue, &job, table.rows, (uint64_t)table.cols * 16); /* sines are slow */
    return true;
}

static void rotary_one(const struct rows_job *job, uint32_t token)
{
    const float *angles = (const float *)cpu_at(&job->other, token);

    for (uint32_t head = 0; head < job->heads_in.heads; head++)
        job->kernels->turn(head_of(&job->heads_out, head, token), head_of(&job->heads_in, head, token),
                           angles, job->heads_in.head_dim);
}

bool cpu_rotary(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                struct tensor table, struct status *st)
{
    struct rows_job job = { .row = rotary_one, .heads_out = out, .heads_in = in, .other = table };

    if (!check_same(&out, &in, "rotary", st) || !cpu_check(&table, "the rotary table", false, st))
        return false;
    if (in.head_dim % 2 != 0 || table.dtype != TENSOR_F32 || table.cols != in.head_dim)
        return cpu_bad(st, "rotary of heads of %u needs an even number and an f32 table of as many columns",
                       in.head_dim);
    if (table.stride != 0 && table.rows < in.tokens)
        return cpu_bad(st, "rotary of %u tokens with a table of %u", in.tokens, table.rows);
    run_rows(queue, &job, in.tokens, (uint64_t)in.heads * in.head_dim);
    return true;
}

static void mean_one(const struct rows_job *job, uint32_t group)
{
    float *sums = (float *)cpu_at(&job->out, group);
    const struct tensor_heads *in = &job->heads_in;

    memset(sums, 0, in->head_dim * sizeof *sums);
    for (uint32_t head = group * job->fold; head < (group + 1) * job->fold; head++)
        job->kernels->sum_rows(sums, head_of(in, head, 0), in->token_stride, in->tokens, in->head_dim);
    for (uint32_t d = 0; d < in->head_dim; d++)
        sums[d] /= (float)in->tokens;
}

bool cpu_mean_tokens(struct tensor_queue *queue, struct tensor out, struct tensor_heads in, uint32_t fold,
                     struct status *st)
{
    struct rows_job job = { .row = mean_one, .out = out, .heads_in = in, .fold = fold };

    if (!cpu_check(&out, "the mean", true, st) || !cpu_check_heads(&in, "the mean's input", false, st))
        return false;
    if (fold == 0 || in.heads % fold != 0 || out.rows != in.heads / fold || out.cols != in.head_dim ||
        out.dtype != TENSOR_F32)
        return cpu_bad(st, "the mean of [%u, %u, %u] folded by %u must be f32 [heads / fold, head_dim]",
                       in.heads, in.tokens, in.head_dim, fold);
    run_rows(queue, &job, out.rows, (uint64_t)fold * in.tokens * in.head_dim);
    return true;
}

/* Where output i of a side reads: two inputs and the weight of the second. */
static float pool_source(uint32_t i, uint32_t grid, uint32_t side, uint32_t *low_p, uint32_t *high_p)
{
    double at = (i + 0.5) * grid / side - 0.5;

    at = at < 0.0 ? 0.0 : at;
    *low_p = (uint32_t)at;
    *high_p = *low_p + 1 < grid ? *low_p + 1 : grid - 1;
    return (float)(at - *low_p);
}

static void pool_one(const struct rows_job *job, uint32_t row)
{
    uint32_t grid = job->grid, side = (grid + 1) / 2, frame = row / (side * side), cell = row % (side * side);
    uint32_t x[2], y[2];
    float right = pool_source(cell % side, grid, side, &x[0], &x[1]);
    float down = pool_source(cell / side, grid, side, &y[0], &y[1]);
    float *to = (float *)cpu_at(&job->out, row);
    const float *from[2][2];

    for (int v = 0; v < 2; v++)
        for (int h = 0; h < 2; h++)
            from[v][h] = (const float *)cpu_at(&job->in, frame * grid * grid + y[v] * grid + x[h]);
    for (uint32_t c = 0; c < job->out.cols; c++) {
        float top = (1.0f - right) * from[0][0][c] + right * from[0][1][c];
        float bottom = (1.0f - right) * from[1][0][c] + right * from[1][1][c];

        to[c] = (1.0f - down) * top + down * bottom;
    }
}

bool cpu_pool_bilinear(struct tensor_queue *queue, struct tensor out, struct tensor in, uint32_t grid,
                       struct status *st)
{
    struct rows_job job = { .row = pool_one, .out = out, .in = in, .grid = grid };
    uint64_t side = ((uint64_t)grid + 1) / 2;

    if (!cpu_check(&out, "the pooled frames", true, st) || !cpu_check(&in, "the frames to pool", false, st))
        return false;
    if (grid == 0 || grid > 4096 || in.rows % (grid * grid) != 0 || out.cols != in.cols ||
        out.rows != in.rows / (grid * grid) * side * side || out.dtype != TENSOR_F32 ||
        in.dtype != TENSOR_F32)
        return cpu_bad(st, "pooling f32 [%u, %u] over a grid of %u does not give [%u, %u]", in.rows, in.cols,
                       grid, out.rows, out.cols);
    run_rows(queue, &job, out.rows, (uint64_t)out.cols * 4);
    return true;
}

static void argmax_one(const struct rows_job *job, uint32_t row)
{
    const float *from = (const float *)cpu_at(&job->in, row);
    float best = -INFINITY;
    uint32_t found = 0;
    bool any = false;

    for (uint32_t i = 0; i < job->in.cols; i++) {
        if (from[i] > best || (!any && from[i] == best)) {
            best = from[i];
            found = i;
            any = true;
        }
    }
    job->found[row] = found;
}

bool cpu_argmax(struct tensor_queue *queue, uint32_t *ids, struct tensor in, struct status *st)
{
    struct rows_job job = { .row = argmax_one, .in = in, .found = ids };

    if (!cpu_check(&in, "argmax's input", false, st))
        return false;
    if (in.dtype != TENSOR_F32)
        return cpu_bad(st, "argmax's input must be f32");
    run_rows(queue, &job, in.rows, in.cols);
    return true;
}
