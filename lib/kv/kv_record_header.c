/* The header of a record: written, read, and checked before anything of it is used. The layout is in kv_format.h. */
#include "base/bytes.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "kv/kv_format.h"
#include "kv/kv_record_internal.h"

#define RECORD_MAGIC 0x52564b52u /* "RKVR" */

static uint32_t seeded(uint32_t plain, uint64_t salt, uint64_t seq, uint32_t part, uint64_t bytes)
{
    return kv_crc_join(kv_crc_identity(salt, seq, part), plain, bytes);
}

static uint32_t unseeded(uint32_t written, uint64_t salt, uint64_t seq, uint32_t part, uint64_t bytes)
{
    return kv_crc_unseed(written, kv_crc_identity(salt, seq, part), bytes);
}

uint32_t kv_slice_crc_written(const struct kv_super *super, uint64_t seq, uint32_t slice, uint32_t crc,
                              uint64_t bytes)
{
    return seeded(crc, super->salt, seq, slice, bytes);
}

uint32_t kv_slice_crc_plain(const struct kv_super *super, uint64_t seq, uint32_t slice, uint32_t written,
                            uint64_t bytes)
{
    return unseeded(written, super->salt, seq, slice, bytes);
}

uint32_t kv_record_put(const struct kv_record *record, const struct kv_super *super, uint8_t *image)
{
    struct kv_layout layout;
    uint64_t salt = super->salt, seq = record->seq;
    uint32_t crc;

    kv_record_layout(record, &layout);
    memset(image, 0, layout.header_bytes);
    put_u32(image, RECORD_MAGIC);
    put_u16(image + 4, (uint16_t)record->type);
    put_u16(image + 6, record->event);
    put_u64(image + 8, salt);
    put_u64(image + 16, seq);
    put_u64(image + 24, record->end_seq);
    put_u64(image + 32, (uint64_t)record->pts_ns);
    put_u64(image + 40, (uint64_t)record->end_pts_ns);
    put_u64(image + 48, record->token_index);
    put_u32(image + 56, record->tokens);
    put_u32(image + 60, layout.header_bytes);
    put_u64(image + 64, layout.record_bytes);
    put_u64(image + 72, record->epoch);
    put_u64(image + 80, record->supersedes);
    put_u64(image + 88, record->key_id);
    put_u32(image + 96, record->note_bytes);
    put_u32(image + 100, record->thumbnail_bytes);
    put_u32(image + 104, record->embedding_bytes);
    put_u32(image + 108, record->layers);
    put_u64(image + 112, record->keys_bytes);
    put_u32(image + 120, seeded(record->note_crc, salt, seq, KV_PART_NOTE, record->note_bytes));
    put_u32(image + 124,
            seeded(record->thumbnail_crc, salt, seq, KV_PART_THUMBNAIL, record->thumbnail_bytes));
    put_u32(image + 128,
            seeded(record->embedding_crc, salt, seq, KV_PART_EMBEDDING, record->embedding_bytes));
    put_u32(image + 132, seeded(record->keys_crc, salt, seq, KV_PART_KEYS, record->keys_bytes));
    put_u32(image + 136, record->chain);
    for (uint32_t i = 0; i < 2 * record->layers; i++) {
        const struct kv_slice *slice = &record->slices[i];
        uint8_t *at = image + KV_RECORD_TABLE_OFFSET + i * KV_SLICE_ENTRY_BYTES;

        put_u32(at, slice->tokens);
        put_u16(at + 4, slice->encoding.bits);
        put_u16(at + 6, slice->encoding.group);
        put_u32(at + 8, slice->bytes);
        put_u32(at + 12, seeded(slice->crc, salt, seq, i, slice->bytes));
    }
    crc = kv_crc(0, image, layout.header_bytes - 4);
    put_u32(image + layout.header_bytes - 4, crc);
    return crc;
}

uint32_t kv_record_header_bytes(const uint8_t page[KV_PAGE_BYTES])
{
    uint32_t bytes = get_u32(page + 60), layers = get_u32(page + 108);

    if (get_u32(page) != RECORD_MAGIC || layers > LIMIT_LAYERS || bytes != kv_record_header_bytes_of(layers))
        return 0;
    return bytes;
}

static void get_fields(struct kv_record *record, const uint8_t *header)
{
    record->type = (enum kv_record_type)get_u16(header + 4);
    record->event = get_u16(header + 6);
    record->seq = get_u64(header + 16);
    record->end_seq = get_u64(header + 24);
    record->pts_ns = (int64_t)get_u64(header + 32);
    record->end_pts_ns = (int64_t)get_u64(header + 40);
    record->token_index = get_u64(header + 48);
    record->tokens = get_u32(header + 56);
    record->epoch = get_u64(header + 72);
    record->supersedes = get_u64(header + 80);
    record->key_id = get_u64(header + 88);
    record->note_bytes = get_u32(header + 96);
    record->thumbnail_bytes = get_u32(header + 100);
    record->embedding_bytes = get_u32(header + 104);
    record->layers = get_u32(header + 108);
    record->keys_bytes = get_u64(header + 112);
    record->chain = get_u32(header + 136);
}

static void get_crcs(struct kv_record *record, const uint8_t *header, uint64_t salt)
{
    uint64_t seq = record->seq;

    record->note_crc = unseeded(get_u32(header + 120), salt, seq, KV_PART_NOTE, record->note_bytes);
    record->thumbnail_crc =
        unseeded(get_u32(header + 124), salt, seq, KV_PART_THUMBNAIL, record->thumbnail_bytes);
    record->embedding_crc =
        unseeded(get_u32(header + 128), salt, seq, KV_PART_EMBEDDING, record->embedding_bytes);
    record->keys_crc = unseeded(get_u32(header + 132), salt, seq, KV_PART_KEYS, record->keys_bytes);
    for (uint32_t i = 0; i < 2 * record->layers; i++) {
        const uint8_t *at = header + KV_RECORD_TABLE_OFFSET + i * KV_SLICE_ENTRY_BYTES;
        struct kv_slice *slice = &record->slices[i];

        *slice = (struct kv_slice){ .tokens = get_u32(at),
                                    .encoding = { .bits = get_u16(at + 4), .group = get_u16(at + 6) },
                                    .bytes = get_u32(at + 8) };
        slice->crc = unseeded(get_u32(at + 12), salt, seq, i, slice->bytes);
    }
}

/* Only a frame has slices that are no more what came, or none. */
static bool check_block(const struct kv_record *record, const struct kv_geometry *geometry, struct status *st)
{
    struct kv_encoding encoding = kv_record_encoding(record);
    bool is_frame = record->type == KV_RECORD_FRAME;

    if ((record->layers != geometry->layers && !(is_frame && record->layers == 0)) ||
        record->keys_bytes != kv_keys_bytes(geometry) || record->tokens < 1 ||
        record->tokens > LIMIT_FRAME_TOKENS)
        return status_fail(st, STATUS_DATA_LOSS, "record %llu: its shape is not its segment's",
                           (unsigned long long)record->seq);
    for (uint32_t i = 0; i < 2 * record->layers; i++) {
        const struct kv_slice *slice = &record->slices[i];

        if (!kv_encoding_is_known(slice->encoding.bits) || (slice->encoding.bits != 0 && !is_frame))
            return status_fail(st, STATUS_UNIMPLEMENTED, "record %llu: slice encoding %u is not read here",
                               (unsigned long long)record->seq, slice->encoding.bits);
        if (!kv_encoding_fits(geometry, slice->encoding) || slice->encoding.bits != encoding.bits ||
            slice->encoding.group != encoding.group)
            return status_fail(st, STATUS_DATA_LOSS, "record %llu: slice %u has not its shape's encoding",
                               (unsigned long long)record->seq, i);
        if (slice->tokens != record->tokens ||
            slice->bytes != kv_encoding_bytes(geometry, encoding, slice->tokens))
            return status_fail(st, STATUS_DATA_LOSS, "record %llu: slice %u has not its shape's length",
                               (unsigned long long)record->seq, i);
    }
    return true;
}

const char *kv_tombstone_text(uint16_t kind)
{
    static const char *const texts[] = { [KV_TOMBSTONE_THINNED] = "thinned",
                                         [KV_TOMBSTONE_FORGOTTEN] = "forgotten",
                                         [KV_TOMBSTONE_DAMAGED] = "damaged" };

    return kind >= 1 && kind < ARRAY_LEN(texts) ? texts[kind] : "gone";
}

bool kv_record_type_is_read(enum kv_record_type type)
{
    return (type >= KV_RECORD_INIT && type <= KV_RECORD_EVENT) || type == KV_RECORD_TOMBSTONE;
}

static bool check_fields(const struct kv_record *record, const struct kv_super *super, struct status *st)
{
    bool is_block = record->type == KV_RECORD_FRAME || record->type == KV_RECORD_INIT;

    if (!kv_record_type_is_read(record->type))
        return status_fail(st, STATUS_UNIMPLEMENTED, "record %llu: type %d is not read by this version",
                           (unsigned long long)record->seq, (int)record->type);
    if (record->epoch != super->epoch || record->end_seq < record->seq ||
        record->note_bytes > KV_NOTE_BYTES_MAX || record->thumbnail_bytes > LIMIT_THUMBNAIL_BYTES ||
        record->embedding_bytes > KV_EMBEDDING_BYTES_MAX)
        return status_fail(st, STATUS_DATA_LOSS, "record %llu: fields make no sense",
                           (unsigned long long)record->seq);
    if (record->type == KV_RECORD_FRAME && record->end_seq - record->seq != 1)
        return status_fail(st, STATUS_DATA_LOSS, "record %llu: a frame has one number",
                           (unsigned long long)record->seq);
    if (is_block)
        return check_block(record, &super->geometry, st);
    if (record->layers != 0 || record->keys_bytes != 0)
        return status_fail(st, STATUS_DATA_LOSS, "record %llu: only blocks have slices",
                           (unsigned long long)record->seq);
    return true;
}

static bool check_header(const uint8_t *header, uint64_t salt, uint32_t *crc_p, struct status *st)
{
    uint32_t bytes = kv_record_header_bytes(header);

    if (bytes == 0)
        return status_fail(st, STATUS_DATA_LOSS, "no record header");
    *crc_p = kv_crc(0, header, bytes - 4);
    if (*crc_p != get_u32(header + bytes - 4))
        return status_fail(st, STATUS_DATA_LOSS, "record header: checksum does not fit");
    if (get_u64(header + 8) != salt)
        return status_fail(st, STATUS_DATA_LOSS, "record header: from another segment");
    return true;
}

bool kv_record_get_end(struct kv_record_end *end, uint64_t salt, const uint8_t *header, struct status *st)
{
    struct kv_record record = { 0 };
    uint64_t record_bytes = get_u64(header + 64);
    uint32_t crc;

    if (!check_header(header, salt, &crc, st))
        return false;
    get_fields(&record, header);
    if (record_bytes == 0 || record_bytes % KV_PAGE_BYTES != 0 || record_bytes > UINT32_MAX)
        return status_fail(st, STATUS_DATA_LOSS, "record %llu: its length makes no sense",
                           (unsigned long long)record.seq);
    *end = (struct kv_record_end){ .type = record.type,
                                   .seq = record.end_seq,
                                   .token_index = record.token_index + record.tokens,
                                   .record_bytes = record_bytes };
    return true;
}

bool kv_record_get(struct kv_record *record, uint32_t *header_crc_p, const struct kv_super *super,
                   const uint8_t *header, struct status *st)
{
    struct kv_layout layout;
    uint32_t crc = 0;

    if (!check_header(header, super->salt, &crc, st))
        return false;
    memset(record, 0, sizeof *record);
    get_fields(record, header);
    get_crcs(record, header, super->salt);
    if (!check_fields(record, super, st))
        return false;
    kv_record_layout(record, &layout);
    if (layout.record_bytes != get_u64(header + 64))
        return status_fail(st, STATUS_DATA_LOSS, "record %llu: its length is not that of its parts",
                           (unsigned long long)record->seq);
    *header_crc_p = crc;
    return true;
}
