/* Adding records to a segment: header into the image, entry into the table, frame into the index; all of it or none. */
#include "kvstore/segment_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/require.h"
#include "kvstore/segment_file.h"
#include "kvstore/store.h"

bool segment_has_room(const struct segment *segment, const struct kv_layout *layout, uint32_t note_bytes,
                      bool is_frame)
{
    const struct segment_writer *writer = segment->writer;
    uint64_t footer = segment_footer_bytes(&segment->super.geometry, writer->entry_count + 1,
                                           (uint32_t)segment->index.frame_count + (is_frame ? 1 : 0),
                                           writer->notes_bytes + note_bytes);

    return writer->entry_count < KV_SEGMENT_RECORDS_MAX && segment->mark_count < SEGMENT_MARKS_MAX &&
           writer->end + layout->record_bytes + footer + KV_PAGE_BYTES <= segment->capacity; /* its mark */
}

uint64_t segment_mark_bytes(size_t note_bytes)
{
    return sizeof(struct segment_mark) + note_bytes;
}

static uint64_t bytes_of(const struct segment_mark *mark)
{
    return segment_mark_bytes(mark->note == NULL ? 0 : strlen(mark->note));
}

bool segment_add_mark(struct segment *segment, const struct kv_entry *entry, const char *note)
{
    uint32_t room = segment->mark_room == 0 ? 8 : segment->mark_room * 2;
    struct segment_mark *marks, *mark;
    char *text = NULL;

    if (segment->mark_count == segment->mark_room) {
        marks = realloc(segment->marks, room * sizeof *marks);
        if (marks == NULL)
            return false;
        segment->marks = marks;
        segment->mark_room = room;
    }
    if (entry->note_bytes > 0) {
        text = malloc(entry->note_bytes + 1);
        if (text == NULL)
            return false;
        memcpy(text, note, entry->note_bytes); /* no NUL ends it there, nor may one be looked for */
        text[entry->note_bytes] = '\0';
    }
    mark = &segment->marks[segment->mark_count++];
    *mark = (struct segment_mark){ .type = entry->type,
                                   .event = entry->event,
                                   .is_damaged = kv_entry_is_damaged(entry),
                                   .seq = entry->seq,
                                   .end_seq = entry->end_seq,
                                   .pts_ns = entry->pts_ns,
                                   .end_pts_ns = entry->end_pts_ns,
                                   .end_token_index = entry->token_index,
                                   .note = text };
    segment->stream->store->index_memory.used_bytes += bytes_of(mark);
    segment_saw(segment, mark->pts_ns, mark->end_pts_ns);
    return true;
}

void segment_saw(struct segment *segment, int64_t from_ns, int64_t to_ns)
{
    if (from_ns < segment->least_ns)
        segment->least_ns = from_ns;
    if (to_ns > segment->greatest_ns)
        segment->greatest_ns = to_ns;
}

void segment_find_times(struct segment *segment)
{
    segment->least_ns = INT64_MAX;
    segment->greatest_ns = INT64_MIN;
    for (uint64_t n = 0; n < segment->index.frame_count; n++) {
        int64_t pts_ns = index_part_at(&segment->index, n)->pts_ns;

        segment_saw(segment, pts_ns, pts_ns);
    }
    for (uint32_t i = 0; i < segment->mark_count; i++)
        segment_saw(segment, segment->marks[i].pts_ns, segment->marks[i].end_pts_ns);
}

void segment_drop_marks(struct segment *segment, uint32_t keep)
{
    while (segment->mark_count > keep) {
        struct segment_mark *mark = &segment->marks[--segment->mark_count];

        segment->stream->store->index_memory.used_bytes -= bytes_of(mark);
        segment_notes_free(mark->note, mark->note == NULL ? 0 : strlen(mark->note));
    }
}

bool segment_next(const struct segment *segment, struct segment_cursor *cursor,
                  const struct index_frame **frame_p, const struct segment_mark **mark_p)
{
    const struct index_part *index = &segment->index;
    bool has_mark = cursor->mark < segment->mark_count;

    *frame_p = cursor->frame < index->frame_count ? index_part_at(index, cursor->frame) : NULL;
    *mark_p = has_mark ? &segment->marks[cursor->mark] : NULL;
    if (*frame_p != NULL && (!has_mark || (*frame_p)->seq < (*mark_p)->end_seq)) {
        cursor->frame++;
        return true;
    }
    *frame_p = NULL;
    cursor->mark += has_mark;
    return has_mark;
}

struct segment_counts segment_count_marks(const struct segment *segment)
{
    struct segment_counts counts = { 0 };

    for (uint32_t i = 0; i < segment->mark_count; i++) {
        const struct segment_mark *mark = &segment->marks[i];

        if (mark->is_damaged)
            counts.damaged_frames += mark->end_seq - mark->seq;
        else if (mark->type == KV_RECORD_GAP)
            counts.gap_frames += mark->end_seq - mark->seq;
        else if (mark->type == KV_RECORD_TOMBSTONE)
            counts.evicted_frames += mark->end_seq - mark->seq;
    }
    return counts;
}

/* Room for one more of everything the append needs, so that nothing can fail halfway. */
static bool make_room(struct segment_writer *writer, uint32_t note_bytes)
{
    uint32_t room = writer->entry_room == 0 ? 64 : writer->entry_room * 2;
    struct kv_entry *entries;
    uint64_t notes_room;
    char *notes;

    if (writer->entry_count == writer->entry_room) {
        entries = realloc(writer->entries, room * sizeof *entries);
        if (entries == NULL)
            return false;
        writer->entries = entries;
        writer->entry_room = room;
    }
    if (writer->notes_bytes + note_bytes <= writer->notes_room)
        return true;
    notes_room = 2 * (writer->notes_bytes + note_bytes);
    notes = segment_notes_grow(writer->notes, writer->notes_bytes, notes_room);
    if (notes == NULL)
        return false;
    writer->notes = notes;
    writer->notes_room = notes_room;
    return true;
}

static struct index_frame *index_record(struct segment *segment, const struct kv_record *record,
                                        const struct kv_layout *layout, const uint8_t *image)
{
    const struct index_frame frame = { .seq = record->seq,
                                       .pts_ns = record->pts_ns,
                                       .token_index = record->token_index,
                                       .offset = segment->writer->end,
                                       .record_bytes = (uint32_t)layout->record_bytes,
                                       .tokens = record->tokens,
                                       .thumbnail_at = (uint32_t)layout->thumbnail,
                                       .thumbnail_bytes = record->thumbnail_bytes,
                                       .slices_at = (uint32_t)layout->slices,
                                       .has_slices = true };
    struct index_frame *added =
        index_part_add(&segment->index, segment, &segment->stream->store->index_memory,
                       &segment->super.geometry, &frame);

    sketches_trim(&segment->stream->store->index_memory);
    if (added != NULL) {
        index_frame_fill(added, &segment->super, record, image);
        segment_saw(segment, record->pts_ns, record->pts_ns);
    }
    return added;
}

static bool is_block(const struct kv_record *record)
{
    return record->type == KV_RECORD_FRAME || record->type == KV_RECORD_INIT;
}

static void take_record(struct segment *segment, struct segment_record *queued,
                        const struct kv_record *record, uint8_t *image, const struct kv_layout *layout)
{
    struct segment_writer *writer = segment->writer;
    uint32_t header_crc = kv_record_put(record, &segment->super, image);

    kv_entry_of_record(&queued->entry, record, writer->end, header_crc);
    writer->entries[writer->entry_count++] = queued->entry;
    if (record->note_bytes > 0)
        memcpy(writer->notes + writer->notes_bytes, image + layout->note, record->note_bytes);
    writer->notes_bytes += record->note_bytes;
    writer->chain = header_crc;
    writer->end += layout->record_bytes;
    segment->end_seq = record->end_seq;
    if (record->type == KV_RECORD_INIT) {
        segment->init_offset = queued->entry.offset;
        segment->init_bytes = (uint32_t)queued->entry.record_bytes;
    }
    if (is_block(record)) {
        segment->end_token_index = record->token_index + record->tokens;
        segment->end_pts_ns = record->pts_ns;
    }
    segment_queue_add(&writer->unwritten, queued);
}

bool segment_append(struct segment *segment, const struct segment_append *append,
                    struct index_frame **frame_p, struct status *st)
{
    struct kv_record *record = append->record;
    struct segment_record *queued = calloc(1, sizeof *queued);
    struct index_frame *frame = NULL;
    struct kv_layout layout;
    struct kv_entry mark;
    uint8_t *image = append->slot != NULL ? ram_bytes(segment->stream->store->arena, append->slot)
                                          : (uint8_t *)append->buffer;

    REQUIRE(segment_is_open(segment));
    record->epoch = segment->super.epoch;
    record->chain = segment->writer->chain;
    kv_record_layout(record, &layout);
    if (queued == NULL || !make_room(segment->writer, record->note_bytes))
        goto no_memory;
    if (record->type == KV_RECORD_FRAME) {
        frame = index_record(segment, record, &layout, image);
        if (frame == NULL)
            goto no_memory;
    } else if (record->type != KV_RECORD_INIT) {
        kv_entry_of_record(&mark, record, 0, 0);
        if (!segment_add_mark(segment, &mark, (const char *)image + layout.note))
            goto no_memory;
    }
    queued->queued_ns = clock_mono_ns();
    queued->slot = append->slot;
    queued->buffer = append->slot == NULL ? append->buffer : NULL;
    queued->buffer_bytes = layout.record_bytes;
    if (queued->slot != NULL) {
        ram_ref(segment->stream->store->arena, queued->slot);
        ram_pin(segment->stream->store->arena, queued->slot);
    }
    take_record(segment, queued, record, image, &layout);
    if (frame_p != NULL)
        *frame_p = frame;
    return true;
no_memory:
    free(queued);
    return status_fail(st, STATUS_EXHAUSTED, "no memory for one more record of stream %s",
                       segment->super.stream);
}

static bool is_extended_by(const struct segment_record *last, const struct kv_record *gap)
{
    return last != NULL && last->entry.type == KV_RECORD_GAP && last->entry.end_seq == gap->seq;
}

bool segment_extend_gap(struct segment *segment, const struct kv_record *gap, const char *note,
                        size_t note_bytes)
{
    struct segment_writer *writer = segment->writer;
    struct segment_record *last;
    struct segment_mark *mark;
    struct kv_record record;
    struct kv_layout layout;
    uint32_t header_crc;
    struct status st;

    last = segment_is_open(segment) ? writer->unwritten.last : NULL;
    if (!is_extended_by(last, gap))
        return false;
    REQUIRE(kv_record_get(&record, &header_crc, &segment->super, last->buffer, &st));
    kv_record_layout(&record, &layout);
    if (record.note_bytes != note_bytes ||
        memcmp((const uint8_t *)last->buffer + layout.note, note, note_bytes) != 0)
        return false;
    record.end_seq = gap->end_seq;
    record.end_pts_ns = gap->end_pts_ns;
    writer->chain = kv_record_put(&record, &segment->super, last->buffer);
    kv_entry_of_record(&last->entry, &record, last->entry.offset, writer->chain);
    writer->entries[writer->entry_count - 1] = last->entry;
    mark = &segment->marks[segment->mark_count - 1];
    mark->end_seq = gap->end_seq;
    mark->end_pts_ns = gap->end_pts_ns;
    segment_saw(segment, mark->pts_ns, mark->end_pts_ns);
    segment->end_seq = gap->end_seq;
    return true;
}

void segment_leave_bytes(struct segment *segment, int64_t pts_ns)
{
    if (segment->left_frames == 0 || pts_ns < segment->left_from_ns)
        segment->left_from_ns = pts_ns;
    if (segment->left_frames == 0 || pts_ns > segment->left_to_ns)
        segment->left_to_ns = pts_ns;
    segment->left_frames++;
}
