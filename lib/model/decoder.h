/* decoder.h - Qwen2's layers, without their attention: what windows and questions share.
 *
 *   x += o(attention(q, k, v of norm(x)));  x += down(silu(gate(norm(x))) * up(norm(x)))
 *
 * A pass is the scratch memory of one run over some rows (tokens): its owner fills x, then for each layer
 * calls decoder_project(), attends as it likes from pass->qkv into pass->attended, and calls
 * decoder_finish(). A pass's rows are cut into groups (one frame, one question); a group's numbers never
 * depend on the others.
 *
 * Owner:  decoder_create() .. decoder_destroy(), pass_create() .. pass_destroy(), passes first.
 * Thread: a decoder is read only; a pass belongs to one thread at a time.
 * Fails:  INVALID for tensors that do not fit, EXHAUSTED without memory. Bounds: the pass's rows. */
#ifndef REELKV_MODEL_DECODER_H
#define REELKV_MODEL_DECODER_H

#include "model/config.h"
#include "model/weights.h"

struct decoder;
struct decoder_pass;

/* What the rest of lib/model may read of a decoder. */
struct decoder_shape {
    uint32_t layers, heads, kv_heads, head_dim, hidden, vocabulary;
    enum tensor_dtype dtype;
    float scale;
    const double *frequencies; /* [head_dim / 2] radians a token */
};

bool decoder_create(struct decoder **decoder_p, const struct model_config *config,
                    const struct weights_source *source, struct status *st);
void decoder_destroy(struct decoder *decoder); /* NULL is fine */
const struct decoder_shape *decoder_shape(const struct decoder *decoder);

/* Views of a pass's memory, for its first `rows` rows. All of the decoder's dtype but x. */
struct pass_views {
    struct tensor x;            /* f32 [rows, hidden] */
    struct tensor q, k, v;      /* [rows, heads or kv_heads * head_dim], of the layer projected last */
    struct tensor turned;       /* [rows, heads * head_dim]: rotated queries */
    struct tensor turned_far;   /* the same, at the far angle */
    struct tensor attended;     /* [rows, heads * head_dim] */
    struct tensor positions;    /* f32 [rows, head_dim]: a rotary table */
    struct tensor far_position; /* f32 [rows, head_dim], stride 0: one angle for all */
};

bool pass_create(struct decoder_pass **pass_p, const struct decoder *decoder,
                 const struct weights_source *source, uint32_t rows_max, struct status *st);
void pass_destroy(struct decoder_pass *pass); /* NULL is fine */
struct tensor_queue *pass_queue(const struct decoder_pass *pass);
uint32_t pass_rows_max(const struct decoder_pass *pass);
struct pass_views pass_views(const struct decoder_pass *pass, uint32_t rows);

/* The rows of this run: group g ends at group_ends[g], the last is the number of rows. Borrowed until the run
 * ends. */
void pass_begin(struct decoder_pass *pass, const uint32_t *group_ends, uint32_t group_count);

bool pass_embed(struct decoder_pass *pass, uint32_t first_row, const uint32_t *ids, uint32_t count,
                struct status *st);
bool decoder_project(struct decoder_pass *pass, uint32_t layer, struct status *st);
bool decoder_finish(struct decoder_pass *pass, uint32_t layer, struct status *st);

/* The scores of one row after the last layer into `logits` f32 [1, vocabulary]. */
bool decoder_score(struct decoder_pass *pass, uint32_t row, struct tensor logits, struct status *st);

#endif
