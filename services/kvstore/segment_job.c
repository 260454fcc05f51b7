#include "kvstore/segment_job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "kvstore/segment_file.h"

static bool path_of(const char *base, const char *suffix, char path[PATH_MAX], struct status *st)
{
    if (snprintf(path, PATH_MAX, "%s%s", base, suffix) < PATH_MAX)
        return true;
    return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", base);
}

static bool write_page(const struct file_ops *disk, int fd, void *page, uint64_t offset, struct status *st)
{
    struct iovec piece = { .iov_len = KV_PAGE_BYTES, .iov_base = page };

    return disk_write(disk, fd, &piece, 1, offset, st);
}

bool segment_job_mark(const struct file_ops *disk, int fd, uint64_t salt, uint64_t synced, uint64_t offset,
                      struct status *st)
{
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    bool ok;

    if (page == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a mark");
    kv_mark_put(salt, synced, page);
    ok = write_page(disk, fd, page, offset, st);
    free(page);
    return ok;
}

static bool start_file(const struct file_ops *disk, int fd, const struct kv_super *super, uint64_t capacity,
                       struct status *st)
{
    struct kv_super written = *super;
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    bool ok;

    if (page == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a superblock");
    kv_super_put(&written, page);
    ok = disk_reserve(disk, fd, capacity, st) && write_page(disk, fd, page, 0, st) &&
         segment_job_mark(disk, fd, super->salt, KV_PAGE_BYTES, capacity - KV_PAGE_BYTES, st);
    if (ok && disk->fdatasync(fd) != 0)
        ok = status_fail(st, status_code_of_errno(errno), "sync: %m");
    free(page);
    return ok;
}

/* As far as the disk says: an earlier try may have left it. */
static bool is_there(const struct file_ops *disk, const char *path)
{
    struct stat info;

    return disk->lstat(path, &info) == 0 || errno != ENOENT;
}

int segment_job_create(const struct file_ops *disk, const char *base, const struct kv_super *super,
                       uint64_t capacity, uint64_t *taken_p, struct status *st)
{
    char folder[PATH_MAX], parent[PATH_MAX], path[PATH_MAX];
    struct status why;
    int fd;

    segment_folder_of(base, folder);
    segment_folder_of(folder, parent);
    *taken_p = 0;
    if (!path_of(base, ".open", path, st))
        return -1;
    fd = file_make_folders_on(disk, folder, st) && file_sync_folder_on(disk, parent, st)
             ? disk_open(disk, path, O_RDWR | O_CREAT | O_TRUNC, st)
             : -1;
    if (fd < 0) {
        *taken_p = is_there(disk, path) ? capacity : 0;
        return -1;
    }
    if (start_file(disk, fd, super, capacity, st) && disk_taken(disk, fd, taken_p, st) &&
        file_sync_folder_on(disk, folder, st))
        return fd;
    status_wrap(st, "segment %s", path);
    disk->close(fd);
    *taken_p = segment_file_remove(disk, base, &why) ? 0 : capacity;
    return -1;
}

int segment_job_open(const struct file_ops *disk, const char *base, struct status *st)
{
    static const char *const suffixes[] = { ".seg", ".open", ".seg" };
    char path[PATH_MAX];
    int fd = -1;

    for (size_t i = 0; fd < 0 && i < ARRAY_LEN(suffixes); i++) {
        if (!path_of(base, suffixes[i], path, st))
            return -1;
        fd = disk_open(disk, path, O_RDONLY, st);
        if (fd < 0 && st->code != STATUS_NOT_FOUND)
            break;
    }
    return fd;
}

bool segment_job_read(const struct file_ops *disk, const char *base, uint8_t *to, uint64_t bytes,
                      uint64_t offset, struct status *st)
{
    int fd = segment_job_open(disk, base, st);
    bool ok = fd >= 0 && disk_read(disk, fd, to, bytes, offset, st);

    if (fd >= 0)
        disk->close(fd);
    return ok;
}

/* --- sealing --- */

static void place_footer(struct kv_footer *footer, const struct kv_geometry *geometry, uint64_t at)
{
    footer->layers = geometry->layers;
    kv_footer_place(footer, at, kv_key_bytes(geometry));
}

uint64_t segment_footer_bytes(const struct kv_geometry *geometry, uint32_t records, uint32_t frames,
                              uint64_t notes_bytes)
{
    struct kv_footer footer = { .records = records, .frames = frames, .notes_bytes = notes_bytes };

    place_footer(&footer, geometry, 0);
    return footer.file_bytes;
}

static void put_frames(const struct segment_footer_parts *parts, const struct kv_footer *footer,
                       uint8_t *bytes, uint64_t end)
{
    uint32_t key_bytes = kv_key_bytes(&parts->super->geometry), layers = footer->layers;

    for (uint64_t n = 0; n < footer->frames; n++) {
        const struct index_frame *frame = index_part_at(parts->index, n);
        const uint32_t *sums = index_frame_sums(frame);
        uint8_t *sums_at = bytes + (footer->sums - end) + n * 2 * layers * sizeof *sums;

        for (uint32_t i = 0; i < 2 * layers; i++)
            put_u32(sums_at + i * sizeof *sums, sums[i]);
        for (uint32_t layer = 0; layer < layers; layer++)
            memcpy(bytes + (footer->columns - end) + layer * footer->column_stride + n * key_bytes,
                   index_frame_key(frame, layer), key_bytes);
    }
}

static void fill_footer(const struct segment_footer_parts *parts, struct kv_footer *footer, uint8_t *bytes,
                        uint64_t end)
{
    for (uint32_t i = 0; i < parts->entry_count; i++)
        kv_entry_put(&parts->entries[i], bytes + (uint64_t)i * KV_ENTRY_BYTES);
    if (parts->notes_bytes > 0)
        memcpy(bytes + (footer->notes - end), parts->notes, parts->notes_bytes);
    put_frames(parts, footer, bytes, end);
    footer->table_crc = kv_crc(0, bytes, footer->notes - footer->table);
    footer->notes_crc = kv_crc(0, bytes + (footer->notes - end), footer->sums - footer->notes);
    footer->sums_crc = kv_crc(0, bytes + (footer->sums - end), footer->columns - footer->sums);
    for (uint32_t layer = 0; layer < footer->layers; layer++) {
        uint64_t start = footer->columns + layer * footer->column_stride;

        footer->column_crc[layer] =
            kv_crc(0, bytes + (start - end), kv_footer_column_end(footer, layer) - start);
    }
    kv_footer_put(footer, bytes + (footer->file_bytes - KV_PAGE_BYTES - end));
}

static bool write_footer(const struct file_ops *disk, int fd, const struct segment_footer_parts *parts,
                         uint64_t end, struct status *st)
{
    struct kv_footer footer = { .records = parts->entry_count,
                                .frames = (uint32_t)parts->index->frame_count,
                                .salt = parts->super->salt,
                                .notes_bytes = parts->notes_bytes,
                                .chain = parts->chain,
                                .super_crc = parts->super->crc };
    struct iovec piece;
    uint8_t *bytes;
    bool ok;

    if (parts->entry_count > 0)
        footer.end_seq = parts->entries[parts->entry_count - 1].end_seq;
    place_footer(&footer, &parts->super->geometry, end);
    bytes = disk_buffer(footer.file_bytes - end);
    if (bytes == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a footer of %llu bytes",
                           (unsigned long long)(footer.file_bytes - end));
    fill_footer(parts, &footer, bytes, end);
    piece = (struct iovec){ .iov_base = bytes, .iov_len = footer.file_bytes - end };
    ok = disk_write(disk, fd, &piece, 1, end, st);
    disk_buffer_free(bytes, footer.file_bytes - end);
    if (ok && disk->ftruncate(fd, (off_t)footer.file_bytes) != 0)
        return status_fail(st, status_code_of_errno(errno), "cut: %m");
    if (ok && disk->fdatasync(fd) != 0)
        return status_fail(st, status_code_of_errno(errno), "sync: %m");
    return ok;
}

bool segment_job_finish(const struct file_ops *disk, int fd, const char *base,
                        const struct segment_footer_parts *parts, uint64_t end, struct status *st)
{
    return write_footer(disk, fd, parts, end, st) || status_wrap(st, "seal %s.open", base);
}

bool segment_job_name(const struct file_ops *disk, const char *base, struct status *st)
{
    char from[PATH_MAX], to[PATH_MAX];

    if (!path_of(base, ".open", from, st) || !path_of(base, ".seg", to, st))
        return false;
    return disk->rename(from, to) == 0 ||
           status_fail(st, status_code_of_errno(errno), "rename %s to .seg: %m", from);
}

bool segment_job_seal(const struct file_ops *disk, int fd, const char *base,
                      const struct segment_footer_parts *parts, uint64_t end, struct status *st)
{
    return segment_job_finish(disk, fd, base, parts, end, st) && segment_job_name(disk, base, st);
}
