/* What of a stream was stored and cannot be read. When it was seen follows from the frames around it, or from how often the
 * stream is sampled. */
#include <stdlib.h>

#include "base/log.h"
#include "base/require.h"
#include "kvstore/store.h"
#include "kvstore/stream.h"

/* So many frames later; a time that no clock shows when it would be beyond all of them. */
static int64_t later_by(const struct stream *stream, int64_t pts_ns, uint64_t frames)
{
    double ns = (double)frames / stream->definition.sample_fps * 1e9;
    int64_t sum;

    if (!(ns < (double)(INT64_MAX / 2)) || __builtin_add_overflow(pts_ns, (int64_t)ns, &sum))
        return INT64_MAX / 2;
    return sum;
}

static int64_t earlier_by(const struct stream *stream, int64_t pts_ns, uint64_t frames)
{
    int64_t ns = later_by(stream, 0, frames);

    return pts_ns > ns ? pts_ns - ns : 0;
}

/* Of the last frame before this number that is there, else of the first one behind it, else of how the stream began. */
static int64_t time_of(const struct stream *stream, uint64_t seq)
{
    const struct stream_definition *definition = &stream->definition;
    const struct index_frame *before = NULL, *behind = NULL;

    for (uint32_t i = 0; i < stream->segment_count && behind == NULL; i++) {
        const struct index_part *index = &stream->segments[i]->index;

        if (index->frame_count == 0)
            continue;
        if (stream->segments[i]->super.first_seq < seq)
            before = index_part_at(index, index->frame_count - 1);
        else
            behind = index_part_at(index, 0);
    }
    if (before != NULL)
        return later_by(stream, before->pts_ns, seq - before->seq);
    if (behind != NULL)
        return earlier_by(stream, behind->pts_ns, behind->seq - seq);
    return later_by(stream,
                    definition->kind == STREAM_FILE ? definition->start_time_ns : definition->created_ns,
                    seq);
}

static bool lose(struct stream *stream, uint64_t from_seq, uint64_t to_seq)
{
    const struct history_span span = { .from_seq = from_seq,
                                       .to_seq = to_seq,
                                       .from_pts_ns = time_of(stream, from_seq),
                                       .to_pts_ns = time_of(stream, to_seq - 1),
                                       .frames = to_seq - from_seq };
    const struct log_context context = { .stream = stream->name };

    log_error(&context, "frames_lost", "frames %llu to %llu were stored, and no file has them",
              (unsigned long long)from_seq, (unsigned long long)to_seq - 1);
    if (stream->lost == NULL)
        stream->lost = calloc(1, sizeof *stream->lost);
    if (stream->lost == NULL)
        return false;
    history_add(stream->lost, &span);
    stream->damaged_frames += span.frames;
    return true;
}

/* What of [from, to) has not been removed either. */
static bool lose_unless_removed(struct stream *stream, uint64_t from_seq, uint64_t to_seq)
{
    for (uint32_t i = 0; i < stream->history.count && from_seq < to_seq; i++) {
        const struct history_span *gone = &stream->history.spans[i];
        uint64_t end_seq = gone->from_seq < to_seq ? gone->from_seq : to_seq;

        if (gone->to_seq <= from_seq)
            continue;
        if (from_seq < end_seq && !lose(stream, from_seq, end_seq))
            return false;
        from_seq = gone->to_seq;
    }
    return from_seq >= to_seq || lose(stream, from_seq, to_seq);
}

bool stream_find_lost(struct stream *stream, struct status *st)
{
    uint64_t at = 0;
    bool ok = true;

    for (uint32_t i = 0; ok && i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];

        ok = lose_unless_removed(stream, at, segment->super.first_seq);
        if (segment->end_seq > at)
            at = segment->end_seq;
    }
    ok = ok && lose_unless_removed(stream, at, stream->next_seq);
    return ok || status_fail(st, STATUS_EXHAUSTED, "no memory for what stream %s has lost", stream->name);
}

uint64_t stream_damaged_frames(const struct stream *stream)
{
    uint64_t frames = stream->damaged_frames;

    for (uint32_t i = 0; i < stream->segment_count; i++)
        frames += stream->segments[i]->quarantined_frames;
    return frames;
}

/* A mark has the times of the frames before and behind it; 0, or the same time twice, where there was none. */
static struct history_span span_of(const struct stream *stream, const struct segment_mark *mark)
{
    struct history_span span = { .from_seq = mark->seq,
                                 .to_seq = mark->end_seq,
                                 .frames = mark->end_seq - mark->seq };
    int64_t step_ns = (int64_t)(((uint64_t)mark->end_pts_ns - (uint64_t)mark->pts_ns) / (span.frames + 1));
    bool has_before = mark->pts_ns != 0, has_behind = mark->end_pts_ns > mark->pts_ns;

    if (has_before && has_behind) {
        span.from_pts_ns = mark->pts_ns + step_ns;
        span.to_pts_ns = mark->end_pts_ns - step_ns;
    } else if (has_behind) {
        span.from_pts_ns = earlier_by(stream, mark->end_pts_ns, span.frames);
        span.to_pts_ns = earlier_by(stream, mark->end_pts_ns, 1);
    } else if (has_before) {
        span.from_pts_ns = later_by(stream, mark->pts_ns, 1);
        span.to_pts_ns = later_by(stream, mark->pts_ns, span.frames);
    } else {
        span.from_pts_ns = time_of(stream, mark->seq);
        span.to_pts_ns = time_of(stream, mark->end_seq - 1);
    }
    return span;
}

/* Damage that touches the range is told, however little of it that is. */
static uint64_t share_of(const struct history_span *span, int64_t from_ns, int64_t to_ns)
{
    struct history one = { .count = 1, .spans = { *span } };
    uint64_t frames, gaps;

    if (span->to_pts_ns < from_ns || span->from_pts_ns >= to_ns)
        return 0;
    history_in_range(&one, from_ns, to_ns, &frames, &gaps);
    return frames > 0 ? frames : 1;
}

uint64_t stream_damaged_in_range(const struct stream *stream, int64_t from_ns, int64_t to_ns)
{
    uint64_t frames = 0;

    for (uint32_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];

        for (uint32_t n = 0; n < segment->mark_count; n++) {
            struct history_span span;

            if (!segment->marks[n].is_damaged || segment->marks[n].seq == segment->marks[n].end_seq)
                continue;
            span = span_of(stream, &segment->marks[n]);
            frames += share_of(&span, from_ns, to_ns);
        }
    }
    for (uint32_t i = 0; stream->lost != NULL && i < stream->lost->count; i++)
        frames += share_of(&stream->lost->spans[i], from_ns, to_ns);
    return frames;
}

void stream_quarantine_known(struct segment *segment, struct index_frame *frame)
{
    if (frame->is_quarantined)
        return;
    index_frame_quarantine(frame);
    segment->quarantined_frames++;
}

void stream_quarantine(struct segment *segment, struct index_frame *frame)
{
    segment->stream->store->quarantined_frames += !frame->is_quarantined;
    stream_quarantine_known(segment, frame);
}
