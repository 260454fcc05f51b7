/* render.h - pictures of a world, as YUV 4:2:0 (BT.601, limited range), 640x360.
 *
 * Owner: the caller. Thread: one at a time. Fails only when memory is out. */
#ifndef TRUTHCAM_RENDER_H
#define TRUTHCAM_RENDER_H

#include "base/status.h"
#include "world.h"

struct renderer;

struct picture {
    uint8_t *plane[3]; /* Y [360][stride 0], U and V [180][stride] */
    int stride[3];
};

bool renderer_create(struct renderer **renderer_p, const struct world *world, struct status *st);
void renderer_destroy(struct renderer *renderer); /* NULL is fine */

/* Paints video frame `frame`; frames may be asked for in any order. */
void render_frame(struct renderer *renderer, uint32_t frame, struct picture *picture);

#endif
