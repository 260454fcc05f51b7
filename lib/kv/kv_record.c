/* Records: where their parts lie, and their checksums. Their header is in kv_record_header.c, the layout in kv_format.h. */
#include "kv/kv_format.h"

#include "base/bytes.h"
#include "base/require.h"
#include "kv/kv_crc.h"
#include "kv/kv_record_internal.h"

enum { FIXED_PARTS = 4 };

void kv_record_init_block(struct kv_record *record, enum kv_record_type type,
                          const struct kv_geometry *geometry, uint32_t tokens)
{
    memset(record, 0, sizeof *record);
    record->type = type;
    record->tokens = tokens;
    record->keys_bytes = kv_keys_bytes(geometry);
    record->layers = geometry->layers;
    for (uint32_t i = 0; i < 2 * geometry->layers; i++)
        record->slices[i] =
            (struct kv_slice){ .tokens = tokens, .bytes = (uint32_t)kv_slice_bytes(geometry, tokens) };
}

void kv_record_encode(struct kv_record *record, const struct kv_geometry *geometry,
                      struct kv_encoding encoding)
{
    for (uint32_t i = 0; i < 2 * record->layers; i++) {
        struct kv_slice *slice = &record->slices[i];

        slice->encoding = encoding;
        slice->bytes = (uint32_t)kv_encoding_bytes(geometry, encoding, slice->tokens);
    }
}

void kv_record_drop_slices(struct kv_record *record)
{
    record->layers = 0;
    memset(record->slices, 0, sizeof record->slices);
}

struct kv_encoding kv_record_encoding(const struct kv_record *record)
{
    return record->layers == 0 ? (struct kv_encoding){ 0 } : record->slices[0].encoding;
}

void kv_record_layout(const struct kv_record *record, struct kv_layout *layout)
{
    uint64_t end;

    layout->header_bytes = kv_record_header_bytes_of(record->layers);
    layout->note = layout->header_bytes;
    layout->thumbnail = round_up(layout->note + record->note_bytes, KV_PART_ALIGN);
    layout->embedding = round_up(layout->thumbnail + record->thumbnail_bytes, KV_PART_ALIGN);
    layout->keys = round_up(layout->embedding + record->embedding_bytes, KV_PART_ALIGN);
    layout->slices = round_up(layout->keys + record->keys_bytes, KV_PART_ALIGN);
    end = layout->slices;
    for (uint32_t i = 0; i < record->layers; i++)
        end = round_up(end + record->slices[2 * i].bytes + record->slices[2 * i + 1].bytes, KV_PART_ALIGN);
    layout->record_bytes = round_up(end, KV_PAGE_BYTES);
}

/* --- payload <-> image --- */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

struct kv_run kv_record_run(const struct kv_record *record, uint64_t offset)
{
    struct kv_layout layout;
    uint64_t at;

    kv_record_layout(record, &layout);
    if (offset < record->keys_bytes)
        return (struct kv_run){ .image = layout.keys + offset, .bytes = record->keys_bytes - offset };
    offset -= record->keys_bytes;
    at = layout.slices;
    for (uint32_t i = 0; i < record->layers; i++) {
        uint64_t bytes = (uint64_t)record->slices[2 * i].bytes + record->slices[2 * i + 1].bytes;

        if (offset < bytes)
            return (struct kv_run){ .image = at + offset, .bytes = bytes - offset };
        offset -= bytes;
        at = round_up(at + bytes, KV_PART_ALIGN);
    }
    REQUIRE(!"the offset lies within the payload");
    return (struct kv_run){ 0 };
}

void kv_record_scatter(const struct kv_record *record, uint64_t offset, const void *from, size_t len,
                       uint8_t *image)
{
    const uint8_t *source = from;

    while (len > 0) {
        struct kv_run run = kv_record_run(record, offset);
        uint64_t part = min_u64(run.bytes, len);

        memcpy(image + run.image, source, part);
        source += part;
        offset += part;
        len -= part;
    }
}

/* --- checksums --- */

static void zero_between(uint8_t *image, uint64_t from, uint64_t to)
{
    memset(image + from, 0, to - from);
}

/* Part 0 are the keys, then come the slices. */
static void part_begins(const struct kv_record *record, struct kv_record_intake *intake, uint64_t at)
{
    bool is_slice = intake->part > 0 && intake->part <= 2 * record->layers;

    intake->at = at;
    intake->left = intake->part == 0 ? record->keys_bytes
                   : is_slice        ? record->slices[intake->part - 1].bytes
                                     : 0;
    intake->crc = 0;
}

void kv_record_intake_begin(const struct kv_record *record, struct kv_record_intake *intake)
{
    struct kv_layout layout;

    kv_record_layout(record, &layout);
    *intake = (struct kv_record_intake){ 0 };
    part_begins(record, intake, layout.keys);
}

/* K ends where V begins; what lies behind keys and V is zeroed. */
static void part_ends(struct kv_record *record, struct kv_record_intake *intake, uint8_t *image)
{
    uint32_t part = intake->part++;
    uint64_t bytes = part == 0 ? record->keys_bytes : record->slices[part - 1].bytes;
    uint64_t next = part % 2 == 0 ? round_up(intake->at, KV_PART_ALIGN) : intake->at;

    if (part == 0)
        record->keys_crc = intake->crc;
    else
        record->slices[part - 1].crc = intake->crc;
    intake->payload_crc = kv_crc_join(intake->payload_crc, intake->crc, bytes);
    zero_between(image, intake->at, next);
    part_begins(record, intake, next);
}

/* `from` NULL: they are in the image already. */
static void intake_add(struct kv_record *record, struct kv_record_intake *intake, const uint8_t *from,
                       uint64_t len, uint8_t *image)
{
    while (intake->part <= 2 * record->layers) {
        uint64_t here = min_u64(intake->left, len);
        uint8_t *to = image + intake->at;

        intake->crc = from == NULL ? kv_crc(intake->crc, to, here) : kv_crc_copy(intake->crc, to, from, here);
        from = from == NULL ? NULL : from + here;
        intake->at += here;
        intake->left -= here;
        len -= here;
        if (intake->left > 0)
            return;
        part_ends(record, intake, image);
    }
    REQUIRE(len == 0);
}

void kv_record_intake_add(struct kv_record *record, struct kv_record_intake *intake, const void *from,
                          size_t len, uint8_t *image)
{
    intake_add(record, intake, from, len, image);
}

uint32_t kv_record_intake_end(struct kv_record *record, struct kv_record_intake *intake, uint8_t *image)
{
    struct kv_layout layout;

    REQUIRE(intake->part > 2 * record->layers);
    kv_record_layout(record, &layout);
    zero_between(image, layout.note + record->note_bytes, layout.thumbnail);
    zero_between(image, layout.thumbnail + record->thumbnail_bytes, layout.embedding);
    zero_between(image, layout.embedding + record->embedding_bytes, layout.keys);
    record->note_crc = kv_crc(0, image + layout.note, record->note_bytes);
    record->thumbnail_crc = kv_crc(0, image + layout.thumbnail, record->thumbnail_bytes);
    record->embedding_crc = kv_crc(0, image + layout.embedding, record->embedding_bytes);
    zero_between(image, intake->at, layout.record_bytes);
    return intake->payload_crc;
}

static uint32_t take_all(struct kv_record *record, const void *payload, uint8_t *image)
{
    struct kv_record_intake intake;

    kv_record_intake_begin(record, &intake);
    intake_add(record, &intake, payload, kv_record_payload_bytes(record), image);
    return kv_record_intake_end(record, &intake, image);
}

uint32_t kv_record_checksum(struct kv_record *record, uint8_t *image)
{
    return take_all(record, NULL, image);
}

uint32_t kv_record_take(struct kv_record *record, const void *payload, uint8_t *image)
{
    return take_all(record, payload, image);
}

/* What comes before the slices. */
static struct kv_record_part fixed_part(const struct kv_record *record, const struct kv_layout *layout,
                                        uint32_t index)
{
    const struct kv_record_part parts[FIXED_PARTS] = {
        { "note", -1, layout->note, record->note_bytes, layout->thumbnail, record->note_crc, 1 },
        { "thumbnail", -1, layout->thumbnail, record->thumbnail_bytes, layout->embedding,
          record->thumbnail_crc, 2 },
        { "embedding", -1, layout->embedding, record->embedding_bytes, layout->keys, record->embedding_crc,
          3 },
        { "keys", -1, layout->keys, record->keys_bytes, layout->slices, record->keys_crc, 4 },
    };

    return parts[index];
}

bool kv_record_next_part(const struct kv_record *record, struct kv_record_part *part)
{
    uint32_t index = part->next, slice = index - FIXED_PARTS;
    bool is_last = index + 1 == FIXED_PARTS + 2 * record->layers;
    struct kv_layout layout;

    if (index >= FIXED_PARTS + 2 * record->layers)
        return false;
    if (index < FIXED_PARTS || is_last)
        kv_record_layout(record, &layout);
    if (index < FIXED_PARTS) {
        *part = fixed_part(record, &layout, index);
    } else {
        uint64_t end = part->zeros_end + record->slices[slice].bytes;

        *part = (struct kv_record_part){ .what = "slices",
                                         .slice = (int)slice,
                                         .at = part->zeros_end,
                                         .bytes = record->slices[slice].bytes,
                                         .zeros_end = slice % 2 == 0 ? end : round_up(end, KV_PART_ALIGN),
                                         .crc = record->slices[slice].crc,
                                         .next = index + 1 };
    }
    if (is_last)
        part->zeros_end = layout.record_bytes;
    return true;
}

bool kv_record_verify(const struct kv_record *record, const uint8_t *image, struct status *st)
{
    struct kv_record_part part = { 0 };

    while (kv_record_next_part(record, &part)) {
        uint64_t end = part.at + part.bytes;

        if (kv_crc(0, image + part.at, part.bytes) != part.crc ||
            !bytes_are_zero(image + end, part.zeros_end - end))
            return status_fail(st, STATUS_DATA_LOSS, "record %llu: checksum of its %s does not fit",
                               (unsigned long long)record->seq, part.what);
    }
    return true;
}

uint64_t kv_record_payload_bytes(const struct kv_record *record)
{
    uint64_t bytes = record->keys_bytes;

    for (uint32_t i = 0; i < 2 * record->layers; i++)
        bytes += record->slices[i].bytes;
    return bytes;
}

uint32_t kv_record_payload_crc(const struct kv_record *record)
{
    uint32_t crc = record->keys_crc;

    for (uint32_t i = 0; i < 2 * record->layers; i++)
        crc = kv_crc_join(crc, record->slices[i].crc, record->slices[i].bytes);
    return crc;
}
