/* The analyzer's engine with a real model: who shares a batch. */
#include "analyzer/engine.h"

#include <stdlib.h>

#include "parity/parity.h"

enum { JOBS = 3, LATE = 1 /* its stream is as long as a stream can be */ };

struct work_done {
    struct engine_job job;
    struct status failure;
    const struct work_done *all; /* [JOBS] */
    uint32_t beside;             /* how many of the others the engine had when this one came back */
    uint32_t *left;
};

static void pushed(struct engine_job *job, const struct status *failure)
{
    struct work_done *done = container_of(job, struct work_done, job);

    if (failure != NULL)
        done->failure = *failure;
    for (uint32_t i = 0; i < JOBS; i++)
        done->beside += done->all[i].job.running;
    --*done->left;
}

static void make_job(struct work_done *done, struct model *model, const float *embeddings, bool late)
{
    uint32_t tokens = model_geometry(model)->frame_tokens;
    struct status st = { 0 };

    CHECK_OK(model_window_create(&done->job.push.window, model, &st), st);
    if (late)
        CHECK_OK(model_window_restore(done->job.push.window, model_init_block(model), 1,
                                      MODEL_TOKEN_INDEX_MAX - 1, &st),
                 st);
    done->job.push.embeddings = embeddings;
    done->job.push.tokens = tokens;
    done->job.push.payload = calloc(1, model_block_bytes(model, tokens));
    done->job.pushed = pushed;
}

/* The first job starts a batch of its own, the others share the next: one of a stream that can take no more tokens, and
 * one whose block must be the first's to the byte. */
TEST(a_frame_that_cannot_be_pushed_fails_alone)
{
    struct parity_options options = {
        .checkpoint = "tiny-d", .dtype = TENSOR_BF16, .n_local = 61, .batch_frames = 4
    };
    struct model *model = parity_model(&options);
    float *embeddings = clip_embeddings(model, 0, 1);
    size_t bytes = model_block_bytes(model, model_geometry(model)->frame_tokens);
    struct work_done jobs[JOBS];
    struct engine *engine = NULL;
    struct loop *loop = NULL;
    uint32_t left = JOBS;
    struct status st = { 0 };

    memset(jobs, 0, sizeof jobs);
    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(engine_create(&engine, loop, model, 4, &st), st);
    for (uint32_t i = 0; i < JOBS; i++) {
        make_job(&jobs[i], model, embeddings, i == LATE);
        jobs[i].all = jobs;
        jobs[i].left = &left;
    }
    for (uint32_t i = 0; i < JOBS; i++)
        engine_offer(engine, &jobs[i].job); /* from here on the model is the engine's */
    while (left > 0)
        loop_run_once(loop);
    CHECK_EQ(jobs[0].beside, 0);
    CHECK_EQ(jobs[LATE].beside, 1); /* the last one's: they shared a batch */
    for (uint32_t i = 0; i < JOBS; i++)
        CHECK_EQ(jobs[i].failure.code, i == LATE ? STATUS_OUT_OF_RANGE : STATUS_OK);
    CHECK_MEM(jobs[2].job.push.payload, jobs[0].job.push.payload, bytes);
    engine_destroy(engine);
    for (uint32_t i = 0; i < JOBS; i++) {
        model_window_destroy(jobs[i].job.push.window);
        free(jobs[i].job.push.payload);
    }
    free(embeddings);
    model_close(model);
    loop_destroy(loop);
}

TEST_MAIN()
