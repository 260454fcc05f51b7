/* After a failed write or sync: what was not durable is written again, from RAM, to a new segment right behind the one
 * that failed. All of it or, without memory for that, nothing: then it is tried again later, and waits in RAM. */
#include <string.h>

#include "base/bytes.h"
#include "base/require.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"
#include "kvstore/stream.h"

/* Room for all of them, whatever the size of a segment is now. */
static uint64_t bytes_for(const struct stream *stream, const struct segment_record *record)
{
    uint64_t bytes = stream_init_bytes(stream) + 3 * KV_PAGE_BYTES, notes = 0, wanted;
    uint32_t count = 1;

    for (; record != NULL; record = record->next) {
        bytes += record->entry.record_bytes;
        notes += record->entry.note_bytes;
        count++;
    }
    bytes += segment_footer_bytes(&stream->geometry, count, count, notes);
    wanted = store_segment_bytes(stream->store);
    return bytes > wanted ? bytes : round_down(wanted, KV_PAGE_BYTES);
}

/* One record of the failed segment into the new one; its image stays where it is in RAM, and is in both. Others read it
 * meanwhile: its header, which alone changes, on this loop only. */
static bool append_again(const struct segment *failed, struct segment *segment,
                         const struct segment_record *queued)
{
    struct kv_record record;
    struct segment_append append = { .record = &record, .slot = queued->slot, .buffer = queued->buffer };
    const uint8_t *image = queued->slot != NULL ? ram_bytes(segment->stream->store->arena, queued->slot)
                                                : (const uint8_t *)queued->buffer;
    uint32_t crc;
    struct status st;

    REQUIRE(kv_record_get(&record, &crc, &failed->super, image, &st));
    return segment_append(segment, &append, NULL, &st);
}

/* Right behind the one it continues, also for the next start: segments are in the order of their numbers, and one that was
 * begun meanwhile may have the same first one, when only an end is written again. NULL: no memory. */
static struct segment *begin_segment_behind(struct stream *stream, const struct segment *failed,
                                            const struct segment_record *records)
{
    struct segment *segment;
    uint32_t at = stream->segment_count;

    segment = stream_begin_segment(stream, failed->super.epoch, failed->durable_end_seq,
                                   bytes_for(stream, records), failed->super.created_ns + 1);
    if (segment == NULL)
        return NULL;
    for (; stream->segments[at - 1] != failed; at--)
        stream->segments[at] = stream->segments[at - 1];
    stream->segments[at] = segment;
    return segment;
}

static void drop_segment(struct stream *stream, struct segment *segment)
{
    uint32_t at = stream_place_of(stream, segment);

    stream->segment_count--;
    memmove(&stream->segments[at], &stream->segments[at + 1], (stream->segment_count - at) * sizeof segment);
    segment_destroy(segment);
}

/* NULL: no memory, and nothing has changed. */
static struct segment *append_all_again(struct stream *stream, const struct segment *failed,
                                        const struct segment_record *records)
{
    struct segment *segment = begin_segment_behind(stream, failed, records);
    struct status st;
    bool ok;

    if (segment == NULL)
        return NULL;
    ok = stream_append_init_copy(stream, segment, &st);
    for (const struct segment_record *record = records; ok && record != NULL; record = record->next)
        if (record->entry.type != KV_RECORD_INIT)
            ok = append_again(failed, segment, record);
    if (ok)
        return segment;
    segment_give_back(segment, &failed->super);
    drop_segment(stream, segment);
    return NULL;
}

static void move_frame(const struct segment *failed, const struct segment *segment, uint64_t seq)
{
    struct index_frame *old = index_part_find(&failed->index, seq);
    struct index_frame *frame = index_part_find(&segment->index, seq);

    if (old == NULL)
        return;
    if (old->is_forgotten)
        index_frame_forget(frame);
    if (old->image != NULL)
        ram_move_owner(old->image, &frame->image);
}

/* The records are the new segment's. */
static void let_go(struct segment *failed, const struct segment *segment, struct segment_record *record)
{
    uint32_t marks = failed->mark_count;
    uint64_t frames = failed->index.frame_count;
    struct segment_record *next;

    for (; record != NULL; record = next) {
        next = record->next;
        if (record->entry.type == KV_RECORD_INIT) {
            failed->init_offset = 0;
        } else {
            record->buffer = NULL;
            marks -= record->entry.type != KV_RECORD_FRAME;
        }
        if (record->entry.type == KV_RECORD_FRAME) {
            move_frame(failed, segment, record->entry.seq);
            segment_leave_bytes(failed, record->entry.pts_ns);
            frames--;
        }
        segment_record_free(failed->stream->store->arena, record);
    }
    segment_drop_marks(failed, marks);
    failed->end_seq = failed->durable_end_seq;
    index_part_cut(&failed->index, frames);
    segment_find_times(failed);
}

bool stream_segment_failed(struct stream *stream, struct segment *failed)
{
    bool is_written = stream_last_segment(stream) == failed && stream->writer != NULL &&
                      failed->super.epoch == stream->epoch;
    struct segment_record *records = segment_take_undurable(failed);
    struct segment *segment = NULL;

    if (records != NULL) {
        segment = append_all_again(stream, failed, records);
        if (segment == NULL) {
            segment_put_back(failed, records);
            return false;
        }
    }
    let_go(failed, segment, records);
    if (segment != NULL && !is_written)
        segment_close(segment); /* nothing more will come */
    return true;
}
