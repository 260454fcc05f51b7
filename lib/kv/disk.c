#include "kv/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "kv/kv_format.h"

/* EIO is DATA_LOSS only of what was to be written; what was there may be there still. */
static enum status_code code_of_trouble(int error)
{
    return error == EIO ? STATUS_UNAVAILABLE : status_code_of_errno(error);
}

int disk_open(const struct file_ops *ops, const char *path, int flags, struct status *st)
{
    int fd = ops->open(path, flags | O_CLOEXEC | O_DIRECT, 0600);

    /* tmpfs and some others say EINVAL to O_DIRECT. */
    if (fd < 0 && errno == EINVAL)
        fd = ops->open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        status_fail(st, code_of_trouble(errno), "open %s: %m", path);
    return fd;
}

/* Leaves out the first `done` bytes. */
static void skip(struct iovec **pieces, int *count, size_t done)
{
    while (done > 0 && done >= (*pieces)->iov_len) {
        done -= (*pieces)->iov_len;
        (*pieces)++;
        (*count)--;
    }
    if (done > 0) {
        (*pieces)->iov_base = (char *)(*pieces)->iov_base + done;
        (*pieces)->iov_len -= done;
    }
}

bool disk_write(const struct file_ops *ops, int fd, struct iovec *pieces, int count, uint64_t offset,
                struct status *st)
{
    while (count > 0) {
        ssize_t n = ops->pwritev(fd, pieces, count, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_fail(st, status_code_of_errno(errno), "write: %m");
        if (n == 0)
            return status_fail(st, STATUS_EXHAUSTED, "write: the disk took nothing");
        offset += (uint64_t)n;
        skip(&pieces, &count, (size_t)n);
    }
    return true;
}

bool disk_read(const struct file_ops *ops, int fd, void *to, uint64_t len, uint64_t offset, struct status *st)
{
    for (uint64_t done = 0; done < len;) {
        ssize_t n = ops->pread(fd, (char *)to + done, len - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_fail(st, STATUS_UNAVAILABLE, "read: %m");
        if (n == 0)
            return status_fail(st, STATUS_DATA_LOSS, "read: the file ends before byte %llu",
                               (unsigned long long)(offset + len));
        done += (uint64_t)n;
    }
    return true;
}

bool disk_reserve(const struct file_ops *ops, int fd, uint64_t bytes, struct status *st)
{
    int failed;

    do
        failed = ops->fallocate(fd, 0, 0, (off_t)bytes);
    while (failed != 0 && errno == EINTR);
    if (failed == 0 || errno == EOPNOTSUPP)
        return true;
    return status_fail(st, status_code_of_errno(errno), "reserve %llu bytes: %m", (unsigned long long)bytes);
}

bool disk_length(const struct file_ops *ops, int fd, uint64_t *bytes_p, struct status *st)
{
    struct stat info;

    if (ops->fstat(fd, &info) != 0)
        return status_fail(st, code_of_trouble(errno), "stat: %m");
    *bytes_p = (uint64_t)info.st_size;
    return true;
}

uint64_t disk_skip_hole(const struct file_ops *ops, int fd, uint64_t at, uint64_t file_bytes)
{
    off_t data = ops->lseek(fd, (off_t)at, SEEK_DATA);

    if (data < 0)
        return errno == ENXIO ? file_bytes : at;
    return (uint64_t)data > at ? round_down((uint64_t)data, KV_PAGE_BYTES) : at;
}

bool disk_taken(const struct file_ops *ops, int fd, uint64_t *bytes_p, struct status *st)
{
    struct stat info;

    if (ops->fstat(fd, &info) != 0)
        return status_fail(st, code_of_trouble(errno), "stat: %m");
    *bytes_p = (uint64_t)info.st_blocks * 512;
    return true;
}

void *disk_buffer(uint64_t bytes)
{
    void *memory;

    if (posix_memalign(&memory, KV_PAGE_BYTES, bytes) != 0)
        return NULL;
    memset(memory, 0, bytes);
    return memory;
}

void disk_buffer_free(void *buffer, uint64_t bytes)
{
    if (buffer != NULL)
        explicit_bzero(buffer, bytes);
    free(buffer);
}
