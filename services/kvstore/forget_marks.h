/* forget_marks.h - what of a stream lies in a range that is to be forgotten: its frames are marked in the index, and answer
 * EVICTED from then on; frames, words of marks and left bytes tell which files have something of it.
 *
 * Owner:  nothing is kept. Thread: loop. Fails: never. Bounds: the stream's index, once a call. */
#ifndef REELKV_KVSTORE_FORGET_MARKS_H
#define REELKV_KVSTORE_FORGET_MARKS_H

#include "kv/receipt_list.h"
#include "kvstore/stream.h"

/* `counts`: they, their bytes and the files that have something of the range are added to the receipt. */
void forget_mark_frames(struct stream *stream, struct forget_receipt *receipt, bool counts);
/* None is to go, after all. */
void forget_unmark_frames(struct stream *stream);

/* The frames of the range are marked. */
bool forget_has_something(const struct forget_receipt *receipt, const struct segment *segment);

#endif
