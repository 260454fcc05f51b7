/* config.h - the numbers of a checkpoint folder: config.json and preprocessor_config.json, with the defaults
 * that transformers gives to what published files leave out.
 *
 * Thread: any. Fails: INVALID naming the field and what is possible; nothing else in the files is believed
 * either: every number has bounds, so that no product of two of them overflows 64 bits. */
#ifndef REELKV_MODEL_CONFIG_H
#define REELKV_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "model/family.h"

struct text_config {
    uint32_t hidden, layers, heads, kv_heads, head_dim, mlp, vocabulary;
    double rope_theta, rms_epsilon;
    bool tied; /* the head is the embedding */
};

struct vision_config {
    uint32_t hidden, layers, heads, mlp, image, patch;
    uint32_t layers_run; /* vision_feature_layer: how many layers the projector's input has gone through */
    uint32_t grid;       /* patches of a side */
    double epsilon;
};

struct pixel_config {
    double rescale, mean[3], std[3];
};

struct model_config {
    const struct model_family *family;
    struct text_config text;
    struct vision_config vision;
    struct pixel_config pixel;
    uint32_t frame_tokens; /* after pooling */
};

bool config_read(struct model_config *config, const char *folder, struct status *st);

#endif
