#include "model/config.h"

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "base/require.h"

enum { CONFIG_BYTES_MAX = 4 << 20, PICTURE_SIDE_MAX = 4096 };

/* A whole number with transformers' default (Qwen2Config and SiglipVisionConfig of 4.45) and our bounds. */
struct number_row {
    const char *key;
    size_t offset;
    uint32_t initial, min, max;
};

static const struct number_row text_rows[] = {
    { "hidden_size", offsetof(struct text_config, hidden), 4096, 1, 65536 },
    { "num_hidden_layers", offsetof(struct text_config, layers), 32, 1, LIMIT_LAYERS },
    { "num_attention_heads", offsetof(struct text_config, heads), 32, 1, 1024 },
    { "num_key_value_heads", offsetof(struct text_config, kv_heads), 32, 1, 1024 },
    { "intermediate_size", offsetof(struct text_config, mlp), 22016, 1, 262144 },
    { "vocab_size", offsetof(struct text_config, vocabulary), 151936, 1, 1 << 20 },
};

static const struct number_row vision_rows[] = {
    { "hidden_size", offsetof(struct vision_config, hidden), 768, 1, 65536 },
    { "num_hidden_layers", offsetof(struct vision_config, layers), 12, 1, LIMIT_LAYERS },
    { "num_attention_heads", offsetof(struct vision_config, heads), 12, 1, 1024 },
    { "intermediate_size", offsetof(struct vision_config, mlp), 3072, 1, 262144 },
    { "image_size", offsetof(struct vision_config, image), 224, 1, PICTURE_SIDE_MAX },
    { "patch_size", offsetof(struct vision_config, patch), 16, 1, 512 },
};

static bool read_rows(void *to, const struct json *object, const struct number_row *rows, size_t count,
                      struct status *st)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t *value = (uint32_t *)((char *)to + rows[i].offset);

        *value = rows[i].initial;
        if (json_get(object, rows[i].key) != NULL && !json_read_u32(object, rows[i].key, value, st))
            return false;
        if (*value < rows[i].min || *value > rows[i].max)
            return status_fail(st, STATUS_INVALID, "field '%s' is %u; expected %u to %u", rows[i].key, *value,
                               rows[i].min, rows[i].max);
    }
    return true;
}

static bool read_positive(const struct json *object, const char *key, double initial, double *value_p,
                          struct status *st)
{
    double value = initial;

    if (json_get(object, key) != NULL && !json_read_f64(object, key, &value, st))
        return false;
    if (!(value > 0) || !isfinite(value) || value > 1e12)
        return status_fail(st, STATUS_INVALID, "field '%s' is %g; expected a number above 0", key, value);
    *value_p = value;
    return true;
}

/* A field that chooses between ways of computing, of which one is implemented. */
static bool expect_word(const struct json *object, const char *key, const char *only, struct status *st)
{
    const struct json *value = json_get(object, key);

    if (value == NULL || (json_str(value) != NULL && strcmp(json_str(value), only) == 0))
        return true;
    return status_fail(st, STATUS_UNIMPLEMENTED, "field '%s' is '%.64s'; only '%s' is implemented", key,
                       json_str(value) != NULL ? json_str(value) : "(no word)", only);
}

static bool read_text(struct text_config *text, const struct json *object, struct status *st)
{
    const struct json *head_dim = json_get(object, "head_dim");

    if (!read_rows(text, object, text_rows, ARRAY_LEN(text_rows), st) ||
        !read_positive(object, "rope_theta", 10000, &text->rope_theta, st) ||
        !read_positive(object, "rms_norm_eps", 1e-6, &text->rms_epsilon, st) ||
        !expect_word(object, "hidden_act", "silu", st))
        return false;
    if (json_get(object, "rope_scaling") != NULL || json_bool(json_get(object, "use_sliding_window")))
        return status_fail(
            st, STATUS_UNIMPLEMENTED,
            "fields 'rope_scaling' and 'use_sliding_window' are not implemented; expected null and "
            "false");
    text->tied = json_bool(json_get(object, "tie_word_embeddings"));
    text->head_dim = text->hidden / text->heads;
    if (head_dim != NULL && !json_read_u32(object, "head_dim", &text->head_dim, st))
        return false;
    if (text->heads % text->kv_heads != 0 || (head_dim == NULL && text->hidden % text->heads != 0) ||
        text->head_dim == 0 || text->head_dim % 2 != 0 || text->head_dim > 256)
        return status_fail(
            st, STATUS_INVALID,
            "hidden_size %u, %u attention heads and %u key-value heads do not fit together: the "
            "first is a multiple of the second, the second of the third, a head has an even number "
            "up to 256",
            text->hidden, text->heads, text->kv_heads);
    return true;
}

static bool read_vision(struct vision_config *vision, const struct json *object, struct status *st)
{
    double channels = 3;

    if (!read_rows(vision, object, vision_rows, ARRAY_LEN(vision_rows), st) ||
        !read_positive(object, "layer_norm_eps", 1e-6, &vision->epsilon, st) ||
        !read_positive(object, "num_channels", 3, &channels, st) ||
        !expect_word(object, "hidden_act", "gelu_pytorch_tanh", st))
        return false;
    if (channels != 3)
        return status_fail(st, STATUS_UNIMPLEMENTED, "field 'num_channels' is %g; pictures here have 3",
                           channels);
    if (vision->hidden % vision->heads != 0 || vision->hidden / vision->heads > 256)
        return status_fail(st, STATUS_INVALID,
                           "hidden_size %u is not a multiple of %u heads of at most 256 numbers",
                           vision->hidden, vision->heads);
    if (vision->patch > vision->image)
        return status_fail(st, STATUS_INVALID, "patch_size %u is larger than image_size %u", vision->patch,
                           vision->image);
    vision->grid = vision->image / vision->patch;
    return true;
}

/* vision_feature_layer counts hidden states: 0 is the embedding, -1 the last layer's output. */
static bool read_feature_layer(struct vision_config *vision, const struct json *root, struct status *st)
{
    const struct json *field = json_get(root, "vision_feature_layer");
    double layer = field == NULL ? -1 : json_number(field);

    if (field != NULL && !json_is_number(field))
        return status_fail(st, STATUS_UNIMPLEMENTED, "field 'vision_feature_layer' is not one number");
    if (layer < 0)
        layer += (double)vision->layers + 1;
    if (!(layer >= 0 && layer <= vision->layers && layer == floor(layer)))
        return status_fail(st, STATUS_INVALID,
                           "field 'vision_feature_layer' names none of the tower's %u layers",
                           vision->layers);
    vision->layers_run = (uint32_t)layer;
    return true;
}

static bool expect_type(const struct json *object, const char *wanted, struct status *st)
{
    const char *type = json_str(json_get(object, "model_type"));

    if (!json_is_object(object))
        return status_fail(st, STATUS_INVALID, "is missing or not an object");
    if (type != NULL && strcmp(type, wanted) != 0)
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "field 'model_type' is '%.64s'; only '%s' is implemented", type, wanted);
    return true;
}

static bool read_config(struct model_config *config, const struct json *root, struct status *st)
{
    const struct json *text = json_get(root, "text_config"), *vision = json_get(root, "vision_config");
    uint32_t pooled;

    if (!json_is_object(root))
        return status_fail(st, STATUS_INVALID, "is not a JSON object");
    config->family = family_find(root, st);
    if (config->family == NULL)
        return false;
    if (!expect_type(text, config->family->text_type, st) || !read_text(&config->text, text, st))
        return status_wrap(st, "text_config");
    if (!expect_type(vision, config->family->vision_type, st) || !read_vision(&config->vision, vision, st))
        return status_wrap(st, "vision_config");
    if (!read_feature_layer(&config->vision, root, st) ||
        !expect_word(root, "vision_feature_select_strategy", "full", st) ||
        !expect_word(root, "projector_hidden_act", "gelu", st))
        return false;
    pooled = (config->vision.grid + 1) / 2;
    config->frame_tokens = pooled * pooled;
    if (config->frame_tokens > LIMIT_FRAME_TOKENS)
        return status_fail(st, STATUS_INVALID, "a frame would take %u tokens; at most %d are supported",
                           config->frame_tokens, LIMIT_FRAME_TOKENS);
    return true;
}

static bool read_colours(const struct json *root, const char *key, const double initial[3], double out[3],
                         struct status *st)
{
    const struct json *list = json_get(root, key);

    memcpy(out, initial, 3 * sizeof *out);
    if (list == NULL)
        return true;
    for (size_t i = 0; i < 3; i++) {
        if (json_len(list) != 3 || !json_is_number(json_at(list, i)) ||
            !isfinite(json_number(json_at(list, i))))
            return status_fail(st, STATUS_INVALID, "field '%s' is not a list of 3 numbers", key);
        out[i] = json_number(json_at(list, i));
    }
    return true;
}

static bool is_off(const struct json *root, const char *key)
{
    return json_get(root, key) != NULL && !json_bool(json_get(root, key));
}

/* Defaults of LlavaOnevisionVideoProcessor: 384x384, bicubic, CLIP's colours. */
static bool read_pixels(struct model_config *config, const struct json *root, struct status *st)
{
    static const double clip_mean[3] = { 0.48145466, 0.4578275, 0.40821073 };
    static const double clip_std[3] = { 0.26862954, 0.26130258, 0.27577711 };
    const struct json *size = json_get(root, "size"), *resample = json_get(root, "resample");
    double height = size == NULL ? 384 : json_number(json_get(size, "height"));
    double width = size == NULL ? 384 : json_number(json_get(size, "width"));

    if (!json_is_object(root))
        return status_fail(st, STATUS_INVALID, "is not a JSON object");
    if (height != config->vision.image || width != config->vision.image)
        return status_fail(st, STATUS_INVALID,
                           "field 'size' is %gx%g; expected the vision tower's image_size, %ux%u", width,
                           height, config->vision.image, config->vision.image);
    if (resample != NULL && json_number(resample) != 3)
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "field 'resample' is %g; only 3 (bicubic) is implemented", json_number(resample));
    if (is_off(root, "do_resize") || is_off(root, "do_rescale") || is_off(root, "do_normalize"))
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "fields 'do_resize', 'do_rescale' and 'do_normalize' must be true");
    if (!read_positive(root, "rescale_factor", 1.0 / 255.0, &config->pixel.rescale, st) ||
        !read_colours(root, "image_mean", clip_mean, config->pixel.mean, st) ||
        !read_colours(root, "image_std", clip_std, config->pixel.std, st))
        return false;
    for (int i = 0; i < 3; i++)
        if (config->pixel.std[i] == 0)
            return status_fail(st, STATUS_INVALID, "field 'image_std' has a zero");
    return true;
}

static struct json *open_json(const char *folder, const char *name, struct status *st)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
        status_fail(st, STATUS_INVALID, "path is too long: %.100s...", folder);
        return NULL;
    }
    return json_parse_file(path, CONFIG_BYTES_MAX, st);
}

bool config_read(struct model_config *config, const char *folder, struct status *st)
{
    struct json *root = open_json(folder, "config.json", st), *pixels;
    bool ok;

    memset(config, 0, sizeof *config);
    if (root == NULL)
        return false;
    ok = read_config(config, root, st) || status_wrap(st, "%s/config.json", folder);
    json_free(root);
    if (!ok)
        return false;
    pixels = open_json(folder, "preprocessor_config.json", st);
    if (pixels == NULL)
        return false;
    ok = read_pixels(config, pixels, st) || status_wrap(st, "%s/preprocessor_config.json", folder);
    json_free(pixels);
    return ok;
}
