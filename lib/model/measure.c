/* What this machine gives: a few frames of noise through the parts that are loaded. */
#include <stdlib.h>

#include "base/clock.h"
#include "model/window.h"

/* Numbers in [-1, 1) that are the same in every run. */
static float noise(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(int32_t)*state * 0x1p-31f;
}

/* A part to time: run() handles `frames` frames. */
struct measured {
    struct model *model;
    struct model_window *window;
    uint8_t *rgb;
    float *embeddings; /* [batch, frame_tokens, hidden] */
    uint8_t *payload;
    uint32_t frames;
};

static bool run_vision(struct measured *part, struct status *st)
{
    struct model_picture pictures[MODEL_BATCH_FRAMES_MAX];
    uint32_t side = part->model->geometry.image_side;

    for (uint32_t i = 0; i < part->frames; i++)
        pictures[i] = (struct model_picture){ part->rgb, side, side };
    return model_encode_frames(part->model, pictures, part->frames, part->embeddings, st);
}

static bool run_language(struct measured *part, struct status *st)
{
    struct model_push push = { part->window, part->embeddings, part->model->geometry.frame_tokens,
                               part->payload };

    return model_window_push(part->model, &push, 1, st);
}

/* The first run warms up and is not counted. */
static bool time_part(struct measured *part, bool (*run)(struct measured *, struct status *), double seconds,
                      double *frames_per_s_p, struct status *st)
{
    uint64_t start, now, frames = 0;

    if (!run(part, st))
        return false;
    start = now = clock_mono_ns();
    do {
        if (!run(part, st))
            return false;
        frames += part->frames;
        now = clock_mono_ns();
    } while ((double)(now - start) < seconds * 1e9);
    *frames_per_s_p = (double)frames * 1e9 / (double)(now - start);
    return true;
}

static bool measure(struct model *model, struct measured *part, double seconds, struct model_speed *speed,
                    struct status *st)
{
    if (model->vision != NULL) {
        part->frames = model->options.batch_frames;
        if (!time_part(part, run_vision, seconds, &speed->vision_frames_per_s, st))
            return false;
    }
    if (model->decoder == NULL)
        return true;
    part->frames = 1;
    return window_make_full(&part->window, model, st) &&
           time_part(part, run_language, seconds, &speed->language_frames_per_s, st);
}

bool model_measure(struct model *model, double seconds, struct model_speed *speed_p, struct status *st)
{
    const struct model_geometry *geometry = &model->geometry;
    size_t pixels = (size_t)geometry->image_side * geometry->image_side * 3;
    size_t numbers = (size_t)model->options.batch_frames * geometry->frame_tokens * geometry->hidden;
    struct measured part = { .model = model,
                             .rgb = malloc(pixels),
                             .embeddings = malloc(numbers * sizeof(float)),
                             .payload = malloc(model_block_bytes(model, geometry->frame_tokens)) };
    struct model_speed speed = { 0 };
    uint32_t state = 1;
    bool ok = false;

    if (part.rgb == NULL || part.embeddings == NULL || part.payload == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory to measure");
        goto out;
    }
    for (size_t i = 0; i < pixels; i++)
        part.rgb[i] = (uint8_t)(128 + 127 * noise(&state));
    for (size_t i = 0; i < numbers; i++)
        part.embeddings[i] = noise(&state);
    ok = measure(model, &part, seconds / 2, &speed, st);
    if (ok)
        *speed_p = speed;
out:
    model_window_destroy(part.window);
    free(part.rgb);
    free(part.embeddings);
    free(part.payload);
    return ok;
}
