#include "fuzz_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FD_BASE = 1000, PATH_BYTES = 512, PAGE_BYTES = 4096, LITERAL_MAX = 128, SHORT_MAX = 64 };

struct memory_file {
    char path[PATH_BYTES]; /* "": free */
    size_t len;
    uint8_t bytes[FUZZ_FILE_BYTES];
};

static struct memory_file files[FUZZ_FILES];
static const uint8_t no_bytes[PAGE_BYTES];

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static struct memory_file *find(const char *path)
{
    for (uint32_t i = 0; i < FUZZ_FILES; i++)
        if (strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}

static struct memory_file *of(int fd)
{
    return &files[fd - FD_BASE];
}

void fuzz_disk_clear(void)
{
    for (uint32_t i = 0; i < FUZZ_FILES; i++)
        files[i].path[0] = '\0';
}

uint8_t *fuzz_disk_put(const char *path, size_t len)
{
    struct memory_file *file = find(path);

    if (file == NULL)
        file = find("");
    if (file == NULL || len > FUZZ_FILE_BYTES)
        return NULL;
    snprintf(file->path, PATH_BYTES, "%s", path);
    file->len = len;
    memset(file->bytes, 0, len);
    return file->bytes;
}

bool fuzz_disk_has(const char *path)
{
    return find(path) != NULL;
}

/* --- the calls --- */

static int fail(int error)
{
    errno = error;
    return -1;
}

static int fuzz_open(const char *path, int flags, mode_t mode)
{
    struct memory_file *file = find(path);

    (void)mode;
    if (file == NULL && (flags & O_CREAT) == 0)
        return fail(ENOENT);
    if (file == NULL && fuzz_disk_put(path, 0) == NULL)
        return fail(ENOSPC);
    file = find(path);
    if ((flags & O_TRUNC) != 0)
        file->len = 0;
    return FD_BASE + (int)(file - files);
}

static ssize_t fuzz_pread(int fd, void *to, size_t len, off_t offset)
{
    const struct memory_file *file = of(fd);
    size_t at = (size_t)offset, part;

    if (at >= file->len)
        return 0;
    part = len < file->len - at ? len : file->len - at;
    memcpy(to, file->bytes + at, part);
    return (ssize_t)part;
}

static int fuzz_ftruncate(int fd, off_t len)
{
    struct memory_file *file = of(fd);

    if (len > FUZZ_FILE_BYTES)
        return fail(ENOSPC);
    if ((size_t)len > file->len)
        memset(file->bytes + file->len, 0, (size_t)len - file->len);
    file->len = (size_t)len;
    return 0;
}

static ssize_t fuzz_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    struct memory_file *file = of(fd);
    size_t at = (size_t)offset, total = 0;

    for (int i = 0; i < count; i++)
        total += pieces[i].iov_len;
    if (at + total > FUZZ_FILE_BYTES)
        return fail(ENOSPC);
    if (at + total > file->len)
        fuzz_ftruncate(fd, (off_t)(at + total));
    for (int i = 0; i < count; i++) {
        memcpy(file->bytes + at, pieces[i].iov_base, pieces[i].iov_len);
        at += pieces[i].iov_len;
    }
    return (ssize_t)total;
}

/* Pages of zeros are holes. */
static off_t fuzz_lseek(int fd, off_t offset, int whence)
{
    const struct memory_file *file = of(fd);

    if (whence != SEEK_DATA)
        return fail(EINVAL);
    for (size_t at = (size_t)offset, next; at < file->len; at = next) {
        next = min_size((at / PAGE_BYTES + 1) * PAGE_BYTES, file->len);
        if (memcmp(file->bytes + at, no_bytes, next - at) != 0)
            return (off_t)at;
    }
    return fail(ENXIO);
}

static int fuzz_fallocate(int fd, int mode, off_t offset, off_t len)
{
    (void)mode;
    return (size_t)(offset + len) > of(fd)->len ? fuzz_ftruncate(fd, offset + len) : 0;
}

static int fuzz_fstat(int fd, struct stat *info)
{
    memset(info, 0, sizeof *info);
    info->st_mode = S_IFREG | 0600;
    info->st_size = (off_t)of(fd)->len;
    info->st_blocks = (blkcnt_t)(of(fd)->len / 512);
    return 0;
}

static int fuzz_stat(const char *path, struct stat *info)
{
    const struct memory_file *file = find(path);

    return file == NULL ? fail(ENOENT) : fuzz_fstat(FD_BASE + (int)(file - files), info);
}

static int fuzz_rename(const char *from, const char *to)
{
    struct memory_file *file = find(from), *old = find(to);

    if (file == NULL)
        return fail(ENOENT);
    if (old != NULL)
        old->path[0] = '\0';
    snprintf(file->path, PATH_BYTES, "%s", to);
    return 0;
}

static int fuzz_unlink(const char *path)
{
    struct memory_file *file = find(path);

    if (file == NULL)
        return fail(ENOENT);
    file->path[0] = '\0';
    return 0;
}

static int fine(int fd)
{
    (void)fd;
    return 0;
}

/* Folders, locks and lists are not asked for by what is fuzzed. */
const struct file_ops fuzz_disk = { .open = fuzz_open,
                                    .close = fine,
                                    .pread = fuzz_pread,
                                    .pwritev = fuzz_pwritev,
                                    .lseek = fuzz_lseek,
                                    .fallocate = fuzz_fallocate,
                                    .ftruncate = fuzz_ftruncate,
                                    .fstat = fuzz_fstat,
                                    .fsync = fine,
                                    .fdatasync = fine,
                                    .stat = fuzz_stat,
                                    .lstat = fuzz_stat,
                                    .rename = fuzz_rename,
                                    .unlink = fuzz_unlink };

/* --- inputs --- */

void fuzz_expand(const uint8_t *data, size_t len, uint8_t *to, size_t room)
{
    size_t at = 0;

    for (size_t i = 0; i < len && at < room;) {
        uint8_t code = data[i++];
        size_t bytes = min_size(code + 1u, min_size(len - i, room - at));

        if (code < LITERAL_MAX) {
            memcpy(to + at, data + i, bytes);
            i += bytes;
            at += bytes;
        } else if (code < LITERAL_MAX + SHORT_MAX) {
            at += code - LITERAL_MAX + 1u;
        } else {
            at += (code - LITERAL_MAX - SHORT_MAX + 1u) * 64u;
        }
    }
}

static size_t zeros_at(const uint8_t *from, size_t at, size_t len)
{
    size_t count = 0;

    while (at + count < len && from[at + count] == 0)
        count++;
    return count;
}

size_t fuzz_shrink(const uint8_t *from, size_t len, uint8_t *to)
{
    size_t used = 0;

    for (size_t at = 0; at < len;) {
        size_t zeros = zeros_at(from, at, len), literal = 0;

        if (zeros >= 64) {
            size_t steps = min_size(zeros / 64, 64);

            to[used++] = (uint8_t)(LITERAL_MAX + SHORT_MAX + steps - 1);
            at += steps * 64;
        } else if (zeros >= 3) {
            to[used++] = (uint8_t)(LITERAL_MAX + zeros - 1);
            at += zeros;
        } else {
            while (literal < LITERAL_MAX && at + literal < len && zeros_at(from, at + literal, len) < 3)
                literal++;
            literal = literal == 0 ? zeros : literal;
            to[used++] = (uint8_t)(literal - 1);
            memcpy(to + used, from + at, literal);
            used += literal;
            at += literal;
        }
    }
    return used;
}
