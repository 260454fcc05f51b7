/* stream.h - one camera or file: its definition, its writer's epoch, its segments in order.
 *
 * A block is *stored* when it is in RAM and queued for the disk, *durable* when it, its file and its folder's entry
 * are synced. Only one writer counts: stream_open() gives a new epoch, persists it, and fences the one before; seq
 * and token index go on.
 *
 * Owner:  the store. Thread: loop.
 * Fails:  ABORTED for a fenced writer; PRECONDITION for another fingerprint; INVALID for a block out of order;
 *         EXHAUSTED when RAM or disk have no room now.
 * Bounds: STREAM_NOTES_WAITING; blocks by the arena. */
#ifndef REELKV_KVSTORE_STREAM_H
#define REELKV_KVSTORE_STREAM_H

#include "kv/history.h"
#include "kv/stream_state.h"
#include "kvstore/index.h"
#include "kvstore/segment.h"
#include "loop/loop.h"

#define STREAM_NUMBER_MAX HISTORY_NUMBER_MAX

enum {
    STREAM_FOLDER_BYTES = PATH_MAX - 256,
    STREAM_FILE_BYTES = 80,     /* of a segment's path in the stream's folder */
    STREAM_NOTES_WAITING = 128, /* gaps and ends in memory that are not durable */
};

struct store;
struct stream;

/* Who is told when acks move. The memory is the writer's. */
struct stream_writer {
    void (*moved)(struct stream_writer *writer); /* stored or durable have advanced */
    void (*fenced)(struct stream_writer *writer,
                   const struct status *why); /* another has the stream, or it goes */
};

struct stream {
    struct store *store;
    struct stream *next;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    char folder[STREAM_FOLDER_BYTES]; /* leaves room for the names in it */
    struct stream_definition definition;

    bool has_shape; /* fingerprint and geometry are known: from its blocks, or its writer */
    uint8_t fingerprint[KV_FINGERPRINT_BYTES];
    struct kv_geometry geometry;
    uint64_t epoch;
    char writer_name[STREAM_WRITER_BYTES];
    struct stream_writer *writer; /* attached; NULL: none */

    uint64_t next_seq, next_token_index;
    uint64_t saved_seq;                                 /* next_seq as stream.json had it at start */
    uint64_t stored_frames, gap_frames, damaged_frames; /* held now; what has gone is in history */
    uint64_t evicted_frames;                            /* gone from between those that are held */
    struct history *lost; /* of the damaged ones, those no segment has a mark of; NULL: none */
    char unusable
        [STREAM_FILE_BYTES]; /* in its folder, a file that this start could not use or should have removed: nobody knows
                                what is in it, or it has what is to go; "": there is none */
    int64_t last_pts_ns;
    uint64_t expected_frames;
    bool has_ended;
    char trouble[STREAM_TROUBLE_BYTES];

    struct segment **segments; /* by seq; each is written when those before it are durable */
    uint32_t segment_count, segment_room;
    struct history history;
    struct ram_share share;
    struct kv_record init_record;          /* the last that came of this shape; layers 0: none */
    uint8_t *init_image;                   /* a copy opens each segment; free() */
    bool init_goes;                        /* once all is durable: the stream has ended */
    bool waits_for_room;                   /* a segment of its wants disk */
    char waits_because[STATUS_TEXT_BYTES]; /* why no segment can be made now; "": one can */
    char encoder_says[STATUS_TEXT_BYTES];  /* what keeps its encoder from going on; "": nothing is known */
    bool is_ready;                         /* its definition is durable */
    bool is_importing;                     /* not seen by anybody, and removed at start (stream_import.c) */
    uint64_t import_left_bytes;            /* counted in the disk's budget for what is to come of it */
    bool is_finishing;                     /* being written as whole */
    bool is_left_over;                     /* its removal failed: the next start finds what is there */
    bool is_set_aside;    /* listed, and else as if it were not there (stream_aside.c); trouble says why */
    uint64_t aside_bytes; /* what its folder takes then */
    struct stream_save *saves, **saves_end; /* of stream.json, on their way, in order */
    struct stream_deletion *deletion;       /* NULL: it stays */
    struct stream_holds *holds;             /* NULL: none (stream_hold.h) */
    struct stream_forgets *forgets;         /* NULL: none (stream_forget.h) */
    struct stream_rivals *rivals;           /* NULL: none (stream_rival.h) */
};

/* --- catalog --- */

/* Writes the definition durably, then calls done on the loop. Names have been checked. */
typedef void stream_done_fn(void *user, struct stream *stream, const struct status *failure);
bool stream_define(struct store *store, const char *ns, const char *name,
                   const struct stream_definition *definition, stream_done_fn *done, void *user,
                   struct status *st);

/* Fences the writer, removes every tier's copy; done(user, NULL, ...) when the folder has gone. */
struct stream_removed {
    uint64_t frames, bytes;
};
bool stream_delete(struct stream *stream, struct stream_removed *removed, stream_done_fn *done, void *user,
                   struct status *st);

/* A stream of another store, as it was there: hidden, with epoch 1, for one writer to fill. Numbers begin behind the history.
 * EXHAUSTED when the budgets have no room for all of it: what it takes is reserved until it ends, and no other stream loses
 * anything for it. Where what comes is more than was said, it takes what the budgets have left, and then appends are EXHAUSTED. */
struct stream_import {
    const char *ns, *name;
    const struct stream_definition *definition;
    uint8_t fingerprint[KV_FINGERPRINT_BYTES];
    struct kv_geometry geometry;
    const struct history *history; /* of all numbers before the first; has no others */
    uint64_t frames, bytes;        /* that are to come; bytes: of payloads and thumbnails */
};
bool stream_import(struct store *store, const struct stream_import *import, stream_done_fn *done, void *user,
                   struct status *st);
/* All of it is durable, its end too: when done is called it is a stream as any. Until then it may be deleted. */
bool stream_finish_import(struct stream *stream, stream_done_fn *done, void *user, struct status *st);

/* --- writing --- */

struct stream_open_request {
    uint8_t fingerprint[KV_FINGERPRINT_BYTES];
    struct kv_geometry geometry;
    const char *writer;
    uint64_t expected_frames;
};

/* A new epoch, durable when done is called; the old writer is fenced at once. */
bool stream_open(struct stream *stream, const struct stream_open_request *request, stream_done_fn *done,
                 void *user, struct status *st);

/* ABORTED unless this is the stream's epoch and it has no other writer. */
bool stream_attach(struct stream *stream, uint64_t epoch, struct stream_writer *writer, struct status *st);
/* Seals what was written. */
void stream_detach(struct stream *stream, struct stream_writer *writer);

/* What the writer says of a block. */
struct stream_block {
    bool is_init;
    uint64_t seq;
    int64_t pts_ns;
    uint64_t token_index;
    uint32_t tokens;
    const uint8_t *thumbnail;
    uint32_t thumbnail_bytes;
    uint64_t payload_bytes;
};

/* Whether the block may come now. *is_known_p: the store has it already (sent again after a restart): nothing to
 * do. Fills the record's header. */
bool stream_check_block(const struct stream *stream, const struct stream_block *block, bool *is_known_p,
                        struct kv_record *record, struct status *st);

/* Stores a block whose image and CRCs are complete; the slot's reference stays the caller's. */
bool stream_append(struct stream *stream, struct kv_record *record, struct ram_slot *slot, struct status *st);

struct stream_gap {
    uint64_t from_seq, to_seq;
    int64_t from_pts_ns, to_pts_ns;
    const char *reason;
};
/* Neighbours that wait for the disk with one reason become one. */
bool stream_append_gap(struct stream *stream, const struct stream_gap *gap, struct status *st);
bool stream_end(struct stream *stream, const char *trouble, struct status *st);

/* --- reading --- */

uint64_t stream_durable_seq(const struct stream *stream);
bool stream_is_durable_before(const struct stream *stream, const struct segment *segment);
bool stream_is_durable(const struct stream *stream); /* nothing is on its way to the disk */
uint64_t stream_disk_bytes(const struct stream *stream);
uint64_t stream_frame_count(const struct stream *stream);
struct index_frame *stream_find(const struct stream *stream, uint64_t seq);
struct index_frame *stream_first_frame(const struct stream *stream); /* held; NULL: none */
struct index_frame *stream_last_frame(const struct stream *stream);

/* Why there is no frame of this number. */
enum stream_absence {
    STREAM_ABSENT_NOT_FOUND,
    STREAM_ABSENT_EVICTED,
    STREAM_ABSENT_GAP,
    STREAM_ABSENT_DAMAGED
};
enum stream_absence stream_absence_of(const struct stream *stream, uint64_t seq);

/* --- damage --- */

/* Frames that were stored and cannot be read: marked in segments, lost with a whole file, or found by a reader. */
uint64_t stream_damaged_frames(const struct stream *stream);
/* Of these, without those a reader found, how many lie in [from, to): their times follow from those around them. */
uint64_t stream_damaged_in_range(const struct stream *stream, int64_t from_ns, int64_t to_ns);
/* At start, behind the segments: the numbers below next_seq that nothing of the stream accounts for. EXHAUSTED without
 * memory. */
bool stream_find_lost(struct stream *stream, struct status *st);
/* A reader has found that the frame is not what was written: it is not served again. */
void stream_quarantine(struct segment *segment, struct index_frame *frame);
/* The same of one that was found before the start: it is not counted as found since. */
void stream_quarantine_known(struct segment *segment, struct index_frame *frame);

/* --- inside the core --- */

bool stream_create(struct stream **stream_p, struct store *store, const char *ns, const char *name,
                   struct status *st);
void stream_free(struct stream *stream);
/* Adds it to the store and writes its first stream.json; freed when that fails. */
bool stream_begin(struct stream *stream, stream_done_fn *done, void *user, struct status *st);
/* Takes the folder away so that it does not come back, whatever happens; blocks. */
bool stream_remove_folder(const struct stream *stream, struct status *st);
/* At start, on a reading thread: nobody else knows of the stream. *disk_bytes_p: what all its segment files take, those
 * that cannot be used too. */
bool stream_load(struct stream *stream, uint64_t *disk_bytes_p, struct status *st);
/* At start, when stream_load_file() has failed with *st. *is_there_p false: it was being defined when its store was killed.
 * False: as the disk says. */
bool stream_set_aside(struct stream *stream, bool *is_there_p, struct status *st);
/* A writer's text, as far as it fits and in whole characters; of what is no UTF-8 '?' remains, for readers refuse it.
 * Returns its length; no NUL. */
size_t stream_copy_text(char *out, size_t room, const char *text);
void stream_set_trouble(struct stream *stream, const char *trouble);
/* Until a writer comes, or a frame or gap. */
void stream_set_encoder_says(struct stream *stream, const char *trouble);
void stream_fence_writer(struct stream *stream, const struct status *why);
/* Writes stream.json durably; done may be NULL. Saves of a stream follow each other. */
bool stream_save(struct stream *stream, stream_done_fn *done, void *user, struct status *st);
/* The same with another small file of the folder; the text is taken. */
bool stream_save_text(struct stream *stream, const char *name, char *text, stream_done_fn *done, void *user,
                      struct status *st);
void stream_pump_saves(struct stream *stream); /* starts the next one, if none runs */
bool stream_load_file(struct stream *stream, struct status *st);
/* What such a file says that it is (checked_json.h). */
void stream_file_of(const struct stream *stream, const char *name, char file[CHECKED_JSON_FILE_BYTES]);
void stream_continue_deletion(struct stream *stream);
struct segment *stream_last_segment(const struct stream *stream); /* NULL: none */
uint32_t stream_place_of(const struct stream *stream,
                         const struct segment *segment); /* in its list, which has it */
struct segment *stream_segment_before(const struct stream *stream, const struct segment *segment);
/* A new segment at the end of the list; NULL: no memory. Of two that begin with one number the one that was created later
 * counts. */
struct segment *stream_begin_segment(struct stream *stream, uint64_t epoch, uint64_t first_seq,
                                     uint64_t capacity, int64_t created_ns);
/* The open segment, with room for this record; a full one is closed and a new one begun. NULL with *st. */
struct segment *stream_segment_for(struct stream *stream, const struct kv_record *record, struct status *st);
/* Each segment opens with the INIT record, so that none depends on one that may go before it. The copy stays while any of
 * its records is in memory only, whoever writes by then: it may have to open one more. */
bool stream_append_init_copy(struct stream *stream, struct segment *segment, struct status *st);
uint64_t stream_init_bytes(const struct stream *stream); /* of that record; 0: none */
void stream_drop_init(struct stream *stream); /* the INIT record; none opens a segment from now on */
bool stream_push_segment(struct stream *stream, struct segment *segment);
void stream_pump(struct stream *stream);
void stream_commit(struct stream *stream);
void stream_progress(struct stream *stream); /* something became durable, or a segment is quiet */
/* What was not durable goes to a new segment. False: no memory, and nothing has changed. */
bool stream_segment_failed(struct stream *stream, struct segment *segment);

/* Of one that is being imported: so many bytes of the disk's budget are its own. EXHAUSTED. */
bool stream_import_reserve(struct stream *stream, uint64_t bytes, struct status *st);
bool stream_import_plan_init(struct stream *stream, struct status *st); /* each of its files has the INIT */
bool stream_is_filled(const struct stream *stream);                     /* by an import that has not ended */
void stream_import_release(struct stream *stream);                      /* what it did not need */

/* A file made from a segment stands for it now. */
void stream_replace_segment(struct stream *stream, struct segment *old, struct segment *made);
/* What the history will be when this segment has gone. */
void stream_add_to_history(struct history *history, const struct segment *segment);
/* The file of a sealed segment has gone: out of the index and into the history. The struct is the caller's to free. */
void stream_release_segment(struct stream *stream, struct segment *segment);

#endif
