#include "support/tensor_standin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"

/* The opaque types of tensor.h are these here, by cast. */
struct standin_device {
    struct tensor_device *cpu;
    char numerics[TENSOR_NUMERICS_BYTES];
};

struct standin_buffer {
    struct tensor_buffer *cpu;
    uint32_t pending; /* operations put off that use it */
    bool read_only;
};

enum kind { WRITE, GEMM, LAYER_NORM, RMS_NORM, EMBED, ADD, CONVERT, TABLE, ROTARY, ATTENTION, MEAN, POOL };

/* One operation put off. Views carry CPU buffers already; host arrays are copies. */
struct pending {
    enum kind kind;
    struct tensor views[4];
    struct tensor_heads heads[2];
    struct tensor_gemm gemm;
    struct tensor_norm norm;
    struct tensor_attention attention;
    void *host; /* bytes to write, ids, group ends, frequencies, items with their segments */
    size_t offset, bytes;
    int64_t position;
    uint32_t number;
    struct standin_buffer **uses;
    size_t use_count;
};

struct standin_queue {
    struct tensor_queue *cpu;
    struct pending pending[STANDIN_PENDING_MAX];
    size_t count;
    struct status failed; /* of an operation that ran late */
    bool has_failed;
};

static const struct tensor_ops *const cpu = &tensor_ops_cpu;

static struct tensor_buffer *use(struct pending *op, struct tensor_buffer *handle)
{
    struct standin_buffer *buffer = (struct standin_buffer *)handle;

    if (buffer == NULL)
        return NULL;
    op->uses = realloc(op->uses, (op->use_count + 1) * sizeof(struct standin_buffer *));
    REQUIRE(op->uses != NULL);
    op->uses[op->use_count++] = buffer;
    buffer->pending++;
    return buffer->cpu;
}

static struct tensor use_view(struct pending *op, struct tensor view)
{
    view.buffer = use(op, view.buffer);
    return view;
}

static struct tensor_heads use_heads(struct pending *op, struct tensor_heads view)
{
    view.buffer = use(op, view.buffer);
    return view;
}

static void *copy_of(const void *from, size_t bytes)
{
    void *copy = malloc(bytes > 0 ? bytes : 1);

    REQUIRE(copy != NULL);
    if (bytes > 0)
        memcpy(copy, from, bytes);
    return copy;
}

static bool run_one(struct tensor_queue *queue, struct pending *op, struct status *st)
{
    switch (op->kind) {
    case WRITE:
        return cpu->write(queue, op->views[0].buffer, op->offset, op->host, op->bytes, st);
    case GEMM:
        return cpu->gemm(queue, &op->gemm, st);
    case LAYER_NORM:
        return cpu->layer_norm(queue, &op->norm, st);
    case RMS_NORM:
        return cpu->rms_norm(queue, &op->norm, st);
    case EMBED:
        return cpu->embed(queue, op->views[0], op->views[1], op->host, st);
    case ADD:
        return cpu->add(queue, op->views[0], op->views[1], op->views[2], st);
    case CONVERT:
        return cpu->convert(queue, op->heads[0], op->heads[1], st);
    case TABLE:
        return cpu->rotary_table(queue, op->views[0], op->host, op->position, st);
    case ROTARY:
        return cpu->rotary(queue, op->heads[0], op->heads[1], op->views[0], st);
    case ATTENTION:
        return cpu->attention(queue, &op->attention, st);
    case MEAN:
        return cpu->mean_tokens(queue, op->views[0], op->heads[0], op->number, st);
    case POOL:
        return cpu->pool_bilinear(queue, op->views[0], op->views[1], op->number, st);
    }
    return false;
}

static void run_pending(struct standin_queue *queue)
{
    for (size_t i = 0; i < queue->count; i++) {
        struct pending *op = &queue->pending[i];

        if (!queue->has_failed && !run_one(queue->cpu, op, &queue->failed))
            queue->has_failed = true;
        for (size_t u = 0; u < op->use_count; u++)
            op->uses[u]->pending--;
        free(op->uses);
        free(op->host);
    }
    queue->count = 0;
}

static struct pending *put_off(struct tensor_queue *handle, enum kind kind)
{
    struct standin_queue *queue = (struct standin_queue *)handle;
    struct pending *op;

    if (queue->count == STANDIN_PENDING_MAX)
        run_pending(queue);
    op = &queue->pending[queue->count++];
    *op = (struct pending){ .kind = kind };
    return op;
}

static bool queue_finish(struct tensor_queue *handle, struct status *st)
{
    struct standin_queue *queue = (struct standin_queue *)handle;

    run_pending(queue);
    if (!queue->has_failed)
        return true;
    queue->has_failed = false;
    return status_fail(st, queue->failed.code, "%s", queue->failed.text);
}

static bool device_open(struct tensor_device **device_p, const struct tensor_options *options,
                        struct status *st)
{
    struct standin_device *device = calloc(1, sizeof *device);

    REQUIRE(device != NULL);
    if (!cpu->device_open(&device->cpu, options, st)) {
        free(device);
        return false;
    }
    snprintf(device->numerics, sizeof device->numerics, "stand-in on %s", cpu->numerics(device->cpu));
    *device_p = (struct tensor_device *)device;
    return true;
}

static void device_close(struct tensor_device *handle)
{
    struct standin_device *device = (struct standin_device *)handle;

    if (device == NULL)
        return;
    cpu->device_close(device->cpu);
    free(device);
}

static const char *numerics(const struct tensor_device *handle)
{
    return ((const struct standin_device *)handle)->numerics;
}

static bool queue_create(struct tensor_queue **queue_p, struct tensor_device *device, struct status *st)
{
    struct standin_queue *queue = calloc(1, sizeof *queue);

    REQUIRE(queue != NULL);
    if (!cpu->queue_create(&queue->cpu, ((struct standin_device *)device)->cpu, st)) {
        free(queue);
        return false;
    }
    *queue_p = (struct tensor_queue *)queue;
    return true;
}

static void queue_destroy(struct tensor_queue *handle)
{
    struct standin_queue *queue = (struct standin_queue *)handle;

    if (queue == NULL)
        return;
    run_pending(queue);
    cpu->queue_destroy(queue->cpu);
    free(queue);
}

static bool buffer_create(struct tensor_buffer **buffer_p, struct tensor_device *device, size_t bytes,
                          struct status *st)
{
    struct standin_buffer *buffer = calloc(1, sizeof *buffer);

    REQUIRE(buffer != NULL);
    if (!cpu->buffer_create(&buffer->cpu, ((struct standin_device *)device)->cpu, bytes, st)) {
        free(buffer);
        return false;
    }
    *buffer_p = (struct tensor_buffer *)buffer;
    return true;
}

static void buffer_destroy(struct tensor_buffer *handle)
{
    struct standin_buffer *buffer = (struct standin_buffer *)handle;

    if (buffer == NULL)
        return;
    REQUIRE(buffer->pending == 0); /* work that was put off still uses it: finish the queue first */
    cpu->buffer_destroy(buffer->cpu);
    free(buffer);
}

static bool buffer_wrap(struct tensor_buffer **buffer_p, struct tensor_device *device, const void *host,
                        size_t bytes, struct status *st)
{
    struct tensor_device *under = ((struct standin_device *)device)->cpu;
    struct tensor_queue *queue = NULL;
    bool ok;

    if (!cpu->queue_create(&queue, under, st))
        return false;
    ok = buffer_create(buffer_p, device, bytes, st) &&
         cpu->write(queue, ((struct standin_buffer *)*buffer_p)->cpu, 0, host, bytes, st);
    cpu->queue_destroy(queue);
    if (ok)
        ((struct standin_buffer *)*buffer_p)->read_only = true;
    return ok;
}

static bool write_bytes(struct tensor_queue *queue, struct tensor_buffer *to, size_t offset, const void *host,
                        size_t bytes, struct status *st)
{
    struct pending *op;

    if (((struct standin_buffer *)to)->read_only)
        return status_fail(st, STATUS_INVALID, "wrapped host memory is read-only");
    op = put_off(queue, WRITE);
    op->views[0].buffer = use(op, to);
    op->host = copy_of(host, bytes);
    op->offset = offset;
    op->bytes = bytes;
    return true;
}

static bool read_bytes(struct tensor_queue *queue, void *host, const struct tensor_buffer *from,
                       size_t offset, size_t bytes, struct status *st)
{
    return queue_finish(queue, st) &&
           cpu->read(((struct standin_queue *)queue)->cpu, host, ((const struct standin_buffer *)from)->cpu,
                     offset, bytes, st);
}

static bool weights_create(struct tensor_weights **weights_p, struct tensor_device *device,
                           const struct tensor_weights_spec *spec, struct status *st)
{
    return cpu->weights_create(weights_p, ((struct standin_device *)device)->cpu, spec, st);
}

static void weights_destroy(struct tensor_weights *weights)
{
    cpu->weights_destroy(weights);
}

static bool gemm(struct tensor_queue *queue, const struct tensor_gemm *args, struct status *st)
{
    struct pending *op = put_off(queue, GEMM);

    op->gemm = *args;
    op->gemm.in = use_view(op, args->in);
    op->gemm.out = use_view(op, args->out);
    if (args->residual != NULL) {
        op->views[0] = use_view(op, *args->residual);
        op->gemm.residual = &op->views[0];
    }
    op->host = copy_of(args->group_ends, args->group_count * sizeof(uint32_t));
    op->gemm.group_ends = op->host;
    return true;
}

static bool norm(struct tensor_queue *queue, const struct tensor_norm *args, enum kind kind)
{
    struct pending *op = put_off(queue, kind);

    op->norm = *args;
    op->norm.in = use_view(op, args->in);
    op->norm.out = use_view(op, args->out);
    if (args->gain != NULL) {
        op->views[0] = use_view(op, *args->gain);
        op->norm.gain = &op->views[0];
    }
    if (args->bias != NULL) {
        op->views[1] = use_view(op, *args->bias);
        op->norm.bias = &op->views[1];
    }
    return true;
}

static bool layer_norm(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st)
{
    return norm(queue, args, LAYER_NORM);
}

static bool rms_norm(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st)
{
    return norm(queue, args, RMS_NORM);
}

static bool embed(struct tensor_queue *queue, struct tensor out, struct tensor table, const uint32_t *ids,
                  struct status *st)
{
    struct pending *op = put_off(queue, EMBED);

    op->views[0] = use_view(op, out);
    op->views[1] = use_view(op, table);
    op->host = copy_of(ids, out.rows * sizeof *ids);
    return true;
}

static bool add(struct tensor_queue *queue, struct tensor out, struct tensor a, struct tensor b,
                struct status *st)
{
    struct pending *op = put_off(queue, ADD);

    op->views[0] = use_view(op, out);
    op->views[1] = use_view(op, a);
    op->views[2] = use_view(op, b);
    return true;
}

static bool convert(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                    struct status *st)
{
    struct pending *op = put_off(queue, CONVERT);

    op->heads[0] = use_heads(op, out);
    op->heads[1] = use_heads(op, in);
    return true;
}

static bool rotary_table(struct tensor_queue *queue, struct tensor table, const double *frequencies,
                         int64_t first_position, struct status *st)
{
    struct pending *op = put_off(queue, TABLE);

    op->views[0] = use_view(op, table);
    op->host = copy_of(frequencies, table.cols / 2 * sizeof *frequencies);
    op->position = first_position;
    return true;
}

static bool rotary(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                   struct tensor table, struct status *st)
{
    struct pending *op = put_off(queue, ROTARY);

    op->heads[0] = use_heads(op, out);
    op->heads[1] = use_heads(op, in);
    op->views[0] = use_view(op, table);
    return true;
}

static bool attention(struct tensor_queue *queue, const struct tensor_attention *args, struct status *st)
{
    struct pending *op = put_off(queue, ATTENTION);
    size_t segment_count = 0, items_bytes = args->item_count * sizeof *args->items;
    struct tensor_attention_item *items;
    struct tensor_segment *segments;

    for (uint32_t i = 0; i < args->item_count; i++)
        segment_count += args->items[i].segment_count;
    op->host = malloc(items_bytes + segment_count * sizeof *segments + 1);
    REQUIRE(op->host != NULL);
    items = op->host;
    segments = (struct tensor_segment *)((char *)op->host + items_bytes);
    for (uint32_t i = 0; i < args->item_count; i++) {
        items[i] = args->items[i];
        items[i].q = use_heads(op, items[i].q);
        items[i].q_far = use_heads(op, items[i].q_far);
        items[i].out = use_heads(op, items[i].out);
        items[i].segments = segments;
        for (uint32_t s = 0; s < items[i].segment_count; s++, segments++) {
            *segments = args->items[i].segments[s];
            segments->keys = use_heads(op, segments->keys);
            segments->values = use_heads(op, segments->values);
        }
    }
    op->attention = *args;
    op->attention.items = items;
    return true;
}

static bool mean_tokens(struct tensor_queue *queue, struct tensor out, struct tensor_heads in, uint32_t fold,
                        struct status *st)
{
    struct pending *op = put_off(queue, MEAN);

    op->views[0] = use_view(op, out);
    op->heads[0] = use_heads(op, in);
    op->number = fold;
    return true;
}

static bool pool_bilinear(struct tensor_queue *queue, struct tensor out, struct tensor in, uint32_t grid,
                          struct status *st)
{
    struct pending *op = put_off(queue, POOL);

    op->views[0] = use_view(op, out);
    op->views[1] = use_view(op, in);
    op->number = grid;
    return true;
}

static bool argmax(struct tensor_queue *queue, uint32_t *ids, struct tensor in, struct status *st)
{
    if (!queue_finish(queue, st))
        return false;
    if (in.buffer != NULL)
        in.buffer = ((struct standin_buffer *)in.buffer)->cpu;
    return cpu->argmax(((struct standin_queue *)queue)->cpu, ids, in, st);
}

const struct tensor_ops tensor_ops_standin = {
    .name = "stand-in",
    .device_open = device_open,
    .device_close = device_close,
    .numerics = numerics,
    .queue_create = queue_create,
    .queue_destroy = queue_destroy,
    .queue_finish = queue_finish,
    .buffer_create = buffer_create,
    .buffer_wrap = buffer_wrap,
    .buffer_destroy = buffer_destroy,
    .write = write_bytes,
    .read = read_bytes,
    .weights_create = weights_create,
    .weights_destroy = weights_destroy,
    .gemm = gemm,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .embed = embed,
    .add = add,
    .convert = convert,
    .rotary_table = rotary_table,
    .rotary = rotary,
    .attention = attention,
    .mean_tokens = mean_tokens,
    .pool_bilinear = pool_bilinear,
    .argmax = argmax,
};
