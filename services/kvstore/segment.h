/* segment.h - one file of records: written by one stream, sealed when full, read for ever after.
 *
 *   CREATING --made--> OPEN --full or closed--> SEALING --> SEALED --budget--> gone
 *       |                |                         |
 *       +-- no room: tried again           write or sync failed: FAILED
 *
 * One job at a time runs for a segment on the store's writing threads: make the file, write records, sync, seal.
 * A failed write or sync ends the file for good (never is a sync tried twice: the kernel may have thrown the pages
 * away): it keeps what was durable, and the stream writes the rest again, from RAM, to a new segment.
 *
 * Owner:  its stream; freed by the store once it has gone.
 * Thread: loop; jobs see only what they are given, and the index, which is fixed while they run.
 * Bounds: capacity; SEGMENT_WRITE_RECORDS a write. */
#ifndef REELKV_KVSTORE_SEGMENT_H
#define REELKV_KVSTORE_SEGMENT_H

#include <limits.h>

#include "kv/kv_footer.h"
#include "kv/disk.h"
#include "kvstore/index.h"
#include "loop/work_pool.h"

enum {
    SEGMENT_WRITE_RECORDS = 32,
    SEGMENT_SYNC_BYTES = 16 << 20, /* written and not yet synced: sync now, whatever the interval */
    SEGMENT_MARKS_MAX = 1 << 16,   /* gaps and events of one segment */
};

enum segment_state {
    SEGMENT_CREATING,
    SEGMENT_OPEN,
    SEGMENT_SEALING,
    SEGMENT_SEALED,
    SEGMENT_FAILED, /* or given up, or scanned at start: as sealed, but without a footer */
};

struct stream;

/* What is no frame: gaps, events, tombstones, damage. */
struct segment_mark {
    enum kv_record_type type;
    uint16_t event;
    bool is_damaged;
    uint64_t seq, end_seq;
    int64_t pts_ns, end_pts_ns;
    uint64_t end_token_index; /* a tombstone's: behind its last token */
    char *note;               /* NULL: none */
};

/* A record on its way to the disk. */
struct segment_record {
    struct segment_record *next;
    uint64_t queued_ns;    /* monotonic */
    struct ram_slot *slot; /* referenced and pinned; or */
    void *buffer;          /* a block of its own */
    uint64_t buffer_bytes;
    struct kv_entry entry;
};

struct segment_queue {
    struct segment_record *first, *last;
    uint32_t count, notes; /* records; of these, gaps and events */
};

struct segment_writer; /* what only an unsealed segment has */

/* Its file as it stays open for the ring (segment_fetch.c). */
struct segment_file {
    int fd;
    bool is_open;
    uint32_t reads;              /* of the ring, in flight */
    struct segment *next, *prev; /* in the order of reading */
};

struct segment {
    struct stream *stream;
    enum segment_state state;
    struct kv_super super;
    char *base;               /* path without .open or .seg */
    uint64_t capacity;        /* the file's length while it is open */
    uint64_t disk_bytes;      /* counted in the budget */
    uint64_t end_seq;         /* of the last record added */
    uint64_t durable_end_seq; /* records below it (of this segment) are on the disk */
    uint64_t end_token_index;
    int64_t end_pts_ns;
    int64_t least_ns,
        greatest_ns; /* times of its frames and marks, at most so far apart; least > greatest: it has none */
    uint64_t init_offset; /* of its INIT record; 0: none */
    uint32_t init_bytes;
    struct index_part index;
    struct segment_mark *marks;
    uint32_t mark_count, mark_room;
    uint64_t quarantined_frames; /* of the index, found damaged by readers */
    /* Its file failed: of frames that were written again elsewhere it may have bytes behind its end, until the next start
     * cuts them. How many, and when they were seen. */
    uint64_t left_frames;
    int64_t left_from_ns, left_to_ns;
    bool is_unsynced; /* a start found records in it that were not synced for sure, and could not sync them */
    uint32_t reads;   /* in flight: the file must stay */
    bool is_leaving;  /* chosen to go; no new reads */
    bool
        has_rival; /* a file that could stand for it is there too: it is not rewritten, nor removed (stream_rival.h) */
    struct segment_blank *blank; /* its chunks are (keys_later.h); NULL: they are not */
    uint64_t age_not_before_ns;  /* could not be rewritten: tried again then */
    uint32_t age_failures;       /* so often, by the disk */
    uint64_t unread_since_ns;    /* since then something of its file is not read; 0: all is */
    struct segment_writer *writer;
    struct segment_file file;
    struct segment *newer, *older; /* sealed ones, in the order of when they were begun */
};

/* The bytes a segment needs for one block of this size besides its INIT. */
uint64_t segment_bytes_min(const struct kv_geometry *geometry, uint64_t record_bytes, uint64_t init_bytes);

/* Makes the struct; its file is made by the first pump that finds room. NULL: no memory. */
struct segment *segment_create(struct stream *stream, const struct kv_super *super, uint64_t capacity);

/* For a file that is there already: only read. False: no memory. */
bool segment_drop_writer(struct segment *segment, const char *base);

/* Counts in the disk's budget what its file takes at most, if that has not been done. False: no room now. */
bool segment_take_room(struct segment *segment);

/* Lets go of the index and the memory; nothing may be running. */
void segment_destroy(struct segment *segment);

/* Whether a record (and the footer afterwards) still fits. */
bool segment_has_room(const struct segment *segment, const struct kv_layout *layout, uint32_t note_bytes,
                      bool is_frame);

/* Adds a record: writes its header into the image, queues it, and indexes a frame. `image` is record's, in `slot`
 * (a reference is taken, and a pin) or in `buffer` (taken). A frame's is returned in *frame_p. EXHAUSTED: no
 * memory; then nothing happened and the buffer is the caller's. */
struct segment_append {
    struct kv_record *record;
    struct ram_slot *slot;
    void *buffer;
};
bool segment_append(struct segment *segment, const struct segment_append *append,
                    struct index_frame **frame_p, struct status *st);
/* A frame that is another segment's may have left bytes in this one's file. */
void segment_leave_bytes(struct segment *segment, int64_t pts_ns);

/* Lengthens the last record by this gap, when it is one that ends where this begins, has the same note, and is not being
 * written yet. False: it is not. */
bool segment_extend_gap(struct segment *segment, const struct kv_record *gap, const char *note,
                        size_t note_bytes);

/* Starts the next job, if one is due and none runs. */
void segment_pump(struct segment *segment);

/* Syncs what has been added so far as soon as it is written. */
void segment_commit(struct segment *segment);

/* No more records: write, sync, seal. */
void segment_close(struct segment *segment);

bool segment_is_busy(const struct segment *segment); /* a job runs or a read is in flight */
bool segment_is_open(const struct segment *segment); /* takes records */
bool segment_is_creating(const struct segment *segment);
bool segment_is_durable(const struct segment *segment);         /* nothing is on its way */
uint64_t segment_waits_since_ns(const struct segment *segment); /* of what is, the oldest; 0: nothing */
uint32_t segment_waiting_notes(const struct segment *segment);  /* gaps and events that are not durable */

/* Gives up what is not on the disk, for a stream that is being deleted. */
void segment_abandon(struct segment *segment);

/* Takes the records that are not durable off a failed segment; the caller appends them elsewhere. */
struct segment_record *segment_take_undurable(struct segment *segment);

/* All of them again, when they could not be appended there. */
void segment_put_back(struct segment *segment, struct segment_record *record);
/* Of a segment that took over records and goes before anything of it was written: their images are again as they were in
 * the file of `super`, and the buffers belong to the records there. */
void segment_give_back(struct segment *segment, const struct kv_super *super);

/* Frees a record, with its reference, pin and buffer. */
void segment_record_free(struct ram_arena *arena, struct segment_record *record);

/* Marks count in the index's memory, as much as segment_mark_bytes() says. False: no memory. */
bool segment_add_mark(struct segment *segment, const struct kv_entry *entry, const char *note);
void segment_drop_marks(struct segment *segment, uint32_t keep); /* all but the first ones */
/* A frame or mark of these times was added; or some were taken away: all are looked at. */
void segment_saw(struct segment *segment, int64_t from_ns, int64_t to_ns);
void segment_find_times(struct segment *segment);
uint64_t segment_mark_bytes(size_t note_bytes);

/* What stands next in the order of numbers: a frame or, with *frame_p NULL, a mark. False: nothing more. Starts zeroed. */
struct segment_cursor {
    uint64_t frame;
    uint32_t mark;
};
bool segment_next(const struct segment *segment, struct segment_cursor *cursor,
                  const struct index_frame **frame_p, const struct segment_mark **mark_p);

/* Numbers that were never stored, that were and cannot be read, and that were removed from between others. */
struct segment_counts {
    uint64_t gap_frames, damaged_frames, evicted_frames;
};
struct segment_counts segment_count_marks(const struct segment *segment);

#endif
