#include "model/model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "model/fingerprint.h"
#include "model/model_data.h"

static bool check_options(const struct model_options *options, struct status *st)
{
    REQUIRE(options->ops != NULL);
    if (options->dtype != TENSOR_F32 && options->dtype != TENSOR_BF16)
        return status_fail(st, STATUS_INVALID, "dtype is neither f32 nor bf16");
    if (options->parts == 0 || (options->parts & ~(unsigned)(MODEL_VISION | MODEL_LANGUAGE)) != 0)
        return status_fail(st, STATUS_INVALID, "parts name neither the vision tower nor the language model");
    if (options->n_local == 0 || options->n_local > MODEL_N_LOCAL_MAX)
        return status_fail(st, STATUS_INVALID, "a window of %u tokens; expected 1 to %d", options->n_local,
                           MODEL_N_LOCAL_MAX);
    if (options->batch_frames == 0 || options->batch_frames > MODEL_BATCH_FRAMES_MAX)
        return status_fail(st, STATUS_INVALID, "%u frames at once; expected 1 to %d", options->batch_frames,
                           MODEL_BATCH_FRAMES_MAX);
    if (options->block_tokens_max > LIMIT_FRAME_TOKENS)
        return status_fail(st, STATUS_INVALID, "blocks of %u tokens; expected at most %d",
                           options->block_tokens_max, LIMIT_FRAME_TOKENS);
    return true;
}

static bool open_tokenizer(struct model *model, const char *folder, struct status *st)
{
    const struct model_family *family = model->config.family;
    struct token_ids init = { model->init_ids, MODEL_INIT_TOKENS_MAX, 0 };
    struct tokenizer_text text = { .text = family->init_prompt, .len = strlen(family->init_prompt) };
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/tokenizer.json", folder) >= (int)sizeof path)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", folder);
    if (!tokenizer_open(&model->tokenizer, path, st))
        return false;
    if (tokenizer_id_count(model->tokenizer) > model->config.text.vocabulary)
        return status_fail(st, STATUS_INVALID, "%s has ids up to %u; config.json's vocab_size is %u", path,
                           tokenizer_id_count(model->tokenizer) - 1, model->config.text.vocabulary);
    if (!tokenizer_find(model->tokenizer, family->end_token, &model->end_id))
        return status_fail(st, STATUS_INVALID, "%s lacks the added token '%s' that ends an answer", path,
                           family->end_token);
    if (!tokenizer_encode(model->tokenizer, &text, &init, st))
        return status_wrap(st, "system prompt");
    model->geometry.init_tokens = (uint32_t)init.count;
    if (model->options.n_local < init.count)
        return status_fail(st, STATUS_INVALID,
                           "a window of %u tokens cannot hold the system prompt; expected at least %zu",
                           model->options.n_local, init.count);
    return true;
}

static void fill_geometry(struct model *model)
{
    const struct text_config *text = &model->config.text;
    struct model_geometry *geometry = &model->geometry;

    snprintf(geometry->family, sizeof geometry->family, "%s", model->config.family->name);
    geometry->layers = text->layers;
    geometry->heads = text->heads;
    geometry->kv_heads = text->kv_heads;
    geometry->head_dim = text->head_dim;
    geometry->hidden = text->hidden;
    geometry->vocabulary = text->vocabulary;
    geometry->frame_tokens = model->config.frame_tokens;
    geometry->image_side = model->config.vision.image;
    geometry->n_local = model->options.n_local;
    geometry->dtype = model->options.dtype;
    geometry->token_bytes = 2 * (uint64_t)text->layers * text->kv_heads * text->head_dim *
                            tensor_dtype_bytes(model->options.dtype);
}

static bool make_fingerprint(struct model *model, struct status *st)
{
    struct fingerprint_parts parts = {
        .config = &model->config,
        .checkpoint = model->checkpoint,
        .dtype = model->options.dtype,
        .n_local = model->options.n_local,
        .init_ids = model->init_ids,
        .init_count = model->geometry.init_tokens,
        .compressor = model->compressor->name,
    };

    return fingerprint_make(model->geometry.fingerprint, &parts, st);
}

static bool load_parts(struct model *model, struct status *st)
{
    struct tensor_options device = { .threads = model->options.threads };
    struct weights_source source;

    if (!model->ops->device_open(&model->device, &device, st))
        return false;
    source = model_source(model);
    if ((model->options.parts & MODEL_VISION) != 0 &&
        !vision_create(&model->vision, &model->config, &source, model->options.batch_frames, st))
        return false;
    if ((model->options.parts & MODEL_LANGUAGE) == 0)
        return true;
    return decoder_create(&model->decoder, &model->config, &source, st) &&
           push_scratch_create(&model->push, model, st) && window_make_init(model, st);
}

static bool open_model(struct model *model, const char *folder, struct status *st)
{
    if (!check_options(&model->options, st))
        return false;
    model->ops = model->options.ops;
    model->compressor = compressor_find(model->options.compressor, st);
    if (model->compressor == NULL || !config_read(&model->config, folder, st))
        return false;
    fill_geometry(model);
    if (model->options.block_tokens_max == 0)
        model->options.block_tokens_max = model->config.frame_tokens;
    return open_tokenizer(model, folder, st) && safetensors_open(&model->checkpoint, folder, st) &&
           make_fingerprint(model, st) && load_parts(model, st);
}

bool model_open(struct model **model_p, const char *folder, const struct model_options *options,
                struct status *st)
{
    struct model *model = calloc(1, sizeof *model);

    if (model == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a model");
    model->options = *options;
    if (!open_model(model, folder, st)) {
        model_close(model);
        return status_wrap(st, "model %s", folder);
    }
    *model_p = model;
    return true;
}

bool model_dtype_read(enum tensor_dtype *dtype_p, const char *word, struct status *st)
{
    if (strcmp(word, "f32") == 0)
        *dtype_p = TENSOR_F32;
    else if (strcmp(word, "bf16") == 0)
        *dtype_p = TENSOR_BF16;
    else
        return status_fail(st, STATUS_INVALID, "dtype must be f32 or bf16, not '%s'", word);
    return true;
}

bool model_open_spec(struct model **model_p, const struct model_spec *spec, struct status *st)
{
    struct model_options options = {
        .ops = &tensor_ops_cpu,
        .threads = spec->threads,
        .n_local = spec->n_local,
        .parts = spec->parts,
        .batch_frames = spec->batch_frames,
    };

    return model_dtype_read(&options.dtype, spec->dtype, st) &&
           model_open(model_p, spec->folder, &options, st);
}

void model_close(struct model *model)
{
    if (model == NULL)
        return;
    if (model->device != NULL) {
        push_scratch_destroy(model->push, model->ops);
        decoder_destroy(model->decoder);
        vision_destroy(model->vision);
        model->ops->buffer_destroy(model->init_buffer);
        model->ops->device_close(model->device);
    }
    free(model->init_payload);
    safetensors_close(model->checkpoint);
    tokenizer_close(model->tokenizer);
    free(model);
}

const struct model_geometry *model_geometry(const struct model *model)
{
    return &model->geometry;
}

const char *model_numerics(const struct model *model)
{
    return model->ops->numerics(model->device);
}

const struct tokenizer *model_tokenizer(const struct model *model)
{
    return model->tokenizer;
}

bool model_is_end(const struct model *model, uint32_t id)
{
    return id == model->end_id;
}

bool model_encode_frames(struct model *model, const struct model_picture *pictures, uint32_t count,
                         float *out, struct status *st)
{
    size_t frame = (size_t)model->geometry.frame_tokens * model->geometry.hidden;

    REQUIRE(model->vision != NULL);
    for (uint32_t done = 0; done < count;) {
        uint32_t some =
            count - done < model->options.batch_frames ? count - done : model->options.batch_frames;

        if (!vision_encode(model->vision, pictures + done, some, out + done * frame, st))
            return false;
        done += some;
    }
    return true;
}

bool model_compress_frame(const struct model *model, float *embeddings, uint32_t *tokens_p, struct status *st)
{
    return model->compressor->frame(embeddings, tokens_p, model->geometry.hidden, st);
}

/* As much of a decoder as a block's layout is made of, so that a process without the decoder knows it too. */
static struct decoder_shape block_shape(const struct model *model)
{
    const struct model_geometry *geometry = &model->geometry;

    return (struct decoder_shape){ .layers = geometry->layers,
                                   .kv_heads = geometry->kv_heads,
                                   .head_dim = geometry->head_dim,
                                   .dtype = geometry->dtype };
}

size_t model_slice_offset(const struct model *model, uint32_t tokens, uint32_t layer)
{
    struct decoder_shape shape = block_shape(model);

    return block_slice_offset(&shape, tokens, layer);
}

size_t model_block_bytes(const struct model *model, uint32_t tokens)
{
    struct decoder_shape shape = block_shape(model);

    return block_bytes(&shape, tokens);
}

const struct model_block *model_init_block(const struct model *model)
{
    REQUIRE(model->decoder != NULL);
    return &model->init_block;
}

static bool check_words(size_t len, struct status *st)
{
    if (len > 0 && len <= LIMIT_QUESTION_BYTES)
        return true;
    return status_fail(st, STATUS_INVALID, "the question has %zu bytes; expected 1 to %d", len,
                       LIMIT_QUESTION_BYTES);
}

bool model_question_ids(const struct model *model, const char *words, size_t len, struct token_ids *out,
                        struct status *st)
{
    struct tokenizer_text text = { words, len, 0, len };

    return check_words(len, st) && tokenizer_encode(model->tokenizer, &text, out, st);
}

bool model_prompt_ids(const struct model *model, const char *words, size_t len, struct token_ids *out,
                      struct status *st)
{
    const struct model_family *family = model->config.family;
    size_t before = strlen(family->ask_before), after = strlen(family->ask_after);
    char text[2 * LIMIT_QUESTION_BYTES];

    if (!check_words(len, st))
        return false;
    REQUIRE(before + len + after <= sizeof text);
    memcpy(text, family->ask_before, before);
    memcpy(text + before, words, len);
    memcpy(text + before + len, family->ask_after, after);
    return tokenizer_encode(model->tokenizer,
                            &(struct tokenizer_text){ text, before + len + after, before, before + len }, out,
                            st);
}
