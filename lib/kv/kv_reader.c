#include "kv/kv_reader.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "kv/kv_format.h"

static bool check_kind(struct kv_reader *reader, struct status *st)
{
    struct stat info;

    if (reader->disk->fstat(reader->fd, &info) != 0)
        return status_fail(st, STATUS_UNAVAILABLE, "stat: %m");
    if (!S_ISREG(info.st_mode))
        return status_fail(st, STATUS_INVALID, "it is not a regular file");
    reader->bytes = round_down((uint64_t)info.st_size, KV_PAGE_BYTES);
    reader->rest = (uint64_t)info.st_size - reader->bytes;
    return true;
}

static uint64_t window_bytes(const struct kv_reader *reader, uint64_t at)
{
    return reader->bytes - at < KV_READER_BYTES ? reader->bytes - at : (uint64_t)KV_READER_BYTES;
}

bool kv_reader_open(struct kv_reader *reader, const struct file_ops *disk, const char *path,
                    struct status *st)
{
    /* O_NONBLOCK: a pipe that bears the name must not wait for its writer. */
    *reader = (struct kv_reader){ .disk = disk, .fd = disk_open(disk, path, O_RDONLY | O_NONBLOCK, st) };
    if (reader->fd < 0)
        return false;
    if (!check_kind(reader, st))
        return status_wrap(st, "%s", path);
    reader->window = disk_buffer(window_bytes(reader, 0) + KV_PAGE_BYTES);
    return reader->window != NULL || status_fail(st, STATUS_EXHAUSTED, "no memory to read %s", path);
}

void kv_reader_close(struct kv_reader *reader)
{
    if (reader->disk != NULL && reader->fd >= 0)
        reader->disk->close(reader->fd);
    disk_buffer_free(reader->window, reader->window == NULL ? 0 : window_bytes(reader, 0) + KV_PAGE_BYTES);
    *reader = (struct kv_reader){ .fd = -1 }; /* closing it again does nothing */
}

const uint8_t *kv_reader_view(struct kv_reader *reader, uint64_t offset, uint64_t len, struct status *st)
{
    uint64_t at = round_down(offset, KV_PAGE_BYTES);

    REQUIRE(len <= KV_VIEW_BYTES_MAX);
    REQUIRE(offset <= reader->bytes);
    REQUIRE(len <= reader->bytes - offset);
    if (offset >= reader->window_at && offset + len <= reader->window_at + reader->window_bytes)
        return reader->window + (offset - reader->window_at);
    reader->window_at = at;
    reader->window_bytes = window_bytes(reader, at);
    if (!disk_read(reader->disk, reader->fd, reader->window, reader->window_bytes, at, st)) {
        reader->window_bytes = 0;
        return NULL;
    }
    return reader->window + (offset - at);
}

static uint64_t view_bytes(uint64_t left)
{
    return left < KV_VIEW_BYTES_MAX ? left : KV_VIEW_BYTES_MAX;
}

bool kv_reader_crc(struct kv_reader *reader, uint64_t offset, uint64_t len, uint32_t *crc, struct status *st)
{
    uint64_t bytes;

    for (; len > 0; offset += bytes, len -= bytes) {
        const uint8_t *view = kv_reader_view(reader, offset, bytes = view_bytes(len), st);

        if (view == NULL)
            return false;
        *crc = kv_crc(*crc, view, bytes);
    }
    return true;
}

bool kv_reader_is_zero(struct kv_reader *reader, uint64_t offset, uint64_t len, bool *is_zero_p,
                       struct status *st)
{
    uint64_t bytes;

    for (*is_zero_p = true; *is_zero_p && len > 0; offset += bytes, len -= bytes) {
        const uint8_t *view = kv_reader_view(reader, offset, bytes = view_bytes(len), st);

        if (view == NULL)
            return false;
        *is_zero_p = view[0] == 0 && memcmp(view, view + 1, bytes - 1) == 0;
    }
    return true;
}
