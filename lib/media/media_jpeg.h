/* media_jpeg.h - the thumbnail kept with a block: the frame within MEDIA_THUMBNAIL_WIDTH x _HEIGHT, as JPEG.
 *
 * The aspect is kept; a smaller frame is not enlarged. Each output pixel is the mean of the pixels it covers.
 * Where the picture does not fit LIMIT_THUMBNAIL_BYTES, its quality is lowered.
 *
 * Owner:  whoever created it; one thread at a time.
 * Fails:  EXHAUSTED (no memory), INTERNAL (the library's own sentence). */
#ifndef REELKV_MEDIA_MEDIA_JPEG_H
#define REELKV_MEDIA_MEDIA_JPEG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/status.h"

enum { MEDIA_THUMBNAIL_WIDTH = 320, MEDIA_THUMBNAIL_HEIGHT = 180 };

struct media_jpeg;

bool media_jpeg_create(struct media_jpeg **jpeg_p, struct status *st);
void media_jpeg_destroy(struct media_jpeg *jpeg); /* NULL is fine */

struct media_picture {
    const uint8_t *rgb; /* [height, width, 3] */
    uint32_t width, height;
};

/* *jpeg_p is valid until the next call. */
bool media_jpeg_thumbnail(struct media_jpeg *jpeg, const struct media_picture *picture, struct bytes *jpeg_p,
                          struct status *st);

#endif
