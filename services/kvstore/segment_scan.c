#include "kvstore/segment_scan.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/require.h"
#include "kvstore/store.h"

/* A whole block of the segment's shape. */
static bool is_block(const struct kv_entry *entry, const struct kv_layout *layout)
{
    bool is_frame = entry->type == KV_RECORD_FRAME;

    return entry->tokens >= 1 && layout->record_bytes == entry->record_bytes &&
           (!is_frame || entry->end_seq - entry->seq == 1);
}

void segment_scan_follow(struct segment *segment, const struct kv_entry *entry)
{
    bool is_block = entry->type == KV_RECORD_FRAME || entry->type == KV_RECORD_INIT;
    uint64_t end_token_index = entry->token_index + entry->tokens;

    segment->end_seq = segment->durable_end_seq = entry->end_seq;
    if ((entry->flags & KV_ENTRY_DAMAGED) != 0 || (!is_block && entry->type != KV_RECORD_TOMBSTONE))
        return;
    if (segment->end_token_index < end_token_index)
        segment->end_token_index = end_token_index;
    if (entry->type == KV_RECORD_INIT) {
        segment->init_offset = entry->offset;
        segment->init_bytes = (uint32_t)entry->record_bytes;
    } else if (!kv_entry_is_damaged(entry)) {
        segment->end_pts_ns = entry->end_pts_ns;
        segment_saw(segment, entry->pts_ns, entry->end_pts_ns);
    }
}

bool segment_scan_add(struct segment *segment, const struct kv_entry *entry, const char *note,
                      struct status *st)
{
    bool is_damaged = kv_entry_is_damaged(entry);
    bool is_frame = entry->type == KV_RECORD_FRAME && !is_damaged;
    bool is_init = entry->type == KV_RECORD_INIT && !is_damaged;
    struct index_frame frame = { .seq = entry->seq,
                                 .pts_ns = entry->pts_ns,
                                 .token_index = entry->token_index,
                                 .offset = entry->offset,
                                 .record_bytes = (uint32_t)entry->record_bytes,
                                 .tokens = entry->tokens,
                                 .thumbnail_bytes = entry->thumbnail_bytes,
                                 .encoding = entry->encoding,
                                 .has_slices = (entry->flags & KV_ENTRY_WITHOUT_SLICES) == 0 };
    struct kv_layout layout;
    struct index_memory *memory = &segment->stream->store->index_memory;

    if (entry->seq < segment->end_seq)
        return status_fail(st, STATUS_DATA_LOSS, "record %llu comes after %llu",
                           (unsigned long long)entry->seq, (unsigned long long)segment->end_seq);
    kv_entry_layout(entry, &segment->super.geometry, &layout);
    if ((is_frame || is_init) && !is_block(entry, &layout))
        return status_fail(st, STATUS_DATA_LOSS, "record %llu is no block", (unsigned long long)entry->seq);
    if (is_frame) {
        frame.thumbnail_at = (uint32_t)layout.thumbnail;
        frame.slices_at = (uint32_t)layout.slices;
        if (index_part_add(&segment->index, segment, memory, &segment->super.geometry, &frame) == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for the index");
    } else if (!is_init && !segment_add_mark(segment, entry, note)) {
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the index");
    }
    segment_scan_follow(segment, entry);
    return true;
}

static bool add_entry(struct segment_scan *scan, const struct kv_entry *entry, const void *note,
                      struct status *st)
{
    return segment_list_add(&scan->list, entry, note) ||
           status_fail(st, STATUS_EXHAUSTED, "no memory for the index");
}

static bool make_image(struct segment_scan *scan, uint64_t bytes, struct status *st)
{
    return segment_image_make(&scan->image, bytes) ||
           status_fail(st, STATUS_EXHAUSTED, "no memory for a record of %llu bytes",
                       (unsigned long long)bytes);
}

static void hear(struct segment_scan_end *told, enum kv_record_type type, uint64_t seq, uint64_t token_index)
{
    told->is_told |= type != KV_RECORD_INIT;
    if (seq > told->seq)
        told->seq = seq;
    if (token_index > told->token_index)
        told->token_index = token_index;
}

enum finding { FOUND_RECORD, FOUND_DAMAGE, FOUND_NOTHING, FOUND_FAILURE };

/* Whether a header that fits stands at `at`; reads nothing more. FOUND_FAILURE: the disk's. */
static enum finding look_at(struct segment_scan *scan, const struct segment *segment, uint64_t at,
                            struct status *st)
{
    uint32_t header_bytes;
    struct kv_layout layout;
    struct status why;

    if (at + KV_PAGE_BYTES > scan->file_bytes)
        return FOUND_NOTHING;
    if (!make_image(scan, KV_HEADER_BYTES_MAX, st) ||
        !disk_read(scan->disk, scan->fd, scan->image.bytes, KV_PAGE_BYTES, at, st))
        return FOUND_FAILURE;
    header_bytes = kv_record_header_bytes(scan->image.bytes);
    if (header_bytes == 0 || at + header_bytes > scan->file_bytes)
        return FOUND_NOTHING;
    if (header_bytes > KV_PAGE_BYTES && !disk_read(scan->disk, scan->fd, scan->image.bytes + KV_PAGE_BYTES,
                                                   KV_PAGE_BYTES, at + KV_PAGE_BYTES, st))
        return FOUND_FAILURE;
    if (!kv_record_get(&scan->record, &scan->header_crc, &segment->super, scan->image.bytes, &why) ||
        scan->record.seq < segment->end_seq)
        return FOUND_NOTHING;
    hear(&scan->told, scan->record.type, scan->record.end_seq,
         scan->record.token_index + scan->record.tokens);
    kv_record_layout(&scan->record, &layout);
    scan->told_bytes = at + layout.record_bytes;
    return layout.record_bytes > scan->file_bytes - at ? FOUND_NOTHING : FOUND_RECORD;
}

/* Reads and checks the whole record whose header was found. */
static enum finding check_record(struct segment_scan *scan, uint64_t at, struct status *st)
{
    struct kv_layout layout;
    struct status why;

    kv_record_layout(&scan->record, &layout);
    if (!make_image(scan, layout.record_bytes, st) ||
        !disk_read(scan->disk, scan->fd, scan->image.bytes, layout.record_bytes, at, st))
        return FOUND_FAILURE;
    return kv_record_verify(&scan->record, scan->image.bytes, &why) ? FOUND_RECORD : FOUND_DAMAGE;
}

/* From the last record to `to` stood records up to this number that were written and cannot be read. */
static bool mark_damage(struct segment_scan *scan, struct segment *segment, uint64_t to, uint64_t end_seq,
                        int64_t end_pts_ns, struct status *st)
{
    struct kv_entry entry = { .offset = scan->end,
                              .record_bytes = to - scan->end,
                              .seq = segment->end_seq,
                              .end_seq = end_seq,
                              .pts_ns = segment->end_pts_ns,
                              .end_pts_ns = end_pts_ns,
                              .type = KV_RECORD_FRAME,
                              .flags = KV_ENTRY_DAMAGED };

    if (entry.record_bytes == 0)
        return true;
    scan->damaged_bytes += entry.record_bytes;
    scan->damaged_frames += entry.end_seq - entry.seq;
    return add_entry(scan, &entry, "", st) && segment_scan_add(segment, &entry, "", st);
}

/* Synced, with nothing behind it that fits: damage too, and its numbers are not given again. What no header tells of had one
 * number at least. */
static bool mark_lost_end(struct segment_scan *scan, struct segment *segment, struct status *st)
{
    uint64_t end_seq = scan->told.seq > segment->end_seq ? scan->told.seq : segment->end_seq;

    if (!scan->is_open || scan->synced == UINT64_MAX || scan->end >= scan->synced)
        return true;
    if (scan->told_bytes < scan->synced)
        end_seq++;
    if (!mark_damage(scan, segment, scan->synced, end_seq, segment->end_pts_ns, st))
        return false;
    if (scan->told.token_index > segment->end_token_index)
        segment->end_token_index = scan->told.token_index;
    scan->end = scan->synced;
    scan->torn_bytes = 0;
    return true;
}

/* Behind the mark a sync may have failed, after which the system takes for written what is in its memory alone: before the file
 * is synced and believed it is written again. */
static void write_again(struct segment_scan *scan, uint64_t at, uint64_t bytes)
{
    struct iovec piece = { .iov_base = scan->image.bytes, .iov_len = bytes };
    struct status why;

    if (scan->is_open && at >= scan->synced && !disk_write(scan->disk, scan->fd, &piece, 1, at, &why))
        scan->unwritten = why;
}

static bool take_record(struct segment_scan *scan, struct segment *segment, uint64_t at, struct status *st)
{
    const struct kv_record *record = &scan->record;
    struct kv_layout layout;
    struct kv_entry entry;

    if (!mark_damage(scan, segment, at, record->seq, record->pts_ns, st))
        return false;
    kv_record_layout(record, &layout);
    kv_entry_of_record(&entry, record, at, scan->header_crc);
    if (!add_entry(scan, &entry, scan->image.bytes + layout.note, st) ||
        !segment_scan_add(segment, &entry, (const char *)scan->image.bytes + layout.note, st))
        return false;
    if (record->type == KV_RECORD_FRAME)
        index_frame_fill(index_part_at(&segment->index, segment->index.frame_count - 1), &segment->super,
                         record, scan->image.bytes);
    write_again(scan, at, layout.record_bytes);
    scan->chain = scan->header_crc;
    scan->end = at + layout.record_bytes;
    return true;
}

/* A file is made at its full length: what was never written of it is a hole, and can be long. */
static uint64_t skip_hole(const struct segment_scan *scan, uint64_t at)
{
    return disk_skip_hole(scan->disk, scan->fd, at, scan->file_bytes);
}

/* What was on the disk for sure, by the mark at the file's end; where there is none, *synced_p stays as it is. */
static bool read_mark(struct segment_scan *scan, uint64_t salt, uint64_t *synced_p, struct status *st)
{
    uint64_t at = round_down(scan->file_bytes, KV_PAGE_BYTES), synced;

    if (at < 2 * KV_PAGE_BYTES)
        return true;
    at -= KV_PAGE_BYTES;
    if (!make_image(scan, KV_HEADER_BYTES_MAX, st) ||
        !disk_read(scan->disk, scan->fd, scan->image.bytes, KV_PAGE_BYTES, at, st))
        return false;
    if (!kv_mark_get(salt, &synced, scan->image.bytes))
        return true;
    scan->file_bytes = at; /* it is no record */
    if (synced <= at && synced % KV_PAGE_BYTES == 0)
        *synced_p = synced;
    return true;
}

/* Where the mark was, a file that was being sealed has its trailer: all records were synced before that. */
static bool read_trailer(struct segment_scan *scan, const struct kv_super *super, struct status *st)
{
    struct kv_footer footer;
    struct status why;

    if (scan->synced > 0 || scan->file_bytes < 2 * KV_PAGE_BYTES || scan->file_bytes % KV_PAGE_BYTES != 0)
        return true;
    if (!make_image(scan, KV_HEADER_BYTES_MAX, st) ||
        !disk_read(scan->disk, scan->fd, scan->image.bytes, KV_PAGE_BYTES, scan->file_bytes - KV_PAGE_BYTES,
                   st))
        return false;
    if (kv_footer_get(&footer, super, scan->file_bytes, scan->image.bytes, &why))
        scan->synced = round_down(footer.table, KV_PAGE_BYTES);
    return true;
}

/* A file from before there were marks counts whole. */
static bool find_synced(struct segment_scan *scan, const struct kv_super *super, struct status *st)
{
    bool has_mark = scan->is_open && super->minor >= KV_FORMAT_MINOR_MARK;

    scan->synced = has_mark ? 0 : UINT64_MAX;
    return !has_mark || (read_mark(scan, super->salt, &scan->synced, st) && read_trailer(scan, super, st));
}

/* Where its own first number has gone as well it is this file that was to go, and stayed. */
static bool has_gone(const struct segment *segment, uint64_t seq)
{
    const struct history *history = &segment->stream->history;
    uint64_t first_seq = segment->super.first_seq;

    return history_has(history, seq) && (segment->end_seq == first_seq || !history_has(history, first_seq));
}

/* Written again to a later file after this one failed: it must not be back when that one has less of it, or has gone. */
static bool is_elsewhere(const struct segment_scan *scan, const struct segment *segment, uint64_t at)
{
    const struct kv_record *record = &scan->record;

    if (at < scan->synced || record->type == KV_RECORD_INIT)
        return false;
    return record->end_seq > scan->below_seq || has_gone(segment, record->seq);
}

/* A damaged record ends where its header says; without a header the next one may stand on any page. Behind what was synced
 * the first that does not fit is the end: those behind it may have come first, and their writer has them all. */
bool segment_scan_run(struct segment_scan *scan, struct segment *segment, struct status *st)
{
    uint64_t at = KV_PAGE_BYTES;
    bool is_cut = false;

    scan->end = KV_PAGE_BYTES;
    scan->chain = segment->super.crc;
    if (!find_synced(scan, &segment->super, st))
        return false;
    while (at + KV_PAGE_BYTES <= scan->file_bytes) {
        enum finding finding = look_at(scan, segment, at, st);
        struct kv_layout layout;

        is_cut |= finding == FOUND_RECORD && is_elsewhere(scan, segment, at);
        if (finding == FOUND_RECORD)
            finding = is_cut ? FOUND_DAMAGE : check_record(scan, at, st);
        if (finding == FOUND_FAILURE)
            return false;
        if (finding == FOUND_RECORD) {
            if (!take_record(scan, segment, at, st))
                return false;
            scan->torn_bytes = 0; /* it was damage */
            at = scan->end;
            continue;
        }
        is_cut |= at >= scan->synced;
        if (finding == FOUND_DAMAGE) {
            kv_record_layout(&scan->record, &layout);
            scan->torn_bytes += layout.record_bytes;
            at += layout.record_bytes;
        } else {
            scan->torn_bytes += bytes_are_zero(scan->image.bytes, KV_PAGE_BYTES) ? 0 : KV_PAGE_BYTES;
            at = skip_hole(scan, at + KV_PAGE_BYTES);
        }
    }
    return mark_lost_end(scan, segment, st);
}

/* Whether a header stands at `at`, though nothing is known of its segment; how far the next one may be. *unread says of
 * what could not be read since the last header: another may have stood there. */
static uint64_t look_for_end(struct segment_scan *scan, uint64_t at, uint64_t salt,
                             struct segment_scan_end *end, struct status *unread)
{
    uint64_t bytes = scan->file_bytes - at < KV_HEADER_BYTES_MAX ? KV_PAGE_BYTES : KV_HEADER_BYTES_MAX;
    struct kv_record_end found;
    struct status st;

    if (!disk_read(scan->disk, scan->fd, scan->image.bytes, bytes, at, &st)) {
        if (st.code != STATUS_DATA_LOSS)
            *unread = st;
        return KV_PAGE_BYTES;
    }
    if (kv_record_header_bytes(scan->image.bytes) > bytes ||
        !kv_record_get_end(&found, salt, scan->image.bytes, &st))
        return KV_PAGE_BYTES;
    hear(end, found.type, found.seq, found.token_index);
    unread->code = STATUS_OK;
    return found.record_bytes;
}

/* The superblock may be what does not fit, is another file's, or is not read now: then a mark alone can say that not all was
 * synced. */
static bool find_synced_anyhow(struct segment_scan *scan, uint64_t salt, struct kv_super *super,
                               struct status *st)
{
    struct status why;

    if (!make_image(scan, KV_HEADER_BYTES_MAX, st))
        return false;
    scan->synced = UINT64_MAX;
    if (!disk_read(scan->disk, scan->fd, scan->image.bytes, KV_PAGE_BYTES, 0, &why) ||
        !kv_super_get(super, scan->image.bytes, &why) || super->salt != salt ||
        !find_synced(scan, super, &why)) {
        scan->synced = UINT64_MAX;
        read_mark(scan, salt, &scan->synced, &why);
    }
    return true;
}

/* What fits behind what was synced for sure counts for a start that can read the file (segment_scan_run()): a sealed file whose
 * new name was lost has no mark. */
static bool hear_what_fits(struct segment_scan *scan, const struct kv_super *super, uint64_t at,
                           struct segment_scan_end *end, struct status *st)
{
    struct segment segment = { .super = *super, .end_seq = end->seq };

    for (;;) {
        enum finding finding = look_at(scan, &segment, at, st);
        struct kv_layout layout;

        if (finding == FOUND_RECORD)
            finding = check_record(scan, at, st);
        if (finding != FOUND_RECORD)
            return finding != FOUND_FAILURE;
        segment.end_seq = scan->record.end_seq;
        hear(end, scan->record.type, scan->record.end_seq, scan->record.token_index + scan->record.tokens);
        kv_record_layout(&scan->record, &layout);
        at += layout.record_bytes;
    }
}

bool segment_scan_end(const struct file_ops *disk, const char *path, uint64_t salt,
                      struct segment_scan_end *end_p, struct status *st)
{
    struct segment_scan_end end = { 0 };
    struct segment_scan scan = { .disk = disk,
                                 .fd = disk_open(disk, path, O_RDONLY, st),
                                 .is_open = strcmp(strrchr(path, '.'), ".open") == 0 };
    struct kv_super super = { 0 };
    bool ok = scan.fd >= 0 && disk_length(disk, scan.fd, &scan.file_bytes, st) &&
              find_synced_anyhow(&scan, salt, &super, st);
    struct status unread = { 0 };
    uint64_t at = KV_PAGE_BYTES;

    for (; ok && at < scan.synced && at + KV_PAGE_BYTES <= scan.file_bytes; at = skip_hole(&scan, at))
        at += look_for_end(&scan, at, salt, &end, &unread);
    if (ok && super.salt == salt && scan.synced != UINT64_MAX)
        ok = hear_what_fits(&scan, &super, at, &end, st);
    if (unread.code != STATUS_OK) {
        *st = unread;
        ok = status_wrap(st, "%s", path);
    }
    if (scan.fd >= 0)
        disk->close(scan.fd);
    segment_scan_free(&scan);
    if (ok)
        *end_p = end;
    return ok;
}

void segment_scan_free(struct segment_scan *scan)
{
    segment_image_free(&scan->image);
    segment_list_free(&scan->list);
}
