/* A question's context, per layer: the system prompt and the chosen blocks at consecutive positions, keys
 * rotated once, and behind them a tail: in pass 1 the question's own tokens, in pass 2 the prompt's and the
 * answer's. Layers choose for themselves, so that the tail of each begins at its own position. */
#include <stdlib.h>

#include "base/require.h"
#include "model/question_data.h"

enum { SEGMENTS_MAX = 3 /* far, context, tail */ };

static struct attend_rule rule_of(const struct model_question *question)
{
    return (struct attend_rule){ .n_local = question->model->options.n_local,
                                 .unbounded = question->options.full_attention };
}

/* ------------------------------------------------------------------------------------- life of a question */

static bool make_memory(struct model_question *question, struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    const struct model *model = question->model;
    size_t folded = (size_t)shape->kv_heads * shape->head_dim * sizeof(float);

    question->layers = calloc(shape->layers, sizeof *question->layers);
    question->host_folded = malloc(folded);
    if (question->layers == NULL || question->host_folded == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a question");
    return model->ops->buffer_create(&question->folded, model->device, folded, st) &&
           model->ops->buffer_create(&question->logits, model->device, shape->vocabulary * sizeof(float), st);
}

bool model_question_create(struct model_question **question_p, struct model *model,
                           const struct model_question_options *options, struct status *st)
{
    struct model_question *question;

    REQUIRE(model->decoder != NULL && options->retriever.retrieve != NULL);
    if (options->answer_tokens_max == 0 || options->answer_tokens_max > LIMIT_ANSWER_TOKENS)
        return status_fail(st, STATUS_INVALID, "an answer of %u tokens; expected 1 to %d",
                           options->answer_tokens_max, LIMIT_ANSWER_TOKENS);
    if (options->context_tokens_max > MODEL_CONTEXT_TOKENS_MAX)
        return status_fail(st, STATUS_INVALID, "a context of %u tokens; expected at most %d",
                           options->context_tokens_max, MODEL_CONTEXT_TOKENS_MAX);
    question = calloc(1, sizeof *question);
    if (question == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a question");
    question->model = model;
    question->options = *options;
    if (!make_memory(question, st)) {
        model_question_destroy(question);
        return false;
    }
    *question_p = question;
    return true;
}

void model_question_destroy(struct model_question *question)
{
    const struct tensor_ops *ops;

    if (question == NULL)
        return;
    ops = question->model->ops;
    pass_destroy(question->pass); /* waits for its work */
    for (uint32_t i = 0; question->layers != NULL && i < question_shape(question)->layers; i++) {
        ops->buffer_destroy(question->layers[i].context);
        ops->buffer_destroy(question->layers[i].tail);
    }
    ops->buffer_destroy(question->angles);
    ops->buffer_destroy(question->folded);
    ops->buffer_destroy(question->logits);
    free(question->host_folded);
    free(question->layers);
    free(question);
}

static bool check_cancel(const struct model_question *question, struct status *st)
{
    if (question->options.cancel == NULL ||
        !atomic_load_explicit(question->options.cancel, memory_order_relaxed))
        return true;
    return status_fail(st, STATUS_CANCELLED, "the question was cancelled");
}

static bool ensure_pass(struct model_question *question, uint32_t rows, struct status *st)
{
    struct weights_source source = model_source(question->model);

    if (question->pass != NULL && pass_rows_max(question->pass) >= rows)
        return true;
    pass_destroy(question->pass);
    question->pass = NULL;
    return pass_create(&question->pass, question->model->decoder, &source, rows, st);
}

/* ---------------------------------------------------------------------------------------------- the passes
 */

static bool make_tails(struct model_question *question, uint32_t room, struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    const struct tensor_ops *ops = question->model->ops;

    for (uint32_t i = 0; i < shape->layers; i++) {
        ops->buffer_destroy(question->layers[i].tail);
        question->layers[i].tail = NULL;
        if (!ops->buffer_create(&question->layers[i].tail, question->model->device,
                                2 * block_slice_bytes(shape, room), st))
            return false;
    }
    question->tail_room = room;
    question->tail_used = 0;
    return true;
}

/* Keys and values of this run's tokens to the tail; angles for a tail that begins at the layer's own
 * position. */
static bool put_tail(struct model_question *question, const struct question_layer *layer, uint32_t tokens,
                     struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    const struct tensor_ops *ops = question->model->ops;
    struct tensor_queue *queue = pass_queue(question->pass);
    struct pass_views views = pass_views(question->pass, tokens);
    struct tensor_heads keys = question_plane(question, layer->tail, question->tail_room, false);
    struct tensor_heads values = question_plane(question, layer->tail, question->tail_room, true);

    return ops->rotary_table(queue, views.positions, shape->frequencies,
                             (int64_t)layer->rows + question->tail_used, st) &&
           ops->rotary(queue, tensor_heads_tokens(keys, question->tail_used, tokens),
                       tensor_heads_of(views.k, shape->kv_heads), views.positions, st) &&
           ops->convert(queue, tensor_heads_tokens(values, question->tail_used, tokens),
                        tensor_heads_of(views.v, shape->kv_heads), st);
}

static bool turn_far(struct model_question *question, uint32_t tokens, struct tensor_heads to,
                     struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    struct pass_views views = pass_views(question->pass, tokens);

    return question->model->ops->rotary_table(pass_queue(question->pass),
                                              tensor_rows(views.far_position, 0, 1), shape->frequencies,
                                              (int64_t)question->model->options.n_local - 1, st) &&
           question->model->ops->rotary(pass_queue(question->pass), to,
                                        tensor_heads_of(views.q, shape->heads), views.far_position, st);
}

static bool attend(struct model_question *question, uint32_t index, uint32_t tokens, struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    struct model *model = question->model;
    struct question_layer *layer = &question->layers[index];
    struct pass_views views = pass_views(question->pass, tokens);
    struct attend_rule rule = rule_of(question);
    struct tensor_segment segments[SEGMENTS_MAX];
    uint32_t used = question->tail_used + tokens, init_tokens = model->geometry.init_tokens;
    struct tensor_attention_item item = {
        .out = tensor_heads_of(views.attended, shape->heads),
        .q = tensor_heads_of(views.turned, shape->heads),
        .first_index = (int64_t)layer->rows + question->tail_used,
        .segments = segments,
    };

    if (!put_tail(question, layer, tokens, st) ||
        !model->ops->rotary(pass_queue(question->pass), item.q, tensor_heads_of(views.q, shape->heads),
                            views.positions, st))
        return false;
    if (attend_needs_far(&rule, item.first_index, tokens)) {
        item.q_far = tensor_heads_of(views.turned_far, shape->heads);
        if (!turn_far(question, tokens, item.q_far, st))
            return false;
        segments[item.segment_count++] =
            attend_far(&rule, block_slice(shape, model->init_buffer, 0, init_tokens, index, false),
                       block_slice(shape, model->init_buffer, 0, init_tokens, index, true));
    }
    segments[item.segment_count++] =
        attend_near(&rule, question_plane(question, layer->context, layer->rows, false),
                    question_plane(question, layer->context, layer->rows, true), 0);
    segments[item.segment_count++] = attend_near(
        &rule,
        tensor_heads_tokens(question_plane(question, layer->tail, question->tail_room, false), 0, used),
        tensor_heads_tokens(question_plane(question, layer->tail, question->tail_room, true), 0, used),
        layer->rows);
    return model->ops->attention(pass_queue(question->pass),
                                 &(struct tensor_attention){
                                     .scale = shape->scale, .items = &item, .item_count = 1 },
                                 st);
}

static bool run_retrieval(struct model_question *question, const uint32_t *ids, uint32_t count,
                          struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);

    if (!ensure_pass(question, count, st) || !make_tails(question, count, st))
        return false;
    pass_begin(question->pass, &count, 1);
    if (!pass_embed(question->pass, 0, ids, count, st))
        return false;
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        if (!check_cancel(question, st) || !decoder_project(question->pass, layer, st) ||
            !question_retrieve_layer(question, layer, count, st))
            return false;
        if (layer + 1 < shape->layers && /* the last layer's output would choose nothing */
            (!attend(question, layer, count, st) || !decoder_finish(question->pass, layer, st)))
            return false;
    }
    return true;
}

bool model_question_retrieve(struct model_question *question, const uint32_t *ids, size_t count,
                             struct status *st)
{
    REQUIRE(question->state == QUESTION_NEW);
    question->state = QUESTION_FAILED;
    if (count == 0 || count > LIMIT_QUESTION_BYTES)
        return status_fail(st, STATUS_INVALID, "a question of %zu tokens; expected 1 to %d", count,
                           LIMIT_QUESTION_BYTES);
    if (!run_retrieval(question, ids, (uint32_t)count, st))
        return status_wrap(st, "retrieval");
    question->state = QUESTION_RETRIEVED;
    return true;
}

/* Runs tokens through all layers behind the context; the last one's scores choose *id_p. */
static bool run_tokens(struct model_question *question, const uint32_t *ids, uint32_t count, uint32_t *id_p,
                       struct status *st)
{
    const struct decoder_shape *shape = question_shape(question);
    struct tensor logits = tensor_at(question->logits, 0, TENSOR_F32, 1, shape->vocabulary);

    pass_begin(question->pass, &count, 1);
    if (!pass_embed(question->pass, 0, ids, count, st))
        return false;
    for (uint32_t layer = 0; layer < shape->layers; layer++)
        if (!check_cancel(question, st) || !decoder_project(question->pass, layer, st) ||
            !attend(question, layer, count, st) || !decoder_finish(question->pass, layer, st))
            return false;
    question->tail_used += count;
    if (!decoder_score(question->pass, count - 1, logits, st) ||
        !question->model->ops->argmax(pass_queue(question->pass), id_p, logits, st))
        return false;
    question->last_id = *id_p;
    question->answered++;
    return true;
}

/* The prompt is longer than the question that chose the blocks. */
static bool check_prompt(const struct model_question *question, size_t count, struct status *st)
{
    uint64_t all =
        (uint64_t)model_question_context_tokens(question) + count + question->options.answer_tokens_max;

    return all <= question->options.context_tokens_max ||
           status_fail(
               st, STATUS_INVALID,
               "the blocks, the prompt and its answer take %llu tokens; the limit is %u: choose fewer "
               "blocks",
               (unsigned long long)all, question->options.context_tokens_max);
}

bool model_question_prompt(struct model_question *question, const uint32_t *ids, size_t count, uint32_t *id_p,
                           struct status *st)
{
    REQUIRE(question->state == QUESTION_RETRIEVED);
    question->state = QUESTION_FAILED;
    if (count == 0 || count > 2 * LIMIT_QUESTION_BYTES)
        return status_fail(st, STATUS_INVALID, "a prompt of %zu tokens; expected 1 to %d", count,
                           2 * LIMIT_QUESTION_BYTES);
    if (!check_prompt(question, count, st) || !ensure_pass(question, (uint32_t)count, st) ||
        !make_tails(question, (uint32_t)count + question->options.answer_tokens_max, st) ||
        !run_tokens(question, ids, (uint32_t)count, id_p, st))
        return status_wrap(st, "prompt");
    question->state = QUESTION_ANSWERING;
    return true;
}

bool model_question_next(struct model_question *question, uint32_t *id_p, struct status *st)
{
    uint32_t last = question->last_id;

    REQUIRE(question->state == QUESTION_ANSWERING);
    if (question->answered >= question->options.answer_tokens_max)
        return status_fail(st, STATUS_OUT_OF_RANGE, "the answer has the %u tokens it may have",
                           question->options.answer_tokens_max);
    if (!run_tokens(question, &last, 1, id_p, st)) {
        question->state = QUESTION_FAILED;
        return status_wrap(st, "answer");
    }
    return true;
}

bool model_question_logits(struct model_question *question, float *out, struct status *st)
{
    REQUIRE(question->state == QUESTION_ANSWERING);
    return question->model->ops->read(pass_queue(question->pass), out, question->logits, 0,
                                      question_shape(question)->vocabulary * sizeof *out, st);
}

uint32_t model_question_unseen_blocks(const struct model_question *question)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < question_shape(question)->layers; i++)
        most = question->layers[i].unseen > most ? question->layers[i].unseen : most;
    return most;
}

uint32_t model_question_context_tokens(const struct model_question *question)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < question_shape(question)->layers; i++)
        most = question->layers[i].rows > most ? question->layers[i].rows : most;
    return most + question->tail_used;
}
