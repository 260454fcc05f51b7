/* segment_age.h - a sealed segment written anew with less in it, as a file of its own that then takes its place.
 *
 *   submitted -> begins when it is its turn and there is room -> written in steps on the ageing thread and synced -> if nobody
 *             holds it: named, durably -> swapped in -> the old file is unlinked once nobody reads it -> done()
 *
 * Until the swap questions read the old file, after it the new one; frames they hold of the old one are found again there, or
 * answer EVICTED or QUARANTINED. Every part that is read is checked. A record that does not fit, read twice, becomes a
 * tombstone of damaged numbers; so does one that the disk has not read AGE_UNREAD_TIMES, over AGE_UNREAD_MS, while it reads the
 * file's first page (until then the rewriting fails). Such frames are logged, and counted in the store's quarantined_frames. A
 * crash leaves the old file, or the new one, or both; then the new one counts (store_load.c).
 *
 * Owner:  the caller's memory, until done() is called, once.
 * Thread: loop; the writing on the store's ageing thread, which yields to the stream's writers between steps.
 * Fails:  EXHAUSTED when there is no room, ABORTED when the stream or the store goes, else as the disk says. The segment
 *         is then as it was.
 * Bounds: one at a time; a record read and one written in memory, and the new part of the index. */
#ifndef REELKV_KVSTORE_SEGMENT_AGE_H
#define REELKV_KVSTORE_SEGMENT_AGE_H

#include "kvstore/segment.h"

enum { AGE_UNREAD_TIMES = 3, AGE_UNREAD_MS = 60 * 1000 };

struct age_job;
struct store;

struct segment_transform {
    struct kv_aged aged; /* at least this is done, on top of what has been */
    bool forgets;        /* what lies in [from, to) and below this number becomes a tombstone */
    int64_t from_ns, to_ns;
    uint64_t below_seq;
};

enum segment_age_step { AGE_WAITING, AGE_WRITING, AGE_NAMING, AGE_LEAVING, AGE_UNLINKING };

struct segment_age {
    /* asked for */
    struct segment *segment; /* sealed, or failed; not leaving. If another is rewriting it: what that makes */
    struct segment_transform transform;
    bool
        makes_room; /* without room old segments go for it, and it waits for half a minute; else it fails at once */
    void (*done)(struct segment_age *age);
    /* answered */
    bool ok;
    struct status st;
    struct segment *made; /* in place of `segment`, which is no more; NULL unless ok */
    uint64_t dropped_frames;
    uint64_t bytes_before, bytes_after; /* of the file */
    /* under way */
    struct store *store;
    struct stream *stream;
    struct segment_age *next;
    struct age_job *job;
    enum segment_age_step step;
    struct work work;
    uint64_t reserved_bytes, reserved_index_bytes;
    uint64_t waits_since_ns; /* for room; 0: it does not */
    bool takes_all;          /* it is larger than planned: as much as the old file is reserved */
    bool is_running, is_cancelled;
};

/* Whether it would change anything, by what the segment says of itself. */
bool segment_age_is_due(const struct segment *segment, const struct kv_aged *aged);

/* The most the new file can take, but for frames whose numbers are not finite. */
uint64_t segment_age_bytes(const struct segment *segment, const struct segment_transform *transform);

/* They go one after the other; those that wait for room are passed by. done() may be called before this returns. */
void segment_age_submit(struct store *store, struct segment_age *age);
bool segment_age_is_idle(const struct store *store);
bool segment_age_is_of(const struct store *store, const struct stream *stream);
/* A file of the stream gets its name: nothing stops it any more. When that is over, stream_hold_settle() is called. */
bool segment_age_is_naming(const struct store *store, const struct stream *stream);
/* A file of the stream that another has taken the place of is still there. */
bool segment_age_is_leaving(const struct store *store, const struct stream *stream);

/* --- inside the core --- */

void segment_age_pump(struct store *store); /* room, or a read has ended */

#endif
