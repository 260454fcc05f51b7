/* segment_replaced.h - at start: files that others were made from (segment_age.h), where the store was killed before they were
 * removed. The one that was made counts.
 *
 * Thread: blocks; at start, one for each stream. Bounds: reads a superblock of each file of the folder with the same first number,
 * when there are several. */
#ifndef REELKV_KVSTORE_SEGMENT_REPLACED_H
#define REELKV_KVSTORE_SEGMENT_REPLACED_H

#include "base/file.h"
#include "kvstore/stream.h"

/* The n-th of a folder's sorted names. True: another sealed file was made from it, and it has been removed (or
 * its bytes are added to *disk_bytes_p, when it could not be). */
bool segment_drop_replaced(const struct stream *stream, const char *folder, const struct file_names *files,
                           uint32_t n, uint64_t *disk_bytes_p);

#endif
