/* view.h - what a question sees: the blocks of some streams in a range of time, fixed when it is made, the same for
 * all layers; and the scoring of it on a computing thread.
 *
 * Owner:  reference counted; holds the index's chunks, not the blocks' bytes: a block that is removed meanwhile
 *         answers EVICTED, as do those of a segment that was on its way out already.
 * Thread: loop; view_score's run on a computing thread, one of a view at a time.
 * Fails:  NOT_FOUND for a stream that is not here; PRECONDITION for blocks of another fingerprint or shape.
 * Bounds: LIMIT_STREAMS_PER_QUESTION streams; 40 bytes for 16 frames, 132 more while a layer is scored by sketches. */
#ifndef REELKV_KVSTORE_VIEW_H
#define REELKV_KVSTORE_VIEW_H

#include "kv/kv_select.h"
#include "kvstore/store.h"

struct view_stream_name {
    const char *ns, *name;
};

struct view_request {
    const struct view_stream_name *streams;
    uint32_t stream_count;
    uint8_t fingerprint[KV_FINGERPRINT_BYTES];
    int64_t from_ns, to_ns; /* to_ns 0: no end */
    int64_t as_of_ns;       /* 0: all */
    bool only_readable; /* without frames of which only keys and thumbnails are left: they count as evicted */
};

struct view_entry {
    struct index_chunk *chunk;
    const uint8_t *keys;   /* the chunk's; NULL: it went before they were read */
    const uint8_t *sketch; /* of its keys; NULL: there is none yet */
    int64_t newest_ns;     /* none of its frames is newer */
    uint32_t stream;
    uint32_t mask; /* of the chunk's frames */
};

struct view_span {
    uint32_t first, end; /* entries of one stream */
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
};

struct view {
    struct store *store;
    uint32_t refs;
    bool has_shape; /* some stream has blocks */
    bool only_readable;
    struct kv_geometry geometry;
    struct view_entry *entries;
    uint32_t entry_count;
    uint32_t unsketched; /* entries without a sketch */
    uint64_t
        sketches_seen;  /* how many the store had made when they were looked for, and one more; 0: never */
    uint32_t keys_seen; /* entries whose keys are there, or have gone with their segment */
    uint32_t stream_count;
    struct view_span spans[LIMIT_STREAMS_PER_QUESTION];
    uint64_t frames, evicted_frames, gap_frames, damaged_frames;
    int64_t first_pts_ns, last_pts_ns;
};

bool view_create(struct view **view_p, struct store *store, const struct view_request *request,
                 struct status *st);
void view_ref(struct view *view);
void view_unref(struct view *view); /* NULL is fine */

/* The frame, if it is in view. NULL: *absence_p says why not. */
struct index_frame *view_find(const struct view *view, uint32_t stream, uint64_t seq,
                              enum stream_absence *absence_p);

/* Scores one layer and chooses. hits->tag is the struct index_frame. */
struct view_score {
    struct view *view;
    struct kv_selection selection;
    uint32_t layer;
    float *query; /* [kv_heads, head_dim]; NULL: the selection needs none */
    void (*done)(struct view_score *score);
    /* found */
    bool ok;
    struct status st;
    struct kv_select *select; /* the hits are its */
    const struct kv_hit *hits;
    uint32_t hit_count;
    struct work work;
    struct keys_waiter keys; /* while keys are read that it needs */
};

/* False: the threads' queue is full; try again later. A view without blocks gives no hits. Fails with UNAVAILABLE when keys
 * that a start left on the disk cannot be read now. */
bool view_score_start(struct view_score *score);
void view_score_deinit(struct view_score *score); /* after done(), or when it was not started */

#endif
