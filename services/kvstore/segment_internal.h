/* segment_internal.h - what only an unsealed segment has. For segment.c, segment_append.c and segment_write.c. */
#ifndef REELKV_KVSTORE_SEGMENT_INTERNAL_H
#define REELKV_KVSTORE_SEGMENT_INTERNAL_H

#include "kvstore/segment_job.h"

enum segment_job { JOB_NONE, JOB_CREATE, JOB_WRITE, JOB_SYNC, JOB_SEAL };

struct segment_writer {
    struct work work;
    struct segment *segment;
    enum segment_job job; /* running */
    int fd;
    bool has_disk; /* its capacity is counted in the budget */
    bool sync_wanted, close_wanted, is_abandoned;
    uint64_t make_at_ns; /* not before */
    uint64_t end;        /* of the last record added, in the file */
    uint64_t unsynced_bytes;
    uint32_t chain;
    struct kv_entry *entries;
    uint32_t entry_count, entry_room;
    char *notes;
    uint64_t notes_bytes, notes_room;
    struct segment_queue unwritten, writing, written;
    struct iovec pieces[SEGMENT_WRITE_RECORDS];
    struct segment_footer_parts parts;
    /* what the job found */
    bool ok;
    uint64_t taken;
    struct status st;
};

static inline bool segment_record_is_note(const struct segment_record *record)
{
    return record->entry.type == KV_RECORD_GAP || record->entry.type == KV_RECORD_EVENT;
}

static inline void segment_queue_add(struct segment_queue *queue, struct segment_record *record)
{
    record->next = NULL;
    if (queue->last != NULL)
        queue->last->next = record;
    else
        queue->first = record;
    queue->last = record;
    queue->count++;
    queue->notes += segment_record_is_note(record);
}

/* NULL: it is empty. */
static inline struct segment_record *segment_queue_take(struct segment_queue *queue)
{
    struct segment_record *record = queue->first;

    if (record == NULL)
        return NULL;
    queue->first = record->next;
    if (queue->first == NULL)
        queue->last = NULL;
    queue->count--;
    queue->notes -= segment_record_is_note(record);
    return record;
}

void segment_queue_free(struct segment *segment, struct segment_queue *queue); /* and the records */
void segment_writer_free(struct segment *segment); /* no job may run; without one, nothing */

#endif
