/* disk.h - the loops around calls on segment files that every caller needs.
 *
 * Thread: any, but never the loop's: they block.
 * Fails:  as the system call; the sentence names the deed and the caller adds the file. ENOSPC is EXHAUSTED. A file
 *         that the disk does not open or read now is UNAVAILABLE: it says nothing of what is in it. A read beyond the
 *         end of the file is DATA_LOSS. */
#ifndef REELKV_KV_DISK_H
#define REELKV_KV_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file_ops.h"
#include "base/status.h"

/* Past the page cache where the file system can: then buffers, lengths and offsets are multiples of 4 KiB, which
 * all of the store's are. -1: *st says why. */
int disk_open(const struct file_ops *ops, const char *path, int flags, struct status *st);

/* All of it. `pieces` is used up. */
bool disk_write(const struct file_ops *ops, int fd, struct iovec *pieces, int count, uint64_t offset,
                struct status *st);
bool disk_read(const struct file_ops *ops, int fd, void *to, uint64_t len, uint64_t offset,
               struct status *st);

/* Reserves the blocks; a file system that cannot is let pass (the budget counts them all the same). */
bool disk_reserve(const struct file_ops *ops, int fd, uint64_t bytes, struct status *st);

/* The file's length. */
bool disk_length(const struct file_ops *ops, int fd, uint64_t *bytes_p, struct status *st);

/* Where what was written of the file goes on: `at`, or the page behind a hole, or the file's end. */
uint64_t disk_skip_hole(const struct file_ops *ops, int fd, uint64_t at, uint64_t file_bytes);

/* What the file takes on the disk, by its own count of blocks. */
bool disk_taken(const struct file_ops *ops, int fd, uint64_t *bytes_p, struct status *st);

/* 4 KiB aligned memory, zeroed; free(). NULL: out of memory. */
void *disk_buffer(uint64_t bytes);
/* Zeroes it first: what was in it may have been forgotten meanwhile, or will be. NULL is fine. */
void disk_buffer_free(void *buffer, uint64_t bytes);

#endif
