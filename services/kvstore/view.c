#include "kvstore/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "base/require.h"
#include "kvstore/sketches.h"

struct range {
    int64_t from_ns, to_ns; /* [from, to) */
};

static struct range range_of(const struct view_request *request)
{
    struct range range = { .from_ns = request->from_ns,
                           .to_ns = request->to_ns == 0 ? INT64_MAX : request->to_ns };

    if (request->as_of_ns != 0 && request->as_of_ns < range.to_ns)
        range.to_ns = request->as_of_ns;
    return range;
}

static bool is_in(const struct range *range, int64_t pts_ns)
{
    return pts_ns >= range->from_ns && pts_ns < range->to_ns;
}

/* For all of the stream's chunks, whatever their times. */
static bool reserve_entries(struct view *view, const struct stream *stream)
{
    uint64_t wanted = view->entry_count;
    struct view_entry *entries;

    for (uint32_t i = 0; i < stream->segment_count; i++)
        wanted += stream->segments[i]->index.chunk_count;
    entries = realloc(view->entries, (wanted + 1) * sizeof *entries);
    if (entries == NULL)
        return false;
    view->entries = entries;
    return true;
}

static void count_frames(struct view *view, uint32_t count, int64_t first_pts_ns, int64_t last_pts_ns)
{
    if (view->frames == 0 || first_pts_ns < view->first_pts_ns)
        view->first_pts_ns = first_pts_ns;
    if (view->frames == 0 || last_pts_ns > view->last_pts_ns)
        view->last_pts_ns = last_pts_ns;
    view->frames += count;
}

/* The chunk's frames in view, as a mask. Those of a chunk that is whole in the range, and plain, are not looked at. */
static uint32_t look_at_chunk(struct view *view, const struct index_chunk *chunk, const struct range *range)
{
    uint32_t mask = 0;

    if (chunk->is_plain && is_in(range, chunk->first_pts_ns) && is_in(range, chunk->last_pts_ns)) {
        count_frames(view, chunk->count, chunk->first_pts_ns, chunk->last_pts_ns);
        return (1u << chunk->count) - 1;
    }
    for (uint32_t i = 0; i < chunk->count; i++) {
        const struct index_frame *frame = &chunk->frames[i];

        if (!is_in(range, frame->pts_ns))
            continue;
        if (frame->is_quarantined) {
            view->damaged_frames++;
            continue;
        }
        if (frame->is_forgotten || (view->only_readable && !frame->has_slices)) {
            view->evicted_frames++;
            continue;
        }
        mask |= 1u << i;
        count_frames(view, 1, frame->pts_ns, frame->pts_ns);
    }
    return mask;
}

static void add_chunk(struct view *view, uint32_t stream, struct index_chunk *chunk,
                      const struct range *range)
{
    struct view_entry entry = {
        .chunk = chunk, .keys = chunk->keys, .newest_ns = chunk->last_pts_ns, .stream = stream
    };

    if (chunk->count > 0 && chunk->first_pts_ns < range->to_ns && chunk->last_pts_ns >= range->from_ns)
        entry.mask = look_at_chunk(view, chunk, range);
    if (entry.mask == 0)
        return;
    index_chunk_ref(chunk);
    entry.sketch = sketch_hold(chunk);
    view->unsketched += entry.sketch == NULL;
    view->entries[view->entry_count++] = entry;
}

/* Heads of chunks lie far apart, and of each a line or two is looked at. */
enum { CHUNKS_AHEAD = 8 };

static void add_chunks(struct view *view, uint32_t stream, const struct index_part *index,
                       const struct range *range)
{
    for (uint32_t n = 0; n < index->chunk_count; n++) {
        if (n + CHUNKS_AHEAD < index->chunk_count)
            __builtin_prefetch(index->chunks[n + CHUNKS_AHEAD], 1);
        add_chunk(view, stream, index->chunks[n], range);
    }
}

/* Frames of a gap or a tombstone, as far as its times say they lie in the range. */
static uint64_t share_of(const struct segment_mark *mark, const struct range *range)
{
    const struct history_span span = { mark->seq, mark->end_seq, mark->pts_ns, mark->end_pts_ns, 0 };
    struct history one = { .count = 1 };
    uint64_t frames, gaps;

    one.spans[0] = span;
    history_in_range(&one, range->from_ns, range->to_ns, &frames, &gaps);
    return gaps;
}

static void count_leaving(struct view *view, const struct segment *segment, const struct range *range)
{
    for (uint64_t n = 0; n < segment->index.frame_count; n++)
        view->evicted_frames += is_in(range, index_part_at(&segment->index, n)->pts_ns);
}

static void count_absent(struct view *view, const struct stream *stream, const struct range *range)
{
    uint64_t frames, gaps;

    history_in_range(&stream->history, range->from_ns, range->to_ns, &frames, &gaps);
    view->evicted_frames += frames;
    view->gap_frames += gaps;
    view->damaged_frames += stream_damaged_in_range(stream, range->from_ns, range->to_ns);
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];

        if (segment->is_leaving)
            count_leaving(view, segment, range);
        for (uint32_t n = 0; n < segment->mark_count; n++) {
            const struct segment_mark *mark = &segment->marks[n];

            if (mark->is_damaged)
                continue;
            if (mark->type == KV_RECORD_GAP)
                view->gap_frames += share_of(mark, range);
            else if (mark->type == KV_RECORD_TOMBSTONE)
                view->evicted_frames += share_of(mark, range);
        }
    }
}

static bool check_shape(struct view *view, const struct stream *stream, const struct view_request *request,
                        struct status *st)
{
    char held[2 * KV_FINGERPRINT_BYTES + 1], wanted[2 * KV_FINGERPRINT_BYTES + 1];

    if (stream_frame_count(stream) == 0)
        return true;
    hex_write(stream->fingerprint, KV_FINGERPRINT_BYTES, held);
    hex_write(request->fingerprint, KV_FINGERPRINT_BYTES, wanted);
    if (memcmp(stream->fingerprint, request->fingerprint, KV_FINGERPRINT_BYTES) != 0)
        return status_fail(st, STATUS_PRECONDITION,
                           "stream %s holds blocks of fingerprint %s, not %s: ask with the model, dtype and "
                           "window of then",
                           stream->name, held, wanted);
    if (view->has_shape && !kv_geometry_is_equal(&view->geometry, &stream->geometry))
        return status_fail(st, STATUS_PRECONDITION, "stream %s holds blocks of another shape", stream->name);
    view->has_shape = true;
    view->geometry = stream->geometry;
    return true;
}

static bool add_stream(struct view *view, uint32_t index, const struct view_request *request,
                       struct status *st)
{
    const struct view_stream_name *name = &request->streams[index];
    const struct stream *stream = store_find(view->store, name->ns, name->name);
    struct view_span *span = &view->spans[index];
    struct range range = range_of(request);

    if (stream == NULL)
        return store_say_absent(view->store, name->ns, name->name, st);
    if (!check_shape(view, stream, request, st))
        return false;
    if (!reserve_entries(view, stream))
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a view of stream %s", name->name);
    *span = (struct view_span){ .first = view->entry_count };
    text_copy(span->ns, sizeof span->ns, name->ns);
    text_copy(span->name, sizeof span->name, name->name);
    for (uint32_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = stream->segments[i];

        if (!segment->is_leaving)
            add_chunks(view, index, &segment->index, &range);
    }
    span->end = view->entry_count;
    count_absent(view, stream, &range);
    return true;
}

bool view_create(struct view **view_p, struct store *store, const struct view_request *request,
                 struct status *st)
{
    struct view *view;

    if (request->stream_count < 1 || request->stream_count > LIMIT_STREAMS_PER_QUESTION)
        return status_fail(st, STATUS_INVALID, "view: %u streams; 1 to %d are allowed", request->stream_count,
                           LIMIT_STREAMS_PER_QUESTION);
    if (request->to_ns != 0 && request->to_ns <= request->from_ns)
        return status_fail(st, STATUS_INVALID, "view: its range ends before it begins");
    view = calloc(1, sizeof *view);
    if (view == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a view");
    view->store = store;
    view->refs = 1;
    view->only_readable = request->only_readable;
    view->stream_count = request->stream_count;
    for (uint32_t i = 0; i < request->stream_count; i++)
        if (!add_stream(view, i, request, st)) {
            view_unref(view);
            return false;
        }
    *view_p = view;
    return true;
}

void view_ref(struct view *view)
{
    view->refs++;
}

void view_unref(struct view *view)
{
    if (view == NULL || --view->refs > 0)
        return;
    for (uint32_t i = 0; i < view->entry_count; i++) {
        if (i + CHUNKS_AHEAD < view->entry_count)
            __builtin_prefetch(view->entries[i + CHUNKS_AHEAD].chunk, 1);
        if (view->entries[i].sketch != NULL)
            sketch_let_go(view->entries[i].chunk);
        index_chunk_unref(view->entries[i].chunk);
    }
    free(view->entries);
    free(view);
}

static struct index_frame *find_in_chunk(const struct view_entry *entry, uint64_t seq)
{
    for (uint32_t i = 0; i < INDEX_CHUNK_FRAMES; i++)
        if ((entry->mask >> i & 1) != 0 && entry->chunk->frames[i].seq == seq)
            return &entry->chunk->frames[i];
    return NULL;
}

/* The last entry of the stream that begins at or before this number. */
static const struct view_entry *entry_at(const struct view *view, const struct view_span *span, uint64_t seq)
{
    uint32_t low = span->first, high = span->end;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (view->entries[middle].chunk->frames[0].seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low == span->first ? NULL : &view->entries[low - 1];
}

struct index_frame *view_find(const struct view *view, uint32_t stream, uint64_t seq,
                              enum stream_absence *absence_p)
{
    const struct view_entry *entry;
    struct index_frame *frame;
    const struct stream *held;

    *absence_p = STREAM_ABSENT_NOT_FOUND;
    if (stream >= view->stream_count)
        return NULL;
    entry = entry_at(view, &view->spans[stream], seq);
    frame = entry == NULL ? NULL : find_in_chunk(entry, seq);
    if (frame != NULL)
        return frame;
    held = store_find(view->store, view->spans[stream].ns, view->spans[stream].name);
    frame = held == NULL ? NULL : stream_find(held, seq);
    if (held != NULL && frame == NULL)
        *absence_p = stream_absence_of(held, seq);
    else if (frame != NULL && (frame->chunk->segment->is_leaving || frame->is_forgotten ||
                               (view->only_readable && !frame->has_slices)))
        *absence_p = STREAM_ABSENT_EVICTED;
    else if (frame != NULL && frame->is_quarantined)
        *absence_p = STREAM_ABSENT_DAMAGED;
    return NULL;
}
