/* segment_age_job.h - what is done on the ageing thread: reads one segment, writes another. For segment_age.c.
 *
 * Thread: the ageing thread between start and the end of a step; then the loop's. The segment read, its index and marks
 *         are fixed meanwhile. */
#ifndef REELKV_KVSTORE_SEGMENT_AGE_JOB_H
#define REELKV_KVSTORE_SEGMENT_AGE_JOB_H

#include "kvstore/segment_age.h"
#include "kvstore/segment_file.h"

enum { AGE_STEP_BYTES = 8 << 20 }; /* read in one step */

struct age_job {
    const struct file_ops *disk;
    const struct segment *from;
    struct segment_transform transform;
    bool takes_unread; /* a record that the disk does not read, of a file that it does read, is damaged */
    struct kv_super super;
    char base[PATH_MAX];
    uint64_t capacity;
    /* made */
    struct segment_list list;
    struct index_part index;
    struct index_memory memory; /* its own: the store's is the loop's */
    uint64_t taken;
    uint64_t dropped_frames;
    uint64_t *lost; /* numbers of frames that are damage now, in order */
    uint32_t lost_count, lost_room;
    bool has_lost_init;
    struct status lost_to; /* why the last of them is */
    bool is_larger;        /* than its capacity */
    bool is_finished;      /* written and synced, under the name of one that is not: a start would drop it */
    bool is_left;          /* a failed one whose file could not be removed */
    bool is_unread;        /* a failed one, by a record that is not read now */
    struct status st;
    /* on the way */
    int fd;
    uint64_t end, read_bytes, unsynced_bytes;
    uint32_t chain;
    struct segment_cursor cursor;
    struct kv_record record;    /* the one at hand */
    struct kv_record tombstone; /* grows; type 0: none */
    struct segment_image in, out;
};

/* What becomes of a frame. */
enum age_fate { AGE_KEPT, AGE_THINNED, AGE_FORGOTTEN };
enum age_fate age_fate_of(const struct segment_transform *transform, const struct index_frame *frame);
struct kv_encoding age_encoding_of(const struct segment_transform *transform,
                                   const struct index_frame *frame);

/* The next AGE_STEP_BYTES; the first one makes the file, the last one finishes it. False: the file has been removed. */
bool age_job_step(struct age_job *job);
/* Gives a finished file its name, durably: from here on a start takes it, and drops the one it was made from. False: it has
 * been removed. */
bool age_job_name(struct age_job *job);
/* Gives up between steps. */
void age_job_cancel(struct age_job *job);
void age_job_free(struct age_job *job, struct ram_arena *arena);

#endif
