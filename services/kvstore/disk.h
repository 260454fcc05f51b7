/* disk.h - the calls the store makes on its segment files, as a table, so that a test can make each of them
 * fail; and the loops around them that every caller needs.
 *
 * Thread: any, but never the loop's: they block.
 * Fails:  as the system call; the sentence names the deed and the caller adds the file. ENOSPC is EXHAUSTED. A file
 *         that the disk does not open or read now is UNAVAILABLE: it says nothing of what is in it. A read beyond the
 *         end of the file is DATA_LOSS. */
#ifndef REELKV_KVSTORE_DISK_H
#define REELKV_KVSTORE_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/status.h"

/* As the system calls of the same name; -1 and errno on failure. */
struct disk_ops {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*pwritev)(int fd, const struct iovec *pieces, int count, off_t offset);
    ssize_t (*pread)(int fd, void *to, size_t len, off_t offset);
    int (*fallocate)(int fd, int mode, off_t offset, off_t len);
    int (*ftruncate)(int fd, off_t len);
    int (*fdatasync)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
};
extern const struct disk_ops disk_real;

/* Past the page cache where the file system can: then buffers, lengths and offsets are multiples of 4 KiB, which
 * all of the store's are. -1: *st says why. */
int disk_open(const struct disk_ops *ops, const char *path, int flags, struct status *st);

/* All of it. `pieces` is used up. */
bool disk_write(const struct disk_ops *ops, int fd, struct iovec *pieces, int count, uint64_t offset,
                struct status *st);
bool disk_read(const struct disk_ops *ops, int fd, void *to, uint64_t len, uint64_t offset,
               struct status *st);

/* Reserves the blocks; a file system that cannot is let pass (the budget counts them all the same). */
bool disk_reserve(const struct disk_ops *ops, int fd, uint64_t bytes, struct status *st);

/* The file's length. */
bool disk_length(int fd, uint64_t *bytes_p, struct status *st);

/* What the file takes on the disk, by its own count of blocks. */
bool disk_taken(int fd, uint64_t *bytes_p, struct status *st);

/* 4 KiB aligned memory, zeroed; free(). NULL: out of memory. */
void *disk_buffer(uint64_t bytes);

#endif
