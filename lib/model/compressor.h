/* compressor.h - what happens to a frame's tokens before the decoder sees them. A table, as the selectors
 * are.
 *
 * Thread: any; a compressor keeps no state of its own. The name is part of the model's fingerprint. */
#ifndef REELKV_MODEL_COMPRESSOR_H
#define REELKV_MODEL_COMPRESSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct compressor {
    const char *name;
    /* Keeps some of a frame's embeddings f32 [tokens, hidden], in place; *tokens_p is how many are left. */
    bool (*frame)(float *embeddings, uint32_t *tokens_p, uint32_t hidden, struct status *st);
};

/* NULL name reads as "none"; NULL and NOT_FOUND with the known names when there is no such compressor. */
const struct compressor *compressor_find(const char *name, struct status *st);

#endif
