/* What a rewriting would make of a segment: whether it would change anything, and how large the file would be. */
#include <string.h>

#include "base/bytes.h"
#include "kvstore/segment_age_internal.h"
#include "kvstore/segment_age_job.h"
#include "kvstore/segment_job.h"

struct kv_aged segment_age_merge(const struct kv_aged *a, const struct kv_aged *b)
{
    return (struct kv_aged){ .thin = a->thin > b->thin ? a->thin : b->thin,
                             .bits = a->bits != 0 && (b->bits == 0 || a->bits < b->bits) ? a->bits : b->bits,
                             .keys_only = a->keys_only || b->keys_only };
}

bool segment_age_is_due(const struct segment *segment, const struct kv_aged *aged)
{
    const struct kv_aged *has = &segment->super.aged, then = segment_age_merge(has, aged);

    if (segment->index.frame_count == 0)
        return false;
    return then.keys_only != has->keys_only || (!has->keys_only && then.bits != has->bits) ||
           (then.thin > 1 && then.thin != has->thin);
}

static uint64_t frame_bytes(const struct segment_transform *transform, const struct index_frame *frame)
{
    struct kv_entry entry = { .type = KV_RECORD_FRAME, .tokens = frame->tokens };
    const struct kv_geometry *geometry = &frame->chunk->geometry;
    struct kv_encoding encoding = age_encoding_of(transform, frame);
    struct kv_layout plain, reduced;

    if (!frame->has_slices || (!transform->aged.keys_only && encoding.bits == frame->encoding.bits))
        return frame->record_bytes;
    entry.encoding = frame->encoding;
    kv_entry_layout(&entry, geometry, &plain);
    entry.encoding = encoding;
    entry.flags = transform->aged.keys_only ? KV_ENTRY_WITHOUT_SLICES : 0;
    kv_entry_layout(&entry, geometry, &reduced);
    return frame->record_bytes - plain.record_bytes + reduced.record_bytes + KV_PAGE_BYTES;
}

/* One tombstone for each run of frames that go, as if all marks parted them. */
uint64_t segment_age_bytes(const struct segment *segment, const struct segment_transform *transform)
{
    uint64_t bytes = KV_PAGE_BYTES + segment->init_bytes + KV_PAGE_BYTES, notes = 0;
    uint32_t records = 2 + 2 * segment->mark_count, frames = 0;
    bool in_run = false;

    for (uint64_t n = 0; n < segment->index.frame_count; n++) {
        const struct index_frame *frame = index_part_at(&segment->index, n);
        bool is_kept = age_fate_of(transform, frame) == AGE_KEPT;

        if (is_kept) {
            bytes += frame_bytes(transform, frame);
            frames++;
        } else if (!in_run) {
            bytes += KV_PAGE_BYTES;
            records++;
        }
        in_run = !is_kept;
    }
    for (uint32_t i = 0; i < segment->mark_count; i++) {
        uint64_t note = segment->marks[i].note == NULL ? 0 : strlen(segment->marks[i].note);

        bytes += 2 * KV_PAGE_BYTES + round_up(note + 1, KV_PAGE_BYTES);
        notes += note;
    }
    records += frames;
    return bytes + segment_footer_bytes(&segment->super.geometry, records, frames, notes);
}
