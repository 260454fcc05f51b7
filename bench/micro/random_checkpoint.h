/* random_checkpoint.h - a checkpoint folder in a published model's shape with random bf16 weights, for measuring. */
#ifndef REELKV_BENCH_RANDOM_CHECKPOINT_H
#define REELKV_BENCH_RANDOM_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct checkpoint_shape {
    const char *name;
    uint32_t hidden, layers, heads, kv_heads, mlp, vocabulary; /* text */
    uint32_t v_hidden, v_layers, v_heads, v_mlp, image, patch; /* vision */
    bool tied;
};

/* Writes config.json, preprocessor_config.json, tokenizer.json (a copy of `tokenizer`) and model.safetensors. */
bool random_checkpoint_write(const char *folder, const struct checkpoint_shape *shape, const char *tokenizer,
                             struct status *st);

#endif
