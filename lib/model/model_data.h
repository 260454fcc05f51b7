/* model_data.h - the inside of struct model, for the files of lib/model that implement model.h. */
#ifndef REELKV_MODEL_MODEL_DATA_H
#define REELKV_MODEL_MODEL_DATA_H

#include "model/attend.h"
#include "model/block.h"
#include "model/compressor.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/model.h"
#include "model/vision.h"
#include "model/weights.h"

struct push_scratch; /* push.c */

struct model {
    struct model_options options; /* with what was left out filled in */
    struct model_config config;
    struct model_geometry geometry;
    struct tokenizer *tokenizer;
    struct safetensors *checkpoint; /* stays mapped: the embeddings are read from it */
    const struct compressor *compressor;
    const struct tensor_ops *ops;
    struct tensor_device *device;
    uint32_t init_ids[MODEL_INIT_TOKENS_MAX];
    uint32_t end_id;

    struct vision *vision;   /* NULL: not loaded */
    struct decoder *decoder; /* NULL: not loaded */
    struct push_scratch *push;
    uint8_t *init_payload;
    struct model_block init_block;
    struct tensor_buffer *init_buffer; /* init_payload on the device */
};

static inline struct weights_source model_source(const struct model *model)
{
    return (struct weights_source){ model->checkpoint, model->ops, model->device, model->options.dtype };
}

/* push.c: the memory of model_window_push(), and the system prompt's block, computed once. */
/* The pass that windows use outside of a push, to be filled. */
struct decoder_pass *push_pass(const struct push_scratch *scratch);
bool push_scratch_create(struct push_scratch **scratch_p, struct model *model, struct status *st);
void push_scratch_destroy(struct push_scratch *scratch, const struct tensor_ops *ops); /* NULL is fine */
bool window_make_init(struct model *model, struct status *st);

#endif
