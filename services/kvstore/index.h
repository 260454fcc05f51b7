/* index.h - which frames a segment has, where they lie, and their representative keys by layer, in memory.
 *
 * Frames stand in chunks of 16 that never move and never change once added (but for where copies of their bytes
 * are in RAM), so that a question scores a snapshot of them on another thread while more are added. Within a
 * chunk keys are layer-major: what scoring reads of a layer is contiguous. Where they are many they stand in large pages,
 * which are touched when keys come, not by a start that leaves them on the disk.
 *
 * A chunk whose segment has gone (removed to keep the budget, or deleted) stays as long as questions hold it, with
 * `segment` NULL: its frames answer `evicted`. One whose segment was rewritten stays likewise, with the new `segment`: its
 * frames are moved, and looked for there.
 *
 * Owner:  a segment owns its part; chunks live while the part or a view holds them.
 * Thread: loop; pool threads read keys, sums and the fixed fields of frames of chunks they hold.
 * Bounds: index_memory.limit_bytes over all parts. */
#ifndef REELKV_KVSTORE_INDEX_H
#define REELKV_KVSTORE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/kv_format.h"
#include "kvstore/ram_arena.h"

enum { INDEX_CHUNK_FRAMES = 16 };

/* What is counted is counted by several threads while the store loads. */
struct index_memory {
    _Atomic uint64_t used_bytes;
    _Atomic uint64_t
        gone_bytes; /* of these, chunks whose segment has gone: free when the last question lets go */
    uint64_t limit_bytes;
    /* sketches.h; loop thread only */
    struct index_chunk *sketched_first, *sketched_last; /* the oldest first */
    uint64_t sketch_bytes;
    uint32_t secret_chunks; /* gone ones with something forgotten, that a question holds; loop thread only */
};

struct index_chunk;
struct large_region;
struct segment;

struct index_frame {
    struct index_chunk *chunk;
    uint64_t seq;
    int64_t pts_ns;
    uint64_t token_index;
    uint64_t offset; /* of the record in the segment's file */
    uint32_t record_bytes;
    uint32_t tokens;
    uint32_t thumbnail_at, thumbnail_bytes; /* in the record */
    uint32_t slices_at;
    struct kv_encoding encoding; /* of its slices on the disk */
    bool has_slices;
    bool is_quarantined; /* loop thread only, as are those below; index_frame_quarantine() sets it */
    bool is_forgotten; /* answers EVICTED; goes with its segment's next file; index_frame_forget() sets it */
    bool is_moved;     /* written again to another segment, whose index has it */
    struct ram_slot *image;   /* the record in RAM; NULL: not there */
    struct ram_slot **slices; /* [layers], K and V of a layer read back from disk; NULL: none yet */
};

struct index_chunk {
    /* what a question looks at in every chunk stands together */
    struct segment *segment; /* NULL: gone */
    uint32_t refs, count;
    uint8_t *keys;                     /* [layers][frame][key_bytes] */
    int64_t first_pts_ns, last_pts_ns; /* of its frames */
    uint8_t *sketch;                   /* [layers][kv_sketch_bytes()], sketches.h; NULL: none */
    /* the loop's: */
    uint32_t sketch_readers; /* questions that hold the sketch */
    bool is_sketch_leaving;  /* with the last of them */
    bool is_sketch_wanted;   /* or cannot be made */
    bool is_blank;           /* its sums and keys are on the disk still (keys_later.h): not to be used */
    bool is_plain;           /* no frame of it was ever quarantined, forgotten, or without slices */
    struct index_memory *memory;
    struct index_chunk *gone_next, **gone_link; /* of a part's gone chunks */
    bool is_secret;                             /* counted in secret_chunks */
    struct kv_geometry geometry;
    uint32_t *sums;              /* [frame][2 * layers], as written */
    struct large_region *region; /* of the keys (base/large.h); NULL: they stand behind the sums */
    struct index_frame frames[INDEX_CHUNK_FRAMES];
};

struct index_part {
    struct index_chunk **chunks;
    uint32_t chunk_count, chunk_room;
    uint64_t frame_count;
    struct index_chunk *gone; /* of what the segment was rewritten from; held by questions alone */
};

uint64_t index_chunk_bytes(const struct kv_geometry *geometry);

/* Bytes the next frame of this part would add: a chunk, or nothing. */
uint64_t index_part_growth(const struct index_part *part, const struct kv_geometry *geometry);

/* Adds a frame (its `chunk`, `image` and `slices` are ignored). The caller fills the keys and sums it points to.
 * NULL: no memory. */
struct index_frame *index_part_add(struct index_part *part, struct segment *segment,
                                   struct index_memory *memory, const struct kv_geometry *geometry,
                                   const struct index_frame *frame);

uint8_t *index_frame_key(const struct index_frame *frame, uint32_t layer);
uint32_t *index_frame_sums(const struct index_frame *frame); /* [2 * layers] */

void index_frame_quarantine(struct index_frame *frame);
void index_frame_forget(struct index_frame *frame);

/* Keys and sums, from the frame's record. */
void index_frame_fill(const struct index_frame *frame, const struct kv_super *super,
                      const struct kv_record *record, const uint8_t *image);

/* The n-th frame of the part. */
struct index_frame *index_part_at(const struct index_part *part, uint64_t n);

/* The place of the first frame whose number is not below this one; frame_count: there is none. */
uint64_t index_part_place(const struct index_part *part, uint64_t seq);

/* The frame with this number, or NULL. Frames are in the order of their numbers. */
struct index_frame *index_part_find(const struct index_part *part, uint64_t seq);

/* Lets go of what RAM has of the frame. */
void index_frame_drop_copies(struct index_frame *frame, struct ram_arena *arena);

/* The last frames, from the count-th on, have moved to another segment (with what they held in RAM); nothing is
 * added to this part any more. */
void index_part_cut(struct index_part *part, uint64_t count);

/* The frames of `old` are those of `part` from now on, as far as they are there; copies of layers in RAM that are the same
 * go over, others go. `part` is of another memory so far. `old` is empty then. */
void index_part_replace(struct index_part *old, struct index_part *part, struct segment *segment,
                        struct index_memory *memory, struct ram_arena *arena);

/* Lets go of all chunks; their `segment` becomes NULL. */
void index_part_drop(struct index_part *part, struct ram_arena *arena);

/* Of a gone chunk, when its frames have been marked as forgotten or are so no more. */
void index_chunk_judge(struct index_chunk *chunk);

void index_chunk_ref(struct index_chunk *chunk);
void index_chunk_unref(struct index_chunk *chunk);

/* A layer read back from the disk, kept in RAM until evicted. False: no memory; the slot is as it was. */
bool index_frame_keep_slice(struct index_frame *frame, uint32_t layer, struct ram_arena *arena,
                            struct ram_slot *slot);
bool index_frame_is_in_ram(const struct index_frame *frame); /* all of it, or such a layer */

#endif
