/* kv_footer.h - the end of a sealed segment: which records it has, and their representative keys by layer.
 * Layout in kv_format.h.
 *
 * Thread: any. Fails: DATA_LOSS for bytes that do not fit, UNIMPLEMENTED for another version. */
#ifndef REELKV_KV_KV_FOOTER_H
#define REELKV_KV_KV_FOOTER_H

#include "kv/kv_format.h"

enum { KV_ENTRY_DAMAGED = 1, KV_ENTRY_WITHOUT_SLICES = 2, KV_SEGMENT_RECORDS_MAX = 1 << 20 };

struct kv_entry {
    uint64_t offset; /* of the record in the file */
    uint64_t record_bytes;
    uint64_t seq, end_seq;
    int64_t pts_ns, end_pts_ns;
    uint64_t token_index;
    uint32_t tokens;
    enum kv_record_type type;
    uint16_t event;
    uint32_t flags;
    uint32_t header_crc;
    uint32_t note_bytes;
    uint32_t thumbnail_bytes;
    uint32_t embedding_bytes;
    struct kv_encoding encoding; /* of its slices */
};

static inline bool kv_entry_is_damaged(const struct kv_entry *entry)
{
    return (entry->flags & KV_ENTRY_DAMAGED) != 0 ||
           (entry->type == KV_RECORD_TOMBSTONE && entry->event == KV_TOMBSTONE_DAMAGED);
}

void kv_entry_of_record(struct kv_entry *entry, const struct kv_record *record, uint64_t offset,
                        uint32_t header_crc);
/* Where the parts of a block's record lie. */
void kv_entry_layout(const struct kv_entry *entry, const struct kv_geometry *geometry,
                     struct kv_layout *layout);

void kv_entry_put(const struct kv_entry *entry, uint8_t bytes[KV_ENTRY_BYTES]);
bool kv_entry_get(struct kv_entry *entry, const struct kv_geometry *geometry,
                  const uint8_t bytes[KV_ENTRY_BYTES], struct status *st);

/* Offsets from the start of the file. */
struct kv_footer {
    uint32_t records, frames, layers;
    uint64_t salt;
    uint64_t end_seq; /* of the last record */
    uint64_t table, notes, notes_bytes, sums, columns, column_stride, file_bytes;
    uint32_t table_crc, notes_crc, sums_crc, chain, super_crc;
    uint32_t column_crc[LIMIT_LAYERS];
};

/* Fills the offsets for a footer that starts at `at` (a multiple of KV_PAGE_BYTES), from records, frames,
 * layers, notes_bytes and the bytes of one key. */
void kv_footer_place(struct kv_footer *footer, uint64_t at, uint32_t key_bytes);

/* Where the zeros behind a layer's column end: its CRC covers them, as those of the other parts do. */
static inline uint64_t kv_footer_column_end(const struct kv_footer *footer, uint32_t layer)
{
    return layer + 1 < footer->layers ? footer->columns + (layer + 1) * footer->column_stride
                                      : footer->file_bytes - KV_PAGE_BYTES;
}

void kv_footer_put(const struct kv_footer *footer, uint8_t page[KV_PAGE_BYTES]);

/* Checks the page, that it belongs to `super`, and that all offsets lie where kv_footer_place() puts them in
 * a file of `file_bytes`. */
bool kv_footer_get(struct kv_footer *footer, const struct kv_super *super, uint64_t file_bytes,
                   const uint8_t page[KV_PAGE_BYTES], struct status *st);

#endif
