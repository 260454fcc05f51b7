/* preprocess.h - a decoded picture becomes the rows the vision tower's first gemm takes.
 *
 * Resize (resize.h), then per channel float(byte * rescale) - mean, / std in f32, as the processor computes
 * it; then patch by patch, each patch's numbers in the order of the convolution's weights.
 *
 * Owner:  preprocess_init() .. preprocess_deinit(). Thread: one at a time (it keeps the last picture size's
 * table). Fails:  INVALID for a picture without pixels or larger than RESIZE_SIDE_MAX, EXHAUSTED without
 * memory. */
#ifndef REELKV_MODEL_PREPROCESS_H
#define REELKV_MODEL_PREPROCESS_H

#include "model/config.h"
#include "model/resize.h"

struct preprocess {
    float table[3][256]; /* [channel][byte] */
    uint32_t image, patch, grid;
    uint8_t *resized; /* [image, image, 3] */
    struct resize resize;
    struct resize_size from; /* the size `resize` was made for; zero: none yet */
};

bool preprocess_init(struct preprocess *preprocess, const struct model_config *config, struct status *st);
void preprocess_deinit(struct preprocess *preprocess); /* a zeroed one is fine */

/* rgb: [size.height, size.width, 3]; patches: f32 [grid * grid, 3 * patch * patch], columns ordered (channel,
 * y, x). */
bool preprocess_patches(struct preprocess *preprocess, const uint8_t *rgb, struct resize_size size,
                        float *patches, struct status *st);

#endif
