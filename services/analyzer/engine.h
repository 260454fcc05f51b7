/* engine.h - the thread that owns the model: frames of many streams in one batch, windows restored.
 *
 *   feed --engine_offer--> waiting --batch--> engine thread --done--> loop --feed's pushed()
 *
 * One batch runs at a time and takes at most one frame of each stream, so that a window is never touched by two
 * threads. What a frame's block contains never depends on what shares its batch (model/model.h), and a frame that
 * cannot be computed fails alone.
 *
 * Owner:  analyzer. Thread: the loop's; model work runs on the engine's own thread.
 * Bounds: batch_frames a batch; each stream offers at most one job at a time; LIMIT_STREAMS windows to fill. */
#ifndef REELKV_ANALYZER_ENGINE_H
#define REELKV_ANALYZER_ENGINE_H

#include "loop/work_pool.h"
#include "model/model.h"

struct engine;

bool engine_create(struct engine **engine_p, struct loop *loop, struct model *model, uint32_t batch_frames,
                   struct status *st);

/* Waits for the batch under way; jobs still waiting are not called. NULL is fine. */
void engine_destroy(struct engine *engine);

/* One stream's next piece of work. Zeroed memory is idle. */
struct engine_job {
    struct model_push push; /* its window, embeddings, tokens, payload */
    void (*pushed)(struct engine_job *job,
                   const struct status *failure); /* loop thread; failure NULL: the payload is written */
    struct engine_job *next;
    bool waiting, running;
};

/* The job, its embeddings, payload and window are the engine's until pushed(). */
void engine_offer(struct engine *engine, struct engine_job *job);

/* True: it had not started and will not be called. False: it is running (pushed() comes) or idle. */
bool engine_withdraw(struct engine *engine, struct engine_job *job);

/* Runs work on the engine's thread, between batches: filling a window. As work_pool_submit() and
 * work_pool_withdraw(). */
bool engine_run(struct engine *engine, struct work *work);
bool engine_forget(struct engine *engine, struct work *work);

#endif
