/* Footers. The layout is in kv_format.h. */
#include "kv/kv_footer.h"

#include "base/bytes.h"
#include "kv/kv_crc.h"

#define TRAILER_MAGIC 0x4c49415254564b52ull /* "RKVTRAIL" */

void kv_entry_of_record(struct kv_entry *entry, const struct kv_record *record, uint64_t offset,
                        uint32_t header_crc)
{
    struct kv_layout layout;

    kv_record_layout(record, &layout);
    *entry = (struct kv_entry){ .offset = offset,
                                .record_bytes = layout.record_bytes,
                                .seq = record->seq,
                                .end_seq = record->end_seq,
                                .pts_ns = record->pts_ns,
                                .end_pts_ns = record->end_pts_ns,
                                .token_index = record->token_index,
                                .tokens = record->tokens,
                                .type = record->type,
                                .event = record->event,
                                .header_crc = header_crc,
                                .note_bytes = record->note_bytes,
                                .thumbnail_bytes = record->thumbnail_bytes,
                                .embedding_bytes = record->embedding_bytes,
                                .encoding = kv_record_encoding(record) };
    if (record->type == KV_RECORD_FRAME && record->layers == 0)
        entry->flags |= KV_ENTRY_WITHOUT_SLICES;
}

void kv_entry_layout(const struct kv_entry *entry, const struct kv_geometry *geometry,
                     struct kv_layout *layout)
{
    struct kv_record record;

    kv_record_init_block(&record, entry->type, geometry, entry->tokens);
    record.note_bytes = entry->note_bytes;
    record.thumbnail_bytes = entry->thumbnail_bytes;
    record.embedding_bytes = entry->embedding_bytes;
    if (entry->flags & KV_ENTRY_WITHOUT_SLICES)
        kv_record_drop_slices(&record);
    kv_record_encode(&record, geometry, entry->encoding);
    kv_record_layout(&record, layout);
}

void kv_entry_put(const struct kv_entry *entry, uint8_t bytes[KV_ENTRY_BYTES])
{
    memset(bytes, 0, KV_ENTRY_BYTES);
    put_u64(bytes, entry->offset);
    put_u64(bytes + 8, entry->record_bytes);
    put_u64(bytes + 16, entry->seq);
    put_u64(bytes + 24, entry->end_seq);
    put_u64(bytes + 32, (uint64_t)entry->pts_ns);
    put_u64(bytes + 40, (uint64_t)entry->end_pts_ns);
    put_u64(bytes + 48, entry->token_index);
    put_u32(bytes + 56, entry->tokens);
    put_u16(bytes + 60, (uint16_t)entry->type);
    put_u16(bytes + 62, entry->event);
    put_u32(bytes + 64, entry->flags);
    put_u32(bytes + 72, entry->header_crc);
    put_u32(bytes + 76, entry->note_bytes);
    put_u32(bytes + 80, entry->thumbnail_bytes);
    put_u32(bytes + 84, entry->embedding_bytes);
    put_u16(bytes + 88, entry->encoding.bits);
    put_u16(bytes + 90, entry->encoding.group);
}

bool kv_entry_get(struct kv_entry *entry, const struct kv_geometry *geometry,
                  const uint8_t bytes[KV_ENTRY_BYTES], struct status *st)
{
    struct kv_entry got = { .offset = get_u64(bytes),
                            .record_bytes = get_u64(bytes + 8),
                            .seq = get_u64(bytes + 16),
                            .end_seq = get_u64(bytes + 24),
                            .pts_ns = (int64_t)get_u64(bytes + 32),
                            .end_pts_ns = (int64_t)get_u64(bytes + 40),
                            .token_index = get_u64(bytes + 48),
                            .tokens = get_u32(bytes + 56),
                            .type = (enum kv_record_type)get_u16(bytes + 60),
                            .event = get_u16(bytes + 62),
                            .flags = get_u32(bytes + 64),
                            .header_crc = get_u32(bytes + 72),
                            .note_bytes = get_u32(bytes + 76),
                            .thumbnail_bytes = get_u32(bytes + 80),
                            .embedding_bytes = get_u32(bytes + 84),
                            .encoding = { .bits = get_u16(bytes + 88), .group = get_u16(bytes + 90) } };

    if (!kv_record_type_is_read(got.type))
        return status_fail(st, STATUS_UNIMPLEMENTED, "footer: record type %d is not read by this version",
                           (int)got.type);
    if (got.offset % KV_PAGE_BYTES != 0 || got.record_bytes % KV_PAGE_BYTES != 0 ||
        got.offset < KV_PAGE_BYTES || got.record_bytes < KV_PAGE_BYTES || got.end_seq < got.seq ||
        got.note_bytes > KV_NOTE_BYTES_MAX || got.thumbnail_bytes > LIMIT_THUMBNAIL_BYTES ||
        got.embedding_bytes > KV_EMBEDDING_BYTES_MAX || got.tokens > LIMIT_FRAME_TOKENS ||
        !kv_encoding_fits(geometry, got.encoding))
        return status_fail(st, STATUS_DATA_LOSS, "footer: an entry makes no sense");
    *entry = got;
    return true;
}

void kv_footer_place(struct kv_footer *footer, uint64_t at, uint32_t key_bytes)
{
    footer->table = at;
    footer->notes = round_up(at + (uint64_t)footer->records * KV_ENTRY_BYTES, KV_PAGE_BYTES);
    footer->sums = round_up(footer->notes + footer->notes_bytes, KV_PAGE_BYTES);
    footer->columns =
        round_up(footer->sums + (uint64_t)footer->frames * 2 * footer->layers * sizeof(uint32_t),
                 KV_PAGE_BYTES);
    footer->column_stride = round_up((uint64_t)footer->frames * key_bytes, KV_PART_ALIGN);
    footer->file_bytes =
        round_up(footer->columns + footer->column_stride * footer->layers, KV_PAGE_BYTES) + KV_PAGE_BYTES;
}

void kv_footer_put(const struct kv_footer *footer, uint8_t page[KV_PAGE_BYTES])
{
    memset(page, 0, KV_PAGE_BYTES);
    put_u64(page, TRAILER_MAGIC);
    put_u16(page + 8, KV_FORMAT_MAJOR);
    put_u16(page + 10, KV_FORMAT_MINOR);
    put_u32(page + 12, footer->records);
    put_u64(page + 16, footer->salt);
    put_u32(page + 24, footer->frames);
    put_u32(page + 28, footer->layers);
    put_u64(page + 32, footer->end_seq);
    put_u64(page + 40, footer->table);
    put_u64(page + 48, footer->notes);
    put_u64(page + 56, footer->notes_bytes);
    put_u64(page + 64, footer->columns);
    put_u64(page + 72, footer->file_bytes);
    put_u64(page + 80, footer->column_stride);
    put_u32(page + 88, footer->table_crc);
    put_u32(page + 92, footer->notes_crc);
    put_u32(page + 96, footer->chain);
    put_u32(page + 100, footer->super_crc);
    put_u64(page + 104, footer->sums);
    put_u32(page + 112, footer->sums_crc);
    for (uint32_t layer = 0; layer < footer->layers; layer++)
        put_u32(page + 128 + 4 * layer, footer->column_crc[layer]);
    put_u32(page + KV_PAGE_BYTES - 4, kv_crc(0, page, KV_PAGE_BYTES - 4));
}

static void get_fields(struct kv_footer *footer, const uint8_t *page)
{
    footer->records = get_u32(page + 12);
    footer->salt = get_u64(page + 16);
    footer->frames = get_u32(page + 24);
    footer->layers = get_u32(page + 28);
    footer->end_seq = get_u64(page + 32);
    footer->table = get_u64(page + 40);
    footer->notes = get_u64(page + 48);
    footer->notes_bytes = get_u64(page + 56);
    footer->columns = get_u64(page + 64);
    footer->file_bytes = get_u64(page + 72);
    footer->column_stride = get_u64(page + 80);
    footer->table_crc = get_u32(page + 88);
    footer->notes_crc = get_u32(page + 92);
    footer->chain = get_u32(page + 96);
    footer->super_crc = get_u32(page + 100);
    footer->sums = get_u64(page + 104);
    footer->sums_crc = get_u32(page + 112);
}

/* The offsets follow from the counts: a footer that says otherwise is not ours. */
static bool is_placed(const struct kv_footer *footer, const struct kv_super *super, uint64_t file_bytes)
{
    struct kv_footer placed = *footer;

    if (footer->frames > footer->records || footer->records > KV_SEGMENT_RECORDS_MAX ||
        footer->notes_bytes > (uint64_t)footer->records * KV_NOTE_BYTES_MAX ||
        footer->table % KV_PAGE_BYTES != 0 || footer->table < KV_PAGE_BYTES || footer->table >= file_bytes)
        return false;
    kv_footer_place(&placed, footer->table, kv_key_bytes(&super->geometry));
    return placed.notes == footer->notes && placed.sums == footer->sums &&
           placed.columns == footer->columns && placed.column_stride == footer->column_stride &&
           placed.file_bytes == footer->file_bytes && footer->file_bytes == file_bytes;
}

bool kv_footer_get(struct kv_footer *footer, const struct kv_super *super, uint64_t file_bytes,
                   const uint8_t page[KV_PAGE_BYTES], struct status *st)
{
    struct kv_footer got = { 0 };

    if (get_u64(page) != TRAILER_MAGIC)
        return status_fail(st, STATUS_DATA_LOSS, "no trailer: the segment was not sealed");
    if (kv_crc(0, page, KV_PAGE_BYTES - 4) != get_u32(page + KV_PAGE_BYTES - 4))
        return status_fail(st, STATUS_DATA_LOSS, "trailer: checksum does not fit");
    if (get_u16(page + 8) != KV_FORMAT_MAJOR || get_u16(page + 10) > KV_FORMAT_MINOR)
        return status_fail(st, STATUS_UNIMPLEMENTED,
                           "trailer of format %u.%u; this version reads up to %u.%u", get_u16(page + 8),
                           get_u16(page + 10), KV_FORMAT_MAJOR, KV_FORMAT_MINOR);
    get_fields(&got, page);
    if (got.salt != super->salt || got.super_crc != super->crc || got.layers != super->geometry.layers)
        return status_fail(st, STATUS_DATA_LOSS, "trailer: from another segment");
    if (!is_placed(&got, super, file_bytes))
        return status_fail(st, STATUS_DATA_LOSS, "trailer: its offsets do not fit the file");
    for (uint32_t layer = 0; layer < got.layers; layer++)
        got.column_crc[layer] = get_u32(page + 128 + 4 * layer);
    *footer = got;
    return true;
}
