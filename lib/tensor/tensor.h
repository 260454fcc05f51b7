/* tensor.h - all arithmetic of the model behind one table of coarse operations, so that a GPU can fill the
 * same table. The CPU backend is the reference and always built.
 *
 *   const struct tensor_ops *ops = &tensor_ops_cpu;
 *   ops->device_open(&device, &options, st);  ops->queue_create(&queue, device, st);
 *   ops->buffer_create(&buffer, device, bytes, st);  ops->write(queue, buffer, 0, pixels, bytes, st);
 *   ops->gemm(queue, &args, st);  ...  ops->read(queue, host, buffer, 0, bytes, st);
 *
 * Owner:   the caller destroys what it creates, children first: queues, buffers and weights before their
 *          device. Every destroy takes NULL. The small structs below (views, argument lists) are the caller's;
 *          an operation has copied what they and their host arrays hold when it returns.
 * Thread:  a device may be used from any thread; a queue by one thread at a time. Operations of one queue
 *          happen in order. Queues of one device are unordered among each other (queue_finish() orders them);
 *          several threads with a queue each share the device's workers in turns.
 * When:    an operation may return before its work is done. read(), argmax() and queue_finish() wait for all
 *          earlier work of their queue; until then results cannot be seen, and a buffer that earlier work
 *          uses must not be destroyed, nor the host memory of a wrapped one changed.
 * Fails:   INVALID when shapes, types or ranges do not fit, EXHAUSTED without memory, UNIMPLEMENTED for a type
 *          a backend lacks. The operation itself says so and has done nothing; a device of its own may say it
 *          only when its queue is waited for, and then what came after has not been done either.
 * Bounds:  the enum below; scratch memory grows to the largest operation seen, then nothing is allocated.
 *
 * Numbers. Statistics, softmax, accumulation and the residual stream are f32. A device's numerics() text names
 * backend and instruction set; on equal text equal inputs give equal bits, where "inputs" means:
 *   gemm        the rows of one group (see row groups below), never the other groups
 *   attention   the queries and visible keys of one item, never the other items, and never how a run of keys
 *               is cut into segments
 *   all others  the row, or the head and token, alone
 * In particular results depend neither on the number of worker threads nor on what shares a batch. */
#ifndef REELKV_TENSOR_TENSOR_H
#define REELKV_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    TENSOR_HEAD_DIM_MAX = 256,
    TENSOR_THREADS_MAX = 256,
    TENSOR_ROWS_MAX = 1 << 24,     /* rows of one matrix, tokens of one segment */
    TENSOR_COLS_MAX = 1 << 20,     /* columns of one matrix, inputs and outputs of one layer */
    TENSOR_GROUPS_MAX = 1 << 16,   /* row groups of one gemm, items of one attention */
    TENSOR_SEGMENTS_MAX = 1 << 20, /* KV segments of one attention item */
    TENSOR_PARTS_MAX = 4,          /* matrices stacked into one set of weights */
    TENSOR_NUMERICS_BYTES = 64,
};

/* Numbers as in proto reelkv.v1.Dtype. */
enum tensor_dtype { TENSOR_F32 = 1, TENSOR_F16 = 2, TENSOR_BF16 = 3 };

struct tensor_device;  /* a backend at work: its memory and its workers */
struct tensor_queue;   /* an order of operations */
struct tensor_buffer;  /* device memory; its bytes are reached by write() and read() only */
struct tensor_weights; /* a layer's matrix and bias, packed as the backend likes it */

/* ------------------------------------------------------------------------------------------------ views
 * A view borrows its buffer. Offsets are bytes (a multiple of the element), strides are elements. */

/* Matrix [rows, cols], row r at offset + r * stride elements. `stride` 0 repeats one row (inputs only). */
struct tensor {
    struct tensor_buffer *buffer;
    size_t offset;
    enum tensor_dtype dtype;
    uint32_t rows, cols;
    size_t stride;
};

/* [heads, tokens, head_dim], element (h, t, d) at offset + h * head_stride + t * token_stride + d elements.
 */
struct tensor_heads {
    struct tensor_buffer *buffer;
    size_t offset;
    enum tensor_dtype dtype;
    uint32_t heads, tokens, head_dim;
    size_t head_stride, token_stride;
};

static inline size_t tensor_dtype_bytes(enum tensor_dtype dtype)
{
    return dtype == TENSOR_F32 ? 4 : 2;
}

/* A compact matrix that starts at byte `offset` of the buffer. */
static inline struct tensor tensor_at(struct tensor_buffer *buffer, size_t offset, enum tensor_dtype dtype,
                                      uint32_t rows, uint32_t cols)
{
    return (struct tensor){ buffer, offset, dtype, rows, cols, cols };
}

static inline struct tensor tensor_rows(struct tensor from, uint32_t first, uint32_t count)
{
    from.offset += (size_t)first * from.stride * tensor_dtype_bytes(from.dtype);
    from.rows = count;
    return from;
}

static inline struct tensor tensor_cols(struct tensor from, uint32_t first, uint32_t count)
{
    from.offset += (size_t)first * tensor_dtype_bytes(from.dtype);
    from.cols = count;
    return from;
}

/* Columns of a matrix [tokens, heads * head_dim] as heads (a projection's output). */
static inline struct tensor_heads tensor_heads_of(struct tensor from, uint32_t heads)
{
    uint32_t head_dim = heads > 0 ? from.cols / heads : 0;

    return (struct tensor_heads){ from.buffer, from.offset, from.dtype, heads,
                                  from.rows,   head_dim,    head_dim,   from.stride };
}

/* A compact [heads, tokens, head_dim] that starts at byte `offset` (a KV slice). */
static inline struct tensor_heads tensor_heads_at(struct tensor_buffer *buffer, size_t offset,
                                                  enum tensor_dtype dtype, uint32_t heads, uint32_t tokens,
                                                  uint32_t head_dim)
{
    return (struct tensor_heads){ buffer,  offset, dtype, heads, tokens, head_dim, (size_t)tokens * head_dim,
                                  head_dim };
}

static inline struct tensor_heads tensor_heads_tokens(struct tensor_heads from, uint32_t first,
                                                      uint32_t count)
{
    from.offset += (size_t)first * from.token_stride * tensor_dtype_bytes(from.dtype);
    from.tokens = count;
    return from;
}

/* Host memory to host memory, f32 to and from the 16-bit types (round to nearest even, overflow to inf). */
void tensor_convert_host(void *to, enum tensor_dtype to_dtype, const void *from, enum tensor_dtype from_dtype,
                         size_t count);

/* ---------------------------------------------------------------------------------------------- arguments */

struct tensor_options {
    uint32_t threads; /* workers, the submitting thread included; 0: one per CPU this process may run on */
    const char *isa;  /* best to use: "avx512bf16", "avx512", "avx2", "portable"; NULL: all there is.
                       * The environment's REELKV_TENSOR_ISA lowers it further (tests). */
};

/* One matrix of host memory as a checkpoint stores it: row-major [outputs, inputs], with or without bias. */
struct tensor_weights_part {
    const void *matrix;      /* [outputs, inputs] */
    const void *bias;        /* [outputs] or NULL: zero */
    enum tensor_dtype dtype; /* of both */
    uint32_t outputs;
};

/* Parts are stacked along the outputs: q, k and v are one gemm. They are read by weights_create() only. */
struct tensor_weights_spec {
    uint32_t inputs;
    enum tensor_dtype compute; /* F32 or BF16: what the matrix is rounded to and what gemm's `in` must be */
    uint32_t part_count;
    struct tensor_weights_part parts[TENSOR_PARTS_MAX];
};

enum tensor_epilogue {
    TENSOR_PLAIN,
    TENSOR_GELU_TANH, /* gelu_pytorch_tanh */
    TENSOR_GELU_ERF,  /* gelu */
    TENSOR_SWIGLU,    /* weights of two equal parts, gate then up: out = silu(gate) * up, half the columns */
};

/* out = epilogue(in * W^T + bias) + residual
 * Row groups: group g is the rows [group_ends[g-1], group_ends[g]) and holds one frame's or one question's
 * tokens; the last end is in.rows. A group's result never depends on the other groups. */
struct tensor_gemm {
    struct tensor out; /* [rows, outputs] F32 or BF16 */
    struct tensor in;  /* [rows, inputs] of the weights' compute type; not overlapping out */
    const struct tensor_weights *weights;
    enum tensor_epilogue epilogue;
    const struct tensor *residual; /* NULL or F32 [rows, outputs]; may be `out` itself */
    const uint32_t *group_ends;    /* ascending */
    uint32_t group_count;
};

struct tensor_norm {
    struct tensor out;         /* [rows, cols] F32 or BF16 */
    struct tensor in;          /* [rows, cols] F32; may be out */
    const struct tensor *gain; /* F32 [1, cols] */
    const struct tensor *bias; /* F32 [1, cols]; layer_norm only, NULL: zero */
    float epsilon;
};

/* No limit on a segment's distances: bidirectional attention uses both. */
#define TENSOR_DISTANCE_MIN INT64_MIN
#define TENSOR_DISTANCE_MAX INT64_MAX

/* A stretch of keys and values with consecutive token indices. The query with index i sees the key with index
 * t when min_distance <= i - t < max_distance: causal is [0, MAX), a window [0, n_local). */
struct tensor_segment {
    struct tensor_heads keys, values; /* [kv_heads, tokens, head_dim], one dtype (any) */
    int64_t first_index;              /* token index of row 0 */
    int64_t min_distance, max_distance;
    bool far; /* scored with q_far instead of q */
};

/* One sequence: queries with consecutive token indices over its own list of segments, one softmax over all.
 * Query head h reads KV head h / (heads / kv_heads). A query that sees nothing gets zeros.
 * Runs: neighbours in the list with the same `far` and distances, where one starts at the index at which the
 * other ends, act exactly as one segment, so a window may be cut anywhere. Keys no query sees change nothing,
 * not even a bit. The order of runs in the list does enter the rounding. */
struct tensor_attention_item {
    struct tensor_heads out;   /* [heads, tokens, head_dim] F32 or BF16 */
    struct tensor_heads q;     /* F32 or BF16 (BF16 with BF16 keys and values takes the fast path) */
    struct tensor_heads q_far; /* as q; buffer NULL when no segment is far */
    int64_t first_index;       /* token index of query 0 */
    const struct tensor_segment *segments;
    uint32_t segment_count;
};

struct tensor_attention {
    float scale; /* of the scores, usually 1/sqrt(head_dim) */
    const struct tensor_attention_item *items;
    uint32_t item_count;
};

/* --------------------------------------------------------------------------------------------- operations */

struct tensor_ops {
    const char *name; /* "cpu" */

    bool (*device_open)(struct tensor_device **device_p, const struct tensor_options *options,
                        struct status *st);
    void (*device_close)(struct tensor_device *device);
    /* "cpu avx512bf16": part of what must be equal for equal bits. Lives as long as the device. */
    const char *(*numerics)(const struct tensor_device *device);

    bool (*queue_create)(struct tensor_queue **queue_p, struct tensor_device *device, struct status *st);
    void (*queue_destroy)(struct tensor_queue *queue); /* waits for its work */
    bool (*queue_finish)(struct tensor_queue *queue, struct status *st);

    /* Device memory, 64-byte aligned, content undefined. */
    bool (*buffer_create)(struct tensor_buffer **buffer_p, struct tensor_device *device, size_t bytes,
                          struct status *st);
    /* Read-only view of host memory (a mapped file, a leased slot) that stays unchanged until the buffer is
     * destroyed. Shared where the device can read host memory, copied now where it cannot. */
    bool (*buffer_wrap)(struct tensor_buffer **buffer_p, struct tensor_device *device, const void *host,
                        size_t bytes, struct status *st);
    void (*buffer_destroy)(struct tensor_buffer *buffer);
    /* Host memory is free again when write() returns, filled when read() returns. */
    bool (*write)(struct tensor_queue *queue, struct tensor_buffer *to, size_t offset, const void *host,
                  size_t bytes, struct status *st);
    bool (*read)(struct tensor_queue *queue, void *host, const struct tensor_buffer *from, size_t offset,
                 size_t bytes, struct status *st);

    bool (*weights_create)(struct tensor_weights **weights_p, struct tensor_device *device,
                           const struct tensor_weights_spec *spec, struct status *st);
    void (*weights_destroy)(struct tensor_weights *weights);

    bool (*gemm)(struct tensor_queue *queue, const struct tensor_gemm *args, struct status *st);
    /* (in - mean) / sqrt(variance + epsilon) * gain + bias over each row. */
    bool (*layer_norm)(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st);
    /* in / sqrt(mean(in^2) + epsilon) * gain over each row. */
    bool (*rms_norm)(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st);

    /* out[r] = table[ids[r]]; out F32, table any type; ids is host memory [out.rows], each < table.rows. */
    bool (*embed)(struct tensor_queue *queue, struct tensor out, struct tensor table, const uint32_t *ids,
                  struct status *st);
    /* out[r] = a[r] + b[r % b.rows], all F32; out may be a. Position embeddings repeat per frame. */
    bool (*add)(struct tensor_queue *queue, struct tensor out, struct tensor a, struct tensor b,
                struct status *st);
    /* Copies between layouts and types: a projection's columns into a KV slice. No overlap. */
    bool (*convert)(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                    struct status *st);

    /* Angles of `table.rows` consecutive positions: row p holds cos then sin of (first_position + p) *
     * frequencies[0 .. head_dim/2), computed in double. table is F32 [positions, head_dim]; frequencies is
     * host memory, radians per token: theta^(-2d/head_dim). Made once a pass, used by every layer. */
    bool (*rotary_table)(struct tensor_queue *queue, struct tensor table, const double *frequencies,
                         int64_t first_position, struct status *st);
    /* out[h, t] = in[h, t] turned by table row t, half-split form: (x1, x2) -> (x1 cos - x2 sin,
     * x2 cos + x1 sin) with x2 = in[head_dim/2 ..]. A table of stride 0 turns all by one angle (far queries).
     * table.rows >= tokens unless its stride is 0. in and out any type; out may be in when equal in layout.
     */
    bool (*rotary)(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                   struct tensor table, struct status *st);

    bool (*attention)(struct tensor_queue *queue, const struct tensor_attention *args, struct status *st);

    /* out[g, d] = sum over the `fold` heads g*fold.. of their mean over tokens, in f32: representative keys
     * with fold 1, folded question queries with fold heads/kv_heads. out F32 [heads / fold, head_dim]. */
    bool (*mean_tokens)(struct tensor_queue *queue, struct tensor out, struct tensor_heads in, uint32_t fold,
                        struct status *st);
    /* Frames of grid * grid rows to ceil(grid/2)^2 rows each, bilinear, align_corners false, no antialias.
     * F32 both. */
    bool (*pool_bilinear)(struct tensor_queue *queue, struct tensor out, struct tensor in, uint32_t grid,
                          struct status *st);
    /* ids[r] = column of the largest value of row r, the lowest on a tie; NaN never wins. in F32; ids is host
     * memory [in.rows], filled when the call returns. */
    bool (*argmax)(struct tensor_queue *queue, uint32_t *ids, struct tensor in, struct status *st);
};

extern const struct tensor_ops tensor_ops_cpu;

#endif
