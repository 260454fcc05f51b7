/* question_context.c - what a layer attends to: the system prompt and the blocks that its own query chose, at consecutive
 * positions, keys rotated once. */
#include <stdlib.h>

#include "base/require.h"
#include "model/question_data.h"

static bool ensure_angles(struct model_question *question, uint32_t rows, struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    const struct tensor_ops *ops = question->model->ops;
    struct tensor_queue *queue = pass_queue(question->pass);

    if (rows <= question->angle_rows)
        return true;
    if (!ops->queue_finish(queue, st))
        return false;
    ops->buffer_destroy(question->angles);
    question->angles = NULL;
    question->angle_rows = 0;
    if (!ops->buffer_create(&question->angles, question->model->device,
                            (size_t)rows * shape->head_dim * sizeof(float), st) ||
        !ops->rotary_table(queue, tensor_at(question->angles, 0, TENSOR_F32, rows, shape->head_dim),
                           shape->frequencies, 0, st))
        return false;
    question->angle_rows = rows;
    return true;
}

/* Copies K (rotated) and V of some tokens to rows [at, ...) of the layer's context. */
static bool put_rows(struct model_question *question, const struct question_layer *layer, uint32_t at,
                     struct tensor_heads keys, struct tensor_heads values, struct status *st)
{
    const struct tensor_ops *ops = question->model->ops;
    struct tensor_queue *queue = pass_queue(question->pass);
    struct tensor angles =
        tensor_at(question->angles, 0, TENSOR_F32, question->angle_rows, question_shape(question)->head_dim);

    return ops->rotary(queue,
                       tensor_heads_tokens(question_plane(question, layer->context, layer->rows, false), at,
                                           keys.tokens),
                       keys, tensor_rows(angles, at, keys.tokens), st) &&
           ops->convert(queue,
                        tensor_heads_tokens(question_plane(question, layer->context, layer->rows, true), at,
                                            values.tokens),
                        values, st);
}

static bool count_rows(const struct model_question *question, const struct model_chosen *chosen, size_t count,
                       uint32_t question_tokens, uint32_t *rows_p, struct status *st)
{
    uint64_t rows = question->model->geometry.init_tokens, all;

    for (size_t i = 0; i < count; i++) {
        REQUIRE(chosen[i].tokens > 0 && chosen[i].tokens <= LIMIT_FRAME_TOKENS);
        rows += chosen[i].tokens;
    }
    all = rows + question_tokens + question->options.answer_tokens_max;
    if (all > question->options.context_tokens_max)
        return status_fail(
            st, STATUS_INVALID,
            "%zu blocks, the question and its answer take %llu tokens; the limit is %u: choose fewer "
            "blocks",
            count, (unsigned long long)all, question->options.context_tokens_max);
    *rows_p = (uint32_t)rows;
    return true;
}

/* The oldest blocks, down to the first of which the token behind the context sees something (attend.h). */
static uint32_t count_unseen(const struct model_question *question, uint32_t rows,
                             const struct model_chosen *chosen, size_t count)
{
    uint64_t end = question->model->geometry.init_tokens;
    uint32_t unseen = 0;

    if (question->options.full_attention)
        return 0;
    while (unseen < count) {
        end += chosen[unseen].tokens;
        if (rows - (end - 1) < question->model->options.n_local)
            break;
        unseen++;
    }
    return unseen;
}

/* Wraps each chosen block's bytes for the device and copies them; `wraps` keeps what must be let go of. */
static bool put_blocks(struct model_question *question, const struct question_layer *layer,
                       const struct model_chosen *chosen, size_t count, struct tensor_buffer **wraps,
                       struct status *st)
{
    uint32_t at = question->model->geometry.init_tokens;

    for (size_t i = 0; i < count; i++) {
        size_t bytes = 2 * block_slice_bytes(question_shape(question), chosen[i].tokens);

        if (!question->model->ops->buffer_wrap(&wraps[i], question->model->device, chosen[i].slices, bytes,
                                               st) ||
            !put_rows(question, layer, at, question_plane(question, wraps[i], chosen[i].tokens, false),
                      question_plane(question, wraps[i], chosen[i].tokens, true), st))
            return false;
        at += chosen[i].tokens;
    }
    return true;
}

static bool copy_blocks(struct model_question *question, const struct question_layer *layer,
                        const struct model_chosen *chosen, size_t count, struct status *st)
{
    const struct tensor_ops *ops = question->model->ops;
    struct tensor_buffer **wraps = calloc(count + 1, sizeof *wraps);
    bool ok;

    if (wraps == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for %zu blocks", count);
    ok = put_blocks(question, layer, chosen, count, wraps, st);
    ok = ops->queue_finish(pass_queue(question->pass), ok ? st : NULL) && ok;
    for (size_t i = 0; i < count; i++)
        ops->buffer_destroy(wraps[i]);
    free(wraps);
    return ok;
}

static bool build_context(struct model_question *question, uint32_t index, const struct model_chosen *chosen,
                          size_t count, uint32_t question_tokens, struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    struct question_layer *layer = &question->layers[index];
    struct model *model = question->model;
    uint32_t init_tokens = model->geometry.init_tokens;

    if (!count_rows(question, chosen, count, question_tokens, &layer->rows, st))
        return false;
    layer->unseen = count_unseen(question, layer->rows, chosen, count);
    return ensure_angles(question, layer->rows, st) &&
           model->ops->buffer_create(&layer->context, model->device,
                                     2 * block_slice_bytes(shape, layer->rows), st) &&
           put_rows(question, layer, 0, block_slice(shape, model->init_buffer, 0, init_tokens, index, false),
                    block_slice(shape, model->init_buffer, 0, init_tokens, index, true), st) &&
           copy_blocks(question, layer, chosen, count, st);
}

bool question_retrieve_layer(struct model_question *question, uint32_t index, uint32_t tokens,
                             struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    const struct tensor_ops *ops = question->model->ops;
    const struct model_retriever *retriever = &question->options.retriever;
    struct tensor_queue *queue = pass_queue(question->pass);
    struct tensor folded = tensor_at(question->folded, 0, TENSOR_F32, shape->kv_heads, shape->head_dim);
    const struct model_chosen *chosen = NULL;
    size_t count = 0;

    if (!ops->mean_tokens(queue, folded, tensor_heads_of(pass_views(question->pass, tokens).q, shape->heads),
                          shape->heads / shape->kv_heads, st) ||
        !ops->read(queue, question->host_folded, question->folded, 0,
                   (size_t)shape->kv_heads * shape->head_dim * sizeof(float), st))
        return false;
    return retriever->retrieve(retriever->arg, index, question->host_folded, &chosen, &count, st) &&
           build_context(question, index, chosen, count, tokens, st);
}
