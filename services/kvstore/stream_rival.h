/* stream_rival.h - files that are not to be and may be there at the next start: beside a segment, for the same numbers, what it
 * was made from, or what was made from it, that the disk would not remove; and what has been removed, but not for sure.
 *
 *   left at start (segment_replaced.h) or by a rewriting (segment_age.h) -> unlinked, the one that was added first before
 *   the others, again after 1, 2, 4, ... 64 s -> gone
 *
 * Until then the segment is neither rewritten nor removed to make room (has_rival): at the next start the file would stand for
 * it, with what has been forgotten, thinned or evicted meanwhile. Nor is a receipt given (stream_forget.h). Each attempt that
 * fails is told in the log.
 *
 * Owner:  the stream. Thread: loop, but for stream_rival_add() at start; the unlinking on a writing thread.
 * Fails:  without memory for it, the segment has a rival until the next start, and the stream's receipts wait for that.
 * Bounds: one file at a time for each stream. */
#ifndef REELKV_KVSTORE_STREAM_RIVAL_H
#define REELKV_KVSTORE_STREAM_RIVAL_H

#include "kvstore/stream.h"

/* `base` is its path without .seg or .open; its bytes have been counted. The segment is the stream's. */
void stream_rival_add(struct segment *segment, const char *base, uint64_t disk_bytes);
/* It was unlinked, and its folder could not be synced: a power cut may bring it back. Its bytes stay counted, among unsynced_bytes
 * too. False: no memory; the stream's receipts wait for the next start. */
bool stream_rival_add_unlinked(struct stream *stream, const char *base, uint64_t disk_bytes);
bool stream_has_rivals(const struct stream *stream);
/* Within so many ms one of its files is tried again; 0: only a start can tell what is to become of them. */
uint64_t stream_rival_retry_ms(const struct segment *segment);
/* Once the stream is loaded, or one has been added. */
void stream_rivals_start(struct stream *stream);
bool stream_rivals_are_idle(const struct stream *stream); /* none is being unlinked */
/* With the stream's folder they have gone: their bytes are given back. */
void stream_rivals_gone(struct stream *stream);
void stream_rivals_free(struct stream *stream);

#endif
