#include "encoder/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"
#include "media/media_jpeg.h"

struct batch {
    const struct vision *vision;
    struct work_pool *pool; /* one thread */
    struct media_jpeg *jpeg;
    float *out; /* [frames_max, frame_tokens, hidden] */
    uint32_t frames_max;
    struct batch_item *first;
    struct batch_item **last_link;
    bool closing;
    /* The batch under way. */
    struct work work;
    bool running;
    uint32_t count;
    struct batch_item *items[MODEL_BATCH_FRAMES_MAX];
    struct model_picture pictures[MODEL_BATCH_FRAMES_MAX];
    struct status failures[MODEL_BATCH_FRAMES_MAX]; /* of each item; OK: its results are there */
    uint64_t took_ns;
    struct batch_totals totals;
};

bool batch_create(struct batch **batch_p, struct loop *loop, const struct vision *vision, uint32_t frames_max,
                  struct status *st)
{
    const struct work_pool_options options = { .name = "vision", .threads = 1, .queue_max = 1 };
    struct batch *batch = calloc(1, sizeof *batch);

    REQUIRE(frames_max >= 1 && frames_max <= MODEL_BATCH_FRAMES_MAX);
    if (batch == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for batches of frames");
    batch->vision = vision;
    batch->frames_max = frames_max;
    batch->last_link = &batch->first;
    batch->out = malloc((size_t)frames_max * vision->frame_tokens * vision->hidden * sizeof(float));
    if (batch->out == NULL)
        status_fail(st, STATUS_EXHAUSTED, "no memory for batches of %u frames", frames_max);
    else if (media_jpeg_create(&batch->jpeg, st) && work_pool_create(&batch->pool, loop, &options, st)) {
        *batch_p = batch;
        return true;
    }
    batch_destroy(batch);
    return false;
}

void batch_destroy(struct batch *batch)
{
    struct status gone = { 0 };

    if (batch == NULL)
        return;
    batch->closing = true;
    work_pool_destroy(batch->pool);
    status_fail(&gone, STATUS_CANCELLED, "the encoder is shutting down");
    while (batch->first != NULL) {
        struct batch_item *item = batch->first;

        batch->first = item->next;
        item->done(item, &gone);
    }
    media_jpeg_destroy(batch->jpeg);
    free(batch->out);
    free(batch);
}

static bool fill_result(struct batch *batch, struct batch_item *item, float *embeddings, struct status *st)
{
    struct media_picture picture = { item->picture.rgb, item->picture.width, item->picture.height };
    size_t bytes;
    struct bytes jpeg;

    item->tokens = batch->vision->frame_tokens;
    if (!batch->vision->compress(batch->vision->arg, embeddings, &item->tokens, st) ||
        !media_jpeg_thumbnail(batch->jpeg, &picture, &jpeg, st))
        return false;
    bytes = (size_t)item->tokens * batch->vision->hidden * sizeof(float);
    item->embeddings = malloc(bytes);
    item->thumbnail = malloc(jpeg.len);
    if (item->embeddings == NULL || item->thumbnail == NULL) {
        free(item->embeddings);
        free(item->thumbnail);
        item->embeddings = NULL;
        item->thumbnail = NULL;
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a frame's embeddings");
    }
    memcpy(item->embeddings, embeddings, bytes);
    memcpy(item->thumbnail, jpeg.data, jpeg.len);
    item->thumbnail_bytes = jpeg.len;
    return true;
}

/* Items [from, from + count): together, and where that fails each alone. */
static void encode(struct batch *batch, uint32_t from, uint32_t count)
{
    const struct vision *vision = batch->vision;
    size_t frame = (size_t)vision->frame_tokens * vision->hidden;
    float *out = batch->out + from * frame;
    struct status st = { 0 };

    if (vision->encode(vision->arg, batch->pictures + from, count, out, &st)) {
        for (uint32_t i = 0; i < count; i++)
            fill_result(batch, batch->items[from + i], out + i * frame, &batch->failures[from + i]);
    } else if (count == 1) {
        batch->failures[from] = st;
    } else {
        for (uint32_t i = 0; i < count; i++)
            encode(batch, from + i, 1);
    }
}

static void run_batch(struct work *work)
{
    struct batch *batch = container_of(work, struct batch, work);
    uint64_t started_ns = clock_mono_ns();

    memset(batch->failures, 0, batch->count * sizeof *batch->failures);
    encode(batch, 0, batch->count);
    batch->took_ns = clock_mono_ns() - started_ns;
}

static void start_batch(struct batch *batch);

static void batch_done(struct work *work)
{
    struct batch *batch = container_of(work, struct batch, work);

    batch->totals.batches++;
    batch->totals.busy_ns += batch->took_ns;
    /* done() may offer; the next batch waits until all have been told of this one. */
    for (uint32_t i = 0; i < batch->count; i++) {
        bool ok = batch->failures[i].code == STATUS_OK;

        batch->totals.frames += ok;
        batch->items[i]->done(batch->items[i], ok ? NULL : &batch->failures[i]);
    }
    batch->running = false;
    start_batch(batch);
}

static void start_batch(struct batch *batch)
{
    if (batch->running || batch->closing || batch->first == NULL)
        return;
    for (batch->count = 0; batch->first != NULL && batch->count < batch->frames_max; batch->count++) {
        struct batch_item *item = batch->first;

        batch->first = item->next;
        if (batch->first == NULL)
            batch->last_link = &batch->first;
        batch->items[batch->count] = item;
        batch->pictures[batch->count] = item->picture;
    }
    batch->work.run = run_batch;
    batch->work.done = batch_done;
    batch->running = true;
    REQUIRE(work_pool_submit(batch->pool, &batch->work));
}

void batch_offer(struct batch *batch, struct batch_item *item)
{
    item->next = NULL;
    *batch->last_link = item;
    batch->last_link = &item->next;
    start_batch(batch);
}

struct batch_totals batch_totals(const struct batch *batch)
{
    return batch->totals;
}
