/* resize.h - Pillow's bicubic resize of 8-bit RGB, bit for bit.
 *
 * The reference preprocesses with Pillow, and a vision tower amplifies what differs; so the same fixed-point
 * arithmetic is used: coefficients in double, normalised, rounded to 22 fractional bits; horizontal pass,
 * clip to 8 bits, vertical pass (Pillow, src/libImaging/Resample.c; docs/model.md).
 *
 * Owner:  resize_init() fills a table for one pair of sizes; resize_deinit() frees it.
 * Thread: a table is read only once made; resize_rgb() takes scratch from the heap per call.
 * Fails:  INVALID for a side of 0 or above RESIZE_SIDE_MAX, EXHAUSTED without memory. */
#ifndef REELKV_MODEL_RESIZE_H
#define REELKV_MODEL_RESIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { RESIZE_SIDE_MAX = 16384 };

/* One axis: output x is sum over k < counts[x] of in[firsts[x] + k] * weights[x * width + k]. */
struct resize_axis {
    uint32_t in, out, width;
    uint32_t *firsts;
    uint32_t *counts;
    int32_t *weights; /* [out, width], 22 fractional bits */
};

struct resize {
    struct resize_axis across, down;
};

struct resize_size {
    uint32_t height, width;
};

bool resize_init(struct resize *resize, struct resize_size from, struct resize_size to, struct status *st);
void resize_deinit(struct resize *resize); /* a zeroed one is fine */

/* rgb: [from.height, from.width, 3], out: [to.height, to.width, 3]; they must not overlap. */
bool resize_rgb(const struct resize *resize, const uint8_t *rgb, uint8_t *out, struct status *st);

#endif
