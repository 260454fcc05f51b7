#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool fail_errno(struct status *st, const char *deed, const char *path)
{
    return status_fail(st, status_code_of_errno(errno), "%s %s: %m", deed, path);
}

static bool read_fully(int fd, const char *path, char *data, size_t len, struct status *st)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, data + done, len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(st, "read", path);
        if (n == 0)
            return status_fail(st, STATUS_DATA_LOSS, "read %s: it became shorter while being read", path);
        done += (size_t)n;
    }
    return true;
}

bool file_read_all(const char *path, size_t limit_bytes, struct file_text *out, struct status *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *data = NULL;
    struct stat info;
    bool ok = false;

    if (fd < 0)
        return fail_errno(st, "open", path);
    if (fstat(fd, &info) < 0) {
        fail_errno(st, "stat", path);
        goto out;
    }
    if (!S_ISREG(info.st_mode)) {
        status_fail(st, STATUS_INVALID, "%s is not a regular file", path);
        goto out;
    }
    if ((uint64_t)info.st_size > limit_bytes) {
        status_fail(st, STATUS_INVALID, "%s has %lld bytes; at most %zu are read", path,
                    (long long)info.st_size, limit_bytes);
        goto out;
    }
    data = malloc((size_t)info.st_size + 1);
    if (data == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "read %s: no memory for %lld bytes", path, (long long)info.st_size);
        goto out;
    }
    if (!read_fully(fd, path, data, (size_t)info.st_size, st))
        goto out;
    data[info.st_size] = '\0';
    out->data = data;
    out->len = (size_t)info.st_size;
    data = NULL;
    ok = true;
out:
    free(data);
    close(fd);
    return ok;
}

bool file_write_fully(int fd, const void *data, size_t len, struct status *st)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const char *)data + done, len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_fail(st, status_code_of_errno(errno), "write: %m");
        done += (size_t)n;
    }
    return true;
}

bool file_sync_folder(const char *path, struct status *st)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok;

    if (fd < 0)
        return fail_errno(st, "open folder", path);
    ok = fsync(fd) == 0 || fail_errno(st, "sync folder", path);
    close(fd);
    return ok;
}

static bool parent_of(const char *path, char parent[PATH_MAX], struct status *st)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);

    if (len >= PATH_MAX)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", path);
    memcpy(parent, slash == NULL ? "." : path, len);
    parent[len] = '\0';
    return true;
}

bool file_write_durable(const char *path, const void *data, size_t len, struct status *st)
{
    char parent[PATH_MAX], beside[PATH_MAX];
    bool ok = false;
    int fd, error;

    if (!parent_of(path, parent, st))
        return false;
    if ((size_t)snprintf(beside, sizeof beside, "%s.new", path) >= sizeof beside)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", path);
    fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_errno(st, "create", beside);
    if (!file_write_fully(fd, data, len, st))
        status_wrap(st, "%s", beside);
    else if (fsync(fd) < 0)
        fail_errno(st, "sync", beside);
    else
        ok = true;
    error = errno;
    close(fd);
    if (ok && rename(beside, path) < 0) {
        error = errno;
        ok = fail_errno(st, "rename to", path);
    }
    if (!ok)
        unlink(beside);
    errno = error;
    return ok && file_sync_folder(parent, st);
}

bool file_make_folders(const char *path, struct status *st)
{
    char part[PATH_MAX];
    size_t len = strlen(path);
    struct stat info;

    if (len == 0 || len >= sizeof part)
        return status_fail(st, STATUS_INVALID, "folder path is empty or too long: %.100s", path);
    memcpy(part, path, len + 1);
    for (char *at = part + 1;; at++) {
        char was = *at;

        if (was != '/' && was != '\0')
            continue;
        *at = '\0';
        if (mkdir(part, 0700) < 0 && errno != EEXIST)
            return fail_errno(st, "make folder", part);
        if (was == '\0')
            break;
        *at = was;
    }
    if (stat(path, &info) < 0)
        return fail_errno(st, "make folder", path);
    return S_ISDIR(info.st_mode) ||
           status_fail(st, STATUS_EXISTS, "make folder %s: a file has that name", path);
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

bool file_remove_tree(const char *path, struct status *st)
{
    struct stat info;

    /* ENOENT may be of a folder in it that somebody else removes, too: then the rest is still there. */
    while (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        if (errno != ENOENT)
            return fail_errno(st, "remove", path);
        else if (lstat(path, &info) < 0)
            return errno == ENOENT || fail_errno(st, "remove", path);
    return true;
}

bool file_map_open(const char *path, struct file_map *map, struct status *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    void *data;

    if (fd < 0)
        return fail_errno(st, "open", path);
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
        close(fd);
        return status_fail(st, STATUS_INVALID, "%s is empty or not a regular file", path);
    }
    data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        return fail_errno(st, "map", path);
    map->data = data;
    map->len = (size_t)info.st_size;
    return true;
}

void file_map_close(struct file_map *map)
{
    if (map->data != NULL)
        munmap((void *)(uintptr_t)map->data, map->len);
    map->data = NULL;
    map->len = 0;
}
