/* many_segments.h - a data folder as a store leaves it after weeks: many streams, each with many sealed segments, written
 * with the format's own code (lib/kv).
 *
 * The files are sparse: superblock, footer and the last segment's INIT record are there, the blocks of frames and the
 * (zero) key columns are holes. So a store starts on it as on a real one, and reading a frame of it finds damage.
 *
 * Thread: any. Fails the test (support/test.h). */
#ifndef REELKV_TEST_MANY_SEGMENTS_H
#define REELKV_TEST_MANY_SEGMENTS_H

#include "kv/kv_format.h"

struct many_segments {
    uint32_t streams, segments; /* of each */
    uint32_t frames;            /* of each segment */
    uint32_t tokens;            /* of each frame */
    struct kv_geometry geometry;
    uint8_t fingerprint[KV_FINGERPRINT_BYTES];
};

/* Under `root`. Streams are default/cam-00000 and so on. */
void many_segments_make(const struct many_segments *shape, const char *root);

#endif
