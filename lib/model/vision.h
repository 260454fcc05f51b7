/* vision.h - SigLIP's tower, the projector and the pooling: pictures to token embeddings.
 *
 *   patches -> linear + position -> layers x { x += attention(norm(x)); x += mlp(norm(x)) } -> projector ->
 * pool
 *
 * The tower's output is taken after vision_feature_layer without post_layernorm, as LLaVA-OneVision does
 * (transformers, modeling_llava_onevision.py). Frames are row groups and attention items of their own, so a
 * frame's embeddings never depend on the others.
 *
 * Owner:  vision_create() .. vision_destroy(). Thread: one at a time (one scratch memory).
 * Fails:  INVALID for tensors that do not fit and pictures without pixels, EXHAUSTED without memory.
 * Bounds: `frames` at once, memory fixed at creation. */
#ifndef REELKV_MODEL_VISION_H
#define REELKV_MODEL_VISION_H

#include "model/config.h"
#include "model/model.h"
#include "model/weights.h"

struct vision;

bool vision_create(struct vision **vision_p, const struct model_config *config,
                   const struct weights_source *source, uint32_t frames, struct status *st);
void vision_destroy(struct vision *vision); /* NULL is fine */

/* count is at most `frames`; out: f32 [count, frame_tokens, hidden]. */
bool vision_encode(struct vision *vision, const struct model_picture *pictures, uint32_t count, float *out,
                   struct status *st);

#endif
