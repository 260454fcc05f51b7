#include "supervisor_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster_file.h"

enum { TAIL_BYTES = 4096 };

static bool log_path(const char *data, const char *name, const char *suffix, char out[CLUSTER_PATH_BYTES],
                     struct status *st)
{
    char file[LIMIT_NAME_BYTES + 16];

    snprintf(file, sizeof file, "log/%s.log%s", name, suffix);
    return cluster_path(data, file, out, st);
}

bool supervisor_log_open(const char *data, const char *name, int *fd_p, struct status *st)
{
    char path[CLUSTER_PATH_BYTES];
    int fd;

    if (!log_path(data, name, "", path, st))
        return false;
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return status_fail(st, status_code_of_errno(errno), "open %s: %m", path);
    *fd_p = fd;
    return true;
}

static bool copy_all(int from, int to, off_t bytes)
{
    off_t at = 0;

    while (at < bytes)
        if (sendfile(to, from, &at, (size_t)(bytes - at)) <= 0)
            return false;
    return true;
}

void supervisor_log_rotate(const char *data, const char *name, size_t limit_bytes)
{
    char path[CLUSTER_PATH_BYTES], old_path[CLUSTER_PATH_BYTES];
    struct stat info;
    int fd, old;

    if (!log_path(data, name, "", path, NULL) || !log_path(data, name, ".1", old_path, NULL) ||
        stat(path, &info) != 0 || info.st_size <= (off_t)limit_bytes)
        return;
    fd = open(path, O_RDWR | O_CLOEXEC);
    old = open(old_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    /* Emptied even when the copy failed (a full disk): the bound matters more than the lines. */
    if (fd >= 0 && old >= 0)
        copy_all(fd, old, info.st_size);
    if (fd >= 0 && ftruncate(fd, 0) != 0)
        unlink(path);
    if (fd >= 0)
        close(fd);
    if (old >= 0)
        close(old);
}

void supervisor_log_last_line(const char *data, const char *name, char *out, size_t out_bytes)
{
    char path[CLUSTER_PATH_BYTES], tail[TAIL_BYTES + 1];
    const char *line;
    ssize_t len;
    off_t size;
    int fd;

    out[0] = '\0';
    fd = log_path(data, name, "", path, NULL) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    size = lseek(fd, 0, SEEK_END);
    len = pread(fd, tail, TAIL_BYTES, size > TAIL_BYTES ? size - TAIL_BYTES : 0);
    close(fd);
    while (len > 0 && (tail[len - 1] == '\n' || tail[len - 1] == ' '))
        len--;
    if (len <= 0)
        return;
    tail[len] = '\0';
    line = strrchr(tail, '\n');
    snprintf(out, out_bytes, "%s", line != NULL ? line + 1 : tail);
}
