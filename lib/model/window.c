/* A window is a ring of token slots per layer: the key of token index i lies rotated by i in slot i %
 * capacity, its value beside it in a second plane. Differences alone matter to rotary attention, so nothing
 * is turned again as the window slides. What is in the ring is a short list of runs of consecutive indices;
 * more than one only where blocks are missing from the store.
 *
 * capacity = n_local + the longest block: the slots that a push writes held tokens which no query sees any
 * more. So a push that fails half-way has changed nothing that counts.
 *
 * Attention reads the keys and values as rounded to the stored type, the block's own included. That is why a
 * window refilled from the store goes on bit for bit. */
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "model/window.h"

static struct attend_rule rule_of(const struct model *model)
{
    return (struct attend_rule){ .n_local = model->options.n_local };
}

/* -------------------------------------------------------------------------------------------- the ring */

/* Slots of the indices [index, index + count), which must not cross the ring's end. */
static struct tensor_heads ring_at(const struct model_window *window, uint32_t layer, bool value,
                                   int64_t index, uint32_t count)
{
    const struct decoder_shape *shape = decoder_shape(window->model->decoder);
    size_t plane = block_slice_bytes(shape, window->capacity);
    struct tensor_heads all =
        tensor_heads_at(window->ring, (2 * (size_t)layer + (value ? 1 : 0)) * plane, shape->dtype,
                        shape->kv_heads, window->capacity, shape->head_dim);

    return tensor_heads_tokens(all, (uint32_t)(index % window->capacity), count);
}

/* How many of `count` slots from `index` lie before the ring's end. */
static uint32_t ring_room(const struct model_window *window, int64_t index, uint32_t count)
{
    uint32_t room = window->capacity - (uint32_t)(index % window->capacity);

    return count < room ? count : room;
}

bool window_put(struct model_window *window, struct tensor_queue *queue, uint32_t layer,
                const struct tensor_heads kv[2], struct tensor positions, int64_t index, struct status *st)
{
    const struct tensor_ops *ops = window->model->ops;

    for (uint32_t done = 0; done < kv[0].tokens;) {
        uint32_t count = ring_room(window, index + done, kv[0].tokens - done);

        if (!ops->rotary(queue, ring_at(window, layer, false, index + done, count),
                         tensor_heads_tokens(kv[0], done, count), tensor_rows(positions, done, count), st) ||
            !ops->convert(queue, ring_at(window, layer, true, index + done, count),
                          tensor_heads_tokens(kv[1], done, count), st))
            return false;
        done += count;
    }
    return true;
}

static void expire(struct model_window *window)
{
    int64_t oldest = (int64_t)window->next_index - window->model->options.n_local;
    uint32_t gone = 0;

    while (gone < window->run_count && window->runs[gone].end <= oldest)
        gone++;
    window->run_count -= gone;
    memmove(window->runs, window->runs + gone, window->run_count * sizeof *window->runs);
    if (window->run_count > 0 && window->runs[0].first < oldest)
        window->runs[0].first = oldest;
}

static void add_run(struct model_window *window, int64_t first, int64_t end)
{
    if (window->run_count > 0 && window->runs[window->run_count - 1].end == first) {
        window->runs[window->run_count - 1].end = end;
        return;
    }
    REQUIRE(window->run_count < window->run_room);
    window->runs[window->run_count++] = (struct window_run){ first, end };
}

/* Each block may stand alone between two holes; of those that come later only the first can begin a run. */
static bool make_room(struct model_window *window, size_t blocks, struct status *st)
{
    struct window_run *runs = realloc(window->runs, (blocks + 1) * sizeof *runs);

    if (runs == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a window of %zu blocks", blocks);
    window->runs = runs;
    window->run_room = (uint32_t)blocks + 1;
    window->run_count = 0;
    return true;
}

/* ---------------------------------------------------------------------------------------- life of a window
 */

bool window_alloc(struct model_window **window_p, struct model *model, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(model->decoder);
    struct model_window *window = calloc(1, sizeof *window);

    if (window == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a window");
    window->model = model;
    window->capacity = model->options.n_local + model->options.block_tokens_max;
    if (window->capacity < model->options.n_local + model->geometry.init_tokens)
        window->capacity = model->options.n_local + model->geometry.init_tokens;
    if (!model->ops->buffer_create(&window->ring, model->device,
                                   2 * shape->layers * block_slice_bytes(shape, window->capacity), st) ||
        !model->ops->buffer_create(&window->init, model->device,
                                   block_bytes(shape, model->geometry.init_tokens), st)) {
        model_window_destroy(window);
        return status_wrap(st, "window of %u tokens", model->options.n_local);
    }
    *window_p = window;
    return true;
}

void model_window_destroy(struct model_window *window)
{
    if (window == NULL)
        return;
    window->model->ops->buffer_destroy(window->ring);
    window->model->ops->buffer_destroy(window->init);
    free(window->runs);
    free(window);
}

uint64_t model_window_next_index(const struct model_window *window)
{
    return window->next_index;
}

/* Tokens [from, end) of a block, a stretch that the pass's table of positions can hold. */
static bool place_stretch(struct model_window *window, struct tensor_buffer *payload,
                          const struct model_block *block, int64_t from, uint32_t count, struct status *st)
{
    const struct decoder_shape *shape = decoder_shape(window->model->decoder);
    struct decoder_pass *pass = push_pass(window->model->push);
    struct tensor positions = pass_views(pass, count).positions;
    uint32_t skip = (uint32_t)(from - (int64_t)block->token_index);

    if (!window->model->ops->rotary_table(pass_queue(pass), positions, shape->frequencies, from, st))
        return false;
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        struct tensor_heads kv[2] = { block_slice(shape, payload, 0, block->tokens, layer, false),
                                      block_slice(shape, payload, 0, block->tokens, layer, true) };

        kv[0] = tensor_heads_tokens(kv[0], skip, count);
        kv[1] = tensor_heads_tokens(kv[1], skip, count);
        if (!window_put(window, pass_queue(pass), layer, kv, positions, from, st))
            return false;
    }
    return true;
}

/* What the window sees of a block goes into the ring. */
static bool place(struct model_window *window, const struct model_block *block, struct status *st)
{
    const struct model *model = window->model;
    struct decoder_pass *pass = push_pass(model->push);
    int64_t oldest = (int64_t)window->next_index - model->options.n_local;
    int64_t first = (int64_t)block->token_index, end = first + block->tokens,
            at = first > oldest ? first : oldest;
    struct tensor_buffer *payload = NULL;
    bool ok;

    if (at >= end)
        return true;
    add_run(window, at, end);
    if (!model->ops->buffer_wrap(&payload, model->device, block->payload,
                                 block_bytes(decoder_shape(model->decoder), block->tokens), st))
        return false;
    for (ok = true; ok && at < end;) {
        uint32_t rows = pass_rows_max(pass), count = end - at < rows ? (uint32_t)(end - at) : rows;

        ok = place_stretch(window, payload, block, at, count, st);
        at += count;
    }
    ok = model->ops->queue_finish(pass_queue(pass), st) && ok;
    model->ops->buffer_destroy(payload);
    return ok;
}

static bool check_blocks(const struct model *model, const struct model_block *blocks, size_t count,
                         uint64_t next_index, struct status *st)
{
    uint64_t end = 0;

    if (count == 0 || blocks[0].token_index != 0 || blocks[0].tokens != model->geometry.init_tokens)
        return status_fail(st, STATUS_INVALID, "a window begins with the system prompt's block of %u tokens",
                           model->geometry.init_tokens);
    for (size_t i = 0; i < count; i++) {
        if (blocks[i].token_index < end || blocks[i].tokens == 0 || blocks[i].tokens > LIMIT_FRAME_TOKENS ||
            blocks[i].token_index >= MODEL_TOKEN_INDEX_MAX)
            return status_fail(st, STATUS_INVALID,
                               "block %zu (token index %llu, %u tokens) does not follow %llu", i,
                               (unsigned long long)blocks[i].token_index, blocks[i].tokens,
                               (unsigned long long)end);
        end = blocks[i].token_index + blocks[i].tokens;
    }
    if (next_index < end || next_index >= MODEL_TOKEN_INDEX_MAX)
        return status_fail(st, STATUS_INVALID, "next token index %llu is not from %llu to 2^36",
                           (unsigned long long)next_index, (unsigned long long)end);
    return true;
}

static bool fill(struct model_window *window, const struct model_block *blocks, size_t count,
                 uint64_t next_index, struct status *st)
{
    struct model *model = window->model;
    size_t init_bytes = block_bytes(decoder_shape(model->decoder), model->geometry.init_tokens);

    window->next_index = next_index;
    if (!make_room(window, count, st) || !model->ops->write(pass_queue(push_pass(model->push)), window->init,
                                                            0, blocks[0].payload, init_bytes, st))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!place(window, &blocks[i], st))
            return status_wrap(st, "block %zu", i);
    return true;
}

bool model_window_create(struct model_window **window_p, struct model *model, struct status *st)
{
    struct model_window *window = NULL;

    REQUIRE(model->decoder != NULL);
    if (!window_alloc(&window, model, st))
        return false;
    if (!fill(window, &model->init_block, 1, model->geometry.init_tokens, st)) {
        model_window_destroy(window);
        return false;
    }
    *window_p = window;
    return true;
}

bool model_window_restore(struct model_window *window, const struct model_block *blocks, size_t count,
                          uint64_t next_index, struct status *st)
{
    if (window->next_index != window->model->geometry.init_tokens)
        return status_fail(st, STATUS_PRECONDITION, "only a new window is filled from the store");
    return check_blocks(window->model, blocks, count, next_index, st) &&
           fill(window, blocks, count, next_index, st);
}

/* The segments one block sees in one layer: far system prompt, the runs, itself; cut at the ring's end. */
uint32_t window_segments(const struct model_window *window, uint32_t layer, uint32_t tokens,
                         struct tensor_segment *segments)
{
    const struct decoder_shape *shape = decoder_shape(window->model->decoder);
    struct attend_rule rule = rule_of(window->model);
    int64_t next = (int64_t)window->next_index;
    uint32_t init_tokens = window->model->geometry.init_tokens, count = 0;

    if (attend_needs_far(&rule, next, tokens))
        segments[count++] = attend_far(&rule, block_slice(shape, window->init, 0, init_tokens, layer, false),
                                       block_slice(shape, window->init, 0, init_tokens, layer, true));
    for (uint32_t i = 0; i <= window->run_count; i++) {
        struct window_run run =
            i < window->run_count ? window->runs[i] : (struct window_run){ next, next + tokens };

        while (run.first < run.end) {
            uint32_t some = ring_room(window, run.first, (uint32_t)(run.end - run.first));

            segments[count++] = attend_near(&rule, ring_at(window, layer, false, run.first, some),
                                            ring_at(window, layer, true, run.first, some), run.first);
            run.first += some;
        }
    }
    return count;
}

void window_advance(struct model_window *window, uint32_t tokens)
{
    int64_t first = (int64_t)window->next_index;

    window->next_index += tokens;
    add_run(window, first, first + tokens);
    expire(window);
}

bool window_make_full(struct model_window **window_p, struct model *model, struct status *st)
{
    static const uint8_t zeros[64 << 10];
    size_t bytes = 2 * decoder_shape(model->decoder)->layers;
    struct model_window *window = NULL;

    if (!model_window_create(&window, model, st))
        return false;
    bytes *= block_slice_bytes(decoder_shape(model->decoder), window->capacity);
    for (size_t at = 0; at < bytes; at += sizeof zeros)
        if (!model->ops->write(pass_queue(push_pass(model->push)), window->ring, at, zeros,
                               bytes - at < sizeof zeros ? bytes - at : sizeof zeros, st)) {
            model_window_destroy(window);
            return false;
        }
    window->next_index = (uint64_t)model->options.n_local + model->geometry.init_tokens;
    window->runs[0] = (struct window_run){ model->geometry.init_tokens, (int64_t)window->next_index };
    window->run_count = 1;
    *window_p = window;
    return true;
}
