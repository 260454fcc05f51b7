/* fsck_internal.h - what the two halves of fsck have of each other: fsck.c finds stores and cameras, fsck_stream.c reads one. */
#ifndef REELKV_CLI_FSCK_INTERNAL_H
#define REELKV_CLI_FSCK_INTERNAL_H

#include <limits.h>

#include "fsck.h"

/* Paths that were given leave room for the names of a store (fsck_path()). */
void fsck_join(char out[PATH_MAX], const char *folder, const char *name);

/* A camera's folder, by its whole path. */
bool fsck_check_stream(struct fsck *fsck, const char *folder, struct status *st);

/* A segment file; of no camera when fsck->stream is NULL. `epoch` is its folder's; 0: not known. */
bool fsck_check_file(struct fsck *fsck, const char *path, const struct kv_file_name *name, uint64_t epoch,
                     struct status *st);

/* Tells of a small file that may be missing, and was read, or not for *why. */
void fsck_check_optional(struct fsck *fsck, const char *folder, const char *name, bool is_read,
                         const struct status *why);

#endif
