/* segment_replaced.h - at start: files that others were made from (segment_age.h), where the store was killed before they were
 * removed. The one that was made counts.
 *
 * Of files that begin with the same number, but for those that failed (stream_rewrite.c), each says in its superblock which one it was made from: N from O, M from N. What
 * was made last says that the others do not count, and says it only while it is there: so the oldest goes first, and a file
 * stays as long as one that it was made from does.
 *
 * Thread: blocks; at start, one for each stream. Bounds: reads the superblocks of files with the same first number, when there
 * are several in a folder. */
#ifndef REELKV_KVSTORE_SEGMENT_REPLACED_H
#define REELKV_KVSTORE_SEGMENT_REPLACED_H

#include "kvstore/stream.h"

enum segment_verdict {
    SEGMENT_COUNTS,  /* nothing was made from it */
    SEGMENT_REMOVED, /* it was replaced, and is gone */
    SEGMENT_LEFT,    /* it was replaced, and could not be removed */
    SEGMENT_UNKNOWN, /* a file that may have been made from it cannot be read now */
};

/* One of the files of an epoch's folder that begin with the same number. */
struct segment_twin {
    const char *name; /* in the folder */
    struct kv_file_name file;
    /* answered */
    enum segment_verdict verdict;
    uint64_t replaces;    /* a salt; 0: nothing, or its superblock is damaged */
    int64_t created_ns;   /* 0: not known, or it counts for nothing */
    struct status unread; /* why its superblock cannot be read now; OK: it can */
};

/* All of them; puts what was made from others behind these, gives the verdicts, and removes what was replaced. When one cannot
 * be read nothing is removed. False: memory or descriptors are short (EXHAUSTED). */
bool segment_judge_twins(const struct stream *stream, const char *folder, struct segment_twin *twins,
                         uint32_t count, struct status *st);

/* Whether another was begun after it failed, before a number of it was durable: what it has is there. */
bool segment_was_written_again(const struct segment_twin *twins, uint32_t count,
                               const struct segment_twin *twin);

/* The one that counts in its place; NULL: none. */
const struct segment_twin *segment_heir(const struct segment_twin *twins, uint32_t count,
                                        const struct segment_twin *twin);

#endif
