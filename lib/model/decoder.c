#include "model/decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"

struct decoder_layer {
    size_t input_gain, post_gain; /* in `vectors` */
    struct tensor_weights *qkv, *out, *gate_up, *down;
};

struct decoder {
    const struct model_config *config;
    const struct tensor_ops *ops;
    struct decoder_shape shape;
    struct weights_vectors vectors;
    size_t final_gain;
    struct decoder_layer *layers;
    struct tensor embeddings; /* [vocabulary, hidden], as on disk */
    struct tensor_weights *head;
    double *frequencies;
};

struct decoder_pass {
    const struct decoder *decoder;
    struct tensor_queue *queue;
    uint32_t rows_max, rows, group_count;
    const uint32_t *group_ends;
    struct tensor_buffer *x, *normed, *qkv, *turned, *turned_far, *attended, *inner, *positions,
        *far_position;
};

/* ---------------------------------------------------------------------------------------------- loading */

static bool load_gain(struct decoder *decoder, const struct weights_source *source, const char *name,
                      size_t *at_p, struct status *st)
{
    return weights_add_vector(&decoder->vectors, source, name, 1, decoder->shape.hidden, at_p, st);
}

static void name_part(struct weights_linear *linear, uint32_t part, const char *prefix, const char *name,
                      uint32_t outputs)
{
    snprintf(linear->parts[part].name, sizeof linear->parts[part].name, "%s%s", prefix, name);
    linear->parts[part].outputs = outputs;
}

static bool load_layer(struct decoder *decoder, const struct weights_source *source, uint32_t index,
                       struct status *st)
{
    const struct decoder_shape *shape = &decoder->shape;
    struct decoder_layer *layer = &decoder->layers[index];
    uint32_t q_cols = shape->heads * shape->head_dim, kv_cols = shape->kv_heads * shape->head_dim;
    uint32_t mlp = decoder->config->text.mlp;
    struct weights_linear qkv = { .part_count = 3, .inputs = shape->hidden, .bias = true };
    struct weights_linear out = { .part_count = 1, .inputs = q_cols };
    struct weights_linear gate_up = { .part_count = 2, .inputs = shape->hidden };
    struct weights_linear down = { .part_count = 1, .inputs = mlp };
    char prefix[WEIGHTS_NAME_BYTES / 2], name[WEIGHTS_NAME_BYTES];

    snprintf(prefix, sizeof prefix, "%smodel.layers.%u.", decoder->config->family->text_prefix, index);
    name_part(&qkv, 0, prefix, "self_attn.q_proj", q_cols);
    name_part(&qkv, 1, prefix, "self_attn.k_proj", kv_cols);
    name_part(&qkv, 2, prefix, "self_attn.v_proj", kv_cols);
    name_part(&out, 0, prefix, "self_attn.o_proj", shape->hidden);
    name_part(&gate_up, 0, prefix, "mlp.gate_proj", mlp);
    name_part(&gate_up, 1, prefix, "mlp.up_proj", mlp);
    name_part(&down, 0, prefix, "mlp.down_proj", shape->hidden);
    snprintf(name, sizeof name, "%sinput_layernorm.weight", prefix);
    if (!load_gain(decoder, source, name, &layer->input_gain, st))
        return false;
    snprintf(name, sizeof name, "%spost_attention_layernorm.weight", prefix);
    return load_gain(decoder, source, name, &layer->post_gain, st) &&
           weights_load(&layer->qkv, source, &qkv, st) && weights_load(&layer->out, source, &out, st) &&
           weights_load(&layer->gate_up, source, &gate_up, st) &&
           weights_load(&layer->down, source, &down, st);
}

static bool send_vectors(struct decoder *decoder, const struct weights_source *source, struct status *st)
{
    struct tensor_queue *queue = NULL;
    bool ok;

    if (!source->ops->queue_create(&queue, source->device, st))
        return false;
    ok = weights_send_vectors(&decoder->vectors, source, queue, st);
    source->ops->queue_destroy(queue);
    return ok;
}

static bool load_weights(struct decoder *decoder, const struct weights_source *source, struct status *st)
{
    const struct decoder_shape *shape = &decoder->shape;
    const char *prefix = decoder->config->family->text_prefix;
    struct weights_linear head = { .part_count = 1, .inputs = shape->hidden };
    char name[WEIGHTS_NAME_BYTES];

    snprintf(name, sizeof name, "%smodel.embed_tokens.weight", prefix);
    if (!weights_load_table(&decoder->embeddings, source, name, shape->vocabulary, shape->hidden, st))
        return false;
    name_part(&head, 0, prefix, decoder->config->text.tied ? "model.embed_tokens" : "lm_head",
              shape->vocabulary);
    snprintf(name, sizeof name, "%smodel.norm.weight", prefix);
    if (!weights_load(&decoder->head, source, &head, st) ||
        !load_gain(decoder, source, name, &decoder->final_gain, st))
        return false;
    for (uint32_t i = 0; i < shape->layers; i++)
        if (!load_layer(decoder, source, i, st))
            return false;
    return send_vectors(decoder, source, st);
}

/* theta^(-2d/head_dim). The reference rounds this and the angle to f32, which at position 15,000 costs it
 * 1e-3 radians; nothing is gained by repeating that. */
static void fill_frequencies(double *frequencies, const struct text_config *text)
{
    for (uint32_t d = 0; d < text->head_dim / 2; d++)
        frequencies[d] = pow(text->rope_theta, -2.0 * d / text->head_dim);
}

bool decoder_create(struct decoder **decoder_p, const struct model_config *config,
                    const struct weights_source *source, struct status *st)
{
    const struct text_config *text = &config->text;
    struct decoder *decoder = calloc(1, sizeof *decoder);

    if (decoder == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a decoder");
    decoder->config = config;
    decoder->ops = source->ops;
    decoder->layers = calloc(text->layers, sizeof *decoder->layers);
    decoder->frequencies = calloc(text->head_dim / 2, sizeof *decoder->frequencies);
    decoder->shape = (struct decoder_shape){
        .layers = text->layers,
        .heads = text->heads,
        .kv_heads = text->kv_heads,
        .head_dim = text->head_dim,
        .hidden = text->hidden,
        .vocabulary = text->vocabulary,
        .dtype = source->dtype,
        .scale = (float)(1 / sqrt((double)text->head_dim)),
        .frequencies = decoder->frequencies,
    };
    if (decoder->layers == NULL || decoder->frequencies == NULL)
        status_fail(st, STATUS_EXHAUSTED, "no memory for a decoder");
    else {
        fill_frequencies(decoder->frequencies, text);
        if (load_weights(decoder, source, st)) {
            *decoder_p = decoder;
            return true;
        }
    }
    decoder_destroy(decoder);
    return false;
}

void decoder_destroy(struct decoder *decoder)
{
    const struct tensor_ops *ops;

    if (decoder == NULL)
        return;
    ops = decoder->ops;
    for (uint32_t i = 0; decoder->layers != NULL && i < decoder->shape.layers; i++) {
        ops->weights_destroy(decoder->layers[i].qkv);
        ops->weights_destroy(decoder->layers[i].out);
        ops->weights_destroy(decoder->layers[i].gate_up);
        ops->weights_destroy(decoder->layers[i].down);
    }
    ops->weights_destroy(decoder->head);
    ops->buffer_destroy(decoder->embeddings.buffer);
    weights_free_vectors(&decoder->vectors, ops);
    free(decoder->layers);
    free(decoder->frequencies);
    free(decoder);
}

const struct decoder_shape *decoder_shape(const struct decoder *decoder)
{
    return &decoder->shape;
}

/* ----------------------------------------------------------------------------------------------- passes */

static bool make_buffers(struct decoder_pass *pass, const struct weights_source *source, struct status *st)
{
    const struct decoder_shape *shape = &pass->decoder->shape;
    size_t bytes = tensor_dtype_bytes(shape->dtype), q_cols = (size_t)shape->heads * shape->head_dim;
    size_t qkv_cols = q_cols + 2 * (size_t)shape->kv_heads * shape->head_dim;
    const struct {
        struct tensor_buffer **buffer;
        size_t row_bytes;
    } plan[] = {
        { &pass->x, shape->hidden * sizeof(float) },
        { &pass->normed, shape->hidden * bytes },
        { &pass->qkv, qkv_cols * bytes },
        { &pass->turned, q_cols * bytes },
        { &pass->turned_far, q_cols * bytes },
        { &pass->attended, q_cols * bytes },
        { &pass->inner, pass->decoder->config->text.mlp * bytes },
        { &pass->positions, shape->head_dim * sizeof(float) },
    };

    for (size_t i = 0; i < ARRAY_LEN(plan); i++)
        if (!source->ops->buffer_create(plan[i].buffer, source->device, plan[i].row_bytes * pass->rows_max,
                                        st))
            return false;
    return source->ops->queue_create(&pass->queue, source->device, st) &&
           source->ops->buffer_create(&pass->far_position, source->device, shape->head_dim * sizeof(float),
                                      st);
}

bool pass_create(struct decoder_pass **pass_p, const struct decoder *decoder,
                 const struct weights_source *source, uint32_t rows_max, struct status *st)
{
    struct decoder_pass *pass = calloc(1, sizeof *pass);

    if (pass == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a pass");
    pass->decoder = decoder;
    pass->rows_max = rows_max;
    if (!make_buffers(pass, source, st)) {
        pass_destroy(pass);
        return false;
    }
    *pass_p = pass;
    return true;
}

void pass_destroy(struct decoder_pass *pass)
{
    const struct tensor_ops *ops;

    if (pass == NULL)
        return;
    ops = pass->decoder->ops;
    ops->queue_destroy(pass->queue);
    ops->buffer_destroy(pass->x);
    ops->buffer_destroy(pass->normed);
    ops->buffer_destroy(pass->qkv);
    ops->buffer_destroy(pass->turned);
    ops->buffer_destroy(pass->turned_far);
    ops->buffer_destroy(pass->attended);
    ops->buffer_destroy(pass->inner);
    ops->buffer_destroy(pass->positions);
    ops->buffer_destroy(pass->far_position);
    free(pass);
}

struct tensor_queue *pass_queue(const struct decoder_pass *pass)
{
    return pass->queue;
}

uint32_t pass_rows_max(const struct decoder_pass *pass)
{
    return pass->rows_max;
}

struct pass_views pass_views(const struct decoder_pass *pass, uint32_t rows)
{
    const struct decoder_shape *shape = &pass->decoder->shape;
    uint32_t q_cols = shape->heads * shape->head_dim, kv_cols = shape->kv_heads * shape->head_dim;
    struct tensor qkv = tensor_at(pass->qkv, 0, shape->dtype, rows, q_cols + 2 * kv_cols);
    struct pass_views views = {
        .x = tensor_at(pass->x, 0, TENSOR_F32, rows, shape->hidden),
        .q = tensor_cols(qkv, 0, q_cols),
        .k = tensor_cols(qkv, q_cols, kv_cols),
        .v = tensor_cols(qkv, q_cols + kv_cols, kv_cols),
        .turned = tensor_at(pass->turned, 0, shape->dtype, rows, q_cols),
        .turned_far = tensor_at(pass->turned_far, 0, shape->dtype, rows, q_cols),
        .attended = tensor_at(pass->attended, 0, shape->dtype, rows, q_cols),
        .positions = tensor_at(pass->positions, 0, TENSOR_F32, rows, shape->head_dim),
        .far_position = tensor_at(pass->far_position, 0, TENSOR_F32, rows, shape->head_dim),
    };

    views.far_position.stride = 0;
    return views;
}

void pass_begin(struct decoder_pass *pass, const uint32_t *group_ends, uint32_t group_count)
{
    REQUIRE(group_count > 0 && group_ends[group_count - 1] <= pass->rows_max);
    pass->group_ends = group_ends;
    pass->group_count = group_count;
    pass->rows = group_ends[group_count - 1];
}

bool pass_embed(struct decoder_pass *pass, uint32_t first_row, const uint32_t *ids, uint32_t count,
                struct status *st)
{
    const struct decoder *decoder = pass->decoder;
    struct tensor x = pass_views(pass, first_row + count).x;

    for (uint32_t i = 0; i < count; i++)
        if (ids[i] >= decoder->shape.vocabulary)
            return status_fail(st, STATUS_INVALID, "token id %u is outside the model's vocabulary of %u",
                               ids[i], decoder->shape.vocabulary);
    return decoder->ops->embed(pass->queue, tensor_rows(x, first_row, count), decoder->embeddings, ids, st);
}

static bool norm(struct decoder_pass *pass, struct tensor x, struct tensor normed, size_t gain_at,
                 struct status *st)
{
    struct tensor gain = weights_vector(&pass->decoder->vectors, gain_at, 1, x.cols);

    return pass->decoder->ops->rms_norm(pass->queue,
                                        &(struct tensor_norm){
                                            .out = normed,
                                            .in = x,
                                            .gain = &gain,
                                            .epsilon = (float)pass->decoder->config->text.rms_epsilon },
                                        st);
}

static struct tensor normed_view(const struct decoder_pass *pass, uint32_t rows)
{
    return tensor_at(pass->normed, 0, pass->decoder->shape.dtype, rows, pass->decoder->shape.hidden);
}

static struct tensor_gemm gemm_of(const struct decoder_pass *pass, struct tensor out, struct tensor in,
                                  const struct tensor_weights *weights)
{
    return (struct tensor_gemm){ .out = out,
                                 .in = in,
                                 .weights = weights,
                                 .group_ends = pass->group_ends,
                                 .group_count = pass->group_count };
}

bool decoder_project(struct decoder_pass *pass, uint32_t layer, struct status *st)
{
    const struct decoder_shape *shape = &pass->decoder->shape;
    const struct decoder_layer *weights = &pass->decoder->layers[layer];
    struct tensor normed = normed_view(pass, pass->rows);
    uint32_t cols = (shape->heads + 2 * shape->kv_heads) * shape->head_dim;
    struct tensor_gemm gemm =
        gemm_of(pass, tensor_at(pass->qkv, 0, shape->dtype, pass->rows, cols), normed, weights->qkv);

    return norm(pass, pass_views(pass, pass->rows).x, normed, weights->input_gain, st) &&
           pass->decoder->ops->gemm(pass->queue, &gemm, st);
}

bool decoder_finish(struct decoder_pass *pass, uint32_t layer, struct status *st)
{
    const struct tensor_ops *ops = pass->decoder->ops;
    const struct decoder_layer *weights = &pass->decoder->layers[layer];
    struct pass_views views = pass_views(pass, pass->rows);
    struct tensor normed = normed_view(pass, pass->rows);
    struct tensor inner =
        tensor_at(pass->inner, 0, pass->decoder->shape.dtype, pass->rows, pass->decoder->config->text.mlp);
    struct tensor_gemm out = gemm_of(pass, views.x, views.attended, weights->out);
    struct tensor_gemm gate_up = gemm_of(pass, inner, normed, weights->gate_up);
    struct tensor_gemm down = gemm_of(pass, views.x, inner, weights->down);

    out.residual = down.residual = &views.x;
    gate_up.epilogue = TENSOR_SWIGLU;
    return ops->gemm(pass->queue, &out, st) && norm(pass, views.x, normed, weights->post_gain, st) &&
           ops->gemm(pass->queue, &gate_up, st) && ops->gemm(pass->queue, &down, st);
}

bool decoder_score(struct decoder_pass *pass, uint32_t row, struct tensor logits, struct status *st)
{
    static const uint32_t one_row = 1;
    const struct decoder *decoder = pass->decoder;
    struct tensor x = tensor_rows(pass_views(pass, pass->rows).x, row, 1);
    struct tensor normed = normed_view(pass, 1);
    struct tensor_gemm gemm = gemm_of(pass, logits, normed, decoder->head);

    gemm.group_ends = &one_row;
    gemm.group_count = 1;
    return norm(pass, x, normed, decoder->final_gain, st) && decoder->ops->gemm(pass->queue, &gemm, st);
}
