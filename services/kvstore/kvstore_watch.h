/* kvstore_watch.h - streams whose state callers follow: Catalog.WatchStream.
 *
 * One timer looks at all watched streams and tells what has changed; a reader that is slow misses states in between,
 * never the last.
 *
 * Owner:  the server; destroyed when no call is left. Thread: the loop's.
 * Bounds: WATCHES_MAX calls; each keeps the message it was told last. */
#ifndef REELKV_KVSTORE_KVSTORE_WATCH_H
#define REELKV_KVSTORE_KVSTORE_WATCH_H

#include "kvstore/kvstore.h"

struct kvstore_watches;

bool kvstore_watches_create(struct kvstore_watches **watches_p, struct kvstore *kvstore, struct status *st);
void kvstore_watches_destroy(struct kvstore_watches *watches); /* NULL is fine */

/* The store is stopping: all end with UNAVAILABLE, and those that come late. */
void kvstore_watches_end(struct kvstore_watches *watches, const struct status *why);

#endif
