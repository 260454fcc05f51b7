/* video.h - small videos made when a test runs, by the ffmpeg program, whose frames know their number.
 *
 * A numbered frame shows its number as VIDEO_BITS upright stripes, black for 0 and white for 1, the lowest
 * bit left; that survives H.264. So a test can tell which frame it got, whatever the reader claims. */
#ifndef REELKV_TEST_VIDEO_H
#define REELKV_TEST_VIDEO_H

#include <stdint.h>

enum { VIDEO_BITS = 12, VIDEO_PATH_BYTES = 400 };

struct video_numbered {
    const char *name;      /* file in test_folder() */
    const char *rate;      /* "30", "30000/1001", "25" */
    uint32_t first, count; /* numbers first, first + 1, ... */
    uint32_t width, height;
    const char *more; /* output options of ffmpeg, separated by spaces; "" for none */
};

/* Makes the file and returns its path (static storage, until the next call). Fails the test when ffmpeg does.
 */
const char *video_make_numbered(const struct video_numbered *video);

/* Runs ffmpeg with these arguments, separated by spaces; "%" stands for test_folder(). Fails the test. */
void video_ffmpeg(const char *arguments);

/* The number a decoded RGB picture shows. */
uint32_t video_number(const uint8_t *rgb, uint32_t width, uint32_t height);

/* Frames that the ffprobe program decodes; up to `limit` of their times in seconds go to `times`. */
uint32_t video_probe(const char *path, double *times, uint32_t limit);

#endif
