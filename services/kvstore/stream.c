/* The life of a stream's blocks. The segments they go to are in stream_segment.c, its file stream.json in stream_file.c,
 * its end in stream_delete.c. */
#include "kvstore/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "kvstore/segment_age.h"
#include "kvstore/segment_job.h"
#include "kvstore/store.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_rival.h"

bool stream_create(struct stream **stream_p, struct store *store, const char *ns, const char *name,
                   struct status *st)
{
    struct stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for stream %s", name);
    stream->store = store;
    stream->saves_end = &stream->saves;
    if (!text_copy(stream->ns, sizeof stream->ns, ns) ||
        !text_copy(stream->name, sizeof stream->name, name) ||
        snprintf(stream->folder, sizeof stream->folder, "%s/v1/%s/%s", store->options.root, ns, name) >=
            (int)sizeof stream->folder) {
        free(stream);
        return status_fail(st, STATUS_INVALID, "stream %.80s: name or folder is too long", name);
    }
    *stream_p = stream;
    return true;
}

void stream_free(struct stream *stream)
{
    if (stream == NULL)
        return;
    REQUIRE(stream->saves == NULL);
    REQUIRE(stream->writer == NULL);
    for (uint32_t i = 0; i < stream->segment_count; i++)
        segment_destroy(stream->segments[i]);
    free(stream->segments);
    free(stream->init_image);
    free(stream->lost);
    free(stream->holds);
    stream_forget_free(stream);
    stream_rivals_free(stream);
    free(stream);
}

/* --- appending --- */

bool stream_check_block(const struct stream *stream, const struct stream_block *block, bool *is_known_p,
                        struct kv_record *record, struct status *st)
{
    bool is_known = !block->is_init && block->seq < stream->next_seq;
    uint64_t least = block->is_init ? 0 : stream->next_token_index;

    if (block->tokens < 1 || block->tokens > LIMIT_FRAME_TOKENS)
        return status_fail(st, STATUS_INVALID, "block %llu: %u tokens; 1 to %d are allowed",
                           (unsigned long long)block->seq, block->tokens, LIMIT_FRAME_TOKENS);
    if (block->payload_bytes != kv_payload_bytes(&stream->geometry, block->tokens))
        return status_fail(st, STATUS_INVALID, "block %llu: payload of %llu bytes; its %u tokens make %llu",
                           (unsigned long long)block->seq, (unsigned long long)block->payload_bytes,
                           block->tokens,
                           (unsigned long long)kv_payload_bytes(&stream->geometry, block->tokens));
    if (block->thumbnail_bytes > LIMIT_THUMBNAIL_BYTES)
        return status_fail(st, STATUS_INVALID, "block %llu: thumbnail of %u bytes; at most %d",
                           (unsigned long long)block->seq, block->thumbnail_bytes, LIMIT_THUMBNAIL_BYTES);
    if (!block->is_init && block->seq > stream->next_seq)
        return status_fail(st, STATUS_INVALID,
                           "block %llu: number %llu is next; say what is missing as a gap",
                           (unsigned long long)block->seq, (unsigned long long)stream->next_seq);
    if (!is_known && (block->token_index < least || block->token_index >= STREAM_NUMBER_MAX))
        return status_fail(st, STATUS_INVALID, "block %llu: token index %llu; the stream is at %llu",
                           (unsigned long long)block->seq, (unsigned long long)block->token_index,
                           (unsigned long long)least);
    if (block->seq >= STREAM_NUMBER_MAX)
        return status_fail(st, STATUS_INVALID, "block %llu: a stream has no more numbers than %llu",
                           (unsigned long long)block->seq, STREAM_NUMBER_MAX);
    if (block->payload_bytes > UINT32_MAX / 2)
        return status_fail(st, STATUS_INVALID, "block %llu: payload of %llu bytes; at most 2 GiB",
                           (unsigned long long)block->seq, (unsigned long long)block->payload_bytes);
    *is_known_p = is_known;
    kv_record_init_block(record, block->is_init ? KV_RECORD_INIT : KV_RECORD_FRAME, &stream->geometry,
                         block->tokens);
    record->seq = block->is_init ? stream->next_seq : block->seq;
    record->end_seq = block->is_init ? record->seq : record->seq + 1;
    record->pts_ns = record->end_pts_ns = block->pts_ns;
    record->token_index = block->token_index;
    record->thumbnail_bytes = block->thumbnail_bytes;
    return true;
}

/* The system prompt's tokens count once, in the first epoch. */
static void advance_tokens(struct stream *stream, const struct kv_record *record)
{
    uint64_t end = record->token_index + record->tokens;

    if (end > stream->next_token_index)
        stream->next_token_index = end;
}

void stream_drop_init(struct stream *stream)
{
    free(stream->init_image);
    stream->init_image = NULL;
    stream->init_record.layers = 0;
    stream->init_goes = false;
}

static bool keep_init(struct stream *stream, const struct kv_record *record, const struct ram_slot *slot,
                      struct status *st)
{
    struct kv_layout layout;
    uint8_t *image;

    kv_record_layout(record, &layout);
    image = disk_buffer(layout.record_bytes);
    if (image == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the system prompt's block");
    memcpy(image, ram_bytes(stream->store->arena, slot), layout.record_bytes);
    stream_drop_init(stream);
    stream->init_image = image;
    stream->init_record = *record;
    return true;
}

static bool has_segment_of_epoch(const struct stream *stream)
{
    const struct segment *last = stream_last_segment(stream);

    return last != NULL && segment_is_open(last) && last->super.epoch == stream->epoch;
}

/* INIT is copied into every segment from the stream's own copy; the first one begins with the first frame. */
static bool append_init(struct stream *stream, struct kv_record *record, const struct ram_slot *slot,
                        struct status *st)
{
    if (has_segment_of_epoch(stream))
        return status_fail(st, STATUS_INVALID,
                           "the system prompt's block comes before an epoch's first frame");
    if (!keep_init(stream, record, slot, st) || !stream_import_plan_init(stream, st))
        return false;
    advance_tokens(stream, record);
    return true;
}

/* What its segments say counts more. */
static void save_state(struct stream *stream)
{
    struct status st;

    if (!stream_save(stream, NULL, NULL, &st))
        log_error(NULL, "stream_not_saved", "%s/%s: %s", stream->ns, stream->name, st.text);
}

/* More came: what was said of its end, or of what keeps it, holds no more. */
static void goes_on(struct stream *stream)
{
    stream->encoder_says[0] = '\0';
    if (!stream->has_ended)
        return;
    stream->has_ended = false;
    stream->trouble[0] = '\0';
    save_state(stream);
}

static bool check_index_room(const struct stream *stream, uint64_t bytes, struct status *st)
{
    const struct index_memory *memory = &stream->store->index_memory;

    if (stream_is_filled(stream))
        return memory->used_bytes + bytes <= memory->limit_bytes ||
               status_fail(st, STATUS_EXHAUSTED,
                           "the index has no room, and an import removes nothing of other streams");
    return store_has_index_room(stream->store, bytes) ||
           status_fail(st, STATUS_EXHAUSTED, "the index has no room; old segments are going");
}

bool stream_append(struct stream *stream, struct kv_record *record, struct ram_slot *slot, struct status *st)
{
    struct segment_append append = { .record = record, .slot = slot };
    struct index_frame *frame;
    struct segment *segment;

    if (record->type == KV_RECORD_INIT)
        return append_init(stream, record, slot, st);
    segment = stream_segment_for(stream, record, st);
    if (segment == NULL)
        return false;
    if (!check_index_room(stream, index_part_growth(&segment->index, &segment->super.geometry), st) ||
        !segment_append(segment, &append, &frame, st))
        return false;
    ram_publish(stream->store->arena, slot, &frame->image, &stream->share);
    stream->next_seq = record->end_seq;
    stream->stored_frames++;
    goes_on(stream);
    stream->last_pts_ns = record->pts_ns;
    advance_tokens(stream, record);
    segment_pump(segment);
    store_start_commits(stream->store);
    return true;
}

static uint32_t waiting_notes(const struct stream *stream)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < stream->segment_count; i++)
        count += segment_waiting_notes(stream->segments[i]);
    return count;
}

/* A GAP that goes on where the last record ended, for the same reason, needs none of its own: but one that is being
 * forgotten. */
static bool extend_gap(struct stream *stream, const struct kv_record *record, const char *note)
{
    struct segment *last = stream_last_segment(stream);
    char text[KV_NOTE_BYTES_MAX];
    size_t bytes = stream_copy_text(text, sizeof text, note);
    bool ok = last != NULL && last->super.epoch == stream->epoch &&
              !stream_forgets_below(stream, record->seq) && segment_extend_gap(last, record, text, bytes);

    explicit_bzero(text, sizeof text);
    if (ok)
        stream->next_seq = record->end_seq;
    return ok;
}

/* A GAP or EVENT record with its note, in a buffer of its own. */
static bool append_note(struct stream *stream, struct kv_record *record, const char *note, struct status *st)
{
    struct segment_append append = { .record = record };
    char text[KV_NOTE_BYTES_MAX];
    struct segment *segment;
    struct kv_layout layout;

    if (waiting_notes(stream) >= STREAM_NOTES_WAITING)
        return status_fail(st, STATUS_EXHAUSTED, "stream %s: %d gaps and ends wait for the disk",
                           stream->name, STREAM_NOTES_WAITING);
    record->note_bytes = (uint32_t)stream_copy_text(text, sizeof text, note);
    segment = stream_segment_for(stream, record, st);
    if (segment == NULL || !check_index_room(stream, segment_mark_bytes(record->note_bytes), st))
        return false;
    kv_record_layout(record, &layout);
    append.buffer = disk_buffer(layout.record_bytes);
    if (append.buffer == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a note of stream %s", stream->name);
    memcpy((char *)append.buffer + layout.note, text, record->note_bytes);
    kv_record_checksum(record, append.buffer);
    explicit_bzero(text, sizeof text);
    if (!segment_append(segment, &append, NULL, st)) {
        disk_buffer_free(append.buffer, layout.record_bytes);
        return false;
    }
    stream->next_seq = record->end_seq;
    segment_pump(segment);
    store_start_commits(stream->store);
    return true;
}

bool stream_append_gap(struct stream *stream, const struct stream_gap *gap, struct status *st)
{
    struct kv_record record = { .type = KV_RECORD_GAP,
                                .seq = gap->from_seq,
                                .end_seq = gap->to_seq,
                                .pts_ns = gap->from_pts_ns,
                                .end_pts_ns = gap->to_pts_ns };

    if (gap->to_seq <= gap->from_seq || gap->from_seq > stream->next_seq || gap->to_seq > STREAM_NUMBER_MAX)
        return status_fail(st, STATUS_INVALID, "gap %llu to %llu: number %llu is next",
                           (unsigned long long)gap->from_seq, (unsigned long long)gap->to_seq,
                           (unsigned long long)stream->next_seq);
    if (gap->to_seq <= stream->next_seq)
        return true; /* known: sent again */
    record.seq = stream->next_seq;
    if (!extend_gap(stream, &record, gap->reason) && !append_note(stream, &record, gap->reason, st))
        return false;
    stream->gap_frames += record.end_seq - record.seq;
    goes_on(stream);
    return true;
}

bool stream_end(struct stream *stream, const char *trouble, struct status *st)
{
    struct kv_record record = { .type = KV_RECORD_EVENT,
                                .event = KV_EVENT_END,
                                .seq = stream->next_seq,
                                .end_seq = stream->next_seq,
                                .pts_ns = stream->last_pts_ns,
                                .end_pts_ns = stream->last_pts_ns };

    if (!append_note(stream, &record, trouble, st))
        return false;
    stream->has_ended = true;
    stream_set_trouble(stream, trouble);
    stream->init_goes = true;
    segment_close(stream_last_segment(stream));
    save_state(stream);
    return true;
}

/* --- writers --- */

static void drop_writer(struct stream *stream, const struct status *why)
{
    struct stream_writer *writer = stream->writer;

    if (writer == NULL)
        return;
    stream->writer = NULL;
    stream->store->writer_count--;
    ram_set_shares(stream->store->arena, stream->store->writer_count);
    writer->fenced(writer, why);
}

void stream_fence_writer(struct stream *stream, const struct status *why)
{
    struct segment *last = stream_last_segment(stream);

    drop_writer(stream, why);
    if (last != NULL)
        segment_close(last);
}

bool stream_attach(struct stream *stream, uint64_t epoch, struct stream_writer *writer, struct status *st)
{
    if (epoch != stream->epoch || epoch == 0)
        return status_fail(st, STATUS_ABORTED,
                           "stream %s: epoch %llu was fenced by %llu (%s); open the stream again",
                           stream->name, (unsigned long long)epoch, (unsigned long long)stream->epoch,
                           stream->writer_name);
    if (stream->writer != NULL)
        return status_fail(st, STATUS_ABORTED, "stream %s: epoch %llu has another call appending",
                           stream->name, (unsigned long long)epoch);
    stream->writer = writer;
    stream->encoder_says[0] = '\0';
    stream->store->writer_count++;
    ram_set_shares(stream->store->arena, stream->store->writer_count);
    return true;
}

void stream_detach(struct stream *stream, struct stream_writer *writer)
{
    struct segment *last = stream_last_segment(stream);

    if (stream->writer != writer)
        return;
    stream->writer = NULL;
    stream->store->writer_count--;
    ram_set_shares(stream->store->arena, stream->store->writer_count);
    if (last != NULL)
        segment_close(last);
}

/* --- what the store and the segments tell --- */

void stream_pump(struct stream *stream)
{
    stream->waits_for_room = false;
    for (uint32_t i = 0; i < stream->segment_count; i++)
        segment_pump(stream->segments[i]);
}

void stream_commit(struct stream *stream)
{
    for (uint32_t i = 0; i < stream->segment_count; i++)
        segment_commit(stream->segments[i]);
}

void stream_progress(struct stream *stream)
{
    if (stream->writer != NULL)
        stream->writer->moved(stream->writer);
    if (stream->init_goes && stream_is_durable(stream))
        stream_drop_init(stream);
    if (stream->deletion != NULL)
        stream_continue_deletion(stream);
    segment_age_pump(stream->store);
}

/* Frames and marks, each in the order of numbers, as one list of spans. */
void stream_add_to_history(struct history *history, const struct segment *segment)
{
    struct segment_cursor cursor = { 0 };
    const struct segment_mark *mark;
    const struct index_frame *frame;

    while (segment_next(segment, &cursor, &frame, &mark)) {
        struct history_span span;

        if (frame != NULL) {
            span = (struct history_span){ frame->seq, frame->seq + 1, frame->pts_ns, frame->pts_ns, 1 };
        } else {
            span = (struct history_span){ mark->seq, mark->end_seq, mark->pts_ns, mark->end_pts_ns, 0 };
            if (mark->is_damaged || mark->type == KV_RECORD_TOMBSTONE)
                span.frames = mark->end_seq - mark->seq;
        }
        history_add(history, &span);
    }
    if (segment->end_seq > history->next_seq)
        history->next_seq = segment->end_seq;
    if (segment->end_token_index > history->next_token_index)
        history->next_token_index = segment->end_token_index;
}

/* What a segment says of its numbers, added to the stream's counts or taken off. */
static void count_segment(struct stream *stream, const struct segment *segment, int sign)
{
    const struct segment_counts counts = segment_count_marks(segment);

    stream->stored_frames += (uint64_t)sign * segment->index.frame_count;
    stream->gap_frames += (uint64_t)sign * counts.gap_frames;
    stream->damaged_frames += (uint64_t)sign * counts.damaged_frames;
    stream->evicted_frames += (uint64_t)sign * counts.evicted_frames;
}

uint32_t stream_place_of(const struct stream *stream, const struct segment *segment)
{
    uint32_t at = 0;

    while (at < stream->segment_count && stream->segments[at] != segment)
        at++;
    REQUIRE(at < stream->segment_count);
    return at;
}

void stream_replace_segment(struct stream *stream, struct segment *old, struct segment *made)
{
    count_segment(stream, old, -1);
    count_segment(stream, made, 1);
    stream->segments[stream_place_of(stream, old)] = made;
}

void stream_release_segment(struct stream *stream, struct segment *segment)
{
    uint32_t at = stream_place_of(stream, segment);

    stream_add_to_history(&stream->history, segment);
    count_segment(stream, segment, -1);
    stream->segment_count--;
    memmove(&stream->segments[at], &stream->segments[at + 1], (stream->segment_count - at) * sizeof segment);
    index_part_drop(&segment->index, stream->store->arena);
}
