#include "kvstore/segment_load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "kvstore/segment_job.h"
#include "kvstore/segment_scan.h"
#include "kvstore/store.h"

enum { TAIL_BYTES = 4 * KV_PAGE_BYTES };

struct loader {
    struct stream *stream;
    const struct file_ops *disk;
    const char *base;
    struct segment *segment;
    struct segment_load *load;
    int fd;
    uint64_t file_bytes;
    uint64_t sealed_end_seq; /* by a trailer that fits; 0: none does */
    struct status *st;
};

static bool fail(struct loader *loader, const char *what)
{
    return status_fail(loader->st, STATUS_DATA_LOSS, "%s does not fit", what);
}

/* --- from the footer --- */

static bool add_entries(struct loader *loader, const struct kv_footer *footer, const uint8_t *bytes)
{
    const struct segment *segment = loader->segment;
    const char *note = (const char *)bytes + (footer->notes - footer->table);
    uint64_t notes_left = footer->notes_bytes;
    struct kv_entry entry;

    for (uint32_t i = 0; i < footer->records; i++) {
        if (!kv_entry_get(&entry, &segment->super.geometry, bytes + (uint64_t)i * KV_ENTRY_BYTES, loader->st))
            return false;
        if (entry.note_bytes > notes_left || entry.offset > footer->table ||
            entry.record_bytes > footer->table - entry.offset || entry.record_bytes > UINT32_MAX)
            return fail(loader, "footer entry");
        if (!segment_scan_add(loader->segment, &entry, note, loader->st))
            return false;
        note += entry.note_bytes;
        notes_left -= entry.note_bytes;
    }
    if (segment->index.frame_count != footer->frames)
        return fail(loader, "number of frames");
    return true;
}

/* The table and the notes; the rest only grows with the keys. */
static bool use_footer(struct loader *loader, const struct kv_footer *footer, const uint8_t *bytes)
{
    const struct index_part *index = &loader->segment->index;

    if (kv_crc(0, bytes, footer->notes - footer->table) != footer->table_crc)
        return fail(loader, "checksum of the table");
    if (kv_crc(0, bytes + (footer->notes - footer->table), footer->sums - footer->notes) != footer->notes_crc)
        return fail(loader, "checksum of the notes");
    if (!add_entries(loader, footer, bytes))
        return false;
    for (uint32_t i = 0; i < index->chunk_count; i++)
        index->chunks[i]->is_blank = true;
    return true;
}

/* `tail` has the file's last tail_bytes already. */
static bool read_footer(struct loader *loader, const struct kv_footer *footer, const uint8_t *tail,
                        uint64_t tail_bytes)
{
    uint64_t tail_at = loader->file_bytes - tail_bytes, len = footer->sums - footer->table;
    uint8_t *bytes;
    bool ok;

    if (footer->table >= tail_at)
        return use_footer(loader, footer, tail + (footer->table - tail_at));
    bytes = disk_buffer(len);
    if (bytes == NULL)
        return status_fail(loader->st, STATUS_EXHAUSTED, "no memory for a footer");
    ok = disk_read(loader->disk, loader->fd, bytes, len, footer->table, loader->st) &&
         use_footer(loader, footer, bytes);
    disk_buffer_free(bytes, len);
    return ok;
}

/* A small footer comes with its trailer, in one read. */
static bool load_footer(struct loader *loader)
{
    uint64_t bytes = loader->file_bytes < TAIL_BYTES ? loader->file_bytes : TAIL_BYTES;
    struct kv_footer footer;
    uint8_t *tail;
    bool ok;

    if (loader->file_bytes % KV_PAGE_BYTES != 0 || loader->file_bytes < 2 * KV_PAGE_BYTES)
        return fail(loader, "length");
    tail = disk_buffer(bytes);
    if (tail == NULL)
        return status_fail(loader->st, STATUS_EXHAUSTED, "no memory for a trailer");
    ok = disk_read(loader->disk, loader->fd, tail, bytes, loader->file_bytes - bytes, loader->st) &&
         kv_footer_get(&footer, &loader->segment->super, loader->file_bytes, tail + bytes - KV_PAGE_BYTES,
                       loader->st);
    if (ok)
        loader->sealed_end_seq = footer.end_seq;
    ok = ok && read_footer(loader, &footer, tail, bytes);
    disk_buffer_free(tail, bytes);
    return ok;
}

/* --- by scanning --- */

/* What the footer left halfway. */
static void start_over(struct segment *segment)
{
    index_part_drop(&segment->index, segment->stream->store->arena);
    segment_drop_marks(segment, 0);
    segment->end_seq = segment->super.first_seq;
    segment->end_token_index = 0;
    segment->end_pts_ns = 0;
    segment->init_offset = 0;
    segment_find_times(segment);
}

/* Before the trailer says that they are. */
static bool sync_records(const struct loader *loader, const struct segment_scan *scan)
{
    if (scan->unwritten.code != STATUS_OK) {
        *loader->st = scan->unwritten;
        return false;
    }
    return scan->end <= scan->synced || loader->disk->fdatasync(loader->fd) == 0 ||
           status_fail(loader->st, status_code_of_errno(errno), "sync: %m");
}

static bool seal(struct loader *loader, const struct segment_scan *scan)
{
    const struct segment_footer_parts parts = { .super = &loader->segment->super,
                                                .entries = scan->list.entries,
                                                .entry_count = scan->list.entry_count,
                                                .notes = scan->list.notes,
                                                .notes_bytes = scan->list.notes_bytes,
                                                .index = &loader->segment->index,
                                                .chain = scan->chain };

    return sync_records(loader, scan) &&
           segment_job_seal(loader->disk, loader->fd, loader->base, &parts, scan->end, loader->st);
}

/* A sealed file has no torn tail: what is behind the last record that fits was written, and cannot be read. */
static bool mark_lost_tail(struct loader *loader, const struct segment_scan *scan)
{
    struct segment *segment = loader->segment;
    const struct kv_entry lost = { .offset = scan->end,
                                   .record_bytes = loader->file_bytes - scan->end,
                                   .seq = segment->end_seq,
                                   .end_seq = scan->told.seq > loader->sealed_end_seq
                                                  ? scan->told.seq
                                                  : loader->sealed_end_seq,
                                   .pts_ns = segment->end_pts_ns,
                                   .end_pts_ns = segment->end_pts_ns,
                                   .type = KV_RECORD_FRAME,
                                   .flags = KV_ENTRY_DAMAGED };

    loader->load->damaged_bytes += lost.record_bytes;
    if (lost.end_seq <= lost.seq)
        return true;
    loader->load->damaged_frames += lost.end_seq - lost.seq;
    if (scan->told.token_index > segment->end_token_index)
        segment->end_token_index = scan->told.token_index;
    return segment_scan_add(segment, &lost, "", loader->st);
}

/* Readable all the same; the next start tries again. Behind what a power cut may take nobody writes (stream_open()). What is torn
 * stays in the file till then, of whatever time it is. */
static void leave_unsealed(struct loader *loader, const struct segment_scan *scan)
{
    const struct log_context context = { .stream = loader->stream->name };

    log_warn(&context, "segment_not_sealed", "%s", loader->st->text);
    loader->segment->is_unsynced = scan->end > scan->synced;
    if (scan->torn_bytes == 0)
        return;
    segment_leave_bytes(loader->segment, INT64_MIN);
    segment_leave_bytes(loader->segment, INT64_MAX);
}

static bool load_by_scan(struct loader *loader)
{
    struct segment_scan scan = { .disk = loader->disk,
                                 .fd = loader->fd,
                                 .file_bytes = loader->file_bytes,
                                 .is_open = loader->load->was_open,
                                 .below_seq = loader->load->below_seq };
    bool ok = segment_scan_run(&scan, loader->segment, loader->st);

    loader->load->was_scanned = true;
    loader->load->has_no_mark = loader->load->was_open && scan.synced == 0;
    loader->load->torn_bytes = loader->load->was_open ? scan.torn_bytes : 0;
    loader->load->damaged_bytes = scan.damaged_bytes;
    loader->load->damaged_frames = scan.damaged_frames;
    loader->load->is_empty = ok && scan.list.entry_count == 0;
    loader->segment->state = SEGMENT_FAILED;
    if (ok && loader->load->is_empty && !loader->load->was_open)
        ok = status_fail(loader->st, STATUS_DATA_LOSS, "no record of it fits");
    if (ok && !loader->load->was_open)
        ok = mark_lost_tail(loader, &scan);
    if (ok && loader->load->was_open && scan.list.entry_count > 0) {
        if (seal(loader, &scan))
            loader->segment->state = SEGMENT_SEALED;
        else
            leave_unsealed(loader, &scan);
    }
    segment_scan_free(&scan);
    return ok;
}

/* A whole file may be another one, or one of before: whose it is, its name says too. */
static bool has_its_name(const char *base, const struct kv_super *super)
{
    char name[80];
    int len = snprintf(name, sizeof name, "/%020llu/%020llu-%016llx", (unsigned long long)super->epoch,
                       (unsigned long long)super->first_seq, (unsigned long long)super->salt);

    return strlen(base) >= (size_t)len && strcmp(base + strlen(base) - len, name) == 0;
}

static bool load_super(struct loader *loader, struct kv_super *super)
{
    const struct stream *stream = loader->stream;
    uint8_t *page = disk_buffer(KV_PAGE_BYTES);
    bool ok;

    if (page == NULL)
        return status_fail(loader->st, STATUS_EXHAUSTED, "no memory for a superblock");
    ok = disk_read(loader->disk, loader->fd, page, KV_PAGE_BYTES, 0, loader->st) &&
         kv_super_get(super, page, loader->st);
    free(page);
    if (ok && (strcmp(super->ns, stream->ns) != 0 || strcmp(super->stream, stream->name) != 0))
        return status_fail(loader->st, STATUS_DATA_LOSS, "it belongs to stream %s/%s", super->ns,
                           super->stream);
    if (ok && !has_its_name(loader->base, super))
        return status_fail(loader->st, STATUS_DATA_LOSS,
                           "its superblock is that of epoch %llu, number %llu, salt %016llx",
                           (unsigned long long)super->epoch, (unsigned long long)super->first_seq,
                           (unsigned long long)super->salt);
    return ok;
}

static bool open_file(struct loader *loader, const char *path, int flags)
{
    loader->fd = disk_open(loader->disk, path, flags, loader->st);
    return loader->fd >= 0 && disk_length(loader->disk, loader->fd, &loader->file_bytes, loader->st);
}

static bool load_content(struct loader *loader)
{
    struct kv_super super;

    if (!load_super(loader, &super))
        return false;
    if (loader->load->was_open && super.replaces != 0) { /* what it was made from is still there */
        loader->load->is_empty = true;
        return true;
    }
    loader->segment = segment_create(loader->stream, &super, 0);
    if (loader->segment == NULL)
        return status_fail(loader->st, STATUS_EXHAUSTED, "no memory for a segment");
    if (!segment_drop_writer(loader->segment, loader->base))
        return status_fail(loader->st, STATUS_EXHAUSTED, "no memory for a segment");
    loader->segment->state = SEGMENT_SEALED;
    if (!loader->load->was_open) {
        if (load_footer(loader))
            return true;
        if (loader->st->code != STATUS_DATA_LOSS)
            return false;
        start_over(loader->segment);
    }
    return load_by_scan(loader);
}

/* Killed while it was being made: the superblock never arrived, and records come only after it. */
static bool is_unborn(struct loader *loader)
{
    uint64_t bytes = loader->file_bytes < KV_HEADER_BYTES_MAX ? loader->file_bytes : KV_HEADER_BYTES_MAX;
    uint8_t *pages = disk_buffer(KV_HEADER_BYTES_MAX);
    bool is_unborn = true;

    if (pages == NULL)
        return status_fail(loader->st, STATUS_EXHAUSTED, "no memory for a superblock");
    bytes = round_down(bytes, KV_PAGE_BYTES);
    if (bytes > 0)
        is_unborn = disk_read(loader->disk, loader->fd, pages, bytes, 0, loader->st);
    if (is_unborn && bytes > KV_PAGE_BYTES)
        is_unborn = bytes_are_zero(pages + KV_PAGE_BYTES, bytes - KV_PAGE_BYTES);
    else if (is_unborn)
        is_unborn = bytes_are_zero(pages, bytes);
    free(pages);
    return is_unborn;
}

/* Synced, so that a power cut does not bring it back when its bytes have been given to others. */
static bool remove_empty(const struct loader *loader, const char *path)
{
    char folder[PATH_MAX];

    if (loader->disk->unlink(path) != 0)
        return status_fail(loader->st, status_code_of_errno(errno), "remove %s: %m", path);
    segment_folder_of(loader->base, folder);
    loader->load->is_unsynced = !file_sync_folder_on(loader->disk, folder, loader->st);
    return !loader->load->is_unsynced;
}

bool segment_load(struct stream *stream, const char *base, bool is_open, struct segment **segment_p,
                  struct segment_load *load, struct status *st)
{
    struct loader loader = {
        .stream = stream, .disk = stream->store->disk, .base = base, .load = load, .fd = -1, .st = st
    };
    char path[PATH_MAX + 8];
    bool is_there, ok;

    *load = (struct segment_load){ .was_open = is_open, .below_seq = load->below_seq };
    snprintf(path, sizeof path, "%s%s", base, is_open ? ".open" : ".seg");
    is_there = open_file(&loader, path, is_open ? O_RDWR : O_RDONLY);
    ok = is_there && load_content(&loader);
    if (is_there && !ok && is_open && st->code == STATUS_DATA_LOSS && loader.segment == NULL &&
        is_unborn(&loader))
        ok = load->is_empty = load->was_scanned = true;
    if (ok && load->is_empty && is_open)
        ok = remove_empty(&loader, path);
    if (ok && !load->is_empty)
        ok = disk_taken(loader.disk, loader.fd, &loader.segment->disk_bytes, st);
    if (loader.fd >= 0)
        loader.disk->close(loader.fd);
    if (!ok || load->is_empty) {
        segment_destroy(loader.segment);
        loader.segment = NULL;
    }
    *segment_p = loader.segment;
    return ok || status_wrap(st, "%s", path);
}

uint8_t *segment_load_init(const struct segment *segment, struct kv_record *record, struct status *st)
{
    const struct file_ops *disk = segment->stream->store->disk;
    uint8_t *image = disk_buffer(segment->init_bytes);
    struct kv_layout layout;
    uint32_t crc;
    bool ok;

    if (image == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for the system prompt's block");
        return NULL;
    }
    ok = segment_job_read(disk, segment->base, image, segment->init_bytes, segment->init_offset, st) &&
         kv_record_get(record, &crc, &segment->super, image, st);
    if (ok) {
        kv_record_layout(record, &layout);
        ok = layout.record_bytes == segment->init_bytes ||
             status_fail(st, STATUS_DATA_LOSS, "another record stands there");
    }
    if (ok && kv_record_verify(record, image, st))
        return image;
    free(image);
    return NULL;
}
