/* segment_keys.h - what of a sealed file's footer grows with its keys: the checksums of slices and the columns of
 * representative keys, read into the index.
 *
 * Thread: blocks; the index part is nobody else's, or its chunks are blank (index.h).
 * Fails:  DATA_LOSS when a part's checksum does not fit, and for the disk's own failures.
 * Bounds: SEGMENT_KEYS_PIECE_BYTES in memory, whatever the file's size. */
#ifndef REELKV_KVSTORE_SEGMENT_KEYS_H
#define REELKV_KVSTORE_SEGMENT_KEYS_H

#include "kvstore/segment.h"

enum { SEGMENT_KEYS_PIECE_BYTES = 1 << 20 };

/* Of the frames that `part` has, the first ones of the file's; all of it is checked. */
bool segment_keys_read(const struct file_ops *disk, int fd, const struct kv_footer *footer,
                       const struct index_part *part, struct status *st);

/* The same from the records themselves, one after the other: for when the footer's copy is damaged. is_damaged [frame_count]
 * says which records do not fit, or, with takes_unread, are not read; theirs become zero. fd -1: all are. */
bool segment_keys_repair(const struct file_ops *disk, int fd, const struct segment *segment,
                         bool takes_unread, bool *is_damaged, struct status *st);

#endif
