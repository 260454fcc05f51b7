/* stream_hold.h - ranges of time that somebody wants kept: what overlaps one is neither removed for room, nor aged, nor
 * forgotten, and its stream is not deleted. They are in <stream>/holds.json (kv/hold_list.h).
 *
 * A hold ends by UTC as the store believes it (store_ageing.h): a clock that steps ahead ends none early.
 *
 * Owner:  the stream. Thread: loop.
 * Fails:  EXHAUSTED at STREAM_HOLDS_MAX; UNAVAILABLE while another change is being written, and while a file that may take the
 *         place of what is to be held cannot be removed (stream_rival.h); else as the disk says.
 * Bounds: STREAM_HOLDS_MAX a stream. */
#ifndef REELKV_KVSTORE_STREAM_HOLD_H
#define REELKV_KVSTORE_STREAM_HOLD_H

#include "kv/hold_list.h"
#include "kvstore/stream.h"

struct hold_change;

struct stream_holds {
    struct hold_list all;
    bool is_changing;
    struct hold_change *settling; /* durable; an ageing gives a file its name meanwhile */
};

/* Number and time of creation are filled. It holds from now on, until it is refused, if it is; done is called when it is
 * durable and nothing that was begun before takes anything of it, or when it is out of the file again. ABORTED while something of the range is being forgotten. */
bool stream_hold_add(struct stream *stream, struct stream_hold *hold, stream_done_fn *done, void *user,
                     struct status *st);
/* NOT_FOUND without one of this number. It holds until done is called. */
bool stream_hold_release(struct stream *stream, uint64_t number, stream_done_fn *done, void *user,
                         struct status *st);

/* The first that counts now and overlaps [from, to); NULL: none. */
const struct stream_hold *stream_held(const struct stream *stream, int64_t from_ns, int64_t to_ns);
/* An ageing that nothing stops any more is over (segment_age.h): a hold that waited for that is told. */
void stream_hold_settle(struct stream *stream);
/* Of what a segment has: frames, gaps, the end. */
const struct stream_hold *segment_held(const struct segment *segment);

/* The n-th that counts now; NULL: there are no more. */
const struct stream_hold *stream_hold_at(const struct stream *stream, uint32_t n);

/* At start, before the stream is the store's; a missing file is none. */
bool stream_holds_load(struct stream *stream, struct status *st);

#endif
