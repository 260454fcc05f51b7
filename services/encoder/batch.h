/* batch.h - pictures of many streams through the vision tower together, and their thumbnails.
 *
 *   item: offered -> (with others, on the batch's thread) -> done(), on the loop
 *
 * A batch starts as soon as the one before is done, with what waits then, in the order of offering: alone when the
 * machine is idle, full when it is not. A frame's embeddings never depend on its company (model/model.h), and a
 * picture that cannot be encoded fails alone.
 *
 * Owner:  encoder. Thread: the loop's.
 * Bounds: frames_max a batch; each stream offers at most as many as its capture has slots. */
#ifndef REELKV_ENCODER_BATCH_H
#define REELKV_ENCODER_BATCH_H

#include "encoder/vision.h"
#include "loop/work_pool.h"

struct batch;

/* One picture's way. Zeroed memory is idle. */
struct batch_item {
    struct model_picture picture; /* stays readable until done() */
    /* Results; the receiver frees them. */
    float *embeddings; /* [tokens, hidden] */
    uint32_t tokens;
    uint8_t *thumbnail;
    size_t thumbnail_bytes;
    /* On the loop. Failure NULL: the results are there; else there are none, and it may be offered again. */
    void (*done)(struct batch_item *item, const struct status *failure);
    struct batch_item *next;
};

/* `vision` is borrowed. */
bool batch_create(struct batch **batch_p, struct loop *loop, const struct vision *vision, uint32_t frames_max,
                  struct status *st);

/* Finishes the batch under way; every item offered gets its done(), those that waited with CANCELLED. NULL is
 * fine. */
void batch_destroy(struct batch *batch);

void batch_offer(struct batch *batch, struct batch_item *item);

struct batch_totals {
    uint64_t frames, batches, busy_ns;
};
struct batch_totals batch_totals(const struct batch *batch);

#endif
