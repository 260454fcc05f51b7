#include "model/fingerprint.h"

#include <string.h>
#include <xxhash.h>

/* Raise it when a block's layout or what goes into its numbers changes. */
enum { LAYOUT_VERSION = 1, PREPROCESSING_VERSION = 1 };

static void add(XXH3_state_t *state, const void *data, size_t len)
{
    XXH3_128bits_update(state, data, len);
}

static void add_u64(XXH3_state_t *state, uint64_t value)
{
    add(state, &value, sizeof value);
}

static void add_f64(XXH3_state_t *state, double value)
{
    add(state, &value, sizeof value);
}

static void add_text(XXH3_state_t *state, const char *text)
{
    add(state, text, strlen(text) + 1);
}

/* Field by field: padding has no defined bytes. */
static void add_config(XXH3_state_t *state, const struct model_config *config)
{
    const struct text_config *text = &config->text;
    const struct vision_config *vision = &config->vision;

    add_text(state, config->family->name);
    add_u64(state, text->hidden);
    add_u64(state, text->layers);
    add_u64(state, text->heads);
    add_u64(state, text->kv_heads);
    add_u64(state, text->head_dim);
    add_f64(state, text->rope_theta);
    add_f64(state, text->rms_epsilon);
    add_u64(state, vision->layers_run);
    add_u64(state, vision->heads);
    add_u64(state, vision->image);
    add_u64(state, vision->patch);
    add_f64(state, vision->epsilon);
    add_f64(state, config->pixel.rescale);
    for (int i = 0; i < 3; i++) {
        add_f64(state, config->pixel.mean[i]);
        add_f64(state, config->pixel.std[i]);
    }
}

static void add_tensors(XXH3_state_t *state, const struct safetensors *checkpoint)
{
    for (size_t i = 0; i < safetensors_count(checkpoint); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(checkpoint, i);

        add_text(state, tensor->name);
        add_text(state, safetensors_dtype_word(tensor->dtype));
        add_u64(state, tensor->dims);
        for (uint32_t dim = 0; dim < tensor->dims; dim++)
            add_u64(state, tensor->shape[dim]);
        add(state, tensor->data, tensor->bytes);
    }
}

bool fingerprint_make(uint8_t out[MODEL_FINGERPRINT_BYTES], const struct fingerprint_parts *parts,
                      struct status *st)
{
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t written;

    if (state == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a fingerprint");
    XXH3_128bits_reset(state);
    add_u64(state, LAYOUT_VERSION);
    add_u64(state, PREPROCESSING_VERSION);
    add_config(state, parts->config);
    add_u64(state, parts->dtype);
    add_u64(state, parts->n_local);
    add_u64(state, parts->init_count);
    add(state, parts->init_ids, parts->init_count * sizeof *parts->init_ids);
    add_text(state, parts->compressor);
    add_tensors(state, parts->checkpoint);
    XXH128_canonicalFromHash(&written, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    _Static_assert(sizeof written == MODEL_FINGERPRINT_BYTES, "a fingerprint is one 128-bit hash");
    memcpy(out, &written, sizeof written);
    return true;
}
