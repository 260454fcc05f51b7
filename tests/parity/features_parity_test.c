/* Pixels and vision features equal the reference on every checkpoint. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "model/preprocess.h"
#include "parity.h"

/* Tokens of the case's frames against its tensor `features`. */
static void check_features(const struct parity_options *options, const char *features, double tolerance)
{
    struct model *model = parity_model(options);
    const struct json *frames;
    struct fixture fixture;
    float *want, *got;
    char name[64];
    size_t count;

    snprintf(name, sizeof name, "features-%s", options->checkpoint);
    fixture = fixture_open(name);
    frames = json_get(fixture.manifest, "clip_frames");
    want = fixture_floats(&fixture, features, &count);
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

static void check_last_layer(const char *checkpoint, enum tensor_dtype dtype, double tolerance)
{
    struct parity_options options = { .checkpoint = checkpoint, .dtype = dtype, .parts = MODEL_VISION };

    check_features(&options, "features.f32", tolerance);
}

TEST(features_equal_the_reference_in_f32)
{
    static const char *const checkpoints[] = { "tiny-a", "tiny-b", "tiny-c", "tiny-d" };

    for (size_t i = 0; i < ARRAY_LEN(checkpoints); i++)
        check_last_layer(checkpoints[i], TENSOR_F32, PARITY_F32_TOLERANCE);
}

TEST(features_are_near_the_reference_in_bf16)
{
    check_last_layer("tiny-b", TENSOR_BF16, PARITY_BF16_TOLERANCE);
    check_last_layer("tiny-d", TENSOR_BF16, PARITY_BF16_TOLERANCE);
}

/* A checkpoint like this one but for the layer its config takes the features from; static storage. */
static const char *with_feature_layer(const char *checkpoint, int layer)
{
    static const char *const others[] = { "model.safetensors", "preprocessor_config.json", "tokenizer.json" };
    static const char field[] = "\"vision_feature_layer\": ";
    static char folder[512];
    char from[600], to[600], *at, *text;
    struct file_text config;
    struct status st;

    snprintf(folder, sizeof folder, "%s/layer%d", test_folder(), layer);
    CHECK_OK(file_make_folders(folder, &st), st);
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        snprintf(from, sizeof from, REELKV_SOURCE_DIR "/tests/data/parity/%s/%s", checkpoint, others[i]);
        snprintf(to, sizeof to, "%s/%s", folder, others[i]);
        CHECK(symlink(from, to) == 0);
    }
    snprintf(from, sizeof from, REELKV_SOURCE_DIR "/tests/data/parity/%s/config.json", checkpoint);
    CHECK_OK(file_read_all(from, 1 << 20, &config, &st), st);
    at = strstr(config.data, field);
    CHECK(at != NULL);
    *at = '\0';
    CHECK(asprintf(&text, "%s%s%d%s", config.data, field, layer, strchr(at + sizeof field - 1, ',')) > 0);
    snprintf(to, sizeof to, "%s/config.json", folder);
    CHECK_OK(file_write_durable(to, text, strlen(text), &st), st);
    free(text);
    free(config.data);
    return folder;
}

/* The projector's input is the layer that vision_feature_layer names: from the end, from the beginning, and none at all. */
TEST(features_of_an_earlier_layer_equal_the_reference)
{
    static const int layers[] = { -2, 1, 0 };

    for (size_t i = 0; i < ARRAY_LEN(layers); i++) {
        struct parity_options options = { .checkpoint = "tiny-c",
                                          .folder = with_feature_layer("tiny-c", layers[i]),
                                          .dtype = TENSOR_F32,
                                          .parts = MODEL_VISION };
        char features[32];

        snprintf(features, sizeof features, "features.f32.layer%d", layers[i]);
        check_features(&options, features, PARITY_F32_TOLERANCE);
    }
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
