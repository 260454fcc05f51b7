/* Pixels and vision features equal the reference on every checkpoint. */
#include <stdlib.h>

#include "model/preprocess.h"
#include "parity.h"

static void check_features(const char *checkpoint, enum tensor_dtype dtype, double tolerance)
{
    struct parity_options options = { .checkpoint = checkpoint, .dtype = dtype, .parts = MODEL_VISION };
    struct model *model = parity_model(&options);
    const struct json *frames;
    struct fixture fixture;
    float *want, *got;
    char name[64];
    size_t count;

    snprintf(name, sizeof name, "features-%s", checkpoint);
    fixture = fixture_open(name);
    frames = json_get(fixture.manifest, "clip_frames");
    want = fixture_floats(&fixture, "features.f32", &count);
    count /= json_len(frames);
    for (size_t i = 0; i < json_len(frames); i++) {
        uint32_t frame = (uint32_t)json_number(json_at(frames, i));

        got = clip_embeddings(model, frame, frame + 1);
        CHECK_CLOSE(got, want + i * count, count, tolerance);
        free(got);
    }
    free(want);
    fixture_close(&fixture);
    model_close(model);
}

TEST(features_equal_the_reference_in_f32)
{
    static const char *const checkpoints[] = { "tiny-a", "tiny-b", "tiny-c", "tiny-d" };

    for (size_t i = 0; i < ARRAY_LEN(checkpoints); i++)
        check_features(checkpoints[i], TENSOR_F32, PARITY_F32_TOLERANCE);
}

TEST(features_are_near_the_reference_in_bf16)
{
    check_features("tiny-b", TENSOR_BF16, PARITY_BF16_TOLERANCE);
    check_features("tiny-d", TENSOR_BF16, PARITY_BF16_TOLERANCE);
}

TEST(pixel_values_equal_the_processors_to_the_bit)
{
    static const char *const checkpoints[] = { "tiny-a", "tiny-b", "tiny-c", "tiny-d" };

    for (size_t i = 0; i < ARRAY_LEN(checkpoints); i++) {
        struct model_config config;
        struct preprocess preprocess;
        struct fixture fixture;
        struct status st;
        char path[512];
        size_t count;
        float *want;

        snprintf(path, sizeof path, REELKV_SOURCE_DIR "/tests/data/parity/%s", checkpoints[i]);
        CHECK_OK(config_read(&config, path, &st), st);
        CHECK_OK(preprocess_init(&preprocess, &config, &st), st);
        snprintf(path, sizeof path, "features-%s", checkpoints[i]);
        fixture = fixture_open(path);
        want = fixture_floats(&fixture, "pixel_table", &count);
        CHECK_EQ(count, 3 * 256);
        CHECK_MEM(preprocess.table, want, sizeof preprocess.table);
        free(want);
        fixture_close(&fixture);
        preprocess_deinit(&preprocess);
    }
}

/* A frame's embeddings are the same bits alone, in a batch, and when the batch is taken in turns. */
TEST(a_frame_alone_equals_the_same_frame_in_a_crowd)
{
    static const enum tensor_dtype dtypes[] = { TENSOR_F32, TENSOR_BF16 };

    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++) {
        struct parity_options options = {
            .checkpoint = "tiny-b", .dtype = dtypes[i], .parts = MODEL_VISION, .batch_frames = 3
        };
        struct model *model = parity_model(&options);
        const struct model_geometry *geometry = model_geometry(model);
        size_t frame = (size_t)geometry->frame_tokens * geometry->hidden;
        float *crowd = clip_embeddings(model, 0, 7);

        for (uint32_t at = 0; at < 7; at += 2) {
            float *alone = clip_embeddings(model, at, at + 1);

            CHECK_MEM(alone, crowd + at * frame, frame * sizeof *alone);
            free(alone);
        }
        free(crowd);
        model_close(model);
    }
}

TEST_MAIN()
