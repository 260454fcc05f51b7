#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
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

static bool read_fully(const struct file_ops *ops, int fd, const char *path, char *data, size_t len,
                       struct status *st)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = ops->pread(fd, data + done, len - done, (off_t)done);

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

static bool read_regular(const struct file_ops *ops, int fd, const char *path, size_t limit_bytes,
                         struct file_text *out, struct status *st)
{
    struct stat info;

    if (ops->fstat(fd, &info) < 0)
        return fail_errno(st, "stat", path);
    if (!S_ISREG(info.st_mode))
        return status_fail(st, STATUS_INVALID, "%s is not a regular file", path);
    if ((uint64_t)info.st_size > limit_bytes)
        return status_fail(st, STATUS_INVALID, "%s has %lld bytes; at most %zu are read", path,
                           (long long)info.st_size, limit_bytes);
    out->len = (size_t)info.st_size;
    out->data = malloc(out->len + 1);
    if (out->data == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "read %s: no memory for %zu bytes", path, out->len);
    out->data[out->len] = '\0';
    if (read_fully(ops, fd, path, out->data, out->len, st))
        return true;
    free(out->data);
    out->data = NULL;
    return false;
}

bool file_read_all_on(const struct file_ops *ops, const char *path, size_t limit_bytes, struct file_text *out,
                      struct status *st)
{
    int fd = ops->open(path, O_RDONLY | O_CLOEXEC, 0);
    bool ok;

    if (fd < 0)
        return fail_errno(st, "open", path);
    ok = read_regular(ops, fd, path, limit_bytes, out, st);
    ops->close(fd);
    return ok;
}

bool file_read_all(const char *path, size_t limit_bytes, struct file_text *out, struct status *st)
{
    return file_read_all_on(&file_system, path, limit_bytes, out, st);
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

static bool reader_is_gone(void)
{
    struct pollfd out = { .fd = STDOUT_FILENO, .events = POLLOUT };

    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

bool file_flush_output(struct status *st)
{
    bool written = fflush(stdout) == 0 && !ferror(stdout);

    return written || reader_is_gone() ||
           status_fail(st, STATUS_UNKNOWN, "not all of the output could be written");
}

bool file_sync_folder_on(const struct file_ops *ops, const char *path, struct status *st)
{
    int fd = ops->open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    bool ok;

    if (fd < 0)
        return fail_errno(st, "open folder", path);
    ok = ops->fsync(fd) == 0 || fail_errno(st, "sync folder", path);
    ops->close(fd);
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

static bool write_whole(const struct file_ops *ops, int fd, const void *data, size_t len, struct status *st)
{
    for (size_t done = 0; done < len;) {
        const struct iovec rest = { .iov_base = (char *)(uintptr_t)data + done, .iov_len = len - done };
        ssize_t n = ops->pwritev(fd, &rest, 1, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_fail(st, status_code_of_errno(errno), "write: %m");
        if (n == 0) {
            errno = ENOSPC;
            return status_fail(st, STATUS_EXHAUSTED, "write: the disk took nothing");
        }
        done += (size_t)n;
    }
    return true;
}

bool file_write_durable_on(const struct file_ops *ops, const char *path, const void *data, size_t len,
                           struct status *st)
{
    char parent[PATH_MAX], beside[PATH_MAX];
    bool ok = false;
    int fd, error;

    if (!parent_of(path, parent, st))
        return false;
    if ((size_t)snprintf(beside, sizeof beside, "%s.new", path) >= sizeof beside)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", path);
    fd = ops->open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_errno(st, "create", beside);
    if (!write_whole(ops, fd, data, len, st))
        status_wrap(st, "%s", beside);
    else if (ops->fsync(fd) < 0)
        fail_errno(st, "sync", beside);
    else
        ok = true;
    error = errno;
    ops->close(fd);
    if (ok && ops->rename(beside, path) < 0) {
        error = errno;
        ok = fail_errno(st, "rename to", path);
    }
    if (!ok)
        ops->unlink(beside);
    errno = error;
    if (!ok || file_sync_folder_on(ops, parent, st))
        return ok;
    errno = EIO; /* whatever it was, it was not room that it wanted */
    return false;
}

bool file_write_durable(const char *path, const void *data, size_t len, struct status *st)
{
    return file_write_durable_on(&file_system, path, data, len, st);
}

bool file_write_through(const char *path, const void *data, size_t len, struct status *st)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool ok;

    if (fd < 0)
        return fail_errno(st, "open", path);
    ok = file_write_fully(fd, data, len, st) || status_wrap(st, "%s", path);
    return close(fd) == 0 || !ok ? ok : fail_errno(st, "write", path);
}

bool file_make_folders_on(const struct file_ops *ops, const char *path, struct status *st)
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
        if (ops->mkdir(part, 0700) < 0 && errno != EEXIST)
            return fail_errno(st, "make folder", part);
        if (was == '\0')
            break;
        *at = was;
    }
    if (ops->stat(path, &info) < 0)
        return fail_errno(st, "make folder", path);
    return S_ISDIR(info.st_mode) ||
           status_fail(st, STATUS_EXISTS, "make folder %s: a file has that name", path);
}

bool file_make_folders(const char *path, struct status *st)
{
    return file_make_folders_on(&file_system, path, st);
}

/* --- what is in a folder --- */

struct listing {
    struct file_names *names;
    bool no_memory;
};

static bool add_name(const char *name, void *user)
{
    struct listing *listing = user;
    struct file_names *names = listing->names;

    if (names->count == names->room) {
        uint32_t room = names->room == 0 ? 16 : 2 * names->room;
        char **list = realloc(names->list, room * sizeof *list);

        listing->no_memory = list == NULL;
        if (listing->no_memory)
            return false;
        names->list = list;
        names->room = room;
    }
    names->list[names->count] = strdup(name);
    listing->no_memory = names->list[names->count] == NULL;
    names->count += !listing->no_memory;
    return !listing->no_memory;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}
bool file_list_on(const struct file_ops *ops, const char *path, struct file_names *names, struct status *st)
{
    struct listing listing = { .names = names };

    *names = (struct file_names){ 0 };
    if (ops->list(path, add_name, &listing) != 0)
        return fail_errno(st, "open folder", path);
    if (listing.no_memory)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the names in %s", path);
    if (names->count > 1)
        qsort(names->list, names->count, sizeof *names->list, compare_names);
    return true;
}

bool file_list_synced_on(const struct file_ops *ops, const char *path, struct file_names *names,
                         struct status *st)
{
    *names = (struct file_names){ 0 };
    return file_sync_folder_on(ops, path, st) && file_list_on(ops, path, names, st);
}

void file_names_free(struct file_names *names)
{
    for (uint32_t i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
}

static bool remove_entry(const struct file_ops *ops, char path[PATH_MAX], struct status *st);

static bool remove_content(const struct file_ops *ops, char path[PATH_MAX], struct status *st)
{
    size_t len = strlen(path);
    struct file_names names;
    struct status why;
    bool ok = file_list_on(ops, path, &names, &why) || why.code == STATUS_NOT_FOUND ||
              status_fail(st, why.code, "%s", why.text);

    for (uint32_t i = 0; ok && i < names.count; i++) {
        if (len + 1 + strlen(names.list[i]) >= PATH_MAX)
            ok = status_fail(st, STATUS_INVALID, "path is too long: %.100s...", path);
        else
            snprintf(path + len, PATH_MAX - len, "/%s", names.list[i]);
        ok = ok && remove_entry(ops, path, st);
        path[len] = '\0';
    }
    file_names_free(&names);
    return ok;
}

static bool remove_entry(const struct file_ops *ops, char path[PATH_MAX], struct status *st)
{
    struct stat info;
    bool is_folder, failed;

    if (ops->lstat(path, &info) != 0)
        return errno == ENOENT || fail_errno(st, "remove", path);
    is_folder = S_ISDIR(info.st_mode);
    if (is_folder && !remove_content(ops, path, st))
        return false;
    failed = (is_folder ? ops->rmdir(path) : ops->unlink(path)) != 0;
    return !failed || errno == ENOENT || fail_errno(st, "remove", path);
}

bool file_remove_tree_on(const struct file_ops *ops, const char *path, struct status *st)
{
    char at[PATH_MAX];

    if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", path);
    return remove_entry(ops, at, st);
}

bool file_remove_tree(const char *path, struct status *st)
{
    return file_remove_tree_on(&file_system, path, st);
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
