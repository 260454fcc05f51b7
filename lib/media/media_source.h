/* media_source.h - one video, file or live, decoded frame by frame.
 *
 * This folder is the only one that sees FFmpeg. A source is made for hostile input: nothing of it is trusted,
 * every wait has a deadline of our own, and what a person reads about it never holds a password.
 *
 *   open -> next, next, ... (MEDIA_FRAME; media_source_rgb() when that frame is wanted) -> close
 *   a file ends with MEDIA_END; for a live source the end of its data is a loss, MEDIA_FAILED. So is the loss of a remote
 *   file's connection; the picture it tore is not given.
 *
 * Owner:  whoever opened it; the frame is the source's, until the next call.
 * Thread: one at a time; blocks on disk and network, at most the given deadlines.
 * Fails:  NOT_FOUND, DENIED, INVALID (not a video, no picture, no frames), UNIMPLEMENTED (codec, protocol),
 *         UNAVAILABLE (network, loss of a live source), DEADLINE (it went silent), EXHAUSTED (memory): another try may help;
 *         OUT_OF_RANGE (a picture too large), CANCELLED (*stop was set).
 * Bounds: sides of MEDIA_SIDE_MAX, probing of MEDIA_PROBE_BYTES and the open deadline. */
#ifndef REELKV_MEDIA_MEDIA_SOURCE_H
#define REELKV_MEDIA_MEDIA_SOURCE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    MEDIA_SIDE_MAX = 8192,       /* pixels, width and height */
    MEDIA_PROBE_BYTES = 4 << 20, /* read to find out what a source is */
    MEDIA_RGB_SLACK_BYTES = 64,  /* room behind the pixels: the converter stores whole vectors */
    MEDIA_LABEL_BYTES = 256,
};

struct media_options {
    const char *url;                   /* a path, or a URL; borrowed during media_source_open() */
    bool live;                         /* the end of its data is a loss; frames are read as they come */
    uint32_t open_timeout_ms;          /* until the first picture's format is known */
    uint32_t stall_timeout_ms;         /* without a picture */
    const volatile sig_atomic_t *stop; /* may be NULL; when it becomes non-zero, waits end with CANCELLED */
};

struct media_info {
    char codec[32];
    uint32_t width, height;   /* as announced; frames carry their own */
    double average_fps;       /* 0 when the source does not say */
    uint64_t expected_frames; /* of a file, by its header or its length; 0 when unknown */
};

struct media_frame {
    uint64_t index; /* 0, 1, 2, ... in the order of presentation, since media_source_open() */
    bool has_time;
    /* A file's time since its first frame, which never goes back (where the file's own clock does, the
     * average frame distance is used instead). A live source's own clock, as it comes. */
    int64_t media_ns;
    uint32_t width, height;
};

struct media_source;

bool media_source_open(struct media_source **source_p, const struct media_options *options,
                       struct status *st);
void media_source_close(struct media_source *source); /* NULL is fine; waits at most a second for a goodbye */

const struct media_info *media_source_info(const struct media_source *source);

enum media_outcome { MEDIA_FRAME, MEDIA_END, MEDIA_FAILED };

/* The next frame. MEDIA_END comes only after at least one frame. After MEDIA_END or MEDIA_FAILED: close. */
enum media_outcome media_source_next(struct media_source *source, struct media_frame *frame,
                                     struct status *st);

/* After MEDIA_END: "", or the sentence that says what of the file could not be read. */
const char *media_source_trouble(const struct media_source *source);

/* The newest frame as RGB, [height, width, 3] bytes without padding, the same bytes every time. `out` has
 * room for the pixels and MEDIA_RGB_SLACK_BYTES behind them, else OUT_OF_RANGE. */
bool media_source_rgb(struct media_source *source, uint8_t *out, size_t out_bytes, struct status *st);

/* Bytes media_source_rgb() needs for a frame of this size. */
static inline size_t media_rgb_bytes(uint32_t width, uint32_t height)
{
    return (size_t)width * height * 3 + MEDIA_RGB_SLACK_BYTES;
}

#endif
