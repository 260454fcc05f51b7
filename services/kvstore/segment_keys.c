#include "kvstore/segment_keys.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "kv/kv_crc.h"

/* A part of the footer that has one checksum: the sums, or a layer's column. */
struct footer_part {
    const struct kv_footer *footer;
    const struct index_part *index;
    uint64_t start, end;
    uint32_t layer; /* footer->layers: the sums */
    uint32_t crc, want;
};

static void begin(struct footer_part *part, uint32_t layer)
{
    const struct kv_footer *footer = part->footer;
    bool is_sums = layer == footer->layers;

    part->layer = layer;
    part->crc = 0;
    part->start = is_sums ? footer->sums : footer->columns + layer * footer->column_stride;
    part->end = is_sums ? footer->columns : kv_footer_column_end(footer, layer);
    part->want = is_sums ? footer->sums_crc : footer->column_crc[layer];
}

/* `at` and `len` are multiples of four: pieces are whole pages. */
static void take_sums(const struct footer_part *part, uint64_t at, const uint8_t *bytes, uint64_t len)
{
    uint32_t slices = 2 * part->footer->layers;

    for (uint64_t i = 0; i < len; i += sizeof(uint32_t)) {
        uint64_t sum = (at + i) / sizeof(uint32_t), frame = sum / slices;

        if (frame >= part->index->frame_count)
            return;
        index_frame_sums(index_part_at(part->index, frame))[sum % slices] = get_u32(bytes + i);
    }
}

static void take_keys(const struct footer_part *part, uint64_t at, const uint8_t *bytes, uint64_t len)
{
    uint32_t key_bytes = kv_key_bytes(&part->index->chunks[0]->geometry);

    while (len > 0 && at / key_bytes < part->index->frame_count) {
        const struct index_frame *frame = index_part_at(part->index, at / key_bytes);
        uint64_t within = at % key_bytes, count = key_bytes - within < len ? key_bytes - within : len;

        memcpy(index_frame_key(frame, part->layer) + within, bytes, count);
        at += count;
        bytes += count;
        len -= count;
    }
}

/* The piece of the file that starts at `from`: what of it is this part's. False: the part ends in it and does not fit. */
static bool take_piece(struct footer_part *part, uint64_t from, const uint8_t *piece, uint64_t len)
{
    uint64_t start = part->start > from ? part->start : from;
    uint64_t end = part->end < from + len ? part->end : from + len;

    if (start < end) {
        const uint8_t *bytes = piece + (start - from);

        part->crc = kv_crc(part->crc, bytes, end - start);
        if (part->index->frame_count > 0 && part->layer == part->footer->layers)
            take_sums(part, start - part->start, bytes, end - start);
        else if (part->index->frame_count > 0)
            take_keys(part, start - part->start, bytes, end - start);
    }
    return end < part->end || part->crc == part->want;
}

bool segment_keys_read(const struct file_ops *disk, int fd, const struct kv_footer *footer,
                       const struct index_part *index, struct status *st)
{
    struct footer_part part = { .footer = footer, .index = index };
    uint64_t end = footer->file_bytes - KV_PAGE_BYTES, at = footer->sums;
    uint64_t room = end - at < SEGMENT_KEYS_PIECE_BYTES ? end - at : SEGMENT_KEYS_PIECE_BYTES;
    uint32_t next = 0; /* layer */
    uint8_t *piece = disk_buffer(room > 0 ? room : KV_PAGE_BYTES);
    bool ok = piece != NULL || status_fail(st, STATUS_EXHAUSTED, "no memory for keys");

    begin(&part, footer->layers);
    while (ok && at < end) {
        uint64_t len = end - at < room ? end - at : room;

        ok = disk_read(disk, fd, piece, len, at, st);
        while (ok) {
            ok = take_piece(&part, at, piece, len) ||
                 status_fail(st, STATUS_DATA_LOSS, "checksum of the %s does not fit",
                             part.layer == footer->layers ? "sums" : "keys");
            if (part.end > at + len || next == footer->layers)
                break;
            begin(&part, next++);
        }
        at += len;
    }
    disk_buffer_free(piece, room > 0 ? room : KV_PAGE_BYTES);
    return ok;
}

/* --- from the records --- */

/* A frame's keys and sums from its whole record. */
static bool repair_frame(const struct file_ops *disk, int fd, const struct segment *segment,
                         const struct index_frame *frame, uint8_t *image, struct status *st)
{
    struct kv_record record;
    struct kv_layout layout;
    uint32_t crc;

    if (!disk_read(disk, fd, image, frame->record_bytes, frame->offset, st) ||
        !kv_record_get(&record, &crc, &segment->super, image, st))
        return false;
    kv_record_layout(&record, &layout);
    if (record.type != KV_RECORD_FRAME || record.seq != frame->seq ||
        layout.record_bytes != frame->record_bytes)
        return status_fail(st, STATUS_DATA_LOSS, "another record stands there");
    if (!kv_record_verify(&record, image, st))
        return false;
    index_frame_fill(frame, &segment->super, &record, image);
    return true;
}

/* A view that is older than the damage may score it still. */
static void clear(const struct index_frame *frame)
{
    const struct kv_geometry *geometry = &frame->chunk->geometry;

    memset(index_frame_sums(frame), 0, 2 * geometry->layers * sizeof(uint32_t));
    for (uint32_t layer = 0; layer < geometry->layers; layer++)
        memset(index_frame_key(frame, layer), 0, kv_key_bytes(geometry));
}

bool segment_keys_repair(const struct file_ops *disk, int fd, const struct segment *segment,
                         bool takes_unread, bool *is_damaged, struct status *st)
{
    uint64_t room = 0;
    uint8_t *image = NULL;
    bool ok = true;

    for (uint64_t n = 0; ok && n < segment->index.frame_count; n++) {
        const struct index_frame *frame = index_part_at(&segment->index, n);

        if (frame->record_bytes > room) {
            disk_buffer_free(image, room);
            room = frame->record_bytes;
            image = disk_buffer(room);
            if (image == NULL)
                return status_fail(st, STATUS_EXHAUSTED, "no memory for a record");
        }
        is_damaged[n] = fd < 0 || !repair_frame(disk, fd, segment, frame, image, st);
        if (is_damaged[n])
            clear(frame);
        ok = !is_damaged[n] || fd < 0 || st->code == STATUS_DATA_LOSS ||
             (takes_unread && st->code == STATUS_UNAVAILABLE);
    }
    disk_buffer_free(image, room);
    return ok;
}
