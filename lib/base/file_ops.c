#include "base/file_ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int system_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static int system_list(const char *path, bool (*visit)(const char *name, void *user), void *user)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int error;

    if (dir == NULL)
        return -1;
    do {
        errno = 0;
        entry = readdir(dir);
    } while (entry != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                               visit(entry->d_name, user)));
    error = entry == NULL ? errno : 0;
    closedir(dir);
    errno = error;
    return error == 0 ? 0 : -1;
}

const struct file_ops file_system = {
    .open = system_open,
    .close = close,
    .pread = pread,
    .pwritev = pwritev,
    .lseek = lseek,
    .fallocate = fallocate,
    .ftruncate = ftruncate,
    .fstat = fstat,
    .fsync = fsync,
    .fdatasync = fdatasync,
    .flock = flock,
    .stat = stat,
    .lstat = lstat,
    .mkdir = mkdir,
    .rmdir = rmdir,
    .rename = rename,
    .unlink = unlink,
    .list = system_list,
};
