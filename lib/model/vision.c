#include "model/vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/preprocess.h"

struct vision_layer {
    size_t norm1_gain, norm1_bias, norm2_gain, norm2_bias; /* in `vectors` */
    struct tensor_weights *qkv, *out, *fc1, *fc2;
};

struct vision {
    const struct model_config *config;
    const struct tensor_ops *ops;
    struct tensor_queue *queue;
    enum tensor_dtype dtype;
    uint32_t frames, patches; /* patches: rows of a frame */
    struct preprocess preprocess;

    struct weights_vectors vectors;
    size_t positions; /* [patches, hidden], in `vectors` */
    struct tensor_weights *patch, *project1, *project2;
    struct vision_layer *layers;

    float *host_patches; /* [patches, 3 * patch * patch] */
    void *host_compute;  /* the same in `dtype` */
    /* Device scratch, [frames * patches, ...]: */
    struct tensor_buffer *pixels;    /* [3 * patch * patch] of dtype */
    struct tensor_buffer *stream;    /* [hidden] f32, the residual stream */
    struct tensor_buffer *normed;    /* [hidden] of dtype */
    struct tensor_buffer *qkv;       /* [3 * hidden] of dtype */
    struct tensor_buffer *attended;  /* [hidden] of dtype */
    struct tensor_buffer *inner;     /* [mlp], or the projector's hidden, of dtype */
    struct tensor_buffer *projected; /* [text hidden] f32 */
    struct tensor_buffer *pooled;    /* [frames * frame_tokens, text hidden] f32 */
    uint32_t *group_ends;            /* [frames] */
    struct tensor_segment *segments; /* [frames], one each */
    struct tensor_attention_item *items;
};

static uint32_t patch_inputs(const struct vision *vision)
{
    return 3 * vision->config->vision.patch * vision->config->vision.patch;
}

/* ---------------------------------------------------------------------------------------------- loading */

/* parts are "<prefix><names[i]>", each with `outputs` rows. */
static bool load(struct tensor_weights **weights_p, const struct weights_source *source, const char *prefix,
                 const char *const *names, struct weights_linear linear, struct status *st)
{
    for (uint32_t i = 0; i < linear.part_count; i++) {
        snprintf(linear.parts[i].name, sizeof linear.parts[i].name, "%s%s", prefix, names[i]);
        linear.parts[i].outputs = linear.parts[0].outputs;
    }
    linear.bias = true;
    return weights_load(weights_p, source, &linear, st);
}

static bool load_one(struct tensor_weights **weights_p, const struct weights_source *source,
                     const char *prefix, const char *name, struct weights_linear linear, struct status *st)
{
    linear.part_count = 1;
    return load(weights_p, source, prefix, &name, linear, st);
}

static bool load_vector(struct vision *vision, const struct weights_source *source, const char *prefix,
                        const char *name, size_t *at_p, struct status *st)
{
    char full[WEIGHTS_NAME_BYTES];

    snprintf(full, sizeof full, "%s%s", prefix, name);
    return weights_add_vector(&vision->vectors, source, full, 1, vision->config->vision.hidden, at_p, st);
}

static bool load_layer(struct vision *vision, const struct weights_source *source, uint32_t index,
                       struct status *st)
{
    static const char *const qkv[] = { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj" };
    const struct vision_config *config = &vision->config->vision;
    struct vision_layer *layer = &vision->layers[index];
    struct weights_linear square = { .inputs = config->hidden, .parts[0].outputs = config->hidden };
    struct weights_linear widen = { .inputs = config->hidden, .parts[0].outputs = config->mlp };
    struct weights_linear narrow = { .inputs = config->mlp, .parts[0].outputs = config->hidden };
    struct weights_linear three = square;
    char prefix[WEIGHTS_NAME_BYTES / 2];

    three.part_count = 3;
    snprintf(prefix, sizeof prefix, "%sencoder.layers.%u.", vision->config->family->vision_prefix, index);
    return load_vector(vision, source, prefix, "layer_norm1.weight", &layer->norm1_gain, st) &&
           load_vector(vision, source, prefix, "layer_norm1.bias", &layer->norm1_bias, st) &&
           load_vector(vision, source, prefix, "layer_norm2.weight", &layer->norm2_gain, st) &&
           load_vector(vision, source, prefix, "layer_norm2.bias", &layer->norm2_bias, st) &&
           load(&layer->qkv, source, prefix, qkv, three, st) &&
           load_one(&layer->out, source, prefix, "self_attn.out_proj", square, st) &&
           load_one(&layer->fc1, source, prefix, "mlp.fc1", widen, st) &&
           load_one(&layer->fc2, source, prefix, "mlp.fc2", narrow, st);
}

static bool load_weights(struct vision *vision, const struct weights_source *source, struct status *st)
{
    const struct model_family *family = vision->config->family;
    const struct vision_config *config = &vision->config->vision;
    uint32_t hidden = vision->config->text.hidden;
    struct weights_linear patch = { .inputs = patch_inputs(vision),
                                    .patch = config->patch,
                                    .parts[0].outputs = config->hidden };
    struct weights_linear project1 = { .inputs = config->hidden, .parts[0].outputs = hidden };
    struct weights_linear project2 = { .inputs = hidden, .parts[0].outputs = hidden };
    char name[WEIGHTS_NAME_BYTES];

    snprintf(name, sizeof name, "%sembeddings.position_embedding.weight", family->vision_prefix);
    if (!load_one(&vision->patch, source, family->vision_prefix, "embeddings.patch_embedding", patch, st) ||
        !weights_add_vector(&vision->vectors, source, name, vision->patches, config->hidden,
                            &vision->positions, st) ||
        !load_one(&vision->project1, source, family->projector_prefix, "linear_1", project1, st) ||
        !load_one(&vision->project2, source, family->projector_prefix, "linear_2", project2, st))
        return false;
    for (uint32_t i = 0; i < config->layers_run; i++)
        if (!load_layer(vision, source, i, st))
            return false;
    return weights_send_vectors(&vision->vectors, source, vision->queue, st);
}

/* A scratch matrix for all frames. */
static bool make_scratch(struct vision *vision, const struct weights_source *source,
                         struct tensor_buffer **buffer_p, size_t row_bytes, struct status *st)
{
    return vision->ops->buffer_create(buffer_p, source->device, row_bytes * vision->frames * vision->patches,
                                      st);
}

static bool make_all_scratch(struct vision *vision, const struct weights_source *source, struct status *st)
{
    const struct vision_config *config = &vision->config->vision;
    uint32_t hidden = vision->config->text.hidden, frames = vision->frames;
    size_t bytes = tensor_dtype_bytes(vision->dtype), inputs = patch_inputs(vision);

    vision->host_patches = malloc(vision->patches * inputs * sizeof *vision->host_patches);
    vision->host_compute = malloc(vision->patches * inputs * bytes);
    vision->group_ends = calloc(frames, sizeof *vision->group_ends);
    vision->segments = calloc(frames, sizeof *vision->segments);
    vision->items = calloc(frames, sizeof *vision->items);
    if (vision->host_patches == NULL || vision->host_compute == NULL || vision->group_ends == NULL ||
        vision->segments == NULL || vision->items == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to encode %u pictures at once", frames);
    for (uint32_t i = 0; i < frames; i++)
        vision->group_ends[i] = (i + 1) * vision->patches;
    return make_scratch(vision, source, &vision->pixels, inputs * bytes, st) &&
           make_scratch(vision, source, &vision->stream, config->hidden * sizeof(float), st) &&
           make_scratch(vision, source, &vision->normed, config->hidden * bytes, st) &&
           make_scratch(vision, source, &vision->qkv, 3 * (size_t)config->hidden * bytes, st) &&
           make_scratch(vision, source, &vision->attended, config->hidden * bytes, st) &&
           make_scratch(vision, source, &vision->inner, (config->mlp > hidden ? config->mlp : hidden) * bytes,
                        st) &&
           make_scratch(vision, source, &vision->projected, hidden * sizeof(float), st) &&
           vision->ops->buffer_create(&vision->pooled, source->device,
                                      (size_t)frames * vision->config->frame_tokens * hidden * sizeof(float),
                                      st);
}

bool vision_create(struct vision **vision_p, const struct model_config *config,
                   const struct weights_source *source, uint32_t frames, struct status *st)
{
    struct vision *vision = calloc(1, sizeof *vision);

    if (vision == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a vision tower");
    vision->config = config;
    vision->ops = source->ops;
    vision->dtype = source->dtype;
    vision->frames = frames;
    vision->patches = config->vision.grid * config->vision.grid;
    vision->layers = calloc(config->vision.layers_run + 1, sizeof *vision->layers);
    if (vision->layers == NULL)
        status_fail(st, STATUS_EXHAUSTED, "no memory for a vision tower");
    else if (preprocess_init(&vision->preprocess, config, st) &&
             vision->ops->queue_create(&vision->queue, source->device, st) &&
             load_weights(vision, source, st) && make_all_scratch(vision, source, st)) {
        *vision_p = vision;
        return true;
    }
    vision_destroy(vision);
    return false;
}

void vision_destroy(struct vision *vision)
{
    const struct tensor_ops *ops;

    if (vision == NULL)
        return;
    ops = vision->ops;
    ops->queue_destroy(vision->queue);
    ops->buffer_destroy(vision->pixels);
    ops->buffer_destroy(vision->stream);
    ops->buffer_destroy(vision->normed);
    ops->buffer_destroy(vision->qkv);
    ops->buffer_destroy(vision->attended);
    ops->buffer_destroy(vision->inner);
    ops->buffer_destroy(vision->projected);
    ops->buffer_destroy(vision->pooled);
    for (uint32_t i = 0; vision->layers != NULL && i < vision->config->vision.layers_run; i++) {
        ops->weights_destroy(vision->layers[i].qkv);
        ops->weights_destroy(vision->layers[i].out);
        ops->weights_destroy(vision->layers[i].fc1);
        ops->weights_destroy(vision->layers[i].fc2);
    }
    ops->weights_destroy(vision->patch);
    ops->weights_destroy(vision->project1);
    ops->weights_destroy(vision->project2);
    weights_free_vectors(&vision->vectors, ops);
    preprocess_deinit(&vision->preprocess);
    free(vision->layers);
    free(vision->host_patches);
    free(vision->host_compute);
    free(vision->group_ends);
    free(vision->segments);
    free(vision->items);
    free(vision);
}

/* --------------------------------------------------------------------------------------------- encoding */

static struct tensor view(struct tensor_buffer *buffer, enum tensor_dtype dtype, uint32_t rows, uint32_t cols)
{
    return tensor_at(buffer, 0, dtype, rows, cols);
}

static bool send_patches(struct vision *vision, const struct model_picture *picture, uint32_t index,
                         struct status *st)
{
    size_t count = (size_t)vision->patches * patch_inputs(vision),
           bytes = count * tensor_dtype_bytes(vision->dtype);

    if (!preprocess_patches(&vision->preprocess, picture->rgb,
                            (struct resize_size){ picture->height, picture->width }, vision->host_patches,
                            st))
        return false;
    tensor_convert_host(vision->host_compute, vision->dtype, vision->host_patches, TENSOR_F32, count);
    return vision->ops->write(vision->queue, vision->pixels, index * bytes, vision->host_compute, bytes, st);
}

static bool embed(struct vision *vision, uint32_t count, struct status *st)
{
    uint32_t rows = count * vision->patches, hidden = vision->config->vision.hidden;
    struct tensor stream = view(vision->stream, TENSOR_F32, rows, hidden);
    struct tensor_gemm gemm = { .out = stream,
                                .in = view(vision->pixels, vision->dtype, rows, patch_inputs(vision)),
                                .weights = vision->patch,
                                .group_ends = vision->group_ends,
                                .group_count = count };

    return vision->ops->gemm(vision->queue, &gemm, st) &&
           vision->ops->add(vision->queue, stream, stream,
                            weights_vector(&vision->vectors, vision->positions, vision->patches, hidden), st);
}

static bool norm(struct vision *vision, struct tensor stream, size_t gain_at, size_t bias_at,
                 struct status *st)
{
    struct tensor gain = weights_vector(&vision->vectors, gain_at, 1, stream.cols);
    struct tensor bias = weights_vector(&vision->vectors, bias_at, 1, stream.cols);

    return vision->ops->layer_norm(vision->queue,
                                   &(struct tensor_norm){
                                       .out = view(vision->normed, vision->dtype, stream.rows, stream.cols),
                                       .in = stream,
                                       .gain = &gain,
                                       .bias = &bias,
                                       .epsilon = (float)vision->config->vision.epsilon },
                                   st);
}

/* Every patch of a frame sees every other. */
static bool attend(struct vision *vision, uint32_t count, struct status *st)
{
    uint32_t heads = vision->config->vision.heads, hidden = vision->config->vision.hidden;
    uint32_t patches = vision->patches;
    struct tensor qkv = view(vision->qkv, vision->dtype, count * patches, 3 * hidden);
    struct tensor attended = view(vision->attended, vision->dtype, count * patches, hidden);

    for (uint32_t i = 0; i < count; i++) {
        struct tensor rows = tensor_rows(qkv, i * patches, patches);

        vision->segments[i] = (struct tensor_segment){
            .keys = tensor_heads_of(tensor_cols(rows, hidden, hidden), heads),
            .values = tensor_heads_of(tensor_cols(rows, 2 * hidden, hidden), heads),
            .min_distance = TENSOR_DISTANCE_MIN,
            .max_distance = TENSOR_DISTANCE_MAX,
        };
        vision->items[i] = (struct tensor_attention_item){
            .out = tensor_heads_of(tensor_rows(attended, i * patches, patches), heads),
            .q = tensor_heads_of(tensor_cols(rows, 0, hidden), heads),
            .segments = &vision->segments[i],
            .segment_count = 1,
        };
    }
    return vision->ops->attention(vision->queue,
                                  &(struct tensor_attention){ .scale =
                                                                  (float)(1 / sqrt((double)hidden / heads)),
                                                              .items = vision->items,
                                                              .item_count = count },
                                  st);
}

static bool run_layer(struct vision *vision, const struct vision_layer *layer, uint32_t count,
                      struct status *st)
{
    const struct vision_config *config = &vision->config->vision;
    uint32_t rows = count * vision->patches, hidden = config->hidden;
    struct tensor stream = view(vision->stream, TENSOR_F32, rows, hidden);
    struct tensor normed = view(vision->normed, vision->dtype, rows, hidden);
    struct tensor inner = view(vision->inner, vision->dtype, rows, config->mlp);
    struct tensor_gemm qkv = { .out = view(vision->qkv, vision->dtype, rows, 3 * hidden),
                               .in = normed,
                               .weights = layer->qkv,
                               .group_ends = vision->group_ends,
                               .group_count = count };
    struct tensor_gemm out = qkv, fc1 = qkv, fc2 = qkv;

    out.out = fc2.out = stream;
    out.residual = fc2.residual = &stream;
    out.in = view(vision->attended, vision->dtype, rows, hidden);
    out.weights = layer->out;
    fc1.out = fc2.in = inner;
    fc1.weights = layer->fc1;
    fc1.epilogue = TENSOR_GELU_TANH;
    fc2.weights = layer->fc2;
    return norm(vision, stream, layer->norm1_gain, layer->norm1_bias, st) &&
           vision->ops->gemm(vision->queue, &qkv, st) && attend(vision, count, st) &&
           vision->ops->gemm(vision->queue, &out, st) &&
           norm(vision, stream, layer->norm2_gain, layer->norm2_bias, st) &&
           vision->ops->gemm(vision->queue, &fc1, st) && vision->ops->gemm(vision->queue, &fc2, st);
}

static bool project_and_pool(struct vision *vision, uint32_t count, struct status *st)
{
    const struct model_config *config = vision->config;
    uint32_t rows = count * vision->patches, hidden = config->text.hidden;
    struct tensor tower = view(vision->stream, TENSOR_F32, rows, config->vision.hidden);
    struct tensor normed = view(vision->normed, vision->dtype, rows, config->vision.hidden);
    struct tensor inner = view(vision->inner, vision->dtype, rows, hidden);
    struct tensor projected = view(vision->projected, TENSOR_F32, rows, hidden);
    struct tensor pooled = view(vision->pooled, TENSOR_F32, count * config->frame_tokens, hidden);
    struct tensor_gemm first = { .out = inner,
                                 .in = normed,
                                 .weights = vision->project1,
                                 .epilogue = TENSOR_GELU_ERF,
                                 .group_ends = vision->group_ends,
                                 .group_count = count };
    struct tensor_gemm second = first;

    second.out = projected;
    second.in = inner;
    second.weights = vision->project2;
    second.epilogue = TENSOR_PLAIN;
    return vision->ops->convert(vision->queue, tensor_heads_of(normed, config->vision.heads),
                                tensor_heads_of(tower, config->vision.heads), st) &&
           vision->ops->gemm(vision->queue, &first, st) && vision->ops->gemm(vision->queue, &second, st) &&
           vision->ops->pool_bilinear(vision->queue, pooled, projected, config->vision.grid, st);
}

bool vision_encode(struct vision *vision, const struct model_picture *pictures, uint32_t count, float *out,
                   struct status *st)
{
    size_t out_bytes =
        (size_t)count * vision->config->frame_tokens * vision->config->text.hidden * sizeof *out;

    for (uint32_t i = 0; i < count; i++)
        if (!send_patches(vision, &pictures[i], i, st))
            return status_wrap(st, "picture %u", i);
    if (!embed(vision, count, st))
        return false;
    for (uint32_t i = 0; i < vision->config->vision.layers_run; i++)
        if (!run_layer(vision, &vision->layers[i], count, st))
            return false;
    return project_and_pool(vision, count, st) &&
           vision->ops->read(vision->queue, out, vision->pooled, 0, out_bytes, st);
}
