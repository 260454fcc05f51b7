#include "model/preprocess.h"

#include <stdlib.h>
#include <string.h>

bool preprocess_init(struct preprocess *preprocess, const struct model_config *config, struct status *st)
{
    const struct pixel_config *pixel = &config->pixel;

    memset(preprocess, 0, sizeof *preprocess);
    preprocess->image = config->vision.image;
    preprocess->patch = config->vision.patch;
    preprocess->grid = config->vision.grid;
    for (int channel = 0; channel < 3; channel++)
        for (int byte = 0; byte < 256; byte++)
            preprocess->table[channel][byte] =
                ((float)(byte * pixel->rescale) - (float)pixel->mean[channel]) / (float)pixel->std[channel];
    preprocess->resized = malloc((size_t)preprocess->image * preprocess->image * 3);
    return preprocess->resized != NULL ||
           status_fail(st, STATUS_EXHAUSTED, "no memory for a resized picture");
}

void preprocess_deinit(struct preprocess *preprocess)
{
    free(preprocess->resized);
    resize_deinit(&preprocess->resize);
    memset(preprocess, 0, sizeof *preprocess);
}

/* Cameras send the same size again and again: the table of weights is made when it changes. */
static bool make_resize(struct preprocess *preprocess, struct resize_size size, struct status *st)
{
    if (size.height == preprocess->from.height && size.width == preprocess->from.width)
        return true;
    resize_deinit(&preprocess->resize);
    preprocess->from = (struct resize_size){ 0 };
    if (!resize_init(&preprocess->resize, size, (struct resize_size){ preprocess->image, preprocess->image },
                     st))
        return false;
    preprocess->from = size;
    return true;
}

bool preprocess_patches(struct preprocess *preprocess, const uint8_t *rgb, struct resize_size size,
                        float *patches, struct status *st)
{
    uint32_t patch = preprocess->patch, grid = preprocess->grid;

    if (size.height == 0 || size.width == 0)
        return status_fail(st, STATUS_INVALID, "a picture of %ux%u pixels has nothing to see", size.width,
                           size.height);
    if (!make_resize(preprocess, size, st) || !resize_rgb(&preprocess->resize, rgb, preprocess->resized, st))
        return false;
    for (uint32_t at = 0; at < grid * grid; at++)
        for (uint32_t channel = 0; channel < 3; channel++)
            for (uint32_t y = 0; y < patch; y++) {
                const uint8_t *from =
                    preprocess->resized +
                    (((size_t)(at / grid) * patch + y) * preprocess->image + (size_t)(at % grid) * patch) * 3;

                for (uint32_t x = 0; x < patch; x++)
                    *patches++ = preprocess->table[channel][from[x * 3 + channel]];
            }
    return true;
}
