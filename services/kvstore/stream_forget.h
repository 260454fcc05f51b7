/* stream_forget.h - what was seen in a range of time is taken out of everything the store has: RAM, index, files.
 *
 *   the frames answer EVICTED -> they are durable -> intent durable -> files that are open are sealed -> one after the other
 *   each file that has something of the range is written anew without it, and the old one unlinked when nobody reads it
 *   (segment_age.h); so is every other file that one of the stream's has taken the place of -> nobody reads it any more: no
 *   question holds its chunks, no slot without an owner is held -> what is free of the RAM and was used is zeroed
 *   (arena_wipe.h); buffers on the heap are whenever they are freed -> receipt durable -> done()
 *
 * A block that is still arriving then is waited for: it may be written over what stood there. Not zeroed: what calls and the
 * RPC library keep of messages that were sent or received.
 *
 * The receipts are in <stream>/forget.json (kv/receipt_list.h), of which the newest may be the intent: a start carries it on.
 *
 * A file that is written anew has others go for its room (segment_age.h). Where all others are held it goes as a whole, as it
 * would for a writer; where somebody holds another part of it, it waits.
 *
 * What comes after it was asked for stays, whatever its time. An intent is written only when all that it counts is durable:
 * a writer sends again what was not, and it would be stored. One of which the disk does not say whether it has it is written
 * back before anything else is forgotten or held in its range.
 *
 * Owner:  the stream. Thread: loop.
 * Fails:  PRECONDITION for what is held, and while a file of the stream cannot be used (one that was begun waits for the start
 *         that can); ABORTED while another is under way; else as the disk says. A disk that fails is asked again for ever:
 *         the intent stays.
 * Bounds: one at a time for each stream. */
#ifndef REELKV_KVSTORE_STREAM_FORGET_H
#define REELKV_KVSTORE_STREAM_FORGET_H

#include "kv/receipt_list.h"
#include "kvstore/stream.h"

/* done() may be called before this returns; done(user, NULL, why) when it will not be told here how it ends: the stream or the store goes. Else the receipt is the newest
 * of the stream's. */
bool stream_forget(struct stream *stream, int64_t from_ns, int64_t to_ns, stream_done_fn *done, void *user,
                   struct status *st);

/* One that was asked for is not over yet and overlaps [from, to). */
bool stream_is_being_forgotten(const struct stream *stream, int64_t from_ns, int64_t to_ns);

/* What keeps the one under way from going on now; "": nothing, or none is. Valid until the loop turns. */
const char *stream_forget_waits_because(const struct stream *stream);

/* The n-th, the oldest first; NULL: there are no more. */
const struct forget_receipt *stream_receipt_at(const struct stream *stream, uint32_t n);

/* --- inside the core --- */

/* One is under way that takes what comes before this number: nothing that is written goes on over it. */
bool stream_forgets_below(const struct stream *stream, uint64_t seq);

/* At start, before the stream is the store's; a missing file is none. */
bool stream_forget_load(struct stream *stream, struct status *st);
void stream_forget_resume(struct stream *stream); /* once it is loaded: what was under way */
/* Whoever waits is told so. With the store it goes on at the next start, with the stream it ends. */
void stream_forget_leave(struct stream *stream, const struct status *why);
bool stream_forget_is_idle(const struct stream *stream); /* no thread works for it */
void stream_forget_free(struct stream *stream);

#endif
