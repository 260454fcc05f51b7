/* kvstore_directory.h - this store in the directory: where it is, and which streams it owns.
 *
 * Owner: the server. Thread: the loop's. Redis may be away: nothing here fails then. */
#ifndef REELKV_KVSTORE_KVSTORE_DIRECTORY_H
#define REELKV_KVSTORE_KVSTORE_DIRECTORY_H

#include "kvstore/kvstore.h"

struct kvstore_directory;

bool kvstore_directory_create(struct kvstore_directory **directory_p, struct kvstore *kvstore,
                              struct status *st);
void kvstore_directory_destroy(struct kvstore_directory *directory); /* NULL is fine */

/* A stream was made, or its phase may have changed. NULL directory: nothing. */
void kvstore_directory_changed(struct kvstore_directory *directory, const struct stream *stream);
void kvstore_directory_removed(struct kvstore_directory *directory, const char *ns, const char *name);

/* Others stop choosing this store. */
void kvstore_directory_leave(struct kvstore_directory *directory);

#endif
