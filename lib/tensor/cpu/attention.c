/* Attention of the CPU backend: runs of keys, and what is dealt out to the workers. Many query rows are cut
 * into blocks of rows (a row's result does not depend on where). Few query rows over many keys (decoding) are
 * cut into chunks of keys, at multiples of CPU_KEYS_CHUNK of the token index; whether that happens depends on
 * the item alone, so that the same item always gives the same bits. */
#include "tensor/cpu/cpu.h"

#include <math.h>
#include <string.h>

struct attention_job {
    const struct tensor_device *device;
    const struct cpu_attention_task *tasks;
    const struct cpu_merge *merges;
};

/* Tasks are laid out twice: the first time they are counted, the second time written down. */
struct attention_plan {
    struct cpu_attention_task *tasks; /* NULL: count */
    struct cpu_merge *merges;
    float *partials;
    size_t task_count, merge_count, partial_floats;
    uint32_t block; /* query rows of one task */
    const struct cpu_kernels *kernels;
};

static void run_task(void *context, uint32_t task, uint32_t worker)
{
    const struct attention_job *job = context;

    job->device->kernels->attention(&job->tasks[task],
                                    job->device->scratch + (size_t)worker * CPU_WORKER_BYTES);
}

static void run_merge(void *context, uint32_t task, uint32_t worker)
{
    const struct attention_job *job = context;

    job->device->kernels->attention_merge(&job->merges[task],
                                          job->device->scratch + (size_t)worker * CPU_WORKER_BYTES);
}

static bool check_segment(const struct tensor_attention_item *item, const struct tensor_segment *segment,
                          struct status *st)
{
    const struct tensor_heads *keys = &segment->keys, *values = &segment->values;

    if (!cpu_check_heads(keys, "keys", false, st) || !cpu_check_heads(values, "values", false, st))
        return false;
    if (keys->dtype != values->dtype || keys->heads != values->heads || keys->tokens != values->tokens ||
        keys->head_dim != values->head_dim)
        return cpu_bad(st, "keys [%u, %u, %u] and values [%u, %u, %u] of a segment differ in shape or type",
                       keys->heads, keys->tokens, keys->head_dim, values->heads, values->tokens,
                       values->head_dim);
    if (keys->head_dim != item->q.head_dim || keys->heads != item->segments[0].keys.heads ||
        item->q.heads % keys->heads != 0)
        return cpu_bad(st, "%u query heads of %u do not fit %u key heads of %u", item->q.heads,
                       item->q.head_dim, keys->heads, keys->head_dim);
    if (segment->min_distance > segment->max_distance)
        return cpu_bad(st, "a segment's distances run from %lld to %lld", (long long)segment->min_distance,
                       (long long)segment->max_distance);
    if (segment->first_index > INT64_MAX - keys->tokens)
        return cpu_bad(st, "a segment's token indices overflow");
    if (segment->far && item->q_far.buffer == NULL)
        return cpu_bad(st, "a far segment needs far queries");
    return true;
}

static bool check_item(const struct tensor_attention_item *item, struct status *st)
{
    if (!cpu_check_heads(&item->q, "queries", false, st) ||
        !cpu_check_heads(&item->out, "attention", true, st))
        return false;
    if (item->q.head_dim > TENSOR_HEAD_DIM_MAX)
        return cpu_bad(st, "heads of %u numbers are longer than %d", item->q.head_dim, TENSOR_HEAD_DIM_MAX);
    if (item->q.dtype == TENSOR_F16 || item->out.dtype == TENSOR_F16)
        return cpu_bad(st, "queries and attention must be f32 or bf16");
    if (item->out.heads != item->q.heads || item->out.tokens != item->q.tokens ||
        item->out.head_dim != item->q.head_dim)
        return cpu_bad(st, "queries [%u, %u, %u] and attention [%u, %u, %u] differ", item->q.heads,
                       item->q.tokens, item->q.head_dim, item->out.heads, item->out.tokens,
                       item->out.head_dim);
    if (item->first_index > INT64_MAX - item->q.tokens)
        return cpu_bad(st, "the queries' token indices overflow");
    if (item->q_far.buffer != NULL) {
        if (!cpu_check_heads(&item->q_far, "far queries", false, st))
            return false;
        if (item->q_far.dtype != item->q.dtype || item->q_far.heads != item->q.heads ||
            item->q_far.tokens != item->q.tokens || item->q_far.head_dim != item->q.head_dim)
            return cpu_bad(st, "far queries differ from queries in shape or type");
    }
    if (item->segment_count == 0 || item->segment_count > TENSOR_SEGMENTS_MAX)
        return cpu_bad(st, "an item has %u segments; 1 to %d are possible", item->segment_count,
                       TENSOR_SEGMENTS_MAX);
    for (uint32_t i = 0; i < item->segment_count; i++)
        if (!check_segment(item, &item->segments[i], st))
            return status_wrap(st, "segment %u", i);
    return true;
}

static bool continues(const struct tensor_segment *before, const struct tensor_segment *segment)
{
    return before->first_index + before->keys.tokens == segment->first_index && before->far == segment->far &&
           before->keys.dtype == segment->keys.dtype && before->min_distance == segment->min_distance &&
           before->max_distance == segment->max_distance;
}

/* Writes the item's runs down; returns how many. */
static uint32_t make_runs(struct cpu_run *runs, const struct tensor_attention_item *item)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < item->segment_count; i++) {
        const struct tensor_segment *segment = &item->segments[i];

        if (i == 0 || !continues(segment - 1, segment))
            runs[count++] = (struct cpu_run){ .segments = segment, .first = segment->first_index };
        runs[count - 1].segment_count++;
        runs[count - 1].end = segment->first_index + segment->keys.tokens;
    }
    return count;
}

static void plan_blocks(struct attention_plan *plan, const struct cpu_attention_task *whole)
{
    for (uint32_t row = 0; row < whole->rows.to; row += plan->block) {
        if (plan->tasks != NULL) {
            struct cpu_attention_task *task = &plan->tasks[plan->task_count];

            *task = *whole;
            task->rows.from = row;
            if (whole->rows.to - row > plan->block)
                task->rows.to = row + plan->block;
        }
        plan->task_count++;
    }
}

/* The part of a run that some of the item's rows see. */
static bool run_range(const struct tensor_attention_item *item, const struct cpu_run *run, int64_t *from_p,
                      int64_t *to_p)
{
    __int128 first = (__int128)item->first_index - run->segments->max_distance + 1;
    __int128 last = (__int128)item->first_index + item->q.tokens - run->segments->min_distance;

    *from_p = first > run->first ? (int64_t)(first < run->end ? first : run->end) : run->first;
    *to_p = last < run->end ? (int64_t)(last > run->first ? last : run->first) : run->end;
    return *from_p < *to_p;
}

static int64_t chunk_start(int64_t index)
{
    int64_t rest = index % CPU_KEYS_CHUNK;

    return index - (rest < 0 ? rest + CPU_KEYS_CHUNK : rest);
}

/* One task for each chunk of keys that is seen; the others would add nothing. */
static void plan_chunks(struct attention_plan *plan, const struct cpu_attention_task *whole)
{
    size_t floats = plan->kernels->partial_floats(whole->rows.to, whole->item->q.head_dim);
    float *partials = plan->tasks != NULL ? plan->partials + plan->partial_floats : NULL;
    uint32_t count = 0;

    for (uint32_t r = 0; r < whole->run_count; r++) {
        int64_t from, to;

        if (!run_range(whole->item, &whole->runs[r], &from, &to))
            continue;
        for (int64_t at = chunk_start(from); at < to; at += CPU_KEYS_CHUNK, count++) {
            if (plan->tasks != NULL) {
                struct cpu_attention_task *task = &plan->tasks[plan->task_count + count];

                *task = *whole;
                task->runs = &whole->runs[r];
                task->run_count = 1;
                task->from = at;
                task->to = at + CPU_KEYS_CHUNK;
                task->partial = partials + count * floats;
            }
        }
    }
    if (plan->tasks != NULL) {
        struct cpu_merge *merge = &plan->merges[plan->merge_count];

        *merge = (struct cpu_merge){ whole->item, whole->kv_head, whole->group, whole->rows,
                                     partials,    count,          whole->scale };
    }
    plan->task_count += count;
    plan->merge_count++;
    plan->partial_floats += count * floats;
}

static void plan_items(struct attention_plan *plan, const struct tensor_attention *args,
                       const struct cpu_run *runs)
{
    plan->task_count = plan->merge_count = plan->partial_floats = 0;
    for (uint32_t i = 0; i < args->item_count; i++) {
        const struct tensor_attention_item *item = &args->items[i];
        uint32_t kv_heads = item->segments[0].keys.heads, run_count = 1;
        struct cpu_attention_task whole = { .item = item,
                                            .runs = runs,
                                            .group = item->q.heads / kv_heads,
                                            .from = INT64_MIN,
                                            .to = INT64_MAX,
                                            .scale = args->scale };

        while (runs[run_count - 1].segments + runs[run_count - 1].segment_count <
               item->segments + item->segment_count)
            run_count++;
        whole.run_count = run_count;
        whole.rows.to = item->q.tokens * whole.group;
        for (whole.kv_head = 0; whole.kv_head < kv_heads; whole.kv_head++) {
            if (whole.rows.to <= CPU_QUERIES_FEW)
                plan_chunks(plan, &whole);
            else
                plan_blocks(plan, &whole);
        }
        runs += run_count;
    }
}

/* Enough tasks for every worker, while a task still has rows to share its keys among. */
static uint32_t choose_block(const struct tensor_attention *args, uint32_t threads)
{
    uint64_t rows = 0;
    uint32_t block = CPU_QUERIES_BLOCK;

    for (uint32_t i = 0; i < args->item_count; i++)
        rows += (uint64_t)args->items[i].q.heads * args->items[i].q.tokens;
    while (block > CPU_QUERIES_FEW && rows / block < (uint64_t)threads * 3)
        block /= 2;
    return block;
}

static bool check_attention(const struct tensor_attention *args, size_t *segments_p, struct status *st)
{
    if (!(args->scale > 0.0f) || !isfinite(args->scale))
        return cpu_bad(st, "attention's scale must be above zero");
    if (args->item_count == 0 || args->item_count > TENSOR_GROUPS_MAX)
        return cpu_bad(st, "attention has %u items; 1 to %d are possible", args->item_count,
                       TENSOR_GROUPS_MAX);
    for (uint32_t i = 0; i < args->item_count; i++) {
        if (!check_item(&args->items[i], st))
            return status_wrap(st, "attention item %u", i);
        *segments_p += args->items[i].segment_count;
    }
    return true;
}

static size_t round64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

bool cpu_attention(struct tensor_queue *queue, const struct tensor_attention *args, struct status *st)
{
    struct tensor_device *device = queue->device;
    struct attention_plan plan = { .kernels = device->kernels };
    struct attention_job job = { .device = device };
    size_t segments = 0, run_count = 0, tasks_bytes, merges_bytes;
    struct cpu_run *runs;
    uint8_t *scratch;

    if (!check_attention(args, &segments, st))
        return false;
    runs = cpu_scratch(&queue->lists, segments * sizeof *runs, st);
    if (runs == NULL)
        return false;
    for (uint32_t i = 0; i < args->item_count; i++)
        run_count += make_runs(runs + run_count, &args->items[i]);
    plan.block = choose_block(args, pool_threads(device->pool));
    plan_items(&plan, args, runs);
    tasks_bytes = round64(plan.task_count * sizeof *plan.tasks);
    merges_bytes = round64(plan.merge_count * sizeof *plan.merges);
    scratch = cpu_scratch(&queue->scratch,
                          tasks_bytes + merges_bytes + plan.partial_floats * sizeof(float) + 64, st);
    if (scratch == NULL)
        return false;
    plan.tasks = (struct cpu_attention_task *)scratch;
    plan.merges = (struct cpu_merge *)(scratch + tasks_bytes);
    plan.partials = (float *)(scratch + tasks_bytes + merges_bytes);
    plan_items(&plan, args, runs);
    job.tasks = plan.tasks;
    job.merges = plan.merges;
    pool_run(device->pool, run_task, &job, (uint32_t)plan.task_count);
    pool_run(device->pool, run_merge, &job, (uint32_t)plan.merge_count);
    return true;
}
