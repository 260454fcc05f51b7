#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A checkpoint tensor in memory that can be read as its type. */
struct host_tensor {
    const void *data;
    void *copy; /* NULL: `data` is the mapped file */
    enum tensor_dtype dtype;
};

static bool read_dtype(enum safetensors_dtype from, enum tensor_dtype *dtype_p)
{
    switch (from) {
    case SAFETENSORS_F32:
        *dtype_p = TENSOR_F32;
        return true;
    case SAFETENSORS_F16:
        *dtype_p = TENSOR_F16;
        return true;
    case SAFETENSORS_BF16:
        *dtype_p = TENSOR_BF16;
        return true;
    default:
        return false;
    }
}

/* Finds a tensor and checks type and shape. The file's bytes are borrowed when they are aligned. */
static bool find_tensor(struct host_tensor *host, const struct weights_source *source, const char *name,
                        const uint64_t *shape, uint32_t dims, struct status *st)
{
    const struct safetensors_tensor *tensor = safetensors_find(source->checkpoint, name);
    char wanted[96], found[96];

    memset(host, 0, sizeof *host);
    safetensors_shape_text(shape, dims, wanted, sizeof wanted);
    if (tensor == NULL)
        return status_fail(st, STATUS_INVALID, "tensor '%s' is missing from the checkpoint; expected %s",
                           name, wanted);
    if (!read_dtype(tensor->dtype, &host->dtype))
        return status_fail(st, STATUS_INVALID, "tensor '%s' in %s is %s; expected F32, F16 or BF16", name,
                           tensor->file, safetensors_dtype_word(tensor->dtype));
    if (tensor->dims != dims || memcmp(tensor->shape, shape, dims * sizeof *shape) != 0) {
        safetensors_shape_text(tensor->shape, tensor->dims, found, sizeof found);
        return status_fail(st, STATUS_INVALID, "tensor '%s' in %s has shape %s; config.json asks for %s",
                           name, tensor->file, found, wanted);
    }
    host->data = tensor->data;
    if ((uintptr_t)tensor->data % tensor_dtype_bytes(host->dtype) == 0)
        return true;
    host->copy = malloc(tensor->bytes);
    if (host->copy == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for tensor '%s'", name);
    memcpy(host->copy, tensor->data, tensor->bytes);
    host->data = host->copy;
    return true;
}

static bool load_part(struct tensor_weights_part *to, struct host_tensor *matrix, struct host_tensor *bias,
                      const struct weights_source *source, const struct weights_linear *linear,
                      const struct weights_part *part, struct status *st)
{
    uint64_t shape[4] = { part->outputs, linear->inputs }, bias_shape = part->outputs;
    char name[WEIGHTS_NAME_BYTES + 8];
    uint32_t dims = 2;

    if (linear->patch != 0) {
        dims = 4;
        shape[1] = 3;
        shape[2] = shape[3] = linear->patch;
    }
    snprintf(name, sizeof name, "%s.weight", part->name);
    if (!find_tensor(matrix, source, name, shape, dims, st))
        return false;
    *to = (struct tensor_weights_part){ .matrix = matrix->data,
                                        .dtype = matrix->dtype,
                                        .outputs = part->outputs };
    if (!linear->bias)
        return true;
    snprintf(name, sizeof name, "%s.bias", part->name);
    if (!find_tensor(bias, source, name, &bias_shape, 1, st))
        return false;
    if (bias->dtype != matrix->dtype)
        return status_fail(st, STATUS_INVALID,
                           "tensor '%s' has another dtype than its matrix; expected the same", name);
    to->bias = bias->data;
    return true;
}

bool weights_load(struct tensor_weights **weights_p, const struct weights_source *source,
                  const struct weights_linear *linear, struct status *st)
{
    struct host_tensor matrices[TENSOR_PARTS_MAX] = { 0 }, biases[TENSOR_PARTS_MAX] = { 0 };
    struct tensor_weights_spec spec = { .inputs = linear->inputs,
                                        .compute = source->dtype,
                                        .part_count = linear->part_count };
    bool ok = true;

    for (uint32_t i = 0; i < linear->part_count && ok; i++)
        ok = load_part(&spec.parts[i], &matrices[i], &biases[i], source, linear, &linear->parts[i], st);
    if (ok && !source->ops->weights_create(weights_p, source->device, &spec, st))
        ok = status_wrap(st, "tensor '%s.weight'", linear->parts[0].name);
    for (uint32_t i = 0; i < linear->part_count; i++) {
        free(matrices[i].copy);
        free(biases[i].copy);
    }
    return ok;
}

static bool grow(struct weights_vectors *vectors, size_t more, struct status *st)
{
    size_t room = vectors->room == 0 ? 4096 : vectors->room;
    float *grown;

    while (room < vectors->count + more)
        room *= 2;
    if (room == vectors->room)
        return true;
    grown = realloc(vectors->host, room * sizeof *grown);
    if (grown == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the model's vectors");
    vectors->host = grown;
    vectors->room = room;
    return true;
}

bool weights_add_vector(struct weights_vectors *vectors, const struct weights_source *source,
                        const char *name, uint32_t rows, uint32_t cols, size_t *at_p, struct status *st)
{
    uint64_t shape[2] = { rows, cols };
    size_t count = (size_t)rows * cols;
    struct host_tensor host;
    bool ok;

    ok = find_tensor(&host, source, name, rows == 1 ? shape + 1 : shape, rows == 1 ? 1 : 2, st) &&
         grow(vectors, count, st);
    if (ok) {
        tensor_convert_host(vectors->host + vectors->count, TENSOR_F32, host.data, host.dtype, count);
        *at_p = vectors->count;
        vectors->count += count;
    }
    free(host.copy);
    return ok;
}

bool weights_send_vectors(struct weights_vectors *vectors, const struct weights_source *source,
                          struct tensor_queue *queue, struct status *st)
{
    size_t bytes = vectors->count * sizeof *vectors->host;

    if (!source->ops->buffer_create(&vectors->buffer, source->device, bytes, st) ||
        !source->ops->write(queue, vectors->buffer, 0, vectors->host, bytes, st))
        return false;
    free(vectors->host);
    vectors->host = NULL;
    return true;
}

void weights_free_vectors(struct weights_vectors *vectors, const struct tensor_ops *ops)
{
    free(vectors->host);
    if (vectors->buffer != NULL)
        ops->buffer_destroy(vectors->buffer);
    memset(vectors, 0, sizeof *vectors);
}

struct tensor weights_vector(const struct weights_vectors *vectors, size_t at, uint32_t rows, uint32_t cols)
{
    return tensor_at(vectors->buffer, at * sizeof(float), TENSOR_F32, rows, cols);
}

/* Sends a table that cannot be wrapped where it lies. */
static bool copy_table(struct tensor_buffer **buffer_p, const struct weights_source *source,
                       const struct host_tensor *host, size_t bytes, struct status *st)
{
    struct tensor_buffer *buffer = NULL;
    struct tensor_queue *queue = NULL;
    bool ok = source->ops->queue_create(&queue, source->device, st) &&
              source->ops->buffer_create(&buffer, source->device, bytes, st) &&
              source->ops->write(queue, buffer, 0, host->data, bytes, st);

    if (queue != NULL)
        source->ops->queue_destroy(queue);
    if (ok)
        *buffer_p = buffer;
    else if (buffer != NULL)
        source->ops->buffer_destroy(buffer);
    return ok;
}

bool weights_load_table(struct tensor *table_p, const struct weights_source *source, const char *name,
                        uint32_t rows, uint32_t cols, struct status *st)
{
    uint64_t shape[2] = { rows, cols };
    struct tensor_buffer *buffer = NULL;
    struct host_tensor host;
    size_t bytes;
    bool ok;

    if (!find_tensor(&host, source, name, shape, 2, st))
        return false;
    bytes = (size_t)rows * cols * tensor_dtype_bytes(host.dtype);
    ok = host.copy == NULL ? source->ops->buffer_wrap(&buffer, source->device, host.data, bytes, st)
                           : copy_table(&buffer, source, &host, bytes, st);
    free(host.copy);
    if (ok)
        *table_p = tensor_at(buffer, 0, host.dtype, rows, cols);
    return ok;
}
