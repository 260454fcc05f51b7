/* vision.h - what turns pictures into embeddings, as the encoder uses it. In the service it is lib/model
 * (vision_of_model()); tests put something cheaper in its place.
 *
 * Thread: the functions run on the batch's thread, one call at a time. */
#ifndef REELKV_ENCODER_VISION_H
#define REELKV_ENCODER_VISION_H

#include "model/model.h"

struct vision {
    uint32_t frame_tokens, hidden;
    uint8_t fingerprint[MODEL_FINGERPRINT_BYTES];
    /* out: f32 [count, frame_tokens, hidden] */
    bool (*encode)(void *arg, const struct model_picture *pictures, uint32_t count, float *out,
                   struct status *st);
    /* Keeps the first *tokens_p of one frame's embeddings f32 [tokens, hidden], in place. */
    bool (*compress)(void *arg, float *embeddings, uint32_t *tokens_p, struct status *st);
    void *arg;
};

/* The model must outlive it. */
struct vision vision_of_model(struct model *model);

#endif
