#include "kvstore/forget_marks.h"

#include "kvstore/segment.h"

static bool is_in(const struct forget_receipt *receipt, uint64_t end_seq, int64_t from_ns, int64_t to_ns)
{
    return end_seq <= receipt->next_seq && from_ns >= receipt->from_ns && to_ns < receipt->to_ns;
}

/* Words of a mark, or bytes that were found damaged: a tombstone has neither. Damage has the times around it; that at the end
 * of a file may be of any time from there on. */
static bool mark_goes(const struct forget_receipt *receipt, const struct segment_mark *mark)
{
    if (mark->is_damaged)
        return mark->type != KV_RECORD_TOMBSTONE && mark->pts_ns < receipt->to_ns &&
               (mark->end_pts_ns >= receipt->from_ns || mark->end_pts_ns == mark->pts_ns);
    if (!is_in(receipt, mark->end_seq, mark->pts_ns, mark->end_pts_ns))
        return false;
    if (mark->type == KV_RECORD_EVENT)
        return mark->note != NULL;
    return mark->type != KV_RECORD_TOMBSTONE || mark->event != KV_TOMBSTONE_FORGOTTEN;
}

/* By the times of what it has. */
static bool meets(const struct forget_receipt *receipt, const struct segment *segment)
{
    return segment->least_ns < receipt->to_ns && segment->greatest_ns >= receipt->from_ns;
}

bool forget_has_something(const struct forget_receipt *receipt, const struct segment *segment)
{
    bool meets_it = meets(receipt, segment);

    for (uint64_t n = 0; meets_it && n < segment->index.frame_count; n++)
        if (index_part_at(&segment->index, n)->is_forgotten)
            return true;
    for (uint32_t i = 0; meets_it && i < segment->mark_count; i++)
        if (mark_goes(receipt, &segment->marks[i]))
            return true;
    if (segment->mark_count > 0 && mark_goes(receipt, &segment->marks[segment->mark_count - 1]))
        return true; /* whatever the segment's times are */
    return segment->left_frames > 0 && segment->left_from_ns < receipt->to_ns &&
           segment->left_to_ns >= receipt->from_ns;
}

/* Questions that began before a segment was rewritten have the frames as they were. */
static void mark_gone(const struct forget_receipt *receipt, const struct index_part *part)
{
    for (struct index_chunk *chunk = part->gone; chunk != NULL; chunk = chunk->gone_next) {
        for (uint32_t i = 0; i < chunk->count; i++) {
            struct index_frame *frame = &chunk->frames[i];

            frame->is_forgotten = is_in(receipt, frame->seq + 1, frame->pts_ns, frame->pts_ns);
        }
        index_chunk_judge(chunk);
    }
}

void forget_mark_frames(struct stream *stream, struct forget_receipt *receipt, bool counts)
{
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];

        for (uint64_t n = 0; meets(receipt, segment) && n < segment->index.frame_count; n++) {
            struct index_frame *frame = index_part_at(&segment->index, n);

            if (!is_in(receipt, frame->seq + 1, frame->pts_ns, frame->pts_ns))
                continue;
            index_frame_forget(frame);
            receipt->frames += counts;
            receipt->bytes += counts ? frame->record_bytes : 0;
        }
        receipt->files += counts && forget_has_something(receipt, segment);
        mark_gone(receipt, &segment->index);
    }
}

void forget_unmark_frames(struct stream *stream)
{
    static const struct forget_receipt nothing;

    for (uint32_t i = 0; i < stream->segment_count; i++) {
        for (uint64_t n = 0; n < stream->segments[i]->index.frame_count; n++)
            index_part_at(&stream->segments[i]->index, n)->is_forgotten = false;
        mark_gone(&nothing, &stream->segments[i]->index);
    }
}
