/* feed.h - one stream on its way through the analyzer: one Ingest.Push call, one window, one Append call.
 *
 *   HELLO --Hello--> SHARING --> OPENING --> LOADING --> RESTORING --> RUNNING --End or half-close--> ENDING --> over
 *            shared memory   OpenStream  LoadWindow   engine         frames: queue -> engine -> store
 *                            (epoch)     (the store's newest blocks fill the window)
 *
 * Any trouble (store gone, a higher epoch, a frame out of order, the encoder gone) ends the feed with a status.
 * Nothing is lost by that: the encoder keeps every frame until it is durable, calls again, and goes on where the
 * store says; the window is filled from the store, so that the blocks are the same bytes as without the break.
 *
 * Owner:  itself, from feed_open() until its call is over and the engine let go of it.
 * Thread: the loop's.
 * Bounds: `credits` frames queued; the window's n_local tokens, and while it is being loaded its blocks beside it, of at
 *         most 2 * (n_local + 2 * LIMIT_FRAME_TOKENS) tokens. */
#ifndef REELKV_ANALYZER_FEED_H
#define REELKV_ANALYZER_FEED_H

#include "analyzer.h"

/* Takes a new Push call. */
void feed_open(struct rpc_call *call, void *analyzer);

/* A block slot came free: whoever has waited longest for one goes on. */
void feeds_slot_freed(struct analyzer *analyzer);

/* Ends every feed with UNAVAILABLE, so that the encoders go elsewhere. */
void feeds_drain(struct analyzer *analyzer);

#endif
