/* window.h - the inside of a window, shared by window.c (the ring) and push.c (the decoder over new blocks).
 *
 * Thread: that of model_window_push(). */
#ifndef REELKV_MODEL_WINDOW_H
#define REELKV_MODEL_WINDOW_H

#include "model/model_data.h"

/* A window's segments beside its runs: far system prompt, this block, and one cut in two by the ring's end. */
enum { WINDOW_SEGMENTS_MORE = 3 };

struct window_run {
    int64_t first, end;
};

struct model_window {
    struct model *model;
    uint32_t capacity;
    struct tensor_buffer *ring; /* [layers][K, V][kv_heads, capacity, head_dim] */
    struct tensor_buffer *init; /* the system prompt's payload */
    struct window_run
        *runs; /* [run_room], in order; made with room for the blocks it is filled with and one more */
    uint32_t run_count, run_room;
    uint64_t next_index;
};

/* A window that holds nothing, not even the system prompt. */
bool window_alloc(struct model_window **window_p, struct model *model, struct status *st);

/* Puts keys (kv[0], rotated on the way) and values (kv[1]) of one layer into the ring, from token index `index`.
 * `positions` has a row of angles per token. */
bool window_put(struct model_window *window, struct tensor_queue *queue, uint32_t layer,
                const struct tensor_heads kv[2], struct tensor positions, int64_t index, struct status *st);

/* The segments the next block, of `tokens`, sees in one layer: far system prompt (first, if any), the runs, itself.
 * At most run_count + WINDOW_SEGMENTS_MORE; returns how many. */
uint32_t window_segments(const struct model_window *window, uint32_t layer, uint32_t tokens,
                         struct tensor_segment *segments);

/* A window full of zeros, as if it had seen n_local tokens: for measuring. */
bool window_make_full(struct model_window **window_p, struct model *model, struct status *st);

/* The next block is in the ring: it counts from now on, and what no later query sees does not. */
void window_advance(struct model_window *window, uint32_t tokens);

#endif
