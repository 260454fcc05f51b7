/* file_ops.h - the calls made on the file system, as a table, so that a test can make each of them fail, and a simulation can
 * be the disk.
 *
 * Thread: any; they block. Fails: as the system call of the same name: -1 and errno. */
#ifndef REELKV_BASE_FILE_OPS_H
#define REELKV_BASE_FILE_OPS_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

struct file_ops {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *to, size_t len, off_t offset);
    ssize_t (*pwritev)(int fd, const struct iovec *pieces, int count, off_t offset);
    off_t (*lseek)(int fd, off_t offset, int whence);
    int (*fallocate)(int fd, int mode, off_t offset, off_t len);
    int (*ftruncate)(int fd, off_t len);
    int (*fstat)(int fd, struct stat *info);
    int (*fsync)(int fd);
    int (*fdatasync)(int fd);
    int (*flock)(int fd, int operation);
    int (*stat)(const char *path, struct stat *info);
    int (*lstat)(const char *path, struct stat *info);
    int (*mkdir)(const char *path, mode_t mode);
    int (*rmdir)(const char *path);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    /* The names in a folder, but for . and .., in any order, until visit says no. */
    int (*list)(const char *path, bool (*visit)(const char *name, void *user), void *user);
};
extern const struct file_ops file_system;

#endif
