/* forget_watch.h - says on stderr what keeps a store from going on with what it was asked to forget, as far as that lasts.
 *
 * Owner:  the verb; ends before the cluster's connections do.
 * Thread: looks on a thread of its own, each FORGET_LOOK_MS.
 * Fails:  never: a look that fails says nothing. */
#ifndef REELKV_CLI_FORGET_WATCH_H
#define REELKV_CLI_FORGET_WATCH_H

#include "rpc/sync.h"

enum { FORGET_LOOK_MS = 1000 };

struct forget_watch;

/* Of a camera; the texts stay the caller's, unchanged, until the end. */
struct forget_watch *forget_watch_create(struct rpc_sync *store, const char *ns, const char *name);
void forget_watch_destroy(struct forget_watch *watch); /* NULL is fine */

#endif
