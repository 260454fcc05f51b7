/* What of a stream is there, and what became of the rest. */
#include "base/require.h"
#include "kvstore/store.h"
#include "kvstore/stream.h"

uint64_t stream_durable_seq(const struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (!segment_is_durable(stream->segments[i]))
            return stream->segments[i]->durable_end_seq;
    return stream->next_seq;
}

struct segment *stream_segment_before(const struct stream *stream, const struct segment *segment)
{
    for (uint32_t i = 1; i < stream->segment_count; i++)
        if (stream->segments[i] == segment)
            return stream->segments[i - 1];
    return NULL;
}

bool stream_is_durable_before(const struct stream *stream, const struct segment *segment)
{
    for (uint32_t i = 0; i < stream->segment_count && stream->segments[i] != segment; i++)
        if (!segment_is_durable(stream->segments[i]))
            return false;
    return true;
}

bool stream_is_durable(const struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (!segment_is_durable(stream->segments[i]))
            return false;
    return true;
}

uint64_t stream_disk_bytes(const struct stream *stream)
{
    uint64_t bytes = STORE_STREAM_DISK_BYTES + stream->aside_bytes;

    for (uint32_t i = 0; i < stream->segment_count; i++)
        bytes += stream->segments[i]->disk_bytes;
    return bytes;
}

uint64_t stream_frame_count(const struct stream *stream)
{
    uint64_t frames = 0;

    for (uint32_t i = 0; i < stream->segment_count; i++)
        frames += stream->segments[i]->index.frame_count;
    return frames;
}

/* The last segment that begins at or before this number. */
static const struct segment *segment_at(const struct stream *stream, uint64_t seq)
{
    uint32_t low = 0, high = stream->segment_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (stream->segments[middle]->super.first_seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? NULL : stream->segments[low - 1];
}

struct index_frame *stream_find(const struct stream *stream, uint64_t seq)
{
    const struct segment *segment = segment_at(stream, seq);

    return segment == NULL ? NULL : index_part_find(&segment->index, seq);
}

struct index_frame *stream_first_frame(const struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (stream->segments[i]->index.frame_count > 0)
            return index_part_at(&stream->segments[i]->index, 0);
    return NULL;
}

struct index_frame *stream_last_frame(const struct stream *stream)
{
    for (uint32_t i = stream->segment_count; i > 0; i--) {
        const struct index_part *part = &stream->segments[i - 1]->index;

        if (part->frame_count > 0)
            return index_part_at(part, part->frame_count - 1);
    }
    return NULL;
}

enum stream_absence stream_absence_of(const struct stream *stream, uint64_t seq)
{
    const struct segment *segment = segment_at(stream, seq);
    const struct history_span *span;

    if (seq >= stream->next_seq)
        return STREAM_ABSENT_NOT_FOUND;
    for (uint32_t i = 0; segment != NULL && i < segment->mark_count; i++) {
        const struct segment_mark *mark = &segment->marks[i];

        if (seq >= mark->seq && seq < mark->end_seq)
            return mark->is_damaged                    ? STREAM_ABSENT_DAMAGED
                   : mark->type == KV_RECORD_TOMBSTONE ? STREAM_ABSENT_EVICTED
                                                       : STREAM_ABSENT_GAP;
    }
    span = history_find(&stream->history, seq);
    if (span != NULL)
        return span->frames == 0 ? STREAM_ABSENT_GAP : STREAM_ABSENT_EVICTED;
    return segment == NULL && seq < stream->history.next_seq ? STREAM_ABSENT_EVICTED : STREAM_ABSENT_DAMAGED;
}
