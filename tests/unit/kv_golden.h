/* kv_golden.h - composes a whole sealed segment in memory, with fixed salt and content: INIT, three frames of
 * different token counts, one of 8 and one of 4 bits, one without slices, a tombstone, a gap, the end. The golden files in tests/data/ were written from it, one a format
 * version; a version's file never changes afterwards. */
#ifndef REELKV_TEST_KV_GOLDEN_H
#define REELKV_TEST_KV_GOLDEN_H

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "kv/kv_footer.h"

enum { GOLDEN_RECORDS = 10, GOLDEN_FRAMES = 6, GOLDEN_BYTES_MAX = 1 << 18, GOLDEN_PAYLOAD_MAX = 1 << 13 };

struct golden {
    struct kv_super super;
    struct kv_footer footer;
    struct kv_entry entries[GOLDEN_RECORDS];
    struct kv_record records[GOLDEN_RECORDS];
    uint8_t *bytes; /* the file; free() */
    uint64_t len;
};

static const struct kv_geometry golden_geometry = {
    .layers = 3, .kv_heads = 2, .head_dim = 5, .dtype = KV_DTYPE_F16
};

/* Byte `at` of the payload of `seq`: any function of both will do. */
static inline uint8_t golden_byte(uint64_t seq, uint64_t at)
{
    return (uint8_t)((at * 31 + seq * 7 + at / 251) & 0x7b); /* small positive f16 numbers */
}

/* As it is written: the slices encoded. */
static inline void golden_payload(const struct kv_record *record, uint8_t payload[GOLDEN_PAYLOAD_MAX])
{
    uint64_t from = 0, slice_bytes = kv_slice_bytes(&golden_geometry, record->tokens);
    uint8_t *to = payload, slice[GOLDEN_PAYLOAD_MAX];

    REQUIRE(kv_payload_bytes(&golden_geometry, record->tokens) <= GOLDEN_PAYLOAD_MAX);
    for (; from < record->keys_bytes; from++)
        *to++ = golden_byte(record->seq, from);
    for (uint32_t i = 0; i < 2 * record->layers; i++) {
        for (uint64_t at = 0; at < slice_bytes; at++)
            slice[at] = golden_byte(record->seq, from++);
        if (kv_record_encoding(record).bits == 0)
            memcpy(to, slice, slice_bytes);
        else
            REQUIRE(kv_quant_encode(&golden_geometry, kv_record_encoding(record), record->tokens, slice, to));
        to += record->slices[i].bytes;
    }
}

static inline void golden_add(struct golden *golden, uint32_t index, struct kv_record *record,
                              const char *note, const char *thumbnail)
{
    uint8_t *image = golden->bytes + golden->len;
    uint8_t payload[GOLDEN_PAYLOAD_MAX];
    struct kv_layout layout;

    record->epoch = golden->super.epoch;
    record->note_bytes = (uint32_t)strlen(note);
    record->thumbnail_bytes = (uint32_t)strlen(thumbnail);
    record->chain = index == 0 ? golden->super.crc : golden->entries[index - 1].header_crc;
    kv_record_layout(record, &layout);
    REQUIRE(golden->len + layout.record_bytes < GOLDEN_BYTES_MAX);
    memcpy(image + layout.note, note, strlen(note));
    memcpy(image + layout.thumbnail, thumbnail, strlen(thumbnail));
    golden_payload(record, payload);
    kv_record_scatter(record, 0, payload, kv_record_payload_bytes(record), image);
    kv_record_checksum(record, image);
    golden->records[index] = *record;
    kv_entry_of_record(&golden->entries[index], record, golden->len,
                       kv_record_put(record, &golden->super, image));
    golden->len += layout.record_bytes;
}

static inline void golden_put_sums(uint8_t *to, const struct kv_record *record, const struct kv_super *super)
{
    for (uint32_t slice = 0; slice < 2 * record->layers; slice++)
        put_u32(to + 4 * slice, kv_slice_crc_written(super, record->seq, slice, record->slices[slice].crc,
                                                     record->slices[slice].bytes));
}

static inline void golden_seal(struct golden *golden)
{
    struct kv_footer *footer = &golden->footer;
    uint32_t key_bytes = kv_key_bytes(&golden_geometry), frame = 0;
    uint8_t *note, *table;

    *footer = (struct kv_footer){ .records = GOLDEN_RECORDS,
                                  .frames = GOLDEN_FRAMES,
                                  .layers = golden_geometry.layers,
                                  .salt = golden->super.salt,
                                  .end_seq = golden->entries[GOLDEN_RECORDS - 1].end_seq,
                                  .chain = golden->entries[GOLDEN_RECORDS - 1].header_crc,
                                  .super_crc = golden->super.crc };
    for (uint32_t i = 0; i < GOLDEN_RECORDS; i++)
        footer->notes_bytes += golden->entries[i].note_bytes;
    kv_footer_place(footer, golden->len, key_bytes);
    REQUIRE(footer->file_bytes <= GOLDEN_BYTES_MAX);
    table = golden->bytes + footer->table;
    note = golden->bytes + footer->notes;
    for (uint32_t i = 0; i < GOLDEN_RECORDS; i++) {
        const struct kv_entry *entry = &golden->entries[i];
        const uint8_t *image = golden->bytes + entry->offset;
        struct kv_layout layout;

        kv_record_layout(&golden->records[i], &layout);
        kv_entry_put(entry, table + i * KV_ENTRY_BYTES);
        memcpy(note, image + layout.note, entry->note_bytes);
        note += entry->note_bytes;
        if (entry->type != KV_RECORD_FRAME)
            continue;
        for (uint32_t layer = 0; layer < footer->layers; layer++)
            memcpy(golden->bytes + footer->columns + layer * footer->column_stride + frame * key_bytes,
                   image + layout.keys + layer * key_bytes, key_bytes);
        golden_put_sums(golden->bytes + footer->sums + (uint64_t)frame * 2 * footer->layers * 4,
                        &golden->records[i], &golden->super);
        frame++;
    }
    footer->table_crc = kv_crc(0, table, footer->notes - footer->table);
    footer->notes_crc = kv_crc(0, golden->bytes + footer->notes, footer->sums - footer->notes);
    footer->sums_crc = kv_crc(0, golden->bytes + footer->sums, footer->columns - footer->sums);
    for (uint32_t layer = 0; layer < footer->layers; layer++) {
        uint64_t start = footer->columns + layer * footer->column_stride;

        footer->column_crc[layer] =
            kv_crc(0, golden->bytes + start, kv_footer_column_end(footer, layer) - start);
    }
    golden->len = footer->file_bytes;
    kv_footer_put(footer, golden->bytes + golden->len - KV_PAGE_BYTES);
}

static inline void golden_compose(struct golden *golden)
{
    static const uint32_t tokens[GOLDEN_FRAMES] = { 1, 7, 32, 9, 3, 5 };
    static const uint16_t bits[GOLDEN_FRAMES] = { 0, 0, 0, 8, 4, 0 };
    struct kv_record record;

    *golden = (struct golden){ .bytes = calloc(1, GOLDEN_BYTES_MAX), .len = KV_PAGE_BYTES };
    REQUIRE(golden->bytes != NULL);
    golden->super = (struct kv_super){ .salt = 0x0123456789abcdef,
                                       .epoch = 3,
                                       .geometry = golden_geometry,
                                       .created_ns = 1700000000000000000,
                                       .first_seq = 40,
                                       .replaces = 0xfedcba9876543210,
                                       .aged = { .thin = 4, .bits = 8, .keys_only = true },
                                       .ns = "default",
                                       .stream = "dock-2" };
    for (unsigned i = 0; i < KV_FINGERPRINT_BYTES; i++)
        golden->super.fingerprint[i] = (uint8_t)(i * 17);
    kv_super_put(&golden->super, golden->bytes);

    kv_record_init_block(&record, KV_RECORD_INIT, &golden_geometry, 4);
    record.seq = record.end_seq = 40;
    golden_add(golden, 0, &record, "", "");
    for (uint32_t i = 0; i < GOLDEN_FRAMES; i++) {
        kv_record_init_block(&record, KV_RECORD_FRAME, &golden_geometry, tokens[i]);
        record.seq = 40 + i;
        record.end_seq = 41 + i;
        record.pts_ns = record.end_pts_ns = 1700000000000000000 + i * 2000000000ll;
        record.token_index = 1000 + 100 * i;
        kv_record_encode(&record, &golden_geometry, kv_quant_encoding(&golden_geometry, bits[i]));
        if (i == GOLDEN_FRAMES - 1)
            kv_record_drop_slices(&record);
        golden_add(golden, 1 + i, &record, "", i == 1 ? "a picture of the dock" : "");
    }
    record = (struct kv_record){ .type = KV_RECORD_TOMBSTONE,
                                 .event = KV_TOMBSTONE_THINNED,
                                 .seq = 46,
                                 .end_seq = 50,
                                 .pts_ns = 1700000012000000000,
                                 .end_pts_ns = 1700000018000000000 };
    golden_add(golden, 7, &record, "thinned", "");
    record = (struct kv_record){ .type = KV_RECORD_GAP,
                                 .seq = 50,
                                 .end_seq = 57,
                                 .pts_ns = 1700000020000000000,
                                 .end_pts_ns = 1700000034000000000 };
    golden_add(golden, 8, &record, "the camera was not reachable", "");
    record = (struct kv_record){ .type = KV_RECORD_EVENT, .event = KV_EVENT_END, .seq = 57, .end_seq = 57 };
    golden_add(golden, 9, &record, "", "");
    golden_seal(golden);
}

#endif
