/* encode.h - H.264 by libx264 through FFmpeg's libraries: into an MP4 file, or live as MPEG-TS at real time.
 *
 * Owner: the caller. Thread: one. Fails with the library's reason. */
#ifndef TRUTHCAM_ENCODE_H
#define TRUTHCAM_ENCODE_H

#include "base/status.h"
#include "render.h"

struct encoder;

/* `target` is a file (its name ends in what the container is: .mp4, .ts) or, with `live`, "-" for MPEG-TS on
 * stdout or a URL such as udp://127.0.0.1:5000. */
bool encoder_open(struct encoder **encoder_p, const char *target, bool live, struct status *st);

/* Borrowed picture to paint the next frame into; valid until encoder_put(). */
bool encoder_picture(struct encoder *encoder, struct picture *picture, struct status *st);
bool encoder_put(struct encoder *encoder, struct status *st); /* live: waits until the frame is due */

bool encoder_finish(struct encoder *encoder, struct status *st); /* writes what is left and the trailer */
void encoder_close(struct encoder *encoder);                     /* NULL is fine */

#endif
