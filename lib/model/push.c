/* The decoder over one new block of each of several windows: rows of one gemm, items of one attention. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "model/window.h"

struct push_scratch {
    struct decoder_pass *pass;
    struct tensor_buffer *payloads; /* of the blocks being made, one behind the other */
    struct tensor_buffer *means;    /* f32 [kv_heads, head_dim] */
    uint32_t items_max;
    uint32_t *group_ends;                /* [items_max] */
    struct tensor_attention_item *items; /* [items_max] */
    /* [segments_room]: those of each item behind the one's before; as many as windows with holes have asked for. */
    struct tensor_segment *segments;
    size_t segments_room;
};

/* One block of a running push. */
struct push_item {
    const struct model_push *push;
    uint32_t first_row;
    size_t payload_at, first_segment;
};

bool push_scratch_create(struct push_scratch **scratch_p, struct model *model, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct weights_source source = model_source(model);
    struct push_scratch *scratch = calloc(1, sizeof *scratch);
    uint64_t rows = (uint64_t)model->options.batch_frames * model->geometry.frame_tokens;

    if (scratch == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for pushes");
    rows = rows > model->options.block_tokens_max ? rows : model->options.block_tokens_max;
    rows = rows > model->geometry.init_tokens ? rows : model->geometry.init_tokens;
    scratch->items_max = model->options.batch_frames;
    scratch->group_ends = calloc(scratch->items_max, sizeof *scratch->group_ends);
    scratch->items = calloc(scratch->items_max, sizeof *scratch->items);
    if (scratch->group_ends == NULL || scratch->items == NULL)
        status_fail(st, STATUS_EXHAUSTED, "no memory for pushes");
    else if (pass_create(&scratch->pass, model->decoder, &source, (uint32_t)rows, st) &&
             model->ops->buffer_create(&scratch->payloads, model->device,
                                       block_bytes(shape, (uint32_t)rows) +
                                           scratch->items_max * shape->layers * block_key_bytes(shape),
                                       st) &&
             model->ops->buffer_create(&scratch->means, model->device,
                                       (size_t)shape->kv_heads * shape->head_dim * sizeof(float), st)) {
        *scratch_p = scratch;
        return true;
    }
    push_scratch_destroy(scratch, model->ops);
    return false;
}

void push_scratch_destroy(struct push_scratch *scratch, const struct tensor_ops *ops)
{
    if (scratch == NULL)
        return;
    pass_destroy(scratch->pass);
    ops->buffer_destroy(scratch->payloads);
    ops->buffer_destroy(scratch->means);
    free(scratch->group_ends);
    free(scratch->items);
    free(scratch->segments);
    free(scratch);
}

struct decoder_pass *push_pass(const struct push_scratch *scratch)
{
    return scratch->pass;
}

/* Representative keys: the mean of the layer's keys as they are stored, rounded as they are. */
static bool put_representative(struct model *model, const struct push_item *item, uint32_t layer,
                               struct tensor_heads keys, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct tensor_queue *queue = pass_queue(model->push->pass);
    struct tensor means = tensor_at(model->push->means, 0, TENSOR_F32, shape->kv_heads, shape->head_dim);
    struct tensor_heads from =
        tensor_heads_at(model->push->means, 0, TENSOR_F32, shape->kv_heads, 1, shape->head_dim);
    struct tensor_heads to =
        tensor_heads_at(model->push->payloads, item->payload_at + layer * block_key_bytes(shape),
                        shape->dtype, shape->kv_heads, 1, shape->head_dim);

    return model->ops->mean_tokens(queue, means, keys, 1, st) && model->ops->convert(queue, to, from, st);
}

/* The layer's K and V of one block: to its payload as they are, to its window's ring rotated. */
static bool put_kv(struct model *model, const struct push_item *item, uint32_t layer, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct model_window *window = item->push->window;
    struct decoder_pass *pass = model->push->pass;
    uint32_t tokens = item->push->tokens;
    struct pass_views views = pass_views(pass, item->first_row + tokens);
    struct tensor_heads kv[2] = {
        block_slice(shape, model->push->payloads, item->payload_at, tokens, layer, false),
        block_slice(shape, model->push->payloads, item->payload_at, tokens, layer, true),
    };

    return model->ops->convert(pass_queue(pass), kv[0],
                               tensor_heads_of(tensor_rows(views.k, item->first_row, tokens),
                                               shape->kv_heads),
                               st) &&
           model->ops->convert(pass_queue(pass), kv[1],
                               tensor_heads_of(tensor_rows(views.v, item->first_row, tokens),
                                               shape->kv_heads),
                               st) &&
           put_representative(model, item, layer, kv[0], st) &&
           window_put(window, pass_queue(pass), layer, kv,
                      tensor_rows(views.positions, item->first_row, tokens), (int64_t)window->next_index, st);
}

static bool turn_queries(struct model *model, const struct push_item *item, uint32_t layer, uint32_t index,
                         struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct push_scratch *scratch = model->push;
    struct tensor_queue *queue = pass_queue(scratch->pass);
    uint32_t tokens = item->push->tokens;
    struct pass_views views = pass_views(scratch->pass, item->first_row + tokens);
    struct tensor_heads q = tensor_heads_of(tensor_rows(views.q, item->first_row, tokens), shape->heads);
    struct tensor_segment *segments = scratch->segments + item->first_segment;
    struct tensor_attention_item *to = &scratch->items[index];

    *to = (struct tensor_attention_item){
        .out = tensor_heads_of(tensor_rows(views.attended, item->first_row, tokens), shape->heads),
        .q = tensor_heads_of(tensor_rows(views.turned, item->first_row, tokens), shape->heads),
        .first_index = (int64_t)item->push->window->next_index,
        .segments = segments,
        .segment_count = window_segments(item->push->window, layer, tokens, segments),
    };
    if (!model->ops->rotary(queue, to->q, q, tensor_rows(views.positions, item->first_row, tokens), st))
        return false;
    if (!segments[0].far)
        return true;
    to->q_far = tensor_heads_of(tensor_rows(views.turned_far, item->first_row, tokens), shape->heads);
    return model->ops->rotary(queue, to->q_far, q, tensor_rows(views.far_position, 0, tokens), st);
}

/* The last layer's attention and everything after would only serve a next token: blocks end at its K and V.
 */
static bool run_layer(struct model *model, const struct push_item *items, uint32_t count, uint32_t layer,
                      struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct push_scratch *scratch = model->push;

    if (!decoder_project(scratch->pass, layer, st))
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!put_kv(model, &items[i], layer, st))
            return false;
    if (layer + 1 == shape->layers)
        return true;
    for (uint32_t i = 0; i < count; i++)
        if (!turn_queries(model, &items[i], layer, i, st))
            return false;
    return model->ops->attention(pass_queue(scratch->pass),
                                 &(struct tensor_attention){
                                     .scale = shape->scale, .items = scratch->items, .item_count = count },
                                 st) &&
           decoder_finish(scratch->pass, layer, st);
}

/* Rows, groups and rotary angles of the blocks; embeddings == NULL stands for the system prompt's ids. */
static bool begin(struct model *model, const struct push_item *items, uint32_t count, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct decoder_pass *pass = model->push->pass;
    struct tensor_queue *queue = pass_queue(pass);

    for (uint32_t i = 0; i < count; i++)
        model->push->group_ends[i] = items[i].first_row + items[i].push->tokens;
    pass_begin(pass, model->push->group_ends, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct model_push *push = items[i].push;
        struct pass_views views = pass_views(pass, items[i].first_row + push->tokens);
        size_t row_bytes = shape->hidden * sizeof(float);
        bool ok = push->embeddings == NULL
                      ? pass_embed(pass, items[i].first_row, model->init_ids, push->tokens, st)
                      : model->ops->write(queue, views.x.buffer, items[i].first_row * row_bytes,
                                          push->embeddings, push->tokens * row_bytes, st);

        if (!ok ||
            !model->ops->rotary_table(queue, tensor_rows(views.positions, items[i].first_row, push->tokens),
                                      shape->frequencies, (int64_t)push->window->next_index, st))
            return false;
    }
    return model->ops->rotary_table(queue, tensor_rows(pass_views(pass, 1).far_position, 0, 1),
                                    shape->frequencies, (int64_t)model->options.n_local - 1, st);
}

static bool reserve_segments(struct push_scratch *scratch, size_t count, struct status *st)
{
    struct tensor_segment *segments;

    if (count <= scratch->segments_room)
        return true;
    segments = realloc(scratch->segments, count * sizeof *segments);
    if (segments == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for windows of %zu segments", count);
    scratch->segments = segments;
    scratch->segments_room = count;
    return true;
}

static bool run_chunk(struct model *model, const struct push_item *items, uint32_t count, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);

    if (!begin(model, items, count, st))
        return false;
    for (uint32_t layer = 0; layer < shape->layers; layer++)
        if (!run_layer(model, items, count, layer, st))
            return status_wrap(st, "layer %u", layer);
    for (uint32_t i = 0; i < count; i++)
        if (!model->ops->read(pass_queue(model->push->pass), items[i].push->payload, model->push->payloads,
                              items[i].payload_at, block_bytes(shape, items[i].push->tokens), st))
            return false;
    return true;
}

static bool check_pushes(const struct model *model, const struct model_push *pushes, size_t count,
                         struct status *st)
{
    if (count > LIMIT_STREAMS)
        return status_fail(st, STATUS_INVALID, "%zu blocks in one call; at most %d", count, LIMIT_STREAMS);
    for (size_t i = 0; i < count; i++) {
        const struct model_window *window = pushes[i].window;

        REQUIRE(window->model == model && pushes[i].embeddings != NULL);
        if (pushes[i].tokens == 0 || pushes[i].tokens > model->options.block_tokens_max)
            return status_fail(st, STATUS_INVALID, "a block of %u tokens; expected 1 to %u", pushes[i].tokens,
                               model->options.block_tokens_max);
        if (window->next_index + pushes[i].tokens > MODEL_TOKEN_INDEX_MAX)
            return status_fail(st, STATUS_OUT_OF_RANGE, "the stream has 2^36 tokens; go on under a new name");
        for (size_t k = 0; k < i; k++)
            REQUIRE(pushes[k].window != window);
    }
    return true;
}

/* The blocks of one chunk all run before any window moves on. */
static bool push_all(struct model *model, const struct model_push *pushes, size_t count, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct push_item items[MODEL_BATCH_FRAMES_MAX];

    for (size_t done = 0; done < count;) {
        uint32_t rows = 0, some = 0;
        size_t payload = 0, segments = 0;

        while (done + some < count && some < model->push->items_max &&
               rows + pushes[done + some].tokens <= pass_rows_max(model->push->pass)) {
            items[some] = (struct push_item){ &pushes[done + some], rows, payload, segments };
            segments += pushes[done + some].window->run_count + WINDOW_SEGMENTS_MORE;
            rows += pushes[done + some].tokens;
            payload += block_bytes(shape, pushes[done + some].tokens);
            some++;
        }
        if (!reserve_segments(model->push, segments, st) || !run_chunk(model, items, some, st))
            return false;
        done += some;
    }
    return true;
}

bool model_window_push(struct model *model, const struct model_push *pushes, size_t count, struct status *st)
{
    if (!check_pushes(model, pushes, count, st) || !push_all(model, pushes, count, st))
        return false;
    for (size_t i = 0; i < count; i++)
        window_advance(pushes[i].window, pushes[i].tokens);
    return true;
}

bool window_make_init(struct model *model, struct status *st)
{
    size_t bytes = block_bytes(decoder_shape(model->decoder), model->geometry.init_tokens);
    struct model_push push = { .tokens = model->geometry.init_tokens };
    bool ok;

    model->init_payload = push.payload = malloc(bytes);
    if (push.payload == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the system prompt's block");
    if (!window_alloc(&push.window, model, st))
        return false;
    ok = push_all(model, &push, 1, st) &&
         model->ops->buffer_create(&model->init_buffer, model->device, bytes, st) &&
         model->ops->write(pass_queue(model->push->pass), model->init_buffer, 0, model->init_payload, bytes,
                           st) &&
         model->ops->queue_finish(pass_queue(model->push->pass), st);
    model_window_destroy(push.window);
    model->init_block = (struct model_block){ 0, model->geometry.init_tokens, model->init_payload };
    return ok || status_wrap(st, "system prompt");
}
