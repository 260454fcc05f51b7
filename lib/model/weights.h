/* weights.h - checkpoint tensors, checked against the shape the config asks for, into a device's memory.
 *
 * Owner:  what the load functions make is the caller's, destroyed with the ops that made it.
 * Thread: one at a time.
 * Fails:  INVALID naming tensor, file, what was found and what was expected; EXHAUSTED without memory. */
#ifndef REELKV_MODEL_WEIGHTS_H
#define REELKV_MODEL_WEIGHTS_H

#include "model/safetensors.h"
#include "tensor/tensor.h"

enum { WEIGHTS_NAME_BYTES = 192 };

struct weights_source {
    const struct safetensors *checkpoint;
    const struct tensor_ops *ops;
    struct tensor_device *device;
    enum tensor_dtype dtype; /* what gemms compute in */
};

/* A layer of the checkpoint: "<name>.weight" [outputs, inputs...] and, when `bias`, "<name>.bias" [outputs].
 * Several of them with the same inputs are stacked into one gemm. */
struct weights_part {
    char name[WEIGHTS_NAME_BYTES];
    uint32_t outputs;
};
struct weights_linear {
    struct weights_part parts[TENSOR_PARTS_MAX];
    uint32_t part_count;
    uint32_t inputs; /* product of the dimensions after the first */
    uint32_t patch;  /* not 0: the tensor is a convolution [outputs, 3, patch, patch] */
    bool bias;
};

bool weights_load(struct tensor_weights **weights_p, const struct weights_source *source,
                  const struct weights_linear *linear, struct status *st);

/* Gains, biases and position embeddings, all f32, gathered on the host and sent to the device as one buffer.
 */
struct weights_vectors {
    float *host;
    size_t count, room;
    struct tensor_buffer *buffer;
};

/* Appends tensor `name` of `rows` x `cols` (rows 1: shape [cols]); *at_p is where its first number is. */
bool weights_add_vector(struct weights_vectors *vectors, const struct weights_source *source,
                        const char *name, uint32_t rows, uint32_t cols, size_t *at_p, struct status *st);
bool weights_send_vectors(struct weights_vectors *vectors, const struct weights_source *source,
                          struct tensor_queue *queue, struct status *st);
void weights_free_vectors(struct weights_vectors *vectors, const struct tensor_ops *ops);

/* The view of a matrix that weights_add_vector() put at `at`; valid after weights_send_vectors(). */
struct tensor weights_vector(const struct weights_vectors *vectors, size_t at, uint32_t rows, uint32_t cols);

/* A table [rows, cols] left in the type it has on disk: token embeddings. Wraps the mapped file where it can.
 */
bool weights_load_table(struct tensor *table_p, const struct weights_source *source, const char *name,
                        uint32_t rows, uint32_t cols, struct status *st);

#endif
