/* fsck.h - looks at the folders of stores without a store: each byte of each segment, the small files of each camera by
 * the readers that a start of the store has, and whether every number that was given is accounted for.
 *
 * Owner:  the caller's struct, zeroed but for what it gives.
 * Thread: main thread; blocks on the disk.
 * Fails:  NOT_FOUND for a path with nothing of a store in it, EXISTS when a repair finds a store running on the folder,
 *         CANCELLED. What is wrong in the folders is a finding.
 * Bounds: kv_check.h's memory, the names of one camera's files, and a span for each hole in its numbers. */
#ifndef REELKV_CLI_FSCK_H
#define REELKV_CLI_FSCK_H

#include "kv/kv_check.h"

struct fsck {
    /* given */
    bool is_repairing;     /* cut torn tails: the folder must have no store running */
    bool is_only_counting; /* what is there: files and bytes */
    void (*found)(struct fsck *fsck, const char *path, const struct kv_finding *finding);
    bool (*advance)(struct fsck *fsck); /* bytes have grown; false: stop */
    /* counted */
    uint64_t streams, files, bytes, frames, gap_frames, damaged_frames;
    uint64_t found_count[4];           /* by enum kv_finding_kind */
    uint64_t cut_files, skipped_files; /* torn tails that were cut; being written by a store that runs */
    /* on the way */
    bool is_running;    /* a store has the folder at hand */
    bool found_running; /* or one before it */
    struct fsck_stream *stream;
};

/* A store's folder, one that has several (a cluster's data folder), a camera's, or one segment file. */
bool fsck_path(struct fsck *fsck, const char *path, struct status *st);

#endif
