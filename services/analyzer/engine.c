#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"

enum { ENGINE_QUEUE_MAX = LIMIT_STREAMS + 1 /* windows to fill, and the batch */ };

struct engine {
    struct model *model;
    struct work_pool *pool; /* one thread */
    uint32_t batch_frames;
    struct engine_job *first;
    struct engine_job **last_link;
    struct work batch;
    bool batch_running, closing;
    uint32_t count;
    struct engine_job *jobs[MODEL_BATCH_FRAMES_MAX];
    struct model_push pushes[MODEL_BATCH_FRAMES_MAX];
    struct status failures[MODEL_BATCH_FRAMES_MAX]; /* of each job; OK: pushed */
};

bool engine_create(struct engine **engine_p, struct loop *loop, struct model *model, uint32_t batch_frames,
                   struct status *st)
{
    struct work_pool_options options = { .name = "engine", .threads = 1, .queue_max = ENGINE_QUEUE_MAX };
    struct engine *engine = calloc(1, sizeof *engine);

    REQUIRE(batch_frames >= 1 && batch_frames <= MODEL_BATCH_FRAMES_MAX);
    if (engine == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the engine");
    if (!work_pool_create(&engine->pool, loop, &options, st)) {
        free(engine);
        return false;
    }
    engine->model = model;
    engine->batch_frames = batch_frames;
    engine->last_link = &engine->first;
    *engine_p = engine;
    return true;
}

void engine_destroy(struct engine *engine)
{
    if (engine == NULL)
        return;
    engine->closing = true;
    work_pool_destroy(engine->pool);
    free(engine);
}

static void run_batch(struct work *work)
{
    struct engine *engine = container_of(work, struct engine, batch);
    bool ok;

    memset(engine->failures, 0, engine->count * sizeof *engine->failures);
    ok = model_window_push(engine->model, engine->pushes, engine->count, &engine->failures[0]);
    if (!ok && engine->count > 1) {
        /* The windows are as they were. */
        engine->failures[0].code = STATUS_OK;
        for (uint32_t i = 0; i < engine->count; i++)
            model_window_push(engine->model, &engine->pushes[i], 1, &engine->failures[i]);
    }
}

static void start_batch(struct engine *engine);

static void batch_done(struct work *work)
{
    struct engine *engine = container_of(work, struct engine, batch);

    /* A job's pushed() may offer it again; the next batch waits until all have been told of this one. */
    for (uint32_t i = 0; i < engine->count; i++) {
        const struct status *failure = &engine->failures[i];

        engine->jobs[i]->running = false;
        engine->jobs[i]->pushed(engine->jobs[i], failure->code == STATUS_OK ? NULL : failure);
    }
    engine->batch_running = false;
    start_batch(engine);
}

static void start_batch(struct engine *engine)
{
    if (engine->batch_running || engine->closing || engine->first == NULL)
        return;
    for (engine->count = 0; engine->first != NULL && engine->count < engine->batch_frames; engine->count++) {
        struct engine_job *job = engine->first;

        engine->first = job->next;
        if (engine->first == NULL)
            engine->last_link = &engine->first;
        job->waiting = false;
        job->running = true;
        engine->jobs[engine->count] = job;
        engine->pushes[engine->count] = job->push;
    }
    engine->batch.run = run_batch;
    engine->batch.done = batch_done;
    engine->batch_running = true;
    REQUIRE(work_pool_submit(engine->pool, &engine->batch)); /* engine_run() leaves room for it */
}

void engine_offer(struct engine *engine, struct engine_job *job)
{
    REQUIRE(!job->waiting && !job->running);
    job->waiting = true;
    job->next = NULL;
    *engine->last_link = job;
    engine->last_link = &job->next;
    start_batch(engine);
}

bool engine_withdraw(struct engine *engine, struct engine_job *job)
{
    if (!job->waiting)
        return false;
    for (struct engine_job **at = &engine->first; *at != NULL; at = &(*at)->next) {
        if (*at != job)
            continue;
        *at = job->next;
        if (*at == NULL)
            engine->last_link = at;
        break;
    }
    job->waiting = false;
    return true;
}

bool engine_run(struct engine *engine, struct work *work)
{
    return work_pool_waiting(engine->pool) < LIMIT_STREAMS && work_pool_submit(engine->pool, work);
}

bool engine_forget(struct engine *engine, struct work *work)
{
    return work_pool_withdraw(engine->pool, work);
}
