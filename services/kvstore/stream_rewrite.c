/* After a failed write or sync: what was not durable is written again, from RAM, to a new segment right behind the one
 * that failed. Without memory for that the process ends: its writers were told of none of it that it is durable,
 * and send it again. */
#include <stdlib.h>

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

/* One record of the failed segment into the new one; its image stays where it is in RAM. Others read it meanwhile: its
 * header, which alone changes, on this loop only. */
static void append_again(struct segment *failed, struct segment *segment, struct segment_record *queued)
{
    struct ram_arena *arena = segment->stream->store->arena;
    struct segment_append append = { .slot = queued->slot, .buffer = queued->buffer };
    const uint8_t *image =
        queued->slot != NULL ? ram_bytes(arena, queued->slot) : (const uint8_t *)queued->buffer;
    struct index_frame *frame = NULL, *old;
    struct kv_record record;
    uint32_t crc;
    struct status st;

    REQUIRE(kv_record_get(&record, &crc, &failed->super, image, &st));
    append.record = &record;
    old = record.type == KV_RECORD_FRAME ? index_part_find(&failed->index, record.seq) : NULL;
    REQUIRE(segment_append(segment, &append, &frame, &st));
    queued->buffer = NULL;
    if (frame != NULL && old != NULL && old->image != NULL)
        ram_move_owner(old->image, &frame->image);
}

static void forget_marks(struct segment *segment, const struct segment_record *record)
{
    uint32_t keep = segment->mark_count;

    for (; record != NULL; record = record->next)
        keep -= record->entry.type == KV_RECORD_GAP || record->entry.type == KV_RECORD_EVENT;
    segment_drop_marks(segment, keep);
}

/* Right behind the one it continues, also for the next start: segments are in the order of their numbers, and one that was
 * begun meanwhile may have the same first one, when only an end is written again. */
static struct segment *begin_segment_behind(struct stream *stream, const struct segment *failed,
                                            const struct segment_record *records)
{
    struct segment *segment;
    uint32_t at = stream->segment_count;

    segment = stream_begin_segment(stream, failed->super.epoch, failed->durable_end_seq,
                                   bytes_for(stream, records), failed->super.created_ns + 1);
    REQUIRE(segment != NULL);
    for (; stream->segments[at - 1] != failed; at--)
        stream->segments[at] = stream->segments[at - 1];
    stream->segments[at] = segment;
    return segment;
}

void stream_segment_failed(struct stream *stream, struct segment *failed)
{
    bool is_written = stream_last_segment(stream) == failed && stream->writer != NULL &&
                      failed->super.epoch == stream->epoch;
    struct segment_record *record = segment_take_undurable(failed), *next;
    struct segment *segment = NULL;
    uint64_t frames = 0;
    struct status st;

    forget_marks(failed, record);
    if (record != NULL) {
        segment = begin_segment_behind(stream, failed, record);
        REQUIRE(stream_append_init_copy(stream, segment, &st));
    }
    for (; record != NULL; record = next) {
        next = record->next;
        frames += record->entry.type == KV_RECORD_FRAME;
        if (record->entry.type == KV_RECORD_INIT)
            failed->init_offset = 0;
        else
            append_again(failed, segment, record);
        segment_record_free(stream->store->arena, record);
    }
    failed->end_seq = failed->durable_end_seq;
    index_part_cut(&failed->index, failed->index.frame_count - frames);
    if (segment != NULL && !is_written)
        segment_close(segment); /* nothing more will come */
    stream_pump(stream);
}
