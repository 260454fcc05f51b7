/* The segments of a stream: their list, and the one that is written to. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/random.h"
#include "kvstore/store.h"
#include "kvstore/stream.h"

enum { STREAM_GAPS_BYTES = 128 << 10 }; /* reserved for an epoch's first gaps while it has no frame */

bool stream_push_segment(struct stream *stream, struct segment *segment)
{
    uint32_t room = stream->segment_room == 0 ? 8 : stream->segment_room * 2;
    struct segment **segments;

    if (stream->segment_count == stream->segment_room) {
        segments = realloc(stream->segments, room * sizeof *segments);
        if (segments == NULL)
            return false;
        stream->segments = segments;
        stream->segment_room = room;
    }
    stream->segments[stream->segment_count++] = segment;
    return true;
}

struct segment *stream_last_segment(const struct stream *stream)
{
    return stream->segment_count == 0 ? NULL : stream->segments[stream->segment_count - 1];
}

/* Later than that of every segment of the stream, though the clock be set back. */
static int64_t created_now(const struct stream *stream)
{
    int64_t now = clock_utc_ns();

    for (uint32_t i = 0; i < stream->segment_count; i++)
        if (stream->segments[i]->super.created_ns >= now)
            now = stream->segments[i]->super.created_ns + 1;
    return now;
}

struct segment *stream_begin_segment(struct stream *stream, uint64_t epoch, uint64_t first_seq,
                                     uint64_t capacity, int64_t created_ns)
{
    struct kv_super super = { .salt = random_u64(),
                              .epoch = epoch,
                              .geometry = stream->geometry,
                              .created_ns = created_ns,
                              .first_seq = first_seq };
    struct segment *segment;

    memcpy(super.fingerprint, stream->fingerprint, KV_FINGERPRINT_BYTES);
    memcpy(super.ns, stream->ns, sizeof super.ns);
    memcpy(super.stream, stream->name, sizeof super.stream);
    segment = segment_create(stream, &super, capacity);
    if (segment != NULL && !stream_push_segment(stream, segment)) {
        segment_destroy(segment);
        segment = NULL;
    }
    return segment;
}

bool stream_append_init_copy(struct stream *stream, struct segment *segment, struct status *st)
{
    struct kv_record record = stream->init_record;
    struct segment_append append = { .record = &record };
    struct kv_layout layout;

    if (record.layers == 0)
        return true;
    kv_record_layout(&record, &layout);
    append.buffer = disk_buffer(layout.record_bytes);
    if (append.buffer == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the system prompt's block");
    memcpy(append.buffer, stream->init_image, layout.record_bytes);
    record.seq = record.end_seq = segment->super.first_seq;
    if (segment_append(segment, &append, NULL, st))
        return true;
    free(append.buffer);
    return false;
}

uint64_t stream_init_bytes(const struct stream *stream)
{
    struct kv_layout layout;

    if (stream->init_record.layers == 0)
        return 0;
    kv_record_layout(&stream->init_record, &layout);
    return layout.record_bytes;
}

/* Gaps come without end from a camera that is off, and take a page each. What they get grows with what they fill, so that
 * no such camera holds the room of a segment of frames. */
static uint64_t wanted_bytes(const struct stream *stream, const struct kv_record *record)
{
    const struct segment *last = stream_last_segment(stream);
    uint64_t most = store_segment_bytes(stream->store), bytes = STREAM_GAPS_BYTES;

    if (stream_is_filled(stream)) /* no more than is to come */
        return stream->import_left_bytes < most + STORE_FILE_SLACK_BYTES
                   ? subtract_to_zero(stream->import_left_bytes, STORE_FILE_SLACK_BYTES)
                   : most;
    if (record->type == KV_RECORD_FRAME)
        return most;
    if (last != NULL && last->super.epoch == stream->epoch && last->index.frame_count == 0)
        bytes = 2 * last->capacity;
    return bytes < most ? bytes : most;
}

/* The last segment when it takes the record; else it is closed. One that failed may then be followed by another. */
static struct segment *last_with_room(struct stream *stream, const struct kv_record *record,
                                      const struct kv_layout *layout)
{
    struct segment *segment, *closed = NULL;

    while ((segment = stream_last_segment(stream)) != closed) {
        if (segment_is_open(segment) && segment->super.epoch == stream->epoch &&
            segment_has_room(segment, layout, record->note_bytes, record->type == KV_RECORD_FRAME))
            return segment;
        segment_close(segment);
        closed = segment;
    }
    return NULL;
}

struct segment *stream_segment_for(struct stream *stream, const struct kv_record *record, struct status *st)
{
    uint64_t wanted = wanted_bytes(stream, record), least;
    struct kv_layout layout;
    struct segment *segment;

    kv_record_layout(record, &layout);
    segment = last_with_room(stream, record, &layout);
    if (segment != NULL)
        return segment;
    least = segment_bytes_min(&stream->geometry, layout.record_bytes, stream_init_bytes(stream));
    if (least + STORE_FILE_SLACK_BYTES > stream->store->options.disk_bytes / 2) {
        status_fail(st, STATUS_PRECONDITION,
                    "a segment for blocks of %llu bytes takes %llu; disk_budget_bytes is %llu: raise it",
                    (unsigned long long)layout.record_bytes, (unsigned long long)least,
                    (unsigned long long)stream->store->options.disk_bytes);
        return NULL;
    }
    segment =
        stream_begin_segment(stream, stream->epoch, stream->next_seq,
                             round_down(wanted > least ? wanted : least, KV_PAGE_BYTES), created_now(stream));
    if (segment == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for a segment of stream %s", stream->name);
        return NULL;
    }
    if (stream_is_filled(stream) && !segment_take_room(segment))
        status_fail(st, STATUS_EXHAUSTED, "%s", stream->waits_because);
    else if (stream_append_init_copy(stream, segment, st))
        return segment;
    stream->segment_count--; /* without its INIT it would be used for what comes next */
    store_adjust_disk(stream->store, segment, 0);
    segment_destroy(segment);
    return NULL;
}
