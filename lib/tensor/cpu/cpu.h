/* cpu.h - inside of the CPU backend: what a device, buffer and weights are here, and the kernels that exist
 * once per instruction set. Included by lib/tensor/cpu only; contracts of the operations are in
 * tensor/tensor.h. */
#ifndef REELKV_TENSOR_CPU_CPU_H
#define REELKV_TENSOR_CPU_CPU_H

#include "tensor/cpu/pool.h"
#include "tensor/tensor.h"

enum {
    CPU_LANES_MAX = 16,
    CPU_ROWS_BLOCK = 140,           /* rows of one gemm task */
    CPU_COLS_BLOCK = 256,           /* columns of one gemm task */
    CPU_DEPTH_BLOCK = 1024,         /* inputs (pairs of them in bf16) between two visits of the sums */
    CPU_DEPTH_FEW = 2048,           /* the same when one tile holds all rows: stream the weights */
    CPU_QUERIES_BLOCK = 256,        /* query rows of one attention task */
    CPU_KEYS_TILE = 112,            /* keys of one softmax step; tiles start at multiples of it */
    CPU_KEYS_CHUNK = 112 * 16,      /* keys of one task when few queries see many keys */
    CPU_QUERIES_FEW = 64,           /* query rows up to which keys are dealt out by chunks */
    CPU_WORKER_BYTES = 1536 * 1024, /* scratch of one worker; kernels check that they fit */
};

struct cpu_kernels;

struct tensor_device {
    struct pool *pool;
    const struct cpu_kernels *kernels;
    uint8_t *scratch; /* [threads][CPU_WORKER_BYTES], used inside pool_run() only */
    char numerics[TENSOR_NUMERICS_BYTES];
};

/* Memory of the operation in progress; grows to the largest ever asked for. */
struct cpu_scratch {
    void *bytes;
    size_t size;
};

struct tensor_queue {
    struct tensor_device *device;
    struct cpu_scratch scratch, lists;
};

struct tensor_buffer {
    uint8_t *bytes;
    size_t size;
    bool wrapped; /* the bytes are someone else's and read-only */
};

/* Outputs in blocks of `lanes` columns. A part starts a new block, so that block b of gate and block b of up
 * hold the same columns; the last block of a part is filled up with zeros. */
struct cpu_block {
    uint32_t col;   /* of the first output */
    uint32_t count; /* outputs that are real */
};

/* Packed as [block][depth][lanes] of 4-byte words: an f32, or a pair of bf16 from inputs 2d and 2d + 1 when
 * the kernels have a bf16 dot product; else bf16 weights are [block][depth][lanes] of 2 bytes. */
struct tensor_weights {
    uint32_t inputs, outputs, depth;
    enum tensor_dtype compute;
    bool gated; /* two equal parts */
    uint32_t block_count;
    struct cpu_block *blocks;
    float *bias; /* [block_count * lanes] */
    void *packed;
    size_t block_bytes; /* of `packed`, per block */
};

/* One gemm, ready for the kernels. */
struct cpu_gemm {
    const struct tensor_weights *weights;
    const uint8_t *in;
    size_t in_stride; /* bytes */
    uint8_t *out;
    size_t out_stride; /* bytes */
    enum tensor_dtype out_dtype;
    const float *residual; /* NULL or element (0, 0) */
    size_t residual_stride;
    enum tensor_epilogue epilogue;
    uint32_t columns; /* column blocks to deal out: of gate only with SWIGLU */
};

struct cpu_range {
    uint32_t from, to;
};

/* A matrix row by row, a heads view head by head, as the row kernels see them. */
struct cpu_row {
    void *data;
    enum tensor_dtype dtype;
};

struct cpu_norm {
    const float *gain, *bias; /* bias NULL: zero */
    uint32_t cols;
    float epsilon;
    bool centered; /* layer norm, else root mean square */
};

/* A run of keys: segments of one item that act as one (tensor.h). */
struct cpu_run {
    const struct tensor_segment *segments;
    uint32_t segment_count;
    int64_t first, end; /* token indices */
};

/* Query rows [rows.from, rows.to) of one KV head against the keys with index in [from, to) of some runs. Row
 * r is token r / group, query head kv_head * group + r % group. */
struct cpu_attention_task {
    const struct tensor_attention_item *item;
    const struct cpu_run *runs;
    uint32_t run_count;
    uint32_t kv_head, group;
    struct cpu_range rows;
    int64_t from, to;
    float scale;
    float *partial; /* NULL: finish into item->out; else where attention_merge() finds this share */
};

struct cpu_merge {
    const struct tensor_attention_item *item;
    uint32_t kv_head, group;
    struct cpu_range rows;
    const float *partials; /* [count][cpu_kernels.partial_floats(rows, head_dim)] */
    uint32_t count;
    float scale;
};

struct cpu_kernels {
    const char *name;
    uint32_t lanes;
    bool bf16_dot;
    void (*pack)(struct tensor_weights *weights, uint32_t block, const float *rows);
    void (*gemm)(const struct cpu_gemm *gemm, struct cpu_range rows, struct cpu_range columns,
                 uint8_t *scratch);
    size_t (*partial_floats)(uint32_t rows, uint32_t head_dim);
    void (*attention)(const struct cpu_attention_task *task, uint8_t *scratch);
    void (*attention_merge)(const struct cpu_merge *merge, uint8_t *scratch);
    void (*norm)(struct cpu_row out, const float *in, const struct cpu_norm *norm);
    void (*copy)(struct cpu_row out, struct cpu_row in, uint32_t count);
    void (*add)(float *out, const float *a, const float *b, uint32_t count);
    /* half-split turn of one head: cosines then sines, head_dim / 2 each */
    void (*turn)(struct cpu_row out, struct cpu_row in, const float *angles, uint32_t head_dim);
    /* sums[d] += the rows' numbers, row after row */
    void (*sum_rows)(float *sums, struct cpu_row in, size_t stride, uint32_t rows, uint32_t cols);
};

extern const struct cpu_kernels cpu_kernels_portable;
#ifdef REELKV_TENSOR_X86
extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avx512;
extern const struct cpu_kernels cpu_kernels_avx512bf16;
#endif

/* Addresses inside views that check.c has accepted. */
static inline uint8_t *cpu_at(const struct tensor *view, uint32_t row)
{
    return view->buffer->bytes + view->offset + (size_t)row * view->stride * tensor_dtype_bytes(view->dtype);
}

static inline uint8_t *cpu_heads_at(const struct tensor_heads *view, uint32_t head, uint32_t token)
{
    return view->buffer->bytes + view->offset +
           ((size_t)head * view->head_stride + (size_t)token * view->token_stride) *
               tensor_dtype_bytes(view->dtype);
}

/* check.c: true when the view is well formed and lies inside its buffer; `what` names it in the sentence. */
bool cpu_check(const struct tensor *view, const char *what, bool written, struct status *st);
bool cpu_check_heads(const struct tensor_heads *view, const char *what, bool written, struct status *st);
bool cpu_check_f32(const struct tensor *view, const char *what, uint32_t rows, uint32_t cols,
                   struct status *st);
bool cpu_bad(struct status *st, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* At least `bytes`, 64-byte aligned, valid until the next call; NULL and EXHAUSTED without memory. */
void *cpu_scratch(struct cpu_scratch *scratch, size_t bytes, struct status *st);

/* The operations, by file; their contracts are the table's. */
bool cpu_weights_create(struct tensor_weights **weights_p, struct tensor_device *device,
                        const struct tensor_weights_spec *spec, struct status *st);
void cpu_weights_destroy(struct tensor_weights *weights);
bool cpu_gemm(struct tensor_queue *queue, const struct tensor_gemm *args, struct status *st);
bool cpu_attention(struct tensor_queue *queue, const struct tensor_attention *args, struct status *st);
bool cpu_layer_norm(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st);
bool cpu_rms_norm(struct tensor_queue *queue, const struct tensor_norm *args, struct status *st);
bool cpu_embed(struct tensor_queue *queue, struct tensor out, struct tensor table, const uint32_t *ids,
               struct status *st);
bool cpu_add(struct tensor_queue *queue, struct tensor out, struct tensor a, struct tensor b,
             struct status *st);
bool cpu_convert(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                 struct status *st);
bool cpu_rotary_table(struct tensor_queue *queue, struct tensor table, const double *frequencies,
                      int64_t first_position, struct status *st);
bool cpu_rotary(struct tensor_queue *queue, struct tensor_heads out, struct tensor_heads in,
                struct tensor table, struct status *st);
bool cpu_mean_tokens(struct tensor_queue *queue, struct tensor out, struct tensor_heads in, uint32_t fold,
                     struct status *st);
bool cpu_pool_bilinear(struct tensor_queue *queue, struct tensor out, struct tensor in, uint32_t grid,
                       struct status *st);
bool cpu_argmax(struct tensor_queue *queue, uint32_t *ids, struct tensor in, struct status *st);

/* Memory for buffers and weights, 64-byte aligned, in huge pages where it is large: a window is read end to end
 * for every frame, and a question takes fresh memory for its context. free() gives it back; NULL: none left. */
void *cpu_alloc(size_t bytes);

#endif
