/* question_data.h - the inside of struct model_question, for question.c (its life and its passes) and question_context.c
 * (the blocks it asks for). */
#ifndef REELKV_MODEL_QUESTION_DATA_H
#define REELKV_MODEL_QUESTION_DATA_H

#include "model/model_data.h"

struct question_layer {
    struct tensor_buffer *context; /* [K, V][kv_heads, rows, head_dim] */
    uint32_t rows;
    uint32_t unseen;            /* blocks too far back */
    struct tensor_buffer *tail; /* [K, V][kv_heads, tail_room, head_dim] */
};

struct model_question {
    struct model *model;
    struct model_question_options options;
    struct decoder_pass *pass;
    struct question_layer *layers;
    uint32_t tail_room, tail_used;
    struct tensor_buffer *angles; /* f32 [angle_rows, head_dim]: positions 0, 1, 2, ... */
    uint32_t angle_rows;
    struct tensor_buffer *folded; /* f32 [kv_heads, head_dim] */
    float *host_folded;
    struct tensor_buffer *logits; /* f32 [1, vocabulary] */
    uint32_t last_id, answered;
    enum { QUESTION_NEW, QUESTION_RETRIEVED, QUESTION_ANSWERING, QUESTION_FAILED } state;
};

static inline const struct decoder_shape *question_shape(const struct model_question *question)
{
    return decoder_shape(question->model->decoder);
}

/* Keys, or values, of a context or a tail. */
static inline struct tensor_heads question_plane(const struct model_question *question,
                                                 struct tensor_buffer *buffer, uint32_t rows, bool value)
{
    const struct decoder_shape *shape = question_shape(question);

    return tensor_heads_at(buffer, value ? block_slice_bytes(shape, rows) : 0, shape->dtype, shape->kv_heads,
                           rows, shape->head_dim);
}

/* question_context.c: asks for the layer's blocks with the query that decoder_project() left, and copies them. */
bool question_retrieve_layer(struct model_question *question, uint32_t index, uint32_t tokens,
                             struct status *st);

#endif
